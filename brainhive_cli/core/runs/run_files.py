"""Check of the files of a run for damage and changes."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from brainhive_cli.core.base import BrainhiveError, first_line
from brainhive_cli.core.files import documents, open_regular
from brainhive_cli.core.results import Measurements
from brainhive_cli.core.runs import weights
from brainhive_cli.core.runs.run_folder import (
    MAX_DOCUMENT_BYTES,
    METRICS_FILE,
    REUSES_FILE,
)


def check(folder: Path) -> tuple[dict[str, int], list[str]]:
    """Read all files of a run, and compare them with their digests (SHA-256).

    Args:
        folder: Folder of the run.

    Returns:
        Number of files of each kind, such as "documents", and a message for each file
        that is damaged, changed, missing or not listed in `SHA256SUMS`.
    """
    # the readers compare the digests of files with a suffix in `readers`
    digests = documents.read_digests(folder)
    # Kind and reader by suffix of a file. A reader raises a BrainhiveError if the
    # file is damaged.
    readers: dict[str, tuple[str, Callable[[Path], Any]]] = {
        ".json": ("documents", _read_document),
        ".yaml": ("documents", _read_document),
        ".safetensors": ("weights", weights.verify),
        ".pt": ("checkpoints", weights.read_checkpoint),
        ".png": ("pictures", _read_picture),
    }
    problems = list(documents.find_changes(folder, exclude=readers))

    # documents without a digest
    if digests:
        # the record of reuses may change after the end of the run
        names = set(documents.list_documents(folder)) - set(digests) - {REUSES_FILE}
        for name in sorted(names):
            problems.append(f"{folder / name} is not in {documents.SHA256SUMS}")

    counts = Counter[str]()
    for path in documents.list_files(folder):
        if path.suffix not in readers:
            continue
        kind, read_file = readers[path.suffix]
        counts[kind] += 1
        try:
            read_file(path)
        except BrainhiveError as error:
            problems.append(error.message)
    return dict(counts), problems


def _read_document(path: Path) -> None:
    """Raise a BrainhiveError if a JSON or YAML document is damaged or was changed."""
    document = documents.read(path, dict[str, Any], max_bytes=MAX_DOCUMENT_BYTES)
    if path.name == METRICS_FILE:
        Measurements.from_document(document, path)


def _read_picture(path: Path) -> None:
    """Raise a BrainhiveError if a PNG picture is damaged."""
    try:
        with open_regular(path) as file, Image.open(file) as picture:
            picture.verify()  # checks the CRC32 of each chunk
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BrainhiveError(
            f"{path} is not a complete picture: {first_line(error)}"
        ) from error
