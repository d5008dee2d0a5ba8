"""NSD-Imagery: the voxels of NSD, seeing and imagining 18 stimuli, for models that were trained on NSD."""

import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from operator import itemgetter
from pathlib import Path, PurePath
from typing import ClassVar

import numpy as np
from pydantic import Field

from brainhive_cli.core import parts
from brainhive_cli.core.damage import reading
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data import published
from brainhive_cli.data.published import fetch_line, find_below, find_file, read_table
from brainhive_cli.data.published.nsd import (
    PERCENT,
    ROI,
    check_betas,
    list_masks,
    open_mask,
    read_betas,
    read_regions,
)
from brainhive_cli.data.single_trial_betas import PublishedBetas, Subject
from brainhive_cli.data.stores import pickles
from brainhive_cli.data.stores.ids import PICTURES
from brainhive_cli.data.trials import Trials

SOURCE = fetch_line("nsd-imagery")
FOLDER = "nsddata_betas/ppdata/subj{subject:02d}/func1pt8mm/nsdimagerybetas_fithrf_GLMdenoise_RR"
RUNS = "visA attA imgA_1 visB attB imgB_1 visC attC imgC_1 imgA_2 imgB_2 imgC_2".split()
"""Runs in the order of the betas: task, set of six stimuli, and number of two runs of imagery."""
FOLDERS = ["nsdimagery/rawtargetimages", "nsdimagery/allstim", "stimuli"]
BLOCK = re.compile(r"(vis|img|att)([ABC])")
PICKLE = "nsdimagery_stimuli.pkl3"
TABLES = "nsddata/bdata/nsdimagery/nsdimagery_subj{subject:02d}_{run}.tsv"
BETAS_OF_A_TRIAL = {"vis": 1, "img": 1, "att": 2}
SPLITS = {"vis": "test", "img": "imagery", "att": "trials of the attention task, each of which has two"}


class Pictures(published.Pictures):
    """The 18 stimuli of NSD-Imagery, in NSD's folders or as stimuli/SET-CONDITION.png: seen, or imagined."""

    name = "nsd-imagery"
    folders: ClassVar = {"test": FOLDERS, "imagery": FOLDERS}
    people = "nsd"


class Betas(parts.Config):
    """NSD-Imagery: the voxels of NSD, seeing and imagining 18 stimuli, for models that were trained on NSD.

    Betas are read in a mask of NSD's. Trials are those of the public tables nsdimagery_subj0N_RUN.tsv,
    or, where these are not there, of the laboratory's own nsdimagery_stimuli.pkl3. A stimulus is called
    by its set and what `column` of the tables, or the pickle's cue, says of it, as `A-X`; a name of a
    picture's file is that picture. The public files do not say which picture a value of CONDITION is, so
    that pictures are called as these values are. Seen stimuli are `test`, imagined ones `imagery`; trials
    of the attention task are left out. Voxels are z-scored within each run by all of its trials: none is
    of training.
    """

    zscore: ClassVar[str] = "run"
    min_ncsnr: ClassVar[None] = None
    max_voxels: ClassVar[None] = None

    root: str = Field("", description="folder of nsddata and nsddata_betas; default: nsd below paths.data")
    voxels: str = Field("nsdgeneral", description="mask of the voxels that are kept, as NSD's were prepared")

    column: str = Field(
        "CONDITION", description="column of the public tables that names the stimulus of a trial"
    )

    def build(self, paths: Paths) -> PublishedBetas:
        """Point at the data; nothing is read yet."""
        root = paths.dataset("nsd", self.root)
        return ImageryBetas(self, root, dataset="nsd-imagery", patterns=(FOLDER,), find=_find)


class ImageryBetas(PublishedBetas):
    """The betas below NSD's root."""

    def finish(self, subject: int, recordings: Mapping[str, Trials]) -> dict[str, Trials]:
        """Keep voxels that never vary, too, as NSD's preparation does: models know voxels by their order."""
        space = self.voxels(subject)
        return {split: replace(recording, space=space) for split, recording in recordings.items()}


def _find(config: Betas, root: Path, subject: int) -> Subject:
    """Read masks, and the stimulus of each trial; a run is a series of trials of one block."""
    # betas, and the tables of their runs
    masks = list_masks(root / ROI.format(subject, "func1pt8mm"), config.voxels)
    mask = open_mask(masks[config.voxels])
    betas = find_file(root / FOLDER.format(subject=subject), "betas_nsdimagery.*", SOURCE)
    tables = [TABLES.format(subject=subject, run=run) for run in RUNS]

    # block and stimulus of each beta, by the laboratory's pickle or the public tables
    blocks = []
    stimuli = []
    if not any((root / name).exists() for name in tables) and (pickle := find_below(root, f"**/{PICKLE}")):
        paths = [pickle]
        with reading(pickle, SOURCE):
            content = pickles.load(pickle)
            blocks, stimuli = (
                pickles.array(content[key]).astype(str).ravel().tolist() for key in ("exps", "cues")
            )
    else:
        paths = [find_file(root, name, SOURCE) for name in tables]
        for path, run in zip(paths, RUNS, strict=True):
            for stimulus in read_table(path, SOURCE, itemgetter(config.column)):
                count = BETAS_OF_A_TRIAL[run[:3]]
                blocks += [run] * count
                stimuli += [stimulus] * count

    # as many as there are betas, each with a name but for the attention task
    check_betas(betas, mask, len(blocks))
    if unnamed := sum(not name and block[:3] != "att" for block, name in zip(blocks, stimuli, strict=True)):
        problem = f"{paths[0].parent}: {unnamed} trials have nothing in column {config.column}"
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
        read_regions(masks, mask),
        mask.width,
        trials,
        lambda session: read_betas(betas, mask, len(trials)) / np.float32(PERCENT),
    )
