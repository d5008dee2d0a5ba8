"""Verdict on retrieval: permutation tests of the mean rank of the seen stimuli.

An item is a tested stimulus (a picture or a clip) or trial. Its label is the candidate
that it showed. A part is a stretch of the recording in which labels were interleaved.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from brainhive_cli.core.arrays import Array, Float64, Int64
from brainhive_cli.core.facts import Answer
from brainhive_cli.measurement.statistics import flip_signs
from brainhive_cli.measurement.units import (
    MIN_UNITS_FOR_POPULATION,
    Items,
    count_few,
    fold_null_inflation,
    list_strata,
    look_up_names,
    number_names,
    widen_null_distribution,
)

MAX_PERMUTATIONS = 4_999
"""Largest number of permutations besides the identity. The standard error of a p of .05
is then .003.
"""
MAX_LOOKUPS = 2**22
"""Largest number of ranks that are looked up in one step, which bounds the memory."""
ROUNDING = 1e-9
"""Largest difference between two mean ranks that counts as rounding error."""
CONCEPT_QUESTION = "which concept"
"""Name of the question for the concept that was seen."""


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
    has_series: bool = False,
    pool: int | None = None,
    are_hits: bool = False,
    max_permutations: int = MAX_PERMUTATIONS,
) -> list[Answer]:
    """Test if signals tell which label they have, by permutations of the labels.

    The statistic is the mean rank of the labels over subjects and items, or the
    accuracy if ranks only distinguish hits from misses. The design decides which
    answers are given:

    - Held-out trials: which label was shown.
    - Ten concepts or more, some with several pictures: a sign-flip test over concepts,
      then the two answers for fewer concepts.
    - Fewer concepts, some with several pictures: which picture of the concept was
      shown, then which concept was shown.
    - Pictures of different concepts, and clips: which stimulus was shown.

    Args:
        ranks: Rank [N, P] of each candidate for the N signals of each subject, averaged
            over seeds. 0 for a candidate that a signal was not compared with.
        items: Stimuli or trials, with their units (groups of items that are alike) and
            parts.
        candidates: Names of the P candidates.
        concept_parts: Part in which concepts were interleaved, by name of the item, or
            None.
        concept_of: Concept of each candidate by name. The default is a concept of its
            own.
        medium: Description of a stimulus in the singular.
        label_of: Candidate that each trial showed, by name of the trial. None if the
            items are the candidates.
        blocks: Block of each trial, by name of the trial. The trials of a block keep a
            common label. The default is a block of its own.
        concept_problem: Reason why concepts cannot be distinguished from time, or "".
        has_series: True if all items of a concept in a part keep a common label.
        pool: Number of candidates of each signal. The default is P.
        are_hits: True if `ranks` are 1 for the decoded candidate and 2 for the others.
        max_permutations: Largest number of permutations of stimuli.

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

    # column of the candidate that each block shows (an item without a block is a block)
    column_of = {name: column for column, name in enumerate(candidates)}
    block_of: dict[Hashable, Hashable] = {}
    columns: dict[Hashable, int] = {}
    for name in items.names:
        block = blocks.get(name, name) if blocks else name
        candidate = label_of.get(name, name) if label_of else name
        block_of[name] = block
        columns[block] = column_of[candidate]

    # contribution of each block to the mean rank, for each candidate that was shown
    shown_columns = list(dict.fromkeys(columns.values()))
    (labels,) = number_names([list(columns.values())])
    row_of = {block: row for row, block in enumerate(columns)}
    contributions = np.zeros((len(columns), len(shown_columns)))
    for subject_ranks, ids in zip(ranks, items.ids, strict=True):
        rows = [row_of[block_of[name]] for name in ids]
        shares = subject_ranks[:, shown_columns] / (len(ids) * len(ranks))
        np.add.at(contributions, rows, shares)

    # labels of held-out trials are exchanged block by block
    n_items = len(items.names)
    if label_of is not None:
        block_ids = []
        for names in look_up_names(block_of, items.ids):
            block_ids.append(list(dict.fromkeys(names)))
        block_parts = {}
        for name, part_name in items.parts.items():
            block_parts[block_of[name]] = part_name
        exchanged = replace(
            items, ids=block_ids, units=block_ids, strata=None, parts=block_parts
        )
        answer = _test_stimuli(
            contributions,
            labels,
            exchanged,
            pool,
            medium,
            n_items,
            max_permutations,
            part_names=_name_parts(items),
        )
        if are_hits:
            answer = replace(answer, test=answer.test.replace("mean rank", "accuracy"))
        return [answer]

    # test whole units, such as concepts, and then the items within each unit
    answers = []
    ungrouped = items
    if not items.is_film and not items.are_independent:
        if not items.problem and not concept_problem:
            answers.append(_test_units(ranks, items, columns, pool, concept_parts))
        strata = list_strata(items.ids, items.units)
        ungrouped = replace(items, units=items.ids, strata=strata)
    answers.append(
        _test_stimuli(
            contributions, labels, ungrouped, pool, medium, n_items, max_permutations
        )
    )

    # test concepts if they have several stimuli
    (concepts,) = look_up_names(concept_of or {}, [items.names])
    if len(set(concepts)) < len(concepts) and not items.is_film:
        answers.append(
            _test_concepts(
                contributions,
                ungrouped,
                pool,
                concepts,
                concept_parts,
                concept_problem,
                has_series,
            )
        )
    return answers


def _name_parts(items: Items) -> str:
    """Describe the parts within which labels are exchanged, such as "12 runs"."""
    n_parts = len(set(items.parts.values()))
    pairs = set()
    for ids, units in zip(items.ids, items.units, strict=True):
        for name, unit in zip(ids, units, strict=True):
            pairs.add((items.parts.get(name), unit))
    # a part is a unit, such as a run
    if len(pairs) == n_parts == items.n_units:
        return f"each of {n_parts} {items.kind}"
    return "runs, sessions or folds"


def _test_stimuli(
    contributions: Float64,
    labels: Int64,
    items: Items,
    pool: int,
    medium: str,
    n_items: int,
    max_permutations: int,
    part_names: str = "runs, sessions or folds",
) -> Answer:
    """Test which stimulus was seen, by permutations of the labels of blocks.

    Args:
        contributions: Contribution [I, C] of each block to the mean rank, for each
            candidate as its label.
        labels: Column [I] of the candidate that each block shows.
        items: Blocks, with the strata and parts within which labels are exchanged.
        pool: Number of candidates of each signal.
        medium: Description of a stimulus in the singular, such as "picture".
        n_items: Number of tested stimuli or trials.
        max_permutations: Largest number of permutations besides the identity.
        part_names: Description of the parts.
    """
    question = f"which {medium}"
    if items.problem:
        return _not_tested(question, items.problem, n_items, pool)
    orders = items.draw_permutations(max_permutations, 0)
    if not len(orders):
        reason = "no two labels can be exchanged"
        return _not_tested(question, reason, n_items, pool)

    # describe the permutations, which include the identity
    count = len(orders) + 1
    if items.is_film:
        is_complete = count == len(items.names)
        method = f"all {count}" if is_complete else f"{count:,}"
        method += " circular shifts"
    else:
        method = f"{count:,} permutations"
        if count <= max_permutations:
            method = f"all {method}"
        method += " of the labels"
        if len(items.names) != n_items:
            method += " of blocks"
        if items.parts:
            method += f" within {part_names}"
        elif items.strata is not None:
            method += " within concepts"

    # a few concepts do not stand for concepts in general
    wider = ""
    if items.strata is not None and "concept" in items.scope:
        wider = f"concepts in general: not possible with {count_few(items.scope)}"
    answer = _test_permutations(
        question, contributions, labels, orders, method, items, pool
    )
    return replace(answer, n=n_items, scope=items.scope, wider=wider)


def _test_concepts(
    contributions: Float64,
    items: Items,
    pool: int,
    concepts: Sequence[Hashable],
    parts: Mapping[Any, Hashable] | None,
    problem: str,
    has_series: bool,
) -> Answer:
    """Test which concept was seen, by the mean rank of the concept's other stimuli.

    Args:
        contributions: Contribution [I, I] of each item to the mean rank, for each item
            as its label. 0 if the items were not compared.
        pool: Number of candidates of each signal.
        concepts: Concept [I] of each item.
        parts: Part in which labels are exchanged, by name of the item. None if unknown.
        problem: Reason why concepts cannot be distinguished from time, or "".
        has_series: True if all items of a concept in a part keep a common label.
    """
    n_items = len(items.names)
    scope = items.scope if len(set(concepts)) < MIN_UNITS_FOR_POPULATION else ""
    item_parts = [parts[name] for name in items.names] if parts is not None else []
    if parts is None:
        problem = problem or "the sessions of the trials are unknown"
    elif len(set(zip(item_parts, concepts, strict=True))) == len(set(item_parts)):
        problem = "each session shows only one concept"
    if problem:
        answer = _not_tested(CONCEPT_QUESTION, problem, n_items, pool)
        return replace(answer, scope=scope)

    # sum over the other compared items of each candidate's concept
    (concept_numbers,) = number_names([concepts])
    n_concepts = concept_numbers.max() + 1
    is_of_concept = np.eye(n_concepts)[concept_numbers]  # [I, concepts]
    is_compared = contributions > 0
    n_others = (is_compared @ is_of_concept)[:, concept_numbers] - is_compared
    sums = (contributions @ is_of_concept)[:, concept_numbers] - contributions

    # mean over these items, or over all compared items if the concept has no others
    n_compared = is_compared.sum(1, keepdims=True)
    row_means = contributions.sum(1, keepdims=True) / np.maximum(n_compared, 1)
    concept_contributions = np.where(
        n_others > 0, sums / np.maximum(n_others, 1), row_means
    )

    # exchange labels within parts
    units: list[Hashable] = list(items.names)
    noun = "labels"
    if has_series:
        units = list(zip(item_parts, concepts, strict=True))
        noun = f"labels of {len(set(units))} series"
    exchanged = Items([items.names], [units], strata=[item_parts])
    orders = exchanged.draw_permutations(MAX_PERMUTATIONS, 1)
    method = f"{len(orders) + 1:,} permutations of the {noun} within sessions"
    labels = np.arange(n_items)
    answer = _test_permutations(
        CONCEPT_QUESTION, concept_contributions, labels, orders, method, items, pool
    )
    return replace(answer, n=n_items, scope=scope)


def _not_tested(question: str, reason: str, n_items: int, pool: int) -> Answer:
    """Return the answer to a question that cannot be tested for a reason."""
    return Answer(
        question,
        better=None,
        worse=None,
        least_p=1.0,
        n=n_items,
        pool=pool,
        test=reason,
    )


def _test_permutations(
    question: str,
    contributions: Float64,
    labels: Int64,
    orders: Array,
    method: str,
    items: Items,
    pool: int,
) -> Answer:
    """Compare the mean rank of the labels with the mean ranks of permuted labels.

    Args:
        question: Question that is answered, such as "which picture".
        contributions: Contribution [I, C] of each block to the mean rank, for each
            candidate as its label.
        labels: Column [I] of the candidate that each block shows.
        orders: Permutations [K, I] of the blocks, without the identity.
        items: Items, whose `inflation` multiplies the variance of the null
            distribution.
        pool: Number of candidates of each signal.
    """
    # look up contributions in the flattened array, batch by batch
    row_starts = np.arange(len(contributions)) * contributions.shape[1]
    measured_rank = float(contributions.take(row_starts + labels).sum())
    batch_size = max(1, MAX_LOOKUPS // len(contributions))
    batches = []
    for start in range(0, len(orders), batch_size):
        permuted_labels = labels.take(orders[start : start + batch_size])
        batches.append(contributions.take(row_starts + permuted_labels).sum(1))
    permuted_ranks = np.concatenate(batches)
    if items.inflation > 1:
        permuted_ranks = widen_null_distribution(
            permuted_ranks, permuted_ranks.mean(), items.inflation
        )
        method += ", their spread widened for folds that share training data"

    # both tails include the identity
    count = len(orders) + 1
    better = (1 + int((permuted_ranks <= measured_rank + ROUNDING).sum())) / count
    worse = (1 + int((permuted_ranks >= measured_rank - ROUNDING).sum())) / count
    test = f"{method}, mean rank"
    if count <= MAX_PERMUTATIONS:
        test += f", smallest p {2 / count:.2g}"
    return Answer(
        question,
        better=better,
        worse=worse,
        least_p=2 / count,
        n=len(labels),
        pool=pool,
        test=test,
    )


def _test_units(
    ranks: Sequence[Array],
    items: Items,
    columns: Mapping[Hashable, int],
    pool: int,
    parts: Mapping[Any, Hashable] | None,
) -> Answer:
    """Test if units, such as concepts, rank better than guesses, by flipping signs.

    A guess is the middle rank of all candidates, or the mean rank over the stimuli of
    the same part if the parts are known.

    Args:
        ranks: Rank [N, P] of each candidate for the N signals of each subject.
        columns: Column in `ranks` of the candidate that each item shows, by name.
        pool: Number of candidates of each signal.
        parts: Part of the recording that each item belongs to, by name. None if
            unknown.
    """
    # guessed minus measured rank [N] of each subject
    differences = []
    for subject_ranks, ids in zip(ranks, items.ids, strict=True):
        rows = np.arange(len(ids))
        shown_columns = [columns[name] for name in ids]
        guesses: Float64 | float = (pool + 1) / 2
        if parts is not None:
            (part_numbers,) = number_names([[parts[name] for name in ids]])
            is_of_part = np.eye(part_numbers.max() + 1)[part_numbers]  # [N, parts]
            sums = subject_ranks[:, shown_columns] @ is_of_part
            part_means = sums / is_of_part.sum(0)  # [N, parts]
            guesses = part_means[rows, part_numbers]
        differences.append(guesses - subject_ranks[rows, shown_columns])
    flips = flip_signs(differences, items)

    test = "sign flips of the mean rank"
    if parts is not None and len(set(parts.values())) > 1:
        test += " within runs, sessions or folds"
    test += f" over {items.n_units} {items.kind}"
    if items.inflation > 1:
        test += ", in folds that share training data"
    return Answer(
        f"over {items.kind}",
        better=flips.p_above,
        worse=flips.p_below,
        least_p=flips.least_p,
        n=len(items.names),
        pool=pool,
        test=test,
        scope=items.scope,
    )
