"""Encoder of a hub repository or folder, whose config names the family."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from brainhive_cli.core.base import MissingData
from brainhive_cli.core.files import Input, hub
from brainhive_cli.core.recipes import parts
from brainhive_cli.models.encoders import EMBEDDING, Encoder, EncoderConfig, ModelConfig
from brainhive_cli.models.encoders._tokens import TokenConfig, check_outputs
from brainhive_cli.models.encoders.diffusers_vae import AUTOENCODER_CLASSES
from brainhive_cli.models.encoders.transformers_vit import (
    FAMILIES,
    is_vision_transformer,
)


class Config(TokenConfig):
    """Encoder of a source in the format of transformers, diffusers, timm or open_clip.

    The source is `hub:owner/name` or a folder.
    """

    source: str = Field(
        "", description="hub:owner/name[/subfolder][@revision], or a folder"
    )
    output: Annotated[
        str | list[str],
        AfterValidator(partial(check_outputs, further_names=("latent",))),
    ] = Field(
        EMBEDDING,
        description=(
            "output of a vision transformer or ResNet, or latent of an autoencoder"
        ),
    )

    def build(self) -> Encoder:
        """Build the encoder of the family that the config names.

        Raises:
            MissingData: if there is no config, or it is of an unknown family.
        """
        return self._resolve_family().build()

    @property
    def is_available(self) -> bool:
        """True if config and weights are on this machine."""
        if not self.source:
            return False
        try:
            return self._resolve_family(local=True).is_available
        except MissingData:
            return False

    def inputs(self) -> list[Input]:
        """List the weights of the family. A config on the hub is downloaded."""
        return self._resolve_family().inputs()

    def _resolve_family(self, local: bool = False) -> EncoderConfig:
        """Return the Config of the family.

        Args:
            local: If True, nothing is downloaded.

        Raises:
            MissingData: if there is no config, or it is of an unknown family.
        """
        # Config files that tell the family. A folder may have both.
        config_files = ("config.json", "open_clip_config.json")
        # prefer a config on this machine, which needs no network
        allowed: tuple[str, ...] = config_files
        for name in config_files:
            if hub.find_weights(self.source, (), (name,)):
                allowed = (name,)
                local = True
                break
        folder = hub.folder(self.source, allow=allowed, local=local)

        knobs: dict[str, Any] = {"kind": find_family(folder), "source": self.source}
        if self.output != EMBEDDING:
            knobs["output"] = self.output
        return parts.resolve("encoders", knobs)


TINY = Config(source="demo:encoder")


def find_family(folder: Path) -> str:
    """Return the kind of encoder that can load a folder.

    Raises:
        MissingData: if there is no config, or it is of an unknown family.
    """
    # only open_clip names its config differently
    if not (folder / "config.json").is_file():
        if (folder / "open_clip_config.json").is_file():
            return "open_clip"
        raise MissingData(
            f"{folder} has no config.json{hub.describe_weights(folder)}",
            "give a folder of transformers, diffusers, timm or open_clip",
        )

    # the keys of the config tell the other families apart
    config = ModelConfig.read(folder)
    if config.class_name in AUTOENCODER_CLASSES:
        return "diffusers_vae"
    if is_vision_transformer(config):
        return "transformers_vit"
    if config.architecture is not None and config.pretrained_cfg is not None:
        return "timm"
    kind = config.class_name or config.model_type or "unknown"
    raise MissingData(
        f"{folder} holds a model of kind {kind}",
        "known: diffusers VAE, timm, open_clip, and vision transformers, as "
        f"{', '.join(FAMILIES)}",
    )
