"""Anyone's own single-trial betas: files of voxels, and a table of what each trial showed."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import Field

from brainhive_cli.core.arrays import Array
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.files import matches, walk
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.bids_labels import (
    ChosenSessions,
    SubjectNumbers,
    natural_key,
    number_sessions,
)
from brainhive_cli.data.brain_images import CIFTI, CORTEX, NIFTI, Mask, open_image
from brainhive_cli.data.preparations import Stimuli, cached_method, keys_of_stimuli
from brainhive_cli.data.preparations._regions import Thresholds, find_region_files, name_voxels
from brainhive_cli.data.recording_files import (
    ABSENT,
    SESSION,
    describe_labels,
    group_by_session,
    read_label,
    read_session,
    read_table,
)
from brainhive_cli.data.single_trial_betas import (
    BetaSteps,
    PublishedBetas,
    SessionTrials,
    Subject,
    match_pictures,
)
from brainhive_cli.data.stores import hdf5, pickles

HDF5 = (".h5", ".hdf5", ".mat")
"""Endings of HDF5; MATLAB writes it with -v7.3."""
ENDINGS = {"betas": (*NIFTI, *HDF5, ".npy", ".npz"), "trials": (".csv", ".tsv"), "mask": NIFTI}
"""File endings of each kind."""
KEYS = ("betas", "betasmd", "modelmd")
"""Names of the array where the recipe has none; the last two are GLMsingle's, of Python and MATLAB."""
Source = tuple[Path, ...]
"""The files of an array of betas: one, or a volume for each beta."""
PADDING = re.compile(r"(?<!\d)0+(?=\d)")
"""Zeros before a number."""
NUMBER = re.compile(r"([A-Za-z]*)[-_ ]?(\d+)(?:\.0+)?")
"""Number of a session or run as tables write it: 1, 01, 1.0, ses-01."""
# hints of errors
AGAIN = "save it again, or correct preparation.betas"
AXES = (
    "a line for each of n betas, which are [X, Y, Z, n] (of arrays with the mask's X, Y, Z), n volumes, "
    "[n, voxels] or, if that is not square, [voxels, n]"
)
MASK = "preparation.mask=PATTERN of a mask on the grid of the betas"


class Config(BetaSteps):
    """Single-trial betas in NIfTI, HDF5 or NumPy, and a table with a picture for each.

    `sub-01_ses-01_betas.nii.gz`, `sub-01_ses-01_trials.csv`, `sub-01_mask.nii.gz`: paths say whose files are,
    as those of recordings do. Without `ses`, one file holds all sessions.
    """

    root: str = Field("", description="folder of the files; default: betas below paths.data")
    subject_numbers: SubjectNumbers = Field({})
    sessions: ChosenSessions = Field(None, exclude_if=lambda sessions: not sessions)
    betas: str = Field("*_betas.*", description="files: NIfTI in 4-D, or a volume a trial; CIFTI; or arrays")
    key: str = Field(
        "betas",
        description="name of the array in HDF5, .npz or a dict in .npy; default: also GLMsingle's betasmd or "
        "modelmd",
    )
    trials: str = Field("*_trials.*", description="tables (CSV, TSV): a line a beta; picture, session, run")
    column: str = Field("picture", description="column of the names of the pictures")
    mask: str = Field("sub-??_mask.nii*", description="NIfTI masks or atlases, above 0 where voxels are kept")
    regions: dict[str, str] = Field(
        {}, description="masks, atlases, below root or else home: regions.V1=sub-{subject:02d}_V1.nii.gz"
    )
    thresholds: Thresholds = Field({}, exclude_if=lambda thresholds: not thresholds)
    stimuli: Stimuli = "image-folder"

    def build(self, paths: Paths) -> "OwnBetas":
        """Point at the files; nothing is read yet."""
        with keys_of_stimuli():
            stimuli = self.stimuli.build(paths)
        root = paths.dataset("betas", self.root)
        return OwnBetas(self, root, stimuli=stimuli)


TINY = Config()


class Layout(NamedTuple):
    """Axes of an array of betas.

    Attributes:
        is_last: Whether the last axis is that of trials, not the first.
        is_reversed: Whether the others are [Z, Y, X], as MATLAB writes them.
        width: Number of voxels that are read.
    """

    is_last: bool
    is_reversed: bool
    width: int


@dataclass(frozen=True)
class OwnBetas(PublishedBetas):
    """The betas below one root."""

    @property
    def subjects(self) -> tuple[int, ...]:
        """The subjects whose betas are there."""
        return tuple(sorted(self._files["betas"]))

    @cached_method
    def subject(self, subject: int) -> Subject:
        """Read the mask, regions and tables of a subject, and compare them with the betas."""
        # files by session; one without `ses` holds all sessions
        files, tables = self._find("betas", subject), self._find("trials", subject)
        sources = {session: _join_volumes(paths) for session, paths in files.items()}
        all_sessions = [
            source
            for several in sources.values()
            for source in several
            if not SESSION.search(str(source[0].relative_to(self.root)))
        ]

        # volumes need a mask
        volumes = [path for paths in files.values() for path in paths if _is_volume(path)]
        masks = self._find("mask", subject) if volumes or self._files["mask"] else {}
        least = self.config.thresholds.get("mask")
        mask = next((Mask.open(path, MASK, least=least) for (path, *_) in masks.values()), None)

        # a trial for each line of the tables, and the row of its beta
        trials = []
        session_rows: dict[int, dict[Source, list[int]]] = {}  # rows of each source, by session
        counts, known = Counter[Source](), dict[tuple[str, int], str]()
        wanted = [session for session in self.config.sessions or () if isinstance(session, int)]
        for session_of_table, table in ((n, table) for n in sorted(tables) for table in tables[n]):
            # several sessions of betas with one table need a session in each line
            is_divided = len(tables) == 1 < len(files)
            header, lines = read_table(table)
            needed = [self.config.column, *["session"] * is_divided, *["run"] * (self.config.zscore == "run")]
            if not lines or not {*needed} <= {*header}:
                way_out = f"it has {len(lines)} lines of {', '.join(header)}; preparation.column=NAME"
                raise BrainhiveError(f"{table} needs columns {' and '.join(needed)}", way_out)

            # the beta that each line describes, by session, then by the names of files
            for number, line in enumerate(lines, 2):
                where = f"{table}, line {number}"
                session = _read_number(line, "session", session_of_table, where, known)
                # a table that is named by a session lists no other
                if len(tables) > 1 and session != session_of_table:
                    raise BrainhiveError(f"{where} is of session {session}", "correct it, or the file's name")
                # betas of all sessions together come first
                options = all_sessions or sources.get(session, [])
                if len(options) > 1 or len(tables[session_of_table]) > 1:
                    options = _choose_source(options, tables[session_of_table], table)
                if not options and wanted and session not in wanted:
                    continue  # of a session that the recipe leaves out
                if not options:
                    problem = f"{where} is of session {session}, of which no betas are below {self.root}"
                    raise MissingData(problem, "copy them, or take these lines out of the table")
                # a line without a picture has a beta, too
                picture = line[self.config.column]
                name = "" if picture in ABSENT else picture
                trials.append((name, "", session, _read_number(line, "run", 1, where, known)))
                session_rows.setdefault(session, {}).setdefault(options[0], []).append(counts[options[0]])
                counts[options[0]] += 1

        # betas without lines would be left out unnoticed
        if unread := [source for several in sources.values() for source in several if not counts[source]]:
            problem = f"{unread[0][0]} has betas, and no table lists their trials"
            raise MissingData(problem, "write the table of its session, or move the betas away")

        # all files of a subject have the same voxels
        layouts = {source: self._find_layout(source, count, mask) for source, count in counts.items()}
        widths = [layout.width for layout in layouts.values()]
        if len({*widths}) > 1:
            problem = f"files of subject {subject} have {', '.join(map(str, widths))} voxels"
            raise BrainhiveError(problem, "all sessions of a subject have the same voxels")

        # the mask may be an atlas with regions
        atlas = {"mask": [mask.path]} if mask else {}
        label = read_label(next(iter(counts))[0], self.root).removeprefix("sub-")
        regions = atlas | find_region_files(self.config.regions, subject, self.root, label)
        space = mask or _count_cortex(next(iter(counts))[0]) or {"": widths[0]}
        voxels, self.readings[subject] = name_voxels(regions, space, self.config.thresholds)
        named = {name: inside for name, inside in voxels.regions.items() if name != "mask"}  # it is no atlas

        def read(session: int) -> Array:
            """Read the betas [n, V] of a session, source by source as its tables list them."""
            pieces = session_rows[session].items()
            arrays = [self._read_rows(source, rows, layouts[source], mask) for source, rows in pieces]
            return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)

        # all files that the store depends on
        lists = filter(Path.is_file, self.stimuli.lists)
        several = (*files.values(), *tables.values(), *regions.values(), lists)
        return Subject(
            [path for paths in several for path in paths],
            replace(voxels, regions=named),
            widths[0],
            trials,
            read,
        )

    def notes(self, subjects: Sequence[int]) -> list[str]:
        """Name the subjects whose labels are not their numbers."""
        return describe_labels(self._files["betas"], self.root, subjects, self.config.subject_numbers)

    def sessions(self, subject: int) -> Sequence[int]:
        """List the sessions in which there are trials, or those of the recipe."""
        there, wanted = super().sessions(subject), self.config.sessions or ()
        numbers = [session for session in wanted if isinstance(session, int)]
        if len(numbers) < len(wanted) or not wanted:  # labels have chosen among files
            return there
        if absent := {*numbers} - {*there}:
            problem = f"no trials of subject {subject}, session {min(absent)}, below {self.root}"
            raise MissingData(problem, f"preparation.sessions={','.join(map(str, there))}")
        return sorted(numbers)

    def trials(self, subject: int, session: int) -> SessionTrials:
        """Match the lines of a session with pictures."""
        # lines in the order of the betas that `subject` reads
        lines = [(name, run) for name, _, number, run in self.subject(subject).trials if number == session]
        names, runs = zip(*lines, strict=True)
        image_ids, splits, dropped = match_pictures(names, self.stimuli, self._pictures)
        unmatched = {name for name, image_id in zip(names, image_ids, strict=True) if name and not image_id}
        return SessionTrials(image_ids, splits, np.array(runs), dropped, unmatched=sorted(unmatched))

    @cached_property
    def _files(self) -> Mapping[str, Mapping[int, Mapping[int, list[Path]]]]:
        """Files by kind, subject and session."""
        # files of each kind by ending and pattern
        names = sorted(name for name, entry in walk(self.root) if not entry.is_dir())
        kind_paths = {
            kind: [
                self.root / name
                for name in names
                if name.endswith(endings) and matches(name, getattr(self.config, kind))
            ]
            for kind, endings in ENDINGS.items()
        }

        # sessions of betas and of tables alike; a file without `ses` is of all
        labels = {read_session(path, self.root) for kind in ("betas", "trials") for path in kind_paths[kind]}
        wanted = self.config.sessions or ()
        sessions_in_column = labels == {""} and all(isinstance(session, int) for session in wanted)
        chosen = number_sessions(labels - {""}, None if sessions_in_column else self.config.sessions)
        files, known = {}, dict[int, tuple[str, Path]]()
        for kind, paths in kind_paths.items():
            numbers = None if chosen is None or kind == "mask" else {**chosen, "": 1}
            files[kind] = group_by_session(self.root, paths, self.config.subject_numbers, numbers)

            # a mask of sub-07B is not for the betas of sub-07A; that of sub-7 is for sub-07
            for subject, sessions in files[kind].items():
                path = next(iter(sessions.values()))[0]
                label = read_label(path, self.root)
                other, first = known.setdefault(subject, (label, path))
                is_one_person = {label, other} <= self.config.subject_numbers.keys()
                if not is_one_person and PADDING.sub("", label) != PADDING.sub("", other):
                    problem = f"{first} is of {other}, {path} of {label}: both would be subject {subject}"
                    raise BrainhiveError(problem, f"preparation.subject_numbers.{label}=NUMBER")
        return files

    def _find(self, kind: str, subject: int) -> Mapping[int, Sequence[Path]]:
        """Find the betas, tables or masks of a subject by session; two masks are refused."""
        files = self._files[kind].get(subject, {})
        if not files:
            wanted = f"{getattr(self.config, kind)} ({', '.join(ENDINGS[kind])})"
            problem = f"no {kind} of subject {subject} below {self.root}: {wanted}"
            raise MissingData(problem, f"preparation.root=FOLDER, or preparation.{kind}=PATTERN")
        for first, *further in files.values() if kind == "mask" else ():
            if further:
                problem = f"{first} and {further[0]} are both {kind} of one subject and session"
                raise BrainhiveError(problem, f"preparation.{kind}=PATTERN that one of them has")
        return files

    def _find_layout(self, source: Source, count: int, mask: Mask | None) -> Layout:
        """Find the axes of betas, of which there must be as many as lines in the tables."""
        path, layouts = source[0], set[Layout]()
        # volumes: trials lie along the last axis, or are files
        if _is_volume(path):
            assert mask is not None  # as for all volumes
            shapes = [tuple(mask.require_grid_of(each).shape) for each in source]
            is_series = len(shapes[0]) == 4
            shape = shapes[0] if is_series else (*shapes[0], len(source))
            if len(shape) == 4 and shape[3] == count:
                layouts.add(Layout(is_series, False, mask.width))
        else:
            # arrays: trials lie along the first axis, or the last
            with self._open_array(path) as array:
                shape = tuple(array.shape)
            for is_last, voxels in ((False, shape[1:]), (True, shape[:-1])):
                if not voxels or shape[-1 if is_last else 0] != count:
                    continue
                if len(sides := [size for size in voxels if size > 1]) < 2:  # GLMsingle has [V, 1, 1, n]
                    layouts.add(Layout(is_last, False, sides[0] if sides else 1))
                elif mask and voxels == mask.inside.shape and not (path.suffix == ".mat" and not is_last):
                    layouts.add(Layout(is_last, False, mask.width))
                if mask and path.suffix in HDF5 and not is_last and voxels == mask.inside.shape[::-1]:
                    layouts.add(Layout(False, True, mask.width))  # MATLAB reverses axes

        # one layout alone fits the number of trials
        if len(layouts) != 1 or (mask and {layout.width for layout in layouts} != {mask.width}):
            voxels_of_mask = f", the mask {mask.width} voxels" if mask else ""
            problem = f"{path} is {list(shape)}; its table has {count} lines{voxels_of_mask}"
            raise BrainhiveError(problem, MASK if len(shape) == 4 and not mask else AXES)
        return layouts.pop()

    def _read_rows(self, source: Source, rows: Sequence[int], layout: Layout, mask: Mask | None) -> Array:
        """Read some betas [n, V]; of an array in one slice from the first row to the last."""
        # volumes are read through the mask
        if mask and _is_volume(source[0]):
            if layout.is_last:
                return mask.read_series(source[0], rows)
            return np.stack([mask.read(source[row]) for row in rows])

        # arrays: one slice, of which rows are chosen in memory
        part = slice(rows[0], rows[-1] + 1)
        with self._open_array(source[0]) as array:
            block = np.asarray(array[..., part] if layout.is_last else array[part])
        block = np.moveaxis(block, -1, 0) if layout.is_last else block  # [n, …]
        block = block.transpose(0, 3, 2, 1) if layout.is_reversed else block
        # arrays of volumes are read through the mask, too
        if mask and block.shape[1:] == mask.inside.shape:
            block = block[:, mask.inside]
        return block.reshape(len(block), -1)[np.subtract(rows, part.start)]

    @contextmanager
    def _open_array(self, path: Path) -> Iterator[Any]:
        """Open the array of a file; its values stay on disk, unless they are compressed."""
        with ExitStack() as stack:
            is_hdf5, name = path.suffix in HDF5, self.config.key
            if path.name.endswith(CIFTI):
                yield open_image(path, AGAIN).dataobj
                return
            # a file, or an array itself (.npy)
            content = stack.enter_context(hdf5.open_file(path, AGAIN)) if is_hdf5 else pickles.load(path)
            # several arrays: that of the recipe, or the only one with a usual name
            if not isinstance(content, np.ndarray):
                names = [key for key in KEYS if key in content] if name == KEYS[0] else []
                name = names[0] if len(names) == 1 else name
                if name not in content:
                    problem = f"{path} holds {', '.join(map(str, content))}, and nothing called {name}"
                    raise BrainhiveError(problem, "preparation.key=NAME")
                content = hdf5.open_numbers(content, name) if is_hdf5 else content[name]
            if content.dtype.kind not in hdf5.NUMBERS:
                raise BrainhiveError(f"{path} holds {content.dtype}, no numbers", AGAIN)
            yield content


def _is_volume(path: Path) -> bool:
    return path.name.endswith(NIFTI) and not path.name.endswith(CIFTI)


def _stem(path: Path) -> str:
    """Name a file without its last part: `sub-01_desc-faces` of betas and of their table."""
    return path.name.partition(".")[0].rpartition("_")[0]


def _join_volumes(paths: Sequence[Path]) -> list[Source]:
    """Join files of one volume each to the betas of a session; other files are betas of their own."""
    shapes = [len(open_image(path, AGAIN).shape) if _is_volume(path) else 0 for path in paths]
    # other files than volumes in 3-D hold several betas each
    if len(paths) < 2 or {*shapes} != {3}:
        return [(path,) for path in paths]
    # a packed and an unpacked copy would count twice
    known: dict[Path, Path] = {}
    for path in paths:
        other = known.setdefault(path.with_name(path.name.partition(".")[0]), path)
        if other != path:
            way = "preparation.betas=PATTERN that one of them has"
            raise BrainhiveError(f"{other} and {path.name} are one beta", way)
    # natural order: beta_10 follows beta_9
    return [tuple(sorted(paths, key=lambda path: natural_key(str(path))))]


def _choose_source(sources: Sequence[Source], tables: Sequence[Path], table: Path) -> list[Source]:
    """Choose the betas with the name of a table, where a session has several files of betas, or tables."""
    alike = [source for source in sources if _stem(source[0]) == _stem(table)]
    # a table for each file of betas, whose names begin alike
    if len(alike) == 1 and len(tables) == len(sources):
        return alike
    paths, kind = (tables, "trials") if len(tables) > 1 else ([source[0] for source in sources], "betas")
    problem = f"{paths[0]} and {paths[1]} are both {kind} of one subject and session"
    way = f"preparation.{kind}=PATTERN that one of them has, or a table for each file of betas"
    raise BrainhiveError(
        problem, f"{way}, called as it: {_stem(sources[0][0]) if sources else 'NAME'}_trials.csv"
    )


def _count_cortex(path: Path) -> dict[str, int] | None:
    """Count the vertices of each hemisphere, and other grayordinates, of CIFTI; None of other files."""
    from nibabel.cifti2 import BrainModelAxis

    axis = open_image(path, AGAIN).header.get_axis(1) if path.name.endswith(CIFTI) else None
    if not isinstance(axis, BrainModelAxis):
        return None
    counts = {side: int((axis.name == name).sum()) for side, name in CORTEX.items()}
    rest = len(axis) - sum(counts.values())
    return {**counts, **({"": rest} if rest else {})}


def _read_number(
    line: Mapping[str, str], name: str, default: int, where: str, known: dict[tuple[str, int], str]
) -> int:
    """Read the number of a session or run, the default where the table has none; add its text to `known`."""
    text = line.get(name, str(default))
    if not (match := NUMBER.fullmatch(text)):
        raise BrainhiveError(f"{where}: {name} {text!r} is no number", f"as 1, or {name}-01")
    number, other = int(match[2]), known.setdefault((name, int(match[2])), text)
    # A1 and B1 would both be 1
    if len({NUMBER.sub(r"\1", label).lower() for label in (text, other)} - {""}) > 1:
        raise BrainhiveError(f"{where}: {name}s {other} and {text} would both be {number}", "number them")
    return number
