"""Pictures that published fMRI data sets showed, as files: THINGS-fMRI's, and others as rows of it."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePath
from typing import ClassVar

from pydantic import Field

from brainhive_cli.core import parts
from brainhive_cli.core.errors import MissingData
from brainhive_cli.core.inputs import Input
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data import published_data as published
from brainhive_cli.data.datasets import Dataset, StimulusSet, check_split, from_files, pictures_below

CONCEPT = re.compile(r"n\d{8}(?=_)|[a-z]+(?=\d+$)|.+(?=_\d+[a-z]+$)")
"""Concept in a stem of ImageNet (n01443537_22563), of BOLD5000's scenes (abbey1) and of THINGS (dog_12s)."""


class Config(parts.Config):
    """THINGS' pictures that THINGS-fMRI showed, images/CONCEPT/NAME.jpg, in the splits that its trials say.

    Attributes:
        name: Name of the data set and of its pictures.
        folders: Folders of the pictures of each split, at most three below root; the first counts.
        people: The data set that has the same subjects, if another has them.
    """

    name: ClassVar[str] = "things-fmri"
    folders: ClassVar[Mapping[str, Sequence[str]]] = {"train": ["images"], "test": ["images"]}
    people: ClassVar[str] = ""

    root: str = Field("", description="folder of the data set; default: its name below paths.data")

    def build(self, paths: Paths) -> Dataset:
        """Point at the data; nothing is read yet."""
        listed = partial(_images, paths.dataset(self.name, self.root), self)
        return Dataset(
            self.name,
            tuple(self.folders),
            listed,
            people=self.people,
            published_sizes=published.PUBLISHED[self.name],
            files=lambda split, _: [Input.of(f"{self.name}: {split} pictures", partial(listed, split))],
        )


TINY = Config()


def _images(root: Path, config: Config, split: str) -> StimulusSet:
    """List the pictures of a split, by folders or by the trials that showed them."""
    # the folder of the split
    check_split(config.name, split, tuple(config.folders))
    names = config.folders[split]
    folder = next((path for name in names if (path := published.find_below(root, name))), None)
    if folder is None:
        problem = f"{config.name}: no folder {' or '.join(names)} of pictures in {root}"
        raise MissingData(problem, published.fetch_line(config.name))

    # where all splits share a folder, image ids begin below it, and trials say the split
    is_shared = all(split_folders == names for split_folders in config.folders.values())
    above, below = (folder, "") if is_shared else (folder.parent, folder.name)
    stems = {file: PurePath(file).stem for file in pictures_below(above, below)}
    if config.name in SPLITS:
        split_of = SPLITS[config.name](root)
        stems = {file: stem for file, stem in stems.items() if split_of.get(stem) == split}
    concepts = [match[0] if (match := CONCEPT.match(stem)) else stem for stem in stems.values()]
    return from_files(config.name, split, above, [*stems], concepts)


def _read_things_split(root: Path) -> dict[str, str]:
    """Read the split of each picture by the trials of any subject: all saw the same."""
    # the table of any subject names the stimulus and the trial_type of each trial
    source = published.fetch_line("things-fmri")
    table = published.find_file(root, "sub-*_StimulusMetadata.csv", source)
    rows = published.read_table(
        table, source, lambda row: (PurePath(row["stimulus"]).stem, row["trial_type"])
    )
    return dict(rows)


def _read_bold5000_split(root: Path) -> dict[str, str]:
    """Read the split of each picture: pictures that were shown more than once are the test."""
    path = published.find_file(root, published.BOLD5000_LIST % "[1-4]", published.fetch_line("bold5000"))
    counts = Counter(published.read_bold5000_names(path))
    return {name: "test" if count > 1 else "train" for name, count in counts.items()}


SPLITS: Mapping[str, Callable[[Path], dict[str, str]]] = {
    "things-fmri": _read_things_split,
    "bold5000": _read_bold5000_split,
}
"""Reader of the split of each picture, by the stem of its file, where folders do not say it."""
