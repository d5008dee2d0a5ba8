"""Ranks of the seen picture in a gallery, by cosine similarity to a signal."""

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

from brainhive_cli.core.base import BrainhiveError, Float64, Int64
from brainhive_cli.measurement.statistics import Limits, Metric, measure
from brainhive_cli.measurement.units import Items

TIE_TOLERANCE = 1e-12
"""Largest difference between two similarities that count as equal. It is larger than
the rounding error of float64 and smaller than a difference between float32 tokens.
"""
CANDIDATES_PER_BLOCK = 1024
"""Number of candidates that are compared in a step of `rank_first_pictures`. Their
similarities to a few hundred signals fit into the cache of a CPU core.
"""
MAX_SIMILARITIES = 2**22
"""Largest number of similarities in memory at a time. They take 32 MB in float64."""
TOP_K = (1, 3, 5)
"""Ranks k of the metrics top-k, which count the seen picture as retrieved up to rank k.
"""
Candidates = TypeVar("Candidates", Tensor, Tensor | None)


def rank_targets(
    signal_tokens: Tensor,
    gallery: Tensor | None,
    target: Tensor,
    tie: float = TIE_TOLERANCE,
) -> Tensor:
    """Rank the candidate pictures for each signal, and return the target's rank.

    Wrong candidates with the target's similarity rank before it, unless
    `tie` is negative.

    Args:
        signal_tokens: Tokens (embedding vectors) [N, D] of the signals, or their
            similarities [N, M] to the candidates if `gallery` is None.
        gallery: Tokens [M, D] of the candidate pictures, or None.
        target: Candidate [N] that each signal showed. If several candidates show the
            picture, [N, K], padded with -1, of which the most similar is ranked.
        tie: Largest difference between similarities that count as equal.

    Returns:
        Rank [N] of each signal's target, from 1, on the CPU.

    Raises:
        BrainhiveError: if a token is not finite.
    """
    signal_tokens, gallery, targets = _prepare_tokens(signal_tokens, gallery, target)
    similarities = target_similarities(signal_tokens, gallery, targets)  # [N, K]
    best = similarities.amax(1, keepdim=True)

    # the rank is 1 + the number of wrong candidates with at least the best similarity
    return 1 + count_at_least(signal_tokens, gallery, targets, best, tie)[:, 0].cpu()


def rank_first_pictures(signal_tokens: Tensor, gallery: Tensor, pictures: int) -> Int64:
    """Rank the first P candidate pictures among all candidates, for every signal.

    Args:
        signal_tokens: Tokens (embedding vectors) [N, D] of the signals.
        gallery: Tokens [M, D] of the candidate pictures.
        pictures: Number P of candidates whose ranks are returned.

    Returns:
        Rank [N, P], from 1, of each of the first P candidates among all M candidates by
        cosine similarity. Equal candidates rank before it.
    """
    # the rank of a picture is the number of candidates with at least this similarity
    signals = normalise_tokens(signal_tokens)
    similarities = signals @ normalise_tokens(gallery[:pictures]).T
    limits = similarities.contiguous() - TIE_TOLERANCE

    # count these candidates, the picture among them, in each block of the gallery
    counts = torch.zeros_like(limits, dtype=torch.int64)  # [N, P]
    for block in gallery.split(CANDIDATES_PER_BLOCK):
        candidates = normalise_tokens(block.to(signals.device))
        ascending = (signals @ candidates.T).sort(1).values  # [N, m]
        counts += ascending.shape[1] - torch.searchsorted(ascending, limits)
    return counts.cpu().numpy()


def rank_with_precision(
    signal_tokens: Tensor, gallery: Tensor, seen: Tensor, relevant: Tensor
) -> tuple[Tensor, Tensor]:
    """Rank the seen picture, and compute the average precision of relevant pictures.

    The average precision is the mean of k / (k + w) over the relevant pictures, where w
    is the number of wrong pictures before, or tied with, the k-th
    best relevant picture.

    Args:
        signal_tokens: Tokens (embedding vectors) [N, D] of the signals.
        gallery: Tokens [M, D] of the candidate pictures.
        seen: Gallery index [N] of the picture that each signal showed.
        relevant: Gallery indices [N, K] of the relevant pictures, the seen picture
            among them, padded with -1. All other pictures are wrong.

    Returns:
        Ranks [N], as `rank_targets` computes them, and average precision [N] in
        float64. Both are on the CPU.

    Raises:
        BrainhiveError: if a token is not finite.
    """
    signal_tokens, gallery, targets = _prepare_tokens(signal_tokens, gallery, relevant)
    similarities = target_similarities(signal_tokens, gallery, targets)  # [N, K]
    wrong_before = count_at_least(signal_tokens, gallery, targets, similarities)
    is_target = targets >= 0  # [N, K]

    # wrong pictures and more similar relevant pictures rank before the seen picture
    is_seen = targets == seen.to(targets.device)[:, None]
    seen_similarity = similarities.masked_fill(~is_seen, -math.inf).amax(
        1, keepdim=True
    )
    wrong_before_seen = wrong_before.masked_fill(~is_seen, 0).amax(1)
    relevant_before_seen = (similarities >= seen_similarity - TIE_TOLERANCE).sum(1)
    seen_ranks = wrong_before_seen + relevant_before_seen

    # sort relevant pictures from best to worst, with the padding at the end
    largest = torch.iinfo(wrong_before.dtype).max
    sorted_counts = wrong_before.masked_fill(~is_target, largest).sort(1).values.cpu()
    is_sorted_target = is_target.sort(1, descending=True).values.cpu()

    k = torch.arange(1, sorted_counts.shape[1] + 1)
    precision = (k / (k + sorted_counts.double())).where(is_sorted_target, 0)
    return seen_ranks.cpu(), precision.sum(1) / is_target.sum(1).cpu()


def find_nearest(signal_tokens: Tensor, gallery: Tensor | Iterable[Tensor]) -> Tensor:
    """Find the candidate with the highest cosine similarity to each signal.

    Args:
        signal_tokens: Tokens (embedding vectors) [N, D] of the signals.
        gallery: Tokens [M, D] of the candidates, or blocks [m, D] of them
            to save memory.

    Returns:
        Gallery index [N] of the most similar candidate of each signal, on the CPU. The
        first if several are equally similar.
    """
    best = torch.full((len(signal_tokens),), -torch.inf)
    best_index = torch.zeros(len(signal_tokens), dtype=torch.long)
    blocks = [gallery] if isinstance(gallery, Tensor) else gallery
    start = 0
    for block in blocks:
        # The best candidate of this block for each signal. Tokens of signals are not
        # normalised, because their length does not change the order of the candidates.
        directions = F.normalize(block.float())
        batch_size = max(1, MAX_SIMILARITIES // len(block))
        values = []
        indices = []
        for tokens in signal_tokens.split(batch_size):
            value, index = (tokens.float() @ directions.T).max(1)
            values.append(value)
            indices.append(index)
        block_best = torch.cat(values).cpu()
        block_index = torch.cat(indices).cpu()

        is_better = block_best > best
        best = torch.where(is_better, block_best, best)
        best_index = torch.where(is_better, start + block_index, best_index)
        start += len(block)
    return best_index


def expected_subset_hits(
    signal_tokens: Tensor, image_tokens: Tensor, subset_size: int
) -> tuple[Float64, Float64]:
    """Compute how often each test item ranks first in random subsets of the items.

    An item is a signal with its picture. With rank r among N items, it is first in C(N
    - r, w - 1) of the C(N - 1, w - 1) subsets that hold it and w - 1 others.

    Args:
        signal_tokens: Tokens (embedding vectors) [N, D] of the signals.
        image_tokens: Tokens [N, D] of their pictures, each with one signal.
        subset_size: Number w of items in a subset, at most N.

    Returns:
        Share [N] of subsets in which the picture ranks first for its signal, and share
        [N] in which the signal ranks first for its picture.

    Source: MindEye (arXiv 2305.18274), section 4.1, which draws 30 random subsets.
    """
    # share(1) = 1 and share(r + 1) = share(r) * (N - r - w + 1) / (N - r)
    count = len(signal_tokens)
    n_before = np.arange(count - 1)  # r - 1
    ratios = np.clip(count - subset_size - n_before, 0, None) / (count - 1 - n_before)
    share_of_rank = np.concatenate([[1.0], ratios.cumprod()])

    target = torch.arange(count)
    signal_ranks = rank_targets(signal_tokens, image_tokens, target).numpy()
    picture_ranks = rank_targets(image_tokens, signal_tokens, target).numpy()
    return share_of_rank[signal_ranks - 1], share_of_rank[picture_ranks - 1]


def _prepare_tokens(
    signal_tokens: Tensor, gallery: Candidates, target: Tensor
) -> tuple[Tensor, Candidates, Tensor]:
    """Check the inputs of a ranking, and move them to the device of the signals.

    Args:
        signal_tokens: Tokens [N, D] of the signals, or similarities [N, M].
        gallery: Tokens [M, D] of the candidates, or None.
        target: Index [N] of each signal's right candidate, or indices [N, K].

    Returns:
        The three inputs without gradients, with targets [N, K].

    Raises:
        BrainhiveError: if a token is not finite.
    """
    targets = target.reshape(len(target), -1)  # [N, K]
    device = signal_tokens.device
    _check_finite(signal_tokens, "signal tokens")
    if gallery is not None:
        _check_finite(gallery, "gallery embeddings")
        gallery = gallery.detach().to(device)
    return signal_tokens.detach(), gallery, targets.to(device)


def _check_finite(tokens: Tensor, name: str) -> None:
    """Raise an error if any token [N, D] is not finite."""
    is_finite = torch.linalg.vector_norm(tokens.float(), dim=1).isfinite()
    count = int((~is_finite).sum())
    if count:
        raise BrainhiveError(
            f"{count} of {len(tokens)} {name} are not finite",
            "look for NaN in the model's output: its training may have diverged",
        )


def count_at_least(
    queries: Tensor,
    gallery: Tensor | None,
    targets: Tensor,
    thresholds: Tensor,
    tie: float = TIE_TOLERANCE,
) -> Tensor:
    """Count wrong candidates whose similarity to a query is at least a threshold.

    Args:
        queries: Tokens (embedding vectors) [N, D] of the queries, or their similarities
            [N, M] to the candidates if `gallery` is None.
        gallery: Tokens [M, D] of the candidates, or None.
        targets: Indices [N, K] of the right candidates, padded with -1.
        thresholds: J cosine similarities [N, J] for each query, in float64.
        tie: Tolerance of the comparison. If negative, candidates at the threshold
            do not count.

    Returns:
        Number [N, J] of wrong candidates whose similarity is at least threshold - tie.
    """
    signals = queries.double() if gallery is None else normalise_tokens(queries)
    counts = torch.zeros(thresholds.shape, dtype=torch.int64, device=queries.device)
    pool = queries.shape[1] if gallery is None else len(gallery)
    block_size = max(1, MAX_SIMILARITIES // max(queries.shape))
    for start in range(0, pool, block_size):
        # float32 cannot distinguish near ties
        block = slice(start, start + block_size)
        if gallery is None:
            similarity = signals[:, block].clone()
        else:
            candidates = normalise_tokens(gallery[block].to(signals.device))
            similarity = signals @ candidates.T  # [N, m]

        # set the right candidates of this block to -inf, so that they do not count
        columns = targets - start
        width = similarity.shape[1]
        is_in_block = (columns >= 0) & (columns < width)
        ceilings = torch.where(is_in_block, -math.inf, math.inf).to(similarity)
        similarity.scatter_reduce_(1, columns.clamp(0, width - 1), ceilings, "amin")

        for column, threshold in enumerate(thresholds.unbind(1)):
            counts[:, column] += (similarity >= threshold[:, None] - tie).sum(1)
    return counts


def target_similarities(
    queries: Tensor, gallery: Tensor | None, targets: Tensor
) -> Tensor:
    """Compute the cosine similarity of each query to its targets.

    Args:
        queries: Tokens (embedding vectors) [N, D] of the queries, or their similarities
            [N, M] to the candidates if `gallery` is None.
        gallery: Tokens [M, D] of the candidates, or None.
        targets: Indices [N, K] of the right candidates, padded with -1.

    Returns:
        Similarities [N, K] in float64, with -inf for the index -1.
    """
    if gallery is None:
        similarities = queries.double().gather(1, targets.clamp(min=0))
        return similarities.masked_fill(targets < 0, -math.inf)

    # Largest number of token values of targets in memory at a time. They take 2
    # MB in float64.
    max_target_numbers = 2**18
    # limit the number n of queries whose target tokens [n, K, D] are in memory
    batch_size = max(1, max_target_numbers // (targets.shape[1] * queries.shape[1]))
    query_batches = queries.split(batch_size)
    target_batches = targets.split(batch_size)
    batches = []
    for tokens, indices in zip(query_batches, target_batches, strict=True):
        candidates = normalise_tokens(gallery[indices.clamp(min=0)])
        batches.append(torch.einsum("nd,nkd->nk", normalise_tokens(tokens), candidates))
    return torch.cat(batches).masked_fill(targets < 0, -math.inf)


def normalise_tokens(tokens: Tensor) -> Tensor:
    """Divide tokens [..., D] by their Euclidean length, in float64. Zeros stay."""
    exact = tokens.detach().to(torch.float64, copy=True)
    length = torch.linalg.vector_norm(exact, dim=-1, keepdim=True)
    return exact.div_(torch.where(length > 0, length, 1))


def summarise_ranks(
    ranks_of_subjects: Sequence[ArrayLike],
    pool: int,
    *,
    split: str,
    items: Items | None = None,
    protocol: str = "cosine",
    seeds: Sequence[int] = (),
    caveats: Sequence[str] = (),
    targets: int = 1,
    metric_names: Sequence[str] = (),
) -> list[Metric]:
    """Compute the metrics of retrieval from ranks, each with its chance level.

    For a rank r among M candidates, K of which show the seen picture:

    - `top1`, `top3` and `top5`: shares of ranks up to 1, 3 and 5.
    - `accuracy`: share of ranks 1, if requested. This is the name of `top1` for
      categories.
    - `mean_rank` and `median_rank`.
    - `mrr`: mean of 1 / r.
    - `rank_auc`: share of wrong pictures below the seen one, 1 - (r - 1) / (M - K).

    Args:
        ranks_of_subjects: Ranks of each subject: [N] for N items, or [S, N] for S
            seeds, which are averaged for each item.
        pool: Number M of candidates in the gallery.
        split: Part of the data set that the signals belong to, such as "test".
        items: Items, and their units (groups of items that are alike). If None, each
            item is a unit.
        protocol: Similarity measure by which the candidates were ranked.
        seeds: Seeds of the trained models.
        caveats: Phrases in `CAVEATS` that limit the metrics.
        targets: Number K of candidates that show the seen picture.
        metric_names: Names of the metrics to compute. If empty, all metrics but
            `accuracy`.

    Returns:
        The metrics with their 95 % intervals. The median rank has no interval.
    """
    groups = [
        np.atleast_2d(np.asarray(ranks, np.float64)) for ranks in ranks_of_subjects
    ]  # [S, N] of each subject
    guess = chance_of_ranks(pool, targets)
    possible_ranks = np.arange(1, len(guess) + 1)

    def rank_auc(ranks: Any) -> Any:
        return 1 - (ranks - 1) / max(1, pool - targets)

    # function that is averaged for each metric, and limits of the mean
    rank_limits = (1.0, float(pool))
    share_limits = (0.0, 1.0)
    transforms: dict[str, tuple[Callable[[Any], Any], Limits]] = {}
    for k in TOP_K:
        transforms[f"top{k}"] = (partial(np.greater_equal, k), share_limits)
    transforms["mean_rank"] = (np.asarray, rank_limits)
    transforms["median_rank"] = (np.asarray, rank_limits)
    transforms["mrr"] = (np.reciprocal, share_limits)
    transforms["rank_auc"] = (rank_auc, share_limits)

    names = metric_names or list(transforms)
    transforms["accuracy"] = transforms["top1"]

    metrics = []
    for name in names:
        transform, limits = transforms[name]
        chance = guess @ transform(possible_ranks.astype(np.float64))
        metric = measure(
            name,
            [transform(group) for group in groups],
            protocol=protocol,
            split=split,
            pool=pool,
            chance=float(f"{chance:.12g}"),  # without the rounding error of the sum
            seeds=seeds,
            items=items,
            caveats=caveats,
            is_share=True,
            limits=limits,
        )
        if name == "median_rank":
            metric = _replace_by_median(metric, groups, guess)
        metrics.append(metric)
    return metrics


def _replace_by_median(
    metric: Metric, groups: Sequence[Float64], guess: Float64
) -> Metric:
    """Replace the mean rank in a metric by the median rank, which has no interval.

    Args:
        groups: Ranks [S, N] of each subject. Ranks are averaged over S models, and
            medians over N items are averaged over subjects.
        guess: Probabilities of the ranks 1, 2, … in a random order.
    """
    medians = [np.median(group.mean(0)) for group in groups]
    return replace(
        metric,
        value=float(np.mean(medians)),
        chance=float(1 + np.searchsorted(guess.cumsum(), 0.5)),
        low=None,
        high=None,
        interval="none: of a median",
        these_subjects=None,
        people=None,
        seed_sd=None,
    )


def chance_of_ranks(pool: int, targets: int = 1) -> Float64:
    """Compute the probability of each rank if the candidates are in a random order.

    The rank is the position of the first of K right candidates among M. It is larger
    than r with the probability Π (M - K - i) / (M - i) over i from 0 to r - 1.

    Args:
        pool: Number M of candidates.
        targets: Number K of right candidates.

    Returns:
        Probabilities of the ranks 1 to M - K + 1.
    """
    # probability of a wrong candidate at each position, if all before are wrong
    n_wrong = pool - targets
    index = np.arange(n_wrong + 1)
    p_wrong = (n_wrong - index) / (pool - index)

    # P(rank = r) = P(rank > r - 1) - P(rank > r)
    p_beyond = np.cumprod(p_wrong)  # P(rank > 1), P(rank > 2), ...
    return np.concatenate([[1.0], p_beyond[:-1]]) - p_beyond


def chance_of_precision(pool: int, relevant: Int64) -> Float64:
    """Compute the expected average precision if the candidates are in a random order.

    For M candidates with R relevant, it is (H + (R - 1) / (M - 1) * (M - H)) / M, where
    H = 1 + 1/2 + … + 1/M.

    Args:
        pool: Number M of candidates.
        relevant: Number R [N] of relevant candidates of each signal.

    Returns:
        Expected average precision [N] of each signal.

    Source: Bestgen 2015, Exact Expected Average Precision of the Random Baseline.
    """
    harmonic = float((1 / np.arange(1, pool + 1)).sum())
    return (harmonic + (relevant - 1) / max(1, pool - 1) * (pool - harmonic)) / pool
