"""Hints lead on: what they say to run is a line that the command line takes, as it
stands.
"""

import ast
import importlib
import re
import shlex

from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.cli import execute
from brainhive_cli.cli.execute import OVERRIDE
from brainhive_cli.cli.table import COMMANDS
from brainhive_cli.core.base import errors
from brainhive_cli.core.recipes import Paths, parts
from brainhive_cli.data.targets import next_commands
from tools.house import MODULES

FIELD = "VALUE"
"""What stands for a value that is known when a hint is written."""
NAMES = "|".join(command.name for command in COMMANDS)
RECIPE_KEY = re.compile(r"\b[a-z_]+(?:\.\w+)+(?==)")
"""A dotted recipe key that a hint sets, such as train.lr in `train.lr=1`."""
LINE = re.compile(rf"brainhive (?:{NAMES})\b.*?(?= && |[,;)]| \(|`|$)")
"""A command line in a text, to its end: what joins lines, or begins further words."""


def texts_of(module):
    """Write the texts of a module that are no docstrings, each with a word for a
    value.
    """
    nodes = list(ast.walk(module))
    inner = {
        id(text)
        for joined in nodes
        if isinstance(joined, ast.JoinedStr)
        for text in joined.values
    }
    statements = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    outer_nodes = inner | statements
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                text.value if isinstance(text, ast.Constant) else FIELD
                for text in node.values
            )
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in outer_nodes
        ):
            yield node.value


def write_word(argument):
    """Write a word of a line as it is typed, with a word for a value that is known when
    it is written.
    """
    match argument:
        case ast.Constant(value):
            return [str(value)]
        case ast.JoinedStr(parts):
            return [
                "".join(
                    partial_part.value
                    if isinstance(partial_part, ast.Constant)
                    else FIELD
                    for partial_part in parts
                )
            ]
        case ast.Tuple([ast.Constant(key), _]):
            return [f"--{key}", FIELD]
        case ast.Starred():
            return []
        case ast.IfExp(body=value):
            return write_word(value)
    return [FIELD]


def lines_of(module):
    """Write the command lines that a module makes, of commands that it names."""
    imports = [node for node in module.body if isinstance(node, ast.ImportFrom)]
    imported = {
        alias.name
        for node in imports
        if node.module == errors.__package__
        for alias in node.names
    }
    if "Line" not in imported:  # else a `Line` is one of a figure
        return
    for node in ast.walk(module):
        match node:
            case ast.Call(ast.Name("Line"), [ast.Constant(command), *words]):
                yield shlex.join(
                    ["brainhive", command]
                    + [
                        text_part
                        for argument in words
                        for text_part in write_word(argument)
                    ]
                )


def check_words(
    command,
    common,
    flags,
    arguments,
    *_,
):
    """Stand in for a command: refuse what is no key of its recipe."""
    recipe = importlib.import_module(
        f"brainhive_cli.commands.{command.replace('-', '_')}"
    ).Recipe
    for argument in [argument for argument in arguments if argument != FIELD]:
        assert OVERRIDE.match(argument), f"{argument} is no override"
        assert re.split(r"[.=]", argument)[0] in recipe.model_fields, (
            f"{argument} is no key of {command}"
        )
    return 0


def test_every_suggested_command_line_can_be_parsed(home, monkeypatch):
    monkeypatch.setattr(execute, "_run", check_words)
    suggested_lines, parsed_lines = set[tuple[str, str]](), set[tuple[str, str]]()
    for path in MODULES.values():
        tree = ast.parse(path.read_text())
        suggested_lines |= {(path.name, line) for line in lines_of(tree)}
        parsed_lines |= {
            (path.name, line) for text in texts_of(tree) for line in LINE.findall(text)
        }
    refused = {}
    for module, line in sorted(suggested_lines | parsed_lines):
        result = CliRunner().invoke(app, shlex.split(line)[1:])
        if result.exit_code:
            refused[module, line] = result.stderr.strip().splitlines()[-1]
    assert refused == {}
    assert len(suggested_lines) > 25


def test_the_line_to_embed_names_an_encoder_that_is_here(home, monkeypatch):
    monkeypatch.setattr(next_commands, "list_recorded_subjects", lambda *arguments: [1])
    (home / "data/image-folder/train/cat").mkdir(parents=True)
    for kind, arguments in (
        ("demo", " --encoders demo-clip"),
        ("image-folder", ""),  # whose default needs no network
        ("things-eeg", " --encoders lite0"),
    ):
        dataset = parts.resolve("datasets", kind)
        line = next_commands.write_next_command(dataset, [], Paths())
        assert line == f"brainhive embed --dataset {kind}{arguments}"

    # a recipe with encoders of its own keeps them
    suggested = errors.Line("embed", ("encoders", ["demo-clip"], errors.SUGGESTED))
    for recipe, arguments in (("papers/havir", []), ("absent", ["demo-clip"])):
        completed = execute.complete_line(
            suggested, lambda name=recipe: [name], set(), False
        )
        assert ("--encoders" in completed.base_text) == bool(arguments), recipe


def keys_of(command):
    """Yield the keys of a command's recipe, with those of all kinds of its parts."""
    module = importlib.import_module(
        f"brainhive_cli.commands.{command.replace('-', '_')}"
    )
    for name, field in module.Recipe.model_fields.items():
        yield name
        shelf = f"{name.removesuffix('s')}s"
        configs = [field.annotation]
        if shelf in parts.SHELVES:
            configs = [
                parts.load(shelf, kind).Config for kind in parts.list_kinds(shelf)
            ]
            yield f"{name}.kind"
        for config in configs:
            for key in getattr(config, "model_fields", ()):
                yield f"{name}.{key}"


def test_every_key_that_a_hint_names_is_one_of_a_recipe():
    keys = {key for command in COMMANDS for key in keys_of(command.name)}
    sections = {key.partition(".")[0] for key in keys if "." in key}
    key_names = {
        (path.name, key)
        for path in MODULES.values()
        for text in texts_of(ast.parse(path.read_text()))
        for key in RECIPE_KEY.findall(text)
        if key.partition(".")[0] in sections and FIELD not in key
    }
    unknown = {
        (module, key)
        for module, key in key_names
        if ".".join(key.split(".")[:2]) not in keys
    }
    assert unknown == set()
    assert len(key_names) > 100
