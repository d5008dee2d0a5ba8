"""train-prior: training of the prior modules for a frozen diffusion model."""

from brainhive_cli.core import driver
from brainhive_cli.core.command import Result
from brainhive_cli.core.launch import Launch
from brainhive_cli.training.prior.recipe import Recipe
from brainhive_cli.training.prior.run import PriorRun

resolve_job = PriorRun.resolve


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Train the prior to the last step, from the newest checkpoint if there is one.

    Args:
        recipe: Settings of the command.
        launch: Processes and device.
        again: If True, start a new run even if the same run is finished.
    """
    return driver.run("train-prior", resolve_job(recipe), launch, again)
