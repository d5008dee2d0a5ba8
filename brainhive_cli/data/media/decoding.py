"""Decoding and preprocessing of stimuli in worker processes of a torch DataLoader."""

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
"""Largest default number of decoding processes."""
BATCHES_AHEAD = 2
"""Number of batches that each process prepares in advance."""


class PreprocessedBatch(NamedTuple):
    """Stimuli, preprocessed for each encoder that needs them.

    Attributes:
        n_read: Number of stimuli, including those that could not be decoded.
        rows: Rows [B] of the stimuli, keyed by encoder.
        views: Preprocessed stimuli [B, 3, H, W], keyed by encoder.
        pixels: Identities [B, 25] from `describe_pixels`, keyed by encoder. Encoders
            that read captions or other annotations are absent.
        problems: Message for each stimulus that could not be decoded.
    """

    n_read: int
    rows: dict[str, Int64]
    views: dict[str, Tensor]
    pixels: dict[str, UInt64]
    problems: list[str]


def count_decoders(workers: int | None, launch: Launch) -> int:
    """Return the number of processes that decode pictures.

    Args:
        workers: Requested number. By default, all spare cores up to 16, or 0 on macOS,
            where a forked process may crash in Apple's libraries (Python documentation,
            multiprocessing, contexts and start methods).
        launch: Processes that share the machine.
    """
    if workers is not None:
        return workers
    if sys.platform == "darwin":
        return 0
    # leave one core to the process that runs the model
    n_spare = max(0, (os.cpu_count() or 1) // launch.processes - 1)
    return min(MAX_DECODERS, n_spare)


def decode_batches(
    rows: Int64,
    images: StimulusSet,
    views: Mapping[str, Callable[[Any], Tensor]],
    is_needed: Mapping[str, Bool],
    batch_size: int,
    workers: int,
    pinned: bool = False,
    readers: Mapping[str, Callable[[int], Any]] = MappingProxyType({}),
) -> Iterator[PreprocessedBatch]:
    """Decode each stimulus once for all encoders, and yield batches in any order.

    Args:
        rows: Rows of the stimuli to decode.
        images: Stimulus set of N stimuli.
        views: Preprocessing, keyed by encoder.
        is_needed: Flags [N] of the stimuli that an encoder needs, keyed by encoder.
        batch_size: Number of stimuli in a batch.
        workers: Number of decoding processes. Two batches or fewer are decoded in this
            process.
        pinned: If True, put batches in pinned memory, from which a GPU copies.
        readers: Function from row to caption, mask or other picture, keyed by the
            encoders that read it instead of the stimulus.

    Raises:
        BrainhiveError: if an encoder preprocesses a batch to several sizes.
    """
    if len(rows) <= 2 * batch_size:
        workers = 0
    decode = partial(_decode_batch, images, views, is_needed, readers)
    loader: DataLoader[PreprocessedBatch | BrainhiveError] = DataLoader(
        rows,  # type: ignore[arg-type]
        batch_size,
        num_workers=workers,
        # data sets and encoders hold functions, which spawn cannot pickle
        multiprocessing_context="fork" if workers else None,
        prefetch_factor=BATCHES_AHEAD if workers else None,
        collate_fn=partial(catch_error, decode),
        pin_memory=pinned,
        in_order=False,
    )
    # a garbage collection would write on shared memory, and so copy it
    gc.freeze()
    try:
        for batch in loader:
            if isinstance(batch, BrainhiveError):
                raise batch
            yield batch
    finally:
        gc.unfreeze()


def catch_error(read_rows: Callable[[Sequence[int]], Any], rows: Sequence[int]) -> Any:
    """Return `read_rows(rows)`, or the error if it is the user's to correct.

    An error that is raised in a worker would end in a traceback of the DataLoader.
    """
    try:
        return read_rows(rows)
    except BrainhiveError as error:
        return error
    except Exception as error:
        user_error = foreign_code.describe_user_error(error)
        if user_error:
            return user_error
        raise


def _decode_batch(
    images: StimulusSet,
    views: Mapping[str, Callable[[Any], Tensor]],
    is_needed: Mapping[str, Bool],
    readers: Mapping[str, Callable[[int], Any]],
    rows: Sequence[int],
) -> PreprocessedBatch:
    """Decode and preprocess the stimuli of some rows."""
    view_lists: dict[str, list[Tensor]] = {name: [] for name in views}
    row_lists: dict[str, list[int]] = {name: [] for name in views}
    pixel_lists: dict[str, list[UInt64]] = {}
    for name in views:
        if name not in readers:
            pixel_lists[name] = []

    problems = []
    for row in map(int, rows):
        names = [name for name in views if is_needed[name][row]]
        pixel_names = [name for name in names if name in pixel_lists]
        sources = {}
        try:
            for name in names:
                if name in readers:
                    sources[name] = readers[name](row)
            # without an encoder, find out if it can be decoded
            if pixel_names or not names:
                stimulus = images.open(row)
                sources |= dict.fromkeys(pixel_names, stimulus)
        except BadPicture as error:
            problems.append(error.message)
            continue

        if pixel_names:
            identity = describe_pixels(sources[pixel_names[0]])
            for name in pixel_names:
                pixel_lists[name].append(identity)
        for name in names:
            view_lists[name].append(views[name](sources[name]))
            row_lists[name].append(row)

    # leave out encoders without a stimulus
    batch = PreprocessedBatch(len(rows), {}, {}, {}, problems)
    for name, tensors in view_lists.items():
        if tensors:
            batch.rows[name] = np.array(row_lists[name])
            batch.views[name] = _stack(tensors, name)
            if name in pixel_lists:
                batch.pixels[name] = np.stack(pixel_lists[name])
    return batch


def _stack(views: Sequence[Tensor], encoder: str) -> Tensor:
    """Stack preprocessed stimuli, which must have one shape."""
    if len({view.shape for view in views}) > 1:
        raise BrainhiveError(
            f"{encoder} preprocesses pictures of one batch to several sizes, such as "
            f"{list(views[0].shape)}",
            "let its preprocessing end in one size, or set batch_size=1",
        )
    return torch.stack(list(views))
