"""Pictures through networks into stores: decoding, encoding and writing overlap."""

import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brainhive_cli.core.console import Bar
from brainhive_cli.core.launch import Launch
from brainhive_cli.data.datasets import StimulusSet
from brainhive_cli.data.media.decoding import decoded
from brainhive_cli.data.stores.target_store import PIXELS, TargetWriter
from brainhive_cli.data.targets.encoder_groups import EncoderGroup
from brainhive_cli.data.targets.throughput import WRITING, Pace

AHEAD = 4
"""Batches of a store that may wait in memory to be written."""


def stream(
    rows: NDArray[np.int64],
    images: StimulusSet,
    groups: Sequence[EncoderGroup],
    writers: Mapping[str, TargetWriter],
    pending: Mapping[str, NDArray[np.bool_]],
    batch_size: int,
    workers: int,
    launch: Launch,
    bar: Bar,
) -> list[str]:
    """Decode in worker processes, encode here, write in a thread; each picture is decoded once.

    Args:
        rows: Which pictures.
        images: The whole set.
        groups: Networks that encode the pictures.
        writers: The stores to be filled, by encoder.
        pending: Which of all pictures each store lacks, [N].
        batch_size: Pictures a forward pass.
        workers: Processes that decode.
        launch: This process among those that share the work.
        bar: Counts the pictures, and names what limits.

    Returns:
        What could not be decoded.
    """
    bad: list[str] = []
    writes: deque[tuple[str, Future[tuple[float, float]]]] = deque()
    on_gpu = launch.device.type == "cuda"
    names = {group.name: [name for name in group.names if name in writers] for group in groups}
    views = {group.name: group.view for group in groups}
    readers = {group.name: read for group in groups if (read := group.reader(images)) is not None}
    needed = {group: np.logical_or.reduce([pending[name] for name in some]) for group, some in names.items()}
    blanks = {group.name: group.blank_of(images) for group in groups}
    batches = decoded(rows, images, views, blanks, needed, batch_size, workers, on_gpu, readers)
    pace = Pace(parallel=workers > 0)
    with ThreadPoolExecutor(1) as writing:
        for batch in pace.batches(batches):
            bad += batch.bad
            for group in (group for group in groups if group.name in batch.views):
                at = batch.rows[group.name]
                with pace.at(group.name):
                    found = group.encode(batch.views[group.name])
                    values = {name: found[name].to("cpu", non_blocking=True) for name in names[group.name]}
                there = torch.cuda.current_stream(launch.device).record_event() if on_gpu else None
                for name, some in values.items():
                    lacks, pixels = pending[name][at], batch.pixels.get(group.name)
                    write = writing.submit(_keep, writers[name], at, some, pixels, lacks, there)
                    writes.append((group.name, write))
            while len(writes) > AHEAD * len(writers):  # bounds what waits, and raises what failed
                _settle(*writes.popleft(), pace)
            bar.advance(batch.read * launch.processes, f"{pace.limit} limits")
        for group_name, write in writes:
            _settle(group_name, write, pace)
    return bad


def _keep(
    writer: TargetWriter,
    rows: NDArray[np.int64],
    values: Tensor,
    pixels: NDArray[np.uint64] | None,
    lacks: NDArray[np.bool_],
    there: Any,
) -> tuple[float, float]:
    """Write what the store lacks of embeddings [B, …] and digests of pixels [B], once they are `there`.

    Returns:
        The seconds that waiting and writing took.
    """
    start = time.perf_counter()
    if there is not None:
        there.synchronize()
    waited = time.perf_counter()
    embeddings, digests = values.numpy(), {} if pixels is None else {PIXELS: pixels}
    if not lacks.all():  # nearly always all are lacking: then nothing is copied
        rows, embeddings = rows[lacks], embeddings[lacks]
        digests = {name: some[lacks] for name, some in digests.items()}
    writer.write(rows, embeddings, **digests)
    return waited - start, time.perf_counter() - waited


def _settle(group: str, write: Future[tuple[float, float]], pace: Pace) -> None:
    for stage, spent_s in zip((group, WRITING), write.result(), strict=True):
        pace.count(stage, spent_s)
