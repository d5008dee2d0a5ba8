"""InternViT as its publisher keeps it, brought to the module of transformers; no code
of the hub is run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from brainhive_cli.core import documents, weights
from brainhive_cli.core.errors import MissingData
from brainhive_cli.models.foreign_weights import NameTable, StateDict, rename_weights

if TYPE_CHECKING:
    from torch import nn

MODEL_TYPE = "intern_vit_6b"
"""Type that config.json states for all sizes."""
BLOCK = r"encoder\.layers\.(\d+)\."
TRANSFORMERS_NAMES: NameTable = {
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
SIZES = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "image_size",
    "patch_size",
)
DEFAULTS = {"hidden_act": "gelu", "norm_type": "rms_norm", "layer_norm_eps": 1e-6}
DEFAULTS |= {"qkv_bias": False, "qk_normalization": True}
"""Keys of the publisher's config.json that it must state, and defaults of its
InternVisionConfig.
"""


def load(folder: Path, files: Sequence[Path]) -> nn.Module:
    """Load an InternViT in float32, shard by shard; MissingData if a weight is missing
    or of another size.
    """
    import torch
    from transformers import InternVLVisionConfig, InternVLVisionModel

    # the config in transformers' names
    stated = documents.read_download(folder / "config.json")
    with weights.reading(folder / "config.json"):
        anatomy = {name: stated[name] for name in SIZES}
        anatomy |= {
            name: stated.get(name, default) for name, default in DEFAULTS.items()
        }
    bias = anatomy.pop("qkv_bias")
    is_normed = anatomy.pop("qk_normalization")

    # the weights in transformers' names, shard by shard
    state: StateDict = {}
    for file in files:
        with weights.reading(file):
            shard = rename_weights(
                _split_attention(weights.read(file)), TRANSFORMERS_NAMES
            )
        state |= {name: value.float() for name, value in shard.items()}

    # fill an empty network
    # the tensors of the files become the network's
    with weights.reading(folder), torch.device("meta"):
        config = InternVLVisionConfig(
            **anatomy, attention_bias=bias, use_qk_norm=is_normed
        )
        network = InternVLVisionModel(config)
    weights.fill(network, state, folder, documents.DOWNLOAD_HINT, MissingData)
    return network


def _split_attention(state: StateDict) -> StateDict:
    """Split the joined weights of queries, keys and values [3 D, …] into three."""
    split: StateDict = {}
    for name, value in state.items():
        is_joined = ".attn.qkv." in name
        parts = value.chunk(3) if is_joined else [value]  # three of [D, …]
        keys = (
            [name.replace(".qkv.", f".{letter}_proj.") for letter in "qkv"]
            if is_joined
            else [name]
        )
        split |= zip(keys, parts, strict=True)
    return split
