"""COCO: photographs of everyday scenes, with or without annotations."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from brainhive_cli.core.base import MissingData
from brainhive_cli.core.files import documents, report_damage
from brainhive_cli.core.recipes import Paths, parts
from brainhive_cli.data.datasets import ROOT_FIELD, Dataset
from brainhive_cli.data.files import Names, fetch_line
from brainhive_cli.data.media import StimulusSet, find_pictures, make_stimulus_set

SPLIT_FOLDERS = {
    "train": "train2017",
    "validation": "val2017",
    "test": "test2017",
}
"""Folder of each split, in the data set's folder or in its folder `images`."""
SOURCE = fetch_line("coco")


class Config(parts.Config):
    """Pictures of COCO in a folder for each split.

    The concept of a picture is the category with the largest area, according to
    annotations/instances_*.json. It is the name of the picture if the file is absent or
    nothing is annotated, as in `test`. Captions are in annotations/captions_*.json.
    """

    root: str = ROOT_FIELD

    def build(self, paths: Paths) -> Dataset:
        """Find the splits that exist, and name all splits if none exists."""
        root = paths.dataset("coco", self.root)
        splits = [split for split in SPLIT_FOLDERS if _find_folder(root, split)]
        return Dataset(
            "coco",
            tuple(splits or SPLIT_FOLDERS),
            partial(_list_images, root),
        )


TINY = Config()


def _find_folder(root: Path, split: str) -> Path | None:
    """Find the folder of a split, or return None."""
    name = SPLIT_FOLDERS[split]
    for folder in (root / name, root / "images" / name):
        if folder.is_dir():
            return folder
    return None


def _list_images(root: Path, split: str) -> StimulusSet:
    """List the pictures of a split, with their concepts and captions.

    Raises:
        MissingData: if there are no pictures.
    """
    folder = _find_folder(root, split)
    files = list(find_pictures(folder.parent, folder.name)) if folder else []
    if not folder or not files:
        raise MissingData(
            f"coco: no pictures {root}/{SPLIT_FOLDERS[split]}/*.jpg", SOURCE
        )

    main_categories = _read_main_categories(
        # File with the areas of the objects in each picture, and their categories.
        root / f"annotations/instances_{folder.name}.json"
    )
    concepts = []
    for file in files:
        stem = Path(file).stem
        concepts.append(main_categories.get(stem, stem))
    images = make_stimulus_set("coco", split, folder.parent, files, concepts)
    path = root / f"annotations/captions_{folder.name}.json"
    if not path.is_file():
        return images
    captions = partial(_get_captions, path, images.image_ids)
    # Captions of a picture that are kept. A few pictures have six or seven.
    return replace(images, captions=captions, captions_each=5)


def _get_captions(path: Path, image_ids: Names, index: int) -> list[str]:
    """Return the captions of a picture, whose file is read at the first call."""
    stem = image_ids[index].rpartition("/")[2]
    return _read_captions(path).get(stem, [])


@cache
def _read_captions(path: Path) -> dict[str, list[str]]:
    """Read the captions of each picture, keyed by its file name without extension."""
    captions: dict[str, list[str]] = {}
    content = _read_annotations(path)
    with report_damage(path, SOURCE):
        stems = _list_stems(content)
        for caption in content["annotations"]:
            picture_captions = captions.setdefault(stems[caption["image_id"]], [])
            picture_captions.append(caption["caption"].strip())
    return captions


def _read_main_categories(path: Path) -> dict[str, str]:
    """Read the category with the largest area in each picture.

    Returns:
        Names of categories, keyed by the picture's file name without extension.
        Pictures without objects are left out. Empty if the file is absent.
    """
    if not path.is_file():
        return {}

    areas: dict[str, dict[str, float]] = {}
    content = _read_annotations(path)
    with report_damage(path, SOURCE):
        stems = _list_stems(content)
        categories = {}
        for category in content["categories"]:
            categories[category["id"]] = category["name"]
        for instance in content["annotations"]:
            stem = stems[instance["image_id"]]
            picture_areas = areas.setdefault(stem, defaultdict(float))
            picture_areas[categories[instance["category_id"]]] += instance["area"]
    main_categories = {}
    for stem, picture_areas in areas.items():
        main_categories[stem] = max(picture_areas, key=picture_areas.__getitem__)
    return main_categories


def _read_annotations(path: Path) -> dict[str, Any]:
    """Read a file of annotations."""
    # Largest size of an annotation file. instances_train2017.json has 0.45e9 bytes.
    max_annotation_bytes = 4 << 30
    content: dict[str, Any] = documents.read(
        path, hint=SOURCE, max_bytes=max_annotation_bytes
    )
    return content


def _list_stems(content: Mapping[str, Any]) -> dict[int, str]:
    """Map the numbers of pictures to their file names without extension."""
    return {image["id"]: Path(image["file_name"]).stem for image in content["images"]}
