"""How models are named: a run, a variant, the newest run of a recipe or a data set, a model folder."""

import os
import time
from pathlib import Path

import pytest

from brainhive_cli import api
from brainhive_cli.commands import eval_retrieval, reconstruct, train_align
from brainhive_cli.core import parts
from brainhive_cli.core.errors import MissingData, RecipeError
from brainhive_cli.core.inputs import describe_missing
from brainhive_cli.core.measurements import Measurements
from brainhive_cli.core.recipe import Paths, shipped_recipes
from brainhive_cli.core.runs import FOUND, RunFolder
from brainhive_cli.core.sweep import of_variant, variants
from brainhive_cli.training.alignment.initialisation import find_starts, name_starts
from brainhive_cli.training.alignment.recipe import Cell, Recipe
from brainhive_cli.training.alignment.references import find_model, find_reference, name_of_training, rejoined
from brainhive_cli.training.alignment.trained import open_model

DECODERS = {"reconstruct": reconstruct, "eval-retrieval": eval_retrieval}
HAVIR = "papers/havir"
LINE = f"brainhive train-align --recipe {HAVIR}"
DECODING = sorted(
    path.relative_to(shipped_recipes())
    for command in DECODERS
    for path in shipped_recipes().glob(f"*/**/{command}.yaml")
)


def finished(home: Path, name: str, minutes_ago: float, recipe: str, *overrides: str) -> RunFolder:
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


def test_the_newest_run_that_a_recipe_made_is_taken_and_its_age_said_though_another_is_newer(
    home: Path, neurons: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    own = finished(home, "nsd-intra-havir-1", 180, HAVIR, "backbone.hidden=64")
    finished(home, "nsd-intra-havir-0", 300, HAVIR)

    named = open_model(HAVIR, Paths())

    assert (named.folder.path, named.variant) == (own.path, "")
    said = " ".join(capsys.readouterr().err.split())
    assert "align run nsd-intra-havir-1, finished 3 hours ago" in said
    assert "newer, but unfit: cc2017-intra-neurons-1, finished 2 minutes ago: made by papers/neurons" in said


@pytest.mark.parametrize("command", DECODERS)
def test_where_a_recipe_has_made_no_run_the_line_that_makes_one_is_given(
    home: Path, neurons: RunFolder, command: str
) -> None:
    inputs = DECODERS[command].inputs(DECODERS[command].Recipe.resolve(command, HAVIR, {}, []))

    errors = [one.error for one in inputs if one.error is not None and one.is_missing]
    (missing,) = [error for error in errors if "has the recipe papers/havir" in error.message]
    assert "cc2017-intra-neurons-1, finished 2 minutes ago: made by papers/neurons" in missing.message
    assert missing.hint == LINE


def test_without_a_reference_the_newest_run_on_the_data_set_is_taken_and_zero_shot_needs_a_name(
    home: Path, neurons: RunFolder
) -> None:
    meg = parts.resolve("datasets", "things-meg")
    assert open_model(None, Paths()).folder.path == neurons.path
    assert open_model("train-align", Paths()).folder.path == neurons.path
    assert open_model(neurons.path.name, Paths(), meg).folder.path == neurons.path
    with pytest.raises(
        MissingData, match=r"has the data set things-meg .*data set cc2017, not things-meg"
    ) as no:
        open_model(None, Paths(), meg)
    assert no.value.hint == (
        "brainhive train-align --dataset things-meg, or --run NAME of a run on another data set, zero-shot"
    )
    with pytest.raises(MissingData) as no:
        find_reference(None, Paths(), meg, choose="finetune.run=")
    assert no.value.hint == "brainhive train-align --dataset things-meg"
    tuned = finished(home, "nsd-finetune-1", 1, "papers/mindeye2-1h")
    assert open_model(None, Paths()).folder.path == tuned.path
    assert find_reference(None, Paths(), may_be_finetuned=False)[0].path == neurons.path


def test_a_variant_is_that_of_the_newest_sweep_that_has_it(home: Path) -> None:
    recipe = "papers/havir-ablations"
    own = finished(home, "nsd-intra-sweep-1", 60, recipe)
    other = finished(home, "demo-joint-sweep-1", 5, "demo-havir")  # its sweep is of the same variants
    finished(home, "nsd-intra-sweep-2", 3, recipe, "sweep.signal.region_control=none,random")

    def found(reference: str) -> tuple[Path, str]:
        named = open_model(reference, Paths())
        return named.folder.path, named.variant

    assert found(f"{recipe}:swapped") == (own.path, "swapped")
    assert found(":swapped") == (other.path, "swapped")
    assert found("nsd-intra-sweep-1:random") == (own.path, "random")
    with pytest.raises(MissingData, match="the variant 'exchanged'") as caught:
        open_model(f"{recipe}:exchanged", Paths())
    assert caught.value.hint == f"brainhive train-align --recipe {recipe}, with a sweep that has 'exchanged'"
    with pytest.raises(RecipeError, match="nsd-intra-sweep-1 has no 'exchanged'"):
        open_model("nsd-intra-sweep-1:exchanged", Paths())


def test_a_run_or_folder_of_that_name_goes_before_a_recipe(home: Path) -> None:
    run = finished(home, "demo", 5, HAVIR)
    assert open_model("demo", Paths()).folder.path == run.path
    with pytest.raises(MissingData, match="has the recipe demo-real"):
        open_model("demo-real", Paths())


def test_a_recipe_of_ones_own_is_a_reference_too(home: Path) -> None:
    file = home / "mine/train.yaml"
    file.parent.mkdir()
    file.write_text(f"extends: {HAVIR}\nseeds: [7]\n")
    run = finished(home, "nsd-intra-havir-7", 9, str(file))
    finished(home, "nsd-intra-havir-8", 3, HAVIR)

    recipe = run.recipe(Recipe)
    assert (recipe.recipe_name, recipe.seeds, recipe.backbone.kind) == ("mine/train.yaml", [7], "havir")
    assert open_model(str(file), Paths()).folder.path == run.path
    again = Recipe.resolve("train-align", str(run.path / "recipe.yaml"), {}, [])
    assert again.recipe_name == "mine/train.yaml" and again.fingerprint() == recipe.fingerprint()


def test_a_part_starts_from_the_newest_run_of_a_recipe_and_the_line_makes_one(home: Path) -> None:
    cell = Cell("sub-01_seed-42", (1,), (1,), 42)
    starts = Recipe.resolve("train-align", "neurons-24gb", {}, []).train.starts
    named = [{"backbone.brain": starts[0]["backbone.brain"]}]
    with pytest.raises(MissingData, match="has the recipe neurons-brain-24gb") as caught:
        find_starts(named, cell, Paths(), {})
    assert caught.value.hint == "brainhive train-align --recipe neurons-brain-24gb"

    small = finished(home, "cc2017-intra-mindeye2-1024", 5, "neurons-brain-24gb")
    finished(home, "cc2017-intra-mindeye2-4096", 3, "papers/neurons-brain")
    (found,) = find_starts(named, cell, Paths(), {})[0].values()
    assert found == small.path / "cells/sub-01_seed-42/model"


def test_a_newer_run_of_the_recipe_that_a_stage_starts_from_makes_another_run(home: Path) -> None:
    first = finished(home, "nsd-intra-havir-1", 9, HAVIR)
    starts = [{"backbone": HAVIR, "heads": first.path.name}]
    assert name_starts(starts, Paths(), {}) == {HAVIR: first.path.name}
    opened = {HAVIR: find_reference(HAVIR, Paths())}
    second = finished(home, "nsd-intra-havir-2", 3, HAVIR)
    assert name_starts(starts, Paths(), {}) == {HAVIR: second.path.name}
    assert name_starts(starts, Paths(), opened) == {HAVIR: first.path.name}  # each is looked for once

    (second.path / "cells/sub-02_seed-42/model").mkdir(parents=True)
    with pytest.raises(RecipeError, match="could start from sub-01_seed-42 or sub-02_seed-42") as caught:
        find_starts([{"": HAVIR}], Cell("sub-03_seed-42", (3,), (3,), 42), Paths(), {})
    assert f"train.start_from={second.path}/cells/sub-01_seed-42/model" in caught.value.hint


def test_a_recipe_that_another_file_finds_again_is_known_by_both_names(home: Path) -> None:
    run = finished(home, "nsd-intra-havir-1", 9, HAVIR)
    run.write_json(FOUND, {"recipe_names": ["mine.yaml"]})
    (home / "mine.yaml").write_text(f"extends: {HAVIR}\n")
    for reference in (HAVIR, str(home / "mine.yaml")):
        assert open_model(reference, Paths()).folder.path == run.path
    (home / "other.yaml").write_text(f"extends: {HAVIR}\n")
    with pytest.raises(MissingData, match=r"made by mine\.yaml and papers/havir"):
        open_model(str(home / "other.yaml"), Paths())


def test_recipes_that_fine_tune_each_other_lack_the_run_of_the_other(home: Path) -> None:
    for name, other in (("a", "b"), ("b", "a")):
        (home / f"{name}.yaml").write_text(f"mode: finetune\nfinetune: {{run: {home / other}.yaml}}\n")
    recipe = train_align.Recipe.resolve("train-align", str(home / "a.yaml"), {}, [])
    (line,) = describe_missing(train_align.inputs(recipe))
    assert "no finished train-align run" in line and "b.yaml" in line


def test_variants_that_were_split_at_their_commas_are_joined_however_their_run_is_named(home: Path) -> None:
    two = "sweep={signal.region_control: [none, swapped], seeds: [[1], [2]]}"
    run = finished(home, "nsd-intra-sweep-1", 5, HAVIR, two)
    label = next(iter(variants(run.recipe(Recipe))))
    assert "," in label
    for reference in (run.path.name, HAVIR, "train-align", ""):
        name = f"{reference}:{label}"
        assert rejoined([*name.split(","), "other"], Paths()) == [name, "other"]


def test_a_cell_is_named_by_its_name_or_is_the_only_one(home: Path, neurons: RunFolder) -> None:
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


def test_fine_tuning_takes_the_newest_run_of_the_recipe_that_its_own_names(
    home: Path, neurons: RunFolder
) -> None:
    recipe = train_align.Recipe.resolve("train-align", "papers/mindeye2-1h", {}, [])

    (missing,) = describe_missing(train_align.inputs(recipe))

    assert "has the recipe papers/mindeye2" in missing and "made by papers/neurons" in missing
    assert "brainhive train-align --recipe papers/mindeye2" in missing


def test_a_file_that_a_data_set_should_have_is_answered_with_the_line_that_fetches_it(home: Path) -> None:
    for file, way in (
        ("data/cc2017/coco.pth", "brainhive fetch cc2017"),
        ("mine/coco.pth", "start_from=FILE"),
    ):
        with pytest.raises(MissingData, match=r"no file .*coco\.pth") as caught:
            find_starts([{"backbone.clipproj": file}], Cell("a", (1,), (1,), 1), Paths(), {})
        assert way in caught.value.hint


@pytest.mark.parametrize("name", DECODING, ids=str)
def test_every_shipped_recipe_that_decodes_says_which_training_it_is_for(name: Path) -> None:
    recipe = DECODERS[name.stem].Recipe.resolve(name.stem, str(shipped_recipes() / name), {}, [])
    reference = recipe.align_run[0] if isinstance(recipe.align_run, list) else recipe.align_run
    name, variant = of_variant(reference)
    assert name_of_training(name, Paths().under_home("runs")) == name
    training = Recipe.resolve("train-align", name, {}, [])
    assert not variant or variant in variants(training)
