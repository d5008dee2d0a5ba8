"""A lab's own recordings: single-trial betas, BOLD in BIDS and EEG."""

import json

import numpy as np

SHAPE, AFFINE = (3, 4, 5), np.diag([2.0, 2.0, 2.0, 1.0])
MASK = np.random.default_rng(0).random(SHAPE) < 0.4
TR_S, VOLUMES, ONSET_INTERVAL_S = 2.0, 60, 8


def write(home):
    """Write all recordings below `data/`."""
    pictures = [
        f"concept_{concept}/{number}.png" for concept in range(4) for number in range(3)
    ]
    _write_betas(home / "data/own-betas", pictures)
    _write_bold(home / "data/own-bold", pictures)
    _write_eeg(home / "data/own-eeg", pictures)


def _save_nifti(path, values):
    import nibabel

    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, AFFINE), path)


def _write_betas(root, pictures):
    """Write two sessions, a mask, an atlas with a table, and a FreeSurfer region."""
    import nibabel

    rng = np.random.default_rng(1)
    lines = "".join(f"{name},{1 + trial % 2}\n" for trial, name in enumerate(pictures))
    for ending in ("nii.gz", "npz"):
        name = f"sub-01_ses-{1 + (ending == 'npz'):02d}"
        values = rng.normal(size=(len(pictures), MASK.sum())).astype(np.float32)
        if ending == "npz":
            np.savez_compressed(root / f"{name}_betas.npz", betas=values)
        else:
            volumes = np.zeros(SHAPE + (len(pictures),), np.float32)
            volumes[MASK] = values.T
            _save_nifti(root / f"{name}_betas.nii.gz", volumes)
        (root / f"{name}_trials.csv").write_text(f"picture,run\n{lines}")
    _save_nifti(root / "sub-01_mask.nii.gz", MASK.astype(np.uint8))
    atlas = np.where(MASK, rng.integers(1, 4, SHAPE), 0).astype(np.int16)
    _save_nifti(root / "sub-01_atlas.nii.gz", atlas)
    (root / "sub-01_atlas.tsv").write_text("index\tname\n1\tV1\n2\tV2\n3\tV3\n")
    nibabel.save(
        nibabel.MGHImage((atlas > 1).astype(np.uint8), AFFINE),
        root / "sub-01_region.mgz",
    )


def _write_bold(root, pictures):
    """Write events of two runs, and fMRIPrep's BOLD in volumes and on surfaces."""
    import nibabel

    rng = np.random.default_rng(2)
    derived = root / "derivatives/fmriprep/sub-01/func"
    derived.mkdir(parents=True)
    (root / "sub-01/func").mkdir(parents=True)
    description = json.dumps({"Name": "soak", "BIDSVersion": "1.8.0"})
    (root / "dataset_description.json").write_text(description)
    (root / "task-images_bold.json").write_text(json.dumps({"RepetitionTime": TR_S}))
    for run_number in (1, 2):
        name = f"sub-01_task-images_run-{run_number}"
        lines = ["onset\tduration\tstim_file"]
        for trial, picture in enumerate(rng.permutation(pictures)):
            lines.append(f"{4 + ONSET_INTERVAL_S * trial}\t1\t{picture}")
        events = root / f"sub-01/func/{name}_events.tsv"
        events.write_text("\n".join(lines) + "\n")
        columns = "trans_x trans_y trans_z rot_x rot_y rot_z cosine00".split()
        lines = ["\t".join(columns)]
        for row in rng.normal(size=(VOLUMES, len(columns))):
            lines.append("\t".join(f"{value:.4f}" for value in row))
        confounds = derived / f"{name}_desc-confounds_timeseries.tsv"
        confounds.write_text("\n".join(lines) + "\n")
        sidecar = json.dumps({"StartTime": 1.0, "SliceTimingCorrected": True})
        for space in ("T1w", "fsaverage5"):
            path = derived / f"{name}_space-{space}_desc-preproc_bold.json"
            path.write_text(sidecar)
        series = rng.normal(100, 1, SHAPE + (VOLUMES,)).astype(np.float32)
        _save_nifti(derived / f"{name}_space-T1w_desc-preproc_bold.nii.gz", series)
        _save_nifti(
            derived / f"{name}_space-T1w_desc-brain_mask.nii.gz",
            MASK.astype(np.uint8),
        )
        for hemisphere in "LR":
            image = nibabel.gifti.GiftiImage()
            for volume in rng.normal(100, 1, (VOLUMES, 12)).astype(np.float32):
                image.add_gifti_data_array(nibabel.gifti.GiftiDataArray(volume))
            file_name = f"{name}_hemi-{hemisphere}_space-fsaverage5_bold.func.gii"
            nibabel.save(image, derived / file_name)


def _write_eeg(root, pictures):
    """Write a session with annotations in each file format."""
    import mne

    root.mkdir(parents=True)
    shape = (5, 100 * (len(pictures) + 3))
    signal = np.random.default_rng(3).normal(scale=1e-5, size=shape)
    header = mne.create_info(["Cz", "Pz", "O1", "O2", "P7"], 100.0, "eeg")
    raw = mne.io.RawArray(signal, header, verbose="ERROR")
    raw.set_annotations(mne.Annotations(1.0 + np.arange(len(pictures)), 0.0, pictures))
    for session, ending in enumerate(("fif", "fif.gz", "edf", "vhdr"), 1):
        path = root / f"sub-01_ses-{session:02d}_eeg.{ending}"
        if "fif" in ending:
            raw.save(path, verbose="ERROR")
        else:
            mne.export.export_raw(path, raw, verbose="ERROR")
