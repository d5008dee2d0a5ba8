"""Targets of training, read from stores or computed at each step."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import chain
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from brainhive_cli.core.base import (
    Bool,
    BrainhiveError,
    Int64,
    Line,
    MissingData,
    UInt64,
    console,
    copy_to_device,
    count_free_bytes,
)
from brainhive_cli.core.recipes import Paths, parts
from brainhive_cli.core.runs import Launch
from brainhive_cli.data.datasets import Dataset
from brainhive_cli.data.files import LazyRows
from brainhive_cli.data.media import StimulusSet
from brainhive_cli.data.stores import TargetStore, target_store
from brainhive_cli.data.targets.encoder_groups import (
    EncoderGroup,
    count_alternatives,
    count_views,
    get_target_shape,
    group_encoders,
)
from brainhive_cli.data.targets.encoder_stores import open_stores
from brainhive_cli.data.targets.next_commands import write_embed_commands
from brainhive_cli.models.encoders import (
    EncoderConfig,
)

MAX_ONLINE_STIMULI = 512
"""Largest number of stimuli that networks encode at once: 308 MB as pictures of 224
pixels.
"""
CPU = torch.device("cpu")


@dataclass
class StoreTargets:
    """Targets that are read from a store.

    Attributes:
        values: Targets [N, *shape] on the device, or in a file from which each batch is
            gathered.
        done: [N] True for each stimulus that could be decoded.
        device: Device of gathered targets.
        other_values: Further targets of the same stimuli, each like `values`.
        pixels: Identity [N, 25] of the stimuli's pixels, if the store has it.
        shape: Shape of a target.
        alternatives: Number of targets of each stimulus, such as five captions.
    """

    values: Tensor | LazyRows
    done: Bool = field(default_factory=lambda: np.zeros(0, bool))
    device: torch.device = CPU
    other_values: tuple[Tensor | LazyRows, ...] = ()
    pixels: UInt64 | None = None

    def __post_init__(self) -> None:
        """Count the alternatives, and read the shape of a target."""
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
        """Create targets from an open store.

        Args:
            store: Store, whose axis of alternatives becomes alternatives.
            device: Device of gathered targets.
            on_device: If True, copy all targets to the device, in the store's dtype.
                Otherwise each batch is read from the file.
            other_stores: Stores of the same stimuli and shape, as further alternatives.
        """
        values: list[Any] = []  # [N, *shape] of each alternative
        for opened_store in [store] + list(other_stores):
            embedding = opened_store.embedding
            if opened_store.alternatives is None:
                values.append(embedding)
            else:
                values += map(embedding.select_column, range(opened_store.alternatives))
        if on_device:
            values = [torch.from_numpy(np.array(array)).to(device) for array in values]
        return cls(values[0], store.done, device, tuple(values[1:]), store.pixels)

    def gather(self, rows: Int64 | Tensor, choices: Tensor | None = None) -> Tensor:
        """Gather targets as float32 [B, *shape] on the device.

        Args:
            rows: Rows [B] of the stimuli.
            choices: Number [B] of the chosen caption or frame of each stimulus, 0 by
                default.
        """
        gathered = self._gather(self.values, rows)
        if choices is None:
            return gathered
        # replace the first alternative where another is chosen
        for number, values in enumerate(self.other_values, 1):
            is_chosen: Any = choices == number
            if isinstance(values, Tensor):
                # selecting rows would wait for the GPU
                mask = is_chosen.view((-1,) + (1,) * (values.ndim - 1))
                gathered = torch.where(mask, self._gather(values, rows), gathered)
                continue
            # read only the rows of this alternative from the file
            if isinstance(rows, Tensor):
                chosen_rows: Int64 | Tensor = rows[is_chosen]
            else:
                chosen_rows = rows[is_chosen.cpu().numpy()]
            gathered[is_chosen] = self._gather(values, chosen_rows)
        return gathered

    def _gather(self, values: Tensor | LazyRows, rows: Int64 | Tensor) -> Tensor:
        """Gather the rows of an alternative."""
        if isinstance(values, Tensor):
            index = rows if isinstance(rows, Tensor) else torch.from_numpy(rows)
            return values[copy_to_device(index, values.device)].float()
        file_rows = rows.cpu().numpy() if isinstance(rows, Tensor) else rows
        batch = torch.from_numpy(np.asarray(values[file_rows], np.float32))
        return copy_to_device(batch, self.device)


@dataclass
class OnlineTargets:
    """Targets that are computed from the stimulus whenever they are gathered.

    Attributes:
        stimuli: Stimuli of the split.
        group: Network, which may have several outputs.
        name: Name of the output.
        config: Encoder of this output.
        alternatives: Number of frames or captions of each stimulus.
        combines: True if an output of the group combines all views of a stimulus.
        done: [N] True for each stimulus. A stimulus that cannot be decoded raises an
            error when it is gathered.
    """

    stimuli: StimulusSet
    group: EncoderGroup
    name: str

    def __post_init__(self) -> None:
        """Find the encoder, and count the views of a stimulus."""
        self.config = self.group.configs[self.group.names.index(self.name)]
        self.alternatives = count_alternatives(self.config, self.stimuli) or 1
        self.combines = any(config.view_pooling for config in self.group.configs)
        self.done = np.ones(len(self.stimuli), bool)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a target. Loads the network."""
        return get_target_shape(self.config, self.group.shapes[self.name], self.stimuli)

    def choose(self, values: Tensor, choices: Tensor | None) -> Tensor:
        """Choose an alternative [B, *shape] if the network encoded all of them."""
        has_alternatives = self.alternatives > 1 and self.combines
        return _choose(values, choices) if has_alternatives else values

    def load_views(
        self,
        rows: Int64 | Tensor,
        choices: Tensor | None = None,
        stimulus_cache: dict[int, Any] | None = None,
    ) -> Tensor:
        """Decode and preprocess stimuli in this process.

        Args:
            rows: Rows [B] of the stimuli.
            choices: Number [B] of each stimulus's frame or caption.
            stimulus_cache: Decoded stimuli by row, which other groups share.

        Returns:
            Views [B, 3, H, W], or [B, K, …] where an output combines all K views.
        """
        load = partial(
            self._load_view,
            stimulus_cache={} if stimulus_cache is None else stimulus_cache,
        )
        # a network that learns sees all its pictures at each step, so threads load them
        if self.group.network.learns:
            with ThreadPoolExecutor() as threads:
                views = torch.stack(list(threads.map(load, rows.tolist())))
        else:
            views = torch.stack([load(row) for row in rows.tolist()])
        if self.combines or count_views(self.group.configs[0], self.stimuli) is None:
            return views
        return _choose(views, choices)

    def _load_view(self, row: int, stimulus_cache: dict[int, Any]) -> Tensor:
        """Preprocess a stimulus, or the encoder's caption, mask or picture of it."""
        if self._reader is not None:
            return self.group.view(self._reader(row))
        if row not in stimulus_cache:
            stimulus_cache[row] = self.stimuli.open(row)
        return self.group.view(stimulus_cache[row])

    @cached_property
    def _reader(self) -> Callable[[int], Any] | None:
        """Reader of captions, masks, labels or other pictures, or None for stimuli."""
        return self.group.reader(self.stimuli)


def make_online_targets(
    group: EncoderGroup,
    stimuli: StimulusSet,
    store: TargetStore,
    keys: Mapping[str, str],
) -> dict[str, OnlineTargets]:
    """Create targets that a network computes for the stimuli of a store.

    Args:
        group: Network with the outputs of one or more encoders.
        stimuli: Stimuli in the order of the store.
        store: Store of the same stimuli.
        keys: Key of each encoder, by its name.

    Returns:
        Targets by the key of the encoder.

    Raises:
        BrainhiveError: if the stimuli are not the stimuli of the store.
    """
    store.require_pictures(stimuli.image_ids, Line("embed"))
    return {keys[name]: OnlineTargets(stimuli, group, name) for name in group.names}


def _choose(values: Tensor, choices: Tensor | None) -> Tensor:
    """Choose an alternative for each row of [B, K, …]. The default is the first."""
    if choices is None:
        choices = torch.zeros(len(values), dtype=torch.int64)
    return values[torch.arange(len(values)), choices.to(values.device)]  # [B, …]


TargetSource = StoreTargets | OnlineTargets
"""Targets of an encoder for the stimuli of a split."""


@dataclass
class Targets:
    """Targets of several encoders for the same stimuli, row by row.

    Attributes:
        sources: Targets by key, which is an encoder's name or the key of a fuser.
        done: [N] True for each stimulus with a target in every source.
        pixels: Identity [N, 25] of the stimuli's pixels, or None if no store has it.
        groups: Networks that compute targets at each step.
        alternatives: Number of targets of each stimulus, for keys with several.
    """

    sources: dict[str, TargetSource]

    def __post_init__(self) -> None:
        """Collect the networks, pixels and alternatives of the sources."""
        done = []
        self.pixels = None
        self.groups: list[EncoderGroup] = []
        self.alternatives = {}
        for key, source in self.sources.items():
            if isinstance(source, StoreTargets):
                self.pixels = source.pixels if self.pixels is None else self.pixels
            elif source.group not in self.groups:
                self.groups.append(source.group)
            if source.alternatives > 1:
                self.alternatives[key] = source.alternatives
            done.append(source.done)
        self.done = np.logical_and.reduce(done)

    @classmethod
    def from_stores(
        cls,
        stores: Mapping[str, TargetStore],
        launch: Launch,
        keys: Mapping[str, str] | None = None,
        on_device: bool = True,
        other_stores: Mapping[str, Sequence[TargetStore]] = MappingProxyType({}),
    ) -> "Targets":
        """Create targets from open stores.

        Args:
            stores: Stores by encoder name.
            launch: Device of the targets, and processes that share its memory.
            keys: Key of each encoder, by default its name.
            on_device: If True, copy all targets to the device if they take at most half
                of its free memory.
            other_stores: Stores with further alternatives, by encoder name.
        """
        all_stores = list(stores.values())
        all_stores += chain.from_iterable(other_stores.values())
        n_bytes = sum(store.embedding.nbytes for store in all_stores) * launch.processes
        if on_device and n_bytes > count_free_bytes(launch.device) / 2:
            console.say(
                f"the targets need {n_bytes / 1e9:.1f} GB, so they stay on disk"
            )
            on_device = False
        sources: dict[str, TargetSource] = {}
        for name, store in stores.items():
            key = (keys or {}).get(name, name)
            sources[key] = StoreTargets.from_store(
                store, launch.device, on_device, other_stores.get(name, ())
            )
        return cls(sources)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of a target, by key."""
        return {key: source.shape for key, source in self.sources.items()}

    @property
    def dims(self) -> dict[str, int]:
        """Width of each target, by key.

        Raises:
            BrainhiveError: if a target is not a vector.
        """
        dims = {}
        for key, shape in self.shapes.items():
            if len(shape) != 1:
                raise BrainhiveError(
                    f"the targets of {key} have the shape {list(shape)}, and only "
                    "vectors [D] can be fused",
                    "name an output that is a vector, or give these targets a head "
                    "of their own",
                )
            dims[key] = shape[0]
        return dims

    def gather(
        self,
        rows: Int64 | Tensor,
        views: Mapping[str, Tensor] | None = None,
        choices: Mapping[str, Tensor] = MappingProxyType({}),
    ) -> dict[str, Tensor]:
        """Gather targets as float32 [B, *shape] by key. Each network runs once.

        Args:
            rows: Rows [B] of the stimuli.
            views: Preprocessed stimuli [B, 3, H, W] by name of the group. If None, they
                are decoded here.
            choices: Number [B] of the chosen caption or frame of each stimulus, by key.
                The default is the first.
        """
        targets = {}
        if self.groups and views is None and len(rows) > MAX_ONLINE_STIMULI:
            # decoded pictures take memory, so they are encoded in blocks
            blocks = []
            for start in range(0, len(rows), MAX_ONLINE_STIMULI):
                block = slice(start, start + MAX_ONLINE_STIMULI)
                block_choices = {key: choices[key][block] for key in choices}
                blocks.append(self.gather(rows[block], choices=block_choices))
            for key in blocks[0]:
                targets[key] = torch.cat([block[key] for block in blocks])
            return targets

        outputs: dict[EncoderGroup, dict[str, Tensor]] = {}
        stimulus_cache: dict[int, Any] = {}
        for key, source in self.sources.items():
            source_choices = choices.get(key)
            if isinstance(source, StoreTargets):
                targets[key] = source.gather(rows, source_choices)
                continue
            group = source.group
            if group not in outputs:
                group_views = (views or {}).get(group.name)
                if group_views is None:
                    group_views = source.load_views(
                        rows, source_choices, stimulus_cache
                    )
                outputs[group] = group.encode(group_views)
            values = source.choose(outputs[group][source.name], source_choices)
            # a tensor of inference mode cannot be used in training, but its copy can
            targets[key] = values.clone()
        return targets


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
    """Open the targets of several encoders for the same stimuli.

    Each batch is read from the files. Failed health checks give warnings.

    Args:
        dataset: Data set of the stimuli.
        dataset_config: Config of the data set, for the command line in an error.
        split: Name of the split.
        encoders: Encoders.
        paths: Folder of the stores.
        launch: Device of the targets, and processes that share its memory.
        compute_missing: If True, compute the targets without a store at each step.
        images: Stimuli of the split. If None, they are listed, which takes a while for
            ImageNet.

    Raises:
        MissingData: if a store is absent, and its targets are not computed.
        BrainhiveError: if a store has other stimuli than the data set or another store.
    """
    # read stored targets, and compute the others if allowed
    root = paths.under_home("embeddings")
    stored = []
    online = []
    for config in encoders:
        is_stored = True
        if compute_missing:
            path, _ = target_store.find_store(root, dataset.name, split, config.name)
            is_stored = path.is_file()
        if is_stored:
            stored.append(config)
        elif config.pictures:  # the stimuli cannot replace its pictures
            raise MissingData(
                f"{config.name} has no store",
                write_embed_commands(dataset_config, [config]),
            )
        else:
            online.append(config)

    sources: dict[str, TargetSource] = {}
    if stored:
        stores = open_stores(dataset, dataset_config, split, stored, paths, images)
        sources |= Targets.from_stores(stores, launch, on_device=False).sources
    # encoders share their network, and compute in float32
    for group in group_encoders(online, "fp32", launch):
        stimuli = images or dataset.images(split)
        for name in group.names:
            sources[name] = OnlineTargets(stimuli, group, name)
    return Targets(sources)
