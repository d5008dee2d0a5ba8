"""Which run a command takes: the newest that has the data set, heads and backbone that its recipe is for."""

import os
import time
from pathlib import Path

import pytest

from brainhive_cli.commands import eval_retrieval, explain, reconstruct, train_align
from brainhive_cli.core import parts
from brainhive_cli.core.errors import MissingData, RecipeError
from brainhive_cli.core.measurements import Measurements
from brainhive_cli.core.recipe import Paths, shipped_recipes
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.training.alignment.initialisation import find_starts
from brainhive_cli.training.alignment.matching_run import RunNeeds
from brainhive_cli.training.alignment.recipe import Cell, Recipe

DECODERS = {"reconstruct": reconstruct, "eval-retrieval": eval_retrieval, "explain": explain}
HAVIR = "papers/havir"
LINE = f"brainhive train-align --recipe {HAVIR}"
DECODING = sorted(
    path.relative_to(shipped_recipes())
    for command in ("reconstruct", "eval-retrieval")
    for path in shipped_recipes().glob(f"*/**/{command}.yaml")
)


def finished(home: Path, name: str, minutes_ago: float, recipe: str, *overrides: str) -> RunFolder:
    """Write a run that a shipped recipe has made, but for its models."""
    made = Recipe.resolve("train-align", recipe, {}, overrides)
    run = RunFolder(home / "runs/train-align" / name)
    run.write_text("recipe.yaml", made.to_yaml())
    (run.path / "cells/sub-01_seed-42/model").mkdir(parents=True)
    run.write_json("metrics.json", Measurements(notes={"cells": {}}).as_dict())
    then = time.time() - 60 * minutes_ago - 1
    os.utime(run.path / "metrics.json", (then, then))
    return run


@pytest.fixture
def neurons(home: Path) -> RunFolder:
    return finished(home, "cc2017-intra-neurons-1", 2, "papers/neurons")


def test_the_newest_run_that_fits_is_taken_and_its_age_said_though_another_is_newer(
    home: Path, neurons: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    own = finished(home, "nsd-intra-havir-1", 180, HAVIR, "backbone.hidden=64")
    finished(home, "nsd-intra-havir-0", 300, HAVIR)

    run, variant = RunNeeds(Paths(), trained_by=HAVIR).find(None)

    assert (run.path, variant) == (own.path, "")
    said = " ".join(capsys.readouterr().err.split())
    assert "align run nsd-intra-havir-1, finished 3 hours ago, 240 epochs" in said
    assert "newer, but unfit: cc2017-intra-neurons-1, finished 2 minutes ago: data set cc2017" in said


@pytest.mark.parametrize("command", DECODERS)
def test_where_no_run_fits_the_line_that_makes_one_is_given(
    home: Path, neurons: RunFolder, command: str
) -> None:
    name = HAVIR if command != "explain" else None
    recipe = DECODERS[command].Recipe.resolve(command, name, {}, [f"trained_by={HAVIR}"])

    missing = DECODERS[command].plan(recipe).missing[0]

    assert "has the data set nsd and the heads latent, image, image_projected, text" in missing
    assert "cc2017-intra-neurons-1, finished 2 minutes ago: data set cc2017, not nsd" in missing
    assert "no head latent, image_projected" in missing and "backbone neurons, not havir" in missing
    assert "head image of clip-bigg-tokens-view-2, not vd-image" in missing
    assert LINE in missing


@pytest.mark.parametrize("command", DECODERS)
def test_a_named_run_that_does_not_fit_is_refused_with_what_differs(
    home: Path, neurons: RunFolder, command: str
) -> None:
    overrides = [f"align_run={neurons.path.name}", f"trained_by={HAVIR}"]
    overrides += ["prior=identity"] if command == "reconstruct" else []
    recipe = DECODERS[command].Recipe.resolve(command, None, {}, overrides)

    missing = DECODERS[command].plan(recipe).missing[0]

    assert f"is no run of {HAVIR}: data set cc2017, not nsd, " in missing
    assert "trained_by=null takes it as it is" in missing and LINE in missing


def test_a_run_of_another_data_set_is_tested_zero_shot_only_if_it_is_named(
    home: Path, neurons: RunFolder
) -> None:
    needs = RunNeeds(Paths(), parts.resolve("datasets", "things-meg"))

    assert needs.find(neurons.path.name)[0].path == neurons.path
    with pytest.raises(
        MissingData, match=r"has the data set things-meg .*data set cc2017, not things-meg"
    ) as no:
        needs.find(None)
    assert no.value.hint == (
        "brainhive train-align --dataset things-meg; --run NAME tests a run of another data set, zero-shot"
    )


def test_the_head_that_is_asked_for_is_one_that_the_newest_run_must_have(
    home: Path, neurons: RunFolder
) -> None:
    low = finished(home, "nsd-intra-havir-low", 60, "papers/mindeye1-lowlevel")

    assert RunNeeds(Paths(), head="latent").find(None)[0].path == low.path
    assert RunNeeds(Paths(), head="motion").find(None)[0].path == neurons.path


def test_a_variant_is_that_of_the_newest_sweep_that_fits(home: Path) -> None:
    sweep = "sweep.signal.region_control=none,swapped,random"
    own = finished(home, "nsd-intra-sweep-1", 60, HAVIR, sweep)
    finished(home, "demo-joint-sweep-1", 5, "demo-havir")  # its sweep is of the same variants
    ablations = reconstruct.Recipe.resolve("reconstruct", "papers/havir-ablations", {}, [])
    needs = RunNeeds(Paths(), trained_by=ablations.trained_by)

    assert needs.find(":swapped") == (own, "swapped")
    with pytest.raises(MissingData, match="the variant 'exchanged'") as caught:
        needs.find(":exchanged")
    assert caught.value.hint == f"{LINE} {sweep}"


def test_a_part_starts_from_the_newest_run_of_its_sizes(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, cell = "cc2017-intra-mindeye2", Cell("sub-01_seed-42", (1,), (1,), 42)
    small = finished(home, f"{name}-1024", 5, "neurons-brain-24gb")
    starts = [{"backbone.brain": name}]

    def start(recipe: str) -> Path:
        backbone = Recipe.resolve("train-align", recipe, {}, []).backbone
        (found,) = find_starts(starts, cell, Paths(), backbone)[0]
        return found.path.parents[2]

    assert start("neurons-24gb") == small.path
    with pytest.raises(MissingData, match=r"1024, finished 5 minutes ago: hidden 1024, not 4096") as caught:
        start("papers/neurons")
    assert caught.value.hint == "brainhive train-align --recipe papers/neurons-brain"
    large = finished(home, f"{name}-4096", 60, "papers/neurons-brain")
    assert start("papers/neurons") == large.path
    assert f"newer, but unfit: {name}-1024" in " ".join(capsys.readouterr().err.split())


def test_without_any_run_of_the_name_the_training_that_makes_one_is_given(home: Path) -> None:
    backbone = Recipe.resolve("train-align", "neurons-24gb", {}, []).backbone
    with pytest.raises(
        MissingData, match="no finished train-align run called cc2017-intra-mindeye2"
    ) as caught:
        find_starts(
            [{"backbone.brain": "cc2017-intra-mindeye2"}], Cell("a", (1,), (1,), 1), Paths(), backbone
        )
    assert caught.value.hint == "brainhive train-align --recipe neurons-brain-24gb"


def test_fine_tuning_takes_a_run_of_the_training_that_its_recipe_names(
    home: Path, neurons: RunFolder
) -> None:
    recipe = train_align.Recipe.resolve("train-align", "papers/mindeye2-1h", {}, [])

    missing = train_align.plan(recipe).missing[0]

    assert "cc2017-intra-neurons-1" in missing and "backbone neurons, not with-prior" in missing
    assert "brainhive train-align --recipe papers/mindeye2" in missing
    with pytest.raises(RecipeError, match="is no run of papers/mindeye2"):
        RunNeeds(Paths(), trained_by="papers/mindeye2").find(neurons.path.name)


def test_a_file_that_a_data_set_should_have_is_answered_with_the_line_that_fetches_it(home: Path) -> None:
    for file, way in (
        ("data/cc2017/coco.pth", "brainhive fetch cc2017"),
        ("mine/coco.pth", "start_from=FILE"),
    ):
        with pytest.raises(MissingData, match=r"no file .*coco\.pth") as caught:
            find_starts([{"backbone.clipproj": file}], Cell("a", (1,), (1,), 1), Paths())
        assert way in caught.value.hint


@pytest.mark.parametrize("name", DECODING, ids=str)
def test_every_shipped_recipe_that_decodes_says_which_training_it_is_for(name: Path) -> None:
    recipe = DECODERS[name.stem].Recipe.resolve(name.stem, str(shipped_recipes() / name), {}, [])
    training = RunNeeds(Paths(), trained_by=recipe.trained_by).training
    assert training is not None
    assert RunNeeds(Paths(), trained_by=recipe.trained_by).differences(training) == []
    assert recipe.fingerprint() == recipe.model_copy(update={"trained_by": None}).fingerprint()
