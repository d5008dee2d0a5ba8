"""HAVIR's backbone: the reference's outputs with its weights, two streams, subjects of
any width.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from brainhive_cli import aligner
from brainhive_cli.models import backbones
from brainhive_cli.models.backbones.havir import TINY
from brainhive_cli.models.heads import Head
from brainhive_cli.models.signal_spec import SignalSpec
from brainhive_cli.training.alignment.layout import Layout
from brainhive_cli.training.alignment.model import Aligner
from tests.tools.golden_files import assert_near, read

Golden = dict[str, Tensor]
SPLIT = {"spatial": ((0, 2), (1, 2, 3)), "semantic": ((1, 3, 4), (0,))}
SPEC = SignalSpec((), 1, (4, 7), (5, 4), regions=SPLIT)
HEADS = {"latent": Head((4, 8, 8), "vae"), "maps": Head((16, 6), "maps")}
HEADS |= {"image": Head((3, 5), "image"), "text": Head((2, 5), "text")}


def loaded(
    layout: Layout, golden: Golden, names: dict[str, str], folder: Path
) -> Aligner:
    """Give a backbone the reference's weights, and bring the model through its
    folder.
    """
    weights = {
        name.removeprefix("weights."): each
        for name, each in golden.items()
        if "weights." in name
    }
    made = Aligner(layout)
    state = {}
    for name, value in weights.items():
        old = next(old for old in names if name.startswith(old))
        state[names[old] + name.removeprefix(old)] = value
    made.backbone.load_state_dict(state)
    made.save(folder)
    return aligner.load(folder)


def among_others(voxels: Tensor) -> Tensor:
    """Signals [B, 2 V, 1], of which every second voxel is one of these [B, V]."""
    signal = torch.randn(len(voxels), 2 * voxels.shape[1], 1)
    signal[:, 1::2, 0] = voxels
    return signal


def spec_of_every_second(width: int, region: str) -> SignalSpec:
    return SignalSpec(
        (), 1, (5,), (2 * width,), regions={region: (tuple(range(1, 2 * width, 2)),)}
    )


def test_the_structural_generator_gives_the_references_latent_and_maps(
    golden: Path, tmp_path: Path
) -> None:
    """Golden values: MindEye1's Voxel2StableDiffusionModel at tiny widths."""
    config, expected = read(golden / "havir/structural.safetensors")
    heads = {
        name: Head(tuple(expected[f"out.{name}"].shape[1:]), name)
        for name in ("latent", "maps")
    }
    backbone = {"kind": "havir", "hidden": config["h"], "blocks": config["n_blocks"]}
    backbone |= {
        "features": config["channels"],
        "decoder_channels": config["block_out_channels"],
    }
    backbone |= {
        "decoder_layers": config["layers_per_block"],
        "decoder_groups": config["norm_num_groups"],
    }
    spec = spec_of_every_second(config["in_dim"], "spatial")
    layout = Layout(spec, heads, backbone, retrieval_heads=("maps",))
    names = {"lin0.": "inputs.spatial.5.", "": "structural."}
    model = loaded(layout, expected, names, tmp_path)
    signal = among_others(expected["in.voxels"])
    subject = torch.zeros(len(signal), dtype=torch.long)

    decoded = model.decode(signal, subject, range(len(signal)))

    assert_near(decoded.tensors["latent"], expected["out.latent"])
    assert_near(decoded.tensors["maps"], expected["out.maps"])
    with torch.no_grad():
        assert torch.equal(
            model.encode_signal(signal, subject), decoded.tensors["maps"].flatten(1)
        )
        other = model.predict(signal.flip(0), subject)
    assert (other["latent"] - expected["out.latent"]).abs().max() > 0.01


def test_the_semantic_extractor_gives_the_references_tokens_and_retrieves_by_either(
    golden: Path, tmp_path: Path
) -> None:
    """Golden values: MindEye1's BrainNetwork with its projector at tiny widths."""
    config, expected = read(golden / "havir/semantic.safetensors")
    shape = (config["tokens"], config["clip_size"])
    heads = {name: Head(shape, "clip") for name in ("image", "image_projected")}
    sizes = {
        "hidden": config["h"],
        "blocks": config["n_blocks"],
        "projector": config["projector_hidden"],
    }
    spec = spec_of_every_second(config["in_dim"], "semantic")
    layout = Layout(
        spec, heads, {"kind": "havir", **sizes}, retrieval_heads=("image_projected",)
    )
    names = {"lin0.": "inputs.semantic.5.", "lin1.": "semantic.lin1.image."}
    names |= {"projector.": "semantic.projector.image.", "": "semantic."}
    model = loaded(layout, expected, names, tmp_path)
    signal = among_others(expected["in.voxels"])
    subject = torch.zeros(len(signal), dtype=torch.long)

    with torch.no_grad():
        found = model.predict(signal, subject)
        compared = model.encode_signal(signal, subject)

    assert_near(found["image"].flatten(1), expected["out.backbone"])
    assert_near(found["image_projected"], expected["out.projected"])
    assert torch.equal(compared, found["image_projected"].flatten(1))


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    return backbones.build(TINY, SPEC, HEADS).eval()


def test_each_head_depends_on_the_voxels_of_its_stream_alone(model: Any) -> None:
    signal = torch.randn(2, 5, 1, requires_grad=True)
    of_subject = torch.zeros(2, dtype=torch.long)
    streams = {
        "latent": "spatial",
        "maps": "spatial",
        "image": "semantic",
        "text": "semantic",
    }

    for head, stream in streams.items():
        (gradient,) = torch.autograd.grad(
            model(signal, of_subject)[head].square().sum(), signal
        )
        touched = gradient.abs().sum((0, 2)).nonzero().flatten().tolist()
        assert touched == list(SPLIT[stream][0])


def test_subjects_of_one_width_get_their_own_regions_and_input_layers() -> None:
    spec = replace(SPEC, widths=(5, 5))
    model = backbones.build(TINY, spec, HEADS).eval()
    signal, subject = torch.randn(4, 5, 1), torch.tensor([1, 0, 0, 1])

    together = model(signal, subject)

    for row in range(4):
        alone = model(signal[row : row + 1], subject[row : row + 1])
        for head in HEADS:
            torch.testing.assert_close(together[head][row], alone[head][0])
