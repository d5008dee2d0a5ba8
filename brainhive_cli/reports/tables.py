"""Tables of metrics and of their differences; templates of sentences and pages, with
the filters that write numbers in them.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from brainhive_cli.core import documents
from brainhive_cli.core.facts import LEVEL, Difference, Facts
from brainhive_cli.core.measurements import (
    AGREEMENT,
    AGREES,
    CAVEATS,
    Metric,
    add_footnotes,
    beside_heading,
    caveats_of,
    interval_text,
    is_share,
    lower_is_better,
    mark,
    shown,
    with_arrow,
)
from brainhive_cli.core.tables import (
    IN_CELLS,
    Table,
    TableCell,
    brief,
    escape_markdown,
    make_visible,
    number,
    p_text,
)

HERE = Path(__file__).parent
LATEX = str.maketrans(documents.read(HERE / "latex.json", dict[str, str]))
"""LaTeX for characters that it reserves or lacks."""
SIGNS = "".join(CAVEATS.values())
SPACES = re.compile(rf" +([.,;:){SIGNS}])(?!\d)|(?<=\() +")
"""Blanks before a stop, comma or footnote, and behind a bracket, which blocks of a
template leave.
"""
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
BestCells = tuple[Mapping[str, Sequence[str]], str]
"""Labels of the best by metric, several if they are equal, and the way of choosing: on
validation, or on test among a number of candidates. A metric without a best has no
entry.
"""


@cache
def templates() -> Any:
    """Open the templates of sentences and pages, with the filters that write
    numbers.
    """
    from jinja2 import Environment, FileSystemLoader, select_autoescape

    # only HTML is escaped; blocks leave neither line breaks nor indentation
    environment = Environment(
        autoescape=select_autoescape(["html"]),
        finalize=make_visible,
        loader=FileSystemLoader(HERE),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["agreement"] = AGREEMENT
    # filters by the names that templates use
    environment.filters |= {
        "amount": write_amount,
        "signs": lambda caveats: mark("", caveats),
        "brief": brief,
        "cell": TableCell.of,
        "ends": write_ends,
        "number": number,
        "p": p_text,
        "signed": write_difference,
        "markdown": escape_markdown,
        "tex": lambda text: str(text).translate(IN_CELLS).translate(LATEX),
        "shown": shown,
    }
    return environment


@cache
def sentences() -> Any:
    """Open the templates of sentences, in which the end of a line is a blank."""
    return templates().overlay(trim_blocks=False)  # has its own cache of templates


def render(template: str, **values: Any) -> str:
    """Fill a template of sentences, on one line; what blocks leave before a stop or
    comma is cut.
    """
    # one line of single blanks, less those before stops
    text = " ".join(sentences().get_template(template).render(**values).split())
    return SPACES.sub(lambda match: match[1] or "", text)


def write_amount(value: float, name: str) -> str:
    """Write a value of a metric: shares in percent, others as numbers."""
    return f"{100 * value:.3g} %" if is_share(name) else number(value)


def write_ends(metric: Metric) -> str:
    """Write the ends of the interval of a metric, in percent where it is a share."""
    assert metric.low is not None and metric.high is not None
    if is_share(metric.name):
        # 100, not 1e+02
        low, high = (float(f"{100 * end:.2g}") for end in (metric.low, metric.high))
        return f"{low:g} to {high:g} %"
    return metric.interval_text()


def write_difference(value: float, name: str) -> str:
    """Write a difference of a metric with its sign, in points of percent where it is a
    share.
    """
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
    metrics_of_name = defaultdict[str, list[Metric]](list)
    for metrics in rows.values():
        for name, metric in metrics.items():
            metrics_of_name[name].append(metric)
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
            with_interval(metrics.get(name), is_best, sign)
            for name, is_best, sign in signs
        ]
        grid.append([label, *cells, *(label_values[key][row] for key in columns)])
    constants = {
        "chance": [share(metrics_of_name[name], "chance") for name in names],
        AGREES: [AGREEMENT.get(name, ABSENT) for name in names],
    }
    for key, values in constants.items():
        metric_values[key] = [
            value if value == ABSENT else TableCell(brief(value), value=value)
            for value in values
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
        "table_note.txt",
        note=note,
        shared=shared,
        metric=listed[0],
        whose=whose,
        names=names,
    )
    note = add_footnotes(note, caveats_of(listed))
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


def with_interval(
    metric: Metric | None, is_best: bool = False, sign: str = ""
) -> TableCell:
    """Make a cell of a value, with its interval and the signs of its caveats."""
    if metric is None:
        return TableCell("–")
    low_high = "" if metric.low is None else metric.interval_text()
    signs = mark(sign, metric.caveats)
    return TableCell(number(metric.value), low_high, metric.value, is_best, signs)


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

    is_of_one = len({row.first for row in compared}) < 2
    rows = []
    for row in compared:
        better = (
            name(row.first if row.is_better else row.second)
            if row.is_significant
            else "–"
        )
        p = TableCell(p_text(row.p), value=row.p)
        pair = [name(row.second)] if is_of_one else [name(row.first), name(row.second)]
        rows.append(
            [with_arrow(row.metric), *pair, difference_cell(row), row.n, p, better]
        )

    # how it was tested, and what limits the tests
    columns = ["metric", *(["against"] if is_of_one else ["first", "second"])]
    columns += ["difference, 95 % CI", "n", "p", "better"]
    tests = dict.fromkeys(row.test for row in compared)
    adjustments = [adjustment_text(compared)] if compared else []
    limits = dict.fromkeys(limit for row in compared for limit in row.limits)
    note = "; ".join([MEANING, *tests, *adjustments, *limits]) + "."
    note = add_footnotes(note, [caveat for row in compared for caveat in row.caveats])
    whom = f" of {name(compared[0].first)}" if compared and is_of_one else ""
    return Table(
        f"Differences{whom}, paired by item and subject",
        columns,
        rows,
        section=section,
        note=note,
    )


def difference_cell(row: Difference) -> TableCell:
    """Make a cell of a difference, with its interval and sign."""
    ends = "" if row.low is None else interval_text(row.low, row.high)
    signs = mark(mark_of(row), row.caveats)
    return TableCell(f"{row.difference:+.3f}", ends, row.difference, mark=signs)


def adjustment_text(compared: Sequence[Difference]) -> str:
    """Say over which tests the p values of some differences are adjusted: those of the
    table that shows them, or more.
    """
    # one test needs no adjustment
    first = compared[0]
    if first.tests < 2:
        return "p not adjusted"
    is_all = sum(row.p is not None for row in compared) == first.tests
    family = (
        f"all {first.tests} tests of this table" if is_all else f"{first.tests} tests"
    )
    return f"p adjusted by Benjamini–Hochberg over {family}: {first.tests_of}"


def mark_of(compared: Difference) -> str:
    """Return the sign of a difference; empty if no difference may be claimed."""
    # an untested difference has no sign
    p = 1.0 if compared.p is None else compared.p
    return next((sign for level, sign in MARKS if p <= level), "")


def choose_best(
    label_metrics: Mapping[str, Metrics], validation: Mapping[str, Mapping[str, Any]]
) -> BestCells:
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


def best_of_parts(facts: Facts, part_metrics: Mapping[str, Metrics]) -> BestCells:
    """Choose the best of the variants or cells of a run, if they can be compared."""
    # parts that must not be compared have no best
    validation = {name: variant.validation for name, variant in facts.variants.items()}
    return choose_best({} if facts.not_compared else part_metrics, validation)


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


def describe_metric(metric: Metric) -> str:
    """Write a metric with its name, value, interval and chance."""
    return render("metric.txt", metric=metric)


def describe_sample(count: int, total: int, noun: str, seed: int) -> str:
    """Say how many stimuli of how many a sheet shows, and that nobody chose them."""
    # drawn or all: a reader must know that no good ones were chosen
    if count == total:
        return f"All {total:,} {noun}, in random order"
    return f"{count} of {total:,} {noun}, drawn at random (seed {seed})"
