"""The shared ridge is scikit-learn's on all subjects, and continues from the map of
another model.
"""

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.models import backbones
from brainhive_cli.models.backbones import shared_ridge
from brainhive_cli.models.backbones.shared_ridge import Config, SharedRidge
from brainhive_cli.models.heads import Head
from brainhive_cli.models.signal_spec import SignalSpec

HEADS = {"latent": Head((2, 2)), "text": Head((3,))}
CHANNELS, SAMPLES, ALPHA = 4, 5, 7.0
FEW, MANY = (8, 6), (30, 25)
"""Signals of two subjects: fewer than the 20 features, or more."""
Drawn = list[tuple[Tensor, dict[str, Tensor]]]


def drawn(counts: tuple[int, ...]) -> Drawn:
    """Signals [N, C, T] and targets of each subject, neither of mean 0."""
    random = torch.Generator().manual_seed(sum(counts))
    mixing = torch.randn(CHANNELS * SAMPLES, 7, generator=random)
    subjects = []
    for count in counts:
        signal = torch.randn(count, CHANNELS, SAMPLES, generator=random) + 2
        values = (
            signal.flatten(1) @ mixing + 3 * torch.randn(count, 7, generator=random) + 5
        )
        subjects.append(
            (
                signal,
                {"latent": values[:, :4].unflatten(1, (2, 2)), "text": values[:, 4:]},
            )
        )
    return subjects


def stacked(subjects: Drawn) -> tuple[np.ndarray, np.ndarray]:
    """Features [N, F] and outputs [N, 7] of all subjects."""
    features = torch.cat([signal.flatten(1) for signal, _ in subjects])
    values = [
        torch.cat([target.flatten(1) for target in targets.values()], 1)
        for _, targets in subjects
    ]
    return features.double().numpy(), torch.cat(values).double().numpy()


def built(**knobs: Any) -> SharedRidge:
    spec = SignalSpec(tuple("ABCD"), SAMPLES, (1, 4), (CHANNELS, CHANNELS))
    return backbones.build(Config(**{"alpha": ALPHA, **knobs}), spec, HEADS)


def fitted(model: SharedRidge, subjects: Drawn) -> SharedRidge:
    for number, (signal, targets) in enumerate(subjects):
        # a function of its own for each subject
        def gather(
            rows: slice, targets: dict[str, Tensor] = targets
        ) -> dict[str, Tensor]:
            return {name: target[rows] for name, target in targets.items()}

        model.fit(number, signal, gather, signal[:0])
    model.solve()
    return model.eval()


def predicted(model: SharedRidge, signal: Tensor) -> np.ndarray:
    return (
        torch.cat([value.flatten(1) for value in model(signal).values()], 1)
        .double()
        .numpy()
    )


CASES = [(FEW, True, 27 * 3), (MANY, False, 1 << 26), (MANY, True, 27 * 3)]
"""Counts, whether there is an intercept, and numbers at once: all rows in one block, or
three.
"""


def test_it_is_scikit_learns_on_all_signals_whether_these_or_features_are_more(
    monkeypatch: pytest.MonkeyPatch,
):
    linear_model = pytest.importorskip("sklearn.linear_model")
    new, _ = drawn((9,))[0]
    for counts, intercept, numbers in CASES:
        monkeypatch.setattr(shared_ridge, "MAX_TARGET_NUMBERS", numbers)
        subjects = drawn(counts)

        model = fitted(built(intercept=intercept), subjects)

        reference = linear_model.Ridge(alpha=ALPHA, fit_intercept=intercept).fit(
            *stacked(subjects)
        )
        expected = reference.predict(new.flatten(1).double().numpy())
        # sums of 20 products in float32
        assert np.abs(predicted(model, new) - expected).max() < 1e-4
        shapes = {name: value.shape for name, value in model(new).items()}
        assert shapes == {"latent": (9, 2, 2), "text": (9, 3)}
        np.testing.assert_allclose(model.weight.T, reference.coef_, atol=1e-6)


def test_subjects_with_other_sensors_are_refused():
    spec = SignalSpec((), 1, (1, 4), (40, 15))

    with pytest.raises(
        BrainhiveError, match="subjects have different widths: 40, 15"
    ) as caught:
        backbones.build(Config(), spec, HEADS)
    assert caught.value.hint


def test_it_is_the_reference_ridge_of_calibration_from_zero_and_from_the_shared_map(
    golden: Path,
):
    """cohort.py states its penalty, and draws signals of several subjects who saw the
    same pictures.
    """
    cohort = runpy.run_path(str(golden / "calibrate" / "cohort.py"))
    settings = json.loads((golden / "calibrate" / "cohort.json").read_text())
    # the first is 0
    data, count = cohort["cohort"](settings["seed"], 1), settings["sizes"][1]

    # signals and features of the sources, and of so many pictures of a new subject
    sources = [cohort["whitener"](signal) @ signal for signal in data["sources"]]
    features = data["pictures"]["train"]
    new = (cohort["whitener"](data["pool"][0]) @ data["pool"][0])[:count]
    target = data["pictures"]["pool"][:count]
    shared = cohort["ridge"](
        np.concatenate(sources), np.tile(features, (len(sources), 1))
    )

    def fresh() -> SharedRidge:
        config = Config(alpha=cohort["PENALTY"], intercept=False)
        return SharedRidge(config, new[0].size, {"token": Head((target.shape[1],))})

    def subject(
        signal: np.ndarray, values: np.ndarray
    ) -> tuple[Tensor, dict[str, Tensor]]:
        return torch.from_numpy(signal), {"token": torch.from_numpy(values)}

    model = fitted(fresh(), [subject(signal, features) for signal in sources])
    np.testing.assert_allclose(model.weight, shared, rtol=0, atol=1e-6)

    fitted(model, [subject(new, target)])
    np.testing.assert_allclose(
        model.weight, cohort["ridge"](new, target, shared), rtol=0, atol=1e-6
    )
    scratch = fitted(fresh(), [subject(new, target)])
    np.testing.assert_allclose(
        scratch.weight, cohort["ridge"](new, target), rtol=0, atol=1e-6
    )
