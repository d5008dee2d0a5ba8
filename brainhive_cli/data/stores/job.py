"""Job of the command prepare, which writes the signal stores of subjects."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from math import prod
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from pydantic import Field

from brainhive_cli.core.base import BrainhiveError, MissingData, Table, console
from brainhive_cli.core.files import Input, collect_inputs, documents, make_portable
from brainhive_cli.core.recipes import BaseRecipe, Flag, RunOptions, flag_field, parts
from brainhive_cli.core.runs import (
    Job as CommandJob,
    Launch,
    Work,
    library_versions,
    share_cells,
)
from brainhive_cli.data.datasets import PUBLISHED_FACTS, PublishedFacts
from brainhive_cli.data.files import Subjects
from brainhive_cli.data.recordings import Account, NoTrials, Overview, Preparation
from brainhive_cli.data.stores import session_store
from brainhive_cli.data.stores.recordings import find_absent_subjects
from brainhive_cli.data.stores.session_store import DType, cast_signal, list_sessions
from brainhive_cli.data.stores.signal_store import SignalStore, build_store_path

SplitShape = tuple[str, tuple[int, ...]]
"""Split, and shape [trials, channels, samples] of its signals."""


class Recipe(BaseRecipe):
    """Recipe of prepare: recordings, their preparation and the name of the stores."""

    summary = (
        "Prepare EEG, MEG or fMRI recordings for training, and store their trials."
    )
    example = "--from things-eeg --subjects 1,2"

    preparation: Annotated[Any, Flag("--from", step="kind")] = parts.part_field(
        "preparations",
        "things-eeg",
        "preparation of the recordings. It holds each step from them to signals",
    )
    subjects: Subjects = flag_field(
        None, "subjects to use, as in 1,2,5; default: all whose files are there"
    )
    name: str = flag_field(
        "default", "name of the stores, for the key signal.name of train-align"
    )
    dtype: DType = Field("float32", description="dtype of the stores")
    run: RunOptions = RunOptions(device="cpu")  # several processes share the sessions


@dataclass(frozen=True)
class Job(CommandJob):
    """Signal stores that prepare writes.

    Attributes:
        recipe: Settings of the command.
        preparation: Recordings, and the steps from them to signals.
        subjects: Subjects to prepare.
        signals: Folder of all signal stores.
        settings: Settings that determine the content of a store.
        versions: Versions of the libraries that compute the signals.
        absence: Error about missing files, or None. If set, `subjects` are the
            published subjects.
    """

    recipe: Recipe
    preparation: Preparation
    subjects: Sequence[int]
    signals: Path
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    absence: BrainhiveError | None = None

    @classmethod
    def resolve(cls, recipe: Recipe) -> Self:
        """Resolve the preparation and the subjects of a recipe.

        Without subjects in the recipe, all subjects with files are prepared. Without
        files, the published subjects are planned.

        Raises:
            MissingData: if there is no subject.
        """
        preparation: Preparation = recipe.preparation.build(recipe.paths)
        dataset = preparation.dataset
        subjects = list(recipe.subjects or ())
        absence = None
        try:
            if not subjects:
                subjects = list(preparation.subjects)
            if not subjects:
                preparation.files(1)  # the error names the missing file
                raise MissingData(
                    f"no subject of {dataset} is there", "preparation.root=FOLDER"
                )
        except BrainhiveError as error:
            absence = error
            facts = PUBLISHED_FACTS.get(dataset, PublishedFacts())
            subjects = list(facts.voxels)
            if not subjects:
                raise

        config = recipe.preparation.model_dump(
            mode="json", exclude={"root", "subject_numbers"}
        )
        return cls(
            recipe=recipe,
            preparation=preparation,
            subjects=subjects,
            signals=recipe.paths.under_home("signals"),
            settings={"preparation": make_portable(config), "dtype": recipe.dtype},
            versions=library_versions(),
            absence=absence,
        )

    def inputs(self) -> list[Input]:
        """List the files of subjects without a store, and a note for each subject."""
        sources = [self._list_files, self._list_account]
        sources.extend(partial(self._list_note, subject) for subject in self.subjects)
        return collect_inputs(*sources)

    def _list_files(self) -> list[Input]:
        """List the files of subjects without a store, if the preparation lists any."""
        files: list[Input] = []
        for subject in self.list_due():
            files += self.preparation.inputs(subject)
        return files

    def _list_account(self) -> list[Input]:
        """Raise an error if the account of the recordings does not add up."""
        if self.list_due():
            self.overview.account.require()
        return []

    def _list_note(self, subject: int) -> list[Input]:
        """Return the input that describes the work for a subject."""
        return [Input(f"subject {subject}", note=self._describe_subject(subject))]

    def preview(self) -> tuple[Table, ...]:
        """Describe the recordings that will be read, see `describe_recordings`.

        Raises:
            BrainhiveError: if a file is missing.
        """
        due = self.list_due()
        for subject in due:
            self.collect_file_facts(subject)
        return self.describe_recordings() if due else ()

    def count_work(self, due: Sequence[int] | None = None) -> Work | None:
        """Count the subjects to prepare, or return None if there are none.

        Args:
            due: Subjects to prepare, or None for all without a store.
        """
        subjects = self.list_due() if due is None else due
        count = len(subjects)
        if count == 0:
            return None
        return Work(self.preparation.dataset, count, "subjects", cells=count)

    def choose_due(self, force: bool) -> list[int]:
        """List the subjects to prepare.

        Args:
            force: True for all subjects, False for those without a store.

        Raises:
            MissingData: if a file is missing.
            BrainhiveError: if a store was made from other files or settings.
        """
        if self.absence is not None:
            raise self.absence
        due = []
        for subject in self.subjects:
            if force or not self.is_done(subject):
                due.append(subject)

        def require_files(subject: int) -> None:
            if subject in due:
                self.collect_file_facts(subject)

        errors = find_absent_subjects(self.subjects, require_files)
        for error in errors.values():
            raise error
        return due

    @cached_property
    def overview(self) -> Overview:
        """Overview of the recordings, read once."""
        with console.progress("looking over the recordings"):
            overview = self.preparation.look_over(self.subjects)
        if self.recipe.subjects:
            # people whom the recipe leaves out need no yes
            overview.account.drop("left-out-people")
        return overview

    def describe_recordings(self) -> tuple[Table, ...]:
        """Describe unfamiliar recordings in tables, with the account on the console."""
        for line in self.overview.warnings:
            console.warn(line)
        if self.overview.override:
            console.say(f"  try: {self.overview.override}")
        return self.overview.account.tabulate() + self.overview.tables

    def require_account(self) -> tuple[Table, ...]:
        """Describe the recordings as `describe_recordings`.

        Raises:
            BrainhiveError: if something does not add up that the recipe does not
                accept.
        """
        tables = self.describe_recordings()
        self.overview.account.require()
        return tables

    def build_path(self, subject: int) -> Path:
        """Build the path of a subject's store."""
        return build_store_path(
            self.signals, self.preparation.dataset, self.recipe.name, subject
        )

    def list_due(self) -> list[int]:
        """List the subjects without a store."""
        return [
            subject
            for subject in self.subjects
            if not self.build_path(subject).is_file()
        ]

    @property
    def sessions_folder(self) -> Path:
        """Folder of finished sessions, until their subject is complete."""
        return self.build_path(1).parent / "sessions"

    def build_session_paths(self, subject: int) -> dict[int, Path]:
        """Build the paths of a subject's sessions. Empty without sessions.

        The file names depend on settings, versions and source files, so that sessions
        of others are never joined.
        """
        # size and time of change stand for the content, which takes long to read
        files = []
        for path in self.preparation.files(subject):
            stat = path.stat()
            files.append((make_portable(str(path)), stat.st_size, stat.st_mtime_ns))
        text = json.dumps([self.settings, self.versions, files], sort_keys=True)
        digest = documents.digest_text(text)[:10]
        paths = {}
        for session in self.preparation.sessions(subject):
            name = f"sub-{subject:02d}_ses-{session:02d}_{digest}.h5"
            paths[session] = self.sessions_folder / name
        return paths

    def collect_file_facts(self, subject: int) -> session_store.FileFacts:
        """Collect the sizes and digests of the source files of a subject."""
        return session_store.collect_file_facts(self.preparation.files(subject))

    def build_provenance(self, subject: int) -> dict[str, Any]:
        """Build the provenance of a subject's store."""
        return {
            **self.settings,
            "dataset": self.preparation.dataset,
            "subject": subject,
            "files": self.collect_file_facts(subject),
            "versions": self.versions,
        }

    def is_done(self, subject: int) -> bool:
        """Return True if a subject has a store of these settings and files.

        Raises:
            BrainhiveError: if the store was made from other settings or files.
        """
        path = self.build_path(subject)
        if not path.is_file():
            return False
        difference = self._describe_difference(path, subject)
        if difference:
            raise BrainhiveError(
                f"subject {subject} was already prepared {difference} ({path})",
                f"replace it: --again --subjects {subject}; or keep both: --name "
                "ANOTHER",
            )
        return True

    def _describe_difference(self, path: Path, subject: int) -> str:
        """Describe the first setting, or else the files, in which a store is outdated.

        Returns "" if the store can be used as it is.
        """
        stored = next(iter(SignalStore.open(path).splits.values())).provenance
        if "preparation" not in stored:
            return "from files that others have prepared"

        stored_settings = {**stored["preparation"], "dtype": stored["dtype"]}
        settings = {**self.settings["preparation"], "dtype": self.recipe.dtype}
        for key in {**stored_settings, **settings}:
            old_value = stored_settings.get(key)
            new_value = settings.get(key)
            # a store that met a requirement such as `needs_…: true` stays valid if the
            # requirement is now false
            is_need = key in settings and key.startswith("needs_")
            if is_need and (old_value or not new_value):
                continue
            if old_value != new_value:
                return (
                    f"with {key} {json.dumps(old_value)}, not {json.dumps(new_value)}"
                )

        # raw data may have been deleted
        try:
            files = self.collect_file_facts(subject)
        except MissingData:
            return ""
        return session_store.describe_file_difference(stored["files"], files)

    def _describe_subject(self, subject: int) -> str:
        """Describe the files, trials and sessions of a subject, or its store."""
        path = self.build_path(subject)
        short_path = path.relative_to(self.signals.parent)
        if self.is_done(subject):
            sessions = list_sessions(self.sessions_folder, subject)
            if not sessions:
                return f"{short_path} exists"
            size = console.size(sum(session.stat().st_size for session in sessions))
            return (
                f"{short_path} exists; sessions/ holds {size} of another that was not "
                "finished"
            )

        facts = self.collect_file_facts(subject)
        file_size = console.size(sum(file["bytes"] for file in facts.values()))
        shapes = self._list_shapes(subject)
        counts = Counter[str]()
        n_values = 0
        for split, shape in shapes:
            counts[split] += shape[0]
            n_values += prod(shape)
        trials = ", ".join(f"{count} {split}" for split, count in counts.items())
        store_size = console.size(n_values * np.dtype(self.recipe.dtype).itemsize)
        description = (
            f"{len(facts)} files, {file_size}; {trials} trials, {store_size} to "
            f"{short_path}"
        )

        session_paths = self.build_session_paths(subject)
        n_done = _count_files(session_paths)
        if n_done:
            description += f"; {n_done} of {len(session_paths)} sessions are done"
        return description

    def _list_shapes(self, subject: int) -> list[SplitShape]:
        """List the shapes of a subject's trials, from file headers.

        Sessions without trials are left out with a warning.

        Raises:
            NoTrials: if the only session of the only subject has no trials.
        """
        shapes: list[SplitShape] = []
        sessions = self.preparation.sessions(subject) or [0]
        for session in sessions:
            try:
                shapes.extend(self.preparation.shapes(subject, session).items())
            except NoTrials as error:
                if len(self.subjects) == 1 and len(sessions) == 1:
                    raise
                console.warn(
                    f"session {session} of subject {subject} is left out: "
                    f"{error.message}"
                )
        return shapes

    def prepare(self, subject: int, launch: Launch, bar: console.Bar) -> None:
        """Write the store of a subject. Processes share its sessions."""
        preparation = self.preparation
        paths = self.build_session_paths(subject)
        if not paths:
            recordings = {}
            for split, recording in preparation.session(subject, 0).items():
                recordings[split] = replace(
                    recording,
                    signal=cast_signal(recording.signal, np.dtype(self.recipe.dtype)),
                    provenance=recording.provenance | self.build_provenance(subject),
                )
            SignalStore.write(self.build_path(subject), recordings)
            bar.advance()
            return

        # write the missing sessions, and join them
        path_of_name = {str(session): path for session, path in paths.items()}
        n_done = 0
        with share_cells(path_of_name, launch.single_process) as free_sessions:
            for name in free_sessions:
                session = int(name)
                try:
                    trials = preparation.session(subject, session)
                except NoTrials as error:
                    console.warn(
                        f"session {session} of subject {subject} is left out: "
                        f"{error.message}"
                    )
                    continue
                stored = session_store.complete_session(
                    session, trials, self.recipe.dtype
                )
                SignalStore.write(paths[session], stored)
                # the bar counts the sessions of all processes
                n_written = _count_files(paths)
                bar.advance(n_written - n_done, f"subject {subject}, session {session}")
                n_done = n_written
        bar.advance(len(paths) - n_done)
        launch.run_on_main(partial(self._join_sessions, subject, paths))

    def _join_sessions(self, subject: int, paths: Mapping[int, Path]) -> None:
        """Write the store of a subject from its sessions with trials."""
        stores = [SignalStore.open(path) for path in paths.values() if path.is_file()]
        if not stores:
            return
        provenance = self.build_provenance(subject)
        account = Account()
        for session, path in paths.items():
            if not path.is_file():
                account.set_aside("sessions", "no whole trial", f"session {session}")
        if account.counts:
            provenance["left_out"] = account.as_facts()
        joined = session_store.join_sessions(
            stores, self.preparation.order_seed, provenance
        )
        recordings = self.preparation.finish(subject, joined)
        SignalStore.write(self.build_path(subject), recordings)
        # also remove sessions of other settings and files
        for path in list_sessions(self.sessions_folder, subject):
            path.unlink()

    def remove_sessions_folder(self) -> None:
        """Remove the folder of sessions if it is empty."""
        with suppress(OSError):
            self.sessions_folder.rmdir()


def _count_files(paths: Mapping[int, Path]) -> int:
    """Count the existing files."""
    return sum(path.is_file() for path in paths.values())
