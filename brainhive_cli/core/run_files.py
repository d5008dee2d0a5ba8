"""The files of a run, each of them read: documents, weights, checkpoints, pictures."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from brainhive_cli.core import documents, weights
from brainhive_cli.core.errors import BrainhiveError, first_line
from brainhive_cli.core.files import open_regular
from brainhive_cli.core.measurements import Measurements
from brainhive_cli.core.runs import FINISHED, FOUND, LARGEST


def check(folder: Path) -> tuple[dict[str, int], list[str]]:
    """Read every file of a run whose kind is known, and compare all that have a digest
    with it.

    Returns:
        The number of files of each kind, and what is wrong with each that is damaged,
        changed or missing.
    """
    # digests: what differs, is missing, or is in no list; a list may have been deleted
    listed = documents.read_digests(folder)
    counts = Counter[str]()
    # which compare the digest too
    problems = list(documents.find_changes(folder, exclude=READERS))
    if listed:
        # which recipes have found a run is written after it was finished
        unlisted = [
            folder / name
            for name in sorted({*documents.list_documents(folder)} - {FOUND, *listed})
        ]
        problems += [f"{path} is not in {documents.SHA256SUMS}" for path in unlisted]

    # files of known kinds are read to their end
    for path in documents.list_files(folder):
        if path.suffix not in READERS:
            continue
        kind, read = READERS[path.suffix]
        counts[kind] += 1
        try:
            read(path)
        except BrainhiveError as error:
            problems.append(error.message)
    return dict(counts), problems


def _read_document(path: Path) -> None:
    document = documents.read(path, dict[str, Any], max_bytes=LARGEST)
    if path.name == FINISHED:
        Measurements.read(document, path)


def _read_picture(path: Path) -> None:
    try:
        with open_regular(path) as file, Image.open(file) as picture:
            picture.verify()  # the CRC32 of each chunk
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BrainhiveError(
            f"{path} is no whole picture: {first_line(error)}"
        ) from error


READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    ".json": ("documents", _read_document),
    ".yaml": ("documents", _read_document),
    ".safetensors": ("weights", weights.verify),
    ".pt": ("checkpoints", weights.read_checkpoint),
    ".png": ("pictures", _read_picture),
}
"""Name of the files of a suffix, and their reader."""
