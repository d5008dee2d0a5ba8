"""Whether a GPU computes what a CPU does: from the same weights and numbers, in float32, within bounds.

Convolutions on a GPU multiply in TF32 (10 bits of mantissa) by torch's default, matrix products do not:
the bounds of a U-Net are wider than rounding.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import align
import embed
import numpy as np
import prior
import reconstruct
import torch
from figures import show
from torch import Tensor, nn

from brainhive_cli import aligner
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.recipe import Run
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.measurement.ranks import ranks
from brainhive_cli.training.alignment.loop import train_cell
from brainhive_cli.training.alignment.objective import Term
from brainhive_cli.training.alignment.settings import Train
from brainhive_cli.training.prior.examples import batches

CPU = torch.device("cpu")
PICTURES = 256
STILL = {"dropout": 0.0}
"""Devices draw different random numbers from the same seed."""


def apart(one: Tensor, other: Tensor) -> float:
    """Measure the distance of two tensors, relative to the norm of the first."""
    one, other = one.detach().cpu(), other.detach().cpu()
    return float((one - other).norm() / one.norm())


def embeddings(home: Path, device: torch.device) -> None:
    """Compare a vision transformer's embeddings, computed as `embed` does: in float32 proper."""
    module, views = (
        embed.vit("test_vit"),
        torch.randn(8, 3, 160, 160, generator=torch.Generator().manual_seed(0)),
    )
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        found = [module.to(each)(views.to(each)).cpu() for each in (CPU, device)]
    show("CPU and GPU: embeddings, relative distance", apart(*found), 1e-4, at_most=True)


def trained(home: Path, device: torch.device) -> None:
    """Compare a brain encoder that was trained for two epochs."""
    layout = align.layout("brain_mlp")
    layout = replace(layout, backbone=layout.backbone | STILL, fuser=layout.fuser | STILL)
    train = Train(epochs=2, batch_size=64, precision="fp32", selection="last", validation=0)
    losses, weights = [], []
    for each, name in ((CPU, "cpu"), (device, "device")):
        data, events = align.random_data(PICTURES, each), []
        folder = RunFolder(home / name)
        folder.path.mkdir()
        terms = [Term(prediction="token")]
        train_cell("cell", 1, layout, data, terms, train, folder, Launch(0, 1, each), events.append)
        losses.append(events[-1]["loss"])
        weights.append(
            nn.utils.parameters_to_vector(aligner.load(folder.path / "cells/cell/model").parameters())
        )
    off = abs(losses[1] / losses[0] - 1)
    show(
        "CPU and GPU: loss after 2 epochs, relative",
        off,
        1e-3,
        f"{losses[0]:.5f}, {losses[1]:.5f}",
        at_most=True,
    )
    show("CPU and GPU: trained weights, relative distance", apart(*weights), 1e-2, at_most=True)


def ranked(home: Path, device: torch.device) -> None:
    """Compare ranks among random tokens, where near-ties are many."""
    random = torch.Generator().manual_seed(0)
    signals, gallery = torch.randn(200, 1024, generator=random), torch.randn(20_000, 1024, generator=random)
    one, other = (ranks(signals.to(each), gallery.to(each), torch.arange(200)) for each in (CPU, device))
    show("CPU and GPU: ranks among 20,000, share that is equal", float((one == other).float().mean()), 0.99)


def denoised(home: Path, device: torch.device) -> None:
    """Compare a prior's loss, whose noise is drawn on the CPU."""
    few = ("resolution_px=64", "prior.hidden_size=32", "prior.intermediate_size=64", "train.precision=fp32")
    here, there = (
        prior.begun(home / each.type, prior.TINY, *few, f"run.device={each.type}", count=8)
        for each in (CPU, device)
    )
    same(here.generator, there.generator)
    there.prior.load_state_dict(here.prior.state_dict())
    losses = []
    for training in (here, there):
        batch = next(batches(training.pictures, range(1), 4, 1, 0, 0, training.launch))
        image = next(batches(here.pictures, range(1), 4, 1, 0, 0, here.launch)).image  # latents of one VAE
        losses.append(float(training.loss(replace(batch, image=image))))
    off = abs(losses[1] / losses[0] - 1)
    show(
        "CPU and GPU: a prior's loss, relative", off, 1e-3, f"{losses[0]:.5f}, {losses[1]:.5f}", at_most=True
    )


def drawn(home: Path, device: torch.device) -> None:
    """Compare a picture, generated from the same token and seed."""
    output = reconstruct.Output(resolution_px=16, batch_size=2, precision="fp32")
    here, there = (
        reconstruct.Studio(reconstruct.sdxl.TINY, output, 2, 1, home, Run(device=each.type))
        for each in (CPU, device)
    )
    same(here.generator, there.generator)
    there.prior.load_state_dict(here.prior.state_dict())
    seen = [
        255 * studio.sampler.sample(studio.decoded_set.decoded, [1, 2]).double().cpu().numpy()
        for studio in (here, there)
    ]
    off = float(np.abs(np.subtract(*seen)).mean())
    show("CPU and GPU: pixels of a drawn picture, mean levels apart", off, 0.5, "of 255", at_most=True)


def same(one: Any, other: Any) -> None:
    """Give a generator another's weights: each device draws its own."""
    for part in ("unet", "vae"):
        getattr(other, part).load_state_dict(getattr(one, part).state_dict())


COMPARED: list[Callable[[Path, torch.device], None]] = [embeddings, ranked, trained, denoised, drawn]
