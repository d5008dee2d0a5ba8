"""NEW DATA SET: pictures, and EEG responses to them."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from brainhive_cli.core.base.arrays import Array
from brainhive_cli.core.base.errors import MissingData
from brainhive_cli.core.files.damage import report_damage
from brainhive_cli.core.recipes import parts
from brainhive_cli.core.recipes.recipe import Paths
from brainhive_cli.data.datasets import ROOT_FIELD, Dataset
from brainhive_cli.data.files import pickles
from brainhive_cli.data.media.stimuli import (
    StimulusSet,
    find_pictures,
    make_stimulus_set,
)
from brainhive_cli.data.recordings.contract import Preparation, list_subjects
from brainhive_cli.data.signals.holdout import HOLDOUT_FIELD, SEPARATE_TEST, Holdout
from brainhive_cli.data.signals.spaces import Sensors
from brainhive_cli.data.signals.trials import Trials

NAME = "new-dataset"
FETCH_HINT = "download the files from PUBLISHER, and give their folder as `root`"
SPLITS = ("train", "test")
CHANNELS = ("O1", "Oz", "O2", "PO7", "PO3", "POz", "PO4", "PO8")
FIRST_SAMPLE_S = -0.2
"""Time of the first sample of an epoch after the onset of the picture."""
RATE_HZ = 100.0


class NewDatasetPictures(parts.Config):
    """The pictures, as images/train/CONCEPT/NAME.jpg and images/test/CONCEPT/NAME.jpg.

    Source: the paper, and the page of the data set.
    """

    root: str = ROOT_FIELD
    holdout: Holdout | None = HOLDOUT_FIELD

    def build(self, paths: Paths) -> Dataset:
        """Make the data set. No file is read yet."""
        root = paths.dataset(NAME, self.root) / "images"
        return Dataset(
            NAME,
            SPLITS,
            partial(_list_pictures, root),
            holdout=self.holdout or SEPARATE_TEST,
        )


class NewDatasetEeg(parts.Config):
    """Epochs of eight channels at 100 Hz, from .2 s before to .8 s after the onset.

    sub-NN/ses-MM.npy [n, C, T] in volts. sub-NN/ses-MM.csv has a row for each epoch,
    with the columns `image` (path below images) and `onset_s` (seconds since the start
    of the session).
    """

    cites = ()  # keys of the papers on the recording in reports/references.bib

    root: str = ROOT_FIELD

    def build(self, paths: Paths) -> "NewDatasetSessions":
        """Make the preparation. No file is read yet."""
        return NewDatasetSessions(paths.dataset(NAME, self.root))


@dataclass(frozen=True)
class NewDatasetSessions(Preparation):
    """The epochs below a root."""

    root: Path
    dataset: str = NAME

    @property
    def subjects(self) -> tuple[int, ...]:
        """The subjects whose epochs are there."""
        return list_subjects(self.root, ["sub-{subject:02d}/ses-01.npy"])

    def files(self, subject: int) -> Sequence[Path]:
        """List the arrays and tables of a subject."""
        arrays = sorted(self._folder(subject).glob("ses-??.npy"))
        if not arrays:
            raise MissingData(f"no ses-01.npy in {self._folder(subject)}", FETCH_HINT)
        return arrays + [array.with_suffix(".csv") for array in arrays]

    def sessions(self, subject: int) -> Sequence[int]:
        """List the sessions of a subject."""
        arrays = self._folder(subject).glob("ses-??.npy")
        return sorted(int(array.stem.removeprefix("ses-")) for array in arrays)

    def shapes(self, subject: int, session: int) -> Mapping[str, tuple[int, int, int]]:
        """Return the shape [n, C, T] of a session's trials by split."""
        epochs, rows = self._open(subject, session)
        _, n_channels, n_samples = epochs.shape
        shapes = {}
        for split in SPLITS:
            n_trials = sum(_is_in_split(row, split) for row in rows)
            if n_trials:
                shapes[split] = n_trials, n_channels, n_samples
        return shapes

    def session(self, subject: int, session: int) -> Mapping[str, Trials]:
        """Read the trials of a session by split."""
        epochs, rows = self._open(subject, session)
        times_s = FIRST_SAMPLE_S + np.arange(epochs.shape[2]) / RATE_HZ
        recordings = {}
        for split in SPLITS:
            indices = [i for i, row in enumerate(rows) if _is_in_split(row, split)]
            if not indices:
                continue
            image_ids = [rows[i]["image"].rpartition(".")[0] for i in indices]
            onset_s = np.array([float(rows[i]["onset_s"]) for i in indices])
            microvolts = (epochs[indices] * 1e6).astype(np.float32)
            recordings[split] = Trials(
                microvolts,  # [n, C, T]
                image_ids,
                Sensors(CHANNELS),
                times_s=times_s,
                rate_hz=RATE_HZ,
                unit="µV",
                onset_s=onset_s,
            )
        return recordings

    def _folder(self, subject: int) -> Path:
        """Return the folder of a subject."""
        return self.root / f"sub-{subject:02d}"

    def _open(self, subject: int, session: int) -> tuple[Array, list[dict[str, str]]]:
        """Open the epochs [n, C, T] of a session, and read their table.

        Raises:
            MissingData: if a file is damaged, or does not fit the other.
        """
        path = self._folder(subject) / f"ses-{session:02d}.npy"
        with report_damage(path, FETCH_HINT):
            # large arrays stay on the disk until they are indexed
            epochs = pickles.to_array(pickles.load(path))
            if epochs.ndim != 3 or epochs.shape[1] != len(CHANNELS):
                shape = list(epochs.shape)
                raise ValueError(f"its shape is {shape}, not [n, {len(CHANNELS)}, T]")
        table = path.with_suffix(".csv")
        with report_damage(table, FETCH_HINT), table.open(newline="") as file:
            rows = list(csv.DictReader(file))
            if len(rows) != len(epochs):
                raise ValueError(f"it has {len(rows)} rows, not {len(epochs)}")
        return epochs, rows


def _is_in_split(row: Mapping[str, str], split: str) -> bool:
    """Return True if the picture of an epoch is in a split."""
    return row["image"].startswith(f"{split}/")


def _list_pictures(root: Path, split: str) -> StimulusSet:
    """List the pictures of a split, or raise MissingData if there are none."""
    paths = sorted(find_pictures(root, split)) if (root / split).is_dir() else []
    if not paths:
        raise MissingData(f"no pictures in {root / split}", FETCH_HINT)
    concepts = [PurePosixPath(path).parent.name for path in paths]
    return make_stimulus_set(NAME, split, root, paths, concepts)
