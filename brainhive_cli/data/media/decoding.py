"""Stimuli decoded and preprocessed in processes of their own, into memory that they share."""

import gc
import mmap
import multiprocessing
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
import xxhash
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from brainhive_cli.core import foreign_code
from brainhive_cli.core.arrays import Bool, Int64, UInt64
from brainhive_cli.core.errors import BrainhiveError, DeviceError
from brainhive_cli.core.launch import Launch
from brainhive_cli.data.datasets import BadPicture, Clip, StimulusSet
from brainhive_cli.data.media.near_copies import hash_picture

DECODERS = 16
"""The most decoding processes by default."""
BATCHES_AHEAD = 2
"""Batches that each process prepares in advance."""


class Batch(NamedTuple):
    """Some stimuli, preprocessed for each encoder.

    Attributes:
        read: How many pictures, bad ones included.
        rows: Which pictures each encoder sees, [B].
        views: Preprocessed pictures by encoder, [B, 3, H, W].
        pixels: `describe_pixels` of the pictures by encoder, [B, 25]; none for one that reads something else.
        bad: What could not be decoded.
    """

    read: int
    rows: dict[str, Int64]
    views: dict[str, Tensor]
    pixels: dict[str, UInt64]
    bad: list[str]


def digest_pixels(stimulus: Image.Image | Clip) -> int:
    """Digest what a stimulus shows (xxh3, 64 bits): its pixels, or those of all frames, and their shape.

    Files of one picture in different lossless formats, or under different names, have one digest.
    """
    # the shape is a part of the digest: [4, 1] and [2, 2] may have equal bytes
    pixels = stimulus.frames if isinstance(stimulus, Clip) else np.asarray(stimulus)
    digest = xxhash.xxh3_64(str(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.intdigest()


def describe_pixels(stimulus: Image.Image | Clip) -> UInt64:
    """Give what a stimulus is known by, [25]: the digest of its pixels, and its perceptual hash."""
    return np.array([digest_pixels(stimulus), *hash_picture(stimulus)], np.uint64)


def decoders(workers: int | None, launch: Launch) -> int:
    """Say how many processes decode pictures: spare cores, sixteen at most.

    On macOS none but those that are asked for: what is forked there may crash in Apple's libraries
    (multiprocessing's documentation, contexts and start methods).
    """
    if sys.platform == "darwin":
        return workers or 0
    # one core is left to the process that runs the model
    spare = max(0, (os.cpu_count() or 1) // launch.processes - 1)
    return min(DECODERS, spare) if workers is None else workers


def decoded(
    rows: Int64,
    images: StimulusSet,
    views: Mapping[str, Callable[[Any], Tensor]],
    examples: Mapping[str, Tensor],
    needed: Mapping[str, Bool],
    batch_size: int,
    workers: int,
    pinned: bool = False,
    readers: Mapping[str, Callable[[int], Any]] = MappingProxyType({}),
) -> Iterator[Batch]:
    """Yield pictures in whatever order their batches are ready; each is decoded once for all encoders.

    A batch's views are valid until the next batch is taken: their memory is then filled again.

    Args:
        rows: Which pictures.
        images: The whole set.
        views: Preprocessing by encoder.
        examples: A preprocessed picture of each, [3, H, W]; for others of its size there is memory.
        needed: Which of all pictures each encoder sees, [N].
        batch_size: Pictures a batch.
        workers: Processes that decode; none are started for a few pictures.
        pinned: Deliver pages that a GPU reads by itself, while the next batch is prepared.
        readers: What encoders read instead of the stimulus, by row: its captions, or another picture.

    Raises:
        BrainhiveError: if an encoder's views of one batch differ in size.
    """
    if len(rows) <= 2 * batch_size:  # not worth starting processes for
        workers = 0
    lag = 1 if pinned else 0  # a GPU reads a batch while the next one is prepared
    ring = Ring(examples, batch_size, BATCHES_AHEAD * workers + 1 + lag)
    loader = DataLoader(
        _Filling(rows, images, views, needed, ring, readers),
        batch_size,
        num_workers=workers,
        multiprocessing_context="fork" if workers else None,  # data sets and encoders hold functions
        prefetch_factor=BATCHES_AHEAD if workers else None,
        collate_fn=lambda batch: batch,
        in_order=False,
    )
    gc.freeze()  # a collection writes on all that processes share, and so copies it for each
    try:
        # slots are lent to the caller, and a GPU's come back one batch later
        items = iter(loader)  # starts the processes
        if pinned:
            ring.pin()
        lent: deque[tuple[int, Any]] = deque()
        for filled in items:
            if isinstance(filled, BrainhiveError):
                raise filled
            # a slot's memory, cut to the rows of this batch: [B, 3, H, W] by encoder
            slot, batch = filled
            memory = ring.batches[slot]
            views = {
                n: batch.views.get(n, memory[n][: len(batch_rows)]) for n, batch_rows in batch.rows.items()
            }
            yield batch._replace(views=views)
            lent.append((slot, torch.cuda.current_stream().record_event() if pinned else None))
            # a slot is free again once the GPU has read it
            if len(lent) > lag:
                slot, was_read = lent.popleft()
                if was_read:
                    was_read.synchronize()
                ring.free.put(slot)
    finally:
        # pages are unlocked before they are freed, as CUDA keeps their addresses
        gc.unfreeze()
        if pinned:
            torch.cuda.synchronize()
            for memory in (memory for batch in ring.batches for memory in batch.values()):
                torch.cuda.cudart().cudaHostUnregister(memory.data_ptr())


class Ring:
    """A few batches of views that decoding processes fill in turn: fresh pages each time would slow them.

    The pages are anonymous, so that a container's small `/dev/shm` does not bound them. Make it before the
    processes are forked.

    Args:
        examples: One view of each kind, [3, H, W].
        batch_size: Most views of a batch.
        slots: Batches that are filled, wait, or are in use at one time.

    Attributes:
        batches: The memory of each, [B, 3, H, W] by kind.
        free: Those that nobody uses.
    """

    def __init__(self, examples: Mapping[str, Tensor], batch_size: int, slots: int) -> None:
        self.batches: list[dict[str, Tensor]] = [{} for _ in range(slots)]
        for batch in self.batches:
            # one anonymous mapping for each kind of view, of a full batch [B, 3, H, W]
            for name, view in examples.items():
                pages = mmap.mmap(-1, batch_size * view.nbytes)
                batch[name] = torch.frombuffer(pages, dtype=view.dtype).view(batch_size, *view.shape)
        # free slots pass between processes through a pipe
        self.free: multiprocessing.SimpleQueue[int] = multiprocessing.get_context("fork").SimpleQueue()
        for slot in range(slots):
            self.free.put(slot)

    def pin(self) -> None:
        """Lock the pages, so that a GPU reads them by itself.

        Raises:
            DeviceError: if they cannot be locked.
        """
        cuda = torch.cuda.cudart()
        for memory in (memory for batch in self.batches for memory in batch.values()):
            if failed := int(cuda.cudaHostRegister(memory.data_ptr(), memory.nbytes, 0)):
                problem = f"CUDA cannot lock {memory.nbytes / 1e6:.0f} MB of pictures (error {failed})"
                raise DeviceError(problem, "lower batch_size or run.workers")


@dataclass(eq=False)
class _Filling(TorchDataset[tuple[int, Batch] | BrainhiveError]):
    """Whole batches; what processes share is arrays, since a list's reference counts would copy its pages."""

    rows: Int64
    images: StimulusSet
    views: Mapping[str, Callable[[Any], Tensor]]
    needed: Mapping[str, Bool]
    ring: Ring
    readers: Mapping[str, Callable[[int], Any]]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, indices: list[int]) -> tuple[int, Batch] | BrainhiveError:
        try:
            return self._fill(indices)
        except Exception as error:  # a loader would hide it in the worker's traceback
            if described := error if isinstance(error, BrainhiveError) else foreign_code.mistake(error):
                return described
            raise

    def _fill(self, indices: list[int]) -> tuple[int, Batch]:
        """Fill the next free batch, and say which; it holds views of an unexpected size itself."""
        # lists by group: rows that were seen, pixels, and views of unexpected sizes
        slot = self.ring.free.get()  # waits for a batch that nobody uses
        memory = self.ring.batches[slot]
        seen: dict[str, list[int]] = {name: [] for name in self.views}
        pixels: dict[str, list[UInt64]] = {n: [] for n in self.views if n not in self.readers}
        loose: dict[str, list[Tensor]] = {}
        bad = []
        for row in self.rows[indices].tolist():
            names = [name for name in self.views if self.needed[name][row]]
            decoding = [name for name in names if name in pixels]
            try:
                # each encoder's picture or clip, decoded once, or what it reads in its place
                sources = {n: self.readers[n](row) for n in names if n in self.readers}
                if decoding or not names:
                    sources |= dict.fromkeys(decoding, self.images.open(row))
            except BadPicture as error:
                bad.append(error.message)
                continue

            # identity of the pixels, then the view of each group
            if decoding:
                known_by = describe_pixels(sources[decoding[0]])
                for name in decoding:
                    pixels[name].append(known_by)
            # into the next row of shared memory; a view of another size is sent by itself
            for name in names:
                view, filled = self.views[name](sources[name]), memory[name][len(seen[name])]
                if view.shape == filled.shape:
                    filled.copy_(view)
                else:
                    loose.setdefault(name, []).append(view)
                seen[name].append(row)

        # a batch without what could not be decoded
        stacked = {name: _stacked(views, name, len(seen[name])) for name, views in loose.items()}
        shown = {name: np.array(arrays) for name, arrays in seen.items() if arrays}
        digests = {name: np.stack(arrays) for name, arrays in pixels.items() if arrays}
        return slot, Batch(len(indices), shown, stacked, digests, bad)


def _stacked(views: Sequence[Tensor], encoder: str, count: int) -> Tensor:
    # fewer loose views than rows: others of the batch had the size of the ring
    if len(views) < count or len({view.shape for view in views}) > 1:
        raise BrainhiveError(
            f"{encoder} preprocesses pictures of one batch to several sizes, one to {list(views[0].shape)}",
            "let its preprocessing end in one size, or batch_size=1",
        )
    return torch.stack(list(views))
