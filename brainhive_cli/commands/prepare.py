"""prepare: raw recordings, or files that others have prepared, become one signal store a subject."""

import hashlib
import json
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from brainhive_cli.core import console, environment, home, parts
from brainhive_cli.core.caveats import extend_title, merge_caveats
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.file_lock import FileLock
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.recipe import Recipe as BaseRecipe
from brainhive_cli.core.recipe import Run, Subjects
from brainhive_cli.core.results import Plan, Result
from brainhive_cli.data import session_stores
from brainhive_cli.data.command_lines import command, next_command
from brainhive_cli.data.preparations import LookedOver, Merged, Preparation
from brainhive_cli.data.published_data import PUBLISHED
from brainhive_cli.data.session_stores import DType, Kept, cast_signal, join, write_session
from brainhive_cli.data.signal_stores import COUNTED, count_rows, describe_store, require_each
from brainhive_cli.data.stores.recordings import SignalStore, path_of

LIBRARIES = ("mne", "nibabel", "scipy")
"""Whose versions signals depend on, apart from those of all numbers."""


class Recipe(BaseRecipe):
    """Which recordings, how they are prepared, and what the store is called."""

    preparation: Annotated[Any, parts.part("preparations", "things-eeg")] = Field(
        "things-eeg", validate_default=True, description="recordings, and each step from them to signals"
    )
    subjects: Subjects = Field(None, description="subjects; default: all whose files are there")
    name: str = Field("default", description="of the stores; train-align reads them by signal.name")
    dtype: DType = Field("float32", description="dtype of the stores")
    run: Run = Run(device="cpu")  # several processes share the sessions


@dataclass(frozen=True)
class Job:
    """Which subjects' stores are made, of which files."""

    recipe: Recipe

    @cached_property
    def preparation(self) -> Preparation | Merged:
        """The recordings and what is done with them."""
        preparation: Preparation | Merged = self.recipe.preparation.build(self.recipe.paths)
        return preparation

    @cached_property
    def subjects(self) -> list[int]:
        """The subjects that are prepared.

        Raises:
            MissingData: if there is none.
        """
        if chosen := self.recipe.subjects:
            return list(chosen)
        if not (found := self.preparation.subjects):
            self.preparation.files(1)  # which says what is missing
            raise MissingData(f"no subject of {self.preparation.dataset} is there", "preparation.root=FOLDER")
        return list(found)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All that the content of a store depends on, apart from the files."""
        config = self.recipe.preparation.model_dump(mode="json", exclude={"root"})
        return {"preparation": home.portable(config), "dtype": self.recipe.dtype}

    def path(self, subject: int) -> Path:
        """Return where a subject's store lies."""
        signals = self.recipe.paths.under_home("signals")
        return path_of(signals, self.preparation.dataset, self.recipe.name, subject)

    @property
    def sessions_folder(self) -> Path:
        """The folder where sessions are kept until all of their subject are done."""
        return self.path(1).parent / "sessions"

    def kept(self, subject: int) -> Kept:
        """Return where the sessions of a subject are kept until all are done."""
        stats = [(str(path), path.stat()) for path in self.preparation.files(subject)]
        files = [(home.portable(path), stat.st_size, stat.st_mtime_ns) for path, stat in stats]
        known = json.dumps([self.settings, self.versions, files], sort_keys=True)
        digest = hashlib.sha256(known.encode()).hexdigest()[:10]
        return Kept(self.sessions_folder, subject, digest)

    def files(self, subject: int) -> session_stores.Known:
        """List the files of a subject, and what each is known by."""
        return session_stores.describe_files(self.preparation.files(subject))

    @cached_property
    def versions(self) -> dict[str, str]:
        """The versions of the libraries that signals depend on."""
        return {**environment.versions(), **{name: environment.version(name) for name in LIBRARIES}}

    def provenance(self, subject: int) -> dict[str, Any]:
        """Say what a subject's store is made from."""
        return {
            **self.settings,
            "dataset": self.preparation.dataset,
            "subject": subject,
            "files": self.files(subject),
            "versions": self.versions,
        }

    def is_done(self, subject: int) -> bool:
        """Whether the store is there.

        Raises:
            BrainhiveError: if it was made with other settings, or from other files.
        """
        if not (path := self.path(subject)).is_file():
            return False
        found = next(iter(SignalStore.open(path).splits.values())).provenance
        if "preparation" not in found:
            difference = "from files that others have prepared"
        else:
            old, new = {**found["preparation"], "dtype": found["dtype"]}, {**self.settings["preparation"]}
            new["dtype"] = self.recipe.dtype
            differing = [key for key in {**old, **new} if old.get(key) != new.get(key)]
            if differing:
                key = differing[0]
                difference = f"with {key} {json.dumps(old.get(key))}, not {json.dumps(new.get(key))}"
            elif not (difference := self._difference_of_files(subject, found["files"])):
                return True
        raise BrainhiveError(
            f"{path} is there, made {difference}",
            f"--again --subjects {subject} replaces it, name=ANOTHER keeps both",
        )

    def _difference_of_files(self, subject: int, found: session_stores.Known) -> str:
        try:
            return session_stores.files_difference(found, self.files(subject))
        except MissingData:  # of raw data that were deleted
            return ""


def plan(recipe: Recipe) -> Plan:
    """Say what would be read and written of each subject, and what is missing."""
    job = Job(recipe)
    expected = [*getattr(PUBLISHED.get(job.preparation.dataset), "voxels", ())]
    try:
        subjects = job.subjects
    except BrainhiveError as error:
        if recipe.subjects or not expected:
            return Plan({}, (error,))
        subjects = expected
    todo = [subject for subject in subjects if not job.path(subject).is_file()]
    list_needs = getattr(job.preparation, "needs", lambda subject: ())
    plan = Plan.of(
        {f"subject {subject}": partial(_plan_of, job, subject) for subject in subjects},
        needs=lambda: [need for subject in todo for need in list_needs(subject)],
        makes=[str(job.path(subject)) for subject in subjects],
    )
    is_missing = any(need.is_missing for need in plan.needs)
    return replace(plan, tables=_look_over(job)) if todo and not is_missing else plan


def _look_over(job: Job) -> tuple[console.Table, ...]:
    """Describe recordings of which little is known, and warn of what is unusual in them."""
    if not isinstance(job.preparation, LookedOver):
        return ()
    overview = job.preparation.look_over(job.subjects)
    for line in overview.warnings:
        console.warn(line)
    if overview.way:
        console.say(f"  try: {overview.way}")
    return overview.tables


def _plan_of(job: Job, subject: int) -> str:
    path = job.path(subject).relative_to(job.recipe.paths.under_home("signals").parent)
    if job.is_done(subject):
        size = Kept(job.sessions_folder, subject).size
        unfinished = f"; sessions/ holds {console.size(size)} of another that was not finished"
        return f"{path} exists{unfinished if size else ''}"
    files, preparation, size = job.files(subject), job.preparation, 0
    counts: dict[str, int] = {}
    if isinstance(preparation, Merged):
        shapes = [{split: _shape(preparation, subject, split) for split in preparation.splits}]
    else:
        shapes = [dict(preparation.shapes(subject, session)) for session in preparation.sessions(subject)]
    for split, shape in ((split, shape) for session in shapes for split, shape in session.items()):
        counts[split] = counts.get(split, 0) + shape[0]
        size += int(np.prod(shape)) * np.dtype(job.recipe.dtype).itemsize
    trials = ", ".join(f"{count} {split}" for split, count in counts.items())
    read = f"{len(files)} files, {console.size(sum(known['bytes'] for known in files.values()))}"
    kept = [job.kept(subject).path(session).is_file() for session in _sessions(preparation, subject)]
    resumed = f"; {sum(kept)} of {len(kept)} sessions are done" if any(kept) else ""
    return f"{read}; {trials} trials, {console.size(size)} to {path}{resumed}"


def _shape(preparation: Merged, subject: int, split: str) -> tuple[int, ...]:
    recording = preparation.recording(subject, split)
    count, most, *shape = recording.signal.shape
    trials = count * most if recording.repetitions is None else int(recording.repetitions.sum())
    return (trials, *shape)


def _sessions(preparation: Preparation | Merged, subject: int) -> Sequence[int]:
    return [] if isinstance(preparation, Merged) else preparation.sessions(subject)


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Make the stores that are not there, a subject at a time; processes share its sessions.

    Raises:
        MissingData: if a subject lacks a file; nothing is prepared then.
        BrainhiveError: if a store is there that was made otherwise, or a file does not hold what it should.
    """
    job = Job(recipe)
    due = [subject for subject in job.subjects if again or not job.is_done(subject)]
    require_each(job.subjects, lambda subject: subject not in due or job.files(subject))
    looked_over = _look_over(job) if due and launch.is_main else ()
    counts = [max(1, len(_sessions(job.preparation, subject))) for subject in due]
    launch.barrier()  # nobody writes before everybody has seen what is there
    with console.progress(job.preparation.dataset, sum(counts)) as bar:
        for number, subject in enumerate(due):
            joins = number % launch.processes == launch.rank
            if isinstance(job.preparation, Merged):
                if joins:
                    _write_merged(job, job.preparation, subject)
                bar.advance()
            else:
                _write_sessions(job, job.preparation, subject, launch, joins, bar)
    launch.barrier()
    if launch.is_main:
        with suppress(OSError):  # of sessions that are kept
            job.sessions_folder.rmdir()
    return _result(job, looked_over)


def _write_merged(job: Job, preparation: Merged, subject: int) -> None:
    """Write the store of a subject whose files hold all repetitions together."""
    found, dtype = {}, np.dtype(job.recipe.dtype)
    for split in preparation.splits:
        recording = preparation.recording(subject, split)
        provenance = {**recording.provenance, **job.provenance(subject)}
        found[split] = replace(recording, signal=cast_signal(recording.signal, dtype), provenance=provenance)
    SignalStore.write(job.path(subject), found)


def _write_sessions(
    job: Job, preparation: Preparation, subject: int, launch: Launch, joins: bool, bar: console.Bar
) -> None:
    """Prepare the sessions of a subject that are not kept from before; one process then joins them."""
    kept = job.kept(subject)
    paths = {session: kept.path(session) for session in preparation.sessions(subject)}
    with ExitStack() as held:
        if joins:
            lock = FileLock(kept.claim, f"subject {subject} of {job.recipe.name}")
            held.callback(lock.release)
        launch.barrier()
        for session in launch.queue(list(paths), f"sessions of {subject}"):
            if not (path := paths[session]).is_file():
                write_session(path, session, preparation.session(subject, session), job.recipe.dtype)
            bar.advance(1, f"subject {subject}, session {session}")
        launch.barrier()
        if joins:
            stores = [SignalStore.open(path) for path in paths.values()]
            joined = join(stores, preparation.order_seed, job.provenance(subject))
            SignalStore.write(job.path(subject), joined)
            if others := kept.clear():
                console.say(f"subject {subject}: deleted sessions of other settings, {console.size(others)}")


def _result(job: Job, looked_over: tuple[console.Table, ...]) -> Result:
    stores = {subject: describe_store(SignalStore.open(job.path(subject))) for subject in job.subjects}
    rows = [(subject, *row) for subject, found in stores.items() for row in count_rows(found)]
    caveats = merge_caveats(*(found["caveats"] for found in stores.values()))
    title = extend_title(f"Signals of {job.preparation.dataset}", caveats)
    name = job.recipe.name
    chosen = [] if name == "default" else [f"signal.name={name}"]
    stimuli = getattr(job.recipe.preparation, "stimuli", None)  # whose own name is not its kind
    try:
        dataset = stimuli or parts.resolve("datasets", job.preparation.dataset)
        hint = next_command(dataset, [], job.recipe.paths, *chosen)
    except RecipeError:  # a data set outside the package, whose name is not that of its part
        hint = command("train-align", None, [], "--dataset", job.preparation.dataset, *chosen)
    return Result(
        job.path(1).parent,
        (console.Table(title, ("subject", *COUNTED), tuple(rows)), *looked_over),
        hint=hint,
    )
