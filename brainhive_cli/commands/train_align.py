"""train-align: training of a brain model for each cell (subjects × seed)."""

from brainhive_cli.core import driver
from brainhive_cli.core.command import Result
from brainhive_cli.core.launch import Launch
from brainhive_cli.training.alignment.recipe import Recipe
from brainhive_cli.training.alignment.training.run import TrainingRun

resolve_job = TrainingRun.resolve


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Train the model of every cell that is not finished.

    Args:
        recipe: Settings of the command.
        launch: Processes and device.
        again: If True, start a new run even if the same run is finished.
    """
    return driver.run("train-align", resolve_job(recipe), launch, again)
