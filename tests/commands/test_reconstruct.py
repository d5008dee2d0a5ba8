"""Tests of the keys of reconstruct, and of refused recipes."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from brainhive_cli.commands import reconstruct
from brainhive_cli.core.base.errors import BrainhiveError, RecipeError
from brainhive_cli.core.recipes.recipe import Paths
from brainhive_cli.data.media.views import to_pictures
from brainhive_cli.evaluation.reconstruction.generation import (
    decode_signals,
    derive_noise_seed,
)
from brainhive_cli.models.generators import Sampling, sdxl
from brainhive_cli.models.heads import Conditioning
from brainhive_cli.training.alignment.trained import open_model, open_test_set
from tests.worlds.reconstructions import measure_max_difference, read_pictures, truncate


@pytest.mark.nightly
def test_the_priors_adapter_is_applied_or_skipped(
    run_command, prior_align_run, reconstruct_overrides
):
    applied = run_command("reconstruct", *reconstruct_overrides, "adapter=apply")
    skipped = run_command("reconstruct", *reconstruct_overrides, "adapter=skip")

    skipped_pictures = read_pictures(skipped.folder)
    for name, picture in read_pictures(applied.folder).items():
        assert np.abs(picture - skipped_pictures[name]).max() > 1
    assert "adapter apply" in applied.metrics.overall["ssim"].protocol


def test_a_recipe_that_cannot_work_is_refused_before_loading():
    for override, fact in (
        ("scheduler=turbo", "scheduler.*'euler', 'euler-ancestral'"),
        ("metrics=fid", "'fid'"),
        ("negative_prompt=blurry", "negative_prompt.*guidance"),
    ):
        with pytest.raises(RecipeError, match=fact):
            reconstruct.Recipe.resolve("reconstruct", None, {}, [override])


def test_metrics_say_how_their_pictures_were_generated():
    overrides = (
        "guidance=5",
        "scheduler=ddim",
        "prompt=a dog",
        "negative_prompt=blurry",
        "repeats=1",
        "best_of=3",
    )
    recipe = reconstruct.Recipe.resolve("reconstruct", None, {}, overrides)

    description = recipe.describe_generation(is_decoded=True)
    for fact in ("1 repeat", "best of 3", "ddim", "guidance 5", "'a dog'", "'blurry'"):
        assert fact in description


def test_damaged_parts_are_named_in_one_line(
    run_command, prior_align_run, reconstruct_overrides, generator, prior, tmp_path
):
    damaged_generator = shutil.copytree(generator, tmp_path / "generator")
    damaged_prior = shutil.copytree(prior, tmp_path / "prior")
    truncate(damaged_prior / "fusion_encoder/diffusion_pytorch_model.safetensors")
    truncate(damaged_generator / "unet/diffusion_pytorch_model.safetensors")
    for override, module in (
        (f"prior={damaged_prior}", "fusion_encoder"),
        (f"generator.source={damaged_generator}", "unet"),
    ):
        with pytest.raises(BrainhiveError, match=module) as caught:
            run_command("reconstruct", *reconstruct_overrides, override)
        assert caught.value.hint
        assert "\n" not in caught.value.message
    shutil.rmtree(damaged_prior / "attn_adapter")
    with pytest.raises(BrainhiveError, match="attn_adapter/config"):
        run_command("reconstruct", *reconstruct_overrides, f"prior={damaged_prior}")


@pytest.mark.nightly
def test_the_identity_prior_passes_the_decoded_head_on(
    run_command, align_overrides, reconstruct_overrides, generator, runs
):
    model = sdxl.Config(source=str(generator)).build()
    width = model.unet.config.cross_attention_dim
    run_folder = run_command(
        "train-align",
        *align_overrides,
        runs,
        "subjects=1",
        "train.epochs=1",
        f"dim={width}",
    ).folder
    options = [
        "prior=identity",
        f"align_run={run_folder}",
        "sources=brain,images,shuffled,zeroed,nearest",
    ]

    result = run_command("reconstruct", *reconstruct_overrides, *options, "repeats=1")

    sources = ["brain", "images", "shuffled", "zeroed", "nearest"]
    assert result.metrics.facts.sources == sources
    align = open_model(str(run_folder), Paths())
    tests = open_test_set(align, "test")
    decoded_set = decode_signals(tests, align.open_first(), 1)
    token, image_id = decoded_set.decoded.tensors["token"][:1], decoded_set.image_ids[0]
    conditioning = Conditioning(embeddings=token[:, None])
    seeds = [derive_noise_seed(0, image_id, 0)]
    with torch.inference_mode():
        samples = model.generate(conditioning, seeds, 32, Sampling(steps=2))
        (expected,) = to_pictures(samples)
    file = result.folder / "samples" / decoded_set.name / image_id / "00.png"
    assert measure_max_difference(expected, Image.open(file)) <= 1
    with pytest.raises(RecipeError, match="adapter"):
        run_command("reconstruct", *reconstruct_overrides, *options, "adapter=apply")


@pytest.mark.nightly
def test_a_model_folder_generates_the_pictures_of_its_run(
    run_command, align_overrides, prior_align_run, reconstruct_overrides
):
    (model,) = prior_align_run.glob("cells/*/model")
    by_run = run_command(
        "reconstruct", *reconstruct_overrides, f"align_run={prior_align_run.name}"
    )

    by_model = run_command(
        "reconstruct",
        *reconstruct_overrides,
        f"align_run={model}",
        align_overrides[0],
        "subjects=1",
    )

    assert by_run.folder != by_model.folder
    run_pictures = list(read_pictures(by_run.folder).values())
    model_pictures = list(read_pictures(by_model.folder).values())
    assert len(run_pictures) == 6
    for run_picture, model_picture in zip(run_pictures, model_pictures, strict=True):
        assert np.array_equal(run_picture, model_picture)
    with pytest.raises(BrainhiveError) as caught:
        run_command("reconstruct", *reconstruct_overrides, f"align_run={model}")
    assert model.name in caught.value.message
