"""The signal stores of a data set: which subjects have one, creating those that are missing, opening them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from brainhive_cli.core import console, needs, parts
from brainhive_cli.core.caveats import SIMULATED, merge_caveats
from brainhive_cli.core.errors import MissingData
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.needs import Need
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.datasets import Dataset
from brainhive_cli.data.signals.section import Signal
from brainhive_cli.data.stores import recordings
from brainhive_cli.data.stores.recordings import Recording, SignalStore


def store_path(dataset: Dataset, paths: Paths, signal: Signal, subject: int) -> Path:
    """Return where a subject's signal store lies."""
    return recordings.path_of(paths.under_home("signals"), dataset.recorded_as, signal.name, subject)


def open_signals(dataset: Dataset, paths: Paths, signal: Signal, subject: int) -> SignalStore:
    """Open a subject's signal store; nothing is written.

    Raises:
        MissingData: if `prepare_signals` has not created it.
    """
    path = store_path(dataset, paths, signal, subject)
    if not path.is_file():
        raise MissingData(f"no signals {path}", "train-align, eval-retrieval and reconstruct create them")
    return SignalStore.open(path)


def caveats_of_signals(dataset: Dataset, paths: Paths, signal: Signal, subjects: Sequence[int]) -> list[str]:
    """List the caveats of the signals that subjects are tested on."""
    tested: list[Recording] = []
    for subject in subjects:
        path = store_path(dataset, paths, signal, subject)
        if path.is_file():
            splits = SignalStore.open(path).splits
            names = [split for split in splits if split != "train"] or [*splits]
            tested += [splits[name] for name in names]
    return caveats_of(dataset, tested)


def caveats_of(dataset: Dataset, recordings: Iterable[Recording]) -> list[str]:
    """List the caveats of recordings that are kept under a data set: those that their stores carry.

    Of a data set that simulates its signals, all are simulated, though files of them do not say so.
    """
    own = [SIMULATED] if dataset.is_simulated else []
    return merge_caveats(own, *(recording.caveats for recording in recordings))


def signal_needs(dataset: Dataset, paths: Paths, signal: Signal, subjects: Sequence[int]) -> list[Need]:
    """List the stores that `prepare` makes of subjects; none of a data set with recordings of its own."""
    files = [store_path(dataset, paths, signal, subject) for subject in subjects]
    look = partial(chosen_subjects, dataset, paths, signal.name, subjects)
    return [] if dataset.subjects else needs.stores(files, look)


def prepare_signals(
    dataset: Dataset, paths: Paths, signal: Signal, subjects: Sequence[int], launch: Launch
) -> None:
    """Create the signal stores that are missing from the data set's own files; one process does it for all.

    Raises:
        MissingData: if a store and the recording that it would be made from are both missing.
    """
    require_signals(dataset, paths, signal, subjects)
    if launch.is_main:
        for subject in subjects:
            path = store_path(dataset, paths, signal, subject)
            if not path.is_file():
                console.say(f"preparing signals of {dataset.name} subject {subject}")
                stamp = {"simulated": f"by the data set {dataset.name}"} if dataset.is_simulated else {}
                recordings = {split: dataset.recording(subject, split) for split in dataset.splits}
                SignalStore.write(
                    path,
                    {
                        split: replace(recording, provenance={**stamp, **recording.provenance})
                        for split, recording in recordings.items()
                    },
                )
    launch.barrier()


def require_signals(dataset: Dataset, paths: Paths, signal: Signal, subjects: Sequence[int]) -> None:
    """Check that each subject has a signal store, or a recording to make it from; nothing is read.

    Raises:
        MissingData: naming the first recording that is missing, and the subjects whose are there.
    """

    def check(subject: int) -> None:
        path = store_path(dataset, paths, signal, subject)
        if not path.is_file():
            _require_recording(dataset, signal, subject, path)

    require_each(subjects, check)


def require_each(subjects: Sequence[int], check: Callable[[int], object]) -> None:
    """Check what each subject needs.

    Raises:
        MissingData: naming the first thing that is missing, and the subjects that lack nothing.
    """
    missing: dict[int, MissingData] = {}
    for subject in subjects:
        try:
            check(subject)
        except MissingData as error:
            missing[subject] = error
    if missing:
        first, there = next(iter(missing.values())), [str(each) for each in subjects if each not in missing]
        alternative = f"; or those that are there: --subjects {','.join(there)}" if there else ""
        more = f", nor of {len(missing) - 1} more" if len(missing) > 1 else ""
        raise MissingData(first.message + more, first.hint + alternative)


def _require_recording(dataset: Dataset, signal: Signal, subject: int, path: Path) -> None:
    if signal.name != "default":  # which no data set's own files become
        raise MissingData(f"no signals {path}", "signal.name=default uses the data set's own")
    dataset.require(subject)


def recorded_subjects(dataset: Dataset, paths: Paths, preparation: str | None = None) -> tuple[int, ...]:
    """List whose signals there are: a data set's own subjects, or those with a store of a preparation.

    Args:
        dataset: The data set.
        paths: Where signal stores lie.
        preparation: The name of the stores; None: any of them.
    """
    signals = paths.under_home("signals")
    return dataset.subjects or recordings.subjects_of(signals, dataset.recorded_as, preparation)


def chosen_subjects(
    dataset: Dataset,
    paths: Paths,
    preparation: str,
    subjects: Sequence[int] | None,
    is_expected: bool = False,
) -> list[int]:
    """Check subjects; when None all whose signals there are in a preparation.

    Args:
        dataset: The data set.
        paths: Where signal stores lie.
        preparation: The name of the stores.
        subjects: Those that are wanted.
        is_expected: Whether signals may be made later, of the subjects that are published.

    Raises:
        MissingData: if the preparation does not have one of them.
    """
    known = recorded_subjects(dataset, paths, preparation)
    published = getattr(dataset, "published_sizes", None)
    if is_expected and published is not None:
        known = known if known and not subjects else (*known, *published.voxels)
    unknown = [subject for subject in subjects or [] if subject not in known]
    if unknown or not known:
        signals = paths.under_home("signals") / dataset.recorded_as
        prepared = sorted({path.parent.name for path in signals.glob("*/sub-*.h5")} - {preparation})
        elsewhere = f"; signal.name takes other stores: {', '.join(prepared)}" if prepared else ""
        where = "" if dataset.subjects else f"in signals {preparation}"
        whom = " ".join(filter(None, [", ".join(map(str, unknown)), where]))
        source = dataset.recorded_as if parts.is_kind("preparations", dataset.recorded_as) else "recording"
        has = f"it has: {', '.join(map(str, known))}" if known else f"brainhive prepare --from {source}"
        raise MissingData(
            f"{dataset.pictured_as} has no subject {whom}",
            f"{has}{'' if dataset.subjects else elsewhere}",
        )
    return list(subjects or known)


def size_up(
    dataset: Dataset, paths: Paths, signal: Signal, subjects: Sequence[int]
) -> tuple[tuple[int, ...], int]:
    """Return the shape [N, R, C, T] of a subject's training signals, and the bytes of the stores to be made.

    One recording is opened; the others are taken to be as large.

    Raises:
        RecipeError: if it does not have the channels, regions or window of the recipe.
    """
    stores = {subject: store_path(dataset, paths, signal, subject) for subject in subjects}
    missing = [subject for subject, path in stores.items() if not path.is_file()]
    if missing:
        found = {split: dataset.recording(missing[0], split) for split in dataset.splits}
    else:
        found = {"train": SignalStore.open(stores[subjects[0]])["train"]}
    train = found["train"]
    signal.select(train, dataset.channels, dataset.name)  # which refuses what is not there
    return train.signal.shape, len(missing) * sum(map(recordings.size_of, found.values()))
