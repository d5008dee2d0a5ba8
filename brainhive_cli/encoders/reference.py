"""An encoder known only by where it lies: its own config says which family loads it."""

import json
from pathlib import Path

from pydantic import Field

from brainhive_cli import hub, parts
from brainhive_cli.encoders import Encoder, EncoderConfig
from brainhive_cli.encoders.diffusers_vae import KINDS
from brainhive_cli.errors import MissingData


class Config(EncoderConfig):
    """`hub:owner/name` or a folder of transformers CLIP, a diffusers autoencoder, or timm."""

    source: str = Field("", description="hub:owner/name[/subfolder][@revision], or a folder")

    def build(self) -> Encoder:
        """Look at the config, then load through the family's own part."""
        family = family_of(hub.folder(self.source, allow=("config.json", "*.json")))
        encoder: Encoder = parts.resolve("encoders", {"kind": family, "source": self.source}).build()
        return encoder


TINY = Config(source="demo:encoder")


def family_of(folder: Path) -> str:
    """Name the part that loads a folder; MissingData when none does."""
    path = folder / "config.json"
    if not path.is_file():
        raise MissingData(f"{folder} has no config.json", "give a folder of transformers, diffusers or timm")
    config = json.loads(path.read_text())
    if config.get("_class_name") in KINDS:
        return "diffusers_vae"
    if str(config.get("model_type", "")).startswith("clip"):
        return "transformers_clip"
    if "architecture" in config and "pretrained_cfg" in config:
        return "timm"
    names = config.get("_class_name") or config.get("model_type") or "unknown"
    raise MissingData(
        f"{folder} holds a model of kind {names}", "known: transformers CLIP, diffusers VAE, timm"
    )
