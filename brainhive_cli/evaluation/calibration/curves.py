"""Curves of calibration over people and draws: metrics of all arms, gains, and shares of everything."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from brainhive_cli.core.arrays import Float64, Int64
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.measurements import (
    TRIALS_TOGETHER,
    Metric,
    by_name,
    extend_protocol,
)
from brainhive_cli.evaluation.calibration import amounts as of_amounts
from brainhive_cli.evaluation.calibration.job import FIRST_DAY, LAST_DAY, TEST, Job
from brainhive_cli.evaluation.calibration.measure import ABSENT, Part, list_arms
from brainhive_cli.measurement.comparison import crossed_t
from brainhive_cli.measurement.ranks import summarise
from brainhive_cli.measurement.statistics import measure, ratio_of_means
from brainhive_cli.training.alignment.few_shot import (
    PERMUTED_SCRATCH,
    PERMUTED_TRANSFER,
    SCRATCH,
    TRANSFER,
    ZERO_SHOT,
)
from brainhive_cli.training.alignment.recipe import Cell

EVERYTHING = "everything"
"""Name of the amount of all that a person has."""
MEASURED = ("top1", "top5", "mrr")
GAIN, SHARE = "top1_gain", "share_of_everything"
"""Metrics: top-1 less that of another arm or day; top-1 divided by that with everything."""
ENOUGH = 0.9
"""Share of the score with everything that the finding asks for."""
FEWEST_PEOPLE = 3
"""People from which the amount that reaches it has a range: two tell next to nothing of people in general."""
Ends = tuple[float | None, float | None]
CONTROLS = (PERMUTED_TRANSFER, PERMUTED_SCRATCH)
NO_SHARE = "none: fewer than three people, equal scores, or top-1 with everything is not clearly above 0"
DRIFT = "drift"
"""Scope of the last session less the first one."""


@dataclass(frozen=True)
class Results:
    """Ranks of all models, persons and draws.

    Attributes:
        job: The calibration.
        parts: By model and person, and by draw.
    """

    job: Job
    parts: Mapping[tuple[Cell, int], Part]

    @cached_property
    def missing(self) -> dict[str, str]:
        """Reasons why arms, or amounts, were not measured of everybody."""
        missing = {arm: reason for part in self.parts.values() for arm, reason in part.missing.items()}
        return missing | {
            f"{amount:g} {self.job.spec.unit}": "some person has no picture in it"
            for column, amount in enumerate(self.job.amounts)
            if column not in self.columns
        }

    @cached_property
    def arms(self) -> list[str]:
        """List the arms that were measured of everybody.

        Raises:
            BrainhiveError: if there is none.
        """
        if arms := [arm for arm in list_arms(self.job.spec) if arm not in self.missing]:
            return arms
        raise BrainhiveError(f"no arm can be measured: {next(iter(self.missing.values()))}", "other arms")

    @cached_property
    def columns(self) -> list[int]:
        """List the amounts of which every person had recordings, by index."""
        had = {subject: np.zeros(len(self.job.amounts), np.bool_) for subject in self.job.people}
        for (cell, _), part in self.parts.items():
            had[cell.tested_on[0]] |= part.sizes[:, 0] > 0
        return list(np.flatnonzero(np.all([*had.values()], 0)).tolist())

    @property
    def names(self) -> list[str]:
        """Name these amounts, as `50 pictures`."""
        unit, names = self.job.spec.unit, []
        for amount in (self.job.amounts[column] for column in self.columns):
            counted = f"{amount:g} {unit if amount != 1 else unit.removesuffix('s')}"
            names.append(EVERYTHING if amount == of_amounts.ALL else counted)
        return names

    @property
    def headline(self) -> str:
        """Name the arm of the finding: transfer, or the last one that is neither scratch nor a control."""
        wanted = [arm for arm in self.arms if arm not in (SCRATCH, *CONTROLS)] or self.arms
        return TRANSFER if TRANSFER in wanted else wanted[-1]

    @property
    def tested(self) -> str:
        """Name the test trials of the curves: those of the last session where days differ."""
        return LAST_DAY if self.job.spec.days == "next" else TEST

    def protocol_of(self, *arms: str) -> str:
        """Name the way of measuring; arms that decode test trials together are stamped."""
        is_together = any({*arms} & {*part.together} for part in self.parts.values())
        return extend_protocol(self.job.describe_protocol(), [TRIALS_TOGETHER] if is_together else [])

    def ranks(self, arm: str, column: int, tested: str = "") -> list[Int64]:
        """Give the ranks of an arm after an amount: [S, N] of S models and draws, one array a person."""
        row = list_arms(self.job.spec).index(arm)
        by_person: dict[int, list[Int64]] = {subject: [] for subject in self.job.people}
        for (cell, _), part in self.parts.items():
            ranks = part.ranks[tested or self.tested][row, column]
            if (ranks != ABSENT).all():
                by_person[cell.tested_on[0]].append(ranks)
        return [np.stack(ranks) for ranks in by_person.values()]

    def hits(self, arm: str, tested: str = "") -> list[list[Float64]]:
        """Average top-1 of an arm over models and draws: after each amount [N], one array a person."""
        ranks = (self.ranks(arm, column, tested) for column in self.columns)
        return [[(each == 1).mean(0, dtype=np.float64) for each in of_people] for of_people in ranks]

    def sizes(self, column: int) -> dict[str, float]:
        """Average pictures, trials and minutes (NaN where not known) of an amount."""
        means = np.mean([part.sizes[column] for part in self.parts.values()], 0)
        return dict(zip(of_amounts.UNITS, means.tolist(), strict=True))

    def seconds(self, arm: str) -> float:
        """Average the seconds of processor time that an arm took with everything."""
        row = list_arms(self.job.spec).index(arm)
        return float(np.mean([part.seconds[row, -1] for (_, draw), part in self.parts.items() if draw == 0]))

    @property
    def _context(self) -> dict[str, Any]:
        """Facts that all metrics have in common."""
        return {"split": "test", "seeds": self.job.seeds, "items": self.job.items}

    def _summarise(self, arm: str, columns: Sequence[int], tested: str = "") -> list[dict[str, Metric]]:
        """Summarise the ranks of an arm after each amount, by name."""
        pool = len(next(iter(self.job.people.values())).rows)
        context: Any = {**self._context, "protocol": self.protocol_of(arm), "only": MEASURED}
        ranks = (self.ranks(arm, column, tested) for column in columns)
        return [by_name(summarise(of_people, pool, **context)) for of_people in ranks]

    @cached_property
    def metrics(self) -> dict[str, list[dict[str, Metric]]]:
        """Metrics by arm and, for each amount, by name; zero-shot is the same after all of them."""
        metrics = {}
        for arm in self.arms:
            repeats = len(self.columns) if arm == ZERO_SHOT else 1
            metrics[arm] = self._summarise(arm, self.columns[::repeats]) * repeats
        return metrics

    @cached_property
    def first_day(self) -> list[dict[str, Metric]]:
        """The same of the finding's arm, tested on the first session; empty where days do not differ."""
        has_days = self.tested == LAST_DAY
        return self._summarise(self.headline, self.columns, FIRST_DAY) if has_days else []

    @cached_property
    def gains(self) -> dict[str, list[Metric]]:
        """Paired gains of transfer over another arm, and of the last session over the first, by scope."""
        headline = self.headline
        pairs = {
            f"{TRANSFER} over {other}": ((TRANSFER, self.tested), (other, self.tested))
            for other in (ZERO_SHOT, SCRATCH)
            if {TRANSFER, other} <= {*self.arms}
        }
        if self.first_day:
            pairs[DRIFT] = ((headline, LAST_DAY), (headline, FIRST_DAY))
        context: Any = {**self._context, "limits": (-1.0, 1.0), "is_share": False, "chance": 0.0}
        gains: dict[str, list[Metric]] = {label: [] for label in pairs}
        for label, ((arm, tested), (other, other_tested)) in pairs.items():
            context["protocol"] = self.protocol_of(arm, other)
            for people in zip(self.hits(arm, tested), self.hits(other, other_tested), strict=True):
                differences = [one - two for one, two in zip(*people, strict=True)]
                gains[label].append(measure(GAIN, differences, **context))
        return gains

    @cached_property
    def scores(self) -> Float64:
        """[amounts, people] top-1 of the finding's arm."""
        return np.array([[hits.mean() for hits in of_people] for of_people in self.hits(self.headline)])

    @cached_property
    def shares(self) -> list[Metric]:
        """Top-1 of the finding's arm after each amount, divided by that with everything."""
        method = f"Fieller over {len(self.job.people)} people"
        return [
            replace(
                self.metrics[self.headline][0]["top1"],
                name=SHARE,
                value=share,
                low=low,
                high=high,
                interval=method if low is not None else NO_SHARE,
                chance=None,
                these_subjects=None,
                people=None,
                seed_sd=None,
            )
            for share, low, high in (ratio_of_means(scores, self.scores[-1]) for scores in self.scores)
        ]

    @cached_property
    def surplus(self) -> list[Ends]:
        """Ends of the interval, for people in general, of top-1 less `ENOUGH` of that with everything.

        Of each amount below everything; empty for fewer than three people. These have an interval in any
        case, as shares do not.
        """
        *hits, most = self.hits(self.headline)
        if len(self.job.people) < FEWEST_PEOPLE:
            return []
        differences = (
            [few - ENOUGH * everything for few, everything in zip(of_people, most, strict=True)]
            for of_people in hits
        )
        return [crossed_t(each, self.job.items)[1:] for each in differences]


def find_range(ends: Sequence[Ends]) -> tuple[int, int]:
    """Find between which amounts a curve reaches 0, by the intervals of all amounts, ascending.

    Args:
        ends: Lower and upper end at each amount; an end that is None is unlimited.

    Returns:
        How many of the first amounts reach up to one that is surely below, and the index from which all are
        surely not below: the number of amounts where the last one is not.
    """
    below = [index for index, (_, high) in enumerate(ends) if high is not None and high < 0]
    unsure = [index for index, (low, _) in enumerate(ends) if low is None or not low >= 0]
    return max(below, default=-1) + 1, max(unsure, default=-1) + 1


def check_controls(metrics: Mapping[str, Sequence[Mapping[str, Metric]]]) -> list[str]:
    """Warn of controls with everything that are not as they must be."""
    warnings = []
    compared = PERMUTED_SCRATCH, PERMUTED_TRANSFER, ZERO_SHOT
    scratch, transfer, zero_shot = (metrics.get(arm, [{}])[-1].get("top1") for arm in compared)
    if scratch and (scratch.low or 0.0) > (scratch.chance or 0.0):
        warnings.append(
            f"{PERMUTED_SCRATCH} is above chance: its labels are wrong, so something else is read"
        )
    if transfer and zero_shot and transfer.value > zero_shot.value:
        warnings.append(f"{PERMUTED_TRANSFER} is not below {ZERO_SHOT}: labels add nothing")
    return warnings
