"""Tables of metrics and differences."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from operator import attrgetter
from typing import Any, NamedTuple

from brainhive_cli.core.base import (
    Table,
    TableCell,
    format_number,
    format_p,
    format_tick,
)
from brainhive_cli.core.results import (
    AGREEMENT,
    AGREEMENT_HEADING,
    DESIGN_ALONE,
    SIGNIFICANCE_LEVEL,
    Difference,
    Metric,
    add_footnotes,
    interval_text,
    is_share,
    list_metric_caveats,
    lower_is_better,
    mark,
    metric_title,
    second_interval_heading,
    with_arrow,
)
from brainhive_cli.reports.templates import render

SIGNIFICANCE_LEGEND = "* p ≤ .05, ** p ≤ .01, *** p ≤ .001"
ABSENT = "–"
"""Text of a cell without a value."""
COUNT_COLUMNS = {"n": "tested", "pool": "candidates"}
"""Column heading of each count of a metric, keyed by the field of `Metric`."""
Metrics = Mapping[str, Metric]
"""Metrics by name."""


@dataclass(frozen=True)
class ResultRow:
    """Row of results: a run, a source of pictures, a subject or a model.

    Attributes:
        label: Name of the row.
        metrics: Metrics by name.
        values: Values by name of the metric, whose mean and standard deviation a paper
            reports. These are of subjects, or else of models or compared runs.
        validation: Validation result, with the keys `metric`, `value` and
            `measured_on` (the pictures), or empty.
        reasons: Why the row is not a result, such as a control. Empty for a result.
        extra: Further cells of the row, by heading.
    """

    label: str
    metrics: Metrics = field(default_factory=dict)
    values: Mapping[str, Sequence[float]] = field(default_factory=dict)
    validation: Mapping[str, Any] = field(default_factory=dict)
    reasons: Sequence[str] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)


def make_rows(metrics_by_label: Mapping[str, Metrics]) -> list[ResultRow]:
    """Make a row of each label that has metrics."""
    return [ResultRow(label, row) for label, row in metrics_by_label.items() if row]


class BestLabels(NamedTuple):
    """Best rows in each metric.

    Attributes:
        by_metric: Labels of the best rows by metric. Equal values give several labels.
        criterion: Phrase such as `best on validation`, or "" if nothing was compared.
    """

    by_metric: Mapping[str, Sequence[str]]
    criterion: str


NO_BEST = BestLabels({}, "")
"""Result if no row may be called the best."""


def tabulate_rows(
    title: str,
    rows: Sequence[ResultRow],
    heading: str = "",
    names: Sequence[str] = (),
    best: BestLabels = NO_BEST,
    differences: Sequence[Difference] = (),
    note: str = "",
    section: str = "",
) -> Table:
    """Make a table of results with a row for each label and a column for each metric.

    A table of a single row without further cells, or of more than 8
    metrics, is transposed.

    Args:
        title: Title of the table.
        rows: The rows. Rows without metrics are left out.
        heading: Heading of the column of labels.
        names: Names of the metrics to include. The default includes all metrics.
        best: Labels of the best rows by metric. Their values are bold.
        differences: Tested differences, whose second rows have signs of significance.
        note: Beginning of the note below the table.
        section: Heading under which a page shows the table.

    Returns:
        The table. It is empty if no row has one of the metrics.
    """
    rows = [row for row in rows if row.metrics]
    columns: dict[str, list[Metric]] = {}
    for name in names or list_metric_names(rows):
        metrics = [row.metrics[name] for row in rows if name in row.metrics]
        if metrics and not is_redundant(name, rows):
            columns[name] = metrics
    if not columns:
        return Table(title, (), ())
    table_metrics = list(chain.from_iterable(columns.values()))

    # a count that all metrics share goes into the note, a count that differs by row
    # into a column, and any other count into a row below the labels
    shared_counts = {}
    counts_by_column: dict[str, list[Any]] = {}
    context_rows: dict[str, list[Any]] = {}
    for key, count_heading in COUNT_COLUMNS.items():
        shared_count = find_common_value(table_metrics, key)
        row_counts = [find_common_value(row.metrics.values(), key) for row in rows]
        if shared_count != ABSENT:
            shared_counts[count_heading] = shared_count
        elif ABSENT not in row_counts:
            counts_by_column[count_heading] = row_counts
        else:
            counts = [find_common_value(metrics, key) for metrics in columns.values()]
            context_rows[count_heading] = counts
    chances = [find_common_value(metrics, "chance") for metrics in columns.values()]
    context_rows["chance"] = list(map(_make_tick_cell, chances))
    agreements = [AGREEMENT.get(name, ABSENT) for name in columns]
    context_rows[AGREEMENT_HEADING] = list(map(_make_tick_cell, agreements))
    extra = list(dict.fromkeys(chain.from_iterable(row.extra for row in rows)))
    is_single = len(rows) == 1 and not extra
    if is_single:
        interval_heading = second_interval_heading(table_metrics)
        intervals = map(Metric.second_interval_text, table_metrics)
        context_rows[interval_heading] = list(intervals)

    signs = list_signs(differences)
    grid: list[list[Any]] = [
        [heading, *map(with_arrow, columns), *counts_by_column, *extra]
    ]
    for number, row in enumerate(rows):
        cells: list[Any] = [make_label_cell(row)]
        for name in columns:
            is_best = row.label in best.by_metric.get(name, ())
            sign = signs.get((row.label, name), "")
            cells.append(make_metric_cell(row.metrics.get(name), is_best, sign))
        cells += [counts[number] for counts in counts_by_column.values()]
        grid.append(cells + [row.extra.get(column) for column in extra])

    # add the context below the labels, without rows that have only dashes
    empty_cells = [""] * (len(counts_by_column) + len(extra))
    for row_heading, cells in context_rows.items():
        if set(cells) != {ABSENT}:
            grid.append([row_heading, *cells, *empty_cells])

    # Largest number of metrics that fit side by side on a page of normal width.
    max_columns = 8
    # transpose the table
    if is_single or len(columns) > max_columns:
        grid = list(map(list, zip(*grid, strict=True)))
        value_heading = "value, 95 % CI" if is_single else grid[0][1]
        grid[0][:2] = ["metric", value_heading]

    # if protocols differ, the note describes the protocol of the first row
    has_one_protocol = find_common_value(table_metrics, "protocol") != ABSENT
    note = render(
        "table_note.txt",
        note=note,
        counts=shared_counts,
        metric=table_metrics[0],
        protocol_label="" if has_one_protocol else rows[0].label,
        names=list(columns),
    )
    note = add_footnotes(note, list_metric_caveats(table_metrics))
    return Table(title, grid[0], grid[1:], section=section, note=note)


def list_metric_names(rows: Iterable[ResultRow]) -> list[str]:
    """List the names of all metrics of some rows, in the order of the rows."""
    return list(dict.fromkeys(chain.from_iterable(row.metrics for row in rows)))


def _make_tick_cell(value: Any) -> Any:
    """Make the cell of a chance level or an agreement, or return a dash unchanged."""
    return value if value == ABSENT else TableCell(format_tick(value), value=value)


def make_label_cell(row: ResultRow) -> str | TableCell:
    """Make the first cell of a row, which is grey if the row is not a result."""
    if not row.reasons:
        return row.label
    return TableCell(row.label, f"excluded: {'; '.join(row.reasons)}", is_grey=True)


def list_signs(differences: Iterable[Difference]) -> dict[tuple[str, str], str]:
    """List signs of significance by the label of the second row and the metric."""
    return {
        (difference.second, difference.metric): get_significance_sign(difference)
        for difference in differences
    }


def is_redundant(name: str, rows: Iterable[ResultRow]) -> bool:
    """Return True if a table can leave out a metric that tells nothing new.

    - `map` (mean average precision): it equals `mrr` (mean reciprocal rank) in all
      rows.
    - Other metrics: they are a share, and the chance level is 1 in all rows.

    Args:
        name: Name of the metric.
        rows: Rows of the table. Rows without the metric are ignored.
    """
    rows_with_metric = [row.metrics for row in rows if name in row.metrics]
    if name != "map":
        chances = {metrics[name].chance for metrics in rows_with_metric}
        return is_share(name) and chances == {1}
    for metrics in rows_with_metric:
        if "mrr" not in metrics or metrics["map"].value != metrics["mrr"].value:
            return False
    return True


def find_common_value(metrics: Iterable[Metric], key: str) -> Any:
    """Return the value of an attribute that all metrics share.

    Args:
        metrics: At least one metric.
        key: Name of an attribute of `Metric`.

    Returns:
        The value. A dash if values differ or a value is None.
    """
    values = set(map(attrgetter(key), metrics))
    if len(values) > 1 or None in values:
        return ABSENT
    return values.pop()


def make_metric_cell(
    metric: Metric | None, is_best: bool = False, sign: str = ""
) -> TableCell:
    """Make the table cell of a metric: its value, its interval and footnote signs.

    Args:
        metric: The metric. None gives a dash.
        is_best: True for a bold value.
        sign: Sign of significance, such as `*`.
    """
    if metric is None:
        return TableCell(ABSENT)
    interval = "" if metric.low is None else metric.interval_text()
    signs = mark(sign, metric.caveats)
    return TableCell(
        format_number(metric.value), interval, metric.value, is_best, signs
    )


def difference_table(
    differences: Sequence[Difference],
    titles: Mapping[str, str] | None = None,
    section: str = "",
) -> Table:
    """Make a table of differences between two runs or sources.

    Args:
        differences: Differences in the order of the rows.
        titles: Displayed names of runs or sources by label.
        section: Heading under which a page shows the table.
    """
    first_labels = set()
    tests: list[str] = []
    limits: list[str] = []
    caveats: list[str] = []
    for difference in differences:
        first_labels.add(difference.first)
        tests.append(difference.test)
        limits += difference.limits
        caveats += difference.caveats

    # a first side that all differences share is named in the title, not in the rows
    is_first_shared = len(first_labels) < 2
    rows = []
    for difference in differences:
        first_name = _name_side(difference.first, titles)
        second_name = _name_side(difference.second, titles)
        better_name = ABSENT
        if difference.is_significant:
            better_name = first_name if difference.is_better else second_name
        row: list[Any] = [with_arrow(difference.metric)]
        row += [second_name] if is_first_shared else [first_name, second_name]
        row += [make_difference_cell(difference), difference.n]
        row += [TableCell(format_p(difference.p), value=difference.p), better_name]
        rows.append(row)
    columns = ["metric"] + (["against"] if is_first_shared else ["first", "second"])
    columns += ["difference, 95 % CI", "tested", "p", "better"]

    # the note names the tests, the adjustment of p and the limits of the tests
    sentences = [SIGNIFICANCE_LEGEND]
    sentences += dict.fromkeys(tests)
    if differences:
        sentences.append(describe_adjustment(differences))
    sentences += dict.fromkeys(limits)
    note = add_footnotes("; ".join(sentences) + ".", caveats)

    title = "Comparisons on the same items"
    if differences and is_first_shared:
        first_name = _name_side(differences[0].first, titles)
        title = f"Comparison of {first_name} with the others, on the same items"
    return Table(title, columns, rows, section=section, note=note)


def _name_side(label: str, titles: Mapping[str, str] | None) -> str:
    """Return the title of a label, or else the label, cut to its end if it is long."""
    if titles and label in titles:
        return titles[label]
    # Longest name of a run in a table. A longer name is cut to its end.
    max_name_letters = 40
    return label if len(label) <= max_name_letters else f"…{label[-9:]}"


def make_difference_cell(difference: Difference) -> TableCell:
    """Make a table cell of a difference, with its interval and its footnote signs."""
    interval = ""
    if difference.low is not None:
        interval = interval_text(difference.low, difference.high)
    signs = mark(get_significance_sign(difference), difference.caveats)
    value = difference.difference
    return TableCell(f"{value:+.3f}", interval, value, mark=signs)


def describe_adjustment(differences: Sequence[Difference]) -> str:
    """Describe how the p values of a table are adjusted for the number of tests.

    Args:
        differences: Differences of a table, at least one. The p values of all were
            adjusted together.

    Returns:
        Phrase that names the method and the tests, or `p not adjusted`.
    """
    n_tests = differences[0].tests
    if n_tests < 2:
        return "p not adjusted"
    n_tests_in_table = sum(difference.p is not None for difference in differences)
    family = f"{n_tests} tests"
    if n_tests_in_table == n_tests:
        family = f"all {n_tests} tests of this table"
    return f"p adjusted by Benjamini–Hochberg over {family}: {differences[0].tests_of}"


def get_significance_sign(difference: Difference) -> str:
    """Return the significance sign of a p value: `***`, `**`, `*` or an empty text."""
    if difference.p is None:
        return ""
    # Largest p value of each sign of significance.
    for level, sign in ((0.001, "***"), (0.01, "**"), (SIGNIFICANCE_LEVEL, "*")):
        if difference.p <= level:
            return sign
    return ""


def choose_best(rows: Iterable[ResultRow]) -> BestLabels:
    """Choose the best row in each metric.

    The highest of several test scores is biased upwards. The choice therefore uses
    validation values if they are comparable and not all equal. Metrics that were
    selected on test, or that only one row has, are not compared.
    """
    rows_by_name: dict[str, list[ResultRow]] = {}
    splits = set()
    for row in rows:
        for name, metric in row.metrics.items():
            if not metric.selected:
                rows_by_name.setdefault(name, []).append(row)
                splits.add(metric.split)
    compared = {name: group for name, group in rows_by_name.items() if len(group) > 1}
    if not compared:
        return NO_BEST

    # validation ranks rows that have the same metric and pictures, and other values
    kinds = []
    values = set()
    for row in chain.from_iterable(compared.values()):
        result = row.validation
        kinds.append((result.get("metric", ""), result.get("measured_on")))
        values.add(result.get("value"))
    validation_metric = ""
    if kinds.count(kinds[0]) == len(kinds) and len(values) > 1:
        validation_metric = kinds[0][0]

    best = {}
    for name, group in compared.items():
        scores = {row.label: row.metrics[name].value for row in group}
        if validation_metric:
            scores = {row.label: row.validation["value"] for row in group}
        is_loss = lower_is_better(validation_metric or name)
        best_score = min(scores.values()) if is_loss else max(scores.values())
        best[name] = [label for label, score in scores.items() if score == best_score]

    counts = sorted(set(map(len, compared.values())))
    criterion = f"best, chosen on test among {' or '.join(map(str, counts))}"
    if validation_metric:
        criterion = f"best on validation ({metric_title(validation_metric)})"
    elif splits == {"validation"}:
        criterion = "best on validation"
    return BestLabels(best, criterion)


def published_tables(
    published: Mapping[str, Any] | None,
    scopes: Mapping[str, Mapping[str, Metric]] | None = None,
) -> list[Table]:
    """Make a table of the results that a paper reports for a method.

    If the run measured how well the design alone does, the table has a row for it.

    Args:
        published: Published values by metric, with the keys `source` (paper) and
            `differs` (list of differences from the set-up of the run), or None.
        scopes: Metrics of the run by scope and name.

    Returns:
        A list with the table, or an empty list.
    """
    if not published:
        return []
    by_design = (scopes or {}).get(DESIGN_ALONE, {})
    columns = []
    cells: list[Any] = []
    design_cells: list[Any] = []
    for name, value in published.items():
        if isinstance(value, int | float):
            columns.append(with_arrow(name))
            cells.append(value)
            design_cells.append(by_design[name].value if name in by_design else ABSENT)
    columns.append("how its set-up differs")
    rows = [[*cells, "; ".join(published["differs"]) or ABSENT]]
    if by_design:
        rows.append([*design_cells, "the design alone, without signals, in this run"])
    # Title before the source of published values.
    published_title = (
        "Published results on test stimuli (set-up not checked by Brainhive)"
    )
    title = f"{published_title}: {published['source']}"
    return [Table(title, columns, rows)]


def describe_metric(metric: Metric) -> str:
    """Describe a metric by its name, value, interval and chance."""
    return render("metric.txt", metric=metric)


def describe_sample(count: int, total: int, noun: str, seed: int) -> str:
    """Describe how the stimuli of a sheet of pictures were chosen.

    Args:
        count: Number of stimuli on the sheet.
        total: Number of stimuli that were tested.
        noun: Name of the stimuli in the plural, such as `test pictures`.
        seed: Seed of the draw.
    """
    if count == total:
        return f"All {total:,} {noun}, in random order"
    return f"{count} of {total:,} {noun}, drawn at random (seed {seed})"
