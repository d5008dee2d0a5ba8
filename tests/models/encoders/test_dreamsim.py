"""DreamSim, compared with a vision transformer that is computed here in float64."""

import argparse
import json
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from brainhive_cli.core.base.errors import MissingData
from brainhive_cli.models import encoders
from brainhive_cli.models.encoders import dreamsim

SAME = 1e-5
"""Largest difference of float32 from the float64 computed here, relative to the
embedding's spread.
"""
D = 16
HEADS = 2
DEPTH = 2
SIDE = 64
RANK = 3
ALPHA = 0.5
TINY = {"embed_dim": D, "num_heads": HEADS, "depth": DEPTH, "img_size": SIDE}
SINGLES = {
    "dino-b16+dreamsim": "dino_vitb16",
    "dinov2-b14+dreamsim": "dinov2_vitb14",
    "synclr-b16+dreamsim": "synclr_vitb16",
    "clip-b32-openai+dreamsim": "clip_vitb32",
    "clip-b32-laion400m+dreamsim": "open_clip_vitb32",
}
State = dict[str, Tensor]
Cubic = Callable[[int, int, float], np.ndarray]


def new_state(name, seed):
    """Random weights of a vision transformer in DINO's names, to which DreamSim brings
    CLIP's too.
    """
    generator = torch.Generator().manual_seed(seed)
    patch = int(name[-2:])
    old_grid = 5 if name == "dinov2_vitb14" else SIDE // int(name[-2:])
    shapes = {
        "cls_token": (1, 1, D),
        "pos_embed": (1, 1 + old_grid**2, D),
        "patch_embed.proj.weight": (D, 3, patch, patch),
        "patch_embed.proj.bias": (D,),
        **{f"norm.{kind}": (D,) for kind in ("weight", "bias")},
    }
    for i in range(DEPTH):
        linears = {
            "attn.qkv": (3 * D, D),
            "attn.proj": (D, D),
            "mlp.fc1": (4 * D, D),
            "mlp.fc2": (D, 4 * D),
        }
        for layer, shape in {**linears, "norm1": (D,), "norm2": (D,)}.items():
            shapes |= {
                f"blocks.{i}.{layer}.weight": shape,
                f"blocks.{i}.{layer}.bias": shape[:1],
            }
        if name == "dinov2_vitb14":
            shapes |= {f"blocks.{i}.ls{k}.gamma": (D,) for k in (1, 2)}
    if "clip" in name:
        shapes |= {"pos_drop.weight": (D,), "pos_drop.bias": (D,), "proj": (D, 12)}
    return {
        key: torch.randn(shape, generator=generator) * 0.3
        for key, shape in shapes.items()
    }


def write_checkpoint(folder, name, state):
    """Write weights in the format of their publishers."""
    student_state = new_state(name, 99)
    head = torch.zeros(2)
    if name == "dino_vitb16":
        wrapped = {
            "student": {
                f"module.backbone.{key}": value for key, value in student_state.items()
            },
            "teacher": {f"backbone.{key}": value for key, value in state.items()},
            "args": argparse.Namespace(arch="vit_base"),
        }
        wrapped["teacher"]["head.mlp.0.weight"] = head
    elif name == "dinov2_vitb14":
        wrapped = {**state, "mask_token": torch.zeros(1, D)}
    elif name == "synclr_vitb16":
        wrapped = {
            "model": {f"module.visual.{key}": value for key, value in state.items()}
        }
    else:
        wrapped = {"state_dict": state}
    torch.save(wrapped, folder / dreamsim.VITS[name].file)


def write_adapter(folder, members, seed=7):
    generator = torch.Generator().manual_seed(seed)
    stem = "base_model.model.extractor_list.{}.model.blocks.{}.attn.qkv.lora_{}.weight"
    parts = {}
    for e in range(members):
        for i in range(DEPTH):
            parts[stem.format(e, i, "A")] = torch.randn(RANK, D, generator=generator)
            parts[stem.format(e, i, "B")] = torch.randn(
                3 * D, RANK, generator=generator
            )
    folder.mkdir(exist_ok=True)
    save_file(parts, folder / "adapter_model.safetensors")
    config = {"r": RANK, "lora_alpha": ALPHA, "target_modules": ["qkv"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return parts


def compute(
    picture,
    make_cubic_matrix,
    name,
    state,
    adapter,
    e=0,
):
    """Compute the outputs of a member in float64, without merging the adapter."""
    w = {key: value.double() for key, value in state.items()}
    patch = int(name[-2:])
    is_clip = "clip" in name
    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)
    if is_clip:
        mean = (0.48145466, 0.4578275, 0.40821073)
        std = (0.26862954, 0.26130258, 0.27577711)
    pixels = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) / 255
    grid = SIDE // patch
    pixels = ((pixels - mean) / std)[: grid * patch, : grid * patch]  # [H, W, 3]
    patches = (
        torch.tensor(pixels).reshape(grid, patch, grid, patch, 3).permute(0, 2, 4, 1, 3)
    )
    x = patches.reshape(grid**2, -1) @ w["patch_embed.proj.weight"].reshape(D, -1).T
    x = torch.cat([w["cls_token"][0], x + w["patch_embed.proj.bias"]])  # [S, D]
    positions = w["pos_embed"][0]
    old_grid = round((len(positions) - 1) ** 0.5)
    if old_grid != grid:
        matrix = torch.tensor(
            make_cubic_matrix(old_grid, grid, old_grid / (grid + 0.1))
        )
        square = torch.einsum(
            "ih,jw,hwd->ijd",
            matrix,
            matrix,
            positions[1:].reshape(old_grid, old_grid, D),
        )
        positions = torch.cat([positions[:1], square.reshape(-1, D)])
    eps = 1e-5 if is_clip else 1e-6

    def norm(x, layer):
        x = (x - x.mean(-1, keepdim=True)) / (
            x.var(-1, keepdim=True, unbiased=False) + eps
        ).sqrt()
        return x * w[f"{layer}.weight"] + w[f"{layer}.bias"]

    def linear(x, layer):
        return x @ w[f"{layer}.weight"].T + w[f"{layer}.bias"]

    x = x + positions
    x = norm(x, "pos_drop") if is_clip else x
    blocks = []
    for i in range(DEPTH):
        block = f"blocks.{i}"
        y = norm(x, f"blocks.{i}.norm1")
        qkv = linear(y, f"{block}.attn.qkv")
        if adapter:
            low = f"base_model.model.extractor_list.{e}.model.{block}.attn.qkv.lora"
            lora_a, b = (adapter[f"{low}_{layer}.weight"].double() for layer in "AB")
            qkv = qkv + ALPHA / RANK * (y @ lora_a.T) @ b.T
        q, k, v = qkv.reshape(-1, 3, HEADS, D // HEADS).permute(1, 2, 0, 3)
        # [heads, S, D / heads]
        mixed = ((q @ k.mT) / (D // HEADS) ** 0.5).softmax(-1) @ v
        y = linear(mixed.permute(1, 0, 2).reshape(-1, D), f"{block}.attn.proj")
        x = x + y * w.get(f"{block}.ls1.gamma", 1)
        y = linear(norm(x, f"{block}.norm2"), f"{block}.mlp.fc1")
        y = (
            y * torch.sigmoid(1.702 * y)
            if name.startswith("clip")
            else y * (1 + torch.erf(y / 2**0.5)) / 2
        )
        x = x + linear(y, f"{block}.mlp.fc2") * w.get(f"{block}.ls2.gamma", 1)
        blocks.append(x)
    last_tokens = norm(x, "norm") if is_clip else x
    return {
        "embedding": last_tokens[0] @ w["proj"] if is_clip else x[0],
        "class": last_tokens[0],
        "mean": last_tokens[1:].mean(0),
        "patches": last_tokens[1:],
        "block-0": blocks[0],
        "block-1.mean": blocks[1][1:].mean(0),
    }


def config_of(name, folder, **knobs):
    config = encoders.resolve(
        {"kind": name, "source": str(folder), "architecture": TINY, **knobs}
    )
    return config


TYPES = {
    "dreamsim": (dreamsim.Config.members, "ensemble_lora"),
    **{name: ((member,), f"{member}_single_lora") for name, member in SINGLES.items()},
}


@pytest.mark.parametrize("name", TYPES)
def test_an_ensemble_joins_the_outputs_of_its_adapted_members(
    name,
    tmp_path,
    picture,
    make_cubic_matrix,
    measure_error,
):
    members, lora = TYPES[name]
    states = {member: new_state(member, seed) for seed, member in enumerate(members)}
    for member, state in states.items():
        write_checkpoint(tmp_path, member, state)
    adapter = write_adapter(tmp_path / lora, len(members))
    outputs_by_member = [
        compute(picture, make_cubic_matrix, *member_and_state, adapter, e)
        for e, member_and_state in enumerate(states.items())
    ]
    expected = {
        output: torch.cat([outputs[output] for outputs in outputs_by_member], -1)
        for output in outputs_by_member[0]
    }
    base = config_of(name, tmp_path, adapter="skip").build()
    configs = config_of(name, tmp_path, output=list(expected)).store_configs
    encoder = encoders.join_outputs(configs).build()
    forwards = []
    for _, network in encoder.module.tower:
        network.anatomy.blocks[0].register_forward_hook(lambda *_: forwards.append(1))

    with torch.no_grad():
        embeddings = encoder.module(encoder.preprocess(picture)[None])

    assert len(forwards) == len(members)
    for output, expected_value in zip(embeddings, expected.values(), strict=True):
        assert measure_error(output[0], expected_value) < SAME
    base_embeddings = [
        compute(picture, make_cubic_matrix, *member_and_state, None)["embedding"]
        for member_and_state in states.items()
    ]
    with torch.no_grad():
        assert (
            measure_error(
                base.module(base.preprocess(picture)[None])[0],
                torch.cat(base_embeddings),
            )
            < SAME
        )
    assert encoder.weights["digest"] != base.weights["digest"]


def test_a_bad_dreamsim_folder_says_what_is_wrong(tmp_path):
    adapter = tmp_path / "dinov2_vitb14_single_lora"
    weights = tmp_path / "dinov2_vitb14_pretrain.pth"
    write_checkpoint(tmp_path, "dinov2_vitb14", new_state("dinov2_vitb14", 1))
    write_adapter(adapter, 1)
    another = {"student": new_state("dinov2_vitb14", 1), "epoch": 1}
    damages = [
        (
            lambda: torch.save(another, weights),
            "vit_base_patch14_dinov2",
        ),
        (
            (adapter / "adapter_model.safetensors").unlink,
            "dinov2_vitb14_single_lora/adapter_model",
        ),
    ]
    for damage, name in damages:
        damage()
        with pytest.raises(MissingData, match=name) as caught:
            config_of("dinov2-b14+dreamsim", tmp_path).build().module  # noqa: B018
        assert "\n" not in caught.value.in_one_line
