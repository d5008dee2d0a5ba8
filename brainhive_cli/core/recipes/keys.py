"""Keys of recipes: types, command-line flags, sections, and their checks."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from brainhive_cli.core.base import CELL_ESCAPES, RecipeError, guess
from brainhive_cli.core.files import show_value

MAX_LABEL_LETTERS = 80
"""Largest number of letters in the label of a run."""
START = "Start here"
"""Section of the help with the commands for new users."""
STEPS = "Steps"
"""Section of the help with the steps of a study."""
STORES = "Checks, and embeddings of other programs"
"""Section of the help with the commands on existing files."""


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


def merge_with_default(default: Any, value: Any, merges_all: bool = False) -> Any:
    """Merge a value of a recipe with its default. Unset keys keep their default.

    The value replaces the default without a merge in these cases:

    - The default is no section (with `merges_all`: no mapping and no kind).
    - The value is neither a mapping nor a kind.
    - Both are parts, which are sections with a key `kind`, of different kinds.

    Args:
        default: Default: a section, or a part such as `{kind: nice, dropout: 0.4}`.
        value: Value in the recipe: a mapping, or the kind of a part as a text.
        merges_all: True to merge any two mappings, and to accept a default that
            is a kind.

    Returns:
        The merged mapping, or the value itself.
    """
    is_section = isinstance(default, BaseModel)
    if is_section:
        default = default.model_dump(mode="json", exclude_defaults=True)
    elif merges_all and isinstance(default, str) and isinstance(value, Mapping):
        default = {"kind": default}

    # only sections and parts are merged
    if not isinstance(default, Mapping):
        return value
    if not (is_section or merges_all or "kind" in default):
        return value

    # a part of another kind has other settings
    if isinstance(value, str) and "kind" in default:
        value = {"kind": value}
    if not isinstance(value, Mapping):
        return value
    default_kind = default.get("kind")
    if not is_same_kind(value.get("kind", default_kind), default_kind):
        return value

    merged = dict(default)
    for key, inner_value in value.items():
        merged[key] = merge_with_default(default.get(key), inner_value, merges_all)
    return merged


def is_same_kind(kind: Any, other_kind: Any) -> bool:
    """Return True if two kinds are the same, such as `my-net` and `my_net`."""
    return str(kind).replace("-", "_") == str(other_kind).replace("-", "_")


class Section(BaseModel):
    """Base class of recipes, and of the sections and parts of recipes.

    Objects cannot be changed, and unknown keys are errors.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _merge_parts_with_defaults(cls, fields: Any) -> Any:
        """Merge sections with their defaults: `{depth: 2}` keeps other settings."""
        if not isinstance(fields, Mapping):
            return fields
        merged = dict(fields)
        for name, field in cls.model_fields.items():
            if name in fields:
                merged[name] = merge_with_default(field.default, fields[name])
        return merged


def added_field(default: Any, **options: Any) -> Any:
    """Make a pydantic field that is written only if it differs from the default.

    Documents of earlier versions, which lack the key, stay the same.

    Args:
        default: Default value.
        options: Further arguments of `pydantic.Field`.
    """
    return Field(default, exclude_if=lambda value: value == default, **options)


def require_names(noun: str, valid_names: Sequence[str]) -> AfterValidator:
    """Make a pydantic validator that raises a RecipeError for invalid names in a list.

    Args:
        noun: Noun for a name in the error message, such as "analysis".
        valid_names: Names that the list may contain.

    Returns:
        The validator, for use in `Annotated[list[str], ...]`.
    """

    def check(names: list[str]) -> list[str]:
        for name in names:
            if name not in valid_names:
                raise RecipeError(
                    f"no {noun} called {name!r}",
                    f"{guess(name, valid_names)}choose from: {', '.join(valid_names)}",
                )
        return names

    return AfterValidator(check)


def refuse_idle(
    section: BaseModel,
    keys: str | Iterable[str],
    reason: str,
    hint: str = "leave it out",
) -> None:
    """Raise an error if a key that would have no effect differs from its default.

    Args:
        section: Section of the recipe.
        keys: Key or keys of the section that have no effect.
        reason: Text after "has no effect" in the message, such as "without a prior".
        hint: Advice for the error.

    Raises:
        RecipeError: for the first of these keys with another value than its default.
    """
    fields = type(section).model_fields
    idle_keys = [keys] if isinstance(keys, str) else keys
    for key in idle_keys:
        value = getattr(section, key)
        if value != fields[key].get_default(call_default_factory=True):
            if isinstance(value, BaseModel):
                value = value.model_dump(mode="json")
            raise RecipeError(
                f"{key} has no effect {reason}, but is set to {show_value(value)}", hint
            )


Module = Annotated[str, Field(pattern=r"^\w+(([./@:,=~]|[+-]+)\w+)*\+*$")]
"""Name of an environment module. A path is not allowed: it could run any code."""


class Cluster(Section):
    """Resources of each task of the job that `--submit` requests from a cluster."""

    template: str | None = Field(
        None,
        description=(
            "your Jinja2 template of the job script; default: a script for SLURM"
        ),
    )
    tasks: int = Field(
        4,
        ge=1,
        # The option `--dependency` of the next job names each task in 24 bytes, and an
        # argument has at most 128 KiB.
        le=5_000,
        description="largest number of tasks that share the work",
    )
    time: str | None = Field(
        None,
        pattern=r"^(\d+-)?\d{1,3}:[0-5]\d:[0-5]\d$",
        description="time limit of a task, HH:MM:SS; another task continues the "
        "unfinished work; default: the limit of the cluster",
        examples=["08:00:00"],
    )

    # resources of a task
    gpus: int | None = Field(
        None,
        ge=0,
        description="number of GPUs of a task (default: 1, or 0 if run.device=cpu)",
    )
    cpus: int = Field(8, ge=1, description="number of CPU cores of a task")
    memory: str | None = Field(
        None, pattern=r"^\d+[KMGT]?$", description="memory of a task", examples=["64G"]
    )

    # queue and account
    partition: str | None = Field(
        None, pattern=r"^[\w,.-]+$", description="partition (queue) of the job"
    )
    account: str | None = Field(
        None, pattern=r"^[\w.-]+$", description="account that is charged"
    )

    # software that a task loads
    modules: Annotated[list[Module], BeforeValidator(split_commas)] = Field(
        [], description="environment modules to load before the command"
    )
    container: str | None = Field(
        None, description="Apptainer image in which the command runs"
    )
