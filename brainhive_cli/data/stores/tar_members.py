"""The members of a tar, found by its headers, however hostile they are."""

import bz2
import gzip
import lzma
import math
import tarfile
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

ZIP = ".zip"
TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
OPENS: dict[str, Callable[..., Any]] = {
    **{".gz": gzip.open, ".tgz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
}
LONGEST, DIGITS = 2**20, 20
"""Bytes of what a header says of the next member, and digits of a length in it."""
WITHOUT_DATA = b"123456"
"""Types of links, folders and devices."""
FILES = b"0\x007"
SAYING = b"xgLK"
"""Types of headers that say more of the next member, as pax and GNU's tar write them."""
END = tarfile.NUL * tarfile.BLOCKSIZE
Member = tuple[str, int, int]
"""A file in a tar: its name, byte offset and size."""


def members(file: BinaryIO, length: float = math.inf) -> Iterator[Member]:
    """Walk through a tar: yields each file, and for everything else a member without a name.

    tarfile takes five times as long, and goes on for ever where a size is negative.

    Args:
        file: The tar, seekable.
        length: Its bytes, where that is known.

    Raises:
        ReadError: at the first header that is none, or that claims what cannot be.
    """
    at = end = 0
    said: dict[bytes, bytes] = {}
    while (header := read_at(file, at, tarfile.BLOCKSIZE)) != END:
        if not header and not said and end and read_at(file, end - 1, 1):
            return  # as some tools leave the end out
        start, kind = at + tarfile.BLOCKSIZE, header[156:157]
        checksum = sum(header) - sum(header[148:156]) + sum(b" " * 8)
        if len(header) < tarfile.BLOCKSIZE or _number(header[148:156]) != checksum:
            raise tarfile.ReadError(f"neither a file nor the end at byte {at}")
        size = 0 if kind in WITHOUT_DATA else int(said.get(b"size", 0)) or _number(header[124:136])
        if not 0 <= size <= length - start or kind not in WITHOUT_DATA + FILES + SAYING:
            raise tarfile.ReadError(f"a member of type {kind!r} and {size} bytes at byte {at}")
        if kind in SAYING:
            said |= _said(kind, read_at(file, start, size)) if size <= LONGEST else {}
        else:
            name = said.get(b"path", _name(header)).decode(errors="surrogateescape")
            yield name if kind in FILES else "", start, size
            said, end = {}, start + size
        at = start + tarfile.BLOCKSIZE * -(-size // tarfile.BLOCKSIZE)


def _name(header: bytes) -> bytes:
    own, before = (header[place].partition(b"\0")[0] for place in (slice(100), slice(345, 500)))
    return before + b"/" + own if before and header[257:263] == tarfile.POSIX_MAGIC[:6] else own


def _number(field: bytes) -> int:
    """Read octal digits, or, if the first bit is set, a binary number."""
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    digits = field.partition(b"\0")[0].strip()
    return int(digits, 8) if digits.isdigit() else -bool(digits)


def _said(kind: bytes, content: bytes) -> dict[bytes, bytes]:
    """Read what a header says of the next member: its long name, or lines of `length key=value`."""
    if kind == tarfile.GNUTYPE_LONGNAME:
        return {b"path": content.partition(b"\0")[0]}
    at = 0
    said: dict[bytes, bytes] = {}
    while kind == tarfile.XHDTYPE and at < len(content.rstrip(b"\0")):
        digits, _, _ = content[at : at + DIGITS].partition(b" ")
        end = at + int(digits)
        key, _, value = content[at + len(digits) + 1 : end - 1].partition(b"=")
        if not at < end <= len(content) or key.startswith(b"GNU.sparse"):
            raise tarfile.ReadError(f"a header that says {key!r}")
        said[key], at = value, end
    return said


def read_at(file: BinaryIO, at: int, size: int) -> bytes:
    """Read bytes at an offset."""
    file.seek(at)
    return file.read(size)
