"""Files of BOLD runs in BIDS: raw events, fMRIPrep's derivatives, and the metadata of both."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import filter as match_pattern
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from brainhive_cli.core import documents
from brainhive_cli.core.arrays import Array, Float32, Float64
from brainhive_cli.core.damage import reading
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.files import open_regular
from brainhive_cli.data.bids_labels import VERSIONS
from brainhive_cli.data.brain_images import CORTEX, NIFTI, Mask, check_count, open_image
from brainhive_cli.data.recording_files import ABSENT, NO_VALUE, read_number, read_table

AGAIN = "copy it again, or let fMRIPrep make it again"
SERIES = (
    *("*_bold.nii.gz", "*_bold.nii", "*_hemi-L_*bold.func.gii", "*_bold.dtseries.nii"),
    *("*_preproc.nii.gz", "*_preproc.nii"),
)
"""fMRIPrep's names of volumes, surfaces (the right hemisphere lies next to the left) and grayordinates."""
OLD_SUFFIXES = {
    "preproc": ("bold", "preproc"),
    "brainmask": ("mask", "brain"),
    "confounds": ("regressors", "confounds"),
}
"""Suffix and `desc` for the suffixes of fMRIPrep 1.0 and 1.1."""
OLD_COLUMNS = {
    **{f"{axis}": f"trans_{axis.lower()}" for axis in "XYZ"},
    **{f"Rot{axis}": f"rot_{axis.lower()}" for axis in "XYZ"},
    **{"Cosine": "cosine", "NonSteadyStateOutlier": "non_steady_state_outlier"},
    **{"aCompCor": "a_comp_cor_", "tCompCor": "t_comp_cor_"},
}
"""Their columns of confounds, without the number at the end."""
HEAD_BYTES = 4096
"""First bytes of a GIFTI file, which hold the number of its volumes."""
GROUPS: Mapping[str, Sequence[str]] = {
    "motion": ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z"),
    "cosine": ("cosine*",),
    "non_steady": ("non_steady_state_outlier*",),
    "motion_outlier": ("motion_outlier*",),
    "a_comp_cor": ("a_comp_cor_0[0-4]",),
    "t_comp_cor": ("t_comp_cor_0[0-4]",),
}
"""fMRIPrep's columns of each group of confounds; of CompCor the first components, as is usual."""
# of the patterns of CompCor above
COMPONENTS = 5
OPTIONAL = ("cosine", "non_steady", "motion_outlier")
"""Groups without a column in a run that is short, or has no such volume."""
# headers hold the TR as float32, or in milliseconds
HEADER_TOLERANCE_S = 1e-3
LONGEST_TAIL_S = 30
"""Seconds from the onset of the last picture to the end of a run, more than which are unusual."""
LONGEST_TR_S = 100
"""A larger TR is one in milliseconds."""


class BidsFile(NamedTuple):
    """A file and the parts of its name: entities (run-01 is run-1), and the suffix before its ending."""

    path: Path
    folder: Path  # below the root
    entities: dict[str, str]
    suffix: str

    @property
    def space(self) -> str:
        """The space as fMRIPrep's --output-spaces has it; empty for the grid of the run itself."""
        # as in MNI152NLin2009cAsym:res-2
        details = [f"{key}-{self.entities[key]}" for key in ("cohort", "res", "den") if key in self.entities]
        return ":".join([self.entities["space"], *details]) if "space" in self.entities else ""


@dataclass(frozen=True)
class Tree:
    """The files below a folder of BIDS; each of its folders is listed once."""

    root: Path
    listed: dict[Path, list[BidsFile]] = field(default_factory=dict)

    def list_folder(self, folder: Path) -> list[BidsFile]:
        """List the files in a folder below the root, those of the fewest entities first."""
        if folder not in self.listed:
            files = []
            for path in sorted((self.root / folder).glob("[!.]*_*.*")):
                # sub-01_task-images_run-01_bold.nii.gz: entities, run-01 as run-1, and the suffix bold
                *pairs, suffix = path.name.partition(".")[0].split("_")
                entities = dict(pair.split("-", 1) for pair in pairs if "-" in pair)
                if "run" in entities:
                    entities["run"] = entities["run"].lstrip("0")
                if suffix in OLD_SUFFIXES and "desc" not in entities:
                    suffix, entities["desc"] = OLD_SUFFIXES[suffix]
                files.append(BidsFile(path, path.parent.relative_to(self.root), entities, suffix))
            self.listed[folder] = sorted(files, key=lambda file: len(file.entities))
        return self.listed[folder]

    def inherit(self, file: BidsFile, ending: str, *suffixes: str) -> list[Path]:
        """List the files that describe `file` by BIDS's inheritance, nearer ones, which override, last."""
        folders = (*reversed(file.folder.parents), file.folder)
        return [
            path
            for folder in folders
            for path, _, entities, suffix in self.list_folder(folder)
            if suffix in suffixes and path.name.endswith(ending) and entities.items() <= file.entities.items()
        ]


class Timing(NamedTuple):
    """Times of the volumes of a run: the first at `start_s`, by `source`."""

    volumes: int
    tr_s: float
    start_s: float
    source: str

    @property
    def times_s(self) -> Float64:
        """Times [T] of all volumes."""
        return np.arange(self.volumes, dtype=np.float64) * self.tr_s + self.start_s

    @property
    def end_s(self) -> float:
        """End of the run."""
        return self.volumes * self.tr_s


class Picture(NamedTuple):
    """A picture that was shown: when, for how long (NaN where that is not known), and what events call it."""

    onset_s: float
    duration_s: float
    name: str


@dataclass(frozen=True)
class BoldRun:
    """The files of a run.

    Attributes:
        number: Number of the run within its session.
        series: BOLD: one file, or one a hemisphere.
        events: The nearest table of events.
        sidecars: JSON of the raw run, and of the derived one; the farthest first.
        confounds: Table of confounds.
        images: fMRIPrep's volumes of the same grid by `desc`, as `brain` and `aparcaseg`.
    """

    number: int
    series: tuple[Path, ...]
    events: Path
    sidecars: tuple[Sequence[Path], Sequence[Path]]
    confounds: Path | None
    images: Mapping[str, Path]

    @property
    def files(self) -> list[Path]:
        """List all that is read."""
        confounds = [self.confounds] if self.confounds else []
        raw, derived = self.sidecars
        return [*self.series, self.events, *raw, *derived, *confounds, *self.images.values()]

    @cached_property
    def timing(self) -> Timing:
        """Read when volumes were acquired: key by key from the nearest JSON that has it.

        Raises:
            BrainhiveError: if there is no TR, or the header of the BOLD has another.
        """
        # of several JSON files, later ones override earlier ones key by key
        merged = []
        for paths in self.sidecars:
            hint = "correct it: BIDS has numbers of seconds, and true or false"
            contents = [documents.read(path, Sidecar, hint).model_dump(exclude_unset=True) for path in paths]
            merged.append(Sidecar(**{key: value for content in contents for key, value in content.items()}))
        raw, derived = merged

        # the TR of the JSON, which the header may not contradict
        path = self.series[0]
        tr_s = derived.RepetitionTime if derived.RepetitionTime is not None else raw.RepetitionTime
        if tr_s is None and (times_s := derived.VolumeTiming or raw.VolumeTiming):
            steps_s = np.diff(times_s)
            problem = f"{path}: its JSON has VolumeTiming, not RepetitionTime"
            way = "volumes at uneven times, as of sparse sampling, are not modelled: estimate betas elsewhere"
            if len(steps_s) and np.ptp(steps_s) < HEADER_TOLERANCE_S:
                way = (
                    f'write {{"RepetitionTime": {steps_s[0]:g}}} in its place, and StartTime: the middle of '
                )
                way += "its first acquisition"
            raise BrainhiveError(problem, way)
        if isinstance(tr_s, bool) or not isinstance(tr_s, int | float) or not 0 < tr_s < LONGEST_TR_S:
            problem = f"{path}: its JSON has no RepetitionTime in seconds{f', but {tr_s}' if tr_s else ''}"
            json = f"{path.name.partition('.')[0]}.json"
            raise BrainhiveError(problem, f'write {{"RepetitionTime": 2.0}}, with its TR, into {json}')
        volumes, header_s = _read_header(path)
        header_s = header_s / 1000 if header_s > LONGEST_TR_S else header_s
        # tools that know no TR write 0 or 1
        if header_s > 0 and header_s != 1 and abs(header_s - tr_s) > HEADER_TOLERANCE_S:
            problem = f"{path}: its header has a TR of {header_s:g} s, its JSON one of {tr_s:g} s"
            raise BrainhiveError(problem, "find out which is right, and correct RepetitionTime or the header")

        # slice-timing correction moves a volume to the middle of its TR
        if derived.StartTime is not None:
            return Timing(volumes, tr_s, derived.StartTime, "StartTime")
        if derived.SliceTimingCorrected:
            return Timing(volumes, tr_s, tr_s / 2, "TR/2")
        return Timing(volumes, tr_s, 0.0, "0")

    def read_surface(self) -> dict[str, Array]:
        """Read the BOLD [T, V] of the vertices of each hemisphere."""
        images = [open_image(path, AGAIN) for path in self.series]
        with reading(self.series[0], AGAIN, raised=(Exception,)):
            if len(images) == 2:
                # GIFTI: an array for each volume, or one [V, T], as nilearn writes it; [T, V] a hemisphere
                stacks = [np.stack([volume.data for volume in image.darrays]) for image in images]
                stacks = [stack if stack.ndim == 2 else stack[0].T for stack in stacks]
                return dict(zip(CORTEX, stacks, strict=True))

            # CIFTI: grayordinates, of which the cortex is read
            values, axis = np.asarray(images[0].dataobj), images[0].header.get_axis(1)
            return {side: values[:, axis.name == name] for side, name in CORTEX.items()}

    def read_series(self, space: Mask | Mapping[str, int]) -> Float32:
        """Read the BOLD [T, V] of the voxels of a mask, or of the vertices of both hemispheres."""
        if isinstance(space, Mask):
            return space.read_series(self.series[0]).astype(np.float32, copy=False)

        # left and right hemisphere side by side
        sides = [*self.read_surface().values()]
        if [side.shape for side in sides] != [(self.timing.volumes, size) for size in space.values()]:
            shapes = " and ".join(str([*side.shape]) for side in sides)
            problem = f"{self.series[0]} has {shapes}, other runs {[*space.values()]} vertices"
            raise BrainhiveError(problem, AGAIN)
        return np.concatenate(sides, 1, dtype=np.float32)


class Sidecar(BaseModel):
    """Keys that are read of the JSON of a run, named as in BIDS; it has more."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    RepetitionTime: Any = None  # whatever is no number of seconds is an absent one
    VolumeTiming: list[float] | None = None
    StartTime: float | None = Field(None, ge=0, lt=LONGEST_TR_S)
    SliceTimingCorrected: bool | None = None


def refuse_versions(files: Iterable[BidsFile]) -> None:
    """Refuse two files of one acquisition, as of two reconstructions, or packed and unpacked.

    Raises:
        BrainhiveError: naming both, and the key that chooses one; or a file in another subject's folder.
    """
    known: dict[frozenset[tuple[str, str]], BidsFile] = {}
    for file in files:
        label = re.match(r"sub-[a-zA-Z0-9]*", file.folder.parts[0])  # of sub-01_old, a copy, sub-01
        if label is None or label[0] != f"sub-{file.entities.get('sub')}":
            raise BrainhiveError(f"{file.path} lies in the folder of another subject", "move or rename it")
        acquisition = frozenset(item for item in file.entities.items() if item[0] not in VERSIONS)
        other = known.setdefault(acquisition, file)
        if other is file:
            continue

        # the folder, entity or ending by which they differ
        name, ending = file.path.name, file.path.name.partition(".")[2]
        way = "remove one"
        if file.folder != other.folder:
            name, way = str(file.path), f"move {file.path.parent} out of the data set"
        elif versions := file.entities.items() - other.entities.items():
            way = f"\"preparation.files='*_{'-'.join(min(versions))}_*'\""
        elif not other.path.name.endswith(f".{ending}"):
            way = f"\"preparation.files='*.{ending}'\""
        problem = f"{other.path} and {name} are of one acquisition, not of two runs"
        raise BrainhiveError(problem, f"{way}, or another preparation.files=PATTERN")


def find_runs(raw: Tree, derived: Tree, series: Iterable[BidsFile]) -> list[BoldRun]:
    """Find the files of the runs of a session by their derived BOLD; runs without events are left out."""
    # runs with events in the order of their labels, run-10 behind run-9
    pairs = [(file, events) for file in series if (events := raw.inherit(file, ".tsv", "events"))]
    pairs.sort(key=lambda pair: (len(run := pair[0].entities.get("run", "")), run, pair[0].path))

    # numbers of the labels, or else counted
    labels = [file.entities.get("run", "") for file, _ in pairs]
    numbers = [int(label) if label.isdecimal() else 0 for label in labels]
    if len({*numbers}) < len(numbers) or 0 in numbers:  # runs may differ in other entities, as acq
        numbers = [*range(1, len(pairs) + 1)]

    runs = []
    for number, (file, events) in zip(numbers, pairs, strict=True):
        # the right hemisphere, confounds and JSON of a run
        path, described = file.path, file._replace(entities={**file.entities, "desc": "confounds"})
        partners = (
            [path.with_name(path.name.replace("_hemi-L_", "_hemi-R_"))] if path.suffix == ".gii" else []
        )
        tables = derived.inherit(described, ".tsv", "regressors", "timeseries")  # the former before 20.2
        sidecars = raw.inherit(file, ".json", "bold"), derived.inherit(file, ".json", "bold")

        # masks and labels of the same run, space and resolution
        images = {
            image.entities.get("desc", ""): image.path
            for image in derived.list_folder(file.folder)
            if image.suffix in ("mask", "dseg")
            and image.path.name.endswith(NIFTI)
            and {**image.entities, "desc": ""} == {**file.entities, "desc": ""}
        }
        confounds = tables[-1] if tables else None
        runs.append(BoldRun(number, (path, *partners), events[-1], sidecars, confounds, images))
    return runs


def _read_header(path: Path) -> tuple[int, float]:
    """Read the number of volumes of BOLD, and the TR in its header: 0 where that is not known."""
    if path.suffix == ".gii":
        with reading(path, AGAIN), open_regular(path) as file:  # nibabel would read all of it
            if not (match := re.search(rb'NumberOfDataArrays="(\d+)"', file.read(HEAD_BYTES))):
                raise ValueError("it has no NumberOfDataArrays")
            count = check_count(int(match[1]), path)
        shape: tuple[int, ...] = open_image(path, AGAIN).darrays[0].data.shape if count == 1 else ()
        return shape[1] if len(shape) == 2 else count, 0.0

    # CIFTI and NIfTI say the unit of the TR
    image = open_image(path, AGAIN)
    with reading(path, AGAIN, raised=(Exception,)):
        if path.name.endswith(".dtseries.nii"):
            axis = image.header.get_axis(0)
            if axis.size != image.shape[0]:
                raise ValueError(f"its XML has {axis.size:,} volumes, its header {image.shape[0]:,}")
            return image.shape[0], axis.step if axis.unit == "SECOND" else 0.0
        if image.ndim != 4:
            raise BrainhiveError(f"{path} is {list(image.shape)}, not [X, Y, Z, T]", AGAIN)
        unit = {"msec": 1e-3, "usec": 1e-6}.get(image.header.get_xyzt_units()[1], 1.0)
        return image.shape[3], float(image.header.get_zooms()[3]) * unit


def read_events(
    path: Path, stimulus: str, where: Mapping[str, Any], unit_s: float = 1
) -> tuple[list[Picture], Counter[str]]:
    """Read the pictures of a run in the order of time.

    Args:
        path: The table.
        stimulus: The column that names pictures.
        where: Columns, and the value or values that pictures have in them.
        unit_s: Seconds of the unit of onsets and durations.

    Returns:
        The pictures, and the number of other events, by reason.

    Raises:
        BrainhiveError: if a column is missing, a time is no number, or two pictures begin at once.
    """
    # the columns that the recipe names
    columns, rows = read_table(path)
    if absent := [name for name in ("onset", stimulus, *where) if name not in columns]:
        way = "preparation.stimulus=COLUMN, preparation.where={COLUMN: VALUE}"
        raise BrainhiveError(f"{path} has no column {absent[0]}", f"it has {', '.join(columns)}: {way}")
    wanted = {
        column: {*map(_plain, values if isinstance(values, list) else [values])}
        for column, values in where.items()
    }

    # events with these values and a picture, and the reason why others are none
    pictures, dropped = [], Counter[str]()
    for line, row in enumerate(rows, 2):
        kind = f" (trial_type {row['trial_type']})" if "trial_type" in columns else ""
        other = [column for column, values in wanted.items() if _plain(row[column]) not in values]
        if other:
            dropped[f"events whose {other[0]} is {row[other[0]]}"] += 1
        elif row[stimulus] in ABSENT:
            dropped[f"events without {stimulus}{kind}"] += 1
        elif row["onset"] in ABSENT:
            dropped["events of pictures without an onset"] += 1
        else:
            onset_s, duration_s = (read_number(row.get(name, "")) for name in ("onset", "duration"))
            if np.isnan(onset_s):
                raise BrainhiveError(f"{path}, line {line}: onset {row['onset']}", "write seconds, or n/a")
            pictures.append(Picture(onset_s * unit_s, duration_s * unit_s, row[stimulus]))

    # two pictures at once would have one response
    pictures.sort()
    for picture, later in pairwise(pictures):
        if picture.onset_s == later.onset_s:
            way = "preparation.where={COLUMN: VALUE} chooses one, or correct the table"
            raise BrainhiveError(f"{path}: two pictures begin at {later.onset_s:g} s", way)
    return pictures, dropped


def guess_unit(pictures: Sequence[Picture], timing: Timing) -> str:
    """Guess the unit of onsets that are probably no seconds: ms or volumes; empty where they may well be.

    Args:
        pictures: Those of a run, in the order of time, whose onsets were read as seconds.
        timing: Of the run.
    """
    onsets = np.array([picture.onset_s for picture in pictures])
    if not len(onsets):
        return ""
    last, end_s = onsets[-1], timing.end_s
    # onsets behind the end of the run cannot be seconds
    if last > end_s:
        if np.median(onsets) > end_s and last / 1000 <= end_s:
            return "ms"
        return "volumes" if last < timing.volumes and (onsets == np.rint(onsets)).all() else ""

    # pictures are shown until shortly before the end
    are_volumes = (
        last < timing.volumes and (onsets == np.rint(onsets)).all() and end_s - last > LONGEST_TAIL_S
    )
    return "volumes" if are_volumes or last < end_s / 2 else ""


def _plain(value: object) -> str:
    """Write numbers alike: 1, 01 and 1.0."""
    return NO_VALUE.sub("n/a", str(value)) if np.isnan(number := read_number(value)) else str(number)


def read_confounds(
    path: Path, groups: Sequence[str], volumes: int
) -> tuple[dict[str, Float64], Counter[str]]:
    """Read the confounds of a run.

    Args:
        path: The table.
        groups: `GROUPS`, or columns, which may have wildcards.
        volumes: T.

    Returns:
        [T] by column, finite; and unusual facts about them, with counts.

    Raises:
        BrainhiveError: if a column is not there, or a value is missing behind the first row.
    """
    columns, rows = read_table(path)
    # columns of fMRIPrep 1.0 and 1.1 by their later names
    new = {name: re.sub(r"^\D+", lambda match: OLD_COLUMNS.get(match[0], match[0]), name) for name in columns}
    columns, rows = [*new.values()], [{new[name]: text for name, text in row.items()} for row in rows]
    if len(rows) != volumes:
        raise BrainhiveError(f"{path} has {len(rows)} rows for {volumes} volumes", AGAIN)

    # columns of each group
    names, noted = list[str](), Counter[str]()
    for group in groups:
        for pattern in GROUPS.get(group, (group,)):
            matches = sorted(match_pattern(columns, pattern))
            if not matches and group not in OPTIONAL:
                there = dict.fromkeys(re.sub(r"\d+$", "*", name) for name in columns)
                problem = f"{path} has no column {pattern} of the confounds {group}"
                raise BrainhiveError(problem, f"preparation.confounds=[…] of those there: {', '.join(there)}")
            if group.endswith("comp_cor"):
                noted[f"runs of fewer than {COMPONENTS} columns {group}"] += len(matches) < COMPONENTS
            names += matches
    if "cosine" in groups and not any(name.startswith("cosine") for name in names):
        noted["runs without columns cosine, whose drift is polynomial"] += 1

    # their values [T]; derivatives have none in the first row
    values = {}
    for name in dict.fromkeys(names):
        column = values[name] = np.array([read_number(row[name]) for row in rows])
        if rows[0][name] in ABSENT:
            noted["confounds with n/a in the first row, taken as 0"] += 1
            column[0] = 0
        if not np.isfinite(column).all():
            problem = f"{path}, column {name}: not all of its rows are numbers"
            raise BrainhiveError(problem, "leave it out of preparation.confounds, or correct it")

    # a column of zeros explains nothing
    if zero := [name for name, column in values.items() if not column.any()]:
        noted["confounds that are zero throughout, left out"] += len(zero)
    return {name: column for name, column in values.items() if name not in zero}, +noted
