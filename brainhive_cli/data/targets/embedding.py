"""Embeddings of stimuli, from frozen encoders into target stores."""

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

from brainhive_cli.core.base import Bool, Int64, UInt64, console, raise_if_asked_to_stop
from brainhive_cli.core.files import make_portable
from brainhive_cli.core.runs import Launch, library_versions
from brainhive_cli.data.media import StimulusSet, decode_batches
from brainhive_cli.data.stores import (
    PIXELS_DATASET,
    StorePlan,
    TargetStore,
    TargetWriter,
)
from brainhive_cli.data.targets.encoder_groups import (
    EncoderGroup,
    count_alternatives,
    get_target_shape,
)
from brainhive_cli.data.targets.encoder_stores import is_same_network
from brainhive_cli.models.encoders import EncoderConfig


@dataclass
class StoreJob:
    """A target store to fill.

    Attributes:
        config: Encoder.
        images: Stimuli.
        path: Path of the store.
        precision: Autocast dtype of the forward pass.
        dtype: Dtype of the stored targets.
        skip_bad: If True, pictures that cannot be decoded become gaps.
        attributes: Settings of the targets, without weights and preprocessing.
    """

    config: EncoderConfig
    images: StimulusSet
    path: Path
    precision: str
    dtype: str
    skip_bad: bool

    def __post_init__(self) -> None:
        """Collect the settings of the targets."""
        self.attributes: dict[str, Any] = {
            "encoder": self.config.name,
            "config": make_portable(self.config.model_dump(mode="json")),
            "dataset": self.images.dataset,
            "split": self.images.split,
            "dtype": self.dtype,
            "precision": self.precision,
        }

    def describe_reason(self, group: EncoderGroup | None) -> str:
        """Describe why the store must be filled, or return an empty text if it is done.

        An imported store is compared by its pictures alone.

        Args:
            group: Encoder, to compare with the store. None if its weights are not on
                this machine.
        """
        if not self.path.is_file():
            return "does not exist"
        store = TargetStore.open(self.path)
        stored = store.attributes
        differences = [
            key
            for key in ("config", "dtype", "precision")
            if stored.get(key) != self.attributes[key]
        ]
        # without the files, the ids are placeholders
        if (
            self.images.missing_error is None
            and store.image_ids != self.images.image_ids
        ):
            differences.append("pictures")
        if group is not None:
            weights = group.encoder.weights
            if stored.get("preprocessing") != group.encoder.preprocessing:
                differences.append("preprocessing")
            if stored["weights"].get("digest") != weights.get("digest"):
                differences.append("weights")
            if not is_same_network(stored["weights"], weights):
                differences.append("network")

        if "imported" in stored:
            is_other = "pictures" in differences
            return "was made with other pictures" if is_other else ""
        if differences:
            return f"was made with other {', '.join(differences)}"
        return "has gaps" if stored["skipped"] and not self.skip_bad else ""

    @property
    def import_note(self) -> str:
        """Sources of an imported store and the way to replace it, or an empty text."""
        sources = TargetStore.open(self.path).attributes.get("imported", ())
        if not sources:
            return ""
        return (
            f"was imported from {', '.join(sources)}, so its encoder is not known: "
            "--again embeds the pictures here"
        )

    def describe(self) -> str:
        """Describe the state of the store, with the number of bytes to write."""
        reason = self.describe_reason(None)
        if not reason:
            return self.import_note or "done"
        suffix = f" ({reason})" if self.path.is_file() else ""
        view_shape = self.config.static_shape
        if view_shape is None:
            return f"to do, of a size that is known with the weights{suffix}"

        # size of the targets, without names and checksums
        n_targets = len(self.images) * (
            count_alternatives(self.config, self.images) or 1
        )
        n_values = n_targets * prod(
            get_target_shape(self.config, view_shape, self.images)
        )
        size = console.size(n_values * np.dtype(self.dtype).itemsize)
        return f"to do{suffix}, {size} to write"

    def make_plan(self, group: EncoderGroup) -> StorePlan:
        """Describe the store before it is filled."""
        images = self.images
        encoder = group.encoder
        attributes = {
            **self.attributes,
            "weights": encoder.weights,
            "preprocessing": encoder.preprocessing,
        }
        latent_space = getattr(encoder.module, "latent_space", "")
        if latent_space:
            attributes["latent_space"] = latent_space
        attributes["versions"] = library_versions()
        shape = get_target_shape(self.config, group.shapes[self.config.name], images)
        # several captions or frames are an axis K before the shape of a target
        n_alternatives = count_alternatives(self.config, images)
        if n_alternatives is not None:
            attributes["alternatives"] = n_alternatives
            shape = (n_alternatives,) + shape
        return StorePlan(
            self.path,
            images.image_ids,
            images.concepts,
            shape,
            self.dtype,
            attributes,
            # encoders of other pictures or captions do not decode the stimuli
            has_pixels=self.config.content == "pixels" and not self.config.pictures,
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
    """Embed the stimuli that stores lack, and decode each stimulus once.

    Worker processes decode, this process encodes, and a thread writes.

    Args:
        images: Stimulus set of N stimuli.
        groups: Encoders of the stores.
        writers: Writers of the stores, by encoder name.
        batch_size: Number of stimuli per forward pass.
        workers: Number of decoding processes.
        launch: Processes that share the stimuli.
        bar: Progress bar that counts stimuli.

    Returns:
        Descriptions of the stimuli that could not be decoded.
    """
    # this process's share of the rows that any store lacks
    row_numbers = np.arange(len(images))
    is_pending = {}  # [N] by encoder
    for name, writer in writers.items():
        is_pending[name] = np.isin(row_numbers, writer.pending_rows)
    pending_rows = np.flatnonzero(np.logical_or.reduce(list(is_pending.values())))
    bar.expect(len(pending_rows) - len(images))  # without the stored stimuli
    shard = np.asarray(launch.shard(range(len(pending_rows))), int)

    # encoders, preprocessing and needed rows of each group
    names = {}
    views = {}
    readers = {}
    is_needed = {}  # [N] by group
    for group in groups:
        members = [name for name in group.names if name in writers]
        names[group.name] = members
        views[group.name] = group.view
        is_needed[group.name] = np.logical_or.reduce(
            [is_pending[name] for name in members]
        )
        reader = group.reader(images)
        if reader is not None:
            readers[group.name] = reader
    on_gpu = launch.device.type == "cuda"
    batches = decode_batches(
        pending_rows[shard],
        images,
        views,
        is_needed,
        batch_size,
        workers,
        pinned=on_gpu,
        readers=readers,
    )

    problems = []
    writes: deque[Future[None]] = deque()
    with ThreadPoolExecutor(1) as executor:
        # Largest number of batches of a store that wait in memory to be written.
        max_waiting_batches = 4
        for batch in batches:
            raise_if_asked_to_stop()  # written batches are kept
            problems += batch.problems
            for group in groups:
                if group.name not in batch.views:
                    continue
                rows = batch.rows[group.name]
                # the copies to the CPU are asynchronous
                outputs = group.encode(batch.views[group.name])
                embeddings = {}
                for name in names[group.name]:
                    embeddings[name] = outputs[name].to("cpu", non_blocking=True)
                # only the writing thread waits for the copies
                copied = None
                if on_gpu:
                    copied = torch.cuda.current_stream(launch.device).record_event()
                for name, values in embeddings.items():
                    write = executor.submit(
                        _write_pending,
                        writers[name],
                        rows,
                        values,
                        pixels=batch.pixels.get(group.name),
                        is_pending=is_pending[name][rows],
                        copied=copied,
                    )
                    writes.append(write)
            # limit the waiting batches, and raise errors of the thread
            while len(writes) > max_waiting_batches * len(writers):
                writes.popleft().result()
            bar.advance(batch.n_read * launch.processes)
        for write in writes:
            write.result()
    return problems


def _write_pending(
    writer: TargetWriter,
    rows: Int64,
    values: Tensor,
    pixels: UInt64 | None,
    is_pending: Bool,
    copied: Any,
) -> None:
    """Write the embeddings that a store lacks.

    Args:
        writer: Writer of the store.
        rows: Rows [B] of the stimuli.
        values: Embeddings [B, …] on the CPU.
        pixels: Digests of the pixels and perceptual hashes [B, 25], if the stimuli were
            decoded.
        is_pending: [B] True for each row that the store lacks.
        copied: CUDA event recorded after the copy to the CPU, or None.
    """
    if copied is not None:
        copied.synchronize()
    arrays = {"values": values.numpy()}
    if pixels is not None:
        arrays[PIXELS_DATASET] = pixels
    if not is_pending.all():  # rare, and copies the arrays
        rows = rows[is_pending]
        arrays = {name: array[is_pending] for name, array in arrays.items()}
    writer.write(rows, **arrays)
