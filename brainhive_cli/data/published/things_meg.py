"""THINGS-MEG: pictures and signals as BrainHiVE distributes them, and its authors' epochs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from brainhive_cli.core import parts
from brainhive_cli.core.arrays import Float64, Int64
from brainhive_cli.core.damage import reading
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.preparations import Preparation, cached_method
from brainhive_cli.data.published import things_eeg
from brainhive_cli.data.spaces import Sensors
from brainhive_cli.data.trials import Trials

FOLDERS = ("derivatives/preprocessed", "preprocessed", "raw_meg", "")
"""Folders below root in which the epochs may lie."""
TYPES = {"train": "exp", "test": "test"}
"""The trial_type of each split; all others are catch trials, which show no picture of THINGS."""
COLUMNS = ("trial_type", "things_category_nr", "image_path", "session_nr")
SOURCE = "get derivatives/preprocessed of THINGS-MEG at https://openneuro.org/datasets/ds004212"
SUBJECTS = (1, 2, 3, 4)
STIMULUS_MS = 500.0
"""Time that each picture was shown."""
READ = 256
"""Trials that are read at a time: mne makes float64 of all their samples."""
HALF_MS = 2.5
"""Half of the time between two samples, within which a limit is the nearest sample's."""


class Distributed(things_eeg.Distributed):
    """THINGS-MEG as BrainHiVE distributes it: four subjects, 271 channels × 201 samples at 200 Hz, 0–1 s."""

    name = "things-meg"
    published = "Preprocessed_data"
    subjects = SUBJECTS
    rate_hz = 200.0
    unit = "z-score"
    montage = tuple(f"MEG{number:03d}" for number in range(1, 272))
    channels = None
    stimulus_ms = STIMULUS_MS


class Epochs(parts.Config):
    """THINGS-MEG from the epochs that its authors distribute, in which trial_type says what each trial is.

    They lie in preprocessed_P{1…4}-epo.fif, with all of its parts (…-epo-1.fif). They are filtered (0.1 to
    40 Hz), z-scored by their baseline and decimated to 200 Hz already; nothing of this is done again.

    Source: Hebart et al. 2023, OpenNeuro ds004212.
    """

    root: str = Field("", description="folder of the epochs; default: things-meg below paths.data")
    keep_ms: tuple[float, float] = Field((0, 1000), description="times that are kept, both inclusive")
    drop_test_categories: bool = Field(
        True, description="leave training pictures out whose category a test picture is of, as papers do"
    )

    def build(self, paths: Paths) -> "EpochFiles":
        """Point at the data; nothing is read yet."""
        return EpochFiles(self, paths.dataset("things-meg", self.root))


@dataclass(frozen=True)
class TrialTable:
    """The epochs of one subject, not yet read, and the columns of their table.

    Attributes:
        epochs: Epochs of mne.
        types: [n] trial_type.
        categories: [n] numbers of concepts; -1 where there is none.
        image_ids: [n] file stems.
        sessions: [n] counted from 1.
        onset_s: [n] seconds from the start of its run to each trial; None where the table does not say it.
        picks: [C] rows of the magnetometers.
        samples: The samples that are kept.
        sensors: The magnetometers, and their positions if the file has them.
        times_s: [T] times of the samples that are kept.
    """

    epochs: Any
    types: NDArray[np.str_]
    categories: Int64
    image_ids: Sequence[str]
    sessions: Int64
    onset_s: Float64 | None
    picks: Int64
    samples: slice
    sensors: Sensors
    times_s: Float64


@dataclass(frozen=True)
class EpochFiles(Preparation):
    """The epochs below one root."""

    config: Epochs
    root: Path
    dataset: str = "things-meg"

    @property
    def subjects(self) -> tuple[int, ...]:
        """The subjects whose epochs are there."""
        return tuple(subject for subject in SUBJECTS if self._path(subject).is_file())

    def files(self, subject: int) -> Sequence[Path]:
        """List the parts of a subject's epochs that are there."""
        if not (path := self._path(subject)).is_file():
            raise MissingData(f"no epochs {path}", SOURCE)
        # mne splits files that are larger than 2 GB
        return [path, *sorted(path.parent.glob(f"{path.stem}-*{path.suffix}"))]

    def sessions(self, subject: int) -> Sequence[int]:
        """List the sessions in which there are trials of pictures."""
        table = self._open(subject)
        return np.unique(table.sessions[np.isin(table.types, [*TYPES.values()])]).tolist()

    def shapes(self, subject: int, session: int) -> Mapping[str, tuple[int, int, int]]:
        """Count the trials of a session; the table of trials is read, no signal."""
        table = self._open(subject)
        shape = len(table.picks), len(table.times_s)
        chosen = {split: self._choose(table, session, split)[0] for split in TYPES}
        return {split: (len(trials), *shape) for split, trials in chosen.items() if len(trials)}

    def session(self, subject: int, session: int) -> Mapping[str, Trials]:
        """Read the trials of a session, by split."""
        # rate and filter as the file has them
        table, recordings = self._open(subject), {}
        info = table.epochs.info
        rate_hz, *filtered_hz = (float(info[name]) for name in ("sfreq", "highpass", "lowpass"))

        for split in TYPES:
            trials, dropped = self._choose(table, session, split)
            if not len(trials):
                continue
            # mne makes float64 of all samples, so a part at a time
            signal = np.empty((len(trials), 1, len(table.picks), len(table.times_s)), np.float32)
            for start in range(0, len(trials), READ):
                part = trials[start : start + READ]
                with reading(self._path(subject), SOURCE):
                    data = table.epochs.get_data(picks=table.picks, item=part, copy=False, verbose="ERROR")
                    signal[start : start + READ, 0] = data[:, :, table.samples]
            image_ids = [table.image_ids[trial] for trial in trials.tolist()]
            about = {"dropped": dropped, "filtered_hz": filtered_hz, "stimulus_ms": STIMULUS_MS}
            recordings[split] = Trials(
                *(signal, image_ids, table.sensors, table.times_s, rate_hz, "z-score", about),
                onset_s=None if table.onset_s is None else table.onset_s[trials][:, None],
            )
        return recordings

    @cached_method
    def _open(self, subject: int) -> TrialTable:
        return open_table(self._path(subject), self.config.keep_ms)

    def _path(self, subject: int) -> Path:
        name = f"preprocessed_P{subject}-epo.fif"
        paths = [self.root / folder / name for folder in FOLDERS]
        return next((path for path in paths if path.is_file()), paths[0])

    def _choose(self, table: TrialTable, session: int, split: str) -> tuple[Int64, dict[str, int]]:
        """Choose the trials of a session and split, and count, for `train`, those that no split has."""
        is_here = table.sessions == session  # [n]
        is_chosen = is_here & (table.types == TYPES[split])
        if split == "test":
            return np.flatnonzero(is_chosen), {}

        # training pictures of tested categories would make the test easier
        dropped = {"catch": int((is_here & ~np.isin(table.types, [*TYPES.values()])).sum())}
        if self.config.drop_test_categories:
            is_tested = np.isin(table.categories, table.categories[table.types == TYPES["test"]])
            dropped["category of a test picture"] = int((is_chosen & is_tested).sum())
            is_chosen &= ~is_tested
        return np.flatnonzero(is_chosen), dropped


def open_table(path: Path, keep_ms: tuple[float, float]) -> TrialTable:
    """Open epochs, which mne reads when they are indexed, and the table of their trials.

    Raises:
        MissingData: if a file is damaged, or one of its parts is missing.
        BrainhiveError: if the table lacks a column.
    """
    import mne

    # epochs with a row of the table for each; signals stay on disk
    with reading(path, SOURCE, raised=(Exception,)):  # mne raises bare ones, too
        epochs = mne.read_epochs(path, proj=False, preload=False, verbose="ERROR")
    metadata = epochs.metadata
    rows = metadata.to_dict("records") if hasattr(metadata, "to_dict") else metadata or []
    if not rows or any(name not in rows[0] for name in COLUMNS):
        raise BrainhiveError(f"{path} has no {', '.join(COLUMNS)} of each trial", SOURCE)

    # samples within the limits, which must lie in the epochs, and the magnetometers
    types = np.array([str(row["trial_type"]) for row in rows])  # [n]
    times_ms = epochs.times * 1000
    (start, stop), picks = keep_ms, np.asarray(mne.pick_types(epochs.info, meg="mag", exclude=()), np.int64)
    if start < times_ms[0] - HALF_MS or stop > times_ms[-1] + HALF_MS:
        problem = f"keep_ms {[start, stop]} goes beyond {times_ms[0]:g} to {times_ms[-1]:g} ms"
        raise BrainhiveError(f"{path}: {problem}", "preparation.keep_ms=[start, stop]")
    samples = slice(*np.searchsorted(times_ms, [start - HALF_MS, stop + HALF_MS]).tolist())

    # positions of the magnetometers if any is not zero
    channels = [epochs.info["chs"][pick] for pick in picks.tolist()]
    positions = np.array([channel["loc"][:3] for channel in channels], np.float64)  # [C, 3]
    is_known = np.isfinite(positions).all() and positions.any()
    sensors = Sensors([str(channel["ch_name"]) for channel in channels], positions if is_known else None)

    # catch trials have no concept: NaN becomes -1; onsets count only if all trials of pictures have one
    categories, sessions = (
        np.nan_to_num(_read_column(rows, name), nan=-1).astype(np.int64)
        for name in ("things_category_nr", "session_nr")
    )
    image_ids = [PurePosixPath(str(row["image_path"])).stem for row in rows]
    onset_s = _read_column(rows, "onset")
    has_onsets = np.isfinite(onset_s[np.isin(types, [*TYPES.values()])]).all()
    return TrialTable(
        *(epochs, types, categories, image_ids, sessions, onset_s if has_onsets else None, picks, samples),
        sensors,
        np.asarray(epochs.times[samples], np.float64),
    )


def _read_column(rows: Sequence[Mapping[str, Any]], name: str) -> Float64:
    """Read a column of numbers [n]; NaN where there is none: with pandas it is NaN, without it None."""
    return np.array([np.nan if row.get(name) is None else row[name] for row in rows], np.float64)
