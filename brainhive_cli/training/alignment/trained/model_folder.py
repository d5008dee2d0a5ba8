"""Trained model in a folder of its own, or in a published checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from brainhive_cli.core.base import MissingData, RecipeError
from brainhive_cli.core.files import documents, hub
from brainhive_cli.core.recipes import Paths
from brainhive_cli.core.runs import run_folder as runs
from brainhive_cli.data.signals import Signal
from brainhive_cli.data.stores import Recordings, TargetStore
from brainhive_cli.data.targets import find_encoders, read_run_encoders
from brainhive_cli.models.encoders import EncoderConfig
from brainhive_cli.training.alignment import Cell, Layout, describe_model
from brainhive_cli.training.alignment.trained.model import describe_model_files
from brainhive_cli.training.alignment.trained.models import TrainedModels


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
        # Keys of the section `signal` that also apply to recordings of another data
        # set.
        if is_same_data
        or key in ("window_ms", "scale", "normalise", "normalise_trials")
        or key.startswith("region_")
    }
    signal = documents.check(fields, f"{path}: spec.signal", Signal)
    return list(encoders.values()), signal
