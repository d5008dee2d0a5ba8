"""The keys of a recipe: what each means, its default, and what a shipped recipe sets it to."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel

from brainhive_cli.core import parts


@dataclass(frozen=True)
class Key:
    """One key.

    Attributes:
        path: Its dotted name.
        meaning: What it sets, with its unit.
        default: Its default, as a recipe would write it.
    """

    path: str
    meaning: str
    default: str


def keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[Key]:
    """List the keys of a recipe or of a part; those of sections stand under the section's name."""
    for own, field in model.model_fields.items():
        name = field.alias or own
        default = written(field.get_default(call_default_factory=True, validated_data={}))
        inner = section_of(field.annotation)
        if inner is None or field.default is None or issubclass(inner, parts.Config):
            yield Key(prefix + name, field.description or "", "required" if field.is_required() else default)
        if inner is not None and not issubclass(inner, parts.Config):
            yield from keys_of(inner, f"{prefix}{name}.")


def section_of(annotation: Any) -> type[BaseModel] | None:
    """Find the model of a section: the annotation, or what a union or a list of it holds."""
    if isinstance(annotation, type):
        return annotation if issubclass(annotation, BaseModel) else None
    return next(filter(None, map(section_of, get_args(annotation))), None)


def leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """List the values of nested mappings by their dotted keys."""
    if isinstance(value, Mapping) and value:
        for name, each in value.items():
            yield from leaves(each, f"{prefix}.{name}" if prefix else str(name))
    else:
        yield prefix, value


def written(value: Any) -> str:
    """Write a value as a recipe would."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json", exclude_defaults=True)
        value = value["kind"] if list(value) == ["kind"] else value
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {written(each)}' for key, each in value.items())}}}"
    if isinstance(value, list | tuple | set | frozenset):
        return f"[{', '.join(map(written, value))}]"
    return str(value)
