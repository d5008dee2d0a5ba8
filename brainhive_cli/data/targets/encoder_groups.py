"""Groups of encoders that share a network and its forward passes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from brainhive_cli.core.base import BrainhiveError, Line, MissingData, console
from brainhive_cli.core.files import locate
from brainhive_cli.core.runs import Launch
from brainhive_cli.data.files import Names, match_names, summarise_names
from brainhive_cli.data.media import Clip, StimulusSet, decode, find_pictures
from brainhive_cli.models.encoders import (
    INPUT_KEYS,
    Encoder,
    EncoderConfig,
    join_outputs,
)

BLANK = {
    "pixels": Image.new("RGB", (256, 256)),
    "captions": "a picture",
    "masks": np.zeros((256, 256), np.uint8),
}
"""Inputs with which the shape of a target is measured, keyed by kind."""


@dataclass(frozen=True, eq=False)
class Network:
    """Network that several encoders share. They differ in output or in input.

    Weights are downloaded when `encoder` is first used, and loaded when `module` is.

    Attributes:
        configs: An encoder for each output of the network.
        precision: Autocast dtype of the forward pass.
        launch: Device and processes.
        learns: If True, gradients pass through the network, to parameters before it.
    """

    configs: Sequence[EncoderConfig]
    precision: str
    launch: Launch
    learns: bool = False

    @cached_property
    def encoder(self) -> Encoder:
        """Encoder of unchanged stimuli with an output for each config."""
        with console.progress(f"loading {self.configs[0].name}"):
            return join_outputs(self.configs).build()

    @cached_property
    def module(self) -> nn.Module:
        """Network on its device, with weights in the dtype of autocast."""
        module = self.encoder.module.requires_grad_(False).to(self.launch.device)
        with self.launch.autocast(self.precision):
            if torch.is_autocast_enabled(self.launch.device.type):
                # autocast would cast the weights of these layers at each call
                dtype = torch.get_autocast_dtype(self.launch.device.type)
                for layer in module.modules():
                    if isinstance(layer, nn.Linear | nn.Conv2d):
                        layer.to(dtype)
        return module


@dataclass(eq=False)
class EncoderGroup:
    """Encoders of one network and input, computed in one forward pass.

    Attributes:
        configs: The encoders.
        network: Their network, which other groups may share.
        names: Names of the encoders.
        name: First of these names, for the group.
    """

    configs: Sequence[EncoderConfig]
    network: Network

    def __post_init__(self) -> None:
        """Set the names."""
        self.names = tuple(config.name for config in self.configs)
        self.name = self.names[0]

    @cached_property
    def encoder(self) -> Encoder:
        """Network with its preprocessing, which may degrade pictures."""
        degradation = self.configs[0].degrade
        if isinstance(degradation, str):
            return self.network.encoder.with_degradation(degradation)
        return self.network.encoder

    @property
    def digest(self) -> str:
        """Latent space of the network, else the digest of its weights, or ""."""
        latent_space: str = getattr(self.encoder.module, "latent_space", "")
        return latent_space or self.encoder.weights.get("digest", "")

    def view(self, stimulus: Any) -> Tensor:
        """Preprocess a picture, clip, caption, mask or label, or a list of these.

        Args:
            stimulus: The input of the encoders.

        Returns:
            Tensor of a picture [3, H, W], or other input. A clip or a list gives
            [K, …], or the single view that the config selects.

        Raises:
            MissingData: if a picture or clip is given to an encoder of captions, masks
                or labels.
            BrainhiveError: if the preprocessing does not return a tensor.
        """
        preprocess = self.encoder.preprocess
        reads = self.encoder.reads
        if reads != "pixels" and isinstance(stimulus, Image.Image | Clip):
            raise MissingData(
                f"{self.name} reads {reads}, and has no store", Line("embed")
            )
        if isinstance(stimulus, Clip | list):
            views = stimulus.to_pictures() if isinstance(stimulus, Clip) else stimulus
            view_index = self.configs[0].views
            if isinstance(view_index, int):
                return torch.as_tensor(preprocess(views[view_index]))
            return self.encoder.preprocess_all(views)

        # preprocessing of users may return anything
        view = preprocess(stimulus)
        if not isinstance(view, Tensor):
            source = self.encoder.weights.get("source", self.name)
            raise BrainhiveError(
                f"the preprocessing of {source} returns {type(view).__name__}, not a "
                "tensor",
                "let it end in a tensor [3, H, W]",
            )
        return view

    def encode(self, views: Tensor) -> dict[str, Tensor]:
        """Encode preprocessed stimuli in one forward pass.

        Args:
            views: Tensor [B, 3, H, W], or [B, K, …] of K frames, captions or masks.

        Returns:
            Targets [B, *shape] or [B, K, *shape] in float32, keyed by encoder.
        """
        # K views of a stimulus are encoded as further rows, [B * K, …]
        network = self.network
        has_several = views.ndim > self.blank.ndim + 1
        output_list = encode(
            network.module,
            views.flatten(0, 1) if has_several else views,
            network.precision,
            network.launch,
            self.encoder.weights.get("source", self.name),
            is_frozen=not (network.learns and torch.is_grad_enabled()),
        )
        # other groups may use other outputs of the network
        output_of = {}
        for config, output in zip(network.configs, output_list, strict=True):
            output_of[_get_output_key(config)] = output

        targets = {}
        for config in self.configs:
            values = output_of[_get_output_key(config)]
            if has_several:
                values = values.unflatten(0, views.shape[:2])
                values = _combine(values, views, config.view_pooling)
            targets[config.name] = values
        return targets

    def reader(self, stimuli: StimulusSet) -> Callable[[int], Any] | None:
        """Return the function that reads captions, masks, labels or other pictures.

        Args:
            stimuli: The stimuli.

        Returns:
            Function from index to the input, or None if the stimulus itself is read.

        Raises:
            MissingData: if the stimuli lack captions, masks or labels, or a stimulus
                has no other picture.
        """
        config = self.configs[0]
        if config.content != "pixels":
            count_views(config, stimuli)  # raises MissingData
            return stimuli.get_reader(config.content)
        return open_pictures(config.pictures, stimuli) if config.pictures else None

    @cached_property
    def blank(self) -> Tensor:
        """Preprocessed blank picture, short caption, empty mask or zero labels."""
        if self.encoder.reads == "labels":
            return self.view(np.zeros(self.configs[0].static_shape or 1, np.uint8))
        return self.view(BLANK[self.encoder.reads])

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of a target, keyed by encoder, measured on a blank input."""
        targets = self.encode(self.blank[None])
        return {name: tuple(values.shape[1:]) for name, values in targets.items()}


def count_views(config: EncoderConfig, stimuli: StimulusSet) -> int | None:
    """Return the number of views of a stimulus: frames, captions or masks.

    Args:
        config: The encoder.
        stimuli: The stimuli.

    Returns:
        The number K if the config has `views: each` or `views: all`. None for an index,
        an average, or stimuli of a single view.

    Raises:
        MissingData: if the stimuli lack this input, or have too few views.
    """
    annotations = {
        "captions": stimuli.captions,
        "masks": stimuli.masks,
        "labels": stimuli.labels,
    }
    counts = {"captions": stimuli.captions_each, "masks": stimuli.frames}
    reads = config.content
    views = config.views
    if reads == "pixels":
        count = None if config.pictures else stimuli.frames
    elif annotations[reads] is None:
        raise MissingData(
            f"{stimuli.dataset}/{stimuli.split} has no {reads}, which "
            f"{config.name} reads",
            stimuli.way_out
            or f"use an encoder that reads pixels, or a data set with {reads}",
        )
    else:
        count = counts.get(reads)

    if views == "each":
        return count
    if count is None or (isinstance(views, int) and views >= count):
        n_views = 1 if count is None else count
        raise MissingData(
            f"{config.name} encodes views: {views}, but a stimulus of "
            f"{stimuli.dataset}/{stimuli.split} has {n_views}",
            "views: each, or a smaller number",
        )
    return count if views == "all" else None


def get_target_shape(
    config: EncoderConfig, view_shape: tuple[int, ...], stimuli: StimulusSet
) -> tuple[int, ...]:
    """Return the shape of a stimulus's target, given the shape for one view."""
    if config.views != "all":
        return view_shape
    return (count_views(config, stimuli) or 1,) + view_shape


def count_alternatives(config: EncoderConfig, stimuli: StimulusSet) -> int | None:
    """Return the number of targets of each stimulus, or None for a single target.

    Raises:
        MissingData: as for `count_views`.
    """
    count = count_views(config, stimuli)
    return None if config.view_pooling else count


def _combine(targets: Tensor, views: Tensor, method: str) -> Tensor:
    """Combine the targets of the views of each stimulus.

    Args:
        targets: Targets [B, K, *shape].
        views: Preprocessed views [B, K, …]. Equal views count once in the average.
        method: "first", "average", or another text to combine nothing.
    """
    if method == "first":
        return targets[:, 0]
    if method != "average":
        return targets
    # captions are repeated to fill up K
    flat = views.flatten(2)
    repeats = (flat[:, :, None] == flat[:, None]).all(-1).sum(-1)  # [B, K]
    weights = 1 / repeats.to(targets)  # [B, K]
    weights = weights / weights.sum(1, keepdim=True)
    n_target_axes = targets.ndim - 2
    return (targets * weights[(...,) + (None,) * n_target_axes]).sum(1)


def group_encoders(
    configs: Sequence[EncoderConfig], precision: str, launch: Launch
) -> list[EncoderGroup]:
    """Group encoders by network and input. Groups of one network share it.

    Args:
        configs: The encoders.
        precision: Autocast dtype of the forward pass.
        launch: Device and processes.
    """
    # an encoder for each output of a network, and a group for each of its inputs
    configs_of_network: dict[str, dict[str, EncoderConfig]] = {}
    configs_of_group: dict[tuple[str, str], list[EncoderConfig]] = {}
    for config in configs:
        network_configs = configs_of_network.setdefault(config.network_key, {})
        network_configs.setdefault(_get_output_key(config), config)
        input_key = config.model_dump_json(include=INPUT_KEYS)
        group_key = (config.network_key, input_key)
        configs_of_group.setdefault(group_key, []).append(config)

    networks = {}
    for key, network_configs in configs_of_network.items():
        networks[key] = Network(list(network_configs.values()), precision, launch)
    groups = []
    for (network_key, _), group_configs in configs_of_group.items():
        groups.append(EncoderGroup(group_configs, networks[network_key]))
    return groups


def _get_output_key(config: EncoderConfig) -> str:
    """Return the output of an encoder."""
    return str(config.output_names)


def encode(
    module: nn.Module,
    pictures: Tensor,
    precision: str,
    launch: Launch,
    source: str = "the network",
    is_frozen: bool = True,
) -> list[Tensor]:
    """Encode preprocessed pictures.

    Args:
        module: The network.
        pictures: Pictures [B, 3, H, W].
        precision: Autocast dtype.
        launch: Device of the network.
        source: Name of the network, for errors.
        is_frozen: If False, gradients pass through the network.

    Returns:
        Float32 [B, *shape] for each output of the network.

    Raises:
        BrainhiveError: if the network returns something else.
    """
    # TF32 would round the convolutions of a GPU to 10 bits
    exact = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
    with torch.inference_mode(is_frozen), launch.autocast(precision), exact:
        output = module(pictures.to(launch.device, non_blocking=True))

    # modules of users may return anything
    outputs = output if isinstance(output, list) else [output]
    for values in outputs:
        is_tensor = isinstance(values, Tensor)
        if not is_tensor or values.ndim < 2 or len(values) != len(pictures):
            text = list(values.shape) if is_tensor else type(values).__name__
            raise BrainhiveError(
                f"{source} returns {text} for {len(pictures)} pictures",
                "return [B, *shape]",
            )
    # copy, because an output may be an input, whose memory is used again
    with torch.inference_mode(is_frozen):
        return [values.to(torch.float32, copy=True) for values in outputs]


def open_pictures(folder: str, stimuli: StimulusSet) -> Callable[[int], Image.Image]:
    """Find the pictures that replace stimuli.

    Args:
        folder: Folder of pictures, named by image ids or the last parts of these.
        stimuli: The stimuli.

    Returns:
        Function from index to the decoded picture.

    Raises:
        MissingData: if the folder does not exist, or a stimulus has no picture.
        BrainhiveError: if a stimulus has several pictures.
    """
    root = locate(folder)
    if not root.is_dir():
        raise MissingData(
            f"no folder {folder!r} of pictures", "name a folder that exists"
        )
    files = list(find_pictures(root))
    rows, _ = match_names(files, stimuli.image_ids, each_once=True)
    file_of_row = dict(zip(rows.tolist(), files, strict=True))
    missing_ids = []
    for row, image_id in enumerate(stimuli.image_ids):
        if row not in file_of_row:
            missing_ids.append(image_id)
    if missing_ids:
        raise MissingData(
            f"{folder} lacks pictures of {stimuli.dataset}/{stimuli.split}, "
            f"{summarise_names(missing_ids, len(stimuli))}",
            "name its pictures by image id",
        )
    ordered_files = Names.of(file_of_row[row] for row in range(len(stimuli)))
    return partial(_decode_picture, root, ordered_files)


def _decode_picture(root: Path, files: Names, index: int) -> Image.Image:
    """Decode the picture of an index."""
    path = f"{root}/{files[index]}"
    return decode(path, path)
