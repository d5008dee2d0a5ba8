"""JSON Schema of recipes, by which editors complete and check them."""

from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from brainhive_cli.core.recipes.recipe import Recipe

FOLDER = "schemas"
"""Folder of the schemas below the shipped recipes."""
SHORT_FORM = {"type": ["string", "number", "boolean"]}
"""Short form of a value, such as `a,b` for a list."""


class RecipeSchema(GenerateJsonSchema):
    """Generator of schemas that allow each form of a value that a recipe allows."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Return False, because the title would only repeat the key."""
        return False

    def function_before_schema(self, schema: Any) -> Any:
        """Describe a value that a validator of ours may read from a shorter form."""
        inner_schema = self.generate_inner(schema["schema"])
        # validators of a whole section add no forms
        core_schema = schema
        while core_schema["type"].startswith("function-"):
            core_schema = core_schema["schema"]
        if core_schema["type"] == "model-fields":
            return inner_schema
        # parts have short forms inside lists and mappings, too
        if "$ref" in str(inner_schema):
            return {}
        if "items" in inner_schema:
            items = {"anyOf": [inner_schema["items"], {"type": "string"}]}
            inner_schema = {**inner_schema, "items": items}
        return {"anyOf": [inner_schema, SHORT_FORM]}


def describe_recipe(model: type[Recipe]) -> dict[str, Any]:
    """Describe the recipe of a command by a JSON Schema.

    Args:
        model: Class of the recipe.

    Returns:
        The schema. No key is required, because a recipe may extend another.
    """
    schema = model.model_json_schema(schema_generator=RecipeSchema)
    extends = {
        "type": "string",
        "description": "recipe whose keys this recipe replaces",
    }
    schema["properties"]["extends"] = extends
    for section in [schema, *schema.get("$defs", {}).values()]:
        section.pop("required", None)
    return schema


def write_schema_line(recipe: str) -> str:
    """Write the first line of a shipped recipe, from which editors read its schema.

    Args:
        recipe: Path of the recipe below the shipped recipes, such as demo/embed.yaml.
    """
    *folders, file_name = recipe.split("/")
    command = file_name.removesuffix(".yaml")
    path = "/".join([".."] * len(folders) + [FOLDER, f"{command}.json"])
    return f"# yaml-language-server: $schema={path}"
