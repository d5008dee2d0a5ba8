"""The linear encoding model: signals predicted from embeddings, also without each of
them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from brainhive_cli.core import console
from brainhive_cli.core.arrays import Float64, Int64
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.datasets import group_rows
from brainhive_cli.data.signals.repetitions import (
    average_by_part,
    average_repetitions,
    separate_in_time,
)
from brainhive_cli.data.stores.target_store import TargetStore
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
from brainhive_cli.measurement.linear_maps import Products, project
from brainhive_cli.measurement.reliability import (
    Repetitions,
    average_random_halves,
    correlate,
    correlation_shares,
    unit_vectors,
)

COMPONENTS = 256
"""Principal components of each encoder, at most."""
CEILINGS = ("encoding of a half", "encoding lower ceiling", "encoding upper ceiling")
"""Names of the arrays: the correlation of the prediction with half of the repetitions,
and its ceilings.
"""
CORRELATION, UNIQUE = "r", "unique_r"
"""Names of the metrics: Pearson's correlation over pictures of signal and prediction,
and what it loses without the embeddings of one encoder.
"""


def predict_signals(
    train: Mapping[str, Tensor],
    test: Mapping[str, Tensor],
    signals: Callable[[], Iterator[Tensor]],
    shape: tuple[int, ...],
    wrong: tuple[Int64, Int64],
    components: int,
    seed: int = 0,
) -> tuple[Float64, dict[str, tuple[Float64, Float64]]]:
    """Fit all models in one pass over the training signals, and predict those of the
    tested pictures.

    Args:
        train: Embeddings [n, F] of the training pictures by level.
        test: Those of the tested pictures, [N, F].
        signals: Gives the training signals in chunks [m, E T], in the order of the
            pictures.
        shape: E and T.
        wrong: Which training picture's embeddings another has in the control [n], and
            which tested one's [N].
        components: Of each level at most.
        seed: Of the principal components.

    Returns:
        [N, E, T] from all levels; and by level the same without it, and with its
        embeddings exchanged among pictures. Of one level nothing would remain without
        it.
    """
    # principal components of each level, and the same with embeddings exchanged among
    # pictures
    pairs = {
        name: project(train[name].flatten(1), test[name].flatten(1), components, seed)
        for name in train
    }
    sides = []
    for side, order in enumerate(wrong):
        values = torch.cat([pair[side] for pair in pairs.values()], 1)
        sides.append(
            torch.cat([values, values[torch.from_numpy(order).to(values.device)]], 1)
        )
    products = Products.from_samples(sides[0], signals())

    # all predictions have the penalty of the full model, by cross-validation
    columns = np.arange(sides[0].shape[1] // 2)
    penalty = products.select(columns).choose_alpha()

    def predict(chosen: Int64) -> Float64:
        # [N, columns]
        inputs = sides[1][:, torch.from_numpy(chosen).to(sides[1].device)]
        outputs = products.select(chosen).predict(inputs, penalty)  # [N, E T]
        return outputs.double().cpu().numpy().reshape(-1, *shape)

    # each level is left out, and exchanged
    partial = {}
    stops = np.cumsum([pair[0].shape[1] for pair in pairs.values()])
    for name, level in zip(pairs, np.split(columns, stops[:-1]), strict=True):
        rest = np.setdiff1d(columns, level)
        if len(rest):
            partial[name] = (
                predict(rest),
                predict(np.union1d(rest, level + len(columns))),
            )
    return predict(columns), partial


def correlate_over_pictures(predicted: Float64, measured: Float64) -> Float64:
    """Correlate [N, E, T] with [N, E, T] over pictures: [E, T]."""
    return (unit_vectors(predicted) * unit_vectors(measured)).sum(0)


def average_positions(values: Float64, indices: Sequence[Any]) -> Float64:
    """Average values [N, E, T] over each of P parts of sensors and times, of three
    dimensions: [P, N].
    """
    return np.stack([values[index].mean((1, 2)) for index in indices])


def profile_correlation(
    predicted: Float64,
    measured: Float64,
    axis: Axis,
    indices: Sequence[Any],
    labels: Labels,
) -> Profile:
    """Average the correlation over all but one axis, with permuted labels of the
    measured pictures.

    Args:
        predicted: [N, E, T].
        measured: [N, E, T].
        axis: The positions.
        indices: Part of [N, E, T] at each position, of three dimensions.
        labels: Permutations of the N items.
    """
    # correlations of every prediction with every signal, for the control
    count = len(measured)
    units = (unit_vectors(predicted), unit_vectors(measured))

    def matrices() -> Iterator[Float64]:  # [N, N] at each position
        for index in indices:
            prediction, signal = (unit[index].reshape(count, -1) for unit in units)
            yield count * (prediction @ signal.T) / prediction.shape[1]

    profile = Profile.from_matrices(CORRELATION, axis, matrices(), labels)
    return replace(
        profile, values=average_positions(correlation_shares(*units), indices)
    )


def profile_unique_correlation(
    predicted: Float64,
    partial: tuple[Float64, Float64],
    measured: Float64,
    axis: Axis,
    indices: Sequence[Any],
) -> Profile:
    """Describe what a level adds at each position: the correlation less that without
    the level.

    The control adds the level with the embeddings of other pictures; `partial` is
    predicted without the level, and with these.
    """
    # more inputs fit better by chance, so the control adds as many wrong ones
    units = unit_vectors(measured)
    sides = (predicted, *partial)
    full, without, shuffled = (
        correlation_shares(unit_vectors(side), units) for side in sides
    )
    values, control = (
        average_positions(shares - without, indices) for shares in (full, shuffled)
    )
    return Profile(UNIQUE, axis, values, shuffled=control)


def estimate_ceilings(
    trials: Repetitions,
    predicted: Float64,
    halves: Callable[[Float64], tuple[Float64, Float64]],
) -> tuple[Float64, Float64, Float64]:
    """Correlate halves of the repetitions with a prediction, with each other, and with
    all, over stimuli.

    The last is far from 0 on noise, of which a half is a part: claims are made by the
    lower ceiling.

    Args:
        trials: [R, E, T] of each of N stimuli.
        predicted: [N, E, T].
        halves: Averages halves of repetitions [R, E T], in D ways: [D, E T] each.

    Returns:
        [E, T] each, means over draws: the prediction with a half, the lower and the
        upper ceiling.

    Source: Gifford et al. 2022 (THINGS-EEG2).
    """

    def pairs() -> Iterator[tuple[Float64, Float64]]:  # [3, D, E T]
        for stimulus, prediction in zip(trials, predicted, strict=True):
            # [R, E T]
            flat = np.asarray(stimulus, np.float64).reshape(len(stimulus), -1)
            first, second = halves(flat)
            mean, guess = (
                np.broadcast_to(x.reshape(-1), first.shape)
                for x in (flat.mean(0), prediction)
            )
            yield np.stack([guess, first, first]), np.stack([first, second, mean])

    against_half, lower, upper = (
        correlate(pairs()).mean(1).reshape(3, *predicted.shape[1:])
    )
    return against_half, lower, upper


TargetLevels = Mapping[str, TargetStore]
"""Stores of the encoders that signals are compared with, by encoder."""


def explain_signals(
    reader: Reader, levels: Mapping[str, TargetLevels], spec: Recipe
) -> SubjectProfiles:
    """Fit the linear encoding model of one subject's signals, in sensor space where
    whiteners are known.

    Args:
        reader: Of any cell that is tested on the subject; its model is not used.
        levels: Embeddings of the training pictures, and of the tested ones, by split.
        spec: What is measured.
    """
    collected = SubjectProfiles()
    with console.progress(
        f"fitting the encoding model of subject {reader.trials.subject}"
    ):
        collected.attempt("encoding", lambda: _encode(reader, levels, spec, collected))
    return collected


def _encode(
    reader: Reader,
    levels: Mapping[str, TargetLevels],
    spec: Recipe,
    collected: SubjectProfiles,
) -> dict[str, Profile]:
    """Measure the correlation by time, and by sensor or region; collect maps, ceilings
    and unique parts.
    """
    # tested signals in sensor space, where whiteners are known
    learned = reader.train_trials
    rows = reader.train_trials.stimulus
    is_mixed = reader.mixture is not None
    device = reader.member.module.device
    if reader.mixture:
        collected.missing["encoding by sensor"] = reader.mixture.in_one_line
    measured = np.concatenate([*average_repetitions(reader.trials, is_mixed)]).astype(
        np.float64
    )

    # predictions of the tested pictures' signals [N, E, T], in one pass over the
    # training signals
    def signals() -> Iterator[Tensor]:
        for part in average_repetitions(learned, is_mixed):
            yield torch.from_numpy(part.reshape(len(part), -1)).to(device)

    units = group_rows(
        reader.member.run.dataset, reader.member.pictures("train"), [rows]
    )
    labels = Labels.draw(np.arange(len(measured)), reader.items, spec.draws, spec.seed)
    # embeddings of other pictures, of the training and tested: the control of each
    # level
    wrong = units.permute(spec.seed)[0], labels.wrong_indices
    train, test = (
        {
            name: store.read_flat(pictures).to(device)
            for name, store in levels[split].items()
        }
        for split, pictures in (("train", rows), (spec.split, reader.trials.stimulus))
    )
    how = wrong, COMPONENTS, spec.seed
    predicted, partial = predict_signals(train, test, signals, measured.shape[1:], *how)
    collected.arrays["encoding map"] = correlate_over_pictures(predicted, measured)

    # what any model could reach, where stimuli were shown more than once
    try:
        numbers, counts = separate_in_time(reader.trials)
        # a half needs one part of the recording, the other half another
        if counts.min() < 2:
            raise BrainhiveError("a picture was shown once", "a split with repetitions")
    except BrainhiveError as error:
        collected.missing["ceilings of encoding"] = error.in_one_line
    else:
        random = torch.Generator().manual_seed(spec.seed)
        means = average_by_part(reader.trials, numbers, is_mixed)
        ceilings = estimate_ceilings(
            means, predicted, lambda stimulus: average_random_halves(stimulus, random)
        )
        collected.arrays |= dict(zip(CEILINGS, ceilings, strict=True))

    # the unique part of each level, and the correlation, by time and by sensor or
    # region
    parts = reader.list_spatial_positions()
    if len(reader.times_ms) > 1:
        times = Axis(TIME, reader.times_ms.round(3).tolist())
        # voxels have one sample, and no course
        parts = {
            TIME_PART: (times, [np.s_[..., [row]] for row in range(len(times.at))]),
            **parts,
        }
    for level, sides in partial.items():
        for part, where in parts.items():
            collected.profiles[f"encoding · {level}:{part}"] = (
                profile_unique_correlation(predicted, sides, measured, *where)
            )
    return {
        part: profile_correlation(predicted, measured, *where, labels)
        for part, where in parts.items()
    }
