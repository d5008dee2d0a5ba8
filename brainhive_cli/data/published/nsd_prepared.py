"""NSD as other projects prepare it: MindEye1, MindEye2 and Brain-Diffuser.

All hold voxels of nsdgeneral; regions are named by nsddata below root or below the data
set nsd.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from brainhive_cli.core import parts
from brainhive_cli.core.archives import list_tar_members, read_bytes
from brainhive_cli.core.arrays import Array, Float64
from brainhive_cli.core.damage import report_damage
from brainhive_cli.core.errors import BrainhiveError, Line, MissingData
from brainhive_cli.core.files import is_file
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.datasets import PUBLISHED
from brainhive_cli.data.files import hdf5, pickles
from brainhive_cli.data.files.hdf5 import LazyRows
from brainhive_cli.data.published.nsd import (
    GENERAL,
    LAST_SESSIONS,
    MATRIX,
    PERCENT,
    ROI,
    SESSION_TRIALS,
    SESSIONS,
    SPLITS,
    SUBJECTS,
    find_anywhere,
    name_picture,
    open_voxels,
    read_design,
)
from brainhive_cli.data.published.prepared_files import FilesByRow, PreparedFiles
from brainhive_cli.data.signals.spaces import Voxels
from brainhive_cli.data.signals.trials import Trials, gather_trials, group_trials

REGION_MASKS, GENERAL_OF_MINDEYE = "brain_region_masks.hdf5", "nsd_general"
"""MindEye2's file of each subject's nsd_general and masks of its voxels."""


def name_voxels(subject: int, width: int, roots: Sequence[Path], source: str) -> Voxels:
    """Name the regions of prepared files' voxels: by NSD's masks, else by MindEye2's,
    else as nsdgeneral.

    Args:
        subject: Counted from 1.
        width: V, which the masks must have.
        roots: Folders below which nsddata, or MindEye2's file of masks, may lie.
        source: How to get the prepared files.
    """
    # NSD's own masks
    group = f"subj{subject:02d}"
    everywhere = {GENERAL: np.ones(width, bool)}
    for root in roots:
        folder = root / ROI.format(subject, "func1pt8mm")
        if folder.is_dir():
            _, mask, voxels = open_voxels(folder, GENERAL)
            if mask.width != width:
                raise BrainhiveError(
                    f"{mask.path} has {mask.width} voxels, the signals {width}", source
                )
            return voxels

    # MindEye2's masks, of which nsd_general marks the kept voxels
    for path in filter(is_file, (root / REGION_MASKS for root in roots)):
        with hdf5.open_file(path, source) as file:
            regions = {
                name: hdf5.open_numbers(file, f"{group}/{name}", "fiub")[:] > 0
                for name in file[group]
            }
            general = regions.pop(GENERAL_OF_MINDEYE)
            count = int(general.sum())
            if count != width:
                raise ValueError(
                    f"it has {count} voxels of {group}, the signals {width}"
                )
            return Voxels(
                everywhere | {name: mask[general] for name, mask in regions.items()}
            )

    # no masks are here: all voxels are nsdgeneral
    return Voxels(everywhere)


Sample = tuple[Path, Mapping[str, tuple[int, int]]]
"""A sample of a webdataset tar: the tar, and byte offset and size of each member by its
ending.
"""


def list_samples(paths: Iterable[Path], source: str) -> Iterator[Sample]:
    """Yield the samples of webdataset tars in order: members with one name up to the
    first dot.
    """
    for path in paths:
        samples: dict[str, dict[str, tuple[int, int]]] = {}  # by key
        with report_damage(path, source):
            for name, offset, size in list_tar_members(path):
                key, _, ending = name.rpartition("/")[2].partition(".")
                if key and ending:
                    samples.setdefault(key, {})[ending] = offset, size
            if not samples:
                raise ValueError("it holds no samples")
        yield from ((path, members) for members in samples.values())


def read_member(sample: Sample, ending: str, source: str) -> Array:
    """Read a member of a sample, an .npy of numbers."""
    path, members = sample
    with report_damage(path, source), path.open("rb") as file:
        content = BytesIO(read_bytes(file, *members[ending]))
        return np.lib.format.read_array(content, allow_pickle=False)


def make_recording(
    signal: LazyRows,
    rows: Iterable[int],
    voxels: Voxels,
    provenance: dict[str, Any],
    **known: Any,
) -> Trials:
    """Make a recording of z-scored voxels.

    Args:
        signal: [N, R, V, 1].
        rows: Pictures [N], as rows of imgBrick.
        voxels: The V voxels.
        provenance: Of the recording.
        known: Further fields of the recording.
    """
    image_ids = [*map(name_picture, rows)]
    return Trials(
        signal, image_ids, voxels, np.zeros(1), None, "z-score", provenance, **known
    )


AVERAGES = "webdataset_avg_split/{0}/{0}_subj{{subject:02d}}_*.tar"
FOLDERS = {"train": ("train", "val"), "test": ("test",)}
"""Folders of MindEye1 with the pictures of a split; `val` is 300 training pictures."""
SIGNAL = "nsdgeneral.npy"
PICTURE = "coco73k.npy"
COUNT = "num_uniques.npy"
TRIALS = "trial.npy"
"""Members of a sample of MindEye1."""
MINDEYE1 = (
    "hf download pscotti/naturalscenesdataset --repo-type dataset --include "
    "'webdataset_avg_split/*'"
)


class MindEye1Betas(parts.Config):
    """NSD as MindEye1 distributes it: the repetitions of each picture together,
    z-scored by session.

    webdataset_avg_split/{train,val,test}/*_subj0N_*.tar, 8,859 and 982 pictures. Fewer
    than three repetitions are repeated in the files, and kept once here.
    """

    root: str = Field(
        "",
        description=(
            "folder of the files; default: naturalscenesdataset below paths.data"
        ),
    )
    needs_regions: bool = Field(
        False, description="refuse signals whose regions no mask of NSD names"
    )

    def build(self, paths: Paths) -> PreparedFiles:
        """Point at the data; nothing is read yet."""
        root = paths.dataset("naturalscenesdataset", self.root)
        files = {
            name: [AVERAGES.format(name)]
            for names in FOLDERS.values()
            for name in names
        }
        read = partial(_read_mindeye1, (root, paths.dataset("nsd")), self.needs_regions)
        source = f"{MINDEYE1} --local-dir {root}"
        return PreparedFiles("nsd", root, source, files, read, optional=["val"])


def _read_mindeye1(
    roots: tuple[Path, Path],
    needs_regions: bool,
    files: FilesByRow,
    subject: int,
    split: str,
) -> Trials:
    """Open the pictures of a split, in the order of the files."""
    # one sample for each picture; of its signals [R, V], the first row of each trial,
    # in the order of time
    paths = chain(*(files[name] for name in FOLDERS[split]))
    samples = [*list_samples(paths, MINDEYE1)]
    pictures = []
    repetitions = []
    for sample in samples:
        pictures.append(int(read_member(sample, PICTURE, MINDEYE1).item()))
        # files repeat trials up to three rows; the first row of each counts
        if TRIALS in sample[1]:
            _, first_rows = np.unique(
                read_member(sample, TRIALS, MINDEYE1), return_index=True
            )
        else:
            first_rows = np.arange(int(read_member(sample, COUNT, MINDEYE1).item()))
        repetitions.append(first_rows.tolist())
    # number of repetitions [N], and the largest, R
    counts = np.array([*map(len, repetitions)], np.int64)
    first = read_member(samples[0], SIGNAL, MINDEYE1)
    most = int(counts.max())
    width = first.shape[-1]

    # regions by NSD's or MindEye2's masks, which may be absent
    voxels = name_voxels(subject, width, roots, MINDEYE1)
    if needs_regions and len(voxels.regions) == 1:
        raise MissingData(
            f"no masks of NSD below {roots[1]}, which name regions",
            Line("fetch", "nsd"),
        )

    def read(part: slice) -> Array:
        # [n, R, V, 1]
        signal = np.zeros((len(samples[part]), most, width, 1), first.dtype)
        for target, sample, rows in zip(
            signal, samples[part], repetitions[part], strict=True
        ):
            # of [R, V]
            target[: len(rows), :, 0] = read_member(sample, SIGNAL, MINDEYE1)[rows]
        return signal

    signal = LazyRows(
        (len(samples), most, width, 1), first.dtype, read, samples[0][0].parents[1]
    )
    return make_recording(
        signal, pictures, voxels, {"source": "webdataset_avg_split"}, repetitions=counts
    )


BETAS = "betas_all_subj{subject:02d}_fp32_renorm.hdf5"
TARS = "wds/subj{subject:02d}/%s/*.tar"
BYTES = {
    n: 4 * SESSIONS[n - 1] * SESSION_TRIALS * PUBLISHED["nsd"].voxels[n]
    for n in SUBJECTS
}
"""Size of the betas in float32."""
BEHAVIOUR = "behav.npy"
ROW, SESSION, TRIAL, IS_SHARED = 0, 2, 5, 16
"""Columns of BEHAVIOUR: picture counted from 0, session from 1, row of betas from 0,
whether all saw the picture; -1 is not known.
"""
TEST_FOLDERS = {1000: ("new_test",), 982: ("new_test", "test")}
"""Folders of MindEye2 that name the test trials; `test` lacks those of the sessions
that were held back.
"""
MINDEYE2 = (
    "hf download pscotti/mindeyev2 --repo-type dataset --include 'betas_all_*' "
    "--include 'wds/*' --include 'brain_region_*'"
)


class MindEye2Betas(parts.Config):
    """NSD as MindEye2 distributes it: all trials of nsdgeneral, z-scored in each
    session by training trials.

    betas_all_subj0N_fp32_renorm.hdf5 and wds/subj0N/{train,new_test}/*.tar. Where there
    is no nsddata, brain_region_masks.hdf5 names the regions.
    """

    root: str = Field(
        "", description="folder of the files; default: mindeyev2 below paths.data"
    )
    test_pictures: Literal[982, 1000] = Field(
        1000,
        description="test pictures: all, or those of the first 37 sessions; later ones "
        "are left out",
    )

    def build(self, paths: Paths) -> PreparedFiles:
        """Point at the data; nothing is read yet."""
        root = paths.dataset("mindeyev2", self.root)
        files = {
            "betas": [BETAS],
            "train": [TARS % "train"],
            "test": [TARS % folder for folder in TEST_FOLDERS[self.test_pictures]],
            "masks": [REGION_MASKS],
        }
        read = partial(_read_mindeye2, (root, paths.dataset("nsd")), self.test_pictures)
        source = f"{MINDEYE2} --local-dir {root}"
        return PreparedFiles(
            "nsd", root, source, files, read, {"betas": BYTES}, optional=["masks"]
        )


def _read_mindeye2(
    roots: tuple[Path, Path],
    test_pictures: Literal[982, 1000],
    files: FilesByRow,
    subject: int,
    split: str,
) -> Trials:
    """Open the trials of a split, grouped by picture in the order of time."""
    # shape of the betas [trials, V], which stay on disk
    path = files["betas"][0]
    with hdf5.open_file(path, MINDEYE2) as file:
        stored = hdf5.open_numbers(file, "betas", "f")
        _, width = stored.shape
        dtype = np.dtype(stored.dtype)

    # trials of the split, of which later sessions are left out with 982 test pictures
    rows = []
    for sample in list_samples(files[split], MINDEYE2):
        values = read_member(sample, BEHAVIOUR, MINDEYE2).ravel().astype(np.int64)
        if values[IS_SHARED] == (split == "train"):  # -1 is unknown
            raise BrainhiveError(
                f"{sample[0]} has trials of the other split than {split}", MINDEYE2
            )
        rows.append(values)
    behaviour = np.array(rows)  # [trials, 17]
    behaviour = behaviour[behaviour[:, SESSION] <= LAST_SESSIONS[test_pictures]]
    # in the order of time
    behaviour = behaviour[np.argsort(behaviour[:, TRIAL], kind="stable")]

    # trials and sessions [N, R] of each picture; -1 where it has fewer repetitions
    pictures, table, counts = group_trials(behaviour[:, ROW])
    is_there = table >= 0
    trials, sessions = (
        np.where(is_there, behaviour[table, column], -1) for column in (TRIAL, SESSION)
    )

    def read(part: slice) -> Array:
        with hdf5.open_file(path, MINDEYE2) as file:
            return gather_trials(
                trials, (width, 1), dtype, lambda row: file["betas"][row][:, None]
            )(part)

    return make_recording(
        LazyRows((*trials.shape, width, 1), dtype, read, path),
        pictures.tolist(),
        name_voxels(subject, width, roots, MINDEYE2),
        {"source": path.name, "test_pictures": test_pictures},
        repetitions=counts,
        sessions=np.where(is_there, sessions - 1, -1).astype(np.int8),  # counted from 0
    )


MEANS = "processed_data/subj{subject:02d}/nsd_%s_fmriavg_nsdgeneral_sub{subject}.npy"
BRAIN_DIFFUSER = "make them by data/prepare_nsddata.py of ozcelikfu/brain-diffuser"


class BrainDiffuserBetas(parts.Config):
    """NSD as Brain-Diffuser prepares it: the mean over the repetitions of each picture,
    voxels of nsdgeneral.

    processed_data/subj0N/nsd_{train,test}_fmriavg_nsdgeneral_subN.npy. Each voxel is
    z-scored by the training pictures (ddof 1), as its authors do after. The files do
    not say which pictures they are of: nsd_expdesign.mat does, below root or the data
    set nsd.
    """

    root: str = Field(
        "",
        description=(
            "folder of processed_data; default: brain_diffuser below paths.data"
        ),
    )

    def build(self, paths: Paths) -> PreparedFiles:
        """Point at the data; nothing is read yet."""
        roots = paths.dataset("brain_diffuser", self.root), paths.dataset("nsd")
        files = {split: [MEANS % split] for split in SPLITS}
        design = partial(find_anywhere, MATRIX, *roots)
        read = partial(_read_brain_diffuser, roots, design)
        return PreparedFiles(
            "nsd", roots[0], BRAIN_DIFFUSER, files, read, design=(MATRIX, design)
        )


def _read_brain_diffuser(
    roots: tuple[Path, Path],
    design: Callable[[], Path],
    files: FilesByRow,
    subject: int,
    split: str,
) -> Trials:
    """Open the means of a split, z-scored."""
    # [pictures, V]
    path = files[split][0]
    signal = _open_means(path)
    width = signal.shape[1]

    @cache  # at the first slice: a plan needs the shape alone
    def measure_voxels() -> tuple[Float64, Float64]:
        """Measure mean and 1 / spread [V] of training pictures [N, V]; 0 of a voxel
        that does not vary.
        """
        training = _open_means(files["train"][0]) / PERCENT  # [N, V]
        mean = training.mean(0, np.float64)
        spread = training.std(0, np.float64, ddof=1)
        # 1e-12 percent: rounding
        return mean, np.divide(
            1, spread, out=np.zeros_like(spread), where=spread > 1e-12
        )

    def read(part: slice) -> Array:
        mean, scale = measure_voxels()
        values = (np.asarray(signal[part]) / PERCENT - mean) * scale
        return values[:, None, :, None].astype(np.float32)  # [n, 1, V, 1]

    return make_recording(
        LazyRows((len(signal), 1, width, 1), np.dtype(np.float32), read, path),
        _list_pictures(path, design(), subject, split, len(signal)),
        name_voxels(subject, width, roots, BRAIN_DIFFUSER),
        {"source": path.name, "averaged": "over the repetitions of each picture"},
    )


def _open_means(path: Path) -> Array:
    signal = pickles.load(path)
    if (
        not isinstance(signal, np.ndarray)
        or signal.ndim != 2
        or signal.dtype.kind != "f"
    ):
        raise BrainhiveError(f"{path} is no array [pictures, V]", BRAIN_DIFFUSER)
    return signal


def _list_pictures(
    path: Path, matrix: Path, subject: int, split: str, count: int
) -> list[int]:
    """List the pictures of a file, which are in the order of first sight.

    Raises:
        BrainhiveError: if no number of sessions shows so many.
    """
    # trials of a split at which a picture was seen for the first time, ascending
    rows, is_test = read_design(matrix, subject)
    split_trials = np.flatnonzero(is_test == (split == "test"))
    _, first = np.unique(rows[split_trials], return_index=True)
    trials = split_trials[np.sort(first)]

    # files hold the pictures of a number of complete sessions
    ends = np.arange(1, max(SESSIONS) + 1) * SESSION_TRIALS
    if count not in np.searchsorted(trials, ends):
        raise BrainhiveError(
            f"{path} has {count} pictures, as no number of sessions of {matrix} has",
            "the files of training and test may be swapped, or of another subject",
        )
    return rows[trials[:count]].tolist()
