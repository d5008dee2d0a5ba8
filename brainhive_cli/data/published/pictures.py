"""Pictures that a data set of fMRI showed, as files in folders."""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path, PurePath
from typing import ClassVar

from brainhive_cli.core import parts
from brainhive_cli.core.errors import MissingData
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.datasets import (
    PUBLISHED_FACTS,
    ROOT_FIELD,
    Dataset,
    list_split_pictures,
)
from brainhive_cli.data.files.published_files import (
    fetch_line,
    find_below,
    find_file,
    read_splits,
)
from brainhive_cli.data.media.stimuli import (
    StimulusSet,
    find_pictures,
    make_stimulus_set,
)
from brainhive_cli.data.signals.holdout import HOLDOUT_FIELD, SEPARATE_TEST, Holdout

CONCEPT = re.compile(r"n\d{8}(?=_)|[a-z]+(?=\d+$)|.+(?=_\d+[a-z]+$)")
"""Concept in a stem of ImageNet (n01443537_22563), of BOLD5000's scenes (abbey1) and of
THINGS (dog_12s).
"""


class FmriPictures(parts.Config):
    """Pictures that a data set of fMRI showed, as files in folders.

    Attributes:
        name: Name of the data set and of its pictures.
        folders: Folders of the pictures of each split, at most three below root; the
            first counts.
        trials: Pattern of the list of trials that says the split of each picture; empty
            where folders say it.
        people: The data set that has the same subjects, if another has them.
    """

    name: ClassVar[str]
    folders: ClassVar[Mapping[str, Sequence[str]]]
    trials: ClassVar[str] = ""
    people: ClassVar[str] = ""

    root: str = ROOT_FIELD
    holdout: Holdout | None = HOLDOUT_FIELD

    def build(self, paths: Paths) -> Dataset:
        """Point at the data; nothing is read yet."""
        listed = partial(_list_pictures, paths.dataset(self.name, self.root), self)
        return Dataset(
            self.name,
            tuple(self.folders),
            listed,
            holdout=self.holdout or SEPARATE_TEST,
            people=self.people,
            published_sizes=PUBLISHED_FACTS[self.name],
            files=lambda split, _: list_split_pictures(self.name, split, listed),
        )


def _list_pictures(root: Path, config: FmriPictures, split: str) -> StimulusSet:
    """List the pictures of a split, by folders or by the trials that showed them."""
    # the folder of the split
    names = config.folders[split]
    source = fetch_line(config.name)
    folder = next((path for name in names if (path := find_below(root, name))), None)
    if folder is None:
        raise MissingData(
            f"{config.name}: no folder {' or '.join(names)} of pictures in {root}",
            source,
        )

    # where all splits share a folder, image ids begin below it, and trials say the
    # split
    is_shared = all(split_folders == names for split_folders in config.folders.values())
    above, below = (folder, "") if is_shared else (folder.parent, folder.name)
    stems = {file: PurePath(file).stem for file in find_pictures(above, below)}
    if config.trials:
        split_of = read_splits(find_file(root, config.trials, source), source)
        stems = {
            file: stem for file, stem in stems.items() if split_of.get(stem) == split
        }
    # a stem of another form is a concept of its own
    concepts = [
        match[0] if (match := CONCEPT.match(stem)) else stem for stem in stems.values()
    ]
    return make_stimulus_set(config.name, split, above, [*stems], concepts)
