"""Input of a brain model: trials with the model's channels and window, normalised."""

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import compress
from typing import Any

import numpy as np

from brainhive_cli.core.base import (
    BrainhiveError,
    Float32,
    Line,
    RecipeError,
    console,
    find_rows,
    require_kind,
)
from brainhive_cli.core.files import documents
from brainhive_cli.data.signals import (
    MAX_STIMULI_PER_READ,
    STIMULUS_HINT,
    ChannelChoice,
    ChannelMapping,
    Normaliser,
    Signal,
    Statistics,
    Trials,
    find_codes,
    map_channels,
)
from brainhive_cli.data.stores import Recordings, TargetStore
from brainhive_cli.measurement import number_names
from brainhive_cli.models import SignalSpec


def spec_of(
    subjects: Sequence[Trials], signal: Mapping[str, Any] | None = None
) -> SignalSpec:
    """Describe the signals that a model of these subjects reads.

    Args:
        subjects: Trials of each subject.
        signal: Section `signal` of the recipe, which selected them.

    Raises:
        BrainhiveError: if subjects differ in sensors, samples, rate, unit or regions.
    """
    _require_equal_signals(subjects)
    first = subjects[0]

    # keep the steps of the preparation that all subjects share
    preparation = {}
    for key, value in first.preparation.items():
        if all(trials.preparation.get(key) == value for trials in subjects):
            preparation[key] = value
    regions = {}
    for name in first.regions:
        regions[name] = tuple(trials.regions[name] for trials in subjects)
    return SignalSpec(
        names=first.channels,
        samples=len(first.times_s),
        subjects=tuple(trials.subject for trials in subjects),
        widths=tuple(trials.width for trials in subjects),
        rate_hz=first.rate_hz,
        times_s=tuple(first.times_s.tolist()),
        regions=regions,
        positions=first.positions,
        unit=first.unit,
        preparation=preparation,
        signal=signal or {},
        modality=first.modality,
    )


def _require_equal_signals(subjects: Sequence[Trials]) -> None:
    """Raise an error if subjects differ in a property that one model needs."""
    properties: dict[str, list[Any]] = {
        "sensors": [trials.channels for trials in subjects],
        "sampling rate": [trials.rate_hz for trials in subjects],
        "samples": [len(trials.times_s) for trials in subjects],
        "unit": [trials.unit for trials in subjects],
        "regions": [list(trials.regions) for trials in subjects],
    }
    for name, values in properties.items():
        first_value = values[0]
        for trials, value in zip(subjects, values, strict=True):
            if value == first_value:
                continue
            difference = "" if name == "sensors" else f": {first_value} and {value}"
            hint = "choose what all have: signal.channels, signal.window_ms"
            if name == "sampling rate":
                rate_hz = min(first_value or 0, value or 0)
                hint = f"prepare them again with preparation.rate_hz={rate_hz:g}"
            raise BrainhiveError(
                f"subjects {subjects[0].subject} and {trials.subject} differ in their "
                f"{name}{difference}",
                f"{hint}; or train a model for each subject",
            )


def read_training(
    source: Recordings, subject: int, stimuli: TargetStore, measures: bool = True
) -> tuple[Trials, Statistics | None]:
    """Select the training trials of a subject, and normalise them.

    Args:
        source: Recordings of a data set, and the section `signal` that selects.
        subject: Number of the subject.
        stimuli: A target store of the training split.
        measures: If False, the trials are not normalised.

    Returns:
        The trials, and the statistics of the normalisation, if there is one.

    Raises:
        MissingData: if the subject has no signal store or no training split.
        RecipeError: if channels, regions or the window are not in the recording.
        BrainhiveError: if the signals were simulated for other pictures.
    """
    where = f"{source.dataset.name} subject {subject} train"
    trials = source.select(match_split(source, subject, "train", stimuli), where)
    if measures:
        _refuse_codes(trials, stimuli, where)
    normalisation = source.signal.normalise
    if normalisation is None or not measures:
        return trials, None
    # measure all recorded stimuli, of which some may have no row in the store
    selected = source.select(source.open_recording(subject, "train"), where)
    statistics = measure_training(source, selected, stimuli)
    normaliser = normalisation.build(statistics)
    is_flat = ~normaliser.matrix.any(1)
    if is_flat.any():
        names = trials.channels or [f"voxel {row}" for row in range(trials.width)]
        flat = console.summarise_names(list(compress(names, is_flat)))
        console.warn(f"{where}: {flat} never change in training, and stay 0")
    return trials.normalise(normaliser), statistics


def _refuse_codes(trials: Trials, stimuli: TargetStore, where: str) -> None:
    """Raise an error if a sensor holds a code of the shown stimuli.

    Only some trials are read.
    """
    if not trials.space.has_names:
        return
    # stimuli that were shown once have the label of their concept
    labels = trials.stimulus
    if trials.counts.max() == 1 and len(np.unique(labels)) == len(labels):
        (labels,) = number_names([stimuli.concepts[labels]])
    # Largest number of trials in which codes of stimuli are looked for, 250 MB of 306
    # channels and 200 samples.
    n_rows = max(2, 1000 // trials.max_repetitions)
    rows = np.sort(np.random.default_rng(0).permutation(len(labels))[:n_rows])
    checked = trials.take(rows)
    is_code = find_codes(checked.singles, np.repeat(labels[rows], checked.counts))
    if is_code.any():
        raise BrainhiveError(
            f"{where}: {', '.join(compress(trials.channels, is_code))} holds a code of "
            "the shown stimuli, as a trigger does, not a brain signal",
            STIMULUS_HINT,
        )


def measure_training(
    source: Recordings, trials: Trials, stimuli: TargetStore
) -> Statistics:
    """Measure the statistics of a subject's training signals for the normalisation.

    If stimuli are held out, only the stimuli of the training fold are measured.

    Args:
        source: Recordings of the data set.
        trials: Selected trials of the training split.
        stimuli: A target store of the training split.
    """
    holdout = source.dataset.holdout
    measured_trials = trials
    if holdout.divides_train:  # all its stimuli are in one store
        rows = stimuli.find_rows(trials.pictures)
        is_in_fold = holdout.choose_stimuli(stimuli, "train", source.fold)[rows]
        measured_trials = trials.take((rows >= 0) & is_in_fold)
    return measure_trials(source, measured_trials)


def measure_trials(source: Recordings, trials: Trials) -> Statistics:
    """Measure the statistics of selected trials for the normalisation."""
    n_stimuli = len(trials.counts)
    with console.progress(f"measuring {trials.where}", n_stimuli) as bar:
        # in blocks, as signals need not fit into memory
        def read_blocks() -> Iterator[Float32]:
            for start in range(0, n_stimuli, MAX_STIMULI_PER_READ):
                block = slice(start, start + MAX_STIMULI_PER_READ)
                values = trials.read(block)
                yield values
                bar.advance(len(values))

        return source.signal.normalise.measure(read_blocks())


def measure_new_subject(
    spec: SignalSpec,
    source: Recordings,
    subject: int,
    stimuli: TargetStore,
    is_same_store: bool = False,
    channel_mapping: ChannelChoice = "none",
) -> Normaliser | None:
    """Build the normaliser of a subject that the model was not trained on.

    Args:
        spec: Signals that the model reads.
        source: Recordings of the subject's data set.
        subject: Number of the subject, whose training signals are measured.
        stimuli: A target store. Stimuli that the fold holds out are not measured.
        is_same_store: As for `choose_input`.
        channel_mapping: As for `choose_input`.

    Returns:
        The normaliser, or None if signals are not normalised.
    """
    normalisation = source.signal.normalise
    if normalisation is None:
        return None
    trials = choose_input(
        spec,
        source.open_recording(subject, "train"),
        f"{source.dataset.name} subject {subject} train",
        default=source.dataset.channels,
        is_same_store=is_same_store,
        channel_mapping=channel_mapping,
    )
    return normalisation.build(measure_training(source, trials, stimuli))


def match_split(
    source: Recordings, subject: int, split: str, stimuli: TargetStore
) -> Trials:
    """Open a subject's trials of a split whose stimuli are in the source's fold.

    Args:
        source: Recordings of the data set.
        subject: Number of the subject.
        split: Name of the split.
        stimuli: A target store of the split.

    Returns:
        Trials with their rows in the target store.

    Raises:
        MissingData: if the subject has no signal store, or the store lacks the split.
        BrainhiveError: if the signals were simulated for other pictures, or training
            trials are copies of test trials.
    """
    dataset = source.dataset
    holdout = dataset.holdout
    store = source.open_store(subject)
    recording = store.splits.get(holdout.name_stored_split(split))
    recorded_ids = () if recording is None else recording.pictures
    # simulated signals exist for all stimuli, recorded ones perhaps for some
    if dataset.is_simulated and set(recorded_ids) != set(stimuli.image_ids):
        command = shlex.join(["rm", os.path.abspath(store.path)])
        raise BrainhiveError(
            f"{store.path} was made when {dataset.name}/{split} had other pictures "
            f"than {stimuli.path}",
            f"{command}; the same command then makes it again",
        )

    where = f"{dataset.name} subject {subject} {split}"
    trials = match_stimuli(source.open_recording(subject, split), stimuli, where)
    is_in_fold = holdout.choose_stimuli(stimuli, split, source.fold)[trials.stimulus]
    matched = trials.take(is_in_fold)

    # no trial may be both in training and in the test
    opposite_trials = [trials.take(~is_in_fold)]
    opposite_trials += holdout.list_opposite_trials(
        store.splits, split, source.fold, where
    )
    digests = [opposite.digests for opposite in opposite_trials]
    is_train = split == "train"
    matched.refuse_copies(
        np.concatenate(digests),
        where,
        "trials that are tested" if is_train else "trials that are trained on",
        "take the copies out of the files, and prepare again: "
        f"{Line('prepare', '--again')}",
    )
    return replace(matched, subject=subject)


def match_stimuli(trials: Trials, stimuli: TargetStore, where: str) -> Trials:
    """Look up the rows of trials in a target store.

    Trials of stimuli that could not be embedded are left out, with a warning.

    Args:
        trials: Trials of N stimuli.
        stimuli: The target store.
        where: Name of the trials, for messages.

    Returns:
        The other trials, with their rows.

    Raises:
        BrainhiveError: if the trials do not say which stimuli were shown.
    """
    if not len(trials.image_ids):
        raise BrainhiveError(
            f"{where}: nothing says which pictures were shown",
            "Trials(image_ids=[…]); or api.model_input, which needs no pictures",
        )
    rows = stimuli.find_rows(trials.pictures)
    has_row = rows >= 0
    if not has_row.all():
        console.warn(
            f"{where}: {(~has_row).sum()} trials left out, their pictures have no "
            "embedding"
        )
    return replace(trials.take(has_row), stimulus=rows[has_row])


def model_input(
    spec: SignalSpec,
    recording: Trials,
    normaliser: Normaliser | None,
    where: str = "the recording",
    channel_mapping: ChannelChoice = "none",
) -> Float32:
    """Convert a recording to the input of a model.

    Channels are selected by name, voxels by region, the window by time. Repetitions are
    averaged. Signals are scaled and normalised as in training. Stimuli are not needed.

    Args:
        spec: Signals that the model reads.
        recording: Signals [n, C, T], prepared as the training signals.
        normaliser: Normaliser of the recorded subject, such as
            `model.learned.normaliser_of(subject)`, or None for a model without one.
        where: Name of the recording, for errors.
        channel_mapping: Treatment of missing channels, as in `map_channels`.

    Returns:
        Signals [N, C, T], with channels and samples as in `spec`.

    Raises:
        BrainhiveError: if an argument has another type, if the recording has another
            unit, rate or preparation, or lacks channels or samples, or if the
            normaliser is missing, not needed, or has another width.

    Examples:
        >>> model = api.open_model("TRAINING", cell="CELL")
        >>> trials = api.open_signals("DATASET", subject=1)["test"]
        >>> normaliser = model.learned.normaliser_of(1)
        >>> signal = api.model_input(model.layout.spec, trials, normaliser)  # [N, C, T]
    """
    usage = (
        "model_input(model.layout.spec, recording, "
        "model.learned.normaliser_of(SUBJECT))"
    )
    require_kind("spec", spec, SignalSpec, usage)
    require_kind("recording", recording, Trials, usage)
    if normaliser is not None:
        require_kind("normaliser", normaliser, Normaliser, usage)
    trials = choose_input(spec, recording, where, channel_mapping=channel_mapping)

    # pass a normaliser if, and only if, the model's signals were normalised
    kind = spec.signal.get("normalise", "none")
    if (normaliser is None) != (kind == "none"):
        preposition = "without" if normaliser is None else "with"
        raise BrainhiveError(
            f"{where} comes {preposition} a normaliser, and the model's signals were "
            f"normalised by {kind}",
            "model.learned.normaliser_of(SUBJECT), or a normaliser of the subject's "
            "own training signals",
        )
    if normaliser is not None and len(normaliser.mean) != trials.width:
        raise BrainhiveError(
            f"{where} has {trials.width} channels or voxels, the normaliser has "
            f"{len(normaliser.mean)}",
            "use the normaliser of the recorded subject",
        )
    return trials.normalise(normaliser).averages


def choose_input(
    spec: SignalSpec,
    recording: Trials,
    where: str,
    default: Sequence[str] | None = None,
    is_same_store: bool = False,
    channel_mapping: ChannelChoice = "none",
) -> Trials:
    """Select the part of a recording that a model reads, not normalised.

    Args:
        spec: Signals that the model reads.
        recording: The recording.
        where: Name of the recording, for errors.
        default: Channels for a model that has numbers of channels, but no names.
        is_same_store: If True, all steps of the preparation must be equal, because the
            model was trained on the same store.
        channel_mapping: Treatment of missing channels, as in `map_channels`.

    Raises:
        BrainhiveError: if unit, rate, preparation, channels or samples do not fit.
    """
    spec.refuse_other_signals(
        recording.unit, recording.rate_hz, recording.preparation, where, is_same_store
    )
    # the section was read from the model's file
    signal = documents.check(dict(spec.signal), "the model's signal", Signal)
    return match_recording(spec, recording, signal, default, where, channel_mapping)


def match_recording(
    spec: SignalSpec,
    recording: Trials,
    signal: Signal,
    default: Sequence[str] | None,
    where: str,
    channel_mapping: ChannelChoice = "none",
) -> Trials:
    """Select the model's window and channels of a recording, not normalised.

    Args:
        spec: Signals that the model reads.
        recording: Recording of any data set.
        signal: Section that selected the model's training signals.
        default: Channels for a model that has numbers of channels, but no names.
        where: Name of the recording, for errors.
        channel_mapping: Treatment of missing channels, as in `map_channels`.

    Returns:
        Trials with channels in the model's order.

    Raises:
        BrainhiveError: if channels are missing and not mapped, if the number of samples
            differs, or for voxels instead of sensors.
        RecipeError: if voxels should be mapped.
    """
    has_voxels = not recording.space.has_names
    if has_voxels != (not spec.names):
        kind, needed_kind = ("sensors", "voxels")
        if has_voxels:
            kind, needed_kind = ("voxels", "sensors")
        raise BrainhiveError(
            f"{where} has {kind} where the model takes {needed_kind}",
            f"use a data set of {needed_kind}",
        )
    if channel_mapping != "none" and has_voxels:
        raise RecipeError(
            f"channel_mapping is for sensors, {where} has voxels",
            "channel_mapping=none",
        )

    changes: dict[str, Any] = {}
    mapping = None
    if not has_voxels:
        changes["channels"], mapping = _match_channels(
            spec,
            recording,
            usual_names=signal.channels or default,
            where=where,
            channel_mapping=channel_mapping,
        )
    if spec.times_s and spec.rate_hz:
        half_ms = 500 / spec.rate_hz  # samples may be slightly off the model's times
        start_ms = float(1000 * spec.times_s[0] - half_ms)
        stop_ms = float(1000 * spec.times_s[-1] + half_ms)
        changes["window_ms"] = (start_ms, stop_ms)
    selection = signal.model_copy(update=changes)

    # the window must have the model's number of samples
    start_ms, stop_ms = selection.window_ms or (-np.inf, np.inf)
    times_ms = 1000 * recording.times_s
    samples = int(((times_ms >= start_ms) & (times_ms < stop_ms)).sum())
    if samples != spec.samples:
        raise BrainhiveError(
            f"{where} has {samples} samples where the model takes {spec.samples}",
            "cut or resample its signals to the model's window and rate",
        )
    return replace(selection.select(recording, default, where), mapping=mapping)


def _match_channels(
    spec: SignalSpec,
    recording: Trials,
    usual_names: Sequence[str] | None,
    where: str,
    channel_mapping: ChannelChoice,
) -> tuple[list[str], ChannelMapping | None]:
    """Select the channels of a recording that a model reads.

    Args:
        spec: Signals that the model reads.
        recording: The recording.
        usual_names: Channels for a model that has no names, by default all.
        where: Name of the recording, for errors.
        channel_mapping: Treatment of missing channels.

    Returns:
        Names of the channels, and their mapping to the model's channels, if any.
    """
    sensors = recording.space
    ch_names = sensors.names
    n_channels = len(spec.names)
    # a model without names has 0, 1, 2 …
    if spec.names == tuple(str(number) for number in range(n_channels)):
        names = list(usual_names or ch_names)
        if len(names) != n_channels:
            raise BrainhiveError(
                f"{where} gives {len(names)} channels where the model takes "
                f"{n_channels}",
                "the model has no names of channels; decode with a data set of as many "
                "channels",
            )
        return names, None

    missing_names = []
    rows = find_rows(spec.names, ch_names, where)
    for name, row in zip(spec.names, rows, strict=True):
        if row is None:
            missing_names.append(name)
    if not missing_names:
        return list(spec.names), None
    if channel_mapping == "none":
        raise BrainhiveError(
            f"{where} has no channel {', '.join(missing_names)}, which the model was "
            "trained on",
            "train on channels that both have: signal.channels=…; or map them in the "
            "test: channel_mapping=spline, or common",
        )
    if channel_mapping == "spline" and not recording.modality.startswith("EEG"):
        raise BrainhiveError(
            f"{where}: splines are for EEG, not for {recording.modality}",
            "channel_mapping=common",
        )
    mapping = map_channels(channel_mapping, spec.names, spec.positions, sensors, where)
    return list(mapping.sources), mapping
