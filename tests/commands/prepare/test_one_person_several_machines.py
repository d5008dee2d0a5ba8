"""NOD: epochs of EEG and MEG of the same people, as their authors write them, and BOLD;
machines are averaged, and compared with each of them.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from brainhive_cli import api
from brainhive_cli.core.measurements import Measurements
from brainhive_cli.reports.sentences import state_finding

pytest.importorskip("mne")
pytest.importorskip("nibabel")
pytest.importorskip("sklearn")
import mne

from tools.simulated_bids import write_bids

pytestmark = pytest.mark.nightly


PICTURES = 120
"""Of which a twentieth, six, are the test split."""
SENSORS = {"eeg": ["O1", "Oz", "O2", "Pz"], "meg": ["MLO11-4304", "MRO11-4304"]}


def write_fmri(root: Path) -> list[str]:
    """Write two people's BOLD, and the pictures in one folder; return their names."""
    made = root / "nod-fmri"
    write_bids(made, train=PICTURES - 20, test=20)
    folder = root / "nod-eeg/stimuli/ImageNet"
    folder.mkdir(parents=True)
    paths = sorted((made / "stimuli").rglob("*.png"))
    names = {
        path.relative_to(made / "stimuli").as_posix(): f"n01440764_{number}"
        for number, path in enumerate(paths)
    }
    for path, name in names.items():
        Image.open(made / "stimuli" / path).save(folder / f"{name}.JPEG")
    for table in made.rglob("*_events.tsv"):
        events = pd.read_csv(table, sep="\t")
        events["stim_file"] = [
            f"imagenet/{names[path]}.JPEG" for path in events.stim_file
        ]
        events.to_csv(table, sep="\t", index=False)
    for path in [*made.rglob("*task-pictures*")]:
        path.rename(path.with_name(path.name.replace("task-pictures", "task-imagenet")))
    return [*names.values()]


def write_nod(root: Path) -> None:
    """Write two people's epochs of EEG and MEG, -100 to 800 ms at 200 Hz, and BOLD."""
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
            # in standard deviations of the baseline, by the authors' own step
            signal = random.normal(size=(PICTURES, len(channels), 181))
            epochs = mne.EpochsArray(
                signal, info, events, -0.1, {"stim_on": 1}, metadata=metadata
            )
            name = "eeg_epo" if kind == "eeg" else "epo"
            epochs.save(folder / f"sub-{subject:02d}_{name}.fif", verbose="ERROR")


def test_two_machines_of_the_same_people_are_averaged_and_compared_with_each(
    home: Path,
) -> None:
    write_nod(home / "data")
    root = "data/nod-eeg/stimuli/ImageNet"
    pictures = {"kind": "image-folder", "name": "nod", "root": root, "test_share": 0.05}
    api.run("embed", dataset=pictures, encoders=["demo-clip"])
    runs = []
    for kind in (*SENSORS, "fmri"):
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

    measured: Measurements = result.metrics
    facts = measured.facts
    assert facts.modality == "EEG + MEG + fMRI"
    assert "equal numbers have to be the same person" in " ".join(facts.warnings)
    assert [row.second for row in facts.against] == runs
    assert all(row.n == 12 and row.subjects == 2 for row in facts.against)
    finding = state_finding(measured)
    assert "simulated EEG + MEG + fMRI" in finding
    assert all(Path(row.second).name in finding for row in measured.facts.against)
