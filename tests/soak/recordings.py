"""Published recordings with a few channels or voxels, for `prepare` to read."""

import io
import tarfile

import h5py
import numpy as np

from tests.soak import nsd_files


def write(home):
    """Write NSD in three forms, THINGS-MEG, and THINGS-EEG as plain arrays."""
    for ending in (".hdf5", ".nii.gz"):
        truth = nsd_files.write(home / f"data/nsd{ending.replace('.', '-')}", 1, ending)
    _write_mindeye2(home / "data/mindeyev2", truth)
    _write_meg(home / "data/things-meg")
    _write_arrays(home / "data/arrays")


def _write_mindeye2(root, truth):
    """Write all trials of a session, and archives that name a few trials."""
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
                member.size = content.tell()
                content.seek(0)
                tar.addfile(member, content)
    with h5py.File(root / "betas_all_subj01_fp32_renorm.hdf5", "w") as file:
        file["betas"] = betas


def _write_meg(root):
    """Write epochs of two sessions with a table of trials."""
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
    events = np.zeros((len(trials), 3), int)
    events[:, 0] = np.arange(len(trials)) * 300
    events[:, 2] = np.arange(len(trials)) + 1
    epochs = mne.EpochsArray(
        signal, info, events, tmin=-0.1, baseline=None, verbose="error"
    )
    try:
        epochs.metadata = table
    except TypeError:  # mne takes no list if pandas is installed
        import pandas

        epochs.metadata = pandas.DataFrame(table)
    root.mkdir(parents=True)
    epochs.save(root / "preprocessed_P1-epo.fif", verbose="error")


def _write_arrays(root):
    """Write NeuroBridge's arrays, and the table that names the pictures."""
    table = {}
    shapes = {"train": (3, 2, 2), "test": (2, 1, 4)}
    for split, (n_concepts, n_pictures, n_repetitions) in shapes.items():
        concepts, files = [], []
        for concept in range(n_concepts):
            concepts += [f"{concept + 1:05d}_a{concept}"] * n_pictures
            files += [f"a{concept}_{n:02d}s.jpg" for n in range(n_pictures)]
        table |= {f"{split}_img_concepts": concepts, f"{split}_img_files": files}
        shape = (n_concepts, n_pictures, n_repetitions, 63, 20)
        signal = np.random.default_rng(n_concepts).normal(size=shape)
        path = root / f"sub-01/{split}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, signal.astype(np.float32))
    np.save(root / "image_metadata.npy", np.array(table, object), allow_pickle=True)
