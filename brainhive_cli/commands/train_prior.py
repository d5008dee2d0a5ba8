"""train-prior: a prior's modules on a frozen diffusion model."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from brainhive_cli.commands import trackers
from brainhive_cli.core import artifacts, console
from brainhive_cli.core.cells import announce, finishing, is_untouched, start_run
from brainhive_cli.core.command import Input, Result, Work, collect, digests_of
from brainhive_cli.core.errors import BrainhiveError, Line, RecipeError
from brainhive_cli.core.facts import Facts, cite
from brainhive_cli.core.launch import Launch, num_processes
from brainhive_cli.core.measurements import ALL, Measurements, Metric, by_name
from brainhive_cli.core.parts import cited
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.core.tables import Table
from brainhive_cli.core.weights import Checkpoint
from brainhive_cli.data.datasets import list_pictures
from brainhive_cli.data.targets.target_stores import only_if_recorded, store_inputs
from brainhive_cli.measurement.metrics import perceptual
from brainhive_cli.measurement.statistics import measure
from brainhive_cli.models import encoders, priors
from brainhive_cli.training.alignment.learned import Learned, LearnedPictures
from brainhive_cli.training.alignment.set_ups import cite_data
from brainhive_cli.training.prior.examples import Pictures
from brainhive_cli.training.prior.loop import (
    LAST,
    Learner,
    Training,
    require_fit,
    train,
)
from brainhive_cli.training.prior.recipe import INCEPTION, Recipe
from brainhive_cli.training.prior.samples import (
    loss_curve,
    measure_distribution,
    show,
    try_out,
)


def _resolve(recipe: Recipe, launch: Launch) -> tuple[Pictures, dict[str, str]]:
    """Match pictures and embeddings, and digest own vectors and the prior to start
    from.

    Raises:
        MissingData: naming the embeddings that are absent.
    """
    source = recipe.continue_from
    dataset = recipe.dataset.build(recipe.paths)
    # digests, since a name may mean other vectors or another prior later
    stores = store_inputs(
        dataset, recipe.dataset, recipe.split, recipe.encoders, recipe.paths
    )
    digests = digests_of(stores) | (
        {source: priors.describe(source).digest} if source else {}
    )
    return Pictures.open(recipe, launch), digests


def inputs(recipe: Recipe) -> list[Input]:
    """List the pictures with their embeddings, what is trained, and the networks of
    metrics.
    """
    parts = [recipe.generator, *([] if recipe.sampler is None else [recipe.sampler])]
    # opened once for all inputs and checks, by one process on the CPU
    open_pictures = cache(lambda: _resolve(recipe, Launch(0, 1, "cpu"))[0])

    def count_pictures() -> None:
        train = recipe.train
        processes = num_processes(recipe.run)
        # each pass of each process needs a picture
        open_pictures().count_in_step(
            train.batch_size * train.accumulate * processes, train.accumulate, processes
        )

    def list_files() -> list[Input]:
        # latents that are kept stand for the pictures
        if recipe.cache_latents:
            return []
        return list_pictures(recipe.dataset.build(recipe.paths), recipe.split)

    return collect(
        lambda: trackers.inputs(recipe.run.trackers),
        list_files,
        lambda: [
            one
            for group in open_pictures().targets.groups
            for config in group.configs
            for one in config.inputs()
        ],
        lambda: recipe.prior.inputs() if recipe.continue_from is None else (),
        lambda: [one for part in parts for one in part.inputs()],
        lambda: _list_metrics(recipe),
        checks=[
            *(part.check for part in parts),
            lambda: require_fit(recipe),
            count_pictures,
        ],
    )


def work(recipe: Recipe) -> Work:
    """Count the steps, by the kind of a step; MissingData names the embeddings that are
    absent.
    """
    _resolve(recipe, Launch(0, 1, "cpu"))
    return _count_work(recipe)


def _count_work(recipe: Recipe) -> Work:
    train = recipe.train
    kind = f"{recipe.generator.kind} at {recipe.resolution_px} px"
    return Work(
        f"{kind}, {train.batch_size} a step in {train.precision}", train.steps, "steps"
    )


def _list_metrics(recipe: Recipe) -> list[Input]:
    """List the networks of the metrics, which are left out without them."""
    # without sample items nothing is drawn that could be compared
    similar = recipe.similarity if recipe.sample_items else []
    inputs = [one for config in similar for one in config.inputs()]
    if recipe.lpips and recipe.sample_items:
        inputs += perceptual.inputs_of("LPIPS")
    if recipe.fid_items:
        # raises for too few pictures, where a distance means nothing
        perceptual.require_distances(recipe.fid_items)
        is_usual = recipe.fid_features == INCEPTION
        features = recipe.fid_features
        inputs += (
            perceptual.inputs_of("FID")
            if is_usual
            else encoders.resolve(features).inputs()
        )
    # metrics without their network are left out, but a wrong key is an error
    return [
        replace(one, is_optional=not isinstance(one.error, RecipeError))
        for one in inputs
    ]


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Train to the last step, from the newest checkpoint if there is one."""
    trackers.require(recipe.run.trackers)

    # train unless the run is finished; its last checkpoint is then of no use
    with console.progress("listing pictures and embeddings"):
        pictures, digests = _resolve(recipe, launch)
    label = f"{pictures.images.dataset}-{recipe.prior.kind}"
    folder = start_run("train-prior", label, recipe, launch, again, digests)
    work = _count_work(recipe) if is_untouched(folder) else None
    if not folder.is_finished:
        with finishing(folder, launch) as is_due:
            if is_due:
                planned = _count_work(recipe)
                runs = folder.path.parents[1]
                announce(planned, "train-prior", runs, launch)
                measurements = _train(recipe, pictures, folder, launch)
                if launch.is_main:
                    artifacts.write(
                        folder, [*loss_curve(folder), *artifacts.read(folder)]
                    )
                    folder.finish(measurements)
                    Checkpoint(folder.checkpoint_path(LAST)).remove()

    # report metrics, the sheet of samples and the next command
    measurements = folder.measurements()
    for name, reason in measurements.missing.items():
        console.warn(f"no {name}: {reason}")
    rows = [
        (name, m.value, m.interval_text(4), m.n)
        for name, m in measurements.overall.items()
    ]
    table = Table("prior", ("metric", "value", "95 % CI", "n"), rows)
    sheet = folder.path / "samples" / f"{LAST}.png"
    files = {"samples": sheet} if sheet.is_file() else {}
    dataset = only_if_recorded(recipe.dataset, recipe.paths)
    parts = (
        ("dataset", dataset),
        ("encoders", recipe.encoders),
        ("prior", folder.path / "model"),
    )
    return Result(
        folder.path,
        (table,),
        measurements,
        files,
        Line("train-align", *parts),
        work=work,
    )


def _train(
    recipe: Recipe, pictures: Pictures, folder: RunFolder, launch: Launch
) -> Measurements:
    """Train, save the prior, and measure it on pictures kept from training."""
    # try the sampler before training, so that its errors come first
    with console.progress("loading what is trained"):
        training = Training.begin(recipe, pictures, launch)
        learner = Learner(training.prior, recipe.freeze, recipe.train)
    try_out(training, folder)
    at_start = _learn(training, folder, learner)

    # save and measure what was learned
    losses = {
        "validation_loss_at_start": at_start,
        "validation_loss": training.validate(),
    }
    samples = {}
    if launch.is_main:
        folder.replace("model", lambda part: _save(training, part))
        samples = show(training, folder, LAST)
    # FID and KID need many pictures; their failure leaves the other metrics
    distances = dict[str, Metric]()
    missing = dict[str, str]()
    try:
        if recipe.fid_items:
            distances = by_name(measure_distribution(training, folder))
    except BrainhiveError as error:
        missing = dict.fromkeys(("fid", "kid"), error.in_one_line)

    # metrics of all values [N]; an error instead of them is the reason for a missing
    # metric
    protocols: dict[str, Mapping[str, Any]] = {
        "noise prediction, fixed noise": losses,
        f"{recipe.sample_steps} steps": samples,
    }
    metrics = {}
    for protocol, metric_values in protocols.items():
        for name, values in metric_values.items():
            if isinstance(values, BrainhiveError):
                missing[name] = values.in_one_line
            elif len(values):
                metrics[name] = measure(
                    name,
                    [np.asarray(values)],
                    protocol=protocol,
                    seeds=(recipe.seed,),
                    split="validation",
                )

    # the papers behind it
    papers = cite(
        prior=cited(recipe.prior),
        generator=cited(recipe.generator),
        encoders=cited(recipe.encoders),
    )
    papers |= cite_data(recipe.dataset.build(recipe.paths), [])
    return Measurements(
        {ALL: metrics | distances}, missing, Facts(command="train-prior", set_up=papers)
    )


def _save(training: Training, folder: Path) -> None:
    """Save the prior and the list of pictures it learned from; those held for
    validation count as seen.
    """
    # pictures of this training
    training.prior.save(folder)
    images = training.pictures.images
    recipe = training.recipe
    name = recipe.dataset.build(recipe.paths).pictured_as
    source = recipe.continue_from
    pictures = LearnedPictures.of(
        name, images.image_ids, training.pictures.targets.pixels, images.concepts
    )
    learned = Learned(
        "last epoch",
        name,
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
    """Train with regular samples, log and trackers; return the validation losses at the
    start.
    """
    recipe = training.recipe
    launch = training.launch
    names = recipe.run.trackers if launch.is_main else ()
    with trackers.tracked(
        names, folder.path, "prior", recipe.model_dump(mode="json"), clock="step"
    ) as track:

        def after_step(step: int) -> None:
            # the last step is sampled after the training
            is_due = (
                recipe.sample_every
                and step % recipe.sample_every == 0
                and step < recipe.train.steps
            )
            if not (launch.is_main and is_due):
                return
            samples = show(training, folder, f"step-{step:06d}")
            # metrics that failed have an error instead of values [N]
            means = {
                name: float(v.mean())
                for name, v in samples.items()
                if not isinstance(v, BrainhiveError)
            }
            folder.log(step=step, samples=means)
            track({"step": step, **means})

        return train(training, folder, learner, after_step, track)
