"""A session that is saved while it runs: read by mne-bids and prepare, also after the process was killed."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import warnings
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.measurements import SIMULATED
from brainhive_cli.data.electrodes import standard_positions
from brainhive_cli.data.exchange.session_folder import SessionFolder, read_simulated
from brainhive_cli.data.signal_stores import describe_store
from brainhive_cli.data.stores.recordings import SignalStore
from brainhive_cli.data.streams import StreamFormat

mne = pytest.importorskip("mne")
mne_bids = pytest.importorskip("mne_bids")

RATE_HZ = 250.0
NAMES = ("Fz", "Cz", "Pz", "Oz", "HEOG", "Trigger")
FORMAT = StreamFormat("cap", NAMES, ("eeg", "eeg", "eeg", "eeg", "eog", "stim"), (*["µV"] * 5, ""), RATE_HZ)
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
    """A folder of pictures with names that tables do not like."""
    random = np.random.default_rng(0)
    for number, name in enumerate(PICTURES):
        path = home / "data/image-folder" / ("test" if number > 3 else "train") / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (8, 8, 3), np.uint8)).resize((32, 32)).save(path)
    return home


STEPS = ("preparation.whiten=no", "preparation.baseline=false", "preparation.epoch_ms=[-100,200]")
STEPS += ("preparation.keep_ms=[-100,200]",)
"""Trials of 75 samples at the rate of the recording, as they are."""


def image_id(name):
    return f"{'test' if PICTURES.index(name) > 3 else 'train'}/{name}"


def draw_samples(count=2000, channels=6):
    return (
        40 * np.random.default_rng(1).normal(size=(count, channels)) + 5000
    )  # an offset, as amplifiers have


def add_in_chunks(folder, samples, start=0):
    """Add samples in chunks of 1 to 60, with times of the stream's clock."""
    random, at = np.random.default_rng(2), 0
    while at < len(samples):
        chunk = samples[at : at + int(random.integers(1, 60))]
        folder.add(chunk, 1e5 + (start + at + np.arange(len(chunk))) / RATE_HZ)
        at += len(chunk)


def read(root, session=1, datatype="eeg"):
    """Read a session with mne-bids, without a warning."""
    path = mne_bids.BIDSPath("01", f"{session:02d}", "live", root=root, datatype=datatype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "TSV file is empty")  # that of events, where there are none
        return mne_bids.read_raw_bids(path, verbose="WARNING")


def test_a_session_becomes_the_epochs_that_are_cut_by_hand(pictures):
    samples, root = draw_samples(), pictures / "session"
    onsets = 60 + 90 * np.arange(20) + np.arange(20) % 7
    shown = [PICTURES[number % len(PICTURES)] for number in range(20)]
    folder = SessionFolder(root, FORMAT, subject=1)
    for number, (onset, name) in enumerate(zip(onsets.tolist(), shown, strict=True)):
        if number == 10:
            add_in_chunks(folder, samples[:1000])  # half of the events come before their samples
        folder.add_event(onset, f"S {number}", image_id(name))
    add_in_chunks(folder, samples[1000:], 1000)
    folder.close()

    command = ["prepare", "--from", "recording", f"preparation.root={root}", *STEPS]
    told = CliRunner().invoke(app, command)

    assert told.exit_code == 0, told.output
    assert "warn" not in told.output.lower()
    store = SignalStore.open(pictures / "signals/image-folder/default/sub-01.h5")
    assert SIMULATED not in describe_store(store)["caveats"]
    stored = 0
    for recording in store.splits.values():
        for row, name in enumerate(recording.image_ids):
            at = [onset for onset, picture in zip(onsets, shown, strict=True) if image_id(picture) == name]
            by_hand = [samples.astype(np.float32)[onset - 25 : onset + 50, :4].T for onset in at]  # [C, T]
            assert recording.repetitions[row] == len(at)
            trials = recording.signal[row : row + 1][0, : len(at)]
            np.testing.assert_allclose(trials, by_hand, rtol=1e-6)
            stored += len(at)
    assert stored == 20


def test_mne_reads_samples_events_and_types_as_they_were_added(tmp_path):
    samples = draw_samples()
    folder = SessionFolder(tmp_path, FORMAT, 1)
    add_in_chunks(folder, samples)
    for sample in (0, 777, 1999):
        folder.add_event(sample, "edge, or bad", "")
    folder.close()

    raw = read(tmp_path)
    factors = np.array([1e-6] * 5 + [1.0])
    np.testing.assert_allclose(raw.get_data().T, samples.astype(np.float32) * factors, rtol=1e-6)
    assert raw.get_channel_types() == [*FORMAT.kinds]
    assert np.rint(raw.annotations.onset * RATE_HZ).tolist() == [0, 777, 1999]
    assert {*raw.annotations.description} == {"event edge, or bad"}  # which mne would drop trials of
    sidecar = json.loads((tmp_path / "sub-01/ses-01/eeg/sub-01_ses-01_task-live_eeg.json").read_text())
    assert sidecar["RecordingDuration"] == 8
    assert sidecar["EffectiveSamplingFrequency"] == pytest.approx(RATE_HZ, rel=1e-6)


@pytest.mark.parametrize("rate_hz", [128.0, 512.0, 600.615, 1000 / 3, 1017.2526, 2048.0])
def test_events_stay_at_their_samples_at_any_rate(tmp_path, rate_hz):
    folder = SessionFolder(tmp_path, replace(FORMAT, rate_hz=rate_hz), 1)
    folder.add(draw_samples(5000), np.arange(5000) / rate_hz)
    at = [0, *range(3, 4999, 97), 4999]
    for sample in at:
        folder.add_event(sample, "x", "")
    folder.close()
    raw = read(tmp_path)
    assert np.rint(raw.annotations.onset * raw.info["sfreq"]).astype(int).tolist() == at
    assert raw.info["sfreq"] == pytest.approx(rate_hz, rel=1e-12)


STRANGE = ("[Comment]", "a\nb", "a b", "a_b", "e,\\1", "n/a")


def test_names_of_channels_that_the_files_cannot_hold_are_changed_and_kept_apart(pictures, go):
    root = pictures / "session"
    folder = SessionFolder(root, replace(FORMAT, channels=STRANGE), 1)
    add_in_chunks(folder, draw_samples())
    folder.add_event(500, "S 1", image_id(PICTURES[0]))
    folder.close()

    written = ["_Comment_", "a_b_", "a b", "a_b", "e,_1", "n_a"]
    assert read(root).ch_names == written
    table = (root / "sub-01/ses-01/eeg/sub-01_ses-01_task-live_channels.tsv").read_text().splitlines()
    columns = [row.split("\t") for row in table]
    assert columns[0] == ["name", "type", "units", "original_name"]
    assert [row[0] for row in columns[1:]] == written
    assert tuple(json.loads(f'"{row[3]}"') for row in columns[1:]) == STRANGE
    go("prepare", "preparation.kind=recording", f"preparation.root={root}", *STEPS)
    store = SignalStore.open(pictures / "signals/image-folder/default/sub-01.h5")
    assert [*next(iter(store.splits.values())).space.names] == written[:4]


@pytest.mark.parametrize(
    "name", ["\x00", "\u2028", "\ud800", "x\u202ey", '"', "\\1", ";x", "[Channel Infos]", " "]
)
def test_a_channel_of_any_name_can_be_read_back(tmp_path, name):
    folder = SessionFolder(tmp_path, replace(FORMAT, channels=(name, *FORMAT.channels[1:])), 1)
    add_in_chunks(folder, draw_samples(100))
    folder.add_event(50, name, name)
    folder.close()
    assert read(tmp_path).ch_names[1:] == [*FORMAT.channels[1:]]


def test_an_event_without_samples_is_no_sign_of_damage(tmp_path):
    folder = SessionFolder(tmp_path, FORMAT, 1)
    folder.add_event(50, "soon", "")
    folder.add_event(5000, "never", "")
    folder.add_event(-3, "before", "")
    folder.add(draw_samples(100), np.arange(100) / RATE_HZ)
    assert read(tmp_path).annotations.description.tolist() == ["soon"]
    folder.close()


def test_no_trial_is_cut_across_a_gap(pictures, go):
    root = pictures / "session"
    folder = SessionFolder(root, FORMAT, 1)
    add_in_chunks(folder, draw_samples())
    folder.mark_gap(1000)
    for onset in (100, 950, 990, 1200):
        folder.add_event(onset, "S 1", image_id(PICTURES[0]))
    folder.close()
    table = go("prepare", "preparation.kind=recording", f"preparation.root={root}", *STEPS).tables[0]
    assert table.rows == ((1, "train", 1, "2", 2, "2 BAD boundary"),)
    markers = root / "sub-01/ses-01/eeg/sub-01_ses-01_task-live_eeg.vmrk"
    assert "=New Segment,,1001,1,0" in markers.read_text()


def test_simulated_signals_stay_known_as_simulated(pictures, go):
    root = pictures / "session"
    folder = SessionFolder(root, replace(FORMAT, simulated="brainhive demo"), 1)
    add_in_chunks(folder, draw_samples())
    folder.add_event(500, "S 1", image_id(PICTURES[0]))
    folder.close()
    go("prepare", "preparation.kind=recording", f"preparation.root={root}", "preparation.whiten=no")
    store = SignalStore.open(pictures / "signals/image-folder/default/sub-01.h5")
    assert describe_store(store)["caveats"] == [SIMULATED]
    assert read_simulated(root / "sub-01/ses-01/eeg/sub-01_ses-01_task-live_eeg.vhdr") == "brainhive demo"


def test_simulated_and_recorded_sessions_are_not_mixed(tmp_path):
    SessionFolder(tmp_path, FORMAT, 1).close()
    with pytest.raises(BrainhiveError, match="holds recorded sessions, and this one is simulated"):
        SessionFolder(tmp_path, replace(FORMAT, simulated="brainhive demo"), 1, session=2)


def test_a_second_session_keeps_the_first(tmp_path):
    for subject, session in ((1, 1), (1, 2), (2, 1)):
        folder = SessionFolder(tmp_path, FORMAT, subject, session=session)
        add_in_chunks(folder, draw_samples(300) + session)
        folder.add_result({"best": ["a\tb", "猫"], "rank": np.int64(3), "margin": np.float32(0.5)})
        folder.close()
    assert (tmp_path / "participants.tsv").read_text() == "participant_id\nsub-01\nsub-02\n"
    for session in (1, 2):
        assert read(tmp_path, session).get_data()[0, 0] * 1e6 == pytest.approx(
            np.float32(draw_samples(300)[0, 0] + session)
        )
    results = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [(result["subject"], result["session"]) for result in results] == [(1, 1), (1, 2), (2, 1)]
    assert results[0]["best"] == ["a\tb", "猫"] and results[0]["rank"] == 3


def test_a_participant_is_added_to_a_table_of_others(tmp_path):
    (tmp_path / "participants.tsv").write_text("participant_id\tage\tsex\nsub-07\t31\tF")
    SessionFolder(tmp_path, FORMAT, 1).close()
    rows = (tmp_path / "participants.tsv").read_text().splitlines()
    assert rows == ["participant_id\tage\tsex", "sub-07\t31\tF", "sub-01\tn/a\tn/a"]


def test_a_session_is_not_written_over(tmp_path):
    folder = SessionFolder(tmp_path, FORMAT, 1)
    folder.add(draw_samples(10), np.arange(10) / RATE_HZ)
    sidecar = tmp_path / "sub-01/ses-01/eeg/sub-01_ses-01_task-live_eeg.json"  # has the duration at the end
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(BrainhiveError, match="session 1 is not written over") as refused:
        SessionFolder(tmp_path, FORMAT, 1)
    folder.close()
    assert refused.value.hint == "save it as another session, or in another folder"
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert {path for path in after if after[path] != before[path]} == {sidecar}


KILLED = """
import sys
from pathlib import Path
import numpy as np
from test_session_folder import FORMAT, RATE_HZ, draw_samples
from brainhive_cli.data.exchange.session_folder import SessionFolder

folder, samples = SessionFolder(Path(sys.argv[1]), FORMAT, 1), draw_samples()
for at in range(0, 100_000, 7):
    row = np.arange(at, at + 7) % len(samples)
    folder.add(samples[row], (at + np.arange(7)) / RATE_HZ)
    folder.add_event(at, f"S {at}", "cat")
    folder.add_result({"at": at})
    if at == 700:
        print("running", flush=True)
"""


def test_a_killed_process_leaves_a_session_that_can_be_read(tmp_path):
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert child.stdout.readline() == b"running\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()

    raw = read(tmp_path)
    expected = draw_samples().astype(np.float32)[np.arange(raw.n_times) % 2000, :4]
    np.testing.assert_allclose(raw.get_data()[:4].T * 1e6, expected, rtol=1e-6)
    assert raw.n_times >= 700
    onsets = np.rint(raw.annotations.onset * RATE_HZ).astype(int).tolist()
    assert onsets == [*range(0, raw.n_times, 7)][: len(onsets)] and len(onsets) >= 100
    results = [json.loads(line)["at"] for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert results == [*range(0, 7 * len(results), 7)]


@contextmanager
def files_of_at_most(count):
    """Let the system refuse to write more bytes to a file, as it does where a disk is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_session_that_a_full_disk_stopped_at_once_can_be_begun_again(tmp_path):
    SessionFolder(tmp_path, FORMAT, 1).close()
    with files_of_at_most(150), pytest.raises(BrainhiveError, match="cannot be saved: File too large"):
        SessionFolder(tmp_path, FORMAT, 1, session=2)
    SessionFolder(tmp_path, FORMAT, 1, session=2).close()
    sidecar = tmp_path / "sub-01/ses-02/eeg/sub-01_ses-02_task-live_eeg.json"
    assert json.loads(sidecar.read_text())["TaskName"] == "live"


def test_a_full_disk_is_one_error_and_leaves_whole_samples(tmp_path):
    folder = SessionFolder(tmp_path, FORMAT, 1)
    folder.add(draw_samples(100), np.arange(100) / RATE_HZ)
    with (
        files_of_at_most(3000),  # 100 samples take 2400
        pytest.raises(BrainhiveError, match="the session is no longer saved: File too large") as full,
    ):
        folder.add(draw_samples(100), np.arange(100) / RATE_HZ)
    assert full.value.hint.startswith("free space")
    with pytest.raises(BrainhiveError, match="no longer saved"):  # else events would be at other samples
        folder.add(draw_samples(1), np.zeros(1))
    folder.close()
    assert read(tmp_path).n_times == 100


def test_a_folder_that_vanished_is_one_error(tmp_path):
    folder = SessionFolder(tmp_path / "session", FORMAT, 1)
    shutil.rmtree(tmp_path / "session")
    with pytest.raises(BrainhiveError, match="no longer saved: it was removed"):
        folder.add(draw_samples(1), np.zeros(1))
    folder.close()


def test_a_folder_that_cannot_be_made_is_one_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BrainhiveError, match="the session cannot be saved: Not a directory"):
        SessionFolder(tmp_path / "file/session", FORMAT, 1)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"units": ("counts", *FORMAT.units[1:])}, "channel Fz of type eeg has the unit counts"),
        ({"kinds": ("mag", *FORMAT.kinds[1:])}, "channel Fz of type mag has the unit µV"),
        ({"channels": ("Cz", *FORMAT.channels[1:])}, "channels have no name, or one of others"),
        ({"rate_hz": 0.0}, "stream cap has no sampling rate"),
    ],
)
def test_what_the_files_cannot_hold_is_refused_before_anything_is_written(tmp_path, change, message):
    with pytest.raises(BrainhiveError, match=re.escape(message)):
        SessionFolder(tmp_path / "session", replace(FORMAT, **change), 1)
    assert not (tmp_path / "session").exists()


@pytest.mark.parametrize(
    "unit, volts", [("uV", 1e-6), ("μV", 1e-6), ("microvolts", 1e-6), ("", 1e-6), ("mV", 1e-3), ("Volt", 1.0)]
)
def test_units_of_streams_are_read_as_volts(tmp_path, unit, volts):
    folder = SessionFolder(tmp_path, replace(FORMAT, units=(*[unit] * 5, "none")), 1)
    folder.add(np.ones((10, 6)), np.arange(10) / RATE_HZ)
    folder.close()
    assert read(tmp_path).get_data()[:, 0] == pytest.approx([*[volts] * 5, 1], rel=1e-6)


def test_positions_of_electrodes_come_back(tmp_path):
    positions = np.vstack([standard_positions(NAMES[:4]) + 0.001, np.full((2, 3), np.nan)])
    folder = SessionFolder(tmp_path, replace(FORMAT, positions=positions), 1)
    folder.add(draw_samples(10), np.arange(10) / RATE_HZ)
    folder.close()
    locations = [channel["loc"][:3] for channel in read(tmp_path).info["chs"][:4]]
    np.testing.assert_allclose(locations, positions[:4], atol=1e-7)  # mne keeps float32


MEG = StreamFormat(
    *("scanner", ("MEG1", "MEG2", "STI"), ("mag", "grad", "stim"), ("fT", "fT/cm", ""), 1000.0),
    positions=np.array([[0.01, 0.02, 0.1], [0.03, 0.0, 0.1], [np.nan] * 3]),
)


def test_meg_becomes_a_fif_when_it_is_closed(tmp_path):
    samples = draw_samples(1500, 3)
    folder = SessionFolder(tmp_path, MEG, 1)
    add_in_chunks(folder, samples)
    folder.add_event(700, "S 1", "cat")
    folder.mark_gap(900)
    growing = tmp_path / "sourcedata/sub-01/ses-01/meg/sub-01_ses-01_task-live_meg.vhdr"
    assert mne.io.read_raw_brainvision(growing, verbose="ERROR").n_times == 1500
    folder.close()
    folder.close()

    raw = read(tmp_path, datatype="meg")
    assert raw.get_channel_types() == ["mag", "grad", "stim"]
    expected = samples.astype(np.float32) * [1e-15, 1e-13, 1]
    np.testing.assert_allclose(raw.get_data().T, expected, rtol=1e-6)
    np.testing.assert_allclose(raw.info["chs"][0]["loc"][:3], MEG.positions[0], atol=1e-7)
    assert raw.annotations.description.tolist() == ["S 1", "BAD boundary"]
    assert np.rint(raw.annotations.onset * 1000).tolist() == [700, 900]
    assert not (tmp_path / "sourcedata").exists()
