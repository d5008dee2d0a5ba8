"""Data sets on the hub: their files with sizes, their licence, and downloads that can be resumed."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from brainhive_cli.core import hub


@dataclass(frozen=True)
class HubFile:
    """A file of a repository.

    Attributes:
        size: Bytes.
        is_there: Whether the folder holds it already.
    """

    name: str
    size: int
    is_there: bool


def files_of(repository: str, folder: Path) -> list[HubFile]:
    """List the files of a data set's repository, and which of them a folder already holds.

    Raises:
        MissingData: if the hub does not say, or does not have it, or its terms were not accepted.
    """
    with hub.quiet(), TemporaryDirectory() as empty:  # the hub's client would create the folder
        place = folder if folder.is_dir() else empty
        found = hub.snapshot(repository, repo_type="dataset", local_dir=place, dry_run=True)
    return [HubFile(each.filename, each.file_size or 0, not each.will_download) for each in found]


def licence_of(repository: str) -> str:
    """Read the licence that a repository's page names; empty if it names none."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    with suppress(HfHubHTTPError, OSError, ValueError, KeyError):
        card = HfApi().dataset_info(repository).card_data
        found = card.get("license") if card else None
        if found is None:
            return ""
        return ", ".join(map(str, found)) if isinstance(found, list) else str(found)
    return ""


def download(repository: str, folder: Path, names: Sequence[str]) -> None:
    """Fetch files into a folder; what is there stays, and what was interrupted is resumed.

    Raises:
        MissingData: if the hub cannot be reached.
    """
    patterns = [_escaped(name) for name in names]
    hub.snapshot(repository, repo_type="dataset", local_dir=folder, allow_patterns=patterns)


def _escaped(name: str) -> str:
    """Let a name with brackets or stars match itself, as a pattern of fnmatch."""
    return "".join(f"[{each}]" if each in "*?[" else each for each in name)
