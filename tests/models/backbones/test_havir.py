"""HAVIR's networks compared with the reference, and its two streams."""

import pytest
import torch
from torch import Tensor

from brainhive_cli import aligner
from brainhive_cli.models import Head, SignalSpec, backbones
from brainhive_cli.models.backbones.havir import TINY
from brainhive_cli.training.alignment import Aligner, Layout
from tests.tools.golden_files import assert_near, read

Golden = dict[str, Tensor]
SPLIT = {"spatial": ((0, 2), (1, 2, 3)), "semantic": ((1, 3, 4), (0,))}
SPEC = SignalSpec((), 1, (4, 7), (5, 4), regions=SPLIT)
HEADS = {"latent": Head((4, 8, 8), "vae"), "maps": Head((16, 6), "maps")}
HEADS |= {"image": Head((3, 5), "image"), "text": Head((2, 5), "text")}


def load_reference(layout, golden, new_prefixes, folder):
    """Make a model with the reference's weights, save it and load it.

    Args:
        layout: Layout of the model.
        golden: Golden tensors, with the weights.
        new_prefixes: Prefixes of our names, by the reference's prefixes. The first that
            matches is replaced.
        folder: Folder of the model.
    """
    state = {}
    for key, value in golden.items():
        if "weights." not in key:
            continue
        name = key.removeprefix("weights.")
        for old_prefix, new_prefix in new_prefixes.items():
            if name.startswith(old_prefix):
                state[new_prefix + name.removeprefix(old_prefix)] = value
                break
    model = Aligner(layout)
    model.backbone.load_state_dict(state)
    model.save(folder)
    return aligner.load(folder)


def interleave(voxels):
    """Make signals [B, 2 V, 1] whose odd voxels are given voxels [B, V]."""
    signal = torch.randn(len(voxels), 2 * voxels.shape[1], 1)
    signal[:, 1::2, 0] = voxels
    return signal


def spec_of_odd_voxels(n_voxels, region):
    """Describe the signals of `interleave`, whose odd voxels are a region."""
    indices = tuple(range(1, 2 * n_voxels, 2))
    return SignalSpec((), 1, (5,), (2 * n_voxels,), regions={region: (indices,)})


def test_the_structural_generator_is_the_references(golden, tmp_path):
    """Golden values: MindEye1's Voxel2StableDiffusionModel at tiny widths."""
    config, expected = read(golden / "havir/structural.safetensors")
    heads = {}
    for name in ("latent", "maps"):
        heads[name] = Head(tuple(expected[f"out.{name}"].shape[1:]), name)
    backbone = {
        "kind": "havir",
        "hidden": config["h"],
        "blocks": config["n_blocks"],
        "features": config["channels"],
        "decoder_channels": config["block_out_channels"],
        "decoder_layers": config["layers_per_block"],
        "decoder_groups": config["norm_num_groups"],
    }
    spec = spec_of_odd_voxels(config["in_dim"], "spatial")
    layout = Layout(spec, heads, backbone, retrieval_heads=("maps",))
    new_prefixes = {"lin0.": "inputs.spatial.5.", "": "structural."}
    model = load_reference(layout, expected, new_prefixes, tmp_path)
    signal = interleave(expected["in.voxels"])
    subject = torch.zeros(len(signal), dtype=torch.long)

    decoded = model.decode(signal, subject, range(len(signal)))
    with torch.no_grad():
        token = model.encode_signal(signal, subject)
        flipped_predictions = model.predict(signal.flip(0), subject)

    assert_near(decoded.tensors["latent"], expected["out.latent"])
    assert_near(decoded.tensors["maps"], expected["out.maps"])
    assert torch.equal(token, decoded.tensors["maps"].flatten(1))
    assert (flipped_predictions["latent"] - expected["out.latent"]).abs().max() > 0.01


def test_the_semantic_extractor_is_the_references(golden, tmp_path):
    """Golden values: MindEye1's BrainNetwork with its projector at tiny widths."""
    config, expected = read(golden / "havir/semantic.safetensors")
    shape = (config["tokens"], config["clip_size"])
    heads = {name: Head(shape, "clip") for name in ("image", "image_projected")}
    backbone = {
        "kind": "havir",
        "hidden": config["h"],
        "blocks": config["n_blocks"],
        "projector": config["projector_hidden"],
    }
    spec = spec_of_odd_voxels(config["in_dim"], "semantic")
    layout = Layout(spec, heads, backbone, retrieval_heads=("image_projected",))
    new_prefixes = {
        "lin0.": "inputs.semantic.5.",
        "lin1.": "semantic.lin1.image.",
        "projector.": "semantic.projector.image.",
        "": "semantic.",
    }
    model = load_reference(layout, expected, new_prefixes, tmp_path)
    signal = interleave(expected["in.voxels"])
    subject = torch.zeros(len(signal), dtype=torch.long)

    with torch.no_grad():
        predicted = model.predict(signal, subject)
        token = model.encode_signal(signal, subject)

    assert_near(predicted["image"].flatten(1), expected["out.backbone"])
    assert_near(predicted["image_projected"], expected["out.projected"])
    assert torch.equal(token, predicted["image_projected"].flatten(1))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return backbones.build(TINY, SPEC, HEADS).eval()
