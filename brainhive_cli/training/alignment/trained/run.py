"""A trained brain model, and the run or folder that it is of, opened to be evaluated or
decoded with.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, product
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np

from brainhive_cli.core import console, documents, hub, parts, runs
from brainhive_cli.core.arrays import Bool, Float32, Int64
from brainhive_cli.core.command import Input
from brainhive_cli.core.errors import BrainhiveError, Line, MissingData, RecipeError
from brainhive_cli.core.facts import merge
from brainhive_cli.core.files import portable
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import (
    CALIBRATED,
    CHANNELS_MAPPED,
    SAME_PERSON,
    headlines,
    merge_caveats,
)
from brainhive_cli.core.recipe import Paths
from brainhive_cli.core.seeds import derive_seed
from brainhive_cli.core.sweep import variant_of, variants
from brainhive_cli.data.datasets import Dataset
from brainhive_cli.data.signals.channel_mapping import ChannelChoice
from brainhive_cli.data.signals.normalisations import Normaliser
from brainhive_cli.data.signals.overlap import Overlap
from brainhive_cli.data.signals.selection import Signal
from brainhive_cli.data.signals.trials import Trials
from brainhive_cli.data.stores.learned import (
    Confirm,
    Learned,
    TestedPictures,
    compare_on_pixels,
)
from brainhive_cli.data.stores.signal_store import Recordings
from brainhive_cli.data.stores.target_store import TargetStore
from brainhive_cli.data.targets.encoder_stores import (
    are_embedded,
    digest_of,
    encoders_around,
    encoders_by_key,
    encoders_of,
    match_keys,
    only_if_recorded,
    open_stores,
    recipe_around,
    refuse_others,
    store_inputs,
    write_embedding,
    write_prior,
)
from brainhive_cli.data.targets.model_input import (
    choose_input,
    match_recording,
    match_split,
    match_stimuli,
    measure_new_subject,
)
from brainhive_cli.measurement.interleaving import Interleaving, list_caveats
from brainhive_cli.models import priors
from brainhive_cli.models.heads import Decoded, refuse_other_target
from brainhive_cli.models.signal_spec import name_unit
from brainhive_cli.training.alignment import model_files
from brainhive_cli.training.alignment.layout import Layout
from brainhive_cli.training.alignment.recipe import (
    Cell,
    Recipe,
    cells_of,
    list_subjects,
)
from brainhive_cli.training.alignment.references import TRAINING, find_reference
from brainhive_cli.training.alignment.set_ups import (
    SELECTION,
    describe_model,
    describe_recipe,
    describe_run,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from brainhive_cli.data.targets.targets import EncoderGroup, OnlineTargets
    from brainhive_cli.measurement.retrieval import Gallery, Scores
    from brainhive_cli.training.alignment import model as aligners

T = TypeVar("T")
DEFAULT_UNIT = "µV"
"""Unit of continuous samples of a whitened store that does not say it: that of EEG."""
SIGNALS, PICTURES = 4000, 8192
"""Numbers encoded at once; signals a multiple of 20, the batches in which NEURONS'
weights were read.
"""


@dataclass(eq=False)
class TrainedRun:
    """A run of train-align, one variant of it, or a single model folder: its models,
    tested on a data set.

    Weights, signals and embeddings are not read before they are asked for.

    Attributes:
        folder: The run; or a model folder or published checkpoint, which is then the
            model of its only cell.
        variant: The only variant of a sweep; empty for a run without a sweep, and for
            all variants of one.
        paths: Where signals and embeddings lie.
        other_dataset: Config of another data set than the run's own, on which models
            are tested.
        subjects: Who is tested; None: those of the run, or everybody of another data
            set.
        chosen: The only cells that are asked for; None: all.
        sources: Other models in the results that learned from pictures, such as a
            prior, by name.
        allows_copies: Whether copies of learned pictures under other names are tested.
        channel_mapping: What to do about channels of the models that recordings lack,
            see `map_channels`.
        name: The run as a command line names it: its folder or name on the hub, and the
            variant of a sweep.
        reference: The run as a recipe and its fingerprint name it, wherever home lies.
        label: The run's part of the folder names of runs that use it.
        is_model: Whether it is a model folder, not a run.
        recipe: The run's own recipe, or that of the variant of a sweep; None for a
            model folder.
        recipes: The recipe of each variant, by label; of a model folder as much as it
            says of its training.
        variants: The variants of a sweep, where none was chosen.
        dataset_config: Config of `dataset`, the data set on which the models are
            tested.
        origin: Name of the data set that the models were trained on, when that is not
            `dataset`; empty when it is unknown: subjects are then known by their
            numbers. None when it is `dataset`.
        tests_new_subjects: Whether the subjects are known to be other people than those
            trained on, whatever their numbers.
        cells: The trainings, with the subjects that each is tested on: on another data
            set all of them, else those of its own who are asked for.
        models: The model of each cell.
        folds: Folds of the cells: one where nothing is held out in folds.
        mode: Relation between the subjects of training and of test.

    Raises:
        MissingData: if a model folder does not say its encoders, or is opened without
            data set and subjects; or if the data set has no such subject.
        RecipeError: if the data set holds out other folds than the run.
    """

    folder: runs.RunFolder
    variant: str = ""
    paths: Paths = field(default_factory=Paths)
    other_dataset: Any = None
    subjects: Sequence[int] | None = None
    chosen: Sequence[Cell] | None = None
    sources: Mapping[str, Learned] = field(default_factory=dict)
    allows_copies: bool = False
    channel_mapping: ChannelChoice = "none"
    _cache: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False)
    _data_cache: dict[Hashable, Any] = field(
        default_factory=dict, init=False, repr=False
    )

    def __post_init__(self) -> None:
        """Read the recipe, and find the cells and the subjects that they are tested
        on.
        """
        folder = self.folder
        path = folder.path
        self.name = folder.reference + (f":{self.variant}" if self.variant else "")
        self.reference = runs.reference(
            folder, self.paths.under_home("runs") / TRAINING, self.variant
        )
        self.label = "--".join(filter(None, [folder.label, self.variant]))

        # a run says which data set it is of, a model folder does not
        self.is_model = model_files.is_model(path)
        self.recipe: Recipe | None = None
        if self.is_model:
            if not (self.other_dataset and self.subjects):
                raise MissingData(
                    f"the model {path} does not say what to test it on",
                    f"--run {path} --dataset things-eeg --subjects 1",
                )
            self.dataset_config = self.other_dataset
        else:
            recipe = folder.recipe(Recipe, paths=self.paths)
            if self.variant:
                recipe = variant_of(variants(recipe), self.variant, folder.name)
            self.recipe = recipe
            self.dataset_config = self.other_dataset or recipe.dataset
        self.dataset: Dataset = self.dataset_config.build(self.paths)

        # what the models were trained on, and by which recipes
        people = self.dataset.people
        self.origin: str | None = None
        self._trained_on: Dataset | None = None
        if self.recipe is not None:
            # folds of another holdout would test seen trials
            self._trained_on = self.recipe.dataset.build(self.paths)
            if self.dataset.holdout != self._trained_on.holdout:
                raise RecipeError(
                    f"{path} does not hold out what dataset.holdout names",
                    "the run's own data set, which needs no --dataset; or another one "
                    "without dataset.holdout",
                )
            self.recipes = (
                {self.variant: self.recipe} if self.variant else variants(self.recipe)
            )
            if self._trained_on.people != people:
                self.origin = self._trained_on.name
            self.cells = self._list_cells(self._trained_on)
            modes = dict.fromkeys(recipe.mode for recipe in self.recipes.values())
            self.mode = " + ".join(modes)
        else:
            if self.dataset.holdout.divides_train:
                raise RecipeError(
                    f"the model {path} does not say which fold it is of",
                    "name its run: --run RUN, without --dataset",
                )
            from brainhive_cli.training.alignment import model as aligners

            model = aligners.load(path)
            layout, learned = model.layout, model.learned
            self._cache["described", path] = layout, learned
            if learned.recordings != people:
                self.origin = learned.dataset
            self.recipes = {
                "": _describe_training(path, layout, learned.recordings == people)
            }
            tested = tuple(self.source("").list_subjects(self.subjects))
            cell = Cell(path.name, layout.spec.subjects, tested, 0)
            self.cells = [cell] if self.chosen is None else [*self.chosen]
            # whether the history of the model knows the tested subjects
            self.mode = (
                "model folder "
                f"({learned.describe_subjects(people, self.cells[0].tested_on)})"
            )
        self.tests_new_subjects = bool(self.origin)
        self.variants = [] if len(self.recipes) == 1 else list(self.recipes)
        self.folds = sorted({cell.fold for cell in self.cells})
        self.models = [TrainedModel(self, cell) for cell in self.cells]

    def _list_cells(self, trained_on: Dataset) -> list[Cell]:
        """List the cells of a run, with the subjects that each is tested on."""
        if self.chosen is not None:
            return [*self.chosen]
        cells = cells_of(self.recipes, trained_on)
        if self.origin is None and self.subjects is None:
            return cells

        # on another data set every cell is tested on all of its subjects
        chosen = tuple(
            self.source(next(iter(self.recipes))).list_subjects(self.subjects)
        )
        if self.origin is not None:
            return [replace(cell, tested_on=chosen) for cell in cells if chosen]

        # of its own subjects each cell is tested on those that are asked for; a cell of
        # none is left out
        known = {*chain(*(cell.tested_on for cell in cells))}
        if absent := sorted({*chosen} - known):
            raise MissingData(
                f"no cell of {self.folder.path} is tested on subject "
                f"{', '.join(map(str, absent))}",
                f"it has: {', '.join(map(str, sorted(known)))}",
            )
        return [
            replace(cell, tested_on=tested)
            for cell in cells
            if (tested := tuple(s for s in cell.tested_on if s in chosen))
        ]

    def of_variant(self, label: str) -> Self:
        """Take one variant of an open sweep.

        Raises:
            MissingData: if it is tested on none of the subjects that were asked for.
        """
        # a variant may have no cell that tests the chosen subjects
        cells = [cell for cell in self.cells if cell.variant == label]
        if not cells:
            raise MissingData(
                f"{self.name}:{label} is not tested on these subjects", "subjects=null"
            )
        variant = replace(self, variant=label, chosen=cells)
        variant.share_data(self)
        return variant

    def share_data(self, other: Self) -> None:
        """Share with another run of the same data set what does not depend on models:
        open embeddings, orders of trials, and comparisons of pictures.
        """
        if self._data_identity == other._data_identity:
            self._data_cache = other._data_cache

    @property
    def _data_identity(self) -> tuple[Any, ...]:
        """Data sets of the test and of the training, and where they lie."""
        trained_on = None if self.recipe is None else self.recipe.dataset
        return self.paths, self.dataset_config, trained_on

    def once(
        self, key: Hashable, compute: Callable[[], T], is_of_data: bool = False
    ) -> T:
        """Compute something once for all cells; if it depends on the data alone, also
        for all runs that share them.
        """
        computed = self._data_cache if is_of_data else self._cache
        if key not in computed:
            computed[key] = compute()
        value: T = computed[key]
        return value

    def read_validation(self) -> dict[str, Any]:
        """Read the mean over cells of the headline metric on held-out training
        pictures, if there are any.

        Values of two runs can be compared where `measured_on` is the same.
        """
        # all cells must have the same headline metric
        scopes = {} if self.is_model else self.folder.measurements().scopes
        measured = [scopes.get(cell.name, {}) for cell in self.cells]
        name = next(iter(headlines(list(measured[0]))), "")
        if not all(name in metrics for metrics in measured):
            return {}

        # values are comparable for the same number of items and candidates
        metrics = [metrics[name] for metrics in measured]
        items = [[metric.n, metric.pool] for metric in metrics]
        measured_on = {"dataset": self.origin or self.dataset.name, "cells": items}
        return {
            "metric": name,
            "value": fmean(m.value for m in metrics),
            "measured_on": measured_on,
        }

    def source(self, variant: str, fold: int = 1) -> Recordings:
        """Return the signals that cells of a variant are tested on, in a fold."""
        return Recordings(self.dataset, self.paths, self.recipes[variant].signal, fold)

    def stores(self, split: str) -> dict[str, TargetStore]:
        """Open the embeddings that the first model takes; raises as
        `TrainedModel.stores`.
        """
        return self.models[0].stores(split)

    def inputs(self, splits: Sequence[str]) -> Iterator[Input]:
        """List what decoding reads: the run, signals of the tested subjects, and stores
        of some splits.

        A run's name tells it from others, a model folder's digest.
        """
        path, digest = self.folder.path, ""
        if self.is_model and path.is_dir():
            digest = hub.digest(path)
        elif self.is_model:
            digest = hub.digest(path.parent, [path.name])
        yield Input(f"run {self.name}", reference=self.name, digest=digest)

        # signals of the tested subjects, and the stores of each split
        for variant, recipe in self.recipes.items():
            yield from self.source(variant).inputs(self._tested_on(variant))
            for split in splits:
                yield from store_inputs(
                    self.dataset,
                    self.dataset_config,
                    split,
                    recipe.encoders,
                    self.paths,
                )

    @property
    def is_prepared(self) -> bool:
        """Whether the signals of everybody who is tested have been prepared."""
        return all(
            model.source.are_prepared(model.cell.tested_on) for model in self.models
        )

    def check(
        self, splits: Sequence[str], head: str | None = None, *, compares: bool = True
    ) -> dict[tuple[str, int], Trials]:
        """Refuse models, signals and embeddings that do not fit each other; neither
        weights nor signals are read.

        Args:
            splits: Splits whose embeddings are read; signals are those of the last.
            head: The only head by which models are compared.
            compares: Whether they are compared.

        Returns:
            Trials of each cell and subject, as they are tested; nothing before all
            signals are here.
        """
        trials = {}
        is_prepared = self.is_prepared
        if is_prepared:
            self._refuse_copied_people()
        for model in self.models:
            member = replace(model, head=head)
            model_files.require_weights(member.path)
            _ = member.layout.compared if compares else member.layout
            for split in splits:
                member.stores(split)
            for subject in member.cell.tested_on:
                # seen pictures can be left out once the signals of all people are here
                if is_prepared:
                    trials[member.cell.name, subject] = member.trials(
                        subject,
                        splits[-1],
                        is_normalised=member.has_normaliser(subject),
                    )
                elif member.source.path(subject).is_file():
                    member.trials(
                        subject, splits[-1], is_tested=False, is_normalised=False
                    )
        return trials

    def prepare_signals(self, launch: Launch) -> None:
        """Create the missing signal stores of the subjects that cells are tested on.

        Raises:
            MissingData: if a store is absent, and the recording that it would be made
                from.
        """
        for variant in self.recipes:
            self.source(variant).prepare(self._tested_on(variant), launch)
        self._refuse_copied_people()

    def _refuse_copied_people(self) -> None:
        """Refuse people whose trials are copies of another one's."""
        # people of another data set are others, whatever their numbers
        trained = [] if self.origin is not None else self.cells
        people = [*chain(*(cell.trained_on for cell in trained))]
        for variant in self.recipes:
            tested = self._tested_on(variant)
            self.source(variant).refuse_copied_people([*tested, *people])

    def _tested_on(self, variant: str) -> list[int]:
        """List the subjects that cells of a variant are tested on."""
        people = [cell.tested_on for cell in self.cells if cell.variant == variant]
        return sorted({*chain(*people)})

    def tested_pictures(self, split: str, fold: int = 1) -> TestedPictures:
        """Compare the pictures of a split with those that were learned from, once; in
        one fold.
        """

        def compare() -> TestedPictures:
            # all models of a subject, in this fold
            models: dict[int, list[Learned]] = {}
            for model in self.models:
                for subject in model.cell.tested_on if model.cell.fold == fold else ():
                    models.setdefault(subject, []).append(model.learned)
                    model.refuse_learned_trials(subject, split)
            return TestedPictures(
                self.dataset,
                split,
                fold,
                self.stores(split),
                models,
                self.confirm_copy(split),
                self.sources,
                self.allows_copies,
            )

        return self.once(("tested pictures", split, fold), compare)

    def confirm_copy(self, split: str, learned_split: str = "train") -> Confirm:
        """Compare pictures of a split with learned ones, where both are on this
        machine.
        """
        dataset = self.dataset

        def open_pictures() -> Confirm:
            # learned pictures may be of this data set or of that of the training
            sets = [each for each in (dataset, self._trained_on) if each is not None]
            ids = self.models[0].pictures(split).image_ids
            return compare_on_pixels(ids, dataset, split, sets, learned_split)

        key = "copies", split, learned_split
        return self.once(key, open_pictures, is_of_data=True)

    def caveats(self, split: str) -> list[str]:
        """Caveats of every number that depends on the run's models, tested on a
        split.
        """
        # caveats of the models, and of subjects that had a part in their own
        # normalisation
        model_caveats = [model.learned.caveats for model in self.models]
        for model in self.models:
            cell, learned = model.cell, model.learned
            is_known = {*cell.tested_on} <= {*cell.trained_on, *learned.subjects}
            # recordings of a subject who was not trained on have a part in the
            # normalisation
            is_calibrated = (
                model.source.signal.normalise is not None and learned.normaliser is None
            )
            if is_calibrated and (self.tests_new_subjects or not is_known):
                model_caveats.append([CALIBRATED])
            # another recording of a tested person may have been learned from
            known = {*learned.people.get(self.dataset.people, ())}
            new = {*cell.tested_on} - known
            if known & {*chain(*map(self.dataset.same_person, new))}:
                model_caveats.append([SAME_PERSON])

        # caveats of pictures and signals
        is_mapped = (
            self.channel_mapping != "none"
            and self.set_up(split)["channel_mapping"] != "none"
        )
        orders = list[Interleaving]()
        for model in self.models:
            for subject in model.cell.tested_on:
                # a model may be opened where no signals are
                with suppress(MissingData):
                    orders.append(model.find_order(subject, split))
        has_seen = self.dataset.holdout.shows_seen and split == "test"
        return merge_caveats(
            self.signal_caveats,
            list_caveats(orders, has_seen),
            [CHANNELS_MAPPED] if is_mapped else [],
            *(self.tested_pictures(split, fold).caveats for fold in self.folds),
            *model_caveats,
        )

    @cached_property
    def signal_caveats(self) -> list[str]:
        """Caveats of every number that depends on the signals that the run's cells are
        tested on.
        """
        return merge_caveats(
            *(
                self.source(label).caveats(self._tested_on(label))
                for label in self.recipes
            )
        )

    @property
    def signal_warnings(self) -> list[str]:
        """Name the stores that were written anew, with other signals, since a model was
        trained on them.
        """
        changed: dict[str, None] = {}
        for model in self.models:
            variant, there = model.cell.variant, model.learned.signals
            here = self.source(variant).identities(self._tested_on(variant))
            # a store of unknown identity counts as unchanged
            changed |= dict.fromkeys(
                f"{name} has changed since models were trained on it"
                for name in here
                if here[name] != there.get(name, here[name])
            )
        return [*changed]

    @property
    def modality(self) -> str:
        """Kind of the recordings: EEG, MEG or fMRI."""
        return self.models[0].layout.spec.modality

    def describe(self, split: str) -> dict[str, Any]:
        """Give the facts on which run is tested, on which data set, and the set-up of a
        split.
        """
        return {
            "run": portable(self.folder.reference),
            "runs": [self.name],
            "dataset": self.dataset.name,
            "modality": self.modality,
            "stimulus": self.dataset.stimulus,
            "mode": self.mode,
            "set_up": self.set_up(split),
        }

    def set_up(self, split: str) -> dict[str, Any]:
        """Describe how the models were trained, and the signals of a split that they
        are tested on.

        Raises:
            BrainhiveError: if signals do not have the channels, window or rate that a
                model takes.
        """
        # variants may differ in their signals, so each is described before they are
        # merged
        variants = dict.fromkeys(cell.variant for cell in self.cells)
        return self.once(
            ("set-up", split),
            lambda: merge([self._set_up(name, split) for name in variants]),
        )

    def _set_up(self, variant: str, split: str) -> dict[str, Any]:
        # a run is described by its recipe, a model folder by its layout
        dataset, recipe = self.dataset, self.recipes[variant]
        tested = self._tested_on(variant)
        models = [model for model in self.models if model.cell.variant == variant]
        is_matched = self.origin is not None or self.channel_mapping != "none"
        layout = models[0].layout if self.is_model or is_matched else None
        if layout is not None and self.is_model:
            trained = describe_model(layout, recipe.encoders, recipe.signal)
        else:
            trained = describe_recipe(recipe, dataset.holdout)

        # the signals of each tested subject, matched to those of the training
        selections = []
        recordings = self.source(variant).recordings(tested, split)
        for subject, recording in recordings.items():
            options = dataset.channels, f"{dataset.name} subject {subject}"
            if layout is not None and is_matched:
                mapped = recipe.signal, *options, self.channel_mapping
                selections.append(match_recording(layout.spec, recording, *mapped))
            else:
                selections.append(recipe.signal.select(recording, *options))

        # selection of the epoch, if every model states it; a closed form has no epochs
        trained = {"mode": self.mode, **trained}
        backbone = parts.resolve(
            "backbones", layout.backbone if layout else recipe.backbone
        )
        selected = dict.fromkeys(
            SELECTION.get(model.learned.selection, "") for model in models
        )
        if not backbone.is_closed_form and "" not in selected:
            trained["selection"] = " or ".join(selected)
        # what replaced channels that recordings lack
        if self.channel_mapping != "none":
            words = dict.fromkeys(
                chosen.mapping.words for chosen in selections if chosen.mapping
            )
            trained["channel_mapping"] = " or ".join(words) or "none"
        return describe_run(dataset, tested, trained, selections, self.origin or "")


@dataclass(eq=False)
class TrainedModel:
    """The model of one cell; its weights are loaded when they are first asked for.

    Attributes:
        run: The run, or model folder, that it is of.
        cell: Its training, with the subjects that it is tested on.
        device: Where it computes.
        head: The only head by which it is compared; None leaves it to the model.
        path: The folder of the model.
        source: Signals of the cell's fold.
        encoders: Encoders whose embeddings it was trained to predict.
    """

    run: TrainedRun
    cell: Cell
    device: torch.device | str = "cpu"
    head: str | None = None

    def __post_init__(self) -> None:
        """Find the model's folder, the signals and the encoders."""
        run, cell = self.run, self.cell
        self.path = run.folder.path
        if not run.is_model:
            self.path = self.path / "cells" / cell.name / "model"
        self.source = run.source(cell.variant, cell.fold)
        self.encoders = run.recipes[cell.variant].encoders

    @cached_property
    def module(self) -> aligners.Aligner:
        """The network.

        Raises:
            RecipeError: if it has no such head.
        """
        from brainhive_cli.training.alignment import model as aligners

        layout = self.layout
        module = aligners.load(self.path).to(self.device)
        module.layout = layout
        return module

    @cached_property
    def _described(self) -> tuple[Layout, Learned]:
        """Its architecture and the record of its training, as its folder says them;
        once for all that open it.
        """

        def read() -> tuple[Layout, Learned]:
            if self.run.is_model:
                from brainhive_cli.training.alignment import model as aligners

                model = aligners.load(self.path)
                return model.layout, model.learned
            fields, learned = model_files.read_config(self.path)
            file = str(self.path / "config.json")
            return documents.check(fields, file, Layout, model_files.WAY), learned

        return self.run.once(("described", self.path), read)

    @cached_property
    def layout(self) -> Layout:
        """Its architecture, in which retrieval compares the requested head alone.

        Raises:
            RecipeError: if it has no such head.
        """
        layout, _ = self._described
        if self.head is not None:
            layout = replace(layout, retrieval_heads=(self.head,))
            layout.check()
        return layout

    @cached_property
    def learned(self) -> Learned:
        """Record of its training data, with all that it started from.

        Raises:
            BrainhiveError: if a subject who is to be new to it is among these.
        """
        (_, learned), run, cell = self._described, self.run, self.cell

        # a subject who is tested as new must be absent from the complete history
        recipe = run.recipes.get(cell.variant)
        if run.tests_new_subjects or (recipe is not None and recipe.mode == "inter"):
            model = f"{run.name}, {cell.name},"
            learned.refuse_subjects(run.dataset, cell.tested_on, model)
        return learned

    def refuse_learned_trials(self, subject: int, split: str) -> None:
        """Refuse trials that the model learned from; of a person who is new to it, any
        trial.

        Raises:
            BrainhiveError: naming the first; of trials that a fold holds out,
                `match_split` raises it.
        """
        run = self.run
        learned = self.learned
        source = self.run.source(self.cell.variant)
        is_known = subject in learned.subjects and not run.tests_new_subjects
        stored = source.open(subject).splits if source.path(subject).is_file() else {}
        for name, recording in stored.items():
            # any split of a new person, the tested split of a known one
            if not is_known or name == split != "train":
                recording.refuse_copies(
                    learned.trials,
                    f"{run.dataset.name} subject {subject} {name}",
                    f"trials that {run.name} learned from",
                    "test on other people, or recordings of another day",
                )

    def stores(self, split: str) -> dict[str, TargetStore]:
        """Open the embeddings that the model takes.

        Raises:
            BrainhiveError: if they were made in another way than those that it was
                trained on.
        """
        # cells with the same encoders share the open stores
        run, encoders = self.run, self.encoders
        wanted = run.dataset, run.dataset_config, split, encoders, run.paths
        stores = run.once(
            ("stores", split, *(config.name for config in encoders)),
            lambda: open_stores(*wanted),
            is_of_data=True,
        )
        # a run records which embeddings it was trained on, a model folder does not
        if not run.is_model:
            refuse_others(run.folder, stores)
        return stores

    def pictures(self, split: str) -> TargetStore:
        """Open one of the target stores; all have the same rows."""
        return next(iter(self.stores(split).values()))

    def rows(self, split: str) -> Int64:
        """Find the rows of the pictures of a split that have targets; in the cell's
        fold.

        A category that no trial shows is none of them.
        """
        store = self.pictures(split)
        # rows [M] that the holdout of this fold selects
        is_listed = store.done & self.run.dataset.holdout.choose_stimuli(
            store, split, self.cell.fold
        )

        def find_shown() -> Bool:
            # categories [M] that a trial shows, in training or test; all where no
            # signals are here
            people = list_subjects(self.run.cells)
            is_shown = np.zeros(len(store.image_ids), bool)
            for person, part in product(people, sorted({split, "train"})):
                with suppress(MissingData):
                    trials = match_split(self.source, person, part, store)
                    is_shown[trials.stimulus] = True

            if not is_shown.any():  # no signals here: any category may be a candidate
                return ~is_shown
            if absent := [store.image_ids[row] for row in np.flatnonzero(~is_shown)]:
                console.warn(
                    f"no trial shows {', '.join(absent)}: left out of the candidates"
                )
            return is_shown

        if self.run.dataset.are_categories:
            is_listed &= self.run.once(("shown categories", split), find_shown)
        return np.flatnonzero(is_listed)

    def images(self, split: str, rows: Int64, without: str = "") -> Tensor:
        """Encode the pictures of some rows as the vectors [M, D] that retrieval
        compares.

        Args:
            split: Whose pictures.
            rows: Which of them.
            without: Key of an embedding that is replaced by its mean over these
                pictures.

        Raises:
            BrainhiveError: if a head predicts embeddings of other weights than a store
                has.
        """
        import torch

        from brainhive_cli.data.targets.targets import Targets

        # keys of the embeddings in the model
        stores, layout = self.stores(split), self.module.layout
        keys = layout.encoders
        # BrainHiVE's own folders know encoders by its names for them
        if not stores.keys() <= keys.keys():
            keys = match_keys(
                self.encoders, layout.dims, f"the model {self.run.folder.path}"
            )

        # open the stores of the compared heads, with the weights that the heads were
        # trained on
        stores = {
            name: store
            for name, store in stores.items()
            if keys[name] in layout.compared_keys
        }
        for (name, head), (encoder, store) in product(
            layout.heads.items(), stores.items()
        ):
            if keys[encoder] == head.target:
                refuse_other_target(name, head, digest_of(store), str(store.path))

        # targets from stores, and from the network that learned with the model
        stored = Targets.of(stores, Launch(0, 1, self.module.device), keys, hold=False)
        targets = Targets({**stored.sources, **self._compute_adapted(split, keys)})

        # encode in blocks: tokens [M, D]; an ablated embedding is replaced by its mean
        tokens = []
        if without:
            ablated = Targets({without: targets.sources[without]})
            mean = ablated.gather(rows)[without].mean(0)
        for part in np.array_split(rows, max(1, -(-len(rows) // PICTURES))):
            with torch.inference_mode():
                embeddings = targets.gather(part)
                if without:
                    embeddings[without] = mean.expand_as(embeddings[without])
                tokens.append(self.module.encode_image(embeddings).float())
        return torch.cat(tokens)

    def _compute_adapted(
        self, split: str, keys: Mapping[str, str]
    ) -> dict[str, OnlineTargets]:
        """Compute what the network that learned with the model gives, by key.

        Raises:
            BrainhiveError: if its weights are not those that the model changes, or the
                pictures not those of the store.
        """
        from brainhive_cli.data.targets.targets import compute_online, grouped

        run, adapter = self.run, self.module.adapter
        if adapter is None:
            return {}
        described = self.module.layout.adapter
        names, digest = described["encoders"], described["digest"]

        def open_network() -> EncoderGroup:
            configs = [config for config in self.encoders if config.name in names]

            # these encoders are outputs of one network, which the model changes
            group = grouped(configs, "fp32", Launch(0, 1, self.module.device))[0]
            if group.digest != digest:
                raise BrainhiveError(
                    f"{run.folder.path} changes weights {digest}, and {names[0]} has "
                    f"{group.digest}",
                    "the weights that it was trained with",
                )
            return group

        # the changed network encodes the pictures anew
        group = run.once(("network", *names), open_network)
        adapter.attach(group.network.module)
        images = run.dataset.images(run.dataset.holdout.stored_split(split))
        return compute_online(group, images, self.pictures(split), keys)

    def decoded(self, subject: int, split: str) -> tuple[Decoded, Int64]:
        """Decode a subject's averaged signals, once: answers that are sampled are then
        the same for everyone.

        Returns:
            Heads [N, *shape], and the row of each one's picture [N].
        """
        import torch

        # one seed for each signal, by the cell and the picture
        trials, module = self.trials(subject, split), self.module
        seeds = [
            derive_seed(self.cell.seed, zlib.crc32(image_id.encode()))
            for image_id in self.pictures(split).image_ids[trials.stimulus]
        ]

        def decode() -> Decoded:
            blocks = []
            for start in range(0, len(seeds), SIGNALS):  # [SIGNALS, C, T] at a time
                part = slice(start, start + SIGNALS)
                signal = torch.from_numpy(trials.read(part)).to(module.device)
                index = self.index(subject, len(signal))
                blocks.append(module.decode(signal, index, seeds[part]).float())
            return Decoded.join(blocks)

        key = "decoded", self.cell.name, subject, split
        return self.run.once(key, decode), trials.stimulus

    def encode(self, trials: Trials, signals: Tensor | None = None) -> Tensor:
        """Encode a subject's trials as the vectors [N, D] that retrieval compares.

        Args:
            trials: As `trials` opens them.
            signals: [N, C, T] instead of their averages, as with a part of these
                replaced.
        """
        import torch

        module, subject = self.module, trials.subject
        # [N, C, T]
        signals = torch.from_numpy(trials.averages) if signals is None else signals
        with torch.inference_mode():
            tokens = [
                module.encode_signal(
                    part.to(module.device), self.index(subject, len(part))
                ).float()
                for part in signals.split(SIGNALS)
            ]
        return torch.cat(tokens)

    def rank(
        self,
        trials: Trials,
        gallery: Gallery,
        images: Tensor | None = None,
        tokens: Tensor | None = None,
    ) -> Scores:
        """Rank what each trial showed among the pictures of a gallery.

        Args:
            trials: As `trials` opens them, of pictures of the gallery's first split.
            gallery: The candidates.
            images: [M, D] what `images` gives of them, where it is known.
            tokens: [N, D] what `encode` gives of the trials, where it is known.
        """
        import torch

        from brainhive_cli.measurement.retrieval import Scores, rank

        # vectors of the candidates [M, D] and of the trials [N, D], unless the caller
        # has them
        if images is None:
            images = torch.cat([self.images(*each) for each in gallery.rows.items()])
        if tokens is None:
            tokens = self.encode(trials)

        # rows are ascending: bisection gives the candidate that each trial showed
        seen = np.searchsorted(gallery.tested, trials.stimulus)
        names, concepts = (
            [listed[row] for row in seen]
            for listed in (gallery.image_ids, gallery.concepts)
        )
        items = {trials.subject: Scores(names, names, concepts)}
        return rank(gallery, images, {trials.subject: tokens}, items)[trials.subject]

    def predict(self, subject: int, signal: Tensor) -> dict[str, Tensor]:
        """Predict the heads of a subject's signals [N, C, T], float32 [N, *shape];
        nothing is sampled.
        """
        import torch

        module = self.module
        with torch.inference_mode():
            heads = module.predict(
                signal.to(module.device), self.index(subject, len(signal))
            )
            return {head: values.float() for head, values in heads.items()}

    def index(self, subject: int, count: int) -> Tensor | None:
        """Give the subject index of signals [N]; None for a subject who was not trained
        on.
        """
        known = None if self.run.tests_new_subjects else subject
        return self.module.index_of(known, count)

    def name_trials(self, subject: int, split: str) -> tuple[list[str], list[str]]:
        """Name each of a subject's held-out trials, and its run or session, [N]; none
        of other designs.

        The names of a subject's trials are those of no other, as nobody else was there.
        """
        # only held-out trials in groups (runs or sessions) have such names
        holdout = self.run.dataset.holdout
        if split != "test" or not holdout.shows_seen:
            return [], []
        trials = self.trials(subject, split)
        groups = holdout.name_groups(trials, f"subject {subject}", self.cell.fold)
        # the number tells repetitions of one picture apart
        shown = self.pictures(split).image_ids[trials.stimulus]
        numbered = enumerate(zip(shown, groups, strict=True), 1)
        return [
            f"{name}, {group}, trial {number}" for number, (name, group) in numbered
        ], groups

    def interleaving(self, trials: Trials, split: str) -> Interleaving:
        """Find which of a subject's trials [N] may exchange labels, as far as time is
        known.

        The order of all trials is looked at, those that the cell's fold has learned
        from included.
        """
        # from the order of all trials to the tested ones
        order = self.find_order(trials.subject, split)
        return order.take(np.asarray(trials.index))

    def find_order(self, subject: int, split: str) -> Interleaving:
        """Find which of all trials of a subject in a split may exchange labels."""
        from brainhive_cli.data.targets.likeness import find_features

        dataset = self.run.dataset

        def find() -> Interleaving:
            return dataset.holdout.find_interleaving(
                self.source.open(subject)[dataset.holdout.stored_split(split)],
                self.pictures(split),
                split,
                f"{dataset.name} subject {subject}",
                has_order=dataset.alike_by == "neighbours",
                features=lambda: find_features(self.stores(split).values()),
            )

        # cells of the same encoders have the same order
        encoders = (config.name for config in self.encoders)
        key = "order", self.source.path(subject), split, *encoders
        return self.run.once(key, find, is_of_data=True)

    def find_overlap(self, trials: Trials, split: str) -> Overlap | None:
        """Find by how much the windows that the model reads of a subject overlap."""
        stored = self.run.dataset.holdout.stored_split(split)
        recording = self.source.open(trials.subject)[stored]
        return Overlap.of([recording], trials.times_s)

    def trials(
        self,
        subject: int,
        split: str,
        *,
        is_tested: bool = True,
        recording: Trials | None = None,
        is_normalised: bool = True,
    ) -> Trials:
        """Open a subject's trials as the model reads them.

        Args:
            subject: Whose.
            split: Of the data set.
            is_tested: Whether they test the model: those of pictures that were seen in
                training, validation included, are then left out, and what is read is
                kept for the cells that follow.
            recording: Trials of the split that no store holds; default: those of the
                subject's store.
            is_normalised: Whether they are normalised.

        Raises:
            BrainhiveError: if the recording is not what the model takes, or too many
                pictures were seen.
        """

        def choose() -> Trials:
            # trials of the recording, or of the store of the subject
            run, spec, source = self.run, self.layout.spec, self.source
            where, is_same_store = f"{run.dataset.name} subject {subject}", False
            if recording is not None:
                where = f"the recording of subject {subject}"
                trials = replace(recording, subject=subject)
                if len(recording.image_ids):  # else nobody knows what was seen
                    trials = match_stimuli(trials, self.pictures(split), where)
            else:
                # stores of one preparation lie in one folder
                folder = source.name_of(subject).rpartition("/")[0]
                is_same_store = any(
                    name.rpartition("/")[0] == folder
                    for name in self._described[1].signals
                )
                trials = match_split(source, subject, split, self.pictures(split))

            # match channels and window to the input of the model
            options = run.dataset.channels, is_same_store, run.channel_mapping
            trials = choose_input(spec, trials, where, *options)
            if not run.tests_new_subjects:
                spec.refuse_other_voxels(
                    subject, trials.signal.shape[2], trials.regions, f"{where} {split}"
                )

            # leave out pictures that were seen in training
            if is_tested and len(trials.image_ids):
                trials = trials.take(~self.seen(subject, split, trials.stimulus))
            if not is_normalised:
                return trials
            return trials.normalise(self.find_normaliser(subject, split, is_same_store))

        # only plain tested trials are shared between cells
        if recording is not None or not is_tested or not is_normalised:
            return choose()
        return self.once("trials", subject, split, choose)

    def find_normaliser(
        self, subject: int, split: str, is_same_store: bool = False
    ) -> Normaliser | None:
        """Find what normalises a subject's signals: of new subjects, their own training
        signals say it.

        Args:
            subject: Whose signals.
            split: Of the data set, whose pictures are in the target stores.
            is_same_store: As for `choose_input`.

        Returns:
            The normaliser; None where signals are not normalised.
        """
        # statistics of the training, if the model has them for this subject
        normaliser = self._normaliser(subject)
        if normaliser is not None or self.source.signal.normalise is None:
            return normaliser
        # otherwise those of the new subject's own training signals
        options = self.pictures(split), is_same_store, self.run.channel_mapping
        return measure_new_subject(self.layout.spec, self.source, subject, *options)

    def recorded_unit(self, subject: int) -> str:
        """Give the unit of a subject's continuous samples, as stores of whitened
        signals say it.
        """
        units = (
            facts["recorded_unit"]
            for facts in self._stored_facts(subject)
            if "recorded_unit" in facts
        )
        return name_unit(next(units, DEFAULT_UNIT))

    def delay_s(self, subject: int) -> float:
        """Give the seconds from events to pictures on the screen, which `prepare` added
        for a subject.
        """
        delays_ms = (
            facts["preparation"].get("delay_ms", 0.0)
            for facts in self._stored_facts(subject)
            if "preparation" in facts
        )
        return float(next(delays_ms, 0.0)) / 1000

    def _stored_facts(self, subject: int) -> Iterator[Mapping[str, Any]]:
        """Yield the provenance of a subject's store, then of those of the training."""
        for person in (subject, *self.cell.trained_on):
            if self.source.path(person).is_file():
                for recording in self.source.open(person).splits.values():
                    yield recording.provenance
                    yield from recording.provenance.get("sessions", ())

    def shown(self, subject: int, split: str) -> Int64:
        """Find the rows of all pictures that a subject was shown, those that are left
        out included.
        """

        return np.unique(
            self.trials(subject, split, is_tested=False, is_normalised=False).stimulus
        )

    def mean_training_signal(self, subject: int) -> Float32:
        """Average a subject's training signals over pictures: [C, T]; kept for the
        cells that follow.
        """

        return self.once(
            "mean",
            subject,
            "train",
            lambda: self.trials(subject, "train", is_tested=False).averages.mean(0),
        )

    def seen(self, subject: int, split: str, rows: Int64) -> Bool:
        """Find the signals [N] of pictures that a model which is tested on the subject
        learned from.

        So did what it started from; copies count. Whatever tests a model leaves these
        out, and asks here.

        Args:
            subject: Whose signals.
            split: Of the data set.
            rows: [N] row of what each signal shows.

        Raises:
            BrainhiveError: if they are too many.
        """
        tested = self.run.tested_pictures(split, self.cell.fold)
        is_seen = tested.find_seen(
            subject, rows, f"{self.run.folder.path}, {self.cell.name},"
        )

        # warn once for each split and fold, whichever cell comes first
        warned = "warned of pictures", split, self.cell.fold
        self.run.once(warned, lambda: [*map(console.warn, tested.warnings)])
        return is_seen

    def has_normaliser(self, subject: int) -> bool:
        """Return True if a subject's signals are normalised without reading others."""
        is_normalised = self.source.signal.normalise is not None
        return not is_normalised or self._normaliser(subject) is not None

    def _normaliser(self, subject: int) -> Normaliser | None:
        """Return what normalises a subject's signals; None: the subject's own training
        signals do.
        """
        _, learned = self._described
        return (
            learned.normaliser
            if self.run.tests_new_subjects
            else learned.normaliser_of(subject)
        )

    def once(self, what: str, subject: int, split: str, compute: Callable[[], T]) -> T:
        """Compute something from a subject's signals once, for all cells that take the
        same ones.
        """
        # everything that changes the signals is part of the key
        normaliser = self._normaliser(subject)
        key = (
            what,
            subject,
            split,
            self.cell.fold,
            self.layout.spec.names,
            self.source.signal.model_dump_json(),
            normaliser and normaliser.digest,
            self.run.channel_mapping,
        )
        return self.run.once(key, compute)


def _describe_training(path: Path, layout: Layout, is_same: bool) -> Recipe:
    """Describe the training of a model folder as far as it says: encoders, and how
    signals are read.

    Raises:
        MissingData: if an encoder is nowhere named.
    """
    # the encoders that made its targets
    encoders = encoders_by_key(layout.encoders, encoders_around(path))
    if nameless := sorted(layout.encoders.keys() - encoders.keys()):
        raise MissingData(
            f"the model {path} takes embeddings {', '.join(nameless)}, and nothing "
            "says what made them",
            "name the run that it is of",
        )

    # of another data set's signals, it reads the same window in the same way, and its
    # sets of regions
    fields = {
        key: value
        for key, value in layout.spec.signal.items()
        if is_same
        or key in ("window_ms", "scale", "normalise", "normalise_trials")
        or key.startswith("region_")
    }
    signal = documents.check(fields, f"{path}: spec.signal", Signal)
    return Recipe.model_construct(encoders=[*encoders.values()], signal=signal)


def open_model(
    reference: str | None,
    paths: Paths,
    dataset: Any = None,
    subjects: Sequence[int] | None = None,
    copies: str = "refuse",
    channel_mapping: ChannelChoice = "none",
) -> TrainedRun:
    """Open what a reference names, as `find_reference` does, on a data set and
    subjects.

    Args:
        reference: How it is named; None: the newest run on the data set.
        paths: Where runs, signals and embeddings lie.
        dataset: Config of another data set than a run's own: zero-shot.
        subjects: Who is tested on; default: those of the run.
        copies: `allow` tests copies of learned pictures under other names, too.
        channel_mapping: What to do about channels of the models that recordings lack.

    Raises:
        MissingData: if there is none.
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
    """Refuse a sweep where one run is needed.

    Raises:
        RecipeError: listing its variants.
    """
    if run.variants:
        variant_of(run.recipes, "", run.folder.name)


def check_tokens(
    align: TrainedRun, prior: priors.Prior, source: str, dataset: Any
) -> None:
    """Refuse a run whose tokens are not those of a prior with a fuser.

    Args:
        align: The run, or a single model; all its cells have one fuser.
        prior: What it is to decode for.
        source: What the user calls the prior.
        dataset: Config of the data set that what would fit is trained on.

    Raises:
        MissingData: naming the run, the prior, and what trains one that fits.
    """
    import torch

    # it was trained for this prior
    model = align.models[0].module
    known = model.layout.prior_digest
    if known and known == priors.describe(source).digest:
        return

    # or for one of the same fuser: equal weights, whichever prior they were read from
    state, prior_state = (
        {} if fuser is None else fuser.state_dict()
        for fuser in (model.fuser, prior.fuser)
    )
    if (
        not state
        or state.keys() != prior_state.keys()
        or not all(
            state[key].shape == value.shape
            and torch.allclose(state[key], value.float().cpu())
            for key, value in prior_state.items()
        )
    ):
        raise MissingData(
            f"{align.folder.path} was trained against another fusion encoder than "
            f"that of {source}",
            write_training(source, align.paths, dataset),
        )


def write_training(source: str, paths: Paths, dataset: Any) -> str:
    """Write the command lines that lead to pictures, on the data set in use or else
    that of the prior.
    """
    described = priors.describe(source)
    arguments = write_prior("train-align", source, dataset) if described.dims else []

    # a recipe names its own data set; without one in use, take the one that the prior
    # was trained on
    is_prior = ("prior", source) in arguments
    if dataset is None and is_prior and (folder := described.folder):
        of = recipe_around(folder).get("dataset")
        dataset = of and only_if_recorded(parts.resolve("datasets", of), paths)
    flag = ("dataset", dataset if is_prior or not arguments else None)
    drawing = write_prior("reconstruct", source, dataset) or [("prior", source)]
    lines = [Line("train-align", flag, *arguments), Line("reconstruct", *drawing)]

    # what the brain model is trained to predict comes first, unless the prior's
    # encoders have no known names
    with suppress(RecipeError):
        default, encoders = Recipe.model_fields["dataset"].default, encoders_of(source)
        pictures = dataset or parts.resolve("datasets", default)
        if not are_embedded(pictures.build(paths), encoders, paths):
            return " && ".join([write_embedding(pictures, encoders), *map(str, lines)])
    return " && ".join(map(str, lines))
