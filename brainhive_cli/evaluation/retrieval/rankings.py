"""Models of a cell, or of several averaged, and the gallery whose pictures are ranked by their signals."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from brainhive_cli.core.arrays import Bool, Int64
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.trials import Trials
from brainhive_cli.measurement.ranks import Distractors, ranks
from brainhive_cli.measurement.units import AlikeBy
from brainhive_cli.training.alignment.recipe import Cell
from brainhive_cli.training.alignment.trained import TrainedModel, TrainedRun

MOST_TESTED = 2048
"""Pictures of the split among which the verdict is asked, at most: ranks of all by all take 8 MB a cell."""
Ids = Sequence[str]
Group = tuple[Cell, ...]
"""Cells that are averaged, one of each run; the first one's name stands for all."""


@dataclass(frozen=True)
class Ensemble:
    """Models whose cosine similarities are averaged; with one member it is that model.

    Unit tokens concatenated have the mean of their cosines as cosine, so an ensemble has tokens too.
    """

    members: tuple[TrainedModel, ...]

    @classmethod
    def load(
        cls, runs: Sequence[TrainedRun], cells: Group, device: torch.device, head: str | None = None
    ) -> Self:
        """Load one cell of each run, to be compared by a head; None leaves it to the models."""
        return cls(tuple(TrainedModel(*pair, device, head) for pair in zip(runs, cells, strict=True)))

    @property
    def cell(self) -> Cell:
        """The first member's cell, whose name stands for all."""
        return self.members[0].cell

    def rows(self, split: str) -> Int64:
        """Find the rows of the pictures that every member has an embedding of."""
        stores = [member.pictures(split) for member in self.members]
        first = stores[0]
        for other in stores[1:]:
            if first.image_ids != other.image_ids:
                raise BrainhiveError(f"{first.path} and {other.path} hold different pictures", "embed again")
        return reduce(np.intersect1d, [member.rows(split) for member in self.members])

    def images(self, split: str, rows: Int64) -> Tensor:
        """Encode pictures as tokens [M, D]."""
        return _join_tokens([member.images(split, rows) for member in self.members])

    def signals(self, subject: int, split: str) -> tuple[list[Tensor], Int64]:
        """Open a subject's averaged signals: [N, C, T] as each member takes them, and pictures' rows [N]."""
        tested = [self.tested_trials(member, subject, split) for member in self.members]
        return [torch.from_numpy(trials.averages) for trials in tested], tested[0].stimulus

    def single_trials(self, subject: int, split: str) -> tuple[list[Tensor], Tensor]:
        """Open a subject's single trials: [N, R, C, T] as each member takes them, and how many of R [N]."""
        tested = [self.tested_trials(member, subject, split) for member in self.members]
        return [torch.from_numpy(trials.singles) for trials in tested], torch.from_numpy(tested[0].counts)

    def tested_trials(self, member: TrainedModel, subject: int, split: str) -> Trials:
        """Open the trials of pictures that all members have an embedding of and none has seen."""
        trials = member.trials(subject, split)
        _ = trials.averages  # which the cells that follow read, too
        return trials.take(self.are_tested(trials, subject, split))

    def are_tested(self, trials: Trials, subject: int, split: str) -> Bool:
        """Find the signals [N] of pictures that all members have an embedding of and none has seen."""
        are_tested = np.isin(trials.stimulus, self.rows(split))
        for member in self.members:
            are_tested &= np.isin(trials.stimulus, member.trials(subject, split).stimulus)
        return are_tested

    def tokens(self, subject: int, signals: Sequence[Tensor]) -> Tensor:
        """Encode signals, [N, C, T] as each member takes them, as tokens [N, D]."""
        return _join_tokens(
            [member.encode(subject, signal) for member, signal in zip(self.members, signals, strict=True)]
        )


def _join_tokens(tokens: Sequence[Tensor]) -> Tensor:
    return tokens[0] if len(tokens) == 1 else torch.cat([normalize(part) for part in tokens], 1)


def group_cells(runs: Sequence[TrainedRun]) -> list[Group]:
    """Match the cells of several runs: those tested on the same subjects, in the order of their seeds.

    Raises:
        BrainhiveError: if the runs do not have the same cells; it names two.
    """
    # cells of each run by the subjects tested on, and the number of cells before it that are tested on them
    keyed = []
    for run in runs:
        cells: dict[tuple[tuple[int, ...], int], Cell] = {}
        for cell in run.cells:
            before = sum(tested_on == cell.tested_on for tested_on, _ in cells)
            cells[cell.tested_on, before] = cell
        keyed.append(cells)

        # every run has the keys of the first
        if cells.keys() != keyed[0].keys():
            one, other = (
                f"{differing.folder.path} ({', '.join(cell.name for cell in differing.cells)})"
                for differing in (runs[0], run)
            )
            raise BrainhiveError(
                f"{one} and {other} were not tested on the same subjects as often",
                "average runs of the same subjects and number of seeds",
            )
    return [tuple(cells[key] for cells in keyed) for key in keyed[0]]


def candidate_rows(ensemble: Ensemble, splits: Ids, only_shown: bool) -> dict[str, Int64]:
    """Find the rows of the candidates of each split, the one whose signals are used first.

    With `only_shown`, those of the pictures that a tested subject of any cell was shown.
    """
    rows = {split: ensemble.rows(split) for split in reversed(splits)}
    if only_shown:
        member, split = ensemble.members[0], splits[-1]
        subjects = {subject for cell in member.run.cells for subject in cell.tested_on}
        shown = [member.shown(subject, split) for subject in sorted(subjects)]
        rows[split] = np.intersect1d(rows[split], np.concatenate(shown))
    return rows


def draw_tested(rows: Int64) -> Int64:
    """Draw the rows among which a verdict is asked, the same ones every time: all of few pictures."""
    if len(rows) <= MOST_TESTED:
        return rows
    return np.sort(np.random.default_rng(0).choice(rows, MOST_TESTED, replace=False))


@dataclass(frozen=True)
class Gallery:
    """Pictures among which the seen ones are to be found.

    Attributes:
        tokens: [M, D]; those of the split whose signals are used come first.
        image_ids: [M].
        concepts: [M].
        rows: Rows of the first in the embedding stores, ascending; a picture skipped as bad is no candidate.
        random: How many random vectors are candidates too.
        seed: Their seed.
        alike_by: What pictures are alike by.
    """

    tokens: Tensor
    image_ids: list[str]
    concepts: list[str]
    rows: Int64
    random: int
    seed: int
    alike_by: AlikeBy = "concept"

    @classmethod
    def of(cls, ensemble: Ensemble, splits: Ids, random: int, seed: int, only_shown: bool = False) -> Self:
        """Encode the pictures of some splits; signals are those of the last.

        With `only_shown`, those of the last that a tested subject of any cell was shown.
        """
        image_ids, concepts, tokens = [], [], []
        rows_by_split = candidate_rows(ensemble, splits, only_shown)
        for split, rows in rows_by_split.items():
            pictures = ensemble.members[0].pictures(split)
            image_ids += [pictures.image_ids[row] for row in rows]
            concepts += [pictures.concepts[row] for row in rows]
            tokens.append(ensemble.images(split, rows))
        alike_by = ensemble.members[0].run.dataset.alike_by
        rows = rows_by_split[splits[-1]]
        return cls(torch.cat(tokens), image_ids, concepts, rows, random, seed, alike_by)

    @property
    def pool(self) -> int:
        """Count the candidates."""
        return len(self.tokens) + self.random

    def distractors(self) -> Distractors:
        """Draw the random candidates; the same every time."""
        return Distractors(self.tokens, self.random, self.seed)

    def rank(self, signal_tokens: Tensor, target: Int64) -> Tensor:
        """Rank the target of each signal among all candidates: [N]."""
        return ranks(signal_tokens, self.tokens, torch.from_numpy(target), self.distractors())

    def find(self, image_ids: Iterable[str]) -> Int64:
        """Find the index of pictures; of those that several splits have, the one whose signals are used."""
        index_of = {name: index for index, name in reversed([*enumerate(self.image_ids)])}
        return np.array([index_of[name] for name in image_ids], np.int64)

    def relevant(self, target: Int64) -> Int64:
        """Find the pictures of the same concept as each target: [N, K], -1 where there are fewer than K."""
        indices_of: dict[str, list[int]] = {}
        for index, concept in enumerate(self.concepts):
            indices_of.setdefault(concept, []).append(index)
        relevant = [indices_of[self.concepts[index]] for index in target]
        most = max(map(len, relevant))
        return np.array([[*indices, *[-1] * (most - len(indices))] for indices in relevant])
