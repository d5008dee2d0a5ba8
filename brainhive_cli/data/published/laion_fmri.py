"""LAION-fMRI: pictures in train and test as the publisher's split files have them, and
single-trial betas.
"""

import re
from collections import defaultdict
from dataclasses import replace
from functools import partial
from io import BytesIO
from operator import getitem
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydantic import Field

from brainhive_cli.core import parts
from brainhive_cli.core.arrays import Int64
from brainhive_cli.core.damage import report_damage
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.files import locate
from brainhive_cli.core.key_types import Numbers
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.datasets import (
    PUBLISHED_FACTS,
    ROOT_FIELD,
    Dataset,
    list_split_pictures,
)
from brainhive_cli.data.files import hdf5
from brainhive_cli.data.files.ids import Names
from brainhive_cli.data.files.published_files import (
    cut_ending,
    fetch_line,
    find_below,
    find_file,
    read_table,
)
from brainhive_cli.data.fmri.betas import (
    PublishedBetas,
    PublishedSteps,
    Subject,
)
from brainhive_cli.data.fmri.volumes import Mask
from brainhive_cli.data.media.pictures import decode, report_bad_picture
from brainhive_cli.data.media.stimuli import StimulusSet
from brainhive_cli.data.recordings.shown_pictures import name_stimuli_keys
from brainhive_cli.data.signals.holdout import read_split
from brainhive_cli.data.signals.spaces import Voxels

NAME = "laion-fmri"
SPLITS = ("train", "test")
SOURCE = fetch_line(NAME)
DEFAULT = ("shared", "random_0")
"""Pool and split whose stores have the plain name."""
# files of pictures, of their names and of captions, as the publisher calls them
PICTURES = "task-images_stimuli.h5"
METADATA = "task-images_metadata.csv"
CAPTIONS = "task-images_desc-captions.csv"
SPLIT_FILES = (
    "copy laion_fmri/splits/data of the publisher's package into that folder, as splits"
)


FOLDER = "derivatives/glmsingle-tedana/"
REGIONS = (
    "derivatives/atlases/{0}/rois/[!.]*.nii.gz",
    "derivatives/rois/{0}/*/{0}_space-T1w_*label-*_mask.nii.gz",
)
"""Paths of regions as distributed since May 2026, and later; those of surfaces are not
read.
"""
NAME_OF_REGION = re.compile(r"(?:.*_label-)?(.+?)(?:_mask)?\.nii\.gz")
SESSIONS = range(1, 31)
"""Sessions that are distributed of each subject; 31 to 34 are withheld."""
MASK_R2 = 15
"""Percent of variance, the mean over sessions, above which voxels are in the
publisher's mask of May 2026.
"""
UNUSED = "trials of pictures that are neither in train nor in test"


class LaionFmriPictures(parts.Config):
    """The pictures of LAION-fMRI, in train and test as one of the publisher's split
    files has them.

    These files lie in splits/POOL/NAME.json. A picture's id is the name of its file
    without the last suffix, and each picture is a concept of its own. Other splits than
    the default are data sets with stores of their own, as `laion-fmri-sub-01-tau`.
    """

    root: str = ROOT_FIELD
    pool: str = Field(
        DEFAULT[0],
        pattern=r"^(shared|pooled|sub-\d\d)$",
        description="shared: what all subjects saw; pooled: all pictures of all "
        "subjects, who may be trained together on either; sub-01 and so "
        "on: all pictures of that subject, for whom alone it is",
    )
    split: str = Field(
        DEFAULT[1],
        pattern=r"^\w+$",
        description="file of the pool: tau, cluster_k5_0 to cluster_k5_4, or, not of "
        "`pooled`, random_0 to random_4 or ood",
    )

    def read_split(self, root: Path) -> tuple[dict[str, str], Path]:
        """Read the split of each picture from the user's copy of the split files;
        return the file, too.

        Raises:
            MissingData: if it is not there, or is no split.
        """
        # the first variant of the split, in which each picture is once
        path = find_file(root, f"splits/**/{self.pool}/{self.split}.json", SPLIT_FILES)
        return read_split(path, SPLIT_FILES, cut_ending)[0], path

    def build(self, paths: Paths) -> Dataset:
        """Point at the data; nothing is read yet."""
        # stores of another split than the default are called by it
        words = self.pool, self.split
        name = NAME if words == DEFAULT else "-".join([NAME, *words])
        listed = partial(_list_pictures, paths.dataset(NAME, self.root), self, name)
        return Dataset(
            name,
            SPLITS,
            listed,
            pictured_as=NAME,
            published_sizes=PUBLISHED_FACTS.get(name),
            files=lambda split, _: list_split_pictures(name, split, listed),
        )


def _list_pictures(
    root: Path, config: LaionFmriPictures, name: str, split: str
) -> StimulusSet:
    """List the pictures of a split, with captions where their file is there."""
    split_of, _ = config.read_split(root)
    ids = Names.of(image_id for image_id, side in split_of.items() if side == split)

    # the row of each picture in the HDF5 file, by the table of names
    path = find_file(root, PICTURES, SOURCE)
    table = find_file(root, METADATA, SOURCE)
    names = read_table(table, SOURCE, lambda row: cut_ending(row["image_name"]))
    with report_damage(table, SOURCE):
        row_of = {name: row for row, name in enumerate(names)}
        rows = np.array([row_of[image_id] for image_id in ids])  # [N]
    images = StimulusSet(
        name, split, ids, ids, partial(_read_picture, path, rows), way_out=SOURCE
    )
    captions = find_below(root, CAPTIONS)
    if captions is None:
        return images

    # captions of each picture in the order of their numbers
    texts = defaultdict(list)
    entries = read_table(
        captions,
        SOURCE,
        lambda row: (
            cut_ending(row["image_name"]),
            int(row["caption_idx"]),
            row["caption"],
        ),
    )
    for name, _, text in sorted(entries):
        texts[name].append(text)
    lists = [texts[image_id] for image_id in ids]
    return replace(
        images, captions=partial(getitem, lists), captions_each=max(map(len, lists))
    )


def _read_picture(path: Path, rows: Int64, index: int) -> Image.Image:
    """Decode the file in a row of `images`; the HDF5 file is closed again
    afterwards.
    """
    name = f"row {rows[index]} of {path}"
    with report_bad_picture(name), hdf5.open_unlocked(path) as file:
        # an encoded picture as a row of bytes
        content = hdf5.find_dataset(file, "images")[int(rows[index])]
        return decode(BytesIO(content.astype(np.uint8).tobytes()), name)


class LaionFmriBetas(PublishedSteps):
    """LAION-fMRI from its single-trial betas, which GLMsingle's type D estimated
    session by session.

    They lie below derivatives/glmsingle-tedana, of voxels by their R².

    R² above 15 % is the mask that the publisher's package made in May 2026, and is read
    from it where it is there; later versions take R² above 0, all voxels with any fit.
    A region is called as its file without hyphens, `FFA1` and `pSTSfaces`: on the
    bucket it has them, as the package saves it it has none.
    The folder says whose betas they are: numbers of people in names of pictures
    (`_p04`) and in split files are older codes, which mean other subjects.
    """

    name = NAME

    stimuli: Any = parts.part_field(
        "datasets", NAME, "pool and split of the pictures; its root is as above"
    )
    above_r2: float = Field(
        MASK_R2,
        ge=0,
        lt=100,
        description=(
            "percent of variance, the mean over sessions, above which voxels are kept"
        ),
    )
    sessions: Numbers | None = Field(
        None, description="sessions, each of which must be there; default: 1-30"
    )

    def build(self, paths: Paths) -> PublishedBetas:
        """Point at the data; nothing is read yet."""
        # the data set of this pool and split, and the folders of the subjects that the
        # pool is of
        pool = self.stimuli.pool
        root = paths.dataset(NAME, self.root)
        patterns = [FOLDER + (pool if pool.startswith("sub-") else "sub-{subject:02d}")]
        return PublishedBetas(
            self, root, stimuli=self.stimuli.build(paths), patterns=patterns
        )

    def open_subject(self, root: Path, subject: int) -> Subject:
        """Read masks, and the tables of trials; refuse the pool of another subject."""
        # split of each picture
        name = f"sub-{subject:02d}"
        stimuli = self.stimuli
        with name_stimuli_keys():
            split_of, split_file = stimuli.read_split(
                locate(stimuli.root) if stimuli.root else root
            )
        if stimuli.pool not in ("shared", "pooled", name):
            raise BrainhiveError(
                f"pool {stimuli.pool} is for that subject alone: {name} may be trained "
                "on what it tests on",
                "preparation.stimuli.pool=shared, whose test is the same for all",
            )

        # voxels and their regions
        folder = root / FOLDER / name
        images = f"{name}_task-images_space-T1w"
        # the publisher's mask, or voxels by R² where it is absent or not asked for
        path = find_below(folder, f"{images}_desc-meanR2gt15mask_mask.nii.gz")
        least = 0.0
        if path is None or self.above_r2 != MASK_R2:
            r2 = f"{images}_stat-rsquare_desc-R2mean_statmap.nii.gz"
            path = find_file(folder, r2, SOURCE)
            least = self.above_r2
        mask = Mask.open(path, SOURCE, exclusive_threshold=least)
        # regions, called as files without hyphens
        paths = sorted(
            path for pattern in REGIONS for path in root.glob(pattern.format(name))
        )
        regions = {
            NAME_OF_REGION.sub(r"\1", file.name).replace("-", ""): mask.read_values(
                file
            )
            > 0
            for file in paths
        }

        # the betas and trials of each session, whose numbers must agree
        betas = {}
        tables = []
        trials = []
        for session in self.sessions or SESSIONS:
            stem = f"ses-{session:02d}/func/{name}_ses-{session:02d}_task-images"
            volumes = (
                f"{stem}_space-T1w_stat-effect_desc-SingletrialBetas_statmap.nii.gz"
            )
            betas[session] = find_file(folder, volumes, SOURCE)
            tables.append(
                find_file(folder, f"{stem}_desc-SingletrialBetas_trials.tsv", SOURCE)
            )
            rows = sorted(read_table(tables[-1], SOURCE, _read_trial))
            # betas and trials are matched by their number alone
            count = int(mask.open_series(betas[session]).shape[3])
            if count != len(rows):
                raise BrainhiveError(
                    f"session {session} of subject {subject} has {count} betas of "
                    f"{len(rows)} trials",
                    SOURCE,
                )
            # a picture of neither split has the reason instead of its split
            trials += [
                (picture, split_of.get(picture, UNUSED), session, run)
                for _, picture, run in rows
            ]
        return Subject(
            [split_file, path, *paths, *tables, *betas.values()],
            Voxels(regions, grid=mask.grid),
            mask.width,
            trials,
            lambda session: mask.read_series(betas[session]),
            {"fitted": "session by session, training and test together"},
        )


def _read_trial(row: dict[str, str]) -> tuple[int, str, int]:
    return (
        int(row["beta_index"]),
        cut_ending(row["label"]),
        int(row["run"].rpartition("-")[2]),
    )
