"""train-align: training of a brain model for each cell (subjects × seed)."""

from brainhive_cli.core.runs import driver
from brainhive_cli.core.runs.launch import Launch
from brainhive_cli.core.runs.result import Result
from brainhive_cli.training.alignment.recipe import Recipe
from brainhive_cli.training.alignment.training.run import TrainingRun

resolve_job = TrainingRun.resolve


def run(recipe: Recipe, launch: Launch, force: bool = False) -> Result:
    """Train a brain model for each cell, which is a set of subjects and a seed."""
    return driver.run(resolve_job(recipe), launch, force)
