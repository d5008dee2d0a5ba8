"""One variant of a sweep, by its name, wherever a run is named."""

import pytest

from brainhive_cli.commands import train_align
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.recipe import Paths
from brainhive_cli.training.alignment.job import Job
from brainhive_cli.training.alignment.recipe import Cell
from brainhive_cli.training.alignment.references import rejoined

TWO = "sweep={train.lr: [1e-3, 2e-3], train.weight_decay: [0, 0.1]}"
ONE = "lr=1e-3,weight_decay=0.1"


@pytest.fixture(scope="module")
def swept(shared_world, tmp_path_factory, go, small):
    """A joint sweep of two keys, so that its variants have a comma."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BRAINHIVE_HOME", str(shared_world))
        runs = tmp_path_factory.mktemp("runs")
        return go(
            "train-align", *small, f"paths.runs={runs}", "mode=joint", "subjects=1", "train.epochs=1", TWO
        ).folder


def test_names_of_variants_are_whole_though_they_have_commas(swept):
    paths = Paths(runs=str(swept.parents[1]))
    parts = f"{swept.name}:{ONE},other,{swept}:{ONE}".split(",")
    assert rejoined(parts, paths) == [f"{swept.name}:{ONE}", "other", f"{swept}:{ONE}"]
    assert rejoined(["a", "b:c", "d"], paths) == ["a", "b:c", "d"]


def test_one_variant_is_evaluated_by_its_name(go, world, swept, tmp_path):
    found = go("eval-retrieval", f"paths.runs={tmp_path}", f"run={swept}:{ONE}", "sheet_rows=0").metrics
    assert [cell.cell for cell in found.facts.cells.values()] == [f"{ONE}/all_seed-1"]
    assert found.facts.run == f"{swept}:{ONE}" and ONE in found.facts.protocol


def test_several_variants_can_be_averaged(go, world, swept, tmp_path):
    other = f"{swept}:lr=2e-3,weight_decay=0"
    found = go("eval-retrieval", f"paths.runs={tmp_path}", f"run={swept}:{ONE},{other}", "sheet_rows=0")
    assert found.metrics.facts.runs == [f"{swept}:{ONE}", other]


def test_fine_tuning_starts_from_a_variant_and_refuses_the_whole_sweep(world, small, swept):
    def job_of(run: str) -> Job:
        overrides = [*small, "mode=finetune", f"finetune={{run: '{run}'}}"]
        return Job.resolve(train_align.Recipe.resolve("train-align", None, {}, overrides))

    with pytest.raises(RecipeError, match="is a sweep") as caught:
        job_of(str(swept))
    assert f"{swept.name}:{ONE}" in caught.value.hint

    job = job_of(f"{swept}:{ONE}")

    assert job.recipe.subjects == [2] and job.recipe.finetune.run == f"{swept}:{ONE}"
    (start,) = job.find_starts(Cell("sub-02_seed-1", (2,), (2,), 1))[0].values()
    assert start == swept / "cells" / ONE / "all_seed-1" / "model" and start.is_dir()


def test_variants_of_other_subjects_are_evaluated_and_not_compared(go, world, small, runs, capsys):
    sweep = go("train-align", *small, runs, "train.epochs=1", "sweep={subjects: [[1], [2]]}").folder

    found = go("eval-retrieval", f"run={sweep}", "sheet_rows=0", "ceiling_splits=0", runs)

    facts = found.metrics.facts
    assert [*facts.variants] == ["subjects=1", "subjects=2"]
    assert facts.comparisons == [] and len(facts.not_compared) == 1
    assert "have different subjects" in capsys.readouterr().err
    assert all(table.rows for table in found.tables)
