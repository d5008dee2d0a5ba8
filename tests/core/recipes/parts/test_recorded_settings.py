"""Defaults and limits of all settings beside those that were recorded."""

import importlib
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from brainhive_cli.cli.table import COMMANDS
from brainhive_cli.core.recipes import parts

LIMITS = ("gt", "ge", "lt", "le", "min_length", "max_length")


def describe(field: FieldInfo) -> Any:
    """Give the numbers and truth values of a default, and the limits."""
    default = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(default, BaseModel):
        default = default.model_dump()
    limits = {}
    for limit in field.metadata:
        for name in LIMITS:
            if getattr(limit, name, None) is not None:
                limits[name] = getattr(limit, name)
    return {"default": default, **limits} if limits else default


def settings_of(model: type[BaseModel]) -> dict[str, Any]:
    """Describe the fields of a model, and of those in it."""
    settings = {}
    for name, field in model.model_fields.items():
        is_section = isinstance(field.annotation, type) and issubclass(
            field.annotation, BaseModel
        )
        if is_section:
            settings[name] = settings_of(field.annotation)
        elif not field.is_required():
            settings[name] = describe(field)
    return settings


@pytest.mark.parametrize("shelf", parts.SHELVES)
def test_settings_of_parts(recorded, shelf):
    recorded(
        digits=12,
        **{
            kind: settings_of(parts.load(shelf, kind).Config)
            for kind in parts.list_kinds(shelf)
        },
    )


def test_settings_of_commands(recorded):
    recipes = {}
    for command in COMMANDS:
        file = f"brainhive_cli.commands.{command.name.replace('-', '_')}"
        recipe = getattr(importlib.import_module(file), "Recipe", None)
        if recipe is not None:
            recipes[command.name] = settings_of(recipe)
    recorded(digits=12, **recipes)
