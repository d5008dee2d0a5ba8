"""Job of prepare: the signal stores of subjects, from raw recordings or from files that
others have prepared.
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
from brainhive_cli.core.cells import share_cells
from brainhive_cli.core.command import Input, Work, collect_inputs
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.files import make_portable
from brainhive_cli.core.jobs import Job as CommandJob
from brainhive_cli.core.launch import Launch, library_version, library_versions
from brainhive_cli.core.recipe import BaseRecipe, RunOptions
from brainhive_cli.core.tables import Table
from brainhive_cli.data.datasets import PUBLISHED_FACTS
from brainhive_cli.data.files.subjects import Subjects
from brainhive_cli.data.recordings.contract import Merged, NoTrials, Preparation
from brainhive_cli.data.recordings.ledger import Ledger
from brainhive_cli.data.stores import session_store
from brainhive_cli.data.stores.recordings import find_absent_subjects
from brainhive_cli.data.stores.session_store import DType, cast_signal, list_sessions
from brainhive_cli.data.stores.signal_store import SignalStore, build_store_path

LIBRARIES = ("mne", "nibabel", "scipy")
"""Whose versions signals depend on, apart from those of all numbers."""


class Recipe(BaseRecipe):
    """Recipe of prepare: the recordings, their preparation, the name of the stores."""

    preparation: Any = parts.part_field(
        "preparations", "things-eeg", "recordings, and each step from them to signals"
    )
    subjects: Subjects = Field(
        None, description="subjects; default: all whose files are there"
    )
    name: str = Field(
        "default", description="of the stores; train-align reads them by signal.name"
    )
    dtype: DType = Field("float32", description="dtype of the stores")
    run: RunOptions = RunOptions(device="cpu")  # several processes share the sessions


@dataclass(frozen=True)
class Job(CommandJob):
    """Stores that prepare makes: of which subjects, from which files.

    Attributes:
        recipe: Its settings.
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

    recipe: Recipe
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
            subjects = [*getattr(PUBLISHED_FACTS.get(dataset), "voxels", ())]
            if not subjects:
                raise

        # what the content of a store depends on, apart from its files
        signals = recipe.paths.under_home("signals")
        config = recipe.preparation.model_dump(
            mode="json", exclude={"root", "subject_numbers"}
        )
        settings = {"preparation": make_portable(config), "dtype": recipe.dtype}
        libraries = {name: library_version(name) for name in LIBRARIES}
        versions = {**library_versions(), **libraries}
        return cls(
            recipe,
            preparation,
            subjects,
            signals,
            recipe.name,
            recipe.dtype,
            settings,
            versions,
            missing,
        )

    def inputs(self) -> list[Input]:
        """List the files of each subject who has no store yet, and what is read, made
        and written of each.
        """
        list_files = getattr(self.preparation, "inputs", lambda subject: ())
        due = self.list_due()

        def describe(subject: int) -> list[Input]:
            return [Input(f"subject {subject}", note=self._describe(subject))]

        return collect_inputs(
            lambda: [file for subject in due for file in list_files(subject)],
            *(partial(describe, subject) for subject in self.subjects),
        )

    def preview(self) -> tuple[Table, ...]:
        """Describe recordings of which little is known.

        Raises:
            BrainhiveError: if a file is missing.
        """
        due = self.list_due()
        # the overview opens all recordings
        for subject in due:
            self.files(subject)
        return self.look_over() if due else ()

    def count_work(self, due: Sequence[int] | None = None) -> Work | None:
        """Count the subjects to prepare; None if nobody is due.

        Args:
            due: Subjects. Default: those who have no store yet.
        """
        count = len(self.list_due() if due is None else due)
        name = self.preparation.dataset
        return Work(name, count, "subjects", cells=count) if count else None

    def choose_due(self, force: bool) -> list[int]:
        """Choose the subjects to prepare, all of them with `again`.

        Raises:
            MissingData: if one of them lacks a file.
            BrainhiveError: if a store is there that was made otherwise.
        """
        if self.missing is not None:
            raise self.missing
        due = [
            subject for subject in self.subjects if force or not self.is_done(subject)
        ]
        errors = find_absent_subjects(
            self.subjects, lambda subject: subject not in due or self.files(subject)
        )
        for error in errors.values():
            raise error
        return due

    def look_over(self) -> tuple[Table, ...]:
        """Describe recordings of which little is known, and warn of what is unusual in
        them.
        """
        if isinstance(self.preparation, Merged):
            return ()
        with console.progress("looking over the recordings"):
            overview = self.preparation.look_over(self.subjects)
        for line in overview.warnings:
            console.warn(line)
        if overview.override:
            console.say(f"  try: {overview.override}")
        return overview.tables

    def path(self, subject: int) -> Path:
        """Return where a subject's store lies."""
        return build_store_path(
            self.signals, self.preparation.dataset, self.name, subject
        )

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
            (make_portable(path), stat.st_size, stat.st_mtime_ns)
            for path, stat in stats
        ]
        # sessions of other settings, files or versions are never joined with new ones
        known = json.dumps([self.settings, self.versions, files], sort_keys=True)
        digest = documents.digest_text(known)[:10]
        name = f"sub-{subject:02d}_ses-{{:02d}}_{digest}.h5"
        return {
            session: self.sessions_folder / name.format(session)
            for session in self.sessions(subject)
        }

    def files(self, subject: int) -> session_store.FileFacts:
        """List the files of a subject, and what each is known by."""
        return session_store.collect_file_facts(self.preparation.files(subject))

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
                    difference = session_store.describe_file_difference(
                        stored["files"], self.files(subject)
                    )
                if not difference:
                    return True
        raise BrainhiveError(
            f"{path} is there, made {difference}",
            f"--again --subjects {subject} replaces it, name=ANOTHER keeps both",
        )

    def _describe(self, subject: int) -> str:
        """Say what is read, made and written of a subject; or that its store exists."""
        path = self.path(subject).relative_to(self.signals.parent)
        if self.is_done(subject):
            kept = list_sessions(self.sessions_folder, subject)
            if not kept:
                return f"{path} exists"
            size = console.size(sum(file.stat().st_size for file in kept))
            return (
                f"{path} exists; sessions/ holds {size} of another that was not "
                "finished"
            )
        files = self.files(subject)
        preparation = self.preparation

        # how many trials there are of each split, and how large they are
        shapes = []  # split, and [trials, channels, samples]
        if isinstance(preparation, Merged):
            for split in preparation.splits:
                recording = preparation.recording(subject, split)
                count, repetitions, *shape = recording.signal.shape
                known = recording.repetitions
                trials = count * repetitions if known is None else int(known.sum())
                shapes.append((split, (trials, *shape)))
        else:
            for session in preparation.sessions(subject):
                try:
                    shapes += preparation.shapes(subject, session).items()
                except NoTrials as error:
                    if (
                        len(self.subjects) == 1
                        and len(preparation.sessions(subject)) == 1
                    ):
                        raise
                    console.warn(f"left out: {error.message}")

        # the sentence: what is read, what it becomes, and what an interrupted command
        # has done already
        counts = Counter[str]()
        for split, shape in shapes:
            counts[split] += shape[0]
        listed = ", ".join(f"{count} {split}" for split, count in counts.items())
        size = sum(prod(shape) for _, shape in shapes) * np.dtype(self.dtype).itemsize
        read = (
            f"{len(files)} files, "
            f"{console.size(sum(known['bytes'] for known in files.values()))}"
        )
        done = [path.is_file() for path in self.session_paths(subject).values()]
        resumed = f"; {sum(done)} of {len(done)} sessions are done" if any(done) else ""
        return f"{read}; {listed} trials, {console.size(size)} to {path}{resumed}"

    def prepare(self, subject: int, launch: Launch, bar: console.Bar) -> None:
        """Make the store of a subject; processes share its sessions."""
        if not isinstance(self.preparation, Merged):
            self._write_sessions(self.preparation, subject, launch, bar)
            return

        # files hold all repetitions together: one store is written at once
        recordings = {}
        for split in self.preparation.splits:
            recording = self.preparation.recording(subject, split)
            # [N, R, C, T]
            signal = cast_signal(recording.signal, np.dtype(self.dtype))
            provenance = {**recording.provenance, **self.provenance(subject)}
            recordings[split] = replace(recording, signal=signal, provenance=provenance)
        SignalStore.write(self.path(subject), recordings)
        bar.advance()

    def _write_sessions(
        self, preparation: Preparation, subject: int, launch: Launch, bar: console.Bar
    ) -> None:
        paths = self.session_paths(subject)
        names = {str(session): path for session, path in paths.items()}

        # each process takes the next session that nobody has taken; the bar counts
        # those of all
        done = 0
        with share_cells(names, launch.single_process) as free:
            for session in map(int, free):
                try:
                    trials = preparation.session(subject, session)
                except NoTrials as error:
                    console.warn(f"left out: {error.message}")
                    continue
                session_store.write_session(paths[session], session, trials, self.dtype)
                before = done
                done = sum(path.is_file() for path in paths.values())
                bar.advance(done - before, f"subject {subject}, session {session}")
        bar.advance(len(paths) - done)
        launch.run_on_main(partial(self._join_sessions, preparation, subject, paths))

    def _join_sessions(
        self, preparation: Preparation, subject: int, paths: Mapping[int, Path]
    ) -> None:
        """Write the store of a subject, whose sessions with trials are there."""
        stores = [SignalStore.open(path) for path in paths.values() if path.is_file()]
        if not stores:
            return
        ledger, provenance = Ledger(), self.provenance(subject)
        for session, path in paths.items():
            if not path.is_file():
                ledger.leave_out("sessions", "no whole trial", f"session {session}")
        if ledger.counts:
            provenance["left_out"] = ledger.as_facts()
        joined = session_store.join_sessions(stores, preparation.order_seed, provenance)
        SignalStore.write(self.path(subject), preparation.finish(subject, joined))
        # those of other settings and files, too
        for path in list_sessions(self.sessions_folder, subject):
            path.unlink()

    def remove_sessions_folder(self) -> None:
        """Remove the folder of sessions, unless some are kept."""
        with suppress(OSError):
            self.sessions_folder.rmdir()
