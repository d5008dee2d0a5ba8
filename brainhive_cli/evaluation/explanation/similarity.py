"""Representational similarity: whether pictures that a model finds alike evoke signals
that are alike.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.spatial.distance import squareform

from brainhive_cli.core import console
from brainhive_cli.core.arrays import Array, Float64
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.signals.repetitions import separate_in_time
from brainhive_cli.evaluation.explanation.encoding_model import TargetLevels
from brainhive_cli.evaluation.explanation.job import Reader
from brainhive_cli.evaluation.explanation.profiles import (
    REGION,
    TIME,
    Axis,
    Profile,
    SubjectProfiles,
    draw_permutations,
)
from brainhive_cli.evaluation.explanation.recipe import Recipe
from brainhive_cli.measurement.reliability import (
    correlation_shares,
    spearman_brown,
    unit_vectors,
)
from brainhive_cli.measurement.units import Items

RHO, UNIQUE_RHO = "rho", "unique_rho"
"""Names of the metrics: Spearman's correlation with a model, and the partial one, given
all other models.
"""
HALVES, LOWER, UPPER = (
    "ceiling by halves of repetitions",
    "ceiling_lower",
    "ceiling_upper",
)
"""Names of ceilings: of one subject, and of several, which are metrics, too."""
FEWEST = 4
"""Fewest pictures whose distances are correlated: three have three distances, whose
ranks say little.
"""
EQUAL = 12
"""Digits to which summed ranks are equal: of a million pairs they differ by 1e-9, and
rounding is 1e-16.
"""
MAX_DISTANCES = 2**24
"""Numbers of permuted distances that are held at once."""


def measure_similarity(
    axis: Axis,
    patterns: Iterable[Sequence[Array]],
    models: Mapping[str, Float64],
    pictures: Items,
    draws: int,
    seed: int = 0,
) -> tuple[list[SubjectProfiles], dict[str, list[float]]]:
    """Correlate the distances of signals with those of models, position by position.

    Distances are 1 minus the correlation of two pictures' patterns over channels or
    voxels. Ranks are fixed when pictures are resampled, so an interval neglects that
    they depend on the other pictures.

    Args:
        axis: The T positions.
        patterns: For each of them, the patterns [N, C] of each subject; all of the same
            pictures.
        models: Ranks [P] of the distances of these pictures, by the name of the model,
            as `rank_models`.
        pictures: The N, the same for each subject, and which of them are alike.
        draws: K permutations of their units, alike for all subjects.
        seed: Of the permutations.

    Returns:
        Profiles of each subject by model and metric, of the pictures' shares of the
        correlations; their null [K, T] is that of the mean over subjects. Of several
        subjects their ceilings [T], by name.

    Source: Kriegeskorte 2008; Nili 2014 (ceilings); Walther 2016.
    """
    # what each model has beyond the space of the others, spanned by [M - 1, P]; of unit
    # length [M, P]
    directions = np.stack([*models.values()])
    names = [(model, RHO) for model in models]
    bases = [
        np.linalg.qr(np.delete(directions, row, 0).T)[0].T
        for row in range(len(directions))
    ]
    if len(models) > 1:
        rest = [
            model - (model @ basis.T) @ basis
            for model, basis in zip(directions, bases, strict=True)
        ]
        # [2 M, P]
        directions = np.concatenate([directions, unit_vectors(np.stack(rest), -1)])
        names += [(model, UNIQUE_RHO) for model in models]

    # each picture's share of the correlations; partial ones are those with residuals
    # times a factor
    shares = []
    factors = []
    means = []
    ends = []
    for subjects in patterns:
        # [S, P]
        signals = np.stack(
            [rank_distances(compute_distances(subject)) for subject in subjects]
        )
        # [S, M]
        explained = np.stack(
            [np.square(signals @ basis.T).sum(-1) for basis in bases], -1
        )
        partial = 1 / np.sqrt(np.maximum(1 - explained, 1e-12))
        factor = np.concatenate([np.ones_like(partial), partial], 1)[:, : len(names)]
        # [S, 2 M, N]
        share = share_among_pictures(signals, directions, len(pictures.names))
        shares.append(share * factor[..., None])
        factors.append(factor.mean(0))
        means.append(signals.mean(0))
        ends.append(compute_ceilings(signals))

    # the mean over subjects with models whose pictures are permuted, in single
    # precision
    orders = draw_permutations(pictures, draws, seed)
    rows, columns = np.triu_indices(len(pictures.names), 1)
    pair = squareform(np.arange(len(rows)))  # number of each pair of pictures
    averaged = np.stack(means, -1).astype(np.float32)  # [P, T]
    null = np.empty((len(names), len(orders), averaged.shape[1]))  # [2 M, K, T]
    # several permutations at once, as memory allows
    step = max(1, MAX_DISTANCES // len(rows))
    for start in range(0, len(orders), step):
        chunk = orders[start : start + step]  # [k, N]
        pairs = pair[chunk[:, rows], chunk[:, columns]]  # [k, P]
        for number, direction in enumerate(directions.astype(np.float32)):
            null[number, start : start + step] = direction[pairs] @ averaged
    null *= np.stack(factors, 1)[:, None]

    # one profile a subject, model and metric
    measured = []
    for subject in np.stack(shares, 2):  # [2 M, T, N]
        profiles = {
            f"similarity · {model}:{metric}": Profile(metric, axis, *values)
            for (model, metric), *values in zip(names, subject, null, strict=True)
        }
        measured.append(SubjectProfiles(profiles))
    lower, upper = np.transpose(ends).tolist()
    return measured, {LOWER: lower, UPPER: upper} if len(measured) > 1 else {}


def rank_models(features: Mapping[str, Array]) -> dict[str, Float64]:
    """Rank the distances [P] of each model by its features of the same pictures, [N,
    ...] by name.

    Raises:
        BrainhiveError: if there are too few pictures, or a model tells none of them
            from others.
    """
    models = {
        name: rank_distances(compute_distances(values))
        for name, values in features.items()
    }
    if constant := [name for name, model in models.items() if not model.any()]:
        raise BrainhiveError(
            f"{constant[0]} has the same distance between all pictures",
            "leave the encoder out",
        )
    return models


def compute_distances(patterns: Array) -> Float64:
    """Measure the correlation distance of each pair of pictures, [P] in the order of
    `numpy.triu_indices`.

    Args:
        patterns: [N, ...], flattened.

    Raises:
        BrainhiveError: if there are fewer than four pictures, or a single number of
            each.
    """
    flat = np.asarray(patterns, np.float64).reshape(len(patterns), -1)
    if len(flat) < FEWEST or flat.shape[1] < 2:
        raise BrainhiveError(
            f"patterns [{len(flat)}, {flat.shape[1]}] have no distances to correlate",
            (
                f"it needs {FEWEST} pictures that all subjects were shown, and two "
                "channels or voxels"
            ),
        )
    units = unit_vectors(flat, -1)
    return np.asarray(1 - squareform(units @ units.T, checks=False))


def rank_distances(values: Float64) -> Float64:
    """Rank values [..., P], ties by their mean rank; centred and of unit length:
    products are Spearman's.
    """
    from scipy.stats import rankdata

    return unit_vectors(rankdata(values, axis=-1), -1)


def share_among_pictures(signals: Float64, models: Float64, pictures: int) -> Float64:
    """Compute each picture's share of correlations, [S, M, N]: the jackknife's
    pseudo-values, linearised.

    A correlation is a mean over pairs of pictures; a picture's share is twice the mean
    over its pairs, less the correlation.

    Args:
        signals: [S, P] of unit length.
        models: [M, P] of unit length.
        pictures: N, whose pairs these are.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, chapter 11; Arvesen
    1969 (pairs).
    """
    shares = [
        [
            2 * squareform(correlation_shares(signal, model)).sum(0) / (pictures - 1)
            for model in models
        ]
        for signal in signals
    ]
    return np.array(shares) - (signals @ models.T)[..., None]


def compute_ceilings(signals: Float64) -> tuple[float, float]:
    """Compute the lower and the upper ceiling of subjects' unit ranks [S, P]; of one
    subject NaN.

    Source: Nili 2014, with ranks as rsatoolbox has them.
    """
    count = len(signals)
    if count < 2:
        return np.nan, np.nan

    # equal sums of ranks are ties, though their rounding differs
    total = signals.sum(0)
    upper = float(np.mean(signals @ rank_distances(total.round(EQUAL))))
    lower = float(
        np.mean(
            [
                signal @ rank_distances((total - signal).round(EQUAL))
                for signal in signals
            ]
        )
    )
    return lower, upper


def estimate_ceiling_from_halves(halves: Sequence[Array]) -> float:
    """Estimate the correlation that a perfect model would have with all repetitions,
    from two halves [N, C].

    It is the root of the correlation of two recordings, which is the halves',
    Spearman-Brown corrected: two recordings each have the noise that a model has not.
    With the sign of that correlation it is 0 on average on noise.
    """
    one, other = (rank_distances(compute_distances(half)) for half in halves)
    reliability = spearman_brown(float(one @ other))
    return float(np.copysign(abs(reliability) ** 0.5, reliability))


@console.progress("comparing signals and embeddings")
def explain_similarity(
    readers: Sequence[Reader], levels: TargetLevels, spec: Recipe
) -> tuple[list[SubjectProfiles], dict[str, list[float]]]:
    """Correlate the distances of all subjects' signals with those of each level's
    embeddings.

    Args:
        readers: One a subject.
        levels: Embeddings of the tested pictures.
        spec: What is measured.

    Returns:
        As `measure_similarity`; of one subject the ceiling is by halves of the
        repetitions, if there are any.

    Raises:
        BrainhiveError: if subjects share too few pictures, or the signals have one
            channel.
    """
    # models of the pictures
    first = readers[0]
    rows = readers[0].trials.stimulus
    models = rank_models(
        {name: store.read_flat(rows).numpy() for name, store in levels.items()}
    )

    # the part of each subject's signals [n, C, T] at each time, or of each region that
    # all have
    if first.trials.channels:
        if len({len(reader.times_ms) for reader in readers}) > 1:
            raise BrainhiveError(
                "the subjects' signals have other numbers of samples",
                "explain each: --subjects",
            )
        axis = Axis(TIME, first.times_ms.round(3).tolist())
        parts: list[Any] = [
            [np.s_[..., row]] * len(readers) for row in range(len(axis.at))
        ]
    else:
        regions = [reader.list_regions() for reader in readers]
        shared = [
            name
            for name in regions[0]
            if all(len(one.get(name, ())) > 1 for one in regions)
        ]
        if not shared:
            raise BrainhiveError(
                "no region has two voxels of every subject",
                "prepare the signals with regions",
            )
        axis = Axis(REGION, shared)
        parts = [[np.s_[:, one[name], 0] for one in regions] for name in shared]

    # correlations of the patterns [n, C] at each position
    signals = [reader.signal.numpy() for reader in readers]
    patterns = (
        [signal[index] for signal, index in zip(signals, part, strict=True)]
        for part in parts
    )
    measured, bounds = measure_similarity(
        axis, patterns, models, first.items, spec.draws, spec.seed
    )

    # of one subject, halves of the repetitions stand in for ceilings: even and odd
    # parts of the recording
    if len(readers) > 1:
        return measured, bounds
    try:
        numbers, counts = separate_in_time(first.trials)
    except BrainhiveError:  # there are no two parts that are far apart in time
        return measured, bounds
    if counts.min() > 1:
        masks = [
            (first.trials.is_there & (numbers % 2 == side))[..., None, None]
            for side in (0, 1)
        ]
        halves = [
            ((first.trials.singles * mask).sum(1) / mask.sum(1)) for mask in masks
        ]
        bounds[HALVES] = [
            estimate_ceiling_from_halves([half[index] for half in halves])
            for (index,) in parts
        ]
    return measured, bounds
