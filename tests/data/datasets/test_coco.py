"""COCO in the real layout, with and without annotations."""

import json

import pytest
from PIL import Image

from brainhive_cli.core.base.errors import BrainhiveError, MissingData
from brainhive_cli.core.recipes.recipe import Paths
from brainhive_cli.data.datasets.coco import Config

NUMBERS = {"train2017": [9, 25, 30, 34], "val2017": [139], "test2017": [1]}


@pytest.fixture
def root(home):
    """Write six pictures and no annotations."""
    root = home / "data/coco"
    for folder, numbers in NUMBERS.items():
        (root / folder).mkdir(parents=True)
        for number in numbers:
            Image.new("RGB", (6, 4)).save(root / folder / f"{number:012d}.jpg")
    return root


def annotate(root, **fields):
    """Write areas: two bowls exceed a dog in picture 9, a dog exceeds them in 25."""
    outline = [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]
    content = {
        "images": [
            {"id": n, "file_name": f"{n:012d}.jpg"} for n in NUMBERS["train2017"]
        ],
        "categories": [{"id": 51, "name": "bowl"}, {"id": 18, "name": "dog"}],
        "annotations": [
            {"image_id": 9, "category_id": 18, "area": 50.5, "segmentation": outline},
            {"image_id": 9, "category_id": 51, "area": 30.0, "segmentation": outline},
            {"image_id": 9, "category_id": 51, "area": 31.0, "segmentation": outline},
            {"image_id": 25, "category_id": 51, "area": 1.0, "segmentation": outline},
            {"image_id": 25, "category_id": 51, "area": 1.0, "segmentation": outline},
            {"image_id": 25, "category_id": 18, "area": 9.0, "segmentation": outline},
            {
                "image_id": 30,
                "category_id": 18,
                "area": 9,
                "segmentation": {"counts": [1], "size": [1, 1]},
            },
        ],
    }
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations/instances_train2017.json").write_text(
        json.dumps({**content, **fields})
    )


def coco(**knobs):
    return Config(**knobs).build(Paths())


def test_pictures_without_annotations_are_concepts_of_their_own(root):
    assert coco().splits == ("train", "validation", "test")
    for split, folder in zip(("train", "validation", "test"), NUMBERS, strict=True):
        images = coco().images(split)
        assert images.image_ids == tuple(
            f"{folder}/{number:012d}" for number in NUMBERS[folder]
        )
        assert images.concepts == tuple(f"{number:012d}" for number in NUMBERS[folder])
        assert images.open(0).size == (6, 4)


def test_a_concept_is_the_category_that_covers_most_of_a_picture(root):
    annotate(root)
    assert coco().images("train").concepts == ("bowl", "dog", "dog", "000000000034")
    assert coco().images("validation").concepts == ("000000000139",)


def test_captions_are_those_of_the_annotations_up_to_five(root):
    annotate(root)
    texts = {
        9: ["a bowl ", "two bowls", "bowls", "a dog", "food", "a sixth"],
        25: ["a dog"],
    }
    content = {
        "images": [
            {"id": n, "file_name": f"{n:012d}.jpg"} for n in NUMBERS["train2017"]
        ],
        "annotations": [
            {"image_id": n, "caption": text}
            for n, captions in texts.items()
            for text in captions
        ],
    }
    path = root / "annotations/captions_train2017.json"
    path.write_text(json.dumps(content))

    images = Config().build(Paths()).images("train")

    assert images.get_captions(0) == ["a bowl", "two bowls", "bowls", "a dog", "food"]
    assert images.get_captions(1) == ["a dog"] * 5  # repeated up to five
    with pytest.raises(MissingData, match="train2017/000000000030"):
        images.get_captions(2)


def test_damaged_annotations_are_named(
    root,
):
    path = root / "annotations/instances_train2017.json"
    annotate(root, annotations=[{"image_id": 7}])
    with pytest.raises(BrainhiveError, match=r"instances_train2017\.json"):
        coco().images("train")
    path.write_text(path.read_text()[:-20])
    with pytest.raises(BrainhiveError, match=r"instances_train2017\.json"):
        coco().images("train")


def test_absent_pictures_are_named_with_their_folder(home):
    with pytest.raises(MissingData, match=r"data/coco/train2017/\*\.jpg") as caught:
        coco().images("train")
    assert caught.value.hint == "brainhive fetch coco"
