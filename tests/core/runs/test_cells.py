"""Cells that are claimed, finished and listed; runs that are opened and left."""

import errno
import os
import time
from typing import Any

import numpy as np
import pytest
import torch

from brainhive_cli.core.base.errors import BrainhiveError, Unfinished
from brainhive_cli.core.recipes.recipe import Recipe
from brainhive_cli.core.results.measurements import Measurements
from brainhive_cli.core.runs import (
    LOCK,
    READ_ONLY,
    CellStage,
    Claim,
    Launch,
    OpenRun,
    RunFolder,
    Work,
    announce,
    cells,
    is_in_use,
    remove_unused,
    share_cells,
)
from brainhive_cli.core.runs.cells import CELLS_FILE, claim_path, read_cells
from brainhive_cli.core.runs.claims import is_held_by_this_process
from brainhive_cli.core.runs.driver import (
    WORKERS_FOLDER,
    claim_cells,
    claim_finish,
    compute_stages,
    is_untouched,
    start_run,
)
from tests.worlds.named_run import NamedRun

ALONE = Launch(0, 1, torch.device("cpu"))
ELSEWHERE = "node7 0-0-0 4711 -"
"""Content of a claim that a process of another machine holds."""


@pytest.fixture
def run(home):
    """An empty run."""
    folder = RunFolder(home / "runs/embed/a")
    folder.path.mkdir(parents=True)
    return folder


def open_run_folder(again=False, launch=ALONE, **fields):
    return start_run(NamedRun("embed"), launch, again, **fields)


def claim_of_another(path, age_s=0.0):
    """A claim of another machine, which was touched some time ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(ELSEWHERE)
    touched_s = time.time() - age_s
    os.utime(path, (touched_s, touched_s))
    return path


def test_each_free_cell_is_claimed_until_its_file_is_there(tmp_path):
    files = {name: tmp_path / name / "done" for name in "abc"}
    files["b"].parent.mkdir()
    files["b"].touch()
    claimed, on_claim = list[str](), list[tuple[str, str]]()
    with share_cells(
        files, ALONE, lambda *arguments: on_claim.append(arguments)
    ) as free:
        for name in free:
            claimed.append(name)
            assert is_held_by_this_process(claim_path(files[name]))
            assert Claim.attempt(claim_path(files[name])) is None
            files[name].touch()
    assert claimed == ["a", "c"]
    assert on_claim == [("a", ""), ("c", "")]
    assert not list(tmp_path.rglob(".*.cell"))


def test_a_cell_is_finished_as_its_caller_says(tmp_path):
    files, finished_files = {name: tmp_path / name for name in "abc"}, {"b"}
    with share_cells(files, ALONE, is_finished=finished_files.__contains__) as free:
        for name in free:
            finished_files.add(name)
    assert finished_files == set("abc")
    assert not list(tmp_path.iterdir())


def test_a_cell_whose_block_fails_is_free_at_once(tmp_path):
    files = {"a": tmp_path / "a"}
    with pytest.raises(ValueError), share_cells(files, ALONE) as free:
        assert next(free) == "a"
        raise ValueError
    claim = Claim.attempt(claim_path(files["a"]))
    assert claim is not None
    assert claim.taken_from == ""


def test_a_reader_refuses_unfinished_cells(tmp_path):
    files = {name: tmp_path / name for name in "ab"}
    files["a"].touch()
    with pytest.raises(Unfinished), share_cells(files, READ_ONLY) as free:
        next(free)
    files["b"].touch()
    with share_cells(files, READ_ONLY) as free:
        assert list(free) == []
    assert {path.name for path in tmp_path.iterdir()} == set("ab")


def test_cells_of_others_are_waited_for_and_taken_over(tmp_path, monkeypatch, capsys):
    files = {name: tmp_path / name for name in "abcd"}
    claims_by_name = {name: claim_of_another(claim_path(files[name])) for name in "bd"}
    claim_of_another(claim_path(files["c"]), age_s=1000)
    slept = list[float]()

    def sleep(seconds):
        slept.append(seconds)
        if len(slept) == 9:  # one worker finishes, the other dies
            files["b"].touch()
            claims_by_name["b"].unlink()
            claim_of_another(claims_by_name["d"], age_s=1000)

    monkeypatch.setattr(cells.time, "sleep", sleep)
    claimed = list[tuple[str, str]]()
    with share_cells(
        files, ALONE, lambda *arguments: claimed.append(arguments)
    ) as free:
        for name in free:
            files[name].touch()

    assert claimed == [("a", ""), ("c", "node7 4711"), ("d", "node7 4711")]
    assert slept == pytest.approx([0.05 * 1.5**step for step in range(9)])
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "b (node7 4711)" in lines[0]
    assert "d (" in lines[0]


@pytest.mark.parametrize(
    ("number", "seconds", "passes"),
    [
        (errno.EIO, 119.0, True),
        (errno.ESTALE, 121.0, False),
        (errno.ENOSPC, 0.0, False),
    ],
)
def test_a_disk_may_fail_for_two_minutes(
    tmp_path,
    monkeypatch,
    number,
    seconds,
    passes,
):
    files, clock_s, calls = {"a": tmp_path / "a"}, [5.0], list[int]()
    attempt = Claim.attempt

    def fail_twice(path):
        calls.append(1)
        if len(calls) < 3:
            raise OSError(number, "failed")
        return attempt(path)

    def sleep(_):
        clock_s[0] += seconds

    monkeypatch.setattr(Claim, "attempt", fail_twice)
    monkeypatch.setattr(cells.time, "sleep", sleep)
    monkeypatch.setattr(cells.time, "monotonic", lambda: clock_s[0])
    with share_cells(files, ALONE) as free:
        if not passes:
            with pytest.raises(OSError):
                next(free)
            return
        assert next(free) == "a"
        files["a"].touch()


def test_the_list_of_cells_grows_by_those_that_it_lacks(run):
    def claim(files, launch=ALONE):
        with claim_cells(run, files, launch, lambda name: True) as free:
            assert list(free) == []

    assert read_cells(run.path) == {}
    claim({"metrics.json": "metrics.json"})
    claim({"a": "x/a"}, READ_ONLY)
    assert not (run.path / CELLS_FILE).exists()
    claim({"a": "x/a", "b": "x/b"})
    st_mtime_ns = (run.path / CELLS_FILE).stat().st_mtime_ns
    claim({"b": "x/b"})
    claim({})
    assert (run.path / CELLS_FILE).stat().st_mtime_ns == st_mtime_ns
    # another cell, and a cell with another file
    claim({"b": "y/b", "c": "x/c"})
    assert read_cells(run.path) == {"a": "x/a", "b": "y/b", "c": "x/c"}
    claim({"c": "x/c", "d": "x/d"})
    assert list(read_cells(run.path)) == list("abcd")
    (run.path / "link").symlink_to(run.path)
    with pytest.raises(BrainhiveError):
        claim({"a": "link/a"})


def test_the_log_says_from_whom_a_cell_was_taken(run, capsys):
    claim_of_another(claim_path(run.path / "b"), age_s=1000)
    with claim_cells(run, {"a": "a", "b": "b"}, ALONE) as free:
        for name in free:
            run.write_text(name, "")
    (event,) = run.events()
    assert (event["cell"], event["taken_from"]) == ("b", "node7 4711")
    assert event["by"].endswith(f" {os.getpid()}")
    assert "b is taken over from node7 4711" in capsys.readouterr().err


def test_cells_without_a_file_are_measured(run):
    files = {name: f"cells/{name}.safetensors" for name in "abc"}
    run.write_text(files["b"], "x")
    measured_cells = list[str]()

    def measure(name, launch):
        measured_cells.append(name)
        if name == "a":
            run.write_text(files["c"], "by another worker")
        return {"value": np.ones(2)}

    stage = CellStage("measuring", files, measure)
    opened_run = OpenRun(run, ALONE)
    assert compute_stages([(opened_run, stage)], Work("demo", 3, "cells")) == (
        False,
        None,
    )
    assert measured_cells == ["a"]
    assert (run.path / files["a"]).is_file()
    (run.path / files["a"]).unlink()
    assert compute_stages([(opened_run, stage)]) == (True, None)
    assert compute_stages([(opened_run, stage)]) == (True, None)
    assert measured_cells == ["a", "a"]


def test_the_announcement_counts_what_is_left(home, monkeypatch):
    messages, runs = list[Any](), home / "runs"
    monkeypatch.setattr(
        cells.console, "announce", lambda *arguments: messages.append(arguments)
    )
    work = Work("demo", 10, "epochs")
    announce(work, "embed", runs, ALONE, 0.31)
    work.remember(runs, work.key("embed", "cpu"), 50.0, 1)
    announce(work, "embed", runs, ALONE, 0.01)
    announce(work, "embed", runs, ALONE)
    announce(work, "embed", runs, Launch(1, 2, "cpu"))
    announce(work, "embed", runs, Launch(0, 2, "cpu"))
    assert messages == [
        ("3 epochs", None, 3),
        ("1 epochs", 5.0, 1),
        ("10 epochs", 5.0, 10),
        ("10 epochs", None, 10),
    ]


def test_one_worker_finishes_a_run(run):
    with claim_finish(run, ALONE) as is_mine:
        assert is_mine is True
        run.write_text("metrics.json", "{}")
    with claim_finish(run, ALONE) as is_mine:
        assert is_mine is False


def test_a_run_is_numbered_after_the_newest_of_its_recipe(home):
    first_folder = open_run_folder()
    assert open_run_folder().path == first_folder.path
    second = open_run_folder(again=True)
    assert second.path == first_folder.path.with_name(f"{first_folder.path.name}-2")
    # without again the newest of them is continued, and found
    assert open_run_folder().path == second.path
    with pytest.raises(Unfinished):
        open_run_folder(launch=READ_ONLY)
    second.finish(Measurements())
    assert open_run_folder(launch=READ_ONLY).path == second.path


def test_a_finished_run_notes_who_asks_for_it(home, capsys):
    open_run_folder().finish(Measurements())
    capsys.readouterr()
    names = list[str]()
    run_folder = open_run_folder(finished_names=names)
    assert names == [run_folder.path.name]
    assert capsys.readouterr().err == ""
    recipe = Recipe(recipe_name="papers/x")
    start_run(NamedRun("embed", recipe), ALONE)
    assert run_folder.read_found().recipe_names == ["", "papers/x"]
    assert capsys.readouterr().err.count(run_folder.path.name) == 1


def test_digests_are_part_of_an_opened_run(home):
    run_folder = open_run_folder(digests={"b": "2", "a": "1"})
    assert list(run_folder.recipe()["digests"].items()) == [("a", "1"), ("b", "2")]
    assert run_folder.path != open_run_folder().path
    environment = run_folder.read_json("environment.json")
    assert environment["processes"] == 1
    assert "started" in environment


def test_claims_of_dead_workers_go_and_living_ones_are_counted(home, capsys):
    run_folder = open_run_folder()
    path = run_folder.path
    (path / "recipe.yaml").write_text("changed: 1\n")
    del run_folder
    workers = path / WORKERS_FOLDER
    claim_of_another(workers / "dead", age_s=1000)
    living = claim_of_another(workers / "living")
    capsys.readouterr()

    run_folder = open_run_folder()

    assert living.exists()
    assert not (workers / "dead").exists()
    assert "with 1 other worker\n" in capsys.readouterr().err
    # another worker's recipe and environment stay
    assert (path / "recipe.yaml").read_text() == "changed: 1\n"
    claim_of_another(workers / "second")
    del run_folder
    run_folder = open_run_folder()
    assert "with 2 other workers\n" in capsys.readouterr().err
    living.unlink()
    (workers / "second").unlink()
    del run_folder
    run_folder = open_run_folder()
    assert run_folder.recipe(Recipe) == Recipe()


def test_a_run_is_in_use_while_its_worker_lives(home):
    run_folder = open_run_folder()
    assert is_in_use(run_folder)
    assert is_untouched(run_folder)
    run_folder.finish(Measurements())
    assert not is_in_use(run_folder)
    assert not is_untouched(run_folder)


@pytest.mark.parametrize(
    ("change", "is_kept"),
    [
        (lambda run: None, False),
        (lambda run: run.write_json(CELLS_FILE, {}), False),
        (lambda run: run.write_text("log.jsonl", ""), True),
        (lambda run: claim_of_another(run.path / WORKERS_FOLDER / "x"), True),
        (lambda run: claim_of_another(run.path / WORKERS_FOLDER / "x", 1000), False),
    ],
    ids=["nothing", "listed", "logged", "another worker", "a dead worker"],
)
def test_a_run_for_which_nothing_was_done_is_removed(home, change, is_kept):
    run = open_run_folder()
    change(run)
    remove_unused(home / "runs")
    assert run.path.exists() is is_kept
    assert run.path.parent.exists() is is_kept
    if is_kept:
        assert not (run.path / LOCK).exists()


def test_runs_of_other_workers_are_not_removed(home):
    run_folder, other_run_folder = (
        open_run_folder(),
        RunFolder(home / "runs/embed/other"),
    )
    claim_of_another(other_run_folder.path / WORKERS_FOLDER / "x")
    remove_unused(home / "runs")
    assert not run_folder.path.exists()
    assert other_run_folder.path.exists()
