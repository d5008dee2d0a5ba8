"""Tests of the choice of the run, and of refused reconstructions."""

import json
import re
import shlex
import shutil
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.commands import reconstruct
from brainhive_cli.core.base.errors import BrainhiveError, MissingData
from brainhive_cli.core.files.inputs import describe_missing
from brainhive_cli.core.results.facts import SeenPictures
from brainhive_cli.core.runs.jobs import list_inputs
from brainhive_cli.data.media.picture_digests import describe_pixels
from brainhive_cli.data.stores import LearnedPictures, TrainingHistory
from brainhive_cli.demo.pictures import draw_scene, list_scenes
from brainhive_cli.evaluation.reconstruction.run import resolve_job
from tests.worlds.reconstructions import train_first_subject, truncate


@pytest.mark.nightly
def test_the_newest_run_is_taken_and_named(
    run_command,
    prior_align_run,
    reconstruct_overrides,
    align_overrides,
    runs,
    prior,
    capsys,
):
    newest = train_first_subject(
        run_command, align_overrides, runs, f"prior={prior}", "seeds=2"
    )

    result = run_command("reconstruct", *reconstruct_overrides)

    # the name says what was trained, without the digest of the training
    assert result.folder.name.startswith(newest.name.rpartition("-")[0])
    assert newest.name in capsys.readouterr().err


def test_other_tokens_name_the_command_that_trains_a_run(
    run_command, world, reconstruct_overrides, align_overrides, runs, prior
):
    # this run has a fusion encoder of its own
    train_first_subject(run_command, align_overrides, runs)
    with pytest.raises(MissingData, match="fusion encoder") as caught:
        run_command("reconstruct", *reconstruct_overrides)
    # the hint has the data set of this run
    dataset = "'dataset={kind: demo, subjects: 2, noise: 0.3, concepts: 40}'"
    training = f"brainhive train-align {dataset} --prior {prior}"
    assert caught.value.hint == f"{training} && brainhive reconstruct --prior {prior}"


def test_that_line_names_the_data_that_a_shipped_prior_is_for(home):
    refused = CliRunner().invoke(app, ["reconstruct", "--recipe", "demo"])
    assert refused.exit_code == MissingData.exit_code
    line = re.findall(
        "brainhive (train-align .*?)(?: && |$)", refused.stderr, re.MULTILINE
    )[0]
    arguments = list(shlex.split(line)) + ["--check", "--json"]
    recipe = json.loads(CliRunner().invoke(app, arguments).stdout)["recipe"]
    assert recipe["prior"] == "demo:prior"
    assert recipe["dataset"]["kind"] == "demo"
    assert recipe["dataset"]["noise"] == 1.0


def test_training_pictures_of_the_prior_are_left_out_or_refused(
    run_command, prior_align_run, reconstruct_overrides, prior, tmp_path
):
    own_prior = tmp_path / "seen"
    shutil.copytree(prior, own_prior)
    ids = [scene.image_id for scene in list_scenes("test")]
    overrides = list(reconstruct_overrides) + [
        f"align_run={prior_align_run}",
        f"prior={own_prior}",
    ]
    pixels = np.stack(
        [describe_pixels(draw_scene(scene)) for scene in list_scenes("test")[:21]]
    )
    seen_pictures = LearnedPictures.from_image_ids("drawn", ids[:2], pixels[:2])
    TrainingHistory(pictures=seen_pictures).save(own_prior)

    result = run_command("reconstruct", *overrides)

    files = sorted((result.folder / "samples").rglob("*.png"))
    assert len(files) == 6
    for file in files:
        assert any(image_id in str(file) for image_id in ids[2:5])
    assert result.metrics.facts.seen_in_training == SeenPictures(
        count=2, of=100, names=ids[:2]
    )

    # 21 of 100 are too many
    seen_pictures = LearnedPictures.from_image_ids("drawn", ids[:21], pixels)
    TrainingHistory(pictures=seen_pictures).save(own_prior)
    with pytest.raises(BrainhiveError, match=r"seen .*\b21\b.*\b100\b"):
        run_command("reconstruct", *overrides, again=True)


def test_work_and_inputs_are_listed_without_loading_weights(
    prior_align_run, reconstruct_overrides, generator, tmp_path
):
    damaged_generator = shutil.copytree(generator, tmp_path / "damaged")
    truncate(damaged_generator / "unet/diffusion_pytorch_model.safetensors")
    overrides = reconstruct_overrides + (
        f"generator.source={damaged_generator}",
        "sources=brain,images",
        "best_of=2",
    )
    recipe = reconstruct.Recipe.resolve("reconstruct", None, {}, overrides)
    work = resolve_job(recipe).count_work()

    assert describe_missing(list_inputs(reconstruct, recipe)) == []
    # 2 sources × 3 items × 2 repeats × the best of 2
    assert work is not None
    assert (work.count, work.cells) == (24, 2)
    shutil.rmtree(damaged_generator / "unet")
    assert "unet/" in describe_missing(list_inputs(reconstruct, recipe))[0]


def test_absent_pictures_are_missing_before_generation(
    run_command, prior_align_run, reconstruct_overrides, monkeypatch
):
    def list_unfetched(name, splits, images, split):
        return replace(images(split), missing_error=MissingData("not fetched"))

    monkeypatch.setattr("brainhive_cli.data.datasets._list_split", list_unfetched)
    recipe = reconstruct.Recipe.resolve("reconstruct", None, {}, reconstruct_overrides)
    assert "not fetched" in describe_missing(list_inputs(reconstruct, recipe))
    with pytest.raises(MissingData, match="not fetched"):
        run_command("reconstruct", *reconstruct_overrides)
