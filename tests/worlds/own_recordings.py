"""Small recordings as users make them, with pictures in a folder and EEG for mne."""

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
PICTURE_NAMES = PICTURES["train"] + PICTURES["test"]
ONSET_INTERVAL_S = 1.3


def write_pictures(folder: Path) -> None:
    """Write a random picture for each name below a folder."""
    for number, name in enumerate(PICTURE_NAMES):
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 255, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).resize((32, 32)).save(path)


@dataclass(frozen=True)
class Presentation:
    """Pictures in the order of presentation, and their onsets in samples."""

    pictures: tuple[str, ...]
    onsets: NDArray[np.int64]

    @classmethod
    def randomize(cls, repetitions: int, seed: int) -> "Presentation":
        """Present each picture a number of times, in random order."""
        order = np.random.default_rng(seed).permutation(PICTURE_NAMES * repetitions)
        onsets = np.arange(len(order)) * ONSET_INTERVAL_S * RATE_HZ + RATE_HZ
        return cls(tuple(order.tolist()), onsets.astype(int))


def simulate_response(picture: str) -> NDArray[np.float64]:
    """Simulate the response to a picture, [C, 1 s] in microvolts."""
    random = np.random.default_rng(list(picture.encode()))
    time_course = np.sin(np.linspace(0, np.pi, RATE_HZ)) ** 2
    return 5 * random.normal(size=(len(CHANNELS), 1)) * time_course


def make_raw(
    presentation: Presentation,
    seed: int,
    noise: float = 10,
    unit: float = 1e-6,
    types: Any = "eeg",
) -> Any:
    """Simulate a recording of noise and responses, in memory.

    Args:
        presentation: The pictures and their onsets.
        seed: Seed of the noise.
        noise: Standard deviation of the noise in simulated values.
        unit: Factor from simulated values to volts or teslas.
        types: Type of all channels or of each, as in `mne.create_info`.
    """
    import mne

    samples = int(presentation.onsets[-1] + 2 * RATE_HZ)
    signal = np.random.default_rng(seed).normal(size=(len(CHANNELS), samples)) * noise
    for picture, onset in zip(presentation.pictures, presentation.onsets, strict=True):
        signal[:, onset : onset + RATE_HZ] += simulate_response(picture)
    header = mne.create_info(list(CHANNELS), RATE_HZ, types)
    return mne.io.RawArray(signal * unit, header, verbose="ERROR")


def annotate(raw: Any, presentation: Presentation, names: list[str]) -> Any:
    """Annotate each onset with a name, and return the recording."""
    import mne

    return raw.set_annotations(
        mne.Annotations(presentation.onsets / RATE_HZ, 0.0, names)
    )


def list_event_codes(presentation: Presentation) -> list[int]:
    """Return the event code of each presented picture, counted from 1."""
    return [PICTURE_NAMES.index(name) + 1 for name in presentation.pictures]


def write_table(path: Path, event: str = "{}") -> None:
    """Write a table of event codes and their pictures."""
    rows = ["event,picture"]
    for code, name in enumerate(PICTURE_NAMES, start=1):
        rows.append(f"{event.format(code)},{name}.png")
    path.write_text("\n".join(rows) + "\n")
