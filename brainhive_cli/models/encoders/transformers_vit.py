"""Any vision transformer of transformers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from PIL import Image
from pydantic import Field

from brainhive_cli.core.base import MissingData
from brainhive_cli.core.files import documents
from brainhive_cli.core.runs import weights
from brainhive_cli.models import (
    NameTable,
    StateDict,
    encoders,
    load_network,
    rename_weights,
)
from brainhive_cli.models.encoders import Encoder, ModelConfig
from brainhive_cli.models.encoders._tokens import TokenConfig
from brainhive_cli.models.encoders._weights import (
    PROCESSOR_CONFIG,
    build_untrained,
    fetch_weights,
    list_weight_files,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from brainhive_cli.models.encoders._outputs import Anatomy

FAMILIES = documents.read(
    Path(__file__).with_name("families.yaml"), dict[str, dict[str, Any]]
)
"""Classes and outputs of families, keyed by the `model_type` of config.json. SigLIP 2
may state `siglip`.
"""
INTERN_VIT_TYPE = "intern_vit_6b"
"""`model_type` in config.json, for all sizes of the network."""
INTERN_VIT_BLOCK = r"encoder\.layers\.(\d+)\."
INTERN_VIT_NAMES: NameTable = {
    r"embeddings\.class_embedding": "embeddings.cls_token",
    r"embeddings\.patch_embedding\.": "embeddings.patch_embeddings.projection.",
    r"embeddings\.position_embedding": "embeddings.position_embeddings",
    rf"{INTERN_VIT_BLOCK}attn\.proj\.": r"encoder.layer.\1.attention.projection_layer.",
    rf"{INTERN_VIT_BLOCK}attn\.": r"encoder.layer.\1.attention.",
    rf"{INTERN_VIT_BLOCK}norm1\.": r"encoder.layer.\1.layernorm_before.",
    rf"{INTERN_VIT_BLOCK}norm2\.": r"encoder.layer.\1.layernorm_after.",
    rf"{INTERN_VIT_BLOCK}ls": r"encoder.layer.\1.lambda_",
    INTERN_VIT_BLOCK: r"encoder.layer.\1.",
}
"""Beginnings of names in transformers, keyed by a pattern of the publisher's names."""
INTERN_VIT_SIZES = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "image_size",
    "patch_size",
)
"""Keys that the publisher's config.json must have."""
INTERN_VIT_DEFAULTS = {
    "hidden_act": "gelu",
    "norm_type": "rms_norm",
    "layer_norm_eps": 1e-6,
    "qkv_bias": False,
    "qk_normalization": True,
}
"""Defaults of the publisher's InternVisionConfig."""


class Config(TokenConfig):
    """Default embedding of the family, with the model's own image processor."""

    config_files = ("config.json", PROCESSOR_CONFIG)
    weight_files = ("model*.safetensors*", "pytorch_model*.bin*")
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
        """Prepare network and image processor.

        Raises:
            MissingData: if the folder lacks either, or has no vision transformer.
        """
        import transformers

        from brainhive_cli.models.encoders._outputs import Outputs, Tower

        # Classes and output of vision transformers without a family. The embedding is
        # the class token, or without one the mean of the patches.
        default_family = {
            "network": "AutoModel",
            "processor": "AutoImageProcessor",
            "embedding": "last_hidden_state",
        }
        # processor and network, with random weights or from the folder
        if self.source == "random":
            settings = {"model_type": self.model_type, **self.architecture}
            family = FAMILIES.get(settings["model_type"], default_family)
            config = transformers.AutoConfig.for_model(**settings)
            # an integer, or [height, width] in InternVL's config
            size = config.image_size
            height, width = (size, size) if isinstance(size, int) else size
            sides = {"height": height, "width": width}
            processor_class = getattr(transformers, family["processor"])
            processor = processor_class(size=sides, crop_size=sides)
            network_class = getattr(transformers, family["network"])
            load = partial(build_untrained, partial(network_class, config))
            description = {"source": "random"}
        else:
            folder, description = fetch_weights(self)
            model_config = ModelConfig.read(folder)
            model_type = model_config.model_type
            if not is_vision_transformer(model_config):
                content = f"a {model_type}" if model_type else "no model_type"
                raise MissingData(
                    f"{folder} holds {content}",
                    f"a vision transformer, as {', '.join(FAMILIES)}",
                )
            family = FAMILIES.get(model_type, default_family)
            processor_class = getattr(transformers, family["processor"])
            # a trial of the processor reports a damaged config
            with weights.reading(folder):
                processor = processor_class.from_pretrained(folder)
                processor(images=Image.new("RGB", (64, 64)), return_tensors="pt")
            load = partial(_load, self, family["network"], folder)

        def preprocess(image: Any) -> Tensor:
            """Process a picture to [3, H, W]."""
            return processor(images=[image], return_tensors="pt")["pixel_values"][0]

        def load_outputs() -> nn.Module:
            network = load()
            anatomy = find_anatomy(network, self.source)

            def embed(tower: Any, images: Tensor) -> Tensor:
                outputs = tower(pixel_values=images)
                embedding: Tensor = getattr(outputs, family["embedding"])
                if embedding.ndim < 3:
                    return embedding
                # reduce tokens [B, S, D] to a vector [B, D]
                if anatomy.has_class:
                    return embedding[:, 0]
                return embedding[:, anatomy.n_prefix_tokens :].mean(1)

            return Outputs(Tower(network, embed), self.output, anatomy)

        return Encoder(
            load_outputs, preprocess, describe_processor(processor), description
        )


TINY = Config(
    source="random", architecture=encoders.TINY_ARCHITECTURES["transformers-vit"]
)


def is_vision_transformer(config: ModelConfig) -> bool:
    """Return True if a model is of a family, or divides whole pictures into patches.

    Masked autoencoders without a family do not, because they hide patches.
    """
    if config.model_type in FAMILIES:
        return True
    has_sizes = config.image_size is not None and config.patch_size is not None
    return bool(config.model_type) and has_sizes and config.mask_ratio is None


def _load(config: Config, class_name: str, folder: Path) -> nn.Module:
    """Load a vision transformer, also from a folder with a further text tower.

    Args:
        config: Config of the encoder.
        class_name: Class of transformers.
        folder: Folder of the model.
    """
    import torch
    import transformers

    files = list_weight_files(config, folder)
    model_config = ModelConfig.read(folder)
    if model_config.model_type == INTERN_VIT_TYPE:
        return _load_intern_vit(folder, files)
    options = model_config.model_dump(include={"projection_dim"}, exclude_none=True)
    return load_network(
        getattr(transformers, class_name),
        folder,
        files=files,
        dtype=torch.float32,
        **options,
    )


def find_anatomy(network: nn.Module, source: str) -> Anatomy:
    """Find the blocks, the last norm and the first tokens of a vision transformer.

    Args:
        network: Network of transformers. A module of it must hold `embeddings`, then,
            itself or one level below, a list of blocks, then the norm of their tokens.
        source: Source of the network, for errors.

    Raises:
        MissingData: if the network has another structure.
    """
    from torch import nn

    from brainhive_cli.models.encoders._outputs import Anatomy

    # the longest list has a block for each layer of the config
    blocks = nn.ModuleList()
    holder: Any = None
    for module in network.modules():
        if isinstance(module, nn.ModuleList) and len(module) > len(blocks):
            blocks = module
        if holder is None and hasattr(module, "embeddings"):
            holder = module
    depth = getattr(network.config, "num_hidden_layers", None)
    # tokens of networks with stages, such as Swin, become fewer and wider
    has_stages = hasattr(network.config, "depths")
    error = MissingData(
        f"{source} holds a {type(network).__name__}, without known embeddings and "
        "blocks",
        "another encoder",
    )
    if holder is None or len(blocks) != depth or has_stages:
        raise error

    # the first norm after the blocks
    norm: nn.Module = nn.Identity()
    is_after_blocks = False
    for child in holder.children():
        if is_after_blocks and "Norm" in type(child).__name__:
            norm = child
            break
        if any(module is blocks for module in child.modules()):
            is_after_blocks = True
    if not is_after_blocks:
        raise error

    # tokens before the patches: class, registers, distilled teacher
    parameters = dict(holder.embeddings.named_parameters(recurse=False))
    has_class = not parameters.keys().isdisjoint({"cls_token", "class_embedding"})
    n_prefix_tokens = int(has_class)
    if "register_tokens" in parameters:
        n_prefix_tokens += parameters["register_tokens"].shape[1]
    if "distillation_token" in parameters:
        n_prefix_tokens += 1
    return Anatomy(list(blocks), norm, n_prefix_tokens, has_class)


def describe_processor(processor: Any) -> str:
    """Describe all settings of an image processor that differ from the usual ones."""
    processor_settings = processor.to_dict()
    settings = {}
    # Settings of an image processor that its description always states.
    stated_settings = (
        "size",
        "resample",
        "crop_size",
        "do_resize",
        "do_center_crop",
        "rescale_factor",
        "image_mean",
        "image_std",
    )
    for key in stated_settings:
        if processor_settings.get(key) is not None:
            settings[key] = processor_settings[key]
    # Settings without effect on an RGB picture.
    idle_settings = {
        "image_processor_type",
        "processor_class",
        "feature_extractor_type",
        "auto_map",
        "data_format",
        "default_to_square",
        "do_convert_rgb",
    }
    further_keys = processor_settings.keys() - set(stated_settings) - idle_settings
    # Settings that the description states if they differ from these values. Further
    # settings are stated unless they are off.
    default_settings = {"do_rescale": True, "do_normalize": True}
    for key in sorted(further_keys):
        value = processor_settings[key]
        if (value or False) != default_settings.get(key, False):
            settings[key] = value
    return f"{type(processor).__name__} {json.dumps(settings, default=int)}"


def _load_intern_vit(folder: Path, files: Sequence[Path]) -> nn.Module:
    """Load an InternViT in float32, without running code from the hub.

    Args:
        folder: Folder with config.json.
        files: Shards of the weights.

    Raises:
        MissingData: if a weight is missing or has another size.
    """
    import torch
    from transformers import InternVLVisionConfig, InternVLVisionModel

    config = documents.read_download(folder / "config.json")
    with weights.reading(folder / "config.json"):
        settings = {name: config[name] for name in INTERN_VIT_SIZES}
    for name, default in INTERN_VIT_DEFAULTS.items():
        settings[name] = config.get(name, default)
    attention_bias = settings.pop("qkv_bias")
    use_qk_norm = settings.pop("qk_normalization")

    # shard by shard, because the network may be large
    state: StateDict = {}
    for file in files:
        with weights.reading(file):
            shard = _split_attention(weights.read(file))
            shard = rename_weights(shard, INTERN_VIT_NAMES)
        for name, value in shard.items():
            state[name] = value.float()

    # an empty network takes over the tensors of the files
    with weights.reading(folder), torch.device("meta"):
        network = InternVLVisionModel(
            InternVLVisionConfig(
                **settings, attention_bias=attention_bias, use_qk_norm=use_qk_norm
            )
        )
    weights.fill(network, state, folder, documents.DOWNLOAD_HINT, MissingData)
    return network


def _split_attention(state: StateDict) -> StateDict:
    """Split the joint weights [3 D, …] of queries, keys and values into three."""
    split: StateDict = {}
    for name, value in state.items():
        if ".attn.qkv." not in name:
            split[name] = value
            continue
        for letter, chunk in zip("qkv", value.chunk(3), strict=True):
            split[name.replace(".qkv.", f".{letter}_proj.")] = chunk
    return split
