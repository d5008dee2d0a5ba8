"""Stimuli decoded and preprocessed in processes of their own, by torch's DataLoader."""

import gc
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from brainhive_cli.core import foreign_code
from brainhive_cli.core.arrays import Bool, Int64, UInt64
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.launch import Launch
from brainhive_cli.data.media.picture_digests import describe_pixels
from brainhive_cli.data.media.pictures import BadPicture
from brainhive_cli.data.media.stimuli import StimulusSet

MAX_DECODERS = 16
"""The most decoding processes by default."""
BATCHES_AHEAD = 2
"""Batches that each process prepares in advance."""


class PreprocessedBatch(NamedTuple):
    """Stimuli, preprocessed for each encoder.

    Attributes:
        read: How many pictures, bad ones included.
        rows: Which pictures each encoder sees, [B].
        views: Preprocessed pictures by encoder, [B, 3, H, W]; no entry where it sees
            none of them.
        pixels: `describe_pixels` of the pictures by encoder, [B, 25]; none for one that
            reads something else.
        bad: What could not be decoded.
    """

    read: int
    rows: dict[str, Int64]
    views: dict[str, Tensor]
    pixels: dict[str, UInt64]
    bad: list[str]


def count_decoders(workers: int | None, launch: Launch) -> int:
    """Say how many processes decode pictures: spare cores, sixteen at most.

    On macOS none but those that are asked for: what is forked there may crash in
    Apple's libraries (multiprocessing's documentation, contexts and start methods).
    """
    if sys.platform == "darwin":
        return workers or 0
    # one core is left to the process that runs the model
    spare = max(0, (os.cpu_count() or 1) // launch.processes - 1)
    return min(MAX_DECODERS, spare) if workers is None else workers


def decode_batches(
    rows: Int64,
    images: StimulusSet,
    views: Mapping[str, Callable[[Any], Tensor]],
    needed: Mapping[str, Bool],
    batch_size: int,
    workers: int,
    pinned: bool = False,
    readers: Mapping[str, Callable[[int], Any]] = MappingProxyType({}),
) -> Iterator[PreprocessedBatch]:
    """Yield pictures in whatever order their batches are ready; each is decoded once
    for all encoders.

    Args:
        rows: Which pictures.
        images: The whole set.
        views: Preprocessing by encoder.
        needed: Which of all pictures each encoder sees, [N].
        batch_size: Pictures a batch.
        workers: Processes that decode; none are started for a few pictures.
        pinned: Deliver pages that a GPU reads by itself, while the next batch is
            prepared.
        readers: What encoders read instead of the stimulus, by row: its captions, or
            another picture.

    Raises:
        BrainhiveError: if an encoder's views of one batch differ in size.
    """
    if len(rows) <= 2 * batch_size:  # not worth starting processes for
        workers = 0
    loader: DataLoader[PreprocessedBatch | BrainhiveError] = DataLoader(
        rows,  # type: ignore[arg-type]
        batch_size,
        num_workers=workers,
        # data sets and encoders hold functions
        multiprocessing_context="fork" if workers else None,
        prefetch_factor=BATCHES_AHEAD if workers else None,
        collate_fn=partial(
            catch_error, partial(_decode_batch, images, views, needed, readers)
        ),
        pin_memory=pinned,
        in_order=False,
    )
    # a collection writes on all that processes share, and so copies it for each
    gc.freeze()
    try:
        for batch in loader:
            if isinstance(batch, BrainhiveError):
                raise batch
            yield batch
    finally:
        gc.unfreeze()


def catch_error(read: Callable[[Sequence[int]], Any], rows: Sequence[int]) -> Any:
    """Read rows in a loader, which would hide an error in a worker's traceback: it is
    returned.
    """
    try:
        return read(rows)
    except Exception as error:
        described = (
            error
            if isinstance(error, BrainhiveError)
            else foreign_code.describe_user_error(error)
        )
        if described:
            return described
        raise


def _decode_batch(
    images: StimulusSet,
    views: Mapping[str, Callable[[Any], Tensor]],
    needed: Mapping[str, Bool],
    readers: Mapping[str, Callable[[int], Any]],
    rows: Sequence[int],
) -> PreprocessedBatch:
    """Decode a batch of rows."""
    # lists by encoder: rows that it sees, identities of their pixels, and their views
    seen: dict[str, list[int]] = {name: [] for name in views}
    pixels: dict[str, list[UInt64]] = {
        name: [] for name in views if name not in readers
    }
    stacks: dict[str, list[Tensor]] = {name: [] for name in views}
    bad = []
    for row in map(int, rows):
        names = [name for name in views if needed[name][row]]
        decoding = [name for name in names if name in pixels]
        try:
            # each encoder's picture or clip, decoded once, or what it reads instead
            sources = {name: readers[name](row) for name in names if name in readers}
            if decoding or not names:
                sources |= dict.fromkeys(decoding, images.open(row))
        except BadPicture as error:
            bad.append(error.message)
            continue

        # identity of the pixels, then the view of each encoder
        if decoding:
            identity = describe_pixels(sources[decoding[0]])
            for name in decoding:
                pixels[name].append(identity)
        for name in names:
            stacks[name].append(views[name](sources[name]))
            seen[name].append(row)
    # arrays of encoders that see any of the pictures
    stacked = {
        name: _stack(tensors, name) for name, tensors in stacks.items() if tensors
    }
    shown = {name: np.array(arrays) for name, arrays in seen.items() if arrays}
    digests = {name: np.stack(arrays) for name, arrays in pixels.items() if arrays}
    return PreprocessedBatch(len(rows), shown, stacked, digests, bad)


def _stack(views: Sequence[Tensor], encoder: str) -> Tensor:
    if len({view.shape for view in views}) > 1:
        raise BrainhiveError(
            f"{encoder} preprocesses pictures of one batch to several sizes, one "
            f"to {list(views[0].shape)}",
            "let its preprocessing end in one size, or batch_size=1",
        )
    return torch.stack(list(views))
