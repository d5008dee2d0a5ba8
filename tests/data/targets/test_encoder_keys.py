"""Which encoders a prior or a model takes: found by its keys, or by the run that it
lies in.
"""

import shutil

import pytest

from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.data.targets.encoder_keys import match_keys
from brainhive_cli.models.encoders import resolve
from brainhive_cli.training.alignment.recipe import Recipe

COLOURS = "python:brainhive_cli.models.encoders.python:example"
ENCODER = "brainhive_cli-models-encoders-python-example"
"""How stores and priors call it."""


def names(recipe: str | None, *overrides: str, **flags: str) -> list[str]:
    return [
        config.name
        for config in Recipe.resolve("train-align", recipe, flags, overrides).encoders
    ]


def test_a_prior_of_other_encoders_is_refused_with_the_names_that_it_wants():
    dims = {"CLIP-ViT-H-14-laion2B-s32B-b79K": 1024, "vae": 1024}

    assert match_keys([resolve("clip-h14"), resolve("vae")], dims, "the prior P") == {
        "clip-h14": "CLIP-ViT-H-14-laion2B-s32B-b79K",
        "vae": "vae",
    }
    with pytest.raises(
        BrainhiveError, match="P takes the encoders clip-h14, vae, not vae"
    ) as caught:
        match_keys([resolve("vae")], dims, "the prior P")
    assert caught.value.hint == "--encoders clip-h14,vae"


def test_a_key_that_says_nothing_is_told_and_the_encoder_asked_for(prior):
    with pytest.raises(
        RecipeError, match=f"takes the encoders {ENCODER}, not all known"
    ) as caught:
        names(None, prior=str(prior))
    assert caught.value.hint.startswith("name with --encoders all of them")
    assert names(None, prior=str(prior), encoders=COLOURS) == [ENCODER]


def test_a_model_of_anyones_encoder_is_evaluated_where_its_run_is(
    go, small, world, tmp_path
):
    model = go("train-align", *small).folder / "cells" / "sub-01_seed-1" / "model"
    test = (small[0], "subjects=1", "sheet_rows=0", f"paths.runs={tmp_path / 'runs'}")

    assert (
        go("eval-retrieval", f"run={model}", *test).metrics.facts.verdict
        == "above chance"
    )
    elsewhere = shutil.copytree(model, tmp_path / "elsewhere")
    with pytest.raises(
        MissingData,
        match=f"takes embeddings {ENCODER}, and nothing says what made them",
    ):
        go("eval-retrieval", f"run={elsewhere}", *test)


def test_without_encoders_those_of_the_prior_are_taken_and_named_ones_stay():
    assert names(None) == ["clip-h14", "vae"]
    assert names(None, "sweep.prior=demo:prior") == ["demo-clip", "demo-vae"]
    assert names(None, prior="demo:prior", encoders="clip-b32") == ["clip-b32"]
    named, taken = (
        Recipe.resolve(
            "train-align", None, {"prior": "demo:prior", "encoders": encoders}, []
        )
        for encoders in ("demo-clip,demo-vae", None)
    )
    assert named.fingerprint() == taken.fingerprint()
