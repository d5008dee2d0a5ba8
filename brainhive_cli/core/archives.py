"""Archives and compressed files: zip, tar, gzip, bzip2 and xz."""

import bz2
import gzip
import lzma
import shutil
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any
from zipfile import ZipFile, ZipInfo

from brainhive_cli.core.damage import reading
from brainhive_cli.core.files import atomic_write, require_free_space, resolve_below

ZIP = ".zip"
TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
OPENERS: dict[str, Callable[..., Any]] = {
    ".gz": gzip.open,
    ".tgz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
}
"""Functions that open a compressed file, by its ending."""
COPIED_BYTES = 2**20
"""Bytes of a file that are read at a time."""
AGAIN = "delete it and fetch it again"
Member = tuple[str, int, Callable[[], IO[bytes]]]
"""File in an archive: its name, its size, and the function that opens it."""


def verify_compressed(path: Path) -> None:
    """Read a compressed file to its end, where its checksum is compared; readers of its
    parts stop before.

    Raises:
        MissingData: if the checksum differs, or the file is cut short.
    """
    if opener := OPENERS.get(path.suffix):
        with reading(path, AGAIN), opener(path, "rb") as file:
            # decompressors compare the checksum when they reach the end of the stream
            while file.read(COPIED_BYTES):
                pass


def archive_ending(path: Path) -> str:
    """Return the ending by which a file is an archive that `unpack` reads; empty if it
    is none.
    """
    return next((ending for ending in (ZIP, *TAR) if path.name.endswith(ending)), "")


def choose_destination(path: Path, root: Path, tops: Sequence[str]) -> Path:
    """Choose the folder of an archive's files: the archive's folder, or one named after
    the archive.

    Args:
        path: The archive.
        root: The folder of the data set.
        tops: Beginnings of file names. Files so named at the top of an archive in
            `root` itself belong into a folder named after the archive.
    """
    if path.parent != root:
        return path.parent
    with open_members(path) as members:
        # the first file tells whether files lie at the top
        first = next((name for name, _, _ in members), "")
    if not tops or not first.startswith(tuple(tops)):
        return root
    return path.with_name(path.name.removesuffix(archive_ending(path)))


def unpack(path: Path, into: Path) -> int:
    """Unpack an archive. A file that is already there in its full size is kept.

    Returns:
        Number of files that were written.

    Raises:
        MissingData: if the archive is damaged or cut short. Files written before stay.
            A damaged compressed tar is refused before anything is written.
        BrainhiveError: if a name in it leads out of the folder, or the disk has no room
            for it.
    """
    # a damaged tar is refused before anything is written
    written = 0
    verify_compressed(path)
    with open_members(path) as members:
        for name, size, open_member in members:
            # members of an earlier, interrupted call stay
            target = resolve_below(into, name, source=f"{path} holds a file that")
            if target.is_file() and target.stat().st_size == size:
                continue
            require_free_space(into, size, f"{name} of {path}", "make room")
            with (
                atomic_write(target, is_lasting=False) as part,
                part.open("wb") as file,
            ):
                shutil.copyfileobj(open_member(), file, COPIED_BYTES)
            written += 1
    return written


@contextmanager
def open_members(path: Path) -> Iterator[Iterator[Member]]:
    """Open an archive and list its files, without folders, links and devices.

    Raises:
        MissingData: if it is damaged or cut short.
    """
    with reading(path, AGAIN):
        if path.suffix == ZIP:
            with ZipFile(path) as archive:
                # a member's CRC32 is verified when it is read
                # upper four bits of a Unix mode: 8 for a regular file, 0 where no mode
                # was written
                yield (
                    (
                        info.filename.removeprefix("./"),
                        info.file_size,
                        partial(archive.open, info),
                    )
                    for info in zip_members(archive)
                    if not info.is_dir() and info.external_attr >> 28 in (0, 8)
                )
        else:
            with tarfile.open(path) as tar:
                yield (
                    (
                        member.name.removeprefix("./"),
                        member.size,
                        partial(_extract, tar, member),
                    )
                    for member in _tar_files(tar)
                )


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    """Open a file of a tar."""
    file = tar.extractfile(member)
    assert file is not None  # as it is a file
    return file


def zip_members(archive: ZipFile) -> list[ZipInfo]:
    """List the members. One whose CRC32 is 0, as some tools and torch write it, is read
    without comparing it.
    """
    members = archive.infolist()
    for member in members:
        member.CRC = member.CRC or None  # type: ignore[assignment]  # which zipfile then does not compare
    return members


def tar_members(path: Path) -> Iterator[tuple[str, int, int]]:
    """Yield name, byte offset and size of each file in a tar that is not compressed.

    Raises:
        TarError: at the first header that is none, or that claims what cannot be.
    """
    # `r:` refuses compression, under which offsets are not those of the file
    with tarfile.open(path, "r:") as tar:
        for member in _tar_files(tar):
            yield member.name, member.offset_data, member.size


def _tar_files(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the files of a tar; tarfile alone would end at a damaged header, and never
    at a negative size.
    """
    for member in tar:
        if (
            member.size < 0
            or member.issparse()
            or member.type not in tarfile.SUPPORTED_TYPES
        ):
            raise tarfile.ReadError(
                f"a member of type {member.type!r} and {member.size} bytes"
            )
        if member.isfile():
            yield member
        tar.members.clear()  # type: ignore[attr-defined]  # or all headers stay in memory

    # what follows the last member is the end, or nothing, as some tools leave the end
    # out
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE).strip(tarfile.NUL):
        raise tarfile.ReadError(f"neither a file nor the end at byte {tar.offset}")


def read_at(file: IO[bytes], at: int, size: int) -> bytes:
    """Read bytes at an offset."""
    file.seek(at)
    return file.read(size)
