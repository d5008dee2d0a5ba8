"""How late an effect may begin that shows at a time, by the filters that a store names."""

import numpy as np
import pytest

from brainhive_cli.data.spaces import Sensors
from brainhive_cli.data.trials import Trials
from brainhive_cli.evaluation.explanation.findings import latest_beginnings

TIMES_MS = np.arange(-200, 800, 8.0)
STEPS = {"kind": "recording", "epoch_ms": [-200, 800], "keep_ms": [-200, 800], "whiten": "no", "rate_hz": 125}
BROAD = [None, None]


def at_onset(source: dict, **steps: object) -> float:
    """Latest beginning of an effect that shows at 0 ms."""
    provenance = {"recorded_hz": 250.0, "preparation": {**STEPS, **steps}} | source
    signal, times_s = np.zeros((1, 1, 1, len(TIMES_MS)), np.float32), TIMES_MS / 1000
    recording = Trials(signal, ["a"], Sensors(["Oz"]), times_s, 125.0, "uV", provenance)
    return float(latest_beginnings(recording)[TIMES_MS == 0].item())


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
        ({"filtered_hz": [1.0, 40.0]}, {"band_hz": BROAD}, 400, 799),  # by another program
        ({"sessions": [{}, {"filtered_hz": [1.0, 40.0]}]}, {"band_hz": BROAD}, 400, 799),
        ({"preparation": {}, "simulated": "a program"}, {}, 0, 0),
    ),
)
def test_an_effect_shows_before_it_begins_as_far_as_the_filter_reaches(source, steps, earliest, latest):
    assert earliest <= at_onset(source, **steps) <= latest


@pytest.mark.parametrize("source", ({"preparation": {"kind": "things-prepared"}}, {"preparation": {}}))
def test_signals_that_others_filtered_have_no_known_reach(source):
    assert np.isnan(at_onset(source))
