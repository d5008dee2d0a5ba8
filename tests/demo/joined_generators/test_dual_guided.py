"""Tests of the demo's dual-guided generator."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from brainhive_cli.core.recipes.recipe import Paths
from brainhive_cli.data.datasets import demo
from brainhive_cli.demo import joined_generators, pictures
from brainhive_cli.models.encoders import demo_image, resolve
from brainhive_cli.models.generators import Sampling, versatile_diffusion
from brainhive_cli.models.heads import Conditioning

pytestmark = pytest.mark.nightly


ITEMS = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "dual"
    joined_generators.assemble_generator(joined_generators.DUAL_GUIDED, folder)
    return folder


@pytest.fixture(scope="module")
def generator(folder, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BRAINHIVE_HOME", str(tmp_path_factory.mktemp("home")))
        return versatile_diffusion.Config(source=str(folder)).build()


@pytest.fixture(scope="module")
def demo_pictures():
    scenes = pictures.list_scenes("test")[:ITEMS]
    pixels = np.stack([np.asarray(pictures.draw_scene(scene)) for scene in scenes])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255


@pytest.fixture(scope="module")
def true_conditioning():
    """Latents, image tokens and tokens of the first caption, from the encoders."""
    images = demo.Config().build(Paths()).images("test")
    conditions = {}
    for name, config in (
        ("start", resolve("demo-vae:latent")),
        ("embeddings", demo_image.Config()),
    ):
        encoder = config.build()
        views = torch.stack([encoder.preprocess(images.open(n)) for n in range(ITEMS)])
        with torch.inference_mode():
            conditions[name] = encoder.module(views).clone()
    encoder = resolve("demo-text").build()
    with torch.inference_mode():
        ids = torch.stack(
            [encoder.preprocess(images.get_captions(n)[0]) for n in range(ITEMS)]
        )
        conditions["texts"] = encoder.module(ids).clone()
    return Conditioning(**conditions)


def correlation(image, other_tensor):
    image, other_tensor = (
        x.flatten(1) - x.flatten(1).mean(1, keepdim=True) for x in (image, other_tensor)
    )
    return F.cosine_similarity(image, other_tensor).mean().item()


def generate(generator, conditioning, strength=0.625):
    return generator.generate(
        conditioning, range(ITEMS), 64, Sampling(steps=8, strength=strength)
    )


def test_latent_and_tokens_give_the_picture_and_its_position(
    generator, demo_pictures, true_conditioning
):
    """Noise gives no position, and another picture's latent a wrong position."""
    similarity = correlation(generate(generator, true_conditioning), demo_pictures)
    noise_only = generate(generator, true_conditioning, 1.0)
    other_latents = Conditioning(
        embeddings=true_conditioning.embeddings,
        texts=true_conditioning.texts,
        start=true_conditioning.start.roll(1, 0),
    )

    assert similarity > 0.8
    assert similarity > correlation(noise_only, demo_pictures) + 0.02
    assert (
        similarity
        > correlation(generate(generator, other_latents), demo_pictures) + 0.02
    )


def test_each_stream_determines_the_object(
    folder, demo_pictures, true_conditioning, tmp_path, monkeypatch
):
    monkeypatch.setenv("BRAINHIVE_HOME", str(tmp_path))
    conditions = {
        "embeddings": true_conditioning.embeddings,
        "texts": true_conditioning.texts,
    }
    for name, share in (("embeddings", 0.0), ("texts", 1.0)):
        generator = versatile_diffusion.Config(
            source=str(folder), text_share=share
        ).build()
        matching = generate(generator, Conditioning(**conditions), 1.0)
        differing = generate(
            generator,
            Conditioning(**{**conditions, name: conditions[name].roll(1, 0)}),
            1.0,
        )

        assert (
            correlation(matching, demo_pictures)
            > correlation(differing, demo_pictures) + 0.1
        ), name
