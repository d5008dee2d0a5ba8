"""How far the cells of a run are, read from its log, which all processes write."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from brainhive_cli.core import documents
from brainhive_cli.core.console import Table, clock
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.runs import FINISHED
from brainhive_cli.training.alignment.cells import Cell

COLUMNS = ("cell", "seed", "epoch", "loss", "val top-1", "time left")


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
