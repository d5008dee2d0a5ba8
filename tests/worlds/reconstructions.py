"""Helpers for tests of reconstructions."""

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
"""Name of the store of mean colours."""


def draw_media(seed: int, side_px: int, frames: int = 0) -> np.ndarray:
    """Draw a smooth random picture [H, W, 3], or a clip of them [F, H, W, 3]."""
    random = np.random.default_rng(seed)
    pictures = []
    for _ in range(frames or 1):
        coarse = Image.fromarray(random.integers(0, 256, (4, 4, 3), np.uint8))
        picture = coarse.resize((side_px, side_px), Image.Resampling.BICUBIC)
        pictures.append(np.asarray(picture))
    return np.stack(pictures) if frames else pictures[0]


def read_pictures(folder: Path) -> dict[str, np.ndarray]:
    """Read a run's generated pictures, keyed by their paths below the run."""
    files = sorted((folder / "samples").rglob("*.png"))
    return {
        file.relative_to(folder).as_posix(): np.asarray(Image.open(file), np.int16)
        for file in files
    }


def read_embedding(world: Path, image_id: str) -> torch.Tensor:
    """Read the embedding of a test picture, [1, D]."""
    (path,) = world.glob("embeddings/demo-noise-0.3-40-concepts/test/*example.h5")
    store = TargetStore.open(path)
    return torch.from_numpy(np.array(store.embedding[store.find_rows([image_id])]))


def generate_pictures(
    generator: Path,
    prior: Path,
    embedding: torch.Tensor | None,
    seeds: list[int],
    token: torch.Tensor | None = None,
) -> list[Image.Image]:
    """Generate a picture per seed from an embedding or a token, without the pipeline.

    Args:
        generator: Folder of the generator.
        prior: Folder of the Fusion Prior.
        embedding: Mean colours [1, D] to be fused. If None, `token` is used.
        seeds: Seeds of the noise.
        token: Fused token [1, D].
    """
    model = sdxl.Config(source=str(generator)).build()
    fusion = FusionPrior.load(str(prior))
    fusion.attach(model)
    with torch.inference_mode():
        if embedding is not None:
            token = fusion.fuser({COLOURS: embedding})
        assert token is not None
        decoded = Decoded({"token": token.expand(len(seeds), -1)})
        conditioning = fusion.condition(decoded, seeds)
        return to_pictures(model.generate(conditioning, seeds, 32, Sampling(steps=2)))


def measure_max_difference(picture: Image.Image, second: Any) -> int:
    """Measure the largest difference of two pictures, in levels of 255."""
    levels = np.asarray(picture, np.int16) - np.asarray(second, np.int16)
    return int(np.abs(levels).max())


def train_first_subject(run_command, align_overrides, *overrides: str) -> Path:
    """Train on the first subject for three epochs."""
    return run_command(
        "train-align", *align_overrides, "subjects=1", "train.epochs=3", *overrides
    ).folder


def truncate(file: Path) -> None:
    """Cut a file after 200 bytes, as an interrupted download does."""
    file.write_bytes(file.read_bytes()[:200])
