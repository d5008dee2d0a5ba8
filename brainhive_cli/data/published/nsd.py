"""Natural Scenes Dataset: pictures, design of trials, masks of voxels, single-trial
betas; NSD-Imagery.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from itertools import pairwise
from operator import itemgetter
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from brainhive_cli.core import parts
from brainhive_cli.core.arrays import Array, Bool, Int64
from brainhive_cli.core.command import Input
from brainhive_cli.core.damage import report_damage
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.files import find_files_named, is_file, locate
from brainhive_cli.core.key_types import Numbers, Pattern
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.datasets import PUBLISHED, ROOT, Dataset
from brainhive_cli.data.files import hdf5, pickles
from brainhive_cli.data.files.ids import PICTURES as PICTURE_ENDINGS, Names
from brainhive_cli.data.files.published_files import (
    fetch_line,
    find_below,
    find_file,
    read_table,
)
from brainhive_cli.data.fmri.betas import (
    PublishedBetas,
    PublishedSteps,
    Subject,
    Trial,
)
from brainhive_cli.data.fmri.volumes import NIFTI, Mask, open_image
from brainhive_cli.data.media.pictures import decoding
from brainhive_cli.data.media.stimuli import StimulusSet
from brainhive_cli.data.recordings.contract import fill_subject
from brainhive_cli.data.signals.holdout import OF_TRAIN, SEPARATE_TEST, Holdout
from brainhive_cli.data.signals.spaces import Voxels

SESSIONS = (40, 40, 32, 30, 40, 32, 40, 30)
"""Sessions of subjects 1 to 8."""
SUBJECTS = range(1, len(SESSIONS) + 1)
SESSION_TRIALS = 750
"""Trials of a session."""
LAST_SESSIONS = {982: 37, 1000: max(SESSIONS)}
"""The last session by the number of test pictures: in the 37 of the first release 982
of the shared pictures were seen, and 8,859 others.
"""
SHARED, PICTURES = 1000, 73000
"""Pictures that all subjects were to see, and pictures in all."""
STIMULI = "nsd_stimuli.hdf5"
INFO = "nsd_stim_info_merged.csv"
BYTES = PICTURES * 425 * 425 * 3
"""Size of the pictures."""
CURATED = "COCO_73k_annots_curated.npy"
"""MindEye1's captions, [73000, 5] strings by 73k id; '' where there are fewer."""
CAPTIONS, OWN = 5, 9_000
"""Captions of a picture; training pictures of a subject, which nobody else saw."""
CAPTION_SOURCE = (
    f"hf download pscotti/naturalscenesdataset {CURATED} --repo-type dataset "
    "--local-dir"
)
MATRIX = "nsd_expdesign.mat"
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
"""Masks, and names of the labels 1, 2, … of each; 0 and -1 are no region."""
GENERAL = "nsdgeneral"
"""The mask whose voxels all prepared files hold, in C order."""
EARLY, HIGHER = "prf-visualrois", "higher_vis"
"""The mask of early visual areas, and the region of all kept voxels outside them, as
MindEye2 calls it.
"""
PERCENT = 300
"""Factor by which betas are multiplied in the files."""
SPACE = "draw or resample it on the volumes of preparation.space, of the same subject"
SPLITS = ("train", "test")
FOLDER = "nsddata_betas/ppdata/subj{subject:02d}"
ROI = "nsddata/ppdata/subj{:02d}/{}/roi"
SOURCE = fetch_line("nsd")
ROOT_OF_BETAS: Any = Field(
    "", description="folder of nsddata and nsddata_betas; default: nsd below paths.data"
)


def name_picture(row: int) -> str:
    """Name a picture by its row of imgBrick counted from 0, as NSD's files do, which
    count from 1.
    """
    return f"nsd{row + 1:05d}"


class NsdPictures(parts.Config):
    """The stimuli of the Natural Scenes Dataset: 73,000 squares of COCO, 1000 of them
    seen by all subjects.

    They have 425 × 425 pixels. `test` is the 1000 pictures that all subjects saw,
    `train` the others. A picture's id is its 73k id, as NSD's own file names have it
    (`nsd02951`, counted from 1). Each picture is a concept of its own. Captions are
    COCO's: those of COCO_73k_annots_curated.npy anywhere below the folder.
    """

    root: str = ROOT
    subjects: Numbers | None = Field(
        None,
        description="only what these subjects were shown, 10,000 pictures each, in "
        "stores of their own; default: all 73,000",
    )
    holdout: Holdout | None = OF_TRAIN

    def build(self, paths: Paths) -> Dataset:
        """Point at the data; nothing is read yet."""
        # subjects, each with stores of their own
        chosen = sorted(set(self.subjects or ()))
        if absent := [subject for subject in chosen if subject not in SUBJECTS]:
            raise RecipeError(f"nsd has no subject {absent[0]}", "it has 1 to 8")
        root = paths.dataset("nsd", self.root)
        name = "-".join(map(str, ["nsd", *chosen]))
        listed = partial(_list_pictures, root, name, chosen)
        published = PUBLISHED["nsd"]
        if chosen:  # whose training pictures are those of nobody else
            published = replace(
                published, stimuli={**published.stimuli, "train": OWN * len(chosen)}
            )
        return Dataset(
            name,
            SPLITS,
            listed,
            "nsd",
            published_sizes=published,
            holdout=self.holdout or SEPARATE_TEST,
            files=partial(_list_files, root),
        )


def _list_files(root: Path, split: str, reads: str) -> list[Input]:
    """List the files of a split that hold `reads`."""
    if reads == "captions":
        return [
            Input.of_file(
                find_files_named(CURATED, root),
                root / CURATED,
                f"{CAPTION_SOURCE} {root}",
            )
        ]
    return [
        Input.of_file(find_files_named(name, root), root / name, SOURCE, size)
        for name, size in ((STIMULI, BYTES), (INFO, None))
    ]


def _read_picture(path: Path, rows: Int64, index: int) -> Image.Image:
    """Read a picture of `imgBrick` [73000, 425, 425, 3]; the file is closed again
    afterwards.
    """
    row = int(rows[index])
    with decoding(f"{name_picture(row)} in {path}"), hdf5.open_unlocked(path) as file:
        return Image.fromarray(hdf5.open_numbers(file, "imgBrick", "u")[row])


def _list_pictures(
    root: Path, name: str, subjects: Sequence[int], split: str
) -> StimulusSet:
    """List the pictures of a split that the subjects were shown; captions where their
    file is there.
    """
    # the brick of pictures, which stays on disk
    path = find_anywhere(STIMULI, root)
    with hdf5.open_file(path, SOURCE, MissingData) as file:
        count = len(hdf5.open_numbers(file, "imgBrick", "u"))

    # pictures that all subjects saw are the test
    shared, shown = _read_rows(root, subjects)
    if not shared or max(shown) >= count:
        raise BrainhiveError(
            f"{path} has {count} pictures, but not those {len(shared)} that all "
            "subjects saw",
            SOURCE,
        )
    is_shared, is_shown = (np.isin(np.arange(count), rows) for rows in (shared, shown))
    # [N] of imgBrick
    rows = np.flatnonzero((is_shared == (split == "test")) & is_shown)
    image_ids = Names.of(map(name_picture, rows.tolist()))
    read = partial(_read_picture, path, rows)
    images = StimulusSet(
        name, split, image_ids, image_ids, read, way_out=f"{CAPTION_SOURCE} {root}"
    )

    # captions, where their file is here
    files = find_files_named(CURATED, root)
    if not files:
        return images
    return replace(
        images, captions=partial(_list_captions, files[0], rows), captions_each=CAPTIONS
    )


def _list_captions(path: Path, rows: Int64, index: int) -> list[str]:
    """List the captions of a picture, in their order."""
    # a picture with fewer than five captions has empty strings
    texts = _map_captions(path)
    row = int(rows[index])
    return [text for text in map(str, texts[row]) if text] if row < len(texts) else []


@cache
def _map_captions(path: Path) -> Array:
    """Map the captions [73000, 5], strings."""
    with report_damage(path, f"{CAPTION_SOURCE} {path.parent}"):
        texts = pickles.array(pickles.load(path))
        if texts.ndim != 2 or texts.dtype.kind not in "UO":
            raise ValueError(
                f"it holds {texts.dtype} {list(texts.shape)}, not strings [N, K]"
            )
        return texts


def _read_rows(root: Path, subjects: Sequence[int]) -> tuple[list[int], list[int]]:
    """Read the rows that all subjects saw, and those that any of `subjects` saw: all
    without subjects.
    """

    def read_row(row: dict[str, str]) -> tuple[int, bool, bool]:
        # a subject's column has the trial of the first repetition, 0 where there was
        # none
        is_shown = not subjects or any(
            int(row[f"subject{subject}_rep0"]) for subject in subjects
        )
        return int(row["nsdId"]), row["shared1000"] == "True", is_shown

    table = read_table(find_anywhere(INFO, root), SOURCE, read_row)
    shared = [row for row, is_shared, _ in table if is_shared]
    return shared, [row for row, _, is_shown in table if is_shown]


def find_anywhere(name: str, *roots: Path) -> Path:
    """Find a file, at any depth below one of several roots; MissingData where it is not
    there.
    """
    for root in roots:
        for path in find_files_named(name, root):
            return path
    raise MissingData(f"nsd: no {roots[-1]}/**/{name}", SOURCE)


def read_design(path: Path, subject: int) -> tuple[Int64, Bool]:
    """Read the trials of a subject in the order of time, over all sessions that were
    planned.

    Returns:
        The picture of each trial [30000], as a row of imgBrick counted from 0; and
        whether it is one of those that all subjects were to see [30000].

    Raises:
        MissingData: if the file is damaged.
    """
    from scipy.io import loadmat

    with report_damage(path, SOURCE, exceptions=(Exception,)):
        content = loadmat(path, variable_names=("masterordering", "subjectim"))
        # [30000]
        order = np.asarray(content["masterordering"]).ravel().astype(np.int64)
        # [subjects, 10000]
        pictures = np.asarray(content["subjectim"]).astype(np.int64)
        # MATLAB counts from 1; the first 1000 of the order are the shared pictures
        return pictures[subject - 1, order - 1] - 1, order <= SHARED


def find_volume(folder: Path, name: str, endings: Sequence[str] = NIFTI) -> Path | None:
    """Find a file of one of several formats; None where there is none."""
    return next(
        (path for ending in endings if is_file(path := folder / f"{name}{ending}")),
        None,
    )


def open_voxels(
    folder: Path, base: str, drawn: Mapping[str, Path] = MappingProxyType({})
) -> tuple[dict[str, Path], Mask, Voxels]:
    """Read the mask of the voxels that are kept, and their regions.

    A region that a subject does not have is there, and empty, so that all subjects have
    the same list.

    Args:
        folder: That of NSD's masks, as nsddata/ppdata/subjXX/func1pt8mm/roi.
        base: The mask whose voxels are kept.
        drawn: The user's own masks, which must be there.

    Returns:
        All masks by name, that of the kept voxels, and these with their regions.

    Raises:
        MissingData: if the one whose voxels are kept is missing, or one of the user's
            own.
    """
    for name, drawn_path in drawn.items():
        if not drawn_path.is_file():
            raise MissingData(
                f"no mask {drawn_path}",
                f"preparation.masks.{name}: a NIfTI file for each subject",
            )

    # NSD's masks may be missing, but for the base
    names = dict.fromkeys([base, *ATLASES])
    files = {
        name: path for name in names if (path := find_volume(folder, name)) is not None
    } | {**drawn}
    if base not in files:
        way = f"preparation.voxels=NAME, of {', '.join(files)}" if files else SOURCE
        raise MissingData(f"nsd: no mask {folder / base}.nii.gz", way)

    # regions of the kept voxels
    mask = replace(Mask.open(files[base], SOURCE), compares_affines=False)
    regions = {}
    for name, path in files.items():
        # only the user's own masks must name the same space in their headers
        is_own = name in drawn
        labels = replace(
            mask, way_out=SPACE if is_own else SOURCE, compares_affines=is_own
        ).read(path)
        regions[name] = labels > 0
        regions |= {
            label: labels == number
            for number, label in enumerate(ATLASES.get(name, "").split(), 1)
        }
    if EARLY in regions:
        regions[HIGHER] = ~regions[EARLY]
    return files, mask, Voxels(regions, grid=mask.grid)


class NsdBetas(PublishedSteps):
    """NSD from its single-trial betas: voxels of a mask, regions, z-scores by session.

    nsddata and nsddata_betas are read as they are distributed. `test` is the pictures
    that all subjects saw. A region is named as its label (`V1v`, `FFA-1`, `ventral`), a
    mask as its file (`nsdgeneral`, `floc-faces`); `higher_vis` is what lies outside of
    prf-visualrois.

    Source: Allen et al. 2022; z-scores as MindEye2 has them, by the training trials of
    each session.
    """

    name = "nsd"
    numbers = SUBJECTS
    keeps_constant = True
    min_ncsnr: ClassVar[None] = None  # type: ignore[misc]
    max_voxels: ClassVar[None] = None  # type: ignore[misc]

    root: str = ROOT_OF_BETAS
    space: Pattern = Field(
        "func1pt8mm", description="of the volumes: func1pt8mm or func1mm"
    )
    betas: Pattern = Field(
        "betas_fithrf_GLMdenoise_RR", description="version of the betas, a folder"
    )
    voxels: str = Field("nsdgeneral", description="mask of the voxels that are kept")
    masks: dict[str, str] = Field(
        {},
        description="own masks, which become regions: name: NIfTI file of each "
        "subject, above 0 inside, as {spatial: "
        "masks/subj{subject:02d}_spatial.nii.gz}; below home, on the "
        "volumes of `space`",
    )
    sessions: Numbers | None = Field(
        None, description="sessions, each of which must be there; default: all"
    )
    test_pictures: Literal[982, 1000] = Field(
        1000,
        description="test pictures: all, or those of the first 37 sessions, which "
        "papers before 2024 had; later sessions are then left out",
    )
    zscore: bool = Field(  # type: ignore[assignment]
        True,
        description="z-score each voxel in each session by its training trials; no: "
        "percent of change",
    )

    def build(self, paths: Paths) -> PublishedBetas:
        """Point at the data; nothing is read yet."""
        folder = f"{FOLDER}/{self.space}/{self.betas}"
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
        most = LAST_SESSIONS[self.test_pictures]
        sessions = self.sessions or range(1, SESSIONS[subject - 1] + 1)
        return sorted(session for session in sessions if session <= most)

    def find(self, root: Path, subject: int) -> Subject:
        """Read masks and design, and check the header of each session's betas."""
        # the betas of each session, and the kept voxels with their regions
        folder = root / FOLDER.format(subject=subject) / self.space / self.betas
        files = {
            session: _find_betas(folder, session)
            for session in self.list_sessions(subject)
        }
        drawn = {
            name: locate(fill_subject(path, subject)).absolute()
            for name, path in self.masks.items()
        }
        masks, mask, space = open_voxels(
            root / ROI.format(subject, self.space), self.voxels, drawn
        )

        # the published noise ceiling, where it is there; NaN is no signal
        ceilings = [path for path in [find_volume(folder, "ncsnr")] if path]
        for path in ceilings:
            space = replace(
                space, maps={"ncsnr": np.nan_to_num(mask.read(path).astype(np.float64))}
            )

        # picture and split of each trial by the design
        design = find_anywhere(MATRIX, root)
        rows, is_test = read_design(design, subject)
        trials: list[Trial] = []
        for session, path in files.items():
            check_betas(path, mask, SESSION_TRIALS)
            for trial in range(
                (session - 1) * SESSION_TRIALS, session * SESSION_TRIALS
            ):
                split = "test" if is_test[trial] else "train"
                trials.append((name_picture(int(rows[trial])), split, session, None))
        return Subject(
            [design, *masks.values(), *ceilings, *files.values()],
            space,
            mask.width,
            trials,
            lambda session: (
                read_betas(files[session], mask, SESSION_TRIALS) / np.float32(PERCENT)
            ),
            {"masks": [*masks], "kept": self.voxels},
        )


def _find_betas(folder: Path, session: int) -> Path:
    """Find the betas of a session; MissingData names the sessions that are there."""
    name = f"betas_session{session:02d}"
    if (path := find_volume(folder, name, (".hdf5", *NIFTI))) is None:
        # sessions that are here, for the hint
        files = "\n".join(path.name for path in folder.glob("betas_session*"))
        numbers = map(int, re.findall(r"^betas_session(\d+)\.", files, re.MULTILINE))
        there = ",".join(map(str, sorted({*numbers})))
        way = f", or take what is there: preparation.sessions={there}" if there else ""
        raise MissingData(
            f"nsd: no {folder / name}.nii.gz, nor .hdf5", f"{SOURCE}{way}"
        )
    return path


def check_betas(path: Path, mask: Mask, trials: int) -> None:
    """Check the header of a session's betas.

    Raises:
        BrainhiveError: if they are of another shape or dtype, or the file is damaged.
    """
    # shape [X, Y, Z, trials] and dtype, in either format
    if path.suffix == ".hdf5":
        with hdf5.open_file(path, SOURCE) as file:
            stored = hdf5.open_numbers(file, "betas", "i")
            # MATLAB wrote these files: their axes are [trials, Z, Y, X]
            shape = stored.shape[::-1]
            dtype = stored.dtype
    else:
        image = open_image(path, SOURCE)
        shape = image.shape
        dtype = image.get_data_dtype()

    # [X, Y, Z, trials]: a beta for each voxel of the mask's volume and each trial
    expected = [*mask.inside.shape, trials]
    if [*shape] != expected or dtype != np.int16:
        raise BrainhiveError(
            f"{path} holds {dtype} {[*shape]}, not int16 {expected} as mask and design "
            "have it",
            SOURCE,
        )


def read_betas(path: Path, mask: Mask, trials: int) -> NDArray[np.int16]:
    """Read a session's betas [trials, V] of the voxels of a mask, in its C order; 300
    is 1 percent.

    A volume (NIfTI), or a plane of voxels (HDF5), is in memory at a time; `check_betas`
    has checked the file.
    """
    if path.suffix != ".hdf5":
        return mask.read_series(path)

    # one plane of the volume for all trials at a time
    x, y, z = np.nonzero(mask.inside)  # [V] each
    betas = np.empty((trials, len(x)), np.int16)
    with hdf5.open_file(path, SOURCE) as file:
        stored = hdf5.open_numbers(file, "betas", "i")
        for plane in np.unique(z).tolist():
            is_in_plane = z == plane  # [V]
            betas[:, is_in_plane] = stored[:, plane][:, y[is_in_plane], x[is_in_plane]]
    return betas


IMAGERY_SOURCE = fetch_line("nsd-imagery")
IMAGERY = f"{FOLDER}/func1pt8mm/nsdimagerybetas_fithrf_GLMdenoise_RR"
RUNS = "visA attA imgA_1 visB attB imgB_1 visC attC imgC_1 imgA_2 imgB_2 imgC_2".split()
"""Runs in the order of the betas: task, set of six stimuli, and number of two runs of
imagery.
"""
BLOCK = re.compile(r"(vis|img|att)([ABC])")
PICKLE = "nsdimagery_stimuli.pkl3"
TABLES = "nsddata/bdata/nsdimagery/nsdimagery_subj{subject:02d}_{run}.tsv"
BETAS_OF_A_TRIAL = {"vis": 1, "img": 1, "att": 2}
SPLIT_OF_TASK = {
    "vis": "test",
    "img": "imagery",
    "att": "trials of the attention task, each of which has two",
}


class Imagery(PublishedSteps):
    """NSD-Imagery: the voxels of NSD, seeing and imagining 18 stimuli, for models that
    were trained on NSD.

    Betas are read in a mask of NSD's. Trials are those of the public tables
    nsdimagery_subj0N_RUN.tsv, or, where these are not there, of the laboratory's own
    nsdimagery_stimuli.pkl3. A stimulus is called by its set and what `column` of the
    tables, or the pickle's cue, says of it, as `A-X`; a name of a picture's file is
    that picture. The public files do not say which picture a value of CONDITION is, so
    that pictures are called as these values are. Seen stimuli are `test`, imagined ones
    `imagery`; trials of the attention task are left out. Voxels are z-scored within
    each run by all of its trials: none is of training.
    """

    name = "nsd-imagery"
    folder = "nsd"
    patterns = (IMAGERY,)
    keeps_constant = True
    zscore: ClassVar[str] = "run"  # type: ignore[misc]
    min_ncsnr: ClassVar[None] = None  # type: ignore[misc]
    max_voxels: ClassVar[None] = None  # type: ignore[misc]

    root: str = ROOT_OF_BETAS
    voxels: str = Field(
        "nsdgeneral",
        description="mask of the voxels that are kept, as NSD's were prepared",
    )
    column: str = Field(
        "CONDITION",
        description="column of the public tables that names the stimulus of a trial",
    )

    def find(self, root: Path, subject: int) -> Subject:
        """Read masks, and the stimulus of each trial; a run is a series of trials of
        one block.
        """
        # betas, and the tables of their runs
        masks, mask, voxels = open_voxels(
            root / ROI.format(subject, "func1pt8mm"), self.voxels
        )
        betas = find_file(
            root / IMAGERY.format(subject=subject), "betas_nsdimagery.*", IMAGERY_SOURCE
        )
        tables = [TABLES.format(subject=subject, run=run) for run in RUNS]

        # block and stimulus of each beta, by the laboratory's pickle or the public
        # tables
        blocks = []
        stimuli = []
        has_tables = any((root / name).exists() for name in tables)
        pickle = None if has_tables else find_below(root, f"**/{PICKLE}")
        if pickle is not None:
            paths = [pickle]
            with report_damage(pickle, IMAGERY_SOURCE):
                content = pickles.load(pickle)
                blocks, stimuli = (
                    pickles.array(content[key]).astype(str).ravel().tolist()
                    for key in ("exps", "cues")
                )
        else:
            paths = [find_file(root, name, IMAGERY_SOURCE) for name in tables]
            for path, run in zip(paths, RUNS, strict=True):
                for stimulus in read_table(
                    path, IMAGERY_SOURCE, itemgetter(self.column)
                ):
                    count = BETAS_OF_A_TRIAL[run[:3]]
                    blocks += [run] * count
                    stimuli += [stimulus] * count

        # as many as there are betas, each with a name but for the attention task
        check_betas(betas, mask, len(blocks))
        pairs = zip(blocks, stimuli, strict=True)
        if unnamed := sum(
            not name and not block.startswith("att") for block, name in pairs
        ):
            raise BrainhiveError(
                f"{paths[0].parent}: {unnamed} trials have nothing in column "
                f"{self.column}",
                "preparation.column=CONDITION",
            )

        # a run begins where the block changes
        runs = np.cumsum(
            [1, *(block != before for before, block in pairwise(blocks))]
        ).tolist()
        trials = []
        with report_damage(paths[0], IMAGERY_SOURCE):
            for block, stimulus, run in zip(blocks, stimuli, runs, strict=True):
                # a picture's file, or the set and the cue
                ((task, letter),) = BLOCK.findall(block)
                file = PurePath(stimulus)
                name = (
                    file.stem
                    if file.suffix.lower() in PICTURE_ENDINGS
                    else f"{letter}-{stimulus}"
                )
                trials.append((name, SPLIT_OF_TASK[task], 1, run))
        return Subject(
            [betas, *paths, *masks.values()],
            voxels,
            mask.width,
            trials,
            lambda session: read_betas(betas, mask, len(trials)) / np.float32(PERCENT),
        )
