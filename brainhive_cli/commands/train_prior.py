"""train-prior: training of the prior modules for a frozen diffusion model."""

from brainhive_cli.core.runs import make_command
from brainhive_cli.training.prior.recipe import Recipe as Recipe
from brainhive_cli.training.prior.run import PriorRun

resolve_job = PriorRun.resolve
run = make_command(resolve_job)
"""Train the prior of a frozen diffusion model."""
