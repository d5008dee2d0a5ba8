"""Tables of an evaluation."""

from collections.abc import Mapping, Sequence

from brainhive_cli.core.base import Table, TableCell, format_p
from brainhive_cli.core.results import (
    ALL,
    BACKWARD,
    CATEGORY_METRICS,
    CORRECTIONS,
    MODEL_HEADING,
    TRANSDUCTIVE,
    Measurements,
    Metric,
    metric_title,
    scope,
)
from brainhive_cli.evaluation.retrieval.facts import Control, RetrievalFacts
from brainhive_cli.evaluation.retrieval.scopes import (
    ALONE,
    BASELINE_TITLES,
    CEILING,
    DESIGN,
    PLAIN,
    REGIONS,
    REPETITION_DRAWS,
    REPETITIONS,
    RIDGE,
    SUBSETS,
    select_scopes,
)
from brainhive_cli.reports.tables import (
    difference_table,
    make_rows,
    published_tables,
    tabulate_rows,
)
from brainhive_cli.reports.templates import render

CURVE_NOTE = f"{REPETITION_DRAWS} random choices of each number of repetitions"
"""Note of the curve over repetitions."""
THIS_RUN = "this run"
"""Name of the evaluated run in tables that compare models."""


def lay_out(
    measurements: Measurements, table_names: Sequence[str] | None
) -> list[Table]:
    """Lay out the tables of a run, and leave out the empty ones.

    Args:
        measurements: Measurements of the run.
        table_names: Names of the tables, or None for all tables.
    """
    facts = measurements.require_facts(RetrievalFacts)
    scopes = measurements.scopes
    overall = measurements.overall
    # Metrics in tables that compare models.
    headlines = (
        CATEGORY_METRICS if facts.tests_categories else ("top1", "top5", "median_rank")
    )

    # rows of the cells, and of the baselines
    cells = {"all": overall}
    if len(facts.cells) > 1:
        for name, cell in facts.cells.items():
            # the name of a cell may end with its subject
            has_subject = cell.cell.rpartition("/")[2].startswith(str(cell.subject))
            title = cell.cell if has_subject else f"{cell.cell} on {cell.subject}"
            cells[title] = scopes[name]
    for name in (RIDGE, DESIGN):
        if scope(PLAIN, name) in scopes:
            cells[name] = scopes[scope(PLAIN, name)]
    # without a table of cells, both stand beside the other baselines
    has_cells = table_names is None or "cells" in table_names
    ridge_differences = []
    plain_differences = []
    plain_rows = {}
    for difference in facts.plain:
        name = difference.second
        if name == RIDGE and has_cells:
            ridge_differences.append(difference)
        # the run is no baseline of itself
        elif name != facts.set_up.get("backbone.kind"):
            plain_differences.append(difference)
            plain_rows[BASELINE_TITLES[name]] = scopes[scope(PLAIN, name)]
    if DESIGN in cells and not has_cells:
        plain_rows[BASELINE_TITLES[DESIGN]] = cells[DESIGN]

    # MindEye calls the second direction forward
    subset_rows = {
        "signal seeks image": scopes.get(scope(ALL, SUBSETS), {}),
        "image seeks signal": scopes.get(scope(ALL, SUBSETS, BACKWARD), {}),
    }
    setting_differences: list[tuple[str, str]] = []
    for difference in facts.against:
        for line in difference.differs:
            setting_differences.append((difference.second, line))

    tables = {
        "cells": [
            tabulate_rows(
                f"{'Decoding' if facts.tests_categories else 'Retrieval'}, "
                f"{overall[facts.hit_metric].split}",
                make_rows(cells),
                MODEL_HEADING,
                headlines,
                note=render("ridge.txt", rows=ridge_differences)
                if ridge_differences
                else "",
            )
        ],
        "baseline": [
            _compare_models(
                "With plain baselines on the same signals",
                overall,
                plain_rows,
                headlines,
            ),
            difference_table(plain_differences, {"": THIS_RUN, **BASELINE_TITLES}),
        ],
        "control": [_lay_out_control(facts.control)] if facts.control else [],
        "corrections": [
            _compare_models(
                f"Similarities corrected: {TRANSDUCTIVE}",
                overall,
                _select_forward(measurements, CORRECTIONS),
                headlines,
            )
        ],
        "subsets": [
            tabulate_rows(
                "Top-1 among subsets",
                make_rows(subset_rows),
                "direction",
                note="MindEye's forward is: image seeks signal",
            )
        ],
        "ceiling": [_lay_out_ceilings(measurements, facts.repetitions)],
        "repetitions": [
            tabulate_rows(
                "Accuracy over repetitions",
                make_rows(select_scopes(measurements, REPETITIONS)),
                "repetitions",
                note=CURVE_NOTE,
            )
        ],
        "regions": [
            tabulate_rows(
                "What each region carries of a prediction",
                make_rows(select_scopes(measurements, REGIONS)),
                "region",
            )
        ],
        "comparisons": [
            _compare_models(
                "With each run alone",
                overall,
                _select_forward(measurements, ALONE),
                headlines,
            ),
            difference_table(facts.against),
            Table("This run differs from others", ("from", "in"), setting_differences),
        ],
        "published": published_tables(facts.published, scopes),
    }
    selected = []
    for name in table_names or tables:
        for table in tables[name]:
            if table.rows:
                selected.append(table)
    return selected


def _select_forward(
    measurements: Measurements, first_part: str
) -> dict[str, Mapping[str, Metric]]:
    """Return the metrics of scopes with a first part, without the other direction."""
    return {
        name: metrics
        for name, metrics in select_scopes(measurements, first_part).items()
        if not name.endswith(BACKWARD)
    }


def _compare_models(
    title: str,
    overall: Mapping[str, Metric],
    models: Mapping[str, Mapping[str, Metric]],
    headlines: Sequence[str],
) -> Table:
    """Lay out the run and other models on the same items. Empty without models.

    Args:
        title: Title of the table.
        overall: Metrics of the run by name.
        models: Metrics of the other models, by title and name.
        headlines: Names of the metrics in the table.
    """
    rows = make_rows({THIS_RUN: overall, **models}) if models else []
    return tabulate_rows(title, rows, "model", headlines)


def _lay_out_ceilings(measurements: Measurements, repetitions: int) -> Table:
    """Lay out the ceilings of the subjects, and the reasons why others have none.

    Args:
        measurements: Measurements of the run.
        repetitions: Largest number of repetitions of a picture.
    """
    title = "Split-half ceiling of the signals"
    ceilings = select_scopes(measurements, CEILING)
    reasons = {
        name.rpartition(" · ")[2]: reason
        for name, reason in measurements.missing.items()
    }
    if not ceilings:
        return Table(title, ("subject", "why there is none"), list(reasons.items()))
    notes = [f"{repetitions} repetitions of a picture at most"]
    for subject, reason in reasons.items():
        notes.append(f"{subject} has none: {reason}")
    return tabulate_rows(title, make_rows(ceilings), "subject", note="; ".join(notes))


def _lay_out_control(control: Control) -> Table:
    """Lay out the measured metrics and their distribution under a control."""
    rows = []
    for name, metric in control.metrics.items():
        mean = metric["mean"]
        draws = TableCell(
            f"{mean:.3f}", f"{metric['low']:.3f} to {metric['high']:.3f}", mean
        )
        rows.append(
            (metric_title(name), metric["measured"], draws, format_p(metric["p"]))
        )
    # Smallest number of draws for a 95 % interval. The range of 39 draws holds a
    # further draw with a probability of 38 / 40.
    ends = "95 %" if control.draws >= 39 else "ends"
    columns = ("metric", "measured", f"mean, {ends} of draws", "p")
    # Descriptions of the controls, by kind.
    control_titles = {"shuffled": "signals shuffled", "permuted": "labels permuted"}
    note = (
        f"{control.draws} draws with {control_titles[control.kind]}; "
        f"{control.n:,} tested, {control.pool:,} candidates."
    )
    return Table("Measured, and under the control", columns, rows, note=note)
