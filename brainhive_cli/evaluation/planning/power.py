"""Power of designs, from simulated studies whose signals fit the assumptions."""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from brainhive_cli.core.base import Array, Float64, Int64
from brainhive_cli.evaluation.planning.assumptions import PilotPerson, PublishedResult
from brainhive_cli.evaluation.planning.belief import Belief
from brainhive_cli.evaluation.planning.designs import (
    MAX_USEFUL_RANGE,
    MIN_POWER,
    Design,
    Prediction,
    Question,
    Range,
)
from brainhive_cli.evaluation.planning.light_world import SHAPES, PictureSpace
from brainhive_cli.evaluation.planning.studies import (
    DecoderBank,
    Studies,
    simulate_studies,
)


@dataclass(frozen=True)
class LogisticCurve:
    """Logistic regression of a share on the logarithm of the gain, and on the shape.

    Attributes:
        coefficients: Coefficients [3 + H].
        centre: Logarithm of the gain at the centre.
    """

    coefficients: Float64
    centre: float

    @classmethod
    def fit(cls, log_gain: Float64, shape: Int64, shares: Array) -> "LogisticCurve":
        """Fit the curve by penalised maximum likelihood, with Newton's method.

        Args:
            log_gain: Logarithms [S] of gains.
            shape: Number [S] of the shape of each signal.
            shares: Values [S] from 0 to 1.
        """
        centre = float(log_gain.mean())
        basis = _make_basis(log_gain - centre, shape)
        # Penalties of the coefficients of `LogisticCurve`, which make them finite.
        curve_penalties = (1e-3, 0.02, 0.3) + (0.5,) * len(SHAPES)
        penalty = np.diag(curve_penalties)
        coefficients = np.zeros(basis.shape[1])
        for _ in range(50):
            expected = _squash(basis @ coefficients)
            weights = np.maximum(expected * (1 - expected), 1e-6)
            gradient = basis.T @ (shares - expected) - penalty @ coefficients
            step = np.linalg.solve((basis.T * weights) @ basis + penalty, gradient)
            coefficients = coefficients + np.clip(step, -2, 2)
        return cls(coefficients, centre)

    def __call__(self, log_gain: Float64, shape: Int64) -> Float64:
        """Predict the shares [N] of signals."""
        return _squash(_make_basis(log_gain - self.centre, shape) @ self.coefficients)


def _squash(values: Float64) -> Float64:
    """Map values to shares from 0 to 1."""
    return np.asarray(1 / (1 + np.exp(-np.clip(values, -30, 30))))


def _make_basis(log_gain: Float64, shape: Int64) -> Float64:
    """Make the regressors [N, 3 + H]: constant, linear, square, and each shape."""
    powers = np.stack([np.ones_like(log_gain), log_gain, log_gain**2], 1)
    return np.concatenate([powers, np.eye(len(SHAPES))[shape]], 1)


class PowerCurve:
    """Power and top-1 of a design, by the strength of the signal.

    Args:
        studies: Simulated studies of the design.
        question: The claim.
    """

    def __init__(self, studies: Studies, question: Question) -> None:
        self.question = question
        self.gains = studies.log_gain
        # no finite number of studies shows a power of 0 or 1
        self.least_power = 1 / (len(self.gains) + 2)
        signals = (studies.log_gain, studies.shape)
        self.top1 = LogisticCurve.fit(*signals, studies.top1)
        self.stands = []
        self.drops = []
        for stands, drop in zip(studies.stands.T, studies.drop.T, strict=True):
            self.stands.append(LogisticCurve.fit(*signals, stands))
            self.drops.append(LogisticCurve.fit(*signals, drop.clip(0, 1)))

    def compute(self, log_gain: Float64, shape: Int64) -> Float64:
        """Compute the power [N] for signals."""
        powers = np.stack([curve(log_gain, shape) for curve in self.stands], 1)
        powers = powers.clip(self.least_power, 1 - self.least_power)
        if self.question.claim != "difference":
            return powers[:, 0]

        # interpolate to the weaker model that loses as much as the question says
        drops = np.stack([curve(log_gain, shape) for curve in self.drops], 1)
        drops[:, 0] = 0
        drops = np.maximum.accumulate(drops, 1)
        values = np.empty(len(powers))
        for row, (drop, power) in enumerate(zip(drops, powers, strict=True)):
            values[row] = np.interp(self.question.size, drop, power)
        return values

    def find_smallest(self, log_gain: Float64, shape: Int64) -> float | None:
        """Find the smallest effect for which the power suffices.

        Returns:
            Difference of top-1 between models, or top-1 of the weakest signal. None if
            there is none, or if the claim is about the width of an interval.
        """
        if self.question.claim == "interval":
            return None
        if self.question.claim == "difference":
            powers = np.array([curve(log_gain, shape).mean() for curve in self.stands])
            drops = np.array([curve(log_gain, shape).mean() for curve in self.drops])
            effects = drops
        else:
            # weaken or strengthen all signals
            in_range = (self.gains.min(), self.gains.max())
            # Changes of the logarithm of the gain, to find the weakest
            # signal that suffices.
            shifts = np.linspace(-2.5, 2.5, 101)
            gains = [np.clip(log_gain + shift, *in_range) for shift in shifts]
            powers = np.array([self.compute(gain, shape).mean() for gain in gains])
            effects = np.array([self.top1(gain, shape).mean() for gain in gains])
        is_enough = powers >= MIN_POWER
        return float(effects[is_enough.argmax()]) if is_enough.any() else None


def predict_designs(
    designs: Sequence[Design],
    question: Question,
    assumptions: Sequence[PilotPerson] | PublishedResult,
    embeddings: Array | None = None,
    seed: int = 0,
    test_concepts: Sequence[int] = (),
    report_progress: Callable[[int], None] = lambda count: None,
) -> list[Prediction]:
    """Predict the results of designs by simulated studies.

    A light model of decoding is fitted to the assumptions. For each design, studies
    with different strengths of the signal are simulated and evaluated with the
    statistics that will be reported. A logistic curve then gives the power for each
    strength.

    Args:
        designs: The designs.
        question: Claim that the study shall support.
        assumptions: Trials of each person of a pilot, or a published result.
        embeddings: Embeddings [N, D] of the pictures that can be shown. The default is
            the pilot's, or random ones.
        seed: Seed of the simulations.
        test_concepts: Number of concepts of the test pictures of each design. Empty if
            each picture is a concept of its own.
        report_progress: Function that is called with the number of finished designs.

    Returns:
        The prediction of each design.

    Raises:
        BrainhiveError: if the pilot has too few pictures.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1), ThreadPoolExecutor(2) as pool:
        if isinstance(assumptions, PublishedResult):
            belief = Belief.from_published(assumptions, seed)
        else:
            belief = Belief.from_pilot(assumptions)
        if embeddings is not None:
            belief = belief.show(PictureSpace.from_embeddings(embeddings))

        # designs with equal amounts of training data share decoders
        banks: dict[tuple[int, int], DecoderBank] = {}
        jobs = []
        counts = test_concepts or [0] * len(designs)
        for design, n_concepts in zip(designs, counts, strict=True):
            amount = (design.train_pictures, design.train_repetitions)
            if amount not in banks:
                banks[amount] = DecoderBank(belief, *amount, seed=seed)
            bank = banks[amount]
            jobs.append((design, question, bank, seed, n_concepts))

        predictions = []
        for prediction in pool.map(lambda job: predict_design(*job), jobs):
            predictions.append(prediction)
            report_progress(len(predictions))
        return predictions


def predict_design(
    design: Design,
    question: Question,
    bank: DecoderBank,
    seed: int = 0,
    n_concepts: int = 0,
) -> Prediction:
    """Predict the results of a design, with decoders of its training data."""
    belief = bank.belief
    studies = simulate_studies(design, question, bank, seed, n_concepts)
    curve = PowerCurve(studies, question)
    log_gain, shape = _draw_signals(belief, seed)
    power = summarise(curve.compute(log_gain, shape))

    # range of the power after longer pilots
    halving = deciding = None
    if belief.evidence is not None:
        # Lengths of longer pilots, as multiples of the pilot.
        for factor in (2, 4, 8, 16, 32, 64):
            longer_pilot = belief.lengthen(factor)
            width = summarise(curve.compute(*_draw_signals(longer_pilot, seed))).width
            if halving is None and width <= power.width / 2:
                halving = factor
            if deciding is None and width <= MAX_USEFUL_RANGE:
                deciding = factor
    chance = 1 / design.test_pictures
    smallest = curve.find_smallest(log_gain, shape)
    if smallest is not None and question.claim != "difference":
        smallest = max(smallest, chance)
    return Prediction(
        design=design,
        power=power,
        half_power=summarise(curve.compute(log_gain - math.log(2), shape)),
        top1=summarise(studies.top1[studies.is_likely]),
        chance=chance,
        smallest=smallest,
        n_studies=len(studies.top1),
        is_extrapolated=math.log(design.trials) > 2 * math.log(belief.n_trials),
        halving_factor=halving,
        deciding_factor=deciding,
    )


def _draw_signals(belief: Belief, seed: int) -> tuple[Float64, Int64]:
    """Draw logarithms of gains, with the error of the model, and shapes."""
    rng = np.random.default_rng(seed)
    # Number of signals that fit the assumptions, over which the power is averaged.
    n_signals = 4000
    log_gain, _, shape = belief.draw(rng, n_signals)
    # Standard deviation of the error of the light model, as a logarithm of
    # the gain (`benchmarks/design_power.py`).
    return log_gain + 0.1 * rng.standard_normal(n_signals), shape


def summarise(values: Float64) -> Range:
    """Return the mean of values, and their 95 % range, which contains the mean."""
    mean = float(values.mean())
    # Quantiles of the ends of a range.
    low, high = np.quantile(values, (0.025, 0.975)).tolist()
    return Range(mean, min(low, mean), max(high, mean))
