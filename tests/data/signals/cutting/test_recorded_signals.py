"""Steps of signals on random recordings of uneven designs, compared with recorded
numbers.
"""

from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
import torch

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.data.fmri.glm import (
    BoldSession,
    TrialRun,
    add_noise_components,
    build_design,
    build_drift_basis,
    choose_noise_pool,
    choose_polynomial_degree,
    estimate_trials,
    fractional_ridge,
    rescale_betas,
    sample_canonical_hrf,
    survey_voxels,
)
from brainhive_cli.data.signals import (
    Augment,
    CausalFilter,
    Cutting,
    Sensors,
    Signal,
    Steps,
    Voxels,
    Windows,
    compute_whitener,
    cutting,
    draw_repetitions,
    find_channel_rows,
    list_regions,
    list_window_starts,
    look_up_positions,
    map_channels,
    mark_window,
    measure_noise,
    mix_repetitions,
    normalisations,
    pool_statistics,
    require_noise_splits,
    selection,
    standardise_name,
    standardise_names,
    whiten_session,
)
from brainhive_cli.data.signals.augmentations import Smooth, average_weighted
from brainhive_cli.data.signals.channel_mapping import fit_head_centre
from brainhive_cli.data.signals.cutting import Resampling, estimate_covariance
from brainhive_cli.data.signals.normalisations import (
    Channel,
    Euclidean,
    Riemannian,
    Template,
    Whiten,
    average_products,
    join_samples,
)
from brainhive_cli.data.signals.selection import find_stream_masks
from brainhive_cli.data.signals.spaces import find_channel_region, find_sample_range
from tests.worlds.array_trials import make_trials

CAP = ("Fp1", "Fz", "C3", "Cz", "P7", "Oz")


def draw(*shape, seed=0):
    """Draw numbers that are correlated in time."""
    random = np.random.default_rng(seed)
    return np.cumsum(random.normal(size=shape), -1) * 0.3 + random.normal(size=shape)


CUTTINGS = {
    "defaults at 1000 Hz": ({}, 1000),
    "defaults at 512 Hz": ({}, 512),
    "slower than asked for": ({"rate_hz": 250}, 200),
    "odd": (
        {"epoch_ms": (-101, 403), "keep_ms": (-33, 301), "rate_hz": 97},
        333,
    ),
    "no baseline": (
        {"epoch_ms": (100, 900), "keep_ms": (150, 850), "rate_hz": 60}
        | {"baseline": False, "whiten": "no"},
        300,
    ),
    "as recorded": ({"rate_hz": 300, "keep_ms": (0, 90)}, 300),
    "a sample": ({"keep_ms": (0, 4), "whiten": "time"}, 300),
}
"""Steps of the recipe, and the rate of the recording."""


@pytest.mark.parametrize("name", CUTTINGS)
def test_cutting(recorded, name):
    keys, rate_hz = CUTTINGS[name]
    created_cutting = Cutting(Steps(**keys), rate_hz)
    samples = draw(3, 4 * rate_hz) + np.array([[1000], [0], [-20]])
    onsets = np.array([rate_hz // 2, rate_hz, 2 * rate_hz + 7, 3 * rate_hz - 1])
    start, stop = created_cutting.span
    edges = np.array([-start - 1, -start, 4 * rate_hz - stop - 1, 4 * rate_hz - stop])
    samples[:, onsets[2] + start] = np.nan
    epochs = created_cutting.cut_trials(
        samples, ("a", "b", "c"), onsets, 2.0, may_be_lost=True
    )
    recorded(
        digits=5,
        span=created_cutting.span,
        rate_hz=created_cutting.rate_hz,
        time_shift=created_cutting.resampling.time_shift,
        inside=[
            created_cutting.resampling.inside.start,
            created_cutting.resampling.inside.stop,
        ],
        times_s=created_cutting.times_s,
        fits=created_cutting.are_complete(edges, 4 * rate_hz),
        lost=np.isnan(epochs).all((1, 2)),
        epochs=list(epochs),
        first=epochs[:, :, 0].ravel()[:12],
    )


@pytest.mark.parametrize(
    ("samples", "rate_hz", "to_hz"),
    [(301, 300, 100), (64, 128, 96), (7, 100, 99), (900, 1000, 30), (5, 10, 1)],
)
def test_resampling(recorded, samples, rate_hz, to_hz):
    resampling = Resampling(samples, rate_hz, to_hz)
    epochs = draw(3, samples)
    recorded(
        inside=[resampling.inside.start, resampling.inside.stop],
        shift=resampling.time_shift,
        resampled=resampling(epochs),
        first=resampling(epochs)[:, :2],
    )


def test_filters(recorded):
    samples = draw(2, 300).T + 50
    bands = ((1.0, None), (None, 30.0), (0.5, 40.0))
    filters = [CausalFilter(band, 100) for band in bands]
    recorded(
        digits=6,
        filtered=[
            np.concatenate(
                [
                    signal_filter(samples[:70]),
                    signal_filter(samples[:0]),
                    signal_filter(samples[70:]),
                ]
            )
            for signal_filter in filters
        ],
        last=[CausalFilter(band, 100)(samples)[-2:] for band in bands],
    )


def test_whitening(recorded):
    random = np.random.default_rng(0)
    mixing = np.eye(5) + 0.4 * random.normal(size=(5, 5))
    epochs = {
        split: (mixing @ draw(count, 5, 9, seed=count)).astype(np.float32)
        for split, count in (("train", 23), ("test", 8))
    }
    stimuli = {
        "train": random.permutation(
            list([0] * 9) + list([1] * 5) + list([2] * 5) + list([3] * 3) + [4]
        ),
        "test": np.array([7, 7, 7, 8, 8, 9, 9, 9]),
    }
    rows = {}
    for across in ("epochs", "time"):
        for whiten_by in ("training", "both"):
            steps = Steps(whiten=across, whiten_by=whiten_by)
            whitened = {split: signal.copy() for split, signal in epochs.items()}
            rows[f"{across}, {whiten_by}"] = {
                "measured": require_noise_splits(epochs, steps) == ["train", "test"],
                "noise": measure_noise(epochs, stimuli, steps, CAP),
                "matrix": whiten_session(whitened, stimuli, steps, CAP),
                "whitened": list(whitened.values()),
            }
    few_test = epochs["test"][:4, :, :3]
    exact = np.float64(few_test)
    one_constant = epochs["train"] * np.array([1, 1, 0, 1, 1])[:, None]
    recorded(
        digits=4,
        rows=rows,
        few=estimate_covariance(few_test, np.arange(4), "epochs"),
        few_exactly=estimate_covariance(exact, np.array([1, 1, 0, 0]), "time"),
        one_constant=estimate_covariance(one_constant, stimuli["train"], "epochs"),
        root=compute_whitener(mixing @ mixing.T, CAP),
    )


@pytest.mark.parametrize("ratio", [1e-4, 5e-10, 1e-12, 1e-17])
def test_flat_channels(recorded, ratio):
    variances = np.array([1.0, 0.3, ratio])
    try:
        cutting.refuse_flat_channels(variances, CAP[:3])
        numbers = "not refused"
    except BrainhiveError as error:
        numbers = f"{error.message.startswith('flat'):d} {error.message}"
    recorded(numbers=numbers)


NORMALISATIONS = {
    "channel": Channel(),
    "whiten": Whiten(),
    "template": Template(),
    "euclidean": Euclidean(),
    "euclidean, shrunk": Euclidean(shrinkage=0.3),
    "riemannian": Riemannian(),
    "riemannian, shrunk": Riemannian(shrinkage=0.3),
    "log-euclidean": Riemannian(mean="log-euclidean"),
}


@pytest.mark.parametrize("name", NORMALISATIONS)
def test_normalisations(recorded, name, monkeypatch):
    config = NORMALISATIONS[name]
    # of five channels, room for 12 products
    monkeypatch.setattr(normalisations, "MAX_BYTES", 12 * 8 * 25)
    size = 10.0 ** np.random.default_rng(3).normal(0, 0.4, (30, 1, 1))
    signal = (draw(30, 5, 9) * size + 0.7).astype(np.float32)
    signal[:, 4] = signal[:, 0] - signal[:, 1]
    other_signal = (signal[:7, ::-1] * 2).astype(np.float32)
    statistics = config.measure([signal[:11], signal[11:12], signal[12:]])
    pooled = pool_statistics([statistics, config.measure([other_signal])])
    normaliser = config.build(statistics)
    normalised = normaliser(signal[:4])
    recorded(
        digits=3,
        statistics=statistics,
        mean=normaliser.mean,
        matrix=normaliser.matrix,
        normalised=normalised,
        first=normalised[0, :, 0],
        pooled=config.build(pooled)(signal[:4])[0],
    )


def test_means_of_products(recorded):
    signal = draw(9, 4, 6)
    signal[3] *= 30
    signal[5] = 0
    products = signal @ signal.transpose(0, 2, 1)
    few_samples = signal[:, :, :2] @ signal[:, :, :2].transpose(0, 2, 1)
    recorded(
        digits=5,
        means=[
            average_products(values, is_affine)
            for values in (products, few_samples, products[:1])
            for is_affine in (True, False)
        ],
        flat=join_samples(signal.astype(np.float32)),
    )


def test_augmentations(recorded):
    random = torch.Generator().manual_seed(0)
    signal = torch.randn(40, 4, 3, 8, generator=random)
    count = torch.arange(40) % 4 + 1
    signal[torch.arange(4) >= count[:, None]] = torch.nan
    augments = {
        "none": Augment(),
        "random": Augment(repetitions=1.0),
        "nearly equal": Augment(repetitions=50.0),
        "some equal": Augment(repetitions=1.0, repetitions_equal=0.3),
        "some alone": Augment(repetitions=1.0, repetitions_one=0.4),
        "both": Augment(repetitions=0.5, repetitions_equal=0.3, repetitions_one=0.4),
    }
    mixed = {}
    for name, augment in augments.items():
        random.manual_seed(1)
        mixed[name] = mix_repetitions(signal, count, augment, random)
    shuffled = {}
    for value in (1, 3, 7):
        random.manual_seed(2)
        chosen_trials, counts = draw_repetitions(signal, count, value, random)
        shuffled[value] = [chosen_trials.nan_to_num(9), counts]
    smooth = Smooth(p=0.4)
    plain_signal = signal[:, 0]
    offsets = smooth.draw((40, 3, 8), random)
    recorded(
        digits=5,
        mixed=mixed,
        shuffled=shuffled,
        drawn=offsets,
        smoothed=smooth.apply(plain_signal, offsets),
        short=smooth.apply(plain_signal[:, :, :2], offsets),
        weighted=average_weighted(
            plain_signal[:6].reshape(2, 3, 3, 8), torch.tensor([[1, 2, 3.0]])
        ),
    )


@pytest.mark.parametrize("kind", ["spline", "common"])
def test_channel_mappings(recorded, kind):
    names = ("C3", "C4", "oz", "O1", "Fz", "FCz")
    positions = look_up_positions(CAP)
    zeroed = positions.copy()
    zeroed[1] = 0
    signal = draw(2, 6, 3).astype(np.float32)
    mean = draw(6, 1, seed=2).astype(np.float32)
    rows = {}
    for label, positions_known in (
        ("by name", None),
        ("of files", positions),
        ("zero", zeroed),
    ):
        mapping = map_channels(kind, names, None, Sensors(CAP, positions_known), "it")
        loaded_signal = signal[:, [CAP.index(name) for name in mapping.sources]]
        rows[label] = {
            "matrix": mapping.matrix,
            "shared": mapping.shared,
            "sources": [CAP.index(name) for name in mapping.sources],
            "words": mapping.description,
            "mapped": mapping(loaded_signal),
            "filled": mapping(loaded_signal, mean),
        }
    sphere = positions - fit_head_centre(positions)
    recorded(
        digits=5,
        rows=rows,
        origin=fit_head_centre(positions),
        length=(sphere**2).sum(1),
    )


def test_windows_of_a_stream(recorded):
    steps = Steps(epoch_ms=(-100, 300), keep_ms=(-50, 250), rate_hz=50, whiten="no")
    samples = draw(2, 3000).T + 20
    times_s = 7 + np.arange(3000) / 100.5
    times_s[1200:] += 0.31
    times_s[2000:] += 0.02
    events = [
        (str(number), 7 + 0.61 * number + number**2 / 900) for number in range(45)
    ]
    rows = {}
    for band in ((None, None), (0.5, 30.0)):
        windows = Windows(Cutting(steps, 100), ("a", "b"), band)
        windows.add_event("early", 6.98)
        found = [windows.locate_events()]
        windows_cut = []
        for number, start in enumerate(range(0, 3000, 170)):
            gaps = windows.add_samples(
                samples[start : start + 170], times_s[start : start + 170]
            )
            windows.add_samples(samples[:0], times_s[:0])
            for name, time_s in events[number * 3 : number * 3 + 3]:
                windows.add_event(name, time_s)
            if number % 4 < 3:
                found.append([gaps] + [row for _, row in windows.locate_events()])
                windows_cut += windows.cut_windows()
        windows.add_event("late", times_s[-1] + 0.004)
        windows.add_event("too old", 8.0)
        windows.locate_events()
        windows_cut += windows.cut_windows()
        windows.drop_waiting()
        rows[str(band)] = {
            "found": found,
            "samples": [window.sample for window in windows_cut],
            "end_s": [window.end_s for window in windows_cut],
            "signals": np.stack([window.signal for window in windows_cut]),
            "counts": vars(windows.counts)
            | {"dropped": list(windows.counts.dropped.values())},
            "next": windows.next_sample,
        }
    recorded(digits=6, rows=rows)


def region_space():
    """Make voxels of overlapping regions, and some of none."""
    rows = np.arange(12)
    regions = {"V1": rows < 4, "V2": (rows > 2) & (rows < 7), "all": rows < 10}
    return Voxels({**regions, "V1-ventral": rows == 1, "empty": rows < 0})


@pytest.mark.parametrize("control", ["none", "swapped", "random", "all"])
def test_region_splits(recorded, control):
    sets = {"early": "V1 - V1-ventral", "v2": "V2", "rest": "all - (early | V2)"}
    sets["both"] = "V1 & V2 | V1-ventral"
    stream_masks = find_stream_masks(sets, region_space(), control)
    recorded(
        masks={name: np.flatnonzero(mask) for name, mask in stream_masks.items()},
        regions=[len(list_regions(text)) for text in sets.values()],
        voxels=[len(mask) for mask in stream_masks.values()],
    )


def test_selection(recorded):
    names = ("Fp1", "AF3", "FC5", "Cz", "T7", "TP9", "P3", "POz", "O2", "Iz", "HEOG")
    signal = draw(5, 3, 11, 20) + 2
    counts = np.array([3, 1, 2, 3, 2])
    trials = make_trials(1, signal, range(5), names, counts=counts)
    trials = replace(trials, times_s=np.arange(20) / 250 - 0.02)
    signals = {
        "all": Signal(),
        "occipital": Signal(channels=["occipital", "Cz", "O2"], scale=0.5),
        "a window": Signal(window_ms=(-10, 31), normalise_trials=True),
    }
    rows = {}
    for name, section in signals.items():
        selected_section = section.select(trials, None, "it")
        rows[name] = [
            selected_section.averages,
            selected_section.as_repetitions(),
            selected_section.times_s,
            selected_section.rows,
        ]
    by_default = Signal().select(trials, ["frontal", "P3"], "it")
    cortex = make_trials(1, draw(4, 12, 1), range(4), regions={"V1": [2, 5], "V2": [5]})
    split = Signal(region_split={"first": "V1", "second": "V2"})
    times_ms = np.arange(-20, 61, 4.0)
    recorded(
        digits=5,
        rows=rows,
        by_default=[by_default.rows, by_default.averages],
        split=[split.select(cortex, None, "it").regions],
        rows_of_names=find_channel_rows(names, ["heog", "central", "CZ"]),
        regions=[(find_channel_region(name) or "none 0") + "1" for name in names],
        known=[find_channel_region(name) is not None for name in names],
        starts=[
            list_window_starts(times_ms, *size) for size in ((20, 7), (84, 4), (8, 19))
        ],
        inside=[mark_window(times_ms, *size) for size in ((0, 12), (-20, 4), (1, 100))],
        ranges=[
            [sample_range.start, sample_range.stop]
            for sample_range in (
                find_sample_range(times_ms / 1000, window)
                for window in (None, (-20, 0), (-23.9, 67.9), (1, 4.1))
            )
        ],
        masks=[
            mask.ravel()
            for mask in selection.make_region_masks({"a": [0, 3], "b": []}, 5).values()
        ],
    )


def test_names_and_positions_of_electrodes(recorded):
    names = ("EEG Fp1-REF", "fc5.", "T3", "T5", "Oz", "A1", "Iz", "X9")
    written_standardise_names = [standardise_name(name) for name in names]
    inputs = look_up_positions(("A1", "A2", "C3"))
    assert written_standardise_names == [
        "Fp1",
        "FC5",
        "T7",
        "P7",
        "Oz",
        "A1",
        "Iz",
        "X9",
    ]
    assert standardise_names(["T3", "T7", "fz"]) == ["T3", "T7", "Fz"]
    assert (
        np.isnan(look_up_positions(("A3", "C3"))).all() and not np.isnan(inputs).any()
    )
    recorded(digits=5, positions=look_up_positions(names), inputs=inputs)


def bold_runs(has_extra):
    """Simulate runs of two repetition times with 30 voxels that respond to stimuli.

    Voxels share a part of their noise.
    """
    random = np.random.default_rng(5)
    tuning = random.normal(3, 2, (30, 5)) * (np.arange(30) < 18)[:, None]
    runs, bold = [], []
    for number, (tr_s, volumes) in enumerate(((1.5, 70), (2.0, 61), (1.5, 80))):
        onsets_s = 3 + np.cumsum(random.uniform(4, 9, 12))[: 9 + number]
        stimuli = random.permutation([0, 0, 1, 2, 3, 4, 1, 2, 3, 4, 0])[: 9 + number]
        times_s = np.arange(volumes) * tr_s + 0.3 * number
        confounds = random.normal(size=(volumes, 2)).cumsum(0) if has_extra else None
        trial_run = TrialRun(
            times_s, onsets_s, stimuli, tr_s, 1 + number // 2, confounds
        )
        response = build_design(trial_run, 2.0, "library")[7] @ tuning[:, stimuli].T
        shared = random.normal(size=(volumes, 2)) @ random.normal(size=(2, 30)) * 2
        noise = random.normal(size=(volumes, 30)) * 1.5
        trend = np.linspace(-3, 3, volumes)[:, None] ** 2
        mean = 100 + 20 * np.arange(30)
        bold.append((mean + response + shared + noise + trend).T.astype(np.float32))
        if has_extra:
            trial_run = replace(trial_run, has_drift=number > 0)
        runs.append(trial_run)
    bold[1][25] = 7
    bold[2][26, 3] = np.nan
    return runs, bold


@pytest.mark.parametrize("has_extra", [False, True])
@pytest.mark.parametrize("estimator", ["lsa", "lss", "hrf", "denoised"])
def test_single_trials(recorded, estimator, has_extra):
    runs, bold = bold_runs(has_extra)
    trials = estimate_trials(
        runs,
        lambda run_index, voxels: bold[run_index][voxels],
        30,
        estimator,
        2.0,
        hrf="spm" if has_extra else "glover",
        block_size=11,
    )
    if estimator in ("lsa", "lss"):
        # responses to short stimuli are small
        brief = estimate_trials(
            runs, lambda run_index, voxels: bold[run_index][voxels], 30, estimator, 0.2
        )
        trials.facts["brief"] = brief.betas
    recorded(
        digits=4,
        betas=list(trials.betas),
        voxels=[values.astype(np.float64) for values in trials.betas.T[[0, 20, 25]]],
        maps=trials.maps,
        facts={
            name: value for name, value in trials.facts.items() if name != "scaling"
        },
    )


def test_steps_of_single_trials(recorded):
    runs, bold = bold_runs(True)
    designs = [build_design(finished_run, 0.5, "library") for finished_run in runs]
    session = BoldSession(
        runs, lambda finished_run, voxels: bold[finished_run][voxels], 30, designs, 7
    )
    mean, tsnr, squares, r2 = survey_voxels(session)
    pool = choose_noise_pool(mean, r2.max(1), 40.0) & np.isfinite(squares)
    trend, denoised = add_noise_components(session, r2.argmax(1), pool, r2.max(1) > 30)
    spectra = [
        np.linalg.eigh(model.remove_nuisance()[0][3]) for model in session.models
    ]
    products = draw(sum(len(finished_run.stimuli) for finished_run in runs), 4)
    shrunk = fractional_ridge(spectra, products, (1.0, 0.6, 0.05))
    recorded(
        digits=4,
        survey=[mean, tsnr, np.nan_to_num(squares, posinf=-1), r2],
        best=r2.argmax(1),
        pool=np.flatnonzero(pool),
        trend=trend,
        components=[values.shape[1] for values in denoised.components or []],
        shrunk=shrunk,
        rescaled=[rescale_betas(betas, shrunk[0]) for betas in (shrunk[1], -shrunk[1])],
        repetitions=session.repetitions.toarray(),
        degrees=[
            choose_polynomial_degree(minutes) for minutes in (0.9, 1, 2.9, 3, 5.2)
        ],
        drifts=[build_drift_basis(finished_run) for finished_run in runs],
        designs=[
            build_design(finished_run, stimulus_s, name)
            for finished_run in runs
            for stimulus_s in (0.0, 3.0)
            for name in ("glover", "spm", "assumed", "library")
        ],
        hrfs=[
            sample_canonical_hrf(*betas)
            for betas in (("spm", 2.0), ("glover", 1.1, 0.7))
        ],
        means=[
            ([voxels.start, voxels.stop] + list(chain(means.sum(1), powers.sum(1))))
            for voxels, means, powers, _ in session.read_blocks()
        ],
    )
