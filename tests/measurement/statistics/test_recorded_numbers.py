"""Statistics of fixed random designs beside those that were recorded."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.measurement import (
    FINDING,
    Components,
    Exchange,
    FeatureScaler,
    Gallery,
    HitRate,
    Items,
    LabelDesign,
    Products,
    Scores,
    StimulusGrouping,
    TrialOrder,
    average_by_unit,
    average_halves,
    chance_of_precision,
    choose_penalty,
    compare_hits,
    correlate,
    correlate_without_each,
    correlation_shares,
    find_nearest,
    fit_slope,
    fold_null_inflation,
    hit_rate_interval as rate_interval,
    judge,
    measure,
    noise_ceiling,
    number_names,
    predict_reliability,
    project,
    rank_corrected,
    rank_first_pictures,
    rank_for_verdict,
    rank_gallery,
    retrieve_halves,
    spearman_brown,
    summarise_ranks,
    unit_vectors,
)
from brainhive_cli.measurement.alignments import (
    Coral,
    Moments,
    Procrustes,
    RidgeAlignment,
)
from brainhive_cli.measurement.audit import NOTHING, UNDECIDED
from brainhive_cli.measurement.comparison import compare_values
from brainhive_cli.measurement.corrections import (
    Assignment,
    Csls,
    Sinkhorn,
    Whitening,
)
from brainhive_cli.measurement.ranks import (
    chance_of_ranks,
    expected_subset_hits,
    rank_with_precision,
)
from brainhive_cli.measurement.retrieval import measure_control, permute_targets
from brainhive_cli.measurement.statistics import (
    estimate_interval,
    estimate_mean_variance,
    flip_signs,
)
from brainhive_cli.measurement.trial_order import (
    p_of_clumping,
    p_of_shared_order,
    separate_repetitions,
)
from tests.tools.recorded_numbers import metric_rows


def trials_of(count, runs, **options):
    """Give trials of runs, which are in blocks of three."""
    names = range(count)
    run_of_trial = {name: name * runs // count for name in names}
    block = {name: (run_of_trial[name], name // 3) for name in names}
    return StimulusGrouping(
        group_of=run_of_trial, group_kind="runs", block_of=block, **options
    )


def uneven(concepts, count):
    """Give the concepts of pictures, of which the first have many."""
    random = np.random.default_rng(concepts)
    shares = 1 / np.arange(1, concepts + 1)
    concept_numbers = random.choice(concepts, count, p=shares / shares.sum())
    return dict(enumerate(concept_numbers.astype(str).tolist()))


FEW_CONCEPTS = {name: "face" if name < 20 else "house" for name in range(40)}
FILMS = {name: str(name // 20) for name in range(240)}
DESIGNS = {
    "five items": (StimulusGrouping(), [5]),
    "pictures of three": (StimulusGrouping(), [30, 34, 40]),
    "concepts of one": (StimulusGrouping("concept", uneven(12, 60)), [60]),
    "concepts of three": (StimulusGrouping("concept", uneven(12, 60)), [60, 40, 50]),
    "concepts of seven": (StimulusGrouping("concept", uneven(15, 60)), [60] + [50] * 6),
    "two concepts": (StimulusGrouping("concept", FEW_CONCEPTS), [40, 36]),
    "one concept": (StimulusGrouping("concept", dict.fromkeys(range(9), "face")), [9]),
    "films": (StimulusGrouping("neighbours", FILMS), [240, 200]),
    "a short film": (StimulusGrouping("neighbours", medium="clip"), [50]),
    "many runs": (trials_of(72, 12), [72]),
    "three runs": (trials_of(60, 3), [60]),
    "folds": (StimulusGrouping("concept", uneven(12, 60), has_folds=True), [60, 60]),
}
"""How stimuli are alike, and how many each subject saw."""


def make_design(name):
    """Give the items of a design, of which subjects saw random ones, and latents that
    are partly those of the item and its concept: [N] by subject.
    """
    alike, sizes = DESIGNS[name]
    random = np.random.default_rng(len(name))
    ids = [np.sort(random.permutation(max(sizes))[:size]).tolist() for size in sizes]
    of_item = random.normal(size=max(sizes))
    of_concept = random.normal(size=max(sizes))
    number = {concept: row for row, concept in enumerate({**alike.concept_of}.values())}
    for item, concept in alike.concept_of.items():
        of_item[item] += of_concept[number[concept] % len(of_concept)]
    latents = [
        of_item[subject_ids] + random.normal(0.3 * subject, 1, len(subject_ids))
        for subject, subject_ids in enumerate(ids)
    ]
    return alike.make_items(ids), latents


def interval_row(interval):
    """List the ends of an interval, then for these subjects, then for people."""
    missing = [None, None]
    ends = [interval.low, interval.high]
    these_subjects = list(interval.these_subjects or missing)
    people = list(interval.people or missing)
    return ends + these_subjects + people + [interval.method]


def comparison_row(comparison):
    """List the numbers of a comparison of two models."""
    return [
        comparison.difference,
        comparison.low,
        comparison.high,
        comparison.p_value,
        comparison.least_p,
        comparison.cohens_dz,
        comparison.n,
        comparison.subjects,
        comparison.interval,
        comparison.test,
    ]


def verdict_rows(verdicts):
    """List the p values, the items and the pool of each verdict."""
    return [
        [
            verdict.better,
            verdict.worse,
            verdict.least_p,
            verdict.n,
            verdict.pool,
            verdict.test,
        ]
        for verdict in verdicts
    ]


def draw_hits(latents):
    """Draw hits or misses [3, N] of three seeds for each subject."""
    random = np.random.default_rng(1)
    return [
        (random.normal(latent, 1, (3, len(latent))) > 0) * 1.0 for latent in latents
    ]


def test_intervals_of_designs(recorded):
    rows = {}
    for name in DESIGNS:
        items, latents = make_design(name)
        hits = draw_hits(latents)
        first_seed = [group[0] for group in hits]
        shares = [group.mean(0) for group in hits]
        # only the third item is not a hit
        nearly_all = [
            np.where(np.arange(len(latent)) == 2, 0.5, 1) for latent in latents
        ]
        cosines = [np.tanh(latent) for latent in latents]
        intervals = {
            "hits": estimate_interval(first_seed, items),
            "hits of three seeds": estimate_interval(hits, items),
            "shares": estimate_interval(shares, items, limits=(0.0, 1.0)),
            "nearly all": estimate_interval(nearly_all, items, limits=(0.0, 1.0)),
            "all": estimate_interval([group * 0 + 1 for group in first_seed], items),
            "equal": estimate_interval(
                [group * 0 + 0.5 for group in first_seed], items
            ),
            "linearised": estimate_interval(
                shares, items, limits=(0.0, 1.0), max_hits=25
            ),
            "cosines": estimate_interval(cosines, items, limits=(-1.0, 1.0)),
            "cosines as shares": estimate_interval(
                cosines, items, limits=(-1.0, 1.0), is_share=True
            ),
            "latents": estimate_interval(latents, items),
        }
        metric = measure(
            "top1", hits, protocol="cosine", split="test", seeds=(0, 1, 2), items=items
        )
        scatter = estimate_mean_variance(latents, items)
        rows[name] = {
            "sizes": [len(items.names), items.n_units, items.inflation],
            "strata": items.stratum_of_unit,
            "intervals": {
                kind: interval_row(interval) for kind, interval in intervals.items()
            },
            "scatter": list(vars(scatter).values()),
            "signs": list(vars(flip_signs(latents, items)).values()),
            "metric": metric_rows({"top1": metric})["top1"],
        }
    recorded(**rows)


def test_differences_in_designs(recorded):
    rows = {}
    for name in DESIGNS:
        items, latents = make_design(name)
        hits = draw_hits(latents)
        first_seed = [group[0] for group in hits]
        # the other model has the hits of the neighbouring item
        other_hits = [np.roll(group, 1, -1) for group in hits]
        nearly_all = [
            np.where(np.arange(len(latent)) == 2, 0.5, 1) for latent in latents
        ]
        comparisons = {
            "hits": compare_values(hits, other_hits, items=items),
            "first seed": compare_values(
                first_seed, [group[0] for group in other_hits], items=items
            ),
            "latents": compare_values(
                latents, [np.tanh(latent) - 0.4 for latent in latents], items=items
            ),
            "nearly all": compare_values(
                nearly_all, [group * 0 + 1 for group in nearly_all], items=items
            ),
            "ranks": compare_hits(
                [1 + group for group in hits], [2 - group for group in first_seed]
            ),
        }
        rows[name] = {
            kind: comparison_row(comparison) for kind, comparison in comparisons.items()
        }
    recorded(**rows)


def test_verdicts_in_designs(recorded):
    rows = {}
    for name in DESIGNS:
        items, latents = make_design(name)
        random = np.random.default_rng(2)
        pictures = len(items.names)
        column = {item: number for number, item in enumerate(items.names)}
        rank_tables = []
        confounded_tables = []
        for ids, latent in zip(items.ids, latents, strict=True):
            columns = np.array([column[item] for item in ids])
            scores = random.normal(size=(len(ids), pictures))
            scores[np.arange(len(ids)), columns] += latent / 4
            rank_tables.append((-scores).argsort(1).argsort(1) + 1)
            # signals also show which pictures are neighbours
            scores += np.cos((columns[:, None] - np.arange(pictures)) / 2)
            confounded_tables.append((-scores).argsort(1).argsort(1) + 1)
        concept_of = DESIGNS[name][0].concept_of
        numbers = np.arange(pictures)
        in_strata = replace(items, design=LabelDesign.free(numbers, numbers % 2))
        in_order = replace(items, design=prefer_neighbours(numbers % 2))
        (concepts,) = number_names([[concept_of.get(n, n) for n in items.names]])
        item_rows = [items.name_indices(ids) for ids in items.ids]
        concept_exchange = Exchange(LabelDesign.free(concepts, numbers % 2), item_rows)
        permutations = items.draw_permutations(30, 3)
        verdict = judge(rank_tables, items, items.names, concept_of)
        verdict_in_strata = judge(
            rank_tables, in_strata, items.names, concept_of, pool=50
        )
        verdict_in_order = judge(
            confounded_tables,
            in_order,
            items.names,
            concept_of,
            concept_exchange=concept_exchange,
        )
        rows[name] = {
            "permutations": permutations,
            "permutations in strata": in_strata.draw_permutations(30, 3),
            "permutations in order": in_order.draw_permutations(30, 3),
            "rearranged": items.apply_permutation(permutations[-1])
            if len(permutations)
            else [],
            "inflation": [
                fold_null_inflation(rank_tables, 7),
                fold_null_inflation(latents),
            ],
            "verdict": verdict_rows(verdict),
            "verdict in strata": verdict_rows(verdict_in_strata),
            "verdict in order": verdict_rows(verdict_in_order),
        }
    recorded(digits=5, **rows)


def prefer_neighbours(stratum):
    """Make a design in which units prefer the labels of their neighbours."""
    angles = np.arange(len(stratum)) / 2
    circle = np.stack([np.cos(angles), np.sin(angles)], 1)
    return LabelDesign(
        label=np.arange(len(stratum)),
        stratum=stratum,
        predictions=circle,
        values=circle,
        telling=("time in the run",),
        p=0.01,
    )


def make_trial_order(design):
    """Give four runs of 24 trials in two sessions, and the run of each trial."""
    random = np.random.default_rng(len(design))
    run_of_trial = np.repeat(np.arange(4), 24)
    one_run = random.permutation(np.repeat(np.arange(4), 6))
    labels = {
        "random": [random.permutation(one_run) for _ in range(4)],
        "blocks": [np.repeat(random.permutation(4), 6) for _ in range(4)],
        "one order": [one_run] * 4,
        "two at a time": [
            np.concatenate(
                [
                    random.permutation(np.repeat(label_pair, 6))
                    for label_pair in ((0, 1), (2, 3))
                ]
            )
            for _ in range(4)
        ],
        "label a run": [np.full(24, number) for number in range(4)],
    }[design]
    label = np.concatenate(labels)
    onset_s = np.tile(np.arange(24), 4)
    order = TrialOrder.from_trials(
        np.arange(96), label.tolist(), run_of_trial // 2, run_of_trial, onset_s
    )
    return order, run_of_trial


def test_verdicts_where_folds_have_candidates_of_their_own(recorded):
    """A candidate of another fold was not compared, and has rank 0."""
    random = np.random.default_rng(4)
    fold = np.repeat([0, 1, 2], [16, 10, 10])
    concept = {item: str(item % 4) for item in range(36)}
    table = np.zeros((36, 36), np.int64)
    for number in range(3):
        rows = np.flatnonzero(fold == number)
        scores = random.normal(size=(len(rows), len(rows))) + np.eye(len(rows))
        table[np.ix_(rows, rows)] = (-scores).argsort(1).argsort(1) + 1
    items = StimulusGrouping("concept", concept, has_folds=True).make_items(
        [list(range(36))]
    )
    numbers = np.arange(36)
    of_folds = replace(items, design=LabelDesign.free(numbers, fold))
    concept_exchange = Exchange(LabelDesign.free(numbers % 4, fold), [numbers])
    by_concept = judge(
        [table],
        of_folds,
        range(36),
        concept,
        concept_exchange=concept_exchange,
        pool=10,
    )
    recorded(
        of_folds=verdict_rows(judge([table], of_folds, range(36), pool=10)),
        by_concept=verdict_rows(by_concept),
    )


def test_orders_of_trials(recorded):
    rows = {}
    for name in ("random", "blocks", "one order", "two at a time", "label a run"):
        order, run_of_trial = make_trial_order(name)
        rows[name] = {
            "run": order.run,
            "p_of_clumping": [
                p_of_clumping(order, order.run),
                p_of_clumping(order, 0 * order.run),
                p_of_clumping(order, order.run, run_of_trial % 2),
            ],
            "p_of_shared_order": [
                p_of_shared_order(order, order.run),
                p_of_shared_order(order, order.session, order.run % 2),
                p_of_shared_order(order, 0 * order.run),
            ],
        }
    recorded(**rows)


def test_hit_rates_of_live_trials(recorded):
    random = np.random.default_rng(0)
    rows = []
    for blocked in (False, True):
        rate = HitRate(4)
        for trial in range(60):
            shown_label = str(trial // 15 if blocked else random.integers(4))
            answer = shown_label if random.random() < 0.4 else str(random.integers(4))
            rate.add(shown_label, answer)
            if trial in (0, 10, 31, 59):
                evidence = [rate.excess_repeats, rate.p_value, rate.is_interleaved]
                rows.append([rate.hits, rate.chance] + list(rate.interval) + evidence)
    intervals = [rate_interval(*counts) for counts in ((0, 7), (7, 7), (3, 20))]
    recorded(rows=rows, intervals=intervals + [rate_interval(3, 20, 0.8)])


def test_reliability(recorded):
    random = np.random.default_rng(0)
    counts = np.array([6, 6, 5, 4, 3, 2, 6, 6])
    signal = random.normal(size=(8, 1, 5))
    trials = torch.from_numpy(signal + random.normal(size=(8, 6, 5)))
    parts = torch.from_numpy(np.sort(random.integers(0, 3, (8, 6)), 1) % 3)
    parts = parts - parts.amin(1, keepdim=True)
    generator = torch.Generator().manual_seed(0)
    halves = average_halves(trials, torch.from_numpy(counts), generator)
    by_parts = average_halves(trials, torch.full((8,), 6), generator, parts)
    first_half, second = (half_mean.numpy() for half_mean in halves[:2])
    units = [unit_vectors(first_half), unit_vectors(second)]
    listed_trials = [
        trial[:count].numpy() for trial, count in zip(trials, counts, strict=True)
    ]
    recorded(
        halves=halves,
        by_parts=by_parts,
        retrieved=retrieve_halves(*halves[:2]),
        predicted=predict_reliability(correlate_without_each(*units), 2.0),
        shares=correlation_shares(*units),
        units_of_rows=unit_vectors(first_half, 1),
        correlations=correlate(zip(first_half, second, strict=True)),
        corrected=[spearman_brown(0.5), spearman_brown(-0.3, 3)],
        ceiling=noise_ceiling(lambda: listed_trials, counts),
        equal_ceiling=noise_ceiling(lambda: trials.numpy(), np.full(8, 6)),
    )


def tokens(*shape, seed=0):
    """Draw tokens in float64."""
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def test_ranks(recorded):
    gallery = tokens(30, 6)
    gallery[7] = gallery[3]
    signals = gallery[:20] + tokens(20, 6, seed=1)
    relevant = torch.arange(20)[:, None].repeat(1, 2)
    relevant[:, 1] = torch.where(relevant[:, 1] % 3 > 0, relevant[:, 1] + 9, -1)
    ranked = rank_with_precision(signals, gallery, torch.arange(20), relevant)
    metrics = summarise_ranks(
        [np.array(ranked[0]).reshape(2, 10), np.array(ranked[0][:10])],
        30,
        split="test",
        seeds=(0, 1),
    )
    two_targets = summarise_ranks([np.array(ranked[0])], 30, split="test", targets=2)
    metrics_by_name = {metric.name: metric for metric in metrics}
    two_targets_by_name = {metric.name: metric for metric in two_targets}
    recorded(
        digits=6,
        ranked=ranked,
        of_all=rank_first_pictures(signals, gallery, 9),
        nearest=find_nearest(signals, gallery.split(8)),
        subsets=expected_subset_hits(signals, gallery[:20], 5),
        metrics=metric_rows(metrics_by_name),
        two_targets=metric_rows(two_targets_by_name),
        chance=[chance_of_ranks(9, 2), chance_of_precision(9, np.array([1, 3]))],
    )


def test_corrections_and_alignments(recorded):
    gallery = tokens(12, 5)
    signals = gallery + tokens(12, 5, seed=1) + 0.5
    similarities = signals @ gallery.T
    corrections = {
        "assignment": Assignment(),
        "csls": Csls(neighbours=3),
        "sinkhorn": Sinkhorn(temperature=0.5),
        "whitening": Whitening(),
    }
    alignments = {
        "moments": Moments(),
        "coral": Coral(),
        "procrustes": Procrustes(),
        "ridge": RidgeAlignment(),
    }
    recorded(
        digits=5,
        **{
            f"{name}_of_few": config.fit(tokens(4, 15), tokens(4, 15, seed=1))(
                tokens(3, 15, seed=2)
            )
            for name, config in alignments.items()
        },
        **{
            name: config.correct(similarities, signals, gallery)
            for name, config in corrections.items()
        },
        **{
            f"{name}_alignment": config.fit(signals, gallery)(signals[:4])
            for name, config in alignments.items()
        },
    )


def test_linear_maps(recorded):
    features = tokens(40, 8)
    features -= features.mean(0)
    outputs = features[:, :3] @ tokens(3, 4, seed=1) + tokens(40, 4, seed=2)
    products = Products.from_samples(features, outputs.split(17))
    smaller = Products.from_samples(features[:, [0, 2, 5]], [outputs])
    recorded(
        digits=5,
        products=[products.rotated.abs(), products.squares, products.mean],
        freedom=products.freedom,
        alpha=[products.choose_alpha(), smaller.choose_alpha()],
        predicted=products.predict(features[:5]),
        predicted_by_three=smaller.predict(features[:5, [0, 2, 5]], 3.0),
        penalty=choose_penalty(
            torch.tensor([2.0, 1.0]).double(),
            torch.tensor([[0.5], [1.0]]).expand(2, 3),
            torch.full((3,), 9.0),
            20,
            2,
        ),
        standardised=FeatureScaler.fit(outputs)(outputs[:4]),
        projected=[
            projection.abs()
            for count in (2, 40)
            for projection in project(features, outputs @ tokens(4, 8), count)
        ],
        projected_few=[
            projection.abs() for projection in project(features[:6], features, 3)
        ],
        axes=[
            Components.fit(projection, 3).basis.abs()
            for projection in (features, features[:6])
        ],
    )


def test_slopes_over_the_nearest_training_picture(recorded):
    random = np.random.default_rng(0)
    cells = []
    for cell in range(3):
        surplus = random.normal(size=20).tolist()
        surplus[cell] = None
        cells.append(
            {
                "units": [f"concept {name % 7}" for name in range(20)],
                "nearest": random.random(20).tolist(),
                "surplus": surplus,
            }
        )
    pairs = average_by_unit(cells)
    metric_fields = {"protocol": "cosine", "split": "test", "seeds": (0,)}
    few_units_slope = fit_slope(pairs[0][:5], pairs[1][:5], **metric_fields)
    slope = fit_slope(*pairs, **metric_fields)
    recorded(pairs=pairs, slopes=metric_rows({"all": slope, "few": few_units_slope}))


def test_retrieval(recorded):
    concepts = [str(number % 6) for number in range(12)]
    names = [f"picture {number}" for number in range(16)]
    gallery = Gallery(
        {"test": np.arange(12), "train": np.arange(4)}, names, concepts + list("6789")
    )
    images = tokens(16, 6)
    shown_rows = {1: list(range(12)) * 2, 2: list(range(3, 12)) + [4]}
    signals = {
        subject: images[rows] + 1.5 * tokens(len(rows), 6, seed=subject)
        for subject, rows in shown_rows.items()
    }
    items = {
        subject: Scores(
            [names[row] for row in rows],
            [names[row] for row in rows],
            [gallery.concepts[row] for row in rows],
        )
        for subject, rows in shown_rows.items()
    }
    scores = rank_gallery(gallery, images, signals, items)
    two = Gallery({"test": np.arange(2)}, names[:2], concepts[:2])
    of_two = {
        1: Scores(labels=[names[row % 2] for row in range(20)], groups=["run"] * 20)
    }
    split = rank_for_verdict(gallery, images, signals[1], scores[1])
    corrected = rank_corrected(
        gallery, images, signals, items, [Csls(neighbours=3), Assignment()]
    )
    target = gallery.find_indices(items[1].labels)
    numbers = np.arange(24)
    signal_units = Items.independent([numbers.tolist()])
    of_pictures = Items.independent([range(12)])
    of_parts = replace(signal_units, design=LabelDesign.free(numbers, numbers // 6))
    draws = {
        "signals": list(permute_targets(target, numbers, signal_units, 5)),
        "pictures": list(permute_targets(target, target, of_pictures, 5)),
        "parts": list(permute_targets(target, numbers, of_parts, 5)),
    }
    recorded(
        digits=5,
        ranks=[subject_scores.ranks for subject_scores in scores.values()],
        precision=[subject_scores.values["map"] for subject_scores in scores.values()],
        relevant=[subject_scores.relevant for subject_scores in scores.values()],
        named=[
            " ".join(subject_scores.nearest_concepts)
            for subject_scores in scores.values()
        ],
        backward=[
            [
                subject_scores.scopes["backward"].ranks,
                subject_scores.scopes["backward"].pool,
            ]
            for subject_scores in scores.values()
            if subject_scores.scopes
        ],
        wins=rank_gallery(two, images[:2], {1: signals[1][:20]}, of_two)[
            1
        ].auc_parts.tolist(),
        table=split.verdict_ranks,
        surplus=split.compute_rank_advantages(),
        corrected=[subject_scores[1].ranks for subject_scores in corrected.values()],
        draws={
            name: [len(subject_scores), subject_scores[0], subject_scores[-1]]
            for name, subject_scores in draws.items()
        },
        control=measure_control(gallery, images, signals[1], draws["signals"][:20]),
    )


@pytest.fixture
def audit_folders(monkeypatch):
    """The simulation of the benchmarks."""
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[3] / "benchmarks")
    import audit_folders

    return audit_folders


def audit_row(audited):
    """List the points and the evidence of each finding, then the states of all."""
    states = (FINDING, NOTHING, UNDECIDED)
    findings = []
    for _, state, points, evidence in audited:
        if state == FINDING:
            findings += [points, evidence]
    return findings + [" ".join(str(states.index(state)) for _, state, *_ in audited)]


def test_audits_of_folders(recorded, audit_folders):
    cheats = {}
    for number, plant in enumerate(audit_folders.CHEATS):
        folder = plant(np.random.default_rng(number))
        audited = audit_folders.audit_folder(folder)
        cheats[f"{plant.__name__} {number}"] = audit_row(audited)
    honest = {}
    for number in range(10):
        random = np.random.default_rng(number)
        convention = audit_folders.draw_convention(random)
        folder = audit_folders.make_honest_folder(random, convention)
        honest[f"folder {number}"] = audit_row(audit_folders.audit_folder(folder))
    recorded(digits=4, cheats=cheats, honest=honest)


def test_differences_that_subjects_share(recorded):
    """Where people and items do not differ, a t test has nothing to divide by."""
    rows = {}
    for subjects in (5, 6):
        zeros = [np.zeros(8)] * subjects
        shifted = [group + 0.5 for group in zeros]
        by_subject = [group + row for row, group in enumerate(zeros)]
        rows[f"{subjects} subjects"] = [
            comparison_row(compare_values(zeros, zeros)),
            comparison_row(compare_values(shifted, zeros)),
            comparison_row(compare_values(by_subject, zeros)),
        ]
    recorded(**rows)


def test_verdicts_of_trials(recorded):
    random = np.random.default_rng(0)
    shown_categories = random.permutation(
        np.repeat(["face", "house", "shoe"], 12)
    ).tolist()
    column = {"face": 0, "house": 1, "shoe": 2}
    scores = random.normal(size=(36, 3))
    scores[np.arange(36), [column[name] for name in shown_categories]] += 0.6
    table = (-scores).argsort(1).argsort(1) + 1
    items = trials_of(36, 3).make_items([list(range(36))])
    label_of = dict(enumerate(shown_categories))
    label = np.array([column[name] for name in shown_categories])
    trials = np.arange(36)
    of_runs = Exchange(LabelDesign.free(label, trials // 12), [trials])
    # pairs of trials have the label of the first
    pairs = np.arange(18)
    of_pairs = Exchange(LabelDesign.free(label[::2], pairs // 6), [trials // 2])
    paired = {trial: shown_categories[trial // 2 * 2] for trial in range(36)}
    trial_options = {"medium": "category", "are_hits": True, "label_of": label_of}
    categories = list(column)
    verdict = judge([table], items, categories, **trial_options)
    within_runs = judge([table], items, categories, exchange=of_runs, **trial_options)
    in_series = judge(
        [table],
        items,
        categories,
        label_of=paired,
        exchange=of_pairs,
        medium="category",
        are_hits=True,
    )
    recorded(
        trials=verdict_rows(verdict),
        within=verdict_rows(within_runs),
        series=verdict_rows(in_series),
    )


@pytest.mark.parametrize(
    ("order", "part_of_repetition"),
    [
        ("random", [0, 1, 2, 3, 4, 5]),
        ("sessions", [0, 0, 0, 1, 1, 1]),
        ("blocks", None),
        ("one order", None),
    ],
)
def test_repetitions_that_are_far_apart(order, part_of_repetition):
    """In a random order each trial is a part of its own. If a picture is shown in
    blocks, each session is a part. Blocks or the same order in each run of a single
    session cannot be divided.
    """
    random = np.random.default_rng(0)
    pictures = np.arange(12)
    shown_pictures = {
        "random": random.permutation(np.repeat(pictures, 6)),
        "blocks": np.repeat(np.tile(random.permutation(pictures), 3), 2),
        "one order": np.tile(pictures, 6),
        "sessions": np.concatenate(
            [np.repeat(random.permutation(pictures), 3) for _ in range(2)]
        ),
    }[order]
    # onset [12, 6] of each repetition of a picture, at a trial a second
    onset_s = np.stack(
        [np.flatnonzero(shown_pictures == picture) for picture in pictures]
    )
    # the fourth picture lacks its last two repetitions
    is_there = np.ones((12, 6), bool)
    is_there[3, 4:] = False
    trials = {
        "picture_of_trial": np.nonzero(is_there)[0],
        "sessions": onset_s[is_there] // 36 if order == "sessions" else None,
        "runs": onset_s[is_there] // 12,
        "onset_s": onset_s[is_there],
    }
    if part_of_repetition is None:
        with pytest.raises(BrainhiveError):
            separate_repetitions(**trials)
    else:
        expected = np.tile(part_of_repetition, (12, 1))[is_there]
        np.testing.assert_array_equal(separate_repetitions(**trials), expected)
