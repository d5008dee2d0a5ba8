"""The name of a latent space: the same in any precision, another for another autoencoder."""

import copy

import pytest
import torch

from brainhive_cli.models.encoders import diffusers_vae
from brainhive_cli.models.generators import sdxl
from brainhive_cli.models.latent_space import PREFIX, latent_space


@pytest.fixture(scope="module")
def autoencoder():
    return sdxl.TINY.build().vae


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rounded_weights_keep_the_name(autoencoder, dtype):
    assert latent_space(copy.deepcopy(autoencoder).to(dtype)) == latent_space(autoencoder)


def test_another_encoder_or_scale_has_another_name_and_a_trained_decoder_has_not(autoencoder):
    name, others = latent_space(autoencoder), [copy.deepcopy(autoencoder) for _ in range(3)]
    others[0].encoder.conv_in.weight.data.neg_()
    others[1].register_to_config(scaling_factor=0.5)
    others[2].decoder.conv_in.weight.data.neg_()

    assert name.startswith(PREFIX)
    assert [latent_space(other) == name for other in others] == [False, False, True]


def test_encoder_and_generator_of_one_autoencoder_agree(autoencoder):
    config = {key: value for key, value in autoencoder.config.items() if not key.startswith("_")}
    encoder = diffusers_vae.TINY.model_copy(update={"architecture": config}).build().module
    before = encoder.latent_space

    encoder.vae.load_state_dict(autoencoder.state_dict())

    assert encoder.latent_space == sdxl.TINY.build().latent_space != before
