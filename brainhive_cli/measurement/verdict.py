"""Verdict on retrieval: permutation tests of the mean rank of the seen stimuli.

An item is a tested stimulus (a picture or a clip) or trial. A unit is an item, or a
series of trials, whose label is exchanged. Its label is the candidate that it showed.
Labels are exchanged with the odds that the design of the study gives them.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from brainhive_cli.core.base import Array, Float64, Int64
from brainhive_cli.core.results import Answer
from brainhive_cli.measurement.design import Exchange, LabelDesign
from brainhive_cli.measurement.statistics import flip_signs
from brainhive_cli.measurement.units import (
    MIN_SUBJECTS_FOR_POPULATION,
    MIN_UNITS_FOR_POPULATION,
    Items,
    count_few,
    fold_null_inflation,
    look_up_names,
    name_few,
    number_names,
    widen_null_distribution,
)

MAX_PERMUTATIONS = 4_999
"""Largest number of permutations besides the identity. The standard error of a p of .05
is then .003.
"""
ROUNDING = 1e-9
"""Largest difference between two mean ranks that counts as rounding error."""


def judge(
    ranks: Sequence[Array],
    items: Items,
    candidates: Sequence[Hashable],
    concept_of: Mapping[Any, str] | None = None,
    medium: str = "picture",
    *,
    label_of: Mapping[Any, Hashable] | None = None,
    exchange: Exchange | None = None,
    concept_exchange: Exchange | None = None,
    pool: int | None = None,
    are_hits: bool = False,
    max_permutations: int = MAX_PERMUTATIONS,
) -> list[Answer]:
    """Test if signals tell which label they have, by permutations of the labels.

    The statistic is the mean rank of the labels over subjects and items, or the
    accuracy if ranks only distinguish hits from misses. The questions are:

    - Which stimulus (of all candidates) was shown. It is the verdict.
    - If stimuli share concepts: which stimulus of its concept, and which concept.

    The verdict holds for the tested concepts and people. It holds for concepts or
    people in general if a test with these as units says so, too.

    Args:
        ranks: Rank [N, P] of each candidate for the N signals of each subject, averaged
            over seeds. 0 for a candidate that a signal was not compared with.
        items: Stimuli or trials of each subject.
        candidates: Names of the P candidates.
        concept_of: Concept of each candidate by name. The default is a concept of its
            own.
        medium: Description of a stimulus in the singular.
        label_of: Candidate that each trial showed, by name of the trial. None if the
            items are the candidates.
        exchange: Units whose labels are exchanged. By default each item is a unit, and
            all orders are equally likely.
        concept_exchange: Units whose concepts are exchanged, likewise.
        pool: Number of candidates of each signal. The default is P.
        are_hits: True if `ranks` are 1 for the decoded candidate and 2 for the others.
        max_permutations: Largest number of permutations of labels.

    Returns:
        The answers, of which the first is called the verdict.

    Source: Hoeffding 1951 (combinatorial permutation statistic); Phipson and Smyth 2010
    (p with identity).
    """
    pool = len(candidates) if pool is None else pool
    if items.inflation > 1:
        # folds share training data, so their null distribution is wider
        inflation = fold_null_inflation(ranks, 2 if are_hits else pool)
        items = replace(items, inflation=inflation)
    column_of = {name: column for column, name in enumerate(candidates)}
    columns = []
    for labels in look_up_names(label_of or {}, items.ids):
        columns.append(np.array([column_of[label] for label in labels], np.int64))
    rows = [items.name_indices(ids) for ids in items.ids]
    test = _Test(
        ranks, columns, exchange or Exchange(items.exchange, rows), items, pool
    )

    # which stimulus
    answer = test.answer(f"which {medium}", max_permutations=max_permutations)
    if are_hits:
        answer = replace(answer, test=answer.test.replace("mean rank", "accuracy"))
    concepts = look_up_names(concept_of or {}, items.ids)
    (all_concepts,) = look_up_names(concept_of or {}, [items.names])
    n_concepts = len(set(all_concepts))
    is_alone = n_concepts == len(all_concepts)
    if label_of is not None or items.is_film or is_alone:
        return [test.limit(replace(answer, scope=items.scope))]

    # which stimulus of its concept
    candidate_concepts, *item_concepts = number_names(
        [look_up_names(concept_of or {}, [candidates])[0], *concepts]
    )
    concept_of_unit = np.zeros(len(test.design.label), np.int64)
    for unit_rows, numbers in zip(test.unit_rows, item_concepts, strict=True):
        concept_of_unit[unit_rows] = numbers
    within = replace(test, within=concept_of_unit)
    of_concept = within.answer(f"which {medium} of its concept")

    # which concept
    if concept_exchange is None:
        (labels_of_names,) = number_names([all_concepts])
        free = LabelDesign.free(labels_of_names, items.exchange.stratum)
        concept_exchange = Exchange(free, rows)
    concept_test = _Test(
        [
            average_by_concept(table, shown, candidate_concepts)
            for table, shown in zip(ranks, columns, strict=True)
        ],
        item_concepts,
        concept_exchange,
        items,
        pool,
    )
    # Name of the question for the concept that was seen.
    which_concept = concept_test.answer("which concept")
    answer = test.limit(
        answer,
        replace(items, units=concepts, strata=None),
        name_few(n_concepts, "concepts"),
    )
    return [
        answer,
        replace(of_concept, scope=answer.scope),
        replace(which_concept, scope=answer.scope),
    ]


@dataclass(frozen=True)
class _Test:
    """Permutation test of the labels of units.

    Attributes:
        ranks: Rank [N, P] of each candidate for the signals of each subject.
        columns: Column [N] of the candidate that each signal showed, by subject.
        exchange: Units of the signals.
        items: Items, whose `inflation` multiplies the variance of the null
            distribution.
        pool: Number of candidates of each signal.
        within: Group [I] of each unit, within which labels are exchanged, or None.
    """

    ranks: Sequence[Array]
    columns: Sequence[Int64]
    exchange: Exchange
    items: Items
    pool: int
    within: Int64 | None = None

    @cached_property
    def design(self) -> LabelDesign:
        """Odds of the labels of the I units that these signals belong to."""
        design = self.exchange.design.take(self._used_units)
        return design if self.within is None else design.within(self.within)

    @cached_property
    def released_design(self) -> LabelDesign:
        """The same, with equal odds if signals do not show what the design tells."""
        is_compared = self.contributions > 0
        n_compared = np.maximum(is_compared.sum(1, keepdims=True), 1)
        means = self.contributions.sum(1, keepdims=True) / n_compared
        scores = -np.where(is_compared, self.contributions, means)
        return self.design.release(scores, self.label)

    @cached_property
    def unit_rows(self) -> list[Int64]:
        """Row [N] of the unit of each signal, by subject."""
        units = self.exchange.units
        return [np.searchsorted(self._used_units, numbers) for numbers in units]

    @cached_property
    def _used_units(self) -> Int64:
        return np.unique(np.concatenate(self.exchange.units))

    @cached_property
    def label_columns(self) -> Int64:
        """Column [I] of the candidate that each unit showed."""
        columns = np.zeros(len(self._used_units), np.int64)
        for rows, shown in zip(self.unit_rows, self.columns, strict=True):
            columns[rows] = shown
        return columns

    @cached_property
    def label(self) -> Int64:
        """Label [I] of each unit, as a column of the contributions."""
        return np.unique(self.label_columns, return_inverse=True)[1]

    @cached_property
    def contributions(self) -> Float64:
        """Contribution [I, L] of each unit to the mean rank, for each label."""
        shown_columns = np.unique(self.label_columns)
        sums = np.zeros((len(self.label_columns), len(shown_columns)))
        for subject_ranks, rows in zip(self.ranks, self.unit_rows, strict=True):
            weight = 1 / (len(rows) * len(self.ranks))
            np.add.at(sums, rows, subject_ranks[:, shown_columns] * weight)
        return sums

    def draw_orders(self, count: int) -> Array:
        """Draw permutations [K, I] of the labels of units, without the identity."""
        if self.items.is_film:
            return self.items.draw_permutations(count, 0)
        return self.released_design.draw_orders(count, 0)

    def answer(self, question: str, max_permutations: int = MAX_PERMUTATIONS) -> Answer:
        """Compare the mean rank of the labels with that of permuted labels.

        Args:
            question: Question that is answered, such as "which picture".
            max_permutations: Largest number of permutations besides the identity.
        """
        n_items = len(self.items.names)
        reason = self.design.problem
        orders = np.empty((0, n_items), np.int64)
        if not reason:
            orders = self.draw_orders(max_permutations)
            shown = self.label_columns
            if not len(orders) or not (shown[orders] != shown).any():
                reason = "no two labels can be exchanged"
        if reason:
            return Answer(
                question,
                better=None,
                worse=None,
                least_p=1.0,
                n=n_items,
                pool=self.pool,
                test=reason,
            )

        # sum contributions for each order, batch by batch
        contributions, label = self.contributions, self.label
        n_units, n_labels = contributions.shape
        row_starts = np.arange(n_units) * n_labels
        measured_rank = float(contributions.take(row_starts + label).sum())
        # Largest number of ranks that are looked up in one step, which
        # bounds the memory.
        max_lookups = 2**22
        batch_size = max(1, max_lookups // n_units)
        sums = []
        for start in range(0, len(orders), batch_size):
            labels = label[orders[start : start + batch_size]]
            sums.append(contributions.take(row_starts + labels).sum(1))
        permuted_ranks = np.concatenate(sums)
        if self.items.inflation > 1:
            permuted_ranks = widen_null_distribution(
                permuted_ranks, permuted_ranks.mean(), self.items.inflation
            )

        # both tails include the identity
        count = len(orders) + 1
        n_better = int((permuted_ranks <= measured_rank + ROUNDING).sum())
        n_worse = int((permuted_ranks >= measured_rank - ROUNDING).sum())
        return Answer(
            question,
            better=(1 + n_better) / count,
            worse=(1 + n_worse) / count,
            least_p=2 / count,
            n=n_items,
            pool=self.pool,
            test=self._describe(count, count <= max_permutations),
            design=self.design.telling[0] if self.design.tells else "",
        )

    def _describe(self, count: int, are_all: bool) -> str:
        """Describe the test by its number of permutations, with the identity."""
        items = self.items
        if items.is_film:
            are_all = count == len(items.names)
            method = f"{count:,} circular shifts"
        else:
            method = f"{count:,} permutations of the labels"
            if len(self.design.label) < len(items.names):
                method += " of series of trials"
            if self.within is not None:
                method += " within concepts"
            elif np.ptp(self.design.stratum):
                method += " within runs, sessions, folds or people"
            if self.released_design.predictions.any():
                method += ", drawn with the odds of the design"
            elif self.design.predictions.any():
                method += ", freely because signals do not show the design"
        if are_all:
            method = f"all {method}"
        if items.inflation > 1:
            method += ", their spread widened for folds that share training data"
        method += ", mean rank"
        if count <= MAX_PERMUTATIONS:
            method += f", smallest p {2 / count:.2g}"
        return method

    def limit(
        self, answer: Answer, concepts: Items | None = None, scope: str = ""
    ) -> Answer:
        """Limit an answer to the concepts and people that it was found for.

        It holds for concepts or people in general if these, as units, are better (or
        worse) than in permutations.

        Args:
            answer: Answer to a question about these stimuli.
            concepts: Items whose units are concepts, if stimuli share concepts.
            scope: Name of these concepts.
        """
        n_people = len(self.ranks)
        scopes = []
        wider = []
        if concepts is not None and concepts.n_units < MIN_UNITS_FOR_POPULATION:
            scopes.append(scope)
            few = count_few(scope)
            wider.append(f"concepts in general: not possible with {few}")
        elif concepts is not None and answer.is_settled:
            flips = flip_signs(self.advantages, concepts)
            if not answer.agrees(flips.p_above, flips.p_below):
                scopes.append(scope)
                wider.append(
                    f"concepts in general: not shown (p = {flips.p:.2g}, sign flips "
                    f"over {concepts.n_units} concepts)"
                )
        if n_people >= MIN_SUBJECTS_FOR_POPULATION and answer.is_settled:
            from scipy.stats import ttest_1samp

            means = [float(values.mean()) for values in self.advantages]
            p_above = float(ttest_1samp(means, 0, alternative="greater").pvalue)
            if not answer.agrees(p_above, 1 - p_above):
                scopes.append(f"these {n_people} people")
                p = 2 * min(p_above, 1 - p_above)
                wider.append(
                    f"people in general: not shown (p = {p:.2g}, t test over "
                    f"{n_people} people)"
                )
        names = " in ".join(scopes) or answer.scope
        return replace(answer, scope=names, wider="; ".join(wider))

    @cached_property
    def advantages(self) -> list[Float64]:
        """Mean rank under permuted labels minus rank [N] of each signal, by subject."""
        # Number of permutations whose mean rank is the guess of an item.
        orders = self.draw_orders(199)
        values = []
        for subject_ranks, rows, shown in zip(
            self.ranks, self.unit_rows, self.columns, strict=True
        ):
            signals = np.arange(len(rows))
            guessed = np.zeros(len(rows))
            for order in orders:
                guessed += subject_ranks[signals, self.label_columns[order[rows]]]
            values.append(guessed / len(orders) - subject_ranks[signals, shown])
        return values


def average_by_concept(ranks: Array, columns: Int64, concepts: Int64) -> Float64:
    """Average ranks over the candidates of each concept, without the shown one.

    Args:
        ranks: Rank [N, P] of each candidate for N signals. 0 if it was not compared.
        columns: Column [N] of the candidate that each signal showed.
        concepts: Concept [P] of each candidate.

    Returns:
        Mean rank [N, C] of the other candidates of each concept, or of all compared
        candidates if a concept has no others.
    """
    is_of_concept = np.eye(1 + concepts.max())[concepts]  # [P, C]
    is_compared = (ranks > 0).astype(np.float64)
    row_means = ranks.sum(1) / np.maximum(is_compared.sum(1), 1)
    is_compared[np.arange(len(columns)), columns] = 0
    sums = (ranks * is_compared) @ is_of_concept
    counts = is_compared @ is_of_concept
    means = sums / np.maximum(counts, 1)
    return np.where(counts > 0, means, row_means[:, None])
