"""How often explain's tests reject a true null, and its intervals hold, by simulation; prints three tables.

Signals of several subjects carry what they saw, but all have been given the same wrong labels; or clips whose
neighbours in a film are alike, and pictures of few concepts, in signals and in embeddings, which have nothing
to do with each other. Each test stands next to the one that permutes labels subject by subject, or picture by
picture, as if they were independent. Twenty minutes on a core for 300 simulations.
"""

import argparse
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from brainhive_cli.evaluation.explanation.findings import for_all
from brainhive_cli.evaluation.explanation.profiles import Axis, Labels, PermutationTest, Profile
from brainhive_cli.evaluation.explanation.similarity import Models, measure_similarity
from brainhive_cli.measurement.statistics import measure_each
from brainhive_cli.measurement.units import Alike, Items

LEVEL, DRAWS = 0.05, 100
PLACES, FEATURES = 5, 16
PICTURES, CLIPS, EACH = 100, 1200, 5
"""Pictures of a concept each, clips of one film, and pictures of one concept where there are several."""
NEIGHBOURS = 0.9
"""How neighbouring clips correlate."""
Values = NDArray[np.float64]


def film(random: np.random.Generator, *shape: int) -> Values:
    """Draw features [..., N, D] of clips, of which neighbours correlate."""
    drawn = random.normal(size=shape)
    drawn[..., 1:, :] *= (1 - NEIGHBOURS**2) ** 0.5
    return np.asarray(lfilter([1.0], [1.0, -NEIGHBOURS], drawn, -2))


def concepts(random: np.random.Generator, *shape: int) -> Values:
    """Draw features [..., N, D] of pictures, of which those of a concept are alike."""
    several = (*shape[:-2], shape[-2] // EACH, shape[-1])
    of_concept = np.repeat(random.normal(size=several), EACH, -2)
    return of_concept + 0.5 * random.normal(size=shape)


def profile(signals: Values, targets: Values, labels: Labels) -> Profile:
    """Look up margins of signals [P, N, D] with targets [N, D], as analyses of a model do."""
    cosine = (signals @ targets.T) / signals.shape[-1]
    margins = cosine - cosine.mean(-1, keepdims=True)
    return Profile.of("margin", Axis("ms", range(len(signals))), margins, labels)


def is_significant(profiles: Sequence[Profile]) -> bool:
    """Whether a profile of all subjects is above its control anywhere."""
    measured = np.mean([each.values.mean(1) for each in profiles], 0)
    null = np.mean([each.null for each in profiles], 0)
    return bool(PermutationTest.of(measured, null).corrected.min() < LEVEL)


def shared_labels(count: int) -> Iterator[str]:
    """Simulate subjects whose signals carry what they saw, and who have the same wrong labels."""
    yield "| subjects | permuted subject by subject | one permutation for all |"
    yield "|---|---|---|"
    places, units = np.arange(PICTURES), Items.unnamed([PICTURES])
    for subjects in (1, 5, 10):
        random, rejected = np.random.default_rng(subjects), []
        for number in range(count):
            targets, order = random.normal(size=(PICTURES, FEATURES)), random.permutation(PICTURES)
            signals = targets + random.normal(size=(subjects, PLACES, PICTURES, FEATURES))
            seeds = [range(number, number + subjects), [number] * subjects]
            rejected.append(
                [
                    is_significant(
                        [
                            profile(each, targets, Labels.of(order, places, units, DRAWS, seed))
                            for each, seed in zip(signals, some, strict=True)
                        ]
                    )
                    for some in seeds
                ]
            )
        yield f"| {subjects} | " + " | ".join(f"{share:.3f}" for share in np.mean(rejected, 0)) + " |"


def alike(count: int) -> Iterator[str]:
    """Simulate signals and embeddings that have nothing to do with each other, and items that are alike."""
    yield "| items | subjects | margin: one by one | in units | similarity: one by one | in units |"
    yield "|---|---|---|---|---|---|"
    films, shown = (film, Alike("neighbours", medium="clip")), dict(enumerate(np.arange(200) // EACH))
    designs = [
        (f"{CLIPS} clips, neighbours .9", CLIPS, *films),
        ("240 clips, neighbours .9", 240, *films),
        (f"200 pictures, {EACH} a concept", 200, concepts, Alike("concept", shown)),
    ]
    for name, items, draw, by in designs:
        places, chosen = np.arange(items), [Items.unnamed([items]), by.items([range(items)])]
        for subjects in (1, 5) if items < CLIPS else (1,):
            random, rejected = np.random.default_rng(subjects), []
            for number in range(count):
                targets = draw(random, items, FEATURES)
                signals = draw(random, items, FEATURES) + draw(random, subjects, PLACES, items, FEATURES)
                labels = [Labels.of(places, places, units, DRAWS, number) for units in chosen]
                rejected.append(
                    [is_significant([profile(each, targets, some) for each in signals]) for some in labels]
                )
                if items == CLIPS:  # 720,000 pairs of clips: too slow
                    rejected[-1] += [np.nan] * len(chosen)
                    continue
                for units in chosen:
                    models = Models.of({"model": targets})
                    found = measure_similarity([list(signals[:, 0])], models, units, DRAWS, number)
                    test = PermutationTest.of(found.whole.values[:, 0].mean(0), found.whole.null[:, 0])
                    rejected[-1].append(test.corrected.min() < LEVEL)
            shares = ("–" if np.isnan(share) else f"{share:.3f}" for share in np.mean(rejected, 0))
            yield f"| {name} | {subjects} | " + " | ".join(shares) + " |"


def coverage(count: int) -> Iterator[str]:
    """Simulate how often the interval of a profile over clips holds its mean, 0."""
    yield "| items | subjects | over clips | over blocks |"
    yield "|---|---|---|---|"
    for items in (240, CLIPS):
        units = Items.unnamed([items]), Alike("neighbours", medium="clip").items([range(items)])
        for subjects in (1, 5):
            random, held = np.random.default_rng(items + subjects), []
            for _ in range(count):
                shared = film(random, items, 1)[:, 0]
                values = [shared + film(random, items, 1).T for _ in range(subjects)]  # [1, N] each
                how = {"protocol": "simulated", "split": "test", "is_share": False}
                for some in units:
                    metrics = measure_each("margin", values, items=for_all(some, subjects), **how)
                    low, high = metrics[0].these_subjects or (metrics[0].low, metrics[0].high)
                    held.append(low <= 0 <= high)
            shares = np.mean(np.reshape(held, (-1, 2)), 0)
            yield f"| {items} clips | {subjects} | {shares[0]:.3f} | {shares[1]:.3f} |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", nargs="?", type=int, default=300, help="simulations of each design")
    count = parser.parse_args().count
    print(f"False positives anywhere at .05: shared wrong labels, {PICTURES} pictures, {count} simulations\n")
    for line in shared_labels(count):
        print(line, flush=True)
    print(f"\nFalse positives anywhere at .05: items that are alike, {count} simulations of each design\n")
    for line in alike(count):
        print(line, flush=True)
    print(f"\nCoverage of the nominal 95 % interval for these subjects, {count} simulations of each design\n")
    for line in coverage(count):
        print(line, flush=True)
