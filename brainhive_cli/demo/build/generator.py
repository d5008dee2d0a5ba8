"""Trains the demo's U-Net together with its prior's adapter, projection and attention adapter.

It goes on from what is saved, which is untrained after `prior`: run it again to train for longer. The shipped
weights had 2,000 steps at timesteps that favoured noise less, then one run as it stands here.
"""

import copy
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from brainhive_cli.demo.build import blank, prior
from brainhive_cli.demo.build.features import embedded_pool
from brainhive_cli.generators import sdxl
from brainhive_cli.priors.fusion_prior import FusionPrior

STEPS, BATCH, LEARNING_RATE, WARM_UP = 4_500, 32, 1e-3, 0.05
DROPPED = 0.1  # share of tokens zeroed, as in BrainHiVE, so that guidance works
CLEAN = 0.5  # share of tokens shown without noise
LEAST_COSINE = 0.4
SAVE_EVERY = 500
SIZES = (64, 64, 0, 0, 64, 64)  # original size, crop, target size: SDXL's ids, here always the same


class Data(NamedTuple):
    """What the training draws its batches from.

    Args:
        tokens: Fused tokens [N, D].
        latents: Scaled latents [N, 4, h, w].
    """

    tokens: Tensor
    latents: Tensor


def main() -> None:
    """Train; both folders are saved in half precision now and then, and at the end."""
    torch.manual_seed(4)
    _, features = embedded_pool()
    generator = sdxl.Config(source=str(blank.FOLDER)).build()
    trained = FusionPrior.load(prior.FOLDER).float()
    trained.attach(generator.unet)
    with torch.no_grad():
        data = Data(trained.fuse(features), features["demo-vae"].unflatten(1, (4, 16, 16)))
    with sdpa_kernel(SDPBackend.MATH):  # three times as fast as the fused kernel at this size, on a CPU
        _train(generator, trained, data)
    _save(generator, trained)


def _train(generator: sdxl.SDXL, trained: FusionPrior, data: Data) -> None:
    unet = generator.unet.requires_grad_(True).train()
    fresh = [trained.fusion_encoder["adapter"], trained.proj, trained.attn_adapter]
    parameters = [*unet.parameters(), *(p for module in fresh for p in module.parameters())]
    optimiser = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=0.01, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, LEARNING_RATE, total_steps=STEPS, pct_start=WARM_UP, cycle_momentum=False
    )
    sizes = torch.tensor(SIZES).expand(BATCH, -1)
    total = 0.0
    for step in range(STEPS):
        chosen = torch.randint(len(data.tokens), (BATCH,))
        latents = data.latents[chosen]
        with torch.autocast("cpu", torch.bfloat16):
            tokens = _conditioning(trained, data.tokens[chosen])  # [B, S, D_cross]
            loss = generator.loss(latents, tokens, torch.randn_like(latents), _timesteps(), sizes)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        total += loss.item()
        if step % 50 == 49:
            print(f"generator {step + 1}/{STEPS} loss {total / 50:.4f}", flush=True)
            total = 0.0
        if step % SAVE_EVERY == SAVE_EVERY - 1:
            _save(generator, trained)


def _conditioning(trained: FusionPrior, token: Tensor) -> Tensor:
    """Make image tokens of clean, noisy and zeroed tokens [B, D], with the adapter and without it."""
    token = torch.where(_chance(CLEAN), token, prior.noisy(token, LEAST_COSINE))
    token = torch.where(_chance(0.5), trained.adapt(token), token)
    return trained.tokens(token.masked_fill(_chance(DROPPED), 0))


def _chance(probability: float) -> Tensor:
    return torch.rand(BATCH, 1) < probability


def _timesteps() -> Tensor:
    """Draw timesteps, more of the noisy ones: few-step sampling decides there what the picture shows."""
    return (1000 * (1 - torch.rand(BATCH).pow(3))).long().clamp(max=999)


def _save(generator: sdxl.SDXL, trained: FusionPrior) -> None:
    trained.detach(generator.unet)
    copy.deepcopy(generator.unet).half().save_pretrained(blank.FOLDER / "unet")
    trained.attach(generator.unet)
    copy.deepcopy(trained).half().save(prior.FOLDER)
