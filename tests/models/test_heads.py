"""Names, shapes and targets of heads, and decoded heads."""

import copy
import re

import pytest
import torch

from brainhive_cli.core.base.errors import BrainhiveError, RecipeError
from brainhive_cli.core.recipes import parts
from brainhive_cli.models import LATENT_SPACE_PREFIX, Head, heads, name_latent_space
from brainhive_cli.models.encoders import diffusers_vae
from brainhive_cli.models.generators import sdxl

TWO = {"latent": Head((4, 2, 2), "vae", "abc"), "token": Head((3,), "clip")}


def test_names_of_attributes_of_torch_are_refused():
    names = list(parts.list_kinds("encoders")) + [
        heads.TOKEN_HEAD,
        heads.FUSED_TARGET,
        "a-b",
    ]
    heads.check_head_names(names)
    assert [name for name in names if hasattr(torch.nn.ModuleDict(), name)] == []
    for name in ("", "a.b", "keys", "half"):
        with pytest.raises(RecipeError, match=re.escape(repr(name))):
            heads.check_head_names([name])


def test_vectors_are_flattened_and_centred_cosines_correlate():
    tokens = torch.randn(5, 3, 4)

    flattened = heads.flatten_vectors(tokens)
    centred = heads.flatten_vectors(tokens, is_centred=True)

    assert torch.equal(flattened, tokens.flatten(1))
    unit = torch.nn.functional.normalize(centred)
    torch.testing.assert_close(unit @ unit.T, torch.corrcoef(tokens.flatten(1)))


def test_outputs_that_are_not_the_heads_are_refused_naming_both():
    outputs = {"latent": torch.zeros(2, 4, 2, 2), "token": torch.zeros(2, 3)}
    heads.check_outputs(outputs, TWO, "the backbone")

    for wrong_outputs in (
        {**outputs, "token": torch.zeros(2, 1, 3)},
        {"token": outputs["token"]},
        {**outputs, "a": outputs},
    ):
        wrong_outputs = {
            name: value if torch.is_tensor(value) else torch.zeros(2)
            for name, value in wrong_outputs.items()
        }
        with pytest.raises(BrainhiveError, match=r"the backbone .*latent \[4, 2, 2\]"):
            heads.check_outputs(wrong_outputs, TWO, "the backbone")


def test_a_latent_of_another_autoencoder_is_refused():
    heads.refuse_other_target("latent", TWO["latent"], "abc", "the generator")
    # of unknown origin
    heads.refuse_other_target("token", TWO["token"], "anything", "a store")
    # not comparable
    heads.refuse_other_target("latent", TWO["latent"], "latents:def", "the generator")
    with pytest.raises(
        BrainhiveError, match=r"latent .*\babc\b.* the generator .*\bdef\b"
    ):
        heads.refuse_other_target("latent", TWO["latent"], "def", "the generator")


def test_a_latent_space_is_named_by_encoder_and_scale_and_shared():
    autoencoder = sdxl.TINY.build().vae
    name = name_latent_space(autoencoder)
    copies = [copy.deepcopy(autoencoder) for _ in range(4)]
    copies[0].encoder.conv_in.weight.data.neg_()
    copies[1].register_to_config(scaling_factor=0.5)
    copies[2].decoder.conv_in.weight.data.neg_()
    copies[3].to(torch.bfloat16)

    assert name.startswith(LATENT_SPACE_PREFIX)
    assert [name_latent_space(changed_copy) == name for changed_copy in copies] == [
        False,
        False,
        True,
        True,
    ]

    config = {
        key: value
        for key, value in autoencoder.config.items()
        if not key.startswith("_")
    }
    encoder = (
        diffusers_vae.TINY.model_copy(update={"architecture": config}).build().module
    )
    space_of_encoder = encoder.latent_space
    assert space_of_encoder == name_latent_space(encoder.tower)
    encoder.tower.load_state_dict(autoencoder.state_dict())
    assert (
        name_latent_space(encoder.tower)
        == sdxl.TINY.build().latent_space
        != space_of_encoder
    )
