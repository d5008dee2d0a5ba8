"""MindEye2's brain model compared with the reference's values."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from brainhive_cli import aligner
from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.models import Head, SignalSpec
from brainhive_cli.models.backbones import mindeye2
from brainhive_cli.training.alignment import Aligner, Layout
from brainhive_cli.training.alignment.training.initialisation import (
    load_start,
)
from tests.tools.golden_files import assert_near, read

TOLERANCE = 1e-5
"""Tolerance relative to the largest value, for additions in another order."""
Golden = dict[str, Tensor]


@pytest.fixture
def model(golden, tmp_path):
    """NEURONS' brain model of subjects of different widths, saved and loaded."""
    config, expected = read(golden / "neurons" / "brain_model.safetensors")
    widths = tuple(config["ridge_inputs"])
    spec = SignalSpec((), config["seq_len"], tuple(range(len(widths))), widths)
    heads = {
        "image": Head((config["tokens"], config["clip_size"]), "big-g"),
        "text": Head((config["text_dim"],), "captions"),
    }
    backbone = {"kind": "mindeye2", "hidden": config["h"], "blocks": config["n_blocks"]}
    model = Aligner(Layout(spec, heads, backbone, retrieval_heads=("image",)))
    model.backbone.load_state_dict(weights_of(expected))
    model.save(tmp_path / "model")
    return aligner.load(tmp_path / "model").eval(), expected


def weights_of(expected):
    """Return the reference's weights without the blocks that affect no output."""
    weights = {}
    for key, value in expected.items():
        if key.startswith("weights.") and ".mixer_blocks1." not in key:
            weights[key.removeprefix("weights.")] = value
    return weights


def read_signals(expected, index):
    """Read the voxels [B, V, 1] of a subject, and the subject's index [B]."""
    voxels = expected[f"input.voxels_subject{index}"].transpose(1, 2)
    return voxels, torch.full((len(voxels),), index)


def test_subjects_of_two_widths_get_the_references_heads(
    model,
):
    """Golden values: image tokens and text vectors of NEURONS' brain_model."""
    brain, expected = model
    head_of = {"clip_tokens": "image", "text": "text"}
    n_compared = dict.fromkeys(head_of, 0)
    for index in range(len(brain.layout.spec.subjects)):
        with torch.no_grad():
            predicted = brain.predict(*read_signals(expected, index))
        for name, head in head_of.items():
            key = f"expected.{name}_subject{index}"
            if key in expected:
                assert_near(predicted[head], expected[key], TOLERANCE)
                n_compared[name] += 1
    assert n_compared["clip_tokens"] > 0
    assert n_compared["text"] > 0
    assert max(n_compared.values()) > 1


def test_ridges_mixers_and_voxel_tokens_are_the_references(
    model,
):
    """Golden values: outputs of ridge, mixer blocks and backbone_linear."""
    aligner_model, expected = model
    brain = aligner_model.backbone
    for index in range(len(aligner_model.layout.spec.subjects)):
        voxels, subject = read_signals(expected, index)
        with torch.no_grad():
            mapped = brain.ridge["linears"](voxels, subject)
            tokens, _ = brain.predict_with_voxel_tokens(voxels, subject)
        assert_near(mapped, expected[f"expected.ridge_subject{index}"][:, 0], TOLERANCE)
        expected_tokens = expected.get(f"expected.voxel_tokens_subject{index}")
        if expected_tokens is not None:
            assert_near(tokens, expected_tokens, TOLERANCE)

    with torch.no_grad():
        constants = [block(torch.zeros(1)) for block in brain.backbone.mixer_blocks2]
    assert_near(torch.cat(constants), expected["expected.mixer2_constants"], TOLERANCE)


def test_mixer_blocks_learn_with_their_dropout():
    torch.manual_seed(0)
    spec = SignalSpec((), 1, (1,), (3,))
    model = mindeye2.Config(hidden=500).build(spec, {"image": Head((2, 4))})
    blocks = model.backbone.mixer_blocks2
    signal = torch.randn(40, 3, 1)
    subject = torch.zeros(40, dtype=torch.long)
    for block in blocks:
        torch.nn.init.constant_(block[0].bias, 0.5)
    mapped = model.ridge["linears"](signal, subject)

    with torch.no_grad():
        added = model.backbone.mix(mapped) - mapped
        output = blocks[0](torch.zeros(40, 500, 1))
    model(signal, subject)["image"].square().mean().backward()

    # the dropout differs between rows and between units
    assert added.std(0).min() > 0
    assert added.std(1).min() > 0
    _, counts = output.unique(return_counts=True)
    assert counts.min() / counts.sum() == pytest.approx(0.15, abs=0.01)
    # LayerNorm's gain multiplies 0, and the other parameters learn
    idle = {n for n, p in blocks.named_parameters() if not p.grad.any()}
    assert idle == {f"{index}.0.weight" for index in range(4)}


@pytest.mark.parametrize("initialise", ["model", "part"])
def test_a_new_ridge_keeps_the_mixer_blocks_of_its_start(model, tmp_path, initialise):
    """Golden values: tokens for ridges of zeros, which depend on the mixers alone."""
    trained, expected = model
    layout = replace(trained.layout, spec=SignalSpec((), 1, (7,), (5,)))
    weight = expected["weights.backbone.backbone_linear.weight"]
    bias = expected["weights.backbone.backbone_linear.bias"]
    constant = expected["expected.mixer2_constants"].sum()
    expected_tokens = weight @ torch.full((weight.shape[1],), constant) + bias
    # the mixers have an effect
    effect = (constant * weight.sum(1)).abs().max()
    assert effect > 1e-3 * expected_tokens.abs().max()

    new_model = Aligner(layout).eval()
    ridge = new_model.backbone.ridge
    random_weight = ridge.linears["7"].weight.clone()
    if initialise == "model":
        load_start(new_model, tmp_path / "model")
    else:
        load_start(new_model, tmp_path / "model", "backbone.backbone")
    assert torch.equal(ridge.linears["7"].weight, random_weight)
    with torch.no_grad():
        for parameter in ridge.parameters():
            parameter.zero_()
        tokens, _ = new_model.backbone.predict_with_voxel_tokens(
            torch.randn(2, 5, 1), torch.zeros(2, dtype=torch.long)
        )
    assert_near(tokens.flatten(1), expected_tokens.expand(2, -1), TOLERANCE)


SPEC = SignalSpec((), 1, (1, 2), (3, 5))


def test_the_blurry_branch_is_the_references(golden, monkeypatch):
    """Golden values: MindEye1's feature maps, decoder and projector, whose layers are
    also MindEye2's.
    """
    config, expected = read(golden / "havir/structural.safetensors")
    monkeypatch.setattr(mindeye2, "BLURRY_FEATURES", config["channels"])
    channels = tuple(config["block_out_channels"])
    monkeypatch.setattr(mindeye2, "BLURRY_CHANNELS", channels)
    weights = {}
    for key, value in expected.items():
        weights[key.removeprefix("weights.")] = value.float()

    # the hidden vectors of MindEye1
    shape = (config["h"],)
    x = F.linear(expected["in.voxels"], weights["lin0.0.weight"])
    x = F.layer_norm(x, shape, weights["lin0.1.weight"], weights["lin0.1.bias"])
    x = F.silu(x)
    for index in range(config["n_blocks"]):
        mapped = F.linear(x, weights[f"mlp.{index}.0.weight"])
        gain = weights[f"mlp.{index}.1.weight"]
        bias = weights[f"mlp.{index}.1.bias"]
        x = x + F.silu(F.layer_norm(mapped, shape, gain, bias))

    # the branch with the weights of MindEye1, which has no first bias
    heads = {
        "blurry": Head(expected["out.latent"].shape[1:]),
        "maps": Head(expected["out.maps"].shape[1:]),
    }
    config_of_backbone = mindeye2.Config(hidden=config["h"])
    backbone = mindeye2.Backbone(config_of_backbone, 2, 4, heads).eval()
    new_names = {
        "lin1": "blin1",
        "norm": "bnorm",
        "upsampler": "bupsampler",
        "maps_projector": "b_maps_projector",
    }
    state = {"blin1.bias": torch.zeros(len(weights["lin1.weight"]))}
    for name, value in weights.items():
        module, _, suffix = name.partition(".")
        if module in new_names:
            state[f"{new_names[module]}.{suffix}"] = value
    other_modules = ("backbone_linear", "clip_proj", "mixer_blocks2")
    assert state.keys() == {
        name for name in backbone.state_dict() if not name.startswith(other_modules)
    }
    backbone.load_state_dict(state, strict=False)

    with torch.no_grad():
        predicted = backbone.predict_blurry(x)

    assert_near(predicted["blurry"], expected["out.latent"], TOLERANCE)
    assert_near(predicted["maps"], expected["out.maps"], TOLERANCE)


def test_other_heads_are_refused():
    with pytest.raises(BrainhiveError, match="mindeye2") as caught:
        mindeye2.TINY.build(SPEC, {"text": Head((4,))})
    assert "[S, D]" in caught.value.hint


def test_a_new_subject_is_refused():
    model = mindeye2.TINY.build(SPEC, {"image": Head((2, 4))})
    with pytest.raises(BrainhiveError, match="mindeye2") as caught:
        model(torch.randn(2, 3, 1), None)
    assert "mode=finetune" in caught.value.hint
