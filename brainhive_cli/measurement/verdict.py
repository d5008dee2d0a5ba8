"""Whether the seen stimuli rank better than others, by one test that has the power
which the data have.
"""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np

from brainhive_cli.core.arrays import Array, Float64, Int64
from brainhive_cli.core.facts import Answer
from brainhive_cli.measurement.statistics import flip_signs
from brainhive_cli.measurement.units import (
    MIN_UNITS_FOR_POPULATION,
    Items,
    fold_null_inflation,
    number_names,
    widen_null_distribution,
)

MAX_PERMUTATIONS = 4_999
"""Permutations, with the identity, where there are more; a p of .05 then has a standard
error of .003.
"""
MAX_LOOKED_UP = 2**22
"""Ranks that are looked up at once, to bound memory."""
ROUNDING = 1e-9
"""Mean ranks closer than this are equal."""
STIMULUS, CONCEPT, UNITS = "which {}", "which concept", "over {}"
"""The questions: of all stimuli, and where concepts have several stimuli."""


def judge(
    ranks: Sequence[Array],
    items: Items,
    candidates: Sequence[Hashable],
    concept_parts: Mapping[Any, Hashable] | None = None,
    concept_of: Mapping[Any, str] | None = None,
    medium: str = "picture",
    *,
    label_of: Mapping[Any, Hashable] | None = None,
    blocks: Mapping[Any, Hashable] | None = None,
    concept_problem: str = "",
    pool: int | None = None,
) -> list[Answer]:
    """Test whether labels belong to signals, for these subjects: the mean rank with
    labels permuted.

    One permutation serves all subjects: wrong labels that all share are then as
    probable as any others. The first answer is the verdict: which stimulus was seen,
    or, from ten concepts of which any has several stimuli, the sign-flip test over
    concepts, each with its own weight. Below ten concepts, and next to that
    verdict, stand both questions: which stimulus (exchanged within concepts) and which
    concept. Whatever is asked, labels are compared within the parts of the recording in
    which they were interleaved.

    Args:
        ranks: Rank of each candidate by each signal, [N, P] by subject, averaged over
            seeds; 0 of candidates that were not compared.
        items: What the signals showed, and what is exchangeable, within which parts of
            the recording; or why nothing is.
        candidates: Names of the P candidates.
        concept_parts: Part of the recording of each item by name, within which concepts
            of several stimuli were interleaved; None where that is not known, or they
            were not.
        concept_of: Concept of each candidate by name; None: each is one of its own.
        medium: What an item is, in the singular.
        label_of: Candidate that an item shows, by name, where items are trials; None:
            items are candidates.
        blocks: Block of each trial by name, whose labels are exchanged together; None:
            each is its own.
        concept_problem: Why concepts cannot be distinguished from time; empty if they
            can.
        pool: Candidates of each signal; default: all.

    Source: Hoeffding 1951 (combinatorial permutation statistic); Phipson and Smyth 2010
    (p with identity).
    """
    # the null distribution of folds is wider than permuted labels show
    # (`fold_null_inflation`)
    pool = len(candidates) if pool is None else pool
    if items.inflation > 1:  # of folds
        items = replace(items, inflation=fold_null_inflation(ranks, pool))
    column = {name: number for number, name in enumerate(candidates)}
    block_of = {name: (blocks or {}).get(name, name) for name in items.names}
    columns = {
        block_of[name]: column[(label_of or {}).get(name, name)] for name in items.names
    }

    # the C candidates that were shown, and which of them each block shows: [I]
    candidates_shown = list(dict.fromkeys(columns.values()))
    (label,) = number_names([[*columns.values()]])
    # their ranks by the signals of each block, as they count in the mean rank: [I, C]
    row_of = {block: row for row, block in enumerate(columns)}
    table = np.zeros((len(columns), len(candidates_shown)))
    for matrix, ids in zip(ranks, items.ids, strict=True):
        rows = [row_of[block_of[name]] for name in ids]
        np.add.at(table, rows, matrix[:, candidates_shown] / (len(ids) * len(ranks)))

    # trials have one question
    count = len(items.names)
    if label_of is not None:
        shown = [
            [*dict.fromkeys(block_of[name] for name in listed)] for listed in items.ids
        ]
        parts = {block_of[name]: part for name, part in items.parts.items()}
        exchanged = replace(items, ids=shown, units=shown, strata=None, parts=parts)
        return [_of_stimuli(table, label, exchanged, pool, medium, count)]

    # over units; then items are exchanged within their unit, those of units of one item
    # with each other
    questions = []
    if not items.is_film and not items.are_independent:
        if not items.problem and not concept_problem:
            questions.append(_over_units(ranks, items, columns, pool, concept_parts))
        counts = Counter(
            dict(zip(chain(*items.ids), chain(*items.units), strict=True)).values()
        )
        within_units = [
            [unit if counts[unit] > 1 else None for unit in units]
            for units in items.units
        ]
        items = replace(items, units=items.ids, strata=within_units)
    questions.append(_of_stimuli(table, label, items, pool, medium, count))

    # concepts of several stimuli are asked for by themselves
    concepts = [(concept_of or {}).get(name, name) for name in items.names]
    if len(set(concepts)) < len(concepts) and not items.is_film:
        questions.append(
            _of_concepts(table, items, pool, concepts, concept_parts, concept_problem)
        )
    return questions


def _of_stimuli(
    table: Float64, label: Int64, items: Items, pool: int, medium: str, count: int
) -> Answer:
    """Ask which stimulus was seen: labels are permuted as `Items.permutations` has
    it.
    """
    question = STIMULUS.format(medium)
    if items.problem:
        return Answer(question, None, None, 1.0, count, pool, items.problem)

    # permutations, in words
    orders = items.draw_permutations(MAX_PERMUTATIONS, 0)
    total = len(orders) + 1
    if items.is_film:
        how = (
            f"all {total} circular shifts"
            if total == len(items.names)
            else f"{total:,} circular shifts"
        )
    else:
        drawn = (
            f"{total:,} permutations"
            if total > MAX_PERMUTATIONS
            else f"all {total:,} permutations"
        )
        blocks = "" if len(items.names) == count else " of blocks"
        within = "" if items.strata is None else " within concepts"
        if items.parts:
            within = " within runs, sessions or folds"
        how = f"{drawn} of the labels{blocks}{within}"

    # few concepts say nothing of concepts in general
    wider = ""
    if items.strata is not None and items.scope and "concept" in items.scope:
        kinds = items.scope.removeprefix("these ").replace("this ", "1 ")
        wider = f"concepts in general: not possible with {kinds}"
    if total == 1:
        return Answer(
            question, None, None, 1.0, count, pool, "no two labels can be exchanged"
        )
    return _compare(
        question, table, label, orders, how, items, pool, items.scope, wider, count
    )


def _of_concepts(
    table: Float64,
    items: Items,
    pool: int,
    concepts: Sequence[Hashable],
    parts: Mapping[Any, Hashable] | None,
    problem: str,
) -> Answer:
    """Ask which concept was seen: the mean rank of the other items of a label's
    concept.

    Labels are permuted freely among items of the same part, where signals drift alike.
    """
    # mean rank of the other items of a concept, of those that were compared
    (concept,) = number_names([concepts])
    is_of_concept = np.eye(concept.max() + 1)[concept]  # [I, concepts]
    is_compared = table > 0
    sizes = (is_compared @ is_of_concept)[:, concept] - is_compared
    sums = (table @ is_of_concept)[:, concept] - table
    mean = table.sum(1, keepdims=True) / np.maximum(
        is_compared.sum(1, keepdims=True), 1
    )
    means = np.where(sizes > 0, sums / np.maximum(sizes, 1), mean)

    # exchange labels within parts; where these have one concept each, nothing is
    # exchanged for another
    scope = items.scope if len(set(concepts)) < MIN_UNITS_FOR_POPULATION else ""
    shown_in = None if parts is None else [parts[name] for name in items.names]
    if shown_in is not None and len({*zip(shown_in, concepts, strict=True)}) == len(
        set(shown_in)
    ):
        problem = "concepts and sessions coincide"
    if shown_in is None or problem:
        reason = f"cannot be tested: {problem or 'their sessions are not known'}"
        return Answer(CONCEPT, None, None, 1.0, len(items.names), pool, reason, scope)
    exchanged = Items([items.names], [items.names], strata=[shown_in])
    orders = exchanged.draw_permutations(MAX_PERMUTATIONS, 1)
    drawn = f"{len(orders) + 1:,} permutations of the labels within sessions"
    label = np.arange(len(means))
    return _compare(
        CONCEPT, means, label, orders, drawn, items, pool, scope, "", len(label)
    )


def _compare(
    question: str,
    table: Float64,
    label: Int64,
    orders: Array,
    how: str,
    items: Items,
    pool: int,
    scope: str,
    wider: str,
    n: int,
) -> Answer:
    """Compare the sum of the ranks [I, C] of what blocks show, the labels [I], with
    those of labels permuted by orders [K, I], the identity among them.
    """
    # sums of permuted labels, looked up in the flattened table
    row_start = np.arange(len(table)) * table.shape[1]
    measured = float(table.take(row_start + label).sum())
    step = max(1, MAX_LOOKED_UP // len(table))
    permuted = np.concatenate(
        [
            table.take(row_start + label.take(orders[start : start + step])).sum(1)
            for start in range(0, len(orders), step)
        ]
    )
    # models of folds share training data, so that labels are no independent draws
    if items.inflation > 1:
        permuted = widen_null_distribution(permuted, permuted.mean(), items.inflation)
        how = f"{how}, their spread widened for folds that share training data"

    # probabilities of a sum as small, and as large
    count = len(orders) + 1
    better = (1 + int((permuted <= measured + ROUNDING).sum())) / count
    worse = (1 + int((permuted >= measured - ROUNDING).sum())) / count
    test = f"{how}, mean rank"
    if count <= MAX_PERMUTATIONS:
        test += f", smallest p {2 / count:.2g}"
    return Answer(question, better, worse, 2 / count, n, pool, test, scope, wider)


def _over_units(
    ranks: Sequence[Array],
    items: Items,
    columns: Mapping[Hashable, int],
    pool: int,
    parts: Mapping[Any, Hashable] | None,
) -> Answer:
    """Ask whether units in general rank better: signs of how far their mean rank is
    from that of guesses.

    A guess knows the part of the recording, so its rank is the mean rank of what was
    shown in the same part.
    """
    # distance from a guess that knows the part, by item
    distances = []  # [N] by subject
    for matrix, ids in zip(ranks, items.ids, strict=True):
        rows = np.arange(len(ids))
        shown = [columns[name] for name in ids]
        guessed = (pool + 1) / 2
        if parts is not None:
            (part,) = number_names([[parts[name] for name in ids]])
            is_of_part = np.eye(part.max() + 1)[part]  # [N, parts]
            guessed = (matrix[:, shown] @ is_of_part / is_of_part.sum(0))[rows, part]
        distances.append(guessed - matrix[rows, shown])
    # signs of these distances, by unit
    flips = flip_signs(distances, items)
    within = (
        " within runs, sessions or folds"
        if parts is not None and len({*parts.values()}) > 1
        else ""
    )
    test = f"sign flips of the mean rank{within} over {items.n_units} {items.kind}"
    test += ", in folds that share training data" if items.inflation > 1 else ""
    arguments = (len(items.names), pool, test, items.scope)
    return Answer(
        UNITS.format(items.kind),
        flips.p_above,
        flips.p_below,
        flips.least_p,
        *arguments,
    )
