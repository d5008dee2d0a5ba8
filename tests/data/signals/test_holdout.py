"""Test pictures, trials, runs and sessions of folds, and signals fitted to them."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from brainhive_cli.core.base.errors import BrainhiveError, RecipeError
from brainhive_cli.core.results.measurements import NORMALISED_BY_TESTED, SEEN_PICTURES
from brainhive_cli.data.signals import (
    SEPARATE_TEST,
    Holdout,
    Sensors,
    Trials,
    read_split,
)
from brainhive_cli.measurement.units import StimulusGrouping

PROPERTY = settings(max_examples=25, deadline=None, derandomize=True)


def record(runs=None, sessions=None, repetitions=None, **steps):
    """Three stimuli with four trials each. The value of a trial is its number."""
    signal = np.arange(12, dtype=np.float32).reshape(3, 4, 1, 1)
    arrays = {
        "runs": None if runs is None else np.array(runs, np.int16),
        "sessions": None if sessions is None else np.array(sessions, np.int8),
        "repetitions": None if repetitions is None else np.array(repetitions),
    }
    provenance = {"preparation": steps} if steps else {}
    return Trials.from_repetitions(
        signal,
        ["a", "b", "c"],
        Sensors(["Oz"]),
        np.zeros(1),
        None,
        "µV",
        provenance,
        **arrays,
    )


IN_FOUR_RUNS = [[0, 1, 2, 3]] * 3


def test_folds_are_balanced_by_concept_and_equally_large():
    ids, concepts = [f"p{row}" for row in range(23)], ["six"] * 11 + ["nine"] * 12
    holdout = Holdout(by="pictures", folds=5)

    masks = [
        holdout.hold_out_pictures(ids, concepts, fold) for fold in holdout.fold_numbers
    ]

    assert [mask.sum() for mask in masks] == [4] * 5
    assert (np.sum(masks, 0) <= 1).all()
    # three are never tested, so that chance is the same in all folds
    assert np.sum(masks, 0).sum() == 20
    assert all(1 <= mask[:11].sum() <= 3 for mask in masks)


def test_listed_pictures_are_tested_and_unknown_ones_refused():
    ids, concepts = ["a/1", "a/2", "b/1"], ["a", "a", "b"]

    assert Holdout(by="pictures", test=["a/2"]).hold_out_pictures(
        ids, concepts, 1
    ).tolist() == [
        False,
        True,
        False,
    ]
    for names in (["a/9"], ["*"]):
        with pytest.raises(RecipeError, match=r"names (a/9, 0|[*], 3) of 3"):
            Holdout(by="pictures", test=names).hold_out_pictures(ids, concepts, 1)
    # a name with signs of patterns is itself
    holdout = Holdout(by="pictures", test=["a[12]"])
    names = ["a1", "a[12]", "a2"]
    assert holdout.hold_out_pictures(names, names, 1).tolist() == [False, True, False]
    folder = Holdout(by="pictures", test=["a/*"])
    assert folder.hold_out_pictures(ids, concepts, 1).tolist() == [True, True, False]


def test_pictures_of_a_folder_are_held_out_together():
    image_ids = [f"film-{film}/{clip}" for film in range(3) for clip in range(4)]
    concepts = ["a", "b"] * 6
    folds = Holdout(by="folders", folds=3)
    masks = [folds.hold_out_pictures(image_ids, concepts, fold) for fold in (1, 2, 3)]
    assert [np.flatnonzero(mask).tolist() for mask in masks] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9, 10, 11],
    ]
    assert not folds.has_seen_pictures

    last_holdout = Holdout(by="folders", test=["film-2"])
    is_tested = last_holdout.hold_out_pictures(image_ids, concepts, 1)
    np.testing.assert_array_equal(is_tested, masks[2])
    assert last_holdout.description == "folders held out, folders film-2"


def test_folders_of_different_sizes_are_refused():
    # chance would differ between folds
    with pytest.raises(RecipeError) as caught:
        Holdout(by="folders", folds=2).hold_out_pictures(
            ["a/1", "a/2", "b/1"], ["x"] * 3, 1
        )
    assert "a has 2" in caught.value.message


def test_a_run_that_was_z_scored_by_itself_gets_a_caveat():
    recording, holdout = record(IN_FOUR_RUNS, zscore="run"), Holdout(by="runs", folds=2)

    assert holdout.hold_out_trials(recording, 1, "here").any()
    assert holdout.caveats(recording) == [SEEN_PICTURES, NORMALISED_BY_TESTED]
    assert Holdout(by="pictures", folds=2).caveats(record(IN_FOUR_RUNS)) == []


def test_unknown_runs_and_more_folds_than_runs_are_refused():
    with pytest.raises(BrainhiveError, match=r"here: .*\brun\b"):
        Holdout(by="runs", folds=2).hold_out_trials(record(), 1, "here")
    with pytest.raises(RecipeError, match=r"here .*\b4 runs"):
        Holdout(by="runs", folds=5).hold_out_trials(record(IN_FOUR_RUNS), 5, "here")
    with pytest.raises(RecipeError, match=r"run 7\b.*here .*\b4"):
        Holdout(by="runs", test=[7]).hold_out_trials(record(IN_FOUR_RUNS), 1, "here")


def test_run_1_of_two_sessions_counts_as_two_runs():
    recording = record([[0, 1, 0, 1]] * 3, [[0, 0, 1, 1]] * 3)
    third = Holdout(by="runs", test=[3]).hold_out_trials(recording, 1, "here")
    second = Holdout(by="sessions", test=[2]).hold_out_trials(recording, 1, "here")
    assert third[:4].tolist() == [False, False, True, False]
    assert second[:4].tolist() == [False, False, True, True]
    last_out_trials = Holdout(by="sessions", test=[-1]).hold_out_trials(
        recording, 1, "here"
    )
    assert (last_out_trials == second).all()
    for fields in ({}, {"folds": 2, "share": 0.5}, {"split": "a.json"}):
        with pytest.raises(RecipeError):
            Holdout.model_validate({"by": "runs", **fields})


def test_a_split_with_too_many_folds_is_refused(
    tmp_path,
):
    variant = {"train_ids": ["a"], "test_ids": ["b"]}
    path = tmp_path / "split.json"
    path.write_text(json.dumps({"variants": [variant] * 1000}))
    assert len(read_split(path)) == 1000
    path.write_text(json.dumps({"variants": [variant] * 1001}))
    with pytest.raises(BrainhiveError, match=r"split\.json.*1,001"):
        read_split(path)


def hold_out_folds(holdout, recording=None, concepts=()):
    """Make the masks of the trials or pictures that each fold tests."""
    if recording is not None:
        return [
            holdout.hold_out_trials(recording, fold, "here")
            for fold in holdout.fold_numbers
        ]
    ids = [f"p{row}" for row in range(len(concepts))]
    return [
        holdout.hold_out_pictures(ids, concepts, fold) for fold in holdout.fold_numbers
    ]


@PROPERTY
@given(st.lists(st.integers(1, 9), min_size=2, max_size=6), st.integers(2, 4))
def test_each_fold_tests_about_as_many_pictures_of_each_concept(sizes, folds):
    # no picture is left over
    sizes[-1] += -sum(sizes) % folds
    numbers = np.repeat(np.arange(len(sizes)), sizes)
    concepts = np.random.default_rng(0).permutation(numbers).astype(str)

    masks = hold_out_folds(Holdout(by="pictures", folds=folds), concepts=concepts)

    assert (np.sum(masks, 0) == 1).all()
    for name in np.unique(concepts):
        assert np.ptp([(concepts[mask] == name).sum() for mask in masks]) <= 1


def test_a_share_of_pictures_is_about_that_share_of_each_concept():
    concepts = np.random.default_rng(0).permutation(np.repeat(list("abcd"), 10))

    (mask,) = hold_out_folds(Holdout(by="pictures", share=0.25), concepts=concepts)

    counts = [(concepts[mask] == name).sum() for name in "abcd"]
    assert sum(counts) == 10
    assert set(counts) <= {2, 3}


@pytest.mark.parametrize(
    "amount", [{"share": 0.01}, {"share": 0.99}, {"folds": 5}], ids=str
)
@pytest.mark.parametrize("unit", ["pictures", "runs", "sessions"])
def test_a_holdout_that_tests_nothing_or_everything_is_refused(unit, amount):
    holdout = Holdout(by=unit, **amount)
    with pytest.raises(RecipeError):
        if unit == "pictures":
            hold_out_folds(holdout, concepts=list("abcd"))
        else:
            hold_out_folds(holdout, record(IN_FOUR_RUNS, IN_FOUR_RUNS))


@pytest.mark.parametrize("unit", ["pictures", "trials", "runs", "sessions"])
@pytest.mark.parametrize("amount", [{"share": 0.5}, {"folds": 2}], ids=str)
def test_the_seed_determines_the_tested_pictures_and_trials(unit, amount):
    def choose(seed):
        holdout = Holdout(by=unit, seed=seed, **amount)
        concepts = list("aabbccdd")
        masks = (
            hold_out_folds(holdout, concepts=concepts)
            if unit == "pictures"
            else hold_out_folds(holdout, record(IN_FOUR_RUNS, IN_FOUR_RUNS))
        )
        return np.array(masks).tobytes()

    choices = [choose(seed) for seed in range(6)]

    assert choices == [choose(seed) for seed in range(6)]
    # folds of runs follow one another in time, whatever the seed
    is_fixed = unit in ("runs", "sessions") and "folds" in amount
    assert (len(set(choices)) == 1) == is_fixed


def test_a_share_of_the_trials_of_each_stimulus_is_tested():
    recording = record(repetitions=[4, 3, 1])
    for share, counts in ((0.25, [1, 1, 0]), (0.5, [2, 2, 0]), (0.9, [0, 0, 0])):
        (mask,) = hold_out_folds(Holdout(by="trials", share=share), recording)
        assert np.bincount(recording.picture_of_trial, mask).tolist() == counts


def test_leftover_trials_of_stimuli_are_spread_over_the_folds():
    masks = hold_out_folds(Holdout(by="trials", folds=3), record())

    # four trials of each of three stimuli: one fold tests two of a stimulus
    assert [mask.sum() for mask in masks] == [4, 4, 4]


@PROPERTY
@given(st.integers(0, 10**6), st.booleans(), st.sampled_from(["runs", "sessions"]))
def test_runs_are_numbered_within_sessions_in_order_of_time(seed, has_sessions, unit):
    random = np.random.default_rng(seed)
    counts = random.integers(1, 5, 3)
    is_there = np.arange(4) < counts[:, None]
    runs = np.where(is_there, random.integers(0, 5, (3, 4)), -1)
    sessions = np.where(is_there, random.integers(0, 3, (3, 4)), -1)
    known_sessions = sessions if has_sessions or unit == "sessions" else None
    recording = record(runs, known_sessions, counts)

    numbers = Holdout(by=unit, folds=2).number_groups(recording, "here")

    groups = [
        (
            int(known_sessions[position]) if known_sessions is not None else 0,
            int(runs[position]) if unit == "runs" else 0,
        )
        for position in zip(*np.nonzero(is_there), strict=True)
    ]
    expected = [sorted(set(groups)).index(group) for group in groups]
    assert numbers.tolist() == expected


def test_numbers_of_runs_count_from_both_ends_and_zero_is_none():
    recording = record(IN_FOUR_RUNS)
    for run_numbers, tested_runs in (([1], [0]), ([-2], [2]), ([-4, 4], [0, 3])):
        holdout = Holdout(by="runs", test=run_numbers)
        (mask,) = hold_out_folds(holdout, recording)
        assert np.flatnonzero(mask).tolist() == [
            4 * picture + run_index for picture in range(3) for run_index in tested_runs
        ]
    for number in (0, 5, -5):
        with pytest.raises(RecipeError, match=rf"run {number}\b.*here .*\b4"):
            hold_out_folds(Holdout(by="runs", test=[number]), recording)


def test_a_share_of_runs_tests_some_trials_of_unequal_counts():
    runs = [[0, 1, -1, -1], [1, 0, 2, -1], [2, -1, -1, -1]]
    recording = record(runs, repetitions=[2, 3, 1])
    for amount in ({"test": [-1]}, {"folds": 3}, {"share": 0.4}):
        for mask in hold_out_folds(Holdout(by="runs", **amount), recording):
            assert mask.shape == (6,)
            assert mask.any()
            assert not mask.all()


def test_each_trial_has_the_number_of_the_fold_that_tests_it():
    recording = record(repetitions=[4, 4, 1])
    stimuli = stimuli_of(["a", "b", "c"])
    for holdout in (Holdout(by="trials", folds=3), Holdout(by="trials", share=0.5)):
        numbers = holdout.number_folds(recording, stimuli, "test", "here")
        masks = hold_out_folds(holdout, recording)
        for fold, mask in enumerate(masks, 1):
            assert ((numbers == fold) == mask).all()
        assert numbers[8] == -1  # a single trial of a stimulus is never tested

    by_run = Holdout(by="runs", test=[2, -1])
    numbers = by_run.number_folds(record(IN_FOUR_RUNS), stimuli, "test", "here")
    assert numbers.tolist() == [-1, 1, -1, 1] * 3


def test_each_picture_has_the_number_of_the_fold_that_tests_it():
    recording = record().change(image_ids=np.repeat(["c", "bad", "a"], 4).tolist())
    stimuli = stimuli_of(list("abcdefg"))
    holdout = Holdout(by="pictures", folds=3)
    masks = hold_out_folds(holdout, concepts=stimuli.concepts)
    fold_of = sum(fold * mask for fold, mask in enumerate(masks, 1))
    # one of seven pictures is left over
    assert (fold_of == 0).sum() == 1
    assert fold_of[2] > 0
    assert fold_of[0] > 0

    numbers = holdout.number_folds(recording, stimuli, "test", "here")

    assert numbers.tolist() == [fold_of[2], -1, fold_of[0]]
    for other_holdout, split in ((holdout, "train"), (SEPARATE_TEST, "test")):
        numbers = other_holdout.number_folds(recording, stimuli, split, "here")
        assert numbers.tolist() == [0, -1, 0]


def stimuli_of(ids, concepts=None):
    """Make a target store of pictures. The picture `bad` has no targets."""
    return SimpleNamespace(
        image_ids=ids,
        concepts=concepts or ids,
        find_rows=lambda names: np.array(
            [-1 if name == "bad" else ids.index(name) for name in names]
        ),
    )


def test_all_pictures_are_used_unless_a_split_lists_fewer(
    tmp_path,
):
    stimuli = stimuli_of(list("abcde"))
    path = tmp_path / "split.json"
    variants = [
        {"train_ids": ["a", "b"], "test_ids": ["c"]},
        {"train_ids": ["e"], "test_ids": ["a"]},
    ]
    path.write_text(json.dumps({"variants": variants}))

    def choose(holdout, split, fold):
        is_chosen = holdout.choose_stimuli(stimuli, split, fold)
        return "".join(np.array(stimuli.image_ids)[is_chosen])

    listed_holdout = Holdout(by="pictures", split=str(path))
    assert [choose(listed_holdout, split, 1) for split in ("train", "test")] == [
        "ab",
        "c",
    ]
    assert [choose(listed_holdout, split, 2) for split in ("train", "test")] == [
        "e",
        "a",
    ]
    named_holdout = Holdout(by="pictures", test=["b", "d"])
    assert [choose(named_holdout, split, 1) for split in ("train", "test")] == [
        "ace",
        "bd",
    ]
    for holdout in (SEPARATE_TEST, Holdout(by="runs", folds=2)):
        for split in ("train", "test"):
            assert choose(holdout, split, 1) == "abcde"


def test_a_split_file_is_an_input_with_folds_and_content(
    tmp_path,
):
    path, digests = tmp_path / "split.json", set()
    for name in "ab":
        variant = {"train_ids": [name], "test_ids": ["c"]}
        path.write_text(json.dumps({"variants": [variant] * 3}))
        holdout = Holdout(by="pictures", split=str(path))
        (file,) = holdout.inputs()
        digests.add(file.digest)
        assert file.reference == str(path)
        assert holdout.fold_numbers == [1, 2, 3]
    assert len(digests) == 2
    assert Holdout(by="pictures", share=0.5).fold_numbers == [1]
    assert Holdout(by="pictures", folds=2).inputs() == []

    path.write_text("{}")
    with pytest.raises(BrainhiveError, match="split"):
        holdout.inputs()


@pytest.mark.parametrize(
    "variants",
    [
        [],
        [{"train_ids": ["a"], "test_ids": []}],
        [{"train_ids": ["a"], "test_ids": ["a"]}],
        [{"train_ids": ["a", "a"], "test_ids": ["b"]}],
        [
            {"train_ids": ["a"], "test_ids": ["b"]},
            {"train_ids": ["a"], "test_ids": ["b", "c"]},
        ],
    ],
    ids=["no variant", "no test", "both sides", "twice", "other chance"],
)
def test_a_split_without_one_common_chance_is_refused(tmp_path, variants):
    path = tmp_path / "split.json"
    path.write_text(json.dumps({"variants": variants}))
    with pytest.raises(BrainhiveError, match=r"split\.json"):
        read_split(path)


@pytest.mark.parametrize(
    ("unit", "fields", "is_sound"),
    [
        ("pictures", {"test": ["a"]}, True),
        ("pictures", {"test": [1]}, False),
        ("pictures", {"split": "a.json"}, True),
        ("runs", {"test": [1]}, True),
        ("runs", {"test": ["a"]}, False),
        ("sessions", {"test": [1, "a"]}, False),
        ("sessions", {"split": "a.json"}, False),
        ("trials", {"test": [1]}, False),
        ("trials", {"test": ["a"]}, False),
        ("trials", {"folds": 1}, False),
        ("trials", {"folds": 1000}, True),
        ("trials", {"folds": 1001}, False),
        ("trials", {"share": 0}, False),
        ("trials", {"share": 1}, False),
        ("pictures", {"test": ["a"], "split": "a.json"}, False),
    ],
)
def test_runs_are_listed_by_number_pictures_by_name_trials_never(
    unit, fields, is_sound
):
    if is_sound:
        assert Holdout(by=unit, **fields).divides_train
    else:
        with pytest.raises((RecipeError, ValueError)):
            Holdout(by=unit, **fields)


@pytest.mark.parametrize(
    ("unit", "steps", "is_refused"),
    [
        ("runs", {"zscore": "no"}, False),
        ("runs", {"zscore": "run"}, False),
        ("sessions", {"zscore": "session"}, False),
        ("sessions", {"zscore": "run"}, True),
        ("trials", {"zscore": "run"}, True),
        ("pictures", {"zscore": "session"}, True),
        ("pictures", {"zscore": "all"}, True),
        ("runs", {"estimator": "hrf"}, True),
        ("runs", {"estimator": "denoised"}, True),
        ("runs", {"estimator": "lsa"}, False),
        ("runs", {"min_ncsnr": 0}, True),
        ("runs", {"max_voxels": 5}, True),
        ("runs", {"whiten": False}, False),
        ("runs", {"whiten": "no"}, False),
        ("pictures", {"whiten": "epochs"}, True),
    ],
)
def test_preparations_that_saw_held_out_trials_are_refused(unit, steps, is_refused):
    holdout, recording = Holdout(by=unit, folds=2), record(IN_FOUR_RUNS, IN_FOUR_RUNS)
    recording.provenance["preparation"] = steps
    if is_refused:
        for split in ("train", "test"):
            with pytest.raises(BrainhiveError, match=next(iter(steps))) as error:
                holdout.choose_trials(recording, split, 1, "here")
            assert f"preparation.{next(iter(steps))}=" in error.value.hint
        assert SEPARATE_TEST.choose_trials(recording, "train", 1, "here") is recording
    else:
        selected_trials = [
            holdout.choose_trials(recording, split, 1, "here")
            for split in ("train", "test")
        ]
        total = sum(len(trials.index) for trials in selected_trials)  # type: ignore[arg-type]
        assert total == len(recording.signal)


def test_held_out_pictures_do_not_divide_trials():
    holdout, recording = Holdout(by="pictures", folds=2), record(IN_FOUR_RUNS)

    assert holdout.choose_trials(recording, "test", 1, "here") is recording
    assert holdout.list_opposite_trials({"train": recording}, "test", 1, "here") == []
    assert not holdout.has_seen_pictures
    for compared_holdout, stored in ((holdout, "train"), (SEPARATE_TEST, "test")):
        assert compared_holdout.name_stored_split("test") == stored
        assert [
            compared_holdout.name_stored_split(name) for name in ("train", "shared")
        ] == [
            "train",
            "shared",
        ]


def test_each_split_is_compared_with_the_other_side_of_models():
    recordings = {"train": record(), "test": record(), "shared": record()}

    def list_other(holdout, split):
        return holdout.list_opposite_trials(recordings, split, 1, "here")

    tested_trials = [recordings["test"], recordings["shared"]]
    for split, other_split in (
        ("train", tested_trials),
        ("test", [recordings["train"]]),
        ("shared", [recordings["train"]]),
    ):
        remaining_trials = list_other(SEPARATE_TEST, split)
        assert list(map(id, remaining_trials)) == list(map(id, other_split))

    runs = Holdout(by="runs", test=[1])
    recordings["train"] = record(IN_FOUR_RUNS)
    (learned,), (held_out,) = list_other(runs, "test"), list_other(runs, "train")
    assert learned.runs.ravel().tolist() == [1, 2, 3] * 3  # type: ignore[union-attr]
    assert held_out.runs.ravel().tolist() == [0] * 3  # type: ignore[union-attr]


def test_tested_trials_are_grouped_by_run_and_block():
    tested_trials = [("t1", "run 1", 0), ("t2", "run 1", 1), ("t3", "run 2", 0)]
    runs, pictures = Holdout(by="runs", folds=2), Holdout(by="pictures", folds=2)

    alike = runs.add_fold_groups(StimulusGrouping(), tested_trials, [1, 2])

    assert alike.has_folds
    assert alike.group_kind == "runs"
    assert alike.group_of == {"t1": "run 1", "t2": "run 1", "t3": "run 2"}
    assert len(set(alike.block_of.values())) == 3
    assert not runs.add_fold_groups(StimulusGrouping(), tested_trials, [2]).has_folds
    grouping = pictures.add_fold_groups(StimulusGrouping(), tested_trials, [1, 2])
    assert grouping.has_folds
    assert not grouping.group_of
    assert not grouping.block_of


def test_trials_are_named_by_their_run_session_or_fold():
    trials = record([[0, 1, 2, 3]] * 3, [[0, 0, 1, 1]] * 3).hold_out(
        np.ones((3, 4), bool), "test"
    )
    trials = trials.change(stimulus=np.arange(12))

    for unit, groups in (("runs", 4), ("sessions", 2), ("trials", 1)):
        names = Holdout(by=unit, folds=2).name_groups(trials, "sub-01", 2)
        assert len(names) == 12
        assert names == names[:4] * 3
        assert len(set(names)) == groups
    unknown = trials.change(runs=None, sessions=None)
    assert len(set(Holdout(by="runs", folds=2).name_groups(unknown, "a", 1))) == 1
    with pytest.raises(AssertionError):
        Holdout(by="pictures", folds=2).name_groups(trials, "sub-01", 2)


def test_protocols_name_what_is_held_out_and_how_much(tmp_path):
    for amount, fact in (
        ({"folds": 12}, "12 folds"),
        ({"share": 0.25}, "0.25"),
        ({"test": ["a/7", "b/9"]}, "a/7, b/9"),
        ({"split": "tau.json"}, "tau"),
    ):
        description = Holdout(by="pictures", **amount).description
        assert fact in description
        assert "pictures" in description
        assert "None" not in description
        assert (
            sum(
                other_text in description
                for other_text in ("12 folds", "0.25", "a/7", "tau")
            )
            == 1
        )


def test_few_runs_allow_claims_on_these_runs_and_people_only():
    runs = Holdout(by="runs", folds=2).describe_claims(9, 3)
    assert "these 9 stimuli in these runs" in runs
    assert "these 3 people" in runs
    trials = Holdout(by="trials", folds=2).describe_claims(9, 1)
    assert "these 9 stimuli," in trials
    assert "this person" in trials
