"""The resolved job: runs are opened once, and the functions that measure get no more than they need."""

from pathlib import Path

import pytest

from brainhive_cli.commands.eval_retrieval import plan
from brainhive_cli.evaluation.retrieval import job as jobs
from brainhive_cli.evaluation.retrieval.recipe import EvaluationSpec, Recipe


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The references that runs are opened by, one for each time."""
    references: list[str] = []
    find = jobs.find
    monkeypatch.setattr(jobs, "find", lambda name, *given: references.append(name) or find(name, *given))
    return references


def test_the_plan_and_the_run_open_each_run_once(go, world: Path, small, runs: str, opened: list[str]):
    asked = [f"run={go('train-align', *small).folder}", "sheet_rows=0", "ceiling_splits=0", runs]

    planned = plan(Recipe.resolve("eval-retrieval", None, {}, asked))

    assert planned.items["cells"] == 2 and not planned.missing and len(opened) == 1
    go("eval-retrieval", *asked)
    assert len(opened) == 2


def test_what_is_measured_is_a_part_of_the_recipe():
    recipe = Recipe(gallery="train+test", repetitions=[1, 2], align_run=["one"])

    spec = jobs.Job(recipe).spec

    assert type(spec) is EvaluationSpec and not hasattr(spec, "align_run")
    assert (spec.split, spec.curves, spec.repetition_draws) == ("test", ["repetitions"], 10)
