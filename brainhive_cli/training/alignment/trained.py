"""A finished align run, or one model folder, opened to be evaluated or decoded with."""

from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np
import torch

from brainhive_cli.core import documents, hub, parts
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.inputs import Input
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import CALIBRATED, CHANNELS_MAPPED, merge_caveats
from brainhive_cli.core.recipe import Paths
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.core.set_up import merge
from brainhive_cli.core.sweep import of_variant, variant_of, variants
from brainhive_cli.data.datasets import Dataset, people_of, stored_split, tested_rows
from brainhive_cli.data.model_input import match_recording
from brainhive_cli.data.signal_stores import SignalSource
from brainhive_cli.data.signals.channel_mapping import ChannelChoice
from brainhive_cli.data.signals.selection import Signal
from brainhive_cli.data.stores import target_store
from brainhive_cli.data.stores.target_store import TargetStore
from brainhive_cli.data.targets.encoder_keys import encoders_around, encoders_by_key
from brainhive_cli.data.targets.target_stores import (
    open_stores,
    refuse_others,
    store_inputs,
)
from brainhive_cli.measurement.metric_names import headlines
from brainhive_cli.models.encoders import EncoderConfig
from brainhive_cli.models.heads import Heads
from brainhive_cli.training.alignment import model as aligners
from brainhive_cli.training.alignment.learned import Confirm, Learned, compare_on_pixels
from brainhive_cli.training.alignment.recipe import Cell, Recipe, cells_of
from brainhive_cli.training.alignment.references import known_variants, open_model
from brainhive_cli.training.alignment.set_ups import (
    SELECTION,
    compare_with_published,
    describe_model,
    describe_recipe,
    describe_signals,
)
from brainhive_cli.training.alignment.tested_pictures import TestedPictures

T = TypeVar("T")


class TrainedWith(NamedTuple):
    """The encoders whose embeddings cells were trained to predict, and the signal section of their recipe."""

    encoders: list[EncoderConfig]
    signal: Signal


@dataclass(frozen=True)
class AlignRun:
    """The data set, cells and signals of a run, and its models.

    Attributes:
        folder: The run; or a model folder, which is then the model of its only cell.
        dataset: Data set on which the models are tested.
        dataset_config: Its Config.
        cells: The trainings, with the subjects that each is tested on.
        training_settings: Encoders and signal section of the cells, by the variant of a sweep.
        recipe: The run's own, or that of the one variant of a sweep; None for a model folder.
        recipes: The recipe of each variant, as `training_settings`; none for a model folder.
        variant: The only variant of a sweep; empty for a run without a sweep, and for all variants of one.
        online: Encoders whose targets were computed at each step, so that they need no store.
        origin: Name of the data set that the models were trained on, when that is not `dataset`; empty when
            it is unknown: subjects are then known by their numbers. None when it is `dataset`.
        sources: Other models in the results that learned from pictures, such as a prior, by name.
        allows_copies: Whether copies of learned pictures under other names are tested.
        channel_mapping: What to do about channels of the models that recordings lack, see `map_channels`.
    """

    folder: RunFolder
    dataset: Dataset
    dataset_config: parts.Config
    cells: list[Cell]
    training_settings: dict[str, TrainedWith]
    paths: Paths
    mode: str
    origin: str | None = None
    recipe: Recipe | None = None
    recipes: Mapping[str, Recipe] = field(default_factory=dict)
    variant: str = ""
    online: frozenset[str] = frozenset()
    sources: Mapping[str, Learned] = field(default_factory=dict)
    allows_copies: bool = False
    channel_mapping: ChannelChoice = "none"
    _cache: dict[Hashable, Any] = field(default_factory=dict, repr=False, compare=False)
    _pictures: dict[tuple[str, str], Confirm] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def open(
        cls,
        folder: RunFolder,
        variant: str,
        paths: Paths,
        dataset: Any = None,
        subjects: Sequence[int] | None = None,
    ) -> Self:
        """Open a finished run, or one variant of a sweep, on its own or another data set.

        On another, every cell is tested on all subjects; by default on those that it was to be tested on.

        Raises:
            MissingData: if the data set has no such subject.
            RecipeError: if the run has no such variant.
        """
        # a variant of a sweep is a run of one recipe
        recipe = folder.recipe(Recipe, paths=paths)
        recipes, config = variants(recipe), dataset or recipe.dataset
        if variant:
            recipe = variant_of(recipes, variant, folder.name)
            recipes = {variant: recipe}

        # the data set of the training, and that of the test
        trained_on: Dataset = recipe.dataset.build(paths)
        tested_on: Dataset = config.build(paths)
        cells = cells_of(recipes, trained_on)
        origin = None if people_of(tested_on) == people_of(trained_on) else trained_on.name

        # folds of another holdout would test seen trials
        if tested_on.holdout != trained_on.holdout:
            raise RecipeError(
                f"{folder.path} does not hold out what dataset.holdout names",
                "the run's own data set, which needs no --dataset; or another one without dataset.holdout",
            )

        # each cell is tested on those of its subjects that are asked for, or on all of another data set
        if origin is not None or subjects is not None:
            signal = next(iter(recipes.values())).signal
            chosen = tuple(SignalSource(tested_on, paths, signal).expect_subjects(subjects))
            known = {subject for cell in cells for subject in cell.tested_on}
            if origin is None and (absent := sorted({*chosen} - known)):
                raise MissingData(
                    f"no cell of {folder.path} is tested on subject {', '.join(map(str, absent))}",
                    f"it has: {', '.join(map(str, sorted(known)))}",
                )
            tested = [
                chosen if origin is not None else tuple(one for one in cell.tested_on if one in chosen)
                for cell in cells
            ]
            cells = [replace(cell, tested_on=who) for cell, who in zip(cells, tested, strict=True) if who]

        # encoders and signals of each variant; encoders without a store compute targets at each step
        settings = {label: TrainedWith(one.encoders, one.signal) for label, one in recipes.items()}
        mode = " + ".join(dict.fromkeys(one.mode for one in recipes.values()))
        stored = {config.name for one in recipes.values() for config in one.stored_encoders}
        online = frozenset({config.name for one in settings.values() for config in one.encoders} - stored)
        ways = (paths, mode, origin, recipe, recipes, variant, online)
        return cls(folder, tested_on, config, cells, settings, *ways)

    def of_variant(self, label: str) -> Self:
        """Take one variant of an open sweep.

        Raises:
            MissingData: if it is tested on none of the subjects that were asked for.
            RecipeError: if there is no such variant.
        """
        # cells of the variant
        recipe = variant_of(self.recipes, label, self.folder.name)
        cells = [cell for cell in self.cells if cell.variant == label]
        if not cells:
            tested = ", ".join(str(subject) for cell in self.cells for subject in cell.tested_on)
            raise MissingData(
                f"{self.folder.reference}:{label} is not tested on subject {tested}", "subjects=null"
            )

        # the same run, with one recipe and an empty cache
        stored = {config.name for config in recipe.stored_encoders}
        return replace(
            self,
            cells=cells,
            training_settings={label: self.training_settings[label]},
            recipe=recipe,
            recipes={label: recipe},
            mode=recipe.mode,
            variant=label,
            online=frozenset(config.name for config in recipe.encoders if config.name not in stored),
            _cache={},
        )

    @classmethod
    def of_model(cls, path: Path, paths: Paths, dataset: Any, subjects: Sequence[int] | None) -> Self:
        """Open a model folder, of this project or of BrainHiVE's repository, on a data set and subjects.

        Raises:
            MissingData: if the data set or the subjects are not given, or an encoder is nowhere named.
            RecipeError: if the data set holds out folds.
        """
        # a model folder does not name its data set and subjects
        flags = {"--dataset": dataset, "--subjects": subjects}
        if absent := [flag for flag, value in flags.items() if not value]:
            raise MissingData(
                f"the model {path} does not say what to test it on: {' and '.join(absent)} missing",
                f"--run {path} --dataset things-eeg --subjects 1",
            )
        tested_on: Dataset = dataset.build(paths)
        if tested_on.holdout is not None:
            raise RecipeError(
                f"the model {path} does not say which fold it is of",
                "name its run: --run RUN, without --dataset",
            )

        # the encoders that made its targets
        model = aligners.load(path)
        layout, learned = model.layout, model.learned
        encoders = encoders_by_key(layout.encoders, encoders_around(path))
        if nameless := sorted(layout.encoders.keys() - encoders.keys()):
            raise MissingData(
                f"the model {path} takes embeddings {', '.join(nameless)}, and nothing says what made them",
                "name the run that it is of",
            )

        # of another data set's signals, it reads the same window in the same way, and its sets of regions
        is_same, section = learned.recordings == people_of(tested_on), layout.spec.signal
        transferable = ("window_ms", "scale", "normalise")
        fields = {
            key: value for key, value in section.items() if key in transferable or key.startswith("region_")
        }
        signal = documents.check({**(section if is_same else fields)}, f"{path}: spec.signal", Signal)
        subjects = SignalSource(tested_on, paths, signal).choose_subjects(subjects)
        cell = Cell(path.name, layout.spec.subjects, tuple(subjects), 0)
        mode = f"model folder ({learned.describe_subjects(people_of(tested_on), subjects)})"
        settings = {"": TrainedWith(list(encoders.values()), signal)}
        origin = None if is_same else learned.dataset
        return cls(RunFolder(path), tested_on, dataset, [cell], settings, paths, mode, origin)

    @property
    def name(self) -> str:
        """The run as a command line names it: its folder or name on the hub, and the variant of a sweep."""
        return f"{self.folder.reference}:{self.variant}" if self.variant else self.folder.reference

    @property
    def label(self) -> str:
        """The run's part of the folder names of runs that use it."""
        return "--".join(filter(None, [self.folder.label, self.variant]))

    @property
    def variants(self) -> list[str]:
        """The variants of a sweep, where none was chosen."""
        return [] if len(self.training_settings) == 1 else list(self.training_settings)

    @property
    def tests_new_subjects(self) -> bool:
        """Whether the subjects are known to be other people than those trained on, whatever their numbers."""
        return bool(self.origin)

    @property
    def prior(self) -> str | None:
        """The prior whose fuser was the run's target; None without one, and for a model folder."""
        return None if self.recipe is None else self.recipe.prior

    @cached_property
    def is_model(self) -> bool:
        """Whether it is a model folder, not a run."""
        return aligners.is_model(self.folder.path)

    def once(self, key: Hashable, compute: Callable[[], T]) -> T:
        """Compute something once, for all cells."""
        if key not in self._cache:
            self._cache[key] = compute()
        value: T = self._cache[key]
        return value

    def model_path(self, cell: Cell) -> Path:
        """Return where a cell's model lies."""
        return self.folder.path if self.is_model else self.folder.path / "cells" / cell.name / "model"

    def model(self, cell: Cell, device: torch.device) -> aligners.Aligner:
        """Load a cell's aligner."""
        return aligners.load(self.model_path(cell)).to(device)

    @cached_property
    def heads(self) -> Heads:
        """The heads of the first cell's model."""
        return aligners.load(self.model_path(self.cells[0])).layout.heads

    def learned(self, cell: Cell) -> Learned:
        """Read what a cell's model learned from, with all that it started from.

        Raises:
            BrainhiveError: if a subject who is to be new to it is among these.
        """

        def read() -> Learned:
            learned = aligners.learned_in(self.model_path(cell))
            recipe = self.recipes.get(cell.variant)
            if self.tests_new_subjects or (recipe is not None and recipe.mode == "inter"):
                model = f"{self.name}, {cell.name},"
                learned.refuse_subjects(people_of(self.dataset), cell.tested_on, model)
            return learned

        return self.once(("learned", cell.name), read)

    @cached_property
    def validation(self) -> dict[str, Any]:
        """Mean over cells of the headline metric on held-out training pictures; empty without validation.

        Values of two runs can be compared where `measured_on` is the same.
        """
        return self.validation_of(self.cells)

    def validation_of(self, cells: Sequence[Cell]) -> dict[str, Any]:
        """Return `validation` of fewer cells, as of those of one variant."""
        # all cells must have the same headline metric
        scopes = {} if self.is_model else self.once("scopes", lambda: self.folder.measurements().scopes)
        measured = [scopes.get(cell.name, {}) for cell in cells]
        name = next(iter(headlines(list(measured[0]))), "")
        if not all(name in metrics for metrics in measured):
            return {}
        metrics = [metrics[name] for metrics in measured]

        # values are comparable for the same number of items and candidates
        measured_on = {
            "dataset": self.origin or self.dataset.name,
            "cells": [[metric.n, metric.pool] for metric in metrics],
        }
        return {"metric": name, "value": fmean(m.value for m in metrics), "measured_on": measured_on}

    def source(self, variant: str, fold: int = 1) -> SignalSource:
        """Return the signals that cells of a variant are tested on, in a fold."""
        return SignalSource(self.dataset, self.paths, self.training_settings[variant].signal, fold)

    def stores(self, split: str, cell: Cell | None = None) -> dict[str, TargetStore]:
        """Open the embeddings that a cell's aligner takes; the first cell's by default.

        What was computed at each step is left out where it has no store: its head is then compared with none.

        Raises:
            BrainhiveError: if they were made in another way than those that it was trained on.
        """
        # leave out encoders that were computed at each step and have no store
        encoders, root = [], self.paths.under_home("embeddings")
        for config in self.training_settings[(cell or self.cells[0]).variant].encoders:
            path, _ = target_store.find(
                root, self.dataset.name, stored_split(self.dataset, split), config.name
            )
            if config.name not in self.online or path.is_file():
                encoders.append(config)

        # cells with the same encoders share the open stores
        stores = self.once(
            ("stores", split, *(config.name for config in encoders)),
            lambda: open_stores(self.dataset, self.dataset_config, split, encoders, self.paths),
        )
        if not self.is_model:
            refuse_others(self.folder, stores)
        return stores

    def inputs(self, splits: Sequence[str]) -> Iterator[Input]:
        """List what decoding reads: the run, signals of the tested subjects, and stores of some splits.

        A run's name tells it from others, a model folder's digest.
        """
        path, digest = self.folder.path, ""
        if self.is_model:
            digest = hub.digest(path) if path.is_dir() else hub.digest(path.parent, [path.name])
        yield Input(f"run {self.name}", reference=self.name, digest=digest)
        for variant, (encoders, _) in self.training_settings.items():
            yield from self.source(variant).inputs(self._tested_on(variant))
            stored = [config for config in encoders if config.name not in self.online]
            for split in splits:
                yield from store_inputs(self.dataset, self.dataset_config, split, stored, self.paths)

    def prepare_signals(self, launch: Launch, subjects: Collection[int] | None = None) -> None:
        """Create the missing signal stores of the subjects that cells are tested on; of some of them only.

        Raises:
            MissingData: if a store is absent, and the recording that it would be made from.
        """
        for variant in self.training_settings:
            tested = self._tested_on(variant)
            self.source(variant).choose_subjects(tested)
            self.source(variant).prepare([s for s in tested if subjects is None or s in subjects], launch)
            # people of another data set are others, whatever their numbers
            trained = [] if self.origin is not None else [s for cell in self.cells for s in cell.trained_on]
            self.source(variant).refuse_copied_people([*tested, *trained])

    def _tested_on(self, variant: str) -> list[int]:
        """List the subjects that cells of a variant are tested on."""
        return sorted(
            {subject for cell in self.cells if cell.variant == variant for subject in cell.tested_on}
        )

    def tested_pictures(self, split: str, fold: int = 1) -> TestedPictures:
        """Compare the pictures of a split with those that were learned from, once; in one fold."""

        def compare() -> TestedPictures:
            # all models of a subject, in this fold
            models: dict[int, list[Learned]] = {}
            for cell in self.cells:
                for subject in cell.tested_on if cell.fold == fold else ():
                    models.setdefault(subject, []).append(self.learned(cell))
                    self._refuse_learned_trials(cell, subject, split)
            dataset, stores, train = self.dataset, self.stores(split), {}
            first = next(iter(stores.values()))

            # a holdout of trials tests stimuli that were seen in other trials
            if dataset.holdout is not None and dataset.holdout.shows_seen and split == "test":
                none = np.zeros(len(first.image_ids), bool)
                tested = (f"stimuli of {dataset.name}", first.image_ids, first.done)
                return TestedPictures(*tested, dict.fromkeys(models, none), {}, none, none, True, (), none)
            is_tested = tested_rows(dataset, first, split, fold)

            # embeddings of the training pictures, to look for near-duplicates
            if self.origin is None:
                root = self.paths.under_home("embeddings")
                with suppress(BrainhiveError):  # they are looked at for a warning only
                    train = target_store.open_all(root, dataset.name, "train", [*stores])
            title = f"{split} pictures of {dataset.name}"
            return TestedPictures.compare(
                *(title, dataset.pictured_as, stores, train, models, self.sources),
                is_other_dataset=self.origin is not None,
                confirm=self.confirm_copy(split),
                allows_copies=self.allows_copies,
                is_tested=is_tested,
            )

        return self.once(("tested pictures", split, fold), compare)

    def _refuse_learned_trials(self, cell: Cell, subject: int, split: str) -> None:
        """Refuse trials that a model learned from; of a person who is new to it, any trial.

        Raises:
            BrainhiveError: naming the first; of trials that a fold holds out, `match_split` raises it.
        """
        learned, source = self.learned(cell), self.source(cell.variant)
        is_known = subject in learned.subjects and not self.tests_new_subjects
        hint = "test on other people, or recordings of another day"
        stored = source.open(subject).splits if source.path(subject).is_file() else {}
        for name, recording in stored.items():
            if not is_known or name == split != "train":
                where = f"{self.dataset.name} subject {subject} {name}"
                recording.refuse_copies(learned.trials, where, f"trials that {self.name} learned from", hint)

    @property
    def folds(self) -> list[int]:
        """Folds of the cells: one where nothing is held out in folds."""
        return sorted({cell.fold for cell in self.cells})

    def confirm_copy(self, split: str, learned_split: str = "train") -> Confirm:
        """Compare pictures of a split with learned ones, where both are on this machine."""
        datasets = [self.dataset, *([self.recipe.dataset.build(self.paths)] if self.recipe else [])]
        key = split, learned_split
        if key not in self._pictures:  # which no model has a part in: variants of a sweep share it
            self._pictures[key] = compare_on_pixels(
                next(iter(self.stores(split).values())).image_ids,
                lambda: self.dataset.images(stored_split(self.dataset, split)),
                [(dataset.pictured_as, partial(dataset.images, learned_split)) for dataset in datasets],
            )
        return self._pictures[key]

    def caveats(self, split: str) -> list[str]:
        """Caveats of every number that depends on the run's models, tested on a split."""
        # caveats of the models, and of subjects that had a part in their own normalisation
        model_caveats = [self.learned(cell).caveats for cell in self.cells]
        for cell in self.cells:
            learned, signal = self.learned(cell), self.training_settings[cell.variant].signal
            is_known = {*cell.tested_on} <= {*cell.trained_on, *learned.subjects}
            is_new = self.tests_new_subjects or not is_known
            # recordings of a subject who was not trained on have a part in the normalisation
            if is_new and signal.normalise is not None and learned.normaliser is None:
                model_caveats.append([CALIBRATED])

        # caveats of pictures and signals
        pictures = [self.tested_pictures(split, fold).caveats for fold in self.folds]
        is_mapped = self.channel_mapping != "none" and self.set_up(split)["channel_mapping"] != "none"
        mapped = [CHANNELS_MAPPED] if is_mapped else []
        return merge_caveats(self.signal_caveats, mapped, *pictures, *model_caveats)

    @cached_property
    def signal_caveats(self) -> list[str]:
        """Caveats of every number that depends on the signals that the run's cells are tested on."""
        settings = self.training_settings
        return merge_caveats(*(self.source(label).caveats(self._tested_on(label)) for label in settings))

    @property
    def signal_warnings(self) -> list[str]:
        """Name the stores that were written anew, with other signals, since a model was trained on them."""
        changed = []
        for variant in self.training_settings:
            here = self.source(variant).identities(self._tested_on(variant))
            for cell in (cell for cell in self.cells if cell.variant == variant):
                there = self.learned(cell).signals
                changed += [name for name in here if here[name] != there.get(name, here[name])]
        return [f"{name} has changed since models were trained on it" for name in dict.fromkeys(changed)]

    def published(self, split: str, pool: int) -> dict[str, Any]:
        """Compare with published results, by the recipe: which they are, and how this evaluation differs."""
        if self.recipe is None:
            return {}
        variant = self.cells[0].variant
        recordings = self.source(variant).recordings(self._tested_on(variant), split)
        return compare_with_published(
            self.recipe.published, self.set_up(split), self.dataset, recordings, self.signal_caveats, pool
        )

    def set_up(self, split: str) -> dict[str, Any]:
        """Describe how the models were trained, and the signals of a split that they are tested on.

        Raises:
            BrainhiveError: if signals do not have the channels, window or rate that a model takes.
        """
        tried = dict.fromkeys(cell.variant for cell in self.cells)
        return self.once(("set-up", split), lambda: merge([self._set_up(name, split) for name in tried]))

    def _set_up(self, variant: str, split: str) -> dict[str, Any]:
        # a run is described by its recipe, a model folder by its layout
        source, dataset, tested = self.source(variant), self.dataset, self._tested_on(variant)
        cells = [cell for cell in self.cells if cell.variant == variant]
        is_matched = self.origin is not None or self.channel_mapping != "none"
        layout = aligners.load(self.model_path(cells[0])).layout if self.is_model or is_matched else None
        if self.recipe is None:
            assert layout is not None
            trained = describe_model(layout, self.training_settings[variant].encoders, source.signal)
        else:
            trained = describe_recipe(self.recipes[variant])

        # the signals of each tested subject, matched to those of the training
        selections = []
        for subject, recording in source.recordings(tested, split).items():
            where, signal = f"{dataset.name} subject {subject}", source.signal
            if layout is not None and is_matched:
                options = dataset.channels, where, self.channel_mapping
                selections.append(match_recording(layout.spec, recording, signal, *options))
            else:
                selections.append(signal.select(recording, dataset.channels, where))

        # join the description of training, test and selection
        set_up = {"dataset": dataset.recorded_as, "subjects": tested}
        set_up |= {"trained_on_dataset": self.origin} if self.origin else {}
        set_up |= {"mode": self.mode, **trained}
        selected = dict.fromkeys(SELECTION.get(self.learned(cell).selection, "") for cell in cells)
        set_up |= {} if "" in selected else {"selection": " or ".join(selected)}
        if self.channel_mapping != "none":
            words = dict.fromkeys(chosen.mapping.words for chosen in selections if chosen.mapping)
            set_up["channel_mapping"] = " or ".join(words) or "none"
        return set_up | describe_signals(selections)


def find(
    reference: str | None,
    paths: Paths,
    dataset: Any = None,
    subjects: Sequence[int] | None = None,
) -> AlignRun:
    """Open what a reference names, as `open_model` finds it, on a data set and subjects.

    Args:
        reference: How it is named; None: the newest run on the data set.
        paths: Where runs, signals and embeddings lie.
        dataset: Config of another data set than a run's own: zero-shot.
        subjects: Who is tested on; default: those of the run.

    Raises:
        MissingData: if there is none.
    """
    named = open_model(reference, paths, dataset)
    if named.is_model:
        return AlignRun.of_model(named.folder.path, paths, dataset, subjects)
    return AlignRun.open(named.folder, named.variant, paths, dataset, subjects)


def refuse_sweep(align: AlignRun) -> None:
    """Refuse a sweep where one run is needed.

    Raises:
        RecipeError: listing its variants.
    """
    if align.variants:
        variant_of(align.recipes, "", align.folder.name)


def rejoined(names: Sequence[str], paths: Paths) -> list[str]:
    """Join the names of variants that were split at their commas."""
    # a name continues the one before it if both are a variant, or the start of one
    joined: list[str] = []
    for name in names:
        longer = f"{joined[-1]},{name}" if joined else name
        run, variant = of_variant(longer)
        labels = known_variants(run, paths) if joined and variant else ()
        if any(f"{label},".startswith(f"{variant},") for label in labels):  # a variant, or the start of one
            joined[-1] = longer
        else:
            joined.append(name)
    return joined
