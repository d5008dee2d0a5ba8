"""Every brain encoder of BrainHiVE gives the reference implementation's output for its weights."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from brainhive_cli.alignment.upstream import KINDS
from brainhive_cli.core import parts

TOLERANCE = 1e-5
"""The brief of the golden values: float32, other order of summation."""


@pytest.mark.parametrize("kind", KINDS)
def test_a_backbone_with_the_references_weights_gives_its_output(shared: Path, kind: str):
    """Golden values: the BrainHiVE repository's encoders in evaluation mode, C 17, T 250, D 32."""
    golden = load_file(shared / "golden" / "backbones" / f"{kind}.safetensors")
    weights = {k.removeprefix("weights."): v for k, v in golden.items() if k.startswith("weights.")}
    model = parts.load("backbones", kind).Config().build(17, 250, 32, subjects=10).eval()
    model.load_state_dict(weights)

    with torch.no_grad():
        output = model(golden["signal"], golden["subject_index"])
        backwards = model(golden["signal"].flip(-1), golden["subject_index"])

    assert (output - golden["output"]).abs().max() < TOLERANCE
    assert (backwards - golden["output"]).abs().max() > 100 * TOLERANCE
