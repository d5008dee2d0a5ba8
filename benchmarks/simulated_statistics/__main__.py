"""How often intervals hold the truth and tests reject a true null, by simulation;
prints tables.

Hits are drawn from a logistic model: subjects and items are normal in logits, and
crossed; the truth is the mean over all people and pictures. Logits of neighbouring
clips, and of pictures of one concept, correlate. Signals carry what subjects saw (with
wrong labels that all share), or nothing. Beside our figures stand those of taking
items, or subjects, for independent. 400 simulations take half an hour on a core, and
folds as long.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.signal import lfilter
from scipy.signal.windows import tukey
from scipy.special import betaincc, betaln, expit, logit, xlog1py, xlogy
from scipy.stats import norm, t
from simulated_orders import (
    PICTURE_ORDERS,
    REPEATED,
    ceilings_by_order,
    sorted_pictures,
)
from sklearn.covariance import ledoit_wolf
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from brainhive_cli.core.facts import Answer
from brainhive_cli.data.recordings.samples import filter_samples
from brainhive_cli.data.signals.cutting import Cutting, Steps
from brainhive_cli.data.signals.holdout import Holdout
from brainhive_cli.data.signals.spaces import Sensors
from brainhive_cli.data.signals.trials import Trials
from brainhive_cli.evaluation.calibration.curves import (
    ENOUGH,
    GAIN,
    find_better,
    find_range,
)
from brainhive_cli.evaluation.explanation.claims import bound_onsets
from brainhive_cli.evaluation.explanation.encoding_model import along, predict_signals
from brainhive_cli.evaluation.explanation.findings import BEFORE, UNKNOWN, Finding
from brainhive_cli.evaluation.explanation.profiles import (
    Axis,
    Labels,
    Profile,
    correct_together,
    standardise,
)
from brainhive_cli.evaluation.explanation.similarity import (
    measure_similarity,
    rank_models,
)
from brainhive_cli.evaluation.retrieval.baseline import (
    AS_FILED,
    ORDERS,
    conclude,
    rank_by_ridge,
    try_orders,
)
from brainhive_cli.evaluation.retrieval.folds import measure_classes
from brainhive_cli.measurement.comparison import compare_values, crossed_t
from brainhive_cli.measurement.confidence_sequence import A, B, HitRate, interval
from brainhive_cli.measurement.interleaving import Interleaving
from brainhive_cli.measurement.ranks import ranks, ranks_of_all, summarise
from brainhive_cli.measurement.retrieval import (
    Gallery,
    Scores,
    measure_control,
    permute_targets,
    share_wins,
)
from brainhive_cli.measurement.slope import average_by_unit, fit_slope
from brainhive_cli.measurement.statistics import describe, measure, measure_each
from brainhive_cli.measurement.trial_order import TrialOrder
from brainhive_cli.measurement.units import MANY_SUBJECTS, MANY_UNITS, Alike, Items
from brainhive_cli.measurement.verdict import judge

Values = NDArray[np.float64]
Random = np.random.Generator
LEVEL, ITEMS, FEATURES, EACH = 0.05, 200, 60, 5
SHARES = np.array([5, 10, 20, 50, 100, 200, 400, 960]) / 960
ITEM_SD = 1.5
"""Standard deviation in logits; published values of subjects spread by up to 1."""
HOW: Mapping[str, Any] = {"protocol": "simulated", "split": "test", "is_share": False}
CLIPS, CONCEPT_OF = (
    Alike("neighbours", medium="clip"),
    dict(enumerate(np.arange(200) // EACH)),
)


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


def draw_concepts(
    random: Random, *shape: int, pictures: int = EACH, by_picture: float = 0.5
) -> Values:
    """Draw features [..., N, D] of pictures, of which those of a concept are alike."""
    several = (*shape[:-2], shape[-2] // pictures, shape[-1])
    return np.repeat(
        random.normal(size=several), pictures, -2
    ) + by_picture * random.normal(size=shape)


def alike_items(items: str) -> tuple[Items, float, Callable[[Random], Values]]:
    """Read the name of items that are alike: a subject's items, sd of a logit, how
    logits are drawn.
    """
    words = items.split()
    if words[1] == "clips,":
        near = float(words[-1])

        def film_logits(random: Random) -> Values:
            return ITEM_SD * draw_film(random, 5, 240, 1, near=near).reshape(1, -1)

        return CLIPS.items([list(range(1200))]), ITEM_SD, film_logits
    concepts, pictures = int(words[0]), int(words[3])
    settings: Any = {"pictures": pictures, "by_picture": 1 / ITEM_SD}
    concept_of = dict(enumerate(np.repeat(np.arange(concepts), pictures).tolist()))
    by = Alike("concept", concept_of).items([list(range(len(concept_of)))])

    def logits(random: Random) -> Values:
        return ITEM_SD * draw_concepts(random, len(concept_of), 1, **settings).T

    return by, float(np.hypot(ITEM_SD, 1)), logits


def intervals_over_people(
    random: Random, subjects: int, sd: float, centre: float
) -> list[float]:
    """Intervals of several subjects, for people in general and for these."""
    by_subject = centre + random.normal(0, sd, (subjects, 1))
    interval = describe(
        list(draw_hits(random, by_subject + random.normal(0, ITEM_SD, (1, ITEMS))))
    )
    truth = mean_hit(centre, float(np.hypot(ITEM_SD, sd)))
    here = float(np.mean([mean_hit(logit, ITEM_SD) for logit in by_subject[:, 0]]))
    low, high = interval.these_subjects
    return [
        truth,
        holds(interval, truth),
        interval.high - interval.low,
        low <= here <= high,
    ]


def intervals_of_one_subject(
    random: Random, items: int, seeds: int, centre: float
) -> list[float]:
    """The interval of one subject, by items and seeds."""
    logits = np.tile(random.normal(centre, ITEM_SD, (1, items)), (seeds, 1))
    interval, truth = describe([draw_hits(random, logits)]), mean_hit(centre, ITEM_SD)
    return [truth, holds(interval, truth), interval.high - interval.low]


def intervals_of_units(
    random: Random, items: str, subjects: int, centre: float
) -> list[float]:
    """Intervals of items that are alike, over units and over single items."""
    (units, sd, draw), between = alike_items(items), 0.3 if subjects > 1 else 0.0
    truth = mean_hit(centre, float(np.hypot(sd, between)))
    grouped = Items(
        list(units.ids) * subjects, list(units.units) * subjects, units.kind
    )
    drawn = draw_hits(
        random, centre + random.normal(0, between, (subjects, 1)) + draw(random)
    )
    return [
        truth,
        *(holds(describe(list(drawn), how), truth) for how in (grouped, None)),
    ]


def intervals_of_shared_pools(
    random: Random, items: int, slope: float, spread: float, sd: float
) -> Any:
    """The interval of top-1 where the items of a subject are each other's pool, around
    the mean of all.

    Features have a flat or a steep spectrum, as independent and as strongly correlated
    channels have, and items are equally strong or differ (log-normal).
    """
    pattern = (
        random.normal(size=(items, FEATURES)) * np.arange(1, FEATURES + 1) ** -slope
    )
    pattern *= sd * np.exp(spread * random.normal(size=(items, 1)))
    noise = (
        random.normal(size=(2, items, FEATURES)) * np.arange(1, FEATURES + 1) ** -0.5
    )
    halves = torch.from_numpy(pattern + noise).float()
    halves = halves - halves.mean(1, keepdim=True)
    first, second = halves - halves.mean(2, keepdim=True)
    return summarise(
        [ranks(first, second, torch.arange(items))], items, split="test", only=("top1",)
    )


def rank_all(signals: Values, pictures: Values) -> Values:
    """Rank all pictures [P, D] by each signal [N, D]: [N, P]."""
    order = (-(signals @ pictures.T)).argsort(1)
    counted = np.empty_like(order)
    np.put_along_axis(counted, order, np.arange(1, len(pictures) + 1)[None], 1)
    return counted.astype(np.float64)


def answer(ranked: Sequence[Values], items: Items, **options: Any) -> Answer:
    """Give the verdict of ranks of all items by all."""
    return judge(ranked, items, items.names, **options)[0]


def verdicts(
    random: Random, subjects: int, pictures: int, effect: float
) -> list[float]:
    """Verdict: level without an effect and under wrong labels that all share; power
    beside two peers.

    The permutation is one of 1,000 of labels shared by all subjects, as an oracle would
    write it here; t is of the mean rank of items, against that of guesses.
    """
    features, wrong = random.normal(size=(pictures, 20)), random.permutation(pictures)
    noise = random.normal(size=(subjects, pictures, 20))
    items = Items.independent([range(pictures)] * subjects, "pictures")
    pure = [rank_all(each, features) for each in noise]
    clear = [rank_all(features + each, features)[:, wrong] for each in noise]
    weak = [rank_all(effect * features + each, features) for each in noise]
    mean, rows = np.mean(weak, 0), np.arange(pictures)
    null = [mean[rows, random.permutation(pictures)].mean() for _ in range(999)]
    permuted = (
        1 + sum(value <= mean.trace() / pictures + 1e-9 for value in null)
    ) / 1000
    own = mean.diagonal()
    p = 2 * t.sf(
        abs(own.mean() - (pictures + 1) / 2) / own.std(ddof=1) * pictures**0.5,
        pictures - 1,
    )
    called = [
        answer(ranked, items).side != "at chance" for ranked in (pure, clear, weak)
    ]
    return [*called, 2 * permuted <= LEVEL, p <= LEVEL]


DESIGNS = {
    "100 + 20 x 5": [100] + [5] * 20,
    "Zipf, 20 concepts": [
        56,
        28,
        19,
        14,
        11,
        9,
        8,
        7,
        6,
        6,
        5,
        5,
        4,
        4,
        4,
        3,
        3,
        3,
        3,
        2,
    ],
    "Zipf, 40 concepts": [
        47,
        23,
        16,
        12,
        9,
        8,
        7,
        6,
        5,
        5,
        4,
        4,
        4,
        3,
        3,
        3,
        3,
        3,
        *[2] * 13,
        *[1] * 9,
    ],
    "60 40 20 20 10 10 10 10 5 5 5 5": [60, 40, 20, 20, 10, 10, 10, 10, 5, 5, 5, 5],
    "40 x 5": [5] * 40,
}
"""Pictures of each concept."""


def units_of_unequal_size(
    random: Random, design: str, subjects: int, centre: float
) -> list[float]:
    """Units of unequal size: coverage and width for units in general, and verdicts
    without an effect.

    Signals and pictures of a concept are alike, and have nothing to do with each other.
    """
    sizes = DESIGNS[design]
    concept = np.repeat(np.arange(len(sizes)), sizes)
    items = Alike("concept", dict(enumerate(map(str, concept)))).items(
        [range(len(concept))] * subjects
    )
    by_subject = centre + random.normal(0, 0.3 if subjects > 1 else 0.0, (subjects, 1))
    logits = ITEM_SD * random.normal(size=len(sizes))[concept] + random.normal(
        size=len(concept)
    )
    hits = draw_hits(random, by_subject + logits)
    interval = describe(list(hits), items)
    truth = np.mean(
        [mean_hit(logit, float(np.hypot(ITEM_SD, 1))) for logit in by_subject[:, 0]]
    )
    alike = random.normal(size=(2, len(sizes), 20))[:, concept]
    features, shared = alike + 0.5 * random.normal(size=alike.shape)
    ranked = [
        rank_all(shared + random.normal(size=shared.shape), features)
        for _ in range(subjects)
    ]
    return [
        holds(interval, truth),
        interval.high - interval.low,
        answer(ranked, items).side != "at chance",
    ]


def units_of_one_subject(
    random: Random, design: tuple[int, int], centre: float
) -> list[float]:
    """Runs of one subject each: coverage and width for these subjects, of hits and of
    normal values.

    A design is people, and runs of each. Runs of 40 trials vary by .7 in logits and in
    values, people by .3.
    """
    people, runs = design
    person, run = (
        random.normal(0, 0.3, (people, 1, 1)),
        random.normal(0, 0.7, (people, runs, 1)),
    )
    group_of = {
        (row, trial): f"{row} {trial % runs}"
        for row in range(people)
        for trial in range(40 * runs)
    }
    ids = [[(row, trial) for trial in range(40 * runs)] for row in range(people)]
    items = Alike(group_of=group_of, groups="runs").items(ids)
    logits = np.broadcast_to(
        (centre + person + run).transpose(0, 2, 1), (people, 40, runs)
    )
    values = [
        draw_hits(random, logits),
        logits - centre + random.normal(size=logits.shape),
    ]
    truths = [
        np.mean([mean_hit(centre + each, 0.7) for each in person.ravel()]),
        person.mean(),
    ]
    results = []
    for drawn, truth in zip(values, truths, strict=True):
        interval = describe(list(drawn.reshape(people, -1)), items)
        low, high = interval.these_subjects or (interval.low, interval.high)
        results += [low <= truth <= high, high - low]
    return results


def few_concepts(
    random: Random, concepts: int, pictures: int, drift: float
) -> list[float]:
    """Few concepts: coverage for these, false answers to each question, and both found
    at top-1 .6 of 20.

    With drift, the signals of a session share what has nothing to do with pictures, and
    three in four pictures of a concept were shown in its own session. Concepts are not
    equally decodable: the effect grows from the first to the last.
    """
    concept = np.repeat(np.arange(concepts), pictures)
    count, names = len(concept), dict(enumerate(map(str, concept)))
    items = Alike("concept", names).items([range(count)])
    options: Any = {"concept_of": names}
    strength = np.linspace(0.5, 1.5, concepts)[concept]
    logits = 2 * strength - 2 + random.normal(size=count)
    interval = describe([draw_hits(random, logits[None])[0]], items)
    truth = np.mean([mean_hit(2 * each - 2, 1.0) for each in strength])
    session = np.where(np.arange(count) % 4 > 0, concept, (concept + 1) % concepts)
    options["concept_parts"] = dict(enumerate(session.tolist()))
    features = random.normal(size=(concepts, 20))[concept] + random.normal(
        size=(count, 20)
    )
    drifted = drift * random.normal(size=(concepts, 20))[session]
    noise = random.normal(size=(count, 20))
    false = judge([rank_all(drifted + noise, features)], items, range(count), **options)
    seen = 0.7 * (count / 20) ** 0.2 * strength[:, None] * features + drifted
    right = judge([rank_all(seen + noise, features)], items, range(count), **options)
    top1 = float((rank_all(seen + noise, features).diagonal() == 1).mean())
    called = [[each.side == "above chance" for each in both] for both in (false, right)]
    return [holds(interval, truth), *called[0], top1, *called[1]]


def small_and_bounded(random: Random, items: int, strength: float, metric: str) -> Any:
    """Few items: coverage of the mean of all simulations, and width, of one subject.

    Items are each other's candidates: guesses at strength 0, nearly all found at 1.
    """
    features = random.normal(size=(items, 20))
    own = rank_all(
        strength * features + random.normal(size=(items, 20)), features
    ).diagonal()
    values = {
        "two-way": 1 - (own - 1) / (items - 1),
        "MRR": 1 / own,
        "top-1": (own == 1) * 1.0,
    }[metric]
    how: Any = {"protocol": "simulated", "split": "test", "limits": (0.0, 1.0)}
    return [measure(metric, [values], **how)]


def films(random: Random, clips: int, near: float) -> list[float]:
    """Films in a shuffled order: verdicts without an effect, coverage, and false
    differences.

    Neighbours correlate in signals, embeddings, hits and values, of which six people
    share half the variance.
    """
    names = random.permutation(clips).tolist()
    alike = Alike("neighbours", dict.fromkeys(range(clips), "film"), "clip")
    items, of_six = alike.items([names]), alike.items([names] * 6)
    features, signals = draw_film(random, 2, clips, 8, near=near)
    verdict = answer([rank_all(signals[names], features[items.names])], items)
    hits = draw_hits(random, ITEM_SD * draw_film(random, clips, 1, near=near).T)[
        :, names
    ]
    values = draw_film(random, clips, 1, near=near) + draw_film(
        random, 6, clips, 1, near=near
    )
    values = values[:, names, 0]
    described = [
        (describe(list(hits), items), 0.5),
        (describe([values[0]], items), 0.0),
    ]
    held = [
        np.nan if each.low is None else holds(each, truth) for each, truth in described
    ]
    pairs = [
        ([*each], [*(0 * each)], by)
        for each, by in ((values[:1], items), (values, of_six))
    ]
    p_values = [
        compare_values(first, second, items=by).p_value for first, second, by in pairs
    ]
    shown = [np.nan if p is None else p <= LEVEL for p in p_values]
    return [
        verdict.side == "above chance",
        verdict.side == "not testable",
        *held,
        *shown,
    ]


def controls_of_films(random: Random, clips: int, near: float) -> list[float]:
    """Give how often a control of permuted pictures of a film says p <= .05, by metric,
    where signals carry nothing.
    """
    names = [f"{number:04d}" for number in range(clips)]
    film = Gallery({"test": np.arange(clips)}, names, ["film"] * clips, "neighbours")
    pictures, signals = (
        torch.from_numpy(draw_film(random, 8, clips, near=near).T.copy())
        for _ in range(2)
    )
    shown = np.arange(clips)
    seed = int(random.integers(2**31))
    _, *drawn = permute_targets(shown, film, "permuted", seed, ())
    found = measure_control(film, pictures, signals, [shown, *drawn])
    return [
        float(np.mean(values <= values[0] if "rank" in name else values >= values[0]))
        <= LEVEL
        for name, values in found.items()
    ]


def differences(
    random: Random, subjects: int, pictures: int, by: str, effect: float
) -> list[float]:
    """Differences: how often two methods differ at p < .05, beside an oracle that knows
    what varies.

    An item's difference has noise of sd .7; subjects vary by .1, pictures by .35, where
    they do. To four subjects, the oracle is a t test over items.
    """
    by_subject = 0.1 * ("subjects" in by) * random.normal(size=(subjects, 1))
    by_picture = 0.35 * ("pictures" in by) * random.normal(size=(1, pictures))
    noise = 0.7 * random.normal(size=(subjects, pictures))
    if subjects < MANY_SUBJECTS:  # the claim is about these, who are equal on average
        by_subject, by = by_subject - by_subject.mean(), "pictures"
    drawn = by_subject + by_picture + noise
    sd = np.sqrt(drawn_variance(subjects, pictures, by))
    drawn = drawn + effect * sd
    result = compare_values(list(drawn), list(0 * drawn))
    of_items, of_subjects = drawn.mean(0), drawn.mean(1)
    shared = max(
        0.0,
        of_items.var(ddof=1) / pictures
        - drawn.var(1, ddof=1).mean() / pictures / subjects,
    )
    errors, freedom = {
        "pictures": ([of_items.var(ddof=1) / pictures], [pictures - 1]),
        "subjects": ([of_subjects.var(ddof=1) / subjects], [subjects - 1]),
        "both": (
            [of_subjects.var(ddof=1) / subjects, shared],
            [subjects - 1, pictures - 1],
        ),
    }["both" if " " in by else by]
    total = sum(errors)
    satterthwaite = total**2 / sum(
        error**2 / free for error, free in zip(errors, freedom, strict=True)
    )
    oracle = 2 * t.sf(abs(drawn.mean()) / total**0.5, satterthwaite) < LEVEL
    is_shown = result.p_value is not None and result.p_value <= LEVEL
    holds_zero = result.low is not None and result.low <= 0 <= result.high
    return [is_shown, oracle, is_shown == holds_zero]


def drawn_variance(subjects: int, pictures: int, by: str) -> float:
    """Variance of the mean difference of a design."""
    parts = [
        0.1**2 / subjects * ("subjects" in by),
        0.35**2 / pictures * ("pictures" in by),
    ]
    return sum(parts) + 0.7**2 / subjects / pictures


def differences_near_a_limit(
    random: Random, subjects: int, seeds: int, items: int, rates: tuple[float, float]
) -> list[float]:
    """Differences of hits near a limit: coverage for people and pictures in general,
    width, and power.

    Pictures are as hard for both methods (sd 1.5 in logits) and for each (.7); people
    in general vary by .5 and by .25 with the method. Rates are of the mean picture and
    person.
    """
    sd = 0.5 * (subjects >= MANY_SUBJECTS)
    shared = random.normal(0, ITEM_SD, (1, 1, 1, items)) + random.normal(
        0, sd, (1, subjects, 1, 1)
    )
    by_method = random.normal(0, 0.7, (2, 1, 1, items)) + random.normal(
        0, sd / 2, (2, subjects, 1, 1)
    )
    centres = logit(rates)
    drawn = np.broadcast_to(
        centres[:, None, None, None] + shared + by_method, (2, subjects, seeds, items)
    )
    result = compare_values(*(list(hits) for hits in draw_hits(random, drawn)))
    spread = float(np.sqrt(ITEM_SD**2 + 0.7**2 + 1.25 * sd**2))
    first, second = (mean_hit(float(centre), spread) for centre in centres)
    is_shown = result.p_value is not None and result.p_value <= LEVEL
    low, high = (-1.0, 1.0) if result.low is None else (result.low, result.high)
    held = low <= first - second <= high
    return [first, second, held, high - low, is_shown, is_shown == (low <= 0 <= high)]


def best_of_many(random: Random, variants: int) -> list[float]:
    """Best of equal variants: how far its test top-1 lies above the truth, by how it
    was chosen.
    """
    truth = mean_hit(0, ITEM_SD)
    logits = random.normal(0, ITEM_SD, (2, 1, ITEMS))
    validation, test = (
        draw_hits(random, np.repeat(half, variants, 0)).mean(1) for half in logits
    )
    return [float(test.max()) - truth, float(test[validation.argmax()]) - truth]


def score_categories(
    learned: Values, category: NDArray[np.int64], tested: Values
) -> Values:
    """Fit linear discriminant analysis with shrinkage to signals [N, F], and score
    others: [M, K].
    """
    counts = np.bincount(category)
    means = np.eye(len(counts))[category].T @ learned / np.maximum(counts, 1)[:, None]
    covariance = ledoit_wolf(learned - means[category], assume_centered=True)[0]
    weights = np.linalg.solve(covariance, means.T)  # [F, K]
    return np.asarray(
        tested @ weights - (means.T * weights).sum(0) / 2 + np.log(counts + 1e-9)
    )


def pooled_folds(random: Random, design: str, effect: float) -> list[Any]:
    """Runs or trials in folds: coverage of accuracy for the mean of all simulations,
    and verdicts.

    A design has so many categories of fixed patterns, and trials of each in a run.
    Where runs drift, their trials share an offset and a linear trend, each as strong as
    the noise of a trial; runs are new in each simulation, or the same. Each fold is
    classified by linear discriminant analysis with shrinkage, fitted to the trials of
    all others.

    Source: Ledoit and Wolf 2004 (shrinkage of the covariance).
    """
    runs, folds, categories, trials = (
        int(word) for word in design.split() if word.isdigit()
    )
    shape = (categories, runs * trials, 30)
    run = np.tile(np.repeat(np.arange(runs), trials), (categories, 1))
    category = np.tile(np.arange(categories)[:, None], shape[1])

    # signals [K, N, F]; patterns are weaker where there are many trials to learn from
    patterns = np.random.default_rng(categories).normal(size=(categories, 1, shape[2]))
    signals = effect * shape[1] ** -0.25 * patterns + random.normal(size=shape)
    if "drift" in design:
        of_runs = np.random.default_rng(runs) if "same" in design else random
        offset, trend = of_runs.normal(size=(2, runs, shape[2]))
        signals += offset[run] + random.uniform(-1, 1, (*run.shape, 1)) * trend[run]

    # folds [K, N], as `Holdout` deals runs and the trials of each category
    is_by_trial = design.startswith("trials")
    dealt = random.permuted(np.tile(np.arange(shape[1]), (categories, 1)), axis=1)
    fold = (
        (dealt + np.arange(categories)[:, None]) % folds if is_by_trial else run % folds
    )

    # ranks [K * N, K] of the categories by each trial
    ranked, flat = np.empty((run.size, categories)), signals.reshape(run.size, -1)
    for number in range(folds):
        is_tested = fold.ravel() == number
        scores = score_categories(
            flat[~is_tested], category.ravel()[~is_tested], flat[is_tested]
        )
        ranked[is_tested] = rank_all(scores, np.eye(categories))

    # interval and verdicts, as of an evaluation
    group_of, label_of = (
        dict(enumerate(each.ravel().tolist())) for each in (run, category)
    )
    items = Alike(
        group_of=group_of, groups="trials" if is_by_trial else "runs", has_folds=True
    ).items([[*group_of]])
    own = ranked[np.arange(len(ranked)), category.ravel()]
    top1 = summarise([own], categories, split="test", items=items, only=("top1",))
    tested_with = dict(enumerate(fold.ravel().tolist())) if is_by_trial else group_of
    items = replace(items, parts=tested_with)
    side = judge([ranked], items, range(categories), label_of=label_of)[0].side
    return [*top1, side == "above chance", side == "below chance"]


def verdicts_under_drift(random: Random, design: str, effect: float) -> list[float]:
    """Six runs of four categories, ten trials each, whose signals drift: verdicts with
    and without order.

    Drift is a moving average over some thirty trials, as strong as the noise of a
    trial, and of one course in all runs where labels have one order; so are offsets of
    runs. Learners are those of pooled folds.
    """
    shown, _, by = design.partition(", out: ")
    size = {"blocks of 10": 10, "one order": 10, "blocks of 3": 3, "pairs": 2}.get(
        shown, 1
    )
    run, orders = np.repeat(np.arange(6), 40), []
    for number in range(6):
        blocks = random.permutation(
            np.repeat(np.arange(4), 12 // size + 1 if size < 10 else 1)
        )
        blocks = {
            "one order": np.arange(4),
            "a category a run": np.full(40, number % 4),
            "one random order": (orders or [blocks])[0],
        }.get(shown, blocks)
        orders.append(np.repeat(blocks, size)[:40])
    category = np.concatenate(orders)

    # signals [N, F]
    is_shared = shown in ("one order", "one random order")
    courses = gaussian_filter1d(
        random.normal(size=(1 if is_shared else 6, 100, 30)), 12, axis=1
    )
    drift = np.broadcast_to(courses[:, 30:70] / courses.std(), (6, 40, 30)).reshape(
        240, 30
    )
    patterns = np.random.default_rng(4).normal(size=(4, 30)) * 240**-0.25
    signals = effect * patterns[category] + drift + random.normal(size=(6, 30))[run]
    signals = signals + random.normal(size=(240, 30))

    # ranks [N, 4] of the categories by each trial
    fold, ranked = (
        random.permutation(240) % 6 if by == "trials" else run,
        np.empty((240, 4)),
    )
    for number in range(6):
        is_tested = fold == number
        scores = score_categories(
            signals[~is_tested], category[~is_tested], signals[is_tested]
        )
        ranked[is_tested] = rank_all(scores, np.eye(4))

    # verdicts with labels exchanged within what was interleaved, and freely or within
    # runs
    order = TrialOrder.of(
        np.arange(240), category.tolist(), None, run, np.arange(240.0)
    )
    found = Interleaving.from_trials(order, fold, by)
    label_of, parts, blocks = (
        dict(enumerate(each)) for each in (category.tolist(), found.parts, found.blocks)
    )
    items = Alike(
        group_of=dict(enumerate(run.tolist())), groups=by, has_folds=True
    ).items([[*range(240)]])
    allowed = replace(items, parts=parts, problem=found.problem)
    naive = replace(
        items, parts={} if by == "trials" else dict(enumerate(run.tolist()))
    )
    sides = [
        judge([ranked], each, range(4), label_of=label_of, blocks=listed)[0].side
        for each, listed in ((allowed, blocks), (naive, None))
    ]
    accuracy = float((ranked[np.arange(240), category] == 1).mean())
    answers = [(side == "above chance", side == "below chance") for side in sides]
    return [accuracy, *answers[0], sides[0] == "not testable", *answers[1]]


def equal_learners(
    random: Random, design: str, effect: float, surplus: float
) -> list[float]:
    """Learners on the same folds: how often they differ, beside sign flips that take
    trials as they come.

    Half of the features is for one, half for the other, which carry as much; the first
    one's effect is larger by a surplus. Designs are those of pooled folds.
    """
    runs, folds, categories, trials = (
        int(word) for word in design.split() if word.isdigit()
    )
    run, category = (
        np.repeat(np.arange(runs), categories * trials),
        np.tile(np.arange(categories), runs * trials),
    )
    patterns = (
        np.random.default_rng(categories).normal(size=(categories, 15))
        * (runs * trials) ** -0.25
    )
    held_out = "trials" if design.startswith("trials") else "runs"
    fold = (random.permutation(len(run)) if held_out == "trials" else run) % folds

    # hits of both learners
    hits = np.empty((2, len(run)))
    for learner, strength in enumerate((effect + surplus, effect)):
        signals = strength * patterns[category] + random.normal(size=(len(run), 15))
        if "drift" in design:
            offset, trend = random.normal(size=(2, runs, 15))
            signals += offset[run] + random.uniform(-1, 1, (len(run), 1)) * trend[run]
        for number in range(folds):
            is_tested = fold == number
            scores = score_categories(
                signals[~is_tested], category[~is_tested], signals[is_tested]
            )
            hits[learner, is_tested] = scores.argmax(1) == category[is_tested]

    # p, with the variance of folds, and without
    items = Alike(
        group_of=dict(enumerate(run.tolist())), groups=held_out, has_folds=True
    ).items([[*range(len(run))]])
    compared = [
        compare_values(hits[:1], hits[1:], items=each)
        for each in (items, replace(items, inflation=1.0))
    ]
    return [
        hits.mean(),
        *(each.p_value is not None and each.p_value <= LEVEL for each in compared),
    ]


def folds_of_pictures(
    random: Random, concepts: int, effect: float, drift: float
) -> list[Any]:
    """100 pictures in 10 folds: the same for top-1 of ten by a ridge from signals to
    embeddings.

    Pictures are new in each simulation, how signals carry embeddings is the same, and
    so are two concepts; twenty are new, too. With drift, ten pictures that were drawn
    of all were shown in each run.
    """
    fixed = np.random.default_rng(2)
    concept, mixing = (
        np.arange(100) * concepts // 100,
        fixed.normal(size=(20, 30)) / 20**0.5,
    )
    centres = (fixed if concepts < MANY_UNITS else random).normal(size=(concepts, 20))
    embeddings = centres[concept] + random.normal(size=(100, 20))
    run, offset = random.permutation(100) // 10, drift * random.normal(size=(10, 30))
    signals = effect * embeddings @ mixing + offset[run] + random.normal(size=(100, 30))

    # ranks of all pictures; those of other folds have none
    names, ranked, fold_of = [*range(100)], np.zeros((100, 100)), {}
    holdout = Holdout(by="pictures", folds=10)
    for fold in holdout.fold_numbers:
        is_tested = holdout.hold_out_pictures(
            list(map(str, names)), list(map(str, concept)), fold
        )
        train, target = signals[~is_tested], embeddings[~is_tested]
        centred = train - train.mean(0)
        penalised = centred.T @ centred + 30 * np.eye(30)
        weights = np.linalg.solve(penalised, centred.T @ (target - target.mean(0)))
        predicted, candidates = (
            (signals[is_tested] - train.mean(0)) @ weights,
            embeddings[is_tested],
        )
        candidates = candidates - target.mean(0)
        candidates /= np.linalg.norm(candidates, axis=1, keepdims=True)
        ranked[np.ix_(is_tested, is_tested)] = rank_all(predicted, candidates)
        fold_of |= dict.fromkeys(np.flatnonzero(is_tested).tolist(), fold)

    # interval and verdicts, as of an evaluation
    concept_of = dict(zip(names, map(str, concept), strict=True))
    items = Alike("concept", concept_of, has_folds=True).items([names])
    top1 = summarise([ranked.diagonal()], 10, split="test", items=items, only=("top1",))
    items = replace(items, parts=fold_of)
    answers = judge([ranked], items, names, fold_of, concept_of, pool=10)
    asked = ("over concepts", "which picture", "which concept")
    sides = {each.question: each.side == "above chance" for each in answers}
    return [*top1, *(sides.get(question, np.nan) for question in asked)]


def calibration(random: Random, people: int, draws: int, centre: float) -> list[float]:
    """Calibration: coverage of top-1 over draws, for people in general and for these.

    People differ by .5 in logits, draws by .15 for each person by itself; pictures are
    the same for all. Widths are of people in general.
    """
    # hits [people, draws, N] after few recordings
    picture = random.normal(0, ITEM_SD, (1, 1, ITEMS))
    person, by_draw = (
        random.normal(0, 0.5, (people, 1, 1)),
        random.normal(0, 0.15, (people, draws, 1)),
    )
    few = draw_hits(random, centre + person + by_draw + picture)

    # top-1, for people in general and for these
    spread = float(np.hypot(ITEM_SD, 0.15))
    truth = mean_hit(centre, float(np.hypot(spread, 0.5)))
    here = float(
        np.mean([mean_hit(centre + offset, spread) for offset in person.ravel()])
    )
    how: Any = {"protocol": "simulated", "split": "test", "limits": (0.0, 1.0)}
    metric = measure("top1", [*few], **how)
    low, high = metric.people or (np.nan, np.nan)
    first, last = metric.these_subjects or (np.nan, np.nan)
    return [
        truth,
        np.nan if np.isnan(low) else low <= truth <= high,
        high - low,
        first <= here <= last,
    ]


def sufficient_amounts(
    random: Random, people: int, draws: int, centre: float
) -> list[float]:
    """Calibration: how often a range holds the first of eight amounts that gives 90 %
    of everything.

    Logits grow from -3 to a centre by a power of the amount, .1, which varies over
    people by .3 (log-normal); people, draws and pictures vary as above. Beside it, the
    first amount that does so by its value.
    """
    quantiles = norm.ppf((np.arange(100) + 0.5) / 100)
    spread = float(np.hypot(ITEM_SD, np.hypot(0.5, 0.15)))

    def curve(deviate: Any) -> Any:
        return -3 + (centre + 3) * SHARES[:, None] ** (0.1 * np.exp(0.3 * deviate))

    truth = expit(curve(quantiles)[..., None] + spread * quantiles).mean((1, 2))
    first = int((truth < ENOUGH * truth[-1]).sum())

    # hits [A, people, N], averaged over draws; of everything there is one draw
    logits = curve(random.normal(size=people))[..., None, None] + random.normal(
        0, 0.5, (people, 1, 1)
    )
    logits = logits + random.normal(0, 0.15, (8, people, draws, 1))
    hits = draw_hits(random, logits + random.normal(0, ITEM_SD, 100))
    hits[-1] = hits[-1, :, :1]
    hits = hits.mean(2)

    # the range, and the first amount by its value
    ends = [
        crossed_t(list(few - ENOUGH * hits[-1]), Items.unnamed([100] * people))[1:]
        for few in hits[:-1]
    ]
    low, high = find_range(ends)
    shares = hits.mean((1, 2)) / hits[-1].mean()
    by_value = 1 + max(np.flatnonzero(shares[:-1] < ENOUGH), default=-1)
    return [
        first,
        by_value == first,
        low <= first <= high,
        high - low,
        low == 0 and high == 7,
    ]


def better_amounts(random: Random, people: int, draws: int, gain: float) -> list[float]:
    """Calibration: how often transfer is said to beat scratch at one of eight amounts.

    Both have logits from -3 to -1; of the first four amounts, transfer has more by the
    gain. Draws of recordings vary by .25. Beside it stands an interval at each amount.
    """
    item, person = random.normal(0, ITEM_SD, 100), random.normal(0, 0.5, (people, 1))
    items, gains, apart = Items.unnamed([100] * people), [], []
    for amount, level in enumerate(np.linspace(-3, -1, 8)):
        count = draws if amount < 7 else 1
        surplus = gain if amount < 4 else 0.0
        with_, without = (
            draw_hits(
                random,
                level
                + more
                + item
                + person[:, None]
                + random.normal(0, 0.25, (people, count, 1)),
            ).mean(1)
            for more in (surplus, 0.0)
        )
        gains.append([*(with_ - without)])
        options: Any = {"limits": (-1.0, 1.0), "chance": 0.0, "items": items, **HOW}
        low = measure(GAIN, gains[-1], **options).low
        apart.append(low is not None and low > 0)
    up_to, no_better = find_better(gains, items) or (0, 8)
    return [
        float(any(apart)),
        float(up_to > 0),
        float(up_to == 4),
        float(no_better < 8),
    ]


def unequal_categories(
    random: Random, design: str, counts: tuple[int, int], effect: float
) -> list[float]:
    """Two categories that are unequally frequent: coverage and width of balanced
    accuracy and AUC.

    Scores of trials are normal and differ by an effect; the rarer category is named too
    seldom. Scores of a run share an offset of sd .5, where there are runs.
    """
    # scores of trials, by run
    runs, label = (
        int(design.split()[0]) if "runs" in design else 1,
        np.repeat([0, 1], counts),
    )
    run, sd = random.permutation(len(label)) % runs, 0.5 * (runs > 1)
    score = (
        effect * label
        + random.normal(size=len(label))
        + random.normal(0, sd, runs)[run]
    )
    named = score > effect / 2 + 0.3
    tokens = torch.from_numpy(np.stack([np.ones_like(score), np.exp(score)], 1))
    wins = share_wins(tokens, label, torch.eye(2, dtype=torch.float64))

    # both metrics, and what they are of all trials and runs
    group_of = dict(enumerate(run.tolist()))
    items = Alike(group_of=group_of, groups="runs" if runs > 1 else "trials").items(
        [[*group_of]]
    )
    scores = Scores(labels=label.tolist(), ranks=2 - (named == label), wins=wins)
    metrics = measure_classes(
        [[scores]], {**HOW, "is_share": None, "items": items, "pool": 2}
    )
    recalls = norm.cdf((np.array([effect, effect]) / 2 + [0.3, -0.3]) / np.hypot(1, sd))
    areas = norm.cdf(effect / np.sqrt([2 + 2 * sd**2, 2]))
    truths = {
        "balanced_accuracy": recalls.mean(),
        "auc": np.average(areas, weights=[runs - 1, 1]),
    }
    results = []
    for name, truth in truths.items():
        results += [
            truth,
            holds(metrics[name], truth),
            metrics[name].high - metrics[name].low,
        ]
    return results


def draw_live_hits(
    random: Random, design: str, rate: float, trials: int
) -> tuple[Values, Values]:
    """Draw hits of trials, and what their mean stands for after each: the rate of all,
    or of those so far.

    Pictures have hit probabilities from a Beta distribution with that mean, a + b = 2,
    and are drawn anew in each simulation; the rate of all is theirs. A drifting rate
    goes up, down, or as a wave by 1.5 in logits.
    """
    if design.endswith(("replacement", "rounds")):
        probabilities = random.beta(2 * rate, 2 * (1 - rate), int(design.split()[0]))
        if design.endswith("replacement"):
            order = random.integers(len(probabilities), size=trials)
        else:  # each picture once in random order, then again
            rounds = -(-trials // len(probabilities))
            order = random.permuted(
                np.tile(np.arange(len(probabilities)), (rounds, 1)), axis=1
            ).ravel()[:trials]
        hits = random.random(trials) < probabilities[order]
        return hits.astype(np.float64), np.full(trials, probabilities.mean())
    course = np.zeros(trials)
    if design != "equal pictures":
        at = np.linspace(-1, 1, trials)
        course = (
            1.5
            * {"up": at, "down": -at, "wave": np.sin(4 * np.pi * at)}[
                design.split()[-1]
            ]
        )
    by_trial = expit(logit(rate) + course)
    average = np.cumsum(by_trial) / np.arange(1, trials + 1)
    return (random.random(trials) < by_trial).astype(np.float64), average


def live(random: Random, design: str, rate: float, trials: int = 2000) -> list[float]:
    """A hit rate that is looked at after each trial: whether an interval ever misses
    it, and mean widths.

    Wilson's interval, which is for one moment, is looked at from the 20th trial on. Of
    a rate that drifts, intervals are to hold the average up to each trial. The share
    that misses at the last trial is given, too.
    """
    hits, truth = draw_live_hits(random, design, rate, trials)
    n = np.arange(1, trials + 1)
    k = np.cumsum(hits)

    # ours misses where the martingale is too large for the truth, which needs no ends
    ratio = (
        betaln(k + A, n - k + B)
        - betaln(A, B)
        - xlogy(k, truth)
        - xlog1py(n - k, -truth)
    )
    misses = ratio >= -np.log(LEVEL)

    # Wilson's, by its score; and the widths of ours
    score = np.abs(k / n - truth) / np.sqrt(truth * (1 - truth) / n)
    wilson = (score > norm.ppf(1 - LEVEL / 2))[19:]
    ends = [
        interval(int(k[size - 1]), size) if size <= trials else (0, np.nan)
        for size in (20, 100, 1000)
    ]
    widths = [high - low for low, high in ends]
    return [
        float(truth[-1]),
        misses.any(),
        wilson.any(),
        misses[-1],
        wilson[-1],
        *widths,
    ]


def draw_pictures(
    random: Random, shown: str, trials: int
) -> tuple[NDArray[np.int64], int]:
    """Draw which picture each trial shows, and count them: by shares, which may change,
    or in an order.
    """
    if shown == "shares change":
        share = 0.5 + 0.3 * np.cos(np.linspace(0, np.pi, trials))
        return (random.random(trials) > share).astype(np.int64), 2
    shares = np.array([*map(float, shown.split()[0].split("/"))])
    count = len(shares) if len(shares) > 1 else int(shares[0])
    if shown.endswith("in blocks"):
        return np.repeat(random.integers(count, size=-(-trials // 10)), 10)[
            :trials
        ], count
    if shown.endswith("in rounds"):
        return random.permuted(
            np.tile(np.arange(count), (trials // count, 1)), axis=1
        ).ravel(), count
    return random.choice(
        count, trials, p=shares / shares.sum() if len(shares) > 1 else None
    ), count


def live_tests(
    random: Random, shown: str, answers: str, trials: int = 2000
) -> list[float]:
    """A test of a hit rate that is looked at after each trial: whether it ever says
    more than chance.

    Answers know nothing, or are right in a share of the trials more than by chance.
    Beside our test stands the one against 1 / pictures. Given is also the share of
    sessions that are said to come in blocks.
    """
    pictures, count = draw_pictures(random, shown, trials)
    shares = np.bincount(pictures, minlength=count) / trials
    walks = np.cumsum(random.normal(size=(trials, count)), axis=0)
    answered = {
        "most frequent": lambda: np.full(trials, shares.argmax()),
        "as frequent": lambda: random.choice(count, trials, p=shares),
        "drifting": lambda: (walks - walks.mean(0)).argmax(1),
    }.get(answers, lambda: random.integers(count, size=trials))()
    if answers.endswith("right"):
        answered = np.where(
            random.random(trials) < float(answers.split()[0]), pictures, answered
        )

    # ours, and the beta mixture of rates above 1 / pictures
    rate, p_values = HitRate(count), []
    for first, second in zip(pictures.tolist(), answered.tolist(), strict=True):
        rate.add(str(first), str(second))
        p_values.append(rate.p_value)
    n, k = np.arange(1, trials + 1), np.cumsum(pictures == answered)
    weight = betaincc(k + A, n - k + B, 1 / count) / betaincc(A, B, 1 / count)
    ratio = (
        betaln(k + A, n - k + B)
        - betaln(A, B)
        - xlogy(k, 1 / count)
        - xlog1py(n - k, -1 / count)
    )
    is_more = np.log(np.maximum(weight, 1e-300)) + ratio >= -np.log(LEVEL)
    is_ours = np.array(p_values) <= LEVEL
    return [
        is_ours.any(),
        is_more.any(),
        is_ours[:200].any(),
        is_more[:200].any(),
        not rate.is_interleaved,
    ]


def correct(measured: Values, null: Values) -> Values:
    """Compute p [P] of the largest over all positions of one test."""
    return correct_together([standardise(measured, null)])[0]


def is_significant(profiles: Sequence[Profile]) -> bool:
    """Whether a profile of all subjects is above its control anywhere."""
    measured, null = (
        np.mean(each, 0)
        for each in zip(*[(p.values.mean(1), p.null) for p in profiles], strict=True)
    )
    return bool(correct(measured, null).min() < LEVEL)


def profile_margins(signals: Values, targets: Values, labels: Labels) -> Profile:
    """Look up margins of signals [P, N, D] with targets [N, D], as analyses of a model
    do.
    """
    cosine = (signals @ targets.T) / signals.shape[-1]
    return Profile.of(
        "margin",
        Axis("ms", range(len(signals))),
        cosine - cosine.mean(-1, keepdims=True),
        labels,
    )


def tests_along_a_course(random: Random, subjects: int, effect: float) -> list[float]:
    """A margin along a course: right pairs are more similar by an effect; pictures
    differ.
    """
    easy, profiles = random.normal(size=(1, 40)), []
    for _ in range(subjects):
        noise = random.normal(size=(24, 40, 40)) + 0.5 * easy
        smooth = np.mean([noise[shift : shift + 20] for shift in range(5)], 0)
        labels = Labels.of(np.arange(40), Items.unnamed([40]), 200, 1)
        profiles.append(
            Profile.of(
                "margin", Axis("ms", range(20)), smooth + effect * np.eye(40), labels
            )
        )
    return [
        is_significant(profiles),
        float(np.mean([profile.null.mean() for profile in profiles])),
    ]


def tests_of_many_profiles(random: Random, effect: float) -> list[float]:
    """Twelve profiles of 60 pictures, margins and shares, of which the first three may
    have an effect.
    """
    places, tests = np.arange(60), []
    labels = Labels.of(places, Items.unnamed([60]), 200, int(random.integers(2**31)))
    axis, shared = Axis("ms", range(20)), 0.5 * random.normal(size=(20, 60, 60))
    for analysis in range(6):
        matrices = (
            shared
            + random.normal(size=shared.shape)
            + effect * (analysis == 0) * np.eye(60)
        )
        profiles = [Profile.of("margin", axis, matrices, labels)]
        if analysis < 3:
            ranked = (-matrices).argsort(2).argsort(2) + 1
            profiles += [*Profile.of_ranks(axis, ranked, labels, 60).values()][:2]
        tests += [
            standardise(profile.values.mean(1), profile.null) for profile in profiles
        ]
    alone = [correct_together([scores])[0] for scores in tests]
    pairs = [
        [p.min() < LEVEL for p in listed] for listed in (alone, correct_together(tests))
    ]
    return [float(share) for found in pairs for share in (any(found), found[0])]


def misfiled(random: Random, subjects: int, effect: float, order: str) -> list[float]:
    """How often a ridge says that pictures are filed in a wrong order, and the right
    one.

    Signals of 40 features are of 100 training and 24 test pictures with 12 features;
    the test pictures of the last subject lie in the given order.
    """
    known, candidates = random.normal(size=(100, 12)), random.normal(size=(24, 12))
    rows, tried = np.arange(24), []
    for subject in range(1, subjects + 1):
        mixing = effect * random.normal(size=(12, 40)) / 12**0.5
        train = known @ mixing + random.normal(size=(100, 40))
        test = candidates @ mixing + random.normal(size=(24, 40))
        test = test[ORDERS[order if subject == subjects else AS_FILED](rows)]
        signals, targets, tested, shown = map(
            as_floats, (train, known, test, candidates)
        )
        orders = {name: refile(np.arange(100)) for name, refile in ORDERS.items()}
        ranked = rank_by_ridge(signals, targets, orders, tested, shown)
        tried += try_orders(subject, ranked, rows, rows, Alike())
    found = conclude(tried).order
    is_right = found == (
        f"training pictures of subject {subjects} {AS_FILED} and test pictures {order}"
    )
    return [float(found != ""), float(is_right)]


def as_floats(values: Values) -> torch.Tensor:
    """Copy values to a float32 tensor."""
    return torch.from_numpy(values.copy()).float()


def slopes(
    random: Random, common: float, pictures: tuple[int, int], effect: float
) -> list[float]:
    """Slope of scores over the cosine with the nearest training picture, of a ridge
    on noise, or on signals that hold training pictures near the seen ones.
    """
    # embeddings with a common direction, as CLIP's; 64 dimensions
    known_count, tested_count = pictures
    vectors = common * random.normal(size=64) + random.normal(
        size=(known_count + tested_count, 64)
    ) * np.exp(-np.arange(64) / 30)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    known, tested = vectors[:known_count], vectors[known_count:]
    cosines = tested @ known.T
    nearest = cosines.max(1)

    # a ridge with an intercept on 150 features; an effect adds what is known of each
    # picture to the prediction, the more the nearer it lies
    train = random.normal(size=(known_count, 150))
    test = random.normal(size=(tested_count, 150))
    kernel = train.T @ train + known_count * np.eye(150)
    weights = np.linalg.solve(kernel, train.T @ (known - known.mean(0)))
    predicted = test @ weights + known.mean(0)
    near = (nearest - nearest.min()) / np.ptp(nearest)
    predicted += effect * near[:, None] * known[cosines.argmax(1)]

    # with and without the ranks by signals of other pictures
    tokens = (torch.from_numpy(each).float() for each in (predicted, tested))
    table, names = ranks_of_all(*tokens, tested_count), [*map(str, range(tested_count))]
    scores = Scores(labels=names, candidates=names, table=table)
    alone = 1 - (table.diagonal() - 1) / (tested_count - 1)
    found = []
    for surplus in (alone, scores.surplus()):
        cell = {"units": names, "nearest": nearest, "surplus": surplus}
        slope = fit_slope(*average_by_unit([cell]), protocol="", split="test", seeds=())
        found += [slope.low is not None and slope.low > 0]
    return [*map(float, found), float(slope.high is not None and slope.high < 0)]


def onsets(random: Random, band_hz: Any, baseline: bool, length_ms: int) -> list[float]:
    """First time above chance of an effect from 250 ms on, in trials cut out of
    zero-phase filtered noise.
    """
    # two categories in 320 trials, 8 channels, 250 Hz
    fields: Any = {
        "epoch_ms": (-200, 800),
        "keep_ms": (-200, 800),
        "baseline": baseline,
        "whiten": "no",
    }
    steps, shown = Steps.model_validate(fields), random.permutation(np.arange(320) % 2)
    begins = 2500 + np.cumsum(random.integers(250, 350, 320))
    samples = random.normal(size=(8, begins[-1] + 2500))
    samples = lfilter([0.2], [1, -0.98], samples) + 0.5 * random.normal(
        size=samples.shape
    )
    patterns, course = random.normal(size=(2, 8)), 1.5 * tukey(length_ms // 4, 0.2)
    for begin, category in zip(begins + 62, shown, strict=True):
        samples[:, begin : begin + len(course)] += patterns[category, :, None] * course
    filtered = [filter_samples(channel, 250.0, band_hz, "zero") for channel in samples]
    cutting, names = Cutting(steps, 250.0), [str(number) for number in range(8)]
    trials = cutting.cut(filtered, names, begins, 1.0)

    # windows of 48 ms, decoded in two halves
    means = trials[:, :, :240].reshape(320, 8, 20, 12).mean(3)
    hits, is_first = np.empty((20, 320), np.int64), np.arange(320) < 160
    for window, half in product(range(20), (is_first, ~is_first)):
        classifier = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
        classifier.fit(means[half, :, window], shown[half])
        hits[window, ~half] = classifier.predict(means[~half, :, window])
    permuted = random.permuted(np.tile(shown, (200, 1)), axis=1)
    scores = standardise((hits == shown).mean(1), (permuted[:, None] == hits).mean(2))

    # what is said of it
    signal, source = trials[:, None], {"preparation": {**fields, "band_hz": band_hz}}
    recording = Trials(signal, (), Sensors(names), cutting.times_s, 250.0, "uV", source)
    axis = Axis.of_windows(
        -200 + 48 * np.stack([np.arange(20), np.arange(1, 21)], 1).astype(float)
    )
    finding = Finding(
        "decoding", "accuracy", axis, [], {}, scores, correct_together([scores])[0]
    )
    first = finding.first_above_chance
    if first is None:
        return [0.0, 0.0, 0.0, 0.0]
    (bounded,), _ = bound_onsets([finding], [recording])
    is_early = -200 + 48 * (first + 1) <= 250
    is_unknown = bounded.onset in (UNKNOWN, BEFORE)
    is_wrong = is_early and not is_unknown and bounded.latest_ms <= 250
    return [1.0, is_early, is_wrong, is_unknown]


def tests_of_shared_labels(random: Random, subjects: int) -> list[float]:
    """Subjects whose signals carry what they saw, and who have the same wrong labels;
    100 pictures.
    """
    targets, order = random.normal(size=(100, 16)), random.permutation(100)
    signals = targets + random.normal(size=(subjects, 5, 100, 16))
    first, rejected = int(random.integers(2**31)), []
    for seeds in (range(first, first + subjects), [first] * subjects):
        labels = [Labels.of(order, Items.unnamed([100]), 100, seed) for seed in seeds]
        pairs = zip(signals, labels, strict=True)
        rejected.append(
            is_significant(
                [profile_margins(each, targets, some) for each, some in pairs]
            )
        )
    return rejected


def tests_of_alike_items(random: Random, items: str, subjects: int) -> list[float]:
    """Margin and similarity of signals and embeddings that have nothing to do with each
    other.
    """
    is_film, count = items.endswith("clips"), int(items.split()[0])
    draw: Any = draw_film if is_film else draw_concepts
    by = CLIPS if is_film else Alike("concept", CONCEPT_OF)
    targets, seed, places = (
        draw(random, count, 16),
        int(random.integers(2**31)),
        np.arange(count),
    )
    signals = draw(random, count, 16) + draw(random, subjects, 5, count, 16)
    margins, similar = [], []
    for units in (Items.unnamed([count]), by.items([range(count)])):
        labels = Labels.of(places, units, 100, seed)
        margins.append(
            is_significant([profile_margins(each, targets, labels) for each in signals])
        )
        if count == 1200:  # 720,000 pairs of clips: too slow
            similar.append(np.nan)
            continue
        models, axis = rank_models({"model": targets}), Axis("ms", [0])
        parts, _ = measure_similarity(
            axis, [list(signals[:, 0])], models, units, 100, seed
        )
        rhos = [part.profiles["similarity · model:rho"] for part in parts]
        mean = np.mean([rho.values.mean(1) for rho in rhos], 0)
        similar.append(correct(mean, rhos[0].null).min() < LEVEL)
    return [*margins, *similar]


def intervals_of_profiles(random: Random, clips: int, subjects: int) -> list[float]:
    """The interval, for these subjects, of a profile over clips, whose mean is 0."""
    shared, held = draw_film(random, clips, 1)[:, 0], []
    # [1, N] each
    values = [shared + draw_film(random, clips, 1).T for _ in range(subjects)]
    for units in (Items.unnamed([clips]), CLIPS.items([range(clips)])):
        items = replace(
            units, ids=[*units.ids] * subjects, units=[*units.units] * subjects
        )
        (metric,) = measure_each("margin", values, items=items, **HOW)
        low, high = metric.these_subjects or (metric.low, metric.high)
        held.append(np.nan if low is None else low <= 0 <= high)
    return held


def similarity(random: Random, strength: float) -> Any:
    """Similarity at 5 times, and the interval of one subject around the mean of all
    simulations.
    """
    features, mixing = random.normal(size=(40, 12)), random.normal(size=(12, 17))
    signals = strength * (features @ mixing)[..., None] / 3 + random.normal(
        size=(40, 17, 5)
    )
    places = ([signals[..., t]] for t in range(5))
    models, axis = rank_models({"model": features}), Axis("ms", range(5))
    (part,), _ = measure_similarity(axis, places, models, Items.unnamed([40]), 200)
    profile = part.profiles["similarity · model:rho"]
    rho = measure_each("rho", [profile.values[:1]], **HOW)
    return *rho, correct(profile.values.mean(1), profile.null).min() < LEVEL


def encoding(random: Random, strength: float) -> Any:
    """The encoding model at 6 times, and its interval around the mean of all
    simulations.
    """
    weights = np.random.default_rng(3).normal(size=(8, 18)) / 8**0.5
    features = [random.normal(size=(size, 16)) for size in (150, 40)]
    train, test = (
        strength * each[:, :8] @ weights + random.normal(size=(len(each), 18))
        for each in features
    )
    levels = [
        {"a": each[:, :8], "b": each[:, 8:]}
        for each in (torch.from_numpy(each).float() for each in features)
    ]
    wrong, trained = (
        (np.roll(np.arange(150), 75), np.roll(np.arange(40), 20)),
        torch.from_numpy(train).float(),
    )
    predicted, _ = predict_signals(*levels, lambda: iter([trained]), (3, 6), wrong, 8)
    times, seed = [np.s_[..., [time]] for time in range(6)], int(random.integers(2**31))
    labels = Labels.of(np.arange(40), Items.unnamed([40]), 200, seed)
    profile = along(
        predicted, test.reshape(-1, 3, 6), Axis("ms", range(6)), times, labels
    )
    r = measure_each("r", [profile.values[:1]], **HOW)[0]
    return r, correct(profile.values.mean(1), profile.null).min() < LEVEL


UNITS = [f"1200 clips, neighbours correlate {near}" for near in (0.0, 0.6, 0.9)]
UNITS += [
    f"{concepts} concepts of {pictures} pictures"
    for concepts in (40, 200)
    for pictures in (5, 10)
]
CENTRES = (0.0, -1.5, -4.0, 3.0)
"""Mean logits: hits of .5, .25, .05 and .9."""
PEOPLE = {"subjects": (2, 4, 6, 8, 10, 15, 20), "sd": (0.3, 1.0), "centre": CENTRES}
POOLS = {
    "items": (50, ITEMS),
    "slope": (0.5, 2.0),
    "spread": (0.0, 0.7),
    "sd": (0.4, 0.8, 1.5, 3.0),
}
FILMS = {
    "items": ("1200 clips", "240 clips", f"200 pictures, {EACH} a concept"),
    "subjects": (1, 5),
}
FOLDS = [
    f"{held_out} folds, {shown} a run{drift}"
    for held_out in (
        *(f"runs, {runs} in {runs}" for runs in (3, 6, 12, 24)),
        *("runs, 24 in 12", "trials of 12 runs in 5"),
    )
    for shown in (
        *(f"2 categories x {n}" for n in (1, 5, 20)),
        "8 categories x 1",
        "8 categories x 5",
    )
    for drift in ("", ", runs drift", ", the same runs drift")
    if held_out in ("runs, 3 in 3", "runs, 6 in 6")
    or not (shown in ("2 categories x 20", "8 categories x 5") or "same" in drift)
]
"""Many runs of many trials are slow; of fewer than ten runs, statements are about
these.
"""
LIVE = [
    "equal pictures",
    *(
        f"{count} pictures, {how}"
        for count in (50, 200)
        for how in ("with replacement", "in rounds")
    ),
]
LIVE += [f"rate drifts {course}" for course in ("up", "down", "wave")]
SHOWN = [
    "2",
    "4",
    "10",
    "100",
    "80/20",
    "60/20/20",
    "95/5",
    "shares change",
    "10 in rounds",
    "4 in blocks",
]
ANSWERS = [
    "most frequent",
    "as frequent",
    "random",
    "drifting",
    "0.05 right",
    "0.2 right",
]
TABLES: dict[Callable[..., Any], tuple[Mapping[str, Sequence[Any]], str]] = {
    intervals_over_people: (
        PEOPLE,
        "mean hit | people in general | mean width | these subjects",
    ),
    intervals_of_one_subject: (
        {"items": (10, 30, ITEMS), "seeds": (1, 3), "centre": (0.0, 2.2, 4.0)},
        "mean hit | coverage | mean width",
    ),
    intervals_of_units: (
        {"items": UNITS, "subjects": (1, 10), "centre": (0.0, -2.0)},
        "mean hit | over units | over items",
    ),
    intervals_of_shared_pools: (POOLS, "mean top-1 | coverage | width"),
    verdicts: (
        {"subjects": (1, 4, 10, 20), "pictures": (20, 200), "effect": (0.015, 0.05)},
        "no effect | shared wrong labels | effect | permutation | t over items",
    ),
    units_of_unequal_size: (
        {"design": tuple(DESIGNS), "subjects": (1, 4), "centre": (0.0, -2.0)},
        "coverage | width | false verdicts",
    ),
    units_of_one_subject: (
        {
            "design": ((2, 5), (4, 3), (5, 2), (6, 2), (8, 2), (8, 5)),
            "centre": (0.0, -2.0),
        },
        "coverage of hits | width | of values | width",
    ),
    few_concepts: (
        {"concepts": (2, 3, 5, 8), "pictures": (10, 50), "drift": (0.0, 1.0)},
        (
            "coverage | false: picture | false: concept | top-1 | found: picture | "
            "found: concept"
        ),
    ),
    small_and_bounded: (
        {
            "items": (6, 8, 9, 10, 15, 40),
            "strength": (0.0, 0.3, 0.6, 1.0),
            "metric": ("two-way", "MRR", "top-1"),
        },
        "mean | coverage | width",
    ),
    films: (
        {"clips": (7, 20, 40, 80, 240, 360, 480, 1200), "near": (0.0, 0.6, 0.9)},
        (
            "false verdicts | not testable | coverage of hits | of values | false "
            "differences: one | six people"
        ),
    ),
    differences: (
        {
            "subjects": (1, 3, 4, 5, 10, 20),
            "pictures": (20, 200),
            "by": ("pictures", "subjects", "subjects pictures"),
            "effect": (0.0, 2.8),
        },
        "said | oracle | interval disagrees",
    ),
    controls_of_films: (
        {"clips": (10, 15, 20, 40), "near": (0.0, 0.9)},
        "p <= .05 by top-1 | top-5 | mean rank | MRR",
    ),
    differences_near_a_limit: (
        {
            "subjects": (1, 4, 5, 8),
            "seeds": (1, 3),
            "items": (10, 20, 60),
            "rates": ((0.5, 0.5), (0.989, 0.95), (0.989, 0.73), (0.998, 0.998)),
        },
        "first | second | coverage | width | said | interval disagrees",
    ),
    best_of_many: ({"variants": (2, 8)}, "chosen on test | on validation"),
    pooled_folds: (
        {"design": FOLDS, "effect": (0.0, 0.7, 1.2)},
        "accuracy | coverage | width | above chance | below chance",
    ),
    verdicts_under_drift: (
        {
            "design": [
                f"{shown}, out: {by}"
                for by, more in (("trials", "a category a run"), ("runs", "one order"))
                for shown in (
                    *("random", "blocks of 10", "blocks of 3", "pairs"),
                    *("one random order", more),
                )
            ],
            "effect": (0.0, 1.2),
        },
        (
            "accuracy | above | below | not testable | above, order ignored | below, "
            "order ignored"
        ),
    ),
    sorted_pictures: (
        {
            "design": PICTURE_ORDERS,
            "runs": (1, 6),
            "is_shared": (True, False),
            "effect": (0.0, 0.25),
        },
        "above | below | not testable | caveat | above, order ignored",
    ),
    ceilings_by_order: (
        {"design": REPEATED, "strength": (0.5, 1.0), "effect": (0.0, 0.3)},
        "not measured | reliability of halves, where measured",
    ),
    equal_learners: (
        {
            "design": [name for name in FOLDS if "same" not in name],
            "effect": (0.0, 1.2),
            "surplus": (0.0, 0.6),
        },
        "accuracy | differ | differ, of independent trials",
    ),
    folds_of_pictures: (
        {"concepts": (2, 20), "effect": (0.0, 0.2, 0.5), "drift": (0.0, 1.0)},
        (
            "top-1 | coverage | width | above chance: over concepts | which picture | "
            "which concept"
        ),
    ),
    calibration: (
        {"people": (4, 5, 8), "draws": (2, 10), "centre": (0.0, -1.5, -3.0)},
        "mean hit | people in general | width | these people",
    ),
    sufficient_amounts: (
        {"people": (3, 4, 5, 8), "draws": (2, 10), "centre": (1.0, -1.0, -2.5)},
        "first | by value | range holds | amounts between | nothing said",
    ),
    better_amounts: (
        {"people": (2, 3, 5, 8, 20), "draws": (3,), "gain": (0.0, 0.5)},
        "one interval above 0 | said to be better | up to the fourth | no better",
    ),
    unequal_categories: (
        {
            "design": ("trials", "12 runs"),
            "counts": ((8, 2), (12, 8), (95, 5), (90, 30), (200, 100)),
            "effect": (0.0, 1.0, 2.5, 4.0),
        },
        "balanced accuracy | coverage | width | AUC | coverage | width",
    ),
    live: (
        {"design": LIVE, "rate": (0.005, 0.05, 0.2, 0.5, 0.8)},
        (
            "mean hit | ever missed | by Wilson's | missed at last | by Wilson's | "
            "width at 20 | 100 | 1000"
        ),
    ),
    live_tests: (
        {"shown": SHOWN, "answers": ANSWERS},
        "ever p <= .05 | by 1 / pictures | in 200 trials | by 1 / pictures | in blocks",
    ),
    tests_along_a_course: (
        {"subjects": (1, 4), "effect": (0.0, 0.15)},
        "any time at corrected p < .05 | mean of the control",
    ),
    tests_of_many_profiles: (
        {"effect": (0.0, 0.35, 0.5)},
        (
            "any at p < .05, each by itself | the first | corrected together: any | "
            "the first"
        ),
    ),
    misfiled: (
        {
            "subjects": (1, 3),
            "effect": (0.0, 0.25, 0.4),
            "order": ("as filed", "reversed"),
        },
        "any order is named | the right one",
    ),
    slopes: (
        {
            "common": (0.0, 1.0),
            "pictures": ((100, 40), (400, 200), (1000, 200)),
            "effect": (0.0, 0.5),
        },
        "above 0 by own ranks alone | above 0 | below 0",
    ),
    onsets: (
        {
            "band_hz": (
                (None, None),
                (None, 40),
                (1, 40),
                (0.1, 40),
                (0.5, 30),
                (2, 20),
            ),
            "baseline": (False, True),
            "length_ms": (300, 500),
        },
        "found | before the effect | said to begin too early | unknown",
    ),
    tests_of_shared_labels: (
        {"subjects": (1, 5, 10)},
        "permuted subject by subject | one permutation for all",
    ),
    tests_of_alike_items: (
        FILMS,
        "margin: one by one | in units | similarity: one by one | in units",
    ),
    intervals_of_profiles: (
        {"clips": (240, 1200), "subjects": (1, 5)},
        "over clips | over blocks",
    ),
    similarity: (
        {"strength": (0.0, 0.5, 1.0)},
        "mean rho | coverage | width | any of 5 times at corrected p < .05",
    ),
    encoding: (
        {"strength": (0.0, 0.3)},
        "mean r | coverage | width | any of 6 times at corrected p < .05",
    ),
}
"""Of each simulation the values of its arguments, and what it gives, averaged over
many.
"""


def average(results: Sequence[Sequence[Any]]) -> list[float]:
    """Average results; of metrics give the mean, and how often their intervals hold
    it.
    """
    columns: list[Any] = [*zip(*results, strict=True)]
    if hasattr(columns[0][0], "low"):
        truth = float(np.mean([metric.value for metric in columns[0]]))
        widths = [metric.high - metric.low for metric in columns[0]]
        columns[:1] = [[truth], [holds(metric, truth) for metric in columns[0]], widths]
    # what was not measured has no mean
    means = []
    for column in columns:
        values = np.array(column, np.float64)
        measured = values[~np.isnan(values)]
        means.append(float(measured.mean()) if len(measured) else np.nan)
    return means


def main() -> None:
    """Print the chosen tables."""
    names = {simulate.__name__: simulate for simulate in TABLES}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "count", nargs="?", type=int, default=400, help="simulations of each row"
    )
    parser.add_argument("--only", nargs="+", choices=names, default=list(names))
    args = parser.parse_args()
    for simulate in map(names.__getitem__, args.only):
        axes, columns = TABLES[simulate]
        print(
            "\n"
            f"{(simulate.__doc__ or '').splitlines()[0]} {args.count} simulations of "
            "each row\n"
        )
        print(
            f"| {' | '.join(axes)} | {columns} |\n"
            f"|{'---|' * (len(axes) + columns.count('|') + 1)}"
        )
        for number, values in enumerate(product(*axes.values())):
            random = np.random.default_rng(number)
            work = partial(simulate, random, **dict(zip(axes, values, strict=True)))
            shares = average([work() for _ in range(args.count)])
            cells = ["–" if np.isnan(share) else f"{share:.3f}" for share in shares]
            print(f"| {' | '.join([*map(str, values), *cells])} |", flush=True)


if __name__ == "__main__":
    main()
