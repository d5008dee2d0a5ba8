"""Recordings that others prepared, in one file or several for each subject."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from brainhive_cli.core.command import Input, require_inputs
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.data.recordings.contract import list_subjects
from brainhive_cli.data.signals.trials import Trials

FilesByRow = Mapping[str, Sequence[Path]]
"""The files of a subject, by the name of their row."""


@dataclass(frozen=True)
class PreparedFiles:
    """Files that others have prepared, in which all repetitions of a stimulus lie
    together.

    Attributes:
        dataset: The data set whose stimuli were shown.
        root: The folder of the files.
        source: Hint on how to get the files.
        patterns: Patterns of paths below the root, with `{subject}`, by names that
            `read` knows: the first pattern with files counts. Subjects are those with
                files of the first name.
        read: Function from a subject's files, subject and split to the recording.
        sizes: Bytes by subject, where they are known, by name.
        optional: Names of files without which a recording can be made.
        has_single_files: Whether one file is read by name, and several, of any pattern,
            are refused.
        design: Name of a file that is read for every subject, and the function that
            finds it.
    """

    dataset: str
    root: Path
    source: str
    patterns: Mapping[str, Sequence[str]]
    read: Callable[[FilesByRow, int, str], Trials]
    sizes: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    optional: Sequence[str] = ()
    has_single_files: bool = False
    design: tuple[str, Callable[[], Path]] | None = None
    splits: tuple[str, ...] = ("train", "test")

    @property
    def subjects(self) -> tuple[int, ...]:
        """The subjects whose files are there."""
        return list_subjects(self.root, next(iter(self.patterns.values())))

    def files(self, subject: int) -> Sequence[Path]:
        """List all files of a subject; MissingData where one is missing that must be
        there.
        """
        paths = [path for group in self._find(subject).values() for path in group]
        return [*paths, self.design[1]()] if self.design else paths

    def inputs(self, subject: int) -> list[Input]:
        """List the same, where they are missing too."""
        listed = []
        for name, patterns in self.patterns.items():
            # what is missing has a size, where it is known, and the way to get it
            expected = patterns[0].format(subject=subject)
            size = self.sizes.get(name, {}).get(subject)
            one = Input.of_file(
                self._match(name, subject), self.root / expected, self.source, size
            )
            listed.append(replace(one, is_optional=name in self.optional))

        # the design is one file for all subjects
        if self.design:
            name, find = self.design
            try:
                find()
                listed.append(Input(name))
            except BrainhiveError as error:
                listed.append(Input(name, error=error))
        return listed

    def recording(self, subject: int, split: str) -> Trials:
        """Open a split's signals, which are read, and must be finite, when they are
        sliced.
        """
        return self.read(self._find(subject), subject, split)

    def _match(self, name: str, subject: int) -> list[Path]:
        """List the files of a name: those of its first pattern that has any, or of all,
        to refuse several.
        """
        patterns = [pattern.format(subject=subject) for pattern in self.patterns[name]]
        matches = [
            paths for pattern in patterns if (paths := sorted(self.root.glob(pattern)))
        ]
        if self.has_single_files:
            return list(dict.fromkeys(path for paths in matches for path in paths))
        return next(iter(matches), [])

    def _find(self, subject: int) -> FilesByRow:
        """Find the files of a subject by name; refuse missing ones, and several where
        one is read.
        """
        require_inputs(self.inputs(subject))
        files = {name: self._match(name, subject) for name in self.patterns}
        for name, paths in files.items():
            # only the user knows which of several files is meant
            if self.has_single_files and len(paths) > 1:
                several = ", ".join(
                    path.relative_to(self.root).as_posix() for path in paths
                )
                raise MissingData(
                    f"{self.root} has several {name} files of subject {subject}: "
                    f"{several}",
                    "preparation.root=FOLDER, that of one of them",
                )
        return files
