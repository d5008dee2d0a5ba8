"""Any folder of pictures, one sub-folder a concept."""

from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
from pydantic import Field

from brainhive_cli import datasets
from brainhive_cli.core import parts
from brainhive_cli.core.errors import MissingData
from brainhive_cli.core.recipe import Paths
from brainhive_cli.datasets import pictures_below
from brainhive_cli.datasets._pictures import SPLITS, Pictures, from_files


class Config(parts.Config):
    """A folder of pictures.

    With sub-folders named train, validation (or val) or test these are the splits; else all pictures are
    `train`, less the share of concepts held out as `test`.
    """

    root: str = Field("", description="the folder; default: image-folder below paths.data")
    name: str = Field("", description="name under which stores and runs are kept; default: the folder's name")
    test_share: float = Field(0.0, ge=0, lt=1, description="share of concepts held out as the test split")
    seed: int = Field(0, description="seed of the choice of held-out concepts")

    def build(self, paths: Paths) -> Pictures:
        """Open the folder; MissingData when it is absent or empty."""
        root = paths.dataset("image-folder", self.root)
        if not root.is_dir():
            raise MissingData(
                f"image-folder: no folder {root}", "dataset.root=FOLDER, one sub-folder a concept"
            )
        folder = ImageFolder(self.name or root.resolve().name, root, self.test_share, self.seed)
        return Pictures(folder.name, folder.splits, folder.images)


TINY = Config(test_share=0.5)


@dataclass(frozen=True)
class ImageFolder:
    """Pictures below a folder."""

    name: str
    root: Path
    test_share: float
    seed: int

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that the folder has."""
        named = tuple(split for split in SPLITS if self._folder(split))
        return named or (("train", "test") if self.test_share else ("train",))

    def images(self, split: str) -> datasets.StimulusSet:
        """List the pictures of a split, sorted by path."""
        datasets.check_split(self.name, split, self.splits)
        folder = self._folder(split)
        files = list(pictures_below(self.root, folder))
        if not files:
            raise MissingData(
                f"image-folder: no pictures under {self.root}", "pictures end in .jpg, .png, .webp …"
            )
        concepts = [self._concept(file) for file in files]
        if self.test_share and not folder:
            held_out = self._held_out(sorted(set(concepts)))
            keep = [i for i, concept in enumerate(concepts) if (concept in held_out) == (split == "test")]
            files, concepts = [files[i] for i in keep], [concepts[i] for i in keep]
        return from_files(self.name, split, self.root, files, concepts)

    def _folder(self, split: str) -> str:
        return next((folder for folder in SPLITS[split] if (self.root / folder).is_dir()), "")

    def _concept(self, file: str) -> str:
        """Name the sub-folder; a picture directly in the folder, or in a split's, is a concept of its own."""
        path = PurePath(file)
        folders = path.parts[:-1]
        if folders and any(folders[0] in names for names in SPLITS.values()):
            folders = folders[1:]
        return folders[-1] if folders else path.stem

    def _held_out(self, concepts: list[str]) -> set[str]:
        order = np.random.default_rng(self.seed).permutation(len(concepts))
        return {concepts[i] for i in order[: round(self.test_share * len(concepts))]}
