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

MIB = 2**20  # bytes
OPTIONAL_LIBRARIES = ("pyarrow", "braindecode")
MAX_NAMES_PER_FOLDER = 6


class Recipe(BaseRecipe):
    """Recipe of doctor, which needs only paths and `run:`."""

    can_share_work = False


def inputs(recipe: Recipe) -> list[Input]:
    """Return no inputs, because the command reads only the machine."""
    return []


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Describe versions, libraries, device, folders, hub cache and shipped weights.

    Args:
        recipe: Settings of the command.
        launch: Processes and device.
        again: Unused, because the machine is described every time.

    Returns:
        A table of facts. If a library cannot be imported, the exit code is the code of
        `MissingExtra` and the hint repairs the library.
    """
    # libraries that are installed but cannot be imported
    home = recipe.paths.under_home("data").parent
    errors = find_broken_libraries()
    for error in errors:
        console.warn(error.in_one_line)

    import torch
    from huggingface_hub.constants import HF_HUB_CACHE

    # home may not exist yet: its nearest existing parent decides if it can be written
    existing_folder = home.resolve()
    while not existing_folder.exists():
        existing_folder = existing_folder.parent
    has_bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    has_mps = torch.backends.mps.is_available()

    # versions, device and home
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

    # the first entries of each folder
    for name in ("data", "embeddings", "signals", "runs"):
        folder = recipe.paths.under_home(name)  # type: ignore[arg-type]
        entries = []
        if folder.is_dir():
            entries = sorted(child.name for child in folder.iterdir())
        facts[name] = ", ".join(entries[:MAX_NAMES_PER_FOLDER]) or "nothing yet"

    # weights, and libraries that are not required
    files = [path for path in hub.DEMO_WEIGHTS.rglob("*") if path.is_file()]
    weights_mib = sum(file.stat().st_size for file in files) / MIB
    facts["hub cache"] = HF_HUB_CACHE
    facts["demo weights"] = f"{weights_mib:.1f} MiB"
    for library in OPTIONAL_LIBRARIES:
        version = library_version(library)
        install_hint = f"absent (pip install {library})"
        facts[library] = version.replace("absent", install_hint)

    # the first broken library decides the hint
    return Result(
        home,
        (Table("This machine", ("item", "found"), tuple(facts.items())),),
        details=facts,
        hint=errors[0].hint if errors else Line("demo"),
        exit_code=MissingExtra.exit_code if errors else 0,
    )
