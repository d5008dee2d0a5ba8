"""explain: sensors, times, frequency bands and levels that carry information."""

from brainhive_cli.core import driver
from brainhive_cli.core.command import Result
from brainhive_cli.core.launch import Launch
from brainhive_cli.evaluation.explanation.recipe import Recipe
from brainhive_cli.evaluation.explanation.run import ExplanationRun

resolve_job = ExplanationRun.resolve


def run(recipe: Recipe, launch: Launch, force: bool = False) -> Result:
    """Measure which sensors, times, frequency bands and levels carry information.

    Every cell (trained model) of a run is analysed with each of its subjects. Then the
    results of all cells and subjects are combined.

    Args:
        recipe: Settings of the command.
        launch: Processes and device.
        force: If True, start a new run even if a run with the same settings is
            finished.

    Returns:
        Tables and metrics of the run, with its folder.
    """
    return driver.run("explain", resolve_job(recipe), launch, force)
