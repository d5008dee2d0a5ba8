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

from brainhive_cli.core.base import MissingData
from brainhive_cli.core.files.damage import report_damage
from brainhive_cli.core.files.files import (
    atomic_write,
    require_free_space,
    resolve_below,
)

ZIP_SUFFIX = ".zip"
OPENERS: dict[str, Callable[..., Any]] = {
    ".gz": gzip.open,
    ".tgz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
}
"""Functions that open compressed files, keyed by the suffix of the file."""
CHUNK_BYTES = 2**20
"""Number of bytes that are read from a file at a time."""
FETCH_AGAIN_HINT = "delete it and fetch it again"
"""Hint for an archive that is damaged or cut short."""
Member = tuple[str, int, Callable[[], IO[bytes]]]
"""File in an archive: its name, its size in bytes, and a function that opens it."""


def verify_compressed(path: Path) -> None:
    """Read a compressed file to its end, where its checksum is compared.

    Args:
        path: File. Without a suffix of `OPENERS`, it is not read.

    Raises:
        MissingData: if the checksum differs, or the file is cut short.
    """
    open_compressed = OPENERS.get(path.suffix)
    if open_compressed is None:
        return
    with report_damage(path, FETCH_AGAIN_HINT), open_compressed(path, "rb") as file:
        while file.read(CHUNK_BYTES):
            pass


def find_archive_suffix(path: Path) -> str:
    """Return the suffix of an archive that `unpack` reads, or "" for another file."""
    if path.name.endswith(ZIP_SUFFIX):
        return ZIP_SUFFIX
    for suffix in (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"):
        if path.name.endswith(suffix):
            return suffix
    return ""


def choose_destination(path: Path, root: Path, prefixes: Sequence[str]) -> Path:
    """Choose the folder into which an archive is unpacked.

    Args:
        path: Archive.
        root: Folder of the data set.
        prefixes: Prefixes of names inside archives, such as "sub-" or "test_images/".

    Returns:
        The path of the archive without its suffix, if the archive lies directly in
        `root`, and the name of its first file has a prefix. Otherwise, its folder.
    """
    if path.parent != root:
        return path.parent

    with open_members(path) as members:
        first_member = next(members, None)
    first_name = first_member[0] if first_member else ""
    if not first_name.startswith(tuple(prefixes)):
        return root
    return path.with_name(path.name.removesuffix(find_archive_suffix(path)))


def unpack(path: Path, folder: Path, reserved: str = "") -> int:
    """Unpack an archive, except for files that exist already with the same content.

    Args:
        path: Archive, a zip or tar file.
        folder: Folder of the unpacked files.
        reserved: Name that no file may have.

    Returns:
        Number of files that were written.

    Raises:
        MissingData: if the archive is damaged or cut short. In a zip or uncompressed
            tar, files before the damage are already written.
        BrainhiveError: if the name of a file leads out of the folder, or the disk has
            too little space.
    """
    n_written = 0
    # check a compressed tar before any file is written
    verify_compressed(path)
    with open_members(path) as members:
        for name, size, open_member in members:
            # skip a file that an interrupted call has written, but not one of another
            # version of the archive
            target = resolve_below(folder, name, source=f"{path} holds a file that")
            if target.name == reserved:
                raise MissingData(
                    f"{path} holds {name}, which Brainhive writes itself",
                    "tell its owner, or fetch other files: --include 'PATTERN'",
                )
            if target.is_file() and target.stat().st_size == size:
                with open_member() as packed, target.open("rb") as unpacked:
                    if _are_equal(packed, unpacked):
                        continue

            require_free_space(folder, size, f"{name} of {path}", "free some space")
            with (
                atomic_write(target, is_lasting=False) as temporary,
                temporary.open("wb") as file,
            ):
                shutil.copyfileobj(open_member(), file, CHUNK_BYTES)
            n_written += 1
    return n_written


def _are_equal(first: IO[bytes], second: IO[bytes]) -> bool:
    """Return True if two files of equal size have the same content."""
    while block := first.read(CHUNK_BYTES):
        if block != second.read(len(block)):
            return False
    return True


@contextmanager
def open_members(path: Path) -> Iterator[Iterator[Member]]:
    """Open an archive, and iterate over its regular files.

    Args:
        path: Archive, a zip or tar file.

    Yields:
        An iterator for use inside the `with` block. Each item is the name of a file,
        its size in bytes, and a function that opens the file.

    Raises:
        MissingData: if the archive is damaged or cut short.
    """
    with report_damage(path, FETCH_AGAIN_HINT):
        if path.suffix == ZIP_SUFFIX:
            with ZipFile(path) as archive:
                yield _iterate_zip_files(archive)
        else:
            with tarfile.open(path) as tar:
                yield _iterate_tar_files(tar)


def _iterate_zip_files(archive: ZipFile) -> Iterator[Member]:
    """Yield the regular files of a zip. Reading a file compares its CRC32."""
    for info in list_zip_members(archive):
        # the type is 0 if the archive stores no Unix mode
        unix_type = info.external_attr >> 28
        # Value of the upper four bits of a Unix mode for a regular file.
        if not info.is_dir() and unix_type in (0, 8):
            name = info.filename.removeprefix("./")
            yield name, info.file_size, partial(archive.open, info)


def _iterate_tar_files(tar: tarfile.TarFile) -> Iterator[Member]:
    """Yield the regular files of a tar."""
    for member in _read_headers(tar):
        name = member.name.removeprefix("./")
        yield name, member.size, partial(_extract, tar, member)


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    """Open a file of a tar."""
    file = tar.extractfile(member)
    assert file is not None  # because the member is a regular file
    return file


def list_zip_members(archive: ZipFile) -> list[ZipInfo]:
    """List the members of a zip, and mark a CRC32 of 0 as unknown."""
    members = archive.infolist()
    for member in members:
        # torch writes 0 for the CRC32. `zipfile` does not compare None
        if member.CRC == 0:
            member.CRC = None  # type: ignore[assignment]
    return members


def list_tar_members(path: Path) -> Iterator[tuple[str, int, int]]:
    """List the files of a tar that is not compressed.

    Args:
        path: Tar.

    Yields:
        Name of a file, offset of its content in the tar in bytes, and size in bytes.

    Raises:
        TarError: if a header is damaged, or states an impossible size or type.
    """
    # the mode `r:` refuses a compressed tar, in which offsets would be wrong
    with tarfile.open(path, "r:") as tar:
        for member in _read_headers(tar):
            yield member.name, member.offset_data, member.size


def _read_headers(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the headers of the regular files in a tar, and refuse damaged headers.

    Raises:
        TarError: if a header is damaged, or of a sparse file.
    """
    # `tarfile` would read forever at a negative size
    for member in tar:
        is_known_type = member.type in tarfile.SUPPORTED_TYPES
        if member.size < 0 or member.issparse() or not is_known_type:
            raise tarfile.ReadError(
                f"a member of type {member.type!r} and {member.size} bytes"
            )
        if member.isfile():
            yield member
        # the list of all headers could fill the memory
        tar.members.clear()  # type: ignore[attr-defined]

    # `tarfile` also stops at a damaged header. At the true end, the next block is
    # missing or all zeros
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE).strip(tarfile.NUL):
        raise tarfile.ReadError(f"neither a file nor the end at byte {tar.offset}")


def read_bytes(file: IO[bytes], offset: int, size: int) -> bytes:
    """Read `size` bytes that begin at the byte `offset` of a file."""
    file.seek(offset)
    return file.read(size)
