"""The encoders' own features as the target: joined, or as heads."""

import pytest
import torch
import torch.nn.functional as F

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.models.fusers import TINY, ConcatenationConfig

DIMS = {"vae": 4, "clip-b32": 6}


@pytest.fixture
def embeddings() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {"clip-b32": torch.randn(3, 6), "vae": 50 * torch.randn(3, 4)}  # in another order than DIMS


def test_one_encoders_features_are_the_token(embeddings: dict[str, torch.Tensor]):
    fuser = ConcatenationConfig(normalise=False).build({"vae": 4}, 4)

    assert torch.equal(fuser({"vae": embeddings["vae"]}), embeddings["vae"])
    assert not list(fuser.parameters())


def test_several_are_joined_in_the_order_of_the_encoders(embeddings: dict[str, torch.Tensor]):
    plain, unit = (
        ConcatenationConfig(normalise=on).build(DIMS, 10)(embeddings).split([4, 6], -1)
        for on in (False, True)
    )

    assert torch.equal(plain[0], embeddings["vae"]) and torch.equal(plain[1], embeddings["clip-b32"])
    assert torch.allclose(unit[0], F.normalize(embeddings["vae"], dim=-1))
    assert torch.allclose(unit[1].norm(dim=-1), torch.ones(3))


def test_heads_leave_each_encoders_features_by_themselves(embeddings: dict[str, torch.Tensor]):
    found = TINY["heads"].build(DIMS, 10)(embeddings)

    assert found.keys() == DIMS.keys() and all(found[key] is embeddings[key] for key in DIMS)


def test_a_token_is_as_wide_as_its_fuser_says():
    assert TINY["concatenation"].token_dim(DIMS, 8) == TINY["heads"].token_dim(DIMS, 8) == 10
    assert TINY["fusion-encoder"].token_dim(DIMS, 8) == 8


def test_another_width_or_other_encoders_are_refused():
    with pytest.raises(BrainhiveError, match="make no token of 8") as caught:
        TINY["concatenation"].build(DIMS, 8)
    assert caught.value.hint == "dim=10"
    with pytest.raises(BrainhiveError, match=r"made for .*vae \(4\), not for vae \(4\)"):
        TINY["concatenation"].build(DIMS, 10)({"vae": torch.zeros(1, 4)})
