"""Execution of a command: its recipe, work, printed result, hints and exit code."""

import errno
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

from brainhive_cli.cli.lines import resolve_line
from brainhive_cli.cli.table import COMMANDS
from brainhive_cli.core.base import (
    CONTINUE_HINT,
    INTERRUPTED_EXIT_CODE,
    SUGGESTED,
    BrainhiveError,
    DeviceError,
    Line,
    LostProcess,
    MissingData,
    MissingExtra,
    RecipeError,
    Table,
    complete_lines,
    console,
    describe_hidden_libraries,
    first_line,
    raise_if_interrupted,
    remember_interrupts,
    system_error_number,
)
from brainhive_cli.core.files import (
    Input,
    describe_missing,
    documents,
    foreign_code,
    tabulate,
)
from brainhive_cli.core.recipes import (
    find_recipe,
    parts,
    read_extended,
    read_recipe,
    shipped_recipes,
    split_commas,
)
from brainhive_cli.core.runs import Job, Result, key_work, resolve

if TYPE_CHECKING:
    from brainhive_cli.core.runs import Launch

LOST_PROCESS = (
    r"^Dist\w*Error: |gloo/transport/|NCCL error|NCCL communicator|ncclRemoteError"
)
"""Pattern of errors of torch after another process of the same command has ended."""
OVERRIDE = re.compile(r"[A-Za-z_][\w.]*=")
"""Pattern of the beginning of an override, `key.path=value`. A user who means the file
`a=b` writes `./a=b`.
"""


def _read_system_hints() -> dict[int, str]:
    """Read the hints for errors of the operating system, by errno."""
    hints = {}
    path = Path(__file__).with_name("system_errors.yaml")
    for hint, names in documents.read(path, dict[str, list[str]]).items():
        for name in names:
            hints[getattr(errno, name)] = hint
    return hints


SYSTEM_HINTS = _read_system_hints()
"""Hints by errno. They are read at import, because the file may be unreadable after an
error such as too many open files.
"""


def execute(
    command: str,
    flags: Mapping[str, Any],
    common: Mapping[str, Any],
    positional_key: str = "",
) -> None:
    """Execute a command, and exit.

    Args:
        command: Name of the command.
        flags: Values of the command's flags, by recipe key. None for an unset flag.
        common: Values of the options that all commands have, by name.
        positional_key: Recipe key for arguments such as runs, which are not overrides
            `key.path=value`. Empty if the command takes none.

    Raises:
        typer.Exit: with the exit code of the command.
    """
    # separate the overrides from the other arguments
    arguments = common["overrides"] or []
    overrides = arguments
    if positional_key:
        positional = [text for text in arguments if not OVERRIDE.match(text)]
        overrides = [text for text in arguments if OVERRIDE.match(text)]
        # if a flag names a run too, the recipe gets both and raises an error
        flag_value = flags.get(positional_key)
        if flag_value and positional:
            positional.insert(0, flag_value)
        flags = {**flags, positional_key: positional or flag_value or None}

    # collect the top-level recipe keys that the command line sets, to complete hints
    dotted_keys = [key for key, value in flags.items() if value is not None]
    dotted_keys += [override.partition("=")[0] for override in overrides]
    keys = {key.partition(".")[0] for key in dotted_keys}
    is_allowed = bool(common.get("allow_code"))
    complete = partial(
        complete_line,
        list_folders=cache(partial(list_recipe_folders, command, common["recipe"])),
        keys=keys,
        is_allowed=is_allowed,
    )

    # run the command, and turn every way to end into an exit code
    with complete_lines(complete):
        try:
            with foreign_code.allow_code(is_allowed), remember_interrupts():
                exit_code = _run(command, common, flags, overrides)
                raise_if_interrupted()
        except KeyboardInterrupt:
            exit_code = INTERRUPTED_EXIT_CODE
            console.say(f"interrupted: {CONTINUE_HINT}")
            if common["json"]:
                console.show_json(
                    {
                        "error": "interrupted",
                        "hint": CONTINUE_HINT,
                        "exit_code": exit_code,
                    }
                )
        except Exception as error:
            # nobody reads the message if the reader of stdout has stopped reading
            if isinstance(error, BrokenPipeError) and console.is_pipe_closed():
                exit_code = BrainhiveError.exit_code
            else:
                exit_code = _show_error(error, common)
    from brainhive_cli.core.runs import launch

    # one of several processes ends at once, even if threads still run
    launch.exit_worker(exit_code)
    raise typer.Exit(exit_code)


def _run(
    command: str,
    common: Mapping[str, Any],
    flags: Mapping[str, Any],
    overrides: Sequence[str],
) -> int:
    """Do the work that the options of a command select, and return the exit code.

    Args:
        command: Name of the command, such as "train-align".
        common: Values of the options that all commands have, by name.
        flags: Values of the command's flags, by recipe key.
        overrides: Arguments `key.path=value` of the command line.
    """
    with console.progress(f"{command}: starting"):
        command, module, recipe = resolve_line(
            command, common["recipe"], flags, overrides
        )
    if common.get("list_encoders"):
        _show_result(module.list_encoders(), common["json"])
        return 0
    if common.get("submit"):
        from brainhive_cli.cli import submission

        return submission.submit(command, module, recipe, common)
    if common.get("recipe_too") and not common["check"]:
        raise RecipeError(
            "--recipe-too has no effect without --check",
            "add --check, or leave out --recipe-too",
        )

    if common["check"]:
        with console.progress(command):
            job = resolve(module, recipe)
            inputs = job.list_inputs()
            tables = _plan(command, job, inputs)
        if common.get("recipe_too") and not common["json"]:
            # stdout contains only the recipe, so that `> FILE.yaml` saves it
            console.show_text(*recipe.to_yaml().split("\n"))
            with console.divert_prints():
                return _show_plan(tables, inputs, recipe)
        return _show_plan(tables, inputs, recipe, common["json"])

    from brainhive_cli.core.runs import launch

    n_processes = count_processes(command, recipe)
    if n_processes > 1:
        return launch.relaunch(recipe.run, n_processes, recipe.MEMORY_HINT)
    process, result = perform(command, module, recipe, bool(common.get("again")))
    _show_result(result, common["json"])

    page = result.files.get("page")
    if common.get("open") and process.is_main and page:
        console.open_browser(page.resolve().as_uri())
    return int(result.exit_code)


def count_processes(command: str, recipe: Any) -> int:
    """Return the number of processes that share the work of a command.

    Args:
        command: Name of the command, shown while torch is imported.
        recipe: Resolved recipe.
    """
    from brainhive_cli.core.runs import launch

    if not recipe.can_share_work:
        return 1
    # torch is imported, which takes time
    with console.progress(f"{command}: starting"):
        return launch.count_processes(recipe.run)


def perform(
    command: str, module: Any, recipe: Any, force: bool
) -> tuple["Launch", Result]:
    """Run a command in this process, which may be one of several that share the work.

    Args:
        command: Name of the command.
        module: Module of the command.
        recipe: Resolved recipe.
        force: If True, run again even if the same run is finished.

    Returns:
        A `Launch` (this process and its device), and the result.

    Raises:
        BrainhiveError: if the command fails.
        KeyboardInterrupt: if the user interrupts the command.
    """
    from brainhive_cli.core.runs import launch

    # several processes wait for each other
    with console.progress(f"{command}: starting"):
        process = launch.start(recipe.run)
    start_s = time.monotonic()
    runs_folder = recipe.paths.under_home("runs")
    try:
        with console.progress(command):
            result: Result = module.run(recipe, process, force)
    except BaseException as error:
        from brainhive_cli.core.runs import remove_unused

        remove_unused(runs_folder)
        if isinstance(error, BrainhiveError) or not isinstance(error, Exception):
            raise
        raise describe_error(error, recipe.MEMORY_HINT) from error

    # store the time per unit of work, which `--check` reads
    result.keep_pace(command, process, runs_folder, time.monotonic() - start_s)
    return process, result


def _plan(command: str, job: Job, inputs: list[Input]) -> list[Table]:
    """Make the tables that `--check` shows: planned work, inputs, and time and memory.

    An error of the device is appended to `inputs`.
    """
    # the table of inputs reports the same errors as the preview
    tables: list[Table] = []
    with suppress(BrainhiveError):
        tables += job.preview()

    # Estimate time and memory. If an input is missing, the amount of work is unknown.
    estimate: dict[str, str] = {}
    run_options = job.recipe.run
    if not describe_missing(inputs):
        try:
            # mute messages that listing the inputs has already written
            with redirect_stderr(StringIO()):
                work, key = key_work(command, job)
        except DeviceError as error:
            inputs.append(Input(f"device {run_options.device}", None, error))
        else:
            if work:
                estimate = work.estimate(job.recipe.paths.under_home("runs"), key)

    if inputs:
        path = Path(__file__).parents[1] / "models" / "published_weights.yaml"
        published_weights = documents.read(path, dict[str, dict[str, Any]])
        tables.append(tabulate(inputs, published_weights))
    if estimate:
        tables.append(Table("Work", ("item", "value"), tuple(estimate.items())))
    return tables


def _show_plan(
    tables: Sequence[Table], inputs: Sequence[Input], recipe: Any, as_json: bool = False
) -> int:
    """Write the plan of a command and its missing inputs, and return the exit code.

    Args:
        tables: Tables of the plan.
        inputs: Inputs of the work, such as stores and weights.
        recipe: Resolved recipe, which only the JSON document contains.
        as_json: If True, write a JSON document instead of tables and warnings.
    """
    missing = describe_missing(inputs)
    if as_json:
        console.show_json(
            {
                "recipe": recipe.model_dump(mode="json"),
                "missing": missing,
                "inputs": [item.as_dict() for item in inputs],
                "tables": [table.as_dict() for table in tables],
            }
        )
    else:
        for table in tables:
            console.show_table(table)
        for line in missing:
            console.warn(f"missing: {line}")
    return MissingData.exit_code if missing else 0


def _show_result(result: Any, as_json: bool) -> None:
    """Write the tables, files, finding (main result in words) and hint of a result.

    Args:
        result: Instance of `Result`.
        as_json: If True, write a JSON document instead.
    """
    from brainhive_cli.core.runs import METRICS_FILE
    from brainhive_cli.reports.sentences import sentences

    has_document = result.document is not None
    if has_document and (as_json or not result.tables):
        console.show_json(result.document)
        for table in result.tables:
            if table.note:
                console.say(table.note)
        return
    finding = sentences.state_finding(result.metrics)
    if as_json:
        console.show_json({"finding": finding, **result.as_dict()})
        return

    # a command without printed tables keeps its stdout for programs
    write = console.say if result.printed_tables == () else console.show_text
    finding_lines = [finding, *sentences.explain_caveats(result.metrics)]
    if result.begins_with_finding:
        write(*finding_lines, "")

    # write the tables and the paths of the files
    printed_tables = (
        result.tables if result.printed_tables is None else result.printed_tables
    )
    for table in printed_tables:
        console.show_table(table)
    for name, path in result.files.items():
        console.show_text(f"{name}: {path}")
    n_hidden = len(result.tables) - len(printed_tables)
    # the steps of an unfinished workflow have no common run
    is_run = (result.folder / METRICS_FILE).is_file()
    if n_hidden and is_run:
        plural = "s" if n_hidden > 1 else ""
        report_line = Line("report", result.folder)
        console.say(f"{n_hidden} more table{plural}: {report_line}")

    if finding and not result.begins_with_finding:
        write(*finding_lines)
    folder = Path.cwd() if result.folder == Path() else result.folder
    console.say(f"folder: {folder}")
    if result.hint:
        console.say(f"next: {result.hint}")


def _show_error(error: Exception, common: Mapping[str, Any]) -> int:
    """Write an exception and its hint, and return the exit code of the command."""
    from brainhive_cli.core.runs import launch

    described = describe_error(error)
    # Writing fails with an OSError if the terminal is closed or the disk is full. A
    # process that shares the work reports its error to the process that started it.
    with suppress(OSError):
        if common["debug"]:
            console.show_traceback()
        if not launch.write_report(described.exit_code, described):
            console.show_error(described, common["json"])
    return described.exit_code


def list_recipe_folders(command: str, recipe: str | None) -> list[str]:
    """List the shipped folders of a recipe and of the recipes that it extends.

    Args:
        command: Name of the command.
        recipe: Value of `--recipe`: a name, or the path of a file. None if unset.

    Returns:
        Folders such as `papers/havir`, relative to the folder of shipped recipes, the
        recipe's own folder first. Folders elsewhere are left out.
    """
    if recipe is None:
        return []
    root = shipped_recipes()
    folders: list[Path] = []
    # The command itself reports an invalid recipe. The keys of `read_extended` are the
    # file of the recipe and the files that it extends.
    with suppress(BrainhiveError):
        recipe_folder = root / recipe.replace("_", "-")
        if os.path.isdir(recipe_folder):
            folders.append(recipe_folder)
        for file in read_extended(find_recipe(command, recipe), command):
            folders.append(file.parent)

    # keep the folders below the folder of shipped recipes, each once
    names = []
    for folder in dict.fromkeys(folders):
        if folder != root and folder.is_relative_to(root):
            names.append(folder.relative_to(root).as_posix())
    return names


def complete_line(
    line: Line,
    list_folders: Callable[[], Sequence[str]],
    keys: Set[str],
    is_allowed: bool,
) -> Line:
    """Add `--recipe` and `--allow-code` to a suggested command line.

    - `--recipe` names the first folder of the user's recipe that has a recipe for the
      suggested command. It replaces the arguments that are not needed next to it.
    - `--allow-code` is added if the user's own line had it and the suggested command
      can run code.

    Args:
        line: Suggested command line.
        list_folders: Function that lists the shipped folders of the user's recipe.
        keys: Recipe keys that the user's own line sets.
        is_allowed: True if the user's own line had `--allow-code`.
    """
    arguments = list(line.arguments)
    argument_keys = [item[0] for item in arguments if isinstance(item, tuple)]
    for folder in list_folders():
        has_recipe = (shipped_recipes() / folder / f"{line.command}.yaml").is_file()
        if has_recipe and "recipe" not in argument_keys:
            arguments = [("recipe", folder)]
            for argument in line.arguments:
                if _is_needed(argument, folder, line.command, keys):
                    arguments.append(argument)
            break
    takes_permission = any(
        item.name == line.command and "allow_code" in item.options for item in COMMANDS
    )
    if is_allowed and takes_permission:
        arguments.append("--allow-code")
    return Line(line.command, *arguments)


def _is_needed(argument: Any, recipe: str, command: str, keys: Set[str]) -> bool:
    """Return True if an argument must stay next to the `--recipe` of a hint.

    - An argument that sets no recipe key stays.
    - An argument stays if the user's own line sets one of its recipe keys.
    - `--encoders` also stays if the encoders of the recipe do not suit the hint.

    Args:
        argument: A text, or a tuple (key, value) of a flag. A third element `SUGGESTED`
            means that other encoders suit the hint too.
        recipe: Name of the shipped recipe of the suggested line.
        command: Command of the suggested line.
        keys: Recipe keys that the user's own line sets.
    """
    if not isinstance(argument, tuple):
        return True
    key, value = argument[:2]
    is_suggested = SUGGESTED in argument[2:]
    # Recipe keys by argument of a suggested command line. If the user's own line sets
    # one of the keys, the argument stays in the suggested line.
    keys_by_argument = {
        "dataset": {"dataset", "preparation"},
        "encoders": {"encoders"},
        "prior": {"prior"},
        "from": {"from"},
    }
    if key not in keys_by_argument or keys_by_argument[key] & keys:
        return True
    if key != "encoders":
        return False

    # compare the encoders of the argument with the encoders of the recipe
    settings = read_recipe(find_recipe(command, recipe), command)
    recipe_encoders = _resolve_encoders(split_commas(settings.get("encoders") or []))
    if is_suggested or not recipe_encoders:
        return False
    encoders = _resolve_encoders(value)
    if command == "embed":
        # `embed` must compute the embeddings of all encoders in the argument
        return any(encoder not in recipe_encoders for encoder in encoders)
    # outside the argument, embeddings may be missing
    return any(encoder not in encoders for encoder in recipe_encoders)


def _resolve_encoders(encoders: Sequence[Any]) -> list[Any]:
    """Convert encoders to Configs, and leave invalid encoders unchanged."""
    resolved = []
    for encoder in encoders:
        try:
            resolved.append(parts.resolve("encoders", encoder))
        except BrainhiveError:
            resolved.append(encoder)
    return resolved


def describe_error(error: Exception, memory_hint: str = "") -> BrainhiveError:
    """Turn any exception into an error with a message and a hint.

    Args:
        error: Exception that ended the command.
        memory_hint: Advice on changes of the recipe that need less memory, or "".

    Returns:
        The error. A BrainhiveError is returned unchanged, except for a MissingExtra
        that a failed import caused.
    """
    from brainhive_cli.core.files import damage, network
    from brainhive_cli.core.runs import launch

    # a BrainhiveError has no failed import as its cause, except for MissingExtra
    is_ours = isinstance(error, BrainhiveError)
    if not is_ours or isinstance(error, MissingExtra):
        import_error = launch.find_failed_import(error)
        if import_error:
            return import_error
    if isinstance(error, BrainhiveError):
        return error

    # proxies and memory
    proxy_error = network.find_bad_proxy(error)
    if proxy_error:
        return proxy_error
    if damage.is_out_of_memory(error):
        return DeviceError(
            f"out of memory: {first_line(error)}",
            f"{memory_hint or 'a device with more memory'}; finished work is kept",
        )

    # other processes that have ended
    text = f"{type(error).__name__}: {error}"
    if re.search(LOST_PROCESS, text):
        return LostProcess(
            "another process of this launch has ended",
            "read the error of that process, which may be on another machine; then "
            f"{CONTINUE_HINT}",
        )
    # Pattern of errors of torch after a process that decodes pictures has ended.
    if re.search(r"DataLoader worker \(pid.*\) (is killed|exited)", text):
        return DeviceError(
            "a process that decodes pictures was killed",
            f"memory may be too small: set a smaller run.workers; then {CONTINUE_HINT}",
        )

    # the operating system, and the user's code
    described = (
        _describe_system_error(error)
        or foreign_code.describe_user_error(error)
        or foreign_code.describe_suspected_error(error)
    )
    hint = describe_hidden_libraries(error) or "this is a bug"
    return described or BrainhiveError(
        f"unexpected {type(error).__name__}: {first_line(error)}",
        f"{hint}; --debug shows the traceback",
    )


def _describe_system_error(error: Exception) -> BrainhiveError | None:
    """Turn an error of the operating system into a BrainhiveError with a hint.

    Returns None if the exception is no OSError and has no error number.
    """
    # other exceptions of libraries may have the error number in their message
    if isinstance(error, OSError):
        os_error = error
    else:
        number = system_error_number(error)
        if not number:
            return None
        os_error = OSError(number, os.strerror(number))

    message = os_error.strerror or first_line(os_error)
    if os_error.filename:
        message = f"{os_error.filename}: {message}"
    # Hint for errors of the operating system that `system_errors.yaml` does not list.
    hint = SYSTEM_HINTS.get(
        os_error.errno or 0,
        "check that the file is complete and that the disk works; "
        "--debug shows the traceback",
    )
    # a file name that is too long comes from the command line or a recipe
    if os_error.errno == errno.ENAMETOOLONG:
        return RecipeError(message, hint)
    return BrainhiveError(message, hint)
