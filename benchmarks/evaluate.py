"""How fast evaluation is: ranks among many vectors, the verdict, similarity of signals
and models.
"""

from functools import partial

import numpy as np
import torch
from harness import Bench, main
from scipy.spatial.distance import pdist
from scipy.stats import rankdata, spearmanr
from torch.nn.functional import normalize

from brainhive_cli.evaluation.explanation.profiles import TIME, Axis
from brainhive_cli.evaluation.explanation.similarity import (
    measure_similarity,
    rank_models,
)
from brainhive_cli.measurement.ranks import rank_targets
from brainhive_cli.measurement.units import Items
from brainhive_cli.measurement.verdict import MAX_PERMUTATIONS, judge

SIGNALS, DIM, BLOCK = 200, 1024, 4096
"""THINGS' test pictures, BrainHiVE's token, and how many vectors a block has."""


def ranking(on: Bench) -> None:
    """Rank among many vectors next to the bare product, both in float64.

    Both sides have one thread on a CPU. With two, and another program on one of the
    cores, each of our short steps waits for that core, a long product once: ratios of
    one machine went from .05 to .9.
    """
    if on.device.type == "cpu":
        torch.set_num_threads(1)
    vectors = on.pick(2_000, 20_000, 100_000)
    random = torch.Generator(on.device).manual_seed(0)
    signals, gallery = torch.randn(2, vectors, DIM, generator=random, device=on.device)
    signals = signals[:SIGNALS]  # at chance, where near-ties are most
    unit = normalize(signals.double(), dim=1)

    def multiply() -> None:
        for block in gallery.split(BLOCK):
            unit @ block.double().T

    ranked = partial(rank_targets, signals, gallery, torch.arange(SIGNALS))
    what = f"ranking, {vectors:,} vectors: of the bare product"
    on.compare(
        what, ranked, multiply, vectors, "vectors/s", 0.4, rounds=max(9, on.rounds)
    )


def similarity(on: Bench) -> None:
    """Measure representational similarity next to a plain loop over SciPy, time by
    time.
    """
    subjects, pictures, times = on.pick((2, 20, 2), (10, 200, 5), (10, 200, 5))
    random = np.random.default_rng(0)
    signals = random.normal(size=(subjects, pictures, 63, times)).astype(np.float32)
    features = [random.normal(size=(pictures, width)) for width in (1024, 512)]
    models = rank_models({str(number): each for number, each in enumerate(features)})

    def ours() -> None:
        places = (list(signals[..., place]) for place in range(times))
        measure_similarity(
            Axis(TIME, range(times)), places, models, Items.from_sizes([pictures]), 0
        )

    def peer() -> None:
        distances = [pdist(each, "correlation") for each in features]
        for time in range(times):
            measured = [pdist(each[:, :, time], "correlation") for each in signals]
            ranked = np.stack([rankdata(each) for each in measured])
            for subject, each in enumerate(measured):
                rest = np.delete(ranked, subject, 0).mean(0)
                for model in (*distances, ranked.mean(0), rest):
                    spearmanr(each, model)

    what = f"similarity, {subjects} subjects, no permutations: of SciPy"
    on.compare(what, ours, peer, times, "times/s", 2)


def verdict(on: Bench) -> None:
    """Judge ranks of 10 subjects next to a plain loop over the same number of
    permutations.
    """
    subjects, pictures = 10, on.pick(40, 200, 200)
    random, rows = np.random.default_rng(0), np.arange(pictures)
    first = np.tile(np.arange(1, pictures + 1), (pictures, 1))
    ranked = [random.permuted(first, axis=1) for _ in range(subjects)]
    items = Items.independent([list(range(pictures))] * subjects)

    def loop() -> None:
        for _ in range(MAX_PERMUTATIONS):
            order = random.permutation(pictures)
            np.mean([matrix[rows, order].mean() for matrix in ranked])

    what = (
        f"verdict, {subjects} subjects x {pictures} pictures: of a loop over "
        "permutations"
    )
    on.compare(
        what,
        partial(judge, ranked, items, range(pictures)),
        loop,
        MAX_PERMUTATIONS,
        "permutations/s",
        2,
    )


CASES = (ranking, verdict, similarity)

if __name__ == "__main__":
    main(__doc__, CASES, {})
