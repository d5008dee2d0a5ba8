"""THINGS-EEG2: pictures by concept, and signals by subject, as distributed or as other
projects prepare them.

THINGS-MEG has files of the same forms. Nothing but arrays and plain types is read of
them, unless the user trusts one.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, Field

from brainhive_cli.core import documents, parts
from brainhive_cli.core.damage import report_damage
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError, naming
from brainhive_cli.core.files import walk
from brainhive_cli.core.key_types import Pattern
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.datasets import PUBLISHED, ROOT, Dataset
from brainhive_cli.data.files import pickles
from brainhive_cli.data.files.hdf5 import LazyRows
from brainhive_cli.data.files.ids import Names
from brainhive_cli.data.files.published_files import fetch_line
from brainhive_cli.data.media.stimuli import StimulusSet, from_files, pictures_below
from brainhive_cli.data.published.prepared_files import FilesByRow, PreparedFiles
from brainhive_cli.data.signals.holdout import OF_TRAIN, SEPARATE_TEST, Holdout
from brainhive_cli.data.signals.spaces import Sensors
from brainhive_cli.data.signals.trials import Trials, gather_trials, group_trials

MONTAGE = tuple(
    "Fp1 Fp2 AF7 AF3 AFz AF4 AF8 F7 F5 F3 F1 F2 F4 F6 F8 FT9 FT7 FC5 FC3 FC1 FCz FC2 "
    "FC4 FC6 FT8 FT10 T7 C5 C3 C1 Cz C2 C4 C6 T8 TP9 TP7 CP5 CP3 CP1 CPz CP2 CP4 CP6 "
    "TP8 TP10 P7 P5 P3 P1 Pz P2 P4 P6 P8 PO7 PO3 POz PO4 PO8 O1 Oz O2".split()
)
"""The 63 of THINGS-EEG2 from front to back, as NICE and all papers after it; not the
amplifier's order.
"""
# the channels of the back of the head, which decoding papers use
POSTERIOR = tuple("P7 P5 P3 P1 Pz P2 P4 P6 P8 PO7 PO3 POz PO4 PO8 O1 Oz O2".split())
MONTAGES = {
    "things-eeg": MONTAGE,
    "things-meg": tuple(f"MEG{number:03d}" for number in range(1, 272)),
}
"""Channels in the order of files that do not name them, by the data set."""
STIMULUS_MS = 100.0
"""Time that each picture was shown. Source: Gifford et al. 2022."""
FOLDERS = {"train": ("training_images", "train_images"), "test": ("test_images",)}
"""Names of the folder of a split's pictures; in image ids always the first."""
CALLED = {name: names[0] for names in FOLDERS.values() for name in names}
IMAGE = re.compile(rf"(?:.*/)?({'|'.join(CALLED)})/(.+)")
RESIZED = "resize"
"""Part of the name of a folder of pictures that were squashed to 224 × 224
(Image_set_Resize).
"""
NUMBER = re.compile(r"^\d+_")
"""Prefix of the folder of a concept, as the files are distributed."""
FILES = {
    "train": (
        "train.pt",
        "preprocessed_eeg_training.npy",
        "train.npy",
        "preprocessed_meg_training.pkl",
        "train_sub{subject}.pkl",
    ),
    "test": (
        "test.pt",
        "preprocessed_eeg_test.npy",
        "test.npy",
        "preprocessed_meg_zs_test.pkl",
        "test_sub{subject}.pkl",
    ),
}
"""Names of the file of a split: by UBP, and NICE, AlignVis, ATM and the data's authors,
which are read as distributed, the second a bare pickle; by NeuroBridge and SAMGA; by
ATM, of MEG; by AlignVis, of MEG.
"""
METADATA = "image_metadata.npy"
"""The table of THINGS-EEG2's pictures, whose order numbers them."""
KEYS = ("eeg", "preprocessed_eeg_data", "data", "meg_data")
"""Names of the signal: by UBP (of MEG, too); by NICE, AlignVis, ATM and the data's
authors; by NeuroBridge; by ATM and AlignVis (of MEG).
"""
PATHS = ("img", "meg_images")
"""Names of the pictures, by UBP and AlignVis; other files are in the order of the
pictures' paths.
"""
CHANNELS = ("ch_names", "channels")
INFO = "info.json"
UNITS = {"mvnn": "whitened", "zscore": "z-score"}


class Distributed(parts.Config):
    """THINGS-EEG2 as BrainHiVE distributes it: whitened, 250 Hz, 0–1 s.

    THINGS-MEG is a row of this family.

    Attributes:
        name: Name of the data set and of its pictures.
        published: Name of the folder of signals in the files as they are distributed.
        subjects: The subjects who took part.
        rate_hz: Rate of the signals.
        unit: Unit of the signals.
        channels: The channels that decoding uses by default; None is all.
        stimulus_ms: Time that each picture was shown.
    """

    name: ClassVar[str] = "things-eeg"
    published: ClassVar[str] = "Preprocessed_data_*"
    subjects: ClassVar[tuple[int, ...]] = tuple(range(1, 11))
    rate_hz: ClassVar[float] = 250.0
    unit: ClassVar[str] = "whitened"
    channels: ClassVar[tuple[str, ...] | None] = POSTERIOR
    stimulus_ms: ClassVar[float] = STIMULUS_MS

    root: str = ROOT
    signals: Pattern = Field(
        "",
        description="folder of sub-XX/{train,test}.pt below root, or a pattern; "
        "default: the published one",
    )
    holdout: Holdout | None = OF_TRAIN

    def build(self, paths: Paths) -> Dataset:
        """Point at the data; nothing is read yet."""
        # signals of a preparation that was chosen by name are kept under another name
        root = paths.dataset(self.name, self.root)
        is_usual = "*" in self.signals or self.signals in ("", self.published)
        recordings = (
            self.name if is_usual else f"{self.name}--{self.signals.replace('/', '--')}"
        )
        return Dataset(
            self.name,
            tuple(FILES),
            partial(self.images, root),
            recordings,
            self.name,
            subjects=self.subjects,
            open_recording=partial(self.recording, root),
            holdout=self.holdout or SEPARATE_TEST,
            find_recording=lambda subject: [
                self._file(root, subject, split) for split in FILES
            ],
            channels=self.channels,
            published_sizes=PUBLISHED[self.name],
        )

    def images(self, root: Path, split: str) -> StimulusSet:
        """List the pictures of a split:
        `<root>/**/{training,train,test}_images/<concept>/*`.

        Of several such folders the originals are taken, rather than resized ones.
        """
        # folders of the split, those of originals before resized ones; the first with
        # pictures counts
        paths = [
            path
            for path, entry in walk(root, enters=lambda name: name not in CALLED)
            if entry.is_dir() and Path(path).name in FOLDERS[split]
        ]
        folders = [
            root / path
            for path in sorted(paths, key=lambda path: (RESIZED in path.lower(), path))
        ]
        folder = next((path for path in folders if any(pictures_below(path))), None)
        if folder is None:
            problem = f"no pictures in {root}/**/{FOLDERS[split][0]}/<concept>/*.jpg"
            raise MissingData(
                f"{self.name}: {problem}", fetch_line(self.name, self.root)
            )

        # a concept is the folder of a picture, and its caption
        files = list(pictures_below(folder.parent, folder.name))
        images = from_files(
            self.name,
            split,
            folder.parent,
            files,
            [file.split("/")[-2] for file in files],
        )
        return replace(
            images,
            image_ids=Names.of(map(image_id, files)),
            captions=partial(_list_captions, images.concepts),
            captions_each=1,
        )

    def recording(self, root: Path, subject: int, split: str) -> Trials:
        """Open `<signals>/sub-XX/{train,test}.pt`: a dict of the signal [N, R, C, T]
        and `img` [N, R].

        Files without `img` (NICE's) are in the order of the pictures' paths.
        """
        path = self._file(root, subject, split)
        way_out = f"delete it, then: {fetch_line(self.name, self.root)}"
        list_pictures = partial(_list_pictures, self, (), root, split)
        return read_recording(path, split, self, list_pictures, way_out, self.rate_hz)

    def _file(self, root: Path, subject: int, split: str) -> Path:
        signals = self.signals or self.published
        folder = f"{signals}/sub-{subject:02d}"
        # the first name that is here; one pattern may match several preparations
        matches = (sorted(root.glob(f"{folder}/{name}")) for name in FILES[split][:2])
        paths = next(filter(None, matches), [])
        if not paths:
            raise MissingData(
                f"{self.name}: no recording {root}/{folder}/{split}.pt",
                fetch_line(self.name, self.root),
            )
        if len(paths) > 1:
            names = ", ".join(path.relative_to(root).parts[0] for path in paths)
            raise MissingData(
                f"{self.name}: several recordings of sub-{subject:02d}/{split}: "
                f"{names}",
                "dataset.signals=ONE_OF_THEM",
            )
        return paths[0]


def _list_captions(concepts: Names, index: int) -> list[str]:
    """Name what a picture shows, as ATM does by the folder `00001_aardvark` of its
    concept.
    """
    return [f"This picture is {NUMBER.sub('', concepts[index])}"]


def image_id(path: str) -> str:
    """Name a picture by its path from the folder of its split on; by its stem where
    that is not said.
    """
    stem = os.path.splitext(path)[0]
    match = IMAGE.fullmatch(stem)
    return f"{CALLED[match[1]]}/{match[2]}" if match else stem.rsplit("/", 1)[-1]


def read_metadata(path: Path, source: str) -> dict[str, list[str]]:
    """Read the ids of the pictures of each split, in the order of their numbers.

    Args:
        path: The table.
        source: How to get it.

    Raises:
        BrainhiveError: if it is no such table.
    """
    image_ids = {}
    with report_damage(path, source, BrainhiveError):
        table = pickles.load(path)
        for split, folders in FOLDERS.items():
            # concept and file of each picture
            pairs = zip(
                table[f"{split}_img_concepts"], table[f"{split}_img_files"], strict=True
            )
            image_ids[split] = [
                f"{folders[0]}/{concept}/{Path(file).stem}" for concept, file in pairs
            ]
    return image_ids


class ArrayInfo(BaseModel):
    """The info.json that NeuroBridge's scripts write for all subjects' arrays; it holds
    more.

    Attributes:
        ch_names: Channels in their order; empty in some files of MEG.
        times: Seconds after the picture's onset; in older files also those before it,
            which the arrays lack.
        sfreq: Samples a second.

    Source: github.com/feroooooo/NeuroBridge, preprocess_eeg.py and preprocess_meg.py.
    """

    ch_names: list[str] = []
    times: list[float]
    sfreq: float = Field(gt=0)
    normalization: Literal["mvnn", "zscore", "none"] | None
    precision: Literal["fp16", "fp32", "fp64"] | None = None
    train_data_shape: list[int] = []
    test_data_shape: list[int] = []


def read_recording(
    path: Path,
    split: str,
    things: "Distributed",
    list_pictures: Callable[[], Sequence[str]],
    way_out: str,
    rate_hz: float | None = None,
) -> Trials:
    """Read the signals of a split in any of the forms; they stay where they are.

    Args:
        path: Array [N, R, C, T] or [concepts, pictures, R, C, T]; or a dict that holds
            one, or trials [n, C, T] with the picture of each.
        split: Whose pictures they must be.
        things: The data set, which says what neither the file nor info.json does.
        list_pictures: Lists the pictures of the split, for files that are in the order
            of their paths.
        way_out: How to get a sound file.
        rate_hz: Of the signals; None where the file says it.

    Raises:
        BrainhiveError: if it is none of this.
    """
    # UBP's files name their pictures, so that `eeg` alone is another format
    content = pickles.load(path, way_out=way_out)
    is_array = isinstance(content, np.ndarray)
    is_dict = isinstance(content, Mapping)
    key = next((key for key in KEYS if is_dict and key in content), "")
    if not is_array and (not key or (key == KEYS[0] and PATHS[0] not in content)):
        held = f"has keys {sorted(map(str, content))}" if is_dict else "is another"
        raise BrainhiveError(f"{path} {held}, not {FORMS}", way_out)
    form = "array" if is_array else "dict of " + ", ".join(sorted(map(str, content)))
    provenance: dict[str, Any] = {
        "source": path.name,
        "form": f"{path.suffix.removeprefix('.')}: {form}",
    }

    # the info.json that NeuroBridge writes next to its arrays says their channels,
    # times and unit
    unit = things.unit
    if is_array:
        key = KEYS[2]
        content = {KEYS[2]: content}
        # in the array's folder, or in that of all subjects
        candidates = (folder / INFO for folder in (path.parent, path.parent.parent))
        if info_file := next(filter(Path.is_file, candidates), None):
            way = "copy it again with its arrays, or prepare them again"
            info = documents.read(info_file, ArrayInfo, way)
            content |= {CHANNELS[0]: info.ch_names, "times": np.array(info.times)}
            provenance["info"] = info.model_dump(exclude={"ch_names", "times"})
            unit = UNITS.get(info.normalization or "", unit)
            rate_hz = info.sfreq

    with report_damage(path, way_out, BrainhiveError), naming(path):
        times_s = (
            pickles.array(content["times"]).astype(np.float64)
            if "times" in content
            else np.zeros(0)
        )
        if rate_hz is None and len(times_s) > 1:
            # the median, as single times may be rounded
            rate_hz = round(1 / float(np.median(np.diff(times_s))), 6)
        rate_hz = rate_hz or things.rate_hz
        signal: Any = pickles.array(content[key])
        images = next((content[key] for key in PATHS if key in content), None)

        # bring the signal to [N, R, C, T]; AlignVis stores single trials
        counts = None
        if signal.ndim == 5:  # [concepts, pictures, R, C, T]
            signal = signal.reshape(-1, *signal.shape[2:])
        # trials [n, C, T]
        if signal.ndim == 3 and key == KEYS[3] and images is not None:
            shown = pickles.array(images).astype(str)
            trials = signal
            if shown.shape != trials.shape[:1]:
                raise BrainhiveError(
                    f"{list(trials.shape)} trials come with {list(shown.shape)} "
                    "pictures"
                )
            images, table, counts = group_trials(shown)  # table [N, R] of trials
            read = gather_trials(
                table, trials.shape[1:], trials.dtype, trials.__getitem__
            )
            signal = LazyRows(
                (*table.shape, *trials.shape[1:]), trials.dtype, read, path
            )
        if len(signal.shape) != 4:
            raise BrainhiveError(f"signals {list(signal.shape)} are not [N, R, C, T]")

        # published lists of times begin before the picture, though the samples before
        # it were cut off: these times are left out where they, and no others, are too
        # many; half a sample of tolerance, for rounding
        samples = signal.shape[3]
        before = int((times_s < -0.5 / rate_hz).sum())
        if not len(times_s):
            times_s = np.arange(samples) / rate_hz
        elif len(times_s) - before == samples:
            times_s = times_s[before:]

        # sessions [N, R] of UBP's files count from 0; NeuroBridge's list of channels
        # may be empty
        sessions = (
            pickles.array(content["session"]).astype(np.int8)
            if "session" in content
            else None
        )
        names = pickles.array(
            next((content[key] for key in CHANNELS if key in content), ())
        ).astype(str)
        recording = Trials(
            signal,
            image_ids=list_pictures() if images is None else _image_ids(images),
            space=Sensors(tuple(names.tolist()) or MONTAGES[things.name]),
            times_s=times_s,
            rate_hz=rate_hz,
            unit=unit,
            provenance={**provenance, "stimulus_ms": things.stimulus_ms},
            repetitions=counts,
            sessions=sessions,
        )

        # pictures must belong to the split
        folders = [names[0] for other, names in FOLDERS.items() if other != split]
        if odd := next(
            (name for name in recording.image_ids if name.split("/")[0] in folders),
            None,
        ):
            raise BrainhiveError(
                f"{odd} is no {split} picture: the files of train and test may be "
                "swapped"
            )
        return recording


def _image_ids(images: Any) -> list[str]:
    """Turn paths [N] or [N, R] into image ids, or stems where that is all there is.

    Raises:
        BrainhiveError: if those of a row are not of one picture.
    """
    # repetitions share a row, so they must be of one picture
    paths = pickles.array(images).astype(str)
    if paths.ndim == 2:
        odd = np.flatnonzero((paths != paths[:, :1]).any(1))
        if odd.size:
            raise BrainhiveError(
                f"the repetitions of row {odd[0]} are of several pictures in 'img'"
            )
        paths = paths[:, 0]
    return [image_id(path) for path in paths.tolist()]


PARENTS = ("sub-{subject:02d}/", "*/sub-{subject:02d}/", "", "*/")
"""Folders of the file below root; the last two only where its name says the subject."""
PREPARED = {
    split: [
        f"{folder}{name}"
        for folder in PARENTS
        for name in names
        if "sub" in folder + name
    ]
    for split, names in FILES.items()
}
FORMS = (
    "a dict of eeg and img, preprocessed_eeg_data, data or meg_data, or an array [..., "
    "R, C, T]"
)
AS_PREPARED = (
    "get the prepared files of a project, or prepare raw ones: "
    "preparation.kind=things-eeg or things-meg"
)


class Prepared(parts.Config):
    """THINGS-EEG2 and THINGS-MEG in the forms that other projects prepare, whatever
    their files are called.

    Forms: UBP's and BrainHiVE's train.pt; NICE's, AlignVis's and ATM's bare pickles
    named .npy; the .npy of the data's authors; NeuroBridge's and SAMGA's train.npy, an
    array with an info.json or a bare pickle; ATM's and AlignVis's pickles of MEG. They
    lie in sub-XX, one folder below root or two.

    Files that do not say what their pictures are must be in the order of the pictures'
    paths, which image_metadata.npy lists, or the pictures themselves do.
    """

    root: str = Field(
        "", description="folder of the subjects; default: that of `stimuli`"
    )
    stimuli: Any = parts.part_field(
        "datasets", "things-eeg", "the data set of the pictures that were shown"
    )

    def build(self, paths: Paths) -> PreparedFiles:
        """Point at the data; nothing is read yet."""
        if not isinstance(self.stimuli, Distributed):
            name = self.stimuli.build(paths).name
            raise RecipeError(
                f"no project prepares {name}", "stimuli: things-eeg or things-meg"
            )
        things = self.stimuli
        root, images = (
            paths.dataset(things.name, folder)
            for folder in (self.root or things.root, things.root)
        )
        read = partial(_read_prepared, things, root, images)
        return PreparedFiles(
            things.name, root, AS_PREPARED, PREPARED, read, has_single_files=True
        )


def _read_prepared(
    things: Distributed,
    root: Path,
    images: Path,
    files: FilesByRow,
    subject: int,
    split: str,
) -> Trials:
    """Read the signals of a split, in any of the forms."""
    path = files[split][0]
    list_pictures = partial(
        _list_pictures, things, (root, root.parent, images), images, split
    )
    recording = read_recording(path, split, things, list_pictures, AS_PREPARED)

    # rows are read, and must be finite, when they are indexed
    signal = recording.signal
    shape = tuple(signal.shape)
    dtype = np.dtype(signal.dtype)
    return replace(
        recording,
        signal=LazyRows(shape, dtype, lambda part: np.asarray(signal[part]), path),
    )


def _list_pictures(
    things: Distributed, tables: Sequence[Path], images: Path, split: str
) -> Sequence[str]:
    """List the pictures in the order of their paths: by the first table in folders,
    else by their files.
    """
    # the table suffices: the pictures need not be here
    for folder in tables:
        if things.name == "things-eeg" and (path := folder / METADATA).is_file():
            return read_metadata(path, AS_PREPARED)[split]
    return list(things.images(images, split).image_ids)
