"""Pictures that are pieces of freely licensed photographs."""

from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from brainhive_cli.core.files import documents

FOLDER = Path(__file__).with_name("photographs")
"""Folder of the photographs, with their sources and terms in README."""
PIECES = documents.read(
    FOLDER / "pieces.json",
    dict[
        Literal["train", "test"],
        dict[str, tuple[str, int, int, int, int, int]],
    ],
)
"""Grid of square pieces of each thing, by split: photograph, left and upper edge, side,
columns and rows, in pixels. No two pieces overlap.
"""
LIBRARY_PHOTOGRAPHS = ("china", "flower")
"""Photographs that scikit-learn contains."""


def cut_pictures(split: Literal["train", "test"]) -> dict[str, Image.Image]:
    """Cut the pictures of a split out of the photographs.

    Returns:
        Pictures by image id, such as `train/coins/coins_01`.
    """
    pictures = {}
    # Height and width of a picture.
    square_px = 128
    for thing, (name, left, top, side_px, columns, rows) in PIECES[split].items():
        photograph = _open_photograph(name)
        for index in range(columns * rows):
            x = left + index % columns * side_px
            y = top + index // columns * side_px
            piece = photograph.crop((x, y, x + side_px, y + side_px))
            image_id = f"{split}/{thing}/{thing}_{index + 1:02d}"
            pictures[image_id] = piece.resize(
                (square_px, square_px), Image.Resampling.LANCZOS
            )
    return pictures


def _open_photograph(name: str) -> Image.Image:
    """Open a photograph of this folder or of scikit-learn, in RGB."""
    if name in LIBRARY_PHOTOGRAPHS:
        from sklearn.datasets import load_sample_image

        return Image.fromarray(np.array(load_sample_image(f"{name}.jpg")))
    with Image.open(FOLDER / f"{name}.jpg") as photograph:
        return photograph.convert("RGB")
