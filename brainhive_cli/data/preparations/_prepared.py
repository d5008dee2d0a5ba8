"""Files that others have prepared: paths of a subject's files, and the samples of webdatasets."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from brainhive_cli.core.archives import read_at, tar_members
from brainhive_cli.core.arrays import Array
from brainhive_cli.core.damage import reading
from brainhive_cli.core.errors import MissingData
from brainhive_cli.core.inputs import Input
from brainhive_cli.data.stores import pickles
from brainhive_cli.data.trials import Trials

SUBJECT = re.compile(r"\{subject(?::0\dd)?\}")


def fill_subject(pattern: str, subject: int, label: str) -> str:
    """Fill in `{subject}`, `{subject:02d}` and `{label}`, which is 07A of sub-07A, of a path."""
    path = SUBJECT.sub(lambda field: field[0].format(subject=subject), pattern)
    return path.replace("{label}", label) if label else path


@dataclass(frozen=True)
class Files:
    """Files of a subject that are read together.

    Attributes:
        patterns: Patterns of paths below the root, with `{subject}`; the first that has any files counts.
        sizes: Bytes by subject, where they are known.
        is_optional: Whether a recording can be made without them.
        is_alone: Whether one file is read, and several, of any pattern, are refused.
        label: Name of what is missing where there is none; default: the first pattern.
    """

    patterns: tuple[str, ...]
    sizes: Mapping[int, int] = field(default_factory=dict)
    is_optional: bool = False
    is_alone: bool = False
    label: str = ""

    def find(self, root: Path, subject: int) -> tuple[str, list[Path]]:
        """Find the files of a subject, and their name in errors."""
        names = [pattern.format(subject=subject) for pattern in self.patterns]
        matches = {name: sorted(root.glob(name)) for name in names}
        if self.is_alone:
            paths = list(dict.fromkeys(path for paths in matches.values() for path in paths))
            return self.label.format(subject=subject), paths
        return next(((name, paths) for name, paths in matches.items() if paths), (names[0], []))


FilesByRow = Mapping[str, Sequence[Path]]
"""The files of a subject, by the name of their row."""


@dataclass(frozen=True)
class PreparedFiles:
    """Files that others have prepared, in which all repetitions of a stimulus lie together.

    Attributes:
        dataset: The data set whose stimuli were shown.
        root: The folder of the files.
        source: Hint on how to get the files.
        rows: Files that are read of a subject, by names that `read` knows; subjects are those with the first.
        read: Function from a subject's files, subject and split to the recording.
        design: Name of a file that is read for every subject, and the function that finds it.
    """

    dataset: str
    root: Path
    source: str
    rows: Mapping[str, Files]
    read: Callable[[FilesByRow, int, str], Trials]
    design: tuple[str, Callable[[], Path]] | None = None
    splits: tuple[str, ...] = ("train", "test")

    @property
    def subjects(self) -> tuple[int, ...]:
        """The subjects whose files are there."""
        return list_subjects(self.root, next(iter(self.rows.values())).patterns)

    def files(self, subject: int) -> Sequence[Path]:
        """List all files of a subject; MissingData where one is missing that must be there."""
        paths = [path for group in self._find(subject).values() for path in group]
        return [*paths, self.design[1]()] if self.design else paths

    def inputs(self, subject: int) -> list[Input]:
        """List the same, where they are missing too."""
        listed = []
        for row in self.rows.values():
            name, paths = row.find(self.root, subject)
            one = Input.of_file(paths, self.root / name, self.source, row.sizes.get(subject))
            listed.append(replace(one, is_optional=row.is_optional))
        return [*listed, Input.of(*self.design)] if self.design else listed

    def recording(self, subject: int, split: str) -> Trials:
        """Open a split's signals, which are read, and must be finite, when they are sliced."""
        return self.read(self._find(subject), subject, split)

    def _find(self, subject: int) -> FilesByRow:
        """Find the files of a subject by row; refuse missing ones, and several where one is read."""
        files = {}
        for name, row in self.rows.items():
            label, files[name] = row.find(self.root, subject)
            if not (files[name] or row.is_optional):
                raise MissingData(f"no {self.root / label}", self.source)
            if row.is_alone and len(files[name]) > 1:
                several = ", ".join(path.relative_to(self.root).as_posix() for path in files[name])
                problem = f"{self.root} has several {name} files of subject {subject}: {several}"
                raise MissingData(problem, "preparation.root=FOLDER, that of one of them")
        return files


def list_subjects(root: Path, patterns: Iterable[str]) -> tuple[int, ...]:
    """List the subjects of whom there are files or folders of these patterns, which have `{subject}`."""
    subjects: set[int] = set()
    for pattern in patterns:
        for path in root.glob(SUBJECT.sub("*", pattern)):
            # a number in the path is the subject if the pattern with that number matches
            numbers = map(int, re.findall(r"\d+", str(path.relative_to(root))))
            subjects.update(n for n in numbers if path.match(pattern.format(subject=n)))
    return tuple(sorted(subjects))


@dataclass(frozen=True)
class Sample:
    """A sample of a webdataset tar.

    Attributes:
        members: Ending of each member to its byte offset and size.
        source: Hint on how to get the tar.
    """

    path: Path
    members: Mapping[str, tuple[int, int]]
    source: str

    def array(self, ending: str) -> Array:
        """Read a member that is an .npy of numbers."""
        with reading(self.path, self.source), self.path.open("rb") as file:
            if ending not in self.members:
                raise ValueError(f"a sample has no {ending}")
            return pickles.numbers(read_at(file, *self.members[ending]), ending)


def list_samples(paths: Iterable[Path], source: str) -> Iterator[Sample]:
    """Yield the samples of webdataset tars in order: members with one name up to the first dot."""
    for path in paths:
        samples: dict[str, dict[str, tuple[int, int]]] = {}  # offset and size by ending, by key
        with reading(path, source), path.open("rb") as file:
            for name, offset, size in tar_members(file, path.stat().st_size):
                key, _, ending = name.rpartition("/")[2].partition(".")
                if key and ending:
                    samples.setdefault(key, {})[ending] = offset, size
            if not samples:
                raise ValueError("it holds no samples")
        yield from (Sample(path, members_of, source) for members_of in samples.values())
