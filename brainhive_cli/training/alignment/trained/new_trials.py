"""Trials from memory as a trained model takes them: axes, unit, and the steps of its
preparation that epochs allow.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from brainhive_cli.core import console
from brainhive_cli.core.errors import BrainhiveError, MissingData, find_rows
from brainhive_cli.data.recordings.epochs import as_trials, cut_trials, warn_of_size
from brainhive_cli.data.recordings.shown_pictures import match_pictures
from brainhive_cli.data.signals.cutting import Steps, apply_whitener
from brainhive_cli.data.signals.spaces import Voxels
from brainhive_cli.data.signals.trials import Trials
from brainhive_cli.models.signal_spec import UNIT_SIZES, normalise_unit
from brainhive_cli.training.alignment.trained.model import TrainedModel


def read_new(
    member: TrainedModel,
    subject: int,
    split: str,
    signal: Any,
    pictures: Any,
    axes: Mapping[str, Any],
) -> tuple[Trials, list[str]]:
    """Read arrays or epochs of a subject for a model.

    Args:
        member: The model.
        subject: Whose trials.
        split: Of the pictures.
        signal: As `as_trials` takes it, with `pictures` and `axes`. An array of the
            model's own size needs no axes.
        pictures: What each trial showed; None: names of events that are pictures of the
            split, if any is.
        axes: Of arrays; `delay_ms` from their time 0 to the picture, default: as in the
            recordings of the training.

    Returns:
        Trials that `TrainedModel.trials` accepts; and in what they differ from those of
        the training, a sentence each.

    Raises:
        BrainhiveError: if an axis does not fit the model, or a step cannot be taken.
    """
    spec = member.module.layout.spec
    where, here = f"the signal of subject {subject}", dict(axes)
    differs = list[str]()
    delay_ms = here.pop("delay_ms", None)
    shape = np.shape(signal) if isinstance(signal, np.ndarray) else ()
    if len(shape) == 2 and "space" not in here:
        # voxels in the order of the subject's store, whose regions a model may read
        path = member.recordings.build_path(subject)
        stored = (
            [*member.recordings.open_store(subject).splits.values()]
            if path.is_file()
            else []
        )
        spaces = [each.space for each in stored if each.signal.shape[2] == shape[1]]
        here |= {"space": spaces[0]} if spaces else {}
        here.setdefault("unit", spec.unit or "beta")
    elif not here and shape[1:] == (len(spec.names), spec.samples):
        here = {"channels": spec.names, "times_s": spec.times_s, "unit": spec.unit}
        here["rate_hz"] = spec.rate_hz
        differs.append(
            "channels, times and unit of the array are taken for the model's"
        )
        delay_ms = delay_ms or 0
    trials = as_trials(signal, pictures, where, **here)
    warn_of_size(trials, where)
    if trials.rate_hz:
        delay_s = member.find_delay_s(subject) if delay_ms is None else delay_ms / 1000
        shift_s = round(delay_s * trials.rate_hz) / trials.rate_hz
        trials = replace(trials, times_s=trials.times_s - shift_s)
        if delay_ms is None and shift_s:
            differs.append(
                f"time 0 is taken for the event, {1000 * shift_s:g} ms before the "
                "picture, as in the training; delay_ms=0 if it is the picture"
            )

    # ids of pictures; events need not be called by any
    if len(trials.image_ids):
        ids = [*member.open_pictures(split).image_ids]
        try:
            names, _, _ = match_pictures(
                trials.image_ids, member.run.dataset, (ids, np.full(len(ids), split))
            )
        except MissingData:
            if pictures is not None:
                raise
            trials = replace(trials, image_ids=())
        else:
            is_here = np.array([bool(name) for name in names])
            if not is_here.all():
                console.warn(
                    f"{where}: {(~is_here).sum()} trials of pictures that are not in "
                    f"{split} are left out"
                )
            trials = replace(trials, image_ids=names).take(is_here)

    trials, steps = prepare_as(member, subject, trials, where)
    return trials, [*differs, *steps]


def prepare_as(
    member: TrainedModel, subject: int, trials: Trials, where: str
) -> tuple[Trials, list[str]]:
    """Take the steps of a model's preparation that trials which were cut before allow.

    Args:
        member: The model.
        subject: Whose trials, by whose noise they are whitened.
        trials: A row [1, C, T] each.
        where: What they are, for errors.

    Returns:
        The trials, and which steps were not taken, a sentence each.

    Raises:
        MissingData: if signals are to be whitened, and no whitener is known.
        BrainhiveError: if they are in another unit than whitening takes, or lack one of
            its channels.
    """
    spec, learned = member.module.layout.spec, member.module.learned
    known, unit = dict(spec.preparation), normalise_unit(trials.unit)
    if isinstance(trials.space, Voxels) or unit == "whitened":
        return trials, []
    is_whitened = known.get("whiten", "no") != "no" or spec.unit == "whitened"
    signal, names = np.asarray(trials.signal[:, 0]), trials.space.names

    # the unit of the model; of whitened signals that of its recordings
    target = normalise_unit(spec.unit) or unit
    if is_whitened:
        target = member.find_recorded_unit(subject)
    size, kind = UNIT_SIZES.get(unit, (1.0, unit))
    target_size, target_kind = UNIT_SIZES.get(target, (1.0, target))
    if kind == target_kind:
        signal, unit = signal * (size / target_size), target
    elif is_whitened:
        raise BrainhiveError(
            f"{where} is in {unit}, and whitening takes {target}",
            "unit='whitened' for signals that are whitened",
        )

    # baseline, resampling and window, where the epochs reach far enough
    left = list[str]()
    times_s, rate_hz = trials.times_s, trials.rate_hz
    if "epoch_ms" in known:
        steps = Steps.from_preparation(known)
        try:
            assert rate_hz is not None  # as of all sensors
            signal, cutting = cut_trials(signal, times_s, rate_hz, steps, names)
        except BrainhiveError as error:
            # without resampling, only trials of the model's own rate can be read
            if rate_hz != spec.rate_hz:
                error.hint = f"epochs from {steps.epoch_ms[0]:g} ms on, at any rate"
                raise
            left.append(
                f"no baseline was subtracted and nothing resampled: {error.message}"
            )
        else:
            times_s, rate_hz = cutting.times_s, cutting.rate_hz
    if any(known.get("band_hz") or ()):
        left.append(
            f"the model's recordings were filtered at {known['band_hz']} Hz before "
            "they were cut; these epochs were not filtered here"
        )

    # noise of the training
    space = trials.space
    if is_whitened:
        if subject not in learned.whiteners:
            raise MissingData(
                f"{where} is not whitened, and the model has no whitener of it",
                "unit='whitened' for signals that are, or a subject of the training",
            )
        needed = learned.recorded_channels
        rows = find_rows(needed, names, where)
        if absent := [
            name for name, row in zip(needed, rows, strict=True) if row is None
        ]:
            raise BrainhiveError(
                f"{where} has no channel {', '.join(absent)}, which whitening needs",
                "record the channels of the training",
            )
        chosen = np.array(rows, np.int64)
        signal, unit = np.ascontiguousarray(signal[:, chosen]), "whitened"
        space = trials.space.select(chosen)
        apply_whitener(signal, learned.whiteners[subject][-1])
        left.append("the noise of the training's last session whitens the epochs")
    return (
        replace(
            trials,
            signal=np.asarray(signal, np.float32)[:, None],
            space=space,
            times_s=times_s,
            rate_hz=rate_hz,
            unit=unit,
        ),
        left,
    )
