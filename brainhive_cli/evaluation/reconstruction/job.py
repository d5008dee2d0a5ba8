"""The job of reconstruct: the cells that decode, the stimuli, and the prior."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import torch

from brainhive_cli.core.command import Input, Work
from brainhive_cli.core.errors import MissingData, RecipeError
from brainhive_cli.core.facts import describe_signals
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import PRIOR_OF_OTHERS, extend_protocol
from brainhive_cli.core.runs import RunFolder, split_variant
from brainhive_cli.data.datasets import list_pictures, list_stimuli, make_grouping
from brainhive_cli.data.media.stimuli import StimulusSet
from brainhive_cli.data.stores.learned import DATASET_SEPARATOR, TrainingHistory
from brainhive_cli.evaluation.reconstruction.folders import BASELINES, DEFAULT_SOURCES
from brainhive_cli.evaluation.reconstruction.generation import (
    CELL_INDEPENDENT_SOURCES,
    TRAIN,
    DecodedSet,
)
from brainhive_cli.evaluation.reconstruction.metric_parts import (
    choose_metrics,
    list_metric_inputs as inputs_of_metrics,
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
from brainhive_cli.models import priors
from brainhive_cli.models.encoders import IMPORTED
from brainhive_cli.models.heads import Conditioning, Decoded
from brainhive_cli.training.alignment.cells import Cell
from brainhive_cli.training.alignment.references import find_recipe_name
from brainhive_cli.training.alignment.trained.run import (
    TrainedRun,
    check_tokens,
    open_model,
    refuse_sweep,
    write_training,
)

PRIOR_KEYS = {"prior", "adapter"}
"""Keys of the recipe that choose the prior."""
RUN_KEYS = PRIOR_KEYS | {"align_run", "dataset", "subjects", "copies"}
"""Keys that choose the run that decodes."""


@dataclass(frozen=True)
class Job:
    """Media that reconstruct generates: cells, stimuli, sources and the prior.

    Attributes:
        recipe: Its settings.
        prior: On the CPU.
        align: The run or model that decodes.
        cells: The cells, each with a subject that it is tested on.
        images: The stimuli; where their files are absent, as many as are published
            stand for them.
        sources: What media are made from.
    """

    recipe: Recipe
    prior: Any
    align: TrainedRun
    cells: list[tuple[Cell, int]]
    images: StimulusSet
    sources: list[SourceName]

    @classmethod
    def resolve(cls, recipe: Recipe, prior: Any, align: TrainedRun) -> Self:
        """Choose the cells that decode, and the stimuli.

        Args:
            recipe: What the user wrote; no sweep, and no folder to score.
            prior: What `priors.load` returns.
            align: What `find_run` returns.
        """
        # the cells of the seeds that the recipe names, with each subject that they are
        # tested on
        known_seeds = sorted({cell.seed for cell in align.cells})
        seeds = recipe.seeds or [align.cells[0].seed]
        if absent := [seed for seed in seeds if seed not in known_seeds]:
            raise MissingData(
                f"run {align.folder.path} has no cell of seeds {absent}",
                f"it has seeds {known_seeds}",
            )
        cells = [
            (cell, subject)
            for cell in align.cells
            if cell.seed in seeds
            for subject in cell.tested_on
        ]

        # settings that contradict the stimuli or the folds
        images = list_stimuli(
            align.dataset, align.dataset.holdout.name_stored_split(recipe.split)
        )
        is_folded = len({cell.fold for cell, _ in cells}) > 1
        if (holdout := align.dataset.holdout).has_seen_pictures:
            raise RecipeError(
                (
                    f"{align.name} holds out {holdout.by} of seen pictures, and "
                    "drawings are of new ones"
                ),
                (
                    "a run with dataset.holdout.by=pictures; eval-retrieval says which "
                    "of the seen ones it was"
                ),
            )
        if is_folded and "mean_embedding" in (recipe.sources or ()):
            raise RecipeError(
                "mean_embedding averages pictures that other folds hold out",
                "sources=[brain,images,shuffled]",
            )
        # encoders make the heads of pictures
        if recipe.best_of > 1 and images.medium == "clip":
            raise RecipeError(
                "best_of compares pictures, and the stimuli are clips", "best_of=1"
            )
        encoders = align.models[0].encoders
        if recipe.best_of > 1 and (
            imported := [config.name for config in encoders if config.kind == IMPORTED]
        ):
            raise RecipeError(
                (
                    f"best_of encodes what is drawn, and {imported[0]} was imported as "
                    "vectors"
                ),
                "best_of=1",
            )

        # the recipe of the run repeats what defaults have chosen
        sources = recipe.sources or [*DEFAULT_SOURCES[images.medium]]
        chosen = {"align_run": align.reference, "sources": sources}
        return cls(
            recipe.model_copy(update=chosen), prior, align, cells, images, sources
        )

    def count_work(self) -> Work:
        """Count the media to generate, by the generator and its steps."""
        recipe = self.recipe
        kind = (
            f"{recipe.generator.kind} at {recipe.resolution_px} px in {recipe.steps} "
            "steps"
        )

        # sets of heads: trainings with a subject each, and sources that are of no cell
        generated = {*self.sources} - {*BASELINES}
        trainings = {(cell.name_without_fold, subject) for cell, subject in self.cells}
        sets = sum(
            1 if source in CELL_INDEPENDENT_SOURCES else len(trainings)
            for source in generated
        )

        # candidates of each item; nothing is decoded of `zeroed` that could choose
        items = min(len(self.images), recipe.items or len(self.images))
        unchosen = int("zeroed" in self.sources)
        candidates = (sets - unchosen) * recipe.best_of + unchosen
        return Work(kind, candidates * items * recipe.repeats, "pictures", cells=sets)

    def inputs(self) -> list[Input]:
        """List the prior, the run and what it decodes, the stimuli, and the weights of
        generator and metrics.
        """
        recipe = self.recipe
        # sources that start from stored embeddings need their split
        splits = {"mean_embedding": TRAIN, "images": recipe.split}
        dataset = self.align.dataset
        stored_split = dataset.holdout.name_stored_split(recipe.split)
        metrics = choose_metrics(self.images.medium, recipe.metrics)
        return [
            priors.find_input(recipe.prior.source),
            *self.align.inputs(
                [split for source, split in splits.items() if source in self.sources]
            ),
            *list_pictures(dataset, stored_split),
            *inputs_of_metrics(metrics, recipe.metric_encoders),
            *recipe.generator.inputs(),
            *(self._list_text_encoders() if recipe.has_prompt else ()),
        ]

    def _list_text_encoders(self) -> list[Input]:
        # some generators read no text, or say what they need in `inputs`
        listed: list[Input] = getattr(self.recipe.generator, "text_inputs", list)()
        return listed

    def check(self) -> None:
        """Refuse models, signals, prior and generator that do not fit each other; of
        the generator the shapes are known, and no weights are read.
        """
        recipe = self.recipe
        recipe.generator.check()
        # without a fuser, heads are compared
        compares = self.prior.fuser is None
        self.align.check([recipe.split], compares=compares)
        _ = self._weightless_generator

    @cached_property
    def _weightless_generator(self) -> Any:
        """The generator by its shapes, with the prior, as far as they fit; None of one
        that has no shapes without its weights.
        """
        recipe, prior = self.recipe, self.prior
        build_shapes = getattr(recipe.generator, "build_shapes", None)
        if build_shapes is None:
            return None
        generator = build_shapes()
        generator.check_size(recipe.resolution_px)
        prior.attach(generator)

        # conditions by the heads of one signal, where these decide whether they fit
        require_width = getattr(generator, "require_width", None)
        has_start = recipe.strength != DEFAULT_STRENGTH
        if has_start or (require_width is not None and prior.fuser is None):
            heads = self.align.models[0].layout.heads.items()
            tensors = {name: torch.zeros(1, *head.shape) for name, head in heads}
            with torch.inference_mode():
                conditioning = prior.condition(Decoded(tensors), [0])
            if has_start and self.sources != ["zeroed"]:
                require_start(conditioning)
            if require_width is not None and conditioning.embeddings is not None:
                require_width(conditioning.embeddings.shape[-1])
        return generator

    def prepare(self, launch: Launch) -> None:
        """Make the signal stores that are missing."""
        self.align.prepare_signals(launch)

    def describe_models(self) -> str:
        """Say what a reader must know of the brain models and the prior."""
        # whether the prior learned from pictures of another data set
        align = self.align
        split = self.recipe.split
        source = self.recipe.prior.source
        prior = priors.describe(source)
        drawn = align.dataset.pictured_as
        # whose noise and number of concepts are part of a data set's name
        if source.startswith("demo:"):
            is_of_others = f"{drawn}-".partition("-")[0] != "demo"
        else:
            learned_on = (
                TrainingHistory.read_folder(prior.folder).dataset.split(
                    DATASET_SEPARATOR
                )
                if prior.folder
                else [""]
            )
            is_of_others = learned_on != [""] and drawn not in learned_on

        # caveats of all models, and the signals in words
        caveats = [
            *align.caveats(split),
            *prior.caveats,
            *([PRIOR_OF_OTHERS] if is_of_others else []),
            *getattr(self.recipe.generator, "caveats", ()),
        ]
        words = [
            *filter(
                None,
                [
                    f"{align.mode} {align.dataset.name}",
                    align.dataset.holdout.description,
                ],
            )
        ]
        return extend_protocol(
            ", ".join([*words, *describe_signals(align.set_up(split))]), caveats
        )

    def make_generated_set(
        self, decoded_set: DecodedSet, models: str, folder: RunFolder
    ) -> GeneratedSet:
        """Name the files of a set in the run's folder, and describe how they and the
        `models` were made.
        """
        # decoded captions, masks and concepts
        ids = decoded_set.image_ids
        decoded = decoded_set.decoded
        images = self.images
        recipe = self.recipe
        if decoded is None:
            annotations, tasks = {}, TaskScores()
        else:
            annotations = (
                collect_decoded_annotations(decoded, ids, images.label_names)
                if images.medium == "clip"
                else {}
            )
            tasks = TaskScores.from_decoded(decoded, images, ids)

        return GeneratedSet(
            decoded_set.source,
            decoded_set.name,
            (decoded_set.cell.seed,) if decoded_set.cell else (),
            {
                image_id: [
                    folder.path / decoded_set.name_file(image_id, n)
                    for n in range(recipe.repeats)
                ]
                for image_id in ids
            },
            decoded_set.subject,
            f"{recipe.describe_generation(decoded is not None)}, {models}",
            annotations=annotations,
            task_scores=tasks,
        )

    def make_stimuli(self) -> Stimuli:
        """Open what was seen, by image id."""
        images = self.images
        rows = {image_id: row for row, image_id in enumerate(images.image_ids)}
        return Stimuli(
            lambda image_id: images.open(rows[image_id]),
            dict(zip(images.image_ids, images.concepts, strict=True)).__getitem__,
            lambda image_id: collect_stimulus_annotation(images, rows[image_id]),
            replace(
                make_grouping(self.align.dataset, images.image_ids, images.concepts),
                has_folds=len({cell.fold for cell, _ in self.cells}) > 1,
            ),
        )


def require_start(conditioning: Conditioning) -> None:
    """Refuse a strength where the prior gives nothing to start from."""
    if conditioning.start is None:
        raise RecipeError(
            "strength has no effect: the prior gives nothing to start from",
            "leave strength out",
        )


def find_align_run(recipe: Recipe, prior: Any) -> TrainedRun:
    """Find the run that decodes: the one named, or else the newest; it must have the
    prior's tokens.

    Args:
        recipe: What the user wrote.
        prior: What `priors.load` returns.

    Raises:
        MissingData: if there is none, or its tokens are not the prior's; it says what
            trains one.
    """
    source = recipe.prior.source
    paths = recipe.paths
    name, variant = split_variant(recipe.align_run)
    # a run that the user did not name can be replaced: the error says what trains one
    is_newest = not variant and (
        name is None or find_recipe_name(name, paths.under_home("runs")) is not None
    )

    try:
        align = open_model(
            recipe.align_run, paths, recipe.dataset, recipe.subjects, recipe.copies
        )
    except MissingData as error:  # any run for this prior would do
        if not is_newest or prior.fuser is None:
            raise
        raise MissingData(
            error.message, write_training(source, paths, recipe.dataset)
        ) from None
    refuse_sweep(align)
    if prior.fuser is not None:
        check_tokens(align, prior, source, recipe.dataset or align.dataset_config)

    # what the prior was trained to generate is no test of it either
    folder = priors.describe(source).folder
    learned = (
        TrainingHistory() if folder is None else TrainingHistory.read_folder(folder)
    )
    return (
        replace(align, sources={f"the prior {source}": learned})
        if len(learned.pictures)
        else align
    )
