"""Linear encoding model, which predicts signals from embeddings of pictures."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from brainhive_cli.core.base import BrainhiveError, Float64, Int64, console
from brainhive_cli.data.datasets import group_rows
from brainhive_cli.data.signals import (
    Trials,
    average_by_part,
    average_repetitions,
    separate_in_time,
)
from brainhive_cli.data.stores import TargetStore
from brainhive_cli.evaluation.explanation.job import Reader
from brainhive_cli.evaluation.explanation.profiles import (
    TIME,
    TIME_PART,
    Axis,
    Labels,
    Profile,
    SubjectProfiles,
)
from brainhive_cli.evaluation.explanation.recipe import Recipe
from brainhive_cli.measurement import (
    OutputSums,
    Products,
    Repetitions,
    average_random_halves,
    correlate,
    correlation_shares,
    project,
    unit_vectors,
)

MAX_COMPONENTS = 256
"""Largest number of principal components of each encoder."""
CEILINGS = ("encoding of a half", "encoding lower ceiling", "encoding upper ceiling")
"""Names of the arrays: correlation of the prediction with half of the repetitions, and
the two noise ceilings.
"""
CORRELATION = "r"
"""Metric: Pearson's correlation of signal and prediction over pictures."""

TargetLevels = Mapping[str, TargetStore]
"""Embeddings of the pictures of a split, by encoder. An encoder is called a level."""


def explain_signals(
    reader: Reader, levels: Mapping[str, TargetLevels], recipe: Recipe
) -> SubjectProfiles:
    """Fit the linear encoding model to the signals of a subject.

    `levels` are the embeddings of the training and tested pictures, by split and
    encoder.
    """
    subject_profiles = SubjectProfiles()
    with console.progress(
        f"fitting the encoding model of subject {reader.trials.subject}"
    ):
        subject_profiles.attempt(
            "encoding", lambda: _encode(reader, levels, recipe, subject_profiles)
        )
    return subject_profiles


def _encode(
    reader: Reader,
    levels: Mapping[str, TargetLevels],
    recipe: Recipe,
    subject_profiles: SubjectProfiles,
) -> dict[str, Profile]:
    """Measure the correlation of predicted and measured signals.

    Other results are added to `subject_profiles`: the map, the ceilings, the profiles
    of each level, and reasons for missing results.

    Returns:
        Profiles by `TIME_PART` and `SPACE_PART`.
    """
    # tested signals [N, E, T], in sensor space unless channels are mixtures of sensors
    is_mixed = reader.mixture is not None
    if reader.mixture:
        subject_profiles.missing["encoding by sensor"] = reader.mixture.in_one_line
    chunks = list(average_repetitions(reader.trials, is_mixed))
    measured = np.concatenate(chunks).astype(np.float64)

    # embeddings of the training and of the tested pictures
    train_trials = reader.person.train_trials
    train_rows = train_trials.stimulus
    device = reader.model.module.device
    train = {
        name: store.read_flat(train_rows).to(device)
        for name, store in levels["train"].items()
    }
    test = {
        name: store.read_flat(reader.trials.stimulus).to(device)
        for name, store in levels[recipe.split].items()
    }

    # the control of each level has the embeddings of other pictures
    train_items = group_rows(
        reader.tests.dataset, reader.tests.open_pictures("train"), [train_rows]
    )
    labels = Labels.draw(
        np.arange(len(measured)), reader.items, recipe.draws, recipe.seed
    )
    wrong_orders = (train_items.permute(recipe.seed)[0], labels.wrong_indices)
    predicted, predictions_of_level = predict_signals(
        train,
        test,
        partial(_read_signals, train_trials, is_mixed, device),
        measured.shape[1:],
        wrong_orders,
        MAX_COMPONENTS,
        recipe.seed,
    )
    subject_profiles.arrays["encoding map"] = correlate_over_pictures(
        predicted, measured
    )

    # noise ceilings, from halves of the repetitions in different parts of the recording
    try:
        part_numbers, part_counts = separate_in_time(reader.trials)
        if part_counts.min() < 2:
            raise BrainhiveError(
                "a picture was shown once", "use a split with repetitions"
            )
    except BrainhiveError as error:
        subject_profiles.missing["ceilings of encoding"] = error.in_one_line
    else:
        averages = average_by_part(reader.trials, part_numbers, is_mixed)
        generator = torch.Generator().manual_seed(recipe.seed)
        ceilings = estimate_ceilings(
            averages, predicted, lambda parts: average_random_halves(parts, generator)
        )
        subject_profiles.arrays |= dict(zip(CEILINGS, ceilings, strict=True))

    # positions over times, which voxels lack, and over sensors or regions
    positions: dict[str, tuple[Axis, list[Any]]] = {}
    if len(reader.times_ms) > 1:
        times = Axis(TIME, reader.times_ms.round(3).tolist())
        time_indices = [np.s_[..., [row]] for row in range(len(times.at))]
        positions[TIME_PART] = (times, time_indices)
    positions |= reader.list_spatial_positions()

    # unique correlation of each level, and correlation of the full model
    for level, level_predictions in predictions_of_level.items():
        for part, (axis, indices) in positions.items():
            subject_profiles.profiles[f"encoding · {level}:{part}"] = (
                profile_unique_correlation(
                    predicted, level_predictions, measured, axis, indices
                )
            )
    profiles = {}
    for part, (axis, indices) in positions.items():
        profiles[part] = profile_correlation(predicted, measured, axis, indices, labels)
    return profiles


def _read_signals(
    trials: Trials, is_mixed: bool, device: torch.device
) -> Iterator[Tensor]:
    """Yield the averages over repetitions as tensors [m, E T], in chunks of stimuli."""
    for chunk in average_repetitions(trials, is_mixed):
        yield torch.from_numpy(chunk.reshape(len(chunk), -1)).to(device)


def predict_signals(
    train: Mapping[str, Tensor],
    test: Mapping[str, Tensor],
    signals: Callable[[], Iterator[Tensor]],
    shape: tuple[int, ...],
    wrong_orders: tuple[Int64, Int64],
    components: int,
    seed: int = 0,
) -> tuple[Float64, dict[str, tuple[Float64, Float64]]]:
    """Predict signals by ridge regressions on the embeddings of all and of some levels.

    All regressions are fitted in a single pass over the training signals.

    Args:
        train: Embeddings [n, F] of the training pictures, by level.
        test: Embeddings [N, F] of the tested pictures, by level.
        signals: Function that yields the training signals in chunks [m, E T], in the
            order of the pictures.
        shape: Numbers of sensors E and of samples T.
        wrong_orders: Indices [n] and [N] of the pictures whose embeddings a training
            and a tested picture get in the control.
        components: Largest number of principal components of a level.
        seed: Seed of the principal components.

    Returns:
        Predictions [N, E, T] from all levels. For each of several levels, the
        predictions without it, and with its control.
    """
    # columns of inputs: principal components of all levels, then of the control
    pairs = {}
    for name in train:
        pairs[name] = project(
            train[name].flatten(1), test[name].flatten(1), components, seed
        )
    inputs = []
    for side, order in enumerate(wrong_orders):
        values = torch.cat([pair[side] for pair in pairs.values()], 1)
        wrong_rows = torch.from_numpy(order).to(values.device)
        inputs.append(torch.cat([values, values[wrong_rows]], 1))
    train_inputs, test_inputs = inputs

    # all predictions use the penalty of the full model, chosen by cross-validation
    sums = OutputSums.from_chunks(train_inputs, signals())
    exact_inputs = train_inputs.double()
    gram = exact_inputs.T @ exact_inputs
    columns = np.arange(train_inputs.shape[1] // 2)
    penalty = _select(gram, sums, columns).choose_alpha()
    predict = partial(_predict, gram, sums, test_inputs, penalty, shape)

    # leave out each level, and replace it by its control
    predictions_of_level = {}
    start = 0
    for name, (train_components, _) in pairs.items():
        stop = start + train_components.shape[1]
        level_columns = columns[start:stop]
        start = stop
        other_columns = np.setdiff1d(columns, level_columns)
        if not len(other_columns):
            continue
        control_columns = np.union1d(other_columns, level_columns + len(columns))
        predictions_of_level[name] = (
            predict(columns=other_columns),
            predict(columns=control_columns),
        )
    return predict(columns=columns), predictions_of_level


def _predict(
    gram: Tensor,
    sums: OutputSums,
    inputs: Tensor,
    penalty: float,
    shape: tuple[int, ...],
    columns: Int64,
) -> Float64:
    """Predict signals [N, E, T] by a ridge regression on some columns of the inputs."""
    selected_inputs = inputs[:, torch.from_numpy(columns).to(inputs.device)]
    outputs = _select(gram, sums, columns).predict(selected_inputs, penalty)
    return outputs.double().cpu().numpy().reshape(-1, *shape)


def _select(gram: Tensor, sums: OutputSums, columns: Int64) -> Products:
    """Return the products of a ridge regression on some columns [f] of the inputs."""
    rows = torch.from_numpy(columns).to(gram.device)
    return Products.from_gram(
        gram=gram[rows][:, rows],
        cross=sums.rotated[rows],
        squares=sums.squares,
        mean=sums.mean,
        freedom=max(1, sums.count - 1),
    )


def estimate_ceilings(
    trials: Repetitions,
    predicted: Float64,
    average_halves: Callable[[Float64], tuple[Float64, Float64]],
) -> tuple[Float64, Float64, Float64]:
    """Estimate noise ceilings from halves of the repetitions.

    The upper ceiling is above 0 even for noise, because a half is part of all
    repetitions. Conclusions use the lower ceiling.

    Args:
        trials: Repetitions [R, E, T] of each of N stimuli.
        predicted: Predictions [N, E, T].
        average_halves: Function that draws two halves of the repetitions [R, E T], D
            times, and returns their averages [D, E T].

    Returns:
        Correlations [E, T] over stimuli, averaged over draws: of the prediction with a
        half, of the halves (lower ceiling), and of a half with all (upper ceiling).

    Source: Gifford et al. 2022 (THINGS-EEG2).
    """
    pairs = _pair_halves(trials, predicted, average_halves)
    correlations = correlate(pairs).mean(1)  # [3, E T]
    with_half, lower, upper = correlations.reshape(3, *predicted.shape[1:])
    return with_half, lower, upper


def _pair_halves(
    trials: Repetitions,
    predicted: Float64,
    average_halves: Callable[[Float64], tuple[Float64, Float64]],
) -> Iterator[tuple[Float64, Float64]]:
    """Yield both sides [3, D, E T] of the three correlations, for each stimulus.

    Args and order of the correlations as in `estimate_ceilings`.
    """
    for stimulus, prediction in zip(trials, predicted, strict=True):
        repetitions = np.asarray(stimulus, np.float64).reshape(len(stimulus), -1)
        first, second = average_halves(repetitions)  # [D, E T]
        mean = np.broadcast_to(repetitions.mean(0), first.shape)
        prediction = np.broadcast_to(prediction.reshape(-1), first.shape)
        yield np.stack([prediction, first, first]), np.stack([first, second, mean])


def correlate_over_pictures(predicted: Float64, measured: Float64) -> Float64:
    """Correlate predicted with measured signals [N, E, T] over pictures: [E, T]."""
    return (unit_vectors(predicted) * unit_vectors(measured)).sum(0)


def average_positions(values: Float64, indices: Sequence[Any]) -> Float64:
    """Average values of all sensors and times at each position.

    Args:
        values: Values [N, E, T] of N pictures.
        indices: Index for each of P positions, which keeps three dimensions.

    Returns:
        Averages [P, N].
    """
    return np.stack([values[index].mean((1, 2)) for index in indices])


def profile_correlation(
    predicted: Float64,
    measured: Float64,
    axis: Axis,
    indices: Sequence[Any],
    labels: Labels,
) -> Profile:
    """Profile the correlation of predictions and signals, with permuted pictures.

    Predictions and signals are [N, E, T]. `indices` select the values of each position.
    """
    predictions = unit_vectors(predicted)
    signals = unit_vectors(measured)
    matrices = _correlate_all_pairs(predictions, signals, indices)
    profile = Profile.from_matrices(CORRELATION, axis, matrices, labels)
    shares = correlation_shares(predictions, signals)
    return replace(profile, values=average_positions(shares, indices))


def _correlate_all_pairs(
    predictions: Float64, signals: Float64, indices: Sequence[Any]
) -> Iterator[Float64]:
    """Yield the products [N, N] of each prediction and signal at each position.

    Predictions and signals [N, E, T] are from `unit_vectors`. The mean of a diagonal is
    the mean correlation of the sensors and times at the position.
    """
    count = len(signals)
    for index in indices:
        prediction = predictions[index].reshape(count, -1)
        signal = signals[index].reshape(count, -1)
        yield count * (prediction @ signal.T) / prediction.shape[1]


def profile_unique_correlation(
    predicted: Float64,
    level_predictions: tuple[Float64, Float64],
    measured: Float64,
    axis: Axis,
    indices: Sequence[Any],
) -> Profile:
    """Profile the correlation that a level (an encoder) adds to the other levels.

    More inputs fit better by chance, so the control adds embeddings of other pictures.

    `level_predictions` [N, E, T] are without the level, and with its control.
    `indices` select the values of each position.
    """
    without_level, control = level_predictions
    signals = unit_vectors(measured)
    full_shares = correlation_shares(unit_vectors(predicted), signals)
    shares_without = correlation_shares(unit_vectors(without_level), signals)
    control_shares = correlation_shares(unit_vectors(control), signals)
    return Profile(
        # Metric: decrease of this correlation without the embeddings of an encoder.
        "unique_r",
        axis,
        values=average_positions(full_shares - shares_without, indices),
        shuffled=average_positions(control_shares - shares_without, indices),
    )
