"""Any folder of pictures, with a subfolder for each concept."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path, PurePath
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from brainhive_cli.core.base import (
    Bool,
    BrainhiveError,
    Int64,
    MissingData,
    RecipeError,
)
from brainhive_cli.core.files import hint_at_folder, locate, read_lines
from brainhive_cli.core.recipes import Paths, parts
from brainhive_cli.data.datasets import SPLIT_FOLDERS, Dataset
from brainhive_cli.data.downloads import SOURCES
from brainhive_cli.data.files import fetch_line, match_names, summarise_names
from brainhive_cli.data.media import (
    StimulusSet,
    describe_unread,
    find_pictures,
    make_stimulus_set,
)
from brainhive_cli.data.signals import HOLDOUT_FIELD, SEPARATE_TEST, Holdout

FEW_PICTURES = 300
"""Largest number of training pictures for which a ridge is the usual brain encoder."""


class Config(parts.Config):
    """A folder of pictures.

    Subfolders named train, validation (or val) or test are the splits. Without them,
    all pictures are `train`, except that the pictures of a share of concepts, or of
    `test_list`, are `test`.
    """

    offline_encoders: ClassVar[Sequence[str]] = ("lite0", "gabor")
    """Encoders of recipes without encoders, if the default's weights are absent."""

    root: str = Field(
        "", description="the folder; default: image-folder below paths.data"
    )
    name: str = Field(
        "",
        description=(
            "name under which stores and runs are kept; default: the folder's name"
        ),
    )
    test_share: float = Field(
        0.0, ge=0, lt=1, description="share of concepts that are the test split"
    )
    seed: int = Field(0, ge=0, description="seed of the choice of held-out concepts")
    test_list: str = Field(
        "",
        description="text file with a test picture in each line, as CONCEPT/FILE.jpg; "
        "all others are train, and folder names select no splits",
    )
    holdout: Holdout | None = HOLDOUT_FIELD
    exclude_test_concepts: bool = Field(
        True,
        description="with test_list: leave out training pictures of the concepts that "
        "test pictures show",
    )

    @model_validator(mode="after")
    def _require_single_choice(self) -> Self:
        """Refuse several keys that choose the test pictures."""
        choices = []
        for key in ("test_list", "test_share", "holdout"):
            if getattr(self, key):
                choices.append(key)
        if len(choices) > 1:
            raise ValueError(
                f"{' and '.join(choices)} all choose what is tested: leave one"
            )
        if not self.test_list and not self.exclude_test_concepts:
            raise ValueError("exclude_test_concepts needs a test_list")
        return self

    def few_pictures(self, paths: Paths) -> int:
        """Return `FEW_PICTURES`, or 0 if there are more training pictures."""
        n_pictures = len(self.build(paths).images("train"))
        return FEW_PICTURES if n_pictures <= FEW_PICTURES else 0

    def build(self, paths: Paths) -> Dataset:
        """Find the splits of the folder.

        Raises:
            MissingData: if the folder does not exist.
            RecipeError: if `holdout` is set, although folders divide the pictures.
        """
        root = paths.dataset("image-folder", self.root)
        if not root.is_dir():
            raise MissingData(
                f"image-folder: no folder {root}",
                self._find_download(paths, root)
                or hint_at_folder(
                    root, "dataset.root", self.root, "one sub-folder a concept"
                ),
            )
        # a link gives its own name, not its target's
        name = self.name or Path(os.path.abspath(root)).name

        # with a list, folders "train" and "test" may be concepts
        folders: dict[str, str] = {}
        if not self.test_list:
            for split, split_folders in SPLIT_FOLDERS.items():
                for folder in split_folders:
                    if (root / folder).is_dir():
                        folders.setdefault(split, folder)
        if self.holdout and folders.keys() - {"train"}:
            raise RecipeError(
                f"dataset.holdout divides the pictures of train, but {root} also has "
                f"the folder {list(folders)[-1]}",
                "put all pictures into train, or leave holdout out",
            )
        splits = tuple(folders)
        if not splits:
            is_divided = self.test_share or self.test_list
            splits = ("train", "test") if is_divided else ("train",)
        return Dataset(
            name,
            splits,
            partial(_list_images, self, name, root, folders),
            lists=(locate(self.test_list),) if self.test_list else (),
            holdout=self.holdout or SEPARATE_TEST,
        )

    def _find_download(self, paths: Paths, root: Path) -> str:
        """Return the command that fetches the data set of a folder, or ""."""
        for kind, source in SOURCES.items():
            if source.web_files and paths.dataset(kind, "") in root.parents:
                return fetch_line(kind)
        return ""


TINY = Config(test_share=0.5)


def _list_images(
    config: Config, name: str, root: Path, folders: Mapping[str, str], split: str
) -> StimulusSet:
    """List the pictures of a split in the order of their paths.

    Args:
        config: Keys of the data set.
        name: Name of the data set.
        root: Folder of the data set.
        folders: Folder of each split, or {} if no folders divide the pictures.
        split: Name of the split.
    """
    folder = folders.get(split, "")
    unread_counts = Counter[str]()
    files = list(find_pictures(root, folder, unread_counts))
    if not files:
        problem = f"image-folder: no pictures under {root / folder}"
        if unread_counts:
            problem += f", {describe_unread(unread_counts)}"
        raise MissingData(problem, "pictures end in .jpg, .png, .webp …")

    # a picture without a folder is its own concept
    concepts = []
    for file in files:
        path = PurePath(file.removeprefix(f"{folder}/"))
        concepts.append(path.parent.name or path.stem)
    if not folders and (config.test_share or config.test_list):
        rows = _choose_rows(config, root, split, files, np.array(concepts)).tolist()
        files = [files[row] for row in rows]
        concepts = [concepts[row] for row in rows]
    return make_stimulus_set(name, split, root, files, concepts, unread_counts)


def _choose_rows(
    config: Config,
    root: Path,
    split: str,
    files: Sequence[str],
    concepts: NDArray[np.str_],
) -> Int64:
    """Choose the rows of the pictures of a split.

    Args:
        config: Keys of the data set, with a list or a share of concepts to test.
        root: Folder of the data set.
        split: "train" or "test".
        files: Path [N] of each picture below `root`.
        concepts: Concept [N] of each picture.

    Raises:
        RecipeError: if a share of the concepts is none or all of them.
    """
    if config.test_list:
        is_test = _find_listed(locate(config.test_list), root, files)
        is_excluded = is_test
        if config.exclude_test_concepts:
            is_excluded = np.isin(concepts, concepts[is_test])
    else:
        names = np.unique(concepts)
        order = np.random.default_rng(config.seed).permutation(len(names))
        n_test = round(config.test_share * len(names))
        if n_test in (0, len(names)):
            raise RecipeError(
                f"test_share is {config.test_share:g}, which holds out {n_test} of "
                f"{len(names)} concepts in {root}",
                "choose a share that leaves concepts for the training and for the test",
            )
        is_test = np.isin(concepts, names[order[:n_test]])
        is_excluded = is_test
    return np.flatnonzero(is_test if split == "test" else ~is_excluded)


def _find_listed(path: Path, root: Path, files: Sequence[str]) -> Bool:
    """Return True for the pictures [N] that a list names.

    Raises:
        MissingData: if the list cannot be read.
        BrainhiveError: if the list is empty, or names other files than these.
    """
    try:
        lines = read_lines(path)
    except (OSError, ValueError) as error:
        raise MissingData(
            f"no list of test pictures {path}", "dataset.test_list=FILE"
        ) from error

    # names may be quoted, or end in a comma
    names = []
    for line in lines:
        name = line.strip(' ",')
        if name:
            names.append(name)
    hint = "a picture in each line: CONCEPT/FILE.jpg"
    if not names:
        raise BrainhiveError(f"{path} lists no pictures", hint)
    image_ids = [os.path.splitext(file)[0] for file in files]
    rows, unknown_names = match_names(names, image_ids)
    if unknown_names:
        summary = summarise_names(unknown_names, len(names))
        raise BrainhiveError(
            f"{path}: test pictures that are not below {root}, {summary}", hint
        )
    return np.isin(np.arange(len(files)), rows)
