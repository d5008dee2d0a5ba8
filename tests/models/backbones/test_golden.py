"""Every brain encoder of BrainHiVE gives the reference implementation's output for its
weights.
"""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from brainhive_cli.core import parts
from brainhive_cli.training.alignment.layout import KINDS

TOLERANCE = 1e-5
"""Of float32 sums in another order."""
SUBJECTS = "encoder.enc_embedding.subject_embedding.subject_embedding.weight"
"""A row for each subject, where there are any."""


@pytest.mark.parametrize("kind", KINDS)
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
