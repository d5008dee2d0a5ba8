"""Trains what makes films of the demo's text-to-picture model: motion modules and
SparseCtrl, as AnimateDiff.

The picture model stays as it is. The keyframe is a film's first frame; captions say
nothing of the direction, which must come from the noisy frames. Killed and called
again, it goes on from its last checkpoint.
"""

import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    MotionAdapter,
    SparseControlNetModel,
    UNet2DConditionModel,
)
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPTextModel, CLIPTokenizer

from brainhive_cli.demo import joined_generators
from brainhive_cli.demo.pictures import captions
from brainhive_cli.models.generators.animatediff import (
    in_motion,
    normalise_frame_by_frame,
)
from tools.demo_world import vae
from tools.demo_world.optimisers import optimisers_of
from tools.demo_world.pool import random_film
from tools.demo_world.tokens import BUILD

SOURCE, CHECKPOINT, POOL_FILE = (
    BUILD / "text-guided",
    BUILD / "motion.pt",
    BUILD / "films.pt",
)
POOL, SEED = 1_500, 8
STEPS, BATCH, WARM_UP = 700, 4, 0.05
SLOWER = 0.5  # than the training of the picture model
DROPPED = 0.1  # share of films without a caption
HEADS, LONGEST = 4, 8
SAVE_EVERY = 25
MODULE = "motion_modules"


class Data(NamedTuple):
    """What the training draws its batches from.

    Args:
        latents: Scaled latents of all frames, [N, C, F, h, w].
        texts: Tokens of each caption, [N, K, S, D].
    """

    latents: Tensor
    texts: Tensor


class Networks(NamedTuple):
    """The picture model with motion modules, and SparseCtrl."""

    unet: Any
    sparse: Any


def main() -> None:
    """Go on training."""
    torch.manual_seed(SEED)
    joined_generators.assemble(joined_generators.TEXT_GUIDED, SOURCE)
    # faster than the fused kernel at this size, on a CPU
    with sdpa_kernel(SDPBackend.MATH):
        train(data())


@torch.no_grad()
def data() -> Data:
    """Draw and encode random films, once: they are kept."""
    if not POOL_FILE.is_file():
        rng = np.random.default_rng(SEED)
        shown = [random_film(rng) for _ in range(POOL)]
        codec = AutoencoderKL.from_pretrained(SOURCE / "vae", torch_dtype=torch.float32)
        latents = []
        for start in range(0, POOL, 25):
            # [B F, H, W, 3]
            frames = np.concatenate(
                [film.frames() for film in shown[start : start + 25]]
            )
            pixels = vae.to_range(torch.from_numpy(frames).permute(0, 3, 1, 2))
            latents.append(
                codec.encode(pixels).latent_dist.mode() * codec.config.scaling_factor
            )
        found = torch.cat(latents).unflatten(0, (POOL, -1)).transpose(1, 2)
        BUILD.mkdir(parents=True, exist_ok=True)
        torch.save(
            Data(found.contiguous(), encoded([captions(film.scene) for film in shown])),
            POOL_FILE,
        )
    return Data(*torch.load(POOL_FILE, weights_only=False))


def encoded(texts: list[list[str]]) -> Tensor:
    """Encode K captions of each film: [N, K, S, D]."""
    tower, tokenizer = (
        kind.from_pretrained(SOURCE / name)
        for kind, name in (
            (CLIPTextModel, "text_encoder"),
            (CLIPTokenizer, "tokenizer"),
        )
    )
    flat = [text for each in texts for text in each]
    ids = tokenizer(
        flat, padding="max_length", truncation=True, return_tensors="pt"
    ).input_ids
    tokens = torch.cat([tower(some).last_hidden_state for some in ids.split(1000)])
    return tokens.unflatten(0, (len(texts), -1))


def networks() -> Networks:
    """Make the networks, untrained motion modules that change nothing yet."""
    plain: Any = UNet2DConditionModel.from_pretrained(
        SOURCE / "unet", torch_dtype=torch.float32
    )
    adapter = MotionAdapter(
        block_out_channels=plain.config.block_out_channels,
        motion_layers_per_block=plain.config.layers_per_block,
        motion_num_attention_heads=HEADS,
        motion_norm_num_groups=plain.config.norm_num_groups,
        motion_max_seq_length=LONGEST,
        use_motion_mid_block=False,
    )
    sparse = SparseControlNetModel.from_unet(
        plain, conditioning_channels=plain.config.in_channels
    )
    unet = in_motion(plain, adapter).requires_grad_(False)
    for name, parameter in unet.named_parameters():
        if MODULE in name:
            parameter.requires_grad_(True)
            if ".proj_out." in name:
                nn.init.zeros_(parameter)
    return Networks(unet, normalise_frame_by_frame(sparse).train())


def train(data: Data) -> None:
    """Train until all steps are done."""
    nets, schedule = networks(), DDPMScheduler.from_pretrained(SOURCE / "scheduler")
    trained = dict(trained_of(nets))
    optimisers = optimisers_of(list(trained.values()))
    total = 0.0
    for step in range(_restore(trained, optimisers), STEPS):
        for one in optimisers:
            for group in one.param_groups:
                group["lr"] = (
                    SLOWER
                    * one.defaults["lr"]
                    * min(step / (WARM_UP * STEPS), 1 - step / STEPS)
                )
        loss = loss_of(nets, schedule, data, torch.Generator().manual_seed(step))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(trained.values()), 1.0)
        for one in optimisers:
            one.step()
        for parameter in trained.values():
            parameter.grad = None
        total += loss.item()
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == STEPS:
            print(
                f"motion {step + 1}/{STEPS} loss {total / SAVE_EVERY:.4f}", flush=True
            )
            total = 0.0
            _save(step + 1, trained, optimisers)
            write(nets)


def trained_of(nets: Networks) -> Iterator[tuple[str, nn.Parameter]]:
    """List what is trained."""
    for part, network in nets._asdict().items():
        for name, parameter in network.named_parameters():
            if parameter.requires_grad:
                yield f"{part}.{name}", parameter


def loss_of(
    nets: Networks, schedule: Any, data: Data, random: torch.Generator
) -> Tensor:
    """Mean squared error of the velocities of a batch."""
    rows = torch.randint(len(data.latents), (BATCH,), generator=random)
    latents = data.latents[rows]
    noise = torch.randn(latents.shape, generator=random)
    times = torch.randint(
        schedule.config.num_train_timesteps, (BATCH,), generator=random
    )
    kept = torch.rand(BATCH, 1, 1, generator=random) >= DROPPED
    texts = (
        data.texts[rows, torch.randint(data.texts.shape[1], (BATCH,), generator=random)]
        * kept
    )
    tokens = texts.repeat_interleave(latents.shape[2], 0)
    keyframe = torch.zeros_like(latents)
    keyframe[:, :, 0] = latents[:, :, 0]
    where = torch.zeros_like(latents[:, :1])
    where[:, :, 0] = 1
    noisy = schedule.add_noise(latents, noise, times)
    with torch.autocast("cpu", torch.bfloat16):
        down, mid = nets.sparse(
            noisy, times, tokens, keyframe, conditioning_mask=where, return_dict=False
        )
        residuals = {
            "down_block_additional_residuals": down,
            "mid_block_additional_residual": mid,
        }
        predicted = nets.unet(noisy, times, tokens, return_dict=False, **residuals)[0]
    return nn.functional.mse_loss(
        predicted.float(), schedule.get_velocity(latents, noise, times)
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


def write(nets: Networks) -> None:
    """Save both in half precision, in the layout of diffusers."""
    folder = joined_generators.MOTION / "motion"
    nets.unet.save_motion_modules(folder)
    file = folder / "diffusion_pytorch_model.safetensors"
    save_file({name: each.half() for name, each in load_file(file).items()}, file)
    copy.deepcopy(nets.sparse).half().save_pretrained(
        joined_generators.MOTION / "sparse_control"
    )
