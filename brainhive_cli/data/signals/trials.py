"""Trials of one subject: signals, stimuli and times, read when they are needed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from math import prod
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from brainhive_cli.core import console, documents
from brainhive_cli.core.arrays import Array, Bool, Float32, Float64, Int64, UInt64
from brainhive_cli.core.artifacts import Mark
from brainhive_cli.core.cards import draw_card
from brainhive_cli.core.errors import BrainhiveError, RecipeError, first_line
from brainhive_cli.core.measurements import ORDER_UNKNOWN, merge_caveats
from brainhive_cli.data.files import hdf5
from brainhive_cli.data.files.hdf5 import NUMBERS, LazyRows
from brainhive_cli.data.files.ids import Names
from brainhive_cli.data.signals import provenance
from brainhive_cli.data.signals.channel_mapping import ChannelMapping
from brainhive_cli.data.signals.normalisations import Normaliser
from brainhive_cli.data.signals.spaces import (
    Sensors,
    Voxels,
    find_sample_range,
)
from brainhive_cli.models.signal_spec import guess_modality

if TYPE_CHECKING:
    import torch

MAX_STIMULI_PER_READ = 256
"""Largest number of stimuli whose signals are read at a time."""
STEP_TOLERANCE = 0.02
"""Largest relative difference of the time between samples from 1 / rate. Resampling
causes small differences.
"""
PADDING_VALUES = {
    "sessions": -1,
    "runs": -1,
    "onset_s": np.nan,
    "trial_numbers": -1,
    "known_digests": 0,
}
"""Fields [N, R] of `Trials`, and their value where a repetition does not exist."""


@dataclass(frozen=True)
class Trials:
    """Trials of one subject and split, in a store, in memory or from a stream.

    `averages`, `singles` and `read` read the signals.

    Attributes:
        signal: Signals [N, R, C, T], or [N, R, V, 1] of voxels, in memory or not. They
            are indexed along N and have the dtype of the source.
        image_ids: Stimulus ids [N], or file stems if the source has no ids. () if the
            stimuli are unknown. Such trials can be decoded, but not stored or learned
            from.
        space: Sensors or voxels of the third axis.
        times_s: Times [T] of the samples, in seconds after stimulus onset.
        rate_hz: Sampling rate, or None for a single sample without a rate.
        unit: Unit of the signals, such as "µV".
        provenance: Facts about the origin: the recipe keys in `preparation`, the facts
            of each session in `sessions`, the parameters of simulated signals in
            `simulated`, the file of prepared signals in `source`, the unit before
            whitening in `recorded_unit`, and further facts of preparations.
        repetitions: Number of repetitions [N] of each stimulus, or None for R.
        sessions: Session [N, R] of each repetition, from 0, or None if unknown. Here
            and below, repetitions that do not exist have `PADDING_VALUES`.
        whiteners: Whitener [S, C, C] of each session, by which its signals were
            multiplied, or None.
        runs: Run [N, R] within the session, or None if unknown.
        onset_s: Stimulus onset [N, R] in seconds from the start of the run, or None if
            unknown.
        trial_numbers: Number [N, R] of each repetition in the order of time, from 0, or
            None if unknown.
        known_digests: Digests [N, R] of the recorded signals (`digest_trials`), or None
            if the store has none.
        subject: Number of the subject, or 0 if unknown.
        stimulus: Row [N] of each stimulus in the target stores. Empty before stimuli
            are matched.
        index: Position [N] of each row among all stimuli of the split, or among all
            trials if each row is a trial. None if no rows were left out.
        where: Name of the trials in errors.
        recorded: The same trials with all channels and samples, or None if nothing was
            selected.
        rows: Row [C] of each channel or voxel in `recorded`.
        samples: Selected samples of `recorded`.
        scale: Factor by which the signals were multiplied.
        normalises_trials: If True, each repetition and channel is centred over time and
            divided by its norm when it is read.
        mapping: Mapping to the channels of a model, before normalisation, or None.
        normaliser: Normalisation of the signals that are read, or None.
        counts: Number of repetitions [N] of each stimulus.
        is_there: True [N, R] for repetitions that exist.
        width: Number of channels or voxels that are read, after the mapping.
        channels: Names of the channels that are read, or () for voxels.

    Raises:
        BrainhiveError: if the length of an axis differs from the length of its list, or
            the times do not match the rate.
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
        """Check the fields against each other, and derive the other fields."""
        try:
            # selections of checked trials need no second check
            if self.recorded is None and self.index is None:
                self._check_axes()
            n_stimuli, n_repetitions, width, _ = self.signal.shape
            counts = self.repetitions
            if counts is None:
                counts = np.full(n_stimuli, n_repetitions)
            channels = self.space.names
            if self.mapping is not None:
                width = len(self.mapping.matrix)
                channels = self.mapping.names
            # the dataclass is frozen
            vars(self).update(
                counts=counts,
                is_there=np.arange(n_repetitions) < counts[:, None],
                width=int(width),
                channels=tuple(channels),
            )
        except (AttributeError, TypeError, ValueError) as error:
            raise BrainhiveError(
                f"a field of a recording has the wrong type: {first_line(error)}",
                "help(brainhive_cli.api.Trials) lists the types of its fields",
            ) from error

    def _check_axes(self) -> None:
        """Raise an error if the signal, its lists and its times do not fit together."""
        # callers of the API construct trials, too, so check types
        documents.check(
            self.provenance, "provenance of a recording", dict, "provenance={}"
        )
        documents.check(self.unit, "unit of a recording", str, "a unit such as uV")
        shape = list(self.signal.shape)
        if len(shape) != 4:
            raise BrainhiveError(f"signals {shape} are not [N, R, C, T]")
        if self.signal.dtype.kind not in NUMBERS:
            raise BrainhiveError(f"signals are {self.signal.dtype}, not real numbers")
        if not isinstance(self.image_ids, Names) and not all(
            isinstance(image_id, str) for image_id in self.image_ids
        ):
            raise BrainhiveError(
                "the image ids of a recording are not all text", "str(number)"
            )

        # lists with a value for each position of an axis
        lists: list[tuple[str, Any, int]] = [
            ("repetitions", self.repetitions, 0),
            ("times", self.times_s, 3),
        ]
        if len(self.image_ids):
            lists.append(("image ids", self.image_ids, 0))
        for name, values in self.space.list_axis_values().items():
            lists.append((name, values, 2))
        for name, values in self.space.maps.items():
            lists.append((f"values of the map {name}", values, 2))
        for name, values, axis in lists:
            if values is not None and len(values) != shape[axis]:
                raise BrainhiveError(
                    f"signals {shape} come with {len(values)} {name}, not {shape[axis]}"
                )

        # sampling times, where NaN fails the comparison
        if self.rate_hz is None and shape[3] != 1:
            raise BrainhiveError(f"signals of {shape[3]} samples have no sampling rate")
        if self.rate_hz:
            steps = np.diff(self.times_s) * self.rate_hz  # [T - 1]
            step_errors = np.abs(steps - 1)
            if not (step_errors <= STEP_TOLERANCE).all():
                step_ms = steps[step_errors.argmax()] * 1000 / self.rate_hz
                raise BrainhiveError(
                    f"times lie {step_ms:g} ms apart, not {1000 / self.rate_hz:g} ms "
                    f"as at {self.rate_hz:g} Hz",
                    "correct the times, or the sampling rate",
                )
        self._check_repetitions(shape)

    def _check_repetitions(self, shape: list[int]) -> None:
        """Raise an error if values of repetitions do not fit the signal."""
        n_stimuli, n_repetitions, n_channels, _ = shape
        counts = np.asarray(n_repetitions)
        if self.repetitions is not None:
            counts = self.repetitions
        if ((counts < 1) | (counts > n_repetitions)).any():
            raise BrainhiveError(
                f"signals {shape} come with numbers of repetitions outside 1 to "
                f"{n_repetitions}"
            )

        # a value for each repetition, and padding elsewhere
        n_present = np.broadcast_to(counts, n_stimuli)
        is_there = np.arange(n_repetitions) < n_present[:, None]  # [N, R]
        lists = {
            "runs": self.runs,
            "onsets": self.onset_s,
            "trial numbers": self.trial_numbers,
            "sessions": self.sessions,
        }
        for name, values in lists.items():
            if values is None:
                continue
            has_value = np.isfinite(values) if name == "onsets" else values >= 0
            if values.shape != is_there.shape or (has_value != is_there).any():
                raise BrainhiveError(
                    f"signals {shape} come with {name} that do not have exactly one "
                    "value for each repetition"
                )

        # a whitener for each session
        if self.whiteners is not None:
            if self.whiteners.shape[1:] != (n_channels, n_channels):
                raise BrainhiveError(
                    f"signals {shape} come with whiteners {list(self.whiteners.shape)}"
                )
            n_whiteners = len(self.whiteners)
            if self.sessions is not None and (self.sessions >= n_whiteners).any():
                raise BrainhiveError(
                    f"signals {shape} come with {n_whiteners} whiteners for more "
                    "sessions"
                )

    def __repr__(self) -> str:
        """Return the subject and the size of the axes, without the signals."""
        return f"<Trials{self._subject_text}: {self.describe()}>"

    def _repr_html_(self) -> str:
        """Return a card for a notebook, with the size of each axis."""
        return draw_card(f"trials{self._subject_text}", [self.describe()])

    @property
    def _subject_text(self) -> str:
        """Words that name the subject, if it is known."""
        return f" of subject {self.subject}" if self.subject else ""

    def describe(self) -> str:
        """Describe the sizes of the axes [N, R, C, T], the times and the unit."""
        n_rows, n_repetitions, width, n_samples = self.signal.shape
        rows = f"{n_rows:,} pictures" if len(self.image_ids) else f"{n_rows:,} trials"
        if n_repetitions > 1:
            rows += f" × {n_repetitions} repetitions"

        sizes = [rows, self.space.describe_size(width)]
        if n_samples > 1:
            start_ms = 1000 * self.times_s[0]
            end_ms = 1000 * self.times_s[-1]
            sizes.append(
                f"{n_samples:,} samples from {start_ms:.0f} to {end_ms:.0f} ms"
            )
        if self.rate_hz:
            sizes.append(f"{self.rate_hz:g} Hz")
        return ", ".join(sizes + [self.unit])

    @property
    def times_in_run(self) -> Array | None:
        """Onsets [N, R] of the trials in their runs, or `trial_numbers`, or None."""
        return self.trial_numbers if self.onset_s is None else self.onset_s

    def take(self, rows: Int64 | Bool) -> Self:
        """Select stimuli by row numbers, in their order, or by a mask.

        Signals that were read stay in memory.
        """
        signal = self.signal
        index = np.arange(len(signal))[rows]
        # rows in memory are copied now, rows of a store are read when needed
        if type(signal) is np.ndarray:
            signal = signal[index]
        elif not np.array_equal(index, np.arange(len(signal))):
            signal = LazyRows(
                (len(index),) + signal.shape[1:],
                signal.dtype,
                partial(_read_rows, signal, index),
            )

        fields: dict[str, Any] = {}
        for name in (*PADDING_VALUES, "repetitions"):
            fields[name] = index_optional(getattr(self, name), index)
        for name, values in self._signals_in_memory().items():
            fields[name] = values[_as_slice(index)]
        return self.change(
            signal=signal,
            image_ids=Names.of(self.image_ids)[index] if len(self.image_ids) else (),
            recorded=self.recorded and self.recorded.take(index),
            stimulus=self.stimulus[index] if len(self.stimulus) else self.stimulus,
            # positions in the recorded split, also after an earlier selection
            index=index if self.index is None else self.index[index],
            **fields,
        )

    def choose(self, is_chosen: Bool) -> Self:
        """Select repetitions by a mask [N, R]. Stimuli without any are left out."""
        rows = np.flatnonzero(is_chosen.any(1))
        trials = self.take(rows)
        mask = is_chosen[rows]  # [n, R]
        if (mask == trials.is_there).all():
            return trials

        # move the selected repetitions to the front, and drop the columns behind them
        counts = mask.sum(1)
        n_columns = counts.max(initial=0)
        order = np.argsort(~mask, 1, kind="stable")[:, :n_columns]  # [n, r]
        fields: dict[str, Any] = {}
        for name, padding in PADDING_VALUES.items():
            values = getattr(trials, name)
            if values is not None:
                padded = np.where(mask, values, padding)
                ordered = np.take_along_axis(padded, order, 1)
                fields[name] = ordered.astype(values.dtype)

        # single trials in memory stay, but averages were over other repetitions
        in_memory = trials._signals_in_memory()
        if "singles" in in_memory:
            fields["singles"] = _reorder(in_memory["singles"], mask, order)
        if "averages" in in_memory:
            fields["averages"] = None

        signal = trials.signal
        shape = (len(rows), n_columns) + signal.shape[2:]  # [n, r, C, T]
        read = partial(_read_repetitions, signal, mask, order)
        return trials.change(
            signal=LazyRows(shape, signal.dtype, read),
            repetitions=counts,
            recorded=trials.recorded and trials.recorded.choose(mask),
            **fields,
        )

    def hold_out(self, is_tested: Bool, split: str) -> Self:
        """Select the test or training trials of a fold, each as a row [1, C, T].

        Several rows may show the same stimulus. `index` is the number of the trial in
        the recording, without padding.

        Args:
            is_tested: Mask [N, R] of the trials that the fold tests.
            split: "test" or "train".
        """
        is_selected = is_tested if split == "test" else self.is_there & ~is_tested
        rows, columns = np.nonzero(is_selected)
        trials = (rows[:, None], columns[:, None])
        fields: dict[str, Any] = {}
        for name in PADDING_VALUES:
            fields[name] = index_optional(getattr(self, name), trials)  # [n, 1]
        fields["known_digests"] = self.digests[trials]
        return replace(
            self,
            signal=LazyRows(
                (len(rows), 1) + self.signal.shape[2:],
                self.signal.dtype,
                partial(_read_trials, self.signal, rows, columns),
            ),
            image_ids=Names.of(self.image_ids)[rows] if len(self.image_ids) else (),
            repetitions=None,
            index=np.flatnonzero(is_selected[self.is_there]),
            stimulus=self.stimulus[rows] if len(self.stimulus) else self.stimulus,
            **fields,
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
        """Select channels or voxels and a time window, and scale the signals.

        Args:
            channels: Channels or regions, or None for all. Channels come in this order,
                voxels in the order of the data. `sets` replace it.
            window_ms: Start and stop after onset, or None for all samples.
            scale: Factor.
            where: Name of the trials, for errors.
            sets: Masks [V] of voxels, which become regions. The voxels of all sets are
                selected.
            normalises_trials: If True, each repetition and channel is centred over the
                window and divided by its norm before centring, then scaled.

        Raises:
            RecipeError: if the data lack a channel, a region or a part of the window.
        """
        # rows [C] of channels or voxels
        space = self.space
        rows = np.arange(self.signal.shape[2])
        if channels is not None:
            rows = space.find_rows(channels)
        if sets:
            rows = np.flatnonzero(np.any(list(sets.values()), 0))
        space = space.add_regions(sets)

        samples = find_sample_range(self.times_s, window_ms)
        times_s = self.times_s[samples]
        if normalises_trials and len(times_s) < 2:
            raise RecipeError(
                f"signal.normalise_trials acts over time, and {where} has one sample",
                "signal.normalise_trials=false",
            )
        shape = self.signal.shape[:2] + (len(rows), len(times_s))
        read = partial(
            _read_selection, self.signal, rows, samples, scale, normalises_trials
        )
        return replace(
            self,
            signal=LazyRows(shape, np.dtype(np.float32), read),
            space=space.select(rows),
            times_s=times_s,
            # whiteners need all channels, which `recorded` has
            whiteners=None,
            recorded=self,
            rows=rows,
            samples=samples,
            scale=scale,
            normalises_trials=normalises_trials,
            where=where,
        )

    def normalise(self, normaliser: Normaliser | None) -> Self:
        """Replace the normalisation of the signals that are read."""
        # normalised or mapped signals in memory are read again
        if (
            normaliser is None
            or self.normaliser is not None
            or self.mapping is not None
        ):
            return replace(self, normaliser=normaliser)
        normalised = {
            name: normaliser(values)
            for name, values in self._signals_in_memory().items()
        }
        return self.change(normaliser=normaliser, **normalised)

    def average(self, count: int, generator: "torch.Generator") -> Self:
        """Average up to `count` random repetitions of each stimulus.

        No repetition is drawn twice.
        """
        import torch

        from brainhive_cli.data.signals.augmentations import (
            Augment,
            draw_repetitions,
            mix_repetitions,
        )

        singles = torch.from_numpy(self.singles)
        counts = torch.from_numpy(self.counts)
        repetitions, n_drawn = draw_repetitions(singles, counts, count, generator)
        # the default `Augment` has equal weights
        averages = mix_repetitions(repetitions, n_drawn, Augment(), generator)
        return self.change(averages=averages.numpy(), singles=None)

    def change(self, **values: Any) -> Self:
        """Change fields, and keep `averages` and `singles` that are in memory.

        New values of these two replace them, or remove them if None.
        """
        # `replace` drops the values of cached properties
        in_memory: dict[str, Any] = dict(self._signals_in_memory())
        for name in ("averages", "singles"):
            if name in values:
                in_memory[name] = values.pop(name)
        changed = replace(self, **values)
        for name, signal in in_memory.items():
            if signal is not None:
                vars(changed)[name] = signal
        return changed

    def _signals_in_memory(self) -> dict[str, Float32]:
        """Return the cached `averages` and `singles`, keyed by their name."""
        names = ("averages", "singles")
        return {name: vars(self)[name] for name in names if name in vars(self)}

    @property
    def positions(self) -> tuple[tuple[float, float, float], ...] | None:
        """Positions of the channels in metres.

        None for voxels or mapped channels, or if a position is unknown.
        """
        positions = self.space.positions
        if positions is None or self.mapping is not None:
            return None
        if not np.isfinite(positions).all():
            return None
        rows = np.asarray(positions, np.float64).tolist()
        return tuple((x, y, z) for x, y, z in rows)

    @property
    def regions(self) -> dict[str, tuple[int, ...]]:
        """Indices of the voxels of each region. Empty for sensors."""
        masks = self.space.regions
        return {
            name: tuple(np.flatnonzero(mask).tolist()) for name, mask in masks.items()
        }

    def read(self, stimuli: Any, as_singles: bool = False) -> Float32:
        """Read the mapped and normalised signals of stimuli, averaged over repetitions.

        Args:
            stimuli: Slice or row numbers of the stimuli.
            as_singles: If True, read single repetitions. Those that do not exist are
                zeros before normalisation.

        Returns:
            Averages [n, C, T], or single repetitions [n, R, C, T].

        Raises:
            BrainhiveError: if a value is not finite.
        """
        in_memory = self._signals_in_memory()
        name = "singles" if as_singles else "averages"
        if name in in_memory:
            return in_memory[name][stimuli]

        # sums in float16 would be too coarse
        signal = np.asarray(self.signal[stimuli]).astype(np.float32, copy=as_singles)
        counts = self.counts[stimuli]
        if (counts < signal.shape[1]).any():
            is_there = np.arange(signal.shape[1]) < counts[:, None]
            signal = np.where(is_there[..., None, None], signal, 0)
        if not as_singles:
            signal = signal.sum(1) * (1 / counts[:, None, None]).astype(np.float32)
        if not np.isfinite(signal).all():
            self._raise_not_finite(signal, stimuli)

        # the normaliser has the channels of the mapping
        if self.mapping is not None:
            mean = self.normaliser.mean if self.normaliser else None
            signal = self.mapping(signal, mean)
        return self.normaliser(signal) if self.normaliser else signal

    def _raise_not_finite(self, signal: Float32, stimuli: Any) -> None:
        """Raise an error that names the first value of a signal that is not finite.

        Args:
            signal: Signals [n, ..., C, T] before the mapping.
            stimuli: Slice or row numbers of these stimuli.
        """
        index, *_, row, _ = np.argwhere(~np.isfinite(signal))[0]
        number = np.arange(len(self.signal))[stimuli][index]
        stimulus = f"row {number}"
        if len(self.image_ids):
            stimulus = f"picture {self.image_ids[number]}"
        recorded_row = row if self.rows is None else self.rows[row]
        channel = self.space.name_row(row, recorded_row)
        raise BrainhiveError(
            f"{self.where}: a signal is not finite, of {stimulus}, {channel}",
            "repair the recording, or leave the channel out with signal.channels",
        )

    @cached_property
    def averages(self) -> Float32:
        """Averages over repetitions [N, C, T], in memory."""
        if "singles" in vars(self):
            # after normalisation, padding may differ from zero
            singles = np.where(self.is_there[..., None, None], self.singles, 0)
            counts = self.counts[:, None, None].astype(np.float32)
            return singles.sum(1, dtype=np.float32) / counts
        return self._read_all(False)

    @cached_property
    def singles(self) -> Float32:
        """Single repetitions [N, R, C, T], in memory."""
        return self._read_all(True)

    def _read_all(self, as_singles: bool) -> Float32:
        """Read the signals of all stimuli, in blocks that bound the memory."""
        n_stimuli, n_repetitions, _, n_samples = self.signal.shape
        if n_stimuli <= MAX_STIMULI_PER_READ:
            return self.read(slice(None), as_singles)
        shape: tuple[int, ...] = (n_stimuli, self.width, n_samples)
        if as_singles:
            shape = (n_stimuli, n_repetitions, self.width, n_samples)
        signals = np.empty(shape, np.float32)
        with console.progress(f"reading {self.where}", n_stimuli) as bar:
            for start in range(0, n_stimuli, MAX_STIMULI_PER_READ):
                stop = min(start + MAX_STIMULI_PER_READ, n_stimuli)
                signals[start:stop] = self.read(slice(start, stop), as_singles)
                bar.advance(stop - start)
        return signals

    @cached_property
    def digests(self) -> UInt64:
        """Digest [N, R] of each recorded trial, and 0 as padding.

        If a store has no digests, all its rows are read.
        """
        digests = self.known_digests
        if digests is None and self.recorded is not None:
            digests = self.recorded.digests
        if digests is None:
            # in blocks, because the signal may not fit into memory
            blocks = []
            for start in range(0, max(1, len(self.signal)), MAX_STIMULI_PER_READ):
                signal = self.signal[start : start + MAX_STIMULI_PER_READ]
                blocks.append(digest_trials(np.asarray(signal)))
            digests = np.concatenate(blocks)
        return np.where(self.is_there, digests, np.uint64(0))

    def refuse_copies(
        self, digests: UInt64, where: str, source: str, hint: str
    ) -> None:
        """Raise an error if trials are copies of other trials.

        Args:
            digests: Digests [K] of the other trials.
            where: Name of these trials, for errors.
            source: Name of the other trials, for errors.
            hint: Advice for the error.

        Raises:
            BrainhiveError: with the number of copies, and the stimulus, session and run
                of the first copy.
        """
        # padding and constant trials have digest 0, and are no copies
        has_digest = self.digests > 0
        is_copy = has_digest & np.isin(self.digests, digests)
        if not is_copy.any():
            return
        row, column = np.argwhere(is_copy)[0]
        first_copy = [f"of {self.image_ids[row]}"]
        if self.sessions is not None:
            first_copy.append(f"session {self.sessions[row, column] + 1}")
        if self.runs is not None:
            first_copy.append(f"run {self.runs[row, column]}")
        raise BrainhiveError(
            f"{where}: {is_copy.sum()} of {has_digest.sum()} trials are copies of "
            f"{source}. The first is {', '.join(first_copy)}",
            hint,
        )

    @property
    def caveats(self) -> list[str]:
        """Caveats of every number that depends on the signals."""
        # rows of a user's arrays or epochs may be shuffled
        kinds = provenance.list_preparations(self.provenance)
        may_be_shuffled = not {"arrays", "epochs"}.isdisjoint(kinds)
        is_unknown = may_be_shuffled and self.times_in_run is None
        return merge_caveats(
            provenance.list_caveats(self.provenance),
            [ORDER_UNKNOWN] if is_unknown else [],
        )

    @property
    def has_chosen_channels(self) -> bool:
        """True if the recipe of the preparation names channels or their types."""
        for source in provenance.list_sources(self.provenance):
            keys = source.get("preparation", {})
            if keys.get("channels") or keys.get("types"):
                return True
        return False

    @property
    def preparation(self) -> dict[str, Any]:
        """Known steps that made the signals, by dotted key."""
        return provenance.read_preparation(self.provenance)

    @property
    def modality(self) -> str:
        """ "EEG", "MEG" or "fMRI", as `prepare` noted it, else by unit and channels."""
        modality = provenance.read_modality(self.provenance)
        return modality or guess_modality(self.channels, self.unit)

    @property
    def made_by(self) -> tuple[str, ...]:
        """Kinds of the preparations that made the signals."""
        return provenance.list_preparations(self.provenance)

    @property
    def stimulus_marks(self) -> dict[str, Mark]:
        """Start and end of the stimulus on the time axis, in ms after onset.

        Only the onset if its duration differs between sessions or is unknown. Empty if
        no sample follows the onset, as in voxels.
        """
        if self.times_s[-1] <= 0:
            return {}
        durations = provenance.list_durations_ms(self.provenance)
        if len(durations) != 1:
            return {"onset": 0.0}
        return {"stimulus": (0.0, durations.pop())}


def index_optional(values: Array | None, index: Any) -> Array | None:
    """Index an array, or return None if it is None."""
    return None if values is None else values[index]


def digest_trials(signal: Array) -> UInt64:
    """Digest each trial of signals.

    Args:
        signal: Signals [N, R, C, T], as a store holds them.

    Returns:
        Digests [N, R]. 0 if all numbers of a trial are equal, because different trials
        may be constant.
    """
    n_trials = prod(signal.shape[:2])
    trials = np.ascontiguousarray(signal, np.float32)
    trials = trials.reshape(n_trials, prod(signal.shape[2:]))
    is_constant = (trials == trials[:, :1]).all(1)
    digests = np.where(is_constant, np.uint64(0), hdf5.row_checksums(trials))
    return digests.reshape(signal.shape[:2])


def make_trial_reader(
    table: Int64, shape: Sequence[int], dtype: DTypeLike, trial: Callable[[int], Any]
) -> Callable[[slice], Array]:
    """Make a function that reads the repetitions of stimuli trial by trial.

    Args:
        table: Number [N, R] of the trial of each repetition, or -1 as padding.
        shape: Shape (C, T) of a trial.
        dtype: Dtype of the signals.
        trial: Returns the signal [C, T] of a trial by its number.

    Returns:
        Function from a slice of stimuli to their signals [n, R, C, T]. Padding is zero.
    """
    return partial(_read_trials_by_number, table, tuple(shape), dtype, trial)


def group_trials(stimuli: Array) -> tuple[Array, Int64, Int64]:
    """Group trials by stimulus.

    Args:
        stimuli: Number or name [n] of the stimulus of each trial, in the order of time.

    Returns:
        The stimuli [N], ascending, the trials [N, R] of each with -1 as padding, and
        their number [N].
    """
    names, inverse, counts = np.unique(stimuli, return_inverse=True, return_counts=True)
    table = np.full((len(names), counts.max(initial=0)), -1, np.int64)
    # a stable sort keeps the trials of a stimulus in the order of time
    is_there = np.arange(table.shape[1]) < counts[:, None]
    table[is_there] = np.argsort(inverse, kind="stable")
    return names, table, counts


def _as_slice(rows: Any) -> Any:
    """Convert ascending rows without gaps to a slice, which copies nothing."""
    is_contiguous = len(rows) and np.array_equal(
        rows, np.arange(rows[0], rows[0] + len(rows))
    )
    return slice(int(rows[0]), int(rows[-1]) + 1) if is_contiguous else rows


def _read_rows(signal: Any, index: Int64, stimuli: Any) -> Array:
    """Read stimuli of a selection, whose rows in the signal are `index`."""
    rows: Array = signal[_as_slice(index[stimuli])]
    return rows


def _reorder(signal: Array, mask: Bool, order: Int64) -> Array:
    """Reorder the repetitions of signals [n, R, C, T], with zeros as padding.

    Args:
        signal: Signals.
        mask: True [n, R] for the repetitions to keep.
        order: Column [n, r] in `signal` of each repetition.
    """
    kept = np.where(mask[..., None, None], signal, 0)
    return np.take_along_axis(kept, order[..., None, None], 1)


def _read_repetitions(signal: Any, mask: Bool, order: Int64, stimuli: Any) -> Array:
    """Read stimuli [n, R, C, T], reordered as by `_reorder`."""
    return _reorder(np.asarray(signal[stimuli]), mask[stimuli], order[stimuli])


def _read_trials(signal: Any, rows: Int64, columns: Int64, trials: Any) -> Array:
    """Read single trials [n, 1, C, T] by their rows and columns in the signal."""
    # a store is indexed along N only
    distinct_rows, inverse = np.unique(rows[trials], return_inverse=True)
    repetitions = np.asarray(signal[_as_slice(distinct_rows)])
    return repetitions[inverse, columns[trials]][:, None]


def _read_trials_by_number(
    table: Int64,
    shape: tuple[int, ...],
    dtype: DTypeLike,
    trial: Callable[[int], Any],
    stimuli: slice,
) -> Array:
    """Read the repetitions [n, R, C, T] of stimuli (`make_trial_reader`)."""
    numbers = table[stimuli].ravel()
    trials = np.zeros((len(numbers),) + shape, dtype)
    # ascending, so the file is read from front to back
    for position in np.argsort(numbers, kind="stable").tolist():
        if numbers[position] >= 0:
            trials[position] = trial(int(numbers[position]))
    return trials.reshape(table[stimuli].shape + shape)


def _read_selection(
    signal: Any,
    rows: Int64,
    samples: slice,
    scale: float,
    normalises_trials: bool,
    stimuli: Any,
) -> Float32:
    """Read selected channels and samples as float32, normalised and scaled.

    Source: the normalisation is AlignVis'.
    """
    selected = np.asarray(signal[stimuli, :, :, samples])[:, :, rows]
    selected = selected.astype(np.float32, copy=False)
    if normalises_trials:
        # the norm before centring, where channels of zeros stay 0
        norm = np.linalg.norm(selected, axis=-1, keepdims=True)
        selected = selected - selected.mean(-1, keepdims=True)
        selected = selected / np.where(norm == 0, 1, norm)
    return selected if scale == 1 else selected * np.float32(scale)
