"""Tables of metrics and differences, and the templates that write them as sentences."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from brainhive_cli.core import documents
from brainhive_cli.core.facts import SIGNIFICANCE_LEVEL, Difference, Facts
from brainhive_cli.core.measurements import (
    AGREEMENT,
    AGREEMENT_HEADING,
    CAVEATS,
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
from brainhive_cli.core.tables import (
    CELL_ESCAPES,
    Table,
    TableCell,
    escape_markdown,
    format_number,
    format_p,
    format_tick,
    make_visible,
)

HERE = Path(__file__).parent
LATEX = str.maketrans(documents.read(HERE / "latex.json", dict[str, str]))
"""LaTeX code of characters that are reserved or missing in LaTeX."""
SIGNS = "".join(CAVEATS.values())
SPACES = re.compile(rf" +([.,;:){SIGNS}])(?!\d)|(?<=\() +")
"""Spaces before a stop, comma or footnote sign, and spaces after an opening bracket.
The blocks of a template leave them.
"""
SIGNIFICANCE_SIGNS = ((0.001, "***"), (0.01, "**"), (SIGNIFICANCE_LEVEL, "*"))
"""Largest p value of each sign of significance."""
SIGNIFICANCE_LEGEND = "* p ≤ .05, ** p ≤ .01, *** p ≤ .001"
MAX_COLUMNS = 8
"""Largest number of metrics that fit side by side on a page of normal width."""
PUBLISHED_TITLE = "Published results on test stimuli (set-up not checked by Brainhive)"
"""Title before the source of published values. The reader judges whether they are
comparable.
"""
ABSENT = "–"
"""Text of a cell without a value."""
MAX_NAME_LETTERS = 40
"""Longest name of a run in a table. A longer name is cut to its end."""
COUNT_COLUMNS = {"n": "tested", "pool": "candidates"}
"""Column heading of each count of a metric, keyed by the field of `Metric`."""
Metrics = Mapping[str, Metric]


class BestLabels(NamedTuple):
    """Best variants or runs in each metric.

    Attributes:
        by_metric: Labels of the best by metric. Several labels have equal values. A
            metric without a best is not a key.
        criterion: Way of choosing: on validation, or among a number of test scores.
    """

    by_metric: Mapping[str, Sequence[str]]
    criterion: str


@cache
def templates() -> Any:
    """Open the templates of pages and sentences, with their filters."""
    from jinja2 import Environment, FileSystemLoader, select_autoescape

    # only HTML is escaped, and blocks leave neither line breaks nor indentation
    environment = Environment(
        autoescape=select_autoescape(["html"]),
        finalize=make_visible,
        loader=FileSystemLoader(HERE),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["agreement"] = AGREEMENT
    environment.filters |= {
        "amount": write_amount,
        "signs": lambda caveats: mark("", caveats),
        "brief": format_tick,
        "cell": TableCell.from_value,
        "interval_ends": write_interval_ends,
        "number": format_number,
        "p": format_p,
        "signed_difference": write_difference,
        "markdown": escape_markdown,
        "tex": lambda text: str(text).translate(CELL_ESCAPES).translate(LATEX),
        "metric_title": metric_title,
    }
    return environment


@cache
def sentence_templates() -> Any:
    """Open the templates of sentences, in which a line break is a space."""
    return templates().overlay(trim_blocks=False)  # has its own cache of templates


def render(template: str, **values: Any) -> str:
    """Fill a template of sentences and return the text on one line.

    Args:
        template: File name of the template.
        **values: Variables of the template.
    """
    text = sentence_templates().get_template(template).render(**values)
    one_line = " ".join(text.split())
    return SPACES.sub(lambda match: match[1] or "", one_line)


def write_amount(value: float, name: str) -> str:
    """Write a value of a metric, in percent if the metric is a share."""
    return f"{100 * value:.3g} %" if is_share(name) else format_number(value)


def write_interval_ends(metric: Metric) -> str:
    """Write the ends of the interval of a metric, in percent if it is a share."""
    assert metric.low is not None and metric.high is not None
    if not is_share(metric.name):
        return metric.interval_text()

    # two digits, but 100 and not 1e+02
    low = float(f"{100 * metric.low:.2g}")
    high = float(f"{100 * metric.high:.2g}")
    return f"{low:g} to {high:g} %"


def write_difference(value: float, name: str) -> str:
    """Write a signed difference, in percentage points if the metric is a share."""
    return f"{100 * value:+.1f} points" if is_share(name) else f"{value:+.3f}"


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
    """Lay out metrics with their intervals.

    A row is a label (of a run, subject or variant) and a column is a metric. If there
    is one label, or if more metrics exist than fit side by side, rows and columns are
    exchanged. Values that all metrics share (counts, protocol, kind of interval) are
    written in the note.

    Args:
        title: Title of the table.
        rows: Metrics by label.
        heading: Heading of the column of labels.
        names: Names of the metrics to include. By default all.
        best: Labels of the best by metric, which are bold.
        marks: Sign of significance by label and metric.
        note: Beginning of the note below the table.
        section: Heading under which a page shows the table.
    """
    # list the metrics that at least one label has
    rows = {label: metrics for label, metrics in rows.items() if metrics}
    metrics_by_name = defaultdict[str, list[Metric]](list)
    for metrics in rows.values():
        for name, metric in metrics.items():
            metrics_by_name[name].append(metric)
    names = [
        name
        for name in names or metrics_by_name
        if name in metrics_by_name and not is_redundant(name, rows.values())
    ]
    table_metrics: list[Metric] = []
    for name in names:
        table_metrics += metrics_by_name[name]
    if not table_metrics:
        return Table(title, (), ())

    # a count that all metrics share belongs into the note; a count that differs by
    # label becomes a column, and any other count becomes a row below the labels
    shared_counts = {}
    counts_by_column: dict[str, list[Any]] = {}
    context_rows: dict[str, list[Any]] = {}
    for field, count_heading in COUNT_COLUMNS.items():
        shared_count = find_common_value(table_metrics, field)
        label_counts = [
            find_common_value(metrics.values(), field) for metrics in rows.values()
        ]
        if shared_count != ABSENT:
            shared_counts[count_heading] = shared_count
        elif ABSENT not in label_counts:
            counts_by_column[count_heading] = label_counts
        else:
            context_rows[count_heading] = [
                find_common_value(metrics_by_name[name], field) for name in names
            ]
    context_rows |= _list_context_rows(names, metrics_by_name)
    if len(rows) == 1:
        context_rows[second_interval_heading(table_metrics)] = [
            metric.second_interval_text() for metric in table_metrics
        ]

    # write a row for each label
    grid: list[list[Any]] = [[heading, *map(with_arrow, names), *counts_by_column]]
    for row, (label, metrics) in enumerate(rows.items()):
        cells: list[Any] = [label]
        for name in names:
            is_best = best is not None and label in best.get(name, ())
            sign = marks.get((label, name), "") if marks else ""
            cells.append(with_interval(metrics.get(name), is_best, sign))
        cells += [label_counts[row] for label_counts in counts_by_column.values()]
        grid.append(cells)

    # write the context below them, without rows of dashes
    empty_cells = [""] * len(counts_by_column)
    for row_heading, cells in context_rows.items():
        if set(cells) != {ABSENT}:
            grid.append([row_heading, *cells, *empty_cells])

    # exchange rows and columns if there is one label, or if there are many metrics
    if len(rows) == 1 or len(names) > MAX_COLUMNS:
        grid = [list(column) for column in zip(*grid, strict=True)]
        value_heading = "value, 95 % CI" if len(rows) == 1 else grid[0][1]
        grid[0][:2] = ["metric", value_heading]

    # write the note; if protocols differ, it describes the first label
    has_one_protocol = find_common_value(table_metrics, "protocol") != ABSENT
    note = render(
        "table_note.txt",
        note=note,
        counts=shared_counts,
        metric=table_metrics[0],
        protocol_label="" if has_one_protocol else next(iter(rows)),
        names=names,
    )
    note = add_footnotes(note, list_metric_caveats(table_metrics))
    return Table(title, grid[0], grid[1:], section=section, note=note)


def _list_context_rows(
    names: Sequence[str], metrics_by_name: Mapping[str, Sequence[Metric]]
) -> dict[str, list[Any]]:
    """List the chance level of each metric, and its published agreement with people.

    Args:
        names: Names of the metrics, in the order of the cells.
        metrics_by_name: Metrics of all labels by name.

    Returns:
        Cells by the heading of the row. A dash stands for an absent value, and for
        chance levels that differ between labels.
    """
    context_rows: dict[str, list[Any]] = {"chance": [], AGREEMENT_HEADING: []}
    for name in names:
        chance = find_common_value(metrics_by_name[name], "chance")
        agreement: Any = AGREEMENT.get(name, ABSENT)
        for heading, value in (("chance", chance), (AGREEMENT_HEADING, agreement)):
            cell = value
            if value != ABSENT:
                cell = TableCell(format_tick(value), value=value)
            context_rows[heading].append(cell)
    return context_rows


def is_redundant(name: str, rows: Iterable[Metrics]) -> bool:
    """Return True if a metric repeats another metric, or if its chance is 1.

    mAP equals MRR if each signal has one relevant picture. Top-5 of five candidates is
    always 1.
    """
    rows_with_metric = [metrics for metrics in rows if name in metrics]
    if name == "map":
        return all(
            "mrr" in metrics and metrics["map"].value == metrics["mrr"].value
            for metrics in rows_with_metric
        )
    chances = {metrics[name].chance for metrics in rows_with_metric}
    return is_share(name) and chances == {1}


def find_common_value(metrics: Iterable[Metric], field: str) -> Any:
    """Return the value of a field if all metrics have the same one, else a dash."""
    values = {getattr(metric, field) for metric in metrics}
    if len(values) > 1 or None in values:
        return ABSENT
    return values.pop()


def with_interval(
    metric: Metric | None, is_best: bool = False, sign: str = ""
) -> TableCell:
    """Make a table cell of a metric: value, interval and footnote signs.

    Args:
        metric: The metric. None gives a dash.
        is_best: True if the value is bold.
        sign: Sign of significance.
    """
    if metric is None:
        return TableCell(ABSENT)
    interval = "" if metric.low is None else metric.interval_text()
    signs = mark(sign, metric.caveats)
    return TableCell(
        format_number(metric.value), interval, metric.value, is_best, signs
    )


def difference_table(
    compared: Sequence[Difference],
    titles: Mapping[str, str] | None = None,
    section: str = "",
) -> Table:
    """Lay out differences: a row each, with interval, p value and the better side.

    Args:
        compared: Differences in the order of the rows.
        titles: Names for people by label. A label without a title stands for itself.
        section: Heading under which a page shows the table.
    """
    # if all differences share their first side, the title names it
    has_one_first = len({difference.first for difference in compared}) < 2
    rows = []
    for difference in compared:
        first = _name_side(difference.first, titles)
        second = _name_side(difference.second, titles)
        better = ABSENT
        if difference.is_significant:
            better = first if difference.is_better else second
        rows.append(
            [
                with_arrow(difference.metric),
                *([second] if has_one_first else [first, second]),
                difference_cell(difference),
                difference.n,
                TableCell(format_p(difference.p), value=difference.p),
                better,
            ]
        )
    columns = ["metric"] + (["against"] if has_one_first else ["first", "second"])
    columns += ["difference, 95 % CI", "tested", "p", "better"]

    # the note names the tests, the adjustment and the limits of the tests
    sentences = [SIGNIFICANCE_LEGEND]
    sentences += dict.fromkeys(difference.test for difference in compared)
    if compared:
        sentences.append(adjustment_text(compared))
    limits: list[str] = []
    caveats: list[str] = []
    for difference in compared:
        limits += difference.limits
        caveats += difference.caveats
    sentences += dict.fromkeys(limits)
    note = add_footnotes("; ".join(sentences) + ".", caveats)

    title = "Comparisons on the same items"
    if compared and has_one_first:
        first = _name_side(compared[0].first, titles)
        title = f"Comparison of {first} with the others, on the same items"
    return Table(title, columns, rows, section=section, note=note)


def _name_side(label: str, titles: Mapping[str, str] | None) -> str:
    """Name one side of a difference: its title, or its label without the beginning."""
    if titles and label in titles:
        return titles[label]
    return label if len(label) <= MAX_NAME_LETTERS else f"…{label[-9:]}"


def difference_cell(difference: Difference) -> TableCell:
    """Make a table cell of a difference, with its interval and signs."""
    interval = ""
    if difference.low is not None:
        interval = interval_text(difference.low, difference.high)
    signs = mark(mark_of(difference), difference.caveats)
    value = difference.difference
    return TableCell(f"{value:+.3f}", interval, value, mark=signs)


def adjustment_text(compared: Sequence[Difference]) -> str:
    """Describe the tests over which the p values of some differences are adjusted.

    Args:
        compared: Differences of one table, of which there is at least one.
    """
    # one test needs no adjustment
    first = compared[0]
    if first.tests < 2:
        return "p not adjusted"

    # the family of tests may be larger than the table
    n_tests_in_table = sum(difference.p is not None for difference in compared)
    family = f"{first.tests} tests"
    if n_tests_in_table == first.tests:
        family = f"all {first.tests} tests of this table"
    return f"p adjusted by Benjamini–Hochberg over {family}: {first.tests_of}"


def mark_of(difference: Difference) -> str:
    """Return the sign of significance. Empty if the difference is not significant."""
    if difference.p is None:
        return ""
    for level, sign in SIGNIFICANCE_SIGNS:
        if difference.p <= level:
            return sign
    return ""


def choose_best(
    label_metrics: Mapping[str, Metrics], validation: Mapping[str, Mapping[str, Any]]
) -> BestLabels:
    """Choose the best variant or run in each metric.

    The highest of several test scores is biased upwards. If all trainings were
    validated on the same pictures, the training that is best on validation is therefore
    the best in every metric. Metrics that were selected on the test set do not take
    part. A metric needs values of at least two labels.

    Args:
        label_metrics: Metrics of each variant or run by its label.
        validation: Validation results of each training by label, as in
            `TrainedRun.validation`.
    """
    # collect the values by metric and label, without metrics selected on test
    values_by_name: dict[str, dict[str, float]] = {}
    splits = set()
    for label, metrics in label_metrics.items():
        for name, metric in metrics.items():
            if not metric.selected:
                values_by_name.setdefault(name, {})[label] = metric.value
                splits.add(metric.split)
    comparable_values = {
        name: values for name, values in values_by_name.items() if len(values) > 1
    }
    if not comparable_values:
        return BestLabels({}, "")

    # validation decides if all trainings were validated by the same metric and
    # pictures; runs of a single training share one value, which decides nothing
    labels = set[str]().union(*comparable_values.values())
    validations = [validation.get(label, {}) for label in labels]
    kinds = [
        (result.get("metric", ""), result.get("measured_on")) for result in validations
    ]
    validation_metric, _ = kinds[0]
    is_validated = False
    if validation_metric and kinds.count(kinds[0]) == len(kinds):
        is_validated = len({result["value"] for result in validations}) > 1

    # choose the labels with the best score, all of them if scores are equal
    best = {}
    for name, values in comparable_values.items():
        scores = values
        if is_validated:
            scores = {label: validation[label]["value"] for label in values}
        is_loss = lower_is_better(validation_metric if is_validated else name)
        best_score = min(scores.values()) if is_loss else max(scores.values())
        best[name] = [label for label, score in scores.items() if score == best_score]

    # describe the choice
    if is_validated:
        return BestLabels(
            best, f"best on validation ({metric_title(validation_metric)})"
        )
    if splits == {"validation"}:
        return BestLabels(best, "best on validation")
    counts = sorted({len(values) for values in comparable_values.values()})
    choices = " or ".join(map(str, counts))
    return BestLabels(best, f"best, chosen on test among {choices}")


def choose_best_part(facts: Facts, part_metrics: Mapping[str, Metrics]) -> BestLabels:
    """Choose the best of the variants or cells of a run.

    If the facts say that the parts must not be compared, no part is the best.
    """
    if facts.not_compared:
        return BestLabels({}, "")
    validation = {name: variant.validation for name, variant in facts.variants.items()}
    return choose_best(part_metrics, validation)


def published_tables(published: Mapping[str, Any] | None) -> list[Table]:
    """Lay out the values that a paper reports, and how its set-up differs.

    Args:
        published: Values by metric, with the keys `source` and `differs`. If there is
            nothing published, the result is empty.
    """
    if not published:
        return []
    values = {
        with_arrow(name): value
        for name, value in published.items()
        if isinstance(value, int | float)
    }
    difference = "; ".join(published["differs"]) or ABSENT
    title = f"{PUBLISHED_TITLE}: {published['source']}"
    columns = [*values, "how its set-up differs"]
    return [Table(title, columns, [[*values.values(), difference]])]


def describe_metric(metric: Metric) -> str:
    """Write a metric with its name, value, interval and chance."""
    return render("metric.txt", metric=metric)


def describe_sample(count: int, total: int, noun: str, seed: int) -> str:
    """Describe how the stimuli of a sheet were chosen, so that readers can trust them.

    Args:
        count: Number of stimuli on the sheet.
        total: Number of stimuli that were tested.
        noun: Name of the stimuli in the plural, such as `test pictures`.
        seed: Seed of the draw.
    """
    if count == total:
        return f"All {total:,} {noun}, in random order"
    return f"{count} of {total:,} {noun}, drawn at random (seed {seed})"
