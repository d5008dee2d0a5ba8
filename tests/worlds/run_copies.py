"""Copies of runs that tests may change."""

import json
import shutil
from pathlib import Path

from brainhive_cli.core.files.documents import SHA256SUMS


def copy_run(run_folder: Path, folder: Path) -> Path:
    """Copy a run of train-align into a folder of runs."""
    return Path(shutil.copytree(run_folder, folder / "train-align" / run_folder.name))


def change_unit(run_folder: Path, unit: str) -> None:
    """Change the unit of the signals that the models of a run read.

    The digests of the run are removed, because they are of the old files.
    """
    for file in run_folder.rglob(SHA256SUMS):
        file.unlink()
    for file in (run_folder / "cells").glob("*/model/config.json"):
        config = json.loads(file.read_text())
        config["spec"]["unit"] = unit
        file.write_text(json.dumps(config))
