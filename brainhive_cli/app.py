"""Typer application with all commands of the table, and the layout of its help."""

from collections.abc import Callable
from copy import copy
from inspect import Signature
from itertools import groupby
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from brainhive_cli import __version__
from brainhive_cli.cli.table import COMMANDS, Command
from brainhive_cli.core.base import RecipeError


def _skip_checks(parameters: list[Any], ctx: Any) -> list[Any]:
    """Return parameters that check their values, except during shell completion."""
    if not ctx.resilient_parsing:
        return parameters

    # click keeps the parameters for the next command line, so only copies are changed
    unchecked_parameters = []
    for parameter in parameters:
        unchecked = copy(parameter)
        unchecked.process_value = lambda ctx, value: value
        unchecked_parameters.append(unchecked)
    return unchecked_parameters


class FastCommand(TyperCommand):
    """Typer command whose values are not checked during completion."""

    def get_params(self, ctx: Any) -> list[Any]:
        """List the options and arguments."""
        return _skip_checks(super().get_params(ctx), ctx)


class SectionedGroup(TyperGroup):
    """Typer group whose help lists the commands by section, in plain text.

    The panels of rich would double the duration of `--help`.
    """

    def get_params(self, ctx: Any) -> list[Any]:
        """List the options."""
        return _skip_checks(super().get_params(ctx), ctx)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read `help COMMAND` as `COMMAND --help`."""
        if args[:1] == ["help"]:
            args = args[1:2] + ["--help"]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the subcommand that the user has typed.

        If the command line has an error and contains `--json`, also write the
        error as JSON.
        """
        arguments = ctx._protected_args + ctx.args
        try:
            return super().invoke(ctx)
        except Exception as error:
            # only errors about the command line itself have the method `format_message`
            if "--json" in arguments and hasattr(error, "format_message"):
                from brainhive_cli.core.base import console

                hint = "brainhive help"
                if arguments[0] in self.commands:
                    hint += f" {arguments[0]}"
                console.show_json(
                    {
                        "error": error.format_message(),
                        "hint": hint,
                        "exit_code": RecipeError.exit_code,
                    }
                )
            raise

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands of each section and their descriptions in two columns."""
        commands: dict[str, Any] = dict(self.commands)
        for section, group in groupby(
            commands.items(), lambda item: item[1].rich_help_panel
        ):
            with formatter.section(section):
                rows = []
                for name, command in group:
                    rows.append((name, command.get_short_help_str(200)))
                formatter.write_dl(rows)


def _make_callback(command: Command) -> Callable[..., None]:
    """Make the function that Typer calls to run a command.

    The signature of the function has the options of the command, for Typer.
    """

    def call(**values: Any) -> None:
        # imported here, because help and completion do not need this module
        from brainhive_cli.cli.execute import execute

        # the remaining values are the common options
        flags = {key: values.pop(key.replace(".", "_")) for key in command.flags}
        execute(command.name, flags, values, command.positional_key)

    parameters = command.make_parameters()
    call.__signature__ = Signature(  # type: ignore[attr-defined]
        [option.replace(name=name) for name, option in parameters.items()]
    )
    return call


app = typer.Typer(
    name="brainhive",
    cls=SectionedGroup,
    help="Decode images from brain recordings: EEG, MEG and fMRI in, pictures out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in COMMANDS:
    example = f"brainhive {command.name} {command.example}".strip()
    text = f"{command.summary}\n\nExample: {example}"
    app.command(
        command.name, cls=FastCommand, help=text, rich_help_panel=command.section
    )(_make_callback(command))


def _show_version(is_set: bool) -> None:
    """Write the version and exit, if the flag is set."""
    if is_set:
        from brainhive_cli.core.base import console

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
