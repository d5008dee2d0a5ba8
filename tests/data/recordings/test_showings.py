"""Showings of pictures: copies, pace, and pictures of several kinds."""

import numpy as np
import pytest

from brainhive_cli.data.recordings.showings import (
    find_copies,
    find_mixed_kinds,
    find_names_at_pace,
)

PICTURES = [f"p{number}" for number in range(12)]


def show(seed, names=PICTURES, repetitions=6, interval_s=1.3, jitter_s=0.1):
    """Return the onsets and pictures of a random order."""
    random = np.random.default_rng(seed)
    pictures = random.permutation(np.repeat(names, repetitions)).tolist()
    intervals = interval_s + random.uniform(0, jitter_s, len(pictures))
    return np.cumsum(intervals), pictures


def copy_each(times_s, pictures, lags_s):
    """Return the events of pictures and their copies, and which are copies."""
    events = []
    for time_s, picture, lag_s in zip(times_s, pictures, lags_s, strict=True):
        events.append((time_s, picture, False))
        events.append((time_s + lag_s, picture, True))
    times, names, is_copy = zip(*sorted(events), strict=True)
    return np.array(times), list(names), np.array(is_copy)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "lag_s",
    [(0.004, 0.004), (0.5, 0.5), (1.0, 1.0), (0.4, 1.0)],
    ids=["copy", "offset", "late offset", "answer"],
)
@pytest.mark.parametrize("names", [PICTURES, ["face", "house"]])
def test_a_copy_offset_or_answer_is_one_showing_with_its_picture(names, lag_s, seed):
    if len(names) == 2 and lag_s[0] != lag_s[1]:
        pytest.skip("answers among repeated categories may be the next trial")
    times_s, pictures = show(seed, names, 72 // len(names))
    lags_s = np.random.default_rng(seed).uniform(*lag_s, len(pictures))
    times_s, pictures, is_copy = copy_each(times_s, pictures, lags_s)
    copies, lags = find_copies(times_s, pictures, len(names) == 2)
    assert (copies == is_copy).all()
    assert lag_s[0] - 0.001 <= np.median(lags) <= lag_s[1] + 0.001


@pytest.mark.parametrize("seed", range(5))
def test_answers_of_most_trials_are_found_near_the_next_picture(seed):
    times_s, pictures = show(seed, interval_s=1.8, jitter_s=0.4)
    random = np.random.default_rng(seed)
    times_s, pictures, is_copy = copy_each(
        times_s, pictures, random.uniform(0.4, 1.0, len(pictures))
    )
    is_answered = ~is_copy | (random.random(len(is_copy)) < 0.9)
    copies, _ = find_copies(
        times_s[is_answered], np.array(pictures)[is_answered].tolist(), False
    )
    assert (copies != is_copy[is_answered]).sum() <= 1


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("names", [["face", "house"], ["a", "b", "c"], PICTURES])
def test_equal_pictures_at_the_pace_of_trials_are_trials(names, seed):
    times_s, pictures = show(seed, names, 72 // len(names))
    assert not find_copies(times_s, pictures, len(names) < 4)[0].any()
    # each picture twice in a row, or blocks of four of a category
    repeat = np.repeat(pictures, 2).tolist()
    times_s = np.arange(len(repeat)) * 1.3
    assert not find_copies(times_s, repeat, False)[0].any()
    blocks = np.repeat(pictures, 4).tolist()
    pauses = np.repeat(np.arange(len(pictures)) * 10, 4)
    assert not find_copies(np.arange(len(blocks)) + pauses, blocks, True)[0].any()


def test_a_code_in_place_of_pictures_stands_at_their_pace():
    times_s, _ = show(0)
    is_lost = np.arange(len(times_s)) % 9 == 4
    other_events = [(time_s, "99") for time_s in times_s[is_lost]]
    # a fixation, an offset and an answer accompany each trial
    for time_s in times_s:
        other_events += [
            (time_s - 0.4, "250"),
            (time_s + 0.5, "251"),
            (time_s + 0.9, "key"),
        ]
    counts = find_names_at_pace(times_s[~is_lost], sorted(other_events))
    assert counts == {"99": is_lost.sum()}
    companions = [(time_s, name) for time_s, name in other_events if name != "99"]
    assert find_names_at_pace(times_s, sorted(companions)) == {}


def test_marks_of_pauses_do_not_stand_at_the_pace():
    times_s, _ = show(1, jitter_s=0.0)
    times_s = times_s + np.arange(len(times_s)) // 8 * 15
    other_events = []
    for last_times_, first_times_ in zip(times_s[7:-1:8], times_s[8::8], strict=False):
        other_events += [
            (last_times_ + 1.3, "end"),
            ((last_times_ + first_times_) / 2, "pause"),
            (first_times_ - 1, "go"),
        ]
    assert find_names_at_pace(times_s, other_events) == {}


def test_two_codes_that_come_together_are_one_event():
    times_s, _ = show(2)
    is_lost = np.arange(len(times_s)) % 5 == 2
    other_events = []
    for time_s in times_s[is_lost]:
        other_events += [(time_s, "195"), (time_s + 0.002, "136")]
    assert list(find_names_at_pace(times_s[~is_lost], other_events)) == ["195 + 136"]


def test_a_picture_under_two_kinds_of_rows_is_disputed():
    seen_rows = [(("trial_type", "seen"),)] * 6
    imagined = [(("trial_type", "imagined"),)] * 6
    pictures = ["a", "b", "c"] * 4
    (dispute,) = find_mixed_kinds(pictures, seen_rows + imagined, "events.tsv")
    assert dispute.kind == "mixed-kinds"
    assert dispute.names == ("imagined", "seen")
    assert "3 of 3" in dispute.problem
    assert "preparation.where" in dispute.remedy
    # a category that belongs to the picture, or a number of each row, is no kind
    categories = [(("trial_type", name),) for name in pictures]
    numbers = [(("trial_type", str(row)),) for row in range(12)]
    assert find_mixed_kinds(pictures, categories, "") == []
    assert find_mixed_kinds(pictures, numbers, "") == []
