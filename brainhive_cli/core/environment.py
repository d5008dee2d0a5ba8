"""What a run is computed with: versions of libraries, commit, device, platform."""

import importlib
import importlib.metadata
import importlib.util
import platform
import subprocess
import sys
from pathlib import Path
from traceback import walk_tb
from typing import Any

from brainhive_cli import __version__
from brainhive_cli.core.errors import MissingExtra, first_line
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
    libraries = {library: version(library) for library in LIBRARIES}
    return {"python": platform.python_version(), "brainhive": __version__, **libraries}


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


PROBES = {
    "torchvision": "",
    "torchaudio": "",
    "transformers": "CLIPVisionModelWithProjection",
    "diffusers": "UNet2DConditionModel",
    "timm": "",
    "accelerate": "",
}
"""Library to the name that is imported from it as a test: two import lazily. Others import the first two."""


def broken_libraries() -> list[MissingExtra]:
    """Import every library that is installed; describe those that fail, each cause once.

    A library that is absent is not broken. Takes seconds where nothing is imported yet.
    """
    errors: dict[str, MissingExtra] = {}
    for name, probe in PROBES.items():
        if importlib.util.find_spec(name) is None:
            continue
        try:
            module = importlib.import_module(name)
            if probe:
                getattr(module, probe)
        except Exception as error:  # whatever its top level raises: ImportError, RuntimeError, OSError …
            described = failed_import(error) or _describe(name, error)
            errors.setdefault(described.message.partition(" ")[0], described)
    return list(errors.values())


def failed_import(error: BaseException | None) -> MissingExtra | None:
    """Describe the library whose import failed and thereby led to `error`; None if there is none."""
    if error is None:
        return None
    if earlier := failed_import(error.__cause__ or error.__context__):
        return earlier
    frames = [frame for frame, _ in walk_tb(error.__traceback__) if frame.f_code.co_name == "<module>"]
    packages = [str(frame.f_globals.get("__name__", "")).partition(".")[0] for frame in frames]
    importing = [name for name in packages if name in PROBES]
    return _describe(importing[-1], error) if importing else None


def _describe(name: str, error: BaseException) -> MissingExtra:
    problem = f"{name} {version(name)} does not import with torch {version('torch')}: {first_line(error)}"
    if name == "torchvision":
        return MissingExtra(problem, "pip install --force-reinstall torch torchvision")
    if name != "torchaudio":
        return MissingExtra(problem, f"pip install --upgrade {name}")
    if version("braindecode") == "absent":
        return MissingExtra(problem, "pip uninstall torchaudio (brainhive does not use it)")
    with_braindecode = "pip install 'brainhive[braindecode]'"
    return MissingExtra(
        problem, f"{with_braindecode} (or pip uninstall torchaudio, and do without braindecode)"
    )
