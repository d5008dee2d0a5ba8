"""THINGS-MEG from its authors' epochs; what BrainHiVE distributes of it is read as
THINGS-EEG2 is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from pydantic import Field

from brainhive_cli.core import parts
from brainhive_cli.core.arrays import Array, Float64, Int64
from brainhive_cli.core.damage import report_damage
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.recordings.contract import Preparation, cached_method
from brainhive_cli.data.signals.spaces import Sensors
from brainhive_cli.data.signals.trials import Trials

FOLDERS = ("derivatives/preprocessed", "preprocessed", "raw_meg", "")
"""Folders below root in which the epochs may lie."""
TYPES = {"train": "exp", "test": "test"}
"""The trial_type of each split; all others are catch trials, which show no picture of
THINGS.
"""
COLUMNS = ("trial_type", "things_category_nr", "image_path", "session_nr")
SOURCE = (
    "get derivatives/preprocessed of THINGS-MEG at "
    "https://openneuro.org/datasets/ds004212"
)
SUBJECTS = (1, 2, 3, 4)
STIMULUS_MS = 500.0
"""Time that each picture was shown."""
READ = 256
"""Trials that are read at a time: mne makes float64 of all their samples."""
HALF_MS = 2.5
"""Half of the time between two samples, within which a limit is the nearest
sample's.
"""
OpenEpochs = tuple[Any, Mapping[str, Array], Int64, slice]
"""Epochs of mne, not yet read; columns [n] of their trials: type, whether it is of a
picture, category (-1 where there is none), picture (a file stem), session counted from
1, and onset in seconds from the start of its run (NaN where that is not known); the
rows of the magnetometers [C]; and the samples that are kept.
"""


class ThingsMegEpochs(parts.Config):
    """THINGS-MEG from the epochs that its authors distribute, in which trial_type says
    what each trial is.

    They lie in preprocessed_P{1…4}-epo.fif, with all of its parts (…-epo-1.fif). They
    are filtered (0.1 to 40 Hz), z-scored by their baseline and decimated to 200 Hz
    already; nothing of this is done again.

    Source: Hebart et al. 2023, OpenNeuro ds004212.
    """

    root: str = Field(
        "", description="folder of the epochs; default: things-meg below paths.data"
    )
    keep_ms: tuple[float, float] = Field(
        (0, 1000), description="times that are kept, both inclusive"
    )
    drop_test_categories: bool = Field(
        True,
        description="leave training pictures out whose category a test picture is of, "
        "as papers do",
    )

    def build(self, paths: Paths) -> "EpochFiles":
        """Point at the data; nothing is read yet."""
        return EpochFiles(self, paths.dataset("things-meg", self.root))


@dataclass(frozen=True)
class EpochFiles(Preparation):
    """The epochs below one root."""

    config: ThingsMegEpochs
    root: Path
    dataset: str = "things-meg"

    @property
    def subjects(self) -> tuple[int, ...]:
        """The subjects whose epochs are there."""
        return tuple(subject for subject in SUBJECTS if self._path(subject).is_file())

    def files(self, subject: int) -> Sequence[Path]:
        """List the parts of a subject's epochs that are there."""
        path = self._path(subject)
        if not path.is_file():
            raise MissingData(f"no epochs {path}", SOURCE)
        # mne splits files that are larger than 2 GB
        return [path, *sorted(path.parent.glob(f"{path.stem}-*{path.suffix}"))]

    def sessions(self, subject: int) -> Sequence[int]:
        """List the sessions in which there are trials of pictures."""
        _, table, *_ = self._open(subject)
        return np.unique(table["session"][table["is_picture"]]).tolist()

    def shapes(self, subject: int, session: int) -> Mapping[str, tuple[int, int, int]]:
        """Count the trials of a session; the table of trials is read, no signal."""
        _, table, picks, samples = self._open(subject)
        shape = len(picks), samples.stop - samples.start
        chosen = {split: self._choose(table, session, split)[0] for split in TYPES}
        return {
            split: (len(trials), *shape)
            for split, trials in chosen.items()
            if len(trials)
        }

    def session(self, subject: int, session: int) -> Mapping[str, Trials]:
        """Read the trials of a session, by split."""
        # rate and filter as the file has them
        epochs, table, picks, samples = self._open(subject)
        times_s = np.asarray(epochs.times[samples], np.float64)
        rate_hz, *filtered_hz = (
            float(epochs.info[name]) for name in ("sfreq", "highpass", "lowpass")
        )

        # positions of the magnetometers if any is not zero
        channels = [epochs.info["chs"][pick] for pick in picks.tolist()]
        # [C, 3]
        positions = np.array([channel["loc"][:3] for channel in channels], np.float64)
        is_known = np.isfinite(positions).all() and positions.any()
        sensors = Sensors(
            [str(channel["ch_name"]) for channel in channels],
            positions if is_known else None,
        )

        # onsets count only if all trials of pictures have one
        has_onsets = np.isfinite(table["onset"][table["is_picture"]]).all()

        recordings = {}
        for split in TYPES:
            trials, dropped = self._choose(table, session, split)
            if not len(trials):
                continue
            # mne makes float64 of all samples, so a part at a time
            signal = np.empty((len(trials), 1, len(picks), len(times_s)), np.float32)
            for start in range(0, len(trials), READ):
                part = trials[start : start + READ]
                with report_damage(self._path(subject), SOURCE):
                    data = epochs.get_data(
                        picks=picks, item=part, copy=False, verbose="ERROR"
                    )
                    signal[start : start + READ, 0] = data[:, :, samples]
            about = {
                "dropped": dropped,
                "filtered_hz": filtered_hz,
                "stimulus_ms": STIMULUS_MS,
            }
            recordings[split] = Trials(
                signal,
                table["picture"][trials].tolist(),
                sensors,
                times_s,
                rate_hz,
                "z-score",
                about,
                onset_s=table["onset"][trials][:, None] if has_onsets else None,
            )
        return recordings

    def _path(self, subject: int) -> Path:
        name = f"preprocessed_P{subject}-epo.fif"
        paths = [self.root / folder / name for folder in FOLDERS]
        return next((path for path in paths if path.is_file()), paths[0])

    def _choose(
        self, table: Mapping[str, Array], session: int, split: str
    ) -> tuple[Int64, dict[str, int]]:
        """Choose the trials of a session and split, and count, for `train`, those that
        no split has.
        """
        # [n]
        is_here = table["session"] == session
        types = table["type"]
        is_chosen = is_here & (types == TYPES[split])
        if split == "test":
            return np.flatnonzero(is_chosen), {}

        # training pictures of tested categories would make the test easier
        dropped = {"catch": int((is_here & ~table["is_picture"]).sum())}
        if self.config.drop_test_categories:
            categories = table["category"]
            is_tested = np.isin(categories, categories[types == TYPES["test"]])
            dropped["category of a test picture"] = int((is_chosen & is_tested).sum())
            is_chosen &= ~is_tested
        return np.flatnonzero(is_chosen), dropped

    @cached_method
    def _open(self, subject: int) -> OpenEpochs:
        """Open epochs, which mne reads when they are indexed, and the table of their
        trials.

        Raises:
            MissingData: if a file is damaged, or one of its parts is missing.
            BrainhiveError: if the table lacks a column.
        """
        import mne

        path = self._path(subject)
        # epochs with a row of the table for each; signals stay on disk
        with report_damage(
            path, SOURCE, exceptions=(Exception,)
        ):  # mne raises bare ones, too
            epochs = mne.read_epochs(path, proj=False, preload=False, verbose="ERROR")
        metadata = epochs.metadata
        rows = (
            metadata.to_dict("records")
            if hasattr(metadata, "to_dict")
            else metadata or []
        )
        if not rows or any(name not in rows[0] for name in COLUMNS):
            raise BrainhiveError(
                f"{path} has no {', '.join(COLUMNS)} of each trial", SOURCE
            )

        # samples within the limits, which must lie in the epochs
        times_ms = epochs.times * 1000
        start, stop = self.config.keep_ms
        if start < times_ms[0] - HALF_MS or stop > times_ms[-1] + HALF_MS:
            problem = (
                f"keep_ms {[start, stop]} goes beyond {times_ms[0]:g} to "
                f"{times_ms[-1]:g} ms"
            )
            raise BrainhiveError(
                f"{path}: {problem}", "preparation.keep_ms=[start, stop]"
            )
        samples = slice(
            *np.searchsorted(times_ms, [start - HALF_MS, stop + HALF_MS]).tolist()
        )

        def read_numbers(name: str) -> Float64:
            # what is not known is NaN with pandas, and None without it
            return np.array(
                [np.nan if row.get(name) is None else row[name] for row in rows],
                np.float64,
            )

        # catch trials have no concept: NaN becomes -1
        categories, sessions = (
            np.nan_to_num(read_numbers(name), nan=-1).astype(np.int64)
            for name in ("things_category_nr", "session_nr")
        )
        types = np.array([str(row["trial_type"]) for row in rows])
        table = {
            "type": types,
            "is_picture": np.isin(types, [*TYPES.values()]),
            "category": categories,
            "picture": np.array(
                [PurePosixPath(str(row["image_path"])).stem for row in rows]
            ),
            "session": sessions,
            "onset": read_numbers("onset"),
        }
        picks = np.asarray(mne.pick_types(epochs.info, meg="mag", exclude=()), np.int64)
        return epochs, table, picks, samples
