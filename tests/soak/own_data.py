"""A lab's own recordings of the soak's pictures: single-trial betas, BOLD in BIDS,
EEG.
"""

import json
from pathlib import Path

import numpy as np

SHAPE, AFFINE = (3, 4, 5), np.diag([2.0, 2.0, 2.0, 1.0])
INSIDE = np.random.default_rng(0).random(SHAPE) < 0.4
TR_S, VOLUMES, EVERY_S = 2.0, 60, 8


def write(home: Path) -> None:
    """Write all of them below `data/`."""
    pictures = [
        f"concept_{concept}/{number}.png" for concept in range(4) for number in range(3)
    ]
    _betas(home / "data/own-betas", pictures)
    _bold(home / "data/own-bold", pictures)
    _eeg(home / "data/own-eeg", pictures)


def _save(path: Path, values: np.ndarray) -> None:
    import nibabel

    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, AFFINE), path)


def _betas(root: Path, pictures: list[str]) -> None:
    """Write two sessions, a mask, an atlas with its table, and a region of
    FreeSurfer.
    """
    import nibabel

    random = np.random.default_rng(1)
    lines = "".join(f"{name},{1 + trial % 2}\n" for trial, name in enumerate(pictures))
    for ending in ("nii.gz", "npz"):
        name = f"sub-01_ses-{1 + (ending == 'npz'):02d}"
        values = random.normal(size=(len(pictures), INSIDE.sum())).astype(np.float32)
        if ending == "npz":
            np.savez_compressed(root / f"{name}_betas.npz", betas=values)
        else:
            volumes = np.zeros((*SHAPE, len(pictures)), np.float32)
            volumes[INSIDE] = values.T
            _save(root / f"{name}_betas.nii.gz", volumes)
        (root / f"{name}_trials.csv").write_text(f"picture,run\n{lines}")
    _save(root / "sub-01_mask.nii.gz", INSIDE.astype(np.uint8))
    atlas = np.where(INSIDE, random.integers(1, 4, SHAPE), 0).astype(np.int16)
    _save(root / "sub-01_atlas.nii.gz", atlas)
    (root / "sub-01_atlas.tsv").write_text("index\tname\n1\tV1\n2\tV2\n3\tV3\n")
    nibabel.save(
        nibabel.MGHImage((atlas > 1).astype(np.uint8), AFFINE),
        root / "sub-01_region.mgz",
    )


def _bold(root: Path, pictures: list[str]) -> None:
    """Write events of two runs, and BOLD as fMRIPrep leaves it: volumes and
    surfaces.
    """
    import nibabel

    random = np.random.default_rng(2)
    derived = root / "derivatives/fmriprep/sub-01/func"
    derived.mkdir(parents=True)
    (root / "sub-01/func").mkdir(parents=True)
    about = json.dumps({"Name": "soak", "BIDSVersion": "1.8.0"})
    (root / "dataset_description.json").write_text(about)
    (root / "task-images_bold.json").write_text(json.dumps({"RepetitionTime": TR_S}))
    for run in (1, 2):
        name = f"sub-01_task-images_run-{run}"
        shown = random.permutation(pictures)
        rows = "".join(
            f"{4 + EVERY_S * trial}\t1\t{picture}\n"
            for trial, picture in enumerate(shown)
        )
        (root / f"sub-01/func/{name}_events.tsv").write_text(
            f"onset\tduration\tstim_file\n{rows}"
        )
        columns = [f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz"] + [
            "cosine00"
        ]
        values = random.normal(size=(VOLUMES, len(columns)))
        lines = [
            "\t".join(columns),
            *("\t".join(f"{value:.4f}" for value in row) for row in values),
        ]
        (derived / f"{name}_desc-confounds_timeseries.tsv").write_text(
            "\n".join(lines) + "\n"
        )
        about = json.dumps({"StartTime": 1.0, "SliceTimingCorrected": True})
        for space in ("T1w", "fsaverage5"):
            (derived / f"{name}_space-{space}_desc-preproc_bold.json").write_text(about)
        series = random.normal(100, 1, (*SHAPE, VOLUMES)).astype(np.float32)
        _save(derived / f"{name}_space-T1w_desc-preproc_bold.nii.gz", series)
        _save(
            derived / f"{name}_space-T1w_desc-brain_mask.nii.gz",
            INSIDE.astype(np.uint8),
        )
        for side in "LR":
            arrays = [
                nibabel.gifti.GiftiDataArray(
                    random.normal(100, 1, 12).astype(np.float32)
                )
                for _ in range(VOLUMES)
            ]
            path = derived / f"{name}_hemi-{side}_space-fsaverage5_bold.func.gii"
            nibabel.save(nibabel.gifti.GiftiImage(darrays=arrays), path)


def _eeg(root: Path, pictures: list[str]) -> None:
    """Write a session with annotations in each format that labs have."""
    import mne

    root.mkdir(parents=True)
    signal = np.random.default_rng(3).normal(
        scale=1e-5, size=(5, 100 * (len(pictures) + 3))
    )
    header = mne.create_info(["Cz", "Pz", "O1", "O2", "P7"], 100.0, "eeg")
    raw = mne.io.RawArray(signal, header, verbose="ERROR")
    raw.set_annotations(mne.Annotations(1.0 + np.arange(len(pictures)), 0.0, pictures))
    for session, ending in enumerate(("fif", "fif.gz", "edf", "vhdr"), 1):
        path = root / f"sub-01_ses-{session:02d}_eeg.{ending}"
        if "fif" in ending:
            raw.save(path, verbose="ERROR")
        else:
            mne.export.export_raw(path, raw, verbose="ERROR")
