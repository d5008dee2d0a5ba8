"""What the design of a study tells about labels, and the orders with its odds."""

from itertools import permutations

import numpy as np
import pytest

from benchmarks.simulated_statistics.claims import (
    designs_of_classes as classes,
    designs_of_pictures as pictures,
)
from benchmarks.simulated_statistics.claims.random_orders import AXES, random_orders
from brainhive_cli.measurement.design import (
    SHOWINGS,
    LabelDesign,
    Timeline,
    describe_design,
    describe_pictures,
    describe_trials,
)

NOTHING = "nothing"
"""The design tells no labels."""
TELLS = "tells"
"""The design tells labels, but they can still be exchanged."""
SERIES = "series"
"""Labels are exchanged between series of trials."""
NOT_SEPARABLE = "not separable"
"""The design tells labels, and they cannot be exchanged."""
CLASSES = {
    "random in runs": NOTHING,
    "random": NOTHING,
    "permuted blocks": TELLS,
    "never repeats": TELLS,
    "blocks": SERIES,
    "blocks, same order": NOT_SEPARABLE,
    "short blocks": f"{SERIES} or {TELLS}",
    "cycle": NOT_SEPARABLE,
    "alternation": NOT_SEPARABLE,
    "pairs": NOT_SEPARABLE,
    "often repeats": TELLS,
    "often the next": TELLS,
    "two before": f"{SERIES} or {TELLS}",
    "rates change": f"{NOTHING} or {TELLS}",
    "one random order": NOT_SEPARABLE,
    "cycle, fMRI": NOT_SEPARABLE,
    "random in runs, fMRI": NOTHING,
    "a class a run": SERIES,
}
"""Meaning of each order of classes in the benchmarks."""
PICTURES = {
    "random": NOTHING,
    "unequal repetitions": NOTHING,
    "each picture once in a run": NOTHING,
    "permuted kinds": f"{NOTHING} or {TELLS}",
    "kinds in blocks": TELLS,
    "training beside test": TELLS,
    "kinds in a cycle": TELLS,
    "sorted by kind": TELLS,
    "sorted by a feature": TELLS,
    "only test sorted": TELLS,
    "test kinds in blocks": TELLS,
    "a list a session": TELLS,
    "two people": TELLS,
    "repetitions in a row, sorted": TELLS,
    "one random order in runs": NOTHING,
    "random, fMRI": NOTHING,
}
"""Meaning of each order of pictures in the benchmarks."""
NIGHTLY = {
    "blocks, same order",
    "short blocks",
    "often repeats",
    "often the next",
    "two before",
    "cycle, fMRI",
    "random in runs, fMRI",
    "random, fMRI",
    "sorted by a feature",
    "test kinds in blocks",
}
"""Orders that are like others, or take long."""
RUNS = 5


def list_names(names):
    """List names of orders as parameters, some of which are only tested nightly."""
    parameters = []
    for name in names:
        pytest_marks = [pytest.mark.nightly] if name in NIGHTLY else []
        parameters.append(pytest.param(name, marks=pytest_marks))
    return parameters


def show_classes(name, seed=0):
    """Show five runs of 32 trials of four classes, each trial a unit."""
    random = np.random.default_rng(seed)
    order_name = name.removesuffix(", fMRI")
    label = np.concatenate(classes.draw_runs(random, order_name)[:RUNS])
    run_of_trial = np.repeat(np.arange(RUNS), classes.TRIALS)
    zeros = np.zeros_like(run_of_trial)
    trials = np.arange(len(run_of_trial))
    concepts = np.arange(classes.CLASSES)
    return Timeline(label, trials, zeros, zeros, run_of_trial, True, None, concepts)


def show_pictures(name, seed=1):
    """Show test and training pictures of eight kinds, in runs of 40 trials."""
    random = np.random.default_rng(seed)
    order_name = name.removesuffix(", fMRI")
    n_each = pictures.TEST + pictures.TRAIN
    kind = np.repeat(np.arange(pictures.KINDS), n_each)
    is_test = np.tile(np.arange(n_each) < pictures.TEST, pictures.KINDS)
    if order_name == "test kinds in blocks":
        is_test = kind >= pictures.KINDS - 3
    features = random.normal(size=(pictures.KINDS, pictures.WIDTH))[kind]
    features += random.normal(size=features.shape)
    if order_name in ("sorted by a feature", "only test sorted"):
        features += 0.4 * random.normal(size=features.shape).cumsum(0)
    shown_pictures, group = pictures.draw_order(random, order_name, kind, is_test)
    blocks = np.arange(len(shown_pictures)) // pictures.TRIALS
    pairs = np.stack([group, blocks])
    run_of_trial = np.unique(pairs, axis=1, return_inverse=True)[1].reshape(-1)
    number = np.full(len(kind), -1)
    number[is_test] = np.arange(is_test.sum())
    person = group if order_name == "two people" else np.zeros_like(group)
    concepts = np.arange(len(kind))
    return Timeline(
        shown_pictures,
        number[shown_pictures],
        person,
        group,
        run_of_trial,
        True,
        features,
        concepts,
    )


def describe(timeline):
    """Describe a design in which all test pictures may exchange their labels."""
    return describe_pictures(timeline, np.zeros(1 + timeline.unit.max(), np.int64))


def describe_classes(timeline):
    """Describe a design in which all trials may exchange their labels."""
    return describe_trials(timeline, np.zeros_like(timeline.run))


def name_outcome(design, n_units):
    """Name what a design means for a test of units."""
    if design.problem:
        return NOT_SEPARABLE
    if len(design.label) < n_units:
        return SERIES
    return TELLS if design.tells else NOTHING


@pytest.mark.parametrize("name", list_names(classes.AXES["design"]))
def test_orders_of_classes_tell_them_only_by_design(name):
    timeline = show_classes(name)

    design, units = describe_classes(timeline)

    assert name_outcome(design, len(timeline.unit)) in CLASSES[name].split(" or ")
    assert (design.label[units] == timeline.stimulus).all()


@pytest.mark.parametrize("name", list_names(pictures.AXES["design"]))
def test_orders_of_pictures_tell_them_only_by_design(name):
    """Pictures of a kind can be exchanged where time tells the kind."""
    design = describe(show_pictures(name))

    assert name_outcome(design, len(design.label)) in PICTURES[name].split(" or ")


@pytest.mark.parametrize("name", ["rates change", "random"])
def test_classes_are_exchanged_within_their_run(name):
    """Rates that change from run to run do not tell the classes of a run."""
    timeline = show_classes(name)

    design, units = describe_classes(timeline)

    assert (units == timeline.unit).all()
    assert (design.stratum == timeline.run).all()


def test_pictures_are_exchanged_within_sessions_that_tell_kinds():
    """Each of eight sessions shows two kinds of its own in random order."""
    random = np.random.default_rng(0)
    kind = np.repeat(np.arange(16), 6)
    session = kind // 2
    features = random.normal(size=(16, 8))[kind]
    features += random.normal(size=features.shape)
    shown_pictures = np.lexsort((random.random(96), session))
    zeros = np.zeros_like(shown_pictures)
    timeline = Timeline(
        stimulus=shown_pictures,
        unit=shown_pictures,
        person=zeros,
        session=session[shown_pictures],
        run=session[shown_pictures],
        is_ordered=True,
        features=features,
        concept=np.arange(96),
    )

    design = describe(timeline)

    orders = design.draw_orders(40, 0)
    assert design.tells
    assert (session[orders] == session).all()
    assert design.n_changed > 48


def test_unequal_repetitions_change_the_odds_but_tell_nothing():
    """Kinds with more showings were once "shown in blocks", so not testable."""
    design = describe(show_pictures("unequal repetitions"))

    assert set(design.telling) <= {SHOWINGS}
    assert not design.tells
    assert not design.problem


@pytest.mark.parametrize(
    ("name", "telling"),
    [
        ("training beside test", "time in the run"),
        ("kinds in a cycle", "the position in the run"),
    ],
)
def test_the_sentence_names_the_strongest_feature(name, telling):
    assert describe(show_pictures(name)).telling[0] == telling


def test_the_problem_names_the_feature_that_tells():
    design, _ = describe_classes(show_classes("cycle"))

    assert design.problem.startswith(f"{design.telling[0]} tells the label")
    assert design.n_changed < 1


@pytest.mark.nightly
@pytest.mark.parametrize("people", AXES["people"])
@pytest.mark.parametrize("units", AXES["units"])
def test_random_orders_seldom_tell_anything(units, people):
    """A rate of .02 tells in more than 3 of 30 studies with a chance of .003."""
    outcomes = [
        random_orders(np.random.default_rng(n), units, people) for n in range(30)
    ]

    assert sum(tells for tells, *_ in outcomes) <= 3


def test_the_numbers_of_pictures_do_not_matter():
    timeline = show_pictures("kinds in a cycle")
    number = np.random.default_rng(0).permutation(1 + timeline.unit.max())
    renumbered = np.where(timeline.unit < 0, -1, number[timeline.unit])

    design = describe(timeline)
    renumbered_design = describe(timeline._replace(unit=renumbered))

    assert (renumbered_design.label[number] == design.label).all()
    assert (renumbered_design.tells, renumbered_design.telling[0]) == (
        design.tells,
        design.telling[0],
    )
    assert renumbered_design.n_changed == pytest.approx(design.n_changed, rel=0.2)
    odds = np.stack(
        [design.log_odds.ravel(), renumbered_design.log_odds[number].ravel()]
    )
    assert np.corrcoef(odds)[0, 1] > 0.9


@pytest.mark.parametrize(
    "name", ["never repeats", pytest.param("blocks", marks=pytest.mark.nightly)]
)
def test_the_numbers_of_trials_do_not_matter(name):
    timeline = show_classes(name)
    number = np.random.default_rng(0).permutation(len(timeline.unit))

    design, units = describe_classes(timeline)
    renumbered_design, other_units = describe_classes(timeline._replace(unit=number))

    n_trials = len(number)
    assert name_outcome(renumbered_design, n_trials) == name_outcome(design, n_trials)
    assert (renumbered_design.label[other_units[number]] == design.label[units]).all()
    is_together = units[1:] == units[:-1]
    in_time = other_units[number]
    assert ((in_time[1:] == in_time[:-1]) == is_together).all()
    assert renumbered_design.n_changed == pytest.approx(
        design.n_changed, rel=0.2, abs=0.5
    )


def test_blocks_of_a_class_are_exchanged_as_series():
    """Noise that drifts is alike in a series, so a series keeps a common label."""
    timeline = show_classes("blocks")

    design, units = describe_classes(timeline)

    assert (units == np.arange(len(units)) // 8).all()
    assert (design.stratum == np.arange(len(design.label)) // 4).all()
    assert not design.tells
    assert design.n_changed > 8


def test_classes_with_a_single_series_have_series_as_units():
    """Noise that drifts tells the class of a trial, but not that of a series."""
    label = np.repeat(np.random.default_rng(0).permutation(12), 5)
    zeros = np.zeros_like(label)
    trials = np.arange(len(label))
    timeline = Timeline(label, trials, zeros, zeros, zeros, True, None, np.arange(12))

    design, units = describe_classes(timeline)

    assert (units == trials // 5).all()
    assert not design.tells
    assert design.n_changed > 8


def test_the_order_of_clips_of_a_film_tells_nothing():
    timeline = show_classes("cycle")

    design, units = describe_trials(timeline, 0 * timeline.run, is_free=True)

    assert not design.telling
    assert not design.problem
    assert (units == timeline.unit).all()
    assert (design.label == timeline.stimulus).all()


def test_labels_of_units_with_strata_of_their_own_are_free():
    timeline = show_pictures("sorted by kind")
    n_units = 1 + timeline.unit.max()

    design = describe_design(timeline, np.arange(n_units))

    assert not design.telling
    assert design.draw_orders(9, 0).shape == (0, n_units)


def test_the_order_of_time_may_be_unknown():
    timeline = show_classes("random")._replace(is_ordered=False)

    design, _ = describe_classes(timeline)

    assert not design.is_known
    assert describe(show_pictures("random")).is_known


def make_odds(stratum, strength=0.3):
    """Make a design whose odds prefer some labels for some units."""
    random = np.random.default_rng(0)
    n_units = len(stratum)
    return LabelDesign(
        label=np.arange(n_units),
        stratum=stratum,
        predictions=strength * random.normal(size=(n_units, 3)),
        values=random.normal(size=(n_units, 3)),
        telling=("time in the run",),
        p=0.005,
    )


def test_few_orders_are_all_listed_without_the_true_one():
    design = LabelDesign.free(np.arange(5), np.array([0, 1, 0, 1, 1]))

    all_orders = design.draw_orders(11, 0)
    drawn_orders = design.draw_orders(10, 0)

    expected = set()
    for order in permutations(range(5)):
        if (design.stratum[list(order)] == design.stratum).all():
            expected.add(order)
    expected.remove((0, 1, 2, 3, 4))
    assert len(all_orders) == len(drawn_orders) + 1 == 11
    assert set(map(tuple, all_orders.tolist())) == expected
    assert set(map(tuple, drawn_orders.tolist())) <= set(expected) | {(0, 1, 2, 3, 4)}


def test_free_orders_are_equally_likely():
    design = LabelDesign.free(np.arange(8), np.arange(8) // 4)

    orders = design.draw_orders(500, 0)

    for unit in range(8):
        counts = np.bincount(orders[:, unit], minlength=8)
        assert ((counts > 0) == (design.stratum == design.stratum[unit])).all()
        # 125 draws each, within 5 standard errors
        assert np.abs(counts[counts > 0] - 125).max() < 5 * 125**0.5
    assert (orders != design.draw_orders(500, 1)).any()


@pytest.mark.parametrize("has_odds", [True, False])
def test_labels_are_exchanged_within_strata_and_groups(has_odds):
    stratum = np.arange(24) % 2
    groups = np.arange(24) // 12
    design = LabelDesign.free(np.arange(24), stratum)
    if has_odds:
        design = make_odds(stratum)

    design_within_groups = design.within(groups)
    orders = design_within_groups.draw_orders(40, 0)

    assert (np.sort(orders, 1) == np.arange(24)).all()
    assert (stratum[orders] == stratum).all()
    assert (groups[orders] == groups).all()
    assert (groups[design.draw_orders(40, 0)] != groups).any()
    # each unit gets the labels of several others
    assert (np.ptp(orders, axis=0) > 0).all()


def test_selected_units_keep_their_odds():
    design = make_odds(np.zeros(12, np.int64))
    rows = np.array([7, 2, 9])

    selected_design = design.take(rows)

    assert selected_design.label.tolist() == [7, 2, 9]
    np.testing.assert_array_equal(selected_design.log_odds, design.log_odds[rows])
    assert selected_design.tells
    assert selected_design.telling == design.telling


def test_orders_with_odds_have_the_score_of_the_true_order():
    """Random orders have other scores, so that they look less designed."""
    design, _ = describe_classes(show_classes("never repeats"))

    def score(orders):
        labels = design.label[orders]
        return design.log_odds[np.arange(len(design.label)), labels].sum(-1)

    true_score = score(np.arange(len(design.label)))
    drawn_scores = score(design.draw_orders(200, 5))
    free = score(LabelDesign.free(design.label, design.stratum).draw_orders(200, 5))
    assert abs(true_score - drawn_scores.mean()) < 2 * drawn_scores.std()
    assert true_score - free.mean() > 5 * free.std()


@pytest.mark.parametrize("confound", [0.0, 1.0])
def test_odds_are_released_if_signals_do_not_show_them(confound):
    """Signals that hold a confound rank wrong labels by it, too."""
    design = describe(show_pictures("kinds in blocks"))
    log_odds = design.log_odds / design.log_odds.std()
    random = np.random.default_rng(0)
    response = 4 * np.eye(len(log_odds))
    scores = random.normal(size=log_odds.shape) + response + confound * log_odds

    released = design.release(scores, design.label)

    assert bool(released.telling) == bool(confound)
    assert (released.stratum == design.stratum).all()
    assert (released.label == design.label).all()


def test_few_labels_that_can_change_are_not_released():
    design, _ = describe_classes(show_classes("cycle"))
    scores = np.random.default_rng(0).normal(size=design.log_odds.shape)

    released = design.release(scores, design.label)

    assert released.problem == design.problem != ""


def test_tests_by_orders_with_odds_keep_their_level():
    """A bound of .1 and 3 standard errors. Free orders find the odds in .9."""
    stratum = np.zeros(6, np.int64)
    design = make_odds(stratum, strength=1.5)
    units = np.arange(6)
    orders = np.array(list(permutations(units)))
    scores = design.log_odds[units, orders].sum(1)
    odds = np.exp(scores - scores.max())
    random = np.random.default_rng(0)
    counts = np.zeros(2)
    for seed in range(100):
        label = orders[random.choice(len(orders), p=odds / odds.sum())]
        truth = LabelDesign(
            label, stratum, design.predictions, design.values, design.telling, 0.005
        )
        tests = [truth, LabelDesign.free(label, stratum)]
        for row, tested_design in enumerate(tests):
            drawn_scores = design.log_odds[
                units, label[tested_design.draw_orders(39, seed)]
            ].sum(1)
            true_score = design.log_odds[units, label].sum()
            counts[row] += (1 + (drawn_scores >= true_score - 1e-9).sum()) / 40 <= 0.1

    assert counts[0] / 100 <= 0.1 + 3 * (0.09 / 100) ** 0.5
    assert counts[1] / 100 > 0.5
