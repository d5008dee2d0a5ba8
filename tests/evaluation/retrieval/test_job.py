"""The resolved job: runs are opened once, and the functions that measure get no more
than they need.
"""

from pathlib import Path

import pytest

from brainhive_cli.commands import eval_retrieval
from brainhive_cli.core.command import describe_missing
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.jobs import list_inputs
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.evaluation.retrieval import job as jobs
from brainhive_cli.evaluation.retrieval.recipe import Recipe


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The references that runs are opened by, one for each time."""
    references: list[str] = []
    find = jobs.open_model
    monkeypatch.setattr(
        jobs,
        "open_model",
        lambda name, *more: references.append(name) or find(name, *more),
    )
    return references


def test_a_check_and_the_run_open_each_run_once(
    go, world: Path, small, runs: str, opened: list[str]
):
    asked = [
        f"run={go('train-align', *small).folder}",
        "sheet_rows=0",
        "ceiling_splits=0",
        "baseline=none",  # whose ridge is another run
        runs,
    ]

    recipe = Recipe.resolve("eval-retrieval", None, {}, asked)
    listed = list_inputs(eval_retrieval, recipe)

    assert listed and not describe_missing(listed) and len(opened) == 1
    go("eval-retrieval", *asked)
    assert len(opened) == 2


@pytest.mark.nightly
def test_a_sweep_is_compared_with_one_variant(
    go, world: Path, small, runs: str, capsys
):
    rates = "sweep={train.lr: [1e-3, 2e-3, 4e-3]}"
    sweep = go(
        "train-align", *small, "train.epochs=1", "subjects=1", rates, runs
    ).folder
    few = (f"run={sweep}", "subjects=1", "sheet_rows=0", "ceiling_splits=0", runs)
    measured = RunFolder(sweep).measurements()
    by_label = {
        n.split("/")[0]: s["top1"].value
        for n, s in measured.scopes.items()
        if "sub-01" in n
    }

    def pairs(*words: str) -> list[list[str]]:
        found = go("eval-retrieval", *few, *words).metrics.facts.comparisons
        assert {row.tests_of for row in found} == {f"1 metric × {len(found)} pairs"}
        return [[row.first, row.second] for row in found]

    best = max(by_label, key=lambda label: by_label[label])
    assert pairs() == [[best, label] for label in by_label if label != best]
    capsys.readouterr()
    assert pairs("compare=lr=4e-3") == [["lr=4e-3", "lr=1e-3"], ["lr=4e-3", "lr=2e-3"]]
    # variants that are finished are said in one line
    said = capsys.readouterr().err
    assert said.count("found") == said.count("found finished runs, 3: ") == 1
    with pytest.raises(RecipeError, match="compare is 'lr=5', no variant of") as caught:
        go("eval-retrieval", *few, "compare=lr=5")
    assert caught.value.hint == "lr=1e-3, lr=2e-3, lr=4e-3"
    for alone in (f"{sweep}:lr=1e-3", f"{sweep}:lr=1e-3,{sweep}:lr=2e-3"):
        with pytest.raises(RecipeError, match="no variant of") as caught:
            go("eval-retrieval", f"run={alone}", "compare=lr=1e-3", runs)
        assert caught.value.hint == "leave compare out: it is of a sweep"
