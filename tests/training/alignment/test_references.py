"""References of models: runs, recipes, data sets and model folders."""

import os
import time

import pytest

from brainhive_cli import api
from brainhive_cli.commands import eval_retrieval, reconstruct
from brainhive_cli.core.base.errors import MissingData, RecipeError
from brainhive_cli.core.recipes import Paths, parts, shipped_recipes
from brainhive_cli.core.results.measurements import Measurements
from brainhive_cli.core.runs.run_folder import RunFolder
from brainhive_cli.training.alignment import (
    Recipe,
    choose_cell,
    copy_training_keys,
    find_model,
    find_recipe_name,
    find_reference,
    list_model_folders,
)
from brainhive_cli.training.alignment.trained.run import open_model

DECODERS = {"reconstruct": reconstruct, "eval-retrieval": eval_retrieval}
HAVIR = "papers/havir"
DECODING = sorted(
    path.relative_to(shipped_recipes())
    for command in DECODERS
    for path in shipped_recipes().glob(f"*/**/{command}.yaml")
)


def finished(home, name, minutes_ago, recipe, *overrides):
    """Write a finished run of a shipped recipe, without its models."""
    created_recipe = Recipe.resolve("train-align", recipe, {}, overrides)
    run_folder = RunFolder(home / "runs/train-align" / name)
    run_folder.write_text("recipe.yaml", created_recipe.to_yaml())
    (run_folder.path / "cells/sub-01_seed-42/model").mkdir(parents=True)
    run_folder.write_json("metrics.json", Measurements().as_dict())
    modified_s = time.time() - 60 * minutes_ago - 1
    os.utime(run_folder.path / "metrics.json", (modified_s, modified_s))
    return run_folder


@pytest.fixture
def neurons(home):
    return finished(home, "cc2017-intra-neurons-1", 2, "papers/neurons")


def test_the_newest_run_of_the_recipe_is_taken_and_its_age_said(home, neurons, capsys):
    own_finished = finished(home, "nsd-intra-havir-1", 180, HAVIR, "backbone.hidden=64")
    finished(home, "nsd-intra-havir-0", 300, HAVIR)

    model = open_model(HAVIR, Paths())

    assert model.folder.path == own_finished.path
    text = " ".join(capsys.readouterr().err.split())
    assert "nsd-intra-havir-1, finished 3 hours ago" in text
    assert "1 newer run" in text
    assert "papers/neurons" in text


def test_the_default_is_the_newest_run_on_the_data_set(home, neurons):
    meg = parts.resolve("datasets", "things-meg")
    assert open_model(None, Paths()).folder.path == neurons.path
    assert open_model("train-align", Paths()).folder.path == neurons.path
    assert open_model(neurons.path.name, Paths(), meg).folder.path == neurons.path
    with pytest.raises(
        MissingData,
        match=r"things-meg .*cc2017",
    ) as caught:
        open_model(None, Paths(), meg)
    assert caught.value.hint == "brainhive train-align --dataset things-meg"
    tuned_run = finished(home, "nsd-finetune-1", 1, "papers/mindeye2-1h")
    assert open_model(None, Paths()).folder.path == tuned_run.path
    assert find_reference(None, Paths(), may_be_finetuned=False).path == neurons.path


def test_a_cell_is_named_by_its_name_or_is_the_only_one(home, neurons):
    reference = find_reference(neurons.path.name, Paths())
    first_model = neurons.path / "cells/sub-01_seed-42/model"
    assert (
        find_model(reference, "sub-01_seed-42") == find_model(reference) == first_model
    )
    with pytest.raises(RecipeError, match="sub-09_seed-1"):
        find_model(reference, "sub-09_seed-1")
    (neurons.path / "cells/sub-02_seed-42/model").mkdir(parents=True)
    assert find_model(reference, "sub-02_seed-42").parent.name == "sub-02_seed-42"
    with pytest.raises(RecipeError, match="2 models") as caught:
        api.open_model(neurons.path.name)
    assert "sub-01_seed-42, sub-02_seed-42" in caught.value.message
    assert "cell=sub-01_seed-42" in caught.value.hint


def test_every_shipped_decoding_recipe_names_its_training():
    for file in DECODING:
        recipe = DECODERS[file.stem].Recipe.resolve(
            file.stem, str(shipped_recipes() / file), {}, []
        )
        reference = (
            recipe.align_run[0]
            if isinstance(recipe.align_run, list)
            else recipe.align_run
        )
        root = Paths().under_home("runs")
        assert find_recipe_name(reference, root) == reference, file
        Recipe.resolve("train-align", reference, {}, [])


def test_a_cell_is_chosen_by_its_name_or_as_the_only_one():
    cells = {"a": 1, "b": 2}
    assert choose_cell(cells, "b", "run") == 2
    assert choose_cell({"a": 1}, "", "run") == choose_cell({"a": 1}, "a", "run") == 1
    for candidates, name in ((cells, ""), (cells, "c"), ({"a": 1}, "b"), ({}, "")):
        with pytest.raises(RecipeError):
            choose_cell(candidates, name, "run")


def test_models_of_a_run_are_listed_by_cell(tmp_path):
    run_folder = RunFolder(tmp_path)
    for name in ("a_seed-2", "a_seed-1"):
        (tmp_path / "cells" / name / "model").mkdir(parents=True)
    cells = tmp_path / "cells"
    assert list_model_folders(run_folder) == {
        f"a_seed-{seed}": cells / f"a_seed-{seed}/model" for seed in (1, 2)
    }
    assert find_model(run_folder, "a_seed-2") == cells / "a_seed-2/model"
    with pytest.raises(RecipeError):
        find_model(run_folder)


def test_a_tuned_recipe_has_an_objective_of_its_own_or_its_runs():
    def recipe(**fields):
        demo = {"dataset": {"kind": "demo", "subjects": 3}}
        return Recipe.resolve("train-align", None, demo | fields, [])

    term = {"prediction": "token", "loss": "mse"}
    training = recipe(terms=[term], dim=8, backbone="nice", train={"epochs": 3})
    tuned_fields = copy_training_keys(
        recipe(mode="finetune", train={"epochs": 2}), training
    )
    assert tuned_fields.terms == training.terms
    assert tuned_fields.dim == 8
    assert (tuned_fields.backbone.kind, tuned_fields.train.epochs) == ("nice", 2)
    assert tuned_fields.mode == "finetune"
    other_term = {"prediction": "token", "loss": "clip"}
    assert (
        copy_training_keys(recipe(terms=[other_term]), training).terms[0].loss.kind
        == "clip"
    )
    assert copy_training_keys(recipe(loss="mse"), training).terms == []


def test_a_run_has_precedence_over_a_recipe_of_the_same_name(
    home,
):
    root = home / "runs"
    assert find_recipe_name(HAVIR, root) == HAVIR
    assert find_recipe_name("papers/no_such", root) is None
    assert find_recipe_name(None, root) is None
    assert find_recipe_name("", root) is None
    finished(home, HAVIR, 1, HAVIR)
    assert find_recipe_name(HAVIR, root) is None
