"""A channel that is named, because it ranks better than all others together."""

import numpy as np
import pytest

from brainhive_cli import api
from brainhive_cli.evaluation.retrieval.lone_channel import is_better
from brainhive_cli.reports.sentences.sentences import state_finding

N_CHANNELS = 6


def test_ranks_are_compared_by_the_signs_of_differences():
    ones = np.ones(20, np.int64)
    assert is_better(ones, ones + 1, 20)
    assert not is_better(ones, ones + 1, 2000)
    assert not is_better(ones, ones, 1)
    assert not is_better(ones + 1, ones, 1)


@pytest.mark.parametrize("kind", ["single", "spread"])
def test_a_channel_is_named_if_it_decodes_alone(home, kind):
    random = np.random.default_rng(0)
    labels = np.random.default_rng(1).permutation(np.tile(np.arange(4), 30))
    signal = random.normal(size=(120, N_CHANNELS, 3))
    if kind == "single":
        # noise hides the code from the search for codes
        signal[:, 2] += 3 * labels[:, None]
    else:
        signal += random.normal(size=(4, N_CHANNELS, 3))[labels]
    _, evaluated = api.fit(
        signal,
        np.array(list("abcd"))[labels].tolist(),
        runs=np.repeat(np.arange(4), 30),
        channels=[f"E{number}" for number in range(N_CHANNELS)],
        times_s=np.arange(3) / 100,
        unit="µV",
        onset_s="in order",
    )
    text = state_finding(evaluated.measurements)
    assert evaluated.measurements.facts.answers[0].side == "above chance"
    assert ("E2" in text) == (kind == "single")
