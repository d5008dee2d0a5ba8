"""Archives unpacked member by member: what is there stays, and no name leads out of the folder."""

import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from brainhive_cli.core import zip_members
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.file_names import below
from brainhive_cli.data.stores.damage import described
from brainhive_cli.data.stores.tar_members import OPENS, TAR, ZIP, members

AGAIN = "delete it and fetch it again"


def is_archive(path: Path) -> bool:
    """Whether a file is called like an archive that `unpack` reads."""
    return path.name.endswith((ZIP, *TAR))


def destination(path: Path, root: Path, tops: Sequence[str]) -> Path:
    """Return the folder of an archive's files: its own, or one of its name.

    Args:
        path: The archive.
        root: The folder of the data set.
        tops: How files begin that belong into a folder of the archive's name, where they are at the top of an
            archive that lies in `root` itself.
    """
    if path.parent != root:
        return path.parent
    with _opened(path) as listed:
        first = next((name for name, _, _ in listed if name), "")
    ending = next(each for each in (ZIP, *TAR) if path.name.endswith(each))
    is_top = first.removeprefix("./").startswith(tuple(tops)) if tops else False
    return path.with_name(path.name.removesuffix(ending)) if is_top else root


def bytes_to_write(path: Path, into: Path) -> int:
    """Count the bytes that `unpack` would write; 0 for a compressed tar, which has no list of its members."""
    if not path.name.endswith((ZIP, ".tar")):
        return 0
    with _opened(path) as listed:
        return sum(size for name, size, _ in listed if name and not _is_unpacked(into / name, size))


def _is_unpacked(place: Path, size: int) -> bool:
    return place.is_file() and place.stat().st_size == size


def unpack(path: Path, into: Path) -> int:
    """Unpack an archive; a member that is there in its size is left as it is.

    Returns:
        How many files were written.

    Raises:
        MissingData: if the archive is damaged or cut short; what was written before stays.
        BrainhiveError: if a name in it leads out of the folder, or the disk has no room for it.
    """
    written = 0
    with _opened(path) as listed:
        for name, size, read in listed:
            if not name:
                continue
            place = below(into, name.removeprefix("./"), source=f"{path} holds a file that")
            if _is_unpacked(place, size):
                continue
            if (free := shutil.disk_usage(path.parent).free) < size:
                raise BrainhiveError(
                    f"no room for {name} of {path}: {size:,} bytes, {free:,} are free", "make room"
                )
            place.parent.mkdir(parents=True, exist_ok=True)
            part = place.with_name(f".{place.name}.part")
            with part.open("wb") as file:
                read(file)
            if part.stat().st_size != size:
                raise MissingData(f"{path} is damaged or cut short: {name}", AGAIN)
            os.replace(part, place)  # not `publish`, whose 6 ms are minutes for pictures of a data set
            written += 1
    return written


Member = tuple[str, int, Callable[[IO[bytes]], Any]]
"""A file in an archive: its name, size, and what copies it into an open file. Folders have no name."""


@contextmanager
def _opened(path: Path) -> Iterator[Iterator[Member]]:
    with described(path, AGAIN), (_zip if path.suffix == ZIP else _tar)(path) as found:
        yield found


@contextmanager
def _zip(path: Path) -> Iterator[Iterator[Member]]:
    with zipfile.ZipFile(path) as archive:

        def listed() -> Iterator[Member]:
            for info in zip_members.members(archive):
                is_file = not info.is_dir() and (info.external_attr >> 28) in (0, 8)  # no links

                def copy(file: IO[bytes], info: zipfile.ZipInfo = info) -> None:
                    with archive.open(info) as source:  # which checks its CRC32
                        shutil.copyfileobj(source, file, 2**20)

                yield info.filename if is_file else "", info.file_size, copy

        yield listed()


@contextmanager
def _tar(path: Path) -> Iterator[Iterator[Member]]:
    with OPENS.get(path.suffix, open)(path, "rb") as archive:

        def listed() -> Iterator[Member]:
            for name, start, size in members(archive):

                def copy(file: IO[bytes], start: int = start, size: int = size) -> None:
                    archive.seek(start)
                    while size > 0:
                        if not (block := archive.read(min(size, 2**20))):
                            raise tarfile.ReadError("its end is missing")
                        file.write(block)
                        size -= len(block)

                yield name, size, copy

        yield listed()
