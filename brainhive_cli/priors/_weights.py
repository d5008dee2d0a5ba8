"""Weight files of a prior: found, read, and put into a module only if every shape fits."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from brainhive_cli.core import home, hub
from brainhive_cli.core.errors import BrainhiveError, MissingData


def find(reference: str, local: bool = False) -> Path:
    """Find one file by path or hub reference (`hub:OWNER/NAME/FILE[@REVISION]`).

    Args:
        reference: The file.
        local: Use no network.

    Raises:
        MissingData: if it is not there.
    """
    path = home.located(reference)
    if reference.startswith("hub:"):
        folder, name = _on_hub(reference)
        path = hub.folder(folder, allow=[name], local=local) / name
    if not path.is_file():
        raise MissingData(f"no file {reference}", "give a .safetensors file or hub:OWNER/NAME/FILE")
    return path


def bytes_to_fetch(reference: str) -> int:
    """Return the size of a file that `find` would fetch; 0 for what is on this machine."""
    if reference.startswith("hub:"):
        folder, name = _on_hub(reference)
        return hub.bytes_to_fetch(folder, (), (name,))
    find(reference)
    return 0


def _on_hub(reference: str) -> tuple[str, str]:
    """Split a reference to a file into one to its folder, and its name."""
    address, at, revision = reference.partition("@")
    folder, _, name = address.rpartition("/")
    return f"{folder}{at}{revision}", name


def read(file: Path) -> Any:
    """Read a safetensors or JSON file; MissingData if it is cut short."""
    try:
        return json.loads(file.read_text("utf-8")) if file.suffix == ".json" else load_file(file)
    except (SafetensorError, ValueError) as error:
        raise MissingData(f"{file} is damaged or half-downloaded: {error}", "download it again") from error


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
