"""THINGS-EEG and THINGS-MEG files as published: pickle protocol 5, arrays of
float16.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from brainhive_cli.data.published.things_eeg import MONTAGE

BEFORE = 50
"""Number of THINGS-EEG times before the picture. The list of times has them, but the
signal has no samples for them.
"""


def eeg_content(
    signal: NDArray[Any], pictures: Sequence[str], **changes: Any
) -> dict[str, Any]:
    """Make the content of a THINGS-EEG file.

    Args:
        signal: Signal [N, R, C, T].
        pictures: Paths [N] that start with `training_images` or `test_images`.
        changes: Keys to set. A key with None is left out.
    """
    count, repetitions, _, samples = signal.shape
    paths = [path.replace("training_images/", "train_images/") for path in pictures]

    def repeat(values: Sequence[Any]) -> NDArray[Any]:
        """Repeat a value [N] for each repetition: [N, R]."""
        return np.repeat(np.asarray(values)[:, None], repetitions, axis=1)

    content = {
        "eeg": np.asarray(signal).astype(np.float16),
        "label": repeat(range(count)),
        "img": repeat(paths),
        "text": repeat([path.split("/")[-2] for path in paths]),
        "session": repeat(np.zeros(count)),
        "ch_names": list(MONTAGE),
        "times": np.arange(-BEFORE, samples) / 250,
        **changes,
    }
    return {key: value for key, value in content.items() if value is not None}


def meg_content(
    signal: NDArray[Any], pictures: Sequence[str], **changes: Any
) -> dict[str, Any]:
    """Make the content of a THINGS-MEG file. Key `eeg` holds the MEG signal."""
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
    """Write a file with `torch.save`, as the publisher's scripts do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path, pickle_protocol=5)
    return path
