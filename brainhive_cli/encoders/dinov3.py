"""DINOv3 of Meta, in the sizes that transformers knows as vision transformers."""

from collections.abc import Mapping
from typing import ClassVar

from brainhive_cli.encoders import Variant, located, transformers_vit

REPOSITORY = "hub:facebook/dinov3-vit{}-pretrain-lvd1689m"
DIMS = {"s16": 384, "s16plus": 384, "l16": 1024, "h16plus": 1280, "7b16": 4096}


class Config(transformers_vit.Config):
    """The class token after the last norm (`pooler_output`); ViT-B/16, other sizes by name (`dinov3-l16`)."""

    dim = 768
    image_px = 224
    licence = "DINOv3"
    variants: ClassVar[Mapping[str, Variant]] = {
        f"dinov3-{size}": Variant(REPOSITORY.format(size), dim, 224) for size, dim in DIMS.items()
    }
    source: str = located(REPOSITORY.format("b16"))


TINY = Config(
    source="random",
    architecture={
        **transformers_vit.SMALL,
        "model_type": "dinov3_vit",
        "intermediate_size": 16,
        "num_register_tokens": 3,
    },
)
