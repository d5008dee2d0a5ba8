"""Latest onset of an effect that filtered signals show, and its description."""

import numpy as np
import pytest

from brainhive_cli.data.signals import Sensors, Trials
from brainhive_cli.evaluation.explanation.claims import bound_onsets
from brainhive_cli.evaluation.explanation.filter_reach import find_latest_onsets
from brainhive_cli.evaluation.explanation.findings import (
    ONSET_BEFORE_STIMULUS,
    ONSET_UNKNOWN,
    Finding,
)
from brainhive_cli.evaluation.explanation.profiles import Axis

TIMES_MS = np.arange(-200, 800, 8.0)
STEPS = {
    "kind": "recording",
    "epoch_ms": [-200, 800],
    "keep_ms": [-200, 800],
    "whiten": "no",
    "rate_hz": 125,
}
BROAD = [None, None]


def filtered(source, **steps):
    """Return a recording whose store names these filters."""
    provenance = {"recorded_hz": 250.0, "preparation": {**STEPS, **steps}} | source
    signal = np.zeros((1, 1, 1, len(TIMES_MS)), np.float32)
    space, times_s = Sensors(["Oz"]), TIMES_MS / 1000
    return Trials.from_repetitions(
        signal, ["a"], space, times_s, 125.0, "uV", provenance
    )


@pytest.mark.parametrize(
    ("source", "steps", "earliest", "latest"),
    (
        ({}, {"band_hz": BROAD}, 0, 0),
        ({}, {"band_hz": [1, 40], "phase": "forward"}, 0, 0),
        ({}, {"band_hz": [None, 10], "baseline": False}, 8, 300),
        ({}, {"band_hz": [1, 40]}, 400, 799),
        ({}, {"band_hz": [1, 40], "baseline": False}, 400, 799),
        ({}, {"band_hz": [0.1, 40]}, 0, 30),
        ({}, {"band_hz": [0.1, 40], "baseline": False}, np.inf, np.inf),
        # half the rate is no filter
        ({"filtered_hz": [0.0, 125.0]}, {"band_hz": BROAD}, 0, 0),
        # by another program
        ({"filtered_hz": [1.0, 40.0]}, {"band_hz": BROAD}, 400, 799),
        (
            {"sessions": [{}, {"filtered_hz": [1.0, 40.0]}]},
            {"band_hz": BROAD},
            400,
            799,
        ),
        ({"preparation": {}, "simulated": "a program"}, {}, 0, 0),
    ),
)
def test_filters_show_an_effect_before_it_begins(source, steps, earliest, latest):
    reached = find_latest_onsets(filtered(source, **steps))

    assert earliest <= reached[TIMES_MS == 0].item() <= latest


@pytest.mark.parametrize("kind", ({"kind": "things-prepared"}, {}))
def test_signals_that_others_filtered_have_no_known_reach(kind):
    source = {"preparation": kind}
    assert np.isnan(find_latest_onsets(filtered(source))).all()


@pytest.mark.parametrize(
    ("first_ms", "source", "steps", "said"),
    (
        (104, {}, {"band_hz": BROAD}, "104–152 ms"),
        (-8, {}, {"band_hz": BROAD}, "-8 to 40 ms"),
        (-104, {}, {"band_hz": BROAD}, ONSET_BEFORE_STIMULUS),
        (-104, {}, {"band_hz": [1, 40]}, "begins by"),
        (104, {}, {"band_hz": [None, 10], "baseline": False}, "begins by"),
        (-8, {}, {"band_hz": [1, 40]}, "begins by"),
        (104, {}, {"band_hz": [1, 40]}, ONSET_UNKNOWN),
        (104, {}, {"band_hz": [0.1, 40], "baseline": False}, ONSET_UNKNOWN),
        (104, {"preparation": {"kind": "things-prepared"}}, {}, ONSET_UNKNOWN),
    ),
)
def test_no_time_before_the_stimulus_is_given_as_the_first(
    first_ms, source, steps, said
):
    """An effect from 250 ms, filtered from 1 to 40 Hz, is visible at -150 ms."""
    starts = np.arange(first_ms, first_ms + 144, 48.0)
    axis = Axis.from_windows(np.stack([starts, starts + 48], 1))
    scores = np.zeros((1, len(starts)))
    finding = Finding("a", "top1", axis, [], {}, scores, np.full(len(starts), 0.01))

    (bounded,), reason = bound_onsets([finding], [filtered(source, **steps)])

    if said == "begins by":
        assert said in bounded.onset_description
        assert bounded.latest_onset_ms > 200
    else:
        assert bounded.onset_description == said
    assert bool(reason) == (said in (ONSET_BEFORE_STIMULUS, ONSET_UNKNOWN))
