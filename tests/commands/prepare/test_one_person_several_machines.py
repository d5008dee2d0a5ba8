"""Tests with EEG, MEG and fMRI of the same people, in the files of NOD."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from brainhive_cli import api
from brainhive_cli.reports.sentences.sentences import state_finding

pytest.importorskip("mne")
pytest.importorskip("nibabel")
pytest.importorskip("sklearn")
import mne

from tools.simulated_bids import write_bids

pytestmark = pytest.mark.nightly


PICTURES = 120
"""Number of pictures. The test split has a twentieth of them, which is six."""
SENSORS = {"eeg": ["O1", "Oz", "O2", "Pz"], "meg": ["MLO11-4304", "MRO11-4304"]}


def write_fmri(root):
    """Write the BOLD of two people and a folder of pictures.

    Returns:
        Names of the pictures, without the ending.
    """
    bids_folder = root / "nod-fmri"
    write_bids(bids_folder, train=PICTURES - 20, test=20)
    folder = root / "nod-eeg/stimuli/ImageNet"
    folder.mkdir(parents=True)
    paths = sorted((bids_folder / "stimuli").rglob("*.png"))
    names = {
        path.relative_to(bids_folder / "stimuli").as_posix(): f"n01440764_{number}"
        for number, path in enumerate(paths)
    }
    for path, name in names.items():
        Image.open(bids_folder / "stimuli" / path).save(folder / f"{name}.JPEG")
    for table in bids_folder.rglob("*_events.tsv"):
        events = pd.read_csv(table, sep="\t")
        events["stim_file"] = [
            f"imagenet/{names[path]}.JPEG" for path in events.stim_file
        ]
        events.to_csv(table, sep="\t", index=False)
    for path in list(bids_folder.rglob("*task-pictures*")):
        path.rename(path.with_name(path.name.replace("task-pictures", "task-imagenet")))
    return list(names.values())


def write_nod(root):
    """Write BOLD, EEG and MEG of two people. Epochs have -100 to 800 ms at 200 Hz."""
    random = np.random.default_rng(0)
    ids = write_fmri(root)
    for kind, channels in SENSORS.items():
        info = mne.create_info(channels, 200.0, "eeg" if kind == "eeg" else "mag")
        folder = root / f"nod-{kind}/derivatives/preprocessed/epochs"
        folder.mkdir(parents=True)
        for subject in (1, 2):
            order = random.permutation(PICTURES)
            metadata = pd.DataFrame(
                {
                    "task": "ImageNet",
                    "subject": f"{subject:02d}",
                    "session": [f"ImageNet0{1 + row // 60}" for row in range(PICTURES)],
                    "run": [f"{1 + row % 60 // 30:02d}" for row in range(PICTURES)],
                    "image_id": [ids[row] for row in order],
                    "stim_is_animate": True,
                }
            )
            events = np.c_[200 * np.arange(PICTURES), 0 * order, 1 + 0 * order]
            # the unit is the standard deviation of the baseline, as in the files of NOD
            signal = random.normal(size=(PICTURES, len(channels), 181))
            epochs = mne.EpochsArray(
                signal, info, events, -0.1, {"stim_on": 1}, metadata=metadata
            )
            name = "eeg_epo" if kind == "eeg" else "epo"
            epochs.save(folder / f"sub-{subject:02d}_{name}.fif", verbose="ERROR")


def test_recordings_of_two_machines_are_averaged_and_compared(
    home,
):
    write_nod(home / "data")
    root = "data/nod-eeg/stimuli/ImageNet"
    pictures = {"kind": "image-folder", "name": "nod", "root": root, "test_share": 0.05}
    api.run("embed", dataset=pictures, encoders=["demo-clip"])
    runs = []
    for kind in tuple(SENSORS) + ("fmri",):
        recipe = f"studies/nod-{kind}"
        api.run("prepare", recipe)
        trained = api.run(
            "train-align",
            recipe,
            encoders=["demo-clip"],
            seeds=[1],
            train={"epochs": 1, "batch_size": 64},
        )
        runs.append(str(trained.folder))
    result = api.run("eval-retrieval", "studies/nod", align_run=runs, sheet_rows=0)

    metrics = result.metrics
    facts = metrics.facts
    assert facts.modality == "EEG + MEG + fMRI"
    # a warning asks for equal numbers of the same person
    assert "person" in " ".join(facts.warnings)
    assert [difference.second for difference in facts.against] == runs
    for difference in facts.against:
        assert (difference.n, difference.subjects) == (12, 2)
    finding = state_finding(metrics)
    assert "simulated EEG + MEG + fMRI" in finding
    for finished_run in runs:
        assert Path(finished_run).name in finding
