"""Trials in memory: unit, window, whitening and the reported differences."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from brainhive_cli.core.base.errors import BrainhiveError, MissingData
from brainhive_cli.data.signals import Voxels
from brainhive_cli.data.stores.training_history import TrainingHistory
from brainhive_cli.models.signal_spec import SignalSpec
from brainhive_cli.training.alignment.trained.new_trials import prepare_as, read_new
from tests.worlds.array_trials import make_trials
from tests.worlds.model_layouts import make_signal_spec

RECORDED = ("Cz", "Oz", "Pz")
STEPS = {"epoch_ms": (-40, 80), "keep_ms": (0, 80), "rate_hz": 50, "whiten": "no"}
WHITENERS = np.random.default_rng(5).normal(size=(2, 3, 3)).astype(np.float32)


def person_of(spec, *stored, delay_s=0.0, subject=1):
    """Make a person whose signals a model reads that has a whitener of subject 1."""
    history = TrainingHistory(whiteners={1: WHITENERS}, recorded_channels=RECORDED)
    store = SimpleNamespace(splits=dict(enumerate(stored)))
    return SimpleNamespace(
        subject=subject,
        model=SimpleNamespace(layout=SimpleNamespace(spec=spec), history=history),
        recordings=SimpleNamespace(open_store=lambda subject: store),
        is_prepared=bool(stored),
        recorded_unit="mV",
        delay_s=delay_s,
    )


def sensors(preparation, **fields):
    facts = {"unit": "µV", "rate_hz": 50.0, **fields}
    return replace(make_signal_spec(("Oz", "Pz"), 4), preparation=preparation, **facts)


def epochs(unit="V", names=("Pz", "Fz", "Oz", "Cz"), start_s=-0.06):
    signal = np.random.default_rng(2).normal(size=(3, len(names), 20))
    trials = make_trials(1, signal, np.arange(3), names, 100.0)
    return replace(trials, unit=unit, times_s=start_s + np.arange(20) / 100)


CASES = {
    "whole": (sensors(STEPS), epochs()),
    "without a baseline": (sensors(STEPS | {"baseline": False}), epochs()),
    "other unit": (sensors(STEPS, unit="T"), epochs()),
    "no unit": (sensors(STEPS, unit=""), epochs("mV")),
    "no steps": (sensors({}), epochs("µV")),
    "filtered": (sensors(STEPS | {"band_hz": (None, 40)}), epochs()),
    "not filtered": (sensors(STEPS | {"band_hz": (None, None)}), epochs()),
    "too short": (sensors(STEPS, rate_hz=100.0), epochs(start_s=0.0)),
    "whitened by steps": (sensors(STEPS | {"whiten": "epochs"}), epochs()),
    "whitened by unit": (sensors({}, unit="whitened"), epochs("µV")),
    "whitened before": (sensors({}, unit="whitened"), epochs("whitened")),
}


@pytest.mark.parametrize("case", CASES)
def test_steps_of_the_preparation_are_taken(case, recorded):
    spec, trials = CASES[case]
    prepared, left_out = prepare_as(person_of(spec), trials, "here")
    recorded(
        5,
        signal=prepared.signal[:, None],
        times_s=prepared.times_s,
        rate_hz=prepared.rate_hz,
        unit=len(prepared.unit),
        channels=list(map(RECORDED.index, prepared.channels))
        if len(prepared.channels) == 3
        else len(prepared.channels),
        left=len(left_out),
    )
    assert prepared.signal.dtype == np.float32 or case == "whitened before"


def test_the_noise_of_the_last_session_whitens():
    trials = epochs("µV")
    spec = sensors({}, unit="whitened")
    prepared, _ = prepare_as(person_of(spec), trials, "here")
    # channels in the order of the whitener, in the unit of the recordings, mV
    signal = trials.signal[:, [3, 2, 0]] * 1e-3
    np.testing.assert_allclose(
        prepared.signal, WHITENERS[-1] @ signal, rtol=1e-4, atol=1e-7
    )
    assert prepared.unit == "whitened"
    assert prepared.channels == RECORDED


def test_what_cannot_be_prepared_is_refused():
    whitened = sensors({}, unit="whitened")
    with pytest.raises(MissingData):
        prepare_as(person_of(whitened, subject=2), epochs("µV"), "here")
    for trials in (epochs("T"), epochs("µV", ("Pz", "Oz"))):
        with pytest.raises(BrainhiveError):
            prepare_as(person_of(whitened), trials, "here")
    # another rate, and too short to be resampled
    with pytest.raises(BrainhiveError):
        prepare_as(person_of(sensors(STEPS)), epochs(start_s=0.0), "here")


def test_voxels_are_in_the_order_of_the_store():
    stored = make_trials(1, np.zeros((2, 3, 1)), [0, 1], regions={"V1": [0, 2]})
    other_trials = make_trials(1, np.zeros((2, 5, 1)), [0, 1], regions={"V2": [1]})
    spec = SignalSpec((), 1, (1,), (3,), unit="z")
    person = person_of(spec, other_trials, stored)
    signal = np.random.default_rng(0).normal(size=(4, 3))
    trials, _ = read_new(person, signal, None, {})
    assert isinstance(trials.space, Voxels)
    assert trials.unit == "z"
    np.testing.assert_array_equal(trials.regions["V1"], stored.regions["V1"])
    np.testing.assert_allclose(trials.signal[:, :, 0], signal, rtol=1e-6)
    # nothing is known of another number of voxels, or without a store
    stranger = person_of(replace(spec, unit=""))
    for tested, width, unit in ((person, 4, "z"), (stranger, 3, "beta")):
        trials, _ = read_new(tested, np.ones((2, width)), None, {})
        assert not trials.regions
        assert trials.unit == unit


def test_an_array_of_the_models_size_has_its_axes():
    times_s = tuple(np.arange(4) / 50)
    spec = sensors({}, times_s=times_s)
    signal = np.random.default_rng(0).normal(size=(3, 2, 4))
    # time 0 is the picture's, whatever the delay of the training
    trials, differs = read_new(person_of(spec, delay_s=0.1), signal, None, {})
    assert trials.channels == ("Oz", "Pz")
    assert trials.unit == "µV"
    np.testing.assert_allclose(trials.times_s, times_s)
    assert len(differs) == 1


@pytest.mark.parametrize(
    ("delay_ms", "shift_s", "number"),
    [(None, 0.12, 1), (0, 0, 0), (31.0, 0.04, 0), (49, 0.04, 0)],
)
def test_time_0_is_moved_to_the_picture_by_whole_samples(delay_ms, shift_s, number):
    times_s = np.arange(6) / 50
    axes = {"channels": ("Oz", "Pz"), "times_s": times_s, "unit": "µV"}
    stated = {} if delay_ms is None else {"delay_ms": delay_ms}
    person = person_of(sensors({}), delay_s=0.115)
    signal = np.ones((3, 2, 6))
    trials, differs = read_new(person, signal, None, axes | stated)
    np.testing.assert_allclose(trials.times_s, times_s - shift_s, atol=1e-9)
    assert len(differs) == number
