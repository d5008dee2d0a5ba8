"""Tables of the whole set-up of a run: settings, inputs, software and command line."""

import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from pydantic import BaseModel

from brainhive_cli.core import console
from brainhive_cli.core.errors import BrainhiveError, Line, MissingData
from brainhive_cli.core.facts import Facts
from brainhive_cli.core.runs import ENVIRONMENT_FILE, Environment, RunFolder
from brainhive_cli.core.tables import Table
from brainhive_cli.reports.run_settings import (
    group_settings,
    hide_secrets,
    read_settings,
    write_setting,
)

TIME_FORMAT = "%Y-%m-%d %H:%M UTC"


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
    settings = read_settings(folder, facts)
    tables = []
    for title, rows in group_settings(settings, folder.command).items():
        tables.append(_describe(title, ("key", "value"), rows))

    # inputs, such as stores and weights, by the digest of their content
    digest_rows = []
    with suppress(BrainhiveError):
        digests = folder.recipe(RecipeDigests).digests
        for name, digest in digests.items():
            digest_rows.append((hide_secrets(name), digest))
    tables.append(_describe("Inputs", ("input", "digest"), digest_rows))

    environment = Environment()
    with suppress(MissingData):
        environment = folder.read_json(ENVIRONMENT_FILE, Environment)
    software_rows = _list_software(environment)
    tables.append(_describe("Software and device", ("item", "value"), software_rows))
    command_rows = _list_command_lines(folder, environment)
    lines = _describe("Command lines", ("use", "line"), command_rows)
    tables.append(replace(lines, is_copied=True))
    return [table for table in tables if table.rows]


def _describe(
    title: str, columns: Sequence[str], rows: Sequence[tuple[str, str]]
) -> Table:
    """Make a table that describes a set-up, which needs no caveats."""
    return Table(title, columns, rows, has_results=False)


def _list_software(environment: Environment) -> list[tuple[str, str]]:
    """List the versions, the device and the times of a run."""
    fields: dict[str, Any] = environment.model_dump()
    versions = [f"{name} {version}" for name, version in environment.versions.items()]
    items = {
        "versions": ", ".join(versions),
        "commit": environment.commit or "",
        "device": environment.device,
        "processes": write_setting("", fields.get("processes", "")),
        "threads": write_setting("", fields.get("threads", "")),
        "platform": write_setting("", fields.get("platform", "")),
    }
    if environment.started:
        items["started"] = environment.started.strftime(TIME_FORMAT)
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
