"""The layout in which THINGS-EEG and THINGS-MEG are distributed: pictures by concept, signals by subject."""

import os
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import Field

from brainhive_cli.core import console, parts
from brainhive_cli.core.damage import RAISED, is_of_the_machine
from brainhive_cli.core.errors import BrainhiveError, MissingData, first_line
from brainhive_cli.core.recipe import Paths, Pattern
from brainhive_cli.data import datasets
from brainhive_cli.data.datasets import pictures_below
from brainhive_cli.data.datasets._archives import unpacking
from brainhive_cli.data.datasets._pictures import from_files
from brainhive_cli.data.stores import pickles
from brainhive_cli.data.stores.ids import Names
from brainhive_cli.data.stores.published_signals import (
    CALLED,
    FOLDERS,
    KEYS,
    PATHS,
    Usual,
    has_signal,
    image_id,
    recording,
)
from brainhive_cli.data.stores.recordings import Recording
from brainhive_cli.measurement.units import AlikeBy

FILES = {
    "train": ("train.pt", "preprocessed_eeg_training.npy"),
    "test": ("test.pt", "preprocessed_eeg_test.npy"),
}
"""What the file of a split's signals is called; the second, of NICE, ATM and AlignVis, is a bare pickle."""
RESIZED = "resize"
"""What is in the name of a folder of pictures that were squashed to 224 × 224 (Image_set_Resize)."""


class Layout(parts.Config):
    """Where the files of a THINGS data set lie."""

    root: str = Field("", description="folder of the data set; default: its name below paths.data")
    signals: Pattern = Field(
        "",
        description="folder of sub-XX/{train,test}.pt below root, or a pattern; default: the published one",
    )
    trust_pickle: bool = Field(
        False, description="read files that hold other objects than arrays and lists, which can run code"
    )

    def open(self, paths: Paths, name: str, published: str, source: str, **known: Any) -> "Things":
        """Point at the data; nothing is read yet."""
        root = paths.dataset(name, self.root)
        fetch = shlex.join(["hf", "download", source, "--repo-type", "dataset", "--local-dir", str(root)])
        return Things(name, root, self.signals or published, published, self.trust_pickle, fetch, **known)


@dataclass(frozen=True)
class Things:
    """A THINGS data set below one root.

    Attributes:
        signals: Folder of sub-XX/{train,test}.pt below root; may be a pattern.
        published: What that folder is called in the files as they are distributed.
        fetch: The line that downloads the data.
        mirror: Where else they are.
        montage: Channel names in the files' order, used when the files hold none.
        channels: The channels that decoding uses by default.
    """

    name: str
    root: Path
    signals: str
    published: str
    trust_pickle: bool
    fetch: str
    mirror: str
    rate_hz: float
    unit: str
    montage: tuple[str, ...]
    channels: tuple[str, ...] | None
    subjects: tuple[int, ...]
    splits: tuple[str, ...] = ("train", "test")
    alike_by: AlikeBy = "concept"
    is_simulated: bool = False

    @property
    def recorded_as(self) -> str:
        """The name that its signals are kept under: another one for a preparation that was chosen by name."""
        is_usual = "*" in self.signals or self.signals == self.published
        return self.name if is_usual else f"{self.name}--{self.signals.replace('/', '--')}"

    @property
    def pictured_as(self) -> str:
        """The name of the pictures."""
        return self.name

    def images(self, split: str) -> datasets.StimulusSet:
        """List the pictures of a split: `<root>/**/{training,train,test}_images/<concept>/*`.

        Of several such folders the originals are taken, rather than resized ones.
        """
        datasets.check_split(self.name, split, self.splits)
        folders = sorted(self._picture_folders(split), key=lambda path: (_is_resized(path, self.root), path))
        folder = next((path for path in folders if any(pictures_below(path))), None)
        if folder is None:
            place, needed = FOLDERS[split][0], [f"{name}/" for name in FOLDERS[split]]
            raise self._missing(f"pictures in {self.root}/**/{place}/<concept>/*.jpg", *needed)
        _say_once(_choice(self.name, split, folder, folders, _is_resized(folder, self.root)))
        files = list(pictures_below(folder.parent, folder.name))
        images = from_files(self.name, split, folder.parent, files, [file.split("/")[-2] for file in files])
        return replace(images, image_ids=Names.of(map(image_id, files)))

    def _picture_folders(self, split: str) -> Iterator[Path]:
        for here, below, _ in os.walk(self.root, followlinks=True):
            yield from (Path(here, name) for name in below if name in FOLDERS[split])
            below[:] = [name for name in below if name not in CALLED]

    def require(self, subject: int) -> None:
        """Hold that a subject's files are there."""
        for split in self.splits:
            self._file(subject, split)

    def recording(self, subject: int, split: str) -> Recording:
        """Open `<signals>/sub-XX/{train,test}.pt`: a dict of the signal [N, R, C, T] and `img` [N, R].

        Files without `img` (NICE's) are in the order of the pictures' paths.
        """
        datasets.check_split(self.name, split, self.splits)
        path = self._file(subject, split)
        content = self._load(path)
        if not has_signal(content, KEYS[:2]):
            held = f"has keys {sorted(map(str, content))}" if isinstance(content, Mapping) else "is no dict"
            raise BrainhiveError(f"{path} {held}, not {KEYS[0]!r} and {PATHS[0]!r}", self.fetch)
        usual = Usual(self.rate_hz, self.unit, self.montage, lambda: self.images(split).image_ids)
        provenance = {"source": path.name, "dataset": self.name, "subject": subject, "split": split}
        try:
            return recording(path, content, split, usual, provenance)
        except (BrainhiveError, *RAISED) as error:
            if isinstance(error, MissingData) or is_of_the_machine(error):
                raise
            raise BrainhiveError(f"{path}: {first_line(error)}", self.fetch) from error

    def _file(self, subject: int, split: str) -> Path:
        folder = f"{self.signals}/sub-{subject:02d}"
        found = next(filter(None, (sorted(self.root.glob(f"{folder}/{name}")) for name in FILES[split])), [])
        if not found:
            below = f"sub-{subject:02d}/{split}.pt"
            raise self._missing(f"recording {self.root}/{self.signals}/{below}", below)
        if len(found) > 1:
            names = ", ".join(path.relative_to(self.root).parts[0] for path in found)
            raise MissingData(
                f"{self.name}: several recordings of sub-{subject:02d}/{split}: {names}",
                "dataset.signals=ONE_OF_THEM",
            )
        return found[0]

    def _missing(self, what: str, *needed: str) -> MissingData:
        """Say what is not there; and how to unpack it, or to download and unpack it."""
        if line := unpacking(self.root, needed):
            return MissingData(f"{self.name}: archives are there, but not unpacked: no {what}", line)
        root = shlex.quote(str(self.root))
        unpack = f"unzip -nq ARCHIVE.zip -d {root}, tar -xf ARCHIVE.tar.gz -C {root}"
        return MissingData(
            f"{self.name}: no {what}", f"{self.fetch} ({self.mirror}), then unpack its archives ({unpack})"
        )

    def _load(self, path: Path) -> Any:
        try:
            return pickles.load(path, self.trust_pickle)
        except pickles.HoldsObjects as error:
            hint = "if you trust whoever made it: dataset.trust_pickle=true"
            raise pickles.HoldsObjects(error.message, hint) from error
        except MissingData as error:
            raise MissingData(error.message, self.fetch) from error


def _is_resized(folder: Path, root: Path) -> bool:
    return RESIZED in folder.relative_to(root).as_posix().lower()


def _choice(name: str, split: str, folder: Path, folders: list[Path], is_resized: bool) -> str:
    """Say which pictures are taken, where there was a choice or should have been; else nothing."""
    others = ", ".join(str(path) for path in folders if path != folder)
    label = f"{name}: {split} pictures of {folder}"
    if is_resized:
        return f"{label}, resized ones: no folder of the originals is there"
    return f"{label}, not of {others}" if others else ""


@cache  # of a process that opens a data set several times, once
def _say_once(text: str) -> None:
    if text:
        console.say(text)
