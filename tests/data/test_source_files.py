"""Files that a store was made from: moved, missing, new, of other sizes, edited."""

import os

import pytest

from brainhive_cli.data.session_stores import describe_files, files_difference

BIG = bytes(2**20)
OTHER = "from other files than now, such as "


@pytest.fixture
def files(tmp_path):
    (tmp_path / "a/sub-01").mkdir(parents=True)
    paths = [tmp_path / "a/sub-01/raw.fif", tmp_path / "a/events.tsv"]
    paths[0].write_bytes(BIG)
    paths[1].write_text("onset\n1.0\n")
    return paths


def test_files_that_were_moved_together_are_the_same(files, tmp_path):
    before = describe_files(files)
    os.rename(tmp_path / "a", tmp_path / "b")
    assert (
        files_difference(
            before, describe_files(tmp_path / "b" / path.relative_to(tmp_path / "a") for path in files)
        )
        == ""
    )


@pytest.mark.parametrize(
    ("place", "content", "expected"),
    (
        (0, BIG + b"0", "sub-01/raw.fif"),
        (0, b"1" + BIG[1:], ""),  # which only its size is known of
        (1, b"onset\n2.0\n", "events.tsv"),
        (1, b"onset\n" + BIG, "events.tsv"),
    ),
)
def test_a_file_that_was_changed_is_named(files, place, content, expected):
    before = describe_files(files)
    files[place].write_bytes(content)
    assert files_difference(before, describe_files(files)) == (expected and f"{OTHER}{expected}")


def test_a_table_is_known_by_its_content_however_large(files):
    files[1].write_bytes(BIG)
    before = describe_files(files)
    files[1].write_bytes(b"1" + BIG[1:])
    assert files_difference(before, describe_files(files)) == f"{OTHER}events.tsv"


def test_files_of_one_side_only_are_named(files, tmp_path):
    other = tmp_path / "a/other.tsv"
    other.touch()
    both, one = describe_files([*files, other]), describe_files(files)
    assert files_difference(both, one) == files_difference(one, both) == f"{OTHER}other.tsv"
