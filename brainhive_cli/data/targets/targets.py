"""Targets: what encoders give for the stimuli of a split, read from stores or computed
at each step by groups of encoders that share a network.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from brainhive_cli.core import console, parts
from brainhive_cli.core.arrays import Bool, Int64, UInt64
from brainhive_cli.core.device_memory import free_bytes, to_device
from brainhive_cli.core.errors import BrainhiveError, Line, MissingData
from brainhive_cli.core.files import locate
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.datasets import Dataset
from brainhive_cli.data.files.hdf5 import LazyRows
from brainhive_cli.data.files.ids import Names, match_names, summarise_names
from brainhive_cli.data.media.pictures import decode
from brainhive_cli.data.media.stimuli import Clip, StimulusSet, pictures_below
from brainhive_cli.data.stores import target_store
from brainhive_cli.data.stores.target_store import TargetStore
from brainhive_cli.data.targets.encoder_stores import open_stores, write_embedding
from brainhive_cli.models.encoders import (
    EMBEDDING,
    SEEN,
    Encoder,
    EncoderConfig,
    joined,
)

BLANK = {
    "pixels": Image.new("RGB", (256, 256)),
    "captions": "a picture",
    "masks": np.zeros((256, 256), np.uint8),
}
"""What the shape of a target is measured on."""
ONLINE_AT_ONCE = 512
"""Stimuli that networks encode at once: pictures of 224 pixels are 308 MB."""
CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class Network:
    """Common part of encoders that differ in output, or in what they see of a stimulus:
    loaded once.

    Weights are fetched when `encoder` is first used, and loaded when `module` is.

    Attributes:
        configs: An encoder of each output.
        precision: Autocast dtype of the forward pass.
        launch: Where it runs.
        learns: Whether gradients pass through it, where there are any, to what changes
            it.
    """

    configs: Sequence[EncoderConfig]
    precision: str
    launch: Launch
    learns: bool = False

    @cached_property
    def encoder(self) -> Encoder:
        """The one encoder of stimuli as they are, with as many outputs as there are
        configs.
        """
        with console.progress(f"loading {self.configs[0].name}"):
            return joined(self.configs).build()

    @cached_property
    def module(self) -> nn.Module:
        """The network on its device; weights that autocast would cast at each call are
        cast once.
        """
        module = self.encoder.module.requires_grad_(False).to(self.launch.device)
        with self.launch.autocast(self.precision):
            if torch.is_autocast_enabled(self.launch.device.type):
                # autocast casts the weights of linear and convolutional layers only
                dtype = torch.get_autocast_dtype(self.launch.device.type)
                for layer in module.modules():
                    if isinstance(layer, nn.Linear | nn.Conv2d):
                        layer.to(dtype)
        return module


@dataclass(eq=False)
class EncoderGroup:
    """Encoders of one network that see the same of a stimulus, so that one forward pass
    serves them all.

    Attributes:
        configs: The encoders.
        network: Theirs, which other groups may share.
        names: Names of the encoders.
        name: The first of these, which stands for the group.
    """

    configs: Sequence[EncoderConfig]
    network: Network

    def __post_init__(self) -> None:
        """Name the group."""
        self.names = tuple(config.name for config in self.configs)
        self.name = self.names[0]

    @cached_property
    def encoder(self) -> Encoder:
        """The network with its preprocessing, of degraded pictures where the group sees
        these.
        """
        how = self.configs[0].degrade
        if isinstance(how, str):
            return self.network.encoder.degraded(how)
        return self.network.encoder

    @property
    def digest(self) -> str:
        """Identity of its targets, as their store would: a latent space, or weights; ""
        if unknown.
        """
        return getattr(
            self.encoder.module, "latent_space", ""
        ) or self.encoder.weights.get("digest", "")

    def view(self, stimulus: Any) -> Tensor:
        """Preprocess a picture: [3, H, W]; each frame of a clip, or each caption or
        mask of a list: [K, …].

        Of an encoder of one view, that one.

        Raises:
            MissingData: if the encoder reads something else than pixels, and is given
                them.
        """
        # captions, masks and labels come from readers, never from a picture
        preprocess = self.encoder.preprocess
        reads = self.encoder.reads
        if reads != "pixels" and isinstance(stimulus, Image.Image | Clip):
            raise MissingData(
                f"{self.name} reads {reads}, and has no store", Line("embed")
            )
        # frames of a clip, or captions or masks: one of them, or all [K, …]
        if isinstance(stimulus, Clip | list):
            shown = stimulus.to_pictures() if isinstance(stimulus, Clip) else stimulus
            if isinstance(which := self.configs[0].views, int):
                return torch.as_tensor(preprocess(shown[which]))
            return self.encoder.preprocess_all(shown)

        # a picture, caption or mask; a user's preprocessing may return anything
        view = preprocess(stimulus)
        if not isinstance(view, Tensor):
            source = self.encoder.weights.get("source", self.name)
            raise BrainhiveError(
                f"the preprocessing of {source} gives {type(view).__name__}, not a "
                "tensor",
                "let it end in a tensor [3, H, W]",
            )
        return view

    def encode(self, views: Tensor) -> dict[str, Tensor]:
        """Encode what `view` gives of stimuli, in one forward pass.

        Args:
            views: [B, 3, H, W], or [B, K, …] of K frames, captions or masks each.

        Returns:
            By name, float32 [B, *shape], or [B, K, *shape].
        """
        # K views of a stimulus are encoded as further rows, [B * K, …]
        network = self.network
        has_several = views.ndim > self.blank.ndim + 1
        encoded = encode(
            network.module,
            views.flatten(0, 1) if has_several else views,
            network.precision,
            network.launch,
            self.encoder.weights.get("source", self.name),
            is_frozen=not (network.learns and torch.is_grad_enabled()),
        )
        # the network has all outputs; this group's encoders use those of their names
        encoded_of_output = dict(
            zip(map(_output_of, network.configs), encoded, strict=True)
        )
        outputs = {
            config.name: encoded_of_output[_output_of(config)]
            for config in self.configs
        }
        # [B * K, *shape] to [B, K, *shape], which an encoder may combine
        if has_several:
            for config in self.configs:
                several = outputs[config.name].unflatten(0, views.shape[:2])
                outputs[config.name] = _combine(several, views, config.combines)
        return outputs

    def reader(self, stimuli: StimulusSet) -> Callable[[int], Any] | None:
        """Make what gives the captions, masks or labels of a stimulus, or the picture
        instead of it.

        Returns:
            None where the stimulus itself is read.

        Raises:
            MissingData: if there are no captions (masks, labels), or a stimulus has no
                picture in its place.
        """
        config = self.configs[0]
        if config.encodes != "pixels":
            views_each(config, stimuli)  # raises where there are none
            return stimuli.reader(config.encodes)
        return open_pictures(config.pictures, stimuli) if config.pictures else None

    @cached_property
    def blank(self) -> Tensor:
        """A blank picture, a short caption, an empty mask or no labels, preprocessed:
        [3, H, W] or …
        """
        if self.encoder.reads == "labels":
            return self.view(np.zeros(self.configs[0].known_shape or 1, np.uint8))
        return self.view(BLANK[self.encoder.reads])

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of one target by name, measured on a blank picture."""
        return {
            name: tuple(values.shape[1:])
            for name, values in self.encode(self.blank[None]).items()
        }


def views_each(config: EncoderConfig, stimuli: StimulusSet) -> int | None:
    """Count the frames, captions or masks that are encoded of each stimulus; None where
    it is one of them.

    Raises:
        MissingData: if there are none to read, or fewer than are asked for.
    """
    # views of a stimulus: frames, captions, or one
    reads = config.encodes
    views = config.views
    if reads == "pixels":
        count = None if config.pictures else stimuli.frames
    elif getattr(stimuli, reads) is None:
        raise MissingData(
            f"{stimuli.dataset}/{stimuli.split} has no {reads}, which "
            f"{config.name} reads",
            stimuli.way_out
            or f"use an encoder that reads pixels, or a data set with {reads}",
        )
    else:
        count = {"captions": stimuli.captions_each, "masks": stimuli.frames}.get(reads)
    # views: each, one by its number, or all or an average combined into one target
    if views == "each":
        return count
    if count is None or (isinstance(views, int) and views >= count):
        raise MissingData(
            f"{config.name} encodes views: {views}, and a stimulus of "
            f"{stimuli.dataset}/{stimuli.split} has {1 if count is None else count}",
            "views: each, or a number below that",
        )
    return count if views == "all" else None


def shape_of(
    config: EncoderConfig, one: tuple[int, ...], stimuli: StimulusSet
) -> tuple[int, ...]:
    """Give the shape of a stimulus's target, by that of one view's."""
    return (views_each(config, stimuli) or 1, *one) if config.views == "all" else one


def alternatives(config: EncoderConfig, stimuli: StimulusSet) -> int | None:
    """Count the targets of each stimulus, as `views_each`; None where they are combined
    into one.
    """
    count = views_each(config, stimuli)  # raises where there are none
    return None if config.combines else count


def _combine(targets: Tensor, views: Tensor, how: str) -> Tensor:
    """Combine targets [B, K, *shape] of views [B, K, …]; in an average, equal views
    count once.
    """
    if how == "first":
        return targets[:, 0]
    if how != "average":
        return targets
    # captions that repeat to fill up K count as one
    flat = views.flatten(2)
    repeats = (flat[:, :, None] == flat[:, None]).all(-1).sum(-1)  # [B, K]
    share = 1 / repeats.to(targets)  # [B, K]
    share = share / share.sum(1, keepdim=True)
    return (targets * share.view(*share.shape, *[1] * (targets.ndim - 2))).sum(1)


def grouped(
    configs: Sequence[EncoderConfig], precision: str, launch: Launch
) -> list[EncoderGroup]:
    """Group encoders that one forward pass can serve; groups of one network share
    it.
    """
    networks: dict[str, dict[str, EncoderConfig]] = {}
    groups: dict[tuple[str, str], list[EncoderConfig]] = {}
    # one config for each output of a network; one group for each input of it
    for config in configs:
        networks.setdefault(config.network_key, {}).setdefault(
            _output_of(config), config
        )
        # of one input, one forward pass gives all outputs
        seen = config.model_dump_json(include=SEEN)
        groups.setdefault((config.network_key, seen), []).append(config)
    shared = {
        key: Network([*members.values()], precision, launch)
        for key, members in networks.items()
    }
    return [
        EncoderGroup(group, shared[network]) for (network, _), group in groups.items()
    ]


def _output_of(config: EncoderConfig) -> str:
    return getattr(config, "output", EMBEDDING)


def encode(
    module: nn.Module,
    pictures: Tensor,
    precision: str,
    launch: Launch,
    source: str = "the network",
    is_frozen: bool = True,
) -> list[Tensor]:
    """Encode preprocessed pictures [B, 3, H, W] as float32 [B, *shape], once for each
    output.

    Gradients pass through it if it is not frozen.

    Raises:
        BrainhiveError: if the module, which comes from `source`, gives something else.
    """
    # or a GPU's fp32 has 10 bits
    exact = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
    with torch.inference_mode(is_frozen), launch.autocast(precision), exact:
        output = module(pictures.to(launch.device, non_blocking=True))

    # a user's module may return anything
    listed = output if isinstance(output, list) else [output]
    for one in listed:
        if not isinstance(one, Tensor) or one.ndim < 2 or len(one) != len(pictures):
            seen = list(one.shape) if isinstance(one, Tensor) else type(one).__name__
            raise BrainhiveError(
                f"{source} gives {seen} for {len(pictures)} pictures",
                "return [B, *shape]",
            )
    # float32, whatever autocast computed in; a copy, since memory of inputs, which
    # outputs may be, is reused
    with torch.inference_mode(is_frozen):
        return [one.to(torch.float32, copy=True) for one in listed]


def open_pictures(folder: str, stimuli: StimulusSet) -> Callable[[int], Image.Image]:
    """Find the pictures instead of stimuli by their ids, or the ids' last part; decode
    them by index.

    Raises:
        MissingData: if the folder is not there, or a stimulus has no picture.
        BrainhiveError: if a stimulus has several.
    """
    root = locate(folder)
    if not root.is_dir():
        raise MissingData(
            f"no folder {folder!r} of pictures", "name a folder that exists"
        )
    # file of each stimulus by its row
    names = list(pictures_below(root))
    rows, _ = match_names(names, stimuli.image_ids, each_once=True)
    name_of_row = dict(zip(rows.tolist(), names, strict=True))
    # all missing pictures in one error
    if absent := [
        image_id
        for row, image_id in enumerate(stimuli.image_ids)
        if row not in name_of_row
    ]:
        raise MissingData(
            f"{folder} lacks pictures of {stimuli.dataset}/{stimuli.split}, "
            f"{summarise_names(absent, len(stimuli))}",
            "name its pictures by image id",
        )
    return partial(
        _decode_picture, root, Names.of(name_of_row[row] for row in range(len(stimuli)))
    )


def _decode_picture(root: Path, files: Names, index: int) -> Image.Image:
    path = f"{root}/{files[index]}"
    return decode(path, path)


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
    further: tuple[Tensor | LazyRows, ...] = ()
    pixels: UInt64 | None = None

    def __post_init__(self) -> None:
        """Count alternatives, and note the shape of a target."""
        self.shape = tuple(self.values.shape[1:])
        self.alternatives = 1 + len(self.further)

    @classmethod
    def of(
        cls,
        store: TargetStore,
        device: torch.device,
        hold: bool,
        further: Sequence[TargetStore] = (),
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
        for opened in (store, *further):
            count = opened.alternatives
            values += (
                [opened.embedding]
                if count is None
                else [opened.embedding.column(k) for k in range(count)]
            )
        # in the store's dtype: float16 takes half the memory
        if hold:
            values = [torch.from_numpy(np.array(array)).to(device) for array in values]
        return cls(values[0], store.done, device, tuple(values[1:]), store.pixels)

    def gather(self, rows: Int64 | Tensor, which: Tensor | None = None) -> Tensor:
        """Gather the targets of some rows: float32 [B, *shape], on the device.

        Args:
            rows: Which stimuli, [B].
            which: Which alternative of each, [B]; the first when None.
        """
        # the first alternative of all rows, which the chosen ones replace
        gathered = self._gather(self.values, rows)
        for alternative, values in enumerate(
            self.further if which is not None else (), 1
        ):
            is_this: Any = which == alternative
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
            return values[to_device(index, values.device)].float()
        # files are read on the CPU, and the batch is copied
        chosen = rows.cpu().numpy() if isinstance(rows, Tensor) else rows
        return to_device(
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

    def chosen(self, values: Tensor, which: Tensor | None) -> Tensor:
        """Choose an alternative of what the network gives for `views`: [B, *shape]."""
        has_several = self.alternatives > 1 and self.combines
        return _choose(values, which) if has_several else values

    def views(
        self,
        rows: Int64 | Tensor,
        which: Tensor | None = None,
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
        return views if is_single else _choose(views, which)

    @cached_property
    def _reader(self) -> Callable[[int], Any] | None:
        """Gives what is encoded instead of a stimulus; other pictures are looked for
        once.
        """
        return self.group.reader(self.stimuli)


def compute_online(
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
    store.refuse_other_pictures(stimuli.image_ids, Line("embed"))
    return {keys[name]: OnlineTargets(stimuli, group, name) for name in group.names}


def _choose(values: Tensor, which: Tensor | None) -> Tensor:
    """Choose one of K for each row of [B, K, …]; the first when None."""
    alternative = (
        torch.zeros(len(values), dtype=torch.int64) if which is None else which
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
    def of(
        cls,
        stores: Mapping[str, TargetStore],
        launch: Launch,
        keys: Mapping[str, str] | None = None,
        hold: bool = True,
        further: Mapping[str, Sequence[TargetStore]] = MappingProxyType({}),
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
        every = [*stores.values(), *chain.from_iterable(further.values())]
        needed = sum(store.embedding.nbytes for store in every) * launch.processes
        if hold and needed > free_bytes(launch.device) / 2:
            console.say(f"the targets need {needed / 1e9:.1f} GB, so they stay on disk")
            hold = False
        # encoders are called by the fuser's keys, where it has keys
        key_of = {name: name for name in stores} | {**(keys or {})}
        return cls(
            {
                key_of[name]: StoreTargets.of(
                    store, launch.device, hold, further.get(name, ())
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
        which: Mapping[str, Tensor] = MappingProxyType({}),
    ) -> dict[str, Tensor]:
        """Give the targets of some rows, float32 [B, *shape] by key; each group runs
        once.

        Args:
            rows: Which stimuli, [B].
            which: Which alternative of each, [B] by key; the first where none is named.
            views: The stimuli as each of `groups` sees them, [B, 3, H, W] by its name;
                decoded here if none.
        """
        if self.groups and views is None and len(rows) > ONLINE_AT_ONCE:
            # many stimuli in blocks, since their decoded pictures take memory
            blocks = [
                slice(start, start + ONLINE_AT_ONCE)
                for start in range(0, len(rows), ONLINE_AT_ONCE)
            ]
            gathered = [
                self.gather(
                    rows[block], None, {key: which[key][block] for key in which}
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
                blocks_of_key[key] = source.gather(rows, which.get(key))
                continue
            group = source.group
            if group not in computed:
                # what the data loader prepared, else decode the stimuli here
                seen = (views or {}).get(group.name)
                if seen is None:
                    seen = source.views(rows, which.get(key), opened)
                computed[group] = group.encode(seen)
            values = source.chosen(computed[group][source.name], which.get(key))
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
            if target_store.find(root, dataset.name, split, c.name)[0].is_file()
        ]
    stores = (
        open_stores(dataset, dataset_config, split, stored, paths, images)
        if stored
        else {}
    )
    sources = Targets.of(stores, launch, hold=False).sources
    missing = [config for config in encoders if config not in stored]
    for config in missing:
        if config.pictures:  # at each step, the stimulus itself would be seen
            raise MissingData(
                f"{config.name} has no store", write_embedding(dataset_config, [config])
            )
    # encoders of one network share it, and compute in float32
    for group in grouped(missing, "fp32", launch):
        stimuli = images or dataset.images(split)
        sources |= {name: OnlineTargets(stimuli, group, name) for name in group.names}
    return Targets(sources)
