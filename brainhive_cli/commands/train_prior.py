"""train-prior: a prior's modules on a frozen diffusion model."""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from brainhive_cli.commands import trackers
from brainhive_cli.core import artifacts, console
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import ALL, Measurements, Metric, by_name
from brainhive_cli.core.memory_estimate import in_words
from brainhive_cli.core.pace import Work
from brainhive_cli.core.results import Plan, Result
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.data.command_lines import command, only_if_recorded
from brainhive_cli.measurement.statistics import measure
from brainhive_cli.models import priors
from brainhive_cli.training.alignment.learned import Learned, LearnedPictures
from brainhive_cli.training.prior.job import Job
from brainhive_cli.training.prior.loop import Training, train
from brainhive_cli.training.prior.optimisation import LAST, Learner
from brainhive_cli.training.prior.recipe import Recipe
from brainhive_cli.training.prior.samples import LAST as LAST_SAMPLES
from brainhive_cli.training.prior.samples import Values, loss_curve, measure_distribution, show, try_out

__all__ = ["Recipe", "plan", "run"]


def plan(recipe: Recipe) -> Plan:
    """List what would be trained on what, what it needs, and what is missing."""
    job = Job(recipe)
    steps = f"{recipe.train.steps} of {job.pass_pictures} pictures on each process"
    return Plan.of(
        {
            "steps": lambda: steps,
            "pictures": job.describe_pictures,
            "generator": recipe.generator.check,
            "prior": job.describe_prior,
            **({} if recipe.sampler is None else {"sampler": recipe.sampler.check}),
            "optimizer": job.require_optimizer,
            "metrics": job.describe_metrics,
            "memory, estimated": lambda: in_words(job.memory_bytes),
            **trackers.checks(recipe.run.trackers),
        },
        lambda: _work(recipe),
    )


def _work(recipe: Recipe) -> Work:
    """Count the steps of a training."""
    train = recipe.train
    kind = f"{recipe.generator.kind} at {recipe.resolution_px} px"
    return Work(f"{kind}, {train.batch_size} a step in {train.precision}", train.steps, "steps")


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Train to the last step, from the newest checkpoint if there is one."""
    trackers.require(recipe.run.trackers)
    for line in recipe.idle:
        console.warn(line)
    job = Job(recipe, launch)
    label = f"{job.pictures.images.dataset}-{recipe.prior.kind}"
    folder = RunFolder.open("train-prior", label, job.pinned, launch, again)
    work, start = _work(recipe) if folder.is_untouched else None, time.monotonic()
    if not folder.is_finished:
        measurements = _train(job, folder)
        if launch.is_main:
            artifacts.write(folder, [*loss_curve(folder), *artifacts.read(folder)])
            folder.finish(measurements)
            folder.checkpoint(LAST).remove()
        launch.barrier()
    return replace(_result(job, folder), work=(work, time.monotonic() - start) if work else None)


def _train(job: Job, folder: RunFolder) -> Measurements:
    """Train, save the prior, and measure it on pictures kept from training."""
    recipe, launch = job.recipe, job.launch
    training = Training.begin(job)
    learner = Learner(training.prior, recipe.freeze, recipe.train)
    try_out(training, folder)
    at_start = _learn(training, folder, learner)
    with learner.averaged():
        losses = {"validation_loss_at_start": at_start, "validation_loss": training.validate()}
        samples: dict[str, Values] = {}
        if launch.is_main:
            folder.replace("model", lambda part: _save(training, part))
            samples = show(training, folder, LAST_SAMPLES)
        distribution, missing = dict[str, Metric](), dict[str, str]()
        try:
            if recipe.fid_items:
                distribution = by_name(measure_distribution(training, folder))
        except BrainhiveError as error:
            missing = dict.fromkeys(("fid", "kid"), error.in_one_line)
    missing |= {name: v.in_one_line for name, v in samples.items() if isinstance(v, BrainhiveError)}
    metrics = _metrics(losses, "noise prediction, fixed noise", recipe)
    metrics |= _metrics(samples, f"{recipe.sample_steps} steps", recipe)
    return Measurements({ALL: metrics | distribution}, missing)


def _save(training: Training, folder: Path) -> None:
    """Save the prior, and which pictures it learned from; those kept for validation count as seen."""
    training.prior.save(folder)
    images, recipe = training.pictures.images, training.recipe
    name, source = recipe.dataset.build(recipe.paths).pictured_as, recipe.continue_from
    pictures = LearnedPictures.of(name, images.image_ids, training.pictures.targets.pixels)
    learned = Learned("last epoch", name, split=images.split, pictures=pictures)
    if source is not None and (before := priors.describe(source).folder) is not None:
        learned = learned.after(Learned.read(before))
    learned.write(folder)


def _learn(training: Training, folder: RunFolder, learner: Learner) -> list[float]:
    """Train, sampling now and then, with log and trackers; return the validation losses at the start."""
    recipe, launch = training.recipe, training.launch
    names = recipe.run.trackers if launch.is_main else ()
    with trackers.tracked(names, folder.path, "prior", recipe.model_dump(mode="json"), clock="step") as track:

        def after_step(step: int) -> None:
            is_due = recipe.sample_every and step % recipe.sample_every == 0 and step < recipe.train.steps
            if not (launch.is_main and is_due):
                return
            with learner.averaged():
                found = show(training, folder, f"step-{step:06d}")
            means = {name: float(v.mean()) for name, v in found.items() if not isinstance(v, BrainhiveError)}
            folder.log(step=step, samples=means)
            track({"step": step, **means})

        return train(training, folder, learner, after_step, track)


def _metrics(values: Mapping[str, Values | list[float]], protocol: str, recipe: Recipe) -> dict[str, Metric]:
    """Make metrics of values [N] where there are any."""
    context: dict[str, Any] = {"protocol": protocol, "seeds": (recipe.seed,), "split": "validation"}
    found = {name: np.asarray(v) for name, v in values.items() if not isinstance(v, BrainhiveError)}
    return {name: measure(name, [v], **context) for name, v in found.items() if len(v)}


def _result(job: Job, folder: RunFolder) -> Result:
    found = folder.measurements()
    for name, reason in found.missing.items():
        console.warn(f"no {name}: {reason}")
    rows = [(name, m.value, m.interval_text(4), m.n) for name, m in found.overall.items()]
    table = console.Table("prior", ("metric", "value", "95 % CI", "n"), tuple(rows))
    sheet = folder.path / "samples" / "last.png"
    recipe = job.recipe
    dataset = only_if_recorded(recipe.dataset, recipe.paths)
    hint = command("train-align", dataset, recipe.encoders, "--prior", str(folder.path / "model"))
    return Result(folder.path, (table,), found, {"samples": sheet} if sheet.is_file() else {}, hint)
