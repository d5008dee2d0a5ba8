"""Tests of the simulated recordings in BrainVision files."""

import json

import numpy as np
import pytest

from brainhive_cli.data.files.bids_labels import read_simulated
from brainhive_cli.demo import recordings
from brainhive_cli.demo.simulation import CHANNELS, PROVENANCE, RATE_HZ

mne = pytest.importorskip("mne")
N_PICTURES = 6
REPETITIONS = 20


@pytest.fixture
def study():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2, N_PICTURES, 12)) / 12**0.5
    image_ids = [f"train/thing/thing_{row}" for row in range(N_PICTURES)]
    return recordings.SimulatedStudy(
        image_ids, features[0], features[1], [REPETITIONS] * N_PICTURES
    )


def test_files_are_those_of_an_amplifier_and_marked_as_simulated(study, tmp_path):
    headers = recordings.write_study(tmp_path, study, n_subjects=1, n_sessions=2)

    assert [path.name for path in headers] == [
        "sub-01_ses-01.vhdr",
        "sub-01_ses-02.vhdr",
    ]
    raw = mne.io.read_raw(headers[0], preload=True, verbose="ERROR")
    assert raw.info["sfreq"] == RATE_HZ
    assert raw.ch_names == list(recordings.POSITIONS)
    assert set(raw.annotations.description) == {
        f"Stimulus/S{number:>3}" for number in range(1, N_PICTURES + 1)
    }
    assert len(raw.annotations) == N_PICTURES * REPETITIONS
    # 1 to 100 µV, with blinks in front
    deviations_uv = dict(zip(raw.ch_names, raw.get_data().std(1) * 1e6, strict=True))
    assert 1 < deviations_uv["Oz"] < deviations_uv["Fp1"] < 100
    table = (tmp_path / "events.csv").read_text().splitlines()
    assert table[:2] == ["event,picture", "1,train/thing/thing_0.jpg"]
    assert read_simulated(*headers) == PROVENANCE
    assert "BIDSVersion" not in json.loads(
        (tmp_path / "dataset_description.json").read_text()
    )


def test_a_seed_gives_the_same_files_and_sessions_differ(study, tmp_path):
    for name in ("a", "b"):
        recordings.write_study(tmp_path / name, study, n_subjects=1, n_sessions=2)
    for path in sorted((tmp_path / "a").iterdir()):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    first_file, second = sorted((tmp_path / "a").glob("*.vmrk"))
    assert first_file.read_text().count("Stimulus") == second.read_text().count(
        "Stimulus"
    )
    assert first_file.read_text() != second.read_text()


def test_responses_depend_on_the_picture_and_begin_after_it(
    study,
):
    signal, onsets, rows = recordings.simulate_session(study, subject=1, session=1)
    posterior = signal[-len(CHANNELS) :]

    def measure_difference(start, stop):
        """Return the variance of mean signals over pictures, in a window [samples]."""
        means = []
        for row in range(N_PICTURES):
            windows = [posterior[:, o + start : o + stop] for o in onsets[rows == row]]
            baseline = [posterior[:, o - 25 : o].mean(1) for o in onsets[rows == row]]
            means.append(np.mean(windows, 0).mean(1) - np.mean(baseline, 0))
        return float(np.var(means, 0).mean())

    assert measure_difference(50, 120) > 3 * measure_difference(0, 20)


def test_semantic_features_are_fitted_to_training_pictures_alone():
    embeddings = np.random.default_rng(1).normal(size=(40, 30)).astype(np.float32)
    is_training = np.arange(40) < 30
    features = recordings.choose_components(embeddings, is_training)
    changed = embeddings.copy()
    changed[~is_training] += 5

    second_components = recordings.choose_components(changed, is_training)

    np.testing.assert_array_equal(features[is_training], second_components[is_training])
    assert features.shape == (40, recordings.N_COMPONENTS)
    lengths = np.linalg.norm(features[is_training], axis=1)
    assert lengths.mean() == pytest.approx(recordings.SEMANTIC_GAIN, rel=0.1)
