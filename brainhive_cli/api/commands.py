"""Commands, run from Python as on the command line."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brainhive_cli.api.arguments import check_flags, check_path, check_text

if TYPE_CHECKING:
    from brainhive_cli.api.results import CommandResult


def run(
    command: str,
    recipe: str | Path | None = None,
    *,
    again: bool = False,
    allow_code: bool = False,
    **keys: Any,
) -> "CommandResult":
    """Run a command as on the command line.

    The run folder and the progress bar are the same.

    Args:
        command: Name of the command, such as `train-align`.
        recipe: Path of a YAML file, or name of a shipped recipe. If None, the default
            recipe of the command.
        again: If True, start a new run even if the same run is finished.
        allow_code: If True, allow code from outside Brainhive, such as a model's on the
            hub.
        keys: Settings that replace values of the recipe, nested (`train={"lr": 1e-3}`)
            or dotted (`**{"train.lr": 1e-3}`). A dict changes only the keys in it, but
            a dict with the key `kind` replaces a whole part, such as an encoder.

    Returns:
        Folder, tables and metrics of the run. `open_run(result.folder)` opens the run.

    Raises:
        BrainhiveError: if the command fails.

    Examples:
        >>> result = api.run("eval-retrieval", run="TRAINING")
        >>> print(result)
        >>> evaluated = api.open_run(result.folder)
    """
    from brainhive_cli.api.results import CommandResult
    from brainhive_cli.cli import execute, lines, table
    from brainhive_cli.core.base import RecipeError, guess
    from brainhive_cli.core.files import foreign_code
    from brainhive_cli.core.runs import launch

    check_text(command=command)
    check_flags(again=again, allow_code=allow_code)
    if recipe is not None:
        check_path(recipe=recipe)
    command_names = [spec.name for spec in table.COMMANDS]
    if command not in command_names:
        hint = guess(command, command_names) + ", ".join(command_names)
        raise RecipeError(f"no command {command!r}", hint)

    # write the command line that starts the other processes of a run
    overrides = [f"{key}={_write_override(value)}" for key, value in _list_keys(keys)]
    line = [command]
    if recipe:
        line += ["--recipe", str(recipe)]
    line += overrides
    if again:
        line.append("--again")
    if allow_code:
        line.append("--allow-code")

    # run the command in this process, or start several processes and wait for them
    previous_line = launch.COMMAND_LINE.set(line)
    try:
        with foreign_code.allow_code(allow_code):
            recipe_name = None if recipe is None else str(recipe)
            command, module, resolved = lines.resolve_line(
                command, recipe_name, {}, overrides
            )
            n_processes = execute.count_processes(command, resolved)
            if n_processes == 1:
                _, result = execute.perform(command, module, resolved, again)
                return CommandResult.from_result(result)

            # the other processes do the work, and this process only reads the result
            exit_code = launch.relaunch(resolved.run, n_processes, resolved.MEMORY_HINT)
            if exit_code:  # the user has pressed Ctrl-C
                raise KeyboardInterrupt
            result = module.run(resolved, launch.READ_ONLY)
            return CommandResult.from_result(result)
    finally:
        launch.COMMAND_LINE.reset(previous_line)


def _list_keys(keys: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Flatten nested recipe keys to pairs of a dotted key and its value.

    Empty dicts, and dicts with the key `kind`, such as an encoder, are not flattened.

    Args:
        prefix: Text before each key, such as `train.`.
    """
    for key, value in keys.items():
        is_nested = isinstance(value, dict) and "kind" not in value
        if is_nested and value:
            yield from _list_keys(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _write_override(value: Any) -> str:
    """Write a value as the text behind the `=` of an override `key=value`.

    Configs are written as dicts, arrays as lists, and paths as text.
    """
    import json

    from brainhive_cli.core.base import write_value

    def convert_to_json_type(item: Any) -> Any:
        if hasattr(item, "model_dump"):
            return item.model_dump(mode="json")
        return item.tolist() if hasattr(item, "tolist") else str(item)

    return write_value(json.loads(json.dumps(value, default=convert_to_json_type)))
