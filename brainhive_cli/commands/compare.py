"""The command `compare`: runs side by side, with tests of their difference."""

from brainhive_cli.commands import report
from brainhive_cli.commands.facts import WorkflowFacts
from brainhive_cli.core.base import BrainhiveError, Line, RecipeError
from brainhive_cli.core.files import Input
from brainhive_cli.core.runs import Launch, Result
from brainhive_cli.reports.tables import RunGroup, find_shown_run


class Recipe(report.Recipe):
    """Recipe of `compare`."""

    summary = (
        "Compare runs side by side, with paired tests of the first run against each "
        "other run."
    )
    example = "RUN RUN --labels aligned,base"


def inputs(recipe: Recipe) -> list[Input]:
    """List the runs that are compared, and the files that are written."""
    return report.inputs(_select_runs(recipe))


def run(recipe: Recipe, launch: Launch, force: bool = False) -> Result:
    """Compare the first run with each other run, and write the page or the tables."""
    return report.run(_select_runs(recipe), launch, force)


def compare_runs(recipe: Recipe) -> list[RunGroup]:
    """Compare the runs without writing a file, and return them grouped by command."""
    return report.group_runs(report.open_runs(_select_runs(recipe)))


def _expand_workflow(recipe: Recipe) -> Recipe:
    """Return a recipe with the runs that a workflow compares, instead of the workflow.

    They are runs of its last such step. The first is the run that the others were
    compared with.
    """
    names = recipe.runs or []
    if len(names) != 1:
        return recipe
    try:
        run = find_shown_run(recipe.paths.under_home("runs"), names[0])
    except BrainhiveError:  # a single run cannot be compared anyway
        return recipe
    facts = run.measurements().facts
    if not isinstance(facts, WorkflowFacts) or not facts.compared:
        return recipe
    step = facts.compared_steps[-1]
    references = {pair.first for pair in facts.comparisons}
    steps = [name for name in facts.compared if name.partition(" · ")[0] == step]
    steps.sort(key=lambda name: name not in references)
    labels = [name.partition(" · ")[2] for name in steps]
    runs = [facts.step_runs[name] for name in steps]
    return recipe.model_copy(update={"runs": runs, "labels": recipe.labels or labels})


def _select_runs(recipe: Recipe) -> Recipe:
    """Return a recipe with runs to compare, by default the two newest.

    Raises:
        RecipeError: if the recipe names a single run, or if no two runs were made by
            the same command.
        MissingData: if a run does not exist or is not finished.
    """
    recipe = _expand_workflow(recipe)
    if not recipe.runs:
        newest_runs = report.find_newest_pair(recipe.paths.under_home("runs"))
        recipe = recipe.model_copy(update={"runs": newest_runs})
    if len(recipe.runs or ()) < 2:
        raise RecipeError(
            "compare needs two runs or more", Line("compare", "RUN", "RUN")
        )

    # runs of different commands measure different values
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
