"""Fits the projection of the demo's image tokens, and makes the pictures that text and
dual learn from.

The Fusion Prior's image tokens tell what is shown, where, and how large. The projection
gives of them what a picture's embedding for meaning tells, in which place and size are
mostly averaged out.
"""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from brainhive_cli.demo.joined_generators import DUAL
from brainhive_cli.demo.pictures import Scene
from brainhive_cli.models.encoders.demo_image import WIDTH
from brainhive_cli.models.priors._fusion_network import FusionPrior
from tools.demo_world.features import embed
from tools.demo_world.pool import drawn, random_scene

FILE = DUAL / "image_projection.safetensors"
BUILD = Path("build/demo_world")
POOL, SEED, RIDGE = 3_000, 6, 1e-3


class Data(NamedTuple):
    """Pictures as the encoders see them.

    Args:
        scenes: N scenes.
        latents: Scaled latents [N, 4, h, w].
        images: Image tokens [N, S, D].
        elsewhere: Image tokens of the same things, moved in the picture.
    """

    scenes: list[Scene]
    latents: Tensor
    images: Tensor
    elsewhere: Tensor


def main() -> None:
    """Fit and save the projection."""
    data()


@cache
@torch.no_grad()
def data() -> Data:
    """Draw and embed the pictures, once: they are kept for later stages."""
    rng = np.random.default_rng(SEED)
    scenes = [random_scene(rng) for _ in range(POOL)]
    kept = BUILD / "tokens.pt"
    if not kept.is_file():
        features, moved = (
            embed(drawn(some).pictures) for some in (scenes, _moved(scenes))
        )
        prior = FusionPrior.load("demo:prior").float()
        wanted = prior.tokens(prior.fuser(features))  # [N, S, D]
        projection = ridge(features["demo-clip"], wanted.flatten(1))
        DUAL.mkdir(parents=True, exist_ok=True)
        save_file({"weight": projection.T.contiguous().half()}, FILE)
        BUILD.mkdir(parents=True, exist_ok=True)
        latents = features["demo-vae"].unflatten(1, (4, 16, 16))
        torch.save((latents, features["demo-clip"], moved["demo-clip"]), kept)
    latents, here, elsewhere = torch.load(kept)
    weight = load_file(FILE)["weight"].float()
    return Data(
        scenes,
        latents,
        *((each @ weight.T).unflatten(1, (-1, WIDTH)) for each in (here, elsewhere)),
    )


def ridge(given: Tensor, wanted: Tensor) -> Tensor:
    """Fit [F, D] so that given [N, F] times it is near wanted [N, D]."""
    penalty = RIDGE * len(given) * torch.eye(given.shape[1])
    return torch.linalg.solve(given.T @ given + penalty, given.T @ wanted)


def _moved(scenes: list[Scene]) -> list[Scene]:
    """Put the thing of each scene where that of another, random scene is."""
    rng = np.random.default_rng(SEED + 1)
    places = [random_scene(rng) for _ in scenes]
    return [
        replace(scene, x=place.x, y=place.y, size=place.size)
        for scene, place in zip(scenes, places, strict=True)
    ]
