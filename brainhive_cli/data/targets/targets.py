"""Targets of training, read from stores or computed at each step."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from brainhive_cli.core import console, parts
from brainhive_cli.core.arrays import Bool, Int64, UInt64
from brainhive_cli.core.device_memory import copy_to_device, count_free_bytes
from brainhive_cli.core.errors import BrainhiveError, Line, MissingData
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.datasets import Dataset
from brainhive_cli.data.files.hdf5 import LazyRows
from brainhive_cli.data.media.stimuli import StimulusSet
from brainhive_cli.data.stores import target_store
from brainhive_cli.data.stores.target_store import TargetStore
from brainhive_cli.data.targets.encoder_groups import (
    EncoderGroup,
    alternatives,
    grouped,
    shape_of,
    views_each,
)
from brainhive_cli.data.targets.encoder_stores import open_stores
from brainhive_cli.data.targets.next_commands import write_embed_commands
from brainhive_cli.models.encoders import (
    EncoderConfig,
)

MAX_ONLINE_STIMULI = 512
"""Stimuli that networks encode at once: pictures of 224 pixels are 308 MB."""
CPU = torch.device("cpu")


@dataclass
class StoreTargets:
    """Targets read from a store.

    Attributes:
        values: [N, *shape] on the device, or in a mapped file from which each batch is
            gathered.
        done: Whether the stimulus of each row could be decoded, [N].
        device: Where gathered targets go.
        further: More targets of the same stimuli, each like `values`.
        pixels: What the stimuli's pixels are known by, [N, 25], where the store says
            it.
        shape: Shape of one target.
        alternatives: Number of targets of each stimulus: further stores, five captions,
            six frames.
    """

    values: Tensor | LazyRows
    done: Bool = field(default_factory=lambda: np.zeros(0, bool))
    device: torch.device = CPU
    other_values: tuple[Tensor | LazyRows, ...] = ()
    pixels: UInt64 | None = None

    def __post_init__(self) -> None:
        """Count alternatives, and note the shape of a target."""
        self.shape = tuple(self.values.shape[1:])
        self.alternatives = 1 + len(self.other_values)

    @classmethod
    def from_store(
        cls,
        store: TargetStore,
        device: torch.device,
        on_device: bool,
        other_stores: Sequence[TargetStore] = (),
    ) -> "StoreTargets":
        """Read a store: all of it onto the device (`hold`), in the store's dtype, or
        batch by batch.

        Args:
            store: The store; its own alternatives, where it has that axis, are the
                source's.
            device: Where gathered targets go.
            hold: Copy everything to the device.
            further: Stores of the same stimuli and shape, whose targets are
                alternatives too.
        """
        # [N, *shape] each: the store's alternatives, then those of further stores
        values: list[Any] = []
        for opened in (store, *other_stores):
            count = opened.alternatives
            values += (
                [opened.embedding]
                if count is None
                else [opened.embedding.column(k) for k in range(count)]
            )
        # in the store's dtype: float16 takes half the memory
        if on_device:
            values = [torch.from_numpy(np.array(array)).to(device) for array in values]
        return cls(values[0], store.done, device, tuple(values[1:]), store.pixels)

    def gather(self, rows: Int64 | Tensor, choices: Tensor | None = None) -> Tensor:
        """Gather the targets of some rows: float32 [B, *shape], on the device.

        Args:
            rows: Which stimuli, [B].
            which: Which alternative of each, [B]; the first when None.
        """
        # the first alternative of all rows, which the chosen ones replace
        gathered = self._gather(self.values, rows)
        for alternative, values in enumerate(
            self.other_values if choices is not None else (), 1
        ):
            is_this: Any = choices == alternative
            # a GPU would be waited for by a choice of rows
            if isinstance(values, Tensor):
                is_row = is_this.view(-1, *[1] * (values.ndim - 1))
                gathered = torch.where(is_row, self._gather(values, rows), gathered)
                continue
            # of a file only rows of this alternative are read
            chosen = (
                rows[is_this]
                if isinstance(rows, Tensor)
                else rows[is_this.cpu().numpy()]
            )
            gathered[is_this] = self._gather(values, chosen)
        return gathered

    def _gather(self, values: Tensor | LazyRows, rows: Int64 | Tensor) -> Tensor:
        if isinstance(values, Tensor):
            index = rows if isinstance(rows, Tensor) else torch.from_numpy(rows)
            return values[copy_to_device(index, values.device)].float()
        # files are read on the CPU, and the batch is copied
        chosen = rows.cpu().numpy() if isinstance(rows, Tensor) else rows
        return copy_to_device(
            torch.from_numpy(np.asarray(values[chosen], np.float32)), self.device
        )


@dataclass
class OnlineTargets:
    """Targets computed from the stimulus whenever they are gathered.

    Attributes:
        stimuli: The stimuli of the split.
        group: The network, with one or several outputs.
        name: Which of its outputs.
        config: The encoder.
        alternatives: Number of frames or captions of each stimulus.
        combines: Whether an output combines all views of a stimulus.
        done: Every stimulus is taken to be sound: one that is not is an error when it
            is decoded.
    """

    stimuli: StimulusSet
    group: EncoderGroup
    name: str

    def __post_init__(self) -> None:
        """Find the encoder, and count the views of a stimulus."""
        self.config = self.group.configs[self.group.names.index(self.name)]
        self.alternatives = alternatives(self.config, self.stimuli) or 1
        self.combines = any(config.combines for config in self.group.configs)
        self.done = np.ones(len(self.stimuli), bool)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one target, which the network is loaded for."""
        return shape_of(self.config, self.group.shapes[self.name], self.stimuli)

    def choose(self, values: Tensor, choices: Tensor | None) -> Tensor:
        """Choose an alternative of what the network gives for `views`: [B, *shape]."""
        has_several = self.alternatives > 1 and self.combines
        return _choose(values, choices) if has_several else values

    def load_views(
        self,
        rows: Int64 | Tensor,
        choices: Tensor | None = None,
        opened: dict[int, Any] | None = None,
    ) -> Tensor:
        """Decode and preprocess stimuli in this process: [B, 3, H, W].

        Of several frames or captions, one; all of them, [B, K, …], where an output
        combines them. What is decoded is kept in `opened`, by row, for other groups
        that see the same stimuli.
        """
        # groups that see the same stimuli share what is decoded
        opened_sources = {} if opened is None else opened

        def view(row: int) -> Tensor:
            # captions, masks, labels, or pictures instead of the stimuli
            if self._reader is not None:
                return self.group.view(self._reader(row))
            if row not in opened_sources:
                opened_sources[row] = self.stimuli.open(row)
            return self.group.view(opened_sources[row])

        # all pictures at each step, unchanged and by nothing random
        if self.group.network.learns:
            with ThreadPoolExecutor() as threads:
                views = torch.stack([*threads.map(view, rows.tolist())])
        else:
            views = torch.stack([view(row) for row in rows.tolist()])
        # all views [B, K, …] where an output combines them, else one of K
        is_single = (
            self.combines or views_each(self.group.configs[0], self.stimuli) is None
        )
        return views if is_single else _choose(views, choices)

    @cached_property
    def _reader(self) -> Callable[[int], Any] | None:
        """Gives what is encoded instead of a stimulus; other pictures are looked for
        once.
        """
        return self.group.reader(self.stimuli)


def make_online_targets(
    group: EncoderGroup,
    stimuli: StimulusSet,
    store: TargetStore,
    keys: Mapping[str, str],
) -> dict[str, OnlineTargets]:
    """Compute what a network gives for the stimuli of a store whenever they are
    gathered.

    Targets are by the key of each encoder.

    Raises:
        BrainhiveError: if the stimuli are not those of the store.
    """
    # rows are those of the store, so that its stimuli must be the same
    store.require_pictures(stimuli.image_ids, Line("embed"))
    return {keys[name]: OnlineTargets(stimuli, group, name) for name in group.names}


def _choose(values: Tensor, choices: Tensor | None) -> Tensor:
    """Choose one of K for each row of [B, K, …]; the first when None."""
    alternative = (
        torch.zeros(len(values), dtype=torch.int64) if choices is None else choices
    )
    return values[torch.arange(len(values)), alternative.to(values.device)]  # [B, …]


TargetSource = StoreTargets | OnlineTargets
"""What one encoder computes for each stimulus of a split."""


@dataclass
class Targets:
    """Targets of several encoders for the same stimuli, row by row.

    Attributes:
        sources: By key: the encoder's name, or the key of a fuser.
        done: Whether every source has a target for a row, [N].
        pixels: Identity of the stimuli's pixels, [N, 25]; None where no store says it.
        groups: The networks that compute targets at each step.
        alternatives: Number of targets of each stimulus, by key, where they are
            several.
    """

    sources: dict[str, TargetSource]

    def __post_init__(self) -> None:
        """Join what the sources say of their stimuli."""
        sources = self.sources.values()
        self.done = np.logical_and.reduce([source.done for source in sources])
        stored = [
            source.pixels for source in sources if isinstance(source, StoreTargets)
        ]
        self.pixels = next((pixels for pixels in stored if pixels is not None), None)
        # each network once, since its targets share one forward pass
        groups = (
            source.group for source in sources if isinstance(source, OnlineTargets)
        )
        self.groups = list(dict.fromkeys(groups))
        counts = {key: source.alternatives for key, source in self.sources.items()}
        self.alternatives = {key: count for key, count in counts.items() if count > 1}

    @classmethod
    def from_stores(
        cls,
        stores: Mapping[str, TargetStore],
        launch: Launch,
        keys: Mapping[str, str] | None = None,
        on_device: bool = True,
        other_stores: Mapping[str, Sequence[TargetStore]] = MappingProxyType({}),
    ) -> "Targets":
        """Make targets of stores that are open.

        Args:
            stores: By the encoder's name.
            launch: On whose device targets are used, and how many processes share the
                memory.
            keys: The key of each encoder; default: its name.
            hold: Copy all to the device where they fit; else each batch is gathered
                from the files.
            further: Stores whose targets are alternatives, by the encoder's name (see
                `open_alternatives`).
        """
        # copies may take half of the free memory, and each process has its own
        every = [*stores.values(), *chain.from_iterable(other_stores.values())]
        needed = sum(store.embedding.nbytes for store in every) * launch.processes
        if on_device and needed > count_free_bytes(launch.device) / 2:
            console.say(f"the targets need {needed / 1e9:.1f} GB, so they stay on disk")
            on_device = False
        # encoders are called by the fuser's keys, where it has keys
        key_of = {name: name for name in stores} | {**(keys or {})}
        return cls(
            {
                key_of[name]: StoreTargets.from_store(
                    store, launch.device, on_device, other_stores.get(name, ())
                )
                for name, store in stores.items()
            }
        )

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of one target, by key."""
        return {key: source.shape for key, source in self.sources.items()}

    @property
    def dims(self) -> dict[str, int]:
        """Width of each target, by key, where all are vectors.

        Raises:
            BrainhiveError: if one is no vector.
        """
        shapes = self.shapes
        for key, shape in shapes.items():
            if len(shape) != 1:
                raise BrainhiveError(
                    f"the targets of {key} have the shape {list(shape)}, and only "
                    "vectors [D] can be fused",
                    "name an output that is a vector, or give these targets a head "
                    "of their own",
                )
        return {key: shape[0] for key, shape in shapes.items()}

    def gather(
        self,
        rows: Int64 | Tensor,
        views: Mapping[str, Tensor] | None = None,
        choices: Mapping[str, Tensor] = MappingProxyType({}),
    ) -> dict[str, Tensor]:
        """Give the targets of some rows, float32 [B, *shape] by key; each group runs
        once.

        Args:
            rows: Which stimuli, [B].
            which: Which alternative of each, [B] by key; the first where none is named.
            views: The stimuli as each of `groups` sees them, [B, 3, H, W] by its name;
                decoded here if none.
        """
        if self.groups and views is None and len(rows) > MAX_ONLINE_STIMULI:
            # many stimuli in blocks, since their decoded pictures take memory
            blocks = [
                slice(start, start + MAX_ONLINE_STIMULI)
                for start in range(0, len(rows), MAX_ONLINE_STIMULI)
            ]
            gathered = [
                self.gather(
                    rows[block], None, {key: choices[key][block] for key in choices}
                )
                for block in blocks
            ]
            return {
                key: torch.cat([block[key] for block in gathered])
                for key in gathered[0]
            }

        # stored targets are read; encoders of a group share one forward pass
        computed = {}
        opened: dict[int, Any] = {}
        blocks_of_key = {}
        for key, source in self.sources.items():
            if isinstance(source, StoreTargets):
                blocks_of_key[key] = source.gather(rows, choices.get(key))
                continue
            group = source.group
            if group not in computed:
                # what the data loader prepared, else decode the stimuli here
                seen = (views or {}).get(group.name)
                if seen is None:
                    seen = source.load_views(rows, choices.get(key), opened)
                computed[group] = group.encode(seen)
            values = source.choose(computed[group][source.name], choices.get(key))
            blocks_of_key[key] = values.clone()  # or it could not be used in training
        return blocks_of_key


def open_targets(
    dataset: Dataset,
    dataset_config: parts.Config,
    split: str,
    encoders: Sequence[EncoderConfig],
    paths: Paths,
    launch: Launch,
    compute_missing: bool = False,
    images: StimulusSet | None = None,
) -> Targets:
    """Open the targets of several encoders over the same stimuli, after a health check.

    Each batch is gathered from the files.

    Args:
        dataset: Whose stimuli.
        dataset_config: The data set's Config, for the command line that would embed it.
        split: Which of them.
        encoders: One source each.
        paths: Where stores lie.
        launch: On whose device targets are used, and how many processes share the
            memory.
        compute_missing: Compute what has no store at each step.
        images: The stimuli, where they are listed already: of ImageNet that takes a
            while.

    Raises:
        MissingData: if a store is missing, with the line that makes it.
        BrainhiveError: if a store is another data set's, or of other stimuli than the
            data set or another store.
    """
    # encoders with a store; the others are computed, if the caller allows it
    stored = list(encoders)
    if compute_missing:
        root = paths.under_home("embeddings")
        stored = [
            c
            for c in encoders
            if target_store.find_store(root, dataset.name, split, c.name)[0].is_file()
        ]
    stores = (
        open_stores(dataset, dataset_config, split, stored, paths, images)
        if stored
        else {}
    )
    sources = Targets.from_stores(stores, launch, on_device=False).sources
    missing = [config for config in encoders if config not in stored]
    for config in missing:
        if config.pictures:  # at each step, the stimulus itself would be seen
            raise MissingData(
                f"{config.name} has no store",
                write_embed_commands(dataset_config, [config]),
            )
    # encoders of one network share it, and compute in float32
    for group in grouped(missing, "fp32", launch):
        stimuli = images or dataset.images(split)
        sources |= {name: OnlineTargets(stimuli, group, name) for name in group.names}
    return Targets(sources)
