"""What a command line leaves when it fails: one document under `--json`, and no empty run."""

import json
import os
import pickle
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.cli import execute
from brainhive_cli.commands import doctor
from brainhive_cli.core import parts
from brainhive_cli.core.errors import BrainhiveError, DeviceError, MissingData
from brainhive_cli.core.lines import Line, completed_by
from brainhive_cli.core.results import Result
from brainhive_cli.core.tables import Table

RESULT = Result(Path(), (Table("a title", ("column",), (("cell",),)),))


def brainhive(*words: str) -> Any:
    return CliRunner(env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"}).invoke(app, list(words))


@pytest.mark.parametrize(
    ("words", "code", "told", "hint"),
    [
        (["embed", "no.such.key=1"], 2, "unknown recipe key", "known here"),
        (["embed", "--datset", "x"], 2, "--datset", "brainhive help embed"),
        (["embedd"], 2, "embedd", "brainhive help"),
        (["embed", "--processes", "0"], 2, "--processes", "brainhive help embed"),
        (["check", "nothing"], 3, "no file, folder or pattern nothing", ""),
        (["train-align", "--recipe", "demo"], 3, "no train embeddings", "brainhive embed"),
    ],
)
def test_an_error_under_json_is_one_document_on_stdout(
    home: Path, words: list[str], code: int, told: str, hint: str
) -> None:
    shown = brainhive(*words, "--json")
    document = json.loads(shown.stdout)
    assert document.keys() == {"error", "hint", "exit_code"}
    assert shown.exit_code == document["exit_code"] == code
    assert told in document["error"] and hint in document["hint"]
    assert told in shown.stderr


def test_ctrl_c_under_json_is_a_document_too(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor, "run", stopped)
    shown = brainhive("doctor", "--json")
    assert shown.exit_code == json.loads(shown.stdout)["exit_code"] == 130


def estimate_of(checked: Any) -> dict[str, str]:
    (table,) = [table for table in json.loads(checked.stdout)["tables"] if table["title"] == "Work"]
    return {row["item"]: row["value"] for row in table["rows"]}


def test_the_time_of_finished_work_is_kept_for_the_next_check_of_its_kind(home: Path) -> None:
    embed = ("embed", "--recipe", "demo", "--encoders", "python:brainhive_cli.models.encoders.python:example")
    first = brainhive(*embed, "dataset.concepts=8", "--check", "--json")
    assert "after the first run of this kind" in estimate_of(first)["time"]
    assert brainhive(*embed, "dataset.concepts=8").exit_code == 0
    second = brainhive(*embed, "dataset.concepts=9", "--check", "--json")
    assert estimate_of(second)["time"].endswith("in the last run of this kind")


def test_a_check_says_that_the_device_is_not_here_with_the_inputs(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(*_: Any) -> None:
        raise DeviceError("no device cuda here", "run.device=cpu")

    monkeypatch.setattr("brainhive_cli.core.launch.start", absent)
    encoder = "python:brainhive_cli.models.encoders.python:example"
    shown = brainhive(
        "embed", "--recipe", "demo", "--encoders", encoder, "run.device=cuda", "--check", "--json"
    )
    document = json.loads(shown.stdout)
    assert shown.exit_code == 3 and document["missing"] == ["no device cuda here (run.device=cpu)"]
    assert [one["state"] for one in document["inputs"] if one["what"] == "device cuda"] == ["missing"]


def test_a_command_that_fails_leaves_no_empty_run(home: Path) -> None:
    assert brainhive("train-align", "--recipe", "demo").exit_code == 3
    assert [path for path in home.rglob("*") if path.is_file()] == []
    assert list(home.glob("runs/train-align/*")) == []


def test_help_is_a_word_too() -> None:
    assert brainhive("help").stdout == brainhive("--help").stdout
    assert brainhive("help", "embed").stdout == brainhive("embed", "--help").stdout
    assert brainhive("help", "embedd").exit_code == 2


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["train-align", "train.lrr=1"], "train.lr"),
        (["train-align", "--dataset", "things-eg"], "things-eeg"),
        (["train-align", "--dataset", "THINGS-meg"], "things-meg"),
        (["embed", "--encoders", "siglip"], "siglip2"),
        (["embed", "--encoders", "clip_b3"], "clip-b32"),
    ],
)
def test_a_name_that_is_not_known_is_answered_with_the_nearest(
    home: Path, words: list[str], meant: str
) -> None:
    shown = brainhive(*words)
    assert shown.exit_code == 2 and f"  try: did you mean {meant}? " in shown.stderr


LATENT = {"kind": "demo-vae", "output": "latent"}
CODE = "python:mine:net"
EVALUATE = Line("eval-retrieval", ("run", "a"))


@pytest.mark.parametrize(
    ("line", "is_allowed", "code", "expected"),
    [
        (EVALUATE, False, [CODE], "brainhive eval-retrieval --run a --allow-code"),
        (EVALUATE, True, [], "brainhive eval-retrieval --run a --allow-code"),
        (EVALUATE, False, [], "brainhive eval-retrieval --run a"),
        (Line("embed", ("encoders", [CODE])), False, [CODE], f"brainhive embed --encoders {CODE}"),
        (Line("report", "x"), True, [CODE], "brainhive report x"),
    ],
)
def test_the_next_line_may_run_the_code_that_this_one_ran(
    line: Line, is_allowed: bool, code: list[str], expected: str
) -> None:
    complete = partial(execute.complete, folders=list, keys=set(), is_allowed=is_allowed, ran=lambda: code)
    with completed_by(complete):
        assert str(line) == expected
        assert BrainhiveError("", line).hint == Result(Path(), hint=line).hint == expected
        assert f"{line} && {Line('report', 'x')}" == f"{expected} && brainhive report x"
    assert str(line) == line.plain


def test_an_error_keeps_its_line_when_another_process_raised_it() -> None:
    line = Line("train-align", ("prior", Path("a b")), ("dataset", None), "dim=4")
    error = pickle.loads(pickle.dumps(MissingData("absent", line)))
    with completed_by(lambda line: Line(line.command, ("recipe", "demo"), *line.words)):
        assert error.hint == "brainhive train-align --recipe demo --prior 'a b' dim=4"
    error.hint = "else"
    assert (error.hint, str(error)) == ("else", "absent")


def test_a_reader_that_goes_away_is_no_error(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w", buffering=1) as closed:
        monkeypatch.setattr(doctor, "run", lambda *_: monkeypatch.setattr(sys, "stdout", closed) or RESULT)
        shown = brainhive("doctor")
    assert shown.exit_code == 1 and shown.stderr == ""


@pytest.mark.parametrize("command", ["eval-retrieval", "explain", "reconstruct"])
def test_a_run_is_named_with_and_without_its_flag_by_every_command_that_takes_one(
    home: Path, command: str
) -> None:
    prior = ["--prior", "identity"] if command == "reconstruct" else []
    shown = brainhive(command, "nothing", *prior)
    assert shown.exit_code == 3 and "no train-align run 'nothing'" in shown.stderr
    assert "no train-align run 'nothing'" in brainhive(command, "--run", "nothing", *prior).stderr
    if command != "eval-retrieval":  # which averages several
        shown = brainhive(command, "--run", "one", "other")
        assert shown.exit_code == 2 and "2 runs: one, other" in shown.stderr


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (["eval-retrieval", "--recipe", "demo"], ["train-align"]),
        (["train-align", "--recipe", "demo"], ["embed"]),
        (["reconstruct", "--recipe", "demo"], ["embed", "train-align", "reconstruct"]),
    ],
)
def test_the_way_out_stays_within_the_recipe_that_was_named(
    home: Path, words: list[str], lines: list[str]
) -> None:
    way = " && ".join(f"brainhive {line} --recipe demo" for line in lines)
    shown = brainhive(*words)
    assert shown.exit_code == 3 and shown.stderr.endswith(f"  try: {way}\n")
    assert f"({way})" in brainhive(*words, "--check").stderr


@pytest.mark.parametrize("recipe", ["papers/havir-ablations", "my.yaml"])
def test_the_way_out_of_a_recipe_names_what_it_extends(
    home: Path, recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    (home / "my.yaml").write_text("extends: papers/havir\nseeds: [3]\n")
    assert (
        "(brainhive prepare --recipe papers/havir)"
        in brainhive("train-align", "--recipe", recipe, "--check").stderr
    )


@pytest.mark.parametrize(
    ("command", "encoders", "words"),
    [
        ("train-align", ["demo-clip"], "--encoders demo-clip"),
        ("train-align", [{"kind": "demo-vae"}, "clip-h14"], ""),
        ("train-align", [LATENT], "'encoders=[{kind: demo-vae, output: latent}]'"),
        ("embed", ["clip-h14", "vae"], "--encoders clip-h14,vae"),
    ],
)
def test_a_hint_within_a_recipe_names_encoders_that_are_not_the_recipes(
    command: str, encoders: list[Any], words: str
) -> None:
    def complete(*encoders: Any) -> str:
        line = Line(command, ("encoders", [parts.resolve("encoders", encoder) for encoder in encoders]))
        return execute.complete(line, lambda: ["own-fmri"], set(), False, list).plain

    recipe = f"brainhive {command} --recipe own-fmri"
    assert complete(*encoders) == f"{recipe} {words}".strip()
    assert complete("clip-h14") == recipe


def test_what_the_user_changed_of_a_recipe_goes_on_with_the_hint(home: Path) -> None:
    shown = brainhive("train-align", "--recipe", "demo", "encoders=demo-clip", "prior=null")
    assert shown.stderr.endswith("try: brainhive embed --recipe demo --encoders demo-clip\n")
    shown = brainhive("train-align", "--dataset", "demo", "--encoders", "demo-clip")
    assert shown.stderr.endswith("try: brainhive embed --dataset demo --encoders demo-clip\n")


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["train-align", "--subjects", "x"], "subjects=1,2, subjects=1-4, subjects=all"),
        (["train-align", "--mode", "all"], "mode=intra"),
        (["train-align", "train.epochs=many"], "train.epochs=25"),
        (["train-align", "train=3"], "train.KEY=VALUE, with the keys epochs, "),
        (["reconstruct", "--repeats", "2", "guidance=much"], "guidance="),
    ],
)
def test_a_wrong_type_is_answered_with_an_example(home: Path, words: list[str], hint: str) -> None:
    shown = brainhive(*words)
    assert shown.exit_code == 2 and f"  try: as in {hint}" in shown.stderr
