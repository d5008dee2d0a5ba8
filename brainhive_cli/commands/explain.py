"""explain: sensors, times, bands and levels at which the signal carries information on
stimuli.
"""

from functools import cache

from brainhive_cli.core import artifacts, console, weights
from brainhive_cli.core.cells import fill, finishing, is_untouched, start_run
from brainhive_cli.core.command import Input, Result, Work, collect, digests_of
from brainhive_cli.core.errors import Line
from brainhive_cli.core.launch import Launch
from brainhive_cli.evaluation.explanation.conclusion import MAPS, conclude
from brainhive_cli.evaluation.explanation.encoding_model import explain_signals
from brainhive_cli.evaluation.explanation.job import Job
from brainhive_cli.evaluation.explanation.model_profiles import explain_model
from brainhive_cli.evaluation.explanation.profiles import Axis, Profile, SubjectProfiles
from brainhive_cli.evaluation.explanation.recipe import OF_MODEL, Recipe
from brainhive_cli.evaluation.explanation.trial_decoding import explain_trials
from brainhive_cli.training.alignment.recipe import Cell


def inputs(recipe: Recipe) -> list[Input]:
    """List the run, signals and the embeddings of the levels."""
    job = cache(lambda: Job.resolve(recipe))
    return collect(lambda: job().inputs(), checks=[lambda: job().open_levels()])


def work(recipe: Recipe) -> Work:
    """Count what there is to explain."""
    return Job.resolve(recipe).count_work()


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Explain every cell and subject, then all together; an interrupted run keeps its
    finished parts.
    """
    # refuse folds and levels that cannot be had before anything is computed
    with console.progress("opening models, signals and embeddings"):
        job = Job.resolve(recipe)
        align = job.align
        has_trials = align.dataset.holdout.divides_train
        levels = job.open_levels()
        align.prepare_signals(launch)
        digests = digests_of(job.inputs())
    folder = start_run("explain", align.label, job.recipe, launch, again, digests)
    planned = job.count_work()
    work = planned if is_untouched(folder) else None

    # held-out trials are decoded fold by fold
    if has_trials and not folder.is_finished:
        with finishing(folder, launch) as is_due:
            if is_due and launch.is_main:
                folder.finish(explain_trials(job, folder))

    # held-out pictures are explained by the trained models
    if not folder.is_finished:
        with console.progress("matching the pictures of all subjects"):
            units = job.find_units(launch.device)

        # one part for each cell and subject, and one for the signals of each subject,
        # by all processes
        parts: list[tuple[Cell | None, int]] = []
        if OF_MODEL.keys() & recipe.analyses:
            parts += [
                (cell, subject)
                for subject, cells in job.subjects.items()
                for cell in cells
            ]
        if "encoding" in recipe.analyses:
            parts += [(None, subject) for subject in job.subjects]
        part_of_file = {
            f"parts/{cell.name if cell else 'signals'}/sub-{subject:02d}.safetensors": (
                cell,
                subject,
            )
            for cell, subject in parts
        }

        def explain(name: str) -> SubjectProfiles:
            cell, subject = part_of_file[name]
            # signals are the same in all cells of a subject: the first cell reads them
            reader = job.reader(
                cell or job.subjects[subject][0], subject, units, launch.device
            )
            return (
                explain_model(reader, recipe)
                if cell
                else explain_signals(reader, levels, recipe)
            )

        # where other workers shared the parts, the time says no pace
        if not fill(
            folder,
            "explaining cells and subjects",
            {name: name for name in part_of_file},
            launch,
            explain,
            planned,
        ):
            work = None
        launch.barrier()

        # all subjects together
        with (
            finishing(folder, launch) as is_due,
            console.progress("explaining all subjects together"),
        ):
            if is_due and launch.is_main:
                readers = [
                    job.reader(cells[0], subject, units, launch.device)
                    for subject, cells in job.subjects.items()
                ]
                loaded = {
                    part: weights.load_cell(
                        folder.path / name, SubjectProfiles, Profile, Axis
                    )
                    for name, part in part_of_file.items()
                }
                folder.finish(
                    conclude(
                        job,
                        folder,
                        readers,
                        loaded,
                        levels.get(recipe.split, {}),
                    )
                )

    # report the tables and figures
    measurements = folder.measurements()
    tables = artifacts.read_tables(folder)
    maps = folder.path / MAPS
    return Result(
        folder.path,
        tables,
        measurements,
        {"maps": maps} if maps.is_dir() else {},
        Line("report", folder.path),
        work=work,
    )
