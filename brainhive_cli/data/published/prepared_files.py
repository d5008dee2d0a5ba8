"""Signals that other projects have prepared, as files by subject."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from brainhive_cli.core.base import BrainhiveError, MissingData
from brainhive_cli.core.files import Input, require_inputs
from brainhive_cli.data.recordings import MergedPreparation, list_subjects
from brainhive_cli.data.signals import Trials

FilesByRow = Mapping[str, Sequence[Path]]
"""Files of a subject, by the name of their patterns."""


@dataclass(frozen=True)
class PreparedFiles(MergedPreparation):
    """Prepared files, in which all repetitions of a stimulus lie together.

    Attributes:
        dataset: Data set of the stimuli.
        root: Folder of the files.
        source: Advice on how to get the files, for errors.
        patterns: Patterns of paths below the root, with `{subject}`, by name. The first
            pattern with files counts. A subject exists if it has files of the first
            name.
        open_recording: Returns the recording of a subject's files, subject and split.
        sizes: Known sizes in bytes, by name and subject.
        optional: Names of files that may be absent.
        has_single_files: If True, several files of a name are refused.
        design: Name of a file that every subject needs, and the function that finds it.
        splits: Splits of the recordings.
    """

    dataset: str
    root: Path
    source: str
    patterns: Mapping[str, Sequence[str]]
    open_recording: Callable[[FilesByRow, int, str], Trials]
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
        """List all files of a subject.

        Raises:
            MissingData: if a required file is absent.
        """
        paths = []
        for matches in self._find_files(subject).values():
            paths += matches
        if self.design:
            _, find_design = self.design
            paths.append(find_design())
        return paths

    def inputs(self, subject: int) -> list[Input]:
        """List all files of a subject as inputs, absent ones included."""
        inputs = []
        for name, patterns in self.patterns.items():
            expected_path = self.root / patterns[0].format(subject=subject)
            size = self.sizes.get(name, {}).get(subject)
            paths = self._match_files(name, subject)
            item = Input.of_file(paths, expected_path, self.source, size)
            inputs.append(replace(item, is_optional=name in self.optional))

        if self.design:
            name, find_design = self.design
            try:
                find_design()
                inputs.append(Input(name))
            except BrainhiveError as error:
                inputs.append(Input(name, error=error))
        return inputs

    def recording(self, subject: int, split: str) -> Trials:
        """Open a split. Signals are read when they are sliced, and must be finite."""
        return self.open_recording(self._find_files(subject), subject, split)

    def _match_files(self, name: str, subject: int) -> list[Path]:
        """List the files of the first pattern that has any, or of all patterns if only
        a single file is allowed.
        """
        paths: list[Path] = []
        for pattern in self.patterns[name]:
            if not paths or self.has_single_files:
                paths += sorted(self.root.glob(pattern.format(subject=subject)))
        return list(dict.fromkeys(paths))

    def _find_files(self, subject: int) -> dict[str, list[Path]]:
        """Find the files of a subject by name.

        Raises:
            MissingData: if a required file is absent, or a single file is not single.
        """
        require_inputs(self.inputs(subject))
        files = {name: self._match_files(name, subject) for name in self.patterns}
        for name, paths in files.items():
            if self.has_single_files and len(paths) > 1:
                names = [path.relative_to(self.root).as_posix() for path in paths]
                raise MissingData(
                    f"{self.root} has several {name} files of subject {subject}: "
                    f"{', '.join(names)}",
                    "preparation.root=FOLDER, with a single file of each split",
                )
        return files
