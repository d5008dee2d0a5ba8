"""Headers of recordings: events by their best witness, compared with the others, and spans without trials."""

import json

import numpy as np
import pytest

from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.data.recording_headers import compare_onsets, read_header

mne = pytest.importorskip("mne")
RATE_HZ, COUNT = 500, 20
ONSETS = (np.arange(COUNT) * 0.7 + 1 + np.random.default_rng(0).uniform(0, 0.3, COUNT)) * RATE_HZ
ONSETS = ONSETS.astype(int)
CODES = [9 + number % 7 for number in range(COUNT)]


def make(path, stims=(), annotated=(), scale=1e-6):
    """Save noise of two channels with channels of codes, and annotations (sample, text)."""
    samples = int(ONSETS[-1] + RATE_HZ)
    noise = np.random.default_rng(0).normal(size=(2, samples)) * 1e-5
    stims = dict(stims)
    types = ["eeg", "eeg", *("eeg" if name == "TRIG" else "stim" for name in stims)]
    info = mne.create_info(["Cz", "Pz", *stims], RATE_HZ, types)
    codes = [np.array(values) * (scale if name == "TRIG" else 1) for name, values in stims.items()]
    raw = mne.io.RawArray(np.vstack([noise, *codes]), info, verbose="ERROR")
    if annotated:
        onsets, texts = zip(*annotated, strict=True)
        raw.set_annotations(mne.Annotations(np.array(onsets) / RATE_HZ, 0.0, texts))
    raw.save(path, verbose="ERROR")
    return path


def pulses(width=20):
    """Codes at the onsets, and 0 between them."""
    codes = np.zeros(int(ONSETS[-1] + RATE_HZ), int)
    for at, code in zip(ONSETS, CODES, strict=True):
        codes[at : at + width] = code
    return codes


def drop_out(codes):
    codes[ONSETS[::3] + 5] = 0


def lack_a_bit(codes):
    codes[ONSETS] = np.array(CODES) & 8


def spike(codes):
    codes[ONSETS - 50] = 64


def repeat(codes):
    codes[:] = np.where(np.isin(np.arange(len(codes)), [*ONSETS, *ONSETS + 2]), codes, 0)


def leave_as_they_are(codes):
    pass


def rest_at_high_lines(codes):
    codes += 65280


def rest_below_zero(codes):
    codes -= 32768


@pytest.mark.parametrize(
    "change",
    (leave_as_they_are, drop_out, lack_a_bit, spike, repeat, rest_at_high_lines, rest_below_zero),
)
def test_a_pulse_is_one_event_whatever_its_lines_do_for_a_sample(tmp_path, change):
    codes, added = pulses(), {rest_at_high_lines: 65280, rest_below_zero: -32768}.get(change, 0)
    change(codes)
    header = read_header(make(tmp_path / "x_raw.fif", {"STI 014": codes}), "", "")
    assert header.events == tuple(
        (int(at), str(code + added)) for at, code in zip(ONSETS, CODES, strict=True)
    )
    assert bool(header.doubts) == (change in (drop_out, lack_a_bit, spike, repeat))
    assert (f"adds {added}" in header.events_from) == bool(added)


def test_pulses_of_one_sample_are_events(tmp_path):
    header = read_header(make(tmp_path / "x_raw.fif", {"STI 014": pulses(1)}), "", "")
    assert [at for at, _ in header.events] == ONSETS.tolist() and not header.doubts


@pytest.mark.parametrize("name", ("STI101", "TRIGGERS"))
def test_the_channel_that_combines_single_lines_is_read(tmp_path, name):
    lines = {f"STI00{bit + 1}": (pulses() >> bit & 1) * 5 for bit in range(4)}
    header = read_header(make(tmp_path / "x_raw.fif", {**lines, name: pulses()}), "", "")
    assert header.events_from == f"channel {name}" and [int(code) for _, code in header.events] == CODES


@pytest.mark.parametrize("scale", (1e-6, 1))
def test_codes_in_a_channel_called_eeg_are_read_in_its_own_unit(tmp_path, scale):
    header = read_header(make(tmp_path / "x_raw.fif", {"TRIG": pulses()}, scale=scale), "", "TRIG")
    assert [int(code) for _, code in header.events] == CODES
    with pytest.raises(BrainhiveError) as error:
        read_header(tmp_path / "x_raw.fif", "", "")
    assert error.value.hint.startswith("preparation.stim_channel=TRIG")


def test_a_marker_that_is_set_twice_is_one_event(tmp_path):
    twice = [(int(at) + late, "S  1") for at in ONSETS for late in (0, 1)]
    header = read_header(make(tmp_path / "x_raw.fif", annotated=twice), "", "")
    assert [at for at, _ in header.events] == ONSETS.tolist()
    assert header.doubts == ("events that repeat one within 10 ms count once, 20 times",)


def write_rows(path, onsets, more=None):
    """Write an events.tsv of pictures at onsets, with a column more."""
    columns = {"onset": [f"{at}" for at in onsets], "stim_file": ["cat.png"] * len(onsets), **(more or {})}
    rows = zip(*columns.values(), strict=True)
    path.write_text("\n".join("\t".join(map(str, row)) for row in (columns, *rows)) + "\n")


TIMES_S = ONSETS / RATE_HZ


@pytest.mark.parametrize(
    ("onsets", "delay_s", "parts"),
    (
        (TIMES_S, 0, ()),
        (TIMES_S + 7.3, 0, ("7.3 s later throughout", "delay_ms=-7300")),
        (TIMES_S + 7.3, -7.3, ()),
        (TIMES_S - 0.04, 0, ("0.04 s earlier throughout",)),
        ([0.01, *TIMES_S + 2], 0, ("rows without a marker: 1 of 21", "2 s later")),
        (TIMES_S[1:], 0, ()),
        (np.rint(TIMES_S), 0, ("whole seconds, up to 0.",)),
        (np.random.default_rng(1).uniform(0, 600, 20), 0, ()),
    ),
)
def test_onsets_of_a_table_are_compared_with_markers(onsets, delay_s, parts):
    markers = [(int(at), "S  1") for at in ONSETS]
    doubt = compare_onsets(np.array(onsets), markers, RATE_HZ, delay_s)
    assert bool(doubt) == bool(parts) and all(part in doubt for part in parts)


@pytest.mark.parametrize("witness", ("annotations", "codes"))
def test_a_table_that_its_witness_contradicts_is_doubted(tmp_path, witness):
    marked = [(int(at), "S  1") for at in ONSETS] if witness == "annotations" else []
    path = make(tmp_path / "x_raw.fif", {"STI 014": pulses()} if witness == "codes" else {}, marked)
    for shift_s in (3.2, 0):
        write_rows(tmp_path / "x_raw_events.tsv", TIMES_S + shift_s)
        assert bool(read_header(path, "", "").doubts) == bool(shift_s)


@pytest.mark.parametrize("absent", ("nan", "NaN", "", "n/a"))
def test_rows_without_an_onset_are_no_events(tmp_path, absent):
    write_rows(tmp_path / "x_raw_events.tsv", [absent, *TIMES_S])
    header = read_header(make(tmp_path / "x_raw.fif"), "", "")
    assert len(header.events) == COUNT and header.without_onset == ("cat.png",)


def test_a_decimal_comma_is_refused_and_a_column_without_entries_is_none(tmp_path):
    path = make(tmp_path / "x_raw.fif", annotated=[(100, "cat")])
    table = tmp_path / "x_raw_events.tsv"
    table.write_text("onset\tstim_file\n2,000\tcat.png\n")
    with pytest.raises(BrainhiveError, match=r"no onset in s in each row: .*'2,000'"):
        read_header(path, "", "")
    table.write_text("onset\tstim_file\n2.0\tn/a\n")
    assert read_header(path, "", "").events == ((100, "cat"),)
    with pytest.raises(BrainhiveError, match="has entries in no row of column stim_file"):
        read_header(path, "stim_file", "")


def test_a_delay_moves_all_events(tmp_path):
    path = make(tmp_path / "x_raw.fif", annotated=[(100, "cat")])
    assert read_header(path, "", "", delay_s=0.12).events == ((160, "cat"),)


@pytest.fixture
def bids(tmp_path):
    """A data set with one recording, that has markers, a boundary and a BAD span, and tables at the root."""
    pytest.importorskip("pybv")
    (tmp_path / "dataset_description.json").write_text(json.dumps({"Name": "x", "BIDSVersion": "1.8.0"}))
    path = tmp_path / "sub-01/eeg/sub-01_task-x_run-1_eeg.vhdr"
    path.parent.mkdir(parents=True)
    raw = mne.io.read_raw(make(tmp_path / "x_raw.fif"), preload=True, verbose="ERROR")
    marks = mne.Annotations([3, 5], [0, 0.5], ["New Segment/", "BAD_blink"])
    raw.set_annotations(marks).export(path, verbose="ERROR")
    (tmp_path / "x_raw.fif").unlink()
    write_rows(tmp_path / "task-x_events.tsv", TIMES_S, {"duration": [0.1] * COUNT})
    rows = ["name\ttype\tunits\tstatus", "Pz\tEEG\tµV\tbad", "Cz\tEEG\tµV\tgood"]
    (tmp_path / "sub-01/eeg/sub-01_task-x_run-1_channels.tsv").write_text("\n".join(rows) + "\n")
    return path


def test_bids_tables_of_the_root_count_beside_the_recording_s_own_interruptions(bids):
    header = read_header(bids, "", "")
    assert len(header.events) == COUNT and header.events_from == "task-x_events.tsv"
    assert [text for *_, text in header.bad_spans] == ["Comment/BAD_blink", "Comment/New Segment/"]
    assert header.bad == ("Pz",) and sorted(header.names) == ["Cz", "Pz"]


def test_a_table_of_another_task_is_not_inherited(bids):
    (bids.parents[2] / "task-x_events.tsv").rename(bids.parents[2] / "task-y_events.tsv")
    with pytest.raises((BrainhiveError, MissingData)):
        read_header(bids, "stim_file", "")


def test_edf_with_pauses_is_refused(tmp_path):
    pytest.importorskip("edfio")
    path = tmp_path / "x.edf"
    raw = mne.io.RawArray(
        np.random.default_rng(0).normal(size=(1, 3000)) * 1e-5, mne.create_info(1, 100, "eeg")
    )
    mne.export.export_raw(path, raw, verbose="ERROR")

    path.write_bytes(path.read_bytes().replace(b"EDF+C", b"EDF+D"))
    with pytest.raises(MissingData, match=r"EDF\+D, with pauses") as error:
        read_header(path, "", "")
    assert "mne opens it and saves it as .fif" in error.value.hint


def test_names_of_events_outside_latin_1_are_read_from_fif_as_they_were_written(tmp_path):
    names = ["café", "cafe\u0301", "脸", "a&amp;b", "R&#1;D"]  # the last is no letter
    path = make(tmp_path / "a_raw.fif", annotated=[*zip(ONSETS.tolist(), names, strict=False)])
    assert [text for _, text in read_header(path, "", "").events] == names
