"""Small variational autoencoders of small pictures, and the pixels themselves in their place."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from brainhive_cli.core import documents, weights
from brainhive_cli.core.errors import MissingData
from brainhive_cli.core.files import locate
from brainhive_cli.core.lines import Line
from brainhive_cli.core.recipe import Section
from brainhive_cli.measurement.metrics.image import resize
from brainhive_cli.models.heads import PREFIX

PIXELS = "pixels"
"""The source whose latents are the pixels."""
CONFIG, WEIGHTS = "config.json", "model.safetensors"


def write_way() -> str:
    """Say how to get weights."""
    return f"source: RUN/model, of a run of: {Line('train-autoencoder')}"


class Architecture(Section):
    """Sizes of an autoencoder."""

    resolution_px: int = Field(28, gt=0, le=256, description="side of the pictures, pixels")
    colours: Literal[1, 3] = Field(1, description="1: grey; 3: red, green, blue")
    latents: int = Field(12, gt=0, le=4096, description="numbers in a latent, each of mean 0 and variance 1")
    width: int = Field(400, gt=0, le=2**14, description="units of the hidden layer")


class PictureAutoencoder(nn.Module):
    """A variational autoencoder with one hidden layer in its encoder and one in its decoder.

    Source: Kingma and Welling 2014 (arXiv 1312.6114), the network of its appendix C.1.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture, width = architecture, architecture.width
        pixels = architecture.colours * architecture.resolution_px**2
        self.encoder = nn.Sequential(
            nn.Linear(pixels, width), nn.ReLU(), nn.Linear(width, 2 * architecture.latents)
        )
        self.decoder = nn.Sequential(
            nn.Linear(architecture.latents, width), nn.ReLU(), nn.Linear(width, pixels)
        )

    @property
    def latent_space(self) -> str:
        """Name of the latents' space, by the weights of the encoder."""
        first = next(self.encoder.parameters()).detach().cpu().numpy()
        return PREFIX + hashlib.sha256(first.tobytes()).hexdigest()[:16]

    def flatten(self, pictures: Tensor) -> Tensor:
        """Bring pictures [B, 3, H, W] in 0..1 to its size and colours, [B, pixels]."""
        resized = resize(pictures, self.architecture.resolution_px)
        return (resized.mean(1, keepdim=True) if self.architecture.colours == 1 else resized).flatten(1)

    def encode(self, pictures: Tensor) -> Tensor:
        """Encode pictures [B, 3, H, W] in 0..1 as the means of their latents [B, D]."""
        return self.encoder(self.flatten(pictures)).chunk(2, 1)[0]

    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents [B, D] to pictures [B, 3, H, W] in 0..1."""
        side = self.architecture.resolution_px
        pictures = self.decoder(latents).sigmoid().unflatten(1, (self.architecture.colours, side, side))
        return pictures.expand(-1, 3, -1, -1)

    def loss(self, pixels: Tensor, noise: Tensor) -> Tensor:
        """Negative evidence lower bound, [B] in nats, of pixels [B, pixels] with noise [B, D]."""
        mean, log_variance = self.encoder(pixels).chunk(2, 1)
        decoded = self.decoder(mean + noise * (log_variance / 2).exp())
        error = F.binary_cross_entropy_with_logits(decoded, pixels, reduction="none").sum(1)
        return error + (mean.square() + log_variance.exp() - 1 - log_variance).sum(1) / 2

    def fit(
        self,
        pixels: Tensor,
        epochs: int,
        batch_size: int,
        lr: float,
        random: torch.Generator,
        after_epoch: Callable[[float], None],
    ) -> None:
        """Train by Adam, with one cycle of the learning rate.

        Args:
            pixels: Training pictures [N, pixels], in 0..1.
            epochs: Passes over them.
            batch_size: Pictures in a step.
            lr: The highest learning rate.
            random: Draws the order of pictures, and noise.
            after_epoch: Called with the mean loss of each epoch.
        """
        # one cycle of the learning rate over all steps
        optimizer = torch.optim.Adam(self.parameters(), lr)
        steps = epochs * -(-len(pixels) // batch_size)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
        for _ in range(epochs):
            total = 0.0
            for rows in torch.randperm(len(pixels), generator=random).split(batch_size):
                noise = torch.randn(len(rows), self.architecture.latents, generator=random)
                losses = self.loss(pixels[rows], noise.to(pixels))
                optimizer.zero_grad()
                losses.mean().backward()
                optimizer.step()
                schedule.step()
                total += float(losses.detach().sum())
            after_epoch(total / len(pixels))

    def save(self, folder: Path) -> None:
        """Write sizes and weights into a new folder."""
        folder.mkdir(parents=True)
        (folder / CONFIG).write_text(json.dumps(self.architecture.model_dump()), encoding="utf-8")
        weights.save(folder / WEIGHTS, self.state_dict())


class Pixels(nn.Module):
    """Pixels as latents: what is predicted is the picture itself, and decoding clips it.

    Args:
        resolution_px: Side of the pictures.
    """

    latent_space = f"{PREFIX}{PIXELS}"

    def __init__(self, resolution_px: int) -> None:
        super().__init__()
        self.resolution_px = resolution_px

    def encode(self, pictures: Tensor) -> Tensor:
        """Flatten pictures [B, 3, H, W] in 0..1 to [B, pixels], grey."""
        return resize(pictures, self.resolution_px).mean(1).flatten(1)

    def decode(self, latents: Tensor) -> Tensor:
        """Unfold grey pixels [B, pixels] to pictures [B, 3, H, W], clipped to 0..1."""
        side = round(latents.shape[1] ** 0.5)
        return latents.clamp(0, 1).view(-1, 1, side, side).expand(-1, 3, -1, -1)


def open_autoencoder(source: str, resolution_px: int = 28) -> PictureAutoencoder | Pixels:
    """Open a trained autoencoder.

    Args:
        source: Folder of its weights; `random`; or `pixels`.
        resolution_px: Side of the pictures, of `pixels` alone.

    Raises:
        MissingData: if the folder is absent or damaged.
    """
    if source == PIXELS:
        return Pixels(resolution_px)
    if source == "random":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return PictureAutoencoder(Architecture(latents=16, width=8))
    # a trained autoencoder: its sizes, then its weights
    folder = locate(source)
    if not (folder / CONFIG).is_file():
        raise MissingData(f"no autoencoder in {source!r}", write_way())
    sizes = documents.read(folder / CONFIG, Architecture, write_way(), MissingData)
    network = PictureAutoencoder(sizes)
    weights.fill(network, weights.read(folder / WEIGHTS), folder / WEIGHTS)
    return network
