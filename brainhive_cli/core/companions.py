"""Libraries that are built for one version of PyTorch: whether they import, and how to repair them."""

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Iterator

from brainhive_cli.core.errors import MissingExtra, first_line

PROBES = {
    "torchvision": "",
    "torchaudio": "",
    "transformers": "CLIPVisionModelWithProjection",
    "diffusers": "UNet2DConditionModel",
    "timm": "",
    "accelerate": "",
}
"""Library to the name that is imported from it as a test: two import lazily. Others import the first two."""


def broken() -> list[MissingExtra]:
    """Import every library that is installed; describe those that fail, each cause once.

    A library that is absent is not broken. Takes seconds where nothing is imported yet.
    """
    found: dict[str, MissingExtra] = {}
    for name in PROBES:
        if importlib.util.find_spec(name) is None:
            continue
        try:
            module = importlib.import_module(name)
            if PROBES[name]:
                getattr(module, PROBES[name])
        except Exception as error:  # whatever its top level raises: ImportError, RuntimeError, OSError …
            described = behind(error) or _describe(name, error)
            found.setdefault(described.message.partition(" ")[0], described)
    return list(found.values())


def behind(error: Exception) -> MissingExtra | None:
    """Describe the library whose import failed and thereby led to `error`; None if there is none."""
    for cause in reversed(list(_causes(error))):
        importing = [name for name in _importing(cause) if name in PROBES]
        if importing:
            return _describe(importing[-1], cause)
    return None


def _causes(error: Exception | None) -> Iterator[Exception]:
    while error is not None:
        yield error
        before = error.__cause__ or error.__context__
        error = before if isinstance(before, Exception) else None


def _importing(error: Exception) -> Iterator[str]:
    """Name the package of every module that was being imported when `error` was raised, outermost first."""
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_name == "<module>":
            yield str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
        trace = trace.tb_next


def _describe(name: str, error: Exception) -> MissingExtra:
    what = f"{name} {_version(name)} does not import with torch {_version('torch')}: {first_line(error)}"
    return MissingExtra(what, _repair(name))


def _repair(name: str) -> str:
    if name == "torchvision":
        return "pip install --force-reinstall torch torchvision"
    if name != "torchaudio":
        return f"pip install --upgrade {name}"
    if _version("braindecode") == "absent":
        return "pip uninstall torchaudio (brainhive does not use it)"
    return "pip install 'brainhive[braindecode]' (or pip uninstall torchaudio, and do without braindecode)"


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"
