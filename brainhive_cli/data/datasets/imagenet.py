"""ImageNet-1k: 1,281,167 training, 50,000 validation and 100,000 test pictures of 1000 classes."""

import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import Field

from brainhive_cli.core import parts
from brainhive_cli.core.errors import MissingData
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data import datasets
from brainhive_cli.data.datasets import SPLIT_FOLDERS, StimulusDataset, from_files, pictures_below
from brainhive_cli.data.datasets._packed import FOLDER, Listing, Packed, list_parquet, list_tars
from brainhive_cli.data.stores.ids import Names

CALLED = {name: split for split, names in SPLIT_FOLDERS.items() for name in names}
NAMED = re.compile(rf"(?<![a-z])({'|'.join(CALLED)})(?![a-z])")
CLASS = re.compile(r"n\d{8}")
CLASS_FIRST = re.compile(r"(?:.*/)?(n\d{8})_[^/]+")
PACKED: dict[str, Callable[[Sequence[Path], Path], Listing]] = {
    "parquet": lambda files, _: list_parquet(files),
    "tar": list_tars,
}
"""What lists the files of a form, given the folder of listings that were kept."""
SOURCE = (
    "hf download ILSVRC/imagenet-1k --repo-type dataset --local-dir {root} "
    "(or visual-layer/imagenet-1k-vl-enriched; tars: timm/imagenet-1k-wds; folders: image-net.org)"
)

Place = tuple[str, str, Path]
"""A split, a form, and a folder or file of it."""


class Config(parts.Config):
    """ImageNet-1k as folders of classes, as the hub's parquet files, or as webdataset tars.

    A concept is a class (`n01440764`); a picture whose class is not said is a concept of its own.
    """

    root: str = Field("", description="folder of the data set; default: imagenet below paths.data")
    form: Literal["folder", "parquet", "tar"] | None = Field(
        None, description="form of the files; default: the one that is there"
    )

    def build(self, paths: Paths) -> StimulusDataset:
        """See which splits are there, and in which form."""
        root = paths.dataset("imagenet", self.root)
        places = sorted(place for place in set(_find(root)) if self.form in (None, place[1]))
        kept = paths.under_home("embeddings") / FOLDER
        there = tuple(split for split in SPLIT_FOLDERS if split in {place[0] for place in places})
        return StimulusDataset(
            "imagenet", there or tuple(SPLIT_FOLDERS), partial(_images, root, places, kept)
        )


TINY = Config()


def _find(root: Path) -> Iterator[Place]:
    """Search for folders of pictures and for packed files, but not into the folders of classes."""
    for here, folders, files in os.walk(root, followlinks=True):
        below = Path(here).relative_to(root)
        for file in files:
            form = _form(file)
            if form in PACKED and (named := NAMED.findall((below / file).as_posix().lower())):
                yield CALLED[named[-1]], form, Path(here, file)
        depth = next((n for n, name in enumerate(below.parts, 1) if name in CALLED), 0)
        endings = {os.path.splitext(file)[1].lower() for file in files}
        if depth and (any(map(CLASS.fullmatch, folders)) or endings & datasets.PICTURES):
            yield CALLED[below.parts[depth - 1]], "folder", root.joinpath(*below.parts[:depth])
        folders[:] = [name for name in folders if not (CLASS.fullmatch(name) or _form(name) in PACKED)]


def _form(name: str) -> str:
    return os.path.splitext(name)[1].removeprefix(".")


def _images(root: Path, places: Sequence[Place], kept: Path, split: str) -> datasets.StimulusSet:
    datasets.check_split("imagenet", split, tuple(SPLIT_FOLDERS))
    here = [(form, path) for named, form, path in places if named == split]
    found_at = sorted({str(path) if form == "folder" else f"*.{form}" for form, path in here})
    if len(found_at) > 1:
        raise MissingData(
            f"imagenet: {split} is there several times: {' and '.join(found_at)}",
            "dataset.form=folder, parquet or tar; or dataset.root=FOLDER",
        )
    paths = [path for _, path in here]
    if paths:
        form = here[0][0]
        images = (
            _in_folder(split, *paths) if form == "folder" else _in_archive(split, PACKED[form](paths, kept))
        )
        if len(images):
            return images
    raise MissingData(
        f"imagenet: no {split} pictures in {root}: neither {split}/n01440764/*.JPEG, nor {split}-*.parquet, "
        f"nor *-{split}-*.tar",
        SOURCE.format(root=shlex.quote(str(root))),
    )


def _in_folder(split: str, folder: Path) -> datasets.StimulusSet:
    files = list(pictures_below(folder.parent, folder.name))
    concepts = []
    for file in files:
        *_, above, name = file.split("/")
        is_loose = above == folder.name
        concepts.append(_described(os.path.splitext(name)[0], "", ())[1] if is_loose else sys.intern(above))
    return from_files("imagenet", split, folder.parent, files, concepts)


def _in_archive(split: str, listing: Listing) -> datasets.StimulusSet:
    from timm.data import ImageNetInfo

    classes = ImageNetInfo("imagenet-1k").label_names()
    ids, concepts = [], []
    for name, label in zip(listing.names, listing.labels, strict=True):
        image_id, concept = _described(name, label, classes)
        ids.append(image_id)
        concepts.append(concept)
    datasets.check_unique(ids, lambda index: f"{listing.names[index]} in {listing.archive.path(index)}")
    image_ids = Names.of(ids)
    packed = Packed(image_ids, listing.archive)
    return datasets.StimulusSet("imagenet", split, image_ids, Names.of(concepts), packed)


def _described(name: str, label: str, classes: Sequence[str]) -> tuple[str, str]:
    """Return a picture's id and concept: the class in its name, else that of its label, else its own name."""
    stem, _, last = name.rpartition("_")
    if stem and CLASS.fullmatch(last):  # as the hub names a picture
        return stem, sys.intern(last)
    if match := CLASS_FIRST.fullmatch(name):
        return name, sys.intern(match[1])
    if label.isdecimal() and int(label) < len(classes):
        return name, classes[int(label)]
    return name, name.rsplit("/", 1)[-1]
