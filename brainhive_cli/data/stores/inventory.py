"""Inventory of a data set: pictures, raw and prepared recordings, stores, and what is
bad in it.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np

from brainhive_cli.core import console, parts
from brainhive_cli.core.errors import BrainhiveError, Line, MissingData
from brainhive_cli.core.recipe import Paths
from brainhive_cli.core.tables import Table
from brainhive_cli.data.datasets import PUBLISHED_FACTS, Dataset, describe_test_claims
from brainhive_cli.data.files import published_files
from brainhive_cli.data.files.ids import match_names, summarise_names
from brainhive_cli.data.media.stimuli import StimulusSet, describe_unread
from brainhive_cli.data.signals.trials import Trials
from brainhive_cli.data.stores.recordings import list_recorded_subjects
from brainhive_cli.data.stores.signal_store import SignalStore, count_bytes
from brainhive_cli.data.stores.target_store import (
    TargetStore,
    build_command_line,
    holds_own_vectors,
)

N_PUBLISHED_PICTURES = {
    name: published.stimuli for name, published in PUBLISHED_FACTS.items()
}
"""Pictures of each split, as their publishers say."""
SHOWN_TO_ALL = ("things-eeg", "things-meg")
"""Data sets each of whose subjects saw all of these pictures."""
ANNOTATIONS: Sequence[Literal["masks", "labels"]] = ("masks", "labels")
"""Annotations that are checked with the pictures that have them."""
MAX_SAMPLED_ITEMS = 64
"""Pictures of a split that are decoded, and trials that are looked at, evenly over
all.
"""


@dataclass
class DatasetPart:
    """One part of a data set.

    Attributes:
        name: Pictures, a subject's recordings, or a store.
        counts: Of each split, in words.
        size: Bytes; None where they are not counted.
        problem: The first problem, with a way out; MissingData if it is something
            that is not there.
        is_whole: Whether all is there that the publisher has of it; less may be wanted.
        is_raw: Whether it has to be prepared first.
    """

    name: str
    counts: dict[str, str] = field(default_factory=dict)
    size: int | None = None
    problem: BrainhiveError | None = None
    is_whole: bool = True
    is_raw: bool = False

    def add_problem(self, error: BrainhiveError) -> None:
        """Keep an error, if it is the first."""
        self.problem = self.problem or error

    @contextmanager
    def catch_problem(self) -> Iterator[None]:
        """Keep the error, if it is the first, that ends the block."""
        try:
            yield
        except BrainhiveError as error:
            self.add_problem(error)

    @property
    def state(self) -> str:
        """Whether it is complete, partial, not prepared, missing or bad."""
        if self.problem is None:
            return "complete" if self.is_whole else "partial"
        if not isinstance(self.problem, MissingData):
            return "bad"
        return "not prepared" if self.is_raw else "missing"


def inspect_dataset(
    config: Any, paths: Paths, subjects: Sequence[int] | None, checks_all: bool = False
) -> tuple[str, dict[str, Any], list[BrainhiveError], Table]:
    """List what there is of a data set, and look for what is bad in it.

    Args:
        config: Of the data set.
        paths: Where everything lies.
        subjects: Whose recordings; all when None.
        checks_all: Decode every picture and verify every row of signal stores, not
            some.

    Returns:
        Name of the data set, its parts in plain values, problems, and a table with a
        line a part.
    """
    # a data set that cannot be built has missing pictures
    folder = (
        paths.dataset(config.kind, config.root) if hasattr(config, "root") else None
    )
    splits: tuple[str, ...] = ()
    try:
        dataset: Dataset = config.build(paths)
    except MissingData as error:
        name = config.kind
        claims = ""
        listed = [DatasetPart("pictures", problem=error)]
    else:
        name = dataset.name
        splits = dataset.splits
        listed, claims = _list_parts(config, dataset, paths, subjects, checks_all)

    # one error for each kind and way out, as one command repairs them all
    problems_of_hint: dict[tuple[type[BrainhiveError], str], list[BrainhiveError]] = {}
    for problem in (part.problem for part in listed if part.problem):
        kind = MissingData if isinstance(problem, MissingData) else BrainhiveError
        problems_of_hint.setdefault((kind, problem.hint), []).append(problem)
    errors = []
    for (kind, hint), problems in problems_of_hint.items():
        rest = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
        errors.append(kind(problems[0].message + rest, hint))

    # a line a part, and the same in plain values
    rows = []
    described = {}
    for part in listed:
        counts = (part.counts.get(split, "–") for split in splits)
        size = "–" if part.size is None else console.size(part.size)
        rows.append((part.name, *counts, size, part.state))
        described[part.name] = {
            "counts": part.counts,
            "bytes": part.size,
            "state": part.state,
            "problem": part.problem.in_one_line if part.problem else "",
        }
    title = (
        name + (f" in {folder}" if folder else "") + (f"; {claims}" if claims else "")
    )
    return (
        name,
        {
            "folder": str(folder) if folder else None,
            "claims": claims,
            "parts": described,
        },
        errors,
        Table(title, ("part", *splits, "size", "state"), rows),
    )


def _list_parts(
    config: Any,
    dataset: Dataset,
    paths: Paths,
    subjects: Sequence[int] | None,
    checks_all: bool,
) -> tuple[list[DatasetPart], str]:
    """List pictures, recordings and stores, and say which statements the test split
    will allow.
    """
    # pictures, and the subjects with recordings, raw or prepared
    pictures, images = _inspect_pictures(dataset, checks_all)
    signals = paths.under_home("signals") / dataset.recorded_as
    # of recordings that `prepare` reads, if it reads any of this data set
    raw_subjects = ()
    if config.kind in parts.list_kinds("preparations"):
        raw = parts.resolve("preparations", {"kind": config.kind, "root": config.root})
        raw_subjects = raw.build(paths).subjects
    known = sorted({*list_recorded_subjects(dataset, paths), *raw_subjects})
    chosen = known if subjects is None else subjects
    stores = {
        subject: sorted(signals.glob(f"*/sub-{subject:02d}.h5")) for subject in chosen
    }

    # recordings of each subject: prepared files, else raw ones
    listed = [pictures]
    for subject in () if dataset.is_simulated else chosen:
        part = _inspect_recordings(dataset, subject, images)
        if part.state == "missing" and stores[subject]:  # which is all that is needed
            continue
        if part.state == "missing" and subject in raw_subjects:
            root = [f"preparation.root={config.root}"] if config.root else []
            problem = (
                f"{config.kind} subject {subject}: raw recordings that are not prepared"
            )
            error = MissingData(problem, Line("prepare", ("from", config.kind), *root))
            part = DatasetPart(f"subject {subject}, raw", problem=error, is_raw=True)
        listed.append(part)

    # signal stores, then target stores of each encoder
    for path in chain(*stores.values()):
        part = DatasetPart(
            f"signals {path.parent.name}/{path.stem}", size=path.stat().st_size
        )
        with part.catch_problem():
            store = SignalStore.open(path)
            if checks_all:
                store.verify()
            for split, recording in store.splits.items():
                _inspect_split(part, dataset, recording, split, images, str(path))
        listed.append(part)
    embeddings = paths.under_home("embeddings") / dataset.name
    files = chain(*((embeddings / split).glob("*.h5") for split in dataset.splits))
    encoders = sorted({path.stem for path in files})
    listed += [_inspect_targets(embeddings, encoder, images) for encoder in encoders]
    return listed, describe_test_claims(dataset, len(chosen))


def _inspect_pictures(
    dataset: Dataset, checks_all: bool
) -> tuple[DatasetPart, dict[str, StimulusSet]]:
    part = DatasetPart("pictures")
    images = {}
    # count the pictures, compare with the publisher's count, and decode them
    for split in dataset.splits:
        with part.catch_problem():
            images[split] = stimuli = dataset.images(split)
            count = len(stimuli)
            least = N_PUBLISHED_PICTURES.get(dataset.name, {}).get(split, 0)
            part.counts[split] = f"{count:,}"
            if count < least:
                part.counts[split] += f" of {least:,}"
            if stimuli.unread_counts:
                part.counts[split] += f", {describe_unread(stimuli.unread_counts)}"
            if count < least:
                raise MissingData(
                    f"{dataset.name} has {count:,} of {least:,} {split} pictures",
                    published_files.fetch_line(dataset.name),
                )
            if stimuli.missing_error is not None:
                raise stimuli.missing_error
            # all pictures and annotations, or some, evenly over the split
            for index in range(count) if checks_all else _sample_rows(count):
                if stimuli.has_pictures:
                    stimuli.open(index)
                for what in ANNOTATIONS:
                    if getattr(stimuli, what):
                        stimuli.get_reader(what)(index)

    return part, images


def _sample_rows(count: int) -> list[int]:
    """Choose rows evenly, the first and the last among them."""
    rows = np.linspace(0, max(count - 1, 0), min(count, MAX_SAMPLED_ITEMS)).astype(int)
    return [int(row) for row in np.unique(rows)]


def _inspect_recordings(
    dataset: Dataset, subject: int, images: Mapping[str, StimulusSet]
) -> DatasetPart:
    """Open a subject's files: their axes, some trials, and whether pictures match."""
    part = DatasetPart(f"subject {subject}")
    size = 0
    with part.catch_problem():
        for split in dataset.splits:
            recording = dataset.recording(subject, split)
            size += count_bytes(recording)
            where = f"{dataset.name} subject {subject}"
            _inspect_split(part, dataset, recording, split, images, where)
    part.size = size or None
    return part


def _inspect_split(
    part: DatasetPart,
    dataset: Dataset,
    recording: Trials,
    split: str,
    images: Mapping[str, StimulusSet],
    where: str,
) -> None:
    """Count the trials of a split, and note unknown pictures, values that are not
    finite, flat channels.
    """
    stimuli, most = recording.signal.shape[:2]
    least = int(recording.counts.min(initial=most))
    # fewer pictures than every subject saw: a partial recording
    shown = (
        N_PUBLISHED_PICTURES[dataset.name].get(split, 0)
        if dataset.name in SHOWN_TO_ALL
        else 0
    )
    part.is_whole &= stimuli >= shown
    of = f" of {shown:,}" if stimuli < shown else ""
    part.counts[split] = (
        f"{stimuli:,}{of} × {most if least == most else f'{least}–{most}'}"
    )
    # unknown pictures come before bad values
    if text := _describe_unknown_pictures(
        recording, split, images
    ) or _describe_bad_values(recording):
        part.add_problem(
            BrainhiveError(
                f"{where}, {split}: {text}", "download it, or prepare it, again"
            )
        )


def _describe_unknown_pictures(
    recording: Trials, split: str, images: Mapping[str, StimulusSet]
) -> str:
    if split not in images:  # whose own line says so
        return ""
    names = list(recording.image_ids)
    try:
        _, unknown = match_names(names, list(images[split].image_ids))
    except BrainhiveError as error:
        return error.message
    if not unknown:
        return ""
    return (
        "signals of pictures that the data set does not have: "
        f"{summarise_names(unknown, len(names))}"
    )


def _describe_bad_values(recording: Trials) -> str:
    # trials evenly over the recording
    rows = _sample_rows(len(recording.image_ids))
    sample = np.stack([recording.signal[row][0] for row in rows])  # [n, C, T]
    if not np.isfinite(sample).all():
        return "values that are not finite"
    # one value in all of these trials
    is_flat = (sample == sample[:1, :, :1]).all((0, 2))  # [C]
    if not is_flat.any() or len(sample) < 2:
        return ""
    return f"{is_flat.sum()} flat channels or voxels of {len(is_flat)}"


def _inspect_targets(
    embeddings: Path, encoder: str, images: Mapping[str, StimulusSet]
) -> DatasetPart:
    part = DatasetPart(f"targets {encoder}")
    size = 0
    # vectors of a lab's own are made by another line than embeddings
    is_own = any(
        holds_own_vectors(embeddings / split / f"{encoder}.h5") for split in images
    )
    for split, stimuli in images.items():
        path = embeddings / split / f"{encoder}.h5"
        if not path.is_file():
            part.add_problem(
                MissingData(f"no {path}", build_command_line(path, is_own))
            )
            continue
        size += path.stat().st_size
        with part.catch_problem():
            store = TargetStore.open(path)
            part.counts[split] = f"{len(store.image_ids):,}"
            store.require_pictures(stimuli.image_ids, store.command_line)
    part.size = size
    return part
