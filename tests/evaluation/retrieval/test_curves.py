"""Curves: which repetitions are averaged, which windows are seen; their ends are the plain result."""

import pytest

from brainhive_cli.core import artifacts
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.evaluation.retrieval.measure import doubling
from brainhive_cli.evaluation.retrieval.summary import scopes_below


@pytest.fixture(scope="session")
def curves(shared_world, go, small):
    """The curves of the world's run, and its plain result."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BRAINHIVE_HOME", str(shared_world))
        run = f"run={go('train-align', *small).folder}"
        how = ("repetitions=all", "repetition_draws=3", "sliding={width_ms: 200, step_ms: 200}")
        return go("eval-retrieval", run, *how), go("eval-retrieval", run)


def test_repetitions_double_to_all_that_there_are():
    assert doubling(80) == [1, 2, 4, 8, 16, 32, 64, 80]
    assert doubling(16) == [1, 2, 4, 8, 16]
    assert doubling(1) == [1]


def test_all_repetitions_are_the_plain_result_and_one_is_worse(curves):
    result, plain = curves
    found = scopes_below(result.metrics, "repetitions")

    assert list(found) == ["1", "2", "4", "8", "16"]
    points = list(found.values())
    for name in ("top1", "top5"):
        assert points[-1][name].value == plain.metrics.overall[name].value
        assert points[0][name].value < points[-1][name].value
        assert all(point[name].n == 200 and point[name].low <= point[name].high for point in points)


def test_some_window_carries_the_picture_and_the_last_one_less(curves):
    points = scopes_below(curves[0].metrics, "sliding")

    assert list(points) == ["100", "300", "500", "700", "900"]
    top5 = [point["top5"].value for point in points.values()]
    assert max(point["top5"].these_subjects[0] for point in points.values()) > 0.05
    assert top5[-1] < max(top5)


def test_a_window_over_all_of_the_signal_is_the_plain_result(go, world, small, curves):
    run = f"run={go('train-align', *small).folder}"

    whole = go("eval-retrieval", run, "sliding={width_ms: 1000}", "sheet_rows=0")

    (point,) = scopes_below(whole.metrics, "sliding").values()
    assert point["top1"].value == curves[1].metrics.overall["top1"].value


def test_curves_come_as_artifacts_and_tables_that_say_how_they_were_made(curves):
    result, plain = curves

    drawn = {each.title: each for each in artifacts.read(RunFolder(result.folder))}
    for title, is_logarithmic in (("Accuracy over repetitions", True), ("Accuracy over time", False)):
        curve = drawn[title]
        assert curve.is_logarithmic is is_logarithmic and [line.chance for line in curve.lines] == [0.01]
        assert all(len(line.low) == len(curve.at) for line in curve.lines)
    notes = " ".join(table.note for table in result.tables)
    assert "3 random choices of each number" in notes
    assert "200 ms wide; outside of it is the mean training signal" in notes
    assert notes.count("pool 100") >= 2
    assert "Accuracy over time" not in {each.title for each in artifacts.read(RunFolder(plain.folder))}


def test_more_repetitions_than_there_are_is_refused(go, world, small):
    run = f"run={go('train-align', *small).folder}"

    with pytest.raises(RecipeError, match="17 of a picture requested, subject 1 has 16"):
        go("eval-retrieval", run, "repetitions=[1, 17]")
