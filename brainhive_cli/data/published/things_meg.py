"""THINGS-MEG from the epochs of its authors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from pydantic import Field

from brainhive_cli.core.base import (
    Array,
    Bool,
    BrainhiveError,
    Float32,
    Float64,
    Int64,
    MissingData,
)
from brainhive_cli.core.files import report_damage
from brainhive_cli.core.recipes import Paths, parts
from brainhive_cli.data.recordings import Preparation, cached_method
from brainhive_cli.data.signals import Sensors, Trials

SPLIT_TYPES = {"train": "exp", "test": "test"}
"""The trial_type of each split. Other trials are catch trials, which show no picture of
THINGS.
"""
SOURCE = (
    "get derivatives/preprocessed of THINGS-MEG at "
    "https://openneuro.org/datasets/ds004212"
)


class ThingsMegEpochs(parts.Config):
    """THINGS-MEG from the epochs that its authors distribute, with a trial_type for
    each trial.

    They lie in preprocessed_P{1…4}-epo.fif, with all of its parts (…-epo-1.fif). They
    are already filtered (0.1 to 40 Hz), z-scored by their baseline and decimated to 200
    Hz. These steps are not repeated.

    Source: Hebart et al. 2023, OpenNeuro ds004212.
    """

    root: str = Field(
        "", description="folder of the epochs; default: things-meg below paths.data"
    )
    keep_ms: tuple[float, float] = Field(
        (0, 1000), description="times that are kept, both inclusive"
    )

    def build(self, paths: Paths) -> "EpochFiles":
        """Make the preparation. No file is read yet."""
        return EpochFiles(self, paths.dataset("things-meg", self.root))


@dataclass(frozen=True)
class OpenEpochs:
    """Epochs of a subject, and facts on their trials.

    Attributes:
        mne_epochs: `mne.Epochs` whose signals stay on disk.
        types: The trial_type [n].
        is_picture: True [n] for trials of pictures.
        categories: Number [n] of the picture's category, or -1.
        image_ids: File stem [n] of the picture.
        sessions: Session [n], counted from 1.
        onset_s: Seconds [n] since the start of the run, or NaN.
        picks: Channels [C] of the magnetometers.
        samples: Samples that are kept.
    """

    mne_epochs: Any
    types: Array
    is_picture: Bool
    categories: Int64
    image_ids: Array
    sessions: Int64
    onset_s: Float64
    picks: Int64
    samples: slice


@dataclass(frozen=True)
class EpochFiles(Preparation):
    """The epochs below a root."""

    config: ThingsMegEpochs
    root: Path
    dataset: str = "things-meg"

    @property
    def subjects(self) -> tuple[int, ...]:
        """The subjects whose epochs are there."""
        return tuple(n for n in range(1, 5) if self._find_path(n).is_file())

    def files(self, subject: int) -> Sequence[Path]:
        """List the parts of a subject's epochs that are there."""
        path = self._find_path(subject)
        if not path.is_file():
            raise MissingData(f"no epochs {path}", SOURCE)
        # mne splits files that are larger than 2 GB
        further_paths = path.parent.glob(f"{path.stem}-*{path.suffix}")
        return [path] + sorted(further_paths)

    def sessions(self, subject: int) -> Sequence[int]:
        """List the sessions that have trials of pictures."""
        epochs = self._open(subject)
        return np.unique(epochs.sessions[epochs.is_picture]).tolist()

    def shapes(self, subject: int, session: int) -> Mapping[str, tuple[int, int, int]]:
        """Return the shape [n, C, T] of a session's trials, by split."""
        epochs = self._open(subject)
        n_samples = epochs.samples.stop - epochs.samples.start
        shapes = {}
        for split in SPLIT_TYPES:
            trials, _ = self._select_trials(epochs, session, split)
            if len(trials):
                shapes[split] = len(trials), len(epochs.picks), n_samples
        return shapes

    def session(self, subject: int, session: int) -> Mapping[str, Trials]:
        """Read the trials of a session, by split."""
        epochs = self._open(subject)
        info = epochs.mne_epochs.info
        # Presentation time of each picture.
        stimulus_ms = 500.0
        provenance = {
            "filtered_hz": [float(info["highpass"]), float(info["lowpass"])],
            "stimulus_ms": stimulus_ms,
        }
        sensors = _read_sensors(info, epochs.picks)

        # onsets count only if all trials of pictures have an onset
        has_onsets = np.isfinite(epochs.onset_s[epochs.is_picture]).all()
        recordings = {}
        for split in SPLIT_TYPES:
            trials, dropped = self._select_trials(epochs, session, split)
            if not len(trials):
                continue
            recordings[split] = Trials(
                self._read_signal(subject, trials),
                epochs.image_ids[trials].tolist(),
                sensors,
                times_s=np.asarray(epochs.mne_epochs.times[epochs.samples], np.float64),
                rate_hz=float(info["sfreq"]),
                unit="z-score",
                provenance={"dropped": dropped, **provenance},
                onset_s=epochs.onset_s[trials] if has_onsets else None,
            )
        return recordings

    def _find_path(self, subject: int) -> Path:
        """Find the epochs of a subject, or return the usual path for errors."""
        name = f"preprocessed_P{subject}-epo.fif"
        # Folders below root that may hold the epochs.
        folders = ("derivatives/preprocessed", "preprocessed", "raw_meg", "")
        for folder in folders:
            path = self.root / folder / name
            if path.is_file():
                return path
        return self.root / folders[0] / name

    @cached_method
    def _open(self, subject: int) -> OpenEpochs:
        """Open the epochs of a subject, and read their metadata.

        Raises:
            MissingData: if a file is damaged, or a part of it is missing.
            BrainhiveError: if the metadata lack a column, or keep_ms goes beyond the
                epochs.
        """
        import mne

        path = self._find_path(subject)
        # mne raises bare exceptions, too
        with report_damage(path, SOURCE, exceptions=(Exception,)):
            epochs = mne.read_epochs(path, proj=False, preload=False, verbose="ERROR")

        # mne has a list of dicts without pandas
        rows = epochs.metadata
        if hasattr(rows, "to_dict"):
            rows = rows.to_dict("records")
        # Columns of the metadata. They may also have `onset`, seconds since the start
        # of the run.
        columns = ("trial_type", "things_category_nr", "image_path", "session_nr")
        if not rows or not rows[0].keys() >= set(columns):
            raise BrainhiveError(
                f"{path} has no {', '.join(columns)} of each trial", SOURCE
            )
        types = np.array([str(row["trial_type"]) for row in rows])
        stems = [PurePosixPath(str(row["image_path"])).stem for row in rows]
        return OpenEpochs(
            epochs,
            types,
            is_picture=np.isin(types, list(SPLIT_TYPES.values())),
            categories=_read_integers(rows, "things_category_nr"),
            image_ids=np.array(stems),
            sessions=_read_integers(rows, "session_nr"),
            onset_s=_read_numbers(rows, "onset"),
            picks=np.asarray(
                mne.pick_types(epochs.info, meg="mag", exclude=()), np.int64
            ),
            samples=self._select_samples(path, epochs.times * 1000),
        )

    def _select_samples(self, path: Path, times_ms: Float64) -> slice:
        """Select the samples in keep_ms, which must lie in the epochs."""
        start, stop = self.config.keep_ms
        first_ms = times_ms[0]
        last_ms = times_ms[-1]
        # Half of the time between two samples, within which a limit means
        # the nearest sample.
        half_sample_ms = 2.5
        if start < first_ms - half_sample_ms or stop > last_ms + half_sample_ms:
            raise BrainhiveError(
                f"{path}: keep_ms {[start, stop]} goes beyond {first_ms:g} to "
                f"{last_ms:g} ms",
                "preparation.keep_ms=[start, stop]",
            )
        limits_ms = [start - half_sample_ms, stop + half_sample_ms]
        first_sample, stop_sample = np.searchsorted(times_ms, limits_ms).tolist()
        return slice(first_sample, stop_sample)

    def _select_trials(
        self, epochs: OpenEpochs, session: int, split: str
    ) -> tuple[Int64, dict[str, int]]:
        """Select the trials of a session and split.

        Returns:
            Rows of the trials, and the number of trials without a split, by reason. The
            numbers are given with the split `train` only.
        """
        is_in_session = epochs.sessions == session
        is_selected = is_in_session & (epochs.types == SPLIT_TYPES[split])
        if split == "test":
            return np.flatnonzero(is_selected), {}

        dropped = {"catch": int((is_in_session & ~epochs.is_picture).sum())}
        # known categories would make the test easier, so papers leave them out
        categories = epochs.categories
        test_categories = categories[epochs.types == SPLIT_TYPES["test"]]
        is_tested = np.isin(categories, test_categories)
        dropped["category of a test picture"] = int((is_selected & is_tested).sum())
        return np.flatnonzero(is_selected & ~is_tested), dropped

    def _read_signal(self, subject: int, trials: Int64) -> Float32:
        """Read the signals [n, C, T] of trials, some trials at a time."""
        epochs = self._open(subject)
        picks = epochs.picks
        n_samples = epochs.samples.stop - epochs.samples.start
        signal = np.empty((len(trials), len(picks), n_samples), np.float32)
        # Trials that are read at a time, as mne makes float64 of all their samples.
        trials_per_read = 256
        for start in range(0, len(trials), trials_per_read):
            block = slice(start, start + trials_per_read)
            with report_damage(self._find_path(subject), SOURCE):
                data = epochs.mne_epochs.get_data(
                    picks=picks, item=trials[block], copy=False, verbose="ERROR"
                )
                signal[block] = data[:, :, epochs.samples]
        return signal


def _read_numbers(rows: Sequence[Mapping[str, Any]], name: str) -> Float64:
    """Read a column [n] of the metadata, NaN where it has no value."""
    # None becomes NaN
    return np.array([row.get(name) for row in rows], np.float64)


def _read_integers(rows: Sequence[Mapping[str, Any]], name: str) -> Int64:
    """Read a column [n] of the metadata, -1 where it has no value."""
    return np.nan_to_num(_read_numbers(rows, name), nan=-1).astype(np.int64)


def _read_sensors(info: Any, picks: Int64) -> Sensors:
    """Read the names of magnetometers, and their positions if they are known."""
    channels = [info["chs"][pick] for pick in picks.tolist()]
    positions = np.array([channel["loc"][:3] for channel in channels], np.float64)
    # unknown positions are zero
    has_positions = np.isfinite(positions).all() and positions.any()
    names = [str(channel["ch_name"]) for channel in channels]
    return Sensors(names, positions if has_positions else None)
