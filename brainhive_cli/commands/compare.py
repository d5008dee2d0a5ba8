"""The command `compare`: two or more runs side by side, with tests of their difference.

Runs are compared item by item: an item is a picture whose value both runs stored.
"""

from brainhive_cli.commands import report
from brainhive_cli.commands.report import Recipe
from brainhive_cli.core.command import Input, Result
from brainhive_cli.core.errors import Line, RecipeError
from brainhive_cli.core.launch import Launch
from brainhive_cli.reports.runs_shown import RunGroup


def inputs(recipe: Recipe) -> list[Input]:
    """List the runs. The first run is compared with each of the other runs."""
    return report.inputs(_select_runs(recipe))


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Compare the runs, and write the page or the tables."""
    return report.run(_select_runs(recipe), launch, again)


def compare_runs(recipe: Recipe) -> list[RunGroup]:
    """Compare the runs without writing any file."""
    return report.group_runs(report.open_runs(_select_runs(recipe)))


def _select_runs(recipe: Recipe) -> Recipe:
    """Return the recipe with at least two runs, of which two can be compared.

    If the recipe names no runs, it gets the newest run that has a value per item, and
    the newest run that can be compared with it.

    Raises:
        RecipeError: if there are fewer than two runs, or if each run was made by
            another command.
        MissingData: if a run does not exist or is not finished.
    """
    if not recipe.runs:
        newest_runs = report.find_newest_pair(recipe.paths.under_home("runs"))
        recipe = recipe.model_copy(update={"runs": newest_runs})
    if len(recipe.runs or ()) < 2:
        raise RecipeError(
            "compare needs two runs or more", Line("compare", "RUN", "RUN")
        )

    # only runs of the same command can have measured the same values
    runs = report.open_runs(recipe)
    commands = {shown_run.command for shown_run in runs}
    if len(commands) == len(runs):
        origins = ", ".join(
            f"{shown_run.label} was made by {shown_run.command}" for shown_run in runs
        )
        raise RecipeError(
            f"these runs cannot be compared, each is from another command: {origins}",
            "name two runs of the same command",
        )
    return recipe
