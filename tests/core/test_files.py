"""Files that would be waited on, read without end, or lead elsewhere: none is opened, whoever asks."""

import errno
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import clip, save_animation
from PIL import Image
from safetensors import SafetensorError

from brainhive_cli.cli.execute import describe_error
from brainhive_cli.core import documents, files
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.files import UnfitFile, atomic_write
from brainhive_cli.data import recording_files, session_stores
from brainhive_cli.data.datasets import BadPicture
from brainhive_cli.data.exchange import vectors
from brainhive_cli.data.media import media_files
from brainhive_cli.data.published.nsd import read_design

SPECIAL: dict[str, Callable[[Path], Any]] = {
    "pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.fixture(params=SPECIAL)
def special(request: pytest.FixtureRequest) -> Callable[[Path], Path]:
    """Put what no plain file is, and a reader would not come back from, in the place of a path."""

    def put(path: Path) -> Path:
        path.unlink(missing_ok=True)
        SPECIAL[request.param](path)
        return path

    return put


def test_a_plain_file_is_opened_up_to_its_limit_and_through_links(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("file")
    assert files.read_regular(tmp_path / "link", 5) == b"12345"
    with pytest.raises(UnfitFile, match="too large: 5 bytes, at most 4 are read"):
        files.open_regular(tmp_path / "link", 4)
    with pytest.raises(IsADirectoryError):
        files.open_regular(tmp_path)
    with pytest.raises(FileNotFoundError):
        files.open_regular(tmp_path / "absent")


def test_what_is_not_opened_is_said_in_one_line_with_a_way_out(tmp_path: Path, special: Any) -> None:
    with pytest.raises(UnfitFile) as caught:
        files.open_regular(special(tmp_path / "x"))
    told = describe_error(pickle.loads(pickle.dumps(caught.value)))  # as a decoding process does
    assert told.message == f"{tmp_path / 'x'} is a pipe, socket or device, and no plain file" and told.hint


READERS: dict[str, Callable[[Path], Any]] = {
    "a.json": documents.read,
    "a.png": media_files.read,
    "a.gif": media_files.read,
    "a.mp4": media_files.read,
    "events.tsv": recording_files.read_table,
    "train.tsv": lambda path: session_stores.describe_files([path]),
    "small.pt": lambda path: session_stores.describe_files([path]),
    "nsd_expdesign.mat": lambda path: read_design(path, 1),
    "file_names.txt": lambda path: vectors._thingsvision(path.parent),
}


@pytest.mark.parametrize("name", READERS)
def test_no_reader_waits_for_a_pipe_or_reads_a_device(tmp_path: Path, special: Any, name: str) -> None:
    """Each would hang, or fill the memory; clips, sidecars and designs did."""
    if name.endswith("mp4"):
        pytest.importorskip("av")
    if name.endswith("mat"):
        pytest.importorskip("scipy")
    with pytest.raises((BrainhiveError, UnfitFile)):
        READERS[name](special(tmp_path / name))


def test_clips_of_a_data_set_may_be_links_and_a_pipe_among_them_is_a_bad_picture(
    tmp_path: Path, special: Any
) -> None:
    save_animation(tmp_path / "annex/clip.gif", clip(0))
    (tmp_path / "clip.gif").symlink_to("annex/clip.gif")
    assert len(media_files.read(tmp_path / "clip.gif").frames) == 6
    with pytest.raises(BadPicture, match="cannot be decoded: a pipe, socket or device"):
        media_files.read(special(tmp_path / "other.gif"))


@pytest.fixture
def shown(world: Path, reconstructed: Any, tmp_path: Path) -> Path:
    """A finished run as a stranger hands it over: its own page can be made of it."""
    run = Path(shutil.copytree(reconstructed.folder, tmp_path / "stranger"))
    (run / "SHA256SUMS").unlink()
    return run


def test_no_page_shows_a_file_that_a_strangers_run_links_to(
    shown: Path, tmp_path: Path, brainhive: Any, special: Any
) -> None:
    private = tmp_path / "private.png"
    Image.fromarray(np.full((8, 8, 3), 77, np.uint8)).save(private)
    (shown / "artifacts").mkdir(exist_ok=True)
    listed = [{"kind": "media", "title": "x", "file": "artifacts/x.png"}]
    (shown / "artifacts.json").write_text(json.dumps({"schema": 3, "artifacts": listed}))

    (shown / "artifacts/x.png").symlink_to(private)
    ended = brainhive("report", str(shown), "--to", str(tmp_path / "page.html"))
    assert ended.returncode == 1 and not (tmp_path / "page.html").exists()
    assert "artifacts/x.png is a link that leads out of the run" in ended.stderr

    special(shown / "artifacts/x.png")
    ended = brainhive("report", str(shown), "--to", str(tmp_path / "page.html"))
    assert ended.returncode in (1, 3) and not (tmp_path / "page.html").exists()

    (shown / "artifacts/x.png").unlink()
    shutil.copy(private, shown / "artifacts/x.png")
    assert brainhive("report", str(shown), "--to", str(tmp_path / "page.html")).returncode == 0


def test_runs_rm_of_a_link_removes_it_and_touches_nothing_that_it_leads_to(
    home: Path, brainhive: Any
) -> None:
    elsewhere = home / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "recipe.yaml").write_text("{}")
    before = elsewhere.stat().st_mtime_ns
    (home / "runs/train-align").mkdir(parents=True)
    (home / "runs/train-align/linked").symlink_to(elsewhere)
    assert brainhive("runs", "rm", "linked", "--yes").returncode == 0
    assert not os.path.lexists(home / "runs/train-align/linked")
    assert [path.name for path in elsewhere.iterdir()] == ["recipe.yaml"]
    assert elsewhere.stat().st_mtime_ns == before


def test_a_walk_enters_each_folder_once_though_links_lead_back(tmp_path: Path) -> None:
    (tmp_path / "data/a").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    for name in ("data/a/1.png", "elsewhere/2.png", "data/a/._1.png", "data/.DS_Store"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "data/b").symlink_to("../elsewhere")
    for name in ("data/a/loop", "data/a/again", "elsewhere/up"):
        (tmp_path / name).symlink_to(tmp_path / "data")
    below = [path for path, entry in files.walk(tmp_path / "data") if not entry.is_dir()]
    assert below == ["a/1.png", "b/2.png"]


def test_a_walk_leaves_out_what_a_disk_keeps_for_the_system(tmp_path: Path) -> None:
    for name in ("lost+found", "$RECYCLE.BIN", "a"):
        (tmp_path / name).mkdir()
    assert [path for path, _ in files.walk(tmp_path)] == ["a"]


@pytest.mark.parametrize(
    ("pattern", "matched"),
    (
        ("*_beta.nii", ["s1_beta.nii", "x/s2_beta.nii", "x/y/z/s3_beta.nii"]),
        ("**/*_beta.nii", ["s1_beta.nii", "x/s2_beta.nii", "x/y/z/s3_beta.nii"]),
        ("x/**/s?_beta.nii", ["x/s2_beta.nii", "x/y/z/s3_beta.nii"]),
        ("x/*/[!1]*/s[0-9]_b*", ["x/y/z/s3_beta.nii"]),
    ),
)
def test_a_pattern_of_paths_means_what_rglob_means(tmp_path: Path, pattern: str, matched: list[str]) -> None:
    for name in ("s1_beta.nii", "x/s2_beta.nii", "x/y/z/s3_beta.nii", "x/y/z/s3_mask.nii"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    below = [path for path, entry in files.walk(tmp_path) if not entry.is_dir()]
    assert [path for path in below if files.matches(path, pattern)] == matched
    assert sorted({path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob(pattern)}) == matched


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.ENOSPC, "No space left on device", "PART"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_write_that_finds_no_room_names_the_file_and_leaves_the_one_before(
    tmp_path: Path, error: Exception
) -> None:
    (tmp_path / "metrics.json").write_text("before")
    with pytest.raises(OSError, match="No space") as caught, atomic_write(tmp_path / "metrics.json") as part:
        error.filename = str(part) if getattr(error, "filename", None) else None  # type: ignore[attr-defined]
        raise error
    assert caught.value.filename == str(tmp_path / "metrics.json")
    assert (tmp_path / "metrics.json").read_text() == "before" and len([*tmp_path.iterdir()]) == 1


def test_a_disk_that_is_full_elsewhere_is_named_while_a_file_is_written(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space") as caught, atomic_write(tmp_path / "metrics.json"):
        raise OSError(errno.ENOSPC, "No space left on device", "/small/cache.bin")
    assert caught.value.filename == "/small/cache.bin"
