"""Selected signals as arrays: in memory, or written once to a file and mapped."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.file_lock import FileLock
from brainhive_cli.core.files import publish
from brainhive_cli.data.signals.selection import Chunk, Selection
from brainhive_cli.data.stores import hdf5
from brainhive_cli.data.stores.hdf5 import StoredRows

Signals = NDArray[np.float32] | StoredRows
"""Signals in memory, or in a file."""
Content = Literal["averages", "trials"]
"""The average over the repetitions of each stimulus [N, C, T], or each repetition by itself [N, R, C, T]."""

AGAIN = "run the same command again"
"""What makes a file."""


def in_memory(selection: Selection, content: Content) -> NDArray[np.float32]:
    """Read selected signals: [N, C, T] averages, or [N, R, C, T] trials."""
    signals = np.empty(_shape(selection, content), np.float32)
    for rows, chunk in _chunks(selection, content):
        signals[rows] = chunk
    return signals


def mapped(selection: Selection, content: Content, store: Path, split: str) -> StoredRows:
    """Map selected signals, [N, C, T] or [N, R, C, T], from a file that is written the first time.

    Args:
        selection: What is selected.
        content: Averages or trials.
        store: The signal store that it is selected from; the file lies below its folder.
        split: Split of the store.
    """
    name = f"{store.stem}_{split}_{content}_{selection.fingerprint()}.h5"
    path, changed_ns = store.parent / "prepared" / name, store.stat().st_mtime_ns
    lock = FileLock.for_path(path, wait=True)  # of processes that want the same, one writes
    shape = _shape(selection, content)
    if not _is_current(path, shape, changed_ns):
        _write(path, selection, content, changed_ns)
    lock.release()
    return _read(path, shape)[0]


def _shape(selection: Selection, content: Content) -> tuple[int, ...]:
    count, most, *shape = selection.shape
    return (count, *shape) if content == "averages" else (count, most, *shape)


def _chunks(selection: Selection, content: Content) -> Iterator[Chunk]:
    return selection.averages() if content == "averages" else selection.trials()


def _is_current(path: Path, shape: tuple[int, ...], changed_ns: int) -> bool:
    try:
        return _read(path, shape)[1] == changed_ns
    except BrainhiveError:  # absent or damaged
        return False


def _read(path: Path, shape: tuple[int, ...]) -> tuple[StoredRows, int]:
    """Map the signals; and return when the store had last changed that they were selected from."""
    with hdf5.open_file(path, AGAIN) as file:
        signals = StoredRows(file, "signal", lambda: AGAIN, "f")
        if signals.shape != shape or signals.dtype != np.float32:
            raise ValueError(f"it holds {signals.dtype} {list(signals.shape)}, not float32 {list(shape)}")
        return signals, hdf5.get_attributes(file)["source_changed_ns"]


def _write(path: Path, selection: Selection, content: Content, changed_ns: int) -> None:
    part, shape = hdf5.part_of(path), _shape(selection, content)
    hdf5.create(part, {"signal": (shape, "float32")}, {}, {"source_changed_ns": changed_ns})
    writer = hdf5.RowWriter(part, "signal")
    for rows, chunk in _chunks(selection, content):
        writer.write(np.arange(rows.start, rows.stop), chunk)
    writer.close()
    hdf5.seal(part)
    publish(part, path)
