"""calibrate: decoding accuracy of a new person by the amount of recording."""

from brainhive_cli.core import driver
from brainhive_cli.core.command import Result
from brainhive_cli.core.launch import Launch
from brainhive_cli.evaluation.calibration.recipe import Recipe
from brainhive_cli.evaluation.calibration.run import CalibrationRun

resolve_job = CalibrationRun.resolve


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Adapt each model to each new person with each amount of recording, and test it.

    Args:
        recipe: Settings of the command.
        launch: Processes and device.
        again: If True, start a new run even if the same run is finished.
    """
    return driver.run("calibrate", resolve_job(recipe), launch, again)
