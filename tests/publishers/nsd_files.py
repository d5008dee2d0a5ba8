"""Files of NSD, MindEye1, MindEye2 and Brain-Diffuser with few pictures and voxels.

Names, layouts, dtypes and index bases agree with the publishers' scripts. Each subject
sees `N_SHARED` pictures that all see and `N_OWN` pictures that no other subject sees,
three times in every session.
"""

import csv
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat

SUBJECTS = range(1, 9)
N_SHARED, N_OWN, N_SESSIONS, N_TRIALS = 4, 8, 2, 36
"""Shared pictures, own pictures, sessions and trials per session (NSD: 1000, 9000, 40,
750).
"""
FIRST_OWN = 1000
"""First column of `subjectim` with a picture that a single subject sees."""
N_PICTURES = N_SHARED + len(SUBJECTS) * N_OWN
VOLUME, SIDE_PX = (3, 4, 5), 32
BETA_SCALE = 300
"""Factor of the published betas: percent × 300."""
CAPTIONS = 5


@dataclass(frozen=True)
class Subject:
    """Trials and betas of a subject.

    Attributes:
        number: Subject number from 1.
        rows: Row of imgBrick [trials], from 0.
        is_test: True [trials] for pictures that all subjects see.
        general: Labels [X, Y, Z] of nsdgeneral.
        betas: Betas [trials, V] in C order, percent × 300.
    """

    number: int
    rows: NDArray[np.int64]
    is_test: NDArray[np.bool_]
    general: NDArray[np.int64]
    betas: NDArray[np.float32]

    @property
    def name(self) -> str:
        """Name in the files, such as `subj01`."""
        return f"subj{self.number:02d}"

    @property
    def scored(self) -> NDArray[np.float32]:
        """Betas, z-scored in each session by its training trials."""
        scores = self.betas.reshape(N_SESSIONS, N_TRIALS, -1) / BETA_SCALE
        is_train = ~self.is_test.reshape(N_SESSIONS, N_TRIALS)
        for session in range(N_SESSIONS):
            train = scores[session][is_train[session]]
            scores[session] = (scores[session] - train.mean(0)) / train.std(0)
        return scores.reshape(self.betas.shape).astype(np.float32)

    def group_trials(self, is_test: bool) -> dict[int, NDArray[np.int64]]:
        """List the trials of each picture of a split, in the order of first sight."""
        rows = dict.fromkeys(self.rows[self.is_test == is_test].tolist())
        return {row: np.flatnonzero(self.rows == row) for row in rows}


def write(root: Path) -> Path:
    """Write data/nsd, data/naturalscenesdataset (MindEye1), data/mindeyev2 and
    data/brain_diffuser.
    """
    rng, data = np.random.default_rng(0), root / "data"
    order = np.concatenate([_draw_session(rng) for _ in range(N_SESSIONS)])
    pictures = np.stack([_list_picture_ids(subject) for subject in SUBJECTS])
    _write_pictures(data / "nsd", pictures, rng)
    features = rng.normal(size=(N_PICTURES, 4))
    for number in SUBJECTS:
        rows = pictures[number - 1, order - 1] - 1
        is_test = order <= FIRST_OWN
        subject = _simulate_subject(number, rows, is_test, features, rng)
        _write_masks(data / "nsd", subject, rng)
        _write_mindeye1(data / "naturalscenesdataset", subject)
        _write_mindeye2(data / "mindeyev2", subject)
        _write_brain_diffuser(data / "brain_diffuser/processed_data", subject)
    # a session of the design has 750 trials
    padded_order = np.resize(order, 750)
    design = {
        "masterordering": padded_order[None].astype(float),
        "subjectim": pictures.astype(float),
        "sharedix": pictures[:1, :N_SHARED].astype(float),
    }
    savemat(data / "nsd/nsddata/experiments/nsd/nsd_expdesign.mat", design)
    return root


def _draw_session(rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw the masterordering [trials] of a session, with numbers from 1."""
    shared = np.arange(1, N_SHARED + 1)
    own_numbers = FIRST_OWN + np.arange(1, N_OWN + 1)
    return rng.permutation(np.repeat(np.concatenate([shared, own_numbers]), 3))


def _list_picture_ids(subject: int) -> NDArray[np.int64]:
    """List `subjectim` of a subject: 73k ids from 1. Other columns are unused."""
    ids = np.ones(FIRST_OWN + N_OWN, np.int64)
    ids[:N_SHARED] = np.arange(N_SHARED) + 1
    ids[FIRST_OWN:] = N_SHARED + (subject - 1) * N_OWN + np.arange(N_OWN) + 1
    return ids


def _simulate_subject(
    number: int,
    rows: NDArray[np.int64],
    is_test: NDArray[np.bool_],
    features: Any,
    rng: np.random.Generator,
) -> Subject:
    """Draw a mask, and betas that are linear in the pictures' features, with noise."""
    general = rng.choice([-1, 0, 1], VOLUME, p=[0.3, 0.2, 0.5])
    n_voxels = int((general > 0).sum())
    weights = rng.normal(size=(features.shape[1], n_voxels))
    noise = rng.normal(size=(len(rows), n_voxels))
    percent = features[rows] @ weights + 0.3 * noise
    betas = np.round(BETA_SCALE * percent).astype(np.float32)
    return Subject(number, rows, is_test, general, betas)


def _write_pictures(
    root: Path, pictures: NDArray[np.int64], rng: np.random.Generator
) -> None:
    """Write the stimuli, the table of their presentations, and COCO's captions."""
    stimuli = root / "nsddata_stimuli/stimuli/nsd"
    experiment = root / "nsddata/experiments/nsd"
    stimuli.mkdir(parents=True)
    experiment.mkdir(parents=True)
    with h5py.File(stimuli / "nsd_stimuli.hdf5", "w") as file:
        file["imgBrick"] = rng.integers(
            0, 256, (N_PICTURES, SIDE_PX, SIDE_PX, 3), np.uint8
        )
    with (experiment / "nsd_stim_info_merged.csv").open("w", newline="") as file:
        table = csv.writer(file)
        columns = ["", "cocoId", "cocoSplit", "nsdId", "flagged", "shared1000"]
        for subject in SUBJECTS:
            columns += [f"subject{subject}_rep{repeat}" for repeat in range(3)]
        table.writerow(columns)
        for row in range(N_PICTURES):
            cells: list[object] = [row, 500_000 + row, "train2017", row, False]
            cells.append(row < N_SHARED)
            for ids in pictures:
                cells += [1 + row if row + 1 in ids else 0] * 3
            table.writerow(cells)
    captions = np.full((N_PICTURES, CAPTIONS), "", object)
    captions[:, 0] = [f"picture {row} of a thing" for row in range(N_PICTURES)]
    captions[:, 1:3] = "a b", "ab"
    np.save(root / "COCO_73k_annots_curated.npy", captions.astype(str))


def _write_masks(root: Path, subject: Subject, rng: np.random.Generator) -> None:
    folder = root / f"nsddata/ppdata/{subject.name}/func1pt8mm/roi"
    folder.mkdir(parents=True)
    is_inside = subject.general > 0
    visual = np.where(is_inside, rng.integers(0, 8, VOLUME), subject.general)
    affine = np.diag([1.8, 1.8, 1.8, 1])
    for name, labels in (("nsdgeneral", subject.general), ("prf-visualrois", visual)):
        image = nibabel.Nifti1Image(labels.astype(np.float32), affine)
        nibabel.save(image, folder / f"{name}.nii.gz")


def _write_mindeye1(root: Path, subject: Subject) -> None:
    """Write a sample for each picture, with its first three trials. Two training
    pictures are `val`.
    """
    train = list(subject.group_trials(False).items())
    test = list(subject.group_trials(True).items())
    splits = {"train": train[2:], "val": train[:2], "test": test}
    for split, samples in splits.items():
        path = root / f"webdataset_avg_split/{split}/{split}_{subject.name}_0.tar"
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w") as archive:
            for index, (row, trials) in enumerate(samples):
                name = f"sample{index:09d}"
                content = io.BytesIO()
                Image.new("RGB", (8, 8)).save(content, "JPEG")
                betas = subject.scored[trials[:3]].astype(np.float16)
                _add_file(archive, f"{name}.jpg", content.getvalue())
                _add_array(archive, f"{name}.coco73k.npy", np.array([row]))
                _add_array(archive, f"{name}.nsdgeneral.npy", betas)
                _add_array(archive, f"{name}.num_uniques.npy", np.array([3]))
                _add_array(archive, f"{name}.trial.npy", trials[:3])
    totals = {"totals": {split: len(samples) for split, samples in splits.items()}}
    (root / f"webdataset_avg_split/metadata_{subject.name}.json").write_text(
        json.dumps(totals)
    )


def _write_mindeye2(root: Path, subject: Subject) -> None:
    """Write the betas of all trials, and archives with the behaviour of each trial."""
    root.mkdir(parents=True, exist_ok=True)
    with h5py.File(root / f"betas_all_{subject.name}_fp32_renorm.hdf5", "w") as file:
        file["betas"] = subject.scored
    session = np.arange(len(subject.rows)) // N_TRIALS
    trials_by_archive = {"new_test/0": np.flatnonzero(subject.is_test)}
    for number in range(N_SESSIONS):
        is_train = (session == number) & ~subject.is_test
        trials_by_archive[f"train/{number}"] = np.flatnonzero(is_train)
    for name, trials in trials_by_archive.items():
        path = root / f"wds/{subject.name}/{name}.tar"
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w") as archive:
            for index, trial in enumerate(trials.tolist()):
                behaviour = np.full((1, 17), -1.0)
                behaviour[0, :6] = (
                    subject.rows[trial],
                    subject.number,
                    session[trial] + 1,
                    1,
                    trial % N_TRIALS,
                    trial,
                )
                behaviour[0, 16] = subject.is_test[trial]
                for kind in ("behav", "past_behav", "future_behav", "olds_behav"):
                    _add_array(archive, f"sample{index:09d}.{kind}.npy", behaviour)


def _write_brain_diffuser(root: Path, subject: Subject) -> None:
    """Write mean betas per picture (float64, × 300) in the order of first sight."""
    folder = root / subject.name
    folder.mkdir(parents=True)
    for split, is_test in (("train", False), ("test", True)):
        betas = subject.betas.astype(np.float64)
        groups = subject.group_trials(is_test).values()
        means = np.stack([betas[trials].mean(0) for trials in groups])
        captions = np.full((len(means), CAPTIONS), "a thing")
        file_end = f"sub{subject.number}.npy"
        np.save(folder / f"nsd_{split}_fmriavg_nsdgeneral_{file_end}", means)
        np.save(folder / f"nsd_{split}_cap_{file_end}", captions)


def _add_array(archive: tarfile.TarFile, name: str, values: NDArray[Any]) -> None:
    content = io.BytesIO()
    np.save(content, values)
    _add_file(archive, name, content.getvalue())


def _add_file(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))
