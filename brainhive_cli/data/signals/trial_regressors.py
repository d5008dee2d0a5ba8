"""Regressors of a BOLD run: responses to its trials, sampled when volumes were acquired, and drift."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import floor
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from scipy.interpolate import PchipInterpolator, make_interp_spline

from brainhive_cli.core.arrays import Float64, Int64

CanonicalHRF = Literal["glover", "spm"]
HRF_STEP_S, HRF_SAMPLES = 0.1, 501
"""Grid of GLMsingle's library: to 50 s after the onset."""
CANONICAL = {"glover": (6 / 0.9, 12 / 0.9, 0.9, 0.48), "spm": (6.0, 16.0, 1.0, 0.167)}
"""Shapes of response and undershoot, scale of both, share of the undershoot: as nilearn has them."""
OVERSAMPLING, CANONICAL_S, LEAD_S = 50, 32.0, 24.0
"""nilearn's grid: steps a TR, length of an HRF, time before the first volume."""
MIN_EIGENVALUE = 1e-10
"""Directions of a design with less than this share of the largest eigenvalue are not estimated."""


@dataclass(frozen=True)
class TrialRun:
    """One run: when volumes were acquired, which trials it shows, and what is projected out.

    Attributes:
        times_s: [T], seconds of each volume after the start of the first stored one: k·TR + StartTime.
        onsets_s: [n], in order of time; any real number.
        stimuli: [n] int64; equal numbers are repetitions of one stimulus, over all runs.
        tr_s: Repetition time of this run; runs may differ.
        session: Betas are z-scored within it where repetitions are compared.
        confounds: [T, K], finite.
        has_drift: Polynomials of GLMsingle's degree model the drift. Without, a constant and the confounds do
            (fMRIPrep's cosines), and R² does not count what they explain.
    """

    times_s: Float64
    onsets_s: Float64
    stimuli: Int64
    tr_s: float
    session: int = 1
    confounds: Float64 | None = None
    has_drift: bool = True


@cache
def hrf_library(stimulus_s: float, tr_s: float, name: str = "library") -> Callable[[Float64], Float64]:
    """Build GLMsingle's HRFs for stimuli of some duration.

    Returns:
        Seconds since the onset [...] → responses [..., H]; H is 20 for `library`, 1 for `assumed`. As
        there, the largest sample at multiples of the TR is 1.

    Source: cvnlab/GLMsingle, `getcanonicalhrflibrary` (rebuilt from a formula), `getcanonicalhrf` (a table).
    """
    folder = Path(__file__).parent
    if name == "assumed":
        responses = np.loadtxt(folder / "assumed_hrf.txt").reshape(1, -1)
    else:
        # response less undershoot, each a gamma density: [20, samples]
        rows = np.loadtxt(folder / "hrf_library.csv", delimiter=",")
        delay, late, scale, late_scale, ratio, onset = rows.T[:, :, None]
        times_s = np.arange(HRF_SAMPLES) * HRF_STEP_S - onset
        undershoot = gamma_density(times_s, late / late_scale, late_scale) / ratio
        responses = gamma_density(times_s, delay / scale, scale) - undershoot

    # a stimulus of some length: the HRF is summed over its duration
    boxcar = np.ones(max(1, round(stimulus_s / HRF_STEP_S)))
    responses = np.stack([np.convolve(response, boxcar) for response in responses], 1)
    grid_s = np.arange(len(responses)) * HRF_STEP_S
    interpolate = PchipInterpolator(grid_s, responses, extrapolate=False)
    # the peak is that of samples at multiples of the TR
    peaks = interpolate(np.arange(0, grid_s[-1], tr_s)).max(0)
    return lambda lags_s: np.nan_to_num(interpolate(lags_s)) / peaks


def gamma_density(times_s: Float64, shape: Any, scale: Any) -> Float64:
    """Evaluate the density of a gamma distribution; 0 up to 0 s."""
    from scipy.stats import gamma

    return gamma.pdf(times_s, shape, scale=scale)


def canonical_hrf(kind: CanonicalHRF, tr_s: float, shift_s: float = 0.0) -> Float64:
    """Sample a canonical HRF, shifted to a later onset, on nilearn's grid of about TR/50; its sum is 1.

    Source: nilearn 0.14, `glm.first_level.hemodynamic_models`, with its delay of one step.
    """
    shape, late_shape, scale, ratio = CANONICAL[kind]
    times_s = np.linspace(0, CANONICAL_S, round(CANONICAL_S * OVERSAMPLING / tr_s))
    # nilearn's delay of one step
    times_s = times_s - tr_s / OVERSAMPLING - shift_s
    response = gamma_density(times_s, shape, scale) - ratio * gamma_density(times_s, late_shape, scale)
    return response / response.sum()


def canonical_design(run: TrialRun, stimulus_s: float, kind: CanonicalHRF, shift_s: float = 0.0) -> Float64:
    """Build a regressor a trial with a canonical HRF, from boxcars on nilearn's grid.

    Returns:
        [T, n]; zero for a trial more than 24 s before the first volume, where the grid begins.
    """
    # nilearn's grid: from LEAD_S before the first volume to about a TR behind the last
    times_s, intervals = run.times_s, len(run.times_s) - 1
    end_s = times_s[-1] * (1 + 1 / intervals)
    start_s = times_s[0] - LEAD_S
    steps = round((end_s - start_s) * intervals / (times_s[-1] - times_s[0]) * OVERSAMPLING)
    grid_s = np.linspace(start_s, end_s, steps + 1)

    # the step at which each boxcar begins, and a later one at which it ends
    first = np.searchsorted(grid_s, run.onsets_s)
    last = np.maximum(np.searchsorted(grid_s, run.onsets_s + stimulus_s), first + 1)
    # the response to a boxcar is that to a step up and to a later step down: sums of the HRF
    sums = np.r_[0, np.cumsum(canonical_hrf(kind, run.tr_s, shift_s))]
    rows = np.arange(1, steps + 2)[:, None]
    up, down = (sums[np.clip(rows - step, 0, len(sums) - 1)] for step in (first, last))
    # linear between steps; zero for a trial before the grid
    return make_interp_spline(grid_s, (up - down) * (run.onsets_s >= start_s), k=1)(times_s)


def design(run: TrialRun, stimulus_s: float, name: str) -> Float64:
    """Build a regressor a trial for each HRF, sampled at the times of the run's volumes.

    Args:
        run: Its onsets need not lie on volumes.
        stimulus_s: Duration of a stimulus.
        name: `glover`, `spm`, `assumed` or `library`; the last two are normalised at this run's TR.

    Returns:
        [H, T, n]; H is 20 for `library`, else 1.
    """
    if name in CANONICAL:
        return canonical_design(run, stimulus_s, cast(CanonicalHRF, name))[None]
    # [T, n, H]
    responses = hrf_library(stimulus_s, run.tr_s, name)(run.times_s[:, None] - run.onsets_s)
    return np.ascontiguousarray(responses.transpose(2, 0, 1))


def drift_basis(run: TrialRun) -> Float64:
    """Build the orthonormal polynomials [T, d] that model a run's drift, or its constant alone."""
    volumes = len(run.times_s)
    return polynomials(volumes, polynomial_degree(volumes * run.tr_s / 60) if run.has_drift else 0)


def polynomial_degree(minutes: float) -> int:
    """Choose the degree of a run's drift: half its minutes, halves rounded up (GLMsingle)."""
    return floor(minutes / 2 + 0.5)


def polynomials(volumes: int, degree: int) -> Float64:
    """Build orthonormal polynomials [T, degree + 1]."""
    powers = np.linspace(-1, 1, volumes)[:, None] ** np.arange(degree + 1)
    return orthonormalise(powers, np.empty((volumes, 0)))


def orthonormalise(columns: Float64 | None, basis: Float64) -> Float64:
    """Extend an orthonormal basis [T, B] by columns [T, K], in order; dependent ones become 0."""
    for column in () if columns is None else columns.T:
        rest = column
        for _ in range(2):  # the second time removes what rounding left
            rest = rest - basis @ (basis.T @ rest)
        length = np.linalg.norm(rest)
        # zeros instead of no column, as callers count columns
        is_new = length > MIN_EIGENVALUE**0.5 * np.linalg.norm(column)
        basis = np.column_stack([basis, rest / length if is_new else np.zeros_like(rest)])
    return basis
