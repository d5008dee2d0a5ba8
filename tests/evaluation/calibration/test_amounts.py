"""Tests of nested amounts of pictures, trials and minutes."""

from itertools import pairwise, product

import numpy as np
import pytest

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.evaluation.calibration.amounts import (
    UNLIMITED,
    limit_amounts,
    measure_timeline,
    select_trials,
)
from tests.worlds.array_trials import make_trials

PICTURES, REPETITIONS, STEP_S, BREAK_S = 12, 3, 2.0, 30.0
COUNTS = np.resize([3, 1, 2], PICTURES)
IS_THERE = np.arange(REPETITIONS) < COUNTS[:, None]
# 24: three runs of eight trials, of which the third is of another session
TRIALS = int(COUNTS.sum())


def pool_of(has_times=True):
    """Make trials of pictures in random order, in three runs with a break each."""
    random = np.random.default_rng(0)
    # of the trials that there are, from the first shown on
    order = random.permutation(TRIALS)
    run, number = np.divmod(order, 8)
    onset_s = np.full((PICTURES, REPETITIONS), np.nan)
    onset_s[IS_THERE] = 100 * run + 5 + STEP_S * number + BREAK_S * (number >= 4)
    runs, sessions = (np.full(onset_s.shape, -1, kind) for kind in (np.int16, np.int8))
    runs[IS_THERE], sessions[IS_THERE] = np.where(run == 2, 0, run), run == 2
    single = random.normal(size=tuple(onset_s.shape) + (2, 4)).astype(np.float32)
    known = {
        "sessions": sessions,
        "runs": runs,
        "onset_s": onset_s if has_times else None,
    }
    return make_trials(
        7, single, np.arange(PICTURES), ("P7", "Oz"), 100.0, COUNTS, **known
    )


def queue_of(pool):
    """Return the position of each existing trial in the recorded order."""
    return np.argsort(np.argsort(measure_timeline(pool)[0]))


def choose(unit, amounts, order="draws", seed=0, pool=None):
    return select_trials(
        pool or pool_of(), unit, amounts, order, np.random.default_rng(seed)
    )


def lay_out(unit, amounts, order="draws", seed=0, pool=None):
    """Choose trials, as masks [N, R]."""
    pool = pool or pool_of()
    chosen = choose(unit, amounts, order, seed, pool)
    return [pool.as_repetitions(mask, False) for mask in chosen]


def test_a_smaller_amount_is_part_of_a_larger_one():
    amounts = {"pictures": [1, 4, 9], "trials": [1, 5, 17], "minutes": [0.1, 0.7, 1.3]}
    for unit, order, seed in product(amounts, ("draws", "recording"), range(10)):
        chosen = choose(unit, list(amounts[unit]) + [UNLIMITED], order, seed)
        assert all((small <= large).all() for small, large in pairwise(chosen))
        assert [each.sum() for each in chosen] == sorted(
            {int(each.sum()) for each in chosen}
        )
        assert chosen[-1].shape == (TRIALS,)
        assert chosen[-1].all()


def test_the_order_of_recording_takes_the_first_trials():
    pool = pool_of()
    position = np.full(IS_THERE.shape, TRIALS)
    position[IS_THERE] = queue_of(pool)

    # the first run, and the moment of the next
    (minutes,) = lay_out("minutes", [46 / 60 + 1e-6], "recording")
    (trials,) = lay_out("trials", [9], "recording")
    (pictures,) = lay_out("pictures", [4], "recording")

    assert (minutes == (position <= 8)).all()
    assert (trials == (position < 9)).all()
    # where a fifth picture is shown for the first time
    fifth = np.sort(position.min(1))[4]
    assert pictures.any(1).sum() == 4
    assert (pictures == (position < fifth)).all()
    assert (pictures & ~IS_THERE).sum() == 0
    assert pictures.sum() < COUNTS[pictures.any(1)].sum()


def test_only_minutes_and_recorded_order_need_onsets():
    pool = pool_of(has_times=False)
    for unit, order in (
        ("minutes", "draws"),
        ("pictures", "recording"),
        ("trials", "recording"),
    ):
        with pytest.raises(BrainhiveError, match="subject 7") as caught:
            choose(unit, [1], order, pool=pool)
        assert "brainhive prepare" in caught.value.hint
        assert "pictures" in caught.value.hint
    with pytest.raises(BrainhiveError, match="subject 7"):
        limit_amounts([pool_of(), pool], "minutes", [1])
    assert lay_out("pictures", [2], pool=pool)[0].any(1).sum() == 2
    assert choose("trials", [2], pool=pool)[0].sum() == 2
    assert list(limit_amounts([pool], "trials", [2]).values()) == [2, UNLIMITED]
