"""Steps of signals on random recordings of uneven designs, compared with recorded
numbers.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from brainhive_cli.data.fmri.glm import (
    TrialRun,
    build_design,
    estimate_trials,
)
from brainhive_cli.data.signals import (
    Augment,
    Cutting,
    Steps,
    Windows,
    draw_repetitions,
    mix_repetitions,
    normalisations,
    pool_statistics,
)
from brainhive_cli.data.signals.augmentations import Smooth
from brainhive_cli.data.signals.normalisations import (
    Euclidean,
    Riemannian,
    Whiten,
    average_products,
)


def draw(*shape, seed=0):
    """Draw numbers that are correlated in time."""
    random = np.random.default_rng(seed)
    return np.cumsum(random.normal(size=shape), -1) * 0.3 + random.normal(size=shape)


CUTTINGS = {
    "defaults at 512 Hz": ({}, 512),
    "odd": (
        {"epoch_ms": (-101, 403), "keep_ms": (-33, 301), "rate_hz": 97},
        333,
    ),
    "no baseline": (
        {"epoch_ms": (100, 900), "keep_ms": (150, 850), "rate_hz": 60}
        | {"baseline": False, "whiten": "no"},
        300,
    ),
}
"""Steps of the recipe, and the rate of the recording."""


@pytest.mark.parametrize("name", CUTTINGS)
def test_cutting(recorded, name):
    keys, rate_hz = CUTTINGS[name]
    cut = Cutting(Steps(**keys), rate_hz)
    samples = draw(3, 4 * rate_hz) + np.array([[1000], [0], [-20]])
    onsets = np.array([rate_hz // 2, rate_hz, 2 * rate_hz + 7, 3 * rate_hz - 1])
    # trials around this sample are lost
    samples[:, onsets[2] + cut.span[0]] = np.nan

    epochs = cut.cut_trials(samples, ("a", "b", "c"), onsets, 2.0, may_be_lost=True)

    recorded(
        digits=5,
        span=cut.span,
        times_s=cut.times_s,
        lost=np.isnan(epochs).all((1, 2)),
        epochs=epochs,
    )


NORMALISATIONS = {
    "whiten": Whiten(),
    "euclidean, shrunk": Euclidean(shrinkage=0.3),
    "riemannian": Riemannian(),
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
    recorded(
        digits=3,
        matrix=normaliser.matrix,
        normalised=normaliser(signal[:4]),
        pooled=config.build(pooled)(signal[:4])[0],
    )


def test_means_of_trials_with_fewer_samples_than_channels(recorded):
    signal = draw(9, 4, 2)
    products = signal @ signal.transpose(0, 2, 1)
    recorded(
        digits=5,
        affine_invariant=average_products(products, True),
        log_euclidean=average_products(products, False),
    )


def test_augmentations(recorded):
    random = torch.Generator().manual_seed(0)
    signal = torch.randn(40, 4, 3, 8, generator=random)
    count = torch.arange(40) % 4 + 1
    signal[torch.arange(4) >= count[:, None]] = torch.nan
    augment = Augment(repetitions=0.5, repetitions_equal=0.3, repetitions_one=0.4)
    random.manual_seed(1)
    mixed = mix_repetitions(signal, count, augment, random)
    drawn_repetitions, counts = draw_repetitions(signal, count, 3, random)
    smooth = Smooth(p=0.4)
    widths = smooth.draw((40, 3, 8), random)
    recorded(
        digits=5,
        mixed=mixed,
        repetitions=drawn_repetitions.nan_to_num(9),
        counts=counts,
        smoothed=smooth.apply(signal[:, 0], widths),
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
    windows = Windows(Cutting(steps, 100), ("a", "b"), (0.5, 30.0))
    windows.add_event("early", 6.98)
    windows_cut = []
    for number, start in enumerate(range(0, 3000, 170)):
        chunk = slice(start, start + 170)
        windows.add_samples(samples[chunk], times_s[chunk])
        for name, time_s in events[number * 3 : number * 3 + 3]:
            windows.add_event(name, time_s)
        # windows of every fourth chunk are cut with those of the next chunk
        if number % 4 < 3:
            windows.locate_events()
            windows_cut += windows.cut_windows()
    windows.add_event("late", times_s[-1] + 0.004)
    windows.add_event("too old", 8.0)
    windows.locate_events()
    windows_cut += windows.cut_windows()
    windows.drop_waiting()
    recorded(
        digits=6,
        samples=[window.sample for window in windows_cut],
        end_s=[window.end_s for window in windows_cut],
        signals=np.stack([window.signal for window in windows_cut]),
        counts=windows.counts,
    )


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


@pytest.mark.parametrize(
    ("estimator", "has_extra"),
    [("lsa", False), ("lss", True), ("hrf", True), ("denoised", True)],
)
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
    recorded(
        digits=4,
        betas=trials.betas,
        maps=trials.maps,
        facts={
            name: value for name, value in trials.facts.items() if name != "scaling"
        },
    )
