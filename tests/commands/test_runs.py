"""The command `runs`: lists, descriptions and removal of runs."""

import json
import os
from datetime import datetime
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.commands import runs as runs_command
from brainhive_cli.core.files import documents, files
from brainhive_cli.core.results.measurements import Measurements, Metric
from brainhive_cli.core.runs import Launch, run_folder as core_runs
from brainhive_cli.core.runs.driver import start_run
from brainhive_cli.reports.pages import run_table
from tests.worlds.named_run import NamedRun

TOP1 = Metric("top1", 0.25, 100, 100, 0.01, 0.2, 0.3, (1,), "cosine", "test", "Wilson")


def write_run(command, label, **scopes):
    """Write a run, which is finished if it has scopes."""
    started_run = start_run(
        NamedRun(command, name=label), Launch(0, 1, torch.device("cpu"))
    )
    if scopes:
        started_run.finish(Measurements(scopes))
    return started_run


def brainhive(*arguments, columns="80", answer=None):
    return CliRunner(env={"COLUMNS": columns}).invoke(
        app, ["runs"] + list(arguments), input=answer
    )


@pytest.fixture
def runs(home):
    """A finished run, one that another uses, and one that is being written."""
    align = write_run("train-align", "intra", a={"top1": TOP1}, b={"top1": TOP1})
    retrieval = write_run("eval-retrieval", "found", all={"top1": TOP1})
    (retrieval.path / "recipe.yaml").write_text(f"align_run: {align.path.name}\n")
    running = write_run("train-align", "joint")
    running.write_text("checkpoints/cell.txt", "half way")
    return [align, retrieval, running]


def test_runs_are_listed_with_state_result_age_and_size(runs):
    output = brainhive(columns="300").stdout
    lines = {line.split()[0]: line for line in output.splitlines() if line}
    align, retrieval, running = (lines[finished_run.path.name] for finished_run in runs)
    for fact in ("finished", "top-1", "25 %", "kB"):
        assert fact in align
    for fact in ("finished", "top-1 25 %", "95 % CI 20 to 30 %", "1 %", "minute"):
        assert fact in retrieval
    assert "running" in running
    del runs[2:]  # the process that held it is gone
    assert "interrupted" in brainhive("train-align").stdout
    assert "eval-retrieval" not in brainhive("train-align").stdout


def test_a_run_is_removed_when_the_user_agrees(runs, monkeypatch):
    name = runs[0].path.name
    refused = brainhive("rm", name)
    assert refused.exit_code == 1
    assert "--yes" in refused.stderr
    assert name in refused.stderr
    assert runs[0].path.exists()
    in_use = brainhive("rm", name, runs[2].path.name, "--yes")
    assert in_use.exit_code == 1
    assert runs[2].path.name in in_use.stderr
    assert runs[0].path.exists()
    assert runs[2].path.exists()
    monkeypatch.setattr(
        "brainhive_cli.core.base.console.confirm", lambda question: " 1 run" in question
    )
    assert brainhive("rm", name).exit_code == 0
    assert not runs[0].path.exists()
    assert brainhive("rm", str(runs[1].path), "--yes").exit_code == 0
    assert not runs[1].path.exists()


def test_runs_are_removed_only_by_their_own_name(
    runs,
):
    unnamed = brainhive("rm", "--yes")
    assert unnamed.exit_code == 2
    assert "brainhive runs rm NAME" in unnamed.stderr
    unknown = brainhive("rm", "eval-retrieval", "--yes")
    assert unknown.exit_code == 3
    assert "'eval-retrieval'" in unknown.stderr
    assert all(finished_run.path.exists() for finished_run in runs)


def test_a_run_is_shown_with_what_it_is_and_what_it_measured(
    runs,
):
    align, retrieval, _ = runs
    process = brainhive("show", retrieval.path.name, columns="200")
    assert process.exit_code == 0
    assert f"eval-retrieval/{retrieval.path.name}" in process.stdout
    assert ["top-1", "0.250", "(0.200–0.300)", "0.01"] in map(
        str.split, process.stdout.splitlines()
    )
    assert "100" in process.stdout
    assert f"brainhive report {retrieval.path.name}" in process.stderr
    newest = brainhive("show", "train-align", columns="200")
    assert align.path.name in newest.stderr
    values = [line.split()[1:2] for line in newest.stdout.splitlines()]
    assert values.count(["0.250"]) == 2
    unknown = brainhive("show", "nothing")
    assert unknown.exit_code == 3
    assert "'nothing'" in unknown.stderr
    several_process = brainhive("show", align.path.name, retrieval.path.name)
    assert several_process.exit_code == 2
    assert align.path.name in several_process.stderr
    assert retrieval.path.name in several_process.stderr


def test_for_programs_a_time_is_in_iso_and_a_size_in_bytes(
    runs,
):
    (row,) = json.loads(brainhive("eval-retrieval", "--json").stdout)
    changed = datetime.fromisoformat(row["last changed"])
    assert changed.tzinfo
    assert abs(changed.timestamp() - runs[1].path.stat().st_mtime) < 60
    assert row["size"] == sum(
        file.stat().st_size for file in runs[1].path.rglob("*") if file.is_file()
    )


@pytest.fixture
def many_runs(home):
    """Four finished runs, the newest first, in a command that lists two at once."""
    run_folders = []
    for age_s in range(4):
        finished_run = write_run("explain", f"of-{age_s}", all={"top1": TOP1})
        os.utime(finished_run.path / "metrics.json", (10_000 - age_s,) * 2)
        (finished_run.path / "environment.json").unlink()
        run_folders.append(finished_run)
    return run_folders


@pytest.fixture
def counted_runs(monkeypatch):
    """The runs whose sizes are counted, where two are listed at once."""
    names = list[str]()

    def count(folder):
        names.append(folder.name)
        return 0

    monkeypatch.setattr(runs_command, "MAX_LISTED_RUNS", 2)
    monkeypatch.setattr(run_table, "count_bytes", count)
    return names


def list_rows(*arguments):
    """List runs for programs: their names, and the messages on stderr."""
    process = brainhive(*arguments, "--json")
    rows = json.loads(process.stdout)
    return [row["run"].rpartition("/")[2] for row in rows], process.stderr


def test_a_home_without_runs_lists_nothing(home):
    assert brainhive("--json").stdout == "[]\n"


def test_the_newest_runs_are_listed_and_older_ones_counted(many_runs, counted_runs):
    names = [run_folder.path.name for run_folder in many_runs]
    newest, messages = list_rows()
    # of the others no file is counted
    assert newest == names[:2] == counted_runs
    for text in (messages, brainhive(columns="60").stdout):
        assert "2 older" in text
        assert "brainhive runs --all" in text
        assert names[2] not in text


def test_all_runs_are_listed_on_demand(many_runs, counted_runs):
    names, messages = list_rows("--all")
    assert names == [run_folder.path.name for run_folder in many_runs] == counted_runs
    assert "older" not in messages


def test_a_name_is_searched_among_all_runs(many_runs, counted_runs):
    oldest = many_runs[-1].path.name
    assert list_rows(oldest)[0] == [oldest] == counted_runs
    messages = list_rows("explain")[1]
    assert "2 older" in messages
    assert "brainhive runs explain --all" in messages


def test_of_a_named_run_no_other_is_read(many_runs, monkeypatch):
    read_paths = list[Path]()
    read_regular = files.read_regular

    def record(path, *limits):
        read_paths.append(Path(path))
        return read_regular(path, *limits)

    for module in (documents, core_runs):
        monkeypatch.setattr(module, "read_regular", record)
    assert brainhive(many_runs[2].path.name).exit_code == 0
    folders = {
        path.parent
        for path in read_paths
        if path.is_relative_to(many_runs[0].path.parent)
    }
    assert folders == {many_runs[2].path}


LABELS = ["wide window", "[bold]Übung[/bold] <b>&amp;</b>", "a, b: c"]


@pytest.fixture
def labelled(many_runs):
    """Three finished runs with labels, and one without."""
    for run_folder, label in zip(many_runs, LABELS, strict=False):
        run_folder.set_label(label)
    return many_runs


def test_a_label_is_shown_literally_and_names_its_run(
    labelled,
):
    for columns in ("60", "300"):
        process = brainhive(columns=columns)
        for label in LABELS:
            assert label in " ".join(process.stdout.split())
    for run_folder, label in zip(labelled, LABELS, strict=False):
        assert list_rows(label)[0] == [run_folder.path.name]
        described = json.loads(brainhive("show", label, "--json").stdout)
        assert described["folder"] == str(run_folder.path)
        assert described["label"] == label
        assert label in brainhive("show", label).stdout


def test_a_label_of_several_runs_removes_none(labelled):
    labelled[3].set_label(LABELS[0])
    refused = brainhive("rm", LABELS[0], "--yes")
    assert refused.exit_code == 2
    assert labelled[0].path.exists()
    assert labelled[3].path.exists()
    assert labelled[0].path.name in refused.stderr
    assert labelled[3].path.name in refused.stderr
    assert len(list_rows(LABELS[0])[0]) == 2

    assert brainhive("rm", LABELS[1], "--yes").exit_code == 0
    assert not labelled[1].path.exists()


def test_the_word_list_lists_runs(many_runs):
    assert list_rows("list") == list_rows()
    assert list_rows("list", many_runs[1].path.name)[0] == [many_runs[1].path.name]


def test_an_unfinished_run_is_shown_with_its_set_up(runs):
    running = runs[2]
    running.write_text("recipe.yaml", "seeds: [7, 8]\nbackbone: {kind: ridge}\n")
    running.set_label("half way")
    for name in (running.path.name, "half way"):
        process = brainhive("show", name, "--json")
        assert process.exit_code == 0
        document = json.loads(process.stdout)
        rows = [row for table in document["tables"] for row in table["rows"]]
        assert {"key": "seeds", "value": "7, 8"} in rows
        assert {"key": "backbone.kind", "value": "ridge"} in rows
        assert document["label"] == "half way"
    assert "running" in brainhive("show", running.path.name).stdout
