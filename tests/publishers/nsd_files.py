"""NSD's files, and those of MindEye1, MindEye2 and Brain-Diffuser, with few pictures
and voxels.

Names, layouts, dtypes and countings are those that their scripts write; each subject
was shown `SHARED` pictures that all were shown, and `OWN` that nobody else was, three
times each in every session.
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
SHARED, OWN, SESSIONS, TRIALS = 4, 8, 2, 36
"""Pictures that all were shown and that one was, sessions, trials of one (NSD: 1000,
9000, 40, 750).
"""
FIRST_OWN = 1000
"""Column of `subjectim` where the pictures begin that one subject alone was shown;
before are shared ones.
"""
PICTURES = SHARED + len(SUBJECTS) * OWN
VOLUME, PERCENT, SIDE_PX = (3, 4, 5), 300, 32
CAPTIONS = 5


@dataclass(frozen=True)
class Subject:
    """What one subject was shown, and answered.

    Attributes:
        number: From 1.
        rows: [trials] picture of each trial, as a row of imgBrick counted from 0.
        is_test: [trials] whether all were shown it.
        general: [X, Y, Z] labels of nsdgeneral.
        betas: [trials, V] of its voxels in C order, percent × 300.
    """

    number: int
    rows: NDArray[np.int64]
    is_test: NDArray[np.bool_]
    general: NDArray[np.int64]
    betas: NDArray[np.float32]

    @property
    def name(self) -> str:
        """As files have it."""
        return f"subj{self.number:02d}"

    @property
    def scored(self) -> NDArray[np.float32]:
        """The betas, z-scored in each session by its training trials."""
        by_session = self.betas.reshape(SESSIONS, TRIALS, -1) / PERCENT
        known = (~self.is_test).reshape(SESSIONS, TRIALS)
        parts = [
            (b - b[k].mean(0)) / b[k].std(0)
            for b, k in zip(by_session, known, strict=True)
        ]
        return np.concatenate(parts).astype(np.float32)

    def trials_of(self, is_test: bool) -> dict[int, NDArray[np.int64]]:
        """Give the trials of each picture of a split, in the order of first sight."""
        rows = dict.fromkeys(self.rows[self.is_test == is_test].tolist())
        return {row: np.flatnonzero(self.rows == row) for row in rows}


def write(root: Path) -> Path:
    """Write data/nsd, data/naturalscenesdataset (MindEye1's), data/mindeyev2 and
    data/brain_diffuser.
    """
    random, data = np.random.default_rng(0), root / "data"
    order = np.concatenate([_session(random) for _ in range(SESSIONS)])
    pictures = np.stack([_shown_to(subject) for subject in SUBJECTS])
    _write_pictures(data / "nsd", pictures, random)
    causes = random.normal(size=(PICTURES, 4))
    for number in SUBJECTS:
        subject = _answers(
            number,
            pictures[number - 1, order - 1] - 1,
            order <= FIRST_OWN,
            causes,
            random,
        )
        _write_masks(data / "nsd", subject, random)
        _write_mindeye1(data / "naturalscenesdataset", subject)
        _write_mindeye2(data / "mindeyev2", subject)
        _write_brain_diffuser(data / "brain_diffuser/processed_data", subject)
    padded = np.resize(
        order, 750
    )  # no session of the design is shorter; that of the files shows all there is
    experiment = data / "nsd/nsddata/experiments/nsd"
    design = {
        "masterordering": padded[None].astype(float),
        "subjectim": pictures.astype(float),
    }
    savemat(
        experiment / "nsd_expdesign.mat",
        {**design, "sharedix": pictures[:1, :SHARED].astype(float)},
    )
    return root


def _session(random: np.random.Generator) -> NDArray[np.int64]:
    """Draw the masterordering of a session, whose numbers count from 1."""
    numbers = [*range(1, SHARED + 1), *range(FIRST_OWN + 1, FIRST_OWN + OWN + 1)]
    return random.permutation(np.repeat(numbers, 3))


def _shown_to(subject: int) -> NDArray[np.int64]:
    """List `subjectim` of a subject: 73k ids counted from 1; the columns between are of
    no trial.
    """
    ids = np.ones(FIRST_OWN + OWN, np.int64)
    ids[:SHARED] = np.arange(SHARED) + 1
    ids[FIRST_OWN:] = SHARED + (subject - 1) * OWN + np.arange(OWN) + 1
    return ids


def _answers(
    number: int,
    rows: NDArray[np.int64],
    is_test: NDArray[np.bool_],
    causes: Any,
    random: np.random.Generator,
) -> Subject:
    general = random.choice([-1, 0, 1], VOLUME, p=[0.3, 0.2, 0.5])
    weights = random.normal(size=(causes.shape[1], int((general > 0).sum())))
    percent = causes[rows] @ weights + 0.3 * random.normal(
        size=(len(rows), weights.shape[1])
    )
    return Subject(
        number, rows, is_test, general, np.round(PERCENT * percent).astype(np.float32)
    )


def _write_pictures(
    root: Path, pictures: NDArray[np.int64], random: np.random.Generator
) -> None:
    """Write the stimuli, who was shown which of them, and COCO's captions."""
    stimuli, experiment = (
        root / "nsddata_stimuli/stimuli/nsd",
        root / "nsddata/experiments/nsd",
    )
    stimuli.mkdir(parents=True)
    experiment.mkdir(parents=True)
    with h5py.File(stimuli / "nsd_stimuli.hdf5", "w") as file:
        file["imgBrick"] = random.integers(
            0, 256, (PICTURES, SIDE_PX, SIDE_PX, 3), np.uint8
        )
    with (experiment / "nsd_stim_info_merged.csv").open("w", newline="") as file:
        table = csv.writer(file)
        repeats = [
            f"subject{subject}_rep{repeat}"
            for subject in SUBJECTS
            for repeat in range(3)
        ]
        table.writerow(
            ["", "cocoId", "cocoSplit", "nsdId", "flagged", "shared1000", *repeats]
        )
        for row in range(PICTURES):
            shown = [
                1 + row if row + 1 in ids else 0 for ids in pictures for _ in range(3)
            ]
            table.writerow(
                [row, 500_000 + row, "train2017", row, False, row < SHARED, *shown]
            )
    captions = [[f"picture {row} of a thing", "a b", "ab"] for row in range(PICTURES)]
    np.save(
        root / "COCO_73k_annots_curated.npy",
        [each + [""] * (CAPTIONS - len(each)) for each in captions],
    )


def _write_masks(root: Path, subject: Subject, random: np.random.Generator) -> None:
    folder = root / f"nsddata/ppdata/{subject.name}/func1pt8mm/roi"
    folder.mkdir(parents=True)
    visual = np.where(
        subject.general > 0, random.integers(0, 8, VOLUME), subject.general
    )
    for name, labels in (("nsdgeneral", subject.general), ("prf-visualrois", visual)):
        image = nibabel.Nifti1Image(
            labels.astype(np.float32), np.diag([1.8, 1.8, 1.8, 1])
        )
        nibabel.save(image, folder / f"{name}.nii.gz")


def _write_mindeye1(root: Path, subject: Subject) -> None:
    """Write one sample a picture, with its three first trials; two training pictures
    are `val`.
    """
    train, test = (
        list(subject.trials_of(is_test).items()) for is_test in (False, True)
    )
    splits = {"train": train[2:], "val": train[:2], "test": test}
    for split, samples in splits.items():
        path = root / f"webdataset_avg_split/{split}/{split}_{subject.name}_0.tar"
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w") as archive:
            for place, (row, trials) in enumerate(samples):
                name = f"sample{place:09d}"
                content = io.BytesIO()
                Image.new("RGB", (8, 8)).save(content, "JPEG")
                _add(archive, f"{name}.jpg", content.getvalue())
                _add_array(archive, f"{name}.coco73k.npy", np.array([row]))
                _add_array(
                    archive,
                    f"{name}.nsdgeneral.npy",
                    subject.scored[trials[:3]].astype(np.float16),
                )
                _add_array(archive, f"{name}.num_uniques.npy", np.array([3]))
                _add_array(archive, f"{name}.trial.npy", trials[:3])
    totals = {"totals": {split: len(samples) for split, samples in splits.items()}}
    (root / f"webdataset_avg_split/metadata_{subject.name}.json").write_text(
        json.dumps(totals)
    )


def _write_mindeye2(root: Path, subject: Subject) -> None:
    """Write the betas of all trials, and tars of what each trial showed."""
    root.mkdir(parents=True, exist_ok=True)
    with h5py.File(root / f"betas_all_{subject.name}_fp32_renorm.hdf5", "w") as file:
        file["betas"] = subject.scored
    session = np.arange(len(subject.rows)) // TRIALS
    tars = {
        f"train/{s}": np.flatnonzero((session == s) & ~subject.is_test)
        for s in range(SESSIONS)
    }
    for name, trials in {**tars, "new_test/0": np.flatnonzero(subject.is_test)}.items():
        path = root / f"wds/{subject.name}/{name}.tar"
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w") as archive:
            for place, trial in enumerate(trials.tolist()):
                behaviour = np.full((1, 17), -1.0)
                behaviour[0, :6] = (
                    subject.rows[trial],
                    subject.number,
                    session[trial] + 1,
                    1,
                    trial % TRIALS,
                    trial,
                )
                behaviour[0, 16] = subject.is_test[trial]
                for kind in ("behav", "past_behav", "future_behav", "olds_behav"):
                    _add_array(archive, f"sample{place:09d}.{kind}.npy", behaviour)


def _write_brain_diffuser(root: Path, subject: Subject) -> None:
    """Write the mean of each picture's trials, float64 and still × 300, in the order of
    first sight.
    """
    folder = root / subject.name
    folder.mkdir(parents=True)
    for split, is_test in (("train", False), ("test", True)):
        trials = subject.trials_of(is_test).values()
        means = np.stack(
            [subject.betas[each].astype(np.float64).mean(0) for each in trials]
        )
        np.save(
            folder / f"nsd_{split}_fmriavg_nsdgeneral_sub{subject.number}.npy", means
        )
        np.save(
            folder / f"nsd_{split}_cap_sub{subject.number}.npy",
            np.full((len(means), CAPTIONS), "a thing"),
        )


def _add_array(archive: tarfile.TarFile, name: str, values: NDArray[Any]) -> None:
    content = io.BytesIO()
    np.save(content, values)
    _add(archive, name, content.getvalue())


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))
