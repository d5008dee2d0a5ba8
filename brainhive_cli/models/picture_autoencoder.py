"""Small variational autoencoder of small grey pictures."""

import hashlib
from math import isqrt
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from brainhive_cli.core.base import MissingData, console
from brainhive_cli.core.files import atomic_write, locate
from brainhive_cli.core.runs import Claim, weights
from brainhive_cli.measurement.metrics.image import resize
from brainhive_cli.models.heads import LATENT_SPACE_PREFIX

PIXELS = "pixels"
"""Source whose latents are the pixels."""
RANDOM = "random"
"""Source with random weights."""
WEIGHTS_FILE = "autoencoder.safetensors"
"""File of the weights, in the folder of the training pictures."""
SOURCE_HINT = (
    "source: a folder of small pictures that are not decoded later, as "
    "data/digits69/further"
)
SIDE_PX = 28
"""Side of the pictures, as of handwritten digits."""
N_LATENTS = 12
"""Number of values of a latent, each with mean 0 and variance 1."""
HIDDEN_WIDTH = 400
"""Units of the hidden layers."""


class PictureAutoencoder(nn.Module):
    """Variational autoencoder whose encoder and decoder have one hidden layer each.

    Source: Kingma and Welling 2014 (arXiv 1312.6114), appendix C.1.
    """

    def __init__(self, latents: int = N_LATENTS, width: int = HIDDEN_WIDTH) -> None:
        super().__init__()
        self.latents: int | None = latents
        # the encoder gives a mean and a log-variance for each latent
        self.encoder = nn.Sequential(
            nn.Linear(SIDE_PX**2, width), nn.ReLU(), nn.Linear(width, 2 * latents)
        )
        self.decoder = nn.Sequential(
            nn.Linear(latents, width), nn.ReLU(), nn.Linear(width, SIDE_PX**2)
        )

    @property
    def latent_space(self) -> str:
        """Name of the latent space: a digest of the encoder's first weights."""
        weight = next(self.encoder.parameters()).detach().cpu().numpy()
        return LATENT_SPACE_PREFIX + hashlib.sha256(weight.tobytes()).hexdigest()[:16]

    def forward(self, pictures: Tensor) -> Tensor:
        """Encode pictures [B, 3, H, W] in 0..1 as the means of their latents [B, D]."""
        pixels = flatten_pictures(pictures, SIDE_PX)
        mean, _ = self.encoder(pixels).chunk(2, 1)
        return mean

    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents [B, D] to grey pictures [B, 3, H, W] in 0..1."""
        return unfold_pictures(self.decoder(latents).sigmoid())

    def loss(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        """Compute the negative evidence lower bound, with a random latent.

        Args:
            pixels: Pictures [B, pixels] in 0..1.
            generator: Random numbers.

        Returns:
            Loss [B] in nats.
        """
        mean, log_variance = self.encoder(pixels).chunk(2, 1)
        # gradients reach the mean and the variance of the random latent
        noise = torch.randn(mean.shape, generator=generator)
        decoded = self.decoder(mean + noise * (log_variance / 2).exp())

        # reconstruction error, and divergence from the standard normal distribution
        errors = F.binary_cross_entropy_with_logits(decoded, pixels, reduction="none")
        divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum(1) / 2
        return errors.sum(1) + divergence


class Pixels(nn.Module):
    """Identity with the interface of an autoencoder: the latents are the pixels.

    Args:
        resolution_px: Side of the pictures.
    """

    latent_space = f"{LATENT_SPACE_PREFIX}{PIXELS}"
    latents: int | None = None
    """Number of latents, or None, as any number of pixels can be decoded."""

    def __init__(self, resolution_px: int = SIDE_PX) -> None:
        super().__init__()
        self.resolution_px = resolution_px

    def forward(self, pictures: Tensor) -> Tensor:
        """Flatten pictures [B, 3, H, W] in 0..1 to grey pixels [B, pixels]."""
        return flatten_pictures(pictures, self.resolution_px)

    def decode(self, latents: Tensor) -> Tensor:
        """Unfold grey pixels [B, pixels] to pictures [B, 3, H, W], clipped to 0..1."""
        return unfold_pictures(latents.clamp(0, 1))


def flatten_pictures(pictures: Tensor, side_px: int) -> Tensor:
    """Resize pictures [B, 3, H, W] to a square, as grey pixels [B, pixels]."""
    return resize(pictures, side_px).mean(1).flatten(1)


def unfold_pictures(pixels: Tensor) -> Tensor:
    """Unfold grey pixels [B, pixels] to pictures [B, 3, H, W]."""
    side_px = isqrt(pixels.shape[1])
    # three equal colours, without a copy
    return pixels.view(-1, 1, side_px, side_px).expand(-1, 3, -1, -1)


def open_autoencoder(source: str) -> PictureAutoencoder | Pixels:
    """Load an autoencoder. Without weights, it is trained on its pictures.

    Args:
        source: Folder of pictures, `random` or `pixels`.

    Raises:
        MissingData: if the folder holds no pictures, or its weights are damaged.
    """
    if source == PIXELS:
        return Pixels()
    if source == RANDOM:
        # always the same weights, without an effect on other random numbers
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return PictureAutoencoder(latents=16, width=8)
    file = find_weights(source)
    network = PictureAutoencoder()
    weights.fill(network, weights.read(file), file)
    return network


def find_weights(source: str) -> Path:
    """Find the weights of an autoencoder in the folder of its pictures.

    Without a file of weights, train the autoencoder and write it.

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

    # only one process trains, and the others wait for its file
    claim = Claim.for_path(file, wait=True)
    try:
        if not file.is_file():
            network = learn_pictures(read_pictures(folder))
            with atomic_write(file) as temporary:
                weights.save(temporary, network.state_dict())
    finally:
        claim.release()
    return file


def read_pictures(folder: Path) -> Tensor:
    """Read all pictures below a folder as grey pixels [N, pixels] in 0..1.

    Raises:
        MissingData: if there are fewer than two pictures, or one is damaged.
    """
    from torchvision.transforms.v2.functional import pil_to_tensor

    # the training must not depend on the order of the file system
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in (".png", ".jpg", ".jpeg")
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
    # one picture is held out
    if len(rows) < 2:
        raise MissingData(
            f"{folder} holds {len(rows)} pictures. An autoencoder needs two or more",
            SOURCE_HINT,
        )
    return torch.cat(rows)


# Epochs of the training, chosen by the loss of held-out digits.
def learn_pictures(pixels: Tensor, epochs: int = 80) -> PictureAutoencoder:
    """Train an autoencoder with Adam, and report the loss of held-out pictures.

    Args:
        pixels: Pictures [N, pixels] in 0..1.
        epochs: Number of epochs.
    """
    # the generator draws order, noise and the held-out pictures
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = PictureAutoencoder()
    order = torch.randperm(len(pixels), generator=generator)
    # Share of the pictures on which the loss is measured after the training.
    n_held_out = max(1, round(0.1 * len(pixels)))
    validation_pixels = pixels[order[:n_held_out]]
    training_pixels = pixels[order[n_held_out:]]
    n_pictures = len(training_pixels)

    # Maximum of the one-cycle schedule of the learning rate.
    peak_lr = 2e-3
    optimizer = torch.optim.Adam(network.parameters(), peak_lr)
    batch_size = 64
    steps_per_epoch = -(-n_pictures // batch_size)
    lr_scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, peak_lr, total_steps=epochs * steps_per_epoch
    )
    with console.progress("training the autoencoder", epochs) as bar:
        for _ in range(epochs):
            order = torch.randperm(n_pictures, generator=generator)
            for rows in order.split(batch_size):
                optimizer.zero_grad()
                network.loss(training_pixels[rows], generator).mean().backward()
                optimizer.step()
                lr_scheduler.step()
            bar.advance(1)

    with torch.no_grad():
        loss = float(network.loss(validation_pixels, generator).mean())
    console.say(
        f"Trained an autoencoder on {n_pictures} pictures. Loss on held-out pictures: "
        f"{loss:.1f}"
    )
    return network
