"""Tables that show retrieval methods side by side."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np

from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.core.facts import Difference, RetrievalFacts, WorkflowFacts
from brainhive_cli.core.measurements import (
    ALL,
    CATEGORY_METRICS,
    NO_RESULT,
    TRANSDUCTIVE,
    Metric,
    add_footnotes,
    extend_title,
    interval_text,
    list_metric_caveats,
    metric_title,
    scope,
)
from brainhive_cli.core.runs import find as find_run, split_variant
from brainhive_cli.core.tables import Table, TableCell, format_number, write_csv
from brainhive_cli.measurement.comparison import compare_ranks
from brainhive_cli.reports.runs_shown import ShownRun, find_shown_run
from brainhive_cli.reports.tables import (
    describe_adjustment,
    make_difference_cell,
    make_metric_cell,
    render,
)

METRICS = ("top1", "top5", "rank_auc")
REASON = "excluded because"
"""Heading of the column that says why a row stands below the results."""
CEILING_SHARE = "share of the noise ceiling"
"""Heading of the column of top-1 above chance, relative to the noise ceiling."""


@dataclass(frozen=True)
class MethodComparison:
    """Methods that were tested by the same protocol.

    Attributes:
        title: Data set, mode and split.
        rows: Methods by descending share of hits, excluded ones last.
        reasons: Why a method is excluded, by its label. Empty for a result.
        caveats: Caveats (phrases that limit a number) of each method by its label.
        reference: Method with which the others are compared.
        differences: Difference of hits from the reference, by label.
    """

    title: str
    rows: list[ShownRun]
    reasons: dict[str, list[str]]
    caveats: dict[str, list[str]]
    reference: ShownRun
    differences: dict[str, Difference]

    @cached_property
    def results(self) -> list[ShownRun]:
        """Methods that are not excluded, by descending top-1."""
        return [row for row in self.rows if not self.reasons[row.label]]

    @property
    def full_title(self) -> str:
        """Title with the caveats of the reference."""
        return extend_title(self.title, self.caveats[self.reference.label])

    def compare_best(self) -> dict[str, Difference]:
        """Compare the hits of the first result with each other result.

        Returns:
            Differences (first result minus the other) by the label of the other. Their
            p values are adjusted for their number. Results that cannot be compared are
            absent.
        """
        best, *others = self.results
        pairs = {}
        for other in others:
            labels = (best.label, other.label)
            pairs[labels] = (best.measurements, other.measurements)
        differences, _ = compare_ranks(pairs)
        return {difference.second: difference for difference in differences}


def list_retrievals(runs: Sequence[ShownRun]) -> list[ShownRun]:
    """List all runs that tested picture retrieval, for tables that compare methods.

    A workflow is replaced by the retrieval runs of its steps, and a run with several
    variants by its variants.

    Args:
        runs: Runs of any command. Runs without retrieval are left out.

    Returns:
        Copies of the runs. The caller may change their labels and metrics.
    """
    retrievals = list[ShownRun]()
    for shown_run in runs:
        facts = shown_run.measurements.facts
        path = shown_run.folder.path

        references = {variant: f"{path}:{variant}" for variant in facts.variants}
        if isinstance(facts, WorkflowFacts) and facts.retrievals:
            references = facts.retrievals

        # `path.parents[1]` is the folder of all runs
        steps = []
        for name, reference in references.items():
            folder, variant = find_shown_run(path.parents[1], reference)
            steps.append(ShownRun(name, folder, variant))
        if steps:
            retrievals += list_retrievals(steps)
        elif isinstance(facts, RetrievalFacts):
            retrievals.append(copy(shown_run))
    return retrievals


def compare_methods(runs: Sequence[ShownRun], against: str) -> list[MethodComparison]:
    """Compare the methods of each data set, training mode and split.

    Args:
        runs: Runs of any command. Runs without retrieval are left out.
        against: Name of the row that others are compared with, or "" for the first
            result with the fewest caveats (phrases that limit a number).

    Returns:
        The comparisons.

    Raises:
        RecipeError: if no run tested retrieval, or if no result has this name.
    """
    rows_by_title: dict[str, list[ShownRun]] = {}
    for shown_run in list_retrievals(runs):
        facts = shown_run.measurements.facts
        split = find_hits(shown_run).split
        title = f"{facts.dataset}, {facts.mode}, {split} split"
        rows = rows_by_title.setdefault(title, [])
        shown_run.label = _name_method(shown_run, [row.label for row in rows])
        rows.append(shown_run)
        rows += _list_corrected(shown_run)

    # controls, such as a test with shuffled signals, cannot be the reference
    row_names = []
    for row in chain(*rows_by_title.values()):
        if not row.is_control:
            row_names.append(row.label)
    has_reference = against in row_names if against else bool(row_names)
    if not has_reference:
        name = f" {against!r}" if against else ""
        row_list = ", ".join(row_names) or "name runs of workflow or eval-retrieval"
        raise RecipeError(f"no retrieval{name} among these runs", f"rows: {row_list}")
    comparisons = []
    for title, rows in rows_by_title.items():
        comparisons.append(compare_protocol(title, rows, against))
    return comparisons


def find_hits(row: ShownRun) -> Metric:
    """Return the metric that counts how often the seen stimulus came first."""
    facts = row.measurements.require_facts(RetrievalFacts)
    return row.metrics[facts.hit_metric]


def _name_method(shown_run: ShownRun, used_names: Sequence[str]) -> str:
    """Name the table row of a run after the settings that its workflow varied.

    They follow the first " · " of its label. Without settings, the label is the name.
    If another row has this name, the name of the run's folder is used.
    """
    mode = shown_run.measurements.facts.mode
    settings = [value for value in shown_run.label.split(" · ")[1:] if value != mode]
    name = ", ".join(settings) or shown_run.label
    return shown_run.folder.path.name if name in used_names else name


def _list_corrected(shown_run: ShownRun) -> list[ShownRun]:
    """Make a table row for each correction of the similarities of a retrieval run.

    A correction uses all other test signals, so its metrics count as controls.
    """
    # corrected metrics have a scope such as `all · CORRECTION`
    rows = []
    for name, metrics in shown_run.measurements.scopes.items():
        correction = name.partition(" · ")[2]
        protocol = next(iter(metrics.values())).protocol
        if TRANSDUCTIVE in protocol and " · " not in correction:
            row = copy(shown_run)
            row.label = f"{shown_run.label}, {correction}"
            row.metrics = metrics
            row.is_control = True
            rows.append(row)
    return rows


def compare_protocol(
    title: str, rows: Sequence[ShownRun], against: str
) -> MethodComparison:
    """Compare methods that were tested by the same protocol with a reference.

    Args:
        title: Data set, mode and split.
        rows: The methods.
        against: Name of the reference row, or "" for the first result with
            the fewest caveats.
    """
    # exclude controls, and rows with caveats that the reference lacks
    caveats = {row.label: list_metric_caveats(row.metrics.values()) for row in rows}
    reference = _choose_reference(rows, caveats, against)
    shared_caveats = set(caveats[reference.label]) - NO_RESULT
    reasons: dict[str, list[str]] = {}
    pairs = {}
    for row in rows:
        reasons[row.label] = _explain_control(row)
        for caveat in caveats[row.label]:
            if caveat not in shared_caveats:
                reasons[row.label].append(caveat)
        if row is not reference and not row.is_control:
            labels = (row.label, reference.label)
            pairs[labels] = (row.measurements, reference.measurements)

    # exclude rows that cannot be compared with the reference
    compared, errors = compare_ranks(pairs)
    differences = {difference.first: difference for difference in compared}
    failed_labels = [label for label, _ in pairs if label not in differences]
    for label, error in zip(failed_labels, errors, strict=True):
        reasons[label].append(f"not comparable: {error.message}")

    def rank_row(row: ShownRun) -> tuple[bool, float]:
        return bool(reasons[row.label]), -find_hits(row).value

    return MethodComparison(
        title, sorted(rows, key=rank_row), reasons, caveats, reference, differences
    )


def tabulate_methods(comparison: MethodComparison) -> Table:
    """Lay out a table of methods, with their metrics and costs.

    Args:
        comparison: Methods that were tested by the same protocol.
    """
    reference = comparison.reference
    lines = []
    for row in comparison.rows:
        reasons = comparison.reasons[row.label]
        line: dict[str, Any] = {
            "method": TableCell(row.label, is_grey=bool(reasons)),
            REASON: "; ".join(reasons),
        }
        line |= describe_row(row, comparison.differences.get(row.label))
        if row is reference:
            line["difference"] = "reference"
        lines.append(line)

    # leave out columns without values
    columns = [column for column in lines[0] if any(map(itemgetter(column), lines))]

    # the highest of several test scores is biased upwards
    n_results = len(comparison.results)
    if n_results > 1:
        hit_metric = find_hits(reference).name
        hits = lines[0][hit_metric]
        remarks = filter(None, [hits.small, f"chosen among {n_results}"])
        lines[0][hit_metric] = replace(hits, small=", ".join(remarks))

    pairs = list(comparison.differences.values())
    note = render(
        "methods_note.txt",
        reference=reference,
        metric=find_hits(reference),
        columns=columns,
        pairs=pairs,
        adjustment=describe_adjustment(pairs) if pairs else "",
    )
    note = add_footnotes(note, chain(*comparison.caveats.values()))
    return Table(
        comparison.full_title,
        list(map(metric_title, columns)),
        list(map(itemgetter(*columns), lines)),
        note=note,
    )


def _choose_reference(
    rows: Sequence[ShownRun], caveats: Mapping[str, Sequence[str]], against: str
) -> ShownRun:
    """Choose the reference row, with which all other rows are compared.

    It is the row with the requested name. If there is none, it is the row that is not a
    control and has the fewest caveats in `NO_RESULT`, and then the fewest caveats.

    Args:
        rows: Row of each method.
        caveats: Caveats (phrases that limit a number) of each row by its label.
        against: Requested name, or "".
    """

    def count_objections(row: ShownRun) -> tuple[bool, bool, int, int]:
        row_caveats = caveats[row.label]
        n_excluding = len(NO_RESULT.intersection(row_caveats))
        return row.label != against, row.is_control, n_excluding, len(row_caveats)

    return min(rows, key=count_objections)


def _explain_control(row: ShownRun) -> list[str]:
    """List the reason why a row is a control, if it is."""
    if not row.is_control:
        return []
    if TRANSDUCTIVE in find_hits(row).protocol:
        return [TRANSDUCTIVE]
    return ["a control: signals or pictures were permuted"]


def describe_row(row: ShownRun, difference: Difference | None) -> dict[str, Any]:
    """Describe a method in the columns of the table of methods.

    Args:
        row: Retrieval run of the method.
        difference: Difference of its top-1 accuracy from the reference, or None.

    Returns:
        Values or table cells by the name of the column. Absent values are None or "".
    """
    facts = row.measurements.facts
    metrics = row.metrics
    hits = find_hits(row)
    names = CATEGORY_METRICS if hits.name == "accuracy" else METRICS

    # hits above chance, as a share of a noise ceiling with the same candidates
    ceiling_share = None
    chance = hits.chance or 0
    ceiling = row.measurements.scopes.get(scope("ceiling", ALL), {}).get("top1")
    if ceiling and hits.low is not None and (ceiling.low or 0) > chance:
        has_same_pool = (ceiling.pool, ceiling.chance) == (hits.pool, hits.chance)
        if has_same_pool and hits.value <= ceiling.value:
            ends = np.array([hits.value, hits.low, hits.high], float) - chance
            ends /= np.array([ceiling.value, ceiling.high, ceiling.low], float) - chance
            interval = interval_text(ends[1], ends[2])
            ceiling_share = TableCell(format_number(ends[0]), interval, float(ends[0]))

    # values of a paper, its source, and settings in which it differs from the run
    published_phrases = list[str]()
    published = facts.published
    if published:
        values = [f"{published[name]:.3f}" for name in names if name in published]
        published_phrases = [" / ".join(values), published["source"]]
        published_phrases += published["differs"]

    line: dict[str, Any] = {}
    for name in names:
        line[name] = make_metric_cell(metrics.get(name))
    line[CEILING_SHARE] = ceiling_share
    line["difference"] = difference and make_difference_cell(difference)
    line["p"] = difference and difference.p
    line["selection"] = facts.set_up.get("selection")
    line |= _measure_cost(row)
    line["published"] = "; ".join(published_phrases)
    return line


def _measure_cost(row: ShownRun) -> dict[str, float | None]:
    """Sum up the cost of the trainings whose models a retrieval run has tested.

    Returns:
        Minutes of all trainings (`min`), largest memory of a training (`GB`) and
        largest number of weights in millions (`M weights`), or None if unknown.
    """
    # `cell.took` is the cost of a cell, a model of a subject and a seed
    seconds = memory_bytes = n_weights = 0.0
    for name, variant in map(split_variant, row.measurements.facts.runs):
        with suppress(BrainhiveError):  # deleted runs are left out
            run_folder = find_run(row.folder.path.parents[1], "train-align", str(name))
            for cell in run_folder.measurements().facts.cells.values():
                if variant in ("", cell.variant):
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

    Intervals, titles (`protocol`) and notes of the tables stand in columns
    of their own.
    """
    rows: list[dict[str, Any]] = []
    for table in tables:
        for values, cells in zip(table.as_dict()["rows"], table.rows, strict=True):
            row = {"protocol": table.title} | values
            for column, cell in zip(
                table.columns, map(TableCell.from_value, cells), strict=True
            ):
                if cell.small:
                    row[f"{column}, 95 % CI"] = cell.small
            rows.append(row | {"note": table.note})
    columns = dict.fromkeys(chain.from_iterable(rows))
    return write_csv(list(columns), rows)
