"""Voxel ridge: a map for each subject, and the penalty on the maps."""

import pytest
import torch

from brainhive_cli.models import Head, SignalSpec, backbones
from brainhive_cli.models.backbones.voxel_ridge import Config


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = Config(hidden=8).build(6, 1, 4, subjects=3).eval()
    model.l2 = 0.0
    return model


def test_the_penalty_adds_the_gradient_of_the_squared_weights(model):
    voxels = torch.randn(4, 6, 1)
    subject = torch.tensor([0, 1, 0, 1])

    def gradient(l2):
        model.l2 = l2
        model.zero_grad()
        model(voxels, subject).square().sum().backward()
        return model.weight.grad

    penalty = 0.3 * model.weight.square().sum()
    (expected,) = torch.autograd.grad(penalty, model.weight)
    torch.testing.assert_close(gradient(0.3) - gradient(0.0), expected)


def test_subjects_may_differ_in_their_number_of_voxels():
    spec = SignalSpec((), 1, (1, 2), (3, 5))
    model = backbones.build(Config(hidden=8), spec, {"image": Head((4,))}).eval()
    voxels = torch.randn(2, 3, 1)
    subject = torch.zeros(2, dtype=torch.long)

    token = model(voxels, subject)

    assert model.channels == 5
    padded = torch.cat([voxels, torch.zeros(2, 2, 1)], 1)
    torch.testing.assert_close(token, model(padded, subject))
