"""COCO: photographs of everyday scenes, with or without the annotations that say what
they show.
"""

from collections import defaultdict
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from pydantic import Field

from brainhive_cli.core import documents, parts
from brainhive_cli.core.damage import report_damage
from brainhive_cli.core.errors import MissingData
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.datasets import ROOT_FIELD, Dataset
from brainhive_cli.data.files.ids import Names
from brainhive_cli.data.files.published_files import fetch_line
from brainhive_cli.data.media.stimuli import (
    StimulusSet,
    find_pictures,
    make_stimulus_set,
)

SPLITS = {"train": "train", "validation": "val", "test": "test"}
LARGEST = 4 << 30
"""Bytes of the largest annotations that are read; instances_train2017.json has
0.45e9.
"""
CAPTIONS = 5
"""Captions of a picture that are kept: each picture has this many, and a few have one
or two more.
"""
SOURCE = fetch_line("coco")


class Config(parts.Config):
    """COCO's folders of pictures, one a split.

    A picture's concept is the category that covers most of it, by the areas in
    annotations/instances_*.json; where there is no such file, or nothing is annotated
    (all of `test`), a picture is a concept of its own. Its captions are those in
    annotations/captions_*.json, where that file is there.
    """

    root: str = ROOT_FIELD
    year: int = Field(2017, description="which folders: train2017, val2017, test2017")

    def build(self, paths: Paths) -> Dataset:
        """Find the splits that are there."""
        root = paths.dataset("coco", self.root)
        # without any folder all splits are named, so that listing them says what is
        # missing
        there = tuple(split for split in SPLITS if _folder(root, split, self.year))
        return Dataset(
            "coco", there or tuple(SPLITS), partial(_images, root, self.year)
        )


TINY = Config()


def _folder(root: Path, split: str, year: int) -> Path | None:
    # folders lie in the data set's folder, or in its images
    name = f"{SPLITS[split]}{year}"
    return next(
        (folder for folder in (root / name, root / "images" / name) if folder.is_dir()),
        None,
    )


def _images(root: Path, year: int, split: str) -> StimulusSet:
    """List the pictures of a split, with their main category and captions where these
    are annotated.
    """
    folder = _folder(root, split, year)
    # ids begin with the folder of the split
    files = list(find_pictures(folder.parent, folder.name)) if folder else []
    if not folder or not files:
        raise MissingData(
            f"coco: no pictures {root}/{SPLITS[split]}{year}/*.jpg", SOURCE
        )

    # a concept is the category that covers most of a picture
    covers = _concepts(root / "annotations" / f"instances_{folder.name}.json")
    concepts = [covers.get(name, name) for name in (Path(file).stem for file in files)]
    images = make_stimulus_set("coco", split, folder.parent, files, concepts)

    # captions, read when the first is needed
    path = root / "annotations" / f"captions_{folder.name}.json"
    if not path.is_file():
        return images
    captions = partial(_list_captions, path, images.image_ids)
    return replace(images, captions=captions, captions_each=CAPTIONS)


def _list_captions(path: Path, image_ids: Names, index: int) -> list[str]:
    """List the captions of a picture; those of all are read when the first is
    needed.
    """
    return _read_captions(path).get(image_ids[index].rpartition("/")[2], [])


@cache
def _read_captions(path: Path) -> dict[str, list[str]]:
    """Read the captions of each picture, in the order of the file, by its file name
    without ending.
    """
    captions: dict[str, list[str]] = {}
    # annotations name pictures by number, image ids end in their file names
    content: dict[str, Any] = documents.read(path, hint=SOURCE, max_bytes=LARGEST)
    with report_damage(path, SOURCE):
        stems = {
            image["id"]: Path(image["file_name"]).stem for image in content["images"]
        }
        for caption in content["annotations"]:
            captions.setdefault(stems[caption["image_id"]], []).append(
                caption["caption"].strip()
            )
    return captions


def _concepts(path: Path) -> dict[str, str]:
    """Read the category that covers most of each picture, by the picture's file name
    without ending.
    """
    # without annotations, each picture is a concept of its own
    if not path.is_file():
        return {}

    # area of each category, by picture
    areas: dict[str, dict[str, float]] = {}
    content: dict[str, Any] = documents.read(path, hint=SOURCE, max_bytes=LARGEST)
    with report_damage(path, SOURCE):
        categories = {
            category["id"]: category["name"] for category in content["categories"]
        }
        stems = {
            image["id"]: Path(image["file_name"]).stem for image in content["images"]
        }
        for instance in content["annotations"]:
            area = areas.setdefault(stems[instance["image_id"]], defaultdict(float))
            area[categories[instance["category_id"]]] += instance["area"]
    # pictures without annotated objects are absent
    return {stem: max(area, key=area.__getitem__) for stem, area in areas.items()}
