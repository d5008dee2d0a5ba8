"""Writes the completions in this folder, and the names that they complete: `python
completions/build.py`.
"""

import os
import subprocess
import sys
from pathlib import Path

SCRIPTS = {"bash": "brainhive.bash", "zsh": "_brainhive", "fish": "brainhive.fish"}


def script(shell: str) -> str:
    """Ask the application for its completion script, as a shell would."""
    environment = {**os.environ, "_BRAINHIVE_COMPLETE": f"source_{shell}"}
    command = [sys.executable, "-m", "brainhive_cli"]
    script = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    ).stdout
    return script.strip() + "\n"  # zsh looks for #compdef on the first line


def encoders() -> str:
    """List the encoders by name: asking their parts would take longer than a completion
    may.
    """
    from brainhive_cli.commands.embed import list_encoders

    (table,) = list_encoders().tables
    return "".join(f"{row[0]}\n" for row in table.rows)


if __name__ == "__main__":
    for shell, name in SCRIPTS.items():
        Path(__file__).with_name(name).write_text(script(shell))
    Path(__file__).with_name("encoders.txt").write_text(encoders())
