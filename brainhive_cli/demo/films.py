"""Films of the drawn objects, which move in one of four directions."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from brainhive_cli.core.base import UInt8
from brainhive_cli.demo import pictures
from brainhive_cli.demo.pictures import CATEGORIES, Scene

N_FRAMES = 6
RATE_HZ = 3.0
"""Number and rate of frames, as in the clips of cc2017 that models see."""
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
"""Step (x, y) of each direction. y grows downwards."""
MAX_OFFSET = 0.18
"""Distance between an object's middle position and its first or last, in picture
widths.
"""
LABELS = (*CATEGORIES, *pictures.BACKGROUNDS)
"""Labels of a film: categories of objects, and places."""
TRAIN_FILMS_PER_CONCEPT = 6


@dataclass(frozen=True)
class Film:
    """Film of a moving object.

    Attributes:
        scene: Scene in the middle of the film.
        direction: Direction of motion, among `DIRECTIONS`.
    """

    scene: Scene
    direction: str

    def list_scenes(self) -> list[Scene]:
        """List the scene of each frame."""
        step_x, step_y = DIRECTIONS[self.direction]
        scenes = []
        for offset in np.linspace(-MAX_OFFSET, MAX_OFFSET, N_FRAMES).tolist():
            x = round(self.scene.x + step_x * offset, 4)
            y = round(self.scene.y + step_y * offset, 4)
            scenes.append(replace(self.scene, x=x, y=y))
        return scenes

    def draw_frames(self, resolution_px: int = 64) -> UInt8:
        """Draw all frames [F, H, W, 3]."""
        frames = []
        for scene in self.list_scenes():
            frames.append(np.asarray(pictures.draw_scene(scene, resolution_px)))
        return np.stack(frames)

    def draw_masks(self, resolution_px: int = 64) -> UInt8:
        """Draw the mask [F, H, W] of the object in each frame, 1 inside."""
        scenes = self.list_scenes()
        return np.stack([pictures.draw_mask(scene, resolution_px) for scene in scenes])

    def encode_labels(self) -> UInt8:
        """Return 1 for the film's category and place among `LABELS`, else 0."""
        film_labels = (self.scene.category, self.scene.background)
        return np.array([label in film_labels for label in LABELS], np.uint8)


def list_films(split: Literal["train", "test"]) -> list[Film]:
    """List the films of a split.

    Training has 6 films of each of 160 concepts (such as a red striped fish), and test
    a film of each of 100 others. The four directions are equally frequent, and
    independent of object and place.
    """
    n_films_per_concept = 1
    seed = 2028
    if split == "train":
        n_films_per_concept = TRAIN_FILMS_PER_CONCEPT
        seed = 2027
    rng = np.random.default_rng(seed)
    concepts = pictures.split_concepts()[split]
    scenes = pictures.arrange_scenes(
        f"{split}_films", concepts, n_films_per_concept, rng
    )

    # the remainder of a random number by 4 is the direction
    directions = list(DIRECTIONS)
    films = []
    for scene, number in zip(
        scenes, rng.permutation(len(scenes)).tolist(), strict=True
    ):
        direction = directions[number % len(directions)]
        films.append(keep_inside(Film(scene, direction)))
    return films


def keep_inside(film: Film) -> Film:
    """Shrink and move the object so that all frames show it completely."""
    scene = film.scene
    # Largest `Scene.size` of a film. Larger objects are shrunk, and so stay inside.
    size = min(scene.size, 0.54)
    centre = []
    steps = DIRECTIONS[film.direction]
    for position, step in zip((scene.x, scene.y), steps, strict=True):
        # half the range of the centre: a margin of 4 % as in pictures, minus the motion
        reach = (1 - 1.04 * size) / 2 - MAX_OFFSET * abs(step)
        centre.append(round(float(np.clip(position, 0.5 - reach, 0.5 + reach)), 4))
    return replace(film, scene=replace(scene, x=centre[0], y=centre[1], size=size))
