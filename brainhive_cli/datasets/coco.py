"""COCO: photographs of everyday scenes, with or without the annotations that say what they show."""

import json
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field

from brainhive_cli import datasets
from brainhive_cli.core import parts
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.recipe import Paths
from brainhive_cli.datasets import pictures_below
from brainhive_cli.datasets._files import from_files
from brainhive_cli.datasets._pictures import Pictures

SPLITS = {"train": "train", "validation": "val", "test": "test"}
SOURCE = "unpack train2017.zip, val2017.zip and annotations_trainval2017.zip of cocodataset.org there"


class Config(parts.Config):
    """COCO's folders of pictures, one a split.

    A picture's concept is the category that covers most of it, by the areas in annotations/instances_*.json;
    where there is no such file, or nothing is annotated (all of `test`), a picture is a concept of its own.
    """

    root: str = Field("", description="folder of the data set; default: coco below paths.data")
    year: int = Field(2017, description="which folders: train2017, val2017, test2017")

    def build(self, paths: Paths) -> Pictures:
        """See which splits are there."""
        root = paths.dataset("coco", self.root)
        there = tuple(split for split in SPLITS if _folder(root, split, self.year))
        return Pictures("coco", there or tuple(SPLITS), partial(_images, root, self.year))


TINY = Config()


def _folder(root: Path, split: str, year: int) -> Path | None:
    name = f"{SPLITS[split]}{year}"
    return next((folder for folder in (root / name, root / "images" / name) if folder.is_dir()), None)


def _images(root: Path, year: int, split: str) -> datasets.ImageSet:
    """List the pictures of a split, sorted by name."""
    datasets.check_split("coco", split, tuple(SPLITS))
    folder = _folder(root, split, year)
    files = list(pictures_below(folder.parent, folder.name)) if folder else []
    if not folder or not files:
        raise MissingData(f"coco: no pictures {root}/{SPLITS[split]}{year}/*.jpg", SOURCE)
    covers = _concepts(root / "annotations" / f"instances_{folder.name}.json")
    concepts = [covers.get(name, name) for name in (Path(file).stem for file in files)]
    return from_files("coco", split, folder.parent, files, concepts)


def _concepts(path: Path) -> dict[str, str]:
    """Read which category covers most of each picture, by the picture's file name without ending."""
    if not path.is_file():
        return {}
    try:
        with path.open() as file:
            found = json.load(file, object_hook=_without_outlines)
        categories = {category["id"]: category["name"] for category in found["categories"]}
        stems = {image["id"]: Path(image["file_name"]).stem for image in found["images"]}
        areas: dict[str, Counter[str]] = {}
        for one in found["annotations"]:
            area = areas.setdefault(stems[one["image_id"]], Counter())
            area[categories[one["category_id"]]] += one["area"]
    except (ValueError, KeyError, TypeError, OSError) as error:
        reason = str(error) or type(error).__name__
        raise BrainhiveError(f"{path} cannot be read as COCO annotations: {reason}", SOURCE) from error
    return {stem: area.most_common(1)[0][0] for stem, area in areas.items()}


def _without_outlines(fields: dict[str, Any]) -> dict[str, Any]:
    """Forget outlines while reading: kept, they would take three times the memory."""
    fields.pop("segmentation", None)
    return fields
