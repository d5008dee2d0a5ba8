"""How models are named: a run, a variant, the newest run of a recipe or a data set, a
model folder.
"""

import os
import time
from pathlib import Path

import pytest

from brainhive_cli import api
from brainhive_cli.commands import eval_retrieval, reconstruct
from brainhive_cli.core import parts
from brainhive_cli.core.errors import MissingData, RecipeError
from brainhive_cli.core.measurements import Measurements
from brainhive_cli.core.recipe import Paths, shipped_recipes
from brainhive_cli.core.runs import RunFolder, of_variant
from brainhive_cli.core.sweep import variants
from brainhive_cli.training.alignment.recipe import Recipe
from brainhive_cli.training.alignment.references import (
    find_model,
    find_reference,
    name_of_training,
)
from brainhive_cli.training.alignment.trained import open_model

DECODERS = {"reconstruct": reconstruct, "eval-retrieval": eval_retrieval}
HAVIR = "papers/havir"
DECODING = sorted(
    path.relative_to(shipped_recipes())
    for command in DECODERS
    for path in shipped_recipes().glob(f"*/**/{command}.yaml")
)


def finished(
    home: Path, name: str, minutes_ago: float, recipe: str, *overrides: str
) -> RunFolder:
    """Write a run that a shipped recipe has made, but for its models."""
    made = Recipe.resolve("train-align", recipe, {}, overrides)
    run = RunFolder(home / "runs/train-align" / name)
    run.write_text("recipe.yaml", made.to_yaml())
    (run.path / "cells/sub-01_seed-42/model").mkdir(parents=True)
    run.write_json("metrics.json", Measurements().as_dict())
    then = time.time() - 60 * minutes_ago - 1
    os.utime(run.path / "metrics.json", (then, then))
    return run


@pytest.fixture
def neurons(home: Path) -> RunFolder:
    return finished(home, "cc2017-intra-neurons-1", 2, "papers/neurons")


def test_the_newest_run_of_the_recipe_is_taken_and_its_age_said(
    home: Path, neurons: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    own = finished(home, "nsd-intra-havir-1", 180, HAVIR, "backbone.hidden=64")
    finished(home, "nsd-intra-havir-0", 300, HAVIR)

    named = open_model(HAVIR, Paths())

    assert (named.folder.path, named.variant) == (own.path, "")
    said = " ".join(capsys.readouterr().err.split())
    assert "align run nsd-intra-havir-1, finished 3 hours ago" in said
    assert (
        "newer, but unfit: cc2017-intra-neurons-1, finished 2 minutes ago: made by "
        "papers/neurons"
    ) in said


def test_without_a_reference_the_newest_run_on_the_data_set_is_taken(
    home: Path, neurons: RunFolder
) -> None:
    meg = parts.resolve("datasets", "things-meg")
    assert open_model(None, Paths()).folder.path == neurons.path
    assert open_model("train-align", Paths()).folder.path == neurons.path
    assert open_model(neurons.path.name, Paths(), meg).folder.path == neurons.path
    with pytest.raises(
        MissingData,
        match=r"has the data set things-meg .*data set cc2017, not things-meg",
    ) as no:
        open_model(None, Paths(), meg)
    assert no.value.hint == "brainhive train-align --dataset things-meg"
    tuned = finished(home, "nsd-finetune-1", 1, "papers/mindeye2-1h")
    assert open_model(None, Paths()).folder.path == tuned.path
    assert find_reference(None, Paths(), may_be_finetuned=False)[0].path == neurons.path


def test_a_cell_is_named_by_its_name_or_is_the_only_one(
    home: Path, neurons: RunFolder
) -> None:
    named = find_reference(neurons.path.name, Paths())
    first = neurons.path / "cells/sub-01_seed-42/model"
    assert find_model(*named, "sub-01_seed-42") == find_model(*named) == first
    with pytest.raises(RecipeError, match="has no cell 'sub-09_seed-1'"):
        find_model(*named, "sub-09_seed-1")
    (neurons.path / "cells/sub-02_seed-42/model").mkdir(parents=True)
    assert find_model(*named, "sub-02_seed-42").parent.name == "sub-02_seed-42"
    with pytest.raises(RecipeError, match="2 cells, of which none is named") as caught:
        api.open_model(neurons.path.name)
    assert caught.value.hint == "sub-01_seed-42, sub-02_seed-42"


def test_every_shipped_recipe_that_decodes_says_which_training_it_is_for() -> None:
    for file in DECODING:
        recipe = DECODERS[file.stem].Recipe.resolve(
            file.stem, str(shipped_recipes() / file), {}, []
        )
        reference = (
            recipe.align_run[0]
            if isinstance(recipe.align_run, list)
            else recipe.align_run
        )
        name, variant = of_variant(reference)
        assert name_of_training(name, Paths().under_home("runs")) == name, file
        training = Recipe.resolve("train-align", name, {}, [])
        assert not variant or variant in variants(training), file
