"""The fusion encoder as a fuser part."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.models.fusers import TINY, FusionEncoderConfig


def test_a_tiny_fuser_makes_a_token_of_two_embeddings():
    fuser = TINY["fusion-encoder"].build({"clip-b32": 6, "vae": 4}, 8)

    assert fuser({"clip-b32": torch.randn(3, 6), "vae": torch.randn(3, 4)}).shape == (3, 8)


def test_the_references_weights_fit_and_give_its_token(golden: Path):
    """Golden values: the fusion encoder of the golden prior (BrainHiVE's repository)."""
    folder = golden / "fusion_prior" / "prior" / "fusion_encoder"
    state = load_file(folder / "diffusion_pytorch_model.safetensors")
    sizes = json.loads((folder / "config.json").read_text())
    expected = load_file(golden / "fusion_prior" / "expected.safetensors")
    given = {k.removeprefix("embedding."): v for k, v in expected.items() if k.startswith("embedding.")}
    dims = {k: v.shape[-1] for k, v in given.items()}
    fuser = (
        FusionEncoderConfig(intermediate_size=sizes["intermediate_size"])
        .build(dims, sizes["hidden_size"])
        .eval()
    )
    prefix = "vision_model."
    fuser.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})

    with torch.no_grad():
        assert (fuser(given) - expected["fused"]).abs().max() < 1e-5


def test_other_encoders_are_refused_naming_both():
    with pytest.raises(BrainhiveError, match=r"made for vae \(4\), not for clip-b32 \(4\)"):
        TINY["fusion-encoder"].build({"vae": 4}, 8)({"clip-b32": torch.zeros(1, 4)})
