"""Single-trial betas, compared with GLMsingle, nilearn and simulated betas."""

import json
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import load_file
from scipy.stats import gamma

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.data.fmri import glm
from brainhive_cli.data.fmri.glm import (
    BoldSession,
    TrialRun,
    add_noise_components,
    build_canonical_design,
    build_design,
    build_hrf_library,
    build_polynomials,
    choose_component_count,
    choose_noise_pool,
    choose_polynomial_degree,
    compute_lsa_weights,
    compute_lss_weights,
    estimate_trials,
    find_mixture_threshold,
    find_noise_components,
    fit_trials,
    fractional_ridge,
    make_exact_solver,
    make_ridge_solver,
    measure_type_a_r2,
    rescale_betas,
    sample_canonical_hrf,
    score_components,
    score_repetitions,
    survey_voxels,
)

Array = NDArray[Any]
SPREAD = 1e-4
"""Largest difference from GLMsingle's float32 betas, as a share of their spread."""
R2_POINTS = 1e-3
NILEARN = 1e-8
"""Largest difference from nilearn's float64 betas, as a share of their spread."""
LIBRARY = 5e-5
"""Largest difference of HRFs, which the library computes by a formula."""


def load(golden, name):
    path = golden / "bold" / f"{name}.safetensors"
    with safe_open(path, "np") as file:
        config = file.metadata().get("config", "{}")
    return load_file(path), json.loads(config)


def distance(betas, expected, voxels=slice(None)):
    return float(np.abs(betas - expected)[voxels].max() / expected[voxels].std())


def correlation(betas, truth):
    pairs = [
        np.corrcoef(row, true_row)[0, 1]
        for row, true_row in zip(betas, truth, strict=True)
    ]
    return float(np.mean(pairs))


class Reference:
    """Inputs and outputs of GLMsingle, by name."""

    def __init__(self, golden):
        self.tensors, config = load(golden, "glmsingle")
        self.options, _ = load(golden, "glmsingle_options")
        self.tr_s, self.stimulus_s = config["tr"], config["stimulus_s"]
        self.fractions = config["fractions"]
        self.bold = [self.tensors[f"input.bold_{run}"] for run in range(config["runs"])]
        self.brain = self.tensors["truth.kind"] < 2
        self.noise_pool = self["noise_pool"].astype(bool)

    def __getitem__(self, key):
        return self.tensors[f"expected.{key}"]

    def read(self, number, voxels):
        return self.bold[number][voxels]

    def runs(self):
        return [
            TrialRun(
                np.arange(bold.shape[1]) * self.tr_s,
                self.tensors[f"input.onsets_{run}"],
                self.tensors[f"input.conditions_{run}"],
                self.tr_s,
                int(self.tensors["input.sessions"][run]),
            )
            for run, bold in enumerate(self.bold)
        ]

    def session(self, hrf, runs):
        designs = [build_design(run, self.stimulus_s, hrf) for run in runs]
        return BoldSession(runs, self.read, len(self.brain), designs)

    def distance(self, estimates, expected):
        """Return the largest difference of betas inside the brain, by their spread."""
        return distance(estimates.betas.T, expected, self.brain)


@pytest.fixture(scope="module")
def reference(golden):
    return Reference(golden)


@pytest.fixture(scope="module")
def session(reference):
    """The runs of the reference, with the library of HRFs."""
    return reference.session("library", reference.runs())


@pytest.fixture(scope="module")
def assumed_designs(reference):
    """Designs of type A: one regressor for all trials of a run."""
    designs = reference.session("assumed", reference.runs()).designs
    return [regressors.sum(2, keepdims=True) for regressors in designs]


def fit(session, solve=compute_lsa_weights):
    return fit_trials(
        session, survey_voxels(session), make_exact_solver(session, solve)
    )


def shrink(session, *fractions):
    solve = make_ridge_solver(session, fractions or glm.FRACTIONS)
    return fit_trials(session, survey_voxels(session), solve)


# ---------------------------------------------------------------- GLMsingle


@pytest.mark.golden
def test_hrfs_are_those_of_the_reference(golden):
    tensors, _ = load(golden, "hrf")
    prefixes = ("expected.library", "expected.assumed")
    keys = [key for key in tensors if key.startswith(prefixes)]
    assert len(keys) > 2
    for key in keys:
        # such as expected.library.2s_tr1.5
        _, name, times = key.split(".", 2)
        stimulus_s, tr_s = (
            float(Fraction(number).limit_denominator(30))
            for number in times.split("s_tr")
        )
        lags_s = np.arange(len(tensors[key])) * tr_s
        ours = build_hrf_library(stimulus_s, tr_s, name)(lags_s)
        # GLMsingle extrapolates its table by up to a second, where the HRF is over
        table_s = 48.9 if name == "assumed" else 50
        inside = lags_s <= table_s + max(stimulus_s - 0.1, 0) + 1e-9
        expected = tensors[key].reshape(ours.shape)
        np.testing.assert_allclose(ours[inside], expected[inside], atol=LIBRARY)


@pytest.mark.golden
@pytest.mark.parametrize(("name", "tolerance"), [("library", 1e-6), ("assumed", 6e-3)])
def test_hrfs_are_the_fitted_differences_of_two_gammas(golden, name, tolerance):
    """Golden values: parameters fitted to GLMsingle's HRFs.

    The table of the assumed HRF is rounded, and its fit differs by 3e-3 of the peak.

    """
    fitted = json.loads((golden / "bold/hrf_parameters.json").read_text())
    # seconds, on the grid of an impulse of 0.1 s
    times_s = np.arange(489) / 10
    expected = []
    for values in np.atleast_2d(fitted[name]):
        parameters = dict(zip(fitted["order"], values, strict=True))
        response, undershoot = (
            gamma.pdf(
                times_s - parameters["onset"],
                parameters[f"{prefix}delay"] / parameters[f"{prefix}dispersion"],
                scale=parameters[f"{prefix}dispersion"],
            )
            for prefix in ("", "undershoot_")
        )
        difference = response - undershoot / parameters["ratio"]
        expected.append(difference / difference.max())

    responses = build_hrf_library(0.1, 0.1, name)(times_s)

    np.testing.assert_allclose(responses, np.transpose(expected), atol=tolerance)


@pytest.mark.golden
def test_drift_and_its_degree_are_those_of_the_reference(golden):
    tensors, _ = load(golden, "hrf")
    for minutes, degree in zip(
        tensors["input.minutes"], tensors["expected.degree"], strict=True
    ):
        assert choose_polynomial_degree(minutes) == degree
    for key in (key for key in tensors if "polynomials" in key):
        volumes, degree = key.rpartition(".")[2].split("_")
        basis = build_polynomials(int(volumes), int(degree))
        np.testing.assert_allclose(basis, tensors[key], atol=1e-6)


@pytest.mark.golden
@pytest.mark.parametrize("seed", [0, 1])
def test_the_threshold_of_a_mixture_is_that_of_the_reference(golden, seed):
    tensors, _ = load(golden, "hrf")
    threshold = find_mixture_threshold(tensors["input.mixture"], seed)
    assert threshold == pytest.approx(
        tensors["expected.mixture_threshold"][0], rel=0.01
    )


@pytest.mark.golden
def test_fitted_hrfs_and_their_betas_are_those_of_type_b(reference, session):
    mean, _, _, r2 = survey_voxels(session)
    estimates = fit(session)

    assert np.abs(mean - reference["mean"]).max() < 1e-3
    assert np.abs(r2 - reference["b.r2_by_hrf"]).max() < R2_POINTS
    assert np.array_equal(estimates.maps["hrf_index"], reference["hrf_index"])
    assert np.abs(estimates.maps["r2"] - reference["b.r2"]).max() < R2_POINTS
    assert reference.distance(estimates, reference["b.betas"]) < SPREAD


@pytest.mark.golden
def test_a_run_alone_explains_as_much_as_within_type_b(reference, session):
    """Golden value: R² of each run, which shares no regressor with other runs."""
    voxels = np.arange(len(reference.brain))
    for number, bold in enumerate(reference.bold):
        run_alone = BoldSession(
            [session.runs[number]],
            lambda _, block, bold=bold: bold[block],
            len(voxels),
            [session.designs[number]],
        )
        r2 = survey_voxels(run_alone)[3][voxels, reference["hrf_index"]]
        expected = reference["b.r2_by_run"][:, number]
        assert np.abs(r2 - expected).max() < R2_POINTS


@pytest.mark.golden
def test_type_a_and_its_noise_pool_are_those_of_the_reference(
    reference, session, assumed_designs
):
    mean, _, squares, _ = survey_voxels(session)
    r2 = measure_type_a_r2(replace(session, designs=assumed_designs), squares)
    pool = choose_noise_pool(mean, r2, reference["threshold_r2"][0])

    assert np.abs(r2 - reference["a.r2"]).max() < R2_POINTS
    assert np.array_equal(pool, reference.noise_pool)


@pytest.mark.golden
def test_components_and_their_badness_are_those_of_type_c(reference, session):
    components = find_noise_components(session, reference.noise_pool)
    badness = score_components(session, components, reference["hrf_index"])

    for run, values in enumerate(components):
        expected = reference[f"pc_regressors_{run}"]
        # the sign of a principal component is arbitrary
        signs = np.sign((values * expected).sum(0))
        np.testing.assert_allclose(values * signs, expected, atol=1e-3)
    np.testing.assert_allclose(badness, reference["glm_badness"], rtol=1e-4)


@pytest.fixture(scope="module")
def denoised(reference, session):
    """Badness by number of components, and the session with the best number."""
    hrf_index = survey_voxels(session)[3].argmax(1)
    responsive = reference["pc_voxels"].astype(bool)
    return add_noise_components(session, hrf_index, reference.noise_pool, responsive)


@pytest.mark.golden
def test_denoised_betas_are_those_of_type_c(reference, denoised):
    trend, denoised_session = denoised
    estimates = fit(denoised_session)

    np.testing.assert_allclose(trend, reference["pc_trend"], rtol=1e-5)
    assert choose_component_count(trend) == reference["pc_number"][0]
    assert np.abs(estimates.maps["r2"] - reference["c.r2"]).max() < R2_POINTS
    assert reference.distance(estimates, reference["c.betas"]) < SPREAD


@pytest.mark.golden
@pytest.mark.parametrize("seed", [0, 1])
def test_the_mixture_separates_the_voxels_of_the_reference(reference, seed):
    """Golden value: voxels above the threshold of a mixture without a seed."""
    r2 = reference["a.r2"]

    is_above = r2 > find_mixture_threshold(r2, seed)

    np.testing.assert_array_equal(is_above, reference["pc_voxels"].astype(bool))


@pytest.mark.golden
def test_shrunk_betas_and_their_fractions_are_those_of_type_d(
    reference, session, assumed_designs
):
    """One threshold of the mixture bounds the noise pool and the responsive voxels."""
    estimates = glm.estimate_denoised(session, assumed_designs, seed=0)

    np.testing.assert_allclose(glm.FRACTIONS, reference.fractions)
    assert estimates.facts["pc_number"] == reference["pc_number"][0]
    np.testing.assert_allclose(
        estimates.maps["fraction"], reference["fraction"], atol=1e-6
    )
    assert np.abs(estimates.maps["r2"] - reference["d.r2"]).max() < R2_POINTS
    assert reference.distance(estimates, reference["d.betas"]) < SPREAD


@pytest.mark.golden
def test_fractions_and_rescaled_betas_are_those_of_type_d(reference, denoised):
    """Golden values: badness of each fraction, slope and shift of shrunk betas."""
    _, session = denoised
    pairs = [model.remove_nuisance() for model in session.models]
    spectra = [np.linalg.eigh(gram) for gram, _ in pairs]
    badness = np.empty((len(reference.brain), len(glm.FRACTIONS)))
    rescaled = np.empty(reference["d.betas"].T.shape)
    expected = np.empty_like(rescaled)

    for group in session.read_groups(reference["hrf_index"]):
        hrf, voxels = group.hrf_index, group.voxels
        hrf_spectra = [(values[hrf], vectors[hrf]) for values, vectors in spectra]
        products = group.solve([projection for _, projection in pairs])
        # betas [trials, v] by least squares, and by each fraction
        exact, *candidates = fractional_ridge(
            hrf_spectra, products, (1.0, *glm.FRACTIONS)
        )
        badness[voxels] = score_repetitions(session, [exact, *candidates])[1:].T
        slope, shift = reference["scale_offset"][voxels].T
        distances = np.abs(glm.FRACTIONS - reference["fraction"][voxels][:, None])
        numbers = distances.argmin(1)
        shrunk = np.stack(candidates)[numbers, :, np.arange(len(numbers))].T
        rescaled[:, voxels] = rescale_betas(shrunk, exact)
        expected[:, voxels] = slope * shrunk + shift

    np.testing.assert_allclose(
        badness[reference.brain], reference["ridge_badness"][reference.brain], rtol=1e-4
    )
    assert distance(rescaled.T, expected.T, reference.brain) < SPREAD


def with_components(reference, session, count):
    """Add a number of noise components of the noise pool of the reference."""
    components = find_noise_components(session, reference.noise_pool)
    return replace(session, components=[values[:, :count] for values in components])


@pytest.mark.golden
def test_other_settings_of_types_c_and_d_give_their_betas(reference, session):
    three_components = with_components(reference, session, 3)
    without_denoising = shrink(session)

    fractions = reference.options["expected.no_denoise.fraction"]
    np.testing.assert_allclose(without_denoising.maps["fraction"], fractions, atol=1e-6)
    for key, estimates in (
        ("no_denoise.d", without_denoising),
        ("fixed.c", fit(three_components)),
        ("fixed.d", shrink(three_components, 0.4)),
    ):
        betas = reference.options[f"expected.{key}.betas"]
        assert reference.distance(estimates, betas) < SPREAD, key


@pytest.mark.golden
def test_the_assumed_hrf_alone_gives_its_betas(reference):
    estimates = fit(reference.session("assumed", reference.runs()))

    r2 = reference.options["expected.assumed_hrf.b.r2"]
    betas = reference.options["expected.assumed_hrf.b.betas"]
    assert np.abs(estimates.maps["r2"] - r2).max() < R2_POINTS
    assert reference.distance(estimates, betas) < SPREAD


@pytest.mark.golden
def test_lss_with_fitted_hrfs_is_that_of_the_reference(reference, session):
    """The reference's betas are percent of the mean of a run, ours of all runs."""
    betas = fit(session, compute_lss_weights).betas.T.astype(np.float64)

    run_numbers = np.repeat(
        range(len(session.runs)), [len(run.stimuli) for run in session.runs]
    )
    run_means = np.stack([bold.mean(1, dtype=np.float64) for bold in reference.bold], 1)
    by_run = betas * reference["mean"][:, None] / run_means[:, run_numbers]
    expected = reference.options["expected.lss.betas"]
    assert distance(by_run, expected, reference.brain) < SPREAD


@pytest.mark.golden
def test_confounds_are_projected_out_with_and_without_components(reference):
    runs = [
        replace(run, confounds=reference.options[f"input.extra_{row}"].astype(float))
        for row, run in enumerate(reference.runs())
    ]
    session = reference.session("library", runs)
    expected = reference.options["expected.extra.b.betas"]
    estimates = fit(session)
    hrf_index = reference.options["expected.extra.hrf_index"]
    assert np.array_equal(estimates.maps["hrf_index"], hrf_index)
    assert reference.distance(estimates, expected) < SPREAD

    # GLMsingle loses the confounds where it chooses no component
    no_components = fit(with_components(reference, session, 0))
    fault = reference.options["fault.extra_lost_at_0_pcs.c.betas"]
    assert reference.distance(no_components, expected) < SPREAD
    assert reference.distance(no_components, fault) > 100 * SPREAD

    components = find_noise_components(session, reference.noise_pool)
    badness = score_components(session, components, hrf_index)
    repetition = score_repetitions(session, [estimates.betas.astype(np.float64)])[0]
    np.testing.assert_allclose(badness[:, 0], repetition, rtol=1e-4)


@pytest.mark.golden
@pytest.mark.parametrize(("estimator", "key"), [("hrf", "b"), ("denoised", "d")])
def test_betas_are_as_true_as_those_of_the_reference(reference, estimator, key):
    responds = reference.tensors["truth.kind"] == 0
    truth = reference.tensors["truth.trial_betas"][responds]

    estimates = estimate_trials(
        reference.runs(),
        reference.read,
        len(responds),
        estimator,
        reference.stimulus_s,
    )

    expected = correlation(reference[f"{key}.betas"][responds], truth)
    assert correlation(estimates.betas.T[responds], truth) >= expected - 0.005


# ---------------------------------------------------------------- nilearn


@pytest.fixture(scope="module")
def nilearn(golden):
    return load(golden, "nilearn")


def nilearn_runs(tensors, config, drift):
    """Return runs with nuisance columns of nilearn's design matrix as confounds."""
    runs = []
    for number in range(len(tensors["input.sessions"])):
        onsets_s = tensors[f"input.onsets_{number}"]
        design = tensors[f"expected.design.{drift}_{number}"]
        runs.append(
            TrialRun(
                tensors[f"input.frame_times_{number}"],
                onsets_s,
                tensors[f"input.conditions_{number}"],
                config["tr"],
                confounds=design[:, len(onsets_s) :],
                has_drift=False,
            )
        )
    return runs


@pytest.mark.golden
@pytest.mark.parametrize("kind", ["spm", "glover"])
def test_canonical_hrfs_and_designs_are_nilearns(nilearn, kind):
    tensors, config = nilearn
    np.testing.assert_allclose(
        sample_canonical_hrf(kind, config["tr"]),
        tensors[f"expected.hrf.{kind}"],
        atol=1e-12,
    )
    for number, nilearn_run in enumerate(nilearn_runs(tensors, config, kind)):
        expected = tensors[f"expected.design.{kind}_{number}"]
        ours = build_canonical_design(nilearn_run, config["stimulus_s"], kind)
        trials = len(nilearn_run.onsets_s)
        np.testing.assert_allclose(ours, expected[:, :trials], atol=NILEARN)


def solve_run(regressors, trial_run, bold, solve):
    """Estimate the betas [V, trials] of a run, in the unit of the data."""
    model = glm.RunModel(trial_run, regressors[None])
    projections = model.regressors[0].T @ bold.astype(np.float64).T
    return (model.compute_weights(solve)[0] @ projections).T


@pytest.mark.golden
@pytest.mark.parametrize("kind", ["spm", "glover"])
def test_lsa_is_nilearns(nilearn, kind):
    tensors, config = nilearn
    for number, nilearn_run in enumerate(nilearn_runs(tensors, config, kind)):
        bold = tensors[f"input.bold_{number}"]
        design = build_canonical_design(nilearn_run, config["stimulus_s"], kind)
        betas = solve_run(design, nilearn_run, bold, compute_lsa_weights)
        session = BoldSession(
            [nilearn_run],
            lambda _, voxels, bold=bold: bold[voxels],
            len(bold),
            [design[None]],
        )
        percent = fit(session).betas.T
        assert distance(betas, tensors[f"expected.lsa.{kind}_{number}"]) < NILEARN
        # betas of sessions are float32, in percent of the mean
        mean = bold.mean(1, dtype=np.float64)[:, None]
        assert distance(percent * mean / 100, betas) < 1e-6


@pytest.mark.golden
def test_lsa_with_the_derivative_of_the_hrf_is_nilearns(nilearn):
    """nilearn makes derivatives orthogonal to HRFs. Here they are confounds."""
    tensors, config = nilearn
    for number, nilearn_run in enumerate(nilearn_runs(tensors, config, "spm")):
        design = build_canonical_design(nilearn_run, config["stimulus_s"], "spm", 0)
        shifted = build_canonical_design(nilearn_run, config["stimulus_s"], "spm", 0.1)
        derivatives = (design - shifted) / 0.1
        derivatives -= design * (design * derivatives).sum(0) / (design**2).sum(0)
        confounds = np.column_stack([nilearn_run.confounds, derivatives])

        betas = solve_run(
            design,
            replace(nilearn_run, confounds=confounds),
            tensors[f"input.bold_{number}"],
            compute_lsa_weights,
        )

        expected = tensors[f"expected.lsa.spm_derivative_{number}"]
        assert distance(betas, expected) < NILEARN


@pytest.mark.golden
def test_lss_is_nilearns_with_one_regressor_for_the_others(nilearn):
    tensors, config = nilearn
    for number, nilearn_run in enumerate(nilearn_runs(tensors, config, "glover")):
        bold = tensors[f"input.bold_{number}"]
        design = build_canonical_design(nilearn_run, config["stimulus_s"], "glover")
        betas = solve_run(design, nilearn_run, bold, compute_lss_weights)
        expected = tensors[f"expected.lss_others.glover_{number}"]
        assert distance(betas, expected) < NILEARN


# ---------------------------------------------------------------- a simulation

STIMULUS_S = 2.0
RESPONSIVE, SILENT, STIMULI = 24, 12, 15


def respond(lags_s):
    """Average SPM's HRF over the 2 s of a stimulus, in steps of 0.1 s."""
    tenths = np.arange(0, STIMULUS_S, 0.1)
    lags_s = lags_s[..., None] - tenths
    return (gamma.pdf(lags_s, 6) - gamma.pdf(lags_s, 16) / 6).mean(-1)


class World:
    """Simulated runs with two TRs, a StartTime of 0.9 s, and onsets between volumes."""

    def __init__(self):
        random = np.random.default_rng(3)
        shape = (RESPONSIVE + SILENT, STIMULI)
        gain = random.uniform(0.5, 2, (shape[0], 1))
        gain[RESPONSIVE:] = 0
        tuning = gain * (1 + 0.8 * random.normal(size=shape))
        self.runs = []
        self.bold = []
        truth = []
        for number, tr_s in enumerate((1.5, 2.0, 1.5, 2.0)):
            stimuli = random.permutation(STIMULI)
            onsets_s = 5 + np.cumsum(random.uniform(2.5, 4.5, STIMULI))
            times_s = np.arange(round((onsets_s[-1] + 16) / tr_s)) * tr_s + 0.9
            betas = tuning[:, stimuli]
            # percent of the mean
            change = 5 * betas @ respond(times_s[:, None] - onsets_s).T
            change += 0.6 * random.normal(size=change.shape)
            self.runs.append(
                TrialRun(times_s, onsets_s, stimuli, tr_s, 1 + number // 2)
            )
            self.bold.append((800 * (1 + change / 100)).astype(np.float32))
            truth.append(betas)
        self.truth = np.concatenate(truth, 1)

    def read(self, number, voxels):
        return self.bold[number][voxels]

    def estimate(self, estimator, runs=None):
        runs = runs or self.runs
        voxels = len(self.bold[0])
        return estimate_trials(
            runs, self.read, voxels, estimator, STIMULUS_S, hrf="spm"
        )


@pytest.fixture(scope="module")
def world():
    return World()


def test_betas_are_percent_of_the_mean_over_all_runs(world):
    """Responses are 5 × beta × HRF, and regressors of the library peak at 1."""
    estimates = world.estimate("hrf")
    brighter = World()
    brighter.bold = [3 * bold for bold in brighter.bold]
    np.testing.assert_allclose(
        brighter.estimate("hrf").betas, estimates.betas, rtol=1e-3, atol=1e-4
    )
    peak = 5 * respond(np.arange(0, 20, 0.1)).max()
    means = estimates.betas.mean(0)[:RESPONSIVE]
    ratio = np.median(means / world.truth[:RESPONSIVE].mean(1))
    assert ratio == pytest.approx(peak, rel=0.1)
    assert "all runs" in estimates.facts["scaling"]


@pytest.mark.parametrize(("estimator", "is_infinite"), [("lsa", 0), ("denoised", 1)])
def test_a_voxel_without_signal_in_a_run_is_marked(world, estimator, is_infinite):
    """The voxel is 0 throughout run 1, or infinite in its third volume."""
    changed = World()
    changed.bold = [np.concatenate([bold[:1], bold]) for bold in world.bold]
    changed.bold[1][0] = 500 * is_infinite
    if is_infinite:
        changed.bold[1][0, 3] = np.inf

    estimates = changed.estimate(estimator)

    assert estimates.facts["constant_voxels"] == 1
    assert np.flatnonzero(estimates.maps["is_constant"]).tolist() == [0]
    assert not estimates.betas[:, 0].any()
    assert all(np.isfinite(values).all() for values in estimates.maps.values())
    expected = world.estimate(estimator).betas
    np.testing.assert_allclose(estimates.betas[:, 1:], expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("estimator", ["lsa", "hrf"])
def test_a_trial_outside_its_run_is_0_and_leaves_others_alone(world, estimator):
    # the last response has hardly begun when the run ends
    end_s = world.runs[1].frame_times_s[-1]
    longer = replace(
        world.runs[1],
        onsets_s=np.r_[-60.0, world.runs[1].onsets_s, end_s - 1],
        stimuli=np.r_[0, world.runs[1].stimuli, 0],
    )
    betas = world.estimate(estimator, [world.runs[0], longer, *world.runs[2:]]).betas
    outside_trials = [STIMULI, 2 * STIMULI + 1]
    assert not betas[outside_trials].any()
    np.testing.assert_allclose(
        np.delete(betas, outside_trials, 0), world.estimate(estimator).betas, atol=1e-4
    )


def test_more_regressors_than_volumes_are_refused(world):
    volumes = len(world.runs[0].frame_times_s)
    confounds = np.random.default_rng(0).standard_normal((volumes, volumes - 10))
    run = replace(world.runs[0], confounds=confounds)
    message = rf"run 0 .*\b{STIMULI} trials.*\b{volumes} volumes"
    with pytest.raises(BrainhiveError, match=message):
        world.estimate("lsa", [run, *world.runs[1:]])


@pytest.mark.parametrize(("signals", "is_refused"), [(4, True), (5, False)])
def test_more_than_half_of_the_voxels_have_a_mean(signals, is_refused):
    """Constant voxels do not count, and a mean above the noise is enough."""
    onsets_s = 5 + 6.0 * np.arange(20)
    trial_run = TrialRun(np.arange(80) * 2.0, onsets_s, np.arange(20), 2.0)
    series = np.random.default_rng(0).standard_normal((9, 80))
    series[:signals] += 1.5
    series[8] = 3
    arguments = [[trial_run], lambda _, rows: series[rows], 9, "lsa", 1.0]
    if is_refused:
        with pytest.raises(BrainhiveError, match="standard deviation"):
            estimate_trials(*arguments)
    else:
        estimates = estimate_trials(*arguments)
        assert np.flatnonzero(estimates.maps["is_constant"]).tolist() == [8]
