"""The table of THINGS-EEG2's pictures, image_metadata.npy, whose order numbers them."""

from collections.abc import Mapping
from pathlib import Path

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.stores import pickles

METADATA = "image_metadata.npy"
FOLDERS = {"train": "training_images", "test": "test_images"}
"""Where the pictures of a split lie, as their ids have it."""


def image_ids(path: Path, source: str) -> dict[str, list[str]]:
    """Read the ids of the pictures of each split, in the order of their numbers.

    Args:
        path: The table.
        source: Where it is had.

    Raises:
        BrainhiveError: if it is no such table.
    """
    table, found = pickles.load(path), {}
    for split, folder in FOLDERS.items():
        keys = [f"{split}_img_{what}" for what in ("concepts", "files")]
        if not isinstance(table, Mapping) or any(key not in table for key in keys):
            raise BrainhiveError(f"{path} has no {' and '.join(keys)}", source)
        columns = [[*map(str, table[key])] for key in keys]
        if len(columns[0]) != len(columns[1]):
            raise BrainhiveError(f"{path}: {' and '.join(keys)} have different lengths", source)
        found[split] = [
            f"{folder}/{concept}/{Path(file).stem}" for concept, file in zip(*columns, strict=True)
        ]
    return found
