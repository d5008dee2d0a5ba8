"""Preparation of trials in memory as a trained model reads them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from brainhive_cli.core.base import (
    BrainhiveError,
    MissingData,
    RecipeError,
    console,
    find_rows,
)
from brainhive_cli.data.recordings import (
    as_trials,
    cut_trials,
    match_pictures,
    warn_of_size,
)
from brainhive_cli.data.signals import Steps, Trials, apply_whitener
from brainhive_cli.models import UNIT_SIZES, normalise_unit
from brainhive_cli.training.alignment.trained.tested_person import TestedPerson


def read_new(
    person: TestedPerson,
    signal: Any,
    pictures: Any,
    axes: Mapping[str, Any],
) -> tuple[Trials, list[str]]:
    """Read new trials of a subject, an array or epochs, as a model takes them.

    Args:
        person: The subject, as the model reads its signals.
        signal: Signal, as `as_trials` takes it. An array with the size of the model's
            input needs no axes.
        pictures: Picture of each trial, or None to take the names of events that are
            pictures of the split.
        axes: Axes of `as_trials`, and `delay_ms` from time 0 to the picture. The
            default delay is the delay of the training.

    Returns:
        Trials for `TestedPerson.read_recording`, and sentences that say how they differ
        from the trials of the training.

    Raises:
        BrainhiveError: if an axis does not fit the model, or a step cannot be applied.
    """
    spec = person.model.layout.spec
    source = f"the signal of subject {person.subject}"
    differences = list[str]()
    options = dict(axes)
    delay_ms = options.pop("delay_ms", None)

    # axes of arrays without any
    shape = np.shape(signal) if isinstance(signal, np.ndarray) else ()
    if len(shape) == 2 and "space" not in options:
        # voxels in the order of the subject's store, which has the regions
        if person.is_prepared:
            for stored in person.recordings.open_store(person.subject).splits.values():
                if stored.signal.shape[1] == shape[1]:
                    options["space"] = stored.space
                    break
        options.setdefault("unit", spec.unit or "beta")
    elif not options and shape[1:] == (len(spec.names), spec.samples):
        options = {
            "channels": spec.names,
            "times_s": spec.times_s,
            "unit": spec.unit,
            "rate_hz": spec.rate_hz,
        }
        differences.append(
            "the array is assumed to have the channels, times and unit of the model"
        )
        delay_ms = delay_ms or 0
    elif not options and len(shape) == 3:
        raise RecipeError(
            f"{source} is {list(shape)}, but the model takes [trials, "
            f"{len(spec.names)}, {spec.samples}]",
            "give the axes of another array: channels=[NAME, …], times_s=[T] seconds "
            "from the onset, unit='µV'",
        )
    trials = as_trials(signal, pictures, source, **options)
    warn_of_size(trials, source)

    # move time 0 from the event to the picture
    if trials.rate_hz:
        delay_s = person.delay_s if delay_ms is None else delay_ms / 1000
        shift_s = round(delay_s * trials.rate_hz) / trials.rate_hz
        trials = replace(trials, times_s=trials.times_s - shift_s)
        if delay_ms is None and shift_s:
            differences.append(
                f"time 0 is assumed to be the event, {1000 * shift_s:g} ms before the "
                "picture, as in the training; set delay_ms=0 if it is the picture"
            )

    # match the names of the pictures, or of events that may not be pictures
    if len(trials.image_ids):
        split_ids = list(person.open_pictures(person.split).image_ids)
        splits = np.full(len(split_ids), person.split)
        try:
            image_ids, _, _ = match_pictures(
                trials.image_ids, person.recordings.dataset, (split_ids, splits)
            )
        except MissingData:
            if pictures is not None:
                raise
            trials = replace(trials, image_ids=())
        else:
            is_in_split = np.array(list(map(bool, image_ids)))
            if not is_in_split.all():
                console.warn(
                    f"{source}: {(~is_in_split).sum()} trials of pictures that are not "
                    f"in {person.split} are left out"
                )
            trials = replace(trials, image_ids=image_ids).choose(is_in_split)

    trials, preparation_differences = prepare_as(person, trials, source)
    return trials, differences + preparation_differences


def prepare_as(
    person: TestedPerson, trials: Trials, source: str
) -> tuple[Trials, list[str]]:
    """Apply the steps of a model's preparation to trials that are already cut.

    Args:
        person: The subject, whose noise whitens the trials.
        trials: Trials [n, C, T].
        source: Name of the trials in errors.

    Returns:
        The trials, and sentences that say which steps differ from the training.

    Raises:
        MissingData: if the model whitens signals, and has no whitener of the subject.
        BrainhiveError: if whitening takes another unit, or a channel is missing.
    """
    spec = person.model.layout.spec
    history = person.model.history
    preparation = dict(spec.preparation)
    unit = normalise_unit(trials.unit)
    if not trials.space.has_names or unit == "whitened":
        return trials, []
    is_whitened = preparation.get("whiten", "no") != "no" or spec.unit == "whitened"
    signal = np.asarray(trials.signal)
    names = trials.space.names

    # convert to the unit of the model, or of its recordings before whitening
    target_unit = normalise_unit(spec.unit) or unit
    if is_whitened:
        target_unit = person.recorded_unit
    size, si_unit = UNIT_SIZES.get(unit, (1.0, unit))
    target_size, target_si_unit = UNIT_SIZES.get(target_unit, (1.0, target_unit))
    if si_unit == target_si_unit:
        signal = signal * (size / target_size)
        unit = target_unit
    elif is_whitened:
        raise BrainhiveError(
            f"{source} is in {unit}, but the whitener of the model needs {target_unit}",
            "convert the signals. If they are already whitened, set unit='whitened'",
        )

    # baseline, resampling and window, if the epochs are long enough
    differences = list[str]()
    times_s = trials.times_s
    rate_hz = trials.rate_hz
    if "epoch_ms" in preparation:
        steps = Steps.from_preparation(preparation)
        try:
            assert rate_hz is not None  # sensors have a rate
            signal, cutting = cut_trials(signal, times_s, rate_hz, steps, names)
        except BrainhiveError as error:
            # without resampling, only the model's own rate can be read
            if rate_hz != spec.rate_hz:
                error.hint = f"epochs from {steps.epoch_ms[0]:g} ms on, at any rate"
                raise
            differences.append(
                f"no baseline was subtracted and nothing resampled: {error.message}"
            )
        else:
            times_s, rate_hz = cutting.times_s, cutting.rate_hz
    if any(preparation.get("band_hz") or ()):
        differences.append(
            f"the recordings of the training were filtered at {preparation['band_hz']} "
            "Hz before they were cut; these epochs were not filtered"
        )

    # whiten with the noise of the training
    space = trials.space
    if is_whitened:
        if person.subject not in history.whiteners:
            raise MissingData(
                f"{source} is not whitened, and the model has no noise whitener of "
                "this subject",
                "name a training subject. If the signals are already whitened, set "
                "unit='whitened'",
            )
        needed_channels = history.recorded_channels
        rows = find_rows(needed_channels, names, source)
        absent_channels = [
            name for name, row in zip(needed_channels, rows, strict=True) if row is None
        ]
        if absent_channels:
            raise BrainhiveError(
                f"{source} has no channel {', '.join(absent_channels)}, which "
                "whitening needs",
                "record the channels of the training",
            )
        channel_rows = np.array(rows, np.int64)
        signal = np.ascontiguousarray(signal[:, channel_rows])
        unit = "whitened"
        space = trials.space.select(channel_rows)
        apply_whitener(signal, history.whiteners[person.subject][-1])
        differences.append(
            "the noise of the training's last session whitens the epochs"
        )
    prepared_trials = replace(
        trials,
        signal=np.asarray(signal, np.float32),
        space=space,
        times_s=times_s,
        rate_hz=rate_hz,
        unit=unit,
    )
    return prepared_trials, differences
