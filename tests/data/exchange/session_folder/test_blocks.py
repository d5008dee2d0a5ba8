"""Blocks, positions, results and units of a session."""

import json
from dataclasses import replace

import numpy as np
import pytest

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.data.exchange import session_folder
from brainhive_cli.data.exchange.session_folder import SessionFolder, _find_scale
from brainhive_cli.data.files.bids_labels import read_simulated
from brainhive_cli.data.streams import StreamFormat

mne_bids = pytest.importorskip("mne_bids")
POSITIONS = np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [np.nan] * 3])
FORMAT = StreamFormat(
    "cap", ("Fz", "C,z", "T"), ("eeg", "eeg", "stim"), ("µV", "", ""), 10.0, POSITIONS
)


def add_numbered_samples(folder, start, stop):
    """Add samples whose values are their numbers, in chunks of three."""
    for start_of_chunk in range(start, stop, 3):
        numbers = np.arange(start_of_chunk, min(start_of_chunk + 3, stop), dtype=float)
        folder.add_samples(numbers[:, None] + np.zeros(3))


def read_run(root, run_number):
    """Read a block of the session with mne-bids."""
    path = mne_bids.BIDSPath("07", "01", "live", run=f"{run_number:02d}", root=root)
    return mne_bids.read_raw_bids(path.update(datatype="eeg"), verbose="ERROR")


@pytest.mark.parametrize(
    ("max_bytes", "first_samples", "lengths"),
    [(10**9, [52, 357], [203, 93]), (1200, [104, 156, 360], [52, 51, 90])],
)
def test_blocks_are_written_and_end_amid_pauses(
    monkeypatch, tmp_path, max_bytes, first_samples, lengths
):
    monkeypatch.setattr(session_folder, "MAX_BLOCK_BYTES", max_bytes)
    folder = SessionFolder(tmp_path, FORMAT, 7, "clip")
    add_numbered_samples(folder, 0, 130)  # nothing is kept before the first event
    folder.add_event(135, "S 1", "b/owl")
    folder.add_event(128, "S 2", "a/cat")
    add_numbered_samples(folder, 130, 200)
    folder.mark_gap(205)
    folder.add_event(203, "bad thing", "")
    add_numbered_samples(folder, 200, 420)
    folder.add_event(415, "S 1", "b/owl")
    folder.mark_gap(30)
    add_numbered_samples(folder, 420, 450)
    folder.close()

    runs = [read_run(tmp_path, 1 + number) for number in range(len(lengths))]
    # the third channel is a trigger, whose values have no unit
    assert [round(raw.get_data()[2, 0]) for raw in runs] == first_samples
    assert [raw.n_times for raw in runs] == lengths
    events = []
    for raw, first_sample in zip(runs, first_samples, strict=True):
        onsets = np.rint(raw.annotations.onset * 10).astype(int) + first_sample
        events += zip(onsets.tolist(), raw.annotations.description, strict=True)
    assert events == [
        (128, "S 2"),
        (135, "S 1"),
        (203, "event bad thing"),
        (205, "BAD boundary"),
        (415, "S 1"),
    ]
    # a run begins when its first sample was recorded, at 10 Hz
    duration = runs[-1].info["meas_date"] - runs[0].info["meas_date"]
    n_between = first_samples[-1] - first_samples[0]
    assert duration.total_seconds() == pytest.approx(n_between / 10)
    table = (tmp_path / "stimuli/stimuli.tsv").read_text().splitlines()
    assert table[1:] == ["stim-00001\ta/cat\tvideo", "stim-00002\tb/owl\tvideo"]
    (first_table, *_) = sorted(tmp_path.rglob("*_events.tsv"))
    assert "a/cat\tstim-00001" in first_table.read_text()


def test_a_session_without_pictures_lists_none(tmp_path):
    folder = SessionFolder(tmp_path, FORMAT, 7)
    folder.add_samples(np.zeros((20, 3)))
    folder.add_event(4, "S 1", "")
    folder.close()
    table = (tmp_path / "stimuli/stimuli.tsv").read_text()
    assert table == "stimulus_id\tfilename\ttype\n"
    description = json.loads((tmp_path / "dataset_description.json").read_text())
    assert description["Name"] == tmp_path.name
    assert "Simulated" not in description
    assert (tmp_path / ".bidsignore").read_text() == "results.jsonl\n"


def test_positions_are_written_if_all_are_known(tmp_path):
    unknown = POSITIONS.copy()
    unknown[1, 2] = np.inf
    for name, positions in (("all", POSITIONS), ("none", None), ("some", unknown)):
        root = tmp_path / name
        SessionFolder(root, replace(FORMAT, positions=positions), 7).close()
        tables = list(root.rglob("*electrodes.tsv"))
        assert (
            len(tables) == len(list(root.rglob("*coordsystem.json"))) == (name == "all")
        )
        if tables:
            lines = tables[0].read_text().splitlines()
            assert lines == ["name\tx\ty\tz", "Fz\t0.1\t0.2\t0.3", "C,z\t0.4\t0.5\t0.6"]


def test_results_are_lines_of_json(tmp_path):
    folder = SessionFolder(tmp_path, FORMAT, 7)
    folder.add_result({"name": "ä", "rank": np.int64(3), "scores": np.arange(2)})
    folder.close()
    (line,) = (tmp_path / "results.jsonl").read_text("utf-8").splitlines()
    assert line == '{"name": "ä", "rank": 3, "scores": [0, 1]}'


@pytest.mark.parametrize(
    ("kind", "unit", "scale"),
    [
        ("eeg", "µV", 1e-6),
        ("eeg", " ", 1e-6),
        ("eog", "mV", 1e-3),
        ("mag", "fT", 1e-15),
        ("grad", "fT/cm", 1e-13),
        ("stim", "V", 1.0),
        ("misc", "", 1.0),
    ],
)
def test_samples_are_scaled_to_the_units_of_mne(kind, unit, scale):
    assert _find_scale("A1", kind, unit) == pytest.approx(scale)


@pytest.mark.parametrize(("kind", "unit"), [("eeg", "fT"), ("mag", ""), ("ecg", "kg")])
def test_units_of_another_quantity_are_refused(kind, unit):
    """A magnetometer without a unit could be in T or fT."""
    with pytest.raises(BrainhiveError, match="A1"):
        _find_scale("A1", kind, unit)


def test_the_nearest_description_names_the_simulation(tmp_path):
    def describe(folder, **facts):
        path = tmp_path / folder / "dataset_description.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"Name": "x", **facts}))

    describe("", Simulated="outer")
    describe("a/b", Simulated="inner")
    describe("a/b/c")
    files = [tmp_path / "a/b/c/1.fif", tmp_path / "a/2.fif"]
    assert read_simulated(*files) == "inner, outer"
    assert read_simulated(files[1]) == "outer"
    assert read_simulated() == ""
    # descriptions are read up to five folders above a recording
    assert read_simulated(tmp_path / "x/2/3/4/file.fif") == "outer"
    assert read_simulated(tmp_path / "x/2/3/4/5/file.fif") == ""
