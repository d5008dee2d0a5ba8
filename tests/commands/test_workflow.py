"""workflow: steps in order, each reading what an earlier one made, found again when finished."""

import pytest

from brainhive_cli.commands import workflow
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.inputs import describe_missing
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.results import Result

COLOURS = "encoders=['python:brainhive_cli.models.encoders.python:example']"
FEW = "dataset.concepts=8"
TRAIN = [COLOURS, FEW, "prior=null", "loss.kind=clip", "loss.cosine_weight=0", "subjects=1", "train.epochs=1"]
STEPS = {
    "embed": {"overrides": [COLOURS, FEW]},
    "first": {"command": "train-align", "overrides": [*TRAIN, "train.lr=1e-4"]},
    "second": {"command": "train-align", "overrides": [*TRAIN, "train.lr=2e-4"]},
    "eval-retrieval": {"overrides": ["align_run={first}"]},
}


def recipe(**fields) -> workflow.Recipe:
    return workflow.Recipe.model_validate({"recipe": "demo", "steps": STEPS, **fields})


def test_steps_run_in_order_and_read_the_run_that_they_name(home) -> None:
    import torch

    here = Launch(0, 1, torch.device("cpu"))
    first = workflow.run(recipe(), here)
    lines = first.metrics.facts.commands
    runs = {path.name for path in home.glob("runs/train-align/*")}

    assert [line.split()[1] for line in lines] == ["embed", "train-align", "train-align", "eval-retrieval"]
    assert len(runs) == 2 and first.metrics.scopes["eval-retrieval"]["top1"].n == 100
    (named,) = [run for run in runs if run in lines[-1]]
    assert "0.0001" in (home / "runs/train-align" / named / "recipe.yaml").read_text()

    again = workflow.run(recipe(), here)
    assert again.folder == first.folder and {path.name for path in home.glob("runs/*/*")} >= runs
    assert len([*home.glob("runs/train-align/*")]) == 2


def test_a_step_says_what_it_does_before_the_line_that_runs_it(home, capsys) -> None:
    import torch

    step = {**STEPS["embed"], "says": "Describes pictures by colours, which need no weights. " * 2}
    workflow.run(recipe(steps={"embed": step}), Launch(0, 1, torch.device("cpu")))
    said = capsys.readouterr().err.strip().splitlines()
    assert said[0] == "1/1 embed" and said[1].startswith("    Describes pictures by colours")
    assert said[3].startswith("    brainhive embed --recipe demo") and max(map(len, said[:3])) <= 80


def test_the_inputs_are_the_lines_and_what_the_first_step_lacks(home) -> None:
    missing = {"embed": {"overrides": ["dataset=things-eeg", "encoders=clip-b32"]}}
    listed = workflow.inputs(recipe(steps=missing))
    assert listed[0].name.startswith("embed: brainhive embed --recipe demo dataset=things-eeg")
    assert any("things-eeg" in line for line in describe_missing(listed))


def test_an_override_takes_the_run_of_an_earlier_step_and_leaves_yaml_in_braces(tmp_path) -> None:
    own = {
        "train-align": {"overrides": ["dataset={kind: demo}", "a={embed}", "b={embed/model}", "c={later}"]}
    }
    found = workflow.overrides_of(recipe(steps=own), "train-align", {"embed": Result(tmp_path / "run")})
    assert found == ["dataset={kind: demo}", "a=run", f"b={tmp_path}/run/model", "c={later}"]


def test_trainings_without_a_recipe_are_told_apart_by_their_steps(tmp_path) -> None:
    trainings = {name: {"command": "train-align"} for name in ("weak", "strong")}
    steps = {**trainings, "named": {"command": "eval-retrieval", "overrides": ["align_run={weak}"]}}
    own = recipe(recipe=None, steps=steps)
    runs = {name: Result(tmp_path / name) for name in steps}
    assert workflow.overrides_of(own, "named", runs) == ["align_run=weak"]


def test_a_step_that_names_no_command_and_a_workflow_without_steps_are_refused(home) -> None:
    with pytest.raises(RecipeError, match="the step paint names no command"):
        recipe(steps={"paint": {}})
    with pytest.raises(RecipeError, match="no steps"):
        workflow.inputs(recipe(steps={}))
