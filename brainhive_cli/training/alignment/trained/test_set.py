"""Test set of trained models: pictures, seen pictures, trials of people and caveats."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import chain, product
from typing import TYPE_CHECKING, Any

import numpy as np

from brainhive_cli.core.base import Bool, BrainhiveError, Int64, MissingData, console
from brainhive_cli.core.files import make_portable
from brainhive_cli.core.results import (
    CALIBRATED,
    CHANNELS_MAPPED,
    SAME_PERSON,
    SeenPictures,
    merge_caveats,
    merge_set_ups,
)
from brainhive_cli.core.runs import Launch
from brainhive_cli.data.datasets import Dataset
from brainhive_cli.data.signals import StudyDesign, Trials, describe_study
from brainhive_cli.data.stores import (
    ComparePair,
    PixelComparison,
    Recordings,
    TargetStore,
    TrainingHistory,
)
from brainhive_cli.data.targets import match_split, open_stores
from brainhive_cli.training.alignment import (
    list_subjects,
    list_test_subjects,
    model_files,
)
from brainhive_cli.training.alignment.trained.model import TrainedModel
from brainhive_cli.training.alignment.trained.models import (
    TrainedModels,
)
from brainhive_cli.training.alignment.trained.tested_person import TestedPerson
from brainhive_cli.training.alignment.trained.tested_pictures import (
    TestedPictures,
    summarise_tested_pictures,
)

if TYPE_CHECKING:
    from brainhive_cli.data.targets import EncoderGroup


@dataclass(frozen=True)
class _ModelInput:
    """Facts that decide how a model reads the signals of a person."""

    subject: int
    fold: int
    channels: tuple[str, ...]
    signal: str
    normaliser: str


@dataclass(eq=False)
class TestSet:
    """Everything that trained models are tested on, in one split of a data set.

    It is opened once for all models, in the order of the data: embeddings, candidates,
    pictures that the models have seen, trials of each person, caveats.

    Attributes:
        runs: Tested runs or model folders. They have the same data set.
        split: Split of the tested signals.
        like: Open test set. If it has the same data, its study is shared.
        dataset: Data set.
        models: Models of each run, on the CPU.
    """

    __test__ = False  # pytest collects classes whose names begin with Test

    runs: Sequence[TrainedModels]
    split: str
    like: TestSet | None = None
    _stores: dict[str, dict[str, TargetStore]] = field(default_factory=dict)
    _shown: dict[str, Bool] = field(default_factory=dict)
    _seen: dict[int, TestedPictures] = field(default_factory=dict)
    _people: dict[_ModelInput, TestedPerson] = field(default_factory=dict)
    _networks: dict[tuple[str, ...], EncoderGroup] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Open the models. No data is read before it is needed."""
        self.run = self.runs[0]
        self.dataset = self.run.dataset
        self.models = [[run.open(cell) for cell in run.cells] for run in self.runs]

    # embeddings and candidates

    def open_stores(self, split: str) -> dict[str, TargetStore]:
        """Open the embeddings of a split, by encoder.

        Raises:
            BrainhiveError: if a store was made in another way than in a training, or
                runs have different pictures.
        """
        if split not in self._stores:
            all_stores: dict[str, TargetStore] = {}
            for run in self.runs:
                stores = open_stores(
                    run.dataset, run.dataset_config, split, run.encoders, run.paths
                )
                run.check_stores(stores)
                all_stores |= stores
            first, *others = all_stores.values()
            for other in others:
                if other.image_ids != first.image_ids:
                    raise BrainhiveError(
                        f"{first.path} and {other.path} hold different pictures",
                        "embed again",
                    )
            self._stores[split] = all_stores
        return self._stores[split]

    def open_pictures(self, split: str) -> TargetStore:
        """Open any of the target stores, all of which have the same pictures."""
        return next(iter(self.open_stores(split).values()))

    def find_rows(self, split: str, fold: int = 1) -> Int64:
        """Find the rows [M] of the pictures of a split that are candidates in a fold.

        They have embeddings of all encoders. If the data set has categories instead of
        pictures, only categories that some trial shows are candidates.
        """
        pictures = self.open_pictures(split)
        is_candidate = self.dataset.holdout.choose_stimuli(pictures, split, fold)
        for store in self.open_stores(split).values():
            is_candidate = is_candidate & store.done
        if self.dataset.are_categories:
            is_candidate &= self._find_shown(split)
        return np.flatnonzero(is_candidate)

    def open_network(self, model: TrainedModel) -> EncoderGroup:
        """Open the encoders that were trained with a model, which are one network.

        All cells of a run share it.
        """
        from brainhive_cli.data.targets import group_encoders

        names = tuple(model.layout.adapter["encoders"])
        if names not in self._networks:
            configs = [config for config in model.encoders if config.name in names]
            launch = Launch(0, 1, model.module.device)
            self._networks[names] = group_encoders(configs, "fp32", launch)[0]
        return self._networks[names]

    def find_trained_rows(self, fold: int = 1) -> Int64:
        """Find the rows [M] of training pictures that tested pictures may resemble.

        Empty if the tested pictures are training pictures, the models were trained on
        other people, or training pictures have no embeddings.
        """
        tests_training = self.split == "train" or self.dataset.holdout.has_seen_pictures
        if not tests_training and self.run.origin is None:
            with suppress(MissingData):
                return self.find_rows("train", fold)
        return np.empty(0, np.int64)

    def _find_shown(self, split: str) -> Bool:
        """Find the stimuli [N] of a split that a trial of it or the training shows.

        A warning names the others. All are shown if there are no signals.
        """
        if split in self._shown:
            return self._shown[split]
        recordings = self.get_recordings(self.models[0][0])
        subjects = list_subjects(self.run.cells)
        pictures = self.open_pictures(split)
        is_shown = np.zeros(len(pictures.image_ids), bool)
        for subject, name in product(subjects, sorted({split, "train"})):
            with suppress(MissingData):
                trials = match_split(recordings, subject, name, pictures)
                is_shown[trials.stimulus] = True
        if not is_shown.any():
            is_shown = ~is_shown
        self._shown[split] = is_shown
        absent = [pictures.image_ids[row] for row in np.flatnonzero(~is_shown)]
        if absent:
            console.warn(
                f"no trial shows {', '.join(absent)}: left out of the candidates"
            )
        return is_shown

    # pictures that the models have seen

    def make_comparison(self, split: str, learned_split: str = "train") -> ComparePair:
        """Make a function that compares the pixels of two splits' pictures.

        Args:
            split: Split of the compared pictures.
            learned_split: Split of the pictures that they are compared with.
        """
        image_ids = self.open_pictures(split).image_ids
        return PixelComparison(
            image_ids, self.dataset, split, self._learned_sets, learned_split
        )

    @property
    def _learned_sets(self) -> list[Dataset]:
        """Data sets of learned pictures: this data set, and those of trainings."""
        learned_sets = [run.trained_on for run in self.runs if run.trained_on]
        return [self.dataset, *learned_sets]

    @cached_property
    def _compare_pixels(self) -> ComparePair:
        """Comparison of tested with training pictures, which all folds share.

        Test sets share it if they have the same data and learned pictures.
        """
        like = self.like
        if like is not None and like.data_identity == self.data_identity:
            names = {dataset.name for dataset in like._learned_sets}
            if all(dataset.name in names for dataset in self._learned_sets):
                return like._compare_pixels
        return self.make_comparison(self.split)

    def compare_pictures(self, fold: int = 1) -> TestedPictures:
        """Compare the tested pictures with the training pictures of a fold.

        Warnings name the pictures that were seen or resemble seen pictures.

        Raises:
            BrainhiveError: if tested trials or people are those of the training.
        """
        if fold in self._seen:
            return self._seen[fold]
        histories: dict[int, list[TrainingHistory]] = {}
        for run, models in zip(self.runs, self.models, strict=True):
            for model in models:
                if model.cell.fold != fold:
                    continue
                history = model.history
                if run.tests_new_subjects or run.mode == "inter":
                    history.require_new_subjects(
                        self.dataset,
                        model.cell.tested_on,
                        f"{run.name}, {model.cell.name},",
                    )
                for subject in model.cell.tested_on:
                    histories.setdefault(subject, []).append(history)
                    self._refuse_learned_trials(model, subject)
        pictures = TestedPictures(
            self.dataset,
            self.split,
            fold,
            self.open_stores(self.split),
            histories,
            self._compare_pixels,
            self.run.sources,
            self.run.allows_copies,
        )
        self._seen[fold] = pictures
        for warning in pictures.warnings:
            console.warn(warning)
        return pictures

    def list_seen(self) -> list[TestedPictures]:
        """List the comparisons with training pictures of all folds."""
        return [self.compare_pictures(fold) for fold in self.folds]

    def summarise_seen(self) -> tuple[SeenPictures, list[str]]:
        """Summarise the pictures that models have seen, and list all warnings."""
        return summarise_tested_pictures(self.list_seen(), self.signal_warnings)

    def _refuse_learned_trials(self, model: TrainedModel, subject: int) -> None:
        """Raise an error if trials of a test are copies of training trials.

        Trials that a fold holds out are checked by `match_split`. All splits of a new
        subject are checked.
        """
        recordings = self.get_recordings(model)
        if not recordings.build_path(subject).is_file():
            return
        history = model.history
        is_known = subject in history.subjects and not model.tests_new_subjects
        for name, recording in recordings.open_store(subject).splits.items():
            if not is_known or name == self.split != "train":
                recording.refuse_copies(
                    history.trials,
                    f"{self.dataset.name} subject {subject} {name}",
                    f"trials that {model.run_name} was trained on",
                    "test on other people, or recordings of another day",
                )

    def find_seen(self, model: TrainedModel, subject: int, rows: Int64) -> Bool:
        """Find the signals [N] whose pictures were seen in training.

        Copies of training pictures count, and pictures of models that this model
        started from. All models that are tested on the subject count.

        Args:
            model: Model, whose fold is tested.
            subject: Number of the subject.
            rows: Row [N] of the picture of each signal.

        Raises:
            BrainhiveError: if there are too many.
        """
        pictures = self.compare_pictures(model.cell.fold)
        name = f"{model.run_name}, {model.cell.name},"
        return pictures.find_seen_signals(subject, rows, name)

    # trials of each person

    def get_recordings(self, model: TrainedModel) -> Recordings:
        """Return the signals that a model is tested on, in its fold."""
        fold = model.cell.fold
        return Recordings(self.dataset, self.run.paths, model.signal, fold)

    def open_person(self, model: TrainedModel, subject: int) -> TestedPerson:
        """Open the signals of a person as a model reads them.

        Models with the same input share them. The training signals of one person at a
        time stay in memory.
        """
        normaliser = model.find_normaliser(subject)
        model_input = _ModelInput(
            subject=subject,
            fold=model.cell.fold,
            channels=model.layout.spec.names,
            signal=model.signal.model_dump_json(),
            normaliser="" if normaliser is None else normaliser.digest,
        )
        if model_input not in self._people:
            self._people[model_input] = TestedPerson(
                subject=subject,
                split=self.split,
                model=model,
                recordings=self.get_recordings(model),
                open_pictures=self.open_pictures,
                find_seen=partial(self.find_seen, model),
                channel_mapping=self.run.channel_mapping,
            )
        person = self._people[model_input]
        for other in self._people.values():
            if other is not person:
                vars(other).pop("train_trials", None)
        return person

    @property
    def subjects(self) -> list[int]:
        """Subjects that any model is tested on, ascending."""
        return list_test_subjects(self.run.cells)

    @cached_property
    def study(self) -> StudyDesign | None:
        """Design of the study of all tested subjects.

        None for new clips of a film, whose labels are shifted along the film, or if all
        signals are missing.
        """
        if self.like is not None and self.like.data_identity == self.data_identity:
            return self.like.study
        holdout = self.dataset.holdout
        is_film = self.dataset.alike_by == "neighbours"
        if is_film and not holdout.has_seen_pictures:
            return None
        stored_split = holdout.name_stored_split(self.split)
        names = dict.fromkeys((stored_split, "train"))

        # target stores, which may lack the training, and recordings of each subject
        stores = {}
        for name in names:
            with suppress(MissingData):
                stores[name] = self.open_stores(self.split if name != "train" else name)
        recordings: dict[int, dict[str, Trials]] = {}
        for model in chain.from_iterable(self.models):
            source = self.get_recordings(model)
            for subject in model.cell.tested_on:
                if subject in recordings or not source.build_path(subject).is_file():
                    continue
                store = source.open_store(subject)
                recordings[subject] = {
                    name: store[name] for name in stores if name in store.splits
                }
        if not recordings or stored_split not in stores:
            return None

        from brainhive_cli.data.targets import find_features

        pictures = {name: next(iter(stores[name].values())) for name in stores}
        return describe_study(
            holdout,
            recordings,
            pictures,
            self.split,
            lambda: find_features(stores),
            is_film=is_film,
        )

    def find_units(self, trials: Trials) -> Int64:
        """Find the unit [N] of each trial of a tested person in the study's design.

        Empty if there is no design.
        """
        if self.study is None:
            return np.empty(0, np.int64)
        return self.study.units[trials.subject][np.asarray(trials.index)]

    @property
    def data_identity(self) -> tuple[Any, ...]:
        """Folders, data set, split, encoders, and stores of all subjects."""
        paths = self.run.paths
        stores = set()
        for model in chain.from_iterable(self.models):
            recordings = self.get_recordings(model)
            stores |= {recordings.build_path(s) for s in model.cell.tested_on}
        encoders = {config.name for config in self.run.encoders}
        return (
            paths.under_home("embeddings"),
            self.run.dataset_config,
            self.split,
            encoders,
            stores,
        )

    # caveats and descriptions

    @cached_property
    def caveats(self) -> list[str]:
        """Caveats of all measurements of the models on the split.

        For example, a new subject may be a training subject under another number.
        """
        # caveats of signals and pictures
        is_mapped = (
            self.run.channel_mapping != "none"
            and self.set_up["channel_mapping"] != "none"
        )
        caveats: list[Sequence[str]] = [self.signal_caveats]
        if self.study is not None:
            caveats.append(self.study.caveats)
        if is_mapped:
            caveats.append([CHANNELS_MAPPED])
        caveats += [pictures.caveats for pictures in self.list_seen()]
        for model in chain.from_iterable(self.models):
            caveats.append(_list_model_caveats(model, self.dataset))
        return merge_caveats(*caveats)

    @property
    def folds(self) -> list[int]:
        """Folds of the models, `[1]` without folds."""
        return sorted({cell.fold for run in self.runs for cell in run.cells})

    @cached_property
    def signal_caveats(self) -> list[str]:
        """Caveats of the signals that the models are tested on."""
        caveats = []
        for models in self.models:
            recordings = self.get_recordings(models[0])
            caveats.append(recordings.list_caveats(self.subjects))
        return merge_caveats(*caveats)

    @property
    def signal_warnings(self) -> list[str]:
        """Warnings about signal stores that have changed since the training."""
        warnings: dict[str, None] = {}
        for model in chain.from_iterable(self.models):
            recordings = self.get_recordings(model)
            identities = recordings.collect_identities(self.subjects)
            for name, identity in identities.items():
                # a store of unknown identity counts as unchanged
                if identity != model.history.signals.get(name, identity):
                    warnings[f"{name} has changed since models were trained on it"] = (
                        None
                    )
        return list(warnings)

    @cached_property
    def set_up(self) -> dict[str, Any]:
        """Description of the training of the models, and of the tested signals.

        Raises:
            BrainhiveError: if signals lack the channels, window or rate of a model.
        """
        set_ups = []
        for run, models in zip(self.runs, self.models, strict=True):
            signals = run.recordings.open_recordings(self.subjects, self.split)
            set_ups.append(run.describe_set_up(models, signals))
        return merge_set_ups(set_ups)

    def describe(self) -> dict[str, Any]:
        """Return facts about the run, the data set and the set-up."""
        modalities = dict.fromkeys(run.modality for run in self.runs)
        modes = dict.fromkeys(run.mode for run in self.runs)
        return {
            "run": make_portable(self.run.folder.reference),
            "runs": [run.name for run in self.runs],
            "dataset": self.dataset.name,
            "modality": " + ".join(modalities),
            "stimulus": self.dataset.stimulus,
            "mode": " + ".join(modes),
            "set_up": self.set_up,
        }


def open_test_set(
    runs: TrainedModels | Sequence[TrainedModels],
    split: str,
    like: TestSet | None = None,
) -> TestSet:
    """Open the data that models are tested on.

    Args:
        runs: Run or model folder, or several runs whose models are used together.
        split: Split of the tested signals.
        like: Open test set, whose study is shared if it has the same data.
    """
    if isinstance(runs, TrainedModels):
        runs = [runs]
    return TestSet(runs, split, like)


def check_test_set(
    tests: TestSet,
    splits: Sequence[str],
    head: str | None = None,
    *,
    compares: bool = True,
) -> dict[tuple[str, int], Trials]:
    """Check that models, signals and embeddings fit each other.

    Neither weights nor signals are read.

    Args:
        tests: Test set.
        splits: Splits whose embeddings are read.
        head: Head that retrieval compares, or None for the models' own choice.
        compares: If True, each model must have heads for retrieval.

    Returns:
        Trials of the test, keyed by cell and subject. Empty unless all signals are
        prepared.
    """
    is_prepared = all(run.is_prepared for run in tests.runs)
    if is_prepared:
        for run in tests.runs:
            run.refuse_copied_people()
    trials = {}
    for run in tests.runs:
        for cell in run.cells:
            model = run.open(cell, head=head)
            model_files.require_weights(model.path)
            # each property raises an error if the heads do not fit
            _ = model.layout.compared_heads if compares else model.layout
            for split in splits:
                tests.open_stores(split)
            for subject in cell.tested_on:
                person = tests.open_person(model, subject)
                # seen pictures are known only with the signals of all people
                if is_prepared and person.has_normaliser:
                    trials[cell.name, subject] = person.trials
                elif is_prepared:
                    trials[cell.name, subject] = person.raw_trials
                elif person.is_prepared:
                    person.read(tests.split)
    return trials


def _list_model_caveats(model: TrainedModel, dataset: Dataset) -> list[str]:
    """List the caveats of a model's training for the subjects that it is tested on."""
    test_subjects = set(model.cell.tested_on)
    history = model.history
    caveats = history.list_caveats(dataset.people)

    # a new subject is normalised by its own recordings
    training_subjects = {*model.cell.trained_on, *history.subjects}
    is_known = test_subjects <= training_subjects
    is_calibrated = (
        model.signal.normalise is not None
        and not model.signal.caveats
        and history.normaliser is None
    )
    if is_calibrated and (model.tests_new_subjects or not is_known):
        caveats.append(CALIBRATED)

    # a new number may be a person of the training
    known_people = set(history.people.get(dataset.people, ()))
    same_people: set[int] = set()
    for subject in test_subjects - known_people:
        same_people.update(dataset.same_person(subject))
    if known_people & same_people:
        caveats.append(SAME_PERSON)
    return caveats
