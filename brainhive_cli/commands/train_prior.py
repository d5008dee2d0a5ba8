"""train-prior: a prior's modules on a frozen diffusion model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from brainhive_cli.commands import trackers
from brainhive_cli.core import artifacts, console
from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.core.launch import Launch, num_processes
from brainhive_cli.core.measurements import ALL, Measurements, Metric, by_name
from brainhive_cli.core.results import Plan, Result, Work, to_download
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.core.tables import Table
from brainhive_cli.core.weights import Checkpoint
from brainhive_cli.data.command_lines import command, only_if_recorded
from brainhive_cli.data.targets.target_stores import digests_of_imported
from brainhive_cli.measurement.metrics import perceptual
from brainhive_cli.measurement.metrics.perceptual import require_distances
from brainhive_cli.measurement.statistics import measure
from brainhive_cli.models import encoders, priors
from brainhive_cli.models.encoders import EncoderConfig
from brainhive_cli.training.alignment.learned import Learned, LearnedPictures
from brainhive_cli.training.prior.components import LAST, Learner, adamw8bit, describe_training_memory
from brainhive_cli.training.prior.examples import Pictures
from brainhive_cli.training.prior.loop import Training, train
from brainhive_cli.training.prior.recipe import INCEPTION, Recipe
from brainhive_cli.training.prior.samples import LAST as LAST_SAMPLES
from brainhive_cli.training.prior.samples import Values, loss_curve, measure_distribution, show, try_out

__all__ = ["Recipe", "plan", "run"]


@dataclass(frozen=True)
class Job:
    """Prior to be trained, and its pictures.

    Attributes:
        recipe: Its settings.
        pictures: Pictures with their embeddings.
        pinned: The recipe with the content of the prior whose training is continued, for the fingerprint.
    """

    recipe: Recipe
    pictures: Pictures
    pinned: Recipe

    @classmethod
    def resolve(cls, recipe: Recipe, launch: Launch) -> Self:
        """Match pictures and embeddings, and digest own vectors and the prior to start from.

        Raises:
            MissingData: naming the embeddings that are absent.
        """
        source = recipe.continue_from
        dataset = recipe.dataset.build(recipe.paths)
        digests = digests_of_imported(dataset, recipe.split, recipe.encoders, recipe.paths)
        digests |= {source: priors.describe(source).digest} if source else {}
        return cls(recipe, Pictures.open(recipe, launch), recipe.holding(digests))

    @property
    def work(self) -> Work:
        """Number of steps, and the kind of a step."""
        recipe, train = self.recipe, self.recipe.train
        kind = f"{recipe.generator.kind} at {recipe.resolution_px} px"
        return Work(f"{kind}, {train.batch_size} a step in {train.precision}", train.steps, "steps")

    def describe_pictures(self) -> str:
        """Count the pictures and epochs, and name the encoders that run in each step."""
        # epochs over the pictures, by all processes together
        train, pictures, processes = self.recipe.train, self.pictures, num_processes(self.recipe.run)
        size = train.batch_size * train.accumulate * processes
        size = pictures.count_in_step(size, train.accumulate, processes)
        epochs = train.steps * size / len(pictures.train)
        launched = f"{processes} processes" if processes > 1 else "one process"
        words = (
            f"{len(pictures.train)} to learn ({epochs:.1f} epochs on {launched}), {len(pictures.held)} kept"
        )

        # encoders without stores, which run in each step
        online = [
            f"{config.name}, {to_download(config.needs())}"
            for group in pictures.targets.groups
            for config in group.configs
        ]
        return words + (f"; embedded in each step by {'; '.join(online)}" if online else "")


def plan(recipe: Recipe) -> Plan:
    """List the checks of the prior, its pictures, generator, metrics and memory, and missing files."""
    # the pictures need the embeddings; if these are missing, the other checks run still
    train, source = recipe.train, recipe.continue_from
    checks: dict[str, Callable[[], Any] | BrainhiveError] = {
        "steps": lambda: f"{train.steps} of {train.batch_size * train.accumulate} pictures on each process"
    }
    job = None
    try:
        job = Job.resolve(recipe, Launch(0, 1, torch.device("cpu")))
        checks["pictures"] = job.describe_pictures
    except BrainhiveError as error:
        checks["pictures"] = error
    # parts of the system, metrics, memory and trackers
    checks |= {
        "generator": recipe.generator.check,
        "prior": lambda: f"new, {recipe.prior.check()}" if source is None else f"continues from {source}",
        **({} if recipe.sampler is None else {"sampler": recipe.sampler.check}),
        "optimizer": lambda: (
            f"{adamw8bit().__name__} of bitsandbytes" if train.optimizer == "adamw8bit" else train.optimizer
        ),
        "metrics": lambda: _describe_metrics(recipe),
        "memory, estimated": lambda: describe_training_memory(recipe),
        **trackers.checks(recipe.run.trackers),
    }
    return Plan.of(checks, None if job is None else lambda: job.work)


def _describe_metrics(recipe: Recipe) -> str:
    """Name the metrics, and the reasons against those that cannot be measured."""

    def describe_encoder(config: EncoderConfig) -> str:
        needs = config.needs()
        words = to_download(needs)
        if not any(need.size for need in needs):
            config.build()  # which finds out whether it can be loaded, and loads nothing
        return words

    # the metrics of the recipe, each with its network: an encoder, or one by name
    networks: dict[str, EncoderConfig | str] = {}
    if recipe.sample_items:
        networks = {f"similarity_{config.name}": config for config in recipe.similarity}
        networks |= {"lpips": "LPIPS"} if recipe.lpips else {}
    if recipe.fid_items:
        networks["fid and kid"] = "FID" if recipe.fid_features == INCEPTION else recipe.fid_features

    # an error skips a metric, unless the recipe is wrong
    words = []
    for name, network in networks.items():
        try:
            if name == "fid and kid":
                require_distances(recipe.fid_items)
            if network in ("LPIPS", "FID"):
                is_here = perceptual.is_here(network)
                said = to_download([]) if is_here else "weights to download"
            else:
                said = describe_encoder(encoders.resolve(network) if isinstance(network, str) else network)
            words.append(f"{name}: {said}")
        except RecipeError:
            raise
        except BrainhiveError as error:
            words.append(f"{name}: skipped, {error.in_one_line}")
    return "; ".join(words) or "none"


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Train to the last step, from the newest checkpoint if there is one."""
    # refuse missing trackers and warn of idle keys before anything is loaded
    trackers.require(recipe.run.trackers)
    for line in recipe.idle:
        console.warn(line)

    # train unless the run is finished; its last checkpoint is then of no use
    with console.progress("listing pictures and embeddings"):
        job = Job.resolve(recipe, launch)
    label = f"{job.pictures.images.dataset}-{recipe.prior.kind}"
    folder = RunFolder.open("train-prior", label, job.pinned, launch, again)
    work = job.work if folder.is_untouched else None
    if not folder.is_finished:
        with folder.finishing(launch) as is_due:
            if is_due:
                measurements = _train(job, folder, launch)
                if launch.is_main:
                    artifacts.write(folder, [*loss_curve(folder), *artifacts.read(folder)])
                    folder.finish(measurements)
                    Checkpoint(folder.checkpoint_path(LAST)).remove()
        launch.barrier()

    # report metrics, the sheet of samples and the next command
    measurements = folder.measurements()
    for name, reason in measurements.missing.items():
        console.warn(f"no {name}: {reason}")
    rows = [(name, m.value, m.interval_text(4), m.n) for name, m in measurements.overall.items()]
    table = Table("prior", ("metric", "value", "95 % CI", "n"), tuple(rows))
    sheet = folder.path / "samples" / f"{LAST_SAMPLES}.png"
    files = {"samples": sheet} if sheet.is_file() else {}
    dataset = only_if_recorded(recipe.dataset, recipe.paths)
    hint = command("train-align", dataset, recipe.encoders, "--prior", str(folder.path / "model"))
    return Result(folder.path, (table,), measurements, files, hint, work=work)


def _train(job: Job, folder: RunFolder, launch: Launch) -> Measurements:
    """Train, save the prior, and measure it on pictures kept from training."""
    # try the sampler before training, so that its errors come first
    recipe = job.recipe
    with console.progress("loading what is trained"):
        training = Training.begin(recipe, job.pictures, launch)
        learner = Learner(training.prior, recipe.freeze, recipe.train)
    try_out(training, folder)
    at_start = _learn(training, folder, learner)

    # save and measure the averaged weights
    with learner.averaged():
        losses = {"validation_loss_at_start": at_start, "validation_loss": training.validate()}
        samples: dict[str, Values] = {}
        if launch.is_main:
            folder.replace("model", lambda part: _save(training, part))
            samples = show(training, folder, LAST_SAMPLES)
        distances, missing = dict[str, Metric](), dict[str, str]()
        try:
            if recipe.fid_items:
                distances = by_name(measure_distribution(training, folder))
        except BrainhiveError as error:
            missing = dict.fromkeys(("fid", "kid"), error.in_one_line)

    # metrics of all values [N]; an error in their place is the reason for a missing metric
    protocols: dict[str, Mapping[str, Any]] = {
        "noise prediction, fixed noise": losses,
        f"{recipe.sample_steps} steps": samples,
    }
    metrics: dict[str, Metric] = {}
    for protocol, metric_values in protocols.items():
        for name, values in metric_values.items():
            if isinstance(values, BrainhiveError):
                missing[name] = values.in_one_line
            elif len(values):
                metrics[name] = measure(
                    name, [np.asarray(values)], protocol=protocol, seeds=(recipe.seed,), split="validation"
                )
    return Measurements({ALL: metrics | distances}, missing)


def _save(training: Training, folder: Path) -> None:
    """Save the prior and the list of pictures it learned from; those held for validation count as seen."""
    # pictures of this training
    training.prior.save(folder)
    images, recipe = training.pictures.images, training.recipe
    name, source = recipe.dataset.build(recipe.paths).pictured_as, recipe.continue_from
    pixels = training.pictures.targets.pixels
    pictures = LearnedPictures.of(name, images.image_ids, pixels, images.concepts)
    learned = Learned(
        *("last epoch", name),
        has_all_subjects=True,
        split=images.split,
        stimulus_kinds=(recipe.dataset.kind.replace("_", "-"),),
        pictures=pictures,
    )

    # and of the prior that it continued from
    if source is not None and (before := priors.describe(source).folder) is not None:
        learned = learned.after(Learned.read(before))
    learned.write(folder)


def _learn(training: Training, folder: RunFolder, learner: Learner) -> list[float]:
    """Train with regular samples, log and trackers; return the validation losses at the start."""
    recipe, launch = training.recipe, training.launch
    names = recipe.run.trackers if launch.is_main else ()
    with trackers.tracked(names, folder.path, "prior", recipe.model_dump(mode="json"), clock="step") as track:

        def after_step(step: int) -> None:
            is_due = recipe.sample_every and step % recipe.sample_every == 0 and step < recipe.train.steps
            if not (launch.is_main and is_due):
                return
            with learner.averaged():
                samples = show(training, folder, f"step-{step:06d}")
            means = {
                name: float(v.mean()) for name, v in samples.items() if not isinstance(v, BrainhiveError)
            }
            folder.log(step=step, samples=means)
            track({"step": step, **means})

        return train(training, folder, learner, after_step, track)
