"""Methods side by side: a row a retrieval, a table a protocol, and why a row is no
result.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import replace
from itertools import chain
from typing import Any

from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.core.facts import Difference, RetrievalFacts
from brainhive_cli.core.measurements import (
    ALL,
    NO_RESULT,
    TRANSDUCTIVE,
    add_footnotes,
    caveats_of,
    extend_title,
    scope,
    shown,
)
from brainhive_cli.core.runs import find as find_run, of_variant
from brainhive_cli.core.tables import Table, TableCell, write_csv
from brainhive_cli.measurement.comparison import compare_ranks
from brainhive_cli.reports.runs_shown import ShownRun, find
from brainhive_cli.reports.tables import (
    adjustment_text,
    difference_cell,
    render,
    with_interval,
)

METRICS = ("top1", "top5", "rank_auc")
REASON = "no result because"
"""Heading of the column that says why a row stands below the results."""


def list_retrievals(runs: Sequence[ShownRun]) -> list[ShownRun]:
    """List the retrievals of workflows and of sweeps, and those that are named
    themselves.
    """
    retrievals = list[ShownRun]()
    for run in runs:
        facts = run.measured.facts
        path = run.folder.path
        parts = getattr(facts, "retrievals", {}) or {
            variant: f"{path}:{variant}" for variant in facts.variants
        }
        steps = [
            ShownRun(name, *find(path.parents[1], reference))
            for name, reference in parts.items()
        ]
        itself = [copy(run)] * isinstance(facts, RetrievalFacts)
        retrievals += list_retrievals(steps) if steps else itself
    return retrievals


def tabulate_methods(runs: Sequence[ShownRun], against: str) -> list[Table]:
    """Lay out a table for each data set, mode and split.

    Args:
        runs: Runs of workflow and eval-retrieval; others are left out.
        against: Row that others are compared with; empty for the first result with the
            fewest caveats. The highest of several scores on test pictures is too high.

    Raises:
        RecipeError: if there are no retrievals, or no such row.
    """
    protocols: dict[str, list[ShownRun]] = {}
    for run in list_retrievals(runs):
        facts = run.measured.facts
        split = run.metrics["top1"].split
        rows = protocols.setdefault(f"{facts.dataset}, {facts.mode}, {split} split", [])
        # the values of axes name a method, without the mode; else the label does
        parts = [part for part in run.label.split(" · ")[1:] if part != facts.mode]
        run.label = ", ".join(parts) or run.label
        if run.label in [row.label for row in rows]:
            run.label = run.folder.path.name
        rows.append(run)
        # corrected similarities have a row of their own
        for name, metrics in run.measured.scopes.items():
            correction = name.partition(" · ")[2]
            protocol = next(iter(metrics.values())).protocol
            if TRANSDUCTIVE in protocol and " · " not in correction:
                rows.append(row := copy(run))
                row.label = f"{run.label}, {correction}"
                row.metrics = metrics
                row.is_control = True
    known = [
        row.label for rows in protocols.values() for row in rows if not row.is_control
    ]
    if not known or against not in ("", *known):
        raise RecipeError(
            f"these runs have no retrieval{' ' * bool(against)}{against}",
            f"rows: {', '.join(known) or 'name runs of workflow or eval-retrieval'}",
        )
    return [
        tabulate_protocol(title, rows, against) for title, rows in protocols.items()
    ]


def tabulate_protocol(title: str, rows: Sequence[ShownRun], against: str) -> Table:
    """Lay out rows of one protocol: results before what is none, each by descending
    top-1.
    """
    # the reference, and paired differences from it
    caveats = {row.label: caveats_of(row.metrics.values()) for row in rows}
    reference = min(
        rows,
        key=lambda row: (
            row.label != against,
            row.is_control,
            len(NO_RESULT & {*caveats[row.label]}),
            len(caveats[row.label]),
        ),
    )
    common = {*caveats[reference.label]} - NO_RESULT
    reasons = {
        row.label: [
            TRANSDUCTIVE
            if TRANSDUCTIVE in row.metrics["top1"].protocol
            else "a control: signals or pictures were permuted"
        ]
        * row.is_control
        + [caveat for caveat in caveats[row.label] if caveat not in common]
        for row in rows
    }
    pairs = {
        (row.label, reference.label): (row.measured, reference.measured)
        for row in rows
        if row is not reference and not row.is_control
    }
    compared, errors = compare_ranks(pairs)
    differences = {difference.first: difference for difference in compared}
    failed = [label for label, _ in pairs if label not in differences]
    for label, error in zip(failed, errors, strict=True):
        reasons[label].append(f"not comparable: {error.message}")

    # the columns that say something
    lines = [
        {
            "method": TableCell(row.label, is_grey=bool(reasons[row.label])),
            REASON: "; ".join(reasons[row.label]),
            **describe_row(row, differences.get(row.label)),
            **({"difference": "reference"} if row is reference else {}),
        }
        for row in sorted(
            rows,
            key=lambda row: (bool(reasons[row.label]), -row.metrics["top1"].value),
        )
    ]
    heads = [head for head in lines[0] if any(line[head] for line in lines)]

    # the highest of several test scores, which stands first, is too high
    results = sum(not reason for reason in reasons.values())
    if results > 1:
        top1 = lines[0]["top1"]
        words = filter(None, [top1.small, f"chosen among {results}"])
        lines[0]["top1"] = replace(top1, small=", ".join(words))

    # what the rows have in common is that of the reference
    note = render(
        "methods_note.txt",
        reference=reference,
        heads=heads,
        pairs=compared,
        adjustment=adjustment_text(compared) if compared else "",
    )
    note = add_footnotes(note, chain(*caveats.values()))
    return Table(
        extend_title(title, caveats[reference.label]),
        [*map(shown, heads)],
        [[line[head] for head in heads] for line in lines],
        note=note,
    )


def describe_row(row: ShownRun, difference: Difference | None) -> dict[str, Any]:
    """Describe a row by column; None where there is nothing to say."""
    facts = row.measured.facts
    metrics = row.metrics
    top1 = metrics["top1"]

    # the share of the way from chance to the ceiling of as many candidates
    reached = None
    chance = top1.chance or 0
    ceiling = row.measured.scopes.get(scope("ceiling", ALL), {}).get("top1", top1)
    is_same = (ceiling.pool, ceiling.chance) == (top1.pool, top1.chance)
    if ceiling is not top1 and is_same and (ceiling.low or 0) > chance:
        reached = (top1.value - chance) / (ceiling.value - chance)

    # what its trainings took, as far as they are still there
    cells = list[Mapping[str, float | None]]()
    for name, variant in map(of_variant, facts.runs):
        with suppress(BrainhiveError):
            run = find_run(row.folder.path.parents[1], "train-align", str(name))
            trained = run.measurements().facts.cells.values()
            cells += [cell.took for cell in trained if variant in ("", cell.variant)]

    def took(key: str) -> list[float]:
        return [cell.get(key) or 0 for cell in cells] or [0]

    # what its paper prints, and what differs
    words = list[str]()
    published = facts.published
    if published:
        values = [f"{published[name]:.3f}" for name in METRICS if name in published]
        words = [" / ".join(values), published["source"], *published["differs"]]
    return {
        **{name: with_interval(metrics.get(name)) for name in METRICS},
        "of ceiling": reached,
        "difference": difference and difference_cell(difference),
        "p": difference and difference.p,
        "selection": facts.set_up.get("selection"),
        "min": sum(took("seconds")) / 60 or None,
        "GB": max(took("peak_memory_bytes")) / 1e9 or None,
        "M weights": max(took("parameters")) / 1e6 or None,
        "published": "; ".join(words),
    }


def join_tables(tables: Sequence[Table]) -> str:
    """Write tables as one in CSV: a row a method, columns for what is below values,
    and their notes.
    """
    rows = [
        {"protocol": table.title}
        | row
        | {
            f"{head}, 95 % CI": cell.small
            for head, cell in zip(table.columns, map(TableCell.of, cells), strict=True)
            if cell.small
        }
        | {"note": table.note}
        for table in tables
        for row, cells in zip(table.as_dict()["rows"], table.rows, strict=True)
    ]
    return write_csv([*dict.fromkeys(chain.from_iterable(rows))], rows)
