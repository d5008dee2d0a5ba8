"""Sections of a recipe: base class, merge with default values, and checks of keys."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    model_validator,
)

from brainhive_cli.core.documents import show_value
from brainhive_cli.core.errors import RecipeError, guess


def merge_with_default(default: Any, value: Any, merges_all: bool = False) -> Any:
    """Merge a value of a recipe (a YAML file of settings) with its default.

    A section is a block of a recipe, such as `train`. A part is a section whose key
    `kind` selects an implementation. Keys that the value does not set keep their
    default. A part of another kind replaces the default without a merge, because each
    kind has its own settings.

    Args:
        default: Default value: a section, or a part such as `{kind: nice, dropout:
            0.4}`. The value replaces a default of any other type.
        value: Value in the recipe: a mapping, or a text with the kind of a part. A
            value of any other type replaces the default.
        merges_all: If True, merge any two mappings, and also accept a default that is
            the kind of a part as a text. Used when a recipe file extends another file.

    Returns:
        The merged mapping, or the value itself if it replaces the default.
    """
    # write the default as a mapping
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

    # a part of another kind does not have the settings of the default
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
    """Return True if two names mean the same kind, such as `my-net` and `my_net`."""
    return str(kind).replace("-", "_") == str(other_kind).replace("-", "_")


class Section(BaseModel):
    """Base class of recipes, and of the sections and parts of recipes.

    Objects cannot be changed, and unknown keys are errors. The parts and sections
    inside an object are merged with their default values.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _merge_parts_with_defaults(cls, fields: Any) -> Any:
        """Merge the parts and sections among the fields with their default values.

        For example, `prior: {depth: 2}` keeps the other settings of the default prior.
        """
        if not isinstance(fields, Mapping):
            return fields
        # pydantic fills in the defaults of the keys that are not set
        merged = dict(fields)
        for name, field in cls.model_fields.items():
            if name in fields:
                merged[name] = merge_with_default(field.default, fields[name])
        return merged


def added_field(default: Any, **options: Any) -> Any:
    """Make a field of pydantic for a key that an earlier version did not have.

    A written document contains the key only if its value differs from the default. The
    documents of earlier versions therefore stay the same.

    Args:
        default: Default value.
        options: Further arguments of `pydantic.Field`.
    """
    return Field(default, exclude_if=lambda value: value == default, **options)


def require_names(noun: str, valid_names: Sequence[str]) -> AfterValidator:
    """Make a pydantic validator for a field that is a list of names.

    The validator raises a `RecipeError` for the first invalid name, and returns a valid
    list unchanged.

    Args:
        noun: Kind of thing that a name stands for, such as "analysis". The error
            message contains this word.
        valid_names: Names that the list may contain.

    Returns:
        The validator, for use in `Annotated[list[str], ...]`.
    """

    def check(names: list[str]) -> list[str]:
        for name in names:
            if name not in valid_names:
                # `guess` writes the most similar valid name, or an empty text
                raise RecipeError(
                    f"no {noun} called {name!r}",
                    f"{guess(name, valid_names)}there are: {', '.join(valid_names)}",
                )
        return names

    return AfterValidator(check)


def refuse_idle(
    section: BaseModel,
    keys: str | Iterable[str],
    reason: str,
    hint: str = "leave it out",
) -> None:
    """Raise an error if the user has set a key that would have no effect.

    A key that has its default value does not count as set, even if the user wrote it.

    Args:
        section: Section of the recipe.
        keys: Key or keys of the section that have no effect with the other settings.
        reason: Text after "has no effect" in the message, such as "without a prior".
        hint: Advice for the error.

    Raises:
        RecipeError: if a key is set. The message names the first key that is set, and
            the value of the key.
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
