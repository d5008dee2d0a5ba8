"""Steps from a continuous signal to whitened trials."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import compress
from math import ceil, log2
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from pydantic import Field, model_validator

from brainhive_cli.core.base import Array, Bool, BrainhiveError, Float32, Float64, Int64
from brainhive_cli.core.recipes import parts, refuse_idle
from brainhive_cli.data.signals.trials import group_trials

TRIALS_PER_BATCH = 256
"""Number of trials of a channel that are cut at a time. They take 2 MiB, which stays in
the cache of a CPU.
"""
VALUES_PER_BATCH = 2**18
"""Number of values in a batch of blocks. As float32 they take 1 MiB, which stays in the
cache of a CPU.
"""
MIN_VARIANCE_SHARE = 1e-9
"""Smallest share of the largest variance at which a direction holds signal. Below it is
rounding.
"""
NoiseBlocks = Literal["epochs", "time"]
"""Observations of a block of noise. `epochs`: the samples of a trial, so the response
counts as noise. `time`: the trials of a stimulus at one time.
"""
SignalArray = NDArray[np.floating[Any]]
Band = tuple[float | None, float | None]
"""Lower and upper edge of a filter in Hz, each None if there is no such edge."""
Milliseconds = Annotated[float, Field(ge=-3_600_000, le=3_600_000)]  # an hour


class Steps(parts.Config):
    """Recipe keys of cutting, resampling and whitening.

    The defaults are the settings of NICE, AlignVis and UBP.
    """

    epoch_ms: tuple[Milliseconds, Milliseconds] = Field(
        (-200, 1000), description="start and stop of a trial, both inclusive"
    )
    baseline: bool = Field(
        True, description="subtract the mean of the samples up to the onset, inclusive"
    )
    rate_hz: float = Field(
        250,
        gt=0,
        description="rate after resampling as in MNE, if the recording is faster",
    )
    keep_ms: tuple[float, float] = Field(
        (0, 1000),
        description="start and stop of the samples to keep, stop excluded; the noise "
        "is measured in them",
    )
    whiten: Literal["epochs", "time", "no"] = Field(
        "epochs",
        description="whiten the noise over the samples of each trial (epochs), or over "
        "the trials of each picture at each time (time); default for categories in own "
        "recordings: no",
    )
    whiten_by: Literal["training", "both"] = Field(
        "training",
        description="measure the noise in the training trials of each session, or "
        "average it over training and test trials (both)",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        start, stop = self.epoch_ms
        if start >= stop or (self.baseline and start > 0):
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
        """Select these keys from all keys of a preparation."""
        keys = preparation.keys() & cls.model_fields.keys()
        return cls.model_validate({key: preparation[key] for key in keys})

    def citations(self) -> tuple[str, ...]:
        """List the paper of the whitening, if signals are whitened."""
        return () if self.whiten == "no" else ("guggenmos2018",)


class CausalFilter:
    """Butterworth filter of fourth order that continues from chunk to chunk.

    It sees no later samples, and a signal in chunks gives the same numbers as in one
    piece. It starts as if the first sample had lasted forever, because the offset of an
    amplifier, a thousand times the signal, would ring for half a minute.

    Args:
        band_hz: Lower and upper edge, each None if there is no such edge.
        rate_hz: Sampling rate.

    Raises:
        BrainhiveError: if an edge is not below half the rate.
    """

    def __init__(self, band_hz: Band, rate_hz: float) -> None:
        from scipy.signal import butter

        refuse_high_edges(band_hz, rate_hz)
        low_hz, high_hz = band_hz
        # scipy takes a single edge as a number, not as a list
        edges: Any = high_hz
        kind = "low"
        if low_hz and high_hz:
            edges = band_hz
            kind = "bandpass"
        elif low_hz:
            edges = low_hz
            kind = "high"
        self._sections = butter(4, edges, kind, fs=rate_hz, output="sos")
        self._state: Float64 | None = None  # [sections, 2, ...]

    def __call__(self, samples: Array) -> Float64:
        """Filter the next samples [n, ...] along their first axis."""
        from scipy.signal import sosfilt, sosfilt_zi

        if not len(samples):
            return np.asarray(samples, np.float64)
        if self._state is None:
            steady_state = sosfilt_zi(self._sections)  # [sections, 2]
            channel_axes = (1,) * (samples.ndim - 1)
            steady_state = steady_state.reshape(steady_state.shape + channel_axes)
            self._state = steady_state * samples[0]
        filtered, self._state = sosfilt(self._sections, samples, axis=0, zi=self._state)
        return filtered

    def reset(self) -> None:
        """Start anew with the next sample, as after a gap."""
        self._state = None


def refuse_high_edges(band_hz: Band, rate_hz: float) -> None:
    """Raise an error if an edge of a band is not below half the sampling rate."""
    for edge_hz in band_hz:
        if edge_hz and edge_hz >= rate_hz / 2:
            raise BrainhiveError(
                f"the filter edge of {edge_hz:g} Hz is above half the sampling rate of "
                f"{rate_hz:g} Hz",
                f"set edges below {rate_hz / 2:g} Hz: preparation.band_hz=[LOW, HIGH]",
            )


class Resampling:
    """Resampling of epochs as in `mne.Epochs.resample`.

    Epochs are padded with their edges, and cut in the frequency domain. The lengths are
    rounded, so the samples deviate slightly from the times that MNE gives, as in data
    that were prepared with MNE.

    Args:
        samples: Number of samples of an epoch.
        rate_hz: Rate before resampling.
        to_hz: Rate after resampling, at most `rate_hz`.

    Attributes:
        inside: Slice of the resampled samples without the padding.
        time_shift: Delay of the first sample in milliseconds, and the true rate.
    """

    def __init__(self, samples: int, rate_hz: float, to_hz: float) -> None:
        self.samples = samples
        self.is_identity = rate_hz == to_hz

        # pad to a power of two, for which the transform is fast
        self._padded = 2 ** ceil(log2(samples + 2 * min(samples // 8, 100)))
        self._before = (self._padded - samples) // 2
        self._resampled = max(round(self._padded * to_hz / rate_hz), 1)
        start = round(self._before * to_hz / rate_hz)
        self.inside = slice(start, start + max(round(samples * to_hz / rate_hz), 1))

        # errors of the times by rounding
        step = self._padded / self._resampled  # old samples in a new sample
        late_ms = (start * step - self._before) * 1000 / rate_hz
        true_hz = rate_hz if self.is_identity else round(rate_hz / step, 3)
        self.time_shift = {"late_ms": round(late_ms, 3), "rate_hz": true_hz}

    def __call__(self, epochs: Array) -> Array:
        """Resample epochs [n, samples] in their own precision."""
        from scipy import fft

        if self.is_identity:
            return epochs
        n_after = self._padded - self.samples - self._before
        padded = np.pad(epochs, ((0, 0), (self._before, n_after)), "edge")
        spectrum = fft.rfft(padded, axis=1)  # [n, frequencies]

        # cut at the new Nyquist frequency, and scale to keep the amplitudes
        n_frequencies = self._resampled // 2 + 1
        spectrum = spectrum[:, :n_frequencies] * (self._resampled / self._padded)
        if self._resampled % 2 == 0:
            # the value at the Nyquist frequency stands for two
            spectrum[:, -1] *= 2 if self._resampled < self._padded else 0.5
        resampled = fft.irfft(spectrum, self._resampled, axis=1, overwrite_x=True)
        return resampled[:, self.inside]


class Cutting:
    """Cutting of trials from a recording.

    Args:
        steps: Recipe keys.
        recorded_hz: Sampling rate of the recording.

    Attributes:
        rate_hz: Sampling rate of the trials, at most the rate of the recording.
        span: First and last sample of a trial in the recording, from its onset.
        resampling: Resampling of a trial.
        times_s: Times [T] of the samples of a trial, as MNE gives them.

    Raises:
        BrainhiveError: if `keep_ms` holds no sample, or only one sample where the noise
            needs two.
    """

    def __init__(self, steps: Steps, recorded_hz: float) -> None:
        self.steps = steps
        self.recorded_hz = recorded_hz
        self.rate_hz = min(steps.rate_hz, recorded_hz)
        start, stop = (round(ms * recorded_hz / 1000) for ms in steps.epoch_ms)
        self.span = start, stop
        self.resampling = Resampling(stop - start + 1, recorded_hz, self.rate_hz)

        # times of all samples of a trial, from its first recorded sample
        inside = self.resampling.inside
        n_samples = inside.stop - inside.start
        start_ms = start * 1000 / recorded_hz
        times_ms = start_ms + np.arange(n_samples) * 1000 / self.rate_hz

        # 1e-6 ms exceed rounding, so a sample at the start is kept, at the stop not
        start_index, stop_index = np.searchsorted(times_ms + 1e-6, steps.keep_ms)
        if start_index == stop_index:
            raise BrainhiveError(
                f"no sample at {self.rate_hz:g} Hz lies in keep_ms "
                f"{list(steps.keep_ms)}",
                "preparation.keep_ms=[start, stop], further apart",
            )
        if stop_index - start_index == 1 and steps.whiten == "epochs":
            raise BrainhiveError(
                f"keep_ms {list(steps.keep_ms)} holds 1 sample at {self.rate_hz:g} Hz, "
                "but noise over the samples of a trial needs 2",
                "preparation.keep_ms=[start, stop], further apart; or "
                "preparation.whiten=time, or no",
            )
        self._kept_samples = slice(int(start_index), int(stop_index))
        self.times_s: Float64 = times_ms[self._kept_samples] / 1000

    def are_complete(self, onsets: Int64, samples: int) -> Bool:
        """Return True [n] for trials that lie wholly in a recording.

        Args:
            onsets: Onset [n] of each trial, as a sample number.
            samples: Number of samples of the recording.
        """
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
        """Cut trials from a recording, one channel at a time.

        Args:
            channels: Samples of each channel.
            names: Names [C] of the channels.
            onsets: Onset [n] of each trial, as a sample number.
            scale: Factor to the unit of the trials.
            may_be_lost: If True, trials may have NaN in all channels.

        Returns:
            Trials [n, C, T], with NaN in lost trials.

        Raises:
            BrainhiveError: if a channel has values that are not finite, or is flat and
                nothing is whitened. (Whitening refuses flat channels later.)
        """
        # the baseline of each trial, or without a baseline all its samples
        offset = self.span[0]
        baseline = slice(0, 1 - offset) if self.steps.baseline else slice(None)

        shape = (len(onsets), len(names), len(self.times_s))  # [n, C, T]
        epochs = np.empty(shape, np.float32)
        is_finite = np.empty(shape[:2], bool)
        for index, samples in enumerate(channels):
            # a view, which copies nothing
            windows = sliding_window_view(samples, self.resampling.samples)
            for start in range(0, len(onsets), TRIALS_PER_BATCH):
                # an offset may be a thousand times the signal, so subtract the mean
                # before the conversion to float32
                batch_onsets = onsets[start : start + TRIALS_PER_BATCH]
                trials = windows[batch_onsets + offset]  # [b, samples]
                means = trials[:, baseline].mean(1, keepdims=True)
                trials -= means
                centred = np.multiply(
                    trials, scale, dtype=np.float32, casting="same_kind"
                )
                block = self.resampling(centred)[:, self._kept_samples]  # [b, T]
                # without a baseline, trials keep their mean
                if not self.steps.baseline:
                    block = block + (means * scale).astype(np.float32)
                rows = slice(start, start + len(trials))
                is_finite[rows, index] = np.isfinite(block).all(1)
                epochs[rows, index] = block

        # a trial without any finite channel is lost, other faults are of the channel
        is_lost = np.zeros(len(epochs), bool)
        if may_be_lost:
            is_lost |= ~is_finite.any(1)
        n_faults = (~is_finite[~is_lost]).sum(0)  # [C]
        if n_faults.any():
            raise BrainhiveError(
                f"channel {', '.join(compress(names, n_faults))} has NaN or infinite "
                f"values in {n_faults.max()} of {len(epochs)} trials",
                "leave it out: preparation.channels=[...]",
            )

        epochs[is_lost] = 0
        if self.steps.whiten == "no" and not is_lost.all():
            refuse_flat_channels(np.einsum("nct,nct->c", epochs, epochs), names)
        epochs[is_lost] = np.nan
        return epochs


def estimate_covariance(
    epochs: SignalArray, stimuli: Int64, across: NoiseBlocks
) -> Float64:
    """Average the shrunk covariances of blocks, with equal weight for each stimulus.

    The shrinkage is as in scikit-learn's discriminant analysis: Ledoit-Wolf, on
    standardised channels.

    Args:
        epochs: Trials [n, C, T] of a session, in a unit in which values are near 1,
            such as microvolts.
        stimuli: Stimulus [n] of each trial.
        across: Observations of a block.

    Returns:
        Covariance [C, C].

    Raises:
        BrainhiveError: if `across` is `time`, and no stimulus was shown twice.

    Source: Guggenmos et al. 2018, as in the code of THINGS-EEG2 and NICE.
    """
    iterate = _iterate_trials if across == "epochs" else _iterate_times
    n_channels = epochs.shape[1]
    total = np.zeros((n_channels, n_channels))
    for blocks, weights in iterate(epochs, stimuli):
        total += _sum_shrunk(blocks - blocks.mean(2, keepdims=True), weights)
    return total


def _iterate_trials(
    epochs: SignalArray, stimuli: Int64
) -> Iterator[tuple[SignalArray, Float64]]:
    """Yield batches of trials [b, C, T] and their weights [b]."""
    # each stimulus has the same weight, however often it was shown
    _, numbers, counts = np.unique(stimuli, return_inverse=True, return_counts=True)
    weights = 1 / (counts[numbers] * len(counts))

    step = max(1, VALUES_PER_BATCH // epochs[0].size)
    for start in range(0, len(epochs), step):
        yield epochs[start : start + step], weights[start : start + step]


def _iterate_times(
    epochs: SignalArray, stimuli: Int64
) -> Iterator[tuple[SignalArray, Float64]]:
    """Yield batches of the trials [b, C, R] of a stimulus at one time, and weights [b].

    Raises:
        BrainhiveError: if no stimulus was shown twice.
    """
    order, counts = group_trials(stimuli)
    first_trials = np.cumsum(counts) - counts
    n_blocks = int((counts > 1).sum()) * epochs.shape[2]
    if not n_blocks:
        raise BrainhiveError(
            "no stimulus was shown twice in this session", "preparation.whiten=epochs"
        )

    # a batch has stimuli with equal numbers of trials
    for repetitions in np.unique(counts[counts > 1]):
        first = first_trials[counts == repetitions]
        rows = order[first[:, None] + np.arange(repetitions)]  # [S, R]
        step = max(1, VALUES_PER_BATCH // (epochs[0].size * repetitions))
        for start in range(0, len(rows), step):
            repeated = epochs[rows[start : start + step]]  # [s, R, C, T]
            observations = repeated.transpose(0, 3, 2, 1)  # [s, T, C, R]
            observations = observations.reshape(-1, repeated.shape[2], repetitions)
            # two trials may nearly cancel, which needs float64
            observations = observations.astype(np.float64)
            yield observations, np.full(len(observations), 1 / n_blocks)


def _sum_shrunk(centred: SignalArray, weights: Float64) -> Float64:
    """Sum the shrunk covariances (1 - λ) S + λ diag(S) of blocks.

    Args:
        centred: Blocks [n, C, T] of T observations with mean 0, each with its own λ.
            They are overwritten.
        weights: Weight [n] of each block.

    Returns:
        Weighted sum [C, C].

    Source: Ledoit and Wolf 2004.
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

    # λ [n]: the variance of the estimate over its distance from the identity, where the
    # variance is the spread of the squared lengths [n, T] of standardised observations
    lengths = (precisions.transpose(0, 2, 1) @ np.square(centred, out=centred))[:, 0]
    fourth_moments = (lengths.astype(np.float64) ** 2).mean(1)
    distance = (squares - channels) / channels
    n_values = channels * observations
    spread = np.minimum((fourth_moments - squares) / n_values, distance)
    shrinkage = np.divide(spread, distance, out=np.zeros(count), where=distance > 0)

    # sum (1 - λ) S in one product over blocks, and λ diag(S) on the diagonal
    weight = (weights * (1 - shrinkage) / observations).astype(centred.dtype)
    total = (weight @ products.reshape(count, -1)).reshape(channels, channels)
    return total + np.diag((weights * shrinkage) @ variances)


def refuse_flat_channels(variances: Array, names: Sequence[str]) -> None:
    """Raise an error if channels hold no signal, or signals in another unit.

    Args:
        variances: Variance [C] of each channel.
        names: Names [C] of the channels.
    """
    largest = variances.max()
    flat = list(compress(names, variances <= MIN_VARIANCE_SHARE**2 * largest))
    if flat:
        raise BrainhiveError(
            f"flat channels: {', '.join(flat)}",
            f"leave them out: preparation.exclude=[{','.join(flat)}]",
        )
    is_small = variances <= MIN_VARIANCE_SHARE * largest
    if is_small.any():
        ratio = np.sqrt(largest / variances[is_small].max())
        raise BrainhiveError(
            f"channels {', '.join(compress(names, ~is_small))} are {ratio:.0e} times "
            f"as large as {', '.join(compress(names, is_small))}, as if they had no "
            "unit",
            "correct the units in the file, or leave some out: "
            "preparation.channels=[...]",
        )


def compute_whitener(noise: Float64, names: Sequence[str]) -> Float64:
    """Compute the whitener Σ^(-1/2) [C, C] of a covariance of noise.

    Raises:
        BrainhiveError: if a channel is flat or a sum of others, as after an average
            reference.
    """
    refuse_flat_channels(np.diag(noise), names)
    values, directions = np.linalg.eigh(noise)  # [C], [C, C]
    if values[0] <= MIN_VARIANCE_SHARE * values[-1]:
        raise BrainhiveError(
            "the covariance of the noise is singular: channels are sums of one another",
            "leave out the reference, or bad channels that were interpolated; or "
            "preparation.whiten=no",
        )
    return (directions * values**-0.5) @ directions.T


def apply_whitener(epochs: SignalArray, matrix: SignalArray) -> None:
    """Multiply trials [n, C, T] by a whitener [C, C], in place."""
    step = max(1, VALUES_PER_BATCH // epochs[0].size)
    factor = matrix.astype(epochs.dtype)
    for start in range(0, len(epochs), step):
        epochs[start : start + step] = factor @ epochs[start : start + step]


def require_noise_splits(splits: Iterable[str], steps: Steps) -> list[str]:
    """List the splits of a session in which noise is measured.

    Raises:
        BrainhiveError: if signals are whitened, and the session has no such split.
    """
    noise_splits = [
        split for split in splits if split == "train" or steps.whiten_by == "both"
    ]
    if steps.whiten != "no" and not noise_splits:
        raise BrainhiveError(
            "this session has no training trials, in which noise is measured",
            "preparation.whiten_by=both, or preparation.whiten=no",
        )
    return noise_splits


def measure_noise(
    epochs: Mapping[str, Float32],
    stimuli: Mapping[str, Int64],
    steps: Steps,
    names: Sequence[str],
) -> Float64:
    """Measure the noise covariance of a session.

    Args:
        epochs: Trials [n, C, T] of each split.
        stimuli: Stimulus [n] of each trial, by split.
        steps: Recipe keys, with whitening.
        names: Names [C] of the channels.

    Returns:
        Covariance [C, C].

    Raises:
        BrainhiveError: if there are no trials to measure, or the squares of a channel
            overflow.
    """
    assert steps.whiten != "no"
    splits = require_noise_splits(epochs, steps)
    covariances = []
    with np.errstate(over="ignore", invalid="ignore"):  # the result is checked below
        for split in splits:
            covariances.append(
                estimate_covariance(epochs[split], stimuli[split], steps.whiten)
            )
        noise = np.mean(covariances, 0)
    if not np.isfinite(noise).all():
        peaks = np.max([np.abs(epochs[split]).max((0, 2)) for split in splits], 0)
        raise BrainhiveError(
            f"channel {names[peaks.argmax()]} has values of up to {peaks.max():.3g}, "
            "too large to whiten",
            "leave it out: preparation.channels=[...]; or correct its unit",
        )
    return noise


def whiten_session(
    epochs: Mapping[str, Float32],
    stimuli: Mapping[str, Int64],
    steps: Steps,
    names: Sequence[str],
) -> Float64 | None:
    """Whiten the trials of a session in place.

    Args:
        epochs: Trials [n, C, T] of each split, `train` first.
        stimuli: Stimulus [n] of each trial, by split.
        steps: Recipe keys.
        names: Names [C] of the channels.

    Returns:
        Whitener Σ^(-1/2) [C, C], or None without whitening.

    Raises:
        BrainhiveError: if the noise cannot be measured, or channels are flat or sums of
            others.
    """
    if steps.whiten == "no":
        return None
    noise = measure_noise(epochs, stimuli, steps, names)
    matrix = compute_whitener(noise, names)
    for signal in epochs.values():
        apply_whitener(signal, matrix)
    return matrix
