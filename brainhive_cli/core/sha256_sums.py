"""SHA256SUMS, which a finished run carries: the digests of its documents, as `sha256sum -c` reads them."""

import hashlib
import re
from collections.abc import Container, Iterator, Mapping
from functools import lru_cache
from pathlib import Path

from brainhive_cli.core.files import TRACKERS, atomic_write, open_regular, read_regular

NAME = "SHA256SUMS"
DOCUMENTS = {".json", ".yaml", ".csv", ".html"}
"""The files of a run that have a digest there; weights and stores carry their own."""
RUN = ("recipe.yaml", "metrics.json")
"""Files of a run, of which one must lie next to a list: a list elsewhere governs none of its documents."""
MAX_FOLDERS_ABOVE = 6
"""Folders above a document that may have the list: `run/cells/VARIANT/CELL/model/config.json` needs five."""
AGAIN = f"copy it again; if you changed it on purpose, delete {NAME}"
"""What to do about a document that differs from its digest."""
MAX_LIST_BYTES = 1 << 24
LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")


def write(folder: Path, listed: Mapping[str, str]) -> None:
    """Write digests by name as a folder's list, under the final name only when complete."""
    with atomic_write(folder / NAME) as part:
        part.write_text("".join(f"{listed[name]}  {name}\n" for name in sorted(listed)), encoding="utf-8")
    _parsed.cache_clear()


def digest_documents(folder: Path) -> dict[str, str]:
    """Digest all documents of a folder, by name."""
    return {name: digest(folder / name) for name in list_documents(folder)}


def forget(folder: Path, name: str) -> None:
    """Take a document, or those below a folder, off the list before it is written anew."""
    listed = read(folder)
    rest = {key: value for key, value in listed.items() if key != name and not key.startswith(f"{name}/")}
    if len(rest) < len(listed):
        write(folder, rest)


def problems(folder: Path, but: Container[str] = ()) -> Iterator[str]:
    """Compare all files of a list with it: yield what is wrong with each that is missing or differs.

    Args:
        folder: The folder that has the list.
        but: Names that are written again, or endings of which the content is checked elsewhere.
    """
    for name, recorded_digest in read(folder).items():
        path = folder / name
        if name in but:
            continue
        if not path.is_file():
            yield f"{path} is missing"
        elif path.suffix not in but and digest(path) != recorded_digest:
            yield changed(path)


def changed(path: Path) -> str:
    """Say that a file differs from its digest."""
    return f"{path} was changed or damaged: {NAME} has another digest of it"


def list_documents(folder: Path) -> Iterator[str]:
    """Name the documents below a folder that a list should have, in order."""
    for path in list_files(folder):
        if path.suffix in DOCUMENTS:
            yield path.relative_to(folder).as_posix()


def list_files(folder: Path) -> Iterator[Path]:
    """List the files of a run, in order."""
    for path in sorted(folder.rglob("*.*")):
        parts = path.relative_to(folder).parts
        is_hidden = any(part.startswith(".") for part in parts)  # locks and unfinished files
        if not is_hidden and not parts[0].startswith(TRACKERS) and path.is_file():
            yield path


def read(folder: Path) -> Mapping[str, str]:
    """Read a folder's list: digests by name; empty where there is none."""
    path = folder / NAME
    if not path.is_file() or (about := path.stat()).st_size > MAX_LIST_BYTES:
        return {}
    return _parsed(path.absolute(), about.st_mtime_ns, about.st_size)


def recorded(path: Path) -> str:
    """Look a file's digest up in the list of the folder that it is in, or of one above; empty if in none."""
    path = path.absolute()
    for above in path.parents[:MAX_FOLDERS_ABOVE]:
        listed = read(above)
        digest_of = listed.get(path.relative_to(above).as_posix(), "")
        if digest_of and any((above / name).is_file() for name in RUN):
            return digest_of
    return ""


def digest(path: Path) -> str:
    """Digest a file (hexadecimal)."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=64)
def _parsed(path: Path, mtime_ns: int, size: int) -> Mapping[str, str]:
    """Parse a list once for each time that it was changed; it is looked up for each document."""
    lines = read_regular(path, MAX_LIST_BYTES).decode("utf-8", "replace").splitlines()
    return {line[2]: line[1] for line in map(LINE.fullmatch, lines) if line}
