"""Types of recipe keys: lists of names and numbers, patterns, one run."""

import os
import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
)

from brainhive_cli.core.errors import RecipeError

RANGE = re.compile(r" *(\d{1,6}) *- *(\d{1,6}) *")
"""The first and the last of several numbers."""

MAX_NUMBERS = 10_000
"""Of a list: more than any study has seeds or subjects."""


def split(value: Any) -> Any:
    """Read `a,b` as a list, so that flags and overrides need no brackets."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value if isinstance(value, list | tuple | None) else [value]


def ranges(value: Any) -> Any:
    """Read `1-4` as the numbers from 1 to 4."""
    parts = split(value)
    if not isinstance(parts, list | tuple):
        return parts

    # numbers as they are, ranges number by number
    numbers: list[Any] = []
    for part in parts:
        ends = RANGE.fullmatch(part) if isinstance(part, str) else None
        numbers += [part] if ends is None else range(int(ends[1]), int(ends[2]) + 1)
    return numbers


no = BeforeValidator(lambda value: "no" if value is False else value)
"""Undoes YAML's reading of a bare `no` as false."""


def _each_once(value: list[Any]) -> list[Any]:
    if not value or len(set(value)) < len(value):
        raise ValueError("name each once, and at least one")
    return value


def _pattern(value: str) -> str:
    if os.path.isabs(value):
        raise ValueError("is an absolute path, and must be one below its root")
    if any("**" in part and part != "**" for part in value.split("/")):
        raise ValueError("** stands for whole folders, as in **/name")
    return value


Pattern = Annotated[str, AfterValidator(_pattern)]
"""Files below a folder, with the wildcards of a shell."""

NameList = Annotated[list[str], BeforeValidator(split)]


def _one(value: Any) -> Any:
    if isinstance(value, list) and len(value) > 1:
        raise RecipeError(
            f"{len(value)} runs: {', '.join(map(str, value))}", "name one run"
        )
    return value[0] if isinstance(value, list) and value else value


OneRun = Annotated[str | None, BeforeValidator(_one)]
"""A run, which may stand on the command line without a flag."""

UniqueNames = Annotated[NameList, AfterValidator(_each_once)]

WholeNumber = Annotated[int, Field(ge=0, lt=2**63)]

Numbers = Annotated[
    list[WholeNumber],
    BeforeValidator(ranges),
    AfterValidator(_each_once),
    Field(examples=["1,2", "1-4"], max_length=MAX_NUMBERS),
]
"""Whole numbers: `1,2`, the range `1-4`, or both."""

Copies = Annotated[
    Literal["refuse", "allow"],
    Field(
        description="tested pictures that are (near-)copies of training pictures under "
        "other names are left out, and refused where they are over a "
        "fifth; or they are tested, and every number says so",
    ),
]
"""Treatment of copies of training pictures."""
