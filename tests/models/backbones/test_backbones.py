"""What holds for every brain encoder: any size of signal, training, and clear errors."""

import pytest
import torch
from layouts import one_token, spec_of

from brainhive_cli.core import parts
from brainhive_cli.core.errors import BrainhiveError, MissingExtra
from brainhive_cli.measurement.retrieval import depends_on_other_trials
from brainhive_cli.training.alignment.model import Aligner

KINDS = [kind for kind in parts.kinds("backbones") if not parts.load("backbones", kind).Config.takes_spec]
"""Those that give one vector; the others are built for heads by name, and have tests of their own."""


def tiny(kind, channels, samples):
    try:
        return parts.load("backbones", kind).TINY.build(channels, samples, 16, subjects=2)
    except MissingExtra as error:
        pytest.skip(error.in_one_line)


@pytest.mark.parametrize("kind", KINDS)
def test_sizes_follow_from_the_signal_whose_token_is_its_own(kind):
    """It does not depend on the other signals of a batch."""
    for channels, samples in ((17, 250), (271, 201)):
        model = tiny(kind, channels, samples)

        token = model(torch.randn(3, channels, samples), torch.tensor([0, 1, 0]))

        assert token.shape == (3, 16)
        assert token.isfinite().all()
    with torch.inference_mode():
        assert not depends_on_other_trials(tiny(kind, 17, 250).eval(), torch.randn(20, 17, 250))


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_every_parameter_and_dropout_is_for_training_only(kind):
    torch.manual_seed(0)
    model = tiny(kind, 5, 160)
    signal, subject = torch.randn(4, 5, 160), torch.tensor([0, 1, 0, 1])

    first, second = model(signal, subject), model(signal, subject)
    first.square().mul(torch.randn(16)).sum().backward()
    model.eval()

    assert all(p.grad is not None for p in model.parameters())
    assert not torch.equal(first, second)
    assert torch.equal(model(signal, subject), model(signal, subject))


@pytest.mark.parametrize("shape", [(4, 6, 100), (4, 5, 99), (5, 100)])
def test_a_signal_of_another_size_is_refused_naming_both(shape):
    settings = parts.load("backbones", "nice").TINY.model_dump()
    model = Aligner(one_token(spec_of(tuple("ABCDE"), 100), 16, {"one": 4}, backbone=settings))

    with pytest.raises(BrainhiveError, match=r"signals \[B, 5, 100\].* got \["):
        model.predict(torch.zeros(shape))


@pytest.mark.parametrize("kind", ["linear", "brain_mlp", "voxel_ridge"])
def test_voxels_are_channels_of_one_sample(kind):
    model = tiny(kind, 40, 1).eval()
    voxels, subject = torch.randn(3, 40, 1), torch.tensor([1, 0, 1])

    token = model(voxels, subject)

    assert token.shape == (3, 16)
    assert not torch.equal(token, model(voxels * (torch.arange(40) < 39)[:, None], subject))


FLATTENED = [
    ("nice", 250, 1440),
    ("nice", 200, 1040),
    ("atm", 250, 1440),
    ("atm", 200, 1040),
    ("shallow_net", 250, 1440),
    ("shallow_net", 200, 1040),
    ("ts_conv", 250, 1440),
    ("ts_conv", 200, 1040),
    ("deep_net", 250, 1400),
    ("deep_net", 200, 800),
    ("eeg_net", 250, 1248),
    ("eeg_net", 201, 864),
]
"""The reference's sizes for EEG and MEG, whose windows have 250 and 201 samples (200 make 848 of EEGNet's
864 and change no other)."""


@pytest.mark.parametrize(("kind", "samples", "features"), FLATTENED)
def test_the_flattened_size_is_computed(kind, samples, features):
    model = parts.load("backbones", kind).Config().build(4, samples, 8)
    head = model.proj_eeg[0] if hasattr(model, "proj_eeg") else model.project[1]

    assert head.in_features == features


LEAST = {
    "nice": 75,
    "atm": 75,
    "shallow_net": 75,
    "ts_conv": 75,
    "eeg_net": 95,
    "deep_net": 151,
}


@pytest.mark.parametrize(("kind", "least"), LEAST.items())
def test_a_window_shorter_than_the_filters_is_refused(kind, least):
    config = parts.load("backbones", kind).Config()

    with pytest.raises(
        BrainhiveError, match=f"{least - 1} samples, the brain encoder's filters need {least}"
    ):
        config.build(3, least - 1, 8)

    assert config.build(3, least, 8).eval()(torch.zeros(2, 3, least)).shape == (2, 8)


@pytest.mark.parametrize(("late", "expected"), [(None, 0.25), (0.5, 0.5), (0.0, 0.0)])
def test_atm_drops_behind_its_convolutions_as_told_and_in_its_attention_as_ever(late, expected):
    model = parts.load("backbones", "atm").Config(convolution_dropout=late).build(4, 100, 8)

    rates = {name: part.p for name, part in model.named_modules() if isinstance(part, torch.nn.Dropout)}

    assert {rate for name, rate in rates.items() if not name.startswith("encoder.")} == {expected}
    early = [rate for name, rate in rates.items() if name.startswith("encoder.")]
    assert len(rates) - len(early) == 2 and {*early} == {0.25}


@pytest.mark.parametrize("kind", ["atm", "voxel_ridge"])
def test_a_subject_of_its_own_counts_and_an_unknown_one_is_the_mean_of_those_learned(kind):
    torch.manual_seed(0)
    model = tiny(kind, 5, 100).eval()
    signal, first = torch.randn(2, 5, 100), torch.tensor([0, 0])

    assert not torch.equal(model(signal, first), model(signal, 1 - first))

    learned = {
        name: value
        for name, value in model.state_dict().items()
        if name.endswith("subject_embedding.weight") or name in ("weight", "bias")
    }
    unknown = model(signal, None)
    model.load_state_dict(
        {name: value.mean(0, keepdim=True).expand_as(value) for name, value in learned.items()}, strict=False
    )
    assert learned
    torch.testing.assert_close(unknown, model(signal, first))
