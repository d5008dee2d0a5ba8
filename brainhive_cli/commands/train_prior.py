"""train-prior: a prior's modules on a frozen diffusion model."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from brainhive_cli.commands import trackers
from brainhive_cli.core import artifacts, console
from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.core.launch import Launch, num_processes
from brainhive_cli.core.measurements import ALL, Measurements, Metric, by_name
from brainhive_cli.core.memory_estimate import in_words
from brainhive_cli.core.results import Plan, Result, Work, to_download
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.core.tables import Table
from brainhive_cli.core.weights import Checkpoint
from brainhive_cli.data.command_lines import command, only_if_recorded
from brainhive_cli.measurement.metrics import perceptual
from brainhive_cli.measurement.metrics.perceptual import require_distances
from brainhive_cli.measurement.statistics import measure
from brainhive_cli.models import encoders, priors
from brainhive_cli.models.encoders import EncoderConfig
from brainhive_cli.training.alignment.learned import Learned, LearnedPictures
from brainhive_cli.training.prior.components import LAST, Learner, adamw8bit
from brainhive_cli.training.prior.examples import Pictures
from brainhive_cli.training.prior.loop import Training, train
from brainhive_cli.training.prior.memory import training_bytes
from brainhive_cli.training.prior.recipe import INCEPTION, Recipe
from brainhive_cli.training.prior.samples import LAST as LAST_SAMPLES
from brainhive_cli.training.prior.samples import Values, loss_curve, measure_distribution, show, try_out

__all__ = ["Recipe", "plan", "run"]


def plan(recipe: Recipe) -> Plan:
    """List what would be trained on what, what it needs, and what is missing."""
    pass_pictures = recipe.train.batch_size * recipe.train.accumulate
    source = recipe.continue_from
    return Plan.of(
        {
            "steps": lambda: f"{recipe.train.steps} of {pass_pictures} pictures on each process",
            "pictures": lambda: _describe_pictures(recipe, pass_pictures),
            "generator": recipe.generator.check,
            "prior": lambda: f"new, {recipe.prior.check()}" if source is None else f"continues from {source}",
            **({} if recipe.sampler is None else {"sampler": recipe.sampler.check}),
            "optimizer": lambda: _describe_optimizer(recipe),
            "metrics": lambda: _describe_metrics(recipe),
            "memory, estimated": lambda: in_words(training_bytes(recipe)),
            **trackers.checks(recipe.run.trackers),
        },
        lambda: _work(recipe),
    )


def _describe_pictures(recipe: Recipe, pass_pictures: int) -> str:
    """Count the pictures and epochs, and name the encoders that run in each step."""
    train, processes = recipe.train, num_processes(recipe.run)
    pictures = Pictures.open(recipe, Launch(0, 1, torch.device("cpu")))
    size = pictures.count_in_step(pass_pictures * processes, train.accumulate, processes)
    epochs = train.steps * size / len(pictures.train)
    where = f"{processes} processes" if processes > 1 else "one process"
    words = f"{len(pictures.train)} to learn ({epochs:.1f} epochs on {where}), {len(pictures.held)} kept"
    online = [
        f"{config.name}, {to_download(config.needs())}"
        for group in pictures.targets.groups
        for config in group.configs
    ]
    return words + (f"; embedded in each step by {'; '.join(online)}" if online else "")


def _describe_optimizer(recipe: Recipe) -> str:
    """Name the optimiser; MissingExtra if its library is not installed."""
    name = recipe.train.optimizer
    return f"{adamw8bit().__name__} of bitsandbytes" if name == "adamw8bit" else name


def _describe_metrics(recipe: Recipe) -> str:
    """Name the metrics, and of those that cannot be measured the reason."""
    checks: dict[str, Callable[[], str]] = {}
    if recipe.sample_items:
        for config in recipe.similarity:
            checks[f"similarity_{config.name}"] = partial(_describe_encoder, config)
        if recipe.lpips:
            checks["lpips"] = partial(_describe_network, "LPIPS")
    if recipe.fid_items:
        checks["fid and kid"] = partial(_describe_distribution, recipe)
    words = []
    for name, check in checks.items():
        try:
            words.append(f"{name}: {check()}")
        except RecipeError:
            raise
        except BrainhiveError as error:
            words.append(f"{name}: skipped, {error.in_one_line}")
    return "; ".join(words) or "none"


def _describe_encoder(config: EncoderConfig) -> str:
    needs = config.needs()
    words = to_download(needs)
    if not any(need.size for need in needs):
        config.build()  # which finds out whether it can be loaded, and loads nothing
    return words


def _describe_network(metric: str) -> str:
    return to_download([]) if perceptual.is_here(metric) else "weights to download"


def _describe_distribution(recipe: Recipe) -> str:
    require_distances(recipe.fid_items)
    name = recipe.fid_features
    return _describe_network("FID") if name == INCEPTION else _describe_encoder(encoders.resolve(name))


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
    pictures = Pictures.open(recipe, launch)
    source = recipe.continue_from
    pinned = recipe.holding({source: priors.describe(source).digest} if source else {})
    label = f"{pictures.images.dataset}-{recipe.prior.kind}"
    folder = RunFolder.open("train-prior", label, pinned, launch, again)
    work = _work(recipe) if folder.is_untouched else None
    if not folder.is_finished:
        measurements = _train(recipe, pictures, folder, launch)
        if launch.is_main:
            artifacts.write(folder, [*loss_curve(folder), *artifacts.read(folder)])
            folder.finish(measurements)
            Checkpoint(folder.checkpoint_path(LAST)).remove()
        launch.barrier()
    return replace(_result(recipe, folder), work=work)


def _train(recipe: Recipe, pictures: Pictures, folder: RunFolder, launch: Launch) -> Measurements:
    """Train, save the prior, and measure it on pictures kept from training."""
    training = Training.begin(recipe, pictures, launch)
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
                by_metric = show(training, folder, f"step-{step:06d}")
            means = {
                name: float(v.mean()) for name, v in by_metric.items() if not isinstance(v, BrainhiveError)
            }
            folder.log(step=step, samples=means)
            track({"step": step, **means})

        return train(training, folder, learner, after_step, track)


def _metrics(values: Mapping[str, Values | list[float]], protocol: str, recipe: Recipe) -> dict[str, Metric]:
    """Make metrics of values [N] where there are any."""
    context: dict[str, Any] = {"protocol": protocol, "seeds": (recipe.seed,), "split": "validation"}
    arrays = {name: np.asarray(v) for name, v in values.items() if not isinstance(v, BrainhiveError)}
    return {name: measure(name, [v], **context) for name, v in arrays.items() if len(v)}


def _result(recipe: Recipe, folder: RunFolder) -> Result:
    measurements = folder.measurements()
    for name, reason in measurements.missing.items():
        console.warn(f"no {name}: {reason}")
    rows = [(name, m.value, m.interval_text(4), m.n) for name, m in measurements.overall.items()]
    table = Table("prior", ("metric", "value", "95 % CI", "n"), tuple(rows))
    sheet = folder.path / "samples" / "last.png"
    dataset = only_if_recorded(recipe.dataset, recipe.paths)
    hint = command("train-align", dataset, recipe.encoders, "--prior", str(folder.path / "model"))
    return Result(folder.path, (table,), measurements, {"samples": sheet} if sheet.is_file() else {}, hint)
