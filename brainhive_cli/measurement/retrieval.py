"""Scores of picture retrieval: how high a gallery ranks the picture that was seen."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from brainhive_cli.core.arrays import Array, Float64, Int64
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.measurements import BACKWARD, TRANSDUCTIVE
from brainhive_cli.core.seeds import derive_seed
from brainhive_cli.measurement.corrections import as_tokens, compare_tokens
from brainhive_cli.measurement.interleaving import Interleaving
from brainhive_cli.measurement.ranks import (
    find_nearest,
    normalise_tokens,
    rank_first_pictures,
    rank_targets,
    rank_with_precision,
)
from brainhive_cli.measurement.units import GroupingCriterion, Items, StimulusGrouping

MAX_CORRECTED_CANDIDATES = 10_000
"""Largest gallery whose similarities can be corrected. Its tokens take 400 MB."""
MAX_VERDICT_PICTURES = 2048
"""Largest number of pictures that the verdict compares. Their ranks by the signals of
the same pictures take 8 MB per cell.
"""
MAX_DRAWS = 1000
"""Largest number of permutations of a control. The smallest p is 1 / (MAX_DRAWS + 1).
"""
CONTROL_METRICS: Mapping[str, Callable[[Array], Array]] = {
    "top1": lambda ranks: (ranks == 1).mean(-1),
    "top5": lambda ranks: (ranks <= 5).mean(-1),
    "mean_rank": lambda ranks: ranks.mean(-1),
    "mrr": lambda ranks: (1 / ranks).mean(-1),
}
MAX_TRIALS_ENCODED_ALONE = 32
"""Largest number of trials that are encoded without the others. A few evenly spaced
trials are enough, because a dependence on the batch affects every trial.
"""
MAX_TOKEN_DISTANCE = 1e-5
"""Largest cosine distance between two tokens that count as equal. The distance is half
the squared relative difference. Summing in another order changes it by about 1e-12 in
float32 and 1e-6 in TF32, which convolutions on a GPU use.
"""
MAX_SCORE_DIFFERENCE = 1e-6
"""Largest difference between two scores that count as tied: four steps of float32 at 2.
The tokens of two categories may be collinear. All cosines are then -1 or 1, apart from
rounding.
"""
make_empty_column: Callable[[], Array] = partial(np.empty, 0, np.int64)
"""Default of a column that was not measured."""


@dataclass(frozen=True)
class Gallery:
    """Pictures among which the seen picture is searched.

    Each model has its own tokens [M, D] of these M candidates.

    Attributes:
        rows: Row numbers [M_split] of the candidates in the target stores, ascending,
            keyed by split. The first split is the one whose signals are tested.
            Pictures skipped as bad are not candidates. Empty where folds are pooled.
        image_ids: Image ids [M] of the candidates, in the order of the splits.
        concepts: Concept [M] of each candidate.
        alike_by: Property that makes pictures exchangeable in a permutation.
    """

    rows: Mapping[str, Int64]
    image_ids: list[str]
    concepts: list[str]
    alike_by: GroupingCriterion = "concept"

    @property
    def test_rows(self) -> Int64:
        """Rows of the split whose signals are tested, the first of the gallery."""
        return next(iter(self.rows.values()))

    def find(self, image_ids: Iterable[str]) -> Int64:
        """Look up the gallery index [N] of each picture.

        A picture in several splits has the index of the earliest one, whose signals are
        tested.
        """
        index_of: dict[str, int] = {}
        for index, image_id in enumerate(self.image_ids):
            index_of.setdefault(image_id, index)
        return np.array([index_of[image_id] for image_id in image_ids], np.int64)

    def relevant(self, target: Int64) -> Int64:
        """List the candidates that share the concept of each target.

        Args:
            target: Gallery index [N] of the pictures that were seen.

        Returns:
            Gallery indices [N, K]. Rows with fewer than K candidates end in -1.
        """
        indices_of: dict[str, list[int]] = {}
        for index, concept in enumerate(self.concepts):
            indices_of.setdefault(concept, []).append(index)

        # pad every row with -1 to the length of the longest
        rows = [indices_of[self.concepts[index]] for index in target]
        longest = max(len(row) for row in rows)
        padded = np.full((len(rows), longest), -1)
        for row, indices in zip(padded, rows, strict=True):
            row[: len(indices)] = indices
        return padded


@dataclass(frozen=True)
class Scores:
    """Scores of one subject in one cell, as columns with a value per item.

    Columns that were not measured are empty.

    Attributes:
        image_ids: Image id [N] of the picture that each signal showed. Where trials of
            seen pictures are held out, the name of the trial. Empty in a further table
            of the same items.
        labels: Image id [N] that is counted as right. It is the picture that was shown,
            or a different one in a control.
        concepts: Concept [N] of the picture that each signal showed.
        groups: Run, session or fold [N] of each signal. Labels are exchanged only
            within a group. Empty if all labels may be exchanged.
        interleaving: Which labels may be exchanged.
        is_trialwise: True if each token was computed from one signal at a time.
        ranks: Rank [N] of the seen picture. [draws, N] at a point of a curve,
            [splits, N] for halves of the repetitions.
        pool: Number of candidates. 0 if there are none.
        targets: Number of candidates that count as right.
        values: Further metrics, each [N]. `map` is the average precision, where the
            relevant pictures are the candidates of the seen concept. `top1_expected` is
            the share of all possible subsets in which an item ranks first.
            `reliability` is the contribution of each picture to the correlation between
            halves, averaged over channels, times and splits. Its mean over pictures is
            that correlation. For a region, the metric of each head.
        relevant: Number [N] of relevant pictures.
        named: Concept [N] of the candidate that is most similar to the signal.
        nearest: Cosine similarity [N] of the seen picture to the most similar training
            picture, in the space where retrieval compares.
        wins: Contribution [N] of each signal to the area under the ROC curve between
            two pictures, as computed by `share_wins`. The mean over pictures is the
            area. Empty if there are not two pictures.
        candidates: Image ids [P] of the test pictures that the verdict compares, drawn
            at random from a large split. Training pictures are excluded, because they
            may be closer to every signal or farther from it.
        table: Ranks [n, P] of these pictures for each signal that shows one of them, in
            uint16. 0 where a pair was not compared.
        control: Each metric [1 + K] as measured, followed by its K draws under the
            control.
        scopes: Further tables, keyed by the end of their scope, such as `backward`,
            `subsets`, `corrections · csls`, `repetitions · 4` or `regions · V1`.
            `backward` ranks all signals for each picture that was shown. It is left out
            if some pictures were shown more often than others, or if trials of seen
            pictures are held out.
        words: Description of how a further table was measured.
        ceiling: Scores of one half of the repetitions against the other half. They do
            not depend on a model. Only pictures with at least two repetitions count.
        repetitions: Largest number of repetitions of a picture behind a ceiling.
        times: Mean ratio between the repetitions of a picture and those in its half, of
            a ceiling. 2, or more if the number of repetitions is odd.
        reason: Why there is no ceiling.
    """

    image_ids: Sequence[str] = ()
    labels: Sequence[str] = ()
    concepts: Sequence[str] = ()
    groups: Sequence[str] = ()
    interleaving: Interleaving = field(default_factory=lambda: Interleaving([], []))
    is_trialwise: bool = True
    ranks: Int64 = field(default_factory=make_empty_column)
    pool: int = 0
    targets: int = 1
    values: Mapping[str, Float64] = field(default_factory=dict)
    relevant: Int64 = field(default_factory=make_empty_column)
    nearest_concepts: Sequence[str] = ()
    nearest: Float64 = field(default_factory=make_empty_column)
    auc_parts: Sequence[float] = ()
    candidates: Sequence[str] = ()
    table: Array = field(default_factory=make_empty_column)
    control: Mapping[str, Float64] = field(default_factory=dict)
    scopes: Mapping[str, Self] = field(default_factory=dict)
    description: str = ""
    ceiling: Self | None = None
    repetitions: int = 0
    repetition_ratio: float = 2.0
    reason: str = ""

    def get_table(self, name: str) -> Self | None:
        """Return the further table of a scope with the ids of its items, or None."""
        table = self.scopes.get(name)
        if table is None:
            return None
        return replace(table, image_ids=table.image_ids or self.image_ids)

    def surplus(self) -> list[float | None]:
        """Compare the rank of the seen picture for its signal with its rank for others.

        Returns:
            A value [N] per signal: the share of the other test pictures that rank below
            the seen picture, minus the mean of that share over the signals that showed
            other pictures. None if the verdict does not compare the seen picture.
        """
        column_of = {name: column for column, name in enumerate(self.candidates)}
        columns = [column_of[label] for label in self.labels if label in column_of]
        ranks = np.where(self.table > 0, self.table, np.nan)  # [n, P]
        signals = np.arange(len(columns))
        own_ranks = ranks[signals, columns]  # [n]
        n_compared = np.isfinite(ranks).sum(1)  # [n]

        # mean rank of each picture for the signals that showed other pictures
        ranks[signals, columns] = np.nan
        n_signals = np.isfinite(ranks).sum(0)[columns]
        mean_ranks = np.nansum(ranks, 0)[columns] / np.maximum(n_signals, 1)
        shares = (mean_ranks - own_ranks) / np.maximum(1, n_compared - 1)

        # signals whose picture is not compared have no value
        surplus: list[float | None] = [None] * len(self.labels)
        is_compared = [label in column_of for label in self.labels]
        for signal, share, n in zip(
            np.flatnonzero(is_compared), shares.tolist(), n_signals, strict=True
        ):
            surplus[signal] = share if n else None
        return surplus


def permute_targets(
    target: Int64, gallery: Gallery, control: str, seed: int, parts: Sequence[Hashable]
) -> Iterator[Int64]:
    """Pair signals with wrong pictures, once for a control and once per further draw.

    Accuracy that remains after the permutation is chance. All subjects and models use
    the same permutations, because their ranks vary together.

    Args:
        target: Gallery index [N] of the picture that each signal showed.
        gallery: Candidates that `target` indexes.
        control: `none` leaves the pairs as they are, `shuffled` permutes the signals,
            and `permuted` permutes all pictures of the split.
        seed: Seed of the permutations.
        parts: Part [N] of the recording that each held-out trial comes from, if the
            test pictures were also seen in training. Labels are then permuted within
            parts. Empty if whole pictures are held out.

    Yields:
        Gallery index [N] of the picture that each signal is paired with.
    """
    if control == "none":
        yield target
        return

    # trials are permuted within parts, pictures within units of equal composition
    if parts:
        trials = [range(len(parts))]
        items = Items(trials, trials, strata=[parts])
    else:
        alike = StimulusGrouping(gallery.alike_by, dict(enumerate(gallery.concepts)))
        items = alike.make_items([list(range(len(gallery.test_rows))), target.tolist()])

    # the first permutation comes from the seed itself, the draws from a derived seed
    orders = items.draw_permutations(MAX_DRAWS, derive_seed(seed, 0))
    draws = (items.apply_permutation(order) for order in orders)
    for permutation in chain([items.permute(seed)], draws):
        signals = permutation[-1]
        if control == "permuted" and not parts:
            pictures = permutation[0]
            yield pictures[target]
        else:
            yield target[signals]


def measure_control(
    gallery: Gallery, images: Tensor, tokens: Tensor, targets: Sequence[Int64]
) -> dict[str, Float64]:
    """Measure retrieval for the seen pictures and for each draw of a control.

    Args:
        gallery: Candidates.
        images: Tokens [M, D] of the candidates.
        tokens: Tokens [N, D] of the signals.
        targets: 1 + K arrays [N] of gallery indices: the pictures that were seen, then
            the pictures of each draw.

    Returns:
        Metrics [1 + K] by name.
    """
    # rank every picture of the split once, then look up the pictures of each draw
    all_ranks = rank_first_pictures(tokens, images, len(gallery.test_rows))  # [N, M]
    signals = np.arange(len(tokens))
    target_ranks = np.stack([all_ranks[signals, target] for target in targets])
    return {name: metric(target_ranks) for name, metric in CONTROL_METRICS.items()}


def rank(
    gallery: Gallery,
    images: Tensor,
    tokens: Mapping[int, Tensor],
    items: Mapping[int, Scores],
) -> dict[int, Scores]:
    """Rank the gallery for each signal of all subjects, reading a large gallery once.

    Args:
        gallery: Candidates.
        images: Tokens [M, D] of the candidates.
        tokens: Tokens [N, D] of the signals, by subject.
        items: Scores by subject, with the labels of the signals.

    Returns:
        The scores of `items` with the columns that depend on the ranks.
    """
    # rank, average precision and nearest candidate of each signal
    signals = torch.cat([*tokens.values()])  # [N, D]
    target = gallery.find(label for scores in items.values() for label in scores.labels)
    relevant = gallery.relevant(target)  # [N, K]
    ranked = rank_with_precision(
        signals, images, torch.from_numpy(target), torch.from_numpy(relevant)
    )
    seen_ranks, precision = (values.numpy() for values in ranked)
    nearest_rows = find_nearest(signals, images)

    # the rows of each subject
    scores = {}
    start = 0
    for subject, subject_items in items.items():
        stop = start + len(subject_items.labels)
        rows = slice(start, stop)
        start = stop
        subject_scores = replace(
            subject_items,
            ranks=seen_ranks[rows],
            pool=len(gallery.image_ids),
            values={"map": precision[rows]},
            relevant=(relevant[rows] >= 0).sum(1),
            nearest_concepts=[gallery.concepts[index] for index in nearest_rows[rows]],
        )
        if len(images) == 2:
            wins = share_wins(tokens[subject], target[rows], images)
            subject_scores = replace(subject_scores, auc_parts=wins)

        # trials of seen pictures are ranked in one direction only
        if not subject_items.groups:
            backward = _rank_backward(gallery, images, tokens[subject], target[rows])
            subject_scores = replace(subject_scores, scopes=backward)
        scores[subject] = subject_scores
    return scores


def _rank_backward(
    gallery: Gallery, images: Tensor, tokens: Tensor, target: Int64
) -> dict[str, Scores]:
    """Rank all signals for each picture that was shown.

    Returns:
        The scores by scope. Empty if some pictures have more signals than others.
    """
    pictures, counts = np.unique(target, return_counts=True)
    if (counts != counts[0]).any():
        return {}
    signals_of = np.argsort(target, kind="stable").reshape(len(pictures), -1)
    picture_ranks = rank_targets(images[pictures], tokens, torch.from_numpy(signals_of))
    scores = Scores(
        image_ids=[gallery.image_ids[index] for index in pictures],
        ranks=picture_ranks.numpy(),
        pool=signals_of.size,
        targets=signals_of.shape[1],
    )
    return {BACKWARD: scores}


def share_wins(tokens: Tensor, target: Int64, gallery: Tensor) -> list[float]:
    """Compute how much each signal adds to the area under the ROC curve.

    The gallery has two pictures. A signal wins against a signal of the other picture if
    it is more similar to its own picture. A tie is half a win.

    Args:
        tokens: Tokens [N, D] of the signals.
        target: Index [N] of the picture that each signal showed, 0 or 1.
        gallery: Tokens [2, D] of the two pictures.

    Returns:
        Twice the share of won comparisons [N], minus the area. Its mean over pictures
        is the area and has the same sampling variance. Empty if only one of the
        pictures was shown.
    """
    similarities = normalise_tokens(tokens) @ normalise_tokens(gallery).T  # [N, 2]
    scores = (similarities[:, 1] - similarities[:, 0]).cpu().numpy()
    is_second = target == 1
    if is_second.all() or not is_second.any():
        return []

    # signals of the other picture that score lower, with half of the ties
    wins = np.empty(len(scores))
    for is_seen, sign in ((is_second, 1), (~is_second, -1)):
        seen_scores = sign * scores[is_seen]
        other_scores = np.sort(sign * scores[~is_seen])
        n_lower = np.searchsorted(
            other_scores, seen_scores - MAX_SCORE_DIFFERENCE, "left"
        )
        n_lower_or_tied = np.searchsorted(
            other_scores, seen_scores + MAX_SCORE_DIFFERENCE, "right"
        )
        wins[is_seen] = (n_lower + n_lower_or_tied) / 2
    n_second = is_second.sum()
    n_first = len(scores) - n_second
    area = wins.sum() / (2 * n_first * n_second)
    n_comparisons = np.where(is_second, n_first, n_second)
    contributions: list[float] = (2 * wins / n_comparisons - area).tolist()
    return contributions


def rank_corrected(
    gallery: Gallery,
    images: Tensor,
    tokens: Mapping[int, Tensor],
    items: Mapping[int, Scores],
    corrections: Sequence[Any],
) -> dict[str, dict[int, Scores]]:
    """Rank the gallery again after each correction of the similarities.

    Corrections add up: each one is applied to the result of the previous one. Every
    subject is corrected separately. No other function corrects similarities.

    Args:
        gallery: Candidates.
        images: Tokens [M, D] of the candidates.
        tokens: Tokens [N, D] of the signals, by subject.
        items: Scores by subject, with the labels of the signals.
        corrections: Configs of the corrections, in their order.

    Returns:
        Scores by subject, keyed by the names of the corrections so far, such as
        `csls + hungarian`.

    Raises:
        RecipeError: if there are more than `MAX_CORRECTED_CANDIDATES` candidates.
    """
    # the one-hot tokens of corrected similarities are [M, M]
    pool = len(gallery.image_ids)
    if corrections and pool > MAX_CORRECTED_CANDIDATES:
        raise RecipeError(
            f"corrections take at most {MAX_CORRECTED_CANDIDATES} candidates, and the "
            f"gallery has {pool}",
            "set gallery=test, or leave corrections out",
        )
    similarities = {
        subject: compare_tokens(signals, images) for subject, signals in tokens.items()
    }
    scores = {}
    names = []
    for config in corrections:
        # correct the similarities, and make tokens whose cosines are the result
        correct = config.build()
        corrected_tokens = {}
        for subject, signals in tokens.items():
            similarities[subject] = correct(
                similarities[subject], signals, images.to(signals.device)
            )
            corrected_tokens[subject], one_hot = as_tokens(similarities[subject])

        # the candidates are one-hot tokens, the same for all subjects
        names.append(config.kind)
        correction = " + ".join(names)
        words = f"similarities corrected by {correction}, {TRANSDUCTIVE}"
        ranked = rank(gallery, one_hot, corrected_tokens, items)
        scores[correction] = {
            subject: replace(table, description=words)
            for subject, table in ranked.items()
        }
    return scores


def rank_split(
    gallery: Gallery, images: Tensor, tokens: Tensor, items: Scores
) -> Scores:
    """Rank the pictures of the tested split for the verdict, without other splits.

    Args:
        gallery: Candidates.
        images: Tokens [M, D] of the candidates.
        tokens: Tokens [N, D] of the signals.
        items: Scores with the labels of the signals.

    Returns:
        The scores with `candidates` and `table`.
    """
    # every model is compared on the same pictures
    rows = draw_tested(np.arange(len(gallery.test_rows)))
    candidates = [gallery.image_ids[row] for row in rows]
    is_candidate = torch.from_numpy(np.isin(items.labels, candidates))
    table = rank_first_pictures(
        tokens[is_candidate], images[torch.from_numpy(rows)], len(rows)
    )  # [n, P]
    return replace(items, candidates=candidates, table=table.astype(np.uint16))


def draw_tested(rows: Int64) -> Int64:
    """Draw the pictures that the verdict compares, at most `MAX_VERDICT_PICTURES`.

    Args:
        rows: Row numbers [M] of the pictures of the tested split.

    Returns:
        Row numbers [P], ascending. The same rows give the same draw.
    """
    if len(rows) <= MAX_VERDICT_PICTURES:
        return rows
    rng = np.random.default_rng(0)
    return np.sort(rng.choice(rows, MAX_VERDICT_PICTURES, replace=False))


def depends_on_other_trials(
    encode: Callable[[Tensor], Tensor], signals: Tensor
) -> bool:
    """Return True if the token of a trial depends on the other trials in its batch.

    A test with such a model would be transductive.

    Args:
        encode: Model, from signals [n, ...] to tokens [n, D].
        signals: Signals [N, ...] of the test trials. At most `MAX_TRIALS_ENCODED_ALONE`
            evenly spaced trials are compared.

    Returns:
        True if a token changes by more than rounding when its trial is encoded without
        the others, or if it then has no value.

    Source: MOABB 1.7.2, `CrossSubjectMode.TRAIN_TRIALWISE`, which scores one trial at a
    time.
    """
    spaced = np.linspace(0, len(signals) - 1, MAX_TRIALS_ENCODED_ALONE)
    rows = np.unique(spaced.round().astype(np.int64))
    trials = signals[torch.from_numpy(rows)]
    batch_tokens = normalize(encode(trials).double())

    # statistics of a batch need two trials, so a trial is paired with itself
    pair_tokens = [encode(torch.stack([trial, trial]))[:1] for trial in trials]
    single_tokens = normalize(torch.cat(pair_tokens).double())

    # a missing token makes the distance NaN, which fails the comparison
    distance = (batch_tokens - single_tokens).square().sum(1) / 2
    return not bool((distance <= MAX_TOKEN_DISTANCE).all())
