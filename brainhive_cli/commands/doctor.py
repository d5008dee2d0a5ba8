"""doctor: versions, extras, devices, folders and weights, and whether commands run."""

import importlib.metadata
import os
import platform
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from packaging.requirements import Requirement

from brainhive_cli.core import console, hub
from brainhive_cli.core.command import Input, Result
from brainhive_cli.core.errors import (
    BrainhiveError,
    Line,
    MissingData,
    MissingExtra,
    install_line,
)
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
PACKAGE = "brainhive"
MIN_FREE_MIB = 1024
"""Free disk space that the demo and a study on simulated data need, with a reserve."""
MAX_NAMES_PER_FOLDER = 6
"""Largest number of file names that are listed for a folder."""


class Libraries(NamedTuple):
    """Libraries that the package states as its dependencies.

    Attributes:
        lacking: Required libraries that are absent or of another version.
        extras: State of each extra, a group of optional libraries, by name.
    """

    lacking: list[str]
    extras: dict[str, str]


class Recipe(BaseRecipe):
    """Recipe of doctor. It has only the sections `paths` and `run` of all recipes."""

    can_share_work = False


def inputs(recipe: Recipe) -> list[Input]:
    """Return no inputs, because the command needs no files."""
    return []


def check_libraries() -> Libraries:
    """Compare the installed libraries with the metadata of the package.

    Returns:
        The result. It is empty if the package was not installed by pip, because then
        there is no metadata.
    """
    try:
        metadata = importlib.metadata.metadata(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return Libraries([], {})
    texts = importlib.metadata.requires(PACKAGE) or []
    requirements = [Requirement(text) for text in texts]

    lacking = _list_lacking(requirements, "")
    extras = {}
    for extra in sorted(metadata.get_all("Provides-Extra") or []):
        lacking_of_extra = _list_lacking(requirements, extra)
        state = "installed"
        if lacking_of_extra:
            names = ", ".join(lacking_of_extra)
            state = f"lacks {names}: {install_line(extra)}"
        extras[extra] = state
    return Libraries(lacking, extras)


def _list_lacking(requirements: list[Requirement], extra: str) -> list[str]:
    """List the libraries that are absent or have another version than is required.

    Args:
        requirements: Requirements of the package and its extras.
        extra: Extra whose libraries are checked, or "" for the required libraries.
    """
    names = []
    for requirement in requirements:
        marker = requirement.marker
        is_always_required = marker is None or marker.evaluate({"extra": ""})
        if extra:
            # a library of an extra is required by the extra alone
            is_checked = bool(marker and marker.evaluate({"extra": extra}))
            is_checked = is_checked and not is_always_required
        else:
            is_checked = is_always_required
        if not is_checked:
            continue

        version = library_version(requirement.name)
        if version == "absent":
            names.append(requirement.name)
        elif not requirement.specifier.contains(version, prereleases=True):
            names.append(f"{requirement.name} {version} is not {requirement.specifier}")
    return names


def judge_machine(
    lacking: list[str],
    broken: list[MissingExtra],
    home: Path,
    is_writable: bool,
    free_mib: int,
    device_name: str,
) -> tuple[str, BrainhiveError | None]:
    """Say in one sentence whether this machine can run the standard commands.

    Args:
        lacking: Required libraries that are absent or of another version.
        broken: Errors of installed libraries that cannot be imported.
        home: Folder of data, stores and runs.
        is_writable: True if files can be written there.
        free_mib: Free disk space there, in MiB.
        device_name: Name of the GPU, or "cpu".

    Returns:
        The sentence, and the first error that prevents the commands, or None.
    """
    error: BrainhiveError | None = None
    if broken:
        error = broken[0]
    elif lacking:
        names = ", ".join(lacking)
        error = MissingExtra(f"required libraries are missing: {names}", install_line())
    elif not is_writable:
        error = MissingData(
            f"{home} cannot be written", "set BRAINHIVE_HOME to a folder of your own"
        )
    elif free_mib < MIN_FREE_MIB:
        error = MissingData(
            f"{home} has {free_mib} MiB of free space, less than {MIN_FREE_MIB} MiB",
            "free some space, or set BRAINHIVE_HOME to a folder on another disk",
        )
    if error:
        sentence = f"This machine cannot run the standard commands: {error.message}."
        return sentence, error

    commands = "prepare, embed, train-align and eval-retrieval"
    if device_name == "cpu":
        return (
            f"This machine can run {commands}, but without a GPU that torch can use. "
            "For published data sets and for reconstruct, use a machine with an NVIDIA "
            "GPU.",
            None,
        )
    return f"This machine can run all standard commands on its {device_name}.", None


def run(recipe: Recipe, launch: Launch, force: bool = False) -> Result:
    """Describe this machine: versions, devices, folders and downloaded weights.

    Args:
        recipe: Settings of the command.
        launch: Processes and device.
        force: Not used, because the machine is always described.

    Returns:
        A table of facts, which ends in a verdict. The exit code is not 0 if this
        machine cannot run the standard commands.
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

    is_writable = os.access(existing_folder, os.W_OK)
    free_mib = shutil.disk_usage(existing_folder).free // MIB
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
        "home can be written": is_writable,
        "free at home": f"{free_mib} MiB",
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

    libraries = check_libraries()
    for extra, state in libraries.extras.items():
        facts[f"extra {extra}"] = state
    facts["verdict"], problem = judge_machine(
        lacking=libraries.lacking,
        broken=errors,
        home=home.resolve(),
        is_writable=is_writable,
        free_mib=free_mib,
        device_name=launch.device_name,
    )
    return Result(
        home,
        (Table("This machine", ("item", "found"), tuple(facts.items())),),
        details=facts,
        hint=problem.hint if problem else Line("demo"),
        exit_code=problem.exit_code if problem else 0,
    )
