"""train-prior: training of the prior modules for a frozen diffusion model."""

from brainhive_cli.core import driver
from brainhive_cli.core.command import Result
from brainhive_cli.core.launch import Launch
from brainhive_cli.training.prior.recipe import Recipe
from brainhive_cli.training.prior.run import PriorRun

resolve_job = PriorRun.resolve


def run(recipe: Recipe, launch: Launch, force: bool = False) -> Result:
    """Train the prior of a frozen diffusion model.

    An interrupted training continues at its newest checkpoint.

    Args:
        recipe: Settings of the command.
        launch: Processes and device.
        force: If True, start a new run even if a run with the same settings is
            finished.

    Returns:
        Tables and metrics of the run, with its folder.
    """
    return driver.run("train-prior", resolve_job(recipe), launch, force)
