"""Ranks of the seen picture in a gallery, by cosine similarity to a signal.

A token is the embedding vector of a signal or of a picture. The gallery is the set of
candidate pictures. The target of a signal is the picture that was seen.
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
"""Largest difference between two similarities that count as equal. It is larger than
the rounding error of float64 and smaller than a difference between float32 tokens.
"""
CANDIDATES_PER_BLOCK = 1024
"""Number of candidates that are compared in a step of `rank_first_pictures`. Their
similarities to a few hundred signals fit into the cache of a CPU core.
"""
MAX_SIMILARITIES = 2**22
"""Largest number of similarities in memory at a time. They take 32 MB in float64."""
MAX_TARGET_NUMBERS = 2**18
"""Largest number of token values of targets in memory at a time. They take 2 MB in
float64.
"""
MIN_TOKEN_LENGTH = 1e-12
"""Smallest length by which a token is divided. Tokens of length 0 thereby have
similarities of 0 instead of NaN.
"""
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

    The target of a signal is the picture shown to the subject. Candidates are ranked by
    the cosine similarity of their tokens (embedding vectors) to the signal's token.
    Wrong candidates with the similarity of the target rank before the target, so ties
    count against the model.

    Args:
        signal_tokens: Tokens [N, D] of the signals. If `gallery` is None: similarities
            [N, M] of the signals to the candidates.
        gallery: Tokens [M, D] of the candidate pictures, or None.
        target: Index [N] of each signal's target among the candidates. If several
            candidates show the same picture, indices [N, K] of up to K targets. Shorter
            rows are padded with -1. Only the target with the highest similarity is
            ranked, among the wrong candidates.
        tie: Largest difference between two similarities that count as equal. With a
            negative value, ties count for the model.

    Returns:
        Rank [N] of each signal's target, on the CPU. 1 is the best rank.

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

    Candidates are ranked by the cosine similarity of their tokens (embedding vectors)
    to the signal's token.

    Args:
        signal_tokens: Tokens [N, D] of the signals.
        gallery: Tokens [M, D] of the candidate pictures.
        pictures: Number P of candidates whose ranks are returned.

    Returns:
        Rank [N, P] of each of the first P candidates among all M candidates. 1 is the
        best rank. A candidate ranks after all candidates with an equal similarity.
    """
    # The rank of a picture is the number of candidates with at least the similarity of
    # the picture, less a tolerance for rounding errors.
    signals = normalise_tokens(signal_tokens)
    similarities = signals @ normalise_tokens(gallery[:pictures]).T
    limits = similarities.contiguous() - TIE_TOLERANCE

    # count these candidates, and the picture itself, in each block of the gallery
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

    The seen picture is the picture shown to the subject. The relevant pictures of a
    signal are the seen picture and, for example, other pictures of the same concept.
    All other pictures are wrong. The average precision is the mean of k / (k + w) over
    the relevant pictures, where w is the number of wrong pictures before the k-th best
    relevant picture. If the seen picture is the only relevant picture, the average
    precision is 1 / rank. Wrong pictures that tie with a relevant picture rank before
    the relevant picture.

    Args:
        signal_tokens: Tokens [N, D] of the signals.
        gallery: Tokens [M, D] of the candidate pictures.
        seen: Index [N] of the seen picture in the gallery.
        relevant: Indices [N, K] of the relevant pictures, the seen picture among them.
            If a signal has fewer than K, the row is padded with -1.

    Returns:
        Ranks [N], as `rank_targets` computes them, and average precision [N] in
        float64. Both are on the CPU.

    Raises:
        BrainhiveError: if a token is not finite.
    """
    # number [N, K] of wrong pictures before each relevant picture
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
    infinity = torch.iinfo(wrong_before.dtype).max // 2
    wrong_before = wrong_before.masked_fill(~is_target, infinity).sort(1).values.cpu()
    is_sorted_target = is_target.sort(1, descending=True).values.cpu()

    # precision at each relevant picture
    k = torch.arange(1, wrong_before.shape[1] + 1)
    precision = (k / (k + wrong_before.double())).where(is_sorted_target, 0)
    return seen_ranks.cpu(), precision.sum(1) / is_target.sum(1).cpu()


def find_nearest(signal_tokens: Tensor, gallery: Tensor | Iterable[Tensor]) -> Tensor:
    """Find the candidate with the highest cosine similarity to each signal.

    Args:
        signal_tokens: Tokens (embedding vectors) [N, D] of the signals.
        gallery: Tokens [M, D] of the candidates, or an iterable over blocks [m, D] of
            these tokens. An iterable saves memory, because blocks are used in turn.

    Returns:
        Index [N] in the gallery of the most similar candidate of each signal, on the
        CPU. If several candidates are equally similar, the index of the first of these
        candidates.
    """
    best = torch.full((len(signal_tokens),), -torch.inf)
    best_index = torch.zeros(len(signal_tokens), dtype=torch.long)
    blocks = [gallery] if isinstance(gallery, Tensor) else gallery
    start = 0
    for block in blocks:
        # Find the best candidate of this block for each signal. The number of signals
        # in a step is limited to save memory. Tokens of signals need no normalisation,
        # because their length does not change the order of the candidates.
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

        # replace the best candidate so far where the candidate of this block is better
        is_better = block_best > best
        best = torch.where(is_better, block_best, best)
        best_index = torch.where(is_better, start + block_index, best_index)
        start += len(block)
    return best_index


def expected_subset_hits(
    signal_tokens: Tensor, image_tokens: Tensor, subset_size: int
) -> tuple[Float64, Float64]:
    """Compute how often each test item ranks first in random subsets of the items.

    An item is a signal with the picture shown to the subject. A subset consists of the
    item and w - 1 of the N - 1 other items, where w is `subset_size`. The item ranks
    first if none of these items is more similar. An item with the rank r among all N
    items ranks first in C(N - r, w - 1) of the C(N - 1, w - 1) subsets.

    Args:
        signal_tokens: Tokens [N, D] of the signals, with one signal per picture.
        image_tokens: Tokens [N, D] of the pictures, in the order of the signals.
        subset_size: Number w of items in a subset, at most N.

    Returns:
        Two arrays. The first is the share [N] of subsets in which, for each signal, its
        picture ranks first among the pictures. The second is the share [N] of subsets
        in which, for each picture, its signal ranks first among the signals.

    Source: 300-way retrieval on NSD: MindEye (arXiv 2305.18274), section 4.1, which
    draws 30 random subsets instead.
    """
    # Compute the share of subsets for each rank r. The share of rank 1 is 1, and
    # share(r + 1) = share(r) * (N - r - w + 1) / (N - r).
    count = len(signal_tokens)
    n_before = np.arange(count - 1)  # r - 1
    ratios = np.clip(count - subset_size - n_before, 0, None) / (count - 1 - n_before)
    share_of_rank = np.concatenate([[1.0], ratios.cumprod()])

    # ranks of the pictures for each signal, and of the signals for each picture
    target = torch.arange(count)
    signal_ranks = rank_targets(signal_tokens, image_tokens, target).numpy()
    picture_ranks = rank_targets(image_tokens, signal_tokens, target).numpy()
    return share_of_rank[signal_ranks - 1], share_of_rank[picture_ranks - 1]


def _prepare_tokens(
    signal_tokens: Tensor, gallery: Candidates, target: Tensor
) -> tuple[Tensor, Candidates, Tensor]:
    """Check the inputs of a ranking, and move them to the device of the signals.

    Args:
        signal_tokens: Tokens (embedding vectors) [N, D] of the signals.
        gallery: Tokens [M, D] of the candidates, or None.
        target: Index [N] of each signal's target (the right candidate) in the gallery,
            or indices [N, K] of K targets.

    Returns:
        The signal tokens, the gallery (or None) and the targets, on the device of the
        signals and without gradients. The targets have the shape [N, K]. K is 1 if
        `target` has the shape [N].

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

    A query is a signal whose targets (the right candidates) are ranked.

    Args:
        queries: Tokens (embedding vectors) [N, D] of the queries. If `gallery` is None:
            similarities [N, M] of the queries to the candidates.
        gallery: Tokens [M, D] of the candidates, or None.
        targets: Indices [N, K] of the right candidates, which are not counted. If a
            query has fewer than K right candidates, the row is padded with -1.
        thresholds: J cosine similarities [N, J] for each query, in float64, such as the
            similarities to the K right candidates.
        tie: Largest difference from the threshold that counts as equal. If it is
            negative, candidates at the threshold are not counted.

    Returns:
        Number [N, J] of wrong candidates whose similarity is at least threshold - tie.
    """
    # limit the number m of candidates in a block, and so the size of arrays in memory
    signals = queries.double() if gallery is None else normalise_tokens(queries)
    counts = torch.zeros(thresholds.shape, dtype=torch.int64, device=queries.device)
    pool = queries.shape[1] if gallery is None else len(gallery)
    block_size = max(1, MAX_SIMILARITIES // max(queries.shape))
    for start in range(0, pool, block_size):
        # compute similarities in float64, because float32 cannot distinguish near ties
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

        # compare with one threshold of each query at a time
        for column, threshold in enumerate(thresholds.unbind(1)):
            counts[:, column] += (similarity >= threshold[:, None] - tie).sum(1)
    return counts


def target_similarities(
    queries: Tensor, gallery: Tensor | None, targets: Tensor
) -> Tensor:
    """Compute the cosine similarity of each query to its targets.

    A query is a signal whose targets (the right candidates) are ranked.

    Args:
        queries: Tokens (embedding vectors) [N, D] of the queries. If `gallery` is None:
            similarities [N, M] of the queries to the candidates.
        gallery: Tokens [M, D] of the candidates, or None.
        targets: Indices [N, K] of the targets among the candidates. If a query has
            fewer than K targets, the row is padded with -1.

    Returns:
        Similarity [N, K] of each query to each of its targets, in float64. It is -inf
        where the index is -1.
    """
    if gallery is None:
        similarities = queries.double().gather(1, targets.clamp(min=0))
        return similarities.masked_fill(targets < 0, -math.inf)

    # look up the target tokens [n, K, D] for a limited number of queries at a time
    batch_size = max(1, MAX_TARGET_NUMBERS // (targets.shape[1] * queries.shape[1]))
    query_batches = queries.split(batch_size)
    target_batches = targets.split(batch_size)
    batches = []
    for tokens, indices in zip(query_batches, target_batches, strict=True):
        candidates = normalise_tokens(gallery[indices.clamp(min=0)])
        batches.append(torch.einsum("nd,nkd->nk", normalise_tokens(tokens), candidates))
    return torch.cat(batches).masked_fill(targets < 0, -math.inf)


def normalise_tokens(tokens: Tensor) -> Tensor:
    """Divide tokens [..., D] by their Euclidean length, in float64."""
    exact = tokens.detach().to(torch.float64, copy=True)
    length = torch.linalg.vector_norm(exact, dim=-1, keepdim=True)
    return exact.div_(length.clamp_(min=MIN_TOKEN_LENGTH))


def summarise_ranks(
    ranks_of_subjects: Sequence[ArrayLike],
    pool: int,
    *,
    split: str,
    items: Items | None = None,
    protocol: str = "cosine",
    seeds: Sequence[int] = (),
    targets: int = 1,
    metric_names: Sequence[str] = (),
) -> list[Metric]:
    """Compute the metrics of retrieval from ranks, each with its chance level.

    The metrics of a rank r among M candidates, K of which show the seen picture, are:

    - `top1`, `top3` and `top5`: shares of ranks up to 1, 3 and 5.
    - `mean_rank` and `median_rank`.
    - `mrr`: mean reciprocal rank, the mean of 1 / r.
    - `rank_auc`: share of wrong pictures that rank below the seen picture, which is
      1 - (r - 1) / (M - K).

    Args:
        ranks_of_subjects: Ranks of each subject: [N] for N items, or [S, N] of S seeds.
            A metric is averaged over seeds for each item, so an item counts once.
        pool: Number M of candidates in the gallery.
        split: Part of the data set that the signals belong to, such as "test".
        items: Names of the items, and groups of similar items that form a unit. If
            None, each item is a unit.
        protocol: Similarity measure by which the candidates were ranked.
        seeds: Seeds of the trained models.
        targets: Number K of candidates that show the seen picture.
        metric_names: Names of the metrics to compute. If empty, all metrics.

    Returns:
        The metrics with their 95 % intervals. The median rank has no interval.
    """
    # ranks, and the probability of each rank under guessing
    groups = [
        np.atleast_2d(np.asarray(ranks, np.float64)) for ranks in ranks_of_subjects
    ]  # [S, N] of each subject
    guess = chance_of_ranks(pool, targets)
    possible_ranks = np.arange(1, len(guess) + 1)

    def rank_auc(ranks: Any) -> Any:
        return 1 - (ranks - 1) / max(1, pool - targets)

    # function of the ranks that is averaged for each metric, and limits of the mean
    rank_limits = (1.0, float(pool))
    share_limits = (0.0, 1.0)
    transforms: dict[str, tuple[Callable[[Any], Any], Limits]] = {}
    for k in TOP_K:
        transforms[f"top{k}"] = (partial(np.greater_equal, k), share_limits)
    transforms["mean_rank"] = (np.asarray, rank_limits)
    transforms["median_rank"] = (np.asarray, rank_limits)
    transforms["mrr"] = (np.reciprocal, share_limits)
    transforms["rank_auc"] = (rank_auc, share_limits)

    # average each function over the measured ranks, and over guessed ranks
    metrics = []
    for name in metric_names or transforms:
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

    Ranks are averaged over models for each item. The median over items is computed for
    each subject. The value is the mean of these medians over subjects.

    Args:
        metric: Metric with the mean rank.
        groups: For each subject, ranks [S, N] of the N items by S models.
        guess: Probabilities of the ranks 1, 2, … if the candidates are in a random
            order.

    Returns:
        A copy of the metric with the median rank, the median rank under guessing, and
        no interval.
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

    Among M candidates, K candidates are right. The rank of a signal is the position of
    the first right candidate. So a rank is larger than r if the first r candidates are
    all wrong. The probability is the product over i from 0 to r - 1 of
    (M - K - i) / (M - i).

    Args:
        pool: Number M of candidates.
        targets: Number K of right candidates.

    Returns:
        Probabilities [M - K + 1] of the ranks 1 to M - K + 1.
    """
    # probability that the candidate at each position is wrong, if all candidates before
    # this position are wrong
    n_wrong = pool - targets
    index = np.arange(n_wrong + 1)
    p_wrong = (n_wrong - index) / (pool - index)

    # P(rank = r) = P(rank > r - 1) - P(rank > r)
    p_beyond = np.cumprod(p_wrong)  # P(rank > 1), P(rank > 2), ...
    return np.concatenate([[1.0], p_beyond[:-1]]) - p_beyond


def chance_of_precision(pool: int, relevant: Int64) -> Float64:
    """Compute the expected average precision if the candidates are in a random order.

    For M candidates, of which R are relevant (count as right), the expected average
    precision is (H + (R - 1) / (M - 1) * (M - H)) / M, where H = 1 + 1/2 + … + 1/M.

    Args:
        pool: Number M of candidates.
        relevant: Number R of relevant candidates [N] of each signal.

    Returns:
        Expected average precision [N] of each signal.

    Source: Bestgen 2015, Exact Expected Average Precision of the Random Baseline for
    System Evaluation.
    """
    harmonic = float((1 / np.arange(1, pool + 1)).sum())
    return (harmonic + (relevant - 1) / max(1, pool - 1) * (pool - harmonic)) / pool
