"""Natural Scenes Dataset (NSD): pictures, single-trial betas and NSD-Imagery."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from operator import itemgetter
from pathlib import Path, PurePath
from typing import ClassVar, Literal

import numpy as np
from PIL import Image
from pydantic import Field

from brainhive_cli.core.base import (
    Array,
    Bool,
    BrainhiveError,
    Int64,
    MissingData,
    RecipeError,
)
from brainhive_cli.core.files import (
    Input,
    find_files_named,
    is_file,
    locate,
    report_damage,
)
from brainhive_cli.core.recipes import Numbers, Paths, Pattern, parts
from brainhive_cli.data.datasets import PUBLISHED_FACTS, ROOT_FIELD, Dataset
from brainhive_cli.data.files import (
    PICTURES as PICTURE_ENDINGS,
    Names,
    fetch_line,
    find_below,
    find_file,
    hdf5,
    pickles,
    read_table,
)
from brainhive_cli.data.fmri import (
    NIFTI_ENDINGS,
    Mask,
    PublishedBetas,
    PublishedSteps,
    Subject,
    open_image,
)
from brainhive_cli.data.media import StimulusSet, report_bad_picture
from brainhive_cli.data.recordings import fill_subject
from brainhive_cli.data.signals import HOLDOUT_FIELD, SEPARATE_TEST, Holdout, Voxels

SPLITS = ("train", "test")
FETCH_HINT = fetch_line("nsd")

N_SESSIONS = (40, 40, 32, 30, 40, 32, 40, 30)
"""Number of sessions of subjects 1 to 8. Source: Allen et al. 2022."""
SUBJECTS = range(1, len(N_SESSIONS) + 1)
TRIALS_PER_SESSION = 750
LAST_SESSIONS = {982: 37, 1000: max(N_SESSIONS)}
"""Last session by the number of test pictures. The first release had 37 sessions, with
982 of the shared pictures and 8,859 others per subject.
"""

STIMULI = "nsd_stimuli.hdf5"
"""File of the HDF5 dataset `imgBrick`, pictures [73000, 425, 425, 3]."""
STIM_INFO = "nsd_stim_info_merged.csv"
"""Table of the pictures. `nsdId` is the row in imgBrick, `shared1000` is "True" for a
shared picture, and `subject1_rep0` the trial in which subject 1 first saw it, or 0.
"""
CAPTIONS = "COCO_73k_annots_curated.npy"
"""MindEye1's captions: strings [73000, 5], "" where a picture has fewer."""
CAPTIONS_HINT = (
    f"hf download pscotti/naturalscenesdataset {CAPTIONS} --repo-type dataset "
    "--local-dir"
)
DESIGN = "nsd_expdesign.mat"
"""File of variables that count from 1: `masterordering`, the position [30000] of each
trial's picture in the list of the subject, and `subjectim`, these lists [8, 10000] of
pictures, the 1000 shared ones first.
"""

SPACE = "func1pt8mm"
MASKS_FOLDER = "nsddata/ppdata/subj{:02d}/{}/roi"
"""Folder of the masks, by subject and space."""
ATLASES = {
    "nsdgeneral": "",
    "prf-visualrois": "V1v V1d V2v V2d V3v V3d hV4",
    "prf-eccrois": "ecc0pt5 ecc1 ecc2 ecc4 ecc4p",
    "floc-faces": "OFA FFA-1 FFA-2 mTL-faces aTL-faces",
    "floc-words": "OWFA VWFA-1 VWFA-2 mfs-words mTL-words",
    "floc-places": "OPA PPA RSC",
    "floc-bodies": "EBA FBA-1 FBA-2 mTL-bodies",
    "streams": "early midventral midlateral midparietal ventral lateral parietal",
}
"""Names of the labels 1, 2, … in each mask. Labels 0 and -1 are no region."""
GENERAL = "nsdgeneral"
"""Mask whose voxels all prepared files hold, in C order."""

BETAS_FOLDER = "nsddata_betas/ppdata/subj{subject:02d}"
STORED_PER_PERCENT = np.float32(300)
"""Stored value of a beta of 1 percent."""

IMAGERY_HINT = fetch_line("nsd-imagery")
IMAGERY_FOLDER = f"{BETAS_FOLDER}/{SPACE}/nsdimagerybetas_fithrf_GLMdenoise_RR"
IMAGERY_RUNS = (
    "visA attA imgA_1 visB attB imgB_1 visC attC imgC_1 imgA_2 imgB_2 imgC_2".split()
)
"""Runs in the order of the betas: task, set of six stimuli, and number of the two
imagery runs of a set.
"""


class NsdPictures(parts.Config):
    """The stimuli of the Natural Scenes Dataset: 73,000 squares of COCO, 1000 of them
    seen by all subjects.

    They have 425 × 425 pixels. `test` is the 1000 pictures that all subjects saw,
    `train` the others. A picture's id is its 73k id, as NSD's own file names have it
    (`nsd02951`, counted from 1). Each picture is a concept of its own. Captions are
    COCO's, from COCO_73k_annots_curated.npy anywhere below the folder.
    """

    root: str = ROOT_FIELD
    subjects: Numbers | None = Field(
        None,
        description="only the 10,000 pictures that each of these subjects saw, with "
        "stores of their own; default: all 73,000",
    )
    holdout: Holdout | None = HOLDOUT_FIELD

    def build(self, paths: Paths) -> Dataset:
        """Make the data set. No file is read yet."""
        subjects = sorted(set(self.subjects or ()))
        for subject in subjects:
            if subject not in SUBJECTS:
                raise RecipeError(
                    f"nsd has no subject {subject}", f"it has 1 to {max(SUBJECTS)}"
                )

        root = paths.dataset("nsd", self.root)
        # the pictures of selected subjects have a name, and so stores, of their own
        name = "-".join(["nsd"] + list(map(str, subjects)))
        published = PUBLISHED_FACTS["nsd"]
        if subjects:
            # each subject saw 9,000 pictures that no other subject saw
            counts = {**published.stimuli, "train": 9_000 * len(subjects)}
            published = replace(published, stimuli=counts)
        return Dataset(
            name,
            SPLITS,
            partial(_list_pictures, root, name, subjects),
            recorded_as="nsd",
            published_sizes=published,
            holdout=self.holdout or SEPARATE_TEST,
            files=partial(_list_files, root),
        )


class NsdSteps(PublishedSteps):
    """Steps that keep all voxels of a mask, as models know voxels by their order."""

    keeps_constant = True
    min_ncsnr: ClassVar[None] = None  # type: ignore[misc]
    max_voxels: ClassVar[None] = None  # type: ignore[misc]

    root: str = Field(
        "",
        description="folder of nsddata and nsddata_betas; default: nsd below "
        "paths.data",
    )


class NsdBetas(NsdSteps):
    """NSD from its single-trial betas: voxels of a mask, regions, z-scores by session.

    nsddata and nsddata_betas are read as they are distributed. `test` is the pictures
    that all subjects saw. A region is named as its label (`V1v`, `FFA-1`, `ventral`), a
    mask as its file (`nsdgeneral`, `floc-faces`). `higher_vis` holds all voxels outside
    prf-visualrois.

    Source: Allen et al. 2022. Z-scores use the training trials of each session, as in
    MindEye2.
    """

    name = "nsd"
    numbers = SUBJECTS

    space: Pattern = Field(
        SPACE, description="space of the volumes: func1pt8mm or func1mm"
    )
    betas: Pattern = Field(
        "betas_fithrf_GLMdenoise_RR", description="folder of a version of the betas"
    )
    voxels: str = Field(GENERAL, description="mask of the voxels that are kept")
    masks: dict[str, str] = Field(
        {},
        description="your masks by name of the region, such as {spatial: "
        "masks/subj{subject:02d}_spatial.nii.gz}: NIfTI files below home, on the "
        "volumes of `space`, above 0 inside",
    )
    sessions: Numbers | None = Field(
        None, description="sessions, each of which must be there; default: all"
    )
    test_pictures: Literal[982, 1000] = Field(
        1000,
        description="number of test pictures: 1000, or 982 as in papers before 2024, "
        "which leaves out the sessions after 37",
    )
    zscore: bool = Field(  # type: ignore[assignment]
        True,
        description="z-score each voxel in each session by its training trials; no "
        "keeps percent signal change",
    )

    def build(self, paths: Paths) -> PublishedBetas:
        """Make the preparation. No file is read yet."""
        folder = f"{BETAS_FOLDER}/{self.space}/{self.betas}"
        return PublishedBetas(self, paths.dataset("nsd", self.root), patterns=[folder])

    @property
    def scale(self) -> str:
        """Trials within which voxels are z-scored."""
        return "session" if self.zscore else "no"

    def list_sessions(self, subject: int) -> Sequence[int]:
        """List the sessions that the recipe names, or all that the subject had."""
        if subject not in SUBJECTS:
            raise MissingData(
                f"nsd has no subject {subject}", f"it has 1 to {max(SUBJECTS)}"
            )
        last_session = LAST_SESSIONS[self.test_pictures]
        sessions = self.sessions or range(1, N_SESSIONS[subject - 1] + 1)
        return sorted(session for session in sessions if session <= last_session)

    def open_subject(self, root: Path, subject: int) -> Subject:
        """Read masks and design, and check the header of each session's betas."""
        folder = root / BETAS_FOLDER.format(subject=subject) / self.space / self.betas
        sessions = self.list_sessions(subject)
        betas = {session: _find_betas(folder, session) for session in sessions}
        own_masks = {
            name: locate(fill_subject(path, subject)).absolute()
            for name, path in self.masks.items()
        }
        masks_folder = root / MASKS_FOLDER.format(subject, self.space)
        masks = find_masks(masks_folder, self.voxels, own_masks)
        design = find_nsd_file(DESIGN, root)
        files = [design] + list(masks.values())

        # the published noise ceiling may be absent, and is NaN without signal
        mask, voxels = read_voxels(masks, self.voxels, own_masks)
        ncsnr = find_volume(folder, "ncsnr")
        if ncsnr is not None:
            ceiling = np.nan_to_num(mask.read_values(ncsnr).astype(np.float64))
            voxels = replace(voxels, maps={"ncsnr": ceiling})
            files.append(ncsnr)

        # picture and split of each trial by the design
        rows, is_test = read_design(design, subject)
        trials = []
        for session, path in betas.items():
            require_betas(path, mask, TRIALS_PER_SESSION)
            start = (session - 1) * TRIALS_PER_SESSION
            for trial in range(start, start + TRIALS_PER_SESSION):
                split = "test" if is_test[trial] else "train"
                trials.append((name_picture(int(rows[trial])), split, session, None))

        return Subject(
            files + list(betas.values()),
            voxels,
            mask.width,
            trials,
            lambda session: read_betas(betas[session], mask, TRIALS_PER_SESSION),
            {"masks": list(masks), "kept": self.voxels},
        )


class Imagery(NsdSteps):
    """NSD-Imagery: the voxels of NSD, seeing and imagining 18 stimuli, for models that
    were trained on NSD.

    Betas are read in a mask of NSD. Trials are listed in the public tables
    nsdimagery_subj0N_RUN.tsv or, without these, in the laboratory's own
    nsdimagery_stimuli.pkl3. A stimulus is named by its set and the value of `column` in
    the tables (or the pickle's cue), such as `A-X`. The name of a picture's file stands
    for that picture. The public files do not say which picture a value of CONDITION is,
    so pictures have the names of these values. Seen stimuli are `test`, imagined ones
    `imagery`. Trials of the attention task are left out. Voxels are z-scored within
    each run by all of its trials, as no trial is for training.
    """

    name = "nsd-imagery"
    folder = "nsd"
    patterns = (IMAGERY_FOLDER,)
    zscore: ClassVar[str] = "run"  # type: ignore[misc]

    voxels: str = Field(
        GENERAL, description="mask of the voxels that are kept, as NSD's were prepared"
    )
    column: str = Field(
        "CONDITION",
        description="column of the public tables that names the stimulus of a trial",
    )

    def open_subject(self, root: Path, subject: int) -> Subject:
        """Read masks and the stimulus of each trial. A run is a series of trials of the
        same block.
        """
        masks = find_masks(root / MASKS_FOLDER.format(subject, SPACE), self.voxels, {})
        mask, voxels = read_voxels(masks, self.voxels, {})
        folder = root / IMAGERY_FOLDER.format(subject=subject)
        betas = find_file(folder, "betas_nsdimagery.*", IMAGERY_HINT)

        # every beta has a stimulus, except in the attention task
        paths, blocks, stimuli = _read_imagery_trials(root, subject, self.column)
        require_betas(betas, mask, len(blocks))
        n_unnamed = 0
        run_number = 0
        previous_block = ""
        trials = []
        with report_damage(paths[0], IMAGERY_HINT):
            # Split of the trials of a task, or the reason why they are left out.
            split_of_task = {
                "vis": "test",
                "img": "imagery",
                "att": "trials of the attention task, each of which has two",
            }
            for block, stimulus in zip(blocks, stimuli, strict=True):
                # a run begins where the block changes
                if block != previous_block:
                    run_number += 1
                previous_block = block
                # Task and stimulus set in the name of a block.
                matches = re.findall(r"(vis|img|att)([ABC])", block)
                if len(matches) != 1:
                    raise ValueError(f"its block {block!r} names no task and set")
                task, stimulus_set = matches[0]
                if not stimulus and task != "att":
                    n_unnamed += 1
                file = PurePath(stimulus)
                is_picture = file.suffix.lower() in PICTURE_ENDINGS
                name = file.stem if is_picture else f"{stimulus_set}-{stimulus}"
                trials.append((name, split_of_task[task], 1, run_number))
        if n_unnamed:
            raise BrainhiveError(
                f"{paths[0].parent}: {n_unnamed} trials have nothing in column "
                f"{self.column}",
                "preparation.column=CONDITION",
            )

        return Subject(
            [betas] + paths + list(masks.values()),
            voxels,
            mask.width,
            trials,
            lambda session: read_betas(betas, mask, len(trials)),
        )


def name_picture(row: int) -> str:
    """Return the 73k id of a picture: row 0 of imgBrick is `nsd00001`."""
    return f"nsd{row + 1:05d}"


def find_nsd_file(name: str, *roots: Path) -> Path:
    """Find a file at any depth below several roots.

    Raises:
        MissingData: if no root has the file.
    """
    for root in roots:
        paths = find_files_named(name, root)
        if paths:
            return paths[0]
    raise MissingData(f"nsd: no {roots[-1]}/**/{name}", FETCH_HINT)


def find_volume(
    folder: Path, name: str, endings: Sequence[str] = NIFTI_ENDINGS
) -> Path | None:
    """Find the first file with any of the endings, or return None."""
    for ending in endings:
        path = folder / f"{name}{ending}"
        if is_file(path):
            return path
    return None


def find_masks(
    folder: Path, base: str, own_masks: Mapping[str, Path]
) -> dict[str, Path]:
    """Find the masks of a subject. Masks of NSD may be absent, except the base.

    Args:
        folder: Folder of NSD's masks, such as nsddata/ppdata/subj01/func1pt8mm/roi.
        base: Mask whose voxels are kept.
        own_masks: The user's masks by name.

    Raises:
        MissingData: if the base or a mask of the user is absent.
    """
    for name, path in own_masks.items():
        if not path.is_file():
            raise MissingData(
                f"no mask {path}",
                f"preparation.masks.{name}: a NIfTI file for each subject",
            )

    masks = {}
    for name in dict.fromkeys([base] + list(ATLASES)):
        volume = find_volume(folder, name)
        if volume is not None:
            masks[name] = volume
    masks.update(own_masks)
    if base not in masks:
        names = ", ".join(masks)
        hint = f"preparation.voxels=NAME, of {names}" if masks else FETCH_HINT
        raise MissingData(f"nsd: no mask {folder / base}.nii.gz", hint)
    return masks


def _find_betas(folder: Path, session: int) -> Path:
    """Find the betas of a session, or raise MissingData with the available sessions."""
    name = f"betas_session{session:02d}"
    path = find_volume(folder, name, (".hdf5", *NIFTI_ENDINGS))
    if path is not None:
        return path

    numbers = set()
    for file in folder.glob("*"):
        # Betas as NIfTI, or as the HDF5 dataset `betas` [trials, Z, Y, X], int16.
        match = re.fullmatch(r"betas_session(\d+)\..*", file.name)
        if match:
            numbers.add(int(match[1]))
    hint = FETCH_HINT
    if numbers:
        sessions = ",".join(map(str, sorted(numbers)))
        hint += f", or use the sessions you have: preparation.sessions={sessions}"
    raise MissingData(f"nsd: no {folder / name}.nii.gz, nor .hdf5", hint)


def _list_files(root: Path, split: str, content: str) -> list[Input]:
    """List the files of "captions" or of pictures. All splits have the same files."""
    if content == "captions":
        captions = find_files_named(CAPTIONS, root)
        return [Input.of_file(captions, root / CAPTIONS, f"{CAPTIONS_HINT} {root}")]
    pictures = find_files_named(STIMULI, root)
    table = find_files_named(STIM_INFO, root)
    stimuli_bytes = 73_000 * 425 * 425 * 3
    return [
        Input.of_file(pictures, root / STIMULI, FETCH_HINT, stimuli_bytes),
        Input.of_file(table, root / STIM_INFO, FETCH_HINT),
    ]


def _list_pictures(
    root: Path, name: str, subjects: Sequence[int], split: str
) -> StimulusSet:
    """List the pictures of a split that the subjects saw, with captions if there are
    any.
    """
    path = find_nsd_file(STIMULI, root)
    with hdf5.open_file(path, FETCH_HINT, MissingData) as file:
        count = len(hdf5.open_numbers(file, "imgBrick", "u"))
    shared_rows, seen_rows = _read_stim_info(root, subjects)
    if not shared_rows or max(seen_rows) >= count:
        raise BrainhiveError(
            f"{path} has {count} pictures, which do not include all of the "
            f"{len(shared_rows)} that all subjects saw",
            FETCH_HINT,
        )

    # rows [N] of imgBrick, which stays on disk
    if split == "test":
        split_rows = set(seen_rows) & set(shared_rows)
    else:
        split_rows = set(seen_rows) - set(shared_rows)
    rows = np.array(sorted(split_rows), np.int64)
    image_ids = Names.of(map(name_picture, rows.tolist()))
    pictures = StimulusSet(
        name,
        split,
        image_ids,
        concepts=image_ids,
        open=partial(_read_picture, path, rows),
        way_out=f"{CAPTIONS_HINT} {root}",
    )
    files = find_files_named(CAPTIONS, root)
    if not files:
        return pictures
    captions = partial(_list_captions, files[0], rows)
    return replace(pictures, captions=captions, captions_each=5)


def _read_stim_info(root: Path, subjects: Sequence[int]) -> tuple[list[int], list[int]]:
    """Read which pictures were shared, and which ones the subjects saw.

    Args:
        root: Folder of the data set.
        subjects: Numbers of subjects. All pictures count as seen if there are none.

    Returns:
        Rows in imgBrick of the shared and of the seen pictures.
    """
    columns = list(map("subject{}_rep0".format, subjects))

    def read_row(cells: dict[str, str]) -> tuple[int, bool, bool]:
        first_trials = [int(cells[column]) for column in columns]
        is_seen = not columns or any(first_trials)
        return int(cells["nsdId"]), cells["shared1000"] == "True", is_seen

    table = read_table(find_nsd_file(STIM_INFO, root), FETCH_HINT, read_row)
    shared_rows = [row for row, is_shared, _ in table if is_shared]
    seen_rows = [row for row, _, is_seen in table if is_seen]
    return shared_rows, seen_rows


def read_design(path: Path, subject: int) -> tuple[Int64, Bool]:
    """Read the trials of a subject in the order of time, for all planned sessions.

    Returns:
        Row [30000] of each trial's picture in imgBrick, counted from 0, and flags
        [30000] of shared pictures.

    Raises:
        MissingData: if the file is damaged.
    """
    from scipy.io import loadmat

    with report_damage(path, FETCH_HINT, exceptions=(Exception,)):
        content = loadmat(path, variable_names=("masterordering", "subjectim"))
        order = np.asarray(content["masterordering"]).ravel().astype(np.int64)
        pictures = np.asarray(content["subjectim"]).astype(np.int64)
        return pictures[subject - 1, order - 1] - 1, order <= 1000


def read_voxels(
    masks: Mapping[str, Path],
    base: str,
    own_masks: Mapping[str, Path],
) -> tuple[Mask, Voxels]:
    """Read the mask of the kept voxels, and their regions.

    Regions that a subject lacks are empty, so all subjects have the same list.

    Args:
        masks: Files of all masks by name.
        base: Mask whose voxels are kept.
        own_masks: The user's masks by name, which must lie in the space of the base.
    """
    mask = replace(Mask.open(masks[base], FETCH_HINT), compares_affines=False)
    own_mask = replace(
        mask,
        way_out="draw or resample it on the volumes of preparation.space, of the same "
        "subject",
        compares_affines=True,
    )
    regions = {}
    for name, path in masks.items():
        labels = (own_mask if name in own_masks else mask).read_values(path)
        regions[name] = labels > 0
        for number, label in enumerate(ATLASES.get(name, "").split(), 1):
            regions[label] = labels == number
    if "prf-visualrois" in regions:
        # MindEye2's name of the voxels outside the early visual areas
        regions["higher_vis"] = ~regions["prf-visualrois"]
    return mask, Voxels(regions, grid=mask.grid)


def _read_imagery_trials(
    root: Path, subject: int, column: str
) -> tuple[list[Path], list[str], list[str]]:
    """Read the trials of NSD-Imagery from the public tables, or else from the pickle.

    Returns:
        The files that were read, and the block and stimulus of each beta.
    """
    imagery_table = "nsddata/bdata/nsdimagery/nsdimagery_subj{:02d}_{}.tsv"
    names = [imagery_table.format(subject, run_name) for run_name in IMAGERY_RUNS]
    has_tables = any((root / name).exists() for name in names)
    # The laboratory's own file. `exps` are the blocks and `cues` the stimuli
    # of all betas.
    pickle = None if has_tables else find_below(root, "**/nsdimagery_stimuli.pkl3")
    if pickle is not None:
        with report_damage(pickle, IMAGERY_HINT):
            content = pickles.load(pickle)
            blocks = pickles.to_array(content["exps"]).astype(str).ravel().tolist()
            stimuli = pickles.to_array(content["cues"]).astype(str).ravel().tolist()
        return [pickle], blocks, stimuli

    blocks = []
    stimuli = []
    paths = [find_file(root, name, IMAGERY_HINT) for name in names]
    betas_per_trial = {"vis": 1, "img": 1, "att": 2}
    for path, run_name in zip(paths, IMAGERY_RUNS, strict=True):
        n_betas = betas_per_trial[run_name[:3]]
        for stimulus in read_table(path, IMAGERY_HINT, itemgetter(column)):
            blocks += [run_name] * n_betas
            stimuli += [stimulus] * n_betas
    return paths, blocks, stimuli


def _read_picture(path: Path, rows: Int64, index: int) -> Image.Image:
    """Read a picture of imgBrick. The file is closed again, for worker processes."""
    row = int(rows[index])
    with (
        report_bad_picture(f"{name_picture(row)} in {path}"),
        hdf5.open_unlocked(path) as file,
    ):
        return Image.fromarray(hdf5.open_numbers(file, "imgBrick", "u")[row])


def _list_captions(path: Path, rows: Int64, index: int) -> list[str]:
    """List the captions of a picture, in the order of the file."""
    table = _read_captions(path)
    row = int(rows[index])
    if row >= len(table):
        return []
    return [text for text in map(str, table[row]) if text]


@cache
def _read_captions(path: Path) -> Array:
    """Read the captions [73000, 5] of all pictures."""
    with report_damage(path, f"{CAPTIONS_HINT} {path.parent}"):
        table = pickles.to_array(pickles.load(path))
        if table.ndim != 2 or table.dtype.kind not in "UO":
            raise ValueError(
                f"it holds {table.dtype} {list(table.shape)}, not strings [N, K]"
            )
        return table


def read_betas(path: Path, mask: Mask, n_trials: int) -> Array:
    """Read the betas of a session in percent, after `require_betas` has checked them.

    A single volume (NIfTI) or plane of voxels (HDF5) is in memory at a time.

    Returns:
        Betas [trials, V] of the voxels of the mask, in C order.
    """
    if path.suffix != ".hdf5":
        return mask.read_series(path) / STORED_PER_PERCENT

    x, y, z = np.nonzero(mask.inside)  # [V] each
    betas = np.empty((n_trials, len(x)), np.int16)
    with hdf5.open_file(path, FETCH_HINT) as file:
        dataset = hdf5.open_numbers(file, "betas", "i")
        for plane in np.unique(z).tolist():
            is_inside = z == plane  # [V]
            betas[:, is_inside] = dataset[:, plane][:, y[is_inside], x[is_inside]]
    return betas / STORED_PER_PERCENT


def require_betas(path: Path, mask: Mask, n_trials: int) -> None:
    """Raise an error if the header of a session's betas has another shape or dtype.

    Raises:
        BrainhiveError: if the header differs, or the file is damaged.
    """
    if path.suffix == ".hdf5":
        with hdf5.open_file(path, FETCH_HINT) as file:
            dataset = hdf5.open_numbers(file, "betas", "i")
            # MATLAB wrote these files with the axes in reverse order
            shape = dataset.shape[::-1]
            dtype = dataset.dtype
    else:
        image = open_image(path, FETCH_HINT)
        shape = image.shape
        dtype = image.get_data_dtype()

    # [X, Y, Z, trials]
    expected_shape = list(mask.inside.shape) + [n_trials]
    if list(shape) != expected_shape or dtype != np.int16:
        raise BrainhiveError(
            f"{path} holds {dtype} {list(shape)}, but mask and design need int16 "
            f"{expected_shape}",
            FETCH_HINT,
        )
