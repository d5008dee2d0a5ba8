"""Designs of small studies, by the trials of all their people."""

from types import SimpleNamespace

import numpy as np
import pytest

from brainhive_cli.core.results.measurements import NOT_INTERLEAVED, ORDER_UNKNOWN
from brainhive_cli.data.signals import (
    SEPARATE_TEST,
    Holdout,
    Sensors,
    Trials,
    describe_study,
)
from brainhive_cli.data.signals.study import MAX_CATEGORIES

BY_RUNS = Holdout(by="runs", folds=2)


def record(
    image_names,
    runs=1,
    times=None,
    is_ordered=True,
):
    """Record trials by the stimulus that each showed.

    Args:
        shown: Name [n] of the stimulus of each trial, in the order of time.
        runs: Number of runs of equal length.
        times: Time [n] of each trial. The default is its number.
        is_ordered: True if the times are known.
    """
    count = len(image_names)
    run_numbers = np.arange(count) * runs // count
    time = np.arange(count) if times is None else np.array(times)
    names = list(dict.fromkeys(image_names))
    trials_of = [np.flatnonzero(np.array(image_names) == name) for name in names]
    counts = np.array([len(trials) for trials in trials_of])
    run_of_trial = np.full((len(names), counts.max()), -1, np.int16)
    onset_s = np.full(run_of_trial.shape, np.nan)
    for row, trials in enumerate(trials_of):
        run_of_trial[row, : len(trials)] = run_numbers[trials]
        onset_s[row, : len(trials)] = time[trials]
    return Trials.from_repetitions(
        np.zeros(tuple(onset_s.shape) + (1, 1), np.float32),
        names,
        Sensors(["Oz"]),
        np.zeros(1),
        None,
        "µV",
        repetitions=counts,
        runs=run_of_trial,
        onset_s=onset_s if is_ordered else None,
    )


def store(concept_of):
    """Make a target store of pictures, by the concept of each."""
    names = list(concept_of)
    return SimpleNamespace(
        image_ids=names,
        concepts=list(concept_of.values()),
        find_rows=lambda ids: np.array(
            [names.index(name) if name in names else -1 for name in ids]
        ),
    )


def describe(
    recordings,
    concepts,
    holdout=SEPARATE_TEST,
    features=None,
    is_film=False,
):
    """Describe the design of a study, for the split `test`.

    Args:
        recordings: Trials of each person and stored split.
        concepts: Concept of each stimulus, by stored split.
        holdout: Choice of the tested trials.
        features: Features [M, E] by stored split. By default no two pictures are alike.
        is_film: True if stimuli are clips of a film.
    """
    if features is None:
        random = np.random.default_rng(7)
        features = {
            split: random.normal(size=(len(names), 6)).astype(np.float32)
            for split, names in concepts.items()
        }
    return describe_study(
        holdout,
        recordings,
        {split: store(names) for split, names in concepts.items()},
        "test",
        lambda: features,
        is_film=is_film,
    )


def name_concepts(names):
    """Name a concept of its own for each stimulus."""
    return {name: name for name in sorted(set(names))}


def show_kinds(seed, is_beside):
    """Show 24 test pictures of eight kinds, each between two training pictures.

    Args:
        seed: Seed of the order of blocks, each of a kind.
        is_beside: True if a test picture has the kind of its block.
    """
    random = np.random.default_rng(seed)
    block_kinds = random.permutation(np.repeat(np.arange(8), 3)).tolist()
    permutation = []
    trained = []
    for block, kind in enumerate(block_kinds):
        number = block_kinds[:block].count(kind)
        permutation.append(f"test {kind} {number}")
        trained += [f"train {kind} {2 * number}", f"train {kind} {2 * number + 1}"]
    if not is_beside:
        permutation = random.permutation(permutation).tolist()
    trained_times = [time for time in range(72) if time % 3 != 1]
    return {
        "test": record(permutation, times=range(1, 72, 3)),
        "train": record(trained, times=trained_times),
    }


@pytest.mark.parametrize("is_beside", [True, False])
def test_training_and_test_trials_are_in_one_line_of_time(is_beside):
    """The order of the test trials alone tells nothing in both studies."""
    recordings = {1: show_kinds(0, is_beside), 2: show_kinds(1, is_beside)}
    kinds = np.random.default_rng(0).normal(size=(8, 6))
    concepts = {}
    features = {}
    for split in ("test", "train"):
        names = name_concepts(recordings[1][split].image_ids)
        concepts[split] = names
        kind = [int(name.split()[1]) for name in names]
        noise = np.random.default_rng(len(names)).normal(size=(len(names), 6))
        features[split] = (kinds[kind] + 0.5 * noise).astype(np.float32)
    test_splits = {
        person: {"test": splits["test"]} for person, splits in recordings.items()
    }

    study = describe(recordings, concepts, features=features)
    only_test = describe(test_splits, concepts, features=features)

    assert study.design.tells == is_beside
    assert study.caveats == (NOT_INTERLEAVED,) * is_beside
    assert not only_test.design.tells
    assert only_test.caveats == ()


def test_people_share_the_units_of_their_pictures():
    first_recording = record(list("abcab"))
    second = record(list("cxdac"))
    concepts = {"test": name_concepts("abcd")}  # x has no targets

    study = describe({1: {"test": first_recording}, 2: {"test": second}}, concepts)

    assert study.units[1].tolist() == [0, 1, 2]
    assert study.units[2].tolist() == [2, -1, 3, 0]
    assert len(study.design.label) == 4


def test_pictures_exchange_labels_only_within_their_fold():
    names = [f"p{number:02}" for number in range(14)]
    concepts = name_concepts(names)
    holdout = Holdout(by="pictures", folds=4)
    recording = record(np.random.default_rng(0).permutation(names).tolist())

    study = describe({1: {"train": recording}}, {"train": concepts}, holdout)

    # two pictures are left over, and no fold tests them
    units = study.units[1]
    assert np.sort(units).tolist() == [-1, -1] + list(range(12))
    for fold in holdout.fold_numbers:
        is_tested = holdout.choose_stimuli(store(concepts), "test", fold)
        rows = store(concepts).find_rows(recording.image_ids)
        strata = study.design.stratum[units[is_tested[rows]]]
        assert strata.tolist() == [fold] * 3


def shuffle(names, count, seed):
    """Show each stimulus `count` times in random order."""
    return np.random.default_rng(seed).permutation(list(names) * count).tolist()


def test_held_out_trials_are_units_of_each_person():
    recordings = {
        person: {"train": record(shuffle("abcd", 12, person), runs=4)}
        for person in (1, 2)
    }

    study = describe(recordings, {"train": name_concepts("abcd")}, BY_RUNS)

    units = np.concatenate([study.units[person] for person in (1, 2)])
    assert np.sort(units).tolist() == list(range(96))
    assert study.caveats == ()
    assert study.concepts is None
    for person, splits in recordings.items():
        recording = splits["train"]
        rows = recording.picture_of_trial
        labels = study.design.label[study.units[person]]
        assert len(set(zip(rows.tolist(), labels.tolist(), strict=True))) == 4
        # labels are exchanged within the run
        assert recording.runs is not None
        runs = recording.runs
        strata = study.design.stratum[study.units[person]]
        assert len(set(zip(runs.tolist(), strata.tolist(), strict=True))) == 4


def test_trials_that_are_not_tested_have_no_unit():
    recording = record(shuffle("abcd", 8, 0))
    holdout = Holdout(by="trials", share=0.25)
    is_tested = holdout.hold_out_trials(recording, 1, "here")

    study = describe(
        {1: {"train": recording}}, {"train": name_concepts("abcd")}, holdout
    )

    assert ((study.units[1] >= 0) == is_tested).all()
    assert len(study.design.label) == is_tested.sum() == 8


def test_labels_in_blocks_are_exchanged_as_series():
    recordings = {}
    for person in (0, 1):
        random = np.random.default_rng(person)
        joined_array = np.concatenate(
            [random.permutation(list("abcd")) for _ in range(4)]
        )
        recordings[person] = {
            "train": record(np.repeat(joined_array, 6).tolist(), runs=4)
        }

    study = describe(recordings, {"train": name_concepts("abcd")}, BY_RUNS)

    assert len(study.design.label) == 2 * 16
    assert np.bincount(np.concatenate(list(study.units.values()))).tolist() == [6] * 32
    assert not study.design.problem
    assert study.caveats == ()


@pytest.mark.parametrize("is_film", [True, False])
def test_an_order_that_cycles_tells_labels_unless_of_a_film(is_film):
    recording = record(list("abcd") * 12, runs=3)
    concepts = {"train": name_concepts("abcd")}

    study = describe({1: {"train": recording}}, concepts, BY_RUNS, is_film=is_film)

    assert bool(study.design.problem) == (not is_film)
    assert study.caveats == (NOT_INTERLEAVED,) * (not is_film)
    # labels are exchanged within the run
    assert recording.runs is not None
    runs = recording.runs
    strata = study.design.stratum[study.units[1]]
    assert len(set(zip(runs.tolist(), strata.tolist(), strict=True))) == 3


@pytest.mark.parametrize("is_ordered", [True, False])
def test_an_unknown_order_of_held_out_trials_is_a_caveat(is_ordered):
    """Held-out pictures were never shown before, so they need no order."""
    trials = record(shuffle("abcd", 6, 0), runs=2, is_ordered=is_ordered)
    known_order = record(shuffle("abcd", 6, 1), runs=2)
    people = {1: {"train": trials}, 2: {"train": known_order}}
    concepts = {"train": name_concepts("abcd")}

    by_runs = describe(people, concepts, BY_RUNS)
    by_pictures = describe(people, concepts, Holdout(by="pictures", folds=2))

    assert by_runs.caveats == (ORDER_UNKNOWN,) * (not is_ordered)
    assert by_pictures.caveats == ()
    assert by_runs.design.is_known == by_pictures.design.is_known == is_ordered


@pytest.mark.parametrize("count", [MAX_CATEGORIES, MAX_CATEGORIES + 1])
def test_few_labels_of_held_out_trials_need_no_features(count):
    names = [f"p{number}" for number in range(count)]
    random = np.random.default_rng(0)
    joined_array = np.concatenate(
        [random.permutation(names) for _ in range(2)]
    ).tolist()
    accuracies = []

    def find_features():
        accuracies.append(count)
        return {"train": np.eye(count, 3, dtype=np.float32)}

    describe_study(
        BY_RUNS,
        {1: {"train": record(joined_array, runs=2)}},
        {"train": store(name_concepts(names))},
        "test",
        find_features,
    )

    assert bool(accuracies) == (count > MAX_CATEGORIES)


def test_trials_of_stimuli_without_targets_are_tested():
    names = [f"p{number}" for number in range(MAX_CATEGORIES + 1)]
    random = np.random.default_rng(0).permutation(names * 2).tolist()

    study = describe(
        {1: {"train": record(random, runs=2)}},
        {"train": name_concepts(names[1:])},
        BY_RUNS,
    )

    assert np.sort(study.units[1]).tolist() == list(range(len(random)))
    assert not study.design.tells


def show_series(orders, repeats_each):
    """Show the concepts of each run, each in a series of new pictures.

    Returns:
        The concept of each picture, in the order of time.
    """
    concept_of = {}
    for run_number, order in enumerate(orders):
        for concept in order:
            for number in range(repeats_each):
                concept_of[f"run {run_number}/{concept} {number}"] = str(concept)
    return concept_of


def describe_series(concept_of, runs):
    """Describe a study in which each run is held out once."""
    recording = record(list(concept_of), runs=runs)
    holdout = Holdout(by="folders", folds=runs)
    return describe({1: {"train": recording}}, {"train": concept_of}, holdout)


def test_concepts_in_series_are_exchanged_within_held_out_runs():
    """Noise that drifts is alike in a series, so a series keeps a common label."""
    random = np.random.default_rng(1)
    orders = [random.permutation(10).tolist() for _ in range(7)]

    study = describe_series(show_series(orders, repeats_each=3), runs=7)

    assert study.concepts is not None
    design, units = study.concepts
    assert (units == np.arange(210) // 3).all()
    assert not design.tells
    assert not design.problem
    assert (design.stratum == np.arange(70) // 10).all()


def test_interleaved_concepts_are_exchanged_within_held_out_runs():
    """A run shows each concept once, so concepts may change places in it."""
    random = np.random.default_rng(0)
    orders = [random.permutation(8).tolist() for _ in range(6)]

    study = describe_series(show_series(orders, repeats_each=1), runs=6)

    assert study.concepts is not None
    design, units = study.concepts
    assert (units == np.arange(48)).all()
    assert not design.tells
    assert (design.stratum == np.arange(48) // 8).all()


def test_concepts_in_the_same_order_in_all_runs_are_told():
    orders = [np.random.default_rng(1).permutation(10).tolist()] * 7

    study = describe_series(show_series(orders, repeats_each=3), runs=7)

    assert study.concepts is not None
    design, _ = study.concepts
    assert design.problem
    assert "the position in the run" in design.telling


def test_concepts_in_separate_runs_are_not_told_from_drift():
    """Pictures of a concept are near in time, and their repetitions, too."""
    concept_of = show_series([[concept] for concept in range(8)], repeats_each=6)
    repeat = np.repeat(list(concept_of), 2).tolist()
    random = np.random.default_rng(1)
    repeat = np.concatenate(random.permuted(np.reshape(repeat, (8, 12)), axis=1))

    study = describe(
        {1: {"test": record(repeat.tolist(), runs=8)}}, {"test": concept_of}
    )

    assert study.concepts is not None
    design, units = study.concepts
    assert design.problem
    assert len(units) == 48
    # the features of pictures do not tell concepts
    assert not study.design.problem


def test_concepts_with_a_single_series_are_exchanged_as_series():
    concept_of = show_series([range(20)], repeats_each=4)

    study = describe({1: {"test": record(list(concept_of))}}, {"test": concept_of})

    assert study.concepts is not None
    design, units = study.concepts
    assert (units == np.arange(80) // 4).all()
    assert not design.tells
    assert design.n_changed > 8


def test_pictures_of_own_concepts_have_no_other_question():
    names = [f"p{number}" for number in range(12)]
    study = describe({1: {"test": record(names)}}, {"test": name_concepts(names)})

    assert study.concepts is None
