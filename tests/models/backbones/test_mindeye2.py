"""MindEye2's brain model against the reference's values."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from brainhive_cli import aligner
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.models.backbones import mindeye2
from brainhive_cli.models.heads import Head
from brainhive_cli.models.signal_spec import SignalSpec
from brainhive_cli.training.alignment.layout import Layout
from brainhive_cli.training.alignment.model import Aligner
from brainhive_cli.training.alignment.training.initialisation import (
    copy_weights,
    load_start,
)
from tests.tools.golden_files import assert_near, read

TOLERANCE = 1e-5
"""Of the largest value: one thread or several, one order of additions or another."""
Golden = dict[str, Tensor]


@pytest.fixture
def model(golden: Path, tmp_path: Path) -> tuple[Aligner, Golden]:
    """NEURONS' brain model of two subjects of different widths, through its folder."""
    config, expected = read(golden / "neurons" / "brain_model.safetensors")
    widths = tuple(config["ridge_inputs"])
    spec = SignalSpec((), config["seq_len"], tuple(range(len(widths))), widths)
    heads = {"image": Head((config["tokens"], config["clip_size"]), "big-g")}
    heads["text"] = Head((config["text_dim"],), "captions")
    backbone = {"kind": "mindeye2", "hidden": config["h"], "blocks": config["n_blocks"]}
    made = Aligner(Layout(spec, heads, backbone, retrieval_heads=("image",)))
    made.backbone.load_state_dict(weights_of(expected))
    made.save(tmp_path / "model")
    return aligner.load(tmp_path / "model"), expected


def weights_of(expected: Golden) -> Golden:
    """Take the reference's weights, but for the blocks that reach no output."""
    return {
        n.removeprefix("weights."): w
        for n, w in expected.items()
        if n.startswith("weights.") and ".mixer_blocks1." not in n
    }


def predictions(model: Aligner, expected: Golden) -> list[dict[str, Tensor]]:
    found = []
    for place in range(len(model.layout.spec.subjects)):
        voxels = expected[f"input.voxels_subject{place}"].transpose(1, 2)  # [B, V, 1]
        with torch.no_grad():
            found.append(
                model.eval().predict(voxels, torch.full((len(voxels),), place))
            )
    return found


def test_subjects_of_two_widths_get_the_references_heads(
    model: tuple[Aligner, Golden],
) -> None:
    """Golden values: NEURONS' ridge, backbone and text projection, from its
    brain_model.
    """
    made, expected = model

    found = predictions(made, expected)

    names = {"clip_tokens": "image", "text": "text"}
    stored = [
        re.fullmatch(r"expected\.(clip_tokens|text)_subject(\d+)", name)
        for name in expected
    ]
    compared = [match for match in stored if match]
    assert {match[1] for match in compared} == names.keys() and len(
        {match[2] for match in compared}
    ) > 1
    for match in compared:
        assert_near(
            found[int(match[2])][names[match[1]]], expected[match[0]], TOLERANCE
        )


def test_ridges_mixers_and_voxel_tokens_are_the_references(
    model: tuple[Aligner, Golden],
) -> None:
    """Golden values: outputs of ridge, mixer blocks and backbone_linear."""
    made, expected = model
    brain = made.backbone.eval()

    for place in range(len(made.layout.spec.subjects)):
        voxels = expected[f"input.voxels_subject{place}"].transpose(1, 2)
        subject = torch.full((len(voxels),), place)
        with torch.no_grad():
            mapped = brain.ridge["linears"](voxels, subject)
            tokens, _ = brain.predict_with_voxel_tokens(voxels, subject)
        assert_near(mapped, expected[f"expected.ridge_subject{place}"][:, 0], TOLERANCE)
        stored = expected.get(f"expected.voxel_tokens_subject{place}")
        if stored is not None:
            assert_near(tokens, stored, TOLERANCE)

    with torch.no_grad():
        constants = [block(torch.zeros(1)) for block in brain.backbone.mixer_blocks2]
    assert_near(torch.cat(constants), expected["expected.mixer2_constants"], TOLERANCE)


def test_mixer_blocks_learn_with_their_dropout() -> None:
    torch.manual_seed(0)
    heads = {"image": Head((2, 4))}
    made = mindeye2.Config(hidden=500).build(SignalSpec((), 1, (1,), (3,)), heads)
    signal, subject = torch.randn(40, 3, 1), torch.zeros(40, dtype=torch.long)
    for block in made.backbone.mixer_blocks2:
        torch.nn.init.constant_(block[0].bias, 0.5)
    mapped = made.ridge["linears"](signal, subject)

    with torch.no_grad():
        added = made.backbone.mix(mapped) - mapped
        once = made.backbone.mixer_blocks2[0](torch.zeros(40, 500, 1))
    made(signal, subject)["image"].square().mean().backward()

    # each row and unit is dropped by itself
    assert added.std(0).min() > 0 and added.std(1).min() > 0
    _, counts = once.unique(return_counts=True)
    assert counts.min() / counts.sum() == pytest.approx(0.15, abs=0.01)
    # LayerNorm's gain multiplies 0; the other 20 numbers learn
    idle = {
        name
        for name, parameter in made.backbone.mixer_blocks2.named_parameters()
        if not parameter.grad.any()
    }
    assert idle == {f"{block}.0.weight" for block in range(4)}


def test_a_new_ridge_gets_the_mixer_blocks_of_its_start(
    model: tuple[Aligner, Golden], tmp_path: Path
) -> None:
    """Golden values: with a ridge of zeros, the reference's tokens are those of the
    constant alone.
    """
    learned, expected = model
    spec = SignalSpec((), 1, (7,), (5,))
    layout = replace(learned.layout, spec=spec)
    weight, bias = (
        expected[f"weights.backbone.backbone_linear.{name}"]
        for name in ("weight", "bias")
    )
    constant = expected["expected.mixer2_constants"].sum()
    wanted = weight @ torch.full((weight.shape[1],), constant) + bias
    # so that without the constant they are others
    assert (constant * weight.sum(1)).abs().max() > 1e-3 * wanted.abs().max()

    for begin in (
        copy_weights,
        lambda new, folder: load_start(new, folder, "backbone.backbone"),
    ):
        new = Aligner(layout).eval()
        before = new.backbone.ridge.linears["7"].weight.clone()
        begin(new, tmp_path / "model")
        assert torch.equal(new.backbone.ridge.linears["7"].weight, before)
        with torch.no_grad():
            for parameter in new.backbone.ridge.parameters():
                parameter.zero_()
            signal, subject = torch.randn(2, 5, 1), torch.zeros(2, dtype=torch.long)
            tokens, _ = new.backbone.predict_with_voxel_tokens(signal, subject)
        assert_near(tokens.flatten(1), wanted.expand(2, -1), TOLERANCE)


SPEC = SignalSpec((), 1, (1, 2), (3, 5))


BLURRY = {"image": Head((2, 4)), "blurry": Head((4, 28, 28)), "maps": Head((49, 512))}


def test_the_blurry_branch_gives_the_references_latent_and_maps(
    golden: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Golden values: MindEye1's feature maps, decoder and projector, whose layers are
    also MindEye2's.
    """
    config, expected = read(golden / "havir/structural.safetensors")
    monkeypatch.setattr(mindeye2, "BLURRY_FEATURES", config["channels"])
    monkeypatch.setattr(
        mindeye2, "BLURRY_CHANNELS", tuple(config["block_out_channels"])
    )
    heads = {
        "blurry": Head(expected["out.latent"].shape[1:]),
        "maps": Head(expected["out.maps"].shape[1:]),
    }
    own = {
        name.removeprefix("weights."): each.float() for name, each in expected.items()
    }
    x = torch.nn.functional.linear(expected["in.voxels"], own["lin0.0.weight"])
    shape = (config["h"],)
    x = torch.nn.functional.silu(
        torch.nn.functional.layer_norm(
            x, shape, own["lin0.1.weight"], own["lin0.1.bias"]
        )
    )
    for block in range(config["n_blocks"]):
        mapped = torch.nn.functional.linear(x, own[f"mlp.{block}.0.weight"])
        normed = [own[f"mlp.{block}.1.{name}"] for name in ("weight", "bias")]
        x = x + torch.nn.functional.silu(
            torch.nn.functional.layer_norm(mapped, shape, *normed)
        )
    knobs = mindeye2.Config(hidden=config["h"])
    backbone = mindeye2.Backbone(knobs, 2, 4, heads).eval()
    names = {"lin1": "blin1", "norm": "bnorm", "upsampler": "bupsampler"}
    names["maps_projector"] = "b_maps_projector"
    state = {}
    for name, each in own.items():
        part, _, rest = name.partition(".")
        if part in names:
            state[f"{names[part]}.{rest}"] = each
    # which MindEye1's has not
    state["blin1.bias"] = torch.zeros(len(own["lin1.weight"]))
    others = ("backbone_linear", "clip_proj", "mixer_blocks2")
    assert state.keys() == {
        name for name in backbone.state_dict() if not name.startswith(others)
    }
    backbone.load_state_dict(state, strict=False)

    with torch.no_grad():
        found = backbone.predict_blurry(x)

    assert_near(found["blurry"], expected["out.latent"], TOLERANCE)
    assert_near(found["maps"], expected["out.maps"], TOLERANCE)


def test_tokens_are_the_same_with_the_blurry_branch_which_learns_from_its_latent() -> (
    None
):
    torch.manual_seed(0)
    branch = mindeye2.TINY.build(SPEC, BLURRY).eval()
    plain = mindeye2.TINY.build(SPEC, {"image": BLURRY["image"]}).eval()
    plain.load_state_dict(branch.state_dict(), strict=False)
    signal, subject = torch.randn(3, 5, 1), torch.ones(3, dtype=torch.long)

    found = branch(signal, subject)

    assert torch.equal(found["image"], plain(signal, subject)["image"])
    assert {name: each.shape[1:] for name, each in found.items()} == {
        n: h.shape for n, h in BLURRY.items()
    }
    found["blurry"].abs().mean().backward()
    assert branch.ridge.linears["2"].weight.grad.abs().sum() > 0
    assert branch.backbone.backbone_linear.weight.grad is None


def test_heads_and_subjects_that_are_none_of_its_own_are_refused() -> None:
    image = {"image": Head((2, 4))}
    none_of_its_own = "mindeye2 predicts tokens, text, blurry and maps, the heads are"
    with pytest.raises(BrainhiveError, match=none_of_its_own):
        mindeye2.TINY.build(SPEC, {"text": Head((4,))})
    made = mindeye2.TINY.build(SPEC, image)
    with pytest.raises(
        BrainhiveError, match="mindeye2 knows the subjects it was fitted on only"
    ):
        made(torch.randn(2, 3, 1), None)
