"""Folders of runs: their files, and the search for finished runs.

A run is the folder with the results of a command. It is finished when it has the file
`metrics.json`. A cell is a piece of its work, such as the training for a subject with a
seed.
"""

import hashlib
import json
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from glob import escape
from pathlib import Path
from typing import Any, TypeVar

from pydantic import AwareDatetime, BaseModel

from brainhive_cli.core.base import (
    BrainhiveError,
    Hint,
    Line,
    MissingData,
    RecipeError,
    console,
    guess,
    raise_if_interrupted,
)
from brainhive_cli.core.files import (
    atomic_write,
    documents,
    hub,
    locate,
    make_portable,
    open_unless_link,
    read_regular,
    remove,
    resolve_without_links,
)
from brainhive_cli.core.recipes import describe_bad_label, split_commas
from brainhive_cli.core.results import Measurements

T = TypeVar("T")
MAX_DOCUMENT_BYTES = 1 << 30
"""Size limit of a JSON document, which may hold a value for each tested item."""
MAX_RECIPE_BYTES = 1 << 20
"""Size limit of the recipe of a run."""
METRICS_FILE = "metrics.json"
"""File with the metrics, which is written last. It marks the run as finished."""
ENVIRONMENT_FILE = "environment.json"
"""File with the versions of packages, the device, and the times of start and end."""
REUSES_FILE = "found.json"
"""File that records the commands that reused the run instead of repeating its work."""
LABEL_FILE = "label.txt"
"""File with the label of the run, which the user may change at any time."""
FINGERPRINTS = re.compile(r"(-[0-9a-f]{10})+(-\d+)?$")
"""End of a run's name: digests, and a number if the run was repeated."""
MAX_LISTED = 5
"""Largest number of runs in a message."""


@dataclass(frozen=True)
class RunFolder:
    """Folder of a run, with its recipe, environment, log, models and metrics.

    Attributes:
        path: Path of the folder.
        end_presence: Function that `finish` calls at its end, such as to remove a mark.
    """

    path: Path
    end_presence: Callable[[], None] | None = field(default=None, repr=False)

    @property
    def is_shared(self) -> bool:
        """True if the run is in the cache of the hub."""
        return bool(hub.name_snapshot(self.path))

    @property
    def reference(self) -> str:
        """Path of the run, or its repository on the hub with the commit."""
        return hub.name_snapshot(self.path) or str(self.path)

    @property
    def name(self) -> str:
        """Name of the folder, or repository on the hub with the commit."""
        return hub.name_snapshot(self.path) or self.path.name

    @property
    def file_name(self) -> str:
        """Name for use in file names: the folder, or `repository-commit` on the hub."""
        if not self.is_shared:
            return self.path.name
        repository, _, commit = self.name.partition("@")
        return f"{repository.rpartition('/')[2]}-{commit[:10]}"

    @property
    def short_name(self) -> str:
        """Name of the folder without the fingerprint, or name of a hub repository."""
        return FINGERPRINTS.sub("", self.file_name) or self.file_name

    @property
    def label(self) -> str:
        """Label that the user has given the run, or "" without a valid label."""
        # this file is not trusted, because runs are copied and may be damaged
        with suppress(BrainhiveError, OSError):
            # Size limit of this file, in which a letter may take several bytes.
            max_label_bytes = 1_000
            label = self.read_text(LABEL_FILE, max_label_bytes).rstrip("\n")
            if not describe_bad_label(label):
                return label
        return ""

    @property
    def title(self) -> str:
        """Name of the run, with its label if it has one."""
        return f"{self.name} (“{self.label}”)" if self.label else self.name

    def set_label(self, label: str) -> None:
        """Write the label of the run. An empty text removes the label."""
        if label:
            self.write_text(LABEL_FILE, f"{label}\n")
        else:
            (self.path / LABEL_FILE).unlink(missing_ok=True)

    @property
    def command(self) -> str:
        """Command such as `train-align`, from the manifest or the parent folder."""
        manifest = hub.read_manifest(self.path) if self.is_shared else None
        return manifest.command if manifest else self.path.absolute().parent.name

    @property
    def is_finished(self) -> bool:
        """True if the run has its metrics."""
        return (self.path / METRICS_FILE).is_file()

    @property
    def age(self) -> str:
        """Time since the end or the last change of the run, in words."""
        return format_age(self.written_s)

    @property
    def written_s(self) -> float:
        """Seconds since 1970 at the end, or at the last change if unfinished."""
        if self.is_finished:
            # Copying a run changes the times of its files, but not the recorded time.
            # `read_text` checks no digest, because a list of runs would be slow.
            with suppress(BrainhiveError, OSError):
                text = self.read_text(ENVIRONMENT_FILE)
                environment = documents.parse(text, ENVIRONMENT_FILE, Environment)
                if environment.finished:
                    return environment.finished.timestamp()
            return (self.path / METRICS_FILE).stat().st_mtime

        # the last change of an unfinished run
        file_times_s = [self.path.stat().st_mtime]
        for path in self.path.glob("*.json*"):
            # a worker may rename the file at this moment
            with suppress(OSError):
                file_times_s.append(path.stat().st_mtime)
        return max(file_times_s)

    @property
    def duration_s(self) -> float:
        """Seconds from start to end, or infinity if these times are not recorded."""
        if not (self.path / ENVIRONMENT_FILE).is_file():
            return float("inf")
        environment = self.read_json(ENVIRONMENT_FILE, Environment)
        if environment.started is None or environment.finished is None:
            return float("inf")
        return (environment.finished - environment.started).total_seconds()

    @property
    def changed_s(self) -> float:
        """Seconds since 1970 at the last change, or at the last reuse if later."""
        reused = self.read_found().found
        if reused is None:
            return self.written_s
        return max(self.written_s, reused.timestamp())

    def read_found(self) -> "FoundBy":
        """Read the record of reuses. It is empty if its file is missing or damaged."""
        with suppress(BrainhiveError):
            return self.read_json(REUSES_FILE, FoundBy)
        return FoundBy()

    def measurements(self, name: str = METRICS_FILE) -> Measurements:
        """Read the measurements of a finished run, or of one of its cells.

        Args:
            name: Document below the run. For a cell it is `cells/CELL/metrics.json`.

        Raises:
            BrainhiveError: if the document is missing, damaged, or has another schema.
        """
        return Measurements.from_document(self.read_json(name), self.path / name)

    def recipe(self, kind: type[T] = dict[str, Any], **changes: Any) -> T:  # type: ignore[assignment]
        """Read the recipe of the run, in which all keys have their values.

        Args:
            kind: Class of the command's recipe. By default a dict of plain values.
            changes: New values of keys, which replace the values in the file.

        Raises:
            BrainhiveError: if the recipe is missing or damaged, or does not fit `kind`.
        """
        path = self.path / "recipe.yaml"
        fields = documents.read(path, dict[str, Any], max_bytes=MAX_RECIPE_BYTES)
        return documents.check(fields | changes, str(path), kind)

    def read_json(self, name: str, kind: type[T] = dict[str, Any]) -> T:  # type: ignore[assignment]
        """Read a JSON document of the run.

        Args:
            name: Path of the document below the run.
            kind: Type of the content that pydantic checks, such as a model.

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
        """Read a text file of the run, or return "" if the file is missing."""
        path = self.path / name
        if not path.is_file():
            return ""
        return read_regular(path, max_bytes).decode("utf-8", "replace")

    def write_json(
        self, name: str, document: Mapping[str, Any], indent: int | None = 2
    ) -> None:
        """Write a JSON document of the run, which appears only when it is complete.

        Paths below the home folder become relative to it.
        """
        text = json.dumps(make_portable(document), indent=indent, default=str)
        self.write_text(name, text + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Write a text file of the run, which appears only when it is complete."""
        self.replace(name, lambda path: path.write_text(text, "utf-8"))

    def replace(self, name: str, write: Callable[[Path], Any]) -> Path:
        """Write or replace a file or folder, which appears only when it is complete.

        Digests of the old content are removed from `SHA256SUMS`, except
        for the metrics.

        Args:
            name: Path of the file or folder below the run.
            write: Function that writes the content to a temporary path.
        """
        final = resolve_without_links(self.path, name, "a file of a run,")
        with atomic_write(final) as partial_path:
            write(partial_path)
            raise_if_interrupted()

            # `finish` has already written the new digest of the metrics
            if name != METRICS_FILE:
                digests = documents.read_digests(self.path)
                kept_digests = {}
                for path, digest in digests.items():
                    if not Path(path).is_relative_to(name):
                        kept_digests[path] = digest
                if len(kept_digests) < len(digests):
                    documents.write_digests(self.path, kept_digests)
            # a folder cannot be replaced while it exists
            if final.is_dir():
                remove(final)
        return final

    def checkpoint_path(self, name: str) -> Path:
        """Return the path of the newest checkpoint of a training."""
        return resolve_without_links(
            self.path, f"checkpoints/{name}.pt", "the checkpoint"
        )

    def log(self, **event: Any) -> None:
        """Append an event with values such as `step` and `loss` to `log.jsonl`."""
        line = json.dumps({"time": round(time.time(), 3), **event}, default=str)
        with open(self.path / "log.jsonl", "a", opener=open_unless_link) as stream:
            stream.write(line + "\n")

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield the events in the log `log.jsonl`. Skip damaged lines."""
        for line in self.read_text("log.jsonl").splitlines():
            with suppress(BrainhiveError):
                yield documents.parse(line, "an event")

    def forget_events_after(self, step: int) -> None:
        """Remove damaged lines and events after a step from the log `log.jsonl`."""
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
        """Finish the run: write the digests of its documents, then `metrics.json`.

        Raises:
            BrainhiveError: if a document is missing, or differs from its digest.
        """
        problem = next(documents.find_changes(self.path, {METRICS_FILE}), None)
        if problem is not None:
            raise BrainhiveError(problem, documents.CHANGED_HINT)

        metrics = make_portable(measurements.as_dict())
        content = f"{json.dumps(metrics, indent=2, default=str)}\n".encode()
        names = set(documents.list_documents(self.path)) - {METRICS_FILE}

        def write(path: Path) -> None:
            # `replace` gives the metrics their final name after this function. A run
            # with metrics then has the right digests, even if the process is killed.
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
    """Record of the commands that reused a finished run instead of repeating its work.

    Attributes:
        recipe_names: Names of the recipes for which the run was reused.
        found: Time of the last reuse.
    """

    recipe_names: list[str] = []
    found: AwareDatetime | None = None


class Environment(BaseModel, extra="allow"):
    """Software, device and times of a run. Further keys are allowed.

    Attributes:
        versions: Version of each package.
        device: Name of the device.
        commit: Commit of this program.
        started: Time of the start, or None if unknown.
        finished: Time of the end, or None if unknown or unfinished.
    """

    versions: dict[str, str] = {}
    device: str = ""
    commit: str | None = None
    started: AwareDatetime | None = None
    finished: AwareDatetime | None = None


def format_current_time() -> str:
    """Return the present time in UTC as text in ISO format."""
    return datetime.now(UTC).isoformat()


def is_run(folder: Path) -> bool:
    """Return True if a folder is the folder of a run, which may be unfinished."""
    return (folder / "recipe.yaml").is_file() or (folder / METRICS_FILE).is_file()


def reference(run: RunFolder, runs: Path) -> str:
    """Return the text by which a user can name a run on the command line.

    Args:
        run: The run.
        runs: Folder of all runs of a command, in which the name of a run is enough.
    """
    is_in_folder = run.path.parent.resolve() == runs.resolve()
    return run.path.name if is_in_folder else run.reference


def find(runs: Path, command: str | None, reference: str) -> RunFolder:
    """Find the finished run that a user has named, or download it from the hub.

    Args:
        runs: Folder of all runs.
        command: Command that made the run, such as `train-align`, or None for any.
        reference: Path of the run, its name, its label, the end of its name, or
            `hub:owner/name[@revision]`.

    Raises:
        MissingData: if there is no such finished run of the command.
        RecipeError: if the reference fits several runs.
    """
    # the hint reads the files of other runs, so it is made only for an error
    make_hint = partial(_list_finished, runs, command, reference)

    if reference.startswith(hub.HUB_PREFIX):
        folders = [hub.fetch_run(reference)]
    else:
        folders = _find_folders(runs, command, reference)
    require_single(folders, reference)
    if not folders:
        kind = f"{command} run" if command else "run"
        raise MissingData(f"no {kind} {reference!r} under {runs}", make_hint())

    # check the folder, and its command if it is known
    run = RunFolder(folders[0])
    if not (run.path / "recipe.yaml").is_file():
        raise MissingData(
            f"{run.reference} is not a run: it has no recipe.yaml", make_hint()
        )
    resolved = RunFolder(run.path.resolve())
    is_command_known = run.is_shared or resolved.path.parents[1] == runs.resolve()
    if command and is_command_known and resolved.command != command:
        hint = make_hint()
        if run.is_shared:
            hint = (
                f"name a repository with a run of {command}; priors are named by "
                "--prior"
            )
        raise MissingData(
            f"{run.reference} is a run of {resolved.command}, not of {command}", hint
        )
    # reading the measurements raises an error if the run is not finished
    run.measurements()
    return run


def find_labelled(runs: Path, command: str | None, label: str) -> list[Path]:
    """List the folders of the runs to which the user has given a label.

    Args:
        runs: Folder of all runs.
        command: Command that made the runs, or None for any.
        label: Label of the runs.
    """
    folders = []
    for file in sorted(runs.glob(f"{command or '*'}/*/{LABEL_FILE}")):
        if RunFolder(file.parent).label == label:
            folders.append(file.parent)
    return folders


def require_single(folders: Sequence[Path], reference: str) -> None:
    """Raise a RecipeError if a label or the end of a name fits several runs."""
    if len(folders) > 1:
        raise RecipeError(
            f"{len(folders)} runs are called {documents.show_value(reference)}",
            f"name one of them: {', '.join(map(str, folders))}",
        )


def rejoin_labels(runs: Path, command: str, names: Sequence[str]) -> list[str]:
    """Join labels that a command line has split at their commas.

    For example, `["a", "wide", "250 Hz"]` becomes `["a", "wide, 250 Hz"]` if a run has
    this label.

    Args:
        runs: Folder of all runs.
        command: Command that made the runs.
        names: Names or labels of runs.
    """
    joined = list(names)
    for file in runs.glob(f"{command}/*/{LABEL_FILE}"):
        label = RunFolder(file.parent).label
        parts = split_commas(label)
        for start in range(len(joined) - len(parts) + 1):
            if len(parts) > 1 and joined[start : start + len(parts)] == parts:
                joined[start : start + len(parts)] = [label]
    return joined


def _find_folders(runs: Path, command: str | None, reference: str) -> list[Path]:
    """Find the folders of the runs that a reference may mean.

    The first search with a result decides: path of a run, name, label, path of any
    other folder, end of the name of a finished run.

    Args:
        runs: Folder of all runs.
        command: Command that made the runs, or None for any.
        reference: Path of a folder, name or label of a run, or end of a name after a
            hyphen.
    """
    # os.path.isdir returns False for a reference that is too long to be a path
    folders_by_path = []
    for path in (locate(reference), runs / reference):
        if os.path.isdir(path):
            folders_by_path.append(path)
    for path in folders_by_path:
        if is_run(path):
            return [path]

    if command:
        named_paths = [runs / command / reference]
    else:
        # a glob of the name would fail if it is too long for a file
        named_paths = [folder / reference for folder in sorted(runs.glob("*"))]
        named_paths = list(dict.fromkeys(named_paths))
    folders = list(filter(os.path.isdir, named_paths))
    folders = folders or find_labelled(runs, command, reference)
    folders = folders or folders_by_path[:1]
    if folders:
        return folders

    ending = f"-{reference}"
    return [
        run.path
        for run in list_finished_runs(runs, command, f"*{escape(ending)}")
        if run.path.name.endswith(ending)
    ]


def _list_finished(runs: Path, command: str | None, reference: str) -> Hint:
    """Make a hint with the finished runs, or with the command that makes a run."""
    names = [run.path.name for run in list_finished_runs(runs, command)]
    if not names:
        return Line(command or "demo")

    # a name that contains the requested name wins over a similar name
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
    """Find the newest finished run that fits a purpose.

    Its name, label and age are printed, and the reasons why newer runs do not fit.

    Args:
        runs: Folder of all runs.
        command: Command that made the run, such as `train-align`, or None for any.
        explain_misfit: Returns why a run does not fit, such as "from another recipe",
            or "" if it fits.
        required_content: Noun after "has" in the error message, such as "metrics".
        hint: Advice in the error message. By default the command that makes a run.
        excluded_run: Run that must not be chosen.

    Raises:
        MissingData: if no run fits.
    """
    rejected_runs = []
    reason_counts = Counter[str]()
    for run in list_finished_runs(runs, command):
        if excluded_run is not None and run.path == excluded_run.path:
            continue
        # a run that cannot be read does not fit
        try:
            run.measurements()
            run.recipe()
            reason = explain_misfit(run)
        except BrainhiveError as error:
            console.warn(f"{error.message}; this run is skipped")
            reason = "damaged"
        if reason:
            rejected_runs.append(f"{run.path.name}: {reason}")
            reason_counts[reason] += 1
            continue

        message = f"using {run.title}, finished {run.age}"
        if rejected_runs:
            plural = "s" if len(rejected_runs) > 1 else ""
            message += f"; skipped {len(rejected_runs)} newer run{plural}"
            reasons = list(reason_counts)[:MAX_LISTED]
            message += f" ({'; '.join(reasons)})"
        console.say(message)
        return run

    message = f"no finished run under {runs}"
    if command:
        message = f"no finished {command} run under {runs / command}"
    if required_content:
        message += f" has {required_content}"
    if rejected_runs:
        message += f" ({'; '.join(rejected_runs[:MAX_LISTED])})"
    raise MissingData(message, hint or Line(command or "demo"))


def format_age(moment_s: float) -> str:
    """Write the time since a moment in seconds since 1970, such as "2 hours ago"."""
    passed_s = time.time() - moment_s
    # clocks of machines differ
    direction = "ago" if passed_s > 0 else "in the future, by its clock"
    for unit, length_s in (("day", 86400), ("hour", 3600), ("minute", 60)):
        count = int(abs(passed_s) // length_s)
        if count:
            return f"{count} {unit}{'s' if count > 1 else ''} {direction}"
    return "less than a minute ago"


def list_finished_runs(
    runs: Path, command: str | None, name: str = "*"
) -> list[RunFolder]:
    """List the finished runs, newest first by the time of their end or last reuse.

    Args:
        runs: Folder of all runs.
        command: Command that made the runs, or None for any.
        name: Glob pattern of the names of the runs.
    """
    pattern = f"{command or '*'}/{name}/{METRICS_FILE}"
    folders = [RunFolder(file.parent) for file in runs.glob(pattern)]
    return sorted(folders, key=lambda run: run.changed_s, reverse=True)
