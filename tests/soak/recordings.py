"""Recordings as their publishers have them, with a few channels or voxels each, for
prepare to read.
"""

import io
import tarfile
from pathlib import Path

import h5py
import numpy as np

from tests.soak import nsd_files


def write(home: Path) -> None:
    """Write NSD in three forms, THINGS-MEG, and THINGS-EEG as plain arrays."""
    for ending in (".hdf5", ".nii.gz"):
        truth = nsd_files.write(home / f"data/nsd{ending.replace('.', '-')}", 1, ending)
    _mindeye2(home / "data/mindeyev2", truth)
    _meg(home / "data/things-meg")
    _arrays(home / "data/arrays")


def _mindeye2(root: Path, truth: nsd_files.Truth) -> None:
    """Write all trials of a session, and the tars that name a few of them."""
    # [trials, V]
    betas = truth.stored[truth.masks["nsdgeneral"] > 0].T.astype(np.float32)
    for split, folder in ((False, "train"), (True, "new_test")):
        path = root / f"wds/subj01/{folder}/0.tar"
        path.parent.mkdir(parents=True)
        with tarfile.open(path, "w") as tar:
            for trial in np.flatnonzero(truth.is_test == split)[:20].tolist():
                behaviour, content = np.full((1, 17), -1.0), io.BytesIO()
                behaviour[0, [0, 2, 5, 16]] = truth.rows[trial], 1, trial, split
                np.save(content, behaviour)
                member = tarfile.TarInfo(f"sample{trial:09d}.behav.npy")
                member.size = len(content.getvalue())
                tar.addfile(member, io.BytesIO(content.getvalue()))
    with h5py.File(root / "betas_all_subj01_fp32_renorm.hdf5", "w") as file:
        file["betas"] = betas


def _meg(root: Path) -> None:
    """Write epochs of two sessions; where pandas is installed, mne takes no list for
    the table of trials.
    """
    import mne

    trials = [
        ("exp", n + 1, f"images_meg/a{n}/a{n}_01b.jpg", n % 2 + 1) for n in range(8)
    ]
    trials += [
        ("test", 20, "images_test_meg/wig_13s.jpg", session) for session in (1, 2)
    ]
    columns = ("trial_type", "things_category_nr", "image_path", "session_nr")
    table = [dict(zip(columns, trial, strict=True)) for trial in trials]
    signal = np.random.default_rng(0).normal(size=(len(trials), 3, 281))
    info = mne.create_info(["M1", "M2", "M3"], 200.0, "mag", verbose="error")
    events = np.stack(
        [
            np.arange(len(trials)) * 300,
            np.zeros(len(trials)),
            np.arange(len(trials)) + 1,
        ]
    )
    epochs = mne.EpochsArray(
        signal, info, events.T.astype(int), tmin=-0.1, baseline=None, verbose="error"
    )
    try:
        epochs.metadata = table
    except TypeError:
        import pandas

        epochs.metadata = pandas.DataFrame(table)
    root.mkdir(parents=True)
    epochs.save(root / "preprocessed_P1-epo.fif", verbose="error")


def _arrays(root: Path) -> None:
    """Write what NeuroBridge does, and the table that names the pictures."""
    table = {}
    for split, concepts, each, repetitions in (("train", 3, 2, 2), ("test", 2, 1, 4)):
        names = [
            (f"{c + 1:05d}_a{c}", f"a{c}_{n:02d}s.jpg")
            for c in range(concepts)
            for n in range(each)
        ]
        table |= {
            f"{split}_img_concepts": [c for c, _ in names],
            f"{split}_img_files": [f for _, f in names],
        }
        signal = np.random.default_rng(concepts).normal(
            size=(concepts, each, repetitions, 63, 20)
        )
        path = root / f"sub-01/{split}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, signal.astype(np.float32))
    np.save(root / "image_metadata.npy", np.array(table, object), allow_pickle=True)
