"""Run folders: what they hold, read and written; finished runs, by their names."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from glob import escape
from pathlib import Path
from typing import Any, TypeVar

from pydantic import AwareDatetime, BaseModel

from brainhive_cli.core import console, documents, hub
from brainhive_cli.core.errors import (
    BrainhiveError,
    Hint,
    Line,
    MissingData,
    RecipeError,
    guess,
    raise_if_interrupted,
)
from brainhive_cli.core.files import (
    atomic_write,
    locate,
    make_portable,
    open_unless_link,
    read_regular,
    remove,
    resolve_without_links,
)
from brainhive_cli.core.measurements import Measurements

T = TypeVar("T")
LARGEST = 1 << 30
"""Bytes of the largest document of a run that is read: it holds a value for each
item.
"""
LARGEST_RECIPE = 1 << 20
"""Bytes of the largest recipe of a run that is read: it names every key."""
FINISHED = "metrics.json"
"""The file that makes a run finished; it is written last."""
ENVIRONMENT = "environment.json"
"""What the run was computed with, and when it was started and finished, as no copy of
it changes.
"""
FOUND = "found.json"
"""Names of the recipes by which later commands found the finished run again, and when
the last one did. A run is as new as that time: who asks for a run again means it.
"""
MAX_LISTED = 5
"""Runs that are listed where the named one does not exist."""


@dataclass(frozen=True)
class RunFolder:
    """One run of one command: its recipe, environment, log, models, samples and
    metrics.
    """

    path: Path
    end_presence: Callable[[], None] | None = None

    def count_finished(self, files: Mapping[str, str]) -> int:
        """Count the cells whose files are there, whoever wrote them."""
        return sum((self.path / file).is_file() for file in files.values())

    @property
    def is_shared(self) -> bool:
        """Whether it lies in the hub's cache."""
        return bool(hub.name_snapshot(self.path))

    @property
    def reference(self) -> str:
        """Reference by which every command finds it: its folder, or its repository with
        the commit.
        """
        return hub.name_snapshot(self.path) or str(self.path)

    @property
    def name(self) -> str:
        """Name in messages: its folder's, or its repository's with the commit."""
        return hub.name_snapshot(self.path) or self.path.name

    @property
    def label(self) -> str:
        """Name that can be part of a file's name: its folder's, or the repository's
        with the commit cut.
        """
        repository, _, commit = self.name.partition("@")
        return (
            f"{repository.rpartition('/')[2]}-{commit[:10]}"
            if self.is_shared
            else self.path.name
        )

    @property
    def command(self) -> str:
        """Command that made it: the name of the folder above it; of the hub, what its
        manifest says.
        """
        manifest = hub.read_manifest(self.path) if self.is_shared else None
        return manifest.command if manifest else self.path.absolute().parent.name

    @property
    def is_finished(self) -> bool:
        """Whether the run has its metrics."""
        return (self.path / FINISHED).is_file()

    @property
    def age(self) -> str:
        """Time since a finished run was finished, in words."""
        return age(self.written_s)

    @property
    def written_s(self) -> float:
        """Time at which it was finished or, before, written to last; in seconds since
        1970.
        """
        # of a finished run its own word, as a copy makes files newer
        if self.is_finished:
            # a list reads this of each run, and an order needs no digest
            with suppress(BrainhiveError, OSError):
                text = self.read_text(ENVIRONMENT)
                environment = documents.parse(text, ENVIRONMENT, Environment)
                if environment.finished:
                    return environment.finished.timestamp()
            return (self.path / FINISHED).stat().st_mtime
        written_s = [self.path.stat().st_mtime]
        for path in self.path.glob("*.json*"):
            with suppress(OSError):  # a file that a worker has just renamed
                written_s.append(path.stat().st_mtime)
        return max(written_s)

    @property
    def duration_s(self) -> float:
        """Seconds from its start to its end; infinite where it does not say both."""
        if not (self.path / ENVIRONMENT).is_file():  # shared without it
            return float("inf")
        times = self.read_json(ENVIRONMENT, Environment)
        if times.started is None or times.finished is None:
            return float("inf")
        return (times.finished - times.started).total_seconds()

    @property
    def changed_s(self) -> float:
        """Time at which it was finished, or asked for again; before, that at which it
        was written to last.
        """
        last_found = self.read_found().found
        return (
            max(self.written_s, last_found.timestamp())
            if last_found
            else self.written_s
        )

    def read_found(self) -> "FoundBy":
        """Read which recipes found the run again; none where the document is absent or
        damaged.
        """
        with suppress(BrainhiveError):
            return self.read_json(FOUND, FoundBy)
        return FoundBy()

    def measurements(self, name: str = FINISHED) -> Measurements:
        """Read what a finished run measured, or what another document of metrics in its
        folder holds.

        Raises:
            MissingData: if the run is not finished.
            BrainhiveError: if its metrics are of another schema.
        """
        return Measurements.read(self.read_json(name), self.path / name)

    def recipe(self, kind: type[T] = dict[str, Any], **changes: Any) -> T:  # type: ignore[assignment]
        """Read the resolved recipe that the run was made with.

        Args:
            kind: The model of the command's recipe; plain values by default.
            changes: Keys that are to have other values.

        Raises:
            BrainhiveError: if it is damaged, or this version has no such recipe.
        """
        path = self.path / "recipe.yaml"
        fields = documents.read(path, dict[str, Any], max_bytes=LARGEST_RECIPE)
        return documents.check(fields | changes, str(path), kind)

    def read_json(self, name: str, kind: type[T] = dict[str, Any]) -> T:  # type: ignore[assignment]
        """Read a JSON document of the run."""
        if not (self.path / name).is_file():
            raise MissingData(
                f"run {self.path} is not finished: it has no {name}",
                "run its command again",
            )
        return documents.read(self.path / name, kind, max_bytes=LARGEST)

    def read_text(self, name: str, max_bytes: int = LARGEST) -> str:
        """Read a text of the run, whatever it holds; empty if it has none."""
        path = self.path / name
        return (
            read_regular(path, max_bytes).decode("utf-8", "replace")
            if path.is_file()
            else ""
        )

    def write_json(
        self, name: str, document: Mapping[str, Any], indent: int | None = 2
    ) -> None:
        """Write a JSON document, its paths relative to home, under its final name only
        when complete.
        """
        self.write_text(
            name, json.dumps(make_portable(document), indent=indent, default=str) + "\n"
        )

    def write_text(self, name: str, text: str) -> None:
        """Write a text file under its final name only when complete."""
        self.replace(name, lambda part: part.write_text(text, "utf-8"))

    def replace(self, name: str, write: Callable[[Path], Any]) -> Path:
        """Let `write` fill a path next to the final one, then rename it; works for
        files and folders.
        """
        # it has its name when it is complete, and no digest of what had the name before
        # is left
        final = resolve_without_links(self.path, name, "a file of a run,")
        with atomic_write(final) as part:
            write(part)
            raise_if_interrupted()
            if name != FINISHED:  # whose digest is listed before
                listed = documents.read_digests(self.path)
                fresh = {
                    key: digest
                    for key, digest in listed.items()
                    if not f"{key}/".startswith(f"{name}/")
                }
                if len(fresh) < len(listed):
                    documents.write_digests(self.path, fresh)
            if final.is_dir():
                remove(final)
        return final

    def checkpoint_path(self, name: str) -> Path:
        """Name the file of a training's newest checkpoint, below `checkpoints/`."""
        return resolve_without_links(
            self.path, f"checkpoints/{name}.pt", "the checkpoint"
        )

    def log(self, **event: Any) -> None:
        """Append one event to `log.jsonl`."""
        with open(self.path / "log.jsonl", "a", opener=open_unless_link) as stream:
            stream.write(
                json.dumps({"time": round(time.time(), 3), **event}, default=str) + "\n"
            )

    def events(self) -> Iterator[dict[str, Any]]:
        """Read the events of `log.jsonl` but for damaged lines, as two machines may
        leave.
        """
        for line in self.read_text("log.jsonl").splitlines():
            with suppress(BrainhiveError):
                yield documents.parse(line, "an event")

    def forget_events_after(self, step: int) -> None:
        """Drop what `log.jsonl` has of later steps than the checkpoint from which a
        training continues.

        Damaged lines go too, as the last one of a command that was killed while it
        wrote.
        """
        if (self.path / "log.jsonl").is_file():
            # events with a step up to that of the checkpoint, and those that say who
            # has trained
            steps = ((event, event.get("step", 0)) for event in self.events())
            events = [
                event
                for event, number in steps
                if isinstance(number, int) and number <= step
            ]
            self.write_text(
                "log.jsonl", "".join(json.dumps(event) + "\n" for event in events)
            )

    def finish(self, measurements: Measurements) -> None:
        """Write the digests of its documents, then the metrics, which makes the run
        finished.

        Raises:
            BrainhiveError: if a document that was listed before, and not written again
                since, has changed.
        """
        # documents are as they were listed
        for problem in documents.find_changes(self.path, exclude={FINISHED}):
            raise BrainhiveError(problem, documents.CHANGED_HINT)

        # the list has a digest of the metrics before these have their name
        measured = make_portable(measurements.as_dict())
        text = f"{json.dumps(measured, indent=2, default=str)}\n".encode()
        names = {*documents.list_documents(self.path)} - {FINISHED}

        def write(part: Path) -> None:
            part.write_bytes(text)
            # no finished run has another list, even if killed
            (self.path / FINISHED).unlink(missing_ok=True)
            if ENVIRONMENT in names:
                self.write_json(
                    ENVIRONMENT, {**self.read_json(ENVIRONMENT), "finished": now()}
                )
            listed = {name: documents.digest_file(self.path / name) for name in names}
            documents.write_digests(
                self.path, listed | {FINISHED: hashlib.sha256(text).hexdigest()}
            )

        self.replace(FINISHED, write)
        if self.end_presence:
            self.end_presence()


class FoundBy(BaseModel):
    """Names of the recipes by which a run was found again, and the last time."""

    recipe_names: list[str] = []
    found: AwareDatetime | None = None


class Environment(BaseModel, extra="allow"):
    """Environment of a run: versions and device of the computation, and when it started
    and finished.

    Older runs and those from elsewhere have no times. All other keys are shown as they
    are.
    """

    versions: dict[str, str] = {}
    device: str = ""
    commit: str | None = None
    started: AwareDatetime | None = None
    finished: AwareDatetime | None = None


def now() -> str:
    """Write the time, as documents of runs have it."""
    return datetime.now(UTC).isoformat()


def is_run(folder: Path) -> bool:
    """Whether a folder is a run's, damaged as it may be."""
    return (folder / "recipe.yaml").is_file() or (folder / FINISHED).is_file()


def reference(run: RunFolder, runs: Path, variant: str = "") -> str:
    """Return what `find` finds a run, or a variant of a sweep, by: its name where it
    lies in `runs`.
    """
    name = (
        run.path.name if run.path.parent.resolve() == runs.resolve() else run.reference
    )
    return f"{name}:{variant}" if variant else name


def of_variant(reference: str | None) -> tuple[str | None, str]:
    """Split `SWEEP:VARIANT`, as a command line names a run; a folder of that name is
    taken as it is.
    """
    # the colon of hub: separates no variant
    scheme = (
        hub.HUB_PREFIX
        if reference is not None and reference.startswith(hub.HUB_PREFIX)
        else ""
    )
    name = (reference or "").removeprefix(scheme)
    if reference is None or ":" not in name or locate(reference).is_dir():
        return reference, ""

    # the last colon separates: a run may be a path with others
    run, _, variant = name.rpartition(":")
    return scheme + run, variant


def find(runs: Path, command: str | None, reference: str) -> RunFolder:
    """Find a finished run by its folder, its name, or the end of its name; or one of
    the hub.

    Args:
        runs: Folder of all runs.
        command: Whose run; None: any command's.
        reference: How it is named; `hub:owner/name[@revision]` is fetched.

    Raises:
        MissingData: if there is none; the hint lists those that exist, or the command
            that makes one.
        RecipeError: if several have the name.
    """
    # files of other runs are read only where an error lists them
    list_finished = partial(_list_finished, runs, command, reference)

    # a run of the hub is a folder of its cache
    if reference.startswith(hub.HUB_PREFIX):
        reference = str(hub.fetch_run(reference))

    # a path, a name, or the end of one
    below = (
        [runs / command / reference]
        if command
        else sorted(runs.glob(f"*/{escape(reference)}"))
    )
    folders = [path for path in (locate(reference), runs / reference) if path.is_dir()][
        :1
    ]
    folders = folders or [path for path in below if path.is_dir()]
    if not folders:
        ending = f"-{reference}"
        folders = [
            run.path
            for run in finished_runs(runs, command, f"*{escape(ending)}")
            if run.path.name.endswith(ending)
        ]
    if len(folders) > 1:
        raise RecipeError(
            f"several runs are called {reference!r}", ", ".join(map(str, folders))
        )
    if not folders:
        raise MissingData(
            f"no{f' {command}' if command else ''} run {reference!r} under {runs}",
            list_finished(),
        )

    # it must be a finished run of the command
    run = RunFolder(folders[0])
    if not (run.path / "recipe.yaml").is_file():
        raise MissingData(
            f"{run.reference} is no run: it has no recipe.yaml", list_finished()
        )
    resolved = RunFolder(run.path.resolve())
    is_known = run.is_shared or resolved.path.parents[1] == runs.resolve()
    if command and is_known and resolved.command != command:
        raise MissingData(
            f"{run.reference} is a run of {resolved.command}, not of {command}",
            f"a repository with a run of {command}; priors are named by --prior"
            if run.is_shared
            else list_finished(),
        )
    run.measurements()  # which says what is missing
    return run


def _list_finished(runs: Path, command: str | None, reference: str) -> Hint:
    """Write a hint with the finished runs, the one that may be meant first; else with
    the command that makes one.
    """
    names = [run.path.name for run in finished_runs(runs, command)]
    if not names:
        return Line(command or "demo")
    wanted = Path(reference).name
    meant = next(
        (f"did you mean {name}? " for name in names if wanted in name),
        guess(wanted, names),
    )
    rest = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return f"{meant}finished, the newest first: {', '.join(names[:MAX_LISTED])}{rest}"


def newest(
    runs: Path,
    command: str | None,
    lacks: Callable[[RunFolder], str] = lambda run: "",
    *,
    needed: str = "",
    hint: Hint = "",
    apart_from: RunFolder | None = None,
) -> RunFolder:
    """Find the newest finished run of a command, or of any, that lacks nothing, and
    print its name and age.

    Also prints which newer runs lack something.

    Args:
        runs: Folder of all runs.
        command: Whose runs; None: any command's.
        lacks: Says why a run does not fit; empty if it does.
        needed: What a run must have, to follow "has" in the message where none fits.
        hint: What to do where none fits; by default the command.
        apart_from: A run that is not meant.

    Raises:
        MissingData: if none fits, with what each of the newest lacks.
    """
    finished = [
        run
        for run in finished_runs(runs, command)
        if apart_from is None or run.path != apart_from.path
    ]

    # the first run that lacks nothing; what newer runs lack is reported with it
    rejected = []
    for run in finished:
        try:
            run.measurements()
            run.recipe()
            reason = lacks(run)
        except BrainhiveError as error:
            console.warn(f"{error.message}; passed over")
            reason = "it cannot be read"
        if reason:
            rejected.append(f"{run.path.name}, finished {run.age}: {reason}")
            continue
        console.say(
            f"{run.path.parent.name.removeprefix('train-')} run {run.path.name}, "
            f"finished {run.age}"
        )
        if rejected:
            console.say(f"newer, but unfit: {'; '.join(rejected[:MAX_LISTED])}")
        return run
    raise MissingData(
        (
            f"no finished {command + ' ' if command else ''}run under "
            f"{runs / (command or '')}"
        )
        + (f" has {needed}" if needed else "")
        + (f" ({'; '.join(rejected[:MAX_LISTED])})" if rejected else ""),
        hint or Line(command or "demo"),
    )


def age(since: float) -> str:
    """Write how long ago a time was."""
    # clocks of machines that share a disk may differ: no time lies ahead
    passed_s = max(0.0, time.time() - since)
    for unit, length_s in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if count := int(passed_s // length_s):
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "less than a minute ago"


def finished_runs(runs: Path, command: str | None, name: str = "*") -> list[RunFolder]:
    """List the finished runs of a command, or of all, those first that were finished,
    or found, last.

    Args:
        runs: Folder of all runs.
        command: Whose runs; None: any command's.
        name: Pattern of their names.
    """
    folders = [
        RunFolder(metrics.parent)
        for metrics in runs.glob(f"{command or '*'}/{name}/{FINISHED}")
    ]
    return sorted(folders, key=lambda run: run.changed_s, reverse=True)
