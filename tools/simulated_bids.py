r"""Writes the demo's pictures and simulated voxels as a lab has them, with events in
BIDS and BOLD in the form of fMRIPrep.

Use it to try the steps from BOLD to retrieval (docs/tutorial-fmri.md):

    python -m tools.simulated_bids FOLDER
    brainhive prepare --from bold preparation.root=FOLDER
    preparation.stimuli.root=FOLDER/stimuli

Responses follow the voxels of the demo. Each voxel has its own delay. BOLD has drift,
head motion and noise that is correlated in time. Pictures begin between volumes. No
brain was recorded.
"""

import argparse
import json
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray
from scipy.stats import gamma

from brainhive_cli.data.datasets import demo
from brainhive_cli.demo import pictures, voxels

TR_S = 1.6
N_VOLUMES = 275
PICTURE_S = 2.0
"""Duration of a picture."""
TRIALS_PER_RUN = 80
ONSET_INTERVAL_S = (4.6, 5.8)
N_TRAIN = 240
"""Training pictures."""
N_TEST = 40
"""Test pictures."""
REPETITIONS = {"train": 2, "test": 4}
RUNS_PER_SESSION = 4
RESPONSE_PERCENT = 0.6
"""Change of BOLD by a response of a standard deviation, in percent of the mean."""
NOISE_PERCENT = 0.5
"""Standard deviation of noise that is correlated in time."""
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


def write_bids(
    root: Path,
    subjects: int = 2,
    train: int = N_TRAIN,
    test: int = N_TEST,
    seed: int = 7,
) -> None:
    """Write a BIDS data set with derivatives, pictures and masks of regions.

    Args:
        root: Folder of the data set.
        subjects: Number of subjects.
        train: Number of training pictures.
        test: Number of test pictures, of other concepts.
        seed: Seed of the order of trials, the times and the noise.
    """
    split_scenes = {
        "train": pictures.list_scenes("train")[:train],
        "test": pictures.list_scenes("test")[:test],
    }
    for split, scenes in split_scenes.items():
        for scene in scenes:
            path = root / "stimuli" / _name_picture(split, scene)
            path.parent.mkdir(parents=True, exist_ok=True)
            pictures.draw_scene(scene).save(path)
    derivatives = root / "derivatives/fmriprep"
    documents = {
        root / "dataset_description.json": {
            "Name": "demo",
            "BIDSVersion": "1.9.0",
            "Simulated": voxels.PROVENANCE,
        },
        root / "task-pictures_bold.json": {
            "TaskName": "pictures",
            "RepetitionTime": TR_S,
        },
        derivatives / "dataset_description.json": {
            "Name": "simulated",
            "BIDSVersion": "1.9.0",
            "DatasetType": "derivative",
        },
    }
    for path, content in documents.items():
        _write_json(path, content)
    for subject in range(1, subjects + 1):
        rng = np.random.default_rng([seed, subject])

        # the responses of all trials, in random order
        ordered_names, ordered_responses = [], []
        for split, scenes in split_scenes.items():
            looks, meaning = demo.measure_features(tuple(scenes), "voxels")
            features = {"looks": looks, "meaning": meaning}
            repetitions = REPETITIONS[split]
            signal = voxels.simulate(
                features, subject, repetitions, demo.SEEDS[split], 1.0
            )[..., 0]
            n_trials = len(scenes) * repetitions
            ordered_responses.append(signal.reshape(n_trials, -1))  # [N · R, V]
            for scene in scenes:
                ordered_names += [_name_picture(split, scene)] * repetitions
        order = rng.permutation(len(ordered_names))
        responses = np.concatenate(ordered_responses)[order]
        names = [ordered_names[position] for position in order.tolist()]

        for run, start in enumerate(range(0, len(names), TRIALS_PER_RUN)):
            trials = slice(start, start + TRIALS_PER_RUN)
            label = f"sub-{subject:02d}/ses-{run // RUNS_PER_SESSION + 1:02d}"
            stem = f"{label.replace('/', '_')}_task-pictures"
            stem += f"_run-{run % RUNS_PER_SESSION + 1}"
            _write_run(root, label, stem, names[trials], responses[trials], rng)
        folder = derivatives / f"sub-{subject:02d}/masks"
        _write_masks(folder, subject, responses.shape[1])


def _name_picture(split: str, scene: pictures.Scene) -> str:
    """Return the path of a picture below the folder of stimuli."""
    return f"{split}/{scene.concept}/{scene.image_id.replace('/', '_')}.png"


def _write_run(
    root: Path,
    label: str,
    stem: str,
    names: list[str],
    responses: NDArray[np.float64],
    rng: np.random.Generator,
) -> None:
    """Write the events, BOLD, mask and confounds of a run.

    Args:
        root: Folder of the data set.
        label: Folder of subject and session.
        stem: Beginning of the file names.
        names: Picture of each of n trials.
        responses: Responses [n, V] of the trials.
        rng: Generator of times and noise.
    """
    n_trials, n_voxels = responses.shape
    onsets = 6 + np.cumsum(rng.uniform(*ONSET_INTERVAL_S, n_trials)).round(3)
    lines = ["onset\tduration\ttrial_type\tstim_file"]
    for onset, name in zip(onsets, names, strict=True):
        lines.append(f"{onset}\t{PICTURE_S}\tpicture\t{name}")
    events = root / label / "func" / f"{stem}_events.tsv"
    events.parent.mkdir(parents=True, exist_ok=True)
    events.write_text("\n".join(lines) + "\n")

    # each voxel responds with a delay of about 5 s, as in SPM
    times = np.arange(N_VOLUMES) * TR_S + TR_S / 2
    delays = np.random.default_rng(n_voxels).uniform(4.5, 6.5, n_voxels)
    lags = times[:, None] - onsets - PICTURE_S / 2  # [T, n]
    series = np.empty((N_VOLUMES, n_voxels))
    for voxel, delay in enumerate(delays):
        kernel = gamma.pdf(lags, delay + 1) - gamma.pdf(lags, delay + 11) / 6
        kernel = kernel / gamma.pdf(delay, delay + 1)
        series[:, voxel] = kernel @ responses[:, voxel]

    # add noise, drift and motion in percent
    motion = np.cumsum(rng.normal(size=(N_VOLUMES, 6)) * 0.01, axis=0)
    noise = rng.normal(size=(N_VOLUMES, n_voxels))
    for index in range(1, N_VOLUMES):
        noise[index] = 0.4 * noise[index - 1] + np.sqrt(1 - 0.4**2) * noise[index]
    drift = np.linspace(-1, 1, N_VOLUMES)[:, None] * rng.normal(size=n_voxels)
    motion_effect = motion[:, :1] * rng.normal(size=n_voxels) * 3
    percent = RESPONSE_PERCENT * series + NOISE_PERCENT * noise + drift + motion_effect
    bold = (1000 * (1 + percent / 100)).astype(np.float32)  # [T, V]

    brain_mask = _make_brain_mask(n_voxels)
    volume = np.zeros((*brain_mask.shape, N_VOLUMES), np.float32)
    volume[brain_mask] = bold.T
    folder = root / "derivatives/fmriprep" / label / "func"
    folder.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(volume, AFFINE)
    image.header.set_zooms((2.0, 2.0, 2.0, TR_S))
    nibabel.save(image, folder / f"{stem}_space-T1w_desc-preproc_bold.nii.gz")
    bold_facts = {
        "RepetitionTime": TR_S,
        "SliceTimingCorrected": True,
        "StartTime": TR_S / 2,
    }
    _write_json(folder / f"{stem}_space-T1w_desc-preproc_bold.json", bold_facts)
    image = nibabel.Nifti1Image(brain_mask.astype(np.uint8), AFFINE)
    nibabel.save(image, folder / f"{stem}_space-T1w_desc-brain_mask.nii.gz")

    # confounds: motion, and cosines of a high-pass filter
    positions = np.arange(N_VOLUMES)[:, None] + 0.5
    cosines = np.cos(np.pi * np.arange(1, 8) * positions / N_VOLUMES)
    columns = ["trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z"]
    columns += [f"cosine{number:02d}" for number in range(7)]
    rows = ["\t".join(columns)]
    for row in np.hstack([motion, cosines]):
        rows.append("\t".join(map("{:.6f}".format, row)))
    confounds = folder / f"{stem}_desc-confounds_timeseries.tsv"
    confounds.write_text("\n".join(rows) + "\n")


def _write_masks(folder: Path, subject: int, n_voxels: int) -> None:
    """Write a mask of each region of the demo's cortex."""
    brain_mask = _make_brain_mask(n_voxels)
    folder.mkdir(parents=True, exist_ok=True)
    for name, mask in voxels.make_region_masks(subject, voxels.PICTURES).items():
        volume = np.zeros(brain_mask.shape, np.uint8)
        volume[brain_mask] = mask
        nibabel.save(nibabel.Nifti1Image(volume, AFFINE), folder / f"{name}.nii.gz")


def _make_brain_mask(n_voxels: int) -> NDArray[np.bool_]:
    """Make a small mask whose first voxels in C order are True."""
    brain_mask = np.zeros((8, 8, -(-n_voxels // 64) + 1), bool)
    brain_mask.flat[:n_voxels] = True
    return brain_mask


def _write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--subjects", type=int, default=2)
    options = parser.parse_args()
    write_bids(options.folder, options.subjects)
