"""Sources of each data set, its terms, and its files on the hub, whose downloads can be
resumed.
"""

import hashlib
import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from glob import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal
from urllib.request import urlopen

from brainhive_cli.core import documents, hub
from brainhive_cli.core.errors import MissingData
from brainhive_cli.core.files import atomic_write

TIMEOUT_S = 60
"""Seconds without an answer after which a server counts as unreachable."""


@dataclass(frozen=True)
class Repository:
    """Source of files.

    Attributes:
        name: owner/name.
        kind: What the hub takes it for.
        patterns: Of the files that are wanted; all when None.
    """

    name: str
    kind: Literal["dataset", "model"] = "dataset"
    patterns: tuple[str, ...] | None = None


@dataclass(frozen=True)
class RemoteFile:
    """A file that a data set is fetched from: of a repository of the hub, or of a web
    server.

    Attributes:
        name: Its name in the folder of the data set.
        size: Bytes.
        repository: Where the hub has it.
        is_there: Whether the folder holds it already.
        url: Address on a web server, with the commit where it is of a repository.
        sha256: Digest of its content, which is known of a web server's files.
    """

    name: str
    size: int
    repository: Repository | None = None
    is_there: bool = False
    url: str = ""
    sha256: str = ""


def look_for(file: RemoteFile, folder: Path) -> RemoteFile:
    """Say of a web server's file whether a folder holds it, whole and unchanged."""
    path = folder / file.name
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
    return replace(file, is_there=digest == file.sha256)


def list_files(repository: Repository, folder: Path) -> list[RemoteFile]:
    """List the files of a repository, and which of them a folder already holds.

    Raises:
        MissingData: if the hub does not say, or does not have it, or its terms were not
            accepted.
    """
    # the hub's client would create the folder
    with hub.quiet(), TemporaryDirectory() as empty:
        # a dry run lists sizes, and compares with what the folder holds
        options = {"allow_patterns": repository.patterns, "dry_run": True}
        try:
            known = folder if folder.is_dir() else empty
            listed = hub.snapshot(
                repository.name, repository.kind, local_dir=known, **options
            )
        except hub.Unreachable as error:
            words = repository.name, repository.kind, repository.patterns or ()
            line = hub.download_line(*words, "--local-dir", str(folder))
            raise hub.Unreachable(
                error.message, f"on a machine with a network: {line}"
            ) from error
    return [
        RemoteFile(f.filename, f.file_size or 0, repository, not f.will_download)
        for f in listed
    ]


def read_licence(repository: Repository) -> str:
    """Read the licence that a repository's page names; empty if it names none."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    # a licence is information only, so an unreachable hub is no error
    with suppress(HfHubHTTPError, OSError, ValueError, KeyError):
        card = getattr(
            HfApi().repo_info(repository.name, repo_type=repository.kind),
            "card_data",
            None,
        )
        licence = (card.get("license") if card else None) or ""
        return (
            ", ".join(map(str, licence)) if isinstance(licence, list) else str(licence)
        )
    return ""


def download_files(files: Sequence[RemoteFile], folder: Path) -> None:
    """Fetch files into a folder; what is there stays, and what was interrupted is
    resumed.

    Raises:
        MissingData: if the hub or the server cannot be reached, or the server has
            another content.
    """
    # one request a repository, for the files that are listed
    for repository in dict.fromkeys(file.repository for file in files):
        listed = [file for file in files if file.repository == repository]
        if repository is not None:
            # file names may hold characters that patterns read as wildcards
            patterns = [escape(file.name) for file in listed]
            kind = repository.kind
            hub.snapshot(
                repository.name,
                repo_type=kind,
                local_dir=folder,
                allow_patterns=patterns,
            )
            continue

        for file in listed:
            path = folder / file.name
            line = f"curl -L --create-dirs -o {shlex.quote(str(path))} {file.url}"
            with atomic_write(path) as part:
                try:
                    with urlopen(file.url, timeout=TIMEOUT_S) as answer:
                        # a server may send without end
                        content = answer.read(file.size + 1)
                except OSError as error:  # urllib's errors are such
                    problem = (
                        f"{file.url} cannot be fetched: "
                        f"{getattr(error, 'reason', error)}"
                    )
                    raise MissingData(
                        problem, f"on a machine with a network: {line}"
                    ) from error
                # the content is known, so anything else that a server sends is refused
                if hashlib.sha256(content).hexdigest() != file.sha256:
                    problem = (
                        f"{file.url} gave {len(content):,} bytes that are not the "
                        f"known {file.size:,}"
                    )
                    raise MissingData(problem, f"fetch it again, or by hand: {line}")
                part.write_bytes(content)


@dataclass(frozen=True)
class Source:
    """Sources of a data set.

    Attributes:
        repository: Of the hub; empty where the hub does not have it.
        further: Others of the hub whose files lie in the same folder.
        terms: Where its licence, or agreement, stands.
        steps: What people do themselves, in order; `{root}` is the folder of the data
            set, `{subjects}` those whose recordings they want.
        elsewhere: Where else it is, or more of it.
        tops: How files at the top of an archive of the first folder begin, if they
            belong into a folder of the archive's name.
        subjects: All subjects, where steps name them.
        web: Files of a web server, where the hub does not have it.
        known: Size and licence, as far as they are known without a network.
        model_licence: Licence, by the hub's list, that brain models of its recordings
            may have; empty where nothing that was read here says that such models may
            be shared.
    """

    repository: str = ""
    further: tuple[Repository, ...] = ()
    terms: str = ""
    steps: tuple[str, ...] = ()
    elsewhere: str = ""
    tops: tuple[str, ...] = ()
    subjects: tuple[int, ...] = ()
    web: tuple[RemoteFile, ...] = ()
    known: str = ""
    model_licence: str = ""

    @property
    def about(self) -> str:
        """Size and licence as far as they are known without a network, and where the
        terms stand.
        """
        return "; ".join(filter(None, [self.known, f"terms: {self.terms}"]))


SOURCES = documents.read(Path(__file__).with_name("sources.yaml"), dict[str, Source])
"""By the kind of the data set."""


def is_of_subjects(
    name: str, subjects: Mapping[int, object] | list[int] | None
) -> bool:
    """Whether a file belongs to one of the subjects, or to all."""
    match = re.search(r"sub(?:ject|j)?[-_]?(\d+)", name)
    return subjects is None or match is None or int(match[1]) in subjects
