"""Orders of pictures: their spread, and the checks of an evaluation."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.data.signals import SEPARATE_TEST, Sensors, Trials, describe_study
from brainhive_cli.evaluation.planning import order
from brainhive_cli.evaluation.planning.designs import MARGIN_S
from brainhive_cli.evaluation.planning.order import (
    CATCH,
    StudyPlan,
    choose_split,
    draw_order,
    find_order_problem,
    measure_minutes,
)
from brainhive_cli.measurement.trial_order import (
    TrialOrder,
    find_shared_order,
    separate_repetitions,
)


def name_pictures(concepts, n_each):
    return {
        f"c{c:02d}/{i}.png": f"c{c:02d}" for c in range(concepts) for i in range(n_each)
    }


def plan_study(concepts=8, n_each=2, test_concepts=3, seed=0, **fields):
    concept_of = name_pictures(concepts, n_each)
    train, test = choose_split(
        concept_of,
        (concepts - test_concepts) * n_each,
        test_concepts * n_each,
        seed,
    )
    defaults = StudyPlan(
        people=2,
        sessions=2,
        runs=3,
        onset_interval_s=0.5,
        stimulus_s=0.1,
        train_pictures=train,
        test_pictures=test,
        concept_of=concept_of,
        train_repetitions=2,
        test_repetitions=6,
        catch_share=0.1,
        break_s=30.0,
        bits=8,
        seed=seed,
    )
    return replace(defaults, **fields)


def group_runs(trials):
    runs = {}
    for trial in trials:
        run_key = (trial.person, trial.session, trial.run)
        runs.setdefault(run_key, []).append(trial.picture)
    return runs


def test_no_picture_follows_itself_in_any_run():
    plan = plan_study(4, 1, 1, train_repetitions=6, test_repetitions=18)
    for pictures in group_runs(draw_order(plan)).values():
        shown_pictures = [picture for picture in pictures if picture != CATCH]
        assert all(first != second for first, second in pairwise(shown_pictures))


def test_repetitions_are_spread_over_runs_and_sessions():
    plan = plan_study(train_repetitions=4, test_repetitions=7)
    trials = draw_order(plan)
    runs = group_runs(trials)
    assert len(runs) == 12
    lengths = [len(pictures) for pictures in runs.values()]
    assert max(lengths) - min(lengths) <= 4
    for pictures, repetitions in (
        (plan.train_pictures, 4),
        (plan.test_pictures, 7),
    ):
        for person in (1, 2):
            for picture in pictures:
                shown_trials = [
                    t for t in trials if (t.person, t.picture) == (person, picture)
                ]
                assert len(shown_trials) == repetitions
                by_session = Counter(t.session for t in shown_trials)
                assert max(by_session.values()) - min(by_session.values()) <= 1
                by_run = Counter((t.session, t.run) for t in shown_trials)
                assert max(by_run.values()) <= -(-repetitions // 6)


def test_repetitions_in_a_run_are_spread_over_it():
    plan = plan_study(20, 1, 10, people=1, sessions=1, runs=1, catch_share=0.0)
    plan = replace(plan, train_repetitions=4, test_repetitions=4)
    trials = draw_order(plan)
    for picture in plan.concept_of:
        relative_times = [
            t.number / len(trials) for t in trials if t.picture == picture
        ]
        for repetition, time in enumerate(relative_times):
            assert repetition / 4 - 0.08 < time < (repetition + 1) / 4 + 0.08


def test_orders_differ_between_runs_and_people():
    runs = group_runs(draw_order(plan_study(test_repetitions=6)))
    assert len(set(map(tuple, runs.values()))) == len(runs)


def test_catch_trials_have_their_share_between_pictures():
    runs = group_runs(draw_order(plan_study(catch_share=0.2, test_repetitions=30)))
    for pictures in runs.values():
        assert pictures.count(CATCH) / len(pictures) == pytest.approx(0.2, abs=0.02)
        assert pictures[0] != CATCH != pictures[-1]
        assert all(
            CATCH in (picture, "") or picture for picture, _ in pairwise(pictures)
        )
        assert (CATCH, CATCH) not in set(pairwise(pictures))


def test_onsets_follow_the_interval_after_a_margin():
    plan = plan_study()
    trials = draw_order(plan)
    for trial in trials:
        assert trial.onset_s == MARGIN_S + (trial.number - 1) * 0.5
    minutes = measure_minutes(plan, trials)
    assert minutes.shape == (2, 3)
    longest = max(trial.number for trial in trials if trial.session == trial.run == 1)
    assert minutes[0, 0] == pytest.approx((2 * MARGIN_S + longest * 0.5) / 60)


DESIGNS = []
for _seed in range(36):
    _rng = np.random.default_rng(_seed)
    _concepts = int(_rng.integers(2, 31))
    DESIGNS.append(
        {
            "seed": _seed,
            "concepts": _concepts,
            "n_each": int(_rng.integers(1, 3)),
            "test_concepts": int(_rng.integers(1, _concepts)),
            "people": int(_rng.integers(1, 3)),
            "train_repetitions": 2 + _seed % 3,
            "test_repetitions": int(_rng.integers(2, 9)),
            "sessions": 1 + _seed % 2,
            "runs": int(_rng.integers(1, 7)) if _concepts > 5 else 1,
        }
    )


@pytest.mark.parametrize("design", DESIGNS, ids=lambda design: str(design["seed"]))
def test_checks_of_an_evaluation_accept_each_order(design):
    plan = plan_study(**design)
    embeddings = {}
    for picture in plan.concept_of:
        rng = np.random.default_rng(list(picture.encode()))
        embeddings[picture] = rng.normal(size=8).astype("f4")
    trials = draw_order(plan, embeddings)
    recordings = {}
    for person in range(1, plan.people + 1):
        shown_trials = [trial for trial in trials if trial.person == person]
        recordings[person] = {
            "test": record(shown_trials, plan.test_pictures),
            "train": record(shown_trials, plan.train_pictures),
        }
        for recording in recordings[person].values():
            check_repetitions(plan, recording)
    stores = {
        "test": store_pictures(plan, plan.test_pictures),
        "train": store_pictures(plan, plan.train_pictures),
    }
    features = {
        split: np.stack([embeddings[name] for name in store.image_ids])
        for split, store in stores.items()
    }
    study = describe_study(SEPARATE_TEST, recordings, stores, "test", lambda: features)
    assert not study.design.tells
    assert study.caveats == ()
    if study.concepts is not None:
        assert not study.concepts[0].tells


def record(trials, pictures):
    """Record the trials of the given pictures, each as often as the others."""
    shown_trials = [trial for trial in trials if trial.picture in pictures]
    rows = np.array([pictures.index(trial.picture) for trial in shown_trials])
    by_picture = np.argsort(rows, kind="stable").reshape(len(pictures), -1)
    values = [(trial.session - 1, trial.run, trial.onset_s) for trial in shown_trials]
    sessions, runs, onset_s = np.array(values).T
    return Trials.from_repetitions(
        np.zeros(tuple(by_picture.shape) + (1, 1), np.float32),
        pictures,
        Sensors(["Oz"]),
        np.zeros(1),
        None,
        "µV",
        sessions=sessions[by_picture].astype(np.int8),
        runs=runs[by_picture].astype(np.int16),
        onset_s=onset_s[by_picture],
    )


def store_pictures(plan, pictures):
    """Make a target store of pictures."""
    return SimpleNamespace(
        image_ids=pictures,
        concepts=[plan.concept_of[picture] for picture in pictures],
        find_rows=lambda names: np.array(list(map(pictures.index, names))),
    )


def check_repetitions(plan, recording):
    """Check the order and the distance of repetitions as the ceiling does."""
    concepts = [plan.concept_of[picture] for picture in recording.pictures]
    order = TrialOrder.from_trials(
        recording.picture_of_trial,
        concepts,
        recording.sessions,
        recording.runs,
        recording.onset_s,
    )
    assert find_shared_order(order) == ""
    parts = separate_repetitions(
        recording.picture_of_trial,
        recording.sessions,
        recording.runs,
        recording.onset_s,
    )
    assert (np.maximum.reduceat(parts, recording.first_trials) >= 1).all()


def sort_run(trials, key):
    """Sort the pictures of each run, and keep the onsets."""
    pictures = {}
    for trial in trials:
        pictures.setdefault((trial.session, trial.run), []).append(trial.picture)
    for run_pictures in pictures.values():
        run_pictures.sort(key=key)
    return [replace(t, picture=pictures[t.session, t.run].pop()) for t in trials]


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(lambda picture: picture[:3], id="concepts in blocks"),
        pytest.param(lambda picture: picture, id="same order in all runs"),
        pytest.param(lambda picture: picture[::-1], id="repetitions together"),
    ],
)
def test_orders_that_follow_time_are_found(key):
    plan = plan_study(10, 3, 5, people=1, catch_share=0.0, test_repetitions=12)
    trials = draw_order(plan)
    assert find_order_problem(plan, trials) == ""
    assert find_order_problem(plan, sort_run(trials, key))


def test_embeddings_reveal_blocks_of_similar_pictures():
    plan = plan_study(48, 1, 24, people=1, sessions=1, runs=1, catch_share=0.0)
    plan = replace(plan, train_repetitions=1, test_repetitions=1)
    is_early = {picture: int(picture[1:3]) < 24 for picture in plan.concept_of}
    clusters = sort_run(draw_order(plan), key=is_early.__getitem__)
    embeddings = {}
    for number, picture in enumerate(plan.concept_of):
        noise = np.random.default_rng(number).normal(size=8) / 4
        embeddings[picture] = (noise + 2 * is_early[picture] - 1).astype("f4")
    assert find_order_problem(plan, clusters) == ""
    assert find_order_problem(plan, clusters, embeddings)
    assert find_order_problem(plan, draw_order(plan, embeddings), embeddings) == ""


def test_an_order_that_fails_the_check_is_drawn_again(monkeypatch):
    problems = iter(["time in the run tells the picture", ""])
    monkeypatch.setattr(order, "find_order_problem", lambda *_: next(problems))
    plan = plan_study(people=2)
    redrawn = draw_order(plan)
    monkeypatch.setattr(order, "find_order_problem", lambda *_: "")
    first_orders = draw_order(plan)
    for person in (1, 2):
        orders = []
        for trials in (redrawn, first_orders):
            orders.append([t for t in trials if t.person == person])
        assert orders[0] != orders[1]


def test_orders_that_always_fail_are_refused(monkeypatch):
    monkeypatch.setattr(
        order, "find_order_problem", lambda *_: "time in the run tells the picture"
    )
    with pytest.raises(BrainhiveError, match="20 random orders") as caught:
        draw_order(plan_study())
    assert caught.value.hint


@pytest.mark.parametrize(
    ("fields", "fact"),
    [
        ({"runs": 6, "test_repetitions": 1, "train_repetitions": 1}, "than runs"),
        ({"runs": 1, "sessions": 1, "test_repetitions": 9}, "2 pictures"),
    ],
)
def test_designs_without_a_possible_order_are_refused(fields, fact):
    with pytest.raises(BrainhiveError, match=fact):
        draw_order(plan_study(2, 1, 1, **fields))


def test_repetitions_of_large_sets_are_not_checked(monkeypatch):
    plan = plan_study(10, 3, 5, people=1, sessions=1, runs=1)
    trials = draw_order(plan)
    in_blocks = []
    for trial in sort_run(trials, key=lambda picture: picture[:3]):
        if trial.picture in plan.train_pictures:
            in_blocks.append(trial)
    in_blocks += [t for t in trials if t.picture in plan.test_pictures]
    assert find_order_problem(plan, in_blocks)
    monkeypatch.setattr(order, "MAX_CHECKED_TRIALS", 10)
    assert find_order_problem(plan, in_blocks) == ""


def test_test_pictures_are_of_other_concepts():
    concept_of = name_pictures(20, 4)
    train, test = choose_split(concept_of, 40, 10, seed=3)
    train_concepts = Counter(concept_of[picture] for picture in train)
    test_concepts = Counter(concept_of[picture] for picture in test)
    assert not train_concepts.keys() & test_concepts.keys()
    assert set(test_concepts.values()) == {1}
    assert sorted(set(train_concepts.values())) == [4]
    assert (train, test) == choose_split(concept_of, 40, 10, seed=3)
    assert test != choose_split(concept_of, 40, 10, seed=4)[1]


def test_test_pictures_share_concepts_if_there_are_few():
    concept_of = name_pictures(5, 10)
    train, test = choose_split(concept_of, 30, 20, seed=0)
    counts = Counter(concept_of[picture] for picture in train + test)
    assert set(counts.values()) == {10}
    assert len({concept_of[picture] for picture in test}) == 2


@pytest.mark.parametrize(("n_train", "n_test"), [(40, 11), (46, 5), (51, 1)])
def test_too_few_pictures_or_concepts_are_refused(n_train, n_test):
    concept_of = name_pictures(5, 10)
    with pytest.raises(BrainhiveError, match="50 pictures of 5 concepts") as caught:
        choose_split(concept_of, n_train, n_test, seed=0)
    assert "add pictures" in caught.value.hint


def test_the_seed_alone_decides_the_order():
    plan = plan_study()
    assert draw_order(plan) == draw_order(plan)
    assert draw_order(plan) != draw_order(replace(plan, seed=1))
