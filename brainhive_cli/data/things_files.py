"""Files of THINGS-EEG2 and THINGS-MEG as projects publish them: signals, channels and names of pictures."""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from brainhive_cli.core import documents
from brainhive_cli.core.arrays import Array, Float64
from brainhive_cli.core.damage import RAISED, is_of_the_machine
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError, first_line
from brainhive_cli.data.spaces import Sensors
from brainhive_cli.data.stores import pickles
from brainhive_cli.data.trials import Lazy, Trials, gather_trials, group_trials

THINGS_EEG = tuple(
    "Fp1 Fp2 AF7 AF3 AFz AF4 AF8 F7 F5 F3 F1 F2 F4 F6 F8 FT9 FT7 FC5 FC3 FC1 FCz FC2 FC4 FC6 FT8 FT10 T7 C5 "
    "C3 C1 Cz C2 C4 C6 T8 TP9 TP7 CP5 CP3 CP1 CPz CP2 CP4 CP6 TP8 TP10 P7 P5 P3 P1 Pz P2 P4 P6 P8 PO7 PO3 "
    "POz PO4 PO8 O1 Oz O2".split()
)
"""The 63 of THINGS-EEG2 from front to back, as NICE and all papers after it; not the amplifier's order."""
SHOWN = {"things-eeg": {"stimulus_ms": 100.0}, "things-meg": {"stimulus_ms": 500.0}}
"""Time that each picture was shown, for provenance. Source: Gifford et al. 2022; Hebart et al. 2023."""
FOLDERS = {"train": ("training_images", "train_images"), "test": ("test_images",)}
"""Names of the folder of a split's pictures; in image ids always the first."""
CALLED = {name: names[0] for names in FOLDERS.values() for name in names}
IMAGE = re.compile(rf"(?:.*/)?({'|'.join(CALLED)})/(.+)")
METADATA = "image_metadata.npy"
"""The table of THINGS-EEG2's pictures, whose order numbers them."""
KEYS = ("eeg", "preprocessed_eeg_data", "data", "meg_data")
"""Names of the signal: by UBP (of MEG, too); by NICE, AlignVis, ATM and the data's authors; by
NeuroBridge; by ATM and AlignVis (of MEG)."""
PATHS = ("img", "meg_images")
"""Names of the pictures, by UBP and AlignVis; other files are in the order of the pictures' paths."""
CHANNELS = ("ch_names", "channels")
INFO = "info.json"
UNITS = {"mvnn": "whitened", "zscore": "z-score"}
DTYPES = {"fp16": "float16", "fp32": "float32", "fp64": "float64"}


def image_id(path: str) -> str:
    """Name a picture by its path from the folder of its split on; by its stem where that is not said."""
    stem = os.path.splitext(path)[0]
    match = IMAGE.fullmatch(stem)
    return f"{CALLED[match[1]]}/{match[2]}" if match else stem.rsplit("/", 1)[-1]


def read_metadata(path: Path, source: str) -> dict[str, list[str]]:
    """Read the ids of the pictures of each split, in the order of their numbers.

    Args:
        path: The table.
        source: How to get it.

    Raises:
        BrainhiveError: if it is no such table.
    """
    table, image_ids = pickles.load(path), {}
    for split, folders in FOLDERS.items():
        keys = [f"{split}_img_{what}" for what in ("concepts", "files")]
        if not isinstance(table, Mapping) or any(key not in table for key in keys):
            raise BrainhiveError(f"{path} has no {' and '.join(keys)}", source)
        concepts, files = ([*map(str, table[key])] for key in keys)
        if len(concepts) != len(files):
            raise BrainhiveError(f"{path}: {' and '.join(keys)} have different lengths", source)
        image_ids[split] = [
            f"{folders[0]}/{concept}/{Path(file).stem}" for concept, file in zip(concepts, files, strict=True)
        ]
    return image_ids


class ArrayInfo(BaseModel):
    """The info.json that NeuroBridge's scripts write for all subjects' arrays; it holds more.

    Attributes:
        ch_names: Channels in their order; empty in some files of MEG.
        times: Seconds after the picture's onset; in older files also those before it, which the arrays lack.
        sfreq: Samples a second.
        train_data_shape: Of the array, or in older files of one session; the same in its last two axes.

    Source: github.com/feroooooo/NeuroBridge, preprocess_eeg.py and preprocess_meg.py.
    """

    ch_names: list[str] = []
    times: list[float]
    sfreq: float = Field(gt=0)
    normalization: Literal["mvnn", "zscore", "none"] | None
    precision: Literal["fp16", "fp32", "fp64"] | None = None
    train_data_shape: list[int] = []
    test_data_shape: list[int] = []

    @property
    def unit(self) -> str:
        """Unit of the signal; empty if it was not normalised."""
        return UNITS.get(self.normalization or "", "")

    def add_to(self, array: Array, split: str) -> dict[str, Any]:
        """Join what it says to an array, as other projects' files have it.

        Raises:
            BrainhiveError: if the array is of another precision, or has other channels or samples.
        """
        expected = DTYPES.get(self.precision or "", str(array.dtype))
        if array.dtype != expected:
            raise BrainhiveError(f"signals are {array.dtype}, {INFO} says {expected}")
        shape: list[int] = getattr(self, f"{split}_data_shape")
        if shape and [*array.shape[-2:]] != shape[-2:]:
            raise BrainhiveError(
                f"signals {[*array.shape]} do not have the channels and samples {shape[-2:]} of {INFO}"
            )
        return {KEYS[2]: array, CHANNELS[0]: self.ch_names, "times": np.array(self.times)}


def read_info(path: Path) -> ArrayInfo | None:
    """Read the info.json of an array, in its folder or in that of all subjects; None where there is none.

    Raises:
        BrainhiveError: if it is damaged, or lacks what is needed.
    """
    places = (folder / INFO for folder in (path.parent, path.parent.parent))
    info = next((place for place in places if place.is_file()), None)
    again = "copy it again with its arrays, or prepare them again"
    return None if info is None else documents.read(info, ArrayInfo, again)


def has_signal(content: Any, keys: Sequence[str] = KEYS) -> bool:
    """Whether content is a dict with a signal under one of some keys, and, of UBP, with its pictures."""
    key = next((key for key in keys if key in content), None) if isinstance(content, Mapping) else None
    return key is not None and (key != KEYS[0] or PATHS[0] in content)


def rate_of(content: Any) -> float | None:
    """Return the sampling rate that the times in a file have; None where it has none."""
    times = content.get("times") if isinstance(content, Mapping) else None
    if times is None or len(times) < 2:
        return None
    step_s = float(np.median(np.diff(pickles.array(times).astype(np.float64))))
    return round(1 / step_s, 6) if step_s > 0 else None


@contextmanager
def refusing(path: Path, source: str) -> Iterator[None]:
    """Turn what our code or NumPy raises of odd content into one error that names the file."""
    try:
        yield
    except (MissingData, RecipeError):
        raise
    except (BrainhiveError, *RAISED) as error:
        if is_of_the_machine(error):
            raise
        raise BrainhiveError(f"{path}: {first_line(error)}", source) from error


def make_recording(
    path: Path,
    content: Any,
    split: str,
    rate_hz: float,
    unit: str,
    montage: Sequence[str],
    list_pictures: Callable[[], Sequence[str]],
    provenance: dict[str, Any],
) -> Trials:
    """Turn the content of a file into a recording; its signal stays where it is.

    Args:
        path: The file, for errors.
        content: Array [N, R, C, T] or [concepts, pictures, R, C, T]; or a dict that holds one, or trials
            [n, C, T] with the picture of each.
        split: Whose pictures they must be.
        rate_hz: Of the signals.
        unit: Of the signals.
        montage: Names of channels where the file has none.
        list_pictures: Lists the pictures of the split, for files that are in the order of their paths.
        provenance: Of the recording.

    Raises:
        BrainhiveError, or what NumPy raises: if it is none of this; see `refusing`.
    """
    # find the signal and the paths of pictures by the keys that projects use
    content = content if isinstance(content, Mapping) else {KEYS[2]: content}
    key = next(key for key in KEYS if key in content)
    signal: Any = pickles.array(content[key])
    images = next((content[key] for key in PATHS if key in content), None)

    # bring the signal to [N, R, C, T]; AlignVis stores single trials
    counts = None
    if signal.ndim == 5:
        signal = signal.reshape(-1, *signal.shape[2:])
    if signal.ndim == 3 and key == KEYS[3] and images is not None:  # trials [n, C, T]
        names, trials = pickles.array(images).astype(str), signal
        if names.shape != trials.shape[:1]:
            raise BrainhiveError(f"{list(trials.shape)} trials come with {list(names.shape)} pictures")
        images, table, counts = group_trials(names)
        read = gather_trials(table, trials.shape[1:], trials.dtype, trials.__getitem__)
        signal = Lazy(path, (*table.shape, *trials.shape[1:]), trials.dtype, read)
    if len(signal.shape) != 4:
        raise BrainhiveError(f"signals {list(signal.shape)} are not [N, R, C, T]")

    # a channel list found with the data always wins; NeuroBridge writes an empty one
    names = pickles.array(next((content[key] for key in CHANNELS if key in content), ())).astype(str)
    recording = Trials(
        signal,
        image_ids=list_pictures() if images is None else _image_ids(images, signal.shape),
        space=Sensors(tuple(names.tolist()) or tuple(montage)),
        times_s=_times_s(content, signal.shape[3], rate_hz),
        rate_hz=rate_hz,
        unit=unit,
        provenance=provenance,
        repetitions=counts,
        sessions=_sessions(content, signal.shape),
    )

    # pictures must belong to the split
    other_folders = [names[0] for other, names in FOLDERS.items() if other != split]
    if odd := next((name for name in recording.image_ids if name.split("/")[0] in other_folders), None):
        raise BrainhiveError(f"{odd} is no {split} picture: the files of train and test may be swapped")
    return recording


def _times_s(content: Mapping[str, Any], samples: int, rate_hz: float) -> Float64:
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
    sessions = pickles.array(content["session"]).astype(np.float64)
    if sessions.shape != tuple(shape[:2]) or not np.isin(sessions, np.arange(128)).all():
        raise BrainhiveError(f"signals {list(shape)} come with sessions that are not one a repetition")
    return sessions.astype(np.int8)


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
