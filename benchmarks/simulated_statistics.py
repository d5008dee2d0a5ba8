"""How often intervals hold the truth and tests reject a true null, by simulation; prints four tables.

Hits are drawn from a logistic model: subjects and items are normal in logits, and crossed; the truth is the
mean over all people and pictures. For the repetition curve of `check --plots`, whose items share one pool,
patterns and noise are drawn; the truth is the mean of all simulations. For clips, values from 0 to 1, such as
expected N-way accuracies, are drawn that neighbours of a film share in part. Eight minutes on a core.
"""

import argparse
from collections.abc import Iterator
from itertools import product

import numpy as np
from brainhive_cli.metrics.neighbours import block_length
from numpy.typing import NDArray
from scipy.stats import norm

from brainhive_cli.explanation.reliability import find_by_means
from brainhive_cli.metrics.comparison import compare, mcnemar
from brainhive_cli.metrics.statistics import describe

Hits = NDArray[np.float64]
ITEMS, FEATURES = 200, 60
ITEM_SD, SUBJECT_SD = (1.5, 2.5), (0.3, 0.5)
"""Standard deviations in logits."""
METHOD_BY_SUBJECT, METHOD_BY_ITEM = 0.2, (0.0, 0.3, 0.5, 1.0)
"""Of how two methods, equally good for people and pictures in general, differ by subject and by item."""


def hits(random: np.random.Generator, logits: NDArray[np.float64]) -> Hits:
    """Draw hits of these logits."""
    return (random.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(np.float64)


def mean_hit(centre: float, sd: float) -> float:
    """Integrate the logistic function over a normal distribution."""
    at = np.linspace(-8, 8, 4001)
    return float(np.average(1 / (1 + np.exp(-centre - sd * at)), weights=norm.pdf(at)))


def coverage(count: int) -> Iterator[str]:
    """Simulate how often the nominal 95 % interval holds the truth."""
    yield "| subjects | item sd | subject sd | mean hit | people in general | mean width | these subjects |"
    yield "|---|---|---|---|---|---|---|"
    for subjects, centre, item, subject in product((1, 2, 4, 5, 6, 10), (0.0, -1.5), ITEM_SD, SUBJECT_SD):
        random, held, widths, held_here = np.random.default_rng(subjects), [], [], []
        for _ in range(count):
            of_subject = centre + random.normal(0, subject, (subjects, 1))
            drawn = hits(random, of_subject + random.normal(0, item, (1, ITEMS)))
            here = float(np.mean([mean_hit(each, item) for each in of_subject[:, 0]]))
            found = describe(list(drawn))
            truth = mean_hit(centre, float(np.hypot(item, subject))) if subjects > 1 else here
            held.append(found.low <= truth <= found.high)
            widths.append(found.high - found.low)
            low, high = found.these_subjects or (found.low, found.high)
            held_here.append(low <= here <= high)
        people = f"{np.mean(held):.3f}" if subjects > 1 else "–"
        yield (
            f"| {subjects} | {item} | {subject} | {mean_hit(centre, np.hypot(item, subject)):.2f} | {people} "
            f"| {np.mean(widths):.3f} | {np.mean(held_here):.3f} |"
        )


def coverage_of_shared_pools(count: int) -> Iterator[str]:
    """Simulate how often the interval of top-1 holds where the items of a subject are each other's pool.

    Features have a flat or a steep spectrum, as independent and as strongly correlated channels have, and
    items are equally strong or differ (log-normal, sd 0.7). Var / binomial: 1 if items were independent.
    """
    yield "| items | spectrum | items differ | signal sd | mean top-1 | coverage | var / binomial |"
    yield "|---|---|---|---|---|---|---|"
    for items, slope, spread, sd in product((50, ITEMS), (0.5, 2.0), (0.0, 0.7), (0.4, 0.8, 1.5, 3.0)):
        random, found = np.random.default_rng(items), []
        for _ in range(count):
            pattern = random.normal(size=(items, FEATURES)) * np.arange(1, FEATURES + 1) ** -slope
            pattern *= sd * np.exp(spread * random.normal(size=(items, 1)))
            noise = random.normal(size=(2, items, FEATURES)) * np.arange(1, FEATURES + 1) ** -0.5
            found.append(find_by_means(*(pattern + noise).astype(np.float32)[..., None], "test"))
        values = np.array([each.value for each in found])
        truth = values.mean()
        held = np.mean([each.low <= truth <= each.high for each in found])
        ratio = values.var(ddof=1) / max(truth * (1 - truth) / items, 1e-12)
        yield f"| {items} | {slope} | {spread} | {sd} | {truth:.3f} | {held:.3f} | {ratio:.2f} |"


def coverage_of_clips(count: int, films: int = 5, clips: int = 240) -> Iterator[str]:
    """Simulate how often the interval of clips' values holds, where neighbours in a film are alike.

    The logits of neighbouring clips correlate as given; subjects share the clips, and differ by .3 (sd).
    """
    yield "| subjects | neighbours correlate | mean | over blocks | mean width | over clips | mean width |"
    yield "|---|---|---|---|---|---|---|"
    lengths = block_length(films * clips), 1
    for subjects, near, centre in product((1, 3), (0.0, 0.3, 0.6, 0.9), (1.5, -2.0)):
        random, held, widths = np.random.default_rng(subjects), [], []
        truth = mean_hit(centre, float(np.hypot(1.5, 0.3 if subjects > 1 else 0)))
        for _ in range(count):
            logits = random.normal(size=(films, clips))
            for place in range(1, clips):
                logits[:, place] = near * logits[:, place - 1] + np.sqrt(1 - near**2) * logits[:, place]
            of_subject = random.normal(0, 0.3, (subjects, 1)) if subjects > 1 else np.zeros((1, 1))
            values = 1 / (1 + np.exp(-(centre + of_subject + 1.5 * logits.reshape(1, -1))))
            ids = [[np.arange(films * clips) // length] * subjects for length in lengths]
            found = [describe(list(values), ids=each, limits=(0, 1), wilson=False, draws=500) for each in ids]
            held.append([each.low <= truth <= each.high for each in found])
            widths.append([each.high - each.low for each in found])
        means = np.stack([np.mean(held, 0), np.mean(widths, 0)], 1).flatten()
        yield f"| {subjects} | {near} | {truth:.2f} | " + " | ".join(f"{each:.3f}" for each in means) + " |"


def false_positives(count: int, subjects: int = 10) -> Iterator[str]:
    """Simulate how often a true null is rejected at .05: two methods that are equally good in general."""
    yield "| item × method sd | minF′ | sign-flip | Wilcoxon | t | McNemar, pooled | interval without 0 |"
    yield "|---|---|---|---|---|---|---|"
    for by_item in METHOD_BY_ITEM:
        random, rejected = np.random.default_rng(1), []
        for _ in range(count):
            both = random.normal(0, 0.3, (subjects, 1)) + random.normal(0, 1.5, (1, ITEMS))
            first, second = (
                hits(
                    random,
                    both
                    + random.normal(0, METHOD_BY_SUBJECT, (subjects, 1))
                    + random.normal(0, by_item, (1, ITEMS)),
                )
                for _ in range(2)
            )
            found = compare(list(2 - first), list(2 - second))  # ranks: 1 is a hit
            pooled = mcnemar(found.only_first, found.only_second)
            p_values = (found.p_value, found.sign_flip_p, found.wilcoxon_p, found.t_p, pooled)
            rejected.append([*(p < 0.05 for p in p_values), not found.low <= 0 <= found.high])
        yield f"| {by_item} | " + " | ".join(f"{share:.3f}" for share in np.mean(rejected, axis=0)) + " |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", nargs="?", type=int, default=1000, help="simulations of each design")
    count = parser.parse_args().count
    print(f"Coverage of the nominal 95 % interval: {ITEMS} items, {count} simulations of each design\n")
    for line in coverage(count):
        print(line, flush=True)
    print(f"\nCoverage of the interval of top-1 where items share one pool, {count} simulations of each\n")
    for line in coverage_of_shared_pools(count):
        print(line, flush=True)
    print(f"\nCoverage of the interval of 1200 clips' values, {count} simulations of each\n")
    for line in coverage_of_clips(count):
        print(line, flush=True)
    print(f"\nFalse positives at .05: 10 subjects, {ITEMS} items, subject × method sd {METHOD_BY_SUBJECT}\n")
    for line in false_positives(count):
        print(line, flush=True)
