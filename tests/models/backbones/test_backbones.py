"""What holds for every brain encoder: any size of signal, training, and clear
errors.
"""

import pytest
import torch

from brainhive_cli.core import parts
from brainhive_cli.core.errors import BrainhiveError, MissingExtra
from brainhive_cli.measurement.retrieval import depends_on_other_trials
from brainhive_cli.models.backbones import spatial_mlp
from brainhive_cli.training.alignment.model import Aligner
from tests.worlds.model_layouts import one_token, spec_of

KINDS = [
    kind
    for kind in parts.list_kinds("backbones")
    if not parts.load("backbones", kind).Config.takes_spec
]
"""Those that give one vector; the others are built for heads by name, and have tests of
their own.
"""


def tiny(kind, channels, samples):
    return parts.load("backbones", kind).TINY.build(channels, samples, 16, subjects=2)


def models(channels, samples):
    """Every kind whose library is installed."""
    for kind in KINDS:
        try:
            yield kind, tiny(kind, channels, samples)
        except MissingExtra:
            continue


def test_sizes_follow_from_the_signal_whose_token_is_its_own():
    """It does not depend on the other signals of a batch."""
    for channels, samples in ((17, 250), (271, 201)):
        for kind, model in models(channels, samples):
            token = model(torch.randn(3, channels, samples), torch.tensor([0, 1, 0]))

            assert token.shape == (3, 16) and token.isfinite().all(), kind
    with torch.inference_mode():
        for kind, model in models(17, 250):
            assert not depends_on_other_trials(
                model.eval(), torch.randn(20, 17, 250)
            ), kind


def test_gradients_reach_every_parameter_and_dropout_is_for_training_only():
    torch.manual_seed(0)
    for kind, model in models(5, 160):
        signal, subject = torch.randn(4, 5, 160), torch.tensor([0, 1, 0, 1])

        first, second = model(signal, subject), model(signal, subject)
        first.square().mul(torch.randn(16)).sum().backward()
        model.eval()

        assert all(p.grad is not None for p in model.parameters()), kind
        assert not torch.equal(first, second), kind
        assert torch.equal(model(signal, subject), model(signal, subject)), kind


def test_a_signal_of_another_size_and_a_window_shorter_than_the_filters_are_refused():
    settings = parts.load("backbones", "nice").TINY.model_dump()
    model = Aligner(
        one_token(spec_of(tuple("ABCDE"), 100), 16, {"one": 4}, backbone=settings)
    )
    config = parts.load("backbones", "nice").Config()

    with pytest.raises(BrainhiveError, match=r"signals \[B, 5, 100\].* got \["):
        model.predict(torch.zeros(4, 6, 100))
    with pytest.raises(
        BrainhiveError, match="74 samples, the brain encoder's filters need 75"
    ):
        config.build(3, 74, 8)
    assert config.build(3, 75, 8).eval()(torch.zeros(2, 3, 75)).shape == (2, 8)


def test_voxels_are_channels_of_one_sample():
    for kind in ("linear", "brain_mlp", "voxel_ridge"):
        model = tiny(kind, 40, 1).eval()
        voxels, subject = torch.randn(3, 40, 1), torch.tensor([1, 0, 1])

        token = model(voxels, subject)

        assert token.shape == (3, 16)
        assert not torch.equal(
            token, model(voxels * (torch.arange(40) < 39)[:, None], subject)
        )


def test_a_subject_of_its_own_counts_and_an_unknown_one_is_the_mean_of_those_learned():
    for kind in ("atm", "voxel_ridge"):
        torch.manual_seed(0)
        model = tiny(kind, 5, 100).eval()
        signal, first = torch.randn(2, 5, 100), torch.tensor([0, 0])
        assert not torch.equal(model(signal, first), model(signal, 1 - first))

        unknown, state = model(signal, None), model.state_dict()
        learned = [
            n
            for n in state
            if n.endswith("subject_embedding.weight") or n in ("weight", "bias")
        ]
        means = {
            name: state[name].mean(0, keepdim=True).expand_as(state[name])
            for name in learned
        }
        model.load_state_dict(means, strict=False)
        assert learned
        torch.testing.assert_close(unknown, model(signal, first))


def test_negative_filters_are_reflected_before_a_step() -> None:
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
    # so that a reflected weight moves as one above 0
    assert filters.weight.grad.flatten().tolist() == [1.0, 2.0]
