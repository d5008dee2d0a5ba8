"""THINGS-EEG and -MEG files as their publisher's scripts write them: pickle protocol 5,
arrays of float16.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from brainhive_cli.data.published.things_eeg import MONTAGE

BEFORE = 50
"""Times of THINGS-EEG before the picture: the list of times has them, though the
samples were cut off.
"""


def eeg_content(
    signal: NDArray[Any], pictures: Sequence[str], **changes: Any
) -> dict[str, Any]:
    """Make what a file of THINGS-EEG holds.

    Args:
        signal: [N, R, C, T].
        pictures: [N] paths from `training_images` or `test_images` on.
        changes: Keys to set; those that are None are left out.
    """
    count, repetitions, _, samples = signal.shape
    paths = [path.replace("training_images/", "train_images/") for path in pictures]

    def of_each(values: Sequence[Any]) -> NDArray[Any]:
        return np.repeat(np.asarray(values)[:, None], repetitions, axis=1)

    content = {
        "eeg": np.asarray(signal).astype(np.float16),
        "label": of_each(range(count)),
        "img": of_each(paths),
        "text": of_each([path.split("/")[-2] for path in paths]),
        "session": of_each(np.zeros(count)),
        "ch_names": list(MONTAGE),
        "times": np.arange(-BEFORE, samples) / 250,
        **changes,
    }
    return {key: value for key, value in content.items() if value is not None}


def meg_content(
    signal: NDArray[Any], pictures: Sequence[str], **changes: Any
) -> dict[str, Any]:
    """Make what a file of THINGS-MEG holds: its signal is called `eeg` too, `img` is a
    list.
    """
    return {
        "eeg": np.asarray(signal).astype(np.float16),
        "img": list(pictures),
        **changes,
    }


def save_eeg(root: Path, subject: int, split: str, content: dict[str, Any]) -> Path:
    """Write a file of THINGS-EEG below the data set's folder."""
    return save(
        content, root / f"Preprocessed_data_250Hz_whiten/sub-{subject:02d}/{split}.pt"
    )


def save_meg(root: Path, subject: int, split: str, content: dict[str, Any]) -> Path:
    """Write a file of THINGS-MEG below the data set's folder."""
    return save(content, root / f"Preprocessed_data/sub-{subject:02d}/{split}.pt")


def save(content: dict[str, Any], path: Path) -> Path:
    """Write a file with torch as the scripts do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path, pickle_protocol=5)
    return path
