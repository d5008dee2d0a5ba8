"""Representational similarity: distances of signals and embeddings, correlated."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.spatial.distance import squareform

from brainhive_cli.core.base import Array, BrainhiveError, Float64, Int64, console
from brainhive_cli.data.signals import separate_in_time, sum_by_picture
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
from brainhive_cli.measurement import (
    Items,
    correlation_shares,
    spearman_brown,
    unit_vectors,
)

RHO = "rho"
"""Metric: Spearman's correlation with the distances of a model."""
MAX_DISTANCES = 2**24
"""Largest number of permuted distances in memory."""


@console.progress("comparing signals and embeddings")
def explain_similarity(
    readers: Sequence[Reader], levels: TargetLevels, recipe: Recipe
) -> tuple[list[SubjectProfiles], dict[str, list[float]]]:
    """Correlate the distances of all subjects' signals with distances of embeddings.

    Distances are compared at each time, or in each region that all subjects have.

    Returns:
        As `measure_similarity`. One subject has a ceiling from halves of the
        repetitions, if they are far apart in time.

    Raises:
        BrainhiveError: if the subjects have too few pictures, channels or regions in
            common.
    """
    first = readers[0]
    rows = first.trials.stimulus
    features = {name: store.read_flat(rows).numpy() for name, store in levels.items()}
    models = rank_models(features)

    # index of each subject's signals [N, C, T] at each position
    indices: list[list[Any]] = []
    if first.trials.channels:
        if len({len(reader.times_ms) for reader in readers}) > 1:
            raise BrainhiveError(
                "the subjects' signals have different numbers of samples",
                "explain each subject separately: --subjects",
            )
        axis = Axis(TIME, first.times_ms.round(3).tolist())
        for row in range(len(axis.at)):
            indices.append([np.s_[..., row]] * len(readers))
    else:
        regions = [reader.list_regions() for reader in readers]
        shared_names = []
        for name in regions[0]:
            region_rows = [subject_regions.get(name, ()) for subject_regions in regions]
            if min(map(len, region_rows)) > 1:
                shared_names.append(name)
                indices.append([np.s_[:, voxels, 0] for voxels in region_rows])
        if not shared_names:
            raise BrainhiveError(
                "no region has two voxels in every subject",
                "prepare the signals with regions",
            )
        axis = Axis(REGION, shared_names)

    signals = [reader.signal.numpy() for reader in readers]
    profiles, ceilings = measure_similarity(
        axis,
        _select_patterns(signals, indices),
        models,
        first.items,
        recipe.draws,
        recipe.seed,
    )

    # one subject has halves: even and odd parts of the recording
    if len(readers) > 1:
        return profiles, ceilings
    trials = first.trials
    try:
        part_numbers, part_counts = separate_in_time(trials)
    except BrainhiveError:  # no parts are far apart in time
        return profiles, ceilings
    if part_counts.min() > 1:
        halves = []
        for remainder in (0, 1):
            half = trials.choose(part_numbers % 2 == remainder)
            sums = sum_by_picture(half.singles, half.counts)
            halves.append(sums / half.counts[:, None, None])
        # Name of the ceiling of one subject.
        halves_ceiling = "ceiling by halves of repetitions"
        ceilings[halves_ceiling] = []
        for (index,) in indices:
            ceiling = estimate_ceiling_from_halves([half[index] for half in halves])
            ceilings[halves_ceiling].append(ceiling)
    return profiles, ceilings


def _select_patterns(
    signals: Sequence[Array], indices: Iterable[Sequence[Any]]
) -> Iterator[list[Array]]:
    """Yield the patterns [N, C] of each subject, position by position."""
    for subject_indices in indices:
        pairs = zip(signals, subject_indices, strict=True)
        yield [signal[index] for signal, index in pairs]


def measure_similarity(
    axis: Axis,
    patterns: Iterable[Sequence[Array]],
    models: Mapping[str, Float64],
    pictures: Items,
    draws: int,
    seed: int = 0,
) -> tuple[list[SubjectProfiles], dict[str, list[float]]]:
    """Correlate the distances of signals with the distances of models.

    Distances are 1 minus the correlation of two patterns over channels or voxels. An
    interval over pictures neglects that ranks depend on the other pictures.

    Args:
        axis: Positions.
        patterns: Patterns [N, C] of each subject, per position. Subjects have the same
            pictures.
        models: Ranks [P] of the distances of these pictures from `rank_models`, by
            model.
        pictures: Pictures of each subject, with the units that are exchanged.
        draws: Largest number of permutations, which all subjects share.
        seed: Seed of the permutations.

    Returns:
        Profiles of each subject by model and metric. The values are shares of each
        picture in the correlation. The null distribution is of the mean over subjects.
        Several subjects have ceilings [T] by name.

    Source: Kriegeskorte 2008; Nili 2014 (ceilings); Walther 2016.
    """
    # models, and their residuals given the others, as unit vectors [M or 2 M, P]
    directions = np.stack(list(models.values()))
    names = [(model, RHO) for model in models]
    bases = []
    residuals = []
    for row, direction in enumerate(directions):
        other_models = np.delete(directions, row, 0)
        # [M - 1, P], spans the other models
        basis = np.linalg.qr(other_models.T)[0].T
        bases.append(basis)
        residuals.append(direction - (direction @ basis.T) @ basis)
    if len(models) > 1:
        unit_residuals = unit_vectors(np.stack(residuals), -1)
        directions = np.concatenate([directions, unit_residuals])
        # Metric: partial correlation with a model, given all other models.
        names += [(model, "unique_rho") for model in models]

    # shares of the pictures in the correlations of each subject, position by position
    shares = []
    factors = []
    mean_ranks = []
    ends = []
    for subjects in patterns:
        ranks = np.stack(  # [S, P]
            [rank_distances(compute_distances(subject)) for subject in subjects]
        )
        # a partial correlation is the correlation with a residual times a factor
        explained = np.stack(
            [np.square(ranks @ basis.T).sum(-1) for basis in bases], -1
        )  # [S, M]
        partial_factor = 1 / np.sqrt(np.maximum(1 - explained, 1e-12))
        factor = np.concatenate([np.ones_like(partial_factor), partial_factor], 1)
        factor = factor[:, : len(names)]
        share = share_among_pictures(ranks, directions, len(pictures.names))
        shares.append(share * factor[..., None])  # [S, 2 M, N]
        factors.append(factor.mean(0))
        mean_ranks.append(ranks.mean(0))
        ends.append(compute_ceilings(ranks))

    orders = draw_permutations(pictures, draws, seed)
    null = _correlate_permuted(np.stack(mean_ranks, -1), directions, orders)
    null *= np.stack(factors, 1)[:, None]

    # profiles of each subject, model and metric
    subject_profiles = []
    for subject_shares in np.stack(shares, 2):  # [2 M, T, N]
        profiles = {}
        for (model, metric), values, model_null in zip(
            names, subject_shares, null, strict=True
        ):
            name = f"similarity · {model}:{metric}"
            profiles[name] = Profile(metric, axis, values, model_null)
        subject_profiles.append(SubjectProfiles(profiles))
    if len(subject_profiles) == 1:
        return subject_profiles, {}
    lower, upper = np.transpose(ends).tolist()
    # Names of the ceilings of several subjects, which are also metrics.
    return subject_profiles, {"ceiling_lower": lower, "ceiling_upper": upper}


def _correlate_permuted(ranks: Float64, directions: Float64, orders: Int64) -> Float64:
    """Correlate distances of signals with models of permuted pictures, as a control.

    Args:
        ranks: Mean over subjects of ranks [P, T] from `rank_distances`, of the signal
            distances of P pairs of pictures at T positions.
        directions: Centred unit vectors [M, P] of the models' distances.
        orders: Permutations [K, N] of the pictures.

    Returns:
        Correlations [M, K, T].
    """
    n_pairs, n_positions = ranks.shape
    rows, columns = np.triu_indices(orders.shape[1], 1)
    # number [N, N] of the pair of any two pictures, to look up permuted pairs
    pair_numbers = squareform(np.arange(n_pairs))
    single_ranks = ranks.astype(np.float32)
    single_directions = directions.astype(np.float32)
    null = np.empty((len(directions), len(orders), n_positions))
    step = max(1, MAX_DISTANCES // n_pairs)
    for start in range(0, len(orders), step):
        chunk = orders[start : start + step]  # [k, N]
        pairs = pair_numbers[chunk[:, rows], chunk[:, columns]]  # [k, P]
        for number, direction in enumerate(single_directions):
            null[number, start : start + step] = direction[pairs] @ single_ranks
    return null


def rank_models(features: Mapping[str, Array]) -> dict[str, Float64]:
    """Rank the distances of the pictures in each model.

    Args:
        features: Features [N, ...] of the same pictures, by model.

    Returns:
        A vector [P] by model: the ranks of the P pairs of pictures by distance, centred
        and scaled to length 1.

    Raises:
        BrainhiveError: if there are too few pictures, or all distances are equal.
    """
    models = {}
    for name, values in features.items():
        models[name] = rank_distances(compute_distances(values))
        if not models[name].any():
            raise BrainhiveError(
                f"{name} has the same distance between all pictures",
                "leave the encoder out",
            )
    return models


def compute_distances(patterns: Array) -> Float64:
    """Compute the correlation distance of each pair of pictures.

    Args:
        patterns: Patterns [N, ...] of the pictures.

    Returns:
        Distances [P] in the order of `numpy.triu_indices`.

    Raises:
        BrainhiveError: if there are fewer than 4 pictures, or a pattern
            has a single number.
    """
    flat_patterns = np.asarray(patterns, np.float64).reshape(len(patterns), -1)
    n_pictures, n_values = flat_patterns.shape
    # Smallest number of pictures. Three pictures have three distances, whose
    # ranks say little.
    min_pictures = 4
    if n_pictures < min_pictures or n_values < 2:
        raise BrainhiveError(
            f"{n_pictures} pictures with {n_values} values each have too few distances",
            (
                f"use at least {min_pictures} pictures that all subjects saw, and two "
                "channels or voxels"
            ),
        )
    units = unit_vectors(flat_patterns, -1)
    return np.asarray(1 - squareform(units @ units.T, checks=False))


def rank_distances(values: Float64) -> Float64:
    """Rank values [..., P] as centred unit vectors, ties by their mean rank.

    The product of two such vectors is Spearman's correlation.
    """
    from scipy.stats import rankdata

    return unit_vectors(rankdata(values, axis=-1), -1)


def share_among_pictures(ranks: Float64, models: Float64, n_pictures: int) -> Float64:
    """Compute the share of each picture in correlations over pairs of pictures.

    The share is twice the mean over the pairs of the picture, minus the correlation:
    the linearised pseudo-value of the jackknife.

    Args:
        ranks: Ranks [S, P] of the distances of each subject's signals, as centred unit
            vectors.
        models: Centred unit vectors [M, P] of the models' distances.
        n_pictures: Number N of pictures.

    Returns:
        Shares [S, M, N], whose mean over pictures is the correlation.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, chapter 11; Arvesen
    1969 (pairs).
    """
    shares = []
    for signal in ranks:
        signal_shares = []
        for model in models:
            pair_shares = squareform(correlation_shares(signal, model))  # [N, N]
            signal_shares.append(2 * pair_shares.sum(0) / (n_pictures - 1))
        shares.append(signal_shares)
    return np.array(shares) - (ranks @ models.T)[..., None]


def compute_ceilings(ranks: Float64) -> tuple[float, float]:
    """Compute the lower and the upper noise ceiling from several subjects.

    Args:
        ranks: Ranks [S, P] of each subject's distances, as centred unit vectors.

    Returns:
        Mean correlation of a subject with the summed ranks of the others, and with the
        summed ranks of all subjects. NaN for one subject.

    Source: Nili 2014, with the ranks of rsatoolbox.
    """
    if len(ranks) < 2:
        return np.nan, np.nan

    # equal sums of ranks are ties, although their rounding errors differ
    total = ranks.sum(0)
    # Digits to which sums of unit ranks are rounded. Sums over a million pairs differ
    # by 1e-9, and rounding errors are 1e-16.
    rank_sum_digits = 12
    upper = float(np.mean(ranks @ rank_distances(total.round(rank_sum_digits))))
    correlations = []
    for subject in ranks:
        others = (total - subject).round(rank_sum_digits)
        correlations.append(subject @ rank_distances(others))
    return float(np.mean(correlations)), upper


def estimate_ceiling_from_halves(halves: Sequence[Array]) -> float:
    """Estimate the correlation of a perfect model with the mean of all repetitions.

    It is the square root of the correlation of two recordings, because a model has no
    noise. Halves predict this correlation (Spearman-Brown). Its sign is kept, so the
    ceiling is 0 on average for noise.

    Args:
        halves: Patterns [N, C] of two halves of the repetitions.
    """
    first_half, second_half = halves
    first_ranks = rank_distances(compute_distances(first_half))
    second_ranks = rank_distances(compute_distances(second_half))
    reliability = spearman_brown(float(first_ranks @ second_ranks))
    return float(np.copysign(abs(reliability) ** 0.5, reliability))
