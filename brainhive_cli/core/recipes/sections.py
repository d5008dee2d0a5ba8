"""Sections of a recipe: base class, merge with defaults, checks of keys, cluster."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from brainhive_cli.core.base import RecipeError, guess
from brainhive_cli.core.files import show_value
from brainhive_cli.core.recipes.key_types import split_commas

Module = Annotated[str, Field(pattern=r"^\w+(([./@:,=~]|[+-]+)\w+)*\+*$")]
"""Name of an environment module. A path is not allowed: it could run any code."""
MAX_TASKS = 5_000
"""Largest number of tasks of a job. The option `--dependency` of the next job names
each task in 24 bytes, and an argument has at most 128 KiB.
"""


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


class Cluster(Section):
    """Resources of each task of the job that `--submit` requests from a cluster."""

    template: str | None = Field(
        None,
        description=(
            "your Jinja2 template of the job script; default: a script for SLURM"
        ),
    )
    tasks: int = Field(
        4, ge=1, le=MAX_TASKS, description="largest number of tasks that share the work"
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
