"""Contract of preparations whose files join all repetitions of a stimulus."""

import numpy as np

from brainhive_cli.data.recordings.contract import MergedPreparation
from brainhive_cli.data.signals import Sensors, Trials


class TwoSplits(MergedPreparation):
    """Two training trials and a test trial of a subject."""

    dataset = "pictures"
    splits = ("train", "test")
    subjects = (1,)

    def files(self, subject):
        return []

    def recording(self, subject, split):
        n_pictures = 2 if split == "train" else 1
        signal = np.ones((n_pictures, 1, 3, 4), np.float32)
        names = [f"{split}-{number}" for number in range(n_pictures)]
        sensors = Sensors(("O1", "Oz", "O2"))
        return Trials.from_repetitions(
            signal, names, sensors, np.arange(4) / 100, 100.0, "µV"
        )


def test_files_without_sessions_are_opened_by_split():
    preparation = TwoSplits()

    assert not preparation.sessions(1)
    assert not preparation.inputs(1)
    assert preparation.shapes(1, 0) == {"train": (2, 3, 4), "test": (1, 3, 4)}
    recordings = preparation.session(1, 0)
    assert list(recordings["train"].image_ids) == ["train-0", "train-1"]
    assert list(preparation.finish(1, recordings)) == ["train", "test"]
