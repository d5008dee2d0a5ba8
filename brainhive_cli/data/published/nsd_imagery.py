"""NSD-Imagery: the voxels of NSD, seeing and imagining 18 stimuli, for models that were trained on NSD."""

import re
from itertools import pairwise
from operator import itemgetter
from pathlib import Path, PurePath
from typing import ClassVar

import numpy as np
from pydantic import Field

from brainhive_cli.core.damage import reading
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.published import fetch_line, find_below, find_file, read_table
from brainhive_cli.data.published.nsd import (
    PERCENT,
    ROI,
    check_betas,
    open_voxels,
    read_betas,
)
from brainhive_cli.data.single_trial_betas import PublishedSteps, Subject
from brainhive_cli.data.stores import pickles
from brainhive_cli.data.stores.ids import PICTURES

SOURCE = fetch_line("nsd-imagery")
FOLDER = "nsddata_betas/ppdata/subj{subject:02d}/func1pt8mm/nsdimagerybetas_fithrf_GLMdenoise_RR"
RUNS = "visA attA imgA_1 visB attB imgB_1 visC attC imgC_1 imgA_2 imgB_2 imgC_2".split()
"""Runs in the order of the betas: task, set of six stimuli, and number of two runs of imagery."""
BLOCK = re.compile(r"(vis|img|att)([ABC])")
PICKLE = "nsdimagery_stimuli.pkl3"
TABLES = "nsddata/bdata/nsdimagery/nsdimagery_subj{subject:02d}_{run}.tsv"
BETAS_OF_A_TRIAL = {"vis": 1, "img": 1, "att": 2}
SPLITS = {"vis": "test", "img": "imagery", "att": "trials of the attention task, each of which has two"}


class Betas(PublishedSteps):
    """NSD-Imagery: the voxels of NSD, seeing and imagining 18 stimuli, for models that were trained on NSD.

    Betas are read in a mask of NSD's. Trials are those of the public tables nsdimagery_subj0N_RUN.tsv,
    or, where these are not there, of the laboratory's own nsdimagery_stimuli.pkl3. A stimulus is called
    by its set and what `column` of the tables, or the pickle's cue, says of it, as `A-X`; a name of a
    picture's file is that picture. The public files do not say which picture a value of CONDITION is, so
    that pictures are called as these values are. Seen stimuli are `test`, imagined ones `imagery`; trials
    of the attention task are left out. Voxels are z-scored within each run by all of its trials: none is
    of training.
    """

    name = "nsd-imagery"
    folder = "nsd"
    patterns = (FOLDER,)
    keeps_constant = True
    zscore: ClassVar[str] = "run"  # type: ignore[misc]
    min_ncsnr: ClassVar[None] = None  # type: ignore[misc]
    max_voxels: ClassVar[None] = None  # type: ignore[misc]

    root: str = Field("", description="folder of nsddata and nsddata_betas; default: nsd below paths.data")
    voxels: str = Field("nsdgeneral", description="mask of the voxels that are kept, as NSD's were prepared")
    column: str = Field(
        "CONDITION", description="column of the public tables that names the stimulus of a trial"
    )

    def find(self, root: Path, subject: int) -> Subject:
        """Read masks, and the stimulus of each trial; a run is a series of trials of one block."""
        # betas, and the tables of their runs
        masks, mask, voxels = open_voxels(root / ROI.format(subject, "func1pt8mm"), self.voxels)
        betas = find_file(root / FOLDER.format(subject=subject), "betas_nsdimagery.*", SOURCE)
        tables = [TABLES.format(subject=subject, run=run) for run in RUNS]

        # block and stimulus of each beta, by the laboratory's pickle or the public tables
        blocks = []
        stimuli = []
        has_tables = any((root / name).exists() for name in tables)
        pickle = None if has_tables else find_below(root, f"**/{PICKLE}")
        if pickle is not None:
            paths = [pickle]
            with reading(pickle, SOURCE):
                content = pickles.load(pickle)
                blocks, stimuli = (
                    pickles.array(content[key]).astype(str).ravel().tolist() for key in ("exps", "cues")
                )
        else:
            paths = [find_file(root, name, SOURCE) for name in tables]
            for path, run in zip(paths, RUNS, strict=True):
                for stimulus in read_table(path, SOURCE, itemgetter(self.column)):
                    count = BETAS_OF_A_TRIAL[run[:3]]
                    blocks += [run] * count
                    stimuli += [stimulus] * count

        # as many as there are betas, each with a name but for the attention task
        check_betas(betas, mask, len(blocks))
        pairs = zip(blocks, stimuli, strict=True)
        if unnamed := sum(not name and not block.startswith("att") for block, name in pairs):
            problem = f"{paths[0].parent}: {unnamed} trials have nothing in column {self.column}"
            raise BrainhiveError(problem, "preparation.column=CONDITION")

        # a run begins where the block changes
        runs = np.cumsum([1, *(block != before for before, block in pairwise(blocks))]).tolist()
        trials = []
        with reading(paths[0], SOURCE):
            for block, stimulus, run in zip(blocks, stimuli, runs, strict=True):
                # a picture's file, or the set and the cue
                ((task, letter),) = BLOCK.findall(block)
                file = PurePath(stimulus)
                name = file.stem if file.suffix.lower() in PICTURES else f"{letter}-{stimulus}"
                trials.append((name, SPLITS[task], 1, run))
        return Subject(
            [betas, *paths, *masks.values()],
            voxels,
            mask.width,
            trials,
            lambda session: read_betas(betas, mask, len(trials)) / np.float32(PERCENT),
        )
