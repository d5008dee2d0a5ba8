"""InternViT as its publisher keeps it, brought to the module of transformers; no code of the hub is run."""

from collections.abc import Sequence
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, PositiveInt
from torch import nn

from brainhive_cli.core import documents, weights
from brainhive_cli.core.errors import MissingData
from brainhive_cli.models.foreign_weights import State, Table, rename

MODEL_TYPE = "intern_vit_6b"
"""Type that config.json states for all sizes."""
BLOCK = r"encoder\.layers\.(\d+)\."
NAMES: Table = {
    r"embeddings\.class_embedding": "embeddings.cls_token",
    r"embeddings\.patch_embedding\.": "embeddings.patch_embeddings.projection.",
    r"embeddings\.position_embedding": "embeddings.position_embeddings",
    rf"{BLOCK}attn\.proj\.": r"encoder.layer.\1.attention.projection_layer.",
    rf"{BLOCK}attn\.": r"encoder.layer.\1.attention.",
    rf"{BLOCK}norm1\.": r"encoder.layer.\1.layernorm_before.",
    rf"{BLOCK}norm2\.": r"encoder.layer.\1.layernorm_after.",
    rf"{BLOCK}ls": r"encoder.layer.\1.lambda_",
    BLOCK: r"encoder.layer.\1.",
}
"""transformers' names by the publisher's."""


class _Published(BaseModel):
    """The publisher's config.json; defaults are those of its InternVisionConfig."""

    model_config = ConfigDict(protected_namespaces=())

    hidden_size: PositiveInt
    num_hidden_layers: PositiveInt
    num_attention_heads: PositiveInt
    intermediate_size: PositiveInt
    image_size: PositiveInt
    patch_size: PositiveInt
    hidden_act: str = "gelu"
    norm_type: str = "rms_norm"
    layer_norm_eps: float = 1e-6
    qkv_bias: bool = False
    qk_normalization: bool = True


def load(folder: Path, files: Sequence[Path]) -> nn.Module:
    """Load an InternViT in float32, shard by shard; MissingData if a weight is missing or of another size."""
    from transformers import InternVLVisionConfig, InternVLVisionModel

    # the config in transformers' names
    stated = documents.read(folder / "config.json", _Published, documents.DOWNLOAD, MissingData)
    anatomy = stated.model_dump()
    bias, is_normed = anatomy.pop("qkv_bias"), anatomy.pop("qk_normalization")

    # the weights in transformers' names, shard by shard
    state: State = {}
    for file in files:
        with weights.reading(file):
            shard = rename(_split_attention(weights.read(file)), NAMES)
        state |= {name: value.float() for name, value in shard.items()}

    # fill an empty network
    with weights.reading(folder), torch.device("meta"):  # the tensors of the files become the network's
        config = InternVLVisionConfig(**anatomy, attention_bias=bias, use_qk_norm=is_normed)
        network = InternVLVisionModel(config)
    weights.fill(network, state, folder, documents.DOWNLOAD, MissingData)
    return network


def _split_attention(state: State) -> State:
    """Split the joined weights of queries, keys and values [3 D, …] into three."""
    split: State = {}
    for name, value in state.items():
        is_joined = ".attn.qkv." in name
        if is_joined and len(value) % 3:
            raise ValueError(f"{name} has {len(value)} rows, not as many of queries, keys and values")
        parts = value.chunk(3) if is_joined else [value]  # three of [D, …]
        keys = [name.replace(".qkv.", f".{letter}_proj.") for letter in "qkv"] if is_joined else [name]
        split |= zip(keys, parts, strict=True)
    return split
