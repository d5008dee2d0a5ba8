"""Folders of pictures: whose reconstruction a file is, by its name."""

import json

import pytest
from PIL import Image

from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.facts import Facts
from brainhive_cli.core.measurements import Measurements
from brainhive_cli.evaluation.reconstruction.folders import (
    list_media,
    match_repeats,
    read_caveats_around,
)

TRUTHS = ["test/01_dog/dog_1", "test/02_cat/cat_7", "test/03_dog/dog_2"]


def test_reconstructions_are_matched_by_name_number_or_folder():
    for names, found in (
        (["dog_1_0", "dog_1_1", "cat_7-03"], [["dog_1_0", "dog_1_1"], ["cat_7-03"], []]),
        (["dog_1/0", "dog_1/1", "cat_7/seed5"], [["dog_1/0", "dog_1/1"], ["cat_7/seed5"], []]),
        (
            ["test/01_dog/dog_1/00", "test/03_dog/dog_2_4"],
            [["test/01_dog/dog_1/00"], [], ["test/03_dog/dog_2_4"]],
        ),
    ):
        matched, unmatched = match_repeats(names, TRUTHS)
        assert matched == {truth: each for truth, each in zip(TRUTHS, found, strict=True) if each}
        assert unmatched == []
    _, unmatched = match_repeats(["dog_3", "0", "a/x"], [*TRUTHS, "one/x", "two/x"])
    assert unmatched == ["dog_3", "0", "a/x"]


def test_folders_without_pictures_or_with_two_of_one_name_are_refused(tmp_path):
    with pytest.raises(MissingData, match="no folder 'nowhere'"):
        list_media("nowhere")
    with pytest.raises(MissingData, match="no pictures below"):
        list_media(str(tmp_path))
    for ending in ("png", "jpg"):
        Image.new("RGB", (4, 4)).save(tmp_path / f"x.{ending}")
    with pytest.raises(BrainhiveError, match="have one image id"):
        list_media(str(tmp_path))


def test_pictures_of_a_run_keep_what_must_be_said_of_it(tmp_path):
    measured = Measurements(facts=Facts(caveats=["selected on test"]))
    samples = tmp_path / "run" / "samples" / "sub-01"
    for name in ("run/recipe.yaml", "run/metrics.json"):
        assert read_caveats_around(str(samples)) == []  # of nobody's run, or one that is not finished
        samples.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps(measured.as_dict()))

    assert read_caveats_around(str(samples)) == ["selected on test"]
