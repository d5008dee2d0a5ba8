"""Tests of the split-half ceiling, by simulated signals of known reliability."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from brainhive_cli.core.runs.run_folder import RunFolder
from brainhive_cli.data.signals import Sensors, Trials
from brainhive_cli.evaluation.retrieval import measure
from brainhive_cli.evaluation.retrieval.measure import (
    measure_ceiling,
    measure_signal_ceiling,
)
from brainhive_cli.evaluation.retrieval.recipe import Recipe
from brainhive_cli.evaluation.retrieval.summary import CellScores, measure_ceilings
from brainhive_cli.evaluation.retrieval.tables import lay_out
from brainhive_cli.measurement import Scores, StimulusGrouping
from brainhive_cli.training.alignment.trained.tested_person import TestedPerson
from tests.worlds.memory_test_set import (
    MemoryTestSet,
    PictureModel,
    make_runs,
    make_store,
)

ITEMS, REPETITIONS = 100, 8


def trials(noise, seed=0):
    """Make trials [N, R, C, T] of patterns with variance 1, in noise."""
    random = torch.Generator().manual_seed(seed)
    pattern = torch.randn(ITEMS, 1, 6, 10, generator=random) + 5 * torch.randn(
        6, 10, generator=random
    )
    return pattern + noise * torch.randn(ITEMS, REPETITIONS, 6, 10, generator=random)


def of(signal, expand=REPETITIONS, splits=10):
    expand = torch.as_tensor(expand).expand(len(signal))
    ids, parts = (
        [f"item {n}" for n in range(len(signal))],
        torch.arange(signal.shape[1]),
    )
    ceiling = measure_ceiling(
        signal, expand, ids, splits, 0, parts.expand(len(signal), -1)
    )
    return measure_ceilings(
        {"sub-01": ceiling}, CellScores([], StimulusGrouping(), "demo", "test")
    )


@pytest.mark.parametrize("noise", [1.0, 6.0])
def test_reliability_is_the_variance_explained_by_pictures(noise):
    """The average of R repetitions has the reliability 1 / (1 + noise² / R).

    The tolerance is a tenth and a standard error.
    """
    reliability = of(trials(noise)).scopes["ceiling · all"]["reliability"]

    expected = 1 / (1 + noise**2 / REPETITIONS)
    assert reliability.value == pytest.approx(expected, rel=0.1, abs=0.02)
    assert reliability.low < expected < reliability.high


def test_halves_of_noise_match_by_chance_and_patterns_always():
    patterns = trials(0.01)
    noise = torch.randn(patterns.shape, generator=torch.Generator().manual_seed(1))

    by_chance, always = (of(each).scopes["ceiling · all"] for each in (noise, patterns))

    assert by_chance["top1"].value < 0.04
    assert by_chance["top1"].chance == pytest.approx(1 / ITEMS)
    assert abs(by_chance["reliability"].value) < 0.1
    assert always["top1"].value == 1
    assert always["reliability"].value == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("available", "expected"),
    [([2], 2 / 3), ([3], 3 / 4), ([4], 4 / 5), ([5], 5 / 6), ([2, 5], 28 / 37)],
)
def test_reliability_is_of_all_repetitions(available, expected):
    """Pictures and noise have equal variance, and halves of 5 leave a repetition out.

    Halves of 2 and 5 have 1.5 repetitions on average, correlate by 1 / 1.75, and are
    predicted 7 / 3 times longer.
    """
    signal = draw_noise(400, 1, 80) + draw_noise(400, 5, 80, seed=1)
    available = torch.tensor(available).repeat(400 // len(available))
    parts = torch.arange(5).expand(400, -1)

    ceiling = measure_ceiling(
        signal, available, list(map(str, range(400))), 3, 0, parts
    )

    assert ceiling.values["reliability"].mean() == pytest.approx(expected, abs=0.012)
    assert ceiling.repetitions == int(available.max())


def test_a_ceiling_of_all_subjects_is_the_mean_of_theirs():
    ids = [f"{row}" for row in range(6)]
    ceilings = {}
    for name, value in (("sub-01", 0.2), ("sub-02", 0.6)):
        shares = {"top1": np.ones(6), "top5": np.ones(6)}
        shares["reliability"] = np.full(6, value)
        ceilings[name] = Scores(ids, pool=6, values=shares, repetitions=3)

    scopes = measure_ceilings(
        ceilings, CellScores([], StimulusGrouping(), "demo", "test")
    ).scopes

    values = [metrics["reliability"].value for metrics in scopes.values()]
    assert values == pytest.approx([0.2, 0.6, 0.4])
    chances = [scopes["ceiling · all"][name].chance for name in ("top1", "top5")]
    assert chances == pytest.approx([1 / 6, 5 / 6])


def draw_noise(*sizes, seed=0):
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed))


def test_halves_are_of_different_parts_of_the_recording():
    """A response that pictures share within a run only is no agreement."""
    patterns = draw_noise(ITEMS, 2, 1, 50).repeat_interleave(3, 1)
    signal = patterns + 0.1 * draw_noise(ITEMS, 6, 1, 50, seed=1)
    ids, full = [f"{row}" for row in range(ITEMS)], torch.full((ITEMS,), 6)
    parts = torch.tensor([0, 0, 0, 1, 1, 1]).expand(ITEMS, -1)

    within, across = (
        measure_ceiling(signal, full, ids, 4, 0, numbers)
        for numbers in (torch.arange(6).expand(ITEMS, -1), parts)
    )

    assert within.values["reliability"].mean() > 0.3
    assert abs(across.values["reliability"].mean()) < 0.05
    assert within.values["top1"].mean() > 0.5 > 0.05 > across.values["top1"].mean()


def test_a_ceiling_skips_pictures_in_a_single_part_and_padding():
    signal = draw_noise(5, 3, 4, seed=2)
    signal[2, 2:] = float("nan")
    tensor = torch.tensor([1, 3, 2, 3, 3])
    parts = torch.tensor([[0, 1, 2], [0, 1, 2], [0, 1, 9], [0, 0, 0], [0, 0, 1]])

    ceiling = measure_ceiling(signal, tensor, list("abcde"), 2, 0, parts)
    few_ceiling = measure_ceiling(signal[:2], tensor[:2], list("ab"), 2, 0, parts[:2])
    single = measure_ceiling(signal, 0 * tensor + 1, list("abcde"), 2, 0, parts)

    assert ceiling.image_ids == ["b", "c", "e"]
    assert ceiling.pool == 3
    assert np.isfinite(ceiling.values["reliability"]).all()
    assert few_ceiling.reason == "fewer than two pictures were repeated"
    assert single.reason == "one repetition of each picture"
    # each split and each seed halves in its own way
    noise = draw_noise(40, 4, 8, seed=3)
    args = [noise, torch.full((40,), 4), list(map(str, range(40)))]
    expand = torch.arange(4).expand(40, -1)
    one, other = (measure_ceiling(*args, 2, seed, expand) for seed in (0, 1))
    half_ceiling = measure_ceiling(*args, 1, 0, expand)
    for second in (half_ceiling, other):
        assert (one.values["reliability"] != second.values["reliability"]).any()


def noise_that_drifts(design):
    """Make noise that is a random walk, with the repetitions of a picture in a row."""
    random, pictures = np.random.default_rng(0), np.arange(ITEMS)
    if design == "in a row":
        repeat = np.repeat(random.permutation(pictures), REPETITIONS)
    else:  # twice in a row in each of four sessions
        orders = [random.permutation(pictures) for _ in range(4)]
        repeat = np.concatenate([np.repeat(order, 2) for order in orders])
    # numbers of the trials of each picture, in the order of time
    numbers = np.argsort(repeat, kind="stable").reshape(ITEMS, REPETITIONS)
    sessions = (numbers // (2 * ITEMS)).astype(np.int8)
    offsets = 3 * random.normal(size=(4, 6, 10))
    drift = 0.1 * random.normal(size=(len(repeat), 6, 10)).cumsum(0)
    signal = drift[numbers] + offsets[sessions] + random.normal(size=(1, 1, 6, 10))
    return Trials.from_repetitions(
        (signal + random.normal(size=signal.shape)).astype(np.float32),
        [f"item {number}" for number in pictures],
        Sensors(list("abcdef")),
        np.arange(10) / 100,
        100.0,
        "µV",
        sessions=None if design == "in a row" else sessions,
        onset_s=numbers * 1.5,
        stimulus=pictures,
    )


@pytest.mark.parametrize("design", ["in a row", "in each session"])
def test_noise_that_drifts_has_no_ceiling(design):
    """Issue 60, row 3: successive repetitions gave noise a ceiling of 0.62.

    Chance was 0.01, and the reliability 0.75.
    """
    tested_noise_that_drifts = noise_that_drifts(design)
    model = PictureModel()
    stores = {
        "looks": make_store(torch.zeros(ITEMS, 1), tested_noise_that_drifts.image_ids)
    }
    tests = MemoryTestSet(
        make_runs([model]),
        "test",
        stores={"test": stores},
        recorded={1: {"test": tested_noise_that_drifts}},
    )
    recipe = Recipe.resolve("eval-retrieval", None, {}, ["ceiling_splits=10"])

    ceiling = measure_signal_ceiling([model], tests, 1, recipe)

    if design == "in a row":
        assert "follow one another" in ceiling.reason
    else:
        assert ceiling.values["top1"].mean() < 0.04
        assert abs(ceiling.values["reliability"].mean()) < 0.1


def test_seeds_share_the_trials_and_the_ceiling_of_a_person(
    run_command, world, align_overrides, runs, monkeypatch
):
    run_folder = run_command(
        "train-align",
        *align_overrides,
        "subjects=1",
        "seeds=1,2",
        "train.epochs=1",
        runs,
    ).folder
    reads = []
    read = TestedPerson.read

    def record_read(person, split):
        reads.append(split)
        return read(person, split)

    ceilings = []
    measure_once = measure.measure_signal_ceiling

    def record_ceiling(models, *arguments):
        ceilings.append(models[0].cell.seed)
        return measure_once(models, *arguments)

    monkeypatch.setattr(TestedPerson, "read", record_read)
    monkeypatch.setattr(measure, "measure_signal_ceiling", record_ceiling)

    result = run_command(
        "eval-retrieval",
        f"run={run_folder}",
        "sheet_rows=0",
        "baseline=none",
        "ceiling_splits=2",
        runs,
    )

    assert len(result.metrics.facts.cells) == 2
    assert reads.count("test") == 1
    assert ceilings == [1]


@pytest.mark.nightly
def test_each_subject_has_a_ceiling_of_its_signals(
    run_command, world, align_overrides, tmp_path
):
    run_folder = run_command("train-align", *align_overrides).folder  # finished already
    result = run_command(
        "eval-retrieval", f"paths.runs={tmp_path}", f"align_run={run_folder}"
    )

    measurements = RunFolder(result.folder).measurements()
    assert {
        "ceiling · sub-01",
        "ceiling · sub-02",
    } <= measurements.scopes.keys()
    assert not measurements.missing
    top1 = measurements.scopes["ceiling · all"]["top1"]
    assert (top1.n, top1.pool) == (200, 100)
    assert "10 random splits" in top1.protocol
    assert "simulated" in top1.protocol
    (table,) = [
        each for each in result.tables if each.title.startswith("Split-half ceiling")
    ]
    assert [row[0] for row in table.rows[:3]] == [
        "sub-01",
        "sub-02",
        "all",
    ]
    assert "simulated" in table.note
    reason = "one repetition of each picture"
    partly = replace(measurements, missing={"ceiling · sub-03": reason})
    (table,) = lay_out(partly, ["ceiling"])
    assert len(table.rows) > 2
    assert f"sub-03 has none: {reason}" in table.note
    others = {
        name: each
        for name, each in measurements.scopes.items()
        if not name.startswith("ceiling")
    }
    (table,) = lay_out(replace(partly, scopes=others), ["ceiling"])
    assert table.rows == (("sub-03", reason),)
    without = run_command(
        "eval-retrieval",
        f"paths.runs={tmp_path}",
        f"align_run={run_folder}",
        "ceiling_splits=0",
    )
    assert not [name for name in without.metrics.scopes if name.startswith("ceiling")]
    assert not [each for each in without.tables if each.title.startswith("Split-half")]
