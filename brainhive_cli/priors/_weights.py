"""Weight files of a prior: found, read, and put into a module only if every shape fits."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from brainhive_cli.core import home, hub
from brainhive_cli.core.errors import BrainhiveError, MissingData


def find(reference: str) -> Path:
    """Find one file by path or hub reference (`hub:OWNER/NAME/FILE[@REVISION]`).

    Raises:
        MissingData: if it is not there.
    """
    path = home.located(reference)
    if reference.startswith("hub:"):
        folder, name = _on_hub(reference)
        path = hub.folder(folder, allow=[name]) / name
    if not path.is_file():
        raise MissingData(f"no file {reference}", "give a .safetensors file or hub:OWNER/NAME/FILE")
    return path


def bytes_to_fetch(reference: str) -> int:
    """Ask how large a file is that `find` would fetch; 0 for what is on this machine.

    Raises:
        MissingData: if there is no such file, or the hub cannot say.
    """
    if reference.startswith("hub:"):
        folder, name = _on_hub(reference)
        return hub.bytes_to_fetch(folder, (), (name,))
    find(reference)
    return 0


def is_here(reference: str) -> bool:
    """Whether `find` finds a file without a network."""
    if reference.startswith("hub:"):
        folder, name = _on_hub(reference)
        return hub.holds(folder, (), (name,))
    return home.located(reference).is_file()


def _on_hub(reference: str) -> tuple[str, str]:
    """Split a reference to a file into one to its folder, and its name."""
    address, _, revision = reference.partition("@")
    folder, _, name = address.rpartition("/")
    return f"{folder}@{revision}" if revision else folder, name


def read(file: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        MissingData: if it is cut short or no safetensors file.
    """
    try:
        return load_file(file)
    except SafetensorError as error:
        raise MissingData(f"{file} is damaged or half-downloaded: {error}", "download it again") from error


def read_config(file: Path) -> dict[str, Any]:
    """Read the config.json of a part.

    Raises:
        MissingData: if it is cut short or no JSON.
    """
    try:
        config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise MissingData(f"{file} is damaged or half-downloaded: {error}", "download it again") from error
    return config


def fill(module: nn.Module, state: dict[str, Tensor], file: Path) -> None:
    """Put a file's weights into a module; one on the meta device takes them as they are, dtype and all.

    Raises:
        BrainhiveError: if a weight is missing, surplus or of another shape; it names the first.
    """
    needed = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in state.items()}
    for key in sorted(needed.keys() | found.keys()):
        if needed.get(key) != found.get(key):
            raise BrainhiveError(
                f"{file}: {key} has shape {found.get(key, 'none')}, {needed.get(key, 'none')} is needed",
                "these weights are for another prior, or for another generator's U-Net",
            )
    module.load_state_dict(state, assign=next(module.parameters()).is_meta)
