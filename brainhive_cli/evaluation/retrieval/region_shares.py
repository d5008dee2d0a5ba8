"""Which region of voxels carries which head: how much of a prediction is lost without the region."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.measurements import Metric, by_name, scope
from brainhive_cli.measurement.statistics import measure
from brainhive_cli.measurement.units import Alike
from brainhive_cli.training.alignment.trained_cell import TrainedCell

REGIONS = "regions"
"""The first part of its scopes."""
AT_ONCE = 64
"""Signals whose heads are predicted at once: 272,896 outputs of each are 70 MB."""


@dataclass(frozen=True)
class RegionShares:
    """What each region carries of the heads that a cell predicts of one subject.

    Attributes:
        image_ids: [N].
        voxels: How many voxels each region has among those that the model reads.
        shares: By head and region, [N].
    """

    image_ids: list[str]
    voxels: Mapping[str, int]
    shares: Mapping[str, Mapping[str, list[float]]]

    @classmethod
    def measure(cls, member: TrainedCell, subject: int, split: str) -> Self:
        """Replace the voxels of each region by their mean over training signals, and predict again.

        A share is the squared change of a head's prediction, over that with all voxels replaced: 0 where the
        region has no effect. Shares of regions that interact, or overlap, do not add up to 1.

        Raises:
            RecipeError: if the signals are not of voxels.
        """
        trials = member.responses(subject, split)
        regions = {name: places for name, places in trials.regions.items() if places}
        if not regions:
            raise RecipeError("region_shares is of voxels in regions, which the signals have not", "leave it")
        rest = torch.from_numpy(member.mean_training_signal(subject))  # [V, 1]
        without = {name: torch.zeros(len(rest), 1, dtype=torch.bool) for name in regions}
        for name, places in regions.items():
            without[name][list(places)] = True
        empty = member.predicted(subject, rest[None])
        found: dict[str, dict[str, list[Tensor]]] = {head: {name: [] for name in regions} for head in empty}
        for part in torch.from_numpy(trials.signal).split(AT_ONCE):
            whole = member.predicted(subject, part)
            total = {head: _squared(values - empty[head]) for head, values in whole.items()}
            for name, mask in without.items():
                for head, values in member.predicted(subject, torch.where(mask, rest, part)).items():
                    share = _squared(whole[head] - values) / total[head].clamp(min=1e-30)
                    found[head][name].append(share)
        shares = {
            head: {name: torch.cat(parts).tolist() for name, parts in each.items()}
            for head, each in found.items()
        }
        ids = [member.pictures(split).image_ids[row] for row in trials.stimulus]
        return cls(ids, {name: len(places) for name, places in regions.items()}, shares)


def _squared(values: Tensor) -> Tensor:
    return values.flatten(1).square().sum(1).cpu()


def describe_regions(
    groups: Sequence[Sequence[RegionShares]], subjects: Sequence[str], alike: Alike, **context: Any
) -> tuple[dict[str, dict[str, Metric]], dict[str, Any]]:
    """Average over items, and over cells and subjects as every metric; regions that all subjects have.

    Args:
        groups: One list a subject, of its cells.
        subjects: Their names.
        alike: Which items are.
        context: Protocol, split and seeds of the metrics.

    Returns:
        Metrics by scope (`regions · V1`) and head, and notes: voxels by subject and region.
    """
    first = groups[0][0]
    everywhere = [name for name in first.voxels if all(name in group[0].voxels for group in groups)]
    named = {**context, "items": alike.items([group[0].image_ids for group in groups]), "limits": (0.0, None)}
    scopes = {
        scope(REGIONS, name): by_name(
            [
                measure(
                    head,
                    [np.array([each.shares[head][name] for each in group]) for group in groups],
                    **named,
                )
                for head in first.shares
            ]
        )
        for name in everywhere
    }
    return scopes, {subject: dict(group[0].voxels) for subject, group in zip(subjects, groups, strict=True)}
