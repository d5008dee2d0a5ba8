"""train-align: training of a brain model for each cell (subjects × seed)."""

from brainhive_cli.core.runs import make_command
from brainhive_cli.training.alignment import Recipe as Recipe
from brainhive_cli.training.alignment.training import TrainingRun

resolve_job = TrainingRun.resolve
run = make_command(resolve_job)
"""Train a brain model for each cell, which is a set of subjects and a seed."""
