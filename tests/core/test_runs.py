"""Run folders: a run is its recipe, one command writes it, and names appear only when
complete.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from brainhive_cli.core import run_files, runs
from brainhive_cli.core.cells import claim_cells, is_in_use, start_run
from brainhive_cli.core.documents import read_digests
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.facts import Facts
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import Measurements
from brainhive_cli.core.recipe import Recipe, Run
from brainhive_cli.core.runs import RunFolder

ALONE = Launch(0, 1, torch.device("cpu"))


def opened(again: bool = False, **changes: object) -> RunFolder:
    return start_run("train-align", "tiny", Recipe(**changes), ALONE, again)


def test_a_new_run_says_what_it_is_and_the_same_recipe_finds_it_however_it_is_run(
    home: Path,
) -> None:
    run = opened()
    assert (
        run.path == home / f"runs/train-align/tiny-{Recipe().fingerprint()}"
        and not run.is_finished
    )
    assert Recipe.model_validate(run.recipe()) == Recipe()
    assert torch.__version__.startswith(
        run.read_json("environment.json")["versions"]["torch"]
    )

    run.finish(Measurements(facts=Facts(mode="intra")))
    found = opened(run=Run(workers=0))
    assert (
        found.path == run.path
        and found.is_finished
        and found.measurements().facts.mode == "intra"
    )


def test_an_interrupted_run_is_taken_up_again_and_a_finished_one_is_found(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = opened()
    run.write_text("checkpoints/cell.txt", "half way")
    name, path = run.path.name, run.path
    del run  # the process that held it is gone
    again = opened()
    assert (again.path / "checkpoints/cell.txt").read_text() == "half way"
    again.finish(Measurements())
    assert capsys.readouterr().err == f"continuing run {name}\n"
    assert opened().path == path
    told = (
        f"found run {name}, finished less than a minute ago; --again starts a new one\n"
    )
    assert capsys.readouterr().err == told


def test_again_starts_beside_what_is_there(home: Path) -> None:
    first = opened()
    first.finish(Measurements())
    second = opened(again=True)
    second.finish(Measurements())
    third = opened(again=True)
    assert [run.path.name for run in (second, third)] == [
        f"{first.path.name}-2",
        f"{first.path.name}-3",
    ]
    assert (
        opened(again=False, paths={"runs": "elsewhere"}).path.parent.parent.name
        == "elsewhere"
    )


WORKER = """if True:
    import sys, time, torch
    from brainhive_cli.core.launch import Launch
    from brainhive_cli.core.recipe import Recipe
    from brainhive_cli.core.cells import claim_cells, start_run
    alone = Launch(0, 1, torch.device("cpu"))
    run = start_run("train-align", "tiny", Recipe(), alone)
    cells = {name: f"cells/{name}.txt" for name in "abcdef"}
    with claim_cells(run, cells, alone) as free:
        for name in free:
            print(name, flush=True)
            sys.stdin.readline()
            run.write_text(f"cells/{name}.txt", name)
"""
"""A process that works on the cells of a run, each when it is told to."""


@pytest.mark.nightly
def test_two_commands_share_a_run_cell_by_cell_and_one_takes_over_from_the_killed(
    home: Path,
) -> None:
    files = {name: f"cells/{name}.txt" for name in "abcdef"}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", WORKER], stdin=pipe, stdout=pipe, text=True
    ) as other:
        assert other.stdin and other.stdout and other.stdout.readline() == "a\n"
        other.stdin.write("go on\n")
        other.stdin.flush()
        assert other.stdout.readline() == "b\n"
        run = opened()
        assert is_in_use(run) and not run.is_finished
        assert [path.name for path in run.path.glob("cells/*.txt")] == ["a.txt"]
        own = []
        with claim_cells(run, files, ALONE) as free:
            for name in free:
                own.append(name)
                if len(own) == 2:
                    other.kill()
                    other.wait()
                run.write_text(files[name], name)
    assert own == [*"cdefb"] and len([*run.path.glob("cells/*.txt")]) == 6
    taken = [event for event in run.events() if event.get("taken_from")]
    assert [event["cell"] for event in taken] == ["b"] and f" {other.pid}" in taken[0][
        "taken_from"
    ]


def test_a_final_name_appears_only_when_complete(home: Path) -> None:
    def write(path: Path, text: str, breaks: bool) -> None:
        path.mkdir(exist_ok=True)
        (path / "weights").write_text(text)
        if breaks:
            raise OSError("no space")

    run = opened()
    with pytest.raises(OSError):
        run.replace("model", lambda path: write(path, "half", True))
    assert not (run.path / "model").exists()
    final = run.replace("model", lambda path: write(path, "whole", False))
    with pytest.raises(OSError):
        run.replace("model", lambda path: write(path, "half", True))
    assert (final / "weights").read_text() == "whole"
    run.replace("model", lambda path: write(path, "new", False))
    left = {path.name for path in run.path.iterdir()}
    assert left == {".workers", "environment.json", "model", "recipe.yaml"}


def test_a_run_that_is_not_there_is_answered_with_the_newest_and_the_nearest(
    home: Path,
) -> None:
    folder = home / "runs"
    for look in (
        lambda: runs.newest(folder, "train-align"),
        lambda: runs.find(folder, "train-align", "x"),
    ):
        with pytest.raises(
            MissingData, match=r"no (finished )?train-align run"
        ) as caught:
            look()
        assert caught.value.hint == "brainhive train-align"
    for number in range(7):
        run = RunFolder(folder / "train-align" / f"demo-intra-{number}-ab{number}")
        run.write_json("metrics.json", {})
        os.utime(run.path / "metrics.json", (1e9 + number, 1e9 + number))

    for asked, guess in (("intra-4-", "did you mean demo-intra-4-ab4? "), ("nope", "")):
        with pytest.raises(
            MissingData, match=f"no train-align run '{asked}'"
        ) as caught:
            runs.find(folder, "train-align", asked)
        newest = ", ".join(
            f"demo-intra-{number}-ab{number}" for number in (6, 5, 4, 3, 2)
        )
        assert (
            caught.value.hint
            == f"{guess}finished, the newest first: {newest} and 2 more"
        )


def test_a_run_of_another_command_an_unfinished_and_a_damaged_one_say_so(
    home: Path,
) -> None:
    run = opened()
    with pytest.raises(MissingData, match="is not finished: it has no metrics"):
        runs.find(home / "runs", "train-align", run.path.name)
    run.finish(Measurements())
    with pytest.raises(
        MissingData, match="is a run of train-align, not of reconstruct"
    ):
        runs.find(home / "runs", "reconstruct", str(run.path))
    (run.path / "metrics.json").write_text("{")
    with pytest.raises(BrainhiveError, match=r"metrics\.json was changed or damaged"):
        runs.find(home / "runs", "train-align", run.path.name)


def test_a_finished_run_carries_the_digests_of_its_documents(home: Path) -> None:
    run = opened()
    run.write_text("cells/a/model/config.json", '{"scale": 1.0}\n')
    run.write_text("checkpoints/.hidden.json", "{}")
    run.finish(Measurements(facts=Facts(mode="intra")))
    listed = subprocess.run(
        ["sha256sum", "-c", "SHA256SUMS"], cwd=run.path, capture_output=True, text=True
    )
    names = [
        "cells/a/model/config.json",
        "environment.json",
        "metrics.json",
        "recipe.yaml",
    ]
    assert (listed.returncode, listed.stdout) == (
        0,
        "".join(f"{name}: OK\n" for name in names),
    )

    text = (run.path / "metrics.json").read_text()
    (run.path / "metrics.json").write_text(text.replace("intra", "inter"))
    with pytest.raises(BrainhiveError, match=r"metrics\.json was changed or damaged"):
        run.measurements()


def test_damage_is_not_signed_as_sound_when_a_run_is_finished_again(home: Path) -> None:
    run = opened()
    run.write_text("cells/a/model/config.json", '{"scale": 1.0}')
    run.finish(Measurements())
    (run.path / "cells/a/model/config.json").write_text('{"scale": 9.0}')
    (run.path / "metrics.json").unlink()
    run = opened()
    with pytest.raises(BrainhiveError, match=r"config\.json was changed or damaged"):
        run.finish(Measurements())
    run.replace(
        "cells/a/model",
        lambda part: (part.mkdir(), (part / "config.json").write_text("{}")),
    )
    run.finish(Measurements())
    assert not run_files.check(run.path)[1]


def test_no_run_is_finished_without_its_digests_wherever_it_is_killed(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = opened()
    run.finish(Measurements())
    replace, done = os.replace, []

    def killed(*paths: Path) -> None:
        replace(*paths)
        done.append(Path(paths[1]).name)
        is_listed = "metrics.json" in read_digests(run.path)
        assert not run.is_finished or (is_listed and not run_files.check(run.path)[1])

    monkeypatch.setattr(os, "replace", killed)
    run.finish(Measurements(facts=Facts(mode="inter")))
    assert (
        done[-2:] == ["SHA256SUMS", "metrics.json"] and not run_files.check(run.path)[1]
    )
