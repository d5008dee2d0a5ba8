"""What there is of a data set: pictures, recordings, signal and target stores, and what is bad in it."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from brainhive_cli.core import console
from brainhive_cli.core import parts as shelves
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.recipe import Paths
from brainhive_cli.datasets import Dataset, StimulusSet
from brainhive_cli.stores.matching import match, shown
from brainhive_cli.stores.recordings import Recording, SignalStore, size_of
from brainhive_cli.stores.target_store import TargetStore

PUBLISHED = {
    "things-eeg": {"train": 16_540, "test": 200},
    "things-meg": {"train": 19_848, "test": 200},
    "imagenet": {"train": 1_281_167, "validation": 50_000, "test": 100_000},
    "nsd": {"train": 72_000, "test": 1_000},
}
"""Pictures of each split, as their publishers say."""
SAMPLE = 64
"""Pictures of a split that are decoded, and trials that are looked at, evenly over all."""
COLUMNS = ("part", "size", "state")
"""Of the table; the splits stand in between."""
COMPLETE = "complete"


@dataclass
class Part:
    """One part of a data set.

    Attributes:
        name: Pictures, a subject's recordings, or a store.
        counts: Of each split, in words.
        size: Bytes; None where they are not counted.
        problem: The first bad thing, with a way out; MissingData if it is something that is not there.
    """

    name: str
    counts: dict[str, str] = field(default_factory=dict)
    size: int | None = None
    problem: BrainhiveError | None = None

    def note(self, error: BrainhiveError) -> None:
        """Keep an error, if it is the first."""
        self.problem = self.problem or error

    @property
    def state(self) -> str:
        """Whether it is complete, missing or bad."""
        if self.problem is None:
            return COMPLETE
        return "missing" if isinstance(self.problem, MissingData) else "bad"

    def as_dict(self) -> dict[str, Any]:
        """Give plain values, for JSON."""
        problem = self.problem.in_one_line if self.problem else ""
        return {"counts": self.counts, "bytes": self.size, "state": self.state, "problem": problem}


@dataclass(frozen=True)
class Inventory:
    """What there is of a data set.

    Attributes:
        name: Of the data set.
        splits: Its splits.
        folder: Where its files lie; None of one that is part of the package.
    """

    name: str
    splits: tuple[str, ...]
    folder: Path | None
    parts: tuple[Part, ...]

    @property
    def problems(self) -> list[str]:
        """What is bad, a line for each way out."""
        by_hint: dict[tuple[type, str], list[BrainhiveError]] = {}
        for error in (part.problem for part in self.parts if part.problem):
            by_hint.setdefault((type(error), error.hint), []).append(error)
        return [
            found[0].message
            + (f", and {len(found) - 1} more" if len(found) > 1 else "")
            + (f" ({hint})" if hint else "")
            for (_, hint), found in by_hint.items()
        ]

    @property
    def exit_code(self) -> int:
        """That of something missing, else of something bad, else 0."""
        states = {part.state for part in self.parts}
        return MissingData.exit_code if "missing" in states else BrainhiveError.exit_code * ("bad" in states)

    def as_dict(self) -> dict[str, Any]:
        """Give plain values, for JSON."""
        folder = str(self.folder) if self.folder else None
        return {"folder": folder, "parts": {part.name: part.as_dict() for part in self.parts}}

    def table(self) -> console.Table:
        """Show a line a part."""
        rows = [
            (
                part.name,
                *(part.counts.get(split, "–") for split in self.splits),
                "–" if part.size is None else console.size(part.size),
                part.state,
            )
            for part in self.parts
        ]
        where = f" in {self.folder}" if self.folder else ""
        columns = (COLUMNS[0], *self.splits, *COLUMNS[1:])
        return console.Table(f"{self.name}{where}", columns, tuple(rows))


def take(config: Any, paths: Paths, subjects: Sequence[int] | None, everything: bool = False) -> Inventory:
    """List what there is of a data set, and look for what is bad in it.

    Args:
        config: Of the data set.
        paths: Where everything lies.
        subjects: Whose recordings; all when None.
        everything: Decode every picture and verify every row of signal stores, not some.
    """
    folder = paths.dataset(config.kind.replace("_", "-"), config.root) if hasattr(config, "root") else None
    try:
        dataset: Dataset = config.build(paths)
    except MissingData as error:
        part = Part("pictures")
        part.note(error)
        return Inventory(config.kind.replace("_", "-"), (), folder, (part,))
    pictures, images = _pictures(dataset, folder, everything)
    signals = paths.under_home("signals") / dataset.recorded_as
    chosen = dataset.subjects if subjects is None else subjects
    stores = {subject: sorted(signals.glob(f"*/sub-{subject:02d}.h5")) for subject in chosen}
    parts = [pictures]
    for subject in () if dataset.is_simulated else chosen:
        part = _recordings(dataset, subject, images)
        if part.state == "missing" and stores[subject]:  # which is all that is needed
            continue
        if part.state == "missing" and (raw := _raw(config, paths, subject)):
            part = raw
        parts.append(part)
    for path in (path for found in stores.values() for path in found):
        parts.append(_signal_store(path, images, everything))
    embeddings = paths.under_home("embeddings") / dataset.name
    encoders = sorted({path.stem for split in dataset.splits for path in (embeddings / split).glob("*.h5")})
    parts += [_targets(embeddings, encoder, images) for encoder in encoders]
    return Inventory(dataset.name, dataset.splits, folder, tuple(parts))


def _pictures(dataset: Dataset, folder: Path | None, everything: bool) -> tuple[Part, dict[str, StimulusSet]]:
    part, images = Part("pictures"), {}
    expected = PUBLISHED.get(dataset.name, {})
    for split in dataset.splits:
        try:
            images[split] = found = dataset.images(split)
            least = expected.get(split, 0)
            part.counts[split] = f"{len(found):,}" + (f" of {least:,}" if len(found) < least else "")
            if len(found) < least:
                raise MissingData(
                    f"{dataset.name} has {len(found):,} of {least:,} {split} pictures", _way(dataset)
                )
            for index in range(len(found)) if everything else _some(len(found)):
                found.open(index)
        except BrainhiveError as error:
            part.note(error)
    if folder and folder.is_dir():
        part.size = sum(_bytes_below(folder))
    return part, images


def _way(dataset: Dataset) -> str:
    return f"brainhive fetch {dataset.name}"


def _some(count: int) -> list[int]:
    """Choose rows evenly, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, SAMPLE)).astype(int)).tolist() if count else []


def _bytes_below(folder: Path) -> list[int]:
    return [
        os.stat(os.path.join(here, name)).st_size
        for here, _, names in os.walk(folder, followlinks=True)
        for name in names
        if os.path.exists(os.path.join(here, name))
    ]


def _recordings(dataset: Dataset, subject: int, images: Mapping[str, StimulusSet]) -> Part:
    """Open a subject's files: their axes, some trials, and whether pictures match."""
    part = Part(f"subject {subject}", size=0)
    try:
        dataset.require(subject)
        for split in dataset.splits:
            recording = dataset.recording(subject, split)
            part.size = (part.size or 0) + size_of(recording)
            _look(part, recording, split, images, f"{dataset.name} subject {subject}")
    except BrainhiveError as error:
        part.note(error)
        part.size = part.size or None
    return part


def _raw(config: Any, paths: Paths, subject: int) -> Part | None:
    """Count the trials of a subject's raw recordings; None where there are none that `prepare` reads."""
    if config.kind not in shelves.kinds("preparations"):
        return None
    section = {"kind": config.kind, "root": config.root}
    raw = shelves.resolve("preparations", section).build(paths)
    part = Part(f"subject {subject}, raw")
    try:
        if subject not in raw.subjects:
            return None
        part.size = sum(path.stat().st_size for path in raw.files(subject))
        shapes = [raw.shapes(subject, session) for session in raw.sessions(subject)]
        for split in dict.fromkeys(split for each in shapes for split in each):
            part.counts[split] = f"{sum(each[split][0] for each in shapes if split in each):,} trials"
        kind = config.kind.replace("_", "-")
        where = f" preparation.root={config.root}" if config.root else ""
        hint = f"brainhive prepare --from {kind}{where}"
        part.note(MissingData(f"{kind} subject {subject}: raw recordings that are not prepared", hint))
    except BrainhiveError as error:
        part.note(error)
    return part


def _signal_store(path: Path, images: Mapping[str, StimulusSet], everything: bool) -> Part:
    part = Part(f"signals {path.parent.name}/{path.stem}", size=path.stat().st_size)
    try:
        store = SignalStore.open(path)
        if everything:
            store.verify()
        for split, recording in store.splits.items():
            _look(part, recording, split, images, str(path))
    except BrainhiveError as error:
        part.note(error)
    return part


def _look(
    part: Part, recording: Recording, split: str, images: Mapping[str, StimulusSet], where: str
) -> None:
    """Count the trials of a split, and note unknown pictures, values that are not finite, flat channels."""
    stimuli, most = recording.signal.shape[:2]
    least = most if recording.repetitions is None else int(np.min(recording.repetitions, initial=most))
    part.counts[split] = f"{stimuli:,} × {most if least == most else f'{least}–{most}'}"
    for problem in (_unknown_pictures, _bad_values):
        if text := problem(recording, split, images):
            part.note(BrainhiveError(f"{where}, {split}: {text}", "download it, or prepare it, again"))


def _unknown_pictures(recording: Recording, split: str, images: Mapping[str, StimulusSet]) -> str:
    if split not in images:  # whose own line says so
        return ""
    names = list(recording.image_ids)
    try:
        unknown = match(names, list(images[split].image_ids), each_once=False).unknown
    except BrainhiveError as error:
        return error.message
    if not unknown:
        return ""
    for other, found in images.items():
        if other != split and not match(unknown, list(found.image_ids), each_once=False).unknown:
            return f"its pictures are those of {other}: {shown(unknown, len(names))}"
    return f"signals of pictures that the data set does not have: {shown(unknown, len(names))}"


def _bad_values(recording: Recording, split: str, images: Mapping[str, StimulusSet]) -> str:
    rows = np.stack(
        [np.asarray(recording.signal[row][0], np.float32) for row in _some(len(recording.image_ids))]
    )
    if not np.isfinite(rows).all():
        return "values that are not finite"
    is_flat = (rows == rows[:1, :, :1]).all(axis=(0, 2))  # [C]
    return (
        f"{is_flat.sum()} flat channels or voxels of {len(is_flat)}"
        if is_flat.any() and len(rows) > 1
        else ""
    )


def _targets(embeddings: Path, encoder: str, images: Mapping[str, StimulusSet]) -> Part:
    part = Part(f"targets {encoder}", size=0)
    for split, found in images.items():
        path = embeddings / split / f"{encoder}.h5"
        if not path.is_file():
            part.note(MissingData(f"no {path}", f"brainhive embed --splits {split} --encoders {encoder}"))
            continue
        part.size = (part.size or 0) + path.stat().st_size
        try:
            store = TargetStore.open(path)
            part.counts[split] = f"{len(store.image_ids):,}"
            store.refuse_other_pictures(found.image_ids, f"brainhive embed --encoders {encoder}")
        except BrainhiveError as error:
            part.note(error)
    return part
