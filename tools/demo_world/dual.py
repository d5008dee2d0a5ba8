"""Trains what the demo's dual-guided generator has of its own: to draw what tokens say
where a latent says.

The U-Net that it begins as draws place and size from its tokens as well. Here tokens
tell of the same thing elsewhere in the picture, or of no place at all, so that
structure must come from the noisy latent. Killed and called again, it goes on from its
last checkpoint.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from diffusers import DDPMScheduler
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPTokenizer

from brainhive_cli.demo.joined_generators import DUAL, DUAL_UNET, SHARED
from brainhive_cli.models.clip_conditions import (
    PROJECTED_TEXT,
    TEXT,
    of_texts,
    tower_of,
)
from brainhive_cli.models.generators.versatile_diffusion import make_dual
from tools.demo_world import encoder, plain_unet, text, tokens
from tools.demo_world.optimisers import optimisers_of

CHECKPOINT = tokens.BUILD / "dual.pt"
STEPS, BATCH, WARM_UP = 1_200, 32, 0.05
SLOWER = 0.3  # than a training from scratch
DROPPED = 0.1  # share of rows without any condition, which guidance needs
TEXT_SHARES = (0.0, 0.4, 1.0)  # either stream must do alone
LEAN = 1.5  # to high levels of noise
KEPT = 0.25
"""Share of the change that is kept (arXiv 2109.01903). Of the shapes in 50 decoded test
pictures a reader of the demo's encoder names .52 with 0, .36 with 0.25, .12 with 1;
pixels correlate by .710, .725 and .751.
"""
SAVE_EVERY = 25
FROZEN = ("down_blocks.2.resnets", "mid_block.resnets", "up_blocks.0.resnets")
"""Where the picture is 4 x 4: they know what things look like, and are shared with the
other generator.
"""
OWN_OF_TEXT = ".attn2."
"""What the text's attention blocks have of their own; the rest is the image's."""


class Data(NamedTuple):
    """What the training draws its batches from.

    Args:
        latents: Scaled latents [N, 4, h, w].
        images: Image tokens [N, 3, S, D]: of the picture, of its thing elsewhere, of
            its factors alone.
        texts: Text tokens [N, K, S, D] of its captions.
    """

    latents: Tensor
    images: Tensor
    texts: Tensor


def main() -> None:
    """Go on training."""
    # faster than the fused kernel at this size, on a CPU
    with sdpa_kernel(SDPBackend.MATH):
        train(data())


@torch.no_grad()
def data() -> Data:
    """Encode captions, and tell of each picture's factors alone what image tokens tell
    of them.
    """
    found = tokens.data()
    factors = [
        nn.functional.one_hot(each) for each in encoder.targets(found.scenes).values()
    ]
    known = torch.cat([*factors, torch.ones(len(found.scenes), 1)], 1)  # [N, F]
    meant = known @ tokens.ridge(known, found.images.flatten(1))
    images = torch.stack(
        [found.images, found.elsewhere, meant.view_as(found.images)], 1
    )
    tower, tokenizer = (
        tower_of(DUAL, TEXT, PROJECTED_TEXT),
        CLIPTokenizer.from_pretrained(DUAL / "tokenizer"),
    )
    ids = text.tokenized(tokenizer, found.scenes)  # [N, K, S]
    texts = [of_texts(tower, some) for some in ids.flatten(0, 1).split(1000)]
    return Data(found.latents, images, torch.cat(texts).unflatten(0, ids.shape[:2]))


def train(data: Data) -> None:
    """Train until all steps are done."""
    unet, schedule = (
        make_dual(plain_unet.load()).train(),
        DDPMScheduler.from_pretrained(SHARED / "scheduler"),
    )
    trained = dict(trained_of(unet))
    optimisers = optimisers_of(list(trained.values()))
    began = {name: parameter.detach().clone() for name, parameter in trained.items()}
    total = 0.0
    for step in range(_restore(trained, optimisers), STEPS):
        for one in optimisers:
            for group in one.param_groups:
                group["lr"] = (
                    SLOWER
                    * one.defaults["lr"]
                    * min(step / (WARM_UP * STEPS), 1 - step / STEPS)
                )
        loss = loss_of(unet, schedule, data, torch.Generator().manual_seed(step))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(trained.values()), 1.0)
        for one in optimisers:
            one.step()
        for parameter in trained.values():
            parameter.grad = None
        total += loss.item()
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == STEPS:
            print(f"dual {step + 1}/{STEPS} loss {total / SAVE_EVERY:.4f}", flush=True)
            total = 0.0
            _save(step + 1, trained, optimisers)
            write(began, trained)


def trained_of(unet: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """List what is trained, and let it be trained."""
    for name, parameter in unet.named_parameters():
        if OWN_OF_TEXT in name if ".text." in name else not name.startswith(FROZEN):
            yield name, parameter.requires_grad_(True)


def loss_of(
    unet: nn.Module, schedule: Any, data: Data, random: torch.Generator
) -> Tensor:
    """Mean squared error of the velocities of a batch."""
    rows = torch.randint(len(data.latents), (BATCH,), generator=random)
    latents, noise = (
        data.latents[rows],
        torch.randn(BATCH, *data.latents.shape[1:], generator=random),
    )
    levels = 1 - torch.rand(BATCH, generator=random).pow(LEAN)
    timesteps = (levels * schedule.config.num_train_timesteps).long().clamp(max=999)
    share = TEXT_SHARES[int(torch.randint(len(TEXT_SHARES), (), generator=random))]
    kept = torch.rand(BATCH, 1, 1, generator=random) >= DROPPED
    texts, images = (
        _one_or_mean(some[rows], random) * kept for some in (data.texts, data.images)
    )
    noisy, given = (
        schedule.add_noise(latents, noise, timesteps),
        torch.cat([texts, images], 1),
    )
    options = {"text_tokens": texts.shape[1], "text_share": share}
    with torch.autocast("cpu", torch.bfloat16):
        predicted = unet(
            noisy, timesteps, given, cross_attention_kwargs=options, return_dict=False
        )[0]
    return nn.functional.mse_loss(
        predicted.float(), schedule.get_velocity(latents, noise, timesteps)
    )


def _one_or_mean(some: Tensor, random: torch.Generator) -> Tensor:
    """Take one of K alternatives [B, K, S, D] for half of the rows, their mean for the
    others: [B, S, D].
    """
    one = some[
        torch.arange(len(some)),
        torch.randint(some.shape[1], (len(some),), generator=random),
    ]
    return torch.where(
        torch.rand(len(some), 1, 1, generator=random) < 0.5, one, some.mean(1)
    )


def _restore(
    trained: dict[str, nn.Parameter], optimisers: list[torch.optim.Optimizer]
) -> int:
    """Go back to the checkpoint, if there is one; returns how many steps it had
    done.
    """
    if not CHECKPOINT.is_file():
        return 0
    kept = torch.load(CHECKPOINT)
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(kept["trained"][name])
    for one, state in zip(optimisers, kept["optimisers"], strict=True):
        one.load_state_dict(state)
    return int(kept["step"])


def _save(
    step: int, trained: dict[str, nn.Parameter], optimisers: list[torch.optim.Optimizer]
) -> None:
    weights = {name: parameter.detach() for name, parameter in trained.items()}
    part = CHECKPOINT.with_suffix(".part")
    torch.save(
        {
            "step": step,
            "trained": weights,
            "optimisers": [one.state_dict() for one in optimisers],
        },
        part,
    )
    part.replace(CHECKPOINT)


def write(began: dict[str, Tensor], trained: Mapping[str, Tensor]) -> None:
    """Write a weighted mean of the weights before and after training."""
    kept = {
        name: torch.lerp(each, trained[name].detach(), KEPT)
        for name, each in began.items()
    }
    save_file(
        {name: each.half().contiguous() for name, each in kept.items()}, DUAL_UNET
    )
