"""The tidy table of runs, for pandas: a row for each metric of each scope, and for each difference."""

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

from brainhive_cli.core.measurements import ALL, scope
from brainhive_cli.reports.runs_shown import RunGroup, ShownCell, ShownRun

COLUMNS = (
    *("run", "command", "metric", "scope", "subject", "seed", "value", "low", "high", "n", "protocol"),
    *("split", "pool", "chance", "interval", "caveats", "p"),
)
"""The columns; of a difference `scope` says what it is of, `protocol` its test, and `p` is adjusted."""


def metric_rows(run: ShownRun) -> list[dict[str, Any]]:
    """List every metric of a run with its context; a value that there is none of is None."""
    of_run = {"run": run.label, "command": run.command, "caveats": ", ".join(run.found.caveats)}
    rows = []
    for row in run.found.rows():
        cell, seeds = _cell_of(run, row["scope"]), row["seeds"]
        whose: dict[str, Any] = {"subject": cell.subject, "seed": cell.seed} if cell else {}
        if not whose.get("seed") and len(seeds) == 1:
            whose["seed"] = seeds[0]
        rows.append(dict.fromkeys(COLUMNS) | row | of_run | whose)
    return [{column: row[column] for column in COLUMNS} for row in rows]


def summary_scopes(run: ShownRun) -> list[str]:
    """Name the scopes of everything together: of all cells, each source or variant; else every scope."""
    notes, cells = run.found.notes, run.found.notes.get("cells", {})
    begins = {ALL, *notes.get("sources", ())}
    pooled = [name for name in run.found.scopes if name.partition(" · ")[0] in begins and name not in cells]
    variants = [name for each in notes.get("variants", ()) if (name := scope(each, ALL)) in run.found.scopes]
    return pooled or variants or list(run.found.scopes)


def comma_separated(groups: Sequence[RunGroup]) -> str:
    """Write all metrics of some runs, and the differences between those that were compared, as CSV."""
    text = io.StringIO()
    lines = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    lines.writeheader()
    for group in groups:
        for run in group.runs:
            lines.writerows(metric_rows(run))
        lines.writerows(_differences(group))
    return text.getvalue()


def _differences(group: RunGroup) -> Iterator[dict[str, Any]]:
    for each in group.compared:
        yield {
            **{"run": each.first, "command": group.runs[0].command, "metric": each.metric},
            **{"scope": f"difference from {each.second}", "value": each.difference, "protocol": each.test},
            **{"low": each.low, "high": each.high, "n": each.n, "p": each.p},
            "caveats": "; ".join(each.notes),
        }


def _cell_of(run: ShownRun, name: str) -> ShownCell | None:
    """Find the cell that a scope is of, or is a further measurement of, as `sub-01 · backward`."""
    for cell, about in run.found.notes.get("cells", {}).items():
        if name == cell or name.startswith(f"{cell} · "):
            return ShownCell(cell, about, run.found.scopes[name])
    return None
