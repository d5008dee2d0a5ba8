"""JSON Schema of recipes, for editors."""

import yaml

from brainhive_cli.commands.recipes import import_recipe, list_shipped
from brainhive_cli.core.recipes.recipe import shipped_recipes
from brainhive_cli.core.recipes.recipe_schema import (
    SHORT_FORM,
    describe_recipe,
    write_schema_line,
)
from tests.test_architecture import REGENERATE
from tools import recipe_schemas


def test_schemas_are_current():
    current = {path.name: path.read_text() for path in recipe_schemas.FOLDER.iterdir()}
    assert current == recipe_schemas.write_schemas(), REGENERATE


def test_a_shipped_recipe_begins_with_the_path_of_its_schema():
    for shipped in list_shipped():
        line = shipped.path.read_text(encoding="utf-8").splitlines()[0]
        name = shipped.path.relative_to(shipped_recipes()).as_posix()
        assert line == write_schema_line(name), f"write it first into recipes/{name}"
        schema = shipped.path.parent / line.partition("$schema=")[2]
        assert schema.resolve().is_file(), name


def list_unknown_keys(value, schema, definitions):
    """List the keys of a recipe that its schema refuses."""
    while "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    if not isinstance(value, dict) or schema.get("additionalProperties") is not False:
        return []
    properties = schema["properties"]
    unknown = [key for key in value if key not in properties]
    for key, inner_value in value.items():
        if key in properties:
            unknown += list_unknown_keys(inner_value, properties[key], definitions)
    return unknown


def test_a_schema_knows_the_keys_of_all_shipped_recipes():
    for shipped in list_shipped():
        schema = describe_recipe(import_recipe(shipped.command))
        fields = yaml.safe_load(shipped.path.read_text(encoding="utf-8")) or {}
        unknown = list_unknown_keys(fields, schema, schema["$defs"])
        assert unknown == [], shipped.key


def test_a_schema_refuses_a_misspelt_key():
    schema = describe_recipe(import_recipe("train-align"))
    fields = {"train": {"lrr": 0.1}, "extends": "my.yaml", "encoderz": []}
    assert list_unknown_keys(fields, schema, schema["$defs"]) == ["encoderz", "lrr"]


def test_a_schema_allows_the_short_forms_of_values():
    properties = describe_recipe(import_recipe("embed"))["properties"]
    # the text train,test is a list
    assert SHORT_FORM in properties["splits"]["anyOf"]
    # an encoder is a name or a part
    assert {"type", "anyOf", "$ref"}.isdisjoint(properties["encoders"])
