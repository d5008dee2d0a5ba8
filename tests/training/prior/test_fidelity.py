"""Keys that make the training of a prior the reference's: interpolation, crop ids and sampled posterior."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from worlds import first_batch

from brainhive_cli.commands.train_prior import Recipe
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.recipe import shipped_recipes
from brainhive_cli.data.targets.views import crop_centre, crop_of_the_original
from brainhive_cli.training.prior.examples import batches
from brainhive_cli.training.prior.loop import Training

KEYS = ("resize=bilinear", "crop_ids=original", "posterior=sample")
ROUNDING = 1e-5
"""Batches of other sizes round differently in float32."""


@pytest.fixture
def large(pictures: Path) -> Path:
    """The folder of pictures, of which each is large and wide."""
    for file in sorted(pictures.rglob("*.png")):
        Image.open(file).resize((75, 51), Image.Resampling.BICUBIC).save(file)
    return pictures


@pytest.mark.parametrize("size", [(75, 50), (51, 93), (40, 40), (16, 23)])
def test_a_bilinear_view_is_the_references(size):
    from torchvision import transforms

    noise = torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    picture = transforms.functional.to_pil_image(noise)
    resize = transforms.Resize(32, transforms.InterpolationMode.BILINEAR)
    theirs = transforms.Compose([resize, transforms.CenterCrop(32), transforms.PILToTensor()])

    pixels, _ = crop_centre(picture, 32, "bilinear")

    assert torch.equal(pixels, theirs(picture))
    assert not torch.equal(pixels, crop_centre(picture, 32, "lanczos")[0])


def test_crop_ids_of_the_original_are_as_published():
    resized = torch.tensor([[375.0, 500, 0, 85, 512, 512], [1201, 1802, 0, 128, 512, 512]])

    ids = crop_of_the_original(resized)

    # max(0, round((height - 512) / 2)) of the picture as it is, halves to even, as the repository has it
    assert ids.tolist() == [[375, 500, 0, 0, 512, 512], [1201, 1802, 344, 645, 512, 512]]


def test_each_key_reaches_the_loss_and_each_but_the_posterior_validation(settings, large, begun):
    plain = begun(*settings)
    loss, validated = plain.loss(first_batch(plain)), plain.validate()
    for key in KEYS:
        other = begun(*settings, key)
        assert not torch.allclose(other.loss(first_batch(other)), loss, rtol=1e-6), key
        assert (other.validate() == validated) is key.startswith("posterior"), key


def test_the_crop_ids_of_training_are_those_asked_for(settings, large, begun):
    for key, corner in (("resized", [0, 8]), ("original", [10, 22])):  # (51 - 32) / 2 is 9.5
        training = begun(*settings, f"crop_ids={key}")
        assert training.ids(first_batch(training))[0].tolist() == [51, 75, *corner, 32, 32]


def test_posteriors_are_sampled_by_step_and_place_whoever_samples_them(settings, begun):
    settings = (*settings, "posterior=sample")

    def drawn(rank: int, processes: int, passes: int = 1, step: int = 3) -> torch.Tensor:
        launch = Launch(rank, processes, torch.device("cpu"))
        training = begun(*settings, launch=launch)
        mine = batches(training.pictures, range(step, step + 1), 8, passes, 0, 0, launch)
        return torch.cat([training.latents(batch) for batch in mine])

    whole = drawn(0, 1)
    assert torch.allclose(torch.cat([drawn(rank, 2, 2) for rank in (0, 1)]), whole, atol=ROUNDING)
    assert torch.equal(drawn(0, 1), whole)
    training = begun(*settings)
    batch = first_batch(training, 2)
    again, later = training.latents(batch), training.latents(replace(batch, step=1))
    assert torch.equal(again, training.latents(batch)) and not torch.allclose(again, later, atol=ROUNDING)


def test_samples_are_spread_as_the_posterior_is(settings, begun):
    training = begun(*settings, "posterior=sample")
    batch = first_batch(training, 1)
    many = replace(batch, image=batch.image.expand(400, -1, -1, -1), positions=tuple(range(400)))

    found = training.latents(many)

    vae = training.generator.vae
    posterior = vae.encode(batch.image.float() / 127.5 - 1).latent_dist
    mean, spread = (vae.config.scaling_factor * each[0] for each in (posterior.mean, posterior.std))
    assert ((found.mean(0) - mean).abs() < 5 * spread / 20).all()  # five standard errors
    assert torch.allclose(found.std(0), spread, rtol=0.25)


def test_kept_latents_are_never_sampled_and_of_each_interpolation_there_is_a_store(
    settings, large, begun, home
):
    with pytest.raises(RecipeError, match="posterior is sample, but cache_latents keeps one"):
        Recipe.resolve("train-prior", None, {}, ["posterior=sample", "cache_latents=true"])

    def cached(*keys: str) -> tuple[Training, torch.Tensor]:
        training = begun(*settings, "cache_latents=true", *keys)
        return training, training.loss(first_batch(training))

    plain, bilinear = cached(), cached("resize=bilinear", "crop_ids=original")

    assert len(list((home / "latents").rglob("*.h5"))) == 2 and not torch.allclose(
        plain[1], bilinear[1], rtol=1e-6
    )
    direct = begun(*settings, "resize=bilinear", "crop_ids=original")
    assert torch.allclose(direct.loss(first_batch(direct)), bilinear[1], rtol=ROUNDING)


def test_the_papers_recipe_has_them_all_and_says_what_differs():
    default, paper = (Recipe.resolve("train-prior", n, {}, []) for n in (None, "papers/brainhive-prior"))
    assert (paper.resize, paper.crop_ids, paper.posterior) == ("bilinear", "original", "sample")
    assert (default.resize, default.crop_ids, default.posterior) == ("lanczos", "resized", "mode")
    text = (shipped_recipes() / "papers" / "brainhive-prior" / "train-prior.yaml").read_text()
    assert "# Remaining differences from its repository: " in text
    prints = {Recipe.resolve("train-prior", None, {}, [key]).fingerprint() for key in KEYS}
    assert len({default.fingerprint(), *prints}) == 4
