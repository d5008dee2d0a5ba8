"""From a command's flags to its pipeline, its result on the terminal and its exit code."""

import importlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import typer

from brainhive_cli.core import console, foreign_code, interruption
from brainhive_cli.core.errors import INTERRUPTED, BrainhiveError, MissingData

OVERRIDE = re.compile(r"[A-Za-z_][\w.]*=")
"""How `key.path=value` begins, and a path does not (`./a=b` is one)."""


def execute(command: str, flags: Mapping[str, Any], common: Mapping[str, Any], paths: str = "") -> None:
    """Resolve the recipe of a command, then check it or run it.

    Args:
        command: Its name.
        flags: Recipe key to the value of the command's own flags; None means not given.
        common: Values of the other options, by name.
        paths: The recipe key that takes the arguments that are no overrides, for commands on files.

    Raises:
        typer.Exit: with the exit code of the error, after showing it.
    """
    try:
        overrides = common["overrides"] or []
        if paths:
            named = [word for word in overrides if not OVERRIDE.match(word)]
            overrides = [word for word in overrides if OVERRIDE.match(word)]
            flags = {**flags, paths: named or None}
        permission = foreign_code.permitted(bool(common["allow_code"]), bool(common["check"]))
        with permission, interruption.remembered():
            code = _run(command, common, flags, overrides)
            interruption.check()
    except KeyboardInterrupt:
        code = _interrupted(common["json"])
    except Exception as error:
        is_pipe_closed = isinstance(error, BrokenPipeError) and console.is_pipe_closed()
        code = BrainhiveError.exit_code if is_pipe_closed else _report(error, common)
    from brainhive_cli.core import launch

    launch.exit_worker(code)
    raise typer.Exit(code)


def _run(command: str, common: Mapping[str, Any], flags: Mapping[str, Any], overrides: Sequence[str]) -> int:
    pipeline = importlib.import_module(f"brainhive_cli.pipelines.{command.replace('-', '_')}")
    launch_flags = {f"run.{key}": common[key] for key in ("processes", "machines", "mixed_precision")}
    recipe = pipeline.Recipe.resolve(command, common["recipe"], {**flags, **launch_flags}, overrides)
    if common.get("list_encoders"):
        from brainhive_cli.embedding.catalogue import catalogue

        _show(catalogue(), common["json"])
        return 0
    if common["check"]:
        return _check(pipeline.plan(recipe), recipe, common["json"])

    from brainhive_cli.core import launch

    processes = launch.num_processes(recipe.run)
    if processes > 1:
        code, error = launch.relaunch(recipe.run, processes, recipe.less_memory())
        if error:
            console.fail(error, common["json"], code)
        return code
    here = launch.start(recipe.run)
    recipe = recipe.launched_in(here.mixed_precision)
    try:
        result = pipeline.run(recipe, here, bool(common["again"]))
    except BaseException as error:
        from brainhive_cli.core import known_errors, runs

        runs.remove_unused(recipe.paths.under_home("runs"))
        if isinstance(error, BrainhiveError) or not isinstance(error, Exception):
            raise
        raise known_errors.describe(error, recipe.less_memory()) from error
    _show(result, common["json"])
    return int(result.exit_code)


def _check(plan: Any, recipe: Any, as_json: bool) -> int:
    if as_json:
        console.show_json(
            {"recipe": recipe.model_dump(mode="json"), "plan": plan.items, "missing": plan.missing}
        )
    else:
        console.show_text(recipe.to_yaml())
        if plan.items:
            console.show_table(console.Table("Plan", ("item", "value"), tuple(plan.items.items())))
        for line in plan.missing:
            console.warn(f"missing: {line}")
    return MissingData.exit_code if plan.missing else 0


def _show(result: Any, as_json: bool) -> None:
    if as_json:
        console.show_json(result.as_dict())
        return
    for table in result.tables:
        console.show_table(table)
    for name, path in result.files.items():
        console.show_text(f"{name}: {path}")
    console.say(f"in {result.folder}")
    if result.hint:
        console.say(f"next: {result.hint}")


def _interrupted(as_json: bool) -> int:
    """Say that the command was stopped; return its exit code."""
    way = "the same command continues where it stopped"
    console.say(f"interrupted: {way}")
    if as_json:
        console.show_json({"error": "interrupted", "hint": way, "exit_code": INTERRUPTED})
    return INTERRUPTED


def _report(error: Exception, common: Mapping[str, Any]) -> int:
    """Show an error in one line and what to do in another; return its exit code."""
    from brainhive_cli.core import known_errors, launch

    described = known_errors.describe(error)
    if common["debug"]:
        console.show_traceback()
    if not launch.leave_report(described.exit_code, described):
        console.fail(described, common["json"])
    return described.exit_code
