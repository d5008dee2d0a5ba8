"""calibrate: how well a new person is decoded after how much recording, from a model of other people."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import lru_cache, partial

import numpy as np

from brainhive_cli.commands import train_align
from brainhive_cli.core import artifacts, console
from brainhive_cli.core.inputs import Input, collect, digests_of
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.lines import Line
from brainhive_cli.core.results import Result, Work
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.core.tables import Table
from brainhive_cli.evaluation.calibration.curve_page import conclude
from brainhive_cli.evaluation.calibration.curves import Results
from brainhive_cli.evaluation.calibration.job import Job
from brainhive_cli.evaluation.calibration.measure import Part, measure_draw, part_file
from brainhive_cli.evaluation.calibration.recipe import Recipe
from brainhive_cli.evaluation.calibration.strengths import Choice, choose_pulls, needs_choice, train_without
from brainhive_cli.training.alignment.few_shot import TRAINED_ARMS, TRANSFER, PersonModel
from brainhive_cli.training.alignment.recipe import Cell
from brainhive_cli.training.alignment.trained import TrainedRun, open_model


def inputs(recipe: Recipe) -> list[Input]:
    """List the run, signals and embeddings."""
    return collect(lambda: Job.resolve(recipe).inputs())


def work(recipe: Recipe) -> Work:
    """Count the models that are trained."""
    return Job.resolve(recipe).work


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Measure every model and person, draw by draw; an interrupted run keeps its finished parts."""
    with console.progress("opening models, signals and embeddings"):
        job = Job.resolve(recipe)
        job.align.prepare_signals(launch)
        _ = job.amounts  # which are refused before anything is trained
        digests = digests_of(job.inputs())
    if (repetitions := job.training.signal.repetitions) != "average":
        console.warn(f"{job.align.name} learned from trials ({repetitions}); calibrate learns from averages")
    folder = RunFolder.open("calibrate", job.align.label, job.recipe, launch, again, digests)
    work = job.work if folder.is_untouched and job.work.count else None
    if not folder.is_finished:
        choices = _choose(job, folder, launch)

        # one part for each model, person and draw, by all processes
        draws = range(job.spec.draw_count)
        parts = [(cell, draw) for cell in job.cells for draw in draws]
        named = {f"{_name(cell)}, draw {draw}": (cell, draw) for cell, draw in parts}
        open_base = lru_cache(1)(lambda cell: job.load_base(cell, launch))

        def measure(name: str) -> Part:
            cell, draw = named[name]
            person, spec, pulls = job.people[cell.tested_on[0]], job.spec, choices[_name(cell)].pulls
            random = np.random.default_rng((spec.seed, person.subject, draw))
            keep = _keep(job, cell, folder) if draw == 0 else None
            return measure_draw(open_base(cell), person, spec, job.amounts, pulls, draw, random, keep)

        files = {name: part_file(*part) for name, part in named.items()}
        if not folder.fill("models, persons and draws", files, launch, measure):
            work = None

        # all persons together
        with folder.finishing(launch) as is_due:
            if is_due and launch.is_main:
                measured, drawn = conclude(
                    Results(job, {part: Part.load(folder.path / part_file(*part)) for part in parts}), choices
                )
                for name, reason in measured.missing.items():
                    console.warn(f"{name} left out: {reason}")
                artifacts.write(folder, drawn)
                folder.finish(measured)

    with folder.reading() as measurements:
        tables = tuple(artifact for artifact in artifacts.read(folder) if isinstance(artifact, Table))
        console.say(measurements.notes["finding"])
        hint = Line("report", folder.path)
        shown = tables[:2]  # what arms are is on the page
        return Result(folder.path, tables, measurements, hint=hint, work=work, shown=shown)


def _name(cell: Cell) -> str:
    """Name a model with its new person."""
    return f"{cell.name} sub-{cell.tested_on[0]:02d}"


def _keep(job: Job, cell: Cell, folder: RunFolder) -> dict[str, Callable[[PersonModel], None]]:
    """Write the models that are kept, below the run, by the names of their arms."""
    arms = {"none": (), "transfer": (TRANSFER,), "all": TRAINED_ARMS}[job.recipe.keep]
    below = f"models/{cell.name}/sub-{cell.tested_on[0]:02d}"

    def write(arm: str, decoder: PersonModel) -> None:
        folder.replace(f"{below}/{arm}", decoder.save)

    return {arm: partial(write, arm) for arm in arms}


def _choose(job: Job, folder: RunFolder, launch: Launch) -> Mapping[str, Choice]:
    """Choose the strength of transfer of each model; models without one more person are trained for it.

    A choice is kept in the run, so that an interrupted command does not choose again.
    """
    files = {_name(cell): f"choices/{cell.name}/sub-{cell.tested_on[0]:02d}.json" for cell in job.cells}
    todo = [cell for cell in job.cells if not (folder.path / files[_name(cell)]).is_file()]
    todo = launch.gather(todo)[0]  # as one process sees them

    # models without one person, by all processes together; other commands do not find these runs
    paths = job.recipe.paths.model_copy(update={"runs": f"{job.recipe.paths.runs}/calibrate/.left-out"})
    runs = {}
    left_out: dict[str, dict[int, TrainedRun]] = {_name(cell): {} for cell in todo}
    for cell in todo:
        for subject in cell.trained_on if needs_choice(job, cell) else ():
            key = tuple(one for one in cell.trained_on if one != subject), cell.seed
            if key not in runs:
                runs[key] = open_model(
                    str(train_align.run(train_without(job, cell, subject, paths), launch).folder), paths
                )
            left_out[_name(cell)][subject] = runs[key]

    # the choice of each model, by one process
    named = {f"strength for {_name(cell)}": cell for cell in todo}
    with folder.claim_cells({name: files[_name(cell)] for name, cell in named.items()}, launch.alone) as free:
        for cell in map(named.__getitem__, free):
            choice = choose_pulls(job, cell, left_out[_name(cell)], launch)
            folder.write_json(files[_name(cell)], asdict(choice))
    launch.barrier()
    return {name: folder.read_json(file, Choice) for name, file in files.items()}
