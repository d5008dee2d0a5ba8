"""Embeddings as targets, concatenated or as separate heads."""

import pytest
import torch
import torch.nn.functional as F

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.models.fusers import TINY, ConcatenationConfig

DIMS = {"vae": 4, "clip-b32": 6}


@pytest.fixture
def embeddings() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    # in another order than DIMS
    return {"clip-b32": torch.randn(3, 6), "vae": 50 * torch.randn(3, 4)}


def test_embeddings_are_concatenated_or_remain_separate_heads(
    embeddings: dict[str, torch.Tensor],
):
    one = ConcatenationConfig(normalise=False).build({"vae": 4}, 4)
    plain, unit = (
        ConcatenationConfig(normalise=on).build(DIMS, 10)(embeddings).split([4, 6], -1)
        for on in (False, True)
    )
    heads = TINY["heads"].build(DIMS, 10)(embeddings)

    assert torch.equal(one({"vae": embeddings["vae"]}), embeddings["vae"]) and not list(
        one.parameters()
    )
    assert torch.equal(plain[0], embeddings["vae"]) and torch.equal(
        plain[1], embeddings["clip-b32"]
    )
    assert torch.allclose(unit[0], F.normalize(embeddings["vae"], dim=-1))
    assert torch.allclose(unit[1].norm(dim=-1), torch.ones(3))
    assert heads.keys() == DIMS.keys() and all(
        heads[key] is embeddings[key] for key in DIMS
    )
    widths = {
        kind: TINY[kind].token_dim(DIMS, 8)
        for kind in ("concatenation", "heads", "fusion-encoder")
    }
    assert widths == {"concatenation": 10, "heads": 10, "fusion-encoder": 8}


def test_other_encoders_are_refused():
    with pytest.raises(
        BrainhiveError, match=r"made for .*vae \(4\), not for vae \(4\)"
    ):
        TINY["concatenation"].build(DIMS, 10)({"vae": torch.zeros(1, 4)})
