"""Brain models of the systems to come load and run as backbones, with their references' weights."""

import json
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
from brainhive_cli.core.heads import Head
from brainhive_cli.core.signal_spec import SignalSpec

TOLERANCE = 1e-4
"""Of the largest value: the golden folder calls it safe."""
Golden = dict[str, Tensor]


def read(path: Path) -> tuple[dict[str, Any], Golden]:
    with safe_open(path, "pt") as file:
        config: dict[str, Any] = json.loads(file.metadata()["config"])
        return config, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def assert_near(found: Tensor, expected: Tensor) -> None:
    assert (found - expected).abs().max() < TOLERANCE * expected.abs().max()


def saved_and_loaded(layout: Layout, weights: Golden, folder: Path) -> Aligner:
    """Give a backbone these weights, and bring the model through its folder."""
    made = Aligner(layout)
    made.backbone.load_state_dict(weights)
    made.save(folder)
    return aligner.load(folder)


@pytest.fixture
def mixer(golden: Path, tmp_path: Path) -> tuple[Aligner, Golden]:
    """NEURONS' brain model of two subjects of different widths, through its folder."""
    config, expected = read(golden / "neurons" / "brain_model.safetensors")
    widths = tuple(config["ridge_inputs"])
    spec = SignalSpec((), config["seq_len"], tuple(range(len(widths))), widths)
    heads = {
        "tokens": Head((config["tokens"], config["clip_size"]), "big-g"),
        "text": Head((config["text_dim"],), "captions"),
    }
    backbone = {
        "kind": "tests.contracts.parts.mixer",
        "hidden": config["h"],
        "blocks": config["n_blocks"],
        "dropout": config["drop"],
    }
    weights = {
        name.removeprefix("weights."): value
        for name, value in expected.items()
        if name.startswith("weights.")
    }
    layout = Layout(spec, heads, backbone, retrieval_heads=("tokens",))
    return saved_and_loaded(layout, weights, tmp_path / "model"), expected


def test_a_brain_model_of_subjects_of_two_widths_gives_the_references_heads(
    mixer: tuple[Aligner, Golden],
) -> None:
    """Golden values: NEURONS' ridge, backbone and text projection, from its brain_model."""
    model, expected = mixer

    for place in range(len(model.layout.spec.subjects)):
        voxels = expected[f"input.voxels_subject{place}"].transpose(1, 2)  # [B, V, 1]
        subject = torch.full((len(voxels),), place)
        with torch.no_grad():
            predicted = model.predict(voxels, subject)
        assert_near(predicted["tokens"], expected[f"expected.clip_tokens_subject{place}"])
        if (name := f"expected.text_subject{place}") in expected:
            assert_near(predicted["text"], expected[name])
        assert model.encode_signal(voxels, subject).shape == (len(voxels), predicted["tokens"][0].numel())


def test_a_new_subject_gets_a_ridge_of_its_own_and_the_shared_part(
    mixer: tuple[Aligner, Golden], tmp_path: Path
) -> None:
    learned, _ = mixer
    spec = SignalSpec((), 1, (7, 1), (5, learned.layout.spec.widths[1]))
    new = Aligner(replace(learned.layout, spec=spec))
    before = new.backbone.ridge.linears["7"].weight.clone()

    take_over(new, tmp_path / "model")

    found, known = new.state_dict(), learned.state_dict()
    assert torch.equal(new.backbone.ridge.linears["7"].weight, before)
    shared = found.keys() & known.keys()
    assert found.keys() - shared == {f"backbone.ridge.linears.7.{name}" for name in ("weight", "bias")}
    assert all(torch.equal(found[name], known[name]) for name in shared)
