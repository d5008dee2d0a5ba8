"""Trials: grouped by stimulus, averaged over drawn repetitions, held out by fold."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from brainhive_cli.data.holdout import SEPARATE_TEST, Holdout
from brainhive_cli.data.signal_stores import SignalStore
from brainhive_cli.data.spaces import Sensors
from brainhive_cli.data.trials import Trials, group_trials


def test_trials_of_a_stimulus_keep_their_order_and_missing_ones_are_marked() -> None:
    stimuli, trials, counts = group_trials(np.array([7, 2, 7, 9, 7, 2]))
    assert stimuli.tolist() == [2, 7, 9] and counts.tolist() == [2, 3, 1]
    assert trials.tolist() == [[1, 5, -1], [0, 2, 4], [3, -1, -1]]


def record(**changes: object) -> Trials:
    """Three stimuli of 4, 2 and 1 repetitions, whose values are 1, 2, 4 and 8; the
    padding is not finite.
    """
    signal = np.tile(np.float32([1, 2, 4, 8])[:, None, None], (3, 1, 1, 1))
    signal[np.arange(4) >= np.array([4, 2, 1])[:, None]] = np.nan
    counts = np.array([4, 2, 1])
    fields = {
        "repetitions": counts,
        "runs": np.where(np.isnan(signal[..., 0, 0]), -1, np.arange(4)),
        **changes,
    }
    return Trials(
        signal, ["a", "b", "c"], Sensors(["Oz"]), np.zeros(1), None, "µV", **fields
    )


def test_drawn_repetitions_are_averaged_at_most_once_and_all_of_fewer() -> None:
    trials = record()
    drawn = {
        tuple(
            trials.average(2, torch.Generator().manual_seed(seed))
            .averages.ravel()
            .tolist()
        )
        for seed in range(40)
    }

    # each pair of the four
    assert {first for first, *_ in drawn} == {1.5, 2.5, 3, 4.5, 5, 6}
    assert {tuple(rest) for _, *rest in drawn} == {(1.5, 1.0)}
    every = trials.average(4, torch.Generator().manual_seed(0))
    np.testing.assert_allclose(every.averages, trials.averages)


@pytest.mark.parametrize("is_stored", [True, False])
def test_trials_of_a_fold_know_their_place_among_all_and_both_sides_share_none(
    tmp_path, is_stored
) -> None:
    holdout, trials = Holdout(by="runs", folds=2), record()
    if is_stored:
        trials = replace(trials, signal=np.nan_to_num(trials.signal))
        SignalStore.write(tmp_path / "set" / "sub-01.h5", {"train": trials})
        trials = SignalStore.open(tmp_path / "set" / "sub-01.h5")["train"]

    learned, tested = (
        holdout.choose_trials(trials, split, 1, "here") for split in ("train", "test")
    )

    assert [list(side.image_ids) for side in (learned, tested)] == [
        ["a", "a", "b"],
        ["a", "a", "b", "c"],
    ]
    assert tested.averages.ravel().tolist() == [
        1,
        4,
        1,
        1,
    ] and learned.averages.ravel().tolist() == [2, 8, 2]
    assert sorted([*learned.index.tolist(), *tested.index.tolist()]) == [*range(7)]
    (other,) = holdout.list_other_side({"train": trials}, "test", 1, "here")
    assert other.index.tolist() == learned.index.tolist()


def test_where_nothing_of_the_training_is_held_out_the_split_test_is_tested() -> None:
    trials = record()

    assert SEPARATE_TEST.choose_trials(trials, "train", 1, "here") is trials
    assert SEPARATE_TEST.stored_split("test") == "test" and not SEPARATE_TEST.words
    splits = {"train": trials, "test": record()}
    assert SEPARATE_TEST.list_other_side(splits, "train", 1, "here") == [splits["test"]]
