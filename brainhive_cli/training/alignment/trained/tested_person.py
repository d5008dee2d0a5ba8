"""Signals of a tested person, as a trained model reads them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from brainhive_cli.core.base import Bool, Float32, Int64
from brainhive_cli.data.signals import ChannelChoice, Normaliser, Trials
from brainhive_cli.data.stores import Recordings, TargetStore
from brainhive_cli.data.targets import (
    choose_input,
    match_split,
    match_stimuli,
    measure_new_subject,
    measure_trials,
)
from brainhive_cli.models import normalise_unit
from brainhive_cli.training.alignment.trained.model import TrainedModel

DEFAULT_UNIT = "µV"
"""Unit of EEG, for stores of whitened signals that do not record a unit."""


@dataclass(eq=False)
class TestedPerson:
    """Signals of a person, as a model reads them.

    Models with the same input share it, so that signals are read once.

    Attributes:
        subject: Number of the person.
        split: Split of the test.
        model: Model that reads the signals.
        recordings: Recordings of the data set in the fold of the model.
        open_pictures: Opens a target store of a split.
        find_seen: Finds signals [N] whose pictures, by their rows [N], were seen in
            training, or raises an error if there are too many.
        channel_mapping: Treatment of channels that recordings lack.
    """

    __test__ = False  # pytest collects classes whose names begin with Test

    subject: int
    split: str
    model: TrainedModel
    recordings: Recordings
    open_pictures: Callable[[str], TargetStore]
    find_seen: Callable[[int, Int64], Bool]
    channel_mapping: ChannelChoice = "none"

    @property
    def is_prepared(self) -> bool:
        """True if the person has a signal store."""
        return self.recordings.build_path(self.subject).is_file()

    @cached_property
    def is_same_store(self) -> bool:
        """True if the model was trained on a store of the same preparation.

        Stores of one preparation are in one folder.
        """
        folder = self.recordings.name_store(self.subject).rpartition("/")[0]
        stores = self.model.history.signals
        return any(name.rpartition("/")[0] == folder for name in stores)

    def read(self, split: str) -> Trials:
        """Read the trials of a split as the model takes them, but not normalised.

        Trials of pictures that were seen in training are among them.

        Raises:
            MissingData: if there are no signals of this split.
            BrainhiveError: if the recording does not fit the model.
        """
        source = f"{self.recordings.dataset.name} subject {self.subject}"
        trials = match_split(
            self.recordings, self.subject, split, self.open_pictures(split)
        )
        return self._choose_input(trials, source, split, self.is_same_store)

    def read_recording(self, recording: Trials) -> Trials:
        """Read trials in memory as test trials of the person, normalised."""
        source = f"the recording of subject {self.subject}"
        trials = replace(recording, subject=self.subject)
        if len(recording.image_ids):
            trials = match_stimuli(trials, self.open_pictures(self.split), source)
        trials = self._choose_input(trials, source, self.split, is_same_store=False)
        if len(trials.image_ids):
            trials = self._leave_out_seen(trials)
        return self._normalise_tested(trials)

    def _choose_input(
        self, trials: Trials, source: str, split: str, is_same_store: bool
    ) -> Trials:
        """Choose the channels and the window of the model."""
        spec = self.model.layout.spec
        trials = choose_input(
            spec,
            trials,
            source,
            self.recordings.dataset.channels,
            is_same_store,
            self.channel_mapping,
        )
        if not self.model.tests_new_subjects:
            n_voxels = trials.signal.shape[1]
            spec.refuse_other_voxels(
                self.subject, n_voxels, trials.regions, f"{source} {split}"
            )
        return trials

    def _leave_out_seen(self, trials: Trials) -> Trials:
        """Leave out trials of pictures that were seen in training."""
        return trials.take(~self.find_seen(self.subject, trials.stimulus))

    def _normalise_tested(self, trials: Trials) -> Trials:
        """Normalise test trials as in the training, or by themselves."""
        signal = self.recordings.signal
        if signal.normalise_by == "tested_trials" and self.split != "train":
            statistics = measure_trials(self.recordings, trials)
            return trials.normalise(signal.normalise.build(statistics))
        return trials.normalise(self.normaliser)

    @cached_property
    def raw_trials(self) -> Trials:
        """Test trials, not normalised, of pictures that were not seen in training."""
        return self._leave_out_seen(self.read(self.split))

    @cached_property
    def trials(self) -> Trials:
        """Test trials of pictures that were not seen in training."""
        return self._normalise_tested(self.raw_trials)

    @cached_property
    def all_trials(self) -> Trials:
        """Test trials of all pictures."""
        return self._normalise_tested(self.read(self.split))

    @cached_property
    def train_trials(self) -> Trials:
        """Training trials, with the statistics of the training."""
        return self.read("train").normalise(self.normaliser)

    @cached_property
    def mean_signal(self) -> Float32:
        """Mean [C, T] of the training signals over pictures."""
        averages = self.train_trials.averages
        return averages.mean(0, np.float64).astype(np.float32)

    @property
    def has_normaliser(self) -> bool:
        """True if normalising the signals needs no other signals."""
        if self.recordings.signal.normalise is None:
            return True
        return self.model.find_normaliser(self.subject) is not None

    @cached_property
    def normaliser(self) -> Normaliser | None:
        """Normaliser of the person, or None if signals are not normalised.

        The normaliser of a new subject is fitted to its own training signals.
        """
        normaliser = self.model.find_normaliser(self.subject)
        if normaliser is not None or self.recordings.signal.normalise is None:
            return normaliser
        return measure_new_subject(
            self.model.layout.spec,
            self.recordings,
            self.subject,
            self.open_pictures(self.split),
            self.is_same_store,
            self.channel_mapping,
        )

    def name_trials(self) -> tuple[list[str], list[str]]:
        """Name the held-out trials [N], and the run or session of each.

        Both lists are empty unless trials of seen pictures are held out.
        """
        holdout = self.recordings.dataset.holdout
        if self.split != "test" or not holdout.has_seen_pictures:
            return [], []
        trials = self.trials
        fold = self.recordings.fold
        groups = holdout.name_groups(trials, f"subject {self.subject}", fold)

        # the number distinguishes repetitions of a picture
        image_ids = self.open_pictures(self.split).image_ids[trials.stimulus]
        names = []
        for number, (image_id, group) in enumerate(
            zip(image_ids, groups, strict=True), 1
        ):
            names.append(f"{image_id}, {group}, trial {number}")
        return names, groups

    @property
    def recorded_unit(self) -> str:
        """Unit of the samples before whitening."""
        for facts in self._iterate_provenance():
            if "recorded_unit" in facts:
                return normalise_unit(facts["recorded_unit"])
        return normalise_unit(DEFAULT_UNIT)

    @property
    def delay_s(self) -> float:
        """Seconds from events to pictures in the preparation."""
        for facts in self._iterate_provenance():
            if "preparation" in facts:
                return float(facts["preparation"].get("delay_ms", 0.0)) / 1000
        return 0.0

    def _iterate_provenance(self) -> Iterator[Mapping[str, Any]]:
        """Yield the provenance of the store, then of the training subjects' stores."""
        for person in (self.subject, *self.model.cell.trained_on):
            if self.recordings.build_path(person).is_file():
                for recording in self.recordings.open_store(person).splits.values():
                    yield recording.provenance
                    yield from recording.provenance.get("sessions", ())
