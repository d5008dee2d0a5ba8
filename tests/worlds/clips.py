"""Clips that tests write and read: a square that moves over a smooth background."""

from pathlib import Path

import numpy as np
from PIL import Image

FRAMES = 6


def clip(seed: int, side_px: int = 24, frames: int = FRAMES) -> np.ndarray:
    """Draw a clip that its seed decides, [F, H, W, 3]; smooth, so that a video codec
    keeps it.
    """
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(60, 180, (3, 3, 3), np.uint8))
    background = np.asarray(coarse.resize((side_px, side_px), Image.Resampling.BICUBIC))
    drawn = np.repeat(background[None], frames, 0)
    top, size = random.integers(0, side_px // 2), side_px // 3
    for number in range(frames):
        left = 2 * number % (side_px - size)
        drawn[number, top : top + size, left : left + size] = random.integers(180, 255)
    return drawn


def save_animation(path: Path, frames: np.ndarray, rate_hz: float = 3.0) -> None:
    """Write a GIF, or any animated picture, as PIL does: equal frames are merged."""
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *others = map(Image.fromarray, frames)
    first.save(
        path, save_all=True, append_images=others, duration=1000 / rate_hz, loop=0
    )


def save_frames(folder: Path, frames: np.ndarray) -> None:
    """Write a folder of frames, numbered from 0 without leading zeros."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{number}.png")


def beside(true: np.ndarray, made: np.ndarray) -> np.ndarray:
    """Put two clips beside each other as torchvision's make_grid does: 2 px of black
    around and between.
    """
    side = true.shape[1]
    grid = np.zeros((len(true), side + 4, 2 * side + 6, 3), np.uint8)
    grid[:, 2 : 2 + side, 2 : 2 + side] = true
    grid[:, 2 : 2 + side, 4 + side : 4 + 2 * side] = made
    return grid
