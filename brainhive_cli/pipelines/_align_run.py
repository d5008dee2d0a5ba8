"""A finished align run, opened to be used."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brainhive_cli import aligner as aligners
from brainhive_cli import parts
from brainhive_cli.datasets import Dataset
from brainhive_cli.embeddings import EmbeddingStore
from brainhive_cli.encoders import EncoderConfig, resolve
from brainhive_cli.pipelines._cells import Cell, cells_of
from brainhive_cli.pipelines._data import Signal, open_embeddings, open_trials
from brainhive_cli.pipelines._identity import refuse_others
from brainhive_cli.pipelines.train_align import Recipe
from brainhive_cli.recipe import Paths
from brainhive_cli.runs import RunFolder


@dataclass(frozen=True)
class AlignRun:
    """The data set, cells and signals of a run, and its models."""

    folder: RunFolder
    dataset: Dataset
    made_of: parts.Config
    encoders: list[EncoderConfig]
    cells: list[Cell]
    signal: Signal
    paths: Paths

    @classmethod
    def open(cls, folder: RunFolder, paths: Paths) -> Self:
        """Read back what the run was made of."""
        made = folder.recipe()
        config = parts.resolve("datasets", made["dataset"])
        dataset: Dataset = config.build(paths)
        cells = cells_of(Recipe.model_validate(made))
        encoders = [resolve(each) for each in made["encoders"]]
        return cls(folder, dataset, config, encoders, cells, Signal(**made["signal"]), paths)

    def model(self, cell: Cell, device: torch.device) -> aligners.Aligner:
        """Load a cell's aligner."""
        return aligners.load(self.folder.path / "cells" / cell.name / "model").to(device)

    def stores(self, split: str) -> dict[str, EmbeddingStore]:
        """Open the embeddings that its aligners take; BrainhiveError if they were made otherwise."""
        stores = open_embeddings(self.dataset, self.made_of, split, self.encoders, self.paths)
        refuse_others(self.folder, stores)
        return stores

    def tokens(
        self,
        model: aligners.Aligner,
        cell: Cell,
        subject: int,
        split: str,
        pictures: EmbeddingStore,
    ) -> tuple[Tensor, NDArray[np.int64]]:
        """Encode a subject's signals of a split: tokens [N, D] and the row of each one's picture [N]."""
        device, layout = model.logit_scale.device, model.layout
        trials = open_trials(self.dataset, self.paths, self.signal, subject, split, pictures, layout.channels)
        signal = torch.from_numpy(trials.signal).to(device)
        place = cell.trained_on.index(subject) if subject in cell.trained_on else 0
        index = torch.full((len(signal),), place, device=device)
        with torch.inference_mode():
            return model.encode_signal(signal, index).float(), trials.picture
