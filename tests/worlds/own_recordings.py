"""Small recordings as people make them: pictures in a folder, EEG in the formats that
mne reads.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CHANNELS = ("Fp1", "Cz", "P7", "Pz", "O1", "O2")
RATE_HZ = 500
PICTURES = {
    "train": [
        f"train/{concept}/{concept}_{i}"
        for concept in ("cat", "dog", "ship")
        for i in range(2)
    ],
    "test": [f"test/{concept}/{concept}_9" for concept in ("owl", "car")],
}
EVERY_S = 1.3
"""From onset to onset."""


def write_pictures(folder: Path) -> None:
    """Write a picture of each id below a folder."""
    for number, name in enumerate([*PICTURES["train"], *PICTURES["test"]]):
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 255, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).resize((32, 32)).save(path)


@dataclass(frozen=True)
class Shown:
    """What a recording shows: pictures in order, and when."""

    pictures: tuple[str, ...]
    onsets: NDArray[np.int64]

    @classmethod
    def of(cls, repetitions: int, seed: int) -> "Shown":
        """Show each picture a number of times, in random order."""
        order = np.random.default_rng(seed).permutation(
            [name for names in PICTURES.values() for name in names] * repetitions
        )
        return cls(
            tuple(order.tolist()),
            (np.arange(len(order)) * EVERY_S * RATE_HZ + RATE_HZ).astype(int),
        )


def response(picture: str) -> NDArray[np.float64]:
    """Give what a picture evokes: [channels, 1 s], in microvolts."""
    random = np.random.default_rng(list(picture.encode()))
    course = np.sin(np.linspace(0, np.pi, RATE_HZ)) ** 2
    return 5 * random.normal(size=(len(CHANNELS), 1)) * course


def make_raw(
    shown: Shown, seed: int, noise: float = 10, unit: float = 1e-6, types: Any = "eeg"
) -> Any:
    """Record, in memory: noise, and what pictures evoke; both in `unit`."""
    import mne

    samples = int(shown.onsets[-1] + 2 * RATE_HZ)
    signal = np.random.default_rng(seed).normal(size=(len(CHANNELS), samples)) * noise
    for picture, onset in zip(shown.pictures, shown.onsets, strict=True):
        signal[:, onset : onset + RATE_HZ] += response(picture)
    header = mne.create_info(list(CHANNELS), RATE_HZ, types)
    return mne.io.RawArray(signal * unit, header, verbose="ERROR")


def annotate(raw: Any, shown: Shown, names: list[str]) -> Any:
    """Mark each onset by a name."""
    import mne

    return raw.set_annotations(mne.Annotations(shown.onsets / RATE_HZ, 0.0, names))


def codes(shown: Shown) -> list[int]:
    """Number the pictures shown from 1."""
    known = [name for names in PICTURES.values() for name in names]
    return [known.index(name) + 1 for name in shown.pictures]


def write_table(path: Path, event: str = "{}") -> None:
    """Write the table from codes to pictures."""
    known = [name for names in PICTURES.values() for name in names]
    rows = [
        f"{event.format(number + 1)},{name}.png" for number, name in enumerate(known)
    ]
    path.write_text("\n".join(["event,picture", *rows]) + "\n")
