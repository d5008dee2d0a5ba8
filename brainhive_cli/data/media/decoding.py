"""Decoding and preprocessing of stimuli in worker processes of a torch DataLoader."""

import gc
import io
import os
import pickle
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from multiprocessing.connection import Listener
from multiprocessing.reduction import ForkingPickler
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.multiprocessing.reductions import reduce_storage
from torch.utils.data import DataLoader, get_worker_info

from brainhive_cli.core.base import Bool, BrainhiveError, Int64, UInt8, UInt64
from brainhive_cli.core.files import foreign_code
from brainhive_cli.core.runs import Launch
from brainhive_cli.data.media.picture_digests import describe_pixels
from brainhive_cli.data.media.pictures import BadPicture
from brainhive_cli.data.media.stimuli import StimulusSet

MAX_DECODERS = 16
"""Largest default number of decoding processes."""
SHARED_MEMORY = "/dev/shm"
"""Folder of the shared memory of Linux. Docker limits it to 64 MB by default."""


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
    starts = range(0, len(rows), batch_size)
    yield from read_batches(
        partial(_decode_batch, images, views, is_needed, readers),
        len(images),
        [list(rows[start : start + batch_size]) for start in starts],
        workers,
        pinned,
        in_order=False,
    )


def read_batches(
    read: Callable[[Sequence[int]], Any],
    count: int,
    rows: Iterable[Sequence[int]],
    workers: int,
    pinned: bool,
    in_order: bool = True,
) -> Iterator[Any]:
    """Read batches in worker processes.

    Args:
        read: Function that reads the batch of some rows.
        count: Number of rows of the data set.
        rows: Rows of each batch.
        workers: Number of processes, 0 for this process.
        pinned: If True, put batches in pinned memory, from which a GPU copies.
        in_order: If False, yield batches as soon as they are ready.

    Raises:
        BrainhiveError: if a batch cannot be read.
    """
    loader: DataLoader[Any] = DataLoader(
        range(count),  # type: ignore[arg-type]
        batch_sampler=rows,  # type: ignore[arg-type]
        num_workers=workers,
        # data sets and encoders hold functions, which spawn cannot pickle
        multiprocessing_context="fork" if workers else None,
        collate_fn=partial(_read_batch, read),
        pin_memory=pinned,
        in_order=in_order,
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


def _read_batch(read: Callable[[Sequence[int]], Any], rows: Sequence[int]) -> Any:
    """Return the batch of some rows, or the error if it is the user's to correct.

    An error that is raised in a worker would end in a traceback of the DataLoader.
    """
    try:
        batch = read(rows)
    except BrainhiveError as error:
        return error
    except Exception as error:
        user_error = foreign_code.describe_user_error(error)
        if user_error:
            return user_error
        raise
    # pickle here, since the DataLoader waits for ever if its own thread cannot pickle
    return batch if get_worker_info() is None else SentBatch(batch)


class SentBatch:
    """A pickled batch on the way to the main process, which unpickles the batch itself.

    Tensors are shared if there is shared memory for them, or else copied.
    """

    def __init__(self, batch: Any) -> None:
        file = io.BytesIO()
        _BatchPickler(file, pickle.HIGHEST_PROTOCOL).dump(batch)
        self._data = file.getvalue()

    def __reduce__(self) -> tuple[Any, tuple[bytes]]:
        """Return the function that unpickles the batch, and its argument."""
        return pickle.loads, (self._data,)


class _BatchPickler(ForkingPickler):
    """Pickler that copies the tensors that cannot be shared with another process."""

    def reducer_override(self, value: Any) -> Any:
        """Share the memory of a tensor, or copy it into the pickle."""
        if not isinstance(value, torch.UntypedStorage):
            return NotImplemented
        try:
            # torch passes shared memory by a socket in the temporary folder
            Listener().close()
            # leave space for the batches of other processes
            if 2 * value.nbytes() <= shutil.disk_usage(SHARED_MEMORY).free:
                return reduce_storage(value)
        except (OSError, RuntimeError):
            # the socket's path is too long, or other processes have taken the space
            pass
        values = torch.empty(0, dtype=torch.uint8).set_(value).numpy()
        return _make_storage, (values,)


def _make_storage(values: UInt8) -> torch.UntypedStorage:
    """Return the memory of an array, for a tensor."""
    return torch.from_numpy(values).untyped_storage()


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
