"""The layer that is learned for each subject, before any brain encoder."""

from dataclasses import replace

import pytest
import torch
from layouts import one_token, spec_of

from brainhive_cli.core import parts
from brainhive_cli.core.errors import MissingExtra
from brainhive_cli.models.blocks import ChannelMixing
from brainhive_cli.training.alignment.initialisation import take_over
from brainhive_cli.training.alignment.model import Aligner

LAYOUT = one_token(spec_of(tuple("ABCDE"), 160, (3, 1, 2)), 8, {"vae": 6})
SIGNAL, SUBJECT = (
    torch.randn(4, 5, 160, generator=torch.Generator().manual_seed(0)),
    torch.tensor([0, 1, 2, 0]),
)


def learned():
    torch.manual_seed(0)
    layer = ChannelMixing(3, 5)
    for parameter in layer.parameters():
        parameter.data += torch.randn_like(parameter)
    return layer


def test_it_starts_neutral():
    assert torch.equal(ChannelMixing(3, 5)(SIGNAL, SUBJECT), SIGNAL)


def test_once_learned_it_changes_with_the_subject_alone():
    layer = learned()

    out, again = layer(SIGNAL, SUBJECT), layer(SIGNAL, torch.tensor([0, 1, 2, 1]))

    assert torch.equal(out[:3], again[:3])
    assert not torch.allclose(out[3], again[3])


def test_an_unknown_subject_is_the_mean_of_those_learned():
    layer = learned()

    each = torch.stack([layer(SIGNAL, torch.full((4,), subject)) for subject in range(3)])

    torch.testing.assert_close(layer(SIGNAL, None), each.mean(0))


@pytest.mark.parametrize("kind", parts.kinds("backbones"))
def test_it_stands_before_any_brain_encoder_and_learns(kind):
    torch.manual_seed(0)
    config = parts.load("backbones", kind).TINY
    if config.takes_spec:
        pytest.skip("it has input layers of its own for each subject")
    backbone = config.model_dump(mode="json")
    try:
        model = Aligner(replace(LAYOUT, backbone=backbone, subject_layer="linear"))
    except MissingExtra as error:
        pytest.skip(error.in_one_line)

    model.encode_signal(SIGNAL, SUBJECT).square().mul(torch.randn(8)).sum().backward()

    for parameter in model.subject_layer.parameters():
        assert all(parameter.grad[subject].abs().sum() > 0 for subject in range(3))
    assert model.eval().encode_signal(SIGNAL, None).shape == (4, 8)


@pytest.mark.parametrize(
    "change",
    [
        {"subject_layer": "linear"},
        *({"backbone": {"kind": kind}} for kind in ("atm", "voxel_ridge")),
    ],
)
def test_a_new_subject_begins_as_the_mean_of_those_learned(change, tmp_path):
    torch.manual_seed(0)
    learned = Aligner(replace(LAYOUT, **change)).eval()
    for parameter in learned.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    new = Aligner(replace(LAYOUT, spec=spec_of(tuple("ABCDE"), 160, (7,)), **change)).eval()

    learned.losses = {"0.logit_scale": torch.tensor(3.0)}
    learned.save(tmp_path)
    take_over(new, tmp_path)

    torch.testing.assert_close(new.encode_signal(SIGNAL, 0 * SUBJECT), learned.encode_signal(SIGNAL, None))
    assert new.losses == learned.losses == {"0.logit_scale": torch.tensor(3.0)}
