"""Selected signals as arrays: in memory, or written once to a file and mapped."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.file_lock import FileLock
from brainhive_cli.signals.selection import Chunk, Selection
from brainhive_cli.stores import hdf5

Signals = NDArray[np.float32]


@dataclass(frozen=True)
class InMemory:
    """Selected signals as arrays in memory."""

    selection: Selection

    def averages(self) -> Signals:
        """Average the repetitions of each picture: [N, C, T]."""
        count, _, *shape = self.selection.shape
        return _collect(self.selection.averages(), np.empty((count, *shape), np.float32))

    def trials(self) -> Signals:
        """Take each repetition by itself: [N, R, C, T]."""
        return _collect(self.selection.trials(), np.empty(self.selection.shape, np.float32))


def _collect(chunks: Iterator[Chunk], into: Signals) -> Signals:
    for part, chunk in chunks:
        into[part] = chunk
    return into


@dataclass(frozen=True)
class Mapped:
    """Selected signals as arrays in files, written the first time and mapped.

    Attributes:
        source: The signal store they are selected from; the files lie below its folder.
        split: Which split of it.
    """

    selection: Selection
    source: Path
    split: str

    def averages(self) -> Signals:
        """Average the repetitions of each picture: [N, C, T]."""
        count, _, *shape = self.selection.shape
        return self._mapped("averages", self.selection.averages(), (count, *shape))

    def trials(self) -> Signals:
        """Take each repetition by itself: [N, R, C, T]."""
        return self._mapped("trials", self.selection.trials(), self.selection.shape)

    def _mapped(self, what: str, chunks: Iterator[Chunk], shape: tuple[int, ...]) -> Signals:
        name = f"{self.source.stem}_{self.split}_{what}_{self.selection.fingerprint()}.h5"
        path, changed_ns = self.source.parent / "prepared" / name, self.source.stat().st_mtime_ns
        claim = FileLock.for_path(path, wait=True)  # of processes that want the same, one writes
        if not path.is_file() or _read(path)[1] != changed_ns:
            _write(path, chunks, shape, changed_ns)
        claim.release()
        return _read(path)[0]


def _read(path: Path) -> tuple[Signals, int]:
    """Map the signals; and say when what they were made of had changed last."""
    with hdf5.open_file(path, "run again") as file:
        return hdf5.mapped(file["signal"]), hdf5.get_attributes(file)["source_changed_ns"]


def _write(path: Path, chunks: Iterator[Chunk], shape: tuple[int, ...], changed_ns: int) -> None:
    part = hdf5.part_of(path)
    hdf5.create(part, {"signal": (shape, "float32")}, {}, {"source_changed_ns": changed_ns})
    writer = hdf5.RowWriter(part, "signal")
    for rows, chunk in chunks:
        writer.write(np.arange(rows.start, rows.stop), chunk)
    writer.close()
    os.replace(part, path)
