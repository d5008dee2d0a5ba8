"""Progress, metrics and learning curves of an align run."""

import statistics
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path

from pydantic import BaseModel

from brainhive_cli.core import documents
from brainhive_cli.core.artifacts import Curve, Line
from brainhive_cli.core.console import clock
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.measurements import Measurements, Metric, name_rows
from brainhive_cli.core.runs import FINISHED, RunFolder
from brainhive_cli.core.tables import Table, mean_sd
from brainhive_cli.data.stores.target_store import TargetStore
from brainhive_cli.data.targets.target_stores import problem_of
from brainhive_cli.reports.tables import published_tables
from brainhive_cli.training.alignment.recipe import Cell

PROTOCOLS = {"test": "epochs selected on test", "last epoch": "last epoch kept"}
"""Selection of epochs, in a table's title; nothing where it was by validation."""
SECTION = "Training"
MOST = 6
"""Cells that have a line each; of more, their mean is drawn, with the lowest and the highest."""
ABSENT = "–"
"""In place of a validation that there is not."""
CURVE_TITLES = {"loss": "Loss", "validation_top1": "Top-1 on held-out training concepts"}
"""Keys of an epoch in the log, and the titles of their curves."""


class _Epoch(BaseModel):
    """A line of the log."""

    cell: str
    time: float
    epoch: int
    loss: float
    validation_top1: float | None = None


def _read_epochs(lines: Iterable[str], cells: Container[str]) -> Iterator[_Epoch]:
    """Read the epochs of cells from lines of the log, but for damaged ones, as two machines may leave."""
    for line in lines:
        with suppress(BrainhiveError):
            event = documents.parse(line, "an event", _Epoch)
            if event.cell in cells:
                yield event


class Watch:
    """A table of the cells in training and, below them, of those that finished last.

    Without a terminal, a line for each cell that is finished, and one a minute. `epochs` are those of each
    cell, by its name.
    """

    def __init__(self, run: Path, epochs: Mapping[str, int]) -> None:
        self._run, self._epochs, self._log = run, epochs, run / "log.jsonl"
        self._bytes_read = self._log.stat().st_size if self._log.is_file() else 0  # skips earlier starts
        self._events: dict[str, list[_Epoch]] = {}
        self._reported: set[str] = set()

    def table(self, rows: int) -> Table:
        """Lay out at most so many rows."""
        self._catch_up()
        done = [name for name in self._events if self._is_finished(name)]
        done.sort(key=lambda name: -self._events[name][-1].time)
        shown = [*(name for name in self._events if name not in done), *done]
        laid_out = []
        for name in shown[:rows]:
            # time left, by the pace since the first epoch
            events, left = self._events[name], ""
            last = events[-1]
            if name in done:
                left = "done"
            elif len(events) > 1:
                pace_s = (last.time - events[0].time) / (len(events) - 1)
                left = clock(pace_s * (self._epochs[name] - 1 - last.epoch))
            label, _, seed = name.rpartition("_seed-")
            laid_out.append((label, int(seed), *self._describe(name), left))
        columns = "cell", "seed", "epoch", "loss", "val top-1", "time left"
        return Table(self._count(done), columns, tuple(laid_out))

    def news(self, is_due: bool) -> list[str]:
        """Say which cells were finished since the last call; if none was and it is due, how far one is."""
        self._catch_up()
        done = [name for name in self._epochs if self._is_finished(name)]
        count, shown = self._count(done), [name for name in done if name not in self._reported]
        self._reported.update(done)
        if is_due and not shown:
            at_work = [name for name in self._events if name not in done]
            if not at_work:
                return [count]
            shown = [max(at_work, key=lambda name: self._events[name][-1].time)]
        lines = []
        for name in shown:
            words = f"{name}: {'done' if name in done else 'at work'}"
            if name in self._events:  # which is not where it is fitted in closed form, without epochs
                epoch, loss, top1 = self._describe(name)
                words += f", epoch {epoch}, loss {loss}"
                words += "" if top1 == ABSENT else f", val top-1 {top1}"
            lines.append(f"{words}; {count}")
        return lines

    def _describe(self, name: str) -> tuple[str, str, str]:
        """Give the epoch, the loss and the validation top-1 that a cell has reached."""
        last = self._events[name][-1]
        top1 = ABSENT if last.validation_top1 is None else f"{last.validation_top1:.3f}"
        return f"{last.epoch + 1}/{self._epochs[name]}", f"{last.loss:.3f}", top1

    def _count(self, done: Sequence[str]) -> str:
        """Say how many cells are done, and how long the others take."""
        text = f"{len(done)} of {len(self._epochs)} cells"
        times = [event.time for events in self._events.values() for event in events]
        if len(times) < 2:
            return text
        # all cells still take as long as an epoch took on average
        epochs_left = sum(
            epochs - len(self._events.get(name, ()))
            for name, epochs in self._epochs.items()
            if name not in done
        )
        left_s = (max(times) - min(times)) / (len(times) - 1) * epochs_left
        return f"{text}, {clock(left_s)} left" if left_s else text

    def _is_finished(self, name: str) -> bool:
        return name in self._reported or (self._run / "cells" / name / FINISHED).is_file()

    def _catch_up(self) -> None:
        """Read the lines that were written since; an incomplete one is left for the next time."""
        if not self._log.is_file():
            return
        with self._log.open("rb") as file:
            file.seek(self._bytes_read)
            *lines, _ = file.read().split(b"\n")
        self._bytes_read += sum(len(line) + 1 for line in lines)
        texts = (line.decode(errors="replace") for line in lines)
        for event in _read_epochs(texts, self._epochs):
            self._events.setdefault(event.cell, []).append(event)


def tables(measured: Measurements, cells: Sequence[Cell]) -> tuple[Table, ...]:
    """Lay out the metrics of a finished run, cell by cell in the order of the recipe."""
    facts, described = measured.facts, measured.facts.cells
    selected_on = {each.selected_on for each in described.values()}
    how = "".join(f", {PROTOCOLS[name]}" for name in sorted(selected_on & PROTOCOLS.keys()))
    title = f"{facts.dataset} {facts.mode}{how}"
    top1 = {cell.name: measured.scopes.get(cell.name, {}).get("top1") for cell in cells}
    if not any(top1.values()):
        title += "; no validation: no training concept is held out (train.validation)"
        epochs = [(name, described[name].epoch) for name in top1]
        return _finish_tables([Table(title, ("cell", "epoch"), epochs)], measured)
    title += ": validation on held-out training concepts"

    # a row for each cell; one without validation has no figures
    rows = []
    variant_metrics: dict[str, list[Metric | None]] = {}
    for cell in cells:
        metric = top1[cell.name]
        figures = (metric.value, metric.interval_text(), metric.n, metric.chance) if metric else (ABSENT,) * 4
        rows.append((cell.name, described[cell.name].epoch, *figures))
        variant_metrics.setdefault(cell.variant, []).append(metric)

    # mean and spread over all cells, or over those of each variant
    means = []
    named = name_rows(variant_metrics)
    for label, metrics in variant_metrics.items():
        spread = mean_sd(metric.value for metric in metrics if metric is not None)
        if label:
            chance = metrics[0].chance if metrics[0] else ABSENT
            means.append((named[label], spread, len(metrics), chance))
        elif len(cells) > 1:
            rows.append((f"mean ± sd of {len(cells)}", "", spread, "", "", ""))
    laid_out = [Table(title, ("cell", "epoch", "val top-1", "95 % CI", "n", "chance"), rows)]
    if means:
        laid_out.insert(0, Table(title, ("variant", "val top-1, mean ± sd", "cells", "chance"), means))
    return _finish_tables(laid_out, measured)


def _finish_tables(laid_out: Sequence[Table], measured: Measurements) -> tuple[Table, ...]:
    """Add what was published, and the caveats."""
    return (*laid_out, *published_tables(measured.facts.published))


def learning_curves(run: RunFolder, cells: Sequence[str]) -> list[Curve]:
    """Draw the log of a run: what each cell measured after each epoch."""
    events, curves = [*_read_epochs(run.read_text("log.jsonl").splitlines(), cells)], []
    for key, title in CURVE_TITLES.items():
        cell_values: dict[str, dict[int, float]] = {}
        for event in events:
            if (value := getattr(event, key)) is not None:
                cell_values.setdefault(event.cell, {})[event.epoch + 1] = value
        epochs, note = sorted({*chain(*cell_values.values())}), ""
        lines = [Line(cell, [*map(values.get, epochs)]) for cell, values in cell_values.items()]
        if len(lines) > MOST:
            at = [[values[epoch] for values in cell_values.values() if epoch in values] for epoch in epochs]
            mean, low, high = [*map(statistics.mean, at)], [*map(min, at)], [*map(max, at)]
            lines = [Line(f"mean of {len(lines)} cells", mean, low, high)]
            note = "The band goes from the lowest cell to the highest."
        if lines:
            curves.append(Curve(title, "epoch", epochs, lines, section=SECTION, note=note))
    return curves


def describe_health(stores: Mapping[str, TargetStore]) -> Table:
    """List the stores that a run reads, and whether each passes its health check."""
    rows = []
    for name, store in stores.items():
        health, problem = store.health, problem_of(store)
        figures = health.vectors, health.dimensions, health.median_pair_cosine, health.near_duplicates
        rows.append((name, *figures, f"failed: {problem}" if problem else "passed"))
    columns = ("store", "vectors", "dimensions", "median cosine of pairs", "near-duplicates", "health check")
    return Table("Health of the embeddings", columns, rows, section="Stores")


def list_failed_stores(stores: Mapping[str, TargetStore]) -> list[str]:
    """Say which stores fail their health check."""
    problems = {name: problem_of(store) for name, store in stores.items()}
    return [f"{name} failed its health check: {problem}" for name, problem in problems.items() if problem]
