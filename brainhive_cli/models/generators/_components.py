"""The components of a latent diffusion model: their folders, configs, weights and
devices.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from brainhive_cli.core import console, documents, hub
from brainhive_cli.core.claims import Claim
from brainhive_cli.core.command import Input
from brainhive_cli.core.errors import MissingData
from brainhive_cli.core.files import home_folder, locate
from brainhive_cli.models.foreign_weights import load_network

Architecture = dict[str, dict[str, Any]]
"""Arguments of diffusers' classes, by component: unet, vae, scheduler, and what else a
generator has.
"""
ARCHITECTURES = documents.read(
    Path(__file__).with_name("architectures.yaml"), dict[str, Architecture]
)
"""Architectures of every kind, as published, and `KIND TINY` of its TINY instance."""
RANDOM = "random"
"""The source that means random weights."""
EMPTY_PROMPT = "empty_prompt.safetensors"
"""File instead of text encoders: prompt_embeds [1, S, D_text] and pooled_prompt_embeds
[1, D_pooled].
"""
CONFIGS = {
    "scheduler": "scheduler_config.json",
    "tokenizer": "tokenizer_config.json",
    "tokenizer_2": "tokenizer_config.json",
}
"""The config file of each component, as diffusers names it, where it is not
config.json.
"""
WHOLE = "give a whole folder of diffusers, or download it again"
TEXT = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
"""Components of SDXL that embed prompts."""
WEIGHTS = "diffusion_pytorch_model"
"""Stem of the weight files of U-Net and VAE."""
STEMS = (f"unet/{WEIGHTS}", f"vae/{WEIGHTS}")
CONVERTED = "models"
"""Folder of converted weights, below home."""


class Placement:
    """Devices of networks: all on one, or there only while they are used.

    Args:
        networks: Of a generator; they are moved and frozen.
        device: Where they compute.
    """

    def __init__(self, networks: Sequence[Any], device: torch.device) -> None:
        self.networks = networks
        self.device = device
        self.is_offloaded = False
        for network in networks:
            nn.Module.to(network, device).eval().requires_grad_(False)

    def offload(self, device: torch.device) -> None:
        """Compute on another device, and hold there only what is used."""
        self.device = device
        self.is_offloaded = True

    def use(self, *networks: Any) -> None:
        """Have these networks on the device, and where memory is spared no others."""
        if self.is_offloaded:
            for network in self.networks:
                nn.Module.to(network, self.device if network in networks else "cpu")


def find_folder(source: str, variant: str | None = None, *, text: bool = False) -> Path:
    """Find a generator's folder; from the hub only what is used is fetched (the text
    encoders on request).
    """
    if error := describe_file(source):
        raise error
    # weights of the requested components and variant, with all configs
    stems = ["text_encoder*/model"] if text else STEMS
    files = [name for stem in stems for name in weight_files(stem, variant)]
    return hub.folder(source, allow=["*.json", "tokenizer*/*", EMPTY_PROMPT, *files])


def describe_file(source: str) -> MissingData | None:
    """Say that one file stands instead of a generator's folder; None for a folder."""
    if source.startswith("hub:") or not locate(source).is_file():
        return None
    way = (
        "a folder, as diffusers' from_single_file makes it; an IP-Adapter is for "
        "prior.start_from"
    )
    return MissingData(
        f"{source} is a file, and generators are read from a folder of diffusers", way
    )


def weight_files(stem: str, variant: str | None = None) -> list[str]:
    """Name the file of weights, and the pattern of those that are split; a variant is a
    suffix.
    """
    return [
        f"{stem}{f'.{variant}' if variant else ''}{shard}.safetensors"
        for shard in ("", "-*")
    ]


def list_inputs(
    source: str,
    stems: Sequence[str] = STEMS,
    files: Sequence[str] = (),
    variant: str | None = None,
) -> list[Input]:
    """Look for the weights of a generator's components; none of random ones.

    Args:
        source: The generator's folder, or that of one network.
        stems: The components' weight files, without ending.
        files: What else must be there.
        variant: Of the weight files.
    """
    if error := describe_file(source):
        return [Input(source, None, error)]

    # patterns of the files that would be fetched
    patterns = ["config.json"] if stems[0] == WEIGHTS else ["*/*.json", "tokenizer*/*"]
    patterns += [name for stem in stems for name in weight_files(stem, variant)]

    # one need for each network; random weights need nothing
    needs = []
    for stem in stems if source != RANDOM else ():
        config = (
            []
            if source.startswith("hub:")
            else [str(Path(stem).with_name("config.json"))]
        )
        needs.append(
            hub.find_input(
                source, [*config, *files], weight_files(stem, variant), patterns
            )
        )
    return needs


def read_config(folder: Path, component: str) -> dict[str, Any]:
    """Read the config of a component; MissingData if it is absent or damaged."""
    file = folder / component / CONFIGS.get(component, "config.json")
    if not file.is_file():
        alternative = f", nor {EMPTY_PROMPT}" if component in TEXT else ""
        raise MissingData(
            f"the generator {folder} has no {file.relative_to(folder)}{alternative}",
            WHOLE,
        )
    return documents.read_download(file)


def load_network_folder(cls: Any, reference: str, dtype: torch.dtype) -> Any:
    """Load a network that is a folder of its own, with the errors of `load_network`."""
    folder = hub.folder(reference, allow=["config.json", *weight_files(WEIGHTS)])
    read_config(folder, "")
    return load_network(cls, folder, f"the network {folder}", torch_dtype=dtype)


def make_scheduler(config: dict[str, Any], where: Path | str) -> Any:
    """Make the scheduler that a config names."""
    import diffusers
    from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers

    # diffusers' schedulers that its pipelines exchange, and those of distilled models
    known = {*KarrasDiffusionSchedulers.__members__, "LCMScheduler", "TCDScheduler"}
    kind = config.get("_class_name", "")
    if kind not in known:
        raise MissingData(
            f"the scheduler of the generator {where} is of the class {kind!r}, "
            "which is not known here",
            f"known: {', '.join(sorted(known))}",
        )
    return getattr(diffusers, kind).from_config(config)


def draw_components(
    architecture: Architecture,
    device: torch.device,
    dtype: torch.dtype,
    change: Callable[[Any], Any] = lambda unet: unet,
) -> dict[str, Any]:
    """Make U-Net and VAE with random weights (shapes alone on the meta device), and the
    scheduler.

    Args:
        architecture: Arguments of their classes.
        device: Where they are made.
        dtype: Of the weights.
        change: Changes the U-Net.
    """
    import diffusers

    # draw the same weights every time, and leave the caller's random state as it is
    # by default all, which would wake the others
    gpus = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(gpus), device:
        torch.manual_seed(0)
        unet = change(diffusers.UNet2DConditionModel.from_config(architecture["unet"]))
        vae = diffusers.AutoencoderKL.from_config(architecture["vae"])

    # bring networks to their dtype, and make the scheduler
    sampler = {"_class_name": "EulerDiscreteScheduler", **architecture["scheduler"]}
    return {
        "unet": cast(unet, dtype),
        "vae": cast(vae, dtype),
        "scheduler": make_scheduler(sampler, "the architecture"),
    }


def cast(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Change a model's dtype without the warning that diffusers' own `to` gives for no
    cause.
    """
    return nn.Module.to(model, dtype)


def is_converted(name: str) -> bool:
    """Whether a publisher's weights were converted before, to any dtype."""
    return any((home_folder() / CONVERTED).glob(f"{name}-*"))


def convert_once(
    name: str, dtype: torch.dtype, described: str, convert: Callable[[Path], None]
) -> Path:
    """Find a folder of converted weights, or let `convert` fill it; interrupted, none
    has this name.
    """
    folder = home_folder() / CONVERTED / f"{name}-{str(dtype).removeprefix('torch.')}"

    # another process may be converting: wait for it, and take its folder
    lock = Claim.for_path(folder, wait=True)
    try:
        if not folder.is_dir():
            console.say(f"{described} is converted once, into {folder}")
            part = folder.with_name(f".{folder.name}.part")
            # of an interrupted conversion, whose files are written again
            part.mkdir(exist_ok=True)
            convert(part)
            os.replace(part, folder)
    finally:
        lock.release()
    return folder
