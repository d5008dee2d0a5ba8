"""The list of runs is a table where it fits, and paragraphs elsewhere."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from brainhive_cli.core.runs import RunFolder
from brainhive_cli.core.tables import Table
from brainhive_cli.reports.run_table import (
    ListedRun,
    count_bytes,
    lay_out_for_terminal,
    lay_out_runs,
)


def list_run(name: str, label: str = "", **settings: Any) -> ListedRun:
    """Make a finished run with settings."""
    keys = {"encoders": ["lite0"], "backbone.kind": "ridge", "seeds": [1]}
    return ListedRun(
        folder=RunFolder(Path("runs/train-align") / name),
        label=label,
        state="finished",
        result="top-1 25 % (95 % CI 20 to 30 %; chance 1 %)",
        settings=keys | settings,
        changed_s=0.0,
        n_bytes=1000,
    )


@pytest.fixture
def table() -> Table:
    """Two runs that differ in the backbone and in the noise of the data."""
    first = list_run("a", "[i]wide[/i]", **{"dataset.noise": 0.5})
    second = list_run("b", **{"backbone.kind": "nice", "dataset.noise": "x" * 200})
    return lay_out_runs([first, second], "Runs", "a note")


def test_programs_get_all_columns_and_whole_values(table: Table) -> None:
    first, second = table.as_dict()["rows"]
    assert list(first) == [
        *("run", "label", "state", "result", "encoder", "backbone", "seeds", "noise"),
        *("last changed", "size"),
    ]
    assert first["label"] == "[i]wide[/i]" and second["label"] == ""
    assert first["backbone"] == "ridge" and second["backbone"] == "nice"
    assert second["noise"] == "x" * 200
    assert first["last changed"].startswith("1970-01-01") and first["size"] == 1000


def test_people_see_the_columns_in_which_runs_differ(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    [wide] = lay_out_for_terminal(table)
    assert not wide.is_list
    assert list(wide.columns) == [
        *("run", "label", "state", "result", "backbone", "noise", "age", "size")
    ]
    # equal settings are said once, and long values are cut
    assert "lite0" in wide.note and "a note" in wide.note
    assert max(len(str(row[5])) for row in wide.rows) == 40

    monkeypatch.setenv("COLUMNS", "80")
    [narrow] = lay_out_for_terminal(table)
    assert narrow.is_list
    text = " ".join(narrow.rows[0])
    for fact in ("a", "[i]wide[/i]", "backbone ridge", "noise 0.5"):
        assert fact in text


def test_a_single_run_keeps_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    [single] = lay_out_for_terminal(lay_out_runs([list_run("a")], "Runs"))
    assert {"encoder", "backbone", "seeds"} <= set(single.columns)
    assert "label" not in single.columns


def test_each_command_has_a_table_of_its_own(table: Table) -> None:
    evaluation = replace(
        list_run("c"),
        folder=RunFolder(Path("runs/eval-retrieval/c")),
        state="interrupted",
    )
    newest_first = lay_out_runs([evaluation, list_run("a"), list_run("b")], "Runs", "†")
    evaluations, trainings = lay_out_for_terminal(newest_first)
    assert "eval-retrieval" in evaluations.title and "Runs" in evaluations.title
    assert "interrupted" in evaluations.rows[0] and not evaluations.note
    assert trainings.title == "train-align" and "†" in trainings.note
    assert [row[0] for row in trainings.rows] == ["a", "b"]


def test_bytes_are_counted_in_subfolders_without_links(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/x").write_bytes(b"12345")
    (tmp_path / "y").write_bytes(b"123")
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    (outside / "z").write_bytes(b"1" * 9999)
    (tmp_path / "link").symlink_to(outside)
    link_bytes = (tmp_path / "link").lstat().st_size
    assert count_bytes(tmp_path) == 8 + link_bytes
