"""Any folder of pictures, one sub-folder a concept."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import Field

from brainhive_cli import datasets, parts
from brainhive_cli.errors import MissingData
from brainhive_cli.recipe import Paths
from brainhive_cli.recordings import Recording

SPLITS = ("train", "validation", "test")


class Config(parts.Config):
    """A folder of pictures.

    With sub-folders named train, validation or test these are the splits; else all pictures are `train`,
    less the share of concepts held out as `test`.
    """

    root: str = Field("", description="the folder; default: image-folder below paths.data")
    name: str = Field("", description="name under which stores and runs are kept; default: the folder's name")
    test_share: float = Field(0.0, ge=0, lt=1, description="share of concepts held out as the test split")
    seed: int = Field(0, description="seed of the choice of held-out concepts")

    def build(self, paths: Paths) -> "ImageFolder":
        """Open the folder; MissingData when it is absent or empty."""
        root = Path(self.root) if self.root else paths.under_home("data") / "image-folder"
        if not root.is_dir():
            raise MissingData(
                f"image-folder: no folder {root}", "dataset.root=FOLDER, one sub-folder a concept"
            )
        return ImageFolder(self.name or root.resolve().name, root, self.test_share, self.seed)


TINY = Config(test_share=0.5)


@dataclass(frozen=True)
class ImageFolder:
    """Pictures below a folder; it has no recordings."""

    name: str
    root: Path
    test_share: float
    seed: int
    subjects: tuple[int, ...] = ()
    channels: tuple[str, ...] | None = None

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that the folder has."""
        named = tuple(split for split in SPLITS if (self.root / split).is_dir())
        return named or (("train", "test") if self.test_share else ("train",))

    @property
    def recorded_as(self) -> str:
        """The name that its signals are kept under."""
        return self.name

    def images(self, split: str) -> datasets.ImageSet:
        """List the pictures of a split, sorted by path."""
        datasets.check_split(self, split)
        is_named = (self.root / split).is_dir()
        files = datasets.pictures_below(self.root / split if is_named else self.root)
        if not files:
            raise MissingData(
                f"image-folder: no pictures under {self.root}", "pictures end in .jpg, .png, .webp …"
            )
        concepts = [self._concept(file) for file in files]
        if self.test_share and not is_named:
            held_out = self._held_out(sorted(set(concepts)))
            keep = [i for i, concept in enumerate(concepts) if (concept in held_out) == (split == "test")]
            files, concepts = [files[i] for i in keep], [concepts[i] for i in keep]
        return datasets.from_files(self.name, split, self.root, files, concepts)

    def _concept(self, file: Path) -> str:
        """Name the sub-folder; a picture directly in the folder, or in a split's, is a concept of its own."""
        folders = file.relative_to(self.root).parent.parts
        folders = folders[1:] if folders[:1] in {(split,) for split in SPLITS} else folders
        return folders[-1] if folders else file.stem

    def _held_out(self, concepts: list[str]) -> set[str]:
        order = np.random.default_rng(self.seed).permutation(len(concepts))
        return {concepts[i] for i in order[: round(self.test_share * len(concepts))]}

    def recording(self, subject: int, split: str) -> Recording:
        """Refuse: a folder of pictures holds no recordings."""
        raise MissingData(
            f"{self.name} is a folder of pictures and has no recordings",
            "use a data set with signals, or dataset.kind=simulated",
        )
