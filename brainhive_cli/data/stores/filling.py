"""Stores filled: locked, resumed where they were interrupted, and renamed when complete."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from brainhive_cli.core import interruption
from brainhive_cli.core.file_lock import FileLock
from brainhive_cli.core.launch import Launch
from brainhive_cli.data.stores import hdf5
from brainhive_cli.data.stores.target_store import Blank, TargetWriter


@dataclass(frozen=True)
class Filling:
    """Stores that are being filled by the processes of a launch.

    Attributes:
        writers: One a store, in order.
    """

    writers: tuple[TargetWriter, ...]
    launch: Launch

    def finish(self) -> None:
        """Wait for all processes, then give the stores their final names."""
        interruption.check()
        self.launch.barrier()
        if self.launch.is_main:
            for writer in self.writers:
                writer.finish()
        self.launch.barrier()


@contextmanager
def filling(
    blanks: Sequence[Blank], launch: Launch, again: bool = False, keep: bool = True, reopen: bool = False
) -> Iterator[Filling]:
    """Create stores, or resume interrupted ones, and lock them until the block ends.

    Args:
        blanks: The stores; none of another command is written to.
        launch: This process among those that fill them.
        again: Start from the first row, also where an interrupted store could be resumed.
        keep: Keep what is written when the block ends before `finish`, for the next time.
        reopen: Add to a finished store, which has no final name meanwhile.

    Raises:
        BrainhiveError: if another command writes one of the stores.
    """
    with ExitStack() as held:
        parts = [hdf5.part_of(blank.path) for blank in blanks]
        if launch.is_main:
            for blank in blanks:
                held.callback(FileLock.for_path(blank.path).release)
            for blank, part in zip(blanks, parts, strict=True):
                if reopen and blank.path.is_file():
                    os.replace(blank.path, part)
                if again:
                    part.unlink(missing_ok=True)
                if not keep:
                    held.callback(part.unlink, missing_ok=True)
                blank.create()
        launch.barrier()
        writers = []
        for blank in blanks:
            writers.append(TargetWriter(blank.path))
            held.callback(writers[-1].close)
        launch.barrier()  # nobody writes before every process knows what is pending
        yield Filling(tuple(writers), launch)
