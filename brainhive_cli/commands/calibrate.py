"""calibrate: decoding accuracy of a new person by the amount of recording."""

from brainhive_cli.core.runs import Launch, Result, driver
from brainhive_cli.evaluation.calibration.recipe import Recipe
from brainhive_cli.evaluation.calibration.run import CalibrationRun

resolve_job = CalibrationRun.resolve


def run(recipe: Recipe, launch: Launch, force: bool = False) -> Result:
    """Measure how well a model decodes a new person, by the amount of recording."""
    return driver.run(resolve_job(recipe), launch, force)
