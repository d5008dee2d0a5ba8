"""Retrieval: the rank of the seen image among a gallery, by cosine similarity to the signal's token."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.measurement._rank_counts import BLOCK, CANDIDATES, TIE, count_at_least, similarity_to, unit
from brainhive_cli.measurement.statistics import Limits, Metric, Statistic, measure
from brainhive_cli.measurement.units import Items

TOP = (1, 3, 5)
"""Numbers of candidates within which the seen image counts as found; the field's."""


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
    own = (signals @ unit(gallery[:pictures]).T).contiguous() - TIE
    counts = torch.zeros(own.shape, dtype=torch.int64, device=own.device)
    for block in (block for some in chain([gallery], distractors) for block in some.split(CANDIDATES)):
        sorted_up = (signals @ unit(block.to(signals.device)).T).sort(1).values
        counts += sorted_up.shape[1] - torch.searchsorted(sorted_up, own)
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
    own = similarity_to(signal_tokens, gallery, targets)
    wrong = count_at_least(signal_tokens, gallery, targets, own, distractors)  # [N, K]
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
    found, start = torch.zeros(len(signal_tokens), dtype=torch.long), 0
    for block in [gallery] if isinstance(gallery, Tensor) else gallery:
        unit = torch.nn.functional.normalize(block.float(), dim=1)
        rows = max(1, BLOCK // len(block))
        some = [(tokens.float() @ unit.T).max(1) for tokens in signal_tokens.split(rows)]
        value, place = (torch.cat([each[n].cpu() for each in some]) for n in (0, 1))
        is_better = value > best
        best, found = torch.where(is_better, value, best), torch.where(is_better, start + place, found)
        start += len(block)
    return found


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
    kept = np.clip(count - ways - before, 0, None) / (count - 1 - before)
    share = np.concatenate([[1.0], kept.cumprod()])
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
