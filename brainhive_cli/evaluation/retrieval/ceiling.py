"""The split-half ceiling of signals: how well half of the repetitions predicts the other half."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from brainhive_cli.core.caveats import extend_protocol
from brainhive_cli.core.measurements import ALL, Measurements, Metric, by_name, scope
from brainhive_cli.core.seeds import derive_seed
from brainhive_cli.measurement.retrieval import ranks, summarise
from brainhive_cli.measurement.statistics import measure, spearman_brown
from brainhive_cli.measurement.units import Alike

CEILING = "ceiling"
"""The first part of its scopes."""


@dataclass(frozen=True)
class Ceiling:
    """How well the halves of one subject's repetitions predict each other.

    Attributes:
        image_ids: [N] pictures with two repetitions at least.
        repetitions: The most that a picture has.
        ranks: [splits, N] of a picture's own signal in the other half.
        correlation: [N] share of each picture in the correlation over pictures of the halves, a mean over
            channels, times and splits: its mean over pictures is that correlation.
        times: Repetitions of a picture over those of its half, on average: 2 or, of odd numbers, more.
        reason: Why there is none; empty if there is.
    """

    image_ids: list[str]
    repetitions: int
    ranks: list[list[int]]
    correlation: list[float]
    times: float = 2.0
    reason: str = ""

    @classmethod
    def measure(
        cls, trials: Tensor, available: Tensor, image_ids: Sequence[str], splits: int, seed: int
    ) -> Self:
        """Halve the single trials [N, R, …] of pictures at random, `splits` times; [N] of the R exist."""
        most, kept = int(available.max()), available >= 2
        ids = [image_id for image_id, is_kept in zip(image_ids, kept.tolist(), strict=True) if is_kept]
        if len(ids) < 2:
            few = "one repetition of each picture" if most < 2 else "fewer than two pictures were repeated"
            return cls([], most, [], [], reason=few)
        if not kept.all():
            trials, available = trials[kept], available[kept]
        signal, absent = trials.flatten(2), torch.arange(trials.shape[1]) >= available[:, None]  # [N, R, F]
        if absent.any():  # the padding may be NaN
            signal = signal.masked_fill(absent[:, :, None], 0)
        found, shares = [], []
        for split in range(splits):
            averages = halves(signal, available, torch.Generator().manual_seed(derive_seed(seed, split)))
            first, second = (each - each.mean(0) for each in averages)  # less what all pictures evoke
            unit = [normalize(each, dim=0) for each in (first, second)]  # over pictures, by channel and time
            shares.append((unit[0] * unit[1]).mean(1) * len(ids))
            found.append(ranks(first, second, torch.arange(len(ids))).tolist())
        times = float(available.sum() / (available // 2).sum())
        return cls(ids, most, found, torch.stack(shares).mean(0).tolist(), times)


def halves(signal: Tensor, available: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Average two random disjoint halves of each picture's repetitions.

    Args:
        signal: [N, R, F].
        available: How many of the R exist, [N]; of an odd number one is left out.
        random: Draws the halves.

    Returns:
        [N, F] each.
    """
    drawn = torch.rand(signal.shape[:2], generator=random)
    is_available = torch.arange(signal.shape[1]) < available[:, None]
    place = drawn.masked_fill(~is_available, 2).argsort(1).argsort(1)  # those available come first
    size = (available // 2)[:, None]
    parts = torch.stack([place < size, (place >= size) & (place < 2 * size)], dim=1)  # [N, 2, R]
    first, second = torch.bmm(parts / size[:, None], signal).unbind(1)
    return first, second


def describe_ceilings(
    found: Mapping[str, Ceiling], dataset: str, split: str, splits: int, caveats: Sequence[str], alike: Alike
) -> Measurements:
    """Describe the ceilings of subjects, by name, and of all together where they saw as many pictures."""
    if not found:
        return Measurements()
    there = {subject: each for subject, each in found.items() if not each.reason}
    protocol = extend_protocol(
        f"half of the repetitions against the other half, {splits} random splits, {dataset}", caveats
    )
    how = (protocol, split, alike)
    scopes = {scope(CEILING, subject): _describe([each], *how) for subject, each in there.items()}
    if len({len(each.image_ids) for each in there.values()}) == 1:
        scopes[scope(CEILING, ALL)] = _describe(list(there.values()), *how)
    missing = {scope(CEILING, subject): each.reason for subject, each in found.items() if each.reason}
    notes = {"protocol": protocol, "repetitions": max(each.repetitions for each in found.values())}
    return Measurements(scopes, missing, {CEILING: notes})


def _describe(some: Sequence[Ceiling], protocol: str, split: str, alike: Alike) -> dict[str, Metric]:
    items = alike.items([each.image_ids for each in some])
    named: Any = {"protocol": protocol, "split": split, "items": items}
    metrics = summarise([each.ranks for each in some], len(some[0].image_ids), only=("top1", "top5"), **named)
    shares = [np.array(each.correlation) for each in some]
    half = measure("reliability", shares, chance=0.0, limits=(-1.0, 1.0), is_share=False, **named)
    return by_name([*metrics, _of_all_repetitions(half, float(np.mean([each.times for each in some])))])


def _of_all_repetitions(half: Metric, times: float) -> Metric:
    """Correct a correlation of halves, and the ends of its intervals, to all repetitions."""
    low, high = (None if end is None else spearman_brown(end, times) for end in (half.low, half.high))
    these = half.these_subjects
    corrected = these and (spearman_brown(these[0], times), spearman_brown(these[1], times))
    value = spearman_brown(half.value, times)
    return replace(half, value=value, low=low, high=high, these_subjects=corrected)
