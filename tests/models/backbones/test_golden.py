"""Outputs of backbones with the weights of their reference implementations."""

import pytest
import torch
from safetensors.torch import load_file

from brainhive_cli.core.recipes import parts
from brainhive_cli.training.alignment.layout import UPSTREAM_BACKBONES

TOLERANCE = 1e-5
"""Largest difference of float32 sums in another order."""
SUBJECT_EMBEDDING = "encoder.enc_embedding.subject_embedding.subject_embedding.weight"
"""Name of ATM's weight, with a row for each subject."""


def weights_of(reference):
    """Return the reference's weights by name."""
    prefix = "weights."
    weights = {}
    for key, value in reference.items():
        if key.startswith(prefix):
            weights[key.removeprefix(prefix)] = value
    return weights


@pytest.mark.parametrize("kind", UPSTREAM_BACKBONES)
def test_a_backbone_with_the_references_weights_gives_its_output(golden, kind):
    """Golden values: the BrainHiVE repository's encoders in evaluation mode."""
    reference = load_file(golden / "backbones" / f"{kind}.safetensors")
    weights = weights_of(reference)
    _, channels, samples = reference["signal"].shape
    dim = reference["output"].shape[1]
    n_subjects = len(weights.get(SUBJECT_EMBEDDING, [()]))
    config = parts.load("backbones", kind).Config()
    model = config.build(channels, samples, dim, subjects=n_subjects).eval()
    model.load_state_dict(weights)

    with torch.no_grad():
        output = model(reference["signal"], reference["subject_index"])
        backwards = model(reference["signal"].flip(-1), reference["subject_index"])

    assert (output - reference["output"]).abs().max() < TOLERANCE
    assert (backwards - reference["output"]).abs().max() > 100 * TOLERANCE


NEW_NAMES = {
    "bridge_brain": {"attn.": "attention.", "block.w": "block.ff.w"},
    "blur_encoder": {
        "eeg_encoder.": "time.",
        "eeg_adapter.0.": "project.",
        "spatial_conv.": "spatial.",
        "bn.": "norm.",
    },
}
"""Prefixes of our names of the weights of BRIDGE and of Visual Blur Perception."""


def read_renamed(golden, name):
    """Read the tensors of a published method, and its weights by our names."""
    reference = load_file(golden / "methods" / f"{name}.safetensors")
    weights = {}
    for key, value in weights_of(reference).items():
        new_key = key
        for old_prefix, new_prefix in NEW_NAMES[name].items():
            if key.startswith(old_prefix):
                new_key = key.replace(old_prefix, new_prefix, 1)
        weights[new_key] = value
    return reference, weights


def build_with_weights(settings, signal, dim, weights):
    """Make a backbone for a signal, with the reference's weights."""
    _, channels, samples = signal.shape
    config = parts.resolve("backbones", settings)
    model = config.build(channels, samples, dim).eval()
    state = model.state_dict()
    for name in state.keys() & weights.keys():
        state[name] = weights[name]
    model.load_state_dict(state)
    return model


@pytest.fixture
def bridge(golden):
    """BRIDGE's brain encoder with the reference's weights, and the golden tensors."""
    reference, weights = read_renamed(golden, "bridge_brain")
    settings = {
        "kind": "segments",
        "segments": len(reference["segments"]),
        "hidden": len(weights["block.ff.w1.weight"]),
    }
    dim = reference["expected.token"].shape[1]
    model = build_with_weights(settings, reference["signal"], dim, weights)
    return model, reference


def test_segments_give_bridges_token(bridge):
    model, reference = bridge

    token = model(reference["signal"])

    assert (token - reference["expected.token"]).abs().max() < TOLERANCE


def test_the_spatial_mlp_gives_the_token_of_blur_perception(golden):
    reference, weights = read_renamed(golden, "blur_encoder")
    weights["spatial.weight"] = weights["spatial.weight"][:, 0]
    settings = {
        "kind": "spatial-mlp",
        "filters": len(weights["spatial.weight"]),
        "hidden": len(weights["time.0.bias"]),
    }
    expected = reference["expected.signal_token"]
    signal = reference["signal"]
    model = build_with_weights(settings, signal, expected.shape[1], weights)

    assert (model(signal) - expected).abs().max() < TOLERANCE


def test_the_window_has_bridges_segments(bridge):
    """Golden values: the first sample of each segment, and the first after it."""
    model, reference = bridge

    starts, stops = reference["segments"].T

    assert model.lengths == (stops - starts).tolist()
    assert starts[0] == 0
    assert torch.equal(starts[1:], stops[:-1])


def test_segments_have_bridges_attention(bridge):
    """Golden values: the softmax of the scores over segments."""
    model, reference = bridge
    scores = []
    model.attention.register_forward_hook(
        lambda *arguments: scores.append(arguments[-1])
    )

    model(reference["signal"])

    # scores are logarithms up to a constant per signal
    logarithms = reference["expected.attention"].log()
    difference = scores[0][..., 0] - logarithms
    assert (difference - difference[:, :1]).abs().max() < TOLERANCE
