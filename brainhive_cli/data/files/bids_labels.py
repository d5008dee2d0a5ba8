"""Subjects, sessions and acquisitions in the names of BIDS files."""

import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from brainhive_cli.core.base import BrainhiveError, MissingData
from brainhive_cli.core.files import documents
from brainhive_cli.core.recipes import read_ranges

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
        is_number = isinstance(item, str) and item.isdecimal()
        sessions.append(int(item) if is_number else item)
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
VERSIONS = frozenset("rec echo part desc proc split hemi space res den cohort".split())
"""BIDS entities that differ between files of the same acquisition."""
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
    numbers = []
    for session in sessions or ():
        if not isinstance(session, int):
            return []
        numbers.append(session)
    return numbers


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
    entry_of = {label: find_pattern(label, entries) for label in labels}
    for entry in entries:
        if entry not in entry_of.values():
            names = ", ".join(f"ses-{label}" for label in sorted(entry_of))
            raise MissingData(
                f"no session {entry}", f"preparation.sessions=LABELS, of {names}"
            )

    # in the order of the recipe, and test10 after test9
    selection = []
    for label, matched_entry in entry_of.items():
        if matched_entry is not None:
            position = entries.index(matched_entry)
            selection.append((position, natural_key(label), label))
    numbers = {label: number_session(label) for *_, label in sorted(selection)}

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
