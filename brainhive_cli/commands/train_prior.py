"""train-prior: training of the prior modules for a frozen diffusion model."""

from brainhive_cli.core.runs import Launch, Result, driver
from brainhive_cli.training.prior.recipe import Recipe
from brainhive_cli.training.prior.run import PriorRun

resolve_job = PriorRun.resolve


def run(recipe: Recipe, launch: Launch, force: bool = False) -> Result:
    """Train the prior of a frozen diffusion model."""
    return driver.run(resolve_job(recipe), launch, force)
