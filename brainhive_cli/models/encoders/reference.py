"""An encoder known only by where it lies: its own config says which family loads it."""

from functools import partial
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from brainhive_cli.core import hub, parts
from brainhive_cli.core.command import Input
from brainhive_cli.core.errors import MissingData
from brainhive_cli.models.encoders import EMBEDDING, Encoder, EncoderConfig, ModelConfig
from brainhive_cli.models.encoders._tokens import TokenConfig, check_outputs
from brainhive_cli.models.encoders.diffusers_vae import AUTOENCODER_CLASSES
from brainhive_cli.models.encoders.transformers_vit import (
    FAMILIES,
    is_vision_transformer,
)

CONFIG_FILES = ("config.json", "open_clip_config.json")
"""Config files that name the family; a folder may have both."""


class Config(TokenConfig):
    """`hub:owner/name` or a folder of a transformers ViT, a diffusers autoencoder, timm
    or open_clip.
    """

    source: str = Field(
        "", description="hub:owner/name[/subfolder][@revision], or a folder"
    )
    output: Annotated[
        str | list[str], AfterValidator(partial(check_outputs, more=("latent",)))
    ] = Field(
        EMBEDDING,
        description=(
            "an output of the family: of a vision transformer, or latent of an "
            "autoencoder"
        ),
    )

    def build(self) -> Encoder:
        """Read the config, then build through the family's own part."""
        return self._resolve_family().build()

    @property
    def is_available(self) -> bool:
        """Whether the weights that the family loads are on this machine."""
        try:
            return bool(self.source) and self._resolve_family(local=True).is_available
        except MissingData:
            return False

    def inputs(self) -> list[Input]:
        """Look for what the family loads; the config that names the family is
        fetched.
        """
        return self._resolve_family().inputs()

    def _resolve_family(self, local: bool = False) -> EncoderConfig:
        """Choose the family by the config on this machine, or the hub's."""
        # a config on this machine decides, so that no network is needed
        held = [
            name for name in CONFIG_FILES if hub.find_weights(self.source, (), (name,))
        ][:1]
        folder = hub.folder(
            self.source, allow=held or CONFIG_FILES, local=local or bool(held)
        )

        # build the family's own Config
        family = find_family(folder)
        output = {} if self.output == EMBEDDING else {"output": self.output}
        return parts.resolve(
            "encoders", {"kind": family, "source": self.source, **output}
        )


TINY = Config(source="demo:encoder")


def find_family(folder: Path) -> str:
    """Name the part that loads a folder; MissingData when none does."""
    # open_clip has a config of its own name
    if not (folder / "config.json").is_file():
        if (folder / "open_clip_config.json").is_file():
            return "open_clip"
        raise MissingData(
            f"{folder} has no config.json",
            "give a folder of transformers, diffusers, timm or open_clip",
        )

    # the others differ by the keys of their config
    config = ModelConfig.read(folder)
    if config.class_name in AUTOENCODER_CLASSES:
        return "diffusers_vae"
    if is_vision_transformer(config):
        return "transformers_vit"
    if config.architecture is not None and config.pretrained_cfg is not None:
        return "timm"
    names = config.class_name or config.model_type or "unknown"
    raise MissingData(
        f"{folder} holds a model of kind {names}",
        "known: diffusers VAE, timm, open_clip, and vision transformers, as "
        f"{', '.join(FAMILIES)}",
    )
