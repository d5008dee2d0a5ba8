"""NSD from its single-trial betas: voxels of a mask, regions, z-scores by session.

Source: Allen et al. 2022; z-scores as MindEye2 has them, by the training trials of each session.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from brainhive_cli.core import parts
from brainhive_cli.core.arrays import Float32, Int64
from brainhive_cli.core.damage import reading
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.files import locate
from brainhive_cli.core.recipe import Numbers, Paths, Pattern
from brainhive_cli.data.preparations import cached_method
from brainhive_cli.data.preparations._brain_images import NIFTI, Mask, open_image
from brainhive_cli.data.preparations._nsd import (
    ATLASES,
    HIGHER,
    LAST_SESSIONS,
    PERCENT,
    SESSION_TRIALS,
    SESSIONS,
    SOURCE,
    SUBJECTS,
    Design,
    Masks,
    find_design,
    find_volume,
)
from brainhive_cli.data.preparations._prepared import SUBJECT, list_subjects
from brainhive_cli.data.published_data import name_nsd_picture
from brainhive_cli.data.stores import hdf5
from brainhive_cli.data.trials import REGION_NAME, Trials

SPLITS = ("train", "test")
FOLDER = "nsddata_betas/ppdata/subj{subject:02d}"


class Config(parts.Config):
    """Raw NSD: nsddata and nsddata_betas, as they are distributed.

    `test` is the pictures that all subjects saw. A region is named as its label (`V1v`, `FFA-1`, `ventral`),
    a mask as its file (`nsdgeneral`, `floc-faces`); `higher_vis` is what lies outside of prf-visualrois.
    """

    root: str = Field("", description="folder of nsddata and nsddata_betas; default: nsd below paths.data")
    space: Pattern = Field("func1pt8mm", description="of the volumes: func1pt8mm or func1mm")
    betas: Pattern = Field("betas_fithrf_GLMdenoise_RR", description="version of the betas, a folder")
    voxels: str = Field("nsdgeneral", description="mask of the voxels that are kept")
    masks: dict[str, str] = Field(
        {},
        description="own masks, which become regions: name: NIfTI file of each subject, above 0 inside, as "
        "{spatial: masks/subj{subject:02d}_spatial.nii.gz}; below home, on the volumes of `space`",
    )
    sessions: Numbers | None = Field(None, description="sessions, each of which must be there; default: all")
    test_pictures: Literal[982, 1000] = Field(
        1000,
        description="test pictures: all, or those of the first 37 sessions, which papers before 2024 had; "
        "later sessions are then left out",
    )
    zscore: bool = Field(
        True, description="z-score each voxel in each session by its training trials; no: percent of change"
    )

    @field_validator("masks")
    @classmethod
    def _have_names_of_their_own(cls, value: dict[str, str]) -> dict[str, str]:
        names = {HIGHER, *ATLASES, *(label for labels in ATLASES.values() for label in labels)}
        for name, pattern in value.items():
            if not re.fullmatch(REGION_NAME, name) or name.lower() in map(str.lower, names):
                raise ValueError(f"{name!r} is no name for a region, or one of NSD's own")
            if not SUBJECT.search(pattern):
                raise ValueError(f"{name}: the path has no {{subject}}")
        return value

    @model_validator(mode="after")
    def _has_the_sessions_of_its_split(self) -> Self:
        most = LAST_SESSIONS[self.test_pictures]
        if beyond := [session for session in self.sessions or () if not 1 <= session <= most]:
            raise ValueError(
                f"session {beyond[0]} is none of the {most} with {self.test_pictures} test pictures"
            )
        return self

    def build(self, paths: Paths) -> "Betas":
        """Point at the data; nothing is read yet."""
        return Betas(self, paths.dataset("nsd", self.root))


TINY = Config(root="nsd")


@dataclass(frozen=True)
class Betas:
    """The betas below one root."""

    config: Config
    root: Path
    dataset: str = "nsd"
    order_seed: int | None = None

    @property
    def subjects(self) -> tuple[int, ...]:
        """The subjects whose betas are there."""
        listed = list_subjects(self.root, [f"{FOLDER}/{self.config.space}/{self.config.betas}"])
        return tuple(subject for subject in listed if subject in SUBJECTS)

    def files(self, subject: int) -> Sequence[Path]:
        """List the design, the masks, the noise ceiling where it is there, and the betas of each session."""
        # published noise ceilings are optional
        ceiling = find_volume(self._folder(subject), "ncsnr")
        sessions = [self._file(subject, session) for session in self.sessions(subject)]
        masks = self._masks(subject).files.values()
        return [find_design(self.root), *masks, *([ceiling] if ceiling else []), *sessions]

    def sessions(self, subject: int) -> Sequence[int]:
        """List the sessions that the recipe names, or all that the subject had."""
        if subject not in SUBJECTS:
            raise MissingData(f"nsd has no subject {subject}", f"it has 1 to {max(SUBJECTS)}")
        last = min(LAST_SESSIONS[self.config.test_pictures], SESSIONS[subject - 1])
        return sorted(self.config.sessions or range(1, last + 1))

    def shapes(self, subject: int, session: int) -> Mapping[str, tuple[int, int, int]]:
        """Count the trials of a session by the design; of betas the header is read."""
        mask = self._mask(subject)
        check_betas(self._file(subject, session), mask, SESSION_TRIALS)
        return {
            split: (len(trials), mask.width, 1) for split, trials in self._trials(subject, session).items()
        }

    def session(self, subject: int, session: int) -> Mapping[str, Trials]:
        """Read the betas of a session, by split."""
        # betas [trials, V] in percent, z-scored by the training trials
        masks, mask = self._masks(subject), self._mask(subject)
        space = masks.voxels(mask)
        trials = self._trials(subject, session)
        signal = read_betas(self._file(subject, session), mask, SESSION_TRIALS).astype(np.float32)
        signal /= PERCENT  # [trials, V]
        flat = zscore(signal, trials.get("train", np.arange(0))) if self.config.zscore else 0

        # the published noise ceiling; NaN is no signal
        if path := find_volume(self._folder(subject), "ncsnr"):
            space = replace(space, maps={"ncsnr": np.nan_to_num(mask.read(path).astype(np.float64))})

        # pictures of the trials, by the design
        rows = self._design(subject).rows[(session - 1) * SESSION_TRIALS :]
        return {
            split: Trials(
                signal[numbers][:, None, :, None],
                [name_nsd_picture(row) for row in rows[numbers].tolist()],
                space,
                np.zeros(1),
                None,
                "z-score" if self.config.zscore else "% signal change",
                {"masks": [*masks.files], "kept": masks.base, "constant_voxels": flat},
            )
            for split, numbers in trials.items()
        }

    @cached_method
    def _design(self, subject: int) -> Design:
        return Design.open(find_design(self.root), subject)

    @cached_method
    def _mask(self, subject: int) -> Mask:
        return self._masks(subject).mask()

    def _masks(self, subject: int) -> Masks:
        folder = self.root / f"nsddata/ppdata/subj{subject:02d}/{self.config.space}/roi"
        paths = {
            name: SUBJECT.sub(lambda field: field[0].format(subject=subject), pattern)
            for name, pattern in self.config.masks.items()
        }
        drawn = {name: locate(path).absolute() for name, path in paths.items()}
        return Masks.below(folder, self.config.voxels, drawn)

    def _folder(self, subject: int) -> Path:
        return self.root / FOLDER.format(subject=subject) / self.config.space / self.config.betas

    def _file(self, subject: int, session: int) -> Path:
        folder, name = self._folder(subject), f"betas_session{session:02d}"
        if (path := find_volume(folder, name, (".hdf5", *NIFTI))) is None:
            matches = (re.match(r"betas_session(\d+)\.", path.name) for path in folder.glob("betas_session*"))
            there = ",".join(map(str, sorted({int(match[1]) for match in matches if match})))
            way = f", or take what is there: preparation.sessions={there}" if there else ""
            raise MissingData(f"nsd: no {folder / name}.nii.gz, nor .hdf5", f"{SOURCE}{way}")
        return path

    def _trials(self, subject: int, session: int) -> dict[str, Int64]:
        """List the trials of a session by the splits that it has, counted from its first."""
        start = (session - 1) * SESSION_TRIALS
        is_test = self._design(subject).is_test[start : start + SESSION_TRIALS]
        trials = {split: np.flatnonzero(is_test == (split == "test")) for split in SPLITS}
        return {split: numbers for split, numbers in trials.items() if len(numbers)}


def zscore(signal: Float32, trials: Int64) -> int:
    """Z-score voxels [trials, V] in place by the trials `trials`; those that do not vary become zero.

    Returns:
        Number of voxels that do not vary.
    """
    known = signal[trials]
    mean, std = (measure(known, axis=0, dtype=np.float64) for measure in (np.mean, np.std))
    varies = known.min(0) < known.max(0)
    signal -= mean
    signal *= np.divide(1, std, out=np.zeros_like(std), where=varies)
    return int((~varies).sum())


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
            shape, dtype = stored.shape[::-1], stored.dtype
    else:
        image = open_image(path, SOURCE)
        shape, dtype = image.shape, image.get_data_dtype()
        with reading(path, SOURCE):
            if (image.dataobj.slope, image.dataobj.inter) != (1, 0):
                raise ValueError("its values are scaled, those of NSD are not")

    expected = [*mask.inside.shape, trials]
    if [*shape] != expected or dtype.kind != "i" or dtype.itemsize != 2:
        problem = f"{path} holds {dtype} {[*shape]}, not int16 {expected} as mask and design have it"
        raise BrainhiveError(problem, SOURCE)


def read_betas(path: Path, mask: Mask, trials: int) -> NDArray[np.int16]:
    """Read a session's betas [trials, V] of the voxels of a mask, in its C order; 300 is 1 percent.

    A volume (NIfTI), or a plane of voxels (HDF5), is in memory at a time. Raises as `check_betas`.
    """
    check_betas(path, mask, trials)
    if path.suffix != ".hdf5":
        return mask.read_series(path)

    # one plane of the volume for all trials at a time
    x, y, z = np.nonzero(mask.inside)
    betas = np.empty((trials, len(x)), np.int16)
    with hdf5.open_file(path, SOURCE) as file:
        stored = hdf5.open_numbers(file, "betas", "i")
        for plane in np.unique(z).tolist():
            is_in_plane = z == plane
            betas[:, is_in_plane] = stored[:, plane][:, y[is_in_plane], x[is_in_plane]]
    return betas
