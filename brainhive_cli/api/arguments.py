"""Checks of the arguments of public functions."""

from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from brainhive_cli.training.alignment.trained.model import TrainedModel

ARGUMENT_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "subject": ((Integral,), "a whole number"),
    "path": ((str, Path), "a name or path"),
}
"""Allowed types and their description, by the name of an argument. Other arguments are
text.
"""


def check_arguments(**arguments: object) -> None:
    """Raise an error if an argument has a wrong type or cannot be part of a file name.

    Args:
        arguments: Values by the name of the argument, such as `subject`.
    """
    from brainhive_cli.core.errors import RecipeError
    from brainhive_cli.core.files import describe_bad_text

    for name, value in arguments.items():
        allowed_types, description = ARGUMENT_TYPES.get(name, ((str,), "text"))

        # show the value on a single line of at most 80 characters
        short_value = " ".join(repr(value)[:300].split())[:80]

        # no argument is a bool, but Python counts True and False as integers
        if isinstance(value, bool) or not isinstance(value, allowed_types):
            raise RecipeError(
                f"{name} is {short_value}, of type {type(value).__name__}",
                f"{name} must be {description}; see help(brainhive_cli.api)",
            )

        problem = describe_bad_text(str(value))
        if problem:
            raise RecipeError(
                f"{name} {short_value} {problem}",
                "give a name or path that a file can have",
            )


def choose_subject(member: "TrainedModel", subject: int | None) -> int:
    """Return the requested subject, or the only test subject of a trained model."""
    from brainhive_cli.core.errors import RecipeError

    test_subjects = member.cell.tested_on
    if subject is None and len(test_subjects) == 1:
        return test_subjects[0]

    problem = "several subjects"
    if subject is not None:
        check_arguments(subject=subject)
        if subject in test_subjects:
            return subject
        problem = f"other subjects than {subject}"
    raise RecipeError(
        f"{member.cell.name} is tested on {problem}",
        f"subject={' or '.join(map(str, test_subjects))}",
    )
