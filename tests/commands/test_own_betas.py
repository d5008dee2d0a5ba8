"""The lines for a lab's own betas, run as the guide has them."""

import os
import re
import shlex
import subprocess

import numpy as np
import pytest
from own_recordings import PICTURES, write_pictures
from test_architecture import CHECKOUT

from brainhive_cli.data.stores.recordings import SignalStore

nibabel = pytest.importorskip("nibabel")
SHAPE = (5, 4, 3)


def write_betas(folder):
    """Write two sessions of a subject, in each of which all pictures were shown twice, and a blank once."""
    folder.mkdir()
    random = np.random.default_rng(0)
    inside = random.random(SHAPE) < 0.6
    nibabel.save(nibabel.Nifti1Image(inside.astype(np.uint8), np.eye(4)), folder / "sub-01_mask.nii.gz")
    names = [*PICTURES["train"], *PICTURES["test"]]
    responses = random.normal(size=(len(names), inside.sum()))
    for session in (1, 2):
        order = np.append(random.permutation(np.repeat(np.arange(len(names)), 2)), -1)
        betas = np.zeros((*SHAPE, len(order)), np.float32)
        betas[inside] = (responses[order] + 0.3 * random.normal(size=(len(order), inside.sum()))).T
        nibabel.save(nibabel.Nifti1Image(betas, np.eye(4)), folder / f"sub-01_ses-0{session}_betas.nii.gz")
        lines = [
            f"{names[row]}.png,{1 + place // 9}" if row >= 0 else ",2" for place, row in enumerate(order)
        ]
        (folder / f"sub-01_ses-0{session}_trials.csv").write_text("\n".join(["picture,run", *lines]) + "\n")
    return responses


def test_one_s_own_betas_take_ten_lines_as_the_guide_has_them(tmp_path, brainhive, monkeypatch):
    write_pictures(tmp_path / "pictures")
    responses = write_betas(tmp_path / "betas")
    monkeypatch.delenv("BRAINHIVE_HOME", raising=False)
    section = (CHECKOUT / "docs/own-data.md").read_text().partition("## Betas of fMRI in ten lines")[2]
    script = re.findall(r"```bash\n(.*?)```", section, re.DOTALL)[0]
    assert len(script.splitlines()) <= 10
    work, told = tmp_path / "work", []
    work.mkdir()
    for line in script.splitlines():
        if line.startswith("brainhive "):
            told.append(brainhive(*shlex.split(line, comments=True)[1:], cwd=work))
            assert told[-1].returncode == 0, told[-1].stderr
        else:
            home = {**os.environ, "HOME": str(tmp_path)}
            subprocess.run(["bash", "-ec", line], cwd=work, env=home, check=True)

    output, talk = ("".join(getattr(ended, name) for ended in told) for name in ("stdout", "stderr"))
    assert "24 train, 8 test trials" in output.replace("\n", " ")
    assert "subject 1, session 1–2: 2 blank trials" in talk
    assert "Retrieval, test" in output and "Protocol: intra, image-folder" in output
    store = SignalStore.open(work / "signals/image-folder/default/sub-01.h5")
    assert store["test"].repetitions.tolist() == [4, 4]
    scored = (responses - responses[:6].mean(0)) / responses[:6].std(0)  # by training pictures
    for split, names in PICTURES.items():  # each picture has its own response
        for image_id, trials in zip(store[split].image_ids, store[split].signal[:], strict=True):
            response = scored[[*PICTURES["train"], *PICTURES["test"]].index(image_id)]
            assert np.corrcoef(trials.mean(0)[:, 0], response)[0, 1] > 0.8 and image_id in names
