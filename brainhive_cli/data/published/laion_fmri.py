"""LAION-fMRI: pictures in the publisher's splits, and single-trial betas."""

import re
from collections import defaultdict
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydantic import Field

from brainhive_cli.core.base import BrainhiveError, Int64
from brainhive_cli.core.files import locate, report_damage
from brainhive_cli.core.recipes import Numbers, Paths, parts
from brainhive_cli.data.datasets import (
    PUBLISHED_FACTS,
    ROOT_FIELD,
    Dataset,
    list_split_pictures,
)
from brainhive_cli.data.files import (
    Names,
    cut_ending,
    fetch_line,
    find_below,
    find_file,
    hdf5,
    read_table,
)
from brainhive_cli.data.fmri import Mask, PublishedBetas, PublishedSteps, Subject
from brainhive_cli.data.media import StimulusSet, decode, report_bad_picture
from brainhive_cli.data.recordings import name_stimuli_keys
from brainhive_cli.data.signals import Voxels, read_split

NAME = "laion-fmri"
FETCH_HINT = fetch_line(NAME)
PICTURES = "task-images_stimuli.h5"
"""File with the HDF5 dataset `images` of encoded pictures [N], a row of bytes each."""
METADATA = "task-images_metadata.csv"
"""Table of the pictures, in the order of their rows in PICTURES."""
CAPTIONS = "task-images_desc-captions.csv"
SPLIT_LIST_HINT = (
    "copy laion_fmri/splits/data of the publisher's package into that folder, as splits"
)

FOLDER = "derivatives/glmsingle-tedana/"
_RUN = "ses-{session:02d}/func/sub-{subject:02d}_ses-{session:02d}_task-images"
BETAS = _RUN + "_space-T1w_stat-effect_desc-SingletrialBetas_statmap.nii.gz"
TRIALS = _RUN + "_desc-SingletrialBetas_trials.tsv"
MASK = "sub-{:02d}_task-images_space-T1w_desc-meanR2gt15mask_mask.nii.gz"
R2 = "sub-{:02d}_task-images_space-T1w_stat-rsquare_desc-R2mean_statmap.nii.gz"
"""Files of a session's betas and trials, of the mask, and of the R² of all voxels, in
percent of variance, averaged over sessions.
"""
SESSIONS = range(1, 31)
"""Distributed sessions. The publisher withholds sessions 31 to 34."""


class LaionFmriPictures(parts.Config):
    """The pictures of LAION-fMRI, with train and test from a split file of the
    publisher.

    Split files lie in splits/POOL/NAME.json. A picture's id is the name of its file
    without the last suffix, and each picture is a concept of its own. Other splits than
    the default are data sets with stores of their own, such as `laion-fmri-sub-01-tau`.
    """

    root: str = ROOT_FIELD
    pool: str = Field(
        "shared",
        pattern=r"^(shared|pooled|sub-\d\d)$",
        description="pictures: shared by all subjects, pooled over all subjects, or "
        "all of a subject such as sub-01, whose split is for that subject alone; "
        "subjects can be trained together on shared and on pooled",
    )
    split: str = Field(
        "random_0",
        pattern=r"^\w+$",
        description="split file of the pool: tau, cluster_k5_0 to cluster_k5_4, or "
        "(not for `pooled`) random_0 to random_4 or ood",
    )

    def read_split(self, root: Path) -> tuple[dict[str, str], Path]:
        """Read the split of each picture from the user's copy of the split files.

        Returns:
            Split by image id, and the path of the file.

        Raises:
            MissingData: if the file is absent, or no split.
        """
        name = f"splits/**/{self.pool}/{self.split}.json"
        path = find_file(root, name, SPLIT_LIST_HINT)
        # each variant has all pictures
        variants = read_split(path, SPLIT_LIST_HINT, cut_ending)
        return variants[0], path

    def build(self, paths: Paths) -> Dataset:
        """Make the data set. No file is read yet."""
        # stores of the default split have the plain name
        name = NAME
        if (self.pool, self.split) != ("shared", "random_0"):
            name = f"{NAME}-{self.pool}-{self.split}"
        root = paths.dataset(NAME, self.root)
        list_pictures = partial(_list_pictures, root, self, name)
        return Dataset(
            name,
            ("train", "test"),
            list_pictures,
            pictured_as=NAME,
            published_sizes=PUBLISHED_FACTS.get(name),
            files=lambda split, _: list_split_pictures(name, split, list_pictures),
        )


class LaionFmriBetas(PublishedSteps):
    """LAION-fMRI from its single-trial betas, which GLMsingle's type D estimated
    session by session.

    They lie below derivatives/glmsingle-tedana. Voxels are selected by their R².

    The publisher's package of May 2026 made a mask of R² above 15 %, which is read if
    it is there. Later versions take R² above 0, all voxels with any fit.
    Regions are named as their files without hyphens, such as `FFA1` and `pSTSfaces`,
    because the bucket and the publisher's package differ in hyphens.
    The folder says whose betas they are. Numbers of people in names of pictures
    (`_p04`) and in split files are older codes, which mean other subjects.
    """

    name = NAME

    stimuli: Any = parts.part_field(
        "datasets", NAME, "pool and split of the pictures; default of its root: `root`"
    )
    sessions: Numbers | None = Field(
        None, description="sessions, each of which must be there; default: 1-30"
    )

    def build(self, paths: Paths) -> PublishedBetas:
        """Make the preparation. No file is read yet."""
        # the pool of a subject is for that subject alone
        pool = self.stimuli.pool
        subjects = pool if pool.startswith("sub-") else "sub-{subject:02d}"
        return PublishedBetas(
            self,
            paths.dataset(NAME, self.root),
            stimuli=self.stimuli.build(paths),
            patterns=[FOLDER + subjects],
        )

    def open_subject(self, root: Path, subject: int) -> Subject:
        """Read masks and the tables of trials.

        Raises:
            BrainhiveError: if the pool is for another subject, or a session has other
                numbers of betas and trials.
        """
        name = f"sub-{subject:02d}"
        stimuli = self.stimuli
        with name_stimuli_keys():
            picture_root = locate(stimuli.root) if stimuli.root else root
            split_of, split_list = stimuli.read_split(picture_root)
        if stimuli.pool not in ("shared", "pooled", name):
            raise BrainhiveError(
                f"pool {stimuli.pool} is for that subject alone: its test pictures may "
                f"be training pictures in pool {name}",
                "preparation.stimuli.pool=shared, whose test is the same for all",
            )

        folder = root / FOLDER / name
        mask = self._open_mask(folder, subject)
        region_paths: list[Path] = []
        # Files of regions, as distributed in May 2026 and later. Surfaces are not read.
        region_patterns = (
            "derivatives/atlases/{0}/rois/[!.]*.nii.gz",
            "derivatives/rois/{0}/*/{0}_space-T1w_*label-*_mask.nii.gz",
        )
        for pattern in region_patterns:
            region_paths += root.glob(pattern.format(name))
        region_paths.sort()
        regions = {}
        for path in region_paths:
            region = re.sub(
                r"(?:.*_label-)?(.+?)(?:_mask)?\.nii\.gz", r"\1", path.name
            ).replace("-", "")
            regions[region] = mask.read_values(path) > 0

        files = [split_list, mask.path] + region_paths
        betas = {}
        trials = []
        for session in self.sessions or SESSIONS:
            names = {"subject": subject, "session": session}
            betas[session] = find_file(folder, BETAS.format(**names), FETCH_HINT)
            table = find_file(folder, TRIALS.format(**names), FETCH_HINT)
            files.append(table)
            rows = sorted(read_table(table, FETCH_HINT, _read_trial))
            # a trial has nothing but its number in common with its beta
            n_betas = int(mask.open_series(betas[session]).shape[3])
            if n_betas != len(rows):
                raise BrainhiveError(
                    f"session {session} of subject {subject} has {n_betas} betas of "
                    f"{len(rows)} trials",
                    FETCH_HINT,
                )
            for _, picture, run_number in rows:
                split = split_of.get(
                    picture, "trials of pictures that are neither in train nor in test"
                )
                trials.append((picture, split, session, run_number))

        return Subject(
            files + list(betas.values()),
            Voxels(regions, grid=mask.grid),
            mask.width,
            trials,
            lambda session: mask.read_series(betas[session]),
            {"fitted": "session by session, training and test together"},
        )

    def _open_mask(self, folder: Path, subject: int) -> Mask:
        """Open the publisher's mask, or make it from R² if it is absent."""
        path = find_below(folder, MASK.format(subject))
        if path is not None:
            return Mask.open(path, FETCH_HINT, exclusive_threshold=0.0)
        path = find_file(folder, R2.format(subject), FETCH_HINT)
        # R² in percent above which voxels are in MASK, made by the publisher
        # in May 2026.
        return Mask.open(path, FETCH_HINT, exclusive_threshold=15.0)


def _list_pictures(
    root: Path, config: LaionFmriPictures, name: str, split: str
) -> StimulusSet:
    """List the pictures of a split, with captions if there are any."""
    split_of, _ = config.read_split(root)
    image_ids = Names.of(key for key, value in split_of.items() if value == split)
    path = find_file(root, PICTURES, FETCH_HINT)
    table = find_file(root, METADATA, FETCH_HINT)
    names = read_table(table, FETCH_HINT, _read_image_id)
    with report_damage(table, FETCH_HINT):
        row_of = {image_id: row for row, image_id in enumerate(names)}
        rows = np.array([row_of[image_id] for image_id in image_ids])  # [N]
    pictures = StimulusSet(
        name,
        split,
        image_ids,
        concepts=image_ids,
        open=partial(_read_picture, path, rows),
        way_out=FETCH_HINT,
    )
    captions = find_below(root, CAPTIONS)
    if captions is None:
        return pictures

    texts = defaultdict(list)
    for image_id, _, text in sorted(read_table(captions, FETCH_HINT, _read_caption)):
        texts[image_id].append(text)
    lists = [texts[image_id] for image_id in image_ids]
    n_captions = max(map(len, lists))
    return replace(pictures, captions=lists.__getitem__, captions_each=n_captions)


def _read_image_id(cells: dict[str, str]) -> str:
    """Read the image id from a row of METADATA or CAPTIONS."""
    return cut_ending(cells["image_name"])


def _read_caption(cells: dict[str, str]) -> tuple[str, int, str]:
    """Read the image id, the number and the text of a caption."""
    return _read_image_id(cells), int(cells["caption_idx"]), cells["caption"]


def _read_trial(cells: dict[str, str]) -> tuple[int, str, int]:
    """Read the number, the image id and the run of a trial."""
    run_number = int(cells["run"].rpartition("-")[2])
    return int(cells["beta_index"]), cut_ending(cells["label"]), run_number


def _read_picture(path: Path, rows: Int64, index: int) -> Image.Image:
    """Decode a picture. The file is closed again, for worker processes."""
    row = int(rows[index])
    name = f"row {row} of {path}"
    with report_bad_picture(name), hdf5.open_unlocked(path) as file:
        content = hdf5.find_dataset(file, "images")[row]
        return decode(BytesIO(content.astype(np.uint8).tobytes()), name)
