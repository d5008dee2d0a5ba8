"""Tests of sheets with missing or broken pictures."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from brainhive_cli.core.base.errors import MissingData
from brainhive_cli.core.recipes.recipe import Paths
from brainhive_cli.core.runs.run_folder import RunFolder
from brainhive_cli.data.datasets import categories, image_folder
from brainhive_cli.data.media import BadPicture, Clip
from brainhive_cli.evaluation.retrieval.figures import draw_examples, save_pictures
from brainhive_cli.evaluation.retrieval.job import Job
from brainhive_cli.evaluation.retrieval.recipe import Recipe
from brainhive_cli.measurement.retrieval import Gallery
from brainhive_cli.reports.pages.page import Page

DRAWN = np.array([0, 2, 5, 7])
"""Candidates on the sheet: of twelve, five of the test come first."""


@pytest.fixture
def dataset(pictures):
    """Data set of twelve pictures, with two concepts in the test split."""
    return image_folder.Config(root=str(pictures), test_share=0.5).build(Paths())


def save(tmp_path, dataset, image_ids):
    half = len(image_ids) // 2
    rows = {"test": np.arange(half), "train": np.arange(half)}
    gallery = Gallery(rows, list(image_ids), list(image_ids))
    return save_pictures(RunFolder(tmp_path / "run"), dataset, gallery, DRAWN)


def ids_of(dataset):
    return list(dataset.images("test").image_ids) + list(
        dataset.images("train").image_ids
    )


def change_images(dataset, **changes):
    images = dataset.images
    vars(dataset)["images"] = lambda split: replace(images(split), **changes)
    return dataset


def test_each_picture_of_a_sheet_is_saved_once(tmp_path, dataset, capsys):
    files = save(tmp_path, dataset, ids_of(dataset))

    assert files == {row: f"artifacts/gallery/{row}.webp" for row in DRAWN.tolist()}
    saved = sorted(path.name for path in (tmp_path / "run").rglob("*.webp"))
    assert saved == ["0.webp", "2.webp", "5.webp", "7.webp"]
    assert not capsys.readouterr().err


def test_a_sheet_has_gaps_for_broken_and_absent_pictures(
    tmp_path,
    dataset,
    pictures,
    capsys,
):
    image_ids = ids_of(dataset)
    (pictures / f"{image_ids[2]}.png").write_bytes(b"no picture")
    (pictures / f"{image_ids[7]}.png").unlink()

    files = save(tmp_path, dataset, image_ids)

    assert [row for row, file in files.items() if file] == [0, 5]
    text = " ".join(capsys.readouterr().err.split())
    assert "2 of its 4 pictures" in text
    assert "gaps" in text


def test_without_pictures_nothing_is_saved_and_one_note_says_why(
    tmp_path, dataset, capsys
):
    image_ids = ids_of(dataset)

    def refuse(split):
        raise MissingData(f"no {split} pictures", "fetch them")

    vars(dataset)["images"] = refuse
    files = save(tmp_path, dataset, image_ids)

    assert not any(files.values())
    text = " ".join(capsys.readouterr().err.split())
    assert text.count("no test pictures (fetch them)") == 1
    assert "4 of its 4 pictures" in text
    assert "--again" in text


@pytest.mark.parametrize(
    "error", [BadPicture("x"), MissingData("no PyAV"), OSError(5, "disk"), OSError()]
)
def test_no_picture_that_fails_to_open_ends_a_run(tmp_path, dataset, error):
    def refuse(index):
        raise error

    image_ids = ids_of(dataset)
    files = save(tmp_path, change_images(dataset, open=refuse), image_ids)
    assert not any(files.values())


def test_a_clip_is_drawn_by_its_first_frame(tmp_path, dataset):
    frames = np.zeros((3, 8, 8, 3), np.uint8)
    frames[0] = 255

    def open_clip(index):
        return Clip(frames, 8.0)

    image_ids = ids_of(dataset)
    files = save(tmp_path, change_images(dataset, open=open_clip), image_ids)
    with Image.open(tmp_path / "run" / files[0]) as image:
        assert image.convert("L").getextrema() == (255, 255)


def test_categories_without_pictures_have_no_sheet_and_no_note(
    tmp_path, dataset, capsys
):
    image_ids = ids_of(dataset)
    files = save(tmp_path, change_images(dataset, has_pictures=False), image_ids)
    assert not any(files.values())
    assert not capsys.readouterr().err


def list_pictures(dataset, **recipe):
    runs = [SimpleNamespace(dataset=dataset)]
    job = Job(Recipe(**recipe), runs)
    assert not any(picture.is_missing for picture in job.list_pictures())
    return [(picture.name, picture.state) for picture in job.list_pictures()]


def test_a_check_lists_the_pictures_that_only_the_sheet_needs(dataset):
    assert list_pictures(dataset) == [("pictures: test pictures", "here")]
    assert list_pictures(dataset, sheet_rows=0) == []

    change_images(dataset, missing_error=MissingData("not fetched"))
    assert [state for _, state in list_pictures(dataset)] == ["missing (optional)"]
    assert len(list_pictures(dataset, gallery="train+test")) == 2


@pytest.mark.parametrize("target", ["label", "exemplars"])
def test_each_category_has_an_example_on_the_first_screen(tmp_path, target, capsys):
    names = ["face", "full_body", "house"]
    for name, colour in zip(names, ("red", "green", "blue"), strict=True):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8), colour).save(tmp_path / name / "a.png")
    config = categories.Config(root=str(tmp_path), names=names, target=target)
    dataset = config.build(Paths())
    run_folder = RunFolder(tmp_path / "run")

    (sheet,) = draw_examples(run_folder, dataset)

    tiles = [row.tiles for row in sheet.rows]
    assert [tile.lines[0] for (tile,) in tiles] == names
    assert all((run_folder.path / tile.file).is_file() for (tile,) in tiles)
    html = Page("title", examples=(sheet, run_folder.path)).html()
    assert html.count("data:image/webp") == 3
    assert "full body" in html

    # a category whose picture is missing is left out
    (tmp_path / "house" / "a.png").write_bytes(b"no picture")
    (sheet,) = draw_examples(run_folder, dataset)
    assert [row.query for row in sheet.rows] == names[:2]
    assert "house" in capsys.readouterr().err


def test_categories_without_pictures_have_no_examples(tmp_path):
    dataset = categories.Config(names=["face", "house"]).build(Paths())
    assert draw_examples(RunFolder(tmp_path), dataset) == []
