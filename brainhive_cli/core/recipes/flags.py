"""Flags and arguments by which a command line sets the keys of a recipe."""

from dataclasses import dataclass
from typing import Any

from pydantic import Field

START = "Start here"
"""Section of the help with the commands for new users."""
STEPS = "Steps"
"""Section of the help with the steps of a study."""
STORES = "Checks, and embeddings of other programs"
"""Section of the help with the commands on existing files."""


@dataclass(frozen=True)
class Flag:
    """Flag of a recipe key, in the annotation of its field.

    The help of the flag is the first sentence of the key's description.

    Attributes:
        name: Flag as the user types it, or "" for the name of the key with hyphens.
        step: Key that the flag sets in a part, such as `kind`, or "".
        names: Names that complete the value, as in `@runs/train-align`, or "" for the
            allowed values of the key. The signs are those of `cli.table.list_names`.
    """

    name: str = ""
    step: str = ""
    names: str = ""


@dataclass(frozen=True)
class Arguments:
    """Mark of the recipe key that takes all arguments without a flag and without a `=`.

    Attributes:
        metavar: Placeholder in the help: NAME or PATH.
        names: Names that complete the arguments, as in `Flag`.
    """

    metavar: str = "NAME"
    names: str = ""


def flag_field(
    default: Any, description: str, flag: str = "", names: str = "", **options: Any
) -> Any:
    """Make the pydantic field of a recipe key that has a flag.

    Args:
        default: Default value of the key, which the help shows.
        description: Meaning of the key. Its first sentence is the help of the flag, and
            words after `default: ` are shown as the default.
        flag: Flag as the user types it, or "" for the name of the key with hyphens.
        names: Names that complete the value, as in `Flag`.
        options: Further arguments of `pydantic.Field`.
    """
    field = Field(default, description=description, **options)
    field.metadata.append(Flag(flag, names=names))
    return field
