"""Trained models of a train-align run or of a model folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Self

from brainhive_cli.core.base import MissingData, RecipeError
from brainhive_cli.core.files import documents, hub
from brainhive_cli.core.recipes import Paths
from brainhive_cli.core.results import choose_headlines
from brainhive_cli.core.runs import run_folder as runs
from brainhive_cli.data.signals import ChannelChoice, Signal
from brainhive_cli.data.stores import Recordings, TargetStore
from brainhive_cli.data.targets import (
    find_encoders,
    read_run_encoders,
    require_same_identities,
)
from brainhive_cli.models.encoders import EncoderConfig
from brainhive_cli.training.alignment import (
    Cell,
    Layout,
    Recipe,
    describe_model,
    describe_recipe,
    find_reference,
    list_cells,
    list_test_subjects,
    model_files,
)
from brainhive_cli.training.alignment.trained.model import describe_model_files
from brainhive_cli.training.alignment.trained.models import TrainedModels


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class TrainedRun(TrainedModels):
    """Models of a train-align run."""

    @classmethod
    def read(
        cls,
        folder: runs.RunFolder,
        paths: Paths | None = None,
        dataset: Any = None,
        subjects: Sequence[int] | None = None,
        **options: Any,
    ) -> Self:
        """Read the recipe and the cells of a run.

        Args:
            folder: Folder of the run.
            paths: Folders of the signals and embeddings.
            dataset: Config of the data set of the test, if it is not the run's own.
            subjects: Subjects of the test, by default the subjects of the run, or all
                subjects of another data set.
            options: Other fields of `TrainedModels`.

        Raises:
            MissingData: if no model is tested on a subject.
            RecipeError: if the data set holds out other folds than the run.
        """
        paths = paths or Paths()
        recipe = folder.recipe(Recipe, paths=paths)

        # folds of another holdout would test training trials
        dataset_config = dataset or recipe.dataset
        tested = dataset_config.build(paths)
        trained_on = recipe.dataset.build(paths)
        if tested.holdout != trained_on.holdout:
            raise RecipeError(
                f"{folder.path} was trained with another dataset.holdout",
                "use the run's own data set, without --dataset, or another one without "
                "dataset.holdout",
            )

        # other people are tested by every cell
        has_other_people = trained_on.people != tested.people
        cells = list_cells(recipe, trained_on)
        if has_other_people or subjects is not None:
            recordings = Recordings(tested, paths, recipe.signal)
            selected = tuple(recordings.list_subjects(subjects))
            if has_other_people:
                cells = [replace(cell, tested_on=selected) for cell in cells]
            else:
                cells = _select_cells(cells, selected, folder.path)
        return cls(
            folder=folder,
            paths=paths,
            dataset_config=dataset_config,
            dataset=tested,
            encoders=recipe.encoders,
            signal=recipe.signal,
            cells=cells,
            mode=recipe.mode,
            origin=trained_on.name if has_other_people else None,
            trained_on=trained_on,
            recipe=recipe,
            **options,
        )

    def locate(self, cell: Cell) -> Path:
        """Return the model folder of a cell."""
        return self.folder.path / "cells" / cell.name / "model"

    def check_stores(self, stores: Mapping[str, TargetStore]) -> None:
        """Raise an error if embeddings were made in another way than in training."""
        require_same_identities(self.folder, stores)

    def describe_method(self, layout: Layout) -> dict[str, Any]:
        """Describe how the models were trained, by key of a recipe."""
        assert self.recipe is not None
        return describe_recipe(self.recipe, self.dataset.holdout)

    def read_validation(self) -> dict[str, Any]:
        """Read the validation metric, such as top-1, as a mean over cells.

        Returns:
            Name and value of the metric. `measured_on` has the data set, and the
            numbers of items and candidates of each cell. Values with equal
            `measured_on` are comparable. Empty if a cell has no such metric.
        """
        scopes = self.folder.measurements().scopes
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


def _select_cells(
    cells: Sequence[Cell], subjects: Sequence[int], path: Path
) -> list[Cell]:
    """Select the cells that are tested on some of the requested subjects.

    Raises:
        MissingData: if a subject is not tested by any cell.
    """
    run_subjects = list_test_subjects(cells)
    absent = sorted(set(subjects).difference(run_subjects))
    if absent:
        raise MissingData(
            f"no model of {path} is tested on subject {', '.join(map(str, absent))}",
            f"choose from its subjects: {', '.join(map(str, run_subjects))}",
        )
    selected_cells = []
    for cell in cells:
        tested_on = tuple(s for s in cell.tested_on if s in subjects)
        if tested_on:
            selected_cells.append(replace(cell, tested_on=tested_on))
    return selected_cells


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class ModelFolder(TrainedModels):
    """Model folder or published checkpoint, which is the model of a single cell."""

    @classmethod
    def read(
        cls,
        folder: runs.RunFolder,
        paths: Paths | None = None,
        dataset: Any = None,
        subjects: Sequence[int] | None = None,
        **options: Any,
    ) -> Self:
        """Read the architecture and the history of a model folder or checkpoint.

        Args:
            folder: Model folder or checkpoint.
            paths: Folders of the signals and embeddings.
            dataset: Config of the data set of the test.
            subjects: Subjects of the test.
            options: Other fields of `TrainedModels`.

        Raises:
            MissingData: if the encoders are not named anywhere, there are no data set
                and subjects, or the data set has no such subject.
            RecipeError: if the data set holds out folds.
        """
        path = folder.path
        paths = paths or Paths()
        if not dataset or not subjects:
            raise MissingData(
                f"{path} is a model folder, which has no data set and subjects to test",
                f"name both: --run {path} --dataset things-eeg --subjects 1",
            )
        tested = dataset.build(paths)
        if tested.holdout.divides_train:
            raise RecipeError(
                f"{path} is a model folder, which does not know its fold",
                "name its run: --run RUN, without --dataset",
            )
        layout, history = describe_model_files(path)
        is_same = history.recordings == tested.people
        encoders, signal = _describe_training(path, layout, is_same)
        recordings = Recordings(tested, paths, signal)
        test_subjects = tuple(recordings.list_subjects(subjects))
        relation = history.describe_subjects(tested.people, test_subjects)
        return cls(
            folder=folder,
            paths=paths,
            dataset_config=dataset,
            dataset=tested,
            encoders=encoders,
            signal=signal,
            cells=[Cell(path.name, layout.spec.subjects, test_subjects, 0)],
            mode=f"model folder ({relation})",
            origin=None if is_same else history.dataset,
            **options,
        )

    @property
    def digest(self) -> str:
        """Digest of the folder or checkpoint."""
        path = self.folder.path
        return (
            hub.digest(path) if path.is_dir() else hub.digest(path.parent, [path.name])
        )

    def locate(self, cell: Cell) -> Path:
        """Return the folder or checkpoint."""
        return self.folder.path

    def check_stores(self, stores: Mapping[str, TargetStore]) -> None:
        """Accept all embeddings, because those of the training are not recorded."""

    def describe_method(self, layout: Layout) -> dict[str, Any]:
        """Describe the architecture, by key of a recipe."""
        return describe_model(layout, self.encoders, self.signal)


def _describe_training(
    path: Path, layout: Layout, is_same_data: bool
) -> tuple[list[EncoderConfig], Signal]:
    """Find the encoders and the signal section of a model folder.

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
    fields = {
        key: value
        for key, value in layout.spec.signal.items()
        # Keys of the section `signal` that also apply to recordings of
        # another data set.
        if is_same_data
        or key in ("window_ms", "scale", "normalise", "normalise_trials")
        or key.startswith("region_")
    }
    signal = documents.check(fields, f"{path}: spec.signal", Signal)
    return list(encoders.values()), signal


def open_models(
    folder: runs.RunFolder,
    paths: Paths | None = None,
    dataset: Any = None,
    subjects: Sequence[int] | None = None,
    **options: Any,
) -> TrainedModels:
    """Open the models of a run or of a model folder, with the arguments of `read`."""
    kind = ModelFolder if model_files.is_model(folder.path) else TrainedRun
    return kind.read(folder, paths, dataset, subjects, **options)


def open_model(
    reference: str | None,
    paths: Paths,
    dataset: Any = None,
    subjects: Sequence[int] | None = None,
    copies: str = "refuse",
    channel_mapping: ChannelChoice = "none",
) -> TrainedModels:
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
    folder = find_reference(reference, paths, dataset)
    return open_models(
        folder,
        paths,
        dataset,
        subjects,
        allows_copies=copies == "allow",
        channel_mapping=channel_mapping,
    )
