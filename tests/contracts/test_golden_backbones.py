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


def assert_far(found: Tensor, expected: Tensor) -> None:
    assert (found - expected).abs().max() > 100 * TOLERANCE * expected.abs().max()


def saved_and_loaded(layout: Layout, weights: Golden, folder: Path) -> Aligner:
    """Give a backbone these weights, and bring the model through its folder."""
    made = Aligner(layout)
    made.backbone.load_state_dict(weights)
    made.save(folder)
    return aligner.load(folder)


def structural(config: dict[str, Any], golden: Golden, folder: Path) -> tuple[Aligner, Golden]:
    """MindEye1's low-level model, of the voxels of a region: those of the reference and some others."""
    width = config["in_dim"]
    region = tuple(range(1, 2 * width, 2))
    spec = SignalSpec((), 1, (5,), (2 * width,), regions={"early": (region,)})
    heads = {
        "latent": Head(tuple(golden["out.latent"].shape[1:]), "latent"),
        "maps": Head(tuple(golden["out.maps"].shape[1:]), "maps"),
    }
    backbone = {
        "kind": "tests.contracts.parts.structural",
        "region": "early",
        "hidden": config["h"],
        "blocks": config["n_blocks"],
        "features": config["channels"],
        "channels": config["block_out_channels"],
        "layers": config["layers_per_block"],
        "groups": config["norm_num_groups"],
    }
    weights = {
        name.removeprefix("weights.").replace("lin0.", "lin0.5."): value.float()
        for name, value in golden.items()
        if name.startswith("weights.")
    }
    model = saved_and_loaded(Layout(spec, heads, backbone, retrieval_heads=("maps",)), weights, folder)
    return model, golden


def test_a_low_level_model_gives_the_references_latent_and_maps(golden: Path, tmp_path: Path) -> None:
    """Golden values: MindEye1's Voxel2StableDiffusionModel at tiny widths."""
    model, expected = structural(*read(golden / "havir" / "structural.safetensors"), tmp_path)
    voxels = expected["in.voxels"]
    signal = torch.randn(len(voxels), 2 * voxels.shape[1], 1)
    signal[:, 1::2, 0] = voxels
    subject = torch.zeros(len(voxels), dtype=torch.long)

    decoded = model.decode(signal, subject, range(len(voxels)))
    other = model.decode(signal.flip(0), subject, range(len(voxels)))

    assert_near(decoded.tensors["latent"], expected["out.latent"])
    assert_near(decoded.tensors["maps"], expected["out.maps"])
    assert_far(other.tensors["latent"], expected["out.latent"])
    with torch.no_grad():
        assert torch.equal(model.encode_signal(signal, subject), decoded.tensors["maps"].flatten(1))


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
