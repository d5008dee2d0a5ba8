"""explain: sensors, times, frequency bands and levels that carry information."""

from brainhive_cli.core.runs import make_command
from brainhive_cli.evaluation.explanation.recipe import Recipe as Recipe
from brainhive_cli.evaluation.explanation.run import ExplanationRun

resolve_job = ExplanationRun.resolve
run = make_command(resolve_job)
"""Measure which sensors, times, frequency bands and levels carry information."""
