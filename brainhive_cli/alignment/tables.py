"""What an align run prints: its cells, the variants of a sweep, and what was published."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from brainhive_cli.alignment.cells import Cell
from brainhive_cli.core.caveats import in_tables
from brainhive_cli.core.console import Table
from brainhive_cli.metrics.statistics import interval_text
from brainhive_cli.reports.published_table import published_table

PROTOCOLS = {"test": "epochs selected on test", "last epoch": "last epoch kept"}
"""What a title says of how the epochs were chosen, unless it was the validation."""


def tables(metrics: Mapping[str, Any], cells: Sequence[Cell]) -> tuple[Table, ...]:
    """Lay out the metrics of a finished run.

    Args:
        metrics: As they stand in the run folder.
        cells: In the order of the recipe.
    """
    found = metrics["cells"]
    stamps = {each.get("selected_on") for each in found.values()} & PROTOCOLS.keys()
    how = "".join(f", {PROTOCOLS[stamp]}" for stamp in sorted(stamps))
    title = f"{metrics['dataset']} {metrics['mode']}{how}: validation on held-out training concepts"
    columns = ("cell", "epoch", "val top-1", "95 % CI", "n", "chance")
    rows = [(cell.name, *_row(found[cell.name])) for cell in cells]
    by_variant: dict[str, list[Mapping[str, Any]]] = {}
    for cell in cells:
        by_variant.setdefault(cell.variant, []).append(found[cell.name])
    if "" in by_variant and len(cells) > 1:
        rows.append((f"mean ± sd of {len(cells)}", "", _spread(by_variant[""]), "", "", ""))
    shown = [Table(title, columns, tuple(rows))]
    if "" not in by_variant:
        means = [
            (variant, _spread(some), len(some), _row(some[0])[-1]) for variant, some in by_variant.items()
        ]
        shown.insert(0, Table(title, ("variant", "val top-1, mean ± sd", "cells", "chance"), tuple(means)))
    if published := metrics.get("published"):
        shown.append(published_table({"": published} if "" in by_variant else published))
    return in_tables(shown, metrics.get("caveats", []))


def _row(cell: Mapping[str, Any]) -> tuple[Any, ...]:
    top1 = cell["validation"].get("top1")
    if top1 is None:
        return (cell["epoch"], "–", "–", "–", "–")
    return (cell["epoch"], top1["value"], interval_text(top1), top1["n"], top1["chance"])


def _spread(cells: Sequence[Mapping[str, Any]]) -> str:
    """Mean and standard deviation of validation top-1 over cells."""
    values = [cell["validation"]["top1"]["value"] for cell in cells if "top1" in cell["validation"]]
    if not values:
        return "–"
    sd = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{sd}"
