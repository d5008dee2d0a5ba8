"""Strength of the signals of people, fitted to a pilot or to published results."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import product
from typing import Self

import numpy as np
import torch

from brainhive_cli.core.base import Array, BrainhiveError, Float64, Int64
from brainhive_cli.evaluation.planning.assumptions import PilotPerson, PublishedResult
from brainhive_cli.evaluation.planning.light_world import (
    MAX_MISFIT,
    NOISE_SLOPE,
    SHAPES,
    LightWorld,
    PictureSpace,
    add_features,
    fit_ridge,
)
from brainhive_cli.measurement import normalise_tokens

NO_GAIN = 0.004
"""Gain of a signal that is too weak to be found, in place of 0."""
GAINS = np.concatenate([[NO_GAIN], np.geomspace(0.012, 2, 13)])
"""Gains of simulated pilots. Neighbours differ by a factor of 1.53."""
LOG_GAINS = np.linspace(np.log(NO_GAIN), np.log(2), 60)
"""Logarithms of the gains for which likelihoods are interpolated."""
SPREADS = np.array([0.15, 0.25, 0.35, 0.45, 0.6])
"""Standard deviations of the logarithm of the gain over people."""


def measure_margins(
    first: Array, mean: Array, targets: Array, groups: Int64
) -> Float64:
    """Decode a pilot with parts of its data, and measure how well each part does.

    The margin of a picture is the similarity of the decoded embedding to the right
    candidate, in standard deviations of the similarities to all candidates.

    Args:
        first: Signals [N, F] of the first repetition of each picture.
        mean: Mean signals [N, F] over all repetitions.
        targets: Embeddings [N, D].
        groups: Number [N] of the group of each picture, from 0. A group is held out as
            a whole.

    Returns:
        Mean margin [C] over pictures in cross-validation: with all training pictures, a
        half and a quarter, then with a single repetition in training, and in the test.
        Without repetitions only the first three.
    """
    n_pictures = len(mean)
    is_repeated = not np.array_equal(first, mean)
    position = np.random.default_rng(0).permutation(groups.max() + 1)[groups]
    order = np.argsort(position, kind="stable")
    n_folds = 4 if n_pictures <= 200 else 2
    # Shares of the training pictures with which a pilot is decoded.
    quarters = (1.0, 0.5, 0.25)
    sums = np.zeros(len(quarters) + 2)
    for fold in range(n_folds):
        is_tested = position[order] % n_folds == fold
        tested = order[is_tested]
        trained = order[~is_tested]
        for index, share in enumerate(quarters):
            rows = trained[: max(4, round(share * len(trained)))]
            decoder = fit_ridge(mean[rows], targets[rows])
            sums[index] += _sum_margins(decoder, mean[tested], targets[tested])
            if index == 0 and is_repeated:
                sums[-1] += _sum_margins(decoder, first[tested], targets[tested])
        if is_repeated:
            decoder = fit_ridge(first[trained], targets[trained])
            sums[-2] += _sum_margins(decoder, mean[tested], targets[tested])
    margins = sums / n_pictures
    return margins if is_repeated else margins[: len(quarters)]


def _sum_margins(
    decoder: tuple[Float64, Float64, Float64], signals: Array, targets: Array
) -> float:
    """Sum the margins of test pictures, decoded by a ridge regression."""
    weights, mean, target_mean = decoder
    similarities = compute_cosines((signals - mean) @ weights, targets - target_mean)
    centred = similarities - similarities.mean(1, keepdims=True)
    spread = similarities.std(1).clip(1e-12)
    return float((np.diagonal(centred) / spread).sum())


def compute_cosines(tokens: Array, candidates: Array) -> Float64:
    """Compute the cosine similarities [N, M] of tokens [N, D] and candidates [M, D]."""
    unit_tokens = normalise_tokens(torch.from_numpy(tokens))
    unit_candidates = normalise_tokens(torch.from_numpy(candidates))
    return (unit_tokens @ unit_candidates.T).numpy()


def average_trials(person: PilotPerson) -> tuple[Float64, Float64, Int64, Int64]:
    """Average the trials of each picture.

    Returns:
        First trial [N, F], mean [N, F], row [N] and number of repetitions [N] of each
        picture.
    """
    rows, first_trials, index, counts = np.unique(
        person.picture, return_index=True, return_inverse=True, return_counts=True
    )
    signals = np.asarray(person.signals, np.float64)
    sums = np.zeros((len(rows), signals.shape[1]))
    np.add.at(sums, index.reshape(-1), signals)
    return signals[first_trials], sums / counts[:, None], rows, counts


def measure_noise_slope(people: Sequence[PilotPerson]) -> float:
    """Measure how fast the variance of noise decays over its principal axes.

    Axes are from a half of the repeated pictures, and variances from the other half.

    Returns:
        Mean exponent over people, or `NOISE_SLOPE` with few repeated pictures.
    """
    slopes = []
    for person in people:
        first, mean, _, counts = average_trials(person)
        repeated = counts > 1
        scale = np.sqrt(counts[repeated] / (counts[repeated] - 1))
        noise = (first - mean)[repeated] * scale[:, None]
        # Smallest number of repeated pictures that measure the noise of a pilot.
        if len(noise) < 40:
            continue
        _, _, axes = np.linalg.svd(noise[::2], full_matrices=False)
        # Number of principal axes of the noise whose variances are measured.
        variances = ((noise[1::2] @ axes.T) ** 2).mean(0)[:60]
        ranks = np.log(np.arange(1, len(variances) + 1))
        slopes.append(-float(np.polyfit(ranks, np.log(variances.clip(1e-12)), 1)[0]))
    return float(np.clip(np.mean(slopes), 0.2, 3)) if slopes else NOISE_SLOPE


def simulate_margins(
    world: LightWorld,
    gain: float,
    shape: tuple[float, float],
    seed: int,
    pictures: Float64,
    repetitions: Int64,
    groups: Int64,
) -> Float64:
    """Simulate a pilot of a person, and measure its margins.

    Args:
        world: Light model of decoding.
        gain: Gain of the person.
        shape: Shape of the signal, one of `SHAPES`.
        seed: Seed of the simulation.
        pictures: Embeddings [N, D] of the pictures of the pilot.
        repetitions: Number of repetitions [N] of each picture.
        groups: Number [N] of the group of each picture.
    """
    rng = np.random.default_rng(seed)
    noise = world.make_noise(shape)
    maps = world.draw_maps(rng, shape)
    signals = gain * add_features(rng, pictures, rng.uniform(0, MAX_MISFIT)) @ maps
    first, other = noise * rng.standard_normal((2, *signals.shape))
    counts = repetitions[:, None]
    mean_noise = (first + other * np.sqrt(counts - 1)) / counts
    return measure_margins(signals + first, signals + mean_noise, pictures, groups)


def tabulate_margins(
    world: LightWorld,
    pictures: Float64,
    repetitions: Int64,
    groups: Int64,
    n_pilots: int | None = None,
) -> Float64:
    """Simulate pilots of every gain and shape.

    Args:
        world: Light model of decoding.
        pictures: Embeddings [N, D] of the pictures of the pilot.
        repetitions: Number of repetitions [N] of each picture.
        groups: Number [N] of the group of each picture.
        n_pilots: Number of pilots of each gain and shape. The default depends on N.

    Returns:
        Margins [G, H, n_pilots, C].
    """
    if n_pilots is None:
        # Number of pictures of all these pilots. Margins of long pilots vary less.
        n_pilot_pictures = 2400
        # Largest number of simulated pilots of each gain and shape.
        n_pilots = min(12, max(3, n_pilot_pictures // len(repetitions)))
    # pilots of equal seeds differ only by their gain
    cells = product(GAINS.tolist(), SHAPES, range(n_pilots))
    with ThreadPoolExecutor(2) as pool:
        margins = pool.map(
            lambda cell: simulate_margins(
                world, cell[0], cell[1], cell[2], pictures, repetitions, groups
            ),
            cells,
        )
        return np.reshape(list(margins), (len(GAINS), len(SHAPES), n_pilots, -1))


def smooth_gains(values: Float64) -> Float64:
    """Average values [G, ...] of neighbouring gains. The first stays."""
    padded = np.concatenate([values, values[-1:]])
    smoothed = 0.25 * padded[:-2] + 0.5 * padded[1:-1] + 0.25 * padded[2:]
    return np.concatenate([values[:1], smoothed])


def compute_likelihoods(table: Float64, margins: Float64) -> Float64:
    """Compute the log-likelihood of a pilot for every gain and shape.

    Args:
        table: Margins [G, H, n_pilots, C] of simulated pilots.
        margins: Margins [C] of the pilot.

    Returns:
        Logarithms [K, H] of the likelihood at `LOG_GAINS`.
    """
    from scipy.interpolate import make_interp_spline

    # without a signal, the expected margin is 0
    means = (table - table[:1]).mean(2)
    residuals = table - table.mean(2, keepdims=True)
    n_pilots = table.shape[2]
    products = np.einsum("ghrc,ghrd->gcd", residuals, residuals)
    covariances = smooth_gains(products / (len(SHAPES) * (n_pilots - 1)))

    # interpolate along the logarithm of the gain
    expected = make_interp_spline(np.log(GAINS), means, k=1)(LOG_GAINS)
    covariances = make_interp_spline(np.log(GAINS), covariances, k=1)(LOG_GAINS)
    # Variance that is added to margins, because the light model is not exact.
    covariances += 1e-4 * np.eye(len(margins))
    errors = margins - expected  # [K, H, C]
    weighted = np.linalg.solve(covariances, errors.transpose(0, 2, 1))  # [K, C, H]
    distances = (errors.transpose(0, 2, 1) * weighted).sum(1)
    _, log_volumes = np.linalg.slogdet(covariances)
    return np.asarray(-0.5 * (distances + log_volumes[:, None]))


@dataclass(frozen=True)
class Belief:
    """Probabilities of the strength of signals.

    Attributes:
        world: Light model of decoding.
        weights: Probability [K, spreads, H] of the mean logarithm of the gain (from
            `LOG_GAINS`), its spread over people (from `SPREADS`), and the shape.
        n_trials: Number of trials of a person in the recording behind it.
        evidence: Log-likelihood of the pilot in the shape of `weights`, or None.
    """

    world: LightWorld
    weights: Float64
    n_trials: int
    evidence: Float64 | None = None

    @classmethod
    def from_likelihoods(
        cls, world: LightWorld, likelihoods: Sequence[Float64], n_trials: int
    ) -> Self:
        """Combine the likelihoods of several people, whose gains differ."""
        # probability of each gain for a mean and a spread
        distances = LOG_GAINS[:, None] - LOG_GAINS
        kernels = np.exp(-0.5 * (distances[:, None] / SPREADS[:, None]) ** 2)
        kernels /= kernels.sum(2, keepdims=True)  # [means, spreads, gains]
        evidence = np.zeros((len(LOG_GAINS), len(SPREADS), len(SHAPES)))
        for likelihood in likelihoods:
            scaled = np.exp(likelihood - likelihood.max())
            evidence += np.log(kernels @ scaled + 1e-300)
        return cls.from_evidence(world, evidence, n_trials)

    @classmethod
    def from_evidence(cls, world: LightWorld, evidence: Float64, n_trials: int) -> Self:
        """Combine the log-likelihood of a pilot with the prior of the spread."""
        # Probability of each spread before a pilot: from .2 to .45 in published results
        # of single people.
        spread_weights = np.array([0.15, 0.25, 0.25, 0.2, 0.15])
        log_weights = evidence + np.log(spread_weights)[:, None]
        weights = np.exp(log_weights - log_weights.max())
        return cls(world, weights / weights.sum(), n_trials, evidence)

    @classmethod
    def from_pilot(cls, people: Sequence[PilotPerson]) -> Self:
        """Fit the strength of signals to the trials of a pilot.

        Raises:
            BrainhiveError: if a person has too few pictures.
        """
        pictures = PictureSpace.from_embeddings(people[0].targets)
        world = LightWorld(pictures, measure_noise_slope(people))
        tables: dict[tuple[float, ...], Float64] = {}
        likelihoods = []
        # Smallest number of pictures of a person in a pilot, or of concepts if the
        # planned test shows new concepts.
        min_pilot_groups = 16
        for person in people:
            first, mean, rows, counts = average_trials(person)
            names, groups = np.unique(person.group[rows], return_inverse=True)
            if len(names) < min_pilot_groups:
                kind = "pictures" if len(names) == len(rows) else "concepts"
                raise BrainhiveError(
                    f"a person of the pilot saw {len(names)} {kind}, but a plan needs "
                    f"{min_pilot_groups}",
                    "name a longer pilot, or a device",
                )
            targets = np.asarray(person.targets[rows], np.float64)
            margins = measure_margins(first, mean, targets, groups)
            # people with about equal amounts of recording share simulations
            amounts = [len(counts), counts.sum(), len(names)]
            key = (len(margins), *np.rint(np.log2(amounts) * 4))
            if key not in tables:
                shown = pictures.embeddings[rows]
                tables[key] = tabulate_margins(world, shown, counts, groups)
            likelihoods.append(compute_likelihoods(tables[key], margins))
        n_trials = round(float(np.median([len(person.picture) for person in people])))
        return cls.from_likelihoods(world, likelihoods, n_trials)

    @classmethod
    def from_published(cls, result: PublishedResult, seed: int) -> Self:
        """Find the strengths of signals that give a published top-1.

        The pictures and people of the result are a sample. Laboratories are assumed to
        differ by 0.25, and all shapes are equally likely.
        """
        n_tested = result.people * result.test_pictures
        world = LightWorld()
        weights = np.zeros((len(LOG_GAINS), len(SPREADS), len(SHAPES)))
        # Assumed standard deviation of the logarithm of the gain over laboratories.
        lab_spread = 0.25
        for number, shape in enumerate(SHAPES):
            top1 = [simulate_top1(world, gain, shape, result, seed) for gain in GAINS]
            ascending = np.maximum.accumulate(top1) + 1e-9 * np.arange(len(GAINS))
            ends = (result.low, result.high)
            low, high = np.interp(ends, ascending, np.log(GAINS))
            # Quantile of the normal distribution that 95 % of values do not exceed.
            column = np.abs(SPREADS - (high - low) / (2 * 1.645)).argmin()

            # the hits of the result are binomial
            share = np.interp(LOG_GAINS, np.log(GAINS), ascending).clip(1e-3, 1 - 1e-3)
            hits = result.top1 * np.log(share) + (1 - result.top1) * np.log(1 - share)
            likelihood = np.exp(n_tested * (hits - hits.max()))

            # its people differ from other people, and its laboratory from others
            error = np.hypot(lab_spread, SPREADS[column] / result.people**0.5)
            distances = (LOG_GAINS[:, None] - LOG_GAINS) / error
            shifted = np.exp(-0.5 * distances**2) @ likelihood
            weights[:, column, number] = shifted / shifted.sum()
        n_trials = result.train_pictures * result.train_repetitions
        n_trials += result.test_pictures * result.test_repetitions
        return cls(world, weights / weights.sum(), n_trials)

    def show(self, pictures: PictureSpace) -> Self:
        """Return the belief about signals of other pictures."""
        return replace(self, world=replace(self.world, pictures=pictures))

    def lengthen(self, factor: int) -> Self:
        """Return the belief after a pilot with `factor` times as many people."""
        assert self.evidence is not None
        return self.from_evidence(self.world, factor * self.evidence, self.n_trials)

    def draw(
        self, rng: np.random.Generator, count: int
    ) -> tuple[Float64, Float64, Int64]:
        """Draw signals that fit the belief.

        Returns:
            Mean logarithm of the gain, its spread over people, and the number of the
            shape, [count] each.
        """
        flat = rng.choice(self.weights.size, count, p=self.weights.ravel())
        mean, spread, shape = np.unravel_index(flat, self.weights.shape)
        step = LOG_GAINS[1] - LOG_GAINS[0]
        log_gain = LOG_GAINS[mean] + step * rng.uniform(-0.5, 0.5, count)
        return log_gain, SPREADS[spread], shape


def simulate_top1(
    world: LightWorld,
    gain: float,
    shape: tuple[float, float],
    result: PublishedResult,
    seed: int,
) -> float:
    """Simulate the mean top-1 of people in the design of a published result."""
    hits = []
    # Number of simulated people in the design of a published result, and smallest
    # number of pictures on which each is tested.
    n_published_people = 3
    n_published_tests = 600
    for person in range(n_published_people):
        rng = np.random.default_rng((seed, person))
        decoder = world.draw_decoder(
            rng, gain, shape, result.train_pictures, result.train_repetitions
        )
        for _ in range(-(-n_published_tests // result.test_pictures)):
            pictures = world.pictures.draw(rng, result.test_pictures)
            tokens = decoder.predict(rng, pictures, gain, result.test_repetitions)
            similarities = compute_cosines(tokens, pictures - decoder.mean)
            hits.append(similarities.argmax(1) == np.arange(len(pictures)))
    return float(np.mean(hits))
