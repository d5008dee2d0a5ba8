"""An encoder known only by where it lies: its own config says which family loads it."""

import json
from pathlib import Path

from pydantic import Field

from brainhive_cli import hub, parts
from brainhive_cli.encoders import EMBEDDING, Encoder
from brainhive_cli.encoders._tokens import TokenConfig
from brainhive_cli.encoders.diffusers_vae import KINDS
from brainhive_cli.encoders.transformers_vit import FAMILIES
from brainhive_cli.errors import MissingData


class Config(TokenConfig):
    """`hub:owner/name` or a folder of a transformers ViT, a diffusers autoencoder, timm or open_clip."""

    source: str = Field("", description="hub:owner/name[/subfolder][@revision], or a folder")

    def build(self) -> Encoder:
        """Look at the config, then build through the family's own part."""
        family = family_of(hub.folder(self.source, allow=("*.json",), local=self.is_here))
        asked = {} if self.output == EMBEDDING else {"output": self.output}
        encoder: Encoder = parts.resolve("encoders", {"kind": family, "source": self.source, **asked}).build()
        return encoder


TINY = Config(source="demo:encoder")


def family_of(folder: Path) -> str:
    """Name the part that loads a folder; MissingData when none does."""
    path = folder / "config.json"
    if not path.is_file():
        if (folder / "open_clip_config.json").is_file():
            return "open_clip"
        raise MissingData(
            f"{folder} has no config.json", "give a folder of transformers, diffusers, timm or open_clip"
        )
    config = json.loads(path.read_text())
    if config.get("_class_name") in KINDS:
        return "diffusers_vae"
    if config.get("model_type") in FAMILIES:
        return "transformers_vit"
    if "architecture" in config and "pretrained_cfg" in config:
        return "timm"
    names = config.get("_class_name") or config.get("model_type") or "unknown"
    raise MissingData(
        f"{folder} holds a model of kind {names}",
        f"known: diffusers VAE, timm, open_clip, and of transformers {', '.join(FAMILIES)}",
    )
