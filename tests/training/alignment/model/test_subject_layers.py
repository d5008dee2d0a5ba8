"""Subject layers, and batch normalisation over several processes."""

from dataclasses import replace

import torch
from torch import nn

from brainhive_cli.core.runs.launch import Launch
from brainhive_cli.models.blocks import ChannelMixing
from brainhive_cli.training.alignment.model import Aligner
from brainhive_cli.training.alignment.training.initialisation import load_start
from brainhive_cli.training.alignment.training.loop import synchronise_batch_norm
from tests.worlds.model_layouts import make_signal_spec, make_token_layout

LAYOUT = make_token_layout(
    make_signal_spec(tuple("ABCDE"), 160, (3, 1, 2)), 8, {"vae": 6}
)
SIGNAL, SUBJECT = (
    torch.randn(4, 5, 160, generator=torch.Generator().manual_seed(0)),
    torch.tensor([0, 1, 2, 0]),
)


def test_a_new_subject_gets_the_mean_of_the_subject_layers():
    torch.manual_seed(0)
    layer = ChannelMixing(3, 5)
    assert torch.equal(layer(SIGNAL, SUBJECT), SIGNAL)
    for parameter in layer.parameters():
        parameter.data += torch.randn_like(parameter)

    outputs, second_layer = (
        layer(SIGNAL, SUBJECT),
        layer(SIGNAL, torch.tensor([0, 1, 2, 1])),
    )
    assert torch.equal(outputs[:3], second_layer[:3])
    assert not torch.allclose(outputs[3], second_layer[3])
    stacked = torch.stack(
        [layer(SIGNAL, torch.full((4,), subject)) for subject in range(3)]
    )
    torch.testing.assert_close(layer(SIGNAL, None), stacked.mean(0))


def test_a_new_subject_begins_as_the_mean_of_those_learned(tmp_path):
    for change in ({"subject_layer": "linear"}, {"backbone": {"kind": "voxel_ridge"}}):
        torch.manual_seed(0)
        learned = Aligner(replace(LAYOUT, **change)).eval()
        for parameter in learned.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
        new_aligner = Aligner(
            replace(LAYOUT, spec=make_signal_spec(tuple("ABCDE"), 160, (7,)), **change)
        ).eval()

        learned.losses = {"0.logit_scale": torch.tensor(3.0)}
        learned.save(tmp_path)
        load_start(new_aligner, tmp_path)

        torch.testing.assert_close(
            new_aligner.encode_signal(SIGNAL, 0 * SUBJECT),
            learned.encode_signal(SIGNAL, None),
        )
        assert (
            new_aligner.losses == learned.losses == {"0.logit_scale": torch.tensor(3.0)}
        )


CPU, GPU = torch.device("cpu"), torch.device("cuda")


def aligner(kind):
    torch.manual_seed(0)
    return Aligner(
        make_token_layout(
            make_signal_spec(("Oz",), 250), 16, {"e": 8}, backbone={"kind": kind}
        )
    )


def synchronised(model):
    return sum(isinstance(module, nn.SyncBatchNorm) for module in model.modules())


def test_batch_statistics_and_weights_are_shared_between_gpus():
    plain_aligner = aligner("eeg_net")
    joint_synchronise_batch_norm = synchronise_batch_norm(
        aligner("eeg_net"), Launch(0, 2, GPU)
    )

    assert synchronised(plain_aligner) == 0
    assert synchronised(joint_synchronise_batch_norm) == 3
    assert all(
        torch.equal(plain_aligner.state_dict()[name], weight)
        for name, weight in joint_synchronise_batch_norm.state_dict().items()
    )
    assert (
        plain_aligner.state_dict().keys()
        == joint_synchronise_batch_norm.state_dict().keys()
    )
