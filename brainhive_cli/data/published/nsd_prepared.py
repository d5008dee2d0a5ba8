"""NSD as other projects prepare it: MindEye1, MindEye2 and Brain-Diffuser."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from brainhive_cli.core.base import (
    Array,
    BrainhiveError,
    Float64,
    Int64,
    Line,
    MissingData,
)
from brainhive_cli.core.files import (
    is_file,
    list_tar_members,
    read_bytes,
    report_damage,
)
from brainhive_cli.core.recipes import Paths, parts
from brainhive_cli.data.datasets import PUBLISHED_FACTS
from brainhive_cli.data.files import LazyRows, hdf5, pickles
from brainhive_cli.data.published.nsd import (
    DESIGN,
    GENERAL,
    LAST_SESSIONS,
    MASKS_FOLDER,
    N_SESSIONS,
    SPACE,
    SPLITS,
    STORED_PER_PERCENT,
    SUBJECTS,
    TRIALS_PER_SESSION,
    find_masks,
    find_nsd_file,
    name_picture,
    read_design,
    read_voxels,
)
from brainhive_cli.data.published.prepared_files import FilesByRow, PreparedFiles
from brainhive_cli.data.signals import Trials, Voxels, group_trials, make_trial_reader

MINDEYE1_HINT = (
    "hf download pscotti/naturalscenesdataset --repo-type dataset --include "
    "'webdataset_avg_split/*'"
)

MINDEYE2_HINT = (
    "hf download pscotti/mindeyev2 --repo-type dataset --include 'betas_all_*' "
    "--include 'wds/*' --include 'brain_region_*'"
)
MINDEYE2_BYTES = {
    subject: 4
    * n_sessions
    * TRIALS_PER_SESSION
    * PUBLISHED_FACTS["nsd"].voxels[subject]
    for subject, n_sessions in zip(SUBJECTS, N_SESSIONS, strict=True)
}
"""Size of the float32 betas of each subject."""
BEHAVIOUR = "behav.npy"
PICTURE_COLUMN = 0
SESSION_COLUMN = 2
TRIAL_COLUMN = 5
SHARED_COLUMN = 16
"""Columns of BEHAVIOUR: row in imgBrick, session counted from 1, row of the betas, and
1 for a shared picture, or -1 if unknown.
"""
REGION_MASKS = "brain_region_masks.hdf5"
"""MindEye2's file of masks, with a group subj0N each, in which `nsd_general` is the
mask of the kept voxels.
"""

BRAIN_DIFFUSER_HINT = "make them by data/prepare_nsddata.py of ozcelikfu/brain-diffuser"
BRAIN_DIFFUSER_MEANS = (
    "processed_data/subj{{subject:02d}}/nsd_{}_fmriavg_nsdgeneral_sub{{subject}}.npy"
)
"""Means [pictures, V] of a split, in the order in which the pictures were first seen.
"""

TarSample = tuple[Path, Mapping[str, tuple[int, int]]]
"""Sample of a webdataset: its tar, and the offset and size in bytes of each member by
its ending.
"""


class MindEye1Betas(parts.Config):
    """NSD as MindEye1 distributes it: the repetitions of each picture together,
    z-scored by session.

    webdataset_avg_split/{train,val,test}/*_subj0N_*.tar, 8,859 and 982 pictures. Fewer
    than three repetitions are repeated in the files, and kept once here.
    """

    root: str = Field(
        "",
        description="folder of the files; default: naturalscenesdataset below "
        "paths.data",
    )
    needs_regions: bool = Field(
        False, description="raise an error without masks of NSD, which name regions"
    )

    def build(self, paths: Paths) -> PreparedFiles:
        """Make the preparation. No file is read yet."""
        root = paths.dataset("naturalscenesdataset", self.root)
        mask_roots = (root, paths.dataset("nsd"))
        mindeye1_tars = "webdataset_avg_split/{0}/{0}_subj{{subject:02d}}_*.tar"
        return PreparedFiles(
            "nsd",
            root,
            f"{MINDEYE1_HINT} --local-dir {root}",
            # Folders of the tars. `val` has 300 training pictures. A sample has up to
            # three trials of a picture: nsdgeneral.npy, their signals [3, V],
            # coco73k.npy, the row of the picture in imgBrick, and trial.npy, the
            # numbers of the trials. Trials are repeated to fill three rows.
            {
                folder: [mindeye1_tars.format(folder)]
                for folder in ("train", "val", "test")
            },
            partial(_read_mindeye1, mask_roots, self.needs_regions),
            optional=["val"],
        )


class MindEye2Betas(parts.Config):
    """NSD as MindEye2 distributes it: all trials of nsdgeneral, z-scored in each
    session by training trials.

    betas_all_subj0N_fp32_renorm.hdf5 and wds/subj0N/{train,new_test}/*.tar. Without
    nsddata, brain_region_masks.hdf5 names the regions.
    """

    root: str = Field(
        "", description="folder of the files; default: mindeyev2 below paths.data"
    )
    test_pictures: Literal[982, 1000] = Field(
        1000,
        description="number of test pictures: 1000, or 982, which leaves out the "
        "sessions after 37",
    )

    def build(self, paths: Paths) -> PreparedFiles:
        """Make the preparation. No file is read yet."""
        root = paths.dataset("mindeyev2", self.root)
        # Folders of the test trials, by number of test pictures. `test` lacks the
        # trials of sessions 38 to 40, which came later.
        mindeye2_test_folders = {1000: ("new_test",), 982: ("new_test", "test")}
        test_folders = mindeye2_test_folders[self.test_pictures]
        mindeye2_tars = "wds/subj{{subject:02d}}/{}/*.tar"
        patterns = {
            # File of the HDF5 dataset `betas` [trials, V].
            "betas": ["betas_all_subj{subject:02d}_fp32_renorm.hdf5"],
            "train": [mindeye2_tars.format("train")],
            "test": list(map(mindeye2_tars.format, test_folders)),
            "masks": [REGION_MASKS],
        }
        mask_roots = (root, paths.dataset("nsd"))
        return PreparedFiles(
            "nsd",
            root,
            f"{MINDEYE2_HINT} --local-dir {root}",
            patterns,
            partial(_read_mindeye2, mask_roots, self.test_pictures),
            sizes={"betas": MINDEYE2_BYTES},
            optional=["masks"],
        )


class BrainDiffuserBetas(parts.Config):
    """NSD as Brain-Diffuser prepares it: the mean over the repetitions of each picture,
    voxels of nsdgeneral.

    processed_data/subj0N/nsd_{train,test}_fmriavg_nsdgeneral_subN.npy. Each voxel is
    z-scored by the training pictures (ddof 1), as its authors do afterwards. The files
    do not name their pictures. nsd_expdesign.mat does, below root or the data set nsd.
    """

    root: str = Field(
        "",
        description="folder of processed_data; default: brain_diffuser below "
        "paths.data",
    )

    def build(self, paths: Paths) -> PreparedFiles:
        """Make the preparation. No file is read yet."""
        root = paths.dataset("brain_diffuser", self.root)
        nsd_root = paths.dataset("nsd")
        find_design = partial(find_nsd_file, DESIGN, root, nsd_root)
        return PreparedFiles(
            "nsd",
            root,
            BRAIN_DIFFUSER_HINT,
            {split: [BRAIN_DIFFUSER_MEANS.format(split)] for split in SPLITS},
            partial(_read_brain_diffuser, (root, nsd_root), find_design),
            design=(DESIGN, find_design),
        )


def list_samples(paths: Iterable[Path], hint: str) -> Iterator[TarSample]:
    """Yield the samples of webdataset tars, in the order of the tars.

    Members of a sample share their name up to the first dot.
    """
    for path in paths:
        samples: dict[str, dict[str, tuple[int, int]]] = {}
        with report_damage(path, hint):
            for name, offset, size in list_tar_members(path):
                stem, _, ending = name.rpartition("/")[2].partition(".")
                if stem and ending:
                    samples.setdefault(stem, {})[ending] = offset, size
            if not samples:
                raise ValueError("it holds no samples")
        for members in samples.values():
            yield path, members


def _list_means_pictures(
    path: Path, design: Path, subject: int, split: str, count: int
) -> list[int]:
    """List the pictures of a file of Brain-Diffuser, as rows of imgBrick.

    Args:
        path: File of the means, for the message.
        design: Path of nsd_expdesign.mat.
        subject: Number of the subject.
        split: Split of the pictures.
        count: Number of pictures in the file.

    Raises:
        BrainhiveError: if the first sessions, however many, do not show exactly `count`
            pictures.
    """
    # trials in which a picture was first seen, in the order of time
    rows, is_test = read_design(design, subject)
    split_trials = np.flatnonzero(is_test == (split == "test"))
    _, first_positions = np.unique(rows[split_trials], return_index=True)
    first_trials = split_trials[np.sort(first_positions)]

    # files hold the pictures of a number of complete sessions
    session_ends = np.arange(1, max(N_SESSIONS) + 1) * TRIALS_PER_SESSION
    if count not in np.searchsorted(first_trials, session_ends):
        raise BrainhiveError(
            f"{path} has {count} pictures, but no number of complete sessions in "
            f"{design} has so many",
            "the files of training and test may be swapped, or of another subject",
        )
    return rows[first_trials[:count]].tolist()


def read_region_masks(
    subject: int, width: int, roots: Sequence[Path], hint: str
) -> Voxels:
    """Read the regions of prepared voxels.

    NSD's masks win over MindEye2's. Without any file, nsdgeneral is the only region.

    Args:
        subject: Number of the subject.
        width: Number V of voxels.
        roots: Folders that may hold nsddata or MindEye2's file of masks.
        hint: Advice on how to get the prepared files, for errors.

    Raises:
        BrainhiveError: if masks have another number of voxels.
    """
    for root in roots:
        folder = root / MASKS_FOLDER.format(subject, SPACE)
        if folder.is_dir():
            mask, voxels = read_voxels(find_masks(folder, GENERAL, {}), GENERAL, {})
            if mask.width != width:
                raise BrainhiveError(
                    f"{mask.path} has {mask.width} voxels, the signals {width}", hint
                )
            return voxels

    regions = {GENERAL: np.ones(width, bool)}
    files = (root / REGION_MASKS for root in roots)
    path = next(filter(is_file, files), None)
    if path is None:
        return Voxels(regions)
    group_name = f"subj{subject:02d}"
    with hdf5.open_file(path, hint) as file:
        masks = {}
        for name in file[group_name]:
            dataset = hdf5.open_numbers(file, f"{group_name}/{name}", "fiub")
            masks[name] = dataset[:] > 0
        is_kept = masks.pop("nsd_general")
        count = int(is_kept.sum())
        if count != width:
            raise ValueError(
                f"it has {count} voxels of {group_name}, the signals {width}"
            )
        for name, mask_values in masks.items():
            regions[name] = mask_values[is_kept]
    return Voxels(regions)


def read_member(sample: TarSample, ending: str, hint: str) -> Array:
    """Read a member of a sample, which is an .npy file of numbers."""
    path, members = sample
    with report_damage(path, hint), path.open("rb") as file:
        offset, size = members[ending]
        content = BytesIO(read_bytes(file, offset, size))
        return np.lib.format.read_array(content, allow_pickle=False)


def _read_mindeye1(
    mask_roots: tuple[Path, Path],
    needs_regions: bool,
    files: FilesByRow,
    subject: int,
    split: str,
) -> Trials:
    """Open the signals of a split, in the order of the files."""
    paths = list(files[split])
    if split == "train":
        paths += files["val"]
    samples = list(list_samples(paths, MINDEYE1_HINT))

    # row in imgBrick of each picture, and position and row of its different trials
    pictures = []
    counts = []
    positions: list[tuple[int, int]] = []
    for number, sample in enumerate(samples):
        pictures.append(int(read_member(sample, "coco73k.npy", MINDEYE1_HINT).item()))
        numbers = read_member(sample, "trial.npy", MINDEYE1_HINT)
        _, rows = np.unique(numbers, return_index=True)
        counts.append(len(rows))
        positions += [(number, row) for row in rows.tolist()]
    sample_of_trial, row_of_trial = np.array(positions).T  # [n] each

    first_signal = read_member(samples[0], "nsdgeneral.npy", MINDEYE1_HINT)
    dtype = first_signal.dtype
    width = first_signal.shape[-1]
    shape = (len(positions), width, 1)  # [n, V, 1]
    voxels = read_region_masks(subject, width, mask_roots, MINDEYE1_HINT)
    if needs_regions and len(voxels.regions) == 1:
        raise MissingData(
            f"no masks of NSD below {mask_roots[1]}, which name regions",
            Line("fetch", "nsd"),
        )

    def read_trials(trials: Any) -> Array:
        numbers = sample_of_trial[trials]
        signal = np.zeros((len(numbers), width, 1), dtype)
        for number in np.unique(numbers):
            member = read_member(samples[number], "nsdgeneral.npy", MINDEYE1_HINT)
            is_of_sample = numbers == number
            rows = row_of_trial[trials][is_of_sample]
            signal[is_of_sample, :, 0] = member[rows]  # of [R, V]
        return signal

    folder_of_tars = samples[0][0].parents[1]
    return make_recording(
        LazyRows(shape, dtype, read_trials, folder_of_tars),
        np.repeat(pictures, counts).tolist(),
        voxels,
        {"source": "webdataset_avg_split"},
        repetitions=np.array(counts),
    )


def _read_mindeye2(
    mask_roots: tuple[Path, Path],
    test_pictures: Literal[982, 1000],
    files: FilesByRow,
    subject: int,
    split: str,
) -> Trials:
    """Open the trials of a split, grouped by picture in the order of time."""
    path = files["betas"][0]
    with hdf5.open_file(path, MINDEYE2_HINT) as file:
        dataset = hdf5.open_numbers(file, "betas", "f")
        _, width = dataset.shape
        dtype = np.dtype(dataset.dtype)

    # sort the trials by picture
    last_session = LAST_SESSIONS[test_pictures]
    behaviour = _read_behaviour(files[split], split, last_session)
    order, repetitions = group_trials(behaviour[:, PICTURE_COLUMN])
    behaviour = behaviour[order]
    trials = behaviour[:, TRIAL_COLUMN]

    def read(rows: Any) -> Array:
        with hdf5.open_file(path, MINDEYE2_HINT) as file:
            betas = file["betas"]
            read_trials = make_trial_reader(
                trials, (width, 1), dtype, lambda trial: betas[trial][:, None]
            )
            return read_trials(rows)

    return make_recording(
        LazyRows((len(trials), width, 1), dtype, read, path),
        behaviour[:, PICTURE_COLUMN].tolist(),
        read_region_masks(subject, width, mask_roots, MINDEYE2_HINT),
        {"source": path.name, "test_pictures": test_pictures},
        repetitions=repetitions,
        sessions=(behaviour[:, SESSION_COLUMN] - 1).astype(np.int8),
    )


def _read_behaviour(paths: Iterable[Path], split: str, last_session: int) -> Int64:
    """Read MindEye2's table [trials, 17] of a split up to a session, in time order.

    Raises:
        BrainhiveError: if a trial belongs to the other split.
    """
    other_split_flag = 1 if split == "train" else 0
    rows = []
    for sample in list_samples(paths, MINDEYE2_HINT):
        values = read_member(sample, BEHAVIOUR, MINDEYE2_HINT).ravel().astype(np.int64)
        if values[SHARED_COLUMN] == other_split_flag:
            raise BrainhiveError(
                f"{sample[0]} has a trial of the other split, not of {split}",
                MINDEYE2_HINT,
            )
        rows.append(values)
    behaviour = np.array(rows)
    behaviour = behaviour[behaviour[:, SESSION_COLUMN] <= last_session]
    return behaviour[np.argsort(behaviour[:, TRIAL_COLUMN], kind="stable")]


def _read_brain_diffuser(
    roots: tuple[Path, Path],
    find_design: Callable[[], Path],
    files: FilesByRow,
    subject: int,
    split: str,
) -> Trials:
    """Open the means of a split, z-scored."""
    path = files[split][0]
    means = _open_means(path)
    count, width = means.shape

    # the mean and deviation are computed at the first read, not for the shape
    @cache
    def measure_voxels() -> tuple[Float64, Float64]:
        """Measure the mean and the inverse spread [V] of the training pictures."""
        training = _open_means(files["train"][0]) / STORED_PER_PERCENT
        mean = training.mean(0, np.float64)
        spread = training.std(0, np.float64, ddof=1)
        # Largest spread of a voxel that is rounding and not signal.
        varies = spread > 1e-12
        scale = np.divide(1, spread, out=np.zeros_like(spread), where=varies)
        return mean, scale

    def read_pictures(rows: slice) -> Array:
        mean, scale = measure_voxels()
        values = (np.asarray(means[rows]) / STORED_PER_PERCENT - mean) * scale
        return values[..., None].astype(np.float32)  # [n, V, 1]

    return make_recording(
        LazyRows((count, width, 1), np.dtype(np.float32), read_pictures, path),
        _list_means_pictures(path, find_design(), subject, split, count),
        read_region_masks(subject, width, roots, BRAIN_DIFFUSER_HINT),
        {"source": path.name, "averaged": "over the repetitions of each picture"},
    )


def _open_means(path: Path) -> Array:
    """Open means [pictures, V]. The values stay on disk."""
    means = pickles.load(path)
    is_array = isinstance(means, np.ndarray)
    if not is_array or means.ndim != 2 or means.dtype.kind != "f":
        raise BrainhiveError(
            f"{path} holds no numbers [pictures, V]", BRAIN_DIFFUSER_HINT
        )
    return means


def make_recording(
    signal: LazyRows,
    rows: Iterable[int],
    voxels: Voxels,
    provenance: dict[str, Any],
    **fields: Any,
) -> Trials:
    """Make a recording of z-scored voxels.

    Args:
        signal: Signals [n, V, 1].
        rows: Row [n] of the picture of each trial in imgBrick.
        voxels: The V voxels.
        provenance: Provenance of the recording.
        fields: Further fields of `Trials`.
    """
    return Trials(
        signal,
        list(map(name_picture, rows)),
        voxels,
        times_s=np.zeros(1),
        rate_hz=None,
        unit="z-score",
        provenance=provenance,
        **fields,
    )
