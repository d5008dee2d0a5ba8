"""Embeddings of a fixed picture by encoders without weights, beside those recorded."""

import pytest
import torch
from PIL import Image

from brainhive_cli.core.recipes import parts
from brainhive_cli.models.encoders import diffusers_vae, gabor
from brainhive_cli.models.picture_autoencoder import PictureAutoencoder, Pixels
from tests.tools.network_digests import parameters
from tests.worlds.number_rows import weighted_means

KINDS = [
    "autoencoder",
    "clip-bigg-tokens",
    "demo-vae",
    "diffusers-vae",
    "gabor",
    "pixels",
    "sd15-vae",
    "vd-image",
    "vd-vae",
]


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


def encode(encoder, picture):
    """Return the preprocessed picture, and its embedding in double precision."""
    pixels = encoder.preprocess(picture)
    # pictures are resized in single precision before they are encoded
    if isinstance(encoder.module, PictureAutoencoder):
        return [pixels, encoder.module(pixels[None])]
    return [pixels, encoder.module.double()(pixels.double()[None])]


def test_pictures(recorded, picture):
    landscape = picture.transpose(Image.Transpose.ROTATE_90).resize((40, 17))
    rows = {}
    for kind in KINDS:
        config = parts.load("encoders", kind).TINY
        row = []
        for portrait_or_landscape in (picture, landscape):
            row += weighted_means(encode(config.build(), portrait_or_landscape))
        rows[kind] = row
    recorded(4, **rows)


def test_gabor_and_vae_settings(recorded, picture):
    sampled = {"posterior": "sample", "output": ["latent", "embedding"]}
    configs = {
        "filters": gabor.Config(orientations=3, grid=3),
        "seed 0": diffusers_vae.TINY.model_copy(update=sampled),
        "seed 5": diffusers_vae.TINY.model_copy(update={**sampled, "seed": 5}),
    }
    rows = {}
    for name, config in configs.items():
        rows[name] = weighted_means(encode(config.build(), picture))
    filters = [gabor.build_filter_pairs(count) for count in (2, 5)]
    recorded(4, **rows, pairs=weighted_means(filters))


def test_the_shape_of_latents_follows_from_the_resolution():
    config = parts.load("encoders", "sd15-vae").Config
    # its autoencoder shrinks pictures 8 times
    assert config(resolution_px=512).static_shape == (4, 64, 64)
    assert config(resolution_px=1024).static_shape == (4, 128, 128)
    assert config(resolution_px=200).static_shape == (4, 25, 25)
    assert config(posterior="sample").static_shape is None
    assert diffusers_vae.TINY.static_shape is None


def test_autoencoders(recorded):
    torch.manual_seed(0)
    model = PictureAutoencoder(latents=5, width=4)
    initial_parameters = parameters(model)
    pictures = torch.rand(3, 3, 20, 31)
    latents = model(pictures)
    decoded = model.decode(latents)
    random = torch.Generator().manual_seed(4)
    loss = model.loss(torch.rand(3, 28 * 28), random)
    grey = Pixels(6)
    vectors = grey(pictures)

    row = weighted_means(
        [latents, decoded, loss, vectors, grey.decode(2 * vectors - 0.5)]
    )
    recorded(4, autoencoder_and_pixels=initial_parameters + row)


def test_without_a_tokenizer_letters_are_tokens():
    encoder = parts.load("encoders", "vd-text").TINY.build()

    ids = encoder.preprocess("a dog")
    ids_of_long_text = encoder.preprocess("é" * 90)

    # ASCII codes, with 128 as start, end and padding
    assert ids[:8].tolist() == [128, 97, 32, 100, 111, 103, 128, 128]
    assert len(ids) == len(ids_of_long_text) == 77
    assert ids_of_long_text[-3:].tolist() == [127, 127, 128]
