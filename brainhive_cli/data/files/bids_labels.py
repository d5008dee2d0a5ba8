"""Labels in the names of files: subjects and sessions, which get numbers, and
acquisitions.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from brainhive_cli.core import documents
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.key_types import read_ranges

SubjectNumbers = Annotated[
    dict[str, int],
    Field(
        description="number of a subject by label, as {sub-07B: 8}; default: the first "
        "number of its label",
        examples=["{sub-07A: 7, sub-07B: 8}"],
    ),
]
"""Key of preparations whose files are named by whoever recorded them."""


def _read_sessions(value: object) -> object:
    """Read `1,2`, `1-4`, `pre,post` and patterns as `test*`; a mapping gives splits."""
    if isinstance(value, Mapping):
        return {str(session): split for session, split in value.items()}
    # ranges as 1-4 are written out, and digits in text are numbers
    listed = [
        int(part) if isinstance(part, str) and part.isdecimal() else part
        for part in read_ranges(value)
    ]
    if not listed or len({*listed}) < len(listed):
        raise ValueError("name each once, and at least one")
    return listed


SESSIONS = (
    "sessions, each of which must be there: numbers; or labels and patterns of labels, "
    "whose order then numbers them, as training*,test*"
)
ChosenSessions = Annotated[
    list[int | str] | None,
    BeforeValidator(lambda value: value if value is None else _read_sessions(value)),
    Field(description=f"{SESSIONS}; default: all", examples=["1,2", "training*,test*"]),
]
"""Key of preparations that choose sessions by number, or by label."""
SplitSessions = Annotated[
    dict[str, str] | ChosenSessions,
    Field(
        description=f"{SESSIONS}; as {{training*: train, test*: test}} only pictures "
        "of that split are taken of each; default: all",
        examples=["1,2", "training*,test*", "{training*: train, test*: test}"],
    ),
]
"""The same, where a session may also say which split it is of."""
VERSIONS = frozenset("rec echo part desc proc split hemi space res den cohort".split())
"""Entities of BIDS that differ between files of one acquisition."""


def number_subjects(
    label_paths: Mapping[str, Path], numbers: Mapping[str, int]
) -> dict[str, int]:
    """Number the labels of subjects: as the recipe says, else by the first number of
    the label.

    Args:
        label_paths: A path of each label, for messages; labels are those of BIDS, as
            `sub-07A`.
        numbers: The recipe's numbers by label; labels that it gives one number are one
            person.

    Raises:
        BrainhiveError: naming a label without a number, or two labels of one number.
    """
    numbered = dict[str, int]()
    key = "preparation.subject_numbers"
    for label in label_paths:
        # the recipe's number, else the first one in the label
        digits = re.search(r"\d+", label)
        if label not in numbers and digits is None:
            raise BrainhiveError(
                f"{label_paths[label]}: {label} has no number", f"{key}.{label}=NUMBER"
            )
        numbered[label] = (
            numbers[label] if digits is None or label in numbers else int(digits[0])
        )

    # sub-1 and sub-001, or sub-07A and sub-07B, may be two people
    first: dict[int, str] = {}
    for label, number in numbered.items():
        other = first.setdefault(number, label)
        if other != label and not {label, other} <= numbers.keys():
            problem = (
                f"{label_paths[other]} and {label_paths[label]}: {other} and {label} "
                "would both be"
            )
            way = f"{key}.{label}={max(numbered.values()) + 1}"
            way += (
                f"; if they are one person: '{key}={{{other}: {number}, {label}: "
                f"{number}}}'"
            )
            raise BrainhiveError(f"{problem} subject {number}", way)
    return numbered


def number_session(label: str) -> int:
    """Number a session by its label: the first number in it, else 1."""
    digits = re.search(r"\d+", label)
    return int(digits[0]) if digits else 1


def find_pattern(label: str, sessions: Iterable[int | str]) -> int | str | None:
    """Find the first of the recipe's sessions that a label is of: number, label or
    pattern; None if none.
    """
    for session in sessions:
        # the recipe may write test or ses-test
        text = str(session).removeprefix("ses-")
        if (
            int(text) == number_session(label)
            if text.isdecimal()
            else fnmatchcase(label, text)
        ):
            return session
    return None


def chosen_numbers(
    sessions: Mapping[str, str] | Sequence[int | str] | None,
) -> list[int]:
    """List the recipe's sessions where all are numbers; none where labels or patterns
    choose.
    """
    numbers = [session for session in sessions or () if isinstance(session, int)]
    return numbers if len(numbers) == len(sessions or ()) else []


def number_sessions(
    labels: Iterable[str], sessions: Iterable[int | str] | None
) -> dict[str, int] | None:
    """Number those sessions of all subjects that a recipe chooses.

    Args:
        labels: Labels of all sessions, as `test01`.
        sessions: The recipe's: numbers, labels and patterns; None for all.

    Returns:
        By label its own number; or if labels were chosen that share one, counted in the
        recipe's order. None for all.

    Raises:
        MissingData: naming a session that is not there.
    """
    if sessions is None:
        return None
    # the first of the recipe's sessions that each label is of
    order = [*sessions]
    keys = {label: find_pattern(label, order) for label in labels}
    if absent := [session for session in order if session not in keys.values()]:
        there = ", ".join(f"ses-{label}" for label in sorted(keys))
        raise MissingData(
            f"no session {absent[0]}", f"preparation.sessions=LABELS, of {there}"
        )

    # in the recipe's order, and test10 behind test9
    chosen = [
        (order.index(key), natural_key(label), label)
        for label, key in keys.items()
        if key is not None
    ]
    numbers = {label: number_session(label) for *_, label in sorted(chosen)}
    # labels of one number, as pre and post, are counted in that order
    if len({*numbers.values()}) < len(numbers) and not all(
        str(session).isdecimal() for session in order
    ):
        return {label: number for number, label in enumerate(numbers, 1)}
    return numbers


def natural_key(text: str) -> list[tuple[str, int]]:
    """Sort digits as numbers."""
    # as numbers, so that test10 follows test9
    return [
        (letters, int(digits or 0))
        for letters, digits in re.findall(r"(\D*)(\d*)", text)
    ]


ROOT_LEVELS = 5
"""Folders above a recording, of which the root of its data set is one."""


def read_simulated(*recordings: Path) -> str:
    """Read which programs simulated recordings of a BIDS data set; empty where nothing
    says that any did.

    Raises:
        MissingData: if the description of the data set cannot be read.
    """
    programs = set[str]()
    for recording in recordings:
        # nothing says which folder is the root, so the nearest description with our
        # key counts
        for folder in list(recording.parents)[:ROOT_LEVELS]:
            path = folder / DESCRIPTION
            if path.is_file():
                description: dict[str, Any] = documents.read(
                    path, hint="correct it", error=MissingData
                )
                if simulated := description.get(SIMULATED):
                    programs.add(str(simulated))
                    break
    return ", ".join(sorted(programs))


DESCRIPTION, SIMULATED = "dataset_description.json", "Simulated"
"""File of a BIDS data set about all of it, and our key in it: the program that made the
signals.
"""
