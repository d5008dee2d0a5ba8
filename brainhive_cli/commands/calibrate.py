"""calibrate: decoding accuracy of a new person by the amount of recording."""

from brainhive_cli.core import driver
from brainhive_cli.core.command import Result
from brainhive_cli.core.launch import Launch
from brainhive_cli.evaluation.calibration.recipe import Recipe
from brainhive_cli.evaluation.calibration.run import CalibrationRun

resolve_job = CalibrationRun.resolve


def run(recipe: Recipe, launch: Launch, force: bool = False) -> Result:
    """Measure how well a model decodes a new person, by the amount of recording.

    For each amount, a model of other people is adapted to recordings of the new person,
    and tested on the test pictures.

    Args:
        recipe: Settings of the command.
        launch: Processes and device.
        force: If True, start a new run even if a run with the same settings is
            finished.

    Returns:
        Tables and metrics of the run, with its folder.
    """
    return driver.run("calibrate", resolve_job(recipe), launch, force)
