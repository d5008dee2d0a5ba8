"""Single-trial betas of BOLD: one estimate a trial and voxel, from series of runs and
onsets of trials.

Nuisance regressors belong to one run, so that runs share no regressor and have normal
equations of their own. Voxels are read in blocks, those of one HRF are solved together,
and of their series only the products with the regressors are needed.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from math import ceil, floor
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from brainhive_cli.core.arrays import Array, Bool, Float32, Float64, Int64
from brainhive_cli.core.errors import BrainhiveError

HRF_STEP_S, HRF_SAMPLES = 0.1, 501
"""Grid of GLMsingle's library: to 50 s after the onset."""
CANONICAL = {"glover": (6 / 0.9, 12 / 0.9, 0.9, 0.48), "spm": (6.0, 16.0, 1.0, 0.167)}
"""Shapes of response and undershoot, scale of both, share of the undershoot: as nilearn
has them.
"""
OVERSAMPLING, CANONICAL_S, LEAD_S = 50, 32.0, 24.0
"""nilearn's grid: steps a TR, length of an HRF, time before the first volume."""
MIN_EIGENVALUE = 1e-10
"""Directions of a design with less than this share of the largest eigenvalue are not
estimated.
"""
Estimator = Literal["lsa", "lss", "hrf", "denoised"]
BRIGHT_SHARE, BRIGHT_PERCENTILE = 0.1, 99
"""A voxel of the noise pool is brighter than this share of this percentile of the
voxels' means.
"""
MAX_COMPONENTS, TOLERANCE = 10, 1.05
"""GLMsingle's `n_pcs` and `pcstop`."""
FRACTIONS = tuple((np.arange(20, 0, -1) / 20).tolist())
"""GLMsingle's `fracs`: 1, .95 … .05."""
THRESHOLD_STEPS = 20_000
PENALTIES, PENALTY_STEP = (0.01, 1e4), 0.2
"""fracridge's grid: shares of the smallest and of the largest eigenvalue, and its step
in powers of ten.
"""
MIN_RESPONSE = 0.1
"""Share of the largest sample of its run that a trial's regressor must reach for a beta
that is not 0.
"""
MIN_TSNR = 1.0
"""Half of the voxels must have more; magnitudes of pure noise have 1.9, series without
mean 0.
"""
MIN_POWER = 1e-24
"""Share of a series' squares that must be left without drift; rounding leaves about
1e-30 of a constant.
"""


@dataclass(frozen=True)
class TrialRun:
    """One run: when volumes were acquired, which trials it shows, and what is projected
    out.

    Attributes:
        times_s: [T], seconds of each volume after the start of the first stored one:
            k·TR + StartTime.
        onsets_s: [n], in order of time; any real number.
        stimuli: [n] int64; equal numbers are repetitions of one stimulus, over all
            runs.
        tr_s: Repetition time of this run; runs may differ.
        session: Betas are z-scored within it where repetitions are compared.
        confounds: [T, K], finite.
        has_drift: Polynomials of GLMsingle's degree model the drift. Without, a
            constant and the confounds do (fMRIPrep's cosines), and R² does not count
            what they explain.
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
        betas: [trials, V], in the order of runs, then time; percent of the voxel's mean
            over all volumes of all runs; zero where a voxel is constant, or a run has
            the tail of a response alone or none of it.
        maps: Name → [V]. `r2`: percent of the series without drift that the fitted
            model explains, before any rescaling. `tsnr`: mean over runs of mean /
            standard deviation without drift. `is_constant` (bool): constant or not
            finite in some run; the other maps are then 0, fraction 1. Where the
            estimator chooses them, `hrf_index` (0 … 19) and `fraction` (of the
            unregularised betas' length).
        facts: `scaling`, `constant_voxels`; of `denoised` also `threshold`,
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
        runs: Those that are fitted together, such as the runs of a session.
        read: Run, voxels → raw series [v, T], scaled as in the file; called several
            times for each.
        voxels: How many there are.
        estimator: `lsa` (all trials of a run at once) and `lss` (each trial and the sum
            of the others) with a canonical HRF; `hrf`: lsa with the best of 20 HRFs by
            voxel (GLMsingle's type B); `denoised`: that with components of a noise pool
            and fractional ridge regression (type D), both chosen by stimuli that are
            repeated in several runs; without any it is `hrf`.
        stimulus_s: Duration of a stimulus.
        hrf: Of `lsa` and `lss`.
        seed: Of the mixture of Gaussians that bounds the noise pool.
        block: Voxels that are read at a time.

    Raises:
        BrainhiveError: if a run has more regressors than volumes, most voxels have no
            mean or do not vary, or `denoised` lacks noise.

    Source: Prince et al. 2022 (GLMsingle); Mumford et al. 2012 (LSA, LSS).
    """
    from threadpoolctl import threadpool_limits  # comes with scikit-learn

    # a design for each run: a regressor for each trial and HRF
    designs = []
    for number, run in enumerate(runs):
        trials = len(run.onsets_s)
        volumes = len(run.frame_times_s)
        nuisance = build_drift_basis(run).shape[1]
        if run.confounds is not None:
            nuisance += run.confounds.shape[1]
        if trials + nuisance >= volumes:
            raise BrainhiveError(
                f"run {number} (from 0): {trials} trials, drift and confounds "
                f"({nuisance}) are too many for {volumes} volumes",
                "leave some out",
            )
        name = hrf if estimator in ("lsa", "lss") else "library"
        regressors = build_design(run, stimulus_s, name)
        # betas of the tail of an HRF would be huge, and lengths that ridge regression
        # shrinks theirs
        peaks = np.abs(regressors).max(1, keepdims=True)  # [H, 1, n]
        least = MIN_RESPONSE * peaks.max(2, keepdims=True, initial=0)
        designs.append(regressors * (peaks >= least))

    # estimate the betas
    session = BoldSession(runs, read_voxels, n_voxels, designs, block_size)
    # for small matrices two threads took ten times as long on a busy machine
    with threadpool_limits(1):
        if estimator == "denoised":
            assumed = [
                build_design(run, stimulus_s, "assumed").sum(2, keepdims=True)
                for run in runs
            ]
            return estimate_denoised(session, assumed, seed)
        solve = make_exact_solver(
            session, compute_lss_weights if estimator == "lss" else compute_lsa_weights
        )
        estimates = fit_trials(session, survey_voxels(session), solve)

    # leave out maps that the estimator does not make
    for name in ("fraction",) if estimator == "hrf" else ("fraction", "hrf_index"):
        del estimates.maps[name]
    return estimates


@cache
def build_hrf_library(
    stimulus_s: float, tr_s: float, name: str = "library"
) -> Callable[[Float64], Float64]:
    """Build GLMsingle's HRFs for stimuli of some duration.

    Returns:
        Seconds since the onset [...] → responses [..., H]; H is 20 for `library`, 1 for
        `assumed`. As there, the largest sample at multiples of the TR is 1.

    Source: cvnlab/GLMsingle, `getcanonicalhrflibrary` (rebuilt from a formula),
    `getcanonicalhrf` (a table).
    """
    from scipy.interpolate import PchipInterpolator

    folder = Path(__file__).parent
    if name == "assumed":
        responses = np.loadtxt(folder / "assumed_hrf.txt").reshape(1, -1)
    else:
        # response less undershoot, each a gamma density: [20, samples]
        rows = np.loadtxt(folder / "hrf_library.csv", delimiter=",")
        delay, late, scale, late_scale, ratio, onset = rows.T[:, :, None]
        times_s = np.arange(HRF_SAMPLES) * HRF_STEP_S - onset
        undershoot = evaluate_gamma(times_s, late / late_scale, late_scale) / ratio
        responses = evaluate_gamma(times_s, delay / scale, scale) - undershoot

    # a stimulus of some length: the HRF is summed over its duration
    boxcar = np.ones(max(1, round(stimulus_s / HRF_STEP_S)))
    responses = np.stack([np.convolve(response, boxcar) for response in responses], 1)
    grid_s = np.arange(len(responses)) * HRF_STEP_S
    interpolate = PchipInterpolator(grid_s, responses, extrapolate=False)
    # the peak is that of samples at multiples of the TR
    peaks = interpolate(np.arange(0, grid_s[-1], tr_s)).max(0)
    return lambda lags_s: np.nan_to_num(interpolate(lags_s)) / peaks


def evaluate_gamma(times_s: Float64, shape: Any, scale: Any) -> Float64:
    """Evaluate the density of a gamma distribution; 0 up to 0 s."""
    from scipy.stats import gamma

    return gamma.pdf(times_s, shape, scale=scale)


def sample_canonical_hrf(kind: str, tr_s: float, shift_s: float = 0.0) -> Float64:
    """Sample a canonical HRF, shifted to a later onset, on nilearn's grid of about
    TR/50; its sum is 1.

    Source: nilearn 0.14, `glm.first_level.hemodynamic_models`, with its delay of one
    step.
    """
    shape, late_shape, scale, ratio = CANONICAL[kind]
    times_s = np.linspace(0, CANONICAL_S, round(CANONICAL_S * OVERSAMPLING / tr_s))
    # nilearn's delay of one step
    times_s = times_s - tr_s / OVERSAMPLING - shift_s
    response = evaluate_gamma(times_s, shape, scale) - ratio * evaluate_gamma(
        times_s, late_shape, scale
    )
    return response / response.sum()


def build_canonical_design(
    run: TrialRun, stimulus_s: float, kind: str, shift_s: float = 0.0
) -> Float64:
    """Build a regressor a trial with a canonical HRF, from boxcars on nilearn's grid.

    Returns:
        [T, n]; zero for a trial more than 24 s before the first volume, where the grid
        begins.
    """
    from scipy.interpolate import make_interp_spline

    # nilearn's grid: from LEAD_S before the first volume to about a TR behind the last
    times_s = run.frame_times_s
    intervals = len(run.frame_times_s) - 1
    end_s = times_s[-1] * (1 + 1 / intervals)
    start_s = times_s[0] - LEAD_S
    steps = round(
        (end_s - start_s) * intervals / (times_s[-1] - times_s[0]) * OVERSAMPLING
    )
    grid_s = np.linspace(start_s, end_s, steps + 1)

    # the step at which each boxcar begins, and a later one at which it ends
    first = np.searchsorted(grid_s, run.onsets_s)
    last = np.maximum(np.searchsorted(grid_s, run.onsets_s + stimulus_s), first + 1)
    # the response to a boxcar is that to a step up and to a later step down: sums of
    # the HRF
    sums = np.r_[0, np.cumsum(sample_canonical_hrf(kind, run.tr_s, shift_s))]
    rows = np.arange(1, steps + 2)[:, None]
    up, down = (sums[np.clip(rows - step, 0, len(sums) - 1)] for step in (first, last))
    # linear between steps; zero for a trial before the grid
    return make_interp_spline(grid_s, (up - down) * (run.onsets_s >= start_s), k=1)(
        times_s
    )


def build_design(run: TrialRun, stimulus_s: float, name: str) -> Float64:
    """Build a regressor a trial for each HRF, sampled at the times of the run's
    volumes.

    Args:
        run: Its onsets need not lie on volumes.
        stimulus_s: Duration of a stimulus.
        name: `glover`, `spm`, `assumed` or `library`; the last two are normalised at
            this run's TR.

    Returns:
        [H, T, n]; H is 20 for `library`, else 1.
    """
    if name in CANONICAL:
        return build_canonical_design(run, stimulus_s, name)[None]
    # [T, n, H]
    responses = build_hrf_library(stimulus_s, run.tr_s, name)(
        run.frame_times_s[:, None] - run.onsets_s
    )
    return np.ascontiguousarray(responses.transpose(2, 0, 1))


def build_drift_basis(run: TrialRun) -> Float64:
    """Build the orthonormal polynomials [T, d] that model a run's drift, or its
    constant alone.
    """
    volumes = len(run.frame_times_s)
    degree = choose_polynomial_degree(volumes * run.tr_s / 60) if run.has_drift else 0
    return build_polynomials(volumes, degree)


def choose_polynomial_degree(minutes: float) -> int:
    """Choose the degree of a run's drift: half its minutes, halves rounded up
    (GLMsingle).
    """
    return floor(minutes / 2 + 0.5)


def build_polynomials(volumes: int, degree: int) -> Float64:
    """Build orthonormal polynomials [T, degree + 1]."""
    powers = np.linspace(-1, 1, volumes)[:, None] ** np.arange(degree + 1)
    return extend_basis(powers, np.empty((volumes, 0)))


def extend_basis(columns: Float64 | None, basis: Float64) -> Float64:
    """Extend an orthonormal basis [T, B] by columns [T, K], in order; dependent ones
    become 0.
    """
    for column in () if columns is None else columns.T:
        rest = column
        for _ in range(2):  # the second time removes what rounding left
            rest = rest - basis @ (basis.T @ rest)
        length = np.linalg.norm(rest)
        # zeros instead of no column, as callers count columns
        is_new = length > MIN_EIGENVALUE**0.5 * np.linalg.norm(column)
        basis = np.column_stack([basis, rest / length if is_new else 0 * rest])
    return basis


def compute_lsa_weights(gram: Float64) -> Float64:
    """Weights of least squares on all trials: the pseudoinverse of the regressors'
    products [..., n, n].
    """
    return np.asarray(np.linalg.pinv(gram, rcond=MIN_EIGENVALUE, hermitian=True))


def compute_lss_weights(gram: Float64) -> Float64:
    """Weights of least squares on each trial and the sum of the other trials, for all
    trials at once.

    Args:
        gram: [..., n, n], products of the regressors without nuisance.

    Returns:
        [..., n, n]; betas are weights @ products of regressors and series.
    """
    # of each trial: its regressor, and the sum of the other trials
    alone = np.eye(gram.shape[-1])[:, None]
    # [n, 2, n]: which trials a regressor sums
    sums = np.concatenate([alone, 1 - alone], 1)
    # [..., n, 2, 2]
    weights = compute_lsa_weights(
        sums @ gram[..., None, :, :] @ sums.transpose(0, 2, 1)
    )
    # the beta of the trial itself is the first, as weights of all regressors
    return np.einsum("...tk,tkn->...tn", weights[..., 0, :], sums)


class RunModel:
    """The regressors of a run, and what is projected out of them and of the series.

    Attributes:
        drift: [T, d], orthonormal: what R² does not count.
        trials, confounds: How many regressors are trials, and how many of the nuisance
            are confounds.
        regressors: [H, T, n + M], without drift: trials, then orthonormal nuisance
            (confounds, components).
        gram: [H, n + M, n + M], their products.
    """

    def __init__(
        self, run: TrialRun, regressors: Float64, components: Float64 | None = None
    ) -> None:
        # one orthonormal basis: drift, then confounds, then components of the noise
        # pool
        drift = build_drift_basis(run)
        confounded = extend_basis(run.confounds, drift)
        basis = extend_basis(components, confounded)
        # without polynomials, confounds model the drift (fMRIPrep's cosines)
        drifts = (drift if run.has_drift else confounded).shape[1]
        self.trials = regressors.shape[2]
        self.confounds = confounded.shape[1] - drifts
        self.drift = basis[:, :drifts]
        nuisance = basis[:, drifts:]

        # drift is projected out at once; nuisance stays, as components are chosen later
        regressors = regressors - self.drift @ (self.drift.T @ regressors)
        # [H, T, M]
        nuisance = np.broadcast_to(nuisance, (len(regressors), *nuisance.shape))
        self.regressors = np.concatenate([regressors, nuisance], 2)
        self.gram = self.regressors.transpose(0, 2, 1) @ self.regressors

    def remove_nuisance(self, components: int | None = None) -> tuple[Float64, Float64]:
        """Remove confounds and the first components, or all, from the products of
        trials.

        Returns:
            Products of the regressors [H, n, n], and a matrix [H, n, n + m] by which
            those with the series are to be multiplied.
        """
        n = self.trials
        # nuisance is orthonormal, so that products are enough to project it out
        end = None if components is None else n + self.confounds + components
        cross = self.gram[:, :n, n:end]
        gram = self.gram[:, :n, :n] - cross @ cross.transpose(0, 2, 1)
        identity = np.broadcast_to(np.eye(n), gram.shape)
        return gram, np.concatenate([identity, -cross], 2)

    def compute_weights(
        self, solve: Callable[[Float64], Float64], components: int | None = None
    ) -> Float64:
        """Weights [H, n, n + m] of the products with the series, by `lsa_weights` or
        `lss_weights`.
        """
        gram, projection = self.remove_nuisance(components)
        return solve(gram) @ projection


class VoxelGroup:
    """Products of the series of v voxels of one HRF that the estimators need.

    Attributes:
        hrf: Which HRF.
        voxels: [v], which of all.
        products: [n + M, v] of each run, of regressors and series.
    """

    def __init__(
        self, models: list[RunModel], hrf: int, voxels: Any, series: list[Float64]
    ) -> None:
        self.models = models
        self.hrf = hrf
        self.voxels = voxels
        # estimators need the products alone, so that series leave memory
        pairs = zip(models, series, strict=True)
        self.products = [model.regressors[hrf].T @ values for model, values in pairs]

    def solve(self, weights: Sequence[Float64]) -> Float64:
        """Estimate betas [trials, v] by the weights [H, n, n + m] of each run."""
        pairs = zip(weights, self.products, strict=True)
        # weights may be of fewer components than there are products
        return np.concatenate(
            [matrix[self.hrf] @ rows[: matrix.shape[2]] for matrix, rows in pairs]
        )

    def explain_squares(self, betas: Float64) -> Float64:
        """Sum the squares [v] that betas [trials, v] explain of the series without
        drift: b(2Xᵀy − XᵀXb).
        """
        # products [trials, v] with the series, without those of nuisance
        pairs = zip(self.models, self.products, strict=True)
        y = np.concatenate([rows[: model.trials] for model, rows in pairs])
        grams = [
            model.gram[self.hrf, : model.trials, : model.trials]
            for model in self.models
        ]
        return np.einsum("nv,nv->v", betas, 2 * y - multiply_by_run(grams, betas))


def multiply_by_run(matrices: Sequence[Float64], values: Float64) -> Float64:
    """Multiply the rows of each run in values [trials, v] by the matrix [n, n] of the
    run.
    """
    parts = np.split(values, np.cumsum([*map(len, matrices)])[:-1])
    return np.concatenate([*map(np.matmul, matrices, parts)])


@dataclass(frozen=True)
class BoldSession:
    """Runs that are fitted together, their series, and a design [H, T, n] and
    components [T, P] of each.
    """

    runs: Sequence[TrialRun]
    read: Callable[[int, slice], Float32]
    voxels: int
    designs: Sequence[Float64]
    block: int = 2000
    components: Sequence[Float64] | None = None

    @cached_property
    def models(self) -> list[RunModel]:
        """The runs' equations."""
        none: list[None] = [None] * len(self.runs)
        return [*map(RunModel, self.runs, self.designs, self.components or none)]

    @cached_property
    def repetitions(self) -> Any:
        """Pairs of trials [trials, trials] of one stimulus in different runs, as a
        sparse matrix of ones.
        """
        from scipy.sparse import csr_array

        stimuli = np.concatenate([run.stimuli for run in self.runs])
        run = np.repeat(range(len(self.runs)), [len(run.stimuli) for run in self.runs])
        # leave-one-run-out: repetitions within a run are no pairs; sparse, as few are
        return csr_array(
            (stimuli[:, None] == stimuli) & (run[:, None] != run), dtype=np.float64
        )

    def read_blocks(self) -> Iterator[tuple[slice, Float64, Float64, list[Float64]]]:
        """Read voxels, and in each run their mean, and sum of squares and series
        without drift.

        Yields:
            Voxels; means and squares [R, v]; series [T, v]. All 0 where a voxel does
            not vary in some run.
        """
        for start in range(0, self.voxels, self.block):
            voxels = slice(start, min(start + self.block, self.voxels))
            series = []
            means, squares, floors = np.zeros((3, len(self.runs), voxels.stop - start))
            for run, model in enumerate(self.models):
                values = self.read(run, voxels).T.astype(np.float64)  # [T, v]
                # a voxel that is not finite counts as constant
                values[:, ~np.isfinite(values).all(0)] = 0
                means[run] = values.mean(0)
                floors[run] = MIN_POWER * np.einsum("tv,tv->v", values, values)
                # series without drift, in place, as they are the largest arrays
                values -= model.drift @ (model.drift.T @ values)
                squares[run] = np.einsum("tv,tv->v", values, values)
                series.append(values)
            # constant in one run: zero in all
            for values in (means, squares, *series):
                values[:, (squares <= floors).any(0)] = 0
            yield voxels, means, squares, series

    def read_groups(self, hrf_index: Int64) -> Iterator[VoxelGroup]:
        """Read voxels, those of one HRF in a block together."""
        for voxels, _, _, series in self.read_blocks():
            # voxels of one HRF share their weights
            for hrf in np.unique(hrf_index[voxels]):
                rows = np.flatnonzero(hrf_index[voxels] == hrf)
                yield VoxelGroup(
                    self.models,
                    hrf,
                    voxels.start + rows,
                    [values[:, rows] for values in series],
                )


Survey = tuple[Float64, Float64, Float64, Float64]
"""Facts of voxels before their trials are estimated: mean and tSNR [V]; sum of squares
[V] of the series without drift, infinite where a voxel is constant in a run; and R² [V,
H], percent of these squares that all trials explain with each HRF.
"""


def survey_voxels(session: BoldSession) -> Survey:
    """Measure the series, and fit all trials of each run at once with each HRF, without
    components.
    """
    mean, tsnr, squares = np.zeros((3, session.voxels))
    r2 = np.zeros((session.voxels, len(session.designs[0])))  # [V, H]
    lengths = np.array([len(run.frame_times_s) for run in session.runs])
    weights = [
        model.compute_weights(compute_lsa_weights, 0) for model in session.models
    ]
    for voxels, means, powers, series in session.read_blocks():
        # infinite squares: tSNR and R² of a constant voxel become 0
        powers[powers == 0] = np.inf
        squares[voxels], mean[voxels] = powers.sum(0), np.average(means, 0, lengths)
        # squares / volumes are the variance without drift
        tsnr[voxels] = (means * np.sqrt(lengths[:, None] / powers)).mean(0)
        for hrf in range(r2.shape[1]):
            group = VoxelGroup(session.models, hrf, voxels, series)
            r2[voxels, hrf] = (
                100 * group.explain_squares(group.solve(weights)) / squares[voxels]
            )

    # in percent of the mean, noise outside the brain or series without mean are useless
    if 2 * np.sum(tsnr >= MIN_TSNR) <= np.isfinite(squares).sum():
        raise BrainhiveError(
            "most voxels do not vary, or have a mean below their standard deviation",
            "mask the brain, and take BOLD whose mean was not removed",
        )
    return mean, tsnr, squares, r2


Solution = tuple[Float64, Float64, Any]
"""Betas [trials, v] that R² is of, betas that are returned, fraction [v]."""


def make_exact_solver(
    session: BoldSession, solve: Callable[[Float64], Float64]
) -> Callable[[VoxelGroup], Solution]:
    """Make a solver by `lsa_weights` or `lss_weights`."""
    weights = [model.compute_weights(solve) for model in session.models]
    return lambda group: (betas := group.solve(weights), betas, 1.0)


def fit_trials(
    session: BoldSession, survey: Survey, solve: Callable[[VoxelGroup], Solution]
) -> TrialEstimates:
    """Estimate all trials with the HRF of the largest R²."""
    mean, tsnr, squares, hrf_r2 = survey
    index = hrf_r2.argmax(1)
    trials = sum(len(run.stimuli) for run in session.runs)
    betas = np.zeros((trials, session.voxels), np.float32)
    r2, fraction = np.zeros((2, session.voxels))
    # percent of the mean; 0 where a voxel has none
    scale = 100 / np.where(mean == 0, np.inf, np.abs(mean))
    for group in session.read_groups(index):
        # R² is of the fit; the betas that are returned may be rescaled
        fitted, final, fraction[group.voxels] = solve(group)
        r2[group.voxels] = 100 * group.explain_squares(fitted) / squares[group.voxels]
        betas[:, group.voxels] = final * scale[group.voxels]

    # maps by name
    numbers = {"r2": r2, "tsnr": tsnr, "hrf_index": index, "fraction": fraction}
    maps: dict[str, Array] = {
        name: values.astype(np.float32) for name, values in numbers.items()
    }
    maps["is_constant"] = np.isinf(squares)
    facts = {
        "scaling": "percent of the voxel's mean over all volumes of all runs",
        "constant_voxels": int(maps["is_constant"].sum()),
    }
    return TrialEstimates(betas, maps, facts)


def estimate_denoised(
    session: BoldSession, assumed: Sequence[Float64], seed: int
) -> TrialEstimates:
    """Estimate with components of a noise pool and ridge regression: GLMsingle's type
    D.

    Args:
        session: Its designs have the HRFs of the library.
        assumed: [1, T, 1] of each run, one regressor for all trials with the assumed
            HRF.
        seed: Of the mixture that the threshold comes from.
    """
    # HRFs, and which voxels vary
    survey = survey_voxels(session)
    mean, _, squares, hrf_r2 = survey
    is_variable = np.isfinite(squares)

    # type A: one beta for all trials tells responses from noise
    r2 = measure_type_a_r2(replace(session, designs=assumed), squares)
    threshold = find_mixture_threshold(r2[is_variable], seed)
    pool = choose_noise_pool(mean, r2, threshold) & is_variable

    # type C: components of the noise pool; type D: ridge regression with them
    trend, session = add_noise_components(
        session, hrf_r2.argmax(1), pool, is_variable & (r2 > threshold)
    )
    estimates = fit_trials(session, survey, make_ridge_solver(session))
    estimates.facts.update(
        threshold=threshold,
        noise_pool=int(pool.sum()),
        pc_trend=trend.tolist(),
        pc_number=choose_component_count(trend),
    )
    return estimates


def measure_type_a_r2(session: BoldSession, squares: Float64) -> Float64:
    """R² [V] in percent of one beta for all trials of all runs (GLMsingle's type A).

    Args:
        session: Its designs have one regressor.
        squares: [V], of the series without drift.
    """
    explained = np.zeros(session.voxels)
    grams, projections = zip(
        *(model.remove_nuisance() for model in session.models), strict=True
    )
    for group in session.read_groups(np.zeros(session.voxels, np.int64)):
        # of one regressor, the normal equation is a division
        beta = group.solve(projections).sum(0) / np.sum(grams)
        explained[group.voxels] = group.explain_squares(
            np.tile(beta, (len(session.runs), 1))
        )
    return 100 * explained / squares


def find_mixture_threshold(values: Float64, seed: int) -> float:
    """Find the largest R² [V] at which two fitted Gaussians are equally likely; noise
    lies below.

    Raises:
        BrainhiveError: if one of them is likelier everywhere.

    Source: cvnlab/GLMsingle, `findtailthreshold`; seeded here.
    """
    from sklearn.mixture import GaussianMixture

    mixture = GaussianMixture(
        2, tol=1e-10, n_init=3, max_iter=10_000, random_state=seed
    ).fit(values[:, None])
    # the last change of the likelier Gaussian, on a fine grid
    grid = np.linspace(values.min(), values.max(), THRESHOLD_STEPS)
    changes = np.flatnonzero(np.diff(mixture.predict(grid[:, None])))
    if not len(changes):
        raise BrainhiveError(
            "R² of voxels do not separate noise from responses", "try estimator=hrf"
        )
    return float(grid[changes[-1]])


def choose_noise_pool(mean: Float64, r2: Float64, threshold: float) -> Bool:
    """Choose voxels [V] of a bright mean whose R² by `explain_together` is below a
    threshold.
    """
    bright = BRIGHT_SHARE * np.percentile(mean, BRIGHT_PERCENTILE)
    pool = (mean > bright) & (r2 < threshold)
    if not pool.any():
        raise BrainhiveError(
            f"no voxel has R² below {threshold:.3g} %: no noise", "try estimator=hrf"
        )
    return pool


def add_noise_components(
    session: BoldSession, hrf_index: Int64, pool: Bool, judges: Bool
) -> tuple[Float64, BoldSession]:
    """Add as many components of the noise pool as repetitions call for, judged in some
    voxels (type C).

    Confounds are projected out however many components there are; GLMsingle loses them
    where there are none.

    Returns:
        Minus the median badness [P + 1] of 0 … P components, and the session with those
        chosen.
    """
    columns = find_noise_components(session, pool)
    trend = -np.median(score_components(session, columns, hrf_index)[judges], 0)
    number = choose_component_count(trend)
    return trend, replace(
        session, components=[values[:, :number] for values in columns]
    )


def find_noise_components(session: BoldSession, pool: Bool) -> list[Float64]:
    """Find the components [T, P] of each run that explain most of the pool's series at
    length 1.
    """
    # products [T, T] of each run, summed over voxels
    moments = [np.zeros((len(run.frame_times_s),) * 2) for run in session.runs]
    for voxels, _, squares, series in session.read_blocks():
        is_noise = pool[voxels]
        for moment, power, values in zip(moments, squares, series, strict=True):
            # length 1, so that large voxels weigh no more than small ones
            noise = values[:, is_noise] / np.sqrt(power[is_noise])
            moment += noise @ noise.T
    count = min(MAX_COMPONENTS, pool.sum())

    # eigenvalues ascend: the last columns explain most
    vectors = [np.linalg.eigh(moment)[1][:, : -count - 1 : -1] for moment in moments]
    return [columns / columns.std(0, ddof=1) for columns in vectors]


def score_components(
    session: BoldSession, columns: Sequence[Float64], hrf_index: Int64
) -> Float64:
    """Judge betas with the first 0 … P components as nuisance, besides the confounds:
    badness [V, P + 1].
    """
    session = replace(session, components=columns)
    counts = range(columns[0].shape[1] + 1)
    weights = [
        [model.compute_weights(compute_lsa_weights, count) for model in session.models]
        for count in counts
    ]
    badness = np.zeros((session.voxels, len(counts)))
    for group in session.read_groups(hrf_index):
        # numbers of components share their products, so that voxels are read once
        candidates = [*map(group.solve, weights)]
        badness[group.voxels] = score_repetitions(session, candidates).T
    return badness


def choose_component_count(trend: Float64) -> int:
    """Choose the first number of components whose gain over none is within 5 % of the
    largest [P + 1].
    """
    gains = trend - trend[0]
    return int(np.argmax(TOLERANCE * gains >= gains.max()))


def score_repetitions(session: BoldSession, candidates: Sequence[Float64]) -> Float64:
    """Score how badly betas of all runs but one predict those of the same stimuli in
    the run left out.

    Betas are z-scored within sessions by mean and standard deviation of the first
    candidate's. The sum of (z_i − f_t)² over pairs of trials, f of the first candidate,
    is Σ n_i z_i² − 2 z_i Σ_t f_t + Σ_t f_t².

    Args:
        session: Tells which trials are repetitions.
        candidates: [trials, v] of each.

    Returns:
        Badness [P, v] of P candidates.
    """
    # mean and spread of each session, [trials, v], by the first candidate
    first = candidates[0]
    center = np.empty_like(first)
    scale = np.empty_like(first)
    sessions = np.concatenate(
        [np.full(len(run.stimuli), run.session) for run in session.runs]
    )
    for name in np.unique(sessions):
        trials = first[sessions == name]
        spread = trials.std(0, ddof=min(1, len(trials) - 1))  # 0 of a single trial
        center[sessions == name] = trials.mean(0)
        scale[sessions == name] = 1 / np.where(spread > 0, spread, np.inf)

    # terms of the sum that all candidates share; `partners` is n of the docstring
    first = (first - center) * scale
    partners = session.repetitions.sum(1)[:, None]
    sums = session.repetitions @ first
    constant = np.einsum("tv,tv->v", partners * first, first)
    scores = ((candidate - center) * scale for candidate in candidates)
    return np.stack(
        [constant + np.einsum("tv,tv->v", partners * z - 2 * sums, z) for z in scores]
    )


def fractional_ridge(
    spectra: Sequence[tuple[Float64, Float64]],
    products: Float64,
    fractions: Sequence[float],
) -> list[Float64]:
    """Shrink the betas of voxels to fractions of their length over all runs.

    Args:
        spectra: Eigenvalues [n] and eigenvectors [n, n] of the regressors' products in
            each run: together they are those of all runs, as runs share no regressor.
        products: [trials, v], of regressors and series.
        fractions: 1 is least squares.

    Returns:
        Betas [trials, v] of each fraction.

    Source: Rokem and Kay 2020, with their grid of penalties.
    """
    eigenvalues, vectors = zip(*spectra, strict=True)
    values = np.concatenate(eigenvalues)[:, None]
    is_used = values > MIN_EIGENVALUE * values.max()

    # the grid of penalties; 0 is least squares
    lowest = floor(np.log10(PENALTIES[0] * values[is_used].min()))
    highest = ceil(np.log10(PENALTIES[1] * values.max()))
    penalties = np.r_[0, 10 ** np.arange(lowest, highest, PENALTY_STEP)]

    # betas in the eigenbasis [trials, v]; directions of rounding alone become 0
    values = np.where(is_used, values, np.inf)
    rotated = multiply_by_run([matrix.T for matrix in vectors], products) / values
    # lengths as shares of least squares
    # [penalties, v]
    lengths = np.sqrt((1 / (1 + penalties / values)).T ** 2 @ rotated**2)
    lengths /= np.where(lengths[0] > 0, lengths[0], 1)

    # penalties of the fractions; reversed, as lengths fall while penalties grow
    logs = np.log1p(penalties)[::-1]
    # [v, fractions]
    chosen = np.expm1(
        [np.interp(fractions, column, logs) for column in lengths[::-1].T]
    )

    # back to trials
    return [
        multiply_by_run(vectors, rotated / (1 + penalty / values))
        for penalty in chosen.T
    ]


def rescale_betas(betas: Float64, target: Float64) -> Float64:
    """Scale and shift betas [trials, v] to fit others by least squares; those that
    would change sign stay.
    """
    deviations = betas - betas.mean(0)
    variance = np.einsum("tv,tv->v", deviations, deviations)
    variance[variance == 0] = 1
    slope = np.einsum("tv,tv->v", deviations, target) / variance
    return np.where(slope >= 0, slope * deviations + target.mean(0), betas)


def make_ridge_solver(
    session: BoldSession, fractions: Sequence[float] = FRACTIONS
) -> Callable[[VoxelGroup], Solution]:
    """Make a solver by ridge regression, with the fraction that repetitions judge best
    for each voxel.
    """
    # one decomposition for each run and HRF serves all voxels
    grams, projections = zip(
        *(model.remove_nuisance() for model in session.models), strict=True
    )
    spectra = [np.linalg.eigh(gram) for gram in grams]

    def solve(group: VoxelGroup) -> Solution:
        hrf_spectra = [
            (values[group.hrf], vectors[group.hrf]) for values, vectors in spectra
        ]
        products = group.solve(projections)
        candidates = fractional_ridge(hrf_spectra, products, (1.0, *fractions))
        # the first is least squares, the reference of `rescale`
        best = score_repetitions(session, candidates)[1:].argmin(0)
        # [trials, v]
        fitted = np.stack(candidates)[best + 1, :, np.arange(len(best))].T
        return fitted, rescale_betas(fitted, candidates[0]), np.asarray(fractions)[best]

    return solve
