"""Speed of `brainhive train-prior` next to a bare loop, and its peak memory."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import synthetic
import torch
import torch.nn.functional as F
from generate import narrow
from harness import Bench, main, read_peak_bytes, reset_peak

from brainhive_cli.commands import train_prior
from brainhive_cli.core.runs import launch
from brainhive_cli.core.runs.run_folder import RunFolder
from brainhive_cli.models.generators.sdxl import ARCHITECTURE as SDXL, TINY
from brainhive_cli.training.prior.examples import PriorExamples, load_examples
from brainhive_cli.training.prior.loop import PriorLearner, Training, train

TINY_TRAINING = (
    "resolution_px=32",
    "train.steps=1",
    "train.batch_size=1",
    "prior.hidden_size=32",
)
NARROW_TRAINING = (
    "resolution_px=128",
    "prior.hidden_size=32",
    "prior.intermediate_size=64",
    "train.batch_size=16",
    "train.steps=20",
)
ON_CPU = ("train.precision=fp32", "run.device=cpu")


def begin(
    home: Path,
    architecture: Any,
    *overrides: str,
    recipe: str | None = None,
    count: int = 8,
) -> Training:
    """Begin a training on random pictures, whose embeddings are written before."""
    os.environ["BRAINHIVE_HOME"] = str(home)
    root = home / f"pictures{count}"
    if not root.is_dir():
        ids = [file.stem for file in synthetic.write_pictures(root, count)]
        synthetic.write_targets(
            home, root.name, "train", ids, {"clip-h14": 1024, "vae": 1024}
        )
    description = json.dumps(architecture)
    settings = [
        f"dataset={{kind: image-folder, root: {root}}}",
        "encoders=clip-h14,vae",
        f"generator={{kind: sdxl, source: random, architecture: {description}}}",
        "prior.start_from=null",
        "sampler=null",
        "validation_items=0",
        "fid_items=0",
        "cache_latents=true",
    ]
    settings.extend(overrides)
    resolved = train_prior.Recipe.resolve("train-prior", recipe, {}, settings)
    process = launch.start(resolved.run)
    return Training.begin(resolved, PriorExamples.open(resolved, process), process)


class Unsaved(PriorLearner):
    """Learner without checkpoints, whose share of so few steps would be too large."""

    def save(self, *args: Any, **options: Any) -> None:
        """Write no checkpoint."""


def train_with_loop(training: Training) -> None:
    """Train with the loop of the command."""
    with tempfile.TemporaryDirectory() as folder:
        learner = Unsaved(training.prior, [], training.recipe.train)
        train(training, RunFolder(Path(folder)), learner, lambda _: None)


def train_bare(training: Training) -> None:
    """Run as many steps of noise, U-Net and optimiser alone."""
    generator = training.generator
    settings = training.recipe.train
    unet = generator.unet
    device = training.launch.device
    batches = load_examples(
        training.pictures, range(1), settings.batch_size, 1, 0, 0, training.launch
    )
    batch = next(batches)
    latents = training.get_latents(batch)
    sizes = batch.sizes.to(device)
    with torch.no_grad():
        tokens = training.prior(training.gather_embeddings(batch))
    prompt_embeds, pooled_embeds = generator.embed_empty_prompt(len(latents))
    optimizer = torch.optim.AdamW(
        list(training.prior.attn_adapter.parameters()), fused=True
    )
    for _ in range(settings.steps):
        noise = torch.randn_like(latents)
        timesteps = torch.randint(0, 1000, (len(latents),), device=device)
        noisy_latents = generator.noise_scheduler.add_noise(latents, noise, timesteps)
        predicted_noise = unet(
            noisy_latents.to(unet.dtype),
            timesteps,
            prompt_embeds,
            added_cond_kwargs={"text_embeds": pooled_embeds, "time_ids": sizes},
            cross_attention_kwargs={"ip_hidden_states": tokens},
            return_dict=False,
        )[0]
        F.mse_loss(predicted_noise.float(), noise).backward()
        optimizer.step()
        optimizer.zero_grad()


def prior_step(bench: Bench) -> None:
    """Compare training steps with U-Net and optimiser alone.

    The U-Net has SDXL's width on a GPU, and is narrow on a CPU.
    """
    architecture, overrides, count = bench.pick(
        (TINY.architecture, TINY_TRAINING + ON_CPU, 8),
        (narrow(TINY).architecture, NARROW_TRAINING + ON_CPU, 64),
        (SDXL, ("train.steps=12", "train.batch_size=16"), 64),
    )
    training = begin(bench.home, architecture, *overrides, count=count)
    settings = training.recipe.train
    bench.compare(
        "train-prior: of U-Net and optimiser alone",
        lambda: train_with_loop(training),
        lambda: train_bare(training),
        settings.steps * settings.batch_size,
        "pictures/s",
        0.95,
    )


def prior_memory(bench: Bench) -> None:
    """Measure the peak memory of a training with `prior-24gb`."""
    if bench.size == "small":
        bench.leave_out("prior-24gb: peak of memory", "takes a GPU")
        return
    architecture, overrides, count = bench.pick(
        (TINY.architecture, TINY_TRAINING, 8), None, (SDXL, ("train.steps=3",), 64)
    )
    training = begin(
        bench.home, architecture, *overrides, recipe="prior-24gb", count=count
    )
    reset_peak()
    train_with_loop(training)
    settings = training.recipe.train
    _, reserved = read_peak_bytes()
    note = f"{settings.batch_size} × {settings.accumulate} pictures a step"
    bench.show(
        "prior-24gb: peak reserved",
        reserved / 1e9,
        unit="GB",
        target=24,
        at_most=True,
        note=note,
    )


CASES = (prior_step, prior_memory)

if __name__ == "__main__":
    main(__doc__, CASES, {})
