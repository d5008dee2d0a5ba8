"""explain: sensors, times, bands and levels at which the signal carries information on
stimuli.
"""

from brainhive_cli.core import driver
from brainhive_cli.core.command import Result
from brainhive_cli.core.launch import Launch
from brainhive_cli.evaluation.explanation.recipe import Recipe
from brainhive_cli.evaluation.explanation.run import ExplanationRun

resolve_job = ExplanationRun.resolve


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Explain every cell and subject, then all together."""
    return driver.run("explain", resolve_job(recipe), launch, again)
