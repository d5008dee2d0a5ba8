"""Run folders: a run is its recipe, a command writes it, and names appear only when
complete.
"""

import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch

from brainhive_cli.core.base.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.files import documents, files, read_digests
from brainhive_cli.core.recipes.recipe import Recipe, RunOptions
from brainhive_cli.core.results import Facts, Measurements
from brainhive_cli.core.runs import (
    Launch,
    RunFolder,
    is_in_use,
    run_files,
    run_folder as runs,
)
from brainhive_cli.core.runs.driver import claim_cells, start_run
from tests.worlds.named_run import NamedRun

ALONE = Launch(0, 1, torch.device("cpu"))


def open_run_folder(again=False, **changes):
    return start_run(NamedRun("train-align", Recipe(**changes)), ALONE, again)


def test_the_same_recipe_finds_the_run_that_it_made(
    home,
):
    run_folder = open_run_folder()
    assert run_folder.path == home / f"runs/train-align/tiny-{Recipe().fingerprint()}"
    assert not run_folder.is_finished
    assert Recipe.model_validate(run_folder.recipe()) == Recipe()
    assert torch.__version__.startswith(
        run_folder.read_json("environment.json")["versions"]["torch"]
    )

    run_folder.finish(Measurements(facts=Facts(mode="intra")))
    same_folder = open_run_folder(run=RunOptions(workers=0))
    assert same_folder.path == run_folder.path
    assert same_folder.is_finished
    assert same_folder.measurements().facts.mode == "intra"


def test_an_interrupted_run_resumes_and_a_finished_run_is_found(home, capsys):
    run_folder = open_run_folder()
    run_folder.write_text("checkpoints/cell.txt", "half way")
    name, path = run_folder.path.name, run_folder.path
    del run_folder  # the process that held it is gone
    resumed = open_run_folder()
    assert (resumed.path / "checkpoints/cell.txt").read_text() == "half way"
    resumed.finish(Measurements())
    assert capsys.readouterr().err == f"continuing run {name}\n"
    assert open_run_folder().path == path
    message = (
        f"found run {name}, finished less than a minute ago; --again starts a new one\n"
    )
    assert capsys.readouterr().err == message


def test_again_starts_beside_what_is_there(home):
    first_folder = open_run_folder()
    first_folder.finish(Measurements())
    second = open_run_folder(again=True)
    second.finish(Measurements())
    third = open_run_folder(again=True)
    assert [folder.path.name for folder in (second, third)] == [
        f"{first_folder.path.name}-2",
        f"{first_folder.path.name}-3",
    ]
    assert (
        open_run_folder(
            again=False, paths={"runs": "elsewhere"}
        ).path.parent.parent.name
        == "elsewhere"
    )


WORKER = """if True:
    import sys, time, torch
    from brainhive_cli.core.runs.launch import Launch
    from brainhive_cli.core.runs.driver import claim_cells, start_run
    from tests.worlds.named_run import NamedRun
    alone = Launch(0, 1, torch.device("cpu"))
    run = start_run(NamedRun("train-align"), alone)
    cells = {name: f"cells/{name}.txt" for name in "abcdef"}
    with claim_cells(run, cells, alone) as free:
        for name in free:
            print(name, flush=True)
            sys.stdin.readline()
            run.write_text(f"cells/{name}.txt", name)
"""
"""A process that works on the cells of a run, each when it is told to."""


@pytest.mark.nightly
def test_a_command_takes_over_the_cells_of_a_killed_command(
    home,
):
    files = {name: f"cells/{name}.txt" for name in "abcdef"}
    pipe = subprocess.PIPE
    root = Path(__file__).parents[3]
    with subprocess.Popen(
        [sys.executable, "-c", WORKER], stdin=pipe, stdout=pipe, text=True, cwd=root
    ) as other_process:
        assert other_process.stdin
        assert other_process.stdout
        assert other_process.stdout.readline() == "a\n"
        other_process.stdin.write("go on\n")
        other_process.stdin.flush()
        assert other_process.stdout.readline() == "b\n"
        run_folder = open_run_folder()
        assert is_in_use(run_folder)
        assert not run_folder.is_finished
        assert [path.name for path in run_folder.path.glob("cells/*.txt")] == ["a.txt"]
        own_cells = []
        with claim_cells(run_folder, files, ALONE) as free:
            for name in free:
                own_cells.append(name)
                if len(own_cells) == 2:
                    other_process.kill()
                    other_process.wait()
                run_folder.write_text(files[name], name)
    assert own_cells == list("cdefb")
    assert len(list(run_folder.path.glob("cells/*.txt"))) == 6
    events = [event for event in run_folder.events() if event.get("taken_from")]
    assert [event["cell"] for event in events] == ["b"]
    assert f" {other_process.pid}" in events[0]["taken_from"]


def test_a_final_name_appears_only_when_complete(home):
    def write(path, text, breaks):
        path.mkdir(exist_ok=True)
        (path / "weights").write_text(text)
        if breaks:
            raise OSError("no space")

    run_folder = open_run_folder()
    with pytest.raises(OSError):
        run_folder.replace("model", lambda path: write(path, "half", True))
    assert not (run_folder.path / "model").exists()
    final = run_folder.replace("model", lambda path: write(path, "whole", False))
    with pytest.raises(OSError):
        run_folder.replace("model", lambda path: write(path, "half", True))
    assert (final / "weights").read_text() == "whole"
    run_folder.replace("model", lambda path: write(path, "new", False))
    names = {path.name for path in run_folder.path.iterdir()}
    assert names == {".workers", "environment.json", "model", "recipe.yaml"}


def test_an_absent_run_suggests_the_newest_and_the_nearest_run(
    home,
):
    folder = home / "runs"
    for find in (
        lambda: runs.find_newest(folder, "train-align"),
        lambda: runs.find(folder, "train-align", "x"),
    ):
        with pytest.raises(MissingData, match="train-align") as caught:
            find()
        assert caught.value.hint == "brainhive train-align"
    for number in range(7):
        run_folder = RunFolder(
            folder / "train-align" / f"demo-intra-{number}-ab{number}"
        )
        run_folder.write_json("metrics.json", {})
        os.utime(run_folder.path / "metrics.json", (1e9 + number, 1e9 + number))

    for reference, guess in (
        ("intra-4-", "did you mean demo-intra-4-ab4? "),
        ("nope", ""),
    ):
        with pytest.raises(MissingData, match=f"train-align.*{reference}") as caught:
            runs.find(folder, "train-align", reference)
        newest = ", ".join(
            f"demo-intra-{number}-ab{number}" for number in (6, 5, 4, 3, 2)
        )
        assert caught.value.hint.startswith(guess)
        assert f"{newest} and 2 more" in caught.value.hint


def test_runs_that_cannot_be_used_say_why(
    home,
):
    run_folder = open_run_folder()
    with pytest.raises(MissingData, match=run_folder.path.name):
        runs.find(home / "runs", "train-align", run_folder.path.name)
    run_folder.finish(Measurements())
    with pytest.raises(MissingData, match=r"train-align.*reconstruct"):
        runs.find(home / "runs", "reconstruct", str(run_folder.path))
    (run_folder.path / "metrics.json").write_text("{")
    with pytest.raises(BrainhiveError, match=r"metrics\.json"):
        runs.find(home / "runs", "train-align", run_folder.path.name)


def test_a_finished_run_carries_the_digests_of_its_documents(home):
    run_folder = open_run_folder()
    run_folder.write_text("cells/a/model/config.json", '{"scale": 1.0}\n')
    run_folder.write_text("checkpoints/.hidden.json", "{}")
    run_folder.finish(Measurements(facts=Facts(mode="intra")))
    process = subprocess.run(
        ["sha256sum", "-c", "SHA256SUMS"],
        cwd=run_folder.path,
        capture_output=True,
        text=True,
    )
    names = [
        "cells/a/model/config.json",
        "environment.json",
        "metrics.json",
        "recipe.yaml",
    ]
    assert (process.returncode, process.stdout) == (
        0,
        "".join(f"{name}: OK\n" for name in names),
    )

    text = (run_folder.path / "metrics.json").read_text()
    (run_folder.path / "metrics.json").write_text(text.replace("intra", "inter"))
    with pytest.raises(BrainhiveError, match=r"metrics\.json"):
        run_folder.measurements()


def test_finishing_a_run_again_does_not_hide_damage(home):
    run_folder = open_run_folder()
    run_folder.write_text("cells/a/model/config.json", '{"scale": 1.0}')
    run_folder.finish(Measurements())
    (run_folder.path / "cells/a/model/config.json").write_text('{"scale": 9.0}')
    (run_folder.path / "metrics.json").unlink()
    run_folder = open_run_folder()
    with pytest.raises(BrainhiveError, match=r"config\.json"):
        run_folder.finish(Measurements())
    run_folder.replace(
        "cells/a/model",
        lambda path: (path.mkdir(), (path / "config.json").write_text("{}")),
    )
    run_folder.finish(Measurements())
    assert not run_files.check(run_folder.path)[1]


def test_a_killed_run_is_never_finished_without_its_digests(home, monkeypatch):
    run_folder = open_run_folder()
    run_folder.finish(Measurements())
    replace, replaced = os.replace, []

    def killed(*paths):
        replace(*paths)
        replaced.append(Path(paths[1]).name)
        is_listed = "metrics.json" in read_digests(run_folder.path)
        assert not run_folder.is_finished or (
            is_listed and not run_files.check(run_folder.path)[1]
        )

    monkeypatch.setattr(os, "replace", killed)
    run_folder.finish(Measurements(facts=Facts(mode="inter")))
    assert replaced[-2:] == ["SHA256SUMS", "metrics.json"]
    assert not run_files.check(run_folder.path)[1]


def finished(home, command, name, at_s):
    """A finished run of a command, which a document says was finished at a time."""
    run_folder = RunFolder(home / "runs" / command / name)
    run_folder.write_text("recipe.yaml", "seed: 1\n")
    ended = datetime.fromtimestamp(at_s, UTC).isoformat()
    run_folder.write_json("environment.json", {"finished": ended})
    run_folder.write_json("metrics.json", Measurements().as_dict())
    return run_folder


NOON_S = 1.7e9


def test_a_run_is_as_old_as_it_says_and_as_new_as_it_was_found(home):
    run_folder = finished(home, "embed", "a", NOON_S)
    os.utime(run_folder.path / "metrics.json", (NOON_S + 50, NOON_S + 50))
    assert run_folder.written_s == run_folder.changed_s == NOON_S
    isoformat = datetime.fromtimestamp(NOON_S + 9, UTC).isoformat()
    run_folder.write_json("found.json", {"recipe_names": ["x"], "found": isoformat})
    assert (run_folder.written_s, run_folder.changed_s) == (NOON_S, NOON_S + 9)
    assert run_folder.read_found().recipe_names == ["x"]
    # found before it was copied
    earlier = datetime.fromtimestamp(NOON_S - 9, UTC).isoformat()
    run_folder.write_json("found.json", {"found": earlier})
    assert run_folder.changed_s == NOON_S
    for text in ("{", '{"found": 3.5e300}'):
        run_folder.write_text("found.json", text)
        assert run_folder.read_found().found is None
    # a document without the time, or none
    run_folder.write_json("environment.json", {})
    assert run_folder.written_s == NOON_S + 50
    (run_folder.path / "environment.json").unlink()
    assert run_folder.written_s == NOON_S + 50


def test_an_unfinished_run_is_as_old_as_its_last_document(home):
    run_folder = RunFolder(home / "runs/embed/a")
    for name, at_s in (("recipe.yaml", 9), ("a.json", 3), ("log.jsonl", 5)):
        run_folder.write_text(name, "")
        os.utime(run_folder.path / name, (NOON_S + at_s, NOON_S + at_s))
    os.utime(run_folder.path, (NOON_S, NOON_S))
    assert run_folder.written_s == NOON_S + 5
    os.utime(run_folder.path, (NOON_S + 7, NOON_S + 7))
    assert run_folder.written_s == NOON_S + 7


def test_the_duration_of_a_run_is_known_from_both_times(home):
    run_folder = finished(home, "embed", "a", NOON_S)
    assert run_folder.duration_s == float("inf")
    times = {
        name: datetime.fromtimestamp(NOON_S + at_s, UTC).isoformat()
        for name, at_s in (("started", 5), ("finished", 65))
    }
    run_folder.write_json("environment.json", times)
    assert run_folder.duration_s == 60
    run_folder.write_json("environment.json", {"started": times["started"]})
    assert run_folder.duration_s == float("inf")
    (run_folder.path / "environment.json").unlink()
    assert run_folder.duration_s == float("inf")


@pytest.mark.parametrize(
    ("passed_s", "text"),
    [
        (-90, "1 minute in the future, by its clock"),
        (-7201, "2 hours in the future, by its clock"),
        (58, "less than a minute ago"),
        (61, "1 minute ago"),
        (121, "2 minutes ago"),
        (3601, "1 hour ago"),
        (86_399, "23 hours ago"),
        (86_401, "1 day ago"),
        (3 * 86_401, "3 days ago"),
    ],
)
def test_an_age_is_in_the_largest_unit(passed_s, text):
    assert runs.format_age(time.time() - passed_s) == text


def test_events_are_read_but_for_damaged_lines_and_later_steps(home):
    run_folder = RunFolder(home / "runs/embed/a")
    run_folder.path.mkdir(parents=True)
    run_folder.forget_events_after(3)
    assert list(run_folder.events()) == []
    assert run_folder.read_text("log.jsonl") == ""
    for step in (1, 3, 4, "x"):
        run_folder.log(step=step)
    run_folder.log(cell="a")
    with open(run_folder.path / "log.jsonl", "a") as stream:
        stream.write('{"step": 2')
    steps = [event.get("step") for event in run_folder.events()]
    assert steps == [1, 3, 4, "x", None]
    assert all(abs(event["time"] - time.time()) < 60 for event in run_folder.events())
    run_folder.forget_events_after(3)
    assert [event.get("step") for event in run_folder.events()] == [1, 3, None]
    assert len((run_folder.path / "log.jsonl").read_text().splitlines()) == 3
    assert run_folder.read_text("log.jsonl", 2**20).startswith('{"time"')


def test_a_run_in_its_folder_is_named_without_a_path(home):
    inside = RunFolder(home / "runs/embed/a")
    assert runs.reference(inside, home / "runs/embed") == "a"
    assert runs.reference(inside, home / "runs") == str(inside.path)
    (home / "link").symlink_to("runs")
    assert runs.reference(inside, home / "link/embed") == "a"


def test_a_run_is_found_by_folder_name_or_end_of_its_name(home):
    folder = home / "runs"
    first_finished = finished(home, "embed", "demo-abc", NOON_S)
    second = finished(home, "explain", "demo-abd", NOON_S + 1)
    for command, reference, expected_run in (
        ("embed", "demo-abc", first_finished),
        ("embed", "abc", first_finished),
        (None, "abd", second),
        (None, "demo-abd", second),
        ("embed", "embed/demo-abc", first_finished),
        (None, str(second.path), second),
    ):
        assert runs.find(folder, command, reference).path == expected_run.path
    absent = (("embed", "demo-abd"), ("embed", "demo"), (None, "*"), (None, "é" * 200))
    for command, reference in absent:
        with pytest.raises(MissingData):
            runs.find(folder, command, reference)
    # two of the same name
    finished(home, "explain", "demo-abc", NOON_S)
    assert runs.find(folder, "embed", "demo-abc").path == first_finished.path
    with pytest.raises(RecipeError):
        runs.find(folder, None, "demo-abc")
    finished(home, "embed", "other-abc", NOON_S)
    with pytest.raises(RecipeError):
        runs.find(folder, "embed", "abc")
    # a folder that is no run, and a run from elsewhere
    (home / "elsewhere/x").mkdir(parents=True)
    with pytest.raises(MissingData):
        runs.find(folder, None, "elsewhere/x")
    (first_finished.path).rename(home / "elsewhere/y")
    assert runs.find(folder, "explain", "elsewhere/y").path == Path("elsewhere/y")


@pytest.mark.parametrize("reference", ["demo-2", "2"])
def test_a_named_run_is_found_without_reading_others(home, monkeypatch, reference):
    finisheds = [finished(home, "embed", f"demo-{name}", NOON_S) for name in range(4)]
    read_paths = set[Path]()
    read_regular = files.read_regular

    def record(path, *limits):
        read_paths.add(Path(path).parent)
        return read_regular(path, *limits)

    for module in (documents, runs):
        monkeypatch.setattr(module, "read_regular", record)
    assert runs.find(home / "runs", None, reference).path == finisheds[2].path
    assert read_paths == {finisheds[2].path}


def test_the_order_of_runs_takes_one_document_of_each(home, monkeypatch):
    finisheds = [finished(home, "embed", str(age), NOON_S - age) for age in range(3)]
    read_paths = list[Path]()

    def record(path, *limits):
        read_paths.append(Path(path))
        return files.read_regular(path, *limits)

    def refuse(folder):
        raise AssertionError(folder)

    monkeypatch.setattr(runs, "read_regular", record)
    # an order is no evidence: digests are not read
    monkeypatch.setattr(documents, "read_digests", refuse)
    assert runs.list_finished_runs(home / "runs", None) == finisheds
    assert sorted(read_paths) == [run.path / "environment.json" for run in finisheds]


def test_a_pipe_in_place_of_a_document_does_not_stop_a_list(home):
    run_folder = finished(home, "embed", "a", NOON_S)
    os.utime(run_folder.path / "metrics.json", (NOON_S + 50, NOON_S + 50))
    (run_folder.path / "environment.json").unlink()
    os.mkfifo(run_folder.path / "environment.json")
    assert run_folder.written_s == NOON_S + 50
    (run_folder.path / "environment.json").unlink()
    (run_folder.path / "environment.json").mkdir()
    assert run_folder.written_s == NOON_S + 50


def test_the_newest_run_that_lacks_nothing_is_chosen(home, capsys):
    folder = home / "runs"
    finisheds = [
        finished(home, command, name, NOON_S + number)
        for number, (command, name) in enumerate(
            (("embed", "a"), ("train-align", "b"), ("embed", "c"), ("embed", "d"))
        )
    ]
    names = [
        finished_run.path.name for finished_run in runs.list_finished_runs(folder, None)
    ]
    assert names == ["d", "c", "b", "a"]
    assert [
        finished_run.path.name
        for finished_run in runs.list_finished_runs(folder, "embed")
    ] == list("dca")
    assert runs.find_newest(folder, "embed").path.name == "d"
    assert runs.find_newest(folder, "embed", excluded_run=finisheds[3]).path.name == "c"
    capsys.readouterr()

    lacks = {"d": "no weights", "c": "no log"}
    (finisheds[1].path / "recipe.yaml").write_text("{")
    newest = runs.find_newest(
        folder, None, lambda finished_run: lacks.get(finished_run.path.name, "")
    )

    assert newest.path == finisheds[0].path
    err = capsys.readouterr().err
    for text in ("no weights", "no log", "using a, finished", "skipped 3", "warning"):
        assert text in err
    with pytest.raises(MissingData) as caught:
        runs.find_newest(
            folder,
            "embed",
            lambda finished_run: "nothing",
            required_content="that",
            hint="do",
        )
    assert caught.value.hint == "do"
    assert "that" in caught.value.message
    with pytest.raises(MissingData) as caught:
        runs.find_newest(folder, "explain")
    assert caught.value.hint == "brainhive explain"


def test_a_document_that_changes_loses_its_digest(home):
    run_folder = open_run_folder()
    for name in ("a/x.json", "a/y.json", "ab.json"):
        run_folder.write_text(name, "{}")
    run_folder.finish(Measurements())
    assert "a/x.json" in read_digests(run_folder.path)
    run_folder.replace("a", lambda path: path.mkdir())
    digests = read_digests(run_folder.path)
    assert "ab.json" in digests
    assert not [name for name in digests if name.startswith("a/")]
    assert runs.is_run(run_folder.path)
    assert not runs.is_run(home)
    (run_folder.path / "recipe.yaml").unlink()
    assert runs.is_run(run_folder.path)


def test_a_run_outside_of_the_cache_goes_by_its_folder(home):
    run_folder = RunFolder(home / "runs/embed/a")
    assert not run_folder.is_shared
    assert run_folder.name == run_folder.file_name == "a"
    assert run_folder.reference == str(run_folder.path)
    assert run_folder.command == "embed"
    shared = RunFolder(
        Path("/x/models--owner--name/snapshots") / ("0123456789" * 4) / "inside"
    )
    assert shared.is_shared
    assert shared.file_name == "inside-0123456789"
    assert shared.reference == shared.name


def test_a_reference_longer_than_a_file_name_is_an_absent_run(tmp_path):
    for command in (None, "train-align"):
        with pytest.raises(MissingData):
            runs.find(tmp_path / "runs", command, "x" * 300)


def test_a_label_names_a_run_if_it_is_unique(home):
    folder = home / "runs"
    for number, command in enumerate(["train-align", "train-align", "eval-retrieval"]):
        run_folder = RunFolder(folder / command / f"demo-{number}")
        run_folder.write_text("recipe.yaml", "{}")
        run_folder.write_json("metrics.json", Measurements().as_dict())
    first_run, second = (
        RunFolder(folder / "train-align" / f"demo-{n}") for n in (0, 1)
    )
    label = "lr: 1e-3, [wide] Übung"
    first_run.set_label(label)
    # a folder of this name does not hide the label
    (home / "wide").mkdir()
    second.set_label("wide")

    assert runs.find(folder, "train-align", label).path == first_run.path
    assert runs.find(folder, None, "wide").path == second.path
    with pytest.raises(MissingData):
        runs.find(folder, "eval-retrieval", label)

    split = ["x", "lr: 1e-3", "[wide] Übung", "wide"]
    assert runs.rejoin_labels(folder, "train-align", split) == ["x", label, "wide"]
    assert runs.rejoin_labels(folder, "eval-retrieval", split) == split

    second.set_label(label)
    with pytest.raises(RecipeError) as caught:
        runs.find(folder, None, label)
    assert "demo-0" in caught.value.hint
    assert "demo-1" in caught.value.hint


@pytest.mark.parametrize("text", ["a\nb", "a\x1b[31mb", "x" * 81, "a\u202eb", "\x00"])
def test_a_bad_label_is_refused_and_never_shown(home, text):
    class LabelledRecipe(Recipe):
        writes_run = True

    with pytest.raises(RecipeError) as caught:
        LabelledRecipe.resolve("train-align", None, {"run.label": text}, [])
    # a message of a single line, without the bad character
    assert "label" in caught.value.message
    assert caught.value.message.isprintable()
    run_folder = RunFolder(home / "runs/train-align/a")
    run_folder.write_text("label.txt", text)
    assert run_folder.label == ""


def test_a_label_is_refused_where_no_run_is_written(home):
    with pytest.raises(RecipeError, match="label"):
        Recipe.resolve("doctor", None, {"run.label": "a"}, [])
