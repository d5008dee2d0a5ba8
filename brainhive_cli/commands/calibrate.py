"""calibrate: how well a new person is decoded after how much recording, from a model of
other people.
"""

from collections import defaultdict
from collections.abc import Mapping
from functools import cache, lru_cache
from itertools import product

from brainhive_cli.commands import train_align
from brainhive_cli.core import artifacts, console, weights
from brainhive_cli.core.cells import (
    claim_cells,
    fill,
    finishing,
    is_untouched,
    say_found,
    start_run,
)
from brainhive_cli.core.command import Input, Result, Work, collect, digests_of
from brainhive_cli.core.errors import Line
from brainhive_cli.core.facts import Strength
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.evaluation.calibration.curves import conclude, draw
from brainhive_cli.evaluation.calibration.job import Job
from brainhive_cli.evaluation.calibration.measure import (
    Part,
    choose_pulls,
    fix_pulls,
    list_arms,
    measure_draw,
    train_on,
)
from brainhive_cli.evaluation.calibration.recipe import Recipe
from brainhive_cli.training.alignment.recipe import Cell
from brainhive_cli.training.alignment.trained import TrainedRun, open_model


def inputs(recipe: Recipe) -> list[Input]:
    """List the run, signals and embeddings."""
    return collect(lambda: Job.resolve(recipe).inputs())


def work(recipe: Recipe) -> Work:
    """Count the models that are trained."""
    return Job.resolve(recipe).count_work()


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Measure every model and person, draw by draw; an interrupted run keeps its
    finished parts.
    """
    # refuse missing recordings and amounts that a person lacks before anything is
    # trained
    with console.progress("opening models, signals and embeddings"):
        job = Job.resolve(recipe)
        job.align.prepare_signals(launch)
        _ = job.amounts  # which are refused before anything is trained
        digests = digests_of(job.inputs())
    if (repetitions := job.training.signal.repetitions) != "average":
        console.warn(
            f"{job.align.name} learned from trials ({repetitions}); calibrate learns "
            "from averages"
        )
    # the digests name the run: other recordings make another one
    folder = start_run("calibrate", job.align.label, job.recipe, launch, again, digests)
    planned = job.count_work()
    work = planned if is_untouched(folder) and planned.count else None
    if not folder.is_finished:
        choices = _choose(job, folder, launch)

        # one part for each model, person and draw, by all processes
        parts = product(job.cells, range(job.draws))
        part_of_name = {
            f"{_name(cell)}, draw {draw}": (cell, draw) for cell, draw in parts
        }
        # draws of one model follow each other, so only the last model stays loaded
        open_base = lru_cache(1)(lambda cell: job.load_base(cell, launch))

        def measure(name: str) -> Part:
            cell, draw = part_of_name[name]
            person = job.people[cell.tested_on[0]]
            pulls = choices[_name(cell)].pulls
            return measure_draw(
                job, open_base(cell), person, list_arms(job.recipe), pulls, draw
            )

        files = {}
        for name, (cell, number) in part_of_name.items():
            part = f"sub-{cell.tested_on[0]:02d}_draw-{number:03d}.safetensors"
            files[name] = f"parts/{cell.name}/{part}"
        # where other workers shared the parts, the time says no pace
        title = "calibrating models, persons and draws"
        if not fill(folder, title, files, launch, measure, planned):
            work = None

        # all persons together
        with finishing(folder, launch) as is_due:
            if is_due and launch.is_main:
                ranked = {
                    part_of_name[name]: weights.load_cell(folder.path / file, Part)
                    for name, file in files.items()
                }
                measured = conclude(job, ranked, choices)
                for name, reason in measured.missing.items():
                    console.warn(f"{name} left out: {reason}")
                artifacts.write(folder, draw(measured))
                folder.finish(measured)

    # show the tables of the finished run
    measurements = folder.measurements()
    tables = artifacts.read_tables(folder)
    hint = Line("report", folder.path)
    shown = tables[:2]  # what arms are is on the page
    return Result(folder.path, tables, measurements, hint=hint, work=work, shown=shown)


def _name(cell: Cell) -> str:
    """Name a model with its new person."""
    return f"{cell.name} sub-{cell.tested_on[0]:02d}"


def _choose(job: Job, folder: RunFolder, launch: Launch) -> Mapping[str, Strength]:
    """Choose the strength of transfer of each model; models without one more person are
    trained for it.

    A choice is kept in the run, so that an interrupted command does not choose again.
    """
    # a file for each choice; models whose file is there are skipped
    files = {
        cell: f"choices/{cell.name}/sub-{cell.tested_on[0]:02d}.json"
        for cell in job.cells
    }
    todo = [cell for cell, file in files.items() if not (folder.path / file).is_file()]
    todo = launch.gather(todo)[0]  # as one process sees them

    # models without one person, by all processes together; other commands do not find
    # these runs
    paths = job.recipe.paths.model_copy(
        update={"runs": f"{job.recipe.paths.runs}/calibrate/.left-out"}
    )

    # cached, as two new persons who leave each other out share a model
    finished = list[str]()

    @cache
    def train(people: tuple[int, ...], seed: int) -> TrainedRun:
        run = train_align.run(
            train_on(job, people, seed, paths), launch, False, finished
        )
        return open_model(str(run.folder), paths)

    # a strength that recipe or run fix needs no further trainings
    fixed = {cell: fix_pulls(job, cell) for cell in todo}
    left_out = defaultdict[Cell, dict[int, TrainedRun]](dict)
    pairs = [
        (cell, subject)
        for cell in todo
        if fixed[cell] is None
        for subject in cell.trained_on
    ]
    with console.progress("training models without one person", len(pairs)) as bar:
        for cell, subject in pairs:
            people = tuple(one for one in cell.trained_on if one != subject)
            left_out[cell][subject] = train(people, cell.seed)
            bar.advance()
    say_found(finished)

    # the choice of each model, by one process
    cell_of_name = {f"strength for {_name(cell)}": cell for cell in todo}
    with claim_cells(
        folder, {name: files[cell] for name, cell in cell_of_name.items()}, launch.alone
    ) as free:
        for cell in map(cell_of_name.__getitem__, free):
            choice = fixed[cell] or choose_pulls(job, cell, left_out[cell], launch)
            folder.write_json(files[cell], choice.model_dump())
    launch.barrier()
    return {
        _name(cell): folder.read_json(file, Strength) for cell, file in files.items()
    }
