"""What a model learned from: it is kept in the model folder and inherited by whatever starts from it."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from brainhive_cli.core import documents, weights
from brainhive_cli.core.caveats import (
    SELECTED_ON_TEST,
    TRAINED_ON_SIMULATED,
    UNKNOWN_PICTURES,
    UNKNOWN_SELECTION,
    WHITENED_BY_TESTED,
    merge_caveats,
)
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.signals.normalisation import Normaliser

FILE = "learned.safetensors"
"""The file of its arrays in a model folder; all else is the block `learned` of its config."""
BLOCK = "learned.json"
"""The file of that block in a folder whose config has another format."""
HARMLESS_FIRST = ("last epoch", "validation", "", "test")
"""What may have selected an epoch ("" where nothing says). Of two, the later stands for both."""
JOINED = " + "
"""Between the names of several data sets."""

Hashes = NDArray[np.uint64]


def hashes_of(dataset: str, image_ids: Sequence[str]) -> Hashes:
    """Hash the names of a data set's pictures to 64 bits each: [N]."""
    joined = b"".join(
        hashlib.blake2b(f"{dataset}\0{image_id}".encode(), digest_size=8).digest() for image_id in image_ids
    )
    return np.frombuffer(joined, "<u8").astype(np.uint64)


def _none() -> Hashes:
    return np.empty(0, np.uint64)


@dataclass(frozen=True, eq=False)
class LearnedPictures:
    """The pictures that a model learned from: a picture is known again by its name or by its pixels.

    Attributes:
        names: [N] `hashes_of` the pictures, ascending.
        pixels: [P] digests of their pixels, ascending; of those pictures whose target stores have them.
        has_all_pixels: Whether every picture's pixels are known.
    """

    names: Hashes = field(default_factory=_none)
    pixels: Hashes = field(default_factory=_none)
    has_all_pixels: bool = False

    @classmethod
    def of(cls, dataset: str, image_ids: Sequence[str], pixels: Hashes | None = None) -> Self:
        """Describe pictures of a data set.

        Args:
            dataset: The name of its pictures.
            image_ids: [N].
            pixels: [N] digests of their pixels; None where no store has them.
        """
        names = np.unique(hashes_of(dataset, image_ids))
        return cls(names, _none() if pixels is None else np.unique(pixels), pixels is not None)

    def __len__(self) -> int:
        """Count the names."""
        return len(self.names)

    def __or__(self, other: Self) -> Self:
        """Join two lists of pictures."""
        return type(self)(
            np.union1d(self.names, other.names),
            np.union1d(self.pixels, other.pixels),
            self.has_all_pixels and other.has_all_pixels,
        )

    def contain(
        self, dataset: str, image_ids: Sequence[str], pixels: Hashes | None = None
    ) -> NDArray[np.bool_]:
        """Find which pictures of a data set are among these, by name or by pixels: [N]; arguments as `of`."""
        among: NDArray[np.bool_] = np.isin(hashes_of(dataset, image_ids), self.names)
        return among if pixels is None else among | np.isin(pixels, self.pixels)

    @property
    def arrays(self) -> dict[str, Hashes]:
        """The arrays by the names that they are saved under."""
        return {"pictures": self.names, "pixels": self.pixels}

    @property
    def digest(self) -> str:
        """What identifies them."""
        return hashlib.sha256(self.names.tobytes() + self.pixels.tobytes()).hexdigest()[:16]


class _Pictures(BaseModel):
    count: int
    has_all_pixels: bool
    digest: str


class Block(BaseModel):
    """What a config says of a `Learned`; its attributes without the arrays."""

    model_config = ConfigDict(extra="forbid")

    selection: Literal["last epoch", "validation", "", "test"]
    dataset: str
    recordings: str
    subjects: tuple[int, ...]
    split: str
    preparation: dict[str, Any]
    is_simulated: bool
    is_whitened_by_tested: bool
    pictures: _Pictures


@dataclass(frozen=True, eq=False)
class Learned:
    """What a model learned from, with all that it started from; without arguments it is not known.

    Attributes:
        selection: What selected the kept epoch: "validation", "last epoch" or "test"; "" where it is not
            known. A test anywhere in a model's history is kept.
        dataset: Name of the data set; "" where it is not known.
        recordings: The name that its signals are kept under.
        preparation: The signal section of the recipe.
        is_simulated: Whether the provenance of some of the signals says that a program made them.
        is_whitened_by_tested: Whether it says that noise of test trials had a part in their whitening.
        pictures: With those held out for validation; empty where they are not known.
        normaliser: The mean of the subjects' own, for others; None where these are normalised by themselves.
    """

    selection: str = ""
    dataset: str = ""
    recordings: str = ""
    subjects: tuple[int, ...] = ()
    split: str = "train"
    preparation: dict[str, Any] = field(default_factory=dict)
    is_simulated: bool = False
    is_whitened_by_tested: bool = False
    pictures: LearnedPictures = field(default_factory=LearnedPictures)
    normaliser: Normaliser | None = None

    def after(self, before: Self) -> Self:
        """Add what the model that training started from had learned from."""
        datasets = dict.fromkeys(filter(None, [before.dataset, self.dataset]))
        return replace(
            self,
            selection=max(self.selection, before.selection, key=HARMLESS_FIRST.index),
            dataset=JOINED.join(datasets),
            subjects=tuple(sorted({*self.subjects, *before.subjects})),
            is_simulated=self.is_simulated or before.is_simulated,
            is_whitened_by_tested=self.is_whitened_by_tested or before.is_whitened_by_tested,
            pictures=self.pictures | before.pictures,
        )

    @property
    def caveats(self) -> list[str]:
        """Caveats of every number that depends on the model."""
        found = {"": [UNKNOWN_SELECTION], "test": [SELECTED_ON_TEST]}.get(self.selection, [])
        signals = [TRAINED_ON_SIMULATED] if self.is_simulated else []
        signals += [WHITENED_BY_TESTED] if self.is_whitened_by_tested else []
        return merge_caveats(signals, [] if self.pictures.has_all_pixels else [UNKNOWN_PICTURES], found)

    def has_seen_ids(self, image_ids: Sequence[str]) -> NDArray[np.bool_]:
        """Find which image ids it learned from, in any data set: [N]; these may be other pictures."""
        seen: NDArray[np.bool_] = np.any(
            [self.pictures.contain(name, image_ids) for name in self.dataset.split(JOINED)], axis=0
        )
        return seen

    def normaliser_of(self, subject: int) -> Normaliser | None:
        """Return what normalises a subject's signals; None: it comes from the subject's training signals."""
        return None if subject in self.subjects else self.normaliser

    def save(self, folder: Path) -> dict[str, Any]:
        """Write the arrays; return the block for the config."""
        arrays = {**self.pictures.arrays, **(vars(self.normaliser) if self.normaliser else {})}
        weights.save(folder / FILE, {name: torch.as_tensor(array) for name, array in arrays.items()})
        plain = {key: value for key, value in vars(self).items() if key not in ("pictures", "normaliser")}
        of_pictures = self.pictures
        block = _Pictures(
            count=len(of_pictures), has_all_pixels=of_pictures.has_all_pixels, digest=of_pictures.digest
        )
        return plain | {"pictures": block.model_dump()}

    def write(self, folder: Path) -> None:
        """Write all into a folder whose config has another format, as a prior's."""
        (folder / BLOCK).write_text(json.dumps(self.save(folder), indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read back what `write` wrote, as `load` does; not known where there is no such file."""
        block = folder / BLOCK
        return cls.load(folder, documents.read(block, Block)) if block.is_file() else cls()

    @classmethod
    def load(cls, folder: Path, block: Block) -> Self:
        """Read back what `save` wrote.

        Raises:
            BrainhiveError: if the file is damaged, or not the one that the block was written with.
        """
        with weights.reading(folder / FILE, documents.AGAIN, BrainhiveError):
            found = weights.read(folder / FILE, documents.AGAIN, BrainhiveError)
            arrays = {name: value.numpy() for name, value in found.items()}
            pictures = LearnedPictures(
                arrays.pop("pictures"), arrays.pop("pixels"), block.pictures.has_all_pixels
            )
            if pictures.digest != block.pictures.digest:
                raise ValueError("it does not belong to its config.json")
            normaliser = Normaliser(**arrays) if arrays else None
            return cls(**{**dict(block), "pictures": pictures, "normaliser": normaliser})
