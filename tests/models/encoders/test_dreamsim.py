"""DreamSim: each type equals a vision transformer computed here, from files in the published layouts."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from brainhive_cli.core.errors import MissingData
from brainhive_cli.models import encoders
from brainhive_cli.models.encoders import dreamsim

SAME = 1e-5
"""Largest difference of float32 from the float64 computed here, relative to the embedding's spread."""
D, HEADS, DEPTH, SIDE, RANK, ALPHA = 16, 2, 2, 64, 3, 0.5
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


def new_state(name: str, seed: int) -> State:
    """Random weights of a vision transformer in DINO's names, to which DreamSim brings CLIP's too."""
    generator = torch.Generator().manual_seed(seed)
    patch, old_grid = int(name[-2:]), 5 if name == "dinov2_vitb14" else SIDE // int(name[-2:])
    shapes = {
        "cls_token": (1, 1, D),
        "pos_embed": (1, 1 + old_grid**2, D),
        "patch_embed.proj.weight": (D, 3, patch, patch),
        "patch_embed.proj.bias": (D,),
        **{f"norm.{kind}": (D,) for kind in ("weight", "bias")},
    }
    for i in range(DEPTH):
        linears = {"attn.qkv": (3 * D, D), "attn.proj": (D, D), "mlp.fc1": (4 * D, D), "mlp.fc2": (D, 4 * D)}
        for part, shape in {**linears, "norm1": (D,), "norm2": (D,)}.items():
            shapes |= {f"blocks.{i}.{part}.weight": shape, f"blocks.{i}.{part}.bias": shape[:1]}
        if name == "dinov2_vitb14":
            shapes |= {f"blocks.{i}.ls{k}.gamma": (D,) for k in (1, 2)}
    if "clip" in name:
        shapes |= {"pos_drop.weight": (D,), "pos_drop.bias": (D,), "proj": (D, 12)}
    return {key: torch.randn(shape, generator=generator) * 0.3 for key, shape in shapes.items()}


def write_checkpoint(folder: Path, name: str, state: State) -> None:
    """Wrap the weights as their publishers do."""
    other, head = new_state(name, 99), torch.zeros(2)
    if name == "dino_vitb16":
        wrapped: Any = {
            "student": {f"module.backbone.{key}": value for key, value in other.items()},
            "teacher": {f"backbone.{key}": value for key, value in state.items()},
            "args": argparse.Namespace(arch="vit_base"),
        }
        wrapped["teacher"]["head.mlp.0.weight"] = head
    elif name == "dinov2_vitb14":
        wrapped = {**state, "mask_token": torch.zeros(1, D)}
    elif name == "synclr_vitb16":
        wrapped = {"model": {f"module.visual.{key}": value for key, value in state.items()}}
    else:
        wrapped = {"state_dict": state}
    torch.save(wrapped, folder / dreamsim.VITS[name].file)


def write_adapter(folder: Path, members: int, seed: int = 7) -> State:
    generator = torch.Generator().manual_seed(seed)
    stem, parts = "base_model.model.extractor_list.{}.model.blocks.{}.attn.qkv.lora_{}.weight", {}
    for e in range(members):
        for i in range(DEPTH):
            parts[stem.format(e, i, "A")] = torch.randn(RANK, D, generator=generator)
            parts[stem.format(e, i, "B")] = torch.randn(3 * D, RANK, generator=generator)
    folder.mkdir(exist_ok=True)
    save_file(parts, folder / "adapter_model.safetensors")
    config = {"r": RANK, "lora_alpha": ALPHA, "target_modules": ["qkv"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return parts


def compute(
    picture: Image.Image, cubic: Cubic, name: str, state: State, adapter: State | None, e: int = 0
) -> dict[str, Tensor]:
    """Compute one member's outputs in float64, with the adapter beside the weights and not merged."""
    w = {key: value.double() for key, value in state.items()}
    patch, is_clip = int(name[-2:]), "clip" in name
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    if is_clip:
        mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    pixels = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) / 255
    grid = SIDE // patch
    pixels = ((pixels - mean) / std)[: grid * patch, : grid * patch]  # [H, W, 3]
    patches = torch.tensor(pixels).reshape(grid, patch, grid, patch, 3).permute(0, 2, 4, 1, 3)
    x = patches.reshape(grid**2, -1) @ w["patch_embed.proj.weight"].reshape(D, -1).T
    x = torch.cat([w["cls_token"][0], x + w["patch_embed.proj.bias"]])  # [S, D]
    places = w["pos_embed"][0]
    old = round((len(places) - 1) ** 0.5)
    if old != grid:
        matrix = torch.tensor(cubic(old, grid, old / (grid + 0.1)))
        square = torch.einsum("ih,jw,hwd->ijd", matrix, matrix, places[1:].reshape(old, old, D))
        places = torch.cat([places[:1], square.reshape(-1, D)])
    eps = 1e-5 if is_clip else 1e-6

    def norm(x: Tensor, part: str) -> Tensor:
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + eps).sqrt()
        return x * w[f"{part}.weight"] + w[f"{part}.bias"]

    def linear(x: Tensor, part: str) -> Tensor:
        return x @ w[f"{part}.weight"].T + w[f"{part}.bias"]

    x = x + places
    x = norm(x, "pos_drop") if is_clip else x
    blocks = []
    for i in range(DEPTH):
        block, y = f"blocks.{i}", norm(x, f"blocks.{i}.norm1")
        qkv = linear(y, f"{block}.attn.qkv")
        if adapter:
            low = f"base_model.model.extractor_list.{e}.model.{block}.attn.qkv.lora"
            a, b = (adapter[f"{low}_{part}.weight"].double() for part in "AB")
            qkv = qkv + ALPHA / RANK * (y @ a.T) @ b.T
        q, k, v = qkv.reshape(-1, 3, HEADS, D // HEADS).permute(1, 2, 0, 3)
        mixed = ((q @ k.mT) / (D // HEADS) ** 0.5).softmax(-1) @ v  # [heads, S, D / heads]
        y = linear(mixed.permute(1, 0, 2).reshape(-1, D), f"{block}.attn.proj")
        x = x + y * w.get(f"{block}.ls1.gamma", 1)
        y = linear(norm(x, f"{block}.norm2"), f"{block}.mlp.fc1")
        y = y * torch.sigmoid(1.702 * y) if name.startswith("clip") else y * (1 + torch.erf(y / 2**0.5)) / 2
        x = x + linear(y, f"{block}.mlp.fc2") * w.get(f"{block}.ls2.gamma", 1)
        blocks.append(x)
    last = norm(x, "norm") if is_clip else x
    return {
        "embedding": last[0] @ w["proj"] if is_clip else x[0],
        "class": last[0],
        "mean": last[1:].mean(0),
        "patches": last[1:],
        "block-0": blocks[0],
        "block-1.mean": blocks[1][1:].mean(0),
    }


@pytest.fixture
def directly(picture: Image.Image, cubic: Cubic) -> Callable[..., Tensor]:
    return lambda *made_of: compute(picture, cubic, *made_of)["embedding"]


def config_of(name: str, folder: Path, **knobs: Any) -> dreamsim.Config:
    config: dreamsim.Config = encoders.resolve(
        {"kind": name, "source": str(folder), "architecture": TINY, **knobs}
    )
    return config


@pytest.mark.parametrize(("name", "member"), SINGLES.items())
def test_a_dreamsim_type_is_its_network_with_the_adapter_beside_it(
    name: str, member: str, tmp_path: Path, picture: Image.Image, embed: Any, directly: Any, difference: Any
) -> None:
    state = new_state(member, 1)
    write_checkpoint(tmp_path, member, state)
    adapter = write_adapter(tmp_path / f"{member}_single_lora", 1)
    aligned, base = config_of(name, tmp_path).build(), config_of(name, tmp_path, adapter="skip").build()
    assert difference(embed(aligned, picture), directly(member, state, adapter)) < SAME
    assert difference(embed(base, picture), directly(member, state, None)) < SAME
    assert not torch.allclose(embed(aligned, picture), embed(base, picture), atol=0.1)
    assert aligned.weights["digest"] != base.weights["digest"]


def test_the_ensemble_puts_dino_clip_and_open_clip_side_by_side(
    tmp_path: Path, picture: Image.Image, embed: Any, directly: Any, difference: Any
) -> None:
    states = {name: new_state(name, seed) for seed, name in enumerate(dreamsim.Config.members)}
    for name, state in states.items():
        write_checkpoint(tmp_path, name, state)
    adapter = write_adapter(tmp_path / "ensemble_lora", 3)
    each = [directly(name, state, adapter, e) for e, (name, state) in enumerate(states.items())]
    assert [name.rpartition("_")[0] for name in states] == ["dino", "clip", "open_clip"]
    assert [len(part) for part in each] == [D, 12, 12]
    assert difference(embed(config_of("dreamsim", tmp_path).build(), picture), torch.cat(each)) < SAME


TYPES = {
    "dreamsim": (dreamsim.Config.members, "ensemble_lora"),
    **{name: ((member,), f"{member}_single_lora") for name, member in SINGLES.items()},
}


@pytest.mark.parametrize("name", TYPES)
def test_every_output_of_a_dreamsim_type_comes_from_one_forward(
    name: str, tmp_path: Path, picture: Image.Image, cubic: Cubic, difference: Any
) -> None:
    members, lora = TYPES[name]
    states = {member: new_state(member, seed) for seed, member in enumerate(members)}
    for member, state in states.items():
        write_checkpoint(tmp_path, member, state)
    adapter = write_adapter(tmp_path / lora, len(members))
    each = [compute(picture, cubic, *of, adapter, e) for e, of in enumerate(states.items())]
    expected = {output: torch.cat([one[output] for one in each], -1) for output in each[0]}
    configs = config_of(name, tmp_path, output=list(expected)).outputs
    encoder, forwards = encoders.joined(configs).build(), []
    for network in encoder.module.networks:
        network.anatomy.blocks[0].register_forward_hook(lambda *_: forwards.append(1))

    with torch.no_grad():
        found = encoder.module(encoder.preprocess(picture)[None])

    assert len(forwards) == len(members)
    for output, known in zip(found, expected.values(), strict=True):
        assert difference(output[0], known) < SAME


def test_dinos_own_file_is_preferred_to_the_full_checkpoint(
    tmp_path: Path, picture: Image.Image, embed: Any, directly: Any, difference: Any
) -> None:
    write_checkpoint(tmp_path, "dino_vitb16", new_state("dino_vitb16", 1))
    (tmp_path / "checkpoints").mkdir()
    state = new_state("dino_vitb16", 2)
    torch.save(state, tmp_path / "checkpoints/dino_vitbase16_pretrain.pth")
    encoder = config_of("dino-b16+dreamsim", tmp_path, adapter="skip").build()
    assert difference(embed(encoder, picture), directly("dino_vitb16", state, None)) < SAME


def without_its_adapter(folder: Path) -> None:
    (folder / "dinov2_vitb14_single_lora/adapter_model.safetensors").unlink()


def with_the_ensembles_adapter(folder: Path) -> None:
    write_adapter(folder / "dinov2_vitb14_single_lora", 3)


def with_a_wider_adapter(folder: Path) -> None:
    path = folder / "dinov2_vitb14_single_lora/adapter_model.safetensors"
    stem = "base_model.model.extractor_list.0.model.blocks.{}.attn.qkv.lora_{}.weight"
    wide = {stem.format(i, "A"): torch.ones(RANK, D + 1) for i in range(DEPTH)}
    save_file({**wide, **{stem.format(i, "B"): torch.ones(3 * D, RANK) for i in range(DEPTH)}}, path)


def with_an_adapter_without_a_rank(folder: Path) -> None:
    (folder / "dinov2_vitb14_single_lora/adapter_config.json").write_text('{"r": 0, "lora_alpha": 1}')


def with_another_network(folder: Path) -> None:
    torch.save(new_state("dino_vitb16", 1), folder / "dinov2_vitb14_pretrain.pth")


def with_a_student_alone(folder: Path) -> None:
    torch.save({"student": new_state("dinov2_vitb14", 1), "epoch": 1}, folder / "dinov2_vitb14_pretrain.pth")


def with_a_list_for_a_checkpoint(folder: Path) -> None:
    torch.save([torch.ones(1)], folder / "dinov2_vitb14_pretrain.pth")


def with_code_in_the_checkpoint(folder: Path) -> None:
    torch.save({"pos_embed": Path("/")}, folder / "dinov2_vitb14_pretrain.pth")


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (without_its_adapter, r"has no dinov2_vitb14_single_lora/adapter_model\.safetensors"),
        (with_the_ensembles_adapter, "is no adapter of this network: 8 tensors too many"),
        (with_a_wider_adapter, "is no adapter of this network: .*size"),
        (with_an_adapter_without_a_rank, r"adapter_config\.json: r: Input should be greater than 0"),
        (with_another_network, "does not hold the weights of timm's vit_base_patch14_dinov2: .*ls1.gamma"),
        (with_a_student_alone, "does not hold the weights of timm's vit_base_patch14_dinov2: 'pos_embed'"),
        (with_a_list_for_a_checkpoint, "it holds a list, not tensors by name"),
        (with_code_in_the_checkpoint, r"it holds more than tensors, pathlib\.PosixPath"),
    ],
)
def test_a_bad_dreamsim_folder_says_what_is_wrong(
    damage: Callable[[Path], None], what: str, tmp_path: Path
) -> None:
    write_checkpoint(tmp_path, "dinov2_vitb14", new_state("dinov2_vitb14", 1))
    write_adapter(tmp_path / "dinov2_vitb14_single_lora", 1)
    damage(tmp_path)
    with pytest.raises(MissingData, match=what) as caught:
        config_of("dinov2-b14+dreamsim", tmp_path).build().module  # noqa: B018
    assert "\n" not in caught.value.in_one_line


def test_a_missing_dreamsim_folder_says_where_to_get_it(home: Path) -> None:
    with pytest.raises(MissingData, match="no folder 'models'") as caught:
        encoders.resolve("dinov2-b14+dreamsim").build()
    assert "releases" in caught.value.hint
