"""Anyone's own single-trial betas: files of voxels, and a table of what each trial
showed.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from brainhive_cli.core.arrays import Array
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.files import matches_pattern, walk
from brainhive_cli.core.only_match import choose_only
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.files import hdf5, pickles
from brainhive_cli.data.files.bids_labels import (
    ChosenSessions,
    SubjectNumbers,
    chosen_numbers,
    natural_key,
    number_sessions,
    number_subjects,
)
from brainhive_cli.data.fmri.betas import (
    BetaSteps,
    PublishedBetas,
    SessionTrials,
    Subject,
)
from brainhive_cli.data.fmri.regions import (
    Thresholds,
    find_region_files,
    read_regions,
)
from brainhive_cli.data.fmri.volumes import (
    CIFTI_ENDINGS,
    NIFTI_ENDINGS,
    Mask,
    find_vertices,
    open_image,
)
from brainhive_cli.data.recordings.contract import cached_method
from brainhive_cli.data.recordings.labels import (
    SESSION_LABEL,
    describe_labels,
    group_by_session,
    read_label,
    read_session,
)
from brainhive_cli.data.recordings.shown_pictures import (
    StimuliKey,
    build_stimuli,
    match_pictures,
)
from brainhive_cli.data.recordings.tables import EMPTY_CELLS, read_table

HDF5 = (".h5", ".hdf5", ".mat")
"""Endings of HDF5; MATLAB writes it with -v7.3."""
ENDINGS = {
    "betas": (*NIFTI_ENDINGS, *HDF5, ".npy", ".npz"),
    "trials": (".csv", ".tsv"),
    "mask": NIFTI_ENDINGS,
}
"""File endings of each kind."""
KEYS = ("betas", "betasmd", "modelmd")
"""Names of the array where the recipe has none; the last two are GLMsingle's, of Python
and MATLAB.
"""
SourceFiles = tuple[Path, ...]
"""The files of an array of betas: one, or a volume for each beta."""
FileLayout = tuple[bool, bool, int]
"""Axes of an array of betas: whether the last axis is that of trials, not the first;
whether the others are [Z, Y, X], as MATLAB writes them; and how many voxels are read.
"""
COMPARED_TRIALS = 16
"""Trials that are read to compare layouts."""
MAX_MISPLACED, MIN_CONTRAST = 0.01, 0.8
"""Share of the mask's voxels by which layouts may differ in constant voxels, and
difference of mean ranks of voxels inside and outside of the mask, which is 1 at most.
"""
PADDING = re.compile(r"(?<!\d)0+(?=\d)")
"""Zeros before a number."""
NUMBER = re.compile(r"[A-Za-z]*[-_ ]?(\d+)(?:\.0+)?")
"""Number of a session or run as tables write it: 1, 01, 1.0, ses-01."""
# hints of errors
AGAIN = "save it again, or correct preparation.betas"
AXES = (
    "a line for each of n betas, which are [X, Y, Z, n] (of arrays with the mask's X, "
    "Y, Z), n volumes, [n, voxels] or, if that is not square, [voxels, n]"
)
TWO_LAYOUTS = "save them as NIfTI, or as [trials, voxels of the mask]"
MASK = "preparation.mask=PATTERN of a mask on the grid of the betas"


class Config(BetaSteps):
    """Single-trial betas in NIfTI, HDF5 or NumPy, and a table with a picture for each.

    `sub-01_ses-01_betas.nii.gz`, `sub-01_ses-01_trials.csv`, `sub-01_mask.nii.gz`:
    paths say whose files are, as those of recordings do. Without `ses`, one file holds
    all sessions.
    """

    root: str = Field(
        "", description="folder of the files; default: betas below paths.data"
    )
    subject_numbers: SubjectNumbers = Field({})
    sessions: ChosenSessions = Field(None, exclude_if=lambda sessions: not sessions)
    betas: str = Field(
        "*_betas.*",
        description="files: NIfTI in 4-D, or a volume a trial; CIFTI; or arrays",
    )
    key: str = Field(
        "betas",
        description="name of the array in HDF5, .npz or a dict in .npy; default: also "
        "GLMsingle's betasmd or modelmd",
    )
    trials: str = Field(
        "*_trials.*",
        description="tables (CSV, TSV): a line a beta; picture, session, run",
    )
    column: str = Field("picture", description="column of the names of the pictures")
    mask: str = Field(
        "sub-??_mask.nii*",
        description="NIfTI masks or atlases, above 0 where voxels are kept",
    )
    regions: dict[str, str] = Field(
        {},
        description="masks, atlases, below root or else home: "
        "regions.V1=sub-{subject:02d}_V1.nii.gz",
    )
    thresholds: Thresholds = Field({}, exclude_if=lambda thresholds: not thresholds)
    stimuli: StimuliKey = "image-folder"

    def build(self, paths: Paths) -> "OwnBetas":
        """Point at the files; nothing is read yet."""
        return OwnBetas(
            self, paths.dataset("betas", self.root), stimuli=build_stimuli(self, paths)
        )


TINY = Config()


@dataclass(frozen=True)
class OwnBetas(PublishedBetas):
    """The betas below one root."""

    @property
    def subjects(self) -> tuple[int, ...]:
        """The subjects whose betas are there."""
        return tuple(sorted(self._files["betas"]))

    @cached_method
    def open_subject(self, subject: int) -> Subject:
        """Read the mask, regions and tables of a subject, and compare them with the
        betas.
        """
        # betas and a table by session; betas without `ses` are of all sessions
        files = self._find("betas", subject)
        tables = self._find("trials", subject)
        of_all = next(
            (
                source
                for source in files.values()
                if not SESSION_LABEL.search(str(source[0].relative_to(self.root)))
            ),
            None,
        )

        # volumes need a mask
        has_volumes = any(_is_volume(source[0]) for source in files.values())
        masks = (
            self._find("mask", subject) if has_volumes or self._files["mask"] else {}
        )
        least = self.config.thresholds.get("mask")
        mask = next(
            (Mask.open(path, MASK, threshold=least) for (path,) in masks.values()), None
        )

        # a trial for each line of the tables, and the row of its beta
        trials = []
        session_rows: dict[int, list[int]] = {}
        counts = Counter[SourceFiles]()
        for session_of_table, (table,) in sorted(tables.items()):
            # several sessions of betas with one table need a session in each line
            needed = [self.config.column]
            needed += ["session"] * (len(tables) == 1 < len(files))
            needed += ["run"] * (self.config.zscore == "run")
            header, lines = read_table(table)
            if not lines or not {*needed} <= {*header}:
                raise BrainhiveError(
                    f"{table} needs columns {' and '.join(needed)}",
                    f"it has {len(lines)} lines of {', '.join(header)}; "
                    "preparation.column=NAME",
                )

            for number, line in enumerate(lines, 2):
                where = f"{table}, line {number}"
                session = _read_number(line, "session", session_of_table, where)
                # a table that is named by a session lists no other
                if len(tables) > 1 and session != session_of_table:
                    raise BrainhiveError(
                        f"{where} is of session {session}",
                        "correct it, or the file's name",
                    )
                source = of_all or files.get(session)
                if source is None and session not in (
                    chosen_numbers(self.config.sessions) or [session]
                ):
                    continue  # of a session that the recipe leaves out
                if source is None:
                    raise MissingData(
                        f"{where} is of session {session}, of which no betas are below "
                        f"{self.root}",
                        "copy them, or take these lines out of the table",
                    )
                # a line without a picture has a beta, too
                picture = line[self.config.column]
                name = "" if picture in EMPTY_CELLS else picture
                trials.append((name, "", session, _read_number(line, "run", 1, where)))
                session_rows.setdefault(session, []).append(counts[source])
                counts[source] += 1

        # betas without lines would be left out unnoticed
        if unread := [source for source in files.values() if not counts[source]]:
            raise MissingData(
                f"{unread[0][0]} has betas, and no table lists their trials",
                "write the table of its session, or move the betas away",
            )

        # all files of a subject have the same voxels
        layouts = {
            source: self._find_layout(source, count, mask)
            for source, count in counts.items()
        }
        widths = [width for *_, width in layouts.values()]
        if len({*widths}) > 1:
            raise BrainhiveError(
                f"files of subject {subject} have {', '.join(map(str, widths))} voxels",
                "all sessions of a subject have the same voxels",
            )

        # the mask may be an atlas with regions
        (first, *_), *_ = counts
        label = read_label(first, self.root).removeprefix("sub-")
        regions = {"mask": [mask.path]} if mask else {}
        regions |= find_region_files(self.config.regions, subject, self.root, label)
        space = mask or find_vertices([first], AGAIN) or {"": widths[0]}
        voxels, self.file_kinds[subject] = read_regions(
            regions, space, self.config.thresholds
        )
        # it is no atlas
        named = {**voxels.regions}
        named.pop("mask", None)

        def read(session: int) -> Array:
            """Read the betas [n, V] of a session as its table lists them."""
            source = of_all or files[session]
            return self._read_rows(source, session_rows[session], layouts[source], mask)

        # all files that the store depends on
        lists = filter(Path.is_file, self.stimuli.lists)
        return Subject(
            [*chain(*files.values(), *tables.values(), *regions.values(), lists)],
            replace(voxels, regions=named),
            widths[0],
            trials,
            read,
        )

    def list_notes(self, subjects: Sequence[int]) -> list[str]:
        """Name the subjects whose labels are not their numbers."""
        return describe_labels(
            self._files["betas"], self.root, subjects, self.config.subject_numbers
        )

    def sessions(self, subject: int) -> Sequence[int]:
        """List the sessions in which there are trials, or those of the recipe."""
        there = super().sessions(subject)
        # labels have chosen among files
        numbers = chosen_numbers(self.config.sessions) or there
        if absent := {*numbers} - {*there}:
            raise MissingData(
                f"no trials of subject {subject}, session {min(absent)}, below "
                f"{self.root}",
                f"preparation.sessions={','.join(map(str, there))}",
            )
        return sorted(numbers)

    def list_trials(self, subject: int, session: int) -> SessionTrials:
        """Match the lines of a session with pictures."""
        # lines in the order of the betas that `subject` reads
        lines = super().list_trials(subject, session)
        names = lines.image_ids
        image_ids, splits, dropped = match_pictures(names, self.stimuli, self._pictures)
        unmatched = {
            name
            for name, image_id in zip(names, image_ids, strict=True)
            if name and not image_id
        }
        return SessionTrials(
            image_ids, splits, lines.runs, dropped, unmatched=sorted(unmatched)
        )

    @cached_property
    def _files(self) -> Mapping[str, Mapping[int, Mapping[int, list[Path]]]]:
        """Files by kind, subject and session."""
        # files of each kind by ending and pattern
        names = sorted(name for name, entry in walk(self.root) if not entry.is_dir())
        kind_paths = {
            kind: [
                self.root / name
                for name in names
                if name.endswith(endings)
                and matches_pattern(name, getattr(self.config, kind))
            ]
            for kind, endings in ENDINGS.items()
        }

        # sessions of betas and of tables alike; a file without `ses` is of all
        labels = {
            read_session(path, self.root)
            for kind in ("betas", "trials")
            for path in kind_paths[kind]
        }
        is_in_column = labels == {""} and chosen_numbers(self.config.sessions)
        chosen = number_sessions(
            labels - {""}, None if is_in_column else self.config.sessions
        )
        # a mask of sub-07B is not for the betas of sub-07A; that of sub-7 is for sub-07
        label_paths = dict[str, Path]()
        numbers = self.config.subject_numbers
        for path in chain(*kind_paths.values()):
            label = read_label(path, self.root)
            label = label if label in numbers else PADDING.sub("", label)
            label_paths.setdefault(label, path)
        number_subjects(label_paths, numbers)
        return {
            kind: group_by_session(
                self.root,
                paths,
                numbers,
                None if chosen is None or kind == "mask" else {**chosen, "": 1},
            )
            for kind, paths in kind_paths.items()
        }

    def _find(self, kind: str, subject: int) -> dict[int, SourceFiles]:
        """Find the betas, tables or masks of a subject by session: one file each, or
        volumes in 3-D.
        """
        files = self._files[kind].get(subject, {})
        if not files:
            wanted = f"{getattr(self.config, kind)} ({', '.join(ENDINGS[kind])})"
            raise MissingData(
                f"no {kind} of subject {subject} below {self.root}: {wanted}",
                f"preparation.root=FOLDER, or preparation.{kind}=PATTERN",
            )
        for paths in files.values():
            is_series = kind == "betas" and all(map(_is_volume, paths))
            if len(paths) > 1 and not (
                is_series and all(open_image(path, AGAIN).ndim == 3 for path in paths)
            ):
                raise BrainhiveError(
                    f"{paths[0]} and {paths[1]} are both {kind} of one subject and "
                    "session",
                    f"preparation.{kind}=PATTERN that one of them has",
                )
        # natural order: beta_10 follows beta_9
        return {
            session: tuple(sorted(paths, key=lambda path: natural_key(str(path))))
            for session, paths in files.items()
        }

    def _find_layout(
        self, source: SourceFiles, count: int, mask: Mask | None
    ) -> FileLayout:
        """Find the axes of betas, of which there must be as many as lines in the
        tables.
        """
        path = source[0]
        layouts = dict[str, FileLayout]()
        # volumes: trials lie along the last axis, or are files
        if _is_volume(path):
            assert mask is not None  # as for all volumes
            shapes = [tuple(mask.require_same_grid(each).shape) for each in source]
            is_series = len(shapes[0]) == 4
            shape = shapes[0] if is_series else (*shapes[0], len(source))
            if len(shape) == 4 and shape[3] == count:
                layouts["volumes"] = is_series, False, mask.width
        else:
            # arrays: trials lie along the first axis, or the last
            with self._open_array(path) as array:
                shape = tuple(array.shape)
            grid, width = (mask.inside.shape, mask.width) if mask else ((), 0)
            for is_last, voxels in ((False, shape[1:]), (True, shape[:-1])):
                if not voxels or shape[-1 if is_last else 0] != count:
                    continue
                trials = "trials last" if is_last else "trials first"
                # GLMsingle has [V, 1, 1, n]
                sides = [size for size in voxels if size > 1]
                if len(sides) < 2:
                    layouts[trials] = is_last, False, max(sides, default=1)
                elif voxels == grid and (is_last or path.suffix != ".mat"):
                    layouts[f"{trials} of [X, Y, Z]"] = is_last, False, width
                # MATLAB and SimpleITK reverse axes
                if len(sides) > 1 and voxels == grid[::-1]:
                    layouts[f"{trials} of [Z, Y, X]"] = is_last, True, width

        # one layout alone fits the trials, the mask and the values
        fitting = {
            name: layout
            for name, layout in layouts.items()
            if mask is None or layout[2] == mask.width
        }
        if len(fitting) > 1 and mask and len(sides) > 1:
            fitting = self._compare_layouts(source, count, fitting, mask)
        layout = choose_only(fitting, f"{path}, {[*shape]},", TWO_LAYOUTS)
        if layout is None:
            voxels_of_mask = f", the mask {mask.width} voxels" if mask else ""
            raise BrainhiveError(
                f"{path} is {list(shape)}; its table has {count} lines{voxels_of_mask}",
                MASK if len(shape) == 4 and not mask else AXES,
            )
        return layout

    def _compare_layouts(
        self,
        source: SourceFiles,
        count: int,
        layouts: dict[str, FileLayout],
        mask: Mask,
    ) -> dict[str, FileLayout]:
        """Choose the layouts by which the mask tells the voxels of an array apart.

        Voxels outside of a brain are constant or missing, or vary far more. A layout is
        left out if it has more constant voxels in the mask than another. If the spread
        over trials of nearly all voxels in the mask is smaller, or larger, than that of
        the others by some layouts, these are chosen.
        """
        from scipy.stats import rankdata

        inside = mask.inside.ravel()
        rows = range(min(count, COMPARED_TRIALS))
        constant = dict[str, int]()
        contrast = dict[str, float]()
        for name, layout in layouts.items():
            values = np.nan_to_num(self._read_rows(source, rows, layout, None))
            spread = np.ptp(values, 0)  # [X · Y · Z]
            constant[name] = int((spread[inside] == 0).sum())
            # difference of the mean ranks, 1 where the two do not overlap
            ranks = rankdata(spread) / (len(spread) / 2)
            difference = ranks[inside].mean() - ranks[~inside].mean()
            contrast[name] = abs(float(difference))
        limit = min(constant.values()) + MAX_MISPLACED * mask.width
        kept = {name: layouts[name] for name in layouts if constant[name] <= limit}
        clear = {name: kept[name] for name in kept if contrast[name] >= MIN_CONTRAST}
        return clear or kept

    def _read_rows(
        self,
        source: SourceFiles,
        rows: Sequence[int],
        layout: FileLayout,
        mask: Mask | None,
    ) -> Array:
        """Read some betas [n, V]; of an array in one slice from the first row to the
        last.
        """
        is_last, is_reversed, _ = layout
        # volumes are read through the mask
        if mask and _is_volume(source[0]):
            if is_last:
                return mask.read_series(source[0], rows)
            return np.stack([mask.read_values(source[row]) for row in rows])

        # arrays: one slice, of which rows are chosen in memory
        part = slice(rows[0], rows[-1] + 1)
        with self._open_array(source[0]) as array:
            block = np.asarray(array[..., part] if is_last else array[part])
        block = np.moveaxis(block, -1, 0) if is_last else block  # [n, …]
        block = block.transpose(0, 3, 2, 1) if is_reversed else block
        # arrays of volumes are read through the mask, too
        if mask and block.shape[1:] == mask.inside.shape:
            block = block[:, mask.inside]
        return block.reshape(len(block), -1)[np.subtract(rows, part.start)]

    @contextmanager
    def _open_array(self, path: Path) -> Iterator[Any]:
        """Open the array of a file; its values stay on disk, unless they are
        compressed.
        """
        with ExitStack() as stack:
            is_hdf5 = path.suffix in HDF5
            name = self.config.key
            if path.name.endswith(CIFTI_ENDINGS):
                yield open_image(path, AGAIN).dataobj
                return
            # a file, or an array itself (.npy)
            content = (
                stack.enter_context(hdf5.open_file(path, AGAIN))
                if is_hdf5
                else pickles.load(path)
            )
            # several arrays: that of the recipe, or the only one with a usual name
            if not isinstance(content, np.ndarray):
                names = [key for key in KEYS if key in content]
                if name == KEYS[0] and len(names) == 1:
                    name = names[0]
                if name not in content:
                    raise BrainhiveError(
                        f"{path} holds {', '.join(map(str, content))}, and nothing "
                        f"called {name}",
                        "preparation.key=NAME",
                    )
                content = hdf5.open_numbers(content, name) if is_hdf5 else content[name]
            if content.dtype.kind not in hdf5.NUMBERS:
                raise BrainhiveError(f"{path} holds {content.dtype}, no numbers", AGAIN)
            yield content


def _is_volume(path: Path) -> bool:
    return path.name.endswith(NIFTI_ENDINGS) and not path.name.endswith(CIFTI_ENDINGS)


def _read_number(line: Mapping[str, str], name: str, default: int, where: str) -> int:
    """Read the number of a session or run; the default where the table has no such
    column.
    """
    text = line.get(name, str(default))
    match = NUMBER.fullmatch(text)
    if not match:
        raise BrainhiveError(
            f"{where}: {name} {text!r} is no number", f"as 1, or {name}-01"
        )
    return int(match[1])
