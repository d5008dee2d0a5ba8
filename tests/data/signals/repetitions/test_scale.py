"""Factors of training signals."""

import numpy as np
import pytest

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.data.signals import Sensors, Trials, measure_scale


def make_trials(signal, names, unit="a.u."):
    """Make trials [N, R, C, T]."""
    ids = [f"p{row}" for row in range(len(signal))]
    times_s = np.arange(signal.shape[3]) / 100
    return Trials.from_repetitions(signal, ids, Sensors(names), times_s, 100.0, unit)


@pytest.fixture
def signal():
    return np.random.default_rng(0).normal(size=(40, 2, 6, 10))


NAMES = ["MEG0111", "MEG0112", "MEG0113", "MEG0121", "MEG0122", "MEG0123"]


@pytest.mark.parametrize("factor", [1e-13, 1e-6, 1.0, 7.0, 1e4])
def test_signals_get_a_spread_of_1_in_any_unit(signal, factor):
    trials = make_trials((signal * factor).astype("f4"), NAMES)
    for as_singles, spread in ((True, 1.0), (False, 0.5**0.5)):
        (scale,) = measure_scale([trials], as_singles)
        assert scale * factor == pytest.approx(1 / spread, rel=0.05)


def test_magnetometers_and_gradiometers_have_a_factor_each(signal):
    signal[:, :, [1, 2, 4, 5]] *= 30
    trials = make_trials(signal, NAMES, "fT and fT/cm")
    scale = measure_scale([trials], as_singles=True)
    assert scale[0] == scale[3] == pytest.approx(1, rel=0.05)
    assert scale[1] == scale[5] == pytest.approx(1 / 30, rel=0.05)


def test_bad_and_flat_channels_do_not_change_the_factor(signal):
    signal[:, :, 0] *= 50_000
    signal[:, :, 1] = 3
    (scale,) = measure_scale([make_trials(signal, NAMES)], as_singles=True)
    assert scale == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (lambda signal: signal + 1_000, "an offset of 1,0"),
        (lambda signal: (1e-13 * signal).astype("f2"), "are constant"),
    ],
)
def test_signals_without_digits_are_refused(signal, change, fact):
    with pytest.raises(BrainhiveError, match=fact):
        measure_scale([make_trials(change(signal), NAMES)], as_singles=True)
