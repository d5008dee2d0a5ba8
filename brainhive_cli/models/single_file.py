"""Single files of weights, by path or at the hub."""

from collections.abc import Sequence
from pathlib import Path

from brainhive_cli.core import hub
from brainhive_cli.core.errors import MissingData
from brainhive_cli.core.files import locate
from brainhive_cli.core.results import Need


def find(reference: str, local: bool = False) -> Path:
    """Find one file by path or hub reference (`hub:[datasets/]OWNER/NAME/FILE[@REVISION]`).

    Args:
        reference: The file.
        local: Use no network.

    Raises:
        MissingData: if it is not there.
    """
    path = locate(reference)
    if reference.startswith("hub:"):
        folder, name = _on_hub(reference)
        path = hub.folder(folder, allow=[name], local=local) / name
    if not path.is_file():
        raise MissingData(f"no file {reference}", "give a .safetensors file or hub:OWNER/NAME/FILE")
    return path


def folder_of(reference: str, names: Sequence[str]) -> Path:
    """Find the folder that a file lies in, with these files below it; MissingData if one is not there."""
    if reference.startswith("hub:"):
        folder = hub.folder(_on_hub(reference)[0], allow=names)
    else:
        folder = find(reference).parent
    for name in names:
        if not (folder / name).is_file():
            raise MissingData(f"{folder} has no {name}", f"it belongs next to {reference}")
    return folder


def need(reference: str) -> Need:
    """Look for a file that `find` would fetch; nothing is fetched."""
    if reference.startswith("hub:"):
        folder, name = _on_hub(reference)
        return hub.need(folder, (), (name,))
    return Need.of(reference, lambda: find(reference))


def _on_hub(reference: str) -> tuple[str, str]:
    """Split a reference to a file into one to its folder, and its name."""
    address, at, revision = reference.partition("@")
    folder, _, name = address.rpartition("/")
    return f"{folder}{at}{revision}", name
