"""explain: sensors, times, frequency bands and levels that carry information."""

from brainhive_cli.core import driver
from brainhive_cli.core.command import Result
from brainhive_cli.core.launch import Launch
from brainhive_cli.evaluation.explanation.recipe import Recipe
from brainhive_cli.evaluation.explanation.run import ExplanationRun

resolve_job = ExplanationRun.resolve


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Analyse every cell (trained model) and subject, then all of them together.

    Args:
        recipe: Settings of the command.
        launch: Processes and device.
        again: If True, start a new run even if the same run is finished.
    """
    return driver.run("explain", resolve_job(recipe), launch, again)
