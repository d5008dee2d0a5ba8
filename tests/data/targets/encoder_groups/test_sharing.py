"""Networks that run over pictures."""

import torch
from torch import nn

from brainhive_cli.core.runs.launch import Launch
from brainhive_cli.data.targets.encoder_groups import encode


class Network(nn.Module):
    """Keeps whether a GPU's convolutions would round to TF32."""

    def forward(self, images):
        self.rounds = torch.backends.cudnn.allow_tf32
        return images.flatten(1)


def test_convolutions_in_fp32_are_not_rounded_to_tf32_on_a_gpu():
    initial_allow_tf32, network = torch.backends.cudnn.allow_tf32, Network()

    encode(network, torch.zeros(1, 3, 4, 4), "fp32", Launch(0, 1, torch.device("cpu")))

    assert initial_allow_tf32
    assert not network.rounds
    assert torch.backends.cudnn.allow_tf32
