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
OPTIONAL = ("pyarrow", "braindecode")


class Recipe(BaseRecipe):
    """Recipe of doctor, which needs only paths and `run:`."""

    computes = False


def inputs(recipe: Recipe) -> list[Input]:
    """List nothing: it looks at what is there."""
    return []


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Check versions, libraries, device, folders, the hub's cache and the shipped
    weights.

    Where a library does not import, the exit code is that of a missing extra and the
    hint is the repair.
    """
    # libraries that are installed but do not import
    home = recipe.paths.under_home("data").parent
    broken = find_broken_libraries()
    for error in broken:
        console.warn(error.in_one_line)

    import torch
    from huggingface_hub.constants import HF_HUB_CACHE

    # versions, device and home; home can be written where the nearest folder above it
    # that exists can be
    existing = next(
        path for path in (home.resolve(), *home.resolve().parents) if path.exists()
    )
    facts: dict[str, Any] = {
        **library_versions(),
        "broken": "; ".join(error.message for error in broken) or "nothing",
        "device": launch.device_name,
        "GPUs": torch.cuda.device_count(),
        "bf16 on the GPU": torch.cuda.is_available() and torch.cuda.is_bf16_supported(),
        "Apple GPU (MPS)": "there, and not used"
        if torch.backends.mps.is_available()
        else "none",
        "system": platform.platform(),
        "CPU cores": os.cpu_count(),
        "CPU threads": torch.get_num_threads(),
        "home": home.resolve(),
        "home can be written": os.access(existing, os.W_OK),
        "free at home": f"{shutil.disk_usage(existing).free // MIB} MiB",
    }

    # the first entries of each folder
    for name in ("data", "embeddings", "signals", "runs"):
        path = recipe.paths.under_home(name)  # type: ignore[arg-type]
        entries = (
            sorted(child.name for child in path.iterdir()) if path.is_dir() else []
        )
        facts[name] = ", ".join(entries[:6]) or "nothing yet"

    # weights, and libraries that are not required
    size = sum(
        file.stat().st_size for file in hub.DEMO_WEIGHTS.rglob("*") if file.is_file()
    )
    facts |= {"hub cache": HF_HUB_CACHE, "demo weights": f"{size / MIB:.1f} MiB"}
    for library in OPTIONAL:
        facts[library] = library_version(library).replace(
            "absent", f"absent (pip install {library})"
        )

    # the first broken library decides hint and exit code
    table = Table("This machine", ("item", "found"), tuple(facts.items()))
    hint = broken[0].hint if broken else Line("demo")
    return Result(
        home,
        (table,),
        details=facts,
        hint=hint,
        exit_code=MissingExtra.exit_code * bool(broken),
    )
