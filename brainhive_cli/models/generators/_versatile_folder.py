"""Versatile Diffusion's folder as it lies on the hub, converted once to what its dual guidance needs."""

import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from brainhive_cli.core import hub, weights
from brainhive_cli.core.errors import MissingData
from brainhive_cli.core.needs import Need
from brainhive_cli.models.clip_conditions import (
    IMAGE,
    PROCESSOR,
    PROJECTED_TEXT,
    TEXT,
    TOKENIZER,
    VISION,
    of_pictures,
    of_texts,
    pixels_of,
    processor_of,
    token_ids,
    tower_of,
)
from brainhive_cli.models.generators import _components
from brainhive_cli.models.generators import _converted as _kept
from brainhive_cli.models.generators._dual import joined, make_dual

CONFIGS = ("image_unet", "vae", "scheduler")
UNETS = ("image_unet", "text_unet")
STEMS = {**dict.fromkeys((*UNETS, "vae"), _components.WEIGHTS)}
STEMS |= dict.fromkeys((IMAGE, TEXT), "pytorch_model")
"""Weights of each component; the publisher's are pickles."""
FILES = tuple(f"{component}/{stem}.bin" for component, stem in STEMS.items())
SIZES = {FILES[0]: 3_440_000_000, FILES[3]: 1_220_000_000}
"""Bytes, as the hub's page rounds them; of the others it is not noted."""
UNET, VAE, UNCONDITIONAL = "unet.safetensors", "vae.safetensors", "unconditional.safetensors"
"""Files of a converted folder, which stands for the whole."""
SMALL = ("*/*.json", "tokenizer/*", UNET, VAE, UNCONDITIONAL)
"""What is fetched before it is known whether the published weights are needed."""
BLACK_PX = 224
"""Side of the black picture that is the unconditional one."""


def load(source: str, dtype: torch.dtype) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Load U-Net, VAE and scheduler, and the tokens of the empty prompt and a black picture.

    Returns:
        The components; `text` [1, S, D] and `image` [1, S, D] in float32.

    Raises:
        MissingData: if a component is absent, damaged or half-downloaded.
    """
    import diffusers

    folder = hub.folder(source, allow=SMALL)
    configs = {name: _components.read(folder, name) for name in CONFIGS}
    kept = _converted(source, folder, configs, dtype)
    with torch.device("meta"):
        unet = make_dual(diffusers.UNet2DConditionModel.from_config(configs["image_unet"]))
        vae = diffusers.AutoencoderKL.from_config(configs["vae"])
    for module, name in ((unet, UNET), (vae, VAE)):
        weights.fill(module, weights.read(kept / name), kept / name)
        _components.cast(module, dtype)
    scheduler = _components.scheduler(configs["scheduler"], folder)
    return {"unet": unet, "vae": vae, "scheduler": scheduler}, weights.read(kept / UNCONDITIONAL)


def check(source: str) -> None:
    """Read the configs; they must be there, and all files of a folder that is not the hub's."""
    folder = hub.folder(source, allow=SMALL)
    for name in CONFIGS:
        _components.read(folder, name)
    if not source.startswith("hub:") and not _is_converted(source, folder):
        _require(folder)


def needs(source: str) -> list[Need]:
    """Look for the weights of each component; none is needed where all are converted."""
    with suppress(MissingData):
        if _is_converted(source, hub.folder(source, allow=SMALL)):
            return []
    also = (*SMALL[:2], *FILES)
    return [hub.need(source, (), (file,), also, SIZES.get(file)) for file in FILES]


def _is_converted(source: str, folder: Path) -> bool:
    return (folder / UNET).is_file() or _kept.any_of(_name(source, folder))


def _require(folder: Path) -> None:
    for file in (*FILES, TOKENIZER, PROCESSOR):
        if not (folder / file).exists():
            raise MissingData(f"the generator {folder} has no {file}", "download it again")


def _name(source: str, folder: Path) -> str:
    """Name the folder of converted weights by what they are made of: the hub's commit, or the files."""
    digest = hub.revision(folder) if source.startswith("hub:") else hub.digest(folder, FILES)
    return f"versatile-diffusion-{digest[:12]}"


def _converted(source: str, folder: Path, configs: Mapping[str, Any], dtype: torch.dtype) -> Path:
    """Find the converted weights, or convert them."""
    if (folder / UNET).is_file():  # converted elsewhere
        return folder
    if not source.startswith("hub:"):
        _require(folder)

    def convert(part: Path) -> None:
        whole = hub.folder(source, allow=(*SMALL, *FILES))
        _require(whole)
        for name in CONFIGS:  # so that it stands for the whole
            ignored = shutil.ignore_patterns("*.bin")
            shutil.copytree(whole / name, part / name, ignore=ignored, dirs_exist_ok=True)
        _convert(whole, configs, dtype, part)

    return _kept.once(_name(source, folder), dtype, "Versatile Diffusion", convert)


def _convert(folder: Path, configs: Mapping[str, Any], dtype: torch.dtype, part: Path) -> None:
    import diffusers

    with torch.device("meta"):
        unet = make_dual(diffusers.UNet2DConditionModel.from_config(configs["image_unet"]))
    states = [weights.read(folder / name / f"{STEMS[name]}.bin") for name in UNETS]  # mapped, not loaded
    state = {key: value.to(dtype) for key, value in joined(unet, *states).items()}
    weights.fill(unet, state, folder / UNETS[1], _components.WHOLE, MissingData)
    weights.save(part / UNET, state)
    vae = _components.pretrained(diffusers.AutoencoderKL, folder, "vae", dtype, None)
    weights.save(part / VAE, vae.state_dict())
    with torch.inference_mode():
        ids = token_ids(folder)("")
        pixels = pixels_of(processor_of(folder), Image.new("RGB", (BLACK_PX, BLACK_PX)))
        text = of_texts(tower_of(folder, TEXT, PROJECTED_TEXT), ids[None])
        image = of_pictures(tower_of(folder, IMAGE, VISION), pixels[None])
    weights.save(part / UNCONDITIONAL, {"text": text, "image": image})
