"""Tables and learning curves of a training."""

import statistics
from collections import defaultdict
from collections.abc import Sequence
from itertools import chain
from typing import Any

from brainhive_cli.core.base import Table, format_mean_sd
from brainhive_cli.core.results import Measurements, Metric
from brainhive_cli.core.runs import RunFolder, artifacts
from brainhive_cli.reports.tables import ABSENT, make_metric_cell, published_tables
from brainhive_cli.training.alignment import Cell, TrainingFacts


def tables(
    measurements: Measurements, cells: Sequence[Cell], can_validate: bool = True
) -> tuple[Table, ...]:
    """Make the tables of a finished run.

    Args:
        measurements: Metrics and facts of the run.
        cells: Cells of the run, in the order of the recipe.
        can_validate: False if the data set tests pictures that were seen in training,
            because then no pictures can be held out for validation.

    Returns:
        Metrics of the cells, and published results, as far as there are any.
    """
    # the title names the data set, the models and the selection of epochs
    facts = measurements.require_facts(TrainingFacts)
    is_closed_form = facts.is_closed_form
    division = facts.division.removeprefix("one ")
    title = f"{facts.dataset}, one model {division}".rstrip()
    if not is_closed_form:
        selections = {cell_facts.selected_on for cell_facts in facts.cells.values()}
        # Selection of epochs in the title of a table. Validation has no text.
        selection_titles = {
            "test": "epochs selected on test",
            "last epoch": "last epoch kept",
        }
        for name in sorted(selections & selection_titles.keys()):
            title += f", {selection_titles[name]}"
    published = tuple(published_tables(facts.published))
    metrics: dict[str, Metric | None] = {
        cell.name: measurements.scopes.get(cell.name, {}).get("top1") for cell in cells
    }
    first_metric = next((metric for metric in metrics.values() if metric), None)

    # without validation, the table has the epoch of each cell, if it has epochs
    if first_metric is None:
        title += ". No validation set"
        if can_validate:
            title += " (set train.validation to hold one out)"
        cell_table = Table(title, ("model",), [(name,) for name in metrics])
        if not is_closed_form:
            epochs = [(name, facts.cells[name].epoch) for name in metrics]
            cell_table = Table(title, ("model", "epoch"), epochs)
        return (cell_table,) + published
    title += f". Validation on {first_metric.protocol.partition(',')[0]}"

    # a row for each cell
    rows: list[Any] = []
    for cell in cells:
        metric = metrics[cell.name]
        rows.append(
            (
                cell.name,
                facts.cells[cell.name].epoch,
                make_metric_cell(metric),
                metric.n if metric else ABSENT,
                metric.chance if metric else ABSENT,
            )
        )

    # mean and spread of all cells
    if len(cells) > 1:
        values = [metric.value for metric in metrics.values() if metric is not None]
        rows.append((f"mean ± sd of {len(cells)}", "", format_mean_sd(values), "", ""))
    cell_table = Table(
        title,
        ("model", "epoch", "validation top-1, 95 % CI", "tested", "chance"),
        rows,
    )
    return (cell_table,) + published


def learning_curves(run: RunFolder, cells: Sequence[str]) -> list[artifacts.Curve]:
    """Draw the curves of the log of a run.

    Args:
        run: Folder of the run.
        cells: Names of the cells.

    Returns:
        Curves over epochs, of the loss and, with validation, of top-1. A resumed epoch
        has its newest value.
    """
    curves = []
    events = [
        event
        for event in run.events()
        if event.get("cell") in cells and "loss" in event
    ]
    # Largest number of cells with a curve each. More cells are drawn as their mean,
    # with a band from the lowest to the highest.
    max_curve_cells = 6
    # Titles of the curves, by the key of an event in the log.
    curve_titles = {
        "loss": "Loss",
        "validation_top1": "Top-1 on held-out training pictures",
    }
    for key, title in curve_titles.items():
        # values of each cell by epoch, counted from 1
        cell_values = defaultdict[str, dict[int, float]](dict)
        for event in events:
            if event.get(key) is not None:
                cell_values[event["cell"]][event["epoch"] + 1] = event[key]
        if not cell_values:
            continue
        epochs = sorted(set(chain.from_iterable(cell_values.values())))

        # a line for each cell, which may have stopped earlier than others
        note = ""
        lines = []
        for cell, values in cell_values.items():
            line = [values.get(epoch) for epoch in epochs]
            lines.append(artifacts.CurveLine(cell, line))

        # many lines could not be told apart
        if len(lines) > max_curve_cells:
            mean = []
            low = []
            high = []
            for epoch in epochs:
                epoch_values = [
                    values[epoch] for values in cell_values.values() if epoch in values
                ]
                mean.append(statistics.mean(epoch_values))
                low.append(min(epoch_values))
                high.append(max(epoch_values))
            label = f"mean of {len(lines)} models"
            lines = [artifacts.CurveLine(label, mean, low, high)]
            note = "The band goes from the lowest model to the highest."
        curves.append(
            artifacts.Curve(
                title, "epoch", epochs, lines, section="Training", note=note
            )
        )
    return curves
