"""A convolution and its pooling in one."""

import torch
from torch import nn

from brainhive_cli.models.backbones.brain_projection import PooledConvolution

ROUNDING = 1e-5


def test_it_is_the_convolution_and_the_pooling_after_it_with_their_gradients() -> None:
    torch.manual_seed(0)
    one = PooledConvolution(4, kernel=7, pool=11, stride=3)
    convolution = nn.Conv2d(1, 4, (1, 7))
    convolution.load_state_dict(one.state_dict())
    two = nn.Sequential(convolution, nn.AvgPool2d((1, 11), (1, 3)))
    signal = torch.randn(2, 1, 5, 40)

    found, expected = one(signal), two(signal)
    found.square().sum().backward()
    expected.square().sum().backward()

    assert found.shape == expected.shape == (2, 4, 5, 8)
    assert torch.allclose(found, expected, atol=ROUNDING)
    assert torch.allclose(one.weight.grad, convolution.weight.grad, atol=1e-3, rtol=ROUNDING)
    assert torch.allclose(one.bias.grad, convolution.bias.grad, atol=1e-3, rtol=ROUNDING)
