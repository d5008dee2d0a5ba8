"""Writes recipes/schemas/, by which editors check recipes: `python -m
tools.recipe_schemas`.
"""

import json
from pathlib import Path

from brainhive_cli.cli.table import COMMANDS
from brainhive_cli.commands.recipes import import_recipe
from brainhive_cli.core.recipes.recipe_schema import FOLDER as NAME, describe_recipe

FOLDER = Path(__file__).parents[1] / "recipes" / NAME


def write_schemas() -> dict[str, str]:
    """Return the text of each schema by file name."""
    schemas = {}
    for command in COMMANDS:
        schema = describe_recipe(import_recipe(command.name))
        text = json.dumps(schema, indent=1, ensure_ascii=False)
        schemas[f"{command.name}.json"] = f"{text}\n"
    return schemas


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in write_schemas().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
