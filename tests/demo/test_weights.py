"""Tests of the shipped weights: their size, format and quality."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from brainhive_cli.core.files.hub import DEMO_WEIGHTS
from brainhive_cli.demo import pictures
from brainhive_cli.models.encoders import resolve
from brainhive_cli.models.generators import Sampling, sdxl
from brainhive_cli.models.heads import Decoded
from brainhive_cli.models.priors._fusion_network import FusionPrior


@pytest.fixture(scope="module")
def demo_pictures():
    """Test pictures [N, 3, H, W] in uint8."""
    pixels = [
        np.asarray(pictures.draw_scene(scene)) for scene in pictures.list_scenes("test")
    ]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)


@pytest.fixture(scope="module")
def embeddings():
    return {
        name: embed(pictures.list_scenes("test"), name)
        for name in ("demo-clip", "demo-vae")
    }


def embed(scenes, name):
    """Embed the pictures of scenes with an encoder of the demo [N, D]."""
    encoder = resolve(name).build()
    views = [encoder.preprocess(pictures.draw_scene(scene)) for scene in scenes]
    with torch.inference_mode():
        return encoder.module(torch.stack(views)).clone()


@pytest.fixture(scope="module")
def prior():
    return FusionPrior.load("demo:prior").float()


@pytest.fixture(scope="module")
def generator(prior):
    generator = sdxl.Config(source="demo:generator").build()
    prior.attach(generator)
    return generator


@pytest.fixture(scope="module")
def tokens(prior, embeddings):
    with torch.no_grad():
        return prior.fuser(embeddings)


def _correlation(image, other_image):
    image, other_image = (
        x.flatten(1) - x.flatten(1).mean(1, keepdim=True) for x in (image, other_image)
    )
    return F.cosine_similarity(image, other_image)


def test_the_demo_and_its_parts_stay_small():
    package = DEMO_WEIGHTS.parent
    sizes = {
        file: file.stat().st_size
        for file in package.rglob("*.*")
        if "__pycache__" not in file.parts
    }
    dual, films, recorded = (
        sum(size for file, size in sizes.items() if name in file.parts)
        for name in ("dual", "films", "haxby2001")
    )
    assert dual < 6e6
    assert films < 8e6
    assert recorded < 2e6
    assert sum(sizes.values()) - dual - films - recorded < 12e6


def test_a_pipeline_of_diffusers_reads_the_generator():
    from diffusers import StableDiffusionXLPipeline

    pipeline = StableDiffusionXLPipeline.from_pretrained(DEMO_WEIGHTS / "generator")
    assert pipeline.text_encoder is None
    assert pipeline.vae_scale_factor == 4
    files = [
        path
        for path in DEMO_WEIGHTS.rglob("*.json")
        if "_name_or_path" in path.read_text()
    ]
    assert not files, "diffusers notes where a model was loaded from: take the key out"


@pytest.mark.nightly
def test_the_encoder_recognises_shapes_of_new_concepts(embeddings):
    """Chance is 1 in 18. The weights reach 0.76 by the nearest mean of a shape."""
    scenes = pictures.list_scenes("train")[::9]
    training = embed(scenes, "demo-clip")
    shapes = np.array([scene.shape for scene in scenes])
    means = torch.stack(
        [training[shapes == shape].mean(0) for shape in pictures.SHAPES]
    )
    nearest = torch.cdist(embeddings["demo-clip"], means).argmin(1)
    is_right = [
        pictures.SHAPES[n] == scene.shape
        for scene, n in zip(pictures.list_scenes("test"), nearest, strict=True)
    ]
    assert np.mean(is_right) > 0.65


def test_the_vae_restores_pictures(demo_pictures, generator):
    """The limit is twice the mean absolute error of the weights, for pixels in 0..1."""
    pixels = demo_pictures[:32] / 255
    restored = generator.decode(generator.encode(pixels))
    assert (restored - pixels).abs().mean() < 0.022


def test_a_picture_is_drawn_from_its_own_token_only(
    demo_pictures, prior, generator, tokens
):
    own_tokens = tokens[:8]
    for token, is_near in (
        (own_tokens, True),
        (prior.adapt(own_tokens), True),
        (own_tokens.roll(1, 0), False),
    ):
        conditioning = prior.condition(Decoded({"token": token}), range(8))
        images = generator.generate(conditioning, range(8), 64, Sampling())
        similarity = _correlation(images, demo_pictures[:8] / 255).mean()
        assert similarity > 0.8 if is_near else similarity < 0.5
