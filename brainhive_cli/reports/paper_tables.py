"""Tables for papers, as Markdown or LaTeX, and the tidy table of all metrics for
pandas, as CSV.
"""

from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

from brainhive_cli.core.facts import ExplanationFacts
from brainhive_cli.core.measurements import (
    AGREEMENT,
    AGREES,
    ALL,
    caveats_of,
    merge_caveats,
    name_rows,
    scope,
    with_arrow,
)
from brainhive_cli.core.tables import Table, TableCell, write_csv
from brainhive_cli.reports.runs_shown import (
    RunGroup,
    ShownRun,
    bold_note,
    choose_best_run,
    name_subject_and_seed,
)
from brainhive_cli.reports.tables import (
    SIGNIFICANCE_LEGEND,
    BestLabels,
    adjustment_text,
    is_redundant,
    mark_of,
    render,
    templates,
)

Spread = tuple[float, float | None]
"""A mean, and its standard deviation where it is of several subjects."""


def paper_table(group: RunGroup) -> Table:
    """Make the table of runs, a row per run; of a single run, a row per subject and
    their mean.

    Cells are mean ± sd, of which the best is in bold; the title is the caption.
    """
    # the metrics of every run: the pooled ones, else those of its variants and cells
    runs = group.runs
    names: list[str] = []
    for run in runs:
        parts = [*run.variants.values(), *(cell.metrics for cell in run.cells)]
        names += run.metrics or [name for metrics in parts for name in metrics]
    names = [
        name
        for name in dict.fromkeys(names)
        if not is_redundant(name, [run.metrics for run in runs])
    ]

    # a row per run; of a single run a row per variant, or per subject with their mean
    rows = {run.label: _average(run, names) for run in runs}
    if len(runs) == 1:
        part_rows: dict[str, dict[str, Spread]] = {}
        for name in names:
            for part, values in runs[0].values_by_row(name).items():
                sd = stdev(values) if len(values) > 1 else None
                part_rows.setdefault(part, {})[name] = (mean(values), sd)
        if runs[0].is_swept:
            rows = part_rows
        elif len(part_rows) > 1:
            rows = {**part_rows, "mean": rows[runs[0].label]}

    # bold only where several runs are compared
    best = choose_best_run(
        group, {run.label: run.metrics for run in (runs if len(runs) > 1 else ())}
    )

    # the cells, with the marks of differences and the best in bold
    marks = {(pair.second, pair.metric): mark_of(pair) for pair in group.compared}
    row_names = name_rows({run.label: run.metrics.values() for run in runs})
    table_rows = []
    for label, row in rows.items():
        cells: list[Any] = [row_names.get(label, label)]
        for name in names:
            cell = TableCell("–")
            if name in row:
                value, sd = row[name]
                text = f"{value:.3f}" + ("" if sd is None else f" ± {sd:.3f}")
                is_best = label in best.by_metric.get(name, ())
                mark = marks.get((label, name), "")
                cell = TableCell(text, is_best=is_best, mark=mark)
            cells.append(cell)
        table_rows.append(cells)

    # published agreement of the metrics, below the runs
    if not AGREEMENT.keys().isdisjoint(names):
        agreement = [AGREEMENT.get(name) for name in names]
        table_rows.append([AGREES, *agreement])
    return Table(_write_caption(group, best), ["", *map(with_arrow, names)], table_rows)


def _average(run: ShownRun, names: Sequence[str]) -> dict[str, Spread]:
    """Take the run's own values, or means of its parts, with the spread over subjects,
    else over seeds.
    """
    # values over subjects, whose spread goes before that over seeds
    row = {}
    for name in names:
        values = [mean(part) for part in run.values_by_row(name).values()]
        spread = stdev(values) if len(values) > 1 else None
        # the pooled value of the run, else the mean of its parts
        if metric := run.metrics.get(name):
            row[name] = (metric.value, metric.seed_sd if spread is None else spread)
        elif values:
            row[name] = (mean(values), spread)
    return row


def _write_caption(group: RunGroup, best: BestLabels) -> str:
    """Write the caption: what was measured, what ±, bold and signs mean, and the
    caveats.
    """
    # facts that all runs share are said once, in the template
    runs = group.runs
    caveats = [caveats_of(run.metrics.values()) for run in runs]
    return render(
        "caption.txt",
        runs=runs,
        compared=group.compared,
        bold=bold_note(best, "runs", group),
        meaning=SIGNIFICANCE_LEGEND,
        adjustment=adjustment_text(group.compared) if group.compared else "",
        caveats=merge_caveats(*(run.measured.caveats for run in runs), *caveats),
    )


def write_table(table: Table, suffix: str) -> str:
    """Write a table as Markdown (`md`), or as LaTeX (`tex`) for the package
    booktabs.
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
"""Columns of the CSV file; in the row of a difference `scope` names the other run,
`protocol` the test, `p` is adjusted, and `notes` say over which tests, and limit these.
"""


def metric_rows(run: ShownRun) -> list[dict[str, Any]]:
    """List every metric of a run with its context."""
    about_run = {"run": run.label, "command": run.command}
    rows = []
    for row in run.measured.rows():
        # the cell that the scope is of, or is a further measurement of, as `sub-01 ·
        # backward`
        source = {}
        for name, about in run.measured.facts.cells.items():
            if row["scope"] == name or row["scope"].startswith(f"{name} · "):
                subject, seed = name_subject_and_seed(
                    about, run.measured.scopes[row["scope"]]
                )
                source = {"subject": subject, "seed": seed}
                break
        # a pooled row of one training has its seed
        if not source.get("seed") and len(row["seeds"]) == 1:
            source["seed"] = row["seeds"][0]
        rows.append(row | about_run | source | {"caveats": ", ".join(row["caveats"])})
    return rows


def summary_scopes(run: ShownRun) -> list[str]:
    """Name the scopes of everything together: of all cells, each source or variant;
    else every scope.

    Positions of an explanation are too many to be shown, and none of them stands for
    all.
    """
    # pooled scopes, without cells that have the same beginning
    facts = run.measured.facts
    scopes = run.measured.scopes
    begins = {*facts.sources} or {ALL}
    cells = facts.cells
    pooled = [
        name
        for name in scopes
        if name.partition(" · ")[0] in begins and name not in cells
    ]
    variants = [
        name for label in facts.variants if (name := scope(label, ALL)) in scopes
    ]
    return (
        pooled
        or variants
        or ([] if isinstance(facts, ExplanationFacts) else list(scopes))
    )


def comma_separated(groups: Sequence[RunGroup]) -> str:
    """Write all metrics of groups of runs, and the differences between compared runs,
    as CSV.
    """
    # rows of runs and of their differences
    rows = list[dict[str, Any]]()
    for group in groups:
        for run in group.runs:
            # one row per metric and scope
            rows += metric_rows(run)

        # one row per difference, with the caveats of the two runs
        caveats = {run.label: run.measured.caveats for run in group.runs}
        for pair in group.compared:
            pair_caveats = merge_caveats(
                *(caveats.get(label, ()) for label in (pair.first, pair.second))
            )
            row = {name: getattr(pair, name) for name in ("metric", "low", "high", "n")}
            row |= {
                "run": pair.first,
                "command": group.runs[0].command,
                "value": pair.difference,
            }
            row["p"] = pair.p_adjusted
            row |= {"scope": f"difference from {pair.second}", "protocol": pair.test}
            notes = [adjustment_text([pair]), *pair.limits]
            row |= {"caveats": ", ".join(pair_caveats), "notes": "; ".join(notes)}
            rows.append(row)
    return write_csv(TIDY_COLUMNS, rows)
