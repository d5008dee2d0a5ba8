"""Pinned results of studies: their files, their comparison and their table.

A file of `tests/pinned` lists the numbers of a study in each environment in which it
was measured. An environment is the versions of libraries, the CPU and the threads.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, TypeAdapter

from brainhive_cli.core.files import documents

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "tests/pinned"
PAGE = ROOT / "docs/releases.md"
DIGITS = 4
"""Significant digits of pinned numbers."""
TOLERANCE = 0.2
"""Largest relative change with other libraries of a number that has no interval."""
LEVEL = 0.05
"""Level of tests. With other libraries, no p-value may cross it."""


class PinnedNumber(BaseModel, frozen=True, extra="forbid"):
    """Metric with its context, as in `core.results.measurements.Metric`."""

    value: float
    low: float | None
    high: float | None
    chance: float | None
    n: int
    candidates: int | None

    def __str__(self) -> str:
        """Write the value and its interval."""
        if self.low is None:
            return f"{self.value:g}"
        return f"{self.value:g} ({self.low:g} to {self.high:g})"


class PinnedResults(BaseModel, extra="forbid"):
    """Results of a study in an environment.

    Attributes:
        release: Version of Brainhive.
        environment: Version of each library, and a description of CPU and threads.
        numbers: Metrics by name: step / scope / metric.
        p_values: P-values by name: step / question.
    """

    release: str
    environment: dict[str, str]
    numbers: dict[str, PinnedNumber]
    p_values: dict[str, float]


@dataclass(frozen=True)
class Comparison:
    """Differences between pinned and measured results.

    Attributes:
        libraries: Lines for each library and property of the machine that differs.
        changes: Lines for each number that differs and may, because libraries differ.
        failures: Lines for each number that differs and may not.
    """

    libraries: list[str] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def explain(self, study: str) -> str:
        """Say which numbers of a study changed, and which libraries may be why."""
        count = len(self.failures)
        if not self.libraries:
            if not count:
                return f"{study}: equal to {DIGITS} digits (same libraries, same CPU)"
            lines = [
                f"{study}: the code changed these numbers ({count}). Libraries and CPU "
                "are as pinned, so they are not the cause.",
                *self.failures,
                f"If this is meant: python -m tools.pin {study} --write. Say in the "
                "commit why the new numbers are right.",
            ]
            return "\n  ".join(lines)

        if count:
            lines = [
                f"{study}: other libraries do not explain these changes ({count}).",
                *self.failures,
            ]
        elif self.changes:
            lines = [f"{study}: some numbers moved within their pinned intervals."]
        else:
            lines = [f"{study}: equal to {DIGITS} digits in another environment."]
        if self.changes:
            lines.append(f"Numbers that moved ({len(self.changes)}):")
            lines += self.changes
        lines.append("Other libraries or hardware, pinned → here:")
        lines += self.libraries
        return "\n  ".join(lines)


def round_number(number: float) -> float:
    """Round to the digits of pinned numbers."""
    return float(f"{number:.{DIGITS}g}")


def read(study: str) -> list[PinnedResults]:
    """Read the pinned results of a study, the newest last, or [] without a file."""
    path = FOLDER / f"{study}.json"
    if not path.is_file():
        return []
    return documents.read(path, TypeAdapter(list[PinnedResults]))


def write(study: str, results: Sequence[PinnedResults]) -> None:
    """Write the pinned results of a study, a line for each number."""
    blocks = []
    for result in results:
        numbers = {name: row.model_dump() for name, row in result.numbers.items()}
        block = ",\n".join(
            [
                f'    "release": {json.dumps(result.release)}',
                f'    "environment": {write_lines(result.environment)}',
                f'    "numbers": {write_lines(numbers)}',
                f'    "p_values": {write_lines(result.p_values)}',
            ]
        )
        blocks.append(f"  {{\n{block}\n  }}")
    text = "[\n" + ",\n".join(blocks) + "\n]\n"
    (FOLDER / f"{study}.json").write_text(text, encoding="utf-8")


def write_lines(entries: Mapping[str, object]) -> str:
    """Write a mapping as JSON, a line for each entry."""
    lines = []
    for name, entry in entries.items():
        key = json.dumps(name, ensure_ascii=False)
        lines.append(f"      {key}: {json.dumps(entry, ensure_ascii=False)}")
    return "{\n" + ",\n".join(lines) + "\n    }"


def add(results: Sequence[PinnedResults], found: PinnedResults) -> list[PinnedResults]:
    """Add results. They replace those of the same environment."""
    others = [item for item in results if item.environment != found.environment]
    return others + [found]


def find_nearest(
    results: Sequence[PinnedResults], environment: Mapping[str, str]
) -> PinnedResults:
    """Find the results whose environment has the fewest differences.

    The newest of several is returned.
    """
    return min(
        reversed(results),
        key=lambda item: len(list_moved(item.environment, environment)),
    )


def list_moved(pinned: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """Describe each entry of an environment that differs."""
    lines = []
    for name in {**pinned, **found}:
        old = pinned.get(name, "absent")
        new = found.get(name, "absent")
        if old != new:
            lines.append(f"{name} {old} → {new}")
    return lines


def compare(pinned: PinnedResults, found: PinnedResults) -> Comparison:
    """Compare results with pinned results.

    With the same libraries and CPU, each number must be equal. Otherwise it may move
    within its pinned interval, and without an interval by `TOLERANCE`.
    """
    comparison = Comparison(list_moved(pinned.environment, found.environment))
    has_same_libraries = not comparison.libraries

    for name in {**pinned.numbers, **found.numbers}:
        old = pinned.numbers.get(name)
        new = found.numbers.get(name)
        if old == new:
            continue
        if new is None:
            comparison.failures.append(f"{name}: {old} is pinned, but missing here")
            continue
        if old is None:
            line = f"{name}: {new} is not pinned"
            may_move = True
        else:
            problem = find_problem(old, new)
            line = f"{name}: {old} → {new}"
            may_move = not problem
            if problem and not has_same_libraries:
                line += f", {problem}"
        is_change = may_move and not has_same_libraries
        (comparison.changes if is_change else comparison.failures).append(line)

    for name in {**pinned.p_values, **found.p_values}:
        old_p = pinned.p_values.get(name)
        new_p = found.p_values.get(name)
        if old_p == new_p:
            continue
        line = f"{name}: p {old_p} → {new_p}"
        has_both = old_p is not None and new_p is not None
        may_move = has_both and (old_p <= LEVEL) == (new_p <= LEVEL)
        is_change = may_move and not has_same_libraries
        (comparison.changes if is_change else comparison.failures).append(line)
    return comparison


def find_problem(old: PinnedNumber, new: PinnedNumber) -> str:
    """Say why other libraries cannot explain a change, or "" if they can."""
    if (old.n, old.candidates, old.chance) != (new.n, new.candidates, new.chance):
        before = f"n {old.n}, candidates {old.candidates}, chance {old.chance}"
        after = f"n {new.n}, candidates {new.candidates}, chance {new.chance}"
        return f"{before} → {after}"
    if (old.low is None) != (new.low is None):
        return "only one of them has an interval"
    if old.low is None or old.high is None or new.low is None or new.high is None:
        is_near = math.isclose(old.value, new.value, rel_tol=TOLERANCE)
        return "" if is_near else f"a change of more than {TOLERANCE:.0%}"
    if not old.low <= new.value <= old.high:
        return "outside the pinned interval"
    if not new.low <= old.value <= new.high:
        return "whose interval excludes the pinned number"
    return ""
