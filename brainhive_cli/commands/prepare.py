"""prepare: stores of signals, made from raw recordings or from prepared files.

A signal store is an HDF5 file with the trials of one subject, as models read them.
"""

from collections.abc import Sequence
from functools import partial

from brainhive_cli.core import console, parts
from brainhive_cli.core.cells import announce, share_cells
from brainhive_cli.core.command import Result
from brainhive_cli.core.errors import Line, RecipeError
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import extend_title, merge_caveats
from brainhive_cli.core.tables import Table
from brainhive_cli.data.recordings.contract import Merged, NoTrials
from brainhive_cli.data.stores.job import Job, Recipe
from brainhive_cli.data.stores.signal_store import SignalStore
from brainhive_cli.data.stores.store_tables import COUNTED, count_rows, describe_store
from brainhive_cli.data.targets.next_commands import next_command

resolve_job = Job.resolve


def run(recipe: Recipe, launch: Launch, force: bool = False) -> Result:
    """Make a signal store (file of trials) for each subject who has none.

    Args:
        recipe: Settings of the command.
        launch: Processes, which share the sessions of a subject.
        force: If True, replace existing stores, too.

    Returns:
        A table of the trials in the stores of all subjects, and an overview of the
        recordings. The hint is the command that usually comes next.

    Raises:
        MissingData: if a file of a subject is missing. No store is made then.
        BrainhiveError: if an existing store was made with other settings or files, or
            if a file has unexpected contents.
    """
    # check the files of all subjects before anything is written
    with console.progress("checking files and stores"):
        job = Job.resolve(recipe)
        due_subjects = launch.run_on_main(partial(job.choose_due, force))
    makes_stores = due_subjects and not launch.is_read_only
    overview = launch.run_on_main(job.look_over) if makes_stores else ()

    # All processes of a launch prepare a subject together: each takes other sessions.
    # If the files are not divided into sessions (a `Merged` preparation), a single
    # process prepares the subject.
    session_counts = [max(1, len(job.sessions(subject))) for subject in due_subjects]
    workers = launch.single_process if isinstance(job.preparation, Merged) else launch

    # With `again`, an existing store is no sign that another process has prepared the
    # subject. Processes that work alone then divide the subjects in advance.
    subjects: Sequence[int] = due_subjects
    if force and workers is not launch:
        subjects = launch.shard(due_subjects)
    store_files = {str(subject): job.path(subject) for subject in subjects}
    prepared_subjects = set[str]()

    def is_finished(subject: str) -> bool:
        if subject in prepared_subjects:
            return True
        return not force and store_files[subject].is_file()

    # announce the work, and prepare subject by subject
    work = job.count_work(due_subjects)
    if work:
        announce(work, "prepare", recipe.paths.under_home("runs"), launch)
    title = f"preparing {job.preparation.dataset}"
    with (
        console.progress(title, sum(session_counts)) as bar,
        share_cells(store_files, workers, is_finished=is_finished) as claimed_subjects,
    ):
        for subject in claimed_subjects:
            job.prepare(int(subject), launch, bar)
            prepared_subjects.add(subject)
    if due_subjects:
        launch.run_on_main(job.remove_sessions_folder)

    # The pace (subjects per second) is stored for later estimates. Other processes
    # would distort it, so it is stored only if this process has prepared all subjects.
    has_prepared_all = prepared_subjects >= {str(subject) for subject in due_subjects}
    if not has_prepared_all:
        work = None
    return Result(
        job.path(1).parent,
        (_tabulate_stores(job),) + tuple(overview),
        hint=_write_next_command(recipe, job),
        work=work,
    )


def _tabulate_stores(job: Job) -> Table:
    """Count the trials in the stores (files of trials), and print a remark on overlap.

    Each subject has a store. The remark says that windows of trials overlap in time.

    Args:
        job: Work of the command, with the subjects and the paths of the stores.

    Returns:
        A table with a row for each subject and split.

    Raises:
        NoTrials: if no subject has a store.
    """
    # find the subjects who have a store
    dataset = job.preparation.dataset
    stored_subjects = [
        subject for subject in job.subjects if job.path(subject).is_file()
    ]
    if not stored_subjects:
        raise NoTrials(
            f"no subject of {dataset} has a complete trial",
            "see the reasons above; choose recordings by preparation.files=PATTERN",
        )

    # describe each store
    descriptions = {}
    with console.progress("describing the stores", len(stored_subjects)) as bar:
        for subject in stored_subjects:
            descriptions[subject] = describe_store(SignalStore.open(job.path(subject)))
            bar.advance()

    # If the windows of trials overlap in time, a response may be in the window of
    # another trial. Print this remark once for the data set, not for each subject.
    for description in descriptions.values():
        if description["overlap"]:
            console.say(f"{dataset}: {description['overlap']}")
            break

    # Write a row for each subject and split. The title of the table names the caveats
    # (limits of the signals) of all stores.
    rows = []
    for subject, description in descriptions.items():
        for counts in count_rows(description):
            rows.append((subject,) + counts)
    caveats = [description["caveats"] for description in descriptions.values()]
    title = extend_title(f"Signals of {dataset}", merge_caveats(*caveats))
    return Table(title, ("subject",) + COUNTED, rows)


def _write_next_command(recipe: Recipe, job: Job) -> str:
    """Write the command line that the user runs after `prepare`, as a hint.

    Args:
        recipe: Settings of the command.
        job: Work of the command, with the name of the prepared signals.

    Returns:
        A line such as `brainhive embed …` for the data set of the pictures.
    """
    signal_name = [] if job.name == "default" else [f"signal.name={job.name}"]

    # The key `stimuli` of a preparation names the data set of the pictures. Without
    # this key, the data set of the signals also has the pictures.
    config = getattr(job.preparation, "config", recipe.preparation)
    stimuli = getattr(config, "stimuli", None)
    try:
        stimuli = stimuli or parts.resolve("datasets", job.preparation.dataset)
        return next_command(stimuli, [], recipe.paths, *signal_name)
    except RecipeError:
        # the user has written the data set as a Python module with an unknown name
        return str(Line("embed", "dataset.kind=MODULE"))
