"""Subjects by the labels of their files (sub-07A), and the number that each label has."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field

from brainhive_cli.core.errors import BrainhiveError

SubjectNumbers = Annotated[
    dict[str, int],
    Field(
        description="number of a subject by label, as {sub-07B: 8}; default: the first number of its label",
        examples=["{sub-07A: 7, sub-07B: 8}"],
    ),
]
"""Key of preparations whose files are named by whoever recorded them."""


def number_subjects(label_paths: Mapping[str, Path], numbers: Mapping[str, int]) -> dict[str, int]:
    """Number the labels of subjects: as the recipe says, else by the first number of the label.

    Args:
        label_paths: A path of each label, for messages; labels are those of BIDS, as `sub-07A`.
        numbers: The recipe's numbers by label; labels that it gives one number are one person.

    Raises:
        BrainhiveError: naming a label without a number, or two labels of one number.
    """
    numbered, key = dict[str, int](), "preparation.subject_numbers"
    for label in label_paths:
        digits = re.search(r"\d+", label)
        if label not in numbers and digits is None:
            raise BrainhiveError(f"{label_paths[label]}: {label} has no number", f"{key}.{label}=NUMBER")
        numbered[label] = numbers[label] if digits is None or label in numbers else int(digits[0])

    # sub-1 and sub-001, or sub-07A and sub-07B, may be two people
    first: dict[int, str] = {}
    for label, number in numbered.items():
        other = first.setdefault(number, label)
        if other != label and not {label, other} <= numbers.keys():
            problem = f"{label_paths[other]} and {label_paths[label]} are of {other} and {label}"
            way = f"{key}.{label}={max(numbered.values()) + 1}"
            way += f"; if they are one person: {key}={{{other}: {number}, {label}: {number}}}"
            raise BrainhiveError(f"{problem}: both would be subject {number}", way)
    return numbered
