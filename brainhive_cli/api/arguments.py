"""Checks of the arguments of public functions, whose errors name the argument."""

from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from brainhive_cli.core.base import BrainhiveError
    from brainhive_cli.data.datasets import Dataset
    from brainhive_cli.training.alignment.trained import TrainedModel

MAX_VALUE_LENGTH = 80
"""Largest number of characters of a wrong value in a message."""


def refuse(name: str, value: object, allowed: str) -> "BrainhiveError":
    """Make the error of a wrong argument, which shows its value and the allowed values.

    Args:
        name: Name of the argument.
        value: Wrong value.
        allowed: Allowed values, in words that follow "NAME must be".
    """
    from brainhive_cli.core.base import RecipeError

    # show the value on a single line
    short_value = " ".join(repr(value)[:300].split())[:MAX_VALUE_LENGTH]
    return RecipeError(
        f"{name} is {short_value}, of type {type(value).__name__}",
        f"{name} must be {allowed}",
    )


def _check_kind(kind: Any, allowed: str, arguments: Mapping[str, object]) -> None:
    """Raise an error if an argument is of another type, or has forbidden characters.

    Args:
        kind: Allowed type or types.
        allowed: Allowed values, in words that follow "NAME must be".
        arguments: Arguments by name.
    """
    for name, value in arguments.items():
        # Python counts True and False as integers
        is_boolean = isinstance(value, bool) and kind in (Integral, Real)
        if is_boolean or not isinstance(value, kind):
            raise refuse(name, value, allowed)
        if isinstance(value, str | Path):
            _check_characters(name, value)


def check_text(**arguments: object) -> None:
    """Raise an error if an argument is no text that a file name can have."""
    _check_kind(str, "text", arguments)


def check_path(**arguments: object) -> None:
    """Raise an error if an argument is no name or path."""
    _check_kind(str | Path, "a name or path", arguments)


def check_subject(subject: object) -> None:
    """Raise an error if the number of a subject is not a whole number."""
    _check_kind(Integral, "a whole number", {"subject": subject})


def check_flags(**arguments: object) -> None:
    """Raise an error if an argument is neither True nor False nor None."""
    _check_kind(bool | None, "True, False or None", arguments)


def check_share(**arguments: Any) -> None:
    """Raise an error if an argument is not between 0 and 1."""
    allowed = "a number between 0 and 1, such as 0.2"
    _check_kind(Real, allowed, arguments)
    for name, value in arguments.items():
        if not 0 < value < 1:
            raise refuse(name, value, allowed)


def check_mapping(**arguments: object) -> None:
    """Raise an error if an argument is neither a dict nor None."""
    _check_kind(Mapping | None, "a dict or None", arguments)


def check_folder(**arguments: object) -> None:
    """Raise an error if an argument is no path of an existing folder."""
    from brainhive_cli.core.base import MissingData
    from brainhive_cli.core.files import locate

    check_path(**arguments)
    for name, value in arguments.items():
        path = locate(str(value))
        if not path.is_dir():
            raise MissingData(
                f"{name} is {str(value)!r}, and there is no folder {path}",
                f"{name} must be a folder that exists",
            )


def check_name(name: str, value: str, names: Sequence[str], owner: str) -> None:
    """Raise an error if a value is not among the names that its owner has.

    Args:
        name: Name of the argument.
        value: Value of the argument.
        names: Allowed values.
        owner: Owner of the allowed values, such as a run.
    """
    from brainhive_cli.core.base import MissingData, guess

    if value not in names:
        raise MissingData(
            f"{name} is {value!r}, which {owner} does not have",
            guess(value, names) + list_allowed(names),
        )


def check_folders(root: Path, **names: str) -> None:
    """Raise an error if folders inside each other do not exist.

    Args:
        root: Outermost folder.
        names: Name of each further folder, by the name of the argument.
    """
    folder = root
    for name, value in names.items():
        if not (folder / value).is_dir():
            folders = [path.name for path in folder.glob("*/")]
            visible_names = [path for path in sorted(folders) if path[0] != "."]
            check_name(name, value, visible_names, str(folder))
        folder = folder / value


def list_allowed(names: Sequence[object]) -> str:
    """Write allowed values in words, at most 10."""
    # Largest number of allowed values in a message.
    max_listed = 10
    texts = [str(name) for name in names[:max_listed]]
    if len(names) > max_listed:
        texts.append(f"and {len(names) - max_listed} more")
    return f"it has: {', '.join(texts) or 'none'}"


def choose_subject(member: "TrainedModel", subject: int | None) -> int:
    """Return the requested subject, or the only test subject of a trained model."""
    from brainhive_cli.core.base import RecipeError

    test_subjects = member.cell.tested_on
    if subject is None and len(test_subjects) == 1:
        return test_subjects[0]
    if subject is not None:
        check_subject(subject)
        if subject in test_subjects:
            return subject

    subjects = " or ".join(map(str, test_subjects))
    raise RecipeError(
        f"subject is {subject}, but cell {member.cell.name} is tested on "
        f"subject {subjects}",
        f"subject must be {subjects}",
    )


def check_split(dataset: "Dataset", split: str) -> None:
    """Raise an error if a data set does not have a split."""
    check_text(split=split)
    splits = list(dataset.splits)
    # held-out trials or pictures of `train` are tested as `test`
    if dataset.holdout.divides_train and "test" not in splits:
        splits.append("test")
    check_name("split", split, splits, f"data set {dataset.name}")


def _check_characters(name: str, value: object) -> None:
    """Raise an error if a text has characters that a file name cannot have."""
    from brainhive_cli.core.base import RecipeError
    from brainhive_cli.core.files import describe_bad_text

    problem = describe_bad_text(str(value))
    if problem:
        raise RecipeError(
            f"{name} {str(value)[:MAX_VALUE_LENGTH]!r} {problem}",
            f"{name} must be text that a file name can have",
        )
