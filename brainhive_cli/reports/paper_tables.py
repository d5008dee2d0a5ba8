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
    is_redundant,
    render,
    templates,
)

MeanSd = tuple[float, float | None]
"""Mean, and standard deviation or None for a single value."""


def paper_table(group: RunGroup) -> Table:
    """Make the table of a group of runs for a paper.

    A row is a run, or for a single run a subject (or variant). Values are mean ±
    standard deviation. The title of the table is the caption.
    """
    runs = group.runs
    run_metrics = group.metrics
    all_names: list[str] = []
    for shown_run in runs:
        all_names += _list_metric_names(shown_run)
    names = [
        name
        for name in dict.fromkeys(all_names)
        if not is_redundant(name, run_metrics.values())
    ]

    rows = {}
    metric_lists = {}
    for shown_run in runs:
        rows[shown_run.label] = _average_run(shown_run, names)
        metric_lists[shown_run.label] = shown_run.metrics.values()
    row_names = name_rows(metric_lists)

    # rows of a single run: its variants, or its subjects and their mean
    if len(runs) == 1:
        part_rows: dict[str, dict[str, MeanSd]] = {}
        for name in names:
            for row_name, values in runs[0].values_by_row(name).items():
                part_rows.setdefault(row_name, {})[name] = _average(values)
        if runs[0].is_swept:
            rows = part_rows
        elif len(part_rows) > 1:
            rows = part_rows | {"mean": rows[runs[0].label]}

    best = choose_best_run(group, run_metrics if len(runs) > 1 else {})
    signs = group.signs
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
            sign = signs.get((label, name), "")
            cells.append(TableCell(text, is_best=is_best, mark=sign))
        table_rows.append(cells)

    # published agreement of the metrics with people
    if not AGREEMENT.keys().isdisjoint(names):
        cells = [AGREEMENT_HEADING]
        cells += map(AGREEMENT.get, names)
        table_rows.append(cells)
    columns = [""]
    columns += map(with_arrow, names)
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


def _average_run(shown_run: ShownRun, names: Sequence[str]) -> dict[str, MeanSd]:
    """Compute the value and the standard deviation of each metric for a paper table.

    The value is pooled, or else the mean over subjects (or variants or cells). The
    standard deviation is over these, or else over seeds, or None. Absent metrics
    are left out.
    """
    row = {}
    for name in names:
        value: float | None = None
        sd = None
        subject_values = list(map(mean, shown_run.values_by_row(name).values()))
        if subject_values:
            value, sd = _average(subject_values)

        metric = shown_run.metrics.get(name)
        if metric:
            value = metric.value
            sd = metric.seed_sd if sd is None else sd
        if value is not None:
            row[name] = (value, sd)
    return row


def _average(values: Sequence[float]) -> MeanSd:
    """Compute the mean and the standard deviation of values."""
    return mean(values), stdev(values) if len(values) > 1 else None


def _write_caption(group: RunGroup, best: BestLabels) -> str:
    """Write the caption of a paper table, which explains its values and signs."""
    caveats: list[str] = []
    for shown_run in group.runs:
        caveats += shown_run.measurements.caveats
        caveats += list_metric_caveats(shown_run.metrics.values())
    return render(
        "caption.txt",
        runs=group.runs,
        compared=group.differences,
        bold=explain_bold(best, "runs", group),
        legend=SIGNIFICANCE_LEGEND,
        adjustment=describe_adjustment(group.differences) if group.differences else "",
        caveats=merge_caveats(caveats),
    )


def write_table(table: Table, suffix: str) -> str:
    """Write a table as text.

    Args:
        table: The table.
        suffix: "md" for Markdown, or "tex" for LaTeX with the package booktabs.
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
`protocol` is the test, and `p` is adjusted for the tests in `notes`.
"""


def list_metric_rows(shown_run: ShownRun) -> list[dict[str, Any]]:
    """List the metrics of a run as rows of a CSV file.

    Returns:
        A row for each metric: values by the name of the column, such as `subject`,
        `value` and `chance`. Unknown subjects and seeds are left out.
    """
    rows = []
    for row in shown_run.measurements.rows():
        # the scope (group of metrics) `sub-01 · backward` is of the cell `sub-01`
        subject = seed = None
        for name, cell_facts in shown_run.measurements.facts.cells.items():
            if row["scope"] == name or row["scope"].startswith(f"{name} · "):
                metrics = shown_run.measurements.scopes[row["scope"]]
                subject, seed = name_subject_and_seed(cell_facts, metrics)
                break

        # pooled metrics of trainings with a single seed have this seed
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
    """List the scopes (named groups of metrics) that summarise a run.

    The first choice that exists is returned:

    - scopes that pool all models, or all models for each source of pictures
    - the pooled scope of each variant
    - all scopes, or none for an explanation, whose scopes are positions
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
    variant_scopes = []
    for label in facts.variants:
        if scope(label, ALL) in scopes:
            variant_scopes.append(scope(label, ALL))
    if variant_scopes:
        return variant_scopes
    return [] if isinstance(facts, ExplanationFacts) else list(scopes)


def write_metrics_csv(groups: Sequence[RunGroup]) -> str:
    """Write all metrics of some runs, and the differences between the runs, as CSV.

    Args:
        groups: The runs, with their differences.

    Returns:
        Text of the CSV file, with the columns `TIDY_COLUMNS`.
    """
    rows = list[dict[str, Any]]()
    for group in groups:
        caveats = {}
        for shown_run in group.runs:
            rows += list_metric_rows(shown_run)
            caveats[shown_run.label] = shown_run.measurements.caveats

        for pair in group.differences:
            pair_caveats = merge_caveats(
                caveats.get(pair.first, ()), caveats.get(pair.second, ())
            )
            notes = [describe_adjustment([pair])] + pair.limits
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
