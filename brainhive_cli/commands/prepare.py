"""prepare: stores of signals, made from raw recordings or from prepared files."""

from collections.abc import Sequence
from functools import partial

from brainhive_cli.core.base import Failures, Line, RecipeError, Table, console
from brainhive_cli.core.files import is_saved
from brainhive_cli.core.recipes import parts
from brainhive_cli.core.results import extend_title, merge_caveats
from brainhive_cli.core.runs import Launch, Result, announce, share_cells
from brainhive_cli.data.recordings import NoTrials
from brainhive_cli.data.stores import (
    COUNT_COLUMNS,
    Job,
    Recipe,
    SignalStore,
    describe_store,
    make_count_rows,
)
from brainhive_cli.data.targets import write_next_command

resolve_job = Job.resolve


def run(recipe: Recipe, launch: Launch, force: bool = False) -> Result:
    """Make a signal store (HDF5 file of trials) for each subject who has none.

    Args:
        recipe: Settings of the command.
        launch: Processes, which share the sessions of a subject.
        force: If True, replace existing stores, too.

    Returns:
        A table of the trials in the stores of all subjects, and tables on the
        recordings if stores are made.

    Raises:
        MissingData: if a file of a subject is missing. No store is made then.
        BrainhiveError: if an existing store was made with other settings or files, or
            if a file has unexpected contents.
    """
    # check all files before anything is written
    with console.progress("checking files and stores"):
        job = Job.resolve(recipe)
        due_subjects = launch.run_on_main(partial(job.choose_due, force))
    makes_stores = due_subjects and not launch.is_read_only
    overview = launch.run_on_main(job.require_account) if makes_stores else ()

    # processes share the sessions of a subject, if its files have sessions
    session_counts = [
        len(job.preparation.sessions(subject)) for subject in due_subjects
    ]
    is_merged = not any(session_counts)
    workers = launch.single_process if is_merged else launch

    # with `force`, a store does not tell that another process has made it
    subjects: Sequence[int] = due_subjects
    if force and is_merged:
        subjects = launch.shard(due_subjects)
    store_files = {str(subject): job.build_path(subject) for subject in subjects}
    prepared_subjects = set[str]()
    failures = Failures()

    def is_finished(subject: str) -> bool:
        if subject in prepared_subjects:
            return True
        return not force and is_saved(store_files[subject])

    work = job.count_work(due_subjects)
    if work:
        announce(work, "prepare", recipe.paths.under_home("runs"), launch)
    title = f"preparing {job.preparation.dataset}"
    with (
        console.progress(title, sum(session_counts) or len(due_subjects)) as bar,
        share_cells(store_files, workers, is_finished=is_finished) as claimed_subjects,
    ):
        for subject in claimed_subjects:
            # several processes wait for each other, so all of them stop at an error
            if launch.processes > 1:
                job.prepare(int(subject), launch, bar)
            else:
                with failures.collect():
                    job.prepare(int(subject), launch, bar)
            prepared_subjects.add(subject)
    exit_code = failures.finish(len(store_files))
    if due_subjects:
        launch.run_on_main(job.remove_sessions_folder)

    # other processes would distort the pace (subjects per second) that `work` stores
    has_prepared_all = prepared_subjects >= {str(subject) for subject in due_subjects}
    return Result(
        job.build_path(1).parent,
        (_tabulate_stores(job),) + tuple(overview),
        hint=_write_next_command(recipe, job),
        work=work if has_prepared_all and not exit_code else None,
        exit_code=exit_code,
        details=failures.as_details(),
    )


def _tabulate_stores(job: Job) -> Table:
    """Make a table of the stored trials by subject and split, and report overlaps.

    Raises:
        NoTrials: if no subject has a store.
    """
    dataset = job.preparation.dataset
    stored_subjects = [
        subject for subject in job.subjects if job.build_path(subject).is_file()
    ]
    if not stored_subjects:
        other_subjects = [
            str(subject)
            for subject in job.preparation.subjects
            if subject not in job.subjects
        ]
        advice = "see the reasons above, or choose files: preparation.files=PATTERN"
        if other_subjects:
            advice = f"prepare other subjects: --subjects {','.join(other_subjects)}"
        raise NoTrials(f"no subject of {dataset} has a complete trial", advice)

    descriptions = {}
    with console.progress("describing the stores", len(stored_subjects)) as bar:
        for subject in stored_subjects:
            descriptions[subject] = describe_store(
                SignalStore.open(job.build_path(subject))
            )
            bar.advance()

    # report once for all subjects that windows of trials overlap in time
    for description in descriptions.values():
        if description["overlap"]:
            console.say(f"{dataset}: {description['overlap']}")
            break

    # the title names the caveats of all stores, such as `simulated`
    rows = []
    for subject, description in descriptions.items():
        for counts in make_count_rows(description):
            rows.append((subject,) + counts)
    caveats = [description["caveats"] for description in descriptions.values()]
    title = extend_title(f"Signals of {dataset}", merge_caveats(*caveats))
    return Table(title, ("subject",) + COUNT_COLUMNS, rows)


def _write_next_command(recipe: Recipe, job: Job) -> str:
    """Return the next command line, such as `brainhive embed …`."""
    signal_name = [] if recipe.name == "default" else [f"signal.name={recipe.name}"]

    # the pictures are in the data set `stimuli`, or else with the signals
    config = getattr(job.preparation, "config", recipe.preparation)
    stimuli = getattr(config, "stimuli", None)
    try:
        stimuli = stimuli or parts.resolve("datasets", job.preparation.dataset)
        return write_next_command(stimuli, [], recipe.paths, *signal_name)
    except RecipeError:
        # the data set is a Python module of the user
        return str(Line("embed", "dataset.kind=MODULE"))
