"""Synthetic raw recordings of noise in the layout of THINGS-EEG2."""

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from brainhive_cli.data.published.things_eeg import MONTAGE
from brainhive_cli.data.published.things_eeg_raw import TARGET

RATE_HZ = 1000
PICTURES_PER_SEQUENCE = 20
PICTURES_PER_CONCEPT = 10
SAMPLES_PER_BLOCK = 50_000
AUTOCORRELATION = 0.96
"""Correlation of successive samples, which makes the noise red."""
PLACEHOLDER = b"<signal>"


@dataclass(frozen=True)
class Size:
    """Amount of recordings of a subject, by default as published.

    Pairs are for recordings of training and of test pictures.

    Attributes:
        sessions: Number of sessions.
        concepts: Number of training concepts, of which each session shows half.
        test_pictures: Number of test pictures.
        repetitions: Repetitions of a picture in a session.
        extra: Number of additional trials in a recording.
        targets: Number of target trials, without a picture of these.
    """

    sessions: int = 4
    concepts: int = 1654
    test_pictures: int = 200
    repetitions: tuple[int, int] = (2, 20)
    extra: tuple[int, int] = (170, 56)
    targets: tuple[int, int] = (90, 24)


class PlaceholderArray:
    """Object that pickles as an array of float64 whose bytes are PLACEHOLDER."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape

    def __reduce__(self) -> tuple[Any, ...]:
        """Reduce to the constructor and state of an array."""
        function, arguments, _ = np.empty(0).__reduce__()
        state = (1, self.shape, np.dtype("<f8"), False, PLACEHOLDER)
        return function, arguments, state


def write(root: Path, size: Size, seed: int = 0) -> None:
    """Write image_metadata.npy and the recordings of subject 1."""
    root.mkdir(parents=True, exist_ok=True)
    metadata = {}
    _add_pictures(metadata, "train", size.concepts, PICTURES_PER_CONCEPT)
    _add_pictures(metadata, "test", size.test_pictures, 1)
    np.save(root / "image_metadata.npy", np.array(metadata, object), allow_pickle=True)
    random = np.random.default_rng(seed)
    for session in range(size.sessions):
        if session % 2 == 0:
            halves = np.array_split(random.permutation(size.concepts), 2)
        first_pictures = halves[session % 2][:, None] * PICTURES_PER_CONCEPT
        training = (first_pictures + np.arange(PICTURES_PER_CONCEPT)).ravel() + 1
        test = np.arange(size.test_pictures) + 1
        folder = root / f"raw_eeg/sub-01/ses-{session + 1:02d}"
        folder.mkdir(parents=True, exist_ok=True)
        for kind, (name, codes) in enumerate((("training", training), ("test", test))):
            extra = random.choice(codes, size.extra[kind], replace=False)
            targets = np.full(size.targets[kind], TARGET)
            repeated = np.repeat(codes, size.repetitions[kind])
            trials = random.permutation(np.concatenate([repeated, extra, targets]))
            _write_recording(folder / f"raw_eeg_{name}.npy", trials, random)


def _add_pictures(
    metadata: dict[str, list[str]], split: str, concepts: int, pictures: int
) -> None:
    """Add the concept and the file of each picture of a split to the metadata."""
    metadata[f"{split}_img_concepts"] = []
    metadata[f"{split}_img_files"] = []
    for concept in range(1, concepts + 1):
        for picture in range(1, pictures + 1):
            name = f"thing{concept}"
            metadata[f"{split}_img_concepts"].append(f"{concept:05d}_{name}")
            metadata[f"{split}_img_files"].append(f"{name}_{picture:02d}b.jpg")


def _write_recording(
    path: Path, codes: NDArray[np.int64], random: np.random.Generator
) -> None:
    """Write a recording that shows pictures in sequences of 20."""
    gaps = 200 + random.integers(-2, 3, len(codes))
    sequence_gaps = gaps[::PICTURES_PER_SEQUENCE]
    sequence_gaps += random.integers(1800, 3000, len(sequence_gaps))
    onsets = np.cumsum(gaps)
    signal = _create_file(path, int(onsets[-1]) + 2500)
    channels = len(MONTAGE)
    mixing = np.eye(channels) + 0.2 * random.normal(size=(channels, channels))
    offsets = random.uniform(-150, 150, (channels, 1))
    state = np.zeros((channels, 1))
    for start in range(0, signal.shape[1], SAMPLES_PER_BLOCK):
        block = signal[:-1, start : start + SAMPLES_PER_BLOCK]
        white_noise = random.standard_normal(block.shape)
        red_noise, state = lfilter(
            [1.0], [1.0, -AUTOCORRELATION], white_noise, axis=1, zi=state
        )
        block[:] = (offsets + mixing @ red_noise) * 1e-6
    signal[-1, onsets] = codes
    signal.flush()


def _create_file(path: Path, samples: int) -> np.memmap[Any, np.dtype[np.float64]]:
    """Create a published file, a pickled dict in .npy format.

    Returns:
        The signals [C, T] of zeros, mapped from the file.
    """
    shape = (len(MONTAGE) + 1, samples)
    content = {
        "raw_eeg_data": PlaceholderArray(shape),
        "ch_names": list(MONTAGE) + ["stim"],
        "ch_types": ["eeg"] * len(MONTAGE) + ["stim"],
        "sfreq": RATE_HZ,
    }
    pickled = pickle.dumps(np.array(content, object), protocol=3)
    # replace the short placeholder by the bytes of the signals
    header, footer = pickled.split(b"C" + bytes([len(PLACEHOLDER)]) + PLACEHOLDER)
    n_bytes = 8 * shape[0] * shape[1]
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|O", "fortran_order": False, "shape": ()}
        )
        file.write(header + b"B" + n_bytes.to_bytes(4, "little"))
        offset = file.tell()
        file.seek(n_bytes, 1)
        file.write(footer)
    return np.memmap(path, "<f8", "r+", offset, shape)
