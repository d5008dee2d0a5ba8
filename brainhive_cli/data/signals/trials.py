"""Trials of a subject: signals with what was shown, where and when; chosen, averaged
and normalised late.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from brainhive_cli.core import console, documents
from brainhive_cli.core.arrays import Array, Bool, Float32, Float64, Int64, UInt64
from brainhive_cli.core.artifacts import Mark
from brainhive_cli.core.errors import BrainhiveError, RecipeError, first_line
from brainhive_cli.data.files import hdf5
from brainhive_cli.data.files.hdf5 import NUMBERS, LazyRows
from brainhive_cli.data.files.ids import Names
from brainhive_cli.data.signals import provenance
from brainhive_cli.data.signals.channel_mapping import ChannelMapping
from brainhive_cli.data.signals.normalisations import Normaliser
from brainhive_cli.data.signals.spaces import (
    Sensors,
    Voxels,
    find_channel_rows,
    find_region,
    find_sample_range,
    list_axis_values,
)
from brainhive_cli.models.signal_spec import name_modality

if TYPE_CHECKING:
    import torch

MAX_STIMULI_PER_READ = 256
"""Stimuli whose signals are read at a time, at most."""
REGION_NAME = r"(?!-$)[^\s&|()]+"
"""What a region may be called where sets of them are written; it may hold hyphens, as
`prf-visualrois`.
"""
STEP_TOLERANCE = 0.02
"""Share of the time between samples by which it may differ from 1 / rate, as after
resampling.
"""
PADDING_VALUES = {
    "sessions": -1,
    "runs": -1,
    "onset_s": np.nan,
    "trial_numbers": -1,
    "known_digests": 0,
}
"""Lists [N, R] of trials, and what they have where there is none."""


@dataclass(frozen=True)
class Trials:
    """Trials of one subject while the stimuli of one split were shown: in a store, in
    memory or of a stream.

    What is chosen of them is read late: `averages`, `singles` and `read` read it.

    Attributes:
        signal: [N, R, C, T], or [N, R, V, 1] of voxels; indexed along N, of the
            source's dtype; need not be in memory.
        image_ids: [N] stimulus ids, or file stems where the source knows no more; ()
            where nobody knows what was seen: such trials can be decoded, but neither
                stored nor learned from.
        space: What the third axis is: sensors, or voxels.
        times_s: [T] seconds after stimulus onset.
        rate_hz: Samples a second; None where there is one sample and no rate.
        repetitions: [N] how many of R there are; None when all are.
        sessions: [N, R] index of the session of each repetition, -1 where there is
            none; None if not known.
        provenance: Facts of the origin. `preparation` holds the keys of its recipe,
            `sessions` what each session says, `simulated` how a program made the
            signals, `source` the file that others had prepared; `recorded_unit` is that
            before whitening. Preparations add facts of their own.
        whiteners: [S, C, C], Σ^(-1/2) by which the signals of each session were
            multiplied; None if by none.
        runs: [N, R] number of the run of each repetition within its session, -1 where
            there is none; None if not known.
        onset_s: [N, R] seconds from the start of its run to the stimulus of each
            repetition, NaN where there is none; None if not known.
        trial_numbers: [N, R] number of each repetition in the order of time, from 0,
            where onsets are not known; -1 where there is none; None if not known.
        known_digests: [N, R] `digest_trials` of the signal as it was recorded, where a
            store has them.
        subject: Number of the subject, where it is known.
        stimulus: [N] row of each stimulus in the target stores; empty before they are
            matched.
        index: [N] which stimuli these are of all that were recorded in the split, or
            which trials where each is a row; None where they are all.
        where: Name of the trials in errors.
        recorded: The same trials with all channels and samples, where some were
            selected.
        rows: [C] which channels or voxels of `recorded` these are.
        samples: Which of its samples.
        scale: Factor on its signals.
        normalises_trials: Whether each repetition and channel is centred over time and
            divided by its norm when it is read.
        mapping: From these channels to a model's, before the normaliser; None where
            they are these.
        normaliser: Normalises what is read.
        counts: [N] how many repetitions of each stimulus there are.
        is_there: [N, R] which repetitions there are.
        width: C or V of what is read: of the model, where channels are mapped.
        channels: Names of the channels that are read; () for voxels.

    Raises:
        BrainhiveError: if an axis of the signal has another length than one of its
            lists, or the times do not match the rate.
    """

    signal: Any
    image_ids: Sequence[str]
    space: Sensors | Voxels
    times_s: Float64
    rate_hz: float | None
    unit: str
    provenance: dict[str, Any] = field(default_factory=dict)
    repetitions: Int64 | None = None
    sessions: NDArray[np.int8] | None = None
    whiteners: Float64 | None = None
    runs: NDArray[np.int16] | None = None
    onset_s: Float64 | None = None
    trial_numbers: Int64 | None = None
    known_digests: UInt64 | None = None
    subject: int = 0
    stimulus: Int64 = field(default_factory=lambda: np.empty(0, np.int64))
    index: Int64 | None = None
    where: str = "the recording"
    recorded: "Trials | None" = None
    rows: Int64 | None = None
    samples: slice = field(default_factory=lambda: slice(None))
    scale: float = 1.0
    normalises_trials: bool = False
    mapping: ChannelMapping | None = None
    normaliser: Normaliser | None = None
    counts: Int64 = field(init=False)
    is_there: Bool = field(init=False)
    width: int = field(init=False)
    channels: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Check every axis against every list, and derive what follows from the
        fields.
        """
        try:
            # a part of trials that were checked is not checked again
            if self.recorded is None and self.index is None:
                self._check_axes()
            count, most, width, _ = self.signal.shape
            counts = (
                np.full(count, most) if self.repetitions is None else self.repetitions
            )
            channels = self.space.names if isinstance(self.space, Sensors) else ()
            if self.mapping is not None:
                width = len(self.mapping.matrix)
                channels = self.mapping.names
            # the dataclass is frozen
            vars(self).update(
                counts=counts,
                is_there=np.arange(most) < counts[:, None],
                width=int(width),
                channels=tuple(channels),
            )
        except (AttributeError, TypeError, ValueError) as error:
            raise BrainhiveError(
                f"a recording has a field of another type: {first_line(error)}",
                "help(brainhive_cli.api.Trials) lists the types of its fields",
            ) from error

    def _check_axes(self) -> None:
        # fields by type, as callers of the API make trials, too
        documents.check(
            self.provenance, "provenance of a recording", dict, "provenance={}"
        )
        documents.check(self.unit, "unit of a recording", str, "a unit, as uV")
        shape = list(self.signal.shape)
        if len(shape) != 4:
            raise BrainhiveError(f"signals {shape} are not [N, R, C, T]")
        if self.signal.dtype.kind not in NUMBERS:
            raise BrainhiveError(f"signals are {self.signal.dtype}, not real numbers")
        if not isinstance(self.image_ids, Names) and not all(
            isinstance(one, str) for one in self.image_ids
        ):
            raise BrainhiveError(
                "image ids of a recording are not all text", "str(number)"
            )

        # each list belongs to an axis of the signal
        lists: list[tuple[str, Any, int]] = [
            ("image ids", self.image_ids if len(self.image_ids) else None, 0),
            ("repetitions", self.repetitions, 0),
            *(
                (name, values, 2)
                for name, values in list_axis_values(self.space).items()
            ),
            ("times", self.times_s, 3),
        ]
        if isinstance(self.space, Voxels):
            lists += [
                (f"values of the map {name}", values, 2)
                for name, values in self.space.maps.items()
            ]
        for name, values, axis in lists:
            if values is not None and len(values) != shape[axis]:
                raise BrainhiveError(
                    f"signals {shape} come with {len(values)} {name}, not {shape[axis]}"
                )

        # counts of repetitions, and times
        counts = np.asarray(shape[1] if self.repetitions is None else self.repetitions)
        if ((counts < 1) | (counts > shape[1])).any():
            raise BrainhiveError(
                f"signals {shape} come with counts of repetitions beyond 1 to "
                f"{shape[1]}"
            )
        if self.rate_hz is None and shape[3] != 1:
            raise BrainhiveError(f"signals of {shape[3]} samples have no sampling rate")
        # [T - 1], 1 each; none of one sample
        steps = np.diff(self.times_s) * (self.rate_hz or 1)
        # of NaN, too
        if self.rate_hz and not (np.abs(steps - 1) <= STEP_TOLERANCE).all():
            raise BrainhiveError(
                "times lie "
                f"{steps[np.abs(steps - 1).argmax()] * 1000 / self.rate_hz:g} ms "
                f"apart, not {1000 / self.rate_hz:g} ms as at {self.rate_hz:g} Hz",
                "correct the times, or the sampling rate",
            )

        # single trials: a value wherever there is a repetition, and nowhere else
        # [N, R]
        is_there = np.arange(shape[1]) < np.broadcast_to(counts, shape[:1])[:, None]
        for name, trials in {
            "runs": self.runs,
            "onsets": self.onset_s,
            "trial numbers": self.trial_numbers,
            "sessions": self.sessions,
        }.items():
            if trials is None:
                continue
            is_known = np.isfinite(trials) if name == "onsets" else trials >= 0
            if trials.shape != is_there.shape or (is_known != is_there).any():
                raise BrainhiveError(
                    f"signals {shape} come with {name} that are not one a repetition"
                )

        # a whitener for each session
        if self.whiteners is not None:
            if [*self.whiteners.shape[1:]] != [shape[2]] * 2:
                raise BrainhiveError(
                    f"signals {shape} come with whiteners {list(self.whiteners.shape)}"
                )
            most = len(self.whiteners)
            if self.sessions is not None and self.sessions.max(initial=-1) >= most:
                raise BrainhiveError(
                    f"signals {shape} come with {most} whiteners for more sessions"
                )

    @property
    def times_in_run(self) -> Array | None:
        """[N, R] onset of each trial in its run, or its number in the order of time;
        None if neither is known.
        """
        return self.trial_numbers if self.onset_s is None else self.onset_s

    def take(self, rows: Int64 | Bool) -> Self:
        """Take stimuli by their indices, in this order, or by a mask; what was read is
        not read again.
        """
        signal = all_rows = self.signal
        index = np.arange(len(signal))[rows]
        # in memory: copied now; in a store: rows are composed, and read when needed
        if type(signal) is np.ndarray:
            signal = signal[index]
        elif not np.array_equal(index, np.arange(len(signal))):
            signal = LazyRows(
                (len(index), *all_rows.shape[1:]),
                all_rows.dtype,
                lambda part: all_rows[_as_slice(index[part])],
            )
        return self.change(
            signal=signal,
            image_ids=Names.of(self.image_ids)[index] if len(self.image_ids) else (),
            recorded=self.recorded and self.recorded.take(index),
            stimulus=self.stimulus[index] if len(self.stimulus) else self.stimulus,
            # rows of the split as recorded, also after an earlier selection
            index=index if self.index is None else self.index[index],
            **{
                name: index_optional(getattr(self, name), index)
                for name in (*PADDING_VALUES, "repetitions")
            },
            # a view where rows follow each other
            **{
                name: values[_as_slice(index)]
                for name, values in self._list_read().items()
            },
        )

    def choose(self, is_chosen: Bool) -> Self:
        """Choose some of the repetitions [N, R]; stimuli without one are left out."""
        rows = np.flatnonzero(is_chosen.any(1))
        chosen = self.take(rows)
        is_chosen = is_chosen[rows]
        # nothing to reorder: what is in memory stays
        if (is_chosen == chosen.is_there).all():
            return chosen

        # the chosen repetitions first, and as many columns as the most of them
        counts = is_chosen.sum(1)
        signal = chosen.signal
        # [n, r]
        order = np.argsort(~is_chosen, 1, kind="stable")[:, : counts.max(initial=0)]

        def choose(values: Array, part: Any = slice(None)) -> Array:
            """Bring signals [n, R, C, T] into this order; zeros where there is none."""
            values = np.where(is_chosen[part][..., None, None], values, 0)
            return np.take_along_axis(values, order[part][..., None, None], 1)

        # lists [N, R] of trials in this order
        known: dict[str, Any] = {
            name: np.take_along_axis(
                np.where(is_chosen, values, absent), order, 1
            ).astype(values.dtype)
            for name, absent in PADDING_VALUES.items()
            if (values := getattr(chosen, name)) is not None
        }
        shape = (len(rows), order.shape[1], *signal.shape[2:])  # [n, r, C, T]

        # single trials in memory are reordered; averages were over other repetitions
        if "singles" in (before := chosen._list_read()):
            known["singles"] = choose(before["singles"])
        averages = {"averages": None} if "averages" in before else {}
        return chosen.change(
            **averages,
            signal=LazyRows(
                shape,
                signal.dtype,
                lambda part: choose(np.asarray(signal[part]), part),
            ),
            repetitions=counts,
            recorded=chosen.recorded and chosen.recorded.choose(is_chosen),
            **known,
        )

    def hold_out(self, is_tested: Bool, split: str) -> Self:
        """Take the trials that test a model (`test`) or that it learns from (`train`),
        a row [1, C, T] each.

        Several may have one stimulus; `index` is then their position among all trials.

        Args:
            is_tested: [N, R] which trials a fold tests.
            split: Which side of the fold.
        """
        # a trial is a row, read late
        is_chosen = is_tested if split == "test" else self.is_there & ~is_tested
        signal, rows, columns = self.signal, *np.nonzero(is_chosen)
        names = self.image_ids
        trials = (rows[:, None], columns[:, None])

        def read(part: Any) -> Array:
            # a store is indexed along N alone
            distinct, inverse = np.unique(rows[part], return_inverse=True)
            return np.asarray(signal[_as_slice(distinct)])[inverse, columns[part]][
                :, None
            ]

        # lists [N, R] become [n, 1]
        known: dict[str, Any] = {
            name: index_optional(getattr(self, name), trials) for name in PADDING_VALUES
        }
        return replace(
            self,
            signal=LazyRows((len(rows), 1, *signal.shape[2:]), signal.dtype, read),
            image_ids=Names.of(names[row] for row in rows.tolist())
            if len(names)
            else (),
            repetitions=None,
            # position among all trials, for which several have one stimulus
            index=np.flatnonzero(is_chosen[self.is_there]),
            stimulus=self.stimulus[rows] if len(self.stimulus) else self.stimulus,
            **{**known, "known_digests": self.digests[trials]},
        )

    def select(
        self,
        channels: Sequence[str] | None = None,
        window_ms: tuple[float, float] | None = None,
        scale: float = 1.0,
        where: str = "the recording",
        sets: Mapping[str, Bool] = MappingProxyType({}),
        normalises_trials: bool = False,
    ) -> Self:
        """Select channels by name or region, or voxels by region, and a window, and
        scale the signals.

        Channels come in the order of their names, voxels in that of the data.

        Args:
            channels: Names; None: all. Where there are sets of voxels, all that lie in
                one of them.
            window_ms: Start and stop after onset; None: all.
            scale: Factor.
            where: Name of the trials, for errors.
            sets: Masks [V] of all voxels by name, which become regions: those that
                streams of a model read.
            normalises_trials: Whether each repetition and channel is centred over the
                window and divided by its norm before centring, before it is scaled.

        Raises:
            RecipeError: naming what the data do not have, and the nearest name.
        """
        # rows [C]: channels in the order of their names, or voxels in that of the data
        signal = self.signal
        space = self.space
        rows = np.arange(self.signal.shape[2])
        if channels is not None and isinstance(space, Sensors):
            rows = find_channel_rows(space.names, channels)
        elif channels is not None and isinstance(space, Voxels):
            masks = [
                space.regions[find_region(name, space.regions)] for name in channels
            ]
            rows = np.flatnonzero(np.any(masks, 0))
            if not len(rows):
                raise RecipeError(
                    f"no voxel lies in {', '.join(channels)}",
                    f"regions: {' '.join(space.regions)}",
                )
        # streams of a model read the union of their sets
        if sets:
            rows = np.flatnonzero(np.any(list(sets.values()), 0))
        if isinstance(space, Voxels):
            space = replace(space, regions={**space.regions, **sets})
        samples = find_sample_range(self.times_s, window_ms)
        times_s = self.times_s[samples]
        if normalises_trials and len(times_s) < 2:
            raise RecipeError(
                f"signal.normalise_trials acts over time, and {where} has one sample",
                "signal.normalise_trials=false",
            )

        # float32, as brain models compute; read late, some stimuli at a time
        def read(part: Any) -> Float32:
            chosen = np.asarray(signal[part, :, :, samples])[:, :, rows].astype(
                np.float32, copy=False
            )
            if normalises_trials:
                # the norm before centring, as AlignVis; channels of zeros stay 0
                norm = np.linalg.norm(chosen, axis=-1, keepdims=True)
                chosen = chosen - chosen.mean(-1, keepdims=True)
                chosen = chosen / np.where(norm == 0, 1, norm)
            return chosen if scale == 1 else chosen * np.float32(scale)

        shape = (*signal.shape[:2], len(rows), len(times_s))
        return replace(
            self,
            signal=LazyRows(shape, np.dtype(np.float32), read),
            space=space.select(rows),
            times_s=times_s,
            # of all channels; `recorded` has them
            whiteners=None,
            recorded=self,
            rows=rows,
            samples=samples,
            scale=scale,
            normalises_trials=normalises_trials,
            where=where,
        )

    def normalise(self, normaliser: Normaliser | None) -> Self:
        """Normalise what is read."""
        # signals in memory are normalised otherwise, or mapped: they are read again
        if (
            normaliser is None
            or self.normaliser is not None
            or self.mapping is not None
        ):
            return replace(self, normaliser=normaliser)
        before = {
            name: normaliser(values) for name, values in self._list_read().items()
        }
        return self.change(normaliser=normaliser, **before)

    def average(self, count: int, generator: "torch.Generator") -> Self:
        """Average up to `count` repetitions of each stimulus, drawn at random, each at
        most once.
        """
        import torch

        from brainhive_cli.data.signals.augmentations import (
            Augment,
            draw_repetitions,
            mix_repetitions,
        )

        singles = torch.from_numpy(self.singles)
        counts = torch.from_numpy(self.counts)
        chosen = draw_repetitions(singles, counts, count, generator)
        # the default Augment has equal weights
        averages = mix_repetitions(*chosen, Augment(), generator).numpy()
        return self.change(averages=averages, singles=None)

    def change(self, **values: Any) -> Self:
        """Change fields; `averages` and `singles` in memory are kept, unless they are
        among the values.
        """
        # `replace` makes an object without what cached properties hold
        before = self._list_read()
        held = {
            name: signal
            for name in ("averages", "singles")
            if (signal := values.pop(name, before.get(name))) is not None
        }
        changed = replace(self, **values)
        vars(changed).update(held)
        return changed

    def _list_read(self) -> dict[str, Float32]:
        """List the signals in memory by the property that read them."""
        return {
            name: vars(self)[name]
            for name in ("averages", "singles")
            if name in vars(self)
        }

    @property
    def positions(self) -> tuple[tuple[float, float, float], ...] | None:
        """Positions of the channels in metres; None for voxels or mapped channels, or
        if one is unknown.
        """
        known = self.space.positions if isinstance(self.space, Sensors) else None
        if known is None or self.mapping is not None or not np.isfinite(known).all():
            return None
        return tuple((x, y, z) for x, y, z in np.asarray(known, np.float64).tolist())

    @property
    def regions(self) -> dict[str, tuple[int, ...]]:
        """Indices of each region's voxels; empty for sensors."""
        masks = self.space.regions if isinstance(self.space, Voxels) else {}
        return {
            name: tuple(np.flatnonzero(mask).tolist()) for name, mask in masks.items()
        }

    def read(self, part: Any, as_singles: bool = False) -> Float32:
        """Read the averages over repetitions of some stimuli, mapped and normalised.

        Args:
            part: Slice or rows of the N stimuli.
            as_singles: Whether to read each repetition by itself; absent ones are zeros
                before normalisation.

        Returns:
            [n, C, T], or [n, R, C, T].

        Raises:
            BrainhiveError: if a value is not finite; it names the picture and the
                channel.
        """
        held = self._list_read().get("singles" if as_singles else "averages")
        if held is not None:
            return held[part]

        # float32 before sums, for which float16 is too coarse
        signal = np.asarray(self.signal[part]).astype(np.float32, copy=as_singles)
        counts = self.counts[part]
        # absent repetitions become zeros, whatever the source has there
        if (counts < signal.shape[1]).any():
            is_there = np.arange(signal.shape[1]) < counts[:, None]
            signal = np.where(is_there[..., None, None], signal, 0)
        if not as_singles:
            signal = signal.sum(1) * (1 / counts[:, None, None]).astype(np.float32)

        # a value that is not finite, by picture and channel
        if not np.isfinite(signal).all():
            index, *_, row, _ = np.argwhere(~np.isfinite(signal))[0]
            number = np.arange(len(self.signal))[part][index]
            ids = self.image_ids
            picture = f"picture {ids[number]}" if len(ids) else f"row {number}"
            which = f"voxel {row if self.rows is None else self.rows[row]}"
            if isinstance(self.space, Sensors):
                which = f"channel {self.space.names[row]}"
            raise BrainhiveError(
                f"{self.where}: a signal is not finite, of {picture}, {which}",
                "repair the recording, or leave the channel out with signal.channels",
            )

        # the normaliser is of the model's channels, so that these are mapped first
        if self.mapping is not None:
            signal = self.mapping(
                signal, self.normaliser.mean if self.normaliser else None
            )
        return self.normaliser(signal) if self.normaliser else signal

    @cached_property
    def averages(self) -> Float32:
        """[N, C, T] averages over repetitions, in memory."""
        if "singles" in vars(self):
            # normalised, absent repetitions need not be zeros
            there = np.where(self.is_there[..., None, None], self.singles, 0)
            counts = self.counts[:, None, None].astype(np.float32)
            return there.sum(1, dtype=np.float32) / counts
        return self._read_all(False)

    @cached_property
    def singles(self) -> Float32:
        """[N, R, C, T] each repetition by itself, in memory."""
        return self._read_all(True)

    def _read_all(self, as_singles: bool) -> Float32:
        count, most, _, samples = self.signal.shape
        if count <= MAX_STIMULI_PER_READ:
            return self.read(slice(None), as_singles)
        # blocks bound the memory for conversion and sums
        repetitions = (most,) if as_singles else ()
        signals = np.empty((count, *repetitions, self.width, samples), np.float32)
        with console.progress(f"reading {self.where}", count) as bar:
            for start in range(0, count, MAX_STIMULI_PER_READ):
                part = slice(start, min(start + MAX_STIMULI_PER_READ, count))
                signals[part] = self.read(part, as_singles)
                bar.advance(part.stop - start)
        return signals

    @cached_property
    def digests(self) -> UInt64:
        """[N, R] digest of each trial, 0 where there is none; of a store without them,
        all rows are read.
        """
        digests = self.known_digests
        # a selection is known by its trials as they were recorded
        if digests is None and self.recorded is not None:
            digests = self.recorded.digests
        # in blocks, as the signal need not fit into memory
        if digests is None:
            digests = np.concatenate(
                [
                    digest_trials(
                        np.asarray(self.signal[start : start + MAX_STIMULI_PER_READ])
                    )
                    for start in range(
                        0, max(1, len(self.signal)), MAX_STIMULI_PER_READ
                    )
                ]
            )
        return np.where(self.is_there, digests, np.uint64(0))

    def refuse_copies(
        self, digests: UInt64, where: str, source: str, hint: str
    ) -> None:
        """Refuse trials that are equal, number by number, to trials that must be
        others.

        Args:
            digests: Digests of those.
            where: What the recording is.
            source: What the others are.
            hint: What to do.

        Raises:
            BrainhiveError: with the number of copies, and the stimulus, session and run
                of the first.
        """
        # digest 0: no trial, or one of equal numbers, which two may well have
        is_known = self.digests > 0
        is_copy = is_known & np.isin(self.digests, digests)
        if is_copy.any():
            # the first copy by stimulus, session and run
            row, column = np.argwhere(is_copy)[0]
            words = [f"of {self.image_ids[row]}"]
            if self.sessions is not None:
                words.append(f"session {self.sessions[row, column] + 1}")
            if self.runs is not None:
                words.append(f"run {self.runs[row, column]}")
            copies = (
                f"{is_copy.sum()} of {is_known.sum()} trials are copies of {source}"
            )
            raise BrainhiveError(
                f"{where}: {copies}; the first is {', '.join(words)}", hint
            )

    @property
    def caveats(self) -> list[str]:
        """Caveats of every number that depends on the signals."""
        return provenance.list_caveats(self.provenance)

    @property
    def preparation(self) -> dict[str, Any]:
        """Steps that made these numbers, by dotted key, as far as they are known."""
        return provenance.read_preparation(self.provenance)

    @property
    def modality(self) -> str:
        """Kind of the recordings, as `prepare` noted it, else by unit and channels."""
        noted = provenance.read_modality(self.provenance)
        return noted or name_modality(self.channels, self.unit)

    @property
    def made_by(self) -> tuple[str, ...]:
        """Kinds of the preparations that made the signals."""
        return provenance.list_preparations(self.provenance)

    @property
    def stimulus_marks(self) -> dict[str, Mark]:
        """Mark the stimulus in ms after onset, for as long as it was shown.

        Sessions that differ in the duration have a mark of the onset alone.
        """
        if self.times_s[-1] <= 0:  # voxels
            return {}
        durations = provenance.list_durations_ms(self.provenance)
        if len(durations) != 1:
            return {"onset": 0.0}
        return {"stimulus": (0.0, durations.pop())}


def index_optional(values: Array | None, index: Any) -> Array | None:
    """Take a part of an array that may not be known."""
    return None if values is None else values[index]


def _as_slice(rows: Any) -> Any:
    """Write ascending rows without a gap as a slice, which reads no copy."""
    is_whole = len(rows) and np.array_equal(
        rows, np.arange(rows[0], rows[0] + len(rows))
    )
    return slice(int(rows[0]), int(rows[-1]) + 1) if is_whole else rows


def digest_trials(signal: Array) -> UInt64:
    """Digest each trial of signals [N, R, C, T] as a store keeps them: [N, R].

    It is 0 where all numbers of a trial are equal, which two trials may well have.
    """
    # a trial a row: [N R, C T]
    trials = np.ascontiguousarray(signal, np.float32).reshape(
        prod(signal.shape[:2]), prod(signal.shape[2:])
    )
    is_constant = (trials == trials[:, :1]).all(1)
    digests = np.where(is_constant, np.uint64(0), hdf5.row_checksums(trials))
    return digests.reshape(signal.shape[:2])


def make_trial_reader(
    table: Int64, shape: Sequence[int], dtype: DTypeLike, trial: Callable[[int], Any]
) -> Callable[[Any], Array]:
    """Read trials one by one, in the order of the file; missing repetitions are zeros.

    Args:
        table: [N, R] trial of each repetition, -1 where there is none.
        shape: Of a trial, C and T.
        dtype: Of the result.
        trial: Number of a trial to its signal [C, T].
    """

    def read(part: slice) -> Array:
        numbers = table[part].ravel()
        trials = np.zeros((len(numbers), *shape), dtype)
        # ascending, so that the file is read from front to back
        for position in np.argsort(numbers, kind="stable").tolist():
            if numbers[position] >= 0:
                trials[position] = trial(int(numbers[position]))
        return trials.reshape(*table[part].shape, *shape)

    return read


def group_trials(stimuli: Array) -> tuple[Array, Int64, Int64]:
    """Group trials by stimulus.

    Args:
        stimuli: [trials] numbers or names, in the order of time.

    Returns:
        The stimuli [N], ascending; the trials of each [N, R], -1 where there is none;
        how many there are [N].
    """
    names, inverse, counts = np.unique(stimuli, return_inverse=True, return_counts=True)
    table = np.full((len(names), counts.max(initial=0)), -1, np.int64)
    # rows are filled one after another; a stable sort leaves trials in the order of
    # time
    table[np.arange(table.shape[1]) < counts[:, None]] = np.argsort(
        inverse, kind="stable"
    )
    return names, table, counts
