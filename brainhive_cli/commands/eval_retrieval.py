"""eval-retrieval: retrieval of the seen picture from a gallery."""

from brainhive_cli.core.runs import make_command
from brainhive_cli.evaluation.retrieval.recipe import Recipe as Recipe
from brainhive_cli.evaluation.retrieval.run import RetrievalRun

resolve_job = RetrievalRun.resolve
run = make_command(resolve_job)
"""Rank the seen picture of each test signal among the pictures of a gallery."""
