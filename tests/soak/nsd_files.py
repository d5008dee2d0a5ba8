"""Files of NSD with the real design and layout, and a few voxels."""

from dataclasses import dataclass

import h5py
import nibabel
import numpy as np
from scipy.io import savemat

VOLUME, TRIALS = (3, 4, 2), 750
AFFINE = np.diag([1.8, 1.8, 1.8, 1])


@dataclass(frozen=True)
class Truth:
    """Written values of subject 1.

    Attributes:
        rows: Picture [trials], from 0.
        is_test: True [trials] for shared pictures.
        stored: Betas [X, Y, Z, trials], int16.
        masks: Labels [X, Y, Z] by name.
    """

    rows: np.ndarray
    is_test: np.ndarray
    stored: np.ndarray
    masks: dict[str, np.ndarray]


def write(root, sessions=2, ending=".hdf5"):
    """Write the design, masks, noise ceiling and betas of subject 1."""
    rng = np.random.default_rng(3)
    order = rng.permutation(np.repeat(np.arange(10000) + 1, 3))
    pictures = np.stack([rng.permutation(73000)[:10000] + 1 for _ in range(8)])
    folder = root / "nsddata/experiments/nsd"
    folder.mkdir(parents=True)
    savemat(
        folder / "nsd_expdesign.mat",
        {"masterordering": order[None], "subjectim": pictures},
    )
    trial_order = order[: sessions * TRIALS]
    masks = {
        "nsdgeneral": rng.integers(-1, 2, VOLUME),
        "prf-visualrois": rng.integers(-1, 8, VOLUME),
        "floc-faces": rng.integers(-1, 3, VOLUME),
    }
    roi = root / "nsddata/ppdata/subj01/func1pt8mm/roi"
    for name, labels in masks.items():
        save(roi / f"{name}.nii.gz", labels.astype(np.float32))
    shape = VOLUME + (len(trial_order),)
    stored = rng.integers(-900, 900, shape).astype(np.int16)
    betas = root / "nsddata_betas/ppdata/subj01/func1pt8mm/betas_fithrf_GLMdenoise_RR"
    save(betas / "ncsnr.nii.gz", np.arange(24, dtype=np.float32).reshape(VOLUME))
    for session in range(sessions):
        session_betas = stored[..., session * TRIALS : (session + 1) * TRIALS]
        path = betas / f"betas_session{session + 1:02d}{ending}"
        if ending == ".hdf5":
            with h5py.File(path, "w") as file:
                file.create_dataset(
                    "betas", data=session_betas.T, chunks=(TRIALS, 1, 1, 1)
                )
        else:
            save(path, session_betas)
    rows = pictures[0, trial_order - 1] - 1
    return Truth(rows, is_test=trial_order <= 1000, stored=stored, masks=masks)


def save(path, volume):
    """Write a NIfTI file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(volume, AFFINE, dtype=volume.dtype), path)
