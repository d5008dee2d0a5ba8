"""Tests of sessions that are refused before their stream is opened."""

import pytest

from brainhive_cli.commands.live import LiveRun
from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.evaluation.live.recipe import Recipe
from tests.worlds.run_copies import change_unit, copy_run


def resolve(run_folder, *keys):
    asked = (f"run={run_folder}", "page=false", "subject=1", "windows=1") + tuple(keys)
    return LiveRun.resolve(Recipe.resolve("live", None, {}, asked))


@pytest.mark.parametrize(
    ("keys", "facts"),
    [
        (("gallery=train", "source=mock"), ("240 of the 240",)),
        (("source=mock", "events=events.csv"), ("names no picture of", "x.png")),
        (("source=mock", "events=odd.csv"), ("event and picture",)),
    ],
)
def test_what_does_not_fit_a_model_is_refused(trained_run, tmp_path, keys, facts):
    (tmp_path / "events.csv").write_text("event,picture\n1,x.png\n")
    (tmp_path / "odd.csv").write_text("a,b\n1,2\n")
    with pytest.raises(BrainhiveError) as caught:
        resolve(trained_run, *keys).check()
    for fact in facts:
        assert fact in f"{caught.value.message} {caught.value.hint}"


def test_a_store_that_is_replayed_is_needed(trained_run):
    for source, is_needed in (("mock", False), ("signals", True)):
        job = resolve(trained_run, f"source={source}")
        job.check()
        (signals,) = [
            input_row
            for input_row in job.inputs()
            if input_row.name.startswith("signals ")
        ]
        assert signals.is_optional is not is_needed


def test_trials_of_a_store_are_compared_with_the_model(trained_run, tmp_path):
    finished_copy_run = copy_run(trained_run, tmp_path)
    resolve(finished_copy_run, "source=signals").check()
    change_unit(finished_copy_run, "fT")
    with pytest.raises(BrainhiveError) as caught:
        resolve(finished_copy_run, "source=signals").check()
    assert "unit uV, not fT" in caught.value.message
