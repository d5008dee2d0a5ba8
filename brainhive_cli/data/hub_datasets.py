"""Repositories of data sets on the hub: files with sizes, licence, and downloads that can be resumed."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from brainhive_cli.core import hub


@dataclass(frozen=True)
class Repository:
    """Where files are.

    Attributes:
        name: owner/name.
        kind: What the hub takes it for.
        patterns: Of the files that are wanted; all when None.
    """

    name: str
    kind: Literal["dataset", "model"] = "dataset"
    patterns: tuple[str, ...] | None = None


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
    repository: Repository


def files_of(repository: Repository, folder: Path) -> list[HubFile]:
    """List the files of a repository, and which of them a folder already holds.

    Raises:
        MissingData: if the hub does not say, or does not have it, or its terms were not accepted.
    """
    with hub.quiet(), TemporaryDirectory() as empty:  # the hub's client would create the folder
        options = {"allow_patterns": repository.patterns, "dry_run": True}
        try:
            place = folder if folder.is_dir() else empty
            found = hub.snapshot(repository.name, repository.kind, local_dir=place, **options)
        except hub.Unreachable as error:
            words = repository.name, repository.kind, repository.patterns or ()
            line = hub.download_line(*words, "--local-dir", str(folder))
            raise hub.Unreachable(error.message, f"on a machine with a network: {line}") from error
    return [HubFile(each.filename, each.file_size or 0, not each.will_download, repository) for each in found]


def licence_of(repository: Repository) -> str:
    """Read the licence that a repository's page names; empty if it names none."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    with suppress(HfHubHTTPError, OSError, ValueError, KeyError):
        card = getattr(HfApi().repo_info(repository.name, repo_type=repository.kind), "card_data", None)
        found = card.get("license") if card else None
        if found is None:
            return ""
        return ", ".join(map(str, found)) if isinstance(found, list) else str(found)
    return ""


def download(files: Sequence[HubFile], folder: Path) -> None:
    """Fetch files into a folder; what is there stays, and what was interrupted is resumed.

    Raises:
        MissingData: if the hub cannot be reached.
    """
    for repository in dict.fromkeys(file.repository for file in files):
        patterns = [_escaped(file.name) for file in files if file.repository == repository]
        hub.snapshot(repository.name, repo_type=repository.kind, local_dir=folder, allow_patterns=patterns)


def _escaped(name: str) -> str:
    """Let a name with brackets or stars match itself, as a pattern of fnmatch."""
    return "".join(f"[{each}]" if each in "*?[" else each for each in name)
