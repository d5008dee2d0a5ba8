"""THINGS-EEG2 and THINGS-MEG: pictures, and signals that are ready to be decoded."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, Field

from brainhive_cli.core.base import (
    Array,
    BrainhiveError,
    Float64,
    MissingData,
    RecipeError,
    naming,
)
from brainhive_cli.core.files import documents, report_damage, walk
from brainhive_cli.core.recipes import Paths, Pattern, parts
from brainhive_cli.data.datasets import PUBLISHED_FACTS, ROOT_FIELD, Dataset
from brainhive_cli.data.files import LazyRows, Names, fetch_line, pickles
from brainhive_cli.data.media import StimulusSet, find_pictures, make_stimulus_set
from brainhive_cli.data.published.prepared_files import FilesByRow, PreparedFiles
from brainhive_cli.data.signals import (
    HOLDOUT_FIELD,
    SEPARATE_TEST,
    Holdout,
    Sensors,
    Trials,
    group_trials,
    make_trial_reader,
)

MONTAGE = tuple(
    "Fp1 Fp2 AF7 AF3 AFz AF4 AF8 F7 F5 F3 F1 F2 F4 F6 F8 FT9 FT7 FC5 FC3 FC1 FCz FC2 "
    "FC4 FC6 FT8 FT10 T7 C5 C3 C1 Cz C2 C4 C6 T8 TP9 TP7 CP5 CP3 CP1 CPz CP2 CP4 CP6 "
    "TP8 TP10 P7 P5 P3 P1 Pz P2 P4 P6 P8 PO7 PO3 POz PO4 PO8 O1 Oz O2".split()
)
"""The 63 channels of THINGS-EEG2 from front to back, as in NICE and later papers. The
amplifier has another order.
"""
POSTERIOR = tuple("P7 P5 P3 P1 Pz P2 P4 P6 P8 PO7 PO3 POz PO4 PO8 O1 Oz O2".split())
"""Channels at the back of the head, which decoding papers use."""
STIMULUS_MS = 100.0
"""Presentation time of each picture. Source: Gifford et al. 2022."""

PICTURE_FOLDERS = {
    "train": ("training_images", "train_images"),
    "test": ("test_images",),
}
"""Folders of a split's pictures, as projects call them. Image ids begin with the first.
"""
FOLDER_IN_IDS = {
    "training_images": "training_images",
    "train_images": "training_images",
    "test_images": "test_images",
}
METADATA = "image_metadata.npy"
"""Table of THINGS-EEG2's pictures, in the order of their numbers."""

DISTRIBUTED_FILES = {
    "train": ("train.pt", "preprocessed_eeg_training.npy"),
    "test": ("test.pt", "preprocessed_eeg_test.npy"),
}
"""Files of a split: UBP's, and the bare pickles of NICE, AlignVis, ATM and the data
set's authors.
"""

SIGNAL_KEYS = ("eeg", "preprocessed_eeg_data", "data", "meg_data")
"""Keys of the signal: UBP's, with pictures; NICE's, AlignVis's, ATM's and the data set
authors'; NeuroBridge's; and ATM's and AlignVis's of MEG.
"""
FORMS = (
    "a dict of eeg and img, preprocessed_eeg_data, data or meg_data, or an array [..., "
    "R, C, T]"
)
PREPARED_HINT = (
    "get the prepared files of a project, or prepare raw ones: "
    "preparation.kind=things-eeg or things-meg"
)


class Distributed(parts.Config):
    """THINGS-EEG2 as BrainHiVE distributes it: whitened, 250 Hz, 0–1 s.

    THINGS-MEG is a data set of the same form.

    Attributes:
        name: Name of the data set and of its pictures.
        published: Pattern of the folder of the distributed signals.
        subjects: Numbers of all subjects.
        rate_hz: Sampling rate of the signals.
        unit: Unit of the signals.
        channels: Default channels for decoding, or None for all.
        stimulus_ms: Presentation time of each picture.
    """

    name: ClassVar[str] = "things-eeg"
    published: ClassVar[str] = "Preprocessed_data_*"
    subjects: ClassVar[tuple[int, ...]] = tuple(range(1, 11))
    rate_hz: ClassVar[float] = 250.0
    unit: ClassVar[str] = "whitened"
    channels: ClassVar[tuple[str, ...] | None] = POSTERIOR
    stimulus_ms: ClassVar[float] = STIMULUS_MS

    root: str = ROOT_FIELD
    signals: Pattern = Field(
        "",
        description="folder of sub-XX/{train,test}.pt below root, or a pattern; "
        "default: the published folder",
    )
    holdout: Holdout | None = HOLDOUT_FIELD

    def build(self, paths: Paths) -> Dataset:
        """Make the data set. No file is read yet."""
        root = paths.dataset(self.name, self.root)
        # signals of another folder have a name of their own
        recorded_as = self.name
        if "*" not in self.signals and self.signals not in ("", self.published):
            recorded_as = f"{self.name}--{self.signals.replace('/', '--')}"
        return Dataset(
            self.name,
            splits=tuple(PICTURE_FOLDERS),
            images=partial(self.list_pictures, root),
            recorded_as=recorded_as,
            pictured_as=self.name,
            subjects=self.subjects,
            open_recording=partial(self.open_recording, root),
            holdout=self.holdout or SEPARATE_TEST,
            find_recording=partial(self._find_files, root),
            channels=self.channels,
            published_sizes=PUBLISHED_FACTS[self.name],
        )

    def list_pictures(self, root: Path, split: str) -> StimulusSet:
        """List the pictures of a split, such as
        `<root>/**/{training,train,test}_images/<concept>/*`.

        Folders of original pictures win over folders of resized ones.
        """
        folder = self._find_picture_folder(root, split)
        paths = list(find_pictures(folder.parent, folder.name))
        concepts = [path.split("/")[-2] for path in paths]
        pictures = make_stimulus_set(self.name, split, folder.parent, paths, concepts)
        return replace(
            pictures,
            image_ids=Names.of(map(make_image_id, paths)),
            captions=partial(_list_captions, pictures.concepts),
            captions_each=1,
        )

    def open_recording(self, root: Path, subject: int, split: str) -> Trials:
        """Open `<signals>/sub-XX/{train,test}.pt`: a dict of the signal [N, R, C, T]
        and `img` [N, R].

        Files without `img` (NICE's) have the order of the pictures' paths.
        """
        path = self._find_file(root, subject, split)
        way_out = f"delete it, then: {fetch_line(self.name, self.root)}"
        list_ids = partial(_list_image_ids, self, (), root, split)
        return read_recording(path, split, self, list_ids, way_out, self.rate_hz)

    def _find_picture_folder(self, root: Path, split: str) -> Path:
        """Find the folder of a split's pictures, or raise MissingData."""
        names = PICTURE_FOLDERS[split]
        folders = []
        for path, entry in walk(root, enters=lambda name: name not in FOLDER_IN_IDS):
            if entry.is_dir() and Path(path).name in names:
                folders.append(path)
        # Image_set_Resize has pictures that were squashed to 224 × 224
        folders.sort(key=lambda path: ("resize" in path.lower(), path))
        for path in folders:
            if any(find_pictures(root / path)):
                return root / path
        raise MissingData(
            f"{self.name}: no pictures in {root}/**/{names[0]}/<concept>/*.jpg",
            fetch_line(self.name, self.root),
        )

    def _find_file(self, root: Path, subject: int, split: str) -> Path:
        """Find the only file of a subject and split, or raise MissingData."""
        folder = f"{self.signals or self.published}/sub-{subject:02d}"
        paths: list[Path] = []
        for name in DISTRIBUTED_FILES[split]:
            paths = paths or sorted(root.glob(f"{folder}/{name}"))
        if not paths:
            raise MissingData(
                f"{self.name}: no recording {root}/{folder}/{split}.pt",
                fetch_line(self.name, self.root),
            )
        # a pattern may match several preparations
        if len(paths) > 1:
            names = ", ".join(path.relative_to(root).parts[0] for path in paths)
            raise MissingData(
                f"{self.name}: several recordings of sub-{subject:02d}/{split}: "
                f"{names}",
                "dataset.signals=ONE_OF_THEM",
            )
        return paths[0]

    def _find_files(self, root: Path, subject: int) -> list[Path]:
        """Find the files of all splits of a subject."""
        return [self._find_file(root, subject, split) for split in PICTURE_FOLDERS]


class Prepared(parts.Config):
    """THINGS-EEG2 and THINGS-MEG in the forms that other projects prepare, whatever
    their files are called.

    Forms: train.pt of UBP and BrainHiVE, bare pickles named .npy of NICE, AlignVis and
    ATM, the .npy of the data's authors, train.npy of NeuroBridge and SAMGA (an array
    with an info.json, or a bare pickle), and pickles of MEG of ATM and AlignVis. The
    folders sub-XX lie in root, or in a folder of it.

    Files that do not name their pictures must have the order of the pictures' paths,
    which is read from image_metadata.npy or from the pictures.
    """

    root: str = Field(
        "", description="folder of the subjects; default: the root of `stimuli`"
    )
    stimuli: Any = parts.part_field(
        "datasets", "things-eeg", "the data set of the pictures that were shown"
    )

    def build(self, paths: Paths) -> PreparedFiles:
        """Make the preparation. No file is read yet."""
        dataset = self.stimuli
        if not isinstance(dataset, Distributed):
            name = dataset.build(paths).name
            raise RecipeError(
                f"no project prepares {name}", "stimuli: things-eeg or things-meg"
            )
        root = paths.dataset(dataset.name, self.root or dataset.root)
        picture_root = paths.dataset(dataset.name, dataset.root)
        return PreparedFiles(
            dataset.name,
            root,
            PREPARED_HINT,
            {split: _list_patterns(split) for split in PICTURE_FOLDERS},
            partial(_read_prepared, dataset, root, picture_root),
            has_single_files=True,
        )


class ArrayInfo(BaseModel):
    """Fields of the info.json that NeuroBridge writes for the arrays of all subjects.

    Attributes:
        ch_names: Channels in their order, empty in some files of MEG.
        times: Seconds after stimulus onset. Older files list times before the onset,
            too, which the arrays lack.
        sfreq: Sampling rate in Hz.

    Source: github.com/feroooooo/NeuroBridge, preprocess_eeg.py and preprocess_meg.py.
    """

    ch_names: list[str] = []
    times: list[float]
    sfreq: float = Field(gt=0)
    normalization: Literal["mvnn", "zscore", "none"] | None
    precision: Literal["fp16", "fp32", "fp64"] | None = None
    train_data_shape: list[int] = []
    test_data_shape: list[int] = []


def _list_patterns(split: str) -> list[str]:
    """List the patterns of a split's prepared files that name the subject."""
    patterns = []
    # Further files of a split: NeuroBridge's and SAMGA's, ATM's of MEG, and
    # AlignVis's of MEG.
    other_files = {
        "train": (
            "train.npy",
            "preprocessed_meg_training.pkl",
            "train_sub{subject}.pkl",
        ),
        "test": ("test.npy", "preprocessed_meg_zs_test.pkl", "test_sub{subject}.pkl"),
    }
    # Folders of prepared files. The last two need the subject in the file's name.
    for folder in ("sub-{subject:02d}/", "*/sub-{subject:02d}/", "", "*/"):
        for name in DISTRIBUTED_FILES[split] + other_files[split]:
            if "sub" in folder + name:
                patterns.append(folder + name)
    return patterns


def _list_image_ids(
    dataset: Distributed, table_folders: Sequence[Path], root: Path, split: str
) -> Sequence[str]:
    """List the image ids of a split, in the order of the pictures' paths.

    Args:
        dataset: Data set of the pictures.
        table_folders: Folders that may hold image_metadata.npy, which replaces the
            pictures.
        root: Folder of the pictures.
        split: Split of the pictures.
    """
    if dataset.name == "things-eeg":
        for folder in table_folders:
            if (folder / METADATA).is_file():
                return read_metadata(folder / METADATA, PREPARED_HINT)[split]
    return list(dataset.list_pictures(root, split).image_ids)


def _list_captions(concepts: Names, index: int) -> list[str]:
    """Caption a picture by the folder of its concept, such as `00001_aardvark`, as ATM
    does.
    """
    concept = re.sub(r"^\d+_", "", concepts[index])
    return [f"This picture is {concept}"]


def make_image_id(path: str) -> str:
    """Return the path of a picture from the folder of its split on, or its stem if the
    path has no such folder.
    """
    stem = os.path.splitext(path)[0]
    match = re.fullmatch(rf"(?:.*/)?({'|'.join(FOLDER_IN_IDS)})/(.+)", stem)
    if match is None:
        return stem.rsplit("/", 1)[-1]
    return f"{FOLDER_IN_IDS[match[1]]}/{match[2]}"


def read_metadata(path: Path, way_out: str) -> dict[str, list[str]]:
    """Read the image ids of each split, in the order of their numbers.

    Args:
        path: Path of image_metadata.npy.
        way_out: Advice on how to get it, for errors.

    Raises:
        BrainhiveError: if the file is no such table.
    """
    image_ids = {}
    with report_damage(path, way_out, BrainhiveError):
        table = pickles.load(path)
        for split, folders in PICTURE_FOLDERS.items():
            concepts = table[f"{split}_img_concepts"]
            files = table[f"{split}_img_files"]
            image_ids[split] = [
                f"{folders[0]}/{concept}/{Path(file).stem}"
                for concept, file in zip(concepts, files, strict=True)
            ]
    return image_ids


def _read_info(path: Path) -> ArrayInfo | None:
    """Read the info.json above the folder of a subject's arrays, if there is any."""
    info = path.parent.parent / "info.json"
    if not info.is_file():
        return None
    return documents.read(
        info, ArrayInfo, "copy it again with its arrays, or prepare them again"
    )


def read_recording(
    path: Path,
    split: str,
    dataset: Distributed,
    list_image_ids: Callable[[], Sequence[str]],
    way_out: str,
    rate_hz: float | None = None,
) -> Trials:
    """Read the signals of a split from a file of any form. They stay on disk.

    Args:
        path: Array [N, R, C, T] or [concepts, pictures, R, C, T], or a dict that holds
            such an array, or trials [n, C, T] with the picture of each.
        split: Split of the pictures in the file.
        dataset: Data set with the facts that neither the file nor info.json has.
        list_image_ids: Lists the image ids of files that do not name their pictures.
        way_out: Advice on how to get a sound file, for errors.
        rate_hz: Sampling rate, or None if the file says it.

    Raises:
        BrainhiveError: if the file has another form, or pictures of another split.
    """
    content = pickles.load(path, way_out=way_out)
    unit = dataset.unit
    info = None
    if isinstance(content, np.ndarray):
        form = "array"
        content = {"data": content}
        info = _read_info(path)
    else:
        _require_form(content, path, way_out)
        form = "dict of " + ", ".join(sorted(map(str, content)))
    provenance: dict[str, Any] = {
        "source": path.name,
        "form": f"{path.suffix.removeprefix('.')}: {form}",
    }
    if info is not None:
        content["ch_names"] = info.ch_names
        content["times"] = np.array(info.times)
        provenance["info"] = info.model_dump(exclude={"ch_names", "times"})
        # Unit of the signals by the normalisation in info.json.
        units = {"mvnn": "whitened", "zscore": "z-score"}
        unit = units.get(info.normalization or "", unit)
        rate_hz = info.sfreq
    provenance["stimulus_ms"] = dataset.stimulus_ms

    with report_damage(path, way_out, BrainhiveError), naming(path):
        times_s = np.zeros(0)
        if "times" in content:
            times_s = pickles.to_array(content["times"]).astype(np.float64)
        if rate_hz is None and len(times_s) > 1:
            # the median, as single times may be rounded
            rate_hz = round(1 / float(np.median(np.diff(times_s))), 6)
        rate_hz = rate_hz or dataset.rate_hz

        # bring the signal to [n, C, T], or [N, R, C, T]
        signal_key = _find_key(content, SIGNAL_KEYS)
        # Keys of the paths of the pictures: UBP's and AlignVis's. Files without them
        # have the order of the paths.
        pictures = content.get(_find_key(content, ("img", "meg_images")))
        signal: Any = pickles.to_array(content[signal_key])
        make_trials: Callable[..., Trials] = Trials.from_repetitions
        if signal.ndim == 5:
            signal = signal.reshape((-1,) + signal.shape[2:])
        elif signal.ndim == 3 and signal_key == "meg_data" and pictures is not None:
            signal, pictures = _group_trials(signal, pictures, path)
            make_trials = Trials

        sessions = None
        if "session" in content:  # UBP's [N, R], counted from 0
            sessions = pickles.to_array(content["session"]).astype(np.int8)
        ch_names = pickles.to_array(
            content.get(_find_key(content, ("ch_names", "channels")), ())
        )
        # Channels of files that do not name them, by data set.
        montages = {
            "things-eeg": MONTAGE,
            "things-meg": tuple(f"MEG{number:03d}" for number in range(1, 272)),
        }
        channels = tuple(ch_names.astype(str).tolist()) or montages[dataset.name]
        recording = make_trials(
            signal,
            list_image_ids() if pictures is None else _read_image_ids(pictures),
            Sensors(channels),
            _select_times(times_s, signal.shape[-1], rate_hz),
            rate_hz,
            unit,
            provenance,
            sessions=sessions,
        )
        _require_split(recording.image_ids, split)
        return recording


def _read_prepared(
    dataset: Distributed,
    root: Path,
    picture_root: Path,
    files: FilesByRow,
    subject: int,
    split: str,
) -> Trials:
    """Open the prepared signals of a split. A read fails if they are not finite."""
    path = files[split][0]
    table_folders = (root, root.parent, picture_root)
    list_ids = partial(_list_image_ids, dataset, table_folders, picture_root, split)
    recording = read_recording(path, split, dataset, list_ids, PREPARED_HINT)
    signal = recording.signal
    shape = tuple(signal.shape)
    dtype = np.dtype(signal.dtype)
    lazy_signal = LazyRows(shape, dtype, lambda rows: np.asarray(signal[rows]), path)
    return replace(recording, signal=lazy_signal)


def _find_key(content: Mapping[str, Any], keys: Sequence[str]) -> str:
    """Return the first of some keys that a mapping has, or ""."""
    for key in keys:
        if key in content:
            return key
    return ""


def _group_trials(trials: Array, paths: Any, path: Path) -> tuple[LazyRows, Array]:
    """Group the trials of AlignVis by picture.

    Args:
        trials: Signals [n, C, T].
        paths: Path [n] of each trial's picture.
        path: File of the trials.

    Returns:
        Signals [n, C, T] in the order of pictures, and the paths [n] of these.
    """
    shown_paths = pickles.to_array(paths).astype(str)
    if shown_paths.shape != trials.shape[:1]:
        raise BrainhiveError(
            f"{list(trials.shape)} trials come with {list(shown_paths.shape)} pictures"
        )
    order, _ = group_trials(shown_paths)
    shape = trials.shape[1:]
    read_rows = make_trial_reader(order, shape, trials.dtype, trials.__getitem__)
    return LazyRows(trials.shape, trials.dtype, read_rows, path), shown_paths[order]


def _select_times(times_s: Float64, n_samples: int, rate_hz: float) -> Float64:
    """Return the times [T] of the samples, from 0 s on if the file lists none.

    Published lists may hold times before the onset whose samples were cut off. They are
    left out if the lengths then agree.
    """
    if not len(times_s):
        return np.arange(n_samples) / rate_hz
    # half a sample of tolerance, for rounding
    n_before = int((times_s < -0.5 / rate_hz).sum())
    if len(times_s) - n_before == n_samples:
        return times_s[n_before:]
    return times_s


def _read_image_ids(pictures: Any) -> list[str]:
    """Make image ids from the paths [N], [n] or [N, R] of pictures.

    Raises:
        BrainhiveError: if the repetitions in a row show different pictures.
    """
    paths = pickles.to_array(pictures).astype(str)
    if paths.ndim == 2:
        mixed_rows = np.flatnonzero((paths != paths[:, :1]).any(1))
        if mixed_rows.size:
            raise BrainhiveError(
                f"the repetitions of row {mixed_rows[0]} are of several pictures in "
                "'img'"
            )
        paths = paths[:, 0]
    return list(map(make_image_id, paths.tolist()))


def _require_form(content: Any, path: Path, way_out: str) -> None:
    """Raise an error unless a file holds a dict with a known key of the signal."""
    if not isinstance(content, Mapping):
        kind = type(content).__name__
        raise BrainhiveError(f"{path} holds a {kind}, not {FORMS}", way_out)
    key = _find_key(content, SIGNAL_KEYS)
    # UBP's files name their pictures, so `eeg` alone is another format
    if not key or (key == "eeg" and "img" not in content):
        keys = sorted(map(str, content))
        raise BrainhiveError(f"{path} has keys {keys}, not {FORMS}", way_out)


def _require_split(image_ids: Sequence[str], split: str) -> None:
    """Raise an error if pictures lie in the folder of another split."""
    split_folder = PICTURE_FOLDERS[split][0]
    for image_id in image_ids:
        folder = image_id.split("/")[0]
        if folder in FOLDER_IN_IDS and folder != split_folder:
            raise BrainhiveError(
                f"{image_id} is no {split} picture: the files of train and test may be "
                "swapped"
            )
