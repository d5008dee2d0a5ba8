"""Models of a cell, or of several averaged, and the gallery whose pictures are ranked by their signals."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from brainhive_cli.core.arrays import Float32, Int64
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


Models = Sequence[TrainedModel]
"""The models of a group: their cosine similarities are averaged.

Unit tokens concatenated have the mean of their cosines as cosine, so that several models have tokens too."""


def open_group(
    runs: Sequence[TrainedRun], cells: Group, device: torch.device, head: str | None = None
) -> Models:
    """Open the models of a group, to be compared by a head; None leaves it to the models."""
    return [TrainedModel(*pair, device, head) for pair in zip(runs, cells, strict=True)]


def shared_rows(models: Models, split: str) -> Int64:
    """Find the rows of the pictures that every model has an embedding of."""
    first, *others = (model.pictures(split) for model in models)
    for other in others:
        if first.image_ids != other.image_ids:
            raise BrainhiveError(f"{first.path} and {other.path} hold different pictures", "embed again")
    return reduce(np.intersect1d, [model.rows(split) for model in models])


def tested_trials(models: Models, subject: int, split: str) -> list[Trials]:
    """Open a subject's trials as each model reads them, of pictures that all have and none has seen."""
    opened = [model.trials(subject, split) for model in models]
    _ = [trials.averages for trials in opened]  # which the cells that follow read, too
    tested = reduce(np.intersect1d, [shared_rows(models, split), *(trials.stimulus for trials in opened)])
    return [trials.take(np.isin(trials.stimulus, tested)) for trials in opened]


def encode_signals(models: Models, subject: int, signals: Iterable[Tensor | Float32]) -> Tensor:
    """Encode signals, [N, C, T] as each model takes them, as tokens [N, D]."""
    pairs = zip(models, map(torch.as_tensor, signals), strict=True)
    return join_tokens(model.encode(subject, signal) for model, signal in pairs)


def join_tokens(tokens: Iterable[Tensor]) -> Tensor:
    """Join the tokens [N, D] of several models."""
    first, *others = tokens
    return torch.cat([normalize(part) for part in (first, *others)], 1) if others else first


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


def candidate_rows(models: Models, splits: Ids, only_shown: bool) -> dict[str, Int64]:
    """Find the rows of the candidates of each split, the one whose signals are used first.

    With `only_shown`, those of the pictures that a tested subject of any cell was shown.
    """
    rows = {split: shared_rows(models, split) for split in reversed(splits)}
    if only_shown:
        first, split = models[0], splits[-1]
        subjects = {subject for cell in first.run.cells for subject in cell.tested_on}
        shown = [first.shown(subject, split) for subject in sorted(subjects)]
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
    def of(cls, models: Models, splits: Ids, random: int, seed: int, only_shown: bool = False) -> Self:
        """Encode the pictures of some splits; signals are those of the last.

        With `only_shown`, those of the last that a tested subject of any cell was shown.
        """
        image_ids, concepts, tokens = [], [], []
        rows_by_split = candidate_rows(models, splits, only_shown)
        for split, rows in rows_by_split.items():
            pictures = models[0].pictures(split)
            image_ids += [pictures.image_ids[row] for row in rows]
            concepts += [pictures.concepts[row] for row in rows]
            tokens.append(join_tokens(model.images(split, rows) for model in models))
        alike_by = models[0].run.dataset.alike_by
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
