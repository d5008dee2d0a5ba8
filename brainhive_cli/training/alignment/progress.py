"""Metrics and learning curves of an align run."""

import statistics
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any

from pydantic import BaseModel

from brainhive_cli.core import documents
from brainhive_cli.core.artifacts import Curve, Line
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.facts import TrainingFacts
from brainhive_cli.core.measurements import Measurements, Metric, name_rows
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.core.tables import Table, mean_sd
from brainhive_cli.data.stores.target_store import TargetStore
from brainhive_cli.data.targets.target_stores import holds_annotations, problem_of
from brainhive_cli.reports.tables import ABSENT, published_tables, with_interval
from brainhive_cli.training.alignment.recipe import Cell

PROTOCOLS = {"test": "epochs selected on test", "last epoch": "last epoch kept"}
"""Selection of epochs, in a table's title; nothing where it was by validation."""
SECTION = "Training"
MOST = 6
"""Cells that have a line each; of more, their mean is drawn, with the lowest and the highest."""
CURVE_TITLES = {"loss": "Loss", "validation_top1": "Top-1 on held-out training concepts"}
"""Keys of an epoch in the log, and the titles of their curves."""


class _Epoch(BaseModel):
    """A line of the log."""

    cell: str
    epoch: int
    loss: float
    validation_top1: float | None = None


def _read_epochs(lines: Iterable[str], cells: Container[str]) -> Iterator[_Epoch]:
    """Read the epochs of cells from lines of the log, but for damaged ones, as two machines may leave."""
    for line in lines:
        # a damaged line costs one epoch, not the curve
        with suppress(BrainhiveError):
            event = documents.parse(line, "an event", _Epoch)
            if event.cell in cells:
                yield event


def tables(measured: Measurements, cells: Sequence[Cell]) -> tuple[Table, ...]:
    """Lay out the metrics of a finished run, cell by cell in the order of the recipe."""
    # the title says the data set, the mode and how epochs were selected
    facts, described = measured.facts, measured.facts.cells
    selected_on = {each.selected_on for each in described.values()}
    how = "".join(f", {PROTOCOLS[name]}" for name in sorted(selected_on & PROTOCOLS.keys()))
    is_closed_form = measured.facts_of(TrainingFacts).is_closed_form
    title = f"{facts.dataset} {facts.mode}{', in closed form' if is_closed_form else how}"
    published = published_tables(facts.published)
    top1 = {cell.name: measured.scopes.get(cell.name, {}).get("top1") for cell in cells}

    # without validation, each cell only has the number of its epoch
    if not any(top1.values()):
        title += "; no validation: no training concept is held out (train.validation)"
        if is_closed_form:  # no epochs either
            return Table(title, ("cell",), [(name,) for name in top1]), *published
        epochs = [(name, described[name].epoch) for name in top1]
        return Table(title, ("cell", "epoch"), epochs), *published
    title += ": validation on held-out training concepts"

    # a row for each cell; one without validation has no figures
    rows: list[Any] = []
    variant_metrics: dict[str, list[Metric | None]] = {}
    for cell in cells:
        metric = top1[cell.name]
        context = (metric.n, metric.chance) if metric else (ABSENT, ABSENT)
        rows.append((cell.name, described[cell.name].epoch, with_interval(metric), *context))
        variant_metrics.setdefault(cell.variant, []).append(metric)

    # mean and spread over all cells, or over those of each variant
    means = []
    variant_names = name_rows(variant_metrics)
    for label, metrics in variant_metrics.items():
        spread = mean_sd(metric.value for metric in metrics if metric is not None)
        if label:
            chance = metrics[0].chance if metrics[0] else ABSENT
            means.append((variant_names[label], spread, len(metrics), chance))
        elif len(cells) > 1:
            rows.append((f"mean ± sd of {len(cells)}", "", spread, "", ""))

    # means of variants come first: they are what a sweep compares
    cell_table = Table(title, ("cell", "epoch", "val top-1, 95 % CI", "n", "chance"), rows)
    variant_table = Table(title, ("variant", "val top-1, mean ± sd", "cells", "chance"), means)
    return *([variant_table] if means else []), cell_table, *published


def learning_curves(run: RunFolder, cells: Sequence[str]) -> list[Curve]:
    """Draw the log of a run: what each cell measured after each epoch."""
    events, curves = [*_read_epochs(run.read_text("log.jsonl").splitlines(), cells)], []
    for key, title in CURVE_TITLES.items():
        # values of each cell by epoch, counted from 1
        cell_values: dict[str, dict[int, float]] = {}
        for event in events:
            if (value := getattr(event, key)) is not None:
                cell_values.setdefault(event.cell, {})[event.epoch + 1] = value

        # a line for each cell; cells may have stopped at different epochs
        epochs, note = sorted({*chain(*cell_values.values())}), ""
        lines = [Line(cell, [*map(values.get, epochs)]) for cell, values in cell_values.items()]

        # too many lines to tell apart: draw their mean, with a band from lowest to highest
        if len(lines) > MOST:
            at = [[values[epoch] for values in cell_values.values() if epoch in values] for epoch in epochs]
            mean, low, high = [*map(statistics.mean, at)], [*map(min, at)], [*map(max, at)]
            lines = [Line(f"mean of {len(lines)} cells", mean, low, high)]
            note = "The band goes from the lowest cell to the highest."
        # no cell has validation_top1 where nothing validates
        if lines:
            curves.append(Curve(title, "epoch", epochs, lines, section=SECTION, note=note))
    return curves


def describe_health(stores: Mapping[str, TargetStore]) -> list[Table]:
    """List the stores of embeddings that a run reads, and whether each passes its health check."""
    rows = []
    for name, store in stores.items():
        health, problem = store.health, problem_of(store)
        # masks, captions and labels have no embeddings' health to show, unless they failed
        if holds_annotations(store) and not problem:
            continue
        figures = health.vectors, health.dimensions, health.median_pair_cosine, health.near_duplicates
        rows.append((name, *figures, f"failed: {problem}" if problem else "passed"))
    columns = ("store", "vectors", "dimensions", "median cosine of pairs", "near-duplicates", "health check")
    return [Table("Health of the embeddings", columns, rows, section="Stores")] if rows else []


def list_failed_stores(stores: Mapping[str, TargetStore]) -> list[str]:
    """Say which stores fail their health check."""
    problems = {name: problem_of(store) for name, store in stores.items()}
    return [f"{name} failed its health check: {problem}" for name, problem in problems.items() if problem]
