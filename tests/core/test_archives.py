"""Tars walked through by tarfile: never for ever, and never ended by a damaged header."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from brainhive_cli.core import archives
from brainhive_cli.core.errors import MissingData

END = bytes(512)
LONG = "a" * 60 + "/" + "é" * 40 + "/picture.jpg"


def pack(path: Path, form: int, names: list[str]) -> None:
    with tarfile.open(path, "w", format=form) as tar:
        for number, name in enumerate(names):
            member = tarfile.TarInfo(name)
            if name.endswith("/"):
                member.type = tarfile.DIRTYPE
            member.size = 0 if name.endswith("/") else 600 * number
            tar.addfile(member, io.BytesIO(bytes([number + 1]) * member.size))


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_files_are_found_where_tarfile_finds_them(tmp_path: Path, form: int) -> None:
    path = tmp_path / "a.tar"
    pack(path, form, ["d/", "empty.jpg", "d/b.jpg", "ü.cls", LONG, "end.jpg", "b" * 97 + ".x"])
    with tarfile.open(path) as tar:
        expected = [(m.name, m.offset_data, m.size) for m in tar if m.isfile()]
    found = [*archives.tar_members(path)]
    assert found == expected and len(found) == 6


def test_a_flipped_bit_of_a_compressed_tar_is_found_before_anything_is_unpacked(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz", compresslevel=0) as tar:
        member = tarfile.TarInfo("picture.jpg")
        member.size = 600
        tar.addfile(member, io.BytesIO(bytes(600)))
    content = bytearray((tmp_path / "a.tar.gz").read_bytes())
    content[700] ^= 1  # stored, not compressed: the picture's own byte
    (tmp_path / "a.tar.gz").write_bytes(content)
    with pytest.raises(MissingData, match="damaged or cut short"):
        archives.unpack(tmp_path / "a.tar.gz", tmp_path)
    assert not (tmp_path / "picture.jpg").exists()


def test_links_and_folders_have_no_data_whatever_size_they_claim(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        link = tarfile.TarInfo("link")
        link.type, link.linkname, link.size = tarfile.SYMTYPE, "elsewhere", 10**9
        tar.addfile(link)
        tar.addfile(tarfile.TarInfo("a.jpg"))
    assert [name for name, _, _ in archives.tar_members(path)] == ["a.jpg"]


def header(size: bytes, kind: bytes = b"0") -> bytes:
    made = bytearray(tarfile.TarInfo("a.jpg").tobuf(tarfile.USTAR_FORMAT))
    made[124:136], made[156:157] = size.ljust(12, b"\0"), kind
    made[148:156] = b"%06o\0 " % tarfile.calc_chksums(bytes(made))[0]
    return bytes(made)


def said(text: bytes) -> bytes:
    return header(b"%o" % len(text), b"x") + text.ljust(512, b"\0") + header(b"0") + END


HOSTILE: dict[str, Callable[[], bytes]] = {
    "a negative size": lambda: header(b"-0000001000") + END,
    "a huge binary size": lambda: header(b"\x80" + b"\x7f" * 11) + END,
    "a size beyond the end": lambda: header(b"77777777777") + END,
    "an unknown type": lambda: header(b"0", b"Z") + END,
    "no end, and a member cut short": lambda: header(b"10") + b"7 bytes",
    "no end, and half a header": lambda: header(b"0") + header(b"0")[:100],
    "a negative size said before": lambda: said(b"14 size=-512\n"),
    "a line of no length": lambda: said(b"0 size=1\n"),
    "a sparse file": lambda: said(b"22 GNU.sparse.map=0,0\n"),
    "a wrong checksum": lambda: header(b"0").replace(b"a.jpg", b"b.jpg") + END,
    "a wrong checksum later": lambda: header(b"0") + header(b"0").replace(b"a.jpg", b"b.jpg") + END,
    "nothing": lambda: b"",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_header_that_claims_what_cannot_be_ends_the_walk(tmp_path: Path, what: str) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(HOSTILE[what]())
    with pytest.raises((tarfile.TarError, ValueError)):
        list(archives.tar_members(path))


@pytest.mark.parametrize("ending", [".tar", ".tar.gz"])
def test_a_tar_without_an_end_is_read_if_each_member_is_whole(tmp_path: Path, ending: str) -> None:
    content = header(b"10") + b"8 bytes!" + bytes(504)
    for size in (len(content), 512 + 7):
        with archives.OPENERS.get(ending[4:], open)(path := tmp_path / f"a{ending}", "wb") as file:
            file.write(content[:size])
        if size == len(content):
            with archives.open_members(path) as members:
                assert [(name, size) for name, size, _ in members] == [("a.jpg", 8)]
        else:
            with pytest.raises(MissingData, match="damaged"), archives.open_members(path) as members:
                list(members)
