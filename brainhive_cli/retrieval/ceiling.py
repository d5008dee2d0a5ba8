"""The split-half ceiling of signals: how well half of the repetitions tells what the other half shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from brainhive_cli.core.caveats import in_protocol
from brainhive_cli.core.console import Table
from brainhive_cli.core.seeds import derive_seed
from brainhive_cli.metrics.retrieval import ranks, summarise
from brainhive_cli.metrics.statistics import Metric, interval_text, measure

Halves = tuple[Tensor, Tensor]
"""Averages of two disjoint halves of each picture's repetitions, [N, F] each."""
SHOWN = ("top1", "top5", "median_rank")


@dataclass(frozen=True)
class Ceiling:
    """What the halves of one subject's repetitions say of each other.

    Attributes:
        image_ids: [N] pictures with two repetitions at least.
        repetitions: The most that a picture has.
        ranks: [splits, N] of a picture's own signal in the other half.
        correlation: [N] share of each picture in the correlation over pictures of the halves, a mean over
            channels, times and splits: its mean over pictures is that correlation.
        reason: Why there is none; empty if there is.
    """

    image_ids: list[str]
    repetitions: int
    ranks: list[list[int]]
    correlation: list[float]
    reason: str = ""

    @classmethod
    def of(cls, trials: Tensor, there: Tensor, image_ids: Sequence[str], splits: int, seed: int) -> "Ceiling":
        """Measure it on single trials.

        Args:
            trials: Of N pictures, [N, R, ...].
            there: How many of the R there are, [N].
            image_ids: [N].
            splits: How often repetitions are dealt into halves, at random.
            seed: Of the dealing.
        """
        most, kept = int(there.max()), there >= 2
        ids = [image_id for image_id, is_kept in zip(image_ids, kept.tolist(), strict=True) if is_kept]
        if len(ids) < 2:
            few = "one repetition of each picture" if most < 2 else "fewer than two pictures were repeated"
            return cls([], most, [], [], few)
        if not kept.all():
            trials, there = trials[kept], there[kept]
        signal, absent = trials.flatten(2), torch.arange(trials.shape[1]) >= there[:, None]  # [N, R, F]
        if absent.any():  # whatever stands there may be no number
            signal = signal.masked_fill(absent[:, :, None], 0)
        found, shares = [], []
        for split in range(splits):
            averages = halves(signal, there, torch.Generator().manual_seed(derive_seed(seed, split)))
            first, second = (each - each.mean(0) for each in averages)  # what all pictures evoke tells none
            unit = [normalize(each, dim=0) for each in (first, second)]  # over pictures, by channel and time
            shares.append((unit[0] * unit[1]).mean(1) * len(ids))
            found.append(ranks(first, second, torch.arange(len(ids))).tolist())
        return cls(ids, most, found, torch.stack(shares).mean(0).tolist())


def halves(signal: Tensor, there: Tensor, random: torch.Generator) -> Halves:
    """Average two random halves of each picture's repetitions.

    Args:
        signal: [N, R, F].
        there: How many of the R there are, [N]; of an odd number one is left out.
        random: Deals them.

    Returns:
        [N, F] each.
    """
    drawn = torch.rand(signal.shape[:2], generator=random)
    is_there = torch.arange(signal.shape[1]) < there[:, None]
    place = drawn.masked_fill(~is_there, 2).argsort(1).argsort(1)  # what is there comes first
    size = (there // 2)[:, None]
    parts = torch.stack([place < size, (place >= size) & (place < 2 * size)], dim=1)  # [N, 2, R]
    first, second = torch.bmm(parts / size[:, None], signal).unbind(1)
    return first, second


def spearman_brown(correlation: float) -> float:
    """Say what the correlation of two halves would be if both had all repetitions."""
    return 2 * correlation / (1 + correlation)


def ceilings(
    found: Mapping[int, Ceiling], dataset: str, split: str, splits: int, caveats: Sequence[str]
) -> dict[str, Any]:
    """Describe the ceilings of subjects, and of all together where they saw as many pictures.

    Returns:
        `protocol`, `splits`, metrics as plain values of `subjects` and `overall`, and why some are `missing`.
    """
    there = {subject: each for subject, each in found.items() if not each.reason}
    protocol = in_protocol(
        f"half of the repetitions against the other half, {splits} random splits, {dataset}", caveats
    )
    alike = len({len(each.image_ids) for each in there.values()}) == 1
    return {
        "protocol": protocol,
        "splits": splits,
        "subjects": {
            f"sub-{subject:02d}": {"repetitions": each.repetitions, **_described([each], protocol, split)}
            for subject, each in there.items()
        },
        "overall": _described(list(there.values()), protocol, split) if alike else {},
        "missing": {f"sub-{subject:02d}": each.reason for subject, each in found.items() if each.reason},
    }


def _described(some: Sequence[Ceiling], protocol: str, split: str) -> dict[str, dict[str, Any]]:
    ids, pool = [each.image_ids for each in some], len(some[0].image_ids)
    found = [torch.tensor(each.ranks) for each in some]
    metrics = summarise(found, pool, split=split, ids=ids, protocol=protocol, only=SHOWN)
    shares: list[NDArray[np.float64]] = [np.array(each.correlation) for each in some]
    half = measure(
        "reliability",
        shares,
        protocol=protocol,
        split=split,
        ids=ids,
        chance=0.0,
        limits=(-0.99, 1.0),
        wilson=False,
    )
    return {metric.name: metric.as_dict() for metric in [*metrics, _corrected(half)]}


def _corrected(half: Metric) -> Metric:
    """Bring a correlation of halves, and the ends of its intervals, to all repetitions."""
    low, high = (None if end is None else spearman_brown(end) for end in (half.low, half.high))
    these = half.these_subjects and (
        spearman_brown(half.these_subjects[0]),
        spearman_brown(half.these_subjects[1]),
    )
    return replace(half, value=spearman_brown(half.value), low=low, high=high, these_subjects=these)


def ceiling_table(metrics: Mapping[str, Any]) -> Table:
    """Show the ceiling of each subject's signals, or why there is none."""
    found = metrics.get("ceiling") or {"subjects": {}, "overall": {}, "missing": {}, "protocol": ""}
    rows: list[tuple[Any, ...]] = [(name, *_row(each)) for name, each in found["subjects"].items()]
    if len(rows) > 1 and found["overall"]:
        rows.append(("all", *_row(found["overall"])))
    rows += [(name, f"not available: {reason}", *["–"] * 6) for name, reason in found["missing"].items()]
    counts = [each["repetitions"] for each in found["subjects"].values()]
    most = f"; {max(counts)} repetitions of a picture at most" if counts else ""
    title = f"Split-half ceiling of the signals: {found['protocol']}{most}"
    columns = ("subject", "top-1", "95 % CI", "chance", "reliability", "its 95 % CI", "n", "pool")
    return Table(title, columns, tuple(rows))


def _row(found: Mapping[str, Any]) -> tuple[Any, ...]:
    top1, reliability = found["top1"], found["reliability"]
    return (
        f"{top1['value']:.3f}",
        interval_text(top1),
        top1["chance"],
        reliability["value"],
        interval_text(reliability),
        top1["n"],
        top1["pool"],
    )
