"""Pooled features of any timm model."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from PIL import Image
from pydantic import Field

from brainhive_cli.core.runs import reading
from brainhive_cli.models.encoders import Encoder
from brainhive_cli.models.encoders._tokens import TokenConfig
from brainhive_cli.models.encoders._weights import (
    build_untrained,
    fetch_weights,
    list_weight_files,
)

if TYPE_CHECKING:
    from torch import nn

    from brainhive_cli.models.encoders._outputs import Anatomy, Outputs


class Config(TokenConfig):
    """A timm model without its classifier, with the transform of its config."""

    cites = ("wightman2019",)
    config_files = ("config.json",)
    weight_files = ("model.safetensors", "pytorch_model.bin")

    source: str = Field(
        "", description="hub:owner/name, a folder in timm's hub layout, or `random`"
    )
    architecture: str = Field(
        "", description="name of the model in timm, for `random` weights"
    )

    def build(self) -> Encoder:
        """Load the model and its transform.

        Raises:
            MissingData: if the folder lacks files, or they are damaged.
        """
        import timm

        # the transform depends on the model, so the model is loaded here
        if self.source == "random":
            model = build_untrained(
                partial(timm.create_model, self.architecture, num_classes=0)
            )
            weights = {"source": "random"}
        else:
            folder, weights = fetch_weights(self)
            files = list_weight_files(self, folder)
            with reading(folder, files=files):
                model = timm.create_model(
                    f"local-dir:{folder.resolve()}", pretrained=True, num_classes=0
                )

        # a trial of the transform reports a damaged config
        with reading(self.source):
            settings = timm.data.resolve_model_data_config(model)
            transform = timm.data.create_transform(**settings, is_training=False)
            transform(Image.new("RGB", (64, 64)))
        return Encoder(
            network=build_outputs(model, self.output),
            preprocess=transform,
            preprocessing=f"timm {settings}",
            weights=weights,
        )


TINY = Config(source="random", architecture="test_vit")


def build_outputs(model: nn.Module, output: str | list[str]) -> Outputs:
    """Build a network that returns outputs of a timm model.

    Args:
        model: Model of timm.
        output: Name of an output, or a list of names.

    Raises:
        RecipeError: if the model does not have such an output.
    """
    from brainhive_cli.models.encoders._outputs import Outputs

    return Outputs(model, output, find_anatomy(model))


def find_anatomy(model: nn.Module) -> Anatomy | None:
    """Find the modules of a vision transformer or ResNet of timm.

    Returns:
        The modules, or None for other networks.
    """
    from brainhive_cli.models.encoders._outputs import Anatomy, find_resnet_anatomy

    # only vision transformers have all three
    blocks = getattr(model, "blocks", None)
    norm = getattr(model, "norm", None)
    n_prefix_tokens = getattr(model, "num_prefix_tokens", None)
    if blocks is None or norm is None or n_prefix_tokens is None:
        return find_resnet_anatomy(model)
    return Anatomy(
        list(blocks),
        norm,
        n_prefix_tokens,
        has_class=getattr(model, "cls_token", None) is not None,
    )
