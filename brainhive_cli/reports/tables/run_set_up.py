"""Tables of the whole set-up of a run: settings, inputs, software and command line."""

import shlex
from contextlib import suppress
from typing import Any

from pydantic import BaseModel

from brainhive_cli.core.base import BrainhiveError, Line, MissingData, Table, console
from brainhive_cli.core.results import Facts
from brainhive_cli.core.runs import ENVIRONMENT_FILE, Environment, RunFolder
from brainhive_cli.reports.tables.run_settings import (
    group_settings,
    hide_secrets,
    read_settings,
    write_setting,
)


class RecipeDigests(BaseModel, extra="ignore"):
    """Key of a recipe with the digests of its inputs, by name."""

    digests: dict[str, str] = {}


def lay_out_set_up(folder: RunFolder, facts: Facts) -> list[Table]:
    """Lay out the set-up of a run, with a table for each group of settings.

    Args:
        folder: Folder of the run, which may be unfinished.
        facts: Facts of the finished run, or empty facts.

    Returns:
        Tables of data, model, training, other settings, inputs with digests, software
        and the command lines. Tables without rows are left out.
    """
    groups = group_settings(read_settings(folder, facts), folder.command)

    # inputs, such as stores and weights, by the digest of their content
    with suppress(BrainhiveError):
        digests = folder.recipe(RecipeDigests).digests
        groups["Inputs"] = [(hide_secrets(name), digests[name]) for name in digests]
    environment = Environment()
    with suppress(MissingData):
        environment = folder.read_json(ENVIRONMENT_FILE, Environment)
    groups["Software and device"] = _list_software(environment)
    command_lines = "Command lines"
    groups[command_lines] = _list_command_lines(folder, environment)

    tables = []
    # Headings of the columns of tables that are not of settings, by title.
    headings = {
        "Inputs": ("input", "digest"),
        "Software and device": ("item", "value"),
        command_lines: ("use", "line"),
    }
    for title, rows in groups.items():
        columns = headings.get(title, ("key", "value"))
        is_copied = title == command_lines
        if rows:
            tables.append(
                Table(title, columns, rows, has_results=False, is_copied=is_copied)
            )
    return tables


def _list_software(environment: Environment) -> list[tuple[str, str]]:
    """List the versions, the device and the times of a run."""
    fields: dict[str, Any] = environment.model_dump()
    versions = [f"{name} {version}" for name, version in environment.versions.items()]
    items = {
        "versions": ", ".join(versions),
        "commit": environment.commit or "",
        "device": environment.device,
    }
    for name in ("processes", "threads", "platform"):
        items[name] = write_setting("", fields.get(name, ""))
    if environment.started:
        items["started"] = environment.started.strftime("%Y-%m-%d %H:%M UTC")
    if environment.started and environment.finished:
        duration = environment.finished - environment.started
        items["took"] = console.write_duration(max(duration.total_seconds(), 0.01))
    return [(name, text) for name, text in items.items() if text]


def _list_command_lines(
    folder: RunFolder, environment: Environment
) -> list[tuple[str, str]]:
    """List the command line that made a run, and the line that repeats it."""
    rows = []
    words = environment.model_dump().get("command_line")
    if isinstance(words, list) and words:
        line = shlex.join(str(word) for word in words)
        rows.append(("made by", hide_secrets(line)))
    if (folder.path / "recipe.yaml").is_file() and not folder.is_shared:
        recipe = ("recipe", folder.path / "recipe.yaml")
        rows.append(("repeats it", str(Line(folder.command, recipe, "--again"))))
    return rows
