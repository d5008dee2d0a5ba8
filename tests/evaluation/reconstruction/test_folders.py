"""Matching of reconstructions with true pictures, by their names."""

import pytest
from PIL import Image

from brainhive_cli.core.base.errors import BrainhiveError, MissingData
from brainhive_cli.evaluation.reconstruction.folders import (
    list_media,
    match_repeats,
)

TRUTHS = ["test/01_dog/dog_1", "test/02_cat/cat_7", "test/03_dog/dog_2"]


def test_reconstructions_are_matched_by_name_number_or_folder():
    for names, found in (
        (
            ["dog_1_0", "dog_1_1", "cat_7-03"],
            [["dog_1_0", "dog_1_1"], ["cat_7-03"], []],
        ),
        (
            ["dog_1/0", "dog_1/1", "cat_7/seed5"],
            [["dog_1/0", "dog_1/1"], ["cat_7/seed5"], []],
        ),
        (
            ["test/01_dog/dog_1/00", "test/03_dog/dog_2_4"],
            [["test/01_dog/dog_1/00"], [], ["test/03_dog/dog_2_4"]],
        ),
    ):
        matched, unmatched = match_repeats(names, TRUTHS)
        assert matched == {
            truth: each for truth, each in zip(TRUTHS, found, strict=True) if each
        }
        assert unmatched == []
    _, unmatched = match_repeats(
        ["dog_3", "0", "a/x"], list(TRUTHS) + ["one/x", "two/x"]
    )
    assert unmatched == ["dog_3", "0", "a/x"]


def test_folders_need_pictures_with_unique_names(tmp_path):
    with pytest.raises(MissingData, match="nowhere"):
        list_media("nowhere")
    with pytest.raises(MissingData, match=tmp_path.name):
        list_media(str(tmp_path))
    for ending in ("png", "jpg"):
        Image.new("RGB", (4, 4)).save(tmp_path / f"x.{ending}")
    with pytest.raises(BrainhiveError, match=r"x\.\w+ and .*x\.\w+"):
        list_media(str(tmp_path))
