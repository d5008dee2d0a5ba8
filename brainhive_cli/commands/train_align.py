"""train-align: training of a brain model for each cell (subjects × seed)."""

from brainhive_cli.core.runs import Launch, Result, driver
from brainhive_cli.training.alignment import Recipe
from brainhive_cli.training.alignment.training import TrainingRun

resolve_job = TrainingRun.resolve


def run(recipe: Recipe, launch: Launch, force: bool = False) -> Result:
    """Train a brain model for each cell, which is a set of subjects and a seed."""
    return driver.run(resolve_job(recipe), launch, force)
