"""Dropout that does not depend on how many processes share a batch."""

import pytest
import torch
from torch import nn

from brainhive_cli.core.launch import Launch
from brainhive_cli.models import blocks
from brainhive_cli.training.alignment.loop import by_row

SEED = 7


class Net(nn.Module):
    """Dropout of rows, of channels that lie transposed in memory, and of rows in two pieces each."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Dropout(0.5), nn.Dropout(0.3), blocks.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [B, C, T]
        x = self.second(self.first(x).transpose(1, 2)).transpose(1, 2)
        return self.third(x.reshape(2 * len(x), -1)).view_as(x)


def shared(net: nn.Module, x: torch.Tensor, processes: int, seed: int = SEED) -> torch.Tensor:
    """Compute each process's share of a batch, as it would, and join them."""
    made = []
    for rank in range(processes):
        launch = Launch(rank, processes, torch.device("cpu"))
        torch.manual_seed(seed + rank)  # other noise differs by process
        with by_row(launch, len(x), 1, seed):
            made.append(net(torch.stack([*launch.shard(x)])))
    return torch.cat(made)


@pytest.mark.parametrize("processes", [2, 3])
def test_a_shared_batch_has_the_dropout_of_one_process(processes: int) -> None:
    net, x = Net(), torch.randn(7, 4, 6)
    expected = shared(net, x, 1)
    assert 0.1 < (expected == 0).float().mean() < 0.95
    assert torch.equal(shared(net, x, processes), expected)
    assert not torch.equal(shared(net, x, processes, SEED + 1), expected)


def test_what_is_evaluated_and_other_noise_are_as_without() -> None:
    net, x = Net().eval(), torch.randn(6, 4, 6)
    assert torch.equal(shared(net, x, 2), x)
    launch = Launch(1, 2, torch.device("cpu"))
    torch.manual_seed(3)
    with by_row(launch, 6, 1, SEED):
        nn.Dropout(0.5)(torch.ones(3, 4))
        found = torch.rand(5)
    torch.manual_seed(3)
    assert torch.equal(found, torch.rand(5))
