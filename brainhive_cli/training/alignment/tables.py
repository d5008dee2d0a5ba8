"""What an align run prints: its cells, the variants of a sweep, and what was published."""

import statistics
from collections.abc import Sequence
from typing import Any

from brainhive_cli.core.caveats import extend_tables
from brainhive_cli.core.console import Table
from brainhive_cli.core.measurements import Measurements, Metric
from brainhive_cli.reports.published_table import published_table
from brainhive_cli.training.alignment.cells import Cell

PROTOCOLS = {"test": "epochs selected on test", "last epoch": "last epoch kept"}
"""How epochs were selected, in a table's title; nothing where it was by validation."""


def tables(found: Measurements, cells: Sequence[Cell]) -> tuple[Table, ...]:
    """Lay out the metrics of a finished run, cell by cell in the order of the recipe."""
    notes, selected_on = found.notes, {each["selected_on"] for each in found.notes["cells"].values()}
    how = "".join(f", {PROTOCOLS[each]}" for each in sorted(selected_on & PROTOCOLS.keys()))
    title = f"{notes['dataset']} {notes['mode']}{how}"
    top1 = {cell.name: found.scopes.get(cell.name, {}).get("top1") for cell in cells}
    if not any(top1.values()):
        epochs = tuple((name, notes["cells"][name]["epoch"]) for name in top1)
        title += "; no validation: no training concept is held out (train.validation)"
        return _with_published([Table(title, ("cell", "epoch"), epochs)], found)
    title += ": validation on held-out training concepts"
    columns = ("cell", "epoch", "val top-1", "95 % CI", "n", "chance")
    rows = [(name, notes["cells"][name]["epoch"], *_row(metric)) for name, metric in top1.items()]
    by_variant: dict[str, list[Metric | None]] = {}
    for cell in cells:
        by_variant.setdefault(cell.variant, []).append(top1[cell.name])
    if "" in by_variant and len(cells) > 1:
        rows.append((f"mean ± sd of {len(cells)}", "", _spread(by_variant[""]), "", "", ""))
    laid_out = [Table(title, columns, tuple(rows))]
    if "" not in by_variant:
        headings = ("variant", "val top-1, mean ± sd", "cells", "chance")
        means = ((label, _spread(some), len(some), _row(some[0])[-1]) for label, some in by_variant.items())
        laid_out.insert(0, Table(title, headings, tuple(means)))
    return _with_published(laid_out, found)


def _with_published(laid_out: Sequence[Table], found: Measurements) -> tuple[Table, ...]:
    """Add what was published, which a sweep has by variant, and the caveats."""
    if published := found.notes.get("published"):
        by_variant = {"": published} if "source" in published else published
        laid_out = [*laid_out, published_table(by_variant)]
    return extend_tables(laid_out, found.caveats)


def _row(top1: Metric | None) -> tuple[Any, ...]:
    return ("–", "–", "–", "–") if top1 is None else (top1.value, top1.interval_text(), top1.n, top1.chance)


def _spread(cells: Sequence[Metric | None]) -> str:
    """Mean and standard deviation of validation top-1 over cells."""
    values = [top1.value for top1 in cells if top1 is not None]
    if not values:
        return "–"
    sd = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{sd}"
