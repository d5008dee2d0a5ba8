"""Terminals on which nothing, or not every letter, can be written: a line at most, and
an exit code.
"""

import os
import subprocess
import sys

import pytest

from brainhive_cli.core.base.errors import install_line

BRAINHIVE = f"{sys.executable} -m brainhive_cli"


def run_command_line(line, home, **environment):
    """Run a line of a shell, in which `brainhive` is this one."""
    variables = {**os.environ, "BRAINHIVE_HOME": str(home), **environment}
    script = line.replace("brainhive", BRAINHIVE)
    return subprocess.run(
        ["bash", "-c", script],
        env=variables,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=120,
    )


@pytest.mark.nightly
def test_every_terminal_gets_an_exit_code_and_no_traceback(tmp_path):
    for line, code, variables in (
        ("brainhive recipes >&-", 0, {}),
        ("brainhive recipes > /dev/full", 1, {}),
        ("brainhive recipes é–x", 2, {"PYTHONIOENCODING": "ascii"}),
    ):
        process = run_command_line(line, tmp_path, **variables)
        assert process.returncode == code, process.stderr
        assert "Traceback" not in process.stderr
        assert "this is a bug" not in process.stderr
        assert process.stderr.count("error: ") == (code > 0)


def test_figures_are_drawn_whatever_backend_a_notebook_has_set(tmp_path):
    program = """
import brainhive_cli.__main__
import brainhive_cli.app
def draw(prog_name):
    import os
    import matplotlib
    print(matplotlib.get_backend(), os.environ["HDF5_USE_FILE_LOCKING"])
brainhive_cli.app.app = draw
brainhive_cli.__main__.main()
"""
    process = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        env={**os.environ, "MPLBACKEND": "module://matplotlib_inline.none"},
    )
    assert process.stdout.split() == ["agg", "FALSE"], process.stderr


def test_a_broken_installation_is_named_and_traced_with_debug(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    program = """
import sys
sys.modules["typer"] = None
import brainhive_cli.__main__
brainhive_cli.__main__.main()
"""
    for flags in ((), ("--debug",)):
        line = [sys.executable, "-c", program] + list(flags)
        process = subprocess.run(
            line, capture_output=True, text=True, timeout=60, cwd=tmp_path
        )
        assert process.returncode == 1
        assert "error: ModuleNotFoundError: import of typer halted" in process.stderr
        assert f"try: {install_line()} --force-reinstall; --debug " in process.stderr
        assert ("Traceback" in process.stderr) == bool(flags)
