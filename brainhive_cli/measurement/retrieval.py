"""Scores of picture retrieval: how high a gallery ranks the picture that was seen.

Candidates are ranked by the cosine similarity of their tokens (embedding vectors) to
the token of a signal.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from brainhive_cli.core.base import Array, Float64, Int64, RecipeError, derive_seed
from brainhive_cli.core.results import BACKWARD, TRANSDUCTIVE
from brainhive_cli.measurement.corrections import compute_cosines, make_tokens
from brainhive_cli.measurement.design import LabelDesign
from brainhive_cli.measurement.ranks import (
    expected_subset_hits,
    find_nearest,
    normalise_tokens,
    rank_first_pictures,
    rank_targets,
    rank_with_precision,
)
from brainhive_cli.measurement.units import GroupingCriterion, Items, StimulusGrouping

CONCEPT_METRIC = "concept_top1"
"""Metric for how often the candidate ranked first shows the concept that was seen."""
MAX_VERDICT_PICTURES = 2048
"""Largest number of pictures that the verdict compares. The table of their ranks for
the signals of the same pictures takes 8 MB per cell.
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
"""Metrics of a control by name, computed from ranks [..., N]."""
MAX_TRIALS_ENCODED_ALONE = 32
"""Largest number of trials that are encoded without the others. A few evenly spaced
trials are enough, because a dependence on the batch affects every trial.
"""
MAX_CATEGORIES = 50
"""Largest number of candidates for which areas under ROC curves are computed."""


def make_empty_column() -> Array:
    """Make the default of a column that was not measured."""
    return np.empty(0, np.int64)


@dataclass(frozen=True)
class Gallery:
    """Pictures among which the seen picture is searched, called candidates.

    Attributes:
        rows: Row numbers [M_split] of the candidates in the files with the embeddings,
            ascending, keyed by split. The signals of the first split are tested.
        image_ids: Image ids [M] of the candidates, in the order of the splits.
        concepts: Concept [M] of each candidate.
        alike_by: Property that pictures must share to be exchanged in a permutation.
        are_labels: True if the candidates are labels, and the tokens of signals the
            outputs of a classifier.
    """

    rows: Mapping[str, Int64]
    image_ids: list[str]
    concepts: list[str]
    alike_by: GroupingCriterion = "concept"
    are_labels: bool = False

    @property
    def test_rows(self) -> Int64:
        """Row numbers [M_test] of the split whose signals are tested."""
        return next(iter(self.rows.values()))

    def take(self, indices: Int64) -> tuple[list[str], list[str]]:
        """Return the image ids [N] and the concepts [N] of candidates."""
        image_ids = [self.image_ids[index] for index in indices]
        return image_ids, [self.concepts[index] for index in indices]

    def find_indices(self, image_ids: Iterable[str]) -> Int64:
        """Look up the gallery index [N] of each picture.

        If a picture is in several splits, its index in the first of them is returned.
        """
        index_of: dict[str, int] = {}
        for index, image_id in enumerate(self.image_ids):
            index_of.setdefault(image_id, index)
        return np.array([index_of[image_id] for image_id in image_ids], np.int64)

    def list_relevant(self, seen_indices: Int64) -> Int64:
        """List the candidates with the same concept as each seen picture.

        Args:
            seen_indices: Gallery index [N] of the picture that was seen in each signal.

        Returns:
            Gallery indices [N, K], the seen picture among them. Shorter rows are
            padded with -1.
        """
        indices_of_concept: dict[str, list[int]] = {}
        for index, concept in enumerate(self.concepts):
            indices_of_concept.setdefault(concept, []).append(index)

        index_lists = []
        for index in seen_indices:
            index_lists.append(indices_of_concept[self.concepts[index]])
        longest = max(len(indices) for indices in index_lists)
        relevant = np.full((len(index_lists), longest), -1)
        for row, indices in zip(relevant, index_lists, strict=True):
            row[: len(indices)] = indices
        return relevant


@dataclass(frozen=True)
class Scores:
    """Scores of one subject, from one trained model, with a value for each signal.

    Columns that were not measured are empty.

    Attributes:
        image_ids: Image id [N] of the picture that each signal showed, or name of the
            trial if held-out trials show training pictures. Empty in a further table of
            the same signals.
        labels: Image id [N] of the picture that counts as right for each signal: the
            shown picture, or in a control measurement another picture.
        concepts: Concept [N] of each label.
        groups: Run, session or fold [N] of each signal, within which labels are
            exchanged. Empty if all labels may be exchanged.
        units: Unit [N] of each signal in the design of the study, whose label is
            exchanged in tests. Empty if the design is unknown.
        is_trialwise: True if each token was computed from one signal at a time.

        ranks: Rank [N] of the label in the gallery, from 1. Ranks [draws, N] in a table
            for a number of repetitions.
        pool: Number of candidates. 0 if nothing was ranked.
        n_targets: Number of candidates that count as right.
        values: Further metrics [N], keyed by metric:

            - `map`: average precision over the candidates with the label's concept.
            - `concept_top1`: 1 if the candidate ranked first has the label's concept.
            - `top1_expected`: share of all subsets of the candidates in which the
              label ranks first.
            - In a ceiling, `top1`, `top5` and `reliability`: contribution of each
              picture to the metric, which is their mean.
            - In a table of a brain region, per head (output of the model): relative
              squared change of its prediction if the region has the mean signal.
        relevant: Number [N] of candidates with the concept of the label.
        nearest_concepts: Concept [N] of the candidate most similar to each signal.
        auc_parts: Contribution [N] of each signal to the area under the ROC curve,
            which is their mean. Empty unless trials are held out, with at most
            `MAX_CATEGORIES` candidates.
        train_similarities: Largest cosine similarity [N] of the label to a training
            picture, in the space in which pictures are ranked.
        control: Metrics [1 + K], keyed by metric: the value for the shown pictures,
            then for K random permutations.

        verdict_ids: Image ids [P] of the test pictures in `verdict_ranks`.
        verdict_ranks: Ranks [n, P] of these pictures, as uint16, for each signal whose
            label is one of them. 0 if a picture was not compared with the signal.

        scopes: Further tables, keyed by names such as `backward`, `subsets`,
            `corrections · csls`, `repetitions · 4` or `regions · V1`.
        description: In a further table, how its values were measured.

        ceiling: Scores of one half of the repetitions of each picture, retrieved by
            the other half.
        repetitions: Largest number of repetitions of a picture, in a ceiling.
        reason: In a ceiling that could not be measured, the reason.
    """

    image_ids: Sequence[str] = ()
    labels: Sequence[str] = ()
    concepts: Sequence[str] = ()
    groups: Sequence[str] = ()
    units: Int64 = field(default_factory=make_empty_column)
    is_trialwise: bool = True

    # ranks in the whole gallery
    ranks: Int64 = field(default_factory=make_empty_column)
    pool: int = 0
    n_targets: int = 1
    values: Mapping[str, Float64] = field(default_factory=dict)
    relevant: Int64 = field(default_factory=make_empty_column)
    nearest_concepts: Sequence[str] = ()
    auc_parts: Float64 = field(default_factory=make_empty_column)
    train_similarities: Float64 = field(default_factory=make_empty_column)
    control: Mapping[str, Float64] = field(default_factory=dict)

    # ranks for the verdict
    verdict_ids: Sequence[str] = ()
    verdict_ranks: Array = field(default_factory=make_empty_column)

    # further tables
    scopes: Mapping[str, Self] = field(default_factory=dict)
    description: str = ""

    # ceiling
    ceiling: Self | None = None
    repetitions: int = 0
    reason: str = ""

    @classmethod
    def from_targets(
        cls, gallery: Gallery, targets: Int64, names: Sequence[str], **columns: Any
    ) -> Self:
        """List the items of a subject before they are ranked.

        Args:
            gallery: Candidates.
            targets: Gallery index [N] of the picture that each signal showed.
            names: Names [N] of held-out trials. Empty if the items are pictures.
            columns: Further columns.
        """
        labels, concepts = gallery.take(targets)
        return cls(names or labels, labels, concepts, **columns)

    def get_table(self, scope: str) -> Self | None:
        """Return the further table of a scope such as `backward`, or None if missing.

        A table without image ids gets the image ids of these scores.
        """
        table = self.scopes.get(scope)
        if table is None:
            return None
        return replace(table, image_ids=table.image_ids or self.image_ids)

    def compute_rank_advantages(self) -> list[float | None]:
        """Compute how much better each label ranks for its own signal than for others.

        The rank advantage of a label is (mean rank for the signals with other labels -
        rank for its own signal) / (number of pictures ranked for its own signal - 1).

        Returns:
            Rank advantage [N] of the label of each signal. None if the label is not in
            `verdict_ids`, or was not ranked for any signal with another label.
        """
        # The n rows of `verdict_ranks` are the signals with a label in `verdict_ids`.
        column_of = {
            image_id: column for column, image_id in enumerate(self.verdict_ids)
        }
        is_compared = [label in column_of for label in self.labels]
        columns = [column_of[label] for label in self.labels if label in column_of]

        ranks = np.where(self.verdict_ranks > 0, self.verdict_ranks, np.nan)  # [n, P]
        rows = np.arange(len(columns))
        own_ranks = ranks[rows, columns]  # [n]
        n_compared = np.isfinite(ranks).sum(1)  # [n]

        # mean rank for signals with other labels
        ranks[rows, columns] = np.nan
        n_others = np.isfinite(ranks).sum(0)[columns]
        mean_ranks = np.nansum(ranks, 0)[columns] / np.maximum(n_others, 1)
        advantages = (mean_ranks - own_ranks) / np.maximum(1, n_compared - 1)

        values: list[float | None] = [None] * len(self.labels)
        signals = np.flatnonzero(is_compared)
        for signal, advantage, n_ranks in zip(
            signals, advantages.tolist(), n_others, strict=True
        ):
            values[signal] = advantage if n_ranks else None
        return values


def exchange_labels(
    items: Scores,
    gallery: Gallery,
    images: Tensor,
    tokens: Tensor,
    design: LabelDesign | None,
    seed: int,
) -> Scores:
    """Pair each signal with a wrong picture, as a control measurement requires.

    Labels are exchanged as in the verdict.

    Args:
        items: Scores with the pictures that the signals showed.
        gallery: Candidates.
        images: Tokens [M, D] of the candidates.
        tokens: Tokens [N, D] of the signals.
        design: Odds of the labels of all units in the study, or None for clips of a
            film, whose labels are shifted along the film.
        seed: Seed of the permutations.

    Returns:
        The scores with other labels, and the metrics of `MAX_DRAWS` permutations.
    """
    seen_indices = gallery.find_indices(items.labels)
    if design is None:
        units = seen_indices
        clips = StimulusGrouping(gallery.alike_by, dict(enumerate(gallery.concepts)))
        exchange = clips.make_items([units.tolist()])
    else:
        units = items.units
        rows = np.unique(units)
        exchange = Items.independent([rows.tolist()])
        exchange = replace(exchange, design=design.take(rows))
    target, *further = permute_targets(seen_indices, units, exchange, seed)
    labels, concepts = gallery.take(target)
    draws = [seen_indices, *further]
    shows_pictures = items.image_ids == items.labels
    return replace(
        items,
        image_ids=labels if shows_pictures else items.image_ids,
        labels=labels,
        concepts=concepts,
        control=measure_control(gallery, images, tokens, draws),
    )


def permute_targets(
    seen_indices: Int64, units: Int64, exchange: Items, seed: int
) -> Iterator[Int64]:
    """Pair each signal with a wrong picture, as a control measurement requires.

    Labels are exchanged as in the verdict.

    Args:
        seen_indices: Gallery indices [N] of the pictures that the signals showed.
        units: Unit [N] of each signal, whose label is exchanged.
        exchange: Units by number, with the odds of their labels.
        seed: Seed of the permutations.

    Yields:
        Gallery indices [N] of the paired pictures: the control itself, then up to
        `MAX_DRAWS` further permutations.
    """
    rows = exchange.name_indices(units.tolist())
    seen_of_unit = np.zeros(len(exchange.names), np.int64)
    seen_of_unit[rows] = seen_indices

    # the control comes from the seed itself, further permutations from a derived seed
    identity = np.arange(len(seen_of_unit))
    control = exchange.draw_permutations(1, seed)
    orders = exchange.draw_permutations(MAX_DRAWS, derive_seed(seed, 0))
    for order in chain(control if len(control) else [identity], orders):
        yield seen_of_unit[order[rows]]


def measure_control(
    gallery: Gallery, images: Tensor, tokens: Tensor, targets: Sequence[Int64]
) -> dict[str, Float64]:
    """Compute retrieval metrics for the seen pictures and for random pictures.

    Args:
        gallery: Candidates. The test pictures come first.
        images: Tokens [M, D] of the candidates.
        tokens: Tokens [N, D] of the signals.
        targets: 1 + K arrays of gallery indices [N]. The first array holds the seen
            pictures. Each further array holds random pictures.

    Returns:
        Values [1 + K] of each metric in `CONTROL_METRICS`, keyed by its name.
    """
    # rank [N, M_test] of every test picture among all candidates
    all_ranks = rank_first_pictures(tokens, images, len(gallery.test_rows))
    signal_indices = np.arange(len(tokens))
    target_ranks = np.stack([all_ranks[signal_indices, target] for target in targets])
    return {name: metric(target_ranks) for name, metric in CONTROL_METRICS.items()}


def rank_gallery(
    gallery: Gallery,
    images: Tensor,
    tokens: Mapping[int, Tensor],
    items: Mapping[int, Scores],
) -> dict[int, Scores]:
    """Rank the gallery for each signal of all subjects.

    Args:
        gallery: Candidates.
        images: Tokens [M, D] of the candidates.
        tokens: Tokens [N, D] of the signals, keyed by subject.
        items: Scores with the labels of the signals, keyed by subject, in the order of
            the subjects in `tokens`.

    Returns:
        The scores of `items`, keyed by subject, with the columns that depend on ranks.
    """
    # rank the gallery for all signals together
    signal_tokens = torch.cat(list(tokens.values()))  # [N, D]
    labels: list[str] = []
    for subject_items in items.values():
        labels.extend(subject_items.labels)
    label_indices = gallery.find_indices(labels)
    relevant = gallery.list_relevant(label_indices)  # [N, K]
    label_ranks, precisions = rank_with_precision(
        signal_tokens,
        images,
        torch.from_numpy(label_indices),
        torch.from_numpy(relevant),
    )
    all_ranks = label_ranks.numpy()
    all_precisions = precisions.numpy()
    nearest_candidates = find_nearest(signal_tokens, images)

    # split the columns by subject
    scores = {}
    start = 0
    for subject, subject_items in items.items():
        stop = start + len(subject_items.labels)
        rows = slice(start, stop)
        start = stop
        target = label_indices[rows]
        nearest_of_subject = nearest_candidates[rows]
        nearest_concepts = [gallery.concepts[index] for index in nearest_of_subject]
        values = {"map": all_precisions[rows]}
        if relevant.shape[1] > 1 and not subject_items.groups:
            is_hit = np.equal(nearest_concepts, subject_items.concepts)
            values[CONCEPT_METRIC] = is_hit.astype(np.float64)
        subject_scores = replace(
            subject_items,
            ranks=all_ranks[rows],
            pool=len(gallery.image_ids),
            values=values,
            relevant=(relevant[rows] >= 0).sum(1),
            nearest_concepts=nearest_concepts,
        )

        # signals have groups if held-out trials show pictures seen in training
        if subject_items.groups:
            if len(images) <= MAX_CATEGORIES:
                decisions = compute_decision_scores(
                    tokens[subject], images, are_labels=gallery.are_labels
                )
                auc_parts = compute_auc_parts(decisions, target)
                subject_scores = replace(subject_scores, auc_parts=auc_parts)
        else:
            backward = _rank_backward(gallery, images, tokens[subject], target)
            subject_scores = replace(subject_scores, scopes=backward)
        scores[subject] = subject_scores
    return scores


def _rank_backward(
    gallery: Gallery, images: Tensor, tokens: Tensor, target: Int64
) -> dict[str, Scores]:
    """Rank all signals of a subject for each picture, the reverse of retrieval.

    Args:
        gallery: Candidates.
        images: Tokens [M, D] of the candidates.
        tokens: Tokens [N, D] of the signals.
        target: Gallery index [N] of the picture that counts as right for each signal.

    Returns:
        The scores, keyed by `BACKWARD`, with the rank of the most similar signal of
        each picture among the signals of others. Empty if pictures have unequal
        numbers of signals.
    """
    pictures, counts = np.unique(target, return_counts=True)
    if (counts != counts[0]).any():
        return {}

    sorted_signals = np.argsort(target, kind="stable")
    signals_of_picture = sorted_signals.reshape(len(pictures), counts[0])
    best_ranks = rank_targets(
        images[pictures], tokens, torch.from_numpy(signals_of_picture)
    )
    scores = Scores(
        image_ids=[gallery.image_ids[index] for index in pictures],
        ranks=best_ranks.numpy(),
        pool=len(target),
        n_targets=int(counts[0]),
    )
    return {BACKWARD: scores}


def compute_decision_scores(
    tokens: Tensor, images: Tensor, *, are_labels: bool = False
) -> Float64:
    """Compute how clearly each signal shows each of a few candidates.

    The score is the similarity to the candidate minus the mean over all candidates. For
    two candidates, it is half the difference of the similarities.

    Args:
        tokens: Tokens [N, D] of the signals.
        images: Tokens [K, D] of the candidates.
        are_labels: True if the tokens of the signals are the outputs of a classifier,
            whose length says how certain it is. Otherwise the similarity is the cosine.

    Returns:
        Scores [N, K].
    """
    signals = tokens.detach().double() if are_labels else normalise_tokens(tokens)
    similarities = signals @ normalise_tokens(images.to(signals.device)).T
    scores = similarities - similarities.mean(1, keepdim=True)
    return np.asarray(scores.cpu().numpy())


def compute_auc_parts(scores: Float64, target: Int64) -> Float64:
    """Compute how much each signal contributes to the macro-averaged area.

    The area under the ROC curve of a candidate is the share of pairs, of a signal that
    showed it and one that showed another, in which the former has the higher score. A
    tie counts half. The areas of all candidates that some signals showed are averaged.

    Args:
        scores: Score [N, K] of each candidate for each signal.
        target: Candidate [N] that each signal showed.

    Returns:
        Values [N] whose mean is the averaged area, and whose deviations within a
        candidate have its variance. Empty if all signals showed one candidate.

    Source: DeLong, DeLong and Clarke-Pearson 1988 (variance of an area by its parts).
    """
    shown = np.unique(target)
    if len(shown) < 2:
        return np.empty(0)
    n_signals = len(target)
    # Largest difference between two scores that count as tied, as a share of the
    # largest score. If the tokens of two categories are collinear, all cosines are -1
    # or 1, and scores differ only by rounding of float32.
    tolerance = 1e-6 * float(np.abs(scores).max())
    areas = []
    influence = np.zeros(n_signals)
    for candidate in shown:
        # share of the signals of the other side that each signal wins against
        is_shown = target == candidate
        own_scores = scores[is_shown, candidate]
        other_scores = scores[~is_shown, candidate]
        own_wins = _count_wins(own_scores, other_scores, tolerance) / len(other_scores)
        other_wins = _count_wins(-other_scores, -own_scores, tolerance) / len(
            own_scores
        )

        # influence of each signal on the area of this candidate
        area = float(own_wins.mean())
        areas.append(area)
        influence[is_shown] += (own_wins - area) / len(own_wins)
        influence[~is_shown] += (other_wins - area) / len(other_wins)
    return np.asarray(np.mean(areas) + n_signals * influence / len(shown))


def _count_wins(scores: Float64, other_scores: Float64, tolerance: float) -> Float64:
    """Count the other scores [m] that are lower than each score [n], ties as half."""
    ascending = np.sort(other_scores)
    n_lower = np.searchsorted(ascending, scores - tolerance, "left")
    n_lower_or_tied = np.searchsorted(ascending, scores + tolerance, "right")
    return np.asarray((n_lower + n_lower_or_tied) / 2)


def rank_parts(
    gallery: Gallery,
    images: Tensor,
    tokens: Mapping[int, Tensor],
    items: Mapping[int, Scores],
    widths: Mapping[str, int],
) -> dict[str, dict[int, Scores]]:
    """Rank the gallery by each of several models whose tokens are concatenated.

    Args:
        gallery: Candidates.
        images: Tokens [M, D] of the candidates.
        tokens: Tokens [N, D] of the signals, by subject.
        items: Scores with the labels of the signals, by subject.
        widths: Width of each model's part of the tokens, by its name.

    Returns:
        Scores by name of the model and by subject.
    """
    ranked: dict[str, dict[int, Scores]] = {}
    start = 0
    for name, width in widths.items():
        columns = slice(start, start + width)
        start += width
        part = {subject: signals[:, columns] for subject, signals in tokens.items()}
        scores = rank_gallery(gallery, images[:, columns], part, items)
        ranked[name] = {}
        for subject, table in scores.items():
            ranked[name][subject] = replace(table, description=f"{name} alone")
    return ranked


def measure_subsets(tokens: Tensor, images: Tensor, subset_size: int) -> Scores:
    """Measure the expected top-1 of signals and pictures in random small galleries.

    Args:
        tokens: Tokens [N, D] of the signals.
        images: Tokens [N, D] of the pictures that the signals showed.
        subset_size: Number of pictures in a gallery. If there are fewer, all are taken.

    Returns:
        `top1_expected` from signals to pictures, and back in the scope `backward`.
    """
    pool = min(subset_size, len(images))
    description = f"{pool}-way"
    if pool < subset_size:
        description = f"all {pool} pictures, fewer than {subset_size}"
    forward, backward = expected_subset_hits(tokens, images, pool)
    return Scores(
        values={"top1_expected": forward},
        pool=pool,
        description=description,
        scopes={BACKWARD: Scores(values={"top1_expected": backward}, pool=pool)},
    )


def rank_corrected(
    gallery: Gallery,
    images: Tensor,
    tokens: Mapping[int, Tensor],
    items: Mapping[int, Scores],
    corrections: Sequence[Any],
) -> dict[str, dict[int, Scores]]:
    """Rank the gallery again after each correction of the similarities.

    Each correction is applied to the result of the previous one.

    Args:
        gallery: Candidates.
        images: Tokens [M, D] of the candidates.
        tokens: Tokens [N, D] of the signals, keyed by subject.
        items: Scores with the labels of the signals, keyed by subject.
        corrections: Configs of the corrections, in the order in which they are applied.

    Returns:
        Scores keyed by the corrections up to then, such as `csls + hungarian`,
        and by subject.

    Raises:
        RecipeError: if there are more than 10,000
            candidates to correct.
    """
    pool = len(gallery.image_ids)
    # Largest gallery whose similarities can be corrected. Its tokens take 400 MB.
    max_corrected_candidates = 10_000
    if corrections and pool > max_corrected_candidates:
        raise RecipeError(
            f"corrections take at most {max_corrected_candidates} candidates, and the "
            f"gallery has {pool}",
            "set gallery=test, or leave corrections out",
        )
    similarities = {
        subject: compute_cosines(signals, images) for subject, signals in tokens.items()
    }
    scores = {}
    names = []
    for config in corrections:
        # make tokens whose similarities have the corrected order
        correct = config.build()
        corrected_tokens = {}
        for subject, signal_tokens in tokens.items():
            similarities[subject] = correct(
                similarities[subject], signal_tokens, images.to(signal_tokens.device)
            )
            corrected_tokens[subject], one_hot = make_tokens(similarities[subject])

        # the tokens of the candidates are one-hot, so they are equal for all subjects
        names.append(config.kind)
        correction = " + ".join(names)
        description = f"similarities corrected by {correction}, {TRANSDUCTIVE}"
        ranked = rank_gallery(gallery, one_hot, corrected_tokens, items)
        scores[correction] = {
            subject: replace(subject_scores, description=description)
            for subject, subject_scores in ranked.items()
        }
    return scores


def rank_for_verdict(
    gallery: Gallery, images: Tensor, tokens: Tensor, items: Scores
) -> Scores:
    """Rank test pictures for each signal, for a permutation test of the ranks.

    Args:
        gallery: Candidates. The test pictures come first.
        images: Tokens [M, D] of the candidates.
        tokens: Tokens [N, D] of the signals.
        items: Scores of a subject, with `labels`.

    Returns:
        A copy of `items` with `verdict_ids` (image ids of the P ranked pictures, at
        most `MAX_VERDICT_PICTURES`) and `verdict_ranks` [n, P].
    """
    pictures = draw_verdict_pictures(np.arange(len(gallery.test_rows)))  # [P]
    image_ids = [gallery.image_ids[index] for index in pictures]
    picture_tokens = images[torch.from_numpy(pictures)]  # [P, D]

    # signals with one of these pictures as their label
    is_compared = torch.from_numpy(np.isin(items.labels, image_ids))
    signal_tokens = tokens[is_compared]  # [n, D]
    table = rank_first_pictures(signal_tokens, picture_tokens, len(pictures))  # [n, P]
    return replace(items, verdict_ids=image_ids, verdict_ranks=table.astype(np.uint16))


def draw_verdict_pictures(rows: Int64) -> Int64:
    """Draw test pictures for the permutation test, at most `MAX_VERDICT_PICTURES`.

    Args:
        rows: Row numbers [M_test] of the pictures of the tested split.

    Returns:
        Row numbers [P]. The same rows give the same draw, which is ascending.
    """
    if len(rows) <= MAX_VERDICT_PICTURES:
        return rows
    rng = np.random.default_rng(0)
    return np.sort(rng.choice(rows, MAX_VERDICT_PICTURES, replace=False))


def depends_on_other_trials(
    encode: Callable[[Tensor], Tensor], signals: Tensor
) -> bool:
    """Return True if the embedding of a trial depends on the other trials in its batch.

    Args:
        encode: Function that computes tokens [n, D] of the signals [n, ...]
            of n trials.
        signals: Signals [N, ...] of the test trials, of which at most
            `MAX_TRIALS_ENCODED_ALONE` evenly spaced trials are tried.

    Returns:
        True if a token differs by more than rounding when its trial is encoded alone,
        or is not a number.

    Source: MOABB 1.7.2, `CrossSubjectMode.TRAIN_TRIALWISE`.
    """
    positions = np.linspace(0, len(signals) - 1, MAX_TRIALS_ENCODED_ALONE)
    trial_indices = np.unique(positions.round().astype(np.int64))
    trials = signals[torch.from_numpy(trial_indices)]

    batch_tokens = normalize(encode(trials).double())

    # batch normalisation raises an error for a single trial, so it is encoded twice
    tokens_alone = []
    for trial in trials:
        pair_tokens = encode(torch.stack([trial, trial]))
        tokens_alone.append(pair_tokens[:1])
    single_tokens = normalize(torch.cat(tokens_alone).double())

    # cosine distance of unit vectors, NaN if a token is not a number
    distances = (batch_tokens - single_tokens).square().sum(1) / 2
    # Largest cosine distance between two tokens that count as equal. For small
    # distances, the cosine distance is half the squared relative difference of the
    # tokens. If a GPU sums in another order, rounding gives a distance of about 1e-12
    # in float32 and 1e-6 in TF32, which convolutions on a GPU use.
    return not bool((distances <= 1e-5).all())
