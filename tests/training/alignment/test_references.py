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
from brainhive_cli.core.runs import RunFolder, split_variant
from brainhive_cli.core.sweep import make_variants
from brainhive_cli.training.alignment.recipe import Recipe
from brainhive_cli.training.alignment.references import (
    choose_cell,
    find_model,
    find_reference,
    inherited,
    known_variants,
    model_folders,
    name_of_training,
)
from brainhive_cli.training.alignment.trained.run import open_model

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
        "cc2017-intra-neurons-1, finished 2 minutes ago: made by papers/neurons"
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
        name, variant = split_variant(reference)
        assert name_of_training(name, Paths().under_home("runs")) == name, file
        training = Recipe.resolve("train-align", name, {}, [])
        assert not variant or variant in make_variants(training), file


def test_a_cell_is_chosen_by_its_name_or_as_the_only_one() -> None:
    cells = {"a": 1, "b": 2}
    assert choose_cell(cells, "b", "run") == 2
    assert choose_cell({"a": 1}, "", "run") == choose_cell({"a": 1}, "a", "run") == 1
    for among, name in ((cells, ""), (cells, "c"), ({"a": 1}, "b"), ({}, "")):
        with pytest.raises(RecipeError):
            choose_cell(among, name, "run")


def test_models_of_cells_lie_below_their_variant(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for name in ("lr=1/a_seed-2", "lr=1/a_seed-1", "lr=2/a_seed-1"):
        (tmp_path / "cells" / name / "model").mkdir(parents=True)
    cells = tmp_path / "cells"
    assert model_folders(run, "lr=1") == {
        f"a_seed-{seed}": cells / f"lr=1/a_seed-{seed}/model" for seed in (1, 2)
    }
    names = ["lr=1/a_seed-1", "lr=1/a_seed-2", "lr=2/a_seed-1"]
    assert [*model_folders(run)] == names
    assert find_model(run, "lr=2") == cells / "lr=2/a_seed-1/model"
    assert find_model(run, "lr=1", "a_seed-2") == cells / "lr=1/a_seed-2/model"
    with pytest.raises(RecipeError):
        find_model(run, "lr=1")


def test_a_tuned_recipe_has_an_objective_of_its_own_or_its_runs() -> None:
    def recipe(**fields: object) -> Recipe:
        demo = {"dataset": {"kind": "demo", "subjects": 3}}
        return Recipe.resolve("train-align", None, demo | fields, [])

    term = {"prediction": "token", "loss": "mse"}
    training = recipe(terms=[term], dim=8, backbone="nice", train={"epochs": 3})
    tuned = inherited(recipe(mode="finetune", train={"epochs": 2}), training)
    assert tuned.terms == training.terms and tuned.dim == 8
    assert (tuned.backbone.kind, tuned.train.epochs) == ("nice", 2)
    assert tuned.mode == "finetune"
    other = {"prediction": "token", "loss": "clip"}
    assert inherited(recipe(terms=[other]), training).terms[0].loss.kind == "clip"
    assert inherited(recipe(loss="mse"), training).terms == []


def test_a_reference_names_a_recipe_only_where_no_run_has_its_name(
    home: Path,
) -> None:
    root = home / "runs"
    assert name_of_training(HAVIR, root) == HAVIR
    assert name_of_training("papers/no_such", root) is None
    assert name_of_training(None, root) is None and name_of_training("", root) is None
    finished(home, HAVIR, 1, HAVIR)
    assert name_of_training(HAVIR, root) is None


def test_variants_of_all_runs_or_of_the_named_one_are_known(home: Path) -> None:
    finished(home, "a", 1, HAVIR, "sweep={train.weight_decay: [0.1, 0.2]}")
    finished(home, "b", 2, HAVIR, "sweep={train.weight_decay: [0.2, 0.3]}")
    paths = Paths()
    low, high = (
        {f"weight_decay={value}" for value in values}
        for values in ((0.1, 0.2), (0.2, 0.3))
    )
    assert known_variants("a", paths) == low
    assert known_variants("b", paths) == high
    for every in (None, "", "train-align", HAVIR):
        assert known_variants(every, paths) == low | high
    assert known_variants("no such", paths) == set()
