"""THINGS-MEG from the epochs that its authors distribute, in which trial_type says what each trial is.

They are filtered (0.1 to 40 Hz), z-scored by their baseline and decimated to 200 Hz already; nothing of this
is done again. Source: Hebart et al. 2023, OpenNeuro ds004212.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from brainhive_cli.core import parts
from brainhive_cli.core.damage import reading
from brainhive_cli.core.errors import BrainhiveError, MissingData, MissingExtra, first_line
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.preparations import Trials
from brainhive_cli.data.preparations._noise import refuse_flat
from brainhive_cli.data.stores.recordings import Sensors

FOLDERS = ("derivatives/preprocessed", "preprocessed", "raw_meg", "")
"""Where the epochs lie below root."""
TYPES = {"train": "exp", "test": "test"}
"""The trial_type of each split; all others are catch trials, which show no picture of THINGS."""
COLUMNS = ("trial_type", "things_category_nr", "image_path", "session_nr")
SOURCE = "get derivatives/preprocessed of THINGS-MEG at https://openneuro.org/datasets/ds004212"
SUBJECTS = (1, 2, 3, 4)
READ = 256
"""Trials that are read at a time: mne makes float64 of all their samples."""
HALF_MS = 2.5
"""Half of the time between two samples, within which a limit is the nearest sample's."""


class Config(parts.Config):
    """Epochs of THINGS-MEG: preprocessed_P{1…4}-epo.fif, with all of its parts (…-epo-1.fif)."""

    root: str = Field("", description="folder of the epochs; default: things-meg below paths.data")
    keep_ms: tuple[float, float] = Field((0, 1000), description="times that are kept, both inclusive")
    drop_test_categories: bool = Field(
        True, description="leave training pictures out whose category a test picture is of, as papers do"
    )

    @model_validator(mode="after")
    def _has_times_in_order(self) -> Self:
        if not self.keep_ms[0] < self.keep_ms[1]:
            raise ValueError(f"keep_ms {list(self.keep_ms)} does not go forward")
        return self

    def build(self, paths: Paths) -> "Epochs":
        """Point at the data; nothing is read yet."""
        return Epochs(self, paths.dataset("things-meg", self.root))


TINY = Config(root="things-meg")


@dataclass(frozen=True)
class Opened:
    """The epochs of one subject, not yet read.

    Attributes:
        epochs: Of mne.
        types: [n] trial_type.
        categories: [n] numbers of concepts; -1 where there is none.
        image_ids: [n] file stems.
        sessions: [n] counted from 1.
        picks: [C] rows of the magnetometers.
        kept: Samples that are kept.
    """

    path: Path
    epochs: Any
    types: NDArray[np.str_]
    categories: NDArray[np.int64]
    image_ids: Sequence[str]
    sessions: NDArray[np.int64]
    picks: NDArray[np.int64]
    kept: slice

    @property
    def sensors(self) -> Sensors:
        """The magnetometers, and where they are if the file says it."""
        channels = [self.epochs.info["chs"][pick] for pick in self.picks.tolist()]
        positions = np.array([channel["loc"][:3] for channel in channels], np.float64)
        is_known = np.isfinite(positions).all() and positions.any()
        return Sensors([str(channel["ch_name"]) for channel in channels], positions if is_known else None)

    def read(self, trials: NDArray[np.int64]) -> NDArray[np.float32]:
        """Read trials [n, C, T]."""
        found = np.empty((len(trials), len(self.picks), len(self.epochs.times[self.kept])), np.float32)
        for start in range(0, len(trials), READ):
            part = trials[start : start + READ]
            with reading(self.path, SOURCE):
                data = self.epochs.get_data(picks=self.picks, item=part, copy=False, verbose="ERROR")
                found[start : start + READ] = data[:, :, self.kept]
        if not np.isfinite(found).all():
            bad = np.flatnonzero(~np.isfinite(found).all(axis=(0, 2)))[0]
            raise BrainhiveError(f"{self.path}: channel {self.sensors.names[bad]} has NaN", SOURCE)
        return found


@dataclass(frozen=True)
class Epochs:
    """The epochs below one root."""

    config: Config
    root: Path
    dataset: str = "things-meg"
    order_seed: int | None = None

    @property
    def subjects(self) -> tuple[int, ...]:
        """The subjects whose epochs are there."""
        return tuple(subject for subject in SUBJECTS if self._path(subject).is_file())

    def files(self, subject: int) -> Sequence[Path]:
        """List the parts of a subject's epochs that are there."""
        if not (path := self._path(subject)).is_file():
            raise MissingData(f"no epochs {path}", SOURCE)
        return [path, *sorted(path.parent.glob(f"{path.stem}-*{path.suffix}"))]

    def sessions(self, subject: int) -> Sequence[int]:
        """List the sessions in which there are trials of pictures."""
        opened = self._open(subject)
        shown = np.isin(opened.types, [*TYPES.values()])
        return [int(session) for session in np.unique(opened.sessions[shown])]

    def shapes(self, subject: int, session: int) -> Mapping[str, tuple[int, int, int]]:
        """Count the trials of a session; the table of trials is read, no signal."""
        opened = self._open(subject)
        shape = len(opened.picks), len(opened.epochs.times[opened.kept])
        chosen = {split: self._choose(opened, session, split)[0] for split in TYPES}
        return {split: (len(trials), *shape) for split, trials in chosen.items() if len(trials)}

    def session(self, subject: int, session: int) -> Mapping[str, Trials]:
        """Read the trials of a session, by split."""
        opened, made = self._open(subject), {}
        for split in TYPES:
            trials, dropped = self._choose(opened, session, split)
            if len(trials):
                made[split] = self._trials(opened, trials, dropped)
        return made

    @cached_property
    def _open(self) -> Callable[[int], Opened]:
        return cache(self._opened)

    def _path(self, subject: int) -> Path:
        name = f"preprocessed_P{subject}-epo.fif"
        places = [self.root / folder / name for folder in FOLDERS]
        return next((place for place in places if place.is_file()), places[0])

    def _opened(self, subject: int) -> Opened:
        path = self._path(subject)
        epochs = _read(path)
        table = epochs.metadata
        rows = table.to_dict("records") if hasattr(table, "to_dict") else table or []
        is_whole = len(rows) == len(epochs.events) and all(name in row for row in rows for name in COLUMNS)
        if not (rows and is_whole):
            raise BrainhiveError(f"{path} has no {', '.join(COLUMNS)} of each trial", SOURCE)
        columns = {name: [row[name] for row in rows] for name in COLUMNS}
        with reading(path, SOURCE):
            categories, sessions = (_numbers(columns[name]) for name in ("things_category_nr", "session_nr"))
            picks = _magnetometers(epochs)
            kept = self._kept(epochs.times * 1000)
        types = np.array([str(kind) for kind in columns["trial_type"]])
        _refuse_unnumbered(path, types, {"things_category_nr": categories, "session_nr": sessions})
        return Opened(
            path,
            epochs,
            types,
            categories,
            [PurePosixPath(str(name)).stem for name in columns["image_path"]],
            sessions,
            picks,
            kept,
        )

    def _kept(self, times_ms: NDArray[np.float64]) -> slice:
        start, stop = self.config.keep_ms
        if start < times_ms[0] - HALF_MS or stop > times_ms[-1] + HALF_MS:
            raise ValueError(f"keep_ms {[start, stop]} goes beyond {times_ms[0]:g} to {times_ms[-1]:g} ms")
        return slice(*np.searchsorted(times_ms, [start - HALF_MS, stop + HALF_MS]).tolist())

    def _choose(self, opened: Opened, session: int, split: str) -> tuple[NDArray[np.int64], dict[str, int]]:
        """Choose the trials of a session and split, and count the others that no split has."""
        here = opened.sessions == session
        chosen = here & (opened.types == TYPES[split])
        if split == "test":
            return np.flatnonzero(chosen), {}
        dropped = {"catch": int((here & ~np.isin(opened.types, [*TYPES.values()])).sum())}
        if self.config.drop_test_categories:
            is_tested = np.isin(opened.categories, opened.categories[opened.types == TYPES["test"]])
            dropped["category of a test picture"] = int((chosen & is_tested).sum())
            chosen &= ~is_tested
        return np.flatnonzero(chosen), dropped

    def _trials(self, opened: Opened, trials: NDArray[np.int64], dropped: Mapping[str, int]) -> Trials:
        signal, sensors = opened.read(trials), opened.sensors
        try:
            refuse_flat(np.einsum("nct,nct->c", signal, signal), tuple(sensors.names))
        except BrainhiveError as error:
            raise BrainhiveError(f"{opened.path}: {error.message}", SOURCE) from error
        return Trials(
            signal,
            [opened.image_ids[trial] for trial in trials.tolist()],
            sensors,
            np.asarray(opened.epochs.times[opened.kept], np.float64),
            float(opened.epochs.info["sfreq"]),
            "z-score",
            dropped=dropped,
            provenance={"filtered_hz": [float(opened.epochs.info[name]) for name in ("highpass", "lowpass")]},
        )


def _read(path: Path) -> Any:
    """Open epochs, which mne reads when they are indexed.

    Raises:
        MissingExtra: if mne is not installed.
        MissingData: if a file is damaged, or one of its parts is missing.
    """
    try:
        import mne
    except ImportError as error:
        raise MissingExtra("epochs in .fif files need mne", "pip install 'brainhive[raw]'") from error
    with reading(path, SOURCE):
        try:
            return mne.read_epochs(path, proj=False, preload=False, verbose="ERROR")
        except FileNotFoundError as error:
            raise MissingData(f"{path}: one of its parts is missing: {error}", SOURCE) from error
        except Exception as error:  # mne raises bare ones, too
            raise ValueError(first_line(error)) from error


def _magnetometers(epochs: Any) -> NDArray[np.int64]:
    import mne

    picks = np.asarray(mne.pick_types(epochs.info, meg="mag", exclude=()), np.int64)
    if not len(picks):
        raise ValueError("it has no magnetometers")
    return picks


def _refuse_unnumbered(path: Path, types: NDArray[np.str_], columns: Mapping[str, NDArray[np.int64]]) -> None:
    shows_picture = np.isin(types, [*TYPES.values()])
    for name, numbers in columns.items():
        if len(rows := np.flatnonzero(shows_picture & (numbers < 1))):
            raise BrainhiveError(
                f"{path}: {len(rows)} trials of pictures have no {name}, the first is trial {rows[0]}", SOURCE
            )


def _numbers(values: Sequence[Any]) -> NDArray[np.int64]:
    """Read numbers, of which some may be missing: NaN with pandas, None without."""
    found = np.array([np.nan if value is None else value for value in values], np.float64)
    return np.where(np.isfinite(found), found, -1).astype(np.int64)
