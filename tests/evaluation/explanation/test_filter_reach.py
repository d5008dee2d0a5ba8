"""Whether signals may show an effect before it begins, by the filters that a store
names.
"""

import numpy as np

from brainhive_cli.data.spaces import Sensors
from brainhive_cli.data.trials import Trials
from brainhive_cli.evaluation.explanation.conclusion import looks_ahead

STEPS = {
    "kind": "recording",
    "epoch_ms": [-200, 800],
    "keep_ms": [-200, 800],
    "whiten": "no",
    "rate_hz": 125,
}
BROAD = [None, None]


def filtered(source: dict, **steps: object) -> Trials:
    """A recording whose store names these filters."""
    provenance = {"recorded_hz": 250.0, "preparation": {**STEPS, **steps}} | source
    signal, times_s = np.zeros((1, 1, 1, 125), np.float32), np.arange(125) / 125
    return Trials(signal, ["a"], Sensors(["Oz"]), times_s, 125.0, "uV", provenance)


def test_a_filter_without_delay_looks_ahead() -> None:
    for source, steps, expected in (
        ({}, {"band_hz": BROAD}, False),
        ({}, {"band_hz": [1, 40], "phase": "forward"}, False),
        ({}, {"band_hz": [None, 10]}, True),
        ({}, {"band_hz": [1, 40]}, True),
        # half the rate is no filter
        ({"filtered_hz": [0.0, 125.0]}, {"band_hz": BROAD}, False),
        ({"filtered_hz": [1.0, 40.0]}, {"band_hz": BROAD}, True),  # by another program
        ({"sessions": [{}, {"filtered_hz": [1.0, 40.0]}]}, {"band_hz": BROAD}, True),
        ({"preparation": {}, "simulated": "a program"}, {}, False),
        # which others filtered
        ({"preparation": {"kind": "things-prepared"}}, {}, True),
    ):
        assert looks_ahead(filtered(source, **steps)) == expected
