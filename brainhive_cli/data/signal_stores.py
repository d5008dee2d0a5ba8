"""The signal stores of a data set: whose there are, creating and opening them, and what
they hold.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from brainhive_cli.core import console, parts
from brainhive_cli.core.arrays import UInt64
from brainhive_cli.core.cells import claiming
from brainhive_cli.core.errors import MissingData
from brainhive_cli.core.inputs import Input
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.lines import Line
from brainhive_cli.core.measurements import SIMULATED, merge_caveats
from brainhive_cli.core.recipe import SIGNALS, Paths
from brainhive_cli.data.datasets import Dataset, Published
from brainhive_cli.data.signals.selection import Signal
from brainhive_cli.data.spaces import Voxels
from brainhive_cli.data.stores import hdf5, recordings
from brainhive_cli.data.stores.recordings import SignalStore
from brainhive_cli.data.trials import Trials

COUNTED = ("split", "pictures", "repetitions", "trials", "dropped")
"""Columns of `count_rows`."""


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

    def path(self, subject: int) -> Path:
        """Return where a subject's store lies."""
        root = self.paths.under_home("signals")
        return recordings.path_of(
            root, self.dataset.recorded_as, self.signal.name, subject
        )

    def open(self, subject: int) -> SignalStore:
        """Open a subject's store; nothing is written.

        Raises:
            MissingData: if `prepare` has not created it.
        """
        path = self.path(subject)
        if not path.is_file():
            raise MissingData(
                f"no signals {path}",
                "train-align, eval-retrieval and reconstruct create them",
            )
        # the file's state is part of the cache's key: a changed store is opened anew
        return _open_once(path, hdf5.state_of(path))

    def recording(self, subject: int, split: str) -> Trials:
        """Open a subject's recording of a split: in the fold, where trials of `train`
        are held out.

        Raises:
            MissingData: if there is no store, or it does not have the split.
            BrainhiveError: if it does not say what is held out, or was fitted to
                held-out trials.
        """
        holdout, where = self.dataset.holdout, f"{self.dataset.name} subject {subject}"
        # held-out trials lie in the stored split `train`
        recording = self.open(subject)[holdout.stored_split(split)]
        return holdout.choose_trials(recording, split, self.fold, where)

    def recordings(self, subjects: Sequence[int], split: str) -> dict[int, Trials]:
        """Open the recordings of a split, of those subjects who have a store with
        it.
        """
        stored, stores = (
            self.dataset.holdout.stored_split(split),
            self._open_stores(subjects),
        )
        return {
            subject: self.recording(subject, split)
            for subject, store in stores.items()
            if stored in store.splits
        }

    def _open_stores(self, subjects: Iterable[int]) -> dict[int, SignalStore]:
        """Open the stores of those subjects who have one."""
        return {
            subject: self.open(subject)
            for subject in subjects
            if self.path(subject).is_file()
        }

    def identities(self, subjects: Sequence[int]) -> dict[str, str]:
        """Give what the signals of subjects are known by, of those who have a store, by
        its name.
        """
        stores = self._open_stores(subjects).items()
        return {self.name_of(subject): store.identity for subject, store in stores}

    def name_of(self, subject: int) -> str:
        """Name a subject's store, as recipes and models do among what they have
        read.
        """
        return f"{SIGNALS} {hdf5.short_name(self.path(subject))}"

    def select(self, recording: Trials, where: str) -> Trials:
        """Select what a brain model sees of a recording, not normalised; `where` names
        it in errors.

        Raises:
            BrainhiveError: naming channels, regions or a window that the recording does
                not have.
        """
        return self.signal.select(recording, self.dataset.channels, where)

    def expect_subjects(self, subjects: Sequence[int] | None) -> list[int]:
        """Choose subjects whose signals there are, or that the publisher names and
        `prepare` can make.

        Raises:
            MissingData: if one is neither; see `choose_subjects`.
        """
        recorded = recorded_subjects(self.dataset, self.paths, self.signal.name)
        published = (self.dataset.published_sizes or Published({})).voxels
        # subjects of a published size can be prepared later
        if subjects and published.keys() >= {*subjects} - {*recorded}:
            return list(subjects)
        return (
            self.choose_subjects(subjects)
            if subjects or recorded or not published
            else [*published]
        )

    def choose_subjects(self, subjects: Sequence[int] | None) -> list[int]:
        """Check subjects; when None all whose signals there are in the preparation.

        Raises:
            MissingData: if the preparation does not have one of them.
        """
        # an absent subject: name those that there are, or the line that prepares
        # signals
        dataset, preparation = self.dataset, self.signal.name
        known = recorded_subjects(dataset, self.paths, preparation)
        unknown = [subject for subject in subjects or [] if subject not in known]
        if unknown or not known:
            # names of other preparations, for the hint
            signals = self.paths.under_home("signals") / dataset.recorded_as
            prepared = sorted(
                {path.parent.name for path in signals.glob("*/sub-*.h5")}
                - {preparation}
            )
            elsewhere = (
                f"; signal.name takes other stores: {', '.join(prepared)}"
                if prepared
                else ""
            )
            where = "" if dataset.subjects else f"in signals {preparation}"
            whom = " ".join(filter(None, [", ".join(map(str, unknown)), where]))
            is_ours = parts.is_kind("preparations", dataset.recorded_as)
            source = dataset.recorded_as if is_ours else "recording"
            way = str(Line("prepare", ("from", source)))
            way = f"it has: {', '.join(map(str, known))}" if known else way
            message = f"{dataset.pictured_as} has no subject {whom}"
            raise MissingData(message, way if dataset.subjects else way + elsewhere)
        return list(subjects or known)

    def inputs(self, subjects: Sequence[int]) -> list[Input]:
        """List the stores of subjects, each with its identity, or else what it would be
        made from.
        """
        # a store is known by its identity; an absent one by the check of its recordings
        here = self.identities(subjects)
        look = self.require if self.dataset.subjects else self.choose_subjects
        error = Input.of("", partial(look, subjects)).error
        published = self.dataset.published_sizes
        size = published.subject_bytes if published and self.dataset.subjects else None

        # an absent store has the error of all subjects, which names those that are
        # there
        listed = []
        for subject in subjects:
            name = self.name_of(subject)
            if name in here:
                listed.append(Input(name, digest=here[name]))
                continue
            one = Input.of(name, partial(look, [subject]), size)
            listed.append(replace(one, error=one.error and error))
        return listed

    def require(self, subjects: Sequence[int]) -> None:
        """Check that each subject has a store, or a recording to make it from; nothing
        is read.

        Raises:
            MissingData: naming the first recording that is missing, and the subjects
                whose are there.
        """

        def check(subject: int) -> None:
            path = self.path(subject)
            if path.is_file():
                return
            if self.signal.name != "default":  # which no data set's own files become
                raise MissingData(
                    f"no signals {path}", "signal.name=default uses the data set's own"
                )
            self.dataset.require(subject)

        require_each(subjects, check)

    def prepare(self, subjects: Sequence[int], launch: Launch) -> None:
        """Create the stores that are missing from the data set's own files; one process
        does it for all.

        Raises:
            MissingData: if a store and the recording that it would be made from are
                both missing.
        """
        # all recordings must be there before the first store is written
        self.require(subjects)
        dataset = self.dataset
        files = {str(subject): self.path(subject) for subject in subjects}

        # one process writes for all; no other command may write the same stores
        with claiming(files if launch.rank == 0 else {}, launch.alone) as free:
            for subject in map(int, free):
                console.say(f"preparing signals of {dataset.name} subject {subject}")
                # the store itself says that it is simulated, wherever it is copied
                stamp = (
                    {"simulated": f"by the data set {dataset.name}"}
                    if dataset.is_simulated
                    else {}
                )
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
                    SignalStore.write(self.path(subject), stamped)
        # other processes wait until the stores are there
        launch.barrier()

    def refuse_copied_people(self, subjects: Iterable[int]) -> None:
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
                where, source = (
                    f"{self.dataset.name} subject {subject}",
                    f"trials of subject {other}",
                )
                hint = (
                    "they are one person, or one was prepared from the other's files: "
                    "leave one out"
                )
                for recording in recordings:
                    recording.refuse_copies(digests, where, source, hint)
            known[subject] = np.concatenate(
                [recording.digests.ravel() for recording in recordings]
            )

    def caveats(self, subjects: Sequence[int]) -> list[str]:
        """List the caveats of the signals that subjects are tested on."""
        tested = []
        for store in self._open_stores(subjects).values():
            # all splits but `train` are tested; `train` only where there is no other
            names = [split for split in store.splits if split != "train"] or [
                *store.splits
            ]
            tested += [store.splits[name] for name in names]
        held_out = [self.dataset.holdout.caveats(recording) for recording in tested]
        return merge_caveats(caveats_of(self.dataset, tested), *held_out)

    def check(self, subjects: Sequence[int]) -> None:
        """Open the training signals of the first subject that has a store; raises as
        `select` does.
        """
        for recording in self.recordings(subjects[:1], "train").values():
            self.select(recording, self.dataset.name)


@lru_cache(maxsize=256)
def _open_once(path: Path, state: tuple[int, ...]) -> SignalStore:
    """Open a store once for all who read it, as long as its file is the same."""
    return SignalStore.open(path)


def caveats_of(dataset: Dataset, recordings: Iterable[Trials]) -> list[str]:
    """List the caveats of recordings that are kept under a data set: those that their
    stores carry.

    Of a data set that simulates its signals, all are simulated, though files of them do
    not say so.
    """
    simulated = [SIMULATED] if dataset.is_simulated else []
    return merge_caveats(simulated, *(recording.caveats for recording in recordings))


def require_each(subjects: Sequence[int], check: Callable[[int], object]) -> None:
    """Check what each subject needs.

    Raises:
        MissingData: naming the first thing that is missing, and the subjects that lack
            nothing.
    """
    # all are checked, so that the error names subjects that lack nothing
    missing = {}
    for subject in subjects:
        try:
            check(subject)
        except MissingData as error:
            missing[subject] = error

    # the first error stands for all
    if missing:
        first = next(iter(missing.values()))
        there = [str(subject) for subject in subjects if subject not in missing]
        alternative = (
            f", or those that are there: --subjects {','.join(there)}" if there else ""
        )
        rest = f", nor of {len(missing) - 1} more" if len(missing) > 1 else ""
        raise MissingData(first.message + rest, first.hint + alternative)


def recorded_subjects(
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
    return dataset.subjects or recordings.subjects_of(
        signals, dataset.recorded_as, preparation
    )


def describe_store(store: SignalStore) -> dict[str, Any]:
    """Describe a store in plain values: its trials by split, also of one of which
    nothing was left.
    """
    # what was dropped of each split and session, by reason; a session knows that of
    # splits that it has not
    dropped: dict[str, dict[int, Mapping[str, int]]] = defaultdict(dict)
    for split, recording in store.splits.items():
        for session in recording.provenance.get("sessions", []):
            dropped_of_split = session.get("dropped_by_split") or {
                split: session.get("dropped", {})
            }
            for name, numbers in dropped_of_split.items():
                dropped[name][session.get("session", 0)] = numbers

    # trials of each split, also of one that was dropped as a whole
    splits = {}
    for split in {**store.splits, **dropped}:
        reasons = Counter[str]()
        for dropped_of_session in dropped[split].values():
            reasons.update(dropped_of_session)
        counts = (
            store.splits[split].repetitions
            if split in store.splits
            else np.zeros(0, np.int64)
        )
        assert counts is not None  # as in every store
        if split in store.splits or any(reasons.values()):
            least, most = (
                (int(counts.min()), int(counts.max())) if len(counts) else (0, 0)
            )
            counted = {
                "pictures": len(counts),
                "repetitions": [least, most],
                "trials": int(counts.sum()),
            }
            splits[split] = {**counted, "dropped": dict(reasons)}

    # axes, caveats and origin are those of all splits
    first = next(iter(store.splits.values()))
    space = {"channels": first.signal.shape[2]}
    if isinstance(first.space, Voxels):
        space = {"voxels": first.signal.shape[2], "regions": list(first.space.regions)}
    else:
        space["names"] = list(first.space.names)
    return {
        **space,
        "rate_hz": first.rate_hz,
        "window_ms": [round(float(at) * 1000, 1) for at in first.times_s[[0, -1]]],
        "unit": first.unit,
        "caveats": merge_caveats(
            *(recording.caveats for recording in store.splits.values())
        ),
        "whiteners": 0 if first.whiteners is None else len(first.whiteners),
        "provenance": {
            key: value for key, value in first.provenance.items() if key != "files"
        },
        "splits": splits,
    }


def count_rows(described: Mapping[str, Any]) -> Iterator[tuple[object, ...]]:
    """Write a row a split of a store that `describe_store` described."""
    for split, counts in described["splits"].items():
        least, most = counts["repetitions"]
        repetitions = str(most) if least == most else f"{least} to {most}"
        dropped = ", ".join(
            f"{count} {reason}" for reason, count in counts["dropped"].items() if count
        )
        yield (
            split,
            counts["pictures"],
            repetitions,
            counts["trials"],
            dropped or "none",
        )
