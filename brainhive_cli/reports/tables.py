"""Tables of metrics and differences, and the templates that write them as sentences."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, partial
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

from brainhive_cli.core import documents
from brainhive_cli.core.facts import SIGNIFICANCE_LEVEL, Difference, Facts
from brainhive_cli.core.measurements import (
    AGREEMENT,
    AGREEMENT_HEADING,
    BASELINE_CLASSIFIERS,
    CAVEATS,
    DESIGN_ALONE,
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
"""Spaces that the blocks of a template leave before punctuation marks and footnote
signs, and after an opening bracket.
"""
SIGNIFICANCE_SIGNS = ((0.001, "***"), (0.01, "**"), (SIGNIFICANCE_LEVEL, "*"))
"""Largest p value of each sign of significance."""
SIGNIFICANCE_LEGEND = "* p ≤ .05, ** p ≤ .01, *** p ≤ .001"
MAX_COLUMNS = 8
"""Largest number of metrics that fit side by side on a page of normal width."""
PUBLISHED_TITLE = "Published results on test stimuli (set-up not checked by Brainhive)"
"""Title before the source of published values."""
ABSENT = "–"
"""Text of a cell without a value."""
MAX_NAME_LETTERS = 40
"""Longest name of a run in a table. A longer name is cut to its end."""
COUNT_COLUMNS = {"n": "tested", "pool": "candidates"}
"""Column heading of each count of a metric, keyed by the field of `Metric`."""
Metrics = Mapping[str, Metric]
"""Metrics by name."""


class BestLabels(NamedTuple):
    """Best variants or runs in each metric.

    Attributes:
        by_metric: Labels of the best variants or runs by metric. Equal values give
            several labels.
        criterion: Phrase such as `best on validation`, or "" if nothing was compared.
    """

    by_metric: Mapping[str, Sequence[str]]
    criterion: str


@cache
def templates() -> Any:
    """Return the Jinja environment, which escapes values only in HTML templates."""
    from jinja2 import Environment, FileSystemLoader, select_autoescape

    environment = Environment(
        autoescape=select_autoescape(["html"]),
        finalize=make_visible,
        loader=FileSystemLoader(HERE),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"agreement": AGREEMENT, "classifiers": BASELINE_CLASSIFIERS}
    environment.filters |= {
        "amount": write_amount,
        "signs": lambda caveats: mark("", caveats),
        "brief": format_tick,
        "cell": TableCell.from_value,
        "capitalize_first": lambda text: text[:1].upper() + text[1:],
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
    """Return a Jinja environment that keeps the line breaks after blocks."""
    # an overlay has its own cache of templates
    return templates().overlay(trim_blocks=False)


def render(template: str, **values: Any) -> str:
    """Fill a template, and return the text on one line.

    Args:
        template: File name of the template.
        **values: Variables of the template.
    """
    text = sentence_templates().get_template(template).render(**values)
    one_line = " ".join(text.split())
    return SPACES.sub(lambda match: match[1] or "", one_line)


def write_amount(value: float, name: str) -> str:
    """Format a value, in percent if the metric called `name` is a share."""
    return f"{100 * value:.3g} %" if is_share(name) else format_number(value)


def write_interval_ends(metric: Metric) -> str:
    """Format the interval of a metric, in percent if the metric is a share."""
    assert metric.low is not None and metric.high is not None
    if not is_share(metric.name):
        return metric.interval_text()

    # two digits, but 100 and not 1e+02
    low = float(f"{100 * metric.low:.2g}")
    high = float(f"{100 * metric.high:.2g}")
    return f"{low:g} to {high:g} %"


def write_difference(value: float, name: str) -> str:
    """Format a signed difference, in percentage points if the metric is a share."""
    return f"{100 * value:+.1f} points" if is_share(name) else f"{value:+.3f}"


def metric_table(
    title: str,
    rows: Mapping[str, Metrics],
    heading: str = "",
    names: Sequence[str] = (),
    best: Mapping[str, Sequence[str]] | None = None,
    signs: Mapping[tuple[str, str], str] | None = None,
    note: str = "",
    section: str = "",
) -> Table:
    """Make a table of metrics with a row for each label and a column for each metric.

    A table with a single label or with more than `MAX_COLUMNS` metrics is transposed.

    Args:
        title: Title of the table.
        rows: Metrics by label, which is a run, subject or variant.
        heading: Heading of the column of labels.
        names: Names of the metrics to include. The default includes all metrics.
        best: Labels of the best rows by metric. Their values are bold.
        signs: Sign of significance, such as `*`, by label and metric.
        note: Beginning of the note below the table.
        section: Heading under which a page shows the table.

    Returns:
        The table. It is empty if no label has one of the metrics.
    """
    # group the metrics by label and by name
    metrics_by_label: dict[str, list[Metric]] = {}
    metrics_by_name = defaultdict[str, list[Metric]](list)
    for label, metrics in rows.items():
        if metrics:
            metrics_by_label[label] = list(metrics.values())
        for name, metric in metrics.items():
            metrics_by_name[name].append(metric)
    columns: dict[str, list[Metric]] = {}
    table_metrics: list[Metric] = []
    for name in names or metrics_by_name:
        if name in metrics_by_name and not is_redundant(name, rows.values()):
            columns[name] = metrics_by_name[name]
            table_metrics += metrics_by_name[name]
    if not columns:
        return Table(title, (), ())

    # a count that all metrics share goes into the note, a count that differs by label
    # into a column, and any other count into a row
    shared_counts = {}
    counts_by_column: dict[str, list[Any]] = {}
    context_rows: dict[str, list[Any]] = {}
    for field, count_heading in COUNT_COLUMNS.items():
        find_count = partial(find_common_value, field=field)
        shared_count = find_count(table_metrics)
        label_counts = list(map(find_count, metrics_by_label.values()))
        if shared_count != ABSENT:
            shared_counts[count_heading] = shared_count
        elif ABSENT not in label_counts:
            counts_by_column[count_heading] = label_counts
        else:
            context_rows[count_heading] = list(map(find_count, columns.values()))
    context_rows |= _list_context_rows(columns)
    is_single = len(metrics_by_label) == 1
    if is_single:
        interval_heading = second_interval_heading(table_metrics)
        intervals = map(Metric.second_interval_text, table_metrics)
        context_rows[interval_heading] = list(intervals)

    headings: list[Any] = [heading]
    headings += map(with_arrow, columns)
    headings += counts_by_column
    grid = [headings]
    for row, label in enumerate(metrics_by_label):
        cells: list[Any] = [label]
        for name in columns:
            is_best = best is not None and label in best.get(name, ())
            sign = signs.get((label, name), "") if signs else ""
            cells.append(make_metric_cell(rows[label].get(name), is_best, sign))
        for label_counts in counts_by_column.values():
            cells.append(label_counts[row])
        grid.append(cells)

    # add the context below the labels, without rows that have only dashes
    empty_cells = [""] * len(counts_by_column)
    for row_heading, cells in context_rows.items():
        if set(cells) != {ABSENT}:
            grid.append([row_heading] + cells + empty_cells)

    # transpose the table
    if is_single or len(columns) > MAX_COLUMNS:
        grid = list(map(list, zip(*grid, strict=True)))
        value_heading = "value, 95 % CI" if is_single else grid[0][1]
        grid[0][:2] = ["metric", value_heading]

    # if protocols differ, the note describes the protocol of the first label
    has_one_protocol = find_common_value(table_metrics, "protocol") != ABSENT
    note = render(
        "table_note.txt",
        note=note,
        counts=shared_counts,
        metric=table_metrics[0],
        protocol_label="" if has_one_protocol else next(iter(metrics_by_label)),
        names=list(columns),
    )
    note = add_footnotes(note, list_metric_caveats(table_metrics))
    return Table(title, grid[0], grid[1:], section=section, note=note)


def _list_context_rows(
    metrics_by_name: Mapping[str, Sequence[Metric]],
) -> dict[str, list[Any]]:
    """Make two rows of a table: chance levels, and published agreement with people.

    Args:
        metrics_by_name: Results of each metric (column), one for each label.

    Returns:
        Table cells by the heading of the row. A dash stands for an absent value, and
        for chance levels that differ between results.
    """
    context_rows: dict[str, list[Any]] = {"chance": [], AGREEMENT_HEADING: []}
    for name, metrics in metrics_by_name.items():
        chance = find_common_value(metrics, "chance")
        agreement: Any = AGREEMENT.get(name, ABSENT)
        for heading, value in (("chance", chance), (AGREEMENT_HEADING, agreement)):
            cell = value
            if value != ABSENT:
                cell = TableCell(format_tick(value), value=value)
            context_rows[heading].append(cell)
    return context_rows


def is_redundant(name: str, rows: Iterable[Metrics]) -> bool:
    """Return True if a table can leave out a metric that tells nothing new.

    - `map` (mean average precision): it equals `mrr` (mean reciprocal rank) in all
      rows.
    - Other metrics: they are a share, and the chance level is 1 in all rows.

    Args:
        name: Name of the metric.
        rows: Metrics by name for each row. Rows without the metric are ignored.
    """
    rows_with_metric = [metrics for metrics in rows if name in metrics]
    if name != "map":
        chances = {metrics[name].chance for metrics in rows_with_metric}
        return is_share(name) and chances == {1}
    for metrics in rows_with_metric:
        if "mrr" not in metrics or metrics["map"].value != metrics["mrr"].value:
            return False
    return True


def find_common_value(metrics: Iterable[Metric], field: str) -> Any:
    """Return the value of an attribute that all metrics share.

    Args:
        metrics: At least one metric.
        field: Name of an attribute of `Metric`.

    Returns:
        The value. A dash if values differ or a value is None.
    """
    values = set(map(attrgetter(field), metrics))
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
    """Make a table of differences between two runs, sources or variants.

    Args:
        differences: Differences in the order of the rows.
        titles: Displayed names of runs, sources or variants by label.
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
    return label if len(label) <= MAX_NAME_LETTERS else f"…{label[-9:]}"


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
    for level, sign in SIGNIFICANCE_SIGNS:
        if difference.p <= level:
            return sign
    return ""


def choose_best(
    label_metrics: Mapping[str, Metrics], validation: Mapping[str, Mapping[str, Any]]
) -> BestLabels:
    """Choose the best variant or run in each metric.

    The highest of several test scores is biased upwards. The choice therefore uses
    validation values if they are comparable and not all equal.

    Args:
        label_metrics: Metrics of each variant or run by its label. Metrics that were
            selected on test, or that only one label has, are not compared.
        validation: Validation result by label, with the keys `metric`, `value` and
            `measured_on` (the pictures). Absent or {} without validation.
    """
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

    labels = set[str]().union(*comparable_values.values())
    validation_metric = _find_validation_metric(labels, validation)
    best = {}
    for name, values in comparable_values.items():
        scores = values
        if validation_metric:
            scores = {label: validation[label]["value"] for label in values}
        is_loss = lower_is_better(validation_metric or name)
        best_score = min(scores.values()) if is_loss else max(scores.values())
        best[name] = [label for label, score in scores.items() if score == best_score]

    if validation_metric:
        title = metric_title(validation_metric)
        return BestLabels(best, f"best on validation ({title})")
    if splits == {"validation"}:
        return BestLabels(best, "best on validation")
    counts = sorted(set(map(len, comparable_values.values())))
    choices = " or ".join(map(str, counts))
    return BestLabels(best, f"best, chosen on test among {choices}")


def _find_validation_metric(
    labels: Iterable[str], validation: Mapping[str, Mapping[str, Any]]
) -> str:
    """Return the validation metric that can rank labels, or "".

    All labels must have the same metric and pictures, and not all the same value.
    """
    kinds = []
    values = set()
    for label in labels:
        result = validation.get(label, {})
        kinds.append((result.get("metric", ""), result.get("measured_on")))
        values.add(result.get("value"))
    if kinds.count(kinds[0]) < len(kinds) or len(values) < 2:
        return ""
    metric_name: str = kinds[0][0]
    return metric_name


def choose_best_part(facts: Facts, part_metrics: Mapping[str, Metrics]) -> BestLabels:
    """Choose the best of the variants or cells of a run.

    Args:
        facts: Facts about the run. Nothing is the best if `not_compared` is not empty.
        part_metrics: Metrics by the name of the variant or cell. A cell is a trained
            model of a subject and a seed.
    """
    if facts.not_compared:
        return BestLabels({}, "")
    validation = {name: variant.validation for name, variant in facts.variants.items()}
    return choose_best(part_metrics, validation)


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
    title = f"{PUBLISHED_TITLE}: {published['source']}"
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
