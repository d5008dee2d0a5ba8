"""Run folders: a run is its recipe, one command writes it, and names appear only when complete."""

import os
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import torch

from brainhive_cli.commands import trackers
from brainhive_cli.core import run_files, runs
from brainhive_cli.core.claims import Claim
from brainhive_cli.core.documents import read_digests
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.facts import Cell, Facts, TrainingFacts
from brainhive_cli.core.files import name_part
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import Measurements
from brainhive_cli.core.recipe import Recipe, Run
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.core.weights import Checkpoint

ALONE = Launch(0, 1, torch.device("cpu"))


def opened(again: bool = False, **changes: object) -> RunFolder:
    return RunFolder.open("train-align", "tiny", Recipe(**changes), ALONE, again)


def set_finished(run: RunFolder, age_s: float) -> None:
    """Let the documents of a run say that it was finished some time ago."""
    finished = datetime.now(UTC) - timedelta(seconds=age_s)
    run.write_json("environment.json", {**run.read_json("environment.json"), "finished": str(finished)})


def test_a_new_run_says_what_it_is_and_where_it_ran(home: Path) -> None:
    run = opened()
    assert run.path.parent == home / "runs/train-align"
    assert run.path.name == f"tiny-{Recipe().fingerprint()}"
    assert Recipe.model_validate(run.recipe()) == Recipe()
    assert torch.__version__.startswith(run.read_json("environment.json")["versions"]["torch"])
    assert not run.is_finished


def test_the_same_recipe_finds_its_run_however_it_is_run(home: Path) -> None:
    run = opened()
    run.finish(Measurements(facts=Facts(mode="intra")))
    found = opened(run=Run(workers=0))
    assert found.path == run.path and found.is_finished and found.measurements().facts.mode == "intra"


def test_a_process_whose_work_on_a_run_has_failed_takes_the_run_up_again(home: Path) -> None:
    def fail() -> None:
        run = opened()
        run.write_text("checkpoints/cell.txt", "half way")
        raise ValueError

    with pytest.raises(ValueError) as kept:  # its traceback holds the run, as a notebook's last one does
        fail()
    again = opened()
    assert kept.value.__traceback__ and (again.path / "checkpoints/cell.txt").read_text() == "half way"


def test_a_run_that_cannot_be_opened_is_removed_and_not_waited_for(home: Path) -> None:
    class Unwilling(Launch):
        def describe_environment(self) -> dict[str, object]:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError) as kept:  # its traceback holds what has opened the run
        RunFolder.open("train-align", "tiny", Recipe(), Unwilling(0, 1, torch.device("cpu")))
    waiting = threading.Thread(target=runs.remove_unused, args=(home / "runs",), daemon=True)
    waiting.start()
    waiting.join(10)
    assert kept.value.errno == 28 and not waiting.is_alive()
    assert not [*(home / "runs").glob("*/*")]


def test_an_interrupted_run_is_taken_up_again_with_what_it_has(home: Path) -> None:
    run = opened()
    run.write_text("checkpoints/cell.txt", "half way")
    path = run.path
    del run  # the process that held it is gone
    assert (opened().path / "checkpoints/cell.txt").read_text() == "half way"
    assert opened().path == path


def test_a_run_says_whether_it_is_found_or_continued(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = opened()
    assert capsys.readouterr().err == ""
    name, path = run.path.name, run.path
    del run  # the process that held it is gone
    opened().finish(Measurements())
    assert capsys.readouterr().err == f"continuing run {name}\n"
    assert opened().path == path
    told = f"found run {name}, finished less than a minute ago; --again starts a new one\n"
    assert capsys.readouterr().err == told


def test_a_run_that_is_found_again_is_the_newest_and_known_by_the_recipe_that_found_it(home: Path) -> None:
    asked, other = opened(recipe_name="first"), RunFolder.open("train-align", "other", Recipe(), ALONE)
    for age_s, run in ((60, asked), (5, other)):
        run.finish(Measurements())
        set_finished(run, age_s)
    assert [run.path for run in runs.finished_runs(home / "runs", "train-align")] == [other.path, asked.path]

    assert opened(recipe_name="second").path == asked.path
    assert opened().path == asked.path
    assert asked.read_found().recipe_names == ["", "second"]
    assert [run.path for run in runs.finished_runs(home / "runs", "train-align")] == [asked.path, other.path]
    (asked.path / runs.FOUND).write_text("{")
    assert asked.read_found().recipe_names == []
    assert opened(recipe_name="third").read_found().recipe_names == ["third"]


def test_a_copied_run_is_as_old_as_its_documents_say(home: Path) -> None:
    run = opened()
    run.finish(Measurements())
    set_finished(run, 3 * 3600 + 5)
    for file in home.rglob("*.json*"):
        os.utime(file)  # as a copy has them
    assert run.age == "3 hours ago"
    assert opened().path == run.path and run.age == "3 hours ago" and run.changed_s > run.written_s


def test_only_runs_of_this_process_without_anything_done_are_removed(home: Path) -> None:
    unused = opened()
    other = RunFolder.open("train-prior", "other", Recipe(), ALONE)
    begun = RunFolder.open("train-prior", "begun", Recipe(), ALONE)
    begun.write_text("checkpoints/cell.txt", "half way")
    (other.path / ".workers/node7").write_text("node7 0-0-0 1 -")  # a worker of another machine
    runs.remove_unused(home / "runs")
    assert [run.path.exists() for run in (unused, other, begun)] == [False, True, True]
    assert not unused.path.parent.exists()


def test_again_starts_beside_what_is_there(home: Path) -> None:
    first = opened()
    first.finish(Measurements())
    second = opened(again=True)
    second.finish(Measurements())
    third = opened(again=True)
    assert [run.path.name for run in (second, third)] == [f"{first.path.name}-2", f"{first.path.name}-3"]
    assert opened(again=False, paths={"runs": "elsewhere"}).path.parent.parent.name == "elsewhere"


WORKER = """if True:
    import sys, time, torch
    from brainhive_cli.core.launch import Launch
    from brainhive_cli.core.recipe import Recipe
    from brainhive_cli.core.runs import RunFolder
    alone = Launch(0, 1, torch.device("cpu"))
    run = RunFolder.open("train-align", "tiny", Recipe(), alone)
    with run.claim_cells({name: f"cells/{name}.txt" for name in "abcdef"}, alone) as free:
        for name in free:
            print(name, flush=True)
            sys.stdin.readline()
            run.write_text(f"cells/{name}.txt", name)
"""
"""A process that works on the cells of a run, each when it is told to."""


def test_two_commands_share_a_run_cell_by_cell_and_one_takes_over_from_the_killed(home: Path) -> None:
    files = {name: f"cells/{name}.txt" for name in "abcdef"}
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", WORKER], stdin=pipe, stdout=pipe, text=True) as other:
        assert other.stdin and other.stdout and other.stdout.readline() == "a\n"
        other.stdin.write("go on\n")
        other.stdin.flush()
        assert other.stdout.readline() == "b\n"
        run = opened()
        assert run.is_in_use and not run.is_finished
        assert [path.name for path in run.path.glob("cells/*.txt")] == ["a.txt"]
        own = []
        with run.claim_cells(files, ALONE) as free:
            for name in free:
                own.append(name)
                if len(own) == 2:
                    other.kill()
                    other.wait()
                run.write_text(files[name], name)
    assert own == [*"cdefb"] and len([*run.path.glob("cells/*.txt")]) == 6
    taken = [event for event in run.events() if event.get("taken_from")]
    assert [event["cell"] for event in taken] == ["b"] and f" {other.pid}" in taken[0]["taken_from"]


@pytest.mark.parametrize("is_folder", [False, True])
def test_a_final_name_appears_only_when_complete(home: Path, is_folder: bool) -> None:
    def write(path: Path, text: str, breaks: bool) -> None:
        if is_folder:
            path.mkdir(exist_ok=True)
            path = path / "weights"
        path.write_text(text)
        if breaks:
            raise OSError("no space")

    run = opened()
    with pytest.raises(OSError):
        run.replace("model", lambda path: write(path, "half", True))
    assert not (run.path / "model").exists()
    final = run.replace("model", lambda path: write(path, "whole", False))
    with pytest.raises(OSError):
        run.replace("model", lambda path: write(path, "half", True))
    assert (final / "weights" if is_folder else final).read_text() == "whole"
    run.replace("model", lambda path: write(path, "new", False))
    assert sorted(path.name for path in run.path.iterdir() if path.name != ".workers") == [
        "environment.json",
        "model",
        "recipe.yaml",
    ]


def test_a_run_and_its_files_never_lie_outside_its_folder(home: Path) -> None:
    with pytest.raises(BrainhiveError, match=r"name of a run, .* leads out of its folder"):
        RunFolder.open("train-align", "../../../x", Recipe(), ALONE)
    run = opened()
    with pytest.raises(BrainhiveError, match=r"file of a run, .* leads out of its folder"):
        run.write_text("samples/../../../x.png", "")
    assert sorted(path.name for path in home.iterdir()) == ["runs"]


def test_the_log_is_one_event_a_line(home: Path) -> None:
    run = opened()
    run.log(epoch=1, loss=0.5)
    run.log(epoch=2, loss=torch.tensor(0.25))
    assert len((run.path / "log.jsonl").read_text().splitlines()) == 2


def test_the_newest_finished_run_is_found_unless_one_is_named(home: Path) -> None:
    old, new, unfinished = (
        RunFolder.open("train-align", label, Recipe(), ALONE) for label in ("old", "new", "unfinished")
    )
    old.finish(Measurements(facts=Facts(mode="old")))
    new.finish(Measurements(facts=Facts(mode="new")))
    set_finished(old, 1e9)
    folder = home / "runs"
    assert runs.newest(folder, "train-align").measurements().facts.mode == "new"
    assert runs.find(folder, "train-align", old.path.name).path == old.path
    assert runs.find(folder, "train-align", str(old.path)).path == old.path
    accepted = runs.newest(folder, "train-align", lambda run: "" if run.path == old.path else "too new")
    assert accepted.path == old.path
    assert not unfinished.is_finished


def test_the_age_of_an_unfinished_run_needs_no_file_that_has_gone_meanwhile(home: Path) -> None:
    run = aligned(home, "films-intra-a", 65, epochs=25, cells=3)
    (run.path / "metrics.json").unlink()
    (run.path / ".metrics.part.json").symlink_to(home / "absent")
    assert run.age.endswith(" ago")


def test_a_missing_run_says_which_command_makes_one(home: Path) -> None:
    with pytest.raises(MissingData, match="no finished train-align run under") as caught:
        runs.newest(home / "runs", "train-align")
    assert caught.value.hint == "brainhive train-align"
    with pytest.raises(MissingData, match="no train-align run 'nothing'") as caught:
        runs.find(home / "runs", "train-align", "nothing")
    assert caught.value.hint == "brainhive train-align"


def test_where_no_run_fits_each_is_named_with_its_age_and_what_it_lacks(home: Path, capsys) -> None:
    aligned(home, "films-intra-a", 3 * 3600 + 5, epochs=25, cells=3)
    aligned(home, "films-intra-b", 65, epochs=25, cells=3)
    with pytest.raises(MissingData) as caught:
        runs.newest(home / "runs", "train-align", lambda run: "no head image", needed="the head image")
    assert str(caught.value) == (
        f"no finished train-align run under {home}/runs/train-align has the head image "
        "(films-intra-b, finished 1 minute ago: no head image; "
        "films-intra-a, finished 3 hours ago: no head image)"
    )

    taken = runs.newest(home / "runs", "train-align", lambda run: "small" * run.path.name.endswith("b"))
    assert taken.path.name == "films-intra-a"
    said = capsys.readouterr().err
    assert "newer, but unfit: films-intra-b, finished 1 minute ago: small" in said


@pytest.mark.parametrize("asked", ["intra-4-", "runs/train-align/demo-itra-4", "nope"])
def test_a_run_that_is_not_there_is_answered_with_the_newest_and_the_nearest(home: Path, asked: str) -> None:
    folder = home / "runs"
    for number in range(7):
        run = RunFolder(folder / "train-align" / f"demo-intra-{number}-ab{number}")
        run.write_json("metrics.json", {})
        os.utime(run.path / "metrics.json", (1e9 + number, 1e9 + number))

    with pytest.raises(MissingData, match=f"no train-align run '{asked}'") as caught:
        runs.find(folder, "train-align", asked)

    guess, _, listed = caught.value.hint.rpartition("finished, the newest first: ")
    assert guess == ("" if asked == "nope" else "did you mean demo-intra-4-ab4? ")
    newest = ", ".join(f"demo-intra-{number}-ab{number}" for number in (6, 5, 4, 3, 2))
    assert listed == f"{newest} and 2 more"


def test_a_folder_that_is_no_run_is_told_from_an_unfinished_one(home: Path) -> None:
    (home / "pictures").mkdir()
    with pytest.raises(MissingData, match=r"pictures is no run: it has no recipe\.yaml") as caught:
        runs.find(home / "runs", "train-align", str(home / "pictures"))
    assert caught.value.hint == "brainhive train-align"


def test_a_run_of_another_command_is_refused_by_its_command(home: Path) -> None:
    run = opened()
    run.finish(Measurements())
    with pytest.raises(MissingData, match="is a run of train-align, not of reconstruct"):
        runs.find(home / "runs", "reconstruct", str(run.path))
    assert runs.find(home / "runs", "train-align", str(run.path)).path == run.path


def test_an_unfinished_or_damaged_run_says_so(home: Path) -> None:
    run = opened()
    with pytest.raises(MissingData, match="is not finished: it has no metrics"):
        runs.find(home / "runs", "train-align", run.path.name)
    (run.path / "metrics.json").write_text("{")
    with pytest.raises(BrainhiveError, match="is not valid JSON"):
        runs.find(home / "runs", "train-align", run.path.name)


def aligned(home: Path, name: str, age_s: float, epochs: int, cells: int, mode: str = "intra") -> RunFolder:
    run = RunFolder(home / "runs" / "train-align" / name)
    run.write_text("recipe.yaml", f"train: {{epochs: {epochs}}}\n")
    facts = TrainingFacts(dataset="demo", mode=mode, cells={str(cell): Cell() for cell in range(cells)})
    run.write_json("metrics.json", Measurements(facts=facts).as_dict())
    then = time.time() - age_s
    os.utime(run.path / "metrics.json", (then, then))
    return run


def test_the_newest_run_is_named_with_its_age(home: Path, capsys) -> None:
    run = aligned(home, "demo-intra-a", 3 * 3600 + 5, epochs=25, cells=30)
    assert runs.newest(home / "runs", "train-align").path == run.path
    said = capsys.readouterr().err
    assert said == "align run demo-intra-a, finished 3 hours ago\n"


def test_a_finished_run_carries_the_digests_of_its_documents(home: Path) -> None:
    run = opened()
    run.write_text("cells/a/model/config.json", '{"scale": 1.0}\n')
    run.write_text("checkpoints/.hidden.json", "{}")
    run.finish(Measurements(facts=Facts(mode="intra")))
    listed = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=run.path, capture_output=True, text=True)
    names = ["cells/a/model/config.json", "environment.json", "metrics.json", "recipe.yaml"]
    assert (listed.returncode, listed.stdout) == (0, "".join(f"{name}: OK\n" for name in names))

    for name, before, after in (
        ("metrics.json", "intra", "inter"),
        ("recipe.yaml", "runs: runs", "runs: ruin"),
        ("cells/a/model/config.json", "1.0", "9.0"),
    ):
        text = (run.path / name).read_text()
        (run.path / name).write_text(text.replace(before, after))
        with pytest.raises(BrainhiveError, match=rf"{name} was changed or damaged"):
            run.recipe() if name == "recipe.yaml" else run.read_json(name)
        (run.path / name).write_text(text)
    assert run.measurements().facts.mode == "intra"


def test_what_changes_a_finished_run_renews_its_digests(home: Path) -> None:
    run = opened()
    run.finish(Measurements(facts=Facts(mode="intra")))
    run.finish(Measurements(facts=Facts(mode="inter")))
    assert run.measurements().facts.mode == "inter"
    (run.path / "metrics.json").unlink()  # as reconstruct does, to measure more
    again = opened()
    assert read_digests(run.path).keys() == {"metrics.json"}  # the others were written again
    again.finish(Measurements(facts=Facts(mode="joint")))
    assert again.measurements().facts.mode == "joint"


def test_a_run_that_was_finished_before_there_were_digests_is_read(home: Path) -> None:
    run = opened()
    run.finish(Measurements(facts=Facts(mode="intra")))
    (run.path / "SHA256SUMS").unlink()
    assert run.measurements().facts.mode == "intra" and run.recipe(Recipe) == Recipe()


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("metrics.json", "[]", "valid dictionary"),
        ("metrics.json", '{"schema": 4, "facts": {}}', "scopes"),
        ("metrics.json", '{"schema": 4, "scopes": {"all": {"top1": 3}}, "facts": {}}', "top1"),
        ("metrics.json", '{"schema": 4, "facts": {"cells": [1]}}', "cells"),
        (
            "metrics.json",
            '{"schema": 4, "scopes": {}, "missing": {}, "facts": {}, "items": {"a": {"ranks": 3}}}',
            "ranks",
        ),
        ("recipe.yaml", "- 1", "valid dictionary"),
        ("recipe.yaml", "run: 3", "run"),
        ("recipe.yaml", "surplus: 3", "surplus"),
        ("recipe.yaml", "run: {trackers: [wandb]}", "trackers has no effect"),
    ],
)
def test_a_damaged_document_of_a_run_is_named_with_the_key(
    home: Path, name: str, text: str, reason: str
) -> None:
    run = opened()
    run.write_json("metrics.json", Measurements().as_dict())
    assert run.measurements() == Measurements()
    run.write_text(name, text)
    with pytest.raises(BrainhiveError, match=reason) as caught:
        run.recipe(Recipe) if name == "recipe.yaml" else run.measurements()
    assert type(caught.value) is BrainhiveError and name in caught.value.message and caught.value.hint


def test_what_a_document_lacks_is_an_error_of_the_document(home: Path) -> None:
    run = opened()
    run.finish(Measurements())
    missing = f"documents in {run.path} do not hold .* KeyError: 'brain'"
    with pytest.raises(BrainhiveError, match=missing) as caught, run.reading() as found:
        found.scopes["brain"]
    assert "if it was changed" in caught.value.hint and "delete" not in caught.value.hint


def test_a_damaged_run_is_passed_over_where_the_newest_is_taken(home: Path, capsys) -> None:
    sound = aligned(home, "demo-intra-sound", 300, epochs=25, cells=3)
    for name, damaged, text in (("a", "metrics.json", "{"), ("b", "recipe.yaml", "train: [")):
        aligned(home, f"demo-intra-{name}", 100, epochs=25, cells=3).write_text(damaged, text)
    found = runs.newest(home / "runs", "train-align")
    assert found.path == sound.path
    said = capsys.readouterr().err
    assert "demo-intra-a/metrics.json" in said and "demo-intra-b/recipe.yaml" in said
    assert said.count("passed over") == 2


def test_no_link_in_a_run_leads_what_is_written_elsewhere(home: Path) -> None:
    run, victim = opened(), home / "victim"
    victim.write_text("untouched")
    name_part(run.path / "notes.json").symlink_to(victim)
    run.write_json("notes.json", {})
    (run.path / "checkpoints").mkdir()
    name_part(run.path / "checkpoints/a.pt").symlink_to(victim)
    Checkpoint(run.checkpoint_path("a")).save({})
    (run.path / "log.jsonl").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        run.log(epoch=1)
    (run.path / ".claim").symlink_to(victim)
    os.utime(victim, (0, 0))
    opened()
    assert victim.read_text() == "untouched" and run.read_json("notes.json") == {}


@pytest.mark.parametrize("is_reopened", [False, True])
@pytest.mark.parametrize("damage", ["flip", "remove"])
def test_damage_is_not_signed_as_sound_when_a_run_is_finished_again(
    home: Path, is_reopened: bool, damage: str
) -> None:
    run = opened()
    run.write_text("cells/a/model/config.json", '{"scale": 1.0}')
    run.write_text("values.csv", "a,1")
    run.finish(Measurements())
    config = run.path / "cells/a/model/config.json"
    config.unlink() if damage == "remove" else config.write_text('{"scale": 9.0}')
    if is_reopened:
        (run.path / "metrics.json").unlink()
        run = opened()
    run.write_text("values.csv", "a,2")
    with pytest.raises(BrainhiveError, match=r"config\.json (was changed or damaged|is missing)"):
        run.finish(Measurements())
    assert "values.csv" not in read_digests(run.path)
    run.replace("cells/a/model", lambda part: (part.mkdir(), (part / "config.json").write_text("{}")))
    run.finish(Measurements())
    assert not run_files.check(run.path).problems


@pytest.mark.parametrize("times", [1, 2])
def test_no_run_is_finished_without_its_digests_wherever_it_is_killed(
    home: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    run = opened()
    if times == 2:
        run.finish(Measurements())
    replace, done = os.replace, []

    def killed(*paths: Path) -> None:
        replace(*paths)
        done.append(Path(paths[1]).name)
        is_listed = "metrics.json" in read_digests(run.path)
        assert not run.is_finished or (is_listed and not run_files.check(run.path).problems)

    monkeypatch.setattr(os, "replace", killed)
    run.finish(Measurements(facts=Facts(mode="inter")))
    assert done[-2:] == ["SHA256SUMS", "metrics.json"] and not run_files.check(run.path).problems


def test_a_run_that_another_command_finishes_just_before_is_left_as_it_is(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim, other = runs.Claim, opened()
    (other.path / "recipe.yaml").write_text("as the other wrote it")

    def wait(*given: object, **named: bool) -> Claim:
        other.finish(Measurements())  # just after this one saw no metrics
        return claim(*given, **named)

    monkeypatch.setattr(runs, "Claim", wait)
    found = opened()
    assert found.is_finished and found.presence is None
    assert (found.path / "recipe.yaml").read_text() == "as the other wrote it"
    assert not (found.path / ".claim").exists()


def test_nothing_is_written_through_a_linked_folder_of_a_run(home: Path) -> None:
    run, victim = opened(), home / "victim"
    victim.mkdir()
    for name in ("cells", "checkpoints", "tensorboard"):
        (run.path / name).symlink_to(victim)
    writes = [
        lambda: run.write_json("cells/a/metrics.json", {}),
        lambda: Checkpoint(run.checkpoint_path("a")).save({}),
        lambda: trackers.tracked(["tensorboard"], run.path, "a", {}).__enter__(),
    ]
    for write in writes:
        with pytest.raises(BrainhiveError, match="is a link, through which nothing is written"):
            write()
    assert not list(victim.iterdir())
