"""Ranking of a gallery's pictures by the signals of a cell, or of several averaged, and vice versa."""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from itertools import compress
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from brainhive_cli.core.arrays import Bool, Float64, Int64
from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.data.responses import Responses
from brainhive_cli.measurement.corrections import Compared
from brainhive_cli.measurement.interleaving import Interleaving
from brainhive_cli.measurement.ranks import (
    Distractors,
    nearest,
    ranks,
    ranks_and_precisions,
    ranks_of_all,
)
from brainhive_cli.measurement.trialwise import depends_on_other_trials
from brainhive_cli.measurement.units import Alike, AlikeBy, Items
from brainhive_cli.training.alignment.recipe import Cell
from brainhive_cli.training.alignment.trained import TrainedModel, TrainedRun

MOST_TESTED = 2048
"""Pictures of the split among which the verdict is asked, at most: ranks of all by all take 8 MB a cell."""
Ids = Sequence[str]
MOST_CORRECTED = 10_000
"""Candidates whose similarities are corrected, at most: as tokens they take 400 MB."""
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
        responses = [member.responses(subject, split) for member in self.members]
        masks = [self.are_tested(part, subject, split) for part in responses]  # [N] each
        signals = [torch.from_numpy(part.signal[mask]) for part, mask in zip(responses, masks, strict=True)]
        return signals, responses[0].stimulus[masks[0]]

    def single_trials(self, subject: int, split: str) -> tuple[list[Tensor], Tensor]:
        """Open a subject's single trials: [N, R, C, T] as each member takes them, and how many of R [N]."""
        signals, counts = [], np.empty(0, np.int64)
        for member in self.members:
            responses = member.responses(subject, split, with_single=True)
            assert responses.single is not None and responses.counts is not None
            are_tested = self.are_tested(responses, subject, split)
            signals.append(torch.from_numpy(responses.single[are_tested]))
            counts = responses.counts[are_tested]
        return signals, torch.from_numpy(counts)

    def are_tested(self, responses: Responses, subject: int, split: str) -> Bool:
        """Find the signals [N] of pictures that all members have an embedding of and none has seen."""
        are_tested = np.isin(responses.stimulus, self.rows(split))
        for member in self.members:
            are_tested &= np.isin(responses.stimulus, member.responses(subject, split).stimulus)
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

    def relevant(self, target: Int64) -> Int64:
        """Find the pictures of the same concept as each target: [N, K], -1 where there are fewer than K."""
        indices_of: dict[str, list[int]] = {}
        for index, concept in enumerate(self.concepts):
            indices_of.setdefault(concept, []).append(index)
        relevant = [indices_of[self.concepts[index]] for index in target]
        most = max(map(len, relevant))
        return np.array([[*indices, *[-1] * (most - len(indices))] for indices in relevant])


@dataclass(frozen=True)
class Queries:
    """A subject's signals, and the index in the gallery of what each showed.

    Attributes:
        tokens: [N, D].
        target: [N]; by a control, that of another picture.
        seen: [N] before a control.
        interleaving: Which labels may be exchanged.
        trials: [N] name of each, where trials of seen pictures are held out; else none.
        groups: [N] run or session of each of these.
        depend_on_each_other: Whether tokens are other ones than those of one signal at a time.
    """

    tokens: Tensor
    target: Int64
    seen: Int64
    interleaving: Interleaving = field(default_factory=lambda: Interleaving([], []))
    trials: Ids = ()
    groups: Ids = ()
    depend_on_each_other: bool = False


@dataclass(frozen=True)
class Ranking:
    """Ranks between one subject's signals and the pictures.

    Attributes:
        image_ids: [N] of what each signal showed; where trials of seen pictures are held out, their names.
        concepts: [N] of what each signal showed.
        ranks: [N] of the seen picture.
        precision: [N] average precision; relevant are the gallery's pictures of the seen concept.
        relevant: [N] how many these are.
        pictures: Image ids of what was shown, each once.
        backward: Ranks of the seen signal among the signals, one for each of these pictures; empty when some
            were shown more often than others, or trials of seen pictures are held out.
        shown: How many signals show each of these pictures.
        named: [N] concept of the picture that is most similar to the signal.
        similarity: [N] cosine similarity of the seen picture and the named one.
        labels: [N] image id of what each signal showed.
        groups: [N] run, session or fold of each signal, within which labels may be exchanged; () if all may.
        wins: [N] of two pictures, twice the share of the same fold's signals of the other one that are less
            like the seen one, ties half, less the area under the ROC curve of the fold: their mean over
            pictures is that area, and varies as they do. Empty where there are not two.
    """

    image_ids: list[str]
    concepts: list[str]
    ranks: Int64
    precision: Float64
    relevant: Int64
    pictures: list[str]
    backward: Int64
    shown: int
    named: list[str]
    similarity: list[float]
    labels: Ids = ()
    groups: Ids = ()
    wins: Sequence[float] = ()


def encode_queries(
    ensemble: Ensemble, gallery: Gallery, split: str, control: str, seed: int
) -> dict[int, Queries]:
    """Encode the signals of all subjects of a cell."""
    queries, member = {}, ensemble.members[0]
    for subject in ensemble.cell.tested_on:
        # indices [N] in the gallery of what was seen
        signals, picture = ensemble.signals(subject, split)
        seen = np.searchsorted(gallery.rows, picture)

        # what was interleaved; names and runs or sessions of held-out trials, which no other designs have
        is_tested = ensemble.are_tested(member.responses(subject, split), subject, split)
        interleaving = member.interleaving(subject, split).take(np.flatnonzero(is_tested))
        trials, groups = ([*compress(names, is_tested)] for names in member.name_trials(subject, split))
        target = next(controlled(seen, gallery, control, [seed], interleaving.parts if trials else ()))
        tokens = ensemble.tokens(subject, signals)
        are_dependent = any(
            depends_on_other_trials(partial(model.encode, subject), signal)
            for model, signal in zip(ensemble.members, signals, strict=True)
        )
        queries[subject] = Queries(tokens, target, seen, interleaving, trials, groups, are_dependent)
    return queries


@dataclass(frozen=True)
class SplitRanks:
    """Ranks of the pictures of the signals' split by one subject's signals, for the verdict.

    Training pictures and random vectors have no part in it: they may be nearer to, or further from, any
    signal.

    Attributes:
        candidates: Image ids of the P pictures; of more than `MOST_TESTED`, so many drawn ones.
        image_ids: [N] what each signal showed, by a control another picture.
        ranks: [N, P], uint16; 1 is best.
        interleaving: Which labels may be exchanged.
        labels: [N] image id of what each signal showed.
        pool: Candidates of each signal: of P those of its fold.
    """

    candidates: list[str]
    image_ids: list[str]
    ranks: NDArray[np.uint16]
    interleaving: Interleaving
    labels: Ids = ()
    pool: int = 0

    @classmethod
    def of(cls, gallery: Gallery, queries: Queries) -> Self:
        """Rank all pictures of the split; which are drawn depends on the gallery alone."""
        # candidates, and the signals that show one of them
        chosen = np.arange(len(gallery.rows))
        if len(chosen) > MOST_TESTED:
            chosen = np.sort(np.random.default_rng(0).choice(chosen, MOST_TESTED, replace=False))
        rows = np.flatnonzero(np.isin(queries.target, chosen))
        tokens = gallery.tokens[torch.from_numpy(chosen)]
        counted = ranks_of_all(queries.tokens[torch.from_numpy(rows)], tokens, len(chosen))  # [N, P]

        # names of these signals
        candidates = [gallery.image_ids[index] for index in chosen]
        labels = [gallery.image_ids[index] for index in queries.target[rows]]
        image_ids = [queries.trials[row] for row in rows.tolist()] if queries.trials else labels
        ranked, interleaving = counted.astype(np.uint16), queries.interleaving.take(rows)
        return cls(candidates, image_ids, ranked, interleaving, labels, len(candidates))


def controlled(
    target: Int64, gallery: Gallery, control: str, seeds: Iterable[int], parts: Sequence[Hashable]
) -> Iterator[Int64]:
    """Pair signals with wrong pictures, for a control; what is left is chance.

    Labels of exchangeable pictures move, alike for all subjects and models, whose ranks vary together.

    Args:
        target: [N] index of what each signal showed.
        gallery: Among which.
        control: `none`; `shuffled`: the signals are permuted; `permuted`: the pictures are, shown or not.
        seeds: One for each permutation.
        parts: [N] part of the recording of each held-out trial of seen pictures, whose labels either control
            permutes within these; () where pictures are held out.
    """
    if parts and control != "none":
        trials = [range(len(parts))]
        exchanged = Items(trials, trials, strata=[parts])
        yield from (target[exchanged.permute(np.random.default_rng(seed))[0]] for seed in seeds)
        return
    count = len(gallery.rows)
    alike = Alike(gallery.alike_by, dict(enumerate(gallery.concepts)))
    items = alike.items([list(range(count)), target.tolist()])  # all pictures first: they number the units
    for seed in seeds:
        pictures, signals = items.permute(np.random.default_rng(seed))
        yield {"none": target, "shuffled": target[signals], "permuted": pictures[target]}[control]


def rank_all(gallery: Gallery, queries: dict[int, Queries]) -> dict[int, Ranking]:
    """Rank for all subjects at once, so that a large gallery is read once."""
    # ranks, average precision and the nearest picture of all signals
    tokens = torch.cat([part.tokens for part in queries.values()])  # [N, D]
    target = np.concatenate([part.target for part in queries.values()])
    relevant = gallery.relevant(target)  # [N, K]
    labels = (torch.from_numpy(target), torch.from_numpy(relevant))
    ranked = ranks_and_precisions(tokens, gallery.tokens, *labels, gallery.distractors())
    seen_ranks, precision = (values.numpy() for values in ranked)
    named = nearest(tokens, gallery.tokens)
    similarity = cosine_similarity(gallery.tokens[named], gallery.tokens[target], dim=1).cpu()
    rankings, start = {}, 0
    for subject, signals in queries.items():
        part = slice(start, start := start + len(signals.target))

        # the other direction: for each picture that was shown, its signals among all signals
        pictures, counts = np.unique(signals.target, return_counts=True)
        backward, shown = np.empty(0, np.int64), 0
        if (counts == counts[0]).all() and not signals.trials:  # trials of seen pictures have one direction
            shown = int(counts[0])
            order = np.argsort(signals.target, kind="stable").reshape(len(pictures), shown)
            backward = ranks(gallery.tokens[pictures], signals.tokens, torch.from_numpy(order)).numpy()

        # the signals of this subject by name
        ids, concepts = gallery.image_ids, gallery.concepts
        seen_ids = [ids[index] for index in signals.target]
        rankings[subject] = Ranking(
            image_ids=[*signals.trials] or seen_ids,
            concepts=[concepts[index] for index in signals.target],
            ranks=seen_ranks[part],
            precision=precision[part],
            relevant=(relevant[part] >= 0).sum(1),
            pictures=[ids[index] for index in pictures],
            backward=backward,
            shown=shown,
            named=[concepts[index] for index in named[part]],
            similarity=similarity[part].tolist(),
            labels=seen_ids,
            groups=signals.groups,
            wins=_share_of_wins(signals, gallery.tokens) if len(gallery.tokens) == 2 else (),
        )
    return rankings


def _share_of_wins(queries: Queries, gallery: Tensor) -> list[float]:
    """Compare each signal with those of the other of two pictures: [N] parts in the area, see `Ranking`."""
    # how much more each signal is like the second picture
    likeness = cosine_similarity(queries.tokens[:, None], gallery[None], dim=2)  # [N, 2]
    score = (likeness[:, 1] - likeness[:, 0]).cpu().numpy()
    signed = np.where(queries.target == 1, 1, -1)
    is_other = queries.target[:, None] != queries.target
    if not is_other.any(1).all():
        return []

    # pairs [N, N] of signals of different pictures
    difference = signed[:, None] * (score[:, None] - score)
    wins = ((difference > 0) + 0.5 * (difference == 0)) * is_other
    return [*map(float, 2 * wins.sum(1) / is_other.sum(1) - wins.sum() / is_other.sum())]


def rank_corrected(
    gallery: Gallery, queries: dict[int, Queries], corrections: Sequence[Any]
) -> dict[str, dict[int, Ranking]]:
    """Rank after each correction, on top of those before it; by the names of all so far.

    This is the one place where similarities are corrected, each subject's by themselves.

    Raises:
        RecipeError: if there are too many candidates.
    """
    if corrections and gallery.pool > MOST_CORRECTED:
        raise RecipeError(
            f"corrections compare all candidates at once, at most {MOST_CORRECTED}; there are {gallery.pool}",
            "gallery=test, or leave corrections out",
        )
    compared = {subject: Compared.of(part.tokens, gallery.tokens) for subject, part in queries.items()}
    rankings = {}
    for count, config in enumerate(corrections, 1):
        # one correction more, of each subject's similarities
        correct = config.build()
        compared = {subject: correct(before) for subject, before in compared.items()}

        # tokens whose cosines are the corrected similarities
        corrected, one_hot = {}, gallery.tokens
        for subject, after in compared.items():
            signals, one_hot = after.as_tokens()
            corrected[subject] = replace(queries[subject], tokens=signals)
        name = " + ".join(correction.kind for correction in corrections[:count])
        rankings[name] = rank_all(replace(gallery, tokens=one_hot), corrected)
    return rankings
