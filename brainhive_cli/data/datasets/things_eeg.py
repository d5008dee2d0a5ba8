"""THINGS-EEG2, and THINGS-MEG as a row of it: pictures by concept, and signals by subject, as distributed."""

import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from brainhive_cli.core import console, parts
from brainhive_cli.core.archives import TAR, ZIP, is_archive, open_members
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.files import walk
from brainhive_cli.core.recipe import Paths, Pattern
from brainhive_cli.data.datasets import Dataset, StimulusSet, check_split, from_files, pictures_below
from brainhive_cli.data.published_data import PUBLISHED, fetch_line
from brainhive_cli.data.stores import pickles
from brainhive_cli.data.stores.ids import Names
from brainhive_cli.data.things_files import (
    CALLED,
    FOLDERS,
    KEYS,
    PATHS,
    SHOWN,
    THINGS_EEG,
    has_signal,
    image_id,
    make_recording,
    refusing,
)
from brainhive_cli.data.trials import Trials

FILES = {
    "train": ("train.pt", "preprocessed_eeg_training.npy"),
    "test": ("test.pt", "preprocessed_eeg_test.npy"),
}
"""Names of the file of a split's signals; the second, of NICE, ATM and AlignVis, is a bare pickle."""
# the channels of the back of the head, which decoding papers use
POSTERIOR = tuple("P7 P5 P3 P1 Pz P2 P4 P6 P8 PO7 PO3 POz PO4 PO8 O1 Oz O2".split())
RESIZED = "resize"
"""Part of the name of a folder of pictures that were squashed to 224 × 224 (Image_set_Resize)."""
NUMBER = re.compile(r"^\d+_")
"""Prefix of the folder of a concept, as the files are distributed."""
MAX_MEMBERS = 10_000
"""Members of a tar that are searched for its first file."""


class Config(parts.Config):
    """THINGS-EEG as BrainHiVE distributes it: whitened, 250 Hz, 0–1 s.

    Attributes:
        name: Name of the data set and of its pictures.
        published: Name of the folder of signals in the files as they are distributed.
        subjects: The subjects who took part.
        rate_hz: Rate of the signals.
        unit: Unit of the signals.
        magnetometers: Number of channels, called MEG001 and so on where files hold no names; 0 for the EEG
            channels of THINGS-EEG2.
        channels: The channels that decoding uses by default; None is all.
    """

    name: ClassVar[str] = "things-eeg"
    published: ClassVar[str] = "Preprocessed_data_*"
    subjects: ClassVar[tuple[int, ...]] = tuple(range(1, 11))
    rate_hz: ClassVar[float] = 250.0
    unit: ClassVar[str] = "whitened"
    magnetometers: ClassVar[int] = 0
    channels: ClassVar[tuple[str, ...] | None] = POSTERIOR

    root: str = Field("", description="folder of the data set; default: its name below paths.data")
    signals: Pattern = Field(
        "",
        description="folder of sub-XX/{train,test}.pt below root, or a pattern; default: the published one",
    )
    trust_pickle: bool = Field(
        False, description="read files that hold other objects than arrays and lists, which can run code"
    )

    def open(self, paths: Paths) -> "Things":
        """Point at the files; nothing is read yet."""
        sensors = tuple(f"MEG{number:03d}" for number in range(1, self.magnetometers + 1))
        return Things(
            self.name,
            paths.dataset(self.name, self.root),
            self.signals or self.published,
            self.trust_pickle,
            fetch_line(self.name, self.root),
            self.rate_hz,
            self.unit,
            sensors or THINGS_EEG,
        )

    def build(self, paths: Paths) -> Dataset:
        """Point at the data; nothing is read yet."""
        # signals of a preparation that was chosen by name are kept under another name
        things, is_usual = self.open(paths), "*" in self.signals or self.signals in ("", self.published)
        recordings = self.name if is_usual else f"{self.name}--{self.signals.replace('/', '--')}"
        return Dataset(
            *(self.name, tuple(FILES), things.images, recordings, self.name),
            subjects=self.subjects,
            open_recording=things.recording,
            check_recording=things.require,
            channels=self.channels,
            published_sizes=PUBLISHED[self.name],
        )


TINY = Config()


@dataclass(frozen=True)
class Things:
    """A THINGS data set below one root.

    Attributes:
        signals: Folder of sub-XX/{train,test}.pt below root; may be a pattern.
        source: The line that downloads and unpacks the data.
        montage: Channel names in the files' order, used when the files hold none.
    """

    name: str
    root: Path
    signals: str
    trust_pickle: bool
    source: str
    rate_hz: float
    unit: str
    montage: tuple[str, ...]

    def images(self, split: str) -> StimulusSet:
        """List the pictures of a split: `<root>/**/{training,train,test}_images/<concept>/*`.

        Of several such folders the originals are taken, rather than resized ones.
        """
        # folders of the split, those of originals before resized ones; the first with pictures counts
        check_split(self.name, split, tuple(FILES))
        below = walk(self.root, enters=lambda name: name not in CALLED)
        paths = (self.root / path for path, entry in below if entry.is_dir())
        folders = [path for path in paths if path.name in FOLDERS[split]]
        is_resized = {path: RESIZED in path.relative_to(self.root).as_posix().lower() for path in folders}
        folders.sort(key=lambda path: (is_resized[path], path))
        folder = next((path for path in folders if any(pictures_below(path))), None)
        if folder is None:
            needed = [f"{name}/" for name in FOLDERS[split]]
            raise self._missing(f"pictures in {self.root}/**/{FOLDERS[split][0]}/<concept>/*.jpg", *needed)

        # say which folder was chosen where there is a choice
        label = f"{self.name}: {split} pictures of {folder}"
        if is_resized[folder]:
            _say_once(f"{label}, resized ones: no folder of the originals is there")
        elif further := ", ".join(str(path) for path in folders if path != folder):
            _say_once(f"{label}, not of {further}")

        # a concept is the folder of a picture, and its caption
        files = list(pictures_below(folder.parent, folder.name))
        images = from_files(self.name, split, folder.parent, files, [file.split("/")[-2] for file in files])
        captions = partial(_list_captions, images.concepts)
        return replace(images, image_ids=Names.of(map(image_id, files)), captions=captions, captions_each=1)

    def require(self, subject: int) -> None:
        """Check that a subject's files are there."""
        for split in FILES:
            self._file(subject, split)

    def recording(self, subject: int, split: str) -> Trials:
        """Open `<signals>/sub-XX/{train,test}.pt`: a dict of the signal [N, R, C, T] and `img` [N, R].

        Files without `img` (NICE's) are in the order of the pictures' paths.
        """
        path, again = self._file(subject, split), f"delete it, then: {self.source}"

        # arrays and plain types, unless the user trusts the file
        try:
            content = pickles.load(path, self.trust_pickle)
        except pickles.HoldsObjects as error:
            hint = "if you trust whoever made it: dataset.trust_pickle=true"
            raise pickles.HoldsObjects(error.message, hint) from error
        except MissingData as error:
            raise MissingData(error.message, again) from error
        if not has_signal(content, KEYS[:2]):
            held = f"has keys {sorted(map(str, content))}" if isinstance(content, Mapping) else "is no dict"
            raise BrainhiveError(f"{path} {held}, not {KEYS[0]!r} and {PATHS[0]!r}", again)

        # what the file does not say is as published
        provenance = {"source": path.name, "dataset": self.name, "subject": subject, "split": split}
        with refusing(path, again):
            known = self.rate_hz, self.unit, self.montage, lambda: self.images(split).image_ids
            return make_recording(path, content, split, *known, {**provenance, **SHOWN[self.name]})

    def _file(self, subject: int, split: str) -> Path:
        folder = f"{self.signals}/sub-{subject:02d}"
        paths = next(filter(None, (sorted(self.root.glob(f"{folder}/{name}")) for name in FILES[split])), [])
        if not paths:
            below = f"sub-{subject:02d}/{split}.pt"
            raise self._missing(f"recording {self.root}/{self.signals}/{below}", below)
        if len(paths) > 1:
            names = ", ".join(path.relative_to(self.root).parts[0] for path in paths)
            problem = f"{self.name}: several recordings of sub-{subject:02d}/{split}: {names}"
            raise MissingData(problem, "dataset.signals=ONE_OF_THEM")
        return paths[0]

    def _missing(self, what: str, *needed: str) -> MissingData:
        """Return the error of missing files, with the line that unpacks, or downloads and unpacks them."""
        if line := unpacking(self.root, needed):
            return MissingData(f"{self.name}: archives are there, but not unpacked: no {what}", line)
        return MissingData(f"{self.name}: no {what}", self.source)


def _list_captions(concepts: Names, index: int) -> list[str]:
    """Name what a picture shows, as ATM does by the folder `00001_aardvark` of its concept."""
    return [f"This picture is {NUMBER.sub('', concepts[index])}"]


@cache  # of a process that opens a data set several times, once
def _say_once(text: str) -> None:
    console.say(text)


def unpacking(root: Path, needed: Sequence[str]) -> str:
    """Write the line that unpacks what is missing; empty where no archive below `root` may hold it.

    Args:
        root: The folder of the data set.
        needed: Parts of paths, one of which the missing files have.
    """
    # an archive with the wanted folders at its top is unpacked into a folder of its own name
    tops = tuple(part.partition("/")[0].rstrip("0123456789") for part in needed)  # of any subject
    lines = []
    paths = (root / path for path, entry in walk(root) if not entry.is_dir())
    for path in sorted(filter(is_archive, paths)):
        # all files of a zip, the first of a tar, which has no list, and nothing of a damaged archive
        names = []
        most = None if path.suffix == ZIP else MAX_MEMBERS
        with suppress(BrainhiveError), open_members(path) as members:
            files = (n.removeprefix("./") for n, _, _ in islice(members, most) if n and "\0" not in n)
            names = list(files if path.suffix == ZIP else islice(files, 1))

        is_top = path.parent == root and any(name.startswith(tops) for name in names)
        ending = next(ending for ending in (ZIP, *TAR) if path.name.endswith(ending))
        into = path.with_name(path.name.removesuffix(ending)) if is_top else path.parent

        # a zip lists its files; of a tar the first shows whether it was unpacked
        if path.suffix == ZIP and any(part in name for name in names for part in needed):
            lines.append(shlex.join(["unzip", "-nq", str(path), "-d", str(into)]))
        elif path.suffix != ZIP and names and not (into / names[0]).exists():
            lines += [shlex.join(["mkdir", "-p", str(into)])] if is_top else []
            lines.append(shlex.join(["tar", "-xf", str(path), "-C", str(into)]))
    return " && ".join(lines)
