"""Any vision transformer of transformers whose anatomy is known here: CLIP, DINO, SigLIP, InternViT."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor, nn

from brainhive_cli.core.documents import DOWNLOAD
from brainhive_cli.core.errors import MissingData
from brainhive_cli.core.weights import reading
from brainhive_cli.models.encoders import Encoder, ModelConfig, _intern_vit
from brainhive_cli.models.encoders._tokens import Anatomy, Outputs, TokenConfig, Tower
from brainhive_cli.models.encoders._weights import fetch, untrained, weight_files
from brainhive_cli.models.foreign_weights import load_network


@dataclass(frozen=True)
class _Family:
    """The names that a family's classes and parts have in transformers."""

    network: str
    processor: str
    blocks: str
    norm: str
    embedding: str = "pooler_output"
    has_class: bool = True
    has_fixed_size: bool = False  # of the pictures that it takes


CLIP = _Family(
    "CLIPVisionModelWithProjection",
    "CLIPImageProcessor",
    "vision_model.encoder.layers",
    "vision_model.post_layernorm",
    embedding="image_embeds",
    has_fixed_size=True,
)
SIGLIP = _Family(
    "SiglipVisionModel",
    "SiglipImageProcessor",
    "encoder.layers",
    "post_layernorm",
    has_class=False,
    has_fixed_size=True,
)
INTERN_VIT = _Family(
    "InternVLVisionModel", "CLIPImageProcessor", "encoder.layer", "layernorm", embedding="last_hidden_state"
)
FAMILIES = {
    "clip": CLIP,
    "clip_vision_model": CLIP,
    "dinov2": _Family("Dinov2Model", "BitImageProcessor", "encoder.layer", "layernorm"),
    "dinov2_with_registers": _Family(
        "Dinov2WithRegistersModel", "BitImageProcessor", "encoder.layer", "layernorm"
    ),
    "dinov3_vit": _Family("DINOv3ViTModel", "DINOv3ViTImageProcessor", "model.layer", "norm"),
    _intern_vit.MODEL_TYPE: INTERN_VIT,
    "internvl_vision": INTERN_VIT,
    "siglip": SIGLIP,
    "siglip_vision_model": SIGLIP,
}
"""Families by the `model_type` of config.json. SigLIP 2 of fixed size is of type `siglip`."""
SETTINGS = (
    "size",
    "resample",
    "crop_size",
    "do_resize",
    "do_center_crop",
    "rescale_factor",
    "image_mean",
    "image_std",
)
"""The settings in which two image processors of a class may differ."""


class Config(TokenConfig):
    """The embedding that the family is used by, with its own image processor."""

    config_files = ("config.json", "preprocessor_config.json")
    weight_files = ("model*.safetensors*",)
    model_type: ClassVar[str] = ""

    source: str = Field(
        "", description="hub:owner/name, a folder, or `random` (untrained, for tests and timing)"
    )
    architecture: dict[str, Any] = Field({}, description="transformers' config of `random` weights")

    def build(self) -> Encoder:
        """Prepare tower and processor; MissingData when the folder lacks either."""
        import transformers

        # processor and network: of random weights by the architecture, otherwise by the folder
        if self.source == "random":
            settings = {"model_type": self.model_type, **self.architecture}
            family = family_of(settings["model_type"], "the architecture")
            config = transformers.AutoConfig.for_model(**settings)
            size = config.image_size  # InternVL's config makes two of it
            height, width = (size, size) if isinstance(size, int) else size
            side = {"height": height, "width": width}
            processor = getattr(transformers, family.processor)(size=side, crop_size=side)
            load = partial(untrained, partial(getattr(transformers, family.network), config))
            weights = {"source": "random"}
        else:
            folder, weights = fetch(self)
            family = family_of(ModelConfig.read(folder).model_type, folder)
            with reading(folder):
                processor = getattr(transformers, family.processor).from_pretrained(folder)
                seen = processor(images=Image.new("RGB", (64, 64)), return_tensors="pt")["pixel_values"][0]
            load = partial(_load, self, family, folder, seen.shape)

        def preprocess(images: Sequence[Any]) -> Tensor:
            pixels: Tensor = processor(images=list(images), return_tensors="pt")["pixel_values"]
            return pixels

        def outputs() -> nn.Module:
            # name the parts whose outputs are read
            network = load()
            anatomy = Anatomy(
                list(network.get_submodule(family.blocks).children()),
                network.get_submodule(family.norm),
                family.has_class + getattr(network.config, "num_register_tokens", 0),
                family.has_class,
            )

            def embed(tower: Any, images: Tensor) -> Tensor:
                embedding: Tensor = getattr(tower(pixel_values=images), family.embedding)
                return embedding[:, 0] if embedding.ndim == 3 else embedding  # of all tokens the class token

            return Outputs(Tower(network, embed), self.output, anatomy)

        words, one = described(processor), (lambda image: preprocess([image])[0])
        return Encoder(outputs, one, words, weights, preprocess_batch=preprocess)


TINY = Config(
    source="random",
    architecture={
        "model_type": "dinov2",
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 16,
        "patch_size": 8,
    },
)


def _load(config: Config, family: _Family, folder: Path, seen: torch.Size) -> nn.Module:
    """Load a tower for pictures of the size `seen`, also from a folder that holds a text tower too."""
    import transformers

    # InternViT is renamed to transformers' module
    files = weight_files(config, folder)
    if ModelConfig.read(folder).model_type == _intern_vit.MODEL_TYPE:
        return _intern_vit.load(folder, files)

    # load the tower, and compare its pictures' size with the processor's
    network, options = getattr(transformers, family.network), ModelConfig.read(folder).projection
    tower: Any = load_network(network, folder, files=files, dtype=torch.float32, **options)
    side = tower.config.image_size
    if family.has_fixed_size and seen != (3, side, side):
        raise MissingData(
            f"{folder}: its processor makes pictures {[*seen]}, its network takes {[3, side, side]}",
            DOWNLOAD,
        )
    return tower  # type: ignore[no-any-return]


def family_of(model_type: str, where: Any) -> _Family:
    """Look a family up; MissingData, naming those there are, for another."""
    if model_type not in FAMILIES:
        what = f"a {model_type}" if model_type else "no model_type"
        raise MissingData(f"{where} holds {what}", f"known: {', '.join(FAMILIES)}")
    return FAMILIES[model_type]


def described(processor: Any) -> str:
    """Say what an image processor does, by the settings in which two may differ."""
    settings = {key: value for key, value in processor.to_dict().items() if key in SETTINGS}
    words = json.dumps({key: settings[key] for key in SETTINGS if settings.get(key) is not None}, default=int)
    return f"{type(processor).__name__} {words}"
