"""The grammar that every command shares, through the real application."""

import importlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from brainhive_cli import __version__
from brainhive_cli.app import app
from brainhive_cli.cli import table
from brainhive_cli.core import parts

COMMANDS = [str(command.name) for command in app.registered_commands]
EXAMPLE_ENCODER = "python:brainhive_cli.models.encoders.python:example"


def brainhive(*words: str) -> Any:
    return CliRunner(env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"}).invoke(
        app, list(words), prog_name="brainhive"
    )


@pytest.fixture
def photos(home: Path) -> Path:
    """A folder of pictures where image-folder looks for one."""
    for name in ("cat/a", "cat/b", "dog/c"):
        path = home / f"data/image-folder/{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), "red" if "cat" in name else "blue").save(path)
    return home


def embed(*words: str) -> Any:
    return brainhive("embed", "--dataset", "image-folder", "--encoders", EXAMPLE_ENCODER, *words)


@cache
def help_of(command: str) -> str:
    shown = brainhive(command, "--help")
    assert shown.exit_code == 0
    return str(shown.stdout)


def test_help_says_what_it_does_with_an_example_in_80_columns() -> None:
    options = ("--recipe", "--check", "--json", "--again", "--debug", "[KEY.PATH=VALUE]...")
    for command in COMMANDS:
        shown = help_of(command)
        assert max(map(len, shown.splitlines())) <= 80, command
        assert re.search(rf"Example: brainhive {command}\b", shown)
        assert [option for option in options if option not in shown] == [], command


FOR_WORK = (("--processes", "processes", "2"),)
FOR_WORK += (("--mixed-precision", "mixed_precision", "bf16"),)


def test_only_commands_that_compute_take_processes_and_a_precision(home: Path) -> None:
    for listed in table.COMMANDS:
        module = importlib.import_module(f"brainhive_cli.commands.{listed.name.replace('-', '_')}")
        assert module.Recipe.computes == listed.computes
        for flag, _, _ in FOR_WORK:
            assert (flag in help_of(listed.name)) == listed.computes, listed.name
    for flag, key, value in FOR_WORK:
        typed, set_as_key = brainhive("report", flag, value), brainhive("report", f"run.{key}={value}")
        assert typed.exit_code == set_as_key.exit_code == 2 and f"No such option: {flag}" in typed.stderr
        assert f"{key} has no effect in this command, which only reads" in set_as_key.stderr


def test_the_help_names_every_brain_encoder() -> None:
    shown = " ".join(brainhive("train-align", "--help").stdout.split())
    (listed,) = re.findall(r"Brain encoder: ([\w, -]+)\.", shown.replace("- ", "-"))
    assert listed.split(", ") == parts.kinds("backbones")


def test_the_example_in_the_help_is_a_line_that_parses(home: Path) -> None:
    for command in COMMANDS:
        example = re.search(r"Example: brainhive (.*?)\n\n", help_of(command), re.DOTALL)
        assert example, command
        assert brainhive(*shlex.split(example[1]), "--check").exit_code in (0, 3), example[1]


TAKING_NAMES = {"fetch", "push", "workflow"}
LISTING = {"doctor", "recipes", "runs"}


@pytest.mark.parametrize("command", COMMANDS)
def test_check_prints_the_recipe_its_inputs_and_what_is_missing(command: str, home: Path) -> None:
    shown = brainhive(command, "--check", "--json")
    document = json.loads(shown.stdout)
    assert (shown.exit_code == 2) == (command in TAKING_NAMES)
    if shown.exit_code == 2:  # whose names the line does not say
        assert document.keys() == {"error", "hint", "exit_code"}
        return
    assert document.keys() == {"recipe", "missing", "inputs", "tables"}
    assert document["inputs"] or command in LISTING
    assert all(one.keys() == {"what", "bytes", "state", "line"} for one in document["inputs"])
    assert shown.exit_code == (3 if document["missing"] else 0)
    plain = brainhive(command, "--check")
    tables, _, recipe = plain.stdout.partition("# Recipe: ")
    titles = [table["title"] for table in document["tables"]]
    assert ("Inputs" in titles) == bool(document["inputs"]) and all(title in tables for title in titles)
    assert yaml.safe_load(f"# {recipe}") == document["recipe"]
    assert plain.stderr.count("warning: missing: ") == len(document["missing"])
    assert [path.name for path in home.iterdir()] == []


@pytest.mark.parametrize(
    ("command", "word", "what"),
    [
        ("train-align", "no.such.key=1", "unknown recipe key"),
        ("runs", "no.such.key=1", "unknown recipe key"),
        ("train-align", "run.processes=none", "valid integer"),
        ("train-align", "key", "has no value"),
    ],
)
def test_a_recipe_error_is_two_lines_and_exit_code_2(command: str, word: str, what: str, home: Path) -> None:
    shown = brainhive(command, word)
    lines = shown.stderr.splitlines()
    assert shown.exit_code == 2 and not shown.stdout and len(lines) == 2
    assert lines[0].startswith("error: ") and what in lines[0] and lines[1].startswith("  try: ")


@pytest.mark.parametrize("word", ["key", "./no.such.key=1"])
@pytest.mark.parametrize("command", ["check", "export-embeddings"])
def test_commands_on_files_take_words_as_files(command: str, word: str, home: Path) -> None:
    shown = brainhive(command, word)
    assert shown.exit_code == 3 and f"no file, folder or pattern {word}" in shown.stderr


@pytest.mark.parametrize("words", [["embed", "--datset", "x"], ["embedd"], ["embed", "--processes", "0"]])
def test_a_line_that_does_not_parse_is_exit_code_2(words: list[str]) -> None:
    assert brainhive(*words).exit_code == 2


def test_the_version_is_shown() -> None:
    assert brainhive("--version").stdout == f"brainhive {__version__}\n"


def test_the_doctor_prints_a_table_or_json(home: Path) -> None:
    assert "torch" in brainhive("doctor").stdout
    document = json.loads(brainhive("doctor", "--json").stdout)
    assert document["details"]["brainhive"] == __version__ and document["next"] == "brainhive demo"


def test_a_command_does_its_work_once_and_finds_it_again(photos: Path) -> None:
    first = embed("--json")
    (path,) = photos.rglob("*.h5")
    written = path.stat().st_mtime_ns
    assert json.loads(first.stdout)["tables"][0]["rows"][0]["pictures"] == 3
    assert embed("--json").stdout == first.stdout and path.stat().st_mtime_ns == written
    assert embed("--again").exit_code == 0 and path.stat().st_mtime_ns > written


def test_results_go_to_stdout_and_talk_to_stderr(photos: Path) -> None:
    shown = embed()
    assert "python-example" in shown.stdout and "next: brainhive train-prior" in shown.stderr
    assert "next:" not in shown.stdout


def test_a_recipe_file_a_flag_and_an_override_meet(photos: Path) -> None:
    (photos / "mine.yaml").write_text("dataset: demo\nbatch_size: 5\nsplits: [train]\n")
    shown = embed("--recipe", "mine.yaml", "batch_size=7", "--check", "--json")
    recipe = json.loads(shown.stdout)["recipe"]
    assert (recipe["dataset"]["kind"], recipe["batch_size"], recipe["splits"]) == (
        "image-folder",
        7,
        ["train"],
    )


def test_the_printed_recipe_runs_as_it_is(photos: Path) -> None:
    (photos / "resolved.yaml").write_text(
        embed("--check").stdout[embed("--check").stdout.index("# Recipe") :]
    )
    assert brainhive("embed", "--recipe", "resolved.yaml").exit_code == 0
    assert len(list(photos.rglob("*.h5"))) == 1


def test_debug_shows_the_traceback_and_nothing_else_does(home: Path) -> None:
    assert "Traceback" not in brainhive("embed").stderr
    shown = brainhive("embed", "--debug")
    assert "Traceback" in shown.stderr and shown.exit_code == 3


def test_a_folder_that_cannot_be_written_is_one_clear_error(photos: Path) -> None:
    (photos / "embeddings").write_text("a file where a folder should be")
    shown = embed()
    assert shown.exit_code == 1 and len(shown.stderr.splitlines()) == 2
    assert re.match(r"error: .*embeddings.*: (Not a directory|File exists)", shown.stderr)


def test_a_network_of_anyones_that_breaks_is_told_in_one_line(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "broken.py").write_text("def make():\n    raise ZeroDivisionError('no pixels')\n")
    monkeypatch.syspath_prepend(photos)
    shown = embed("encoders=python:broken:make")
    assert (
        shown.exit_code == 1
        and "python:broken:make, line 2 in make: ZeroDivisionError: no pixels" in shown.stderr
    )


FULL = """
import resource
from pathlib import Path
from safetensors.torch import save_file, torch
def make():
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        {write}
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
"""


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("full_for_python", "Path('full.bin').write_bytes(bytes(9999))"),
        ("full_for_safetensors", "save_file({'a': torch.zeros(9999)}, 'full.safetensors')"),
    ],
)
def test_a_full_disk_is_told_as_such_whichever_library_finds_it(
    photos: Path, monkeypatch: pytest.MonkeyPatch, name: str, write: str
) -> None:
    (photos / f"{name}.py").write_text(FULL.format(write=write))
    monkeypatch.syspath_prepend(photos)
    shown = embed(f"encoders=python:{name}:make")
    assert shown.exit_code == 1 and "error: File too large\n  try: raise the limit" in shown.stderr


SLOW = """
import os, time, numpy, torch
class Slow(torch.nn.Module):
    calls = 0
    def forward(self, images):
        self.calls += 1
        print("busy", flush=True)
        while self.calls > 1 and os.path.exists("hold"):
            time.sleep(0.02)
        return images.float().flatten(1)[:, :4]
def make():
    return Slow(), lambda picture: torch.from_numpy(numpy.array(picture)).permute(2, 0, 1)
"""


def test_ctrl_c_is_exit_code_130_and_the_same_command_goes_on(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "slow_network.py").write_text(SLOW)
    (photos / "hold").touch()
    words = [
        "embed",
        "dataset=image-folder",
        "encoders=python:slow_network:make",
        "batch_size=1",
        "run.workers=0",
    ]
    command = [sys.executable, "-m", "brainhive_cli", *words]
    path = os.pathsep.join([str(photos), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment) as running:
        assert running.stdout and running.stderr
        for _ in range(2):
            running.stdout.readline()
        running.send_signal(signal.SIGINT)
        told = running.stderr.read()
    (photos / "hold").unlink()
    assert running.returncode == 130
    assert told == "interrupted: the same command continues where it stopped\n"
    assert not list(photos.rglob("*.h5"))
    monkeypatch.syspath_prepend(photos)
    assert brainhive(*words).exit_code == 0
    assert len(list(photos.rglob("*.h5"))) == 1
