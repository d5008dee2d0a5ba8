"""BOLD5000 2.0: single-trial betas, which GLMsingle estimated over groups of five
sessions.
"""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from brainhive_cli.core.arrays import Array
from brainhive_cli.core.damage import report_damage
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.files import pickles
from brainhive_cli.data.files.published_files import (
    fetch_line,
    find_file,
    read_names,
    read_splits,
)
from brainhive_cli.data.fmri.betas import PublishedSteps, Subject
from brainhive_cli.data.fmri.volumes import Mask
from brainhive_cli.data.signals.spaces import Voxels

SOURCE = fetch_line("bold5000")
LIST = "CSI%s_imgnames.txt"
"""The pictures of a subject of BOLD5000, one a trial. That of `[1-4]`, the first who is
there, says which are the test: 1 to 3 saw the same pictures, the fourth left early.
"""
SESSIONS = {1: 15, 2: 15, 3: 15, 4: 9}
"""Number of sessions of each subject."""
RUN_TRIALS = 37
"""Sessions have 333 or 370 trials, of nine or ten runs."""
REGIONS = tuple(
    f"{side}{name}"
    for side in ("LH", "RH")
    for name in ("EarlyVis", "LOC", "OPA", "PPA", "RSC")
)
FACTS = {"fitted": "over groups of five sessions, training and test together"}
TYPES = Literal[
    "TYPEA-ASSUMEHRF",
    "TYPEB-FITHRF",
    "TYPEC-FITHRF-GLMDENOISE",
    "TYPED-FITHRF-GLMDENOISE-RR",
]


class Bold5000Betas(PublishedSteps):
    """BOLD5000 2.0 from its single-trial betas, which GLMsingle estimated over groups
    of five sessions.

    They are those of a brain mask by session, or those of ten regions over all
    sessions, in percent.

    `volumes`: CSI{1…4}_GLMbetas-TYPE_ses-NN.nii.gz of all sessions, with
    CSIN_brainmask.nii.gz, whose affine
    counts: that of the betas has no origin. `regions`:
    py/CSIN_GLMbetas-TYPE_allses_{LH,RH}REGION.npy, arrays [trials, voxels]; these do
    not say where sessions end, so all trials are session 1, in runs of 37.
    CSIN_imgnames.txt lists the pictures of either.
    """

    name = "bold5000"
    patterns = (LIST % "{subject}",)

    form: Literal["volumes", "regions"] = Field(
        "volumes",
        description=(
            "volumes in a brain mask, or arrays of EarlyVis, LOC, OPA, PPA and RSC"
        ),
    )
    betas: TYPES = Field(
        "TYPED-FITHRF-GLMDENOISE-RR",
        description="type of the betas, as files are called",
    )

    def open_subject(self, root: Path, subject: int) -> Subject:
        """Compare the list of pictures with the betas, of which headers alone are
        read.
        """
        # type B may be called as the publisher's README has it
        betas = f"CSI{subject}_GLMbetas-{self.betas.replace('TYPEB', 'TY[PB]EB')}"
        # files, number of trials of each session, and voxels, of either form
        if self.form == "volumes":
            # the publisher saved betas with voxels of 2 mm and no origin, the mask in
            # fMRIPrep's space
            brain = find_file(root, f"CSI{subject}_brainmask.nii.gz", SOURCE)
            mask = replace(Mask.open(brain, SOURCE), compares_affines=False)
            files = [
                find_file(root, f"{betas}_ses-{number:02d}.nii.gz", SOURCE)
                for number in range(1, SESSIONS.get(subject, 1) + 1)
            ]
            lengths = [int(mask.open_series(path).shape[3]) for path in files]
            voxels = Voxels({}, grid=mask.grid)
            width = mask.width
            sources = [brain, *files]
        else:
            files = [
                find_file(root, f"{betas}_allses_{name}.npy", SOURCE)
                for name in REGIONS
            ]
            counts, widths = zip(
                *(_open_array(path).shape for path in files), strict=True
            )
            lengths = [min(counts)]
            width = sum(widths)
            sources = files
            region_of = np.repeat(REGIONS, widths)  # [V]
            voxels = Voxels({name: region_of == name for name in REGIONS})

        def read(session: int) -> Array:
            if self.form == "volumes":
                return mask.read_series(files[session - 1])  # [trials, V]
            return np.concatenate([_open_array(path) for path in files], 1)

        # pictures by session and run
        lists = [find_file(root, LIST % whose, SOURCE) for whose in (subject, "[1-4]")]
        names = read_names(lists[0])
        split_of = read_splits(lists[1], SOURCE)
        if sum(lengths) != len(names):
            raise BrainhiveError(
                f"{lists[0]} lists {len(names)} trials, all sessions have "
                f"{sum(lengths)} betas",
                SOURCE,
            )
        rows = [
            (session, row)
            for session, length in enumerate(lengths, 1)
            for row in range(length)
        ]
        trials = [
            (name, split_of.get(name, "train"), session, 1 + row // RUN_TRIALS)
            for name, (session, row) in zip(names, rows, strict=True)
        ]
        return Subject(lists + sources, voxels, width, trials, read, FACTS)


def _open_array(path: Path) -> Array:
    """Map the betas [trials, voxels] of a region; values stay on disk."""
    with report_damage(path, SOURCE):
        array = pickles.array(pickles.load(path))
        if array.ndim != 2:
            raise ValueError("it is no array [trials, voxels]")
        return array
