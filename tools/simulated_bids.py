r"""The demo's pictures and simulated voxels as a lab has them: events in BIDS, and BOLD
as of fMRIPrep.

Whoever has no fMRI of their own can try the road from BOLD to retrieval on it
(docs/tutorial-fmri.md):

    python -m tools.simulated_bids FOLDER
    brainhive prepare --from bold preparation.root=FOLDER
    preparation.stimuli.root=FOLDER/stimuli

Responses are those of the demo's voxels. Each voxel has its own delay; BOLD drifts,
moves with the head, and has noise that is correlated in time; pictures begin off the
grid of volumes. No brain was recorded.
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

TR_S, VOLUMES, SHOWN_S = 1.6, 275, 2.0
TRIALS, GAP_S = 80, (4.6, 5.8)
"""Trials of a run, and the time from one onset to the next."""
TRAIN, TEST = 240, 40
"""Training pictures, shown twice, and test pictures, shown four times."""
REPETITIONS = {"train": 2, "test": 4}
RUNS_PER_SESSION = 4
PERCENT = 0.6
"""Of the mean, by which a response of one standard deviation changes BOLD."""
NOISE = 0.5
"""Percent; standard deviation of what is correlated in time."""
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


def write_bids(
    root: Path, subjects: int = 2, train: int = TRAIN, test: int = TEST, seed: int = 7
) -> None:
    """Write a BIDS data set with derivatives, pictures and masks of regions.

    Args:
        root: The folder.
        subjects: How many.
        train: Training pictures.
        test: Test pictures, of other concepts.
        seed: Of the order of trials, the times and the noise.
    """
    chosen = {
        "train": pictures.list_scenes("train")[:train],
        "test": pictures.list_scenes("test")[:test],
    }
    for split, scenes in chosen.items():
        for scene in scenes:
            path = (
                root
                / "stimuli"
                / split
                / scene.concept
                / f"{scene.image_id.replace('/', '_')}.png"
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            pictures.draw_scene(scene).save(path)
    about = {"Name": "demo", "BIDSVersion": "1.9.0", "Simulated": voxels.PROVENANCE}
    _write_json(root / "dataset_description.json", about)
    _write_json(
        root / "task-pictures_bold.json",
        {"TaskName": "pictures", "RepetitionTime": TR_S},
    )
    derivatives = root / "derivatives/fmriprep"
    about = {"Name": "simulated", "BIDSVersion": "1.9.0", "DatasetType": "derivative"}
    _write_json(derivatives / "dataset_description.json", about)
    for subject in range(1, subjects + 1):
        random = np.random.default_rng([seed, subject])
        files, responses = [], []
        for split, scenes in chosen.items():
            looks, meaning = demo.measure_features(tuple(scenes), "voxels")
            ids = [scene.image_id for scene in scenes]
            features, repetitions = (
                {"looks": looks, "meaning": meaning},
                REPETITIONS[split],
            )
            signal = voxels.simulate(
                features, subject, repetitions, demo.SEEDS[split], 1.0
            )[..., 0]
            responses.append(signal.reshape(len(ids) * repetitions, -1))  # [N · R, V]
            for scene in scenes:
                name = f"{split}/{scene.concept}/{scene.image_id.replace('/', '_')}.png"
                files += [name] * repetitions
        order = random.permutation(len(files))
        trials = np.concatenate(responses)[order]
        names = [files[place] for place in order.tolist()]
        for run, start in enumerate(range(0, len(names), TRIALS)):
            part = slice(start, start + TRIALS)
            label = f"sub-{subject:02d}/ses-{run // RUNS_PER_SESSION + 1:02d}"
            stem = f"{label.replace('/', '_')}_task-pictures"
            stem += f"_run-{run % RUNS_PER_SESSION + 1}"
            _write_run(root, label, stem, names[part], trials[part], random)
        _write_masks(derivatives / f"sub-{subject:02d}/masks", subject, trials.shape[1])


def _write_run(
    root: Path,
    label: str,
    stem: str,
    names: list[str],
    trials: NDArray[np.float64],
    random: np.random.Generator,
) -> None:
    """Write the events of a run, its BOLD, mask and confounds."""
    count, width = trials.shape
    onsets = 6 + np.cumsum(random.uniform(*GAP_S, count)).round(3)
    lines = ["onset\tduration\ttrial_type\tstim_file"]
    lines += [
        f"{at}\t{SHOWN_S}\tpicture\t{name}"
        for at, name in zip(onsets, names, strict=True)
    ]
    events = root / label / "func" / f"{stem}_events.tsv"
    events.parent.mkdir(parents=True, exist_ok=True)
    events.write_text("\n".join(lines) + "\n")

    # the response of each voxel at its own delay: about 5 s, as SPM's
    times = np.arange(VOLUMES) * TR_S + TR_S / 2
    delays = np.random.default_rng(width).uniform(4.5, 6.5, width)
    lags = times[:, None] - onsets  # [T, n]
    series = np.empty((VOLUMES, width))
    for voxel, delay in enumerate(delays):
        after = lags - SHOWN_S / 2
        response = gamma.pdf(after, delay + 1) - gamma.pdf(after, delay + 11) / 6
        series[:, voxel] = response / gamma.pdf(delay, delay + 1) @ trials[:, voxel]
    motion = np.cumsum(random.normal(size=(VOLUMES, 6)) * 0.01, axis=0)
    noise = random.normal(size=(VOLUMES, width))
    for volume in range(1, VOLUMES):
        noise[volume] = 0.4 * noise[volume - 1] + np.sqrt(1 - 0.4**2) * noise[volume]
    drift = np.linspace(-1, 1, VOLUMES)[:, None] * random.normal(size=width)
    moved = motion[:, :1] * random.normal(size=width) * 3
    percent = PERCENT * series + NOISE * noise + drift + moved
    bold = (1000 * (1 + percent / 100)).astype(np.float32)  # [T, V]

    inside = _brain(width)
    volume = np.zeros((*inside.shape, VOLUMES), np.float32)
    volume[inside] = bold.T
    folder = root / "derivatives/fmriprep" / label / "func"
    folder.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(volume, AFFINE)
    image.header.set_zooms((2.0, 2.0, 2.0, TR_S))
    nibabel.save(image, folder / f"{stem}_space-T1w_desc-preproc_bold.nii.gz")
    about = {
        "RepetitionTime": TR_S,
        "SliceTimingCorrected": True,
        "StartTime": TR_S / 2,
    }
    _write_json(folder / f"{stem}_space-T1w_desc-preproc_bold.json", about)
    nibabel.save(
        nibabel.Nifti1Image(inside.astype(np.uint8), AFFINE),
        folder / f"{stem}_space-T1w_desc-brain_mask.nii.gz",
    )
    cosines = np.cos(
        np.pi * np.arange(1, 8) * (np.arange(VOLUMES)[:, None] + 0.5) / VOLUMES
    )
    columns = [f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz"]
    columns += [f"cosine{number:02d}" for number in range(7)]
    rows = ["\t".join(columns)]
    rows += [
        "\t".join(f"{value:.6f}" for value in row)
        for row in np.hstack([motion, cosines])
    ]
    (folder / f"{stem}_desc-confounds_timeseries.tsv").write_text(
        "\n".join(rows) + "\n"
    )


def _write_masks(folder: Path, subject: int, width: int) -> None:
    """Write a mask of each region of the demo's cortex."""
    inside = _brain(width)
    folder.mkdir(parents=True, exist_ok=True)
    for name, mask in voxels.make_region_masks(subject, voxels.PICTURES).items():
        volume = np.zeros(inside.shape, np.uint8)
        volume[inside] = mask
        nibabel.save(nibabel.Nifti1Image(volume, AFFINE), folder / f"{name}.nii.gz")


def _brain(width: int) -> NDArray[np.bool_]:
    """Place voxels in a small volume: the first of them, in C order."""
    inside = np.zeros((8, 8, -(-width // 64) + 1), bool)
    inside.flat[:width] = True
    return inside


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
