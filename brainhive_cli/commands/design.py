"""design: how much recording a study needs, and the order of its pictures."""

from brainhive_cli.core.runs import make_command
from brainhive_cli.evaluation.planning.recipe import Recipe as Recipe
from brainhive_cli.evaluation.planning.run import DesignRun

resolve_job = DesignRun.resolve
run = make_command(resolve_job)
"""Predict how well designs of a study answer its question, and write its order."""
