"""InternViT in its publisher's format, loaded into the network of transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from brainhive_cli.core.base import MissingData
from brainhive_cli.core.files import documents
from brainhive_cli.core.runs import weights
from brainhive_cli.models import NameTable, StateDict, rename_weights

if TYPE_CHECKING:
    from torch import nn

MODEL_TYPE = "intern_vit_6b"
"""`model_type` in config.json, for all sizes of the network."""
BLOCK = r"encoder\.layers\.(\d+)\."


def load(folder: Path, files: Sequence[Path]) -> nn.Module:
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
        # Keys that the publisher's config.json must have.
        sizes = (
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "intermediate_size",
            "image_size",
            "patch_size",
        )
        settings = {name: config[name] for name in sizes}
    # Defaults of the publisher's InternVisionConfig.
    defaults = {
        "hidden_act": "gelu",
        "norm_type": "rms_norm",
        "layer_norm_eps": 1e-6,
        "qkv_bias": False,
        "qk_normalization": True,
    }
    for name, default in defaults.items():
        settings[name] = config.get(name, default)
    attention_bias = settings.pop("qkv_bias")
    use_qk_norm = settings.pop("qk_normalization")

    # shard by shard, because the network may be large
    state: StateDict = {}
    # Beginnings of names in transformers, keyed by a pattern of the publisher's names.
    transformers_names: NameTable = {
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
    for file in files:
        with weights.reading(file):
            shard = _split_attention(weights.read(file))
            shard = rename_weights(shard, transformers_names)
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
