"""Signals of THINGS in the files that others have published: all repetitions of pictures, or all trials."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.stores import pickles
from brainhive_cli.data.stores.recordings import Recording, Sensors, Sliced, gather_trials, group_trials

FOLDERS = {"train": ("training_images", "train_images"), "test": ("test_images",)}
"""What the folder of a split's pictures is called; in image ids always the first."""
CALLED = {name: names[0] for names in FOLDERS.values() for name in names}
IMAGE = re.compile(rf"(?:.*/)?({'|'.join(CALLED)})/(.+)")
KEYS = ("eeg", "preprocessed_eeg_data", "data", "meg_data")
"""What the signal is called: by UBP (of MEG, too); by NICE, AlignVis, ATM and the data's authors; by
NeuroBridge; by ATM and AlignVis (of MEG)."""
PATHS = ("img", "meg_images")
"""What the pictures are called, by UBP and AlignVis; other files are in the order of the pictures' paths."""
CHANNELS = ("ch_names", "channels")


@dataclass(frozen=True)
class Usual:
    """What is so in files that do not say it.

    Attributes:
        image_ids: Lists the pictures of the split, for files that are in the order of their paths.
        montage: Channel names.
    """

    rate_hz: float
    unit: str
    montage: Sequence[str]
    image_ids: Callable[[], Sequence[str]]


def rate_of(content: Any) -> float | None:
    """Return the sampling rate that the times in a file have; None where it has none."""
    times = content.get("times") if isinstance(content, Mapping) else None
    if times is None or len(times) < 2:
        return None
    step_s = float(np.median(np.diff(pickles.array(times).astype(np.float64))))
    return round(1 / step_s, 6) if step_s > 0 else None


def has_signal(content: Any, keys: Sequence[str] = KEYS) -> bool:
    """Whether content is a dict with a signal under one of some keys, and, of UBP, with its pictures."""
    key = next((key for key in keys if key in content), None) if isinstance(content, Mapping) else None
    return key is not None and (key != KEYS[0] or PATHS[0] in content)


def recording(path: Path, content: Any, split: str, usual: Usual, provenance: dict[str, Any]) -> Recording:
    """Turn the content of a file into a recording; its signal stays where it is.

    Args:
        path: The file, for errors.
        content: Array [N, R, C, T] or [concepts, pictures, R, C, T]; or a dict that holds one, or trials
            [n, C, T] with the picture of each.
        split: Whose pictures they must be.
        usual: What is so where the file does not say it.
        provenance: Of the recording.

    Raises:
        BrainhiveError, or what NumPy raises: if it is none of this.
    """
    content = content if isinstance(content, Mapping) else {KEYS[2]: content}
    key = next(key for key in KEYS if key in content)
    signal = pickles.array(content[key])
    images = next((content[key] for key in PATHS if key in content), None)
    counts = None
    if signal.ndim == 5:
        signal = signal.reshape(-1, *signal.shape[2:])
    if signal.ndim == 3 and key == KEYS[3] and images is not None:
        signal, images, counts = _grouped(path, signal, images)
    if signal.ndim != 4:
        raise BrainhiveError(f"signals {list(signal.shape)} are not [N, R, C, T]")
    made = Recording(
        signal=signal,
        image_ids=usual.image_ids() if images is None else _image_ids(images, signal.shape),
        space=Sensors(_channels(content, usual.montage)),
        times_s=_times_s(content, signal.shape[3], usual.rate_hz),
        rate_hz=usual.rate_hz,
        unit=usual.unit,
        provenance=provenance,
        repetitions=counts,
        sessions=_sessions(content, signal.shape),
    )
    _refuse_other_split(made.image_ids, split)
    return made


def _grouped(path: Path, trials: NDArray[Any], images: Any) -> tuple[Any, Any, NDArray[np.int64]]:
    """Group trials [n, C, T] by picture."""
    names = pickles.array(images).astype(str)
    if names.shape != trials.shape[:1]:
        raise BrainhiveError(f"{list(trials.shape)} trials come with {list(names.shape)} pictures")
    pictures, table, counts = group_trials(names)
    read = gather_trials(table, trials.shape[1:], trials.dtype, trials.__getitem__)
    return Sliced(path, (*table.shape, *trials.shape[1:]), trials.dtype, read), pictures, counts


def _channels(content: Mapping[str, Any], montage: Sequence[str]) -> tuple[str, ...]:
    """A channel list found with the data always wins; NeuroBridge writes an empty one."""
    found = next((content[key] for key in CHANNELS if key in content), ())
    return tuple(pickles.array(found).astype(str).tolist()) or tuple(montage)


def _times_s(content: Mapping[str, Any], samples: int, rate_hz: float) -> NDArray[np.float64]:
    """Take the times that belong to the samples [T].

    The published lists cover the epoch from before the picture, though the samples before it were cut off:
    these times are left out where they, and no others, are too many.
    """
    if "times" not in content:
        return np.arange(samples) / rate_hz
    times_s = pickles.array(content["times"]).astype(np.float64)
    before = int((times_s < -0.5 / rate_hz).sum())
    return times_s[before:] if len(times_s) - before == samples else times_s


def _sessions(content: Mapping[str, Any], shape: Sequence[int]) -> NDArray[np.int8] | None:
    """Take the session of each repetition [N, R], which UBP's files have, counted from 0."""
    if "session" not in content:
        return None
    found = pickles.array(content["session"]).astype(np.float64)
    if found.shape != tuple(shape[:2]) or not np.isin(found, np.arange(128)).all():
        raise BrainhiveError(f"signals {list(shape)} come with sessions that are not one a repetition")
    return found.astype(np.int8)


def _image_ids(images: Any, shape: Sequence[int]) -> list[str]:
    """Turn paths [N] or [N, R] into image ids, or stems where that is all there is.

    Raises:
        BrainhiveError: if they have other axes, there are not R of each, or they are not of one picture.
    """
    paths = pickles.array(images).astype(str)
    if paths.ndim not in (1, 2):
        raise BrainhiveError(f"'img' of shape {list(paths.shape)} is neither [N] nor [N, R]")
    if paths.ndim == 2:
        if paths.shape[1] != shape[1]:
            raise BrainhiveError(f"signals {list(shape)} come with {list(paths.shape)} pictures in 'img'")
        if (odd := np.flatnonzero((paths != paths[:, :1]).any(1))).size:
            raise BrainhiveError(f"the repetitions of row {odd[0]} are of several pictures in 'img'")
        paths = paths[:, 0]
    return [image_id(path) for path in paths.tolist()]


def _refuse_other_split(image_ids: Sequence[str], split: str) -> None:
    others = [names[0] for other, names in FOLDERS.items() if other != split]
    if odd := next((name for name in image_ids if name.split("/")[0] in others), None):
        raise BrainhiveError(f"{odd} is no {split} picture: the files of train and test may be swapped")


def image_id(path: str) -> str:
    """Name a picture by its path from the folder of its split on; by its stem where that is not said."""
    stem = os.path.splitext(path)[0]
    found = IMAGE.fullmatch(stem)
    return f"{CALLED[found[1]]}/{found[2]}" if found else stem.rsplit("/", 1)[-1]
