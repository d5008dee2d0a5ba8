"""Options of train-prior."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.core.runs import Launch, RunFolder
from brainhive_cli.data.media.views import (
    PictureBatch,
    crop_centre,
    use_crop_of_original,
)
from brainhive_cli.models import Conditioning, priors
from brainhive_cli.training.prior.examples import load_examples
from brainhive_cli.training.prior.loop import PriorLearner, train
from tests.worlds.command_fixtures import load_first_batch

ROUNDING = 1e-6
"""Sums over pictures in another order, float32."""


def trained(training, folder):
    learner = PriorLearner(
        training.prior, training.recipe.freeze, training.recipe.train
    )
    train(training, folder, learner, lambda _: None)
    return learner


def gradients(learner):
    """Return the gradients of the first step, up to a factor."""
    return [
        learner.optimizer.state[parameter]["exp_avg"]
        for parameter in learner.parameters
    ]


def make_batch(count):
    """Make a batch with only the positions in the step."""
    empty = torch.empty(0)
    return PictureBatch(
        np.arange(count), empty, empty, {}, step=3, positions=tuple(range(count))
    )


@pytest.mark.nightly
def test_accumulated_passes_have_the_gradient_of_one_large_batch(
    prior_overrides, begin_training, tmp_path
):
    """The 10 pictures are divided into 4 + 3 + 3."""
    prior_overrides = list(prior_overrides) + ["train.steps=1"]
    trained_losses = trained(
        begin_training(*prior_overrides, "train.batch_size=10"),
        RunFolder(tmp_path / "one"),
    )
    passes = begin_training(
        *prior_overrides, "train.batch_size=4", "train.accumulate=3"
    )

    several_trained = trained(passes, RunFolder(tmp_path / "several"))

    assert max(float(g.abs().max()) for g in gradients(trained_losses)) > 100 * ROUNDING
    for gradient, b in zip(
        gradients(trained_losses), gradients(several_trained), strict=True
    ):
        assert torch.allclose(gradient, b, atol=ROUNDING, rtol=1e-4)
    with pytest.raises(BrainhiveError, match=r"\b10 .*\b11 passes") as caught:
        trained(
            begin_training(*prior_overrides, "train.accumulate=11"),
            RunFolder(tmp_path / "run"),
        )
    assert "train.accumulate" in caught.value.hint


def test_gradient_checkpointing_gives_the_same_gradient(
    prior_overrides, begin_training
):
    def backward(training):
        kept_bytes = [0]

        def count(tensor):
            kept_bytes[0] += tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            loss = training.compute_loss(load_first_batch(training))
        loss.backward()
        return kept_bytes[0], [p.grad for p in training.prior.parameters()]

    plain_bytes, plain_gradient = backward(begin_training(*prior_overrides))
    fewer_bytes, same_gradient = backward(
        begin_training(*prior_overrides, "train.gradient_checkpointing=true")
    )

    assert fewer_bytes < plain_bytes / 2
    assert all(
        torch.allclose(value, b, atol=ROUNDING)
        for value, b in zip(plain_gradient, same_gradient, strict=True)
    )


def test_dropped_tokens_are_zero_at_the_rate_of_the_recipe(
    prior_overrides, begin_training
):
    training = begin_training(*prior_overrides, "token_dropout=0.3")
    batch = load_first_batch(training, 10)

    is_kept, _ = training.draw_dropout(make_batch(2000))
    drawn_dropout, random = training.draw_dropout(batch)
    loss = training.compute_loss(batch)

    # four standard errors
    assert float(is_kept.float().mean()) == pytest.approx(0.7, abs=0.04)
    assert 0 < drawn_dropout.sum() < 10
    token = training.prior.fuser(training.gather_embeddings(batch))
    token = torch.where(drawn_dropout, token, torch.zeros_like(token))
    conditioning = Conditioning(
        embeddings=training.prior.project(training.prior.adapt(token))
    )
    direct = training.generator.loss(
        training.get_latents(batch), conditioning, random, batch.sizes
    )
    assert torch.allclose(loss, direct, rtol=1e-6)


def test_bf16_is_the_diffusion_models_dtype_and_not_the_priors(
    prior_overrides, begin_training
):
    exact, coarse = (
        begin_training(*prior_overrides),
        begin_training(*prior_overrides, "train.precision=bf16"),
    )

    losses = [
        training.compute_loss(load_first_batch(training))
        for training in (exact, coarse)
    ]
    losses[1].backward()

    assert coarse.generator.unet.dtype == torch.bfloat16
    assert coarse.generator.vae.dtype == torch.float32
    assert all(
        p.dtype == p.grad.dtype == torch.float32 for p in coarse.prior.parameters()
    )
    assert losses[0] != losses[1]
    assert torch.allclose(*losses, rtol=0.02)


KEYS = ("resize=bilinear", "crop_ids=original", "posterior=sample")


@pytest.fixture
def large(pictures):
    """Make the folder of large and wide pictures."""
    for file in sorted(pictures.rglob("*.png")):
        Image.open(file).resize((75, 51), Image.Resampling.BICUBIC).save(file)
    return pictures


def test_a_bilinear_view_is_the_references():
    from torchvision import transforms

    random = torch.Generator().manual_seed(1)
    resize = transforms.Resize(32, transforms.InterpolationMode.BILINEAR)
    theirs = transforms.Compose(
        [resize, transforms.CenterCrop(32), transforms.PILToTensor()]
    )
    for size in ((75, 50), (51, 93), (40, 40), (16, 23)):
        noise = torch.randint(
            0, 256, (3,) + tuple(size), dtype=torch.uint8, generator=random
        )
        picture = transforms.functional.to_pil_image(noise)

        pixels, _ = crop_centre(picture, 32, "bilinear")

        assert torch.equal(pixels, theirs(picture))
        assert not torch.equal(pixels, crop_centre(picture, 32, "lanczos")[0])


def test_crop_ids_of_the_original_are_as_published():
    resized = torch.tensor(
        [[375.0, 500, 0, 85, 512, 512], [1201, 1802, 0, 128, 512, 512]]
    )

    ids = use_crop_of_original(resized)

    # max(0, round((height - 512) / 2)) of the picture as it is, halves to even, as the
    # repository has it
    assert ids.tolist() == [
        [375, 500, 0, 0, 512, 512],
        [1201, 1802, 344, 645, 512, 512],
    ]


@pytest.mark.nightly
def test_each_key_changes_the_loss_and_the_right_ones_validation(
    prior_overrides, large, begin_training
):
    uncached_run = begin_training(*prior_overrides)
    loss, validated = (
        uncached_run.compute_loss(load_first_batch(uncached_run)),
        uncached_run.validate(),
    )
    assert uncached_run.get_size_ids(load_first_batch(uncached_run))[0].tolist() == [
        51,
        75,
        0,
        8,
        32,
        32,
    ]
    for key in KEYS:
        other_begin_training = begin_training(*prior_overrides, key)
        assert not torch.allclose(
            other_begin_training.compute_loss(load_first_batch(other_begin_training)),
            loss,
            rtol=1e-6,
        ), key
        assert (other_begin_training.validate() == validated) is key.startswith(
            "posterior"
        ), key


@pytest.mark.nightly
def test_posterior_samples_depend_on_step_and_position_only(
    prior_overrides, begin_training
):
    prior_overrides = list(prior_overrides) + ["posterior=sample"]

    def draw_samples(rank, processes, passes=1):
        launch = Launch(rank, processes, torch.device("cpu"))
        training = begin_training(*prior_overrides, launch=launch)
        mine = load_examples(training.pictures, range(3, 4), 8, passes, 0, 0, launch)
        return torch.cat([training.get_latents(batch) for batch in mine])

    whole_draw = draw_samples(0, 1)
    assert torch.allclose(
        torch.cat([draw_samples(rank, 2, 2) for rank in (0, 1)]),
        whole_draw,
        atol=10 * ROUNDING,
    )
    training = begin_training(*prior_overrides)
    batch = load_first_batch(training, 1)
    latents = training.get_latents(replace(batch, step=1))
    assert not torch.allclose(training.get_latents(batch), latents, atol=ROUNDING)

    repeated_batch = replace(
        batch, image=batch.image.expand(400, -1, -1, -1), positions=tuple(range(400))
    )
    mixed_latents, vae = (
        training.get_latents(repeated_batch),
        training.generator.vae,
    )
    posterior = vae.encode(batch.image.float() / 127.5 - 1).latent_dist
    mean, spread = (
        vae.config.scaling_factor * distribution[0]
        for distribution in (posterior.mean, posterior.std)
    )
    # five standard errors
    assert ((mixed_latents.mean(0) - mean).abs() < 5 * spread / 20).all()
    assert torch.allclose(mixed_latents.std(0), spread, rtol=0.25)


@pytest.mark.nightly
def test_weights_in_bf16_lose_most_steps_of_the_optimiser(
    prior_overrides, begin_training, tmp_path
):
    """As in BrainHiVE, there is no float32 copy, so small steps are rounded away."""
    prior_overrides = list(prior_overrides) + [
        "train.precision=bf16",
        "train.lr=1e-4",
        "train.steps=3",
    ]
    moved = {}
    for weights in ("fp32", "bf16"):
        training = begin_training(*prior_overrides, f"train.weights={weights}")
        initial_copies = [
            parameter.detach().clone() for parameter in training.prior.parameters()
        ]
        trained(training, RunFolder(tmp_path / weights))
        training.validate()
        final_parameters = list(training.prior.parameters())
        assert {parameter.dtype for parameter in final_parameters} == {
            torch.float32 if weights == "fp32" else torch.bfloat16
        }
        changed = [
            (value != b).float().mean()
            for value, b in zip(final_parameters, initial_copies, strict=True)
        ]
        moved[weights] = float(torch.stack(changed).mean())
    assert moved["bf16"] < 0.7 * moved["fp32"]

    # a training keeps its dtype where it is continued, and its prior is read in float32
    training.prior.save(tmp_path / "prior")
    loaded = priors.load(str(tmp_path / "prior"))
    pairs = zip(training.prior.parameters(), loaded.parameters(), strict=True)
    assert all(torch.equal(mine.float(), stored) for mine, stored in pairs)
    with pytest.raises(BrainhiveError, match="weights is bf16, and"):
        begin_training(*prior_overrides, "train.weights=bf16", "train.precision=fp32")


def test_two_processes_may_draw_equal_noise_like_published_code(
    prior_overrides, begin_training
):
    for equal in (False, True):
        draws = []
        for rank in range(2):
            training = begin_training(
                *prior_overrides,
                f"train.equal_noise={str(equal).lower()}",
                launch=Launch(rank, 2, torch.device("cpu"), is_read_only=True),
            )
            positions = tuple(training.launch.shard(range(8)))
            batch = replace(make_batch(4), positions=positions)
            is_kept, random = training.draw_dropout(batch)
            noise = torch.stack(
                [torch.rand(3, generator=generator) for generator in random]
            )
            draws.append((is_kept, noise))
        (kept, noise), (other_kept, other_noise) = draws
        assert torch.equal(noise, other_noise) is equal
        assert len(noise.unique(dim=0)) == 4
        if equal:
            assert torch.equal(kept, other_kept)
