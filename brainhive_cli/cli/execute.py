"""From a command's flags to its work, its result on the terminal, hints as typed, and its exit code."""

import importlib
import os
import re
import shlex
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import typer

from brainhive_cli.cli.table import COMMANDS
from brainhive_cli.core import console, foreign_code, interruption, needs
from brainhive_cli.core.errors import INTERRUPTED, BrainhiveError, DeviceError, MissingData, RecipeError
from brainhive_cli.core.foreign_code import OVERRIDE

RECIPE = "# Recipe: what follows runs as it is"
"""The line before the resolved recipe, below the plan; a comment, so that what follows is a recipe."""
HINT = re.compile(r"\((brainhive .*)\)$")
"""The hint in a line on what is missing."""
EXAMPLE = re.compile(r"(?<= )([\w.]+)=(?!\[|\{)")
"""The key of an example in a hint."""
WITHOUT_CODE = {"check", "compare", "doctor", "fetch", "recipes", "report", "runs"}
"""Commands that run no code of others."""
PARTS = {"dataset", "encoders", "prior", "from"}
"""Keys that a recipe of the same name gives each of its commands."""


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
    overrides = common["overrides"] or []
    if paths:
        named = [word for word in overrides if not OVERRIDE.match(word)]
        overrides = [word for word in overrides if OVERRIDE.match(word)]
        if flagged := flags.get(paths):  # both ways of naming a run: a command that takes one refuses two
            named = [flagged, *named] if named else flagged
        flags = {**flags, paths: named or None}
    keys = {key for key, value in flags.items() if value is not None}
    keys |= {word.partition("=")[0].partition(".")[0] for word in overrides}
    is_allowed = bool(common["allow_code"])
    advise = partial(as_typed, recipe=common["recipe"], keys=keys, is_allowed=is_allowed)
    try:
        switches = bool(common["allow_code"]), bool(common["check"])
        permission = foreign_code.permitted(*switches, flags, overrides)
        with permission, interruption.remembered():
            code = _run(command, common, flags, overrides, advise)
            interruption.check()
    except KeyboardInterrupt:
        code = _interrupted(common["json"])
    except Exception as error:
        is_pipe_closed = isinstance(error, BrokenPipeError) and console.is_pipe_closed()
        code = BrainhiveError.exit_code if is_pipe_closed else _report(error, common, advise)
    from brainhive_cli.core import launch

    launch.exit_worker(code)
    raise typer.Exit(code)


def _run(
    command: str,
    common: Mapping[str, Any],
    flags: Mapping[str, Any],
    overrides: Sequence[str],
    advise: Callable[[str], str],
) -> int:
    module = importlib.import_module(f"brainhive_cli.commands.{command.replace('-', '_')}")
    launch_flags = {f"run.{key}": common[key] for key in ("processes", "machines", "mixed_precision")}
    try:
        recipe = module.Recipe.resolve(command, common["recipe"], {**flags, **launch_flags}, overrides)
    except RecipeError as error:
        error.hint = with_flags(command, error.hint)
        raise
    if common.get("list_encoders"):
        _show(module.list_encoders(), common["json"], advise)
        return 0
    if common["check"]:
        return _check(_timed(module.plan(recipe), command, recipe), recipe, common["json"], advise)

    from brainhive_cli.core import launch

    processes = launch.num_processes(recipe.run)
    if processes > 1:
        code, reason = launch.relaunch(recipe.run, processes, recipe.less_memory())
        if reason:
            console.fail(reason, common["json"], code)
        return code
    here = launch.start(recipe.run)
    recipe = recipe.launched_in(here.mixed_precision)
    start = time.monotonic()
    try:
        result = module.run(recipe, here, bool(common["again"]))
    except BaseException as error:
        from brainhive_cli.cli import known_errors
        from brainhive_cli.core import runs

        runs.remove_unused(recipe.paths.under_home("runs"))
        if isinstance(error, BrainhiveError) or not isinstance(error, Exception):
            raise
        raise known_errors.describe(error, recipe.less_memory()) from error
    if result.work and here.is_main:
        runs_folder, key = recipe.paths.under_home("runs"), result.work.key(command, _place(here))
        result.work.remember(runs_folder, key, time.monotonic() - start)
    _show(result, common["json"], advise)
    return int(result.exit_code)


def _timed(plan: Any, command: str, recipe: Any) -> Any:
    """Add how long the work of a plan takes."""
    if plan.work is None:
        return plan
    from brainhive_cli.core import launch

    try:
        here = launch.start(recipe.run)
    except DeviceError as error:
        return replace(plan, missing=[*plan.missing, error.in_one_line])
    key = plan.work.key(command, _place(here, launch.num_processes(recipe.run)))
    duration = plan.work.estimate(recipe.paths.under_home("runs"), key)
    return replace(plan, items={**plan.items, "time": duration})


def _place(here: Any, processes: int | None = None) -> str:
    count = processes or here.processes
    return f"{count} × {here.device_name}" if count > 1 else str(here.device_name)


def _check(plan: Any, recipe: Any, as_json: bool, advise: Callable[[str], str]) -> int:
    missing = [HINT.sub(lambda match: f"({advise(match[1])})", line) for line in plan.missing]
    if as_json:
        document = {"recipe": recipe.model_dump(mode="json"), "plan": plan.items, "missing": missing}
        tables = [table.as_dict() for table in plan.tables]
        listed = [need.as_dict() for need in plan.needs]
        console.show_json(
            document | ({"needs": listed} if listed else {}) | ({"tables": tables} if tables else {})
        )
    else:
        if plan.items:
            console.show_table(plan.table("Plan"))
        for table in (*([needs.table(plan.needs)] if plan.needs else []), *plan.tables):
            console.show_table(table)
        for line in missing:
            console.warn(f"missing: {line}")
        console.show_text(f"{RECIPE}\n{recipe.to_yaml()}")
    return MissingData.exit_code if missing else 0


def _show(result: Any, as_json: bool, advise: Callable[[str], str]) -> None:
    hint = with_permission(advise(result.hint), foreign_code.ran())
    if as_json:
        console.show_json({**result.as_dict(), "next": hint})
        return
    for table in result.tables if result.shown is None else result.shown:
        console.show_table(table)
    for name, path in result.files.items():
        console.show_text(f"{name}: {path}")
    if result.shown is not None and (left := len(result.tables) - len(result.shown)):
        has_report = any(listed.name == "report" for listed in COMMANDS)
        way = shlex.join(["brainhive", "report", str(result.folder)]) if has_report else "--json"
        console.say(f"{left} more tables: {way}")
    console.say(f"in {result.folder}")
    if hint:
        console.say(f"next: {hint}")


def _interrupted(as_json: bool) -> int:
    """Say that the command was stopped; return its exit code."""
    way = "the same command continues where it stopped"
    console.say(f"interrupted: {way}")
    if as_json:
        console.show_json({"error": "interrupted", "hint": way, "exit_code": INTERRUPTED})
    return INTERRUPTED


def _report(error: Exception, common: Mapping[str, Any], advise: Callable[[str], str]) -> int:
    """Show an error in one line and what to do in another; return its exit code."""
    from brainhive_cli.cli import known_errors
    from brainhive_cli.core import launch

    described = known_errors.describe(error)
    try:
        described.hint = advise(described.hint)
    except Exception:  # the error itself is what the user must see; its hint is then as it was raised
        if common["debug"]:
            console.show_traceback()
    if common["debug"]:
        console.show_traceback()
    if not launch.leave_report(described.exit_code, described):
        console.fail(described, common["json"])
    return described.exit_code


def with_flags(command: str, hint: str) -> str:
    """Write the keys of an example (`as in key=value`) as the flags of the command that set them."""
    flags = next(listed.flags for listed in COMMANDS if listed.name == command)
    names = {
        key: flag.default.param_decls[0] for key, flag in flags.items() if flag.annotation != bool | None
    }
    if not hint.startswith("as in "):
        return hint
    return EXAMPLE.sub(lambda match: f"{names[match[1]]} " if match[1] in names else match[0], hint)


def as_typed(hint: str, recipe: str | None, keys: Collection[str], is_allowed: bool) -> str:
    """Write a hint with what the user's own line had: the recipe, and `--allow-code`.

    Args:
        hint: A hint; command lines in it are joined by ` && `, and come before ` , or `.
        recipe: What `--recipe` was, as `demo`; it is named in every line whose command it has a recipe for.
        keys: Keys that flags and overrides set, which the next command needs too.
        is_allowed: Whether the line had `--allow-code`.
    """
    from brainhive_cli.core.recipe_files import shipped

    folder = shipped() / recipe.replace("_", "-") if recipe else None
    if folder is not None and os.path.isdir(folder):
        name = folder.relative_to(shipped()).as_posix()

        def with_recipe(line: str) -> str:
            _, command, *words = shlex.split(line)
            if "--recipe" not in words and (folder / f"{command}.yaml").is_file():
                words = ["--recipe", name, *_without_keys_of_the_recipe(words, keys)]
            return shlex.join(["brainhive", command, *words])

        hint = _map_lines(hint, with_recipe)
    return with_permission(hint, ["--allow-code"] if is_allowed else [])


def with_permission(hint: str, code: Collection[str]) -> str:
    """Add `--allow-code` to the lines of a hint that may meet code, unless they name it themselves."""

    def permit(line: str) -> str:
        is_allowed = "--allow-code" in line or all(name in line for name in code)
        return line if line.split()[1] in WITHOUT_CODE or is_allowed else f"{line} --allow-code"

    return _map_lines(hint, permit) if code else hint


def _map_lines(hint: str, rewrite: Callable[[str], str]) -> str:
    """Rewrite each command line of a hint; a hint that is no command line stays as it is."""
    if not hint.startswith("brainhive "):
        return hint
    lines, separator, alternative = hint.partition(", or ")
    return " && ".join(map(rewrite, lines.split(" && "))) + separator + alternative


def _without_keys_of_the_recipe(words: Iterable[str], keys: Collection[str]) -> list[str]:
    """Leave out the words that set what the recipe sets, unless the user did."""
    left, words = [], iter(words)
    for word in words:
        key = word.partition("=")[0].removeprefix("--")
        pair = [word, next(words, "")] if word.startswith("--") and "=" not in word else [word]
        if key not in PARTS or key in keys:
            left += pair
    return left
