"""The lines for one's own data, recordings and betas, run as the README and the guide
have them.
"""

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.data.stores.signal_store import SignalStore
from tests.test_architecture import CHECKOUT
from tests.worlds.own_recordings import (
    PICTURES,
    Shown,
    annotate,
    codes,
    make_raw,
    write_pictures,
    write_table,
)

pytest.importorskip("mne")
nibabel = pytest.importorskip("nibabel")
SHAPE = (5, 4, 3)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory beside pictures, which is the home of the commands."""
    write_pictures(tmp_path / "pictures")
    monkeypatch.delenv("BRAINHIVE_HOME", raising=False)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def run_lines(page: str, heading: str, *more: str) -> tuple[str, str]:
    """Run the lines below a heading, and more; returns what they printed and what they
    said.
    """
    section = (CHECKOUT / page).read_text().partition(heading)[2]
    lines = re.findall(r"```bash\n(.*?)```", section, re.DOTALL)[0].splitlines()
    lines += more
    assert len(lines) <= 10
    ends: list[Any] = []
    for line in lines:
        if line.startswith("brainhive "):
            words = shlex.split(line, comments=True)[1:]
            ends.append(CliRunner(env={"COLUMNS": "200"}).invoke(app, words))
            assert ends[-1].exit_code == 0, ends[-1].stderr
        else:
            variables = {**os.environ, "HOME": str(Path.cwd().parent)}
            subprocess.run(["bash", "-ec", line], env=variables, check=True)
    return "".join(ended.stdout for ended in ends), "".join(
        ended.stderr for ended in ends
    )


@pytest.mark.nightly
def test_one_s_own_data_takes_ten_lines_as_the_readme_has_them(work):
    (work.parent / "recordings").mkdir()
    shown = Shown.of(3, seed=0)
    raw = annotate(make_raw(shown, seed=0), shown, [str(code) for code in codes(shown)])
    raw.save(work.parent / "recordings/sub-01_ses-01.fif", verbose="ERROR")
    write_table(work.parent / "recordings/events.csv")

    output, talk = run_lines("README.md", "## Your own data in ten lines")

    assert "18 train, 6 test trials" in output.replace("\n", " ")
    store = SignalStore.open(work / "signals/image-folder/default/sub-01.h5")
    assert store["test"].repetitions.tolist() == [3, 3]
    assert "Retrieval, test" in output and "Protocol: intra, image-folder" in output
    assert "next: brainhive train-align --dataset image-folder" in talk

    # the lines of Python that follow, on the runs that these lines made
    text = (CHECKOUT / "README.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    for word, command in (
        ("EVALUATION", "eval-retrieval"),
        ("TRAINING", "train-align"),
    ):
        (run,) = (work / "runs" / command).glob("image-folder-*")
        block = block.replace(word, run.name)
    variables: dict[str, Any] = {}
    exec(compile(block, "README.md", "exec"), variables)
    assert len(variables["ranks"].ranks) == 2


def write_betas(folder):
    """Write two sessions of a subject, in each of which all pictures were shown twice,
    and a blank once.
    """
    folder.mkdir()
    random = np.random.default_rng(0)
    inside = random.random(SHAPE) < 0.6
    nibabel.save(
        nibabel.Nifti1Image(inside.astype(np.uint8), np.eye(4)),
        folder / "sub-01_mask.nii.gz",
    )
    names = [*PICTURES["train"], *PICTURES["test"]]
    responses = random.normal(size=(len(names), inside.sum()))
    for session in (1, 2):
        order = np.append(random.permutation(np.repeat(np.arange(len(names)), 2)), -1)
        betas = np.zeros((*SHAPE, len(order)), np.float32)
        betas[inside] = (
            responses[order] + 0.3 * random.normal(size=(len(order), inside.sum()))
        ).T
        nibabel.save(
            nibabel.Nifti1Image(betas, np.eye(4)),
            folder / f"sub-01_ses-0{session}_betas.nii.gz",
        )
        lines = [
            f"{names[row]}.png,{1 + place // 9}" if row >= 0 else ",2"
            for place, row in enumerate(order)
        ]
        (folder / f"sub-01_ses-0{session}_trials.csv").write_text(
            "\n".join(["picture,run", *lines]) + "\n"
        )
    return responses


@pytest.mark.nightly
def test_one_s_own_betas_take_ten_lines_as_the_guide_has_them(work):
    responses = write_betas(work.parent / "betas")

    output, talk = run_lines(
        "docs/tutorial-fmri.md",
        "## Start from betas",
        "brainhive check image-folder",
        "brainhive embed --dataset image-folder --encoders demo-clip",
        "brainhive train-align --dataset image-folder --encoders demo-clip "
        "backbone.kind=voxel-ridge",
        "brainhive eval-retrieval",
    )

    assert "24 train, 8 test trials" in output.replace("\n", " ")
    assert "subject 1, session 1–2: 2 blank trials" in talk
    assert "Retrieval, test" in output and "Protocol: intra, image-folder" in output
    store = SignalStore.open(work / "signals/image-folder/default/sub-01.h5")
    assert store["test"].repetitions.tolist() == [4, 4]
    # by training pictures
    scored = (responses - responses[:6].mean(0)) / responses[:6].std(0)
    for split, names in PICTURES.items():  # each picture has its own response
        for image_id, trials in zip(
            store[split].image_ids, store[split].signal[:], strict=True
        ):
            response = scored[[*PICTURES["train"], *PICTURES["test"]].index(image_id)]
            assert (
                np.corrcoef(trials.mean(0)[:, 0], response)[0, 1] > 0.8
                and image_id in names
            )


def test_a_recording_without_a_whole_trial_stops_nobody_else(work):
    (work.parent / "recordings").mkdir()
    for name, seconds in (
        ("sub-01_ses-01", None),
        ("sub-01_ses-02", 1.2),
        ("sub-02_ses-01", 1.2),
    ):
        shown = Shown.of(1, seed=0)
        raw = annotate(make_raw(shown, seed=0), shown, [*shown.pictures])
        if seconds:
            raw.crop(tmax=seconds)
        raw.save(work.parent / f"recordings/{name}.fif", verbose="ERROR")
    words = "prepare --from recording preparation.root=../recordings"
    words += " preparation.stimuli.root=../pictures preparation.whiten=no"
    for more in (" --check", ""):
        ended = CliRunner(env={"COLUMNS": "300"}).invoke(app, (words + more).split())
        assert ended.exit_code == 0, ended.stderr
        for name in ("sub-01_ses-02.fif", "sub-02_ses-01.fif"):
            assert re.search(rf"{name} .* 1 beyond the recording", ended.stderr)
    (path,) = (work / "signals").rglob("*.h5")
    provenance = SignalStore.open(path)["train"].provenance
    assert path.name == "sub-01.h5" and len(provenance["sessions"]) == 1
    assert [*provenance["left_out"]] == ["sessions"]

    # nobody has a trial
    for more in (" --check", ""):
        line = f"{words} --subjects 2 --name two{more}"
        assert CliRunner().invoke(app, line.split()).exit_code == 3
