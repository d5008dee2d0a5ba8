"""Work of embed: whether a store is done, and pictures through networks into those that
are not.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from brainhive_cli.core import console
from brainhive_cli.core.arrays import Bool, Int64, UInt64
from brainhive_cli.core.errors import raise_if_asked_to_stop
from brainhive_cli.core.files import make_portable
from brainhive_cli.core.launch import Launch, library_versions
from brainhive_cli.data.media.decoding import decode_batches
from brainhive_cli.data.media.stimuli import StimulusSet
from brainhive_cli.data.stores.target_store import PIXELS_DATASET, TargetStore
from brainhive_cli.data.stores.target_writer import StorePlan, TargetWriter
from brainhive_cli.data.targets.encoder_groups import (
    EncoderGroup,
    alternatives,
    shape_of,
)
from brainhive_cli.data.targets.encoder_stores import is_same_network
from brainhive_cli.models.encoders import EncoderConfig

MAX_WAITING_BATCHES = 4
"""Batches of a store that may wait in memory to be written."""


@dataclass
class StoreJob:
    """One store to be filled.

    Attributes:
        config: The encoder.
        images: The stimuli.
        path: Where the store lies, or will lie.
        precision: Autocast dtype of the forward pass.
        dtype: In which targets are kept.
        skip_bad: Whether pictures that cannot be decoded are accepted as gaps.
        attributes: What makes the targets, but for weights and preprocessing.
    """

    config: EncoderConfig
    images: StimulusSet
    path: Path
    precision: str
    dtype: str
    skip_bad: bool

    def __post_init__(self) -> None:
        """List what makes the targets."""
        self.attributes: dict[str, Any] = {
            "encoder": self.config.name,
            "config": make_portable(self.config.model_dump(mode="json")),
            "dataset": self.images.dataset,
            "split": self.images.split,
            "dtype": self.dtype,
            "precision": self.precision,
        }

    def describe_reason(self, group: EncoderGroup | None) -> str:
        """Say why there is work to do; empty for a finished store of these pictures,
        made in this way.

        Args:
            group: The encoder; None where its weights are not on this machine, and are
                taken to be those of the store. What made an imported store is not
                compared.
        """
        if not self.path.is_file():
            return "does not exist"
        store = TargetStore.open(self.path)

        # compare settings, pictures, preprocessing and weights
        stored = store.attributes
        differs = [
            key
            for key in ("config", "dtype", "precision")
            if stored.get(key) != self.attributes[key]
        ]
        # without the files, stand-ins replace the pictures
        if (
            self.images.missing_error is None
            and store.image_ids != self.images.image_ids
        ):
            differs.append("pictures")
        # known only once the weights are loaded
        if group and stored.get("preprocessing") != group.encoder.preprocessing:
            differs.append("preprocessing")
        if group and stored["weights"].get("digest") != group.encoder.weights.get(
            "digest"
        ):
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
    def import_note(self) -> str:
        """Say from where the store was imported, and what follows; empty for one that
        was made here.
        """
        origin = ", ".join(TargetStore.open(self.path).attributes.get("imported", ()))
        if not origin:
            return ""
        return (
            f"was imported from {origin}, so what made it is not known: --again makes "
            "it here"
        )

    def describe(self) -> str:
        """Say whether the store is done, or why not and how many bytes will be
        written.
        """
        if not (reason := self.describe_reason(None)):
            return self.import_note or "done"
        why = f" ({reason})" if self.path.is_file() else ""
        if (shape := self.config.known_shape) is None:
            return f"to do, of a size that is known with the weights{why}"

        # size of the targets, without names and checksums
        count = len(self.images) * (alternatives(self.config, self.images) or 1)
        values = count * prod(shape_of(self.config, shape, self.images))
        size = console.size(values * np.dtype(self.dtype).itemsize)
        return f"to do{why}, {size} to write"

    def make_plan(self, group: EncoderGroup) -> StorePlan:
        """Describe the store before it is filled."""
        # what made the targets, by which `reason` compares
        images, encoder = self.images, group.encoder
        made_by = {"weights": encoder.weights, "preprocessing": encoder.preprocessing}
        if space := getattr(encoder.module, "latent_space", ""):  # of an autoencoder
            made_by["latent_space"] = space
        attributes = {**self.attributes, **made_by, "versions": library_versions()}
        # several captions or frames are an axis K before the shape of a target
        shape = shape_of(self.config, group.shapes[self.config.name], images)
        if (count := alternatives(self.config, images)) is not None:
            attributes, shape = {**attributes, "alternatives": count}, (count, *shape)
        # digests of pixels exist only where the stimuli themselves are decode_batches
        decodes = self.config.encodes == "pixels" and not self.config.pictures
        names = images.image_ids, images.concepts
        return StorePlan(
            self.path, *names, shape, self.dtype, attributes, has_pixels=decodes
        )


def embed_stimuli(
    images: StimulusSet,
    groups: Sequence[EncoderGroup],
    writers: Mapping[str, TargetWriter],
    batch_size: int,
    workers: int,
    launch: Launch,
    bar: console.Bar,
) -> list[str]:
    """Decode in worker processes, encode here, write in a thread; each picture is
    decoded once.

    Args:
        images: The whole set; what a store holds already is not embedded.
        groups: Networks that encode the pictures.
        writers: The stores to be filled, by encoder.
        batch_size: Pictures a forward pass.
        workers: Processes that decode.
        launch: This process among those that share the work.
        bar: Counts the pictures.

    Returns:
        What could not be decoded.
    """
    # this process's share of the rows that any store lacks
    indices = np.arange(len(images))
    # [N] by encoder
    pending = {
        name: np.isin(indices, writer.pending_rows) for name, writer in writers.items()
    }
    lacking = np.flatnonzero(np.logical_or.reduce([*pending.values()]))
    bar.expect(len(lacking) - len(images))  # less what an earlier command stored
    rows = lacking[np.asarray(launch.shard(range(len(lacking))), int)]

    # encoders of each group that still lack rows, and the rows that they lack
    bad = []
    writes: deque[Future[None]] = deque()
    on_gpu = launch.device.type == "cuda"
    names = {
        group.name: [name for name in group.names if name in writers]
        for group in groups
    }
    views = {group.name: group.view for group in groups}
    readers = {
        group.name: read
        for group in groups
        if (read := group.reader(images)) is not None
    }
    # [N] by group: rows that any of its stores lacks
    needed = {
        group: np.logical_or.reduce([pending[name] for name in members])
        for group, members in names.items()
    }

    # batches are decoded by workers, encoded here, and written by a thread
    batches = decode_batches(
        rows, images, views, needed, batch_size, workers, on_gpu, readers
    )
    with ThreadPoolExecutor(1) as writing:
        for batch in batches:
            raise_if_asked_to_stop()  # what is written is kept
            bad += batch.problems
            for group in (group for group in groups if group.name in batch.views):
                at = batch.rows[group.name]
                # one forward pass; the copies to the CPU are asynchronous
                outputs = group.encode(batch.views[group.name])
                values = {
                    name: outputs[name].to("cpu", non_blocking=True)
                    for name in names[group.name]
                }
                # the writing thread waits for the copies, this one does not
                there = (
                    torch.cuda.current_stream(launch.device).record_event()
                    if on_gpu
                    else None
                )
                for name, embeddings in values.items():
                    lacks, pixels = pending[name][at], batch.pixels.get(group.name)
                    writes.append(
                        writing.submit(
                            _write, writers[name], at, embeddings, pixels, lacks, there
                        )
                    )
            # bounds what waits, and raises what failed
            while len(writes) > MAX_WAITING_BATCHES * len(writers):
                writes.popleft().result()
            bar.advance(batch.n_read * launch.processes)
        # the last writes, whose errors are raised here
        for write in writes:
            write.result()
    return bad


def _write(
    writer: TargetWriter,
    rows: Int64,
    values: Tensor,
    pixels: UInt64 | None,
    lacks: Bool,
    there: Any,
) -> None:
    """Write what the store lacks of embeddings [B, …] and words of pixels [B, 25], once
    they are `there`.
    """
    if there is not None:
        there.synchronize()
    arrays = {"values": values.numpy()} | (
        {} if pixels is None else {PIXELS_DATASET: pixels}
    )
    if not lacks.all():  # nearly always all are lacking: then nothing is copied
        rows = rows[lacks]
        arrays = {name: array[lacks] for name, array in arrays.items()}
    writer.write(rows, **arrays)
