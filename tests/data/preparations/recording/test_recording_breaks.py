"""Recordings with breaks, between which stretches are filtered by themselves."""

import numpy as np
import pytest

from brainhive_cli.core.recipes.recipe import Paths
from brainhive_cli.data.preparations.recording import LOST_REASON, Config
from brainhive_cli.data.recordings import RecordingKeys, filter_samples, read_header
from tests.tools.trial_numbers import numbers_of_splits
from tests.worlds.own_recordings import (
    RATE_HZ,
    Presentation,
    annotate,
    make_raw,
    write_pictures,
)

mne = pytest.importorskip("mne")
BAND = (0.5, 40.0)


@pytest.fixture
def data(home):
    write_pictures(home / "data/image-folder")
    (home / "data/recordings").mkdir()
    return home / "data/recordings"


def record_block(seed, offset_uv):
    presentation = Presentation.randomize(1, seed)
    raw = annotate(
        make_raw(presentation, seed), presentation, list(presentation.pictures)
    )
    raw._data += offset_uv * 1e-6 * np.random.default_rng(seed).normal(size=(6, 1))
    return presentation, raw


def prepare(**keys):
    steps = {"whiten": "no", "band_hz": BAND, "rate_hz": RATE_HZ, "baseline": False}
    return Config(**steps | keys).build(Paths()).session(1, 1)


def read_all(trials):
    """Return the trials [C, T] of all splits by picture and onset."""
    keyed = {}
    for split in trials.values():
        for name, onset_s, signal in zip(
            split.image_ids, split.onset_s, split.signal, strict=True
        ):
            keyed[name, round(float(onset_s), 3)] = np.asarray(signal)
    return keyed


@pytest.mark.nightly
def test_each_stretch_is_filtered_as_mne_does_it(data):
    blocks = [record_block(seed, 20_000 * (seed - 1)) for seed in range(3)]
    raw = mne.concatenate_raws([block for _, block in blocks], verbose="ERROR")
    skip_s = raw.times[-1] - 1.0
    raw.annotations.append(skip_s, 0.5, "BAD_ACQ_SKIP")
    raw.save(data / "sub-01_raw.fif", verbose="ERROR")
    recorded_sessions = read_all(prepare())
    filtered = raw.copy().filter(*BAND, verbose="ERROR").get_data() * 1e6
    assert len(recorded_sessions) > 20
    for (_, at_s), signal in recorded_sessions.items():
        onset = round(at_s * RATE_HZ)
        expected = filtered[:, onset : onset + RATE_HZ]
        np.testing.assert_allclose(
            signal, expected, atol=1e-2
        )  # .fif is in single precision
    largest = max(np.abs(signal).max() for signal in recorded_sessions.values())
    assert largest < 100  # the joins are steps of 20 mV


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["boundary", -99])
@pytest.mark.parametrize("phase", ["zero", "forward"])
def test_a_boundary_of_eeglab_is_between_two_samples(data, name, phase):
    from scipy.io import loadmat, savemat

    first_block, second = (
        record_block(seed, 20_000 * (seed - 1))[1] for seed in (0, 2)
    )
    length, names = first_block.n_times, []
    raw = mne.concatenate_raws([first_block, second], verbose="ERROR")
    raw.annotations.delete(
        [row for row, text in enumerate(raw.annotations.description) if "bound" in text]
    )
    path = data / "sub-01.set"
    mne.export.export_raw(path, raw, verbose="ERROR")
    content = loadmat(path, simplify_cells=True)
    eeg = {key: content[key] for key in content if not key.startswith("__")}
    eeg = eeg.get("EEG", eeg)
    events = eeg["event"]
    names = [event["type"] for event in events]
    kinds = np.dtype([("type", "O"), ("latency", "O"), ("duration", "O")])
    table = np.zeros(len(events) + 1, kinds)
    table[:-1] = [(event["type"], event["latency"], 0.0) for event in events]
    # latencies count from 1
    table[-1] = (name if isinstance(name, str) else float(name), length + 0.5, 0.0)
    savemat(path, {"EEG": {**eeg, "event": table}}, appendmat=False, oned_as="row")
    header = read_header(path, RecordingKeys())
    assert len(header.events) == len(names) and header.breaks == [(length, length)]
    recorded_sessions = read_all(prepare(phase=phase))
    assert len(recorded_sessions) == len(names)
    assert max(np.abs(signal).max() for signal in recorded_sessions.values()) < 100


def test_trials_whose_samples_were_lost_are_dropped_and_counted(data, recorded):
    image_names, raw = record_block(0, 0)
    lost = [int(image_names.onsets[row]) for row in (2, 5)]
    for onset in lost:
        raw._data[:, onset + 50 : onset + 300] = np.nan
    raw._data[:, -100:] = np.nan
    raw.save(data / "sub-01_raw.fif", verbose="ERROR")
    prepared = prepare()
    assert (
        sum(session.provenance["dropped"][LOST_REASON] for session in prepared.values())
        == 2
    )
    signals = read_all(prepared)
    assert len(signals) == len(image_names.pictures) - 2
    assert all(np.isfinite(signal).all() for signal in signals.values())
    recorded(digits=4, **numbers_of_splits(prepared))


def test_a_channel_with_lost_samples_is_refused_by_name(data):
    _, raw = record_block(0, 0)
    raw._data[2, 500:] = np.nan
    raw.save(data / "sub-01_raw.fif", verbose="ERROR")
    with pytest.raises(Exception, match=r"P7 .* of \d+ trials"):
        prepare()


def test_stretches_shorter_than_the_filter_stay_near_their_size():
    samples = np.random.default_rng(0).normal(size=1000) + 5000
    samples[500:] -= 9000
    for phase in ("zero", "forward"):
        breaks = [(499, 499), (500, 500), (700, 720)]
        filtered = filter_samples(samples, 250.0, (0.1, 40.0), phase, breaks)
        assert np.abs(np.delete(filtered, slice(700, 720))).max() < 10
        np.testing.assert_array_equal(filtered[700:720], samples[700:720])
