"""The run of train-prior: a prior is trained on a frozen diffusion model, then measured
on pictures kept from training.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self

import numpy as np

from brainhive_cli.core import artifacts, console
from brainhive_cli.core.command import Input, Result, Work, collect_inputs
from brainhive_cli.core.errors import (
    BrainhiveError,
    Line,
    MissingData,
    RecipeError,
    find_error,
)
from brainhive_cli.core.facts import Facts, cite
from brainhive_cli.core.jobs import OpenRun, RunJob, Summary
from brainhive_cli.core.launch import Launch, count_processes
from brainhive_cli.core.measurements import ALL, Measurements, Metric, index_by_name
from brainhive_cli.core.parts import list_papers
from brainhive_cli.core.tables import Table
from brainhive_cli.data.datasets import PUBLISHED_FACTS, Dataset, list_pictures
from brainhive_cli.data.stores.learned import LearnedPictures, TrainingHistory
from brainhive_cli.data.targets.encoder_stores import list_store_inputs
from brainhive_cli.data.targets.next_commands import keep_if_recorded
from brainhive_cli.measurement.metrics import perceptual
from brainhive_cli.measurement.statistics import measure
from brainhive_cli.models import encoders, priors
from brainhive_cli.training.prior.examples import PriorExamples
from brainhive_cli.training.prior.loop import (
    LAST,
    PriorLearner,
    Training,
    check_fit,
    train,
)
from brainhive_cli.training.prior.recipe import INCEPTION, Recipe
from brainhive_cli.training.prior.samples import (
    draw_loss_curve,
    measure_distribution,
    save_samples,
    try_sampling,
)

ALONE = Launch(0, 1, "cpu")
"""The process that lists and checks."""


@dataclass(frozen=True)
class PriorRun(RunJob):
    """Run of train-prior, from the newest checkpoint if there is one.

    Attributes:
        recipe: Its settings.
        dataset: Data set of the pictures.
    """

    recipe: Recipe
    dataset: Dataset
    summarises_together = True

    @classmethod
    def resolve(cls, recipe: Recipe) -> Self:
        """Build the data set of a recipe."""
        return cls(recipe, recipe.dataset.build(recipe.paths))

    @property
    def label(self) -> str:
        """First part of the run's name."""
        return f"{self.dataset.name}-{self.recipe.prior.kind}"

    @cached_property
    def pictures(self) -> PriorExamples:
        """Pictures with their embeddings, as one process on the CPU sees them."""
        return PriorExamples.open(self.recipe, ALONE)

    def inputs(self) -> list[Input]:
        """List the pictures with their embeddings, what is trained, and the networks of
        metrics.
        """
        recipe = self.recipe
        parts = [recipe.generator]
        if recipe.sampler is not None:
            parts.append(recipe.sampler)

        def list_files() -> list[Input]:
            # latents that are kept stand for the pictures
            if recipe.cache_latents:
                return []
            return list_pictures(self.dataset, recipe.split)

        def list_prior() -> list[Input]:
            # a digest, since a name may mean another prior later
            if (source := recipe.continue_from) is None:
                return list(recipe.prior.inputs())
            return [priors.find_input(source)]

        return collect_inputs(
            list_files,
            self._list_stores,
            self._list_encoders,
            list_prior,
            lambda: [one for part in parts for one in part.inputs()],
            lambda: _list_metrics(recipe),
        )

    def _list_stores(self) -> list[Input]:
        """List the embeddings, those that are computed now as well."""
        recipe = self.recipe
        listed = []
        for one in list_store_inputs(
            self.dataset, recipe.dataset, recipe.split, recipe.encoders, recipe.paths
        ):
            if one.error is not None and recipe.embed_missing:
                one = replace(one, error=None, note="embedded by this command")
            elif isinstance(one.error, MissingData):
                way = f"{one.error.hint}, or add --embed-missing"
                one = replace(one, error=MissingData(one.error.message, way))
            listed.append(one)
        return listed

    def _list_encoders(self) -> list[Input]:
        """List what the encoders read whose embeddings are computed now."""
        groups = self.pictures.targets.groups
        configs = [config for group in groups for config in group.configs]
        return [one for config in configs for one in config.inputs()]

    def _find_dims(self) -> dict[str, int] | None:
        """Find D of each embedding, in its store or by its encoder; None where that
        is not here.

        Raises:
            BrainhiveError: if an embedding is no vector.
        """
        try:
            is_here = all(one.state == "here" for one in self._list_encoders())
        except MissingData:  # which is listed
            return None
        return self.pictures.targets.dims if is_here else None

    def check(self) -> None:
        """Put generator, prior and sampler together by their shapes, and count the
        pictures of a step.
        """
        recipe, train = self.recipe, self.recipe.train
        recipe.generator.check()
        if recipe.sampler is not None:
            recipe.sampler.check()
        check_fit(recipe, self._find_dims())
        # each pass of each process needs a picture
        processes = count_processes(recipe.run)
        size = train.batch_size * train.accumulate * processes
        self.pictures.count_in_step(size, train.accumulate, processes)

    def count_work(self) -> Work:
        """Count the steps, by the kind of a step.

        Raises:
            MissingData: naming the embeddings that are absent.
        """
        _ = self.pictures
        train = self.recipe.train
        kind = f"{self.recipe.generator.kind} at {self.recipe.resolution_px} px"
        return Work(
            f"{kind}, {train.batch_size} a step in {train.precision}",
            train.steps,
            "steps",
        )

    def summarise(self, run: OpenRun) -> Summary:
        """Train to the last step, save the prior, and measure it."""
        pictures = self.pictures.to_device(self.recipe, run.launch)
        measurements = _train(self.recipe, pictures, run)
        return Summary(
            measurements, [*draw_loss_curve(run.folder), *artifacts.read(run.folder)]
        )

    def describe(self, run: OpenRun) -> Result:
        """Show the metrics, the sheet of samples and the next command."""
        path, recipe = run.folder.path, self.recipe
        measurements = run.folder.measurements()
        for name, reason in measurements.missing.items():
            console.warn(f"no {name}: {reason}")
        rows = [
            (name, m.value, m.interval_text(4), m.n)
            for name, m in measurements.overall.items()
        ]
        table = Table("prior", ("metric", "value", "95 % CI", "n"), rows)
        sheet = path / "samples" / f"{LAST}.png"
        hint = Line(
            "train-align",
            ("dataset", keep_if_recorded(recipe.dataset, recipe.paths)),
            ("encoders", recipe.encoders),
            ("prior", path / "model"),
        )
        files = {"samples": sheet} if sheet.is_file() else {}
        return Result(path, (table,), measurements, files, hint)


def _list_metrics(recipe: Recipe) -> list[Input]:
    """List the networks of the metrics, which are left out without them."""
    # without sample items nothing is drawn that could be compared
    similar = recipe.similarity if recipe.sample_items else []
    inputs = [one for config in similar for one in config.inputs()]
    if recipe.lpips and recipe.sample_items:
        inputs += perceptual.find_inputs("LPIPS")
    if recipe.fid_items:
        # of too few pictures a distance means nothing
        enough = partial(perceptual.require_distances, recipe.fid_items)
        inputs.append(Input("FID and KID", error=find_error(enough)))
        if recipe.fid_features == INCEPTION:
            inputs += perceptual.find_inputs("FID")
        else:
            inputs += encoders.resolve(recipe.fid_features).inputs()
    # metrics without their network are left out, but a wrong key is an error
    return [
        replace(one, is_optional=not isinstance(one.error, RecipeError))
        for one in inputs
    ]


def _train(recipe: Recipe, pictures: PriorExamples, run: OpenRun) -> Measurements:
    """Train, save the prior, and measure it on pictures kept from training."""
    folder, launch = run.folder, run.launch
    # try the sampler before training, so that its errors come first
    with console.progress("loading what is trained"):
        training = Training.begin(recipe, pictures, launch)
        learner = PriorLearner(training.prior, recipe.freeze, recipe.train)
    try_sampling(training, folder)
    at_start = _learn(training, run, learner)

    # save and measure what was learned
    losses = {
        "validation_loss_at_start": at_start,
        "validation_loss": training.validate(),
    }
    launch.run_on_main(
        lambda: folder.replace("model", lambda part: _save(training, part))
    )
    samples = save_samples(training, folder, LAST) if launch.is_main else {}
    # FID and KID need many pictures; their failure leaves the other metrics
    distances = dict[str, Metric]()
    missing = dict[str, str]()
    try:
        if recipe.fid_items:
            distances = index_by_name(measure_distribution(training, folder))
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
    dataset = recipe.dataset.build(recipe.paths)
    names = dict.fromkeys([dataset.recorded_as, dataset.pictured_as])
    published = [PUBLISHED_FACTS[name] for name in names if name in PUBLISHED_FACTS]
    papers = cite(
        prior=list_papers(recipe.prior),
        generator=list_papers(recipe.generator),
        encoders=list_papers(recipe.encoders),
        dataset=[key for known in published for key in known.cites],
    )
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
    pictures = LearnedPictures.from_image_ids(
        name, images.image_ids, training.pictures.targets.pixels, images.concepts
    )
    learned = TrainingHistory(
        "last epoch",
        name,
        has_all_subjects=True,
        split=images.split,
        stimulus_kinds=(recipe.dataset.kind.replace("_", "-"),),
        pictures=pictures,
    )

    # and of the prior that it continued from
    if source is not None and (before := priors.describe(source).folder) is not None:
        learned = learned.inherit(TrainingHistory.read_folder(before))
    learned.write_folder(folder)


def _learn(training: Training, run: OpenRun, learner: PriorLearner) -> list[float]:
    """Train with regular samples, log and trackers; return the validation losses at the
    start.
    """
    recipe = training.recipe
    folder, launch = run.folder, run.launch
    with run.track("prior", recipe, launch, clock="step") as track:

        def after_step(step: int) -> None:
            # the last step is sampled after the training
            is_due = (
                recipe.sample_every
                and step % recipe.sample_every == 0
                and step < recipe.train.steps
            )
            if not (launch.is_main and is_due):
                return
            samples = save_samples(training, folder, f"step-{step:06d}")
            # metrics that failed have an error instead of values [N]
            means = {
                name: float(v.mean())
                for name, v in samples.items()
                if not isinstance(v, BrainhiveError)
            }
            folder.log(step=step, samples=means)
            track({"step": step, **means})

        return train(training, folder, learner, after_step, track)
