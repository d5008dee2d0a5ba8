"""Reconstructions on disk and what they score, picture by picture and on the whole."""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from brainhive_cli.core import console
from brainhive_cli.core.launch import Launch
from brainhive_cli.datasets import decode
from brainhive_cli.metrics.statistics import Metric, measure
from brainhive_cli.reconstruction.scoring import Truth, chance_of, limits_of, lower_is_better


@dataclass(frozen=True)
class GeneratedSet:
    """The reconstructions of one cell and subject, from one source.

    Attributes:
        source: Where their tokens come from.
        name: Of the cell and subject.
        seeds: Of the training.
        files: Image id to the files of its repeats.
        subject: Whose signals; None if they come from none.
        made: How they were made, in words that travel with their metrics.
    """

    source: str
    name: str
    seeds: tuple[int, ...]
    files: Mapping[str, Sequence[Path]]
    subject: int | None = None
    made: str = ""

    @property
    def title(self) -> str:
        """The name for people; that of a cell says the subject already."""
        above, _, subject = self.name.rpartition("/")
        return above if above.rpartition("/")[2].startswith(subject) else self.name

    @property
    def pictures(self) -> list[tuple[str, Path]]:
        """Every picture with its image id."""
        return [(image_id, file) for image_id, files in self.files.items() for file in files]


@dataclass(frozen=True)
class Scored:
    """Reconstructions with the values of every picture.

    Attributes:
        drawn: The reconstructions.
        values: Each metric's values, in the order of `drawn.pictures`.
    """

    drawn: GeneratedSet
    values: Mapping[str, NDArray[np.float64]]

    @classmethod
    def of(cls, drawn: GeneratedSet, truth: Truth, places: Mapping[str, int], launch: Launch) -> Self:
        """Score pictures with all processes; every one of them gets all values.

        Args:
            drawn: The reconstructions.
            truth: The stimuli.
            places: Where the stimulus of each image id is in `truth`.
            launch: Those who share the work.
        """
        among = np.array(sorted(places[image_id] for image_id in drawn.files))
        mine = launch.shard(drawn.pictures)
        own = np.array([places[image_id] for image_id, _ in mine], dtype=np.int64)
        with console.progress(f"metrics of {drawn.name}", len(mine)) as bar:
            shares = launch.gather(truth.score([_opens(file) for _, file in mine], own, among, bar))
        found = [share for share in shares if share]  # a process may have had no picture
        return cls(drawn, {n: np.concatenate([share[n] for share in found]) for n in next(iter(found), {})})

    @cached_property
    def means(self) -> dict[str, NDArray[np.float64]]:
        """The mean over an item's repeats of each metric, [N]."""
        ends = np.cumsum([len(files) for files in self.drawn.files.values()])[:-1]
        return {
            name: np.array([repeats.mean() for repeats in np.split(values, ends)])
            for name, values in self.values.items()
        }

    @property
    def items(self) -> dict[str, dict[str, float]]:
        """The same by image id."""
        return {
            image_id: {name: float(values[place]) for name, values in self.means.items()}
            for place, image_id in enumerate(self.drawn.files)
        }

    def of_item(self, image_id: str) -> list[tuple[Path, dict[str, float]]]:
        """Every picture of an item with its values."""
        return [
            (file, {name: float(values[place]) for name, values in self.values.items()})
            for place, (whose, file) in enumerate(self.drawn.pictures)
            if whose == image_id
        ]


def best_first(scored: Sequence[Scored]) -> list[tuple[Scored, str]]:
    """Sort the items of some reconstructions by the mean over metrics of their rank among all of them."""
    from scipy.stats import rankdata

    items = [(each, image_id) for each in scored for image_id in each.drawn.files]
    ranks = [
        rankdata(values if lower_is_better(name) else -values)
        for name, values in _joined([each.means for each in scored]).items()
    ]
    return [items[place] for place in np.argsort(np.mean(ranks, axis=0), kind="stable")]


def metrics_of(scored: Sequence[Scored], protocol: str, split: str) -> dict[str, Metric]:
    """Average each metric over items and subjects, with its interval; seeds are averaged item by item."""
    seeds = tuple(sorted({seed for each in scored for seed in each.drawn.seeds}))
    subjects = dict.fromkeys(each.drawn.subject for each in scored)
    groups = [[each for each in scored if each.drawn.subject == subject] for subject in subjects]
    ids, means = zip(*map(_over_seeds, groups), strict=True)
    return {
        name: measure(
            name,
            [values[name] for values in means],
            protocol=protocol,
            split=split,
            ids=ids,
            pool=None if chance_of(name) is None else len(ids[0]),
            chance=chance_of(name),
            limits=limits_of(name),
            seeds=seeds,
        )
        for name in means[0]
    }


def _over_seeds(scored: Sequence[Scored]) -> tuple[list[str], dict[str, NDArray[np.float64]]]:
    """Stack one subject's reconstructions of the same items by S models: image ids, and by metric [S, N]."""
    ids = list(scored[0].drawn.files)
    places = [[list(each.drawn.files).index(image_id) for image_id in ids] for each in scored]
    return ids, {
        name: np.stack([each.means[name][place] for each, place in zip(scored, places, strict=True)])
        for name in scored[0].means
    }


def _joined(means: Sequence[Mapping[str, NDArray[np.float64]]]) -> dict[str, NDArray[np.float64]]:
    return {name: np.concatenate([each[name] for each in means]) for name in means[0]}


def write_values(path: Path, scored: Sequence[Scored]) -> None:
    """Write the values of every picture as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["source", "cell", "image_id", "file", *scored[0].values])
        for each in scored:
            for place, (image_id, picture) in enumerate(each.drawn.pictures):
                values: list[Any] = [float(values[place]) for values in each.values.values()]
                table.writerow([each.drawn.source, each.drawn.name, image_id, picture.name, *values])


def _opens(file: Path) -> Callable[[], Image.Image]:
    return lambda: decode(str(file), file)
