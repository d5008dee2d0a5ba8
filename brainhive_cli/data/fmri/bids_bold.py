"""Files of BOLD runs in BIDS: fMRIPrep's derivatives, raw events and sidecars."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import filter as match_pattern
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from brainhive_cli.core.base import (
    BrainhiveError,
    Float32,
    Float64,
    MissingData,
    choose_only,
)
from brainhive_cli.core.files import documents, report_damage
from brainhive_cli.data.files import BidsIndex, read_entities
from brainhive_cli.data.fmri.volumes import (
    CIFTI_CORTEX,
    Mask,
    open_image,
)
from brainhive_cli.data.recordings import (
    EMPTY_CELLS,
    Account,
    RowKinds,
    name_events,
    read_kinds,
    read_number,
    read_table,
    select_rows,
)

COPY_HINT = "copy it again, or create it again with fMRIPrep"
BOLD_PATTERNS = (
    "*_bold.nii.gz",
    "*_bold.nii",
    "*_hemi-L_*bold.func.gii",
    "*_bold.dtseries.nii",
)
"""fMRIPrep's names of volumes, surfaces (the right hemisphere lies next to the left)
and grayordinates.
"""
MAX_TR_S = 100
"""Largest TR in seconds. A larger TR is in milliseconds."""


ShownPicture = tuple[float, float, str, RowKinds]
"""Onset, duration, name and kinds of a picture in events.tsv. An unknown duration is
NaN.
"""


class BoldRun(NamedTuple):
    """Files of a BOLD run.

    Attributes:
        number: Number within the session.
        bold_files: BOLD, with a file for each hemisphere of a surface.
        events_file: The nearest events.tsv.
        sidecars: Sidecars of the raw and the derived run, the nearest last.
        confounds_file: Table of confounds.
        image_files: fMRIPrep's images on the same grid, by `desc`, such as `brain` and
            `aparcaseg`.
        files: All of these files.
    """

    number: int
    bold_files: tuple[Path, ...]
    events_file: Path
    sidecars: tuple[Sequence[Path], Sequence[Path]]
    confounds_file: Path | None
    image_files: Mapping[str, Path]
    files: Sequence[Path]


def read_space(path: Path) -> str:
    """Read a space as in fMRIPrep's --output-spaces, or "" for the grid of the run.

    The space of `sub-01_space-fsLR_den-91k_bold.dtseries.nii` is `fsLR:den-91k`.
    """
    entities = read_entities(path)
    space = entities.get("space", "")
    # Entities that fMRIPrep's --output-spaces adds to a space.
    for key in ("cohort", "res", "den"):
        if space and key in entities:
            space += f":{key}-{entities[key]}"
    return space


def find_runs(
    raw: BidsIndex, derived: BidsIndex, paths: Iterable[Path], account: Account
) -> list[BoldRun]:
    """Find the files of the runs of a session, in the order of their labels.

    Args:
        raw: Raw data set.
        derived: Data set of fMRIPrep.
        paths: Preprocessed BOLD of the session.
        account: Counts runs without events, which are left out.

    Raises:
        BrainhiveError: if a file lies in the folder of another subject.
    """
    # run-10 follows run-9
    labelled_files = []
    for path in paths:
        entities = read_entities(path)
        relative_path = path.relative_to(derived.root)
        # refuse files in a copy of a folder, such as sub-01_old
        folder = re.match(r"sub-[a-zA-Z0-9]*", relative_path.parts[0])
        if folder is None or folder[0] != f"sub-{entities.get('sub')}":
            raise BrainhiveError(
                f"{path} lies in the folder of another subject",
                "move or rename the file",
            )
        label = entities.get("run", "").lstrip("0")
        tables = raw.find_inherited(relative_path, "_events.tsv")
        if tables:
            labelled_files.append((len(label), label, path, tables[-1]))
        else:
            account.set_aside("runs", "without events.tsv", path.name)
    labelled_files.sort()

    # number runs whose labels are not unique numbers, as runs may differ in `acq`
    labels = [label for _, label, *_ in labelled_files]
    numbers = [int(label) if label.isdecimal() else 0 for label in labels]
    if len(set(numbers)) < len(numbers) or 0 in numbers:
        numbers = list(range(1, len(labelled_files) + 1))

    runs = []
    for number, labelled_file in zip(numbers, labelled_files, strict=True):
        _, _, path, events_file = labelled_file
        relative_path = path.relative_to(derived.root)
        bold_files: tuple[Path, ...] = (path,)
        if path.suffix == ".gii":
            right_name = path.name.replace("_hemi-L_", "_hemi-R_")
            bold_files = (path, path.with_name(right_name))
        # Tables of confounds are named differently before and since fMRIPrep 20.2.
        confounds = derived.find_inherited(
            relative_path,
            "_desc-confounds_regressors.tsv",
            "_desc-confounds_timeseries.tsv",
        )[-1:]
        raw_sidecars = raw.find_inherited(relative_path, "_bold.json")
        derived_sidecars = derived.find_inherited(relative_path, "_bold.json")

        # masks and segmentations of the same run, space and resolution
        image_files = {}
        run_name = re.sub(r"(_desc-[^_]+)?_bold\..+", "", path.name)
        for image in derived.list_files(relative_path.parent):
            match = re.fullmatch(
                r"(?:_desc-([^_]+))?_(?:mask|dseg)\.nii(?:\.gz)?",
                image.name.removeprefix(run_name),
            )
            if match:
                image_files[match[1] or ""] = image
        files = list(bold_files) + [events_file] + raw_sidecars + derived_sidecars
        files += confounds + list(image_files.values())
        runs.append(
            BoldRun(
                number=number,
                bold_files=bold_files,
                events_file=events_file,
                sidecars=(raw_sidecars, derived_sidecars),
                confounds_file=confounds[0] if confounds else None,
                image_files=image_files,
                files=files,
            )
        )
    return runs


class RunTiming(NamedTuple):
    """Times of the volumes of a run.

    Attributes:
        volumes: Number of volumes.
        tr_s: Repetition time.
        start_s: Time of the first volume.
        source: Source of this time: `StartTime`, `TR/2` or `0`.
    """

    volumes: int
    tr_s: float
    start_s: float
    source: str

    @property
    def end_s(self) -> float:
        """End of the run."""
        return self.volumes * self.tr_s


def read_timing(run: BoldRun) -> RunTiming:
    """Read the times of volumes from the sidecars and the header of a run.

    Raises:
        BrainhiveError: if TR or StartTime is no number of seconds, or the header has
            another TR.
    """
    # nearer sidecars override others key by key
    raw_sidecar, derived_sidecar = map(_merge_sidecars, run.sidecars)
    path = run.bold_files[0]
    tr_s = derived_sidecar.get("RepetitionTime") or raw_sidecar.get("RepetitionTime")
    if not _is_seconds(tr_s) or not tr_s:
        value = f", but {tr_s}" if tr_s else ""
        name = f"{path.name.partition('.')[0]}.json"
        raise BrainhiveError(
            f"{path}: its sidecar has no RepetitionTime in seconds{value}",
            f'write {{"RepetitionTime": 2.0}} with the TR of the run into {name}',
        )

    # programs that do not know the TR write 0 or 1 into the header
    n_volumes, header_tr_s = _read_bold_header(path)
    if header_tr_s > MAX_TR_S:
        header_tr_s /= 1000
    is_known = header_tr_s > 0 and header_tr_s != 1
    # Largest rounding error of the TR in a header, which holds float32 or milliseconds.
    header_tolerance_s = 1e-3
    if is_known and abs(header_tr_s - tr_s) > header_tolerance_s:
        raise BrainhiveError(
            f"{path}: its header has a TR of {header_tr_s:g} s, its sidecar a TR of "
            f"{tr_s:g} s",
            "find out which is right, and correct RepetitionTime or the header",
        )

    # slice-timing correction moves a volume to the middle of its TR
    start_s = derived_sidecar.get("StartTime")
    source = "StartTime"
    if start_s is None:
        is_corrected = derived_sidecar.get("SliceTimingCorrected") is True
        start_s, source = (tr_s / 2, "TR/2") if is_corrected else (0.0, "0")
    if not _is_seconds(start_s):
        raise BrainhiveError(
            f"{path}: its sidecar has StartTime {start_s}",
            "correct StartTime, which is in seconds",
        )
    return RunTiming(n_volumes, tr_s, start_s, source)


def _merge_sidecars(paths: Sequence[Path]) -> dict[str, Any]:
    """Read sidecars, of which later ones override earlier ones."""
    values: dict[str, Any] = {}
    for path in paths:
        values.update(documents.read(path))
    return values


def _is_seconds(value: Any) -> bool:
    """Return True if a value is a number of seconds, and not of milliseconds."""
    return type(value) in (int, float) and 0 <= value < MAX_TR_S


def _read_bold_header(path: Path) -> tuple[int, float]:
    """Read the number of volumes, and the TR in s or ms, or 0 if unknown."""
    img = open_image(path, COPY_HINT)
    with report_damage(path, COPY_HINT, exceptions=(Exception,)):
        if path.suffix == ".gii":
            # an array for each volume, or a single array [V, T], as nilearn writes it
            values = img.darrays[0].data
            return values.shape[1] if values.ndim == 2 else len(img.darrays), 0.0
        if path.name.endswith(".dtseries.nii"):
            axis = img.header.get_axis(0)
            return img.shape[0], axis.step if axis.unit == "SECOND" else 0.0
        if img.ndim != 4:
            raise BrainhiveError(
                f"{path} is {list(img.shape)}, not [X, Y, Z, T]", COPY_HINT
            )
        return img.shape[3], float(img.header.get_zooms()[3])


def read_bold(run: BoldRun, space: Mask | Mapping[str, int], n_volumes: int) -> Float32:
    """Read the BOLD [T, V] of voxels or vertices.

    Args:
        run: Files of the run.
        space: Mask of the voxels, or number of vertices of each hemisphere.
        n_volumes: Expected number of volumes T.

    Raises:
        BrainhiveError: if a file has another shape.
    """
    path = run.bold_files[0]
    if isinstance(space, Mask):
        return space.read_series(path).astype(np.float32, copy=False)

    images = [open_image(file, COPY_HINT) for file in run.bold_files]
    hemispheres = []  # [T, V] each
    with report_damage(path, COPY_HINT, exceptions=(Exception,)):
        if len(images) == 2:
            # GIFTI has an array for each volume, or a single array [V, T]
            for img in images:
                values = np.stack([volume.data for volume in img.darrays])
                hemispheres.append(values if values.ndim == 2 else values[0].T)
        else:
            # grayordinates outside the cortex are left out
            values = np.asarray(images[0].dataobj)
            axis = images[0].header.get_axis(1)
            for name in CIFTI_CORTEX.values():
                hemispheres.append(values[:, axis.name == name])

    shapes = [values.shape for values in hemispheres]
    if shapes != [(n_volumes, size) for size in space.values()]:
        descriptions = " and ".join(str(list(shape)) for shape in shapes)
        raise BrainhiveError(
            f"{path} has {descriptions}, but {n_volumes} volumes of "
            f"{list(space.values())} vertices are expected",
            COPY_HINT,
        )
    return np.concatenate(hemispheres, 1, dtype=np.float32)


def read_events(
    path: Path, stimulus: str, conditions: Mapping[str, Any], bold_file: Path
) -> tuple[list[ShownPicture], Counter[str]]:
    """Read the pictures of a run in the order of time.

    Args:
        path: The events.tsv.
        stimulus: Column or template that names pictures.
        conditions: Value or list of values of pictures by column, such as
            {"trial_type": "image"}.
        bold_file: BOLD of the run, whose entities a template may use.

    Returns:
        The pictures, and the number of other events by reason.

    Raises:
        BrainhiveError: if a column is missing, an onset is no number, or two pictures
            begin at the same time.
    """
    columns, all_rows = read_table(path)
    if "onset" not in columns:
        raise BrainhiveError(
            f"{path} has no column onset", f"it has: {', '.join(columns)}"
        )
    labels = read_entities(bold_file)
    rows, dropped = select_rows(path, columns, all_rows, conditions, labels)
    stimulus = name_events(path, columns, rows, stimulus, bold_file)

    # keep events with a picture, and count the others by reason
    pictures = list[ShownPicture]()
    for row in rows:
        kind = f" (trial_type {row['trial_type']})" if "trial_type" in columns else ""
        if row[stimulus] in EMPTY_CELLS:
            dropped[f"events without {stimulus}{kind}"] += 1
        elif row["onset"] in EMPTY_CELLS:
            dropped["events of pictures without an onset"] += 1
        else:
            onset = read_number(row["onset"])
            if np.isnan(onset):
                raise BrainhiveError(
                    f"{path}: onset {row['onset']} is no number",
                    "write seconds, or n/a",
                )
            duration = read_number(row.get("duration", ""))
            pictures.append((onset, duration, row[stimulus], read_kinds(row)))

    # two pictures at the same time would have the same response
    pictures = sorted(set(pictures))
    for picture, next_picture in pairwise(pictures):
        if picture[0] == next_picture[0]:
            raise BrainhiveError(
                f"{path}: two pictures begin at {picture[0]:g}",
                "choose events with preparation.where={COLUMN: VALUE}, or correct the "
                "table",
            )
    return pictures, dropped


def find_onset_unit(pictures: Sequence[tuple[float, float, float]], source: str) -> str:
    """Find the unit with which onsets lie inside their runs.

    Args:
        pictures: Onset of each picture, and TR and duration of its run in seconds.
        source: Description of the pictures for errors.

    Returns:
        `s`, `ms` or `volumes`. `s` without pictures, or if no unit fits.

    Raises:
        BrainhiveError: if two units fit, or only volumes.
    """
    if not pictures:
        return "s"
    # onsets as shares of the duration of the run
    onsets, trs_s, ends_s = np.array(pictures).T
    shares = {"s": onsets / ends_s, "ms": onsets / 1000 / ends_s}
    if (onsets == np.rint(onsets)).all() and (trs_s != 1).all():
        shares["volumes"] = onsets * trs_s / ends_s

    # BIDS counts in seconds. Other units are read only if seconds fill the run less
    largest = {unit: share.max() for unit, share in shares.items()}
    fits = [unit for unit, share in largest.items() if 0.5 <= share < 1]
    if fits and max(fits, key=largest.__getitem__) == "s":
        return "s"
    # seconds also fit if a few pictures begin after a run that was cut short, and
    # volumes are never guessed
    units = {f"in {unit}": unit for unit in fits}
    if "volumes" in fits or np.median(shares["s"]) < 1:
        units = {"in s": "s"} | units
    hint = "preparation.onset_unit=s, or volumes"
    return choose_only(units, f"the onsets of {source}", hint) or "s"


def read_confounds(
    run: BoldRun, groups: Sequence[str], n_volumes: int
) -> tuple[dict[str, Float64], Counter[str]]:
    """Read the confounds of a run.

    Args:
        run: Files of the run.
        groups: Groups of confounds, such as `motion`, or columns, which may have
            wildcards.
        n_volumes: Expected number of volumes T.

    Returns:
        Finite values [T] by column, without columns of zeros, and counts of unusual
        facts.

    Raises:
        MissingData: if there is no table.
        BrainhiveError: if the table lacks a column, a row, or a value after the first
            row.
    """
    noted = Counter[str]()
    if not groups:
        return {}, noted
    path = run.confounds_file
    if path is None:
        raise MissingData(
            f"{run.bold_files[0]} has no desc-confounds_timeseries.tsv next to it",
            "copy it from fMRIPrep, or use none: preparation.confounds=[]",
        )
    columns, rows = read_table(path)
    if len(rows) != n_volumes:
        raise BrainhiveError(
            f"{path} has {len(rows)} rows for {n_volumes} volumes", COPY_HINT
        )

    # columns of each group, without duplicates
    names: dict[str, None] = {}
    # fMRIPrep's columns of each group of confounds, for CompCor the first five.
    confound_columns: Mapping[str, Sequence[str]] = {
        "motion": ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z"),
        "cosine": ("cosine*",),
        "non_steady": ("non_steady_state_outlier*",),
        "motion_outlier": ("motion_outlier*",),
        "a_comp_cor": ("a_comp_cor_0[0-4]",),
        "t_comp_cor": ("t_comp_cor_0[0-4]",),
    }
    for group in groups:
        for pattern in confound_columns.get(group, (group,)):
            matches = sorted(match_pattern(columns, pattern))
            # Groups without a column in short runs, or in runs without such volumes.
            if not matches and group not in ("cosine", "non_steady", "motion_outlier"):
                patterns = dict.fromkeys(re.sub(r"\d+$", "*", name) for name in columns)
                raise BrainhiveError(
                    f"{path} has no column {pattern} of the confounds {group}",
                    f"choose preparation.confounds=[…] from {', '.join(patterns)}",
                )
            names |= dict.fromkeys(matches)

    confounds = {}
    for name in names:
        values = np.array([read_number(row[name]) for row in rows])
        # derivatives have no value in the first row
        if rows[0][name] in EMPTY_CELLS:
            noted["confounds with n/a in the first row, taken as 0"] += 1
            values[0] = 0
        if not np.isfinite(values).all():
            raise BrainhiveError(
                f"{path}, column {name}: not all of its rows are numbers",
                "leave it out of preparation.confounds, or correct it",
            )
        if values.any():
            confounds[name] = values
        else:
            noted["confounds that are zero throughout, left out"] += 1
    return confounds, noted
