"""What a reconstruction resolves: the run that its prior is for, cells, counts and
memory.
"""

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
from brainhive_cli.core.command import describe_missing
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.facts import SeenPictures
from brainhive_cli.core.jobs import list_inputs
from brainhive_cli.data.media.picture_digests import describe_pixels
from brainhive_cli.data.stores.learned import Learned, LearnedPictures
from brainhive_cli.demo.pictures import draw, scenes
from brainhive_cli.evaluation.reconstruction.run import resolve_job
from tests.worlds.reconstructions import align, cut, pictures_of


@pytest.mark.nightly
def test_the_newest_run_is_taken_and_named(
    go, aligned, drawing, small, runs, prior, capsys
):
    newest = align(go, small, runs, f"prior={prior}", "seeds=2")

    result = go("reconstruct", *drawing)

    assert result.folder.name.startswith(newest.name)
    assert f"align run {newest.name}, finished" in capsys.readouterr().err


@pytest.mark.nightly
def test_one_variant_of_a_sweep_is_reconstructed_from_and_a_whole_sweep_is_refused(
    go, world, drawing, small, runs, prior
):
    sweep = align(
        go, small, runs, f"prior={prior}", "train.epochs=1", "sweep.train.lr=1e-3,2e-3"
    )

    for asked in ((), (f"align_run={sweep.name}",)):
        with pytest.raises(
            RecipeError, match="is a sweep: name one of its variants"
        ) as caught:
            go("reconstruct", *drawing, *asked)
        assert caught.value.hint == f"{sweep.name}:lr=1e-3 or {sweep.name}:lr=2e-3"
    result = go("reconstruct", *drawing, f"align_run={sweep.name}:lr=2e-3")

    assert {path.split("/")[1] for path in pictures_of(result.folder)} == {"lr=2e-3"}
    assert "lr=2e-3" in result.folder.name


def test_where_the_newest_run_does_not_fit_the_prior_the_line_that_makes_one_is_given(
    go, world, drawing, small, runs, prior
):
    align(go, small, runs)  # with a fusion encoder of its own
    with pytest.raises(
        MissingData, match="was trained against another fusion encoder than that"
    ) as caught:
        go("reconstruct", *drawing)
    # of the run that is there
    dataset = "'dataset={kind: demo, subjects: 2, noise: 0.3, concepts: 40}'"
    training = f"brainhive train-align {dataset} --prior {prior}"
    assert caught.value.hint == f"{training} && brainhive reconstruct --prior {prior}"


def test_that_line_names_the_data_that_a_shipped_prior_is_for(home):
    refused = CliRunner().invoke(app, ["reconstruct", "--recipe", "demo"])
    line = re.findall(
        "brainhive (train-align .*?)(?: && |$)", refused.stderr, re.MULTILINE
    )[0]
    what = json.loads(
        CliRunner().invoke(app, [*shlex.split(line), "--check", "--json"]).stdout
    )["recipe"]
    assert refused.exit_code == MissingData.exit_code and what["prior"] == "demo:prior"
    assert (what["dataset"]["kind"], what["dataset"]["noise"]) == ("demo", 1.0)


def test_pictures_that_the_prior_was_trained_on_are_left_out_and_many_are_refused(
    go, aligned, drawing, prior, tmp_path
):
    shutil.copytree(prior, tmp_path / "seen")
    ids, asked = (
        [scene.image_id for scene in scenes("test")],
        (f"prior={tmp_path / 'seen'}",),
    )
    pixels = np.stack([describe_pixels(draw(scene)) for scene in scenes("test")[:21]])
    Learned(pictures=LearnedPictures.of("drawn", ids[:2], pixels[:2])).write(
        tmp_path / "seen"
    )

    result = go("reconstruct", *drawing, f"align_run={aligned}", *asked)

    files = sorted((result.folder / "samples").rglob("*.png"))
    assert len(files) == 6 and all(
        any(each in str(file) for each in ids[2:5]) for file in files
    )
    assert result.metrics.facts.seen_in_training == SeenPictures(
        count=2, of=100, names=ids[:2]
    )

    Learned(pictures=LearnedPictures.of("drawn", ids[:21], pixels)).write(
        tmp_path / "seen"
    )
    with pytest.raises(
        BrainhiveError,
        match=r"the prior .*seen was trained on 21 of the 100 test pictures",
    ):
        go("reconstruct", *drawing, f"align_run={aligned}", *asked, again=True)


def test_pictures_are_counted_and_inputs_listed_without_loading_weights(
    aligned, drawing, generator, tmp_path
):
    own = shutil.copytree(generator, tmp_path / "own")
    cut(own / "unet/diffusion_pytorch_model.safetensors")
    more = (f"generator.source={own}", "sources=brain,images", "best_of=2")

    recipe = reconstruct.Recipe.resolve("reconstruct", None, {}, [*drawing, *more])
    work = resolve_job(recipe).count_work()

    assert describe_missing(list_inputs(reconstruct, recipe)) == []
    # 3 items, 2 repeats, the best of 2
    assert work is not None and (work.count, work.cells) == (24, 2)
    shutil.rmtree(own / "unet")
    assert "has no unet/" in describe_missing(list_inputs(reconstruct, recipe))[0]


def test_pictures_that_are_not_fetched_are_missing_before_drawing(
    go, aligned, drawing, monkeypatch
):
    def list_unfetched(name, splits, images, split):
        return replace(images(split), missing=MissingData("not fetched"))

    monkeypatch.setattr("brainhive_cli.data.datasets._list_split", list_unfetched)
    recipe = reconstruct.Recipe.resolve("reconstruct", None, {}, drawing)
    assert "not fetched" in describe_missing(list_inputs(reconstruct, recipe))
    with pytest.raises(MissingData, match="not fetched"):
        go("reconstruct", *drawing)
