"""The tutorials, and what the page of data has for epochs and betas: their blocks, as
they stand there, on the files of the EEG tutorial or on the demo's signals.
"""

import json
import re
import shlex
import subprocess
from types import MappingProxyType

import numpy as np
import pytest
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.core.recipes.recipe import Paths
from brainhive_cli.data.datasets import demo
from brainhive_cli.data.stores.signal_store import SignalStore
from tests.docs.test_docs import DOCS

pytest.importorskip("nibabel")
pytest.importorskip("sklearn")
from tools.simulated_bids import write_bids

pytestmark = pytest.mark.nightly


mne = pytest.importorskip("mne")

SMALL = {
    "train-align": ("train.epochs=8", "train.lr=2e-3", "--seeds", "1"),
    "explain": ("draws=50",),
    "reconstruct": ("items=2", "steps=1", "metrics=pixcorr", "sheet_rows=0"),
}
"""What makes each command small."""
NARROW = ("dim=32", "fuser.intermediate_size=32")
"""What makes models small where no prior says their size."""
SHOWN = {"train": (96, 4), "test": (12, 4)}
"""Pictures of each split, and repetitions."""


def write_pictures(home, world, split):
    """Write pictures of the demo where the pages say that they lie; name them."""
    stimuli, (count, _) = world.images(split), SHOWN[split]
    names = [f"{split}/{stimuli.concepts[row]}/{row}" for row in range(count)]
    for row, name in enumerate(names):
        path = home / f"data/image-folder/{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        stimuli.open(row).save(path)
    return names


def simulate_trials(home, world, subject, split):
    """Write the pictures of a split, and simulate volts [N, R, C, T] of a subject."""
    count, repetitions = SHOWN[split]
    trials = world.recording(subject, split)
    signal = trials.take(np.arange(count)).as_repetitions()[:, :repetitions]
    return write_pictures(home, world, split), trials, signal * 1e-6


def read_first_trial(home, picture):
    """Read the first trial [C, T] of a picture from the files, in microvolts."""
    table = (home / "data/recordings/events.csv").read_text().splitlines()[1:]
    picture_of_code = dict(line.split(",") for line in table)
    path = home / "data/recordings/sub-01_ses-01.vhdr"
    raw = mne.io.read_raw(path, preload=True, verbose="ERROR")
    codes = [
        text.removeprefix("Stimulus/S").strip() for text in raw.annotations.description
    ]
    pictures = [picture_of_code[code] for code in codes]
    onset_s = raw.annotations.onset[pictures.index(f"{picture}.jpg")]
    onset = round(onset_s * raw.info["sfreq"])
    signal_uv = raw.get_data(start=onset - 50, stop=onset + 250) * 1e6
    baseline = signal_uv[:, :51].mean(1, keepdims=True)  # -200 to 0 ms
    return np.asarray(signal_uv[:, 50:] - baseline)


def write_epochs(home):
    """Write the demo's pictures, and simulated epochs of two subjects in the two forms
    of the page; return the variables of its program, of subject 1.
    """
    world = demo.Config(subjects=2, concepts=16, noise=0.3).build(Paths())
    folder = home / "data/recordings"
    folder.mkdir(parents=True)
    for subject in reversed(world.subjects):
        image_names, parts = [], []
        for split, (_, repetitions) in SHOWN.items():
            names, simulated, signal = simulate_trials(home, world, subject, split)
            image_names += [f"{name}.png" for name in names for _ in range(repetitions)]
            parts.append(signal.reshape(-1, *signal.shape[2:]))
        trials, channels = np.concatenate(parts), list(simulated.space.names)
        stem = f"sub-{subject:02d}_ses-01"
        if subject == 2:
            facts = {"ch_names": channels, "times": simulated.times_s, "unit": "V"}
            np.savez(folder / f"{stem}.npz", X=trials, picture=image_names, **facts)
            continue
        info = mne.create_info(channels, simulated.rate_hz, "eeg")
        epochs = mne.EpochsArray(trials, info, verbose="ERROR")
        epochs.save(folder / f"{stem}-epo.fif", verbose="ERROR")
        lines = [f"{name},{1 + row // 50}" for row, name in enumerate(image_names)]
        table = "\n".join(["picture,run"] + list(lines)) + "\n"
        (folder / f"{stem}_trials.csv").write_text(table)
    voxels = demo.Config(subjects=1, concepts=16, noise=0.3, space="voxels").build(
        Paths()
    )
    betas = [
        voxels.recording(1, split).as_repetitions()[:count, :repetitions, :, 0]
        for split, (count, repetitions) in SHOWN.items()
    ]
    mask = voxels.recording(1, "test").space.regions["FFA"]
    betas = np.concatenate([beta.reshape(-1, beta.shape[-1]) for beta in betas])
    return {"epochs": epochs, "shown": image_names, "betas": betas, "mask": mask}


def blocks_of(text, language):
    """Find the blocks of a text in a language."""
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def lines_of(text):
    """Find the lines of a text's shell blocks."""
    shell = "".join(blocks_of(text, "bash")).replace("\\\n", " ")
    return shell.splitlines()


def invoke(line, names=MappingProxyType({})):
    """Run a line of a page, with small models; give what it prints."""
    arguments = [names.get(argument, argument) for argument in shlex.split(line)[1:]]
    small = SMALL.get(arguments[0], ()) if "--check" not in arguments else ()
    if arguments[0] == "train-align" and not {"--recipe", "--prior"} & set(arguments):
        small = ()  # the ridge of few pictures
    elif arguments[0] == "train-align" and "--prior" not in arguments:
        small += NARROW
    ended = CliRunner().invoke(app, list(arguments) + list(small))
    assert ended.exit_code == 0, f"{line}\n{ended.stderr}"
    return ended.stdout


def read_score(home, number, metric="top5"):
    """Read a metric over all pictures of an evaluation, counted from the oldest."""
    files = sorted(
        home.glob("runs/eval-retrieval/*/metrics.json"),
        key=lambda path: path.stat().st_mtime,
    )
    return json.loads(files[number].read_text())["scopes"]["all"][metric]


def test_the_eeg_tutorial_goes_from_files_to_a_table(home):
    text = (DOCS / "tutorial-eeg.md").read_text()
    for line in lines_of(text):
        paths = sorted(
            (home / "runs/eval-retrieval").glob("*"),
            key=lambda value: value.stat().st_mtime,
        )
        names = dict(
            zip(("MEANING", "LOOK"), (value.name for value in paths), strict=False)
        )
        output = invoke(line, names)
        if "control=permuted" in line:
            control = read_score(home, number=-1, metric="top1")
            assert control["low"] < control["chance"]
        if line.startswith("brainhive prepare") and "--check" not in line:
            assert "simulated" in output

    # whitening is undone by the block of the page of data
    block = (DOCS / "data.md").read_text().partition("\n## Microvolts")[2]
    path = home / "signals/image-folder/default/sub-01.h5"
    names_of = {"path": path}
    exec(compile(blocks_of(block, "python")[0], "unwhiten.py", "exec"), names_of)
    picture = names_of["test"].image_ids[0]
    np.testing.assert_allclose(
        names_of["microvolts"], read_first_trial(home, picture), atol=1e-3
    )

    # the first encoder is above chance, and the page has the numbers of each
    hits = []
    for value in (0, 1):
        score = read_score(home, value, "top1")
        assert (score["low"] > score["chance"]) == (value == 0)
        assert score["chance"] == pytest.approx(1 / 12)
        assert score["n"] == 24  # 12 pictures, 2 people
        assert f"{100 * score['value']:.3g} %" in text
        hits.append(score["value"])
    assert hits[0] > hits[1]
    table = (home / "table1.tex").read_text()
    assert "meaning" in table
    assert "look" in table
    assert "\\toprule" in table
    assert "chance" in table
    assert "simulated" in table
    assert "Methods" in (home / "supplement.html").read_text()


def test_the_tutorial_leads_from_epochs_and_betas_to_results(home, monkeypatch):
    monkeypatch.setitem(SHOWN, "train", (60, 4))
    variables = write_epochs(home)
    page = (DOCS / "data.md").read_text()
    section = page.partition("### Epochs and arrays in files\n")[2]
    for line in lines_of(section.partition("\n### ")[0]):
        invoke(f"{line} preparation.whiten=no")

    # what was recorded, by picture, of an array and of epochs with the runs of a table
    world = demo.Config(subjects=2, concepts=16, noise=0.3).build(Paths())
    for subject in world.subjects:
        path = home / f"signals/image-folder/default/sub-{subject:02d}.h5"
        store = SignalStore.open(path)["test"]
        pictures, _, signal = simulate_trials(home, world, subject, "test")
        rows = [store.pictures.index(picture) for picture in pictures]
        expected = signal * 1e6
        as_repetition = store.as_repetitions()[rows]
        np.testing.assert_allclose(as_repetition, expected, atol=1e-2)
        assert np.unique(store.runs).tolist() == ([5, 6] if subject == 1 else [0])

    # trials in memory, by the program
    (home / "pictures").symlink_to(home / "data/image-folder")
    section = page.partition("### In Python\n")[2].partition("\n### ")[0]
    (program,) = blocks_of(section, "python")
    exec(compile(program, "data.md", "exec"), variables)
    for value in (0, 1):
        score = read_score(home, value)
        assert score["low"] > score["chance"]
        assert score["n"] == SHOWN["test"][0]
    path = home / "signals/image-folder/default/sub-01.h5"
    store = SignalStore.open(path)["train"]
    assert list(store.space.regions) == ["V1"]
    assert store.unit == "beta"


def test_the_fmri_tutorial_leads_from_bids_to_pictures(home):
    page = (DOCS / "tutorial-fmri.md").read_text()
    (home / "data").mkdir()

    for line in lines_of(page.partition("\n## Start from betas\n")[0]):
        if line.startswith("python "):  # a smaller data set
            write_bids(home / line.split()[-1], subjects=1, train=120, test=20)
        elif line.startswith("ln "):
            subprocess.run(shlex.split(line), check=True)
        else:
            output = invoke(line)
        if line == "brainhive explain":
            assert "early" in output
            assert "higher" in output

    score = read_score(home, 0)
    assert score["low"] > score["chance"]
    assert score["n"] == 20
    assert "prior trained on other pictures" in output  # those of the demo
    assert list((home / "runs/reconstruct").rglob("*.png"))
