"""calibrate: how well a new person is decoded after how much recording, from a model of
other people.
"""

from brainhive_cli.core import driver
from brainhive_cli.core.command import Result
from brainhive_cli.core.launch import Launch
from brainhive_cli.evaluation.calibration.recipe import Recipe
from brainhive_cli.evaluation.calibration.run import CalibrationRun

resolve_job = CalibrationRun.resolve


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Measure every model and new person, draw by draw."""
    return driver.run("calibrate", resolve_job(recipe), launch, again)
