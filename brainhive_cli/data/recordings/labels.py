"""Labels of subjects and sessions in the paths of recordings."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from brainhive_cli.core.base import BrainhiveError
from brainhive_cli.data.files import number_session, number_subjects

SUBJECT_LABEL = re.compile(
    r"(?<![^/_. ])sub(?:ject|j)?(?:[-_]?|-([a-z]+?)[-_]?)(\d+)", re.IGNORECASE
)
"""Subject at the start of an entity in a path. `subset1` and `subliminal_01` are no
subjects.
"""
LABEL_END = re.compile(r"(?!ses|run|task|acq)[A-Za-z0-9]*")
"""Remaining letters of a subject's label after its first number, such as A of 07A."""
UNNUMBERED_LABEL = re.compile(r"\bsub-[A-Za-z]+(?=[_/.]|$)")
"""Label of a subject without a number."""
SESSION_LABEL = re.compile(
    r"(?<![^/_. ])ses(?:sion|s)?(?:(?:[-_]?|-([a-z]+?)[-_]?)(\d+)([a-z]*)|-([a-z]+))",
    re.IGNORECASE,
)
"""Session at the start of an entity in a path."""


def group_by_session(
    root: Path,
    paths: Iterable[Path],
    subject_numbers: Mapping[str, int] | None,
    session_numbers: Mapping[str, int] | None,
) -> dict[int, dict[int, list[Path]]]:
    """Group files or folders by the subject and session in their paths.

    Args:
        root: Folder.
        paths: Files or folders below it.
        subject_numbers: Number of a subject by its label, in the recipe.
        session_numbers: Number of a session by its label. Other sessions are left out.
            If None, a session has the first number in its label, or 1.

    Raises:
        BrainhiveError: if a path has no subject, or if two labels have the same number.
    """
    # the number of a subject depends on the labels of all paths
    labels = {}
    label_paths: dict[str, Path] = {}
    for path in paths:
        label = read_label(path, root)
        labels[path] = (label, read_session(path, root))
        label_paths.setdefault(label, path)
    numbers = number_subjects(label_paths, subject_numbers or {})

    recordings: dict[int, dict[int, list[Path]]] = {}
    # label and first path of each subject's session
    first_paths: dict[tuple[int, int], tuple[str, Path]] = {}
    for path, (label, session_label) in labels.items():
        subject = numbers[label]
        if session_numbers is None:
            session = number_session(session_label)
        elif session_label in session_numbers:
            session = session_numbers[session_label]
        else:
            continue
        entry = (session_label, path)
        first_label, first_path = first_paths.setdefault((subject, session), entry)
        if first_label != session_label:
            raise BrainhiveError(
                f"{path} and {first_path} are two sessions with the number {session}",
                "rename one of them, or list the labels of the sessions in their "
                "order: preparation.sessions=LABEL,LABEL",
            )
        recordings.setdefault(subject, {}).setdefault(session, []).append(path)
    return recordings


def read_session(path: Path, root: Path) -> str:
    """Read the last session label in a path below `root`: "01" for ses-01, or ""."""
    sessions = SESSION_LABEL.findall(_make_relative(path, root))
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
    relative_path = _make_relative(path, root)
    matches = list(SUBJECT_LABEL.finditer(relative_path))
    if matches:
        match = matches[-1]
        end = LABEL_END.match(relative_path, match.end())
        return f"sub-{match[1] or ''}{match[2]}{end[0] if end else ''}"
    unnumbered = UNNUMBERED_LABEL.search(relative_path)
    return unnumbered[0] if unnumbered else ""


def describe_labels(
    files: Mapping[int, Mapping[int, Sequence[Path]]],
    root: Path,
    subjects: Sequence[int],
    subject_numbers: Mapping[str, int],
) -> list[str]:
    """Describe labels that differ from their numbers, and labels without files.

    Args:
        files: Paths by subject and session.
        root: Folder above the paths.
        subjects: Subjects to describe.
        subject_numbers: Number of a subject by its label, in the recipe.
    """
    labels: set[str] = set()
    lines = []
    session_labels: dict[int, str] = {}
    for subject, session_paths in files.items():
        subject_labels: dict[str, None] = {}
        for session, paths in session_paths.items():
            for path in paths:
                subject_labels[read_label(path, root)] = None
            session_labels[session] = read_session(paths[0], root)
        labels |= subject_labels.keys()
        # subject 7 is sub-07 and needs no line
        plain_labels = [label[4:].lstrip("0") for label in subject_labels]
        if subject in subjects and plain_labels != [str(subject)]:
            lines.append(f"subject {subject} is {' and '.join(subject_labels)}")

    renamed_sessions = []
    for session, label in sorted(session_labels.items()):
        if label.lstrip("0") not in ("", str(session)):
            renamed_sessions.append(f"{session} is ses-{label}")
    if renamed_sessions:
        lines.append(f"session {', '.join(renamed_sessions)}")
    for label in sorted(subject_numbers.keys() - labels):
        lines.append(f"no file is of {label}, which subject_numbers names")
    return lines


def _make_relative(path: Path, root: Path) -> str:
    """Return the path below `root` as a POSIX path."""
    return path.as_posix().removeprefix(f"{root.as_posix()}/")
