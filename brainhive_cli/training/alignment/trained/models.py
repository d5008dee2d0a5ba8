"""Trained models that are tested together, whether a run or a folder holds them."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from brainhive_cli.core.files import Input
from brainhive_cli.core.recipes import Paths
from brainhive_cli.core.runs import Launch, run_folder as runs
from brainhive_cli.data.datasets import Dataset
from brainhive_cli.data.signals import ChannelChoice, Signal, Trials
from brainhive_cli.data.stores import Recordings, TargetStore, TrainingHistory
from brainhive_cli.data.targets import list_store_inputs, match_recording
from brainhive_cli.models.encoders import EncoderConfig
from brainhive_cli.training.alignment import (
    TRAINING,
    Cell,
    Layout,
    Recipe,
    describe_run,
    list_test_subjects,
)
from brainhive_cli.training.alignment.trained.model import TrainedModel


@dataclass(frozen=True, eq=False, kw_only=True)
class TrainedModels(ABC):
    """Trained models, and the data set and subjects that they are tested on.

    A `TrainedRun` or a `ModelFolder`.

    Attributes:
        folder: Run, or a model folder or published checkpoint.
        paths: Folders of the signals and embeddings.
        dataset_config: Config of `dataset`.
        dataset: Data set of the test.
        encoders: Encoders whose embeddings the models predict.
        signal: Signals that the models read.
        recipe: Recipe of the run, or None for a model folder.
        trained_on: Data set of the training, or None for a model folder.
        cells: Trainings, with the subjects of the test of each.
        mode: Relation between the subjects of the training and of the test.
        origin: Name of the data set of the training if its people are others than those
            of `dataset`. Empty if it is unknown, and None if the people are the same.
        sources: Training histories of other models behind the results, such as a prior,
            by name.
        allows_copies: If True, copies of training pictures under other names are
            tested.
        channel_mapping: Treatment of channels that recordings lack, see
            `map_channels`.
    """

    folder: runs.RunFolder
    paths: Paths
    dataset_config: Any
    dataset: Dataset
    encoders: list[EncoderConfig]
    signal: Signal
    cells: list[Cell]
    mode: str
    recipe: Recipe | None = None
    trained_on: Dataset | None = None
    origin: str | None = None
    sources: Mapping[str, TrainingHistory] = field(default_factory=dict)
    allows_copies: bool = False
    channel_mapping: ChannelChoice = "none"

    @property
    def digest(self) -> str:
        """Digest of the weights in fingerprints. Empty for a run, which has a name."""
        return ""

    @abstractmethod
    def locate(self, cell: Cell) -> Path:
        """Return the folder or checkpoint of the model of a cell."""

    @abstractmethod
    def check_stores(self, stores: Mapping[str, TargetStore]) -> None:
        """Raise an error if embeddings were made in another way than in training."""

    @abstractmethod
    def describe_method(self, layout: Layout) -> dict[str, Any]:
        """Describe how models were trained, by key of a recipe."""

    def __repr__(self) -> str:
        """Return the name of the run and the number of its models."""
        return f"<{type(self).__name__} {self.folder.name}: {len(self.cells)} models>"

    @property
    def name(self) -> str:
        """Name on a command line."""
        return self.folder.reference

    @property
    def reference(self) -> str:
        """Name in recipes and fingerprints, which does not depend on the home."""
        runs_folder = self.paths.under_home("runs") / TRAINING
        return runs.reference(self.folder, runs_folder)

    @property
    def short_name(self) -> str:
        """First part of the folder names of runs that use these models."""
        return self.folder.short_name

    @property
    def file_name(self) -> str:
        """Name of the run in the names of files."""
        return self.folder.file_name

    @property
    def tests_new_subjects(self) -> bool:
        """True if the subjects are known to be other people than in the training.

        Their numbers may be equal.
        """
        return bool(self.origin)

    @property
    def folds(self) -> list[int]:
        """Folds of the cells, `[1]` without folds."""
        return sorted({cell.fold for cell in self.cells})

    def open(
        self, cell: Cell, device: Any = "cpu", head: str | None = None
    ) -> TrainedModel:
        """Open the model of a cell. Its weights are loaded at their first use.

        Args:
            cell: Cell of the model.
            device: Device of the model.
            head: Head that retrieval compares, or None for the model's own choice.
        """
        return TrainedModel(
            path=self.locate(cell),
            cell=cell,
            encoders=self.encoders,
            signal=self.signal,
            run_name=self.name,
            tests_new_subjects=self.tests_new_subjects,
            device=device,
            head=head,
        )

    def open_first(self) -> TrainedModel:
        """Open the model of the first cell, whose architecture all cells have."""
        return self.open(self.cells[0])

    def read_validation(self) -> dict[str, Any]:
        """Read the validation metric, or nothing if these models have none."""
        return {}

    @property
    def recordings(self) -> Recordings:
        """Signals that the models are tested on, in fold 1."""
        return Recordings(self.dataset, self.paths, self.signal)

    def list_inputs(self, splits: Sequence[str]) -> Iterator[Input]:
        """List the inputs of a test: run, signals, and target stores of `splits`.

        The fingerprint of the test has the name of a run, or digest of a model folder.
        """
        yield Input(f"run {self.name}", reference=self.name, digest=self.digest)
        yield from self.recordings.list_inputs(list_test_subjects(self.cells))
        for split in splits:
            yield from list_store_inputs(
                self.dataset, self.dataset_config, split, self.encoders, self.paths
            )

    @property
    def is_prepared(self) -> bool:
        """True if the signals of all test subjects are prepared."""
        return all(self.recordings.are_prepared(cell.tested_on) for cell in self.cells)

    def prepare_signals(self, launch: Launch) -> None:
        """Create the missing signal stores of the test subjects.

        Raises:
            MissingData: if a store and its source recording are missing.
        """
        self.recordings.prepare(list_test_subjects(self.cells), launch)
        self.refuse_copied_people()

    def refuse_copied_people(self) -> None:
        """Raise an error if a subject's trials are copies of another subject's."""
        # equal numbers in another data set are other people
        people: list[int] = []
        if self.origin is None:
            for cell in self.cells:
                people += cell.trained_on
        self.recordings.require_distinct_people(list_test_subjects(self.cells) + people)

    def describe_set_up(
        self, models: Sequence[TrainedModel], recordings: Mapping[int, Trials]
    ) -> dict[str, Any]:
        """Describe the training of models, and the tested signals.

        Args:
            models: Models of the run.
            recordings: Recordings of the tested subjects, cut as in the training here.

        Raises:
            BrainhiveError: if signals lack the channels, window or rate of the models.
        """
        layout = models[0].layout
        signal = models[0].signal
        training = {"mode": self.mode, **self.describe_method(layout)}
        selections = []
        has_other_signals = self.origin is not None or self.channel_mapping != "none"
        for subject, recording in recordings.items():
            source = f"{self.dataset.name} subject {subject}"
            channels = self.dataset.channels
            if has_other_signals:
                selection = match_recording(
                    layout.spec,
                    recording,
                    signal,
                    channels,
                    source,
                    self.channel_mapping,
                )
            else:
                selection = signal.select(recording, channels, source)
            selections.append(selection)

        # Value of the key `train.selection` for each selection that a
        # model folder records.
        selection_keys = {"validation": "best", "last epoch": "last", "test": "test"}
        # selection of the epoch, unless a model does not record it or has no epochs
        rules = dict.fromkeys(
            selection_keys.get(model.history.selection, "") for model in models
        )
        if not layout.backbone_config.is_closed_form and "" not in rules:
            training["selection"] = " or ".join(rules)
        if self.channel_mapping != "none":
            mappings = dict.fromkeys(
                selection.mapping.description
                for selection in selections
                if selection.mapping
            )
            training["channel_mapping"] = " or ".join(mappings) or "none"
        subjects = list_test_subjects(model.cell for model in models)
        return describe_run(
            self.dataset, subjects, training, selections, self.origin or ""
        )

    @property
    def modality(self) -> str:
        """Kind of the recordings: EEG, MEG or fMRI."""
        return self.open_first().layout.spec.modality
