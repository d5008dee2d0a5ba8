"""MindEye2's brain model against the reference's values, with and without the mixer blocks."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from brainhive_cli import aligner
from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.models.backbones import mindeye2
from brainhive_cli.models.heads import Head
from brainhive_cli.models.signal_spec import SignalSpec
from brainhive_cli.training.alignment.initialisation import load_start, take_over
from brainhive_cli.training.alignment.layout import Layout
from brainhive_cli.training.alignment.model import Aligner

TOLERANCE = 1e-5
"""Of the largest value: one thread or several, one order of additions or another."""
Golden = dict[str, Tensor]


def read(path: Path) -> tuple[dict[str, Any], Golden]:
    with safe_open(path, "pt") as file:
        config: dict[str, Any] = json.loads(file.metadata()["config"])
        return config, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def assert_near(found: Tensor, expected: Tensor) -> None:
    assert (found - expected).abs().max() <= TOLERANCE * expected.abs().max()  # which may be 0


@pytest.fixture
def model(golden: Path, tmp_path: Path) -> tuple[Aligner, Golden]:
    """NEURONS' brain model of two subjects of different widths, through its folder."""
    config, expected = read(golden / "neurons" / "brain_model.safetensors")
    widths = tuple(config["ridge_inputs"])
    spec = SignalSpec((), config["seq_len"], tuple(range(len(widths))), widths)
    heads = {
        "image": Head((config["tokens"], config["clip_size"]), "big-g"),
        "text": Head((config["text_dim"],), "captions"),
    }
    sizes = {"hidden": config["h"], "blocks": config["n_blocks"], "dropout": config["drop"]}
    backbone = {"kind": "mindeye2", "mixer": "blocks", **sizes}
    weights = {n.removeprefix("weights."): w for n, w in expected.items() if n.startswith("weights.")}
    made = Aligner(Layout(spec, heads, backbone, retrieval_heads=("image",)))
    made.backbone.load_state_dict(weights)
    made.save(tmp_path / "model")
    return aligner.load(tmp_path / "model"), expected


def predictions(model: Aligner, expected: Golden) -> list[dict[str, Tensor]]:
    found = []
    for place in range(len(model.layout.spec.subjects)):
        voxels = expected[f"input.voxels_subject{place}"].transpose(1, 2)  # [B, V, 1]
        with torch.no_grad():
            found.append(model.eval().predict(voxels, torch.full((len(voxels),), place)))
    return found


def test_subjects_of_two_widths_get_the_references_heads(model: tuple[Aligner, Golden]) -> None:
    """Golden values: NEURONS' ridge, backbone and text projection, from its brain_model."""
    made, expected = model

    found = predictions(made, expected)

    names = {"clip_tokens": "image", "text": "text"}
    stored = [re.fullmatch(r"expected\.(clip_tokens|text)_subject(\d+)", name) for name in expected]
    compared = [match for match in stored if match]
    assert {match[1] for match in compared} == names.keys() and len({match[2] for match in compared}) > 1
    for match in compared:
        assert_near(found[int(match[2])][names[match[1]]], expected[match[0]])


def test_without_mixer_blocks_a_model_takes_over_their_constant_and_gives_equal_heads(
    model: tuple[Aligner, Golden], tmp_path: Path
) -> None:
    made, expected = model
    plain = Aligner(replace(made.layout, backbone={**made.layout.backbone, "mixer": "none"}))

    take_over(plain, tmp_path / "model")

    for found, wanted in zip(predictions(plain, expected), predictions(made, expected), strict=True):
        assert_near(found["image"], wanted["image"])
    constant = mindeye2.mixer_constant(made.backbone.state_dict())
    assert_near(constant, expected["expected.mixer2_constants"].sum())
    assert not [name for name in plain.state_dict() if "mixer" in name]


def test_a_new_subject_gets_a_ridge_of_its_own_and_the_shared_part(
    model: tuple[Aligner, Golden], tmp_path: Path
) -> None:
    learned, _ = model
    spec = SignalSpec((), 1, (7, 1), (5, learned.layout.spec.widths[1]))
    new = Aligner(replace(learned.layout, spec=spec))
    before = new.backbone.ridge.linears["7"].weight.clone()

    take_over(new, tmp_path / "model")

    found, known = new.state_dict(), learned.state_dict()
    assert torch.equal(new.backbone.ridge.linears["7"].weight, before)
    shared = found.keys() & known.keys()
    assert found.keys() - shared == {f"backbone.ridge.linears.7.{name}" for name in ("weight", "bias")}
    assert all(torch.equal(found[name], known[name]) for name in shared)


@pytest.mark.parametrize("is_part", [False, True])
def test_a_new_ridge_without_mixer_blocks_has_their_constant_behind_it(
    model: tuple[Aligner, Golden], tmp_path: Path, is_part: bool
) -> None:
    """Golden values: with a ridge of zeros, the reference's tokens are those of the constant alone."""
    learned, expected = model
    spec = SignalSpec((), 1, (7,), (5,))
    layout = replace(learned.layout, spec=spec, backbone={**learned.layout.backbone, "mixer": "none"})
    new = Aligner(layout)

    if is_part:
        load_start(new, tmp_path / "model", "backbone.backbone")
    else:
        take_over(new, tmp_path / "model")

    with torch.no_grad():
        for parameter in new.backbone.ridge.parameters():
            parameter.zero_()
        tokens, _ = new.backbone.with_voxel_tokens(torch.randn(2, 5, 1), torch.zeros(2, dtype=torch.long))
    weight, bias = (expected[f"weights.backbone.backbone_linear.{name}"] for name in ("weight", "bias"))
    constant = expected["expected.mixer2_constants"].sum()
    assert_near(tokens.flatten(1), (weight @ torch.full((weight.shape[1],), constant) + bias).expand(2, -1))
    assert (constant * weight.sum(1)).abs().max() > 0.05  # so that without the constant they are others


SPEC = SignalSpec((), 1, (1, 2), (3, 5))


def test_a_subject_without_a_ridge_or_with_other_voxels_is_refused() -> None:
    made = mindeye2.TINY.build(SPEC, {"image": Head((2, 4))})

    with pytest.raises(BrainhiveError, match="mindeye2 knows the subjects it was fitted on only"):
        made(torch.randn(2, 3, 1), None)
    with pytest.raises(BrainhiveError, match=r"signals \[B, 5, 1\]"):
        made(torch.randn(2, 3, 1), torch.tensor([1, 1]))


BLURRY = {"image": Head((2, 4)), "blurry": Head((4, 28, 28)), "maps": Head((49, 512))}


def test_the_blurry_branch_gives_the_references_latent_and_maps(
    golden: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Golden values: MindEye1's feature maps, decoder and projector, whose layers are also MindEye2's."""
    config, expected = read(golden / "havir/structural.safetensors")
    monkeypatch.setattr(mindeye2, "FEATURES", config["channels"])
    monkeypatch.setattr(mindeye2, "CHANNELS", tuple(config["block_out_channels"]))
    heads = {"blurry": Head(expected["out.latent"].shape[1:]), "maps": Head(expected["out.maps"].shape[1:])}
    own = {name.removeprefix("weights."): each.float() for name, each in expected.items()}
    x = torch.nn.functional.linear(expected["in.voxels"], own["lin0.0.weight"])
    shape = (config["h"],)
    x = torch.nn.functional.silu(
        torch.nn.functional.layer_norm(x, shape, own["lin0.1.weight"], own["lin0.1.bias"])
    )
    for block in range(config["n_blocks"]):
        mapped = torch.nn.functional.linear(x, own[f"mlp.{block}.0.weight"])
        normed = [own[f"mlp.{block}.1.{name}"] for name in ("weight", "bias")]
        x = x + torch.nn.functional.silu(torch.nn.functional.layer_norm(mapped, shape, *normed))
    backbone = mindeye2.Backbone(config["h"], 0, 0.0, 2, 4, heads).eval()
    names = {
        "lin1": "blin1",
        "norm": "bnorm",
        "upsampler": "bupsampler",
        "maps_projector": "b_maps_projector",
    }
    state = {}
    for name, each in own.items():
        part, _, rest = name.partition(".")
        if part in names:
            state[f"{names[part]}.{rest}"] = each
    state["blin1.bias"] = torch.zeros(len(own["lin1.weight"]))  # which MindEye1's has not
    others = ("backbone_linear", "clip_proj")
    assert state.keys() == {name for name in backbone.state_dict() if not name.startswith(others)}
    backbone.load_state_dict(state, strict=False)

    with torch.no_grad():
        found = backbone.blurry(x)

    assert_near(found["blurry"], expected["out.latent"])
    assert_near(found["maps"], expected["out.maps"])


def test_the_blurry_branch_has_the_published_sizes_and_names() -> None:
    """Source: MindEye2's BrainNetwork with blurry_recon, clip_size 1664, h 4096."""
    with torch.device("meta"):
        made = mindeye2.Config().build(SPEC, {**BLURRY, "image": Head((256, 1664))})
    shapes = {name: tuple(each.shape) for name, each in made.state_dict().items()}

    assert shapes["backbone.blin1.weight"] == (3136, 4096) and shapes["backbone.blin1.bias"] == (3136,)
    assert shapes["backbone.bnorm.weight"] == (64,)
    assert shapes["backbone.bupsampler.conv_in.weight"] == (128, 64, 3, 3)
    assert shapes["backbone.bupsampler.conv_out.weight"] == (4, 32, 3, 3)
    assert {name.split(".")[3] for name in shapes if "bupsampler.up_blocks" in name} == {"0", "1", "2"}
    projector = [name for name in shapes if "b_maps_projector" in name and "bias" in name]
    assert projector == [f"backbone.b_maps_projector.{place}.bias" for place in (1, 4, 6)]
    assert shapes["backbone.b_maps_projector.6.weight"] == (512, 512, 1, 1)


def test_tokens_are_the_same_with_the_blurry_branch_which_learns_from_its_latent() -> None:
    torch.manual_seed(0)
    branch = mindeye2.TINY.build(SPEC, BLURRY).eval()
    plain = mindeye2.TINY.build(SPEC, {"image": BLURRY["image"]}).eval()
    plain.load_state_dict(plain.adapted(branch.state_dict()))
    signal, subject = torch.randn(3, 5, 1), torch.ones(3, dtype=torch.long)

    found = branch(signal, subject)

    assert torch.equal(found["image"], plain(signal, subject)["image"])
    assert {name: each.shape[1:] for name, each in found.items()} == {n: h.shape for n, h in BLURRY.items()}
    found["blurry"].abs().mean().backward()
    assert branch.ridge.linears["2"].weight.grad.abs().sum() > 0
    assert branch.backbone.backbone_linear.weight.grad is None


@pytest.mark.parametrize(
    "heads",
    [
        {"text": Head((4,))},
        {"image": Head((2, 4)), "latent": Head((4, 2, 2))},
        {"image": Head((2, 4)), "blurry": Head((4, 8))},
        {"image": Head((2, 4)), "maps": Head((49, 512))},
    ],
)
def test_heads_that_are_none_of_its_own_are_refused(heads: dict[str, Head]) -> None:
    with pytest.raises(RecipeError, match="mindeye2 predicts tokens, text, blurry and maps, the heads are"):
        mindeye2.TINY.build(SPEC, heads)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [("blurry", (4, 27, 27), "makes .* of multiples of 4"), ("maps", (48, 512), "starts from 7×7 maps")],
)
def test_a_latent_or_maps_that_the_decoder_cannot_make_are_refused(
    name: str, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(BrainhiveError, match=message):
        mindeye2.TINY.build(SPEC, {**BLURRY, name: Head(shape)})


def test_a_part_that_is_larger_in_the_other_model_is_not_taken_over_in_silence(
    model: tuple[Aligner, Golden], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    learned, _ = model
    blocks = learned.layout.backbone["blocks"]
    assert blocks > 1
    new = Aligner(replace(learned.layout, backbone={**learned.layout.backbone, "blocks": blocks - 1}))

    load_start(new, tmp_path / "model", "backbone.backbone")

    told = capsys.readouterr().err
    assert (
        "weights of backbone.backbone are taken over; first left out backbone.backbone.mixer_blocks" in told
    )
