"""Tests of three ways to select an epoch, and of the caveat of the test set."""

import json
from statistics import mean

import pytest
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.core.base.tables import TableCell
from brainhive_cli.core.results.measurements import SELECTED_ON_TEST
from brainhive_cli.core.runs.run_folder import RunFolder
from brainhive_cli.reports.sentences.sentences import state_finding
from brainhive_cli.reports.tables.runs_shown import RunGroup, ShownRun, lay_out_tables

pytestmark = pytest.mark.nightly


SELECTIONS = "sweep.train.selection=last,best,test"
STEP = "eval-retrieval · "
NAMED = f"{STEP}test ({SELECTED_ON_TEST})"


@pytest.fixture(scope="module")
def shared(
    shared_world,
    tmp_path_factory,
    run_command,
    align_overrides,
):
    runs = tmp_path_factory.mktemp("protocols")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BRAINHIVE_HOME", str(shared_world))
        here = f"paths.runs={runs}"
        trained = run_command(
            "train-align",
            *align_overrides,
            here,
            SELECTIONS,
            "train.epochs=3",
            "train.validation=0.2",
        )
        return (
            runs,
            trained,
            run_command(
                "eval-retrieval",
                here,
                f"run={trained.folder}",
                "corrections=csls,assignment",
                "sheet_rows=0",
                "ceiling_splits=0",
            ),
        )


def test_what_the_test_set_chose_is_no_headline_and_no_best(shared):
    runs, trained, evaluated = shared
    scopes = {
        name: scope["top1"].value
        for name, scope in evaluated.metrics.scopes.items()
        if "top1" in scope
    }
    shown_run = ShownRun("protocols", RunFolder(evaluated.folder))

    table = next(
        table
        for table in lay_out_tables(RunGroup([shown_run]))
        if table.title == "By variant: eval-retrieval"
    )
    document = json.loads(
        CliRunner().invoke(app, ["runs", f"paths.runs={runs}", "--json"]).stdout
    )

    assert [row[0] for row in table.rows[:3]] == [f"{STEP}last", f"{STEP}best", NAMED]
    validated = {}
    for name, training in trained.metrics.facts.step_runs.items():
        cells = RunFolder(runs / training).measurements().scopes.values()
        validated[name.partition(" · ")[2]] = mean(
            metrics["top1"].value for metrics in cells
        )
    rows = [
        row[0]
        for row in table.rows
        if any(cell.is_best for cell in row[1:] if isinstance(cell, TableCell))
    ]
    assert validated["best"] > validated["last"]
    assert rows == [f"{STEP}best"]
    assert "best on validation (top-1)" in table.note
    assert f"“{STEP}best” with {100 * scopes[f'{STEP}best']:.3g} %" in state_finding(
        shown_run.measurements
    )
    results = {row["run"].rpartition("/")[2]: row["result"] for row in document}
    assert state_finding(evaluated.metrics) in results[evaluated.folder.name]
    shown_run = evaluated.metrics.facts.step_runs[f"{STEP}test"].partition("/")[2]
    first_result = results[shown_run]
    assert f"{100 * scopes[f'{STEP}test']:.3g} %" in first_result
    assert SELECTED_ON_TEST in first_result
