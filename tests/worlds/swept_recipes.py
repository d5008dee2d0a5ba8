"""Recipes of the runs that a command line means."""

from typing import Any

from brainhive_cli.cli.lines import resolve_line


def list_run_recipes(
    command: str, recipe: str | None = None, *overrides: str
) -> dict[str, Any]:
    """List the recipe of each run by its swept values, `""` without a sweep."""
    resolved_command, module, resolved = resolve_line(command, recipe, {}, overrides)
    if resolved_command != "workflow":
        return {"": resolved}
    recipes = {}
    for name in resolved.expanded_steps:
        label = name.removeprefix(f"{command} · ")
        _, _, recipes[label] = module.resolve_step(resolved, name, {})
    return recipes
