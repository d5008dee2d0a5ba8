"""Simulated studies of a design, with the statistics that will be reported."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch

from brainhive_cli.core.base import Bool, Float64, Int64
from brainhive_cli.core.results import SIGNIFICANCE_LEVEL
from brainhive_cli.evaluation.planning.belief import Belief, compute_cosines
from brainhive_cli.evaluation.planning.designs import Design, Question
from brainhive_cli.evaluation.planning.light_world import (
    SHAPES,
    RidgeDecoder,
)
from brainhive_cli.measurement import (
    MIN_SUBJECTS_FOR_POPULATION,
    Items,
    StimulusGrouping,
    compare_hits,
    judge,
    rank_first_pictures,
    summarise_ranks,
)

N_LIKELY_STUDIES = 240
"""Number of simulated studies with signals that fit the assumptions."""
N_OTHER_STUDIES = 100
"""Number of further studies with weaker and stronger signals, to fit curves."""
LEVEL = 0.3
"""Distance between the logarithms of gains for which decoders are fitted."""
N_DECODERS = 400
"""Number of decoders of an amount of training data, if all are used. Fewer decoders
would add their own errors to the power.
"""


@dataclass
class DecoderBank:
    """Decoders of an amount of training data, which are fitted when first used.

    Attributes:
        belief: Probabilities of the strength of signals.
        n_pictures: Number of training pictures.
        repetitions: Number of repetitions of each training picture.
        seed: Seed of the decoders.
        decoders: Decoder of each level of the gain, shape and copy.
    """

    belief: Belief
    n_pictures: int
    repetitions: int
    seed: int
    decoders: dict[tuple[int, int, int], RidgeDecoder] = field(default_factory=dict)

    @cached_property
    def n_copies(self) -> int:
        """Number of decoders of a level and shape."""
        rng = np.random.default_rng(self.seed)
        log_gain, _, shape = self.belief.draw(rng, N_LIKELY_STUDIES)
        levels = np.rint(log_gain / LEVEL).tolist()
        n_cells = len(set(zip(levels, shape.tolist(), strict=True)))
        # Smallest number of decoders of a level and shape, so that people differ.
        return max(5, N_DECODERS // (2 * n_cells))

    def draw(self, rng: np.random.Generator, gain: float, shape: int) -> RidgeDecoder:
        """Draw a decoder of a person with about this gain."""
        level = round(math.log(gain) / LEVEL)
        key = (level, shape, int(rng.integers(self.n_copies)))
        if key not in self.decoders:
            amounts = (self.seed, self.n_pictures, self.repetitions)
            seeds = (*amounts, level % 2**32, *key[1:])
            self.decoders[key] = self.belief.world.draw_decoder(
                np.random.default_rng(seeds),
                math.exp(level * LEVEL),
                SHAPES[shape],
                self.n_pictures,
                self.repetitions,
            )
        return self.decoders[key]


@dataclass(frozen=True)
class Studies:
    """Results of S simulated studies of a design.

    Attributes:
        log_gain: Mean logarithm [S] of the gain of people.
        shape: Number [S] of the shape of the signal.
        is_likely: True [S] if the signal fits the assumptions.
        top1: Top-1 [S] of each study.
        stands: True [S, W] if the claim stands. For a difference of models, with each
            of the W weaker models.
        drop: Loss [S, W] of top-1 by each weaker model, or zeros.
    """

    log_gain: Float64
    shape: Int64
    is_likely: Bool
    top1: Float64
    stands: Bool
    drop: Float64


def simulate_studies(
    design: Design,
    question: Question,
    bank: DecoderBank,
    seed: int,
    n_concepts: int = 0,
) -> Studies:
    """Simulate studies of a design, and evaluate each as the commands do.

    Args:
        design: The design.
        question: The claim.
        bank: Decoders of the design's training data.
        seed: Seed of the simulations.
        n_concepts: Number of concepts of the test pictures. 0 if each picture is a
            concept of its own.
    """
    rng = np.random.default_rng((seed, design.people, design.test_pictures))
    count = N_LIKELY_STUDIES + N_OTHER_STUDIES
    log_gain, spread, shape = bank.belief.draw(rng, count)
    is_likely = np.arange(count) < N_LIKELY_STUDIES
    # Smallest and largest factor of the gain in these further studies.
    weakest, strongest = np.log((0.3, 2.0)).tolist()
    shifts = rng.uniform(weakest, strongest, count)
    log_gain = log_gain + np.where(is_likely, 0, shifts)

    names = list(range(design.test_pictures))
    concept_of = {name: str(name % (n_concepts or len(names))) for name in names}
    grouping = StimulusGrouping(concept_of=concept_of)
    items = grouping.make_items([names] * design.people)
    # Noise that is added to the tokens of a weaker model, in units of their own noise.
    extra_noise = (0.0, 0.3, 0.6, 1.0, 1.6, 2.5, 5.0)
    noise_levels = extra_noise if question.claim == "difference" else extra_noise[:1]
    top1 = np.zeros(count)
    stands = np.zeros((count, len(noise_levels)), bool)
    drop = np.zeros(stands.shape)
    for study in range(count):
        # rank the pictures of each person, by the model and by weaker models
        pictures = bank.belief.world.pictures.draw(rng, design.test_pictures)
        deviations = rng.standard_normal(design.people)
        gains = np.exp(log_gain[study] + spread[study] * deviations)
        ranks: list[list[Int64]] = [[] for _ in noise_levels]
        for gain in gains.tolist():
            decoder = bank.draw(rng, gain, int(shape[study]))
            tokens = decoder.predict(rng, pictures, gain, design.test_repetitions)
            noise = np.zeros_like(tokens)
            if question.claim == "difference":
                noise = decoder.draw_noise(rng, len(pictures), design.test_repetitions)
            for number, level in enumerate(noise_levels):
                ranks[number].append(
                    rank_pictures(
                        tokens + level * noise,
                        pictures - decoder.mean,
                        only_seen=question.claim != "above-chance",
                    )
                )

        # evaluate the study
        accuracies = [_measure_top1(tables) for tables in ranks]
        top1[study] = accuracies[0]
        drop[study] = top1[study] - np.array(accuracies)
        if question.claim != "difference":
            stands[study] = supports(question, ranks[0], items)
            continue
        for number, weaker_ranks in enumerate(ranks):
            stands[study, number] = is_better(ranks[0], weaker_ranks, items, question)
    return Studies(log_gain, shape, is_likely, top1, stands, drop)


def rank_pictures(tokens: Float64, candidates: Float64, only_seen: bool) -> Int64:
    """Rank candidates by their cosine similarity to tokens.

    Args:
        tokens: Decoded tokens [P, D] of the test pictures.
        candidates: Embeddings [P, D] of the test pictures.
        only_seen: True to rank only the seen picture.

    Returns:
        Ranks [P] of the seen picture of each signal, or [P, P] of all candidates.
    """
    if not only_seen:
        gallery = torch.from_numpy(candidates)
        return rank_first_pictures(torch.from_numpy(tokens), gallery, len(gallery))
    similarities = compute_cosines(tokens, candidates)
    ranks: Int64 = (similarities >= similarities.diagonal()[:, None]).sum(1)
    return ranks


def _take_seen(ranks: Int64) -> Int64:
    """Return the ranks [P] of the seen pictures among ranks [P] or [P, P]."""
    return ranks if ranks.ndim == 1 else np.diagonal(ranks)


def _measure_top1(ranks: Sequence[Int64]) -> float:
    """Return the mean top-1 of people."""
    return float(np.mean([_take_seen(table) == 1 for table in ranks]))


def supports(question: Question, ranks: Sequence[Int64], items: Items) -> bool:
    """Return True if the statistics of `eval-retrieval` support a claim.

    Args:
        question: The claim, which is not a difference.
        ranks: Ranks [P] of the seen pictures, or [P, P], of each person.
        items: The test pictures, which are the candidates.
    """
    if question.new_people and len(ranks) < MIN_SUBJECTS_FOR_POPULATION:
        return False
    if question.claim == "above-chance":
        # Number of permutations of a verdict. `eval-retrieval` has five times as many,
        # which changes p by less than the difference of two studies.
        answer = judge(ranks, items, items.names, max_permutations=999)[0]
        if answer.side != "above chance" or not question.new_people:
            return answer.side == "above chance"

    pool = len(items.names)
    (metric,) = summarise_ranks(
        list(map(_take_seen, ranks)),
        pool,
        split="test",
        items=items,
        metric_names=("top1",),
    )
    if not question.new_people:
        metric = metric.limit_to_people()
    low, high = metric.low, metric.high
    if low is None or high is None:
        return False
    if question.claim == "interval":
        return high - low <= question.size
    return low >= question.size if question.claim == "top1" else low > 1 / pool


def is_better(
    first: Sequence[Int64], second: Sequence[Int64], items: Items, question: Question
) -> bool:
    """Return True if `compare` reports that the first model is significantly better.

    Args:
        first: Ranks [P] of the seen pictures of each person by the first model.
        second: Ranks of the same pictures by the second model.
        items: The test pictures.
        question: The claim, which may need people in general.
    """
    if question.new_people and len(first) < MIN_SUBJECTS_FOR_POPULATION:
        return False
    difference = compare_hits(first, second, items=items)
    p = difference.p_value
    return p is not None and p < SIGNIFICANCE_LEVEL and difference.difference > 0
