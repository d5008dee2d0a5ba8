"""Whether a GPU computes what a CPU does: from the same weights and numbers, in
float32, within bounds.

Convolutions on a GPU multiply in TF32 (10 bits of mantissa) by torch's default, matrix
products do not: the bounds of a U-Net are wider than rounding.
"""

from dataclasses import replace
from typing import Any

import embed
import generate
import numpy as np
import prior
import synthetic
import torch
from harness import Bench, main
from torch import Tensor, nn

from brainhive_cli import aligner
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.measurement.ranks import rank_targets
from brainhive_cli.models.generators.sdxl import TINY
from brainhive_cli.training.alignment.training.cell_folder import train_cell
from brainhive_cli.training.prior.examples import load_examples

CPU = torch.device("cpu")


def show_distance(
    on: Bench, what: str, one: Tensor, other: Tensor, most: float
) -> None:
    """Show the distance of what both devices computed, relative to the norm of the
    CPU's.
    """
    one, other = one.detach().cpu().double(), other.detach().cpu().double()
    distance = float((one - other).norm() / one.norm())
    on.show(
        f"CPU and GPU, relative distance: {what}", distance, target=most, at_most=True
    )


def embeddings(on: Bench) -> None:
    """Compare a vision transformer's embeddings, computed as `embed` does: in float32
    proper.
    """
    module, _ = embed.vit_b16()
    views = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with (
        torch.backends.cudnn.flags(enabled=True, allow_tf32=False),
        torch.inference_mode(),
    ):
        values = [module.to(each)(views.to(each)).cpu() for each in (CPU, on.device)]
    show_distance(on, "embeddings", *values, 1e-4)


def trained(on: Bench) -> None:
    """Compare a brain encoder that was trained without dropout, which devices draw
    differently.
    """
    model = synthetic.eeg_model(batch=64, steps=4, dropout=0.0)
    losses, weights = [], []
    for device in (CPU, on.device):
        folder, events = RunFolder(on.make_folder()), []  # type: ignore[var-annotated]
        fixed = (
            model.layout,
            model.draw_data(device),
            model.terms,
            model.make_settings("fp32", 2),
            folder,
        )
        train_cell("cell", 1, *fixed, Launch(0, 1, device), events.append)
        losses.append(torch.tensor(events[-1]["loss"]))
        parameters = aligner.load(folder.path / "cells/cell/model").parameters()
        weights.append(nn.utils.parameters_to_vector(parameters))
    show_distance(on, "loss after 2 epochs", *losses, 1e-3)
    show_distance(on, "trained weights", *weights, 1e-2)


def ranked(on: Bench) -> None:
    """Compare ranks among random tokens, where near-ties are many."""
    random = torch.Generator().manual_seed(0)
    signals, gallery = (
        torch.randn(200, 1024, generator=random),
        torch.randn(20_000, 1024, generator=random),
    )
    one, other = (
        rank_targets(signals.to(each), gallery.to(each), torch.arange(200))
        for each in (CPU, on.device)
    )
    on.show(
        "CPU and GPU: equal ranks among 20,000, share",
        float((one == other).float().mean()),
        target=0.99,
    )


def denoised(on: Bench) -> None:
    """Compare a prior's loss, whose noise is drawn on the CPU."""
    few = (
        "resolution_px=64",
        "prior.hidden_size=32",
        "prior.intermediate_size=64",
        "train.precision=fp32",
    )
    here, there = (
        prior.begin(
            on.make_folder(), TINY.architecture, *few, f"run.device={each.type}"
        )
        for each in (CPU, on.device)
    )
    share_weights(here, there)
    losses = []
    for training in (here, there):
        batch = next(
            load_examples(training.pictures, range(1), 4, 1, 0, 0, training.launch)
        )
        # latents of one VAE
        image = next(
            load_examples(here.pictures, range(1), 4, 1, 0, 0, here.launch)
        ).image
        losses.append(training.compute_loss(replace(batch, image=image)))
    show_distance(on, "a prior's loss", *losses, 1e-3)


def drawn(on: Bench) -> None:
    """Compare a picture, generated from the same token and seed."""
    output = generate.Recipe(resolution_px=16, batch_size=2, precision="fp32")
    here, there = (
        generate.sdxl_studio(on, TINY, output, 2, each) for each in (CPU, on.device)
    )
    share_weights(here, there)
    pictures = [
        255 * studio.sampler.sample(studio.decoded, [1, 2]).double().cpu().numpy()
        for studio in (here, there)
    ]
    levels = float(np.abs(np.subtract(*pictures)).mean())
    on.show(
        "CPU and GPU: a drawn picture, levels apart of 255",
        levels,
        target=0.5,
        at_most=True,
    )


def share_weights(one: Any, other: Any) -> None:
    """Give a generator and a prior another's weights: each device draws its own."""
    for part in ("unet", "vae"):
        getattr(other.generator, part).load_state_dict(
            getattr(one.generator, part).state_dict()
        )
    other.prior.load_state_dict(one.prior.state_dict())


CASES = (embeddings, ranked, trained, denoised, drawn)

if __name__ == "__main__":
    main(__doc__, CASES, {})
