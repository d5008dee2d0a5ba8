"""Archives and files that may be damaged: what is written, and which error it is."""

import errno
import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from brainhive_cli.core.base.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.files import archives, damage

NIFTI_START = (348).to_bytes(4, "little") + bytes(8)


def zipped(path, names):
    """An archive of small files, whose contents are their names."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, name)
    return path


def tarred(path, names):
    """The same as a tar."""
    mode = {".gz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz"}.get(path.suffix, "w")
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(name)
            tar.addfile(member, io.BytesIO(name.encode()))
    return path


PACKERS = {
    ".zip": zipped, ".tar": tarred, ".tar.gz": tarred, ".tar.bz2": tarred,
    ".tar.xz": tarred,
}  # fmt: skip


@pytest.mark.parametrize("ending", PACKERS)
def test_an_archive_is_unpacked_once(tmp_path, ending):
    path = PACKERS[ending](tmp_path / f"a{ending}", ["./x", "d/y", "d/zz"])
    target_folder = tmp_path / "into"
    assert archives.unpack(path, target_folder) == 3
    files = {file.name: file for file in target_folder.rglob("*") if file.is_file()}
    assert (files["x"].read_text(), files["y"].read_text()) == ("./x", "d/y")
    # a file with its content stays, another one is written again, whatever its size
    files["y"].write_text("abc")
    (target_folder / "x").unlink()
    unchanged = files["zz"].stat()
    assert archives.unpack(path, target_folder) == 2
    assert files["y"].read_text() == "d/y"
    assert files["zz"].read_text() == "d/zz"
    assert files["zz"].stat().st_mtime_ns == unchanged.st_mtime_ns
    with pytest.raises(BrainhiveError, match="writes itself"):
        archives.unpack(path, target_folder, reserved="zz")


@pytest.mark.parametrize("ending", [".zip", ".tar"])
def test_no_member_leads_out_of_its_folder(tmp_path, ending):
    path = PACKERS[ending](tmp_path / f"a{ending}", ["../x"])
    with pytest.raises(BrainhiveError):
        archives.unpack(path, tmp_path / "into")
    assert not (tmp_path / "x").exists()


def test_links_and_folders_of_a_zip_are_left_out(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, mode in (("link", 0o120777), ("file", 0o100644), ("plain", 0)):
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, "x")
        archive.mkdir("folder")
    with archives.open_members(tmp_path / "a.zip") as members:
        members_read = [
            (name, size, open_member().read()) for name, size, open_member in members
        ]
    assert members_read == [("file", 1, b"x"), ("plain", 1, b"x")]


def test_files_without_a_folder_get_one_of_their_archive(tmp_path):
    root = tmp_path
    flat = zipped(root / "sub-01.zip", ["sub-01_eeg.fif", "x"])
    deep = zipped(root / "betas.zip", ["betas/x"])
    (root / "in").mkdir()
    inside = zipped(root / "in/a.zip", ["sub-01_eeg.fif"])
    empty = zipped(root / "empty.tar.zip", [])
    assert archives.choose_destination(flat, root, ["sub-"]) == root / "sub-01"
    assert archives.choose_destination(flat, root, []) == root
    assert archives.choose_destination(flat, root, ["x"]) == root
    assert archives.choose_destination(deep, root, ["sub-"]) == root
    assert archives.choose_destination(inside, root, ["sub-"]) == root / "in"
    assert archives.choose_destination(empty, root, ["sub-"]) == root


@pytest.mark.parametrize(
    ("name", "ending"),
    [("a.zip", ".zip"), ("a.tar.gz", ".tar.gz"), ("a.tgz", ".tgz"), ("a.gz", ""),
     ("a.tar.xz", ".tar.xz"), ("tar", ""), ("a.nii.gz", "")],
)  # fmt: skip
def test_an_archive_is_known_by_its_ending(name, ending):
    assert archives.find_archive_suffix(Path(name)) == ending


def test_a_compressed_file_is_read_to_its_end(tmp_path):
    path = tmp_path / "a.gz"
    content = gzip.compress(bytes(3_000_000))
    path.write_bytes(content)
    archives.verify_compressed(path)
    # the checksum stands before the last four bytes
    path.write_bytes(content[:-8] + bytes(4) + content[-4:])
    with pytest.raises(MissingData):
        archives.verify_compressed(path)
    (tmp_path / "a.txt").write_text("x")
    archives.verify_compressed(tmp_path / "a.txt")


def test_only_what_no_measurement_takes_is_refused():
    damage.refuse_inflation(2**28, 1, "x")
    damage.refuse_inflation(3_000_000_000, 30_000_000, "x")
    for size, stored in ((2**28 + 1, 1), (3_000_000_001, 30_000_000)):
        with pytest.raises(ValueError, match="x"):
            damage.refuse_inflation(size, stored, "x")


@pytest.mark.parametrize(
    ("error", "is_of_the_machine"),
    [
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate"), True),
        (RuntimeError("CUDA error: x"), True),
        (OSError(errno.ENOMEM, "x"), True),
        (OSError(errno.EIO, "x"), True),
        (PermissionError(errno.EACCES, "x"), True),
        (OSError(errno.EINVAL, "x"), False),
        (OSError("x"), False),
        (ValueError("MemoryError: x"), False),
        (ValueError("x (os error 5)"), True),
    ],
)
def test_errors_of_the_machine_are_told_from_those_of_files(
    error, is_of_the_machine, tmp_path
):
    assert damage.is_machine_error(error) is is_of_the_machine
    kind = type(error) if is_of_the_machine else RecipeError
    with (
        pytest.raises(kind) as caught,
        damage.report_damage(tmp_path / "x", "do", RecipeError),
    ):
        raise error
    if not is_of_the_machine:
        assert caught.value.hint == "do"


def test_memory_is_known_by_its_error():
    for error in (MemoryError(), RuntimeError("(memory allocation failed"),
                  OSError(errno.ENOMEM, "x")):  # fmt: skip
        assert damage.is_out_of_memory(error)
    for error in (OSError(errno.EIO, "x"), RuntimeError("CUDA error: x")):
        assert not damage.is_out_of_memory(error)


def test_only_what_a_reader_raises_is_an_error_of_the_file(tmp_path):
    class OfALibrary(Exception):
        pass

    with pytest.raises(OfALibrary), damage.report_damage(tmp_path, "do"):
        raise OfALibrary
    with (
        pytest.raises(MissingData),
        damage.report_damage(tmp_path, "do", exceptions=(Exception,)),
    ):
        raise OfALibrary
    with pytest.raises(RecipeError), damage.report_damage(tmp_path, "do"):
        raise RecipeError("ours")
    with pytest.raises(MissingData) as caught, damage.report_damage(tmp_path, "do"):
        raise KeyError("signal")
    assert "'signal'" in caught.value.message
    assert archives.read_bytes(io.BytesIO(b"abcdef"), 2, 3) == b"cde"


@pytest.mark.parametrize(
    ("name", "content", "hint"),
    [
        ("a.nii.gz", NIFTI_START, "rename it to a.nii"),
        ("a.nii", gzip.compress(NIFTI_START, mtime=0), "rename it to a.nii.gz"),
        (
            "a.NII.GZ",
            gzip.compress(gzip.compress(NIFTI_START, mtime=0), mtime=0),
            "gunzip",
        ),
        ("a.mat", b"MATLAB 5.0 MAT-file", "-v7.3"),
        ("a.nii.gz", b"<html>", "copy it"),
        ("a.nii.gz", b"", "copy it"),
    ],
)
def test_a_whole_file_of_another_format_is_not_called_damaged(
    tmp_path, name, content, hint
):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(MissingData) as caught, damage.report_damage(path, "copy it"):
        raise ValueError("cannot work out the type of the file")
    assert hint in caught.value.hint
    assert ("damaged" in caught.value.message) == (hint == "copy it")
