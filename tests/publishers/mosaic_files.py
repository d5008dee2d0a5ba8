"""MOSAIC's files in the publisher's layout, with few trials and all grayordinates."""

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
Pictures = Mapping[str, Sequence[tuple[str, int]]]
"""Files of pictures and their repetitions by split. Split `` is in no list."""


def write_record(root: Path, name: str, pictures: Pictures, seed: int = 0) -> dict:
    """Write the betas of a record, add it to the lists, and return betas by trial.

    Betas are noise plus the pattern of the picture, which all records share.
    """
    rng, folder = np.random.default_rng(seed), DATASETS[name.partition("_")[2]]
    path = root / folder / f"{name}.hdf5"
    path.parent.mkdir(parents=True, exist_ok=True)
    betas = {}
    with h5py.File(path, "w") as file:
        file.attrs["dataset_name"], file.attrs["subjectID"] = folder, name[:6]
        file.attrs["preprocessing_pipeline"] = "fMRIPrepv23.2.0"
        file.attrs["beta_pipeline"] = "GLMsinglev1.2"
        group = file.create_group("betas", track_order=True)
        trials = []
        for split, counts in pictures.items():
            for picture, count in counts:
                trials += [(picture, split, repetition) for repetition in range(count)]
        for index in rng.permutation(len(trials)):
            picture, split, repetition = trials[index]
            phase = "train" if split in ("train", "") else "test"
            stem = picture.rpartition(".")[0]
            trial = f"{name}_stimulus-{stem}_phase-{phase}_rep-{repetition}"
            picture_rng = np.random.default_rng(list(stem.encode()))
            values = picture_rng.standard_normal(GRAYORDINATES)
            values += rng.standard_normal(GRAYORDINATES)
            betas[trial] = values.astype(np.float32)
            dataset = group.create_dataset(trial, data=betas[trial])
            dataset.attrs["nan_indices"] = np.array([], int)
            dataset.attrs["phase"] = phase
            dataset.attrs["repetition"] = str(repetition)
            dataset.attrs["presented_stimulus_filename"] = picture
    for split, file_name in LISTS.items():
        list_file = root / file_name
        entries = json.loads(list_file.read_text()) if list_file.exists() else []
        phase = "train" if split == "train" else "test"
        for picture, count in pictures.get(split, ()):
            stem = picture.rpartition(".")[0]
            files = [
                f"{name}_stimulus-{stem}_phase-{phase}_rep-{number}.npz"
                for number in range(count)
            ]
            entries.append({f"{name}_stimulus-{picture}": files})
        list_file.write_text(json.dumps(entries))
    return betas


def write_pictures(root: Path, *records: Pictures) -> None:
    """Write the pictures of all splits into a folder, with pixels drawn by name."""
    folder = root / "stimuli/raw"
    folder.mkdir(parents=True, exist_ok=True)
    for pictures in records:
        for counts in pictures.values():
            for name, _ in counts:
                if not name.endswith(".mp4"):
                    rng = np.random.default_rng(list(name.encode()))
                    pixels = rng.integers(0, 255, (24, 24, 3), np.uint8)
                    Image.fromarray(pixels).save(folder / name)


def write_participants(root: Path, *people: Mapping[str, str]) -> Path:
    """Write a table with the record of each person (rows) in each study (columns)."""
    path = root / "participant_info/participants_shared.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    studies = ("BOLD5000", "NSD", "NOD", "GOD")
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(("participant",) + studies)
        for number, person in enumerate(people):
            records = [person.get(study, "n/a") for study in studies]
            writer.writerow([f"person-{number}"] + records)
    return path


def list_pictures(
    study: str, train: int = 12, test: int = 6, start: int = 0
) -> Pictures:
    """List pictures of a study: training pictures once, test pictures twice."""
    names = [f"{study.lower()}-{number:03d}x.png" for number in range(start, 99)]
    return {
        "train": [(name, 1) for name in names[:train]],
        "test": [(name, 2) for name in names[train : train + test]],
        "artificial": [(f"{study}-bar.png", 1), (f"{study}-dot.png", 1)],
    }
