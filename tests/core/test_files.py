"""Files that would be waited on, read without end, or lead elsewhere: none is opened,
whoever asks.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

from brainhive_cli.core import documents, files, hub, weights
from brainhive_cli.core.command import Input
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.files import NotFetched, UnfitFile, atomic_write
from brainhive_cli.data import recording_files, session_stores
from brainhive_cli.data.media import media_files
from brainhive_cli.data.published.nsd import read_design
from brainhive_cli.data.stores import hdf5, pickles


def test_a_plain_file_is_opened_up_to_its_limit_and_through_links(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("file")
    assert files.read_regular(tmp_path / "link", 5) == b"12345"
    with pytest.raises(UnfitFile, match="too large: 5 bytes, at most 4 are read"):
        files.open_regular(tmp_path / "link", 4)
    with pytest.raises(IsADirectoryError):
        files.open_regular(tmp_path)
    with pytest.raises(FileNotFoundError):
        files.open_regular(tmp_path / "absent")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_where_files_have_their_ends(tmp_path: Path, end: str) -> None:
    lines = ["\u2028cat/1.jpg", "dog\x0b\x0c/\x85 2.jpg", ""]
    (tmp_path / "test.txt").write_bytes(("\ufeff" + end.join(lines)).encode())
    assert files.read_lines(tmp_path / "test.txt") == lines


READERS: dict[str, Callable[[Path], Any]] = {
    "a.json": documents.read,
    "a.png": media_files.read,
    "events.tsv": recording_files.read_table,
    "train.tsv": lambda path: session_stores.describe_files([path]),
    "nsd_expdesign.mat": lambda path: read_design(path, 1),
}


def test_no_reader_waits_for_a_pipe_or_reads_a_device(tmp_path: Path) -> None:
    """Each would hang, or fill the memory; clips, sidecars and designs did."""
    for name, read in READERS.items():
        os.mkfifo(tmp_path / name)
        with pytest.raises((BrainhiveError, UnfitFile)):
            read(tmp_path / name)
        (tmp_path / name).unlink()
        (tmp_path / name).symlink_to("/dev/zero")
        with pytest.raises((BrainhiveError, UnfitFile)):
            read(tmp_path / name)


FETCHED_READERS: dict[str, Callable[[Path], Any]] = {
    **READERS,
    "a.npy": pickles.load,
    "a.h5": lambda path: hdf5.open_file(path, "prepare").__enter__(),
    "a.safetensors": weights.read,
    "model/model.safetensors": lambda path: hub.folder(str(path.parent)),
    "sub-01_eeg.fif": recording_files.files_of,
}
POINTERS = {
    "git lfs pull": "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n",
    "git annex get": "/annex/objects/MD5E-s120--1d8.png\n",
    "datalad get": None,
}


@pytest.mark.parametrize("way", POINTERS)
def test_content_that_was_not_fetched_is_counted_and_its_command_named(
    tmp_path: Path, way: str
) -> None:
    """Links of DataLad, and the small files that Git LFS and git-annex leave."""
    for name, read in FETCHED_READERS.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        for absent in (path, path.with_name(f"other_{path.name}")):
            if (text := POINTERS[way]) is None:
                absent.symlink_to("../.git/annex/objects/0k/MD5E-s1--1d8/MD5E-s1--1d8")
            else:
                absent.write_text(text)
        with pytest.raises(NotFetched, match=f"{path.name} .*2 of 2 files") as caught:
            read(path)
        assert way in caught.value.hint
        listed = Input.of_file([path], path, "fetch it")
        assert listed.is_missing and way in str(listed.error and listed.error.hint)
        for absent in path.parent.iterdir():
            absent.is_dir() or absent.unlink()


def test_a_walk_enters_each_folder_once_though_links_lead_back(tmp_path: Path) -> None:
    (tmp_path / "data/a").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    for name in ("data/a/1.png", "elsewhere/2.png", "data/a/._1.png", "data/.DS_Store"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "data/b").symlink_to("../elsewhere")
    for name in ("data/a/loop", "data/a/again", "elsewhere/up"):
        (tmp_path / name).symlink_to(tmp_path / "data")
    below = [
        path for path, entry in files.walk(tmp_path / "data") if not entry.is_dir()
    ]
    assert below == ["a/1.png", "b/2.png"]


def test_a_write_that_finds_no_room_names_the_file_and_leaves_the_one_before(
    tmp_path: Path,
) -> None:
    (tmp_path / "metrics.json").write_text("before")
    with (
        pytest.raises(OSError, match="No space") as caught,
        atomic_write(tmp_path / "metrics.json"),
    ):
        raise SafetensorError(
            "Error while serializing: I/O error: No space left on device (os error 28)"
        )
    assert caught.value.filename == str(tmp_path / "metrics.json")
    assert (tmp_path / "metrics.json").read_text() == "before" and len(
        [*tmp_path.iterdir()]
    ) == 1
