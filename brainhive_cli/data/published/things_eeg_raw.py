"""Raw recordings of THINGS-EEG2, and their preparation."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from brainhive_cli.core.arrays import Array, Float64, Int64
from brainhive_cli.core.damage import report_damage
from brainhive_cli.core.errors import BrainhiveError, MissingData, naming
from brainhive_cli.core.key_types import Numbers, UniqueNames
from brainhive_cli.core.recipe import Paths
from brainhive_cli.core.sections import added_field, refuse_idle
from brainhive_cli.core.seeds import shuffle_range
from brainhive_cli.data.files import hdf5, pickles
from brainhive_cli.data.published.things_eeg import (
    METADATA,
    MONTAGE,
    STIMULUS_MS,
    read_metadata,
)
from brainhive_cli.data.recordings.contract import Preparation, list_subjects
from brainhive_cli.data.signals.cutting import Cutting, Steps, whiten_session
from brainhive_cli.data.signals.spaces import Sensors
from brainhive_cli.data.signals.trials import Trials, group_trials

PARTITIONS = {"train": "training", "test": "test"}
"""Name of a split in the names of its files."""
TARGET = 99999
"""Code of a target, which the subject answers; it is no stimulus."""
FOLDERS = ("raw_eeg", "raw_data", "Raw_data", "eeg_dataset/raw_data", "")
"""Folders below root in which the subjects' folders may lie."""
MICROVOLTS = 1e6
"""Factor from volts, the unit of the files."""
RATE_HZ = 1000
"""Rate of all published recordings."""
SOURCE = (
    "get raw_eeg of THINGS-EEG2 at https://osf.io/crxs4, and image_metadata.npy at "
    "https://osf.io/qkgtf"
)
"""Addresses of the files, for errors; as the README of NeuroBridge
(feroooooo/NeuroBridge) and others say.
"""


MAINS_HZ = sorted({*range(50, 301, 50), *range(60, 301, 60)})
"""Mains frequencies of both kinds and their harmonics, as NeuralBench removes them."""
PASSED_HZ = (0.1, 75.0)
"""NeuralBench's filter."""
LARGEST = 20.0
"""Interquartile ranges at which NeuralBench's signals are cut."""


class ThingsEegRaw(Steps):
    """THINGS-EEG2 from its raw recordings: events, trials, baseline, resampling,
    repetitions, whitener.

    They lie in `<root>/raw_eeg/sub-XX/ses-0Y/raw_eeg_{training,test}.npy`;
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
        description=(
            "channels, in the order of the store; default: all 63 from front to back"
        ),
    )
    repetitions: (
        tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] | None
    ) = Field(
        None,
        description="trials of a training and of a test picture drawn in each session; "
        "default: all",
    )
    seed: int = Field(
        20200220, ge=0, lt=2**32, description="of the draw, and of `shuffle`"
    )
    shuffle: bool = Field(
        False,
        description="shuffle the repetitions of a picture; default: order of time",
    )
    continuous: Literal["none", "neuralbench"] = added_field(
        "none",
        description="steps on each recording before trials are cut: none, or those of "
        "NeuralBench: notch filters at 50 and 60 Hz and their harmonics, 0.1 to 75 Hz, "
        "rate_hz, each channel less its median, over its interquartile range; trials "
        "are cut off at 20 of these",
    )
    whiten_by: Literal["training", "both"] = Field(  # each session has training trials
        "training",
        description="whose noise: training trials alone, or the mean with that of the "
        "test trials",
    )

    @model_validator(mode="after")
    def _has_a_use_of_the_seed(self) -> Self:
        if self.repetitions is None and not self.shuffle:
            refuse_idle(
                self,
                "seed",
                "where nothing is drawn or shuffled",
                "preparation.shuffle=true",
            )
        return self

    def build(self, paths: Paths) -> "RawRecordings":
        """Point at the data; nothing is read yet."""
        root = paths.dataset("things-eeg", self.root)
        channels = tuple(self.channels or MONTAGE)
        seed = self.seed if self.shuffle else None
        rate_hz = RATE_HZ if self.continuous == "none" else self.rate_hz
        return RawRecordings(self, root, channels, Cutting(self, rate_hz), seed)


Recorded = tuple[Array, list[int], Int64, Int64, dict[str, int]]
"""A recording, mapped: signal [channels, samples] in volts, and the row of each channel
that is used; of each trial that is used its onset, a sample, and the number of its
picture, from 1 on; and counts of left out events, by reason.
"""


@dataclass(frozen=True)
class RawRecordings(Preparation):
    """The raw recordings below one root.

    Attributes:
        channels: Channels in the order of the store.
        cutting: Steps from samples to trials.
        order_seed: Seed of the last shuffle.
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
        pairs = [
            (session, split)
            for session in self.sessions(subject)
            for split in PARTITIONS
        ]
        return [*(self._file(subject, *pair) for pair in pairs), self.root / METADATA]

    def sessions(self, subject: int) -> Sequence[int]:
        """List the sessions that the recipe names."""
        return sorted(self.config.sessions)

    def shapes(self, subject: int, session: int) -> Mapping[str, tuple[int, int, int]]:
        """Count the trials of a session."""
        shape = len(self.channels), len(self.cutting.times_s)
        # events are read, no signal
        codes = {split: self._open(subject, session, split)[3] for split in PARTITIONS}
        return {split: (len(shown), *shape) for split, shown in codes.items()}

    def session(self, subject: int, session: int) -> Mapping[str, Trials]:
        """Prepare the trials of a session, by split."""
        # cut the trials, in microvolts
        cutting = self.cutting
        names = self.channels
        is_scaled = self.config.continuous != "none"
        # by split: [n, C, T], [n], [n], counts
        epochs = {}
        codes = {}
        onsets = {}
        dropped = {}
        for split in PARTITIONS:
            signal, rows, onsets[split], codes[split], dropped[split] = self._open(
                subject, session, split
            )
            with naming(self._file(subject, session, split)):
                channels = _read_channels(signal, rows)
                if is_scaled:
                    channels = (_scale(each, cutting.rate_hz) for each in channels)
                unit = 1.0 if is_scaled else MICROVOLTS
                epochs[split] = cutting.cut_trials(channels, names, onsets[split], unit)
                if is_scaled:
                    np.clip(epochs[split], -LARGEST, LARGEST, out=epochs[split])

        # whiten them where they lie
        with naming(self._file(subject, session, "train")):
            matrix = whiten_session(epochs, codes, self.config, names)
        return {
            split: Trials(
                epochs[split][:, None],  # [n, 1, C, T]
                [self._image_ids[split][code - 1] for code in codes[split]],
                Sensors(names),
                cutting.times_s,
                cutting.rate_hz,
                "whitened" if matrix is not None else "IQR" if is_scaled else "µV",
                {
                    "dropped": dropped[split],
                    "recorded_unit": "µV",
                    "time_shift": cutting.resampling.time_shift,
                    "stimulus_ms": STIMULUS_MS,
                },
                whiteners=None if matrix is None else matrix[None],
                onset_s=onsets[split][:, None]
                / cutting.recorded_hz,  # each file is a run
            )
            for split in PARTITIONS
        }

    @cached_property
    def _image_ids(self) -> dict[str, list[str]]:
        """Ids of the pictures of each split, in the order of their numbers."""
        return read_metadata(self.root / METADATA, SOURCE)

    @cached_property
    def _folder(self) -> Path:
        # the first folder that holds subjects, or the usual one, for the error
        folders = [self.root / name for name in FOLDERS]
        return next(
            (folder for folder in folders if any(folder.glob("sub-*"))), folders[0]
        )

    def _file(self, subject: int, session: int, split: str) -> Path:
        name = f"sub-{subject:02d}/ses-{session:02d}/raw_eeg_{PARTITIONS[split]}.npy"
        path = self._folder / name
        if not path.is_file():
            raise MissingData(f"no recording {path}", SOURCE)
        return path

    def _open(self, subject: int, session: int, split: str) -> Recorded:
        """Open a recording, choose trials of pictures that lie in it, and draw
        repetitions where asked for.

        Raises:
            BrainhiveError: if it lacks a channel, has no trials, or is none of
                THINGS-EEG2.
        """
        # signals [channels, samples], names and types of channels, rate, and events of
        # the stimulus channel
        path = self._file(subject, session, split)
        content = pickles.load(path)
        with report_damage(path, SOURCE, BrainhiveError):
            signal = content["raw_eeg_data"]
            names, types = (
                [*map(str, content[key])] for key in ("ch_names", "ch_types")
            )
            rate_hz = float(content["sfreq"])
            if signal.ndim != 2 or not len(signal) == len(names) == len(types):
                raise ValueError(
                    f"signals {list(signal.shape)} come with {len(names)} channels"
                )
            stimulus = np.array(signal[types.index("stim")])
            onsets = np.flatnonzero(stimulus)
            codes = stimulus[onsets].astype(np.int64)

        # the published rate, and the channels of the recipe
        if rate_hz != RATE_HZ:
            raise BrainhiveError(
                f"{path} has {rate_hz:g} samples a second, the published "
                f"recordings {RATE_HZ}",
                "use the recordings as published; preparation.kind=recording reads "
                "those of other rates",
            )
        if absent := [name for name in self.channels if name not in names]:
            raise BrainhiveError(
                f"{path} has no channel {', '.join(absent)}",
                f"preparation.channels=[...] of those it has: {', '.join(names)}",
            )

        # events that are pictures of this split, and lie in the recording
        is_picture = codes != TARGET
        pictures = codes[is_picture]
        count = len(self._image_ids[split])
        if not len(pictures) or pictures.min() < 1 or pictures.max() > count:
            raise BrainhiveError(
                f"{path} has pictures beyond 1 to {count}, those of {split} in "
                f"{METADATA}",
                "the files of training and test may be swapped, or be of another "
                "data set",
            )
        factor = self.cutting.recorded_hz / RATE_HZ
        onsets = np.rint(onsets * factor).astype(np.int64)
        fits = self.cutting.are_complete(onsets, int(signal.shape[1] * factor))
        trials = np.flatnonzero(fits & is_picture)  # rows of events
        beyond = int((~fits & is_picture).sum())
        dropped = {"target": int((~is_picture).sum()), "beyond the recording": beyond}
        if not len(trials):
            raise BrainhiveError(
                f"{path} has no whole trial of a picture: {beyond} go beyond it",
                "preparation.epoch_ms=[start, stop]",
            )

        # as many trials of each picture as papers draw, picture by picture in the order
        # drawn
        if self.config.repetitions:
            count = self.config.repetitions[list(PARTITIONS).index(split)]
            # drawn as the data's authors, NICE and AlignVis do, by a generator made
            # anew for each picture
            _, table, counts = group_trials(codes[trials])
            pairs = zip(table, counts.tolist(), strict=True)
            chosen = np.concatenate(
                [
                    rows[shuffle_range(most, self.config.seed)[:count]]
                    for rows, most in pairs
                ]
            )
            dropped["not drawn"] = len(trials) - len(chosen)
            trials = trials[chosen]
        return (
            signal,
            [*map(names.index, self.channels)],
            onsets[trials],
            codes[trials],
            dropped,
        )


def _read_channels(signal: Array, rows: Sequence[int]) -> Iterator[Float64]:
    """Read the samples of one channel after the other."""
    for row in rows:
        samples = np.array(signal[row], np.float64)
        # or the pages of a recording would count as memory of this process
        hdf5.release_pages(signal)
        yield samples


def _scale(samples: Float64, rate_hz: float) -> Float64:
    """Filter, resample and scale one channel, as NeuralBench does.

    Source: facebookresearch/neuroai, defaults of its EEG tasks.
    """
    from mne import filter as filters

    quiet = {"verbose": "ERROR"}
    cleaned = filters.notch_filter(samples, RATE_HZ, MAINS_HZ, **quiet)
    cleaned = filters.filter_data(cleaned, RATE_HZ, *PASSED_HZ, **quiet)
    cleaned = filters.resample(cleaned, rate_hz, RATE_HZ, npad="auto", **quiet)
    low, middle, high = np.percentile(cleaned, (25, 50, 75))
    return np.asarray((cleaned - middle) / (high - low or 1.0))
