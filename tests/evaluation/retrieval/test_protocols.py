"""Three ways to choose an epoch, side by side: what the test set chose says so, and is never the best."""

from pathlib import Path
from statistics import mean
from typing import Any

import pytest
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.core.measurements import SELECTED_ON_TEST
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.reports.runs_shown import RunGroup, ShownRun
from brainhive_cli.reports.sentences import summarise_run
from brainhive_cli.reports.tables import tables_of

SELECTIONS = "sweep.train.selection=last,best,test"


@pytest.fixture(scope="module")
def shared(shared_world: Path, tmp_path_factory: pytest.TempPathFactory, go: Any, small: Any) -> Any:
    runs = tmp_path_factory.mktemp("protocols")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BRAINHIVE_HOME", str(shared_world))
        here = f"paths.runs={runs}"
        trained = go("train-align", *small, here, SELECTIONS, "train.epochs=3", "train.validation=0.2")
        asked = (f"run={trained.folder}", "corrections=csls,assignment", "sheet_rows=0", "ceiling_splits=0")
        return runs, trained, go("eval-retrieval", here, *asked)


def test_what_the_test_set_chose_is_stamped_in_json_and_tables(shared: Any) -> None:
    _, trained, evaluated = shared

    for name, metrics in evaluated.metrics.scopes.items():
        for metric in metrics.values():
            assert metric.selected == name.startswith("test · ") == (SELECTED_ON_TEST in metric.protocol)
    for table in evaluated.tables:
        is_of_test = table.title.startswith("test: ") or any(
            "minus test" in str(row[0]) for row in table.rows
        )
        assert (SELECTED_ON_TEST in table.title) == is_of_test, table.title
    assert [row[0] for row in trained.tables[0].rows] == ["last", "best", "test [test-sel]"]


def test_what_the_test_set_chose_is_no_headline_and_no_best(shared: Any) -> None:
    runs, trained, evaluated = shared
    scopes = {name: scope["top1"].value for name, scope in evaluated.metrics.scopes.items()}
    run = ShownRun("protocols", RunFolder(evaluated.folder))

    table = next(table for table in tables_of(RunGroup([run])) if table.title == "By variant")
    listed = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["runs", f"paths.runs={runs}"]).stdout

    assert [row[0] for row in table.rows] == ["last", "best", "test [test-sel]"]
    validated = {
        variant: mean(
            metrics["top1"].value
            for cell, metrics in trained.metrics.scopes.items()
            if trained.metrics.facts.cells[cell].variant == variant
        )
        for variant in ("last", "best")
    }
    chosen = [row[0] for row in table.rows if any(cell.is_best for cell in row[1:])]
    assert validated["best"] > validated["last"] and chosen == ["best"]
    assert table.note == "Bold: best on validation (top-1)."
    assert f"(top-1): variant “best” with {scopes['best · all']:.3f}." in summarise_run(run)
    assert "2 variants" in summarise_run(run) and "test (" not in summarise_run(run)
    lines = {line.split()[0].rpartition("/")[2]: line for line in listed.splitlines() if "eval-ret" in line}
    pooled = mean([scopes["last · all"], scopes["best · all"]])
    assert f"top-1 [sim] {pooled:.3f}, the mean of 2" in lines[evaluated.folder.name]
    (alone,) = (line for name, line in lines.items() if "--test-" in name)
    assert f"top-1 [sim, test-sel] {scopes['test · all']:.3f}" in alone
