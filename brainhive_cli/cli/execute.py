"""From a command's flags to its work, its result on the terminal, hints as typed, and
its exit code.
"""

import errno
import importlib
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import redirect_stderr, suppress
from functools import cache, partial
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from brainhive_cli.cli.table import LAUNCH
from brainhive_cli.core import console, documents, foreign_code, parts
from brainhive_cli.core.command import Input, Result, describe_missing, tabulate
from brainhive_cli.core.errors import (
    INTERRUPTED_EXIT_CODE,
    SUGGESTED,
    BrainhiveError,
    DeviceError,
    Line,
    LostProcess,
    MissingData,
    MissingExtra,
    RecipeError,
    complete_lines,
    filter_hints,
    first_line,
    raise_if_interrupted,
    remember_interrupts,
    system_error_number,
)
from brainhive_cli.core.jobs import Job, key_work, resolve
from brainhive_cli.core.key_types import split_commas
from brainhive_cli.core.recipe import (
    find_recipe,
    read_extended,
    read_recipe,
    shipped_recipes,
)
from brainhive_cli.core.tables import Table

if TYPE_CHECKING:
    from brainhive_cli.core.launch import Launch

PARTS = {
    "dataset": {"dataset", "preparation"},
    "encoders": {"encoders"},
    "prior": {"prior"},
    "from": {"from"},
}
"""Keys that a recipe of the same name gives each of its commands, by the keys that
change them.
"""
LOST_PROCESS = (
    r"^Dist\w*Error: |gloo/transport/|NCCL error|NCCL communicator|ncclRemoteError"
)
"""What torch says where another process of the launch has ended."""
LOST_DECODER = r"DataLoader worker \(pid.*\) (is killed|exited)"
"""What torch says where a process that decodes pictures has ended."""
WAYS = {
    getattr(errno, name): way
    for way, names in documents.read(
        Path(__file__).with_name("system_errors.yaml"), dict[str, list[str]]
    ).items()
    for name in names
}
"""What to do about an error of the system, by its number."""
OVERRIDE = re.compile(r"[A-Za-z_][\w.]*=")
"""Beginning of `key.path=value`, which no path has (`./a=b` is one)."""
ANY = "check that the file is complete and its disk works; --debug shows where"
"""What to do about others."""


def execute(
    command: str, flags: Mapping[str, Any], common: Mapping[str, Any], paths: str = ""
) -> None:
    """Resolve the recipe of a command, then check it or run it.

    Args:
        command: Its name.
        flags: Recipe key to the value of the command's own flags; None means not given.
        common: Values of the other options, by name.
        paths: The recipe key that takes the arguments that are no overrides, for
            commands on files.

    Raises:
        typer.Exit: with the exit code of the error, after showing it.
    """
    # arguments without a key are paths or runs, for commands that take some
    overrides = common["overrides"] or []
    if paths:
        positional = [word for word in overrides if not OVERRIDE.match(word)]
        overrides = [word for word in overrides if OVERRIDE.match(word)]
        # both ways of naming a run: a command that takes one refuses two
        if flagged := flags.get(paths):
            positional = [flagged, *positional] if positional else flagged
        flags = {**flags, paths: positional or None}

    # what the user has set goes on in hints
    keys = {key for key, value in flags.items() if value is not None}
    keys |= {word.partition("=")[0].partition(".")[0] for word in overrides}
    is_allowed = bool(common["allow_code"])
    as_json = bool(common["json"])
    folders = cache(lambda: list_shipped(command, common["recipe"]))
    with complete_lines(
        partial(complete, folders=folders, keys=keys, is_allowed=is_allowed)
    ):
        try:
            with foreign_code.permitted(is_allowed), remember_interrupts():
                code = _run(command, common, flags, overrides)
                raise_if_interrupted()
        except KeyboardInterrupt:
            code = INTERRUPTED_EXIT_CODE
            way = "the same command continues where it stopped"
            console.say(f"interrupted: {way}")
            if as_json:
                console.show_json(
                    {
                        "error": "interrupted",
                        "hint": way,
                        "exit_code": INTERRUPTED_EXIT_CODE,
                    }
                )
        except Exception as error:
            is_pipe_closed = (
                isinstance(error, BrokenPipeError) and console.is_pipe_closed()
            )
            code = (
                BrainhiveError.exit_code if is_pipe_closed else _report(error, common)
            )
    from brainhive_cli.core import launch

    # a process of several ends here, whatever threads still run
    launch.exit_worker(code)
    raise typer.Exit(code)


def _run(
    command: str,
    common: Mapping[str, Any],
    flags: Mapping[str, Any],
    overrides: Sequence[str],
) -> int:
    """Do what the line asks for; return the exit code."""
    # the recipe, or what lists and checks need of it
    launch_flags = {f"run.{key}": common[key] for key in LAUNCH if key in common}
    with console.progress("starting"):
        module = importlib.import_module(
            f"brainhive_cli.commands.{command.replace('-', '_')}"
        )
        recipe = module.Recipe.resolve(
            command, common["recipe"], {**flags, **launch_flags}, overrides
        )
    with filter_hints(partial(has_key, recipe)):
        return _carry_out(command, module, recipe, common)


def has_key(recipe: Any, key: str) -> bool:
    """Whether a recipe has a key; true of sections that it has not, as hints may be of
    another command.
    """
    value = recipe
    for part in key.split("."):
        fields = getattr(type(value), "model_fields", None)
        # a mapping of any names, or the choice of a part
        if fields is None or part == "kind":
            return True
        if part not in fields:
            return value is recipe
        value = getattr(value, part)
    return True


def _carry_out(
    command: str, module: Any, recipe: Any, common: Mapping[str, Any]
) -> int:
    """Do what the line asks for: list, check, launch more processes, or run here;
    return the exit code.
    """
    if common.get("list_encoders"):
        _show(module.list_encoders(), common["json"])
        return 0
    if common.get("submit"):
        from brainhive_cli.cli import submission

        return submission.run(command, module, recipe, common)
    if common.get("recipe_too") and not common["check"]:
        problem = "--recipe-too has no effect without --check"
        raise RecipeError(problem, "add --check, or leave it out")
    if common["check"]:
        with console.progress(command):
            job = resolve(module, recipe)
            inputs = job.list_inputs()
            tables = _plan(command, job, inputs)
        if common.get("recipe_too") and not common["json"]:
            # the recipe alone on stdout, so that `> FILE.yaml` makes a recipe of it
            console.show_text(*recipe.to_yaml().split("\n"))
            with console.divert_prints():
                return _show_plan(tables, inputs, recipe)
        return _show_plan(tables, inputs, recipe, common["json"])

    from brainhive_cli.core import launch

    if (processes := count_processes(recipe)) > 1:
        return launch.relaunch(recipe.run, processes, recipe.MEMORY_HINT)
    here, result = perform(command, module, recipe, bool(common["again"]))
    _show(result, common["json"])

    # the page in a browser
    if common.get("open") and here.is_main and (page := result.files.get("page")):
        console.open_browser(page.resolve().as_uri())
    return int(result.exit_code)


def count_processes(recipe: Any) -> int:
    """Count the processes that a command starts: those of accelerate report here."""
    from brainhive_cli.core import launch

    with console.progress("starting"):  # torch is imported
        return launch.count_processes(recipe.run) if recipe.can_share_work else 1


def perform(
    command: str, module: Any, recipe: Any, again: bool
) -> tuple["Launch", Result]:
    """Run a command in this process, which may be one of several, and keep its pace.

    Raises:
        BrainhiveError: whatever went wrong.
    """
    from brainhive_cli.core import launch

    with console.progress("starting"):  # several processes meet
        here = launch.start(recipe.run)
    start = time.monotonic()
    runs_folder = recipe.paths.under_home("runs")
    try:
        with console.progress(command):
            result: Result = module.run(recipe, here, again)
    except BaseException as error:
        from brainhive_cli.core.driver import remove_unused

        remove_unused(runs_folder)
        if isinstance(error, BrainhiveError) or not isinstance(error, Exception):
            raise
        raise describe_error(error, recipe.MEMORY_HINT) from error

    # the pace of the work, for the estimate of the next
    result.keep_pace(command, here, runs_folder, time.monotonic() - start)
    return here, result


def _plan(command: str, job: Job, inputs: list[Input]) -> list[Table]:
    """Lay out what a command would do, with its time and memory where nothing is
    missing.

    A device that is not here is added to the inputs.
    """
    tables, recipe = list[Table](), job.recipe
    with suppress(BrainhiveError):  # which the inputs say
        tables += job.preview()

    # time and memory by the last work of its kind on this device
    estimate: dict[str, str] = {}
    # what there is to say was said when inputs were listed
    if not describe_missing(inputs):
        try:
            with redirect_stderr(StringIO()):
                work, key = key_work(command, job)
        except DeviceError as error:
            inputs.append(Input(f"device {recipe.run.device}", None, error))
        else:
            if work:
                estimate = work.estimate(recipe.paths.under_home("runs"), key)

    if inputs:
        path = Path(__file__).parents[1] / "models" / "published_weights.yaml"
        tables.append(tabulate(inputs, documents.read(path, dict[str, dict[str, Any]])))
    if estimate:
        tables.append(Table("Work", ("item", "value"), tuple(estimate.items())))
    return tables


def _show_plan(
    tables: Sequence[Table], inputs: Sequence[Input], recipe: Any, as_json: bool = False
) -> int:
    """Show what a command would do and what is missing for it; return the exit code."""
    missing = describe_missing(inputs)
    if as_json:
        document = {"recipe": recipe.model_dump(mode="json"), "missing": missing}
        document["inputs"] = [one.as_dict() for one in inputs]
        console.show_json(document | {"tables": [table.as_dict() for table in tables]})
    else:
        for table in tables:
            console.show_table(table)
        for line in missing:
            console.warn(f"missing: {line}")
    return MissingData.exit_code if missing else 0


def _show(result: Any, as_json: bool) -> None:
    from brainhive_cli.reports import sentences

    finding = sentences.state_finding(result.metrics)
    if as_json:
        console.show_json({"finding": finding, **result.as_dict()})
        return

    # tables and files
    for table in result.tables if result.shown is None else result.shown:
        console.show_table(table)
    for name, path in result.files.items():
        console.show_text(f"{name}: {path}")
    if result.shown is not None and (left := len(result.tables) - len(result.shown)):
        console.say(
            f"{left} more table{'s' if left > 1 else ''}: "
            f"{Line('report', result.folder)}"
        )

    # the finding and its caveats; where all of it lies, and what comes next
    if finding:
        # stdout may be for programs
        show = console.say if result.shown == () else console.show_text
        show(finding, *sentences.explain_caveats(result.metrics))
    console.say(f"in {result.folder}")
    if result.hint:
        console.say(f"next: {result.hint}")


def _report(error: Exception, common: Mapping[str, Any]) -> int:
    """Show an error in one line and what to do in another; return its exit code."""
    from brainhive_cli.core import launch

    described = describe_error(error)

    # in one of several processes the launcher shows it
    with suppress(OSError):  # of a terminal or a full disk: the exit code says it, too
        if common["debug"]:
            console.show_traceback()
        if not launch.write_report(described.exit_code, described):
            console.show_error(described, common["json"])
    return described.exit_code


def list_shipped(command: str, recipe: str | None) -> list[str]:
    """List the shipped folders, as `papers/havir`, of what `--recipe` was and of what
    that extends.
    """
    if recipe is None:
        return []

    # the folder that was named, then those of recipes that it extends
    root, folders = shipped_recipes(), []
    with suppress(BrainhiveError):  # which the command itself reports
        root_folder = root / recipe.replace("_", "-")
        folders = [root_folder] if os.path.isdir(root_folder) else []
        folders += [
            file.parent for file in read_extended(find_recipe(command, recipe), command)
        ]

    # folders of the user are not named: they hold recipes of theirs
    inside = [
        folder for folder in folders if folder != root and folder.is_relative_to(root)
    ]
    return [folder.relative_to(root).as_posix() for folder in dict.fromkeys(inside)]


def complete(
    line: Line,
    folders: Callable[[], Sequence[str]],
    keys: Set[str],
    is_allowed: bool,
) -> Line:
    """Complete a command line by what the user's own line had: the recipe, and
    `--allow-code`.

    Args:
        line: The line, of which keys that the recipe sets itself are left out.
        folders: Lists the recipe's shipped folders: the first is named that has a
            recipe for the command.
        keys: Keys that flags and overrides set, which the next command needs too.
        is_allowed: Whether the user's line had `--allow-code`, which the next command
            may need too.
    """
    # the first shipped folder that has a recipe of the command
    command = line.command
    words = line.arguments
    root = shipped_recipes()
    recipe = next(
        (name for name in folders() if (root / name / f"{command}.yaml").is_file()),
        None,
    )
    if recipe and all(
        not isinstance(word, tuple) or word[0] != "recipe" for word in words
    ):
        needed = (word for word in words if _is_needed(word, recipe, command, keys))
        line = Line(command, ("recipe", recipe), *needed)

    return Line(command, *line.arguments, "--allow-code") if is_allowed else line


def _is_needed(word: Any, recipe: str, command: str, keys: Set[str]) -> bool:
    """Whether a line needs a word besides its recipe: what the user set, or encoders
    that are not its own.
    """
    if not isinstance(word, tuple) or word[0] not in PARTS or PARTS[word[0]] & keys:
        return True
    if word[0] != "encoders":
        return False

    # the same part may be written in several ways
    def resolve(encoder: Any) -> Any:
        with suppress(BrainhiveError):
            return parts.resolve("encoders", encoder)
        return encoder

    # embed makes its own encoders' embeddings, other commands need those of all of
    # theirs
    listed = split_commas(
        read_recipe(find_recipe(command, recipe), command).get("encoders") or []
    )
    requested, configured = (
        [resolve(encoder) for encoder in encoders] for encoders in (word[1], listed)
    )
    # what is only suggested gives way to the recipe's own
    if SUGGESTED in word[2:] and configured:
        return False
    needed, there = (
        (requested, configured) if command == "embed" else (configured, requested)
    )
    return bool(configured) and any(encoder not in there for encoder in needed)


def describe_error(error: Exception, less_memory: str = "") -> BrainhiveError:
    """Turn any exception into an error with one line on what is wrong and one on what
    to do.

    Args:
        error: What was raised.
        less_memory: Overrides of the recipe with which its command needs less memory.
    """
    from brainhive_cli.core import damage, launch, network

    # libraries that cannot be imported, and our own errors
    may_be_an_import = isinstance(error, MissingExtra) or not isinstance(
        error, BrainhiveError
    )
    if may_be_an_import and (broken := launch.find_failed_import(error)):
        return broken
    if isinstance(error, BrainhiveError):
        return error

    if bad_proxy := network.find_bad_proxy(error):
        return bad_proxy

    # memory, lost processes, the system
    text = f"{type(error).__name__}: {error}"
    if damage.is_out_of_memory(error):
        return DeviceError(
            f"out of memory: {first_line(error)}",
            f"{less_memory or 'a device with more memory'}; what is finished is kept",
        )

    # processes that ended: of the launch, or of a loader of pictures
    if re.search(LOST_PROCESS, text):
        return LostProcess(
            "another process of this launch has ended",
            (
                "its own error says why, on another machine if there are several; the "
                "same command continues"
            ),
        )
    if re.search(LOST_DECODER, text):
        return DeviceError(
            "a process that decodes pictures was killed",
            (
                "run.workers with a smaller number, as memory may have run out; the "
                "same command continues"
            ),
        )

    # errors of the system, also those that a library wrote as text
    if (number := system_error_number(error)) and not isinstance(error, OSError):
        error = OSError(number, os.strerror(number))
    if isinstance(error, OSError):
        # the file, the reason, and what helps against this one
        where = f"{error.filename}: " if error.filename else ""
        reason = error.strerror or first_line(error)
        # a name that is too long comes from the command line or a recipe, whatever it
        # is a name of
        kind = RecipeError if error.errno == errno.ENAMETOOLONG else BrainhiveError
        return kind(f"{where}{reason}", WAYS.get(error.errno or 0, ANY))

    # code of the user, or of ours
    described = foreign_code.mistake(error) or foreign_code.suspect(error)
    return described or BrainhiveError(
        f"unexpected {type(error).__name__}: {first_line(error)}",
        "this is a bug; --debug shows where",
    )
