"""Retrieval: the rank of the seen image among a gallery, by cosine similarity to the signal's token."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from brainhive_cli.errors import BrainhiveError
from brainhive_cli.metrics.statistics import Metric, Statistic, measure

TOP = (1, 3, 5)
"""Numbers of candidates within which the seen image counts as found; the field's."""
TIE = 1e-12
"""Similarities closer than this are equal: above the rounding of float64, below that of float32 tokens."""
BLOCK = 2**24
"""Similarities that are held at once (128 MB), so that a large gallery fits."""


def ranks(signal_tokens: Tensor, gallery: Tensor, target: Tensor) -> Tensor:
    """Rank each signal's target in the gallery; ties rank against the model.

    Args:
        signal_tokens: [N, D].
        gallery: Image tokens [M, D].
        target: Index of the seen image in the gallery, [N]; or [N, K] when K gallery items show it, of which
            the best counts, among those that do not.

    Returns:
        Ranks [N] on the CPU, 1 is best.

    Raises:
        BrainhiveError: if sizes do not fit or a token is not a number.
    """
    targets = target.reshape(len(target), -1).to(signal_tokens.device)  # [N, K]
    _check(signal_tokens, gallery, targets)
    gallery = _unit(gallery).to(signal_tokens.device)
    rows = max(1, BLOCK // len(gallery))
    blocks = zip(signal_tokens.split(rows), targets.split(rows), strict=True)
    return torch.cat([_ranks_of(_unit(tokens) @ gallery.T, seen) for tokens, seen in blocks]).cpu()


def _ranks_of(similarity: Tensor, targets: Tensor) -> Tensor:
    best = similarity.gather(1, targets).amax(1, keepdim=True)
    similarity.scatter_(1, targets, -math.inf)  # what is left are the wrong candidates
    return 1 + (similarity >= best - TIE).sum(1)


def _unit(tokens: Tensor) -> Tensor:
    if tokens.device.type == "mps":
        tokens = tokens.cpu()  # it has no float64
    return F.normalize(tokens.detach().double(), dim=-1)


def _check(signal_tokens: Tensor, gallery: Tensor, targets: Tensor) -> None:
    n, m = len(signal_tokens), len(gallery)
    if signal_tokens.ndim != 2 or gallery.ndim != 2 or signal_tokens.shape[1] != gallery.shape[1] or not n:
        raise BrainhiveError(
            f"signal tokens {list(signal_tokens.shape)} cannot be compared with {list(gallery.shape)}",
            "both must be [N, D] with the same D",
        )
    if len(targets) != n or targets.min() < 0 or targets.max() >= m:
        raise BrainhiveError(
            f"{n} signals need as many targets from 0 to {m - 1}, got {len(targets)} "
            f"from {int(targets.min())} to {int(targets.max())}",
            "the seen images must be in the gallery",
        )
    for name, tokens in {"signal tokens": signal_tokens, "gallery": gallery}.items():
        bad = int((~tokens.isfinite().all(1)).sum())
        if bad:
            raise BrainhiveError(f"{bad} of {len(tokens)} {name} are not finite", "the training has diverged")


def summarise(
    ranks_of_subjects: Sequence[Tensor],
    pool: int,
    *,
    split: str,
    protocol: str = "cosine",
    seeds: Sequence[int] = (),
    targets: int = 1,
) -> list[Metric]:
    """Summarise ranks: top-1, -3, -5, mean and median rank, mean reciprocal rank, each with its chance.

    Args:
        ranks_of_subjects: Ranks [N], one tensor a subject; or [S, N] of S seeds, averaged for each item, so
            that an item counts once however many models were tried on it.
        pool: M, size of the gallery.
        split: Part of the data set that the signals are of.
        protocol: Name of the way the ranks were made.
        seeds: Seeds of the trainings that were measured.
        targets: K, gallery items that show the seen image.
    """
    groups = [np.atleast_2d(ranks.numpy()).astype(np.float64) for ranks in ranks_of_subjects]  # [S, N]
    common: dict[str, Any] = {"protocol": protocol, "split": split, "pool": pool, "seeds": seeds}
    guess = chance_of_ranks(pool, targets)
    possible = np.arange(1, len(guess) + 1)
    transforms: dict[str, tuple[Callable[[Any], Any], Statistic]] = {
        **{f"top{k}": (partial(_found, k=k), np.mean) for k in TOP},
        "mean_rank": (np.asarray, np.mean),
        "median_rank": (np.asarray, np.median),
        "mrr": (np.reciprocal, np.mean),
    }
    metrics = []
    for name, (transform, statistic) in transforms.items():
        chance = float(guess @ transform(possible.astype(np.float64)))
        if statistic is np.median:
            chance = float(possible[np.searchsorted(guess.cumsum(), 0.5)])
        values = [transform(group).mean(0) for group in groups]
        metrics.append(measure(name, values, statistic=statistic, chance=chance, **common))
    return metrics


def chance_of_ranks(pool: int, targets: int = 1) -> NDArray[np.float64]:
    """Probability of each rank, from 1, for guesses among `pool` candidates of which `targets` are right."""
    wrong = pool - targets
    missed = (wrong - np.arange(wrong + 1)) / (pool - np.arange(wrong + 1))  # given that all before missed
    later = np.cumprod(missed)  # the rank is beyond 1, 2, ...
    return np.concatenate([[1.0], later[:-1]]) - later


def _found(ranks: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    return (ranks <= k).astype(np.float64)
