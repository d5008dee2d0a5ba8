"""Groups of encoders that share a network, and what they give for stimuli."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from brainhive_cli.core import console
from brainhive_cli.core.errors import BrainhiveError, Line, MissingData
from brainhive_cli.core.files import locate
from brainhive_cli.core.launch import Launch
from brainhive_cli.data.files.ids import Names, match_names, summarise_names
from brainhive_cli.data.media.pictures import decode
from brainhive_cli.data.media.stimuli import Clip, StimulusSet, find_pictures
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
            return stimuli.get_reader(config.encodes)
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
    names = list(find_pictures(root))
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
