"""Verdicts on new clips keep their level where clips of a concept come in a row."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from benchmarks.simulated_statistics import Random
from benchmarks.simulated_statistics.drifting_signals import CHANNELS, predict_by_ridge
from brainhive_cli.measurement.interleaving import Interleaving
from brainhive_cli.measurement.ranks import rank_first_pictures
from brainhive_cli.measurement.trial_order import TrialOrder
from brainhive_cli.measurement.units import StimulusGrouping
from brainhive_cli.measurement.verdict import judge

BLOCKS = 7
CONCEPTS = 40
CLIPS = 5
CLIPS_PER_BLOCK = CONCEPTS * CLIPS
WIDTH = 20
AXES: Mapping[str, Sequence[Any]] = {
    "order_of_concepts": ("differs between blocks", "is the same in all blocks"),
    "effect": (0.0, 0.5),
}
COLUMNS = (
    "over concepts: above | below | which clip: above | below | "
    "which concept: above | below | not testable | above, single clips exchanged"
)


def concepts_in_series(
    random: Random, order_of_concepts: str, effect: float
) -> list[float]:
    """Test verdicts on seven blocks of 40 concepts, with five clips of each in a row.

    Each block is held out once. A signal is a random walk over the trials of its block
    plus white noise, of equal strength. If blocks have the same order, they drift
    alike.
    """
    is_same = order_of_concepts == "is the same in all blocks"
    orders = [random.permutation(CONCEPTS) for _ in range(BLOCKS)]
    if is_same:
        orders = orders[:1] * BLOCKS
    concept = np.repeat(np.concatenate(orders), CLIPS)
    block = np.repeat(np.arange(BLOCKS), CLIPS_PER_BLOCK)
    count = len(concept)

    # embeddings of clips, and signals
    centres = random.normal(size=(CONCEPTS, WIDTH))
    embeddings = 0.8 * centres[concept] + 0.6 * random.normal(size=(count, WIDTH))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    n_walks = 1 if is_same else BLOCKS
    steps = random.normal(size=(n_walks, CLIPS_PER_BLOCK, CHANNELS))
    walks = steps.cumsum(1)
    drift = np.broadcast_to(walks / walks.std(), (BLOCKS, *walks.shape[1:]))
    signals = drift.reshape(count, CHANNELS) + random.normal(size=(count, CHANNELS))
    signals += effect * embeddings @ random.normal(size=(WIDTH, CHANNELS))

    # a ridge for each block that is held out
    ranks = np.zeros((count, count))
    for number in range(BLOCKS):
        is_test = block == number
        predicted = torch.from_numpy(
            predict_by_ridge(signals[~is_test], embeddings[~is_test], signals[is_test])
        )
        candidates = embeddings[is_test] - embeddings[is_test].mean(0)
        ranks[np.ix_(is_test, is_test)] = rank_first_pictures(
            predicted, torch.from_numpy(candidates), CLIPS_PER_BLOCK
        )

    # verdicts that exchange series of clips, and single clips
    concepts = concept.tolist()
    features = np.linalg.svd(embeddings, full_matrices=False)[0][:, :16]
    order = TrialOrder.from_trials(
        np.arange(count),
        concepts,
        None,
        block,
        np.arange(count),
        (features * count**0.5).astype(np.float32),
    )
    found = Interleaving.from_pictures(order, block + 1)
    concept_of = dict(enumerate(concepts))
    grouping = StimulusGrouping(concept_of=concept_of, medium="clip", has_folds=True)
    concept_parts = found.concept_parts
    options: dict[str, Any] = {
        "concept_of": concept_of,
        "medium": "clip",
        "pool": CLIPS_PER_BLOCK,
    }
    parts = dict(enumerate(found.parts))
    items = replace(grouping.make_items([range(count)]), parts=parts)
    answers = judge(
        [ranks],
        items,
        range(count),
        dict(enumerate(concept_parts)) if concept_parts else None,
        concept_problem=found.concept_problem,
        has_series=found.has_series,
        **options,
    )
    free = judge([ranks], items, range(count), dict(enumerate(block)), **options)
    sides = {answer.question: answer.side for answer in answers}
    columns: list[float] = []
    for question in ("over concepts", "which clip", "which concept"):
        side = sides.get(question)
        columns += [side == "above chance", side == "below chance"]
    return [
        *columns,
        sides["which concept"] == "not testable",
        free[-1].side == "above chance",
    ]
