"""Test sets whose models and embeddings are in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from brainhive_cli.core.base.errors import Line, MissingData
from brainhive_cli.core.recipes.recipe import Paths
from brainhive_cli.data.datasets import Dataset
from brainhive_cli.data.files.ids import Names
from brainhive_cli.data.media.stimuli import StimulusSet
from brainhive_cli.data.signals import Signal, StudyDesign, Trials
from brainhive_cli.data.stores.target_store import TargetStore
from brainhive_cli.data.targets.targets import Targets
from brainhive_cli.training.alignment.cells import Cell
from brainhive_cli.training.alignment.trained import TestedPerson, TestSet

DATASET = Dataset("made", ("train", "test"), lambda split: StimulusSet("made", split))
"""Data set of pictures whose split `test` is tested."""


def make_store(
    embedding: torch.Tensor,
    image_ids: Sequence[str],
    concepts: Sequence[str] | None = None,
    has_embedding: Any = None,
) -> TargetStore:
    """Make a target store in memory.

    Args:
        embedding: Embeddings [N, *shape].
        image_ids: Ids [N] of the pictures.
        concepts: Concepts [N], by default the ids.
        done: True [N] for pictures with an embedding, by default all.
    """
    return TargetStore(
        path=Path("a store"),
        embedding=embedding.numpy(),  # type: ignore[arg-type]
        image_ids=Names.of(image_ids),
        concepts=Names.of(image_ids if concepts is None else concepts),
        done=np.ones(len(image_ids), bool) if has_embedding is None else has_embedding,
        pixels=None,
        attributes={},
        shape=tuple(embedding.shape[1:]),
        alternatives=None,
        has_own_vectors=False,
        command_line=Line("embed"),
    )


@dataclass
class MemoryEncoder:
    """Name and input of an encoder."""

    name: str
    content: str = "pixels"


@dataclass
class MemoryLayout:
    """Targets that a model is compared by, and its heads."""

    compared_keys: list[str]
    heads: dict[str, Any] = field(default_factory=dict)


@dataclass
class MemoryModule:
    """Network of a model."""

    layout: MemoryLayout
    adapter: None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


@dataclass
class MemoryRun:
    """Run of a model."""

    model: Any
    dataset: Dataset
    origin: Any = None
    recipe: Any = None
    channel_mapping: str = "none"
    paths: Paths = field(default_factory=Paths)

    @property
    def name(self) -> str:
        """The name that the model has for its run."""
        return str(self.model.run_name)

    @property
    def cells(self) -> list[Cell]:
        """The only cell of the run."""
        return [self.model.cell]

    def open(self, cell: Cell) -> Any:
        """Return the model of the cell."""
        return self.model


class PictureModel:
    """Model of two people, which compares the embeddings of a single encoder.

    Args:
        encoder: Name of the encoder.
        token_width: Width of its embeddings.
        number: Seed of the cell, and number of the run.
        fold: Fold of the cell.
    """

    def __init__(
        self,
        encoder: str = "looks",
        token_width: int = 1,
        number: int = 0,
        fold: int = 1,
    ) -> None:
        self.number = number
        self.token_width = token_width
        self.cell = Cell(f"all/{number}", (1, 2), (1, 2), number, fold=fold)
        self.run_name = f"run {number}"
        self.path = Path("a run")
        self.signal = Signal()
        self.encoders = [MemoryEncoder(encoder)]
        self.tests_new_subjects = False
        self.keys = {encoder: encoder}
        self.module = MemoryModule(MemoryLayout([encoder]))

    def encode_pictures(self, targets: Targets, rows: np.ndarray) -> torch.Tensor:
        """Return the embeddings [M, D] of pictures."""
        return targets.gather(rows)[self.encoders[0].name]


@dataclass(eq=False, kw_only=True)
class MemoryPerson(TestedPerson):
    """Person whose trials are in memory, as the model reads them.

    Attributes:
        recorded: Trials by split.
    """

    recorded: Mapping[str, Trials]
    normaliser = None

    def read(self, split: str) -> Trials:
        """Return the trials of a split."""
        return self.recorded[split]


@dataclass(eq=False, kw_only=True)
class MemoryTestSet(TestSet):
    """Test set whose embeddings and trials are in memory.

    Attributes:
        stores: Target stores by split and encoder.
        recorded: Trials by subject and split.
        study: Design of the study.
    """

    stores: Mapping[str, dict[str, TargetStore]] = field(default_factory=dict)
    recorded: Mapping[int, Mapping[str, Trials]] = field(default_factory=dict)
    study: StudyDesign | None = None

    def open_stores(self, split: str) -> dict[str, TargetStore]:
        """Return the target stores of a split, by encoder."""
        if split not in self.stores:
            raise MissingData(f"no embeddings of {split}", "embed")
        return self.stores[split]

    def open_person(self, model: Any, subject: int) -> TestedPerson:
        """Return a person who was shown no picture in the training."""
        return MemoryPerson(
            subject=subject,
            split=self.split,
            model=model,
            recordings=self.get_recordings(model),
            open_pictures=self.open_pictures,
            find_seen=lambda subject, rows: np.zeros(len(rows), bool),
            recorded=self.recorded[subject],
        )


def make_runs(
    models: Sequence[Any], dataset: Dataset = DATASET, **facts: Any
) -> list[Any]:
    """Make a run for each model.

    Args:
        models: Models, each the only one of its run.
        dataset: Data set of the test.
        facts: Other attributes of the runs, such as `origin`.
    """
    return [MemoryRun(model, dataset, **facts) for model in models]
