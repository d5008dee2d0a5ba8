"""The tutorial from epochs or betas to Table 1: its blocks, as they stand there, on the
demo's signals.
"""

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from test_docs import DOCS
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.datasets import Dataset, demo
from brainhive_cli.data.signal_stores import SignalStore

mne = pytest.importorskip("mne")
SMALL = (
    "dim=32",
    "fuser.intermediate_size=32",
    "train.epochs=8",
    "train.lr=2e-3",
    "--seeds",
    "1",
)
SHOWN = {"train": (96, 4), "test": (12, 4)}
"""Pictures of each split, and repetitions."""


def write_pictures(home: Path, world: Dataset, split: str) -> list[str]:
    """Write pictures of the demo where the page says that they lie; name them."""
    stimuli, (count, _) = world.images(split), SHOWN[split]
    names = [f"{split}/{stimuli.concepts[row]}/{row}" for row in range(count)]
    for row, name in enumerate(names):
        path = home / f"pictures/{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        stimuli.open(row).save(path)
    return names


def write_epochs(home: Path) -> None:
    """Write the demo's pictures, and simulated epochs of two subjects, as the page says
    that they lie.
    """
    world = demo.Config(subjects=2, concepts=16, noise=0.3).build(Paths())
    (home / "epochs").mkdir()
    for split, (count, repetitions) in SHOWN.items():
        names = write_pictures(home, world, split)
        for subject in world.subjects:
            found = world.recording(subject, split)
            signal = np.asarray(found.signal[:count])[:, :repetitions]  # [N, R, C, T]
            trials = signal.reshape(-1, *signal.shape[2:]) * 1e-6
            events = np.column_stack(
                [
                    np.arange(len(trials)),
                    np.zeros(len(trials)),
                    np.repeat(range(count), repetitions),
                ]
            )
            info = mne.create_info(list(found.space.names), found.rate_hz, "eeg")
            codes = {name: code for code, name in enumerate(names)}
            epochs = mne.EpochsArray(
                trials, info, events.astype(int), event_id=codes, verbose="ERROR"
            )
            epochs.save(
                home / f"epochs/sub-{subject:02d}_{split}-epo.fif", verbose="ERROR"
            )


def write_betas(home: Path) -> None:
    """Write the demo's pictures, and simulated betas of two subjects, whose pictures
    are named as files.
    """
    world = demo.Config(subjects=2, concepts=16, noise=0.3, space="voxels").build(
        Paths()
    )
    (home / "betas").mkdir()
    for split, (count, _) in SHOWN.items():
        names = np.array([f"{name}.png" for name in write_pictures(home, world, split)])
        for subject in world.subjects:
            recording = world.recording(subject, split)
            counts = recording.repetitions[:count]
            trials = [
                np.asarray(recording.signal[row])[:shown, :, 0]
                for row, shown in enumerate(counts)
            ]
            np.savez(
                home / f"betas/sub-{subject:02d}_{split}.npz",
                betas=np.concatenate(trials),
                pictures=np.repeat(names, counts),
                **{name: recording.space.regions[name] for name in ("V1", "FFA")},
            )


def blocks_of(part: str) -> tuple[str, list[str]]:
    """Find the program of a part of the page, and its lines."""
    (program,) = re.findall(r"```python\n(.*?)```", part, re.DOTALL)
    shell = "".join(re.findall(r"```bash\n(.*?)```", part, re.DOTALL)).replace(
        "\\\n", " "
    )
    return program, re.findall(r"^brainhive (.*)$", shell, re.MULTILINE)


@pytest.fixture(scope="module")
def parts() -> tuple[str, str]:
    """The page from epochs to a table, and its part for fMRI."""
    epochs, _, voxels = (DOCS / "tutorial.md").read_text().partition("\n## 7. fMRI\n")
    return epochs, voxels


def invoke(line: str, names: Mapping[str, str] = MappingProxyType({})) -> str:
    """Run a line of the page, with small models; give what it prints."""
    words = [names.get(word, word) for word in shlex.split(line)]
    ended = CliRunner().invoke(
        app, [*words, *(SMALL if words[0] == "train-align" else ())]
    )
    assert ended.exit_code == 0, f"brainhive {line}\n{ended.stderr}"
    return ended.stdout


def test_the_tutorial_goes_from_epochs_to_a_table(
    home: Path, parts: tuple[str, str]
) -> None:
    program, lines = blocks_of(parts[0])
    write_epochs(home)
    exec(compile(program, "epochs.py", "exec"), {"__name__": "epochs"})

    for line in lines:
        made = sorted(
            (home / "runs/eval-retrieval").glob("*"),
            key=lambda run: run.stat().st_mtime,
        )
        names = dict(zip(("MEANING", "LOOK"), (run.name for run in made), strict=False))
        output = invoke(line, names)
        if "control=permuted" in line:
            assert "not shown to be better than chance" in output

    table = (home / "table1.tex").read_text()
    assert (
        "meaning" in table
        and "look" in table
        and "\\toprule" in table
        and "chance" in table
    )
    assert "Methods" in (home / "supplement.html").read_text()


def test_betas_of_own_fmri_are_trained_on_as_the_tutorial_has_it(
    home: Path, parts: tuple[str, str]
) -> None:
    program, lines = blocks_of(parts[1])
    write_betas(home)
    exec(compile(program, "voxels.py", "exec"), {"__name__": "voxels"})
    store = SignalStore.open(home / "signals/pictures/default/sub-02.h5")
    assert store["train"].image_ids[0].endswith(".png") and [
        *store["train"].space.regions
    ] == ["V1", "FFA"]

    for line in lines[:-1]:
        invoke(line)
    scores = json.loads(invoke(f"{lines[-1]} --json"))["metrics"]["scopes"][
        "all_seed-1 · sub-02"
    ]["top5"]

    assert scores["low"] > scores["chance"] and scores["n"] == SHOWN["test"][0]
