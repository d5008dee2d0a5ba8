"""NSD-Imagery: the voxels of NSD, seeing and imagining 18 stimuli, for models that were trained on NSD."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

from brainhive_cli.core import parts
from brainhive_cli.core.damage import reading
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.preparations._nsd import PERCENT, Masks
from brainhive_cli.data.preparations._published import PublishedBetas, Subject
from brainhive_cli.data.preparations.nsd import read_betas
from brainhive_cli.data.published_data import WAY_OUT, find_file
from brainhive_cli.data.stores import pickles
from brainhive_cli.data.stores.recordings import Recording

FOLDER = "nsddata_betas/ppdata/subj{subject:02d}/func1pt8mm/nsdimagerybetas_fithrf_GLMdenoise_RR"
BLOCK = re.compile(r"(vis|img|att)([ABC])")
"""What the block of a run is called: its task, and the set of six stimuli."""
SPLITS = {"vis": "test", "img": "imagery", "att": "trials of the attention task, each of which has two"}


class Config(parts.Config):
    """NSD-Imagery's betas, in the mask of NSD's: models of NSD are tested on them, none is trained.

    Stimuli are called by their set and cue, as nsdimagery_stimuli.pkl3 has them: `A-X`. Seen ones are `test`,
    imagined ones `imagery`; trials of the attention task are left out. Voxels are z-scored within each run by
    all of its trials: none is of training.
    """

    zscore: ClassVar[str] = "run"

    root: str = Field("", description="folder of nsddata and nsddata_betas; default: nsd below paths.data")
    voxels: str = Field("nsdgeneral", description="mask of the voxels that are kept, as NSD's were prepared")

    def build(self, paths: Paths) -> PublishedBetas:
        """Point at the data; nothing is read yet."""
        root = paths.dataset("nsd", self.root)
        return ImageryBetas(self, root, dataset="nsd-imagery", pattern=FOLDER, find=_find)


TINY = Config()


class ImageryBetas(PublishedBetas):
    """The betas below NSD's root."""

    def finish(self, subject: int, recordings: Mapping[str, Recording]) -> dict[str, Recording]:
        """Keep voxels that never vary, too, as NSD's preparation does: models know voxels by their places."""
        space = self.voxels(subject)
        return {split: replace(recording, space=space) for split, recording in recordings.items()}


def _find(config: Config, root: Path, subject: int) -> Subject:
    """Read masks, and the stimulus of each trial; a run is a series of trials of one block."""
    masks = Masks.below(root / f"nsddata/ppdata/subj{subject:02d}/func1pt8mm/roi", config.voxels)
    mask = masks.mask()
    betas = find_file(root / FOLDER.format(subject=subject), "betas_nsdimagery.*")
    path = find_file(root, "**/nsdimagery_stimuli.pkl3")
    trials: list[tuple[str, str, int, int]] = []
    with reading(path, WAY_OUT):
        content = pickles.load(path)
        blocks, cues = (pickles.array(content[key]).astype(str).ravel() for key in ("exps", "cues"))
        runs = np.cumsum([1, *(blocks[1:] != blocks[:-1])]).tolist()
        for block, cue, run in zip(blocks.tolist(), cues.tolist(), runs, strict=True):
            ((task, letter),) = BLOCK.findall(block)
            trials.append((f"{letter}-{cue}", SPLITS[task], 1, run))
    return Subject(
        [betas, path, *masks.files.values()],
        masks.voxels(mask),
        mask.width,
        trials,
        lambda session: read_betas(betas, mask, len(trials)) / np.float32(PERCENT),
    )
