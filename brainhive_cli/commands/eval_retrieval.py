"""eval-retrieval: retrieval of the seen picture from a gallery."""

from brainhive_cli.core import driver
from brainhive_cli.core.command import Result
from brainhive_cli.core.launch import Launch
from brainhive_cli.evaluation.retrieval.recipe import Recipe
from brainhive_cli.evaluation.retrieval.run import RetrievalRun

resolve_job = RetrievalRun.resolve


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Evaluate every cell (trained model) of a run on its test subjects.

    Args:
        recipe: Settings of the command.
        launch: Processes and device.
        again: If True, start a new run even if the same run is finished.
    """
    return driver.run("eval-retrieval", resolve_job(recipe), launch, again)
