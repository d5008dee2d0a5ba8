"""Tables and learning curves of a training."""

import statistics
from collections import defaultdict
from collections.abc import Sequence
from itertools import chain
from typing import Any

from brainhive_cli.core import artifacts
from brainhive_cli.core.facts import TrainingFacts
from brainhive_cli.core.measurements import Measurements, Metric, name_rows
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.core.tables import Table, format_mean_sd
from brainhive_cli.reports.tables import ABSENT, make_metric_cell, published_tables
from brainhive_cli.training.alignment.cells import Cell

PROTOCOLS = {"test": "epochs selected on test", "last epoch": "last epoch kept"}
"""Selection of epochs, in a table's title; nothing where it was by validation."""
MOST = 6
"""Cells that have a line each; of more, their mean is drawn, with the lowest and the
highest.
"""
CURVE_TITLES = {
    "loss": "Loss",
    "validation_top1": "Top-1 on held-out training pictures",
}
"""Keys of an epoch in the log, and the titles of their curves."""


def tables(measured: Measurements, cells: Sequence[Cell]) -> tuple[Table, ...]:
    """Lay out the metrics of a finished run, cell by cell in the order of the
    recipe.
    """
    # the title says the data set, the mode and how epochs were selected
    facts = measured.facts
    described = measured.facts.cells
    selected_on = {each.selected_on for each in described.values()}
    how = "".join(
        f", {PROTOCOLS[name]}" for name in sorted(selected_on & PROTOCOLS.keys())
    )
    is_closed_form = measured.require_facts(TrainingFacts).is_closed_form
    title = (
        f"{facts.dataset} {facts.mode}{', in closed form' if is_closed_form else how}"
    )
    published = published_tables(facts.published)
    top1 = {cell.name: measured.scopes.get(cell.name, {}).get("top1") for cell in cells}

    # without validation, each cell only has the number of its epoch
    if not any(top1.values()):
        title += "; no validation: no training concept is held out (train.validation)"
        if is_closed_form:  # no epochs either
            return Table(title, ("cell",), [(name,) for name in top1]), *published
        epochs = [(name, described[name].epoch) for name in top1]
        return Table(title, ("cell", "epoch"), epochs), *published
    measured_on = next(metric.protocol for metric in top1.values() if metric)
    title += f": validation on {measured_on.partition(',')[0]}"

    # a row for each cell; one without validation has no figures
    rows: list[Any] = []
    variant_metrics = defaultdict[str, list[Metric | None]](list)
    for cell in cells:
        metric = top1[cell.name]
        context = (metric.n, metric.chance) if metric else (ABSENT, ABSENT)
        rows.append(
            (cell.name, described[cell.name].epoch, make_metric_cell(metric), *context)
        )
        variant_metrics[cell.variant].append(metric)

    # mean and spread over all cells, or over those of each variant
    means = []
    variant_names = name_rows(variant_metrics)
    for label, metrics in variant_metrics.items():
        spread = format_mean_sd(
            metric.value for metric in metrics if metric is not None
        )
        if label:
            chance = metrics[0].chance if metrics[0] else ABSENT
            means.append((variant_names[label], spread, len(metrics), chance))
        elif len(cells) > 1:
            rows.append((f"mean ± sd of {len(cells)}", "", spread, "", ""))

    # means of variants come first: they are what a sweep compares
    cell_table = Table(
        title, ("cell", "epoch", "val top-1, 95 % CI", "n", "chance"), rows
    )
    variant_table = Table(
        title, ("variant", "val top-1, mean ± sd", "cells", "chance"), means
    )
    return *([variant_table] if means else []), cell_table, *published


def learning_curves(run: RunFolder, cells: Sequence[str]) -> list[artifacts.Curve]:
    """Draw the log of a run: what each cell measured after each epoch."""
    curves = []
    events = [
        event
        for event in run.events()
        if event.get("cell") in cells and "loss" in event
    ]
    for key, title in CURVE_TITLES.items():
        # values of each cell by epoch, counted from 1
        cell_values = defaultdict[str, dict[int, float]](dict)
        for event in events:
            if (value := event.get(key)) is not None:
                cell_values[event["cell"]][event["epoch"] + 1] = value

        # a line for each cell; cells may have stopped at different epochs
        epochs = sorted({*chain(*cell_values.values())})
        note = ""
        lines = [
            artifacts.CurveLine(cell, [*map(values.get, epochs)])
            for cell, values in cell_values.items()
        ]

        # too many lines to tell apart: draw their mean, with a band from lowest to
        # highest
        if len(lines) > MOST:
            at = [
                [values[epoch] for values in cell_values.values() if epoch in values]
                for epoch in epochs
            ]
            mean = [*map(statistics.mean, at)]
            low = [*map(min, at)]
            high = [*map(max, at)]
            lines = [
                artifacts.CurveLine(f"mean of {len(lines)} cells", mean, low, high)
            ]
            note = "The band goes from the lowest cell to the highest."
        # no cell has validation_top1 where nothing validates
        if lines:
            curves.append(
                artifacts.Curve(
                    title, "epoch", epochs, lines, section="Training", note=note
                )
            )
    return curves
