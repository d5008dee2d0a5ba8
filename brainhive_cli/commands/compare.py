"""compare: two or more runs next to each other, with statistics of their difference,
item by item.
"""

from brainhive_cli.commands import report
from brainhive_cli.commands.report import Recipe
from brainhive_cli.core.command import Input, Result
from brainhive_cli.core.errors import Line, RecipeError
from brainhive_cli.core.launch import Launch
from brainhive_cli.reports.runs_shown import RunGroup


def inputs(recipe: Recipe) -> list[Input]:
    """List the runs: the first is compared with each other one."""
    return report.inputs(_with_two(recipe))


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Compare, and write the page or the tables."""
    return report.run(_with_two(recipe), launch, again)


def compare_runs(recipe: Recipe) -> list[RunGroup]:
    """Compare, and write nothing."""
    return report.group_runs(report.opened(_with_two(recipe)))


def _with_two(recipe: Recipe) -> Recipe:
    # default: the newest run with values of items, and the newest comparable one
    if not recipe.runs:
        recipe = recipe.model_copy(
            update={"runs": report.newest_two(recipe.paths.under_home("runs"))}
        )
    if len(recipe.runs or ()) < 2:
        raise RecipeError(
            "compare needs two runs or more", Line("compare", "RUN", "RUN")
        )
    # only runs of one command can have measured the same
    runs = report.opened(recipe)
    if len({shown_run.command for shown_run in runs}) == len(runs):
        kinds = ", ".join(
            f"{shown_run.label} of {shown_run.command}" for shown_run in runs
        )
        raise RecipeError(
            f"no two of these runs measured the same: {kinds}",
            "name two of one command",
        )
    return recipe
