"""Whether the seen stimuli rank better than others, by one test that has the power which the data have."""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.measurements import LEVEL
from brainhive_cli.measurement.signs import flip_signs
from brainhive_cli.measurement.units import MANY_UNITS, Items, fold_null_inflation, widen

DRAWS = 4_999
"""Permutations, with the identity, where there are more; a p of .05 then has a standard error of .003."""
MAX_LOOKED_UP = 2**22
"""Ranks that are looked up at once, to bound memory."""
ROUNDING = 1e-9
"""Mean ranks closer than this are equal."""
STIMULUS, CONCEPT, UNITS = "which {}", "which concept", "over {}"
"""The questions: of all stimuli, and where concepts have several stimuli."""
Side = Literal["above chance", "below chance", "at chance", "not testable"]


@dataclass(frozen=True)
class Verdict:
    """The answer to one question that ranks are asked.

    Attributes:
        question: What was asked: which stimulus was seen, or of which concept.
        better: Probability that permuted labels have a mean rank as small; None where nothing was tested.
        worse: Probability that they have one as large.
        least_p: The smallest two-sided p that the test can give.
        n: Items that were tested, over all subjects.
        pool: Candidates of each.
        test: How the probabilities were computed, or why nothing could be tested.
        scope: What the answer is about, as "these 2 concepts"; empty for units in general.
        wider: The wider claim that the design does not allow; empty where it does.
    """

    question: str
    better: float | None
    worse: float | None
    least_p: float
    n: int
    pool: int
    test: str
    scope: str = ""
    wider: str = ""

    @property
    def p(self) -> float | None:
        """The two-sided p."""
        if self.better is None or self.worse is None:
            return None
        return min(1.0, 2 * min(self.better, self.worse))

    @property
    def side(self) -> Side:
        """Side of chance on which the ranks are, two-sided at .05."""
        if self.better is None or self.worse is None or self.least_p > LEVEL:
            return "not testable"
        if 2 * self.better <= LEVEL:
            return "above chance"
        return "below chance" if 2 * self.worse <= LEVEL else "at chance"

    @property
    def words(self) -> str:
        """The answer in words, with whom it is about."""
        return f"{self.side} for {self.scope}" if self.scope else self.side

    @property
    def sentence(self) -> str:
        """The answer with its test, and the wider claim that is not possible."""
        if self.p is None:
            return f"{self.question}: {self.test}"
        tested = f"{self.words} (p {self.p:.2g}, {self.test}, {self.n} stimuli among {self.pool})"
        return "; ".join(filter(None, [f"{self.question}: {tested}", self.wider]))

    def as_dict(self) -> dict[str, Any]:
        """Give fields and answer as plain values, for JSON."""
        answer = {"p": self.p, "side": self.side, "words": self.words, "sentence": self.sentence}
        return {**vars(self), **answer}


def judge(
    ranks: Sequence[NDArray[Any]],
    items: Items,
    candidates: Sequence[Hashable],
    sessions: Mapping[Hashable, Hashable] | None = None,
    concept_of: Mapping[Any, str] | None = None,
    medium: str = "picture",
    label_of: Mapping[Any, Hashable] | None = None,
    group_of: Mapping[Any, Hashable] | None = None,
    pool: int | None = None,
) -> list[Verdict]:
    """Test whether labels belong to signals, for these subjects: the mean rank with labels permuted.

    Of trials of seen stimuli (`label_of`), labels are exchanged within `group_of`, whatever the units.

    One permutation serves all subjects: wrong labels that all share are then as probable as any others. The
    first answer is the verdict: which stimulus was seen, or, from ten concepts of which any has several
    stimuli, the sign-flip test over concepts, each with its own weight. Below ten concepts, and next to that
    verdict, stand both questions: which stimulus (exchanged within concepts) and which concept (exchanged
    within sessions).

    Args:
        ranks: Rank of each candidate by each signal, [N, P] by subject, averaged over seeds.
        items: What the signals showed, and what is exchangeable.
        candidates: Names of the P candidates.
        sessions: Sessions in which an item was shown, by name; None where they are not known.
        concept_of: Concept of each candidate by name; None: each is one of its own.
        medium: What an item is, in the singular.
        label_of: Candidate that an item shows, by name, where items are trials; None: items are candidates.
        group_of: Fold, run or session of each item, within which labels are exchanged; None: all are one.
        pool: Candidates of each signal; default: all.

    Source: Hoeffding 1951 (combinatorial permutation statistic); Phipson and Smyth 2010 (p with identity).
    """
    pool = len(candidates) if pool is None else pool
    if items.inflation > 1:  # of folds
        items = replace(items, inflation=fold_null_inflation(ranks, pool))
    column = {name: number for number, name in enumerate(candidates)}
    columns = {name: column[(label_of or {}).get(name, name)] for name in items.names}

    # rank of what name j shows by the signals of name i, as it counts in the mean rank: [I, I]
    row_of = {name: row for row, name in enumerate(items.names)}
    columns_of_names = [columns[name] for name in items.names]
    table = np.zeros((items.size, items.size))
    for matrix, ids in zip(ranks, items.ids, strict=True):
        rows = [row_of[name] for name in ids]
        np.add.at(table, rows, matrix[:, columns_of_names] / (len(ids) * len(ranks)))

    # concepts of several stimuli are asked for by themselves
    concepts = [(concept_of or {}).get(name, name) for name in items.names]
    has_several = len(set(concepts)) < len(concepts) and not items.is_film and label_of is None

    # over units; then items are exchanged within their unit, those of units of one item with each other
    questions = []
    if not items.is_film and not items.are_independent and label_of is None:
        questions.append(_over_units(ranks, items, columns, pool))
        counts = Counter(dict(zip(chain(*items.ids), chain(*items.units), strict=True)).values())
        within_units = [[unit if counts[unit] > 1 else None for unit in units] for units in items.units]
        items = replace(items, units=items.ids, strata=within_units)
    if label_of is not None:  # categories may be unequally frequent: only labels within a group compare like
        items = replace(items, units=items.ids, strata=None)

    # within a group (a run, session or fold), and within the stratum as before
    if group_of:
        strata = items.strata or [[None] * len(ids) for ids in items.ids]
        within_groups = [
            [(stratum, group_of[name]) for name, stratum in zip(ids, strata_of_ids, strict=True)]
            for ids, strata_of_ids in zip(items.ids, strata, strict=True)
        ]
        items = replace(items, strata=within_groups)

    questions.append(_of_stimuli(table, items, pool, medium, bool(group_of)))
    if has_several:
        questions.append(_of_concepts(table, items, pool, concepts, sessions, group_of))
    return questions


def _of_stimuli(
    table: NDArray[np.float64], items: Items, pool: int, medium: str, is_grouped: bool = False
) -> Verdict:
    """Ask which stimulus was seen: labels are permuted as `Items.permutations` has it."""
    # permutations, in words
    orders = items.permutations(DRAWS, np.random.default_rng(0))
    count = len(orders) + 1
    if items.is_film:
        how = f"all {count} circular shifts" if count == items.size else f"{count:,} circular shifts"
    else:
        drawn = f"{count:,} permutations" if count > DRAWS else f"all {count:,} permutations"
        within = {True: " within runs, sessions or folds", False: " within concepts"}[is_grouped]
        how = f"{drawn} of the labels" + (within if items.strata is not None else "")

    # few concepts say nothing of concepts in general
    wider = ""
    if items.strata is not None and items.scope and not is_grouped:
        kinds = items.scope.removeprefix("these ").replace("this ", "1 ")
        wider = f"concepts in general: not possible with {kinds}"
    question = STIMULUS.format(medium)
    if count == 1:
        return Verdict(question, None, None, 1.0, items.size, pool, "no two labels can be exchanged")
    return _compare(question, table, orders, how, items, pool, items.scope, wider)


def _of_concepts(
    table: NDArray[np.float64],
    items: Items,
    pool: int,
    concepts: Sequence[Hashable],
    sessions: Mapping[Hashable, Hashable] | None,
    group_of: Mapping[Any, Hashable] | None = None,
) -> Verdict:
    """Ask which concept was seen: the mean rank of the other items of a label's concept.

    Labels are permuted freely among items of the same sessions, where signals drift alike.
    """
    # mean rank of the other items of a concept, within the group where there are groups
    concept_number = {name: index for index, name in enumerate(dict.fromkeys(concepts))}
    concept = np.array([concept_number[name] for name in concepts])
    group_number = {name: index for index, name in enumerate(dict.fromkeys((group_of or {}).values()))}
    group = np.array([group_number[group_of[name]] if group_of else 0 for name in items.names])
    is_same = ((concept[:, None] == concept) & (group[:, None] == group)) - np.eye(len(concept))
    sizes = is_same.sum(0)
    means = np.where(sizes > 0, table @ is_same / np.maximum(sizes, 1), table.mean(1, keepdims=True))

    # exchange labels within sessions; where these have one concept each, nothing is exchanged for another
    shown_in: list[Hashable] = [(sessions or {}).get(name) for name in items.names]
    if group_of:
        shown_in = [(session, group_of[name]) for session, name in zip(shown_in, items.names, strict=True)]
    exchanged = Items([items.names], [items.names], strata=[shown_in])
    scope = items.scope if len(set(concepts)) < MANY_UNITS else ""
    if sessions is None or len({*zip(shown_in, concepts, strict=True)}) == len(set(shown_in)):
        reason = "their sessions are not known" if sessions is None else "concepts and sessions coincide"
        return Verdict(CONCEPT, None, None, 1.0, items.size, pool, f"cannot be tested: {reason}", scope)
    orders = exchanged.permutations(DRAWS, np.random.default_rng(1))
    drawn = f"{len(orders) + 1:,} permutations of the labels within sessions"
    return _compare(CONCEPT, means, orders, drawn, items, pool, scope, "")


def _compare(
    question: str,
    table: NDArray[np.float64],
    orders: NDArray[np.int64],
    how: str,
    items: Items,
    pool: int,
    scope: str,
    wider: str,
) -> Verdict:
    """Compare the sum of a table's diagonal with those of permuted columns, the identity among them."""
    # sums of permuted columns
    rows, measured = np.arange(len(table)), float(np.trace(table))
    step = max(1, MAX_LOOKED_UP // len(rows))
    permuted = np.concatenate(
        [table[rows, orders[start : start + step]].sum(1) for start in range(0, len(orders), step)]
    )
    if items.inflation > 1:  # models of folds share training data, so that labels are no independent draws
        permuted = widen(permuted, permuted.mean(), items.inflation)
        how = f"{how}, their spread widened for folds that share training data"

    # probabilities of a sum as small, and as large
    count = len(orders) + 1
    better = (1 + int((permuted <= measured + ROUNDING).sum())) / count
    worse = (1 + int((permuted >= measured - ROUNDING).sum())) / count
    test = f"{how}, mean rank"
    if count <= DRAWS:
        test += f", smallest p {2 / count:.2g}"
    return Verdict(question, better, worse, 2 / count, items.size, pool, test, scope, wider)


def _over_units(
    ranks: Sequence[NDArray[Any]], items: Items, columns: Mapping[Hashable, int], pool: int
) -> Verdict:
    """Ask whether units in general rank better: signs of how far their mean rank is from that of guesses."""
    middle = (pool + 1) / 2
    distances = [  # [N] by subject
        middle - matrix[np.arange(len(ids)), [columns[name] for name in ids]]
        for matrix, ids in zip(ranks, items.ids, strict=True)
    ]
    flips = flip_signs(distances, items)
    test = f"sign flips of the mean rank over {items.count} {items.kind}"
    test += ", in folds that share training data" if items.inflation > 1 else ""
    named = (items.size, pool, test, items.scope)
    return Verdict(UNITS.format(items.kind), flips.p_above, flips.p_below, flips.least_p, *named)
