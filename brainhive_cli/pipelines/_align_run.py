"""A finished align run, or one model folder, opened to be used."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brainhive_cli import aligner as aligners
from brainhive_cli import parts, runs
from brainhive_cli.datasets import Dataset
from brainhive_cli.embeddings import EmbeddingStore
from brainhive_cli.encoders import EncoderConfig, resolve
from brainhive_cli.errors import MissingData
from brainhive_cli.pipelines._cells import Cell, cells_of, variants
from brainhive_cli.pipelines._data import (
    Form,
    Signal,
    Trials,
    chosen_subjects,
    encoder_names,
    open_embeddings,
    open_signals,
    open_trials,
)
from brainhive_cli.pipelines._transfer import Origin, fitted
from brainhive_cli.pipelines.train_align import Recipe
from brainhive_cli.recipe import Paths
from brainhive_cli.recordings import Recording
from brainhive_cli.runs import FINISHED, RunFolder
from brainhive_cli.signals.selection import sample_range

BATCH = 4096
"""Signals that are encoded at once."""


@dataclass(frozen=True)
class AlignRun:
    """The data set, cells and signals of a run, and its models.

    Attributes:
        folder: The run; or the model folder, which is then the model of its only cell.
        dataset: Whose signals and pictures are used.
        made_of: Its Config.
        made_with: The encoders and signals that cells were trained with, by the variant of a sweep.
        origin: What the models were trained on, when that is not `dataset`; None when it is.
    """

    folder: RunFolder
    dataset: Dataset
    made_of: parts.Config
    cells: list[Cell]
    made_with: dict[str, tuple[list[EncoderConfig], Signal]]
    paths: Paths
    mode: str
    origin: Origin | None = None
    _kept: dict[tuple[str, ...], Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def open(
        cls,
        folder: RunFolder,
        paths: Paths,
        dataset: Any = None,
        subjects: Sequence[int] | None = None,
    ) -> Self:
        """Read back what the run was made of.

        Args:
            folder: The run.
            paths: Where stores lie.
            dataset: The data set to use; default: the run's own. On another, every cell meets all subjects.
            subjects: Those to use; default: all that a cell is to be tested on.

        Raises:
            MissingData: if the data set has no such subject.
        """
        made = Recipe.model_validate({**folder.recipe(), "paths": paths})
        recipes, cells = variants(made), cells_of(made)
        trained_on: Dataset = made.dataset.build(paths)
        used = trained_on if dataset is None else dataset.build(paths)
        origin = None
        if used.recorded_as != trained_on.recorded_as:
            origin = Origin.of(trained_on, made.signal, paths)
            tested_on = tuple(chosen_subjects(used, subjects))
            cells = [replace(cell, tested_on=tested_on) for cell in cells]
        elif subjects is not None:
            cells = _restricted(cells, chosen_subjects(used, subjects), str(folder.path))
        made_with = {variant: (each.encoders, each.signal) for variant, each in recipes.items()}
        mode = " + ".join(dict.fromkeys(each.mode for each in recipes.values()))
        return cls(folder, used, dataset or made.dataset, cells, made_with, paths, mode, origin)

    @classmethod
    def of_model(cls, path: Path, paths: Paths, dataset: Any, subjects: Sequence[int] | None) -> Self:
        """Open a model folder, ours or BrainHiVE's own: it says neither on which data nor on whom to test.

        Raises:
            MissingData: if the data set or the subjects are not given.
        """
        given = {"--dataset": dataset, "--subjects": subjects}
        if absent := [flag for flag, value in given.items() if not value]:
            raise MissingData(
                f"the model folder {path} does not say what to test it on: {' and '.join(absent)} missing",
                f"brainhive eval-retrieval --run {path} --dataset things-eeg --subjects 1",
            )
        used: Dataset = dataset.build(paths)
        layout = aligners.load(path).layout
        encoders = [resolve(name) for name in encoder_names(layout.encoders)]
        signal = Signal.model_validate(
            {"window_ms": layout.window_ms, "scale": layout.scale, "normalise": layout.normalise}
        )
        cell = Cell(path.name, layout.subjects, tuple(chosen_subjects(used, subjects)), 0)
        made_with, origin = {"": (encoders, signal)}, Origin.unknown()
        return cls(RunFolder(path), used, dataset, [cell], made_with, paths, "model folder", origin)

    @cached_property
    def _is_model(self) -> bool:
        return is_model(self.folder.path)

    def model(self, cell: Cell, device: torch.device) -> aligners.Aligner:
        """Load a cell's aligner."""
        path = self.folder.path if self._is_model else self.folder.path / "cells" / cell.name / "model"
        return aligners.load(path).to(device)

    @property
    def is_selected_on_test(self) -> bool:
        """Whether the kept epoch of some cell was chosen on the test set."""
        if self._is_model:
            return False
        cells = self.folder.metrics()["cells"].values()
        return any(cell.get("selected_on") == "test" for cell in cells)

    def published(self) -> dict[str, Any]:
        """Give the numbers that the recipe names as published: metric to value, and `source`."""
        return {} if self._is_model else self.folder.metrics().get("published") or {}

    def stores(self, split: str, cell: Cell | None = None) -> dict[str, EmbeddingStore]:
        """Open the embeddings that a cell's aligner takes; the first cell's by default."""
        encoders, _ = self.made_with[(cell or self.cells[0]).variant]
        stores: dict[str, EmbeddingStore] = self._once(
            (split, *(config.name for config in encoders)),
            lambda: open_embeddings(self.dataset, self.made_of, split, encoders, self.paths),
        )
        return stores

    def _once(self, key: tuple[str, ...], make: Callable[[], Any]) -> Any:
        """Make something for all cells that follow."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def trials(
        self,
        layout: aligners.Layout,
        cell: Cell,
        subject: int,
        split: str,
        pictures: EmbeddingStore,
        form: Form | None = None,
    ) -> Trials:
        """Open a subject's signals as a cell's model takes them."""
        signal, channels = self._taken(layout, cell, subject, split)
        given = (self.dataset, self.paths, signal, subject, split, pictures, channels)
        return open_trials(*given, form or Form())

    def times_ms(
        self, layout: aligners.Layout, cell: Cell, subject: int, split: str
    ) -> NDArray[np.floating[Any]]:
        """Say when the samples of a subject's signals lie, milliseconds after the picture: [T]."""
        signal, _ = self._taken(layout, cell, subject, split)
        times_s = self.recording(cell, subject, split).times_s
        return 1000 * times_s[sample_range(times_s, signal.window_ms)]

    def recording(self, cell: Cell, subject: int, split: str) -> Recording:
        """Open a subject's recording of a split."""
        return open_signals(self.dataset, self.paths, self.made_with[cell.variant][1], subject)[split]

    def _taken(
        self, layout: aligners.Layout, cell: Cell, subject: int, split: str
    ) -> tuple[Signal, tuple[str, ...]]:
        signal, channels = self.made_with[cell.variant][1], layout.channels
        if self.origin:
            return fitted(self.origin, layout, signal, self.dataset, self.paths, subject, split)
        return signal, channels

    def averaged(
        self, layout: aligners.Layout, cell: Cell, subject: int, split: str, pictures: EmbeddingStore
    ) -> Trials:
        """Open a subject's averaged signals; they are kept for the cells that follow."""
        given = (layout, cell, subject, split, pictures)
        trials: Trials = self._once(self._key("trials", *given), lambda: self.trials(*given))
        return trials

    def mean_signal(
        self, layout: aligners.Layout, cell: Cell, subject: int, split: str, pictures: EmbeddingStore
    ) -> NDArray[np.float32]:
        """Average a subject's signals over pictures: [C, T]; it is kept for the cells that follow."""
        given = (layout, cell, subject, split, pictures)
        mean: NDArray[np.float32] = self._once(
            self._key("mean", *given), lambda: self.trials(*given).signal.mean(0)
        )
        return mean

    def _key(
        self,
        what: str,
        layout: aligners.Layout,
        cell: Cell,
        subject: int,
        split: str,
        pictures: EmbeddingStore,
    ) -> tuple[str, ...]:
        return (
            what,
            str(subject),
            split,
            *layout.channels,
            self.made_with[cell.variant][1].model_dump_json(),
        )

    def encode(self, model: aligners.Aligner, subject: int, signal: Tensor) -> Tensor:
        """Encode a subject's signals [N, C, T] as tokens [N, D]; who was not trained on has no index."""
        known = () if self.origin and self.origin.is_other else model.layout.subjects
        tokens = []
        with torch.inference_mode():
            for part in signal.split(BATCH):
                part = part.to(model.logit_scale.device)
                index = None
                if subject in known:
                    index = torch.full((len(part),), known.index(subject), device=part.device)
                tokens.append(model.encode_signal(part, index).float())
        return torch.cat(tokens)

    def tokens(
        self, model: aligners.Aligner, cell: Cell, subject: int, split: str, pictures: EmbeddingStore
    ) -> tuple[Tensor, NDArray[Any]]:
        """Encode a subject's signals of a split: tokens [N, D] and the row of each one's picture [N]."""
        trials = self.averaged(model.layout, cell, subject, split, pictures)
        return self.encode(model, subject, torch.from_numpy(trials.signal)), trials.picture


def is_model(path: Path) -> bool:
    """Tell whether a folder is a model's, and not a run's."""
    return (path / "config.json").is_file() and not (path / FINISHED).is_file()


def find(
    reference: str | None,
    paths: Paths,
    dataset: Any = None,
    subjects: Sequence[int] | None = None,
) -> AlignRun:
    """Open a run by folder or name, a model by its folder, or the newest run."""
    if reference is not None and is_model(Path(reference)):
        return AlignRun.of_model(Path(reference), paths, dataset, subjects)
    found = runs.find(paths.under_home("runs"), "train-align", reference)
    return AlignRun.open(found, paths, dataset, subjects)


def _restricted(cells: Sequence[Cell], subjects: Sequence[int], where: str) -> list[Cell]:
    """Keep of the cells what is tested on some subjects."""
    known = sorted({subject for cell in cells for subject in cell.tested_on})
    if absent := sorted(set(subjects) - set(known)):
        raise MissingData(
            f"no cell of {where} is tested on subject {', '.join(map(str, absent))}",
            f"it has: {', '.join(map(str, known))}",
        )
    kept = []
    for cell in cells:
        tested_on = tuple(subject for subject in cell.tested_on if subject in subjects)
        if tested_on:
            kept.append(replace(cell, tested_on=tested_on))
    return kept
