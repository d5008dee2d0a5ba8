"""reconstruct: what its keys do, and what it refuses."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from brainhive_cli.commands import reconstruct
from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.media.views import to_pictures
from brainhive_cli.evaluation.reconstruction.generation import decode_signals, seed_of
from brainhive_cli.models.generators import Sampling, sdxl
from brainhive_cli.models.heads import Conditioning
from brainhive_cli.training.alignment.trained.run import open_model
from tests.worlds.reconstructions import cut, gap, pictures_of


@pytest.mark.nightly
def test_the_priors_adapter_is_applied_or_skipped(go, aligned, drawing):
    applied, skipped = (
        go("reconstruct", *drawing, f"adapter={adapter}")
        for adapter in ("apply", "skip")
    )

    pairs = zip(
        pictures_of(applied.folder).values(),
        pictures_of(skipped.folder).values(),
        strict=True,
    )
    assert all(np.abs(one - other).max() > 1 for one, other in pairs)
    assert "adapter apply" in applied.metrics.overall["ssim"].protocol


def test_a_recipe_that_cannot_work_is_refused_before_anything_is_loaded():
    for asked, message in (
        ("scheduler=turbo", "scheduler: Input should be 'euler', 'euler-ancestral'"),
        ("metrics=fid", "no metric called 'fid'"),
        ("negative_prompt=blurry", "negative_prompt has no effect without guidance"),
    ):
        with pytest.raises(RecipeError, match=message):
            reconstruct.Recipe.resolve("reconstruct", None, {}, [asked])


def test_metrics_say_how_their_pictures_were_generated():
    how = (
        "guidance=5",
        "scheduler=ddim",
        "prompt=a dog",
        "negative_prompt=blurry",
        "repeats=1",
        "best_of=3",
    )
    recipe = reconstruct.Recipe.resolve("reconstruct", None, {}, how)

    assert recipe.described(is_decoded=True) == (
        "1 repeat, each the best of 3 by its decoded head, ddim, guidance 5, "
        "prompt 'a dog', negative prompt 'blurry'"
    )


def test_damaged_parts_are_named_in_one_line(
    go, aligned, drawing, generator, prior, tmp_path
):
    own, own_prior = (
        shutil.copytree(generator, tmp_path / "g"),
        shutil.copytree(prior, tmp_path / "p"),
    )
    cut(own_prior / "fusion_encoder/diffusion_pytorch_model.safetensors")
    cut(own / "unet/diffusion_pytorch_model.safetensors")
    for asked, message in (
        (f"prior={own_prior}", "fusion_encoder"),
        (f"generator.source={own}", "unet of the generator .* is damaged"),
    ):
        with pytest.raises(BrainhiveError, match=message) as caught:
            go("reconstruct", *drawing, asked)
        assert caught.value.hint and "\n" not in caught.value.message
    shutil.rmtree(own_prior / "attn_adapter")
    with pytest.raises(BrainhiveError, match="lacks attn_adapter/config"):
        go("reconstruct", *drawing, f"prior={own_prior}")


@pytest.mark.nightly
def test_the_identity_prior_conditions_on_the_decoded_head_itself(
    go, small, drawing, generator, runs
):
    model = sdxl.Config(source=str(generator)).build()
    width = model.unet.config.cross_attention_dim
    run = go(
        "train-align", *small, runs, "subjects=1", "train.epochs=1", f"dim={width}"
    ).folder
    options = (
        "prior=identity",
        f"align_run={run}",
        "sources=brain,images,shuffled,zeroed,nearest",
    )

    result = go("reconstruct", *drawing, *options, "repeats=1")

    assert result.metrics.facts.sources == [
        "brain",
        "images",
        "shuffled",
        "zeroed",
        "nearest",
    ]
    align = open_model(str(run), Paths())
    (decoded_set,) = (decode_signals(model, 1, "test") for model in align.models)
    token, image_id = decoded_set.decoded.tensors["token"][:1], decoded_set.image_ids[0]
    given = Conditioning(embeddings=token[:, None])
    with torch.inference_mode():
        (expected,) = to_pictures(
            model.generate(given, [seed_of(0, image_id, 0)], 32, Sampling(steps=2))
        )
    file = result.folder / "samples" / decoded_set.name / image_id / "00.png"
    assert gap(expected, Image.open(file)) <= 1
    with pytest.raises(RecipeError, match="no option adapter"):
        go("reconstruct", *drawing, *options, "adapter=apply")


@pytest.mark.nightly
def test_a_model_folder_draws_what_its_run_draws_and_needs_a_data_set(
    go, small, aligned, drawing
):
    (model,) = aligned.glob("cells/*/model")
    by_run = go("reconstruct", *drawing, f"align_run={aligned.name}")

    by_model = go("reconstruct", *drawing, f"align_run={model}", small[0], "subjects=1")

    assert by_run.folder != by_model.folder
    ours, theirs = (
        list(pictures_of(made.folder).values()) for made in (by_run, by_model)
    )
    assert len(ours) == 6 and all(
        np.array_equal(*pair) for pair in zip(ours, theirs, strict=True)
    )
    with pytest.raises(BrainhiveError, match="does not say what to test it on"):
        go("reconstruct", *drawing, f"align_run={model}")
