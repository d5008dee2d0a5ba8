"""Retrieval result of another project: similarities, claims, readings and epoch log."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot
from torch.nn.utils.rnn import pad_sequence

from brainhive_cli.core.base import Float64, Int64
from brainhive_cli.measurement.linear_maps import FeatureScaler
from brainhive_cli.measurement.ranks import (
    TIE_TOLERANCE,
    normalise_tokens,
    rank_targets,
)

PRECISION = {torch.float16: 1e-3, torch.float32: 1e-6}
"""Rounding error of a file's similarities by data type, as a share of the largest.
Other types have `TIE_TOLERANCE`.
"""
AS_FILED = ""
"""Convention that leaves the files unchanged. The names of readings do not mention it.
"""
DISTANCE = "distances, of which small ones are alike"
COSINE = "cosine similarity"
PEARSON = "Pearson correlation"
EUCLIDEAN = "Euclidean distance"
DOT = "dot product"
STANDARDISED_GALLERY = "cosine with the gallery standardised"
MEASURES = (
    AS_FILED,
    DISTANCE,
    COSINE,
    PEARSON,
    EUCLIDEAN,
    DOT,
    STANDARDISED_GALLERY,
)
MEAN_SIMILARITY = "mean similarity of repetitions"
MEAN_PREDICTION = "mean prediction of repetitions"
WITHOUT_MISSING = "signals left out whose own similarity is missing"
REPETITIONS = (AS_FILED, MEAN_SIMILARITY, MEAN_PREDICTION, WITHOUT_MISSING)
LAYOUTS = (AS_FILED, "rows are candidates")
DIRECTIONS = (AS_FILED, "picture to signal")
MAX_ROUNDING_POINTS = 0.5
"""Rounding error of a claim without decimals, in percentage points."""
SCORE_KIND = re.compile(
    r"test|val(id(ation)?)?|dev|train(ing)?|(top|acc|recall)[\W_]?\d|acc(uracy)?|loss|"
    r"rank|auc|recall|top"
)
"""Matches the kind of score and the split in a name, such as "val" and "top1"."""


@dataclass(frozen=True)
class ForeignResult:
    """Similarities of test signals to a gallery, with the claims of the publisher.

    The pictures of the gallery are ranked for each signal, or signals for each picture
    if `ranked_pictures` is set. N is the number of rankings.

    Attributes:
        similarities: Similarities [N, M] of the candidates in each ranking. A larger
            value means more similar.
        targets: Right candidates [N, K], as column numbers of `similarities`. Rows with
            fewer than K are padded with -1.
        seen_names: Name [N] of the seen picture of each ranking.
        train_ids: Names of the training pictures.
        gallery: Embeddings [M, D] of the pictures, or None.
        train_embeddings: Embeddings [T, D] of the training pictures, or None.
        log: Scores [E] of E epochs, keyed by the name of the score.
        claims: Claimed values by name, with shares in percent. `interval` is half the
            width of a confidence interval, `trainings` the number of seeds or subjects
            if the values are their means, and `rounding` the largest rounding error of
            the top-k scores by their decimals.
        k: The k of the top-k score that is checked.
        predictions: Predicted embeddings [N, D], or None.
        alternative_targets: Targets [N, K] by other usual meanings of the labels, keyed
            by the meaning.
        other_trainings: Results of the other seeds or subjects in the files.
        n_missing: Number of similarities that are masked or not a finite number.
        ranked_pictures: Gallery row [N] of the picture for which signals are ranked, or
            None if pictures are ranked.
    """

    similarities: Tensor
    targets: Tensor
    seen_names: Sequence[str]
    train_ids: Sequence[str] = ()
    gallery: Tensor | None = None
    train_embeddings: Tensor | None = None
    log: Mapping[str, Float64] = field(default_factory=dict)
    claims: Mapping[str, float] = field(default_factory=dict)
    k: int = 1
    predictions: Tensor | None = None
    alternative_targets: Mapping[str, Tensor] = field(default_factory=dict)
    other_trainings: Sequence["ForeignResult"] = ()
    n_missing: int = 0
    ranked_pictures: Tensor | None = None

    @property
    def picture_rows(self) -> Tensor:
        """Gallery row [N] of the seen picture of each ranking."""
        if self.ranked_pictures is None:
            return self.targets[:, 0]
        return self.ranked_pictures

    @property
    def pool(self) -> int:
        """Number of candidates in a ranking. All right candidates count as one."""
        return self.similarities.shape[1] - self.targets.shape[1] + 1

    @cached_property
    def ranks(self) -> Int64:
        """Ranks [N] of the targets. Ties count against the model."""
        return self.rank_with_ties(TIE_TOLERANCE)

    @cached_property
    def rank_ranges(self) -> tuple[Int64, Int64]:
        """Lowest and highest rank [N] of each target that rounding allows."""
        tolerance = PRECISION.get(self.similarities.dtype, TIE_TOLERANCE)
        return self.rank_with_ties(-tolerance), self.rank_with_ties(tolerance)

    def rank_with_ties(self, tolerance: float) -> Int64:
        """Rank the targets, where similarities within a tolerance are tied.

        Args:
            tolerance: Share of the largest similarity. Ties count against the model if
                it is positive, and for the model if it is negative.

        Returns:
            Ranks [N], from 1.
        """
        values = self.similarities.double()
        largest = float(values.abs().max()) or 1.0
        return rank_targets(values / largest, None, self.targets, tolerance).numpy()

    def compute_top_k(self, ranks: Int64 | None = None) -> float:
        """Compute the top-k score that is checked, in percent.

        Args:
            ranks: Ranks [N] to use. The default is the ranks of this result.
        """
        if ranks is None:
            ranks = self.ranks
        return 100 * float((ranks <= self.k).mean())


def list_readings(result: ForeignResult) -> Iterator[tuple[str, list[ForeignResult]]]:
    """Interpret a published result by each combination of usual conventions.

    Combinations that change fewer conventions of the files come first.

    Args:
        result: Result as stored in the files.

    Yields:
        A name and a list of results. The name joins the changed conventions by commas,
        such as "cosine similarity", or "" for the unchanged files. The list has the
        result of each seed or subject to which the conventions apply.
    """
    labels = (AS_FILED, *result.alternative_targets)
    combinations = product(MEASURES, labels, REPETITIONS, LAYOUTS, DIRECTIONS)
    for names in sorted(combinations, key=_count_changes):
        readings = list[ForeignResult]()
        for training in (result, *result.other_trainings):
            reading = _apply_conventions(training, *names)
            if reading is not None:
                readings.append(reading)
        if readings:
            yield ", ".join(name for name in names if name != AS_FILED), readings


def _count_changes(names: tuple[str, ...]) -> int:
    """Count the conventions that change the files."""
    return len(names) - names.count(AS_FILED)


def _apply_conventions(
    result: ForeignResult,
    measure: str,
    labels: str,
    repetitions: str,
    layout: str,
    direction: str,
) -> ForeignResult | None:
    """Read a result by a convention of each kind.

    Args:
        result: Result as stored in the files.
        measure: Name in `MEASURES`.
        labels: Name in `alternative_targets` of the result, or `AS_FILED`.
        repetitions: Name in `REPETITIONS`.
        layout: Name in `LAYOUTS`.
        direction: Name in `DIRECTIONS`.

    Returns:
        The interpreted result, or None if a convention does not apply to the files.
    """
    # signals of the same picture are its repetitions
    targets = result.alternative_targets.get(labels, result.targets)
    _, first_signals, numbers = np.unique(
        targets[:, 0], return_index=True, return_inverse=True
    )
    picture_of_signal = torch.from_numpy(numbers)  # [N]
    is_averaged = repetitions in (MEAN_SIMILARITY, MEAN_PREDICTION)
    if is_averaged and len(first_signals) == len(targets):
        return None
    predictions = result.predictions
    if repetitions == MEAN_PREDICTION and predictions is not None:
        predictions = _average_by_picture(predictions.double(), picture_of_signal)

    # similarities [N, M] from the file or from predictions, with NaN for missing values
    if measure in (AS_FILED, DISTANCE) and repetitions != MEAN_PREDICTION:
        values = result.similarities if measure == AS_FILED else -result.similarities
    elif predictions is None or result.gallery is None or measure == DISTANCE:
        return None
    else:
        values = compute_similarities(predictions, result.gallery, measure)
        values = values.to(result.similarities.dtype)
    values = _mark_missing(values)
    if layout != AS_FILED:
        # if all targets are on the diagonal, transposing is the convention `direction`
        is_diagonal = bool((targets[:, 0] == torch.arange(len(targets))).all())
        if values.shape[0] != values.shape[1] or is_diagonal:
            return None
        values = values.T
    n_missing = int(values.isnan().sum())

    # keep a row for each picture, or the signals with a similarity to their picture
    rows: Int64 | None = None
    if is_averaged:
        if repetitions == MEAN_SIMILARITY:
            values = _average_by_picture(values, picture_of_signal)
        rows = first_signals
    elif repetitions == WITHOUT_MISSING:
        target_values = values.gather(1, targets.clamp(min=0))
        target_values = target_values.masked_fill(targets < 0, torch.nan)
        has_target = target_values.isfinite().any(1)
        if not has_target.any() or has_target.all():
            return None
        values = values[has_target]
        rows = has_target.nonzero()[:, 0].numpy()
    seen_names = list(result.seen_names)
    if rows is not None:
        targets = targets[rows]
        seen_names = [seen_names[row] for row in rows]

    # transpose to rank the signals for each picture
    ranked_pictures = None
    if direction != AS_FILED:
        ranked_pictures = targets[:, 0].unique()
        values = values.T[ranked_pictures]
        signals_of_picture = []
        for picture in ranked_pictures:
            shows_picture = (targets == picture).any(1)
            signals_of_picture.append(shows_picture.nonzero()[:, 0])
        seen_names = [seen_names[int(signals[0])] for signals in signals_of_picture]
        targets = pad_sequence(signals_of_picture, batch_first=True, padding_value=-1)
    return replace(
        result,
        similarities=fill_missing(values),
        targets=targets,
        seen_names=seen_names,
        n_missing=n_missing,
        predictions=predictions,
        other_trainings=(),
        ranked_pictures=ranked_pictures,
    )


def compute_similarities(predictions: Tensor, gallery: Tensor, measure: str) -> Tensor:
    """Compute the similarities of predictions to candidate pictures.

    Args:
        predictions: Embeddings [N, D] that a model predicted from N signals.
        gallery: Embeddings [M, D] of the candidate pictures.
        measure: Name in `MEASURES`. Other names give the cosine similarity.

    Returns:
        Similarities [N, M] in float64. Euclidean distances are multiplied by -1.
    """
    predictions = predictions.double()
    gallery = gallery.double()
    if measure == DOT:
        return predictions @ gallery.T
    if measure == EUCLIDEAN:
        return -torch.cdist(predictions, gallery)
    if measure == PEARSON:
        predictions = predictions - predictions.mean(1, keepdim=True)
        gallery = gallery - gallery.mean(1, keepdim=True)
    elif measure == STANDARDISED_GALLERY:
        gallery = FeatureScaler.fit(gallery)(gallery)
    return normalise_tokens(predictions) @ normalise_tokens(gallery).T


def _average_by_picture(values: Tensor, picture_of_signal: Tensor) -> Tensor:
    """Average the rows of each picture, without missing values (NaN and infinities).

    Args:
        values: Values [N, M] with a row for each signal.
        picture_of_signal: Number [N] of the picture of each signal, from 0 to P - 1.

    Returns:
        Mean [P, M] over the signals of each picture. NaN if all values are missing.
    """
    membership = one_hot(picture_of_signal).T.double()  # [P, N]
    sums = membership @ values.nan_to_num(0).double()
    counts = membership @ values.isfinite().double()
    return (sums / counts).to(values.dtype)


def _mark_missing(values: Tensor) -> Tensor:
    """Replace infinities and masks in similarities [N, M] by NaN.

    A mask is a very low value, such as -10⁹, of signals and candidates that were not
    compared.
    """
    values = values.where(values.isfinite(), torch.nan)
    present = values[values.isfinite()]
    # Largest ratio of a negative similarity to the largest absolute value of
    # the higher similarities. A similarity further below zero, such as -10⁹,
    # masks a missing value.
    mask_ratio = 100
    if not len(present) or present.min() >= -mask_ratio * present.max().abs():
        return values

    # Largest absolute value above each level (value in the matrix) but the highest. The
    # levels are sorted, so the next or the highest level has it.
    levels, counts = present.unique(return_counts=True)
    largest_above = levels[1:].abs().maximum(levels[-1].abs())

    # Logarithms and negative distances may have a few values near 0, far above all
    # others. So at least N values above a mask are needed, which are not all 0.
    n_above = len(present) - counts.cumsum(0)[:-1]
    is_far_below = levels[:-1] < -mask_ratio * largest_above
    is_mask = is_far_below & (n_above >= len(values)) & (largest_above > 0)
    masks = levels[:-1][is_mask]
    if not len(masks):
        return values
    return values.where(values > masks[-1], torch.nan)


def fill_missing(values: Tensor) -> Tensor:
    """Replace missing similarities (NaN and infinities) by a value below all others.

    Args:
        values: Similarities of any shape.

    Returns:
        Finite similarities of the same shape. Zeros if all similarities are missing.
    """
    present = values[values.isfinite()]
    if len(present) == values.numel():
        return values
    if not len(present):
        return torch.zeros_like(values)
    lowest = float(present.min())
    span = max(float(present.max()) - lowest, 1e-3)
    fill = max(lowest - span, torch.finfo(values.dtype).min)
    return values.nan_to_num(fill)


@dataclass(frozen=True)
class EpochLog:
    """Test scores of a training by epoch, read from the log of another project.

    Attributes:
        column: Name of the test scores in the log file.
        scores: Test score [E] of each of E epochs, in percent.
        usual_scores: Test scores [U] in percent at the last epoch, and at the best
            epochs by each validation or training score.
        unselected_scores: Scores [S] in percent that can be reported without choosing
            an epoch by its test score: `usual_scores`, and the means of the test scores
            of the last 1, 2, … E epochs.
        is_validated: True if the log also has a validation score of each epoch.
        rounding: Largest rounding error of the scores in the file, in percentage
            points.
    """

    column: str
    scores: Float64
    usual_scores: Float64
    unselected_scores: Float64
    is_validated: bool
    rounding: float


def find_logs(result: ForeignResult) -> dict[str, EpochLog]:
    """Find the test scores of the checked top-k in the log of a result.

    Args:
        result: Result of another project, whose log has scores by epoch.

    Returns:
        Log of each training, keyed by the name of the training.
    """
    # the columns of each training, in a single pass because a log may have thousands
    names_of_training = defaultdict[str, list[str]](list)
    for name in result.log:
        names_of_training[_find_training(name)].append(name)

    # the test score of each training, where a name with the checked k wins
    test_names = dict[str, str]()
    # Matches names of scores whose smallest value is the best.
    lower_is_better = re.compile("loss|rank(?!_?auc)")
    # Matches names of scores whose smallest value is the best.
    lower_is_better = re.compile("loss|rank(?!_?auc)")
    for name in sorted(result.log, key=_find_k, reverse=True):
        column = _find_column(name)
        is_test = "test" in column and not lower_is_better.search(column)
        if is_test and _find_k(name) in (0, result.k):
            test_names.setdefault(_find_training(name), name)

    # if no score exceeds 1, the scores are shares, not percentages
    scale = 1
    if test_names:
        largest = max(np.nanmax(result.log[name]) for name in test_names.values())
        scale = 100 if largest <= 1 else 1

    logs = dict[str, EpochLog]()
    for training, test_name in test_names.items():
        # means of the last 1, 2, ... E epochs
        scores = scale * result.log[test_name]
        last_scores = scores[np.isfinite(scores)][::-1]
        means_of_last = last_scores.cumsum() / np.arange(1, len(last_scores) + 1)
        usual_scores = [last_scores[:1]]

        # test scores at the best epochs by each validation or training score
        is_validated = False
        for name in names_of_training[training]:
            column = _find_column(name)
            values = result.log[name]
            if len(values) != len(scores) or "test" in column:
                continue
            signed = -values if lower_is_better.search(column) else values
            is_best = signed == np.nanmax(signed)
            usual_scores.append(scores[is_best])
            is_validated |= bool(re.search("val|dev", column))
        logs[training] = EpochLog(
            column=_find_column(test_name),
            scores=scores,
            usual_scores=np.concatenate(usual_scores),
            unselected_scores=np.concatenate([means_of_last, *usual_scores]),
            is_validated=is_validated,
            rounding=compute_rounding(scores),
        )
    return logs


def _find_column(name: str) -> str:
    """Return the part of a name after the last colon, or the name without a colon."""
    return name.rpartition(":")[2]


def _find_training(name: str) -> str:
    """Return the name of a score without its kind and split, which names a training."""
    return SCORE_KIND.sub("", name)


def _find_k(name: str) -> int:
    """Return the k of a top-k score by its name, or 0 if the name has no k."""
    letters = re.sub(r"[^a-z0-9]", "", _find_column(name))
    # Matches the name of a top-k score without punctuation. The group is k.
    match = re.search(r"(?:top|acc|recall)(\d)", letters)
    return int(match[1]) if match else 0


def compute_rounding(values: Float64 | float) -> float:
    """Compute the largest rounding error of percentages from their decimals.

    Args:
        values: Percentages of any shape.

    Returns:
        Half a unit of the last decimal, in percentage points, for at most two decimals.
    """
    for decimals in (0, 1):
        rounded = np.round(values, decimals)
        if np.allclose(values, rounded, rtol=0, atol=1e-6, equal_nan=True):
            return MAX_ROUNDING_POINTS / 10**decimals + 1e-6
    return MAX_ROUNDING_POINTS / 100 + 1e-6
