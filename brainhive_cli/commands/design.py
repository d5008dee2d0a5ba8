"""design: how much recording a study needs, and the order of its pictures."""

from brainhive_cli.core.runs import Launch, Result, driver
from brainhive_cli.evaluation.planning.recipe import Recipe
from brainhive_cli.evaluation.planning.run import DesignRun

resolve_job = DesignRun.resolve


def run(recipe: Recipe, launch: Launch, force: bool = False) -> Result:
    """Predict how well designs of a study answer its question, and write its order."""
    return driver.run(resolve_job(recipe), launch, force)
