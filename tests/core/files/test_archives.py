"""Tars walked through by tarfile: never for ever, and never ended by a damaged
header.
"""

import io
import tarfile

import pytest

from brainhive_cli.core.base.errors import MissingData
from brainhive_cli.core.files import archives

END = bytes(512)
LONG = "a" * 60 + "/" + "é" * 40 + "/picture.jpg"


def pack(path, form, names):
    with tarfile.open(path, "w", format=form) as tar:
        for number, name in enumerate(names):
            member = tarfile.TarInfo(name)
            if name.endswith("/"):
                member.type = tarfile.DIRTYPE
            member.size = 0 if name.endswith("/") else 600 * number
            tar.addfile(member, io.BytesIO(bytes([number + 1]) * member.size))


def test_files_are_found_where_tarfile_finds_them(tmp_path):
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT):
        path = tmp_path / f"{form}.tar"
        pack(
            path,
            form,
            ["d/", "empty.jpg", "d/b.jpg", "ü.cls", LONG, "end.jpg", "b" * 97 + ".x"],
        )
        with tarfile.open(path) as tar:
            expected = [(m.name, m.offset_data, m.size) for m in tar if m.isfile()]
        tar_members = list(archives.list_tar_members(path))
        assert tar_members == expected
        assert len(tar_members) == 6


def test_a_flipped_bit_in_a_tar_is_found_before_unpacking(
    tmp_path,
):
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz", compresslevel=0) as tar:
        member = tarfile.TarInfo("picture.jpg")
        member.size = 600
        tar.addfile(member, io.BytesIO(bytes(600)))
    content = bytearray((tmp_path / "a.tar.gz").read_bytes())
    content[700] ^= 1  # stored, not compressed: the picture's own byte
    (tmp_path / "a.tar.gz").write_bytes(content)
    with pytest.raises(MissingData, match=r"a\.tar\.gz"):
        archives.unpack(tmp_path / "a.tar.gz", tmp_path)
    assert not (tmp_path / "picture.jpg").exists()


def header(size, kind=b"0"):
    created_bytearray = bytearray(tarfile.TarInfo("a.jpg").tobuf(tarfile.USTAR_FORMAT))
    created_bytearray[124:136], created_bytearray[156:157] = size.ljust(12, b"\0"), kind
    created_bytearray[148:156] = (
        b"%06o\0 " % tarfile.calc_chksums(bytes(created_bytearray))[0]
    )
    return bytes(created_bytearray)


HOSTILE = {
    "a negative size": header(b"-0000001000") + END,
    "a size beyond the end": header(b"77777777777") + END,
    "an unknown type": header(b"0", b"Z") + END,
    "no end, and half a header": header(b"0") + header(b"0")[:100],
    "a wrong checksum": header(b"0").replace(b"a.jpg", b"b.jpg") + END,
    "a wrong checksum later": header(b"0")
    + header(b"0").replace(b"a.jpg", b"b.jpg")
    + END,
    "nothing": b"",
}


def test_a_header_that_claims_what_cannot_be_ends_the_walk(tmp_path):
    for name, content in HOSTILE.items():
        (tmp_path / "a.tar").write_bytes(content)
        with pytest.raises((tarfile.TarError, ValueError)):
            assert list(archives.list_tar_members(tmp_path / "a.tar")) is name


@pytest.mark.parametrize("ending", [".tar", ".tar.gz"])
def test_a_tar_without_an_end_is_read_if_each_member_is_whole(tmp_path, ending):
    content = header(b"10") + b"8 bytes!" + bytes(504)
    for size in (len(content), 512 + 7):
        with archives.OPENERS.get(ending[4:], open)(
            path := tmp_path / f"a{ending}", "wb"
        ) as file:
            file.write(content[:size])
        if size == len(content):
            with archives.open_members(path) as members:
                assert [(name, size) for name, size, _ in members] == [("a.jpg", 8)]
        else:
            with (
                pytest.raises(MissingData, match=path.name),
                archives.open_members(path) as members,
            ):
                list(members)
