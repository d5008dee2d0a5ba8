"""Every brain encoder of BrainHiVE gives the reference implementation's output for its weights."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from brainhive_cli.core import parts
from brainhive_cli.training.alignment.published_models import KINDS

TOLERANCE = 1e-5
"""Of float32 sums in another order."""
SUBJECTS = "encoder.enc_embedding.subject_embedding.subject_embedding.weight"
"""A row for each subject, where there are any."""


@pytest.mark.parametrize("kind", KINDS)
def test_a_backbone_with_the_references_weights_gives_its_output(golden: Path, kind: str):
    """Golden values: the BrainHiVE repository's encoders in evaluation mode."""
    reference = load_file(golden / "backbones" / f"{kind}.safetensors")
    weights = {k.removeprefix("weights."): v for k, v in reference.items() if k.startswith("weights.")}
    (_, channels, samples), (_, dim) = reference["signal"].shape, reference["output"].shape
    subjects = len(weights.get(SUBJECTS, [()]))
    model = parts.load("backbones", kind).Config().build(channels, samples, dim, subjects=subjects).eval()
    model.load_state_dict(weights)

    with torch.no_grad():
        output = model(reference["signal"], reference["subject_index"])
        backwards = model(reference["signal"].flip(-1), reference["subject_index"])

    assert (output - reference["output"]).abs().max() < TOLERANCE
    assert (backwards - reference["output"]).abs().max() > 100 * TOLERANCE
