"""prepare: raw recordings, or files that others have prepared, become one signal store
a subject.
"""

from functools import partial

from brainhive_cli.core import console, parts
from brainhive_cli.core.cells import announce, claiming
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


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Make the stores that are not there, a subject at a time; processes share its
    sessions.

    Raises:
        MissingData: if a subject lacks a file; nothing is prepared then.
        BrainhiveError: if a store is there that was made otherwise, or a file does not
            hold what it should.
    """
    # a store that was made otherwise, or a missing file, ends the command before
    # anything is written
    with console.progress("checking files and stores"):
        job = Job.resolve(recipe)
        due = launch.run_on_main(partial(job.choose_due, again))
    is_new = due and not launch.is_read_only
    overview = launch.run_on_main(job.look_over) if is_new else ()

    # subjects one by one; processes share the sessions of one, or each takes a subject
    # where files hold all repetitions together
    counts = [max(1, len(job.sessions(subject))) for subject in due]
    workers = launch.single_process if isinstance(job.preparation, Merged) else launch
    share = (
        launch.shard(due) if again and workers is not launch else due
    )  # else a store is made again by each
    files = {str(subject): job.path(subject) for subject in share}
    done = set[str]()

    def is_finished(name: str) -> bool:
        return name in done or (not again and files[name].is_file())

    if planned := job.count_work(due):
        announce(planned, "prepare", recipe.paths.under_home("runs"), launch)
    with (
        console.progress(f"preparing {job.preparation.dataset}", sum(counts)) as bar,
        claiming(files, workers, is_finished=is_finished) as free,
    ):
        for name in free:
            job.prepare(int(name), launch, bar)
            done.add(name)
    if due:
        launch.run_on_main(job.remove_sessions_folder)

    # the pace is known only where this process made all stores
    work = planned if done >= {str(subject) for subject in due} else None
    tables = (_tabulate(job), *overview)
    hint = _write_next(recipe, job)
    return Result(job.path(1).parent, tables, hint=hint, work=work)


def _tabulate(job: Job) -> Table:
    """Count what the stores hold."""
    stored = [subject for subject in job.subjects if job.path(subject).is_file()]
    if not stored:
        raise NoTrials(
            f"no subject of {job.preparation.dataset} has a whole trial",
            "the lines above say why; preparation.files=PATTERN chooses recordings",
        )
    signals = {}
    with console.progress("describing the stores", len(stored)) as bar:
        for subject in stored:
            signals[subject] = describe_store(SignalStore.open(job.path(subject)))
            bar.advance()
    # windows that overlap are no fault, but a reader of early or late effects must know
    for described in signals.values():
        if described["overlap"]:
            console.say(f"{job.preparation.dataset}: {described['overlap']}")
            break
    rows = [
        (subject, *row)
        for subject, described in signals.items()
        for row in count_rows(described)
    ]
    caveats = merge_caveats(*(described["caveats"] for described in signals.values()))
    title = extend_title(f"Signals of {job.preparation.dataset}", caveats)
    return Table(title, ("subject", *COUNTED), rows)


def _write_next(recipe: Recipe, job: Job) -> str:
    """Write the line of the next command."""
    signal_name = [] if job.name == "default" else [f"signal.name={job.name}"]
    # whose own name is not its kind; a BIDS data set may have brought them
    config = getattr(job.preparation, "config", recipe.preparation)
    stimuli = getattr(config, "stimuli", None)
    try:
        stimuli = stimuli or parts.resolve("datasets", job.preparation.dataset)
        return next_command(stimuli, [], recipe.paths, *signal_name)
    except RecipeError:
        # a data set outside the package: a module of the user's has its pictures
        return str(Line("embed", "dataset.kind=MODULE"))
