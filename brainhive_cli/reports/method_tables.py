"""Methods side by side: a row a retrieval, a table a protocol, and why a row is no
result.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.core.facts import (
    Cell as TrainedCell,
)
from brainhive_cli.core.facts import Difference, Facts, RetrievalFacts, WorkflowFacts
from brainhive_cli.core.measurements import (
    ALL,
    NO_RESULT,
    TRANSDUCTIVE,
    caveats_of,
    extend_title,
    interval_text,
    scope,
    shown,
)
from brainhive_cli.core.runs import RunFolder, of_variant
from brainhive_cli.core.runs import find as find_run
from brainhive_cli.core.tables import Cell, Table, number, p_text
from brainhive_cli.measurement.comparison import adjust_together, compare_ranks
from brainhive_cli.reports.page import Page, Section
from brainhive_cli.reports.runs_shown import RunGroup, ShownRun, find
from brainhive_cli.reports.sentences import (
    describe_methods,
    list_citations,
    list_warnings,
)
from brainhive_cli.reports.tables import (
    ABSENT,
    Metrics,
    mark_of,
    render,
    says_nothing,
    with_interval,
)

METRICS = ("top1", "top5", "rank_auc")
CHOSEN_BY = {"last epoch": "last", "": "unknown"}
"""Selections of epochs in words, where they have others in facts."""
REASON = "no result because"
"""Heading of the column that says why a row stands below the results."""
Row = tuple[tuple[str, ...], ShownRun, Metrics, list[str]]
"""Step and values of its axes; the run; its metrics; why they are no result."""


def open_rows(root: Path, runs: Sequence[ShownRun]) -> Iterator[Row]:
    """Open the retrievals of workflows, and those that are named themselves.

    Args:
        root: Folder of all runs.
        runs: Runs of workflow and eval-retrieval; others are left out.
    """
    for run in runs:
        # the steps of a workflow, or the run itself
        facts = run.measured.facts
        parts: list[tuple[tuple[str, ...], ShownRun]] = [((run.label,), run)]
        if isinstance(facts, WorkflowFacts):
            parts = [
                ((name.partition(" · ")[0], *facts.axes.get(name, {}).values()), part)
                for name, made in facts.made.items()
                if made.startswith("eval-retrieval/")
                for part in [ShownRun(name, RunFolder(root / made))]
            ]
        for values, part in parts:
            if not isinstance(part.measured.facts, RetrievalFacts):
                continue
            variants = [
                (
                    (*values, variant),
                    ShownRun(
                        variant, *find(root, f"{part.folder.reference}:{variant}")
                    ),
                )
                for variant in part.measured.facts.variants
            ]
            for labels, one in variants or [(values, part)]:
                # the retrieval, and below it that with corrected similarities
                is_control = ["a control: signals or pictures were permuted"]
                yield labels, one, one.metrics, is_control if one.is_control else []
                for name, metrics in one.measured.scopes.items():
                    protocol = next(iter(metrics.values())).protocol
                    correction = name.partition(" · ")[2]
                    if TRANSDUCTIVE in protocol and " · " not in correction:
                        yield (*labels, correction), one, metrics, [TRANSDUCTIVE]


def tabulate_methods(
    root: Path, runs: Sequence[ShownRun], against: str = ""
) -> list[Table]:
    """Lay out retrievals, results before what is none, each by descending top-1.

    Args:
        root: Folder of all runs.
        runs: As of `open_rows`.
        against: Row that others are compared with; default: the first result.

    Raises:
        RecipeError: if there is no retrieval among them, or no such row.
    """
    # a table for each data set, mode and split
    protocols: dict[tuple[str, str, str], list[Row]] = {}
    for row in open_rows(root, runs):
        facts = row[1].measured.facts
        split = row[2]["top1"].split
        protocols.setdefault((facts.dataset, facts.mode, split), []).append(row)
    if not protocols:
        raise RecipeError(
            "a table of methods needs retrievals: these runs have none",
            "name a run of workflow, or runs of eval-retrieval",
        )
    names = {key: name_rows(rows) for key, rows in protocols.items()}
    known = [name for listed in names.values() for name in listed]
    if against and against not in known:
        raise RecipeError(f"no row {against!r}", f"rows: {', '.join(known)}")

    # each row against the reference of its table; p of all tables adjusted together
    compared, where, references = list[Difference](), list[tuple[object, int]](), {}
    for key, rows in protocols.items():
        chosen = references[key] = choose_reference(rows, names[key], against)
        common = {*caveats_of(rows[chosen][2].values())}
        for index, (_, run, metrics, reasons) in enumerate(rows):
            caveats = caveats_of(metrics.values())
            reasons += [
                words for words in caveats if words in NO_RESULT or words not in common
            ]
            if index == chosen or metrics is not run.metrics:
                continue
            pair = {
                (names[key][index], names[key][chosen]): (
                    run.measured,
                    rows[chosen][1].measured,
                )
            }
            found, errors = compare_ranks(pair)
            reasons += [f"not comparable: {error.message}" for error in errors]
            compared += found
            where += [(key, index)] * len(found)
    adjusted = adjust_together(row=compared)[0]
    difference_of = dict(zip(where, adjusted, strict=True))

    # the cells of all rows, and the columns that say something
    listed = [row[2] for rows in protocols.values() for row in rows]
    metric_names = [
        name
        for name in METRICS
        if all(name in metrics for metrics in listed) and not says_nothing(name, listed)
    ]
    lines = {
        key: [
            describe_row(
                root,
                row,
                metric_names,
                difference_of.get((key, index)),
                index == references[key],
            )
            for index, row in enumerate(rows)
        ]
        for key, rows in protocols.items()
    }
    columns = [
        column
        for column in next(iter(lines.values()))[0]
        if any(
            str(line[column]) != ABSENT for table in lines.values() for line in table
        )
    ]

    # results first, by top-1; the reason of others stands behind their name
    tables, has_reasons = [], any(row[3] for rows in protocols.values() for row in rows)
    for key, rows in protocols.items():
        order = sorted(
            range(len(rows)),
            key=lambda index: (bool(rows[index][3]), -rows[index][2]["top1"].value),
        )
        table_rows = [
            [
                Cell(names[key][index], is_grey=bool(rows[index][3])),
                *(["; ".join(rows[index][3])] if has_reasons else []),
                *(lines[key][index][column] for column in columns),
            ]
            for index in order
        ]

        # what the rows have in common is that of the reference
        chosen = references[key]
        metric = rows[chosen][2]["top1"]
        note = render(
            "methods_note.txt",
            metric=metric,
            reference=names[key][chosen],
            columns=columns,
            pair=next((difference_of[each] for each in where if each[0] == key), None),
            has_reasons=has_reasons,
        )
        dataset, mode, split = key
        title = f"{dataset}, {mode}" + (f", {split} split" if split != "test" else "")
        heads = ["method", *([REASON] if has_reasons else []), *columns]
        tables.append(
            Table(extend_title(title, metric.caveats), heads, table_rows, note=note)
        )
    return tables


def name_rows(rows: Sequence[Row]) -> list[str]:
    """Name rows by their values that not all of a table have, and by their step where
    that is not the first one's.
    """
    values = [row[0] for row in rows]
    of_axes = [{*each[1:]} for each in values if each[1:]]
    shared = set.intersection(*of_axes) if of_axes else set()
    names = [
        [word for word in each[1:] if word not in shared]
        + ([each[0]] if each[0] != values[0][0] else [])
        for each in values
    ]
    return [
        ", ".join(name or each[1:] or each)
        for name, each in zip(names, values, strict=True)
    ]


def choose_reference(rows: Sequence[Row], names: Sequence[str], against: str) -> int:
    """Choose the row that others are compared with: the named one, else the first
    without a reason against it, and with the fewest caveats.

    It is no best one: the highest of several scores on test pictures is too high.
    """
    if against in names:
        return list(names).index(against)

    def doubts(index: int) -> tuple[int, int]:
        caveats = caveats_of(rows[index][2].values())
        return len(rows[index][3]) + len(NO_RESULT & {*caveats}), len(caveats)

    return min(range(len(rows)), key=doubts)


def describe_row(
    root: Path,
    row: Row,
    names: Sequence[str],
    difference: Difference | None,
    is_reference: bool,
) -> dict[str, Cell]:
    """Describe one row, by column; a dash where there is nothing to say."""
    _, run, metrics, _ = row
    facts, top1 = run.measured.facts, metrics["top1"]
    columns = {shown(name): Cell.of(with_interval(metrics[name])) for name in names}

    # the share of the way from chance to the ceiling, where that has as many candidates
    ceiling = run.measured.scopes.get(scope("ceiling", ALL), {}).get("top1")
    columns["of ceiling"] = Cell(ABSENT)
    if ceiling and ceiling.pool == top1.pool and top1.chance is not None:
        assert ceiling.chance is not None
        reach = ceiling.value - ceiling.chance
        if ceiling.low is not None and ceiling.low > ceiling.chance:
            columns["of ceiling"] = Cell.of((top1.value - top1.chance) / reach)

    # the paired difference
    columns["difference"] = Cell("reference" if is_reference else ABSENT)
    if difference:
        columns["difference"] = Cell(
            f"{difference.difference:+.3f}",
            f"{interval_text(difference.low, difference.high)}, "
            f"p {p_text(difference.p)}",
            difference.difference,
            mark=mark_of(difference),
        )

    # how it was trained, as far as its training is still there
    cells = trained_cells(root, facts)
    took = [cell.took for cell in cells if cell.took]
    chosen_by = dict.fromkeys(
        CHOSEN_BY.get(cell.selected_on, cell.selected_on) for cell in cells
    )
    columns["epoch by"] = Cell(", ".join(chosen_by) or ABSENT)
    units = {
        "min": ("seconds", 60.0),
        "GB": ("peak_memory_bytes", 1e9),
        "M weights": ("parameters", 1e6),
    }
    for heading, (name, unit) in units.items():
        values = [each[name] or 0.0 for each in took if name in each]
        value = (sum(values) if heading == "min" else max(values, default=0)) / unit
        columns[heading] = (
            Cell(f"{value:.2f}" if value < 10 else number(value), value=value)
            if values
            else Cell(ABSENT)
        )

    # what its paper prints, and why the row is no result
    published = facts.published
    columns["published"] = Cell(ABSENT)
    if published:
        printed = [f"{published[name]:.3f}" for name in names if name in published]
        differs = "; ".join([published["source"], *published["differs"]])
        columns["published"] = Cell(f"{' / '.join(printed)} ({differs})")
    return columns


def trained_cells(root: Path, facts: Facts) -> list[TrainedCell]:
    """Read the cells of the trainings that were tested; none of those that are gone."""
    cells = list[TrainedCell]()
    for reference in facts.runs:
        name, variant = of_variant(reference)
        with suppress(BrainhiveError):
            run = find_run(root, "train-align", str(name))
            described = run.measurements().facts
            # a closed form has no epochs
            is_closed_form = getattr(described, "is_closed_form", False)
            update = {"selected_on": "closed form"} if is_closed_form else {}
            cells += [
                cell.model_copy(update=update)
                for cell in described.cells.values()
                if variant in ("", cell.variant)
            ]
    return cells


def lay_out_page(root: Path, runs: Sequence[ShownRun], tables: Sequence[Table]) -> Page:
    """Lay out the tables as a page, with warnings and methods of all their runs."""
    rows = list(open_rows(root, runs))
    groups = [RunGroup(list({row[1].label: row[1] for row in rows}.values()))]
    below = sum(
        any(cell.is_grey for cell in row[:1]) for table in tables for row in table.rows
    )
    lead = render("methods_lead.txt", tables=tables, rows=len(rows), below=below)
    lines = [
        line for run in runs for line in getattr(run.measured.facts, "commands", [])
    ]
    texts = [
        ("For the methods of a paper", describe_methods(groups)),
        ("How to cite (BibTeX)", list_citations(groups)),
        *([("Each step by hand", "\n".join(lines))] if lines else []),
    ]
    return Page(
        "Methods side by side",
        [lead],
        list_warnings(groups),
        [
            Section("Results", [("", [table]) for table in tables]),
            Section("Methods and citing", texts=texts),
        ],
    )


def write_csv(tables: Sequence[Table]) -> str:
    """Write tables as one: a row a method, with a column for what stands below a
    value.
    """
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    first = tables[0].columns
    small = {
        index
        for table in tables
        for row in table.rows
        for index, cell in enumerate(map(Cell.of, row))
        if cell.small
    }
    heads = [
        part
        for index, column in enumerate(first)
        for part in (column, *([f"{column}, 95 % CI"] if index in small else []))
    ]
    lines.writerow(["protocol", *heads])
    for table in tables:
        for row in table.rows:
            values = [table.title]
            for index, cell in enumerate(map(Cell.of, row)):
                values.append(str(cell.text if cell.value is None else cell.value))
                values += [cell.small] if index in small else []
            lines.writerow(values)
    return text.getvalue()
