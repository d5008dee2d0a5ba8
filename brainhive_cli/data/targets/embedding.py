"""Work of embed: whether a store is done, and pictures through networks into those that are not."""

import time
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from brainhive_cli.core import console
from brainhive_cli.core.arrays import Bool, Int64, UInt64
from brainhive_cli.core.console import Bar
from brainhive_cli.core.errors import raise_if_asked_to_stop
from brainhive_cli.core.files import portable
from brainhive_cli.core.launch import Launch, library_versions
from brainhive_cli.data.datasets import StimulusSet
from brainhive_cli.data.media.decoding import decoded
from brainhive_cli.data.stores.target_store import PIXELS, Blank, TargetStore, TargetWriter
from brainhive_cli.data.targets.encoder_groups import EncoderGroup, alternatives, shape_of
from brainhive_cli.data.targets.target_stores import is_same_network
from brainhive_cli.models.encoders import EncoderConfig

AHEAD = 4
"""Batches of a store that may wait in memory to be written."""
T = TypeVar("T")
DECODING, WRITING = "decoding", "writing"
RECENT = 0.95
"""The weight of a second one batch later, so that about the last twenty batches count."""
HIDDEN = 0.1
"""Decoding in other processes is the limit once encoders wait for it more than this share of the time."""


@dataclass(frozen=True)
class StoreJob:
    """One store to be filled.

    Attributes:
        config: The encoder.
        images: The stimuli.
        path: Where the store lies, or will lie.
        precision: Autocast dtype of the forward pass.
        dtype: In which targets are kept, unless they are whole numbers.
        skip_bad: Whether pictures that cannot be decoded are accepted as gaps.
    """

    config: EncoderConfig
    images: StimulusSet
    path: Path
    precision: str
    dtype: str
    skip_bad: bool

    def reason(self, group: EncoderGroup | None) -> str:
        """Say why there is work to do; empty for a finished store of these pictures, made in this way.

        Args:
            group: The encoder; None where its weights are not on this machine, and are taken to be those of
                the store. What made an imported store is not compared.
        """
        if not self.path.is_file():
            return "does not exist"
        store = TargetStore.open(self.path)

        # compare settings, pictures, preprocessing and weights
        stored, expected = store.attributes, self._attributes
        differs = [key for key in ("config", "dtype", "precision") if stored.get(key) != expected[key]]
        # without the files, stand-ins take the place of the pictures
        if self.images.missing is None and store.image_ids != self.images.image_ids:
            differs.append("pictures")
        # known only once the weights are loaded
        if group and stored.get("preprocessing") != group.encoder.preprocessing:
            differs.append("preprocessing")
        if group and stored["weights"].get("digest") != group.encoder.weights.get("digest"):
            differs.append("weights")
        if group and not is_same_network(stored["weights"], group.encoder.weights):
            differs.append("network")
        # what made an imported store is not known, but for its pictures
        if "imported" in stored:
            return "was made with other pictures" if "pictures" in differs else ""
        if differs:
            return f"was made with other {', '.join(differs)}"
        return "has gaps" if stored["skipped"] and not self.skip_bad else ""

    @property
    def imported(self) -> str:
        """Say from where the store was imported, and what follows; empty for one that was made here."""
        first, *further = TargetStore.open(self.path).attributes.get("imported") or [""]
        origin = f"{first} and others" if further else first
        return (
            f"was imported from {origin}, so what made it is not known: --again makes it here"
            if first
            else ""
        )

    def describe(self) -> str:
        """Say whether the store is done, or why not and how many bytes will be written."""
        if not (reason := self.reason(None)):
            return self.imported or "done"
        why = f" ({reason})" if self.path.is_file() else ""
        if (shape := self.config.known_shape) is None:
            return f"to do, of a size that is known with the weights{why}"

        # size of the targets, without names and checksums
        count = len(self.images) * (alternatives(self.config, self.images) or 1)
        size = count * prod(shape_of(self.config, shape, self.images)) * np.dtype(self.kept_as).itemsize
        return f"to do{why}, {console.size(size)} to write"

    @property
    def kept_as(self) -> str:
        """The dtype of the store."""
        return self.config.store_dtype or self.dtype

    def blank(self, group: EncoderGroup) -> Blank:
        """Describe the store before it is filled."""
        # what made the targets, by which `reason` compares
        images, encoder = self.images, group.encoder
        made_by = {"weights": encoder.weights, "preprocessing": encoder.preprocessing}
        if space := getattr(encoder.module, "latent_space", ""):  # of an autoencoder
            made_by["latent_space"] = space
        attributes = {**self._attributes, **made_by, "versions": library_versions()}
        # several captions or frames are an axis K before the shape of a target
        shape = shape_of(self.config, group.shapes[self.config.name], images)
        if (count := alternatives(self.config, images)) is not None:
            attributes, shape = {**attributes, "alternatives": count}, (count, *shape)
        # digests of pixels exist only where the stimuli themselves are decoded
        decodes = self.config.encodes == "pixels" and not self.config.pictures
        names = images.image_ids, images.concepts
        return Blank(self.path, *names, shape, self.kept_as, attributes, has_pixels=decodes)

    @property
    def _attributes(self) -> dict[str, Any]:
        return {
            "encoder": self.config.name,
            "config": portable(self.config.model_dump(mode="json")),
            "dataset": self.images.dataset,
            "split": self.images.split,
            "dtype": self.kept_as,
            "precision": self.precision,
        }


class Pace:
    """Seconds spent at each stage.

    Args:
        parallel: Whether decoding runs in other processes, so that only waiting for it is measured.
    """

    def __init__(self, parallel: bool) -> None:
        self._parallel = parallel
        self._spent: dict[str, float] = defaultdict(float)

    def batches(self, source: Iterable[T]) -> Iterator[T]:
        """Yield what `source` yields, counting the time that it takes as decoding."""
        iterator = iter(source)
        while True:
            # older batches count less, so that the limit is the present one
            for stage in self._spent:
                self._spent[stage] *= RECENT
            # time until the next batch: its decoding, or the wait for other processes
            with self.at(DECODING):
                batch = next(iterator, None)
            if batch is None:
                return
            yield batch

    @contextmanager
    def at(self, stage: str) -> Iterator[None]:
        """Count the time of a block."""
        start = time.perf_counter()
        yield
        self.count(stage, time.perf_counter() - start)

    def count(self, stage: str, spent_s: float) -> None:
        """Count seconds at a stage."""
        self._spent[stage] += spent_s

    def settle(self, group: str, write: Future[tuple[float, float]]) -> None:
        """Count the seconds of a write that has ended: those that it waited for the group, and its own."""
        waited_s, written_s = write.result()
        self.count(group, waited_s)
        self.count(WRITING, written_s)

    @property
    def limit(self) -> str:
        """The stage that holds the others up; empty before the first."""
        # decoding in other processes overlaps with encoding, so that any wait matters
        if self._parallel and self._spent.get(DECODING, 0.0) > HIDDEN * sum(self._spent.values()):
            return DECODING
        return max(self._spent, key=self._spent.__getitem__, default="")


def stream(
    rows: Int64,
    images: StimulusSet,
    groups: Sequence[EncoderGroup],
    writers: Mapping[str, TargetWriter],
    pending: Mapping[str, Bool],
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
    # encoders of each group that still lack rows, and the rows that they lack
    bad = []
    writes: deque[tuple[str, Future[tuple[float, float]]]] = deque()
    on_gpu = launch.device.type == "cuda"
    names = {group.name: [name for name in group.names if name in writers] for group in groups}
    views = {group.name: group.view for group in groups}
    readers = {group.name: read for group in groups if (read := group.reader(images)) is not None}
    # [N] by group: rows that any of its stores lacks
    needed = {
        group: np.logical_or.reduce([pending[name] for name in members]) for group, members in names.items()
    }

    # batches are decoded by workers, encoded here, and written by a thread
    batches = decoded(rows, images, views, needed, batch_size, workers, on_gpu, readers)
    pace = Pace(parallel=workers > 0)
    with ThreadPoolExecutor(1) as writing:
        for batch in pace.batches(batches):
            raise_if_asked_to_stop()  # what is written is kept
            bad += batch.bad
            for group in (group for group in groups if group.name in batch.views):
                at = batch.rows[group.name]
                # one forward pass; the copies to the CPU are asynchronous
                with pace.at(group.name):
                    outputs = group.encode(batch.views[group.name])
                    values = {name: outputs[name].to("cpu", non_blocking=True) for name in names[group.name]}
                # the writing thread waits for the copies, this one does not
                there = torch.cuda.current_stream(launch.device).record_event() if on_gpu else None
                for name, embeddings in values.items():
                    lacks, pixels = pending[name][at], batch.pixels.get(group.name)
                    write = writing.submit(_keep, writers[name], at, embeddings, pixels, lacks, there)
                    writes.append((group.name, write))
            while len(writes) > AHEAD * len(writers):  # bounds what waits, and raises what failed
                pace.settle(*writes.popleft())
            bar.advance(batch.read * launch.processes, f"{pace.limit} limits")
        # the last writes, whose errors are raised here
        for group_name, write in writes:
            pace.settle(group_name, write)
    return bad


def _keep(
    writer: TargetWriter,
    rows: Int64,
    values: Tensor,
    pixels: UInt64 | None,
    lacks: Bool,
    there: Any,
) -> tuple[float, float]:
    """Write what the store lacks of embeddings [B, …] and words of pixels [B, 25], once they are `there`.

    Returns:
        The seconds that waiting and writing took.
    """
    start = time.perf_counter()
    if there is not None:
        there.synchronize()
    waited = time.perf_counter()
    arrays = {"values": values.numpy()} | ({} if pixels is None else {PIXELS: pixels})
    if not lacks.all():  # nearly always all are lacking: then nothing is copied
        rows, arrays = rows[lacks], {name: array[lacks] for name, array in arrays.items()}
    writer.write(rows, **arrays)
    return waited - start, time.perf_counter() - waited
