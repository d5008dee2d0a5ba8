"""The tables of a report: metrics with intervals, by subject and seed, run by run, and
their differences.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from brainhive_cli.core.facts import LEVEL, Difference, Facts
from brainhive_cli.core.measurements import (
    ALL,
    FOOTNOTE,
    Metric,
    add_footnotes,
    beside_heading,
    interval_text,
)
from brainhive_cli.core.set_up import differences
from brainhive_cli.core.tables import (
    Cell,
    Table,
    brief,
    by_subject_and_seed,
    mean_sd,
    number,
    p_text,
)
from brainhive_cli.measurement.metric_names import (
    is_share,
    lower_is_better,
    shown,
    with_arrow,
)
from brainhive_cli.reports.runs_shown import RunGroup, ShownRun
from brainhive_cli.reports.templates import render

MARKS = ((0.001, "***"), (0.01, "**"), (LEVEL, "*"))
"""Signs of p values below each level."""
MAX_COLUMNS = 8
"""Metrics that fit side by side on a page of usual width."""
MEANING = "* p ≤ .05, ** p ≤ .01, *** p ≤ .001"
"""Legend of `MARKS`."""
PUBLISHED = "Published, of test stimuli; its set-up was not checked by Brainhive"
"""Before the source of published values: whether they are comparable is for the reader
to judge.
"""
ABSENT = "–"
"""Text of a cell for which there is no value."""
NAME_LETTERS = 40
"""Letters of the name of a run in a table; of a longer one its end is shown."""
CONTEXT = ("n", "pool")
"""What a metric was measured on: a column where rows differ in it, else a part of the
note.
"""
Metrics = Mapping[str, Metric]
Best = tuple[Mapping[str, Sequence[str]], str]
"""Labels of the best by metric, several if they are equal, and the way of choosing: on
validation, or on test among a number of candidates. A metric without a best has no
entry.
"""


def tables_of(group: RunGroup) -> list[Table]:
    """Lay out all tables of a group of runs."""
    # kinds of tables for which the runs have no values are empty
    tables = (
        _lay_out_runs(group) if len(group.runs) > 1 else _lay_out_run(group.runs[0])
    )
    return [table for table in tables if table.rows]


def metric_table(
    title: str,
    rows: Mapping[str, Metrics],
    heading: str = "",
    names: Sequence[str] = (),
    best: Mapping[str, Sequence[str]] | None = None,
    marks: Mapping[tuple[str, str], str] | None = None,
    note: str = "",
    section: str = "",
) -> Table:
    """Lay out metrics with their intervals: a row a label and a column a metric, or the
    other way around.

    Metrics are rows where there is one label, or more metrics than fit side by side.
    What all metrics share stands in the note: items, candidates, protocol, the kind of
    interval.

    Args:
        title: What is shown.
        rows: Metrics by label.
        heading: What labels are.
        names: Metrics that are shown; default: all.
        best: Labels of the best by metric, which are bold.
        marks: Sign of significance by label and metric.
        note: What a reader must know besides.
        section: The heading under which a page shows it.
    """
    # metrics that any label has
    rows = {label: metrics for label, metrics in rows.items() if metrics}
    metrics_of_name: dict[str, list[Metric]] = {}
    for metrics in rows.values():
        for name, metric in metrics.items():
            metrics_of_name.setdefault(name, []).append(metric)
    names = [
        name
        for name in names or metrics_of_name
        if name in metrics_of_name and not says_nothing(name, rows.values())
    ]
    listed = [metric for name in names for metric in metrics_of_name[name]]
    if not listed:
        return Table(title, (), ())

    # items and candidates: the same of all, or by label, or by metric
    shared = {key: share(listed, key) for key in CONTEXT}
    label_values = {
        key: [share(metrics.values(), key) for metrics in rows.values()]
        for key in CONTEXT
    }
    columns = [
        key
        for key in CONTEXT
        if shared[key] == ABSENT and ABSENT not in label_values[key]
    ]
    metric_values = {
        key: [share(metrics_of_name[name], key) for name in names]
        for key in CONTEXT
        if shared[key] == ABSENT and key not in columns
    }

    # a row for each label, then what is said of each metric
    grid: list[list[Any]] = [[heading, *map(with_arrow, names), *columns]]
    for row, (label, metrics) in enumerate(rows.items()):
        signs = [
            (
                name,
                label in (best or {}).get(name, ()),
                (marks or {}).get((label, name), ""),
            )
            for name in names
        ]
        cells = [
            with_interval(metrics.get(name), is_best, mark)
            for name, is_best, mark in signs
        ]
        grid.append([label, *cells, *(label_values[key][row] for key in columns)])
    chances = [share(metrics_of_name[name], "chance") for name in names]
    metric_values["chance"] = [
        c if c == ABSENT else Cell(brief(c), value=c) for c in chances
    ]
    if len(rows) == 1:
        metric_values[beside_heading(listed)] = [
            metric.beside_text() for metric in listed
        ]
    grid += [
        [key, *cells, *("" for _ in columns)]
        for key, cells in metric_values.items()
        if {*cells} != {ABSENT}
    ]

    # metrics are rows where there is one label, or where they are too many
    if len(rows) == 1 or len(names) > MAX_COLUMNS:
        grid = [list(column) for column in zip(*grid, strict=True)]
        grid[0][:2] = ["metric", "value, 95 % CI" if len(rows) == 1 else grid[0][1]]

    # what all of them share
    whose = "" if share(listed, "protocol") != ABSENT else next(iter(rows))
    note = render(
        "table_note.txt", note=note, shared=shared, metric=listed[0], whose=whose
    )
    return Table(title, grid[0], grid[1:], section=section, note=note)


def says_nothing(name: str, rows: Iterable[Metrics]) -> bool:
    """Whether a metric repeats another, or cannot miss.

    mAP is MRR by definition where one picture is relevant; top-5 of five candidates is
    always 1.
    """
    listed = [metrics for metrics in rows if name in metrics]
    # equal values mean one relevant picture for each signal
    if name == "map":
        return all(
            "mrr" in metrics and metrics["map"].value == metrics["mrr"].value
            for metrics in listed
        )
    return is_share(name) and {metrics[name].chance for metrics in listed} == {1}


def share(metrics: Iterable[Metric], key: str) -> Any:
    """Give the value of a field that metrics have in common; a dash where they differ
    or have none.
    """
    # values that differ leave more than one in the set
    first, *rest = {getattr(metric, key) for metric in metrics}
    return ABSENT if rest or first is None else first


def with_interval(metric: Metric | None, is_best: bool = False, mark: str = "") -> Cell:
    """Make a cell of a value, with its interval."""
    if metric is None:
        return Cell("–")
    # value, interval and footnote sign, which each format writes in its own way
    low_high = "" if metric.low is None else metric.interval_text()
    footnote = FOOTNOTE if metric.caveats else ""
    return Cell(number(metric.value), low_high, metric.value, is_best, mark + footnote)


def difference_table(
    compared: Sequence[Difference],
    titles: Mapping[str, str] | None = None,
    section: str = "",
) -> Table:
    """Lay out one row per difference, with its interval, its p, and the better one
    where there is one.
    """

    # names of the two, and the sign of significance
    def name(label: str) -> str:
        short = label if len(label) <= NAME_LETTERS else f"…{label[-9:]}"
        return (titles or {}).get(label, short)

    is_of_one, rows = len({row.first for row in compared}) < 2, []
    for row in compared:
        ends = "" if row.low is None else interval_text(row.low, row.high)
        value = Cell(f"{row.difference:+.3f}", ends, row.difference, mark=mark_of(row))
        better = (
            name(row.first if row.is_better else row.second)
            if row.is_significant
            else "–"
        )
        p = Cell(p_text(row.p), value=row.p)
        pair = [name(row.second)] if is_of_one else [name(row.first), name(row.second)]
        rows.append([with_arrow(row.metric), *pair, value, row.n, p, better])

    # how it was tested, and what limits the tests
    columns = ["metric", *(["against"] if is_of_one else ["first", "second"])]
    columns += ["difference, 95 % CI", "n", "p", "better"]
    tests = dict.fromkeys(row.test for row in compared)
    limits = dict.fromkeys(limit for row in compared for limit in row.limits)
    note = (
        "; ".join([MEANING, *tests, *map(adjustment_text, compared[:1]), *limits]) + "."
    )
    note = add_footnotes(note, [caveat for row in compared for caveat in row.caveats])
    whom = f" of {name(compared[0].first)}" if compared and is_of_one else ""
    return Table(
        f"Differences{whom}, paired by item and subject",
        columns,
        rows,
        section=section,
        note=note,
    )


def adjustment_text(row: Difference) -> str:
    """Say over how many tests p values are adjusted, and of what these are."""
    # one test needs no adjustment
    if row.tests < 2:
        return "p not adjusted"
    return f"p adjusted by Benjamini–Hochberg over {row.tests} tests: {row.tests_of}"


def mark_of(compared: Difference) -> str:
    """Return the sign of a difference; empty if no difference may be claimed."""
    # an untested difference has no sign
    p = 1.0 if compared.p is None else compared.p
    return next((sign for level, sign in MARKS if p <= level), "")


def _lay_out_runs(group: RunGroup) -> list[Table]:
    """Lay out several runs: side by side, by subject, their differences, and those of
    their set-ups.
    """
    # one row per run, the best in bold, with signs of significance
    run_metrics = {run.label: run.metrics for run in group.runs}
    best = best_of_runs(
        group, {label: metrics for label, metrics in run_metrics.items() if metrics}
    )
    note = bold_note(best, "runs", group)
    if group.compared:
        note += f" {MEANING}: differs from {group.runs[0].label}, paired by item"
        note += f"; {adjustment_text(group.compared[0])}"
    marks = {(pair.second, pair.metric): mark_of(pair) for pair in group.compared}
    runs = metric_table(
        "Run by run", run_metrics, "run", best=best[0], marks=marks, note=note
    )

    # the first headline metric, one row per subject and one column per run
    name = next(iter(group.runs[0].headlines), "")
    run_values = {run.label: run.by_subject(name) for run in group.runs}
    subjects = list(
        dict.fromkeys(subject for values in run_values.values() for subject in values)
    )
    rows = [
        [subject, *(values.get(subject) for values in run_values.values())]
        for subject in subjects
    ]
    if len(rows) > 1:
        rows.append(
            ["mean ± sd", *(mean_sd(values.values()) for values in run_values.values())]
        )
    subject_table = Table(
        f"{shown(name)} by subject; seeds averaged", ["subject", *run_values], rows
    )

    # the protocol of each run, where they differ, and what set-ups differ in
    first, *rest = group.runs
    protocols = {
        run.label: next(iter(run.metrics.values())).protocol
        for run in group.runs
        if run.metrics
    }
    protocol_rows = list(protocols.items()) if len({*protocols.values()}) > 1 else []
    lines = [
        [run.label, line]
        for run in rest
        for line in differences(run.measured.facts.set_up, first.measured.facts.set_up)
    ]
    return [
        runs,
        Table("Protocol of each run", ["run", "protocol"], protocol_rows),
        subject_table,
        difference_table(group.compared),
        Table(f"Set-ups: what differs from {first.label}", ["run", "in"], lines),
    ]


def _lay_out_run(run: ShownRun) -> list[Table]:
    """Lay out a single run: everything together, variants, cells, and published
    values.
    """
    # everything together: all metrics, or the sources of pictures side by side with
    # ceiling and baselines
    facts, scopes = run.measured.facts, run.measured.scopes
    title = (
        "Measured, with ceiling, floor and baselines"
        if run.source
        else "All cells together"
    )
    columns = {
        facts.titles.get(source, source): scopes[source] for source in facts.sources
    }
    names = list(run.metrics)
    overall = metric_table(
        title, columns if run.source else {"all": run.metrics}, "from", names
    )

    # everything together, measured in further ways (`all · backward`)
    begin = f"{ALL} · "
    further = [
        metric_table(f"All cells together: {name.removeprefix(begin)}", {name: metrics})
        for name, metrics in scopes.items()
        if name.startswith(begin)
    ]

    # the variants of a sweep by metrics, the best in bold
    best = best_of_parts(facts, run.variants)
    note = bold_note(best, "variants")
    variants = metric_table(
        "By variant", run.variants, "variant", best=best[0], note=note
    )
    return [
        overall,
        *published_tables(facts.published),
        *further,
        variants,
        *_cell_tables(run),
    ]


def choose_best(
    label_metrics: Mapping[str, Metrics], validation: Mapping[str, Mapping[str, Any]]
) -> Best:
    """Choose the best variant or run in each metric; a single one, or one selected on
    test, is no best.

    The highest of several test scores is too high. Where the trainings of all were
    validated on the same pictures, the best on validation is the best in every metric,
    with its test scores.

    Args:
        label_metrics: Metrics of each variant or run by its label.
        validation: Validation results of each training by label, as
            `TrainedRun.validation`.
    """
    # collect the values by metric and label, without those selected on test
    values: dict[str, dict[str, float]] = {}
    splits = set()
    for label, metrics in label_metrics.items():
        for name, metric in metrics.items():
            if not metric.selected:
                values.setdefault(name, {})[label] = metric.value
                splits.add(metric.split)
    values = {
        name: label_values
        for name, label_values in values.items()
        if len(label_values) > 1
    }
    if not values:
        return {}, ""

    # validation decides where it was the same for all; runs of one training have one
    # value
    labels = {label for label_values in values.values() for label in label_values}
    validations = [validation.get(label, {}) for label in labels]
    kinds = [
        (result.get("metric", ""), result.get("measured_on")) for result in validations
    ]
    validated_by, _ = kinds[0]
    is_same = kinds.count(kinds[0]) == len(kinds)
    is_validated = (
        validated_by
        and is_same
        and len({result["value"] for result in validations}) > 1
    )

    # the best by these scores, of equal ones all
    best = {}
    for name, label_values in values.items():
        scores = label_values
        if is_validated:
            scores = {label: validation[label]["value"] for label in label_values}
        is_less = lower_is_better(validated_by if is_validated else name)
        extreme = (min if is_less else max)(scores.values())
        best[name] = [label for label, score in scores.items() if score == extreme]

    # say on what the choice rests
    if is_validated:
        return best, f"best on validation ({shown(validated_by)})"
    if splits == {"validation"}:
        return best, "best on validation"
    counts = sorted({*map(len, values.values())})
    return best, f"best, chosen on test among {' or '.join(map(str, counts))}"


def best_of_parts(facts: Facts, part_metrics: Mapping[str, Metrics]) -> Best:
    """Choose the best of the variants or cells of a run, if they can be compared."""
    # parts that must not be compared have no best
    validation = {name: variant.validation for name, variant in facts.variants.items()}
    return choose_best({} if facts.not_compared else part_metrics, validation)


def best_of_runs(group: RunGroup, run_metrics: Mapping[str, Metrics]) -> Best:
    """Choose the best of the runs of a group that can be compared."""
    # a run whose comparison was refused is no candidate
    comparable = {
        label: run_metrics[label]
        for label in list_comparable(group)
        if label in run_metrics
    }
    validation = {run.label: run.measured.facts.validation for run in group.runs}
    best, chosen = choose_best(comparable, validation)

    # a best is significantly better: the first run than all others, another one than
    # the first
    first = group.runs[0].label
    first_is_better = {
        (pair.second, pair.metric): pair.is_better
        for pair in group.compared
        if pair.is_significant
    }
    labels = {}
    for name, candidates in best.items():
        is_first = first in candidates
        compared_labels = (
            [label for label in comparable if label != first]
            if is_first
            else candidates
        )
        if all(
            first_is_better.get((label, name)) is is_first for label in compared_labels
        ):
            labels[name] = candidates
    return labels, chosen


def list_comparable(group: RunGroup) -> list[str]:
    """List the labels of the runs among which a best is chosen: all, or those that were
    compared.
    """
    # without refusals all runs are comparable
    labels = [run.label for run in group.runs]
    paired = {labels[0], *(pair.second for pair in group.compared)}
    return [label for label in labels if not group.not_compared or label in paired]


def bold_note(best: Best, kind: str, group: RunGroup | None = None) -> str:
    """Explain what bold marks in a table and which runs were compared, or why nothing
    is marked.
    """
    # nothing is bold without evidence
    compared = list_comparable(group) if group and group.not_compared else []
    return render("bold.txt", best=best, kind=kind, compared=compared)


def _cell_tables(run: ShownRun) -> list[Table]:
    """Lay out subjects by seeds, or cells by metrics."""
    cells = run.cells
    subjects = list(dict.fromkeys(cell.subject for cell in cells))
    seeds = list(dict.fromkeys(cell.seed for cell in cells))
    if len(cells) < 2:
        return []

    # several seeds: one table per headline, subjects by seeds
    if len(seeds) > 1 and "" not in subjects:
        note = (
            "±: standard deviation over seeds; in the last row over subjects, their "
            "seeds averaged."
        )
        tables = []
        for name in run.headlines:
            values: dict[str, dict[str, list[float]]] = {}
            for cell in (cell for cell in cells if name in cell.metrics):
                subject_values = values.setdefault(cell.subject, {})
                subject_values.setdefault(cell.seed, []).append(
                    cell.metrics[name].value
                )
            title = f"{shown(name)} by subject and seed"
            tables.append(by_subject_and_seed(title, values, seeds, note))
        return tables

    # one seed: one row per cell, named by its subject if no other cell has it
    has_subjects = "" not in subjects and len(subjects) == len(cells)
    heading = "subject" if has_subjects else "cell"
    rows = {cell.subject if has_subjects else cell.name: cell.metrics for cell in cells}
    return [metric_table(f"By {heading}", rows, heading, list(cells[0].metrics))]


def published_tables(published: Mapping[str, Any] | None) -> list[Table]:
    """Lay out published values of metrics, and in what their set-up is said to differ;
    [] without any.
    """
    if not published:
        return []
    # numbers are metrics; other keys are the source and its differences
    values = {
        with_arrow(name): value
        for name, value in published.items()
        if isinstance(value, int | float)
    }
    row = [*values.values(), "; ".join(published["differs"]) or "–"]
    return [
        Table(
            f"{PUBLISHED}: {published['source']}",
            [*values, "differs, as its recipe says"],
            [row],
        )
    ]
