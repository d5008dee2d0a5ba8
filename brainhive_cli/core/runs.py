"""Folders of runs: their files, and the search for finished runs.

A run is one execution of a command with one recipe. It is finished when it has its
metrics. A cell of a run is a piece of its work, such as the training for a subject with
a seed.
"""

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
MAX_DOCUMENT_BYTES = 1 << 30
"""Size limit of a document of a run, in bytes. Such a document may hold a value for
each item.
"""
MAX_RECIPE_BYTES = 1 << 20
"""Size limit of the recipe of a run, in bytes."""
METRICS_FILE = "metrics.json"
"""File that marks a run as finished. It is written last."""
ENVIRONMENT_FILE = "environment.json"
"""File with the versions and device of the computation, and with the times of start and
end. Unlike the times of files, these do not change when a run is copied.
"""
REUSES_FILE = "found.json"
"""File with the names of the recipes for which later commands reused the finished run,
and with the time of the last reuse. A run counts as new when it is reused.
"""
MAX_LISTED = 5
"""Largest number of runs in a message."""


@dataclass(frozen=True)
class RunFolder:
    """Folder of a run, with its recipe, environment, log, models and metrics.

    Attributes:
        path: Path of the folder.
        end_presence: Called when the run is finished.
    """

    path: Path
    end_presence: Callable[[], None] | None = None

    def count_finished(self, files: Mapping[str, str]) -> int:
        """Count the finished cells.

        Args:
            files: File that marks each cell as finished, by name of the cell.
        """
        return sum((self.path / file).is_file() for file in files.values())

    @property
    def is_shared(self) -> bool:
        """True if the run is in the cache of the hub."""
        return bool(hub.name_snapshot(self.path))

    @property
    def reference(self) -> str:
        """Folder, or repository with commit, by which commands find the run."""
        return hub.name_snapshot(self.path) or str(self.path)

    @property
    def name(self) -> str:
        """Name in messages: the name of the folder, or the repository with commit."""
        return hub.name_snapshot(self.path) or self.path.name

    @property
    def label(self) -> str:
        """Name that can be part of a file name, with a short commit."""
        if not self.is_shared:
            return self.path.name
        repository, _, commit = self.name.partition("@")
        return f"{repository.rpartition('/')[2]}-{commit[:10]}"

    @property
    def command(self) -> str:
        """Command of the run, from its manifest or the name of the parent folder."""
        manifest = hub.read_manifest(self.path) if self.is_shared else None
        return manifest.command if manifest else self.path.absolute().parent.name

    @property
    def is_finished(self) -> bool:
        """True if the run has its metrics."""
        return (self.path / METRICS_FILE).is_file()

    @property
    def age(self) -> str:
        """Time since the run was finished, in words."""
        return format_age(self.written_s)

    @property
    def written_s(self) -> float:
        """Time of the end, or of the last change if the run is not finished.

        The unit is seconds since 1970.
        """
        if self.is_finished:
            # the recorded time is better than the time of a file, which a copy changes.
            # The digest is not checked, because lists read this time for every run
            with suppress(BrainhiveError, OSError):
                text = self.read_text(ENVIRONMENT_FILE)
                environment = documents.parse(text, ENVIRONMENT_FILE, Environment)
                if environment.finished:
                    return environment.finished.timestamp()
            return (self.path / METRICS_FILE).stat().st_mtime
        file_times_s = [self.path.stat().st_mtime]
        for path in self.path.glob("*.json*"):
            with suppress(OSError):  # a worker may have just renamed the file
                file_times_s.append(path.stat().st_mtime)
        return max(file_times_s)

    @property
    def duration_s(self) -> float:
        """Seconds from start to end, or infinity if these times are not recorded."""
        if not (
            self.path / ENVIRONMENT_FILE
        ).is_file():  # shared runs may lack this file
            return float("inf")
        environment = self.read_json(ENVIRONMENT_FILE, Environment)
        if environment.started is None or environment.finished is None:
            return float("inf")
        return (environment.finished - environment.started).total_seconds()

    @property
    def changed_s(self) -> float:
        """Time of the end or of the last reuse, whichever is later.

        For an unfinished run it is the time of the last change.
        """
        reused = self.read_found().found
        if reused is None:
            return self.written_s
        return max(self.written_s, reused.timestamp())

    def read_found(self) -> "FoundBy":
        """Read the record of reuses. It is empty if the file is missing or damaged."""
        with suppress(BrainhiveError):
            return self.read_json(REUSES_FILE, FoundBy)
        return FoundBy()

    def measurements(self, name: str = METRICS_FILE) -> Measurements:
        """Read the measurements of a finished run.

        Args:
            name: Path of the document below the run. A cell has a document of its own.

        Raises:
            MissingData: if the run or cell is not finished.
            BrainhiveError: if the document has another schema or is damaged.
        """
        return Measurements.from_document(self.read_json(name), self.path / name)

    def recipe(self, kind: type[T] = dict[str, Any], **changes: Any) -> T:  # type: ignore[assignment]
        """Read the resolved recipe of the run.

        Args:
            kind: Model of the command's recipe. By default plain values.
            changes: New values of some keys.

        Raises:
            BrainhiveError: if the recipe is damaged, or has keys or values that this
                version does not support.
        """
        path = self.path / "recipe.yaml"
        fields = documents.read(path, dict[str, Any], max_bytes=MAX_RECIPE_BYTES)
        return documents.check(fields | changes, str(path), kind)

    def read_json(self, name: str, kind: type[T] = dict[str, Any]) -> T:  # type: ignore[assignment]
        """Read a JSON document of the run.

        Raises:
            MissingData: if the document is missing.
            BrainhiveError: if the document is damaged or is not a `kind`.
        """
        if not (self.path / name).is_file():
            raise MissingData(
                f"run {self.path} is not finished: it has no {name}",
                "run the command of the run again",
            )
        return documents.read(self.path / name, kind, max_bytes=MAX_DOCUMENT_BYTES)

    def read_text(self, name: str, max_bytes: int = MAX_DOCUMENT_BYTES) -> str:
        """Read a text file of the run. A missing file is read as an empty text."""
        path = self.path / name
        if not path.is_file():
            return ""
        return read_regular(path, max_bytes).decode("utf-8", "replace")

    def write_json(
        self, name: str, document: Mapping[str, Any], indent: int | None = 2
    ) -> None:
        """Write a JSON document of the run, with paths relative to the home folder.

        The file gets its final name only when it is complete.
        """
        text = json.dumps(make_portable(document), indent=indent, default=str)
        self.write_text(name, text + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Write a text file of the run, which gets its final name when complete."""
        self.replace(name, lambda path: path.write_text(text, "utf-8"))

    def replace(self, name: str, write: Callable[[Path], Any]) -> Path:
        """Write or replace a file or folder of the run.

        The file or folder gets its final name only when it is complete. Digests of the
        old content are removed from the list of digests.

        Args:
            name: Path of the file or folder below the run.
            write: Writes the file or folder to the path that it receives.

        Returns:
            Final path.
        """
        final = resolve_without_links(self.path, name, "a file of a run,")
        with atomic_write(final) as partial_path:
            write(partial_path)
            raise_if_interrupted()
            # `finish` has already written the new digest of the metrics
            if name != METRICS_FILE:
                digests = documents.read_digests(self.path)
                kept_digests = {
                    path: digest
                    for path, digest in digests.items()
                    if not f"{path}/".startswith(f"{name}/")
                }
                if len(kept_digests) < len(digests):
                    documents.write_digests(self.path, kept_digests)
            if final.is_dir():
                remove(final)
        return final

    def checkpoint_path(self, name: str) -> Path:
        """Return the path of the newest checkpoint of a training."""
        return resolve_without_links(
            self.path, f"checkpoints/{name}.pt", "the checkpoint"
        )

    def log(self, **event: Any) -> None:
        """Append one event to `log.jsonl`."""
        line = json.dumps({"time": round(time.time(), 3), **event}, default=str)
        with open(self.path / "log.jsonl", "a", opener=open_unless_link) as stream:
            stream.write(line + "\n")

    def events(self) -> Iterator[dict[str, Any]]:
        """Read the events of `log.jsonl`.

        Damaged lines are skipped. They occur if two machines write at the same time.
        """
        for line in self.read_text("log.jsonl").splitlines():
            with suppress(BrainhiveError):
                yield documents.parse(line, "an event")

    def forget_events_after(self, step: int) -> None:
        """Remove the events of later steps from `log.jsonl`.

        Damaged lines are removed too, such as the last line of a killed command.

        Args:
            step: Step of the checkpoint from which a training continues.
        """
        if not (self.path / "log.jsonl").is_file():
            return
        lines = []
        for event in self.events():
            # events without a step are kept, such as the names of workers
            event_step = event.get("step", 0)
            if isinstance(event_step, int) and event_step <= step:
                lines.append(json.dumps(event) + "\n")
        self.write_text("log.jsonl", "".join(lines))

    def finish(self, measurements: Measurements) -> None:
        """Finish the run: write the digests of its documents, then the metrics.

        Raises:
            BrainhiveError: if a document was changed by something else since its digest
                was written.
        """
        for problem in documents.find_changes(self.path, exclude={METRICS_FILE}):
            raise BrainhiveError(problem, documents.CHANGED_HINT)

        metrics = make_portable(measurements.as_dict())
        content = f"{json.dumps(metrics, indent=2, default=str)}\n".encode()
        names = set(documents.list_documents(self.path)) - {METRICS_FILE}

        def write(path: Path) -> None:
            # write the digests before the metrics get their final name. Old metrics are
            # removed first, so a finished run never has a wrong list, even if killed
            path.write_bytes(content)
            (self.path / METRICS_FILE).unlink(missing_ok=True)
            if ENVIRONMENT_FILE in names:
                environment = {
                    **self.read_json(ENVIRONMENT_FILE),
                    "finished": format_current_time(),
                }
                self.write_json(ENVIRONMENT_FILE, environment)
            digests = {name: documents.digest_file(self.path / name) for name in names}
            digests[METRICS_FILE] = hashlib.sha256(content).hexdigest()
            documents.write_digests(self.path, digests)

        self.replace(METRICS_FILE, write)
        if self.end_presence:
            self.end_presence()


class FoundBy(BaseModel):
    """Record of the reuses of a run.

    Attributes:
        recipe_names: Names of the recipes for which the run was reused.
        found: Time of the last reuse.
    """

    recipe_names: list[str] = []
    found: AwareDatetime | None = None


class Environment(BaseModel, extra="allow"):
    """Environment of a run.

    Further keys are allowed, and shown unchanged.

    Attributes:
        versions: Version of each package.
        device: Name of the device.
        commit: Commit of this program.
        started: Time of the start. Unknown for old and imported runs.
        finished: Time of the end. Unknown for old and imported runs.
    """

    versions: dict[str, str] = {}
    device: str = ""
    commit: str | None = None
    started: AwareDatetime | None = None
    finished: AwareDatetime | None = None


def format_current_time() -> str:
    """Return the present time as text, for documents of runs."""
    return datetime.now(UTC).isoformat()


def is_run(folder: Path) -> bool:
    """Return True if a folder is the folder of a run, even of a damaged run."""
    return (folder / "recipe.yaml").is_file() or (folder / METRICS_FILE).is_file()


def reference(run: RunFolder, runs: Path, variant: str = "") -> str:
    """Return a reference by which `find` finds a run.

    Args:
        run: Run.
        runs: Folder whose runs are referred to by name.
        variant: Variant of a sweep.
    """
    is_in_folder = run.path.parent.resolve() == runs.resolve()
    name = run.path.name if is_in_folder else run.reference
    return f"{name}:{variant}" if variant else name


def split_variant(reference: str | None) -> tuple[str | None, str]:
    """Split the reference `SWEEP:VARIANT` of a run.

    Args:
        reference: Reference of a run, as on the command line. A path of a folder is not
            split, even if it has a colon.

    Returns:
        Reference of the run, and name of the variant. The name is empty without a
        variant.
    """
    if reference is None:
        return None, ""

    # the colon of the prefix `hub:` does not separate a variant
    prefix = hub.HUB_PREFIX if reference.startswith(hub.HUB_PREFIX) else ""
    name = reference.removeprefix(prefix)
    if ":" not in name or locate(reference).is_dir():
        return reference, ""

    # split at the last colon, because a path may have colons too
    run, _, variant = name.rpartition(":")
    return prefix + run, variant


def find(runs: Path, command: str | None, reference: str) -> RunFolder:
    """Find a finished run.

    Args:
        runs: Folder of all runs.
        command: Command of the run. None allows all commands.
        reference: Path of the run's folder, name of the run, or end of the name. A run
            of the hub, `hub:owner/name[@revision]`, is downloaded.

    Raises:
        MissingData: if there is no such run. The hint lists the finished runs, or the
            command that makes a run.
        RecipeError: if the reference fits several runs.
    """
    # this hint reads the files of other runs, so it is only made for an error
    make_hint = partial(_list_finished, runs, command, reference)

    # a run of the hub is a folder in the cache
    if reference.startswith(hub.HUB_PREFIX):
        reference = str(hub.fetch_run(reference))
    folders = _find_folders(runs, command, reference)
    if len(folders) > 1:
        raise RecipeError(
            f"several runs are called {reference!r}", ", ".join(map(str, folders))
        )
    if not folders:
        kind = f"{command} run" if command else "run"
        raise MissingData(f"no {kind} {reference!r} under {runs}", make_hint())

    # check that it is a finished run of the command. The command is unknown for a
    # folder outside of the folder of runs
    run = RunFolder(folders[0])
    if not (run.path / "recipe.yaml").is_file():
        raise MissingData(
            f"{run.reference} is not a run: it has no recipe.yaml", make_hint()
        )
    resolved = RunFolder(run.path.resolve())
    has_command = run.is_shared or resolved.path.parents[1] == runs.resolve()
    if command and has_command and resolved.command != command:
        hint = make_hint()
        if run.is_shared:
            hint = (
                f"name a repository with a run of {command}; priors are named by "
                "--prior"
            )
        raise MissingData(
            f"{run.reference} is a run of {resolved.command}, not of {command}", hint
        )
    run.measurements()  # raises an error if the run is not finished
    return run


def _find_folders(runs: Path, command: str | None, reference: str) -> list[Path]:
    """Find the folders of runs with a path, a name or the end of a name."""
    # a path
    for path in (locate(reference), runs / reference):
        if path.is_dir():
            return [path]

    # a name
    if command:
        folders = [runs / command / reference]
    else:
        folders = sorted(runs.glob(f"*/{escape(reference)}"))
    folders = [path for path in folders if path.is_dir()]
    if folders:
        return folders

    # the end of a name
    ending = f"-{reference}"
    return [
        run.path
        for run in list_finished_runs(runs, command, f"*{escape(ending)}")
        if run.path.name.endswith(ending)
    ]


def _list_finished(runs: Path, command: str | None, reference: str) -> Hint:
    """Make the hint for a run that was not found.

    Returns:
        The most similar name and a list of finished runs. Without finished runs it is
        the command line that makes one.
    """
    names = [run.path.name for run in list_finished_runs(runs, command)]
    if not names:
        return Line(command or "demo")

    # suggest a name that contains the requested name, or else a similar name
    requested_name = Path(reference).name
    suggestion = guess(requested_name, names)
    for name in names:
        if requested_name in name:
            suggestion = f"did you mean {name}? "
            break
    listed_names = ", ".join(names[:MAX_LISTED])
    if len(names) > MAX_LISTED:
        listed_names += f" and {len(names) - MAX_LISTED} more"
    return f"{suggestion}finished runs, newest first: {listed_names}"


def find_newest(
    runs: Path,
    command: str | None,
    explain_misfit: Callable[[RunFolder], str] = lambda run: "",
    *,
    required_content: str = "",
    hint: Hint = "",
    excluded_run: RunFolder | None = None,
) -> RunFolder:
    """Find the newest finished run that fits.

    The name and age of the run are printed, and the reasons why newer runs do not fit.

    Args:
        runs: Folder of all runs.
        command: Command of the run. None allows all commands.
        lacks: Returns the reason why a run does not fit. Empty if the run fits.
        needed: Property that a run must have. It follows "has" in the message.
        hint: Hint of the error. By default the command line that makes a run.
        apart_from: Run that is not searched for.

    Raises:
        MissingData: if no run fits. The message has the reasons for the newest runs.
    """
    rejected = []
    for run in list_finished_runs(runs, command):
        if excluded_run is not None and run.path == excluded_run.path:
            continue
        try:
            run.measurements()
            run.recipe()
            reason = explain_misfit(run)
        except BrainhiveError as error:
            console.warn(f"{error.message}; this run is skipped")
            reason = "it cannot be read"
        if reason:
            rejected.append(f"{run.path.name}, finished {run.age}: {reason}")
            continue
        console.say(
            f"{run.path.parent.name.removeprefix('train-')} run {run.path.name}, "
            f"finished {run.age}"
        )
        if rejected:
            reasons = "; ".join(rejected[:MAX_LISTED])
            console.say(f"newer runs that do not fit: {reasons}")
        return run

    message = f"no finished run under {runs}"
    if command:
        message = f"no finished {command} run under {runs / command}"
    if required_content:
        message += f" has {required_content}"
    if rejected:
        message += f" ({'; '.join(rejected[:MAX_LISTED])})"
    raise MissingData(message, hint or Line(command or "demo"))


def format_age(moment_s: float) -> str:
    """Write the time since a moment in words, such as "2 hours ago".

    Args:
        since: Moment in seconds since 1970.
    """
    # machines that share a disk may have different clocks, so a moment may be ahead
    passed_s = max(0.0, time.time() - moment_s)
    for unit, length_s in (("day", 86400), ("hour", 3600), ("minute", 60)):
        count = int(passed_s // length_s)
        if count:
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "less than a minute ago"


def list_finished_runs(
    runs: Path, command: str | None, name: str = "*"
) -> list[RunFolder]:
    """List the finished runs, sorted by the time of their end or last reuse.

    Args:
        runs: Folder of all runs.
        command: Command of the runs. None lists the runs of all commands.
        name: Pattern of the names of runs.

    Returns:
        Runs, newest first.
    """
    pattern = f"{command or '*'}/{name}/{METRICS_FILE}"
    folders = [RunFolder(file.parent) for file in runs.glob(pattern)]
    return sorted(folders, key=lambda run: run.changed_s, reverse=True)
