"""Preparation of live windows by the model's own steps, and in what they differ from those offline."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from brainhive_cli.core.arrays import Float32, Int64
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.data.electrodes import standard_positions
from brainhive_cli.data.signals.cutting import Cutting, Steps, measure_noise
from brainhive_cli.data.signals.noise import whitener
from brainhive_cli.data.spaces import Sensors
from brainhive_cli.data.trials import Trials
from brainhive_cli.models.physical_units import name_unit
from brainhive_cli.models.signal_spec import SignalSpec
from brainhive_cli.training.alignment.learned import Learned

KNOWN = {*Steps.model_fields, "kind", "band_hz", "phase", "interpolate", "simulated"}
"""Steps of preparations that live windows can go through, or that change nothing of them."""
KINDS = {"µV": "eeg", "fT": "mag", "fT/cm": "grad"}
"""Type of channels, as mne names it, by the unit of their signals."""
WHITENED = "whitened"
"""Unit of signals that were whitened."""
Band = tuple[float | None, float | None]
"""Edges of a filter."""


@dataclass(frozen=True)
class Whitening:
    """Whitening of windows, whose noise is known from the training or measured at the start of the session.

    Attributes:
        channels: Names of the channels [E] that are whitened together.
        matrix: Σ^(-1/2) [E, E]; None until it is measured.
        trials: Trials of the session that it is measured of; 0 where the training gives it.
        across: Observations that count as noise, as `Steps.whiten`.
    """

    channels: tuple[str, ...]
    matrix: Float32 | None
    trials: int = 0
    across: str = "epochs"

    def measure(self, epochs: Float32, stimuli: Int64) -> Self:
        """Measure the noise of trials [n, E, T] of stimuli [n].

        Raises:
            BrainhiveError: if channels are flat, or sums of others.
        """
        steps = Steps.model_validate({"whiten": self.across})
        noise = measure_noise({"train": epochs}, {"train": stimuli}, steps, self.channels)
        return replace(self, matrix=whitener(noise, self.channels).astype(np.float32))


@dataclass(frozen=True)
class LivePreparation:
    """Steps from a continuous stream to the signals that a model takes.

    Attributes:
        steps: Cut, baseline, resampling.
        channels: [E] channels of the stream that are needed, in order.
        unit: Unit of the continuous samples.
        band_hz: Edges of the filter; None where there is none.
        whitening: None where signals are not whitened.
        differs: In what windows differ from those offline, in sentences.
    """

    steps: Steps
    channels: tuple[str, ...]
    unit: str
    band_hz: Band = (None, None)
    whitening: Whitening | None = None
    differs: Sequence[str] = ()

    @property
    def kind(self) -> str:
        """Type of the channels as mne names it."""
        return KINDS.get(self.unit, "eeg")

    @property
    def span_s(self) -> tuple[float, float]:
        """Start and stop of a window after its event."""
        start, stop = self.steps.epoch_ms
        return start / 1000, stop / 1000

    def make_template(self, cutting: Cutting, spec: SignalSpec) -> Trials:
        """Make a recording [1, 1, E, T] of zeros that says of prepared windows what stores say of trials."""
        # positions of the model's electrodes, or standard ones; none if one is unknown
        known = dict(zip(self.channels, standard_positions(list(self.channels)), strict=True))
        known |= dict(zip(spec.names, spec.positions or (), strict=False))
        positions = np.array([known[name] for name in self.channels])  # [E, 3]

        return Trials(
            np.zeros((1, 1, len(self.channels), len(cutting.times_s)), np.float32),
            (),
            Sensors(self.channels, positions if np.isfinite(positions).all() else None),
            cutting.times_s,
            cutting.rate_hz,
            WHITENED if self.whitening else spec.unit or self.unit,
        )


def plan_preparation(
    spec: SignalSpec,
    learned: Learned,
    subject: int,
    recorded_unit: str,
    whiten_trials: int | None,
    whitener_session: int | None,
    where: str,
) -> LivePreparation:
    """Plan how live windows are prepared for a model.

    Args:
        spec: What the model is built for.
        learned: What it learned from, with the whiteners of its subjects.
        subject: Whose brain.
        recorded_unit: Unit before whitening.
        whiten_trials: Trials of the session that its whitener is measured of; None: the training's.
        whitener_session: Which session's of the training; None: the last.
        where: Name of the model, for errors.

    Raises:
        BrainhiveError: if the model reads voxels, or its preparation has steps that no stream can go through.
        MissingData: if signals are to be whitened and no whitener of the person is known.
        RecipeError: if keys of the whitening have no effect.
    """
    # fMRI needs motion correction and registration
    if not spec.names:
        hint = "docs/live.md names RT-Cloud, which decodes fMRI while it is recorded"
        raise BrainhiveError(f"{where} reads voxels, and live decodes EEG and MEG", hint)
    steps, band_hz, is_zero_phase = _read_steps(spec, where)
    differs = []
    if is_zero_phase:
        differs.append(
            "the model's signals were filtered without delay, which looks ahead; live windows are filtered "
            "forward, later by some 20 ms: train on preparation.phase=forward for the same numbers"
        )

    if spec.preparation.get("interpolate"):
        differs.append(
            "bad channels of the model's signals were interpolated; live windows have all channels as they "
            "are recorded"
        )

    # whitening: of the training, or of the session's first trials
    whitening = None
    if steps.whiten == "no":
        if whiten_trials or whitener_session:
            raise RecipeError(f"{where} has signals that were not whitened", "leave out --whiten-trials")
    elif whiten_trials:
        if whitener_session:
            raise RecipeError("whiten_trials and whitener_session exclude each other", "one of them")
        names = learned.recorded_channels or spec.names
        whitening = Whitening(tuple(names), None, whiten_trials, steps.whiten)
        differs.append(f"the noise of the first {whiten_trials} trials whitens the others")
    else:
        matrices = learned.whiteners.get(subject)
        if matrices is None:
            raise MissingData(
                f"{where} takes whitened signals, and has no whitener of subject {subject}",
                "--whiten-trials 100, of this session; or a model of preparation.whiten=no",
            )
        session = whitener_session or len(matrices)
        if session > len(matrices):
            raise RecipeError(
                f"whitener_session {session}, {where} knows {len(matrices)} of subject {subject}",
                f"1 to {len(matrices)}",
            )
        whitening = Whitening(tuple(learned.recorded_channels), matrices[session - 1])
        differs.append(
            f"the noise of session {session} of the training whitens the windows; for this session's own: "
            "--whiten-trials 100"
        )
    channels = whitening.channels if whitening else spec.names
    unit = name_unit(recorded_unit if spec.unit in ("", WHITENED) else spec.unit)
    return LivePreparation(steps, tuple(channels), unit, band_hz, whitening, tuple(differs))


def _read_steps(spec: SignalSpec, where: str) -> tuple[Steps, Band, bool]:
    """Read the steps of a model's preparation: cut, filter, and whether that looks ahead."""
    known = dict(spec.preparation)
    unknown = sorted(key for key in known if key.partition(".")[0] not in KNOWN)
    if unknown:
        raise BrainhiveError(
            f"{where} was trained on signals with steps that no stream can go through: {', '.join(unknown)}",
            "train on signals of prepare --from recording, or replay a store: --source signals",
        )
    if "epoch_ms" in known:
        fields = {key: value for key, value in known.items() if key in Steps.model_fields}
        low, high = known.get("band_hz") or (None, None)
        is_zero_phase = bool(low or high) and known.get("phase", "zero") == "zero"
        return Steps.model_validate(fields), (low, high), is_zero_phase

    # signals of a program are what it makes, without a step; others must say theirs
    if "simulated" not in known or spec.times_s is None or not spec.rate_hz:
        raise BrainhiveError(
            f"{where} does not say how its signals were prepared",
            "train on signals of prepare --from recording, or replay a store: --source signals",
        )
    first_ms, last_ms = (1000 * spec.times_s[index] for index in (0, -1))
    span_ms = (first_ms, last_ms + 1000 / spec.rate_hz)  # keep_ms ends before its second time
    fields = {"epoch_ms": span_ms, "keep_ms": span_ms, "baseline": False, "whiten": "no"}
    return Steps.model_validate(fields | {"rate_hz": spec.rate_hz}), (None, None), False
