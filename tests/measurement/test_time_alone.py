"""Tests of the baseline that knows only the times of trials."""

import numpy as np
import pytest

from brainhive_cli.measurement.time_alone import TimedTrials, recognise_by_time


def make_trials(label, run=None, time=None, item=None) -> TimedTrials:
    """Make trials in a single run, at equal times, each an item."""
    count = len(label)
    zeros = np.zeros(count, np.int64)
    return TimedTrials(
        item=np.arange(count) if item is None else np.array(item),
        label=np.unique(list(label), return_inverse=True)[1],
        run=zeros if run is None else np.array(run),
        time=np.zeros(count) if time is None else np.array(time, float),
    )


def test_labels_in_blocks_are_recognised_by_their_time() -> None:
    train = make_trials("aabbcc", time=[0, 2, 3, 5, 6, 8])
    test = make_trials("abca", time=[1, 4, 7, 7])
    assert recognise_by_time(test, train).tolist() == [1, 1, 1, 0]


def test_the_run_counts_before_the_time() -> None:
    train = make_trials("ab", run=[1, 2], time=[50, 0])
    test = make_trials("ab", run=[1, 2], time=[0, 50])
    assert recognise_by_time(test, train).tolist() == [1, 1]


def test_a_run_without_training_has_the_times_of_others() -> None:
    train = make_trials("abab", run=[1, 1, 2, 2], time=[0, 9, 10, 19])
    test = make_trials("ba", run=[3, 3], time=[28, 20])
    assert recognise_by_time(test, train).tolist() == [1, 1]


def test_equal_times_share_a_hit() -> None:
    train = make_trials("aabb")
    test = make_trials("abc")
    assert recognise_by_time(test, train).tolist() == [0.5, 0.5, 0]


def test_the_trials_of_an_item_vote() -> None:
    train = make_trials("abc", time=[0, 10, 20])
    test = make_trials("aaabb", time=[0, 1, 20, 9, 0], item=[0, 0, 0, 1, 1])
    assert recognise_by_time(test, train).tolist() == [1, 0.5]


@pytest.mark.parametrize("n_labels", [2, 10])
def test_random_orders_are_at_chance(n_labels) -> None:
    rng = np.random.default_rng(0)
    label = rng.integers(n_labels, size=4000).astype(str)
    trials = make_trials(label[:2000], time=np.arange(2000))
    others = make_trials(label[2000:], time=np.arange(2000) + 0.5)
    share = recognise_by_time(trials, others).mean()
    assert share == pytest.approx(1 / n_labels, abs=4 * (0.25 / 2000) ** 0.5)
