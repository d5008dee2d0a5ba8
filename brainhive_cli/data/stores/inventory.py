"""Inventory of a data set: its pictures, recordings and stores, and their problems."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from brainhive_cli.core.base import BrainhiveError, Line, MissingData, Table, console
from brainhive_cli.core.recipes import Paths, parts
from brainhive_cli.data.datasets import PUBLISHED_FACTS, Dataset, describe_test_claims
from brainhive_cli.data.files import match_names, published_files, summarise_names
from brainhive_cli.data.media import StimulusSet, describe_unread
from brainhive_cli.data.signals import Trials
from brainhive_cli.data.stores.recordings import list_recorded_subjects
from brainhive_cli.data.stores.signal_store import SignalStore, count_bytes
from brainhive_cli.data.stores.target_store import (
    TargetStore,
    build_command_line,
    holds_own_vectors,
)

N_PUBLISHED_PICTURES = {name: facts.stimuli for name, facts in PUBLISHED_FACTS.items()}
"""Published number of pictures, by data set and split."""


@dataclass
class DatasetPart:
    """Part of a data set: its pictures, the recordings of a subject, or a store.

    Attributes:
        name: Name of the part.
        counts: Number of pictures or trials of each split, as text.
        size: Bytes, or None if unknown.
        problem: First problem, or None. MissingData if the part is missing.
        is_whole: False if published pictures are missing, which is allowed.
        is_raw: True if the part must be prepared first.
    """

    name: str
    counts: dict[str, str] = field(default_factory=dict)
    size: int | None = None
    problem: BrainhiveError | None = None
    is_whole: bool = True
    is_raw: bool = False

    def add_problem(self, error: BrainhiveError) -> None:
        """Keep an error if it is the first."""
        if self.problem is None:
            self.problem = error

    @contextmanager
    def catch_problem(self) -> Iterator[None]:
        """Catch an error of the block, and keep it if it is the first."""
        try:
            yield
        except BrainhiveError as error:
            self.add_problem(error)

    @property
    def state(self) -> str:
        """State: "complete", "partial", "not prepared", "missing" or "bad"."""
        if self.problem is None:
            return "complete" if self.is_whole else "partial"
        if not isinstance(self.problem, MissingData):
            return "bad"
        return "not prepared" if self.is_raw else "missing"


def inspect_dataset(
    config: Any, paths: Paths, subjects: Sequence[int] | None, checks_all: bool = False
) -> tuple[str, dict[str, Any], list[BrainhiveError], Table]:
    """List the parts of a data set, and find their problems.

    Args:
        config: Config of the data set.
        paths: Folders of the project.
        subjects: Subjects whose recordings are inspected, or None for all.
        checks_all: True to decode every picture and verify every row of signal stores.
            By default, a sample is checked.

    Returns:
        Name of the data set, its folder, claims and parts as JSON values, problems, and
        a table with a row for each part.
    """
    folder = None
    if hasattr(config, "root"):
        folder = paths.dataset(config.kind, config.root)
    splits: tuple[str, ...] = ()
    name = config.kind
    claims = ""
    try:
        dataset: Dataset = config.build(paths)
    except MissingData as error:
        # a data set without pictures cannot be built
        dataset_parts = [DatasetPart("pictures", problem=error)]
    else:
        name = dataset.name
        splits = dataset.splits
        dataset_parts, claims = _list_parts(
            config, dataset, paths, subjects, checks_all
        )

    rows = []
    descriptions = {}
    # Cell of a table without a value.
    no_value = "–"
    for dataset_part in dataset_parts:
        counts = [dataset_part.counts.get(split, no_value) for split in splits]
        size = (
            no_value if dataset_part.size is None else console.size(dataset_part.size)
        )
        rows.append((dataset_part.name, *counts, size, dataset_part.state))
        descriptions[dataset_part.name] = {
            "counts": dataset_part.counts,
            "bytes": dataset_part.size,
            "state": dataset_part.state,
            "problem": dataset_part.problem.in_one_line if dataset_part.problem else "",
        }
    title = name
    if folder:
        # the name of the current folder is only a dot
        location = folder.absolute() if folder == Path() else folder
        title += f" in {location}"
    if claims:
        title += f"; {claims}"
    facts = {
        "folder": str(folder) if folder else None,
        "claims": claims,
        "parts": descriptions,
    }
    table = Table(title, ("part", *splits, "size", "state"), rows)
    return name, facts, _merge_problems(dataset_parts), table


def _merge_problems(dataset_parts: Sequence[DatasetPart]) -> list[BrainhiveError]:
    """Merge the problems with the same advice, because a command repairs them all."""
    groups: dict[tuple[type[BrainhiveError], str], list[BrainhiveError]] = {}
    for dataset_part in dataset_parts:
        problem = dataset_part.problem
        if problem is not None:
            is_missing = isinstance(problem, MissingData)
            kind = MissingData if is_missing else BrainhiveError
            groups.setdefault((kind, problem.hint), []).append(problem)
    errors = []
    for (kind, hint), problems in groups.items():
        message = problems[0].message
        if len(problems) > 1:
            message += f", and {len(problems) - 1} more"
        errors.append(kind(message, hint))
    return errors


def _list_parts(
    config: Any,
    dataset: Dataset,
    paths: Paths,
    subjects: Sequence[int] | None,
    checks_all: bool,
) -> tuple[list[DatasetPart], str]:
    """List the pictures, recordings and stores, see `inspect_dataset`.

    Returns:
        The parts, and the claims that a test on the data set allows.
    """
    pictures, images = _inspect_pictures(dataset, checks_all)
    dataset_parts = [pictures]

    # raw recordings, if a preparation reads this data set
    raw_subjects: Sequence[int] = ()
    if config.kind in parts.list_kinds("preparations"):
        raw = parts.resolve("preparations", {"kind": config.kind, "root": config.root})
        raw_subjects = raw.build(paths).subjects
    if subjects is None:
        recorded = list_recorded_subjects(dataset, paths)
        subjects = sorted(set(recorded).union(raw_subjects))
    signals = paths.under_home("signals") / dataset.recorded_as
    stores = {}
    for subject in subjects:
        stores[subject] = sorted(signals.glob(f"*/sub-{subject:02d}.h5"))

    # prepared files of each subject, or else raw recordings
    if not dataset.is_simulated:
        for subject in subjects:
            dataset_part = _inspect_recordings(dataset, subject, images)
            is_missing = dataset_part.state == "missing"
            # a subject with a store needs no other files
            if is_missing and stores[subject]:
                continue
            if is_missing and subject in raw_subjects:
                dataset_part = _describe_raw_recordings(config, subject)
            dataset_parts.append(dataset_part)

    for store_paths in stores.values():
        for path in store_paths:
            dataset_part = _inspect_signal_store(path, dataset, images, checks_all)
            dataset_parts.append(dataset_part)
    embeddings = paths.under_home("embeddings") / dataset.name
    encoders: set[str] = set()
    for split in dataset.splits:
        encoders.update(path.stem for path in (embeddings / split).glob("*.h5"))
    for encoder in sorted(encoders):
        dataset_parts.append(_inspect_targets(embeddings, encoder, images))
    return dataset_parts, describe_test_claims(dataset, len(subjects))


def _inspect_pictures(
    dataset: Dataset, checks_all: bool
) -> tuple[DatasetPart, dict[str, StimulusSet]]:
    """Count the pictures of each split, and decode all or a sample of them.

    Returns:
        The part, and the pictures by split.
    """
    dataset_part = DatasetPart("pictures")
    images = {}
    for split in dataset.splits:
        with dataset_part.catch_problem():
            stimuli = dataset.images(split)
            images[split] = stimuli
            count = len(stimuli)
            n_published = N_PUBLISHED_PICTURES.get(dataset.name, {}).get(split, 0)
            dataset_part.counts[split] = f"{count:,}"
            if count < n_published:
                dataset_part.counts[split] += f" of {n_published:,}"
            if stimuli.unread_counts:
                dataset_part.counts[split] += (
                    f", {describe_unread(stimuli.unread_counts)}"
                )
            if count < n_published:
                raise MissingData(
                    f"{dataset.name} has {count:,} of {n_published:,} {split} pictures",
                    published_files.fetch_line(dataset.name),
                )
            if stimuli.missing_error is not None:
                raise stimuli.missing_error
            for row in range(count) if checks_all else _sample_rows(count):
                if stimuli.has_pictures:
                    stimuli.open(row)
                # Annotations that are read with the pictures that have them.
                for annotation in ("masks", "labels"):
                    if getattr(stimuli, annotation):
                        stimuli.get_reader(annotation)(row)
    return dataset_part, images


def _sample_rows(count: int) -> list[int]:
    """Choose evenly spaced rows, the first and the last among them."""
    # Largest number of pictures, and of trials, that are read of a split. They
    # are evenly spaced.
    rows = np.linspace(0, max(count - 1, 0), min(count, 64)).astype(int)
    sample_rows: list[int] = np.unique(rows).tolist()
    return sample_rows


def _inspect_recordings(
    dataset: Dataset, subject: int, images: Mapping[str, StimulusSet]
) -> DatasetPart:
    """Inspect the prepared files of a subject."""
    dataset_part = DatasetPart(f"subject {subject}")
    size = 0
    with dataset_part.catch_problem():
        for split in dataset.splits:
            recording = dataset.recording(subject, split)
            size += count_bytes(recording)
            name = f"{dataset.name} subject {subject}"
            _inspect_split(dataset_part, dataset, recording, split, images, name)
    dataset_part.size = size or None
    return dataset_part


def _describe_raw_recordings(config: Any, subject: int) -> DatasetPart:
    """Describe the raw recordings of a subject, which must be prepared."""
    root = [f"preparation.root={config.root}"] if config.root else []
    error = MissingData(
        f"{config.kind} subject {subject}: raw recordings that are not prepared",
        Line("prepare", ("from", config.kind), *root),
    )
    return DatasetPart(f"subject {subject}, raw", problem=error, is_raw=True)


def _inspect_signal_store(
    path: Path, dataset: Dataset, images: Mapping[str, StimulusSet], checks_all: bool
) -> DatasetPart:
    """Inspect a signal store, and verify all of its rows on request."""
    name = f"signals {path.parent.name}/{path.stem}"
    dataset_part = DatasetPart(name, size=path.stat().st_size)
    with dataset_part.catch_problem():
        store = SignalStore.open(path)
        if checks_all:
            store.verify()
        for split, recording in store.splits.items():
            _inspect_split(dataset_part, dataset, recording, split, images, str(path))
    return dataset_part


def _inspect_split(
    dataset_part: DatasetPart,
    dataset: Dataset,
    recording: Trials,
    split: str,
    images: Mapping[str, StimulusSet],
    name: str,
) -> None:
    """Count the trials of a split, and add a problem of its pictures or values.

    Args:
        dataset_part: Part to which the count and the problem are added.
        dataset: Data set.
        recording: Trials of the split.
        split: Split.
        images: Pictures of the data set, by split.
        name: Name of the recording, for the problem.
    """
    n_stimuli = len(recording.counts)
    max_repetitions = recording.max_repetitions
    min_repetitions = int(recording.counts.min(initial=max_repetitions))
    repetitions = str(max_repetitions)
    if min_repetitions != max_repetitions:
        repetitions = f"{min_repetitions}–{max_repetitions}"
    n_shown = 0
    # Data sets that showed every picture to every subject.
    if dataset.name in ("things-eeg", "things-meg"):
        n_shown = N_PUBLISHED_PICTURES[dataset.name].get(split, 0)
    count = f"{n_stimuli:,}"
    if n_stimuli < n_shown:
        dataset_part.is_whole = False
        count += f" of {n_shown:,}"
    dataset_part.counts[split] = f"{count} × {repetitions}"

    problem = _describe_unknown_pictures(recording, split, images)
    if not problem:
        problem = _describe_bad_values(recording)
    if problem:
        dataset_part.add_problem(
            BrainhiveError(
                f"{name}, {split}: {problem}", "download it, or prepare it, again"
            )
        )


def _describe_unknown_pictures(
    recording: Trials, split: str, images: Mapping[str, StimulusSet]
) -> str:
    """Describe signals of unknown pictures, or return an empty text."""
    # missing pictures are a problem of the pictures
    if split not in images:
        return ""
    names = list(recording.pictures)
    try:
        _, unknown_names = match_names(names, list(images[split].image_ids))
    except BrainhiveError as error:
        return error.message
    if not unknown_names:
        return ""
    return (
        "signals of pictures that the data set does not have: "
        f"{summarise_names(unknown_names, len(names))}"
    )


def _describe_bad_values(recording: Trials) -> str:
    """Describe non-finite values or flat channels of some trials, or return ""."""
    rows = recording.first_trials[_sample_rows(len(recording.counts))]
    sample = np.stack([recording.signal[row] for row in rows])  # [n, C, T]
    if not np.isfinite(sample).all():
        return "values that are not finite"
    is_flat = (sample == sample[:1, :, :1]).all((0, 2))  # [C]
    if not is_flat.any() or len(sample) < 2:
        return ""
    return f"{is_flat.sum()} flat channels or voxels of {len(is_flat)}"


def _inspect_targets(
    embeddings: Path, encoder: str, images: Mapping[str, StimulusSet]
) -> DatasetPart:
    """Inspect the target stores of an encoder in all splits."""
    dataset_part = DatasetPart(f"targets {encoder}")
    size = 0
    paths = {split: embeddings / split / f"{encoder}.h5" for split in images}
    has_own_vectors = any(map(holds_own_vectors, paths.values()))
    for split, path in paths.items():
        if not path.is_file():
            command_line = build_command_line(path, has_own_vectors)
            dataset_part.add_problem(MissingData(f"no {path}", command_line))
            continue
        size += path.stat().st_size
        with dataset_part.catch_problem():
            store = TargetStore.open(path)
            dataset_part.counts[split] = f"{len(store.image_ids):,}"
            store.require_pictures(images[split].image_ids, store.command_line)
    dataset_part.size = size
    return dataset_part
