"""Calibrations of small random people."""

from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.core.recipes.recipe import Paths
from brainhive_cli.core.results.measurements import TRIALS_TOGETHER
from brainhive_cli.evaluation.calibration.amounts import (
    UNLIMITED,
    limit_amounts,
    measure_amounts,
)
from brainhive_cli.evaluation.calibration.curves import (
    choose_headline,
    measure_seen_share,
    summarise_draws,
)
from brainhive_cli.evaluation.calibration.facts import CalibrationFacts
from brainhive_cli.evaluation.calibration.job import Job, Person, read_training
from brainhive_cli.evaluation.calibration.measure import (
    Part,
    choose_strength,
    find_fixed_pulls,
    fit_decoder,
    list_arms,
    make_reduced_recipe,
)
from brainhive_cli.evaluation.calibration.recipe import Recipe
from brainhive_cli.measurement.units import Items
from brainhive_cli.training.alignment import Cell, Recipe as Training
from tests.worlds.array_trials import make_trials

COUNTS = np.array([3, 1, 2, 4, 2, 1, 3, 2, 4, 1, 2])


def trials_of(seed=0, subject=4, **left_out):
    """Make trials of two sessions with two or three runs, each with a break."""
    random = np.random.default_rng(seed)
    is_there = np.arange(4) < COUNTS[:, None]
    number = random.permutation(int(COUNTS.sum()))
    run, position = np.divmod(number, 5)
    columns = {
        "sessions": (np.int8, run // 3),
        "runs": (np.int16, run % 3),
        "onset_s": (np.float64, 7 + 2.5 * position + 20 * (position > 2) + 0.1 * run),
    }
    known = {}
    for name, (kind, values) in columns.items():
        empty = np.nan if name == "onset_s" else -1
        known[name] = np.full(is_there.shape, empty, kind)
        known[name][is_there] = values
    signal = random.normal(size=(len(COUNTS), 4, 3, 5)).astype(np.float32)
    rows = 2 * np.arange(len(COUNTS))
    return make_trials(
        subject,
        signal,
        rows,
        ("P7", "Oz", "Cz"),
        100.0,
        COUNTS,
        **{**known, **left_out},
    )


def test_amounts_that_everybody_has():
    people = [trials_of(), trials_of(1).take(np.arange(9))]
    zeros = np.zeros(25, bool)
    assert limit_amounts(people, "pictures", [9, 1, 4, 8]) == {
        **{"1 picture": 1, "4 pictures": 4, "8 pictures": 8},
        "everything": UNLIMITED,
    }
    # of 25 and of 22 trials
    assert list(limit_amounts(people, "trials", [21, 22, 30]).values()) == [
        21,
        UNLIMITED,
    ]
    assert measure_amounts(trials_of(onset_s=None), zeros)[:2].tolist() == [0, 0]
    assert np.isnan(measure_amounts(trials_of(onset_s=None), ~zeros)[2])
    assert measure_amounts(trials_of(), zeros).tolist() == [0, 0, 0]
    for unit, order in (("minutes", "draws"), ("pictures", "recording")):
        with pytest.raises(BrainhiveError, match="subject 9"):
            limit_amounts([trials_of(0, 9, onset_s=None)], unit, [1], order)


def recipe(*arguments):
    return Recipe.resolve("calibrate", None, {}, arguments)


CELLS = [
    Cell(f"all/seed-{seed}", trained, (subject,), seed)
    for subject in (4, 5, 6)
    for seed, trained in ((1, (1, 2, 3)), (2, (1, 2)))
]
NAMES = {"2 pictures": 2.0, "7 pictures": 7.0, "everything": UNLIMITED}
IDS = [[f"p{row}" for row in range(9)], [f"p{row}" for row in range(1, 9)]]
IDS.append([f"p{row}" for row in range(8)])


def job_of(*arguments, backbone="nice", **changes):
    """Make a calibration of three people, each of whom saw some of nine pictures."""
    everybody = {}
    for subject, ids in zip((4, 5, 6), IDS, strict=True):
        stand_in = SimpleNamespace(stimulus=np.array([int(name[1:]) for name in ids]))
        trials = trials_of(subject, subject)
        everybody[subject] = Person(
            subject, trials, subject % 3, stand_in, {}, range(9)
        )

    def stores(split):
        store = SimpleNamespace(image_ids=[f"p{row}" for row in range(22)], pixels=None)
        return {"one": store}

    def model(cell):
        def find_members(name, ids, pixels, confirm):
            return np.arange(22) % (2 + 2 * cell.seed) == 0

        pictures = SimpleNamespace(find_members=find_members)
        return SimpleNamespace(cell=cell, history=SimpleNamespace(pictures=pictures))

    dataset = SimpleNamespace(pictured_as="a", name="made")
    align = SimpleNamespace(dataset=dataset, mode="inter", variant="")
    tests = SimpleNamespace(
        models=[[model(cell) for cell in CELLS]],
        dataset=dataset,
        open_stores=stores,
        make_comparison=lambda split: None,
        list_seen=lambda: [],
        signal_warnings=[],
        describe=lambda: {},
        summarise_seen=lambda: ({}, []),
        caveats=[],
    )
    training = Training.resolve(
        "train-align", None, {}, ["dataset=demo", f"backbone={backbone}"]
    )
    fields = {
        "recipe": recipe(*arguments),
        "align": align,
        "training": training,
        "cells": CELLS,
        "unit": "pictures",
        "draws": 2,
        "needs_trials": False,
        "epochs": 3,
    }
    job = Job(**{**fields, **changes})
    vars(job).update(
        people=everybody, amounts=NAMES, items=Items.independent(IDS), tests=tests
    )
    return job


ARMS = ("zero-shot", "transfer", "scratch", "permuted-transfer", "coral")


def parts_of(arms=ARMS):
    """Make random ranks. Transfer is best, and everything has a single draw."""
    ranked = {}
    rows = enumerate(NAMES)
    sizes = {name: np.array([row + 2.0, 3 * row + 1.5, row / 7]) for row, name in rows}
    for number, cell in enumerate(CELLS):
        count = len(IDS[cell.tested_on[0] - 4])
        for draw_number in range(2):
            random = np.random.default_rng([number, draw_number])
            ranks = {}
            for row, (arm, name) in enumerate(product(arms, NAMES)):
                if draw_number == 1 and name == "everything":
                    continue
                high = 4 + row % 3 if arm == "transfer" else 10
                ranks[arm, name] = random.integers(1, high, count)
            known = {name: values * (1 + number) for name, values in sizes.items()}
            ranked[cell, draw_number] = Part(ranks, known, {}, ())
    return ranked


def test_an_arm_that_was_not_measured_of_everybody_is_left_out():
    parts = parts_of()
    first = next(iter(parts))
    parts[first] = Part(
        parts[first].ranks, parts[first].sizes, {"coral": "few"}, ["scratch"]
    )
    arguments = [f"arms={','.join(ARMS[:4])}", "alignments=coral"]
    draws = summarise_draws(job_of(*arguments), parts, {})
    arms = list(draws.require_facts(CalibrationFacts).arms)
    assert arms == list(ARMS[:4])
    assert list(draws.missing) == ["coral"]
    stamped = {
        name
        for name, metrics in draws.scopes.items()
        if any("transductive" in metric.protocol for metric in metrics.values())
    }
    first_parts = {name.split(" · ")[0] for name in stamped}
    assert first_parts == {"scratch", "transfer over scratch"}
    fromkeys = dict.fromkeys(list_arms(recipe(*arguments)), "few")
    parts[first] = Part({}, {}, fromkeys, ())
    with pytest.raises(BrainhiveError, match="no arm"):
        summarise_draws(job_of(*arguments), parts, {})


@pytest.mark.parametrize(
    ("arms", "headline"),
    [
        (["zero-shot", "transfer", "scratch"], "transfer"),
        (["zero-shot", "coral", "scratch"], "coral"),
        (["permuted-transfer", "scratch", "permuted-scratch"], "scratch"),
        (["permuted-transfer"], ""),
    ],
)
def test_the_arm_of_the_finding(arms, headline):
    assert choose_headline(arms) == headline


def test_shares_of_pictures_that_others_saw():
    # rows 0, 2, … 20: of every fourth and sixth row
    assert measure_seen_share(job_of()) == pytest.approx((6 / 11 + 4 / 11) / 2)


class Base:
    """Model of other people that returns the arguments of its methods."""

    zero_shot = "zero-shot"

    def __init__(self, decodes=True):
        self.decodes = decodes

    def can_decode_new_people(self, trials):
        return self.decodes

    def train_arm(self, *asked):
        return asked

    def align_signals(self, config, trials):
        return "signals", config.kind

    def align_tokens(self, config, trials):
        return "tokens", config.kind


def test_each_arm_is_fitted_in_its_way():
    spec = recipe("alignments=coral,euclidean")
    trials = trials_of()

    def fit(arm, pull=0.1, count=11, **options):
        base = Base(**options)
        return fit_decoder(base, arm, spec, trials.take(np.arange(count)), 5, pull)

    assert fit("zero-shot") == fit("transfer", None) == "zero-shot"
    # four pictures are too few, unless the model cannot decode strangers
    assert fit("transfer", count=4) == fit("permuted-transfer", count=4) == "zero-shot"
    assert fit("transfer", count=5)[0] == fit("transfer", count=4, decodes=False)[0]
    assert fit("scratch", None, count=4)[0] == "scratch"
    arm, _, seed, pull, align = fit("transfer")
    assert (arm, seed, pull) == ("transfer", 5, 0.1)
    assert align.kind == "euclidean"
    assert fit("scratch", None)[3] == 0.0
    assert fit("coral") == ("tokens", "coral")
    assert fit("euclidean") == ("signals", "euclidean")


def test_strengths_that_nobody_chooses():
    single_cell = Cell("a", (1,), (4,), 1)
    # people choose one of several strengths
    several_job = job_of("transfer.pulls=1,0.1")
    assert find_fixed_pulls(several_job, CELLS[0]) is None
    assert several_job.count_choosers(CELLS[0]) == 3
    fixed_pulls_of_cell = find_fixed_pulls(several_job, single_cell)
    assert fixed_pulls_of_cell is not None
    assert fixed_pulls_of_cell.chosen_by == "one person"
    assert list(fixed_pulls_of_cell.pulls.values()) == [0.3, 0.3, 0.3]
    fixed_pulls = find_fixed_pulls(job_of("transfer.pulls=0.2"), CELLS[0])
    assert fixed_pulls is not None
    assert set(fixed_pulls.pulls.values()) == {0.2}
    assert fixed_pulls.chosen_by == "recipe"
    closed = find_fixed_pulls(job_of(backbone="ridge", epochs=None), CELLS[0])
    assert closed is not None
    assert set(closed.pulls.values()) == {0.0}
    none = find_fixed_pulls(job_of(), CELLS[0])
    assert none is not None
    assert none.chosen_by == "number of pictures"
    assert (
        job_of(
            "arms=zero-shot",
        ).count_choosers(CELLS[0])
        == 0
    )
    assert job_of("transfer.pulls=1,0.1", epochs=None).count_choosers(CELLS[0]) == 0


def test_the_nearest_strength_that_is_not_surely_worse():
    random = np.random.default_rng(0)
    best = random.random(6)
    worse = best - np.array([0.1, 0.12, 0.09, 0.11, 0.1, 0.08])
    noisy = best - np.array([0.5, -0.4, 0.3, -0.3, 0.2, -0.1])
    assert choose_strength({None: worse, 1.0: noisy, 0.1: best}) == 1.0
    assert choose_strength({None: worse, 0.1: best, 0.0: worse}) == 0.1
    assert choose_strength({None: [0.3], 0.1: [0.4]}) == 0.1
    assert choose_strength({None: [0.4], 0.1: [0.4]}) is None


def test_a_model_of_fewer_people_validates_on_held_out_concepts():
    job, paths = job_of(), Paths()
    reduced_recipe = make_reduced_recipe(job, [1, 3], 7, paths)
    assert (reduced_recipe.mode, reduced_recipe.subjects, reduced_recipe.seeds) == (
        "joint",
        [1, 3],
        [7],
    )
    assert reduced_recipe.trained_on is None
    assert reduced_recipe.train.validation >= 0.1
    for share, selection, expected in (
        (0.2, "test", (0.2, "best")),
        (0.0, "last", (0.1, "last")),
    ):
        keys = {"validation": share, "selection": selection}
        train = job.training.train.model_copy(update=keys)
        training = job.training.model_copy(update={"train": train})
        selected_train = make_reduced_recipe(
            job_of(training=training), [1], 1, paths
        ).train
        assert (selected_train.validation, selected_train.selection) == expected


def test_work_is_the_number_of_models():
    plain_work = job_of("pictures=2,7", "draws=2").count_work()
    # six models; transfer and scratch after two amounts in two draws, and everything
    assert (plain_work.count, plain_work.cells) == (6 * 2 * 5, 12)
    several_work = job_of("pictures=2,7", "transfer.pulls=1,0.1").count_work()
    # three and two people each choose one of two, twice after two amounts, and once
    assert several_work.count == 6 * 2 * 5 + 3 * (3 + 2) * (1 + 2 * 5)
    assert job_of("arms=zero-shot").count_work().count == 0
    assert "2 draws" in job_of().describe_protocol([])
    assert "1 draw," not in job_of(draws=2).describe_protocol([])
    ordered = job_of("order=recording", draws=1).describe_protocol([TRIALS_TOGETHER])
    assert "order of recording" in ordered
    assert "transductive" in ordered


def test_at_most_so_many_pictures_are_read_evenly_spaced():
    splits = []

    def read(split):
        splits.append(split)
        return trials_of()

    person = SimpleNamespace(read=read)
    training = read_training(person, reads_singles=False)
    few_training = read_training(person, reads_singles=False, max_pictures=4)
    many = read_training(person, reads_singles=True, max_pictures=40)
    assert len(training.stimulus) == len(many.stimulus) == 11
    assert few_training.stimulus.tolist() == [0, 4, 8, 12, 16, 20]
    assert splits == ["train"] * 3
