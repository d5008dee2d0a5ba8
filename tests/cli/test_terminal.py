"""Terminals on which nothing, or not every letter, can be written: a line at most, and an exit code."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image
from progress_lines import without_progress

BRAINHIVE = f"{sys.executable} -m brainhive_cli"
ASCII = {"PYTHONIOENCODING": "ascii"}


def run(line: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a line of a shell, in which `brainhive` is this one."""
    variables = {**os.environ, "BRAINHIVE_HOME": str(home), **environment}
    script = line.replace("brainhive", BRAINHIVE)
    return subprocess.run(
        ["bash", "-c", script], env=variables, capture_output=True, text=True, errors="replace", timeout=120
    )


@pytest.mark.parametrize(
    ("line", "code", "variables"),
    [
        ("brainhive recipes >&-", 0, {}),
        ("brainhive recipes 2>&-", 0, {}),
        ("brainhive recipes <&-", 0, {}),
        ("brainhive recipes nothing >&- 2>&-", 2, {}),
        ("brainhive recipes > /dev/full", 1, {}),
        ("brainhive recipes --json > /dev/full", 1, {}),
        ("brainhive embed --help > /dev/full", 1, {}),
        ("brainhive --version > /dev/full", 1, {}),
        ("brainhive embed --dataset image-folder 2> /dev/full", 3, {}),
        ("brainhive recipes > /dev/full 2>&1", 1, {}),
        ("brainhive recipes", 0, ASCII),
        ("brainhive recipes", 0, {"PYTHONIOENCODING": "latin-1"}),
        ("brainhive embed --dataset é–x", 2, ASCII),
        ("brainhive embed --dataset demo", 2, {"WORLD_SIZE": "y"}),
        ("brainhive embed --dataset demo", 2, {"WORLD_SIZE": "2", "RANK": "x"}),
        ("brainhive embed --dataset demo", 2, {"WORLD_SIZE": "999999999"}),
        ("brainhive embed --dataset demo", 2, {"WORLD_SIZE": "9" * 5000}),
    ],
)
def test_every_terminal_gets_an_exit_code_and_no_traceback(
    tmp_path: Path, line: str, code: int, variables: dict[str, str]
) -> None:
    done = run(line, tmp_path, **variables)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr and "this is a bug" not in done.stderr
    assert "2>" in line or done.stderr.count("error: ") == (code > 0)


def test_warnings_of_libraries_stay_off_the_terminal(tmp_path: Path) -> None:
    program = """
import logging, sys, warnings
import brainhive_cli.app, brainhive_cli.__main__

def app(prog_name):
    warnings.warn("odd \\x1b[31mnumbers")
    logging.getLogger("matplotlib").warning("no font")

brainhive_cli.app.app = app
brainhive_cli.__main__.main()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_broken_installation_is_called_one_and_debug_shows_where(tmp_path: Path) -> None:
    program = """
import sys
sys.modules["typer"] = None
import brainhive_cli.__main__
brainhive_cli.__main__.main()
"""
    for flags in ((), ("--debug",)):
        line = [sys.executable, "-c", program, *flags]
        done = subprocess.run(line, capture_output=True, text=True, timeout=60, cwd=tmp_path)
        assert done.returncode == 1
        assert "error: ModuleNotFoundError: import of typer halted" in done.stderr
        assert "try: pip install --force-reinstall brainhive; --debug shows where" in done.stderr
        assert ("Traceback" in done.stderr) == bool(flags)


@pytest.mark.parametrize(
    ("where", "name"),
    [("recipe", "a\nb"), ("recipe", "é" * 300), ("name", "a\x1b[31mb"), ("run", "é" * 300)],
)
def test_a_name_that_no_file_can_have_is_refused_in_two_lines(tmp_path: Path, name: str, where: str) -> None:
    (tmp_path / "data/image-folder").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "data/image-folder/a.png")
    recipe = {"dataset": {"kind": "image-folder", "name": name}, "encoders": ["pixels"]}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    words = {
        "recipe": ["embed", "--recipe", name],
        "name": ["embed", "--recipe", "recipe.yaml"],
        "run": ["eval-retrieval", "--run", name],
    }[where]
    done = subprocess.run(
        [sys.executable, "-m", "brainhive_cli", *words],
        cwd=tmp_path,
        env={**os.environ, "BRAINHIVE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode in (1, 2, 3) and "\x1b" not in done.stderr
    error, hint = without_progress(done.stderr)
    assert error.startswith("error: ") and hint.startswith("  try: ") and "bug" not in hint
