"""Embeddings of a fixed picture by encoders without weights, beside those recorded."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from brainhive_cli.core.base.errors import RecipeError
from brainhive_cli.core.recipes import parts
from brainhive_cli.models import PictureAutoencoder, Pixels, encoders
from brainhive_cli.models.encoders import _outputs, diffusers_vae, gabor, vd_text
from tests.tools.network_digests import digest, parameters

KINDS = (
    "autoencoder",
    "clip-bigg-tokens",
    "demo-vae",
    "diffusers-vae",
    "gabor",
    "pixels",
    "sd15-vae",
    "vd-image",
    "vd-vae",
)


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def encode(encoder: Any, picture: Image.Image) -> Any:
    """Return the preprocessed picture, and its embedding in double precision."""
    seen, module = encoder.preprocess(picture), encoder.module
    # pictures are resized in single precision before they are encoded
    if not isinstance(module, PictureAutoencoder):
        return digest([seen, module.double()(seen.double()[None])])
    return digest([seen, module(seen[None])])


@pytest.mark.parametrize("kind", KINDS)
def test_pictures(recorded, kind: str, picture: Image.Image) -> None:
    config = parts.load("encoders", kind).TINY
    other = picture.transpose(Image.Transpose.ROTATE_90).resize((40, 17))
    numbers = {"portrait": picture, "landscape": other}
    recorded(4, **{n: encode(config.build(), each) for n, each in numbers.items()})


def test_gabor_and_vae_settings(recorded, picture: Image.Image) -> None:
    sampled = {"posterior": "sample", "output": ["latent", "embedding"]}
    configs = {
        "filters": gabor.Config(orientations=3, grid=3),
        "seed 0": diffusers_vae.TINY.model_copy(update=sampled),
        "seed 5": diffusers_vae.TINY.model_copy(update={**sampled, "seed": 5}),
    }
    numbers = {
        name: encode(config.build(), picture) for name, config in configs.items()
    }
    numbers["pairs"] = digest([gabor.build_filter_pairs(count) for count in (2, 5)])
    recorded(4, **numbers)


def test_opponent_colours_of_plain_pictures() -> None:
    encoder = gabor.Config(orientations=2, grid=1).build()
    for colour, expected in (
        ((255, 0, 0), (1 / 3, 0.5, -0.25)),
        ((0, 255, 0), (1 / 3, -0.5, -0.25)),
        ((0, 0, 255), (1 / 3, 0.0, 0.5)),
    ):
        picture = Image.new("RGB", (128, 128), colour)
        found = encoder.module(encoder.preprocess(picture)[None])[0, :3]
        torch.testing.assert_close(found, torch.tensor(expected))


@pytest.mark.parametrize(
    "how", ["gaussian-5", "fovea-9", "low-resolution-3", "mosaic-4", "noise-20"]
)
def test_degraded_pictures(recorded, how: str, picture: Image.Image) -> None:
    pictures = (picture, picture.resize((30, 21)))
    made = [np.asarray(encoders.degrade(each, how, 24)) for each in pictures]
    recorded(3, pictures=digest([torch.from_numpy(each.copy()) for each in made]))


def test_a_fovea_and_letters(recorded) -> None:
    texts = ("", "a dog", "é" * 90)
    recorded(
        5,
        masks=digest([encoders.build_fovea_mask(*sides) for sides in ((5, 5), (6, 3))]),
        letters=digest([vd_text._tokenize_letters(text) for text in texts]),
    )


def test_kernels_are_smaller_than_twice_the_picture(picture: Image.Image) -> None:
    encoders.degrade(picture.resize((8, 8)), "gaussian-15", 8)
    with pytest.raises(RecipeError):
        encoders.degrade(picture.resize((8, 8)), "gaussian-17", 8)


def transformer() -> tuple[nn.Module, _outputs.Anatomy]:
    """Build three blocks, a last norm, and two tokens before the patches."""
    blocks = nn.Sequential(*(nn.Linear(4, 4) for _ in range(3)))
    norm = nn.LayerNorm(4)
    network = nn.Sequential(blocks, norm)
    return network, _outputs.Anatomy(
        list(blocks), norm, n_prefix_tokens=2, has_class=True
    )


OUTPUTS = [
    "embedding",
    "class",
    "mean",
    "patches",
    "tokens",
    "tokens-mean",
    "block-0",
    "block-1.class",
    "block-2.mean",
    "block-0.34",
    "block-0.67.patches",
    "block-1.0.tokens-mean",
    "block-0.99",
]


def test_tokens_of_blocks(recorded) -> None:
    torch.manual_seed(0)
    network, anatomy = transformer()
    for weight in network.parameters():
        weight.add_(0.3 * torch.randn_like(weight))
    tokens = torch.randn(2, 6, 4)
    found = _outputs.Outputs(network, OUTPUTS, anatomy)(tokens)
    recorded(4, **dict(zip(OUTPUTS, digest(found), strict=True)))
    alone = _outputs.Outputs(network, "block-1.class", anatomy)(tokens)
    assert torch.equal(alone, found[OUTPUTS.index("block-1.class")])


def test_stages_of_a_resnet() -> None:
    stages = [nn.Conv2d(3, 3, 1) for _ in range(2)]
    network = nn.Sequential(*stages)
    anatomy = _outputs.Anatomy(stages=stages)
    pictures = torch.randn(2, 3, 4, 5)
    names = ["stage-1", "stage-2.mean", "embedding"]
    first, second, last = _outputs.Outputs(network, names, anatomy)(pictures)
    assert torch.equal(first, stages[0](pictures))
    assert torch.equal(last, network(pictures))
    assert torch.equal(second, last.mean((2, 3)))
    assert _outputs.find_resnet_anatomy(network) is None


@pytest.mark.parametrize("name", ["block-3", "block-0.1", "stage-1", "stage-2.mean"])
def test_outputs_that_a_transformer_lacks_are_refused(name: str) -> None:
    network, anatomy = transformer()
    with pytest.raises(RecipeError) as caught:
        _outputs.Outputs(network, name, anatomy)
    assert "block-2" in caught.value.hint


def test_a_class_token_that_is_not_there_is_refused() -> None:
    network, anatomy = transformer()
    without = _outputs.Anatomy(anatomy.blocks, anatomy.norm)
    for name in ("class", "block-1.class"):
        with pytest.raises(RecipeError):
            _outputs.Outputs(network, name, without)
    _outputs.Outputs(network, "mean", without)


def test_the_shape_of_latents_follows_from_the_resolution() -> None:
    config = parts.load("encoders", "sd15-vae").Config
    # its autoencoder shrinks pictures 8 times
    assert config(resolution_px=512).static_shape == (4, 64, 64)
    assert config(resolution_px=1024).static_shape == (4, 128, 128)
    assert config(resolution_px=200).static_shape == (4, 25, 25)
    assert config(posterior="sample").static_shape is None
    assert diffusers_vae.TINY.static_shape is None


def test_autoencoders(recorded) -> None:
    torch.manual_seed(0)
    model = PictureAutoencoder(latents=5, width=4)
    numbers: dict[str, Any] = {"made": parameters(model)}
    pictures = torch.rand(3, 3, 20, 31)
    numbers["latents"] = digest(model(pictures))
    numbers["decoded"] = digest(model.decode(model(pictures)))
    random = torch.Generator().manual_seed(4)
    pixels = torch.rand(3, 28 * 28)
    numbers["loss"] = digest(model.loss(pixels, random))
    grey = Pixels(6)
    numbers["pixels"] = digest([grey(pictures), grey.decode(2 * grey(pictures) - 0.5)])
    recorded(4, **numbers)
