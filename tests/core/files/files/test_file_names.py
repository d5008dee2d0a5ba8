"""Tests of paths that are made from names in recipes and files."""

import os
from pathlib import Path

import pytest

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.core.files.files import publish, resolve_below

HOME = Path("home")


def test_a_word_that_is_no_path_below_the_folder_is_refused():
    for name, reason in (
        ("", "is empty"),
        ("/etc/passwd", "is an absolute path"),
        ("a/../../b", "leads out of its folder"),
        ("a\nb", "has a control character"),
    ):
        with pytest.raises(BrainhiveError, match=rf"(?m)the stimulus id .* {reason}$"):
            resolve_below(HOME, "fine", name, source="the stimulus id")
    for name in ("cat/001", "a..b", ".hidden", "a:b", "ä/日本", "x y", "a" * 255):
        assert (
            resolve_below(HOME, "runs", name, source="a name") == HOME / "runs" / name
        )


def test_what_gets_a_final_name_is_on_the_disk_before(tmp_path, monkeypatch):
    calls, synced, replaced = list[object](), os.fsync, os.replace
    monkeypatch.setattr(
        os,
        "fsync",
        lambda file: (calls.append(os.fstat(file.fileno()).st_ino), synced(file)),
    )
    monkeypatch.setattr(
        os, "replace", lambda *paths: (calls.append("named"), replaced(*paths))
    )
    (partial_file := tmp_path / "a.part").write_text("x")
    (folder := tmp_path / "b.part").mkdir()
    for name in ("1", "2"):
        (folder / name).write_text(name)
    inodes = [path.stat().st_ino for path in (partial_file, folder / "1", folder / "2")]
    publish(partial_file, tmp_path / "a")
    publish(folder, tmp_path / "b")
    assert calls[:2] == [inodes[0], "named"]
    assert set(calls[2:4]) == set(inodes[1:])
    assert calls[4:] == ["named"]
    assert (tmp_path / "a").read_text() + (tmp_path / "b/2").read_text() == "x2"
