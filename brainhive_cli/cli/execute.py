"""From a command's flags to its work, its result on the terminal, hints as typed, and its exit code."""

import errno
import importlib
import os
import re
import shlex
import time
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial
from typing import Any

import typer

from brainhive_cli.cli.table import COMMANDS, LAUNCH, SUBMIT
from brainhive_cli.core import console, foreign_code, parts
from brainhive_cli.core.errors import (
    INTERRUPTED,
    BrainhiveError,
    DeviceError,
    LostProcess,
    MissingData,
    MissingExtra,
    RecipeError,
    first_line,
    raise_if_interrupted,
    remember_interrupts,
    system_error_number,
)
from brainhive_cli.core.foreign_code import OVERRIDE
from brainhive_cli.core.recipe import (
    find_recipe,
    parse_value,
    read_extended,
    read_recipe,
    shipped_recipes,
)

RECIPE = "# Recipe: what follows runs as it is"
"""The line before the resolved recipe, below the plan; a comment, so that what follows is a recipe."""
HINT = re.compile(r"\((brainhive .*)\)$")
"""The hint in a line on what is missing."""
EXAMPLE = re.compile(r"(?<= )([\w.]+)=(?!\[|\{)")
"""The key of an example in a hint."""
WITHOUT_CODE = {"check", "compare", "doctor", "fetch", "recipes", "report", "runs"}
"""Commands that run no code of others."""
PARTS = {
    "dataset": {"dataset", "preparation"},
    "encoders": {"encoders"},
    "prior": {"prior"},
    "from": {"from"},
}
"""Keys that a recipe of the same name gives each of its commands, by the keys that change them."""
LOST_PROCESS = r"^Dist\w*Error: |gloo/transport/|NCCL error|NCCL communicator|ncclRemoteError"
"""What torch says where another process of the launch has ended."""
LOST_DECODER = r"DataLoader worker \(pid.*\) (is killed|exited)"
"""What torch says where a process that decodes pictures has ended."""
SPACE = "free space, or set BRAINHIVE_HOME to another disk; the same command continues"
PERMISSIONS = "fix permissions, or set BRAINHIVE_HOME to a folder of yours; the same command continues"
IN_THE_WAY = "move away what has the place of this file or folder; the same command continues"
DISK = "check the disk or network drive (dmesg), and copy the file elsewhere; the same command continues"
NETWORK = "check run.main_process_ip, run.main_process_port and the network between the machines"
WAYS = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), SPACE),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), PERMISSIONS),
    **dict.fromkeys((errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY), IN_THE_WAY),
    **dict.fromkeys((errno.EIO, errno.ESTALE, errno.ENXIO), DISK),
    **dict.fromkeys((errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.ECONNREFUSED, errno.ETIMEDOUT), NETWORK),
    **dict.fromkeys((errno.ECONNRESET, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EPIPE), NETWORK),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "ulimit -n 65536, or fewer run.workers or --processes"),
    errno.ENOENT: "check that it exists, and that nothing else removes it; the same command continues",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f); the same command continues",
    errno.ENAMETOOLONG: "shorter names, or a home with a shorter path",
    errno.ELOOP: "remove the link; the same command continues",
    errno.ENODEV: "copy it to a disk whose files can be mapped into memory",
}
"""What to do about an error of the system, by its number."""
LOCAL_HINTS = ("copy it again", "download it again", "run ")
"""How hints begin that make or fetch a file of this machine again."""
ANY = "check that the file is complete and its disk works; --debug shows where"
"""What to do about others."""


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
    # arguments without a key are paths or runs, for commands that take some
    overrides = common["overrides"] or []
    if paths:
        named = [word for word in overrides if not OVERRIDE.match(word)]
        overrides = [word for word in overrides if OVERRIDE.match(word)]
        if flagged := flags.get(paths):  # both ways of naming a run: a command that takes one refuses two
            named = [flagged, *named] if named else flagged
        flags = {**flags, paths: named or None}

    # what the user has set goes on in hints
    keys = {key for key, value in flags.items() if value is not None}
    keys |= {word.partition("=")[0].partition(".")[0] for word in overrides}
    all_code, is_check, as_json = (bool(common[name]) for name in ("allow_code", "check", "json"))
    folders = cache(lambda: list_shipped(command, common["recipe"]))
    advise = partial(as_typed, folders=folders, keys=keys, is_allowed=all_code)
    try:
        with foreign_code.permitted(all_code, is_check, flags, overrides), remember_interrupts():
            code = _run(command, common, flags, overrides, advise)
            raise_if_interrupted()
    except KeyboardInterrupt:
        code, way = INTERRUPTED, "the same command continues where it stopped"
        console.say(f"interrupted: {way}")
        if as_json:
            console.show_json({"error": "interrupted", "hint": way, "exit_code": INTERRUPTED})
    except Exception as error:
        is_pipe_closed = isinstance(error, BrokenPipeError) and console.is_pipe_closed()
        code = BrainhiveError.exit_code if is_pipe_closed else _report(error, common, advise)
    from brainhive_cli.core import launch

    # a process of several ends here, whatever threads still run
    launch.exit_worker(code)
    raise typer.Exit(code)


def _run(
    command: str,
    common: Mapping[str, Any],
    flags: Mapping[str, Any],
    overrides: Sequence[str],
    advise: Callable[[str], str],
) -> int:
    """Do what the line asks for: list, check, launch more processes, or run here; return the exit code."""
    # the recipe, or what lists and checks need of it
    launch_flags = {f"run.{key}": common[key] for key in LAUNCH if key in common}
    try:
        with console.progress("starting"):
            module = importlib.import_module(f"brainhive_cli.commands.{command.replace('-', '_')}")
            recipe = module.Recipe.resolve(command, common["recipe"], {**flags, **launch_flags}, overrides)
    except RecipeError as error:
        error.hint = with_flags(command, error.hint)
        raise
    if common.get("list_encoders"):
        _show(module.list_encoders(), common["json"], advise)
        return 0
    runs_folder = recipe.paths.under_home("runs")
    if any(common.get(name) for name in SUBMIT):
        from brainhive_cli.cli import submission

        return submission.run(command, module, recipe, common)
    if common["check"]:
        with console.progress(command):
            plan = _plan(module.plan(recipe), command, recipe)
        return _show_plan(plan, recipe, common["json"], advise)

    from brainhive_cli.core import launch

    with console.progress("starting"):  # torch is imported, and several processes meet
        processes = launch.num_processes(recipe.run) if recipe.computes else 1
        here = launch.start(recipe.run) if processes == 1 else None

    # several processes are started by accelerate, and report here
    if here is None:
        code, reason = launch.relaunch(recipe.run, processes, recipe.less_memory())
        if reason:
            console.fail(reason, common["json"], code)
        return code

    # one process, or one of several, does the work
    recipe = recipe.launched_in(here.mixed_precision)
    start = time.monotonic()
    try:
        with console.progress(command):
            result = module.run(recipe, here, bool(common["again"]))
    except BaseException as error:
        from brainhive_cli.core import runs

        runs.remove_unused(runs_folder)
        if isinstance(error, BrainhiveError) or not isinstance(error, Exception):
            raise
        raise describe_error(error, recipe.less_memory()) from error

    # the pace of the work, for the estimate of the next
    if result.work and here.is_main:
        from brainhive_cli.core import device_memory

        key = result.work.key(command, here.device_name, here.processes)
        seconds = time.monotonic() - start if result.work.seconds is None else result.work.seconds
        peak_bytes = device_memory.peak_bytes(here.device)
        result.work.remember(runs_folder, key, seconds, peak_bytes)
    _show(result, common["json"], advise)

    # the page in a browser
    if common.get("open") and here.is_main and (page := result.files.get("page")):
        import webbrowser

        if not webbrowser.open(page.resolve().as_uri()):
            console.warn(f"no browser was found here: {page} is the page")
    return int(result.exit_code)


def _plan(plan: Any, command: str, recipe: Any) -> Any:
    """Add to a plan how long it takes, where the device is here, and the plan of the whole paper."""
    if plan.work is not None:
        from brainhive_cli.core import launch

        try:
            device, processes = launch.start(recipe.run).device_name, launch.num_processes(recipe.run)
            key = plan.work.key(command, device, processes)
            measured = plan.work.estimate(recipe.paths.under_home("runs"), key)
            plan = replace(plan, items={**plan.items, **measured})
        except DeviceError as error:
            plan = replace(plan, errors=(*plan.errors, error))
    if recipe.recipe_name.startswith("papers/") and (shipped_recipes() / recipe.recipe_name).is_dir():
        from brainhive_cli.commands.paper_plan import plan_paper

        with console.progress("planning the whole paper"):
            plan = replace(plan, tables=(plan_paper(recipe.recipe_name, recipe), *plan.tables))
    return plan


def _show_plan(plan: Any, recipe: Any, as_json: bool, advise: Callable[[str], str]) -> int:
    """Show a plan and what is missing for it; return the exit code."""
    # what is missing, with lines as the user would type them
    missing = [HINT.sub(lambda match: f"({advise(match[1])})", line) for line in plan.missing]
    if as_json:
        # one document, or tables with the recipe below them
        document = {"recipe": recipe.model_dump(mode="json"), "plan": plan.items, "missing": missing}
        lists = {"needs": plan.needs, "tables": plan.tables}
        listed = {name: [entry.as_dict() for entry in entries] for name, entries in lists.items() if entries}
        console.show_json(document | listed)
    else:
        for table in plan.all_tables():
            console.show_table(table)
        for line in missing:
            console.warn(f"missing: {line}")
        console.show_text(RECIPE, *recipe.to_yaml().split("\n"))
    return MissingData.exit_code if missing else 0


def _show(result: Any, as_json: bool, advise: Callable[[str], str]) -> None:
    # the next command, which may need the same code
    hint = with_permission(advise(result.hint), foreign_code.ran())
    if as_json:
        console.show_json({**result.as_dict(), "next": hint})
        return

    # tables, files, and where all of it lies
    for table in result.tables if result.shown is None else result.shown:
        console.show_table(table)
    for name, path in result.files.items():
        console.show_text(f"{name}: {path}")
    if result.shown is not None and (left := len(result.tables) - len(result.shown)):
        line = shlex.join(["brainhive", "report", str(result.folder)])
        console.say(f"{left} more table{'s' if left > 1 else ''}: {line}")
    console.say(f"in {result.folder}")
    if hint:
        console.say(f"next: {hint}")


def _report(error: Exception, common: Mapping[str, Any], advise: Callable[[str], str]) -> int:
    """Show an error in one line and what to do in another; return its exit code."""
    from brainhive_cli.core import hub, launch, shared_runs

    # what is wrong, and the way out as the user would type it; files of the hub are named by their repository
    described = describe_error(error)
    message = hub.name_cached_paths(described.message)
    if message != described.message and described.hint.startswith(LOCAL_HINTS):
        described.hint = shared_runs.CHANGED_HINT
    described.message, described.hint = message, hub.name_cached_paths(described.hint)
    try:
        described.hint = advise(described.hint)
    except Exception:  # the error itself is what the user must see; its hint is then as it was raised
        if common["debug"]:
            console.show_traceback()

    # in one of several processes the launcher shows it
    with suppress(OSError):  # of a terminal or a full disk: the exit code says it, too
        if common["debug"]:
            console.show_traceback()
        if not launch.leave_report(described.exit_code, described):
            console.fail(described, common["json"])
    return described.exit_code


def with_flags(command: str, hint: str) -> str:
    """Write the keys of an example (`as in key=value`) as the flags of the command that set them."""
    # switches take no value, so an example has none
    flags = next(listed.flags for listed in COMMANDS if listed.name == command)
    names = {
        key: flag.default.param_decls[0] for key, flag in flags.items() if flag.annotation != bool | None
    }
    if not hint.startswith("as in "):
        return hint
    return EXAMPLE.sub(lambda match: f"{names[match[1]]} " if match[1] in names else match[0], hint)


def list_shipped(command: str, recipe: str | None) -> list[str]:
    """List the shipped folders, as `papers/havir`, of what `--recipe` was and of what that extends."""
    if recipe is None:
        return []

    # the folder that was named, then those of recipes that it extends
    root, folders = shipped_recipes(), []
    with suppress(BrainhiveError):  # which the command itself reports
        root_folder = root / recipe.replace("_", "-")
        folders = [root_folder] if os.path.isdir(root_folder) else []
        folders += [file.parent for file in read_extended(find_recipe(command, recipe), command)]

    # folders of the user are not named: they hold recipes of theirs
    inside = [folder for folder in folders if folder != root and folder.is_relative_to(root)]
    return [folder.relative_to(root).as_posix() for folder in dict.fromkeys(inside)]


def as_typed(hint: str, folders: Callable[[], Sequence[str]], keys: Set[str], is_allowed: bool) -> str:
    """Write a hint with what the user's own line had: the recipe, and `--allow-code`.

    Args:
        hint: A hint; command lines in it are joined by ` && `, and come before ` , or `.
        folders: Lists the recipe's shipped folders: in every line the first is named that has a recipe for
            its command.
        keys: Keys that flags and overrides set, which the next command needs too.
        is_allowed: Whether the line had `--allow-code`.
    """

    def with_recipe(line: str) -> str:
        # the first shipped folder that has a recipe of the command
        _, command, *words = shlex.split(line)
        root = shipped_recipes()
        recipe = next((name for name in folders() if (root / name / f"{command}.yaml").is_file()), None)
        if "--recipe" in words or recipe is None:
            return shlex.join(["brainhive", command, *words])

        # what the recipe sets itself is left out, unless the user did or it has other encoders than are named
        line_words = ["brainhive", command, "--recipe", recipe]
        rest = iter(words)
        for word in rest:
            key, _, value = word.removeprefix("--").partition("=")
            pair = [word, next(rest, "")] if word.startswith("--") and "=" not in word else [word]
            is_other = key == "encoders" and _has_other_encoders(recipe, command, value or pair[-1])
            line_words += pair if key not in PARTS or PARTS[key] & keys or is_other else []
        return shlex.join(line_words)

    hint = _map_lines(hint, with_recipe)
    return with_permission(hint, ["--allow-code"] if is_allowed else [])


def _has_other_encoders(recipe: str, command: str, named: str) -> bool:
    """Whether a recipe's command would not do with the encoders that a hint names: `embed` makes its own."""
    parsed = parse_value(named, f"encoders={named}") if named.startswith("[") else named.split(",")
    listed = read_recipe(find_recipe(command, recipe), command).get("encoders") or []
    listed = [listed] if isinstance(listed, str) else listed

    # the same part may be written in several ways
    def resolve(encoder: Any) -> Any:
        with suppress(BrainhiveError):
            return parts.resolve("encoders", encoder)
        return encoder

    hinted, own = ([resolve(encoder) for encoder in encoders] for encoders in (parsed, listed))
    needed, there = (hinted, own) if command == "embed" else (own, hinted)
    return any(encoder not in there for encoder in needed) and bool(own)


def with_permission(hint: str, code: Collection[str]) -> str:
    """Add `--allow-code` to the lines of a hint that may meet code, unless they name it themselves."""

    def permit(line: str) -> str:
        # lines that name the code themselves allow it by that
        is_allowed = "--allow-code" in line or all(name in line for name in code)
        return line if line.split()[1] in WITHOUT_CODE or is_allowed else f"{line} --allow-code"

    return _map_lines(hint, permit) if code else hint


def _map_lines(hint: str, rewrite: Callable[[str], str]) -> str:
    """Rewrite each command line of a hint; a hint that is no command line stays as it is."""
    if not hint.startswith("brainhive "):
        return hint

    # an alternative after the lines stays as it is
    lines, separator, alternative = hint.partition(", or ")
    return " && ".join(map(rewrite, lines.split(" && "))) + separator + alternative


def describe_error(error: Exception, less_memory: str = "") -> BrainhiveError:
    """Turn any exception into an error with one line on what is wrong and one on what to do.

    Args:
        error: What was raised.
        less_memory: Overrides of the recipe with which its command needs less memory.
    """
    from brainhive_cli.core import damage, launch, surroundings

    # what the user's surroundings made a library do; unless it is of memory or a disk
    is_of_a_disk = isinstance(error, OSError) and WAYS.get(error.errno or 0) in (SPACE, DISK)
    is_known = isinstance(error, BrainhiveError) or is_of_a_disk or damage.is_out_of_memory(error)
    if not is_known and (cause := surroundings.explain(error)):
        return cause

    # libraries that cannot be imported, and our own errors
    may_be_an_import = isinstance(error, MissingExtra) or not isinstance(error, BrainhiveError)
    if may_be_an_import and (broken := launch.failed_import(error)):
        return broken
    if isinstance(error, BrainhiveError):
        return error

    # memory, lost processes, the system
    text = f"{type(error).__name__}: {error}"
    if damage.is_out_of_memory(error):
        way = f"{less_memory or 'a device with more memory'}; what is finished is kept"
        return DeviceError(f"out of memory: {first_line(error)}", way)

    # processes that ended: of the launch, or of a loader of pictures
    if re.search(LOST_PROCESS, text):
        way = "its own error says why, on another machine if there are several; the same command continues"
        return LostProcess("another process of this launch has ended", way)
    if re.search(LOST_DECODER, text):
        way = "run.workers with a smaller number, as memory may have run out; the same command continues"
        return DeviceError("a process that decodes pictures was killed", way)

    # errors of the system, also those that a library wrote as text
    if (number := system_error_number(error)) and not isinstance(error, OSError):
        error = OSError(number, os.strerror(number))
    if isinstance(error, OSError):
        # the file, the reason, and what helps against this one
        where = f"{error.filename}: " if error.filename else ""
        reason = error.strerror or first_line(error)
        # a name that is too long comes from the command line or a recipe, whatever it is a name of
        kind = RecipeError if error.errno == errno.ENAMETOOLONG else BrainhiveError
        return kind(f"{where}{reason}", WAYS.get(error.errno or 0, ANY))

    # code of the user, or of ours
    return foreign_code.mistake(error) or BrainhiveError(
        f"unexpected {type(error).__name__}: {first_line(error)}", "this is a bug; --debug shows where"
    )
