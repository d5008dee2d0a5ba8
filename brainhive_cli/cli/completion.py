"""What the shell completes: encoders, data sets, recipes and runs, found without importing anything heavy."""

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from brainhive_cli.core import home

Complete = Callable[[str], list[str]]


def kinds(shelf: str) -> list[str]:
    """List the parts of a shelf by their files, and the rows of its families."""
    package = Path(__file__).parents[1]
    files = [file.stem for file in package.glob(f"*/{shelf}/[!_]*.py")]
    for table in package.glob(f"*/{shelf}/rows.yaml"):  # read without the YAML reader, which takes time
        files += re.findall(r"^([\w-]+):", table.read_text(encoding="utf-8"), re.MULTILINE)
    return [file.replace("_", "-") for file in sorted(file.replace("-", "_") for file in files)]


def encoders() -> list[str]:
    """List the encoders by name, as `completions/build.py` wrote them down."""
    return (home.shipped("completions") / "encoders.txt").read_text(encoding="utf-8").split()


def datasets() -> list[str]:
    """List the data sets."""
    return kinds("datasets")


def recipes() -> list[str]:
    """List the shipped recipes that `--recipe` takes."""
    root = home.shipped("recipes")
    return sorted({path.parent.relative_to(root).as_posix() for path in root.glob("*/**/*.yaml")})


def runs(command: str = "*") -> Callable[[], list[str]]:
    """List the finished runs of a command, or of all, the newest first."""

    def found() -> list[str]:
        below = Path(os.environ.get("BRAINHIVE_HOME", ".")) / "runs"
        files = sorted(below.glob(f"{command}/*/metrics.json"), key=lambda file: -file.stat().st_mtime)
        return [file.parent.name for file in files]

    return found


def one(*lists: Callable[[], list[str]], words: Iterable[str] = ()) -> Complete:
    """Complete one name."""

    def complete(incomplete: str) -> list[str]:
        known = [*words, *(name for list_names in lists for name in list_names())]
        return [name for name in known if name.startswith(incomplete)]

    return complete


def several(*lists: Callable[[], list[str]]) -> Complete:
    """Complete the last of several names that are separated by commas."""

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{name}" for name in one(*lists)(last)]

    return complete
