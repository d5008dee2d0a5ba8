"""Heads: named outputs of any shape, cut from one vector, compared, and refused where they do not match."""

import pytest
import torch

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.models import heads
from brainhive_cli.models.heads import Head

TWO = {"latent": Head((4, 2, 2), "vae", "abc"), "token": Head((3,), "clip")}


def test_one_vector_is_cut_into_heads_in_their_order() -> None:
    values = torch.arange(2 * 19.0).view(2, 19)

    found = heads.split(values, TWO)

    assert found["latent"].shape == (2, 4, 2, 2) and found["token"].shape == (2, 3)
    assert torch.equal(torch.cat([each.flatten(1) for each in found.values()], 1), values)


def test_tokens_are_flattened_to_be_compared_and_centred_ones_correlate() -> None:
    tokens = torch.randn(5, 3, 4)

    plain, centred = heads.comparable(tokens), heads.comparable(tokens, is_centred=True)

    assert torch.equal(plain, tokens.flatten(1))
    unit = torch.nn.functional.normalize(centred)
    torch.testing.assert_close(unit @ unit.T, torch.corrcoef(tokens.flatten(1)))


def test_outputs_that_are_not_the_heads_are_refused_naming_both() -> None:
    right = {"latent": torch.zeros(2, 4, 2, 2), "token": torch.zeros(2, 3)}
    heads.check(right, TWO, "the backbone")

    for wrong in ({**right, "token": torch.zeros(2, 1, 3)}, {"token": right["token"]}, {**right, "a": right}):
        wrong = {name: value if torch.is_tensor(value) else torch.zeros(2) for name, value in wrong.items()}
        with pytest.raises(BrainhiveError, match=r"the backbone gives .*heads are latent \[4, 2, 2\]"):
            heads.check(wrong, TWO, "the backbone")


def test_a_latent_of_another_autoencoder_is_refused() -> None:
    heads.refuse_other_target("latent", TWO["latent"], "abc", "the generator")
    heads.refuse_other_target("token", TWO["token"], "anything", "a store")  # of unknown origin
    heads.refuse_other_target("latent", TWO["latent"], "latents:def", "the generator")  # not comparable
    with pytest.raises(BrainhiveError, match="head latent predicts vae of abc, the generator is of def"):
        heads.refuse_other_target("latent", TWO["latent"], "def", "the generator")
