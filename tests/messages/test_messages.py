"""What each command prints, compared with a text file per command.

A file holds command lines and, below each, the output in 80 columns. To change the
wording, edit the program and run `pytest tests/messages --rewrite`, then read
the difference. To cover another case, add its command line and run the same. Spaces
and line breaks are not compared, because they depend on the home's path.

Lines that begin with `$ brainhive` run in this process, where `RUN` is the name of the
trained run. Other lines that begin with `$` run in a shell and prepare files. Lines
that begin with `#:` explain the next command. For `--json`, the file has the columns of
all tables and the keys of the metrics, also where no row has a value. All lines of a
file share a home, which begins with the demo's embedded pictures and two trained brain
models.
"""

import json
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import pytest
from click.testing import CliRunner
from typer.main import get_command

from brainhive_cli.app import app

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parents[1]
COMMANDS = sorted(str(command.name) for command in app.registered_commands)
NUMBER = r"(?<![-\w.])[-+]?\d+(\.\d+)?"
VARIABLE_TEXT = (
    (re.compile(r"(?<=Software and device\n).*?(?=\n\n)", re.S), "SOFTWARE"),
    (re.compile(r"(?<=\nmade by ).*?(?=\nrepeats it)", re.S), "LINE"),
    (re.compile(rf"{NUMBER}(?= (s|ms|min|h|kB|MB|GB)\b)"), "N"),
    (re.compile(rf"{NUMBER}(?=( to {NUMBER})? %)"), "N"),
    (re.compile(rf"\({NUMBER}(–| to ){NUMBER}\)"), "(N to N)"),
    (re.compile(r"(?<![-\w.])[-+]?\d+\.\d+"), "N"),
    (re.compile(r"\b(?=[a-f]*\d)(?=\d*[a-f])([0-9a-f]{10}|[0-9a-f]{16})\b"), "DIGEST"),
    (re.compile(r"\d+:\d{2}\b"), "TIME"),
    (re.compile(r"(less\s+than\s+a|\d+)\s+minutes?\s+ago"), "AGO"),
)
"""Text that differs between machines or runs, and its placeholder."""


@dataclass
class Step:
    """A command line of a file.

    Attributes:
        comments: Lines above the command that explain the case.
        line: Command line without the prompt.
        output: Lines that the command printed when the file was written.
    """

    comments: list[str]
    line: str
    output: list[str] = field(default_factory=list)


def read_steps(text):
    """Split a file into its command lines, with their comments and output."""
    steps = []
    comments = []
    for line in text.splitlines():
        if line.startswith("#: "):
            comments.append(line)
        elif line.startswith("$ "):
            steps.append(Step(comments, line.removeprefix("$ ")))
            comments = []
        elif steps:
            steps[-1].output.append(line)
    for step in steps:
        while step.output and not step.output[-1]:
            step.output.pop()
    return steps


def write_steps(steps):
    """Write the text of a file, the inverse of `read_steps`."""
    blocks = []
    for step in steps:
        lines = step.comments + [f"$ {step.line}"] + step.output
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def list_columns(document):
    """List the columns of each table of a result, and the keys of its metrics."""
    if isinstance(document, list):
        document = {"tables": [{"title": "list", "rows": document}], "metrics": {}}
    keys_by_title = {}
    for table in document["tables"]:
        keys_by_title[table["title"]] = chain.from_iterable(table["rows"])
    for metrics in document["metrics"].get("scopes", {}).values():
        keys_by_title["metrics"] = chain.from_iterable(metrics.values())
    return [
        f"{title}: {' | '.join(dict.fromkeys(keys))}"
        for title, keys in keys_by_title.items()
    ]


def run_step(line, home):
    """Run a command line and return the lines it prints, without text that varies."""
    if not line.startswith("brainhive"):
        subprocess.run(line, shell=True, cwd=home, check=True)
        return []
    run_name = next((home / "runs/train-align").iterdir()).name
    arguments = [
        run_name if argument == "RUN" else argument
        for argument in shlex.split(line)[1:]
    ]
    # built anew: tests of completion change the command that other tests share
    command = get_command(app)
    result = CliRunner().invoke(
        command,
        arguments,
        prog_name="brainhive",
        max_content_width=80,
        terminal_width=80,
    )
    if "--json" in arguments and not result.exit_code:
        return list_columns(json.loads(result.stdout))
    text = result.output
    for folder, placeholder in ((home, "HOME"), (ROOT, "PROJECT"), (Path.home(), "~")):
        text = text.replace(str(folder), placeholder)
    # the run's digest may be broken into two lines
    text = re.sub(r"\s*".join(run_name[-10:]), "DIGEST", text)
    for pattern, placeholder in VARIABLE_TEXT:
        text = pattern.sub(placeholder, text)
    text = re.sub("─+", "───", text)
    lines = [row.rstrip() for row in text.rstrip().splitlines()]
    # progress is printed only where a step takes long
    lines = [row for row in lines if not re.search(r"TIME( so far)?$", row)]
    if result.exit_code:
        lines.append(f"[exit code {result.exit_code}]")
    return lines


def without_spaces(lines):
    """Join lines without spaces and line breaks, which depend on the home's path."""
    return "".join("".join(lines).split())


@pytest.fixture
def home(world_template, tmp_path, monkeypatch):
    """A copy of the world of commands, as the home and working directory."""
    home = Path(shutil.copytree(world_template, tmp_path / "home"))
    monkeypatch.setenv("BRAINHIVE_HOME", str(home))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERMINAL_WIDTH", "80")
    monkeypatch.chdir(home)
    yield home


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_prints_what_its_file_says(command, home, request):
    path = FOLDER / f"{command}.txt"
    # a new command begins with its help and a refusal
    text = f"$ brainhive {command} --help\n\n$ brainhive {command} no.such.key=1\n"
    if path.is_file():
        text = path.read_text(encoding="utf-8")
    steps = read_steps(text)
    printed = [
        Step(step.comments, step.line, run_step(step.line, home)) for step in steps
    ]
    if request.config.getoption("--rewrite"):
        for step, printed_step in zip(steps, printed, strict=True):
            # keep lines that differ in their breaks only
            if without_spaces(printed_step.output) == without_spaces(step.output):
                printed_step.output = step.output
        path.write_text(write_steps(printed), encoding="utf-8")
        return
    for step, printed_step in zip(steps, printed, strict=True):
        assert without_spaces(printed_step.output) == without_spaces(step.output), (
            f"{step.line}\nto accept all new messages: python -m pytest tests/messages "
            "--rewrite, and read the difference"
        )


def test_every_file_shows_the_help_and_a_refusal_of_a_command():
    files = {
        path.stem: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.txt")
    }
    assert sorted(files) == COMMANDS, "run python -m tools.regenerate"
    for command, text in files.items():
        assert f"$ brainhive {command} --help\n" in text, command
        assert "[exit code " in text, command
