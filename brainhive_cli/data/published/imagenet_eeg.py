"""EEG of ImageNet's pictures that were shown in blocks of a class."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, field_validator

from brainhive_cli.core.base import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.files import report_damage
from brainhive_cli.core.recipes import Paths, parts
from brainhive_cli.data.datasets import (
    PUBLISHED_FACTS,
    ROOT_FIELD,
    Dataset,
    list_split_pictures,
)
from brainhive_cli.data.files import (
    LazyRows,
    fetch_line,
    find_below,
    find_file,
    pickles,
    to_image_id,
)
from brainhive_cli.data.media import StimulusSet, find_pictures, make_stimulus_set
from brainhive_cli.data.recordings import MergedPreparation
from brainhive_cli.data.signals import (
    HOLDOUT_FIELD,
    SEPARATE_TEST,
    Holdout,
    Sensors,
    Trials,
    group_trials,
    make_trial_reader,
)

IMAGE_FOLDER = "imageNet_images"
"""Name of the folder of pictures in the code of EEG-ImageNet's authors."""


class BlockEeg(parts.Config):
    """Segments of EEG in the files that their authors publish.

    Onsets are unknown, because the rows of a block may not be in the order of time.

    Attributes:
        folder: Name of the folder of the data set.
        files: Patterns of the files. The first that matches a file counts.
        signal_key: Key of the signal in a row.
        split_file: File of the splits, or "" if the first rows of a block are for
            training.
        first_subject: Number of the first subject in the files.
        channels: Names of the channels, or () if their order is unknown.
        classes: Beginning of the granularity of the classes, or "" for all classes.
        splits: Splits of the recordings.
    """

    folder: ClassVar[str]
    files: ClassVar[Sequence[str]]
    signal_key: ClassVar[str]
    split_file: ClassVar[str] = ""
    first_subject: ClassVar[int] = 0
    channels: ClassVar[Sequence[str]] = ()
    classes: ClassVar[str] = ""
    splits: ClassVar[tuple[str, ...]]

    root: str = ROOT_FIELD
    file: str = Field("", description="published file; default: all parts of the set")
    samples: tuple[int, int] = Field(
        (40, 440),
        description="window in samples of 1 ms after the onset: its first sample, and "
        "the first sample after it",
    )

    @field_validator("samples")
    @classmethod
    def _check_samples(cls, samples: tuple[int, int]) -> tuple[int, int]:
        if not 0 <= samples[0] < samples[1]:
            raise RecipeError(
                f"samples is {list(samples)}", "[FIRST, STOP] with 0 ≤ FIRST < STOP"
            )
        return samples

    def build(self, paths: Paths) -> "Blocks":
        """Make the preparation. No file is read yet."""
        root = paths.dataset(self.folder, self.root)
        return Blocks(self.kind, self.splits, self, root)


@dataclass
class Segment:
    """EEG of a picture in a block.

    Attributes:
        path: File.
        signal: Tensor [C, L], mapped from the file.
        subject: Subject, from 1.
        image_id: Picture, such as "n02951358/n02951358_31190".
        granularity: Granularity of its class, such as "coarse", or "".
        block: Name of the block.
        repeat: Number of earlier blocks of the class.
        split: Split of its picture, or "" if it is in none.
    """

    path: Path
    signal: Any
    subject: int
    image_id: str
    granularity: str
    block: str
    repeat: int
    split: str


@dataclass(frozen=True)
class Blocks(MergedPreparation):
    """Segments of all subjects, which are grouped by picture when they are read.

    Attributes:
        dataset: Name of the data set of the pictures.
        splits: Splits of the recordings.
        config: Form of the files, and keys.
        root: Folder of the files.
        verifies: True if the checksums of the signals are verified.
    """

    dataset: str
    splits: tuple[str, ...]
    config: BlockEeg
    root: Path
    verifies: bool = True

    @cached_property
    def segments(self) -> Sequence[Segment]:
        """All segments of the classes. Signals are not read.

        Raises:
            MissingData: if a file is absent or damaged.
            BrainhiveError: if the file of splits belongs to other segments.
        """
        config = self.config
        hint = fetch_line(config.folder)
        patterns = [config.file] if config.file else config.files
        find_pattern = partial(find_below, self.root)
        pattern = next(filter(find_pattern, patterns), patterns[0])
        folder = find_file(self.root, pattern, hint).parent
        paths = sorted(folder.glob(pattern))
        segments = _read_segments(paths, config, self.verifies)
        if config.split_file:
            _set_splits(segments, find_file(self.root, config.split_file, hint))
        classes = config.classes
        return [item for item in segments if item.granularity.startswith(classes)]

    @property
    def subjects(self) -> tuple[int, ...]:
        """Subjects in the files."""
        return tuple(sorted({segment.subject for segment in self.segments}))

    def files(self, subject: int) -> Sequence[Path]:
        """List the files with segments of a subject, or raise MissingData."""
        paths = {segment.path for segment in self._find_segments(subject)}
        if self.config.split_file:
            hint = fetch_line(self.config.folder)
            paths.add(find_file(self.root, self.config.split_file, hint))
        return sorted(paths)

    def recording(self, subject: int, split: str) -> Trials:
        """Open the segments of a subject and split. Signals are read when sliced.

        Raises:
            MissingData: if there are no segments, or no later blocks to test.
        """
        config = self.config
        segments = self._find_segments(subject)
        path = segments[0].path
        has_later_blocks = any(segment.repeat for segment in segments)
        if "test" not in self.splits and not has_later_blocks:
            raise MissingData(
                f"{path} has a single block of each class of subject {subject}, so no "
                "later block can test a model",
                f"--from {config.folder}, or other subjects",
            )

        # leave out segments of other lengths, and segments in no split
        start, stop = config.samples
        # limits of the length of a segment, as in the code of EEGCVPR40's authors
        shortest, longest = max(stop, 450), 600
        kept = []
        dropped = Counter[str]()
        for segment in segments:
            if not shortest <= segment.signal.shape[1] <= longest:
                dropped[f"outside {shortest} to {longest} samples"] += 1
            elif not segment.split:
                dropped["of pictures in no split"] += 1
            elif segment.split == split:
                kept.append(segment)
        if not kept:
            longest = max(segment.signal.shape[1] for segment in segments)
            raise MissingData(
                f"{path}: subject {subject} has no {split} segment with samples "
                f"{start} to {stop}",
                f"preparation.samples=[FIRST, STOP] with STOP at most {longest}",
            )

        names = np.array([segment.image_id for segment in kept])
        order, counts = group_trials(names)
        # number the blocks in the order of the file
        blocks = list(dict.fromkeys(segment.block for segment in segments))
        repeats = np.array([segment.repeat for segment in kept], np.int8)
        numbers = np.array([blocks.index(segment.block) for segment in kept], np.int16)
        signals = [segment.signal[:, start:stop] for segment in kept]
        n_channels = len(signals[0])
        channels = [f"E{number:03d}" for number in range(1, n_channels + 1)]
        shape = (n_channels, stop - start)
        read = make_trial_reader(
            order, shape, np.float32, lambda number: pickles.to_array(signals[number])
        )
        # a single split lists the segments that were left out
        facts = {"dropped": dropped} if split == "train" else {}
        # the authors of EEGCVPR40 standardised its filtered signals
        is_standardised = path.match("eeg_[0-9]*_std.pth")
        rate_hz = 1000.0
        # Presentation time of each picture.
        stimulus_ms = 500.0
        return Trials(
            LazyRows((len(kept), *shape), np.dtype(np.float32), read, path),
            names[order].tolist(),
            Sensors(config.channels or channels),
            np.arange(start, stop) / rate_hz,
            rate_hz,
            "z-score" if is_standardised else "unknown unit",
            {"stimulus_ms": stimulus_ms, "sessions": [facts]},
            repetitions=counts,
            sessions=repeats[order],
            runs=numbers[order],
        )

    def _find_segments(self, subject: int) -> list[Segment]:
        """Find the segments of a subject, or raise MissingData."""
        segments = [item for item in self.segments if item.subject == subject]
        if not segments:
            raise MissingData(
                f"{self.dataset} has no subject {subject} in {self.root}",
                f"subjects: {', '.join(map(str, self.subjects)) or 'none'}",
            )
        return segments


def _read_segments(
    paths: Sequence[Path], config: BlockEeg, verifies: bool
) -> list[Segment]:
    """Read the segments of files. The first rows of each block are for training."""
    hint = fetch_line(config.folder)
    segments = []
    n_channels = len(config.channels)
    n_rows = Counter[str]()
    for path in paths:
        with report_damage(path, hint):
            content = pickles.load(path, verify=verifies, way_out=hint)
            for row in content["dataset"]:
                signal = row[config.signal_key]
                channels, _ = signal.shape
                n_channels = n_channels or channels
                if channels != n_channels:
                    raise ValueError(
                        f"a segment has {channels} channels, not {n_channels}"
                    )
                # EEGCVPR40 has numbers of pictures, EEG-ImageNet has names
                image = row["image"]
                if not isinstance(image, str):
                    if image < 0:  # a list counts it from its end
                        raise ValueError(f"a segment shows the picture {image}")
                    image = content["images"][image]
                stem = to_image_id(image)
                granularity = str(row.get("granularity", ""))

                # a class has a block, or several blocks of 50 rows
                subject = int(row["subject"]) - config.first_subject + 1
                label = f"{subject} {granularity} {row['label']}"
                # Number of a class's pictures that followed one another.
                repeat, block_row = divmod(n_rows[label], 50)
                n_rows[label] += 1
                # Number of rows at the start of each block that the
                # authors of EEG-ImageNet train on. They test on the other
                # rows. Source: src/object_classification.py.
                is_test = "test" in config.splits and block_row >= 30
                segment = Segment(
                    path,
                    signal,
                    subject,
                    f"{stem.partition('_')[0]}/{stem}",
                    granularity,
                    f"{label} {repeat}",
                    repeat,
                    "test" if is_test else "train",
                )
                segments.append(segment)
            if not segments:
                raise ValueError("it has no segments")
    return segments


def _set_splits(segments: Sequence[Segment], path: Path) -> None:
    """Set the split of each segment to the published split of its picture.

    Raises:
        BrainhiveError: if the splits belong to other segments.
    """
    hint = fetch_line("eegcvpr40")
    split_of: dict[str, str] = {}
    with report_damage(path, hint):
        published = pickles.load(path, way_out=hint)["splits"][0]
        # Key of each split in EEGCVPR40's file of splits.
        split_keys = {"train": "train", "validation": "val", "test": "test"}
        for split, key in split_keys.items():
            for row in published[key]:
                # all segments of a picture are in the same split
                is_alike = row < len(segments) and split == split_of.setdefault(
                    segments[row].image_id, split
                )
                if not is_alike:
                    raise BrainhiveError(
                        f"{path} does not fit the rows of {segments[0].path}",
                        f"use the files that were published together: {hint}",
                    )
    for segment in segments:
        segment.split = split_of.get(segment.image_id, "")


class BlockPictures(parts.Config):
    """Pictures of an ImageNet folder that were shown in blocks of a class."""

    root: str = ROOT_FIELD
    images: str = Field(
        "",
        description="folder of SYNSET/SYNSET_NUMBER.JPEG; default: "
        f"{IMAGE_FOLDER} of the data set, or train of imagenet below paths.data",
    )
    subject: int | None = Field(
        None,
        description="only the pictures and splits of this subject, embedded "
        "separately; needed if subjects saw the pictures of a class in other orders",
    )
    holdout: Holdout | None = HOLDOUT_FIELD

    def build(self, paths: Paths) -> Dataset:
        """Make the data set. No file is read yet."""
        name = f"{self.kind}-{self.subject}" if self.subject else self.kind
        values = {"kind": self.kind, "root": self.root, "file": ""}
        preparation = parts.resolve("preparations", values).build(paths)
        # verifying all signals would take as long as reading them
        blocks = replace(preparation, verifies=False)
        people = blocks.config.folder
        list_pictures = partial(self._list_pictures, blocks, paths, name)
        return Dataset(
            name,
            blocks.splits,
            list_pictures,
            recorded_as=self.kind,
            pictured_as=people,
            people=people,
            published_sizes=PUBLISHED_FACTS[people],
            holdout=self.holdout or SEPARATE_TEST,
            files=lambda split, _: list_split_pictures(name, split, list_pictures),
        )

    def _list_pictures(
        self, blocks: Blocks, paths: Paths, name: str, split: str
    ) -> StimulusSet:
        """List the pictures of a split.

        Raises:
            MissingData: if a picture is absent, or in several splits.
        """
        image_ids = set[str]()
        other_ids = set[str]()
        for segment in blocks.segments:
            if self.subject in (None, segment.subject):
                ids = image_ids if segment.split == split else other_ids
                ids.add(segment.image_id)
        n_shared = len(image_ids & other_ids)
        if n_shared:
            raise MissingData(
                f"{name}: {n_shared} {split} pictures are in another split for another "
                "subject or block",
                "dataset.subject=N lists the pictures of a single subject",
            )

        folder = imagenet = paths.dataset("imagenet", self.images)
        if not self.images:
            own_folder = find_below(blocks.root, IMAGE_FOLDER)
            folder = own_folder or find_below(imagenet, "train") or imagenet
        file_of = {}
        for concept in {image_id.partition("/")[0] for image_id in image_ids}:
            for file in find_pictures(folder, concept):
                file_of[to_image_id(file)] = file
        missing_ids = sorted(image_ids - file_of.keys())
        if missing_ids:
            raise MissingData(
                f"{folder} lacks {len(missing_ids)} {split} pictures of {name}, such "
                f"as {missing_ids[0]}.JPEG",
                f"put them into {blocks.root}/{IMAGE_FOLDER}/SYNSET, or set "
                f"dataset.images=FOLDER of ImageNet ({fetch_line('imagenet')})",
            )
        files = [file_of[image_id] for image_id in sorted(image_ids)]
        concepts = [file.partition("/")[0] for file in files]
        return make_stimulus_set(name, split, folder, files, concepts)
