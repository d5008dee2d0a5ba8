"""Names of BIDS files: entities, subjects, sessions, and descriptions of files."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from brainhive_cli.core.base import BrainhiveError, MissingData
from brainhive_cli.core.files import documents
from brainhive_cli.core.recipes import read_ranges
from brainhive_cli.data.files.named_files import SPLIT

SubjectNumbers = Annotated[
    dict[str, int],
    Field(
        description="number of each subject by label, as {sub-07B: 8}; default: the "
        "first number of its label",
        examples=["{sub-07A: 7, sub-07B: 8}"],
    ),
]
"""Recipe key that gives numbers to subject labels."""


def _read_sessions(value: object) -> object:
    """Convert `1,2`, `1-4`, `pre,post` or `test*` to a list, and keep a mapping."""
    if value is None:
        return None
    if isinstance(value, Mapping):
        return {str(session): split for session, split in value.items()}
    sessions = []
    for item in read_ranges(value):
        sessions.append(int(item) if str(item).isdecimal() else item)
    if not sessions or len(set(sessions)) < len(sessions):
        raise ValueError("name each session once, and at least one")
    return sessions


SESSIONS = (
    "sessions, all of which must exist: numbers; or labels and patterns of labels, "
    "numbered in their order, as training*,test*"
)
"""Start of the description of recipe keys of sessions."""
ChosenSessions = Annotated[
    list[int | str] | None,
    BeforeValidator(_read_sessions),
    Field(description=f"{SESSIONS}; default: all", examples=["1,2", "training*,test*"]),
]
"""Recipe key that selects sessions by number, label or pattern."""
SplitSessions = Annotated[
    dict[str, str] | ChosenSessions,
    Field(
        description=f"{SESSIONS}; as {{training*: train, test*: test}} each session "
        "gives only pictures of that split; default: all",
        examples=["1,2", "training*,test*", "{training*: train, test*: test}"],
    ),
]
"""Recipe key that selects sessions, and may name the split of each."""
SUBJECT_LABEL = re.compile(
    r"(?<![^/_. ])(?i:sub(?:ject|j)?(?:[-_]?|-([a-z]+?)[-_]?))(\d+)"
    r"((?!ses|run|task|acq)[A-Za-z0-9]*)"
)
"""Subject at the start of an entity in a path. `subset1` and `subliminal_01` are no
subjects.
"""
RUN_ZEROS = re.compile(r"(?<=run-)0+(?=\d)")
"""Zeros before the number of a run, so that run-01 is run-1."""
VERSION = re.compile(
    r"eeg|meg|ieeg|raw|bold|(proc|desc|rec|split|echo|hemi)-.*|part-(mag|phase|real|imag)"
)
"""Suffixes and entities that differ between versions of a recording."""
DESCRIPTION = "dataset_description.json"
"""File that describes a BIDS data set."""
SIMULATED = "Simulated"
"""Our key in this file: the program that simulated the signals."""
ROOT_LEVELS = 5
"""Number of folders above a recording that may be the root of its data set."""


def number_subjects(
    label_paths: Mapping[str, Path], numbers: Mapping[str, int]
) -> dict[str, int]:
    """Return the number of each subject label.

    It is the number in the recipe, else the first number in the label.

    Args:
        label_paths: A file of each subject for messages, keyed by labels such as
            `sub-07A`.
        numbers: Numbers in the recipe, keyed by label. Labels with the same number
            there are the same person.

    Raises:
        BrainhiveError: if a label has no number, or two labels share a number,
            unless the recipe gives it to both.
    """
    numbered = dict[str, int]()
    key = "preparation.subject_numbers"
    for label, path in label_paths.items():
        digits = re.search(r"\d+", label)
        if label in numbers:
            numbered[label] = numbers[label]
        elif digits is not None:
            numbered[label] = int(digits[0])
        else:
            raise BrainhiveError(
                f"{path}: {label} has no number", f"{key}.{label}=NUMBER"
            )

    # sub-1 and sub-001, or sub-07A and sub-07B, may be two people
    first_label_of: dict[int, str] = {}
    for label, number in numbered.items():
        other = first_label_of.setdefault(number, label)
        if other != label and not (label in numbers and other in numbers):
            free_number = max(numbered.values()) + 1
            raise BrainhiveError(
                f"{label_paths[other]} and {label_paths[label]}: {other} and {label} "
                f"would both be subject {number}",
                f"{key}.{label}={free_number}; if they are one person: "
                f"'{key}={{{other}: {number}, {label}: {number}}}'",
            )
    return numbered


def number_session(label: str) -> int:
    """Return the first number in the label of a session, or 1 without a number."""
    digits = re.search(r"\d+", label)
    return int(digits[0]) if digits else 1


def find_pattern(label: str, sessions: Iterable[int | str]) -> int | str | None:
    """Find the first entry of a recipe's sessions that matches a label.

    Args:
        label: Label of a session, such as "test01".
        sessions: Numbers, labels and patterns in the recipe.

    Returns:
        The entry, or None if none matches.
    """
    for session in sessions:
        # the recipe may say test or ses-test
        text = str(session).removeprefix("ses-")
        if text.isdecimal():
            is_match = int(text) == number_session(label)
        else:
            is_match = fnmatchcase(label, text)
        if is_match:
            return session
    return None


def get_session_numbers(
    sessions: Mapping[str, str] | Sequence[int | str] | None,
) -> list[int]:
    """Return the recipe's sessions if all are numbers, else an empty list."""
    numbers = [session for session in sessions or () if isinstance(session, int)]
    return numbers if sessions and len(numbers) == len(sessions) else []


def number_sessions(
    labels: Iterable[str], sessions: Iterable[int | str] | None
) -> dict[str, int] | None:
    """Number the sessions that a recipe selects.

    Args:
        labels: Labels of the sessions of all subjects, such as "test01".
        sessions: Numbers, labels and patterns in the recipe, or None for all.

    Returns:
        Number of each selected session, keyed by label: the number in the label, or its
        position in the recipe if labels such as `pre` and `post` share a number. None
        if all sessions are selected.

    Raises:
        MissingData: if a session of the recipe is absent.
    """
    if sessions is None:
        return None
    entries = list(sessions)
    # in the order of the recipe, and test10 after test9
    distinct_labels = sorted(set(labels), key=natural_key)
    numbers = dict[str, int]()
    for entry in entries:
        matches = [
            label for label in distinct_labels if find_pattern(label, entries) == entry
        ]
        if not matches:
            names = ", ".join(f"ses-{label}" for label in sorted(distinct_labels))
            raise MissingData(
                f"no session {entry}", f"preparation.sessions=LABELS, of {names}"
            )
        numbers |= {label: number_session(label) for label in matches}

    has_labels = not all(str(entry).isdecimal() for entry in entries)
    if has_labels and len(set(numbers.values())) < len(numbers):
        return {label: number for number, label in enumerate(numbers, 1)}
    return numbers


def natural_key(text: str) -> list[tuple[int, int]]:
    """Return a sort key that orders digits as numbers, so test10 follows test9.

    Without numbers, the order is that of characters, and a folder comes before other
    names that begin like it.
    """
    key = []
    for item in re.findall(r"\d+|\D", text.replace("/", "\0")):
        key.append((ord("0"), int(item)) if item.isdecimal() else (ord(item), 0))
    return key


def read_entities(path: Path) -> dict[str, str]:
    """Read the entities of a name: {"sub": "01"} for sub-01_eeg.vhdr."""
    return dict(re.findall(r"(?<![^_])([a-z]+)-([^_.]+)", path.name))


def read_session(path: Path, root: Path) -> str:
    """Read the last session label in a path below `root`: "01" for ses-01, or ""."""
    # Session at the start of an entity in a path.
    sessions = re.findall(
        r"(?<![^/_. ])ses(?:sion|s)?(?:(?:[-_]?|-([a-z]+?)[-_]?)(\d+)([a-z]*)"
        r"|-([a-z]+))",
        path.relative_to(root).as_posix(),
        re.IGNORECASE,
    )
    return "".join(sessions[-1]) if sessions else ""


def read_label(path: Path, root: Path) -> str:
    """Read the last subject label in a path below `root`: "sub-07A" for Subject_07A.

    Raises:
        BrainhiveError: if the path has no subject.
    """
    label = find_label(path, root)
    if not label:
        raise BrainhiveError(
            f"the name of {path} has no subject number",
            "rename it, such as to sub-01_ses-01… or sub-01…",
        )
    return label


def find_label(path: Path, root: Path) -> str:
    """Read the last subject label in a path below `root`, or return ""."""
    relative_path = path.relative_to(root).as_posix()
    labels = SUBJECT_LABEL.findall(relative_path)
    if labels:
        return f"sub-{''.join(labels[-1])}"
    # Label of a subject without a number.
    unnumbered = re.search(r"\bsub-[A-Za-z]+(?=[_/.]|$)", relative_path)
    return unnumbered[0] if unnumbered else ""


class BidsIndex:
    """Files of a BIDS data set, of which each folder is listed once.

    Args:
        root: Folder of the data set.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._paths: dict[Path, list[Path]] = {}

    def list_files(self, folder: Path) -> list[Path]:
        """List the files in a folder below the root, files with few entities first."""
        if folder not in self._paths:
            paths = sorted((self.root / folder).glob("[!.]*.*"))
            self._paths[folder] = sorted(paths, key=lambda path: path.name.count("_"))
        return self._paths[folder]

    def find_inherited(self, path: Path, *endings: str) -> list[Path]:
        """Find the files that describe a file by BIDS's inheritance principle.

        Their entities are among the entities of the file.

        Args:
            path: The described file, relative to the root.
            endings: Ends of the names of describing files, such as `_bold.json`.

        Returns:
            Paths. The nearest folder is last, and in it the most entities.
        """
        paths = []
        parts = _split_name(path.name.partition(".")[0])
        for folder in reversed(path.parents):
            for candidate in self.list_files(folder):
                for ending in filter(candidate.name.endswith, endings):
                    if _split_name(candidate.name.removesuffix(ending)) <= parts:
                        paths.append(candidate)
        return paths


def _split_name(stem: str) -> set[str]:
    """Split the name of a file into its entities and other parts."""
    return set(RUN_ZEROS.sub("", stem).split("_")) - {""}


def find_bids_root(path: Path) -> Path | None:
    """Return the root of the outermost BIDS data set with a recording, or None."""
    for folder in reversed(path.parents[1:ROOT_LEVELS]):
        if (folder / DESCRIPTION).is_file():
            return folder
    return None


def group_by_session(
    root: Path,
    paths: Collection[Path],
    subject_numbers: Mapping[str, int],
    session_numbers: Mapping[str, int] | None,
    allows_versions: bool = False,
) -> dict[int, dict[int, list[Path]]]:
    """Group files by the subject and session in their paths.

    Args:
        root: Folder.
        paths: Files below it.
        subject_numbers: Number of a subject by its label, in the recipe.
        session_numbers: Number of a session by its label. Other sessions are left out.
            If None, a session has the first number in its label, or 1.
        allows_versions: True if several files of a session may be of one recording.

    Raises:
        BrainhiveError: if a path has no subject, if two labels have the same number,
            or if two files are versions of a recording.
    """
    # the number of a subject depends on the labels of all paths
    label_paths: dict[str, Path] = {}
    for path in paths:
        label_paths.setdefault(read_label(path, root), path)
    numbers = number_subjects(label_paths, subject_numbers)

    groups: dict[int, dict[int, list[Path]]] = {}
    first_paths: dict[tuple[object, ...], Path] = {}  # of each recording
    for path in paths:
        label = read_session(path, root)
        session = number_session(label)
        if session_numbers is not None:
            if label not in session_numbers:
                continue
            session = session_numbers[label]
        subject = numbers[read_label(path, root)]
        session_paths = groups.setdefault(subject, {}).setdefault(session, [])
        session_paths.append(path)
        first_path = session_paths[0]
        if read_session(first_path, root) != label:
            raise BrainhiveError(
                f"{path} and {first_path} are two sessions with the number {session}",
                "rename one of them, or list the labels of the sessions in their "
                "order: preparation.sessions=LABEL,LABEL",
            )
        if allows_versions:
            continue

        # split files that do not name each other are recordings of their own
        recording = (subject, session, *_list_recording_parts(path, root))
        first_path = first_paths.setdefault(recording, path)
        first_split = SPLIT.findall(first_path.name)
        split = SPLIT.findall(path.name)
        are_splits = bool(split and first_split) and split != first_split
        if first_path != path and not are_splits:
            raise BrainhiveError(
                f"{first_path} and {path} have the names of one recording, which would "
                "count twice",
                f"keep one: preparation.files=PATTERN, or move the other out of "
                f"{root}. If they are two runs, name them run-1 and run-2",
            )
    return groups


def _list_recording_parts(path: Path, root: Path) -> list[str]:
    """List the parts of a path below `root` that tell recordings apart.

    Versions of a recording differ in `VERSION`, in their ending, and in the order of
    entities, as a folder may name the session before the file names the subject.
    """
    *folders, name = path.relative_to(root).parts
    stem = name.partition(".")[0]
    # the folders sub-01 and sub-01_old hold the same names
    if SUBJECT_LABEL.search(stem):
        folders = [part for part in folders if not SUBJECT_LABEL.match(part)]
    text = RUN_ZEROS.sub("", "_".join([*folders, stem]).lower())
    parts = dict.fromkeys(text.split("_"))
    recording_parts = [part for part in parts if not VERSION.fullmatch(part)]
    # words without a label, such as left and right, stay in their order
    return sorted(recording_parts, key=lambda part: part if "-" in part else "")


def describe_labels(
    files: Mapping[int, Mapping[int, Sequence[Path]]],
    root: Path,
    subjects: Collection[int],
    subject_numbers: Mapping[str, int],
) -> list[str]:
    """Describe labels that differ from their numbers, and labels without files.

    Args:
        files: Paths by subject and session.
        root: Folder above the paths.
        subjects: Subjects to describe.
        subject_numbers: Number of a subject by its label, in the recipe.
    """
    unused_labels = set(subject_numbers)
    lines = []
    session_labels: dict[int, str] = {}
    for subject, session_paths in files.items():
        labels: dict[str, None] = {}
        for session, paths in session_paths.items():
            session_labels[session] = read_session(paths[0], root)
            labels |= dict.fromkeys(read_label(path, root) for path in paths)
        unused_labels.difference_update(labels)
        # subject 7 is sub-07 and needs no line
        plain_labels = [label[4:].lstrip("0") for label in labels]
        if subject in subjects and plain_labels != [str(subject)]:
            lines.append(f"subject {subject} is {' and '.join(labels)}")

    renamed_sessions = []
    for session, label in sorted(session_labels.items()):
        if label.lstrip("0") not in ("", str(session)):
            renamed_sessions.append(f"{session} is ses-{label}")
    if renamed_sessions:
        lines.append(f"session {', '.join(renamed_sessions)}")
    for label in sorted(unused_labels):
        lines.append(f"no file is of {label}, which subject_numbers names")
    return lines


def read_simulated(*recordings: Path) -> str:
    """Return the programs that simulated recordings of a BIDS data set.

    A recording's programs are under our key in the nearest description that has it. If
    the recording is a link, the folders of its target count too.

    Returns:
        Names with commas, or an empty text if no description has the key.

    Raises:
        MissingData: if a description cannot be read.
    """
    programs = set[str]()
    for recording in recordings:
        folders = list(recording.parents)[:ROOT_LEVELS]
        folders += list(recording.resolve().parents)[:ROOT_LEVELS]
        for folder in folders:
            path = folder / DESCRIPTION
            if not path.is_file():
                continue
            description: dict[str, Any] = documents.read(
                path, hint="correct it", error=MissingData
            )
            program = description.get(SIMULATED)
            if program:
                programs.add(str(program))
                break
    return ", ".join(sorted(programs))
