"""Any vision transformer of transformers, by its structure: embeddings, blocks and the
norm after them.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from PIL import Image
from pydantic import Field

from brainhive_cli.core import documents
from brainhive_cli.core.errors import MissingData
from brainhive_cli.core.weights import reading
from brainhive_cli.models import encoders
from brainhive_cli.models.encoders import Encoder, ModelConfig, _intern_vit
from brainhive_cli.models.encoders._tokens import TokenConfig
from brainhive_cli.models.encoders._weights import (
    build_untrained,
    fetch_weights,
    list_weight_files,
)
from brainhive_cli.models.foreign_weights import load_network

if TYPE_CHECKING:
    from torch import Tensor, nn

    from brainhive_cli.models.encoders._outputs import Anatomy

DEFAULT_FAMILY = {
    "network": "AutoModel",
    "processor": "AutoImageProcessor",
    "embedding": "last_hidden_state",
}
"""Every other vision transformer: its class token, or the mean of its patches."""
FAMILIES = documents.read(
    Path(__file__).with_name("families.yaml"), dict[str, dict[str, Any]]
)
"""Families with classes of their own, by the `model_type` of config.json; SigLIP 2 may
be `siglip`.
"""
STATED_SETTINGS = (
    "size",
    "resample",
    "crop_size",
    "do_resize",
    "do_center_crop",
    "rescale_factor",
    "image_mean",
    "image_std",
)
"""The settings that are always said."""
DEFAULT_SETTINGS = {"do_rescale": True, "do_normalize": True}
"""Settings that are said where they have another value; any further one is said unless
it is off.
"""
IDLE_SETTINGS = {
    "image_processor_type",
    "processor_class",
    "feature_extractor_type",
    "auto_map",
    # pictures are RGB, sizes are resolved
    "data_format",
    "default_to_square",
    "do_convert_rgb",
}
"""Settings that change nothing of an RGB picture."""


class Config(TokenConfig):
    """The embedding that the family is used by, with its own image processor."""

    config_files = ("config.json", "preprocessor_config.json")
    weight_files = ("model*.safetensors*",)
    model_type: ClassVar[str] = ""

    source: str = Field(
        "",
        description=(
            "hub:owner/name, a folder, or `random` (untrained, for tests and timing)"
        ),
    )
    architecture: dict[str, Any] = Field(
        {}, description="transformers' config of `random` weights"
    )

    def build(self) -> Encoder:
        """Prepare tower and processor; MissingData when the folder lacks either."""
        import transformers

        from brainhive_cli.models.encoders._outputs import Outputs, Tower

        # processor and network: of random weights by the architecture, otherwise by the
        # folder
        if self.source == "random":
            settings = {"model_type": self.model_type, **self.architecture}
            family = FAMILIES.get(settings["model_type"], DEFAULT_FAMILY)
            config = transformers.AutoConfig.for_model(**settings)
            size = config.image_size  # InternVL's config makes two of it
            height, width = (size, size) if isinstance(size, int) else size
            side = {"height": height, "width": width}
            processor = getattr(transformers, family["processor"])(
                size=side, crop_size=side
            )
            load = partial(
                build_untrained,
                partial(getattr(transformers, family["network"]), config),
            )
            weights = {"source": "random"}
        else:
            folder, weights = fetch_weights(self)
            about = ModelConfig.read(folder)
            if not is_vision_transformer(about):
                what = f"a {about.model_type}" if about.model_type else "no model_type"
                raise MissingData(
                    f"{folder} holds {what}",
                    f"a vision transformer, as {', '.join(FAMILIES)}",
                )
            family = FAMILIES.get(about.model_type, DEFAULT_FAMILY)
            with reading(folder):
                processor = getattr(transformers, family["processor"]).from_pretrained(
                    folder
                )
                processor(images=Image.new("RGB", (64, 64)), return_tensors="pt")
            load = partial(_load, self, family["network"], folder)

        def preprocess(image: Any) -> Tensor:
            return processor(images=[image], return_tensors="pt")["pixel_values"][0]

        def outputs() -> nn.Module:
            network = load()
            anatomy = find_anatomy(network, self.source)

            def embed(tower: Any, images: Tensor) -> Tensor:
                embedding: Tensor = getattr(
                    tower(pixel_values=images), family["embedding"]
                )
                if embedding.ndim < 3:
                    return embedding
                # of all tokens [B, S, D] the class token, else the mean of the patches
                if anatomy.has_class:
                    return embedding[:, 0]
                return embedding[:, anatomy.n_prefix_tokens :].mean(1)

            return Outputs(Tower(network, embed), self.output, anatomy)

        return Encoder(outputs, preprocess, describe_processor(processor), weights)


TINY = Config(
    source="random", architecture=encoders.TINY_ARCHITECTURES["transformers-vit"]
)


def is_vision_transformer(about: ModelConfig) -> bool:
    """Whether a model is of a family, or cuts whole pictures into patches; masked
    autoencoders hide some.
    """
    is_whole = about.mask_ratio is None and None not in (
        about.image_size,
        about.patch_size,
    )
    return about.model_type in FAMILIES or (bool(about.model_type) and is_whole)


def _load(config: Config, kind: str, folder: Path) -> nn.Module:
    """Load a tower of a class of transformers, also from a folder that holds a text
    tower too.
    """
    import torch
    import transformers

    # InternViT is renamed to transformers' module
    files = list_weight_files(config, folder)
    about = ModelConfig.read(folder)
    if about.model_type == _intern_vit.MODEL_TYPE:
        return _intern_vit.load(folder, files)
    network = getattr(transformers, kind)
    options = about.model_dump(include={"projection_dim"}, exclude_none=True)
    return load_network(network, folder, files=files, dtype=torch.float32, **options)


def find_anatomy(network: nn.Module, where: str) -> Anatomy:
    """Find blocks, last norm and first tokens of a vision transformer by its structure.

    Args:
        network: One of its modules holds `embeddings`, then a list of blocks, there or
            one level below, then the norm of the last block's tokens.
        where: Names it in errors.

    Raises:
        MissingData: if it is built otherwise.
    """
    from torch import nn

    from brainhive_cli.models.encoders._outputs import Anatomy

    # the module that holds the embeddings, with the list of blocks: one for each layer
    # of the config
    lists = [
        module for module in network.modules() if isinstance(module, nn.ModuleList)
    ]
    blocks = max(lists, key=len, default=nn.ModuleList())
    depth = getattr(network.config, "num_hidden_layers", None)
    holder: Any = next(
        (module for module in network.modules() if hasattr(module, "embeddings")), None
    )
    # whose tokens become fewer and wider, as Swin's
    is_staged = hasattr(network.config, "depths")
    if holder is None or len(blocks) != depth or is_staged:
        kind = type(network).__name__
        raise MissingData(
            f"{where} holds a {kind}, without known embeddings and blocks",
            "another encoder",
        )

    # the first norm, or what stands for one, after the blocks
    parts_of_holder = [*holder.children()]
    position = next(
        n for n, part in enumerate(parts_of_holder) if blocks in [*part.modules()]
    )
    later = parts_of_holder[position + 1 :]
    norm = next(
        (part for part in later if "Norm" in type(part).__name__), nn.Identity()
    )

    # tokens ahead of the patches: of the class, of registers, of a distilled teacher
    weights = dict(holder.embeddings.named_parameters(recurse=False))
    has_class = not weights.keys().isdisjoint({"cls_token", "class_embedding"})
    registers = (
        weights["register_tokens"].shape[1] if "register_tokens" in weights else 0
    )
    extra = has_class + registers + ("distillation_token" in weights)
    return Anatomy([*blocks], norm, extra, has_class)


def describe_processor(processor: Any) -> str:
    """Say all that an image processor does; what it usually does is not said, as stores
    have it.
    """
    stated = processor.to_dict()
    settings = {
        key: stated[key] for key in STATED_SETTINGS if stated.get(key) is not None
    }
    for key in sorted(stated.keys() - {*STATED_SETTINGS, *IDLE_SETTINGS}):
        if (stated[key] or False) != DEFAULT_SETTINGS.get(key, False):
            settings[key] = stated[key]
    return f"{type(processor).__name__} {json.dumps(settings, default=int)}"
