"""eval-retrieval: retrieval of the stimulus from a gallery, for every cell of an align
run.
"""

from brainhive_cli.core import driver
from brainhive_cli.core.command import Result
from brainhive_cli.core.launch import Launch
from brainhive_cli.evaluation.retrieval.recipe import Recipe
from brainhive_cli.evaluation.retrieval.run import RetrievalRun

resolve_job = RetrievalRun.resolve


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Evaluate every cell on the subjects that it is tested on."""
    return driver.run("eval-retrieval", resolve_job(recipe), launch, again)
