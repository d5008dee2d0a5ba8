"""Tests that a job opens each run once, and refuses inputs that do not fit."""

from dataclasses import replace

import numpy as np
import pytest

from brainhive_cli.commands import eval_retrieval
from brainhive_cli.core.base.errors import BrainhiveError, RecipeError
from brainhive_cli.core.files.inputs import describe_missing
from brainhive_cli.core.runs import RunFolder, list_inputs
from brainhive_cli.evaluation.retrieval import job as jobs
from brainhive_cli.evaluation.retrieval.recipe import Recipe
from brainhive_cli.evaluation.retrieval.run import RetrievalRun
from brainhive_cli.training.alignment.trained.tested_person import TestedPerson


@pytest.fixture
def opened(monkeypatch):
    """References of the opened runs, with repetitions."""
    references = []
    open_model = jobs.open_model

    def record(name, *arguments, **options):
        references.append(name)
        return open_model(name, *arguments, **options)

    monkeypatch.setattr(jobs, "open_model", record)
    return references


def test_a_check_and_the_run_open_each_run_once(
    run_command, world, align_overrides, runs, opened
):
    asked = [
        f"run={run_command('train-align', *align_overrides).folder}",
        "sheet_rows=0",
        "ceiling_splits=0",
        "baseline=none",  # whose ridge is another run
        runs,
    ]

    recipe = Recipe.resolve("eval-retrieval", None, {}, asked)
    inputs = list_inputs(eval_retrieval, recipe)

    assert inputs
    assert not describe_missing(inputs)
    assert len(opened) == 1
    run_command("eval-retrieval", *asked)
    assert len(opened) == 2


@pytest.mark.parametrize(
    ("keys", "facts"),
    [
        ("head=nothing", ("nothing", "token")),
        ("gallery=train", ("240 of the 240 train pictures",)),
        ("repetitions=[1,5000]", ("5000", "16")),
        ("region_shares=true", ("region_shares",)),
    ],
)
def test_what_does_not_fit_a_run_is_refused_before_it(
    run_command, trained_run, tmp_path, keys, facts
):
    asked = [
        f"run={trained_run}",
        "sheet_rows=0",
        keys,
        f"paths.runs={tmp_path / 'none'}",
    ]
    job = RetrievalRun.resolve(Recipe.resolve("eval-retrieval", None, {}, asked))
    with pytest.raises(BrainhiveError) as caught:
        job.check()
    for fact in facts:
        assert fact in f"{caught.value.message} {caught.value.hint}"
    with pytest.raises(BrainhiveError) as second_error:
        run_command("eval-retrieval", *asked)
    assert second_error.value.message == caught.value.message
    assert not list((tmp_path / "none").rglob("recipe.yaml"))


def test_a_split_is_searched_once():
    with pytest.raises(RecipeError) as caught:
        Recipe.resolve("eval-retrieval", None, {}, ["gallery=test+test"])
    assert "test+test" in caught.value.message


def test_a_run_of_other_people_is_not_compared(trained_run):
    asked = (f"run={trained_run}", "sheet_rows=0", f"against={trained_run}")
    job = RetrievalRun.resolve(Recipe.resolve("eval-retrieval", None, {}, asked))
    job.check()
    (other,) = job.against
    (run,) = other.runs
    fewer = replace(other, runs=[replace(run, cells=run.cells[:1])])
    with pytest.raises(BrainhiveError) as caught:
        replace(job, against=[fewer]).check()
    assert "[1, 2] and [1]" in caught.value.message


def test_a_run_among_other_pictures_is_not_compared(trained_run, monkeypatch):
    asked = (f"run={trained_run}", "sheet_rows=0", f"against={trained_run}")
    job = RetrievalRun.resolve(Recipe.resolve("eval-retrieval", None, {}, asked))
    (other,) = job.against
    changed_recipe = other.recipe.model_copy(update={"only_shown": True})
    read = TestedPerson.read
    monkeypatch.setattr(
        TestedPerson,
        "read",
        lambda person, split: read(person, split).take(np.arange(3)),
    )
    with pytest.raises(BrainhiveError) as caught:
        replace(job, against=[replace(other, recipe=changed_recipe)]).check()
    assert "galleries" in caught.value.message


@pytest.mark.nightly
def test_a_sweep_is_compared_with_the_best_on_validation(
    run_command, world, align_overrides, runs, capsys
):
    rates = "sweep={train.lr: [1e-3, 2e-3, 4e-3]}"
    sweep = run_command(
        "train-align", *align_overrides, "train.epochs=1", "subjects=1", rates, runs
    )
    line = [f"run={sweep.folder}", "subjects=1", "sheet_rows=0", "ceiling_splits=0"]
    validation = {}
    for name, step_run in sweep.metrics.facts.step_runs.items():
        measurements = RunFolder(sweep.folder.parents[1] / step_run).measurements()
        label = name.partition(" · ")[2]
        validation[f"eval-retrieval · {label}"] = measurements.scopes["sub-01_seed-1"]

    result = run_command("eval-retrieval", *line, runs)

    best = max(validation, key=lambda name: validation[name]["top1"].value)
    comparisons = result.metrics.facts.comparisons
    assert [[pair.first, pair.second] for pair in comparisons] == [
        [best, name] for name in validation if name != best
    ]
    assert {pair.tests_of for pair in comparisons} == {"1 metric × 2 variants"}

    # runs that are finished are said in a line
    capsys.readouterr()
    run_command("eval-retrieval", *line, runs)
    err = capsys.readouterr().err
    assert err.count("found finished runs, 3: ") == 1
