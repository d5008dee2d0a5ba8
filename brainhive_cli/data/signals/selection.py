"""Selection of a part of a recording [N, R, C, T] for a brain model: the section `signal` and its choices."""

import hashlib
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, PlainSerializer, field_validator, model_validator

from brainhive_cli.core import parts
from brainhive_cli.core.arrays import Bool, Float32, Float64, Int64
from brainhive_cli.core.errors import BrainhiveError, RecipeError, find_rows, guess
from brainhive_cli.core.recipe import Names, Section, refuse_idle
from brainhive_cli.data.signals.channel_mapping import ChannelMapping
from brainhive_cli.data.signals.normalisations import Normaliser
from brainhive_cli.data.stores.recordings import (
    COPIED_STIMULI,
    REGION_NAME,
    ChosenTrials,
    Recording,
    Sensors,
    Voxels,
)

REGIONS = {
    "frontal": ("Fp", "AF", "F"),
    "central": ("FC", "C", "CP"),
    "temporal": ("FT", "T", "TP"),
    "parietal": ("P",),
    "occipital": ("PO", "O"),
}
"""Region > letters that its channels' names begin with, in the 10-10 system. What lies between two regions is
counted with one of them; parietal and occipital together are BrainHiVE's 17 channels of THINGS-EEG."""
_REGION_OF = {letters.lower(): region for region, all_of in REGIONS.items() for letters in all_of}
_NAME = re.compile(r"([a-z]+?)(z|\d+h?)$", re.IGNORECASE)
CLOSE_MS = 1e-6
"""Times closer than this are one: above the rounding of seconds to milliseconds."""
Content = Literal["averages", "trials"]
"""The average over the repetitions of each stimulus [N, C, T], or each repetition by itself [N, R, C, T]."""
Chunk = tuple[slice, Float32]
"""Rows of the whole, and the signals of these stimuli."""
Control = Literal["none", "swapped", "random", "all"]
WAY = "names of regions, & | - and parentheses, with spaces around -: nsdgeneral - (V1v | V1d)"
_TOKEN = re.compile(r"[&|()]|[^\s&|()]+")
_OPERATIONS: Mapping[str, Callable[[Bool, Bool], Bool]] = {
    "|": operator.or_,
    "&": operator.and_,
    "-": lambda one, other: one & ~other,
}
_BINDS = {"|": 1, "&": 2, "-": 2}


def channel_rows(channels: Sequence[str], names: Sequence[str]) -> Int64:
    """Find channels by name or region (`occipital`), each once.

    Raises:
        RecipeError: naming what the data do not have, and the nearest name.
    """
    chosen = []
    for name in names:
        region = name.lower()
        if region in REGIONS:
            members = [row for row, channel in enumerate(channels) if region_of(channel) == region]
        else:
            members = [row for row in find_rows([name], channels, "the recording") if row is not None]
        if not members:
            there = f"there are: {' '.join(channels)}; regions: {' '.join(REGIONS)}"
            raise RecipeError(f"no channel {name!r} in the data", guess(name, [*channels, *REGIONS]) + there)
        chosen += members
    return np.asarray(list(dict.fromkeys(chosen)))


def _find_region(name: str, regions: Mapping[str, Any], where: str = "", expression: str = "") -> str:
    """Find a region's name as the data have it; `where` and `expression` say in errors what names it."""
    names = list(regions)
    if (row := find_rows([name], names, "the recording")[0]) is not None:
        return names[row]
    spaces = "a difference has spaces around its -; " if "-" in name and expression else ""
    hint = f"{guess(name, names)}{spaces}regions: {' '.join(names) or 'none'}"
    raise RecipeError(f"{where}no region {name!r} in the data{expression}", hint)


def region_of(channel: str) -> str | None:
    """Name the region of a channel; None for a name that is not of the 10-10 system."""
    match = _NAME.match(channel)
    return _REGION_OF.get(match[1].lower()) if match else None


def sample_range(times_s: Float64, window_ms: tuple[float, float] | None) -> slice:
    """Find the samples whose time lies in [start, stop), in milliseconds after onset; all when None.

    Raises:
        RecipeError: if no sample does, or the window reaches a sample or more beyond the recording.
    """
    if window_ms is None:
        return slice(0, len(times_s))
    times_ms = np.round(times_s * 1000, 3)
    step_ms = (times_ms[-1] - times_ms[0]) / max(1, len(times_ms) - 1)
    inside = np.flatnonzero((times_ms >= window_ms[0]) & (times_ms < window_ms[1]))
    spans = f"the recording spans {times_ms[0]:g} to {times_ms[-1]:g} ms"
    if not len(inside):
        raise RecipeError(f"no sample in the window {list(window_ms)} ms", spans)
    is_longer = window_ms[0] <= times_ms[0] - step_ms or window_ms[1] >= times_ms[-1] + 2 * step_ms
    if is_longer and step_ms:
        raise RecipeError(f"the window {list(window_ms)} ms reaches beyond the recording", spans)
    return slice(int(inside[0]), int(inside[-1]) + 1)


def window_starts(
    times_ms: NDArray[np.floating], width_ms: float, step_ms: float, key: str = "sliding"
) -> list[float]:
    """List where windows begin: from the first sample, as long as they end within the signal.

    Args:
        times_ms: [T].
        width_ms: Of each window.
        step_ms: From window to window.
        key: The block of the recipe that the width is from, for the error.

    Raises:
        RecipeError: if the window is wider than the signal.
    """
    step = (times_ms[-1] - times_ms[0]) / max(1, len(times_ms) - 1)
    last = times_ms[-1] + step - width_ms
    if last < times_ms[0] - CLOSE_MS:
        raise RecipeError(
            f"{key}.width_ms {width_ms:g} is wider than the signal "
            f"({times_ms[0]:g} to {times_ms[-1] + step:g} ms)",
            "take a narrower window",
        )
    return list(np.arange(times_ms[0], last + CLOSE_MS, step_ms))


def inside(times_ms: NDArray[np.floating], start_ms: float, width_ms: float) -> Bool:
    """Mark the samples of a window: [T]."""
    return (times_ms >= start_ms - CLOSE_MS) & (times_ms < start_ms + width_ms - CLOSE_MS)


def region_masks(regions: Mapping[str, Sequence[int]], voxels: int) -> dict[str, Bool]:
    """Mark the voxels of each region that has any, by name: [V, 1]."""
    masks = {name: np.zeros((voxels, 1), np.bool_) for name, places in regions.items() if places}
    for name, mask in masks.items():
        mask[list(regions[name])] = True
    return masks


@dataclass(frozen=True)
class Selection:
    """The chosen stimuli, channels or voxels, and samples of a recording, scaled and normalised.

    Attributes:
        pictures: [N] which stimuli of the recording, ascending.
        rows: [C] which channels, or [V] which voxels.
        samples: Which T samples.
        where: What the recording is, for errors.
        sets: Mask [V] of all voxels of the recording, by name: those that streams of a model read.
        mapping: From the chosen channels to the model's, before the normaliser; None where they are these.
    """

    recording: Recording
    pictures: Int64
    rows: Int64
    samples: slice
    scale: float
    where: str
    normaliser: Normaliser | None = None
    sets: Mapping[str, Bool] = field(default_factory=dict)
    mapping: ChannelMapping | None = None

    @classmethod
    def of(
        cls,
        recording: Recording,
        channels: Sequence[str] | None,
        window_ms: tuple[float, float] | None,
        scale: float,
        where: str,
        sets: Mapping[str, Bool] = MappingProxyType({}),
    ) -> Self:
        """Choose channels by name or region, or voxels by region (all when None), and a window in ms.

        Channels come in the order of their names, voxels in that of the data. Where there are sets of voxels,
        all that lie in one of them are chosen.

        Raises:
            RecipeError: naming what the data do not have, and the nearest name.
        """
        space, rows = recording.space, np.arange(recording.signal.shape[2])
        if channels is not None and isinstance(space, Sensors):
            rows = channel_rows(space.names, channels)
        elif channels is not None and isinstance(space, Voxels):
            masks = [space.regions[_find_region(name, space.regions)] for name in channels]
            rows = np.flatnonzero(np.any(masks, 0))
            if not len(rows):
                problem = f"no voxel lies in {', '.join(channels)}"
                raise RecipeError(problem, f"regions: {' '.join(space.regions)}")
        if sets:
            rows = np.flatnonzero(np.any(list(sets.values()), 0))
        samples = sample_range(recording.times_s, window_ms)
        pictures = np.arange(len(recording.signal))
        return cls(recording, pictures, rows, samples, scale, where, sets=sets)

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the chosen channels; () for voxels."""
        space = self.recording.space
        return tuple(space.names[row] for row in self.rows) if isinstance(space, Sensors) else ()

    @property
    def positions(self) -> tuple[tuple[float, float, float], ...] | None:
        """Places of the chosen channels, in metres; None for voxels, or where one is not known."""
        space = self.recording.space
        if not isinstance(space, Sensors) or space.positions is None:
            return None
        places = np.asarray(space.positions, np.float64)[self.rows]
        return tuple((x, y, z) for x, y, z in places.tolist()) if np.isfinite(places).all() else None

    @property
    def regions(self) -> dict[str, tuple[int, ...]]:
        """Places among the chosen voxels, by region or set; empty for sensors."""
        space = self.recording.space
        if isinstance(space, Sensors):
            return {}
        masks = {**space.regions, **self.sets}
        return {name: tuple(np.flatnonzero(mask[self.rows]).tolist()) for name, mask in masks.items()}

    @property
    def times_s(self) -> Float64:
        """[T] seconds of the chosen samples."""
        return self.recording.times_s[self.samples]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """N, R, C, T of what is read; C of the model, where channels are mapped."""
        most, samples = self.recording.signal.shape[1], self.samples.stop - self.samples.start
        channels = len(self.rows) if self.mapping is None else len(self.mapping.matrix)
        return len(self.pictures), most, channels, samples

    @property
    def repetitions(self) -> Int64:
        """[N] how many repetitions of each picture there are."""
        counts = self.recording.repetitions
        return np.full(self.shape[0], self.shape[1]) if counts is None else counts[self.pictures]

    def fingerprint(self) -> str:
        """Digest what is chosen of the recording (10 hexadecimal digits)."""
        chosen = hashlib.sha256(f"{self.samples} {self.scale!r}".encode())
        arrays = [self.normaliser.mean, self.normaliser.matrix] if self.normaliser else []
        arrays += [self.mapping.matrix] if self.mapping else []
        signal = self.recording.signal
        trials = (signal.rows, signal.places) if isinstance(signal, ChosenTrials) else ()
        for array in (self.pictures, self.rows, *trials, *arrays):
            chosen.update(array.tobytes())
        return chosen.hexdigest()[:10]

    def shape_of(self, content: Content) -> tuple[int, ...]:
        """Give the shape of what `read` yields, all together."""
        count, most, *shape = self.shape
        return (count, *shape) if content == "averages" else (count, most, *shape)

    def read(self, content: Content) -> Iterator[Chunk]:
        """Yield where, and the averages or the trials of some stimuli; raises as these do."""
        return self.averages() if content == "averages" else self.trials()

    def averages(self) -> Iterator[Chunk]:
        """Yield where, and the averages of the repetitions of some stimuli [n, C, T].

        Raises:
            BrainhiveError: if a value is not finite; it names the picture and the channel.
        """
        for part, chosen, repetitions in self._read():
            share = (self.scale / repetitions[:, None, None]).astype(np.float32)
            yield part, self._finish(chosen.sum(1) * share, part)

    def trials(self) -> Iterator[Chunk]:
        """Yield where, and the single repetitions of some stimuli [n, R, C, T]; missing ones are zeros.

        Raises:
            BrainhiveError: if a value is not finite; it names the picture and the channel.
        """
        for part, chosen, _ in self._read():
            yield part, self._finish(chosen * np.float32(self.scale), part)

    def _read(self) -> Iterator[tuple[slice, Float32, Int64]]:
        """Yield where, what was chosen [n, R, C, T] (0 where nothing is), and how many there are [n]."""
        for start in range(0, len(self.pictures), COPIED_STIMULI):
            part = slice(start, min(start + COPIED_STIMULI, len(self.pictures)))
            pictures, repetitions = self.pictures[part], self.repetitions[part]
            among = slice(pictures[0], pictures[-1] + 1)  # a slice is read at once
            chosen = np.asarray(self.recording.signal[among, :, :, self.samples])[:, :, self.rows]
            chosen = chosen.astype(np.float32, copy=False)  # before sums, for which float16 is too coarse
            if len(chosen) > len(pictures):
                chosen = chosen[pictures - pictures[0]]
            if (repetitions < chosen.shape[1]).any():
                is_there = np.arange(chosen.shape[1]) < repetitions[:, None]
                chosen = np.where(is_there[..., None, None], chosen, 0)
            yield part, chosen, repetitions

    def _finish(self, signal: Float32, part: slice) -> Float32:
        if not np.isfinite(signal).all():
            place, *_, row, _ = np.argwhere(~np.isfinite(signal))[0]
            number, known = int(self.pictures[part.start + place]), self.recording.image_ids
            picture = f"picture {known[number]}" if len(known) else f"row {number}"
            which = f"channel {self.channels[row]}" if self.channels else f"voxel {self.rows[row]}"
            raise BrainhiveError(
                f"{self.where}: a signal is not finite, of {picture}, {which}",
                "repair the recording, or leave the channel out with signal.channels",
            )
        if self.mapping:
            signal = self.mapping(signal, self.normaliser.mean if self.normaliser else None)
        return self.normaliser(signal) if self.normaliser else signal


def _write_normalisation(config: Any) -> str | dict[str, Any]:
    """Write a part without knobs by its name alone, as tables and protocols show it."""
    fields = {"kind": "none"} if config is None else config.model_dump(mode="json")
    return fields if len(fields) > 1 else fields["kind"]  # type: ignore[no-any-return]


class Signal(Section):
    """Part of the recordings that a brain model sees, and how it is normalised and averaged."""

    name: str = Field("default", description="preparation: the folder of stores below signals/<dataset>")
    channels: Names | None = Field(
        None,
        description="sensors by name or region (frontal, central, temporal, parietal, occipital), or voxels "
        "by region; default: the data set's for decoding",
    )
    region_split: dict[str, str] = Field(
        {},
        description="what streams of a model read: name: set of the voxels' regions, with & | - and "
        "parentheses, as {spatial: V1 | V2, semantic: all - spatial}; later sets may use earlier names",
    )
    region_control: Control = Field(
        "none",
        description="sets of region_split are exchanged (swapped), drawn with the same sizes from all their "
        "voxels (random), or hold all of them (all)",
    )
    region_seed: int = Field(0, ge=0, lt=2**63, description="of region_control: random")
    window_ms: tuple[float, float] | None = Field(None, description="start and stop after stimulus onset, ms")
    scale: float = Field(
        1.0,
        gt=0,
        description="signals are multiplied by this (1 over their usual spread)",
    )
    normalise: Annotated[
        Any,
        BeforeValidator(
            lambda value: None if value in (None, "none") else parts.resolve("normalisations", value)
        ),
        PlainSerializer(_write_normalisation),
    ] = Field(
        None,
        description="by the training signals of each subject: none, channel (mean 0, variance 1), whiten "
        "(also no correlation between channels), template (less the mean response), euclidean or "
        "riemannian (alignment: the mean product of channels over trials becomes the identity)",
    )
    normalise_by: Literal["subject", "training_subjects"] = Field(
        "subject",
        description="whose statistics normalise a subject who was not trained on: the subject's own training "
        "split, or the mean of those of the subjects trained on",
    )
    repetitions: Literal["average", "single", "random"] = Field(
        "average",
        description="a training sample is the average of a stimulus's trials, each trial, or the average of "
        "some at random; validation and test take the average of all",
    )
    random_k: int = Field(
        2, gt=0, le=10_000, description="trials that a random average takes, anew each time"
    )

    @field_validator("region_split")
    @classmethod
    def _holds_sets(cls, value: dict[str, str]) -> dict[str, str]:
        for name, expression in value.items():
            if not re.fullmatch(REGION_NAME, name):
                raise ValueError(f"{name!r} is no name of a region")
            parsed(expression)
        return value

    @model_validator(mode="after")
    def _every_key_has_an_effect(self) -> Self:
        if self.repetitions != "random":
            refuse_idle(self, ("random_k",), f"with repetitions {self.repetitions}", "repetitions: random")
        if self.region_split:
            refuse_idle(self, ("channels",), "with region_split", "leave one of them out")
        if len(self.region_split) < 2:
            refuse_idle(self, ("region_control",), "without two sets of region_split", "leave it out")
        if self.region_control != "random":
            refuse_idle(self, ("region_seed",), f"with region_control {self.region_control}", "leave it out")
        if self.normalise is None:
            refuse_idle(self, ("normalise_by",), "with normalise none", "normalise: channel")
        return self

    def select(self, recording: Recording, default: Sequence[str] | None, where: str) -> Selection:
        """Select what a brain model sees of a recording, not normalised.

        Args:
            recording: The recording.
            default: Channels or regions where the recipe names none; None is all.
            where: What the recording is, for errors.

        Raises:
            BrainhiveError: naming channels, regions or a window that the recording does not have.
        """
        split = self.region_split, recording.space, self.region_control, self.region_seed, where
        channels = self.channels or default
        return Selection.of(recording, channels, self.window_ms, self.scale, where, split_masks(*split))


def parsed(expression: str) -> list[str]:
    """Bring a set expression over regions into postfix order; & and - bind tighter than |, from the left.

    Raises:
        RecipeError: if it is none.
    """
    # operators in the order of their binding, regions in between (shunting yard)
    postfix = []
    operators = []
    wants_region = True
    for token in _TOKEN.findall(expression):
        is_region = token not in (*_BINDS, "(", ")")
        if wants_region != (is_region or token == "("):
            raise RecipeError(f"{expression!r} is no set of regions: {token!r} stands where it cannot", WAY)
        if is_region:
            postfix.append(token)
        elif token == "(":
            operators.append(token)
        else:
            while operators and operators[-1] != "(" and _BINDS[operators[-1]] >= _BINDS.get(token, 0):
                postfix.append(operators.pop())
            if token != ")":
                operators.append(token)
            elif not operators or operators.pop() != "(":
                raise RecipeError(f"{expression!r} closes a parenthesis that it does not open", WAY)
        wants_region = not is_region and token != ")"
    if wants_region or "(" in operators:
        raise RecipeError(f"{expression!r} is no set of regions: it ends too early", WAY)
    return postfix + operators[::-1]


def split_masks(
    expressions: Mapping[str, str],
    space: Sensors | Voxels,
    control: Control = "none",
    seed: int = 0,
    where: str = "the recording",
) -> dict[str, Bool]:
    """Find the voxels of each stream: masks [V] by name.

    Args:
        expressions: Set of regions by the stream's name; later ones may use earlier names.
        space: What was recorded.
        control: Exchange the sets among the streams (`swapped`), draw sets of the same sizes and overlaps
            from all of these voxels (`random`), or give each stream all of them (`all`).
        seed: Of `random`.
        where: What the recording is, for errors.

    Raises:
        BrainhiveError: if the recording has sensors.
        RecipeError: naming a region that the recording does not have, or a set without voxels.
    """
    if not expressions:
        return {}
    if isinstance(space, Sensors):
        problem = f"signal.region_split needs voxels, {where} has sensors"
        raise BrainhiveError(problem, "leave region_split out")
    masks: dict[str, Bool] = {}
    for name, expression in expressions.items():
        operands: list[Bool] = []
        for token in parsed(expression):
            if token in _OPERATIONS:
                second = operands.pop()
                operands[-1] = _OPERATIONS[token](operands[-1], second)
            else:
                known = {**space.regions, **masks}
                operands.append(known[_find_region(token, known, f"{where}: ", f", of {expression!r}")])
        (masks[name],) = operands
        if not masks[name].any():
            filled = " ".join(region for region, mask in space.regions.items() if mask.any())
            problem = f"{where}: no voxel lies in region_split.{name}, {expression!r}"
            raise RecipeError(problem, f"regions with voxels: {filled or 'none'}")

    # other sets of the same voxels, as a control
    sets = list(masks.values())
    union: Bool = np.any(sets, 0)
    if control == "swapped":
        sets = [*sets[1:], sets[0]]
    elif control == "all":
        sets = [union] * len(sets)
    elif control == "random":
        places = np.flatnonzero(union)
        order = np.random.default_rng((seed, len(places))).permutation(places)
        moved = np.arange(len(union))
        moved[places] = order
        sets = [mask[moved] for mask in sets]
    return dict(zip(masks, sets, strict=True))
