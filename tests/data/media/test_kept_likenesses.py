"""Likenesses are kept in a file, which may be damaged or shared."""

import os
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import pytest

from brainhive_cli.data.media import kept_likenesses
from brainhive_cli.data.media.kept_likenesses import FILE_NAME, KeptLikenesses
from brainhive_cli.data.media.near_copies import Likeness

PAIRS: dict[tuple[int, int], Likeness] = {
    (1, 2): "copy",
    (2, 1): "",
    (2**64 - 1, 0): "mirrored",
    (7, 7): "cropped",
}


def keep_all(home: Path, pairs: dict[tuple[int, int], Likeness] = PAIRS) -> None:
    kept = KeptLikenesses(home)
    for digests, likeness in pairs.items():
        kept.keep(digests, likeness)


def find_all(home: Path) -> dict[tuple[int, int], Likeness | None]:
    kept = KeptLikenesses(home)
    return {digests: kept.find(digests) for digests in PAIRS}


def test_a_later_command_finds_what_was_kept(tmp_path: Path) -> None:
    assert set(find_all(tmp_path).values()) == {None}
    assert not (tmp_path / FILE_NAME).exists()  # nothing to keep
    keep_all(tmp_path)
    assert find_all(tmp_path) == PAIRS
    assert KeptLikenesses(tmp_path).find((1, 3)) is None


def test_a_changed_comparison_finds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_all(tmp_path)
    monkeypatch.setattr(kept_likenesses, "_digest_comparison", lambda: "another")
    assert set(find_all(tmp_path).values()) == {None}


def link_to_nowhere(file: Path) -> None:
    file.unlink()
    file.symlink_to(file.with_name("nowhere"))


def make_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def make_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


DAMAGES: dict[str, tuple[Callable[[Path], object], bool]] = {
    "another file": (lambda file: file.write_bytes(bytes(range(256))), True),
    "a pointer": (lambda file: file.write_text("version https://git-lfs\n"), True),
    "a dead link": (link_to_nowhere, True),
    "a folder": (make_folder, False),
    "a pipe": (make_pipe, True),
}
"""Damage of the file, and True if a new file can replace it."""


@pytest.mark.parametrize("name", DAMAGES)
def test_another_file_is_ignored_and_replaced(tmp_path: Path, name: str) -> None:
    damage, is_replaced = DAMAGES[name]
    keep_all(tmp_path)
    damage(tmp_path / FILE_NAME)
    keep_all(tmp_path)
    assert find_all(tmp_path) == (PAIRS if is_replaced else dict.fromkeys(PAIRS))


def test_damaged_lines_alone_are_lost(tmp_path: Path) -> None:
    file = tmp_path / FILE_NAME
    keep_all(tmp_path)
    lines = file.read_text().splitlines(keepends=True)
    # a line cut off by a full disk, and a line with an unknown likeness
    damaged = [lines[0][:20], lines[1], lines[2].replace("mirrored", "turned"), "\0\n"]
    file.write_text("".join([*damaged, lines[3]]))
    found = find_all(tmp_path)
    assert found == {**PAIRS, (1, 2): None, (2**64 - 1, 0): None}
    assert file.read_text() == lines[1] + lines[3]


def test_only_the_newest_half_of_a_long_file_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_all(tmp_path)
    size = (tmp_path / FILE_NAME).stat().st_size
    monkeypatch.setattr(kept_likenesses, "MAX_BYTES", size)
    assert find_all(tmp_path) == PAIRS
    monkeypatch.setattr(kept_likenesses, "MAX_BYTES", size - 1)
    newest = [*PAIRS][2:]
    assert [pair for pair, likeness in find_all(tmp_path).items() if likeness] == newest
    assert (tmp_path / FILE_NAME).stat().st_size < size


def test_a_home_without_room_keeps_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(kept_likenesses, "open_descriptor", refuse)
    kept = KeptLikenesses(tmp_path)
    kept.keep((1, 2), "copy")
    assert kept.find((1, 2)) == "copy"  # within the command
    assert find_all(tmp_path) == dict.fromkeys(PAIRS)


def keep_numbers(kept: KeptLikenesses, first: int) -> None:
    for number in range(first, first + 200):
        kept.keep((number, number), "copy")


def test_several_processes_keep_all_they_find(tmp_path: Path) -> None:
    kept, context = KeptLikenesses(tmp_path), get_context("fork")
    workers = [
        context.Process(target=keep_numbers, args=(kept, first)) for first in (0, 200)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    kept = KeptLikenesses(tmp_path)
    found = [kept.find((number, number)) for number in range(400)]
    assert found == ["copy"] * 400
