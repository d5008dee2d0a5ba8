"""Intervals of clips over blocks of neighbours, who are alike."""

import numpy as np

from brainhive_cli.metrics.neighbours import block_length, block_means, blocks
from brainhive_cli.metrics.statistics import describe


def test_blocks_have_48_seconds_of_cc2017_and_few_clips_make_short_ones():
    assert [block_length(count) for count in (1, 39, 40, 200, 1200, 4320)] == [1, 1, 2, 10, 24, 24]


def test_a_clip_is_in_the_same_block_for_all_subjects():
    assert blocks([["a", "b", "c"], ["c", "a"]], 2) == [[0, 0, 1], [1, 0]]
    assert block_means(np.array([[1.0, 3.0, 7.0]]), [0, 0, 1]).tolist() == [[2.0, 7.0]]


def test_intervals_over_blocks_hold_the_mean_of_films_where_those_over_clips_do_not():
    """Of clips in fours that are equal, a nominal 95 % interval over clips holds in two thirds."""
    held = np.zeros(2)
    for seed in range(60):
        values = np.repeat(np.random.default_rng(seed).normal(size=60), 4)
        for place, length in enumerate((4, 1)):
            found = describe([values], ids=blocks([[*map(str, range(240))]], length), draws=200)
            held[place] += found.low <= 0 <= found.high

    assert held[0] / 60 > 0.88 > 0.8 > held[1] / 60
