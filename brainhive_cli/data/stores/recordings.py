"""Recordings of a data set: the signal stores of its subjects."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from brainhive_cli.core.base import Line, MissingData, RecipeError, UInt64, console
from brainhive_cli.core.files import Input, require_inputs
from brainhive_cli.core.recipes import SIGNALS, Paths, parts
from brainhive_cli.core.results import SIMULATED, merge_caveats
from brainhive_cli.core.runs import Launch, share_cells
from brainhive_cli.data.datasets import Dataset, PublishedFacts
from brainhive_cli.data.files import hdf5
from brainhive_cli.data.signals import Signal, Trials
from brainhive_cli.data.stores.signal_store import (
    SignalStore,
    build_store_path,
    list_store_subjects,
)


@dataclass(frozen=True)
class Recordings:
    """Recordings of a data set that a recipe selects, a signal store for each subject.

    Attributes:
        dataset: Data set.
        paths: Folders of the project.
        signal: Name of the preparation, and selection of channels, regions and window.
        fold: Fold that is tested, if the data set holds out folds.
    """

    dataset: Dataset
    paths: Paths
    signal: Signal
    fold: int = 1

    def build_path(self, subject: int) -> Path:
        """Build the path of a subject's store."""
        root = self.paths.under_home("signals")
        return build_store_path(
            root, self.dataset.recorded_as, self.signal.name, subject
        )

    def open_store(self, subject: int) -> SignalStore:
        """Open a subject's store.

        Raises:
            MissingData: if there is no store.
        """
        path = self.build_path(subject)
        if not path.is_file():
            raise MissingData(
                f"no signals {path}",
                "train-align, eval-retrieval and reconstruct create them",
            )
        return _open_once(path, hdf5.get_file_state(path))

    def open_recording(self, subject: int, split: str) -> Trials:
        """Open a subject's recording of a split, or the trials that the fold holds out.

        Raises:
            MissingData: if there is no store, or the store does not have the split.
            BrainhiveError: if the store lacks facts that the fold needs, or was fitted
                to held-out trials.
        """
        holdout = self.dataset.holdout
        # held-out trials are in the stored split `train`
        recording = self.open_store(subject)[holdout.name_stored_split(split)]
        name = f"{self.dataset.name} subject {subject}"
        return holdout.choose_trials(recording, split, self.fold, name)

    def can_fill_fold(self, subject: int) -> bool:
        """Return True if a subject has the runs or sessions that the fold tests.

        A subject without a store counts as having them.
        """
        tests_groups = self.dataset.holdout.by in ("runs", "sessions")
        if not tests_groups or not self.build_path(subject).is_file():
            return True
        try:
            self.open_recording(subject, "test")
        except RecipeError:
            return False
        return True

    def open_recordings(self, subjects: Sequence[int], split: str) -> dict[int, Trials]:
        """Open a split of all subjects whose store has the split."""
        stored_split = self.dataset.holdout.name_stored_split(split)
        recordings = {}
        for subject, store in self._open_stores(subjects).items():
            if stored_split in store.splits:
                recordings[subject] = self.open_recording(subject, split)
        return recordings

    def _open_stores(self, subjects: Iterable[int]) -> dict[int, SignalStore]:
        """Open the stores of all subjects with a store."""
        return {
            subject: self.open_store(subject)
            for subject in subjects
            if self.build_path(subject).is_file()
        }

    def are_prepared(self, subjects: Iterable[int]) -> bool:
        """Return True if all subjects have a store."""
        return all(self.build_path(subject).is_file() for subject in subjects)

    def collect_identities(self, subjects: Sequence[int]) -> dict[str, str]:
        """Collect the identities of the stores of subjects, by name of the store."""
        identities = {}
        for subject, store in self._open_stores(subjects).items():
            identities[self.name_store(subject)] = store.identity
        return identities

    def name_store(self, subject: int) -> str:
        """Name a subject's store, such as `signals things-eeg/default/sub-01`."""
        return f"{SIGNALS} {hdf5.shorten_store_path(self.build_path(subject))}"

    def select(self, recording: Trials, where: str) -> Trials:
        """Select the channels or regions and the window that a model reads.

        Args:
            recording: Recording, which is not normalised.
            where: Name of the recording, for errors.

        Raises:
            BrainhiveError: if the recording lacks channels, regions or the window.
        """
        return self.signal.select(recording, self.dataset.channels, where)

    def list_subjects(self, subjects: Sequence[int] | None) -> list[int]:
        """List the subjects of a recipe.

        Args:
            subjects: Requested subjects, or None for all recorded subjects. If no
                subject is recorded, None stands for all published subjects.

        Raises:
            MissingData: if a subject is neither recorded nor published, or there is no
                subject.
        """
        recorded = list_recorded_subjects(self.dataset, self.paths, self.signal.name)
        facts = self.dataset.published_sizes or PublishedFacts({})
        published = list(facts.voxels)
        selected = list(subjects or recorded or published)
        absent = [subject for subject in subjects or () if subject not in recorded]
        # published subjects can be prepared later
        if not selected or set(absent).difference(published):
            raise self._describe_absence(absent)
        return selected

    def _describe_absence(self, absent: Sequence[int]) -> MissingData:
        """Make the error for subjects, or a whole data set, without recordings."""
        dataset = self.dataset
        preparation = self.signal.name
        name = ", ".join(map(str, absent))
        if not dataset.subjects:
            name = f"{name} in signals {preparation}".strip()

        # advise the recorded subjects, or else the command that prepares signals
        recorded = list_recorded_subjects(dataset, self.paths, preparation)
        has_preparation = parts.is_kind("preparations", dataset.recorded_as)
        source = dataset.recorded_as if has_preparation else "recording"
        hint = str(Line("prepare", ("from", source)))
        if recorded:
            hint = f"it has: {', '.join(map(str, recorded))}"

        # advise other preparations
        signals = self.paths.under_home("signals") / dataset.recorded_as
        names = {path.parent.name for path in signals.glob("*/sub-*.h5")}
        other_names = sorted(names - {preparation})
        if other_names and not dataset.subjects:
            hint += f"; signal.name takes other stores: {', '.join(other_names)}"
        return MissingData(f"{dataset.pictured_as} has no subject {name}", hint)

    def list_inputs(self, subjects: Sequence[int]) -> list[Input]:
        """List the stores of subjects as inputs of a command.

        The size of an absent store is the size of the files that it is made from. All
        absent stores have the same error, which names the subjects with a store.
        """
        digests = self.collect_identities(subjects)
        names = {subject: self.name_store(subject) for subject in subjects}
        size = None
        if self.dataset.subjects:
            errors = find_absent_subjects(subjects, self._find_recording)
            published = self.dataset.published_sizes
            size = published.subject_bytes if published else None
        else:
            # only `prepare` makes these stores
            absent = [subject for subject in subjects if names[subject] not in digests]
            errors = dict.fromkeys(absent, self._describe_absence(absent))

        inputs = []
        for subject, name in names.items():
            error = errors.get(subject)
            digest = digests.get(name, "")
            inputs.append(Input(name, size if error else None, error, digest=digest))
        return inputs

    def _find_recording(self, subject: int) -> None:
        """Raise MissingData unless a subject has a store, or files to make it from."""
        path = self.build_path(subject)
        if path.is_file():
            return
        # only the store `default` is made from the data set's own files
        if self.signal.name != "default":
            raise MissingData(
                f"no signals {path}", "signal.name=default uses the data set's own"
            )
        self.dataset.find_recording(subject)

    def prepare(self, subjects: Sequence[int], launch: Launch) -> None:
        """Make missing stores from the data set's own files, in the main process.

        Raises:
            MissingData: if a store and its files are missing. Nothing is written then.
        """
        require_inputs(self.list_inputs(subjects))
        launch.run_on_main(
            partial(self._write_missing, subjects, launch.single_process)
        )

    def _write_missing(self, subjects: Sequence[int], launch: Launch) -> None:
        """Write the missing stores that no other command is writing."""
        paths = {str(subject): self.build_path(subject) for subject in subjects}
        with share_cells(paths, launch) as free_subjects:
            for subject in free_subjects:
                self._write_store(int(subject))

    def _write_store(self, subject: int) -> None:
        """Write the store of a subject from the data set's own files."""
        dataset = self.dataset
        console.say(f"preparing signals of {dataset.name} subject {subject}")
        # a store of simulated signals says so, wherever it is copied
        provenance = {}
        if dataset.is_simulated:
            provenance["simulated"] = f"by the data set {dataset.name}"
        recordings = {}
        title = f"writing signals of subject {subject}"
        with console.progress(title, len(dataset.splits)) as bar:
            for split in dataset.splits:
                recording = dataset.recording(subject, split)
                recordings[split] = replace(
                    recording, provenance={**provenance, **recording.provenance}
                )
                bar.advance(1, split)
            SignalStore.write(self.build_path(subject), recordings)

    def require_distinct_people(self, subjects: Iterable[int]) -> None:
        """Raise an error if two subjects have equal trials, and so are the same person.

        Raises:
            BrainhiveError: naming the subjects.
        """
        digests_of_subject: dict[int, UInt64] = {}
        for subject, store in self._open_stores(sorted(set(subjects))).items():
            recordings = store.splits.values()
            for other_subject, other_digests in digests_of_subject.items():
                for recording in recordings:
                    recording.refuse_copies(
                        other_digests,
                        f"{self.dataset.name} subject {subject}",
                        f"trials of subject {other_subject}",
                        "they are one person, or one was prepared from the other's "
                        "files: leave one out",
                    )
            digests = [recording.digests for recording in recordings]
            digests_of_subject[subject] = np.concatenate(digests)

    def list_caveats(self, subjects: Sequence[int]) -> list[str]:
        """List the caveats of the signals on which subjects are tested."""
        tested: list[Trials] = []
        for store in self._open_stores(subjects).values():
            # `train` is tested only if there is no other split
            splits = [split for split in store.splits if split != "train"]
            for split in splits or store.splits:
                tested.append(store.splits[split])
        holdout_caveats = [self.dataset.holdout.caveats(trials) for trials in tested]
        return merge_caveats(
            list_recording_caveats(self.dataset, tested),
            self.signal.caveats,
            *holdout_caveats,
        )


@lru_cache(maxsize=256)
def _open_once(path: Path, state: tuple[int, ...]) -> SignalStore:
    """Open a store, or return it from the cache if its file has not changed.

    Args:
        path: Path of the store.
        state: State of the file, see `hdf5.get_file_state`.
    """
    return SignalStore.open(path)


def list_recording_caveats(dataset: Dataset, recordings: Iterable[Trials]) -> list[str]:
    """List the caveats of recordings that are stored under a data set.

    All recordings of a data set with simulated signals are simulated.
    """
    simulated = [SIMULATED] if dataset.is_simulated else []
    caveats = [recording.caveats for recording in recordings]
    return merge_caveats(simulated, *caveats)


def find_absent_subjects(
    subjects: Sequence[int], find: Callable[[int], object]
) -> dict[int, MissingData]:
    """Find the subjects who lack an input.

    Args:
        subjects: All subjects.
        find: Finds the input of a subject, or raises MissingData.

    Returns:
        The first error, for each subject who lacks the input. Its message counts the
        other absent subjects, and its hint lists the subjects who have the input.
    """
    errors = {}
    for subject in subjects:
        try:
            find(subject)
        except MissingData as error:
            errors[subject] = error
    if not errors:
        return {}

    first_error = next(iter(errors.values()))
    if len(errors) > 1:
        others = len(errors) - 1
        plural = "s" if others > 1 else ""
        first_error.message += f" (also missing for {others} more subject{plural})"
    present = [str(subject) for subject in subjects if subject not in errors]
    if present:
        first_error.hint += f", or those that are there: --subjects {','.join(present)}"
    return dict.fromkeys(errors, first_error)


def list_recorded_subjects(
    dataset: Dataset, paths: Paths, preparation: str | None = None
) -> tuple[int, ...]:
    """List the subjects of a data set. If it lists none, list those with a store.

    Args:
        dataset: Data set.
        paths: Folders of the project.
        preparation: Name of the preparation of the stores, or None for all.
    """
    if dataset.subjects:
        return dataset.subjects
    signals = paths.under_home("signals")
    return list_store_subjects(signals, dataset.recorded_as, preparation)
