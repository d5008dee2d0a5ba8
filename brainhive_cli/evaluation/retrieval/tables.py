"""The tables of an evaluated run."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from brainhive_cli.core.facts import RetrievalFacts
from brainhive_cli.core.measurements import ALL, TRANSDUCTIVE, Measurements, Metric, scope
from brainhive_cli.core.tables import Cell, Table, p_text
from brainhive_cli.evaluation.retrieval.baseline import BASELINE, NAMES, PLAIN
from brainhive_cli.evaluation.retrieval.summary import (
    BACKWARD,
    CEILING,
    CORRECTIONS,
    REGIONS,
    SUBSETS,
    scopes_below,
)
from brainhive_cli.measurement.metric_names import shown
from brainhive_cli.reports.tables import difference_table, metric_table, published_tables

HEADLINES = ("top1", "top5", "median_rank")
AXES = {"repetitions": "repetitions", "sliding": "window centre, ms"}
CONTROLS = {"shuffled": "signals shuffled", "permuted": "labels permuted"}
THIS_RUN = "this run"
REQUESTED = ("cells", "baseline", "control", "corrections", "subsets", "curves", "regions", "comparisons")
"""Tables that are printed: the result, then each control, curve and comparison that the recipe names."""
DETAILS = ("baseline", "control", "corrections", "subsets", "ceiling", "concepts", "comparisons")
"""Tables on pages: what is neither metrics of cells nor drawn."""


def lay_out(measured: Measurements, concept_rows: int, parts: Sequence[str] | None) -> list[Table]:
    """Lay out the tables that a run has something for.

    Args:
        measured: What it measured.
        concept_rows: Best and worst concepts, and confusions, that are listed; 0 for none.
        parts: Which tables, by what they show; None for all.
    """
    facts, scopes, overall = measured.facts_of(RetrievalFacts), measured.scopes, measured.overall
    cells = {_name_cell(cell): scopes[name] for name, cell in facts.cells.items()}
    cells = {"all": overall, **cells} if len(cells) > 1 else {"all": overall}
    plain = {NAMES[row.second]: scopes[scope(PLAIN, row.second)] for row in facts.plain}
    corrected = {
        name: metrics
        for name, metrics in scopes_below(measured, CORRECTIONS).items()
        if not name.endswith(BACKWARD)
    }
    regions = scopes_below(measured, REGIONS)
    tables = {
        "cells": [metric_table(f"Retrieval, {overall['top1'].split}", cells, "cell", HEADLINES)],
        "baseline": [
            _compare_with("With a closed-form ridge", overall, {"ridge": scopes.get(BASELINE, {})}),
            _compare_with("With plain baselines on the same folds", overall, plain),
            difference_table(facts.plain, {"": THIS_RUN, **NAMES}),
        ],
        "control": _control(facts),
        "corrections": [_compare_with(f"Similarities corrected: {TRANSDUCTIVE}", overall, corrected)],
        "subsets": _subsets(measured),
        "ceiling": _ceiling(measured, facts),
        "curves": [
            metric_table(f"Accuracy over {AXES[name]}", scopes_below(measured, name), AXES[name], note=how)
            for name, how in facts.curves.items()
        ],
        "regions": [metric_table("What each region carries of a prediction", regions, "region")],
        "concepts": _concepts(facts, concept_rows) if concept_rows else [],
        "comparisons": [difference_table(facts.against), _set_ups(facts)],
        "published": published_tables(facts.published),
    }
    return [table for part in parts or tables for table in tables[part] if table.rows]


def sweep_tables(tables_of: Mapping[str, Sequence[Table]], measured: Measurements) -> tuple[Table, ...]:
    """Lay out the tables of each variant, and their differences; nothing is pooled over variants."""
    named = [
        replace(table, title=f"{variant}: {table.title}")
        for variant, tables in tables_of.items()
        for table in tables
    ]
    compared = difference_table(measured.facts.comparisons)
    return (*named, *([compared] if compared.rows else []))


def _name_cell(cell: Any) -> str:
    """Name a cell, whose name may end with its subject."""
    is_named = cell.cell.rpartition("/")[2].startswith(str(cell.subject))
    return cell.cell if is_named else f"{cell.cell} on {cell.subject}"


def _compare_with(
    title: str, overall: Mapping[str, Metric], others: Mapping[str, Mapping[str, Metric]]
) -> Table:
    """Lay out the run next to others on the same items; nothing where there are none."""
    listed = {label: metrics for label, metrics in others.items() if metrics}
    return metric_table(title, {THIS_RUN: overall, **listed} if listed else {}, "model", HEADLINES)


def _control(facts: RetrievalFacts) -> list[Table]:
    """Show what is measured, and its null distribution under the control."""
    if facts.control is None:
        return []
    control, rows = facts.control, []
    for name, metric in control.metrics.items():
        drawn = Cell(f"{metric.mean:.3f}", f"{metric.low:.3f} to {metric.high:.3f}", metric.mean)
        rows.append((shown(name), metric.measured, drawn, p_text(metric.p)))
    note = f"{control.draws} draws with {CONTROLS[control.kind]}; n {control.n}, pool {control.pool}."
    return [
        Table(
            "Measured, and under the control",
            ("metric", "measured", "mean, 95 % of draws", "p"),
            rows,
            note=note,
        )
    ]


def _subsets(measured: Measurements) -> list[Table]:
    """Show who finds whom among drawn subsets, and what is expected of all possible ones."""
    directions = {"": "signal seeks image", BACKWARD: "image seeks signal"}
    rows = {
        words: measured.scopes.get(scope(ALL, SUBSETS, direction), {})
        for direction, words in directions.items()
    }
    note = "MindEye's forward is: image seeks signal"
    return [metric_table("Top-1 among subsets", rows, "direction", note=note)]


def _ceiling(measured: Measurements, facts: RetrievalFacts) -> list[Table]:
    """Show the ceiling of each subject's signals, or why there is none."""
    if facts.ceiling is None:
        return []
    reasons = [
        f"{name.removeprefix(CEILING + ' · ')} has none: {reason}"
        for name, reason in measured.missing.items()
        if name.startswith(CEILING)
    ]
    note = "; ".join([f"{facts.ceiling.repetitions} repetitions of a picture at most", *reasons])
    rows = scopes_below(measured, CEILING)
    return [metric_table("Split-half ceiling of the signals", rows, "subject", note=note)]


def _concepts(facts: RetrievalFacts, most: int) -> list[Table]:
    """Show the concepts and categories that are found best and worst, and concepts that are confused."""
    # the first and the last rows, as they are sorted by top-1
    tables = []
    for kind, found in {"concepts": facts.concepts, "categories": facts.categories}.items():
        listed = list(found.items())
        chosen = listed if len(listed) <= 2 * most else [*listed[:most], *listed[-most:]]
        rows = [(name, row["top1"], row["top5"], row["mean_rank"], row["n"]) for name, row in chosen]
        title = f"{kind.capitalize()}: {len(chosen)} of {len(listed)}, best first; n over subjects and seeds"
        tables.append(Table(title, (kind, "top-1", "top-5", "mean rank", "n"), rows))

    # the most frequent confusions
    confused = [tuple(row.values()) for row in facts.confusions[:most]]
    columns = ("seen", "taken for", "times", "share", "cosine of the two")
    return [*tables, Table("Confused concepts", columns, confused)]


def _set_ups(facts: RetrievalFacts) -> Table:
    """List the keys in which the set-ups of other runs differ."""
    rows = [(row.second, line) for row in facts.against for line in row.differs]
    return Table("This run differs from others", ("from", "in"), rows)
