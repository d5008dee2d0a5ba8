"""Trains the demo's U-Net together with its prior's adapter, projection and attention
adapter.

It begins with pure noise, where only the token can say what to draw, and moves on to
all timesteps: that way it learns shapes far sooner than with all at once. Tokens are
true ones: a generator that is trained on noisy tokens draws the mean of what they may
show, a blur without a shape. It goes on from what is saved, which is untrained after
`prior`.
"""

import copy
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from brainhive_cli.models.generators import sdxl
from brainhive_cli.models.heads import Conditioning
from brainhive_cli.models.priors._fusion_network import FusionPrior
from tools.demo_world import blank, prior
from tools.demo_world.features import embedded_pool
from tools.demo_world.optimisers import optimisers_of

STEPS, BATCH, WARM_UP = 6_500, 64, 0.05
# Each at the beginning and at the end:
DROPPED = (0.0, 0.1)  # share of tokens zeroed, which guidance needs; BrainHiVE has 0.1
NOISINESS = (12.0, 3.0)  # how much timesteps lean to pure noise
SAVE_EVERY = 500
# original size, crop, target size: SDXL's ids, here always the same
SIZES = (64, 64, 0, 0, 64, 64)


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
    trained.attach(generator)
    with torch.no_grad():
        data = Data(
            trained.fuser(features), features["demo-vae"].unflatten(1, (4, 16, 16))
        )
    # three times as fast as the fused kernel at this size, on a CPU
    with sdpa_kernel(SDPBackend.MATH):
        _train(generator, trained, data)
    _save(generator, trained)


def _train(generator: sdxl.SDXL, trained: FusionPrior, data: Data) -> None:
    unet = generator.unet.requires_grad_(True).train()
    fresh = [trained.fusion_encoder["adapter"], trained.proj, trained.attn_adapter]
    parameters = [
        *unet.parameters(),
        *(p for module in fresh for p in module.parameters()),
    ]
    optimisers = optimisers_of(parameters)
    schedules = [
        torch.optim.lr_scheduler.OneCycleLR(
            one,
            one.defaults["lr"],
            total_steps=STEPS,
            pct_start=WARM_UP,
            cycle_momentum=False,
        )
        for one in optimisers
    ]
    sizes = torch.tensor(SIZES).expand(BATCH, -1)
    total = 0.0
    for step in range(STEPS):
        chosen = torch.randint(len(data.tokens), (BATCH,))
        latents = data.latents[chosen]
        with torch.autocast("cpu", torch.bfloat16):
            token = data.tokens[chosen].masked_fill(
                _chance(_between(*DROPPED, step)), 0
            )
            given, levels = (
                _conditioning(trained, token),
                _levels(_between(*NOISINESS, step)),
            )
            loss = generator.loss(
                latents, given, torch.default_generator, sizes, levels=levels
            )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimiser, schedule in zip(optimisers, schedules, strict=True):
            optimiser.step()
            schedule.step()
        for parameter in parameters:
            parameter.grad = None
        total += loss.item()
        if step % 50 == 49:
            print(f"generator {step + 1}/{STEPS} loss {total / 50:.4f}", flush=True)
            total = 0.0
        if step % SAVE_EVERY == SAVE_EVERY - 1:
            _save(generator, trained)


def _conditioning(trained: FusionPrior, token: Tensor) -> Conditioning:
    """Condition on tokens [B, D], with the adapter and without it: either must do."""
    return Conditioning(
        embeddings=trained.tokens(
            torch.where(_chance(0.5), trained.adapt(token), token)
        )
    )


def _chance(probability: float) -> Tensor:
    return torch.rand(BATCH, 1) < probability


def _levels(noisiness: float) -> Tensor:
    """Draw levels of noise [B], more of the high ones: few-step sampling decides there
    what it draws.
    """
    return (1 - torch.rand(BATCH).pow(noisiness)).clamp(max=0.999)


def _between(first: float, last: float, step: int) -> float:
    """Stay at `first` for the first half of the training, then go to `last` in a
    straight line.
    """
    return first + (last - first) * max(0.0, 2 * step / STEPS - 1)


def _save(generator: sdxl.SDXL, trained: FusionPrior) -> None:
    trained.detach(generator)
    copy.deepcopy(generator.unet).half().save_pretrained(blank.FOLDER / "unet")
    trained.attach(generator)
    copy.deepcopy(trained).half().save(prior.FOLDER)
