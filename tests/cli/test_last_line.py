"""Whatever a command meets, its last lines are an error and a way out, with the exit code of its kind."""

from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from brainhive_cli.app import app

LONG = "x" * 300


def brainhive(*words: str) -> Any:
    return CliRunner().invoke(app, list(words))


def test_a_name_that_no_file_can_have_is_a_mistake_of_the_command_line(home: Path) -> None:
    for words in (
        ("train-align", "--recipe", LONG),
        ("eval-retrieval", "--run", LONG),
        ("report", LONG),
        ("check", LONG),
        ("prepare", "--from", "things-eeg", f"preparation.root={LONG}"),
    ):
        shown = brainhive(*words)
        assert shown.exit_code == 2, shown.stderr
        assert shown.stderr.startswith("error: ") and "  try: " in shown.stderr
