"""The command `push` with own recordings: a person must confirm their terms."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from brainhive_cli.core.runs.run_folder import RunFolder
from brainhive_cli.data.stores.training_history import TrainingHistory
from brainhive_cli.training.alignment.trained.sharing import (
    ABSOLUTE_PATH,
    cut_paths,
    find_terms,
)
from tests.tools.upload_hub import (
    brainhive,
    list_newest_files,
    read_error_lines,
    run_command,
)
from tests.worlds.command_fixtures import use_home
from tests.worlds.own_recordings import (
    CHANNELS,
    PICTURES,
    Presentation,
    annotate,
    list_event_codes,
    make_raw,
    write_pictures,
    write_table,
)

mne = pytest.importorskip("mne")
CONFIRMED = ("--data-terms-checked", "--licence", "cc-by-nc-4.0")
NAME = "Jane"
LINES = ("--dataset", "image-folder", "--encoders", "demo-clip")
QUICK = (
    "train.epochs=2",
    "dim=16",
    "fuser.intermediate_size=16",
    "train.precision=fp32",
)
NORMALISED = ("signal.normalise=whiten", "signal.normalise_by=training_subjects")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A home with recordings of two people, whose caps were digitised, and whose files
    have their names.
    """
    with use_home(tmp_path_factory.mktemp("home")) as home:
        write_pictures(home / "data/image-folder")
        folder = home / "data/recordings"
        folder.mkdir(parents=True)
        for subject in (1, 2):
            presentation = Presentation.randomize(6, seed=subject)
            raw = annotate(
                make_raw(presentation, seed=subject),
                presentation,
                [str(code) for code in list_event_codes(presentation)],
            )
            raw.info["subject_info"] = {"first_name": NAME, "his_id": NAME}
            raw.set_montage(digitise(subject))
            raw.save(folder / f"sub-{subject:02d}_ses-01.fif", verbose="ERROR")
        write_table(folder / "events.csv")
        run_command("prepare", "--from", "recording")
        run_command("embed", *LINES)
        yield home


def digitise(subject):
    """Place the electrodes as on a person's head: millimetres away from the
    template.
    """
    template = mne.channels.make_standard_montage("standard_1005").get_positions()
    moved = np.random.default_rng(subject).normal(scale=0.004, size=(len(CHANNELS), 3))
    positions = {
        name: template["ch_pos"][name] + shift
        for name, shift in zip(CHANNELS, moved, strict=True)
    }
    fiducials = {name: template[name] for name in ("nasion", "lpa", "rpa")}
    return mne.channels.make_dig_montage(positions, **fiducials, coord_frame="mri")


@pytest.fixture(scope="module")
def pushed_run(home):
    return run_command("train-align", *LINES, *QUICK, *NORMALISED)


@pytest.mark.nightly
def test_own_recordings_are_pushed_only_with_consent(hub, pushed_run, home):
    message, hint = read_error_lines(
        brainhive("push", pushed_run.name, "hub:me/own"), 1
    )
    assert "own recordings" in message
    assert "--data-terms-checked --licence" in hint
    assert hub.requests == []
    pushed = brainhive("push", pushed_run.name, "hub:me/own", *CONFIRMED)
    assert pushed.exit_code == 0, pushed.stderr

    # models are shared as they are
    files = list_newest_files(hub, "me/own")
    models = {name for name in files if name.startswith("cells/")}
    assert {Path(name).name for name in models} == {
        "config.json",
        "learned.safetensors",
        "model.safetensors",
    }
    for name in models:
        assert files[name] == (pushed_run / name).read_bytes()
    assert "statistics" in files["README.md"].decode()

    # no file has the names of people and places, no document those of pictures or files
    pictures = [b"_ses-01"] + list(map(str.encode, PICTURES["train"]))
    for name, content in files.items():
        private = [NAME.encode(), str(home).encode()] + list(
            [] if name in models else pictures
        )
        assert [argument for argument in private if argument in content] == [], name

    own_overall = (
        RunFolder(run_command("eval-retrieval", str(pushed_run), "sheet_rows=0"))
        .measurements()
        .overall
    )
    loaded = (
        RunFolder(run_command("eval-retrieval", "hub:me/own", "sheet_rows=0"))
        .measurements()
        .overall
    )
    assert loaded == own_overall


def test_an_absolute_path_in_a_model_stops_a_push(hub, pushed_run, home):
    copy = home / "runs/train-align/elsewhere"
    shutil.copytree(pushed_run, copy)
    config = copy / "cells/sub-01_seed-2025/model/config.json"
    fields = json.loads(config.read_text())
    fields["spec"]["preparation"]["events"] = "/data/jane/events.csv"
    config.write_text(json.dumps(fields))
    (copy / "SHA256SUMS").unlink()  # as whoever changes a run on purpose does

    message, _ = read_error_lines(
        brainhive("push", "elsewhere", "hub:me/own", *CONFIRMED), 1
    )

    shutil.rmtree(copy)
    assert "config.json" in message
    assert "/data/jane/events.csv" in message
    assert hub.requests == []


def test_terms_follow_from_kinds_and_not_from_names():
    """A folder of pictures may be called as a public data set is."""
    for pictures, recordings, unknown in (
        (("things-eeg",), ("simulated", "things-eeg"), ""),
        (("things-eeg",), ("recording",), "own recordings prepared by recording"),
        (("nsd",), ("nsd",), "models of nsd and recordings prepared by nsd"),
        (("image-folder",), ("simulated",), "models of own data (image-folder)"),
        ((), ("things-eeg",), "models of data of unknown origin"),
    ):
        learned = TrainingHistory(
            "last epoch",
            "things-eeg",
            "things-eeg",
            {"things-eeg": (1,)},
            True,
            stimulus_kinds=pictures,
            recording_kinds=recordings,
        )
        assert find_terms(learned, is_prior=False)[1] == unknown


def test_absolute_paths_are_found_in_texts():
    for text, path in (
        ("read from /home/jane/data/x.fif here", "/home/jane/data/x.fif"),
        ('{"root": "/data/study"}', "/data/study"),
        (r"C:\Users\jane\x.fif", r"C:\Users\jane\x.fif"),
    ):
        match = ABSOLUTE_PATH.search(text)
        assert match is not None
        assert path in match[0]
    for text in (
        (
            "top-1/top-5, 0 to 1000 ms, µV/√Hz, and/or, 1/f, n/a, "
            "python:models.encoders.python:example"
        ),
        (
            "hub:owner/name@v1.rc1, demo:prior, https://example.org/~lab/page.html, "
            "s3://bucket/a/b"
        ),
        (
            "runs/train-align/demo-intra-1/cells/sub-01_seed-2025/model, sub-10, "
            "sub-01_ses-02_task-x"
        ),
    ):
        assert ABSOLUTE_PATH.search(text) is None
        assert cut_paths(text) == text
