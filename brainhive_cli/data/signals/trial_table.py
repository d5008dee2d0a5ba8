"""Table of the trials of a subject: what was shown, when, and how it was recorded."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.base import Array, Bool, BrainhiveError, Float64, Int64, UInt64
from brainhive_cli.core.files import documents
from brainhive_cli.core.results import ORDER_UNKNOWN, draw_card, merge_caveats
from brainhive_cli.core.runs import Mark
from brainhive_cli.data.files import NUMBERS, Names
from brainhive_cli.data.signals import provenance
from brainhive_cli.data.signals.channel_mapping import ChannelMapping
from brainhive_cli.data.signals.spaces import Sensors, Voxels
from brainhive_cli.models import guess_modality

COLUMNS = ("sessions", "runs", "onset_s", "trial_numbers", "known_digests")
"""Fields [n] of `Trials` that have a value for each trial, or are None."""


class TrialTable:
    """Facts about the n trials of N pictures, without their signals.

    `Trials` describes the fields.
    """

    signal: Any
    image_ids: Sequence[str]
    space: Sensors | Voxels
    times_s: Float64
    rate_hz: float | None
    unit: str
    provenance: dict[str, Any]
    repetitions: Int64 | None
    sessions: NDArray[np.int8] | None
    whiteners: Float64 | None
    runs: NDArray[np.int16] | None
    onset_s: Float64 | None
    trial_numbers: Int64 | None
    known_digests: UInt64 | None
    subject: int
    mapping: ChannelMapping | None
    channels: tuple[str, ...]

    def __repr__(self) -> str:
        """Return the subject and the size of the axes, without the signals."""
        return f"<{self._title}: {self.describe()}>"

    def _repr_html_(self) -> str:
        """Return a card for a notebook, with the size of each axis."""
        return draw_card(self._title.lower(), [self.describe()])

    @property
    def _title(self) -> str:
        """Words that name the trials, and the subject if it is known."""
        return f"Trials of subject {self.subject}" if self.subject else "Trials"

    def describe(self) -> str:
        """Describe the sizes of the axes, the times and the unit."""
        _, width, n_samples = self.signal.shape
        noun = "pictures" if len(self.image_ids) else "trials"
        rows = f"{len(self.counts):,} {noun}"
        if self.max_repetitions > 1:
            rows += f" × {self.max_repetitions} repetitions"

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

    @cached_property
    def counts(self) -> Int64:
        """Number of trials [N] of each picture."""
        if self.repetitions is not None:
            return self.repetitions
        is_first = np.ones(len(self.signal), bool)  # [n]
        if len(self.image_ids):
            names = Names.of(self.image_ids).packed
            is_first[1:] = names[1:] != names[:-1]
        return np.diff(np.flatnonzero(is_first), append=len(is_first))

    @property
    def max_repetitions(self) -> int:
        """Largest number of trials of a picture."""
        return int(self.counts.max(initial=0))

    @cached_property
    def first_trials(self) -> Int64:
        """Row [N] of the first trial of each picture."""
        return np.cumsum(self.counts) - self.counts

    @property
    def picture_of_trial(self) -> Int64:
        """Number [n] of the picture of each trial, from 0."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    @property
    def repetition(self) -> Int64:
        """Number [n] of each trial among the trials of its picture, from 0."""
        return np.arange(len(self.signal)) - np.repeat(self.first_trials, self.counts)

    @property
    def pictures(self) -> Sequence[str]:
        """Stimulus ids [N] of the pictures. () if unknown."""
        if not len(self.image_ids):
            return ()
        return Names.of(self.image_ids)[self.first_trials]

    def find_trials(self, pictures: Any) -> Int64:
        """Find the rows [m] of all trials of pictures, picture by picture.

        Args:
            pictures: Slice, numbers or mask of the pictures.
        """
        counts = self.counts[pictures]
        # distance from the position in the answer to the row
        offsets = self.first_trials[pictures] - (np.cumsum(counts) - counts)
        rows: Int64 = np.repeat(offsets, counts)
        return rows + np.arange(len(rows))

    @property
    def times_in_run(self) -> Array | None:
        """Onsets [n] of the trials in their runs, or `trial_numbers`, or None."""
        return self.trial_numbers if self.onset_s is None else self.onset_s

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
        modality = provenance.find_fact(self.provenance, "modality")
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


def check_axes(trials: "TrialTable") -> None:
    """Raise an error if the signal, its lists and its times do not fit together."""
    # callers of the API construct trials, too, so check types
    documents.check(
        trials.provenance, "provenance of a recording", dict, "provenance={}"
    )
    documents.check(trials.unit, "unit of a recording", str, "a unit such as uV")
    shape = list(trials.signal.shape)
    if len(shape) == 4:
        raise BrainhiveError(
            f"signals {shape} are not [n, C, T], a row for each trial",
            "Trials.from_repetitions(…) takes signals [N, R, C, T]",
        )
    if len(shape) != 3:
        raise BrainhiveError(f"signals {shape} are not [n, C, T]")
    if trials.signal.dtype.kind not in NUMBERS:
        raise BrainhiveError(f"signals are {trials.signal.dtype}, not real numbers")
    if not isinstance(trials.image_ids, Names) and not all(
        isinstance(image_id, str) for image_id in trials.image_ids
    ):
        raise BrainhiveError(
            "the image ids of a recording are not all text", "str(number)"
        )

    # lists with a value for each position of an axis
    lists: list[tuple[str, Any, int]] = [("times", trials.times_s, 2)]
    if len(trials.image_ids):
        lists.append(("image ids", trials.image_ids, 0))
    for name in COLUMNS:
        lists.append((name_column(name), getattr(trials, name), 0))
    for name, values in trials.space.list_axis_values().items():
        lists.append((name, values, 1))
    for name, values in trials.space.maps.items():
        lists.append((f"values of the map {name}", values, 1))
    for name, values, axis in lists:
        if values is not None and len(values) != shape[axis]:
            raise BrainhiveError(
                f"signals {shape} come with {len(values)} {name}, not {shape[axis]}"
            )

    # sampling times, where NaN fails the comparison
    if trials.rate_hz is None and shape[2] != 1:
        raise BrainhiveError(f"signals of {shape[2]} samples have no sampling rate")
    if trials.rate_hz:
        steps = np.diff(trials.times_s) * trials.rate_hz  # [T - 1]
        step_errors = np.abs(steps - 1)
        # Largest relative difference of the time between samples from 1 / rate.
        # Resampling causes small differences.
        if not (step_errors <= 0.02).all():
            step_ms = steps[step_errors.argmax()] * 1000 / trials.rate_hz
            raise BrainhiveError(
                f"times lie {step_ms:g} ms apart, not {1000 / trials.rate_hz:g} ms "
                f"as at {trials.rate_hz:g} Hz",
                "correct the times, or the sampling rate",
            )
    _check_columns(trials, shape)


def _check_columns(trials: "TrialTable", shape: list[int]) -> None:
    """Raise an error if values of trials do not fit the signal."""
    counts = trials.repetitions
    if counts is not None and ((counts < 1).any() or counts.sum() != shape[0]):
        raise BrainhiveError(
            f"signals {shape} come with {counts.sum()} repetitions of "
            f"{len(counts)} pictures"
        )
    for name in COLUMNS:
        values = getattr(trials, name)
        if values is not None and not (values.ndim == 1 and has_value(values).all()):
            raise BrainhiveError(
                f"signals {shape} come with {name_column(name)} that do not have "
                "exactly one value for each trial"
            )

    # a whitener for each session
    if trials.whiteners is not None:
        if trials.whiteners.shape[1:] != (shape[1], shape[1]):
            raise BrainhiveError(
                f"signals {shape} come with whiteners {list(trials.whiteners.shape)}"
            )
        n_whiteners = len(trials.whiteners)
        if trials.sessions is not None and (trials.sessions >= n_whiteners).any():
            raise BrainhiveError(
                f"signals {shape} come with {n_whiteners} whiteners for more sessions"
            )


def name_column(name: str) -> str:
    """Name a column for errors, such as "trial numbers"."""
    return name.removesuffix("_s").replace("onset", "onsets").replace("_", " ")


def has_value(column: Array) -> Bool:
    """Mark the known values of a column, which are not negative or not NaN."""
    return np.isfinite(column) if column.dtype.kind == "f" else column >= 0
