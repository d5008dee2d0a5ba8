"""Reconstructions compared with other sources and runs: paired by item and subject, in
every metric.
"""

import json
import re
from itertools import chain

import numpy as np
import pytest
from scipy.stats import false_discovery_control

from brainhive_cli.core.base.errors import MissingData
from brainhive_cli.core.results import CellFacts, Measurements, Metric
from brainhive_cli.core.runs import RunFolder, artifacts
from brainhive_cli.evaluation.reconstruction.facts import ReconstructionFacts
from brainhive_cli.evaluation.retrieval.facts import GalleryFacts, RetrievalFacts
from brainhive_cli.measurement.comparison import (
    ONE_SEED_LIMIT,
    SHARED_TRAINING_LIMIT,
    adjust_together,
    compare_runs,
    compare_sources,
    compare_values,
)
from brainhive_cli.measurement.units import Items

RANDOM = np.random.default_rng(0)
IDS = [f"item {n}" for n in range(30)]


def cell(source, subject, ids, seed=0, **values):
    """Describe a cell, and give its values by item."""
    items = {
        name: [float(numbers[n]) for n in range(len(ids))]
        for name, numbers in values.items()
    }
    return CellFacts(source=source, subject=subject, seed=seed), {
        "image_ids": ids,
        "units": ids,
        **items,
    }


def measurements(
    *cells,
    protocol="brainhive, 10 repeats",
    mode="",
):
    """The part of what a run measured that comparisons read."""
    metric = Metric("ssim", 0.5, 1, None, None, None, None, (), protocol, "test", "")
    sources = list(dict.fromkeys(described.source for described, _ in cells))
    return Measurements(
        scopes={source: {"ssim": metric} for source in sources},
        facts=ReconstructionFacts(
            mode=mode,
            sources=sources,
            units="pictures",
            cells={str(n): described for n, (described, _) in enumerate(cells)},
        ),
        items={str(n): items for n, (_, items) in enumerate(cells)},
    )


def test_items_and_subjects_are_paired_in_any_order():
    first_scores, two, base = RANDOM.random((3, 30))
    turned = IDS[::-1]
    (mine,) = compare_sources(
        measurements(
            cell("brain", 1, IDS, ssim=first_scores + base),
            cell("brain", 1, IDS, ssim=first_scores + base + 0.2),  # another seed
            cell("brain", 2, IDS, ssim=two + base),
            cell("shuffled", 2, turned, ssim=base[::-1]),
            cell("shuffled", 1, turned, ssim=base[::-1]),
        )
    )

    expected = compare_values(
        [first_scores + 0.1, two],
        [0 * first_scores, 0 * two],
        items=Items.independent([IDS, IDS]),
    )
    assert (mine.first, mine.second, mine.metric) == ("brain", "shuffled", "ssim")
    assert mine.difference == pytest.approx(expected.difference)
    assert mine.p_value == pytest.approx(expected.p_value)
    assert (mine.low, mine.high) == pytest.approx((expected.low, expected.high))
    assert (mine.n, mine.subjects) == (60, 2)


def three_sources():
    """Three sources and two metrics, whose differences are of several sizes."""
    base, noise = RANDOM.random((2, 30))
    brain = cell("brain", 1, IDS, ssim=base + noise, swav=base)
    nearest = cell("nearest", 1, IDS, ssim=base, swav=base + noise - 0.4)
    return measurements(
        brain, nearest, cell("shuffled", 1, IDS, ssim=noise, swav=noise)
    )


def test_p_values_are_adjusted_over_all_tests_of_a_page():
    mine, other_run = three_sources(), three_sources()
    sources, (runs, _) = (
        compare_sources(mine),
        compare_runs({("mine", "other"): (mine, other_run)}, noun="run"),
    )

    adjusted_groups = adjust_together(source=sources, run=runs)

    compared = list(chain(*adjusted_groups))
    expected = false_discovery_control([row.p_value for row in compared])
    assert [row.p_adjusted for row in compared] == pytest.approx(expected)
    assert {(row.tests, row.tests_of) for row in compared} == {
        (6, "2 metrics × (2 sources + 1 run)")
    }
    assert {row.tests_of for row in sources} == {"2 metrics × 2 sources"}


@pytest.mark.parametrize(
    ("other_run", "facts"),
    [
        (
            measurements(cell("brain", 3, IDS, ssim=range(30))),
            ["other", "subject 1", "3"],
        ),
        (
            measurements(cell("brain", 1, IDS[1:], ssim=range(29))),
            ["mine", "other", "item 0"],
        ),
    ],
)
def test_runs_that_cannot_be_paired_are_named_with_the_reason(other_run, facts):
    mine = measurements(cell("brain", 1, IDS, ssim=range(30)))

    pairs = {("mine", "other"): (mine, other_run), ("mine", "same"): (mine, mine)}
    (comparison,), errors = compare_runs(pairs)

    assert comparison.second == "same"
    (message,) = [error.message for error in errors.values()]
    assert list(errors) == [("mine", "other")]
    assert all(fact in message for fact in facts)


def test_a_run_without_values_of_items_is_not_compared():
    mine = measurements(cell("brain", 1, IDS, ssim=range(30)))
    run_without_items = Measurements(mine.scopes, facts=mine.facts)

    differences, errors = compare_runs({("mine", "bare"): (mine, run_without_items)})

    assert differences == []
    assert "bare has no value per item" in errors["mine", "bare"].message


@pytest.mark.parametrize("digest", ["0123456789", "9876543210"])
def test_hits_are_compared_among_the_same_candidates(digest):
    ranks = {"mine": [1] * 20 + [2] * 10, "other": [2] * 20 + [3] * 10}
    runs = []
    for label, gallery_digest in (("mine", "0123456789"), ("other", digest)):
        gallery = GalleryFacts(dataset="lab", pictures=30, digest=gallery_digest)
        facts = RetrievalFacts(
            units="pictures",
            gallery=gallery,
            cells={"a": CellFacts(subject="sub-01", seed=1)},
        )
        items = {"image_ids": IDS, "units": IDS, "ranks": ranks[label]}
        runs.append(Measurements(facts=facts, items={"a": items}))

    differences, errors = compare_runs({("mine", "other"): tuple(runs)})

    assert bool(errors) != bool(differences)
    for difference in differences:
        assert difference.metric == "top1"
        assert difference.difference == pytest.approx(20 / 30)
    for error in errors.values():
        assert "mine and other" in error.message
        assert "galleries" in error.message


def test_pictures_without_signals_are_compared_with_all_subjects():
    base, noise = RANDOM.random((2, 30))
    mine = measurements(
        cell("brain", 1, IDS, ssim=base),
        cell("brain", 2, IDS, ssim=base + noise),
        cell("mean", None, IDS, ssim=noise),
    )

    (compared,) = compare_sources(mine)

    assert compared.difference == pytest.approx((base - noise / 2).mean())
    assert (compared.n, compared.subjects) == (60, 2)


@pytest.mark.parametrize(
    ("modes", "subjects", "are_folds"),
    [
        (("inter", "intra"), 2, True),
        (("intra", "joint + inter"), 2, True),
        (("intra", "intra"), 2, False),
        (("inter", "inter"), 1, False),
    ],
)
def test_folds_of_subjects_limit_a_comparison(modes, subjects, are_folds):
    cells = [cell("brain", n, IDS, ssim=RANDOM.random(30)) for n in range(subjects)]
    mine, other_run = (measurements(*cells, mode=mode) for mode in modes)

    ((compared,), _) = compare_runs({("mine", "other"): (mine, other_run)}, noun="run")

    assert (SHARED_TRAINING_LIMIT in compared.limits) == are_folds


@pytest.mark.parametrize(
    ("n_seeds", "set_up", "is_limited"),
    [
        ((1, 1), {"train.batch_size": 8}, True),
        ((1, 2), {"train.batch_size": 8}, False),
        ((1, 1), {"backbone.kind": "ridge"}, False),
    ],
)
def test_one_seed_each_limits_a_comparison(n_seeds, set_up, is_limited):
    mine, other_run = (
        measurements(
            *(cell("brain", 1, IDS, seed, ssim=RANDOM.random(30)) for seed in range(n))
        ).with_facts(set_up=set_up)
        for n in n_seeds
    )

    ((compared,), _) = compare_runs({("mine", "other"): (mine, other_run)}, noun="run")

    assert (ONE_SEED_LIMIT in compared.limits) == is_limited


def test_different_signals_and_trainings_are_listed():
    mine, other_run = (
        measurements(cell("brain", 1, IDS, ssim=RANDOM.random(30))).with_facts(
            set_up={"window_ms": [0, width], "train.lr": rate}
        )
        for width, rate in ((100, 1), (200, 2))
    )

    ((compared,), _) = compare_runs({("mine", "other"): (mine, other_run)}, noun="run")

    (limit,) = compared.limits
    assert re.findall(r"\d+", limit) == ["0", "100", "0", "200"]
    setting_numbers = [
        re.findall(r"\d+", difference) for difference in compared.differs
    ]
    assert setting_numbers == [["0", "100", "0", "200"], ["1", "2"]]


def test_comparing_sources_and_runs_generates_no_pictures(
    run_command, prior_align_run, reconstruct_overrides
):
    overrides = list(reconstruct_overrides) + [
        "sources=brain,shuffled,nearest",
        "sheet_rows=1",
        "items=6",
        "repeats=1",
    ]
    plain_run, applied = (
        run_command("reconstruct", *overrides),
        run_command("reconstruct", *overrides, "adapter=apply"),
    )
    inodes = {
        file: file.stat().st_ino for file in plain_run.folder.rglob("samples/**/*.png")
    }

    result = run_command("reconstruct", *overrides, f"against={applied.folder.name}")

    assert result.folder == plain_run.folder
    assert {
        file: file.stat().st_ino for file in plain_run.folder.rglob("samples/**/*.png")
    } == inodes
    compared = dict.fromkeys(row.second for row in result.metrics.facts.comparisons)
    assert list(compared) == ["shuffled", "nearest"]
    # before anything is drawn
    with pytest.raises(MissingData, match="absent"):
        run_command("reconstruct", *overrides, "against=absent")
    against = json.loads((plain_run.folder / "metrics.json").read_text())["facts"][
        "against"
    ]
    assert {row["second"] for row in against} == {str(applied.folder)}
    assert "adapter" in " ".join(against[0]["differs"])
    plain_ssim, second = (
        run_result.metrics.overall["ssim"].value for run_result in (plain_run, applied)
    )
    (ssim,) = (row["difference"] for row in against if row["metric"] == "ssim")
    assert ssim == pytest.approx(plain_ssim - second)
    sources, runs = result.tables[1:]
    correction_note = (
        "p adjusted by Benjamini–Hochberg over 6 tests: 2 metrics × (2 sources + 1 run)"
    )
    assert correction_note in sources.note
    assert correction_note in runs.note
    compared = list(result.metrics.facts.comparisons) + list(
        result.metrics.facts.against
    )
    adjusted = false_discovery_control([row.p_value for row in compared])
    assert [row.p_adjusted for row in compared] == pytest.approx(adjusted)
    assert [row[:2] for row in sources.rows[:3]] == [
        ("PixCorr", "shuffled, floor"),
        ("SSIM", "shuffled, floor"),
        ("PixCorr", "nearest training picture"),
    ]
    assert runs.rows[0][1] == f"…{applied.folder.name[-9:]}"
    table_titles = [
        run_result.title
        for run_result in artifacts.read(RunFolder(plain_run.folder))
        if run_result.kind == "table"
    ]
    assert sum("this run" in title for title in table_titles) == 1
    repeated_comparisons = run_command(
        "reconstruct", *overrides
    ).metrics.facts.against  # until others are named
    assert [row.model_dump() for row in repeated_comparisons] == against
