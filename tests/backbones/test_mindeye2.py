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
from brainhive_cli.alignment.initialisation import take_over
from brainhive_cli.alignment.layout import Layout
from brainhive_cli.alignment.model import Aligner
from brainhive_cli.alignment.starts import Start
from brainhive_cli.backbones import mindeye2
from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.core.heads import Head
from brainhive_cli.core.signal_spec import SignalSpec

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
        Start(tmp_path / "model", "backbone.backbone").give(new)
    else:
        take_over(new, tmp_path / "model")

    with torch.no_grad():
        for parameter in new.backbone.ridge.parameters():
            parameter.zero_()
        tokens = new.backbone.voxel_tokens(torch.randn(2, 5, 1), torch.zeros(2, dtype=torch.long))
    weight, bias = (expected[f"weights.backbone.backbone_linear.{name}"] for name in ("weight", "bias"))
    constant = expected["expected.mixer2_constants"].sum()
    assert_near(tokens.flatten(1), (weight @ torch.full((weight.shape[1],), constant) + bias).expand(2, -1))
    assert (constant * weight.sum(1)).abs().max() > 0.05  # so that without the constant they are others


SPEC = SignalSpec((), 1, (1, 2), (3, 5))


def test_a_subject_without_a_ridge_or_with_other_voxels_is_refused() -> None:
    made = mindeye2.TINY.build(SPEC, {"image": Head((2, 4))})

    with pytest.raises(BrainhiveError, match="ridge of subject 1, 2 alone"):
        made(torch.randn(2, 3, 1), None)
    with pytest.raises(BrainhiveError, match=r"signals \[B, 5, 1\]"):
        made(torch.randn(2, 3, 1), torch.tensor([1, 1]))


@pytest.mark.parametrize("heads", [{"text": Head((4,))}, {"image": Head((2, 4)), "latent": Head((4, 2, 2))}])
def test_heads_that_are_no_tokens_and_text_are_refused(heads: dict[str, Head]) -> None:
    with pytest.raises(RecipeError, match="mindeye2 predicts tokens and text"):
        mindeye2.TINY.build(SPEC, heads)
