"""Reconstructions on disk, compared with their stimuli batch by batch, item by item and on the whole."""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from math import isnan
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brainhive_cli.core import console
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import Metric, scope
from brainhive_cli.data.media import media_files
from brainhive_cli.data.media.media_files import to_media
from brainhive_cli.evaluation.reconstruction.annotations import Annotation, TaskScores
from brainhive_cli.evaluation.reconstruction.metric_parts import scale_of
from brainhive_cli.measurement.metric_names import lower_is_better
from brainhive_cli.measurement.metrics import MetricPart
from brainhive_cli.measurement.metrics.image import prepare
from brainhive_cli.measurement.metrics.tasks import RECALL, SCALES
from brainhive_cli.measurement.metrics.video import FRAME_PX
from brainhive_cli.measurement.statistics import measure
from brainhive_cli.measurement.units import Alike

READERS = 4
"""Threads that decode media while others are compared."""
Open = Callable[[], Any]
"""Opens a picture or a clip."""
Features = Callable[..., Tensor]
Values = NDArray[np.float64]
TRUTH = "truth"
"""The source of values that describe the stimuli themselves."""


@dataclass(frozen=True)
class Stimuli:
    """What was seen, by image id: functions that open a picture or a clip, and say what it shows.

    `alike` says which are.
    """

    open: Callable[[str], Any]
    label: Callable[[str], str]
    annotation: Callable[[str], Annotation] = lambda image_id: Annotation()
    alike: Alike = field(default_factory=Alike)


@dataclass(frozen=True)
class GeneratedSet:
    """The reconstructions of one cell and subject, from one source.

    Attributes:
        source: Where they come from.
        name: Of the cell and subject; that of other sources than `brain` starts with the source.
        seeds: Of the training.
        files: Image id to the files of its repeats.
        subject: Whose signals; None if there are none.
        described: How they were made, in words that travel with their metrics.
        open: Opens a file.
        annotations: What was decoded in words and masks, by image id, where anything was.
        tasks: How well these are the stimuli's, item by item.
    """

    source: str
    name: str
    seeds: tuple[int, ...]
    files: Mapping[str, Sequence[Path]]
    subject: int | None = None
    described: str = ""
    open: Callable[[Path], Any] = media_files.read
    annotations: Mapping[str, Annotation] = field(default_factory=dict)
    tasks: TaskScores = field(default_factory=TaskScores)

    @property
    def title(self) -> str:
        """The cell and subject for people; a cell's name that starts with the subject is enough."""
        name = "" if self.name == self.source else self.name.removeprefix(f"{self.source}/")
        cell, _, subject = name.rpartition("/")
        return cell if cell and cell.rpartition("/")[2].startswith(subject) else name

    @property
    def scope(self) -> str:
        """What its metrics are of, as `brain · sub-01_seed-1`."""
        return scope(self.source, self.title)

    @property
    def media(self) -> list[tuple[str, Path]]:
        """Every file with its image id."""
        return [(image_id, file) for image_id, files in self.files.items() for file in files]


@dataclass(frozen=True)
class Scorer:
    """Stimuli and the metrics by which reconstructions are compared with them.

    Attributes:
        parts: The metrics, by name.
        protocol: How media are sized.
        batch_size: Media compared at once.
        device: Where networks compute.
        stimuli: N pictures or clips.
        frames: Frames of the stimuli where they are clips; None of pictures.
    """

    parts: Mapping[str, MetricPart]
    protocol: str
    batch_size: int
    device: torch.device
    stimuli: Sequence[Open]
    frames: int | None = None

    @cached_property
    def seen(self) -> dict[Features, Tensor]:
        """Features [N, …] of the stimuli, once for all that they are compared with."""
        batches = list(self._features(self.stimuli))
        return {function: torch.cat([batch[function] for batch in batches]) for function in batches[0]}

    def score(
        self,
        reconstructions: Sequence[Open],
        stimulus_rows: NDArray[np.int64],
        among: NDArray[np.int64],
        bar: console.Bar,
    ) -> dict[str, NDArray[np.float64]]:
        """Compare reconstructions with their stimuli.

        Args:
            reconstructions: B pictures or clips.
            own: The stimulus of each, [B].
            among: The stimuli that two-way identification chooses from, sorted, `own` among them.
            bar: Advanced by each batch.

        Returns:
            Each metric's values, [B].
        """
        own_row, row_among = (
            torch.from_numpy(rows) for rows in (stimulus_rows, np.searchsorted(among, stimulus_rows))
        )
        pools = {
            part.features: self.seen[part.features][among]
            for part in self.parts.values()
            if part.is_identification and len(among) < len(self.seen[part.features])
        }
        values: dict[str, list[Tensor]] = {}
        start = 0
        for features in self._features(reconstructions):
            stop = min(start + self.batch_size, len(reconstructions))
            for name, part in self.parts.items():
                if not part.is_identification:
                    compared = part.compare(
                        self.seen[part.features], features[part.features], own_row[start:stop]
                    )
                elif len(among) > 1:  # one item cannot be distinguished from others
                    pool = pools.get(part.features, self.seen[part.features])
                    compared = part.compare(pool, features[part.features], row_among[start:stop])
                else:
                    continue
                values.setdefault(name, []).append(compared)
            bar.advance(stop - start)
            start = stop
        return {name: torch.cat(compared).numpy() for name, compared in values.items()}

    def describe(self) -> dict[str, NDArray[np.float64]]:
        """Values [N] of the stimuli themselves, by the metrics that describe media by themselves."""
        rows = torch.arange(len(self.stimuli))
        parts = {name: part for name, part in self.parts.items() if part.is_of_one}
        seen = {name: self.seen[part.features] for name, part in parts.items()}
        return {name: part.compare(seen[name], seen[name], rows).numpy() for name, part in parts.items()}

    def _features(self, media: Sequence[Open]) -> Iterator[dict[Features, Tensor]]:
        """Decode media and compute all features, each once, batch by batch."""
        functions = {part.features: part.takes_originals for part in self.parts.values()}
        with ThreadPoolExecutor(READERS) as readers:
            for start in range(0, len(media), self.batch_size):
                some = media[start : start + self.batch_size]
                opened = list(readers.map(lambda open_one: open_one(), some))
                sized = self._sized(opened)
                yield {
                    function: function(opened if takes_originals else sized)
                    for function, takes_originals in functions.items()
                }

    def _sized(self, opened: Sequence[Any]) -> Tensor:
        """Bring media to the protocol's size, [B, 3, P, P] or [B, F, 3, P, P] in 0..1, on the device.

        Raises:
            BrainhiveError: if clips differ in their number of frames, or some media are pictures.
        """
        sized = []
        for media in map(to_media, opened):
            if media.ndim == 3 and self.frames is not None:
                media = media.expand(self.frames, -1, -1, -1)  # a keyframe, held still
            if media.ndim == 4:
                sized.append(prepare(media, self.protocol, FRAME_PX))
            else:
                sized.append(prepare(media[None], self.protocol)[0])
        if len(shapes := {tuple(media_px.shape) for media_px in sized}) > 1:
            raise BrainhiveError(
                f"pictures and clips cannot be compared that differ in shape: {sorted(shapes)}",
                "bring all clips to one number of frames",
            )
        return torch.stack(sized).to(self.device)


@dataclass(frozen=True)
class Scored:
    """Reconstructions with the values of every file.

    Attributes:
        generated: The reconstructions.
        values: Each metric's values, in the order of `generated.media`.
    """

    generated: GeneratedSet
    values: Mapping[str, Values]

    @classmethod
    def of(cls, generated: GeneratedSet, scorer: Scorer, rows: Mapping[str, int], launch: Launch) -> Self:
        """Score reconstructions of the scorer's stimuli `rows`; every process returns all values."""
        among = np.array(sorted(rows[image_id] for image_id in generated.files))
        share = launch.shard(generated.media)
        stimulus_rows = np.array([rows[image_id] for image_id, _ in share], dtype=np.int64)
        with console.progress(f"metrics of {generated.name}", len(share)) as bar:
            shares = launch.gather(
                scorer.score([partial(generated.open, file) for _, file in share], stimulus_rows, among, bar)
            )
        filled = [share for share in shares if share]  # a process may have had no file
        names = list(filled[0]) if filled else []
        return cls(generated, {name: np.concatenate([share[name] for share in filled]) for name in names})

    @classmethod
    def of_stimuli(cls, scorer: Scorer, image_ids: Sequence[str]) -> Self | None:
        """Describe the scorer's stimuli by themselves; None if no metric does."""
        values = scorer.describe()
        files = {image_id: [Path(image_id)] for image_id in image_ids}
        stimuli = GeneratedSet(TRUTH, TRUTH, (), files, described="the stimuli themselves")
        return cls(stimuli, values) if values else None

    @cached_property
    def means(self) -> dict[str, Values]:
        """The mean over an item's repeats of each metric, and its task scores, [N]; NaN where it has none."""
        ends = np.cumsum([len(files) for files in self.generated.files.values()])[:-1]
        repeats = {name: np.split(values, ends) for name, values in self.values.items()}
        means = {name: np.array([some.mean() for some in of_item]) for name, of_item in repeats.items()}
        return means | dict(self.generated.tasks.values)

    @property
    def items(self) -> dict[str, list[Any]]:
        """The image ids, and the same means as lists; None where an item has none."""
        return {
            "image_ids": list(self.generated.files),
            **{name: [None if isnan(v) else v for v in some.tolist()] for name, some in self.means.items()},
        }

    def of_item(self, image_id: str) -> list[tuple[Path, dict[str, float]]]:
        """Every file of an item with its values."""
        return [
            (file, {name: float(values[row]) for name, values in self.values.items()})
            for row, (owner, file) in enumerate(self.generated.media)
            if owner == image_id
        ]


def first_of_sources(scored: Sequence[Scored]) -> dict[str, Scored]:
    """Choose the first cell of each source that has media of its own, by source."""
    first: dict[str, Scored] = {}
    for some in scored:
        if some.generated.source != TRUTH and some.generated.media:
            first.setdefault(some.generated.source, some)
    return first


def best_first(scored: Sequence[Scored]) -> list[tuple[Scored, str]]:
    """Sort the items of some reconstructions by the mean over metrics of their rank among all of them."""
    from scipy.stats import rankdata

    items = [(some, image_id) for some in scored for image_id in some.generated.files]
    chosen = [name for name in scored[0].values if scale_of(name).ranks] or [*scored[0].values]
    joined = {name: np.concatenate([some.means[name] for some in scored]) for name in chosen}
    ranks = [rankdata(values if lower_is_better(name) else -values) for name, values in joined.items()]
    return [items[row] for row in np.argsort(np.mean(ranks, axis=0), kind="stable")]


def metrics_of(
    scored: Sequence[Scored], protocol: str, split: str, alike: Alike, by_concept: bool = False
) -> dict[str, Metric]:
    """Average each metric over items and subjects, with its interval; seeds are averaged item by item.

    Args:
        scored: The reconstructions.
        protocol: Name of the way they were measured.
        split: Part of the data set.
        alike: Which items the interval takes together.
        by_concept: Whether the recall of each concept is measured instead, over the items that show it.

    Returns:
        By metric, or by concept; over the items that have a value, and none where no item has.
    """
    seeds = tuple(sorted({seed for some_set in scored for seed in some_set.generated.seeds}))
    subjects = dict.fromkeys(some_set.generated.subject for some_set in scored)
    groups = [
        [some_set for some_set in scored if some_set.generated.subject == subject] for subject in subjects
    ]
    ids, means = zip(*(_over_seeds(group, by_concept) for group in groups), strict=True)
    items, metrics = alike.items(ids), {}
    for name in dict.fromkeys(name for of in means for name in of):
        metric = RECALL if by_concept else name
        scale = scale_of(metric)
        values = [of.get(name, np.full((1, len(i)), np.nan)) for of, i in zip(means, ids, strict=True)]
        # of media no value may be missing: `measure` refuses it
        has_value = [~np.isnan(some).any(0) | (metric not in SCALES) for some in values]
        subjects_with = [place for place, has in enumerate(has_value) if has.any()]
        chance = scale.chance
        if metric == RECALL:  # a mean over subjects, as the value
            guesses = [groups[place][0].generated.tasks.guess[has_value[place]] for place in subjects_with]
            chance = float(np.mean([guess.mean() for guess in guesses]))
        metrics[name] = measure(
            metric,
            [values[place][:, has_value[place]] for place in subjects_with],
            protocol=protocol,
            split=split,
            items=items.where(has_value),
            pool=scale.pool or (None if scale.chance is None else len(ids[0])),
            chance=chance,
            limits=(scale.low, scale.high),
            seeds=seeds,
            is_share=False if metric in {*SCALES} - {RECALL} else None,  # even where all values are 0 or 1
        )
    return metrics


def _over_seeds(scored: Sequence[Scored], by_concept: bool) -> tuple[list[str], dict[str, Values]]:
    """Stack one subject's reconstructions of the same items by S models: image ids, and by name [S, N]."""
    ids = list(scored[0].generated.files)
    rows = [[list(of_seed.generated.files).index(image_id) for image_id in ids] for of_seed in scored]
    values = [of_seed.generated.tasks.by_concept if by_concept else of_seed.means for of_seed in scored]
    by_seed = [*zip(values, rows, strict=True)]
    return ids, {name: np.stack([of[name][row] for of, row in by_seed]) for name in values[0]}


def write_values(path: Path, scored: Sequence[Scored]) -> None:
    """Write the values of every file as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        names = list(scored[0].values)
        table.writerow(["source", "cell", "image_id", "file", *names])
        for some in scored:
            for row, (image_id, media) in enumerate(some.generated.media):
                values = [float(some.values[name][row]) if name in some.values else "" for name in names]
                table.writerow([some.generated.source, some.generated.name, image_id, media.name, *values])
