"""The shipped weights: small, readable by the libraries they are made for, and good
enough to look at.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from brainhive_cli.core.hub import DEMO_WEIGHTS
from brainhive_cli.demo import pictures
from brainhive_cli.models.encoders import resolve
from brainhive_cli.models.generators import Sampling, sdxl
from brainhive_cli.models.heads import Decoded
from brainhive_cli.models.priors._fusion_network import FusionPrior


@pytest.fixture(scope="module")
def shown():
    """The test pictures: uint8 [N, 3, H, W]."""
    drawn = [
        np.asarray(pictures.draw_scene(scene)) for scene in pictures.list_scenes("test")
    ]
    return torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2)


@pytest.fixture(scope="module")
def embeddings():
    return {
        name: embed(pictures.list_scenes("test"), name)
        for name in ("demo-clip", "demo-vae")
    }


def embed(scenes, name: str) -> torch.Tensor:
    """Embed the pictures of scenes with an encoder of the demo: [N, D]."""
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


def _correlation(image, other):
    image, other = (
        x.flatten(1) - x.flatten(1).mean(1, keepdim=True) for x in (image, other)
    )
    return F.cosine_similarity(image, other)


def test_the_demo_stays_within_12_megabytes_and_few_more_for_its_parts():
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
    assert dual < 6e6 and films < 8e6 and recorded < 2e6
    assert sum(sizes.values()) - dual - films - recorded < 12e6


def test_diffusers_own_pipeline_reads_the_generator_as_an_sdxl_without_text_encoders():
    from diffusers import StableDiffusionXLPipeline

    pipeline = StableDiffusionXLPipeline.from_pretrained(DEMO_WEIGHTS / "generator")
    assert pipeline.text_encoder is None
    assert pipeline.vae_scale_factor == 4
    named = [
        path
        for path in DEMO_WEIGHTS.rglob("*.json")
        if "_name_or_path" in path.read_text()
    ]
    assert not named, "diffusers notes where a model was loaded from: take the key out"


@pytest.mark.nightly
def test_the_encoder_tells_the_shapes_of_concepts_it_never_saw(embeddings):
    """Chance is 1 in 18; the weights name 0.76 by the nearest of the shapes' means."""
    seen = pictures.list_scenes("train")[::9]
    training = embed(seen, "demo-clip")
    shapes = np.array([scene.shape for scene in seen])
    means = torch.stack(
        [training[shapes == shape].mean(0) for shape in pictures.SHAPES]
    )
    nearest = torch.cdist(embeddings["demo-clip"], means).argmin(1)
    named = [
        pictures.SHAPES[n] == scene.shape
        for scene, n in zip(pictures.list_scenes("test"), nearest, strict=True)
    ]
    assert np.mean(named) > 0.65


def test_the_vae_restores_pictures(shown, generator):
    """Mean absolute error of 0..1 pixels; twice what the weights reach."""
    pixels = shown[:32] / 255
    restored = generator.decode(generator.encode(pixels))
    assert (restored - pixels).abs().mean() < 0.022


def test_a_picture_can_be_drawn_from_its_token_and_from_that_of_another_it_is_another(
    shown, prior, generator, tokens
):
    own = tokens[:8]
    for token, is_near in (
        (own, True),
        (prior.adapt(own), True),
        (own.roll(1, 0), False),
    ):
        given = prior.condition(Decoded({"token": token}), range(8))
        made = generator.generate(given, range(8), 64, Sampling())
        similarity = _correlation(made, shown[:8] / 255).mean()
        assert similarity > 0.8 if is_near else similarity < 0.5
