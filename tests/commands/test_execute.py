"""What a command line leaves when it fails: one document under `--json`, and no empty run."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.core.console import Table
from brainhive_cli.core.results import Result
from brainhive_cli.pipelines import doctor

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


def test_a_command_that_fails_leaves_no_empty_run(home: Path) -> None:
    assert brainhive("train-align", "--recipe", "demo").exit_code == 3
    assert [path for path in home.rglob("*") if path.is_file()] == []
    assert list(home.glob("runs/train-align/*")) == []


def test_help_is_a_word_too() -> None:
    assert brainhive("help").stdout == brainhive("--help").stdout
    assert brainhive("help", "embed").stdout == brainhive("embed", "--help").stdout
    assert brainhive("help", "embedd").exit_code == 2


def test_a_reader_that_goes_away_is_no_error(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w", buffering=1) as closed:
        monkeypatch.setattr(doctor, "run", lambda *_: monkeypatch.setattr(sys, "stdout", closed) or RESULT)
        shown = brainhive("doctor")
    assert shown.exit_code == 1 and shown.stderr == ""
