"""Run folders: created or resumed by fingerprint, written to, finished."""

import hashlib
import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from glob import escape
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self, TypeVar

from pydantic import AwareDatetime, BaseModel

from brainhive_cli.core import console, documents, hub, shared_runs
from brainhive_cli.core.cells import CELLS, Finished, claiming, read_cells
from brainhive_cli.core.claims import Claim, is_held, is_own, name_worker
from brainhive_cli.core.errors import (
    BrainhiveError,
    MissingData,
    RecipeError,
    Unfinished,
    guess,
    raise_if_interrupted,
)
from brainhive_cli.core.files import (
    atomic_write,
    below,
    locate,
    name_part,
    open_no_link,
    portable,
    read_regular,
    remove,
    within,
)
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.lines import Hint, Line
from brainhive_cli.core.measurements import Measurements
from brainhive_cli.core.recipe import Recipe, write_yaml

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
LOCK = ".claim"
"""The claim under which a run's recipe and environment are written; nothing is computed
meanwhile.
"""
WORKERS = ".workers"
"""The folder of claims that say which processes work on a run."""
CLAIMS = "[!.]*"
"""Claims in that folder: hidden files come and go where others look at its clock."""
PRESENCES = itertools.count(1)
"""Numbers of this process's claims there: one that failed may be held by a traceback,
as in a notebook.
"""
OPENED = {"recipe.yaml", ENVIRONMENT, "embeddings.json", LOCK, WORKERS, CELLS}
"""The files of a run for which nothing was done yet."""
MAX_LISTED = 5
"""Runs that are listed where the named one does not exist."""


@dataclass(frozen=True)
class RunFolder:
    """One run of one command: its recipe, environment, log, models, samples and
    metrics.
    """

    path: Path
    presence: Claim | None = None

    @classmethod
    def open(
        cls,
        command: str,
        label: str,
        recipe: Recipe,
        launch: Launch,
        again: bool = False,
        digests: Mapping[str, str] = MappingProxyType({}),
    ) -> Self:
        """Create the run's folder, or find the one that the same recipe made before.

        Others may work on the same run: they share its cells (`claim_cells`).

        Args:
            command: The subcommand; the folder lies under `runs/<command>`.
            label: The first part of the folder's name; the fingerprint follows.
            recipe: The resolved recipe.
            launch: This process among those that share the run; the main one writes.
            again: Start a new run even if there is a finished one.
            digests: Of what paths and references of the recipe hold, and of stores, see
                `Input.digest`.

        Raises:
            Unfinished: if the launch only reads, and the run is not finished.
        """
        # the main process opens the folder, the others wait until it has
        recipe = recipe.model_copy(update={"digests": dict(sorted(digests.items()))})
        base, name = (
            recipe.paths.under_home("runs") / command,
            f"{label}-{recipe.fingerprint()}",
        )
        below(base, name, source="the name of a run,")
        if launch.only_reads:
            run = cls(_numbered(base, name, again))
            if not run.is_finished:
                raise Unfinished(f"run {name} is not finished")
            return run
        if not launch.is_main:
            return cls(launch.gather(None)[0])

        # a new run has a folder that no other command takes
        path = _numbered(base, name, again)
        while again:
            try:
                path.mkdir(parents=True)
                break
            except FileExistsError:
                path = _numbered(base, name, again)

        # an unfinished run is continued; its recipe and environment are written while
        # nobody else does
        run = cls(path)
        if not run.is_finished:
            lock = Claim(path / LOCK, f"run {path}", wait=True)
            try:
                claims = [*(path / WORKERS).glob(CLAIMS)]
                held = [claim for claim in claims if is_held(claim)]
                # of workers that were killed, or have just ended
                for claim in {*claims} - {*held}:
                    claim.unlink(missing_ok=True)
                workers = [claim for claim in held if not is_own(claim)]
                # by another worker, just before this one had the lock
                if not run.is_finished:
                    presence = name_part(path / f"worker-{next(PRESENCES)}")
                    run = cls(
                        path,
                        Claim(
                            path / WORKERS / presence.name.removeprefix("."),
                            f"run {path}",
                        ),
                    )
                    is_new = not (path / "recipe.yaml").is_file()
                    if not workers:
                        run.write_text(
                            "recipe.yaml",
                            write_yaml(portable(recipe.model_dump(mode="json"))),
                        )
                        run.write_json(
                            ENVIRONMENT,
                            {**launch.describe_environment(), "started": _now()},
                        )
                    if not is_new:
                        count = len(workers)
                        with_others = (
                            f" with {count} other worker{'s' if count > 1 else ''}"
                            if count
                            else ""
                        )
                        console.say(f"continuing run {path.name}{with_others}")
            finally:
                lock.release()

        # a finished one is noted as asked for again
        if run.is_finished:
            console.say(
                f"found run {path.name}, finished {run.age}; --again starts a new one"
            )
            # a run of somebody else, which may be read only
            with suppress(OSError, BrainhiveError):
                names = sorted({*run.read_found().recipe_names, recipe.recipe_name})
                run.write_json(FOUND, {"recipe_names": names, "found": _now()})
        launch.gather(path)
        return run

    @contextmanager
    def claim_cells(
        self,
        files: Mapping[str, str],
        launch: Launch,
        is_finished: Finished | None = None,
    ) -> Iterator[Iterator[str]]:
        """Share cells of the run with others who work on it; see `cells.claiming`.

        Args:
            files: Name of each cell, and the file of the run that makes it finished.
            launch: The processes that share each cell.
            is_finished: Whether a cell is finished; default: its file is there.
        """
        # the list of cells, for who counts them; the metrics are not one of many
        listed = read_cells(self.path) if launch.is_main else dict(files)
        if FINISHED not in files and not {*files.items()} <= {*listed.items()}:
            self.write_json(CELLS, listed | dict(files))

        # lines of a dead worker stay in the log; this one says from where on they are
        # another's
        def note(name: str, taken_from: str) -> None:
            if taken_from:
                self.log(cell=name, taken_from=taken_from, by=name_worker())
                console.say(f"{name} is taken over from {taken_from}, which has ended")

        paths = {
            name: within(self.path, file, "a cell of a run,")
            for name, file in files.items()
        }
        with claiming(paths, launch, note, is_finished) as free:
            yield free

    def fill(
        self,
        title: str,
        files: Mapping[str, str],
        launch: Launch,
        measure: Callable[[str], Any],
    ) -> bool:
        """Measure the cells that lack their files, each by whoever is free.

        Args:
            title: What is done, on the line of progress.
            files: Name of each cell, and its file in the run.
            launch: The processes, each of which measures cells by itself.
            measure: Measures a cell, by its name.

        Returns:
            Whether this launch measured all of them, so that their pace is known.
        """
        from brainhive_cli.core import cell_files

        # cells without a file; other workers may fill them meanwhile
        todo = {
            name: file
            for name, file in files.items()
            if not (self.path / file).is_file()
        }
        count = 0
        with (
            console.progress(title, len(todo)) as bar,
            self.claim_cells(todo, launch.alone) as free,
        ):
            # progress counts the cells of all workers
            for name in free:
                self.replace(
                    todo[name], partial(cell_files.save, measured=measure(name))
                )
                bar.advance(self.count_finished(todo) - bar.items, name)
                count += 1
            bar.advance(len(todo) - bar.items)

        # time in which other workers helped is no pace of this launch
        return bool(sum(launch.gather(count)) >= len(todo))

    def count_finished(self, files: Mapping[str, str]) -> int:
        """Count the cells whose files are there, whoever wrote them."""
        return sum((self.path / file).is_file() for file in files.values())

    @contextmanager
    def finishing(self, launch: Launch) -> Iterator[bool]:
        """Wait until this worker may finish the run, for which the block gets True, or
        another has done it.

        All processes go on together.

        Args:
            launch: The processes that finish it together.
        """
        with self.claim_cells({FINISHED: FINISHED}, launch) as free:
            yield next(free, None) is not None
        launch.barrier()

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
        manifest = shared_runs.read_manifest(self.path) if self.is_shared else None
        return manifest.command if manifest else self.path.absolute().parent.name

    @property
    def is_in_use(self) -> bool:
        """Whether a living process works on the run."""
        return any(map(is_held, (self.path / WORKERS).glob(CLAIMS)))

    @property
    def is_finished(self) -> bool:
        """Whether the run has its metrics."""
        return (self.path / FINISHED).is_file()

    @property
    def is_untouched(self) -> bool:
        """Whether nothing was done for the run yet."""
        return {path.name for path in self.path.iterdir()} <= OPENED

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
            with suppress(BrainhiveError):
                if finished := self.read_json(ENVIRONMENT, Environment).finished:
                    return finished.timestamp()
            return (self.path / FINISHED).stat().st_mtime
        written_s = [self.path.stat().st_mtime]
        for path in self.path.glob("*.json*"):
            with suppress(OSError):  # a file that a worker has just renamed
                written_s.append(path.stat().st_mtime)
        return max(written_s)

    @property
    def duration_s(self) -> float:
        """Seconds from its start to its end; infinite where it does not say both."""
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
        fields = documents.read(path, dict[str, Any], most=LARGEST_RECIPE)
        return documents.check(fields | changes, str(path), kind)

    def read_json(self, name: str, kind: type[T] = dict[str, Any]) -> T:  # type: ignore[assignment]
        """Read a JSON document of the run."""
        if not (self.path / name).is_file():
            raise MissingData(
                f"run {self.path} is not finished: it has no {name}",
                "run its command again",
            )
        return documents.read(self.path / name, kind, most=LARGEST)

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
            name, json.dumps(portable(document), indent=indent, default=str) + "\n"
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
        final = within(self.path, name, "a file of a run,")
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
        return within(self.path, f"checkpoints/{name}.pt", "the checkpoint")

    def log(self, **event: Any) -> None:
        """Append one event to `log.jsonl`."""
        with open(self.path / "log.jsonl", "a", opener=open_no_link) as stream:
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
        for problem in documents.find_changes(self.path, but={FINISHED}):
            raise BrainhiveError(problem, documents.AGAIN_OR_DELETE)

        # the list has a digest of the metrics before these have their name
        measured = portable(measurements.as_dict())
        text = f"{json.dumps(measured, indent=2, default=str)}\n".encode()
        names = {*documents.list_documents(self.path)} - {FINISHED}

        def write(part: Path) -> None:
            part.write_bytes(text)
            # no finished run has another list, even if killed
            (self.path / FINISHED).unlink(missing_ok=True)
            if ENVIRONMENT in names:
                self.write_json(
                    ENVIRONMENT, {**self.read_json(ENVIRONMENT), "finished": _now()}
                )
            listed = {name: documents.digest_file(self.path / name) for name in names}
            documents.write_digests(
                self.path, listed | {FINISHED: hashlib.sha256(text).hexdigest()}
            )

        self.replace(FINISHED, write)
        if self.presence:
            self.presence.release()


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


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _numbered(base: Path, name: str, again: bool) -> Path:
    """Find the newest of `name`, `name-2`, …; the next free one with `again`."""
    # runs of one recipe are numbered without gaps
    number = 1
    while (base / f"{name}-{number + 1}").exists():
        number += 1
    if again and (base / name).exists():
        number += 1
    return base / (name if number == 1 else f"{name}-{number}")


def is_run(folder: Path) -> bool:
    """Whether a folder is a run's, damaged as it may be."""
    return (folder / "recipe.yaml").is_file() or (folder / FINISHED).is_file()


def remove_unused(runs: Path) -> None:
    """Remove the runs that this process opened and did nothing for; called when its
    command fails.
    """
    for claim in runs.glob(f"*/*/{WORKERS}/{CLAIMS}"):
        # a worker's claim of this process, on a run with nothing in it, and no other
        # worker
        folder = RunFolder(claim.parents[1])
        if not is_own(claim) or not folder.is_untouched:
            continue
        # another process may be opening the run at this moment
        lock = Claim(folder.path / LOCK, f"run {folder.path}", wait=True)
        if not any(
            is_held(other) and not is_own(other) for other in claim.parent.glob(CLAIMS)
        ):
            remove(folder.path)
            with suppress(OSError):  # as another command has runs there
                folder.path.parent.rmdir()
        lock.release()


def reference(run: RunFolder, runs: Path, variant: str = "") -> str:
    """Return what `find` finds a run, or a variant of a sweep, by: its name where it
    lies in `runs`.
    """
    name = (
        run.path.name if run.path.parent.resolve() == runs.resolve() else run.reference
    )
    return f"{name}:{variant}" if variant else name


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
    # the finished runs, for the end of a name, and for the hint: the one that may be
    # meant first
    finished = [run.path for run in finished_runs(runs, command)]
    hint: Hint = Line(command or "demo")
    if names := [path.name for path in finished]:
        wanted = Path(reference).name
        meant = next(
            (f"did you mean {name}? " for name in names if wanted in name),
            guess(wanted, names),
        )
        rest = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
        hint = (
            f"{meant}finished, the newest first: {', '.join(names[:MAX_LISTED])}{rest}"
        )

    # a run of the hub is a folder of its cache
    if reference.startswith(hub.SCHEME):
        reference = str(shared_runs.fetch(reference))

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
        folders = [path for path in finished if path.name.endswith(f"-{reference}")]
    if len(folders) > 1:
        raise RecipeError(
            f"several runs are called {reference!r}", ", ".join(map(str, folders))
        )
    if not folders:
        raise MissingData(
            f"no{f' {command}' if command else ''} run {reference!r} under {runs}", hint
        )

    # it must be a finished run of the command
    run = RunFolder(folders[0])
    if not (run.path / "recipe.yaml").is_file():
        raise MissingData(f"{run.reference} is no run: it has no recipe.yaml", hint)
    resolved = RunFolder(run.path.resolve())
    is_known = run.is_shared or resolved.path.parents[1] == runs.resolve()
    if command and is_known and resolved.command != command:
        raise MissingData(
            f"{run.reference} is a run of {resolved.command}, not of {command}",
            f"a repository with a run of {command}; priors are named by --prior"
            if run.is_shared
            else hint,
        )
    run.measurements()  # which says what is missing
    return run


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


def finished_runs(runs: Path, command: str | None) -> list[RunFolder]:
    """List the finished runs of a command, or of all, those first that were finished,
    or found, last.
    """
    folders = [
        RunFolder(metrics.parent)
        for metrics in runs.glob(f"{command or '*'}/*/{FINISHED}")
    ]
    return sorted(folders, key=lambda run: run.changed_s, reverse=True)
