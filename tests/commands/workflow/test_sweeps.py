"""Recipes that sweep values: the workflows that they mean."""

import pytest

from brainhive_cli.cli.lines import resolve_line
from brainhive_cli.commands import train_align, workflow
from brainhive_cli.commands.facts import WorkflowFacts
from brainhive_cli.core.base.errors import RecipeError
from brainhive_cli.core.results.measurements import Measurements
from brainhive_cli.core.runs.run_folder import RunFolder
from brainhive_cli.training.alignment.recipe import Recipe
from tests.worlds.swept_recipes import list_run_recipes

LRS = "sweep.train.lr=1e-3,2e-3"


def make_workflow(**fields):
    return workflow.Recipe.model_validate(fields)


def test_each_combination_is_a_run_with_the_other_keys():
    sweep = (
        "sweep={backbone.kind: [brain_mlp, nice], encoders: [[clip-h14], [clip-h14, "
        "vae]]}"
    )

    recipes = list_run_recipes("train-align", None, sweep, "train.epochs=3")

    assert list(recipes) == [
        "brain_mlp · clip-h14",
        "brain_mlp · clip-h14+vae",
        "nice · clip-h14",
        "nice · clip-h14+vae",
    ]
    last_recipe = recipes["nice · clip-h14+vae"]
    assert last_recipe.backbone.kind == "nice"
    assert last_recipe.train.epochs == 3
    assert [encoder.name for encoder in last_recipe.encoders] == ["clip-h14", "vae"]
    assert not any(recipe.sweep for recipe in recipes.values())


def test_the_run_of_a_value_is_the_run_of_its_recipe(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text("dataset: demo\nsweep: {train.lr: [1e-3, 2e-3]}\n")
    single_recipe = Recipe.resolve(
        "train-align", None, {}, ["dataset=demo", "train.lr=2e-3"]
    )

    recipes = list_run_recipes("train-align", str(file))

    assert list(recipes) == ["lr=1e-3", "lr=2e-3"]
    assert recipes["lr=2e-3"].fingerprint() == single_recipe.fingerprint()
    # an override replaces the sweep of the file
    other_run_recipes = list_run_recipes(
        "train-align", str(file), "sweep={seeds: [[1], [2]]}"
    )
    assert list(other_run_recipes) == ["seeds=1", "seeds=2"]
    assert list(list_run_recipes("train-align", str(file), "sweep={}")) == [""]


def test_the_workflow_has_the_folders_and_processes_of_the_line():
    flags = {"mode": "inter", "run.processes": 2, "seeds": None}

    command, _, recipe = resolve_line(
        "train-align", None, flags, [LRS, "paths.runs=there"]
    )

    assert command == "workflow"
    assert recipe.paths.runs == "there"
    assert recipe.run.processes == 2
    (step, _) = (item.step for item in recipe.expanded_steps.values())
    assert step.overrides == ["mode=inter", "train.lr=1e-3"]


@pytest.mark.parametrize(
    "sweep",
    [
        "sweep={train.lrr: [1, 2]}",
        "sweep={train.lr: [x]}",
        "sweep={backbone.hidden: [8, a]}",
        f"sweep={{dim: {list(range(1, 99))}, train.lr: {list(range(1, 99))}}}",
        "sweep={prior: [demo:prior], fuser.kind: [heads]}",
    ],
)
def test_a_wrong_sweep_is_refused_before_the_first_run(sweep):
    with pytest.raises(RecipeError):
        resolve_line("train-align", None, {}, ["dataset=demo", sweep])


def test_steps_inherit_the_values_that_an_earlier_step_sweeps():
    steps = {
        "train-align": {"overrides": [LRS]},
        "eval-retrieval": {"overrides": ["align_run={train-align}"]},
        "control": {
            "command": "eval-retrieval",
            "overrides": ["align_run={train-align · lr=2e-3}"],
        },
    }

    recipe = make_workflow(steps=steps)

    assert list(recipe.expanded_steps) == [
        "train-align · lr=1e-3",
        "train-align · lr=2e-3",
        "eval-retrieval · lr=1e-3",
        "eval-retrieval · lr=2e-3",
        "control",
    ]
    lines = {
        name: workflow.resolve_step(recipe, name, {})[0]
        for name in recipe.expanded_steps
    }
    assert "align_run=<train-align · lr=2e-3>" in lines["eval-retrieval · lr=2e-3"]
    assert "align_run=<train-align · lr=2e-3>" in lines["control"]
    assert recipe.list_compared_steps(recipe.expanded_steps) == [
        ["eval-retrieval · lr=1e-3", "eval-retrieval · lr=2e-3"]
    ]


def test_sweeps_differ_between_the_values_of_the_matrix():
    matrix = {"method": {"swept": [LRS], "plain": []}}
    steps = {
        "train-align": {"for": ["method"]},
        "eval-retrieval": {"overrides": ["align_run={train-align}"]},
    }

    names = list(make_workflow(matrix=matrix, steps=steps).expanded_steps)

    values = ["swept · lr=1e-3", "swept · lr=2e-3", "plain"]
    assert names == [
        f"{step} · {value}" for step in ("train-align", "eval-retrieval")
        for value in values
    ]  # fmt: skip


def test_values_of_the_matrix_are_compared_if_the_step_says_so():
    matrix = {"ablation": {"full": [], "short": ["steps=1"], "long": ["steps=9"]}}
    step = {"for": ["ablation"], "compare": "short"}

    recipe = make_workflow(matrix=matrix, steps={"reconstruct": step})

    assert recipe.list_compared_steps(recipe.expanded_steps) == [
        ["reconstruct · short", "reconstruct · full", "reconstruct · long"]
    ]
    plain_workflow = make_workflow(
        matrix=matrix, steps={"reconstruct": {"for": ["ablation"]}}
    )
    assert plain_workflow.list_compared_steps(plain_workflow.expanded_steps) == []
    with pytest.raises(RecipeError, match="no value"):
        make_workflow(matrix=matrix, steps={"reconstruct": {**step, "compare": "x"}})


def test_an_evaluation_of_a_workflow_evaluates_its_trainings(home):
    folder = RunFolder(home / "runs/workflow/steps-1")
    folder.write_text("recipe.yaml", "steps: {}\n")
    step_runs = {
        "embed": "embed/e",
        "train-align · lr=1": "train-align/a",
        "train-align · lr=2": "train-align/b",
    }
    folder.finish(Measurements(facts=WorkflowFacts(step_runs=step_runs)))

    recipes = list_run_recipes("eval-retrieval", None, "run=steps-1", "seed=3")

    assert {label: recipe.align_run for label, recipe in recipes.items()} == {
        "lr=1": ["a"],
        "lr=2": ["b"],
    }
    assert {recipe.seed for recipe in recipes.values()} == {3}
    newest = list_run_recipes("eval-retrieval", None, "run=workflow")
    assert list(newest) == ["lr=1", "lr=2"]


def test_a_swept_recipe_is_no_run(home):
    recipe = Recipe.resolve("train-align", None, {}, ["dataset=demo", LRS])
    with pytest.raises(RecipeError, match="no sweep"):
        train_align.resolve_job(recipe)
