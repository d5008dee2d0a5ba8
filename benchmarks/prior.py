"""How fast `brainhive train-prior` is next to a bare loop, and the memory that it
takes.
"""

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
from brainhive_cli.core import launch
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.models.generators.sdxl import ARCHITECTURE as SDXL, TINY
from brainhive_cli.training.prior.examples import PriorExamples, load_examples
from brainhive_cli.training.prior.loop import PriorLearner, Training, train

FEW = "resolution_px=32 train.steps=1 train.batch_size=1 prior.hidden_size=32".split()
NARROW = (
    "resolution_px=128 prior.hidden_size=32 prior.intermediate_size=64 "
    "train.batch_size=16"
).split()


def begin(
    home: Path,
    architecture: Any,
    *overrides: str,
    recipe: str | None = None,
    count: int = 8,
) -> Training:
    """Begin a training on pictures whose latents and embeddings are there."""
    os.environ["BRAINHIVE_HOME"] = str(home)
    root = home / f"pictures{count}"
    if not root.is_dir():
        ids = [file.stem for file in synthetic.write_pictures(root, count)]
        synthetic.write_targets(
            home, root.name, "train", ids, {"clip-h14": 1024, "vae": 1024}
        )
    words = [f"dataset={{kind: image-folder, root: {root}}}", "encoders=clip-h14,vae"]
    words += [
        (
            "generator={kind: sdxl, source: random, architecture: "
            f"{json.dumps(architecture)}}}"
        )
    ]
    words += [
        "prior.start_from=null",
        "sampler=null",
        "validation_items=0",
        "fid_items=0",
        "cache_latents=true",
    ]
    resolved = train_prior.Recipe.resolve(
        "train-prior", recipe, {}, [*words, *overrides]
    )
    here = launch.start(resolved.run)
    return Training.begin(resolved, PriorExamples.open(resolved, here), here)


class Unsaved(PriorLearner):
    """A learner that writes no checkpoint, which in so few steps would weigh more than
    in a training.
    """

    def save(self, *args: Any, **options: Any) -> None:
        """Do nothing."""


def train_whole(training: Training) -> None:
    """Train as the command does."""
    with tempfile.TemporaryDirectory() as folder:
        learner = Unsaved(training.prior, [], training.recipe.train)
        train(training, RunFolder(Path(folder)), learner, lambda _: None)


def train_bare(training: Training) -> None:
    """Do as many steps of noise, U-Net forward and backward, and optimiser alone."""
    generator, settings = training.generator, training.recipe.train
    unet, schedule, device = (
        generator.unet,
        generator.noise_scheduler,
        training.launch.device,
    )
    batch = next(
        load_examples(
            training.pictures, range(1), settings.batch_size, 1, 0, 0, training.launch
        )
    )
    latents, sizes = training.get_latents(batch), batch.sizes.to(device)
    with torch.no_grad():
        tokens = training.prior(training.gather_embeddings(batch))
    text, pooled = generator.embed_empty_prompt(len(latents))
    optimizer = torch.optim.AdamW(
        list(training.prior.attn_adapter.parameters()), fused=True
    )
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


def prior_step(on: Bench) -> None:
    """Compare training steps with U-Net and optimiser alone: at SDXL's width on a GPU,
    narrow on a CPU.
    """
    architecture, words, count = on.pick(
        (TINY.architecture, [*FEW, "train.precision=fp32", "run.device=cpu"], 8),
        (
            narrow(TINY).architecture,
            [*NARROW, "train.steps=20", "train.precision=fp32", "run.device=cpu"],
            64,
        ),
        (SDXL, ["train.steps=12", "train.batch_size=16"], 64),
    )
    training = begin(on.home, architecture, *words, count=count)
    settings = training.recipe.train
    sides = (lambda: train_whole(training), lambda: train_bare(training))
    pictures = settings.steps * settings.batch_size
    on.compare(
        "train-prior: of U-Net and optimiser alone",
        *sides,
        pictures,
        "pictures/s",
        0.95,
    )


def prior_memory(on: Bench) -> None:
    """Measure the peak of a training by `prior-24gb`."""
    if on.size == "small":
        on.leave_out("prior-24gb: peak of memory", "takes a GPU")
        return
    architecture, words = on.pick(
        (TINY.architecture, FEW), None, (SDXL, ["train.steps=3"])
    )
    training = begin(
        on.home, architecture, *words, recipe="prior-24gb", count=on.pick(8, 0, 64)
    )
    reset_peak()
    train_whole(training)
    settings, (_, reserved) = training.recipe.train, read_peak_bytes()
    note = f"{settings.batch_size} × {settings.accumulate} pictures a step"
    on.show(
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
