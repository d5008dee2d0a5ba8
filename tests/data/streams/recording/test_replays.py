"""Replays of a file, a signal store and a mock."""

from dataclasses import replace

import numpy as np
import pytest

from brainhive_cli.core.base.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.recipes.recipe import Paths
from brainhive_cli.data.datasets import demo
from brainhive_cli.data.streams import (
    Clock,
    StreamRequest,
    WindowStream,
    mock as mocks,
    recording as recordings,
    signals as stores,
)
from tests.worlds.own_recordings import (
    CHANNELS,
    RATE_HZ,
    Presentation,
    annotate,
    make_raw,
)

mne = pytest.importorskip("mne")
SHOWN = Presentation.randomize(2, seed=0)


class Pause:
    """Clock that advances only by sleeping."""

    def __init__(self):
        self.time_s = 100.0

    def read_time(self):
        return self.time_s

    def sleep(self, seconds):
        self.time_s += seconds


def pretend(speed=1.0):
    pause = Pause()
    return Clock(speed, pause.read_time, pause.sleep), pause


@pytest.fixture(scope="module")
def simulated():
    dataset = demo.Config(subjects=1, concepts=8).build(Paths())
    return dataset.recording(1, "test")


def make_request(recording=None, channels=("O1", "Cz")):
    return StreamRequest(
        channels, "eeg", "µV", 250.0, (0.0, 1.0), ["owl", "cat"], lambda: recording
    )


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "sub-01_ses-01.fif"
    annotate(make_raw(SHOWN, seed=0), SHOWN, list(SHOWN.pictures)).save(
        path, verbose="ERROR"
    )
    return path


def drain(stream, wait_s=0.1):
    chunks = []
    while (chunk := stream.read(wait_s)) is not None:
        chunks.append(chunk)
    return chunks


def test_a_file_arrives_whole_in_chunks_of_20_ms_with_its_events(file):
    clock, _ = pretend()
    stream = recordings.replay(
        recordings.Config(file=str(file)), file, (0.0, 1.0), clock
    )
    assert stream.format.channels == CHANNELS

    chunks = drain(stream)

    signal = mne.io.read_raw(file, verbose="ERROR").get_data() * 1e6
    np.testing.assert_allclose(
        np.concatenate([chunk.samples for chunk in chunks]).T, signal, rtol=1e-12
    )
    times_s = np.concatenate([chunk.times_s for chunk in chunks])
    np.testing.assert_allclose(times_s, np.arange(signal.shape[1]) / RATE_HZ)
    assert {len(chunk.samples) for chunk in chunks[:-1]} == {RATE_HZ // 50}
    events = [event for chunk in chunks for event in chunk.events]
    assert [event.name for event in events] == list(SHOWN.pictures)
    np.testing.assert_allclose(
        [event.time_s for event in events], SHOWN.onsets / RATE_HZ
    )
    assert set(stream.format.units) == {"µV"}
    assert stream.format.rate_hz == RATE_HZ
    stream.close()
    stream.close()


def test_samples_arrive_when_they_are_due(file):
    clock, pause = pretend(speed=2.0)
    stream = recordings.replay(
        recordings.Config(file=str(file)), file, (0.0, 1.0), clock
    )
    while not len(stream.read(0.001).samples):
        pass
    # the last of ten samples at 500 Hz
    assert pause.time_s - 100 == pytest.approx(0.018 / 2)

    pause.time_s += 1.5  # nobody read for three seconds of the file
    chunk = stream.read(0.1)
    assert chunk.times_s[-1] == pytest.approx(3.018)
    assert len(chunk.samples) == 1500


def test_events_in_bad_spans_are_left_out_and_counted(tmp_path):
    raw = annotate(make_raw(SHOWN, seed=0), SHOWN, list(SHOWN.pictures))
    second_s = SHOWN.onsets[1] / RATE_HZ
    raw.annotations.append(second_s + 0.9, 0.05, "BAD_blink")
    path = tmp_path / "sub-01_ses-01.fif"
    raw.save(path, verbose="ERROR")

    clock, _ = pretend()
    stream = recordings.replay(
        recordings.Config(file=str(path)), path, (0.0, 1.0), clock
    )

    names = [event.name for chunk in drain(stream) for event in chunk.events]
    assert names == [SHOWN.pictures[0]] + list(SHOWN.pictures[2:])
    assert dict(stream.format.dropped) == {"BAD_blink": 1}


def test_events_have_the_delay_of_the_model_or_the_recipe(file):
    for keys, late_s in (({}, 0.12), ({"delay_ms": 0.0}, 0.0)):
        config = recordings.Config(file=str(file), speed=1e6, **keys)
        stream = config.build(replace(make_request(), delay_s=0.12))
        times_s = [event.time_s for chunk in drain(stream) for event in chunk.events]
        np.testing.assert_allclose(times_s, SHOWN.onsets / RATE_HZ + late_s)


def test_a_break_of_the_recording_is_a_gap_of_the_stream(tmp_path):
    raw = annotate(make_raw(SHOWN, seed=0), SHOWN, list(SHOWN.pictures))
    length = raw.n_times
    joined = mne.concatenate_raws([raw, raw.copy()], verbose="ERROR")
    joined.save(tmp_path / "sub-01.fif", verbose="ERROR")
    config = recordings.Config(file=str(tmp_path / "sub-01.fif"), speed=1e6)
    chunks = drain(config.build(make_request()))
    times_s = np.concatenate([chunk.times_s for chunk in chunks])
    steps = np.diff(times_s) * RATE_HZ
    assert np.flatnonzero(steps > 1.5).tolist() == [length - 1]
    events_s = [event.time_s for chunk in chunks for event in chunk.events]
    assert (
        events_s == times_s[list(SHOWN.onsets) + list(SHOWN.onsets + length)].tolist()
    )


def test_a_missing_file_or_none_gets_two_lines(tmp_path):
    with pytest.raises(RecipeError, match="no recording is named"):
        recordings.Config().build(make_request())
    with pytest.raises(MissingData, match=r"no recording .*absent\.fif"):
        recordings.Config(file=str(tmp_path / "absent.fif")).build(make_request())
    (tmp_path / "sub-01.fif").write_bytes(b"no recording")
    with pytest.raises(BrainhiveError, match="cannot be read"):
        recordings.Config(file=str(tmp_path / "sub-01.fif")).build(make_request())


def test_a_mock_stream_joins_simulated_trials_without_steps(
    simulated,
):
    config = mocks.Config(events=12)
    clock, _ = pretend()
    stream = mocks.simulate(config, make_request(simulated), simulated, clock)

    chunks = drain(stream)

    signal = np.concatenate([chunk.samples for chunk in chunks])  # [n, C]
    events = [event for chunk in chunks for event in chunk.events]
    assert len(events) == 12
    assert len(signal) == 13 * 300
    trials = simulated.signal
    for event in events:
        start = round(event.time_s * 250)
        trial = signal[start : start + 250].T
        (match,) = np.flatnonzero(np.abs(trials - trial).max((1, 2)) < 1e-6)
        assert simulated.image_ids[match] == event.name
    steps = np.abs(np.diff(signal[:-301], axis=0)).max(1)
    inside = np.arange(len(steps)) % 300 < 249
    assert steps[~inside].max() < 1.5 * steps[inside].max()
    assert stream.format.simulated.startswith("simulated by")


def test_a_mock_of_other_models_is_noise_with_events_and_says_so():
    stream = mocks.Config(events=3, speed=1e6).build(make_request(None))
    chunks = drain(stream)
    signal = np.concatenate([chunk.samples for chunk in chunks])
    assert signal.shape == (4 * 300, 2)
    assert 9 < signal.std() < 11
    names = [event.name for chunk in chunks for event in chunk.events]
    assert len(names) == 3
    assert set(names) <= {"owl", "cat"}
    assert stream.format.simulated.startswith("noise")


def test_trials_of_a_store_come_at_their_interval_each_once(simulated):
    clock, pause = pretend()
    stream = stores.ReplayedTrials(simulated, 2.0, clock)
    assert isinstance(stream, WindowStream)
    assert stream.template.signal.shape == (
        1,
        17,
        250,
    )

    assert stream.read_windows(0.1) == []
    windows = []
    begun_s = pause.time_s
    while len(windows) < 3:
        windows += stream.read_windows(0.1)
    assert pause.time_s - begun_s == pytest.approx(4.996 - 0.1)
    assert [window.time_s for window in windows] == [0.0, 2.0, 4.0]

    pause.time_s += 1e6
    while (next_windows := stream.read_windows(0.1)) is not None:
        windows += next_windows
    assert len(windows) == len(simulated.signal)
    assert len({window.signal.tobytes() for window in windows}) == len(windows)


def test_codes_are_replayed_if_no_annotation_names_a_picture(tmp_path):
    raw = annotate(make_raw(SHOWN, seed=0), SHOWN, ["blink"] * len(SHOWN.pictures))
    codes = np.zeros((1, raw.n_times))
    for number, onset in enumerate(SHOWN.onsets):
        codes[0, onset : onset + 20] = 1 + number
    channel = mne.create_info(["STI 014"], RATE_HZ, "stim")
    stim = mne.io.RawArray(codes, channel, verbose="ERROR")
    file = tmp_path / "sub-01_ses-01.fif"
    raw.add_channels([stim], force_update_info=True).save(file, verbose="ERROR")
    request = replace(
        make_request(), find_pictures=lambda events: set(events) - {"blink"}
    )
    stream = recordings.Config(file=str(file), speed=1e6).build(request)
    events = [event for chunk in drain(stream) for event in chunk.events]
    assert [event.name for event in events][:2] == ["1", "2"]
