"""The tables of an evaluated run."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from brainhive_cli.core.facts import Control, RetrievalFacts
from brainhive_cli.core.measurements import ALL, TRANSDUCTIVE, Measurements, Metric, scope
from brainhive_cli.core.tables import Cell, Table, p_text
from brainhive_cli.evaluation.retrieval.baseline import BASELINE, NAMES, PLAIN
from brainhive_cli.evaluation.retrieval.measure import (
    CORRECTIONS,
    REGIONS,
    REPETITION_DRAWS,
    REPETITIONS,
    SUBSETS,
)
from brainhive_cli.evaluation.retrieval.summary import CEILING, scopes_below
from brainhive_cli.measurement.metric_names import shown
from brainhive_cli.measurement.retrieval import BACKWARD
from brainhive_cli.reports.tables import difference_table, metric_table, published_tables

HEADLINES = ("top1", "top5", "median_rank")
DRAWN = f"{REPETITION_DRAWS} random choices of each number of repetitions"
"""Note of the curve over repetitions."""
CONTROLS = {"shuffled": "signals shuffled", "permuted": "labels permuted"}
THIS_RUN = "this run"
REQUESTED = (
    *("cells", "baseline", "control", "corrections"),
    *("subsets", "repetitions", "regions", "comparisons"),
)
"""Tables that are printed: the result, then each control, curve and comparison that the recipe names."""
DETAILS = ("baseline", "control", "corrections", "subsets", "ceiling", "concepts", "comparisons")
"""Tables on pages: what is neither metrics of cells nor drawn."""


def lay_out(measured: Measurements, concept_rows: int, parts: Sequence[str] | None) -> list[Table]:
    """Lay out the tables that a run has something for.

    Args:
        measured: What it measured.
        concept_rows: Best and worst concepts that are listed; 0 for none.
        parts: Which tables, by what they show; None for all.
    """
    # metrics by row
    facts, scopes, overall = measured.facts_of(RetrievalFacts), measured.scopes, measured.overall
    # rows of cells, baselines and corrections by title
    cells = {_name_cell(cell): scopes[name] for name, cell in facts.cells.items()}
    ridge = {"ridge": scopes[BASELINE]} if BASELINE in scopes else {}
    plain = {NAMES[row.second]: scopes[scope(PLAIN, row.second)] for row in facts.plain}
    corrected = scopes_below(measured, CORRECTIONS)
    # the other direction has a scope below that of each correction
    corrected = {name: metrics for name, metrics in corrected.items() if not name.endswith(BACKWARD)}
    # directions by the end of their scopes; MindEye calls the second one forward
    directions = {"signal seeks image": "", "image seeks signal": BACKWARD}

    # tables by what they show, the concepts that are found best and worst among them
    tables = {
        "cells": [
            metric_table(
                f"Retrieval, {overall['top1'].split}",
                {"all": overall, **(cells if len(cells) > 1 else {})},
                "cell",
                HEADLINES,
            )
        ],
        "baseline": [
            _compare_with("With a closed-form ridge", overall, ridge),
            _compare_with("With plain baselines on the same folds", overall, plain),
            difference_table(facts.plain, {"": THIS_RUN, **NAMES}),
        ],
        "control": _control(facts.control) if facts.control else [],
        "corrections": [_compare_with(f"Similarities corrected: {TRANSDUCTIVE}", overall, corrected)],
        "subsets": [
            metric_table(
                "Top-1 among subsets",
                {words: scopes.get(scope(ALL, SUBSETS, way), {}) for words, way in directions.items()},
                "direction",
                note="MindEye's forward is: image seeks signal",
            )
        ],
        "ceiling": [_ceiling(measured, facts.repetitions)],
        "repetitions": [
            metric_table(
                "Accuracy over repetitions", scopes_below(measured, REPETITIONS), "repetitions", note=DRAWN
            )
        ],
        "regions": [
            metric_table(
                "What each region carries of a prediction", scopes_below(measured, REGIONS), "region"
            )
        ],
        "concepts": [_concepts(facts, concept_rows)] if concept_rows else [],
        "comparisons": [
            difference_table(facts.against),
            Table(
                "This run differs from others",
                ("from", "in"),
                [(row.second, line) for row in facts.against for line in row.differs],
            ),
        ],
        "published": published_tables(facts.published),
    }

    # a table without rows says nothing
    return [table for part in parts or tables for table in tables[part] if table.rows]


def sweep_tables(tables_of: Mapping[str, Sequence[Table]], measured: Measurements) -> tuple[Table, ...]:
    """Lay out the tables of each variant, and their differences; nothing is pooled over variants."""
    # tables of all variants one below the other, then their differences
    columns = [
        replace(table, title=f"{variant}: {table.title}")
        for variant, tables in tables_of.items()
        for table in tables
    ]
    compared = difference_table(measured.facts.comparisons)
    return (*columns, *([compared] if compared.rows else []))


def _name_cell(cell: Any) -> str:
    """Name a cell, whose name may end with its subject."""
    # a repeated subject would only widen the column
    is_named = cell.cell.rpartition("/")[2].startswith(str(cell.subject))
    return cell.cell if is_named else f"{cell.cell} on {cell.subject}"


def _compare_with(
    title: str, run: Mapping[str, Metric], other_metrics: Mapping[str, Mapping[str, Metric]]
) -> Table:
    """Lay out the run next to others on the same items; nothing where there are none."""
    return metric_table(title, {THIS_RUN: run, **other_metrics} if other_metrics else {}, "model", HEADLINES)


def _ceiling(measured: Measurements, repetitions: int) -> Table:
    """Lay out the ceilings of subjects, and say why others have none."""
    # reasons are listed in the note, unless no subject has a ceiling
    title, ceilings = "Split-half ceiling of the signals", scopes_below(measured, CEILING)
    reasons = {name.rpartition(" · ")[2]: reason for name, reason in measured.missing.items()}
    if not ceilings:
        return Table(title, ("subject", "why there is none"), [*reasons.items()])
    without = [f"{subject} has none: {reason}" for subject, reason in reasons.items()]
    note = "; ".join([f"{repetitions} repetitions of a picture at most", *without])
    return metric_table(title, ceilings, "subject", note=note)


def _control(control: Control) -> list[Table]:
    """Show what is measured, and its null distribution under the control."""
    # the null distribution as its mean, and the middle 95 % of the draws
    rows = []
    for name, metric in control.metrics.items():
        drawn = Cell(f"{metric.mean:.3f}", f"{metric.low:.3f} to {metric.high:.3f}", metric.mean)
        rows.append((shown(name), metric.measured, drawn, p_text(metric.p)))
    columns = ("metric", "measured", "mean, 95 % of draws", "p")
    note = f"{control.draws} draws with {CONTROLS[control.kind]}; n {control.n}, pool {control.pool}."
    return [Table("Measured, and under the control", columns, rows, note=note)]


def _concepts(facts: RetrievalFacts, most: int) -> Table:
    """Show the concepts that are found best and worst."""
    listed = [(name, *row.values()) for name, row in facts.concepts.items()]
    # with few concepts the worst ones must not repeat the best
    rows = [*listed[:most], *listed[most:][-most:]]
    title = f"Concepts: {len(rows)} of {len(listed)}, best first; n over subjects and seeds"
    return Table(title, ("concepts", "top-1", "top-5", "mean rank", "n"), rows)
