"""Copies of runs that tests may change."""

import json
import shutil
from pathlib import Path

from brainhive_cli.core.files.documents import SHA256SUMS


def copy_run(run: Path, folder: Path) -> Path:
    """Copy a run of train-align into a folder of runs."""
    return Path(shutil.copytree(run, folder / "train-align" / run.name))


def change_unit(run: Path, unit: str) -> None:
    """Change the unit of the signals that the models of a run read.

    The digests of the run are removed, because they are of the old files.
    """
    for file in run.rglob(SHA256SUMS):
        file.unlink()
    for file in (run / "cells").glob("*/model/config.json"):
        config = json.loads(file.read_text())
        config["spec"]["unit"] = unit
        file.write_text(json.dumps(config))
