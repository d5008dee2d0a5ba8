"""LAION-fMRI from its single-trial betas, which GLMsingle's type D estimated session by session."""

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from brainhive_cli.core import parts
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.files import locate
from brainhive_cli.core.recipe import Numbers, Paths
from brainhive_cli.data.preparations import keys_of_stimuli
from brainhive_cli.data.preparations._betas import BetaSteps, PublishedBetas, Subject
from brainhive_cli.data.preparations._brain_images import Mask
from brainhive_cli.data.published_data import cut_ending, fetch_line, find_below, find_file, read_table
from brainhive_cli.data.spaces import Voxels

NAME = "laion-fmri"
SOURCE = fetch_line(NAME)
FOLDER = "derivatives/glmsingle-tedana/"
REGIONS = (
    "derivatives/atlases/{0}/rois/[!.]*.nii.gz",
    "derivatives/rois/{0}/*/{0}_space-T1w_*label-*_mask.nii.gz",
)
"""Paths of regions as distributed since May 2026, and later; those of surfaces are not read."""
NAME_OF_REGION = re.compile(r"(?:.*_label-)?(.+?)(?:_mask)?\.nii\.gz")
SESSIONS = range(1, 31)
"""Sessions that are distributed of each subject; 31 to 34 are withheld."""
MASK_R2 = 15
"""Percent of variance, the mean over sessions, above which voxels are in the publisher's mask of May 2026."""
UNUSED = "trials of pictures that are neither in train nor in test"


class Config(BetaSteps):
    """LAION-fMRI's betas below derivatives/glmsingle-tedana, of voxels by their R².

    R² above 15 % is the mask that the publisher's package made in May 2026, and is read from it where it is
    there; later versions take R² above 0, all voxels with any fit. A region is called as its file without
    hyphens, `FFA1` and `pSTSfaces`: on the bucket it has them, as the package saves it it has none.
    The folder says whose betas they are: numbers of people in names of pictures (`_p04`) and in split files
    are older codes, which mean other subjects.
    """

    root: str = Field("", description="folder of the data set; default: laion-fmri below paths.data")
    stimuli: Annotated[Any, parts.part("datasets", NAME)] = Field(
        NAME, validate_default=True, description="pool and split of the pictures; its root is as above"
    )
    above_r2: float = Field(
        MASK_R2,
        ge=0,
        lt=100,
        description="percent of variance, the mean over sessions, above which voxels are kept",
    )
    sessions: Numbers | None = Field(None, description="sessions, each of which must be there; default: 1-30")

    def build(self, paths: Paths) -> PublishedBetas:
        """Point at the data; nothing is read yet."""
        root, stimuli = paths.dataset(NAME, self.root), self.stimuli
        whose = FOLDER + (stimuli.pool if stimuli.pool.startswith("sub-") else "sub-{subject:02d}")
        return PublishedBetas(self, root, dataset=stimuli.name, patterns=(whose,), find=_find)


TINY = Config()


def _find(config: Config, root: Path, subject: int) -> Subject:
    """Read masks, and the tables of trials; refuse the pool of another subject."""
    # split of each picture
    name, stimuli = f"sub-{subject:02d}", config.stimuli
    with keys_of_stimuli():
        split_of, split_file = stimuli.read_split(locate(stimuli.root) if stimuli.root else root)
    if stimuli.pool not in ("shared", "pooled", name):
        problem = f"pool {stimuli.pool} is for that subject alone: {name} may be trained on what it tests on"
        raise BrainhiveError(problem, "preparation.stimuli.pool=shared, whose test is the same for all")

    # voxels and their regions
    folder, images = root / FOLDER / name, f"{name}_task-images_space-T1w"
    path, least = find_below(folder, f"{images}_desc-meanR2gt15mask_mask.nii.gz"), 0.0
    if path is None or config.above_r2 != MASK_R2:
        r2 = f"{images}_stat-rsquare_desc-R2mean_statmap.nii.gz"
        path, least = find_file(folder, r2, SOURCE), config.above_r2
    mask = Mask.open(path, SOURCE, above=least)
    paths = sorted(path for pattern in REGIONS for path in root.glob(pattern.format(name)))
    names = {path: NAME_OF_REGION.sub(r"\1", path.name).replace("-", "") for path in paths}
    regions = {region: mask.read(region_path) > 0 for region_path, region in names.items()}

    # the betas and trials of each session, whose numbers must agree
    betas, tables, trials = {}, [], []
    for session in config.sessions or SESSIONS:
        stem = f"ses-{session:02d}/func/{name}_ses-{session:02d}_task-images"
        volumes = f"{stem}_space-T1w_stat-effect_desc-SingletrialBetas_statmap.nii.gz"
        betas[session] = find_file(folder, volumes, SOURCE)
        tables.append(find_file(folder, f"{stem}_desc-SingletrialBetas_trials.tsv", SOURCE))
        rows = sorted(read_table(tables[-1], SOURCE, _read_trial))
        if [row for row, _, _ in rows] != [*range(len(rows))]:
            raise MissingData(f"{tables[-1]}: beta_index does not count the betas from 0", SOURCE)
        if (count := int(mask.open_series(betas[session]).shape[3])) != len(rows):
            problem = f"session {session} of subject {subject} has {count} betas of {len(rows)} trials"
            raise BrainhiveError(problem, SOURCE)
        trials += [(picture, split_of.get(picture, UNUSED), session, run) for _, picture, run in rows]
    return Subject(
        [split_file, path, *paths, *tables, *betas.values()],
        Voxels(regions, grid=mask.grid),
        mask.width,
        trials,
        lambda session: mask.read_series(betas[session]),
        "session by session, training and test together",
    )


def _read_trial(row: dict[str, str]) -> tuple[int, str, int]:
    return int(row["beta_index"]), cut_ending(row["label"]), int(row["run"].rpartition("-")[2])
