"""Trials of one subject: signals, stimuli and times, read when they are needed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from math import prod
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from brainhive_cli.core.base import (
    Array,
    Bool,
    BrainhiveError,
    Float32,
    Float64,
    Int64,
    RecipeError,
    UInt64,
    console,
    first_line,
)
from brainhive_cli.data.files import LazyRows, Names, hdf5
from brainhive_cli.data.signals.channel_mapping import ChannelMapping
from brainhive_cli.data.signals.normalisations import Normaliser
from brainhive_cli.data.signals.spaces import (
    Sensors,
    Voxels,
    find_sample_range,
)
from brainhive_cli.data.signals.trial_table import (
    COLUMNS,
    TrialTable,
    check_axes,
    has_value,
    name_column,
)

if TYPE_CHECKING:
    import torch

MAX_STIMULI_PER_READ = 256
"""Largest number of stimuli whose signals are read at a time."""


@dataclass(frozen=True, repr=False)
class Trials(TrialTable):
    """Table of the n trials of N pictures, of one subject and split.

    The trials of a picture follow one another, in the order of time. `averages`,
    `singles`, `read` and `read_trials` read the signals.

    Attributes:
        signal: Signals [n, C, T], or [n, V, 1] of voxels, in memory or not. They are
            indexed along n and have the dtype of the source.
        image_ids: Stimulus id [n] of each trial, or its file stem if the source has no
            ids. () if the stimuli are unknown. Such trials can be decoded, but not
            stored or learned from.
        space: Sensors or voxels of the second axis.
        times_s: Times [T] of the samples, in seconds after stimulus onset.
        rate_hz: Sampling rate, or None for a single sample without a rate.
        unit: Unit of the signals, such as "µV".
        provenance: Facts about the origin: the recipe keys in `preparation`, the facts
            of each session in `sessions`, the parameters of simulated signals in
            `simulated`, the file of prepared signals in `source`, the unit before
            whitening in `recorded_unit`, and further facts of preparations.
        repetitions: Number of trials [N] of each picture. None if successive trials
            with the same id belong to a picture, and trials without ids to no other.
        sessions: Session [n] of each trial, from 0, or None if unknown.
        whiteners: Whitener [S, C, C] of each session, by which its signals were
            multiplied, or None.
        runs: Run [n] within the session, or None if unknown.
        onset_s: Stimulus onset [n] in seconds from the start of the run, or None if
            unknown.
        trial_numbers: Number [n] of each trial in the order of time, from 0, or None if
            unknown.
        known_digests: Digests [n] of the recorded signals (`digest_trials`), or None if
            the store has none.
        subject: Number of the subject, or 0 if unknown.
        stimulus: Row [N] of each picture in the target stores. Empty before pictures
            are matched.
        index: Position [N] of each picture in the split, or of each trial after
            `hold_out`. None if nothing was left out.
        where: Name of the trials in errors.
        recorded: The same trials with all channels and samples, or None if nothing was
            selected.
        rows: Row [C] of each channel or voxel in `recorded`.
        samples: Selected samples of `recorded`.
        scale: Factor by which the signals were multiplied.
        normalises_trials: If True, each trial and channel is centred over time and
            divided by its norm when it is read.
        mapping: Mapping to the channels of a model, before normalisation, or None.
        normaliser: Normalisation of the signals that are read, or None.
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
    width: int = field(init=False)
    channels: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Check the fields against each other, and derive the other fields."""
        try:
            # selections of checked trials need no second check
            if self.recorded is None and self.index is None:
                check_axes(self)
            _, width, _ = self.signal.shape
            channels = self.space.names
            if self.mapping is not None:
                width = len(self.mapping.matrix)
                channels = self.mapping.names
            # the dataclass is frozen
            vars(self).update(width=int(width), channels=tuple(channels))
        except (AttributeError, TypeError, ValueError) as error:
            raise BrainhiveError(
                f"a field of a recording has the wrong type: {first_line(error)}",
                "help(brainhive_cli.api.Trials) lists the types of its fields",
            ) from error

    @classmethod
    def from_repetitions(
        cls,
        signal: Any,
        image_ids: Sequence[str],
        space: Sensors | Voxels,
        times_s: Float64,
        rate_hz: float | None,
        unit: str,
        provenance: Any = MappingProxyType({}),
        repetitions: Int64 | None = None,
        **fields: Any,
    ) -> Self:
        """Make a table from the repetitions of pictures.

        Args:
            signal: Signals [N, R, C, T], in memory or not.
            image_ids: Stimulus ids [N], or () if the stimuli are unknown.
            space: Sensors or voxels of the third axis.
            times_s: Times [T] of the samples.
            rate_hz: Sampling rate, or None.
            unit: Unit of the signals.
            provenance: Facts about the origin.
            repetitions: Number of repetitions [N] of each picture, or None for R.
            fields: Further fields of trials. `sessions`, `runs`, `onset_s`,
                `trial_numbers` and `known_digests` are [N, R], with negative numbers or
                NaN where a repetition does not exist.

        Raises:
            BrainhiveError: if the shapes do not fit together.
        """
        shape = list(signal.shape)
        if len(shape) != 4:
            raise BrainhiveError(f"signals {shape} are not [N, R, C, T]")
        n_pictures, n_repetitions = shape[:2]
        counts = np.full(n_pictures, n_repetitions)
        if repetitions is not None:
            counts = np.asarray(repetitions)
        for name, values in (("repetitions", counts), ("image ids", image_ids)):
            is_unknown = name == "image ids" and not len(values)
            if len(values) != n_pictures and not is_unknown:
                raise BrainhiveError(
                    f"signals {shape} come with {len(values)} {name}, not {n_pictures}"
                )
        if counts.ndim > 1 or ((counts < 1) | (counts > n_repetitions)).any():
            raise BrainhiveError(
                f"signals {shape} come with numbers of repetitions outside 1 to "
                f"{n_repetitions}"
            )

        # leave out the repetitions that do not exist
        is_there = np.arange(n_repetitions) < counts[:, None]  # [N, R]
        pictures, columns = np.nonzero(is_there)
        for name in COLUMNS:
            column = fields.get(name)
            if column is None:
                continue
            has_padding = column.shape == is_there.shape
            if has_padding and name != "known_digests":
                has_padding = not has_value(column[~is_there]).any()
            if not has_padding:
                raise BrainhiveError(
                    f"signals {shape} come with {name_column(name)} that do not have "
                    "exactly one value for each repetition"
                )
            fields[name] = column[is_there]
        flat_signal: Any
        if isinstance(signal, np.ndarray) and is_there.all():
            # rows of a mapped file stay on disk
            flat_signal = signal.reshape(-1, *shape[2:])
        elif isinstance(signal, np.ndarray):
            flat_signal = signal[is_there]
        else:
            flat_signal = LazyRows(
                (len(pictures), *shape[2:]),
                signal.dtype,
                partial(_read_repetitions, signal, pictures, columns),
            )
        ids = Names.of(image_ids)[pictures] if len(image_ids) else ()
        if isinstance(provenance, MappingProxyType):
            provenance = dict(provenance)
        return cls(
            flat_signal,
            ids,
            space,
            times_s,
            rate_hz,
            unit,
            provenance,
            counts,
            **fields,
        )

    def as_repetitions(self, values: Array | None = None, padding: Any = 0) -> Array:
        """Arrange values of trials as [N, R, ...], a row for each picture.

        Args:
            values: Values [n, ...] of the trials, or None for the signals.
            padding: Value of repetitions that do not exist.
        """
        if values is None:
            values = self.singles
        shape = (len(self.counts), self.max_repetitions) + values.shape[1:]
        if len(values) == prod(shape[:2]):
            return values.reshape(shape)
        is_there = np.arange(shape[1]) < self.counts[:, None]
        repetitions = np.full(shape, padding, values.dtype)
        repetitions[is_there] = values
        return repetitions

    def take(self, pictures: Int64 | Bool) -> Self:
        """Select pictures by numbers, in their order, or by a mask [N].

        Signals that were read stay in memory.
        """
        pictures = np.arange(len(self.counts))[pictures]
        trials = self.find_trials(pictures)
        return self._pick(pictures, trials, self.counts[pictures])

    def choose(self, is_chosen: Bool) -> Self:
        """Select trials by a mask [n]. Pictures without any are left out."""
        trials = np.flatnonzero(is_chosen)
        counts = np.bincount(self.picture_of_trial[trials], minlength=len(self.counts))
        pictures = np.flatnonzero(counts)
        chosen = self._pick(pictures, trials, counts[pictures])
        if (counts[pictures] < self.counts[pictures]).any():
            # averages in memory were over other trials
            return chosen.change(averages=None)
        return chosen

    def hold_out(self, is_tested: Bool, split: str) -> Self:
        """Select the test or training trials of a fold, each as a picture of its own.

        Several may show the same stimulus. `index` is the number of the trial in the
        recording.

        Args:
            is_tested: Mask [n] of the trials that the fold tests.
            split: "test" or "train".
        """
        trials = np.flatnonzero(is_tested if split == "test" else ~is_tested)
        digests = self.digests[trials]
        held_out = self._pick(
            self.picture_of_trial[trials], trials, np.ones(len(trials), np.int64)
        )
        return replace(held_out, index=trials, known_digests=digests)

    def _pick(self, pictures: Int64, trials: Int64, counts: Int64) -> Self:
        """Select trials [m], `counts` of each picture, with all that is in memory."""
        # rows in memory are copied now, rows of a store are read when needed
        signal = self.signal
        if type(signal) is np.ndarray:
            signal = signal[trials]
        elif not np.array_equal(trials, np.arange(len(signal))):
            signal = LazyRows(
                (len(trials),) + signal.shape[1:],
                signal.dtype,
                partial(_read_rows, signal, trials),
            )

        fields: dict[str, Any] = {}
        for name in COLUMNS:
            fields[name] = index_optional(getattr(self, name), trials)
        for name, values in self._signals_in_memory().items():
            rows = pictures if name == "averages" else trials
            fields[name] = values[_as_slice(rows)]
        return self.change(
            signal=signal,
            image_ids=Names.of(self.image_ids)[trials] if len(self.image_ids) else (),
            repetitions=counts,
            recorded=self.recorded and self.recorded._pick(pictures, trials, counts),
            stimulus=self.stimulus[pictures] if len(self.stimulus) else self.stimulus,
            # positions in the recorded split, also after an earlier selection
            index=pictures if self.index is None else self.index[pictures],
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
            normalises_trials: If True, each trial and channel is centred over the
                window and divided by its norm before centring, then scaled.

        Raises:
            RecipeError: if the data lack a channel, a region or a part of the window.
        """
        # rows [C] of channels or voxels
        space = self.space
        rows = np.arange(self.signal.shape[1])
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
        shape = (len(self.signal), len(rows), len(times_s))
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

        singles = torch.from_numpy(self.as_repetitions())
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

    def read(self, pictures: Any) -> Float32:
        """Read the mapped and normalised averages over the trials of pictures.

        Args:
            pictures: Slice or numbers of the pictures.

        Returns:
            Averages [m, C, T].

        Raises:
            BrainhiveError: if a value is not finite.
        """
        if "averages" in vars(self):
            return self.averages[pictures]
        trials = self.find_trials(pictures)
        counts = self.counts[pictures]
        # sums in float16 would be too coarse
        signal = np.asarray(self.signal[_as_slice(trials)], np.float32)
        sums = sum_by_picture(signal, counts)
        averages = sums * (1 / counts[:, None, None]).astype(np.float32)
        return self._normalise(averages, self.first_trials[pictures])

    def read_trials(self, trials: Any) -> Float32:
        """Read the mapped and normalised signals [m, C, T] of single trials.

        Args:
            trials: Slice or rows of the trials.

        Raises:
            BrainhiveError: if a value is not finite.
        """
        if "singles" in vars(self):
            return self.singles[trials]
        rows = np.arange(len(self.signal))[trials]
        return self._normalise(np.array(self.signal[_as_slice(rows)], np.float32), rows)

    def _normalise(self, signal: Float32, trials: Int64) -> Float32:
        """Map and normalise signals [m, C, T], of which `trials` [m] are a trial each.

        Raises:
            BrainhiveError: if a value is not finite. It names the first one.
        """
        if not np.isfinite(signal).all():
            position, row, _ = np.argwhere(~np.isfinite(signal))[0]
            stimulus = f"row {trials[position]}"
            if len(self.image_ids):
                stimulus = f"picture {self.image_ids[trials[position]]}"
            recorded_row = row if self.rows is None else self.rows[row]
            channel = self.space.name_row(row, recorded_row)
            raise BrainhiveError(
                f"{self.where}: a signal is not finite, of {stimulus}, {channel}",
                "repair the recording, or leave the channel out with signal.channels",
            )
        # the normaliser has the channels of the mapping
        if self.mapping is not None:
            mean = self.normaliser.mean if self.normaliser else None
            signal = self.mapping(signal, mean)
        return self.normaliser(signal) if self.normaliser else signal

    @cached_property
    def averages(self) -> Float32:
        """Averages [N, C, T] over the trials of each picture, in memory."""
        if "singles" in vars(self):
            sums: Float32 = sum_by_picture(self.singles, self.counts)
            counts = self.counts[:, None, None].astype(np.float32)
            averages: Float32 = np.divide(sums, counts)
            return averages
        return self._read_all(self.read, len(self.counts))

    @cached_property
    def singles(self) -> Float32:
        """Single trials [n, C, T], in memory."""
        return self._read_all(self.read_trials, len(self.signal))

    def _read_all(self, read: Callable[[slice], Float32], count: int) -> Float32:
        """Read all of `count` rows, in blocks that bound the memory."""
        if count <= MAX_STIMULI_PER_READ:
            return read(slice(0, count))
        signals = np.empty((count, self.width, len(self.times_s)), np.float32)
        with console.progress(f"reading {self.where}", count) as bar:
            for start in range(0, count, MAX_STIMULI_PER_READ):
                stop = min(start + MAX_STIMULI_PER_READ, count)
                signals[start:stop] = read(slice(start, stop))
                bar.advance(stop - start)
        return signals

    @cached_property
    def digests(self) -> UInt64:
        """Digest [n] of each recorded trial. 0 for a constant trial.

        If a store has no digests, all its rows are read.
        """
        if self.known_digests is not None:
            return self.known_digests
        if self.recorded is not None:
            return self.recorded.digests
        # in blocks, because the signal may not fit into memory
        blocks = []
        for start in range(0, max(1, len(self.signal)), MAX_STIMULI_PER_READ):
            signal = self.signal[start : start + MAX_STIMULI_PER_READ]
            blocks.append(digest_trials(np.asarray(signal)))
        return np.concatenate(blocks)

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
        # constant trials have digest 0, and are no copies
        has_digest = self.digests > 0
        is_copy = has_digest & np.isin(self.digests, digests)
        if not is_copy.any():
            return
        row = int(is_copy.argmax())
        first_copy = [f"of {self.image_ids[row]}"]
        if self.sessions is not None:
            first_copy.append(f"session {self.sessions[row] + 1}")
        if self.runs is not None:
            first_copy.append(f"run {self.runs[row]}")
        raise BrainhiveError(
            f"{where}: {is_copy.sum()} of {has_digest.sum()} trials are copies of "
            f"{source}. The first is {', '.join(first_copy)}",
            hint,
        )


def index_optional(values: Array | None, index: Any) -> Array | None:
    """Index an array, or return None if it is None."""
    return None if values is None else values[index]


def digest_trials(signal: Array) -> UInt64:
    """Digest trials [n, C, T], as a store holds them.

    Returns:
        Digests [n]. 0 if all numbers of a trial are equal, because different trials may
        be constant.
    """
    trials = np.ascontiguousarray(signal, np.float32)
    trials = trials.reshape(len(signal), prod(signal.shape[1:]))
    is_constant = (trials == trials[:, :1]).all(1)
    return np.where(is_constant, np.uint64(0), hdf5.row_checksums(trials))


def sum_by_picture(signal: Array, counts: Int64) -> Array:
    """Sum the trials of each picture, in their order.

    Args:
        signal: Trials [n, ...], picture by picture.
        counts: Number of trials [N] of each picture, at least 1.

    Returns:
        Sums [N, ...].
    """
    n_repetitions = int(counts.max(initial=0))
    if len(counts) * n_repetitions == len(signal):
        return signal.reshape((len(counts), n_repetitions) + signal.shape[1:]).sum(1)
    first_trials = np.cumsum(counts) - counts
    sums = signal[first_trials]
    # one repetition of all pictures after another
    for repetition in range(1, n_repetitions):
        pictures = np.flatnonzero(counts > repetition)
        sums[pictures] += signal[first_trials[pictures] + repetition]
    return sums


def make_trial_reader(
    numbers: Int64, shape: Sequence[int], dtype: DTypeLike, trial: Callable[[int], Any]
) -> Callable[[Any], Array]:
    """Make a function that reads trials one by one.

    Args:
        numbers: Number [n] of each trial in the source.
        shape: Shape (C, T) of a trial.
        dtype: Dtype of the signals.
        trial: Returns the signal [C, T] of a trial by its number.

    Returns:
        Function from a slice or rows of trials to their signals [m, C, T].
    """

    def read(rows: Any) -> Array:
        selected_numbers = numbers[rows]
        signal = np.empty((len(selected_numbers), *shape), dtype)
        # ascending, so the file is read from front to back
        for position in np.argsort(selected_numbers, kind="stable").tolist():
            signal[position] = trial(int(selected_numbers[position]))
        return signal

    return read


def group_trials(stimuli: Array) -> tuple[Int64, Int64]:
    """Group trials by stimulus.

    Args:
        stimuli: Number or name [n] of the stimulus of each trial, in the order of time.

    Returns:
        Order [n] of the trials, by stimulus and then by time, and the number [N] of
        trials of each stimulus.
    """
    # a stable sort keeps the trials of a stimulus in the order of time
    order = np.argsort(stimuli, kind="stable")
    return order, np.unique(stimuli, return_counts=True)[1]


def _as_slice(rows: Any) -> Any:
    """Convert ascending rows without gaps to a slice, which copies nothing."""
    is_contiguous = len(rows) and np.array_equal(
        rows, np.arange(rows[0], rows[0] + len(rows))
    )
    return slice(int(rows[0]), int(rows[-1]) + 1) if is_contiguous else rows


def _read_rows(signal: Any, index: Int64, trials: Any) -> Array:
    """Read trials of a selection, whose rows in the signal are `index`."""
    rows: Array = signal[_as_slice(index[trials])]
    return rows


def _read_repetitions(
    signal: Any, pictures: Int64, columns: Int64, trials: Any
) -> Array:
    """Read trials [m, C, T] by their pictures and columns in signals [N, R, C, T]."""
    # the source is indexed along N only
    distinct_pictures, inverse = np.unique(pictures[trials], return_inverse=True)
    repetitions = np.asarray(signal[_as_slice(distinct_pictures)])
    return repetitions[inverse, columns[trials]]


def _read_selection(
    signal: Any,
    rows: Int64,
    samples: slice,
    scale: float,
    normalises_trials: bool,
    trials: Any,
) -> Float32:
    """Read selected channels and samples as float32, normalised and scaled.

    Source: the normalisation is AlignVis'.
    """
    selected = np.asarray(signal[trials, :, samples])[:, rows]
    selected = selected.astype(np.float32, copy=False)
    if normalises_trials:
        # the norm before centring, where channels of zeros stay 0
        norm = np.linalg.norm(selected, axis=-1, keepdims=True)
        selected = selected - selected.mean(-1, keepdims=True)
        selected = selected / np.where(norm == 0, 1, norm)
    return selected if scale == 1 else selected * np.float32(scale)
