"""Run of train-prior: training of a prior, and its metrics."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any, Self

import numpy as np

from brainhive_cli.core.base import (
    BrainhiveError,
    Line,
    MissingData,
    RecipeError,
    Table,
    console,
    find_error,
)
from brainhive_cli.core.files import Input, collect_inputs
from brainhive_cli.core.recipes import list_papers
from brainhive_cli.core.results import (
    ALL,
    Facts,
    Measurements,
    Metric,
    cite,
    index_by_name,
)
from brainhive_cli.core.runs import (
    Launch,
    OpenRun,
    Result,
    RunFolder,
    RunJob,
    Summary,
    Work,
    artifacts,
    count_processes,
    open_trackers,
)
from brainhive_cli.data.datasets import Dataset, list_dataset_papers, list_pictures
from brainhive_cli.data.stores import LearnedPictures, TrainingHistory
from brainhive_cli.data.targets import keep_if_recorded, list_store_inputs
from brainhive_cli.measurement import measure
from brainhive_cli.measurement.metrics import perceptual
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


@dataclass(frozen=True)
class PriorRun(RunJob):
    """Run of train-prior.

    Attributes:
        recipe: Settings of the run.
        dataset: Data set of the pictures.
    """

    recipe: Recipe
    dataset: Dataset
    command = "train-prior"
    summarises_together = True

    @classmethod
    def resolve(cls, recipe: Recipe) -> Self:
        """Make the run of a recipe."""
        return cls(recipe, recipe.dataset.build(recipe.paths))

    @property
    def short_name(self) -> str:
        """First part of the name of the run."""
        words = [self.dataset.name, self.recipe.prior.kind]
        if self.recipe.encoders:
            words.append(encoders.join_names(self.recipe.encoders))
        return "-".join(words)

    def summarise(self, run: OpenRun) -> Summary:
        """Train the prior, save it, and measure it.

        1. Load pictures, diffusion model and prior, and set up the optimizer.
        2. Sample once, so that missing weights are reported before the training.
        3. Train to the last step, from the newest checkpoint if there is one.
        4. Save the prior with the list of its training pictures.
        5. Measure it on held-out pictures.
        """
        recipe = self.recipe
        folder = run.folder
        launch = run.launch
        pictures = self.pictures.to_device(recipe, launch)
        with console.progress("loading the models"):
            training = Training.begin(recipe, pictures, launch)
            learner = PriorLearner(training.prior, recipe.freeze, recipe.train)
        try_sampling(training, folder)
        losses = {"validation_loss_at_start": _train(training, run, learner)}
        losses["validation_loss"] = training.validate()
        launch.run_on_main(
            lambda: folder.replace("model", partial(_save_prior, training))
        )
        measurements = _measure(training, folder, losses)
        curves = draw_loss_curve(folder)
        return Summary(measurements, curves + artifacts.read(folder))

    @cached_property
    def pictures(self) -> PriorExamples:
        """Pictures with their embeddings, for one process on the CPU."""
        # Launch of the process that lists and checks inputs.
        single_process = Launch(0, 1, "cpu")
        return PriorExamples.open(self.recipe, single_process)

    def inputs(self) -> list[Input]:
        """List the pictures, embeddings, models and networks of metrics."""
        recipe = self.recipe
        generators = [recipe.generator]
        if recipe.sampler is not None:
            generators.append(recipe.sampler)
        return collect_inputs(
            self._list_pictures,
            self._list_stores,
            self._list_encoders,
            self._list_prior,
            lambda: chain.from_iterable(config.inputs() for config in generators),
            lambda: _list_metrics(recipe),
        )

    def _list_pictures(self) -> list[Input]:
        """List the pictures, unless their latents are cached."""
        if self.recipe.cache_latents:
            return []
        return list_pictures(self.dataset, self.recipe.split)

    def _list_prior(self) -> list[Input]:
        """List the weights of the prior. A continued prior has a digest."""
        if self.recipe.continue_from is None:
            return list(self.recipe.prior.inputs())
        return [priors.find_input(self.recipe.continue_from)]

    def _list_stores(self) -> list[Input]:
        """List the stores of the embeddings, also if they are computed now."""
        recipe = self.recipe
        stores = list_store_inputs(
            self.dataset, recipe.dataset, recipe.split, recipe.encoders, recipe.paths
        )
        inputs = []
        for store in stores:
            if store.error is not None and recipe.embed_missing:
                store = replace(store, error=None, note="embedded by this command")
            elif isinstance(store.error, MissingData):
                hint = f"{store.error.hint}, or add --embed-missing"
                store = replace(store, error=MissingData(store.error.message, hint))
            inputs.append(store)
        return inputs

    def _list_encoders(self) -> list[Input]:
        """List the weights of encoders whose embeddings are computed now."""
        inputs = []
        for group in self.pictures.targets.groups:
            for config in group.configs:
                inputs += config.inputs()
        return inputs

    def _find_dims(self) -> dict[str, int] | None:
        """Find the width of each embedding, or return None if an encoder is absent.

        Raises:
            BrainhiveError: if an embedding is not a vector.
        """
        try:
            inputs = self._list_encoders()
        except MissingData:
            return None
        if any(entry.state != "here" for entry in inputs):
            return None
        return self.pictures.targets.dims

    def check(self) -> None:
        """Check that the models fit, and that each pass has a picture.

        Raises:
            BrainhiveError: if an input does not fit the recipe.
        """
        recipe = self.recipe
        settings = recipe.train
        recipe.generator.check()
        if recipe.sampler is not None:
            recipe.sampler.check()
        check_fit(recipe, self._find_dims())
        processes = count_processes(recipe.run)
        size = settings.batch_size * settings.accumulate * processes
        self.pictures.count_in_step(size, settings.accumulate, processes)

    def count_work(self) -> Work:
        """Count the steps of the training.

        Raises:
            MissingData: if embeddings are absent.
        """
        _ = self.pictures
        settings = self.recipe.train
        return Work(
            f"{self.recipe.generator.kind} at {self.recipe.resolution_px} px, "
            f"{settings.batch_size} a step in {settings.precision}",
            settings.steps,
            "steps",
        )

    def describe(self, run: OpenRun) -> Result:
        """Describe the finished run: metrics, samples and the next command."""
        path = run.folder.path
        recipe = self.recipe
        measurements = run.folder.measurements()
        for name, reason in measurements.missing.items():
            console.warn(f"no {name}: {reason}")
        rows = []
        for name, metric in measurements.overall.items():
            rows.append((name, metric.value, metric.interval_text(4), metric.n))
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


def _train(training: Training, run: OpenRun, learner: PriorLearner) -> list[float]:
    """Train the prior, with experiment trackers and regular samples.

    Returns:
        The validation losses before the first step.
    """
    recipe = training.recipe
    with open_trackers(
        run.folder.path, "prior", recipe, run.launch, clock="step"
    ) as track:
        after_step = partial(_sample_regularly, training, run.folder, track)
        return train(training, run.folder, learner, after_step, track)


def _sample_regularly(
    training: Training,
    folder: RunFolder,
    track: Callable[[Mapping[str, Any]], None],
    step: int,
) -> None:
    """Draw samples after each `recipe.sample_every` steps, and log their metrics.

    The last step is sampled after the training.
    """
    interval = training.recipe.sample_every
    if not interval or step % interval or step >= training.recipe.train.steps:
        return
    samples = save_samples(training, folder, f"step-{step:06d}")
    means = {}
    for name, values in samples.items():
        if not isinstance(values, BrainhiveError):
            means[name] = float(values.mean())
    folder.log(step=step, samples=means)
    track({"step": step, **means})


def _save_prior(training: Training, folder: Path) -> None:
    """Save the prior and its training history.

    Pictures that are held out count as seen.
    """
    training.prior.save(folder)
    images = training.pictures.images
    recipe = training.recipe
    dataset_name = recipe.dataset.build(recipe.paths).pictured_as
    history = TrainingHistory(
        "last epoch",
        dataset_name,
        has_all_subjects=True,
        split=images.split,
        stimulus_kinds=(recipe.dataset.kind.replace("_", "-"),),
        pictures=LearnedPictures.from_image_ids(
            dataset_name,
            images.image_ids,
            training.pictures.targets.pixels,
            images.concepts,
        ),
    )

    # add the history of the prior that was continued
    if recipe.continue_from is not None:
        start_folder = priors.describe(recipe.continue_from).folder
        if start_folder is not None:
            history = history.inherit(TrainingHistory.read(start_folder))
    history.save(folder)


def _measure(
    training: Training, folder: RunFolder, losses: Mapping[str, list[float]]
) -> Measurements:
    """Draw the last samples, and measure the prior on held-out pictures.

    The result has reasons for missing metrics, and papers.
    """
    recipe = training.recipe
    samples: Mapping[str, Any] = {}
    if training.launch.is_main:
        samples = save_samples(training, folder, LAST)

    # without FID and KID, the other metrics remain
    distances: dict[str, Metric] = {}
    missing: dict[str, str] = {}
    try:
        if recipe.fid_items:
            distances = index_by_name(measure_distribution(training, folder))
    except BrainhiveError as error:
        missing = dict.fromkeys(("fid", "kid"), error.in_one_line)

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

    # papers of the prior, the generator, the encoders and the data set
    dataset = recipe.dataset.build(recipe.paths)
    dataset_papers = list_dataset_papers([dataset.recorded_as, dataset.pictured_as])
    papers = cite(
        prior=list_papers(recipe.prior),
        generator=list_papers(recipe.generator),
        encoders=list_papers(recipe.encoders),
        dataset=dataset_papers,
    )
    return Measurements(
        {ALL: metrics | distances}, missing, Facts(command="train-prior", set_up=papers)
    )


def _list_metrics(recipe: Recipe) -> list[Input]:
    """List the networks that compute metrics. Only a wrong key is an error."""
    inputs: list[Input] = []
    if recipe.sample_items:
        for config in recipe.similarity:
            inputs += config.inputs()
        if recipe.lpips:
            inputs += perceptual.find_inputs("LPIPS")
    if recipe.fid_items:
        error = find_error(partial(perceptual.require_distances, recipe.fid_items))
        inputs.append(Input("FID and KID", error=error))
        if recipe.fid_features == INCEPTION:
            inputs += perceptual.find_inputs("FID")
        else:
            inputs += encoders.resolve(recipe.fid_features).inputs()
    metric_inputs = []
    for entry in inputs:
        is_optional = not isinstance(entry.error, RecipeError)
        metric_inputs.append(replace(entry, is_optional=is_optional))
    return metric_inputs
