"""Recipe key of subjects, by number or by name."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from brainhive_cli.core.recipes import Numbers, split_commas

PEOPLE = {
    "BMD": 10,
    "BOLD5000": 4,
    "deeprecon": 3,
    "GOD": 5,
    "HAD": 30,
    "NOD": 30,
    "NSD": 8,
    "THINGS": 3,
}
"""Number of people in each study of MOSAIC, in the publisher's order."""


def _number_records() -> dict[str, int]:
    """Number the subjects of MOSAIC from 1, study by study."""
    numbers = dict[str, int]()
    for study, n_people in PEOPLE.items():
        for person in range(1, n_people + 1):
            numbers[f"sub-{person:02d}_{study}"] = len(numbers) + 1
    return numbers


RECORDS = _number_records()
"""Subject number of each record of MOSAIC, keyed by names such as "sub-01_GOD"."""


def _read_subjects(value: Any) -> Any:
    """Convert names of MOSAIC to numbers, and `all` to None."""
    if value in ("all", ["all"]):
        return None
    subjects = split_commas(value)
    if not isinstance(subjects, list | tuple):
        return subjects
    return [RECORDS.get(str(subject), subject) for subject in subjects]


Subjects = Annotated[
    Numbers | None,
    BeforeValidator(_read_subjects),
    Field(examples=["1,2", "1-4", "all"]),
]
"""Subjects by number, or by name for MOSAIC. `all` means the default."""
