"""Preparation of THINGS-EEG2 from its raw recordings."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from brainhive_cli.core.base import (
    Array,
    BrainhiveError,
    Float64,
    Int64,
    MissingData,
    naming,
    shuffle_range,
)
from brainhive_cli.core.files import report_damage
from brainhive_cli.core.recipes import (
    Numbers,
    Paths,
    UniqueNames,
    added_field,
    refuse_idle,
)
from brainhive_cli.data.files import hdf5, pickles
from brainhive_cli.data.published.things_eeg import (
    METADATA,
    MONTAGE,
    STIMULUS_MS,
    read_metadata,
)
from brainhive_cli.data.recordings import Preparation, list_subjects
from brainhive_cli.data.signals import (
    Cutting,
    Sensors,
    Steps,
    Trials,
    group_trials,
    whiten_session,
)

RECORDING = "sub-{subject:02d}/ses-{session:02d}/raw_eeg_{partition}.npy"
PARTITIONS = {"train": "training", "test": "test"}
"""Path of a recording, and the name of each split in it."""
TARGET = 99999
"""Code of a target, which the subject had to report. It shows no picture."""
RATE_HZ = 1000
"""Sampling rate of all published recordings. Source: Gifford et al. 2022."""
SOURCE = (
    "get raw_eeg of THINGS-EEG2 at https://osf.io/crxs4, and image_metadata.npy at "
    "https://osf.io/qkgtf"
)
"""Addresses of the files, as in the README of NeuroBridge (feroooooo/NeuroBridge)."""

MAINS_HZ = sorted(set(range(50, 301, 50)) | set(range(60, 301, 60)))
BAND_HZ = (0.1, 75.0)
CLIP_IQR = 20.0
"""NeuralBench's notch filters, band, and limit of signals in interquartile ranges.
Source: facebookresearch/neuroai, defaults of its EEG tasks.
"""


class ThingsEegRaw(Steps):
    """THINGS-EEG2 from its raw recordings: events, trials, baseline, resampling,
    repetitions, whitener.

    They lie in `<root>/raw_eeg/sub-XX/ses-0Y/raw_eeg_{training,test}.npy`.
    image_metadata.npy names pictures. The defaults are the steps of NICE, AlignVis and
    UBP, with all repetitions kept.

    Source: Gifford et al. 2022.
    """

    root: str = Field(
        "", description="folder of the recordings; default: things-eeg below paths.data"
    )
    sessions: Numbers = Field(
        [1, 2, 3, 4], description="sessions, each of which must be there"
    )
    channels: UniqueNames | None = Field(
        None,
        description="channels, in the order of the store; default: all 63 from front "
        "to back",
    )
    repetitions: (
        tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] | None
    ) = Field(
        None,
        description="trials of a training and of a test picture drawn in each session; "
        "default: all",
    )
    seed: int = Field(
        20200220, ge=0, lt=2**32, description="seed of `repetitions` and of `shuffle`"
    )
    shuffle: bool = Field(
        False,
        description="shuffle the repetitions of a picture; default: order of time",
    )
    continuous: Literal["none", "neuralbench"] = added_field(
        "none",
        description="steps on each recording before trials are cut: none, or "
        "NeuralBench's, which are notch filters at 50 and 60 Hz and their harmonics, "
        "0.1 to 75 Hz, resampling to rate_hz, scaling by median and interquartile "
        "range, and limits of ±20",
    )

    @model_validator(mode="after")
    def _refuse_unused_seed(self) -> Self:
        """Raise an error for a seed without random steps."""
        if self.repetitions is None and not self.shuffle:
            refuse_idle(
                self,
                "seed",
                "where nothing is drawn or shuffled",
                "preparation.shuffle=true",
            )
        return self

    def build(self, paths: Paths) -> "RawRecordings":
        """Make the preparation. No file is read yet."""
        root = paths.dataset("things-eeg", self.root)
        channels = tuple(self.channels or MONTAGE)
        seed = self.seed if self.shuffle else None
        rate_hz = RATE_HZ if self.continuous == "none" else self.rate_hz
        return RawRecordings(self, root, channels, Cutting(self, rate_hz), seed)


@dataclass(frozen=True)
class OpenRecording:
    """Recording whose samples stay on disk, with the trials that are used.

    Attributes:
        signal: Samples [channels, samples] in volts.
        rows: Row in `signal` of each used channel.
        onsets: Sample [n] of each trial's onset.
        codes: Number [n] of each trial's picture, from 1 on.
        dropped: Number of other events, by reason.
    """

    signal: Array
    rows: list[int]
    onsets: Int64
    codes: Int64
    dropped: dict[str, int]


@dataclass(frozen=True)
class RawRecordings(Preparation):
    """The raw recordings below a root.

    Attributes:
        config: Keys of the recipe.
        root: Folder of the recordings.
        channels: Channels in the order of the store.
        cutting: Steps from samples to trials.
        order_seed: Seed of the shuffle of repetitions, or None.
    """

    config: ThingsEegRaw
    root: Path
    channels: tuple[str, ...]
    cutting: Cutting
    order_seed: int | None
    dataset: str = "things-eeg"

    @property
    def subjects(self) -> tuple[int, ...]:
        """The subjects that have a folder."""
        return list_subjects(self._folder, ["sub-{subject:02d}"])

    def files(self, subject: int) -> Sequence[Path]:
        """List the recordings of a subject, and the table of pictures."""
        if not (self.root / METADATA).is_file():
            raise MissingData(f"no {self.root / METADATA}", SOURCE)
        paths = []
        for session in self.sessions(subject):
            for split in PARTITIONS:
                paths.append(self._find_file(subject, session, split))
        paths.append(self.root / METADATA)
        return paths

    def sessions(self, subject: int) -> Sequence[int]:
        """List the sessions that the recipe names."""
        return sorted(self.config.sessions)

    def shapes(self, subject: int, session: int) -> Mapping[str, tuple[int, int, int]]:
        """Return the shape [n, C, T] of a session's trials, by split."""
        shapes = {}
        for split in PARTITIONS:
            n_trials = len(self._open(subject, session, split).codes)
            shapes[split] = n_trials, len(self.channels), len(self.cutting.times_s)
        return shapes

    def session(self, subject: int, session: int) -> Mapping[str, Trials]:
        """Prepare the trials of a session, by split."""
        is_scaled = self.config.continuous != "none"
        unit = "IQR" if is_scaled else "µV"
        cutting = self.cutting
        # of each recording, its signal is not kept
        codes = {}
        onsets = {}
        dropped = {}
        epochs = {}  # [n, C, T]
        for split in PARTITIONS:
            recording = self._open(subject, session, split)
            codes[split] = recording.codes
            onsets[split] = recording.onsets
            dropped[split] = recording.dropped
            with naming(self._find_file(subject, session, split)):
                channels = _read_channels(recording.signal, recording.rows)
                scale = 1e6  # volts to microvolts
                if is_scaled:
                    channels = (
                        _scale(samples, cutting.rate_hz) for samples in channels
                    )
                    scale = 1.0
                epochs[split] = cutting.cut_trials(
                    channels, self.channels, recording.onsets, scale
                )
                if is_scaled:
                    np.clip(epochs[split], -CLIP_IQR, CLIP_IQR, out=epochs[split])

        # whiten in place
        with naming(self._find_file(subject, session, "train")):
            whitener = whiten_session(epochs, codes, self.config, self.channels)
        trials = {}
        for split in PARTITIONS:
            image_ids = self._image_ids[split]
            provenance = {
                "dropped": dropped[split],
                "recorded_unit": "µV",
                "time_shift": cutting.resampling.time_shift,
                "stimulus_ms": STIMULUS_MS,
            }
            trials[split] = Trials(
                epochs[split],  # [n, C, T]
                [image_ids[code - 1] for code in codes[split]],
                Sensors(self.channels),
                cutting.times_s,
                cutting.rate_hz,
                unit if whitener is None else "whitened",
                provenance,
                whiteners=None if whitener is None else whitener[None],
                # each file is a run
                onset_s=onsets[split] / cutting.recorded_hz,
            )
        return trials

    @cached_property
    def _image_ids(self) -> dict[str, list[str]]:
        """Image ids of each split, in the order of their numbers."""
        return read_metadata(self.root / METADATA, SOURCE)

    @cached_property
    def _folder(self) -> Path:
        """The first folder that holds subjects, or the usual folder for errors."""
        # Folders below root that may hold the folders of the subjects.
        folders = ("raw_eeg", "raw_data", "Raw_data", "eeg_dataset/raw_data", "")
        for name in folders:
            if any((self.root / name).glob("sub-*")):
                return self.root / name
        return self.root / folders[0]

    def _find_file(self, subject: int, session: int, split: str) -> Path:
        """Find a recording, or raise MissingData."""
        name = RECORDING.format(
            subject=subject, session=session, partition=PARTITIONS[split]
        )
        path = self._folder / name
        if not path.is_file():
            raise MissingData(f"no recording {path}", SOURCE)
        return path

    def _open(self, subject: int, session: int, split: str) -> OpenRecording:
        """Open a recording, and select its complete trials of pictures.

        Raises:
            BrainhiveError: if the recording lacks a channel or trials, or is not of
                THINGS-EEG2.
        """
        path = self._find_file(subject, session, split)
        signal, names, onsets, codes = _open_file(path)
        absent_names = [name for name in self.channels if name not in names]
        if absent_names:
            raise BrainhiveError(
                f"{path} has no channel {', '.join(absent_names)}",
                f"preparation.channels=[...] of those it has: {', '.join(names)}",
            )
        is_picture = codes != TARGET
        pictures = codes[is_picture]
        count = len(self._image_ids[split])
        if not len(pictures) or pictures.min() < 1 or pictures.max() > count:
            raise BrainhiveError(
                f"{path} has no pictures, or numbers beyond 1 to {count}, the {split} "
                f"pictures in {METADATA}",
                "the files of training and test may be swapped, or be of another "
                "data set",
            )

        # leave out trials that go beyond the recording
        factor = self.cutting.recorded_hz / RATE_HZ
        onsets = np.rint(onsets * factor).astype(np.int64)
        n_samples = int(signal.shape[1] * factor)
        is_complete = self.cutting.are_complete(onsets, n_samples)
        trials = np.flatnonzero(is_complete & is_picture)  # rows of events
        n_beyond = int((~is_complete & is_picture).sum())
        dropped = {
            "target": int((~is_picture).sum()),
            "beyond the recording": n_beyond,
        }
        if not len(trials):
            raise BrainhiveError(
                f"{path} has no complete trial of a picture: {n_beyond} go beyond it",
                "preparation.epoch_ms=[start, stop]",
            )

        if self.config.repetitions:
            max_count = self.config.repetitions[list(PARTITIONS).index(split)]
            drawn_rows = _draw_trials(codes[trials], max_count, self.config.seed)
            dropped["not drawn"] = len(trials) - len(drawn_rows)
            trials = trials[drawn_rows]
        rows = list(map(names.index, self.channels))
        return OpenRecording(signal, rows, onsets[trials], codes[trials], dropped)


def _open_file(path: Path) -> tuple[Array, list[str], Int64, Int64]:
    """Open a recording file. The samples stay on disk.

    Returns:
        Samples [channels, samples] in volts, channel names, and the sample [n] and code
        [n] of each event.

    Raises:
        BrainhiveError: if the file is damaged, or has another rate than published.
    """
    content = pickles.load(path)
    with report_damage(path, SOURCE, BrainhiveError):
        signal = content["raw_eeg_data"]
        names = list(map(str, content["ch_names"]))
        types = list(map(str, content["ch_types"]))
        rate_hz = float(content["sfreq"])
        if signal.ndim != 2 or not len(signal) == len(names) == len(types):
            raise ValueError(
                f"signals {list(signal.shape)} come with {len(names)} channels"
            )
        # the channel of event codes, which are numbers of pictures, from 1 on
        stimulus = np.array(signal[types.index("stim")])
        onsets = np.flatnonzero(stimulus)
        codes = stimulus[onsets].astype(np.int64)
    if rate_hz != RATE_HZ:
        raise BrainhiveError(
            f"{path} has {rate_hz:g} samples a second, but the published recordings "
            f"have {RATE_HZ}",
            "use the recordings as published; preparation.kind=recording reads those "
            "of other rates",
        )
    return signal, names, onsets, codes


def _read_channels(signal: Array, rows: Sequence[int]) -> Iterator[Float64]:
    """Yield the samples of the channels in turn."""
    for row in rows:
        samples = np.array(signal[row], np.float64)
        # pages of the mapped file would count as memory of this process
        hdf5.release_pages(signal)
        yield samples


def _draw_trials(codes: Int64, max_count: int, seed: int) -> Int64:
    """Draw trials of each picture, as the data set's authors, NICE and AlignVis do.

    Args:
        codes: Picture [n] of each trial.
        max_count: Largest number of trials of a picture.
        seed: Seed of the generator, which is made anew for each picture.

    Returns:
        Rows of the drawn trials, picture by picture.
    """
    order, counts = group_trials(codes)
    rows = []
    for picture_rows in np.split(order, np.cumsum(counts)[:-1]):
        rows.append(picture_rows[shuffle_range(len(picture_rows), seed)[:max_count]])
    return np.concatenate(rows)


def _scale(samples: Float64, rate_hz: float) -> Float64:
    """Filter, resample and scale the samples of a channel, as NeuralBench does."""
    from mne import filter as filters

    quiet = {"verbose": "ERROR"}
    cleaned = filters.notch_filter(samples, RATE_HZ, MAINS_HZ, **quiet)
    cleaned = filters.filter_data(cleaned, RATE_HZ, *BAND_HZ, **quiet)
    cleaned = filters.resample(cleaned, rate_hz, RATE_HZ, npad="auto", **quiet)
    low, median, high = np.percentile(cleaned, (25, 50, 75))
    return np.asarray((cleaned - median) / (high - low or 1.0))
