"""Pictures that an fMRI data set showed, as files in folders."""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path, PurePath
from typing import ClassVar

from brainhive_cli.core.base import MissingData
from brainhive_cli.core.recipes import Paths, parts
from brainhive_cli.data.datasets import (
    PUBLISHED_FACTS,
    ROOT_FIELD,
    Dataset,
    list_split_pictures,
)
from brainhive_cli.data.files import fetch_line, find_below, find_file, read_splits
from brainhive_cli.data.media import StimulusSet, find_pictures, make_stimulus_set
from brainhive_cli.data.signals import HOLDOUT_FIELD, SEPARATE_TEST, Holdout


class FmriPictures(parts.Config):
    """Pictures that a data set of fMRI showed, as files in folders.

    Attributes:
        name: Name of the data set and of its pictures.
        folders: Folders of the pictures of each split, at most three below root. The
            first that is there counts.
        trials: Pattern of the list of trials that has the split of each picture, or ""
            if each split has its own folder.
        people: Data set with the same subjects, if there is any.
    """

    name: ClassVar[str]
    folders: ClassVar[Mapping[str, Sequence[str]]]
    trials: ClassVar[str] = ""
    people: ClassVar[str] = ""

    root: str = ROOT_FIELD
    holdout: Holdout | None = HOLDOUT_FIELD

    def build(self, paths: Paths) -> Dataset:
        """Make the data set. No file is read yet."""
        root = paths.dataset(self.name, self.root)
        list_pictures = partial(_list_pictures, root, self)
        return Dataset(
            self.name,
            tuple(self.folders),
            list_pictures,
            holdout=self.holdout or SEPARATE_TEST,
            people=self.people,
            published_sizes=PUBLISHED_FACTS[self.name],
            files=lambda split, _: list_split_pictures(self.name, split, list_pictures),
        )


def _find_folder(root: Path, config: FmriPictures, split: str) -> Path:
    """Find the first folder of a split's pictures, or raise MissingData."""
    names = config.folders[split]
    for name in names:
        folder = find_below(root, name)
        if folder is not None:
            return folder
    raise MissingData(
        f"{config.name}: no folder {' or '.join(names)} of pictures in {root}",
        fetch_line(config.name),
    )


def _list_pictures(root: Path, config: FmriPictures, split: str) -> StimulusSet:
    """List the pictures of a split by its folder, or by the list of trials."""
    folder = _find_folder(root, config, split)
    image_root = folder.parent
    subfolder = folder.name
    # ids begin below a folder that all splits share
    if all(names == config.folders[split] for names in config.folders.values()):
        image_root = folder
        subfolder = ""

    split_of = {}
    if config.trials:
        source = fetch_line(config.name)
        split_of = read_splits(find_file(root, config.trials, source), source)
    paths = []
    concepts = []
    # Concept in the name of a picture of ImageNet (n01443537_22563), of
    # BOLD5000's scenes (abbey1) and of THINGS (dog_12s). Any other picture is a
    # concept of its own.
    concept = r"n\d{8}(?=_)|[a-z]+(?=\d+$)|.+(?=_\d+[a-z]+$)|.+"
    for path in find_pictures(image_root, subfolder):
        stem = PurePath(path).stem
        if not config.trials or split_of.get(stem) == split:
            paths.append(path)
            concepts.append(re.findall(concept, stem)[0])
    return make_stimulus_set(config.name, split, image_root, paths, concepts)
