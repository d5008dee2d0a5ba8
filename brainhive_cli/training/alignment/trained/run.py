"""Trained brain models, loaded from a run, a model folder or the hub."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any, Self, TypeVar

from brainhive_cli.core import documents, hub, parts, runs
from brainhive_cli.core.command import Input
from brainhive_cli.core.errors import Line, MissingData, RecipeError
from brainhive_cli.core.facts import merge_set_ups
from brainhive_cli.core.files import make_portable
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import (
    CALIBRATED,
    CHANNELS_MAPPED,
    SAME_PERSON,
    choose_headlines,
    merge_caveats,
)
from brainhive_cli.core.recipe import Paths
from brainhive_cli.core.sweep import make_variants, select_variant
from brainhive_cli.data.datasets import Dataset
from brainhive_cli.data.signals.channel_mapping import ChannelChoice
from brainhive_cli.data.signals.selection import Signal
from brainhive_cli.data.signals.study import StudyDesign, describe_study
from brainhive_cli.data.signals.trials import Trials
from brainhive_cli.data.stores.learned import (
    ComparePair,
    PixelComparison,
    TestedPictures,
    TrainingHistory,
)
from brainhive_cli.data.stores.recordings import Recordings
from brainhive_cli.data.stores.target_store import TargetStore
from brainhive_cli.data.targets.encoder_keys import (
    find_encoders,
    find_prior_encoders,
    read_run_encoders,
    read_run_recipe,
)
from brainhive_cli.data.targets.encoder_stores import (
    list_store_inputs,
)
from brainhive_cli.data.targets.model_input import (
    match_recording,
)
from brainhive_cli.data.targets.next_commands import (
    are_embedded,
    keep_if_recorded,
    write_embed_commands,
    write_prior_arguments,
)
from brainhive_cli.models import priors
from brainhive_cli.training.alignment import model_files
from brainhive_cli.training.alignment.cells import (
    Cell,
    list_cells,
    list_test_subjects,
)
from brainhive_cli.training.alignment.layout import Layout
from brainhive_cli.training.alignment.recipe import Recipe
from brainhive_cli.training.alignment.references import TRAINING, find_reference
from brainhive_cli.training.alignment.set_ups import (
    SELECTION_KEYS,
    describe_model,
    describe_recipe,
    describe_run,
)
from brainhive_cli.training.alignment.trained.model import TrainedModel

T = TypeVar("T")


@dataclass(eq=False)
class TrainedRun:
    """Models of a train-align run, of a variant of it, or of a model folder.

    The models are tested on a data set. Weights, signals and embeddings are read at
    their first use.

    Attributes:
        folder: Run, or a model folder or published checkpoint, which is then the model
            of a single cell.
        variant: Variant of a sweep. Empty without a sweep, and for all variants.
        paths: Folders of the signals and embeddings.
        other_dataset: Config of the data set of the test, if it is not the run's own.
        subjects: Subjects of the test, or None for the subjects of the run or for all
            subjects of another data set.
        selected_cells: Cells to use, or None for all.
        sources: Training histories of other models behind the results, such as a prior,
            keyed by name.
        allows_copies: If True, copies of training pictures under other names are
            tested.
        channel_mapping: Treatment of channels that recordings lack, see
            `map_channels`.
        name: Name of the run on a command line, with the variant.
        reference: Name of the run in recipes and fingerprints, which does not depend on
            the home folder.
        short_name: First part of the folder names of runs that use this run.
        file_name: Name of the run and the variant in the names of files.
        is_model: True for a model folder or checkpoint.
        recipe: Recipe of the run or of the variant. None for a model folder.
        recipes: Recipe of each variant, keyed by label. A model folder has a recipe
            with its encoders and its signal section alone.
        variants: Variants of a sweep, if none is selected.
        dataset_config: Config of `dataset`.
        dataset: Data set of the test.
        origin: Name of the data set of the training, if it is not `dataset`. Empty if
            it is unknown, and None if it is `dataset`.
        tests_new_subjects: True if the subjects are known to be other people than the
            training subjects, even with equal numbers.
        cells: Trainings, with the subjects of the test of each.
        models: Model of each cell.
        folds: Folds of the cells, `[1]` without folds.
        mode: Relation between the subjects of the training and of the test.

    Raises:
        MissingData: if a model folder does not name its encoders, is opened without a
            data set and subjects, or the data set has no such subject.
        RecipeError: if the data set holds out other folds than the run.
    """

    folder: runs.RunFolder
    variant: str = ""
    paths: Paths = field(default_factory=Paths)
    other_dataset: Any = None
    subjects: Sequence[int] | None = None
    selected_cells: Sequence[Cell] | None = None
    sources: Mapping[str, TrainingHistory] = field(default_factory=dict)
    allows_copies: bool = False
    channel_mapping: ChannelChoice = "none"
    _cache: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False)
    _data_cache: dict[Hashable, Any] = field(
        default_factory=dict, init=False, repr=False
    )

    def __repr__(self) -> str:
        """Return the name of the run and the number of its models."""
        return f"<TrainedRun {self.folder.name}: {len(self.cells)} models>"

    def __post_init__(self) -> None:
        """Read the run or model folder, and set the attributes that depend on it."""
        folder = self.folder
        self.name = folder.reference + (f":{self.variant}" if self.variant else "")
        self.reference = runs.reference(
            folder, self.paths.under_home("runs") / TRAINING, self.variant
        )
        self.short_name = "--".join(filter(None, [folder.short_name, self.variant]))
        self.file_name = "--".join(filter(None, [folder.file_name, self.variant]))
        self.is_model = model_files.is_model(folder.path)
        self.recipe: Recipe | None = None
        self.origin: str | None = None
        self._trained_on: Dataset | None = None
        # both set `recipes`, `dataset`, `cells` and `mode`. They set `origin`, the name
        # of the training's data set, only if the test has another data set.
        if self.is_model:
            self._read_model()
        else:
            self._read_run()
        self.tests_new_subjects = bool(self.origin)
        self.variants = [] if len(self.recipes) == 1 else list(self.recipes)
        self.folds = sorted({cell.fold for cell in self.cells})
        self.models = [TrainedModel(self, cell) for cell in self.cells]

    def _read_run(self) -> None:
        """Read the recipe and the cells of a run."""
        recipe = self.folder.recipe(Recipe, paths=self.paths)
        if self.variant:
            variants = make_variants(recipe)
            recipe = select_variant(variants, self.variant, self.folder.name)
        self.recipe = recipe
        self.dataset_config = self.other_dataset or recipe.dataset
        self.dataset: Dataset = self.dataset_config.build(self.paths)

        # folds of another holdout would test training trials
        trained_on = recipe.dataset.build(self.paths)
        if self.dataset.holdout != trained_on.holdout:
            raise RecipeError(
                f"{self.folder.path} was trained with another dataset.holdout",
                "use the run's own data set, without --dataset, or another one without "
                "dataset.holdout",
            )
        if self.variant:
            self.recipes = {self.variant: recipe}
        else:
            self.recipes = make_variants(recipe)
        if trained_on.people != self.dataset.people:
            self.origin = trained_on.name
        self._trained_on = trained_on
        self.cells = self._list_cells(trained_on)
        modes = dict.fromkeys(recipe.mode for recipe in self.recipes.values())
        self.mode = " + ".join(modes)

    def _read_model(self) -> None:
        """Read the architecture and the history of a model folder or checkpoint."""
        path = self.folder.path
        if not self.other_dataset or not self.subjects:
            raise MissingData(
                f"{path} is a model folder, which has no data set and subjects to test",
                f"name both: --run {path} --dataset things-eeg --subjects 1",
            )
        self.dataset_config = self.other_dataset
        self.dataset = self.dataset_config.build(self.paths)
        if self.dataset.holdout.divides_train:
            raise RecipeError(
                f"{path} is a model folder, which does not know its fold",
                "name its run: --run RUN, without --dataset",
            )
        from brainhive_cli.training.alignment import model as aligners

        model = aligners.load(path)
        layout = model.layout
        history = model.learned
        self._cache["described", path] = layout, history
        people = self.dataset.people
        is_same = history.recordings == people
        if not is_same:
            self.origin = history.dataset
        self.recipes = {"": _describe_training(path, layout, is_same)}
        if self.selected_cells is not None:
            self.cells = list(self.selected_cells)
        else:
            subjects = self.get_recordings("").list_subjects(self.subjects)
            self.cells = [Cell(path.name, layout.spec.subjects, tuple(subjects), 0)]
        relation = history.describe_subjects(people, self.cells[0].tested_on)
        self.mode = f"model folder ({relation})"

    def _list_cells(self, trained_on: Dataset) -> list[Cell]:
        """List the cells of a run, with the subjects of the test of each."""
        if self.selected_cells is not None:
            return list(self.selected_cells)
        cells = list_cells(self.recipes, trained_on)
        if self.origin is None and self.subjects is None:
            return cells

        # on another data set, every cell is tested on all subjects
        recordings = self.get_recordings(next(iter(self.recipes)))
        subjects = tuple(recordings.list_subjects(self.subjects))
        if self.origin is not None:
            return [replace(cell, tested_on=subjects) for cell in cells if subjects]

        # on the run's own data set, each cell is tested on its own subjects
        run_subjects = set(chain.from_iterable(cell.tested_on for cell in cells))
        absent = sorted(set(subjects) - run_subjects)
        if absent:
            raise MissingData(
                f"no model of {self.folder.path} is tested on subject "
                f"{', '.join(map(str, absent))}",
                "choose from its subjects: "
                f"{', '.join(map(str, sorted(run_subjects)))}",
            )
        tested_cells = []
        for cell in cells:
            tested_on = tuple(s for s in cell.tested_on if s in subjects)
            if tested_on:
                tested_cells.append(replace(cell, tested_on=tested_on))
        return tested_cells

    def open_variant(self, label: str) -> Self:
        """Open a variant of this sweep.

        Raises:
            MissingData: if it is tested on none of the subjects.
        """
        cells = [cell for cell in self.cells if cell.variant == label]
        if not cells:
            raise MissingData(
                f"{self.name}:{label} is not tested on these subjects", "subjects=null"
            )
        variant = replace(self, variant=label, selected_cells=cells)
        variant.share_data(self)
        return variant

    def share_data(self, other: Self) -> None:
        """Share stores and other values that depend on the data with another run.

        Nothing is shared between runs of different data sets.
        """
        if self._data_identity == other._data_identity:
            self._data_cache = other._data_cache

    @property
    def _data_identity(self) -> tuple[Any, ...]:
        """Folders, and configs of the data sets of the test and of the training."""
        trained_on = None if self.recipe is None else self.recipe.dataset
        return self.paths, self.dataset_config, trained_on

    def compute_once(
        self, key: Hashable, compute: Callable[[], T], is_of_data: bool = False
    ) -> T:
        """Compute a value once for all cells, and keep it under `key`.

        If `is_of_data`, it depends on the data alone, and runs of these data share it.
        """
        cache = self._data_cache if is_of_data else self._cache
        if key not in cache:
            cache[key] = compute()
        value: T = cache[key]
        return value

    def read_validation(self) -> dict[str, Any]:
        """Read the validation metric, such as top-1, as a mean over cells.

        Returns:
            Name and value of the metric. `measured_on` has the data set, and the
            numbers of items and candidates of each cell. Values with equal
            `measured_on` are comparable. Empty for a model folder, or if a cell has no
            such metric.
        """
        scopes = {} if self.is_model else self.folder.measurements().scopes
        cell_metrics = [scopes.get(cell.name, {}) for cell in self.cells]
        name = next(iter(choose_headlines(list(cell_metrics[0]))), "")
        if not all(name in metrics for metrics in cell_metrics):
            return {}
        headlines = [metrics[name] for metrics in cell_metrics]
        return {
            "metric": name,
            "value": fmean(metric.value for metric in headlines),
            "measured_on": {
                "dataset": self.origin or self.dataset.name,
                "cells": [[metric.n, metric.pool] for metric in headlines],
            },
        }

    def get_recordings(self, variant: str, fold: int = 1) -> Recordings:
        """Return the signals that cells of a variant are tested on, in a fold."""
        return Recordings(self.dataset, self.paths, self.recipes[variant].signal, fold)

    def open_stores(self, split: str) -> dict[str, TargetStore]:
        """Open the embeddings of the first model, as `TrainedModel.open_stores`."""
        return self.models[0].open_stores(split)

    def list_inputs(self, splits: Sequence[str]) -> Iterator[Input]:
        """List the inputs of a test: run, signals, and target stores of `splits`.

        The fingerprint of the test has the name of a run, or digest of a model folder.
        """
        path = self.folder.path
        digest = ""
        if self.is_model:
            is_folder = path.is_dir()
            digest = (
                hub.digest(path) if is_folder else hub.digest(path.parent, [path.name])
            )
        yield Input(f"run {self.name}", reference=self.name, digest=digest)
        for variant, recipe in self.recipes.items():
            recordings = self.get_recordings(variant)
            yield from recordings.list_inputs(self._list_test_subjects(variant))
            for split in splits:
                yield from list_store_inputs(
                    self.dataset,
                    self.dataset_config,
                    split,
                    recipe.encoders,
                    self.paths,
                )

    @property
    def is_prepared(self) -> bool:
        """Return True if the signals of all test subjects are prepared."""
        return all(
            model.recordings.are_prepared(model.cell.tested_on) for model in self.models
        )

    def check(
        self, splits: Sequence[str], head: str | None = None, *, compares: bool = True
    ) -> dict[tuple[str, int], Trials]:
        """Check that models, signals and embeddings fit each other.

        Neither weights nor signals are read.

        Args:
            splits: Splits whose embeddings are read. The last one has the signals.
            head: Head that retrieval compares, or None for the models' own choice.
            compares: If True, each model must have heads for retrieval.

        Returns:
            Trials of the test, keyed by cell and subject. Empty unless all signals are
            prepared.
        """
        trials = {}
        is_prepared = self.is_prepared
        if is_prepared:
            self._refuse_copied_people()
        test_split = splits[-1]
        for model in self.models:
            member = replace(model, head=head)
            model_files.require_weights(member.path)
            # each property raises an error if the heads do not fit
            _ = member.layout.compared_heads if compares else member.layout
            for split in splits:
                member.open_stores(split)
            for subject in member.cell.tested_on:
                # seen pictures are known only with the signals of all people
                if is_prepared:
                    trials[member.cell.name, subject] = member.open_trials(
                        subject,
                        test_split,
                        is_normalised=member.has_normaliser(subject),
                    )
                elif member.recordings.build_path(subject).is_file():
                    member.open_trials(
                        subject, test_split, is_tested=False, is_normalised=False
                    )
        return trials

    def prepare_signals(self, launch: Launch) -> None:
        """Create the missing signal stores of the test subjects.

        Raises:
            MissingData: if a store and its source recording are missing.
        """
        for variant in self.recipes:
            recordings = self.get_recordings(variant)
            recordings.prepare(self._list_test_subjects(variant), launch)
        self._refuse_copied_people()

    def _refuse_copied_people(self) -> None:
        """Raise an error if a subject's trials are copies of another subject's."""
        # equal numbers in another data set are other people
        people: list[int] = []
        if self.origin is None:
            for cell in self.cells:
                people += cell.trained_on
        for variant in self.recipes:
            subjects = self._list_test_subjects(variant)
            recordings = self.get_recordings(variant)
            recordings.require_distinct_people(subjects + people)

    def _list_test_subjects(self, variant: str) -> list[int]:
        """List the subjects that cells of a variant are tested on."""
        return list_test_subjects(
            cell for cell in self.cells if cell.variant == variant
        )

    def compare_pictures(self, split: str, fold: int = 1) -> TestedPictures:
        """Compare the pictures of a split with the training pictures of a fold."""

        def compare() -> TestedPictures:
            histories: dict[int, list[TrainingHistory]] = {}
            for model in self.models:
                if model.cell.fold != fold:
                    continue
                for subject in model.cell.tested_on:
                    histories.setdefault(subject, []).append(model.learned)
                    model.refuse_learned_trials(subject, split)
            return TestedPictures(
                self.dataset,
                split,
                fold,
                self.open_stores(split),
                histories,
                self.get_pixel_comparison(split),
                self.sources,
                self.allows_copies,
            )

        return self.compute_once(("tested pictures", split, fold), compare)

    def get_pixel_comparison(
        self, split: str, learned_split: str = "train"
    ) -> ComparePair:
        """Return a function that compares the pixels of test and training pictures.

        Args:
            split: Split of the test pictures.
            learned_split: Split of the training pictures.
        """

        def make() -> ComparePair:
            # training pictures are of this data set or of the data set of the training
            datasets = [self.dataset]
            if self._trained_on is not None:
                datasets.append(self._trained_on)
            image_ids = self.models[0].open_pictures(split).image_ids
            return PixelComparison(
                image_ids, self.dataset, split, datasets, learned_split
            )

        key = "copies", split, learned_split
        return self.compute_once(key, make, is_of_data=True)

    def list_caveats(self, split: str) -> list[str]:
        """List the caveats of measurements of these models on a split.

        For example, a new subject may be a training subject under another number.
        """
        people = self.dataset.people
        model_caveats = [model.learned.list_caveats(people) for model in self.models]
        for model in self.models:
            test_subjects = set(model.cell.tested_on)
            history = model.learned

            # a new subject is normalised by its own recordings
            training_subjects = {*model.cell.trained_on, *history.subjects}
            is_known = test_subjects <= training_subjects
            is_calibrated = (
                model.recordings.signal.normalise is not None
                and not model.recordings.signal.caveats
                and history.normaliser is None
            )
            if is_calibrated and (self.tests_new_subjects or not is_known):
                model_caveats.append([CALIBRATED])

            # a new number may be a person of the training
            known_people = set(history.people.get(people, ()))
            same_people: set[int] = set()
            for subject in test_subjects - known_people:
                same_people.update(self.dataset.same_person(subject))
            if known_people & same_people:
                model_caveats.append([SAME_PERSON])

        # caveats of signals and pictures
        is_mapped = (
            self.channel_mapping != "none"
            and self.describe_set_up(split)["channel_mapping"] != "none"
        )
        study = self.find_study(split)
        return merge_caveats(
            self.signal_caveats,
            [] if study is None else study.caveats,
            [CHANNELS_MAPPED] if is_mapped else [],
            *(self.compare_pictures(split, fold).caveats for fold in self.folds),
            *model_caveats,
        )

    def find_study(self, split: str) -> StudyDesign | None:
        """Describe the design of the study of all tested subjects on a split.

        Returns:
            The design. None for new clips of a film, whose labels are shifted along the
            film, or if all signals are missing.
        """
        holdout = self.dataset.holdout
        is_film = self.dataset.alike_by == "neighbours"
        if is_film and not holdout.has_seen_pictures:
            return None
        stored_split = holdout.name_stored_split(split)
        names = dict.fromkeys((stored_split, "train"))

        # recordings of each subject, and target stores, which may lack the training
        recordings: dict[int, dict[str, Trials]] = {}
        paths = []
        for model in self.models:
            for subject in model.cell.tested_on:
                path = model.recordings.build_path(subject)
                if subject in recordings or not path.is_file():
                    continue
                store = model.recordings.open_store(subject)
                recordings[subject] = {
                    name: store[name] for name in names if name in store.splits
                }
                paths.append(str(path))
        stores = {}
        for name in names:
            with suppress(MissingData):
                stores[name] = self.open_stores(split if name != "train" else name)
        if not recordings or stored_split not in stores:
            return None

        def describe() -> StudyDesign:
            from brainhive_cli.data.targets.likeness import find_features

            known = {
                subject: {name: splits[name] for name in splits if name in stores}
                for subject, splits in recordings.items()
            }
            pictures = {name: next(iter(stores[name].values())) for name in stores}
            return describe_study(
                holdout,
                known,
                pictures,
                split,
                lambda: find_features(stores),
                is_film=is_film,
            )

        encoders = (config.name for config in self.models[0].encoders)
        key = "study", *paths, split, *encoders
        return self.compute_once(key, describe, is_of_data=True)

    @cached_property
    def signal_caveats(self) -> list[str]:
        """Caveats of the signals that the cells are tested on."""
        caveats = []
        for variant in self.recipes:
            recordings = self.get_recordings(variant)
            caveats.append(recordings.list_caveats(self._list_test_subjects(variant)))
        return merge_caveats(*caveats)

    @property
    def signal_warnings(self) -> list[str]:
        """Warnings about signal stores that have changed since the training."""
        warnings: dict[str, None] = {}
        for model in self.models:
            variant = model.cell.variant
            recordings = self.get_recordings(variant)
            identities = recordings.collect_identities(
                self._list_test_subjects(variant)
            )
            for name, identity in identities.items():
                # a store of unknown identity counts as unchanged
                if identity != model.learned.signals.get(name, identity):
                    warnings[f"{name} has changed since models were trained on it"] = (
                        None
                    )
        return list(warnings)

    @property
    def modality(self) -> str:
        """Kind of the recordings: EEG, MEG or fMRI."""
        return self.models[0].layout.spec.modality

    def describe(self, split: str) -> dict[str, Any]:
        """Return facts about the run, the data set and the set-up on a split."""
        return {
            "run": make_portable(self.folder.reference),
            "runs": [self.name],
            "dataset": self.dataset.name,
            "modality": self.modality,
            "stimulus": self.dataset.stimulus,
            "mode": self.mode,
            "set_up": self.describe_set_up(split),
        }

    def describe_set_up(self, split: str) -> dict[str, Any]:
        """Describe the training of the models, and the signals of a split.

        Raises:
            BrainhiveError: if signals lack the channels, window or rate of a model.
        """

        def describe() -> dict[str, Any]:
            variants = dict.fromkeys(cell.variant for cell in self.cells)
            return merge_set_ups(
                [self._describe_variant(variant, split) for variant in variants]
            )

        return self.compute_once(("set-up", split), describe)

    def _describe_variant(self, variant: str, split: str) -> dict[str, Any]:
        """Describe the training of a variant, and the signals of a split."""
        # a run is described by its recipe, a model folder by its layout
        dataset = self.dataset
        recipe = self.recipes[variant]
        models = [model for model in self.models if model.cell.variant == variant]
        has_other_signals = self.origin is not None or self.channel_mapping != "none"
        layout = models[0].layout if self.is_model or has_other_signals else None
        if layout is not None and self.is_model:
            method = describe_model(layout, recipe.encoders, recipe.signal)
        else:
            method = describe_recipe(recipe, dataset.holdout)
        training = {"mode": self.mode, **method}

        # signals of each test subject, cut as in the training
        selections = []
        subjects = self._list_test_subjects(variant)
        recordings = self.get_recordings(variant).open_recordings(subjects, split)
        for subject, recording in recordings.items():
            source = f"{dataset.name} subject {subject}"
            if layout is not None and has_other_signals:
                selection = match_recording(
                    layout.spec,
                    recording,
                    recipe.signal,
                    dataset.channels,
                    source,
                    self.channel_mapping,
                )
            else:
                selection = recipe.signal.select(recording, dataset.channels, source)
            selections.append(selection)

        # selection of the epoch, unless a model does not record it or has no epochs
        backbone = recipe.backbone if layout is None else layout.backbone
        is_closed_form = parts.resolve("backbones", backbone).is_closed_form
        rules = dict.fromkeys(
            SELECTION_KEYS.get(model.learned.selection, "") for model in models
        )
        if not is_closed_form and "" not in rules:
            training["selection"] = " or ".join(rules)
        if self.channel_mapping != "none":
            mappings = dict.fromkeys(
                selection.mapping.description
                for selection in selections
                if selection.mapping
            )
            training["channel_mapping"] = " or ".join(mappings) or "none"
        return describe_run(dataset, subjects, training, selections, self.origin or "")


def _describe_training(path: Path, layout: Layout, is_same_data: bool) -> Recipe:
    """Make the recipe of a model folder, with its encoders and signal section alone.

    Args:
        path: Model folder or checkpoint.
        layout: Architecture of the model.
        is_same_data: True if the test has the data set of the training. Otherwise the
            selected channels are left out.

    Raises:
        MissingData: if an encoder is not named anywhere.
    """
    encoders = find_encoders(layout.encoders, read_run_encoders(path))
    unnamed_encoders = sorted(layout.encoders.keys() - encoders.keys())
    if unnamed_encoders:
        raise MissingData(
            f"the encoders of the embeddings {', '.join(unnamed_encoders)} of model "
            f"{path} are unknown",
            "name the run of the model: --run RUN",
        )
    fields = {}
    for key, value in layout.spec.signal.items():
        is_general = key in ("window_ms", "scale", "normalise", "normalise_trials")
        if is_same_data or is_general or key.startswith("region_"):
            fields[key] = value
    signal = documents.check(fields, f"{path}: spec.signal", Signal)
    return Recipe.model_construct(encoders=list(encoders.values()), signal=signal)


def open_model(
    reference: str | None,
    paths: Paths,
    dataset: Any = None,
    subjects: Sequence[int] | None = None,
    copies: str = "refuse",
    channel_mapping: ChannelChoice = "none",
) -> TrainedRun:
    """Open the models that a reference names.

    Args:
        reference: Reference of `find_reference`, or None for the newest run on the data
            set.
        paths: Folders of runs, signals and embeddings.
        dataset: Config of the data set of the test, if it is not the run's own.
        subjects: Subjects of the test, by default the subjects of the run.
        copies: With `allow`, copies of training pictures under other names are tested.
        channel_mapping: Treatment of channels that recordings lack.

    Raises:
        MissingData: if there are none.
    """
    run, variant = find_reference(reference, paths, dataset)
    return TrainedRun(
        run,
        variant,
        paths,
        dataset,
        subjects,
        allows_copies=copies == "allow",
        channel_mapping=channel_mapping,
    )


def refuse_sweep(run: TrainedRun) -> None:
    """Raise a RecipeError that lists the variants if a run is a sweep."""
    if run.variants:
        select_variant(run.recipes, "", run.folder.name)


def check_tokens(
    align: TrainedRun, prior: priors.Prior, source: str, dataset: Any
) -> None:
    """Check that the models of a run predict tokens of a prior's fusion encoder.

    Args:
        align: Run or model folder. All its cells have the same fuser.
        prior: Prior of the reconstruction.
        source: Reference of the prior.
        dataset: Config of the data set for the training in the hint.

    Raises:
        MissingData: if the fuser differs. The hint trains a model that fits.
    """
    import torch

    # the model was trained for this prior
    model = align.models[0].module
    prior_digest = model.layout.prior_digest
    if prior_digest and prior_digest == priors.describe(source).digest:
        return

    # or for another prior whose fuser has the same weights
    state = {} if model.fuser is None else model.fuser.state_dict()
    prior_state = {} if prior.fuser is None else prior.fuser.state_dict()
    is_equal = bool(state) and state.keys() == prior_state.keys()
    if is_equal:
        for key, value in prior_state.items():
            is_equal = state[key].shape == value.shape and torch.allclose(
                state[key], value.float().cpu()
            )
            if not is_equal:
                break
    if not is_equal:
        raise MissingData(
            f"{align.folder.path} was trained with another fusion encoder than "
            f"{source}",
            write_training(source, align.paths, dataset),
        )


def write_training(source: str, paths: Paths, dataset: Any) -> str:
    """Write the command line that trains for a prior and reconstructs pictures.

    Commands are joined by `&&`. The first makes embeddings, if some are missing.

    Args:
        source: Reference of the prior.
        paths: Folders of the recipe.
        dataset: Config of the data set, or None for the data set of the prior.
    """
    prior = priors.describe(source)
    arguments = []
    if prior.dims:
        arguments = write_prior_arguments("train-align", source, dataset)

    # without a recipe, the data set of the prior is the default
    has_prior_flag = ("prior", source) in arguments
    if dataset is None and has_prior_flag and prior.folder:
        fields = read_run_recipe(prior.folder).get("dataset")
        if fields:
            dataset = keep_if_recorded(parts.resolve("datasets", fields), paths)
    has_dataset_flag = has_prior_flag or not arguments
    flag = ("dataset", dataset if has_dataset_flag else None)
    reconstruct_arguments = write_prior_arguments("reconstruct", source, dataset)
    if not reconstruct_arguments:
        reconstruct_arguments = [("prior", source)]
    commands = [
        str(Line("train-align", flag, *arguments)),
        str(Line("reconstruct", *reconstruct_arguments)),
    ]

    # embed first if the targets are missing and the encoders are known by name
    with suppress(RecipeError):
        encoders = find_prior_encoders(source)
        default = Recipe.model_fields["dataset"].default
        pictures = dataset or parts.resolve("datasets", default)
        if not are_embedded(pictures.build(paths), encoders, paths):
            commands.insert(0, write_embed_commands(pictures, encoders))
    return " && ".join(commands)
