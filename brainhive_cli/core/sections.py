"""Sections of a recipe, laid over each other, and keys without effect."""

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


def lay_over(default: Any, value: Any, merges_all: bool = False) -> Any:
    """Lay a part or section, some of whose keys are set, over its default; another kind
    stands alone.

    Args:
        default: What is there if nothing is set: a model, or `{kind: …, knob: …}`; any
            other is replaced.
        value: What is set: a mapping, a kind alone, or what no part and no section is.
        merges_all: Whether any two mappings are merged, and a part in the default may
            be its kind alone, as in files of recipes.
    """
    # only parts and sections are laid over each other
    if isinstance(default, BaseModel):
        default = default.model_dump(mode="json", exclude_defaults=True)
    elif merges_all and isinstance(default, str) and isinstance(value, Mapping):
        default = {"kind": default}
    elif not (isinstance(default, Mapping) and (merges_all or "kind" in default)):
        return value

    # knobs of the default mean nothing to another kind
    if isinstance(value, str) and "kind" in default:
        value = {"kind": value}
    if not isinstance(value, Mapping) or not is_same_kind(
        value.get("kind", default.get("kind")), default.get("kind")
    ):
        return value
    return {
        **default,
        **{
            key: lay_over(default.get(key), below, merges_all)
            for key, below in value.items()
        },
    }


def is_same_kind(one: Any, other: Any) -> bool:
    """Whether two kinds are one, however they are written: `my-net` or `my_net`."""
    return str(one).replace("-", "_") == str(other).replace("-", "_")


class Section(BaseModel):
    """Keys of a recipe, a block of it or a part: frozen, closed to unknown ones, laid
    over their defaults.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _lays_parts_over_their_defaults(cls, fields: Any) -> Any:
        """Keep the default's knobs that a part or section in it does not set, as
        `prior: {depth: 2}`.
        """
        if not isinstance(fields, Mapping):
            return fields
        # keys that are not set need no merge: pydantic fills in their defaults
        defaults = {
            name: field.default
            for name, field in cls.model_fields.items()
            if name in fields
        }
        return {
            **fields,
            **{name: lay_over(value, fields[name]) for name, value in defaults.items()},
        }


def added_field(default: Any, **about: Any) -> Any:
    """Describe a key that was added later: documents name it only where it is set."""
    return Field(default, exclude_if=lambda value: value == default, **about)


def among(noun: str, known: Sequence[str]) -> AfterValidator:
    """Refuse names that are not known, with a guess at what was meant."""

    def check(names: list[str]) -> list[str]:
        if unknown := [name for name in names if name not in known]:
            raise RecipeError(
                f"no {noun} called {unknown[0]!r}",
                f"{guess(unknown[0], known)}there are: {', '.join(known)}",
            )
        return names

    return AfterValidator(check)


def refuse_idle(
    section: BaseModel,
    keys: str | Iterable[str],
    when: str,
    hint: str = "leave it out",
) -> None:
    """Refuse keys that would have no effect, if they are set to another value than
    their default.

    Args:
        section: The block of the recipe.
        keys: The key, or those of its keys, that have no effect here.
        when: Why not, to follow "has no effect".
        hint: What to do.

    Raises:
        RecipeError: naming the first of them.
    """
    # keys at their default do no harm
    fields = type(section).model_fields
    for key in [keys] if isinstance(keys, str) else keys:
        value = getattr(section, key)
        if value != fields[key].get_default(call_default_factory=True):
            plain = (
                value.model_dump(mode="json") if isinstance(value, BaseModel) else value
            )
            raise RecipeError(
                f"{key} has no effect {when}, and is {show_value(plain)}", hint
            )
