"""explain: sensors, times, bands and levels at which the signal carries information on stimuli."""

from functools import cache

from brainhive_cli.commands import train_align
from brainhive_cli.core import artifacts, cell_files, console
from brainhive_cli.core.inputs import Input, collect, digests_of
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.lines import Line
from brainhive_cli.core.results import Result, Work
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.core.tables import Table
from brainhive_cli.evaluation.explanation.conclusion import conclude
from brainhive_cli.evaluation.explanation.encoding_model import explain_signals
from brainhive_cli.evaluation.explanation.job import Job
from brainhive_cli.evaluation.explanation.model_profiles import explain_model
from brainhive_cli.evaluation.explanation.profiles import Axis, Profile, SubjectProfiles
from brainhive_cli.evaluation.explanation.recipe import OF_MODEL, Recipe
from brainhive_cli.evaluation.explanation.trial_decoding import explain_trials
from brainhive_cli.training.alignment.recipe import Cell
from brainhive_cli.training.alignment.trained import TrainedRun, open_model


def inputs(recipe: Recipe) -> list[Input]:
    """List the run, signals and the embeddings of the levels."""
    job = cache(lambda: Job.resolve(recipe))
    return collect(lambda: job().inputs(), checks=[lambda: job().open_levels()])


def work(recipe: Recipe) -> Work:
    """Count what there is to explain."""
    return Job.resolve(recipe).work


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Explain every cell and subject, then all together; an interrupted run keeps its finished parts."""
    # refuse folds and levels that cannot be had before anything is computed
    with console.progress("opening models, signals and embeddings"):
        job = Job.resolve(recipe)
        spec, align = job.spec, job.align
        has_trials = align.dataset.holdout.divides_train
        levels = job.open_levels()
        align.prepare_signals(launch)
        digests = digests_of(job.inputs())
    folder = RunFolder.open("explain", align.label, job.recipe, launch, again, digests)
    work = job.work if folder.is_untouched else None

    # held-out trials are decoded fold by fold
    if has_trials and not folder.is_finished:
        with folder.finishing(launch) as is_due:
            if is_due and launch.is_main:
                folder.finish(explain_trials(job, folder))

    # held-out pictures are explained by the trained models
    if not folder.is_finished:
        control = _train_control(job, launch)
        with console.progress("matching the pictures of all subjects"):
            units, caveats = job.find_units(launch.device)

        # one part for each cell and subject, and one for the signals of each subject, by all processes
        parts: list[tuple[Cell | None, int]] = []
        if spec.analyses_of(OF_MODEL):
            parts += job.pairs
        if "encoding" in spec.analyses:
            parts += [(None, subject) for subject in job.subjects]
        part_of_file = {
            f"parts/{cell.name if cell else 'signals'}/sub-{subject:02d}.safetensors": (cell, subject)
            for cell, subject in parts
        }

        def explain(name: str) -> SubjectProfiles:
            cell, subject = part_of_file[name]
            # signals are the same in all cells of a subject: the first cell reads them
            common = cell or job.subjects[subject][0], subject, units, launch.device
            reader = job.reader(*common)
            if cell is None:
                return explain_signals(reader, levels, spec)
            return explain_model(reader, spec, job.reader(*common, control) if control else None)

        # where other workers shared the parts, the time says no pace
        if not folder.fill(
            "explaining cells and subjects", {name: name for name in part_of_file}, launch, explain
        ):
            work = None
        launch.barrier()

        # all subjects together
        with folder.finishing(launch) as is_due, console.progress("explaining all subjects together"):
            if is_due and launch.is_main:
                readers = [
                    job.reader(cells[0], subject, units, launch.device)
                    for subject, cells in job.subjects.items()
                ]
                loaded = {
                    part: cell_files.load(folder.path / name, SubjectProfiles, Profile, Axis)
                    for name, part in part_of_file.items()
                }
                folder.finish(conclude(job, folder, readers, loaded, levels.get(spec.split, {}), caveats))

    # report the tables and figures
    with folder.reading() as measurements:
        tables = tuple(artifact for artifact in artifacts.read(folder) if isinstance(artifact, Table))
        return Result(folder.path, tables, measurements, hint=Line("report", folder.path), work=work)


def _train_control(job: Job, launch: Launch) -> TrainedRun | None:
    """Train the same cells on shuffled labels, if the recipe asks for it; a finished training is read."""
    # only analyses of trained models have this control
    recipe, training = job.recipe, job.align.recipe
    if recipe.control != "trained" or not recipe.analyses_of(OF_MODEL) or training is None:
        return None

    # the runs of the control lie below those of explain, so that other commands do not find them
    paths = recipe.paths.model_copy(update={"runs": f"{recipe.paths.runs}/explain/controls"})
    train = training.train.model_copy(update={"shuffled_labels": True})
    control = training.model_copy(update={"paths": paths, "train": train, "run": recipe.run})
    folder = train_align.run(control, launch).folder
    return open_model(str(folder), paths, recipe.dataset, recipe.subjects, recipe.copies)
