"""LSL streams that are read without a network."""

from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest

from brainhive_cli.core.base.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.data.streams import StreamRequest, lsl
from brainhive_cli.data.streams._sample_times import SampleTimes
from brainhive_cli.data.streams.lsl import Config, LslStream

CHANNELS = [
    ("FP1", "EEG", "microvolts", ("0.01", "0.02", "0.03")),
    ("FZ", "EEG", "-3", ("0", "0", "0")),
    ("fz", "eeg", "uV", ("1", "nan", "2")),
    ("HEOG", "EOG", "", ()),
    ("Trig", "Trigger", "", ()),
    ("Light", "lux", "", ()),
]


def describe(channels=CHANNELS, count=None):
    rows = ""
    for label, kind, unit, coordinates in channels:
        position = "".join(
            f"<R0{axis}>{value}</R0{axis}>"
            for axis, value in zip("xyz", coordinates, strict=False)
        )
        rows += (
            f"<channel><label> {label} </label><type>{kind}</type>"
            f"<unit>{unit}</unit><loc>{position}</loc></channel>"
        )
    return ElementTree.fromstring(
        f"<info><name>cap</name><channel_count>{count or len(channels)}"
        f"</channel_count><nominal_srate>512.5</nominal_srate>"
        f"<desc><channels>{rows}</channels></desc></info>"
    )


def make_request(kind="eeg", unit="µV"):
    return StreamRequest(("Fp1",), kind, unit, 500.0, (0.0, 1.0), (), lambda: None)


def test_a_stream_is_described_by_names_types_units_and_places():
    stream_format, scale = lsl._read_format(describe(), Config(), make_request())
    assert (stream_format.name, stream_format.rate_hz) == ("cap", 512.5)
    # two channels would get the name Fz
    assert stream_format.channels == ("Fp1", "FZ", "fz", "HEOG", "Trig", "Light")
    assert stream_format.channel_types == ("eeg", "eeg", "eeg", "eog", "stim", "misc")
    assert stream_format.units == ("µV", "mV", "µV", "", "", "")
    assert scale.tolist() == [1] * 6
    assert stream_format.positions is not None
    assert stream_format.positions[0].tolist() == [0.01, 0.02, 0.03]
    assert np.isnan(stream_format.positions[1:]).all()


def test_a_description_of_too_many_channels_is_refused():
    with pytest.raises(RecipeError, match="10,001 channels at"):
        lsl._read_format(describe(count=10_001), Config(), make_request())


def test_only_names_of_eeg_get_the_standard_spelling():
    channels = [("fp1", "EEG", "µV", ()), ("fp2", "MISC", "", ())]
    stream_format, _ = lsl._read_format(describe(channels), Config(), make_request())
    assert stream_format.channels == ("Fp1", "fp2")


def test_the_unit_of_the_recipe_applies_to_channels_of_the_model():
    stream_format, scale = lsl._read_format(
        describe(), Config(unit="mV"), make_request()
    )
    assert scale == pytest.approx([1000, 1000, 1000, 1, 1, 1])
    assert stream_format.units == ("µV", "µV", "µV", "", "", "")
    with pytest.raises(RecipeError):
        lsl._read_format(describe(), Config(unit="fT"), make_request())


def test_channels_without_types_are_those_of_the_model():
    channels = [("MEG1", "", "fT", ()), ("MEG2", "MEG", "", ()), ("a", "EEG", "V", ())]
    stream_format, _ = lsl._read_format(
        describe(channels), Config(), make_request("mag", "fT")
    )
    assert stream_format.channel_types == ("mag", "mag", "eeg")
    assert stream_format.positions is None
    assert stream_format.units == ("fT", "", "V")


def test_names_of_the_recipe_replace_those_of_the_stream():
    # a description with another number of channels is ignored
    names = ["oz", "Pz"]
    stream_format, _ = lsl._read_format(
        describe(count=2), Config(channels=names), make_request()
    )
    assert stream_format.channels == ("Oz", "Pz")
    assert stream_format.channel_types == (
        "eeg",
        "eeg",
    )
    for channels in ([], ["Oz"], ["Oz", "Oz"], ["Oz", "Pz", "Cz"]):
        with pytest.raises(RecipeError):
            lsl._read_format(
                describe(count=2), Config(channels=channels), make_request()
            )


@pytest.mark.parametrize(
    ("declared", "kind", "unit"),
    [
        ("-6", "eeg", "µV"),
        ("-3", "eog", "mV"),
        ("0", "eeg", "V"),
        ("-15", "mag", "fT"),
        ("-15", "eeg", ""),
        ("-6", "stim", ""),
        ("µV", "misc", "µV"),
        ("", "eeg", ""),
    ],
)
def test_units_are_names_or_powers_of_ten(declared, kind, unit):
    assert lsl._read_unit(declared, kind) == unit


def listen(code, before_s):
    """Make a stream that has read a code at some time, without opening it."""
    stream = LslStream.__new__(LslStream)
    stream.format = SimpleNamespace(rate_hz=10.0)
    stream._code, stream._code_time_s, stream._delay_s = code, before_s, 0.25
    return stream


@pytest.mark.parametrize(
    ("code", "before_s", "expected"),
    [
        (0, 0.9, [(1.0, "3"), (1.4, "4"), (2.7, "5")]),
        (3, 0.9, [(1.4, "4"), (2.7, "5")]),
        # nothing was read before, or samples are missing
        (0, -np.inf, [(1.4, "4"), (2.7, "5")]),
        (0, 0.84, [(1.4, "4"), (2.7, "5")]),
        (0, 1.0, [(1.4, "4"), (2.7, "5")]),
    ],
)
def test_a_code_after_a_gap_is_no_event(code, before_s, expected):
    stream = listen(code, before_s)
    times_s = np.array([1.0, 1.1, 1.2, 1.3, 1.4, 2.4, 2.5, 2.6, 2.7])
    codes = np.array([3, 3.2, np.nan, 0, 4.4, 7, 7, 0, 5])

    events = stream._read_codes(codes, times_s)

    assert [event.name for event in events] == [name for _, name in expected]
    assert [event.time_s for event in events] == pytest.approx(
        [time_s + 0.25 for time_s, _ in expected]
    )
    assert (stream._code, stream._code_time_s) == (5, 2.7)


def test_a_channel_of_codes_leaves_no_use_for_markers():
    with pytest.raises(RecipeError):
        Config(marker_channel="TRIGGER", markers="texts")
    assert Config(marker_channel="TRIGGER").markers == ""


def info(name, stype, **facts):
    defaults = {"dtype": "float32", "sfreq": 500.0, "n_channels": 4, "source_id": name}
    return SimpleNamespace(name=name, stype=stype, **{**defaults, **facts})


AMPLIFIER = info("cap", "EEG")
OTHER = info("gaze", "Gaze", sfreq=60.0, n_channels=1)
TEXTS = info("texts", "Markers", dtype="string", sfreq=0.0, n_channels=1)
CODES = info("codes", "markers", dtype="int32", sfreq=0.0, n_channels=1)


@pytest.mark.parametrize(
    ("keys", "streams", "expected"),
    [
        ({}, [AMPLIFIER, TEXTS, OTHER], (AMPLIFIER, TEXTS)),
        ({"name": "gaze"}, [AMPLIFIER, CODES, OTHER], (OTHER, CODES)),
        ({"source_id": "gaze"}, [AMPLIFIER, CODES, OTHER], (OTHER, CODES)),
        ({"type": "gaze"}, [AMPLIFIER, CODES, OTHER], (OTHER, CODES)),
        ({"markers": "codes"}, [AMPLIFIER, CODES, TEXTS], (AMPLIFIER, CODES)),
        ({"marker_channel": "T"}, [AMPLIFIER, CODES, TEXTS], (AMPLIFIER, None)),
    ],
)
def test_the_streams_that_match_are_chosen(monkeypatch, keys, streams, expected):
    monkeypatch.setattr(lsl, "resolve_streams", lambda wait_s: streams)
    assert lsl._wait_for_streams(Config(**keys, wait_s=0), "EEG") == expected


@pytest.mark.parametrize(
    ("keys", "streams", "error"),
    [
        ({}, [AMPLIFIER], MissingData),
        ({}, [TEXTS], MissingData),
        ({"name": "gaze", "source_id": "cap"}, [AMPLIFIER, OTHER, TEXTS], MissingData),
        ({}, [AMPLIFIER, CODES, TEXTS], RecipeError),
        ({}, [AMPLIFIER, info("cap2", "eeg"), TEXTS], RecipeError),
        ({}, [info("cap", "EEG", sfreq=0.5), TEXTS], RecipeError),
        ({}, [info("cap", "EEG", sfreq=1e6), TEXTS], RecipeError),
        ({}, [info("cap", "EEG", sfreq=np.inf), TEXTS], RecipeError),
        ({}, [info("cap", "EEG", n_channels=10_001), TEXTS], RecipeError),
        ({"name": "texts"}, [TEXTS], RecipeError),
        ({}, [AMPLIFIER, info("many", "Markers", n_channels=2)], RecipeError),
    ],
)
def test_streams_that_are_missing_doubtful_or_unfit_are_refused(
    monkeypatch, keys, streams, error
):
    monkeypatch.setattr(lsl, "resolve_streams", lambda wait_s: streams)
    with pytest.raises(error) as caught:
        lsl._wait_for_streams(Config(**keys, wait_s=0), "EEG")
    assert type(caught.value) is error


def read_all(stamps, now_s=1000.0, other_clock=0):
    """Read samples with these time stamps through a stream that was not opened."""
    rows = np.arange(2.0 * len(stamps)).reshape(-1, 2)
    waiting = [(rows[:1], stamps[:1]), (rows[1:], stamps[1:]), (rows[:0], stamps[:0])]
    stream = LslStream.__new__(LslStream)
    stream.format = SimpleNamespace(rate_hz=10.0, name="cap")
    stream._signal = SimpleNamespace(
        pull_chunk=lambda timeout, max_samples: waiting.pop(0)
    )
    stream._untimed, stream._clock = np.empty((0, 2)), lambda: now_s
    stream._n_other_clock, stream._scale = other_clock, np.array([2.0, 0.5])
    stream._times = SampleTimes(10.0)
    # a jitter by which the last of few samples waits
    stream._times.settle_times = lambda stamps: stamps[:-1]
    return stream, stream._read_samples(0.0)


def test_samples_wait_for_their_times_and_are_scaled():
    # the second has a stamp of another clock, and the last has no time yet
    stream, (samples, times_s) = read_all(np.array([999.0, 0.0, 999.2, 999.3]))
    assert times_s.tolist() == [999.0, 999.2]
    assert samples.tolist() == [[0.0, 0.5], [8.0, 2.5]]
    assert stream._untimed.tolist() == [[6.0, 7.0]]
    assert stream._n_other_clock == 1


@pytest.mark.parametrize(
    ("age_s", "other_clock", "is_refused"),
    [
        (364, 49, False),
        (366, 49, False),
        (366, 50, True),
        (-0.9, 50, False),
        (-1.1, 50, True),
    ],
)
def test_stamps_of_another_clock_are_refused_after_a_while(
    age_s, other_clock, is_refused
):
    stamps = np.array([999.0, 1000 - age_s])
    if is_refused:
        with pytest.raises(BrainhiveError):
            read_all(stamps, other_clock=other_clock)
    else:
        stream, _ = read_all(stamps, other_clock=other_clock)
        # a sample of LSL's clock resets the count of others
        is_ours = -1 < age_s < 365
        assert stream._n_other_clock == (0 if is_ours else other_clock + 1)


def test_a_stream_that_sends_at_another_rate_is_refused():
    # six seconds at 20 Hz, and the stream declares 10 Hz
    stamps = 990 + np.arange(120) / 20
    with pytest.raises(BrainhiveError, match="declares 10 Hz, and sends 20 samples"):
        read_all(stamps)
