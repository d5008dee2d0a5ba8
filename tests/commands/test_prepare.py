"""prepare: raw recordings of THINGS-EEG2 become signal stores that train-align reads."""

import importlib
import json
import os
import pickle
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image
from two import in_two

from brainhive_cli.commands import prepare
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.inputs import describe_missing
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import WHITENED_BY_TESTED
from brainhive_cli.data.spaces import Voxels
from brainhive_cli.data.stores.recordings import SignalStore
from brainhive_cli.data.trials import Trials

FIRST, SESSION = (f"data/things-eeg/raw_eeg/sub-01/ses-0{session}" for session in (1, 4))
COLOURS = "encoders=['python:brainhive_cli.models.encoders.python:example']"


@pytest.fixture(scope="session")
def recorded(mini_raw, small_eeg, tmp_path_factory):
    """The raw recordings of a subject."""
    folder = tmp_path_factory.mktemp("recorded")
    mini_raw.make_eeg(folder, small_eeg, seed=3)
    return folder


@pytest.fixture
def raw(recorded, home):
    """A home with these recordings; they are links, so that files are replaced and not written to."""
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
    """Fill a file with zeros that nothing but its content shows; return what it held."""
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
    overrides = [f"preparation.{key}={value}" for key, value in golden_eeg.knobs.items()]
    resolved = prepare.Recipe.resolve("prepare", recipe, {}, overrides)
    prepare.run(resolved, one())
    for split in ("train", "test"):
        file, key = expected.format(split=split).split()
        found = store(home, resolved.name, golden_eeg.size.subject)[split]
        np.testing.assert_allclose(found.signal, np.load(golden / "prepare" / file)[key], atol=1.5e-5)


def one() -> Launch:
    import torch

    return Launch(0, 1, torch.device("cpu"))


def test_all_repetitions_are_kept_with_their_sessions_and_whiteners(raw, go):
    result = go("prepare")
    go("prepare", "preparation.whiten=no", "name=plain")

    found, plain = store(raw), store(raw, "plain")
    train = found["train"]
    assert train.signal.shape == (6, 6, 63, 250) and train.repetitions.tolist() == [4, 4, 6, 5, 4, 5]
    assert train.whiteners.shape == (4, 63, 63) and plain["train"].whiteners is None
    assert (train.unit, plain["train"].unit) == ("whitened", "µV")
    for image, count in enumerate(train.repetitions):
        assert not np.any(train.signal[image, count:])
        for session in range(4):
            restored = np.linalg.inv(train.whiteners[session]) @ single(train, session, image)
            np.testing.assert_allclose(restored, single(plain["train"], session, image), atol=2e-4)
    assert train.image_ids[0] == "training_images/00001_thing1/thing1_01b"
    provenance = train.provenance
    assert provenance["preparation"]["whiten"] == "epochs" and len(provenance["files"]) == 9
    assert provenance["sessions"][0]["dropped"] == {"target": 1, "beyond the recording": 0}
    assert provenance["sessions"][0]["time_shift"] == {"late_ms": 1.0, "rate_hz": 250.0}
    assert result.tables[0].rows[0] == (1, "train", 6, "4 to 6", 28, "4 target")
    assert left(raw) == ["sub-01.h5", "sub-01.h5"]


def test_a_known_evoked_response_comes_back(mini_raw, home, go):
    size = mini_raw.replace(mini_raw.SIZES["tiny"], sessions=1, test_repetitions=150, noise_uv=3.0)
    truth = mini_raw.make_eeg(home / "data/things-eeg", size, seed=1)
    go("prepare", "preparation.sessions=[1]")

    test = store(home)["test"]
    means = np.asarray(test.signal).sum(1) / test.repetitions[:, None, None]
    found = np.linalg.inv(test.whiteners[0]) @ means  # [N, C, T] in microvolts
    order = [list(truth["ch_names"]).index(name) for name in test.space.names]
    known = mini_raw.evoked_uv(truth, "test")[:, order, 1::4]  # samples lie 1 ms late
    window = slice(5, 110)  # to 440 ms
    # what the pictures shown before and after add is the same for all, so differences are compared
    found, known = ((each - each.mean(0))[..., window].ravel() for each in (found, known[..., :250]))
    assert np.corrcoef(found, known)[0, 1] > 0.9
    assert np.polyfit(known, found, 1)[0] == pytest.approx(1, abs=0.1)


def _run(launch: Launch, *overrides: str) -> None:
    pipeline: Any = importlib.import_module("brainhive_cli.commands.prepare")
    pipeline.run(pipeline.Recipe.resolve("prepare", None, {}, overrides), launch)


def test_four_processes_write_the_same_bytes_as_one(mini_raw, small_eeg, raw, go):
    size = mini_raw.replace(small_eeg, subject=2)
    mini_raw.make_eeg(raw / "data/things-eeg", size, seed=3)
    go("prepare", "dtype=float16", "paths.signals=one")

    in_two(_run, "dtype=float16", processes=4)

    for subject in ("sub-01.h5", "sub-02.h5"):
        path = Path("things-eeg/default", subject)
        assert (raw / "one" / path).read_bytes() == (raw / "signals" / path).read_bytes()
    assert left(raw) == ["sub-01.h5", "sub-02.h5"]


def told_of_subject(recipe: prepare.Recipe | None = None) -> str:
    (one,) = [one for one in prepare.inputs(recipe or prepare.Recipe()) if one.name == "subject 1"]
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


def test_again_replaces_a_store_only_when_the_new_one_is_complete_and_continues(raw, go):
    go("prepare")
    path = raw / SESSION / "raw_eeg_training.npy"
    whole = spoil(path)
    with pytest.raises(BrainhiveError):
        go("prepare", "preparation.rate_hz=125", again=True)
    assert store(raw)["train"].rate_hz == 250 and len(left(raw)) == 4
    told = r"sub-01\.h5 exists; sessions/ holds \d\.\d MB of another that was not finished"
    assert re.search(told, told_of_subject()) and prepare.work(prepare.Recipe()) is None

    mend(path, whole)
    spoil(raw / FIRST / "raw_eeg_training.npy")  # which is not read again
    go("prepare", "preparation.rate_hz=125", again=True)
    assert store(raw)["train"].rate_hz == 125 and left(raw) == ["sub-01.h5"]


def test_sessions_of_settings_that_were_given_up_go_when_their_subject_is_complete(raw, go):
    path = raw / SESSION / "raw_eeg_training.npy"
    whole = spoil(path)
    for overrides in ((), ("preparation.rate_hz=125",)):  # which do not continue each other
        with pytest.raises(BrainhiveError):
            go("prepare", *overrides)
    assert left(raw) == [f"sub-01_ses-{session:02d}" for session in (1, 1, 2, 2, 3, 3)]
    other = raw / "signals/things-eeg/default/sessions/sub-02_ses-01_0123456789.h5"
    other.touch()

    mend(path, whole)
    go("prepare", "preparation.rate_hz=125")
    assert left(raw) == ["sub-01.h5", "sub-02_ses-01"]


def test_a_store_of_other_settings_is_replaced_only_when_said(raw, go):
    go("prepare")
    with pytest.raises(BrainhiveError, match=r"sub-01\.h5 is there, made with rate_hz 250\.0, not 100\.0"):
        go("prepare", "preparation.rate_hz=100")
    assert store(raw)["train"].rate_hz == 250
    go("prepare", "preparation.rate_hz=100", again=True)
    assert store(raw)["train"].rate_hz == 100


def test_a_store_of_other_files_is_not_taken_for_done(raw, go):
    go("prepare", "preparation.sessions=[1]")
    path = raw / "data/things-eeg/raw_eeg/sub-01/ses-01/raw_eeg_test.npy"
    (raw / "data/things-eeg").rename(raw / "moved")
    go("prepare", "preparation.sessions=[1]", f"preparation.root={raw / 'moved'}")
    (raw / "moved").rename(raw / "data/things-eeg")
    replace(path, path.read_bytes() + b"0")
    with pytest.raises(BrainhiveError, match=r"made from other files than now, such as .*raw_eeg_test\.npy"):
        go("prepare", "preparation.sessions=[1]")
    shutil.rmtree(raw / "data/things-eeg/raw_eeg/sub-01/ses-01")  # raw data that were deleted
    go("prepare", "preparation.sessions=[1]", "subjects=1")


def test_a_session_of_files_that_were_edited_since_is_not_continued(raw):
    def path():
        return prepare.Job.resolve(prepare.Recipe()).session_paths(1)[1]

    before, table = path(), raw / "data/things-eeg/image_metadata.npy"
    assert path() == before
    edit(table)
    assert path() != before


def edit(path: Path) -> None:
    """Change a byte of a file."""
    content = path.read_bytes()
    replace(path, content[:-1] + bytes([content[-1] ^ 1]))


def test_a_table_that_was_edited_to_the_same_size_is_seen_by_a_finished_store(raw, go):
    go("prepare", "preparation.sessions=[1]")
    edit(raw / "data/things-eeg/image_metadata.npy")
    problem = r"made from other files than now, such as image_metadata\.npy"
    with pytest.raises(BrainhiveError, match=problem) as caught:
        go("prepare", "preparation.sessions=[1]")
    assert caught.value.hint.startswith("--again --subjects 1 replaces it")


def test_signals_are_trained_on(raw, go, code_allowed):
    go("prepare", "dtype=float16")
    table = np.load(raw / "data/things-eeg/image_metadata.npy", allow_pickle=True).item()
    for split, folder in (("train", "training_images"), ("test", "test_images")):
        for row, concept in enumerate(table[f"{split}_img_concepts"]):
            path = raw / "data/things-eeg" / folder / concept / table[f"{split}_img_files"][row]
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (20 * row, 250 - 20 * row, 90)).save(path)
    go("embed", COLOURS)
    small = (
        "subjects=1",
        "seeds=1",
        "train.epochs=1",
        "train.batch_size=4",
        "dim=16",
        "train.precision=fp32",
    )
    result = go("train-align", COLOURS, *small)
    assert result.folder.is_dir()


def test_check_says_what_is_read_and_written_and_what_is_missing(brainhive, raw):
    planned = brainhive("prepare", "--check", "--json")
    document = json.loads(planned.stdout)
    assert planned.returncode == 0 and not document["missing"] and not (raw / "signals").exists()
    (one,) = document["inputs"]
    assert one["what"] == "subject 1"
    assert one["state"].startswith("9 files, 37.5 MB; 28 train, 28 test trials, 3.5 MB to signals/")
    (table,) = document["tables"][-1:]
    assert table["title"] == "Work" and "1 subjects; " in table["rows"][0]["value"]
    planned = brainhive("prepare", "--check", "--json", "--subjects", "1,2")
    (missing,) = json.loads(planned.stdout)["missing"]
    assert planned.returncode == 3 and "sub-02/ses-01/raw_eeg_training.npy" in missing and "osf.io" in missing


def swap(folder: Path) -> None:
    (folder / "raw_eeg_test.npy").rename(folder / "swapped")
    (folder / "raw_eeg_training.npy").rename(folder / "raw_eeg_test.npy")
    (folder / "swapped").rename(folder / "raw_eeg_training.npy")


def forget_pictures(folder: Path) -> None:
    path = folder.parents[2] / "image_metadata.npy"
    table = np.load(path, allow_pickle=True).item()
    path.unlink()
    np.save(path, {key: values[:2] for key, values in table.items()}, allow_pickle=True)


def silence(values: np.ndarray) -> np.ndarray:
    values[-1] = 0
    return values


def cut_after(samples: int) -> Any:
    def change(values: np.ndarray) -> np.ndarray:
        return values[:, : np.flatnonzero(values[-1])[0] + samples]

    return change


def spoil_codes(values: np.ndarray) -> np.ndarray:
    values[-1, np.flatnonzero(values[-1])[0]] = np.nan
    return values


def rename(names: list[str]) -> list[str]:
    return ["O9" if name == "Oz" else name for name in names]


class Malicious:
    """What runs a command when it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch ran",)


TRAINING = "raw_eeg_training.npy"
WRONG = {
    "a missing session": (
        shutil.rmtree,
        r"no recording .*ses-04/raw_eeg_training\.npy",
    ),
    "a truncated file": (
        lambda folder: replace(folder / TRAINING, (folder / TRAINING).read_bytes()[:1_000_000]),
        r"ses-04/raw_eeg_training\.npy is damaged or cut short",
    ),
    "another sampling rate": (
        lambda folder: changed(folder / TRAINING, sfreq=lambda rate: 500),
        r"ses-04/raw_eeg_training\.npy has 500 samples a second, the published recordings 1000",
    ),
    "training and test swapped": (
        swap,
        r"ses-04/raw_eeg_test\.npy has pictures 4 to 6, but .* has 3 of test",
    ),
    "training is a copy of test": (
        lambda folder: replace(folder / TRAINING, (folder / "raw_eeg_test.npy").read_bytes()),
        r"ses-04/raw_eeg_training\.npy shows the same pictures at the same times as .*raw_eeg_test\.npy",
    ),
    "a channel renamed": (
        lambda folder: changed(folder / TRAINING, ch_names=rename),
        r"ses-04/raw_eeg_training\.npy has no channel Oz",
    ),
    "no events": (
        lambda folder: changed(folder / TRAINING, raw_eeg_data=silence),
        r"ses-04/raw_eeg_training\.npy: the stimulus channel stim has no events",
    ),
    "a code that is no number": (
        lambda folder: changed(folder / TRAINING, raw_eeg_data=spoil_codes),
        r"ses-04/raw_eeg_training\.npy: the stimulus channel holds other values than numbers of pictures",
    ),
    "a recording that ends before its first trial does": (
        lambda folder: changed(folder / TRAINING, raw_eeg_data=cut_after(100)),
        r"ses-04/raw_eeg_training\.npy has no whole trial of a picture: 1 go beyond it",
    ),
    "ids that match nothing": (
        forget_pictures,
        r"ses-04/raw_eeg_training\.npy has pictures 4 to 6, but .* has 2 of train",
    ),
    "other shapes": (
        lambda folder: changed(folder / TRAINING, raw_eeg_data=lambda values: values[:-1]),
        r"ses-04/raw_eeg_training\.npy: signals \[63, \d+\] come with 64 channels",
    ),
    "code to run": (
        lambda folder: replace(folder / TRAINING, pickle.dumps({"raw_eeg_data": Malicious()})),
        r"ses-04/raw_eeg_training\.npy holds Python objects that could run code",
    ),
}


@pytest.mark.parametrize("way", WRONG)
def test_bad_input_is_one_line_and_nothing_is_lost(raw, go, way):
    go("prepare", "preparation.sessions=[1]", "name=before")
    spoil, message = WRONG[way]
    spoil(raw / SESSION)
    last = "preparation.sessions=[4]"
    with pytest.raises(BrainhiveError, match=message) as caught:
        go("prepare", last)
    assert caught.value.hint and "\n" not in caught.value.in_one_line
    assert isinstance(caught.value, MissingData) == (way in ("a missing session", "a truncated file"))
    assert not (raw / "signals/things-eeg/default/sub-01.h5").exists() and not (raw / "ran").exists()
    assert store(raw, "before")["train"].repetitions.sum() > 0
    listed = prepare.inputs(prepare.Recipe.resolve("prepare", None, {}, [last]))  # without the signals
    assert describe_missing(listed) == [caught.value.in_one_line]


def test_a_missing_session_can_be_left_out(raw, go):
    shutil.rmtree(raw / SESSION)
    go("prepare", "preparation.sessions=[1,2,3]")
    assert store(raw)["test"].whiteners.shape == (3, 63, 63)


def test_files_that_hold_all_repetitions_together_are_prepared(mini_raw, home, go, monkeypatch):
    pytest.importorskip("nibabel")
    monkeypatch.setitem(sys.modules, "pandas", ModuleType("pandas"))  # only for a table that is not written
    size = mini_raw.Nsd(stimuli=False, stim_info=False, nifti=False, sessions=1)
    mini_raw.make_nsd(home / "data/nsd", size, seed=1)
    (home / "data/nsd/mindeye2").rename(home / "data/mindeyev2")

    go("prepare", "preparation.kind=mindeye2", "dtype=float16")

    found = SignalStore.open(home / "signals/nsd/default/sub-01.h5")["test"]
    assert found.signal.dtype == np.float16 and isinstance(found.space, Voxels)
    assert found.provenance["preparation"]["kind"] == "mindeye2" and found.provenance["files"]
    made = prepare.Recipe(preparation="mindeye2", dtype="float16")
    assert told_of_subject(made).endswith("sub-01.h5 exists") and prepare.work(made) is None


@pytest.mark.parametrize(("by", "is_said"), [("both", True), ("training", False)])
def test_a_store_whose_whitening_used_test_trials_says_so(raw, go, by, is_said):
    result = go("prepare", "preparation.repetitions=[2,2]", f"preparation.whiten_by={by}")

    assert all((WHITENED_BY_TESTED in each.caveats) == is_said for each in store(raw).splits.values())
    assert (WHITENED_BY_TESTED in result.tables[0].title) == is_said
