"""Models, stimuli and settings from which the command reconstruct generates media."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, Self, runtime_checkable

import torch

from brainhive_cli.core.base import MissingData, RecipeError
from brainhive_cli.core.files import Input
from brainhive_cli.core.results import PRIOR_OF_OTHERS, describe_signals, merge_caveats
from brainhive_cli.core.runs import RunFolder, Work
from brainhive_cli.data.datasets import list_pictures, list_stimuli, make_grouping
from brainhive_cli.data.media import StimulusSet
from brainhive_cli.data.stores import DATASET_SEPARATOR, TrainingHistory
from brainhive_cli.evaluation.reconstruction.baselines import BASELINES
from brainhive_cli.evaluation.reconstruction.generation import (
    CELL_INDEPENDENT_SOURCES,
    TRAIN,
    DecodedSet,
)
from brainhive_cli.evaluation.reconstruction.metric_parts import (
    choose_metrics,
    list_metric_inputs,
)
from brainhive_cli.evaluation.reconstruction.recipe import (
    DEFAULT_STRENGTH,
    Recipe,
    SourceName,
)
from brainhive_cli.evaluation.reconstruction.scoring import (
    GeneratedSet,
    Stimuli,
    TaskScores,
    collect_decoded_annotations,
    collect_stimulus_annotation,
)
from brainhive_cli.models import Conditioning, Decoded, priors
from brainhive_cli.models.encoders import IMPORTED
from brainhive_cli.models.generators import NeedsTextEncoders
from brainhive_cli.training.alignment import Cell, find_recipe_name
from brainhive_cli.training.alignment.trained import (
    TestJob,
    TrainedModels,
    check_test_set,
    check_tokens,
    open_model,
    write_training,
)

PRIOR_KEYS = {"prior", "adapter"}
"""Keys of the recipe that choose the prior."""
RUN_KEYS = PRIOR_KEYS | {"align_run", "dataset", "subjects", "copies"}
"""Keys that choose the run that decodes."""


@runtime_checkable
class HasCaveats(Protocol):
    """Config of a generator that limits what its media can show."""

    @property
    def caveats(self) -> tuple[str, ...]:
        """Caveats of all metrics of its media."""
        ...


@runtime_checkable
class BuildsShapes(Protocol):
    """Config of a generator that can be built without its weights."""

    def build_shapes(self) -> Any:
        """Build the generator with parameters that have only shapes."""
        ...


@runtime_checkable
class RequiresWidth(Protocol):
    """Generator that accepts only embeddings of a certain width."""

    def require_width(self, width: int, /) -> None:
        """Raise an error for embeddings of another width."""
        ...


@dataclass(frozen=True)
class Job(TestJob):
    """Models, stimuli and prior that generate media.

    Attributes:
        recipe: Settings.
        prior: Prior on the CPU.
        cells: Cells (trained models), each with a subject that it is tested on.
        images: Stimuli. If their files are absent, as many placeholders as the data set
            has published stimuli.
        sources: Sources of the media.
    """

    recipe: Recipe
    prior: Any
    cells: list[tuple[Cell, int]]
    images: StimulusSet
    sources: list[SourceName]

    @classmethod
    def resolve(cls, recipe: Recipe, prior: Any, align: TrainedModels) -> Self:
        """Choose the cells that decode, and the stimuli.

        Args:
            recipe: Recipe without a folder to score.
            prior: Prior that `priors.load` returned.
            align: Run that `find_align_run` returned.

        Raises:
            MissingData: if the run has no cell of a seed.
            RecipeError: if settings contradict the stimuli or the folds.
        """
        # cells of the requested seeds, with each subject that they are tested on
        available_seeds = sorted({cell.seed for cell in align.cells})
        seeds = recipe.seeds or [align.cells[0].seed]
        absent_seeds = [seed for seed in seeds if seed not in available_seeds]
        if absent_seeds:
            raise MissingData(
                f"run {align.folder.path} has no cell of seeds {absent_seeds}",
                f"it has seeds {available_seeds}",
            )
        cells = []
        for cell in align.cells:
            if cell.seed in seeds:
                for subject in cell.tested_on:
                    cells.append((cell, subject))

        # refuse pictures that the model, or the model of another fold, has seen
        holdout = align.dataset.holdout
        images = list_stimuli(align.dataset, holdout.name_stored_split(recipe.split))
        if holdout.has_seen_pictures:
            raise RecipeError(
                f"{align.name} holds out {holdout.by} of seen pictures, and "
                "reconstruct needs pictures that were held out",
                "use a run with dataset.holdout.by=pictures; eval-retrieval tells "
                "which of the seen pictures was shown",
            )
        folds = {cell.fold for cell, _ in cells}
        if len(folds) > 1 and "mean_embedding" in (recipe.sources or ()):
            raise RecipeError(
                "mean_embedding averages pictures that other folds hold out",
                "sources=[brain,images,shuffled]",
            )

        # `best_of` encodes the generated pictures
        if recipe.best_of > 1:
            if images.medium == "clip":
                raise RecipeError(
                    "best_of compares pictures, and the stimuli are clips", "best_of=1"
                )
            for encoder in align.encoders:
                if encoder.kind == IMPORTED:
                    raise RecipeError(
                        f"best_of encodes generated pictures, and {encoder.name} was "
                        "imported as vectors",
                        "best_of=1",
                    )

        # Sources of each medium, unless the recipe names them.
        default_sources: dict[str, tuple[SourceName, ...]] = {
            "picture": ("brain", "nearest", "mean"),
            "clip": ("brain", "nearest", "still"),
        }
        # store the values of defaults in the recipe of the run
        sources = recipe.sources or list(default_sources[images.medium])
        resolved = recipe.model_copy(
            update={"align_run": align.reference, "sources": sources}
        )
        return cls(resolved, align, prior, cells, images, sources)

    def count_work(self) -> Work:
        """Count the media to generate."""
        recipe = self.recipe

        # sets of heads: a set for each model and subject, or a single set for all
        subjects = {(cell.name_without_fold, subject) for cell, subject in self.cells}
        n_sets = 0
        for source in set(self.sources) - set(BASELINES):
            n_sets += 1 if source in CELL_INDEPENDENT_SOURCES else len(subjects)

        # `zeroed` has no heads by which candidates could be chosen
        n_zeroed = int("zeroed" in self.sources)
        n_candidates = (n_sets - n_zeroed) * recipe.best_of + n_zeroed
        n_items = min(len(self.images), recipe.items or len(self.images))
        kind = (
            f"{recipe.generator.kind} at {recipe.resolution_px} px in {recipe.steps} "
            "steps"
        )
        n_media = n_candidates * n_items * recipe.repeats
        return Work(kind, n_media, "pictures", cells=n_sets)

    def inputs(self) -> list[Input]:
        """List the prior, the run, the stimuli, and the weights."""
        recipe = self.recipe
        dataset = self.align.dataset
        # these sources start from stored embeddings
        splits = []
        if "mean_embedding" in self.sources:
            splits.append(TRAIN)
        if "images" in self.sources:
            splits.append(recipe.split)
        stored_split = dataset.holdout.name_stored_split(recipe.split)
        metrics = choose_metrics(self.images.medium, recipe.metrics)

        inputs = [priors.find_input(recipe.prior.source)]
        inputs += self.align.list_inputs(splits)
        inputs += list_pictures(dataset, stored_split)
        inputs += list_metric_inputs(metrics, recipe.metric_encoders)
        inputs += recipe.generator.inputs()
        if recipe.has_prompt and isinstance(recipe.generator, NeedsTextEncoders):
            inputs += recipe.generator.text_inputs()
        return inputs

    def check(self) -> None:
        """Check that model, signals, prior and generator fit, without their weights."""
        recipe = self.recipe
        recipe.generator.check()
        # without a fuser, the heads of the model are compared
        compares_heads = self.prior.fuser is None
        check_test_set(self.tests, [recipe.split], compares=compares_heads)
        _ = self._weightless_generator

    @cached_property
    def _weightless_generator(self) -> Any:
        """Generator without weights, to check that the prior fits. None if unsupported.

        Raises:
            BrainhiveError: if the prior or the recipe does not fit the generator.
        """
        recipe = self.recipe
        prior = self.prior
        if not isinstance(recipe.generator, BuildsShapes):
            return None
        generator = recipe.generator.build_shapes()
        generator.check_size(recipe.resolution_px)
        prior.attach(generator)

        # make a condition from zeros if its shape or start must be checked
        has_start = recipe.strength != DEFAULT_STRENGTH
        checks_width = isinstance(generator, RequiresWidth)
        if has_start or (checks_width and prior.fuser is None):
            heads = self.align.open_first().layout.heads.items()
            tensors = {name: torch.zeros(1, *head.shape) for name, head in heads}
            with torch.inference_mode():
                conditioning = prior.condition(Decoded(tensors), [0])
            if has_start and self.sources != ["zeroed"]:
                require_start(conditioning)
            if checks_width and conditioning.embeddings is not None:
                generator.require_width(conditioning.embeddings.shape[-1])
        return generator

    @cached_property
    def caveats(self) -> list[str]:
        """Caveats of the brain models, the prior and the generator."""
        # data sets on which the prior was trained
        align = self.align
        source = self.recipe.prior.source
        prior = priors.describe(source)
        dataset = align.dataset.pictured_as
        if source.startswith("demo:"):
            # names of demo data sets also hold their noise and number of concepts
            is_trained_on_others = f"{dataset}-".partition("-")[0] != "demo"
        elif prior.folder:
            history = TrainingHistory.read(prior.folder)
            datasets = history.dataset.split(DATASET_SEPARATOR)
            is_trained_on_others = datasets != [""] and dataset not in datasets
        else:
            is_trained_on_others = False

        caveats = list(self.tests.caveats) + list(prior.caveats)
        if is_trained_on_others:
            caveats.append(PRIOR_OF_OTHERS)
        if isinstance(self.recipe.generator, HasCaveats):
            caveats += self.recipe.generator.caveats
        return merge_caveats(caveats)

    def describe_models(self) -> str:
        """Describe the brain models and their signals."""
        align = self.align
        words = [
            f"{align.mode} {align.dataset.name}",
            align.dataset.holdout.description,
        ]
        words += describe_signals(self.tests.set_up)
        return ", ".join(filter(None, words))

    def make_generated_set(
        self, decoded_set: DecodedSet, models: str, folder: RunFolder
    ) -> GeneratedSet:
        """Describe the files to generate from decoded heads, and score other heads.

        Other heads are captions, masks and concepts, which need no generator.
        """
        files = {}
        for image_id in decoded_set.image_ids:
            files[image_id] = [
                folder.path / decoded_set.name_file(image_id, repeat)
                for repeat in range(self.recipe.repeats)
            ]

        # decoded captions, masks and concepts
        images = self.images
        decoded = decoded_set.decoded
        annotations = {}
        task_scores = TaskScores()
        if decoded is not None:
            if images.medium == "clip":
                annotations = collect_decoded_annotations(
                    decoded, decoded_set.image_ids, images.label_names
                )
            task_scores = TaskScores.from_decoded(
                decoded, images, decoded_set.image_ids
            )

        generation = self.recipe.describe_generation(decoded is not None)
        return GeneratedSet(
            decoded_set.source,
            decoded_set.name,
            seeds=(decoded_set.cell.seed,) if decoded_set.cell else (),
            files=files,
            subject=decoded_set.subject,
            description=f"{generation}, {models}",
            caveats=self.caveats,
            annotations=annotations,
            task_scores=task_scores,
        )

    def make_stimuli(self) -> Stimuli:
        """Make the stimuli by image id, with their labels and annotations."""
        images = self.images
        rows = {image_id: row for row, image_id in enumerate(images.image_ids)}
        label_of = dict(zip(images.image_ids, images.concepts, strict=True))
        grouping = make_grouping(self.align.dataset, images.image_ids, images.concepts)
        has_folds = len({cell.fold for cell, _ in self.cells}) > 1
        return Stimuli(
            open=lambda image_id: images.open(rows[image_id]),
            get_label=label_of.__getitem__,
            get_annotation=lambda image_id: collect_stimulus_annotation(
                images, rows[image_id]
            ),
            grouping=replace(grouping, has_folds=has_folds),
        )


def require_start(conditioning: Conditioning) -> None:
    """Raise an error if sampling cannot start from the condition, as `strength` needs.

    Raises:
        RecipeError: if the condition has no start.
    """
    if conditioning.start is None:
        raise RecipeError(
            "strength has no effect: the prior gives sampling no start",
            "leave strength out",
        )


def find_align_run(recipe: Recipe, prior: Any) -> TrainedModels:
    """Find the run whose models decode the signals, by default the newest run.

    Args:
        recipe: Recipe of the user.
        prior: Prior that `priors.load` returned.

    Raises:
        MissingData: if there is no run, or the prior takes other tokens. The hint is
            the command that trains a run.
    """
    source = recipe.prior.source
    paths = recipe.paths
    # any run for this prior would do, unless the recipe names a certain run
    name = recipe.align_run
    is_any_run = (
        name is None or find_recipe_name(name, paths.under_home("runs")) is not None
    )
    try:
        align = open_model(
            recipe.align_run, paths, recipe.dataset, recipe.subjects, recipe.copies
        )
    except MissingData as error:
        if not is_any_run or prior.fuser is None:
            raise
        raise MissingData(
            error.message, write_training(source, paths, recipe.dataset)
        ) from None
    if prior.fuser is not None:
        check_tokens(align, prior, source, recipe.dataset or align.dataset_config)

    # stimuli that the prior was trained on also count as seen in training
    folder = priors.describe(source).folder
    if folder is None:
        return align
    history = TrainingHistory.read(folder)
    if not len(history.pictures):
        return align
    return replace(align, sources={f"the prior {source}": history})
