"""Tables of an evaluated run."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from brainhive_cli.core.facts import Control, RetrievalFacts
from brainhive_cli.core.measurements import (
    ALL,
    BACKWARD,
    TRANSDUCTIVE,
    Measurements,
    Metric,
    metric_title,
    scope,
)
from brainhive_cli.core.tables import Table, TableCell, format_p
from brainhive_cli.evaluation.retrieval.scopes import (
    ALONE,
    CEILING,
    CLASSIFIERS,
    CORRECTIONS,
    PLAIN,
    REGIONS,
    REPETITION_DRAWS,
    REPETITIONS,
    RIDGE,
    SUBSETS,
    scopes_below,
)
from brainhive_cli.reports.tables import (
    difference_table,
    metric_table,
    published_tables,
    render,
)

HEADLINES = ("top1", "top5", "median_rank")


FEWEST_DRAWS = 39
"""Draws from which the middle 95 % of them hold another one in 95 of 100."""


DRAWN = f"{REPETITION_DRAWS} random choices of each number of repetitions"
"""Note of the curve over repetitions."""


CONTROLS = {"shuffled": "signals shuffled", "permuted": "labels permuted"}


THIS_RUN = "this run"


REQUESTED = (
    *("cells", "baseline", "control", "corrections"),
    *("subsets", "repetitions", "regions", "comparisons"),
)
"""Tables that are printed: the result, then each control, curve and comparison that the
recipe names.
"""


DETAILS = ("baseline", "control", "corrections", "subsets", "ceiling", "comparisons")
"""Tables on pages: what is neither metrics of cells nor drawn."""


def lay_out(measured: Measurements, parts: Sequence[str] | None) -> list[Table]:
    """Lay out the tables that a run has something for.

    Args:
        measured: What it measured.
        parts: Which tables, by what they show; None for all.
    """
    # metrics by row
    facts = measured.require_facts(RetrievalFacts)
    scopes = measured.scopes
    overall = measured.overall
    # rows of cells, baselines and corrections by title
    cells = {}
    for name, cell in facts.cells.items():
        # the name of a cell may end with its subject, which would only widen the column
        is_named = cell.cell.rpartition("/")[2].startswith(str(cell.subject))
        cells[cell.cell if is_named else f"{cell.cell} on {cell.subject}"] = scopes[
            name
        ]
    ridge = (
        {RIDGE: scopes[scope(PLAIN, RIDGE)]} if scope(PLAIN, RIDGE) in scopes else {}
    )
    plain = {
        CLASSIFIERS[row.second]: scopes[scope(PLAIN, row.second)]
        for row in facts.plain
        if row.second != RIDGE
    }
    paired = [row for row in facts.plain if row.second == RIDGE]
    # the other direction has a scope below that of each correction, or run
    corrected, alone = (
        {
            name: metrics
            for name, metrics in scopes_below(measured, part).items()
            if not name.endswith(BACKWARD)
        }
        for part in (CORRECTIONS, ALONE)
    )
    # directions by the end of their scopes; MindEye calls the second one forward
    directions = {"signal seeks image": "", "image seeks signal": BACKWARD}

    def compare_with(title: str, models: Mapping[str, Mapping[str, Metric]]) -> Table:
        # the run next to others on the same items; no rows where there are none
        return metric_table(
            title, {THIS_RUN: overall, **models} if models else {}, "model", HEADLINES
        )

    # tables by what they show
    tables = {
        "cells": [
            metric_table(
                f"Retrieval, {overall['top1'].split}",
                {"all": overall, **(cells if len(cells) > 1 else {}), **ridge},
                "cell",
                HEADLINES,
                note=render("ridge.txt", rows=paired) if paired else "",
            )
        ],
        "baseline": [
            compare_with("With plain baselines on the same folds", plain),
            difference_table(
                [row for row in facts.plain if row.second != RIDGE],
                {"": THIS_RUN, **CLASSIFIERS},
            ),
        ],
        "control": _control(facts.control) if facts.control else [],
        "corrections": [
            compare_with(f"Similarities corrected: {TRANSDUCTIVE}", corrected)
        ],
        "subsets": [
            metric_table(
                "Top-1 among subsets",
                {
                    words: scopes.get(scope(ALL, SUBSETS, way), {})
                    for words, way in directions.items()
                },
                "direction",
                note="MindEye's forward is: image seeks signal",
            )
        ],
        "ceiling": [_ceiling(measured, facts.repetitions)],
        "repetitions": [
            metric_table(
                "Accuracy over repetitions",
                scopes_below(measured, REPETITIONS),
                "repetitions",
                note=DRAWN,
            )
        ],
        "regions": [
            metric_table(
                "What each region carries of a prediction",
                scopes_below(measured, REGIONS),
                "region",
            )
        ],
        "comparisons": [
            compare_with("With each run alone", alone),
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


def sweep_tables(
    tables_of: Mapping[str, Sequence[Table]], measured: Measurements
) -> tuple[Table, ...]:
    """Lay out the tables of each variant, and their differences; nothing is pooled over
    variants.
    """
    # tables of all variants one below the other, then their differences
    columns = [
        replace(table, title=f"{variant}: {table.title}")
        for variant, tables in tables_of.items()
        for table in tables
    ]
    compared = difference_table(measured.facts.comparisons)
    return (*columns, *([compared] if compared.rows else []))


def _ceiling(measured: Measurements, repetitions: int) -> Table:
    """Lay out the ceilings of subjects, and say why others have none."""
    # reasons are listed in the note, unless no subject has a ceiling
    title = "Split-half ceiling of the signals"
    ceilings = scopes_below(measured, CEILING)
    reasons = {
        name.rpartition(" · ")[2]: reason for name, reason in measured.missing.items()
    }
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
        mean, low, high = (metric[key] for key in ("mean", "low", "high"))
        drawn = TableCell(f"{mean:.3f}", f"{low:.3f} to {high:.3f}", mean)
        rows.append(
            (metric_title(name), metric["measured"], drawn, format_p(metric["p"]))
        )
    ends = "95 %" if control.draws >= FEWEST_DRAWS else "ends"
    columns = ("metric", "measured", f"mean, {ends} of draws", "p")
    note = (
        f"{control.draws} draws with {CONTROLS[control.kind]}; n {control.n}, pool "
        f"{control.pool}."
    )
    return [Table("Measured, and under the control", columns, rows, note=note)]
