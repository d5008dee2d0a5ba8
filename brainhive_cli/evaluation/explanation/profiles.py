"""Courses of values over times, sensors, regions or levels, next to shuffled labels, and their files."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.errors import BrainhiveError, DamagedStore, RecipeError
from brainhive_cli.measurement.units import Items
from brainhive_cli.training.alignment.recipe import Cell

Values = NDArray[np.float64]
Places = NDArray[np.int64]
Spans = NDArray[np.float64]
"""[P, 2] where each place begins and ends, in milliseconds after stimulus onset."""
EXCHANGES = 20
"""Permutations of which that is chosen which leaves fewest items in their unit: one in three leaves none."""


TIME, SENSOR, BAND, REGION, LEVEL = "ms after onset", "sensor", "band", "region", "encoder"
"""Kinds of axes."""


@dataclass(frozen=True)
class Axis:
    """P places at which something was measured.

    Attributes:
        name: What they are.
        at: [P] times in milliseconds, of windows their centres; or names.
        spans: Of windows; None where a place is one sample, or a name.
    """

    name: str
    at: Sequence[Any]
    spans: Spans | None = None

    @classmethod
    def of_windows(cls, spans: Spans) -> Self:
        """Place windows at their centres."""
        return cls(TIME, [float(centre) for centre in spans.mean(1).round(3)], spans)

    @property
    def labels(self) -> list[str]:
        """The places in words."""
        return [f"{place:g} ms" if self.name == TIME else str(place) for place in self.at]

    def where(self, place: int) -> str:
        """Name a place in words: of a window, from where to where it lies."""
        if self.spans is None:
            return self.labels[place]
        start, stop = self.spans[place]
        return f"{start:g}{' to ' if start < 0 else '–'}{stop:g} ms"

    def take(self, places: Sequence[int]) -> Self:
        """Keep some places, in this order."""
        spans = None if self.spans is None else self.spans[places]
        return type(self)(self.name, [self.at[place] for place in places], spans)


@dataclass(frozen=True)
class Profile:
    """Measurements of one subject at P positions.

    Attributes:
        metric: Name of what was measured.
        axis: The places.
        values: [P, N] of the items.
        null: [K, P] means over the items that all subjects have, with labels permuted, K times; K is 0 where
            that was not measured.
        shuffled: [P, N] of a control that was measured once, as with a model trained on shuffled labels;
            [0, 0] where there is none.
        chance: Value expected without any effect.
        pool: Candidates that each item was compared with; 0 where there are none.
    """

    metric: str
    axis: Axis
    values: Values
    null: Values
    shuffled: Values
    chance: float = 0.0
    pool: int = 0

    @classmethod
    def of(cls, metric: str, axis: Axis, matrices: Iterable[Values], labels: "Labels") -> Self:
        """Look up the value of each item with its own label, and with those of others.

        Args:
            metric: See the class.
            axis: See the class.
            matrices: For each place, the values [N, M] of each item with each label.
            labels: Right and permuted ones.
        """
        return cls._of(metric, axis, [labels.look_up(matrix) for matrix in matrices])

    @classmethod
    def of_ranks(cls, axis: Axis, ranks: Iterable[Places], labels: "Labels") -> dict[str, Self]:
        """Describe ranks [N, M] of each candidate by each item, at each place, as shares by name."""
        looked_up, pool = [], 1
        for matrix in ranks:
            pool = matrix.shape[1]
            looked_up.append(labels.look_up(matrix))
        chances = {"top1": 1 / pool, "top5": min(1, 5 / pool), "two_way": 0.5}
        profiles = {}
        for metric, chance in chances.items():
            shares = [tuple(_share(metric, some, pool) for some in both) for both in looked_up]
            profiles[metric] = replace(cls._of(metric, axis, shares), chance=chance, pool=pool)
        return profiles

    @classmethod
    def _of(cls, metric: str, axis: Axis, looked_up: Sequence[tuple[NDArray[Any], ...]]) -> Self:
        values = np.array([right for right, _ in looked_up], np.float64)
        null = np.array([permuted.mean(1) for _, permuted in looked_up], np.float64)
        return cls(metric, axis, values, null.reshape(len(values), -1).T, np.empty((0, 0)))

    def take(self, at: Sequence[Any], items: Places) -> Self:
        """Keep some places, in this order, and some of the N items."""
        places = [self.axis.at.index(place) for place in at]
        return replace(
            self,
            axis=self.axis.take(places),
            values=self.values[places][:, items],
            null=self.null[:, places],
            shuffled=self.shuffled[places][:, items] if self.shuffled.size else self.shuffled,
        )

    def as_arrays(self) -> dict[str, NDArray[Any]]:
        """Give plain arrays, for a file."""
        spans = np.empty((0, 2)) if self.axis.spans is None else self.axis.spans
        plain = {**vars(self), "axis": self.axis.name, "at": self.axis.at, "spans": spans}
        return {name: np.array(value) for name, value in plain.items()}

    @classmethod
    def from_arrays(cls, plain: Mapping[str, NDArray[Any]]) -> Self:
        """Read back `as_arrays`."""
        spans = plain["spans"] if len(plain["spans"]) else None
        axis = Axis(str(plain["axis"]), plain["at"].tolist(), spans)
        values, null, shuffled = (plain[name] for name in ("values", "null", "shuffled"))
        numbers = float(plain["chance"]), int(plain["pool"])
        return cls(str(plain["metric"]), axis, values, null, shuffled, *numbers)


def _share(metric: str, ranks: Places, pool: int) -> Values:
    """Turn ranks into hits, or into the share of the other candidates that rank below."""
    if metric == "two_way":
        return np.asarray(1 - (ranks - 1) / max(1, pool - 1), np.float64)
    return np.asarray(ranks <= {"top1": 1, "top5": 5}[metric], np.float64)


@dataclass(frozen=True)
class Labels:
    """Picture that each item of a subject showed, and permutations of the pictures, alike for all subjects.

    Where all subjects share wrong labels, these fit all of them by the same chance: labels that are permuted
    subject by subject would average it out of the control, and not out of what was measured.

    Attributes:
        right: [N] place among the candidates.
        shared: [n] the items whose pictures all subjects were shown.
        permuted: [K, n] places of the pictures whose labels these get.
        wrong: [N] places of pictures of other units, as far as there are, in one permutation; of what one
            subject alone was shown the right ones.
    """

    right: Places
    shared: Places
    permuted: Places
    wrong: Places

    @classmethod
    def of(cls, right: Places, pictures: Places, units: Items, draws: int, seed: int) -> Self:
        """Permute the labels of pictures that are exchangeable, K times at most.

        Args:
            right: [N].
            pictures: [n] places of those that all subjects were shown, in an order that all have.
            units: One list: these pictures, and which are alike.
            draws: K.
            seed: The same for all subjects and models.
        """
        number = {place: row for row, place in enumerate(pictures.tolist())}
        shared = np.array([item for item, place in enumerate(right.tolist()) if place in number], np.int64)
        picture = np.array([number[place] for place in right[shared].tolist()], np.int64)
        (unit,), wrong = units.numbers, right.copy()
        exchanges = [np.arange(units.size), *permutations(units, EXCHANGES, seed)]
        wrong[shared] = pictures[min(exchanges, key=lambda order: (unit[order] == unit).sum())[picture]]
        return cls(right, shared, pictures[permutations(units, draws, seed)][:, picture], wrong)

    def look_up(self, matrix: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Look up [N, M] of items and labels by the right labels [N], and by the permuted ones [K, n]."""
        return matrix[np.arange(len(self.right)), self.right], matrix[self.shared, self.permuted]

    @property
    def by_item(self) -> Self:
        """The same, where the candidates are the pictures of the N items, in their order."""
        item = {place: row for row, place in enumerate(self.right.tolist())}
        permuted, wrong = (
            np.array([item[place] for place in places.flat], np.int64).reshape(places.shape)
            for places in (self.permuted, self.wrong)
        )
        return replace(self, right=np.arange(len(self.right)), permuted=permuted, wrong=wrong)


def permutations(units: Items, draws: int, seed: int) -> Places:
    """Permute the labels of one list of n items: [K, n] the item whose label each gets.

    K is `draws`, or fewer where no more permutations leave exchangeable items together: see `Items`.
    """
    orders = units.permutations(draws, np.random.default_rng(seed))
    item = {name: row for row, name in enumerate(units.ids[0])}
    rows = np.array([item[name] for name in units.names], np.int64)
    permuted = np.empty_like(orders)
    permuted[:, rows] = rows[orders]
    return permuted


@dataclass(frozen=True)
class PermutationTest:
    """A profile over all subjects, against its control.

    Attributes:
        p_values: [P] share of permutations that are at least as large, the measured value among them.
        corrected: [P] the same for the largest over all places: the chance that any is so large.
    """

    p_values: Values
    corrected: Values

    @classmethod
    def of(cls, measured: Values, null: Values) -> Self:
        """Compare what was measured [P] with its control [K, P], each place by its spread.

        Mean and spread are those of both together: by those of the control alone what was measured, which has
        no part in them, would lie further out than a permutation does.

        Source: Westfall and Young 1993 (largest statistic over all places); Phipson and Smyth 2010 (p).
        """
        together = np.concatenate([measured[None], null])
        scores = (together - together.mean(0)) / (together.std(0) + 1e-12)
        scaled, drawn = scores[0], scores[1:]
        count = 1 + len(null)
        alone = (1 + (drawn >= scaled - 1e-12).sum(0)) / count
        largest = (1 + (drawn.max(1)[:, None] >= scaled - 1e-12).sum(0)) / count
        return cls(alone, largest)


Profiles = Profile | dict[str, Profile]
"""Result of an analysis: one profile, or several by part."""
TIME_PART, SPACE_PART = "time", "space"
"""Parts of an analysis that has one profile over times, and one over sensors or regions."""


@dataclass
class SubjectProfiles:
    """Measurements of one cell and subject, or of one subject's signals.

    Attributes:
        profiles: By `analysis`, or `analysis:part`; an analysis may be of one level, as `encoding · vae`.
        arrays: Maps and curves without items, by name.
        missing: Reasons, by analysis.
        image_ids: [N] what the items of all profiles showed.
    """

    image_ids: list[str]
    profiles: dict[str, Profile] = field(default_factory=dict)
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def rows_of(self, image_ids: Sequence[str]) -> Places:
        """Find the items that showed some pictures, in their order."""
        row = {name: number for number, name in enumerate(self.image_ids)}
        return np.array([row[name] for name in image_ids])

    def attempt(self, analysis: str, measure: Callable[[], Profiles]) -> None:
        """Add the profiles of an analysis, by their parts; or the reason why there are none.

        Raises:
            RecipeError: as any: what the recipe has wrong is no property of the signals.
            DamagedStore: if a row of a store is not that which was written.
        """
        try:
            profiles = measure()
        except (RecipeError, DamagedStore):
            raise
        except BrainhiveError as error:
            self.missing[analysis] = error.in_one_line
            return
        if isinstance(profiles, Profile):
            self.profiles[analysis] = profiles
        else:
            self.profiles |= {f"{analysis}:{part}": profile for part, profile in profiles.items()}

    def save(self, path: Path) -> None:
        """Write everything to one file."""
        plain: dict[str, NDArray[Any]] = {"image_ids": np.array(self.image_ids)}
        for name, profile in self.profiles.items():
            plain |= {f"profiles/{name}/{key}": array for key, array in profile.as_arrays().items()}
        plain |= {f"arrays/{name}": array for name, array in self.arrays.items()}
        plain |= {f"missing/{name}": np.array(reason) for name, reason in self.missing.items()}
        with open(path, "wb") as stream:
            np.savez(stream, **plain)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read back what `save` wrote."""
        profiles: dict[str, dict[str, NDArray[Any]]] = defaultdict(dict)
        with np.load(path, allow_pickle=False) as file:
            loaded = cls(file["image_ids"].tolist())
            for name in file.files:
                kind, _, rest = name.partition("/")
                if kind == "profiles":
                    profile, _, key = rest.rpartition("/")
                    profiles[profile][key] = file[name]
                elif kind == "arrays":
                    loaded.arrays[rest] = file[name]
                elif kind == "missing":
                    loaded.missing[rest] = str(file[name])
        loaded.profiles = {name: Profile.from_arrays(arrays) for name, arrays in profiles.items()}
        return loaded


def part_file(cell: Cell | None, subject: int) -> str:
    """Name the file that keeps what was measured of a cell and subject, or of a subject's signals."""
    return f"parts/{'signals' if cell is None else cell.name}/sub-{subject:02d}.npz"


def analysis_of(name: str) -> str:
    """Name the analysis, with its level if it is of one, that a profile is of."""
    return name.partition(":")[0]
