"""Synthetic raw recordings in the layout of THINGS-EEG2, up to the published size:
noise, no response.
"""

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from brainhive_cli.data.published.things_eeg import MONTAGE
from brainhive_cli.data.published.things_eeg_raw import TARGET

RATE_HZ, SEQUENCE = 1000, 20
EACH = 10
"""Training pictures of a concept."""
BLOCK = 50_000
"""Samples that are drawn at a time."""
KEPT = 0.96
"""Share of a sample in the next one: the noise is red."""
MARK = b"<signal>"


@dataclass(frozen=True)
class Size:
    """What is recorded of one subject; the defaults are the published numbers.

    Attributes:
        concepts: Of training pictures; each session shows half of them.
        repetitions: Of a training and of a test picture in a session.
        extra: Trials beyond them in a recording of training, and of test pictures.
        targets: Trials without a picture of these.
    """

    sessions: int = 4
    concepts: int = 1654
    test_pictures: int = 200
    repetitions: tuple[int, int] = (2, 20)
    extra: tuple[int, int] = (170, 56)
    targets: tuple[int, int] = (90, 24)


class Room:
    """Pickles as an array of float64 whose bytes are MARK."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape

    def __reduce__(self) -> tuple[Any, ...]:
        """Reduce as an array does."""
        make, arguments, _ = np.empty(0).__reduce__()
        return make, arguments, (1, self.shape, np.dtype("<f8"), False, MARK)


def write(root: Path, size: Size, seed: int = 0) -> None:
    """Write image_metadata.npy and the recordings of subject 1."""
    root.mkdir(parents=True, exist_ok=True)
    metadata = {
        **_pictures("train", size.concepts, EACH),
        **_pictures("test", size.test_pictures, 1),
    }
    np.save(root / "image_metadata.npy", np.array(metadata, object), allow_pickle=True)
    random = np.random.default_rng(seed)
    for session in range(size.sessions):
        if session % 2 == 0:
            halves = np.array_split(random.permutation(size.concepts), 2)
        training = (halves[session % 2][:, None] * EACH + np.arange(EACH)).ravel() + 1
        folder = root / f"raw_eeg/sub-01/ses-{session + 1:02d}"
        folder.mkdir(parents=True, exist_ok=True)
        test = np.arange(size.test_pictures) + 1
        for kind, (name, codes) in enumerate((("training", training), ("test", test))):
            extra = random.choice(codes, size.extra[kind], replace=False)
            targets = np.full(size.targets[kind], TARGET)
            shown = np.concatenate(
                [np.repeat(codes, size.repetitions[kind]), extra, targets]
            )
            _record(folder / f"raw_eeg_{name}.npy", random.permutation(shown), random)


def _pictures(split: str, concepts: int, each: int) -> Mapping[str, list[str]]:
    names = [f"thing{number}" for number in range(1, concepts + 1)]
    return {
        f"{split}_img_concepts": [
            f"{number:05d}_{name}"
            for number, name in enumerate(names, 1)
            for _ in range(each)
        ],
        f"{split}_img_files": [
            f"{name}_{number + 1:02d}b.jpg" for name in names for number in range(each)
        ],
    }


def _record(path: Path, codes: NDArray[np.int64], random: np.random.Generator) -> None:
    """Write a recording that shows pictures, 20 in a sequence."""
    gaps = 200 + random.integers(-2, 3, len(codes))
    gaps[::SEQUENCE] += random.integers(1800, 3000, len(gaps[::SEQUENCE]))
    onsets = np.cumsum(gaps)
    signal = _reserve(path, int(onsets[-1]) + 2500)
    channels = len(MONTAGE)
    mixing = np.eye(channels) + 0.2 * random.normal(size=(channels, channels))
    offsets, state = random.uniform(-150, 150, (channels, 1)), np.zeros((channels, 1))
    for start in range(0, signal.shape[1], BLOCK):
        block = signal[:-1, start : start + BLOCK]
        red, state = lfilter(
            [1.0], [1.0, -KEPT], random.standard_normal(block.shape), axis=1, zi=state
        )
        block[:] = (offsets + mixing @ red) * 1e-6
    signal[-1, onsets] = codes
    signal.flush()


def _reserve(path: Path, samples: int) -> np.memmap[Any, np.dtype[np.float64]]:
    """Write a file as the published ones are, a pickled dict in an .npy; map the
    signals in it, all zero.
    """
    names, shape = [*MONTAGE, "stim"], (len(MONTAGE) + 1, samples)
    types = ["eeg"] * len(MONTAGE) + ["stim"]
    content = {
        "raw_eeg_data": Room(shape),
        "ch_names": names,
        "ch_types": types,
        "sfreq": RATE_HZ,
    }
    pickled = pickle.dumps(np.array(content, object), protocol=3)
    before, after = pickled.split(b"C" + bytes([len(MARK)]) + MARK)
    size = 8 * shape[0] * shape[1]
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|O", "fortran_order": False, "shape": ()}
        )
        file.write(before + b"B" + size.to_bytes(4, "little"))
        offset = file.tell()
        file.seek(size, 1)
        file.write(after)
    return np.memmap(path, "<f8", "r+", offset, shape)
