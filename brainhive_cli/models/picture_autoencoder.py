"""Small variational autoencoder of small grey pictures, and the pixels themselves
instead of it.
"""

import hashlib
from math import isqrt
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from brainhive_cli.core import console, weights
from brainhive_cli.core.claims import Claim
from brainhive_cli.core.errors import MissingData
from brainhive_cli.core.files import atomic_write, locate
from brainhive_cli.measurement.metrics.image import resize
from brainhive_cli.models.heads import LATENT_SPACE_PREFIX

PIXELS, RANDOM = "pixels", "random"
"""Sources whose latents are the pixels, and whose weights are random."""
WEIGHTS_FILE = "autoencoder.safetensors"
"""File of the weights, in the folder of the pictures that they learned from."""
SUFFIXES = (".png", ".jpg", ".jpeg")
SOURCE_HINT = (
    "source: a folder of small pictures that are not decoded later, as "
    "data/digits69/further"
)
SIDE_PX = 28
"""Side of the pictures, that of handwritten digits."""
N_LATENTS, HIDDEN_WIDTH = 12, 400
"""Numbers in a latent, each of mean 0 and variance 1, and units of the hidden layer."""
EPOCHS, BATCH_SIZE, PEAK_LR = 80, 64, 2e-3
"""Training by one cycle of the learning rate; the epochs were chosen by the loss of
held-out digits.
"""
VALIDATION_SHARE = 0.1
"""Share of the pictures that is held out, to measure the loss."""


class PictureAutoencoder(nn.Module):
    """A variational autoencoder with one hidden layer in its encoder and one in its
    decoder.

    Source: Kingma and Welling 2014 (arXiv 1312.6114), the network of its appendix C.1.
    """

    def __init__(self, latents: int = N_LATENTS, width: int = HIDDEN_WIDTH) -> None:
        super().__init__()
        self.latents: int | None = latents
        # the encoder gives mean and log-variance, twice as many numbers as latents
        self.encoder = nn.Sequential(
            nn.Linear(SIDE_PX**2, width), nn.ReLU(), nn.Linear(width, 2 * latents)
        )
        self.decoder = nn.Sequential(
            nn.Linear(latents, width), nn.ReLU(), nn.Linear(width, SIDE_PX**2)
        )

    @property
    def latent_space(self) -> str:
        """Name of the latents' space, by the weights of the encoder."""
        # weights of the first layer suffice to tell encoders apart
        first = next(self.encoder.parameters()).detach().cpu().numpy()
        return LATENT_SPACE_PREFIX + hashlib.sha256(first.tobytes()).hexdigest()[:16]

    def forward(self, pictures: Tensor) -> Tensor:
        """Encode pictures [B, 3, H, W] in 0..1 as the means of their latents [B, D]."""
        # [B, D]
        return self.encoder(flatten_pictures(pictures, SIDE_PX)).chunk(2, 1)[0]

    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents [B, D] to grey pictures [B, 3, H, W] in 0..1."""
        return unfold_pictures(self.decoder(latents).sigmoid())

    def loss(self, pixels: Tensor, random: torch.Generator) -> Tensor:
        """Negative evidence lower bound, [B] in nats, of pixels [B, pixels], with one
        draw of noise.
        """
        mean, log_variance = self.encoder(pixels).chunk(2, 1)
        # reparametrised draw, through which gradients reach mean and variance
        noise = torch.randn(mean.shape, generator=random)
        decoded = self.decoder(mean + noise * (log_variance / 2).exp())

        # reconstruction error, and divergence from the standard normal, both [B]
        error = F.binary_cross_entropy_with_logits(
            decoded, pixels, reduction="none"
        ).sum(1)
        return (
            error + (mean.square() + log_variance.exp() - 1 - log_variance).sum(1) / 2
        )


class Pixels(nn.Module):
    """Pixels as latents: what is predicted is the picture itself, and decoding clips
    it.

    Args:
        resolution_px: Side of the pictures.
    """

    latent_space = f"{LATENT_SPACE_PREFIX}{PIXELS}"
    latents: int | None = None
    """Any number of pixels is decoded."""

    def __init__(self, resolution_px: int = SIDE_PX) -> None:
        super().__init__()
        self.resolution_px = resolution_px

    def forward(self, pictures: Tensor) -> Tensor:
        """Flatten pictures [B, 3, H, W] in 0..1 to [B, pixels], grey."""
        return flatten_pictures(pictures, self.resolution_px)

    def decode(self, latents: Tensor) -> Tensor:
        """Unfold grey pixels [B, pixels] to pictures [B, 3, H, W], clipped to 0..1."""
        return unfold_pictures(latents.clamp(0, 1))


def flatten_pictures(pictures: Tensor, side_px: int) -> Tensor:
    """Bring pictures [B, 3, H, W] to one size and to grey, [B, pixels]."""
    return resize(pictures, side_px).mean(1).flatten(1)  # mean over the colours


def unfold_pictures(pixels: Tensor) -> Tensor:
    """Unfold grey pixels [B, pixels] to pictures [B, 3, H, W]."""
    side_px = isqrt(pixels.shape[1])
    # three equal colours, without a copy
    return pixels.view(-1, 1, side_px, side_px).expand(-1, 3, -1, -1)


def open_autoencoder(source: str) -> PictureAutoencoder | Pixels:
    """Open an autoencoder, which learns from its pictures where it has no weights yet.

    Args:
        source: Folder of pictures; `random`; or `pixels`.

    Raises:
        MissingData: if the folder holds no pictures, or its weights are damaged.
    """
    if source == PIXELS:
        return Pixels()
    if source == RANDOM:
        # the same weights each time; the caller's random numbers go on as before
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return PictureAutoencoder(latents=16, width=8)
    file = find_weights(source)
    network = PictureAutoencoder()
    weights.fill(network, weights.read(file), file)
    return network


def find_weights(source: str) -> Path:
    """Find the weights of an autoencoder in the folder of its pictures, from which they
    are learned once.

    Raises:
        MissingData: if the folder holds no pictures.
    """
    folder = locate(source)
    if not source or not folder.is_dir():
        raise MissingData(
            f"no folder of pictures {source!r}, from which an autoencoder could learn",
            SOURCE_HINT,
        )
    file = folder / WEIGHTS_FILE
    if file.is_file():
        return file

    # another process may be learning from them: wait for it, and take its weights
    lock = Claim.for_path(file, wait=True)
    try:
        # the process that held the claim may have written the file
        if not file.is_file():
            network = learn_pictures(read_pictures(folder))
            with atomic_write(file) as part:
                weights.save(part, network.state_dict())
    finally:
        lock.release()
    return file


def read_pictures(folder: Path) -> Tensor:
    """Read all pictures below a folder, in the order of their paths: [N, pixels]."""
    from torchvision.transforms.v2.functional import pil_to_tensor

    # sorted, so that the training does not depend on the file system
    paths = sorted(
        path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES
    )
    rows = []
    with console.progress("reading pictures", len(paths)) as bar:
        for path in paths:
            with (
                weights.reading(path, "replace the picture"),
                Image.open(path) as picture,
            ):
                pixels = pil_to_tensor(picture.convert("RGB"))[None].float() / 255
            rows.append(flatten_pictures(pixels, SIDE_PX))
            bar.advance(1)
    # one is held out, so that at least one is left to learn from
    if len(rows) < 2:
        raise MissingData(
            f"{folder} holds {len(rows)} pictures, and an autoencoder learns from two",
            SOURCE_HINT,
        )
    return torch.cat(rows)


def learn_pictures(pixels: Tensor, epochs: int = EPOCHS) -> PictureAutoencoder:
    """Train an autoencoder on pictures [N, pixels] in 0..1 by Adam, but for some that
    measure its loss.
    """
    # the generator draws order, noise and the held-out pictures; weights are drawn
    # apart, by the same seed
    random = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = PictureAutoencoder()
    order = torch.randperm(len(pixels), generator=random)
    held_count = max(1, round(VALIDATION_SHARE * len(pixels)))
    held_out = pixels[order[:held_count]]
    learned = pixels[order[held_count:]]

    # one cycle of the learning rate over all steps
    optimizer = torch.optim.Adam(network.parameters(), PEAK_LR)
    steps = epochs * -(-len(learned) // BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, PEAK_LR, total_steps=steps
    )
    with console.progress("training the autoencoder", epochs) as bar:
        for _ in range(epochs):
            for rows in torch.randperm(len(learned), generator=random).split(
                BATCH_SIZE
            ):
                optimizer.zero_grad()
                network.loss(learned[rows], random).mean().backward()
                optimizer.step()
                schedule.step()
            bar.advance(1)

    # the loss of held-out pictures tells whether it learned too long
    with torch.no_grad():
        loss = float(network.loss(held_out, random).mean())
    console.say(
        f"an autoencoder learned from {len(learned)} pictures; loss of held-out ones "
        f"{loss:.1f}"
    )
    return network
