"""AligNet, compared with SigLIP of transformers on pixels resized as by OpenCV."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import SiglipVisionConfig, SiglipVisionModel

from brainhive_cli.core.base.errors import RecipeError
from brainhive_cli.models import encoders

SAME = 1e-5
"""Largest difference of float32 from the float64 computed here, relative to the
embedding's spread.
"""
D = 16
HEADS = 2
DEPTH = 2
SIDE = 64
TINY = {"embed_dim": D, "num_heads": HEADS, "depth": DEPTH, "img_size": SIDE}


def write_alignet(folder, model):
    """Write transformers' SigLIP under timm's names, as published: prefixed, and with
    AligNet's own heads.
    """
    w = {
        key.removeprefix("vision_model."): value
        for key, value in model.state_dict().items()
    }
    state = {
        "pos_embed": w["embeddings.position_embedding.weight"][None],
        "attn_pool.latent": w["head.probe"],
    }
    pairs = {
        "patch_embed.proj": "embeddings.patch_embedding",
        "norm": "post_layernorm",
        "attn_pool.norm": "head.layernorm",
        "attn_pool.proj": "head.attention.out_proj",
        **{f"attn_pool.mlp.fc{k}": f"head.mlp.fc{k}" for k in (1, 2)},
    }
    for i in range(DEPTH):
        ours = f"blocks.{i}"
        theirs = f"encoder.layers.{i}"
        pairs |= {f"{ours}.norm{k}": f"{theirs}.layer_norm{k}" for k in (1, 2)}
        pairs |= {f"{ours}.mlp.fc{k}": f"{theirs}.mlp.fc{k}" for k in (1, 2)}
        pairs[f"{ours}.attn.proj"] = f"{theirs}.self_attn.out_proj"
    for kind in ("weight", "bias"):
        state |= {
            f"{ours}.{kind}": w[f"{theirs}.{kind}"] for ours, theirs in pairs.items()
        }
        for i in range(DEPTH):
            qkv = [
                w[f"encoder.layers.{i}.self_attn.{letter}_proj.{kind}"]
                for letter in "qkv"
            ]
            state[f"blocks.{i}.attn.qkv.{kind}"] = torch.cat(qkv)
        state[f"attn_pool.q.{kind}"], kv = w[f"head.attention.in_proj_{kind}"].split(
            (D, 2 * D)
        )
        state[f"attn_pool.kv.{kind}"] = kv
    state = {f"encoder.{key}": value.contiguous() for key, value in state.items()}
    save_file(
        {**state, "triplet_head.bias": torch.zeros(4)},
        folder / "alignet_siglip2_b.safetensors",
    )


def test_alignet_equals_siglip_on_pixels_resized_as_in_opencv(
    tmp_path, picture, make_cubic_matrix, measure_error
):
    torch.manual_seed(0)
    sizes = {
        "hidden_size": D,
        "intermediate_size": 4 * D,
        "num_hidden_layers": DEPTH,
        "image_size": SIDE,
    }
    model = SiglipVisionModel(
        SiglipVisionConfig(**sizes, num_attention_heads=HEADS, patch_size=16)
    )
    for weights in model.requires_grad_(False).parameters():
        weights.normal_(std=0.3)
    write_alignet(tmp_path, model)
    height, width = (
        make_cubic_matrix(n, SIDE, n / SIDE) for n in (picture.height, picture.width)
    )
    pixels = np.einsum("ih,jw,hwc->cij", height, width, np.asarray(picture))
    pixels = np.clip(np.floor(pixels + 0.5), 0, 255) / 255
    siglip_output = model.double()(
        pixel_values=torch.tensor(pixels)[None], output_hidden_states=True
    )
    expected = {
        "embedding": siglip_output.pooler_output[0],
        "mean": siglip_output.last_hidden_state[0].mean(0),
        "patches": siglip_output.last_hidden_state[0],
        "block-0": siglip_output.hidden_states[1][0],
    }
    config = {"kind": "siglip2+alignet", "source": str(tmp_path), "architecture": TINY}
    encoder = encoders.resolve({**config, "output": list(expected)}).build()
    with torch.no_grad():
        outputs = encoder.module(encoder.preprocess(picture)[None])
    for output, expected_value in zip(outputs, expected.values(), strict=True):
        assert measure_error(output[0], expected_value) < SAME
    with pytest.raises(RecipeError, match="class"):
        encoders.resolve({**config, "output": "class"}).build().module  # noqa: B018
