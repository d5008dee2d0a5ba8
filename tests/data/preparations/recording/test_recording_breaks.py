"""Recordings with breaks, between which stretches are filtered by themselves."""

import numpy as np
import pytest

from brainhive_cli.core.recipes.recipe import Paths
from brainhive_cli.data.preparations.recording import LOST_REASON, Config
from brainhive_cli.data.recordings import RecordingKeys, filter_samples, read_header
from tests.worlds.own_recordings import (
    RATE_HZ,
    Presentation,
    annotate,
    make_raw,
)

mne = pytest.importorskip("mne")
BAND = (0.5, 40.0)


def record_block(seed, offset_uv):
    """Record all pictures once, with a random offset in each channel."""
    presentation = Presentation.randomize(1, seed)
    raw = make_raw(presentation, seed)
    raw._data += offset_uv * 1e-6 * np.random.default_rng(seed).normal(size=(6, 1))
    return presentation, annotate(raw, presentation, list(presentation.pictures))


def prepare(**keys):
    steps = {"whiten": "no", "band_hz": BAND, "rate_hz": RATE_HZ, "baseline": False}
    return Config(**steps | keys).build(Paths()).session(1, 1)


def read_all(splits):
    """Return the trials [C, T] of all splits by their onsets in seconds."""
    trials = {}
    for split in splits.values():
        for onset_s, signal in zip(split.onset_s, split.signal, strict=True):
            trials[round(float(onset_s), 3)] = np.asarray(signal)
    return trials


@pytest.mark.nightly
def test_each_stretch_is_filtered_as_mne_does_it(folder):
    blocks = [record_block(seed, 20_000 * (seed - 1)) for seed in range(3)]
    raw = mne.concatenate_raws([block for _, block in blocks], verbose="ERROR")
    skip_s = raw.times[-1] - 1.0
    raw.annotations.append(skip_s, 0.5, "BAD_ACQ_SKIP")
    raw.save(folder / "sub-01_raw.fif", verbose="ERROR")
    trials = read_all(prepare())
    filtered_uv = raw.copy().filter(*BAND, verbose="ERROR").get_data() * 1e6
    assert len(trials) > 20
    for onset_s, signal in trials.items():
        onset = round(onset_s * RATE_HZ)
        expected_uv = filtered_uv[:, onset : onset + RATE_HZ]
        # .fif is in single precision
        np.testing.assert_allclose(signal, expected_uv, atol=1e-2)
        assert np.abs(signal).max() < 100  # the joins are steps of 20 mV


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["boundary", -99])
@pytest.mark.parametrize("phase", ["zero", "forward"])
def test_a_boundary_of_eeglab_is_between_two_samples(folder, name, phase):
    from scipy.io import loadmat, savemat

    first_block = record_block(0, -20_000)[1]
    length = first_block.n_times
    blocks = [first_block, record_block(2, 20_000)[1]]
    raw = mne.concatenate_raws(blocks, verbose="ERROR")
    is_boundary = ["bound" in text for text in raw.annotations.description]
    raw.annotations.delete(np.flatnonzero(is_boundary))
    path = folder / "sub-01.set"
    mne.export.export_raw(path, raw, verbose="ERROR")
    content = loadmat(path, simplify_cells=True)
    eeg = {key: content[key] for key in content if not key.startswith("__")}
    eeg = eeg.get("EEG", eeg)
    events = [(event["type"], event["latency"], 0.0) for event in eeg["event"]]
    # latencies count from 1
    kind = name if isinstance(name, str) else float(name)
    events.append((kind, length + 0.5, 0.0))
    fields = [("type", "O"), ("latency", "O"), ("duration", "O")]
    eeg["event"] = np.array(events, dtype=fields)
    savemat(path, {"EEG": eeg}, appendmat=False, oned_as="row")

    header = read_header(path, RecordingKeys())
    assert len(header.events) == len(events) - 1
    assert header.breaks == [(length, length)]
    trials = read_all(prepare(phase=phase))
    assert len(trials) == len(events) - 1
    assert max(np.abs(signal).max() for signal in trials.values()) < 100


def test_trials_whose_samples_were_lost_are_dropped_and_counted(folder):
    """Of eight trials, the samples of trials 2 and 5 are lost in part."""
    presentation, raw = record_block(0, 0)
    for onset in presentation.onsets[[2, 5]]:
        raw._data[:, onset + 50 : onset + 300] = np.nan
    raw._data[:, -100:] = np.nan
    raw.save(folder / "sub-01_raw.fif", verbose="ERROR")
    prepared = prepare()
    assert prepared["train"].provenance["dropped"] == {LOST_REASON: 2}
    assert prepared["test"].provenance["dropped"] == {}
    trials = read_all(prepared)
    kept = np.delete(presentation.onsets, [2, 5]) / RATE_HZ
    assert sorted(trials) == kept.tolist()
    assert all(np.isfinite(signal).all() for signal in trials.values())


def test_a_channel_with_lost_samples_is_refused_by_name(folder):
    _, raw = record_block(0, 0)
    raw._data[2, 500:] = np.nan
    raw.save(folder / "sub-01_raw.fif", verbose="ERROR")
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
