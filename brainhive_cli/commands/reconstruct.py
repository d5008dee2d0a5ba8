"""reconstruct: pictures or clips from test signals, by a prior and a generator."""

from functools import partial

from brainhive_cli.core.base import BrainhiveError
from brainhive_cli.core.runs import Job, Launch, Result, RunJob, UnresolvedJob, driver
from brainhive_cli.evaluation.reconstruction import run as reconstruction
from brainhive_cli.evaluation.reconstruction.recipe import Recipe


def resolve_job(recipe: Recipe, like: RunJob | None = None) -> Job:
    """Make the job of a recipe, or after an error a job that only lists its inputs.

    Args:
        recipe: Settings of the command.
        like: Run whose prior and brain models are shared, or None.
    """
    try:
        return reconstruction.resolve_job(recipe, like)
    except BrainhiveError as error:
        list_known_inputs = partial(reconstruction.list_known_inputs, recipe)
        return UnresolvedJob(recipe, error, list_known_inputs)


def run(recipe: Recipe, launch: Launch, force: bool = False) -> Result:
    """Generate pictures or clips from test signals, and score them.

    Pictures of other software, if the recipe names them, are only scored.

    Args:
        recipe: Settings of the command.
        launch: Processes and device.
        force: If True, start a new run even if an equal run is finished.

    Returns:
        Tables and metrics of the run, with its folder.
    """
    job = reconstruction.resolve_job(recipe)
    return driver.run(job, launch, force)
