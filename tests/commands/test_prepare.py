"""Tests of prepare with raw recordings of THINGS-EEG2."""

import importlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from brainhive_cli.commands import prepare
from brainhive_cli.core.base.errors import BrainhiveError, MissingData, Unfinished
from brainhive_cli.core.files.inputs import describe_missing
from brainhive_cli.core.runs import READ_ONLY, Launch, list_inputs
from brainhive_cli.data.stores import Job, SignalStore
from tests.tools.joined_processes import run_in_processes

FIRST, SESSION = (
    f"data/things-eeg/raw_eeg/sub-01/ses-0{session}" for session in (1, 4)
)


@pytest.fixture(scope="session")
def recorded(mini_raw, small_eeg, tmp_path_factory):
    """Folder with the raw recordings of a subject."""
    folder = tmp_path_factory.mktemp("recorded")
    mini_raw.make_eeg(folder, small_eeg, seed=3)
    return folder


@pytest.fixture
def raw(recorded, home):
    """Home with hard links to these recordings, so tests must replace files."""
    shutil.copytree(recorded, home / "data/things-eeg", copy_function=os.link)
    return home


def store(home, name="default", subject=1):
    return SignalStore.open(home / f"signals/things-eeg/{name}/sub-{subject:02d}.h5")


def list_store_files(home):
    """List the files below the folder of stores, without the digests of sessions."""
    files = (path for path in (home / "signals").rglob("*") if path.is_file())
    return sorted(file.name.rsplit("_", 1)[0] for file in files)


def read_repetitions(recording, session, image):
    """Read the repetitions [R, C, T] of a picture in a session."""
    assert recording.sessions is not None
    rows = recording.find_trials([image])
    return np.asarray(recording.signal[rows])[recording.sessions[rows] == session]


def replace(path, content):
    path.unlink()
    path.write_bytes(content)


def spoil(path):
    """Fill a file with zeros, keep its size and time, and return its old content."""
    content, stat = path.read_bytes(), path.stat()
    replace(path, bytes(len(content)))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    return content


def mend(path, content):
    """Restore the content of a file, and keep its time."""
    stat = path.stat()
    replace(path, content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def change_recording(path, **changes):
    """Apply a function to each of some fields of a recording."""
    content = np.load(path, allow_pickle=True).item()
    for key, change in changes.items():
        content[key] = change(content[key])
    path.unlink()
    np.save(path, content, allow_pickle=True)


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ("papers/alignvis", "eeg250_{split}.npz data"),
        ("papers/things-eeg-authors", "eeg100_authors.npz time_{split}"),
    ],
)
def test_the_shipped_recipes_give_what_the_published_code_gives(
    golden, mini_raw, golden_eeg, home, recipe, expected
):
    mini_raw.make_eeg(home / "data/things-eeg", golden_eeg.size, golden_eeg.seed)
    overrides = [
        f"preparation.{key}={value}"
        for key, value in golden_eeg.preparation_keys.items()
    ]
    resolved = prepare.Recipe.resolve("prepare", recipe, {}, overrides)
    prepare.run(resolved, make_launch())
    for split in ("train", "test"):
        file, key = expected.format(split=split).split()
        recording = store(home, resolved.name, golden_eeg.size.subject)[split]
        expected_signal = np.load(golden / "prepare" / file)[key]
        repetitions = recording.as_repetitions(np.asarray(recording.signal))
        np.testing.assert_allclose(repetitions, expected_signal, atol=1.5e-5)


def make_launch():
    """Make the launch of a single process on the CPU."""
    import torch

    return Launch(0, 1, torch.device("cpu"))


@pytest.mark.nightly
def test_stores_keep_all_repetitions_sessions_and_whiteners(raw, run_command):
    result = run_command("prepare")
    run_command("prepare", "preparation.whiten=no", "name=plain")

    train, plain_train = store(raw)["train"], store(raw, "plain")["train"]
    assert train.signal.shape == (28, 63, 250)
    assert train.repetitions.tolist() == [4, 4, 6, 5, 4, 5]
    assert train.whiteners.shape == (4, 63, 63)
    assert plain_train.whiteners is None
    assert (train.unit, plain_train.unit) == ("whitened", "µV")
    for image in range(len(train.pictures)):
        for session in range(4):
            whitened = read_repetitions(train, session, image)
            restored = np.linalg.inv(train.whiteners[session]) @ whitened
            expected = read_repetitions(plain_train, session, image)
            np.testing.assert_allclose(restored, expected, atol=2e-4)
    assert train.image_ids[0] == "training_images/00001_thing1/thing1_01b"
    provenance = train.provenance
    assert provenance["preparation"]["whiten"] == "epochs"
    assert len(provenance["files"]) == 9
    assert provenance["sessions"][0]["dropped"] == {
        "target": 1,
        "beyond the recording": 0,
    }
    assert provenance["sessions"][0]["time_shift"] == {"late_ms": 1.0, "rate_hz": 250.0}
    assert result.tables[0].rows[0] == (1, "train", 6, "4 to 6", 28, "4 target")
    assert list_store_files(raw) == ["sub-01.h5", "sub-01.h5"]


@pytest.mark.nightly
def test_a_known_evoked_response_comes_back(mini_raw, home, run_command):
    size = mini_raw.replace(
        mini_raw.SIZES["tiny"], sessions=1, test_repetitions=150, noise_uv=3.0
    )
    truth = mini_raw.make_eeg(home / "data/things-eeg", size, seed=1)
    run_command("prepare", "preparation.sessions=[1]")

    test = store(home)["test"]
    evoked_uv = np.linalg.inv(test.whiteners[0]) @ test.averages  # [N, C, T]
    order = [list(truth["ch_names"]).index(name) for name in test.space.names]
    # samples are 1 ms late
    expected_uv = mini_raw.evoked_uv(truth, "test")[:, order, 1::4][..., :250]

    # the previous and next pictures add the same to all responses, so the mean response
    # is subtracted
    window = slice(5, 110)  # to 440 ms
    evoked_uv = (evoked_uv - evoked_uv.mean(0))[..., window].ravel()
    expected_uv = (expected_uv - expected_uv.mean(0))[..., window].ravel()
    assert np.corrcoef(evoked_uv, expected_uv)[0, 1] > 0.9
    assert np.polyfit(expected_uv, evoked_uv, 1)[0] == pytest.approx(1, abs=0.1)


def _run(launch, *overrides):
    pipeline = importlib.import_module("brainhive_cli.commands.prepare")
    pipeline.run(pipeline.Recipe.resolve("prepare", None, {}, overrides), launch)


@pytest.mark.nightly
def test_two_processes_write_the_same_bytes_as_one(
    mini_raw, small_eeg, raw, run_command
):
    size = mini_raw.replace(small_eeg, subject=2)
    mini_raw.make_eeg(raw / "data/things-eeg", size, seed=3)
    run_command("prepare", "dtype=float16", "paths.signals=one")

    run_in_processes(_run, "dtype=float16")

    for subject in ("sub-01.h5", "sub-02.h5"):
        path = Path("things-eeg/default", subject)
        expected = (raw / "one" / path).read_bytes()
        assert (raw / "signals" / path).read_bytes() == expected
    assert list_store_files(raw) == ["sub-01.h5", "sub-02.h5"]


def describe_subject():
    """Return the state of subject 1 in the list of inputs."""
    (subject_input,) = [
        item
        for item in list_inputs(prepare, prepare.Recipe())
        if item.name == "subject 1"
    ]
    assert not subject_input.is_missing
    return subject_input.state


def test_an_interrupted_preparation_skips_finished_sessions(raw, run_command):
    path = raw / SESSION / "raw_eeg_training.npy"
    content = spoil(path)
    with pytest.raises(BrainhiveError):
        run_command("prepare")
    sessions = ["sub-01_ses-01", "sub-01_ses-02", "sub-01_ses-03"]
    assert list_store_files(raw) == sessions

    # finished sessions are not read again, so their files may be damaged
    mend(path, content)
    assert "3 of 4" in describe_subject()
    spoil(raw / FIRST / "raw_eeg_training.npy")
    run_command("prepare")

    assert list_store_files(raw) == ["sub-01.h5"]
    assert store(raw)["train"].repetitions.sum() == 28


def test_a_store_of_other_settings_is_replaced_only_when_said(raw, run_command):
    run_command("prepare")
    with pytest.raises(BrainhiveError) as caught:
        run_command("prepare", "preparation.rate_hz=100")
    for fact in ("sub-01.h5", "rate_hz", "250.0", "100.0"):
        assert fact in caught.value.message
    assert store(raw)["train"].rate_hz == 250
    run_command("prepare", "preparation.rate_hz=100", again=True)
    assert store(raw)["train"].rate_hz == 100


def test_check_says_what_is_read_and_written_and_what_is_missing(brainhive, raw):
    checked = brainhive("prepare", "--check", "--json")
    document = json.loads(checked.stdout)
    assert checked.returncode == 0
    assert not document["missing"]
    assert not (raw / "signals").exists()
    (subject_input,) = document["inputs"]
    assert subject_input["what"] == "subject 1"
    for fact in ("9 files", "37.5 MB", "28 train", "28 test", "3.5 MB", "signals/"):
        assert fact in subject_input["state"]
    work = document["tables"][-1]["rows"][0]["value"]
    assert "1 subjects" in work

    # a subject without files
    checked = brainhive("prepare", "--check", "--json", "--subjects", "1,2")
    (missing,) = json.loads(checked.stdout)["missing"]
    assert checked.returncode == 3
    assert "sub-02/ses-01/raw_eeg_training.npy" in missing
    assert "osf.io" in missing


def test_who_only_reads_does_not_look_over_the_recordings(raw, monkeypatch):
    looked = list[Job]()
    monkeypatch.setattr(
        Job, "describe_recordings", lambda job: looked.append(job) or ()
    )
    with pytest.raises(Unfinished):
        prepare.run(prepare.Recipe(), READ_ONLY)
    assert not looked
    assert not (raw / "signals").exists()


def silence(values):
    values[-1] = 0
    return values


TRAINING = "raw_eeg_training.npy"
DAMAGES = {
    "a missing session": (shutil.rmtree, "ses-04/raw_eeg_training.npy"),
    "a truncated file": (
        lambda folder: replace(
            folder / TRAINING, (folder / TRAINING).read_bytes()[:1_000_000]
        ),
        "ses-04/raw_eeg_training.npy",
    ),
    "no events": (
        lambda folder: change_recording(folder / TRAINING, raw_eeg_data=silence),
        "1 to 6",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_bad_input_is_one_line_of_the_command_and_of_its_check(
    raw, run_command, damage
):
    damage_session, fact = DAMAGES[damage]
    damage_session(raw / SESSION)
    last_session = "preparation.sessions=[4]"
    with pytest.raises(BrainhiveError) as caught:
        run_command("prepare", last_session)
    assert "ses-04/raw_eeg_training.npy" in caught.value.message
    assert fact in caught.value.message
    assert caught.value.hint
    assert "\n" not in caught.value.in_one_line
    is_missing = damage in ("a missing session", "a truncated file")
    assert isinstance(caught.value, MissingData) == is_missing
    assert not (raw / "signals/things-eeg/default/sub-01.h5").exists()

    # --check has the same error
    recipe = prepare.Recipe.resolve("prepare", None, {}, [last_session])
    assert describe_missing(list_inputs(prepare, recipe)) == [caught.value.in_one_line]
