"""MindEye2's SDXL-unCLIP from its checkpoint file, converted once to a folder of diffusers."""

import json
import os
import shutil
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from brainhive_cli.core import hub, weights
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.needs import Need
from brainhive_cli.models import single_file
from brainhive_cli.models.generators import _components, _converted
from brainhive_cli.models.generators._architecture import Architecture

UNET, VAE = "model.diffusion_model.", "first_stage_model."
"""Before the names of the weights in the checkpoint; those of its image encoder are not needed."""
ANOTHER = "give unclip6_epoch0_step110000.ckpt, or set generator.architecture"
NETWORKS = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL"}


def folder_of(source: str, architecture: Architecture, dtype: torch.dtype) -> Path:
    """Find the folder of a source, converted first where that is a checkpoint file.

    Raises:
        MissingData: if it is absent or damaged.
        BrainhiveError: if it is of another U-Net.
    """
    if not is_checkpoint(source):
        return _components.folder_of(source, None)

    def convert(part: Path) -> None:
        _convert(single_file.find(source), architecture, dtype, part)

    return _converted.once(_name(source), dtype, "SDXL-unCLIP", convert)


def need(source: str) -> Need:
    """Look for a checkpoint, or what it was converted to."""
    found = single_file.need(source)
    is_here = source.startswith("hub:") or found.error is None
    return Need(found.name) if is_here and _converted.any_of(_name(source)) else found


def is_checkpoint(source: str) -> bool:
    """Tell a checkpoint file from a folder, by its name."""
    return Path(source.partition("@")[0]).suffix in (".ckpt", ".pt", ".pth", ".safetensors")


def check_unet(config: dict[str, Any], where: Path | str) -> None:
    """Refuse a U-Net that takes more than sizes next to its tokens, as SDXL's own does."""
    _components.check_unet(config, where)
    takes = config.get("projection_class_embeddings_input_dim")
    if takes != (sizes := 4 * config.get("addition_time_embed_dim", 0)):
        raise BrainhiveError(
            f"the U-Net of {where} is not unCLIP's: it takes {takes} numbers next to tokens, not {sizes}",
            "use generator.kind=sdxl",
        )


def _name(source: str) -> str:
    """Name what is converted, by the reference at the hub or by the file's digest."""
    if source.startswith("hub:"):
        return f"sdxl-unclip-{sha256(source.encode()).hexdigest()[:12]}"
    file = single_file.find(source)
    return f"sdxl-unclip-{hub.digest(file.parent, [file.name])[:12]}"


def _convert(file: Path, architecture: Architecture, dtype: torch.dtype, part: Path) -> None:
    """Convert the networks one by one; those that were finished before an interruption stay."""
    state = weights.read(file)
    for prefix in (UNET, VAE):
        if not any(name.startswith(prefix) for name in state):
            raise MissingData(f"{file} holds no weights of {prefix}*", ANOTHER)
    for name in NETWORKS:
        if not (part / name).is_dir():
            shutil.rmtree(part / f".{name}", ignore_errors=True)
            _save(part / f".{name}", name, architecture[name], state, dtype, file)
            os.replace(part / f".{name}", part / name)
    (part / "scheduler").mkdir(exist_ok=True)
    (part / "scheduler/scheduler_config.json").write_text(json.dumps(architecture["scheduler"]))


def _save(
    folder: Path, name: str, config: dict[str, Any], state: dict[str, Tensor], dtype: torch.dtype, file: Path
) -> None:
    import diffusers
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint

    with weights.reading(f"the architecture of {name}", ANOTHER, BrainhiveError), torch.device("meta"):
        network: Any = getattr(diffusers, NETWORKS[name]).from_config(config)
    convert = convert_ldm_unet_checkpoint if name == "unet" else convert_ldm_vae_checkpoint
    with weights.reading(file, ANOTHER, BrainhiveError, problem=f"does not fit {NETWORKS[name]}"):
        found = convert(state, network.config)
    weights.fill(network, found, file, ANOTHER)
    network.save_config(folder)
    converted = {key: value.to(dtype) for key, value in found.items()}
    weights.save(folder / f"{_components.WEIGHTS}.safetensors", converted)
