"""NSD from its single-trial betas: voxels of a mask, regions, z-scores by session.

Source: Allen et al. 2022; z-scores as MindEye2 has them, by the training trials of each session.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from brainhive_cli.core import home, parts
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.recipe import Numbers, Paths, Pattern
from brainhive_cli.data.preparations import Trials
from brainhive_cli.data.preparations._nsd_design import (
    FIRST_RELEASE,
    SESSION_TRIALS,
    SESSIONS,
    SUBJECTS,
    Design,
    image_id,
    path_of,
)
from brainhive_cli.data.preparations._nsd_volumes import (
    ATLASES,
    ENDINGS,
    HIGHER,
    PERCENT,
    SOURCE,
    Masks,
    betas,
    file_of,
    read,
)
from brainhive_cli.data.stores.recordings import REGION_NAME, Voxels

SPLITS = ("train", "test")
SUBJECT = re.compile(r"\{subject(?::0([1-9])d)?\}")
"""Where the path of an own mask has the subject's number, as Python's format writes it."""


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
        taken = {HIGHER, *ATLASES, *(label for labels in ATLASES.values() for label in labels)}
        for name, pattern in value.items():
            if not re.fullmatch(REGION_NAME, name) or name.lower() in {each.lower() for each in taken}:
                raise ValueError(f"{name!r} is no name for a region, or one of NSD's own")
            if not SUBJECT.search(pattern):
                raise ValueError(f"{name}: the path has no {{subject}}")
        return value

    @model_validator(mode="after")
    def _has_the_sessions_of_its_split(self) -> Self:
        most = FIRST_RELEASE if self.test_pictures == 982 else max(SESSIONS)
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
        folders = (self.root / "nsddata_betas/ppdata").glob(f"subj*/{self.config.space}/{self.config.betas}")
        found = (re.fullmatch(r"subj0([1-8])", path.parts[-3]) for path in folders)
        return tuple(sorted(int(match[1]) for match in found if match))

    def files(self, subject: int) -> Sequence[Path]:
        """List the design, the masks, the noise ceiling where it is there, and the betas of each session."""
        ceiling = file_of(self._betas(subject), "ncsnr")
        sessions = [self._file(subject, session) for session in self.sessions(subject)]
        masks = self._masks(subject).files.values()
        return [path_of(self.root), *masks, *([ceiling] if ceiling else []), *sessions]

    def sessions(self, subject: int) -> Sequence[int]:
        """List the sessions that the recipe names, or all that the subject had."""
        if subject not in SUBJECTS:
            raise MissingData(f"nsd has no subject {subject}", f"it has 1 to {max(SUBJECTS)}")
        most = FIRST_RELEASE if self.config.test_pictures == 982 else max(SESSIONS)
        return sorted(self.config.sessions or range(1, min(most, SESSIONS[subject - 1]) + 1))

    def shapes(self, subject: int, session: int) -> Mapping[str, tuple[int, int, int]]:
        """Count the trials of a session by the design; betas are not opened."""
        width = int(self._mask(subject).sum())
        _, is_test = self._shown(subject, session)
        counts = {split: int((is_test == (split == "test")).sum()) for split in SPLITS}
        return {split: (count, width, 1) for split, count in counts.items() if count}

    def session(self, subject: int, session: int) -> Mapping[str, Trials]:
        """Read the betas of a session, by split."""
        masks, mask, path = self._masks(subject), self._mask(subject), self._file(subject, session)
        rows, is_test = self._shown(subject, session)
        signal = betas(path, mask, SESSION_TRIALS).astype(np.float32)  # [trials, V]
        signal /= PERCENT
        flat = zscore(signal, ~is_test) if self.config.zscore else 0
        space = self._with_ceiling(subject, masks.voxels(mask), mask)
        made = {"masks": [*masks.files], "kept": masks.kept, "constant_voxels": flat}
        return {
            split: Trials(
                signal[own][:, :, None],
                [image_id(row) for row in rows[own].tolist()],
                space,
                np.zeros(1),
                None,
                "z-score" if self.config.zscore else "% signal change",
                provenance=made,
            )
            for split in SPLITS
            if (own := is_test == (split == "test")).any()
        }

    @cached_property
    def _design(self) -> Callable[[int], Design]:
        return cache(lambda subject: Design.open(path_of(self.root), subject))

    @cached_property
    def _mask(self) -> Callable[[int], NDArray[np.bool_]]:
        return cache(lambda subject: self._masks(subject).mask())

    def _with_ceiling(self, subject: int, space: Voxels, mask: NDArray[np.bool_]) -> Voxels:
        path = file_of(self._betas(subject), "ncsnr")
        if path is None:
            return space
        ratios = read(path)
        if ratios.shape != mask.shape:
            raise BrainhiveError(f"{path} is {list(ratios.shape)}, the mask {list(mask.shape)}", SOURCE)
        return replace(space, ncsnr=np.nan_to_num(ratios[mask].astype(np.float64)))  # no ratio: no signal

    def _masks(self, subject: int) -> Masks:
        below = self.root / f"nsddata/ppdata/subj{subject:02d}/{self.config.space}/roi"
        own = {
            name: home.located(
                SUBJECT.sub(lambda digits: f"{subject:0{digits[1] or 1}d}", pattern)
            ).absolute()
            for name, pattern in self.config.masks.items()
        }
        return Masks.below(below, self.config.voxels, own)

    def _betas(self, subject: int) -> Path:
        return self.root / f"nsddata_betas/ppdata/subj{subject:02d}/{self.config.space}/{self.config.betas}"

    def _file(self, subject: int, session: int) -> Path:
        folder, name = self._betas(subject), f"betas_session{session:02d}"
        if (path := file_of(folder, name, (".hdf5", *ENDINGS))) is None:
            found = (re.match(r"betas_session(\d+)\.", path.name) for path in folder.glob("betas_session*"))
            there = ",".join(map(str, sorted({int(match[1]) for match in found if match})))
            some = f"; or take what is there: preparation.sessions={there}" if there else ""
            raise MissingData(f"nsd: no {folder / name}.nii.gz, nor .hdf5", f"{SOURCE}{some}")
        return path

    def _shown(self, subject: int, session: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Rows of the pictures of a session's trials, and whether they are of the test split."""
        design = self._design(subject)
        own = design.trials(session)
        return design.rows[own], design.is_test[own]


def zscore(signal: NDArray[np.float32], of: NDArray[np.bool_]) -> int:
    """Z-score voxels [trials, V] in place by some of their trials; those that do not vary become zero.

    Returns:
        How many do not vary.
    """
    known = signal[of]
    mean, std = (measure(known, axis=0, dtype=np.float64) for measure in (np.mean, np.std))
    varies = known.min(axis=0) < known.max(axis=0)
    signal -= mean
    signal *= np.divide(1, std, out=np.zeros_like(std), where=varies)
    return int((~varies).sum())
