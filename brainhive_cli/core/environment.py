"""What a run is computed with: versions of libraries, commit, device, platform."""

import importlib.metadata
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from brainhive_cli import __version__
from brainhive_cli.core.launch import Launch

LIBRARIES = ("torch", "diffusers", "transformers", "timm", "accelerate", "h5py", "numpy", "safetensors")


def version(library: str) -> str:
    """Return the version of an installed library, or "absent"."""
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def versions() -> dict[str, str]:
    """Return the versions of the libraries that numbers depend on."""
    found = {library: version(library) for library in LIBRARIES}
    return {"python": platform.python_version(), "brainhive": __version__, **found}


def describe(launch: Launch) -> dict[str, Any]:
    """Describe this process's environment, for a run's `environment.json`."""
    return {
        "command_line": ["brainhive", *sys.argv[1:]],
        "versions": versions(),
        "commit": _commit(),
        "device": launch.device_name,
        "processes": launch.processes,
        "platform": platform.platform(),
    }


def _commit() -> str:
    """Return the commit of the checkout that this package runs from; empty for an installed wheel."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=False).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""
