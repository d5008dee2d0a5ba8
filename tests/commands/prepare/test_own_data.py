"""Tests of the command lines for own recordings and betas, from the documentation."""

import re
import shlex
import subprocess

import numpy as np
import pytest
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.data.stores.signal_store import SignalStore
from tests.test_architecture import CHECKOUT
from tests.worlds.own_recordings import (
    PICTURES,
    Presentation,
    annotate,
    list_event_codes,
    make_raw,
    write_pictures,
    write_table,
)

pytest.importorskip("mne")
nibabel = pytest.importorskip("nibabel")
SHAPE = (5, 4, 3)


@pytest.fixture
def work(tmp_path, monkeypatch):
    """Empty working directory next to pictures, which is the home of the commands."""
    write_pictures(tmp_path / "pictures")
    monkeypatch.delenv("BRAINHIVE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def run_lines(page, heading, *further_lines):
    """Run the command lines below a heading of a page, and further lines.

    Returns:
        All standard output, and all standard error.
    """
    section = (CHECKOUT / page).read_text().partition(heading)[2]
    lines = re.findall(r"```bash\n(.*?)```", section, re.DOTALL)[0].splitlines()
    lines += further_lines
    assert len(lines) <= 10
    ends = []
    for line in lines:
        if line.startswith("brainhive "):
            arguments = shlex.split(line, comments=True)[1:]
            ends.append(CliRunner(env={"COLUMNS": "200"}).invoke(app, arguments))
            assert ends[-1].exit_code == 0, ends[-1].stderr
        else:
            subprocess.run(["bash", "-ec", line], check=True)
    output = "".join(ended.stdout for ended in ends)
    messages = "".join(ended.stderr for ended in ends)
    return output, messages


def test_other_subjects_are_named_if_one_has_no_complete_trial(work):
    recordings = work / "data/recordings"
    recordings.mkdir(parents=True)
    (work / "data/image-folder").symlink_to(work.parent / "pictures")
    presentation = Presentation.randomize(1, seed=0)
    raw = annotate(
        make_raw(presentation, seed=0), presentation, list(presentation.pictures)
    )
    raw.save(recordings / "sub-03_ses-01_raw.fif", verbose="ERROR")
    raw.annotations.delete(np.arange(1, len(raw.annotations)))
    raw.crop(0, raw.annotations.onset[0] + 0.1)
    for session in (1, 2):
        name = f"sub-10_ses-{session:02d}_raw.fif"
        raw.save(recordings / name, verbose="ERROR")

    ended = CliRunner(env={"COLUMNS": "200"}).invoke(
        app, ["prepare", "--from", "recording", "--subjects", "10"]
    )

    assert ended.exit_code == 3
    assert "--subjects 3" in ended.stderr
    assert "cut off" in ended.stderr


@pytest.mark.nightly
def test_one_s_own_data_takes_ten_lines_as_the_readme_has_them(work):
    (work.parent / "recordings").mkdir()
    presentation = Presentation.randomize(3, seed=0)
    raw = annotate(
        make_raw(presentation, seed=0),
        presentation,
        [str(code) for code in list_event_codes(presentation)],
    )
    raw.save(work.parent / "recordings/sub-01_ses-01.fif", verbose="ERROR")
    write_table(work.parent / "recordings/events.csv")

    _, messages = run_lines("README.md", "## Your own data in ten lines")

    store = SignalStore.open(work / "signals/image-folder/default/sub-01.h5")
    assert store["train"].repetitions.sum() == 18
    assert store["test"].repetitions.tolist() == [3, 3]
    assert list((work / "runs/eval-retrieval").glob("image-folder-*/metrics.json"))
    assert "brainhive train-align --dataset image-folder" in messages

    # the lines of Python in the README use the same runs
    text = (CHECKOUT / "README.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    for argument, command in (
        ("EVALUATION", "eval-retrieval"),
        ("TRAINING", "train-align"),
    ):
        (run_folder,) = (work / "runs" / command).glob("image-folder-*")
        block = block.replace(argument, run_folder.name)
    variables = {}
    exec(compile(block, "README.md", "exec"), variables)
    ranks = variables["ranks"]
    assert len(ranks.ranks) == 2
    for row, line in enumerate(str(ranks).splitlines()[:2]):
        rank = f"rank {ranks.ranks[row]} of {len(ranks.gallery)}"
        assert ranks.image_ids[row] in line
        assert rank in line


def test_a_damaged_recording_does_not_stop_other_subjects(work):
    write_pictures(work / "data/image-folder")
    recordings = work / "data/recordings"
    recordings.mkdir()
    for subject in (1, 2, 3):
        presentation = Presentation.randomize(3, seed=subject)
        raw = annotate(
            make_raw(presentation, seed=subject),
            presentation,
            list(presentation.pictures),
        )
        raw.save(recordings / f"sub-{subject:02d}_ses-01_eeg.fif", verbose="ERROR")
    damaged = recordings / "sub-02_ses-01_eeg.fif"
    complete_bytes = damaged.read_bytes()
    damaged.write_bytes(complete_bytes[:20_000])

    line = ["prepare", "--from", "recording"]
    ended = CliRunner().invoke(app, line)
    assert ended.exit_code != 0
    stores = work / "signals/image-folder/default"
    assert {path.name for path in stores.glob("*.h5")} == {"sub-01.h5", "sub-03.h5"}
    errors = [line for line in ended.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert damaged.name in errors[0]

    # the same command makes only the missing store
    damaged.write_bytes(complete_bytes)
    ended = CliRunner().invoke(app, line)
    assert ended.exit_code == 0
    assert (stores / "sub-02.h5").is_file()


def write_betas(folder):
    """Write the betas of two sessions, each with all pictures twice and a blank trial.

    Returns:
        True response [pictures, voxels] to each picture.
    """
    folder.mkdir()
    random = np.random.default_rng(0)
    inside = random.random(SHAPE) < 0.6
    nibabel.save(
        nibabel.Nifti1Image(inside.astype(np.uint8), np.eye(4)),
        folder / "sub-01_mask.nii.gz",
    )
    names = list(PICTURES["train"]) + list(PICTURES["test"])
    responses = random.normal(size=(len(names), inside.sum()))
    for session in (1, 2):
        order = np.append(random.permutation(np.repeat(np.arange(len(names)), 2)), -1)
        betas = np.zeros(tuple(SHAPE) + (len(order),), np.float32)
        betas[inside] = (
            responses[order] + 0.3 * random.normal(size=(len(order), inside.sum()))
        ).T
        nibabel.save(
            nibabel.Nifti1Image(betas, np.eye(4)),
            folder / f"sub-01_ses-0{session}_betas.nii.gz",
        )
        lines = [
            f"{names[row]}.png,{1 + position // 9}" if row >= 0 else ",2"
            for position, row in enumerate(order)
        ]
        (folder / f"sub-01_ses-0{session}_trials.csv").write_text(
            "\n".join(["picture,run"] + list(lines)) + "\n"
        )
    return responses


@pytest.mark.nightly
def test_one_s_own_betas_take_ten_lines_as_the_guide_has_them(work):
    responses = write_betas(work.parent / "betas")

    _, messages = run_lines(
        "docs/tutorial-fmri.md",
        "## Start from betas",
        "brainhive check image-folder",
        "brainhive embed --dataset image-folder --encoders demo-clip",
        "brainhive train-align --dataset image-folder --encoders demo-clip "
        "backbone.kind=voxel-ridge",
        "brainhive eval-retrieval",
    )

    assert "2 blank trials" in messages
    assert list((work / "runs/eval-retrieval").glob("image-folder-*/metrics.json"))
    store = SignalStore.open(work / "signals/image-folder/default/sub-01.h5")
    assert store["train"].repetitions.sum() == 24
    assert store["test"].repetitions.tolist() == [4, 4]

    # responses are standardised by the training pictures
    z_scores = (responses - responses[:6].mean(0)) / responses[:6].std(0)
    names = list(PICTURES["train"]) + list(PICTURES["test"])
    for split, split_names in PICTURES.items():
        recording = store[split]
        for image_id, average in zip(
            recording.pictures, recording.averages, strict=True
        ):
            response = z_scores[names.index(image_id)]
            assert np.corrcoef(average[:, 0], response)[0, 1] > 0.8
            assert image_id in split_names


def test_a_recording_without_a_whole_trial_stops_nobody_else(work):
    (work.parent / "recordings").mkdir()
    for name, seconds in (
        ("sub-01_ses-01", None),
        ("sub-01_ses-02", 1.2),
        ("sub-02_ses-01", 1.2),
    ):
        presentation = Presentation.randomize(1, seed=0)
        raw = annotate(
            make_raw(presentation, seed=0), presentation, list(presentation.pictures)
        )
        if seconds:
            raw.crop(tmax=seconds)
        raw.save(work.parent / f"recordings/{name}.fif", verbose="ERROR")
    line = (
        "prepare --from recording preparation.root=../recordings "
        "preparation.stimuli.root=../pictures preparation.whiten=no"
    )
    for flags in (" --check", ""):
        ended = CliRunner(env={"COLUMNS": "300"}).invoke(app, (line + flags).split())
        assert ended.exit_code == 0, ended.stderr
        for name in ("sub-01_ses-02.fif", "sub-02_ses-01.fif"):
            assert re.search(rf"{name}.*\bthe end of the file", ended.stderr)
    (path,) = (work / "signals").rglob("*.h5")
    provenance = SignalStore.open(path)["train"].provenance
    assert path.name == "sub-01.h5"
    assert len(provenance["sessions"]) == 1
    assert list(provenance["left_out"]) == ["sessions"]

    # the only requested subject has no trial
    for flags in (" --check", ""):
        subject_line = f"{line} --subjects 2 --name two{flags}"
        assert CliRunner().invoke(app, subject_line.split()).exit_code == 3
