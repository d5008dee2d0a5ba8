"""The tutorial from epochs to Table 1: its blocks, as they stand on the page, on epochs of the demo."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from test_docs import DOCS
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.core.recipe import Paths
from brainhive_cli.datasets import demo

mne = pytest.importorskip("mne")
SMALL = ("dim=32", "fuser.intermediate_size=32", "train.epochs=8", "train.lr=2e-3", "--seeds", "1")
SHOWN = {"train": (96, 4), "test": (12, 4)}
"""Pictures of each split, and repetitions."""


def write_epochs(home: Path) -> None:
    """Write the demo's pictures, and simulated epochs of two subjects, as the page says that they lie."""
    world = demo.Config(subjects=2, concepts=16, noise=0.3).build(Paths())
    (home / "epochs").mkdir()
    for split, (count, repetitions) in SHOWN.items():
        stimuli = world.images(split)
        names = [f"{split}/{stimuli.concepts[row]}/{row}" for row in range(count)]
        for row, name in enumerate(names):
            path = home / f"pictures/{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            stimuli.open(row).save(path)
        for subject in world.subjects:
            found = world.recording(subject, split)
            signal = np.asarray(found.signal[:count])[:, :repetitions]  # [N, R, C, T]
            trials = signal.reshape(-1, *signal.shape[2:]) * 1e-6
            events = np.column_stack(
                [np.arange(len(trials)), np.zeros(len(trials)), np.repeat(range(count), repetitions)]
            )
            info = mne.create_info(list(found.space.names), found.rate_hz, "eeg")
            codes = {name: code for code, name in enumerate(names)}
            epochs = mne.EpochsArray(trials, info, events.astype(int), event_id=codes, verbose="ERROR")
            epochs.save(home / f"epochs/sub-{subject:02d}_{split}-epo.fif", verbose="ERROR")


@pytest.fixture(scope="module")
def blocks() -> tuple[str, list[str]]:
    """The program of the page, and its lines."""
    text = (DOCS / "tutorial.md").read_text()
    (program,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    shell = "".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL))
    return program, re.findall(r"^brainhive (.*)$", shell, re.MULTILINE)


def test_the_tutorial_goes_from_epochs_to_a_table(home: Path, blocks: tuple[str, list[str]]) -> None:
    program, lines = blocks
    write_epochs(home)
    exec(compile(program, "epochs.py", "exec"), {"__name__": "epochs"})

    for line in lines:
        made = sorted((home / "runs/eval-retrieval").glob("*"), key=lambda run: run.stat().st_mtime)
        names = dict(zip(("MEANING", "LOOK"), (run.name for run in made), strict=False))
        words = [names.get(word, word) for word in shlex.split(line)]
        ended = CliRunner().invoke(app, [*words, *(SMALL if words[0] == "train-align" else ())])
        assert ended.exit_code == 0, f"brainhive {line}\n{ended.stderr}"
        if "control=permuted" in line:
            assert "at chance" in ended.output

    table = (home / "table1.tex").read_text()
    assert "meaning" in table and "look" in table and "\\toprule" in table and "chance" in table
    assert "Methods" in (home / "supplement.html").read_text()
