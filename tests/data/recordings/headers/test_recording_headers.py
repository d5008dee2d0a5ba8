"""Headers of recordings: events, their sources, and bad spans."""

import json

import numpy as np
import pytest

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.data.recordings.headers import (
    RecordingKeys,
    _read_annotations,
    read_header,
)
from brainhive_cli.data.recordings.onset_shift import compare_onsets

mne = pytest.importorskip("mne")
RATE_HZ, COUNT = 500, 20
ONSETS = (
    np.arange(COUNT) * 0.7 + 1 + np.random.default_rng(0).uniform(0, 0.3, COUNT)
) * RATE_HZ
ONSETS = ONSETS.astype(int)
CODES = [9 + number % 7 for number in range(COUNT)]


def make(path, stims=(), annotated=(), scale=1e-6):
    """Save noise of two channels, stimulus channels, and annotations (sample, text)."""
    samples = int(ONSETS[-1] + RATE_HZ)
    noise = np.random.default_rng(0).normal(size=(2, samples)) * 1e-5
    stims = dict(stims)
    types = ["eeg", "eeg"] + ["eeg" if name == "TRIG" else "stim" for name in stims]
    info = mne.create_info(["Cz", "Pz"] + list(stims), RATE_HZ, types)
    codes = [
        np.array(values) * (scale if name == "TRIG" else 1)
        for name, values in stims.items()
    ]
    raw = mne.io.RawArray(np.vstack([noise] + list(codes)), info, verbose="ERROR")
    if annotated:
        onsets, texts = zip(*annotated, strict=True)
        raw.set_annotations(mne.Annotations(np.array(onsets) / RATE_HZ, 0.0, texts))
    raw.save(path, verbose="ERROR")
    return path


def pulses(width=20):
    """Return codes at the onsets, and 0 between them."""
    codes = np.zeros(int(ONSETS[-1] + RATE_HZ), int)
    for onset, code in zip(ONSETS, CODES, strict=True):
        codes[onset : onset + width] = code
    return codes


def write_rows(path, onsets, extra_columns=None):
    """Write an events.tsv of pictures at onsets, with further columns."""
    columns = {
        "onset": [f"{onset}" for onset in onsets],
        "stim_file": ["cat.png"] * len(onsets),
        **(extra_columns or {}),
    }
    rows = zip(*columns.values(), strict=True)
    path.write_text(
        "\n".join("\t".join(map(str, row)) for row in (columns,) + tuple(rows)) + "\n"
    )


TIMES_S = ONSETS / RATE_HZ


def test_decimal_commas_are_refused_and_empty_columns_ignored(tmp_path):
    path = make(tmp_path / "x_raw.fif", annotated=[(100, "cat")])
    table = tmp_path / "x_raw_events.tsv"
    table.write_text("onset\tstim_file\n2,000\tcat.png\n")
    with pytest.raises(BrainhiveError, match=r"x_raw_events\.tsv.*'2,000'"):
        read_header(path, RecordingKeys())
    table.write_text("onset\tstim_file\n2.0\tn/a\n")
    assert read_header(path, RecordingKeys()).events == ((100, "cat"),)
    with pytest.raises(BrainhiveError, match=r"x_raw_events\.tsv.*stim_file"):
        read_header(path, RecordingKeys(column="stim_file"))


@pytest.fixture
def bids(tmp_path):
    """Make a BIDS data set whose recording has a boundary and a bad span."""
    pytest.importorskip("pybv")
    (tmp_path / "dataset_description.json").write_text(
        json.dumps({"Name": "x", "BIDSVersion": "1.8.0"})
    )
    path = tmp_path / "sub-01/eeg/sub-01_task-x_run-1_eeg.vhdr"
    path.parent.mkdir(parents=True)
    raw = mne.io.read_raw(make(tmp_path / "x_raw.fif"), preload=True, verbose="ERROR")
    annotations = mne.Annotations([3, 5], [0, 0.5], ["New Segment/", "BAD_blink"])
    raw.set_annotations(annotations).export(path, verbose="ERROR")
    (tmp_path / "x_raw.fif").unlink()
    write_rows(tmp_path / "task-x_events.tsv", TIMES_S, {"duration": [0.1] * COUNT})
    rows = ["name\ttype\tunits\tstatus", "Pz\tEEG\tµV\tbad", "Cz\tEEG\tµV\tgood"]
    (tmp_path / "sub-01/eeg/sub-01_task-x_run-1_channels.tsv").write_text(
        "\n".join(rows) + "\n"
    )
    return path


def test_bids_tables_do_not_hide_own_bad_spans(bids):
    header = read_header(bids, RecordingKeys())
    assert len(header.events) == COUNT
    assert header.event_source == "task-x_events.tsv"
    assert [text for *_, text in header.bad_spans] == [
        "Comment/BAD_blink",
        "Comment/New Segment/",
    ]
    assert header.bads == ("Pz",)
    assert sorted(header.ch_names) == ["Cz", "Pz"]


def test_a_pulse_with_glitches_is_one_event(tmp_path):
    dropped, spiked, short_pulses = pulses(), pulses(), pulses(1)
    dropped[ONSETS[::3] + 5], spiked[ONSETS - 50] = 0, 64
    cases = [
        (pulses(), 0, False),
        (short_pulses, 0, False),
        (dropped, 0, True),
        (spiked, 0, True),
    ]
    cases.append((pulses() + 65280, 65280, False))  # lines that rest high
    for number, (codes, added, has_warning) in enumerate(cases):
        header = read_header(
            make(tmp_path / f"{number}_raw.fif", {"STI 014": codes}), RecordingKeys()
        )
        expected = (
            (int(onset), str(code + added))
            for onset, code in zip(ONSETS, CODES, strict=True)
        )
        assert header.events == tuple(expected)
        assert bool(header.warnings) == has_warning
        assert (f"adds {added}" in header.event_source) == bool(added)


def test_codes_of_a_combined_or_named_channel_are_read(tmp_path):
    lines = {f"STI00{bit + 1}": (pulses() >> bit & 1) * 5 for bit in range(4)}
    header = read_header(
        make(tmp_path / "x_raw.fif", {**lines, "STI101": pulses()}), RecordingKeys()
    )
    assert header.event_source == "channel STI101"
    assert [int(code) for _, code in header.events] == CODES

    # a channel called EEG, in its own unit
    header = read_header(
        make(tmp_path / "y_raw.fif", {"TRIG": pulses()}),
        RecordingKeys(stim_channel="TRIG"),
    )
    assert [int(code) for _, code in header.events] == CODES
    with pytest.raises(BrainhiveError) as error:
        read_header(tmp_path / "y_raw.fif", RecordingKeys())
    assert error.value.hint.startswith("preparation.stim_channel=TRIG")


def test_onsets_of_a_table_are_compared_with_markers(tmp_path):
    markers = [(int(onset), "S  1") for onset in ONSETS]
    for onsets, delay_s, facts in (
        (TIMES_S, 0, ()),
        (TIMES_S + 0.3, 0, ("0.3 s later throughout", "delay_ms=-300")),
        (
            [0.01] + list(TIMES_S + 0.5),
            0,
            ("rows without a marker: 1 of 21", "0.5 s later"),
        ),
        (np.rint(TIMES_S), 0, ("whole seconds, up to 0.",)),
    ):
        text = compare_onsets(np.array(onsets), markers, RATE_HZ, delay_s)
        assert bool(text) == bool(facts)
        assert all(fact in text for fact in facts)

    path = make(tmp_path / "x_raw.fif", {"STI 014": pulses()})
    for shift_s in (0.2, 0):
        write_rows(tmp_path / "x_raw_events.tsv", TIMES_S + shift_s)
        assert bool(read_header(path, RecordingKeys()).warnings) == bool(shift_s)

    # by more than from one event to the next, each would lie at another picture
    write_rows(tmp_path / "x_raw_events.tsv", [0.01] + list(TIMES_S + 7.3))
    with pytest.raises(BrainhiveError, match=r"1 of 21.* 7\.3 s") as caught:
        read_header(path, RecordingKeys())
    assert "x_raw.fif" in caught.value.message
    assert "preparation.delay_ms=-7300" in caught.value.hint


@pytest.mark.parametrize("name", ("STI{:03d}", "Trigger {}", "MISC {:03d}"))
def test_trigger_lines_are_the_bits_of_one_code(tmp_path, name):
    lines = {name.format(bit + 1): (pulses() >> bit & 1) * 5 for bit in range(4)}
    header = read_header(make(tmp_path / "x_raw.fif", lines), RecordingKeys())
    assert [int(code) for _, code in header.events] == CODES
    assert name.format(1) in header.event_source


def test_lines_whose_names_do_not_number_them_are_refused(tmp_path):
    lines = {"left": pulses() > 9, "right": pulses() > 12}
    with pytest.raises(BrainhiveError, match="left, right"):
        read_header(make(tmp_path / "x_raw.fif", lines), RecordingKeys())


def test_channels_with_as_many_codes_must_be_equal(tmp_path):
    equal_channels = {"A": pulses(), "B": pulses()}
    header = read_header(make(tmp_path / "x_raw.fif", equal_channels), RecordingKeys())
    assert [int(code) for _, code in header.events] == CODES
    other_channels = {**equal_channels, "B": np.roll(pulses(), 40)}
    with pytest.raises(BrainhiveError, match=r"channel A.*channel B"):
        read_header(make(tmp_path / "y_raw.fif", other_channels), RecordingKeys())


def test_codes_that_were_resampled_are_refused(tmp_path):
    from scipy.signal import resample_poly

    codes = resample_poly(pulses().astype(float), 4, 5)
    codes = np.pad(codes, (0, len(pulses()) - len(codes)))
    with pytest.raises(BrainhiveError, match=r"STI 014.*resampled"):
        read_header(make(tmp_path / "x_raw.fif", {"STI 014": codes}), RecordingKeys())


def test_short_codes_of_pictures_count_among_long_codes(tmp_path):
    codes = pulses(1)
    for onset in ONSETS:
        codes[onset - 120 : onset - 40] = 100  # a fixation
        codes[onset + 100 : onset + 140] = 200  # a key
    path = make(tmp_path / "x_raw.fif", {"STI 014": codes})
    picture_codes = {str(code) for code in CODES}
    header = read_header(
        path, RecordingKeys(), find_pictures=picture_codes.intersection
    )
    picture_events = [
        (onset, int(code)) for onset, code in header.events if code in picture_codes
    ]
    assert picture_events == list(zip(ONSETS.tolist(), CODES, strict=True))

    # a glitch between lines of a code that lasts longer is none
    codes = pulses()
    codes[ONSETS] = 9
    path = make(tmp_path / "y_raw.fif", {"STI 014": codes})
    header = read_header(
        path, RecordingKeys(), find_pictures=picture_codes.intersection
    )
    assert [int(code) for _, code in header.events] == CODES


def test_each_row_uses_the_first_stimulus_column_with_a_value(tmp_path):
    path = make(tmp_path / "sub-01_raw.fif")
    rows = [(1, "cat.png", "n/a"), (2, "n/a", "stim-dog"), (3, "n/a", "n/a")]
    text = "".join("\t".join(map(str, row)) + "\n" for row in rows)
    table = tmp_path / "sub-01_raw_events.tsv"
    table.write_text(f"onset\tstim_file\tstimulus_id\n{text}")
    header = read_header(path, RecordingKeys())
    assert [name for _, name in header.events] == ["cat.png", "stim-dog"]


def test_restarting_clocks_are_refused_and_disorder_described(tmp_path):
    path = make(tmp_path / "sub-01_raw.fif")
    table = tmp_path / "sub-01_raw_events.tsv"
    half_times = np.arange(10) * 0.7 + 1
    write_rows(table, list(half_times) + list(half_times + 0.02))
    with pytest.raises(BrainhiveError, match=r"events\.tsv.*10"):
        read_header(path, RecordingKeys())
    write_rows(table, list(TIMES_S[::2]) + list(TIMES_S[1::2]))
    warnings = read_header(path, RecordingKeys()).warnings
    assert any("1 times" in warning for warning in warnings)


def test_codes_count_where_no_annotation_stands_for_a_picture(tmp_path):
    picture_codes = {str(code) for code in CODES}
    stims = {"STI 014": pulses()}
    path = make(tmp_path / "x_raw.fif", stims, [(900, "blink"), (2000, "cough")])
    header = read_header(
        path, RecordingKeys(), find_pictures=picture_codes.intersection
    )
    assert [int(code) for _, code in header.events] == CODES
    assert header.event_source == "channel STI 014"
    # annotations that do are read as before
    path = make(tmp_path / "y_raw.fif", stims, [(900, "9"), (2000, "10")])
    header = read_header(
        path, RecordingKeys(), find_pictures=picture_codes.intersection
    )
    assert header.events == ((900, "9"), (2000, "10"))


def test_the_channel_with_codes_of_pictures_is_read(tmp_path):
    keys = np.zeros(len(pulses()), int)
    for number, onset in enumerate(ONSETS):
        keys[onset + 50 : onset + 70] = 100 + number  # more codes than pictures have
    path = make(tmp_path / "x_raw.fif", {"Pictures": pulses(), "Keys": keys})
    picture_codes = {str(code) for code in CODES}
    header = read_header(
        path, RecordingKeys(), find_pictures=picture_codes.intersection
    )
    assert header.event_source == "channel Pictures"


def test_spans_and_cuts_are_read_in_samples(tmp_path):
    path = make(tmp_path / "recording.fif")
    raw = mne.io.read_raw_fif(path, verbose="ERROR")
    texts = ["BAD_blink", "cat", "boundary", "boundary", "7"]
    onsets_s, lengths_s = [1.0, 2.5, 3.0, 0.0, 4.0], [0.5, 0, 1.0, 0, 0]
    raw.set_annotations(mne.Annotations(onsets_s, lengths_s, texts))

    markers, spans = _read_annotations(raw, path)

    assert markers == [(1250, "cat"), (2000, "7")]
    # the first segment begins with the recording, which cuts nothing
    assert spans == [(500, 750, "BAD_blink"), (1500, 1500, "boundary")]
