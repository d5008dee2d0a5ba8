"""The command `compare`: two or more runs side by side, with tests of their difference.

Runs are compared item by item. An item is a picture, or a trial, whose value both runs
have stored.
"""

from brainhive_cli.commands import report
from brainhive_cli.commands.report import Recipe
from brainhive_cli.core.command import Input, Result
from brainhive_cli.core.errors import Line, RecipeError
from brainhive_cli.core.launch import Launch
from brainhive_cli.reports.runs_shown import RunGroup


def inputs(recipe: Recipe) -> list[Input]:
    """List the runs that are compared, and the files that are written."""
    return report.inputs(_select_runs(recipe))


def run(recipe: Recipe, launch: Launch, force: bool = False) -> Result:
    """Compare the first run with each other run, and write the page or the tables."""
    return report.run(_select_runs(recipe), launch, force)


def compare_runs(recipe: Recipe) -> list[RunGroup]:
    """Compare the runs without writing a file, and return them grouped by command."""
    return report.group_runs(report.open_runs(_select_runs(recipe)))


def _select_runs(recipe: Recipe) -> Recipe:
    """Add runs to a recipe that names no runs, and test that runs can be compared.

    An item is a picture or a trial.

    Args:
        recipe: Recipe of `compare`. If the recipe names no runs, two runs are selected:
            the newest run that stores a value for each item, and the newest other run
            that can be compared with the first run.

    Returns:
        The recipe with at least two runs. At least two of these runs were made by the
        same command.

    Raises:
        RecipeError: if the recipe names a single run, or if no two runs were made by
            the same command.
        MissingData: if a run does not exist or is not finished.
    """
    # without names, find the two newest runs that can be compared
    if not recipe.runs:
        newest_runs = report.find_newest_pair(recipe.paths.under_home("runs"))
        recipe = recipe.model_copy(update={"runs": newest_runs})
    if len(recipe.runs or ()) < 2:
        raise RecipeError(
            "compare needs two runs or more", Line("compare", "RUN", "RUN")
        )

    # runs of different commands measure different values, and cannot be compared
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
