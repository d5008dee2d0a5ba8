"""How fast evaluation is: ranks among a million vectors, the verdict, similarity of signals and models."""

from functools import partial

import numpy as np
import torch
from harness import Bench, main
from scipy.spatial.distance import pdist
from scipy.stats import rankdata, spearmanr
from torch.nn.functional import normalize

from brainhive_cli.evaluation.explanation.profiles import TIME, Axis
from brainhive_cli.evaluation.explanation.similarity import measure_similarity, rank_models
from brainhive_cli.measurement.ranks import ranks
from brainhive_cli.measurement.retrieval import Gallery, Scores, rank
from brainhive_cli.measurement.units import Items
from brainhive_cli.measurement.verdict import DRAWS, judge

SIGNALS, DIM, BLOCK = 200, 1024, 4096
"""THINGS' test pictures, BrainHiVE's token, and how many vectors a block has."""


def ranking(on: Bench) -> None:
    """Rank among stored vectors next to the bare product, and among drawn ones next to drawing, too.

    Both sides have one thread on a CPU. With two, and another program on one of the cores, each of our short
    steps waits for that core, a long product once: ratios of one machine went from .05 to .9.
    """
    if on.device.type == "cpu":
        torch.set_num_threads(1)
    vectors = on.pick(20_000, 200_000, 1_000_000)
    random = torch.Generator(on.device).manual_seed(0)
    draw = partial(torch.randn, generator=random, device=on.device)
    signals, gallery = draw(2, SIGNALS, DIM)  # at chance, where near-ties are most
    unit, there = normalize(signals, dim=1), np.arange(SIGNALS)
    stored = draw(vectors // 10, DIM).split(BLOCK)

    def multiply() -> None:
        for block in stored:
            unit @ block.T

    def draw_and_multiply() -> None:
        for start in range(0, vectors, BLOCK):
            unit @ draw(min(BLOCK, vectors - start), DIM).T

    rank_stored = partial(ranks, signals, gallery, torch.arange(SIGNALS), stored)
    what = f"ranking, {vectors // 10:,} stored vectors: of the bare product"
    on.compare(what, rank_stored, multiply, vectors // 10, "vectors/s", 0.8, rounds=max(9, on.rounds))
    ids = [f"picture-{n}" for n in there]
    concepts = [f"concept-{n // 2}" for n in there]  # of two pictures, or precision is one over rank
    among = Gallery({"test": there}, ids, concepts, vectors)
    tokens, items = {1: gallery + torch.randn_like(gallery)}, {1: Scores(ids, ids, concepts)}
    what = f"eval-retrieval, {vectors:,} distractors: of draws, product"
    on.compare(
        what, partial(rank, among, gallery, tokens, items), draw_and_multiply, vectors, "vectors/s", rounds=1
    )


def similarity(on: Bench) -> None:
    """Measure representational similarity next to a plain loop over SciPy, time by time."""
    subjects, pictures, times = on.pick((2, 20, 2), (10, 200, 5), (10, 200, 5))
    random = np.random.default_rng(0)
    signals = random.normal(size=(subjects, pictures, 63, times)).astype(np.float32)
    features = [random.normal(size=(pictures, width)) for width in (1024, 512)]
    models = rank_models({str(number): each for number, each in enumerate(features)})

    def ours() -> None:
        places = (list(signals[..., place]) for place in range(times))
        measure_similarity(Axis(TIME, range(times)), places, models, Items.unnamed([pictures]), 0)

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
    """Judge ranks of 10 subjects next to a plain loop over the same number of permutations."""
    subjects, pictures = 10, on.pick(40, 200, 200)
    random, rows = np.random.default_rng(0), np.arange(pictures)
    first = np.tile(np.arange(1, pictures + 1), (pictures, 1))
    ranked = [random.permuted(first, axis=1) for _ in range(subjects)]
    items = Items.independent([list(range(pictures))] * subjects)

    def loop() -> None:
        for _ in range(DRAWS):
            order = random.permutation(pictures)
            np.mean([matrix[rows, order].mean() for matrix in ranked])

    what = f"verdict, {subjects} subjects x {pictures} pictures: of a loop over permutations"
    on.compare(what, partial(judge, ranked, items, range(pictures)), loop, DRAWS, "permutations/s", 2)


CASES = (ranking, verdict, similarity)

if __name__ == "__main__":
    main(__doc__, CASES, {})
