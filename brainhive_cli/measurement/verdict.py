"""Verdict on retrieval: permutation tests of the mean rank of the seen stimuli.

The verdict answers one or two questions. Which stimulus was seen? If concepts have
several stimuli: which concept was seen? Labels are exchanged only within parts of the
recording in which they were interleaved (see `measurement.interleaving`).
"""

from collections import Counter
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
    fold_null_inflation,
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
"""Largest difference between equal mean ranks."""
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
    pool: int | None = None,
) -> list[Answer]:
    """Test if the labels belong to the signals, by the mean rank under permuted labels.

    The answers hold for these subjects. Each permutation is the same for all subjects.
    Labels that are wrong for all subjects alike are then as probable as any others.

    The answers depend on the design:

    - Held-out trials: which label was shown.
    - Pictures of ten concepts or more, of which some have several pictures: the verdict
      is a sign-flip test over concepts. The answers for fewer concepts follow.
    - Pictures of fewer concepts: which picture was shown, where pictures are exchanged
      within concepts, and which concept was shown.
    - Pictures of different concepts, and clips: which stimulus was shown.

    Args:
        ranks: Rank [N, P] of each candidate for the N signals of each subject, averaged
            over seeds. 0 for a candidate that a signal was not compared with.
        items: Stimuli or trials that the signals showed, with their units and parts.
        candidates: Names of the P candidates.
        concept_parts: Part of the recording, by name of the item, in which concepts
            were interleaved, or None if it is unknown or if there are no such parts.
        concept_of: Concept of each candidate by name. If None, each candidate is a
            concept of its own.
        medium: Description of a stimulus in the singular.
        label_of: Candidate that each item shows, by name, if the items are trials. It
            is None if the items are candidates.
        blocks: Block of each trial by name, whose labels are exchanged together. If
            None, each trial is a block of its own.
        concept_problem: Reason why concepts cannot be distinguished from time. Empty if
            they can.
        pool: Number of candidates of each signal. The default is P.

    Returns:
        The answers. The first one is the verdict.

    Source: Hoeffding 1951 (combinatorial permutation statistic); Phipson and Smyth 2010
    (p with identity).
    """
    pool = len(candidates) if pool is None else pool
    if items.inflation > 1:
        # folds share training data, so their null distribution is wider
        items = replace(items, inflation=fold_null_inflation(ranks, pool))

    # candidate that each block shows, where a picture is a block of its own
    column_of = {name: column for column, name in enumerate(candidates)}
    block_of: dict[Hashable, Hashable] = {}
    columns: dict[Hashable, int] = {}
    for name in items.names:
        block = blocks.get(name, name) if blocks else name
        candidate = label_of[name] if label_of and name in label_of else name
        block_of[name] = block
        columns[block] = column_of[candidate]

    # contribution of each block to the mean rank, if its label were a shown candidate
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
        for ids in items.ids:
            block_ids.append(list(dict.fromkeys(block_of[name] for name in ids)))
        block_parts = {}
        for name, part_name in items.parts.items():
            block_parts[block_of[name]] = part_name
        exchanged = replace(
            items, ids=block_ids, units=block_ids, strata=None, parts=block_parts
        )
        return [_test_stimuli(contributions, labels, exchanged, pool, medium, n_items)]

    # units are tested as a whole, and then the items within each unit
    answers = []
    if not items.is_film and not items.are_independent:
        if not items.problem and not concept_problem:
            answers.append(_test_units(ranks, items, columns, pool, concept_parts))
        items = replace(items, units=items.ids, strata=_list_strata_of_units(items))
    answers.append(_test_stimuli(contributions, labels, items, pool, medium, n_items))

    # concepts are tested if they have several stimuli
    concepts: list[Hashable] = list(items.names)
    if concept_of is not None:
        concepts = [concept_of.get(name, name) for name in items.names]
    if len(set(concepts)) < len(concepts) and not items.is_film:
        answers.append(
            _test_concepts(
                contributions, items, pool, concepts, concept_parts, concept_problem
            )
        )
    return answers


def _list_strata_of_units(items: Items) -> list[list[Hashable]]:
    """List the stratum [N] of each item, by subject, if items are exchanged in units.

    Each unit with several items is a stratum. Units of a single item share a stratum.
    """
    unit_of: dict[Hashable, Hashable] = {}
    for ids, units in zip(items.ids, items.units, strict=True):
        unit_of.update(zip(ids, units, strict=True))
    sizes = Counter(unit_of.values())
    strata = []
    for units in items.units:
        subject_strata: list[Hashable] = []
        for unit in units:
            subject_strata.append(unit if sizes[unit] > 1 else None)
        strata.append(subject_strata)
    return strata


def _test_stimuli(
    contributions: Float64,
    labels: Int64,
    items: Items,
    pool: int,
    medium: str,
    n_items: int,
) -> Answer:
    """Test which stimulus was seen, with permutations of `Items.draw_permutations`.

    Args:
        contributions: Contribution [I, C] of each block to the mean rank, if its label
            were one of the C candidates that were shown.
        labels: Column [I] of the candidate that each block shows.
        items: Blocks, with their strata and parts.
        pool: Number of candidates of each signal.
        medium: Description of a stimulus in the singular.
        n_items: Number of tested items.
    """
    question = f"which {medium}"
    if items.problem:
        return _not_tested(question, items.problem, n_items, pool)
    orders = items.draw_permutations(MAX_PERMUTATIONS, 0)
    if not len(orders):
        reason = "no two labels can be exchanged"
        return _not_tested(question, reason, n_items, pool)

    # describe the permutations, the identity among them
    count = len(orders) + 1
    if items.is_film:
        is_complete = count == len(items.names)
        method = f"all {count}" if is_complete else f"{count:,}"
        method += " circular shifts"
    else:
        method = f"{count:,} permutations"
        if count <= MAX_PERMUTATIONS:
            method = f"all {method}"
        method += " of the labels"
        if len(items.names) != n_items:
            method += " of blocks"
        if items.parts:
            method += " within runs, sessions or folds"
        elif items.strata is not None:
            method += " within concepts"

    # few concepts are no sample of concepts in general
    wider = ""
    if items.strata is not None and "concept" in items.scope:
        concepts = items.scope.removeprefix("these ").replace("this ", "1 ")
        wider = f"concepts in general: not possible with {concepts}"
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
) -> Answer:
    """Test which concept was seen, by the other stimuli of the same concept.

    The rank of a label is the mean rank of the other stimuli of its concept. Labels are
    exchanged freely within a part, where drift is the same.

    Args:
        contributions: Contribution [I, I] of each item to the mean rank, for each
            candidate. 0 if the item was not compared with the candidate.
        items: The items.
        pool: Number of candidates of each signal.
        concepts: Concept [I] of each item.
        parts: Part of the recording, by name, or None if it is unknown.
        problem: Reason why concepts cannot be distinguished from time, or empty.
    """
    n_items = len(items.names)
    scope = items.scope if len(set(concepts)) < MIN_UNITS_FOR_POPULATION else ""
    item_parts = None if parts is None else [parts[name] for name in items.names]
    if item_parts is None:
        problem = problem or "the sessions of the trials are unknown"
    else:
        pairs = set(zip(item_parts, concepts, strict=True))
        if len(pairs) == len(set(item_parts)):
            problem = "each session shows only one concept"
    if item_parts is None or problem:
        reason = f"cannot be tested, because {problem}"
        answer = _not_tested(CONCEPT_QUESTION, reason, n_items, pool)
        return replace(answer, scope=scope)

    # mean over the other items of a concept that were compared
    (concept_numbers,) = number_names([concepts])
    n_concepts = concept_numbers.max() + 1
    is_of_concept = np.eye(n_concepts)[concept_numbers]  # [I, concepts]
    is_compared = contributions > 0
    n_others = (is_compared @ is_of_concept)[:, concept_numbers] - is_compared
    sums = (contributions @ is_of_concept)[:, concept_numbers] - contributions

    # without such an item, the mean over all candidates
    n_compared = is_compared.sum(1, keepdims=True)
    row_means = contributions.sum(1, keepdims=True) / np.maximum(n_compared, 1)
    concept_contributions = np.where(
        n_others > 0, sums / np.maximum(n_others, 1), row_means
    )

    exchanged = Items([items.names], [items.names], strata=[item_parts])
    orders = exchanged.draw_permutations(MAX_PERMUTATIONS, 1)
    method = f"{len(orders) + 1:,} permutations of the labels within sessions"
    labels = np.arange(n_items)
    answer = _test_permutations(
        CONCEPT_QUESTION, concept_contributions, labels, orders, method, items, pool
    )
    return replace(answer, n=n_items, scope=scope)


def _not_tested(question: str, reason: str, n_items: int, pool: int) -> Answer:
    """Return the answer to a question that cannot be tested."""
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
    """Compare the mean rank of the labels with the mean rank of permuted labels.

    Args:
        question: Name of the question.
        contributions: Contribution [I, C] of each block to the mean rank, if its label
            were one of the C candidates.
        labels: Column [I] of the candidate that each block shows.
        orders: Permutations [K, I] of the blocks, without the identity.
        method: Description of the permutations.
        items: Items, whose inflation widens the null distribution.
        pool: Number of candidates of each signal.

    Returns:
        The answer for all I blocks, without a scope.
    """
    # look ranks up in the flattened table, for a limited number of permutations at once
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

    # the identity counts on both sides
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
    """Test if units in general rank better than guesses, by sign flips over units.

    A guess that knows the part of the recording ranks a stimulus at the mean rank of
    all stimuli that were shown in this part.

    Args:
        ranks: Rank [N, P] of each candidate for the N signals of each subject.
        items: Items with their units.
        columns: Column of the candidate that each item shows, by name.
        pool: Number of candidates of each signal.
        parts: Part of the recording that each item belongs to, by name, or None.
    """
    # difference [N] between the rank of a guess and the measured rank
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
