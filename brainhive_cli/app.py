"""The Typer application: names, order and help sections of the commands."""

from itertools import groupby
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from brainhive_cli import __version__
from brainhive_cli.commands.check import check
from brainhive_cli.commands.demo import demo
from brainhive_cli.commands.doctor import doctor
from brainhive_cli.commands.embed import embed
from brainhive_cli.commands.eval_retrieval import eval_retrieval
from brainhive_cli.commands.export_embeddings import export_embeddings
from brainhive_cli.commands.import_embeddings import import_embeddings
from brainhive_cli.commands.reconstruct import reconstruct
from brainhive_cli.commands.train_align import train_align
from brainhive_cli.commands.train_prior import train_prior
from brainhive_cli.core import console

START, STEPS, STORES = "Start here", "Steps", "Embedding stores"


class Sections(TyperGroup):
    """Lists the commands by section in plain text: rich's panels would double the time of `--help`."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write one block of aligned lines a section."""
        commands: dict[str, Any] = dict(self.commands)
        for section, names in groupby(commands, lambda name: commands[name].rich_help_panel):
            with formatter.section(section):
                formatter.write_dl([(name, commands[name].get_short_help_str(200)) for name in names])


app = typer.Typer(
    name="brainhive",
    cls=Sections,
    help="Decode images from brain recordings: EEG, MEG and fMRI in, pictures out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo", rich_help_panel=START)(demo)
app.command("doctor", rich_help_panel=START)(doctor)
app.command("embed", rich_help_panel=STEPS)(embed)
app.command("train-align", rich_help_panel=STEPS)(train_align)
app.command("eval-retrieval", rich_help_panel=STEPS)(eval_retrieval)
app.command("train-prior", rich_help_panel=STEPS)(train_prior)
app.command("reconstruct", rich_help_panel=STEPS)(reconstruct)
app.command("check", rich_help_panel=STORES)(check)
app.command("import-embeddings", rich_help_panel=STORES)(import_embeddings)
app.command("export-embeddings", rich_help_panel=STORES)(export_embeddings)


def _show_version(is_given: bool) -> None:
    if is_given:
        console.show_text(f"brainhive {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and stop."),
    ] = False,
) -> None:
    """Decode images from brain recordings: EEG, MEG and fMRI in, pictures out."""
