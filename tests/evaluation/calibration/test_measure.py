"""Tests that arms which no model allows are refused before the first draw."""

from types import SimpleNamespace

import numpy as np
import pytest

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.evaluation.calibration import measure
from brainhive_cli.evaluation.calibration.measure import require_arms
from brainhive_cli.evaluation.calibration.recipe import Recipe
from tests.worlds.array_trials import make_trials

TRIALS = make_trials(1, np.zeros((2, 1, 3, 4), np.float32), [0, 1])


class Base:
    """Model that decodes no new person, and cannot be aligned or trained further."""

    def __init__(self, *parts):
        self.zero_shot = self

    def encode(self, signal):
        raise BrainhiveError("voxels of others", "finetune")

    def require_arm(self, arm, trials):
        raise BrainhiveError(f"no {arm}", "others")

    def require_alignment(self, config, trials):
        raise BrainhiveError(f"no {config.kind}", "others")


@pytest.fixture
def job(monkeypatch):
    """Factory of jobs of a model and a person, with the arms of a recipe."""
    model = SimpleNamespace(module=None)
    monkeypatch.setattr(measure, "SourceModel", Base)
    monkeypatch.setattr(measure, "PersonModel", lambda model: Base())

    def make(*keys):
        recipe = Recipe.resolve("calibrate", None, {}, keys)
        return SimpleNamespace(
            recipe=recipe,
            cells=[SimpleNamespace(tested_on=(1,))],
            people={1: SimpleNamespace(trials=TRIALS)},
            align=SimpleNamespace(open=lambda cell: model),
            training=SimpleNamespace(train=None),
        )

    return make


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        (("arms=zero-shot",), "voxels of others"),
        (("arms=subject-layer",), "no subject-layer"),
        (("arms=zero-shot,fine-tuning", "alignments=euclidean"), "voxels of others"),
    ],
)
def test_arms_that_no_model_has_are_refused(job, keys, reason):
    with pytest.raises(BrainhiveError) as caught:
        require_arms(job(*keys))
    assert reason in caught.value.message


def test_one_arm_is_enough(job, monkeypatch):
    require_arms(job("arms=zero-shot,transfer"))
    monkeypatch.setattr(Base, "encode", lambda *arguments: None)
    require_arms(job("arms=zero-shot,subject-layer"))
