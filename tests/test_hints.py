"""Hints lead on: what they say to run is a line that the command line takes, as it stands."""

import ast
import importlib
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.cli import execute
from brainhive_cli.cli.table import COMMANDS
from brainhive_cli.core.foreign_code import OVERRIDE
from tools.house import MODULES

FIELD = "VALUE"
"""What stands for a value that is known when a hint is written."""
LINE = re.compile(
    rf"brainhive (?:{'|'.join(command.name for command in COMMANDS)})\b.*?(?= && |[,;)]| \(|`|$)"
)
"""A command line in a text, to its end: what joins lines, or begins further words."""


def texts_of(module: ast.Module) -> Iterator[str]:
    """Write the texts of a module that are no docstrings, each with a word for a value."""
    inner = {
        id(text) for joined in ast.walk(module) if isinstance(joined, ast.JoinedStr) for text in joined.values
    }
    statements = {id(node.value) for node in ast.walk(module) if isinstance(node, ast.Expr)}
    for node in ast.walk(module):
        if isinstance(node, ast.JoinedStr):
            yield "".join(text.value if isinstance(text, ast.Constant) else FIELD for text in node.values)
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in inner | statements
        ):
            yield node.value


LINES = {
    (path.name, line)
    for path in MODULES.values()
    for text in texts_of(ast.parse(path.read_text()))
    for line in LINE.findall(text)
}


def check_words(command: str, common: Any, flags: Mapping[str, Any], words: Sequence[str], *_: Any) -> int:
    """Stand in for a command: refuse what is no key of its recipe."""
    recipe: Any = importlib.import_module(f"brainhive_cli.commands.{command.replace('-', '_')}").Recipe
    for word in [word for word in words if word != FIELD]:
        assert OVERRIDE.match(word), f"{word} is no override"
        assert re.split(r"[.=]", word)[0] in recipe.model_fields, f"{word} is no key of {command}"
    return 0


def test_every_line_in_a_message_is_one_that_the_command_line_takes(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execute, "_run", check_words)
    refused = {}
    for module, line in sorted(LINES):
        shown = CliRunner().invoke(app, shlex.split(line)[1:])
        if shown.exit_code:
            refused[module, line] = shown.stderr.strip().splitlines()[-1]
    assert len(LINES) > 25 and refused == {}
