"""EEG of ImageNet's pictures that were shown in blocks of a class."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from brainhive_cli.core import parts
from brainhive_cli.core.arrays import Array, Float32, Int64
from brainhive_cli.core.damage import report_damage
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.datasets import (
    PUBLISHED_FACTS,
    ROOT_FIELD,
    Dataset,
    list_split_pictures,
)
from brainhive_cli.data.files import pickles
from brainhive_cli.data.files.hdf5 import LazyRows
from brainhive_cli.data.files.ids import to_image_id
from brainhive_cli.data.files.published_files import fetch_line, find_below, find_file
from brainhive_cli.data.media.stimuli import (
    StimulusSet,
    find_pictures,
    make_stimulus_set,
)
from brainhive_cli.data.signals.holdout import HOLDOUT_FIELD, SEPARATE_TEST, Holdout
from brainhive_cli.data.signals.spaces import Sensors
from brainhive_cli.data.signals.trials import Trials, group_trials, make_trial_reader

RATE_HZ = 1000.0
STIMULUS_MS = 500.0
"""Presentation time of each picture."""
MIN_SAMPLES = 450
MAX_SAMPLES = 600
"""Limits of the length of a segment. The authors' code of EEGCVPR40 drops others."""
ROWS_PER_BLOCK = 50
"""Number of a class's pictures that followed one another."""
TRAINING_ROWS = 30
"""First rows of each block, which the authors of EEG-ImageNet train on. The others are
their test. Source: src/object_classification.py.
"""
CLASSES_PER_GROUP = 8
"""Classes in a fine group of EEG-ImageNet. Source: src/dataset.py."""
SPLIT_KEYS = {"train": "train", "validation": "val", "test": "test"}
"""Key of each split in EEGCVPR40's file of splits."""
UNLISTED = "none"
"""Split of a row whose picture is in no split."""
IMAGE_FOLDER = "imageNet_images"
"""Folder of the pictures in the folder of EEG-ImageNet's authors."""


class BlockEeg(parts.Config):
    """Segments of EEG from files as their authors publish them.

    The order of the rows in a block is not known to be the order of time, so onsets are
    unknown.

    Attributes:
        name: Name of the data set.
        folder: Name of its folder.
        files: Patterns of the files. The first that matches a file counts.
        signal_key: Key of the signal of a row.
        split_file: File of the splits, or "" if the row in the block decides.
        first_subject: Number of the first subject in the files.
        channels: Names of the channels, or () if their order is unknown.
        splits: Splits of the recordings.
    """

    name: ClassVar[str]
    folder: ClassVar[str]
    files: ClassVar[Sequence[str]]
    signal_key: ClassVar[str]
    split_file: ClassVar[str] = ""
    first_subject: ClassVar[int] = 0
    channels: ClassVar[Sequence[str]] = ()
    splits: ClassVar[tuple[str, ...]]

    root: str = ROOT_FIELD
    file: str = Field("", description="published file; default: all parts of the set")
    samples: tuple[int, int] = Field(
        (40, 440),
        description="first sample after the onset that is kept, and the first that is "
        "not, of 1 ms each",
    )

    def build(self, paths: Paths) -> "Blocks":
        """Make the preparation. No file is read yet."""
        root = paths.dataset(self.folder, self.root)
        return Blocks(self.name, tuple(self.splits), self, root)


@dataclass(frozen=True, eq=False)
class EegSegments:
    """All n segments of published files.

    Attributes:
        paths: File [n].
        signals: Tensors [C, L], mapped from the files.
        subjects: Subject [n], from 1.
        image_ids: Picture [n], such as "n02951358/n02951358_31190".
        granularities: Granularity [n] of the class, such as "fine0", or "".
        blocks: Block [n] of the subject, from 0.
        repeats: Number [n] of earlier blocks of the class.
        splits: Split [n], or `UNLISTED`.
    """

    paths: Array
    signals: Sequence[Any]
    subjects: Int64
    image_ids: Array
    granularities: Array
    blocks: Int64
    repeats: Int64
    splits: Array


@dataclass(frozen=True)
class Blocks:
    """Segments of all subjects, which are grouped by picture when they are read."""

    dataset: str
    splits: tuple[str, ...]
    config: BlockEeg
    root: Path

    @property
    def subjects(self) -> tuple[int, ...]:
        """Subjects in the files."""
        return tuple(np.unique(self.open_segments().subjects).tolist())

    def files(self, subject: int) -> Sequence[Path]:
        """List the files with segments of a subject, or raise MissingData."""
        segments = self.open_segments()
        paths = segments.paths[segments.subjects == subject]
        if not len(paths):
            raise MissingData(
                f"{self.dataset} has no subject {subject} in {self.root}",
                f"subjects: {', '.join(map(str, self.subjects))}",
            )
        return np.unique(paths).tolist()

    def open_segments(self) -> EegSegments:
        """Open all segments. Signals stay in their files.

        Raises:
            MissingData: if a file is absent or damaged.
            BrainhiveError: if the file of splits belongs to other segments.
        """
        config = self.config
        hint = fetch_line(config.folder)
        patterns = [config.file] if config.file else list(config.files)
        present = [name for name in patterns if find_below(self.root, name)]
        pattern = (present + patterns)[0]
        folder = find_file(self.root, pattern, hint).parent
        paths = sorted(folder.glob(pattern))
        if config.split_file:
            paths.append(find_file(self.root, config.split_file, hint))
        changes = [path.stat().st_mtime_ns for path in paths]
        return _read_segments(type(config), tuple(paths), tuple(changes))

    def recording(self, subject: int, split: str) -> Trials:
        """Open the segments of a subject and split. Signals are read when sliced.

        Raises:
            MissingData: if there are no segments, or no later blocks to test.
        """
        config = self.config
        path = self.files(subject)[0]
        segments = self.open_segments()
        is_of_subject = segments.subjects == subject
        if "test" not in self.splits and not segments.repeats[is_of_subject].any():
            raise MissingData(
                f"{path} has a single block of each class of subject {subject}, so no "
                "later block can test a model",
                f"--from {config.folder}, or other subjects",
            )

        # leave out segments of other lengths, and segments in no split
        start, stop = config.samples
        shortest = max(stop, MIN_SAMPLES)
        lengths = np.array([signal.shape[1] for signal in segments.signals])
        is_kept = is_of_subject & (lengths >= shortest) & (lengths <= MAX_SAMPLES)
        is_unlisted = is_kept & (segments.splits == UNLISTED)
        dropped = {
            f"outside {shortest} to {MAX_SAMPLES} samples": is_of_subject & ~is_kept,
            "of pictures in no split": is_unlisted,
        }
        n_dropped = {reason: int(mask.sum()) for reason, mask in dropped.items()}
        rows = np.flatnonzero(is_kept & (segments.splits == split))
        if not len(rows) or not 0 <= start < stop:
            raise MissingData(
                f"{path}: subject {subject} has no {split} segment with samples "
                f"{start} to {stop}",
                "preparation.samples=[FIRST, STOP]",
            )

        def read_trial(number: int) -> Float32:
            return pickles.to_array(segments.signals[rows[number]])[:, start:stop]

        image_ids, table, counts = group_trials(segments.image_ids[rows])
        repeats = segments.repeats[rows[table]]  # [N, R]
        blocks = segments.blocks[rows[table]]
        n_channels = len(segments.signals[rows[0]])
        numbers = [f"E{number:03d}" for number in range(1, n_channels + 1)]
        shape = (n_channels, stop - start)
        read = make_trial_reader(table, shape, np.float32, read_trial)
        facts = {"dropped": n_dropped if split == "train" else {}}
        # the authors of EEGCVPR40 standardised its filtered signals
        is_standardised = path.name.endswith("_std.pth") and "raw" not in path.name
        unit = "z-score" if is_standardised else "unknown unit"
        return Trials(
            LazyRows(table.shape + shape, np.dtype(np.float32), read, path),
            image_ids.tolist(),
            Sensors(config.channels or numbers),
            np.arange(start, stop) / RATE_HZ,
            RATE_HZ,
            unit,
            {"stimulus_ms": STIMULUS_MS, "sessions": [facts]},
            repetitions=counts,
            sessions=np.where(table < 0, -1, repeats).astype(np.int8),
            runs=np.where(table < 0, -1, blocks).astype(np.int16),
        )


@lru_cache(2)
def _read_segments(
    config: type[BlockEeg], paths: tuple[Path, ...], changes: tuple[int, ...]
) -> EegSegments:
    """Read the segments of files. They are read again if a file changes.

    Args:
        config: Form of the files.
        paths: Files of the segments, then the file of the splits if there is one.
        changes: Time of change of each file.
    """
    hint = fetch_line(config.folder)
    signals: list[Any] = []
    rows = []
    n_rows_of_class = Counter[tuple[int, str]]()
    blocks_of_subject: dict[int, dict[Any, int]] = defaultdict(dict)
    for path in paths[: -1 if config.split_file else None]:
        # checksums would take as long as reading all signals
        with report_damage(path, hint):
            content = pickles.load(path, verify=False, way_out=hint)
            labels = content["labels"]
            for row in content["dataset"]:
                signals.append(row[config.signal_key])
                n_channels = len(config.channels) or len(signals[0])
                if len(signals[-1]) != n_channels:
                    raise ValueError(
                        f"a segment has {len(signals[-1])} channels, not {n_channels}"
                    )
                # EEGCVPR40 has numbers of pictures, EEG-ImageNet has names
                image = row["image"]
                if not isinstance(image, str):
                    image = content["images"][image]
                stem = to_image_id(image)
                image_id = f"{stem.partition('_')[0]}/{stem}"
                granularity = row.get("granularity", "")
                if granularity == "fine":
                    group = labels.index(row["label"]) // CLASSES_PER_GROUP
                    granularity = f"fine{group}"

                # a class has a block, or several blocks of 50 rows
                subject = int(row["subject"]) - config.first_subject + 1
                label = f"{granularity} {row['label']}"
                repeat, block_row = divmod(
                    n_rows_of_class[subject, label], ROWS_PER_BLOCK
                )
                n_rows_of_class[subject, label] += 1
                numbers = blocks_of_subject[subject]
                block = numbers.setdefault((label, repeat), len(numbers))
                rows.append(
                    (path, subject, image_id, granularity, block, repeat, block_row)
                )
            if not signals:
                raise ValueError("it has no segments")

    row_paths, subjects, image_ids, granularities, blocks, repeats, block_rows = map(
        np.array, zip(*rows, strict=True)
    )
    if config.split_file:
        splits = _read_splits(paths[-1], paths[0], image_ids)
    else:
        is_training = (block_rows < TRAINING_ROWS) | ("test" not in config.splits)
        splits = np.where(is_training, "train", "test")
    return EegSegments(
        row_paths, signals, subjects, image_ids, granularities, blocks, repeats, splits
    )


def _read_splits(path: Path, eeg_path: Path, image_ids: Array) -> Array:
    """Read the published split of each row's picture.

    Raises:
        BrainhiveError: if the splits belong to other rows.
    """
    hint = fetch_line("eegcvpr40")
    split_of: dict[str, str] = {}
    with report_damage(path, hint):
        published = pickles.load(path, way_out=hint)["splits"][0]
        for split, key in SPLIT_KEYS.items():
            rows = pickles.to_array(published[key]).astype(np.int64)
            # all rows of a picture are in the same split
            pictures = image_ids[rows[rows < len(image_ids)]].tolist()
            splits = {split_of.setdefault(picture, split) for picture in pictures}
            if len(pictures) < len(rows) or splits - {split}:
                raise BrainhiveError(
                    f"{path} splits other rows than {eeg_path} has",
                    f"use the files that were published together: {hint}",
                )
    return np.array([split_of.get(picture, UNLISTED) for picture in image_ids])


class BlockPictures(parts.Config):
    """Pictures of an ImageNet folder that were shown in blocks of a class.

    Attributes:
        name: Name of the data set.
    """

    name: ClassVar[str]

    root: str = ROOT_FIELD
    images: str = Field(
        "",
        description="folder of SYNSET/SYNSET_NUMBER.JPEG; default: "
        f"{IMAGE_FOLDER} of the data set, or train of imagenet below paths.data",
    )
    subject: int | None = Field(
        None,
        description="only the pictures of this subject, in its own splits, with stores "
        "of their own; needed if subjects saw a class in different orders",
    )
    holdout: Holdout | None = HOLDOUT_FIELD

    @property
    def classes(self) -> str:
        """Beginning of the granularity of the listed classes, or "" for all."""
        return ""

    def build(self, paths: Paths) -> Dataset:
        """Make the data set. No file is read yet."""
        labels = [self.name, self.classes, self.subject]
        name = "-".join(str(label) for label in labels if label)
        values = {"kind": self.name, "root": self.root, "file": ""}
        blocks: Blocks = parts.resolve("preparations", values).build(paths)
        people = blocks.config.folder
        # without a test split, later blocks of a class are tested
        holdout = SEPARATE_TEST
        if "test" not in blocks.splits:
            holdout = Holdout(by="sessions", test=[-1])
        list_pictures = partial(self._list_pictures, blocks, paths, name)
        return Dataset(
            name,
            blocks.splits,
            list_pictures,
            recorded_as=self.name,
            pictured_as=people,
            people=people,
            published_sizes=PUBLISHED_FACTS[people],
            holdout=self.holdout or holdout,
            files=lambda split, _: list_split_pictures(name, split, list_pictures),
        )

    def _list_pictures(
        self, blocks: Blocks, paths: Paths, name: str, split: str
    ) -> StimulusSet:
        """List the pictures of a split.

        Raises:
            MissingData: if a picture is absent, or in several splits.
        """
        segments = blocks.open_segments()
        is_listed = np.char.startswith(segments.granularities, self.classes)
        if self.subject:
            is_listed &= segments.subjects == self.subject
        is_of_split = segments.splits == split
        image_ids = np.unique(segments.image_ids[is_listed & is_of_split])
        others = segments.image_ids[is_listed & ~is_of_split]
        n_shared = int(np.isin(image_ids, others).sum())
        if n_shared:
            raise MissingData(
                f"{name}: {n_shared} {split} pictures are in another split for another "
                "subject or block",
                "dataset.subject=N lists the pictures of a single subject",
            )

        folder = find_below(blocks.root, IMAGE_FOLDER)
        folder = folder or find_below(paths.dataset("imagenet", ""), "train")
        if self.images or folder is None:
            folder = paths.dataset("imagenet", self.images)
        concepts = [image_id.partition("/")[0] for image_id in image_ids.tolist()]
        file_of = {}
        for concept in dict.fromkeys(concepts):
            for file in find_pictures(folder, concept):
                file_of[to_image_id(file)] = file
        missing_ids = sorted(set(image_ids.tolist()) - file_of.keys())
        if missing_ids:
            raise MissingData(
                f"{folder} lacks {len(missing_ids)} {split} pictures of {name}, such "
                f"as {missing_ids[0]}.JPEG",
                f"dataset.images=FOLDER of ImageNet; {fetch_line('imagenet')}",
            )
        files = [file_of[image_id] for image_id in image_ids.tolist()]
        return make_stimulus_set(name, split, folder, files, concepts)


class GradedPictures(BlockPictures):
    """Pictures of EEG-ImageNet, of all or some of its classes."""

    granularity: Literal[
        "all", "coarse", "fine", "fine0", "fine1", "fine2", "fine3", "fine4"
    ] = Field(
        "all",
        description="classes: 40 coarse ones, 40 fine ones, or a group of 8 of these",
    )

    @property
    def classes(self) -> str:
        """Beginning of the granularity of the listed classes, or "" for all."""
        return "" if self.granularity == "all" else self.granularity
