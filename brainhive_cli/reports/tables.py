"""The tables of a report: metrics with intervals, by subject and seed, run by run, and their differences."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from brainhive_cli.core.measurements import (
    ALL,
    LEVEL,
    Measurements,
    Metric,
    beside_heading,
    interval_text,
    is_difference,
    scope,
    stamp_rows,
)
from brainhive_cli.core.set_up import SET_UP, differences
from brainhive_cli.core.tables import (
    Cell,
    Table,
    adjustment_text,
    brief,
    by_subject_and_seed,
    mean_sd,
    number,
    p_text,
)
from brainhive_cli.measurement.metric_names import lower_is_better, shown, with_arrow
from brainhive_cli.reports.runs_shown import Compared, RunGroup, ShownRun

MARKS = ((0.001, "***"), (0.01, "**"), (LEVEL, "*"))
"""Signs of p values below each level."""
MAX_COLUMNS = 8
"""Metrics that fit side by side on a page of usual width."""
MEANING = "* p ≤ .05, ** p ≤ .01, *** p ≤ .001"
"""Legend of `MARKS`."""
PUBLISHED = "Published, of test stimuli; its set-up was not checked by Brainhive"
"""Before the source of published values: whether they are comparable is for the reader to judge."""
Metrics = Mapping[str, Metric]
Columns = dict[str, list[Any]]
"""Cells of each column, a row per metric, by the column's heading."""


def tables_of(group: RunGroup) -> list[Table]:
    """Lay out all tables of a group of runs."""
    tables = _lay_out_runs(group) if len(group.runs) > 1 else _lay_out_run(group.runs[0])
    return [table for table in tables if table.rows]


def _lay_out_runs(group: RunGroup) -> list[Table]:
    """Lay out several runs: side by side, by subject, their differences, and those of their set-ups."""
    # the first headline metric, one row per subject and one column per run
    name = next(iter(group.runs[0].headlines), "")
    run_values = {run.label: run.by_subject(name) for run in group.runs}
    subjects = list(dict.fromkeys(subject for values in run_values.values() for subject in values))
    rows = [[subject, *(values.get(subject) for values in run_values.values())] for subject in subjects]
    if rows:
        rows.append(["mean ± sd", *(mean_sd(values.values()) for values in run_values.values())])
    subject_table = Table(f"{shown(name)} by subject; seeds averaged", ["subject", *run_values], rows)

    # the differences of the set-up of each later run from that of the first
    first, *rest = [(run.label, run.measured.notes.get(SET_UP, {})) for run in group.runs]
    lines = [[label, line] for label, set_up in rest for line in differences(set_up, first[1])]
    set_up_table = Table(f"Set-ups: what differs from {first[0]}", ["run", "in"], lines)
    return [_run_table(group), subject_table, _difference_table(group.compared), set_up_table]


def _lay_out_run(run: ShownRun) -> list[Table]:
    """Lay out a single run: everything together, variants, cells, and published values."""
    # everything together: all metrics, or the sources of pictures side by side with ceiling and baselines
    if run.source:
        scopes, titles = run.measured.scopes, run.measured.notes.get("titles", {})
        columns = {}
        for source in run.measured.notes["sources"]:
            cells = [with_interval(scopes[source].get(name)) for name in run.metrics]
            columns[titles.get(source, source)] = cells
        title = "Measured, with ceiling, floor and baselines"
        overall = _lay_out_metrics(title, run.metrics, columns, ("n",))
    else:
        overall = _metric_table("All cells together", run.metrics)

    # everything together, measured in further ways (`all · backward`)
    begin = f"{ALL} · "
    further = [
        _metric_table(f"All cells together: {name.removeprefix(begin)}", metrics)
        for name, metrics in run.measured.scopes.items()
        if name.startswith(begin)
    ]

    # the variants of a sweep by metrics, the best in bold
    names = list(dict.fromkeys(name for metrics in run.variants.values() for name in metrics))
    best = best_of_parts(run, run.variants)
    rows = [
        [label, *(with_interval(metrics.get(name), label in best.labels.get(name, ())) for name in names)]
        for label, metrics in run.variants.items()
    ]
    note = bold_note(best, "variants")
    variants = Table("By variant", ["variant", *map(with_arrow, names)], rows, note=note)
    published = published_tables(run.measured.notes.get("published"))
    return [overall, *published, *further, variants, *_cell_tables(run)]


def mark_of(compared: Compared) -> str:
    """Return the sign of a difference; empty if no difference may be claimed."""
    return next((sign for level, sign in MARKS if is_difference(compared.p, level)), "")


def with_interval(metric: Metric | None, is_best: bool = False, mark: str = "") -> Cell:
    """Make a cell of a value, its interval below it."""
    if metric is None:
        return Cell("–")
    low_high = "" if metric.low is None else metric.interval_text()
    return Cell(number(metric.value), low_high, metric.value, is_best, mark)


class Best(NamedTuple):
    """The best of several variants or runs.

    Attributes:
        labels: Labels of the best by metric, several if they are equal; no entry for a metric without a best.
        chosen: Way of choosing: on validation, or on test among a number of candidates.
    """

    labels: Mapping[str, Sequence[str]]
    chosen: str = ""


def choose_best(label_metrics: Mapping[str, Metrics], validation: Mapping[str, Mapping[str, Any]]) -> Best:
    """Choose the best variant or run in each metric; a single one, or one selected on test, is no best.

    The highest of several test scores is too high. Where the trainings of all were validated on the same
    pictures, the best on validation is the best in every metric, with its test scores.

    Args:
        label_metrics: Metrics of each variant or run by its label.
        validation: Validation results of each training by label, as `TrainedRun.validation`.
    """
    # collect the values by metric and label, without those selected on test
    values: dict[str, dict[str, float]] = {}
    splits = set()
    for label, metrics in label_metrics.items():
        for name, metric in metrics.items():
            if not metric.selected:
                values.setdefault(name, {})[label] = metric.value
                splits.add(metric.split)
    values = {name: label_values for name, label_values in values.items() if len(label_values) > 1}
    if not values:
        return Best({})

    # validation decides where it was the same for all; runs of one training have one value
    labels = {label for label_values in values.values() for label in label_values}
    validations = [validation.get(label, {}) for label in labels]
    kinds = [(result.get("metric", ""), result.get("measured_on")) for result in validations]
    validated_by, _ = kinds[0]
    is_same = kinds.count(kinds[0]) == len(kinds)
    is_validated = validated_by and is_same and len({result["value"] for result in validations}) > 1

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
        return Best(best, f"best on validation ({shown(validated_by)})")
    if splits == {"validation"}:
        return Best(best, "best on validation")
    counts = sorted({*map(len, values.values())})
    return Best(best, f"best, chosen on test among {' or '.join(map(str, counts))}")


def best_of_parts(run: ShownRun, part_metrics: Mapping[str, Metrics]) -> Best:
    """Choose the best of the variants or cells of a run, if they can be compared."""
    notes = run.measured.notes
    validation = {name: about.get("validation", {}) for name, about in notes.get("variants", {}).items()}
    return choose_best({} if notes.get("not_compared") else part_metrics, validation)


def best_of_runs(group: RunGroup, run_metrics: Mapping[str, Metrics]) -> Best:
    """Choose the best of the runs of a group that can be compared."""
    comparable = {label: metrics for label, metrics in run_metrics.items() if label in group.comparable}
    validation = {run.label: run.measured.notes.get("validation", {}) for run in group.runs}
    best = choose_best(comparable, validation)

    # a best is significantly better: the first run than all others, another one than the first
    first = group.runs[0].label
    first_is_better = {
        (pair.second, pair.metric): (pair.difference > 0) != lower_is_better(pair.metric)
        for pair in group.compared
        if is_difference(pair.p)
    }
    labels = {}
    for name, chosen in best.labels.items():
        is_first = first in chosen
        others = [label for label in comparable if label != first] if is_first else chosen
        if all(first_is_better.get((label, name)) is is_first for label in others):
            labels[name] = chosen
    return Best(labels, best.chosen)


def bold_note(best: Best, kind: str, compared: Sequence[str] = ()) -> str:
    """Explain what bold marks in a table and which runs were compared, or why nothing is marked."""
    if not best.labels:
        return f"No best is marked: these {kind} cannot be compared, or are not shown to differ."
    return f"Bold: {best.chosen}{'; compared: ' if compared else ''}{', '.join(compared)}."


def _metric_table(title: str, metrics: Metrics) -> Table:
    """Lay out the metrics of one scope."""
    listed = list(metrics.values())
    columns: Columns = {"value, 95 % CI": [with_interval(metric) for metric in listed]}
    if heading := beside_heading(listed):
        columns[heading] = [metric.beside_text() for metric in listed]
    if any(metric.seed_sd is not None for metric in listed):
        columns["sd over seeds"] = [metric.seed_sd for metric in listed]
    return _lay_out_metrics(title, metrics, columns, ("n", "pool"))


def _lay_out_metrics(title: str, metrics: Metrics, columns: Columns, context: Sequence[str]) -> Table:
    """Write one row per metric; context that all metrics share goes into the note."""
    # chance, and context that differs between metrics, become columns
    listed = list(metrics.values())
    chances = [Cell("–") if m.chance is None else Cell(brief(m.chance), value=m.chance) for m in listed]
    columns = {**columns, "chance": chances}
    shared = {}
    for name in context:
        values = [getattr(metric, name) for metric in listed]
        if len(set(values)) == 1:
            shared[name] = values[0]
        else:
            columns[name] = values

    # the note names the protocol, shared context and the kind of interval
    notes = []
    if listed:
        notes = [listed[0].protocol, *(f"{name} {n:,}" for name, n in shared.items() if n is not None)]
        notes += [] if listed[0].low is None else [f"interval: {listed[0].interval}"]
    note = "; ".join(notes) + "." if notes else ""
    rows = [list(row) for row in zip(map(with_arrow, metrics), *columns.values(), strict=True)]
    return Table(title, ["metric", *columns], rows, note=note)


def _cell_tables(run: ShownRun) -> list[Table]:
    """Lay out subjects by seeds, or cells by metrics."""
    cells = run.cells
    subjects = list(dict.fromkeys(cell.subject for cell in cells))
    seeds = list(dict.fromkeys(cell.seed for cell in cells))
    if len(cells) < 2:
        return []

    # several seeds: one table per headline, subjects by seeds
    if len(seeds) > 1 and "" not in subjects:
        note = "±: standard deviation over seeds; in the last row over subjects, their seeds averaged."
        tables = []
        for name in run.headlines:
            values: dict[str, dict[str, list[float]]] = {}
            for cell in (cell for cell in cells if name in cell.metrics):
                subject_values = values.setdefault(cell.subject, {})
                subject_values.setdefault(cell.seed, []).append(cell.metrics[name].value)
            title = f"{shown(name)} by subject and seed"
            tables.append(by_subject_and_seed(title, values, seeds, note))
        return tables

    # one seed: one row per cell, named by its subject if no other cell has it
    names = list(cells[0].metrics)
    has_subjects = "" not in subjects and len(subjects) == len(cells)
    epochs = ["epoch"] if "epoch" in cells[0].about else []
    rows = [
        [
            cell.subject if has_subjects else cell.name,
            *(cell.about[key] for key in epochs),
            *(with_interval(cell.metrics.get(name)) for name in names),
        ]
        for cell in cells
    ]

    # the last row has the spread over cells
    spread = [mean_sd(c.metrics[name].value for c in cells if name in c.metrics) for name in names]
    rows.append(["mean ± sd", *("" for _ in epochs), *spread])
    heading = "subject" if has_subjects else "cell"
    columns = [heading, *epochs, *map(with_arrow, names)]

    # many metrics of few cells: one row per metric, or the page would cut the table off
    if len(names) > MAX_COLUMNS > len(rows):
        first, *metric_rows = zip(columns, *rows, strict=True)
        columns, rows = ["metric", *map(str, first[1:])], [list(row) for row in metric_rows]
    note = f"±: standard deviation over {heading}s."
    return [Table(f"By {heading}, with 95 % intervals", columns, rows, note=note)]


def published_tables(published: Mapping[str, Any] | None) -> list[Table]:
    """Lay out published values of metrics, and in what their set-up is said to differ; [] without any."""
    if not published:
        return []
    values = {with_arrow(name): value for name, value in published.items() if isinstance(value, int | float)}
    row = [*values.values(), "; ".join(published["differs"]) or "–"]
    return [Table(f"{PUBLISHED}: {published['source']}", [*values, "differs, as its recipe says"], [row])]


def _run_table(group: RunGroup) -> Table:
    """Lay out one row per run, the best in bold, with signs of significance."""
    # find the best run of each metric, and the sign of each difference from the first run
    run_metrics = {run.label: run.metrics for run in group.runs if run.metrics}
    names = list(dict.fromkeys(name for metrics in run_metrics.values() for name in metrics))
    best = best_of_runs(group, run_metrics)
    marks = {(pair.second, pair.metric): mark_of(pair) for pair in group.compared}
    stamps = stamp_rows({label: metrics.values() for label, metrics in run_metrics.items()})

    # write the rows
    rows = []
    for label, metrics in run_metrics.items():
        cells = [
            with_interval(metrics.get(name), label in best.labels.get(name, ()), marks.get((label, name), ""))
            for name in names
        ]
        rows.append([stamps[label], *cells, next(iter(metrics.values())).n])

    # explain bold and the signs
    note = bold_note(best, "runs", group.comparable if group.not_compared else ())
    if group.compared:
        adjustment = adjustment_text(group.compared[0].adjusted_over)
        note += f" {MEANING}: differs from {group.runs[0].label}, paired by item; {adjustment}."
    columns = ["run", *map(with_arrow, names), "n"]
    return Table("Run by run, with 95 % intervals", columns, rows, note=note)


def _difference_table(compared: Sequence[Compared]) -> Table:
    """Lay out one row per difference, with its interval and its p."""
    rows = []
    for pair in compared:
        ends, text = interval_text(pair.low, pair.high), f"{pair.difference:+.3f}"
        difference = Cell(text, ends, pair.difference, mark=mark_of(pair))
        labels = f"{pair.first} – {pair.second}"
        rows.append([with_arrow(pair.metric), labels, difference, pair.n, Cell(p_text(pair.p), value=pair.p)])
    tests = "; ".join(dict.fromkeys(pair.test for pair in compared))
    columns = ["metric", "runs", "difference, 95 % CI", "n", "p"]
    note = f"{MEANING}; {tests}; {adjustment_text(compared[0].adjusted_over if compared else {})}."
    return Table("Differences, paired by item and subject", columns, rows, note=note)


NO_CONTROL = "none"
"""The variant without a control."""
SHUFFLED = "shuffled trials"


def control_effects(
    swept: Mapping[str, Measurements], shuffled: Mapping[str, Measurements]
) -> list[dict[str, Any]]:
    """List the effect of each control on each head.

    Args:
        swept: Measurements of eval-retrieval by head, of a sweep over controls.
        shuffled: Measurements by head without a control, and in draws with shuffled trials.

    Returns:
        Rows of head, control, top1 and `loss`, the decrease of top1 by the control, with its 95 % interval
        `low` to `high`. The interval of shuffled trials is over the draws. Without a control `loss` is 0 and
        the interval is that of top1.
    """
    effects = []
    for head, measured in swept.items():
        # the head without a control, then each control that was compared with it
        top1 = measured.scopes[scope(NO_CONTROL, ALL)]["top1"]
        rows = [(NO_CONTROL, top1.value, 0.0, top1.low, top1.high)]
        for pair in measured.notes["comparisons"]:
            if pair["pair"][0] == NO_CONTROL:
                control = pair["pair"][1]
                controlled = measured.scopes[scope(control, ALL)]["top1"].value
                rows.append((control, controlled, pair["difference"], pair["low"], pair["high"]))

        # shuffled trials: the mean and the interval of the draws
        drawn = shuffled[head].notes["control"]["metrics"]["top1"]
        losses = [top1.value - drawn[end] for end in ("mean", "high", "low")]
        rows.append((SHUFFLED, drawn["mean"], *losses))
        keys = ("head", "control", "top1", "loss", "low", "high")
        effects += [dict(zip(keys, (head, *row), strict=True)) for row in rows]
    return effects


def effects_table(effects: list[dict[str, Any]], title: str) -> Table:
    """Lay out the rows of `control_effects`."""
    rows = []
    for effect in effects:
        interval = interval_text(effect["low"], effect["high"])
        is_uncontrolled = effect["control"] == NO_CONTROL
        loss = ("–", f"{interval} (top-1)") if is_uncontrolled else (f"{effect['loss']:.3f}", interval)
        rows.append((effect["head"], effect["control"], effect["top1"], *loss))
    columns = ("head", "control", "top-1", "loss", "95 % CI")
    return Table(title, columns, tuple(rows))
