"""Tests of recipes that are refused before the generator is loaded."""

from types import SimpleNamespace

import numpy as np
import pytest

from brainhive_cli.core.base.errors import BrainhiveError, RecipeError
from brainhive_cli.data.media.stimuli import Clip
from brainhive_cli.evaluation.reconstruction import run as runs_of_reconstruct
from brainhive_cli.evaluation.reconstruction.recipe import Recipe
from brainhive_cli.evaluation.reconstruction.run import resolve_job
from brainhive_cli.evaluation.reconstruction.scoring import require_stimulus_frames


def recipe(*keys):
    return Recipe.resolve("reconstruct", None, {}, keys)


@pytest.mark.parametrize(
    ("keys", "facts"),
    [
        (("resolution_px=33",), ("33", "multiple of 8")),
        (("strength=0.5",), ("strength",)),
        (("metrics=[]",), ("none of the metrics",)),
        (("split=train",), ("240 of the 240",)),
        (("prior=identity",), ("16, not 64",)),
        (("generator={kind: autoencoder, source: random}",), ("Decoder",)),
        (("prompt=nice",), ("text_encoder",)),
    ],
)
def test_what_does_not_fit_is_refused_before_it(
    run_command,
    reconstruct_overrides,
    prior_align_run,
    tmp_path,
    keys,
    facts,
):
    partitions = {key.partition("=")[0] for key in keys}
    kept_keys = [
        key for key in reconstruct_overrides if key.partition("=")[0] not in partitions
    ]
    asked = list(kept_keys) + [f"align_run={prior_align_run}"] + list(keys)
    with pytest.raises(BrainhiveError) as second_error:
        run_command("reconstruct", *asked)
    job = resolve_job(recipe(*asked))
    if keys != ("prompt=nice",):  # whose text encoders are inputs
        with pytest.raises(BrainhiveError) as caught:
            job.check()
        assert second_error.value.message == caught.value.message
    for fact in facts:
        assert fact in f"{second_error.value.message} {second_error.value.hint}"
    assert not list((tmp_path / "runs/reconstruct").rglob("recipe.yaml"))


def test_what_fits_is_not_refused(reconstruct_overrides, prior_align_run):
    job = resolve_job(recipe(*reconstruct_overrides, f"align_run={prior_align_run}"))
    job.check()
    job.check()  # the generator is made by its shapes once


@pytest.mark.parametrize(
    ("keys", "facts"),
    [
        (["sources=[still]"], ("still",)),
        (["metric_encoders=[concepts]"], ("concepts",)),
    ],
)
def test_keys_that_no_run_can_have_are_refused(keys, facts):
    with pytest.raises(RecipeError) as caught:
        recipe(*keys)
    for fact in facts:
        assert fact in caught.value.message


@pytest.mark.parametrize(("metrics", "is_fine"), [("pixcorr", True), ("ssim", False)])
def test_runs_are_compared_by_a_metric_of_both(
    reconstruct_overrides,
    prior_align_run,
    monkeypatch,
    metrics,
    is_fine,
):
    keys = [key for key in reconstruct_overrides if not key.startswith("metrics=")]
    job = resolve_job(
        recipe(*keys, f"align_run={prior_align_run}", f"metrics={metrics}")
    )
    facts = SimpleNamespace(sources=["brain"])
    stand_in = SimpleNamespace(facts=facts, scopes={"brain": {"pixcorr": 1}})
    other_stand_in = SimpleNamespace(path="other", measurements=lambda: stand_in)
    find = lambda paths, names: [other_stand_in]  # noqa: E731 (short)
    monkeypatch.setattr(runs_of_reconstruct, "find_runs_to_compare", find)
    if is_fine:
        job.check()
        return
    with pytest.raises(BrainhiveError) as caught:
        job.check()
    assert "other" in caught.value.message


def test_a_run_of_another_command_is_not_compared(
    reconstruct_overrides, prior_align_run, shared_prior_align_run
):
    # which lies in other runs than those of the home
    with pytest.raises(RecipeError) as caught:
        resolve_job(
            recipe(
                *reconstruct_overrides,
                f"align_run={prior_align_run}",
                f"against=[{shared_prior_align_run}]",
            )
        ).check()
    assert "train-align" in caught.value.message


def clip(frames):
    return Clip(np.zeros((frames, 4, 4, 3), np.uint8), 8.0)


def test_clips_have_the_frames_of_the_stimuli():
    require_stimulus_frames(clip(4), clip(4))
    for stimulus in (clip(6), "a picture"):
        with pytest.raises(BrainhiveError) as caught:
            require_stimulus_frames(stimulus, clip(4))
        assert "4 frames" in caught.value.message
