"""Steps from a continuous signal to trials, which preparations and streams share:
filter, cutting, whitening.

Whitening is multivariate noise normalisation: signals times the inverse root of the
noise's covariance, as Guggenmos et al. 2018, THINGS-EEG2's authors and NICE apply it.
The covariance of each block of observations is shrunk as in scikit-learn's discriminant
analysis (Ledoit-Wolf on standardised columns), then all are averaged. Here the blocks
of a chunk are one batched product.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import compress
from math import ceil, log2
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from pydantic import Field, model_validator

from brainhive_cli.core import parts
from brainhive_cli.core.arrays import Array, Bool, Float32, Float64, Int64
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.key_types import yaml_no_as_text
from brainhive_cli.core.sections import refuse_idle
from brainhive_cli.data.signals.trials import group_trials

ROWS = 256
"""Trials of one channel that are cut at a time: 2 MiB, which stays in a CPU's cache."""
Across = Literal["epochs", "time"]
"""Observations of a block: `epochs`, the samples of one trial, so that the response
itself counts as noise; `time`, the trials of one stimulus at one time.
"""
CHUNK = 2**18
"""Values in a chunk of blocks: 1 MiB in float32, which stays in a CPU's cache."""
SMALLEST = 1e-9
"""Share of the largest variance below which a direction holds rounding and no
signal.
"""
SignalArray = NDArray[np.floating[Any]]
Band = tuple[float | None, float | None]
"""Lower and upper edge of a filter in Hz; None where there is none."""
Milliseconds = Annotated[float, Field(ge=-3_600_000, le=3_600_000)]  # an hour


class Steps(parts.Config):
    """Baseline, resampling, cut, whitening: the defaults are those of NICE, AlignVis
    and UBP.
    """

    epoch_ms: tuple[Milliseconds, Milliseconds] = Field(
        (-200, 1000), description="start and stop of a trial, both inclusive"
    )
    baseline: bool = Field(
        True, description="subtract the mean of the samples up to the onset, inclusive"
    )
    rate_hz: float = Field(
        250, gt=0, description="resampled to this, as mne does it, if recorded faster"
    )
    keep_ms: tuple[float, float] = Field(
        (0, 1000),
        description="times that are kept, before the noise is measured; the last "
        "excluded",
    )
    whiten: Annotated[Literal["epochs", "time", "no"], yaml_no_as_text] = Field(
        "epochs",
        description="noise that is normalised: over the samples of each trial, or over "
        "the trials of each picture at each time",
    )
    whiten_by: Literal["training", "both"] = Field(
        "training",
        description="whose noise: that of a session's training trials, or the mean "
        "with that of test trials",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        start, stop = self.epoch_ms
        if not start < stop or (self.baseline and start > 0):
            raise ValueError(
                f"epoch_ms {[start, stop]} does not go from before the onset to after "
                "it"
            )
        if not start <= self.keep_ms[0] < self.keep_ms[1] <= stop:
            raise ValueError(
                f"keep_ms {list(self.keep_ms)} does not lie in epoch_ms {[start, stop]}"
            )
        if self.whiten == "no":
            refuse_idle(
                self,
                "whiten_by",
                "where nothing is whitened",
                "preparation.whiten_by=training",
            )
        return self

    @classmethod
    def from_preparation(cls, preparation: Mapping[str, Any]) -> Self:
        """Read them among the steps that made a model's signals."""
        keys = preparation.keys() & cls.model_fields.keys()
        return cls.model_validate({key: preparation[key] for key in keys})

    def citations(self) -> tuple[str, ...]:
        """List the paper of the whitening, where it is done."""
        return () if self.whiten == "no" else ("guggenmos2018",)


class CausalFilter:
    """Butterworth filter of fourth order that never looks ahead, and goes on from chunk
    to chunk.

    It starts as if the first sample had lasted for ever: the offset of an amplifier, a
    thousand times the signal, would ring for half a minute. A signal gives the same
    numbers in one chunk or in many.

    Args:
        band_hz: Lower and upper edge; None where there is none.
        rate_hz: Sampling rate.

    Raises:
        BrainhiveError: if an edge is not below half the rate.
    """

    def __init__(self, band_hz: Band, rate_hz: float) -> None:
        from scipy.signal import butter

        refuse_high_edges(band_hz, rate_hz)
        low, high = band_hz
        kind = "bandpass" if low and high else "high" if low else "low"
        # scipy takes the edge of a filter with one edge as a number, not as a list
        edges = band_hz if low and high else low or high
        self._sections = butter(4, edges, kind, fs=rate_hz, output="sos")
        self._state: Float64 | None = None  # [sections, 2, ...]

    def __call__(self, samples: Array) -> Float64:
        """Filter the next samples [n, ...] along their first axis."""
        from scipy.signal import sosfilt, sosfilt_zi

        if not len(samples):
            return np.asarray(samples, np.float64)
        if self._state is None:
            steady = sosfilt_zi(self._sections)  # [sections, 2]
            self._state = (
                steady.reshape(*steady.shape, *(1,) * (samples.ndim - 1)) * samples[0]
            )
        filtered, self._state = sosfilt(self._sections, samples, axis=0, zi=self._state)
        return filtered

    def reset(self) -> None:
        """Start anew with the next sample, as after a gap."""
        self._state = None


def refuse_high_edges(band_hz: Band, rate_hz: float) -> None:
    """Refuse a band that reaches half the sampling rate.

    Raises:
        BrainhiveError: naming the edge.
    """
    for edge in filter(None, band_hz):
        if edge >= rate_hz / 2:
            raise BrainhiveError(
                f"a filter edge of {edge:g} Hz is not below half the rate, {rate_hz:g} "
                "Hz",
                f"preparation.band_hz=[low, high] below {rate_hz / 2:g}",
            )


class Resampling:
    """Resampling of epochs in the way of `mne.Epochs.resample`: padded with their
    edges, cut in frequency.

    The lengths are rounded, so that the samples do not lie quite where mne says; data
    that others have prepared have the same error.

    Args:
        samples: Samples of an epoch.
        rate_hz: Rate before.
        to_hz: Rate after; not more.

    Attributes:
        inside: Resampled samples that belong to the epoch, and not to the padding.
        time_shift: Delay of the first sample in milliseconds, and the true rate.
    """

    def __init__(self, samples: int, rate_hz: float, to_hz: float) -> None:
        self.samples = samples
        self.is_identity = rate_hz == to_hz

        # padded to a power of two, which the transform is fast at; the padding is
        # resampled, too
        self._padded = 2 ** ceil(log2(samples + 2 * min(samples // 8, 100)))
        self._before = (self._padded - samples) // 2
        self._resampled = max(round(self._padded * to_hz / rate_hz), 1)
        first = round(self._before * to_hz / rate_hz)
        self.inside = slice(first, first + max(round(samples * to_hz / rate_hz), 1))

        # what rounding does to times
        step = self._padded / self._resampled  # samples before for one after
        late_ms = (first * step - self._before) * 1000 / rate_hz
        true_hz = rate_hz if self.is_identity else round(rate_hz / step, 3)
        self.time_shift = {"late_ms": round(late_ms, 3), "rate_hz": true_hz}

    def __call__(self, epochs: Array) -> Array:
        """Resample [n, samples], in their own precision."""
        from scipy import fft

        if self.is_identity:
            return epochs
        # spectrum of epochs that are padded with their edges, [n, frequencies]
        padded = self._padded
        resampled = self._resampled
        after = padded - self.samples - self._before
        spectrum = fft.rfft(
            np.pad(epochs, ((0, 0), (self._before, after)), "edge"), axis=1
        )

        # cut at the new Nyquist frequency, whose value counts for two; the factor keeps
        # amplitudes
        spectrum = spectrum[:, : resampled // 2 + 1] * (resampled / padded)
        if resampled % 2 == 0:
            spectrum[:, -1] *= 2 if resampled < padded else 0.5
        return fft.irfft(spectrum, resampled, axis=1, overwrite_x=True)[:, self.inside]


class Cutting:
    """Cutting of trials out of a recording of one rate.

    Args:
        steps: The keys of the recipe.
        recorded_hz: Samples a second of the recording.

    Attributes:
        rate_hz: Samples a second of the trials: a recording is never resampled to more
            than it has.
        span: First and last sample of a trial, from its onset.
        resampling: Resampling of a trial.
        times_s: Times [T] of the kept samples, as mne gives them.

    Raises:
        BrainhiveError: if the times that are kept hold no sample, or one whose noise
            cannot be measured.
    """

    def __init__(self, steps: Steps, recorded_hz: float) -> None:
        self.steps = steps
        self.recorded_hz = recorded_hz
        self.rate_hz = min(steps.rate_hz, recorded_hz)
        start, stop = (round(ms * recorded_hz / 1000) for ms in steps.epoch_ms)
        self.span = start, stop
        self.resampling = Resampling(stop - start + 1, recorded_hz, self.rate_hz)

        # times of all samples of a trial
        inside = self.resampling.inside
        first_ms = start * 1000 / recorded_hz  # of a whole sample
        times_ms = (
            first_ms + np.arange(inside.stop - inside.start) * 1000 / self.rate_hz
        )

        # 1e-6 ms: a sample at a limit of keep_ms counts as inside, whatever rounding
        # does
        first, last = np.searchsorted(times_ms + 1e-6, steps.keep_ms)
        if first == last:
            raise BrainhiveError(
                f"no sample at {self.rate_hz:g} Hz lies in keep_ms "
                f"{list(steps.keep_ms)}",
                "preparation.keep_ms=[start, stop], further apart",
            )
        if last - first == 1 and steps.whiten == "epochs":
            raise BrainhiveError(
                f"keep_ms {list(steps.keep_ms)} holds 1 sample at {self.rate_hz:g} Hz, "
                "but noise over the samples of a trial needs 2",
                "preparation.keep_ms=[start, stop], further apart; or "
                "preparation.whiten=time, or no",
            )
        self._kept = slice(int(first), int(last))
        self.times_s: Float64 = times_ms[self._kept] / 1000

    def are_complete(self, onsets: Int64, samples: int) -> Bool:
        """Mark the trials [n] that lie wholly in a recording of so many samples."""
        start, stop = self.span
        return (onsets + start >= 0) & (onsets + stop < samples)

    def cut_trials(
        self,
        channels: Iterable[Array],
        names: Sequence[str],
        onsets: Int64,
        scale: float,
        may_be_lost: bool = False,
    ) -> Float32:
        """Cut trials out of a recording, one channel at a time.

        Resampling is in float32; means are subtracted before it in the precision of the
        recording, whose offset may be a thousand times the signal.

        Args:
            channels: The samples of each channel.
            names: Names of the channels.
            onsets: [trials] samples.
            scale: Factor to the unit of the result.
            may_be_lost: Whether trials may have NaN in all channels, as where samples
                were lost.

        Returns:
            [trials, C, T]; NaN in trials that were lost.

        Raises:
            BrainhiveError: naming a channel with values that are not finite, or flat
                ones where no noise is measured, which would find them.
        """
        # without a baseline the mean of the trial is subtracted, and added again after
        # resampling
        first = self.span[0]
        resampling = self.resampling
        inside = self._kept
        baseline = slice(0, 1 - first) if self.steps.baseline else slice(None)

        # [trials, C, T]
        epochs = np.empty(
            (len(onsets), len(names), inside.stop - inside.start), np.float32
        )
        is_finite = np.empty(epochs.shape[:2], bool)
        for index, samples in enumerate(channels):
            # a view: nothing is copied yet
            windows = sliding_window_view(samples, resampling.samples)
            for start in range(0, len(onsets), ROWS):
                trials = windows[onsets[start : start + ROWS] + first]  # [n, samples]
                means = trials[:, baseline].mean(1, keepdims=True)
                trials -= means
                centred = np.multiply(
                    trials, scale, dtype=np.float32, casting="same_kind"
                )
                block = resampling(centred)[:, inside]  # [n, T]
                # resampling would leave the means as they are
                if not self.steps.baseline:
                    block = block + (means * scale).astype(np.float32)
                rows = slice(start, start + len(trials))
                is_finite[rows, index] = np.isfinite(block).all(1)
                epochs[rows, index] = block

        # a trial without any channel was lost; else the channel is at fault
        is_lost = np.zeros(len(epochs), bool)
        if may_be_lost:
            is_lost |= ~is_finite.any(1)
        counts = (~is_finite[~is_lost]).sum(0)  # [C]
        if bad := [*compress(names, counts)]:
            raise BrainhiveError(
                f"channel {', '.join(bad)} has NaN or infinite values in "
                f"{counts.max()} of {len(epochs)} trials",
                "leave it out: preparation.channels=[...]",
            )

        # the noise, where it is measured, finds flat channels itself
        epochs[is_lost] = 0
        if self.steps.whiten == "no" and not is_lost.all():
            refuse_flat_channels(np.einsum("nct,nct->c", epochs, epochs), names)
        epochs[is_lost] = np.nan
        return epochs


def estimate_covariance(epochs: SignalArray, stimuli: Int64, across: Across) -> Float64:
    """Average the shrunk covariances [C, C] of blocks, with equal weight for each
    stimulus.

    Args:
        epochs: [trials, C, T] of one session, in a unit in which the values are near 1,
            as microvolts are.
        stimuli: [trials], the stimulus of each trial.
        across: Observations of a block.

    Raises:
        BrainhiveError: if no stimulus was shown twice, as `time` needs.
    """
    total = np.zeros((epochs.shape[1],) * 2)  # [C, C]
    for blocks, weights in (_trials if across == "epochs" else _times)(epochs, stimuli):
        total += _sum_shrunk(blocks - blocks.mean(2, keepdims=True), weights)
    return total


def _trials(
    epochs: SignalArray, stimuli: Int64
) -> Iterator[tuple[SignalArray, Float64]]:
    """Yield trials [n, C, T] and their weights [n]."""
    # each stimulus weighs the same, however often it was shown
    _, stimulus, counts = np.unique(stimuli, return_inverse=True, return_counts=True)
    weights = 1 / (counts[stimulus] * len(counts))

    step = max(1, CHUNK // epochs[0].size)
    for start in range(0, len(epochs), step):
        yield epochs[start : start + step], weights[start : start + step]


def _times(
    epochs: SignalArray, stimuli: Int64
) -> Iterator[tuple[SignalArray, Float64]]:
    """Yield the trials of each stimulus and time as observations [n, C, R], and the
    weights [n].
    """
    _, table, counts = group_trials(stimuli)
    blocks = int((counts > 1).sum()) * epochs.shape[2]
    if not blocks:
        raise BrainhiveError(
            "no stimulus was shown twice in this session", "preparation.whiten=epochs"
        )

    # stimuli with equal numbers of trials form one batch
    for repetitions in np.unique(counts[counts > 1]):
        rows = table[counts == repetitions, :repetitions]  # [S, R]
        step = max(1, CHUNK // (epochs[0].size * repetitions))
        for start in range(0, len(rows), step):
            repeated = epochs[rows[start : start + step]]  # [s, R, C, T]
            observations = repeated.transpose(0, 3, 2, 1).reshape(
                -1, repeated.shape[2], repetitions
            )
            # [n, C, R]; two trials may nearly cancel
            observations = observations.astype(np.float64)
            yield observations, np.full(len(observations), 1 / blocks)


def _sum_shrunk(centred: SignalArray, weights: Float64) -> Float64:
    """Sum shrunk covariances, (1 - λ) S + λ diag(S), of blocks.

    Args:
        centred: [n, C, T] blocks of T observations with mean 0, each with its λ; they
            are overwritten.
        weights: [n].
    """
    count, channels, observations = centred.shape

    # squared correlations of channels, summed over pairs
    products = centred @ centred.transpose(0, 2, 1)  # [n, C, C]
    variances = np.diagonal(products, axis1=1, axis2=2) / observations  # [n, C]
    precisions = np.divide(
        1, variances, out=np.zeros_like(variances), where=variances > 0
    )[:, :, None]
    channel_sums = ((products * products) @ precisions).astype(np.float64)  # [n, C, 1]
    squares = (channel_sums * precisions).sum((1, 2)) / observations**2  # [n]

    # λ [n] of Ledoit and Wolf 2004: the variance of the estimate over its distance from
    # the identity; the variance is the spread of the squared lengths of standardised
    # observations [n, T]
    lengths = (precisions.transpose(0, 2, 1) @ np.square(centred, out=centred))[:, 0]
    fourth = (lengths.astype(np.float64) ** 2).mean(1)
    distance = (squares - channels) / channels
    spread = np.minimum((fourth - squares) / (channels * observations), distance)
    shrinkage = np.divide(spread, distance, out=np.zeros(count), where=distance > 0)

    # (1 - λ) S in one product over blocks, λ diag(S) on the diagonal
    weight = (weights * (1 - shrinkage) / observations).astype(centred.dtype)
    total = (weight @ products.reshape(count, -1)).reshape(channels, channels)
    return total + np.diag((weights * shrinkage) @ variances)


def refuse_flat_channels(variances: Array, names: Sequence[str]) -> None:
    """Refuse channels [C] that hold no signal, or signals in another unit.

    Raises:
        BrainhiveError: naming them.
    """
    largest = variances.max()
    # what lies even further below the largest is rounding
    if flat := [*compress(names, variances <= SMALLEST**2 * largest)]:
        raise BrainhiveError(
            f"flat channels: {', '.join(flat)}",
            f"leave them out: preparation.exclude=[{','.join(flat)}]",
        )
    is_small = variances <= SMALLEST * largest
    if small := [*compress(names, is_small)]:
        ratio = np.sqrt(largest / variances[is_small].max())
        raise BrainhiveError(
            f"channels {', '.join(compress(names, ~is_small))} are {ratio:.0e} times "
            f"as large as {', '.join(small)}, as if they had no unit",
            "correct the units in the file, or leave some out: "
            "preparation.channels=[...]",
        )


def compute_whitener(noise: Float64, names: Sequence[str]) -> Float64:
    """Compute Σ^(-1/2) [C, C] of a covariance of noise.

    Raises:
        BrainhiveError: naming flat channels; or if channels are sums of others, as
            after average reference.
    """
    refuse_flat_channels(np.diag(noise), names)
    values, directions = np.linalg.eigh(noise)  # [C], [C, C]
    if values[0] <= SMALLEST * values[-1]:
        raise BrainhiveError(
            "the covariance of the noise is singular: channels are sums of one another",
            "leave out the reference, or bad channels that were interpolated; or "
            "preparation.whiten=no",
        )
    return (directions * values**-0.5) @ directions.T


def apply_whitener(epochs: SignalArray, matrix: SignalArray) -> None:
    """Multiply trials [n, C, T] by a whitener [C, C], in place."""
    step = max(1, CHUNK // epochs[0].size)
    factor = matrix.astype(epochs.dtype)
    for start in range(0, len(epochs), step):
        epochs[start : start + step] = factor @ epochs[start : start + step]


def require_noise_splits(splits: Iterable[str], steps: Steps) -> list[str]:
    """List the splits of a session in which noise is measured.

    Raises:
        BrainhiveError: if it has none of those that it is to be measured in.
    """
    measured = [
        split for split in splits if split == "train" or steps.whiten_by == "both"
    ]
    if steps.whiten != "no" and not measured:
        raise BrainhiveError(
            "this session has no training trials, whose noise is to be measured",
            "preparation.whiten_by=both, or preparation.whiten=no",
        )
    return measured


def measure_noise(
    epochs: Mapping[str, Float32],
    stimuli: Mapping[str, Int64],
    steps: Steps,
    names: Sequence[str],
) -> Float64:
    """Measure the covariance [C, C] of the noise of one session; arguments are those of
    `normalise`.

    Raises:
        BrainhiveError: if there are no trials whose noise is to be measured, or
            channels hold values whose squares overflow.
    """
    assert steps.whiten != "no"
    measured = require_noise_splits(epochs, steps)
    with np.errstate(over="ignore", invalid="ignore"):  # an overflow is refused below
        covariances = [
            estimate_covariance(epochs[split], stimuli[split], steps.whiten)
            for split in measured
        ]
        noise = np.mean(covariances, 0)  # [C, C]
    if not np.isfinite(noise).all():
        # [C]
        most = np.max([np.abs(epochs[split]).max((0, 2)) for split in measured], 0)
        raise BrainhiveError(
            f"channel {names[most.argmax()]} has values of up to {most.max():.3g}, too "
            "large to whiten",
            "leave it out: preparation.channels=[...]; or correct its unit",
        )
    return noise


def whiten_session(
    epochs: Mapping[str, Float32],
    stimuli: Mapping[str, Int64],
    steps: Steps,
    names: Sequence[str],
) -> Float64 | None:
    """Whiten the trials of one session in place.

    Args:
        epochs: [n, C, T] of each split; `train` first.
        stimuli: [n] of each split.
        steps: Keys of the whitening.
        names: Names of the channels.

    Returns:
        Σ^(-1/2) [C, C]; None where nothing is whitened.

    Raises:
        BrainhiveError: as `measure_noise`; or if channels are flat, or sums of others.
    """
    if steps.whiten == "no":
        return None
    matrix = compute_whitener(measure_noise(epochs, stimuli, steps, names), names)
    for signal in epochs.values():
        apply_whitener(signal, matrix)
    return matrix
