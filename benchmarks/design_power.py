"""Error of planned power, against simulated recordings that are decoded and evaluated.

The recordings are EEG by the demo's forward model, with noise of sensors and slow
drifts, and people who differ. The plan knows nothing of this model. Three tables:

- Pooled pilots: error of the predicted power, if the signal is known well.
- Single pilots of 280 trials: how often ranges hold the true power, and the top-1 of a
  study.
- Noise as a pilot: how often the plan promises a power of .8.

With the defaults it takes about 25 minutes on two cores.
"""

import argparse
import time
from collections.abc import Sequence
from itertools import product
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from brainhive_cli.core.base.arrays import Float64, Int64
from brainhive_cli.demo.simulation import (
    CHANNELS,
    EARLY,
    JITTER_SAMPLES,
    LATE,
    ForwardModel,
)
from brainhive_cli.evaluation.planning.assumptions import PilotPerson, PublishedResult
from brainhive_cli.evaluation.planning.belief import (
    Belief,
    compute_likelihoods,
    measure_margins,
    measure_noise_slope,
    tabulate_margins,
)
from brainhive_cli.evaluation.planning.designs import Design, Question
from brainhive_cli.evaluation.planning.light_world import (
    LightWorld,
    PictureSpace,
)
from brainhive_cli.evaluation.planning.power import predict_design, predict_designs
from brainhive_cli.evaluation.planning.studies import (
    DecoderBank,
    rank_pictures,
    supports,
)
from brainhive_cli.measurement.linear_maps import Products
from brainhive_cli.measurement.units import Items

PICTURES = PictureSpace.from_embeddings(None)
LOOKS = np.random.default_rng(2).normal(size=(4000, 32)) / 32**0.5
"""Low-level features of the pictures, which their embeddings do not have."""
LOOKS_GAIN = 0.7
PERSON_SPREAD = 0.3
"""Standard deviation of the logarithm of the gain over people."""
TRIAL_SPREAD = 0.2
"""Standard deviation of the strength of a response over trials."""
SENSOR_UV = 1.5
DRIFT_UV = 3.0
"""Standard deviations of white noise, and of an offset of the whole trial."""
SAMPLES_PER_STEP = 5
"""Number of samples that are averaged, which leaves 50 time points."""


def make_design(
    people: int, train: int, repetitions: int, test: int, test_repetitions: int
) -> Design:
    """Make a design of a session, whose duration does not matter here."""
    return Design(people, 1, 60, 1, train, repetitions, test, test_repetitions)


CASES = (
    (make_design(1, 100, 8, 20, 4), 0.35),
    (make_design(1, 400, 2, 100, 4), 0.2),
    (make_design(4, 100, 2, 100, 4), 0.2),
    (make_design(10, 200, 8, 20, 4), 0.15),
    (make_design(5, 200, 4, 50, 8), 0.15),
    (make_design(2, 800, 2, 200, 2), 0.15),
)
"""Designs and strengths of a trial's response. Their power is neither 0 nor 1."""
REPETITIONS = np.array([2] * 100 + [4] * 20)
"""Repetitions of the pictures of a pilot."""


class Person:
    """Simulated person.

    Args:
        rng: Random generator.
        strength: Mean strength of responses.
    """

    def __init__(self, rng: np.random.Generator, strength: float) -> None:
        self.rng = rng
        self.model = ForwardModel(int(rng.integers(2**31)))
        self.gain = strength * np.exp(PERSON_SPREAD * rng.normal())

    def record(self, rows: Int64, repetitions: Int64 | int) -> Float64:
        """Record the mean signals [N, F] of pictures, with averaged noise."""
        counts = np.broadcast_to(repetitions, len(rows))[:, None, None]
        responses = self.model.simulate_response(LATE, PICTURES.embeddings[rows])
        looks = LOOKS_GAIN * LOOKS[rows]
        responses = responses + self.model.simulate_response(EARLY, looks)
        responses = responses[..., JITTER_SAMPLES:-JITTER_SAMPLES]
        rngs = [[np.random.default_rng(self.rng.integers(2**62))] for _ in rows]
        noise = self.model.simulate_noise(rngs)[:, 0]
        noise = noise + SENSOR_UV * self.rng.normal(size=noise.shape)
        offset = self.rng.normal(size=(len(rows), len(CHANNELS))) @ self.model.mixing.T
        noise += DRIFT_UV * offset[..., None]
        strength = 1 + TRIAL_SPREAD * self.rng.normal(size=counts.shape) / counts**0.5
        signals = self.gain * strength * responses + noise / counts**0.5
        shape = (len(rows), len(CHANNELS), -1, SAMPLES_PER_STEP)
        return signals.reshape(shape).mean(-1).reshape(len(rows), -1)


def run_study(case: int, seed: int) -> tuple[bool, float]:
    """Record, decode and evaluate a study.

    Returns:
        True if it is above chance, and its top-1.
    """
    design, strength = CASES[case]
    rng = np.random.default_rng((5, case, seed))
    n_pictures = design.train_pictures + design.test_pictures
    rows = rng.choice(len(LOOKS), n_pictures, replace=False)
    train, test = np.split(rows, [design.train_pictures])
    embeddings = PICTURES.embeddings
    tables = []
    for _ in range(design.people):
        person = Person(rng, strength)
        signals = person.record(train, design.train_repetitions)
        mean = signals.mean(0)
        products = Products.from_samples(
            torch.from_numpy(signals - mean), [torch.from_numpy(embeddings[train])]
        )
        tested = person.record(test, design.test_repetitions) - mean
        tokens = products.predict(torch.from_numpy(tested)) - products.mean
        candidates = embeddings[test] - products.mean.numpy()
        tables.append(rank_pictures(tokens.numpy(), candidates, only_seen=False))
    names = [list(range(design.test_pictures))] * design.people
    items = Items.independent(names, "pictures")
    hits = [(table.diagonal() == 1).mean() for table in tables]
    return supports(Question(), tables, items), float(np.mean(hits))


class Pilot(NamedTuple):
    """Margins [C] of a pilot, and the slope of its noise."""

    margins: Float64
    slope: float


def run_pilot(strength: float, seed: int) -> Pilot:
    """Record a person who sees 120 pictures, and measure the margins."""
    rng = np.random.default_rng((6, round(1000 * strength), seed))
    rows = rng.choice(len(LOOKS), len(REPETITIONS), replace=False)
    person = Person(rng, strength)
    first = person.record(rows, 1)
    other = person.record(rows, np.maximum(REPETITIONS - 1, 1))
    counts = REPETITIONS[:, None]
    mean = (first + (counts - 1) * other) / counts
    targets = PICTURES.embeddings[rows]

    # a trial and the mean of the others have the noise of the first repetition
    trials = np.concatenate([first, other])
    picture = np.tile(np.arange(len(rows)), 2)
    twice = PilotPerson(
        trials.astype("f4"), picture, targets.astype("f4"), np.arange(len(rows))
    )
    margins = measure_margins(first, mean, targets, twice.group)
    return Pilot(margins, measure_noise_slope([twice]))


def predict_pilots(
    world: LightWorld, table: Float64, groups: Sequence[Sequence[Pilot]], case: int
) -> list[tuple[float, ...]]:
    """Predict a case from each group of pilots.

    Returns:
        Power and the ends of its range, and top-1 and the ends of its range, by group.
    """
    design, _ = CASES[case]
    predictions = []
    for pilots in groups:
        likelihoods = [compute_likelihoods(table, pilot.margins) for pilot in pilots]
        belief = Belief.from_likelihoods(world, likelihoods, int(REPETITIONS.sum()))
        amount = (design.train_pictures, design.train_repetitions)
        bank = DecoderBank(belief, *amount, seed=0)
        prediction = predict_design(design, Question(), bank)
        power, top1 = prediction.power, prediction.top1
        predictions.append(
            (power.value, power.low, power.high, top1.value, top1.low, top1.high)
        )
    return predictions


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--pooled", type=int, default=400)
    parser.add_argument("--pilots", type=int, default=30)
    parser.add_argument("--noise-pilots", type=int, default=50)
    options = parser.parse_args()

    with get_context("spawn").Pool(2, threadpool_limits, (1,)) as pool:
        strengths = sorted({strength for _, strength in CASES})
        n_pilots = max(options.pooled, options.pilots)
        jobs = list(product(strengths, range(n_pilots)))
        jobs += [(0.0, seed) for seed in range(options.noise_pilots)]
        results = pool.starmap(run_pilot, jobs, chunksize=5)
        pilots: dict[float, list[Pilot]] = {}
        for (strength, _), pilot in zip(jobs, results, strict=True):
            pilots.setdefault(strength, []).append(pilot)
        slope = float(np.mean([pilot.slope for pilot in results]))
        world = LightWorld(PICTURES, slope)
        shown = PICTURES.draw(np.random.default_rng(0), len(REPETITIONS))
        groups = np.arange(len(REPETITIONS))
        table = tabulate_margins(world, shown, REPETITIONS, groups, n_pilots=24)
        print(f"slope of the noise {slope:.2f}")
        for strength in strengths:
            margins = np.mean([pilot.margins for pilot in pilots[strength]], 0)
            print(f"strength {strength}: margins {margins.round(3)}", flush=True)

        # from pooled pilots, single pilots, and noise
        for case, (design, strength) in enumerate(CASES):
            seeds = [(case, seed) for seed in range(options.studies)]
            studies = np.array(pool.starmap(run_study, seeds, chunksize=5), float)
            power, top1 = studies.mean(0)
            error = (power * (1 - power) / len(studies)) ** 0.5
            groups = [pilots[strength][: options.pooled]]
            groups += [[pilot] for pilot in pilots[strength][: options.pilots]]
            groups += [[pilot] for pilot in pilots[0.0]]
            half = len(groups) // 2
            jobs_of_case = [
                (world, table, part, case) for part in (groups[:half], groups[half:])
            ]
            start_s = time.monotonic()
            parts = pool.starmap(predict_pilots, jobs_of_case)
            predictions = np.array(parts[0] + parts[1])
            pooled, single, noise = np.split(predictions, [1, 1 + options.pilots])
            power_held = (single[:, 1] <= power + 2 * error) & (
                single[:, 2] >= power - 2 * error
            )
            is_above_low = studies[:, 1] >= single[:, 4:5]
            top1_held = is_above_low & (studies[:, 1] <= single[:, 5:6])
            width = np.ptp(single[:, 1:3], 1).mean()
            promised = (noise[:, :2] >= 0.8).mean(0)
            seconds = time.monotonic() - start_s
            print(
                f"{design.people:>2} people {design.train_pictures:>3} x "
                f"{design.train_repetitions}, test {design.test_pictures:>3} x "
                f"{design.test_repetitions}, strength {strength}: true power "
                f"{power:.2f} ± {error:.2f}, top-1 {top1:.3f} | pooled "
                f"{pooled[0, 0]:.2f} (error {pooled[0, 0] - power:+.2f}), top-1 "
                f"{pooled[0, 3]:.3f} | single pilots: range holds power "
                f"{power_held.mean():.2f} (width {width:.2f}), top-1 "
                f"{top1_held.mean():.2f} | noise: .8 promised by the mean "
                f"{promised[0]:.2f}, by the range {promised[1]:.2f} | {seconds:.0f} s",
                flush=True,
            )

    designs = [
        make_design(people, train, repetitions, test, 4)
        for people, train, repetitions, test in product(
            (1, 2, 5), (200, 800), (2, 4), (20, 50, 100)
        )
    ][:30]
    start_s = time.monotonic()
    predict_designs(
        designs, Question(), PublishedResult(0.15, 0.1, 0.2, 1600, 4, 200, 80, 10)
    )
    print(f"30 designs: {time.monotonic() - start_s:.0f} s")


if __name__ == "__main__":
    main()
