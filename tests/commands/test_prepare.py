"""prepare: raw recordings of THINGS-EEG2 become signal stores that train-align
reads.
"""

import importlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainhive_cli.commands import prepare
from brainhive_cli.core.command import describe_missing
from brainhive_cli.core.errors import BrainhiveError, MissingData, Unfinished
from brainhive_cli.core.jobs import list_inputs
from brainhive_cli.core.launch import READ_ONLY, Launch
from brainhive_cli.data.signals.trials import Trials
from brainhive_cli.data.stores.job import Job
from brainhive_cli.data.stores.signal_store import SignalStore
from tests.tools.joined_processes import in_two

FIRST, SESSION = (
    f"data/things-eeg/raw_eeg/sub-01/ses-0{session}" for session in (1, 4)
)


@pytest.fixture(scope="session")
def recorded(mini_raw, small_eeg, tmp_path_factory):
    """The raw recordings of a subject."""
    folder = tmp_path_factory.mktemp("recorded")
    mini_raw.make_eeg(folder, small_eeg, seed=3)
    return folder


@pytest.fixture
def raw(recorded, home):
    """A home with these recordings; they are links, so that files are replaced and not
    written to.
    """
    shutil.copytree(recorded, home / "data/things-eeg", copy_function=os.link)
    return home


def store(home: Path, name: str = "default", subject: int = 1) -> SignalStore:
    return SignalStore.open(home / f"signals/things-eeg/{name}/sub-{subject:02d}.h5")


def left(home: Path) -> list[str]:
    """List what lies where stores lie, without the digests of sessions."""
    found = (path for path in (home / "signals").rglob("*") if path.is_file())
    return sorted(path.name.rsplit("_", 1)[0] for path in found)


def single(recording: Trials, session: int, image: int) -> np.ndarray:
    assert recording.sessions is not None
    return np.asarray(recording.signal[image])[recording.sessions[image] == session]


def replace(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


def spoil(path: Path) -> bytes:
    """Fill a file with zeros that nothing but its content shows; return what it
    held.
    """
    content, stat = path.read_bytes(), path.stat()
    replace(path, bytes(len(content)))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    return content


def mend(path: Path, content: bytes) -> None:
    stat = path.stat()
    replace(path, content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def changed(path: Path, **keys: Any) -> None:
    """Change what a recording holds."""
    content = np.load(path, allow_pickle=True).item()
    for key, change in keys.items():
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
        f"preparation.{key}={value}" for key, value in golden_eeg.knobs.items()
    ]
    resolved = prepare.Recipe.resolve("prepare", recipe, {}, overrides)
    prepare.run(resolved, one())
    for split in ("train", "test"):
        file, key = expected.format(split=split).split()
        found = store(home, resolved.name, golden_eeg.size.subject)[split]
        np.testing.assert_allclose(
            found.signal, np.load(golden / "prepare" / file)[key], atol=1.5e-5
        )


def one() -> Launch:
    import torch

    return Launch(0, 1, torch.device("cpu"))


@pytest.mark.nightly
def test_all_repetitions_are_kept_with_their_sessions_and_whiteners(raw, go):
    result = go("prepare")
    go("prepare", "preparation.whiten=no", "name=plain")

    found, plain = store(raw), store(raw, "plain")
    train = found["train"]
    assert train.signal.shape == (6, 6, 63, 250) and train.repetitions.tolist() == [
        4,
        4,
        6,
        5,
        4,
        5,
    ]
    assert train.whiteners.shape == (4, 63, 63) and plain["train"].whiteners is None
    assert (train.unit, plain["train"].unit) == ("whitened", "µV")
    for image, count in enumerate(train.repetitions):
        assert not np.any(train.signal[image, count:])
        for session in range(4):
            restored = np.linalg.inv(train.whiteners[session]) @ single(
                train, session, image
            )
            np.testing.assert_allclose(
                restored, single(plain["train"], session, image), atol=2e-4
            )
    assert train.image_ids[0] == "training_images/00001_thing1/thing1_01b"
    provenance = train.provenance
    assert (
        provenance["preparation"]["whiten"] == "epochs"
        and len(provenance["files"]) == 9
    )
    assert provenance["sessions"][0]["dropped"] == {
        "target": 1,
        "beyond the recording": 0,
    }
    assert provenance["sessions"][0]["time_shift"] == {"late_ms": 1.0, "rate_hz": 250.0}
    assert result.tables[0].rows[0] == (1, "train", 6, "4 to 6", 28, "4 target")
    assert left(raw) == ["sub-01.h5", "sub-01.h5"]


@pytest.mark.nightly
def test_a_known_evoked_response_comes_back(mini_raw, home, go):
    size = mini_raw.replace(
        mini_raw.SIZES["tiny"], sessions=1, test_repetitions=150, noise_uv=3.0
    )
    truth = mini_raw.make_eeg(home / "data/things-eeg", size, seed=1)
    go("prepare", "preparation.sessions=[1]")

    test = store(home)["test"]
    means = np.asarray(test.signal).sum(1) / test.repetitions[:, None, None]
    found = np.linalg.inv(test.whiteners[0]) @ means  # [N, C, T] in microvolts
    order = [list(truth["ch_names"]).index(name) for name in test.space.names]
    known = mini_raw.evoked_uv(truth, "test")[:, order, 1::4]  # samples lie 1 ms late
    window = slice(5, 110)  # to 440 ms
    # what the pictures shown before and after add is the same for all, so differences
    # are compared
    found, known = (
        (each - each.mean(0))[..., window].ravel() for each in (found, known[..., :250])
    )
    assert np.corrcoef(found, known)[0, 1] > 0.9
    assert np.polyfit(known, found, 1)[0] == pytest.approx(1, abs=0.1)


def _run(launch: Launch, *overrides: str) -> None:
    pipeline: Any = importlib.import_module("brainhive_cli.commands.prepare")
    pipeline.run(pipeline.Recipe.resolve("prepare", None, {}, overrides), launch)


@pytest.mark.nightly
def test_two_processes_write_the_same_bytes_as_one(mini_raw, small_eeg, raw, go):
    size = mini_raw.replace(small_eeg, subject=2)
    mini_raw.make_eeg(raw / "data/things-eeg", size, seed=3)
    go("prepare", "dtype=float16", "paths.signals=one")

    in_two(_run, "dtype=float16")

    for subject in ("sub-01.h5", "sub-02.h5"):
        path = Path("things-eeg/default", subject)
        assert (raw / "one" / path).read_bytes() == (
            raw / "signals" / path
        ).read_bytes()
    assert left(raw) == ["sub-01.h5", "sub-02.h5"]


def told_of_subject(recipe: prepare.Recipe | None = None) -> str:
    (one,) = [
        one
        for one in list_inputs(prepare, recipe or prepare.Recipe())
        if one.name == "subject 1"
    ]
    assert not one.is_missing
    return one.state


def test_an_interrupted_preparation_continues_after_the_sessions_that_are_done(raw, go):
    path = raw / SESSION / "raw_eeg_training.npy"
    whole = spoil(path)
    with pytest.raises(BrainhiveError):
        go("prepare")
    assert left(raw) == ["sub-01_ses-01", "sub-01_ses-02", "sub-01_ses-03"]

    mend(path, whole)
    assert "3 of 4 sessions are done" in told_of_subject()
    spoil(raw / FIRST / "raw_eeg_training.npy")  # which is not read again
    go("prepare")

    assert left(raw) == ["sub-01.h5"] and store(raw)["train"].repetitions.sum() == 28


def test_a_store_of_other_settings_is_replaced_only_when_said(raw, go):
    go("prepare")
    with pytest.raises(
        BrainhiveError,
        match=r"sub-01\.h5 is there, made with rate_hz 250\.0, not 100\.0",
    ):
        go("prepare", "preparation.rate_hz=100")
    assert store(raw)["train"].rate_hz == 250
    go("prepare", "preparation.rate_hz=100", again=True)
    assert store(raw)["train"].rate_hz == 100


def test_check_says_what_is_read_and_written_and_what_is_missing(brainhive, raw):
    planned = brainhive("prepare", "--check", "--json")
    document = json.loads(planned.stdout)
    assert (
        planned.returncode == 0
        and not document["missing"]
        and not (raw / "signals").exists()
    )
    (one,) = document["inputs"]
    assert one["what"] == "subject 1"
    assert one["state"].startswith(
        "9 files, 37.5 MB; 28 train, 28 test trials, 3.5 MB to signals/"
    )
    (table,) = document["tables"][-1:]
    assert table["title"] == "Work" and "1 subjects; " in table["rows"][0]["value"]
    planned = brainhive("prepare", "--check", "--json", "--subjects", "1,2")
    (missing,) = json.loads(planned.stdout)["missing"]
    assert (
        planned.returncode == 3
        and "sub-02/ses-01/raw_eeg_training.npy" in missing
        and "osf.io" in missing
    )


def test_who_only_reads_does_not_look_over_the_recordings(raw, monkeypatch):
    looked = list[Job]()
    monkeypatch.setattr(Job, "look_over", lambda job: looked.append(job) or ())
    with pytest.raises(Unfinished):
        prepare.run(prepare.Recipe(), READ_ONLY)
    assert not looked and not (raw / "signals").exists()


def silence(values: np.ndarray) -> np.ndarray:
    values[-1] = 0
    return values


TRAINING = "raw_eeg_training.npy"
WRONG = {
    "a missing session": (
        shutil.rmtree,
        r"no recording .*ses-04/raw_eeg_training\.npy",
    ),
    "a truncated file": (
        lambda folder: replace(
            folder / TRAINING, (folder / TRAINING).read_bytes()[:1_000_000]
        ),
        r"ses-04/raw_eeg_training\.npy is damaged or cut short",
    ),
    "no events": (
        lambda folder: changed(folder / TRAINING, raw_eeg_data=silence),
        r"ses-04/raw_eeg_training\.npy has pictures beyond 1 to 6",
    ),
}


@pytest.mark.parametrize("way", WRONG)
def test_bad_input_is_one_line_of_the_command_and_of_its_check(raw, go, way):
    spoil, message = WRONG[way]
    spoil(raw / SESSION)
    last = "preparation.sessions=[4]"
    with pytest.raises(BrainhiveError, match=message) as caught:
        go("prepare", last)
    assert caught.value.hint and "\n" not in caught.value.in_one_line
    assert isinstance(caught.value, MissingData) == (
        way in ("a missing session", "a truncated file")
    )
    assert not (raw / "signals/things-eeg/default/sub-01.h5").exists()
    # without the signals
    listed = list_inputs(prepare, prepare.Recipe.resolve("prepare", None, {}, [last]))
    assert describe_missing(listed) == [caught.value.in_one_line]
