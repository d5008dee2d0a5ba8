"""Live sessions, read by mne-bids and prepare, also after a killed process."""

import json
import os
import resource
import subprocess
import sys
import warnings
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.core.results.measurements import SIMULATED
from brainhive_cli.data.exchange.growing_run import GrowingRun
from brainhive_cli.data.exchange.session_folder import PAUSE_S, SessionFolder
from brainhive_cli.data.files.bids_labels import read_simulated
from brainhive_cli.data.stores import SignalStore, describe_store
from brainhive_cli.data.streams import StreamFormat

mne = pytest.importorskip("mne")
mne_bids = pytest.importorskip("mne_bids")

RATE_HZ = 250.0
NAMES = ("Fz", "Cz", "Pz", "Oz", "HEOG", "Trigger")
FORMAT = StreamFormat(
    "cap",
    NAMES,
    ("eeg", "eeg", "eeg", "eeg", "eog", "stim"),
    tuple(["µV"] * 5) + ("",),
    RATE_HZ,
)
PICTURES = (
    "cat/a picture",
    "cat/größe 猫",
    "dog/tab\there",
    'dog/"quoted" one',
    "edge/bad one",
    "owl/5,7 %=x",
)


@pytest.fixture
def pictures(home):
    """Write a folder of pictures whose names are difficult in tables."""
    random = np.random.default_rng(0)
    for number, name in enumerate(PICTURES):
        path = (
            home
            / "data/image-folder"
            / ("test" if number > 3 else "train")
            / f"{name}.png"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (8, 8, 3), np.uint8)).resize(
            (32, 32)
        ).save(path)
    return home


STEPS = (
    "preparation.whiten=no",
    "preparation.baseline=false",
    "preparation.epoch_ms=[-100,200]",
)
STEPS += ("preparation.keep_ms=[-100,200]",)
"""Keys that keep trials of 75 samples unchanged."""


def image_id(name):
    return f"{'test' if PICTURES.index(name) > 3 else 'train'}/{name}"


def draw_samples(count=2000, channels=6):
    return (
        40 * np.random.default_rng(1).normal(size=(count, channels)) + 5000
    )  # an offset, as amplifiers have


def add_in_chunks(folder, samples):
    """Add samples in chunks of 1 to 60."""
    random = np.random.default_rng(2)
    start = 0
    while start < len(samples):
        chunk = samples[start : start + int(random.integers(1, 60))]
        folder.add_samples(chunk)
        start += len(chunk)


def read_run(root, run_number=1, datatype="eeg"):
    """Read a block with mne-bids, without a warning."""
    path = mne_bids.BIDSPath(
        "01", "01", "live", run=f"{run_number:02d}", root=root, datatype=datatype
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return mne_bids.read_raw_bids(path, verbose="WARNING")


@pytest.mark.parametrize("column", ["", "stimulus_id", "stim_file"])
def test_a_session_becomes_the_epochs_that_are_cut_by_hand(pictures, column):
    samples = draw_samples()
    root = pictures / "session"
    onsets = 60 + 90 * np.arange(20) + np.arange(20) % 7
    shown_pictures = [PICTURES[number % len(PICTURES)] for number in range(20)]
    folder = SessionFolder(root, FORMAT, subject=1)
    for number, (onset, name) in enumerate(
        zip(onsets.tolist(), shown_pictures, strict=True)
    ):
        if number == 10:
            # half of the events come before their samples
            add_in_chunks(folder, samples[:1000])
        folder.add_event(onset, f"S {number}", image_id(name))
    add_in_chunks(folder, samples[1000:])
    folder.close()

    table = (root / "stimuli/stimuli.tsv").read_text().splitlines()
    assert table[0].split("\t") == ["stimulus_id", "filename", "type"]
    assert table[1] == "stim-00001\ttrain/cat/a picture\timage"
    assert len(table) == 1 + len(PICTURES)
    (events,) = root.rglob("*_events.tsv")
    assert "stim_file\tstimulus_id" in events.read_text().splitlines()[0]

    command = ["prepare", "--from", "recording", f"preparation.root={root}"] + list(
        STEPS
    )
    command += [f"preparation.column={column}"] * bool(column)
    result = CliRunner().invoke(app, command)

    assert result.exit_code == 0, result.output
    assert "warn" not in result.output.lower()
    store = SignalStore.open(pictures / "signals/image-folder/default/sub-01.h5")
    assert SIMULATED not in describe_store(store)["caveats"]
    stored = 0
    for recording in store.splits.values():
        for row, name in enumerate(recording.pictures):
            onsets_of_picture = [
                onset
                for onset, picture in zip(onsets, shown_pictures, strict=True)
                if image_id(picture) == name
            ]
            # [C, T]
            by_hand = [
                samples.astype(np.float32)[onset - 25 : onset + 50, :4].T
                for onset in onsets_of_picture
            ]
            assert recording.repetitions[row] == len(onsets_of_picture)
            trials = recording.signal[recording.find_trials([row])]
            np.testing.assert_allclose(trials, by_hand, rtol=1e-6)
            stored += len(onsets_of_picture)
    assert stored == 20


def test_a_session_is_not_written_over(tmp_path):
    folder = SessionFolder(tmp_path, FORMAT, 1)
    folder.add_samples(draw_samples(10))
    folder.add_event(5, "S 1", "")
    folder.close()
    contents = {
        path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()
    }
    with pytest.raises(BrainhiveError, match="exists"):
        SessionFolder(tmp_path, FORMAT, 1)
    assert {
        path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()
    } == contents


def start_python(code, folder):
    """Run code in a new process with the same import paths."""
    paths = os.pathsep.join(filter(None, sys.path))
    return subprocess.Popen(
        [sys.executable, "-c", code, str(folder)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": paths},
    )


RUNNING = """
import sys
import time
from pathlib import Path
import tests.data.exchange.test_session_folder as tested
from brainhive_cli.data.exchange.session_folder import SessionFolder

folders = []
for name in ("FORMAT", "MEG"):
    format = getattr(tested, name)
    folder = SessionFolder(Path(sys.argv[1], name), format, 1)
    rate_hz, channels = int(format.rate_hz), len(format.channels)
    samples = tested.draw_samples(20_000, channels)
    for at in range(0, 20 * rate_hz, rate_hz // 10):
        folder.add_samples(samples[at : at + rate_hz // 10])
        if at % rate_hz == 0:
            folder.add_event(at, "S 1", "cat")
            folder.add_result({"at": at})
        time.sleep(0.003)
    folders.append(folder)
print(at, flush=True)
time.sleep(60)
"""


@pytest.mark.nightly
def test_a_killed_process_loses_only_the_last_seconds(tmp_path):
    child = start_python(RUNNING, tmp_path)
    child.stdout.readline()
    child.kill()
    child.wait()
    child.stdout.close()

    scales = {"FORMAT": [1e-6] * 5 + [1], "MEG": [1e-15, 1e-13, 1]}
    for name, format in {"FORMAT": FORMAT, "MEG": MEG}.items():
        raw = read_run(tmp_path / name, datatype="meg" if name == "MEG" else "eeg")
        assert raw.n_times > 10 * format.rate_hz
        samples = draw_samples(20_000, len(format.channels)).astype(np.float32)
        expected = samples[: raw.n_times] * scales[name]
        np.testing.assert_allclose(raw.get_data().T, expected, rtol=1e-6)
        seconds = range(np.ceil(raw.n_times / format.rate_hz).astype(int))
        assert raw.annotations.onset.tolist() == list(seconds)
        # results are written at once
        lines = (tmp_path / name / "results.jsonl").read_text().splitlines()
        rate_hz = int(format.rate_hz)
        samples_of_results = [json.loads(line)["at"] for line in lines]
        assert samples_of_results == list(range(0, 20 * rate_hz, rate_hz))


@pytest.mark.parametrize("name", ["FORMAT", "MEG"])
def test_a_write_that_fails_leaves_the_samples_before(tmp_path, name):
    format = {"FORMAT": FORMAT, "MEG": MEG}[name]
    is_meg = name == "MEG"
    path = mne_bids.BIDSPath(
        "01", "01", "live", run="01", root=tmp_path, datatype="meg" if is_meg else "eeg"
    )
    channels = len(format.channels)
    info = mne.create_info(
        list(format.channels), format.rate_hz, list(format.channel_types)
    )
    growing_run = GrowingRun(path, info, datetime.now(UTC), np.ones(channels))
    samples = draw_samples(3000, channels).astype(np.float32)
    growing_run.append(samples[:1000], [(0, 7, {"trial_type": "S 7"})])

    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = sum(file.stat().st_size for file in tmp_path.rglob("*_run-01_?eg.?[ei]?"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 5000, limit[1]))
    try:
        with pytest.raises(OSError, match="large"):
            growing_run.append(samples[1000:2000], [(1500, 1, {})])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert len(read_run(tmp_path, datatype=path.datatype)) == 1000

    growing_run.append(samples[2000:], [(1500, 7, {"trial_type": "S 7"})])
    growing_run.finish()
    raw = read_run(tmp_path, datatype=path.datatype)
    expected = np.concatenate([samples[:1000], samples[2000:]]).T
    np.testing.assert_allclose(raw.get_data(), expected, rtol=1e-6)
    (sidecar,) = tmp_path.rglob("*_run-01_?eg.json")
    assert json.loads(sidecar.read_text())["RecordingDuration"] == 2000 / format.rate_hz
    assert raw.annotations.onset.tolist() == [0, 1500 / format.rate_hz]


MEG = StreamFormat(
    "scanner",
    ("MEG1", "MEG2", "STI"),
    ("mag", "grad", "stim"),
    ("fT", "fT/cm", ""),
    rate_hz=1000.0,
    positions=np.array([[0.01, 0.02, 0.1], [0.03, 0.0, 0.1], [np.nan] * 3]),
)


def test_meg_becomes_a_fif_when_it_is_closed(tmp_path):
    samples = draw_samples(1500, 3)
    folder = SessionFolder(tmp_path, MEG, 1)
    add_in_chunks(folder, samples)
    folder.add_event(700, "S 1", "cat")
    folder.mark_gap(900)
    folder.close()
    folder.close()

    raw = read_run(tmp_path, datatype="meg")
    assert raw.get_channel_types() == ["mag", "grad", "stim"]
    expected = samples.astype(np.float32) * [1e-15, 1e-13, 1]
    np.testing.assert_allclose(raw.get_data().T, expected, rtol=1e-6)
    np.testing.assert_allclose(
        raw.info["chs"][0]["loc"][:3], MEG.positions[0], atol=1e-7
    )
    assert raw.annotations.description.tolist() == ["S 1", "BAD boundary"]
    assert np.rint(raw.annotations.onset * 1000).tolist() == [700, 900]


def test_blocks_become_runs_and_no_trial_crosses_a_gap(pictures, run_command):
    root = pictures / "session"
    length = 2 * round(PAUSE_S * RATE_HZ)
    # names that files cannot hold
    strange = ("[Comment]", "a\nb", "a b", "a_b", "e,\\1", "n/a")
    samples = draw_samples(3 * length)
    onsets = [500, length + 500, 2 * length + 500]
    folder = SessionFolder(
        root, replace(FORMAT, simulated="brainhive demo", channels=strange), 1
    )
    for start, onset in zip(range(0, 3 * length, length), onsets, strict=True):
        folder.add_samples(samples[start : start + length])
        folder.add_event(onset, "S 1", image_id(PICTURES[0]))
    folder.mark_gap(2 * length + 800)
    folder.add_event(2 * length + 790, "S 1", image_id(PICTURES[0]))
    folder.close()
    assert len(list(root.rglob("*.vhdr"))) == 3
    assert read_run(root).ch_names == [
        "_Comment_",
        "a_b-0",
        "a b",
        "a_b-1",
        "e,_1",
        "_",
    ]

    table = run_command(
        "prepare", "preparation.kind=recording", f"preparation.root={root}", *STEPS
    ).tables[0]

    assert table.rows == ((1, "train", 1, "3", 3, "1 BAD boundary"),)
    store = SignalStore.open(pictures / "signals/image-folder/default/sub-01.h5")
    trials = store["train"]
    assert list(trials.space.names) == ["_Comment_", "a_b-0", "a b", "a_b-1"]
    assert trials.sessions.tolist() == [0, 0, 0]
    assert trials.runs.tolist() == [0, 1, 2]
    # [C, T]
    by_hand = [
        samples.astype(np.float32)[onset - 25 : onset + 50, :4].T for onset in onsets
    ]
    np.testing.assert_allclose(trials.signal[:], by_hand, rtol=1e-6)
    assert describe_store(store)["caveats"] == [SIMULATED]
    block = root / "sub-01/ses-01/eeg/sub-01_ses-01_task-live_run-01_eeg.vhdr"
    assert read_simulated(block) == "brainhive demo"
