"""Trials: grouped by stimulus, averaged over drawn repetitions, held out by fold."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from brainhive_cli.core.base.errors import BrainhiveError, RecipeError
from brainhive_cli.core.results.measurements import (
    SIMULATED,
    UNKNOWN_STEPS,
    WHITENED_BY_TESTED,
)
from brainhive_cli.data.files.hdf5 import LazyRows
from brainhive_cli.data.signals import (
    ChannelMapping,
    Holdout,
    Normaliser,
    Sensors,
    Trials,
    Voxels,
    digest_trials,
    group_trials,
    make_trial_reader,
    sum_by_picture,
    trials as trials_module,
)
from brainhive_cli.data.stores.signal_store import SignalStore
from tests.worlds.array_trials import make_trials

PROPERTY = settings(max_examples=25, deadline=None, derandomize=True)


def test_trials_of_a_stimulus_keep_their_order_in_time():
    order, counts = group_trials(np.array([7, 2, 7, 9, 7, 2]))
    assert order.tolist() == [1, 5, 0, 2, 4, 3]
    assert counts.tolist() == [2, 3, 1]
    no_order, no_counts = group_trials(np.empty(0, np.int64))
    assert len(no_order) == len(no_counts) == 0


def record(**changes):
    """Record three stimuli with 4, 2 and 1 repetitions of the values 1, 2, 4 and 8.

    The padding is NaN.
    """
    signal = np.tile(np.float32([1, 2, 4, 8])[:, None, None], (3, 1, 1, 1))
    signal[np.arange(4) >= np.array([4, 2, 1])[:, None]] = np.nan
    counts = np.array([4, 2, 1])
    fields = {
        "repetitions": counts,
        "runs": np.where(np.isnan(signal[..., 0, 0]), -1, np.arange(4)),
        **changes,
    }
    return Trials.from_repetitions(
        signal, ["a", "b", "c"], Sensors(["Oz"]), np.zeros(1), None, "µV", **fields
    )


def test_each_repetition_is_averaged_at_most_once():
    trials = record()
    ravels = {
        tuple(
            trials.average(2, torch.Generator().manual_seed(seed))
            .averages.ravel()
            .tolist()
        )
        for seed in range(40)
    }

    # each pair of the four
    assert {first_value for first_value, *_ in ravels} == {1.5, 2.5, 3, 4.5, 5, 6}
    assert {tuple(other_values) for _, *other_values in ravels} == {(1.5, 1.0)}
    all_average = trials.average(4, torch.Generator().manual_seed(0))
    np.testing.assert_allclose(all_average.averages, trials.averages)


@pytest.mark.parametrize("is_stored", [True, False])
def test_training_and_test_trials_of_a_fold_are_disjoint(tmp_path, is_stored):
    holdout, trials = Holdout(by="runs", folds=2), record()
    if is_stored:
        trials = replace(trials, signal=np.nan_to_num(trials.signal))
        SignalStore.write(tmp_path / "set" / "sub-01.h5", {"train": trials})
        trials = SignalStore.open(tmp_path / "set" / "sub-01.h5")["train"]

    learned, tested_trials = (
        holdout.choose_trials(trials, split, 1, "here") for split in ("train", "test")
    )

    assert [
        list(fold_trials.image_ids) for fold_trials in (learned, tested_trials)
    ] == [
        ["a", "a", "b"],
        ["a", "a", "b", "c"],
    ]
    assert tested_trials.averages.ravel().tolist() == [
        1,
        4,
        1,
        1,
    ]
    assert learned.averages.ravel().tolist() == [2, 8, 2]
    assert sorted(
        list(learned.index.tolist()) + list(tested_trials.index.tolist())
    ) == list(range(7))
    (opposite_trials,) = holdout.list_opposite_trials(
        {"train": trials}, "test", 1, "here"
    )
    assert opposite_trials.index.tolist() == learned.index.tolist()


CHANNELS = ("Fz", "Oz", "Pz")


def draw_trials(seed, is_mapped=False):
    """Draw seven stimuli with one to four repetitions, three channels, five samples."""
    random = np.random.default_rng(seed)
    counts = random.integers(1, 5, 7)
    is_there = np.arange(4) < counts[:, None]
    signal = random.normal(size=(7, 4, 3, 5)).astype(np.float32)
    signal[~is_there] = np.nan
    numbers = np.where(is_there, np.arange(28).reshape(7, 4), -1)
    lazy_rows = LazyRows(signal.shape, signal.dtype, lambda rows: signal[rows])
    return Trials.from_repetitions(
        lazy_rows if is_mapped else signal,
        [f"p{row}" for row in range(7)],
        Sensors(CHANNELS),
        np.arange(5) / 100,
        100.0,
        "µV",
        repetitions=counts,
        runs=numbers.astype(np.int16),
        sessions=np.where(is_there, 0, -1).astype(np.int8),
        trial_numbers=numbers,
        onset_s=np.where(is_there, numbers * 2.0, np.nan),
        stimulus=np.arange(100, 107),
    )


def draw_normaliser(random):
    mean, matrix = random.normal(size=(3, 1)), random.normal(size=(3, 3))
    return Normaliser(mean.astype(np.float32), matrix.astype(np.float32))


def apply_randomly(trials, seed, reads):
    """Choose, take and normalise in a random order, with or without reads between."""
    random, reading = np.random.default_rng(seed), np.random.default_rng(seed + 1)
    for _ in range(5):
        for name in ("averages", "singles"):
            if reading.random() < 0.5 and reads:
                getattr(trials, name)
        step, count = random.integers(3), len(trials.counts)
        if step == 0:
            trials = trials.take(random.permutation(count)[: max(1, count - 1)])
        elif step == 1:
            is_chosen = random.random(len(trials.signal)) < 0.8
            is_chosen[0] = True
            trials = trials.choose(is_chosen)
        else:
            trials = trials.normalise(draw_normaliser(random))
    return trials


@settings(PROPERTY, max_examples=12)
@given(st.integers(0, 10**6), st.booleans())
def test_signals_are_the_same_whatever_was_read_before(seed, is_mapped):
    fresh = apply_randomly(draw_trials(seed, is_mapped), seed, reads=False)
    randomly = apply_randomly(draw_trials(seed, is_mapped), seed, reads=True)
    recorded = draw_trials(seed)

    numbers = fresh.trial_numbers
    assert numbers is not None
    assert recorded.trial_numbers is not None
    signal = recorded.signal[np.searchsorted(recorded.trial_numbers, numbers)]
    if fresh.normaliser is not None:
        signal = fresh.normaliser(signal)
    rows = numbers[fresh.first_trials] // 4
    for trials in (randomly, fresh):
        np.testing.assert_allclose(trials.singles, signal, atol=1e-5)
        by_picture = np.split(signal, trials.first_trials[1:])
        mean = np.stack([values.mean(0) for values in by_picture])
        np.testing.assert_allclose(trials.averages, mean, atol=1e-5)
        # all lists stay with their trials
        assert list(trials.pictures) == [f"p{row}" for row in rows]
        assert trials.stimulus.tolist() == (100 + rows).tolist()
        assert np.array_equal(trials.picture_of_trial, fresh.picture_of_trial)
        assert np.array_equal(rows[trials.picture_of_trial], numbers // 4)
        assert trials.runs is not None
        assert trials.onset_s is not None
        assert np.array_equal(trials.runs, numbers)
        assert np.array_equal(trials.onset_s, 2.0 * numbers)
        assert trials.sessions is not None
        assert not trials.sessions.any()
        if trials.index is not None:
            assert trials.index.tolist() == rows.tolist()
        # in the order of time
        is_same_picture = np.diff(trials.picture_of_trial) == 0
        assert (np.diff(numbers)[is_same_picture] > 0).all()


def test_choosing_trials_forgets_averages_over_others():
    trials = record()
    assert trials.averages.ravel().tolist() == [3.75, 1.5, 1]

    second = trials.choose(trials.repetition == 1)

    assert second.averages.ravel().tolist() == [2, 2]
    assert list(second.image_ids) == [
        "a",
        "b",
    ]
    all_trials = trials.choose(np.ones(7, bool))
    assert all_trials.averages.tolist() == trials.averages.tolist()


def test_signals_in_memory_are_not_read_again():
    reads = list[Any]()
    signal = draw_trials(0).signal

    def read_rows(partial_any):
        reads.append(partial_any)
        return signal[partial_any]

    trials = draw_trials(0).change(
        signal=LazyRows(signal.shape, signal.dtype, read_rows)
    )
    averages, singles = trials.averages, trials.singles
    count = len(reads)

    assert np.array_equal(trials.read(slice(1, 3)), averages[1:3])
    assert np.array_equal(trials.read_trials([0, 4]), singles[[0, 4]])
    normaliser = draw_normaliser(np.random.default_rng(0))
    for changed in (
        trials.take(np.array([3, 1])),
        trials.change(where="there"),
        trials.normalise(normaliser),
    ):
        assert np.isfinite(changed.averages).all()
        assert len(changed.singles)
    assert len(reads) == count


@pytest.mark.parametrize("is_read", [True, False])
def test_the_last_normalisation_replaces_those_before(is_read):
    random = np.random.default_rng(0)
    first_normaliser, second = draw_normaliser(random), draw_normaliser(random)
    trials = draw_trials(0)
    expected = second(trials.averages)

    for steps in ((first_normaliser, second), (None, second), (second, second)):
        changed_trials = draw_trials(0)
        for normaliser in steps:
            if is_read:
                assert changed_trials.averages.any()
                assert changed_trials.singles.any()
            changed_trials = changed_trials.normalise(normaliser)
        np.testing.assert_allclose(changed_trials.averages, expected, atol=1e-5)
        np.testing.assert_allclose(
            changed_trials.singles, second(trials.singles), atol=1e-5
        )
    plain_trials = changed_trials.normalise(None)
    np.testing.assert_allclose(plain_trials.averages, trials.averages, atol=1e-6)


def test_channels_are_mapped_before_they_are_normalised():
    normaliser = Normaliser(np.float32([[1], [2]]), np.float32([[3], [5]]))
    matrix = np.float32([[0, 1, 0], [0, 0, 0]])
    mapping = ChannelMapping("common", ("Oz", "X"), CHANNELS, matrix, 1)
    trials = draw_trials(0)

    mapped = replace(trials, mapping=mapping).normalise(normaliser)

    assert mapped.width == 2
    assert mapped.channels == ("Oz", "X")
    oz = trials.averages[:, 1]
    # the channel without a source is the mean, which becomes 0
    expected = np.stack([3 * (oz - 1), np.zeros_like(oz)], 1)
    np.testing.assert_allclose(mapped.averages, expected, atol=1e-5)
    other_normaliser = Normaliser(np.float32([[0], [0]]), np.float32([[1], [1]]))
    renormalised = mapped.normalise(other_normaliser)
    np.testing.assert_allclose(renormalised.averages[:, 0], oz, atol=1e-5)
    unnormalised = replace(trials, mapping=mapping)
    np.testing.assert_allclose(unnormalised.averages[:, 1], 0)


def test_many_stimuli_are_read_in_blocks_as_few_are(
    monkeypatch,
):
    whole_trials, digests = draw_trials(0), draw_trials(0).digests
    averages, singles = whole_trials.averages, whole_trials.singles
    for block in (1, 3, 6, 7):
        monkeypatch.setattr(trials_module, "MAX_STIMULI_PER_READ", block)
        for is_mapped in (True, False):
            trials = draw_trials(0, is_mapped)
            assert np.array_equal(trials.averages, averages)
            assert np.array_equal(draw_trials(0, is_mapped).singles, singles)
            assert np.array_equal(trials.digests, digests)


def test_values_of_float16_are_averaged_in_float32():
    signal = np.full((1, 4, 1, 1), 40_000, np.float16)
    trials = Trials.from_repetitions(
        signal, ["a"], Sensors(["Oz"]), np.zeros(1), None, "µV"
    )
    assert trials.averages.item() == 40_000
    assert trials.averages.dtype == np.float32


@pytest.mark.parametrize("as_singles", [True, False])
def test_infinite_signals_are_named_by_picture_and_channel(
    as_singles,
):
    trials = draw_trials(0)
    trials.signal[trials.first_trials[4], 2, 1] = np.inf
    read_trials = trials.read_trials if as_singles else trials.read
    with pytest.raises(BrainhiveError, match="picture p4, channel Pz"):
        read_trials(slice(0, 7 if not as_singles else None))
    with pytest.raises(BrainhiveError, match="picture p4, channel Pz"):
        trials.select(["Pz"]).averages  # noqa: B018 (read)
    anonymous = replace(trials, image_ids=())
    row = trials.first_trials[4]
    with pytest.raises(BrainhiveError, match=f"row {row}, channel Pz"):
        anonymous.read_trials([row, 5])


def test_a_voxel_that_is_not_finite_is_named_by_its_recorded_row():
    signal = np.zeros((2, 1, 4, 1), np.float32)
    signal[1, 0, 3] = np.nan
    regions = {"V1": np.array([False, True, False, True])}
    trials = Trials.from_repetitions(
        signal, ["a", "b"], Voxels(regions), np.zeros(1), None, ""
    )
    for read_trials in (trials, trials.select(["V1"])):
        with pytest.raises(BrainhiveError, match="picture b, voxel 3"):
            read_trials.averages  # noqa: B018 (read)


def test_selected_channels_come_in_the_order_of_their_names():
    trials = draw_trials(0)

    changed_trials = trials.select(["Pz", "Fz"], (10, 30), scale=2.0)

    assert changed_trials.channels == (
        "Pz",
        "Fz",
    )
    assert changed_trials.times_s.tolist() == [0.01, 0.02]
    expected = 2 * trials.averages[:, [2, 0], 1:3]
    np.testing.assert_allclose(changed_trials.averages, expected, rtol=1e-5)
    assert changed_trials.singles.dtype == np.float32
    assert changed_trials.signal.shape == (16, 2, 2)
    assert changed_trials.scale == 2
    assert trials.scale == 1
    assert changed_trials.samples == slice(1, 3)
    # the digests are of the trials as they were recorded
    assert np.array_equal(changed_trials.digests, trials.digests)
    chosen_trials = changed_trials.choose(trials.repetition < 1).take(np.array([5]))
    assert chosen_trials.digests.tolist() == [trials.digests[trials.first_trials[5]]]
    assert trials.select().averages.shape == (7, 3, 5)


def test_voxels_of_regions_and_of_a_models_sets_are_their_union():
    signal = np.arange(12, dtype=np.float32).reshape(2, 1, 6, 1)
    masks = {
        name: np.isin(np.arange(6), rows)
        for name, rows in {"V1": [4, 1], "FFA": [5, 1], "none": []}.items()
    }
    trials = Trials.from_repetitions(
        signal, ["a", "b"], Voxels(masks), np.zeros(1), None, ""
    )

    changed_trials = trials.select(["FFA", "V1"])
    assert changed_trials.averages[0].ravel().tolist() == [1, 4, 5]
    assert changed_trials.regions == {"V1": (0, 1), "FFA": (0, 2), "none": ()}
    assert changed_trials.rows is not None
    assert changed_trials.rows.tolist() == [
        1,
        4,
        5,
    ]
    sets = {"early": masks["V1"], "late": np.arange(6) == 0}
    streams = trials.select(["FFA"], sets=sets)
    assert streams.averages[1].ravel().tolist() == [6, 7, 10]
    assert streams.regions["late"] == (0,)
    assert streams.regions["early"] == (1, 2)
    assert trials.positions is None
    assert draw_trials(0).regions == {}
    with pytest.raises(RecipeError, match=r"\bnone$"):
        trials.select(["none"])


def test_each_repetition_is_divided_by_its_norm_before_centring():
    trials = draw_trials(0)
    trials.signal[2, 0, 1] = 0

    changed_trials = trials.select(None, (0, 40), 3.0, normalises_trials=True)

    signal = trials.singles[..., :4].astype(float)
    for row in range(len(signal)):
        for channel in range(3):
            values = signal[row, channel]
            length = np.sqrt(sum(value**2 for value in values)) or 1
            np.testing.assert_allclose(
                changed_trials.singles[row, channel],
                3 * (values - values.mean()) / length,
                atol=1e-5,
            )
    with pytest.raises(RecipeError, match="one sample"):
        trials.select(None, (0, 10), normalises_trials=True)
    two = trials.select(None, (0, 20), normalises_trials=True)
    assert two.signal.shape[2] == 2


def test_positions_are_known_only_of_channels_that_were_recorded():
    positions = np.arange(9.0).reshape(3, 3)
    trials = draw_trials(0).change(space=Sensors(CHANNELS, positions))
    assert trials.positions == ((0, 1, 2), (3, 4, 5), (6, 7, 8))
    assert trials.select(["Pz"]).positions == ((6, 7, 8),)
    unknown = positions.copy()
    unknown[1, 2] = np.nan
    assert trials.change(space=Sensors(CHANNELS, unknown)).positions is None
    assert draw_trials(0).positions is None
    mapping = ChannelMapping("common", CHANNELS, CHANNELS, np.eye(3), 3)
    assert trials.change(mapping=mapping).positions is None


def test_sides_of_a_fold_know_the_digests_of_their_trials():
    trials = draw_trials(0).select(["Oz"])
    is_tested = trials.repetition % 2 == 0

    tested_trials, learned = (
        trials.hold_out(is_tested, split) for split in ("test", "train")
    )

    for side_trials, mask in ((tested_trials, is_tested), (learned, ~is_tested)):
        assert side_trials.index.tolist() == np.flatnonzero(mask).tolist()
        assert side_trials.digests.tolist() == draw_trials(0).digests[mask].tolist()
        assert (
            side_trials.stimulus.tolist()
            == (100 + trials.picture_of_trial[mask]).tolist()
        )
        assert np.array_equal(side_trials.averages, trials.singles[mask])
        assert side_trials.counts.tolist() == [1] * mask.sum()
        assert side_trials.trial_numbers.tolist() == trials.trial_numbers[mask].tolist()


def test_copies_of_trials_are_refused_with_their_count_and_place():
    trials, other_trials = draw_trials(0), draw_trials(1)
    trials.signal[: trials.counts[0]] = 0
    copied_row = trials.first_trials[3] + 1
    copied = trials.digests[copied_row]

    trials.refuse_copies(other_trials.digests, "here", "tests", "hint")
    # trials of zeros are copies of nothing
    trials.refuse_copies(np.zeros(1, np.uint64), "here", "tests", "hint")
    trials.refuse_copies(digest_trials(np.zeros((1, 3, 5))), "here", "tests", "")
    with pytest.raises(BrainhiveError) as caught:
        trials.refuse_copies(np.array([7, copied], np.uint64), "here", "tests", "")
    number = int(trials.counts[1:].sum())
    location = (
        f"of {trials.image_ids[copied_row]}, session 1, run {trials.runs[copied_row]}"
    )
    assert f"1 of {number} trials" in str(caught.value)
    assert location in str(caught.value)


def test_copies_are_refused_if_sessions_are_unknown():
    trials = replace(draw_trials(0), sessions=None)
    with pytest.raises(BrainhiveError) as caught:
        trials.refuse_copies(
            trials.digests[trials.picture_of_trial == 6][:1], "here", "tests", "hint"
        )
    assert "of p6, run 24" in str(caught.value)
    assert f"1 of {trials.counts.sum()} trials" in str(caught.value)


def test_digests_use_float32_and_skip_constant_signals():
    signal = np.random.default_rng(0).normal(size=(6, 4, 5))
    signal[5] = 3.0
    digests = digest_trials(signal)

    assert digests.shape == (6,)
    assert len(np.unique(digests)) == 6
    assert digests[5] == 0
    assert (digests[:5] > 0).all()
    assert np.array_equal(digests, digest_trials(signal.astype(np.float32)))
    assert np.array_equal(digests[1:], digest_trials(signal[1:]))
    changed = signal.copy()
    changed[1, 3, 4] += 1
    is_other = digest_trials(changed) != digests
    assert np.flatnonzero(is_other).tolist() == [1]
    single_zeros = np.zeros((1, 1, 2, 2))
    single_zeros[0, 0, 1, 1] = 1
    assert digest_trials(single_zeros) != 0


NO_LISTS = {"runs": None, "sessions": None, "trial_numbers": None, "onset_s": None}


@pytest.mark.parametrize(
    "changes",
    [
        {"signal": np.zeros((7, 4, 3), np.float32)},
        {"signal": np.zeros((7, 4, 3, 5), complex)},
        {"signal": np.zeros((7, 4, 3, 5), bool)},
        {"image_ids": ["a"]},
        {"image_ids": [1] * 7},
        {"repetitions": np.full(6, 1)},
        {"repetitions": np.array([0, 1, 1, 1, 1, 1, 1])},
        {"repetitions": np.array([5, 1, 1, 1, 1, 1, 1])},
        {"space": Sensors(["Oz", "Pz"])},
        {"space": Sensors(CHANNELS, np.zeros((2, 3)))},
        {"space": Voxels({"V1": np.ones(2, bool)})},
        {"space": Voxels({}, {"ncsnr": np.ones(2)})},
        {"times_s": np.arange(4) / 100},
        {"times_s": np.arange(5) / 102.5},
        {"times_s": np.arange(5) / 97.5},
        {"times_s": np.arange(5)[::-1] / 100},
        {"times_s": np.array([0, 0.01, np.nan, 0.03, 0.04])},
        {"rate_hz": None},
        {"runs": np.zeros((7, 4), np.int16)},
        {"runs": np.zeros((7, 1), np.int16)},
        {"sessions": np.full((7, 4), -1, np.int8)},
        {**NO_LISTS, "repetitions": None, "runs": np.zeros((7, 1), np.int16)},
        {"trial_numbers": np.zeros((7, 4), np.int64)},
        {"onset_s": np.zeros((7, 4))},
        {"onset_s": np.full((7, 4), np.inf)},
        {"whiteners": np.zeros((1, 2, 2))},
        {"whiteners": np.zeros((1, 3, 2))},
        {"whiteners": np.zeros((0, 3, 3))},
        {"provenance": []},
        {"unit": 1},
        {"space": None},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_lists_that_do_not_fit_the_signal_are_refused(changes):
    with pytest.raises(BrainhiveError):
        replace(draw_trials(0), **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"image_ids": ()},
        {"times_s": np.arange(5) / 101.5},
        {"times_s": np.arange(5) / 98.5 - 0.2},
        {"whiteners": np.zeros((1, 3, 3))},
        {"whiteners": np.zeros((2, 3, 3))},
        {"space": Voxels({"V1": np.ones(3, bool)}, {"ncsnr": np.ones(3)})},
        NO_LISTS,
        {"sessions": None, "whiteners": np.zeros((1, 3, 3))},
        {"signal": np.zeros((16, 3, 5), np.int16)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_lists_that_fit_the_signal_are_taken(changes):
    assert replace(draw_trials(0), **changes).averages.shape == (7, 3, 5)


def test_trials_are_ordered_by_onset_else_by_number():
    trials = draw_trials(0)
    assert trials.times_in_run is trials.onset_s
    assert replace(trials, onset_s=None).times_in_run is trials.trial_numbers
    unknown = replace(trials, onset_s=None, trial_numbers=None)
    assert unknown.times_in_run is None


def of_origin(**provenance):
    return record(provenance=provenance)


SESSIONS = {"sessions": [{"preparation": {"kind": "a_b", "whiten": "epochs"}}, {}]}


@pytest.mark.parametrize(
    ("provenance", "caveats"),
    [
        ({}, []),
        ({"preparation": {"whiten": "epochs", "whiten_by": "train"}}, []),
        ({"preparation": {"whiten": "no", "whiten_by": "both"}}, []),
        ({"preparation": {"whiten": False, "whiten_by": "both"}}, []),
        (
            {"preparation": {"whiten": "epochs", "whiten_by": "both"}},
            [WHITENED_BY_TESTED],
        ),
        ({"preparation": {"whitened": "unknown"}}, [UNKNOWN_STEPS]),
        ({"preparation": {"averaged": "unknown"}}, [UNKNOWN_STEPS]),
        ({"preparation": {"averaged": "no"}}, []),
        ({"simulated": {"noise": 1}}, [SIMULATED]),
        ({"sessions": [{}, {"simulated": {"noise": 1}}]}, [SIMULATED]),
    ],
)
def test_caveats_say_what_the_provenance_does(provenance, caveats):
    trials = of_origin(**provenance)
    assert trials.caveats == caveats
    assert trials.preparation.get("simulated", False) == (SIMULATED in caveats)


def test_steps_of_all_sessions_come_before_those_of_one():
    sessions = [{"preparation": {"tmin": 1, "band": 2, "root": "a"}}]
    trials = of_origin(sessions=sessions, preparation={"tmin": 3, "a": {"b": 4}})
    assert trials.preparation == {"tmin": 3, "band": 2, "a.b": 4}


@pytest.mark.parametrize(
    ("provenance", "kinds"),
    [
        ({}, ("unknown",)),
        ({"preparation": {"kind": "things_eeg"}}, ("things-eeg",)),
        ({"simulated": {}}, ("simulated",)),
        ({"simulated": {}, "preparation": {"kind": "epochs"}}, ("epochs", "simulated")),
        (
            {"sessions": [{"simulated": {}}, {"preparation": {"kind": "a"}}]},
            ("a", "simulated"),
        ),
        ({"sessions": [{}, {"preparation": {"kind": "a"}}]}, ("a", "unknown")),
    ],
)
def test_the_kinds_of_preparations_are_those_of_all_sessions(provenance, kinds):
    assert of_origin(**provenance).made_by == kinds


def test_the_stimulus_is_marked_only_if_all_sessions_agree():
    def find_marks(times_s, **provenance):
        trials = replace(draw_trials(0), times_s=times_s, provenance=provenance)
        return trials.stimulus_marks

    times = np.arange(5) / 100
    assert find_marks(times) == {"onset": 0.0}
    assert find_marks(times, stimulus_ms=100) == {"stimulus": (0.0, 100.0)}
    both_sessions = [{"stimulus_ms": 50}, {"stimulus_ms": 50}]
    assert find_marks(times, sessions=both_sessions) == {"stimulus": (0.0, 50.0)}
    assert find_marks(times, sessions=both_sessions, stimulus_ms=100) == {"onset": 0.0}
    assert find_marks(times - 0.04, stimulus_ms=100) == {}
    modality = {"sessions": [{"modality": "MEG"}]}
    assert of_origin(**modality).modality == "MEG"
    assert of_origin(**modality, modality="EEG").modality == "EEG"


def test_trials_are_read_in_file_order():
    reads = list[int]()

    def read_trial(number):
        reads.append(number)
        return np.full((2, 3), number)

    numbers = np.array([5, 0, 2, 4, 1])
    gather = make_trial_reader(numbers, (2, 3), np.float32, read_trial)

    gathered = gather(slice(0, 3))

    assert gathered.shape == (3, 2, 3)
    assert gathered.dtype == np.float32
    assert gathered[..., 0, 0].tolist() == [5, 0, 2]
    assert reads == [0, 2, 5]
    assert (gathered == gathered[..., :1, :1]).all()


@pytest.mark.parametrize("shape", [(4, 1), (4, 2)])
def test_numbers_of_repetitions_have_one_axis(shape):
    signal = np.zeros((4, 2, 3, 5), np.float32)
    with pytest.raises(BrainhiveError):
        make_trials(1, signal, range(4), counts=np.full(shape, 2))


@PROPERTY
@given(st.integers(0, 10**6), st.booleans(), st.booleans())
def test_repetitions_become_a_table_and_back(seed, is_mapped, is_unknown):
    random = np.random.default_rng(seed)
    counts = random.integers(1, 5, 6)
    counts[0] = 4
    is_there = np.arange(4) < counts[:, None]
    signal = np.where(is_there[..., None, None], random.normal(size=(6, 4, 3, 5)), 0)
    runs = np.where(is_there, random.integers(0, 9, (6, 4)), -1)
    lazy_rows = LazyRows(signal.shape, signal.dtype, lambda rows: signal[rows])
    ids = () if is_unknown else [f"p{row}" for row in range(6)]

    trials = Trials.from_repetitions(
        lazy_rows if is_mapped else signal,
        ids,
        Sensors(CHANNELS),
        np.arange(5) / 100,
        100.0,
        "µV",
        repetitions=counts,
        runs=runs,
    )

    assert trials.signal.shape == (counts.sum(), 3, 5)
    assert trials.counts.tolist() == counts.tolist()
    np.testing.assert_array_equal(trials.signal[:], signal[is_there])
    np.testing.assert_array_equal(trials.signal[-2:], signal[is_there][-2:])
    np.testing.assert_array_equal(trials.as_repetitions(runs[is_there], -1), runs)
    np.testing.assert_array_equal(
        trials.as_repetitions(np.asarray(trials.signal)), signal
    )
    np.testing.assert_allclose(trials.as_repetitions(), signal, rtol=1e-6)
    assert list(trials.pictures) == list(ids)
    means = signal.sum(1) / counts[:, None, None]
    np.testing.assert_allclose(trials.averages, means, atol=1e-6)


def test_successive_trials_of_an_id_are_a_picture():
    signal = np.arange(6, dtype=np.float32)[:, None, None]
    axes = [Sensors(["Oz"]), np.zeros(1), None, "µV"]
    trials = Trials(signal, ["b", "b", "a", "c", "c", "c"], *axes)

    assert list(trials.pictures) == ["b", "a", "c"]
    assert trials.counts.tolist() == [2, 1, 3]
    assert trials.averages.ravel().tolist() == [0.5, 2, 4]
    assert trials.repetition.tolist() == [0, 1, 0, 0, 1, 2]
    assert trials.find_trials([2, 0]).tolist() == [3, 4, 5, 0, 1]
    assert trials.take(np.array([2, 0])).signal.ravel().tolist() == [3, 4, 5, 0, 1]
    # trials of unknown pictures are not averaged
    unknown = Trials(signal, (), *axes)
    assert unknown.averages.tolist() == signal.tolist()
    assert unknown.pictures == ()
    assert Trials(signal[:0], [], *axes).counts.tolist() == []


def test_signals_of_repetitions_are_refused_with_the_way_out():
    signal = np.zeros((2, 3, 1, 1), np.float32)
    with pytest.raises(BrainhiveError, match=r"\[2, 3, 1, 1\]") as caught:
        Trials(signal, ["a", "b"], Sensors(["Oz"]), np.zeros(1), None, "µV")
    assert "from_repetitions" in caught.value.hint
    with pytest.raises(BrainhiveError, match="repetitions"):
        Trials(
            signal[:, 0],
            ["a", "b"],
            Sensors(["Oz"]),
            np.zeros(1),
            None,
            "µV",
            repetitions=np.array([1, 2]),
        )


@pytest.mark.parametrize("counts", [[2, 2, 2], [1, 3, 9], [17, 1, 4]])
def test_sums_of_pictures_are_added_in_the_order_of_trials(counts):
    numbers = np.array(counts)
    signal = np.random.default_rng(0).normal(size=(numbers.sum(), 3, 5))
    signal = signal.astype(np.float32)
    sums = sum_by_picture(signal, numbers)
    for row, values in enumerate(np.split(signal, np.cumsum(numbers)[:-1])):
        total = np.zeros((3, 5), np.float32)
        for value in values:
            total += value
        assert np.array_equal(sums[row], total)
