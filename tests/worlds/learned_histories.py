"""Small training histories, and digests of the pixels of their pictures."""

import zlib

import numpy as np

from brainhive_cli.data.stores import LearnedPictures, TrainingHistory

IDS = ["train/cat/1", "train/cat/2", "train/dog/1"]


def make_digests(*digests: int) -> np.ndarray:
    """Make digests of pixels without perceptual hashes [N, 25]."""
    return np.array([([digest] + list([0] * 24)) for digest in digests], np.uint64)


def make_history(
    dataset: str = "faces", ids: list[str] = IDS, **fields: object
) -> TrainingHistory:
    """Make the history of a training on two people, with changed fields."""
    facts = {
        "selection": "validation",
        "dataset": dataset,
        "recordings": "eeg",
        "people": {"eeg": (1, 2)},
    }
    facts = facts | {"has_all_subjects": True} | fields
    pixels = make_digests(*(zlib.crc32(image_id.encode()) for image_id in ids))
    return TrainingHistory(
        pictures=LearnedPictures.from_image_ids(dataset, ids, pixels), **facts
    )  # type: ignore[arg-type]


def make_pixels(*digests: int, hashed: bool = True) -> np.ndarray:
    """Make digests of pixels with random perceptual hashes [N, 25]."""
    rows = [
        np.random.default_rng(digest).integers(1, 2**63, 25, dtype=np.uint64)
        for digest in digests
    ]
    pixels = np.array(rows, np.uint64).reshape(-1, 25)
    pixels[:, 0] = digests
    if not hashed:
        pixels[:, 1:] = 0
    return pixels


def edit_pixels(pixels: np.ndarray, bits: int, digest: int = 99) -> np.ndarray:
    """Change the hashes of each view by a number of bits, as an edit does."""
    edited = pixels.copy()
    edited[:, 0] = digest
    edited[:, 2::2] ^= np.uint64((1 << bits) - 1)
    return edited
