"""THINGS-EEG2 from its raw recordings: events, trials, baseline, resampling, repetitions, whitener.

The defaults are the steps of NICE, AlignVis and UBP, with all repetitions kept. Source: Gifford et al. 2022.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from brainhive_cli.core.errors import BrainhiveError, MissingData, naming
from brainhive_cli.core.recipe import Numbers, Paths, UniqueNames, refuse_idle
from brainhive_cli.core.seeds import shuffled
from brainhive_cli.data.montages import THINGS_EEG
from brainhive_cli.data.preparations import Trials
from brainhive_cli.data.preparations._steps import Cutting, Steps, normalise
from brainhive_cli.data.preparations._things_eeg_pictures import METADATA, image_ids
from brainhive_cli.data.preparations._things_eeg_recording import RATE_HZ, SOURCE, Recorded
from brainhive_cli.data.stores.recordings import Sensors, group_trials

PARTITIONS = {"train": "training", "test": "test"}
"""What the recording of a split is called."""
TARGET = 99999
"""The code of a target, which the subject answers and no stimulus is."""
FOLDERS = ("raw_eeg", "raw_data", "Raw_data", "eeg_dataset/raw_data", "")
"""Where the subjects' folders lie below root."""
MICROVOLTS = 1e6


class Config(Steps):
    """Raw THINGS-EEG2: `<root>/raw_eeg/sub-XX/ses-0Y/raw_eeg_{training,test}.npy`, image_metadata.npy."""

    root: str = Field("", description="folder of the recordings; default: things-eeg below paths.data")
    sessions: Numbers = Field([1, 2, 3, 4], description="sessions, each of which must be there")
    channels: UniqueNames | None = Field(
        None, description="channels, in the order of the store; default: all 63 from front to back"
    )
    repetitions: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] | None = Field(
        None, description="trials of a training and of a test picture drawn in each session; default: all"
    )
    seed: int = Field(20200220, ge=0, lt=2**32, description="of the draw, and of `shuffle`")
    shuffle: bool = Field(False, description="shuffle the repetitions of a picture; default: order of time")

    @model_validator(mode="after")
    def _has_a_use_of_the_seed(self) -> Self:
        if self.repetitions is None and not self.shuffle:
            refuse_idle(self, ("seed",), "where nothing is drawn or shuffled", "preparation.shuffle=true")
        return self

    def build(self, paths: Paths) -> "Raw":
        """Point at the data; nothing is read yet."""
        return Raw(self, paths.dataset("things-eeg", self.root))


TINY = Config(root="raw")


@dataclass(frozen=True)
class Chosen:
    """The trials of a recording that are cut.

    Attributes:
        onsets: [n] samples.
        codes: [n] the picture of each, counted from 1.
        dropped: How many others there are, by reason.
    """

    path: Path
    recording: Recorded
    onsets: NDArray[np.int64]
    codes: NDArray[np.int64]
    dropped: Mapping[str, int]


@dataclass(frozen=True)
class Raw:
    """The raw recordings below one root."""

    config: Config
    root: Path
    dataset: str = "things-eeg"

    @property
    def order_seed(self) -> int | None:
        """Seed of the last shuffle."""
        return self.config.seed if self.config.shuffle else None

    @property
    def subjects(self) -> tuple[int, ...]:
        """The subjects that have a folder."""
        found = (re.fullmatch(r"sub-(\d+)", path.name) for path in self._folder.glob("sub-*"))
        return tuple(sorted(int(match[1]) for match in found if match))

    def files(self, subject: int) -> Sequence[Path]:
        """List the recordings of a subject, and the table of pictures."""
        if not (self.root / METADATA).is_file():
            raise MissingData(f"no {self.root / METADATA}", SOURCE)
        pairs = [(session, split) for session in self.sessions(subject) for split in PARTITIONS]
        return [*(self._file(subject, *pair) for pair in pairs), self.root / METADATA]

    def sessions(self, subject: int) -> Sequence[int]:
        """List the sessions that the recipe names."""
        return sorted(self.config.sessions)

    def shapes(self, subject: int, session: int) -> Mapping[str, tuple[int, int, int]]:
        """Count the trials of a session."""
        samples = len(self._cutting.times_s)
        chosen = self._choose_both(subject, session)
        return {split: (len(each.codes), len(self._channels), samples) for split, each in chosen.items()}

    def session(self, subject: int, session: int) -> Mapping[str, Trials]:
        """Prepare the trials of a session, by split."""
        chosen = self._choose_both(subject, session)
        epochs = {split: self._cut(each) for split, each in chosen.items()}
        codes = {split: each.codes for split, each in chosen.items()}
        with naming(chosen["train"].path):
            matrix = normalise(epochs, codes, self.config, self._channels)
        return {split: self._trials(split, chosen[split], epochs[split], matrix) for split in PARTITIONS}

    @property
    def _channels(self) -> tuple[str, ...]:
        return tuple(self.config.channels or THINGS_EEG)

    @cached_property
    def _folder(self) -> Path:
        places = [self.root / folder for folder in FOLDERS]
        return next((place for place in places if any(place.glob("sub-*"))), places[0])

    def _file(self, subject: int, session: int, split: str) -> Path:
        name = f"sub-{subject:02d}/ses-{session:02d}/raw_eeg_{PARTITIONS[split]}.npy"
        if not (path := self._folder / name).is_file():
            raise MissingData(f"no recording {path}", SOURCE)
        return path

    def _choose_both(self, subject: int, session: int) -> dict[str, Chosen]:
        """Choose the trials of each split; a copy of the one's file as the other's is refused."""
        chosen = {split: self._choose(subject, session, split) for split in PARTITIONS}
        train, test = (each.recording for each in chosen.values())
        if np.array_equal(train.onsets, test.onsets) and np.array_equal(train.codes, test.codes):
            one, other = (each.path for each in chosen.values())
            raise BrainhiveError(f"{one} shows the same pictures at the same times as {other}", SOURCE)
        return chosen

    def _choose(self, subject: int, session: int, split: str) -> Chosen:
        """Choose trials of pictures that lie in the recording, and draw repetitions where asked for."""
        config, path = self.config, self._file(subject, session, split)
        recording = Recorded.open(path, self._channels)
        self._refuse_others(path, split, recording)
        fits = self._cutting.fits(recording.onsets, recording.samples)
        is_picture = recording.codes != TARGET
        onsets, codes = (values[fits & is_picture] for values in (recording.onsets, recording.codes))
        dropped = {
            "target": int((~is_picture).sum()),
            "beyond the recording": int((~fits & is_picture).sum()),
        }
        if not len(codes):
            raise BrainhiveError(
                f"{path} has no whole trial of a picture: {dropped['beyond the recording']} go beyond it",
                "preparation.epoch_ms=[start, stop]",
            )
        if config.repetitions:
            chosen = drawn(codes, config.repetitions[list(PARTITIONS).index(split)], config.seed)
            dropped["not drawn"] = len(codes) - len(chosen)
            onsets, codes = onsets[chosen], codes[chosen]
        return Chosen(path, recording, onsets, codes, dropped)

    def _refuse_others(self, path: Path, split: str, recording: Recorded) -> None:
        """Refuse a recording whose pictures are not those of its split."""
        codes, count = recording.codes[recording.codes != TARGET], len(self._image_ids[split])
        if not len(codes):
            raise BrainhiveError(f"{path} holds targets only, no picture", SOURCE)
        if codes.min() < 1 or codes.max() > count:
            raise BrainhiveError(
                f"{path} has pictures {codes.min()} to {codes.max()}, but {METADATA} has {count} of {split}",
                "the files of training and test may be swapped, or be of another data set",
            )

    def _cut(self, chosen: Chosen) -> NDArray[np.float32]:
        """Cut trials [n, C, T] in microvolts."""
        recording = chosen.recording
        with naming(chosen.path):
            return self._cutting.cut(recording.channel, self._channels, chosen.onsets, MICROVOLTS)

    @property
    def _cutting(self) -> Cutting:
        return Cutting(self.config, RATE_HZ)

    @cached_property
    def _image_ids(self) -> dict[str, list[str]]:
        """The ids of the pictures of each split, in the order of their numbers."""
        return image_ids(self.root / METADATA, SOURCE)

    def _trials(
        self, split: str, chosen: Chosen, epochs: NDArray[np.float32], matrix: NDArray[np.float64] | None
    ) -> Trials:
        ids = self._image_ids[split]
        return Trials(
            epochs,
            [ids[code - 1] for code in chosen.codes],
            Sensors(self._channels),
            self._cutting.times_s,
            self._cutting.rate_hz,
            "whitened" if matrix is not None else "µV",
            matrix,
            chosen.dropped,
            {"time_shift": self._cutting.resampling.time_shift},
        )


def drawn(stimuli: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """Draw `count` trials of each stimulus, as THINGS-EEG2's authors, NICE and AlignVis do.

    Args:
        stimuli: [trials], the stimulus of each trial, in the order of time.
        count: Trials to keep of each stimulus.
        seed: Of a generator that is made anew for each stimulus.

    Returns:
        [stimuli × count], the trials of each stimulus in the order drawn, the stimuli in ascending order. Of
        a stimulus with fewer trials all are returned.
    """
    _, table, counts = group_trials(stimuli)
    return np.concatenate(
        [trials[shuffled(n, seed)[:count]] for trials, n in zip(table, counts.tolist(), strict=True)]
    )
