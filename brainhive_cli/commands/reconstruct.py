"""reconstruct: pictures or clips from test signals, by a prior and a generator."""

from brainhive_cli.core import driver
from brainhive_cli.core.command import Result
from brainhive_cli.core.launch import Launch
from brainhive_cli.evaluation.reconstruction.recipe import Recipe
from brainhive_cli.evaluation.reconstruction.run import foresee, resolve_job

__all__ = ["Recipe", "foresee", "resolve_job", "run"]


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Generate pictures or clips from test signals, and score them.

    Pictures of an interrupted run are kept. The recipe may also name pictures that
    other software has generated. These are only scored.

    Args:
        recipe: Settings of the command.
        launch: Processes and device.
        again: If True, start a new run even if a run with the same settings is
            finished.

    Returns:
        Tables and metrics of the run, with its folder.
    """
    return driver.run("reconstruct", resolve_job(recipe), launch, again)
