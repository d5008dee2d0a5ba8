"""doctor: versions, devices, folders and weights of this machine."""

import os
import platform
import shutil
from typing import Any

from brainhive_cli.core import console, hub
from brainhive_cli.core.command import Input, Result
from brainhive_cli.core.errors import Line, MissingExtra
from brainhive_cli.core.launch import (
    Launch,
    find_broken_libraries,
    library_version,
    library_versions,
)
from brainhive_cli.core.recipe import BaseRecipe
from brainhive_cli.core.tables import Table

MIB = 2**20
"""Bytes of a mebibyte (MiB)."""
OPTIONAL_LIBRARIES = ("pyarrow", "braindecode")
"""Libraries that only some commands need."""
MAX_NAMES_PER_FOLDER = 6
"""Largest number of file names that are listed for a folder."""


class Recipe(BaseRecipe):
    """Recipe of doctor. It has only the sections `paths` and `run` of all recipes."""

    can_share_work = False


def inputs(recipe: Recipe) -> list[Input]:
    """Return no inputs, because the command needs no files."""
    return []


def run(recipe: Recipe, launch: Launch, force: bool = False) -> Result:
    """Describe this machine: versions, devices, folders and downloaded weights.

    Args:
        recipe: Settings of the command.
        launch: Processes and device.
        force: Not used, because the machine is always described.

    Returns:
        A table of facts. The exit code is the code of `MissingExtra` if an installed
        library cannot be imported.
    """
    home = recipe.paths.under_home("data").parent
    errors = find_broken_libraries()
    for error in errors:
        console.warn(error.in_one_line)

    import torch
    from huggingface_hub.constants import HF_HUB_CACHE

    # if the home folder does not exist, test its nearest existing parent
    existing_folder = home.resolve()
    while not existing_folder.exists():
        existing_folder = existing_folder.parent

    has_bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    has_mps = torch.backends.mps.is_available()
    facts: dict[str, Any] = dict(library_versions())
    facts |= {
        "broken": "; ".join(error.message for error in errors) or "nothing",
        "device": launch.device_name,
        "GPUs": torch.cuda.device_count(),
        "bf16 on the GPU": has_bf16,
        "Apple GPU (MPS)": "available, but not used" if has_mps else "none",
        "system": platform.platform(),
        "CPU cores": os.cpu_count(),
        "CPU threads": torch.get_num_threads(),
        "home": home.resolve(),
        "home can be written": os.access(existing_folder, os.W_OK),
        "free at home": f"{shutil.disk_usage(existing_folder).free // MIB} MiB",
    }

    for name in ("data", "embeddings", "signals", "runs"):
        folder = recipe.paths.under_home(name)  # type: ignore[arg-type]
        entries = []
        if folder.is_dir():
            entries = sorted(child.name for child in folder.iterdir())
        facts[name] = ", ".join(entries[:MAX_NAMES_PER_FOLDER]) or "nothing yet"

    files = [path for path in hub.DEMO_WEIGHTS.rglob("*") if path.is_file()]
    weights_mib = sum(file.stat().st_size for file in files) / MIB
    facts["hub cache"] = HF_HUB_CACHE
    facts["hub token"] = hub.describe_token()
    facts["demo weights"] = f"{weights_mib:.1f} MiB"
    for library in OPTIONAL_LIBRARIES:
        version = library_version(library)
        if version == "absent":
            version = f"absent (pip install {library})"
        facts[library] = version

    # if several libraries are broken, the hint repairs the first
    return Result(
        home,
        (Table("This machine", ("item", "found"), tuple(facts.items())),),
        details=facts,
        hint=errors[0].hint if errors else Line("demo"),
        exit_code=MissingExtra.exit_code if errors else 0,
    )
