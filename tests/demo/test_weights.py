"""The shipped weights: small, readable by the libraries they are made for, and good enough to look at."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from brainhive_cli.core.hub import DEMO_WEIGHTS
from brainhive_cli.demo import pictures
from brainhive_cli.models.generators import Sampling, sdxl
from brainhive_cli.models.heads import Decoded
from brainhive_cli.models.priors.fusion_prior import FusionPrior
from tools.demo_world import features
from tools.demo_world.pool import drawn


@pytest.fixture(scope="module")
def pool():
    return drawn(pictures.scenes("test"))


@pytest.fixture(scope="module")
def embeddings(pool):
    return features.embed(pool.pictures)


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
    image, other = (x.flatten(1) - x.flatten(1).mean(1, keepdim=True) for x in (image, other))
    return F.cosine_similarity(image, other)


def test_the_demo_stays_within_12_megabytes_and_few_more_for_guidance_films_and_a_recording():
    package = DEMO_WEIGHTS.parent
    sizes = {file: file.stat().st_size for file in package.rglob("*.*") if "__pycache__" not in file.parts}
    dual, films, recorded = (
        sum(size for file, size in sizes.items() if name in file.parts)
        for name in ("dual", "films", "haxby2001")
    )
    assert dual < 6e6 and films < 8e6 and recorded < 2e6
    assert sum(sizes.values()) - dual - films - recorded < 12e6


def test_all_weights_are_half_precision_on_disk_and_single_once_loaded(generator):
    assert generator.unet.dtype == generator.vae.dtype == torch.float32
    assert {p.dtype for p in FusionPrior.load("demo:prior").parameters()} == {torch.float16}


def test_diffusers_own_pipeline_reads_the_generator_as_an_sdxl_without_text_encoders():
    from diffusers import StableDiffusionXLPipeline

    pipeline = StableDiffusionXLPipeline.from_pretrained(DEMO_WEIGHTS / "generator")
    assert pipeline.text_encoder is None
    assert pipeline.vae_scale_factor == 4


def test_the_encoder_reads_a_picture_through_its_own_processor(pool, embeddings):
    """The tolerance is that of the processor's resampling, which finds nothing to do at 64 px."""
    from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

    folder = DEMO_WEIGHTS / "encoder"
    processor = CLIPImageProcessor.from_pretrained(folder)
    model = CLIPVisionModelWithProjection.from_pretrained(folder, dtype=torch.float32).eval()
    image = pictures.draw(pool.scenes[0])
    with torch.no_grad():
        embedding = model(processor(image, return_tensors="pt").pixel_values).image_embeds
    torch.testing.assert_close(embedding, embeddings["demo-clip"][:1], rtol=0, atol=1e-3)


def test_the_encoder_tells_the_shapes_of_concepts_it_never_saw(pool, embeddings):
    """Chance is 1 in 18; the weights name 0.76 by the nearest of the shapes' means."""
    seen = drawn(pictures.scenes("train")[::3])
    training = features.embed(seen.pictures)["demo-clip"]
    shapes = np.array([scene.shape for scene in seen.scenes])
    means = torch.stack([training[shapes == shape].mean(0) for shape in pictures.SHAPES])
    nearest = torch.cdist(embeddings["demo-clip"], means).argmin(1)
    named = [pictures.SHAPES[n] == scene.shape for scene, n in zip(pool.scenes, nearest, strict=True)]
    assert np.mean(named) > 0.65


def test_the_vae_restores_pictures(pool, generator):
    """Mean absolute error of 0..1 pixels; twice what the weights reach."""
    pixels = pool.pictures[:32] / 255
    restored = generator.decode(generator.encode(pixels))
    assert (restored - pixels).abs().mean() < 0.022


def test_scaled_latents_have_unit_spread(embeddings):
    assert embeddings["demo-vae"].shape == (100, 1024)
    assert 0.9 < embeddings["demo-vae"].std() < 1.1


def test_tokens_of_different_pictures_are_apart(tokens):
    """A collapsed fusion encoder has a median cosine near 1."""
    cosine = F.normalize(tokens, dim=-1) @ F.normalize(tokens, dim=-1).T
    apart = cosine[~torch.eye(len(cosine), dtype=torch.bool)]
    assert abs(apart.median()) < 0.2
    assert apart.max() < 0.9


@pytest.mark.parametrize("adapted", [False, True])
def test_a_picture_can_be_drawn_from_its_token(pool, prior, generator, tokens, adapted):
    token = prior.adapt(tokens[:8]) if adapted else tokens[:8]
    made = generator.generate(prior.condition(Decoded({"token": token}), range(8)), range(8), 64, Sampling())
    assert _correlation(made, pool.pictures[:8] / 255).mean() > 0.8


def test_without_its_token_a_picture_is_another(pool, prior, generator, tokens):
    """Shows that the test above can fail: tokens of other pictures give other pictures."""
    others = prior.condition(Decoded({"token": tokens[:8].roll(1, 0)}), range(8))
    made = generator.generate(others, range(8), 64, Sampling())
    assert _correlation(made, pool.pictures[:8] / 255).mean() < 0.5


def test_no_shipped_file_names_a_place_of_the_machine_that_made_it():
    named = [path for path in DEMO_WEIGHTS.rglob("*.json") if "_name_or_path" in path.read_text()]
    assert not named, "diffusers notes where a model was loaded from: take the key out"
