"""What an align run shows: how far its cells are, what they measured, and their learning curves."""

import statistics
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from brainhive_cli.core import documents
from brainhive_cli.core.artifacts import Artifact, Curve, Line, Number
from brainhive_cli.core.caveats import extend_tables
from brainhive_cli.core.console import clock
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.measurements import Measurements, Metric
from brainhive_cli.core.runs import FINISHED, RunFolder
from brainhive_cli.core.tables import Table, mean_sd, published_table
from brainhive_cli.data.stores.target_store import TargetStore
from brainhive_cli.data.targets.target_stores import problem_of
from brainhive_cli.training.alignment.cells import Cell

COLUMNS = ("cell", "seed", "epoch", "loss", "val top-1", "time left")
PROTOCOLS = {"test": "epochs selected on test", "last epoch": "last epoch kept"}
"""How epochs were selected, in a table's title; nothing where it was by validation."""
SECTION = "Training"
MOST = 6
"""Cells that have a line each; of more, their mean is drawn, with the lowest and the highest."""
SHOWN = {"loss": "Loss", "validation_top1": "Top-1 on held-out training concepts"}
"""What the log has of each epoch, and its title."""
Events = Mapping[str, Mapping[int, float]]
"""Values by cell and epoch."""


class _Epoch(BaseModel):
    """A line of the log."""

    cell: str
    time: float
    epoch: int
    loss: float
    validation_top1: float | None


class Watch:
    """A table of the cells in training and, below them, of those that finished last.

    Without a terminal, a line for each cell that is finished, and one a minute. `epochs` are those of each
    variant of a sweep.
    """

    def __init__(self, run: Path, cells: Sequence[Cell], epochs: Mapping[str, int]) -> None:
        self._run, self._epochs = run, epochs
        self._cells = {cell.name: cell for cell in cells}
        self._log = run / "log.jsonl"
        self._read = self._log.stat().st_size if self._log.is_file() else 0  # skips earlier starts
        self._events: dict[str, list[_Epoch]] = {}
        self._reported: set[str] = set()

    def table(self, rows: int) -> Table:
        """Lay out at most so many rows."""
        self._catch_up()
        done = [name for name in self._events if self._is_finished(name)]
        done.sort(key=lambda name: -self._events[name][-1].time)
        shown = [*(name for name in self._events if name not in done), *done][:rows]
        rows_shown = tuple(self._row(name, name in done) for name in shown)
        return Table(self._count(done), COLUMNS, rows_shown)

    def news(self, is_due: bool) -> list[str]:
        """Say which cells were finished since the last call; if none was and it is due, how far one is."""
        self._catch_up()
        done = [name for name in self._cells if self._is_finished(name)]
        new = [name for name in done if name not in self._reported]
        self._reported.update(new)
        at_work = [name for name in self._events if name not in done]
        latest = max(at_work, key=lambda name: self._events[name][-1].time, default=None)
        if is_due and not new:
            return [f"{self._progress_of(latest)}; {self._count(done)}" if latest else self._count(done)]
        return [f"{self._progress_of(name)}; {self._count(done)}" for name in new]

    def _progress_of(self, name: str) -> str:
        """Say how far a cell is."""
        state = "done" if name in self._reported else "at work"
        if not (events := self._events.get(name)):  # fitted in closed form, without epochs
            return f"{name}: {state}"
        last = events[-1]
        top1 = "" if last.validation_top1 is None else f", val top-1 {last.validation_top1:.3f}"
        epoch = f"epoch {last.epoch + 1}/{self._epochs[self._cells[name].variant]}"
        return f"{name}: {state}, {epoch}, loss {last.loss:.3f}{top1}"

    def _count(self, done: Sequence[str]) -> str:
        """Say how many cells are done, and how long the others take."""
        left_s = self._left_s(done)
        return f"{len(done)} of {len(self._cells)} cells" + (f", {clock(left_s)} left" if left_s else "")

    def _is_finished(self, name: str) -> bool:
        return name in self._reported or (self._run / "cells" / name / FINISHED).is_file()

    def _catch_up(self) -> None:
        """Read the lines that were written since; an incomplete one is left for the next time."""
        if not self._log.is_file():
            return
        with self._log.open("rb") as file:
            file.seek(self._read)
            lines = file.read().split(b"\n")
        self._read += sum(len(line) + 1 for line in lines[:-1])
        for line in lines[:-1]:
            with suppress(BrainhiveError):  # a shared disk may mix the lines of two machines
                event = documents.parse(line.decode(errors="replace"), str(self._log), _Epoch)
                if event.cell in self._cells:
                    self._events.setdefault(event.cell, []).append(event)

    def _row(self, name: str, is_done: bool) -> tuple[Any, ...]:
        cell, events = self._cells[name], self._events[name]
        last, epochs = events[-1], self._epochs[self._cells[name].variant]
        pace_s = (last.time - events[0].time) / max(1, len(events) - 1)
        left = clock(pace_s * (epochs - 1 - last.epoch)) if len(events) > 1 else ""
        top1 = last.validation_top1
        return (
            name.removesuffix(f"_seed-{cell.seed}"),
            cell.seed,
            f"{last.epoch + 1}/{epochs}",
            f"{last.loss:.3f}",
            "–" if top1 is None else f"{top1:.3f}",
            "done" if is_done else left,
        )

    def _left_s(self, done: Sequence[str]) -> float:
        """Estimate the time that all cells still take together, from that of their epochs."""
        times = [event.time for events in self._events.values() for event in events]
        if len(times) < 2:
            return 0.0
        left = sum(
            self._epochs[cell.variant] - len(self._events.get(name, ()))
            for name, cell in self._cells.items()
            if name not in done
        )
        return (max(times) - min(times)) / (len(times) - 1) * left


def tables(found: Measurements, cells: Sequence[Cell]) -> tuple[Table, ...]:
    """Lay out the metrics of a finished run, cell by cell in the order of the recipe."""
    notes, selected_on = found.notes, {each["selected_on"] for each in found.notes["cells"].values()}
    how = "".join(f", {PROTOCOLS[each]}" for each in sorted(selected_on & PROTOCOLS.keys()))
    title = f"{notes['dataset']} {notes['mode']}{how}"
    top1 = {cell.name: found.scopes.get(cell.name, {}).get("top1") for cell in cells}
    if not any(top1.values()):
        epochs = tuple((name, notes["cells"][name]["epoch"]) for name in top1)
        title += "; no validation: no training concept is held out (train.validation)"
        return _with_published([Table(title, ("cell", "epoch"), epochs)], found)
    title += ": validation on held-out training concepts"
    columns = ("cell", "epoch", "val top-1", "95 % CI", "n", "chance")
    rows = [(name, notes["cells"][name]["epoch"], *_row(metric)) for name, metric in top1.items()]
    by_variant: dict[str, list[Metric | None]] = {}
    for cell in cells:
        by_variant.setdefault(cell.variant, []).append(top1[cell.name])
    if "" in by_variant and len(cells) > 1:
        rows.append((f"mean ± sd of {len(cells)}", "", _spread(by_variant[""]), "", "", ""))
    laid_out = [Table(title, columns, tuple(rows))]
    if "" not in by_variant:
        headings = ("variant", "val top-1, mean ± sd", "cells", "chance")
        means = ((label, _spread(some), len(some), _row(some[0])[-1]) for label, some in by_variant.items())
        laid_out.insert(0, Table(title, headings, tuple(means)))
    return _with_published(laid_out, found)


def _with_published(laid_out: Sequence[Table], found: Measurements) -> tuple[Table, ...]:
    """Add what was published, which a sweep has by variant, and the caveats."""
    if published := found.notes.get("published"):
        by_variant = {"": published} if "source" in published else published
        laid_out = [*laid_out, published_table(by_variant)]
    return extend_tables(laid_out, found.caveats)


def _row(top1: Metric | None) -> tuple[Any, ...]:
    return ("–", "–", "–", "–") if top1 is None else (top1.value, top1.interval_text(), top1.n, top1.chance)


def _spread(cells: Sequence[Metric | None]) -> str:
    return mean_sd(top1.value for top1 in cells if top1 is not None)


def learning_curves(run: RunFolder, cells: Sequence[str]) -> list[Curve]:
    """Draw the log of a run: what each cell measured after each epoch."""
    found: dict[str, dict[str, dict[int, float]]] = {key: {} for key in SHOWN}
    for event in run.events():
        for key in SHOWN:
            if event.get("cell") in cells and isinstance(event.get(key), int | float):
                found[key].setdefault(event["cell"], {})[event["epoch"] + 1] = event[key]
    return [_curve(title, found[key]) for key, title in SHOWN.items() if found[key]]


def _curve(title: str, of_cells: Events) -> Curve:
    epochs = sorted({epoch for values in of_cells.values() for epoch in values})
    if len(of_cells) <= MOST:
        lines = [Line(cell, [values.get(epoch) for epoch in epochs]) for cell, values in of_cells.items()]
        return Curve(title, "epoch", epochs, lines, section=SECTION)
    at = [[values[epoch] for values in of_cells.values() if epoch in values] for epoch in epochs]
    low: list[Number] = [min(some) for some in at]
    high: list[Number] = [max(some) for some in at]
    line = Line(f"mean of {len(of_cells)} cells", [statistics.mean(some) for some in at], low, high)
    note = "The band goes from the lowest cell to the highest."
    return Curve(title, "epoch", epochs, [line], section=SECTION, note=note)


def health_of(stores: Mapping[str, TargetStore]) -> Table:
    """List the stores that a run reads, and whether each passes its health check."""
    rows = []
    for name, store in stores.items():
        health, problem = store.health, problem_of(store)
        figures = (health.vectors, health.dimensions, health.median_pair_cosine, health.near_duplicates)
        rows.append((name, *figures, "passed" if not problem else f"failed: {problem}"))
    columns = ("store", "vectors", "dimensions", "median cosine of pairs", "near-duplicates", "health check")
    return Table("Health of the embeddings", columns, rows, section="Stores")


def failed(stores: Mapping[str, TargetStore]) -> list[str]:
    """Say which stores fail their health check."""
    found = {name: problem_of(store) for name, store in stores.items()}
    return [f"{name} failed its health check: {problem}" for name, problem in found.items() if problem]


def artifacts_of(run: RunFolder, cells: Sequence[str], stores: Mapping[str, TargetStore]) -> list[Artifact]:
    """Make all artifacts of a run."""
    return [*learning_curves(run, cells), health_of(stores)]
