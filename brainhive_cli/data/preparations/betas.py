"""Single-trial betas that a lab estimated, with tables of their pictures."""

import math
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import Field

from brainhive_cli.core.base import (
    Array,
    BrainhiveError,
    Int64,
    MissingData,
    choose_only,
)
from brainhive_cli.core.files import matches_pattern, report_damage, walk
from brainhive_cli.core.recipes import Paths
from brainhive_cli.data.files import (
    ChosenSessions,
    SubjectNumbers,
    describe_labels,
    get_session_numbers,
    group_by_session,
    hdf5,
    number_sessions,
    number_subjects,
    pickles,
    read_label,
    read_session,
    summarise_names,
)
from brainhive_cli.data.fmri import (
    CIFTI_ENDINGS,
    NIFTI_ENDINGS,
    SHAPE_HINT,
    BetaSteps,
    Mask,
    PublishedBetas,
    SessionTrials,
    Subject,
    Thresholds,
    Trial,
    find_region_files,
    find_vertices,
    open_image,
    order_betas,
    read_labels,
    read_regions,
)
from brainhive_cli.data.media import sort_by_number
from brainhive_cli.data.recordings import (
    EMPTY_CELLS,
    Dispute,
    StimuliKey,
    build_stimuli,
    cached_method,
    match_pictures,
    read_table,
)

HDF5_ENDINGS = (".h5", ".hdf5", ".mat")
"""Endings of HDF5 files. MATLAB writes HDF5 with -v7.3."""
FILE_ENDINGS = {
    "betas": NIFTI_ENDINGS + HDF5_ENDINGS + (".npy", ".npz"),
    "trials": (".csv", ".tsv"),
    "mask": NIFTI_ENDINGS,
}
"""File endings by kind of file."""
SourceFiles = tuple[Path, ...]
"""Files of betas in natural order, such as a file, or one per run or trial."""
RUN = re.compile(r"(?<![a-z])run[-_]?(\d+)", re.IGNORECASE)
"""Run in the name of a table."""
TableLine = dict[str, str]
"""Line of a table, by column."""
SAVE_HINT = "save it again, or correct preparation.betas"
MASK_HINT = "preparation.mask=PATTERN of a mask on the grid of the betas"


class ArrayLayout(NamedTuple):
    """Axes of an array of betas.

    Attributes:
        is_trials_last: True if trials are the last axis, and not the first.
        is_reversed: True if the other axes are [Z, Y, X], as MATLAB writes them.
        n_voxels: Number of voxels of a trial.
        has_grid: True if the array holds volumes.
    """

    is_trials_last: bool
    is_reversed: bool
    n_voxels: int
    has_grid: bool


class Config(BetaSteps):
    """Single-trial betas in NIfTI, HDF5 or NumPy, and a table of their pictures.

    The files are called `sub-01_ses-01_betas.nii.gz`, `sub-01_ses-01_trials.csv` and
    `sub-01_mask.nii.gz`. A file without `ses` in its path holds all sessions.
    """

    root: str = Field(
        "", description="folder of the files; default: betas below paths.data"
    )
    subject_numbers: SubjectNumbers = Field({})
    sessions: ChosenSessions = Field(None, exclude_if=lambda sessions: not sessions)
    betas: str = Field(
        "*_betas.*",
        description="pattern of the files: NIfTI in 4-D or one volume per trial, "
        "CIFTI, or arrays; the files of a session are joined",
    )
    key: str = Field(
        "betas",
        description="name of the array in HDF5, .npz or a dict in .npy; by default "
        "GLMsingle's betasmd and modelmd are found, too",
    )
    trials: str = Field(
        "*_trials.*",
        description="pattern of the tables (CSV, TSV): a line per beta, with columns "
        "picture, session and run",
    )
    column: str = Field("picture", description="column with the names of the pictures")
    mask: str = Field(
        "sub-??_mask.nii*",
        description="pattern of NIfTI masks or atlases; voxels above 0 are kept",
    )
    regions: dict[str, str] = Field(
        {},
        description="masks and atlases, relative to root or home, such as "
        "regions.V1=sub-{subject:02d}_V1.nii.gz",
    )
    thresholds: Thresholds = Field({}, exclude_if=lambda thresholds: not thresholds)
    stimuli: StimuliKey = "image-folder"

    def build(self, paths: Paths) -> "OwnBetas":
        """Create the preparation without reading a file."""
        return OwnBetas(
            self, paths.dataset("betas", self.root), stimuli=build_stimuli(self, paths)
        )


TINY = Config()


@dataclass(frozen=True)
class OwnBetas(PublishedBetas):
    """The betas below a folder."""

    @property
    def subjects(self) -> tuple[int, ...]:
        """Subjects with betas, ascending."""
        return tuple(sorted(self._files["betas"]))

    @cached_method
    def open_subject(self, subject: int) -> Subject:
        """Read the mask, regions and tables of a subject, and check them."""
        files = self._find_files("betas", subject)
        tables = self._find_files("trials", subject)
        mask = self._open_mask(subject, files)

        # a file without `ses` in its path holds all sessions
        shared_source = None
        for source in files.values():
            if shared_source is None and not read_session(source[0], self.root):
                shared_source = source
        trials, session_rows, source_lines = self._read_trials(
            files, tables, shared_source
        )

        # all files of a subject have the same voxels
        read_rows = {}
        orders = {}
        widths = []
        for source, lines in source_lines.items():
            layout, counts = self._find_layout(source, len(lines), mask)
            orders[source] = self._order_rows(subject, source, lines, counts)
            read_rows[source] = partial(self._read_rows, source, counts, layout, mask)
            widths.append(layout.n_voxels)
        if len(set(widths)) > 1:
            raise BrainhiveError(
                f"the files of subject {subject} differ in their number of voxels: "
                f"{', '.join(map(str, widths))}",
                "export all sessions of a subject with the same voxels",
            )

        # the mask may be an atlas with regions
        first_path = next(iter(source_lines))[0]
        label = read_label(first_path, self.root).removeprefix("sub-")
        region_files = {} if mask is None else {"mask": [mask.path]}
        region_files |= find_region_files(
            self.config.regions, subject, self.root, label
        )
        space = mask or find_vertices([first_path], SAVE_HINT) or {"": widths[0]}
        voxels, self.file_kinds[subject] = read_regions(
            region_files, space, self.config.thresholds
        )
        regions = dict(voxels.regions)
        regions.pop("mask", None)  # a mask without labels is no region

        readers = {}
        for session, rows in session_rows.items():
            source = shared_source or files[session]
            readers[session] = partial(read_rows[source], orders[source][rows])

        # all files that the store depends on
        paths: list[Path] = []
        for group in chain(files.values(), tables.values(), region_files.values()):
            paths += group
        paths += filter(Path.is_file, self.stimuli.lists)
        return Subject(
            files=paths,
            voxels=replace(voxels, regions=regions),
            width=widths[0],
            trials=trials,
            read_betas=lambda session: readers[session](),
        )

    def list_notes(self, subjects: Sequence[int]) -> list[str]:
        """List subjects whose labels are not their numbers."""
        return describe_labels(
            self._files["betas"], self.root, subjects, self.config.subject_numbers
        )

    def find_left_out(self, subjects: Sequence[int]) -> Collection[str]:
        """Find labels of people without betas, and count files that are not read."""
        read_paths = set[Path]()
        for subject in subjects:
            with suppress(BrainhiveError):
                read_paths.update(self.files(subject))
        labels = set[str]()
        for session_paths in self._files["betas"].values():
            labels |= set(map(self._read_label, chain(*session_paths.values())))
        left_out = set[str]()
        for path in sorted(self._paths.difference(read_paths)):
            label = ""
            with suppress(BrainhiveError):
                label = self._read_label(path)
            if label and label not in labels:
                left_out.add(label)
            else:
                self.account.set_aside("files", "not read", path.name)
        return left_out

    def _read_label(self, path: Path) -> str:
        """Read the label of a subject: sub-7 is sub-07, if the recipe has neither."""
        label = read_label(path, self.root)
        is_numbered = label in self.config.subject_numbers
        # Zeros before a number.
        return label if is_numbered else re.sub(r"(?<!\d)0+(?=\d)", "", label)

    def sessions(self, subject: int) -> Sequence[int]:
        """List the recipe's sessions, or all sessions with trials.

        Raises:
            MissingData: if a session of the recipe has no trials.
        """
        recorded = super().sessions(subject)
        # `_files` has selected labels such as "pre", so select numbers here
        numbers = get_session_numbers(self.config.sessions) or recorded
        absent = set(numbers) - set(recorded)
        if absent:
            raise MissingData(
                f"subject {subject} has no trials of session {min(absent)} in "
                f"{self.root}",
                "choose recorded sessions: "
                f"preparation.sessions={','.join(map(str, recorded))}",
            )
        return sorted(numbers)

    def list_trials(self, subject: int, session: int) -> SessionTrials:
        """Match the trials of a session with pictures."""
        trials = super().list_trials(subject, session)
        names = trials.image_ids
        image_ids, splits, dropped = match_pictures(names, self.stimuli, self._pictures)
        unmatched = set()
        for name, image_id in zip(names, image_ids, strict=True):
            if name and not image_id:
                unmatched.add(name)
        return SessionTrials(
            image_ids, splits, trials.runs, dropped, unmatched=sorted(unmatched)
        )

    @cached_property
    def _paths(self) -> set[Path]:
        """Paths of all files below the root."""
        names = [name for name, entry in walk(self.root) if not entry.is_dir()]
        return {self.root / name for name in names}

    @cached_property
    def _files(self) -> Mapping[str, Mapping[int, Mapping[int, list[Path]]]]:
        """Files by kind, subject and session."""
        kind_paths: dict[str, list[Path]] = {}
        for kind, endings in FILE_ENDINGS.items():
            pattern = getattr(self.config, kind)
            kind_paths[kind] = []
            for path in sorted(self._paths):
                name = path.relative_to(self.root).as_posix()
                is_kind = name.lower().endswith(endings)
                if is_kind and matches_pattern(name, pattern):
                    kind_paths[kind].append(path)

        # number the sessions of betas and tables together
        labels = {
            read_session(path, self.root)
            for path in kind_paths["betas"] + kind_paths["trials"]
        }
        sessions = self.config.sessions
        # without sessions in paths, numbers select lines of the tables
        if labels == {""} and get_session_numbers(sessions):
            sessions = None
        session_numbers = number_sessions(labels - {""}, sessions)
        if session_numbers is not None:
            session_numbers |= {"": 1}

        # sub-7 is sub-07, but sub-07A and sub-07B need `subject_numbers`
        label_paths = dict[str, Path]()
        subject_numbers = self.config.subject_numbers
        for path in chain.from_iterable(kind_paths.values()):
            label_paths.setdefault(self._read_label(path), path)
        number_subjects(label_paths, subject_numbers)

        # a mask serves all sessions
        files = {}
        for kind, paths in kind_paths.items():
            files[kind] = group_by_session(
                self.root,
                paths,
                subject_numbers,
                None if kind == "mask" else session_numbers,
                allows_versions=True,
            )
        return files

    def _find_files(self, kind: str, subject: int) -> dict[int, SourceFiles]:
        """Find the files of a subject's betas, trials or masks of each session."""
        files = self._files[kind].get(subject, {})
        pattern = getattr(self.config, kind)
        if not files:
            heads = [path for path in self._paths if path.suffix.upper() == ".HEAD"]
            afni_hint = ""
            if heads and kind == "betas":
                afni_hint = f"convert AFNI's files: 3dAFNItoNIFTI {min(heads)}"
            raise MissingData(
                f"there are no {kind} of subject {subject} in {self.root}, in files "
                f"called {pattern} ({', '.join(FILE_ENDINGS[kind])})",
                afni_hint
                or "name their folder (preparation.root=FOLDER) or files "
                f"(preparation.{kind}=PATTERN)",
            )
        sources = {}
        for session, paths in files.items():
            if len(paths) > 1 and kind == "mask":
                raise BrainhiveError(
                    f"{paths[0]} and {paths[1]} are masks of the same subject",
                    "keep one: preparation.mask=PATTERN",
                )
            sources[session] = tuple(sort_by_number(paths))
        return sources

    def _open_mask(self, subject: int, files: Mapping[int, SourceFiles]) -> Mask | None:
        """Open a subject's mask, or return None for arrays without a mask."""
        needs_mask = any(_is_volume(source[0]) for source in files.values())
        if not needs_mask and not self._files["mask"]:
            return None
        source = next(iter(self._find_files("mask", subject).values()))
        threshold = self.config.thresholds.get("mask")
        return Mask.open(source[0], MASK_HINT, threshold=threshold)

    def _read_trials(
        self,
        files: Mapping[int, SourceFiles],
        tables: Mapping[int, SourceFiles],
        shared_source: SourceFiles | None,
    ) -> tuple[list[Trial], dict[int, list[int]], dict[SourceFiles, list[TableLine]]]:
        """Read the tables of a subject.

        Args:
            files: Betas by session.
            tables: Tables by session.
            shared_source: Betas of all sessions, or None.

        Returns:
            Trials, the lines of each session among those of its betas, and the lines
            of each source.
        """
        # a single table of several sessions needs a session in each line
        columns = [self.config.column]
        if len(tables) == 1 < len(files):
            columns.append("session")
        if self.config.zscore == "run":
            columns.append("run")
        sessions = get_session_numbers(self.config.sessions)

        trials: list[Trial] = []
        session_rows: dict[int, list[int]] = {}
        source_lines = defaultdict[SourceFiles, list[TableLine]](list)
        session_tables = []
        for session, paths in sorted(tables.items()):
            session_tables += [(session, path) for path in paths]
        for table_session, table in session_tables:
            header, lines = read_table(table)
            # the name of a table may say its run, and which betas it lists
            table_run = RUN.search(table.name)
            for line in lines:
                if table_run:
                    line.setdefault("run", table_run[1])
                line["file"] = table.name.rpartition("_")[0]
            if not lines or not set(columns) <= set(lines[0]):
                raise BrainhiveError(
                    f"{table} needs the columns {' and '.join(columns)}. It has "
                    f"{len(lines)} lines with {', '.join(header) or 'no column'}",
                    "name the column of the pictures: preparation.column=NAME",
                )
            for line_number, line in enumerate(lines, 2):
                position = f"{table}, line {line_number}"
                session = _read_number(line, "session", table_session, position)
                # the table of a session lists no other session
                if len(tables) > 1 and session != table_session:
                    raise BrainhiveError(
                        f"{position} names session {session}, but the name of its file "
                        f"session {table_session}",
                        "correct the line, or rename the file",
                    )
                source = shared_source or files.get(session)
                if source is None and sessions and session not in sessions:
                    continue
                if source is None:
                    raise MissingData(
                        f"{position} names session {session}, but {self.root} has no "
                        "betas of this session",
                        "copy them, or delete the lines of this session",
                    )
                # a line without a picture has a beta, too
                picture = line[self.config.column]
                name = "" if picture in EMPTY_CELLS else picture
                run = _read_number(line, "run", 1, position)
                trials.append((name, "", session, run))
                rows = session_rows.setdefault(session, [])
                rows.append(len(source_lines[source]))
                source_lines[source].append(line)

        # betas without lines would be left out unnoticed
        for source in files.values():
            if not source_lines[source]:
                raise MissingData(
                    f"no table lists the trials of {source[0]}",
                    "write the table of its session, or move the file away",
                )
        return trials, session_rows, source_lines

    def _order_rows(
        self,
        subject: int,
        source: SourceFiles,
        lines: Sequence[TableLine],
        counts: Sequence[int],
    ) -> Int64:
        """Return the row [n] in the files of the beta of each line.

        Raises:
            BrainhiveError: if the number of betas or their names differ from the table.
        """
        labels: list[str] = []
        for path, count in zip(source, counts, strict=True):
            if _is_volume(path):
                labels += read_labels(path, self.root, SAVE_HINT)
            else:
                labels += [path.relative_to(self.root).as_posix()] * count
        rows, unnamed = order_betas(labels, lines, self.config.column, source[0])
        if unnamed:
            problem = f"betas that name no picture, {summarise_names(unnamed)}"
            dispute = Dispute(
                "unread-files", problem, count=len(unnamed), subject=subject
            )
            self.account.disputes.append(dispute)
        return rows

    def _find_layout(
        self, source: SourceFiles, n_trials: int, mask: Mask | None
    ) -> tuple[ArrayLayout, Sequence[int]]:
        """Find the only layout of betas that fits the table, the mask and the values.

        Returns:
            The layout, and the number of betas in each file.

        Raises:
            BrainhiveError: if no layout fits, or several do.
        """
        path = source[0]
        if _is_volume(path):
            assert mask is not None  # `_open_mask` opens it for volumes
            images = [mask.require_same_grid(file) for file in source]
            layout = ArrayLayout(True, False, mask.width, True)
            return layout, [math.prod(img.shape[3:]) for img in images]

        # arrays are joined along their trials
        shapes = []
        for file in source:
            with self._open_array(file) as array:
                shapes.append(tuple(array.shape))
        counts_of = {}
        layouts: dict[str, ArrayLayout] = {}
        for is_last in (False, True):
            voxel_shapes = {shape[:-1] if is_last else shape[1:] for shape in shapes}
            voxel_shape = voxel_shapes.pop()
            counts_of[is_last] = [shape[-1 if is_last else 0] for shape in shapes]
            if voxel_shape and not voxel_shapes and sum(counts_of[is_last]) == n_trials:
                layouts |= _list_layouts(
                    voxel_shape, is_last, mask, is_matlab=path.suffix.lower() == ".mat"
                )

        if mask is not None:
            layouts = {
                name: layout
                for name, layout in layouts.items()
                if layout.n_voxels == mask.width
            }
            has_grid = all(layout.has_grid for layout in layouts.values())
            if len(layouts) > 1 and has_grid:
                layouts = self._compare_layouts(source, counts_of, layouts, mask)
        layout_hint = "save the betas as NIfTI, or as [trials, voxels of the mask]"
        chosen = choose_only(layouts, f"{path}, {list(shapes[0])},", layout_hint)
        if chosen is None:
            mask_size = f" and the mask {mask.width} voxels" if mask else ""
            needs_mask = len(shapes[0]) == 4 and mask is None
            raise BrainhiveError(
                f"{path} has the shape {list(shapes[0])}, but its table has {n_trials} "
                f"lines{mask_size}",
                MASK_HINT if needs_mask else SHAPE_HINT,
            )
        return chosen, counts_of[chosen.is_trials_last]

    def _compare_layouts(
        self,
        source: SourceFiles,
        counts_of: Mapping[bool, Sequence[int]],
        layouts: Mapping[str, ArrayLayout],
        mask: Mask,
    ) -> dict[str, ArrayLayout]:
        """Keep the layouts in which the mask separates the voxels of the brain.

        Voxels outside of a brain are constant or missing, or vary far more. Layouts
        with too many constant voxels in the mask are left out. Layouts whose spread
        differs clearly inside and outside of the mask are preferred.
        """
        from scipy.stats import rankdata

        inside = mask.inside.ravel()
        n_constant = dict[str, int]()
        contrast = dict[str, float]()
        for name, layout in layouts.items():
            counts = counts_of[layout.is_trials_last]
            # Largest number of trials that are read to compare layouts.
            rows = np.arange(min(sum(counts), 16))
            values = np.nan_to_num(self._read_rows(source, counts, layout, None, rows))
            spread = np.ptp(values, 0)  # [X · Y · Z]
            n_constant[name] = int((spread[inside] == 0).sum())
            # difference of the mean ranks, at most 1
            ranks = rankdata(spread) / (len(spread) / 2)
            difference = ranks[inside].mean() - ranks[~inside].mean()
            contrast[name] = abs(float(difference))

        # Largest excess of constant voxels in the mask over the best layout, as a share
        # of the mask's voxels.
        limit = min(n_constant.values()) + 0.01 * mask.width
        candidates = {}
        clear_layouts = {}
        for name, layout in layouts.items():
            if n_constant[name] <= limit:
                candidates[name] = layout
                # Smallest difference between mean ranks inside and outside of the mask
                # that counts as clear. The largest possible difference is 1.
                if contrast[name] >= 0.8:
                    clear_layouts[name] = layout
        return clear_layouts or candidates

    def _read_rows(
        self,
        source: SourceFiles,
        counts: Sequence[int],
        layout: ArrayLayout,
        mask: Mask | None,
        rows: Int64,
    ) -> Array:
        """Read betas [n, V] of rows of the joined files, each from start to end."""
        blocks = []
        order = np.argsort(rows)
        rows = rows[order]
        ends = np.cumsum(counts)
        for path, count, end in zip(source, counts, ends, strict=True):
            file_rows = rows[(rows >= end - count) & (rows < end)] - (end - count)
            if len(file_rows):
                blocks.append(self._read_file(path, file_rows, layout, mask))
        return np.concatenate(blocks)[np.argsort(order)]

    def _read_file(
        self, path: Path, rows: Int64, layout: ArrayLayout, mask: Mask | None
    ) -> Array:
        """Read betas [n, V] of ascending rows of a file."""
        if mask and _is_volume(path):
            return mask.read_series(path, rows.tolist())
        span = slice(rows[0], rows[-1] + 1)
        with self._open_array(path) as array:
            if layout.is_trials_last:
                block = np.moveaxis(np.asarray(array[..., span]), -1, 0)
            else:
                block = np.asarray(array[span])  # [n, …]
        if layout.is_reversed:
            block = block.transpose(0, 3, 2, 1)
        if mask and block.shape[1:] == mask.inside.shape:
            block = block[:, mask.inside]
        block = block.reshape(len(block), -1)[rows - span.start]
        if mask and not layout.has_grid and path.suffix.lower() == ".mat":
            # MATLAB lists the voxels of a mask in column order
            numbers = np.zeros(mask.inside.shape, np.int64)
            numbers.T[mask.inside.T] = np.arange(mask.width)
            block = block[:, numbers[mask.inside]]
        return block

    @contextmanager
    def _open_array(self, path: Path) -> Iterator[Any]:
        """Open the array of a file. Values stay on disk unless they are compressed."""
        if path.name.lower().endswith(CIFTI_ENDINGS):
            yield open_image(path, SAVE_HINT).dataobj
            return
        with ExitStack() as stack:
            array: Any
            if path.suffix.lower() in HDF5_ENDINGS:
                stack.enter_context(report_damage(path, SAVE_HINT))
                file = stack.enter_context(hdf5.open_unlocked(path))
                hdf5.refuse_other_files(file)
                array = hdf5.open_numbers(file, self._choose_array_name(path, file))
            else:
                array = pickles.load(path, way_out=SAVE_HINT)
                if not isinstance(array, np.ndarray):
                    array = array[self._choose_array_name(path, array)]
            if array.dtype.kind not in hdf5.NUMBERS:
                raise BrainhiveError(
                    f"{path} holds {array.dtype}, which are not numbers", SAVE_HINT
                )
            yield array

    def _choose_array_name(self, path: Path, names: Collection[str]) -> str:
        """Return the recipe's name, or the only usual name in place of the default."""
        array_name = self.config.key
        # Names of the array that are tried if the recipe has none. GLMsingle writes the
        # last two, in Python and in MATLAB.
        array_names = ("betas", "betasmd", "modelmd")
        usual_names = [name for name in array_names if name in names]
        if array_name == array_names[0] and len(usual_names) == 1:
            array_name = usual_names[0]
        if array_name not in names:
            raise BrainhiveError(
                f"{path} has no array {array_name}, only {', '.join(map(str, names))}",
                "preparation.key=NAME",
            )
        return str(array_name)


def _list_layouts(
    voxel_shape: tuple[int, ...], is_last: bool, mask: Mask | None, is_matlab: bool
) -> dict[str, ArrayLayout]:
    """List the layouts of an array that fit the mask.

    Args:
        voxel_shape: Shape of the betas of a trial.
        is_last: True if trials are the last axis of the array.
        mask: Mask of the voxels, or None.
        is_matlab: True if MATLAB reversed the axes of the file.
    """
    grid = mask.inside.shape if mask else ()
    n_voxels = mask.width if mask else 0
    name = "trials last" if is_last else "trials first"
    # GLMsingle has [V, 1, 1, n]
    sizes = [size for size in voxel_shape if size > 1]
    if len(sizes) < 2:
        return {name: ArrayLayout(is_last, False, max(sizes, default=1), False)}
    layouts = {}
    if voxel_shape == grid and (is_last or not is_matlab):
        layouts[f"{name} of [X, Y, Z]"] = ArrayLayout(is_last, False, n_voxels, True)
    # MATLAB and SimpleITK reverse axes
    if voxel_shape == grid[::-1]:
        layouts[f"{name} of [Z, Y, X]"] = ArrayLayout(is_last, True, n_voxels, True)
    return layouts


def _is_volume(path: Path) -> bool:
    name = path.name.lower()
    return name.endswith(NIFTI_ENDINGS) and not name.endswith(CIFTI_ENDINGS)


def _read_number(
    line: Mapping[str, str], column: str, default: int, position: str
) -> int:
    """Read the number of a session or run, or the default without such a column."""
    text = line.get(column, str(default))
    # Number of a session or run in a table, such as 1, 01, 1.0 or ses-01.
    match = re.fullmatch(r"[A-Za-z]*[-_ ]?(\d+)(?:\.0+)?", text)
    if not match:
        raise BrainhiveError(
            f"{position}: {column} {text!r} is not a number",
            f"write 1, or {column}-01",
        )
    return int(match[1])
