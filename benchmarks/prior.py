"""How fast `brainhive train-prior` is compared with what limits it: the frozen U-Net, and the optimiser.

Each ratio comes from one run, its two sides in turns; `--only` takes the names of parts.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from embed import Setting, in_turns, paint
from figures import peak_bytes, reset_peak, show

from brainhive_cli.commands import train_prior
from brainhive_cli.core import launch
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.data.stores.target_store import Blank, TargetWriter, path_of
from brainhive_cli.models.generators._components import Architecture
from brainhive_cli.models.generators.sdxl import ARCHITECTURE as SDXL
from brainhive_cli.models.generators.sdxl import TINY as TINY_SDXL
from brainhive_cli.training.prior.components import Learner, training_bytes
from brainhive_cli.training.prior.examples import Pictures, batches
from brainhive_cli.training.prior.loop import Training, train

ENCODERS = ("clip-h14", "vae")
DIM = 1024
"""BrainHiVE's encoders, and the width of their embeddings."""
TINY = TINY_SDXL.architecture
NARROW: Architecture = {**TINY, "unet": {**TINY["unet"], "block_out_channels": (32, 64)}}
"""SDXL's kind of U-Net, a tenth as wide and less deep."""


def begun(
    home: Path, architecture: Architecture, *more: str, recipe: str | None = None, count: int = 64
) -> Training:
    """Begin a training on pictures whose latents and embeddings are there."""
    os.environ["BRAINHIVE_HOME"] = str(home)
    root = home / f"pictures{count}"
    if not root.is_dir():
        embedded(home, paint(root, count))
    overrides = [f"dataset={{kind: image-folder, root: {root}}}", f"encoders={','.join(ENCODERS)}"]
    overrides += [f"generator={{kind: sdxl, source: random, architecture: {json.dumps(architecture)}}}"]
    overrides += ["prior.start_from=null", "sampler=null", "validation_items=0", "fid_items=0"]
    what = train_prior.Recipe.resolve("train-prior", recipe, {}, [*overrides, "cache_latents=true", *more])
    here = launch.start(what.run)
    return Training.begin(what, Pictures.open(what, here), here)


def embedded(home: Path, files: list[Path]) -> None:
    """Write stores of random vectors."""
    name = files[0].parent.name
    ids, random = [file.stem for file in files], np.random.default_rng(0)
    for encoder in ENCODERS:
        path = path_of(home / "embeddings", name, "train", encoder)
        made = {"encoder": encoder, "dataset": name, "split": "train"}
        Blank(path, ids, ids, (DIM,), "float32", made).create()
        writer = TargetWriter(path)
        writer.write(np.arange(len(ids)), random.normal(0.5, 1, (len(ids), DIM)))
        writer.close()
        writer.finish()


class Timed(Learner):
    """A learner that knows how long it took to write checkpoints."""

    on: Setting
    saving_s = 0.0

    def save(self, *args: Any, **options: Any) -> None:
        """Write a checkpoint."""
        self.saving_s += self.on.timed(lambda: super(Timed, self).save(*args, **options))


def whole(on: Setting, training: Training) -> float:
    """Time the training as the command runs it, in seconds; of a checkpoint its share of these steps."""
    settings = training.recipe.train
    learner = Timed(training.prior, [], settings)
    learner.on = on
    with tempfile.TemporaryDirectory() as folder:
        took = on.timed(finished(lambda: train(training, RunFolder(Path(folder)), learner, lambda _: None)))
    share = settings.steps / settings.checkpoint_steps
    return took - learner.saving_s + min(1, share) * learner.saving_s


def bare(on: Setting, training: Training) -> float:
    """Time as many steps of noise, U-Net forward and backward, and optimiser alone, in seconds."""
    generator, settings = training.generator, training.recipe.train
    unet, schedule, device = generator.unet, generator.noise_schedule, training.launch.device
    batch = next(batches(training.pictures, range(1), settings.batch_size, 1, 0, 0, training.launch))
    latents, sizes = training.latents(batch), batch.sizes.to(device)
    with torch.no_grad():
        tokens = training.prior(training.embeddings(batch))
    text, pooled = generator.empty_prompt(len(latents))
    parameters = list(training.prior.attn_adapter.parameters())
    optimizer = torch.optim.AdamW(parameters, fused=True)

    def steps() -> None:
        for _ in range(settings.steps):
            noise = torch.randn_like(latents)
            timesteps = torch.randint(0, 1000, (len(latents),), device=device)
            predicted = unet(
                schedule.add_noise(latents, noise, timesteps).to(unet.dtype),
                timesteps,
                text,
                added_cond_kwargs={"text_embeds": pooled, "time_ids": sizes},
                cross_attention_kwargs={"ip_hidden_states": tokens},
                return_dict=False,
            )[0]
            F.mse_loss(predicted.float(), noise).backward()
            optimizer.step()
            optimizer.zero_grad()

    return on.timed(finished(steps))


def finished(work: Callable[[], object]) -> Callable[[], None]:
    """Do the work, and wait for the device."""

    def done() -> None:
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return done


def compare(on: Setting, what: str, training: Training, rounds: int = 3) -> None:
    """Show the training's share of the bare loop's speed."""
    settings = training.recipe.train
    bare(on, training)  # warm
    ours, alone = in_turns(lambda: whole(on, training), lambda: bare(on, training), rounds=rounds)
    count = settings.steps * settings.batch_size
    rates = f"{count / ours:.3g} of {count / alone:.3g} pictures/s"
    show(f"{what}: of the bare loop", alone / ours, 0.95, rates)


def step(on: Setting) -> None:
    """Compare a training step at tiny width with the bare loop."""
    sizes = (
        "resolution_px=128",
        "prior.hidden_size=32",
        "prior.intermediate_size=64",
        "train.precision=fp32",
    )
    steps = (f"train.steps={int(20 * on.pictures)}", "train.batch_size=16", "run.device=cpu")
    compare(on, "training step, tiny, on a CPU", begun(on.home, NARROW, *sizes, *steps))


def wide(on: Setting) -> None:
    """Compare a training step at SDXL's width with the bare loop: on a GPU, else a picture at a time."""
    if torch.cuda.is_available():
        speed(on)
        memory(on)
        return
    few = ("train.steps=4", "train.batch_size=1", "sample_items=0")
    compare(on, "training step, SDXL in bf16, on a CPU", begun(on.home, SDXL, *few, count=8), rounds=2)


def speed(on: Setting, architecture: Architecture = SDXL, *more: str, count: int = 64) -> None:
    """Compare training steps of 16 pictures at SDXL's width with the bare loop, on a GPU."""
    overrides = ("train.steps=12", "train.batch_size=16", *more)
    training = begun(on.home, architecture, *overrides, count=count)
    compare(on, "train-prior, SDXL's width in bf16", training, rounds=2)


def memory(on: Setting, architecture: Architecture = SDXL, *more: str, count: int = 64) -> None:
    """Compare the peak of a training by `prior-24gb` with what its plan estimates."""
    training = begun(on.home, architecture, "train.steps=3", *more, recipe="prior-24gb", count=count)
    estimate = training_bytes(training.recipe)
    reset_peak()
    whole(on, training)
    settings = training.recipe.train
    detail = f"{settings.batch_size} × {settings.accumulate} pictures a step"
    held, reserved = peak_bytes()
    show("prior-24gb: peak memory reserved, GB", reserved / 1e9, 24, detail, at_most=True)
    words = f"{held / 1e9:.2f} of {estimate / 1e9:.2f} GB"
    show("prior-24gb: peak allocated over its estimate", held / estimate, 1.1, words, at_most=True)


PARTS = {part.__name__: part for part in (step, wide)}


def main() -> None:
    """Run the chosen parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--pictures", type=float, default=1.0, help="share of the usual number of steps")
    parser.add_argument("--busy", action="store_true", help="count seconds on a core: others use the machine")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        on = Setting(Path(home), 0, args.pictures, args.busy)
        for name in args.only:
            PARTS[name](on)


if __name__ == "__main__":
    main()
