"""Labels in the names of files: the subject and the session of a recording."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from brainhive_cli.core.errors import (
    BrainhiveError,
)
from brainhive_cli.data.files.bids_labels import (
    number_session,
    number_subjects,
)

SUBJECT_LABEL = re.compile(
    r"(?<![^/_. ])sub(?:ject|j)?(?:[-_]?|-([a-z]+?)[-_]?)(\d+)", re.IGNORECASE
)
"""Subject in a path, at the start of a part of a name: `subset1` and `subliminal_01`
are none.
"""

LABEL_END = re.compile(r"(?!ses|run|task|acq)[A-Za-z0-9]*")
"""Rest of a subject's label behind its first number."""

UNNUMBERED = re.compile(r"\bsub-[A-Za-z]+(?=[_/.]|$)")
"""Label of a subject without a number."""

SESSION_LABEL = re.compile(
    r"(?<![^/_. ])ses(?:sion|s)?(?:(?:[-_]?|-([a-z]+?)[-_]?)(\d+)([a-z]*)|-([a-z]+))",
    re.IGNORECASE,
)


def group_by_session(
    root: Path,
    paths: Iterable[Path],
    subject_numbers: Mapping[str, int] | None,
    session_numbers: Mapping[str, int] | None,
) -> dict[int, dict[int, list[Path]]]:
    """Group files or folders by the subject and session in their paths below a folder.

    Args:
        root: The folder.
        paths: Files or folders below it.
        subject_numbers: The recipe's numbers of subjects by label.
        session_numbers: Numbers of sessions by label, without those that are left out;
            None for the first number of each label.

    Raises:
        BrainhiveError: naming one whose path does not say which subject's it is, or two
            that clash.
    """
    # numbers of subjects depend on the labels of all paths together
    labels = {
        path: (read_label(path, root), read_session(path, root)) for path in paths
    }
    label_paths = dict[str, Path]()  # the first of each
    for path, (label, _) in labels.items():
        label_paths.setdefault(label, path)
    numbers = number_subjects(label_paths, subject_numbers or {})

    recordings: dict[int, dict[int, list[Path]]] = {}
    # label and first path by subject and session
    first_paths: dict[tuple[int, int], tuple[str, Path]] = {}
    for path, (label, name) in labels.items():
        # the session's number, 1 where the path has none
        session = (
            number_session(name)
            if session_numbers is None
            else session_numbers.get(name)
        )
        if session is None:
            continue
        first_name, first = first_paths.setdefault(
            (numbers[label], session), (name, path)
        )
        if first_name != name:
            raise BrainhiveError(
                f"{path} and {first} are of two sessions {session}",
                "rename one; or preparation.sessions=LABEL,LABEL numbers sessions in "
                "this order",
            )
        recordings.setdefault(numbers[label], {}).setdefault(session, []).append(path)
    return recordings


def read_session(path: Path, root: Path) -> str:
    """Read the label of the last session in a path below a folder: 01 of ses-01; empty
    where it has none.
    """
    sessions = SESSION_LABEL.findall(
        path.as_posix().removeprefix(f"{root.as_posix()}/")
    )
    return "".join(sessions[-1]) if sessions else ""


def read_label(path: Path, root: Path) -> str:
    """Read the label of the subject in a path below a folder, as BIDS has it: sub-01 of
    Subject_01.

    Raises:
        BrainhiveError: if the path does not say whose it is.
    """
    # the last subject in the path counts, with what follows its number: 07A
    relative_path = path.as_posix().removeprefix(f"{root.as_posix()}/")
    for match in reversed([*SUBJECT_LABEL.finditer(relative_path)]):
        end = LABEL_END.match(relative_path, match.end())
        return f"sub-{match[1] or ''}{match[2]}{end[0] if end else ''}"
    if unnumbered := UNNUMBERED.search(relative_path):
        return unnumbered[0]
    raise BrainhiveError(
        f"{path} does not say whose it is", "name it sub-01_ses-01… or sub-01…"
    )


def describe_labels(
    files: Mapping[int, Mapping[int, Sequence[Path]]],
    root: Path,
    subjects: Sequence[int],
    subject_numbers: Mapping[str, int],
) -> list[str]:
    """Describe subjects and sessions whose labels are not their numbers, and labels
    without files.

    Args:
        files: Paths by subject and session.
        root: The folder that they are below.
        subjects: Those that are described.
        subject_numbers: The recipe's numbers of subjects by label.
    """
    labels = set[str]()
    lines = list[str]()
    sessions: dict[int, str] = {}
    for subject, session_paths in files.items():
        labels_of_files = dict.fromkeys(
            read_label(path, root) for paths in session_paths.values() for path in paths
        )
        # sub-07 is subject 7, and needs no line
        if subject in subjects and [
            label[4:].lstrip("0") for label in labels_of_files
        ] != [str(subject)]:
            lines.append(f"subject {subject} is {' and '.join(labels_of_files)}")
        labels |= labels_of_files.keys()
        sessions |= {
            number: read_session(paths[0], root)
            for number, paths in session_paths.items()
        }

    # labels of sessions that are not their numbers
    if renamed := [
        f"{n} is ses-{name}"
        for n, name in sorted(sessions.items())
        if name.lstrip("0") not in ("", str(n))
    ]:
        lines.append(f"session {', '.join(renamed)}")
    # labels that the recipe numbers, and no file has
    absent = sorted(subject_numbers.keys() - labels)
    lines += [f"no file is of {label}, which subject_numbers names" for label in absent]
    return lines
