"""Cells whose similarities are averaged: one of each run, or one alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.responses import Responses
from brainhive_cli.training.alignment.cells import Cell
from brainhive_cli.training.alignment.trained import AlignRun
from brainhive_cli.training.alignment.trained_cell import TrainedCell

Group = tuple[Cell, ...]
"""Cells that are averaged, one of each run; the first one's name stands for all."""


@dataclass(frozen=True)
class Ensemble:
    """Models whose cosine similarities are averaged; with one member it is that model.

    Unit tokens concatenated have the mean of their cosines as cosine, so an ensemble has tokens too.
    """

    members: tuple[TrainedCell, ...]

    @classmethod
    def load(
        cls, runs: Sequence[AlignRun], cells: Group, device: torch.device, head: str | None = None
    ) -> Self:
        """Load one cell of each run, to be compared by a head; None leaves it to the models."""
        return cls(tuple(TrainedCell.load(*pair, device, head) for pair in zip(runs, cells, strict=True)))

    @property
    def cell(self) -> Cell:
        """The first member's cell, whose name stands for all."""
        return self.members[0].cell

    def rows(self, split: str) -> NDArray[np.int64]:
        """Find the rows of the pictures that every member has an embedding of."""
        stores = [member.pictures(split) for member in self.members]
        first = stores[0]
        for other in stores[1:]:
            if first.image_ids != other.image_ids:
                raise BrainhiveError(f"{first.path} and {other.path} hold different pictures", "embed again")
        return np.flatnonzero(np.all([store.done for store in stores], axis=0))

    def shown(self, split: str) -> NDArray[np.int64]:
        """Find the rows of those pictures that a tested subject of any cell was shown."""
        first = self.members[0]
        subjects = {subject for cell in first.align.cells for subject in cell.tested_on}
        shown = [first.shown(subject, split) for subject in sorted(subjects)]
        return np.intersect1d(self.rows(split), np.concatenate(shown))

    def images(self, split: str, rows: NDArray[np.int64]) -> Tensor:
        """Encode pictures as tokens [M, D]."""
        return _joined([member.images(split, rows) for member in self.members])

    def signals(self, subject: int, split: str) -> tuple[list[Tensor], NDArray[np.int64]]:
        """Open a subject's averaged signals: [N, C, T] as each member takes them, and pictures' rows [N]."""
        found = [member.responses(subject, split) for member in self.members]
        kept = [self._are_tested(trials, subject, split) for trials in found]
        signals = [torch.from_numpy(trials.signal[rows]) for trials, rows in zip(found, kept, strict=True)]
        return signals, found[0].stimulus[kept[0]]

    def single_trials(self, subject: int, split: str) -> tuple[list[Tensor], Tensor]:
        """Open a subject's single trials: [N, R, C, T] as each member takes them, and how many of R [N]."""
        signals, counts = [], np.empty(0, np.int64)
        for member in self.members:
            trials = member.responses(subject, split, with_single=True)
            assert trials.single is not None and trials.counts is not None
            kept = self._are_tested(trials, subject, split)
            signals.append(torch.from_numpy(trials.single[kept]))
            counts = trials.counts[kept]
        return signals, torch.from_numpy(counts)

    def _are_tested(self, trials: Responses, subject: int, split: str) -> NDArray[np.bool_]:
        """Find the signals [N] of pictures that all members have an embedding of and none has seen."""
        are_tested = np.isin(trials.stimulus, self.rows(split))
        for member in self.members:
            are_tested &= np.isin(trials.stimulus, member.responses(subject, split).stimulus)
        return are_tested

    def tokens(self, subject: int, signals: Sequence[Tensor]) -> Tensor:
        """Encode signals, [N, C, T] as each member takes them, as tokens [N, D]."""
        return _joined(
            [member.encode(subject, signal) for member, signal in zip(self.members, signals, strict=True)]
        )


def _joined(tokens: Sequence[Tensor]) -> Tensor:
    return tokens[0] if len(tokens) == 1 else torch.cat([normalize(each, dim=1) for each in tokens], dim=1)


def group_cells(runs: Sequence[AlignRun]) -> list[Group]:
    """Match the cells of several runs: those tested on the same subjects, in the order of their seeds.

    Raises:
        BrainhiveError: if the runs do not have the same cells; it names two.
    """
    keyed = [_by_tested(run.cells) for run in runs]
    for run, cells in zip(runs, keyed, strict=True):
        if cells.keys() != keyed[0].keys():
            one, other = (
                f"{each.folder.path} ({', '.join(c.name for c in each.cells)})" for each in (runs[0], run)
            )
            raise BrainhiveError(
                f"{one} and {other} were not tested on the same subjects as often",
                "average runs of the same subjects and number of seeds",
            )
    return [tuple(cells[key] for cells in keyed) for key in keyed[0]]


def _by_tested(cells: Sequence[Cell]) -> dict[tuple[tuple[int, ...], int], Cell]:
    keyed: dict[tuple[tuple[int, ...], int], Cell] = {}
    for cell in cells:
        before = sum(tested_on == cell.tested_on for tested_on, _ in keyed)
        keyed[cell.tested_on, before] = cell
    return keyed
