"""Tables for papers in Markdown and LaTeX, and all metrics as CSV."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from statistics import stdev
from typing import Any

from brainhive_cli.core.base import Table, TableCell, format_mean_sd, write_csv
from brainhive_cli.core.results import (
    AGREEMENT,
    AGREEMENT_HEADING,
    list_metric_caveats,
    merge_caveats,
    name_rows,
    with_arrow,
)
from brainhive_cli.reports.tables.runs_shown import RunGroup
from brainhive_cli.reports.tables.tables import (
    NO_BEST,
    SIGNIFICANCE_LEGEND,
    ResultRow,
    describe_adjustment,
    is_redundant,
    list_signs,
)
from brainhive_cli.reports.templates import render, templates


def paper_table(group: RunGroup) -> Table:
    """Make the table of a group of runs for a paper.

    A row is a run, or for a single run a subject. Values are mean ±
    standard deviation. The title of the table is the caption.
    """
    run_rows = group.rows
    values = chain.from_iterable(row.values for row in run_rows)
    names = [name for name in dict.fromkeys(values) if not is_redundant(name, run_rows)]

    # rows of a single run: runs that it compares, or its subjects and their mean
    rows = run_rows
    best = group.best if len(rows) > 1 else NO_BEST
    if len(rows) == 1:
        parts = [part for part in group.runs[0].list_value_rows() if part.values]
        if group.runs[0].compared:
            rows = parts
        elif len(parts) > 1:
            rows = [*parts, replace(run_rows[0], label="mean")]

    row_names = name_rows({row.label: row.metrics.values() for row in run_rows})
    signs = list_signs(group.differences)
    table_rows: list[list[Any]] = []
    for row in rows:
        cells: list[Any] = [row_names.get(row.label, row.label)]
        for name in names:
            is_best = row.label in best.by_metric.get(name, ())
            text = _write_mean(row, name)
            cells.append(
                TableCell(text, "", None, is_best, signs.get((row.label, name), ""))
            )
        table_rows.append(cells)

    # published agreement of the metrics with people
    if not AGREEMENT.keys().isdisjoint(names):
        table_rows.append([AGREEMENT_HEADING, *map(AGREEMENT.get, names)])
    columns = ["", *map(with_arrow, names)]
    return Table(_write_caption(group), columns, table_rows)


def _write_mean(row: ResultRow, name: str) -> str:
    """Write a metric of a row and its standard deviation, or a dash.

    The metric is pooled, or else a mean. The standard deviation is over the values of
    the row, or else over seeds.
    """
    values = row.values.get(name, ())
    metric = row.metrics.get(name)
    if not metric:
        return format_mean_sd(values)
    sd = stdev(values) if len(values) > 1 else metric.seed_sd
    return f"{metric.value:.3f}" if sd is None else f"{metric.value:.3f} ± {sd:.3f}"


def _write_caption(group: RunGroup) -> str:
    """Write the caption of a paper table, which explains its values and signs."""
    caveats: list[str] = []
    for shown_run in group.runs:
        caveats += shown_run.measurements.caveats
        caveats += list_metric_caveats(shown_run.metrics.values())
    return render(
        "caption.txt",
        runs=group.runs,
        compared=group.differences,
        bold=group.explain_bold(),
        legend=SIGNIFICANCE_LEGEND,
        adjustment=describe_adjustment(group.differences) if group.differences else "",
        caveats=merge_caveats(caveats),
    )


TIDY_COLUMNS = (
    "run",
    "command",
    "metric",
    "scope",
    "subject",
    "seed",
    "value",
    "low",
    "high",
    "n",
    "protocol",
    "split",
    "pool",
    "chance",
    "agreement",
    "interval",
    "caveats",
    "p",
    "notes",
)
"""Columns of the CSV file."""


def write_table(table: Table, suffix: str) -> str:
    """Write a table as text.

    Args:
        table: The table.
        suffix: "md" for Markdown, or "tex" for LaTeX with the package booktabs.
    """
    return str(templates().get_template(f"table.{suffix}").render(table=table)) + "\n"


def write_metrics_csv(groups: Sequence[RunGroup]) -> str:
    """Write all metrics of some runs, and the differences between the runs, as CSV.

    In the row of a difference, `scope` names the other run, `protocol` is the test,
    and `p` is adjusted for the tests in `notes`.
    """
    rows = list[dict[str, Any]]()
    for group in groups:
        for shown_run in group.runs:
            for row in shown_run.measurements.rows():
                row |= {"run": shown_run.label, "command": shown_run.command}
                rows.append(row | {"caveats": ", ".join(row["caveats"])})

        for pair in group.differences:
            notes = [describe_adjustment([pair])] + pair.limits
            rows.append(
                {
                    "run": pair.first,
                    "command": group.runs[0].command,
                    "scope": f"difference from {pair.second}",
                    "value": pair.difference,
                    "protocol": pair.test,
                    "caveats": ", ".join(pair.caveats),
                    "p": pair.p_adjusted,
                    "notes": "; ".join(notes),
                    **pair.model_dump(include={"metric", "low", "high", "n"}),
                }
            )
    return write_csv(TIDY_COLUMNS, rows)
