"""Behaviour of every backbone that predicts a vector."""

import pytest
import torch

from brainhive_cli.core.base.errors import BrainhiveError, MissingExtra
from brainhive_cli.core.recipes import parts
from brainhive_cli.measurement.retrieval import depends_on_other_trials
from brainhive_cli.models import backbones
from brainhive_cli.models.backbones import spatial_mlp
from brainhive_cli.training.alignment.model import Aligner
from tests.worlds.model_layouts import make_signal_spec, make_token_layout

KINDS = [
    kind
    for kind in parts.list_kinds("backbones")
    if not parts.load("backbones", kind).Config.takes_spec
]
"""Kinds that predict a single vector."""


def build_tiny(kind, channels, samples):
    """Make a small model of two subjects, with tokens of width 16."""
    return parts.load("backbones", kind).TINY.build(channels, samples, 16, subjects=2)


def build_all(channels, samples):
    """Make a model of every kind whose library is installed."""
    for kind in KINDS:
        try:
            yield kind, build_tiny(kind, channels, samples)
        except MissingExtra:
            continue


def test_signals_of_any_size_become_tokens():
    for channels, samples in ((17, 250), (271, 201)):
        for kind, model in build_all(channels, samples):
            token = model(torch.randn(3, channels, samples), torch.tensor([0, 1, 0]))

            assert token.shape == (3, 16), kind
            assert token.isfinite().all(), kind


def test_a_token_does_not_depend_on_other_signals_of_the_batch():
    signal = torch.randn(20, 17, 250)
    with torch.inference_mode():
        for kind, model in build_all(17, 250):
            assert not depends_on_other_trials(model.eval(), signal), kind


def test_all_parameters_get_gradients_and_only_training_drops():
    torch.manual_seed(0)
    signal = torch.randn(4, 5, 160)
    subject = torch.tensor([0, 1, 0, 1])
    for kind, model in build_all(5, 160):
        output = model(signal, subject)
        second = model(signal, subject)
        output.square().mul(torch.randn(16)).sum().backward()
        model.eval()

        assert all(p.grad is not None for p in model.parameters()), kind
        assert not torch.equal(output, second), kind
        assert torch.equal(model(signal, subject), model(signal, subject)), kind


def test_a_signal_of_another_size_is_refused():
    settings = parts.load("backbones", "nice").TINY.model_dump()
    spec = make_signal_spec(tuple("ABCDE"), 100)
    model = Aligner(make_token_layout(spec, 16, {"one": 4}, backbone=settings))

    with pytest.raises(BrainhiveError, match=r"\[B, 5, 100\].*\[4, 6, 100\]"):
        model.predict(torch.zeros(4, 6, 100))


def test_a_window_shorter_than_the_filters_is_refused():
    config = parts.load("backbones", "nice").Config()

    with pytest.raises(BrainhiveError, match=r"74 samples.*75"):
        config.build(3, 74, 8)
    assert config.build(3, 75, 8).eval()(torch.zeros(2, 3, 75)).shape == (2, 8)


def test_voxels_are_channels_of_one_sample():
    voxels = torch.randn(3, 40, 1)
    subject = torch.tensor([1, 0, 1])
    without_last = voxels * (torch.arange(40) < 39)[:, None]
    for kind in ("linear", "brain_mlp", "voxel_ridge"):
        model = build_tiny(kind, 40, 1).eval()

        token = model(voxels, subject)

        assert token.shape == (3, 16)
        assert not torch.equal(token, model(without_last, subject))


@pytest.mark.parametrize("kind", ["atm", "voxel_ridge"])
def test_a_new_subject_gets_the_mean_of_the_learned_parameters(kind):
    torch.manual_seed(0)
    model = build_tiny(kind, 5, 100).eval()
    signal = torch.randn(2, 5, 100)
    subject = torch.tensor([0, 0])
    assert not torch.equal(model(signal, subject), model(signal, 1 - subject))

    token = model(signal, None)

    means = {}
    for name, value in model.state_dict().items():
        is_of_subjects = name in ("weight", "bias")
        if is_of_subjects or name.endswith("subject_embedding.weight"):
            means[name] = value.mean(0, keepdim=True).expand_as(value)
    model.load_state_dict(means, strict=False)
    assert means
    torch.testing.assert_close(token, model(signal, subject))


def test_negative_filters_are_reflected_before_a_step():
    """Source: Conv2dWithAbs of VBP, which overwrites the weights in each forward."""
    filters = spatial_mlp.NonNegativeFilters(2, 1)
    with torch.no_grad():
        filters.weight.copy_(torch.tensor([[[0.5], [-0.25]]]))
    signal = torch.tensor([[[1.0], [2.0]]])

    evaluated = filters.eval()(signal)
    assert filters.weight.flatten().tolist() == [0.5, -0.25]
    filters.train()(signal).sum().backward()

    assert evaluated.item() == 1.0
    assert filters.weight.flatten().tolist() == [0.5, 0.25]
    # the gradient has the sign of a positive weight
    assert filters.weight.grad.flatten().tolist() == [1.0, 2.0]


class _Wrapper(torch.nn.Module):
    """Network that delegates attributes, as networks of `torch.compile` do."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("network"), name)


class _Learner(torch.nn.Module):
    """Backbone that replaces a target in training."""

    def learn(self, signal, subject_index, targets, context):
        """Return predictions, and a target of ones."""
        return {"token": signal.flatten(1)}, {"token": torch.ones(2)}


def test_a_wrapped_backbone_keeps_its_learn():
    signal = torch.zeros(2, 3, 4)

    _, replaced = backbones.learn(_Wrapper(_Learner()), {}, signal, None, {}, None)

    assert replaced["token"].tolist() == [1, 1]
