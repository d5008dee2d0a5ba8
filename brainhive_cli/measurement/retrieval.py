"""Retrieval of pictures from a gallery by the tokens of signals: one table by item,
however pictures rank.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from brainhive_cli.core.arrays import Array, Float64, Int64
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.measurements import BACKWARD, TRANSDUCTIVE
from brainhive_cli.core.seeds import derive_seed
from brainhive_cli.measurement.corrections import as_tokens, compare_tokens
from brainhive_cli.measurement.interleaving import Interleaving
from brainhive_cli.measurement.ranks import (
    nearest,
    ranks,
    ranks_and_precisions,
    ranks_of_all,
    unit,
)
from brainhive_cli.measurement.units import Alike, AlikeBy, Items

MOST_CORRECTED = 10_000
"""Candidates whose similarities are corrected, at most: as tokens they take 400 MB."""
MOST_TESTED = 2048
"""Pictures of the split among which the verdict is asked, at most: ranks of all by all
take 8 MB a cell.
"""
DRAWS = 1000
"""Permutations of a control, where there are more; the smallest p is then 1 / (DRAWS +
1).
"""
CONTROL_METRICS: Mapping[str, Callable[[Array], Array]] = {
    "top1": lambda ranks: (ranks == 1).mean(-1),
    "top5": lambda ranks: (ranks <= 5).mean(-1),
    "mean_rank": lambda ranks: ranks.mean(-1),
    "mrr": lambda ranks: (1 / ranks).mean(-1),
}
TRIALS_COMPARED = 32
"""Trials, at most, that are encoded alone, evenly spaced: a dependence through the
batch concerns all.
"""
SAME_TOKEN = 1e-5
"""Cosine distance up to which two tokens are one. It is half the squared relative
difference: of the same sums in another order about 1e-12 in float32 and 1e-6 in TF32,
which convolutions on a GPU use.
"""
SAME_SCORE = 1e-6
"""Differences of two cosines closer than this are equal: four steps of float32 at 2.
Tokens of two categories may lie on one line through 0, where all cosines are -1 or 1
but for the rounding of the tokens.
"""
NO_COLUMN: Callable[[], Array] = partial(np.empty, 0, np.int64)
"""Makes a column that was not measured."""


@dataclass(frozen=True)
class Gallery:
    """Candidates that are searched for the seen pictures; their tokens [M, D] are each
    model's own.

    Attributes:
        rows: [M_split] rows of the pictures in the target stores, ascending, by split;
            the first is the split whose signals are used. A picture skipped as bad is
            no candidate. Empty where folds are pooled.
        image_ids: [M], split by split.
        concepts: [M].
        alike_by: What pictures are alike by.
    """

    rows: Mapping[str, Int64]
    image_ids: list[str]
    concepts: list[str]
    alike_by: AlikeBy = "concept"

    @property
    def tested(self) -> Int64:
        """Rows of the pictures of that split, the first of the candidates."""
        return next(iter(self.rows.values()))

    def find(self, image_ids: Iterable[str]) -> Int64:
        """Find the index of pictures; of those that several splits have, the one whose
        signals are used.
        """
        index_of = {
            name: index for index, name in reversed([*enumerate(self.image_ids)])
        }
        return np.array([index_of[name] for name in image_ids], np.int64)

    def relevant(self, target: Int64) -> Int64:
        """Find the pictures of the same concept as each target: [N, K], -1 where there
        are fewer than K.
        """
        # candidates of each concept, filled up with -1 to the longest: [N, K]
        indices_of: dict[str, list[int]] = {}
        for index, concept in enumerate(self.concepts):
            indices_of.setdefault(concept, []).append(index)
        relevant = [indices_of[self.concepts[index]] for index in target]
        most = max(map(len, relevant))
        return np.array(
            [[*indices, *[-1] * (most - len(indices))] for indices in relevant]
        )


@dataclass(frozen=True)
class Scores:
    """Scores of one subject in one cell, a table by item; what was not measured is
    empty.

    Attributes:
        image_ids: [N] of what each signal showed; where trials of seen pictures are
            held out, their names. Empty in a further table of the same items.
        labels: [N] image id of what each signal showed; by a control, of another
            picture.
        concepts: [N] of what each signal showed.
        groups: [N] run, session or fold of each signal, within which labels may be
            exchanged; () if all may.
        interleaving: Which labels may be exchanged.
        is_trialwise: Whether tokens are those of one signal at a time.
        ranks: [N] of the seen picture; [draws, N] at a point of a curve, [splits, N] of
            halves.
        pool: Number of candidates; 0 where there are none.
        targets: How many of them are right.
        values: [N] by metric. `map`: average precision; relevant are the gallery's
            pictures of the seen concept. `top1_expected`: share of all possible subsets
            in which an item ranks first.
            `reliability`: share of each picture in the correlation over pictures of the
                halves, a mean over
            channels, times and splits: its mean over pictures is that correlation. Of a
                region: what it
            carries, by head.
        relevant: [N] how many pictures are relevant.
        named: [N] concept of the picture that is most similar to the signal.
        nearest: [N] cosine of what each signal showed with the most similar training
            picture, in the space that is compared.
        wins: [N] of two pictures, twice the share of the same fold's signals of the
            other one that are less like the seen one, ties half, less the area under
                the ROC curve of the fold: their mean over
            pictures is that area, and varies as they do. Empty where there are not two.
        candidates: Image ids of the P pictures of the signals' split among which the
            verdict is asked: of many, drawn ones. Training pictures have no part in it:
                they may be nearer to, or further from,
            any signal.
        table: [n, P] their ranks by the signals that show one of them, uint16; 0 of
            what was not compared.
        control: Each metric [1 + K]: as it is measured, then in every draw of the
            control.
        scopes: Further tables by the end of their scope: `backward`, `subsets`,
            `corrections · csls`, `repetitions · 4`, `regions · V1`. Backward, each
            picture that was shown seeks its signals among all, unless some were shown
            more often than others, or trials of seen pictures are held out.
        words: How a further table was measured.
        ceiling: Scores of halves of the repetitions, whatever the model, of the
            pictures with two repetitions at least, by their own signal in the other
            half.
        repetitions: Of a ceiling, the most that a picture has.
        times: Of a ceiling, repetitions of a picture over those of its half, on
            average: 2 or, of odd numbers, more.
        reason: Why there is no ceiling.
    """

    image_ids: Sequence[str] = ()
    labels: Sequence[str] = ()
    concepts: Sequence[str] = ()
    groups: Sequence[str] = ()
    interleaving: Interleaving = field(default_factory=lambda: Interleaving([], []))
    is_trialwise: bool = True
    ranks: Int64 = field(default_factory=NO_COLUMN)
    pool: int = 0
    targets: int = 1
    values: Mapping[str, Float64] = field(default_factory=dict)
    relevant: Int64 = field(default_factory=NO_COLUMN)
    named: Sequence[str] = ()
    nearest: Float64 = field(default_factory=NO_COLUMN)
    wins: Sequence[float] = ()
    candidates: Sequence[str] = ()
    table: Array = field(default_factory=NO_COLUMN)
    control: Mapping[str, Float64] = field(default_factory=dict)
    scopes: Mapping[str, Self] = field(default_factory=dict)
    words: str = ""
    ceiling: Self | None = None
    repetitions: int = 0
    times: float = 2.0
    reason: str = ""

    def below(self, name: str) -> Self | None:
        """Choose a further table by its scope, with the items that it is of; None where
        there is none.
        """
        table = self.scopes.get(name)
        return table and replace(table, image_ids=table.image_ids or self.image_ids)

    def surplus(self) -> list[float | None]:
        """Give the share of the wrong pictures of the split that rank below what each
        signal showed, less that share for the signals that showed other pictures: [N];
        None where the verdict is not asked among it.
        """
        column = {name: index for index, name in enumerate(self.candidates)}
        shown = [column[label] for label in self.labels if label in column]  # [n]
        ranked = np.where(self.table > 0, self.table, np.nan)  # [n, P]
        signals = np.arange(len(shown))
        own = ranked[signals, shown]
        compared = np.isfinite(ranked).sum(1)

        # mean rank of each picture by the signals of others
        ranked[signals, shown] = np.nan
        counts = np.isfinite(ranked).sum(0)[shown]
        by_others = np.nansum(ranked, 0)[shown] / np.maximum(counts, 1)
        shares = (by_others - own) / np.maximum(1, compared - 1)
        pairs = zip(shares.tolist(), counts.tolist(), strict=True)
        values = iter([share if count else None for share, count in pairs])
        return [next(values) if label in column else None for label in self.labels]


def permute_targets(
    target: Int64, gallery: Gallery, control: str, seed: int, parts: Sequence[Hashable]
) -> Iterator[Int64]:
    """Pair signals with wrong pictures, for a control and its further draws; what is
    left is chance.

    Labels of exchangeable pictures move, alike for all subjects and models, whose ranks
    vary together.

    Args:
        target: [N] index of what each signal showed.
        gallery: Among which.
        control: `none`; `shuffled`: signals are permuted; `permuted`: pictures are,
            shown or not.
        seed: Of the permutations.
        parts: [N] part of the recording of each held-out trial of seen pictures, whose
            labels either control permutes within these; () where pictures are held out.
    """
    if control == "none":
        yield target
        return
    # trials move within parts; pictures with units of equal composition
    if parts:
        trials = [range(len(parts))]
        items = Items(trials, trials, strata=[parts])
    else:  # all pictures first: they number the units
        alike = Alike(gallery.alike_by, dict(enumerate(gallery.concepts)))
        items = alike.items([list(range(len(gallery.tested))), target.tolist()])
    # the control by the seed itself, then all permutations, or so many different ones
    chosen = items.permute(seed)
    orders = items.permutations(DRAWS, derive_seed(seed, 0))
    drawn = (items.rearrange(order) for order in orders)
    for *pictures, signals in chain([chosen], drawn):
        yield (
            pictures[0][target]
            if pictures and control == "permuted"
            else target[signals]
        )


def measure_control(
    gallery: Gallery, images: Tensor, tokens: Tensor, targets: Sequence[Int64]
) -> dict[str, Float64]:
    """Measure each metric [1 + K] of what signals showed, and of each draw of a
    control.

    Args:
        gallery: The candidates.
        images: [M, D] their tokens.
        tokens: [N, D] of the signals.
        targets: 1 + K times [N]: index of what each signal showed, then of each draw.
    """
    # all pictures of the split are ranked once, and the permuted ones of each draw
    # looked up
    all_ranks = ranks_of_all(tokens, images, len(gallery.tested))  # [N, M]
    # [1 + K, N]
    drawn = np.stack([all_ranks[np.arange(len(tokens)), shown] for shown in targets])
    return {name: metric(drawn) for name, metric in CONTROL_METRICS.items()}


def rank(
    gallery: Gallery,
    images: Tensor,
    tokens: Mapping[int, Tensor],
    items: Mapping[int, Scores],
) -> dict[int, Scores]:
    """Rank for all subjects at once, so that a large gallery is read once.

    Args:
        gallery: The candidates.
        images: [M, D] their tokens.
        tokens: [N, D] of the signals, by subject.
        items: What they showed.
    """
    # ranks, average precision and the nearest picture of all signals
    signals = torch.cat([*tokens.values()])  # [N, D]
    target = gallery.find(label for scores in items.values() for label in scores.labels)
    relevant = gallery.relevant(target)  # [N, K]
    ranked = ranks_and_precisions(
        signals, images, torch.from_numpy(target), torch.from_numpy(relevant)
    )
    seen_ranks, precision = (values.numpy() for values in ranked)
    nearest_rows = nearest(signals, images)
    scores = {}
    start = 0
    for subject, listed in items.items():
        part = slice(start, start := start + len(listed.labels))

        # the other direction: for each picture that was shown, its signals among all
        # signals
        pictures, counts = np.unique(target[part], return_counts=True)
        scopes = {}
        # trials of seen pictures have one direction
        if (counts == counts[0]).all() and not listed.groups:
            order = np.argsort(target[part], kind="stable").reshape(len(pictures), -1)
            item_ranks = ranks(
                images[pictures], tokens[subject], torch.from_numpy(order)
            ).numpy()
            ids = [gallery.image_ids[index] for index in pictures]
            scopes[BACKWARD] = Scores(
                ids, ranks=item_ranks, pool=order.size, targets=order.shape[1]
            )
        scores[subject] = replace(
            listed,
            ranks=seen_ranks[part],
            pool=len(gallery.image_ids),
            values={"map": precision[part]},
            relevant=(relevant[part] >= 0).sum(1),
            named=[gallery.concepts[index] for index in nearest_rows[part]],
            wins=share_wins(tokens[subject], target[part], images)
            if len(images) == 2
            else (),
            scopes=scopes,
        )
    return scores


def share_wins(tokens: Tensor, target: Int64, gallery: Tensor) -> list[float]:
    """Compare each signal with those of the other of two pictures: [N] parts in the
    area, see `Scores`.
    """
    # how much more each signal is like the second picture
    likeness = unit(tokens) @ unit(gallery).T  # [N, 2]
    score = (likeness[:, 1] - likeness[:, 0]).cpu().numpy()
    is_second = target == 1
    if is_second.all() or not is_second.any():
        return []

    # the signals of the other picture that are less like the seen one, ties half
    wins = np.empty(len(score))
    for is_seen, sign in ((is_second, 1), (~is_second, -1)):
        own = sign * score[is_seen]
        others = np.sort(sign * score[~is_seen])
        below = np.searchsorted(others, own - SAME_SCORE, "left")
        below_or_equal = np.searchsorted(others, own + SAME_SCORE, "right")
        wins[is_seen] = (below + below_or_equal) / 2
    area = wins.sum() / (2 * is_second.sum() * (~is_second).sum())
    counts = np.where(is_second, (~is_second).sum(), is_second.sum())
    return [*map(float, 2 * wins / counts - area)]


def rank_corrected(
    gallery: Gallery,
    images: Tensor,
    tokens: Mapping[int, Tensor],
    items: Mapping[int, Scores],
    corrections: Sequence[Any],
) -> dict[str, dict[int, Scores]]:
    """Rank after each correction, on top of those before it; by the names of all so
    far.

    This is the only function where similarities are corrected, each subject's by
    themselves.

    Raises:
        RecipeError: if there are too many candidates.
    """
    # the one-hot tokens of corrected similarities are [M, M]
    pool = len(gallery.image_ids)
    if corrections and pool > MOST_CORRECTED:
        raise RecipeError(
            "corrections compare all candidates at once, at most "
            f"{MOST_CORRECTED}; there are {pool}",
            "gallery=test, or leave corrections out",
        )
    similarities = {
        subject: compare_tokens(signals, images) for subject, signals in tokens.items()
    }
    scores = {}
    names = []
    for config in corrections:
        # one correction more, of each subject's similarities
        names.append(config.kind)
        correct = config.build()
        for subject, signals in tokens.items():
            similarities[subject] = correct(
                similarities[subject], signals, images.to(signals.device)
            )

        # tokens whose cosines are the corrected similarities
        corrected = {
            subject: as_tokens(values) for subject, values in similarities.items()
        }
        one_hot = next(iter(corrected.values()))[1]
        words = f"similarities corrected by {' + '.join(names)}, {TRANSDUCTIVE}"
        ranked = rank(
            gallery,
            one_hot,
            {subject: pair[0] for subject, pair in corrected.items()},
            items,
        )
        scores[" + ".join(names)] = {
            subject: replace(table, words=words) for subject, table in ranked.items()
        }
    return scores


def rank_split(
    gallery: Gallery, images: Tensor, tokens: Tensor, items: Scores
) -> Scores:
    """Rank the pictures of the signals' split alone, for the verdict; the gallery
    decides which are drawn.
    """
    # of a large split the same drawn pictures for every model
    chosen = draw_tested(np.arange(len(gallery.tested)))
    candidates = [gallery.image_ids[index] for index in chosen]
    signals = tokens[torch.from_numpy(np.isin(items.labels, candidates))]
    # [n, P]
    table = ranks_of_all(signals, images[torch.from_numpy(chosen)], len(chosen))
    return replace(items, candidates=candidates, table=table.astype(np.uint16))


def draw_tested(rows: Int64) -> Int64:
    """Draw the rows among which a verdict is asked, the same ones every time: all of
    few pictures.
    """
    if len(rows) <= MOST_TESTED:
        return rows
    return np.sort(np.random.default_rng(0).choice(rows, MOST_TESTED, replace=False))


def depends_on_other_trials(
    encode: Callable[[Tensor], Tensor], signals: Tensor
) -> bool:
    """Whether trials get other tokens together than one at a time, so that a test would
    be transductive.

    Args:
        encode: Model, from signals [n, ...] to tokens [n, D].
        signals: [N, ...]; of more than `TRIALS_COMPARED`, as many evenly spaced ones
            are compared.

    Returns:
        Whether one of them differs by more than rounding, or has no token without the
        others.

    Source: MOABB 1.7.2, `CrossSubjectMode.TRAIN_TRIALWISE`, which scores one trial at a
    time.
    """
    rows = np.unique(
        np.linspace(0, len(signals) - 1, TRIALS_COMPARED).round().astype(np.int64)
    )
    chosen = signals[torch.from_numpy(rows)]
    together = normalize(encode(chosen).double())
    # a trial stands beside itself, since statistics of a batch need two
    alone = torch.cat([encode(torch.stack([signal, signal]))[:1] for signal in chosen])
    # NaN of no token
    distance = (together - normalize(alone.double())).square().sum(1) / 2
    return not bool((distance <= SAME_TOKEN).all())
