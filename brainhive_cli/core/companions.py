"""Libraries that are built for one version of PyTorch: whether they import, and how to repair them."""

import importlib
import importlib.util
from traceback import walk_tb

from brainhive_cli.core.environment import version
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
    for name, probe in PROBES.items():
        if importlib.util.find_spec(name) is None:
            continue
        try:
            module = importlib.import_module(name)
            if probe:
                getattr(module, probe)
        except Exception as error:  # whatever its top level raises: ImportError, RuntimeError, OSError …
            described = behind(error) or _describe(name, error)
            found.setdefault(described.message.partition(" ")[0], described)
    return list(found.values())


def behind(error: BaseException | None) -> MissingExtra | None:
    """Describe the library whose import failed and thereby led to `error`; None if there is none."""
    if error is None:
        return None
    if earlier := behind(error.__cause__ or error.__context__):
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
