"""Preparation of live windows by the model's own steps, and in what they differ from those offline."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from brainhive_cli.core.arrays import Float32
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.data.electrodes import standard_positions
from brainhive_cli.data.signals.cutting import Cutting, Steps
from brainhive_cli.data.spaces import Sensors
from brainhive_cli.data.trials import Trials
from brainhive_cli.evaluation.live.recipe import Recipe
from brainhive_cli.models.physical_units import name_unit
from brainhive_cli.models.signal_spec import SignalSpec
from brainhive_cli.training.alignment.trained import TrainedModel

KNOWN = {*Steps.model_fields, "kind", "band_hz", "phase", "interpolate", "simulated"}
"""Steps of preparations that live windows can go through, or that change nothing of them."""
KINDS = {"µV": "eeg", "fT": "mag", "fT/cm": "grad"}
"""Type of channels, as mne names it, by the unit of their signals."""
DEFAULT_UNIT = "µV"
"""Unit of continuous samples of a whitened store that does not say it: that of EEG."""
WHITENED = "whitened"
"""Unit of signals that were whitened."""


@dataclass(frozen=True)
class LivePreparation:
    """Steps from a continuous stream to the signals that a model takes.

    Attributes:
        steps: Cut, baseline, resampling.
        channels: [E] channels of the stream that are needed, in order.
        unit: Unit of the continuous samples.
        band_hz: Edges of the filter; None where there is none.
        whitener: Σ^(-1/2) [E, E] of the training; None where it is measured, or nothing is whitened.
        whiten_trials: Trials of the session of which its whitener is measured; 0 where none is.
        differs: In what windows differ from those offline, in sentences.
    """

    steps: Steps
    channels: tuple[str, ...]
    unit: str
    band_hz: tuple[float | None, float | None] = (None, None)
    whitener: Float32 | None = None
    whiten_trials: int = 0
    differs: Sequence[str] = ()

    def make_template(self, channels: tuple[str, ...], cutting: Cutting, spec: SignalSpec) -> Trials:
        """Make a recording [1, 1, E, T] of zeros that says of prepared windows what stores say of trials.

        Args:
            channels: [E] as the stream has them.
            cutting: Of the windows.
            spec: What the model is built for.
        """
        # positions of the model's electrodes, or standard ones; none if one is unknown
        known = dict(zip(channels, standard_positions(list(channels)), strict=True))
        # the model's positions replace standard ones
        known |= dict(zip(spec.names, spec.positions or (), strict=False))
        positions = np.array([known[name] for name in channels])  # [E, 3]

        return Trials(
            np.zeros((1, 1, len(channels), len(cutting.times_s)), np.float32),
            (),
            Sensors(channels, positions if np.isfinite(positions).all() else None),
            cutting.times_s,
            cutting.rate_hz,
            spec.unit or self.unit if self.steps.whiten == "no" else WHITENED,
        )


def plan_preparation(member: TrainedModel, recipe: Recipe) -> LivePreparation:
    """Plan how live windows are prepared for a model.

    Args:
        member: The model, whose cell is tested on one person.
        recipe: Its keys of whitening.

    Raises:
        BrainhiveError: if the model reads voxels, or its preparation has steps that no stream can go through.
        MissingData: if signals are to be whitened and no whitener of the person is known.
        RecipeError: if keys of the whitening have no effect.
    """
    model, run, (subject,) = member.module, member.run, member.cell.tested_on
    spec, learned, where = model.layout.spec, model.learned, run.models[0].path
    if spec.names == tuple(map(str, range(len(spec.names)))):  # a model that only counts its channels
        chosen = spec.signal.get("channels") or run.dataset.channels or spec.names
        spec = replace(spec, names=tuple(chosen))

    # fMRI needs motion correction and registration
    if not spec.names:
        hint = "docs/live.md names RT-Cloud, which decodes fMRI while it is recorded"
        raise BrainhiveError(f"{where} reads voxels, and live decodes EEG and MEG", hint)

    # steps of the model's preparation: cut and filter
    known = dict(spec.preparation)
    if unknown := sorted(key for key in known if key.partition(".")[0] not in KNOWN):
        raise BrainhiveError(
            f"{where} was trained on signals with steps that no stream can go through: {', '.join(unknown)}",
            "train on signals of prepare --from recording, or replay a store: --source signals",
        )

    # signals of a program are what it makes, without a step; others must say theirs
    if "epoch_ms" not in known:
        if "simulated" not in known or spec.times_s is None or not spec.rate_hz:
            raise BrainhiveError(
                f"{where} does not say how its signals were prepared",
                "train on signals of prepare --from recording, or replay a store: --source signals",
            )
        first_ms, last_ms = (1000 * spec.times_s[index] for index in (0, -1))
        span_ms = first_ms, last_ms + 1000 / spec.rate_hz  # keep_ms ends before its second time
        known |= {"epoch_ms": span_ms, "keep_ms": span_ms, "rate_hz": spec.rate_hz}
        known |= {"baseline": False, "whiten": "no"}
    steps = Steps.model_validate({key: known[key] for key in known.keys() & Steps.model_fields.keys()})
    low, high = known.get("band_hz") or (None, None)

    # what cannot be as it was offline
    differs = []
    if (low or high) and known.get("phase", "zero") == "zero":
        differs.append(
            "the model's signals were filtered without delay, which looks ahead; live windows are filtered "
            "forward, later by some 20 ms: train on preparation.phase=forward for the same numbers"
        )
    if known.get("interpolate"):
        differs.append(
            "bad channels of the model's signals were interpolated; live windows have all channels as they "
            "are recorded"
        )

    # whitening: of the training, or of the session's first trials
    channels, matrix, whiten_trials = spec.names, None, recipe.whiten_trials or 0
    if steps.whiten == "no":
        if whiten_trials:
            raise RecipeError(f"{where} has signals that were not whitened", "leave out --whiten-trials")
    elif whiten_trials:
        channels = tuple(learned.recorded_channels or spec.names)
        differs.append(f"the noise of the first {whiten_trials} trials whitens the others")
    else:
        matrices = learned.whiteners.get(subject)
        if matrices is None:
            raise MissingData(
                f"{where} takes whitened signals, and has no whitener of subject {subject}",
                "--whiten-trials 100, of this session; or a model of preparation.whiten=no",
            )
        channels, matrix = tuple(learned.recorded_channels), matrices[-1]
        differs.append(
            f"the noise of session {len(matrices)} of the training whitens the windows; for this session's "
            "own: --whiten-trials 100"
        )

    # unit of the continuous samples, which stores of whitened signals say
    source = member.source
    units = (
        facts["recorded_unit"]
        for person in (subject, *member.cell.trained_on)
        if source.path(person).is_file()
        for recording in source.open(person).splits.values()
        for facts in (recording.provenance, *recording.provenance.get("sessions", ()))
        if "recorded_unit" in facts
    )
    unit = name_unit(next(units, DEFAULT_UNIT) if spec.unit in ("", WHITENED) else spec.unit)
    return LivePreparation(steps, channels, unit, (low, high), matrix, whiten_trials, differs)
