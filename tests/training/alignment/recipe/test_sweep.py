"""Sweeps and their variants, and published numbers in reports."""

import pytest

from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.facts import CellFacts
from brainhive_cli.core.measurements import Measurements, Metric
from brainhive_cli.core.recipe import Paths
from brainhive_cli.training.alignment.cells import Cell
from brainhive_cli.training.alignment.facts import TrainingFacts
from brainhive_cli.training.alignment.recipe import Recipe
from brainhive_cli.training.alignment.references import rejoin_variant_names
from brainhive_cli.training.alignment.training import cell_folder
from brainhive_cli.training.alignment.training.job import Job

SWEEP = ("subjects=1,2", "train.epochs=1", "sweep.train.lr=[1e-3,2e-3]")


def test_a_sweep_is_run_as_cells_and_goes_on_where_it_stopped(
    run_command, align_overrides, world, tmp_path, monkeypatch
):
    here, trained = f"paths.runs={tmp_path / 'runs'}", []
    real = cell_folder.train_cell

    def until_the_third(name: str, *rest: object) -> None:
        trained.append(name)
        if len(trained) == 3:
            raise KeyboardInterrupt
        real(name, *rest)

    monkeypatch.setattr(cell_folder, "train_cell", until_the_third)
    with pytest.raises(KeyboardInterrupt):
        run_command("train-align", *align_overrides, here, *SWEEP)

    result = run_command(
        "train-align",
        *align_overrides,
        here,
        *SWEEP,
        "published={source: a paper, values: {top1: 0.5}}",
    )

    assert trained == [f"lr=1e-3/sub-0{n}_seed-1" for n in (1, 2)] + 2 * [
        "lr=2e-3/sub-01_seed-1"
    ] + ["lr=2e-3/sub-02_seed-1"]
    assert result.folder.name.startswith("demo-noise-0.3-40-concepts-intra-")
    assert "-sweep-lr-" in result.folder.name
    assert result.metrics.facts.published["top1"] == 0.5
    assert sorted(
        path.parent.parent.name for path in result.folder.glob("cells/*/*/metrics.json")
    ) == [
        *2 * ["lr=1e-3"],
        *2 * ["lr=2e-3"],
    ]
    by_variant, by_cell, published = result.tables
    assert [(row[0], row[2]) for row in by_variant.rows] == [
        ("lr=1e-3", 2),
        ("lr=2e-3", 2),
    ]
    assert [row[3] for row in by_variant.rows] == pytest.approx([1 / 60] * 2)
    assert [row[0] for row in by_cell.rows] == list(result.metrics.facts.cells)
    assert published.rows == ((0.5, "–"),)


def metrics(*values: float, selected_on: str = "validation") -> Measurements:
    scopes = {
        f"sub-0{number}_seed-1": {
            "top1": Metric(
                "top1", value, 10, 10, 0.1, 0.0, 1.0, (1,), "cosine", "validation", "t"
            )
        }
        for number, value in enumerate(values, 1)
    }
    cells = {name: CellFacts(epoch=3, selected_on=selected_on) for name in scopes}
    return Measurements(
        scopes, facts=TrainingFacts(dataset="demo", mode="intra", cells=cells)
    )


TWO = "sweep={train.lr: [1e-3, 2e-3], train.weight_decay: [0, 0.1]}"
ONE = "lr=1e-3,weight_decay=0.1"


@pytest.fixture(scope="module")
def swept(shared_world, tmp_path_factory, run_command, align_overrides):
    """A finished sweep of two keys, whose variants have a comma in their names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BRAINHIVE_HOME", str(shared_world))
        runs = tmp_path_factory.mktemp("runs")
        return run_command(
            "train-align",
            *align_overrides,
            f"paths.runs={runs}",
            "mode=joint",
            "subjects=1",
            "train.epochs=1",
            TWO,
        ).folder


def test_variants_with_commas_in_their_names_are_evaluated(
    run_command, world, swept, tmp_path
):
    paths, one, other = (
        Paths(runs=str(swept.parents[1])),
        f"{swept}:{ONE}",
        f"{swept}:lr=2e-3,weight_decay=0",
    )
    assert rejoin_variant_names(
        f"{swept.name}:{ONE},other,{one}".split(","), paths
    ) == [
        f"{swept.name}:{ONE}",
        "other",
        one,
    ]
    assert rejoin_variant_names(["a", "b:c", "d"], paths) == ["a", "b:c", "d"]

    found = run_command(
        "eval-retrieval", f"paths.runs={tmp_path}", f"run={one},{other}", *QUICK
    ).metrics
    assert found.facts.runs == [one, other]


def test_fine_tuning_starts_from_a_variant_and_not_from_a_sweep(
    world, align_overrides, swept
):
    def job_of(run: str) -> Job:
        overrides = [*align_overrides, "mode=finetune", f"finetune={{run: '{run}'}}"]
        return Job.resolve(Recipe.resolve("train-align", None, {}, overrides))

    with pytest.raises(RecipeError, match="is a sweep") as caught:
        job_of(str(swept))
    assert f"{swept.name}:{ONE}" in caught.value.hint

    job = job_of(f"{swept}:{ONE}")

    assert job.recipe.subjects == [2] and job.recipe.finetune.run == f"{swept}:{ONE}"
    (start,) = job.find_starts(Cell("sub-02_seed-1", (2,), (2,), 1))[0].values()
    assert start == swept / "cells" / ONE / "all_seed-1" / "model" and start.is_dir()


QUICK = ("sheet_rows=0", "ceiling_splits=0")
