"""calibrate: decoding accuracy of a new person by the amount of recording."""

from brainhive_cli.core.runs import make_command
from brainhive_cli.evaluation.calibration.recipe import Recipe as Recipe
from brainhive_cli.evaluation.calibration.run import CalibrationRun

resolve_job = CalibrationRun.resolve
run = make_command(resolve_job)
"""Measure how well a model decodes a new person, by the amount of recording."""
