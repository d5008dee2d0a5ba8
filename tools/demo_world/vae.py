"""Trains the demo's picture codec: a small AutoencoderKL, 64x64 pixels to a 4x16x16
latent.
"""

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from brainhive_cli.core.hub import DEMO_WEIGHTS
from tools.demo_world.pool import random_pool

FOLDER = DEMO_WEIGHTS / "generator" / "vae"
POOL, STEPS, BATCH, LEARNING_RATE = 24_000, 2_600, 16, 2e-3
KL_WEIGHT = 1e-4  # enough to keep the latents near a ball, too little to blur


def main() -> None:
    """Train, measure the latents' spread for `scaling_factor`, and save in half
    precision.
    """
    torch.manual_seed(2)
    pictures = random_pool(POOL, seed=2).pictures
    vae = _model()
    _train(vae, pictures)
    with torch.no_grad():
        latents = vae.encode(to_range(pictures[:512])).latent_dist.mode()
    vae.register_to_config(scaling_factor=round(1 / latents.std().item(), 4))
    vae.half().save_pretrained(FOLDER)


def to_range(pictures: Tensor) -> Tensor:
    """Map uint8 pictures to -1..1."""
    return pictures / 127.5 - 1


def _model() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(16, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        norm_num_groups=8,
        latent_channels=4,
        sample_size=64,
        mid_block_add_attention=False,
        force_upcast=False,
    )


def _train(vae: AutoencoderKL, pictures: Tensor) -> None:
    optimiser = torch.optim.AdamW(vae.parameters(), lr=LEARNING_RATE, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, LEARNING_RATE, total_steps=STEPS
    )
    for step in range(STEPS):
        # [B, 3, H, W]
        batch = to_range(pictures[torch.randint(len(pictures), (BATCH,))])
        with torch.autocast("cpu", torch.bfloat16):
            posterior = vae.encode(batch).latent_dist
            restored = vae.decode(posterior.sample()).sample.float()
        loss = (
            difference(restored, batch)
            + KL_WEIGHT * posterior.kl().mean() / posterior.mean[0].numel()
        )
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % 100 == 0:
            print(f"vae {step}/{STEPS} loss {loss:.4f}", flush=True)


def difference(restored: Tensor, picture: Tensor) -> Tensor:
    """Mean absolute error of the pixels and of the steps between neighbours, which
    keeps edges sharp.
    """
    error = restored - picture
    return (
        error.abs().mean()
        + error.diff(dim=-1).abs().mean()
        + error.diff(dim=-2).abs().mean()
    )
