"""Every brain encoder of BrainHiVE gives the reference implementation's output for its
weights.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from brainhive_cli.core import parts
from brainhive_cli.training.alignment.layout import UPSTREAM_BACKBONES

TOLERANCE = 1e-5
"""Of float32 sums in another order."""
SUBJECTS = "encoder.enc_embedding.subject_embedding.subject_embedding.weight"
"""A row for each subject, where there are any."""


@pytest.mark.parametrize("kind", UPSTREAM_BACKBONES)
def test_a_backbone_with_the_references_weights_gives_its_output(
    golden: Path, kind: str
):
    """Golden values: the BrainHiVE repository's encoders in evaluation mode."""
    reference = load_file(golden / "backbones" / f"{kind}.safetensors")
    weights = {
        k.removeprefix("weights."): v
        for k, v in reference.items()
        if k.startswith("weights.")
    }
    (_, channels, samples), (_, dim) = (
        reference["signal"].shape,
        reference["output"].shape,
    )
    subjects = len(weights.get(SUBJECTS, [()]))
    model = (
        parts.load("backbones", kind)
        .Config()
        .build(channels, samples, dim, subjects=subjects)
        .eval()
    )
    model.load_state_dict(weights)

    with torch.no_grad():
        output = model(reference["signal"], reference["subject_index"])
        backwards = model(reference["signal"].flip(-1), reference["subject_index"])

    assert (output - reference["output"]).abs().max() < TOLERANCE
    assert (backwards - reference["output"]).abs().max() > 100 * TOLERANCE


RENAMED = {
    "bridge_brain": {"attn.": "attention.", "block.w": "block.ff.w"},
    "blur_encoder": {"eeg_encoder.": "time.", "eeg_adapter.0.": "project."}
    | {"spatial_conv.": "spatial.", "bn.": "norm."},
}
"""Our names of the weights of BRIDGE and of Visual Blur Perception."""


def read_renamed(
    golden: Path, name: str
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Read the tensors of a published method, and its weights by our names."""
    reference = load_file(golden / "methods" / f"{name}.safetensors")
    weights = {
        k.removeprefix("weights."): v
        for k, v in reference.items()
        if k.startswith("weights.")
    }
    for theirs, ours in RENAMED[name].items():
        weights = {
            k.replace(theirs, ours, 1) if k.startswith(theirs) else k: v
            for k, v in weights.items()
        }
    return reference, weights


@pytest.mark.parametrize(
    ("kind", "name", "token"),
    [
        ("segments", "bridge_brain", "token"),
        ("spatial-mlp", "blur_encoder", "signal_token"),
    ],
)
def test_a_backbone_of_another_method_gives_its_token(
    golden: Path, kind: str, name: str, token: str
):
    reference, weights = read_renamed(golden, name)
    (_, channels, samples), (_, dim) = (
        reference["signal"].shape,
        reference[f"expected.{token}"].shape,
    )
    if kind == "segments":
        knobs = {
            "segments": len(reference["segments"]),
            "hidden": len(weights["block.ff.w1.weight"]),
        }
    else:
        weights["spatial.weight"] = weights["spatial.weight"][:, 0]
        knobs = {
            "filters": len(weights["spatial.weight"]),
            "hidden": len(weights["time.0.bias"]),
        }
    model = (
        parts.resolve("backbones", {"kind": kind, **knobs})
        .build(channels, samples, dim)
        .eval()
    )
    state = model.state_dict()
    model.load_state_dict(state | {k: v for k, v in weights.items() if k in state})

    assert (
        model(reference["signal"]) - reference[f"expected.{token}"]
    ).abs().max() < TOLERANCE


@pytest.fixture
def bridge(golden: Path) -> tuple[Any, dict[str, Tensor]]:
    """BRIDGE's brain encoder with the reference's weights, and the golden tensors."""
    reference, weights = read_renamed(golden, "bridge_brain")
    (_, channels, samples), (_, dim) = (
        reference["signal"].shape,
        reference["expected.token"].shape,
    )
    knobs = {
        "segments": len(reference["segments"]),
        "hidden": len(weights["block.ff.w1.weight"]),
    }
    config = parts.resolve("backbones", {"kind": "segments", **knobs})
    model = config.build(channels, samples, dim).eval()
    state = model.state_dict()
    model.load_state_dict(state | {k: v for k, v in weights.items() if k in state})
    return model, reference


def test_the_window_has_bridges_segments(bridge: tuple[Any, dict[str, Tensor]]):
    """Golden values: the first sample of each segment, and the first behind it."""
    model, reference = bridge

    starts, stops = reference["segments"].T

    assert model.lengths == (stops - starts).tolist()
    assert starts[0] == 0 and torch.equal(starts[1:], stops[:-1])


def test_segments_have_bridges_attention(bridge: tuple[Any, dict[str, Tensor]]):
    """Golden values: the softmax of the scores over segments."""
    model, reference = bridge
    scores: list[Tensor] = []
    model.attention.register_forward_hook(lambda *each: scores.append(each[-1]))

    model(reference["signal"])

    # scores are logarithms up to a constant of each signal
    logarithms = reference["expected.attention"].log()
    difference = scores[0][..., 0] - logarithms
    assert (difference - difference[:, :1]).abs().max() < TOLERANCE
