"""Signals of tested people, as models read them."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.core.runs.run_folder import RunFolder
from brainhive_cli.data.signals.selection import Signal
from brainhive_cli.training.alignment.cells import Cell
from brainhive_cli.training.alignment.trained import (
    TestedPerson,
    TrainedModel,
    open_test_set,
)
from brainhive_cli.training.alignment.trained.run import TrainedRun


class ProvenanceOnly:
    """Recordings whose stores have only the provenance of each split."""

    def __init__(self, facts):
        self.facts = facts

    def build_path(self, subject):
        return Path(__file__ if subject in self.facts else "absent")

    def open_store(self, subject):
        splits = enumerate(self.facts[subject])
        return SimpleNamespace(
            splits={
                n: SimpleNamespace(provenance=provenance) for n, provenance in splits
            }
        )


@pytest.mark.parametrize(
    ("facts", "delay_s", "unit"),
    [
        ({}, 0.0, "µV"),
        ({1: [{}]}, 0.0, "µV"),
        ({1: [{"preparation": {}}]}, 0.0, "µV"),
        ({1: [{"preparation": {"delay_ms": 40}, "recorded_unit": "volt"}]}, 0.04, "V"),
        # sessions of a store, and of another split
        ({1: [{}, {"sessions": [{"recorded_unit": "fT"}]}]}, 0.0, "fT"),
        # of the training, where a person has no store; the first one counts
        (
            {
                3: [{"preparation": {"delay_ms": 10}, "recorded_unit": "T"}],
                2: [{"preparation": {"delay_ms": 20}, "recorded_unit": "mV"}],
            },
            0.02,
            "mV",
        ),
        (
            {
                1: [{"preparation": {"delay_ms": 30}}],
                2: [{"preparation": {"delay_ms": 20}, "recorded_unit": "mV"}],
            },
            0.03,
            "mV",
        ),
    ],
)
def test_a_delay_and_a_unit_are_those_of_the_stores(facts, delay_s, unit):
    recordings = ProvenanceOnly(facts)
    model = TrainedModel(Path("a model"), Cell("a", (2, 3), (1,), 1), [], Signal())
    nothing_stated = None
    person = TestedPerson(1, "test", model, recordings, nothing_stated, nothing_stated)
    assert person.delay_s == pytest.approx(delay_s)
    assert person.recorded_unit == unit
    assert person.is_prepared == (1 in facts)


@pytest.fixture
def normalised_run(run_command, align_overrides, runs):
    """Run of person 1, whose signals are normalised for each channel."""
    training = run_command(
        "train-align",
        *align_overrides[:2],
        "seeds=1",
        "backbone=ridge",
        "signal.normalise=channel",
        "subjects=1",
        runs,
    )
    return TrainedRun.read(RunFolder(training.folder))


def test_trials_are_normalised_as_in_the_training(world, normalised_run):
    tests = open_test_set(normalised_run, "test")
    person = tests.open_person(normalised_run.open_first(), 1)
    assert person.has_normaliser

    plain_averages = person.raw_trials.averages
    scaled = person.trials.averages

    learned = person.read("train").averages
    mean, spread = learned.mean((0, 2)), learned.std((0, 2))
    expected = (plain_averages - mean[:, None]) / spread[:, None]
    assert np.abs(scaled - plain_averages).max() > 0.5
    assert np.corrcoef(scaled.ravel(), expected.ravel())[0, 1] > 0.99

    # training trials have the statistics of the training, too
    trained = person.train_trials.averages
    expected = (learned - mean[:, None]) / spread[:, None]
    assert np.corrcoef(trained.ravel(), expected.ravel())[0, 1] > 0.99
    np.testing.assert_allclose(person.mean_signal, trained.mean(0), atol=1e-6)


def test_new_people_are_normalised_by_their_own_recordings(world, normalised_run):
    other_run = replace(normalised_run, origin="another data set")
    person = open_test_set(other_run, "test").open_person(other_run.open_first(), 2)
    assert not person.has_normaliser
    trained = person.train_trials.averages
    np.testing.assert_allclose(trained.mean((0, 2)), 0, atol=0.05)
    assert person.normaliser is not None


def test_a_recording_in_memory_is_read_as_the_store_is(world, normalised_run):
    tests = open_test_set(normalised_run, "test")
    person = tests.open_person(normalised_run.open_first(), 1)
    recording = person.recordings.open_recording(1, "test")
    trials = person.read_recording(replace(recording, subject=9))
    assert trials.subject == 1
    np.testing.assert_allclose(trials.averages, person.trials.averages)
    np.testing.assert_array_equal(trials.stimulus, person.trials.stimulus)

    # without pictures, nothing can have been seen
    unnamed = replace(recording, image_ids=())
    assert len(person.read_recording(unnamed).averages) == len(recording.averages)
    with pytest.raises(BrainhiveError) as caught:
        person.read_recording(replace(recording, unit="fT"))
    assert "the recording of subject 1" in caught.value.message


def test_seen_pictures_are_left_out_of_tested_trials_alone(trained_run):
    finished_trained_run = TrainedRun.read(RunFolder(trained_run))
    tests = open_test_set(finished_trained_run, "test")
    person = tests.open_person(finished_trained_run.open_first(), 1)
    all_trials = person.read("test")
    seen_rows = all_trials.stimulus[:3]

    def find_seen(subject, rows):
        assert subject == 1
        return np.isin(rows, seen_rows)

    person.find_seen = find_seen
    assert len(person.raw_trials.stimulus) == len(all_trials.stimulus) - 3
    assert not np.isin(person.trials.stimulus, seen_rows).any()
    assert len(person.all_trials.stimulus) == len(all_trials.stimulus)
    recording = person.recordings.open_recording(1, "test")
    assert not np.isin(person.read_recording(recording).stimulus, seen_rows).any()
