"""Blocks of a session, compared with recorded numbers."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.data.exchange import session_folder
from brainhive_cli.data.exchange.growing_run import FLOAT32, _make_tag
from brainhive_cli.data.exchange.session_folder import SessionFolder, _find_scale
from brainhive_cli.data.files.bids_labels import read_simulated
from brainhive_cli.data.streams import StreamFormat
from tests.tools.recorded_numbers import Recorded

pytest.importorskip("mne_bids")
POSITIONS = np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [np.nan] * 3])
FORMAT = StreamFormat(
    "cap", ("Fz", "C,z", "T"), ("eeg", "eeg", "stim"), ("µV", "", ""), 10.0, POSITIONS
)


class Run:
    """Stand-in of a run that keeps the appended samples and events."""

    def __init__(self, path: Any, info: Any, began: Any, scales: Any) -> None:
        self.run, self.scales, self.appended = path.run, scales, list[Any]()
        self.began = began
        RUNS.append(self)

    def append(self, samples: Any, rows: Any) -> None:
        self.appended.append([len(samples), samples[0, 0], rows])

    def finish(self) -> None:
        self.appended.append("finished after 0 more")


RUNS: list[Run] = []


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    monkeypatch.setattr(session_folder, "GrowingRun", Run)
    RUNS.clear()
    return RUNS


def add(folder: SessionFolder, start: int, stop: int, size: int = 3) -> None:
    """Add samples with their numbers as values, and wait until they are written."""
    for at in range(start, stop, size):
        numbers = np.arange(at, min(at + size, stop), dtype=float)
        folder.add_samples(numbers[:, None] + np.zeros(3))
        folder._writing.result()


@pytest.mark.parametrize("max_bytes", [10**9, 1200])
def test_blocks_are_written_and_end_amid_pauses(
    recorded: Recorded,
    runs: list[Run],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    max_bytes: int,
) -> None:
    monkeypatch.setattr(session_folder, "MAX_BLOCK_BYTES", max_bytes)
    folder = SessionFolder(tmp_path, FORMAT, 7, "clip")
    add(folder, 0, 130)  # before the first event nothing is kept
    folder.add_event(135, "S 1", "b/owl")
    folder.add_event(128, "S 2", "a/cat")
    add(folder, 130, 200)
    folder.mark_gap(205)
    folder.add_event(203, "bad thing", "")
    add(folder, 200, 420)
    folder.add_event(415, "S 1", "b/owl")
    folder.mark_gap(30)
    add(folder, 420, 450)
    folder.close()
    recorded(
        runs=[[run.run, run.scales, run.appended] for run in runs],
        table=(tmp_path / "stimuli/stimuli.tsv").read_text(),
    )
    assert runs[0].appended[0][2][0][2]["trial_type"] == "S 2"
    # a run begins when its first sample was recorded, at 10 Hz
    first, last = runs[0], runs[-1]
    samples = last.appended[0][1] - first.appended[0][1]
    seconds = (last.began - first.began).total_seconds()
    assert len(runs) > 1 and seconds == pytest.approx(samples / 10)
    table = (tmp_path / "stimuli/stimuli.tsv").read_text().splitlines()
    assert table[1:] == ["stim-00001\ta/cat\tvideo", "stim-00002\tb/owl\tvideo"]
    columns = [row[2] for run in runs for part in run.appended[:-1] for row in part[2]]
    cell = {"trial_type": "event bad thing", "stim_file": "n/a", "stimulus_id": "n/a"}
    assert cell in columns


def test_a_session_without_pictures_lists_none(runs: list[Run], tmp_path: Path) -> None:
    folder = SessionFolder(tmp_path, FORMAT, 7)
    folder.add_samples(np.zeros((20, 3)))
    folder.add_event(4, "S 1", "")
    folder.close()
    table = (tmp_path / "stimuli/stimuli.tsv").read_text()
    assert table == "stimulus_id\tfilename\ttype\n"
    about = json.loads((tmp_path / "dataset_description.json").read_text())
    assert about["Name"] == tmp_path.name and "Simulated" not in about
    assert (tmp_path / ".bidsignore").read_text() == "results.jsonl\n"


def test_positions_are_written_if_all_are_known(
    runs: list[Run], tmp_path: Path
) -> None:
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


def test_results_are_lines_of_json(runs: list[Run], tmp_path: Path) -> None:
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
def test_samples_are_scaled_to_the_units_of_mne(
    kind: str, unit: str, scale: float
) -> None:
    assert _find_scale("A1", kind, unit) == pytest.approx(scale)


@pytest.mark.parametrize(("kind", "unit"), [("eeg", "fT"), ("mag", ""), ("ecg", "kg")])
def test_units_of_another_quantity_are_refused(kind: str, unit: str) -> None:
    with pytest.raises(BrainhiveError):
        _find_scale("A1", kind, unit)


def test_the_nearest_description_names_the_simulation(tmp_path: Path) -> None:
    def describe(folder: str, **about: str) -> None:
        path = tmp_path / folder / "dataset_description.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"Name": "x", **about}))

    describe("", Simulated="outer")
    describe("a/b", Simulated="inner")
    describe("a/b/c")
    files = [tmp_path / "a/b/c/1.fif", tmp_path / "a/2.fif"]
    assert read_simulated(*files) == "inner, outer"
    assert read_simulated(files[1]) == "outer" and read_simulated() == ""
    # descriptions are read up to five folders above a recording
    assert read_simulated(tmp_path / "x/2/3/4/file.fif") == "outer"
    assert read_simulated(tmp_path / "x/2/3/4/5/file.fif") == ""


def test_a_tag_of_a_fif_file_is_sixteen_bytes() -> None:
    expected = bytes([0, 0, 1, 44, 0, 0, 0, 4, 0, 0, 1, 1, 0, 0, 0, 0])
    assert _make_tag(FLOAT32, 257) == expected
