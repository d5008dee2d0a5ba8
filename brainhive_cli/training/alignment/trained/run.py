"""Trained brain models, loaded from a run, a model folder or the hub."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Self, TypeVar

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
from brainhive_cli.measurement.interleaving import Interleaving, list_caveats
from brainhive_cli.models import priors
from brainhive_cli.training.alignment import model_files
from brainhive_cli.training.alignment.cells import Cell, list_cells
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

if TYPE_CHECKING:
    pass

T = TypeVar("T")


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
    selected_cells: Sequence[Cell] | None = None
    sources: Mapping[str, TrainingHistory] = field(default_factory=dict)
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
                recipe = select_variant(
                    make_variants(recipe), self.variant, folder.name
                )
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
                {self.variant: self.recipe}
                if self.variant
                else make_variants(self.recipe)
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
            tested = tuple(self.get_recordings("").list_subjects(self.subjects))
            cell = Cell(path.name, layout.spec.subjects, tested, 0)
            self.cells = (
                [cell] if self.selected_cells is None else [*self.selected_cells]
            )
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
        if self.selected_cells is not None:
            return [*self.selected_cells]
        cells = list_cells(self.recipes, trained_on)
        if self.origin is None and self.subjects is None:
            return cells

        # on another data set every cell is tested on all of its subjects
        chosen = tuple(
            self.get_recordings(next(iter(self.recipes))).list_subjects(self.subjects)
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

    def open_variant(self, label: str) -> Self:
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
        variant = replace(self, variant=label, selected_cells=cells)
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

    def compute_once(
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
        name = next(iter(choose_headlines(list(measured[0]))), "")
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

    def get_recordings(self, variant: str, fold: int = 1) -> Recordings:
        """Return the signals that cells of a variant are tested on, in a fold."""
        return Recordings(self.dataset, self.paths, self.recipes[variant].signal, fold)

    def open_stores(self, split: str) -> dict[str, TargetStore]:
        """Open the embeddings that the first model takes; raises as
        `TrainedModel.stores`.
        """
        return self.models[0].open_stores(split)

    def list_inputs(self, splits: Sequence[str]) -> Iterator[Input]:
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
            yield from self.get_recordings(variant).list_inputs(
                self._tested_on(variant)
            )
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
        """Whether the signals of everybody who is tested have been prepared."""
        return all(
            model.recordings.are_prepared(model.cell.tested_on) for model in self.models
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
            _ = member.layout.compared_heads if compares else member.layout
            for split in splits:
                member.open_stores(split)
            for subject in member.cell.tested_on:
                # seen pictures can be left out once the signals of all people are here
                if is_prepared:
                    trials[member.cell.name, subject] = member.open_trials(
                        subject,
                        splits[-1],
                        is_normalised=member.has_normaliser(subject),
                    )
                elif member.recordings.build_path(subject).is_file():
                    member.open_trials(
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
            self.get_recordings(variant).prepare(self._tested_on(variant), launch)
        self._refuse_copied_people()

    def _refuse_copied_people(self) -> None:
        """Refuse people whose trials are copies of another one's."""
        # people of another data set are others, whatever their numbers
        trained = [] if self.origin is not None else self.cells
        people = [*chain(*(cell.trained_on for cell in trained))]
        for variant in self.recipes:
            tested = self._tested_on(variant)
            self.get_recordings(variant).require_distinct_people([*tested, *people])

    def _tested_on(self, variant: str) -> list[int]:
        """List the subjects that cells of a variant are tested on."""
        people = [cell.tested_on for cell in self.cells if cell.variant == variant]
        return sorted({*chain(*people)})

    def compare_pictures(self, split: str, fold: int = 1) -> TestedPictures:
        """Compare the pictures of a split with those that were learned from, once; in
        one fold.
        """

        def compare() -> TestedPictures:
            # all models of a subject, in this fold
            models: dict[int, list[TrainingHistory]] = {}
            for model in self.models:
                for subject in model.cell.tested_on if model.cell.fold == fold else ():
                    models.setdefault(subject, []).append(model.learned)
                    model.refuse_learned_trials(subject, split)
            return TestedPictures(
                self.dataset,
                split,
                fold,
                self.open_stores(split),
                models,
                self.get_pixel_comparison(split),
                self.sources,
                self.allows_copies,
            )

        return self.compute_once(("tested pictures", split, fold), compare)

    def get_pixel_comparison(
        self, split: str, learned_split: str = "train"
    ) -> ComparePair:
        """Compare pictures of a split with learned ones, where both are on this
        machine.
        """
        dataset = self.dataset

        def open_pictures() -> ComparePair:
            # learned pictures may be of this data set or of that of the training
            sets = [each for each in (dataset, self._trained_on) if each is not None]
            ids = self.models[0].open_pictures(split).image_ids
            return PixelComparison(ids, dataset, split, sets, learned_split)

        key = "copies", split, learned_split
        return self.compute_once(key, open_pictures, is_of_data=True)

    def list_caveats(self, split: str) -> list[str]:
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
                model.recordings.signal.normalise is not None
                and learned.normaliser is None
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
            and self.describe_set_up(split)["channel_mapping"] != "none"
        )
        orders = list[Interleaving]()
        for model in self.models:
            for subject in model.cell.tested_on:
                # a model may be opened where no signals are
                with suppress(MissingData):
                    orders.append(model.find_order(subject, split))
        has_seen = self.dataset.holdout.has_seen_pictures and split == "test"
        return merge_caveats(
            self.signal_caveats,
            list_caveats(orders, has_seen),
            [CHANNELS_MAPPED] if is_mapped else [],
            *(self.compare_pictures(split, fold).caveats for fold in self.folds),
            *model_caveats,
        )

    @cached_property
    def signal_caveats(self) -> list[str]:
        """Caveats of every number that depends on the signals that the run's cells are
        tested on.
        """
        return merge_caveats(
            *(
                self.get_recordings(label).list_caveats(self._tested_on(label))
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
            here = self.get_recordings(variant).collect_identities(
                self._tested_on(variant)
            )
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
            "run": make_portable(self.folder.reference),
            "runs": [self.name],
            "dataset": self.dataset.name,
            "modality": self.modality,
            "stimulus": self.dataset.stimulus,
            "mode": self.mode,
            "set_up": self.describe_set_up(split),
        }

    def describe_set_up(self, split: str) -> dict[str, Any]:
        """Describe how the models were trained, and the signals of a split that they
        are tested on.

        Raises:
            BrainhiveError: if signals do not have the channels, window or rate that a
                model takes.
        """
        # variants may differ in their signals, so each is described before they are
        # merged
        variants = dict.fromkeys(cell.variant for cell in self.cells)
        return self.compute_once(
            ("set-up", split),
            lambda: merge_set_ups([self._set_up(name, split) for name in variants]),
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
        recordings = self.get_recordings(variant).open_recordings(tested, split)
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
            SELECTION_KEYS.get(model.learned.selection, "") for model in models
        )
        if not backbone.is_closed_form and "" not in selected:
            trained["selection"] = " or ".join(selected)
        # what replaced channels that recordings lack
        if self.channel_mapping != "none":
            words = dict.fromkeys(
                chosen.mapping.description for chosen in selections if chosen.mapping
            )
            trained["channel_mapping"] = " or ".join(words) or "none"
        return describe_run(dataset, tested, trained, selections, self.origin or "")


def _describe_training(path: Path, layout: Layout, is_same: bool) -> Recipe:
    """Describe the training of a model folder as far as it says: encoders, and how
    signals are read.

    Raises:
        MissingData: if an encoder is nowhere named.
    """
    # the encoders that made its targets
    encoders = find_encoders(layout.encoders, read_run_encoders(path))
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
        select_variant(run.recipes, "", run.folder.name)


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
    arguments = (
        write_prior_arguments("train-align", source, dataset) if described.dims else []
    )

    # a recipe names its own data set; without one in use, take the one that the prior
    # was trained on
    is_prior = ("prior", source) in arguments
    if dataset is None and is_prior and (folder := described.folder):
        of = read_run_recipe(folder).get("dataset")
        dataset = of and keep_if_recorded(parts.resolve("datasets", of), paths)
    flag = ("dataset", dataset if is_prior or not arguments else None)
    drawing = write_prior_arguments("reconstruct", source, dataset) or [
        ("prior", source)
    ]
    lines = [Line("train-align", flag, *arguments), Line("reconstruct", *drawing)]

    # what the brain model is trained to predict comes first, unless the prior's
    # encoders have no known names
    with suppress(RecipeError):
        default, encoders = (
            Recipe.model_fields["dataset"].default,
            find_prior_encoders(source),
        )
        pictures = dataset or parts.resolve("datasets", default)
        if not are_embedded(pictures.build(paths), encoders, paths):
            return " && ".join(
                [write_embed_commands(pictures, encoders), *map(str, lines)]
            )
    return " && ".join(map(str, lines))
