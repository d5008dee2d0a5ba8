"""Ranks of the seen image among a gallery, by cosine similarity, and whether they are better than guesses."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from torch import Tensor

from brainhive_cli.core.arrays import Float64, Int64
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.measurement.statistics import Limits, Metric, Statistic, measure
from brainhive_cli.measurement.units import Items

TIE = 1e-12
"""Similarities closer than this are equal: above the rounding of float64, below that of float32 tokens."""
CANDIDATES = 1024
"""Candidates that are compared at once: with a few hundred queries, what a core's caches hold."""
SIMILARITIES_AT_ONCE = 2**22
"""Similarities that are held at once (16 MB), so that many queries fit too."""
NUMBERS_AT_ONCE = 2**18
"""Numbers of targets that are held at once in float64 (2 MB)."""
GPU_FACTOR = 16
"""Factor by which more are compared at once on a GPU, which is waited for in every block."""
LINE = 64
"""Rows of results are as many values apart, or a multiple: else MKL's product takes 1.5 times as long."""
SHORTEST = 1e-12
"""A token shorter than this has no direction: its similarity to all is 0."""
DISTRACTORS_AT_ONCE = 4096
"""Distractors that are drawn at once; another number draws others."""
FEWEST_ROWS = 32
"""Distractors that are formed at once, at least: MKL's product of fewer rows rounds in another way."""
DIRECTIONS = 256
"""Gallery items, at most, whose deviations from the mean are mixed."""


def ranks(
    signal_tokens: Tensor, gallery: Tensor, target: Tensor, distractors: Iterable[Tensor] = ()
) -> Tensor:
    """Rank each signal's target in the gallery; ties rank against the model.

    Args:
        signal_tokens: [N, D].
        gallery: Image tokens [M, D].
        target: Index of the seen image in the gallery, [N]; or [N, K] when K gallery items show it (-1 where
            there are fewer), of which the best counts, among those that do not.
        distractors: Further candidates that nobody saw, drawn, or in blocks [m, D], each read once.

    Returns:
        Ranks [N] on the CPU, 1 is best.

    Raises:
        BrainhiveError: if sizes do not fit or a token is not a number.
    """
    signal_tokens, gallery, targets = _prepare(signal_tokens, gallery, target)
    best = similarity_to(signal_tokens, gallery, targets).amax(1, keepdim=True)
    return 1 + count_at_least(signal_tokens, gallery, targets, best, distractors)[:, 0].cpu()


def ranks_of_all(
    signal_tokens: Tensor, gallery: Tensor, pictures: int, distractors: Iterable[Tensor] = ()
) -> Int64:
    """Rank not only the seen picture but each of the first ones of the gallery, for every signal.

    Args:
        signal_tokens: [N, D].
        gallery: Image tokens [M, D].
        pictures: P, how many of the gallery, from the first, are ranked.
        distractors: Further candidates, in blocks [m, D].

    Returns:
        Ranks [N, P]; ties rank against the model.
    """
    # similarities that count as equal to those of the ranked pictures, or larger
    signals = unit(signal_tokens)
    limits = (signals @ unit(gallery[:pictures]).T).contiguous() - TIE

    # candidates at these limits or above, block by block
    counts = torch.zeros(limits.shape, dtype=torch.int64, device=limits.device)  # [N, P]
    for tokens in chain([gallery], distractors):
        for block in tokens.split(CANDIDATES):
            ascending = (signals @ unit(block.to(signals.device)).T).sort(1).values  # [N, m]
            counts += ascending.shape[1] - torch.searchsorted(ascending, limits)
    return counts.cpu().numpy()


def ranks_and_precisions(
    signal_tokens: Tensor, gallery: Tensor, seen: Tensor, relevant: Tensor, distractors: Iterable[Tensor] = ()
) -> tuple[Tensor, Tensor]:
    """Rank each signal's seen image, and average the precision at each relevant one, in one reading of all.

    Args:
        signal_tokens: [N, D].
        gallery: Image tokens [M, D].
        seen: Index of the seen image in the gallery, [N].
        relevant: Indices of the relevant images, among them the seen one, [N, K]; -1 where there are fewer
            than K.
        distractors: As in `ranks`.

    Returns:
        Ranks [N] as those of `ranks`, and average precision [N] in float64, both on the CPU; wrong images
        that tie with a relevant one rank before it. With one relevant image it is one over the rank.

    Raises:
        BrainhiveError: if sizes do not fit or a token is not a number.
    """
    signal_tokens, gallery, targets = _prepare(signal_tokens, gallery, relevant)
    similarities = similarity_to(signal_tokens, gallery, targets)  # [N, K]
    wrong = count_at_least(signal_tokens, gallery, targets, similarities, distractors)  # [N, K]

    # rank of the seen image: wrong images before it, and relevant ones, itself among the latter
    is_seen = targets == seen.to(targets.device)[:, None]
    limits = similarities.masked_fill(~is_seen, -math.inf).amax(1, keepdim=True) - TIE
    seen_ranks = wrong.masked_fill(~is_seen, 0).amax(1) + (similarities >= limits).sum(1)

    # precision at each relevant image, from the best one
    wrong = wrong.masked_fill(targets < 0, torch.iinfo(wrong.dtype).max // 2).sort(1).values.cpu()
    rank = torch.arange(1, wrong.shape[1] + 1)  # among the relevant
    precision = (rank / (rank + wrong.double())).where((targets >= 0).sort(1, descending=True)[0].cpu(), 0)
    return seen_ranks.cpu(), precision.sum(1) / (targets >= 0).sum(1).cpu()


def nearest(signal_tokens: Tensor, gallery: Tensor | Iterable[Tensor]) -> Tensor:
    """Find the most similar gallery item of each signal: [N] on the CPU, the first of equals.

    Args:
        signal_tokens: [N, D].
        gallery: Image tokens [M, D], or blocks [m, D] of them, of which one is held at a time.
    """
    best = torch.full((len(signal_tokens),), -torch.inf)
    best_index, start = torch.zeros(len(signal_tokens), dtype=torch.long), 0
    for block in [gallery] if isinstance(gallery, Tensor) else gallery:
        # the best of the block, for as many signals at once as memory is meant to hold
        directions = F.normalize(block.float())
        rows = max(1, SIMILARITIES_AT_ONCE // len(block))
        best_of_rows = [(tokens.float() @ directions.T).max(1) for tokens in signal_tokens.split(rows)]
        value, index = (torch.cat([pair[n].cpu() for pair in best_of_rows]) for n in (0, 1))

        # it is kept where it is better than those of the blocks before
        is_better = value > best
        best = torch.where(is_better, value, best)
        best_index = torch.where(is_better, start + index, best_index)
        start += len(block)
    return best_index


def subset_hits(
    signal_tokens: Tensor, image_tokens: Tensor, ways: int, draws: int, seed: int
) -> tuple[Float64, Float64]:
    """Count how often each item ranks first among random subsets of the test items, in both directions.

    Args:
        signal_tokens: [N, D], one an image.
        image_tokens: [N, D], of the same items in the same order.
        ways: Items of a subset.
        draws: Number of subsets.
        seed: Seed of the drawing.

    Returns:
        Share of an item's own draws in which it ranked first, [N] signal to image and [N] image to signal;
        NaN for an item that was never drawn.

    Raises:
        BrainhiveError: if there are fewer items than a subset takes.

    Source: 300-way, 30 draws: MindEye (arXiv 2305.18274), section 4.1, on NSD.
    """
    count = len(signal_tokens)
    if ways > count:
        raise BrainhiveError(f"subsets of {ways} cannot be drawn from {count} items", f"subsets.ways={count}")

    # rank within each subset, in both directions
    random, drawn = np.random.default_rng(seed), np.zeros(count)
    forward, backward = np.zeros(count), np.zeros(count)
    for _ in range(draws):
        subset = random.permutation(count)[:ways]
        signal, image, same = signal_tokens[subset], image_tokens[subset], torch.arange(ways)
        drawn[subset] += 1
        forward[subset] += (ranks(signal, image, same) == 1).numpy()
        backward[subset] += (ranks(image, signal, same) == 1).numpy()
    drawn[drawn == 0] = np.nan
    return forward / drawn, backward / drawn


def subset_expectations(signal_tokens: Tensor, image_tokens: Tensor, ways: int) -> tuple[Float64, Float64]:
    """Compute how often each item ranks first among random subsets: what `subset_hits` draws, exactly.

    An item of rank r among N ranks first unless one of the r - 1 before it is among the `ways` - 1 others,
    which are drawn without replacement: its share is C(N - r, ways - 1) / C(N - 1, ways - 1).

    Args:
        signal_tokens: [N, D], one an image.
        image_tokens: [N, D], of the same items in the same order.
        ways: Items of a subset, N at most.

    Returns:
        Shares [N] signal to image and [N] image to signal.
    """
    # share of an item by its rank
    count, same = len(signal_tokens), torch.arange(len(signal_tokens))
    before = np.arange(count - 1)  # candidates that rank before, less one
    spared = np.clip(count - ways - before, 0, None) / (count - 1 - before)
    share = np.concatenate([[1.0], spared.cumprod()])

    # ranks in both directions
    forward = ranks(signal_tokens, image_tokens, same).numpy()
    return share[forward - 1], share[ranks(image_tokens, signal_tokens, same).numpy() - 1]


def _prepare(signal_tokens: Tensor, gallery: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Check tokens and targets, and bring them to one device."""
    targets, device = target.reshape(len(target), -1), signal_tokens.device  # [N, K]
    n, m = len(signal_tokens), len(gallery)

    # shapes of tokens, and range of targets
    if signal_tokens.ndim != 2 or gallery.ndim != 2 or signal_tokens.shape[1] != gallery.shape[1] or not n:
        raise BrainhiveError(
            f"signal tokens {list(signal_tokens.shape)} cannot be compared with {list(gallery.shape)}",
            "both must be [N, D] with the same D",
        )
    if len(targets) != n or targets.amax(1).min() < 0 or targets.min() < -1 or targets.max() >= m:
        raise BrainhiveError(
            f"{n} signals need as many targets from 0 to {m - 1}, got {len(targets)} "
            f"from {int(targets.min())} to {int(targets.max())}",
            "the seen images must be in the gallery",
        )
    if bad := int((~torch.linalg.vector_norm(signal_tokens.float(), dim=1).isfinite()).sum()):
        raise BrainhiveError(f"{bad} of {n} signal tokens are not finite", "the training has diverged")
    return signal_tokens.detach(), gallery.detach().to(device), targets.to(device)


def count_at_least(
    queries: Tensor, gallery: Tensor, targets: Tensor, thresholds: Tensor, distractors: Iterable[Tensor] = ()
) -> Tensor:
    """Count the wrong candidates whose cosine similarity is at least a query's own; ties count.

    Blocks are compared in float32; candidates that float32 cannot distinguish from the query's own are
    compared again in float64, so the counts are those of float64 however the gallery is cut.

    Args:
        queries: [N, D].
        gallery: [M, D].
        targets: Right candidates, [N, K] indices in the gallery; -1 where there are fewer than K.
        thresholds: Similarities to count against, [N, J] in float64 (see `similarity_to`).
        distractors: Further wrong candidates, drawn, or in blocks [m, D]; each is read once.

    Returns:
        Counts [N, J].

    Raises:
        BrainhiveError: if a candidate is not finite.
    """
    # as many candidates at once as caches hold; fresh memory is as slow as counting
    exact, counts = unit(queries), torch.zeros(thresholds.shape, dtype=torch.int64, device=queries.device)
    size = min(CANDIDATES, max(LINE, SIMILARITIES_AT_ONCE // len(queries) // LINE * LINE))
    size *= GPU_FACTOR if queries.is_cuda else 1
    buffers = torch.empty(2, len(queries), size, device=queries.device)
    norms = []
    with torch.autocast(queries.device.type, enabled=False):
        for block in _blocks(exact, gallery, distractors, size):
            # similarities of the block
            count = len(block.vectors)
            similarity, marks = buffers[..., :count]  # [N, m]
            torch.mm(block.queries, block.vectors.T, out=similarity)
            norms.append(torch.linalg.vector_norm(block.vectors, dim=1).clamp_(min=SHORTEST))
            similarity.div_(norms[-1])

            # without the right candidates
            columns = targets - block.start
            limits = torch.where((columns >= 0) & (columns < count), -math.inf, math.inf)
            similarity.scatter_reduce_(1, columns.clamp(0, count - 1), limits, "amin")

            # those at each threshold or above
            margin = block.margin + block.vector_error / norms[-1].min()
            for column, threshold in enumerate(thresholds.unsqueeze(2).unbind(1)):  # [N, 1]
                counts[:, column] += _count(similarity, marks, exact, block.form, threshold, margin)

    # candidates that are not finite, looked for once: a GPU is waited for
    is_bad = ~torch.cat(norms).isfinite()
    if bad := int(is_bad[: len(gallery)].sum()):
        raise BrainhiveError(f"{bad} of {len(gallery)} gallery are not finite", "the training has diverged")
    if is_bad.any():
        raise BrainhiveError("a candidate of the gallery is not finite", "look for NaN in its tokens")
    return counts


def _count(
    similarity: Tensor,
    marks: Tensor,
    exact: Tensor,
    form: Callable[[Tensor], Tensor],
    threshold: Tensor,
    margin: Tensor,
) -> Tensor:
    """Count candidates [N] at a threshold [N, 1]; in float64 where float32 cannot decide."""
    # candidates surely above; sums of floats are five times as fast as those of booleans
    low, high = threshold.float() - margin, threshold.float() + margin
    count = torch.gt(similarity, high, out=marks).sum(1).long()

    # candidates in the margin, which are compared in float64
    row = (torch.gt(similarity, low, out=marks).sum(1) > count).nonzero()[:, 0]
    near = (similarity[row] > low[row]) & (similarity[row] <= high[row])
    candidate = near.any(0).nonzero()[:, 0]
    tokens, near = unit(form(candidate)), near[:, candidate]
    near_row, column = near.nonzero(as_tuple=True)

    # all products at once where many tie, else those of the pairs
    if len(near_row) > 4 * len(candidate):
        is_at_least = exact[row] @ tokens.T >= threshold[row] - TIE
        return count.index_add_(0, row, (near & is_at_least).sum(1))
    row = row[near_row]
    is_at_least = (exact[row] * tokens[column]).sum(1) >= threshold[row, 0] - TIE
    return count.index_add_(0, row, is_at_least.long())


@dataclass(frozen=True)
class _Block:
    """Candidates that are compared at once, in coordinates in which cosines are the same.

    Attributes:
        start: Index of the first in the gallery; beyond it for distractors.
        queries: [N, R] of unit length, or shorter.
        vectors: [m, R].
        margin: Largest error of a cosine of two such vectors.
        vector_error: Largest distance of a vector from the one that `form` returns.
        form: Returns the candidates at given indices of the block, [n, D].
    """

    start: int
    queries: Tensor
    vectors: Tensor
    margin: float
    vector_error: float
    form: Callable[[Tensor], Tensor]


def _blocks(exact: Tensor, gallery: Tensor, distractors: Iterable[Tensor], size: int) -> Iterator[_Block]:
    """Cut candidates into blocks, to be compared with unit queries [N, D]."""
    # the gallery, then distractors that are tokens
    queries, margin = exact.float(), _rounding(exact.shape[1])
    parts: Iterable[tuple[int, Tensor]] = zip(range(0, len(gallery), size), gallery.split(size), strict=True)
    if not isinstance(distractors, Distractors):
        beyond = ((len(gallery), block) for tokens in distractors for block in tokens.split(size))
        parts = chain(parts, beyond)
    for start, part in parts:
        vectors = part.detach().to(exact.device).float()
        yield _Block(start, queries, vectors, margin, 0.0, vectors.__getitem__)

    # distractors that are drawn
    if isinstance(distractors, Distractors):
        yield from distractors.blocks(exact, len(gallery), size)


def _rounding(terms: int) -> float:
    """Bound the error of a float32 cosine, or of a sum of vectors relative to the longest partial sum.

    Rounding errors of a sum of D products grow as a random walk, to √D u or less, u being 2⁻²⁴ (Higham and
    Mary 2019, A New Approach to Probabilistic Rounding Error Analysis). Twice that, and a little for lengths.
    """
    return (2 * math.sqrt(terms) + 16) * 2.0**-24


def similarity_to(queries: Tensor, gallery: Tensor, targets: Tensor) -> Tensor:
    """Compute the cosine similarity of each query with its targets: [N, K] in float64, -inf where -1."""
    size = max(1, NUMBERS_AT_ONCE // (targets.shape[1] * queries.shape[1]))
    similarities = [
        torch.einsum("nd,nkd->nk", unit(batch), unit(gallery[rows.clamp(min=0)]))
        for batch, rows in zip(queries.split(size), targets.split(size), strict=True)
    ]
    return torch.cat(similarities).masked_fill(targets < 0, -math.inf)


def unit(tokens: Tensor) -> Tensor:
    """Bring tokens to unit length in float64."""
    exact = tokens.detach().to(torch.float64, copy=True)
    return exact.div_(torch.linalg.vector_norm(exact, dim=-1, keepdim=True).clamp_(min=SHORTEST))


@dataclass(frozen=True)
class Distractors:
    """Vectors drawn from the normal distribution that has the gallery's mean and covariance.

    Random vectors in all directions would be far from every token, and beaten by all of them.

    Attributes:
        gallery: [M, D].
        count: How many are drawn.
        seed: Seed of the drawing, the same on every device.
    """

    gallery: Tensor
    count: int
    seed: int

    def _draw(self) -> tuple[Tensor, Tensor, Iterator[Tensor]]:
        """Return the centre [D], the directions [K, D], and blocks of weights of these, [m, K]."""
        random, device = torch.Generator().manual_seed(self.seed), self.gallery.device
        centre = self.gallery.mean(0)
        mixed = self.gallery[torch.randperm(len(self.gallery), generator=random)[:DIRECTIONS].to(device)]
        directions = (mixed - centre) / math.sqrt(max(1, len(mixed) - 1))
        sizes = [min(DISTRACTORS_AT_ONCE, self.count - n) for n in range(0, self.count, DISTRACTORS_AT_ONCE)]
        weights = (torch.randn(size, len(mixed), generator=random).to(device) for size in sizes)
        return centre, directions, weights

    def __iter__(self) -> Iterator[Tensor]:
        """Form all in blocks [m, D] on the gallery's device; the same every time."""
        centre, directions, draws = self._draw()
        return (centre + weights @ directions for weights in draws)

    def blocks(self, exact: Tensor, start: int, size: int) -> Iterator[_Block]:
        """Draw all for unit queries [N, D], in coordinates of what centre and directions span: fewer than D.

        A vector itself is formed only where rounding could decide. Partial sums of it are no longer than its
        weights times the longest direction, and weights no longer than √K + 8 (but for one in 10¹³).
        """
        # an orthonormal basis [D, R]; products of widths that are no multiple of 8 are slower
        centre, directions, draws = self._draw()
        basis, coordinates = torch.linalg.qr(torch.cat([centre[None], directions]).double().T)
        padding = (0, -basis.shape[1] % 8)
        basis, coordinates = F.pad(basis, padding), F.pad(coordinates.T, padding)
        offset, mixing = coordinates.float().tensor_split([1])  # [1, R] and [K, R]
        queries, terms = (exact @ basis.to(exact.device)).float(), len(mixing)

        # how far a vector may be from the one that is formed of the same weights
        longest = offset.norm() + (math.sqrt(terms) + 8) * torch.linalg.matrix_norm(mixing, 2)
        error = 2 * _rounding(terms) * float(longest)  # of both ways to form it

        def form(weights: Tensor, rows: Tensor) -> Tensor:
            padded = F.pad(weights[rows.to(weights.device)], (0, 0, 0, max(0, FEWEST_ROWS - len(rows))))
            return (centre + padded @ directions)[: len(rows)].to(exact.device)

        # blocks of weights, in coordinates of the basis
        for weights in chain.from_iterable(draw.split(size) for draw in draws):
            vectors = torch.addmm(offset, weights, mixing).to(exact.device)
            margin = _rounding(queries.shape[1])
            yield _Block(start, queries, vectors, margin, error, partial(form, weights))


TOP = (1, 3, 5)
"""Ranks within which the seen image counts as retrieved; the field's."""


def summarise(
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
    """Summarise ranks: top-1, -3, -5, mean and median rank, mean reciprocal rank, each with its chance.

    Args:
        ranks_of_subjects: Ranks [N], one array a subject; or [S, N] of S seeds, averaged for each item, so
            that an item counts once however many models were tried on it.
        pool: M, size of the gallery.
        split: Part of the data set that the signals are of.
        items: Which are the same for several subjects, and which are alike (see `statistics.describe`).
        protocol: Name of the way the ranks were made.
        seeds: Seeds of the trainings that were measured.
        targets: K, gallery items that show the seen image.
        only: Names of the metrics to compute; all when empty.
    """
    # ranks that guesses would have
    groups = [np.atleast_2d(np.asarray(ranks, np.float64)) for ranks in ranks_of_subjects]  # [S, N]
    common: Any = {"protocol": protocol, "split": split, "pool": pool, "seeds": seeds, "items": items}
    guess = chance_of_ranks(pool, targets)
    possible = np.arange(1, len(guess) + 1)

    # value of a rank, its statistic over items, and limits of this
    transforms: dict[str, tuple[Callable[[Any], Any], Statistic, Limits]] = {
        **{f"top{k}": (partial(np.greater_equal, k), np.mean, (0.0, 1.0)) for k in TOP},
        "mean_rank": (np.asarray, np.mean, (1.0, float(pool))),
        "median_rank": (np.asarray, np.median, (1.0, float(pool))),
        "mrr": (np.reciprocal, np.mean, (0.0, 1.0)),
    }

    # each metric with its chance
    metrics = []
    for name in only or transforms:
        transform, statistic, limits = transforms[name]
        chance = float(f"{guess @ transform(possible.astype(np.float64)):.12g}")  # no rounding error is shown
        if statistic is np.median:
            chance = float(possible[np.searchsorted(guess.cumsum(), 0.5)])
        values = [transform(group) for group in groups]
        described: Any = {"statistic": statistic, "chance": chance, "limits": limits}
        metrics.append(measure(name, values, is_share=statistic is np.mean, **described, **common))
    return metrics


def chance_of_ranks(pool: int, targets: int = 1) -> Float64:
    """Compute the probability of each rank, from 1, of guesses among `pool` candidates, `targets` right."""
    wrong = pool - targets
    missed = (wrong - np.arange(wrong + 1)) / (pool - np.arange(wrong + 1))  # given that all before missed
    later = np.cumprod(missed)  # the rank is beyond 1, 2, ...
    return np.concatenate([[1.0], later[:-1]]) - later


def chance_of_precision(pool: int, relevant: Int64) -> Float64:
    """Compute the average precision of a random order of `pool` candidates, `relevant` [N] of them right.

    Source: Bestgen 2015, Exact Expected Average Precision of the Random Baseline for System Evaluation.
    """
    harmonic = float((1 / np.arange(1, pool + 1)).sum())
    return (harmonic + (relevant - 1) / max(1, pool - 1) * (pool - harmonic)) / pool
