"""prepare: raw recordings, or files that others have prepared, become one signal store
a subject.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, Self

import numpy as np
from pydantic import Field

from brainhive_cli.core import console, documents, parts
from brainhive_cli.core.cells import announce, claiming
from brainhive_cli.core.command import Input, Result, Work, collect
from brainhive_cli.core.errors import BrainhiveError, Line, MissingData, RecipeError
from brainhive_cli.core.files import portable
from brainhive_cli.core.launch import Launch, library_version, library_versions
from brainhive_cli.core.measurements import extend_title, merge_caveats
from brainhive_cli.core.recipe import BaseRecipe, Run, Subjects
from brainhive_cli.core.tables import Table
from brainhive_cli.data import session_stores
from brainhive_cli.data.ledger import Ledger
from brainhive_cli.data.preparations import Merged, NoTrials, Preparation
from brainhive_cli.data.published import PUBLISHED
from brainhive_cli.data.session_stores import (
    DType,
    cast_signal,
    join,
    list_sessions,
    write_session,
)
from brainhive_cli.data.signal_stores import (
    COUNTED,
    SignalStore,
    count_rows,
    describe_store,
    find_absent,
    path_of,
)
from brainhive_cli.data.targets.target_stores import next_command

LIBRARIES = ("mne", "nibabel", "scipy")
"""Whose versions signals depend on, apart from those of all numbers."""


class Recipe(BaseRecipe):
    """Recipe of prepare: the recordings, their preparation, the name of the stores."""

    preparation: Any = parts.key(
        "preparations", "things-eeg", "recordings, and each step from them to signals"
    )
    subjects: Subjects = Field(
        None, description="subjects; default: all whose files are there"
    )
    name: str = Field(
        "default", description="of the stores; train-align reads them by signal.name"
    )
    dtype: DType = Field("float32", description="dtype of the stores")
    run: Run = Run(device="cpu")  # several processes share the sessions


@dataclass(frozen=True)
class Job:
    """Stores that prepare makes: of which subjects, from which files.

    Attributes:
        preparation: The recordings and what is done with them.
        subjects: Those that are prepared.
        signals: The folder of all stores.
        name: Of the stores.
        dtype: Of the stores.
        settings: All that the content of a store depends on, apart from the files.
        versions: Those of the libraries that signals depend on.
        missing: Why there are no files; the subjects are then those that the publisher
            names.
    """

    preparation: Preparation | Merged
    subjects: Sequence[int]
    signals: Path
    name: str
    dtype: DType
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    missing: BrainhiveError | None = None

    @classmethod
    def resolve(cls, recipe: Recipe) -> Self:
        """Resolve the preparation, and the subjects: those of the recipe, else all
        whose files are there.

        Where there are no files, subjects are those that the publisher names.

        Raises:
            MissingData: if no subject is known.
        """
        # the subjects of the recipe, of the files or of the publisher
        preparation: Preparation | Merged = recipe.preparation.build(recipe.paths)
        dataset = preparation.dataset
        subjects = [*(recipe.subjects or ())]
        missing = None
        try:
            subjects = subjects or [*preparation.subjects]
            if not subjects:
                preparation.files(1)  # which says what is missing
                raise MissingData(
                    f"no subject of {dataset} is there", "preparation.root=FOLDER"
                )
        except BrainhiveError as error:
            # without files, plan with the subjects that the publisher names
            missing = error
            subjects = [*getattr(PUBLISHED.get(dataset), "voxels", ())]
            if not subjects:
                raise

        # what the content of a store depends on, apart from its files
        signals = recipe.paths.under_home("signals")
        config = recipe.preparation.model_dump(
            mode="json", exclude={"root", "subject_numbers"}
        )
        settings = {"preparation": portable(config), "dtype": recipe.dtype}
        libraries = {name: library_version(name) for name in LIBRARIES}
        versions = {**library_versions(), **libraries}
        return cls(
            preparation,
            subjects,
            signals,
            recipe.name,
            recipe.dtype,
            settings,
            versions,
            missing,
        )

    def path(self, subject: int) -> Path:
        """Return where a subject's store lies."""
        return path_of(self.signals, self.preparation.dataset, self.name, subject)

    def list_due(self) -> list[int]:
        """List the subjects who have no store yet."""
        return [
            subject for subject in self.subjects if not self.path(subject).is_file()
        ]

    @property
    def sessions_folder(self) -> Path:
        """The folder where sessions are kept until all of their subject are done."""
        return self.path(1).parent / "sessions"

    def sessions(self, subject: int) -> Sequence[int]:
        """List the sessions of a subject; none where files hold all repetitions
        together.
        """
        preparation = self.preparation
        return [] if isinstance(preparation, Merged) else preparation.sessions(subject)

    def session_paths(self, subject: int) -> dict[int, Path]:
        """Return where the sessions of a subject are kept until all are done."""
        # size and time of change stand for the content, which takes long to read
        stats = [(str(path), path.stat()) for path in self.preparation.files(subject)]
        files = [
            (portable(path), stat.st_size, stat.st_mtime_ns) for path, stat in stats
        ]
        # sessions of other settings, files or versions are never joined with new ones
        known = json.dumps([self.settings, self.versions, files], sort_keys=True)
        digest = documents.digest_text(known)[:10]
        name = f"sub-{subject:02d}_ses-{{:02d}}_{digest}.h5"
        return {
            session: self.sessions_folder / name.format(session)
            for session in self.sessions(subject)
        }

    def files(self, subject: int) -> session_stores.Known:
        """List the files of a subject, and what each is known by."""
        return session_stores.describe_files(self.preparation.files(subject))

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

        # the settings it was made with, then the files
        stored = next(iter(SignalStore.open(path).splits.values())).provenance
        if "preparation" not in stored:
            difference = "from files that others have prepared"
        else:
            old = {**stored["preparation"], "dtype": stored["dtype"]}
            new = {**self.settings["preparation"], "dtype": self.dtype}
            # a key `needs_…` is a check, which changes nothing of what is stored
            passed = {
                key
                for key in new
                if key.startswith("needs_") and new[key] <= bool(old.get(key))
            }
            differing = [
                key
                for key in {**old, **new}
                if old.get(key) != new.get(key) and key not in passed
            ]
            if differing:
                key = differing[0]
                difference = (
                    f"with {key} {json.dumps(old.get(key))}, not "
                    f"{json.dumps(new.get(key))}"
                )
            else:
                difference = ""
                with suppress(MissingData):  # of raw data that were deleted
                    difference = session_stores.files_difference(
                        stored["files"], self.files(subject)
                    )
                if not difference:
                    return True
        raise BrainhiveError(
            f"{path} is there, made {difference}",
            f"--again --subjects {subject} replaces it, name=ANOTHER keeps both",
        )


def inputs(recipe: Recipe) -> list[Input]:
    """List the files of each subject who has no store yet, and what is read, made and
    written of each.
    """
    job = Job.resolve(recipe)
    list_files = getattr(job.preparation, "inputs", lambda subject: ())
    todo = job.list_due()

    def describe(subject: int) -> list[Input]:
        return [Input(f"subject {subject}", note=_describe_subject(job, subject))]

    described = [partial(describe, subject) for subject in job.subjects]
    return collect(
        lambda: [one for subject in todo for one in list_files(subject)], *described
    )


def preview(recipe: Recipe) -> tuple[Table, ...]:
    """Describe recordings of which little is known, as soon as all files are there."""
    job = Job.resolve(recipe)
    todo = job.list_due()
    # the overview opens all recordings, so no file may be missing
    is_due = job.missing is None and todo
    return (
        _look_over(job)
        if is_due
        and not any(Input.of("", partial(job.files, one)).error for one in todo)
        else ()
    )


def work(recipe: Recipe) -> Work | None:
    """Count the subjects to prepare."""
    return _count_work(job := Job.resolve(recipe), job.list_due())


def _count_work(job: Job, due: Sequence[int]) -> Work | None:
    return (
        Work(job.preparation.dataset, len(due), "subjects", cells=len(due))
        if due
        else None
    )


def _look_over(job: Job) -> tuple[Table, ...]:
    """Describe recordings of which little is known, and warn of what is unusual in
    them.
    """
    if isinstance(job.preparation, Merged):
        return ()
    with console.progress("looking over the recordings"):
        overview = job.preparation.look_over(job.subjects)
    for line in overview.warnings:
        console.warn(line)
    if overview.way:
        console.say(f"  try: {overview.way}")
    return overview.tables


def _describe_subject(job: Job, subject: int) -> str:
    """Say what is read, made and written of a subject; or that its store is there."""
    path = job.path(subject).relative_to(job.signals.parent)
    if job.is_done(subject):
        size = sum(
            path.stat().st_size for path in list_sessions(job.sessions_folder, subject)
        )
        unfinished = (
            f"; sessions/ holds {console.size(size)} of another that was not finished"
        )
        return f"{path} exists{unfinished if size else ''}"
    files = job.files(subject)
    preparation = job.preparation

    # how many trials there are of each split, and how large they are
    shapes = []  # split, and [trials, channels, samples]
    if isinstance(preparation, Merged):
        for split in preparation.splits:
            recording = preparation.recording(subject, split)
            count, repetitions, *shape = recording.signal.shape
            known = recording.repetitions
            shapes.append(
                (
                    split,
                    (
                        count * repetitions if known is None else int(known.sum()),
                        *shape,
                    ),
                )
            )
    else:
        for session in preparation.sessions(subject):
            try:
                shapes += preparation.shapes(subject, session).items()
            except NoTrials as error:
                if len(job.subjects) == 1 and len(preparation.sessions(subject)) == 1:
                    raise
                console.warn(f"left out: {error.message}")

    # the sentence: what is read, what it becomes, and what an interrupted command has
    # done already
    counts = Counter[str]()
    for split, shape in shapes:
        counts[split] += shape[0]
    trials = ", ".join(f"{count} {split}" for split, count in counts.items())
    size = sum(prod(shape) for _, shape in shapes) * np.dtype(job.dtype).itemsize
    read = (
        f"{len(files)} files, "
        f"{console.size(sum(known['bytes'] for known in files.values()))}"
    )
    done = [path.is_file() for path in job.session_paths(subject).values()]
    resumed = f"; {sum(done)} of {len(done)} sessions are done" if any(done) else ""
    return f"{read}; {trials} trials, {console.size(size)} to {path}{resumed}"


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
        if job.missing is not None:
            raise job.missing
        due = [subject for subject in job.subjects if again or not job.is_done(subject)]
        errors = find_absent(
            job.subjects, lambda subject: subject not in due or job.files(subject)
        )
        if errors:
            raise next(iter(errors.values()))
    overview = _look_over(job) if due and launch.is_main else ()

    # subjects one by one; processes share the sessions of one, or each takes a subject
    # where files hold all repetitions together
    counts = [max(1, len(job.sessions(subject))) for subject in due]
    workers = launch.alone if isinstance(job.preparation, Merged) else launch
    share = (
        launch.shard(due) if again and workers is not launch else due
    )  # else a store is made again by each
    files = {str(subject): job.path(subject) for subject in share}
    done = set[str]()
    if planned := _count_work(job, due):
        announce(planned, "prepare", recipe.paths.under_home("runs"), launch)
    launch.barrier()  # nobody writes before everybody has seen what is there
    with (
        console.progress(f"preparing {job.preparation.dataset}", sum(counts)) as bar,
        claiming(
            files,
            workers,
            is_finished=lambda name: (
                name in done or (not again and files[name].is_file())
            ),
        ) as free,
    ):
        for name in free:
            subject = int(name)
            if isinstance(job.preparation, Merged):
                # files hold all repetitions together: one store is written at once
                recordings = {}
                for split in job.preparation.splits:
                    recording = job.preparation.recording(subject, split)
                    # [N, R, C, T]
                    signal = cast_signal(recording.signal, np.dtype(job.dtype))
                    provenance = {**recording.provenance, **job.provenance(subject)}
                    recordings[split] = replace(
                        recording, signal=signal, provenance=provenance
                    )
                SignalStore.write(job.path(subject), recordings)
                bar.advance()
            else:
                _write_sessions(job, job.preparation, subject, launch, bar)
            done.add(name)
    launch.barrier()
    if launch.is_main:
        with suppress(OSError):  # of sessions that are kept
            job.sessions_folder.rmdir()

    # what the stores hold, and the line of what comes next
    signals = {}
    stored = [subject for subject in job.subjects if job.path(subject).is_file()]
    if not stored:
        raise NoTrials(
            f"no subject of {job.preparation.dataset} has a whole trial",
            "the lines above say why; preparation.files=PATTERN chooses recordings",
        )
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
    signal_name = [] if job.name == "default" else [f"signal.name={job.name}"]
    # whose own name is not its kind; a BIDS data set may have brought them
    config = getattr(job.preparation, "config", recipe.preparation)
    stimuli = getattr(config, "stimuli", None)
    try:
        hint = next_command(
            stimuli or parts.resolve("datasets", job.preparation.dataset),
            [],
            recipe.paths,
            *signal_name,
        )
    except RecipeError:
        # a data set outside the package: a module of the user's has its pictures
        hint = str(Line("embed", "dataset.kind=MODULE"))
    table = Table(title, ("subject", *COUNTED), rows)
    # the pace is known only where this process made all stores
    work = planned if done >= {str(subject) for subject in due} else None
    return Result(job.path(1).parent, (table, *overview), hint=hint, work=work)


def _write_sessions(
    job: Job, preparation: Preparation, subject: int, launch: Launch, bar: console.Bar
) -> None:
    """Prepare the sessions of a subject that are not kept from before; one process then
    joins them.
    """
    paths = job.session_paths(subject)

    # each process takes the next session that nobody has taken; the bar counts those of
    # all
    done = 0
    with claiming(
        {str(session): path for session, path in paths.items()}, launch.alone
    ) as free:
        for session in map(int, free):
            try:
                trials = preparation.session(subject, session)
            except NoTrials as error:
                console.warn(f"left out: {error.message}")
                continue
            write_session(paths[session], session, trials, job.dtype)
            before = done
            done = sum(path.is_file() for path in paths.values())
            bar.advance(done - before, f"subject {subject}, session {session}")
    launch.barrier()
    bar.advance(len(paths) - done)

    # all sessions with trials are there: they become one store
    if not launch.is_main:
        return
    stores = [SignalStore.open(path) for path in paths.values() if path.is_file()]
    if stores:
        ledger, provenance = Ledger(), job.provenance(subject)
        for session, path in paths.items():
            if not path.is_file():
                ledger.leave_out("sessions", "no whole trial", f"session {session}")
        if ledger.counts:
            provenance["left_out"] = ledger.as_facts()
        joined = join(stores, preparation.order_seed, provenance)
        SignalStore.write(job.path(subject), preparation.finish(subject, joined))
        # those of other settings and files, too
        for path in list_sessions(job.sessions_folder, subject):
            path.unlink()
