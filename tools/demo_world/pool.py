"""Random pictures to train the demo's weights on, as tensors."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from brainhive_cli.demo.films import DIRECTIONS, Film, keep_inside
from brainhive_cli.demo.pictures import Scene, arrange, draw, split_concepts


class Pool(NamedTuple):
    """Scenes with their pictures.

    Args:
        scenes: N scenes.
        pictures: [N, 3, H, W], uint8.
    """

    scenes: list[Scene]
    pictures: Tensor


def random_scene(rng: np.random.Generator) -> Scene:
    """Draw a scene at random; its concept is never one of the test split."""
    concepts = split_concepts()["untested"]
    return arrange(concepts[rng.integers(len(concepts))], rng)


def random_film(rng: np.random.Generator) -> Film:
    """Draw a film at random; its concept is never one of the test split."""
    direction = tuple(DIRECTIONS)[rng.integers(len(DIRECTIONS))]
    return keep_inside(Film(random_scene(rng), direction))


def random_pool(count: int, seed: int) -> Pool:
    """Draw `count` random scenes, none of which shows a test concept."""
    rng = np.random.default_rng(seed)
    return drawn([random_scene(rng) for _ in range(count)])


def drawn(scenes: list[Scene]) -> Pool:
    """Draw the given scenes."""
    pictures = np.stack([np.asarray(draw(scene)) for scene in scenes])  # [N, H, W, 3]
    return Pool(scenes, torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous())
