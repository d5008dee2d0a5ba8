"""Any folder of pictures, one sub-folder a concept."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from brainhive_cli.core import home, parts
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.files import read_regular
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data import datasets
from brainhive_cli.data.datasets import pictures_below
from brainhive_cli.data.datasets._pictures import SPLITS, Pictures, from_files
from brainhive_cli.data.stores.ids import match_names, summarise_names


class Config(parts.Config):
    """A folder of pictures.

    With sub-folders named train, validation (or val) or test these are the splits; else all pictures are
    `train`, less the share of concepts held out as `test`, or the pictures that `test_list` names.
    """

    root: str = Field("", description="the folder; default: image-folder below paths.data")
    name: str = Field("", description="name under which stores and runs are kept; default: the folder's name")
    test_share: float = Field(0.0, ge=0, lt=1, description="share of concepts held out as the test split")
    seed: int = Field(0, ge=0, description="seed of the choice of held-out concepts")
    test_list: str = Field(
        "",
        description="text file with a test picture in each line, as CONCEPT/FILE.jpg; all others are train, "
        "whatever folders are called",
    )
    exclude_test_concepts: bool = Field(
        True, description="with test_list: leave training pictures out whose concept a test picture shows"
    )

    @model_validator(mode="after")
    def _chooses_test_pictures_once(self) -> Self:
        if self.test_list and self.test_share:
            raise ValueError("test_list and test_share both choose the test pictures")
        if not (self.test_list or self.exclude_test_concepts):
            raise ValueError("exclude_test_concepts needs a test_list")
        return self

    def build(self, paths: Paths) -> Pictures:
        """Open the folder; MissingData when it is absent or empty."""
        root = paths.dataset("image-folder", self.root)
        if not root.is_dir():
            raise MissingData(
                f"image-folder: no folder {root}", "dataset.root=FOLDER, one sub-folder a concept"
            )
        # as the user calls it, whatever a link of that name leads to
        folder = ImageFolder(self.name or Path(os.path.abspath(root)).name, root, self)
        lists = (home.located(self.test_list),) if self.test_list else ()
        return Pictures(folder.name, folder.splits, folder.images, lists=lists)


TINY = Config(test_share=0.5)


@dataclass(frozen=True)
class ImageFolder:
    """Pictures below a folder."""

    name: str
    root: Path
    config: Config

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that the folder has."""
        named = tuple(split for split in SPLITS if self._folder(split))
        return named or (("train", "test") if self._is_divided else ("train",))

    def images(self, split: str) -> datasets.StimulusSet:
        """List the pictures of a split, sorted by path."""
        datasets.check_split(self.name, split, self.splits)
        folder = self._folder(split)
        files = list(pictures_below(self.root, folder))
        if not files:
            raise MissingData(
                f"image-folder: no pictures under {self.root}", "pictures end in .jpg, .png, .webp …"
            )
        concepts = [_concept(file.removeprefix(f"{folder}/")) for file in files]
        if self._is_divided and not folder:
            keep = self._chosen(split, files, np.array(concepts)).tolist()
            files, concepts = [files[i] for i in keep], [concepts[i] for i in keep]
        return from_files(self.name, split, self.root, files, concepts)

    @property
    def _is_divided(self) -> bool:
        return bool(self.config.test_share or self.config.test_list)

    def _folder(self, split: str) -> str:
        if self.config.test_list:  # `train` and `test` may be concepts
            return ""
        return next((folder for folder in SPLITS[split] if (self.root / folder).is_dir()), "")

    def _chosen(self, split: str, files: Sequence[str], concepts: NDArray[np.str_]) -> NDArray[np.int64]:
        """Choose the pictures of a split among all."""
        if self.config.test_list:
            is_test = self._is_listed(home.located(self.config.test_list), files)
            is_tested = np.isin(concepts, concepts[is_test]) if self.config.exclude_test_concepts else is_test
        else:
            is_test = is_tested = np.isin(concepts, self._held_out(sorted(set(concepts.tolist()))))
        return np.flatnonzero(is_test if split == "test" else ~is_tested)

    def _is_listed(self, path: Path, files: Sequence[str]) -> NDArray[np.bool_]:
        """Say which pictures a list names, or refuse what is no list of pictures."""
        try:
            lines = read_regular(path).decode("utf-8-sig").splitlines()
        except (OSError, ValueError) as error:
            raise MissingData(f"no list of test pictures {path}", "dataset.test_list=FILE") from error
        hint = "a picture in each line: CONCEPT/FILE.jpg"
        if not (names := [name for line in lines if (name := line.strip(' ",'))]):
            raise BrainhiveError(f"{path} lists no pictures", hint)
        found = match_names(names, [os.path.splitext(file)[0] for file in files], each_once=False)
        if found.unknown:
            unknown = summarise_names(found.unknown, len(names))
            raise BrainhiveError(f"{path}: test pictures that are not below {self.root}, {unknown}", hint)
        return np.isin(np.arange(len(files)), found.rows)

    def _held_out(self, concepts: list[str]) -> list[str]:
        order = np.random.default_rng(self.config.seed).permutation(len(concepts))
        return [concepts[i] for i in order[: round(self.config.test_share * len(concepts))]]


def _concept(file: str) -> str:
    """Name the sub-folder; a picture directly in the folder, or in a split's, is a concept of its own."""
    path = PurePath(file)
    return path.parent.name or path.stem
