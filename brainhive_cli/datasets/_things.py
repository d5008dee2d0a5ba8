"""The layout in which THINGS-EEG and THINGS-MEG are distributed: pictures by concept, signals by subject."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from brainhive_cli import datasets, parts, pickles
from brainhive_cli.datasets._files import from_files, pictures_below
from brainhive_cli.errors import BrainhiveError, MissingData
from brainhive_cli.recipe import Paths
from brainhive_cli.recordings import Recording

FOLDERS = {"train": "training_images", "test": "test_images"}


class Layout(parts.Config):
    """Where the files of a THINGS data set lie."""

    root: str = Field("", description="folder of the data set; default: its name below paths.data")
    signals: str = Field("Preprocessed_data*", description="folder of sub-XX/{train,test}.pt below root")
    trust_pickle: bool = Field(False, description="read files that hold Python objects, which can run code")

    def open(self, paths: Paths, name: str, **known: Any) -> "Things":
        """Point at the data; nothing is read yet."""
        root = Path(self.root) if self.root else paths.under_home("data") / name
        return Things(name, root, self.signals, self.trust_pickle, **known)


@dataclass(frozen=True)
class Things:
    """A THINGS data set below one root.

    Attributes:
        signals: Folder of sub-XX/{train,test}.pt below root; may be a pattern.
        key: What the signal is called in the files (`eeg`, `meg`).
        montage: Channel names in the files' order, used when the files hold none.
        channels: The channels that decoding uses unless told otherwise.
        source: The line that fetches the data.
    """

    name: str
    root: Path
    signals: str
    trust_pickle: bool
    key: str
    rate_hz: float
    unit: str
    montage: tuple[str, ...]
    channels: tuple[str, ...] | None
    subjects: tuple[int, ...]
    source: str
    splits: tuple[str, ...] = ("train", "test")
    is_simulated: bool = False

    @property
    def recorded_as(self) -> str:
        """The name that its signals are kept under: another one for a preparation that was chosen by name."""
        return self.name if "*" in self.signals else f"{self.name}--{self.signals.replace('/', '--')}"

    def images(self, split: str) -> datasets.ImageSet:
        """List the pictures of a split: `<root>/**/{training,test}_images/<concept>/*`."""
        datasets.check_split(self.name, split, self.splits)
        found = sorted(path for path in self.root.rglob(FOLDERS[split]) if path.is_dir())
        files = list(pictures_below(found[0].parent, found[0].name)) if found else []
        if not files:
            raise MissingData(
                f"{self.name}: no pictures in {self.root}/**/{FOLDERS[split]}/<concept>/*.jpg", self.source
            )
        concepts = [file.split("/")[-2] for file in files]
        return from_files(self.name, split, found[0].parent, files, concepts)

    def require(self, subject: int) -> None:
        """Hold that a subject's files are there."""
        for split in self.splits:
            self._file(f"sub-{subject:02d}/{split}.pt")

    def recording(self, subject: int, split: str) -> Recording:
        """Open `<signals>/sub-XX/{train,test}.pt`: a dict of the signal [N, R, C, T] and `img` [N, R]."""
        datasets.check_split(self.name, split, self.splits)
        path = self._file(f"sub-{subject:02d}/{split}.pt")
        content = self._load(path)
        if self.key not in content or "img" not in content:
            raise BrainhiveError(
                f"{path} has keys {sorted(content)}, not {self.key!r} and 'img'", self.source
            )
        signal = content[self.key]
        if signal.ndim != 4 or len(signal) != len(content["img"]):
            shape, pictures = list(signal.shape), len(content["img"])
            raise BrainhiveError(
                f"{path} has signals {shape} for {pictures} pictures, not [N, R, C, T]", self.source
            )
        times_s = np.asarray(content.get("times", np.arange(signal.shape[-1]) / self.rate_hz), np.float64)
        return Recording(
            signal=signal,
            image_ids=_image_ids(content["img"]),
            channels=self._channel_names(content, signal.shape[2], path),
            times_s=times_s,
            rate_hz=self.rate_hz,
            unit=self.unit,
            provenance={"source": path.name, "dataset": self.name, "subject": subject, "split": split},
        )

    def _file(self, below: str) -> Path:
        found = sorted(self.root.glob(f"{self.signals}/{below}"))
        if not found:
            raise MissingData(f"{self.name}: no recording {self.root}/{self.signals}/{below}", self.source)
        if len(found) > 1:
            names = ", ".join(path.relative_to(self.root).parts[0] for path in found)
            raise MissingData(
                f"{self.name}: several recordings of {below}: {names}", "dataset.signals=ONE_OF_THEM"
            )
        return found[0]

    def _load(self, path: Path) -> Mapping[str, Any]:
        try:
            content: Mapping[str, Any] = pickles.load(path, self.trust_pickle)
        except pickles.HoldsObjects as error:
            hint = "if you trust whoever made it: dataset.trust_pickle=true"
            raise pickles.HoldsObjects(error.what, hint) from error
        return content

    def _channel_names(self, content: Mapping[str, Any], count: int, path: Path) -> tuple[str, ...]:
        """A channel list found with the data always wins."""
        found = next((content[key] for key in ("ch_names", "channels") if key in content), None)
        names = tuple(map(str, found)) if found is not None else self.montage
        if not names:
            names = tuple(f"{self.key.upper()}{number:03d}" for number in range(1, count + 1))
        if len(names) != count:
            raise BrainhiveError(f"{path} has {count} channels, its list names {len(names)}", self.source)
        return names


def _image_ids(images: Any) -> list[str]:
    """Turn `img` [N, R] paths into image ids, or stems where that is all there is."""
    first = [row[0] if isinstance(row, list | tuple | np.ndarray) else row for row in images]
    ids = [Path(str(path)).with_suffix("").as_posix() for path in first]
    return [next((i[i.index(f) :] for f in FOLDERS.values() if f in i), i.rsplit("/", 1)[-1]) for i in ids]
