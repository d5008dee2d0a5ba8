"""Differences between the results of a GPU and of a CPU, in float32.

Both have the same weights and inputs. By torch's default, convolutions on a GPU
multiply in TF32 (10 bits of mantissa), but matrix products do not. The limits for a
U-Net are therefore wider than rounding.
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
from brainhive_cli.core.runs.launch import Launch
from brainhive_cli.core.runs.run_folder import RunFolder
from brainhive_cli.measurement.ranks import rank_targets
from brainhive_cli.models.generators.sdxl import TINY
from brainhive_cli.training.alignment.training.cell_folder import train_cell
from brainhive_cli.training.prior.examples import load_examples

CPU = torch.device("cpu")


def show_distance(
    bench: Bench, label: str, on_cpu: Tensor, on_gpu: Tensor, limit: float
) -> None:
    """Show the distance of both results, relative to the norm on the CPU."""
    on_cpu = on_cpu.detach().cpu().double()
    on_gpu = on_gpu.detach().cpu().double()
    distance = float((on_cpu - on_gpu).norm() / on_cpu.norm())
    bench.show(
        f"CPU and GPU, relative distance: {label}",
        distance,
        target=limit,
        at_most=True,
    )


def embeddings(bench: Bench) -> None:
    """Compare a vision transformer's embeddings, computed without TF32 as `embed`."""
    module, _ = embed.vit_b16()
    views = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with (
        torch.backends.cudnn.flags(enabled=True, allow_tf32=False),
        torch.inference_mode(),
    ):
        on_cpu = module.to(CPU)(views).cpu()
        on_gpu = module.to(bench.device)(views.to(bench.device)).cpu()
    show_distance(bench, "embeddings", on_cpu, on_gpu, 1e-4)


def trained(bench: Bench) -> None:
    """Compare trained brain encoders, without dropout, which differs by device."""
    model = synthetic.eeg_model(batch=64, steps=4, dropout=0.0)
    losses = []
    weights = []
    for device in (CPU, bench.device):
        folder = RunFolder(bench.make_folder())
        events: list[Any] = []
        train_cell(
            "cell",
            1,
            model.layout,
            model.draw_data(device),
            model.terms,
            model.make_settings("fp32", 2),
            folder,
            Launch(0, 1, device),
            events.append,
        )
        losses.append(torch.tensor(events[-1]["loss"]))
        parameters = aligner.load(folder.path / "cells/cell/model").parameters()
        weights.append(nn.utils.parameters_to_vector(parameters))
    show_distance(bench, "loss after 2 epochs", *losses, 1e-3)
    show_distance(bench, "trained weights", *weights, 1e-2)


def ranked(bench: Bench) -> None:
    """Compare ranks among random tokens, which have many near-ties."""
    random = torch.Generator().manual_seed(0)
    signals = torch.randn(200, 1024, generator=random)
    gallery = torch.randn(20_000, 1024, generator=random)
    target = torch.arange(200)
    cpu_ranks = rank_targets(signals, gallery, target)
    gpu_ranks = rank_targets(signals.to(bench.device), gallery.to(bench.device), target)
    bench.show(
        "CPU and GPU: equal ranks among 20,000, share",
        float((cpu_ranks == gpu_ranks).float().mean()),
        target=0.99,
    )


def denoised(bench: Bench) -> None:
    """Compare a prior's loss, whose noise is drawn on the CPU."""
    trainings = []
    for device in (CPU, bench.device):
        training = prior.begin(
            bench.make_folder(),
            TINY.architecture,
            "resolution_px=64",
            "prior.hidden_size=32",
            "prior.intermediate_size=64",
            "train.precision=fp32",
            f"run.device={device.type}",
        )
        trainings.append(training)
    cpu_training, gpu_training = trainings
    copy_weights(cpu_training, gpu_training)
    losses = []
    for training in trainings:
        batch = load_first_batch(training)
        # both take the latents of the VAE on the CPU
        image = load_first_batch(cpu_training).image
        losses.append(training.compute_loss(replace(batch, image=image)))
    show_distance(bench, "a prior's loss", *losses, 1e-3)


def load_first_batch(training: Any) -> Any:
    """Load four examples of a training of a prior."""
    pictures = training.pictures
    return next(load_examples(pictures, range(1), 4, 1, 0, 0, training.launch))


def drawn(bench: Bench) -> None:
    """Compare pictures generated from the same tokens and seeds."""
    output = generate.Recipe(resolution_px=16, batch_size=2, precision="fp32")
    cpu_studio = generate.build_sdxl_studio(bench, TINY, output, 2, CPU)
    gpu_studio = generate.build_sdxl_studio(bench, TINY, output, 2, bench.device)
    copy_weights(cpu_studio, gpu_studio)
    pictures = []
    for studio in (cpu_studio, gpu_studio):
        samples = studio.sampler.sample(studio.decoded, [1, 2])
        pictures.append(255 * samples.double().cpu().numpy())
    levels = float(np.abs(pictures[0] - pictures[1]).mean())
    bench.show(
        "CPU and GPU: a drawn picture, levels apart of 255",
        levels,
        target=0.5,
        at_most=True,
    )


def copy_weights(source: Any, target: Any) -> None:
    """Copy the weights of a generator and a prior, which each device draws anew."""
    target.generator.unet.load_state_dict(source.generator.unet.state_dict())
    target.generator.vae.load_state_dict(source.generator.vae.state_dict())
    target.prior.load_state_dict(source.prior.state_dict())


CASES = (embeddings, ranked, trained, denoised, drawn)

if __name__ == "__main__":
    main(__doc__, CASES, {})
