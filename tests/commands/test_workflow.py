"""workflow: steps in order, each reading what an earlier one made, found again when
finished.
"""

import pytest

from brainhive_cli.commands import workflow
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.launch import Launch

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

    assert [line.split()[1] for line in lines] == [
        "embed",
        "train-align",
        "train-align",
        "eval-retrieval",
    ]
    assert len(runs) == 2 and first.metrics.scopes["eval-retrieval"]["top1"].n == 100
    (named,) = [run for run in runs if run in lines[-1]]
    assert "0.0001" in (home / "runs/train-align" / named / "recipe.yaml").read_text()

    again = workflow.run(recipe(), here)
    assert (
        again.folder == first.folder
        and {path.name for path in home.glob("runs/*/*")} >= runs
    )
    assert len([*home.glob("runs/train-align/*")]) == 2


def test_a_step_that_names_no_command_and_a_workflow_without_steps_are_refused(
    home,
) -> None:
    with pytest.raises(RecipeError, match="the step paint names no command"):
        recipe(steps={"paint": {}})
    with pytest.raises(RecipeError, match="no steps"):
        workflow.inputs(recipe(steps={}))
