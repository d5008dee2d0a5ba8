"""Trains the demo's U-Net together with its prior's adapter, projection and attention adapter.

It begins with true tokens and pure noise, where only the token can say what to draw, and moves on to noisy
tokens and to all timesteps: that way it learns shapes far sooner than with all at once. It goes on from what
is saved, which is untrained after `prior`.
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

STEPS, BATCH, LEARNING_RATE, WARM_UP = 6_500, 32, 2e-3, 0.05
# Each at the beginning and at the end:
DROPPED = (0.0, 0.1)  # share of tokens zeroed, which guidance needs; BrainHiVE has 0.1
CLEAN = (1.0, 0.4)  # share of tokens shown without noise
NOISINESS = (12.0, 3.0)  # how much timesteps lean to pure noise
LEAST_COSINE = 0.4  # of a noisy token with the true one
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
            token = _disturbed(data.tokens[chosen], _between(*CLEAN, step), _between(*DROPPED, step))
            tokens = _conditioning(trained, token)  # [B, S, D_cross]
            timesteps = _timesteps(_between(*NOISINESS, step))
            loss = generator.loss(latents, tokens, torch.randn_like(latents), timesteps, sizes)
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


def _disturbed(token: Tensor, clean: float, dropped: float) -> Tensor:
    """Make some of the tokens [B, D] noisy and zero some."""
    token = torch.where(_chance(clean), token, prior.noisy(token, LEAST_COSINE))
    return token.masked_fill(_chance(dropped), 0)


def _conditioning(trained: FusionPrior, token: Tensor) -> Tensor:
    """Make image tokens of tokens [B, D], with the adapter and without it: either must do."""
    return trained.tokens(torch.where(_chance(0.5), trained.adapt(token), token))


def _chance(probability: float) -> Tensor:
    return torch.rand(BATCH, 1) < probability


def _timesteps(noisiness: float) -> Tensor:
    """Draw timesteps, more of the noisy ones: few-step sampling decides there what the picture shows."""
    return (1000 * (1 - torch.rand(BATCH).pow(noisiness))).long().clamp(max=999)


def _between(first: float, last: float, step: int) -> float:
    """Stay at `first` for the first half of the training, then go to `last` in a straight line."""
    return first + (last - first) * max(0.0, 2 * step / STEPS - 1)


def _save(generator: sdxl.SDXL, trained: FusionPrior) -> None:
    trained.detach(generator.unet)
    copy.deepcopy(generator.unet).half().save_pretrained(blank.FOLDER / "unet")
    trained.attach(generator.unet)
    copy.deepcopy(trained).half().save(prior.FOLDER)
