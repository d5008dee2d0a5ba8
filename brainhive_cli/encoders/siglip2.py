"""SigLIP 2 of Google, in its sizes with a fixed resolution."""

from collections.abc import Mapping
from typing import ClassVar

from brainhive_cli.encoders import Variant, located, transformers_vit

REPOSITORY = "hub:google/siglip2-{}-{}"
SIZES = {
    "b16": ("base-patch16", 768, (256, 384, 512)),
    "b32": ("base-patch32", 768, (256,)),
    "l16": ("large-patch16", 1024, (256, 384, 512)),
    "so400m14": ("so400m-patch14", 1152, (224, 384)),
    "so400m16": ("so400m-patch16", 1152, (256, 384, 512)),
    "g16": ("giant-opt-patch16", 1536, (256, 384)),
}
"""Name, the repository's word, D, and the resolutions other than the default's."""


class Config(transformers_vit.Config):
    """The attention pool's embedding; ViT-B/16 at 224 px, other sizes by name (`siglip2-so400m14-384`)."""

    dim = 768
    image_px = 224
    licence = "Apache-2.0"
    variants: ClassVar[Mapping[str, Variant]] = {
        f"siglip2-{name}-{px}": Variant(REPOSITORY.format(word, px), dim, px)
        for name, (word, dim, sides) in SIZES.items()
        for px in sides
    }
    source: str = located(REPOSITORY.format("base-patch16", 224))


TINY = Config(
    source="random",
    architecture={**transformers_vit.SMALL, "model_type": "siglip_vision_model", "intermediate_size": 16},
)
