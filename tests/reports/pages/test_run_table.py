"""The list of runs is a table where it fits, and paragraphs elsewhere."""

import pytest
import yaml

from brainhive_cli.core.base.tables import write_as_list
from brainhive_cli.core.results.measurements import SIMULATED, Measurements, Metric
from brainhive_cli.core.runs.run_folder import RunFolder
from brainhive_cli.reports.pages.run_table import (
    count_bytes,
    lay_out_runs,
    shorten_table,
)

RECIPE = {"encoders": ["lite0"], "backbone": {"kind": "ridge"}, "seeds": [1]}
TOP1 = Metric(
    "top1",
    0.25,
    40,
    4,
    0.01,
    0.2,
    0.3,
    (1,),
    "intra",
    "test",
    "t",
    caveats=(SIMULATED,),
)


def write_run(home, name, label="", command="train-align", **changes):
    """Write a finished run with settings."""
    folder = RunFolder(home / "runs" / command / name)
    folder.write_text("recipe.yaml", yaml.safe_dump(RECIPE | changes))
    folder.finish(Measurements({"all": {"top1": TOP1}}))
    if label:
        folder.set_label(label)
    return folder


@pytest.fixture
def table(tmp_path):
    """Two runs that differ in the backbone and in the noise of the data."""
    first_row = write_run(tmp_path, "a", "[i]wide[/i]", dataset={"noise": 0.5})
    changes = {"backbone": {"kind": "nice"}, "dataset": {"noise": "x" * 200}}
    second = write_run(tmp_path, "b", **changes)
    (table,) = lay_out_runs({first_row: 0.0, second: 0.0}, "Runs")
    return table


def test_programs_get_all_columns_and_whole_values(table):
    first_row, second = table.as_dict()["rows"]
    assert list(first_row) == [
        "run",
        "label",
        "state",
        "result",
        "encoders",
        "backbone",
        "seeds",
        "dataset.noise",
        "last changed",
        "size",
    ]
    assert first_row["run"] == "train-align/a"
    assert first_row["label"] == "[i]wide[/i]"
    assert second["label"] == ""
    assert first_row["backbone"] == "ridge"
    assert second["backbone"] == "nice"
    assert second["dataset.noise"] == "x" * 200
    assert first_row["last changed"].startswith("1970-01-01")
    assert first_row["size"] > 100
    assert first_row["result"].endswith("(simulated)")
    assert "† simulated" in table.note


def test_people_see_the_columns_in_which_runs_differ(table):
    shortened = shorten_table(table)
    assert list(shortened.columns) == [
        "run",
        "label",
        "state",
        "result",
        "backbone",
        "dataset.noise",
        "last changed",
        "size",
    ]
    # equal settings are said once, and long values are cut
    assert "lite0" in shortened.note
    assert "† simulated" in shortened.note
    assert max(len(str(row[5])) for row in shortened.rows) == 40

    text = write_as_list(shortened, 80)
    for fact in ("a", "label [i]wide[/i]", "backbone ridge", "dataset.noise 0.5"):
        assert fact in text


def test_a_single_run_keeps_its_settings(tmp_path):
    (table,) = lay_out_runs({write_run(tmp_path, "a"): 0.0}, "Runs")
    columns = shorten_table(table).columns
    assert {"encoders", "backbone", "seeds"} <= set(columns)
    assert "label" not in columns


def test_each_command_has_a_table_of_its_own(tmp_path):
    evaluation = RunFolder(tmp_path / "runs/eval-retrieval/c")
    evaluation.write_text("recipe.yaml", "gallery: test\n")
    runs = dict.fromkeys([evaluation, write_run(tmp_path, "a")], 0.0)
    runs[write_run(tmp_path, "b")] = 0.0
    evaluations, trainings = lay_out_runs(runs, "Runs")
    assert evaluations.title == "Runs: eval-retrieval"
    assert not evaluations.note
    assert "interrupted" in evaluations.rows[0]
    assert trainings.title == "train-align"
    assert "†" in trainings.note
    assert [str(row[0]) for row in trainings.rows] == ["a", "b"]


def test_bytes_are_counted_in_subfolders_without_links(tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/x").write_bytes(b"12345")
    (tmp_path / "y").write_bytes(b"123")
    outside_folder = tmp_path.parent / f"{tmp_path.name}-outside"
    outside_folder.mkdir()
    (outside_folder / "z").write_bytes(b"1" * 9999)
    (tmp_path / "link").symlink_to(outside_folder)
    link_bytes = (tmp_path / "link").lstat().st_size
    assert count_bytes(tmp_path) == 8 + link_bytes
