"""Recordings of a data set: the signal stores of its subjects, opened and made."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from brainhive_cli.core import console, parts
from brainhive_cli.core.arrays import UInt64
from brainhive_cli.core.cells import share_cells
from brainhive_cli.core.command import Input, require_inputs
from brainhive_cli.core.errors import Line, MissingData, RecipeError
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import SIMULATED, merge_caveats
from brainhive_cli.core.recipe import SIGNALS, Paths
from brainhive_cli.data.datasets import Dataset, PublishedFacts
from brainhive_cli.data.files import hdf5
from brainhive_cli.data.signals.selection import Signal
from brainhive_cli.data.signals.trials import Trials
from brainhive_cli.data.stores.signal_store import (
    SignalStore,
    build_store_path,
    list_store_subjects,
)


@dataclass(frozen=True)
class Recordings:
    """The signals of a data set as a recipe reads them: one store for each subject.

    Attributes:
        dataset: Whose subjects were recorded.
        paths: Where stores lie.
        signal: Names the preparation, and says which part of a recording a model sees.
        fold: Which trials are held out, where the data set holds out any.
    """

    dataset: Dataset
    paths: Paths
    signal: Signal
    fold: int = 1

    def build_path(self, subject: int) -> Path:
        """Return where a subject's store lies."""
        root = self.paths.under_home("signals")
        return build_store_path(
            root, self.dataset.recorded_as, self.signal.name, subject
        )

    def open_store(self, subject: int) -> SignalStore:
        """Open a subject's store; nothing is written.

        Raises:
            MissingData: if `prepare` has not created it.
        """
        path = self.build_path(subject)
        if not path.is_file():
            raise MissingData(
                f"no signals {path}",
                "train-align, eval-retrieval and reconstruct create them",
            )
        # the file's state is part of the cache's key: a changed store is opened anew
        return _open_once(path, hdf5.get_file_state(path))

    def open_recording(self, subject: int, split: str) -> Trials:
        """Open a subject's recording of a split: in the fold, where trials of `train`
        are held out.

        Raises:
            MissingData: if there is no store, or it does not have the split.
            BrainhiveError: if it does not say what is held out, or was fitted to
                held-out trials.
        """
        holdout, where = self.dataset.holdout, f"{self.dataset.name} subject {subject}"
        # held-out trials lie in the stored split `train`
        recording = self.open_store(subject)[holdout.name_stored_split(split)]
        return holdout.choose_trials(recording, split, self.fold, where)

    def can_fill_fold(self, subject: int) -> bool:
        """Whether a subject has the runs or sessions that the fold tests, as far as its
        store is there.
        """
        holdout = self.dataset.holdout
        if (
            holdout.by not in ("runs", "sessions")
            or not self.build_path(subject).is_file()
        ):
            return True
        try:
            self.open_recording(subject, "test")
        except RecipeError:
            return False
        return True

    def open_recordings(self, subjects: Sequence[int], split: str) -> dict[int, Trials]:
        """Open the recordings of a split, of those subjects who have a store with
        it.
        """
        stored = self.dataset.holdout.name_stored_split(split)
        return {
            subject: self.open_recording(subject, split)
            for subject, store in self._open_stores(subjects).items()
            if stored in store.splits
        }

    def _open_stores(self, subjects: Iterable[int]) -> dict[int, SignalStore]:
        """Open the stores of those subjects who have one."""
        return {
            subject: self.open_store(subject)
            for subject in subjects
            if self.build_path(subject).is_file()
        }

    def are_prepared(self, subjects: Iterable[int]) -> bool:
        """Return True if all subjects have a store."""
        return all(self.build_path(subject).is_file() for subject in subjects)

    def collect_identities(self, subjects: Sequence[int]) -> dict[str, str]:
        """Give what the signals of subjects are known by, of those who have a store, by
        its name.
        """
        stores = self._open_stores(subjects).items()
        return {self.name_store(subject): store.identity for subject, store in stores}

    def name_store(self, subject: int) -> str:
        """Name a subject's store, as recipes and models do among what they have
        read.
        """
        return f"{SIGNALS} {hdf5.short_name(self.build_path(subject))}"

    def select(self, recording: Trials, where: str) -> Trials:
        """Select what a brain model sees of a recording, not normalised; `where` names
        it in errors.

        Raises:
            BrainhiveError: naming channels, regions or a window that the recording does
                not have.
        """
        return self.signal.select(recording, self.dataset.channels, where)

    def list_subjects(self, subjects: Sequence[int] | None) -> list[int]:
        """List the subjects that a recipe names, else those who were recorded, else
        those whom the publisher names.

        Raises:
            MissingData: if a subject is neither recorded nor published, or nobody is.
        """
        recorded = list_recorded_subjects(self.dataset, self.paths, self.signal.name)
        published = (self.dataset.published_sizes or PublishedFacts({})).voxels
        absent = [subject for subject in subjects or [] if subject not in recorded]
        listed = list(subjects or recorded or published)
        # signals of published subjects can be prepared later
        if not listed or {*absent} - {*published}:
            raise self._describe_absence(absent)
        return listed

    def _describe_absence(self, absent: Sequence[int]) -> MissingData:
        """Say that the preparation does not have some subjects, or nobody."""
        # names of other preparations, for the hint
        dataset, preparation = self.dataset, self.signal.name
        recorded = list_recorded_subjects(dataset, self.paths, preparation)
        signals = self.paths.under_home("signals") / dataset.recorded_as
        others = {path.parent.name for path in signals.glob("*/sub-*.h5")}
        prepared = sorted(others - {preparation})

        # the subjects that there are, or the line that prepares signals
        where = "" if dataset.subjects else f"in signals {preparation}"
        whom = " ".join(filter(None, [", ".join(map(str, absent)), where]))
        is_ours = parts.is_kind("preparations", dataset.recorded_as)
        source = dataset.recorded_as if is_ours else "recording"
        way = str(Line("prepare", ("from", source)))
        if recorded:
            way = f"it has: {', '.join(map(str, recorded))}"
        if prepared and not dataset.subjects:
            way += f"; signal.name takes other stores: {', '.join(prepared)}"
        return MissingData(f"{dataset.pictured_as} has no subject {whom}", way)

    def list_inputs(self, subjects: Sequence[int]) -> list[Input]:
        """List the stores of subjects, each with its identity, or else what it would be
        made from.

        All absent stores have the same error, which names the subjects that are there.
        """
        digests, size = self.collect_identities(subjects), None
        names = {subject: self.name_store(subject) for subject in subjects}
        if self.dataset.subjects:
            errors = find_absent_subjects(subjects, self._find_recording)
            published = self.dataset.published_sizes
            size = published.subject_bytes if published else None
        else:
            # only `prepare` makes these stores
            absent = [subject for subject in subjects if names[subject] not in digests]
            errors = dict.fromkeys(absent, self._describe_absence(absent))

        listed = []
        for subject, name in names.items():
            error = errors.get(subject)
            digest = digests.get(name, "")
            listed.append(Input(name, size if error else None, error, digest=digest))
        return listed

    def _find_recording(self, subject: int) -> None:
        """Find the store of a subject, or the recording that it would be made from.

        Raises:
            MissingData: if there is neither.
        """
        path = self.build_path(subject)
        if path.is_file():
            return
        if self.signal.name != "default":  # which no data set's own files become
            raise MissingData(
                f"no signals {path}", "signal.name=default uses the data set's own"
            )
        self.dataset.find_recording(subject)

    def prepare(self, subjects: Sequence[int], launch: Launch) -> None:
        """Create the stores that are missing from the data set's own files; one process
        does it for all.

        Raises:
            MissingData: if a store and the recording that it would be made from are
                both missing.
        """
        # all recordings must be there before the first store is written
        require_inputs(self.list_inputs(subjects))
        launch.run_on_main(
            partial(self._write_missing, subjects, launch.single_process)
        )

    def _write_missing(self, subjects: Sequence[int], launch: Launch) -> None:
        dataset = self.dataset
        files = {str(subject): self.build_path(subject) for subject in subjects}

        # no other command may write the same stores
        with share_cells(files, launch) as free:
            for subject in map(int, free):
                console.say(f"preparing signals of {dataset.name} subject {subject}")
                # the store itself says that it is simulated, wherever it is copied
                stamp = {}
                if dataset.is_simulated:
                    stamp["simulated"] = f"by the data set {dataset.name}"
                stamped = {}
                with console.progress(
                    f"writing signals of subject {subject}", len(dataset.splits)
                ) as bar:
                    for split in dataset.splits:
                        recording = dataset.recording(subject, split)
                        stamped[split] = replace(
                            recording, provenance={**stamp, **recording.provenance}
                        )
                        bar.advance(1, split)
                    SignalStore.write(self.build_path(subject), stamped)

    def require_distinct_people(self, subjects: Iterable[int]) -> None:
        """Refuse subjects of whom two have equal trials, so that they are not two
        people.

        Raises:
            BrainhiveError: naming them.
        """
        known: dict[int, UInt64] = {}  # digests of all trials of a subject
        for subject, store in self._open_stores(sorted({*subjects})).items():
            recordings = store.splits.values()
            # each subject is compared with all before
            for other, digests in known.items():
                for recording in recordings:
                    recording.refuse_copies(
                        digests,
                        f"{self.dataset.name} subject {subject}",
                        f"trials of subject {other}",
                        "they are one person, or one was prepared from the other's "
                        "files: leave one out",
                    )
            known[subject] = np.concatenate(
                [recording.digests.ravel() for recording in recordings]
            )

    def list_caveats(self, subjects: Sequence[int]) -> list[str]:
        """List the caveats of the signals that subjects are tested on."""
        tested = []
        for store in self._open_stores(subjects).values():
            # all splits but `train` are tested; `train` only where there is no other
            names = [split for split in store.splits if split != "train"]
            names = names or [*store.splits]
            tested += [store.splits[name] for name in names]
        held_out = [self.dataset.holdout.caveats(recording) for recording in tested]
        return merge_caveats(list_recording_caveats(self.dataset, tested), *held_out)


@lru_cache(maxsize=256)
def _open_once(path: Path, state: tuple[int, ...]) -> SignalStore:
    """Open a store once for all who read it, as long as its file is the same."""
    return SignalStore.open(path)


def list_recording_caveats(dataset: Dataset, recordings: Iterable[Trials]) -> list[str]:
    """List the caveats of recordings that are kept under a data set: those that their
    stores carry.

    Of a data set that simulates its signals, all are simulated, though files of them do
    not say so.
    """
    simulated = [SIMULATED] if dataset.is_simulated else []
    return merge_caveats(simulated, *(recording.caveats for recording in recordings))


def find_absent_subjects(
    subjects: Sequence[int], find: Callable[[int], object]
) -> dict[int, MissingData]:
    """Find the subjects who lack something.

    Args:
        subjects: All subjects.
        find: Finds what a subject needs, and raises MissingData where it is absent.

    Returns:
        One error for all subjects who lack something, by subject. It is the error of
        the first, and names the subjects who lack nothing.
    """
    errors = {}
    for subject in subjects:
        try:
            find(subject)
        except MissingData as error:
            errors[subject] = error
    if not errors:
        return {}

    # the first error stands for all
    first, *others = errors.values()
    there = [str(subject) for subject in subjects if subject not in errors]
    if others:
        first.message += f", nor of {len(others)} more"
    if there:
        first.hint += f", or those that are there: --subjects {','.join(there)}"
    return dict.fromkeys(errors, first)


def list_recorded_subjects(
    dataset: Dataset, paths: Paths, preparation: str | None = None
) -> tuple[int, ...]:
    """List whose signals there are: a data set's own subjects, or those with a store of
    a preparation.

    Args:
        dataset: The data set.
        paths: Where signal stores lie.
        preparation: The name of the stores; None: any of them.
    """
    signals = paths.under_home("signals")
    # a data set without a list of subjects has those with a store
    return dataset.subjects or list_store_subjects(
        signals, dataset.recorded_as, preparation
    )
