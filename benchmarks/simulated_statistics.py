"""How often intervals hold the truth and tests reject a true null, by simulation; prints eight tables.

Hits are drawn from a logistic model: subjects and items are normal in logits, and crossed; the truth is the
mean over all people and pictures. For the repetition curve of `check --plots`, whose items share one pool,
patterns and noise are drawn; the truth is the mean of all simulations. Logits of neighbouring clips, and of
pictures of one concept, correlate. Beside our figures stand those of taking items for independent. Ten
minutes on a core with 400 simulations.
"""

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import norm

from brainhive_cli.measurement.comparison import compare, mcnemar
from brainhive_cli.measurement.ranks import rank_sum, summarise
from brainhive_cli.measurement.reliability import rank_halves
from brainhive_cli.measurement.statistics import describe
from brainhive_cli.measurement.units import Alike, Items

Hits = NDArray[np.float64]
ITEMS, FEATURES = 200, 60
ITEM_SD, SUBJECT_SD = 1.5, (0.3, 1.0)
"""Standard deviations in logits; published values of subjects spread by up to 1."""
CENTRES = (0.0, -1.5, -4.0, 3.0)
"""Mean logits: hits of .5, .25, .05 and .9."""
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
    yield "| subjects | subject sd | mean hit | people in general | mean width | these subjects |"
    yield "|---|---|---|---|---|---|"
    for subjects, centre, spread in product((2, 4, 6, 8, 10, 15, 20), CENTRES, SUBJECT_SD):
        random, held, widths, held_here = np.random.default_rng(subjects), [], [], []
        truth = mean_hit(centre, float(np.hypot(ITEM_SD, spread)))
        for _ in range(count):
            of_subject = centre + random.normal(0, spread, (subjects, 1))
            drawn = hits(random, of_subject + random.normal(0, ITEM_SD, (1, ITEMS)))
            here = float(np.mean([mean_hit(logit, ITEM_SD) for logit in of_subject[:, 0]]))
            interval = describe(list(drawn))
            held.append(interval.low <= truth <= interval.high)
            widths.append(interval.high - interval.low)
            held_here.append(interval.these_subjects[0] <= here <= interval.these_subjects[1])
        yield (
            f"| {subjects} | {spread} | {truth:.2f} | {np.mean(held):.3f} | {np.mean(widths):.3f} "
            f"| {np.mean(held_here):.3f} |"
        )


def coverage_of_one_subject(count: int) -> Iterator[str]:
    """Simulate how often the interval of one subject holds, by items and seeds."""
    yield "| items | seeds | mean hit | coverage | mean width |"
    yield "|---|---|---|---|---|"
    for items, seeds, centre in product((10, 30, ITEMS), (1, 3), (0.0, 2.2, 4.0)):
        random, held, widths = np.random.default_rng(items), [], []
        truth = mean_hit(centre, ITEM_SD)
        for _ in range(count):
            logits = np.tile(random.normal(centre, ITEM_SD, (1, items)), (seeds, 1))
            interval = describe([hits(random, logits)])
            held.append(interval.low <= truth <= interval.high)
            widths.append(interval.high - interval.low)
        yield f"| {items} | {seeds} | {truth:.2f} | {np.mean(held):.3f} | {np.mean(widths):.3f} |"


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
            ranks = rank_halves(*torch.from_numpy(pattern + noise).float())
            found += summarise([ranks], items, split="test", only=("top1",))
        values = np.array([each.value for each in found])
        truth = values.mean()
        held = np.mean([each.low <= truth <= each.high for each in found])
        ratio = values.var(ddof=1) / max(truth * (1 - truth) / items, 1e-12)
        yield f"| {items} | {slope} | {spread} | {sd} | {truth:.3f} | {held:.3f} | {ratio:.2f} |"


def film_logits(random: np.random.Generator, near: float, films: int = 5, clips: int = 240) -> Hits:
    """Draw standard logits of the clips of some films, whose neighbours correlate."""
    logits = random.normal(size=(films, clips))
    for place in range(1, clips):
        logits[:, place] = near * logits[:, place - 1] + np.sqrt(1 - near**2) * logits[:, place]
    return logits.reshape(1, -1)


def concept_logits(random: np.random.Generator, concepts: int, pictures: int) -> Hits:
    """Draw logits of pictures: 1.5 (sd) by concept and 1 by picture."""
    of_concept = np.repeat(random.normal(0, ITEM_SD, (1, concepts)), pictures, 1)
    return of_concept + random.normal(0, 1, (1, concepts * pictures))


def designs() -> Iterator[tuple[str, Items, float, Callable[[np.random.Generator], Hits]]]:
    """List designs of items that are alike: name, items of a subject, sd of a logit, how logits are drawn."""
    for near in (0.0, 0.6, 0.9):
        clips = Alike("neighbours", medium="clip").items([list(range(1200))])
        yield (
            f"1200 clips, neighbours correlate {near}",
            clips,
            ITEM_SD,
            lambda random, near=near: ITEM_SD * film_logits(random, near),  # type: ignore[misc]
        )
    for concepts, pictures in product((40, 200), (5, 10)):
        concept_of = dict(enumerate(np.repeat(np.arange(concepts), pictures).tolist()))
        yield (
            f"{concepts} concepts of {pictures} pictures",
            Alike("concept", concept_of).items([list(range(concepts * pictures))]),
            float(np.hypot(ITEM_SD, 1)),
            partial(concept_logits, concepts=concepts, pictures=pictures),
        )


def coverage_of_units(count: int) -> Iterator[str]:
    """Simulate how often the interval of items that are alike holds, and one over single items."""
    yield "| items | subjects | mean hit | over units | over items |"
    yield "|---|---|---|---|---|"
    for (name, items, sd, draw), subjects, centre in product(designs(), (1, 10), (0.0, -2.0)):
        random, held = np.random.default_rng(subjects), []
        between = 0.3 if subjects > 1 else 0.0
        truth = mean_hit(centre, float(np.hypot(sd, between)))
        grouped = Items(list(items.ids) * subjects, list(items.units) * subjects, items.kind)
        for _ in range(count):
            drawn = hits(random, centre + random.normal(0, between, (subjects, 1)) + draw(random))
            intervals = [describe(list(drawn), how) for how in (grouped, None)]
            held.append([interval.low <= truth <= interval.high for interval in intervals])
        both = " | ".join(f"{share:.3f}" for share in np.mean(held, 0))
        yield f"| {name} | {subjects} | {truth:.2f} | {both} |"


def false_positives_of_units(count: int) -> Iterator[str]:
    """Simulate tests on items that are alike: verdict, shuffled p, and the comparison of two equal runs.

    Of the verdict and the shuffled p, a model and wrong labels vary alike in neighbours, or concepts.
    """
    yield "| items | verdict | over items | shuffled p | over items | equal runs differ | McNemar's |"
    yield "|---|---|---|---|---|---|---|"
    for name, items, sd, draw in designs():
        random, rejected, size = np.random.default_rng(2), [], items.size
        for _ in range(count):
            shared = 0.9 * (draw(random) / sd) + np.sqrt(1 - 0.9**2) * random.normal(size=(1, size))
            ranks = np.ceil(size * norm.cdf(shared))
            verdicts = [rank_sum(list(ranks), size, how).verdict != "at chance" for how in (items, None)]
            signal, label = draw(random)[0], draw(random)[0]
            measured, independent = signal @ label, Items.independent(items.ids)
            p_values = []
            for how in (items, independent):
                drawn = [signal @ label[how.permute(random)[0]] for _ in range(99)]
                p_values.append((1 + sum(value >= measured for value in drawn)) / 100)
            first, second = (2 - hits(random, draw(random)) for _ in range(2))
            compared = [compare(list(first), list(second), items=how).p_value for how in (items, None)]
            p_of = [p <= 0.05 for p in (*p_values, *compared)]
            rejected.append([*verdicts, *p_of])
        yield f"| {name} | " + " | ".join(f"{share:.3f}" for share in np.mean(rejected, 0)) + " |"


def false_positives_of_seeds(count: int) -> Iterator[str]:
    """Simulate how often two equal runs of one subject differ, whose numbers of seeds differ."""
    yield "| hit rate | seeds | compared | McNemar's on majorities |"
    yield "|---|---|---|---|"
    for rate, seeds in product((0.2, 0.8), ((1, 1), (1, 3), (1, 5), (3, 5))):
        random, rejected = np.random.default_rng(3), []
        for _ in range(count):
            both = [2 - (random.random((number, ITEMS)) < rate).astype(int) for number in seeds]
            first, second = ((ranks == 1).mean(0) > 0.5 for ranks in both)
            majorities = mcnemar(int((first & ~second).sum()), int((second & ~first).sum()))
            p = compare([both[0]], [both[1]]).p_value
            rejected.append([p is not None and p < 0.05, majorities < 0.05])
        shares = np.mean(rejected, 0)
        yield f"| {rate} | {seeds[0]} against {seeds[1]} | {shares[0]:.3f} | {shares[1]:.3f} |"


def disagreements(count: int) -> Iterator[str]:
    """Simulate how often verdict and interval of top-1 are on other sides of chance, under the null."""
    yield "| subjects | verdict not at chance | interval without chance | not the same |"
    yield "|---|---|---|---|"
    for subjects in (1, 5, 10):
        random, found = np.random.default_rng(4), []
        for _ in range(count):
            ranks = random.integers(1, ITEMS + 1, (subjects, ITEMS))
            interval = describe(list((ranks == 1) * 1.0))
            verdict = rank_sum(list(ranks), ITEMS).verdict
            side = "above chance" if interval.low > 1 / ITEMS else "at chance"
            side = "below chance" if interval.high < 1 / ITEMS else side
            found.append([verdict != "at chance", side != "at chance", verdict != side])
        yield f"| {subjects} | " + " | ".join(f"{share:.3f}" for share in np.mean(found, 0)) + " |"


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


TABLES: dict[str, tuple[str, Callable[[int], Iterator[str]]]] = {
    "people": (f"Coverage of the nominal 95 % interval: {ITEMS} items", coverage),
    "one": ("Coverage of the interval of one subject", coverage_of_one_subject),
    "units": ("Coverage where items are alike", coverage_of_units),
    "pools": ("Coverage of the interval of top-1 where items share one pool", coverage_of_shared_pools),
    "null": (f"False positives at .05: 10 subjects, {ITEMS} items", false_positives),
    "null-units": ("False positives at .05 where items are alike", false_positives_of_units),
    "null-seeds": (f"False positives at .05: one subject, {ITEMS} items", false_positives_of_seeds),
    "sides": ("Verdict and interval of top-1 under the null", disagreements),
}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", nargs="?", type=int, default=1000, help="simulations of each design")
    parser.add_argument("--only", nargs="+", choices=TABLES, default=list(TABLES))
    arguments = parser.parse_args()
    for name in arguments.only:
        title, simulate = TABLES[name]
        print(f"\n{title}, {arguments.count} simulations of each design\n")
        for line in simulate(arguments.count):
            print(line, flush=True)
