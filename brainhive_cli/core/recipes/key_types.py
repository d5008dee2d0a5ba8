"""Types of recipe keys, such as lists of names and numbers, patterns, and runs."""

import os
import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
)

from brainhive_cli.core.base import CELL_ESCAPES, RecipeError
from brainhive_cli.core.files import show_value

MAX_LABEL_LETTERS = 80
"""Largest number of letters in the label of a run."""


def split_commas(value: Any) -> Any:
    """Split a text such as `a,b` into a list.

    A list, a tuple and None are returned unchanged. Any other value becomes a list
    of length 1.
    """
    if isinstance(value, str):
        items = [item.strip() for item in value.split(",")]
        return [item for item in items if item]
    return value if isinstance(value, list | tuple | None) else [value]


def read_ranges(value: Any) -> Any:
    """Split a text such as `1-4,7` into a list, and expand the ranges to numbers.

    Items that are not ranges stay unchanged.
    """
    items = split_commas(value)
    if not isinstance(items, list | tuple):
        return items
    numbers: list[Any] = []
    for item in items:
        # Pattern of a range of numbers, such as `1-4`.
        match = (
            re.fullmatch(r" *(\d{1,6}) *- *(\d{1,6}) *", item)
            if isinstance(item, str)
            else None
        )
        if match is None:
            numbers.append(item)
        else:
            numbers += range(int(match[1]), int(match[2]) + 1)
    return numbers


def _require_unique(value: list[Any]) -> list[Any]:
    """Raise an error if a list is empty or contains a value twice."""
    if not value:
        raise ValueError("the list is empty; name at least one value")
    if len(set(value)) < len(value):
        raise ValueError("the list contains a value twice; name each value once")
    return value


def _check_pattern(value: str) -> str:
    """Raise an error if a pattern is absolute, or has `**` inside a name."""
    if os.path.isabs(value):
        raise ValueError(
            "the pattern is an absolute path; write it relative to the root folder"
        )
    if any("**" in name and name != "**" for name in value.split("/")):
        raise ValueError("** stands for whole folders, as in **/name")
    return value


Pattern = Annotated[str, AfterValidator(_check_pattern)]
"""Pattern of files below a folder, with the wildcards of a shell."""

NameList = Annotated[list[str], BeforeValidator(split_commas)]
"""List of names, such as `a,b`."""


def _take_single_run(value: Any) -> Any:
    """Return the only item of a list. Any value that is not a list stays unchanged."""
    if not isinstance(value, list) or not value:
        return value
    if len(value) > 1:
        names = ", ".join(map(str, value))
        raise RecipeError(
            f"expected a single run, got {len(value)} runs: {names}",
            "name a single run",
        )
    return value[0]


OneRun = Annotated[str | None, BeforeValidator(_take_single_run)]
"""Name of a single run. The command line passes a list, because the user may write
several names without a flag.
"""


def describe_bad_label(label: str) -> str:
    """Return why a text cannot be the label of a run, or "" if it can."""
    if len(label) > MAX_LABEL_LETTERS:
        return f"has {len(label)} letters"
    if label.translate(CELL_ESCAPES) != label:
        return "has an invisible character"
    return ""


def _check_label(value: str) -> str:
    """Return a label without blanks at its ends. Raise an error for a bad label."""
    label = value.strip(" ")
    reason = describe_bad_label(label)
    if reason:
        raise RecipeError(
            f"label {reason}: {show_value(value)}",
            f"write at most {MAX_LABEL_LETTERS} letters, as in --label 'wide window'",
        )
    return label


RunLabel = Annotated[str, AfterValidator(_check_label)]
"""Text by which a user tells a run from others."""

UniqueNames = Annotated[NameList, AfterValidator(_require_unique)]
"""List of at least one name, without repetitions."""

WholeNumber = Annotated[int, Field(ge=0, lt=2**63)]
"""Number from 0 to the largest integer of 64 bits."""

Numbers = Annotated[
    list[WholeNumber],
    BeforeValidator(read_ranges),
    AfterValidator(_require_unique),
    # Largest length of a list of numbers. No study has more seeds or subjects.
    Field(examples=["1,2", "1-4"], max_length=10_000),
]
"""List of whole numbers, such as `1,2`, the range `1-4`, or `1-4,7`."""

Copies = Annotated[
    Literal["refuse", "allow"],
    Field(
        description="treatment of test pictures that are (near-)copies of training "
        "pictures under other names; refuse: leave them out, or stop with an error if "
        "they are more than a fifth of the test pictures; allow: test them, and mark "
        "every number",
    ),
]
"""Treatment of test pictures that are copies of training pictures."""

ComparedHead = Annotated[
    str | None,
    Field(
        description="head whose flattened output is compared with the pictures. "
        "Default: the model's own choice, token, or its only head",
    ),
]
"""Head of a model that is compared with pictures."""
