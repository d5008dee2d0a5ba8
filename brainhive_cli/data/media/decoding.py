"""Stimuli decoded and preprocessed in processes of their own."""

import gc
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
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from brainhive_cli.core import foreign_code
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.launch import Launch
from brainhive_cli.data.datasets import BadPicture, Clip, StimulusSet
from brainhive_cli.data.media.ring import Ring

DECODERS = 16
"""The most decoding processes by default."""
AHEAD = 2
"""Batches that each process prepares in advance."""


class Batch(NamedTuple):
    """Some stimuli, preprocessed for each encoder.

    Attributes:
        read: How many pictures, bad ones included.
        rows: Which pictures each encoder sees, [B].
        views: Preprocessed pictures by encoder, [B, 3, H, W].
        pixels: `digest_pixels` of the pictures by encoder, [B]; none for one that reads something else.
        bad: What could not be decoded.
    """

    read: int
    rows: dict[str, NDArray[np.int64]]
    views: dict[str, Tensor]
    pixels: dict[str, NDArray[np.uint64]]
    bad: list[str]


def digest_pixels(stimulus: Image.Image | Clip) -> int:
    """Digest what a stimulus shows (xxh3, 64 bits): its pixels, or those of all frames, and their shape.

    Files of one picture in different lossless formats, or under different names, have one digest.
    """
    pixels = stimulus.frames if isinstance(stimulus, Clip) else np.asarray(stimulus)
    digest = xxhash.xxh3_64(str(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.intdigest()


def decoders(workers: int | None, launch: Launch) -> int:
    """Say how many processes decode pictures: spare cores, sixteen at most.

    On macOS none but those that are asked for: what is forked there may crash in Apple's libraries
    (multiprocessing's documentation, contexts and start methods).
    """
    if sys.platform == "darwin":
        return workers or 0
    spare = max(0, (os.cpu_count() or 1) // launch.processes - 1)
    return min(DECODERS, spare) if workers is None else workers


def decoded(
    rows: NDArray[np.int64],
    images: StimulusSet,
    views: Mapping[str, Callable[[Any], Tensor]],
    examples: Mapping[str, Tensor],
    needed: Mapping[str, NDArray[np.bool_]],
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
        readers: What encoders read in place of the stimulus, by row: its captions, or another picture.

    Raises:
        BrainhiveError: if an encoder's views of one batch differ in size.
    """
    if len(rows) <= 2 * batch_size:  # not worth starting processes for
        workers = 0
    lag = 1 if pinned else 0  # a GPU reads a batch while the next one is prepared
    ring = Ring(examples, batch_size, AHEAD * workers + 1 + lag)
    loader = DataLoader(
        _Filling(rows, images, views, needed, ring, readers),
        batch_size,
        num_workers=workers,
        multiprocessing_context="fork" if workers else None,  # data sets and encoders hold functions
        prefetch_factor=AHEAD if workers else None,
        collate_fn=lambda batch: batch,
        in_order=False,
    )
    gc.freeze()  # a collection writes on all that processes share, and so copies it for each
    try:
        filled = iter(loader)  # starts the processes
        if pinned:
            ring.pin()
        in_use: deque[tuple[int, Any]] = deque()
        for each in filled:
            if isinstance(each, BrainhiveError):
                raise each
            yield each.batch(ring)
            in_use.append((each.slot, torch.cuda.current_stream().record_event() if pinned else None))
            if len(in_use) > lag:
                slot, was_read = in_use.popleft()
                if was_read:
                    was_read.synchronize()
                ring.release(slot)
    finally:
        gc.unfreeze()
        if pinned:
            torch.cuda.synchronize()
            ring.unpin()


class _Filled(NamedTuple):
    """The answer of a process that has filled a batch; it holds views of an unexpected size itself."""

    read: int
    rows: dict[str, list[int]]
    slot: int
    loose: dict[str, Tensor]
    pixels: dict[str, list[int]]
    bad: list[str]

    def batch(self, ring: Ring) -> Batch:
        memory = ring[self.slot]
        rows = {name: np.array(some) for name, some in self.rows.items() if some}
        views = {name: memory[name][: len(some)] for name, some in rows.items()}
        pixels = {name: np.array(some, np.uint64) for name, some in self.pixels.items() if some}
        return Batch(self.read, rows, views | self.loose, pixels, self.bad)


@dataclass(eq=False)
class _Filling(TorchDataset[_Filled | BrainhiveError]):
    """Whole batches; what processes share is arrays, since a list's reference counts would copy its pages."""

    rows: NDArray[np.int64]
    images: StimulusSet
    views: Mapping[str, Callable[[Any], Tensor]]
    needed: Mapping[str, NDArray[np.bool_]]
    ring: Ring
    readers: Mapping[str, Callable[[int], Any]]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, indices: list[int]) -> _Filled | BrainhiveError:
        try:
            return self._fill(indices)
        except Exception as error:  # a loader would hide it in the worker's traceback
            if described := error if isinstance(error, BrainhiveError) else foreign_code.mistake(error):
                return described
            raise

    def _fill(self, indices: list[int]) -> _Filled:
        slot = self.ring.take()
        memory = self.ring[slot]
        seen: dict[str, list[int]] = {name: [] for name in self.views}
        pixels: dict[str, list[int]] = {name: [] for name in self.views if name not in self.readers}
        loose: dict[str, list[Tensor]] = {}
        bad = []
        for row in self.rows[indices].tolist():
            names = [name for name in self.views if self.needed[name][row]]
            decoding = [name for name in names if name in pixels]
            try:
                sources = self._sources(row, names)
            except BadPicture as error:
                bad.append(error.message)
                continue
            digest = digest_pixels(sources[decoding[0]]) if decoding else 0
            for name in decoding:
                pixels[name].append(digest)
            for name in names:
                view, place = self.views[name](sources[name]), memory[name][len(seen[name])]
                if view.shape == place.shape:
                    place.copy_(view)
                else:
                    loose.setdefault(name, []).append(view)
                seen[name].append(row)
        stacked = {name: _stacked(views, name, len(seen[name])) for name, views in loose.items()}
        return _Filled(len(indices), seen, slot, stacked, pixels, bad)

    def _sources(self, row: int, names: Sequence[str]) -> dict[str, Any]:
        """Give each encoder the picture or clip, decoded once, or what it reads in its place."""
        found: dict[str, Any] = {n: self.readers[n](row) for n in names if n in self.readers}
        if not found or len(found) < len(names):
            found = {**dict.fromkeys(names, self.images.open(row)), **found}
        return found


def _stacked(views: Sequence[Tensor], encoder: str, count: int) -> Tensor:
    if len(views) < count or len({view.shape for view in views}) > 1:
        raise BrainhiveError(
            f"{encoder} preprocesses pictures of one batch to several sizes, one to {list(views[0].shape)}",
            "let its preprocessing end in one size, or batch_size=1",
        )
    return torch.stack(list(views))
