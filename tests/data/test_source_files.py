"""Files that a store was made from: moved, missing, new, of other sizes, edited."""

import os

import pytest

from brainhive_cli.data.session_stores import describe_files, files_difference

BIG = bytes(2**20)


@pytest.fixture
def files(tmp_path):
    (tmp_path / "a/sub-01").mkdir(parents=True)
    paths = [tmp_path / "a/sub-01/raw.fif", tmp_path / "a/events.tsv"]
    paths[0].write_bytes(BIG)
    paths[1].write_text("onset\n1.0\n")
    return paths


def test_files_that_were_changed_or_are_of_one_side_only_are_named_and_moved_ones_are_not(files, tmp_path):
    before, other = describe_files(files), "from other files than now, such as "
    for path, content, expected in (
        (files[0], BIG + b"0", "sub-01/raw.fif"),
        (files[0], b"1" + BIG[1:], ""),  # which only its size is known of
        (files[1], b"onset\n2.0\n", "events.tsv"),
    ):
        was = path.read_bytes()
        path.write_bytes(content)
        assert files_difference(before, describe_files(files)) == (expected and f"{other}{expected}")
        path.write_bytes(was)
    (more := tmp_path / "a/other.tsv").touch()
    both = describe_files([*files, more])
    assert files_difference(both, before) == files_difference(before, both) == f"{other}other.tsv"
    os.rename(tmp_path / "a", tmp_path / "b")
    moved = describe_files(tmp_path / "b" / path.relative_to(tmp_path / "a") for path in files)
    assert files_difference(before, moved) == ""
