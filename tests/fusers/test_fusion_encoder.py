"""The fusion encoder as a fuser part."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.fusers.fusion_encoder import TINY, Config


def test_a_tiny_fuser_makes_a_token_of_two_embeddings():
    fuser = TINY.build({"clip-b32": 6, "vae": 4}, 8)

    assert fuser({"clip-b32": torch.randn(3, 6), "vae": torch.randn(3, 4)}).shape == (3, 8)


def test_the_references_weights_fit_and_give_its_token(shared: Path):
    """Golden values: the fusion encoder of the golden prior (BrainHiVE's repository)."""
    golden = shared / "golden" / "fusion_prior"
    state = load_file(golden / "prior" / "fusion_encoder" / "diffusion_pytorch_model.safetensors")
    expected = load_file(golden / "expected.safetensors")
    given = {k.removeprefix("embedding."): v for k, v in expected.items() if k.startswith("embedding.")}
    fuser = Config(intermediate_size=64).build({k: v.shape[-1] for k, v in given.items()}, 32).eval()
    prefix = "vision_model."
    fuser.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})

    with torch.no_grad():
        assert (fuser(given) - expected["fused"]).abs().max() < 1e-5


def test_other_encoders_are_refused_naming_both():
    with pytest.raises(BrainhiveError, match=r"made for vae \(4\), not for clip-b32 \(4\)"):
        TINY.build({"vae": 4}, 8)({"clip-b32": torch.zeros(1, 4)})
