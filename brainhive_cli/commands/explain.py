"""explain: sensors, times, frequency bands and levels that carry information."""

from brainhive_cli.core.runs import Launch, Result, driver
from brainhive_cli.evaluation.explanation.recipe import Recipe
from brainhive_cli.evaluation.explanation.run import ExplanationRun

resolve_job = ExplanationRun.resolve


def run(recipe: Recipe, launch: Launch, force: bool = False) -> Result:
    """Measure which sensors, times, frequency bands and levels carry information."""
    return driver.run(resolve_job(recipe), launch, force)
