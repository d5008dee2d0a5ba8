"""Failures of the items of a command, and its exit code."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from brainhive_cli.core.base import console
from brainhive_cli.core.base.errors import (
    BrainhiveError,
    DeviceError,
    MissingData,
    MissingExtra,
    RecipeError,
)


class Failures:
    """Errors of items, such as files, whose other items are completed nevertheless.

    Attributes:
        errors: Errors of the items that failed, in their order.
    """

    def __init__(self) -> None:
        self.errors: list[BrainhiveError] = []

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Keep the error of the item in the block, so that the next item can begin.

        Errors of the recipe and of the device end the command, because they concern
        every item.
        """
        try:
            yield
        except (RecipeError, DeviceError, MissingExtra):
            raise
        except BrainhiveError as error:
            self.errors.append(error)

    def finish(self, n_items: int) -> int:
        """Write the errors with their hints, and return the exit code of the command.

        Args:
            n_items: Number of all items.

        Raises:
            BrainhiveError: the last error, if all items failed.
        """
        errors = list(self.errors)
        last_error = errors.pop() if len(errors) == n_items > 0 else None
        if console.writes_messages():
            for error in errors:
                console.show_error(error)
            if errors and not last_error:
                n_finished = n_items - len(errors)
                console.say(
                    f"{n_finished} of {n_items} are finished, the others failed"
                )
        if last_error:
            raise last_error
        return choose_exit_code(errors)

    def as_details(self) -> dict[str, Any]:
        """Return the errors for the JSON document of a command, or {} if none."""
        if not self.errors:
            return {}
        failures = []
        for error in self.errors:
            failures.append({"error": error.message, "hint": str(error.hint)})
        return {"failures": failures}


def choose_exit_code(errors: Sequence[BrainhiveError]) -> int:
    """Choose the exit code of a command with several errors.

    The code for missing files wins, because a program can download them. Otherwise it
    is the largest code, or 0 without errors.
    """
    exit_codes = {error.exit_code for error in errors}
    if MissingData.exit_code in exit_codes:
        return MissingData.exit_code
    return max(exit_codes, default=0)
