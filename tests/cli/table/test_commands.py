"""The grammar that every command shares, through the real application."""

import ast
import copy
import inspect
import json
import re
import shlex
from functools import cache
from pathlib import Path

import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.cli import table
from brainhive_cli.commands.recipes import import_recipe
from brainhive_cli.core.recipes.recipe import find_recipe, read_recipe, validate
from brainhive_cli.core.results.facts import ROOMS, flatten

COMMANDS = [str(command.name) for command in app.registered_commands]
EXAMPLE_ENCODER = "python:brainhive_cli.models.encoders.python:example"


def brainhive(*arguments):
    return CliRunner(env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"}).invoke(
        app, list(arguments), prog_name="brainhive"
    )


@pytest.fixture
def photos(home):
    """A folder of pictures where image-folder looks for one."""
    for name in ("cat/a", "cat/b", "dog/c"):
        path = home / f"data/image-folder/{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), "red" if "cat" in name else "blue").save(path)
    return home


def embed(*arguments):
    return brainhive(
        "embed", "--dataset", "image-folder", "--encoders", EXAMPLE_ENCODER, *arguments
    )


@cache
def help_of(command):
    process = brainhive(command, "--help")
    assert process.exit_code == 0
    return str(process.stdout)


def test_help_fits_80_columns_and_its_example_can_be_parsed(
    home,
):
    options = (
        "--recipe",
        "--check",
        "--json",
        "--debug",
        "[KEY.PATH=VALUE]...",
    )
    for command in COMMANDS:
        help_text = help_of(command)
        assert max(map(len, help_text.splitlines())) <= 80, command
        assert [option for option in options if option not in help_text] == [], command
        example = re.search(
            rf"Example: brainhive ({command}\b.*?)\n\n", help_text, re.DOTALL
        )
        assert example, command
        assert brainhive(*shlex.split(example[1]), "--check").exit_code in (0, 3), (
            example[1]
        )


def test_only_computing_commands_take_processes_and_a_precision(home):
    for command in table.COMMANDS:
        can_share_work = import_recipe(command.name).can_share_work
        for flag in ("--processes", "--mixed-precision"):
            assert (flag in help_of(command.name)) == can_share_work, command.name
    typed, set_as_key = (
        brainhive("report", "--processes", "2"),
        brainhive("report", "run.processes=2"),
    )
    assert typed.exit_code == set_as_key.exit_code == 2
    assert "No such option: --processes" in typed.stderr
    assert "error: processes " in set_as_key.stderr


def test_again_and_code_are_offered_only_where_they_act(home):
    for name in COMMANDS:
        text, recipe = help_of(name), import_recipe(name)
        assert ("--again" in text) == recipe.skips_finished, name
        assert ("--allow-code" in text) == recipe.runs_code, name
    for flag in ("--again", "--allow-code", "--submit"):
        refused = brainhive("doctor", flag)
        assert refused.exit_code == 2
        assert flag in refused.stderr


TAKING_NAMES = {"fetch", "push", "workflow"}
LISTING = {"doctor", "recipes", "runs"}


def test_check_prints_the_recipe_its_inputs_and_what_is_missing(home):
    for command in COMMANDS:
        prints_what_is_missing(command)
    assert [path.name for path in home.iterdir()] == []


def prints_what_is_missing(command):
    process = brainhive(command, "--check", "--json")
    document = json.loads(process.stdout)
    assert (process.exit_code == 2) == (command in TAKING_NAMES)
    if process.exit_code == 2:  # whose names the line does not say
        assert document.keys() == {"error", "hint", "exit_code"}
        return
    assert document.keys() == {"recipe", "missing", "inputs", "tables"}
    assert document["inputs"] or command in LISTING
    assert all(
        input_row.keys() == {"what", "bytes", "state", "line"}
        for input_row in document["inputs"]
    )
    assert process.exit_code == (3 if document["missing"] else 0)
    if command not in ("train-align", "eval-retrieval"):
        return
    plain_process = brainhive(command, "--check")
    titles = [table["title"] for table in document["tables"]]
    assert ("Inputs" in titles) == bool(document["inputs"])
    assert all(title in plain_process.stdout for title in titles)
    assert "dataset:" not in plain_process.stdout
    # the recipe alone on stdout, the plan below it
    saved = brainhive(command, "--check", "--recipe-too")
    assert yaml.safe_load(saved.stdout) == document["recipe"]
    assert all(title in saved.stderr for title in titles)
    single_process = brainhive(command, "--recipe-too")
    assert single_process.exit_code == 2
    assert "--recipe-too" in single_process.stderr
    assert plain_process.stderr.count("warning: missing: ") == len(document["missing"])


def test_a_recipe_error_is_two_lines_with_exit_code_2(
    home,
):
    for arguments, problem in (
        (["train-align", "no.such.key=1"], "'no'"),
        (["train-align", "run.processes=none"], "'none'"),
        (["train-align", "key"], "'key'"),
    ):
        process = brainhive(*arguments)
        lines = process.stderr.splitlines()
        assert process.exit_code == 2
        assert not process.stdout
        assert len(lines) == 2
        assert lines[0].startswith("error: ")
        assert problem in lines[0]
        assert lines[1].startswith("  try: ")
    process = brainhive("embed", "--debug")
    assert "Traceback" in process.stderr
    assert process.exit_code == 3
    # commands on files take words as files
    process = brainhive("check", "./no.such.key=1")
    assert process.exit_code == 3
    assert "no file, folder or pattern ./no.such.key=1" in process.stderr


def test_a_command_does_its_work_once_and_finds_it_again(photos):
    first_embed = embed("--json")
    (path,) = photos.rglob("*.h5")
    st_mtime_ns = path.stat().st_mtime_ns
    assert json.loads(first_embed.stdout)["tables"][0]["rows"][0]["pictures"] == 3
    shown_embed = embed()
    assert "python-example" in shown_embed.stdout
    assert path.stat().st_mtime_ns == st_mtime_ns
    assert "next: brainhive train-prior" in shown_embed.stderr
    assert "next:" not in shown_embed.stdout
    assert embed("--again").exit_code == 0
    assert path.stat().st_mtime_ns > st_mtime_ns


def test_a_folder_that_cannot_be_written_is_one_clear_error(photos):
    (photos / "embeddings").write_text("a file where a folder should be")
    shown_embed = embed()
    assert shown_embed.exit_code == 1
    assert len(shown_embed.stderr.splitlines()) == 2
    assert re.match(
        r"error: .*embeddings.*: (Not a directory|File exists)", shown_embed.stderr
    )


NUMBER_OF_DEFAULT = re.compile(r"[Dd]efault: [^;]*\b\d")
"""A default with a number, in a description of a key."""


def read_texts(path):
    """Read the texts of a module as they are typed, with {} for inserted values."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        # a description is an argument of Field, flag_field or part_field
        for text in node.args + [keyword.value for keyword in node.keywords]:
            pieces = text.values if isinstance(text, ast.JoinedStr) else [text]
            arguments = []
            for piece in pieces:
                is_typed = isinstance(piece, ast.Constant)
                arguments.append(str(piece.value) if is_typed else "{}")
            yield "".join(arguments)


def test_no_default_is_typed_twice(home):
    for command in ROOMS:
        model = import_recipe(command)

        # in a description, a default is the constant that is used
        path = Path(inspect.getfile(model))
        for text in read_texts(path):
            assert not NUMBER_OF_DEFAULT.search(text), (
                f"{path}: insert the constant that is used into {text!r}"
            )

        # a default recipe, if there is one, holds nothing that a key has anyway
        recipe = find_recipe(command, None)
        fields = read_recipe(recipe) if recipe.is_file() else {}
        used_fields = validate(model, fields)
        for key in flatten(fields):
            fewer_fields = copy.deepcopy(fields)
            section = fewer_fields
            *section_keys, last_key = key.split(".")
            for section_key in section_keys:
                section = section[section_key]
            del section[last_key]
            assert validate(model, fewer_fields) != used_fields, (
                f"recipes/{command}.yaml: leave out {key}, which is the default"
            )


def test_help_shows_the_defaults_that_are_used(home):
    designs = import_recipe("design")().list_designs()
    n_pictures = sorted({design.train_pictures for design in designs})
    pattern = (
        rf"--train-pictures.*\s.*\s*\[default: \({','.join(map(str, n_pictures))},"
    )
    assert re.search(pattern, help_of("design"))
    # of a key, of a part, and a word for a default that depends on others
    assert re.search(r"--repeats.*\s.*\s*\(10\)", help_of("reconstruct"))
    assert "[default: (brain-mlp)]" in help_of("train-align")
    assert re.search(r"default: \(the\s+newest run on", help_of("explain"))
