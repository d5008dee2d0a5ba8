"""reconstruct: from test signals to pictures or clips, through a prior and a
generator.
"""

from brainhive_cli.core import driver
from brainhive_cli.core.command import Result
from brainhive_cli.core.launch import Launch
from brainhive_cli.evaluation.reconstruction.recipe import Recipe
from brainhive_cli.evaluation.reconstruction.run import foresee, resolve_job

__all__ = ["Recipe", "foresee", "resolve_job", "run"]


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Generate what is not there yet, then measure; or score what others made."""
    return driver.run("reconstruct", resolve_job(recipe), launch, again)
