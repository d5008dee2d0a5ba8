"""The Typer application: every command of the table with its options, and the help by
section.
"""

from collections.abc import Callable
from inspect import Signature
from itertools import groupby
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from brainhive_cli import __version__
from brainhive_cli.cli.table import (
    COMMANDS,
    COMMON,
    LAUNCH,
    OVERRIDES,
    SUBMIT,
    Command,
    complete_value,
    words,
)
from brainhive_cli.core.errors import RecipeError


def _unchecked(parameters: list[Any], ctx: Any) -> list[Any]:
    """Leave values unchecked while a shell completes a line: to check any, Typer loads
    pydantic.
    """
    # resilient parsing: a shell completes a line, and nothing runs
    for parameter in parameters if ctx.resilient_parsing else ():
        parameter.process_value = lambda ctx, value: value
    return parameters


class Options(TyperCommand):
    """One command, whose options it lists."""

    def get_params(self, ctx: Any) -> list[Any]:
        """List the options and arguments."""
        return _unchecked(super().get_params(ctx), ctx)


class Sections(TyperGroup):
    """Lists the commands by section in plain text: rich's panels would double the time
    of `--help`.
    """

    def get_params(self, ctx: Any) -> list[Any]:
        """List the options."""
        return _unchecked(super().get_params(ctx), ctx)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read `help COMMAND` as `COMMAND --help`."""
        return super().parse_args(
            ctx, [*args[1:2], "--help"] if args[:1] == ["help"] else args
        )

    def invoke(self, ctx: Any) -> Any:
        """Run the command; with `--json`, a line that does not parse is a document
        too.
        """
        words = [*ctx._protected_args, *ctx.args]
        try:
            return super().invoke(ctx)
        except Exception as error:
            if "--json" in words and hasattr(error, "format_message"):  # Typer's
                from brainhive_cli.core import console

                hint = " ".join(
                    [
                        "brainhive help",
                        *(word for word in words[:1] if word in self.commands),
                    ]
                )
                console.show_json(
                    {
                        "error": error.format_message(),
                        "hint": hint,
                        "exit_code": RecipeError.exit_code,
                    }
                )
            raise

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write one block of aligned lines a section."""
        commands: dict[str, Any] = dict(self.commands)
        for section, names in groupby(
            commands, lambda name: commands[name].rich_help_panel
        ):
            with formatter.section(section):
                formatter.write_dl(
                    [(name, commands[name].get_short_help_str(200)) for name in names]
                )


def _callback(command: Command) -> Callable[..., None]:
    """Make the function that Typer calls for a command; Typer reads its options from
    the signature.
    """

    def call(**values: Any) -> None:
        # which neither help nor completion needs
        from brainhive_cli.cli.execute import execute

        flags = {key: values.pop(key.replace(".", "_")) for key in command.flags}
        execute(command.name, flags, values, command.paths)

    # words of the command line: overrides of recipe keys, after paths or names if the
    # command takes any
    arguments = {"overrides": OVERRIDES}
    if command.paths:
        about = {"PATH": "Files, folders or patterns", "NAME": "Names"}[command.words]
        about += "; and overrides of any recipe key."
        arguments["overrides"] = words(
            f"[{command.words}]... [KEY.PATH=VALUE]...", about, command.complete
        )

    # a flag without names of its own completes the few values of its key
    for key, parameter in command.flags.items():
        if parameter.default.autocompletion is None:
            parameter.default.autocompletion = complete_value(key)

    # the signature, in the order in which the help lists options
    flags = {key.replace(".", "_"): option for key, option in command.flags.items()}
    declared = {
        **arguments,
        **flags,
        **command.switches,
        **COMMON,
        **(LAUNCH | SUBMIT if command.can_share_work else {}),
    }
    call.__signature__ = Signature(  # type: ignore[attr-defined]
        [option.replace(name=name) for name, option in declared.items()]
    )
    return call


app = typer.Typer(
    name="brainhive",
    cls=Sections,
    help="Decode images from brain recordings: EEG, MEG and fMRI in, pictures out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# in the order of the table, which the help shows
for command in COMMANDS:
    text = (
        f"{command.text}\n"
        "\n"
        f"Example: {f'brainhive {command.name} {command.example}'.strip()}"
    )
    app.command(command.name, cls=Options, help=text, rich_help_panel=command.section)(
        _callback(command)
    )


def _show_version(is_given: bool) -> None:
    if is_given:
        from brainhive_cli.core import console

        console.show_text(f"brainhive {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_show_version,
            is_eager=True,
            help="Show the version and stop.",
        ),
    ] = False,
) -> None:
    """Decode images from brain recordings: EEG, MEG and fMRI in, pictures out."""
