"""train-prior: a prior's modules on a frozen diffusion model."""

from brainhive_cli.core import driver
from brainhive_cli.core.command import Result
from brainhive_cli.core.launch import Launch
from brainhive_cli.training.prior.recipe import Recipe
from brainhive_cli.training.prior.run import PriorRun

resolve_job = PriorRun.resolve


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Train to the last step, from the newest checkpoint if there is one."""
    return driver.run("train-prior", resolve_job(recipe), launch, again)
