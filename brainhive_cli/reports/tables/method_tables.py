"""Tables that show retrieval methods side by side."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from brainhive_cli.core.base import (
    BrainhiveError,
    RecipeError,
    Table,
    TableCell,
    format_number,
    write_csv,
)
from brainhive_cli.core.results import (
    ALL,
    CATEGORY_METRICS,
    CORRECTIONS,
    NO_RESULT,
    TRANSDUCTIVE,
    Difference,
    Metric,
    extend_title,
    interval_text,
    list_metric_caveats,
    scope,
)
from brainhive_cli.core.runs import find as find_run
from brainhive_cli.measurement import compare_runs
from brainhive_cli.reports.tables.runs_shown import ShownRun, find_shown_run
from brainhive_cli.reports.tables.tables import (
    Metrics,
    ResultRow,
    describe_adjustment,
    make_difference_cell,
    tabulate_rows,
)
from brainhive_cli.reports.templates import render

METRICS = ("top1", "top5", "rank_auc")
CEILING_SHARE = "share of the noise ceiling"
"""Heading of the column of hits above chance, relative to the noise ceiling."""


@dataclass(frozen=True)
class Method:
    """Method in a comparison: a retrieval run, or a correction of its similarities.

    Attributes:
        label: Name of the method.
        run: Retrieval run.
        metrics: Metrics of the method.
        control: Why the method is a control and no result, or "".
        reasons: All reasons why the method is excluded. Empty for a result.
    """

    label: str
    run: ShownRun
    metrics: Metrics
    control: str = ""
    reasons: Sequence[str] = ()

    @property
    def hits(self) -> Metric:
        """Metric that counts how often the seen stimulus came first."""
        facts = self.run.measurements.facts
        return self.metrics[facts.hit_metric]

    @property
    def caveats(self) -> list[str]:
        """Caveats of the metrics."""
        return list_metric_caveats(self.metrics.values())


@dataclass(frozen=True)
class MethodComparison:
    """Methods that were tested by the same protocol.

    Attributes:
        title: Data set, mode and split, with the caveats of the reference.
        methods: Methods by descending share of hits, excluded ones last.
        reference: Label of the method with which the others are compared.
        differences: Differences of hits from the reference.
    """

    title: str
    methods: list[Method]
    reference: str
    differences: Sequence[Difference] = ()

    @property
    def results(self) -> list[Method]:
        """Methods that are not excluded, by descending top-1."""
        return [method for method in self.methods if not method.reasons]


def list_retrievals(runs: Sequence[ShownRun]) -> list[ShownRun]:
    """List all runs that tested picture retrieval, for tables that compare methods.

    A workflow is replaced by the retrieval runs of its steps.

    Args:
        runs: Runs of any command. Runs without retrieval are left out.
    """
    retrievals = list[ShownRun]()
    for shown_run in runs:
        facts = shown_run.measurements.facts
        path = shown_run.folder.path

        # `path.parents[1]` is the folder of all runs
        steps = []
        for name, reference in facts.tested_runs.items():
            folder = find_shown_run(path.parents[1], reference)
            steps.append(ShownRun(name, folder))
        if steps:
            retrievals += list_retrievals(steps)
        elif facts.hit_metric:
            retrievals.append(shown_run)
    return retrievals


def compare_methods(runs: Sequence[ShownRun], against: str) -> list[MethodComparison]:
    """Compare the methods of each data set, training mode and split.

    Args:
        runs: Runs of any command. Runs without retrieval are left out.
        against: Name of the row that others are compared with, or "" for the first
            result with the fewest caveats (phrases that limit a number).

    Raises:
        RecipeError: if no run tested retrieval, or if no result has this name.
    """
    methods_by_title: dict[str, list[Method]] = {}
    for shown_run in list_retrievals(runs):
        facts = shown_run.measurements.facts
        split = shown_run.metrics[facts.hit_metric].split
        title = f"{facts.dataset}, {facts.mode}, {split} split"
        methods = methods_by_title.setdefault(title, [])
        methods += _list_methods(shown_run, [method.label for method in methods])

    # controls, such as a test with shuffled signals, cannot be the reference
    labels = []
    for methods in methods_by_title.values():
        labels += [method.label for method in methods if not method.control]
    if not labels or (against and against not in labels):
        name = f" {against!r}" if against else ""
        rows = ", ".join(labels) or "name runs of workflow or eval-retrieval"
        raise RecipeError(f"no retrieval{name} among these runs", f"rows: {rows}")
    return [
        compare_protocol(title, methods, against)
        for title, methods in methods_by_title.items()
    ]


def _list_methods(shown_run: ShownRun, used_labels: Sequence[str]) -> list[Method]:
    """List the method of a retrieval run, and the corrections of its similarities.

    The label is the settings that the workflow varied, after the first " · " of the
    run's label. Without settings, it is the label of the run. If it is used, it is the
    name of the run's folder.
    """
    mode = shown_run.measurements.facts.mode
    settings = [value for value in shown_run.label.split(" · ")[1:] if value != mode]
    label = ", ".join(settings) or shown_run.label
    if label in used_labels:
        label = shown_run.folder.path.name
    control = ""
    if shown_run.is_control:
        control = "a control: signals or pictures were permuted"
    methods = [Method(label, shown_run, shown_run.metrics, control)]

    # a correction uses all other test signals, so its metrics are a control
    for name, metrics in shown_run.measurements.scopes.items():
        first_part, _, correction = name.partition(" · ")
        if first_part == CORRECTIONS and " · " not in correction:
            title = f"{label}, {correction}"
            methods.append(Method(title, shown_run, metrics, TRANSDUCTIVE))
    return methods


def compare_protocol(
    title: str, methods: Sequence[Method], against: str
) -> MethodComparison:
    """Compare methods that were tested by the same protocol with a reference.

    The reference is the method with the requested name, or else the method that is not
    a control and has the fewest caveats in `NO_RESULT`, and then the fewest caveats.

    Args:
        title: Data set, mode and split.
        methods: The methods.
        against: Name of the reference, or "".
    """

    def count_objections(method: Method) -> tuple[bool, bool, int, int]:
        caveats = method.caveats
        n_excluding = len(NO_RESULT.intersection(caveats))
        is_other = method.label != against
        return is_other, bool(method.control), n_excluding, len(caveats)

    reference = min(methods, key=count_objections)
    pairs = {}
    for method in methods:
        if method is not reference and not method.control:
            measurements = (method.run.measurements, reference.run.measurements)
            pairs[method.label, reference.label] = measurements
    differences, errors = compare_runs(pairs)

    # exclude controls, methods with further caveats, and methods of other test sets
    shared_caveats = set(reference.caveats) - NO_RESULT
    judged = []
    for method in methods:
        reasons = [method.control] if method.control else []
        reasons += [item for item in method.caveats if item not in shared_caveats]
        if (method.label, reference.label) in errors:
            error = errors[method.label, reference.label]
            reasons.append(f"not comparable: {error.message}")
        judged.append(replace(method, reasons=reasons))
    judged.sort(key=lambda method: (bool(method.reasons), -method.hits.value))
    full_title = extend_title(title, reference.caveats)
    return MethodComparison(full_title, judged, reference.label, differences)


def tabulate_methods(comparison: MethodComparison) -> Table:
    """Lay out a table of methods, with their metrics and costs.

    Args:
        comparison: Methods that were tested by the same protocol.
    """
    difference_of = {item.first: item for item in comparison.differences}
    rows = []
    for method in comparison.methods:
        difference: Any = difference_of.get(method.label)
        extra: dict[str, Any] = {
            CEILING_SHARE: divide_by_ceiling(method),
            "difference": difference and make_difference_cell(difference),
            "p": difference and difference.p,
            "selection": method.run.measurements.facts.set_up.get("selection"),
            **_measure_cost(method.run),
            "published": _describe_published(method),
        }
        if method.label == comparison.reference:
            extra["difference"] = "reference"
        rows.append(
            ResultRow(method.label, method.metrics, reasons=method.reasons, extra=extra)
        )

    # leave out columns without values
    columns = [key for key in rows[0].extra if any(row.extra[key] for row in rows)]
    rows = [
        replace(row, extra={key: row.extra[key] for key in columns}) for row in rows
    ]
    hits = comparison.methods[0].hits
    note = render(
        "methods_note.txt",
        hits=hits,
        columns=columns,
        n_results=len(comparison.results),
        reference=comparison.reference,
        pairs=comparison.differences,
        adjustment=describe_adjustment(comparison.differences)
        if comparison.differences
        else "",
    )
    names = CATEGORY_METRICS if hits.name == "accuracy" else METRICS
    return tabulate_rows(comparison.title, rows, "method", names, note=note)


def divide_by_ceiling(method: Method) -> TableCell | None:
    """Divide hits above chance by a noise ceiling with the same candidates.

    Returns:
        The share with its interval, or None without a ceiling that is above chance and
        above the hits.
    """
    hits = method.hits
    chance = hits.chance or 0
    ceilings = method.run.measurements.scopes.get(scope("ceiling", ALL), {})
    ceiling = ceilings.get("top1")
    if not ceiling or (ceiling.pool, ceiling.chance) != (hits.pool, hits.chance):
        return None
    if not ceiling.low or not ceiling.high or hits.low is None or hits.high is None:
        return None
    if ceiling.low <= chance or hits.value > ceiling.value:
        return None
    share = (hits.value - chance) / (ceiling.value - chance)
    low = (hits.low - chance) / (ceiling.high - chance)
    high = (hits.high - chance) / (ceiling.low - chance)
    return TableCell(format_number(share), interval_text(low, high), share)


def _describe_published(method: Method) -> str:
    """Write published values, their source, and how its set-up differs, or ""."""
    published = method.run.measurements.facts.published
    if not published:
        return ""
    names = CATEGORY_METRICS if method.hits.name == "accuracy" else METRICS
    values = [f"{published[name]:.3f}" for name in names if name in published]
    phrases = [" / ".join(values), published["source"], *published["differs"]]
    return "; ".join(phrases)


def _measure_cost(shown_run: ShownRun) -> dict[str, float | None]:
    """Sum up the cost of the trainings whose models a retrieval run has tested.

    Returns:
        Minutes of all trainings (`min`), largest memory of a training (`GB`) and
        largest number of weights in millions (`M weights`), or None if unknown.
    """
    # `cell.took` is the cost of a cell, a model of a subject and a seed
    seconds = memory_bytes = n_weights = 0.0
    runs = shown_run.folder.path.parents[1]
    for name in shown_run.measurements.facts.runs:
        with suppress(BrainhiveError):  # deleted runs are left out
            run_folder = find_run(runs, "train-align", name)
            for cell in run_folder.measurements().facts.cells.values():
                seconds += cell.took.get("seconds") or 0
                cell_bytes = cell.took.get("peak_memory_bytes") or 0
                memory_bytes = max(memory_bytes, cell_bytes)
                n_weights = max(n_weights, cell.took.get("parameters") or 0)
    return {
        "min": seconds / 60 or None,
        "GB": memory_bytes / 1e9 or None,
        "M weights": n_weights / 1e6 or None,
    }


def join_tables(tables: Sequence[Table]) -> str:
    """Write several tables as a single CSV text, with a row for each method.

    Intervals, reasons, titles (`protocol`) and notes of the tables stand in columns
    of their own.
    """
    rows: list[dict[str, Any]] = []
    for table in tables:
        for values, cells in zip(table.as_dict()["rows"], table.rows, strict=True):
            row = {"protocol": table.title} | values
            for heading, cell in zip(table.columns[1:], cells[1:], strict=True):
                interval = TableCell.from_value(cell).small
                if interval:
                    row[f"{heading}, 95 % CI"] = interval
            rows.append(row | {"note": table.note})
    columns = dict.fromkeys(key for row in rows for key in row)
    return write_csv(list(columns), rows)
