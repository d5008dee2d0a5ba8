"""MOSAIC's files, in the layout of its publisher's scripts; few trials, all
grayordinates.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

GRAYORDINATES = 91_282
DATASETS = {
    "NSD": "NaturalScenesDataset",
    "NOD": "NaturalObjectDataset",
    "GOD": "GenericObjectDecoding",
    "HAD": "HumanActionsDataset",
}
LISTS = {
    "train": "train_naturalistic.json",
    "test": "test_naturalistic.json",
    "artificial": "test_artificial.json",
}
Shown = Mapping[str, Sequence[tuple[str, int]]]
"""Files of pictures and their repetitions, by split; `` of what no list names."""


def write_record(root: Path, name: str, shown: Shown, seed: int = 0) -> dict:
    """Write the betas of a record, and add it to the lists; return betas by trial.

    A picture's betas are its own pattern, which all records share, and noise.
    """
    random, folder = np.random.default_rng(seed), DATASETS[name.partition("_")[2]]
    path = root / folder / f"{name}.hdf5"
    path.parent.mkdir(parents=True, exist_ok=True)
    betas = {}
    with h5py.File(path, "w") as file:
        file.attrs["dataset_name"], file.attrs["subjectID"] = folder, name[:6]
        file.attrs["preprocessing_pipeline"] = "fMRIPrepv23.2.0"
        file.attrs["beta_pipeline"] = "GLMsinglev1.2"
        group = file.create_group("betas", track_order=True)
        trials = [
            (picture, split, repetition)
            for split, pictures in shown.items()
            for picture, count in pictures
            for repetition in range(count)
        ]
        for index in random.permutation(len(trials)):
            picture, split, repetition = trials[index]
            phase = "train" if split in ("train", "") else "test"
            stem = picture.rpartition(".")[0]
            trial = f"{name}_stimulus-{stem}_phase-{phase}_rep-{repetition}"
            pattern = np.random.default_rng([*stem.encode()])
            values = pattern.standard_normal(GRAYORDINATES)
            values += random.standard_normal(GRAYORDINATES)
            betas[trial] = values.astype(np.float32)
            written = group.create_dataset(trial, data=betas[trial])
            written.attrs["nan_indices"] = np.array([], int)
            written.attrs["phase"] = phase
            written.attrs["repetition"] = str(repetition)
            written.attrs["presented_stimulus_filename"] = picture
    for split, file_name in LISTS.items():
        listed = root / file_name
        entries = json.loads(listed.read_text()) if listed.exists() else []
        for picture, count in shown.get(split, ()):
            stem, phase = picture.rpartition(".")[0], "test"
            phase = "train" if split == "train" else phase
            entries.append(
                {
                    f"{name}_stimulus-{picture}": [
                        f"{name}_stimulus-{stem}_phase-{phase}_rep-{number}.npz"
                        for number in range(count)
                    ]
                }
            )
        listed.write_text(json.dumps(entries))
    return betas


def write_pictures(root: Path, *records: Shown) -> None:
    """Write the pictures of all splits into one folder, each with pixels of its own."""
    folder = root / "stimuli/raw"
    folder.mkdir(parents=True, exist_ok=True)
    for shown in records:
        for picture, _ in (pair for pairs in shown.values() for pair in pairs):
            if not picture.endswith(".mp4"):
                pixels = np.random.default_rng([*picture.encode()]).integers(
                    0, 255, (24, 24, 3), np.uint8
                )
                Image.fromarray(pixels).save(folder / picture)


def write_shared(root: Path, *people: Mapping[str, str]) -> Path:
    """Write who is the same person: a row a person, a column a study."""
    path = root / "participant_info/participants_shared.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    studies = ("BOLD5000", "NSD", "NOD", "GOD")
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(["participant", *studies])
        for number, person in enumerate(people):
            row = [person.get(study, "n/a") for study in studies]
            writer.writerow([f"person-{number}", *row])
    return path


def list_shown(study: str, train: int = 12, test: int = 6, start: int = 0) -> Shown:
    """List pictures of a study: training pictures once, test pictures twice."""
    names = [f"{study.lower()}-{number:03d}x.png" for number in range(start, 99)]
    return {
        "train": [(name, 1) for name in names[:train]],
        "test": [(name, 2) for name in names[train : train + test]],
        "artificial": [(f"{study}-bar.png", 1), (f"{study}-dot.png", 1)],
    }
