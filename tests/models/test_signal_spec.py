"""Refusal of signals that differ from the training signals."""

from dataclasses import replace

import pytest

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.models.signal_spec import SignalSpec

STEPS = {"kind": "recording", "band_hz": [0.1, 40], "whiten": "train"}
SPEC = SignalSpec(("Oz",), 50, (1,), (1,), 100.0, unit="uV", preparation=STEPS)


def difference(
    unit="uV",
    rate_hz=100.0,
    steps=STEPS,
    is_same_store=True,
):
    """Return the differences of refused signals. Empty if they are accepted."""
    try:
        SPEC.refuse_other_signals(
            unit, rate_hz, steps, "faces subject 1", is_same_store
        )
    except BrainhiveError as error:
        start = "faces subject 1 was made in another way than the training signals: "
        assert error.message.startswith(start)
        assert error.hint
        return error.message.removeprefix(start)
    return ""


def test_what_differs_is_named():
    cases = [
        ({"unit": "V", "rate_hz": 250.0}, "unit V, not uV; rate_hz 250 Hz, not 100 Hz"),
        ({"steps": STEPS | {"whiten": "no"}}, "whiten no, not train"),
        (
            {"steps": STEPS | {"kind": "things_eeg", "baseline": True}},
            "baseline True, not none; kind",
        ),
        ({"steps": STEPS | {"simulated": True}}, "signals simulated, not recorded"),
    ]
    for changes, description in cases:
        assert difference(**changes).startswith(description)


def test_rates_of_preparations_replace_lower_true_rates():
    steps = STEPS | {"rate_hz": 250}
    spec = replace(SPEC, rate_hz=200.0, preparation=steps)
    spec.refuse_other_signals("uV", 250.0, steps, "slower recording", True)

    with pytest.raises(BrainhiveError) as refused:
        spec.refuse_other_signals("uV", 200.0, steps | {"rate_hz": 100}, "other", True)
    assert refused.value.message.count("rate_hz") == 1


def test_the_same_and_what_nobody_knows_is_no_difference():
    assert (
        difference()
        == difference(rate_hz=100.0001)
        == difference(steps={**STEPS, "band_hz": (0.1, 40)})
        == ""
    )
    assert difference(unit="") == difference(steps={}) == ""
    assert difference(unit="µV") == difference(unit="μV") == ""  # two letters mu
    SignalSpec(("Oz",), 50, (1,), (1,)).refuse_other_signals(
        "V", 250.0, STEPS | {"simulated": True}, "x", True
    )
