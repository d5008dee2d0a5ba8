"""What tests of reconstructions share: pictures of a run, and pictures generated
without the pipeline.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from brainhive_cli.data.media.views import to_pictures
from brainhive_cli.data.stores.target_store import TargetStore
from brainhive_cli.models.generators import Sampling, sdxl
from brainhive_cli.models.heads import Decoded
from brainhive_cli.models.priors._fusion_network import FusionPrior

COLOURS = "brainhive_cli-models-encoders-python-example"
"""The store of mean colours."""


def draw_media(seed: int, side: int, frames: int = 0) -> np.ndarray:
    """Draw a smooth random picture, or a clip of several."""
    random = np.random.default_rng(seed)
    made = []
    for _ in range(frames or 1):
        coarse = Image.fromarray(random.integers(0, 256, (4, 4, 3), np.uint8))
        made.append(np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC)))
    return np.stack(made) if frames else made[0]


def pictures_of(folder: Path) -> dict[str, np.ndarray]:
    """Read what a run generated, by its path below the run."""
    files = sorted((folder / "samples").rglob("*.png"))
    return {
        file.relative_to(folder).as_posix(): np.asarray(Image.open(file), np.int16)
        for file in files
    }


def embedding(world: Path, image_id: str) -> torch.Tensor:
    """Read the embedding of a test picture, [1, D]."""
    (path,) = world.glob("embeddings/demo-noise-0.3-40-concepts/test/*example.h5")
    store = TargetStore.open(path)
    return torch.from_numpy(np.array(store.embedding[store.find_rows([image_id])]))


def generate(
    generator: Path,
    prior: Path,
    embedded: torch.Tensor | None,
    seeds: list[int],
    **more: Any,
) -> list[Image.Image]:
    """Generate pictures from an embedding, or from `token`, without the pipeline."""
    made, fusion = (
        sdxl.Config(source=str(generator)).build(),
        FusionPrior.load(str(prior)),
    )
    fusion.attach(made)
    with torch.inference_mode():
        token = (
            more.pop("token") if embedded is None else fusion.fuser({COLOURS: embedded})
        )
        token = token.expand(len(seeds), -1)
        given = dataclasses.replace(
            fusion.condition(Decoded({"token": token}), seeds),
            start=more.pop("initial", None),
        )
        return to_pictures(made.generate(given, seeds, 32, Sampling(steps=2, **more)))


def gap(one: Image.Image, other: Any) -> int:
    """The largest difference of two pictures, in levels of 255."""
    return int(np.abs(np.asarray(one, np.int16) - np.asarray(other, np.int16)).max())


def align(run_command, align_overrides, *overrides: str) -> Path:
    """Train on the first subject for three epochs."""
    return run_command(
        "train-align", *align_overrides, "subjects=1", "train.epochs=3", *overrides
    ).folder


def cut(file: Path) -> None:
    """Leave of a file what an interrupted download would."""
    file.write_bytes(file.read_bytes()[:200])
