"""Input of a brain model from trials: its channels and window, normalised, with the
rows of their targets.
"""

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from brainhive_cli.core import console, documents
from brainhive_cli.core.arrays import Float32
from brainhive_cli.core.errors import (
    BrainhiveError,
    Line,
    RecipeError,
    find_rows,
    require_kind,
)
from brainhive_cli.data.signals.channel_mapping import ChannelChoice, map_channels
from brainhive_cli.data.signals.normalisations import Normaliser, Statistics
from brainhive_cli.data.signals.selection import Signal
from brainhive_cli.data.signals.spaces import Sensors, Voxels
from brainhive_cli.data.signals.trials import MAX_STIMULI_PER_READ, Trials
from brainhive_cli.data.stores.recordings import Recordings
from brainhive_cli.data.stores.target_store import TargetStore
from brainhive_cli.models.signal_spec import SignalSpec


def spec_of(
    subjects: Sequence[Trials], signal: Mapping[str, Any] | None = None
) -> SignalSpec:
    """Say what a model that learns from these subjects' signals is built for.

    Args:
        subjects: The trials of each.
        signal: The section `signal` that chose them.

    Raises:
        BrainhiveError: if subjects differ in sensors, samples, rate or unit.
    """
    # the subjects share what one model reads
    first = subjects[0]
    shared: dict[str, list[Any]] = {
        "sensors": [trials.channels for trials in subjects],
        "sampling rate": [trials.rate_hz for trials in subjects],
        "samples": [len(trials.times_s) for trials in subjects],
        "unit": [trials.unit for trials in subjects],
        "regions": [list(trials.regions) for trials in subjects],
    }
    for name, values in shared.items():
        for other, value in zip(subjects, values, strict=True):
            if value != values[0]:
                both = "" if name == "sensors" else f": {values[0]} and {value}"
                way = "choose what all have: signal.channels, signal.window_ms"
                if name == "sampling rate":
                    rate_hz = min(values[0] or 0, value or 0)
                    way = f"prepare them again with preparation.rate_hz={rate_hz:g}"
                raise BrainhiveError(
                    f"subjects {first.subject} and {other.subject} differ in their "
                    f"{name}{both}",
                    f"{way}; or train on each by itself",
                )

    # steps of the preparation that all subjects share
    steps = [one.preparation for one in subjects]
    regions = [one.regions for one in subjects]
    return SignalSpec(
        names=first.channels,
        samples=len(first.times_s),
        subjects=tuple(trials.subject for trials in subjects),
        widths=tuple(trials.width for trials in subjects),
        rate_hz=first.rate_hz,
        times_s=tuple(first.times_s.tolist()),
        regions={name: tuple(one[name] for one in regions) for name in regions[0]},
        positions=first.positions,
        unit=first.unit,
        preparation={
            k: v for k, v in steps[0].items() if all(s.get(k) == v for s in steps)
        },
        signal=signal or {},
        modality=first.modality,
    )


def read_training(
    source: Recordings, subject: int, stimuli: TargetStore, measures: bool = True
) -> tuple[Trials, Statistics | None]:
    """Choose the trials that a subject's model learns from, normalised by their own
    statistics.

    Args:
        source: Whose signals, and which part of them.
        subject: Who.
        stimuli: One of the target stores of the training split.
        measures: Whether the statistics are measured. Without, the trials stay as
            they are.

    Returns:
        The trials, and the statistics of the normalisation, if there is one.

    Raises:
        MissingData: if the subject has no signal store, or it has no training split.
        RecipeError: if it does not have the channels, regions or window.
        BrainhiveError: if the signals were simulated of other pictures than there are
            now.
    """
    where = f"{source.dataset.name} subject {subject} train"
    trials = source.select(match_split(source, subject, "train", stimuli), where)
    normalisation = source.signal.normalise
    if normalisation is None or not measures:
        return trials, None
    # statistics are of all recorded stimuli; where stimuli are held out, of the fold's
    selected = source.select(source.open_recording(subject, "train"), where)
    statistics = measure_training(source, selected, stimuli)
    return trials.normalise(normalisation.build(statistics)), statistics


def measure_training(
    source: Recordings, trials: Trials, stimuli: TargetStore
) -> Statistics:
    """Measure a subject's training signals for the normalisation: in the fold, where
    stimuli are held out.
    """
    holdout = source.dataset.holdout
    if holdout.divides_train:  # whose stimuli all lie in one store
        rows = stimuli.find_rows(trials.image_ids)
        trials = trials.take(
            (rows >= 0) & holdout.choose_stimuli(stimuli, "train", source.fold)[rows]
        )
    with console.progress(f"measuring {trials.where}", len(trials.signal)) as bar:
        # in blocks, as signals need not fit into memory
        def read() -> Iterator[Float32]:
            for start in range(0, len(trials.signal), MAX_STIMULI_PER_READ):
                yield (chunk := trials.read(slice(start, start + MAX_STIMULI_PER_READ)))
                bar.advance(len(chunk))

        return source.signal.normalise.measure(read())


def measure_new_subject(
    spec: SignalSpec,
    source: Recordings,
    subject: int,
    stimuli: TargetStore,
    is_same_store: bool = False,
    channel_mapping: ChannelChoice = "none",
) -> Normaliser | None:
    """Build the normaliser of a subject whom a model has none of, from the subject's
    training signals.

    Args:
        spec: What the model is built for.
        source: The signals.
        subject: Whose.
        stimuli: Target store; where stimuli are held out, those of the fold are left
            out.
        is_same_store: As for `choose_input`.
        channel_mapping: As for `choose_input`.

    Returns:
        The normaliser; None where signals are not normalised.
    """
    if (normalisation := source.signal.normalise) is None:
        return None
    where = f"{source.dataset.name} subject {subject} train"
    options = source.dataset.channels, is_same_store, channel_mapping
    # the channels and window of the model, which the normaliser is for
    trials = choose_input(
        spec, source.open_recording(subject, "train"), where, *options
    )
    return normalisation.build(measure_training(source, trials, stimuli))


def match_split(
    source: Recordings, subject: int, split: str, stimuli: TargetStore
) -> Trials:
    """Open a subject's trials of a split, and match them with the stimuli that their
    fold has of the split.

    Returns:
        The trials whose stimuli have a row in the store, which they name.

    Raises:
        MissingData: if the subject has no signal store, or it does not have the split.
        BrainhiveError: if the signals were simulated of other pictures than the split
            has now, or trials that are learned are copies of tested ones.
    """
    dataset = source.dataset
    store = source.open_store(subject)
    holdout = source.dataset.holdout
    stored = store.splits.get(holdout.name_stored_split(split))
    recorded_ids = () if stored is None else stored.image_ids
    # simulated signals are of all stimuli of their split; a real recording may lack
    # some
    if dataset.is_simulated and {*recorded_ids} != {*stimuli.image_ids}:
        raise BrainhiveError(
            f"{store.path} was made when {dataset.name}/{split} had other pictures "
            f"than {stimuli.path}",
            f"{shlex.join(['rm', os.path.abspath(store.path)])}; the same command "
            "then makes it again",
        )
    # trials with a row in the store, and which of them the fold has in this split
    where = f"{dataset.name} subject {subject} {split}"
    trials = match_stimuli(source.open_recording(subject, split), stimuli, where)
    is_in_fold = holdout.choose_stimuli(stimuli, split, source.fold)[trials.stimulus]

    # no trial is both learned and tested
    matched = trials.take(is_in_fold)
    other_side = [
        trials.take(~is_in_fold),
        *holdout.list_opposite_trials(store.splits, split, source.fold, where),
    ]
    matched.refuse_copies(
        np.concatenate([other.digests.ravel() for other in other_side]),
        where,
        "trials that are tested" if split == "train" else "trials that are trained on",
        "take the copies out of the files, and prepare again: "
        f"{Line('prepare', '--again')}",
    )
    return replace(matched, subject=subject)


def match_stimuli(trials: Trials, stimuli: TargetStore, where: str) -> Trials:
    """Match what was shown with the stimuli of a target store.

    What is not there could not be decoded: it is left out, with a warning.

    Args:
        trials: Trials of N stimuli.
        stimuli: The store.
        where: Whose they are, for the warning.

    Returns:
        Those trials that have a row in the store, which they name.

    Raises:
        BrainhiveError: if nothing says what was shown.
    """
    if not len(trials.image_ids):
        raise BrainhiveError(
            f"{where}: nothing says which pictures were shown",
            "Trials(image_ids=[…]); api.model_input, which matches nothing, needs none",
        )
    # rows in the store, -1 where a stimulus has none
    rows = stimuli.find_rows(trials.image_ids)
    is_known = rows >= 0
    if not is_known.all():
        console.warn(
            f"{where}: {(~is_known).sum()} trials left out, their pictures have no "
            "embedding"
        )
    return replace(trials.take(is_known), stimulus=rows[is_known])


def model_input(
    spec: SignalSpec,
    recording: Trials,
    normaliser: Normaliser | None,
    where: str = "the recording",
    channel_mapping: ChannelChoice = "none",
) -> Float32:
    """Read a recording as a model takes it; it may be of any stimuli, and of anyone.

    Channels are chosen by name, or voxels by region, the window by time; repetitions
    are averaged, signals scaled and normalised as in training.

    Args:
        spec: What the model is built for.
        recording: Prepared as the signals that it learned from, [N, R, C, T].
        normaliser: Of whose signals these are, as `Learned.normaliser_of(subject)` of
            the model; None where the model's are not normalised.
        where: What the recording is, for errors.
        channel_mapping: What to do about channels that the recording lacks, see
            `map_channels`.

    Returns:
        [N, C, T], channels and samples as in `spec`.

    Raises:
        BrainhiveError: if the recording has another unit, rate or preparation, lacks
            channels or samples, or has to be normalised and nothing says how.
    """
    # types first, as anyone may call this function
    usage = (
        "model_input(model.layout.spec, recording, "
        "model.learned.normaliser_of(SUBJECT))"
    )
    require_kind("spec", spec, SignalSpec, usage)
    require_kind("recording", recording, Trials, usage)
    if normaliser is not None:
        require_kind("normaliser", normaliser, Normaliser, usage)
    trials = choose_input(spec, recording, where, channel_mapping=channel_mapping)

    # a normaliser if the model's signals were normalised, and only then
    if (normaliser is None) != (spec.signal.get("normalise", "none") == "none"):
        kind = spec.signal.get("normalise", "none")
        problem = (
            f"{where} comes with{'out' if normaliser is None else ''} a normaliser"
        )
        raise BrainhiveError(
            f"{problem}, and the model's signals were normalised by {kind}",
            "model.learned.normaliser_of(SUBJECT), or that of the subject's own "
            "training signals",
        )
    # another subject's normaliser may have another width
    if normaliser is not None and len(normaliser.mean) != trials.width:
        widths = (
            f"{trials.width} channels or voxels, the normaliser is of "
            f"{len(normaliser.mean)}"
        )
        raise BrainhiveError(
            f"{where} has {widths}", "take that of the subject whose signals these are"
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
    """Choose what a model reads of a recording, not normalised; see `model_input`.

    `default` are channels for a model that only counts its own. Of the store that the
    model learned from, all steps of the preparation are compared.
    """
    steps = recording.unit, recording.rate_hz, recording.preparation
    spec.refuse_other_signals(*steps, where, is_same_store)
    # the section comes from the model's file
    section = documents.check({**spec.signal}, "the model's signal", Signal)
    return match_recording(spec, recording, section, default, where, channel_mapping)


def match_recording(
    spec: SignalSpec,
    recording: Trials,
    signal: Signal,
    default: Sequence[str] | None,
    where: str,
    channel_mapping: ChannelChoice = "none",
) -> Trials:
    """Choose the window and the channels of another data set's recording that a model
    takes.

    Args:
        spec: What the model is built for.
        recording: Of a data set that the model was not trained on.
        signal: The part of its own recordings that the model was trained on.
        default: Channels that the data set uses for decoding.
        where: Name of the recording, for errors.
        channel_mapping: What to do about channels that the recording lacks, see
            `map_channels`.

    Returns:
        The model's window and channels, in the model's order, not normalised.

    Raises:
        BrainhiveError: if the recording lacks channels that are not mapped, or is too
            short.
        RecipeError: if voxels are to be mapped.
    """
    # a model of sensors reads no voxels, nor the reverse
    if isinstance(recording.space, Voxels) != (not spec.names):
        kind, needed = ("voxels", "sensors") if spec.names else ("sensors", "voxels")
        raise BrainhiveError(
            f"{where} has {kind} where the model takes {needed}",
            f"use a data set of {needed}",
        )

    # channels are matched by name, and mapped on request; a model that only counts them
    # takes the chosen ones
    mapping = None
    if channel_mapping != "none" and isinstance(recording.space, Voxels):
        raise RecipeError(
            f"channel_mapping is of sensors, {where} has voxels", "channel_mapping=none"
        )
    if isinstance(recording.space, Sensors):
        names = recording.space.names
        chosen = spec.names
        # names 0, 1, 2 … are those of a model that only counts channels
        if spec.names == tuple(map(str, range(len(spec.names)))):
            chosen = tuple(signal.channels or default or names)
            if len(chosen) != len(spec.names):
                raise BrainhiveError(
                    f"{where} gives {len(chosen)} channels where the model takes "
                    f"{len(spec.names)}",
                    "the model does not name them; decode with a data set of as many",
                )
        elif missing := [
            name
            for name, row in zip(chosen, find_rows(chosen, names, where), strict=True)
            if row is None
        ]:
            if channel_mapping == "none":
                raise BrainhiveError(
                    f"{where} has no channel {', '.join(missing)}, which the model "
                    "was trained on",
                    "train on channels that both have: signal.channels=…; or map them "
                    "when it is tested: channel_mapping=spline, or common",
                )
            if channel_mapping == "spline" and not recording.modality.startswith("EEG"):
                raise BrainhiveError(
                    f"{where}: splines are of EEG, not of {recording.modality}",
                    "channel_mapping=common",
                )
            mapping = map_channels(
                channel_mapping, spec.names, spec.positions, recording.space, where
            )
            chosen = mapping.sources
        signal = signal.model_copy(update={"channels": list(chosen)})

    # the window is that of the model's own times
    if spec.times_s and spec.rate_hz:
        half_ms = 500 / spec.rate_hz  # samples may lie a little off the model's
        first_ms, last_ms = (1000 * spec.times_s[index] for index in (0, -1))
        window_ms = (float(first_ms - half_ms), float(last_ms + half_ms))
        signal = signal.model_copy(update={"window_ms": window_ms})

    # count the samples in the window
    start_ms, stop_ms = signal.window_ms or (-np.inf, np.inf)
    times_ms = 1000 * recording.times_s
    samples = int(((times_ms >= start_ms) & (times_ms < stop_ms)).sum())
    if samples != spec.samples:
        raise BrainhiveError(
            f"{where} has {samples} samples where the model takes {spec.samples}",
            "cut or resample its signals to the model's window and rate",
        )
    return replace(signal.select(recording, default, where), mapping=mapping)
