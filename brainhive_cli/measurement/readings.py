"""Readings of a foreign result: usual conventions by which its files give a score."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot
from torch.nn.utils.rnn import pad_sequence

from brainhive_cli.core.base import Int64
from brainhive_cli.measurement.foreign_result import ForeignResult
from brainhive_cli.measurement.linear_maps import FeatureScaler
from brainhive_cli.measurement.ranks import normalise_tokens

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
            reading = _read(training, *names)
            if reading is not None:
                readings.append(reading)
        if readings:
            yield ", ".join(name for name in names if name != AS_FILED), readings


def _count_changes(names: tuple[str, ...]) -> int:
    """Count the conventions that change the files."""
    return len(names) - names.count(AS_FILED)


def _read(
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
        predictions = _average(predictions.double(), picture_of_signal)

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
            values = _average(values, picture_of_signal)
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


def _average(values: Tensor, picture_of_signal: Tensor) -> Tensor:
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
    compared. 100 says how low.
    """
    values = values.where(values.isfinite(), torch.nan)
    present = values[values.isfinite()]
    # Largest ratio of a negative similarity to the largest absolute value of the higher
    # similarities. A similarity further below zero, such as -10⁹, masks a missing
    # value.
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
