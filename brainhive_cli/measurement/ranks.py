"""Ranks of the seen image among a gallery, by cosine similarity, and whether they are better than guesses."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import chain
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.measurement.statistics import Limits, Metric, Statistic, Values, measure, scatter_of_means
from brainhive_cli.measurement.units import Items

TIE = 1e-12
"""Similarities closer than this are equal: above the rounding of float64, below that of float32 tokens."""
CANDIDATES = 4096
"""Candidates that are compared at once: with a few hundred queries, what a core's caches hold."""
SIMILARITIES_AT_ONCE = 2**22
"""Similarities that are held at once (16 MB), so that many queries fit too."""
SHORTEST = 1e-12
"""A token shorter than this has no direction: its similarity to all is 0."""
DISTRACTORS_AT_ONCE = 4096
"""Distractors that are drawn at once; another number draws others."""
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
        distractors: Further candidates that nobody saw, in blocks [m, D]; each is read once and let go.

    Returns:
        Ranks [N] on the CPU, 1 is best.

    Raises:
        BrainhiveError: if sizes do not fit or a token is not a number.
    """
    signal_tokens, gallery, targets = _prepared(signal_tokens, gallery, target)
    best = similarity_to(signal_tokens, gallery, targets).amax(1, keepdim=True)
    return 1 + count_at_least(signal_tokens, gallery, targets, best, distractors)[:, 0].cpu()


def ranks_of_all(
    signal_tokens: Tensor, gallery: Tensor, pictures: int, distractors: Iterable[Tensor] = ()
) -> NDArray[np.int64]:
    """Rank not only the seen picture but each of the first ones of the gallery, for every signal.

    Args:
        signal_tokens: [N, D].
        gallery: Image tokens [M, D].
        pictures: P, how many of the gallery, from the first, are ranked.
        distractors: Further candidates, in blocks [m, D].

    Returns:
        Ranks [N, P]; ties rank against the model.
    """
    signals = unit(signal_tokens)
    limits = (signals @ unit(gallery[:pictures]).T).contiguous() - TIE
    counts = torch.zeros(limits.shape, dtype=torch.int64, device=limits.device)
    for block in (block for tokens in chain([gallery], distractors) for block in tokens.split(CANDIDATES)):
        sorted_up = (signals @ unit(block.to(signals.device)).T).sort(1).values
        counts += sorted_up.shape[1] - torch.searchsorted(sorted_up, limits)
    return counts.cpu().numpy()


def average_precisions(
    signal_tokens: Tensor, gallery: Tensor, relevant: Tensor, distractors: Iterable[Tensor] = ()
) -> Tensor:
    """Average the precision at each relevant image; wrong ones that tie with it rank before it.

    Args:
        signal_tokens: [N, D].
        gallery: Image tokens [M, D].
        relevant: Indices of the relevant images in the gallery, [N, K]; -1 where there are fewer than K.
        distractors: As in `ranks`.

    Returns:
        Average precision [N] on the CPU, in float64; with one relevant image it is one over its rank.

    Raises:
        BrainhiveError: if sizes do not fit or a token is not a number.
    """
    signal_tokens, gallery, targets = _prepared(signal_tokens, gallery, relevant)
    right = similarity_to(signal_tokens, gallery, targets)
    wrong = count_at_least(signal_tokens, gallery, targets, right, distractors)  # [N, K]
    wrong = wrong.masked_fill(targets < 0, torch.iinfo(wrong.dtype).max // 2).sort(1).values.cpu()
    place = torch.arange(1, wrong.shape[1] + 1)  # among the relevant
    precision = (place / (place + wrong.double())).where((targets >= 0).sort(1, descending=True)[0].cpu(), 0)
    return precision.sum(1) / (targets >= 0).sum(1).cpu()


def nearest(signal_tokens: Tensor, gallery: Tensor | Iterable[Tensor]) -> Tensor:
    """Find the most similar gallery item of each signal: [N] on the CPU, the first of equals.

    Args:
        signal_tokens: [N, D].
        gallery: Image tokens [M, D], or blocks [m, D] of them, of which one is held at a time.
    """
    best = torch.full((len(signal_tokens),), -torch.inf)
    best_place, start = torch.zeros(len(signal_tokens), dtype=torch.long), 0
    for block in [gallery] if isinstance(gallery, Tensor) else gallery:
        unit = torch.nn.functional.normalize(block.float(), dim=1)
        rows = max(1, SIMILARITIES_AT_ONCE // len(block))
        best_of_rows = [(tokens.float() @ unit.T).max(1) for tokens in signal_tokens.split(rows)]
        value, place = (torch.cat([pair[n].cpu() for pair in best_of_rows]) for n in (0, 1))
        is_better = value > best
        best, best_place = (
            torch.where(is_better, value, best),
            torch.where(is_better, start + place, best_place),
        )
        start += len(block)
    return best_place


def subset_hits(
    signal_tokens: Tensor, image_tokens: Tensor, ways: int, draws: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Count who is found first among random subsets of the test items, in both directions.

    Args:
        signal_tokens: [N, D], one an image.
        image_tokens: [N, D], of the same items in the same order.
        ways: Items of a subset.
        draws: Number of subsets.
        seed: Seed of the drawing.

    Returns:
        Share of an item's own draws in which it was found first, [N] signal to image and [N] image to signal;
        NaN for an item that was never drawn.

    Raises:
        BrainhiveError: if there are fewer items than a subset takes.

    Source: 300-way, 30 draws: MindEye (arXiv 2305.18274), section 4.1, on NSD.
    """
    count = len(signal_tokens)
    if ways > count:
        raise BrainhiveError(f"subsets of {ways} cannot be drawn from {count} items", f"subsets.ways={count}")
    random, drawn = np.random.default_rng(seed), np.zeros(count)
    forward, backward = np.zeros(count), np.zeros(count)
    for _ in range(draws):
        chosen = random.permutation(count)[:ways]
        signal, image, same = signal_tokens[chosen], image_tokens[chosen], torch.arange(ways)
        drawn[chosen] += 1
        forward[chosen] += (ranks(signal, image, same) == 1).numpy()
        backward[chosen] += (ranks(image, signal, same) == 1).numpy()
    drawn[drawn == 0] = np.nan
    return forward / drawn, backward / drawn


def subset_expectations(
    signal_tokens: Tensor, image_tokens: Tensor, ways: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute how often each item is found first among random subsets: what `subset_hits` draws, exactly.

    An item of rank r among N is found unless one of the r - 1 before it is among the `ways` - 1 others, which
    are drawn without replacement: its share is C(N - r, ways - 1) / C(N - 1, ways - 1).

    Args:
        signal_tokens: [N, D], one an image.
        image_tokens: [N, D], of the same items in the same order.
        ways: Items of a subset, N at most.

    Returns:
        Shares [N] signal to image and [N] image to signal.
    """
    count, same = len(signal_tokens), torch.arange(len(signal_tokens))
    before = np.arange(count - 1)  # candidates that rank before, less one
    spared = np.clip(count - ways - before, 0, None) / (count - 1 - before)
    share = np.concatenate([[1.0], spared.cumprod()])
    forward = ranks(signal_tokens, image_tokens, same).numpy()
    return share[forward - 1], share[ranks(image_tokens, signal_tokens, same).numpy() - 1]


def _prepared(signal_tokens: Tensor, gallery: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Check tokens and targets, and bring them to one device."""
    targets, device = target.reshape(len(target), -1), signal_tokens.device  # [N, K]
    n, m = len(signal_tokens), len(gallery)
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
    for name, tokens in {"signal tokens": signal_tokens, "gallery": gallery}.items():
        if bad := int((~torch.linalg.vector_norm(tokens.float(), dim=1).isfinite()).sum()):
            raise BrainhiveError(f"{bad} of {len(tokens)} {name} are not finite", "the training has diverged")
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
        targets: Right candidates, [N, K] places in the gallery; -1 where there are fewer than K.
        thresholds: Similarities to count against, [N, J] in float64 (see `similarity_to`).
        distractors: Further wrong candidates, in blocks [m, D]; each is read once.

    Returns:
        Counts [N, J].

    Raises:
        BrainhiveError: if a distractor is not finite.
    """
    exact, counts = unit(queries), torch.zeros(thresholds.shape, dtype=torch.int64, device=queries.device)
    rough, margin = exact.float(), _rounding(queries.shape[1])
    size = max(1, min(CANDIDATES, SIMILARITIES_AT_ONCE // len(queries)))
    with torch.autocast(queries.device.type, enabled=False):
        for start, block in _blocks(gallery, distractors, size):
            block = block.to(queries.device).float()
            lengths = torch.linalg.vector_norm(block, dim=1)
            if not lengths.isfinite().all():
                raise BrainhiveError("a candidate of the gallery is not finite", "look for NaN in its tokens")
            similarity = (rough @ block.T).div_(lengths.clamp_(min=SHORTEST))  # [N, m]
            places = targets - start  # the right candidates are taken out
            row, which = ((places >= 0) & (places < similarity.shape[1])).nonzero(as_tuple=True)
            similarity[row, places[row, which]] = -math.inf
            for column, threshold in enumerate(thresholds.unsqueeze(2).unbind(1)):  # [N, 1]
                counts[:, column] += _count(similarity, exact, block, threshold, margin)
    return counts


def _count(similarity: Tensor, exact: Tensor, block: Tensor, threshold: Tensor, margin: float) -> Tensor:
    low, high = threshold.float() - margin, threshold.float() + margin
    marks = torch.empty_like(similarity)  # sums of floats are five times as fast as those of booleans
    count = torch.gt(similarity, high, out=marks).sum(1).long()
    row = (torch.gt(similarity, low, out=marks).sum(1) > count).nonzero()[:, 0]
    near = (similarity[row] > low[row]) & (similarity[row] <= high[row])
    candidate = near.any(0).nonzero()[:, 0]  # to be compared in float64
    again = exact[row] @ unit(block[candidate]).T >= threshold[row] - TIE
    count[row] += (near[:, candidate] & again).sum(1)
    return count


def _blocks(gallery: Tensor, distractors: Iterable[Tensor], size: int) -> Iterator[tuple[int, Tensor]]:
    """Yield blocks of candidates with the place of their first in the gallery; beyond it for distractors."""
    yield from zip(range(0, len(gallery), size), gallery.split(size), strict=True)
    for more in distractors:
        yield from ((len(gallery), block) for block in more.split(size))


def _rounding(dim: int) -> float:
    """Bound the error of a float32 cosine.

    Rounding errors of a sum of D products grow as a random walk, to √D u or less, u being 2⁻²⁴ (Higham and
    Mary 2019, A New Approach to Probabilistic Rounding Error Analysis). Twice that, and a little for lengths.
    """
    return (2 * math.sqrt(dim) + 16) * 2.0**-24


def similarity_to(queries: Tensor, gallery: Tensor, targets: Tensor) -> Tensor:
    """Return the cosine similarity of each query with its targets: [N, K] in float64, -inf where -1."""
    pieces = max(1, SIMILARITIES_AT_ONCE // (targets.shape[1] * queries.shape[1]))
    similarities = [
        torch.einsum("nd,nkd->nk", unit(some), unit(gallery[places.clamp(min=0)]))
        for some, places in zip(queries.split(pieces), targets.split(pieces), strict=True)
    ]
    return torch.cat(similarities).masked_fill(targets < 0, -math.inf)


def unit(tokens: Tensor) -> Tensor:
    """Bring tokens to unit length in float64."""
    return F.normalize(tokens.detach().double(), dim=-1, eps=SHORTEST)


def draw_distractors(gallery: Tensor, count: int, seed: int) -> Iterator[Tensor]:
    """Draw vectors from the normal distribution that has the gallery's mean and covariance.

    Random vectors in all directions would be far from every token, and beaten by all of them.

    Args:
        gallery: [M, D].
        count: How many are drawn.
        seed: Seed of the drawing, the same on every device.

    Yields:
        Blocks [m, D] on the gallery's device.
    """
    random = torch.Generator().manual_seed(seed)
    centre = gallery.mean(0)
    some = gallery[torch.randperm(len(gallery), generator=random)[:DIRECTIONS].to(gallery.device)]
    directions = (some - centre) / math.sqrt(max(1, len(some) - 1))
    for start in range(0, count, DISTRACTORS_AT_ONCE):
        weights = torch.randn(min(DISTRACTORS_AT_ONCE, count - start), len(some), generator=random)
        yield centre + weights.to(gallery.device) @ directions


TOP = (1, 3, 5)
"""Numbers of candidates within which the seen image counts as found; the field's."""


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
    groups = [np.atleast_2d(np.asarray(ranks, np.float64)) for ranks in ranks_of_subjects]  # [S, N]
    common: dict[str, Any] = {"protocol": protocol, "split": split, "pool": pool, "seeds": seeds}
    common["items"] = items
    guess = chance_of_ranks(pool, targets)
    possible = np.arange(1, len(guess) + 1)
    transforms: dict[str, tuple[Callable[[Any], Any], Statistic, Limits]] = {
        **{f"top{k}": (partial(np.greater_equal, k), np.mean, (0.0, 1.0)) for k in TOP},
        "mean_rank": (np.asarray, np.mean, (1.0, float(pool))),
        "median_rank": (np.asarray, np.median, (1.0, float(pool))),
        "mrr": (np.reciprocal, np.mean, (0.0, 1.0)),
    }
    metrics = []
    for name in only or transforms:
        transform, statistic, limits = transforms[name]
        chance = float(f"{guess @ transform(possible.astype(np.float64)):.12g}")  # no rounding error is shown
        if statistic is np.median:
            chance = float(possible[np.searchsorted(guess.cumsum(), 0.5)])
        values = [transform(group) for group in groups]
        metrics.append(measure(name, values, statistic=statistic, chance=chance, limits=limits, **common))
    return metrics


def chance_of_ranks(pool: int, targets: int = 1) -> NDArray[np.float64]:
    """Probability of each rank, from 1, for guesses among `pool` candidates of which `targets` are right."""
    wrong = pool - targets
    missed = (wrong - np.arange(wrong + 1)) / (pool - np.arange(wrong + 1))  # given that all before missed
    later = np.cumprod(missed)  # the rank is beyond 1, 2, ...
    return np.concatenate([[1.0], later[:-1]]) - later


def chance_of_precision(pool: int, relevant: int) -> float:
    """Average precision expected of a random order of `pool` candidates of which `relevant` are right.

    Source: Bestgen 2015, Exact Expected Average Precision of the Random Baseline for System Evaluation.
    """
    harmonic = float((1 / np.arange(1, pool + 1)).sum())
    return (harmonic + (relevant - 1) / max(1, pool - 1) * (pool - harmonic)) / pool


SIGNIFICANT = 0.025
"""On each side, as a 95 % interval has it."""
LONGEST = 2**22
"""Values that a sum of ranks may take for its distribution to be convolved: a quarter of a second."""
LEAST = 1e-12
"""A smaller probability is the convolution's rounding, and is given as this one."""
FRACTION = 1e-6
"""A sum of averaged ranks that is closer than this to a whole number is one."""


@dataclass(frozen=True)
class RankSum:
    """A sum of ranks, compared with those of guesses.

    Attributes:
        better: Probability that guesses have a sum as small.
        worse: Probability that guesses have a sum as large.
        n: Items whose ranks were added.
        pool: Candidates of each.
        test: How the probabilities were found.
    """

    better: float
    worse: float
    n: int
    pool: int
    test: str

    @property
    def verdict(self) -> str:
        """On which side of chance the ranks are, two-sided at .05."""
        if self.better < SIGNIFICANT:
            return "above chance"
        return "below chance" if self.worse < SIGNIFICANT else "at chance"


def rank_sum(groups: Sequence[Values], pool: int, items: Items | None = None) -> RankSum:
    """Compare the sum of ranks with that of guesses, whose every rank from 1 to `pool` is as probable.

    An item is one guess, however many subjects and models ranked it: its ranks are averaged first. They vary
    together where all subjects saw a picture that was given a wrong label; to count each rank would call such
    labels better or worse than chance in half of simulations (ten subjects) instead of 5 %. Where they are
    independent, the test is conservative. Items that are alike are not guesses of their own either: then the
    mean rank is compared with that of guesses by a t test over units.

    Args:
        groups: Ranks of the items [N], or [S, N] of S models, one array a subject.
        pool: Candidates.
        items: See `statistics.describe`.
    """
    averages = [np.atleast_2d(group).mean(0) for group in groups]
    items = items or Items.unnamed([len(group) for group in averages])
    (scatter,) = scatter_of_means([group[None] for group in averages], items)
    if not items.are_independent and scatter.together > 0:
        from scipy.stats import t

        distance = (scatter.estimates.mean() - (pool + 1) / 2) / np.sqrt(scatter.together)
        better, worse = np.clip(t.cdf([distance, -distance], items.count - 1), LEAST, 1).tolist()
        test = f"t test of the mean rank over {items.count} {items.kind}"
        return RankSum(better, worse, items.size, pool, test)
    ranks = items.means(averages)  # [units]
    total, count = float(ranks.sum()), len(ranks)
    least, most = int(np.floor(total + FRACTION)), int(np.ceil(total - FRACTION))
    if count * pool <= LONGEST:
        chances = _sum_of_guesses(count, pool)  # from `count`, all ranks 1
        better, worse = chances[: least - count + 1].sum(), chances[most - count :].sum()
        test = "exact test of the rank sum"
    else:
        from scipy.stats import norm

        mean, sd = count * (pool + 1) / 2, np.sqrt(count * (pool**2 - 1) / 12)
        better, worse = norm.cdf(least + 0.5, mean, sd), norm.sf(most - 0.5, mean, sd)
        test = "normal approximation of the rank sum"
    better, worse = np.clip([better, worse], LEAST, 1).tolist()
    return RankSum(better, worse, count, pool, test)


@lru_cache(maxsize=4)  # cells of a run share them; 32 MiB each at most
def _sum_of_guesses(count: int, pool: int) -> NDArray[np.float64]:
    """Convolve a uniform distribution over `pool` values `count` times with itself."""
    size = count * (pool - 1) + 1
    one = np.fft.rfft(np.full(pool, 1 / pool), size)
    return np.fft.irfft(one**count, size)
