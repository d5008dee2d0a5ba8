"""Encoders of a prior or a model, found by its keys or by its run."""

import shutil

import pytest

from brainhive_cli.core.base.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.data.targets.encoder_keys import match_keys
from brainhive_cli.models.encoders import resolve
from brainhive_cli.training.alignment.recipe import Recipe

CUSTOM_ENCODER = "python:brainhive_cli.models.encoders.python:example"
ENCODER = "brainhive_cli-models-encoders-python-example"
"""Name of that encoder in stores and priors."""


def list_encoders(recipe, *overrides, **flags):
    return [
        config.name
        for config in Recipe.resolve("train-align", recipe, flags, overrides).encoders
    ]


def test_a_prior_of_other_encoders_is_refused_by_name():
    dims = {"CLIP-ViT-H-14-laion2B-s32B-b79K": 1024, "vae": 1024}

    assert match_keys([resolve("clip-h14"), resolve("vae")], dims, "the prior P") == {
        "clip-h14": "CLIP-ViT-H-14-laion2B-s32B-b79K",
        "vae": "vae",
    }
    with pytest.raises(
        BrainhiveError, match=r"prior P .*\bclip-h14, vae, not vae"
    ) as caught:
        match_keys([resolve("vae")], dims, "the prior P")
    assert caught.value.hint == "--encoders clip-h14,vae"


def test_a_key_without_an_encoder_is_named_in_the_error(prior):
    with pytest.raises(RecipeError, match=ENCODER) as caught:
        list_encoders(None, prior=str(prior))
    assert "--encoders" in caught.value.hint
    assert ENCODER in caught.value.hint
    assert list_encoders(None, prior=str(prior), encoders=CUSTOM_ENCODER) == [ENCODER]


def test_a_model_of_a_users_encoder_is_evaluated_in_its_run(
    run_command, align_overrides, world, tmp_path
):
    model = (
        run_command("train-align", *align_overrides).folder
        / "cells"
        / "sub-01_seed-1"
        / "model"
    )
    test = [
        align_overrides[0],
        "subjects=1",
        "sheet_rows=0",
        f"paths.runs={tmp_path / 'runs'}",
    ]

    assert (
        run_command("eval-retrieval", f"run={model}", *test).metrics.facts.verdict
        == "above chance"
    )
    elsewhere = shutil.copytree(model, tmp_path / "elsewhere")
    with pytest.raises(MissingData, match=ENCODER):
        run_command("eval-retrieval", f"run={elsewhere}", *test)


def test_encoders_are_named_by_the_recipe_or_by_the_prior():
    assert list_encoders(None) == ["clip-h14", "vae"]
    assert list_encoders(None, "sweep.prior=demo:prior") == ["demo-clip", "demo-vae"]
    assert list_encoders(None, prior="demo:prior", encoders="clip-b32") == ["clip-b32"]
    named_encoders, inherited = (
        Recipe.resolve(
            "train-align", None, {"prior": "demo:prior", "encoders": encoders}, []
        )
        for encoders in ("demo-clip,demo-vae", None)
    )
    assert named_encoders.fingerprint() == inherited.fingerprint()
