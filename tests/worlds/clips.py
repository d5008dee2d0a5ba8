"""Clips that tests write and read: a square that moves over a smooth background."""

from pathlib import Path

import numpy as np
from PIL import Image

FRAMES = 6


def draw_clip(seed: int, side_px: int = 24, frames: int = FRAMES) -> np.ndarray:
    """Draw a random clip [F, H, W, 3], so smooth that a video codec keeps it."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(60, 180, (3, 3, 3), np.uint8))
    background = np.asarray(coarse.resize((side_px, side_px), Image.Resampling.BICUBIC))
    pixels = np.repeat(background[None], frames, 0)
    y, size = random.integers(0, side_px // 2), side_px // 3
    for number in range(frames):
        x = 2 * number % (side_px - size)
        pixels[number, y : y + size, x : x + size] = random.integers(180, 255)
    return pixels


def save_animation(path: Path, frames: np.ndarray, rate_hz: float = 3.0) -> None:
    """Write an animated picture, such as a GIF. PIL merges equal frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [Image.fromarray(frame) for frame in frames]
    images[0].save(
        path, save_all=True, append_images=images[1:], duration=1000 / rate_hz, loop=0
    )


def save_frames(folder: Path, frames: np.ndarray) -> None:
    """Write a folder of frames, numbered from 0 without leading zeros."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{number}.png")


def place_side_by_side(stimulus: np.ndarray, generated: np.ndarray) -> np.ndarray:
    """Join two clips as torchvision's make_grid does, with black borders of 2 px."""
    side_px = stimulus.shape[1]
    grid = np.zeros((len(stimulus), side_px + 4, 2 * side_px + 6, 3), np.uint8)
    grid[:, 2 : 2 + side_px, 2 : 2 + side_px] = stimulus
    grid[:, 2 : 2 + side_px, 4 + side_px : 4 + 2 * side_px] = generated
    return grid
