"""Subjects as recipes and files name them."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from brainhive_cli.core.key_types import Numbers, split_commas

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
"""People of each study of MOSAIC, in the publisher's order."""
RECORDS = {
    f"sub-{person:02d}_{study}": sum([*PEOPLE.values()][:index]) + person
    for index, (study, people) in enumerate(PEOPLE.items())
    for person in range(1, people + 1)
}
"""Subject number of each record of MOSAIC, by the record's name."""


def _read_subjects(value: Any) -> Any:
    """Read subjects by number or name; None stands for `all`."""
    if value in ("all", ["all"]):
        return None
    parts = split_commas(value)
    is_list = isinstance(parts, list | tuple)
    return [RECORDS.get(str(part), part) for part in parts] if is_list else parts


Subjects = Annotated[
    Numbers | None,
    BeforeValidator(_read_subjects),
    Field(examples=["1,2", "1-4", "all"]),
]
"""Subjects by number, MOSAIC's also by name. `all` leaves the choice to the default."""
