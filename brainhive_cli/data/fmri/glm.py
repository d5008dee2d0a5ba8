"""General linear models that estimate single-trial betas from BOLD."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from math import ceil, floor
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from brainhive_cli.core.base import Array, Bool, BrainhiveError, Float32, Float64, Int64

Estimator = Literal["lsa", "lss", "hrf", "denoised"]
CANONICAL_HRFS = {
    "glover": (6 / 0.9, 12 / 0.9, 0.9, 0.48),
    "spm": (6.0, 16.0, 1.0, 0.167),
}
"""Gamma shapes of response and undershoot, their scale in seconds, and the weight of
the undershoot. Source: nilearn 0.14, `glm.first_level.hemodynamic_models`.
"""
OVERSAMPLING = 50
MIN_EIGENVALUE_RATIO = 1e-10
"""Directions of a design with a smaller share of the largest eigenvalue are not
estimated.
"""
FRACTIONS = tuple((np.arange(20, 0, -1) / 20).tolist())
"""GLMsingle's `fracs`: 1, .95 … .05."""
MIN_RESPONSE = 0.1
"""Smallest peak of a trial's regressor, as a share of the largest peak in its run.
Trials with a smaller peak get a beta of 0.
"""


@dataclass(frozen=True)
class TrialRun:
    """Volumes, trials and confounds of a BOLD run.

    Attributes:
        frame_times_s: Time [T] of each volume after the start of the first stored
            volume, k·TR + StartTime.
        onsets_s: Onset [n] of each trial in ascending order, on the same clock.
        stimuli: Number [n] of the stimulus, equal for repetitions in all runs.
        tr_s: Repetition time, which may differ between runs.
        session: Session within which betas are z-scored to compare repetitions.
        confounds: Nuisance regressors [T, K], finite.
        has_drift: If True, polynomials of GLMsingle's degree model the drift.
            Otherwise a constant and the confounds do (fMRIPrep's cosines), and R² is
            computed without them.
    """

    frame_times_s: Float64
    onsets_s: Float64
    stimuli: Int64
    tr_s: float
    session: int = 1
    confounds: Float64 | None = None
    has_drift: bool = True


class TrialEstimates(NamedTuple):
    """Estimated betas.

    Attributes:
        betas: Betas [trials, V] in the order of runs and onsets, in percent of the
            voxel's mean over all runs. 0 for constant voxels, and for trials with less
            than `MIN_RESPONSE` in their run.
        maps: Values [V] by name. `r2` is the percent of the series without drift that
            the model explains before rescaling. `tsnr` is averaged over runs.
            `is_constant` marks voxels that are constant or not finite in a run. Some
            estimators add `hrf_index` (0 … 19) and `fraction` (of the unregularised
            length).
        facts: `scaling` and `constant_voxels`. `denoised` adds `threshold`,
            `noise_pool`, `pc_trend` and `pc_number`.
    """

    betas: Float32
    maps: dict[str, Array]
    facts: dict[str, Any]


def estimate_trials(
    runs: Sequence[TrialRun],
    read_voxels: Callable[[int, slice], Float32],
    n_voxels: int,
    estimator: Estimator,
    stimulus_s: float,
    hrf: str = "glover",
    seed: int = 0,
    block_size: int = 2000,
) -> TrialEstimates:
    """Estimate a beta for each trial and voxel.

    Args:
        runs: Runs that are fitted together, such as a session's runs.
        read_voxels: Returns the unscaled series [v, T] of a run and a slice of voxels.
            It is called several times for each.
        n_voxels: Number of voxels V.
        estimator: `lsa` (all trials of a run at once) or `lss` (each trial and the sum
            of the others) with a canonical HRF, `hrf` (lsa with the best of 20 HRFs
            for each voxel, GLMsingle's type B), or `denoised` (also with noise
            components and ridge regression, type D).
        stimulus_s: Duration of a stimulus.
        hrf: HRF of `lsa` and `lss`, `glover` or `spm`.
        seed: Seed of the mixture of Gaussians that bounds the noise pool.
        block_size: Number of voxels in memory.

    Raises:
        BrainhiveError: if a run has more regressors than volumes, most voxels have no
            mean or do not vary, or `denoised` finds no noise.

    Source: Prince et al. 2022 (GLMsingle); Mumford et al. 2012 (LSA, LSS).
    """
    from threadpoolctl import threadpool_limits  # comes with scikit-learn

    # a regressor for each trial and HRF
    hrf_name = hrf if estimator in ("lsa", "lss") else "library"
    designs = []
    for number, run in enumerate(runs):
        _require_degrees_of_freedom(number, run)
        regressors = build_design(run, stimulus_s, hrf_name)
        # trials at a run's edge would have huge betas, and distort ridge regression
        peaks = np.abs(regressors).max(1, keepdims=True)  # [H, 1, n]
        min_peaks = MIN_RESPONSE * peaks.max(2, keepdims=True, initial=0)
        designs.append(regressors * (peaks >= min_peaks))

    # for small matrices two threads took ten times as long on a busy machine
    session = BoldSession(runs, read_voxels, n_voxels, designs, block_size)
    with threadpool_limits(1):
        if estimator == "denoised":
            assumed_designs = []
            for run in runs:
                regressors = build_design(run, stimulus_s, "assumed")
                assumed_designs.append(regressors.sum(2, keepdims=True))
            return estimate_denoised(session, assumed_designs, seed)

        is_lss = estimator == "lss"
        compute_weights = compute_lss_weights if is_lss else compute_lsa_weights
        solve = make_exact_solver(session, compute_weights)
        estimates = fit_trials(session, survey_voxels(session), solve)

    # leave out the maps that this estimator does not choose
    del estimates.maps["fraction"]
    if estimator != "hrf":
        del estimates.maps["hrf_index"]
    return estimates


def _require_degrees_of_freedom(number: int, run: TrialRun) -> None:
    """Raise an error if a run has as many regressors as volumes, or more."""
    n_trials = len(run.onsets_s)
    n_volumes = len(run.frame_times_s)
    n_nuisance = build_drift_basis(run).shape[1]
    if run.confounds is not None:
        n_nuisance += run.confounds.shape[1]
    if n_trials + n_nuisance >= n_volumes:
        raise BrainhiveError(
            f"run {number} (counted from 0): {n_trials} trials and {n_nuisance} "
            f"regressors of drift and confounds are too many for {n_volumes} volumes",
            "use fewer preparation.confounds, or leave out the run",
        )


@cache
def build_hrf_library(
    stimulus_s: float, tr_s: float, name: str = "library"
) -> Callable[[Float64], Float64]:
    """Build GLMsingle's responses to a stimulus.

    Args:
        stimulus_s: Duration of the stimulus.
        tr_s: Repetition time. Responses at its multiples are scaled to a peak of 1.
        name: `library` (H = 20) or `assumed` (H = 1).

    Returns:
        Function from seconds since the onset [...] to responses [..., H].

    Source: cvnlab/GLMsingle, `getcanonicalhrflibrary` (rebuilt from a formula),
    `getcanonicalhrf` (a table).
    """
    from scipy.interpolate import PchipInterpolator

    folder = Path(__file__).parent
    hrf_step_s = 0.1
    if name == "assumed":
        hrfs = np.loadtxt(folder / "assumed_hrf.txt").reshape(1, -1)
    else:
        # subtract the undershoot from the response: [20, samples]
        rows = np.loadtxt(folder / "hrf_library.csv", delimiter=",")
        delay, late_delay, scale, late_scale, ratio, onset = rows.T[:, :, None]
        # Samples of an HRF in GLMsingle's library, which reaches to 50 s
        # after the onset.
        hrf_samples = 501
        times_s = np.arange(hrf_samples) * hrf_step_s - onset
        undershoot = evaluate_gamma(times_s, late_delay / late_scale, late_scale)
        hrfs = evaluate_gamma(times_s, delay / scale, scale) - undershoot / ratio

    # sum the HRF over the duration of the stimulus
    boxcar = np.ones(max(1, round(stimulus_s / hrf_step_s)))
    responses = np.stack([np.convolve(hrf, boxcar) for hrf in hrfs], 1)
    grid_s = np.arange(len(responses)) * hrf_step_s
    interpolate = PchipInterpolator(grid_s, responses, extrapolate=False)
    peaks = interpolate(np.arange(0, grid_s[-1], tr_s)).max(0)
    return lambda lags_s: np.nan_to_num(interpolate(lags_s)) / peaks


def evaluate_gamma(times_s: Float64, shape: Any, scale: Any) -> Float64:
    """Evaluate the density of a gamma distribution, which is 0 up to 0 s."""
    from scipy.stats import gamma

    return gamma.pdf(times_s, shape, scale=scale)


def sample_canonical_hrf(kind: str, tr_s: float, shift_s: float = 0.0) -> Float64:
    """Sample a canonical HRF on nilearn's grid of about TR/50, with a sum of 1.

    Args:
        kind: `glover` or `spm`.
        tr_s: Repetition time.
        shift_s: Delay of the HRF.

    Source: nilearn 0.14, `glm.first_level.hemodynamic_models`.
    """
    shape, late_shape, scale, ratio = CANONICAL_HRFS[kind]
    canonical_hrf_s = 32.0
    n_samples = round(canonical_hrf_s * OVERSAMPLING / tr_s)
    # nilearn delays the HRF by one step
    delay_s = tr_s / OVERSAMPLING
    times_s = np.linspace(0, canonical_hrf_s, n_samples) - delay_s - shift_s
    undershoot = ratio * evaluate_gamma(times_s, late_shape, scale)
    response = evaluate_gamma(times_s, shape, scale) - undershoot
    return response / response.sum()


def build_canonical_design(
    run: TrialRun, stimulus_s: float, kind: str, shift_s: float = 0.0
) -> Float64:
    """Build regressors [T, n] of the trials with a canonical HRF, as nilearn does.

    Trials more than 24 s before the first volume have regressors of 0.
    """
    from scipy.interpolate import make_interp_spline

    # nilearn's grid ends about a TR after the last volume
    frame_times_s = run.frame_times_s
    n_intervals = len(frame_times_s) - 1
    stop_s = frame_times_s[-1] * (1 + 1 / n_intervals)
    # Time of nilearn's grid before the first volume. The grid has `OVERSAMPLING`
    # steps a TR.
    lead_s = 24.0
    start_s = frame_times_s[0] - lead_s
    duration_s = frame_times_s[-1] - frame_times_s[0]
    n_steps = round((stop_s - start_s) * n_intervals / duration_s * OVERSAMPLING)
    grid_s = np.linspace(start_s, stop_s, n_steps + 1)

    # the response to a boxcar is a cumulative HRF minus a later cumulative HRF
    onset_steps = np.searchsorted(grid_s, run.onsets_s)
    offset_steps = np.searchsorted(grid_s, run.onsets_s + stimulus_s)
    offset_steps = np.maximum(offset_steps, onset_steps + 1)
    cumulative = np.r_[0, np.cumsum(sample_canonical_hrf(kind, run.tr_s, shift_s))]
    last_step = len(cumulative) - 1
    rows = np.arange(1, n_steps + 2)[:, None]
    rise = cumulative[np.clip(rows - onset_steps, 0, last_step)]
    fall = cumulative[np.clip(rows - offset_steps, 0, last_step)]
    responses = (rise - fall) * (run.onsets_s >= start_s)
    return make_interp_spline(grid_s, responses, k=1)(frame_times_s)


def build_design(run: TrialRun, stimulus_s: float, name: str) -> Float64:
    """Build a design matrix with a regressor for each trial.

    Args:
        run: Run whose onsets need not coincide with volumes.
        stimulus_s: Duration of a stimulus.
        name: HRF: `glover`, `spm`, `assumed` or `library`.

    Returns:
        Design matrices [H, T, n] of the H HRFs, 20 for `library` and 1 otherwise.
    """
    if name in CANONICAL_HRFS:
        return build_canonical_design(run, stimulus_s, name)[None]
    lags_s = run.frame_times_s[:, None] - run.onsets_s
    responses = build_hrf_library(stimulus_s, run.tr_s, name)(lags_s)  # [T, n, H]
    return np.ascontiguousarray(responses.transpose(2, 0, 1))


def build_drift_basis(run: TrialRun) -> Float64:
    """Build an orthonormal basis [T, d] of a run's drift, or a constant [T, 1]."""
    n_volumes = len(run.frame_times_s)
    minutes = n_volumes * run.tr_s / 60
    degree = choose_polynomial_degree(minutes) if run.has_drift else 0
    return build_polynomials(n_volumes, degree)


def choose_polynomial_degree(minutes: float) -> int:
    """Return half the minutes of a run, rounded half up, as GLMsingle does."""
    return floor(minutes / 2 + 0.5)


def build_polynomials(n_volumes: int, degree: int) -> Float64:
    """Build orthonormal polynomials [T, degree + 1]."""
    powers = np.linspace(-1, 1, n_volumes)[:, None] ** np.arange(degree + 1)
    return extend_basis(powers, np.empty((n_volumes, 0)))


def extend_basis(columns: Float64 | None, basis: Float64) -> Float64:
    """Orthonormalise columns [T, K], and append them to a basis [T, B].

    Columns that depend on the basis or earlier columns become 0.
    """
    if columns is None:
        return basis
    for column in columns.T:
        remainder = column
        for _ in range(2):  # the second pass removes rounding errors of the first
            remainder = remainder - basis @ (basis.T @ remainder)
        length = np.linalg.norm(remainder)
        if length > MIN_EIGENVALUE_RATIO**0.5 * np.linalg.norm(column):
            remainder /= length
        else:
            remainder *= 0
        basis = np.column_stack([basis, remainder])
    return basis


def compute_lsa_weights(gram: Float64) -> Float64:
    """Compute the pseudoinverse [..., n, n] of the gram matrix of all trials."""
    weights = np.linalg.pinv(gram, rcond=MIN_EIGENVALUE_RATIO, hermitian=True)
    return np.asarray(weights)


def compute_lss_weights(gram: Float64) -> Float64:
    """Compute the weights of least squares on each trial and the sum of the others.

    Args:
        gram: Products [..., n, n] of the trials' regressors, without nuisance.

    Returns:
        Weights [..., n, n] that turn products with the series into betas.
    """
    # each trial has a model of two regressors: itself and the sum of the others
    is_trial = np.eye(gram.shape[-1])[:, None]
    members = np.concatenate([is_trial, 1 - is_trial], 1)  # [n, 2, n]
    model_grams = members @ gram[..., None, :, :] @ members.transpose(0, 2, 1)
    weights = compute_lsa_weights(model_grams)  # [..., n, 2, 2]
    # keep the beta of the trial itself
    return np.einsum("...tk,tkn->...tn", weights[..., 0, :], members)


class RunModel:
    """Normal equations of a run.

    Attributes:
        drift: Orthonormal regressors [T, d] that R² does not count.
        n_trials: Number n of trials.
        n_confounds: Number of nuisance regressors that are confounds.
        regressors: Regressors [H, T, n + M] without drift: the trials, followed by
            orthonormal confounds and noise components.
        gram: Products [H, n + M, n + M] of the regressors.
    """

    def __init__(
        self, run: TrialRun, regressors: Float64, components: Float64 | None = None
    ) -> None:
        # one orthonormal basis of drift, confounds and noise components
        drift = build_drift_basis(run)
        drift_and_confounds = extend_basis(run.confounds, drift)
        basis = extend_basis(components, drift_and_confounds)
        # without polynomials, confounds model the drift (fMRIPrep's cosines)
        n_drift = (drift if run.has_drift else drift_and_confounds).shape[1]
        self.n_trials = regressors.shape[2]
        self.n_confounds = drift_and_confounds.shape[1] - n_drift
        self.drift = basis[:, :n_drift]
        nuisance = basis[:, n_drift:]

        # drift is removed now, nuisance later, when the components are chosen
        regressors = regressors - self.drift @ (self.drift.T @ regressors)
        shape = regressors.shape[:2] + nuisance.shape[1:]  # [H, T, M]
        nuisance = np.broadcast_to(nuisance, shape)
        self.regressors = np.concatenate([regressors, nuisance], 2)
        self.gram = self.regressors.transpose(0, 2, 1) @ self.regressors

    def remove_nuisance(
        self, n_components: int | None = None
    ) -> tuple[Float64, Float64]:
        """Project confounds and noise components out of the trials.

        Args:
            n_components: Number of components, all by default.

        Returns:
            Products [H, n, n] of the trials' regressors, and a matrix [H, n, n + m]
            that removes the nuisance from their products with the series.
        """
        n = self.n_trials
        end = None
        if n_components is not None:
            end = n + self.n_confounds + n_components
        # nuisance is orthonormal, so its products with the trials are enough
        cross = self.gram[:, :n, n:end]
        gram = self.gram[:, :n, :n] - cross @ cross.transpose(0, 2, 1)
        identity = np.broadcast_to(np.eye(n), gram.shape)
        return gram, np.concatenate([identity, -cross], 2)

    def compute_weights(
        self, solve: Callable[[Float64], Float64], n_components: int | None = None
    ) -> Float64:
        """Compute the weights [H, n, n + m] that turn products into betas.

        Args:
            solve: `compute_lsa_weights` or `compute_lss_weights`.
            n_components: Number of noise components, all by default.
        """
        gram, projection = self.remove_nuisance(n_components)
        return solve(gram) @ projection


class VoxelGroup:
    """Voxels with the same HRF, and the products of their series with the regressors.

    Attributes:
        models: Normal equations of each run.
        hrf_index: Index of the HRF.
        voxels: Indices [v] of the voxels.
        products: Products [n + M, v] of regressors and series, for each run.
    """

    def __init__(
        self,
        models: list[RunModel],
        hrf_index: int,
        voxels: Any,
        series: list[Float64],
    ) -> None:
        self.models = models
        self.hrf_index = hrf_index
        self.voxels = voxels
        # the series are not stored, because the products suffice
        self.products = []
        for model, values in zip(models, series, strict=True):
            self.products.append(model.regressors[hrf_index].T @ values)

    def solve(self, weights: Sequence[Float64]) -> Float64:
        """Compute betas [trials, v] from the weights [H, n, n + m] of each run."""
        betas = []
        for run_weights, products in zip(weights, self.products, strict=True):
            # the weights may leave out the last noise components
            n_regressors = run_weights.shape[2]
            betas.append(run_weights[self.hrf_index] @ products[:n_regressors])
        return np.concatenate(betas)

    def explain_squares(self, betas: Float64) -> Float64:
        """Compute the sum of squares [v] that betas [trials, v] explain.

        It is b(2Xᵀy − XᵀXb), for series y and regressors X without drift.
        """
        trial_products = []
        grams = []
        for model, products in zip(self.models, self.products, strict=True):
            n = model.n_trials
            trial_products.append(products[:n])
            grams.append(model.gram[self.hrf_index, :n, :n])
        products = np.concatenate(trial_products)
        residual = 2 * products - multiply_by_run(grams, betas)
        return np.einsum("nv,nv->v", betas, residual)


def multiply_by_run(matrices: Sequence[Float64], values: Float64) -> Float64:
    """Multiply the values [n, v] of each run's trials by its matrix [n, n]."""
    ends = np.cumsum(list(map(len, matrices)))
    run_values = np.split(values, ends[:-1])
    return np.concatenate(list(map(np.matmul, matrices, run_values)))


@dataclass(frozen=True)
class BoldSession:
    """Runs that are fitted together.

    Attributes:
        runs: Runs, each with its own nuisance regressors and normal equations.
        read_voxels: Returns the series [v, T] of a run and a slice of voxels.
        n_voxels: Number of voxels.
        designs: Design matrices [H, T, n] of each run.
        block_size: Number of voxels in memory.
        components: Noise components [T, P] of each run.
    """

    runs: Sequence[TrialRun]
    read_voxels: Callable[[int, slice], Float32]
    n_voxels: int
    designs: Sequence[Float64]
    block_size: int = 2000
    components: Sequence[Float64] | None = None

    @property
    def n_trials(self) -> list[int]:
        """Number of trials of each run."""
        return [len(run.stimuli) for run in self.runs]

    @property
    def n_volumes(self) -> list[int]:
        """Number of volumes of each run."""
        return [len(run.frame_times_s) for run in self.runs]

    @cached_property
    def models(self) -> list[RunModel]:
        """Normal equations of each run."""
        components: Sequence[Any] = self.components or [None] * len(self.runs)
        return list(map(RunModel, self.runs, self.designs, components))

    @cached_property
    def repetitions(self) -> Any:
        """Sparse matrix [trials, trials], 1 where two runs show the same stimulus.

        Repetitions within a run do not count, as runs are left out one by one.
        """
        from scipy.sparse import csr_array

        stimuli = np.concatenate([run.stimuli for run in self.runs])
        runs = np.repeat(range(len(self.runs)), self.n_trials)
        is_repetition = (stimuli[:, None] == stimuli) & (runs[:, None] != runs)
        return csr_array(is_repetition, dtype=np.float64)

    def read_blocks(self) -> Iterator[tuple[slice, Float64, Float64, list[Float64]]]:
        """Read blocks of voxels, and remove the drift.

        Yields:
            Slice of voxels, means [R, v] of each run, sums of squares [R, v] without
            drift, and series [T, v] of each run without drift. The values of a voxel
            are 0 in all runs if it is constant in any of them.
        """
        for start in range(0, self.n_voxels, self.block_size):
            voxels = slice(start, min(start + self.block_size, self.n_voxels))
            series = []
            shape = (3, len(self.runs), voxels.stop - start)
            means, squares, min_squares = np.zeros(shape)
            for run, model in enumerate(self.models):
                values = self.read_voxels(run, voxels).T.astype(np.float64)  # [T, v]
                # a voxel that is not finite counts as constant
                values[:, ~np.isfinite(values).all(0)] = 0
                means[run] = values.mean(0)
                # Share of the sum of squares that must remain without drift. Rounding
                # leaves about 1e-30 of a constant.
                min_squares[run] = 1e-24 * np.einsum("tv,tv->v", values, values)
                # in place, because series are the largest arrays
                values -= model.drift @ (model.drift.T @ values)
                squares[run] = np.einsum("tv,tv->v", values, values)
                series.append(values)

            is_constant = (squares <= min_squares).any(0)
            means[:, is_constant] = squares[:, is_constant] = 0
            for values in series:
                values[:, is_constant] = 0
            yield voxels, means, squares, series

    def read_groups(self, hrf_indices: Int64) -> Iterator[VoxelGroup]:
        """Read blocks of voxels, and group each block by the index [V] of the HRF."""
        for voxels, _, _, series in self.read_blocks():
            # voxels with the same HRF have the same weights
            block_indices = hrf_indices[voxels]
            for hrf_index in np.unique(block_indices):
                columns = np.flatnonzero(block_indices == hrf_index)
                group_series = [values[:, columns] for values in series]
                numbers = voxels.start + columns
                yield VoxelGroup(self.models, hrf_index, numbers, group_series)


class VoxelSurvey(NamedTuple):
    """Facts of voxels, known before their trials are estimated.

    Attributes:
        mean: Mean [V] over all volumes.
        tsnr: Temporal signal-to-noise ratio [V], averaged over runs.
        squares: Sum of squares [V] of the series without drift, infinite if the voxel
            is constant in a run.
        r2: Percent [V, H] of these squares that all trials explain with each HRF.
    """

    mean: Float64
    tsnr: Float64
    squares: Float64
    r2: Float64


def survey_voxels(session: BoldSession) -> VoxelSurvey:
    """Measure the series, and fit them with each HRF and without noise components.

    Raises:
        BrainhiveError: unless most voxels that vary have a mean above the noise.
    """
    mean, tsnr, squares = np.zeros((3, session.n_voxels))
    r2 = np.zeros((session.n_voxels, len(session.designs[0])))  # [V, H]
    lengths = np.array(session.n_volumes)
    weights = [
        model.compute_weights(compute_lsa_weights, 0) for model in session.models
    ]
    for voxels, means, run_squares, series in session.read_blocks():
        # infinite squares make tSNR and R² of a constant voxel 0
        run_squares[run_squares == 0] = np.inf
        squares[voxels] = run_squares.sum(0)
        mean[voxels] = np.average(means, 0, lengths)
        # squares / volumes are the variance without drift
        tsnr[voxels] = (means * np.sqrt(lengths[:, None] / run_squares)).mean(0)
        for hrf_index in range(r2.shape[1]):
            group = VoxelGroup(session.models, hrf_index, voxels, series)
            explained = group.explain_squares(group.solve(weights))
            r2[voxels, hrf_index] = 100 * explained / squares[voxels]

    # Half of the voxels must have more. Magnitudes of pure noise have 1.9, series
    # without mean 0.
    min_tsnr = 1.0
    # percent of a mean that is below the noise has no meaning
    if 2 * np.sum(tsnr >= min_tsnr) <= np.isfinite(squares).sum():
        raise BrainhiveError(
            "most voxels do not vary, or have a mean below their standard deviation",
            "use a mask of the brain, and BOLD from which the mean was not removed",
        )
    return VoxelSurvey(mean, tsnr, squares, r2)


class Solution(NamedTuple):
    """Betas of a voxel group.

    Attributes:
        fitted: Betas [trials, v] from which R² is computed.
        final: Betas [trials, v] that are returned to the caller.
        fraction: Length of the fitted betas [v], as a share of least squares.
    """

    fitted: Float64
    final: Float64
    fraction: Any


def make_exact_solver(
    session: BoldSession, solve: Callable[[Float64], Float64]
) -> Callable[[VoxelGroup], Solution]:
    """Return a least-squares solver.

    Args:
        session: Runs.
        solve: `compute_lsa_weights` or `compute_lss_weights`.
    """
    weights = [model.compute_weights(solve) for model in session.models]

    def solve_group(group: VoxelGroup) -> Solution:
        betas = group.solve(weights)
        return Solution(betas, betas, 1.0)

    return solve_group


def fit_trials(
    session: BoldSession,
    survey: VoxelSurvey,
    solve: Callable[[VoxelGroup], Solution],
) -> TrialEstimates:
    """Estimate all trials with the HRF of the largest R² in each voxel."""
    hrf_indices = survey.r2.argmax(1)
    betas = np.zeros((sum(session.n_trials), session.n_voxels), np.float32)
    r2, fraction = np.zeros((2, session.n_voxels))
    # factors to percent of the mean, 0 for voxels without a mean
    scale = 100 / np.where(survey.mean == 0, np.inf, np.abs(survey.mean))
    for group in session.read_groups(hrf_indices):
        voxels = group.voxels
        solution = solve(group)
        explained = group.explain_squares(solution.fitted)
        r2[voxels] = 100 * explained / survey.squares[voxels]
        betas[:, voxels] = solution.final * scale[voxels]
        fraction[voxels] = solution.fraction

    maps: dict[str, Array] = {
        "r2": r2.astype(np.float32),
        "tsnr": survey.tsnr.astype(np.float32),
        "hrf_index": hrf_indices.astype(np.float32),
        "fraction": fraction.astype(np.float32),
        "is_constant": np.isinf(survey.squares),
    }
    facts = {
        "scaling": "percent of the voxel's mean over all volumes of all runs",
        "constant_voxels": int(maps["is_constant"].sum()),
    }
    return TrialEstimates(betas, maps, facts)


def estimate_denoised(
    session: BoldSession, assumed_designs: Sequence[Float64], seed: int
) -> TrialEstimates:
    """Estimate trials with noise components and ridge regression (GLMsingle's type D).

    Args:
        session: Runs, with designs of the library's HRFs.
        assumed_designs: Sum [1, T, 1] of each run's regressors with the assumed HRF.
        seed: Seed of the mixture of Gaussians.
    """
    survey = survey_voxels(session)
    is_variable = np.isfinite(survey.squares)

    # type A separates responses from noise
    type_a = replace(session, designs=assumed_designs)
    r2 = measure_type_a_r2(type_a, survey.squares)
    threshold = find_mixture_threshold(r2[is_variable], seed)
    noise_pool = choose_noise_pool(survey.mean, r2, threshold) & is_variable
    is_responsive = is_variable & (r2 > threshold)

    # type C adds noise components, type D ridge regression
    trend, session = add_noise_components(
        session, survey.r2.argmax(1), noise_pool, is_responsive
    )
    estimates = fit_trials(session, survey, make_ridge_solver(session))
    estimates.facts.update(
        threshold=threshold,
        noise_pool=int(noise_pool.sum()),
        pc_trend=trend.tolist(),
        pc_number=choose_component_count(trend),
    )
    return estimates


def measure_type_a_r2(session: BoldSession, squares: Float64) -> Float64:
    """Measure R² of one beta for all trials of all runs (GLMsingle's type A).

    Args:
        session: Runs, with designs of a single regressor.
        squares: Sum of squares [V] of the series without drift.

    Returns:
        R² [V] in percent.
    """
    explained = np.zeros(session.n_voxels)
    grams, projections = _remove_nuisance(session)
    for group in session.read_groups(np.zeros(session.n_voxels, np.int64)):
        # the normal equation of a single regressor is a division
        beta = group.solve(projections).sum(0) / np.sum(grams)
        betas = np.tile(beta, (len(session.runs), 1))
        explained[group.voxels] = group.explain_squares(betas)
    return 100 * explained / squares


def _remove_nuisance(session: BoldSession) -> tuple[list[Float64], list[Float64]]:
    """Return the matrices of `RunModel.remove_nuisance` of each run."""
    grams = []
    projections = []
    for model in session.models:
        gram, projection = model.remove_nuisance()
        grams.append(gram)
        projections.append(projection)
    return grams, projections


def find_mixture_threshold(values: Float64, seed: int) -> float:
    """Fit two Gaussians, and find the largest R² at which both are equally likely.

    Args:
        values: R² [V].
        seed: Seed of the fit.

    Returns:
        The threshold, below which voxels are noise.

    Raises:
        BrainhiveError: if the same Gaussian is likelier everywhere.

    Source: cvnlab/GLMsingle, `findtailthreshold`.
    """
    from sklearn.mixture import GaussianMixture

    mixture = GaussianMixture(
        2, tol=1e-10, n_init=3, max_iter=10_000, random_state=seed
    ).fit(values[:, None])
    threshold_steps = 20_000
    grid = np.linspace(values.min(), values.max(), threshold_steps)
    changes = np.flatnonzero(np.diff(mixture.predict(grid[:, None])))
    if not len(changes):
        raise BrainhiveError(
            "the R² of voxels does not separate noise from responses",
            "preparation.estimator=hrf needs no noise",
        )
    return float(grid[changes[-1]])


def choose_noise_pool(mean: Float64, r2: Float64, threshold: float) -> Bool:
    """Choose the bright voxels [V] whose type A R² is below a threshold.

    Raises:
        BrainhiveError: if there are none.
    """
    # voxels of the noise pool are brighter than a tenth of the 99th percentile
    min_mean = 0.1 * np.percentile(mean, 99)
    noise_pool = (mean > min_mean) & (r2 < threshold)
    if not noise_pool.any():
        raise BrainhiveError(
            f"no voxel has an R² below {threshold:.3g} %, so none is noise",
            "preparation.estimator=hrf needs no noise",
        )
    return noise_pool


def add_noise_components(
    session: BoldSession, hrf_indices: Int64, noise_pool: Bool, is_responsive: Bool
) -> tuple[Float64, BoldSession]:
    """Add the number of noise components with which repetitions agree best (type C).

    Args:
        session: Runs. Confounds are removed even for 0 components, unlike GLMsingle.
        hrf_indices: Index [V] of each voxel's HRF.
        noise_pool: Voxels [V] from which components are computed.
        is_responsive: Voxels [V] whose betas judge the components.

    Returns:
        Negative median badness [P + 1] with 0 … P components, and the new session.
    """
    components = find_noise_components(session, noise_pool)
    badness = score_components(session, components, hrf_indices)
    trend = -np.median(badness[is_responsive], 0)
    count = choose_component_count(trend)
    first_components = [values[:, :count] for values in components]
    return trend, replace(session, components=first_components)


def find_noise_components(session: BoldSession, noise_pool: Bool) -> list[Float64]:
    """Find the principal components [T, P] of the noise pool in each run."""
    # products [T, T] of each run, summed over voxels
    moments = [np.zeros((length, length)) for length in session.n_volumes]
    for voxels, _, squares, series in session.read_blocks():
        is_noise = noise_pool[voxels]
        for moment, power, values in zip(moments, squares, series, strict=True):
            # unit length gives all voxels the same weight
            noise = values[:, is_noise] / np.sqrt(power[is_noise])
            moment += noise @ noise.T

    # GLMsingle's `n_pcs`.
    max_components = 10
    # eigenvalues ascend, so the last vectors explain most
    n_components = min(max_components, noise_pool.sum())
    components = []
    for moment in moments:
        vectors = np.linalg.eigh(moment)[1][:, : -n_components - 1 : -1]
        components.append(vectors / vectors.std(0, ddof=1))
    return components


def score_components(
    session: BoldSession, components: Sequence[Float64], hrf_indices: Int64
) -> Float64:
    """Score how badly repetitions agree with 0 … P noise components.

    Args:
        session: Runs.
        components: Noise components [T, P] of each run.
        hrf_indices: Index [V] of each voxel's HRF.

    Returns:
        Badness [V, P + 1].
    """
    session = replace(session, components=components)
    counts = range(components[0].shape[1] + 1)
    weights = []
    for count in counts:
        weights.append(
            [
                model.compute_weights(compute_lsa_weights, count)
                for model in session.models
            ]
        )

    # all counts use the same products, so each voxel is read once
    badness = np.zeros((session.n_voxels, len(counts)))
    for group in session.read_groups(hrf_indices):
        candidates = list(map(group.solve, weights))
        badness[group.voxels] = score_repetitions(session, candidates).T
    return badness


def choose_component_count(trend: Float64) -> int:
    """Choose the smallest count whose gain is within 5 % of the largest.

    Args:
        trend: Negative badness [P + 1] with 0 … P components.
    """
    gains = trend - trend[0]
    # GLMsingle's `pcstop`.
    return int(np.argmax(1.05 * gains >= gains.max()))


def score_repetitions(session: BoldSession, candidates: Sequence[Float64]) -> Float64:
    """Score how badly betas in other runs predict the betas of the same stimuli.

    The sum of (z_i − f_t)² over trials i and their n_i repetitions t is
    Σ n_i z_i² − 2 z_i Σ_t f_t + Σ_t f_t², with z-scores f of the first candidate.

    Args:
        session: Runs.
        candidates: Betas [trials, v] of P candidates, z-scored within sessions by mean
            and standard deviation of the first candidate.

    Returns:
        Badness [P, v].
    """
    # center and scale of each session, [trials, v]
    reference = candidates[0]
    center = np.empty_like(reference)
    scale = np.empty_like(reference)
    numbers = [run.session for run in session.runs]
    session_of_trial = np.repeat(numbers, session.n_trials)
    for number in np.unique(session_of_trial):
        is_member = session_of_trial == number
        betas = reference[is_member]
        spread = betas.std(0, ddof=min(1, len(betas) - 1))  # 0 if there is one trial
        center[is_member] = betas.mean(0)
        scale[is_member] = 1 / np.where(spread > 0, spread, np.inf)

    # the last term is the same for all candidates
    f = (reference - center) * scale
    n_pairs = session.repetitions.sum(1)[:, None]
    sums = session.repetitions @ f
    constant = np.einsum("tv,tv->v", n_pairs * f, f)
    badness = []
    for candidate in candidates:
        z = (candidate - center) * scale
        badness.append(constant + np.einsum("tv,tv->v", n_pairs * z - 2 * sums, z))
    return np.stack(badness)


def fractional_ridge(
    spectra: Sequence[tuple[Float64, Float64]],
    products: Float64,
    fractions: Sequence[float],
) -> list[Float64]:
    """Shrink the betas of voxels to fractions of their length over all runs.

    Args:
        spectra: Eigenvalues [n] and eigenvectors [n, n] of each run's gram matrix.
        products: Products [trials, v] of regressors and series.
        fractions: Fractions of the length of least squares.

    Returns:
        Betas [trials, v] of each fraction.

    Source: Rokem and Kay 2020, with their grid of penalties.
    """
    eigenvalues = [values for values, _ in spectra]
    vectors = [matrix for _, matrix in spectra]
    values = np.concatenate(eigenvalues)[:, None]
    is_estimated = values > MIN_EIGENVALUE_RATIO * values.max()

    # Limits of fracridge's grid, as shares of the smallest and of
    # the largest eigenvalue.
    penalty_limits = (0.01, 1e4)
    # the grid of penalties begins with 0, which is least squares
    low_share, high_share = penalty_limits
    low = floor(np.log10(low_share * values[is_estimated].min()))
    high = ceil(np.log10(high_share * values.max()))
    # Step of fracridge's grid in powers of ten.
    penalties = np.r_[0, 10 ** np.arange(low, high, 0.2)]

    # betas in the eigenbasis [trials, v], without directions of mere rounding
    values = np.where(is_estimated, values, np.inf)
    rotated = multiply_by_run([matrix.T for matrix in vectors], products) / values

    # lengths [penalties, v] as shares of least squares
    shrinkage = 1 / (1 + penalties / values)
    lengths = np.sqrt(shrinkage.T**2 @ rotated**2)
    lengths /= np.where(lengths[0] > 0, lengths[0], 1)

    # interpolate the penalties, reversed because lengths fall while penalties grow
    logs = np.log1p(penalties)[::-1]
    log_penalties = [np.interp(fractions, column, logs) for column in lengths[::-1].T]
    voxel_penalties = np.expm1(log_penalties)  # [v, fractions]

    # rotate back to trials
    betas = []
    for penalty in voxel_penalties.T:
        betas.append(multiply_by_run(vectors, rotated / (1 + penalty / values)))
    return betas


def rescale_betas(betas: Float64, target: Float64) -> Float64:
    """Scale and shift betas [trials, v] to fit target betas by least squares.

    Voxels whose betas would change their sign are left unchanged.
    """
    deviations = betas - betas.mean(0)
    variance = np.einsum("tv,tv->v", deviations, deviations)
    variance[variance == 0] = 1
    slope = np.einsum("tv,tv->v", deviations, target) / variance
    return np.where(slope >= 0, slope * deviations + target.mean(0), betas)


def make_ridge_solver(
    session: BoldSession, fractions: Sequence[float] = FRACTIONS
) -> Callable[[VoxelGroup], Solution]:
    """Return a ridge solver that chooses each voxel's fraction by repetitions."""
    # a decomposition for each run and HRF serves all voxels
    grams, projections = _remove_nuisance(session)
    spectra = list(map(np.linalg.eigh, grams))

    def solve_group(group: VoxelGroup) -> Solution:
        hrf = group.hrf_index
        hrf_spectra = [(values[hrf], vectors[hrf]) for values, vectors in spectra]
        products = group.solve(projections)
        # the first candidate is least squares, with which the others are compared
        candidates = fractional_ridge(hrf_spectra, products, (1.0, *fractions))
        best = score_repetitions(session, candidates)[1:].argmin(0)
        columns = np.arange(len(best))
        fitted = np.stack(candidates)[best + 1, :, columns].T  # [trials, v]
        final = rescale_betas(fitted, candidates[0])
        return Solution(fitted, final, np.asarray(fractions)[best])

    return solve_group
