"""What a command line leaves when it fails: a document under `--json`, and no empty
run.
"""

import json
import os
import sys
from functools import partial
from pathlib import Path

from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.cli import execute
from brainhive_cli.commands import doctor
from brainhive_cli.core.base import BrainhiveError, Line, Table, complete_lines
from brainhive_cli.core.runs.result import Result

RESULT = Result(Path(), (Table("a title", ("column",), (("cell",),)),))


def brainhive(*arguments):
    return CliRunner(env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"}).invoke(
        app, list(arguments)
    )


def test_with_json_an_error_is_a_document_on_stdout(
    home,
):
    for arguments, code, message, hint in (
        (["embed", "no.such.key=1"], 2, "key 'no'", "encoders"),
        (["embed", "--datset", "x"], 2, "--datset", "brainhive help embed"),
        (["embedd"], 2, "embedd", "brainhive help"),
        (
            ["train-align", "--recipe", "demo"],
            3,
            "no train embeddings",
            "brainhive embed",
        ),
    ):
        process = brainhive(*arguments, "--json")
        document = json.loads(process.stdout)
        assert document.keys() == {"error", "hint", "exit_code"}
        assert process.exit_code == document["exit_code"] == code
        assert message in document["error"]
        assert hint in document["hint"]
        assert message in process.stderr
    assert [path for path in home.rglob("*") if path.is_file()] == []


def test_ctrl_c_under_json_is_a_document_too(home, monkeypatch):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor, "run", stopped)
    process = brainhive("doctor", "--json")
    assert process.exit_code == json.loads(process.stdout)["exit_code"] == 130


def test_help_is_a_word_too():
    assert brainhive("help", "embed").stdout == brainhive("embed", "--help").stdout
    assert brainhive("help", "embedd").exit_code == 2


def test_a_line_of_a_command_without_code_has_no_permission():
    line = Line("report", "a")
    completed = execute.complete_line(line, list, keys=set(), is_allowed=True)
    assert str(completed) == "brainhive report a"


def test_the_suggested_line_allows_the_same_code():
    line = Line("eval-retrieval", ("run", "a"))
    for is_allowed, expected in (
        (True, "brainhive eval-retrieval --run a --allow-code"),
        (False, "brainhive eval-retrieval --run a"),
    ):
        with complete_lines(
            partial(
                execute.complete_line,
                list_folders=list,
                keys=set(),
                is_allowed=is_allowed,
            )
        ):
            assert str(line) == expected
            assert (
                BrainhiveError("", line).hint
                == Result(Path(), hint=line).hint
                == expected
            )


def test_a_reader_that_goes_away_is_no_error(home, monkeypatch):
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w", buffering=1) as closed_pipe:
        monkeypatch.setattr(
            doctor,
            "run",
            lambda *_: monkeypatch.setattr(sys, "stdout", closed_pipe) or RESULT,
        )
        process = brainhive("doctor")
    assert process.exit_code == 1
    assert process.stderr == ""


def test_every_command_takes_a_run_with_and_without_its_flag(
    home,
):
    for arguments in (
        ["eval-retrieval"],
        ["explain"],
        ["reconstruct", "--prior", "identity"],
    ):
        for run_arguments in (["nothing"], ["--run", "nothing"]):
            process = brainhive(*arguments, *run_arguments)
            assert process.exit_code == 3
            assert "no train-align run 'nothing'" in process.stderr
    process = brainhive("explain", "--run", "one", "other")
    assert process.exit_code == 2
    assert "2 runs: one, other" in process.stderr


def test_the_way_out_stays_within_the_recipe_that_was_named(home):
    for arguments, lines in (
        (["train-align"], ["embed"]),
        (["reconstruct"], ["embed", "train-align", "reconstruct"]),
    ):
        text = " && ".join(f"brainhive {line} --recipe demo" for line in lines)
        process = brainhive(*arguments, "--recipe", "demo")
        assert process.exit_code == 3
        assert process.stderr.endswith(f"  try: {text}\n")
        assert (
            f"({text})" in brainhive(*arguments, "--recipe", "demo", "--check").stderr
        )
    process = brainhive(
        "train-align", "--recipe", "demo", "encoders=demo-clip", "prior=null"
    )
    assert process.stderr.endswith(
        "try: brainhive embed --recipe demo --encoders demo-clip\n"
    )
