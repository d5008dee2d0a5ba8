"""Any timm model, by its pooled features."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from PIL import Image
from pydantic import Field

from brainhive_cli.core.weights import reading
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
    """A timm model without its classifier, with the transform its own config states."""

    cites = ("wightman2019",)
    config_files = ("config.json",)
    weight_files = ("model.safetensors", "pytorch_model.bin")

    source: str = Field(
        "", description="hub:owner/name, a folder in timm's hub layout, or `random`"
    )
    architecture: str = Field("", description="timm's model name, for `random` weights")

    def build(self) -> Encoder:
        """Load the model and its transform."""
        import timm

        # the transform is read off the model, so the model is loaded at once
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

        # try the transform on a picture, so that a damaged config is refused here
        with reading(self.source):
            settings = timm.data.resolve_model_data_config(model)
            transform = timm.data.create_transform(**settings, is_training=False)
            transform(Image.new("RGB", (64, 64)))
        return Encoder(
            build_outputs(model, self.output), transform, f"timm {settings}", weights
        )


TINY = Config(source="random", architecture="test_vit")


def build_outputs(model: nn.Module, output: str | list[str]) -> Outputs:
    """Make what gives outputs of a model of timm."""
    from brainhive_cli.models.encoders._outputs import Outputs

    return Outputs(model, output, find_anatomy(model))


def find_anatomy(model: nn.Module) -> Anatomy | None:
    """Find the parts of a vision transformer or ResNet of timm; None for other
    networks.
    """
    from brainhive_cli.models.encoders._outputs import Anatomy, find_resnet_anatomy

    blocks, norm, extra = (
        getattr(model, name, None) for name in ("blocks", "norm", "num_prefix_tokens")
    )
    # a model without these attributes is no vision transformer of timm
    if blocks is None or norm is None or extra is None:
        return find_resnet_anatomy(model)
    # `extra` counts class token and registers, which stand before the patches
    return Anatomy(
        list(blocks),
        norm,
        extra,
        has_class=getattr(model, "cls_token", None) is not None,
    )
