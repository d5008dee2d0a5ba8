"""Tests of the curve over repetitions, which ends at the plain result."""

import pytest

from brainhive_cli.core.base.errors import RecipeError
from brainhive_cli.core.runs import RunFolder, artifacts
from brainhive_cli.evaluation.retrieval.scopes import select_scopes


@pytest.fixture(scope="session")
def curves(shared_world, run_command, align_overrides):
    """Curve of the world's run, and its plain result."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BRAINHIVE_HOME", str(shared_world))
        run = f"run={run_command('train-align', *align_overrides).folder}"
        few = [run, "subjects=1", "ceiling_splits=0"]
        return run_command("eval-retrieval", *few, "repetitions=all"), run_command(
            "eval-retrieval", *few
        )


@pytest.mark.nightly
def test_all_repetitions_are_the_plain_result_and_one_is_worse(curves):
    result, plain = curves
    scopes = select_scopes(result.metrics, "repetitions")

    assert list(scopes) == ["1", "2", "4", "8", "16"]
    points = list(scopes.values())
    for name in ("top1", "top5"):
        assert points[-1][name].value == plain.metrics.overall[name].value
        assert points[0][name].value < points[-1][name].value
        assert all(
            point[name].n == 100 and point[name].low <= point[name].high
            for point in points
        )


@pytest.mark.nightly
def test_a_curve_has_an_artifact_a_table_and_a_note(curves):
    result, plain = curves

    drawn = {each.title: each for each in artifacts.read(RunFolder(result.folder))}
    curve = drawn["Accuracy over repetitions"]
    assert curve.is_logarithmic
    assert [line.chance for line in curve.lines] == [0.01]
    assert all(len(line.low) == len(curve.at) for line in curve.lines)
    (table,) = [
        table for table in result.tables if table.title == "Accuracy over repetitions"
    ]
    assert "10 random choices of each number" in table.note
    assert "100 candidates" in table.note
    titles = {each.title for each in artifacts.read(RunFolder(plain.folder))}
    assert "Accuracy over repetitions" not in titles


def test_more_repetitions_than_there_are_is_refused(
    run_command, world, align_overrides
):
    run = f"run={run_command('train-align', *align_overrides).folder}"

    with pytest.raises(RecipeError, match=r"17.*subject 1.*16"):
        run_command("eval-retrieval", run, "repetitions=[1, 17]")
