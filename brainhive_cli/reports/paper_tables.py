"""Tables for papers in Markdown and LaTeX, and all metrics as CSV."""

from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

from brainhive_cli.core.facts import ExplanationFacts
from brainhive_cli.core.measurements import (
    AGREEMENT,
    AGREEMENT_HEADING,
    ALL,
    list_metric_caveats,
    merge_caveats,
    name_rows,
    scope,
    with_arrow,
)
from brainhive_cli.core.tables import Table, TableCell, write_csv
from brainhive_cli.reports.runs_shown import (
    RunGroup,
    ShownRun,
    choose_best_run,
    explain_bold,
    name_subject_and_seed,
)
from brainhive_cli.reports.tables import (
    ABSENT,
    SIGNIFICANCE_LEGEND,
    BestLabels,
    describe_adjustment,
    get_significance_sign,
    is_redundant,
    render,
    templates,
)

MeanSd = tuple[float, float | None]
"""Mean and standard deviation. The standard deviation is None for a single value."""


def paper_table(group: RunGroup) -> Table:
    """Make the table of a group of runs for a paper.

    A row is a run. A single run has a row for each subject (or variant) instead, and a
    row of their mean. Values are mean ± standard deviation, and the best is in bold.
    The title of the table is the caption.
    """
    # list the metrics of every run
    runs = group.runs
    all_names: list[str] = []
    for shown_run in runs:
        all_names += _list_metric_names(shown_run)
    run_metrics = [shown_run.metrics for shown_run in runs]
    names = [
        name for name in dict.fromkeys(all_names) if not is_redundant(name, run_metrics)
    ]

    # a single run has a row for each variant, or for each subject and for their mean
    rows = {shown_run.label: _average(shown_run, names) for shown_run in runs}
    if len(runs) == 1:
        part_rows: dict[str, dict[str, MeanSd]] = {}
        for name in names:
            for part, values in runs[0].values_by_row(name).items():
                sd = stdev(values) if len(values) > 1 else None
                part_rows.setdefault(part, {})[name] = (mean(values), sd)
        if runs[0].is_swept:
            rows = part_rows
        elif len(part_rows) > 1:
            rows = {**part_rows, "mean": rows[runs[0].label]}

    # write the cells, with the best run in bold and signs of significance
    candidates = runs if len(runs) > 1 else ()
    best = choose_best_run(
        group, {shown_run.label: shown_run.metrics for shown_run in candidates}
    )
    marks = {
        (pair.second, pair.metric): get_significance_sign(pair)
        for pair in group.differences
    }
    row_names = name_rows(
        {shown_run.label: shown_run.metrics.values() for shown_run in runs}
    )
    table_rows: list[list[Any]] = []
    for label, row in rows.items():
        cells: list[Any] = [row_names.get(label, label)]
        for name in names:
            if name not in row:
                cells.append(TableCell(ABSENT))
                continue
            value, sd = row[name]
            text = f"{value:.3f}" if sd is None else f"{value:.3f} ± {sd:.3f}"
            is_best = label in best.by_metric.get(name, ())
            sign = marks.get((label, name), "")
            cells.append(TableCell(text, is_best=is_best, mark=sign))
        table_rows.append(cells)

    # the last row has the published agreement of the metrics with people
    if not AGREEMENT.keys().isdisjoint(names):
        table_rows.append([AGREEMENT_HEADING, *map(AGREEMENT.get, names)])
    columns = ["", *map(with_arrow, names)]
    return Table(_write_caption(group, best), columns, table_rows)


def _list_metric_names(shown_run: ShownRun) -> list[str]:
    """List the pooled metrics of a run, or the metrics of its variants and cells."""
    if shown_run.metrics:
        return list(shown_run.metrics)
    names: list[str] = []
    for metrics in shown_run.variants.values():
        names += metrics
    for cell in shown_run.cells:
        names += cell.metrics
    return names


def _average(shown_run: ShownRun, names: Sequence[str]) -> dict[str, MeanSd]:
    """Compute the mean and the standard deviation of each metric of a run.

    The standard deviation is over subjects, or over seeds if there is one subject.

    Args:
        shown_run: The run, with its metrics and cells.
        names: Names of the metrics. A metric that the run lacks is left out.
    """
    row = {}
    for name in names:
        values = [
            mean(row_values) for row_values in shown_run.values_by_row(name).values()
        ]
        sd = stdev(values) if len(values) > 1 else None

        # the pooled value is preferred to the mean over subjects
        metric = shown_run.metrics.get(name)
        if metric:
            row[name] = (metric.value, metric.seed_sd if sd is None else sd)
        elif values:
            row[name] = (mean(values), sd)
    return row


def _write_caption(group: RunGroup, best: BestLabels) -> str:
    """Write the caption: protocol, items, meaning of ± and signs, and caveats."""
    runs = group.runs
    run_caveats = [shown_run.measurements.caveats for shown_run in runs]
    metric_caveats = [
        list_metric_caveats(shown_run.metrics.values()) for shown_run in runs
    ]
    return render(
        "caption.txt",
        runs=runs,
        compared=group.differences,
        bold=explain_bold(best, "runs", group),
        legend=SIGNIFICANCE_LEGEND,
        adjustment=describe_adjustment(group.differences) if group.differences else "",
        caveats=merge_caveats(*run_caveats, *metric_caveats),
    )


def write_table(table: Table, suffix: str) -> str:
    """Write a table as text.

    Args:
        table: The table.
        suffix: Format: `md` for Markdown, or `tex` for LaTeX with the package booktabs.
    """
    return str(templates().get_template(f"table.{suffix}").render(table=table)) + "\n"


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
"""Columns of the CSV file. In the row of a difference, `scope` names the other run,
`protocol` is the test, and `p` is adjusted. `notes` name the family of tests over which
p is adjusted, and the limits of the test.
"""


def list_metric_rows(shown_run: ShownRun) -> list[dict[str, Any]]:
    """List every metric of a run with its context, as rows of a CSV file."""
    rows = []
    for row in shown_run.measurements.rows():
        # name the subject and the seed of the cell that the scope belongs to; a scope
        # such as `sub-01 · backward` belongs to the cell `sub-01`
        subject = seed = None
        for name, cell_facts in shown_run.measurements.facts.cells.items():
            if row["scope"] == name or row["scope"].startswith(f"{name} · "):
                metrics = shown_run.measurements.scopes[row["scope"]]
                subject, seed = name_subject_and_seed(cell_facts, metrics)
                break

        # a pooled row of a single training has its seed
        if not seed and len(row["seeds"]) == 1:
            seed = row["seeds"][0]
        row |= {"run": shown_run.label, "command": shown_run.command}
        if subject is not None:
            row["subject"] = subject
        if seed is not None:
            row["seed"] = seed
        row["caveats"] = ", ".join(row["caveats"])
        rows.append(row)
    return rows


def list_summary_scopes(shown_run: ShownRun) -> list[str]:
    """List the scopes that summarise a run.

    These are the pooled scopes (of all cells or of each source of pictures), else the
    pooled scope of each variant, else every scope. An explanation has one scope per
    position, none of which stands for all. It has no summary.
    """
    facts = shown_run.measurements.facts
    scopes = shown_run.measurements.scopes
    beginnings = set(facts.sources) or {ALL}
    pooled_scopes = [
        name
        for name in scopes
        if name.partition(" · ")[0] in beginnings and name not in facts.cells
    ]
    if pooled_scopes:
        return pooled_scopes
    variant_scopes = [scope(label, ALL) for label in facts.variants]
    variant_scopes = [name for name in variant_scopes if name in scopes]
    if variant_scopes:
        return variant_scopes
    return [] if isinstance(facts, ExplanationFacts) else list(scopes)


def write_metrics_csv(groups: Sequence[RunGroup]) -> str:
    """Write all metrics of some runs, and the differences between them, as CSV.

    Args:
        groups: The runs. Differences are those of a group.
    """
    rows = list[dict[str, Any]]()
    for group in groups:
        for shown_run in group.runs:
            rows += list_metric_rows(shown_run)

        # a row for each difference, with the caveats of both runs
        caveats = {
            shown_run.label: shown_run.measurements.caveats for shown_run in group.runs
        }
        for pair in group.differences:
            pair_caveats = merge_caveats(
                caveats.get(pair.first, ()), caveats.get(pair.second, ())
            )
            notes = [describe_adjustment([pair]), *pair.limits]
            rows.append(
                {
                    "run": pair.first,
                    "command": group.runs[0].command,
                    "metric": pair.metric,
                    "scope": f"difference from {pair.second}",
                    "value": pair.difference,
                    "low": pair.low,
                    "high": pair.high,
                    "n": pair.n,
                    "protocol": pair.test,
                    "caveats": ", ".join(pair_caveats),
                    "p": pair.p_adjusted,
                    "notes": "; ".join(notes),
                }
            )
    return write_csv(TIDY_COLUMNS, rows)
