"""Files that may be anyone's, cut short, scrambled or hostile: errors of reading them;
archives, unpacked.

Errors of the machine (disk, permissions, memory, GPU) are distinct from those of what a
file holds.
"""

import bz2
import csv
import errno
import gzip
import lzma
import os
import pickle
import re
import shutil
import struct
import tarfile
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any
from xml.parsers.expat import ExpatError
from zipfile import ZipFile, ZipInfo

from brainhive_cli.core.errors import (
    BrainhiveError,
    MissingData,
    MissingExtra,
    first_line,
    install_line,
    system_error_number,
)
from brainhive_cli.core.files import (
    UnfitFile,
    atomic_write,
    below,
    require_regular,
    require_room,
)

RAISED = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    struct.error,
    zlib.error,
    csv.Error,
    tarfile.TarError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    ExpatError,
)
"""Exceptions of h5py, zipfile, tarfile, pyarrow, PIL, NumPy, torch and our own checks
for such files.
"""
MAX_INFLATION, NEVER_INFLATED_BYTES = 100, 2**28
"""Arrays that take more than so many times the bytes of their file, and more than 256
MiB, are refused: no measured or learned numbers compress so well.
"""
ZIP = ".zip"
TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
OPENERS: dict[str, Callable[..., Any]] = {
    ".gz": gzip.open,
    ".tgz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
}
"""What reads a compressed file, by its ending."""
COPIED_BYTES = 2**20
"""Read of a file at a time."""
AGAIN = "delete it and fetch it again"
Member = tuple[str, int, Callable[[], IO[bytes]]]
"""A file in an archive: its name, its size, and what opens it."""


@contextmanager
def reading(
    path: Path,
    way_out: str,
    error: type[BrainhiveError] = MissingData,
    raised: tuple[type[Exception], ...] = RAISED,
) -> Iterator[None]:
    """Turn whatever reading a file raises, until the block ends, into one error; the
    block should do no more.

    Args:
        path: The file.
        way_out: One line on how to get a sound one.
        error: What is raised instead.
        raised: What the reader raises; `(Exception,)` of a library with exceptions of
            its own, as nibabel.
    """
    try:
        # a pipe or device would be waited on for ever
        if os.path.lexists(path) and not path.is_dir():
            require_regular(path)
        yield
    except UnfitFile as reason:
        raise error(reason.message, way_out) from reason
    except raised as reason:
        if isinstance(reason, BrainhiveError) or is_of_the_machine(reason):
            raise

        # the reason in one line: what the system, or the innermost library, says
        problem = getattr(reason, "strerror", None) or first_line(reason).rsplit(
            "(", 1
        )[-1].rstrip(")")
        # a KeyError says no more than the key
        problem = f"it has no {problem}" if isinstance(reason, KeyError) else problem
        raise error(f"{path} is damaged or cut short: {problem}", way_out) from reason


def refuse_inflation(size: int, stored: int, name: str) -> None:
    """Refuse what would take far more memory than it has bytes in a file, before
    anything is allocated.

    Args:
        size: Bytes that it would take.
        stored: Bytes of the file, or of the part of it that it is read from.
        name: What it is called.

    Raises:
        ValueError: if it would.
    """
    if size > max(NEVER_INFLATED_BYTES, MAX_INFLATION * stored):
        raise ValueError(
            f"{name} would take {size:.3g} bytes in memory, of {stored:.3g} in the file"
        )


OF_CONTENT = (
    None,
    errno.EFBIG,
    errno.EINVAL,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EOVERFLOW,
)
"""Numbers of errors of the system that come of what a file holds or is; all others are
the machine's.
"""
OUT_OF_MEMORY = r"^\w*MemoryError: |DefaultCPUAllocator: |\(memory allocation failed"
"""Of a GPU (torch), of Python and NumPy, of torch on a CPU, and of HDF5."""
OF_THE_GPU = r"^AcceleratorError: |CUDA error"
"""Messages of torch, since version 2.8 and before."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory did not suffice, of the machine or of a GPU."""
    match = re.search(OUT_OF_MEMORY, f"{type(error).__name__}: {error}")
    return match is not None or system_error_number(error) == errno.ENOMEM


def is_of_the_machine(error: BaseException) -> bool:
    """Whether an error while a file is read is about the machine, and not about what
    the file holds.

    HDF5 reports a lack of memory within its filters as it does a damaged chunk, which
    it is then taken for.
    """
    if is_out_of_memory(error):
        return True
    if re.search(OF_THE_GPU, f"{type(error).__name__}: {error}"):
        return True
    return system_error_number(error) not in OF_CONTENT  # None: no error of the system


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


def destination(path: Path, root: Path, tops: Sequence[str]) -> Path:
    """Return the folder of an archive's files: the archive's folder, or one of the
    archive's name.

    Args:
        path: The archive.
        root: The folder of the data set.
        tops: How files begin that belong into a folder of the archive's name, where
            they are at the top of an archive that lies in `root` itself.
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
    """Unpack an archive; a member that is there in its size is left as it is.

    Returns:
        How many files were written.

    Raises:
        MissingData: if the archive is damaged or cut short; what was written before
            stays, and of a compressed tar nothing is written.
        BrainhiveError: if a name in it leads out of the folder, or the disk has no room
            for it.
    """
    # a damaged tar is refused before anything is written
    written = 0
    verify_compressed(path)
    with open_members(path) as members:
        for name, size, open_member in members:
            # members of an earlier, interrupted call stay
            target = below(into, name, source=f"{path} holds a file that")
            if target.is_file() and target.stat().st_size == size:
                continue
            require_room(into, size, f"{name} of {path}", "make room")
            with (
                atomic_write(target, is_lasting=False) as part,
                part.open("wb") as file,
            ):
                shutil.copyfileobj(open_member(), file, COPIED_BYTES)
            written += 1
    return written


@contextmanager
def open_members(path: Path) -> Iterator[Iterator[Member]]:
    """Open an archive, to go through its files; folders, links and devices are left
    out.

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
    file = tar.extractfile(member)
    assert file is not None  # as it is a file
    return file


def zip_members(archive: ZipFile) -> list[ZipInfo]:
    """List the members; one whose CRC32 is 0, as some tools and torch may write it, is
    read without.
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


def import_pyarrow() -> Any:
    """Import pyarrow's reader and writer of parquet.

    Raises:
        MissingExtra: if it is not installed.
    """
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra("parquet needs pyarrow", install_line("parquet")) from error
    return pyarrow.parquet


def open_parquet(path: Path) -> Any:
    """Open a file as pyarrow's ParquetFile; pages that have a checksum are verified
    when they are read.

    Raises:
        MissingExtra: if pyarrow is not installed.
        ValueError: if it is damaged, as pyarrow's errors are.
    """
    return import_pyarrow().ParquetFile(
        path, memory_map=True, page_checksum_verification=True
    )
