"""Checks of an explanation before it begins."""

import numpy as np
import pytest

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.data.signals.trials import Trials
from brainhive_cli.evaluation.explanation import job as jobs
from brainhive_cli.evaluation.explanation.job import find_shared_pictures
from brainhive_cli.evaluation.explanation.recipe import Recipe
from brainhive_cli.evaluation.explanation.run import ExplanationRun
from brainhive_cli.training.alignment.trained.test_set import check_test_set


def resolve(run_folder, *keys):
    asked = (f"run={run_folder}", "draws=20") + tuple(keys)
    return ExplanationRun.resolve(Recipe.resolve("explain", None, {}, asked))


@pytest.mark.parametrize(
    ("keys", "facts"),
    [
        (("analyses=levels", "head=nothing"), ("nothing", "token")),
        (("analyses=windows", "window.width_ms=5000"), ("5000", "1000 ms")),
        (("analyses=levels", "split=train"), ("240 of the 240",)),
    ],
)
def test_what_does_not_fit_a_run_is_refused_before_it(
    run_command,
    trained_run,
    tmp_path,
    keys,
    facts,
):
    with pytest.raises(BrainhiveError) as caught:
        resolve(trained_run, *keys).check()
    for fact in facts:
        assert fact in f"{caught.value.message} {caught.value.hint}"
    runs = f"paths.runs={tmp_path / 'none'}"
    with pytest.raises(BrainhiveError) as second_error:
        run_command("explain", f"run={trained_run}", "draws=20", *keys, runs)
    assert second_error.value.message == caught.value.message
    assert not list((tmp_path / "none").rglob("recipe.yaml"))


def test_windows_of_an_analysis_that_reads_none_are_not_asked(
    trained_run,
):
    resolve(trained_run, "analyses=levels").check()
    # of signals alone no head is compared
    resolve(trained_run, "analyses=similarity").check()


def test_regions_that_nobody_shares_are_refused(trained_run, monkeypatch):
    names = iter(["V1", "IT", "V1", "V1"])
    regions = property(lambda trials: {next(names): (0, 1), "empty": ()})
    monkeypatch.setattr(Trials, "regions", regions)
    job = resolve(trained_run, "analyses=encoding")
    # signals are opened and compared with voxels of the model before
    test_set = check_test_set(job.tests, ["test"], compares=False)
    monkeypatch.setattr(jobs, "check_test_set", lambda *arguments, **keys: test_set)
    names = iter(["V1", "IT", "V1", "V1"])
    with pytest.raises(BrainhiveError) as caught:
        job.check()
    assert "V1; IT" in caught.value.message
    job.check()  # of the same region


def test_pictures_that_nobody_shares_are_refused():
    assert find_shared_pictures([np.array([1, 2, 3]), np.array([3, 2])]).tolist() == [
        2,
        3,
    ]
    with pytest.raises(BrainhiveError) as caught:
        find_shared_pictures([np.array([1]), np.array([2])])
    assert "--subjects" in caught.value.hint


@pytest.mark.nightly
def test_similarity_alone_needs_no_model(run_command, trained_run, tmp_path):
    result = run_command(
        "explain",
        f"run={trained_run}",
        "draws=20",
        "analyses=similarity",
        f"paths.runs={tmp_path / 'own'}",
    )
    assert any("similarity" in name for name in result.metrics.scopes)
