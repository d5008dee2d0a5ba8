"""AdamW without torch's compiler, compared with the original."""

import copy
import sys

import pytest
import torch
from torch import nn

from brainhive_cli.models.adamw import AdamW


def train(kind, network, start=None):
    """Take five steps. Return the weights, and the state before the last two."""
    random = torch.Generator().manual_seed(1)
    groups = [
        {"params": [network.weight], "weight_decay": 0.3},
        {"params": [network.bias], "weight_decay": 0.0},
    ]
    optimizer = kind(groups, 1e-2, betas=(0.8, 0.95), fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=8)
    state = None
    for step in range(5):
        if step == 3:
            optimizer.load_state_dict(start or optimizer.state_dict())
            state = copy.deepcopy(optimizer.state_dict())
        signal = torch.randn(6, 4, generator=random)
        network(signal).square().mean().backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
    return [parameter.detach().clone() for parameter in network.parameters()], state


@pytest.mark.nightly  # torch's own loads its compiler
def test_steps_and_state_are_those_of_torch():
    network = nn.Linear(4, 3)
    second = copy.deepcopy(network)
    third = copy.deepcopy(network)

    weights, state = train(torch.optim.AdamW, network)
    same_weights, same_state = train(AdamW, second)
    # a checkpoint of torch's AdamW is read by ours
    mixed_weights, _ = train(AdamW, third, copy.deepcopy(state))

    assert same_state["param_groups"] == state["param_groups"]
    for number, values in state["state"].items():
        for name, value in values.items():
            assert torch.equal(value, same_state["state"][number][name])
    for weight, same_weight, mixed in zip(
        weights, same_weights, mixed_weights, strict=True
    ):
        assert torch.equal(weight, same_weight)
        assert torch.equal(weight, mixed)


def test_a_step_does_not_import_the_compiler(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch._dynamo", None)  # its import now fails
    weight = nn.Parameter(torch.ones(2))
    optimizer = AdamW([weight], 1e-3, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=4)
    weight.sum().backward()
    optimizer.step()
    schedule.step()
    optimizer.zero_grad()
    optimizer.load_state_dict(optimizer.state_dict())
    assert (weight < 1).all()
