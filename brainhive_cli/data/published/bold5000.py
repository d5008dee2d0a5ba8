"""Single-trial betas of BOLD5000 2.0."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from brainhive_cli.core.base import Array, BrainhiveError
from brainhive_cli.core.files import report_damage
from brainhive_cli.data.files import (
    fetch_line,
    find_file,
    pickles,
    read_names,
    read_splits,
)
from brainhive_cli.data.fmri import Mask, PublishedSteps, Subject, Trial
from brainhive_cli.data.signals import Voxels

FETCH_HINT = fetch_line("bold5000")
PICTURE_LIST = "CSI{}_imgnames.txt"
"""List of the pictures of a subject, a line per trial."""
MASK = "CSI{}_brainmask.nii.gz"
BETAS = "CSI{}_GLMbetas-{}"
BETAS_OF_SESSION = BETAS + "_ses-{:02d}.nii.gz"
BETAS_OF_REGION = BETAS + "_allses_{}.npy"
"""Files of a mask, and of the betas of a type, by session or region."""
SESSIONS = {1: 15, 2: 15, 3: 15, 4: 9}
"""Number of sessions of each subject."""


class Bold5000Betas(PublishedSteps):
    """BOLD5000 2.0 from its single-trial betas, which GLMsingle estimated over groups
    of five sessions.

    Betas are in percent, of a brain mask by session, or of ten regions over all
    sessions.

    `volumes`: CSI{1…4}_GLMbetas-TYPE_ses-NN.nii.gz of all sessions, with
    CSIN_brainmask.nii.gz, whose affine counts, as the affine of the betas has no
    origin. `regions`: py/CSIN_GLMbetas-TYPE_allses_{LH,RH}REGION.npy, arrays [trials,
    voxels]. These do not say where sessions end, so all trials are session 1, in runs
    of 37. CSIN_imgnames.txt lists the pictures of either.
    """

    name = "bold5000"
    patterns = (PICTURE_LIST.format("{subject}"),)

    form: Literal["volumes", "regions"] = Field(
        "volumes",
        description="volumes in a brain mask, or arrays of EarlyVis, LOC, OPA, PPA and "
        "RSC",
    )
    betas: Literal[
        "TYPEA-ASSUMEHRF",
        "TYPEB-FITHRF",
        "TYPEC-FITHRF-GLMDENOISE",
        "TYPED-FITHRF-GLMDENOISE-RR",
    ] = Field(
        "TYPED-FITHRF-GLMDENOISE-RR",
        description="type of the betas, as in file names",
    )

    def open_subject(self, root: Path, subject: int) -> Subject:
        """Compare the list of pictures with the headers of the betas."""
        # the publisher's README writes TYBEB
        betas_type = self.betas.replace("TYPEB", "TY[PB]EB")
        paths = []
        if self.form == "volumes":
            # the betas have no origin, unlike the mask in fMRIPrep's space
            path = find_file(root, MASK.format(subject), FETCH_HINT)
            mask = replace(Mask.open(path, FETCH_HINT), compares_affines=False)
            for session in range(1, SESSIONS.get(subject, 1) + 1):
                name = BETAS_OF_SESSION.format(subject, betas_type, session)
                paths.append(find_file(root, name, FETCH_HINT))
            n_trials = [int(mask.open_series(path).shape[3]) for path in paths]
            voxels = Voxels({}, grid=mask.grid)
            width = mask.width
            files = [path] + paths
        else:
            areas = ("EarlyVis", "LOC", "OPA", "PPA", "RSC")
            regions = [f"{side}{area}" for side in ("LH", "RH") for area in areas]
            for region in regions:
                name = BETAS_OF_REGION.format(subject, betas_type, region)
                paths.append(find_file(root, name, FETCH_HINT))
            files = paths
            shapes = [_open_region(path).shape for path in paths]
            counts, widths = zip(*shapes, strict=True)
            n_trials = [min(counts)]
            width = sum(widths)
            region_of = np.repeat(regions, widths)  # [V]
            voxels = Voxels({region: region_of == region for region in regions})

        def read_session(session: int) -> Array:
            if self.form == "volumes":
                return mask.read_series(paths[session - 1])  # [trials, V]
            return np.concatenate([_open_region(path) for path in paths], 1)

        # split, session and run of each picture
        picture_list = find_file(root, PICTURE_LIST.format(subject), FETCH_HINT)
        # Pattern of a subject. The first list that is there names the test pictures of
        # all, as subjects 1 to 3 saw the same pictures, and subject 4 left early.
        reference_list = find_file(root, PICTURE_LIST.format("[1-4]"), FETCH_HINT)
        pictures = read_names(picture_list)
        split_of = read_splits(reference_list, FETCH_HINT)
        if sum(n_trials) != len(pictures):
            raise BrainhiveError(
                f"{picture_list} lists {len(pictures)} trials, but all sessions have "
                f"{sum(n_trials)} betas",
                FETCH_HINT,
            )
        trials: list[Trial] = []
        for session, count in enumerate(n_trials, 1):
            for row in range(count):
                picture = pictures[len(trials)]
                split = split_of.get(picture, "train")
                # sessions have nine or ten runs of 37 trials
                trials.append((picture, split, session, 1 + row // 37))
        facts = {"fitted": "over groups of five sessions, training and test together"}
        return Subject(
            [picture_list, reference_list] + files,
            voxels,
            width,
            trials,
            read_session,
            facts,
        )


def _open_region(path: Path) -> Array:
    """Open the betas [trials, V] of a region. They stay on disk."""
    with report_damage(path, FETCH_HINT):
        array = pickles.to_array(pickles.load(path))
        if array.ndim != 2:
            raise ValueError("it is no array [trials, voxels]")
        return array
