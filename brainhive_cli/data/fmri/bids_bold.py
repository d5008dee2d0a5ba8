"""Files of BOLD runs in BIDS: raw events, fMRIPrep's derivatives, and the metadata of
both.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import filter as match_pattern
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from brainhive_cli.core import documents
from brainhive_cli.core.arrays import Float32, Float64
from brainhive_cli.core.damage import report_damage
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.only_match import choose_only
from brainhive_cli.data.files.bids_labels import VERSIONS
from brainhive_cli.data.fmri.volumes import (
    CIFTI_CORTEX,
    NIFTI_ENDINGS,
    Mask,
    open_image,
)
from brainhive_cli.data.recordings.ledger import Ledger
from brainhive_cli.data.recordings.tables import (
    EMPTY_CELLS,
    NOT_AVAILABLE,
    name_events,
    read_number,
    read_table,
)

COPY_HINT = "copy it again, or let fMRIPrep make it again"
BOLD_PATTERNS = (
    "*_bold.nii.gz",
    "*_bold.nii",
    "*_hemi-L_*bold.func.gii",
    "*_bold.dtseries.nii",
)
"""fMRIPrep's names of volumes, surfaces (the right hemisphere lies next to the left)
and grayordinates.
"""
CONFOUND_COLUMNS: Mapping[str, Sequence[str]] = {
    "motion": ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z"),
    "cosine": ("cosine*",),
    "non_steady": ("non_steady_state_outlier*",),
    "motion_outlier": ("motion_outlier*",),
    "a_comp_cor": ("a_comp_cor_0[0-4]",),
    "t_comp_cor": ("t_comp_cor_0[0-4]",),
}
"""fMRIPrep's columns of each group of confounds; of CompCor the first components, as is
usual.
"""
OPTIONAL_CONFOUNDS = ("cosine", "non_steady", "motion_outlier")
"""Groups without a column in a run that is short, or has no such volume."""
# headers hold the TR as float32, or in milliseconds
HEADER_TOLERANCE_S = 1e-3
MAX_TR_S = 100
"""A larger TR is one in milliseconds."""


class BidsFile(NamedTuple):
    """A file of BIDS by the parts of its name.

    Attributes:
        path: The file.
        folder: Its folder, below the root.
        entities: Such as {sub: 01, run: 1}; run-01 is run-1.
        suffix: What stands before its ending, as `bold`.
        space: The space as fMRIPrep's --output-spaces has it; empty for the grid of the
            run itself.
    """

    path: Path
    folder: Path
    entities: dict[str, str]
    suffix: str
    space: str


ListFolder = Callable[[Path], Sequence[BidsFile]]
"""Lists the files in a folder of one data set, each folder once."""
ShownPicture = tuple[float, float, str]
"""When a picture was shown, for how long (NaN where that is not known), both in the
unit of the table, and what events call it.
"""


class BoldRun(NamedTuple):
    """The files of a run.

    Attributes:
        number: Number of the run within its session.
        series: BOLD: one file, or one a hemisphere.
        events: The nearest table of events.
        sidecars: JSON of the raw run, and of the derived one; the farthest first.
        confounds: Table of confounds.
        images: fMRIPrep's volumes of the same grid by `desc`, as `brain` and
            `aparcaseg`.
        files: All of these.
    """

    number: int
    bold_files: tuple[Path, ...]
    events_file: Path
    sidecars: tuple[Sequence[Path], Sequence[Path]]
    confounds_file: Path | None
    image_files: Mapping[str, Path]
    files: Sequence[Path]


def list_folder(root: Path, folder: Path) -> list[BidsFile]:
    """List the files in a folder below the root, those of the fewest entities first."""
    files = []
    for path in sorted((root / folder).glob("[!.]*_*.*")):
        # sub-01_task-images_run-01_bold.nii.gz: entities, run-01 as run-1, and the
        # suffix bold
        *pairs, suffix = path.name.partition(".")[0].split("_")
        entities = dict(pair.split("-", 1) for pair in pairs if "-" in pair)
        if "run" in entities:
            entities["run"] = entities["run"].lstrip("0")
        # as MNI152NLin2009cAsym:res-2
        details = [
            f":{key}-{entities[key]}"
            for key in ("cohort", "res", "den")
            if key in entities
        ]
        space = "".join([entities["space"], *details]) if "space" in entities else ""
        files.append(BidsFile(path, folder, entities, suffix, space))
    return sorted(files, key=lambda file: len(file.entities))


def find_inherited_files(
    folders: ListFolder, file: BidsFile, ending: str, *suffixes: str
) -> list[Path]:
    """List the files that describe `file` by BIDS's inheritance, nearer ones, which
    override, last.
    """
    return [
        other.path
        for folder in (*reversed(file.folder.parents), file.folder)
        for other in folders(folder)
        if other.suffix in suffixes
        and other.path.name.endswith(ending)
        and other.entities.items() <= file.entities.items()
    ]


def require_one_version(files: Iterable[BidsFile]) -> None:
    """Refuse two files of one acquisition, as of two reconstructions, or packed and
    unpacked.

    Raises:
        BrainhiveError: naming both; or a file in another subject's folder.
    """
    known: dict[frozenset[tuple[str, str]], BidsFile] = {}
    for file in files:
        # of sub-01_old, a copy, sub-01
        label = re.match(r"sub-[a-zA-Z0-9]*", file.folder.parts[0])
        if label is None or label[0] != f"sub-{file.entities.get('sub')}":
            raise BrainhiveError(
                f"{file.path} lies in the folder of another subject",
                "move or rename it",
            )
        acquisition = frozenset(
            item for item in file.entities.items() if item[0] not in VERSIONS
        )
        other = known.setdefault(acquisition, file)
        if other is not file:
            raise BrainhiveError(
                f"{other.path} and {file.path} are of one acquisition, not of two runs",
                "preparation.files=PATTERN that one of them has, or remove one",
            )


def find_runs(
    raw: ListFolder, derived: ListFolder, files: Iterable[BidsFile], ledger: Ledger
) -> list[BoldRun]:
    """Find the files of the runs of a session by their derived BOLD; runs without
    events are left out, and counted.
    """
    # runs with events in the order of their labels, run-10 behind run-9
    labelled = []
    for file in files:
        label = file.entities.get("run", "")
        tables = find_inherited_files(raw, file, ".tsv", "events")
        if tables:
            labelled.append((len(label), label, file.path, file, tables[-1]))
        else:
            ledger.leave_out("runs", "without events.tsv", file.path.name)
    labelled.sort()

    # numbers of the labels, or else counted
    numbers = [int(label) if label.isdecimal() else 0 for _, label, *_ in labelled]
    # runs may differ in other entities, as acq
    if len({*numbers}) < len(numbers) or 0 in numbers:
        numbers = [*range(1, len(labelled) + 1)]

    runs = []
    for number, (*_, file, events) in zip(numbers, labelled, strict=True):
        # the right hemisphere, confounds and JSON of a run
        path = file.path
        described = file._replace(entities={**file.entities, "desc": "confounds"})
        series: tuple[Path, ...] = (path,)
        if path.suffix == ".gii":
            series = path, path.with_name(path.name.replace("_hemi-L_", "_hemi-R_"))
        # the former before 20.2
        confounds = find_inherited_files(
            derived, described, ".tsv", "regressors", "timeseries"
        )[-1:]
        own, further = (
            find_inherited_files(root, file, ".json", "bold") for root in (raw, derived)
        )

        # masks and labels of the same run, space and resolution
        images = {
            image.entities.get("desc", ""): image.path
            for image in derived(file.folder)
            if image.suffix in ("mask", "dseg")
            and image.path.name.endswith(NIFTI_ENDINGS)
            and {**image.entities, "desc": ""} == {**file.entities, "desc": ""}
        }
        table = next(iter(confounds), None)
        paths = [*series, events, *own, *further, *confounds, *images.values()]
        runs.append(
            BoldRun(number, series, events, (own, further), table, images, paths)
        )
    return runs


def read_timing(run: BoldRun) -> tuple[int, float, float, str]:
    """Read when volumes were acquired: key by key from the nearest JSON that has it.

    Returns:
        Number of volumes, TR, time of the first volume, and what says that.

    Raises:
        BrainhiveError: if there is no TR, or the header of the BOLD has another.
    """
    # of several JSON files, later ones override earlier ones key by key
    raw, derived = (
        dict[str, Any](chain(*(documents.read(path).items() for path in paths)))
        for paths in run.sidecars
    )

    # the TR of the JSON, which the header may not contradict
    path = run.bold_files[0]
    tr_s = derived.get("RepetitionTime") or raw.get("RepetitionTime")
    if not _is_time(tr_s) or not tr_s:
        problem = (
            f"{path}: its JSON has no RepetitionTime in "
            f"seconds{f', but {tr_s}' if tr_s else ''}"
        )
        json = f"{path.name.partition('.')[0]}.json"
        raise BrainhiveError(
            problem, f'write {{"RepetitionTime": 2.0}}, with its TR, into {json}'
        )
    volumes, header_s = _read_bold_header(path)
    header_s = header_s / 1000 if header_s > MAX_TR_S else header_s
    # tools that know no TR write 0 or 1
    if header_s > 0 and header_s != 1 and abs(header_s - tr_s) > HEADER_TOLERANCE_S:
        raise BrainhiveError(
            f"{path}: its header has a TR of {header_s:g} s, its JSON one of {tr_s:g} "
            f"s",
            "find out which is right, and correct RepetitionTime or the header",
        )

    # slice-timing correction moves a volume to the middle of its TR
    start_s = derived.get("StartTime")
    source = "StartTime"
    if start_s is None:
        is_corrected = derived.get("SliceTimingCorrected") is True
        start_s, source = (tr_s / 2, "TR/2") if is_corrected else (0.0, "0")
    if not _is_time(start_s):
        raise BrainhiveError(
            f"{path}: its JSON has StartTime {start_s}", "correct it: seconds"
        )
    return volumes, tr_s, start_s, source


def _is_time(value: Any) -> bool:
    """Whether a value of a JSON is a number of seconds, and not of milliseconds."""
    return type(value) in (int, float) and 0 <= value < MAX_TR_S


def _read_bold_header(path: Path) -> tuple[int, float]:
    """Read the number of volumes of BOLD, and the TR in its header, in s or ms; 0 if
    not known.
    """
    image = open_image(path, COPY_HINT)
    with report_damage(path, COPY_HINT, exceptions=(Exception,)):
        if path.suffix == ".gii":
            # an array for each volume, or one [V, T], as nilearn writes it
            first = image.darrays[0].data
            return first.shape[1] if first.ndim == 2 else len(image.darrays), 0.0
        if path.name.endswith(".dtseries.nii"):
            axis = image.header.get_axis(0)
            return image.shape[0], axis.step if axis.unit == "SECOND" else 0.0
        if image.ndim != 4:
            raise BrainhiveError(
                f"{path} is {list(image.shape)}, not [X, Y, Z, T]", COPY_HINT
            )
        return image.shape[3], float(image.header.get_zooms()[3])


def read_bold(run: BoldRun, space: Mask | Mapping[str, int], volumes: int) -> Float32:
    """Read the BOLD [T, V] of the voxels of a mask, or of the vertices of both
    hemispheres.
    """
    if isinstance(space, Mask):
        return space.read_series(run.bold_files[0]).astype(np.float32, copy=False)

    # vertices [T, V] of each hemisphere
    images = [open_image(path, COPY_HINT) for path in run.bold_files]
    with report_damage(run.bold_files[0], COPY_HINT, exceptions=(Exception,)):
        if len(images) == 2:
            # GIFTI: an array for each volume, or one [V, T], as nilearn writes it
            sides = [
                np.stack([volume.data for volume in image.darrays]) for image in images
            ]
            sides = [side if side.ndim == 2 else side[0].T for side in sides]
        else:
            # CIFTI: grayordinates, of which the cortex is read
            values = np.asarray(images[0].dataobj)
            axis = images[0].header.get_axis(1)
            sides = [values[:, axis.name == name] for name in CIFTI_CORTEX.values()]

    # left and right hemisphere side by side
    if [side.shape for side in sides] != [(volumes, size) for size in space.values()]:
        shapes = " and ".join(str([*side.shape]) for side in sides)
        raise BrainhiveError(
            f"{run.bold_files[0]} has {shapes}, other runs "
            f"{[*space.values()]} vertices",
            COPY_HINT,
        )
    return np.concatenate(sides, 1, dtype=np.float32)


def read_events(
    path: Path, stimulus: str, conditions: Mapping[str, Any], bold_file: Path
) -> tuple[list[ShownPicture], Counter[str]]:
    """Read the pictures of a run in the order of time.

    Args:
        path: The table.
        stimulus: The column, or template, that names pictures.
        where: Columns, and the value or values that pictures have in them.
        series: The BOLD of the run.

    Returns:
        The pictures, and the number of other events, by reason.

    Raises:
        BrainhiveError: if a column is missing, a time is no number, or two pictures
            begin at once.
    """
    # the columns that the recipe names
    columns, rows = read_table(path)
    if absent := [name for name in ("onset", *conditions) if name not in columns]:
        way = "preparation.stimulus=COLUMN, preparation.where={COLUMN: VALUE}"
        raise BrainhiveError(
            f"{path} has no column {absent[0]}", f"it has {', '.join(columns)}: {way}"
        )
    stimulus = name_events(path, columns, rows, stimulus, bold_file)
    wanted = {
        column: {
            *map(_normalise_value, values if isinstance(values, list) else [values])
        }
        for column, values in conditions.items()
    }

    # events with these values and a picture, and the reason why others are none
    pictures = list[ShownPicture]()
    dropped = Counter[str]()
    for line, row in enumerate(rows, 2):
        kind = f" (trial_type {row['trial_type']})" if "trial_type" in columns else ""
        other = [
            name for name in wanted if _normalise_value(row[name]) not in wanted[name]
        ]
        if other:
            dropped[f"events whose {other[0]} is {row[other[0]]}"] += 1
        elif row[stimulus] in EMPTY_CELLS:
            dropped[f"events without {stimulus}{kind}"] += 1
        elif row["onset"] in EMPTY_CELLS:
            dropped["events of pictures without an onset"] += 1
        else:
            onset_s, duration_s = (
                read_number(row.get(name, "")) for name in ("onset", "duration")
            )
            if np.isnan(onset_s):
                raise BrainhiveError(
                    f"{path}, line {line}: onset {row['onset']}",
                    "write seconds, or n/a",
                )
            pictures.append((onset_s, duration_s, row[stimulus]))

    # two pictures at once would have one response
    pictures.sort()
    for picture, later in pairwise(pictures):
        if picture[0] == later[0]:
            raise BrainhiveError(
                f"{path}: two pictures begin at {later[0]:g}",
                "preparation.where={COLUMN: VALUE} chooses one, or correct the table",
            )
    return pictures, dropped


def find_onset_unit(pictures: Sequence[tuple[float, float, float]], where: str) -> str:
    """Find the unit of onsets by the runs that they must lie in.

    Args:
        pictures: Onset of each picture, and TR and duration of its run in seconds.
        where: What they are of, for errors.

    Returns:
        `s`, `ms` or `volumes`; `s` if none fits.

    Raises:
        BrainhiveError: if two units fit.
    """
    # of each picture, the share of its run after which it begins
    onsets, trs_s, ends_s = np.array(pictures or [(0, 1, 1)]).T
    shares = {"s": onsets / ends_s, "ms": onsets / 1000 / ends_s}
    if (onsets == np.rint(onsets)).all() and (trs_s != 1).all():
        shares["volumes"] = onsets * trs_s / ends_s
    # seconds are usual, though some pictures may begin after a run that was cut short
    fitting = {
        f"in {unit}": unit
        for unit, share in shares.items()
        if 0.5 <= share.max() < 1 or (unit == "s" and np.median(share) < 1)
    }
    way = "preparation.onset_unit=s, or volumes"
    return choose_only(fitting, f"the onsets of {where}", way) or "s"


def _normalise_value(value: object) -> str:
    """Write numbers alike: 1, 01 and 1.0."""
    number = read_number(value)
    return NOT_AVAILABLE.sub("n/a", str(value)) if np.isnan(number) else str(number)


def read_confounds(
    run: BoldRun, groups: Sequence[str], volumes: int, noted: Counter[str]
) -> dict[str, Float64]:
    """Read the confounds of a run.

    Args:
        run: Its files.
        groups: `GROUPS`, or columns, which may have wildcards.
        volumes: T.
        noted: Counts of unusual facts, which are added to.

    Returns:
        [T] by column, finite.

    Raises:
        MissingData: if there is no table.
        BrainhiveError: if a column is not there, or a value is missing behind the first
            row.
    """
    if not groups:
        return {}
    path = run.confounds_file
    if path is None:
        raise MissingData(
            f"{run.bold_files[0]} has no desc-confounds_timeseries.tsv next to it",
            "preparation.confounds=[] does without",
        )
    columns, rows = read_table(path)
    if len(rows) != volumes:
        raise BrainhiveError(
            f"{path} has {len(rows)} rows for {volumes} volumes", COPY_HINT
        )

    # columns of each group
    names: dict[str, None] = {}
    for group in groups:
        for pattern in CONFOUND_COLUMNS.get(group, (group,)):
            matches = sorted(match_pattern(columns, pattern))
            if not matches and group not in OPTIONAL_CONFOUNDS:
                there = dict.fromkeys(re.sub(r"\d+$", "*", name) for name in columns)
                raise BrainhiveError(
                    f"{path} has no column {pattern} of the confounds {group}",
                    f"preparation.confounds=[…] of those there: {', '.join(there)}",
                )
            names |= dict.fromkeys(matches)

    # their values [T]; derivatives have none in the first row, and a column of zeros
    # explains nothing
    values = {}
    for name in names:
        column = np.array([read_number(row[name]) for row in rows])
        if rows[0][name] in EMPTY_CELLS:
            noted["confounds with n/a in the first row, taken as 0"] += 1
            column[0] = 0
        if not np.isfinite(column).all():
            raise BrainhiveError(
                f"{path}, column {name}: not all of its rows are numbers",
                "leave it out of preparation.confounds, or correct it",
            )
        if column.any():
            values[name] = column
        else:
            noted["confounds that are zero throughout, left out"] += 1
    return values
