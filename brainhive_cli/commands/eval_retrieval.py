"""eval-retrieval: retrieval of the seen picture from a gallery."""

from brainhive_cli.core.runs import Launch, Result, driver
from brainhive_cli.evaluation.retrieval.recipe import Recipe
from brainhive_cli.evaluation.retrieval.run import RetrievalRun

resolve_job = RetrievalRun.resolve


def run(recipe: Recipe, launch: Launch, force: bool = False) -> Result:
    """Rank the seen picture of each test signal among the pictures of a gallery."""
    return driver.run(resolve_job(recipe), launch, force)
