"""Ranks of the seen image among a gallery, by cosine similarity, and whether they are
better than guesses.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from torch import Tensor

from brainhive_cli.core.arrays import Float64, Int64
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.measurement.statistics import Limits, Metric, measure
from brainhive_cli.measurement.units import Items

TIE_TOLERANCE = 1e-12
"""Similarities closer than this are equal: above the rounding of float64, below that of
float32 tokens.
"""
CANDIDATES = 1024
"""Candidates that are compared at once: with a few hundred queries, what a core's
caches hold.
"""
SIMILARITIES_AT_ONCE = 2**22
"""Similarities that are held at once, 32 MB in float64, so that many queries fit
too.
"""
NUMBERS_AT_ONCE = 2**18
"""Numbers of targets that are held at once in float64 (2 MB)."""
SHORTEST = 1e-12
"""A token shorter than this has no direction: its similarity to all is 0."""
Candidates = TypeVar("Candidates", Tensor, Tensor | None)


def rank_targets(
    signal_tokens: Tensor,
    gallery: Tensor | None,
    target: Tensor,
    tie: float = TIE_TOLERANCE,
) -> Tensor:
    """Rank each signal's target in the gallery; ties rank against the model.

    Args:
        signal_tokens: [N, D]; or similarities [N, M], where there is no gallery.
        gallery: Image tokens [M, D], or None.
        target: Index of the seen image in the gallery, [N]; or [N, K] when K gallery
            items show it (-1 where there are fewer), of which the best counts, among
            those that do not.
        tie: Similarities closer than this are equal; negative: they rank for the model.

    Returns:
        Ranks [N] on the CPU, 1 is best.

    Raises:
        BrainhiveError: if a token is not a number.
    """
    signal_tokens, gallery, targets = _prepare(signal_tokens, gallery, target)
    best = target_similarities(signal_tokens, gallery, targets).amax(1, keepdim=True)
    return 1 + count_at_least(signal_tokens, gallery, targets, best, tie)[:, 0].cpu()


def rank_first_pictures(signal_tokens: Tensor, gallery: Tensor, pictures: int) -> Int64:
    """Rank not only the seen picture but each of the first ones of the gallery, for
    every signal.

    Args:
        signal_tokens: [N, D].
        gallery: Image tokens [M, D].
        pictures: P, how many of the gallery, from the first, are ranked.

    Returns:
        Ranks [N, P]; ties rank against the model.
    """
    # similarities that count as equal to those of the ranked pictures, or larger
    signals = normalise_tokens(signal_tokens)
    similarities = signals @ normalise_tokens(gallery[:pictures]).T
    limits = similarities.contiguous() - TIE_TOLERANCE

    # candidates at these limits or above, block by block
    # [N, P]
    counts = torch.zeros(limits.shape, dtype=torch.int64, device=limits.device)
    for block in gallery.split(CANDIDATES):
        # [N, m]
        ascending = (
            (signals @ normalise_tokens(block.to(signals.device)).T).sort(1).values
        )
        counts += ascending.shape[1] - torch.searchsorted(ascending, limits)
    return counts.cpu().numpy()


def rank_with_precision(
    signal_tokens: Tensor, gallery: Tensor, seen: Tensor, relevant: Tensor
) -> tuple[Tensor, Tensor]:
    """Rank each signal's seen image, and average the precision at each relevant one, in
    one reading of all.

    Args:
        signal_tokens: [N, D].
        gallery: Image tokens [M, D].
        seen: Index of the seen image in the gallery, [N].
        relevant: Indices of the relevant images, among them the seen one, [N, K]; -1
            where there are fewer than K.

    Returns:
        Ranks [N] as those of `ranks`, and average precision [N] in float64, both on the
        CPU; wrong images that tie with a relevant one rank before it. With one relevant
        image it is one over the rank.

    Raises:
        BrainhiveError: if a token is not a number.
    """
    signal_tokens, gallery, targets = _prepare(signal_tokens, gallery, relevant)
    similarities = target_similarities(signal_tokens, gallery, targets)  # [N, K]
    wrong = count_at_least(signal_tokens, gallery, targets, similarities)  # [N, K]

    # rank of the seen image: wrong images before it, and relevant ones, itself among
    # the latter
    is_seen = targets == seen.to(targets.device)[:, None]
    limits = (
        similarities.masked_fill(~is_seen, -math.inf).amax(1, keepdim=True)
        - TIE_TOLERANCE
    )
    seen_ranks = wrong.masked_fill(~is_seen, 0).amax(1) + (similarities >= limits).sum(
        1
    )

    # precision at each relevant image, from the best one
    wrong = (
        wrong.masked_fill(targets < 0, torch.iinfo(wrong.dtype).max // 2)
        .sort(1)
        .values.cpu()
    )
    rank = torch.arange(1, wrong.shape[1] + 1)  # among the relevant
    precision = (rank / (rank + wrong.double())).where(
        (targets >= 0).sort(1, descending=True)[0].cpu(), 0
    )
    return seen_ranks.cpu(), precision.sum(1) / (targets >= 0).sum(1).cpu()


def find_nearest(signal_tokens: Tensor, gallery: Tensor | Iterable[Tensor]) -> Tensor:
    """Find the most similar gallery item of each signal: [N] on the CPU, the first of
    equals.

    Args:
        signal_tokens: [N, D].
        gallery: Image tokens [M, D], or blocks [m, D] of them, of which one is held at
            a time.
    """
    best = torch.full((len(signal_tokens),), -torch.inf)
    best_index = torch.zeros(len(signal_tokens), dtype=torch.long)
    start = 0
    for block in [gallery] if isinstance(gallery, Tensor) else gallery:
        # the best of the block, for as many signals at once as memory is meant to hold
        directions = F.normalize(block.float())
        rows = max(1, SIMILARITIES_AT_ONCE // len(block))
        best_of_rows = [
            (tokens.float() @ directions.T).max(1)
            for tokens in signal_tokens.split(rows)
        ]
        value, index = (
            torch.cat([pair[n].cpu() for pair in best_of_rows]) for n in (0, 1)
        )

        # it is kept where it is better than those of the blocks before
        is_better = value > best
        best = torch.where(is_better, value, best)
        best_index = torch.where(is_better, start + index, best_index)
        start += len(block)
    return best_index


def expected_subset_hits(
    signal_tokens: Tensor, image_tokens: Tensor, ways: int
) -> tuple[Float64, Float64]:
    """Compute how often each item ranks first among random subsets of the test items,
    in both directions.

    An item of rank r among N ranks first unless one of the r - 1 before it is among the
    `ways` - 1 others, which are drawn without replacement: its share is C(N - r, ways -
    1) / C(N - 1, ways - 1).

    Args:
        signal_tokens: [N, D], one an image.
        image_tokens: [N, D], of the same items in the same order.
        ways: Items of a subset, N at most.

    Returns:
        Shares [N] signal to image and [N] image to signal.

    Source: 300-way on NSD: MindEye (arXiv 2305.18274), section 4.1, which draws 30
    subsets.
    """
    # share of an item by its rank
    count = len(signal_tokens)
    same = torch.arange(len(signal_tokens))
    before = np.arange(count - 1)  # candidates that rank before, less one
    spared = np.clip(count - ways - before, 0, None) / (count - 1 - before)
    share = np.concatenate([[1.0], spared.cumprod()])

    # ranks in both directions
    forward = rank_targets(signal_tokens, image_tokens, same).numpy()
    return share[forward - 1], share[
        rank_targets(image_tokens, signal_tokens, same).numpy() - 1
    ]


def _prepare(
    signal_tokens: Tensor, gallery: Candidates, target: Tensor
) -> tuple[Tensor, Candidates, Tensor]:
    """Refuse tokens that are not finite, and bring tokens and targets to one device."""
    targets, device = target.reshape(len(target), -1), signal_tokens.device  # [N, K]
    for tokens, name in (
        (signal_tokens, "signal tokens"),
        *(() if gallery is None else ((gallery, "gallery embeddings"),)),
    ):
        if bad := int(
            (~torch.linalg.vector_norm(tokens.float(), dim=1).isfinite()).sum()
        ):
            raise BrainhiveError(
                f"{bad} of {len(tokens)} {name} are not finite",
                "the training has diverged",
            )
    if gallery is not None:
        gallery = gallery.detach().to(device)
    return signal_tokens.detach(), gallery, targets.to(device)


def count_at_least(
    queries: Tensor,
    gallery: Tensor | None,
    targets: Tensor,
    thresholds: Tensor,
    tie: float = TIE_TOLERANCE,
) -> Tensor:
    """Count the wrong candidates whose cosine similarity is at least a query's own;
    ties count.

    Args:
        queries: [N, D]; or similarities [N, M], where there is no gallery.
        gallery: [M, D], or None.
        targets: Right candidates, [N, K] indices in the gallery; -1 where there are
            fewer than K.
        thresholds: Similarities to count against, [N, J] in float64 (see
            `similarity_to`).
        tie: Similarities closer than this are equal; negative: ties do not count.

    Returns:
        Counts [N, J].
    """
    signals = queries.double() if gallery is None else normalise_tokens(queries)
    counts = torch.zeros(thresholds.shape, dtype=torch.int64, device=queries.device)
    size = max(1, SIMILARITIES_AT_ONCE // max(queries.shape))  # of [N, m] and of [m, D]
    pool = queries.shape[1] if gallery is None else len(gallery)
    for start in range(0, pool, size):
        # similarities of a block of candidates, in float64: float32 cannot tell near
        # ties apart
        # [N, m]
        similarity = (
            signals[:, start : start + size].clone()
            if gallery is None
            else signals
            @ normalise_tokens(gallery[start : start + size].to(signals.device)).T
        )

        # without the right candidates
        columns = targets - start
        width = similarity.shape[1]
        limits = torch.where(
            (columns >= 0) & (columns < width), -math.inf, math.inf
        ).to(similarity)
        similarity.scatter_reduce_(1, columns.clamp(0, width - 1), limits, "amin")

        # those at each threshold or above
        for column, threshold in enumerate(thresholds.unbind(1)):
            counts[:, column] += (similarity >= threshold[:, None] - tie).sum(1)
    return counts


def target_similarities(
    queries: Tensor, gallery: Tensor | None, targets: Tensor
) -> Tensor:
    """Compute the cosine similarity of each query with its targets: [N, K] in float64,
    -inf where -1. Without a gallery, queries are similarities [N, M].
    """
    if gallery is None:
        similarities = queries.double().gather(1, targets.clamp(min=0))
        return similarities.masked_fill(targets < 0, -math.inf)
    size = max(1, NUMBERS_AT_ONCE // (targets.shape[1] * queries.shape[1]))
    blocks = [
        torch.einsum(
            "nd,nkd->nk",
            normalise_tokens(batch),
            normalise_tokens(gallery[rows.clamp(min=0)]),
        )
        for batch, rows in zip(queries.split(size), targets.split(size), strict=True)
    ]
    return torch.cat(blocks).masked_fill(targets < 0, -math.inf)


def normalise_tokens(tokens: Tensor) -> Tensor:
    """Bring tokens to unit length in float64."""
    exact = tokens.detach().to(torch.float64, copy=True)
    return exact.div_(
        torch.linalg.vector_norm(exact, dim=-1, keepdim=True).clamp_(min=SHORTEST)
    )


NO_ENDS: Any = dict.fromkeys(("low", "high", "these_subjects", "people", "seed_sd"))
"""Fields of a metric without an interval."""
TOP_K = (1, 3, 5)
"""Ranks within which the seen image counts as retrieved; the field's."""


def summarise_ranks(
    ranks_of_subjects: Sequence[ArrayLike],
    pool: int,
    *,
    split: str,
    items: Items | None = None,
    protocol: str = "cosine",
    seeds: Sequence[int] = (),
    targets: int = 1,
    only: Sequence[str] = (),
) -> list[Metric]:
    """Summarise ranks: top-1, -3, -5, mean and median rank, mean reciprocal rank, and
    the share of wrong images below the seen one, each with its chance.

    Args:
        ranks_of_subjects: Ranks [N], one array a subject; or [S, N] of S seeds,
            averaged for each item, so that an item counts once however many models were
            tried on it.
        pool: M, size of the gallery.
        split: Part of the data set that the signals are of.
        items: Which are the same for several subjects, and which are alike (see
            `statistics.estimate_interval`).
        protocol: Name of the way the ranks were made.
        seeds: Seeds of the trainings that were measured.
        targets: K, gallery items that show the seen image.
        only: Names of the metrics to compute; all when empty.
    """
    # ranks that guesses would have
    # [S, N]
    groups = [
        np.atleast_2d(np.asarray(ranks, np.float64)) for ranks in ranks_of_subjects
    ]
    common: Any = {
        "protocol": protocol,
        "split": split,
        "pool": pool,
        "seeds": seeds,
        "items": items,
    }
    guess = chance_of_ranks(pool, targets)
    possible = np.arange(1, len(guess) + 1)

    # value of a rank, and the limits of its mean over items
    span = (1.0, float(pool))
    share = (0.0, 1.0)
    transforms: dict[str, tuple[Callable[[Any], Any], Limits]] = {
        **{f"top{k}": (partial(np.greater_equal, k), share) for k in TOP_K},
        "mean_rank": (np.asarray, span),
        "median_rank": (np.asarray, span),
        "mrr": (np.reciprocal, share),
        "rank_auc": (lambda ranks: 1 - (ranks - 1) / max(1, pool - targets), share),
    }

    # each metric with its chance
    metrics = []
    for name in only or transforms:
        transform, limits = transforms[name]
        # no rounding error is shown
        chance = float(f"{guess @ transform(possible.astype(np.float64)):.12g}")
        values = [transform(group) for group in groups]
        metric = measure(
            name, values, is_share=True, chance=chance, limits=limits, **common
        )
        if name == "median_rank":  # intervals are of means
            median = float(np.mean([np.median(group.mean(0)) for group in groups]))
            chance = float(possible[np.searchsorted(guess.cumsum(), 0.5)])
            metric = replace(
                metric,
                value=median,
                chance=chance,
                interval="none: of a median",
                **NO_ENDS,
            )
        metrics.append(metric)
    return metrics


def chance_of_ranks(pool: int, targets: int = 1) -> Float64:
    """Compute the probability of each rank, from 1, of guesses among `pool` candidates,
    `targets` right.
    """
    wrong = pool - targets
    # given that all before missed
    missed = (wrong - np.arange(wrong + 1)) / (pool - np.arange(wrong + 1))
    later = np.cumprod(missed)  # the rank is beyond 1, 2, ...
    return np.concatenate([[1.0], later[:-1]]) - later


def chance_of_precision(pool: int, relevant: Int64) -> Float64:
    """Compute the average precision of a random order of `pool` candidates, `relevant`
    [N] of them right.

    Source: Bestgen 2015, Exact Expected Average Precision of the Random Baseline for
    System Evaluation.
    """
    # closed form by the harmonic number of the pool
    harmonic = float((1 / np.arange(1, pool + 1)).sum())
    return (harmonic + (relevant - 1) / max(1, pool - 1) * (pool - harmonic)) / pool
