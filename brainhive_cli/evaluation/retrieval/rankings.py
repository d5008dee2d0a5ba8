"""How the signals of a cell rank the pictures of a gallery, and the pictures the signals."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cosine_similarity

from brainhive_cli.evaluation.retrieval.ensembles import Ensemble
from brainhive_cli.measurement.distractors import distractors
from brainhive_cli.measurement.retrieval import average_precisions, nearest, ranks
from brainhive_cli.measurement.units import Alike, AlikeBy

Places = NDArray[np.int64]


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
    rows: Places
    random: int = 0
    seed: int = 0
    alike_by: AlikeBy = "concept"

    @classmethod
    def of(
        cls, ensemble: Ensemble, splits: Sequence[str], random: int, seed: int, only_shown: bool = False
    ) -> Self:
        """Encode the pictures of some splits; signals are those of the last.

        With `only_shown`, those of the last that a tested subject of any cell was shown.
        """
        image_ids, concepts, tokens = [], [], []
        rows = {split: ensemble.rows(split) for split in reversed(splits)}
        if only_shown:
            rows[splits[-1]] = ensemble.shown(splits[-1])
        for split, there in rows.items():
            pictures = ensemble.members[0].pictures(split)
            image_ids += [pictures.image_ids[row] for row in there]
            concepts += [pictures.concepts[row] for row in there]
            tokens.append(ensemble.images(split, there))
        alike_by = ensemble.members[0].align.dataset.alike_by
        return cls(torch.cat(tokens), image_ids, concepts, rows[splits[-1]], random, seed, alike_by)

    @property
    def pool(self) -> int:
        """Count the candidates."""
        return len(self.tokens) + self.random

    def distractors(self) -> Iterator[Tensor]:
        """Draw the random candidates; the same every time."""
        return distractors(self.tokens, self.random, self.seed)

    def rank(self, signal_tokens: Tensor, target: Places) -> Tensor:
        """Rank the target of each signal among all candidates: [N]."""
        return ranks(signal_tokens, self.tokens, torch.from_numpy(target), self.distractors())

    @cached_property
    def of_concept(self) -> dict[str, list[int]]:
        """The places of each concept's pictures."""
        places: dict[str, list[int]] = {}
        for place, concept in enumerate(self.concepts):
            places.setdefault(concept, []).append(place)
        return places

    def relevant(self, target: Places) -> NDArray[np.int64]:
        """Find the pictures of the same concept as each target: [N, K], -1 where there are fewer than K."""
        same = [self.of_concept[self.concepts[place]] for place in target]
        most = max(map(len, same))
        return np.array([[*places, *[-1] * (most - len(places))] for places in same])


@dataclass(frozen=True)
class Queries:
    """A subject's signals, and the place of what each showed in the gallery.

    Attributes:
        tokens: [N, D].
        target: [N]; by a control, that of another picture.
        seen: [N] before a control.
    """

    tokens: Tensor
    target: Places
    seen: Places


@dataclass(frozen=True)
class Ranking:
    """How one subject's signals and the pictures rank each other.

    Attributes:
        image_ids: [N] of what each signal showed.
        concepts: [N] of what each signal showed.
        ranks: [N] of the seen picture.
        among_split: [N] its rank among the pictures of the signals' split alone: training pictures or random
            vectors may be nearer to, or further from, any signal.
        split_size: How many these are.
        precision: [N] average precision; relevant are the gallery's pictures of the seen concept.
        relevant: [N] how many these are.
        pictures: Image ids of what was shown, each once.
        backward: Ranks of the seen signal among the signals, one for each of these pictures; empty when some
            were shown more often than others.
        shown: How many signals show each of these pictures.
        named: [N] concept of the picture that is most similar to the signal.
        similarity: [N] cosine similarity of the seen picture and the named one.
    """

    image_ids: list[str]
    concepts: list[str]
    ranks: Places
    among_split: Places
    split_size: int
    precision: NDArray[np.float64]
    relevant: Places
    pictures: list[str]
    backward: Places
    shown: int
    named: list[str]
    similarity: list[float]


def encode_queries(
    ensemble: Ensemble, gallery: Gallery, split: str, control: str, seed: int
) -> dict[int, Queries]:
    """Encode the signals of all subjects of a cell."""
    queries = {}
    for subject in ensemble.cell.tested_on:
        signals, picture = ensemble.signals(subject, split)
        seen = np.searchsorted(gallery.rows, picture)
        target = next(controlled(seen, gallery, control, [seed]))
        queries[subject] = Queries(ensemble.tokens(subject, signals), target, seen)
    return queries


def controlled(target: Places, gallery: Gallery, control: str, seeds: Iterable[int]) -> Iterator[Places]:
    """Pair signals with wrong pictures, for a control; what is left is chance.

    Units of pictures move together, and alike for all subjects and models, whose ranks vary together.

    Args:
        target: [N] place of what each signal showed.
        gallery: Among which.
        control: `none`; `shuffled`: the signals are permuted; `permuted`: the pictures are, shown or not.
        seeds: One for each permutation.
    """
    count = len(gallery.rows)
    alike = Alike(gallery.alike_by, dict(enumerate(gallery.concepts)))
    items = alike.items([list(range(count)), target.tolist()])  # all pictures first: they number the units
    for seed in seeds:
        pictures, signals = items.permute(np.random.default_rng(seed))
        yield {"none": target, "shuffled": target[signals], "permuted": pictures[target]}[control]


def rank_all(gallery: Gallery, queries: dict[int, Queries]) -> dict[int, Ranking]:
    """Rank for all subjects at once, so that a large gallery is read once."""
    tokens = torch.cat([each.tokens for each in queries.values()])
    target = np.concatenate([each.target for each in queries.values()])
    found, relevant = gallery.rank(tokens, target).numpy(), gallery.relevant(target)
    precision = 1 / found
    if relevant.shape[1] > 1:
        places = torch.from_numpy(relevant)
        precision = average_precisions(tokens, gallery.tokens, places, gallery.distractors()).numpy()
    size, among_split = len(gallery.rows), found
    if gallery.pool > size:
        among_split = ranks(tokens, gallery.tokens[:size], torch.from_numpy(target)).numpy()
    named = nearest(tokens, gallery.tokens)
    similarity = cosine_similarity(gallery.tokens[named], gallery.tokens[target], dim=1).cpu()
    rankings, start = {}, 0
    for subject, each in queries.items():
        part = slice(start, start := start + len(each.target))
        backward, shown = _backward(gallery, each)
        rankings[subject] = Ranking(
            [gallery.image_ids[place] for place in each.target],
            [gallery.concepts[place] for place in each.target],
            found[part],
            among_split[part],
            size,
            precision[part],
            (relevant[part] >= 0).sum(1),
            [gallery.image_ids[place] for place in np.unique(each.target)],
            backward,
            shown,
            [gallery.concepts[place] for place in named[part]],
            similarity[part].tolist(),
        )
    return rankings


def _backward(gallery: Gallery, queries: Queries) -> tuple[Places, int]:
    """Rank, for each picture that was shown, its signals among all signals."""
    pictures, shown = np.unique(queries.target, return_counts=True)
    if (shown != shown[0]).any():
        return np.empty(0, np.int64), 0
    signals = np.argsort(queries.target, kind="stable").reshape(len(pictures), shown[0])
    return ranks(gallery.tokens[pictures], queries.tokens, torch.from_numpy(signals)).numpy(), int(shown[0])
