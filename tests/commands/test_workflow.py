"""The command `workflow`: the order of its steps, and the runs that they read."""

import json

import pytest

from brainhive_cli.commands import report, workflow
from brainhive_cli.core.base.errors import RecipeError
from brainhive_cli.core.recipes.recipe import shipped_recipes
from brainhive_cli.core.results.measurements import TRANSDUCTIVE
from brainhive_cli.core.runs import Launch, driver
from brainhive_cli.evaluation.retrieval.run import RetrievalRun

COLOURS = "encoders=['python:brainhive_cli.models.encoders.python:example']"
FEW = "dataset.concepts=8"
TRAIN = [
    COLOURS,
    FEW,
    "prior=null",
    "loss.kind=clip",
    "loss.cosine_weight=0",
    "subjects=1",
    "train.epochs=1",
]
STEPS = {
    "embed": {"overrides": [COLOURS, FEW]},
    "first": {"command": "train-align", "overrides": list(TRAIN) + ["train.lr=1e-4"]},
    "second": {"command": "train-align", "overrides": list(TRAIN) + ["train.lr=2e-4"]},
    "eval-retrieval": {"overrides": ["align_run={first}"]},
}


def recipe(**fields):
    return workflow.Recipe.model_validate({"recipe": "demo", "steps": STEPS, **fields})


@pytest.mark.nightly
def test_steps_run_in_order_and_read_the_run_that_they_name(home):
    """Issue 60, row 12: a step evaluated another run than the one it names."""
    import torch

    launch = Launch(0, 1, torch.device("cpu"))
    first_result = workflow.run(recipe(), launch)
    lines = first_result.metrics.facts.commands
    runs = {path.name for path in home.glob("runs/train-align/*")}

    assert [line.split()[1] for line in lines] == [
        "embed",
        "train-align",
        "train-align",
        "eval-retrieval",
    ]
    assert len(runs) == 2
    assert first_result.metrics.scopes["eval-retrieval"]["top1"].n == 100
    (run_name,) = [finished_run for finished_run in runs if finished_run in lines[-1]]
    assert (
        "0.0001" in (home / "runs/train-align" / run_name / "recipe.yaml").read_text()
    )

    second_result = workflow.run(recipe(), launch)
    assert second_result.folder == first_result.folder
    assert {path.name for path in home.glob("runs/*/*")} >= runs
    assert len(list(home.glob("runs/train-align/*"))) == 2


def test_steps_without_a_command_and_empty_workflows_are_refused(
    home,
):
    with pytest.raises(RecipeError) as caught:
        recipe(steps={"paint": {}})
    assert "paint" in str(caught.value)
    assert "steps.paint.command" in caught.value.hint
    assert "train-align" in caught.value.hint
    with pytest.raises(RecipeError) as caught:
        workflow.inputs(recipe(steps={}))
    assert "papers/neurons" in caught.value.hint
    with pytest.raises(RecipeError) as caught:
        workflow.inputs(recipe(until="third"))
    assert "third" in str(caught.value)
    assert ", ".join(STEPS) in caught.value.hint


MATRIX = {
    "method": {"low": ["train.lr=1e-4"], "high": {"overrides": ["train.lr=2e-4"]}},
    "epoch": {"last": [], "said": ["train.epochs=1"]},  # equal trainings
}
CELLS = {
    "embed": STEPS["embed"],
    "train-align": {"for": ["method", "epoch"], "overrides": TRAIN},
    "eval-retrieval": {
        "overrides": [
            "align_run={train-align}",
            "corrections=csls",
            "baseline=none",
            "sheet_rows=0",
        ]
    },
    "compare": {
        "for": ["epoch"],
        "overrides": ["runs={eval-retrieval}", "labels=low,high", "format=csv"],
    },
}


@pytest.mark.nightly
def test_a_matrix_runs_steps_for_its_axes_and_resumes(home, monkeypatch):
    import torch

    here = Launch(0, 1, torch.device("cpu"))
    study = recipe(matrix=MATRIX, steps=CELLS)
    assert study.list_steps() == ["embed"] + [
        f"{step} · {method} · {epoch}"
        for step in ("train-align", "eval-retrieval")
        for method in ("low", "high")
        for epoch in ("last", "said")
    ] + ["compare · last", "compare · said"]
    _, _, compared = workflow.resolve_step(study, "compare · said", {})
    assert compared.runs == [
        "<eval-retrieval · low · said>",
        "<eval-retrieval · high · said>",
    ]

    # an interruption in the second evaluation: the first is kept
    evaluate, evaluated = driver.run, []

    def interrupted(job, launch, *arguments, **options):
        if isinstance(job, RetrievalRun) and not launch.is_read_only:
            if evaluated:
                raise KeyboardInterrupt
            evaluated.append(job)
        return evaluate(job, launch, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(driver, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            workflow.run(study, here)
    st_mtime_ns_by_name = {
        path: path.stat().st_mtime_ns for path in home.glob("runs/*/*/metrics.json")
    }
    assert len(list(home.glob("runs/train-align/*"))) == 2
    states = {
        input_row.name.partition(":")[0]: input_row.state
        for input_row in workflow.inputs(study)
        if ": brainhive " in input_row.name
    }
    assert states["train-align · high · said"] == "finished"
    assert states["eval-retrieval · high · last"] == "next"
    assert states["compare · last"].endswith(" eval-retrieval")
    result = workflow.run(study, here)
    assert all(
        path.stat().st_mtime_ns == time_ns
        for path, time_ns in st_mtime_ns_by_name.items()
    )
    assert str(result.hint) == f"brainhive report {result.folder.name} --table"

    # corrected rows are none of the results, of which equal ones do not differ
    (table,) = report.run(
        report.Recipe(runs=[result.folder.name], table=True, format="csv"), here
    ).tables
    *rows, chance = table.as_dict()["rows"]
    assert chance["method"] == "chance"
    assert {row["method"].rpartition(", ")[2] for row in rows[4:]} == {"csls"}
    assert {row["excluded"] for row in rows[4:]} == {f"excluded: {TRANSDUCTIVE}"}
    assert not any("excluded" in row for row in rows[:4])
    value_of = {row["method"]: row for row in rows}
    assert value_of["low, last"]["difference"] == "reference"
    assert value_of["low, said"]["difference"] == 0
    assert {row["selection"] for row in rows} == {"best"}


@pytest.mark.parametrize(
    ("fields", "facts"),
    [
        ({"matrix": {"mode": {"a": []}}}, ["mode", "matrix"]),
        ({"steps": {"train-align": {"for": ["mode"]}}}, ["mode", "matrix"]),
        (
            {
                "matrix": {
                    "one": {"a": {"recipe": "demo"}},
                    "two": {"b": {"recipe": "papers/nice"}},
                },
                "steps": {"train-align": {"for": ["one", "two"]}},
            },
            ["train-align · a · b", "demo, papers/nice"],
        ),
        (
            {
                "matrix": {
                    "rate": {"a": ["train.lr=1e-3"]},
                    "size": {"b": ["train={lr: 1e-4, batch_size: 8}"]},
                },
                "steps": {"train-align": {"for": ["rate", "size"]}},
            },
            ["the axes rate and size both set train"],
        ),
        (
            {
                "matrix": {
                    axis: {str(value): [] for value in range(30)} for axis in "ab"
                },
                "steps": {"train-align": {"for": ["a", "b"]}},
            },
            ["500", "train-align"],
        ),
    ],
)
def test_a_matrix_that_says_nothing_or_too_much_is_refused(fields, facts):
    with pytest.raises(RecipeError) as caught:
        recipe(**fields)
    assert all(fact in str(caught.value) for fact in facts), str(caught.value)


@pytest.mark.parametrize("name", ["a · x", "a/x", "{a}"])
def test_a_step_has_no_name_that_a_cell_of_another_may_have(tmp_path, name):
    """It took the place of the cell, which was not run."""
    axes = {"m": {"x": ["train.lr=1e-4"], "y": []}}
    steps = {"a": {"command": "train-align", "for": ["m"]}, name: {"command": "check"}}
    path = tmp_path / "workflow.yaml"
    path.write_text(json.dumps({"matrix": axes, "steps": steps}, ensure_ascii=False))
    with pytest.raises(RecipeError) as caught:
        workflow.Recipe.resolve("workflow", str(path), {}, ())
    assert f"steps.{name}" in caught.value.message


@pytest.mark.parametrize(
    "path",
    sorted(shipped_recipes().rglob("*/workflow.yaml")),
    ids=lambda path: path.parent.name,
)
def test_steps_of_shipped_workflows_set_keys_that_exist(home, path):
    recipe = workflow.Recipe.resolve("workflow", str(path), {}, [])
    for name, expanded in recipe.expanded_steps.items():
        # an unknown key raises an error that names it
        workflow.resolve_step(recipe, name, {}, expanded.step.quick)
