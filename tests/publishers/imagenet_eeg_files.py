"""EEGCVPR40's and EEG-ImageNet's files as their publishers write them: `torch.save` of
a dict with a list of segments.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

BLOCK = 50
"""Pictures of a class, which follow one another."""
SYNSETS = tuple(f"n{number:08d}" for number in range(2951358, 2951398))
"""Names of 40 classes."""
GROUP_SHARES = {"train": range(40), "val": range(40, 45), "test": range(45, BLOCK)}
"""Pictures of a class in each split."""


def name_pictures(synset: str, count: int = BLOCK) -> list[str]:
    """Name pictures of a class as ImageNet's files, without ending."""
    return [f"{synset}_{number}" for number in range(31190, 31190 + count)]


def draw_signal(
    rng: np.random.Generator, n_channels: int, length: int, offset: float = 0.0
) -> torch.Tensor:
    """Draw a segment [C, L] of noise around an offset."""
    noise = rng.standard_normal((n_channels, length), np.float32)
    return torch.from_numpy(noise + np.float32(offset))


def make_eegcvpr40(
    subjects: Iterable[int] = (1, 2),
    n_classes: int = 3,
    n_channels: int = 4,
    lengths: Mapping[int, int] | None = None,
    drift: float = 0.0,
    seed: int = 0,
) -> dict[str, Any]:
    """Make the content of a file of EEGCVPR40.

    Args:
        subjects: Numbers of the subjects.
        n_classes: Number of classes, each shown in a block.
        n_channels: Number of channels.
        lengths: Number of samples of the segments that have not 500, by their row.
        drift: Offset between two blocks that follow one another.
        seed: Seed of the noise.
    """
    rng = np.random.default_rng(seed)
    labels = list(SYNSETS[:n_classes])
    images = [name for synset in labels for name in name_pictures(synset)]
    rows: list[dict[str, Any]] = []
    for subject in subjects:
        for number in range(len(images)):
            length = (lengths or {}).get(len(rows), 500)
            label = number // BLOCK
            rows.append(
                {
                    "eeg": draw_signal(rng, n_channels, length, drift * label),
                    "image": number,
                    "label": label,
                    "subject": subject,
                }
            )
    return {"dataset": rows, "labels": labels, "images": images}


def make_splits(content: Mapping[str, Any]) -> dict[str, Any]:
    """Make the content of block_splits_by_image_all.pth for a file of EEGCVPR40."""
    split: dict[str, list[int]] = {name: [] for name in GROUP_SHARES}
    for row, segment in enumerate(content["dataset"]):
        for name, numbers in GROUP_SHARES.items():
            if segment["image"] % BLOCK in numbers:
                split[name].append(row)
    return {"splits": [split, {name: [] for name in split}]}


def save_eegcvpr40(
    root: Path,
    content: Mapping[str, Any],
    file: str = "eeg_5_95_std.pth",
    is_older: bool = False,
) -> Path:
    """Write a file of EEGCVPR40 and its splits.

    Args:
        root: Folder of the data set.
        content: Content of the file.
        file: Name of the file.
        is_older: If True, write it as torch did before version 1.6.
    """
    folder = root / "block"
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(content, folder / file, _use_new_zipfile_serialization=not is_older)
    torch.save(make_splits(content), folder / "block_splits_by_image_all.pth")
    return folder / file


def make_eeg_imagenet(
    blocks: Mapping[int, Sequence[tuple[str, str]]],
    orders: Mapping[int, Sequence[int]] | None = None,
    n_channels: int = 62,
    length: int = 500,
    seed: int = 0,
) -> dict[str, Any]:
    """Make the content of a file of EEG-ImageNet.

    Args:
        blocks: Granularity and class of each block in order, by subject from 0.
        orders: Order of a class's pictures by subject, by default by their numbers.
        n_channels: Number of channels.
        length: Number of samples.
        seed: Seed of the noise.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for subject, subject_blocks in blocks.items():
        order = (orders or {}).get(subject, range(BLOCK))
        for granularity, synset in subject_blocks:
            pictures = name_pictures(synset)
            for number in order:
                rows.append(
                    {
                        "eeg_data": draw_signal(rng, n_channels, length).half(),
                        "granularity": granularity,
                        "subject": subject,
                        "label": synset,
                        "image": f"{pictures[number]}.JPEG",
                    }
                )
    images = sorted({row["image"] for row in rows})
    return {"dataset": rows, "labels": list(SYNSETS), "images": images}


def write_imagenet(folder: Path, synsets: Iterable[str]) -> None:
    """Write a small picture for each name of some classes, as ImageNet's folders."""
    for class_number, synset in enumerate(synsets):
        (folder / synset).mkdir(parents=True, exist_ok=True)
        for number, name in enumerate(name_pictures(synset)):
            rng = np.random.default_rng((class_number, number))
            pixels = rng.integers(0, 255, (8, 8, 3), np.uint8)
            image = Image.fromarray(pixels).resize((32, 32))
            image.save(folder / synset / f"{name}.JPEG", "JPEG")
