"""Writes the recording of `brainhive demo --real` from PyMVPA's copy of Haxby et al.
2001.

    python -m tools.haxby_slice FOLDER/haxby2001/sub001

It is a BIDS data set whose BOLD lies under `derivatives/motion-corrected`. Its
confounds are the authors' motion estimates and cosines of a high-pass of 128 s. No
value depends on labels.
"""

import json
import sys
from pathlib import Path

import nibabel as nib
import numpy as np

TR_S = 2.5
CUTOFF_S = 128.0
TARGET = Path(__file__).parent.parent / "brainhive_cli" / "demo" / "haxby2001"
MOTION = ("rot_x", "rot_y", "rot_z", "trans_z", "trans_x", "trans_y")
"""Columns of AFNI's 3dvolreg."""


def write(source: Path, target: Path) -> None:
    """Write events, BOLD, masks and confounds of all runs, but no texts."""
    raw = target / "sub-1/func"
    derived = target / "derivatives/motion-corrected/sub-1/func"
    raw.mkdir(parents=True, exist_ok=True)
    derived.mkdir(parents=True, exist_ok=True)
    bold_facts = {
        "RepetitionTime": TR_S,
        "TaskName": "object",
        "SliceTimingCorrected": False,
    }
    for run in sorted((source / "BOLD").glob("task001_run*")):
        name = f"sub-1_task-object_run-{int(run.name[-3:]):02d}"
        (raw / f"{name}_events.tsv").write_text((run / "bold_events.tsv").read_text())
        bold = (run / "bold_1slice.nii.gz").read_bytes()
        (derived / f"{name}_space-T1w_desc-preproc_bold.nii.gz").write_bytes(bold)
        (derived / f"{name}_space-T1w_desc-preproc_bold.json").write_text(
            json.dumps(bold_facts) + "\n"
        )

        # voxels of tissue have a high mean
        image = nib.load(run / "bold_1slice.nii.gz")
        mean = np.asanyarray(image.dataobj).mean(3)
        mask = nib.Nifti1Image((mean > 0.2 * mean.max()).astype(np.uint8), image.affine)
        nib.save(mask, derived / f"{name}_space-T1w_desc-brain_mask.nii.gz")

        # motion, and cosines slower than the cut-off
        motion = np.loadtxt(run / "bold_moest.txt")[:, :6]
        count = len(motion)
        orders = np.arange(1, int(2 * count * TR_S / CUTOFF_S) + 1)
        cosines = np.cos(
            np.pi * (2 * np.arange(count)[:, None] + 1) * orders / (2 * count)
        )
        names = list(MOTION)
        names += [f"cosine{order - 1:02d}" for order in orders]
        file = derived / f"{name}_desc-confounds_timeseries.tsv"
        values = np.concatenate([motion, cosines], 1)
        np.savetxt(file, values, "%.5g", "\t", header="\t".join(names), comments="")
        file.with_suffix(".json").write_text("{}\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]), TARGET)
