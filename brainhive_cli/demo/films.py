"""Films: the things of the drawn pictures, each on its way through the picture in one
of four directions.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from brainhive_cli.core.arrays import UInt8
from brainhive_cli.demo import pictures
from brainhive_cli.demo.pictures import CATEGORIES, Scene

FRAMES, RATE_HZ = 6, 3.0
"""Sizes of a film, as of the clips of cc2017 that are shown to models."""
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
"""Direction > its step (x, y); y grows downwards."""
REACH = 0.18
"""Distance from the middle of its way at which a thing begins and ends, in widths of
the picture.
"""
LARGEST = 0.54
"""Side of the largest thing, as `Scene.size`; larger ones of pictures are shrunk to it,
and stay inside.
"""
LABELS = (*CATEGORIES, *pictures.BACKGROUNDS)
"""Contents of a film: categories of things, and places."""
TRAIN_FILMS_PER_CONCEPT = 6


@dataclass(frozen=True)
class Film:
    """A scene as it is in the middle of the film, and where its thing goes.

    Attributes:
        scene: What is shown.
        direction: One of `DIRECTIONS`.
    """

    scene: Scene
    direction: str

    def scenes(self) -> list[Scene]:
        """List the scenes of all frames."""
        x, y = DIRECTIONS[self.direction]
        # the thing is at its scene's place in the middle of the film
        ways = np.linspace(-REACH, REACH, FRAMES)
        return [
            replace(
                self.scene,
                x=round(self.scene.x + x * way, 4),
                y=round(self.scene.y + y * way, 4),
            )
            for way in ways.tolist()
        ]

    def frames(self, resolution_px: int = 64) -> UInt8:
        """Draw all frames, [F, H, W, 3]."""
        return np.stack(
            [np.asarray(pictures.draw(scene, resolution_px)) for scene in self.scenes()]
        )

    def masks(self, resolution_px: int = 64) -> UInt8:
        """Say where the thing is in each frame: [F, H, W], 1 or 0."""
        return np.stack(
            [pictures.mask(scene, resolution_px) for scene in self.scenes()]
        )

    def labels(self) -> UInt8:
        """Say which of `LABELS` it shows, 1 or 0."""
        # two labels are 1: the category, and the place
        shown = (self.scene.category, self.scene.background)
        return np.array([label in shown for label in LABELS], np.uint8)


def films(split: Literal["train", "test"]) -> list[Film]:
    """List the films of a split: of 160 concepts 6 each to train on, of 100 new
    concepts one each to test on.

    The four directions are equally frequent, and do not depend on what moves or where.
    """
    # place the concepts, and deal the directions to the scenes at random
    copies, seed = (TRAIN_FILMS_PER_CONCEPT, 2027) if split == "train" else (1, 2028)
    rng = np.random.default_rng(seed)
    scenes = pictures.named_scenes(
        f"{split}_films", pictures.split_concepts()[split], copies, rng
    )
    # numbers modulo 4: equally frequent directions, independent of the scene
    order = rng.permutation(len(scenes)).tolist()
    return [
        keep_inside(Film(scene, tuple(DIRECTIONS)[n % len(DIRECTIONS)]))
        for scene, n in zip(scenes, order, strict=True)
    ]


def keep_inside(film: Film) -> Film:
    """Shrink and move the thing so that it stays in the picture all the way."""
    scene = film.scene
    steps = DIRECTIONS[film.direction]
    # things larger than LARGEST would leave the picture on their way
    size = min(scene.size, LARGEST)
    centre = []
    for position, step in zip((scene.x, scene.y), steps, strict=True):
        # half the range of the centre: 4 % margin as in pictures, less the way
        room = (1 - 1.04 * size) / 2 - REACH * abs(step)
        centre.append(round(float(np.clip(position, 0.5 - room, 0.5 + room)), 4))
    return replace(film, scene=replace(scene, x=centre[0], y=centre[1], size=size))
