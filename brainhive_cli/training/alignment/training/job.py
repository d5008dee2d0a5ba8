"""The job of train-align: a recipe, resolved once into what `plan` prints and `run`
does.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, Self

from brainhive_cli.core import console, hub
from brainhive_cli.core.command import Input, Work, collect_inputs
from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.core.facts import merge_set_ups
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.runs import RunFolder, reference as name_reference
from brainhive_cli.core.sweep import make_variants, select_variant
from brainhive_cli.data.datasets import Dataset
from brainhive_cli.data.signals.trials import Trials
from brainhive_cli.data.stores.recordings import Recordings
from brainhive_cli.data.stores.target_store import TargetStore
from brainhive_cli.data.targets.encoder_keys import find_encoders, match_prior_keys
from brainhive_cli.data.targets.encoder_stores import list_store_inputs, open_stores
from brainhive_cli.data.targets.model_input import spec_of
from brainhive_cli.models import priors
from brainhive_cli.models.encoders import EncoderConfig
from brainhive_cli.training.alignment.cells import Cell, list_cells, list_subjects
from brainhive_cli.training.alignment.layout import tokens_of
from brainhive_cli.training.alignment.model_files import is_model
from brainhive_cli.training.alignment.recipe import Recipe
from brainhive_cli.training.alignment.references import (
    INHERITED_KEYS,
    TRAINING,
    copy_training_keys,
    find_reference,
)
from brainhive_cli.training.alignment.set_ups import describe_recipe, describe_run
from brainhive_cli.training.alignment.training.initialisation import (
    OpenedRuns,
    StartFiles,
    find_starts,
    list_start_inputs,
    pin_starts,
    read_history,
)


class BaseRun(NamedTuple):
    """A run that is fine-tuned, without a sweep, or one variant of a sweep.

    Attributes:
        folder: The folder of the run.
        reference: The run as recipes name it.
        recipe: Its recipe.
        dataset: What it was trained on.
        cells: Its trainings.
    """

    folder: RunFolder
    reference: str
    recipe: Recipe
    dataset: Dataset
    cells: list[Cell]


@dataclass(frozen=True)
class Job:
    """A run of train-align, resolved.

    Attributes:
        recipe: Its settings; for fine-tuning with the keys that it inherits. To be run,
            it holds the digests of priors.
        variants: The recipe of every variant of a sweep, by label; otherwise one,
            labelled "".
        dataset: Whose signals and stimuli are used.
        base_run: The run that is fine-tuned; None where none is.
    """

    recipe: Recipe
    variants: dict[str, Recipe]
    dataset: Dataset
    base_run: BaseRun | None = None
    _starts: dict[str, dict[int, StartFiles]] = field(
        default_factory=dict, repr=False, compare=False
    )
    _opened: OpenedRuns = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def resolve(cls, recipe: Recipe) -> Self:
        """Find the run that is fine-tuned, inherit its keys, and lay the variants of a
        sweep over the recipe.

        Raises:
            MissingData: if there is no such run.
            BrainhiveError: if a run does not fit the recipe.
        """
        # inherit first: variants are laid over the keys of the base run
        base_run = find_base_run(recipe) if recipe.mode == "finetune" else None
        recipe = recipe if base_run is None else inherit_keys(recipe, base_run)
        dataset: Dataset = recipe.dataset.build(recipe.paths)
        return cls(recipe, make_variants(recipe), dataset, base_run)

    @property
    def label(self) -> str:
        """First part of the run's name."""
        return self.recipe.run_label(self.recipe.paths)

    def pin_versions(self) -> tuple[Self, dict[str, str]]:
        """Name the commits of what stages start from on the hub, and the newest runs of
        recipes; what is on the hub is fetched.

        Returns:
            The job with these commits, and the versions by their names.
        """
        versions = dict[str, str]()
        for recipe in self.variants.values():
            versions |= pin_starts(recipe.train.starts, recipe.paths, self._opened)
        commits = {
            name: version
            for name, version in versions.items()
            if name.startswith(hub.HUB_PREFIX)
        }

        def pin(recipe: Recipe) -> Recipe:
            train = recipe.train.pin_starts(commits)
            return recipe.model_copy(update={"train": train})

        pinned = {label: pin(recipe) for label, recipe in self.variants.items()}
        return replace(self, recipe=pin(self.recipe), variants=pinned), versions

    def signals(self, recipe: Recipe) -> Recordings:
        """Return the signals of a variant."""
        return Recordings(self.dataset, self.recipe.paths, recipe.signal)

    @cached_property
    def cells(self) -> list[Cell]:
        """The trainings, variant by variant; raises as `list_cells` does."""
        return list_cells(self.variants, self.dataset)

    @cached_property
    def stores(self) -> dict[str, TargetStore]:
        """Stores of all variants' encoders, by name.

        Raises:
            BrainhiveError: if they are of different stimuli.
            RecipeError: if a variant fuses shapes that cannot be fused.
        """
        # stores of alternatives are checked here, and opened again by their reader
        configs, recipe = self.stored_encoders(), self.recipe
        stores = open_stores(
            self.dataset, recipe.dataset, "train", configs, recipe.paths
        )
        encoders = {
            config.name
            for recipe in self.variants.values()
            for config in recipe.stored_encoders
        }
        stores = {name: store for name, store in stores.items() if name in encoders}

        # refuse shapes that cannot be fused
        for recipe in self.variants.values():
            if recipe.fused_encoders:
                tokens_of(
                    {
                        config.name: stores[config.name].shape
                        for config in recipe.fused_encoders
                    }
                )
        return stores

    def stored_encoders(self) -> list[EncoderConfig]:
        """List the encoders whose stores are read, and those of alternatives, by what
        their names say.
        """
        # encoders of the recipes, then alternatives that their names describe
        recipes = self.variants.values()
        configs = {
            config.name: config
            for recipe in recipes
            for config in recipe.stored_encoders
        }
        for recipe in recipes:
            for name, alternatives in recipe.train.embedding_alternatives.items():
                alike = [
                    configs[name].with_input_of(other)
                    for other in alternatives
                    if name in configs
                ]
                configs |= find_encoders(alternatives, alike)
        return [*configs.values()]

    def describe_priors(self) -> dict[str, priors.Description]:
        """Describe the priors whose fusion encoders are targets, by reference.

        Raises:
            RecipeError: if a variant has other encoders, another fuser or width of the
                token than its prior.
        """
        # the encoders and sizes of a prior are fixed
        described = {}
        for recipe in self.variants.values():
            if recipe.prior:
                described[recipe.prior] = prior = priors.describe(recipe.prior)
                match_prior_keys(recipe.prior, recipe.fused_encoders)
                sizes = {**prior.fuser, "dropout": recipe.train.prior_dropout}
                chosen = {
                    "dim": recipe.dim,
                    **recipe.fuser.model_dump(exclude_defaults=True),
                }
                for name, value in chosen.items():
                    if value is not None and value != sizes.get(name, value):
                        key = name if name == "dim" else f"fuser.{name}"
                        raise RecipeError(
                            f"{key} is {value}, but the prior {recipe.prior} has "
                            f"{sizes[name]}",
                            f"train.prior_dropout={value:g}"
                            if name == "dropout"
                            else f"leave {key} out",
                        )
        return described

    def inputs(self) -> list[Input]:
        """List all that the training reads: run, signals, embeddings, what runs at each
        step, and starts.
        """
        recipe = self.recipe

        def list_signals() -> list[Input]:
            listed = []
            for variant in self.variants.values():
                source = self.signals(variant)
                listed += source.list_inputs(self._list_read(variant))
                # whom the publisher names may be tested, and have no store yet
                if not self.dataset.subjects:
                    tested = source.list_inputs(list_subjects(self.cells))
                    listed += [replace(one, digest="") for one in tested]
            return listed

        def list_priors() -> list[Input]:
            return [
                Input(f"prior {reference}", reference=reference, digest=prior.digest)
                for reference, prior in self.describe_priors().items()
            ]

        return collect_inputs(
            lambda: (
                [Input(f"run {self.base_run.folder.name}")] if self.base_run else ()
            ),
            list_signals,
            lambda: list_store_inputs(
                self.dataset,
                recipe.dataset,
                "train",
                self.stored_encoders(),
                recipe.paths,
            ),
            self.dataset.holdout.inputs,
            list_priors,
            lambda: list_start_inputs(
                recipe.train.starts,
                self.cells[0],
                recipe.paths,
                recipe.backbone,
                self._opened,
            ),
        )

    def check(self) -> None:
        """Open what is listed, and refuse what does not fit, as `run` does; nothing is
        made.
        """
        # subjects and signals, then targets, priors and starts
        cells = self.cells
        for recipe in self.variants.values():
            self.signals(recipe).require_distinct_people(list_subjects(cells))
        for variant, trained_on in {(cell.variant, cell.trained_on) for cell in cells}:
            source, together = self.signals(self.variants[variant]), list[Trials]()
            for subject, recording in source.open_recordings(
                trained_on, "train"
            ).items():
                where = f"{self.dataset.name} subject {subject} train"
                selected = source.select(recording, where)
                together.append(replace(selected, subject=subject))
            if together:
                spec_of(together)
        self._refuse_absent_trials(cells)
        _ = self.stores
        for reference in self.describe_priors():
            priors.load(reference)
        for cell in cells:
            self.find_starts(cell)

    def find_starts(self, cell: Cell) -> dict[int, StartFiles]:
        """Find what stages of a cell's training start from, by the stage's number; each
        is looked for once.

        Raises:
            BrainhiveError: if a subject who is to be new to the model is among those
                that a start, or what it started from, was trained on.
        """
        if cell.name in self._starts:
            return self._starts[cell.name]

        # weights that the recipe names, and the model that is fine-tuned
        recipe = self.variants[cell.variant]
        starts = find_starts(recipe.train.starts, cell, recipe.paths, self._opened)
        # the first stage starts from the model of the base run
        if recipe.mode == "finetune":
            is_same = recipe.finetune.run == self.recipe.finetune.run
            base_run = (self.base_run if is_same else None) or find_base_run(recipe)
            starts[0] = {"": find_base_model(base_run, cell)}

        # a new subject must be new to everything that the model starts from
        if recipe.mode in ("inter", "finetune"):
            for part, path in chain(*(start.items() for start in starts.values())):
                if (learned := read_history(path, part)) is not None:
                    model = f"{cell.name}, which starts from {path},"
                    learned.require_new_subjects(self.dataset, cell.tested_on, model)
        self._starts[cell.name] = starts
        return starts

    def _list_read(self, recipe: Recipe) -> list[int]:
        """List the subjects whose signals a variant reads: those of the test where they
        select the epoch.
        """
        return list_subjects(self.cells, with_tested=recipe.train.selection == "test")

    def prepare(self, launch: Launch) -> None:
        """Make the signal stores that are missing."""
        for recipe in self.variants.values():
            self.signals(recipe).prepare(self._list_read(recipe), launch)

    def _refuse_absent_trials(self, cells: Sequence[Cell]) -> None:
        """Refuse sessions that subjects lack, and folds that test no trial or learn
        from too few.
        """
        # first sessions of subjects whose signals, where they are there, have fewer or
        # name none
        for cell in cells:
            recipe = self.variants[cell.variant]
            count = recipe.finetune.sessions or 0
            trained_on = cell.trained_on if count else ()
            for subject, recording in (
                self.signals(recipe).open_recordings(trained_on, "train").items()
            ):
                sessions = recording.sessions

                # sessions are numbered from 0
                most = 0 if sessions is None else int(sessions.max(initial=-1)) + 1
                if most < count:
                    known = (
                        f"have {most}" if most else "do not say which trial is of which"
                    )
                    other = "finetune.share, or signals that `prepare` makes by session"
                    raise RecipeError(
                        f"finetune.sessions is {count}, but training signals of "
                        f"subject {subject} {known}",
                        "fewer sessions" if most else other,
                    )

        # folds of held-out trials that test none, or whose training trials do not
        # suffice
        if not (holdout := self.dataset.holdout).has_seen_pictures:
            return
        for subject in list_subjects(cells):
            folds = {cell.fold for cell in cells if subject in cell.trained_on}
            for fold in sorted({*holdout.fold_numbers} - folds):
                console.warn(
                    f"{holdout.description}: subject {subject} has none in fold "
                    f"{fold}, which goes without it"
                )
        for variant, fold, trained_on in {
            (cell.variant, cell.fold, cell.trained_on): None for cell in cells
        }:
            source = replace(self.signals(self.variants[variant]), fold=fold)
            # training needs two stimuli, a test one
            for split, least in {"train": 2, "test": 1}.items():
                for subject, recording in source.open_recordings(
                    trained_on, split
                ).items():
                    if len({*recording.image_ids}) < least:
                        raise RecipeError(
                            f"holdout: {holdout.description}: fold {fold} of subject "
                            f"{subject} has too few stimuli in {split}",
                            "another number of folds, another share, or more trials",
                        )

    def describe_set_ups(self, cells: Sequence[Cell]) -> dict[str, Any]:
        """Return the set-up, merged over variants, and what was published, if anything
        was.
        """
        # describe each variant with the signals of its test
        set_ups, modality = [], ""
        for label, recipe in self.variants.items():
            tested = sorted(
                {s for cell in cells if cell.variant == label for s in cell.tested_on}
            )
            dataset, signals = self.dataset, list[Trials]()
            # of signals of the test, for which no training is thrown away
            with suppress(BrainhiveError):
                recordings = (
                    self.signals(recipe).open_recordings(tested, "test").items()
                )
                signals = [
                    recipe.signal.select(
                        recording, dataset.channels, f"{dataset.name} subject {subject}"
                    )
                    for subject, recording in recordings
                ]
            modality = signals[0].modality if signals else modality
            trained = describe_recipe(recipe, dataset.holdout)
            set_ups.append(describe_run(dataset, tested, trained, signals))

        # all variants have one published result
        published = self.recipe.published
        return {
            "set_up": merge_set_ups(set_ups),
            "modality": modality,
            "published": published.as_dict() if published else {},
        }

    def count_work(self, cells: Sequence[Cell] | None = None) -> Work:
        """Count what it takes to train some cells. Default: all."""
        cells = self.cells if cells is None else cells
        train = self.recipe.train
        # trials of an epoch grow with the subjects, so work is counted per subject
        epochs = sum(
            self.variants[cell.variant].train.epochs * len(cell.trained_on)
            for cell in cells
        )
        kind = (
            f"{self.recipe.backbone.kind}, {train.batch_size} a step in "
            f"{train.precision}"
        )
        return Work(
            f"{self.dataset.name}, {kind}",
            epochs,
            "epochs of a subject",
            cells=len(cells),
        )


def find_base_run(recipe: Recipe) -> BaseRun:
    """Find the run that a recipe fine-tunes, or the newest that is not fine-tuned
    itself.

    Raises:
        MissingData: if there is no such run.
        RecipeError: if it is a sweep and no variant is named.
        BrainhiveError: if the run is fine-tuned itself.
    """
    # the recipe's data set chooses the run, unless it is the default one
    run, paths = recipe.finetune.run, recipe.paths
    dataset = None if recipe.dataset == type(recipe)().dataset else recipe.dataset
    folder, variant = find_reference(run, paths, dataset, may_be_finetuned=False)
    if is_model(folder.path):
        raise RecipeError(
            f"finetune.run is one model, {folder.path}, and no run", "finetune.run=RUN"
        )

    # one run, or one variant of a sweep
    training = folder.recipe(Recipe, paths=paths)
    recipes = make_variants(training)
    if variant or len(recipes) > 1:
        training = select_variant(recipes, variant, folder.name)
        recipes = {variant: training}

    # which is not fine-tuned itself
    if next(iter(recipes.values())).mode == "finetune":
        raise BrainhiveError(
            f"{folder.name} is fine-tuned itself", "name another: finetune.run=NAME"
        )
    trained_on = training.dataset.build(paths)
    return BaseRun(
        folder,
        name_reference(folder, paths.under_home("runs") / TRAINING, variant),
        training,
        trained_on,
        list_cells(recipes, trained_on),
    )


def inherit_keys(recipe: Recipe, base_run: BaseRun) -> Recipe:
    """Name the run that is fine-tuned and its new subjects, and take over the keys that
    its models keep.

    Raises:
        BrainhiveError: if the run knows the subjects.
        RecipeError: if the recipe sets dropout of a prior, and the run has none, or
            terms do not go with the heads or the epochs.
    """
    # subjects whom at least one model of the run has not seen
    training, run = base_run.recipe, base_run.folder
    chosen = Recordings(base_run.dataset, recipe.paths, training.signal).list_subjects(
        recipe.subjects
    )
    new = [subject for subject in chosen if _cells_without(base_run, subject)]
    if not new or (recipe.subjects and new != chosen):
        known = ", ".join(str(subject) for subject in chosen if subject not in new)
        raise BrainhiveError(
            f"no model of {run.name} has yet to see subject {known}",
            "fine-tune to others, or a run that was trained without them",
        )

    # statistics of all sessions would see trials of later ones
    is_of_sessions = any(
        variant.finetune.sessions for variant in make_variants(recipe).values()
    )
    if is_of_sessions and (normalisation := training.signal.normalise) is not None:
        how = normalisation.kind
        raise RecipeError(
            f"finetune.sessions: signal.normalise={how} of {run.name} takes "
            "statistics of all sessions",
            "a run without signal.normalise, of signals that are z-scored by "
            "session; or finetune.share",
        )

    # inherited keys that the recipe sets to something else have no effect
    recipe.train.check_prior(training.prior)
    usual = type(recipe)()
    for key in INHERITED_KEYS:
        if getattr(recipe, key) not in (getattr(training, key), getattr(usual, key)):
            console.warn(
                f"{key} has no effect: a fine-tuned model keeps that of {run.name}"
            )

    # the tuned recipe names the run and its new subjects
    finetune = recipe.finetune.model_copy(update={"run": base_run.reference})
    tuned = copy_training_keys(recipe, training).model_copy(
        update={"subjects": new, "finetune": finetune}
    )
    tuned.check_terms()
    return tuned


def find_base_model(base_run: BaseRun, cell: Cell) -> Path:
    """Find the model that a cell starts from: it never saw its subject, and has its
    seed if one has.

    Raises:
        BrainhiveError: if there is none, or several could be meant.
    """
    # models that never saw the subject, of the same seed if there are any
    new = _cells_without(base_run, *cell.trained_on)
    seeds = [other.seed for other in new]
    seed = cell.seed if cell.seed in seeds else next(iter(seeds), None)
    chosen = [other for other in new if other.seed == seed]
    if len(chosen) != 1:
        names = " or ".join(other.name for other in chosen) or "no model"
        raise BrainhiveError(
            f"{cell.name} could start from {names} of {base_run.folder.name}",
            "fine-tune a joint run without the subject, or one that leaves a "
            "subject out",
        )
    return base_run.folder.path / "cells" / chosen[0].name / "model"


def _cells_without(base_run: BaseRun, *subjects: int) -> list[Cell]:
    """List the cells that never saw any of the subjects."""
    return [cell for cell in base_run.cells if not set(cell.trained_on) & set(subjects)]
