"""How often intervals hold the truth and tests reject a true null, by simulation; prints tables.

Hits are drawn from a logistic model: subjects and items are normal in logits, and crossed; the truth is the
mean over all people and pictures. Logits of neighbouring clips, and of pictures of one concept, correlate.
Signals carry what subjects saw (with wrong labels that all share), or nothing. Beside our figures stand those
of taking items, or subjects, for independent. 400 simulations take half an hour on a core.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.signal import lfilter
from scipy.stats import norm

from brainhive_cli.evaluation.explanation.encoding_model import Slices, along, predict_signals
from brainhive_cli.evaluation.explanation.findings import for_all
from brainhive_cli.evaluation.explanation.profiles import Axis, Labels, PermutationTest, Profile
from brainhive_cli.evaluation.explanation.similarity import Models, measure_similarity
from brainhive_cli.measurement.comparison import compare, mcnemar
from brainhive_cli.measurement.ranks import rank_sum, ranks, summarise
from brainhive_cli.measurement.statistics import describe, measure_each
from brainhive_cli.measurement.units import Alike, Items

Values = NDArray[np.float64]
Random = np.random.Generator
LEVEL, ITEMS, FEATURES, EACH = 0.05, 200, 60, 5
ITEM_SD = 1.5
"""Standard deviation in logits; published values of subjects spread by up to 1."""
METHOD_BY_SUBJECT = 0.2
"""Of how two methods, equally good for people and pictures in general, differ by subject."""
HOW: Mapping[str, Any] = {"protocol": "simulated", "split": "test", "is_share": False}
CLIPS, CONCEPT_OF = Alike("neighbours", medium="clip"), dict(enumerate(np.arange(200) // EACH))


def draw_hits(random: Random, logits: Values) -> Values:
    """Draw hits of these logits."""
    return (random.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(np.float64)


def mean_hit(centre: float, sd: float) -> float:
    """Integrate the logistic function over a normal distribution."""
    at = np.linspace(-8, 8, 4001)
    return float(np.average(1 / (1 + np.exp(-centre - sd * at)), weights=norm.pdf(at)))


def holds(interval: Any, truth: float) -> bool:
    """Whether an interval holds the truth."""
    return bool(interval.low <= truth <= interval.high)


def draw_film(random: Random, *shape: int, near: float = 0.9) -> Values:
    """Draw features [..., N, D] of clips, of which neighbours correlate."""
    drawn = random.normal(size=shape)
    drawn[..., 1:, :] *= (1 - near**2) ** 0.5
    return np.asarray(lfilter([1.0], [1.0, -near], drawn, -2))


def draw_concepts(random: Random, *shape: int, pictures: int = EACH, by_picture: float = 0.5) -> Values:
    """Draw features [..., N, D] of pictures, of which those of a concept are alike."""
    several = (*shape[:-2], shape[-2] // pictures, shape[-1])
    return np.repeat(random.normal(size=several), pictures, -2) + by_picture * random.normal(size=shape)


def alike_items(items: str) -> tuple[Items, float, Callable[[Random], Values]]:
    """Read the name of items that are alike: a subject's items, sd of a logit, how logits are drawn."""
    words = items.split()
    if words[1] == "clips,":
        near = float(words[-1])
        logits = lambda random: ITEM_SD * draw_film(random, 5, 240, 1, near=near).reshape(1, -1)  # noqa: E731
        return CLIPS.items([list(range(1200))]), ITEM_SD, logits
    concepts, pictures = int(words[0]), int(words[3])
    settings: Any = {"pictures": pictures, "by_picture": 1 / ITEM_SD}
    concept_of = dict(enumerate(np.repeat(np.arange(concepts), pictures).tolist()))
    by = Alike("concept", concept_of).items([list(range(len(concept_of)))])
    logits = lambda random: ITEM_SD * draw_concepts(random, len(concept_of), 1, **settings).T  # noqa: E731
    return by, float(np.hypot(ITEM_SD, 1)), logits


def intervals_over_people(random: Random, subjects: int, sd: float, centre: float) -> list[float]:
    """Intervals of several subjects, for people in general and for these."""
    by_subject = centre + random.normal(0, sd, (subjects, 1))
    interval = describe(list(draw_hits(random, by_subject + random.normal(0, ITEM_SD, (1, ITEMS)))))
    truth = mean_hit(centre, float(np.hypot(ITEM_SD, sd)))
    here = float(np.mean([mean_hit(logit, ITEM_SD) for logit in by_subject[:, 0]]))
    low, high = interval.these_subjects
    return [truth, holds(interval, truth), interval.high - interval.low, low <= here <= high]


def intervals_of_one_subject(random: Random, items: int, seeds: int, centre: float) -> list[float]:
    """The interval of one subject, by items and seeds."""
    logits = np.tile(random.normal(centre, ITEM_SD, (1, items)), (seeds, 1))
    interval, truth = describe([draw_hits(random, logits)]), mean_hit(centre, ITEM_SD)
    return [truth, holds(interval, truth), interval.high - interval.low]


def intervals_of_units(random: Random, items: str, subjects: int, centre: float) -> list[float]:
    """Intervals of items that are alike, over units and over single items."""
    (units, sd, draw), between = alike_items(items), 0.3 if subjects > 1 else 0.0
    truth = mean_hit(centre, float(np.hypot(sd, between)))
    grouped = Items(list(units.ids) * subjects, list(units.units) * subjects, units.kind)
    drawn = draw_hits(random, centre + random.normal(0, between, (subjects, 1)) + draw(random))
    return [truth, *(holds(describe(list(drawn), how), truth) for how in (grouped, None))]


def intervals_of_shared_pools(random: Random, items: int, slope: float, spread: float, sd: float) -> Any:
    """The interval of top-1 where the items of a subject are each other's pool, around the mean of all.

    Features have a flat or a steep spectrum, as independent and as strongly correlated channels have, and
    items are equally strong or differ (log-normal).
    """
    pattern = random.normal(size=(items, FEATURES)) * np.arange(1, FEATURES + 1) ** -slope
    pattern *= sd * np.exp(spread * random.normal(size=(items, 1)))
    noise = random.normal(size=(2, items, FEATURES)) * np.arange(1, FEATURES + 1) ** -0.5
    halves = torch.from_numpy(pattern + noise).float()
    halves = halves - halves.mean(1, keepdim=True)
    first, second = halves - halves.mean(2, keepdim=True)
    return summarise([ranks(first, second, torch.arange(items))], items, split="test", only=("top1",))


def tests_of_methods(random: Random, by_item: float) -> list[float]:
    """Tests between two methods that are equally good in general: 10 subjects."""
    both = random.normal(0, 0.3, (10, 1)) + random.normal(0, 1.5, (1, ITEMS))
    first, second = (
        draw_hits(
            random,
            both + random.normal(0, METHOD_BY_SUBJECT, (10, 1)) + random.normal(0, by_item, (1, ITEMS)),
        )
        for _ in range(2)
    )
    result = compare(list(2 - first), list(2 - second))  # ranks: 1 is a hit
    pooled = mcnemar(result.only_first, result.only_second)
    p_values = (result.p_value, result.sign_flip_p, result.wilcoxon_p, result.t_p, pooled)
    return [*(p < LEVEL for p in p_values), not result.low <= 0 <= result.high]


def tests_of_units(random: Random, items: str) -> list[float]:
    """Tests on items that are alike: verdict, shuffled p, and the comparison of two equal runs.

    Of the verdict and the shuffled p, a model and wrong labels vary alike in neighbours, or concepts.
    """
    units, sd, draw = alike_items(items)
    shared = 0.9 * (draw(random) / sd) + np.sqrt(1 - 0.9**2) * random.normal(size=(1, units.size))
    places, p_values = list(np.ceil(units.size * norm.cdf(shared))), []  # type: ignore[var-annotated]
    verdicts = [rank_sum(places, units.size, how).verdict != "at chance" for how in (units, None)]
    signal, label = draw(random)[0], draw(random)[0]
    for how in (units, Items.independent(units.ids)):
        drawn = [signal @ label[how.permute(random)[0]] for _ in range(99)]
        p_values.append((1 + sum(value >= signal @ label for value in drawn)) / 100)
    first, second = (2 - draw_hits(random, draw(random)) for _ in range(2))
    p_values += [compare(list(first), list(second), items=how).p_value for how in (units, None)]
    return [*verdicts, *(p <= LEVEL for p in p_values)]


def tests_of_seeds(random: Random, rate: float, seeds: tuple[int, int]) -> list[float]:
    """The comparison of two equal runs of one subject, whose numbers of seeds differ."""
    both = [2 - (random.random((number, ITEMS)) < rate).astype(int) for number in seeds]
    first, second = ((places == 1).mean(0) > 0.5 for places in both)
    majorities = mcnemar(int((first & ~second).sum()), int((second & ~first).sum()))
    p = compare([both[0]], [both[1]]).p_value
    return [p is not None and p < LEVEL, majorities < LEVEL]


def verdicts_and_intervals(random: Random, subjects: int) -> list[float]:
    """Verdict and interval of top-1 on other sides of chance, under the null."""
    places = random.integers(1, ITEMS + 1, (subjects, ITEMS))
    interval, verdict = describe(list((places == 1) * 1.0)), rank_sum(list(places), ITEMS).verdict
    side = "above chance" if interval.low > 1 / ITEMS else "at chance"
    side = "below chance" if interval.high < 1 / ITEMS else side
    return [verdict != "at chance", side != "at chance", verdict != side]


def is_significant(profiles: Sequence[Profile]) -> bool:
    """Whether a profile of all subjects is above its control anywhere."""
    measured, null = (np.mean(each, 0) for each in zip(*[(p.values.mean(1), p.null) for p in profiles]))  # noqa: B905
    return bool(PermutationTest.of(measured, null).corrected.min() < LEVEL)


def profile_margins(signals: Values, targets: Values, labels: Labels) -> Profile:
    """Look up margins of signals [P, N, D] with targets [N, D], as analyses of a model do."""
    cosine = (signals @ targets.T) / signals.shape[-1]
    return Profile.of(
        "margin", Axis("ms", range(len(signals))), cosine - cosine.mean(-1, keepdims=True), labels
    )


def tests_along_a_course(random: Random, subjects: int, effect: float) -> list[float]:
    """A margin along a course: right pairs are more similar by an effect; pictures differ."""
    easy, profiles = random.normal(size=(1, 40)), []
    for _ in range(subjects):
        noise = random.normal(size=(24, 40, 40)) + 0.5 * easy
        smooth = np.mean([noise[shift : shift + 20] for shift in range(5)], 0)
        labels = Labels.of(np.arange(40), np.arange(40), Items.unnamed([40]), 200, 1)
        profiles.append(Profile.of("margin", Axis("ms", range(20)), smooth + effect * np.eye(40), labels))
    return [is_significant(profiles), float(np.mean([profile.null.mean() for profile in profiles]))]


def tests_of_shared_labels(random: Random, subjects: int) -> list[float]:
    """Subjects whose signals carry what they saw, and who have the same wrong labels; 100 pictures."""
    targets, order, places = random.normal(size=(100, 16)), random.permutation(100), np.arange(100)
    signals = targets + random.normal(size=(subjects, 5, 100, 16))
    first, rejected = int(random.integers(2**31)), []
    for seeds in (range(first, first + subjects), [first] * subjects):
        labels = [Labels.of(order, places, Items.unnamed([100]), 100, seed) for seed in seeds]
        pairs = zip(signals, labels, strict=True)
        rejected.append(is_significant([profile_margins(each, targets, some) for each, some in pairs]))
    return rejected


def tests_of_alike_items(random: Random, items: str, subjects: int) -> list[float]:
    """Margin and similarity of signals and embeddings that have nothing to do with each other."""
    is_film, count = items.endswith("clips"), int(items.split()[0])
    draw: Any = draw_film if is_film else draw_concepts
    by = CLIPS if is_film else Alike("concept", CONCEPT_OF)
    targets, seed, places = draw(random, count, 16), int(random.integers(2**31)), np.arange(count)
    signals = draw(random, count, 16) + draw(random, subjects, 5, count, 16)
    margins, similar = [], []
    for units in (Items.unnamed([count]), by.items([range(count)])):
        labels = Labels.of(places, places, units, 100, seed)
        margins.append(is_significant([profile_margins(each, targets, labels) for each in signals]))
        if count == 1200:  # 720,000 pairs of clips: too slow
            similar.append(np.nan)
            continue
        models = Models.of({"model": targets})
        whole = measure_similarity([list(signals[:, 0])], models, units, 100, seed).whole
        test = PermutationTest.of(whole.values[:, 0].mean(0), whole.null[:, 0])
        similar.append(test.corrected.min() < LEVEL)
    return [*margins, *similar]


def intervals_of_profiles(random: Random, clips: int, subjects: int) -> list[float]:
    """The interval, for these subjects, of a profile over clips, whose mean is 0."""
    shared, held = draw_film(random, clips, 1)[:, 0], []
    values = [shared + draw_film(random, clips, 1).T for _ in range(subjects)]  # [1, N] each
    for units in (Items.unnamed([clips]), CLIPS.items([range(clips)])):
        (metric,) = measure_each("margin", values, items=for_all(units, subjects), **HOW)
        low, high = metric.these_subjects or (metric.low, metric.high)
        held.append(low <= 0 <= high)
    return held


def similarity(random: Random, strength: float) -> Any:
    """Similarity at 5 times, and the interval of one subject around the mean of all simulations."""
    features, mixing = random.normal(size=(40, 12)), random.normal(size=(12, 17))
    signals = strength * (features @ mixing)[..., None] / 3 + random.normal(size=(40, 17, 5))
    places = ([signals[..., t]] for t in range(5))
    whole = measure_similarity(places, Models.of({"model": features}), Items.unnamed([40]), 200).whole
    test = PermutationTest.of(whole.values[0, 0], whole.null[:, 0])
    rho = measure_each("rho", [whole.items[0, 0][:1].astype(float)], **HOW)
    return *rho, test.corrected.min() < LEVEL


def encoding(random: Random, strength: float) -> Any:
    """The encoding model at 6 times, and its interval around the mean of all simulations."""
    weights = np.random.default_rng(3).normal(size=(8, 18)) / 8**0.5
    features = [random.normal(size=(size, 16)) for size in (150, 40)]
    train, test = (
        strength * each[:, :8] @ weights + random.normal(size=(len(each), 18)) for each in features
    )
    levels = [
        {"a": each[:, :8], "b": each[:, 8:]} for each in (torch.from_numpy(each).float() for each in features)
    ]
    wrong, trained = (
        (np.roll(np.arange(150), 75), np.roll(np.arange(40), 20)),
        torch.from_numpy(train).float(),
    )
    predicted = predict_signals(*levels, lambda: iter([trained]), (3, 6), wrong, 8, None)
    places, seed = {time: np.array([time]) for time in range(6)}, int(random.integers(2**31))
    labels = Labels.of(np.arange(40), np.arange(40), Items.unnamed([40]), 200, seed)
    profile = along(predicted, test.reshape(-1, 3, 6), Slices("ms", places, 2), labels)
    r = measure_each("r", [profile.values[:1]], **HOW)[0]
    return r, PermutationTest.of(profile.values.mean(1), profile.null).corrected.min() < LEVEL


UNITS = [f"1200 clips, neighbours correlate {near}" for near in (0.0, 0.6, 0.9)]
UNITS += [f"{concepts} concepts of {pictures} pictures" for concepts in (40, 200) for pictures in (5, 10)]
CENTRES = (0.0, -1.5, -4.0, 3.0)
"""Mean logits: hits of .5, .25, .05 and .9."""
PEOPLE = {"subjects": (2, 4, 6, 8, 10, 15, 20), "sd": (0.3, 1.0), "centre": CENTRES}
POOLS = {"items": (50, ITEMS), "slope": (0.5, 2.0), "spread": (0.0, 0.7), "sd": (0.4, 0.8, 1.5, 3.0)}
SEEDS = {"rate": (0.2, 0.8), "seeds": ((1, 1), (1, 3), (1, 5), (3, 5))}
FILMS = {"items": ("1200 clips", "240 clips", f"200 pictures, {EACH} a concept"), "subjects": (1, 5)}
TABLES: dict[Callable[..., Any], tuple[Mapping[str, Sequence[Any]], str]] = {
    intervals_over_people: (PEOPLE, "mean hit | people in general | mean width | these subjects"),
    intervals_of_one_subject: (
        {"items": (10, 30, ITEMS), "seeds": (1, 3), "centre": (0.0, 2.2, 4.0)},
        "mean hit | coverage | mean width",
    ),
    intervals_of_units: (
        {"items": UNITS, "subjects": (1, 10), "centre": (0.0, -2.0)},
        "mean hit | over units | over items",
    ),
    intervals_of_shared_pools: (POOLS, "mean top-1 | coverage"),
    tests_of_methods: (
        {"by_item": (0.0, 0.3, 0.5, 1.0)},
        "minF′ | sign-flip | Wilcoxon | t | McNemar, pooled | interval without 0",
    ),
    tests_of_units: (
        {"items": UNITS},
        "verdict | over items | shuffled p | over items | equal runs differ | McNemar's",
    ),
    tests_of_seeds: (SEEDS, "compared | McNemar's on majorities"),
    verdicts_and_intervals: (
        {"subjects": (1, 5, 10)},
        "verdict not at chance | interval without chance | not the same",
    ),
    tests_along_a_course: (
        {"subjects": (1, 4), "effect": (0.0, 0.15)},
        "any time at corrected p < .05 | mean of the control",
    ),
    tests_of_shared_labels: (
        {"subjects": (1, 5, 10)},
        "permuted subject by subject | one permutation for all",
    ),
    tests_of_alike_items: (FILMS, "margin: one by one | in units | similarity: one by one | in units"),
    intervals_of_profiles: ({"clips": (240, 1200), "subjects": (1, 5)}, "over clips | over blocks"),
    similarity: ({"strength": (0.0, 0.5, 1.0)}, "mean rho | coverage | any of 5 times at corrected p < .05"),
    encoding: ({"strength": (0.0, 0.3)}, "mean r | coverage | any of 6 times at corrected p < .05"),
}
"""Of each simulation the values of its arguments, and what it gives, averaged over many."""


def average(results: Sequence[Sequence[Any]]) -> list[float]:
    """Average results; of metrics give the mean, and how often their intervals hold it."""
    columns: list[Any] = [*zip(*results, strict=True)]
    if hasattr(columns[0][0], "low"):
        truth = float(np.mean([metric.value for metric in columns[0]]))
        columns[:1] = [[truth], [holds(metric, truth) for metric in columns[0]]]
    return [float(np.mean(column)) for column in columns]


def main() -> None:
    """Print the chosen tables."""
    names = {simulate.__name__: simulate for simulate in TABLES}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("count", nargs="?", type=int, default=400, help="simulations of each row")
    parser.add_argument("--only", nargs="+", choices=names, default=list(names))
    args = parser.parse_args()
    for simulate in map(names.__getitem__, args.only):
        axes, columns = TABLES[simulate]
        print(f"\n{(simulate.__doc__ or '').splitlines()[0]} {args.count} simulations of each row\n")
        print(f"| {' | '.join(axes)} | {columns} |\n|{'---|' * (len(axes) + columns.count('|') + 1)}")
        for number, values in enumerate(product(*axes.values())):
            random = np.random.default_rng(number)
            work = partial(simulate, random, **dict(zip(axes, values, strict=True)))
            shares = average([work() for _ in range(args.count)])
            cells = ["–" if np.isnan(share) else f"{share:.3f}" for share in shares]
            print(f"| {' | '.join([*map(str, values), *cells])} |", flush=True)


if __name__ == "__main__":
    main()
