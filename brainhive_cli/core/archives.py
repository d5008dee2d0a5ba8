"""Archives that may be anyone's (zip, tar, parquet): listed, opened and unpacked, hostile as they may be."""

import bz2
import gzip
import lzma
import math
import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any, BinaryIO
from zipfile import ZipFile, ZipInfo

from brainhive_cli.core.damage import reading, refuse_inflation
from brainhive_cli.core.errors import MissingData, MissingExtra
from brainhive_cli.core.file_systems import require_room
from brainhive_cli.core.files import atomic_write, below

ZIP = ".zip"
TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
TAR_OPENERS: dict[str, Callable[..., Any]] = {
    ".gz": gzip.open,
    ".tgz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
}
MAX_HEADER_BYTES, MAX_LENGTH_DIGITS = 2**20, 20
"""Of what a tar's header says of the next member, and of a length in it."""
WITHOUT_DATA = b"123456"
"""Types of links, folders and devices."""
FILES = b"0\x007"
EXTENDED_HEADERS = b"xgLK"
"""Types of headers that say more of the next member, as pax and GNU's tar write them."""
END = tarfile.NUL * tarfile.BLOCKSIZE
COPIED_BYTES = 2**20
"""Read of a member at a time."""
PARQUET_VALUE_BYTES = 4
"""Of most values."""
AGAIN = "delete it and fetch it again"
Member = tuple[str, int, Callable[[], IO[bytes]]]
"""A file in an archive: its name, size, and what opens it. All other members have no name."""
TarMember = tuple[str, int, int]
"""A file in a tar: its name, byte offset and size."""


def verify_compressed(path: Path) -> None:
    """Read a compressed file to its end, where its checksum is compared; readers of its parts stop before.

    Raises:
        MissingData: if the checksum differs, or the file is cut short.
    """
    if opener := TAR_OPENERS.get(path.suffix):
        with reading(path, AGAIN), opener(path, "rb") as file:
            while file.read(COPIED_BYTES):
                pass


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
    with open_members(path) as members:
        # the first file tells whether files lie at the top
        first = next((name for name, _, _ in members if name), "")
    if not tops or not first.removeprefix("./").startswith(tuple(tops)):
        return root

    # they do: they get a folder of the name of the archive
    return path.with_name(
        path.name.removesuffix(next(ending for ending in (ZIP, *TAR) if path.name.endswith(ending)))
    )


def bytes_to_write(path: Path, into: Path) -> int:
    """Count the bytes that `unpack` would write; 0 for a compressed tar, which has no list of its members."""
    if not path.name.endswith((ZIP, ".tar")):
        return 0
    with open_members(path) as members:
        return sum(size for name, size, _ in members if name and not _is_unpacked(into / name, size))


def unpack(path: Path, into: Path) -> int:
    """Unpack an archive; a member that is there in its size is left as it is.

    Returns:
        How many files were written.

    Raises:
        MissingData: if the archive is damaged or cut short; what was written before stays, and of a
            compressed tar nothing is written.
        BrainhiveError: if a name in it leads out of the folder, or the disk has no room for it.
    """
    # a damaged tar is refused before anything is written
    written = 0
    verify_compressed(path)
    with open_members(path) as members:
        for name, size, open_member in members:
            if not name:
                continue
            target = below(into, name.removeprefix("./"), source=f"{path} holds a file that")

            # members of an earlier, interrupted call stay
            if _is_unpacked(target, size):
                continue

            # copy block by block, if there is room
            require_room(into, size, f"{name} of {path}", "make room")
            with atomic_write(target, is_lasting=False) as part, part.open("wb") as file:
                source, left = open_member(), size
                while left:
                    if not (block := source.read(min(left, COPIED_BYTES))):
                        raise MissingData(f"{path} is damaged or cut short: {name}", AGAIN)
                    file.write(block)
                    left -= len(block)
            written += 1
    return written


def _is_unpacked(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


@contextmanager
def open_members(path: Path) -> Iterator[Iterator[Member]]:
    """Open an archive, to go through its members.

    Raises:
        MissingData: if it is damaged or cut short.
    """
    with reading(path, AGAIN):
        if path.suffix == ZIP:
            with ZipFile(path) as archive:
                # folders and links have no name here; opening a member verifies its CRC32
                yield (
                    (
                        "" if info.is_dir() or info.external_attr >> 28 not in (0, 8) else info.filename,
                        info.file_size,
                        partial(archive.open, info),
                    )
                    for info in zip_members(archive)
                )
        else:
            with TAR_OPENERS.get(path.suffix, open)(path, "rb") as file:
                yield ((name, size, partial(_at, file, start)) for name, start, size in tar_members(file))


def _at(file: IO[bytes], start: int) -> IO[bytes]:
    file.seek(start)
    return file


def zip_members(archive: ZipFile) -> list[ZipInfo]:
    """List the members; one whose CRC32 is 0, as some tools and torch may write it, is read without."""
    members = archive.infolist()
    for member in members:
        member.CRC = member.CRC or None  # type: ignore[assignment]  # which zipfile then does not compare
    return members


def tar_members(file: BinaryIO, length: float = math.inf) -> Iterator[TarMember]:
    """Walk through a tar: yields each file, and for everything else a member without a name.

    tarfile takes five times as long, and goes on for ever where a size is negative.

    Args:
        file: The tar, seekable.
        length: Its bytes, where that is known.

    Raises:
        ReadError: at the first header that is none, or that claims what cannot be.
    """
    at = end = 0
    extended: dict[bytes, bytes] = {}
    while (header := read_at(file, at, tarfile.BLOCKSIZE)) != END:
        if not header and not extended and end and read_at(file, end - 1, 1):
            return  # as some tools leave the end out

        # the header must be sound before its size is used
        start, kind = at + tarfile.BLOCKSIZE, header[156:157]
        checksum = sum(header) - sum(header[148:156]) + sum(b" " * 8)
        if len(header) < tarfile.BLOCKSIZE or _number(header[148:156]) != checksum:
            raise tarfile.ReadError(f"neither a file nor the end at byte {at}")
        size = 0 if kind in WITHOUT_DATA else int(extended.get(b"size", 0)) or _number(header[124:136])
        if not 0 <= size <= length - start or kind not in WITHOUT_DATA + FILES + EXTENDED_HEADERS:
            raise tarfile.ReadError(f"a member of type {kind!r} and {size} bytes at byte {at}")

        # extended headers describe the member after them
        if kind in EXTENDED_HEADERS:
            extended |= _extensions(kind, read_at(file, start, size)) if size <= MAX_HEADER_BYTES else {}
        else:
            parts = [header[field].partition(b"\0")[0] for field in (slice(345, 500), slice(100))]
            has_prefix = parts[0] and header[257:263] == tarfile.POSIX_MAGIC[:6]
            name = extended.get(b"path", b"/".join(parts) if has_prefix else parts[1])
            yield name.decode(errors="surrogateescape") if kind in FILES else "", start, size
            extended, end = {}, start + size
        at = start + tarfile.BLOCKSIZE * -(-size // tarfile.BLOCKSIZE)


def _number(field: bytes) -> int:
    """Read octal digits, or, if the first bit is set, a binary number."""
    # numbers of 8 GiB and more do not fit octal digits
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    digits = field.partition(b"\0")[0].strip()
    return int(digits, 8) if digits.isdigit() else -bool(digits)


def _extensions(kind: bytes, content: bytes) -> dict[bytes, bytes]:
    """Read what a header says of the next member: its long name, or lines of `length key=value`."""
    # GNU's tar: the content is the name
    if kind == tarfile.GNUTYPE_LONGNAME:
        return {b"path": content.partition(b"\0")[0]}
    at = 0
    extended = {}

    # pax: one line after another, whose length stands first
    while kind == tarfile.XHDTYPE and at < len(content.rstrip(b"\0")):
        digits, _, _ = content[at : at + MAX_LENGTH_DIGITS].partition(b" ")
        end = at + int(digits)
        key, _, value = content[at + len(digits) + 1 : end - 1].partition(b"=")
        if not at < end <= len(content) or key.startswith(b"GNU.sparse"):
            raise tarfile.ReadError(f"a header that says {key!r}")
        extended[key], at = value, end
    return extended


def read_at(file: BinaryIO, at: int, size: int) -> bytes:
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
        raise MissingExtra("parquet needs pyarrow", "pip install 'brainhive[parquet]'") from error
    return pyarrow.parquet


def open_parquet(path: Path) -> Any:
    """Open a file as pyarrow's ParquetFile; pages that have a checksum are verified when they are read.

    Raises:
        MissingExtra: if pyarrow is not installed.
        ValueError: if it claims more rows or values than its size allows; pyarrow's errors are these too.
    """
    # counts in the footer are compared with the size before a column is read
    file = import_pyarrow().ParquetFile(path, memory_map=True, page_checksum_verification=True)
    about, size = file.metadata, os.path.getsize(path)
    groups = [about.row_group(n) for n in range(about.num_row_groups)]
    columns = [group.column(n) for group in groups for n in range(group.num_columns)]
    if about.num_rows != sum(group.num_rows for group in groups) or not 0 <= about.num_rows <= size:
        raise ValueError(f"{about.num_rows} rows in {size} bytes")
    refuse_inflation(PARQUET_VALUE_BYTES * sum(column.num_values for column in columns), size, "its values")
    return file
