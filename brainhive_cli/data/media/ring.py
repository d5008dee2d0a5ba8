"""Batches in memory that processes share, filled again and again."""

import math
import mmap
import multiprocessing
from collections.abc import Mapping

import torch
from torch import Tensor

from brainhive_cli.core.errors import DeviceError


class Ring:
    """A few batches of views that decoding processes fill in turn: fresh pages each time would slow them.

    The pages are anonymous, so that a container's small `/dev/shm` does not bound them. Make it before the
    processes are forked.

    Args:
        examples: One view of each kind, [3, H, W].
        batch_size: Most views of a batch.
        slots: Batches that are filled, wait, or are in use at one time.
    """

    def __init__(self, examples: Mapping[str, Tensor], batch_size: int, slots: int) -> None:
        self._batches = [
            {name: _shared((batch_size, *view.shape), view.dtype) for name, view in examples.items()}
            for _ in range(slots)
        ]
        self._free: multiprocessing.SimpleQueue[int] = multiprocessing.get_context("fork").SimpleQueue()
        for slot in range(slots):
            self._free.put(slot)

    def take(self) -> int:
        """Wait for a batch that nobody uses."""
        return self._free.get()

    def release(self, slot: int) -> None:
        """Let a batch be filled again."""
        self._free.put(slot)

    def __getitem__(self, slot: int) -> dict[str, Tensor]:
        """Return the memory of a batch, [B, 3, H, W] by kind."""
        return self._batches[slot]

    def pin(self) -> None:
        """Lock the pages, so that a GPU reads them by itself.

        Raises:
            DeviceError: if they cannot be locked.
        """
        cuda = torch.cuda.cudart()
        for memory in (memory for batch in self._batches for memory in batch.values()):
            if failed := int(cuda.cudaHostRegister(memory.data_ptr(), memory.nbytes, 0)):
                raise DeviceError(
                    f"CUDA cannot lock {memory.nbytes / 1e6:.0f} MB of pictures (error {failed})",
                    "lower batch_size or run.workers",
                )

    def unpin(self) -> None:
        """Unlock the pages."""
        for memory in (memory for batch in self._batches for memory in batch.values()):
            torch.cuda.cudart().cudaHostUnregister(memory.data_ptr())


def _shared(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    size = math.prod(shape) * dtype.itemsize
    return torch.frombuffer(mmap.mmap(-1, size), dtype=dtype).view(shape)
