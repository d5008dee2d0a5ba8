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
    """Inputs and outputs of GLMsingle."""

    def __init__(self, golden):
        self.tensors, config = load(golden, "glmsingle")
        self.options, _ = load(golden, "glmsingle_options")
        self.tr_s, self.stimulus_s, self.count = (
            config["tr"],
            config["stimulus_s"],
            config["runs"],
        )
        self.fractions = config["fractions"]
        self.bold = [self.tensors[f"input.bold_{index}"] for index in range(self.count)]
        self.brain = self.tensors["truth.kind"] < 2
        self.voxels = len(self.brain)

    def __getitem__(self, key):
        return self.tensors[f"expected.{key}"]

    def read(self, number, voxels):
        return self.bold[number][voxels]

    def runs(self, has_extra=False):
        return [
            TrialRun(
                np.arange(self.bold[index].shape[1]) * self.tr_s,
                self.tensors[f"input.onsets_{index}"],
                self.tensors[f"input.conditions_{index}"],
                self.tr_s,
                int(self.tensors["input.sessions"][index]),
                self.options[f"input.extra_{index}"].astype(np.float64)
                if has_extra
                else None,
            )
            for index in range(self.count)
        ]

    def session(self, name, is_ours, has_extra=False):
        """Build designs from our HRFs, or from GLMsingle's samples at volumes."""
        runs = self.runs(has_extra)
        if is_ours:
            designs = [
                build_design(finished_run, self.stimulus_s, name)
                for finished_run in runs
            ]
        else:
            samples = self.tensors[f"input.hrf_{name}"]
            samples = samples.reshape(len(samples), -1)
            designs = []
            for finished_run in runs:
                regressors = np.zeros(
                    (
                        samples.shape[1],
                        len(finished_run.frame_times_s),
                        len(finished_run.onsets_s),
                    )
                )
                for trial, onset_s in enumerate(finished_run.onsets_s):
                    first_round = round(onset_s / self.tr_s)
                    partial_samples = samples[
                        : len(finished_run.frame_times_s) - first_round
                    ]
                    regressors[
                        :, first_round : first_round + len(partial_samples), trial
                    ] = partial_samples.T
                designs.append(regressors)
        return BoldSession(runs, self.read, self.voxels, designs)

    def assumed(self, is_ours=True):
        return [
            regressors.sum(2, keepdims=True)
            for regressors in self.session("assumed", is_ours).designs
        ]

    def noise_pool(self, session):
        mean, _, squares, _ = survey_voxels(session)
        r2 = measure_type_a_r2(replace(session, designs=self.assumed()), squares)
        return choose_noise_pool(mean, r2, self["threshold_r2"][0])

    def denoised(self, is_ours):
        """Add noise components by the threshold of GLMsingle."""
        session = self.session("library", is_ours)
        judges = self["pc_voxels"].astype(bool)
        return add_noise_components(
            session,
            survey_voxels(session)[3].argmax(1),
            self.noise_pool(session),
            judges,
        )

    def add_components(self, session, count):
        columns = find_noise_components(session, self["noise_pool"].astype(bool))
        return replace(session, components=[values[:, :count] for values in columns])


@pytest.fixture(scope="module")
def reference(golden):
    return Reference(golden)


def fit(session, solve=compute_lsa_weights):
    return fit_trials(
        session, survey_voxels(session), make_exact_solver(session, solve)
    )


def shrink(session, *fractions, is_rescaled=True):
    solve = make_ridge_solver(session, fractions or glm.FRACTIONS)
    if is_rescaled:
        return fit_trials(session, survey_voxels(session), solve)

    def solve_without_rescaling(group):
        solution = solve(group)
        return solution._replace(final=solution.fitted)

    return fit_trials(session, survey_voxels(session), solve_without_rescaling)


# ---------------------------------------------------------------- GLMsingle

both_designs = pytest.mark.parametrize(
    "is_ours", [True, False], ids=["our HRFs", "the reference's HRFs"]
)


@pytest.mark.golden
def test_hrfs_are_those_of_the_reference(golden):
    tensors, _ = load(golden, "hrf")
    keys = [
        key
        for key in tensors
        if key.startswith(("expected.library", "expected.assumed"))
    ]
    assert len(keys) > 2
    for key in keys:
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
    assert [
        choose_polynomial_degree(minutes) for minutes in tensors["input.minutes"]
    ] == list(tensors["expected.degree"])
    session, config = load(golden, "glmsingle")
    for run_index, degree in enumerate(session["input.polynomial_degree"]):
        minutes = session[f"input.bold_{run_index}"].shape[1] * config["tr"] / 60
        assert choose_polynomial_degree(minutes) == degree
    for key in (key for key in tensors if "polynomials" in key):
        volumes, degree = map(int, key.rpartition(".")[2].split("_"))
        np.testing.assert_allclose(
            build_polynomials(volumes, degree), tensors[key], atol=1e-6
        )


@pytest.mark.golden
@pytest.mark.parametrize("seed", [0, 1])
def test_the_threshold_of_a_mixture_is_that_of_the_reference(golden, seed):
    tensors, _ = load(golden, "hrf")
    threshold = find_mixture_threshold(tensors["input.mixture"], seed)
    assert threshold == pytest.approx(
        tensors["expected.mixture_threshold"][0], rel=0.01
    )


@pytest.mark.golden
@both_designs
def test_fitted_hrfs_and_their_betas_are_those_of_type_b(reference, is_ours):
    session = reference.session("library", is_ours)
    mean, _, _, r2 = survey_voxels(session)
    estimates = fit(session)
    assert np.abs(mean - reference["mean"]).max() < 1e-3
    assert np.abs(r2 - reference["b.r2_by_hrf"]).max() < R2_POINTS
    assert np.array_equal(estimates.maps["hrf_index"], reference["hrf_index"])
    assert np.abs(estimates.maps["r2"] - reference["b.r2"]).max() < R2_POINTS
    assert distance(estimates.betas.T, reference["b.betas"], reference.brain) < SPREAD


@pytest.mark.golden
def test_a_run_alone_explains_as_much_as_within_type_b(reference):
    """Golden value: R² of each run, which shares no regressor with other runs."""
    whole_session = reference.session("library", True)
    voxels = np.arange(reference.voxels)

    for number, finished_run in enumerate(whole_session.runs):
        single_bold_session = BoldSession(
            [finished_run],
            lambda _, block, number=number: reference.read(number, block),
            reference.voxels,
            [whole_session.designs[number]],
        )
        r2 = survey_voxels(single_bold_session)[3][voxels, reference["hrf_index"]]
        expected = reference["b.r2_by_run"][:, number]
        assert np.abs(r2 - expected).max() < R2_POINTS


@pytest.mark.golden
@both_designs
def test_one_beta_for_all_trials_explains_as_much_as_type_a(reference, is_ours):
    session = reference.session("library", True)
    squares = survey_voxels(session)[2]
    r2 = measure_type_a_r2(
        replace(session, designs=reference.assumed(is_ours)), squares
    )
    assert np.abs(r2 - reference["a.r2"]).max() < R2_POINTS


@pytest.mark.golden
def test_components_and_their_badness_are_those_of_type_c(
    reference,
):
    session = reference.session("library", True)
    pool = reference["noise_pool"].astype(bool)
    columns = find_noise_components(session, pool)
    for run_index, values in enumerate(columns):
        expected = reference[f"pc_regressors_{run_index}"]
        np.testing.assert_allclose(
            values * np.sign((values * expected).sum(0)), expected, atol=1e-3
        )
    badness = score_components(session, columns, reference["hrf_index"])
    np.testing.assert_allclose(badness, reference["glm_badness"], rtol=1e-4)
    trend = -np.median(badness[reference["pc_voxels"].astype(bool)], 0)
    np.testing.assert_allclose(trend, reference["pc_trend"], rtol=1e-5)
    assert choose_component_count(trend) == reference["pc_number"][0]


@pytest.mark.golden
@both_designs
def test_the_noise_pool_is_that_of_the_reference(reference, is_ours):
    pool = reference.noise_pool(reference.session("library", is_ours))
    assert np.array_equal(pool, reference["noise_pool"].astype(bool))


@pytest.mark.golden
@both_designs
def test_denoised_betas_are_those_of_type_c(reference, is_ours):
    trend, session = reference.denoised(is_ours)
    assert choose_component_count(trend) == reference["pc_number"][0]
    np.testing.assert_allclose(trend, reference["pc_trend"], rtol=1e-5)
    estimates = fit(session)
    assert np.abs(estimates.maps["r2"] - reference["c.r2"]).max() < R2_POINTS
    assert distance(estimates.betas.T, reference["c.betas"], reference.brain) < SPREAD


@pytest.mark.golden
@both_designs
def test_shrunk_betas_and_their_fractions_are_those_of_type_d(reference, is_ours):
    _, session = reference.denoised(is_ours)
    estimates = shrink(session)
    np.testing.assert_allclose(glm.FRACTIONS, reference.fractions)
    np.testing.assert_allclose(
        estimates.maps["fraction"], reference["fraction"], atol=1e-6
    )
    assert np.abs(estimates.maps["r2"] - reference["d.r2"]).max() < R2_POINTS
    assert distance(estimates.betas.T, reference["d.betas"], reference.brain) < SPREAD


@pytest.mark.golden
@pytest.mark.parametrize("seed", [0, 1])
def test_the_mixture_separates_the_voxels_of_the_reference(reference, seed):
    """Golden value: voxels above the threshold of a mixture without a seed."""
    r2 = reference["a.r2"]

    is_above = r2 > find_mixture_threshold(r2, seed)

    np.testing.assert_array_equal(is_above, reference["pc_voxels"].astype(bool))


@pytest.mark.golden
def test_one_threshold_bounds_noise_pool_and_responsive_voxels(reference, monkeypatch):
    """Golden values: noise pool, responsive voxels and betas of type D."""
    pool_threshold, judges_threshold = reference["threshold_r2"]
    assert pool_threshold == judges_threshold
    voxels = {}

    def record_voxels(session, hrf_indices, pool, responsive):
        voxels.update(noise_pool=pool, pc_voxels=responsive)
        return add_noise_components(session, hrf_indices, pool, responsive)

    monkeypatch.setattr(glm, "find_mixture_threshold", lambda *_: pool_threshold)
    monkeypatch.setattr(glm, "add_noise_components", record_voxels)

    session = reference.session("library", True)
    estimates = glm.estimate_denoised(session, reference.assumed(), seed=0)

    for name, selected in voxels.items():
        np.testing.assert_array_equal(selected, reference[name].astype(bool))
    assert estimates.facts["pc_number"] == reference["pc_number"][0]
    assert distance(estimates.betas.T, reference["d.betas"], reference.brain) < SPREAD


def ridge_candidates(reference, session):
    """Yield voxels, and their betas [trials, v] by least squares and each fraction."""
    pairs = [model.remove_nuisance() for model in session.models]
    spectra = [np.linalg.eigh(gram) for gram, _ in pairs]
    fractions = (1.0, *glm.FRACTIONS)
    for group in session.read_groups(reference["hrf_index"]):
        hrf_spectra = [
            (values[group.hrf_index], vectors[group.hrf_index])
            for values, vectors in spectra
        ]
        products = group.solve([projection for _, projection in pairs])
        yield group.voxels, fractional_ridge(hrf_spectra, products, fractions)


@pytest.mark.golden
def test_fractions_are_judged_as_in_type_d(reference):
    """Golden value: badness of the betas of each fraction."""
    _, session = reference.denoised(is_ours=False)
    badness = np.empty((reference.voxels, len(glm.FRACTIONS)))

    for voxels, candidates in ridge_candidates(reference, session):
        badness[voxels] = score_repetitions(session, candidates)[1:].T

    brain = reference.brain
    np.testing.assert_allclose(
        badness[brain], reference["ridge_badness"][brain], rtol=1e-4
    )


@pytest.mark.golden
def test_shrunk_betas_are_rescaled_as_in_type_d(reference):
    """Golden values: slope and shift that fit shrunk betas to least squares."""
    _, session = reference.denoised(is_ours=False)
    shape = reference["d.betas"].T.shape
    rescaled, expected = np.empty(shape), np.empty(shape)

    for voxels, candidates in ridge_candidates(reference, session):
        slope, shift = reference["scale_offset"][voxels].T
        shrunk = np.empty_like(candidates[0])
        for column, fraction in enumerate(reference["fraction"][voxels]):
            number = int(np.abs(glm.FRACTIONS - fraction).argmin())
            shrunk[:, column] = candidates[1 + number][:, column]
        rescaled[:, voxels] = rescale_betas(shrunk, candidates[0])
        expected[:, voxels] = slope * shrunk + shift

    assert distance(rescaled.T, expected.T, reference.brain) < SPREAD


@pytest.mark.golden
def test_other_settings_of_types_c_and_d_give_their_betas(reference):
    session = reference.session("library", True)
    three_components = reference.add_components(session, 3)
    without_shrinkage = shrink(session)
    expected = {
        "no_denoise.d": without_shrinkage,
        "no_denoise.no_autoscale.d": shrink(session, is_rescaled=False),
        "fixed.c": fit(three_components),
        "fixed.d": shrink(three_components, 0.4),
    }
    for key, estimates in expected.items():
        betas = reference.options[f"expected.{key}.betas"]
        assert distance(estimates.betas.T, betas, reference.brain) < SPREAD, key
    fractions = reference.options["expected.no_denoise.fraction"]
    np.testing.assert_allclose(without_shrinkage.maps["fraction"], fractions, atol=1e-6)


@pytest.mark.golden
@both_designs
def test_the_assumed_hrf_alone_gives_its_betas(reference, is_ours):
    estimates = fit(reference.session("assumed", is_ours))
    assert (
        distance(
            estimates.betas.T,
            reference.options["expected.assumed_hrf.b.betas"],
            reference.brain,
        )
        < SPREAD
    )
    assert (
        np.abs(
            estimates.maps["r2"] - reference.options["expected.assumed_hrf.b.r2"]
        ).max()
        < R2_POINTS
    )


@pytest.mark.golden
def test_lss_with_fitted_hrfs_is_that_of_the_reference(
    reference,
):
    betas = fit(reference.session("library", True), compute_lss_weights).betas.T.astype(
        np.float64
    )
    ends = np.cumsum([len(finished_run.stimuli) for finished_run in reference.runs()])[
        :-1
    ]
    means = [bold.mean(1, dtype=np.float64)[:, None] for bold in reference.bold]
    parts = zip(np.split(betas, ends, 1), means, strict=True)
    by_run = np.concatenate(
        [component * reference["mean"][:, None] / mean for component, mean in parts], 1
    )
    assert (
        distance(by_run, reference.options["expected.lss.betas"], reference.brain)
        < SPREAD
    )


@pytest.mark.golden
def test_confounds_are_projected_out_with_and_without_components(
    reference,
):
    session = reference.session("library", True, has_extra=True)
    expected = reference.options["expected.extra.b.betas"]
    estimates = fit(session)
    assert np.array_equal(
        estimates.maps["hrf_index"], reference.options["expected.extra.hrf_index"]
    )
    assert distance(estimates.betas.T, expected, reference.brain) < SPREAD

    repetition = fit(reference.add_components(session, 0))
    fault = reference.options["fault.extra_lost_at_0_pcs.c.betas"]
    assert distance(repetition.betas.T, expected, reference.brain) < SPREAD
    assert distance(repetition.betas.T, fault, reference.brain) > 100 * SPREAD

    columns = find_noise_components(session, reference["noise_pool"].astype(bool))
    index = estimates.maps["hrf_index"].astype(np.int64)
    badness = score_components(session, columns, index)
    repetition = score_repetitions(session, [estimates.betas.astype(np.float64)])[0]
    np.testing.assert_allclose(badness[:, 0], repetition, rtol=1e-4)


@pytest.mark.golden
def test_denoised_betas_are_as_true_as_the_references(reference):
    responds = reference.tensors["truth.kind"] == 0
    truth = reference.tensors["truth.trial_betas"][responds]
    for estimator, key in (("hrf", "b.betas"), ("denoised", "d.betas")):
        estimates = estimate_trials(
            reference.runs(),
            reference.read,
            reference.voxels,
            estimator,
            reference.stimulus_s,
        )
        ours = correlation(estimates.betas.T[responds], truth)
        assert ours >= correlation(reference[key][responds], truth) - 0.005


# ---------------------------------------------------------------- nilearn


@pytest.fixture(scope="module")
def nilearn(golden):
    return load(golden, "nilearn")


def nilearn_runs(tensors, config, drift):
    """Return runs with nuisance columns of nilearn's design matrix as confounds."""
    runs = []
    for number in range(len(tensors["input.sessions"])):
        onsets_s = tensors[f"input.onsets_{number}"]
        nuisance = tensors[f"expected.design.{drift}_{number}"][:, len(onsets_s) :]
        times_s, stimuli = (
            tensors[f"input.{name}_{number}"] for name in ("frame_times", "conditions")
        )
        runs.append(
            TrialRun(
                times_s,
                onsets_s,
                stimuli,
                config["tr"],
                confounds=nuisance,
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
    drifts = [kind, "glover_polynomial3"] if kind == "glover" else [kind]
    for drift in drifts:
        for number, nilearn_run in enumerate(nilearn_runs(tensors, config, drift)):
            expected = tensors[f"expected.design.{drift}_{number}"]
            ours = build_canonical_design(nilearn_run, config["stimulus_s"], kind)
            np.testing.assert_allclose(
                ours, expected[:, : len(nilearn_run.onsets_s)], atol=NILEARN
            )
            if "polynomial" in drift:
                basis = build_polynomials(len(expected), 3)
                nuisance = expected[:, len(nilearn_run.onsets_s) :]
                np.testing.assert_allclose(
                    basis @ (basis.T @ nuisance), nuisance, atol=NILEARN
                )


def in_unit_of_data(
    tensors,
    number,
    trial_run,
    solve,
    **options,
):
    bold = tensors[f"input.bold_{number}"]
    designs = [build_canonical_design(trial_run, **options)[None]]
    estimates = fit(
        BoldSession([trial_run], lambda _, voxels: bold[voxels], len(bold), designs),
        solve,
    )
    return estimates.betas.T * bold.mean(1, dtype=np.float64)[:, None] / 100


@pytest.mark.golden
@pytest.mark.parametrize("kind", ["spm", "glover"])
def test_lsa_is_nilearns(nilearn, kind):
    tensors, config = nilearn
    for number, nilearn_run in enumerate(nilearn_runs(tensors, config, kind)):
        bold = tensors[f"input.bold_{number}"].astype(np.float64)
        regressors = build_canonical_design(nilearn_run, config["stimulus_s"], kind)
        betas = solve_run(regressors, nilearn_run, bold, compute_lsa_weights)
        assert distance(betas, tensors[f"expected.lsa.{kind}_{number}"]) < NILEARN
        options = {"stimulus_s": config["stimulus_s"], "kind": kind}
        # float32 at the end
        whole_in_unit = in_unit_of_data(
            tensors, number, nilearn_run, compute_lsa_weights, **options
        )
        assert distance(whole_in_unit, betas) < 1e-6


def solve_run(regressors, trial_run, bold, solve):
    model = glm.RunModel(trial_run, regressors[None])
    return (model.compute_weights(solve)[0] @ (model.regressors[0].T @ bold.T)).T


@pytest.mark.golden
def test_lsa_with_the_derivative_of_the_hrf_is_nilearns(nilearn):
    """nilearn makes derivatives orthogonal to HRFs. Here they are confounds."""
    tensors, config = nilearn
    for number, nilearn_run in enumerate(nilearn_runs(tensors, config, "spm")):
        regressors, later_regressors = (
            build_canonical_design(nilearn_run, config["stimulus_s"], "spm", shift)
            for shift in (0, 0.1)
        )
        derivatives = (regressors - later_regressors) / 0.1
        derivatives -= (
            regressors * (regressors * derivatives).sum(0) / (regressors**2).sum(0)
        )
        assert nilearn_run.confounds is not None
        nilearn_run = replace(
            nilearn_run, confounds=np.column_stack([nilearn_run.confounds, derivatives])
        )
        betas = solve_run(
            regressors,
            nilearn_run,
            tensors[f"input.bold_{number}"].astype(np.float64),
            compute_lsa_weights,
        )
        assert (
            distance(betas, tensors[f"expected.lsa.spm_derivative_{number}"]) < NILEARN
        )


@pytest.mark.golden
def test_lss_is_nilearns_with_one_regressor_for_the_others(nilearn):
    tensors, config = nilearn
    for number, nilearn_run in enumerate(nilearn_runs(tensors, config, "glover")):
        bold = tensors[f"input.bold_{number}"].astype(np.float64)
        regressors = build_canonical_design(nilearn_run, config["stimulus_s"], "glover")
        betas = solve_run(regressors, nilearn_run, bold, compute_lss_weights)
        assert (
            distance(betas, tensors[f"expected.lss_others.glover_{number}"]) < NILEARN
        )


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

    def __init__(self, seed=3, noise=0.6):
        random = np.random.default_rng(seed)
        voxels = RESPONSIVE + SILENT
        gain = np.r_[random.uniform(0.5, 2, RESPONSIVE), np.zeros(SILENT)]
        tuning = gain[:, None] * (1 + 0.8 * random.standard_normal((voxels, STIMULI)))
        load = random.standard_normal((voxels, 2))
        self.runs, self.bold, truth = [], [], []
        for number, tr_s in enumerate((1.5, 2.0, 1.5, 2.0)):
            permutation = random.permutation(STIMULI)
            onsets_s = 5 + np.cumsum(random.uniform(2.5, 4.5, STIMULI))
            times_s = np.arange(round((onsets_s[-1] + 16) / tr_s)) * tr_s + 0.9
            betas = tuning[:, permutation] + 0.2 * gain[
                :, None
            ] * random.standard_normal((voxels, STIMULI))
            change = betas @ respond(times_s[:, None] - onsets_s).T * 5
            change += random.standard_normal((voxels, 1)) * np.linspace(
                -1, 1, len(times_s)
            )
            change += 0.5 * noise * load @ random.standard_normal((2, len(times_s)))
            change += noise * random.standard_normal(change.shape)
            self.runs.append(
                TrialRun(times_s, onsets_s, permutation, tr_s, 1 + number // 2)
            )
            self.bold.append((800 * (1 + change / 100)).astype(np.float32))
            truth.append(betas)
        self.truth = np.concatenate(truth, 1)

    def read(self, number, voxels):
        return self.bold[number][voxels]

    def estimate(self, estimator, runs=None, **options):
        runs, voxels = runs or self.runs, len(self.bold[0])
        return estimate_trials(
            runs, self.read, voxels, estimator, STIMULUS_S, hrf="spm", **options
        )

    def score(self, estimator, runs=None):
        return correlation(
            self.estimate(estimator, runs).betas.T[:RESPONSIVE], self.truth[:RESPONSIVE]
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
    ratio = np.median(
        estimates.betas.T[:RESPONSIVE].mean(1) / world.truth[:RESPONSIVE].mean(1)
    )
    assert ratio == pytest.approx(peak, rel=0.1)
    assert "all runs" in estimates.facts["scaling"]


@pytest.mark.parametrize(("estimator", "value"), [("lsa", 0.0), ("denoised", np.inf)])
def test_a_voxel_without_signal_in_a_run_is_marked(estimator, value):
    world = World()
    expected = world.estimate(estimator)
    world.bold = [np.concatenate([bold[:1], bold]) for bold in world.bold]
    world.bold[1][0] = value
    if not np.isfinite(value):
        world.bold[1][0] = np.where(np.arange(world.bold[1].shape[1]) == 3, value, 500)
    estimates = world.estimate(estimator)
    assert estimates.facts["constant_voxels"] == 1 and list(
        np.flatnonzero(estimates.maps["is_constant"])
    ) == [0]
    assert not estimates.betas[:, 0].any() and all(
        np.isfinite(values).all() for values in estimates.maps.values()
    )
    np.testing.assert_allclose(
        estimates.betas[:, 1:], expected.betas, rtol=1e-3, atol=1e-5
    )


@pytest.mark.parametrize("estimator", ["lsa", "hrf"])
def test_a_trial_outside_its_run_is_0_and_leaves_others_alone(world, estimator):
    finished_run = world.runs[1]
    onsets_s = np.r_[-60.0, finished_run.onsets_s, 500.0]
    longer = replace(
        finished_run, onsets_s=onsets_s, stimuli=np.r_[0, finished_run.stimuli, 0]
    )
    betas = world.estimate(estimator, [world.runs[0], longer, *world.runs[2:]]).betas
    outside_trials = [STIMULI, 2 * STIMULI + 1]
    assert not betas[outside_trials].any()
    np.testing.assert_allclose(
        np.delete(betas, outside_trials, 0), world.estimate(estimator).betas, atol=1e-4
    )


def test_more_regressors_than_volumes_are_refused(world):
    volumes = len(world.runs[0].frame_times_s)
    long_run = replace(
        world.runs[0],
        confounds=np.random.default_rng(0).standard_normal((volumes, volumes - 10)),
    )
    with pytest.raises(
        BrainhiveError,
        match=rf"run 0 .*\b{STIMULI} trials.*\b{volumes} volumes",
    ):
        world.estimate("lsa", [long_run, *world.runs[1:]])


def test_series_whose_mean_was_removed_are_refused():
    world = World()
    world.bold = [bold - bold.mean(1, keepdims=True) for bold in world.bold]
    with pytest.raises(BrainhiveError, match="standard deviation"):
        world.estimate("lsa")


@pytest.mark.parametrize(("signals", "is_refused"), [(4, True), (5, False)])
def test_more_than_half_of_the_voxels_have_a_mean(signals, is_refused):
    """Constant voxels do not count, and a mean above the noise is enough."""
    random = np.random.default_rng(0)
    trial_run = TrialRun(
        np.arange(80) * 2.0, 5 + 6.0 * np.arange(20), np.arange(20), 2.0
    )
    series = (
        random.standard_normal((9, 80))
        + np.repeat([1.5, 0], [signals, 9 - signals])[:, None]
    )
    series[8] = 3

    def estimate():
        return estimate_trials(
            [trial_run], lambda _, part_rows: series[part_rows], 9, "lsa", 1.0
        )

    if is_refused:
        with pytest.raises(BrainhiveError):
            estimate()
    else:
        assert np.flatnonzero(estimate().maps["is_constant"]).tolist() == [8]
