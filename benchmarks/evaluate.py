"""Speed of evaluation: ranks among many vectors, the verdict, and similarity."""

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

N_SIGNALS = 200
"""Number of test pictures of THINGS."""
DIM = 1024
"""Width of BrainHiVE's token."""
VECTORS_PER_BLOCK = 4096


def ranking(bench: Bench) -> None:
    """Rank among many vectors next to the bare product, both in float64.

    Both sides have a single thread on a CPU. With two threads, and another program on a
    core, each of our short steps waits for that core, but a long product waits once.
    Ratios of the same machine then went from .05 to .9.
    """
    device = bench.device
    if device.type == "cpu":
        torch.set_num_threads(1)
    vectors = bench.pick(2_000, 20_000, 100_000)
    random = torch.Generator(device).manual_seed(0)
    signals, gallery = torch.randn(2, vectors, DIM, generator=random, device=device)
    signals = signals[:N_SIGNALS]  # near-ties are most frequent at chance
    unit_signals = normalize(signals.double(), dim=1)

    def multiply() -> None:
        for block in gallery.split(VECTORS_PER_BLOCK):
            unit_signals @ block.double().T

    bench.compare(
        f"ranking, {vectors:,} vectors: of the bare product",
        partial(rank_targets, signals, gallery, torch.arange(N_SIGNALS)),
        multiply,
        vectors,
        "vectors/s",
        0.4,
        rounds=max(9, bench.rounds),
    )


def similarity(bench: Bench) -> None:
    """Measure representational similarity next to a loop over times with SciPy."""
    full_size = (10, 200, 5)
    subjects, pictures, times = bench.pick((2, 20, 2), full_size, full_size)
    random = np.random.default_rng(0)
    signals = random.normal(size=(subjects, pictures, 63, times)).astype(np.float32)
    features = [random.normal(size=(pictures, width)) for width in (1024, 512)]
    models = rank_models({"0": features[0], "1": features[1]})

    def ours() -> None:
        positions = (list(signals[..., time]) for time in range(times))
        items = Items.from_sizes([pictures])
        measure_similarity(Axis(TIME, range(times)), positions, models, items, 0)

    def peer() -> None:
        distances = [pdist(values, "correlation") for values in features]
        for time in range(times):
            subject_distances = []
            for values in signals:
                subject_distances.append(pdist(values[:, :, time], "correlation"))
            ranks = np.stack([rankdata(values) for values in subject_distances])
            for subject, values in enumerate(subject_distances):
                other_subjects = np.delete(ranks, subject, 0).mean(0)
                for model in distances + [ranks.mean(0), other_subjects]:
                    spearmanr(values, model)

    label = f"similarity, {subjects} subjects, no permutations: of SciPy"
    bench.compare(label, ours, peer, times, "times/s", 2)


def verdict(bench: Bench) -> None:
    """Judge ranks of 10 subjects next to a loop over as many permutations."""
    subjects = 10
    pictures = bench.pick(40, 200, 200)
    random = np.random.default_rng(0)
    rows = np.arange(pictures)
    ordered = np.tile(np.arange(1, pictures + 1), (pictures, 1))
    ranks = [random.permuted(ordered, axis=1) for _ in range(subjects)]
    items = Items.independent([list(range(pictures))] * subjects)

    def loop() -> None:
        for _ in range(MAX_PERMUTATIONS):
            order = random.permutation(pictures)
            np.mean([matrix[rows, order].mean() for matrix in ranks])

    bench.compare(
        f"verdict, {subjects} subjects x {pictures} pictures: of a loop over "
        "permutations",
        partial(judge, ranks, items, range(pictures)),
        loop,
        MAX_PERMUTATIONS,
        "permutations/s",
        2,
    )


CASES = (ranking, verdict, similarity)

if __name__ == "__main__":
    main(__doc__, CASES, {})
