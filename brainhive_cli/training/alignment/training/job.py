"""Job of train-align: a recipe, its data set and its cells."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Self

from brainhive_cli.core.base import BrainhiveError, RecipeError, console, write_value
from brainhive_cli.core.files import Input, collect_inputs, hub
from brainhive_cli.core.runs import Launch, RunFolder, Work, reference as name_reference
from brainhive_cli.data.datasets import Dataset
from brainhive_cli.data.signals import Trials, list_eye_channels
from brainhive_cli.data.stores import Recordings, TargetStore
from brainhive_cli.data.targets import (
    find_encoders,
    list_store_inputs,
    match_prior_keys,
    open_stores,
    spec_of,
    suggest_category_test,
)
from brainhive_cli.models import priors
from brainhive_cli.models.encoders import EncoderConfig
from brainhive_cli.training.alignment import (
    INHERITED_KEYS,
    TRAINING,
    Cell,
    Recipe,
    copy_training_keys,
    describe_recipe,
    describe_run,
    find_reference,
    find_token_axes,
    is_model,
    list_cells,
    list_subjects,
    list_test_subjects,
)
from brainhive_cli.training.alignment.training.initialisation import (
    OpenedRuns,
    StartFiles,
    find_starts,
    list_start_inputs,
    pin_starts,
    read_history,
)


class BaseRun(NamedTuple):
    """Run that is fine-tuned.

    Attributes:
        folder: Folder of the run.
        reference: Name of the run in recipes.
        recipe: Recipe of the run.
        dataset: Data set that the run was trained on.
        cells: Trainings of the run.
    """

    folder: RunFolder
    reference: str
    recipe: Recipe
    dataset: Dataset
    cells: list[Cell]


@dataclass(frozen=True)
class Job:
    """Run of train-align before it is computed.

    Attributes:
        recipe: Settings of the run. For fine-tuning, with the inherited keys.
        dataset: Data set with the signals and stimuli.
        base_run: Run that is fine-tuned, or None.
    """

    recipe: Recipe
    dataset: Dataset
    base_run: BaseRun | None = None
    _starts: dict[str, dict[int, StartFiles]] = field(
        default_factory=dict, repr=False, compare=False
    )
    _opened: OpenedRuns = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def resolve(cls, recipe: Recipe) -> Self:
        """Make the job of a recipe.

        The keys of a run that is fine-tuned are inherited.

        Raises:
            MissingData: if the run that is fine-tuned does not exist.
            BrainhiveError: if it does not fit the recipe.
        """
        recipe.require_single_run()
        base_run = None
        if recipe.mode == "finetune":
            base_run = find_base_run(recipe)
            recipe = inherit_keys(recipe, base_run)
        dataset: Dataset = recipe.dataset.build(recipe.paths)
        return cls(recipe, dataset, base_run)

    @property
    def short_name(self) -> str:
        """First part of the name of the run."""
        return self.recipe.name_run(self.recipe.paths)

    def pin_versions(self) -> tuple[Self, dict[str, str]]:
        """Find the current versions of the models from which stages start.

        Models of the hub are downloaded, and pinned to their commit in the recipes.

        Returns:
            The job with the pinned recipes, and the version of each model by name: its
            commit on the hub, or the newest run of a recipe.
        """
        recipe = self.recipe
        versions = pin_starts(recipe.train.starts, recipe.paths, self._opened)
        commits = {
            name: version
            for name, version in versions.items()
            if name.startswith(hub.HUB_PREFIX)
        }
        train = recipe.train.pin_starts(commits)
        recipe = recipe.model_copy(update={"train": train})
        return replace(self, recipe=recipe), versions

    @property
    def signals(self) -> Recordings:
        """Recordings of the training."""
        return Recordings(self.dataset, self.recipe.paths, self.recipe.signal)

    @cached_property
    def cells(self) -> list[Cell]:
        """Trainings of the run.

        Raises:
            BrainhiveError: as `list_cells` does.
        """
        return list_cells(self.recipe, self.dataset)

    @cached_property
    def stores(self) -> dict[str, TargetStore]:
        """Target stores of the encoders, by name.

        Raises:
            BrainhiveError: if the stores are of different stimuli.
            RecipeError: if fused embeddings have shapes that do not fit.
        """
        # check the stores of alternatives too, which are opened again when read
        stores = open_stores(
            self.dataset,
            self.recipe.dataset,
            "train",
            self.stored_encoders(),
            self.recipe.paths,
        )
        encoder_names = {config.name for config in self.recipe.stored_encoders}
        stores = {
            name: store for name, store in stores.items() if name in encoder_names
        }
        shapes = {
            config.name: stores[config.name].shape
            for config in self.recipe.fused_encoders
        }
        if shapes:
            find_token_axes(shapes)
        return stores

    def stored_encoders(self) -> list[EncoderConfig]:
        """List the encoders whose target stores are read.

        Encoders of alternative targets are found by the names of their stores.
        """
        recipe = self.recipe
        configs = {config.name: config for config in recipe.stored_encoders}
        for name, alternatives in recipe.train.embedding_alternatives.items():
            similar_configs = []
            if name in configs:
                similar_configs = [
                    configs[name].with_input_of(alternative)
                    for alternative in alternatives
                ]
            configs |= find_encoders(alternatives, similar_configs)
        return list(configs.values())

    def describe_prior(self) -> priors.Description | None:
        """Describe the prior whose fusion encoder makes targets, if there is one.

        Raises:
            RecipeError: if the encoders, fuser or `dim` of the recipe are not the
                prior's.
        """
        recipe = self.recipe
        if not recipe.prior:
            return None
        description = priors.describe(recipe.prior)
        match_prior_keys(recipe.prior, recipe.fused_encoders)

        # compare the sizes that the recipe sets
        prior_sizes = {**description.fuser, "dropout": recipe.train.prior_dropout}
        recipe_sizes = recipe.fuser.model_dump(exclude_defaults=True)
        recipe_sizes = {"dim": recipe.dim, **recipe_sizes}
        for name, value in recipe_sizes.items():
            if value is None or value == prior_sizes.get(name, value):
                continue
            key = name if name == "dim" else f"fuser.{name}"
            hint = f"leave {key} out"
            if name == "dropout":
                hint = f"set train.prior_dropout={value:g}"
            raise RecipeError(
                f"{key} is {value}, but the prior {recipe.prior} has "
                f"{prior_sizes[name]}",
                hint,
            )
        return description

    def inputs(self) -> list[Input]:
        """List the run, signals, embeddings and weights that the training reads."""
        recipe = self.recipe
        base_inputs = []
        if self.base_run:
            base_inputs.append(Input(f"run {self.base_run.folder.name}"))
        return collect_inputs(
            lambda: base_inputs,
            self._list_signals,
            lambda: list_store_inputs(
                self.dataset,
                recipe.dataset,
                "train",
                self.stored_encoders(),
                recipe.paths,
            ),
            self.dataset.holdout.inputs,
            self._list_prior,
            lambda: list_start_inputs(
                recipe.train.starts,
                self.cells[0],
                recipe.paths,
                recipe.backbone,
                self._opened,
            ),
        )

    def _list_signals(self) -> list[Input]:
        """List the signal stores."""
        inputs = list(self.signals.list_inputs(self._list_read_subjects()))
        # subjects found in the recordings may be tested later, so they are listed,
        # but do not change the fingerprint of the run
        if not self.dataset.subjects:
            subjects = list_subjects(self.cells)
            for entry in self.signals.list_inputs(subjects):
                inputs.append(replace(entry, digest=""))
        return inputs

    def _list_prior(self) -> list[Input]:
        """List the prior, if there is one."""
        prior = self.recipe.prior
        description = self.describe_prior()
        if prior is None or description is None:
            return []
        return [Input(f"prior {prior}", reference=prior, digest=description.digest)]

    def check(self) -> None:
        """Open the inputs without writing anything.

        Raises:
            BrainhiveError: if an input does not fit the recipe.
        """
        cells = self.cells
        self._warn_if_untested()
        source = self.signals
        source.require_distinct_people(list_subjects(cells))

        # signals of subjects that are trained together must fit each other
        for trained_on in {cell.trained_on for cell in cells}:
            subject_trials = []
            recordings = source.open_recordings(trained_on, "train")
            for subject, recording in recordings.items():
                where = f"{self.dataset.name} subject {subject} train"
                trials = source.select(recording, where)
                eyes = set(list_eye_channels(recording.channels)) - set(trials.channels)
                if eyes:
                    console.warn(
                        f"{where}: {', '.join(sorted(eyes))} left out, because they "
                        "record eyes; signal.channels=[NAME, …] reads them"
                    )
                subject_trials.append(replace(trials, subject=subject))
            if subject_trials:
                spec_of(subject_trials)
        self._check_sessions(cells)
        self._check_folds(cells)

        # targets, prior and starts
        _ = self.stores
        if self.recipe.prior:
            _ = self.describe_prior()
            priors.load(self.recipe.prior)
        for cell in cells:
            self.find_starts(cell)

    def _warn_if_untested(self) -> None:
        """Warn if no trials are left to test models of categories on the same people.

        Such models can still decode other recordings, as `live` does.
        """
        tests_people = self.recipe.mode in ("intra", "joint")
        if not self.dataset.are_categories or not tests_people:
            return
        if self.dataset.holdout.divides_train or "test" in self.dataset.splits:
            return
        holdout, _ = suggest_category_test(
            self.dataset, self.recipe.paths, self.recipe.signal.name
        )
        values = write_value(holdout.model_dump(mode="json", exclude_defaults=True))
        console.warn(
            f"no trials of {self.dataset.name} are left to test the models; to hold "
            f"out trials, add 'dataset.holdout={values}'"
        )

    def find_starts(self, cell: Cell) -> dict[int, StartFiles]:
        """Find the weights from which the stages of a cell start.

        Returns:
            Files or folders by the number of the stage, then by module. The result of a
            cell is kept for the next call.

        Raises:
            BrainhiveError: if a subject that must be new to the model is in the
                training history of a start.
        """
        if cell.name in self._starts:
            return self._starts[cell.name]
        recipe = self.recipe
        starts = find_starts(recipe.train.starts, cell, recipe.paths, self._opened)

        # fine-tuning starts from the model of the base run
        if self.base_run is not None:
            starts[0] = {"": find_base_model(self.base_run, cell)}

        # a new subject must be new to all models of the history
        if recipe.mode in ("inter", "finetune"):
            for stage_starts in starts.values():
                for module_name, path in stage_starts.items():
                    history = read_history(path, module_name)
                    if history is not None:
                        model = f"{cell.name}, which starts from {path},"
                        history.require_new_subjects(
                            self.dataset, cell.tested_on, model
                        )
        self._starts[cell.name] = starts
        return starts

    def _list_read_subjects(self) -> list[int]:
        """List the subjects whose signals the training reads."""
        is_tested = self.recipe.train.selection == "test"
        return list_subjects(self.cells, with_tested=is_tested)

    def prepare(self, launch: Launch) -> None:
        """Make the signal stores that are missing."""
        self.signals.prepare(self._list_read_subjects(), launch)

    def _check_sessions(self, cells: Sequence[Cell]) -> None:
        """Raise an error if a new subject has fewer sessions than fine-tuning uses.

        Signals that are not prepared yet are skipped.
        """
        n_sessions = self.recipe.finetune.sessions
        if not n_sessions:
            return
        for cell in cells:
            recordings = self.signals.open_recordings(cell.trained_on, "train")
            for subject, recording in recordings.items():
                n_recorded = 0
                if recording.sessions is not None:
                    n_recorded = int(recording.sessions.max(initial=-1)) + 1
                if n_recorded >= n_sessions:
                    continue
                problem = f"have {n_recorded}"
                hint = "set fewer sessions"
                if not n_recorded:
                    problem = "do not say which session a trial is of"
                    hint = "use finetune.share, or prepare the signals by session"
                raise RecipeError(
                    f"finetune.sessions is {n_sessions}, but training signals of "
                    f"subject {subject} {problem}",
                    hint,
                )

    def _check_folds(self, cells: Sequence[Cell]) -> None:
        """Raise an error if a fold has too few stimuli to train or to test.

        Warns about subjects that have no trials in a fold.
        """
        holdout = self.dataset.holdout
        if not holdout.has_seen_pictures:
            return
        for subject in list_subjects(cells):
            folds = {cell.fold for cell in cells if subject in cell.trained_on}
            for fold in sorted(set(holdout.fold_numbers) - folds):
                console.warn(
                    f"{holdout.description}: subject {subject} has no trials in fold "
                    f"{fold}, which is trained without this subject"
                )

        # each combination once, in the order of the cells
        combinations = dict.fromkeys((cell.fold, cell.trained_on) for cell in cells)
        for fold, trained_on in combinations:
            source = replace(self.signals, fold=fold)
            for split, n_needed in {"train": 2, "test": 1}.items():
                recordings = source.open_recordings(trained_on, split)
                for subject, recording in recordings.items():
                    if len(set(recording.pictures)) < n_needed:
                        raise RecipeError(
                            f"holdout: {holdout.description}: fold {fold} of subject "
                            f"{subject} has too few stimuli in {split}",
                            "set another number of folds or another share, or use more "
                            "trials",
                        )

    def describe_set_up(self) -> dict[str, Any]:
        """Describe the set-up of the run.

        Returns:
            Facts of a `TrainingFacts`: the set-up, the modality of the test
            signals ("" if there are none) and the published result, if any.
        """
        dataset, recipe = self.dataset, self.recipe
        tested_on = list_test_subjects(self.cells)

        # test signals may be absent or broken, and the training is kept then
        signals: list[Trials] = []
        with suppress(BrainhiveError):
            recordings = self.signals.open_recordings(tested_on, "test")
            signals = [
                recipe.signal.select(
                    recording, dataset.channels, f"{dataset.name} subject {subject}"
                )
                for subject, recording in recordings.items()
            ]
        description = describe_recipe(recipe, dataset.holdout)
        published = recipe.published
        return {
            "set_up": describe_run(dataset, tested_on, description, signals),
            "modality": signals[0].modality if signals else "",
            "published": published.as_dict() if published else {},
        }

    def count_work(self, cells: Sequence[Cell] | None = None) -> Work:
        """Count the epochs of the training of some cells, or of all.

        An epoch counts once per subject, because its length grows with the subjects.
        """
        cells = self.cells if cells is None else cells
        train = self.recipe.train
        is_closed_form = self.recipe.backbone.is_closed_form
        epochs = 1 if is_closed_form else train.epochs
        n_epochs = epochs * sum(len(cell.trained_on) for cell in cells)
        return Work(
            f"{self.dataset.name}, {self.recipe.backbone.kind}, {train.batch_size} a "
            f"step in {train.precision}",
            n_epochs,
            "fits" if is_closed_form else "epochs",
            cells=len(cells),
        )


def find_base_run(recipe: Recipe) -> BaseRun:
    """Find the run that a recipe fine-tunes.

    Without a name, it is the newest run that is not fine-tuned itself.

    Raises:
        MissingData: if the run does not exist.
        BrainhiveError: if the run is fine-tuned itself.
    """
    # a data set that the recipe sets narrows the search
    paths = recipe.paths
    has_default = recipe.dataset == type(recipe)().dataset
    dataset = None if has_default else recipe.dataset
    folder = find_reference(recipe.finetune.run, paths, dataset, may_be_finetuned=False)
    if is_model(folder.path):
        raise RecipeError(
            f"finetune.run is one model, {folder.path}, and not a run",
            "set finetune.run=RUN",
        )

    base_recipe = folder.recipe(Recipe, paths=paths)
    if base_recipe.mode == "finetune":
        raise BrainhiveError(
            f"{folder.name} is fine-tuned itself",
            "name another run: finetune.run=NAME",
        )
    base_dataset = base_recipe.dataset.build(paths)
    return BaseRun(
        folder,
        name_reference(folder, paths.under_home("runs") / TRAINING),
        base_recipe,
        base_dataset,
        list_cells(base_recipe, base_dataset),
    )


def inherit_keys(recipe: Recipe, base_run: BaseRun) -> Recipe:
    """Set the keys of a fine-tuning recipe that its models inherit.

    The recipe also gets the name of the run, and the subjects that are new to it.

    Raises:
        BrainhiveError: if all models of the run were trained on a subject that the
            recipe names, or on all subjects.
        RecipeError: if the recipe sets dropout of a prior without a prior, or if terms
            do not fit the heads or the epochs.
    """
    # subjects that at least one model of the run has not seen
    base_recipe = base_run.recipe
    run_name = base_run.folder.name
    recordings = Recordings(base_run.dataset, recipe.paths, base_recipe.signal)
    subjects = recordings.list_subjects(recipe.subjects)
    new_subjects = [
        subject for subject in subjects if _list_cells_without(base_run, subject)
    ]
    if not new_subjects or (recipe.subjects and new_subjects != subjects):
        seen_subjects = [
            str(subject) for subject in subjects if subject not in new_subjects
        ]
        raise BrainhiveError(
            f"all models of {run_name} were trained on subject "
            f"{', '.join(seen_subjects)}",
            "fine-tune to other subjects, or a run that was trained without them",
        )

    # statistics of all sessions would include later sessions than those used
    normalisation = base_recipe.signal.normalise
    if recipe.finetune.sessions and normalisation is not None:
        raise RecipeError(
            f"finetune.sessions: signal.normalise={normalisation.kind} of {run_name} "
            "takes statistics of all sessions",
            "use a run without signal.normalise, with signals that are z-scored by "
            "session, or finetune.share",
        )

    # warn about keys that have no effect
    recipe.train.check_prior(base_recipe.prior)
    default_recipe = type(recipe)()
    for key in INHERITED_KEYS:
        value = getattr(recipe, key)
        if value not in (getattr(base_recipe, key), getattr(default_recipe, key)):
            console.warn(
                f"{key} has no effect: a fine-tuned model keeps the {key} of {run_name}"
            )

    finetune = recipe.finetune.model_copy(update={"run": base_run.reference})
    tuned = copy_training_keys(recipe, base_recipe)
    tuned = tuned.model_copy(update={"subjects": new_subjects, "finetune": finetune})
    tuned.check_terms()
    return tuned


def find_base_model(base_run: BaseRun, cell: Cell) -> Path:
    """Find the model of a base run from which a cell starts.

    It was not trained on the cell's subjects, and has the seed of the cell if a model
    has this seed, otherwise the first seed.

    Raises:
        BrainhiveError: if no model or several models fit.
    """
    base_cells = _list_cells_without(base_run, *cell.trained_on)
    seeds = [base_cell.seed for base_cell in base_cells]
    seed = cell.seed
    if seeds and seed not in seeds:
        seed = seeds[0]
    matching_cells = [base_cell for base_cell in base_cells if base_cell.seed == seed]
    if len(matching_cells) != 1:
        names = [base_cell.name for base_cell in matching_cells]
        problem = "no model"
        if names:
            problem = f"several models ({', '.join(names)})"
        raise BrainhiveError(
            f"{problem} of {base_run.folder.name} can be fine-tuned to {cell.name}",
            "choose a run that was trained without this subject (--mode inter, or "
            "joint without the subject): finetune.run=RUN",
        )
    return base_run.folder.path / "cells" / matching_cells[0].name / "model"


def _list_cells_without(base_run: BaseRun, *subjects: int) -> list[Cell]:
    """List the cells that were not trained on any of the subjects."""
    return [cell for cell in base_run.cells if not set(cell.trained_on) & set(subjects)]
